#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rdap_domain_info
short_description: Read what the registries say of some domains
description:
  - Asks by RDAP for the registrar, the statuses, the name servers and the dates.
  - Runs on the control node and changes nothing.
options:
  names:
    description: The domains, in ASCII form.
    type: list
    elements: str
    required: true
  bootstrap:
    description: A copy of IANA's list of RDAP servers (RFC 9224). Without it IANA is asked.
    type: path
  url:
    description: One RDAP server for all, instead of those that IANA names.
    type: str
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Read who the registrar is
  rdap_domain_info:
    names: [velo.example]
"""

RETURN = r"""
domains:
  description: What the registry says of each domain.
  type: list
  elements: dict
  returned: success
  sample:
    - domain: velo.example
      registrar: Registrar of the example
      statuses: [client transfer prohibited]
      nameservers: [ns1.infini.test]
      expires: "2027-03-01T00:00:00+00:00"
      transferred: null
"""

import json
from pathlib import Path

import httpx
from ansible.module_utils.basic import AnsibleModule

from infini.domains import doors
from infini.domains.rdap import IANA, Rdap, bootstrap_of


def servers(module):
    """Return the RDAP servers of the operator's file, None without one."""
    path = module.params["bootstrap"]
    if not path:
        return None
    try:
        return bootstrap_of(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError):
        return module.fail_json(msg=f"{path} is no list of RDAP servers: fetch {IANA} again")


def main() -> None:
    """Ask, and say."""
    module = AnsibleModule(
        {
            "names": {"type": "list", "elements": "str", "required": True},
            "bootstrap": {"type": "path"},
            "url": {"type": "str"},
        },
        mutually_exclusive=[("bootstrap", "url")],
        supports_check_mode=True,
    )
    with doors.sentences(module.fail_json), httpx.HTTPTransport() as line:
        registry = Rdap(doors.WallClock(), servers(module), module.params["url"], transport=line)
        module.exit_json(changed=False, domains=doors.plain([registry.domain(name) for name in module.params["names"]]))


if __name__ == "__main__":
    main()
