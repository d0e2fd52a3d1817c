#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_health
author: Infini
version_added: "0.1.0"
short_description: Read how a host feels
description:
  - Reads failed units, clock, disks, inodes, memory, pending security upgrades, listening ports, accounts near their
    limits and whether a reboot waits. Gives numbers and codes, no prose; changes nothing.
options:
  units:
    description: Units whose state is wanted, with their type.
    type: list
    elements: str
    default: []
  commands:
    description: Read-only commands to run, each a list of words; each may take five seconds.
    type: list
    elements: list
    default: []
  slices:
    description: Pattern of the accounts' slices; empty for none.
    type: str
    default: ""
  control_time:
    description: The time on the control node, in seconds since 1970; the difference is returned.
    type: float
attributes:
  check_mode:
    description: Reads only.
    support: full
"""

EXAMPLES = r"""
- name: Read the host's health
  host_health:
    units: [haproxy.service]
    slices: members-*.slice
"""

RETURN = r"""
health:
  description: What M(host_health) read, as numbers and codes, by theme.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import health


def main() -> None:
    """Read and report."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": []},
            "commands": {"type": "list", "elements": "list", "default": []},
            "slices": {"type": "str", "default": ""},
            "control_time": {"type": "float"},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, health=health.read(**module.params))


if __name__ == "__main__":
    main()
