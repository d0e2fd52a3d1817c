#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_subdomains
short_description: Own all sub-domains of the domains that are named
description:
  - Owns every row, sites and DNS records, of the domains that the set names; a domain of which it names nothing is
    left alone.
  - AlternC makes some rows by itself for a domain that hosts mail; O(ignore) says which of them stay although they
    are not declared. To reach what an export says exactly, give V([\]).
  - The DKIM row C(alternc._domainkey) is never owned; AlternC makes it of a key on the host's disk.
  - Reads the panel's database and writes through AlternC's own classes, so that its hooks run; only where something
    differs.
  - Does not propagate anything to Apache, DNS or mail; C(alternc-apply now) does, once after all of these
    modules.
options:
  subdomains:
    description: The whole set.
    type: list
    elements: dict
    required: true
    suboptions:
      domain: {description: Domain., type: str, required: true}
      sub: {description: "What stands before it; empty for itself, C(*) for all others.", type: str, default: ""}
      type: {description: "A domain type of the panel, C(vhost), C(url), C(txt)…", type: str, required: true}
      value: {description: "Folder, address or text, as the type wants.", type: str, default: ""}
      https:
        description: C(http), C(https) or C(both) where the type has the choice; both without a word.
        type: str
        choices: ['', http, https, both]
        default: ''
      enabled: {description: Whether it is served., type: bool, default: true}
  ignore:
    description:
      - Families of AlternC's own rows that stay where a domain declares none of the family.
      - C(mx) is its default mail server, C(autodiscover) the settings of mail programs, C(spf) and C(dmarc) its TXT
        records.
    type: list
    elements: str
    choices: [mx, autodiscover, spf, dmarc]
    default: [mx, autodiscover, spf, dmarc]
  prune:
    description: Whether rows that are no longer declared are removed from the domains that the set names.
    type: bool
    default: true
  remove:
    description: Rows that are removed whatever the set owns, as the diff names them.
    type: list
    elements: str
    default: []
  confirm_removals:
    description: Those that may be removed although they are many at once.
    type: list
    elements: str
    default: []
  confirm_domains:
    description: Domains of which any row may be removed, such as those just made, which AlternC gave rows of its own.
    type: list
    elements: str
    default: []
  scope:
    description:
      - Logins of the members whose sub-domains the set owns; everybody's without it.
      - What is declared for others is refused.
    type: list
    elements: str
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the sites and records
  alternc_subdomains:
    subdomains:
      - {domain: velo.test, sub: www, type: php82-fpm, value: /www/velotest, https: https}
      - {domain: velo.test, type: url, value: "https://www.velo.test"}
      - {domain: velo.test, sub: cloud, type: ip, value: 192.0.2.7}
"""

RETURN = r"""
created: {description: Sub-domains made now., type: list, elements: str, returned: always}
mended: {description: Sub-domains changed now., type: list, elements: str, returned: always}
shut: {description: Sub-domains no longer declared and shut now., type: list, elements: str, returned: always}
removed: {description: Sub-domains removed now., type: list, elements: str, returned: always}
kept: {description: Undeclared and kept for what they hold., type: list, elements: str, returned: always}
done: {description: "Where some changes failed, those that were made.", type: list, elements: str, returned: failure}
refusals:
  {description: 'Changes that AlternC refused, each with its words.', type: list, elements: str, returned: failure}
untried:
  {description: Changes not tried because AlternC ended before them., type: list, elements: str, returned: failure}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.alternc_sets_door import MODULES, answer

NAME = "alternc_subdomains"


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=MODULES[NAME].spec, supports_check_mode=True)
    result = answer(module.params, module=NAME, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
