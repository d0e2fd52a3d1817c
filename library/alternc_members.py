#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_members
short_description: Own the whole set of members of an AlternC panel
description:
  - A member that is no longer declared is shut, never deleted; only those named in O(remove) go, with all they hold.
  - C(admin), AlternC's own administrator, is left alone unless it is declared.
  - Reads the panel's database and writes through AlternC's own classes, so that its hooks run; only where something
    differs.
  - Does not propagate anything to Apache, DNS or mail; C(alternc-apply now) does, once after all of these
    modules.
options:
  members:
    description: The whole set.
    type: list
    elements: dict
    required: true
    suboptions:
      login: {description: "Login, 1 to 14 small letters and digits.", type: str, required: true}
      name: {description: Family name., type: str, default: ""}
      first_name: {description: First name., type: str, default: ""}
      mail: {description: Mail address outside of the panel., type: str, default: ""}
      profile: {description: Profile that gives its quotas at creation., type: str, default: default}
      enabled: {description: Whether the member may enter the panel., type: bool, default: true}
      admin: {description: Whether the member administers the panel., type: bool, default: false}
      notes: {description: Notes of the administrators., type: str, default: ""}
      duration: {description: Months until renewal; V(0) is without end., type: int, default: 0}
      password: {description: "Password; without one, one that nobody knows.", type: str}
      password_hash: {description: "Its bcrypt hash instead, from another panel.", type: str}
  prune:
    description: Whether members that are no longer declared are shut.
    type: bool
    default: true
  remove:
    description: Logins that are deleted with everything they hold.
    type: list
    elements: str
    default: []
  confirm_removals:
    description: Those that may be shut although they are many at once.
    type: list
    elements: str
    default: []
  scope:
    description: Logins of the members that the set owns; all without it. Others are refused in it and left alone.
    type: list
    elements: str
  update_password:
    description: Whether a declared password is set at creation only, or again wherever it is not the current one.
    type: str
    choices: [on_create, always]
    default: on_create
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the members
  alternc_members:
    members:
      - {login: velo, name: Pour tous, first_name: Vélo, mail: contact@velo.test}
"""

RETURN = r"""
created: {description: Members made now., type: list, elements: str, returned: always}
mended: {description: Members changed now., type: list, elements: str, returned: always}
shut: {description: Members no longer declared and shut now., type: list, elements: str, returned: always}
removed: {description: Members removed now., type: list, elements: str, returned: always}
kept: {description: Undeclared and kept for what they hold., type: list, elements: str, returned: always}
done: {description: "Where some changes failed, those that were made.", type: list, elements: str, returned: failure}
refusals:
  {description: 'Changes that AlternC refused, each with its words.', type: list, elements: str, returned: failure}
untried:
  {description: Changes not tried because AlternC ended before them., type: list, elements: str, returned: failure}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.alternc_sets_door import MODULES, answer

NAME = "alternc_members"


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=MODULES[NAME].spec, supports_check_mode=True)
    result = answer(module.params, module=NAME, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
