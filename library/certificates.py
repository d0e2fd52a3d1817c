#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Obtain the certificates that are due, now rather than at the next run of the timer
description:
  - Asks C(certificates status) on the host what is to be done, and starts C(certificates.service) only if something is.
  - One name that fails stops no other; it is named in a warning, or in the failure if O(strict).
  - A name that failed rests as long as the role says, so a second run asks the authority nothing about it.
options:
  declared:
    description: How many certificates are declared, for check mode on a host that has no C(certificates) yet.
    type: int
    required: true
  strict:
    description: Whether a name without a new certificate is a failure.
    type: bool
    default: false
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Obtain what is due now
  certificates:
    declared: 12
"""

RETURN = r"""
obtained: {description: Names that have a new certificate., type: list, elements: str, returned: always}
pending: {description: Names that wait for the next run., type: list, elements: str, returned: always}
failures: {description: One sentence per name that failed., type: list, elements: str, returned: always}
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

PROGRAM = Path("/usr/local/sbin/certificates")
SERVICE = "certificates.service"


def read(module):
    """Return what the host says is to be done about the names that are declared.

    Those of a list are looked after by who keeps it: there may be hundreds, and some lead nowhere.
    """
    state = json.loads(module.run_command([str(PROGRAM), "status"], check_rc=True)[1])
    listed = set(state["listed"])
    mine = {key: [name for name in state[key] if name not in listed] for key in ("ready", "undeployed")}
    return {**state, **mine, "due": {name: why for name, why in state["due"].items() if name not in listed}}


def start(module):
    """Run the service, as the timer would, inside its sandbox."""
    code, _, _ = module.run_command(["systemctl", "start", SERVICE])
    if code:
        words = module.run_command(["journalctl", "--unit", SERVICE, "--output", "cat", "--lines", "20", "--no-pager"])[
            1
        ]
        ours = [line for line in words.splitlines() if line and SERVICE not in line and "systemd" not in line]
        module.fail_json(msg=ours[-1] if ours else f"{SERVICE} failed: run journalctl -u {SERVICE}")


def pending(state):
    """Return what a run would work on."""
    return {key: state[key] for key in ("due", "undeployed", "retired")}


def finish(module, before, after):
    """Say what happened."""
    obtained = sorted(set(before["due"]) - set(after["due"]))
    result = {
        "changed": pending(before) != pending(after),
        "obtained": obtained,
        "pending": sorted(after["due"]),
        "failures": after["failures"],
    }
    if after["kept"]:
        module.warn(f"Certificates are no longer declared, too many to be meant: {', '.join(after['kept'])}")
    if after["failures"] and module.params["strict"]:
        module.fail_json(msg=" ".join(after["failures"]), **result)
    for failure in after["failures"]:
        module.warn(failure)
    module.exit_json(**result)


def main():
    """Read, start what is needed, say what came of it."""
    module = AnsibleModule(
        argument_spec={"declared": {"type": "int", "required": True}, "strict": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    if not PROGRAM.exists() and module.check_mode:
        module.exit_json(changed=module.params["declared"] > 0, obtained=[], pending=[], failures=[])
    before = read(module)
    work = before["ready"] or before["undeployed"] or before["retired"]
    if work and module.check_mode:
        module.exit_json(changed=True, obtained=before["ready"], pending=[], failures=before["failures"])
    after = before
    for _turn in range(2 if work else 0):
        start(module)
        after = read(module)
        if not after["ready"]:
            break  # else that was the end of a run on its way, which did not know them yet
    finish(module, before, after)


if __name__ == "__main__":
    main()
