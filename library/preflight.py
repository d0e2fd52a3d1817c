# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: preflight
short_description: Refuse an inventory that cannot work, before any host is touched
description:
  - Checks a host's variables against the contracts of all roles that the plays apply to it (mistyped nested keys,
    missing variables, unknown names) and the members' accounts and sites as a whole (two sites with one name, a PHP
    version that does not exist, an unknown account).
  - It is an action plugin and runs on the control node only.
author: Infini
"""

EXAMPLES = r"""
- name: Refuse an inventory that cannot work
  preflight:
"""

RETURN = r"""
notices:
  description: One sentence for each thing that works today and will not for ever, such as sites on a PHP that retires.
  type: list
  elements: str
  returned: success
msg:
  description: One sentence for each thing that is wrong, with the mend.
  type: str
  returned: failed
"""
