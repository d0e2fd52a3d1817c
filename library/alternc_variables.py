#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_variables
short_description: Own declared variables of an AlternC panel
description:
  - Only what is declared is owned; other variables stay. AlternC reacts to some by itself, a new C(default_spf_value)
    rewrites every domain's record say.
  - Reads the panel's database and writes through AlternC's own classes, so that its hooks run; only where something
    differs.
  - Does not propagate anything to Apache, DNS or mail; C(alternc-apply now) does, once after all of these
    modules.
options:
  variables:
    description: Values by name; all are texts to AlternC, a C(true) is written C(1) and a C(false) C(0).
    type: dict
    required: true
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the variables
  alternc_variables:
    variables:
      force_https: "1"
      default_spf_value: a mx -all
"""

RETURN = r"""
created: {description: Variables made now., type: list, elements: str, returned: always}
mended: {description: Variables changed now., type: list, elements: str, returned: always}
shut: {description: Variables no longer declared and shut now., type: list, elements: str, returned: always}
removed: {description: Variables removed now., type: list, elements: str, returned: always}
kept: {description: Undeclared and kept for what they hold., type: list, elements: str, returned: always}
done: {description: "Where some changes failed, those that were made.", type: list, elements: str, returned: failure}
refusals:
  {description: 'Changes that AlternC refused, each with its words.', type: list, elements: str, returned: failure}
untried:
  {description: Changes not tried because AlternC ended before them., type: list, elements: str, returned: failure}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.alternc_sets_door import MODULES, answer

NAME = "alternc_variables"


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=MODULES[NAME].spec, supports_check_mode=True)
    result = answer(module.params, module=NAME, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
