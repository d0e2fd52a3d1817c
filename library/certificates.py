#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Obtain the certificates that are due, now rather than at the next run of the timer
description:
  - Asks C(certificates status) on the host what is to be done, and starts C(certificates.service) only if something is.
  - It never waits. Where it began something, a later task that is given O(begun) says what came of it.
  - One name that fails stops no other; it is named in a warning, or in the failure if O(strict).
  - A name that failed rests as long as the role says, so a second run asks the authority nothing about it.
options:
  declared:
    description: How many certificates are declared, for check mode on a host that has no C(certificates) yet.
    type: int
    default: 0
  begun:
    description: What the task that began it returned under this name. Repeat the task until RV(finished).
    type: dict
    default: {}
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
- name: Begin to obtain what is due
  certificates:
    declared: 12
  register: due
- name: Wait for it
  certificates:
    begun: "{{ due.begun }}"
  register: obtained
  until: obtained.finished | default(true)
  retries: 3600
  delay: 1
  when: due.begun | length > 0
"""

RETURN = r"""
begun: {description: What to look at later; empty where nothing was due., type: dict, returned: without O(begun)}
finished: {description: Whether what was begun has ended., type: bool, returned: with O(begun)}
obtained: {description: Names that have a new certificate., type: list, elements: str, returned: once it is known}
pending: {description: Names that wait for the next run., type: list, elements: str, returned: once it is known}
failures: {description: One sentence per name that failed., type: list, elements: str, returned: once it is known}
kept:
  description: Certificates that nobody declares any more, too many to be meant.
  type: list
  elements: str
  returned: once it is known
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.certificates_door import SPEC, answer


def main() -> None:
    """Hand the question to the engine, return what it says; the action plugin does so without a module's weight."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    result = answer(module.params, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
