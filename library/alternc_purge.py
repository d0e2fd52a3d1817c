#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_purge
short_description: Delete a member who has left an AlternC panel, with all there is of him
description:
  - Refuses, with what is missing, unless the member has been shut for 30 days (C(alternc-apply) notes since when), an
    export was handed over (C(infini leave)), and a verified backup of the last 7 days holds as much of everything as
    the panel does (C(/var/lib/infini/backups/verified.json)).
  - Then it is M(alternc_members) with O(member) in C(remove).
options:
  member:
    description: Login.
    type: str
    required: true
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Delete a member who left a month ago
  alternc_purge:
    member: velo
"""

RETURN = r"""
removed: {description: The member., type: list, elements: str, returned: success}
refused: {description: Whether nothing was touched because the rule forbids it., type: bool, returned: failure}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import alternc_door, leaving
from ansible.module_utils.hosting.alternc_sets_door import answer


def main():
    """Judge, then remove."""
    module = AnsibleModule(argument_spec={"member": {"type": "str", "required": True}}, supports_check_mode=True)
    login = module.params["member"]
    try:
        panel = alternc_door.read()
    except alternc_door.PanelError as error:
        module.fail_json(msg=str(error))
    why = leaving.refusal(
        login,
        panel,
        leaving.read(leaving.ENGINE).get("shut", {}),
        leaving.read(leaving.EXPORTS / f"{login}.json"),
        leaving.read(leaving.BACKUPS),
        time.time(),
    )
    if why:
        module.fail_json(msg=why, refused=True)
    wanted = {"members": [], "prune": False, "remove": [login]}
    result = answer(wanted, module="alternc_members", check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
