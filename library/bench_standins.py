#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: bench_standins
short_description: Build the packages that stand in for repositories that tests cannot reach
description:
  - Writes a signed apt repository of the packages under C(standins/); the C(CONTRACT.md) there says what they promise.
  - Runs on the control node, and builds only when a source changed.
options:
  directory:
    description: Where the repository is written; its key is C(key.txt) there.
    type: path
    required: true
author: Infini
"""

EXAMPLES = r"""
- name: Build the stand-ins
  bench_standins:
    directory: /srv/alternc-repository
"""

RETURN = r"""
directory:
  description: The repository.
  type: path
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from infini import standins
from infini.errors import InfiniError


def main():
    """Be a door to infini.standins.build."""
    module = AnsibleModule({"directory": {"type": "path", "required": True}})
    into = Path(module.params["directory"])
    key = into / "key.txt"
    before = key.read_bytes() if key.exists() else None
    try:
        standins.build(into)
    except InfiniError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=key.read_bytes() != before, directory=str(into))


if __name__ == "__main__":
    main()
