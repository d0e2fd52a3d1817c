#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_databases
short_description: Own the whole set of databases and database users of an AlternC panel
description:
  - A database that is no longer declared is kept and said; only O(remove) drops it. A user that is no longer declared
    is removed.
  - AlternC makes a user of the same name with each database; it need not be declared, and is left as it is then.
  - A user has every right on its databases and none elsewhere. Users of database servers other than the panel's own
    are not read.
  - Reads the panel's database and writes through AlternC's own classes, so that its hooks run; only where something
    differs.
  - Does not propagate anything to Apache, DNS or mail; C(alternc-apply now) does, once after all of these
    modules.
options:
  databases:
    description: The whole set of databases.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: "Name, the member's login or C(login_word).", type: str, required: true}
      member: {description: Login of its member., type: str, required: true}
  users:
    description: The whole set of users.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: "Name, the member's login or C(login_word).", type: str, required: true}
      member: {description: Login of its member., type: str, required: true}
      databases: {description: Databases on which it has every right., type: list, elements: str, default: []}
      password:
        {description: 'Password; without one, one that nobody knows. AlternC itself keeps it in clear.', type: str}
  prune:
    description: Whether users that are no longer declared are removed.
    type: bool
    default: true
  remove:
    description: Databases that are dropped, and users that are removed.
    type: list
    elements: str
    default: []
  confirm_removals:
    description: Those that may be removed although they are many at once.
    type: list
    elements: str
    default: []
  scope:
    description:
      - Logins of the members whose databases the set owns; everybody's without it.
      - What is declared for others is refused.
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
- name: Own the databases
  alternc_databases:
    databases:
      - {name: velo_spip, member: velo}
    users:
      - {name: velo_spip, member: velo, databases: [velo_spip], password: "{{ vault_velo_spip }}"}
"""

RETURN = r"""
created: {description: Databases and users made now., type: list, elements: str, returned: always}
mended: {description: Databases and users changed now., type: list, elements: str, returned: always}
shut: {description: Databases and users no longer declared and shut now., type: list, elements: str, returned: always}
removed: {description: Databases and users removed now., type: list, elements: str, returned: always}
kept: {description: Undeclared and kept for what they hold., type: list, elements: str, returned: always}
done: {description: "Where some changes failed, those that were made.", type: list, elements: str, returned: failure}
refusals:
  {description: 'Changes that AlternC refused, each with its words.', type: list, elements: str, returned: failure}
untried:
  {description: Changes not tried because AlternC ended before them., type: list, elements: str, returned: failure}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.alternc_sets_door import MODULES, answer

NAME = "alternc_databases"


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=MODULES[NAME].spec, supports_check_mode=True)
    result = answer(module.params, module=NAME, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
