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
from ansible.module_utils.hosting import alternc_module as shared
from ansible.module_utils.hosting import leaving
from ansible.module_utils.hosting.alternc_kinds import MEMBERS


def main():
    """Judge, then remove."""
    module = AnsibleModule(argument_spec={"member": {"type": "str", "required": True}}, supports_check_mode=True)
    login = module.params["member"]
    why = leaving.refusal(
        login,
        shared.read(module),
        leaving.read(leaving.ENGINE).get("shut", {}),
        leaving.read(leaving.EXPORTS / f"{login}.json"),
        leaving.read(leaving.BACKUPS),
        time.time(),
    )
    if why:
        module.fail_json(msg=why, refused=True)
    module.params.update(prune=False, remove=[login])
    shared.main(module, [(MEMBERS, [])])


if __name__ == "__main__":
    main()
