#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gandi_domains_info
short_description: Read which domains a Gandi token reaches
description:
  - Lists the domains with their dates, locks and name servers; auth codes are never returned.
  - Runs on the control node and changes nothing.
options:
  names:
    description: Only these domains, in ASCII form; one that the token does not reach is an error. All by default.
    type: list
    elements: str
    default: []
  vault:
    description: The file, encrypted with ansible-vault, that holds the token.
    type: path
    required: true
  variable:
    description: Name of the token in O(vault).
    type: str
    default: vault_gandi_token
  sharing_id:
    description: The organisation at Gandi. Without it a list may be empty.
    type: str
  url:
    description: Address of the API.
    type: str
    default: https://api.gandi.net
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Read our domains
  gandi_domains_info:
    vault: "{{ inventory_dir }}/group_vars/all/vault.yml"
  register: gandi
"""

RETURN = r"""
domains:
  description: What Gandi says of each domain, sorted by name.
  type: list
  elements: dict
  returned: success
  sample:
    - name: velo.example
      expires: "2027-03-01T00:00:00+00:00"
      nameservers: [ns-1-a.gandi.net, ns-2-b.gandi.net]
      registrar_lock: true
      auto_renew: true
"""

from contextlib import closing
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from infini.domains import doors
from infini.domains.gandi import Gandi


def main() -> None:
    """Read, and say."""
    module = AnsibleModule(
        {
            "names": {"type": "list", "elements": "str", "default": []},
            "vault": {"type": "path", "required": True},
            "variable": {"type": "str", "default": "vault_gandi_token"},
            "sharing_id": {"type": "str"},
            "url": {"type": "str", "default": "https://api.gandi.net"},
        },
        supports_check_mode=True,
    )
    params = module.params
    token = doors.token(Path(params["vault"]), params["variable"])
    gandi = Gandi(token, doors.WallClock(), params["url"], params["sharing_id"])
    with doors.sentences(module.fail_json), closing(gandi):
        found = [gandi.domain(name) for name in params["names"]] if params["names"] else gandi.domains()
        module.exit_json(changed=False, domains=doors.plain(found))


if __name__ == "__main__":
    main()
