#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_ftp_accounts
short_description: Own the whole set of FTP accounts of an AlternC panel
description:
  - An account that is no longer declared is shut; O(remove) removes it. Files stay in any case.
  - The home of its member has to be there already; C(alternc-apply) makes it after the member is created.
  - Reads the panel's database and writes through AlternC's own classes, so that its hooks run; only where something
    differs.
  - Does not propagate anything to Apache, DNS or mail; C(alternc-apply now) does, once after all of these
    modules.
options:
  accounts:
    description: The whole set.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: "Name, the member's login or domain, and C(_word) if you like.", type: str, required: true}
      member: {description: Login of its member., type: str, required: true}
      directory: {description: "Folder it is confined to, from the member's home down.", type: str, default: /}
      enabled: {description: Whether it is in use., type: bool, default: true}
      password: {description: "Password; without one, one that nobody knows.", type: str}
      password_hash: {description: "Its C($6$) hash instead, from another panel.", type: str}
  prune:
    description: Whether accounts that are no longer declared are shut.
    type: bool
    default: true
  remove:
    description: Accounts that are removed.
    type: list
    elements: str
    default: []
  confirm_removals:
    description: Those that may be shut although they are many at once.
    type: list
    elements: str
    default: []
  scope:
    description:
      - Logins of the members whose accounts the set owns; everybody's without it.
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
- name: Own the FTP accounts
  alternc_ftp_accounts:
    accounts:
      - {name: velo_site, member: velo, directory: /www/velotest, password: "{{ vault_velo_site }}"}
"""

RETURN = r"""
created: {description: Accounts made now., type: list, elements: str, returned: always}
mended: {description: Accounts changed now., type: list, elements: str, returned: always}
shut: {description: Accounts no longer declared and shut now., type: list, elements: str, returned: always}
removed: {description: Accounts removed now., type: list, elements: str, returned: always}
kept: {description: Undeclared and kept for what they hold., type: list, elements: str, returned: always}
done: {description: "Where some changes failed, those that were made.", type: list, elements: str, returned: failure}
refusals:
  {description: 'Changes that AlternC refused, each with its words.', type: list, elements: str, returned: failure}
untried:
  {description: Changes not tried because AlternC ended before them., type: list, elements: str, returned: failure}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.alternc_sets_door import MODULES, answer

NAME = "alternc_ftp_accounts"


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=MODULES[NAME].spec, supports_check_mode=True)
    result = answer(module.params, module=NAME, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
