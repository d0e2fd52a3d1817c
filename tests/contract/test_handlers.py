# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of handlers, as Ansible itself sees our playbooks: nothing is confirmed that a daemon has not read."""

import json
import os
import subprocess
import sys

import pytest

from infini import ROOT

PLAYBOOKS = sorted(path.name for path in (ROOT / "playbooks").glob("*.yml"))
# Ansible's loaders are one for a process.
READ = """
import json, pathlib, sys
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.plugins.loader import init_plugin_loader
from ansible.vars.manager import VariableManager

init_plugin_loader()
found = {}
for path in map(pathlib.Path, sys.argv[1:]):
    loader = DataLoader()
    loader.set_basedir(str(path.parent))
    plays = Playbook.load(str(path), VariableManager(loader=loader), loader).get_plays()
    for play in plays:
        play.compile()
    found[path.name] = [[one.name for block in play.handlers for one in block.block] for play in plays]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def handlers():
    """Give the names of the handlers of each play of each playbook, in the order in which they would run."""
    command = [sys.executable, "-c", READ, *(ROOT / "playbooks" / name for name in PLAYBOOKS)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_confirmation_is_the_last_of_all_handlers(handlers, name):
    wrong = [play for play in handlers[name] if "Confirm the trees" in play[:-1]]
    assert wrong == []


def test_plays_with_trees_confirm_them(handlers):
    confirmed = {name for name, plays in handlers.items() if any("Confirm the trees" in play for play in plays)}
    assert {"backups.yml", "base.yml", "dns.yml", "panel.yml", "web.yml"} <= confirmed
