#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: dns_zone_parity
short_description: Compare every answer of a zone's old servers with every answer of its new ones
description:
  - Asks every server, at each of its addresses, over UDP and TCP, for every name of either zone and for one that does
    not exist.
  - A difference is expected only where both zones foretell it. Each run must also find an error that it makes itself.
  - Runs on the control node and changes nothing; a comparison that fails is no failure of the task, see RV(ok).
options:
  name:
    description: The zone.
    type: str
    required: true
  old:
    description: File with what is served now - C(NAME.json) of M(gandi_zone_export), or a zone file.
    type: path
    required: true
  new:
    description: File with what shall be served; the same as O(old) by default.
    type: path
  old_servers:
    description: Names or addresses of the servers of today.
    type: list
    elements: str
    required: true
  new_servers:
    description: Names or addresses of the servers of tomorrow.
    type: list
    elements: str
    required: true
  resolvers:
    description: Addresses of resolvers that know where servers are. This machine's by default.
    type: list
    elements: str
    default: []
  rate:
    description: Questions a second to each address.
    type: float
    default: 20
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Prove that both answer alike
  dns_zone_parity:
    name: velo.example
    old: "{{ inventory_dir }}/exports/velo.example.json"
    new: "{{ inventory_dir }}/zones/velo.example.zone"
    old_servers: [ns-1-a.gandi.net]
    new_servers: [ns1.infini.test]
  register: parity
  failed_when: not parity.ok
"""

RETURN = r"""
ok:
  description: Whether this is proof - something was compared, nothing was unexpected and the planted error was found.
  type: bool
  returned: success
parity:
  description: Numbers of questions and identical answers, and each difference, expected or not.
  type: dict
  returned: success
  sample: {queries: 424, identical: 420, expected: [], unexpected: [], canary_caught: true}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from infini.domains import doors
from infini.domains.dns import LiveDns


def main() -> None:
    """Compare, and say."""
    module = AnsibleModule(
        {
            "name": {"type": "str", "required": True},
            "old": {"type": "path", "required": True},
            "new": {"type": "path"},
            "old_servers": {"type": "list", "elements": "str", "required": True},
            "new_servers": {"type": "list", "elements": "str", "required": True},
            "resolvers": {"type": "list", "elements": "str", "default": []},
            "rate": {"type": "float", "default": 20},
        },
        supports_check_mode=True,
    )
    params = module.params
    with doors.sentences(module.fail_json):
        old, sha256 = doors.zone_file(params["name"], Path(params["old"]))
        new, _ = doors.zone_file(params["name"], Path(params["new"] or params["old"]))
        live = LiveDns(doors.resolvers(params["resolvers"]), rate=params["rate"])
        parity = live.parity(old, new, params["old_servers"], params["new_servers"], sha256)
        module.exit_json(changed=False, ok=parity.ok, parity=doors.plain(parity))


if __name__ == "__main__":
    main()
