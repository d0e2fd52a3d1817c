# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench tree`: 1,000 unchanged files by host_tree, by a loop of template, by pyinfra and by raw rsync.

All in one run, over SSH to one host, with one template, the same variables and byte for byte the same files. What must
be there before (the files, rsync, an open SSH connection) is prepared first and not counted. The loop runs on fewer
files, and what it would take for all is extrapolated.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Template

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TARGET = "srv/bench-tree"
TEMPLATE = (
    "; {{ pool.name }}, a pool of the tree bench\n[{{ pool.name }}]\nuser = {{ pool.name }}\n"
    "listen = /run/php/8.2/{{ pool.name }}.sock\npm.max_children = {{ pool.children }}\n"
    + "".join(
        f"php_admin_value[bench.{number}] = {{{{ platform }}}}/{{{{ pool.name }}}}/{number}\n" for number in range(25)
    )
)
PLAYS = {
    "empty": "[]",
    "host_tree": "[{name: Write the tree, host_tree: {source: '{{ bench }}/tree', name: bench-tree}}]",
    "template_loop": """
    - name: Write the files one by one
      ansible.builtin.template:
        src: "{{ bench }}/pool.j2"
        dest: "/srv/bench-tree/{{ pool.name }}.conf"
        mode: "0644"
      loop: "{{ pools[:loop_files] }}"
      loop_control: {loop_var: pool, label: "{{ pool.name }}"}
""",
    "prepare": "[{name: Install rsync, ansible.builtin.apt: {name: rsync}}]",
}
DEPLOY = """
import json
from pathlib import Path
from pyinfra.operations import files

data = json.loads(Path("vars.json").read_text())
for pool in data["pools"][:{count}]:
    files.template(
        name=pool["name"], src="pool.j2", dest=f"/srv/bench-tree/{{pool['name']}}.conf", mode="644", pool=pool,
        platform=data["platform"],
    )
"""


