#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: domain_transfers
short_description: Take domains on their way from Gandi as far as they may go now
description:
  - The only module that changes anything at a registrar. TTLs, DNSSEC, name servers, lock, auth code and order are
    steps of one state machine, which looks at the world before each and which no option passes by.
  - A domain that waits, is blocked or needs a person is no failure; RV(steps) says who must act, until when and why.
  - In check mode it says what would be done next, and does nothing.
  - Runs on the control node, by C(infini domains advance). Secrets come from the vault only.
options:
  inventory:
    description: The inventory whose group C(control) keeps what happened to each domain.
    type: path
    required: true
  names:
    description: The domains, in ASCII form. Every domain that is on its way by default.
    type: list
    elements: str
    default: []
  until:
    description: Stop each domain once it has reached this state.
    type: str
    choices: [EXPORTED, AUDITED, PROVISIONED, PARITY_OK, TTL_LOWERED, DS_REMOVED, NS_SWITCHED, SETTLED, SERVICES_OK]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Take every domain as far as it may go
  domain_transfers:
    inventory: "{{ inventory_dir }}"

- name: Bring one domain to our own name servers and no further
  domain_transfers:
    inventory: "{{ inventory_dir }}"
    names: [velo.example]
    until: SETTLED
"""

RETURN = r"""
steps:
  description: The last thing that was found and done for each domain, with what comes next.
  type: list
  elements: dict
  returned: success
  sample:
    - domain: velo.example
      state: DS_REMOVED
      side: WAITING
      acted: ""
      action: ""
      irreversible: false
      code: ""
      who: tool
      until: "2026-03-02T08:00:00+00:00"
      says: Les caches oublient la signature
"""

from ansible.module_utils.basic import AnsibleModule

from infini.domains import doors

STATES = ["EXPORTED", "AUDITED", "PROVISIONED", "PARITY_OK", "TTL_LOWERED"]
STATES += ["DS_REMOVED", "NS_SWITCHED", "SETTLED", "SERVICES_OK"]


def shown(steps, key):
    """Return where each domain stands, with what was done (`acted`) or would be (`action`), as lines of a diff."""
    return "".join(f"{step['domain']}: {step['state']}{step[key] and ' → ' + step[key]}\n" for step in steps)


def main() -> None:
    """Look, and unless in check mode go on."""
    module = AnsibleModule(
        {
            "inventory": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "until": {"type": "str", "choices": STATES},
        },
        supports_check_mode=True,
    )
    params = module.params
    wanted = (params["inventory"], params["names"], params["until"] or "")
    with doors.sentences(module.fail_json):
        before = doors.advance(*wanted, apply=False)
        after = before if module.check_mode else doors.advance(*wanted, apply=True)
    changed = any(step["action"] for step in before)
    diff = {"before": shown([{**step, "action": ""} for step in before], "action"), "after": shown(after, "action")}
    module.exit_json(changed=changed, steps=after, diff=diff)


if __name__ == "__main__":
    main()
