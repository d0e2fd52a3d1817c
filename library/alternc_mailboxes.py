#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_mailboxes
short_description: Own the whole set of mail addresses of an AlternC panel
description:
  - An address is a mailbox, forwards to others, or both; C(@domain) is the catch-all of a domain.
  - A mailbox that is no longer declared is shut and keeps its mails; one that only forwards is removed. O(remove)
    deletes.
  - Addresses of mailing lists and other programs are not in the set and stay as they are. AlternC makes C(postmaster)
    with each domain that hosts mail; declare it to keep it.
  - Reads the panel's database and writes through AlternC's own classes, so that its hooks run; only where something
    differs.
  - Does not propagate anything to Apache, DNS or mail; C(alternc-apply now) does, once after all of these
    modules.
options:
  mailboxes:
    description: The whole set.
    type: list
    elements: dict
    required: true
    suboptions:
      address: {description: "Address; C(@domain) is the catch-all.", type: str, required: true}
      mailbox: {description: Whether mail is kept here., type: bool, default: false}
      quota_mb: {description: Megabytes that it may hold; V(0) is without limit., type: int, default: 0}
      enabled: {description: Whether it is in use., type: bool, default: true}
      forwards: {description: Addresses that get its mail., type: list, elements: str, default: []}
      password: {description: "Password; a mailbox without one lets nobody in.", type: str}
      password_hash: {description: "Its hash instead, C({SHA512-CRYPT}…) from another panel.", type: str}
  prune:
    description: Whether addresses that are no longer declared are shut or removed.
    type: bool
    default: true
  remove:
    description: Addresses that are removed with their mails.
    type: list
    elements: str
    default: []
  confirm_removals:
    description: Those that may be shut or removed although they are many at once.
    type: list
    elements: str
    default: []
  scope:
    description:
      - Logins of the members whose addresses the set owns; everybody's without it.
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
- name: Own the mail addresses
  alternc_mailboxes:
    mailboxes:
      - {address: contact@velo.test, mailbox: true, quota_mb: 500, password: "{{ vault_contact }}"}
      - {address: bureau@velo.test, forwards: [contact@velo.test, ami@chorale.test]}
      - {address: "@velo.test", forwards: [contact@velo.test]}
"""

RETURN = r"""
created: {description: Addresses made now., type: list, elements: str, returned: always}
mended: {description: Addresses changed now., type: list, elements: str, returned: always}
shut: {description: Addresses no longer declared and shut now., type: list, elements: str, returned: always}
removed: {description: Addresses removed now., type: list, elements: str, returned: always}
kept: {description: Undeclared and kept for what they hold., type: list, elements: str, returned: always}
done: {description: "Where some changes failed, those that were made.", type: list, elements: str, returned: failure}
refusals:
  {description: 'Changes that AlternC refused, each with its words.', type: list, elements: str, returned: failure}
untried:
  {description: Changes not tried because AlternC ended before them., type: list, elements: str, returned: failure}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.alternc_sets_door import MODULES, answer

NAME = "alternc_mailboxes"


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=MODULES[NAME].spec, supports_check_mode=True)
    result = answer(module.params, module=NAME, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
