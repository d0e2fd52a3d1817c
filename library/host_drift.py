#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_drift
short_description: List the files that are no longer as host_tree wrote them
version_added: "0.1.0"
description:
  - Compares every file that M(host_tree) remembers on this host with what stands there now.
  - Reads only; the content of secret files is never shown.
options:
  diff:
    description: Whether to show what was changed, or only where.
    type: bool
    default: true
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: The diffs are in the result.
    support: none
author: Infini
"""

EXAMPLES = r"""
- name: List the files edited by hand
  host_drift:
  register: __drift
"""

RETURN = r"""
files:
  description: One entry per file that differs.
  returned: always
  type: list
  elements: dict
  contains:
    tree:
      description: The name of the tree (usually the role) that wrote it.
      type: str
    path:
      description: The path on the host.
      type: str
    state:
      description:
        - What is wrong with it.
        - C(interrupted) stands for a run that was killed and that the next one will undo.
        - C(quarantined) stands for a file that a validation refused; C(diff) holds its words.
      type: str
      choices: [modified, missing, attributes, interrupted, quarantined]
    diff:
      description: A unified diff from what was written to what stands there now.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import tree
from ansible.module_utils.hosting.tree_model import explain


def main() -> None:
    """Return what the engine finds."""
    module = AnsibleModule(argument_spec={"diff": {"type": "bool", "default": True}}, supports_check_mode=True)
    try:
        module.exit_json(changed=False, files=list(tree.drift(diff=module.params["diff"])))
    except OSError as problem:
        module.fail_json(msg=explain(problem, "the memory of the trees could not be read"))


if __name__ == "__main__":
    main()
