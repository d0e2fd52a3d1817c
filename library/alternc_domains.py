#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_domains
short_description: Own the whole set of domains of an AlternC panel
description:
  - A domain that is no longer declared is removed; where it holds mailboxes that is refused until O(remove) names it.
  - With a new domain AlternC makes sub-domains (C(www), mail records) and a C(postmaster) address by itself;
    M(alternc_subdomains) and M(alternc_mailboxes) own them afterwards.
  - A domain does not change hands here; that it is another member's is refused.
  - Reads the panel's database and writes through AlternC's own classes, so that its hooks run; only where something
    differs.
  - Does not propagate anything to Apache, DNS or mail; C(alternc-apply now) does, once after all of these
    modules.
options:
  domains:
    description: The whole set.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name., type: str, required: true}
      member: {description: Login of its member., type: str, required: true}
      dns: {description: Whether the panel serves its DNS., type: bool, default: true}
      mail: {description: Whether the panel takes its mail., type: bool, default: true}
      ttl: {description: Seconds that its records may be kept by others., type: int, default: 3600}
      keep: {description: Whether its member may not remove it., type: bool, default: false}
  prune:
    description: Whether domains that are no longer declared are removed.
    type: bool
    default: true
  remove:
    description: Domains that go with the mailboxes they hold.
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
      - Logins of the members whose domains the set owns; everybody's without it.
      - What is declared for others is refused.
    type: list
    elements: str
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the domains
  alternc_domains:
    domains:
      - {name: velo.test, member: velo}
      - {name: chorale.test, member: chorale, mail: false}
"""

RETURN = r"""
created: {description: Domains made now., type: list, elements: str, returned: always}
mended: {description: Domains changed now., type: list, elements: str, returned: always}
shut: {description: Domains no longer declared and shut now., type: list, elements: str, returned: always}
removed: {description: Domains removed now., type: list, elements: str, returned: always}
kept: {description: Undeclared and kept for what they hold., type: list, elements: str, returned: always}
done: {description: "Where some changes failed, those that were made.", type: list, elements: str, returned: failure}
refusals:
  {description: 'Changes that AlternC refused, each with its words.', type: list, elements: str, returned: failure}
untried:
  {description: Changes not tried because AlternC ended before them., type: list, elements: str, returned: failure}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.alternc_sets_door import MODULES, answer

NAME = "alternc_domains"


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=MODULES[NAME].spec, supports_check_mode=True)
    result = answer(module.params, module=NAME, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
