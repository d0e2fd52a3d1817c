#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_units
short_description: Own a whole set of systemd units
description:
  - Enables, disables, starts and stops a whole set of units in as few calls of systemctl as possible.
  - Units that run already are left running; restarts and reloads are the business of handlers.
  - In check mode a unit that the host does not have yet is reported as one that would be started.
options:
  units:
    description: The units of the set. A name without suffix is a service.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the unit., type: str, required: true}
      enabled: {description: Whether it is started at boot., type: bool, default: true}
      state: {description: Whether it runs now., type: str, choices: [started, stopped], default: started}
  prune:
    description:
      - Globs of unit names that are ours alone; those not in O(units) are stopped and disabled.
      - The service that a pruned socket started is stopped with it.
    type: list
    elements: str
    default: []
  leave:
    description: Only name those that would be pruned; a later task stops and disables them.
    type: bool
    default: false
  watch:
    description: Globs of further units (slices, say) whose changed files also call for a daemon-reload.
    type: list
    elements: str
    default: []
  daemon_reload:
    description:
      - Whether systemd reads its files again first; V(auto) asks systemd whether it needs to.
      - With O(prune), which is for large sets, V(auto) does so whenever a unit file is newer than what it has read.
    type: str
    choices: [auto, always, never]
    default: auto
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Run the pools' sockets, and only those
  systemd_units:
    units: "{{ php_pools | map('php_socket') | list }}"
    prune: ["php*@*.socket"]
"""

RETURN = r"""
enabled: {description: Units enabled now., type: list, elements: str, returned: always}
started: {description: Units started now., type: list, elements: str, returned: always}
disabled: {description: Units disabled now., type: list, elements: str, returned: always}
stopped: {description: Units stopped now., type: list, elements: str, returned: always}
left:
  description: With O(leave), the units that run or start at boot and are not wanted.
  type: list
  elements: str
  returned: always
reloaded: {description: Whether systemd read its files again., type: bool, returned: always}
skipped_units:
  description: Units whose own conditions keep them from running on this host.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.units_door import SPEC, answer


def main() -> None:
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    result = answer(module.params, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
