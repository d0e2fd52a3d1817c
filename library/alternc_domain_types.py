#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_domain_types
short_description: Own declared domain types of an AlternC panel
description:
  - A type says what a sub-domain can be, which DNS line it becomes and which Apache template it takes. Versions of
    PHP are types.
  - Only what is declared is owned; other types stay. O(remove) takes a type away, unless a sub-domain has it.
  - Reads the panel's database and writes through AlternC's own classes, so that its hooks run; only where something
    differs.
  - Does not propagate anything to Apache, DNS or mail; C(alternc-apply now) does, once after all of these
    modules.
options:
  types:
    description: The types that are owned.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name., type: str, required: true}
      description: {description: What members read., type: str, default: ""}
      target:
        description: What its value is.
        type: str
        choices: [NONE, URL, DIRECTORY, IP, IPV6, DOMAIN, TXT]
        default: NONE
      entry: {description: "Line of the DNS zone, with C(%SUB%) and C(%TARGET%).", type: str, default: ""}
      compatibility: {description: Types that may stand beside it at one name., type: list, elements: str, default: []}
      enable: {description: Who may choose it., type: str, choices: [ALL, NONE, ADMIN], default: ALL}
      only_dns: {description: Whether it has no site., type: bool, default: false}
      need_dns: {description: Whether it needs the panel's DNS., type: bool, default: false}
      advanced: {description: Whether it stands among the advanced ones., type: bool, default: false}
      create_tmpdir: {description: Whether a folder for temporary files is made., type: bool, default: false}
      create_targetdir: {description: Whether the folder it names is made., type: bool, default: false}
      has_https_option: {description: Whether https is a choice., type: bool, default: false}
  remove:
    description: Types that are removed.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the versions of PHP
  alternc_domain_types:
    types:
      - name: php82-fpm
        description: PHP 8.2
        target: DIRECTORY
        entry: "%SUB% IN A @@PUBLIC_IP@@"
        compatibility: [txt, dkim, defmx, defmx2, mx, mx2]
        create_tmpdir: true
        create_targetdir: true
        has_https_option: true
"""

RETURN = r"""
created: {description: Types made now., type: list, elements: str, returned: always}
mended: {description: Types changed now., type: list, elements: str, returned: always}
shut: {description: Types no longer declared and shut now., type: list, elements: str, returned: always}
removed: {description: Types removed now., type: list, elements: str, returned: always}
kept: {description: Undeclared and kept for what they hold., type: list, elements: str, returned: always}
done: {description: "Where some changes failed, those that were made.", type: list, elements: str, returned: failure}
refusals:
  {description: 'Changes that AlternC refused, each with its words.', type: list, elements: str, returned: failure}
untried:
  {description: Changes not tried because AlternC ended before them., type: list, elements: str, returned: failure}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.alternc_sets_door import MODULES, answer

NAME = "alternc_domain_types"


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=MODULES[NAME].spec, supports_check_mode=True)
    result = answer(module.params, module=NAME, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