@dataclass
class Bench:
    """One bench: where it works and whom it talks to."""

    directory: Path
    host: str
    key: str
    user: str
    known_hosts: str

    def ssh(self) -> list[str]:
        """Return the ssh command that rsync uses: the same connection sharing as Ansible's."""
        options = {
            "ControlMaster": "auto",
            "ControlPersist": "60",
            "ControlPath": f"{self.directory}/%C",
            "UserKnownHostsFile": self.known_hosts,
            "StrictHostKeyChecking": "accept-new",
            "LogLevel": "ERROR",
        }
        return ["ssh", "-i", self.key, *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]

    def on_host(self, command: str) -> None:
        """Run a command on the host."""
        subprocess.run([*self.ssh(), f"{self.user}@{self.host}", command], check=True, capture_output=True)

    def play(self, name: str) -> dict[str, Any]:
        """Run a play; return its seconds and the result of its last task."""
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_SSH_COMMON_ARGS": f"-o UserKnownHostsFile={self.known_hosts} -o StrictHostKeyChecking=accept-new",
        }
        command = [BIN / "ansible-playbook", "-i", self.directory / "hosts.json", self.directory / f"{name}.yml"]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            raise RuntimeError(f"the play {name} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        tasks = json.loads(done.stdout)["plays"][0]["tasks"]
        return {"seconds": seconds, "result": tasks[-1]["hosts"][self.host] if tasks else {}}

    def pyinfra(self, deploy: str) -> dict[str, Any]:
        """Run a pyinfra deploy; return its seconds."""
        data = {"ssh_key": self.key, "ssh_user": self.user, "ssh_known_hosts_file": self.known_hosts}
        words = [word for name, value in data.items() for word in ("--data", f"{name}={value}")]
        start = time.perf_counter()
        done = subprocess.run(
            [BIN / "pyinfra", self.host, deploy, "--yes", *words],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            raise RuntimeError(f"pyinfra {deploy} failed:\n{done.stderr[-3000:]}")
        return {"seconds": seconds}

    def rsync(self) -> dict[str, Any]:
        """Compare the rendered tree by checksum with raw rsync; return its seconds."""
        source, target = f"{self.directory}/rendered/", f"{self.user}@{self.host}:/{TARGET}/"
        command = ["rsync", "-rc", "--perms", "--itemize-changes", "-e", " ".join(self.ssh()), source, target]
        start = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if any(line[0] in "<>c" for line in done.stdout.splitlines()):
            raise RuntimeError("rsync found differences: the cases do not compare the same files")
        return {"seconds": seconds}

    def write(self, files: int, loop_files: int) -> None:
        """Make what the cases need on this side."""
        pools = [{"name": f"pool{number:04}", "children": number % 9 + 1} for number in range(files)]
        variables = {
            "bench": str(self.directory),
            "platform": "infini",
            "pools": pools,
            "loop_files": loop_files,
            "ansible_user": self.user,
            "ansible_ssh_private_key_file": self.key,
        }
        inventory = {"all": {"hosts": {self.host: {}}, "vars": variables}}
        self._file("hosts.json", json.dumps(inventory))
        self._file("vars.json", json.dumps(variables))
        self._file("pool.j2", TEMPLATE)
        self._file(f"tree/{TARGET}/[pool].conf.j2", TEMPLATE)
        each = {
            f"{TARGET}/[pool].conf.j2": {"items": "{{ pools }}", "as": "pool", "path": TARGET + "/{{ pool.name }}.conf"}
        }
        self._file("tree.yml", json.dumps({"each": each, "owned": [TARGET]}))
        template = Template(TEMPLATE, keep_trailing_newline=True)
        for pool in pools:
            self._file(f"rendered/{pool['name']}.conf", template.render(pool=pool, platform="infini"))
        for name, tasks in PLAYS.items():
            self._file(f"{name}.yml", f"- name: Bench\n  hosts: all\n  gather_facts: false\n  tasks: {tasks}\n")
        self._file("nothing.py", DEPLOY.format(count=0))
        self._file("deploy.py", DEPLOY.format(count=files))

    def _file(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)


def run(
    host: str | None = None,
    key: str | None = None,
    *,
    user: str = "root",
    known_hosts: str | None = None,
    files: int = 1000,
    loop_files: int = 50,
    rounds: int = 3,
    say: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Measure on one host, by default the bench's `web`; each case keeps its best round, loop and pyinfra run once."""
    if shutil.which("rsync") is None:
        raise RuntimeError("rsync is not installed on this machine: apt install rsync")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        if host is None or key is None:
            host, key, known_hosts = staging_web()
        bench = Bench(Path(directory), host, str(Path(key).expanduser()), user, f"{directory}/known_hosts")
        if known_hosts:  # a copy: names that are met for the first time must not be added to the pinned ones
            shutil.copyfile(known_hosts, bench.known_hosts)
        bench.write(files, loop_files)
        try:
            say("preparing: rsync and the files on the host")
            bench.play("prepare")
            bench.play("host_tree")
            return measure(bench, files, loop_files, rounds, say)
        finally:
            bench.on_host(f"rm -rf /{TARGET} /var/lib/infini/trees/bench-tree")


def staging_web() -> tuple[str, str, str]:
    """Return the address, key and known hosts of the staging bench's web host."""
    from infini.hosts import Inventory

    inventory = Inventory("staging")
    key = str(inventory.get("web", "ansible_ssh_private_key_file"))
    return str(inventory.get("web", "ansible_host")), key, str(Path(key).with_name("known_hosts"))


def measure(bench: Bench, files: int, loop_files: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what `infini bench tree --json` prints."""

    def best(case: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        say(f"{case}, {rounds} times")
        return min((function() for _round in range(rounds)), key=lambda measure: float(measure["seconds"]))

    empty = best("an empty play", lambda: bench.play("empty"))["seconds"]
    tree = best("host_tree", lambda: unchanged(bench.play("host_tree")))
    rsync = best("rsync -c", bench.rsync)
    nothing = best("an empty pyinfra deploy", lambda: bench.pyinfra("nothing.py"))["seconds"]
    say("pyinfra, once")
    pyinfra = bench.pyinfra("deploy.py")
    say(f"template in a loop over {loop_files} files, once")
    loop = unchanged(bench.play("template_loop"))["seconds"]
    parts = tree["result"]["seconds"]
    measures = {
        "host_tree": {
            "seconds": tree["seconds"],
            "start": tree["seconds"] - parts["render"] - parts["host"],
            "render": parts["render"],
            "transfer_compare": parts["host"],
            "files": files,
        },
        "template_loop_measured": {"seconds": loop, "start": empty, "files": loop_files},
        "template_loop": {
            "seconds": empty + (loop - empty) / loop_files * files,
            "start": empty,
            "files": files,
            "extrapolated_from": loop_files,
        },
        "pyinfra": {"seconds": pyinfra["seconds"], "start": nothing, "files": files},
        "rsync": {"seconds": rsync["seconds"], "files": files},
    }
    ratios = {
        "template_loop/host_tree": measures["template_loop"]["seconds"] / tree["seconds"],
        "pyinfra/host_tree": pyinfra["seconds"] / tree["seconds"],
        "host_tree transfer_compare/rsync": parts["host"] / rsync["seconds"],
    }
    wanted = (
        ratios["template_loop/host_tree"] >= 50,
        ratios["pyinfra/host_tree"] > 1,
        ratios["host_tree transfer_compare/rsync"] <= 3,
    )
    return {"ok": all(wanted), "measures": measures, "ratios": ratios}


def unchanged(measure: dict[str, Any]) -> dict[str, Any]:
    """Refuse a measure of something else than unchanged files."""
    if measure["result"].get("changed"):
        raise RuntimeError(f"the files changed, this does not measure what it should: {measure['result']}")
    return measure
