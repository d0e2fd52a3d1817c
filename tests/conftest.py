# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make our modules importable the two ways they are used: by Ansible on a host, by name in the CLI."""

import os
import sys
from pathlib import Path

import ansible.module_utils
from hypothesis import settings

ROOT = Path(__file__).parents[1]

ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
for folder in ("library", "module_utils", "src"):
    sys.path.insert(0, str(ROOT / folder))

# No deadline: the machine may be busy, and a slow example is not a wrong one. `infini test --long` looks further.
settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
