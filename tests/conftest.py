# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make our modules importable the two ways they are used: by Ansible on a host, by name in the CLI."""

import sys
from pathlib import Path

import ansible.module_utils

ROOT = Path(__file__).parents[1]

ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
for folder in ("library", "module_utils", "src"):
    sys.path.insert(0, str(ROOT / folder))
