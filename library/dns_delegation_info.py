#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: dns_delegation_info
short_description: Read what every server of the parent zones says of some domains
description:
  - Asks each server of the parent zone directly, at each of its addresses, for the delegation and the DS.
  - Runs on the control node and changes nothing.
options:
  names:
    description: The domains, in ASCII form.
    type: list
    elements: str
    required: true
  resolvers:
    description: Addresses of resolvers that know where the parents' servers are. This machine's by default.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Read the delegation
  dns_delegation_info:
    names: [velo.example]
"""

RETURN = r"""
delegations:
  description: >-
    What is said of each domain: by any server (C(nameservers), C(ds), TTLs in seconds), whether every server answered
    (C(complete)) and said the same (C(agreed)), and each answer.
  type: list
  elements: dict
  returned: success
  sample:
    - domain: velo.example
      nameservers: [ns1.infini.test, ns2.infini.test]
      ds: []
      ns_ttl: 172800
      ds_ttl: 0
      complete: true
      agreed: true
"""

from ansible.module_utils.basic import AnsibleModule

from infini.domains import doors
from infini.domains.dns import LiveDns

SAID = ("nameservers", "ds", "ns_ttl", "ds_ttl", "complete", "agreed")


def main() -> None:
    """Ask, and say."""
    module = AnsibleModule(
        {
            "names": {"type": "list", "elements": "str", "required": True},
            "resolvers": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    with doors.sentences(module.fail_json):
        live = LiveDns(doors.resolvers(module.params["resolvers"]))
        found = [live.delegation(name) for name in module.params["names"]]
        delegations = [{**doors.plain(one), **{key: doors.plain(getattr(one, key)) for key in SAID}} for one in found]
        module.exit_json(changed=False, delegations=delegations)


if __name__ == "__main__":
    main()
