#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: bench_hosts
short_description: Make or remove a staging bench
description:
  - Makes the network and all hosts of a bench, starts those that are stopped, pins their SSH host keys and proves
    inside each host that limits bind, sandboxing works, the others are found by name and HTTPS out works.
  - With O(state=absent) removes all that the bench made, and only that.
  - Runs on the control node.
options:
  name:
    description: Name of the bench; everything it makes carries it.
    type: str
    required: true
  state:
    description: Whether the bench shall be there.
    type: str
    choices: [present, absent]
    default: present
  ipv4:
    description: IPv4 subnet of the bench.
    type: str
  ipv6:
    description: IPv6 subnet of the bench.
    type: str
  keys:
    description: SSH key pairs to make beside the bench's own, by their path in its folder.
    type: list
    elements: str
    default: []
  hosts:
    description: All hosts of the bench.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Short name., type: str, required: true}
      fqdn: {description: Fully qualified name., type: str, required: true}
      release: {description: Code name of its Debian release., type: str, required: true}
      ipv4: {description: Address in O(ipv4)., type: str, required: true}
      ipv6: {description: Address in O(ipv6)., type: str, required: true}
      memory: {description: Memory limit as podman takes it., type: str, required: true}
      shows: {description: "Directories of this machine that it sees, by their path there.", type: dict, default: {}}
author: Infini
"""

EXAMPLES = r"""
- name: Make the hosts
  bench_hosts:
    name: staging
    ipv4: 10.77.0.0/24
    ipv6: fd00:77::/64
    hosts: [{name: web, fqdn: web.infini.test, release: bookworm, ipv4: 10.77.0.10, ipv6: "fd00:77::10", memory: 4g}]
"""

RETURN = r"""
engine:
  description: Which way of running containers was taken, and why the ones before it were refused.
  type: dict
  returned: when present
"""

from ansible.module_utils.basic import AnsibleModule

from infini import bench
from infini.errors import InfiniError

HOST = {key: {"type": "str", "required": True} for key in ("name", "fqdn", "release", "ipv4", "ipv6", "memory")}
HOST["shows"] = {"type": "dict", "default": {}}


def main():
    """Be a door to infini.bench.create, check and destroy."""
    module = AnsibleModule(
        {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "ipv4": {"type": "str"},
            "ipv6": {"type": "str"},
            "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "hosts": {"type": "list", "elements": "dict", "default": [], "options": HOST},
        },
        required_if=[("state", "present", ("ipv4", "ipv6", "hosts"))],
    )
    wanted = module.params
    try:
        if wanted["state"] == "absent":
            module.exit_json(changed=bench.destroy(wanted["name"]))
        the_bench = bench.from_inventory(
            wanted["name"], wanted["ipv4"], wanted["ipv6"], wanted["hosts"], wanted["keys"]
        )
        changed = bench.create(the_bench)
        wrong = bench.check(the_bench)
    except InfiniError as error:
        module.fail_json(msg=str(error))
    if wrong:
        module.fail_json(msg="; ".join(wrong))
    module.exit_json(changed=changed, engine=bench.engine(the_bench))


if __name__ == "__main__":
    main()
