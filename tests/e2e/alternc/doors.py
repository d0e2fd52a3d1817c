# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our modules on a panel's host, as an operator runs them: a playbook of a few tasks."""

import json
import os
import subprocess
import sys
from pathlib import Path

from infini import ROOT
from infini.runner import play


def _playbook(folder, host, tasks):
    steps = [{"name": name, name: options} for name, options in tasks]
    playbook = folder / "tasks.yml"
    playbook.write_text(json.dumps([{"name": "Doors", "hosts": host, "gather_facts": False, "tasks": steps}]))
    return playbook


def start(folder, inventory, host, *tasks):
    """Begin to run tasks without the lock and the runner of `infini`; return the process."""
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, _playbook(folder, host, tasks)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(folder, inventory, host, *tasks):
    """Run tasks on a host, each a module and its options; return the results, the last one a failure perhaps."""
    done = play(_playbook(folder, host, tasks), str(inventory))
    results = [{"failed": False, **entry["result"]} for entry in done.results]
    if done.failures:
        results[-1]["failed"] = True
    return results


def made(folder, inventory, host, *tasks):
    """Run tasks that have to go well."""
    results = run(folder, inventory, host, *tasks)
    assert len(results) == len(tasks), results
    assert not any(result.get("failed") for result in results), results[-1]["msg"]
    return results
