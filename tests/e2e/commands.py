# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command, as a technician types it."""

import json
import subprocess

from infini import ROOT


def infini(*arguments):
    """Run the command; return its exit status and its JSON object."""
    done = subprocess.run([ROOT / "infini", *arguments, "--json"], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)
