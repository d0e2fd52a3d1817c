# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench pools`: PHP pools and virtual hosts at Infini's size, on a host of their own.

Fictitious accounts with one site each, in the mix of versions that Infini has, mapped on those at hand. `files` are the
files of the roles php and sites alone, in a directory of their own, compared with a loop of template, with pyinfra and
with tar, which only unpacks them. How they grow is judged in memory: between 1,000 sites and 10,000 a disk's cache
ends, and then the disk is measured, whoever writes. `live` is what an operator does: the roles, with their checks,
sockets and reloads. Everything in one run; the host is made for it and taken down, unless it stood there before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("INFINI_BENCH", "bench")  # before an inventory is read

from infini import ROOT, bench, plays, staging
from infini.hosts import Connection, Inventory
from infini.preflight import role_defaults

BIN = Path(sys.executable).parent
SHARES = {"5.6": 46, "7.2": 24, "7.4": 22, "8.2": 8}
"""Sites of Infini in a hundred, by version."""
AT_HAND = {"5.6": "7.4", "7.2": "8.2", "7.4": "8.4", "8.2": "8.4"}
FOLDER = "srv/bench-pools"
FILES = f"{FOLDER}/files"
FILE_SETS = (100, 1000, 10000)
WANTED = {"no change": 3.0, "one site changed": 5.0, "files": 10.0, "sockets": 15.0}
"""Seconds at most; `no change` is what comes on top of an empty play."""

HEADER = {"hosts": "webs", "gather_facts": False}  # as the play of playbooks/web.yml that is measured
WRITE = [
    {"name": role, "host_tree": {"source": f"{{{{ bench }}}}/{role}/tree", "name": f"bench-{role}"}}
    for role in ("php", "sites")
]
LOOP = [
    {
        "name": item,
        "ansible.builtin.template": {
            "src": f"{{{{ bench }}}}/{role}/tree/{FILES}/{template}",
            "dest": f"/srv/bench-loop/{item}{{{{ ansible_loop.index }}}}.conf",
            "mode": "0644",
        },
        "loop": f"{{{{ {items}[:compared] }}}}",
        "loop_control": {"loop_var": item, "label": f"{{{{ {item} }}}}", "extended": True, "extended_allitems": False},
    }
    for role, item, items, template in (
        ("php", "pool", "php_pools", "etc/php/pools/[pool].conf.j2"),
        ("sites", "site", "sites_sites", "etc/apache2/members/[site].conf.j2"),
    )
]
DEPLOY = """
from pathlib import Path
from pyinfra.operations import files

for path in sorted(Path("written").rglob("*.conf")):
    files.put(name=path.name, src=str(path), dest="/srv/bench-pyinfra/" + path.name, mode="644")
"""


# Runs on the host: gives each site that has a pool a page, and asks for it as the front does. Masters rest after fifty.
ASK_ALL = """
import pathlib, socket, subprocess

for number, pool in enumerate(sorted(pathlib.Path("/etc/php/pools").glob("*/*.conf"))):
    if number % 50 == 49:
        subprocess.run(["systemctl", "stop", "php*@*.service"], check=True, stderr=subprocess.DEVNULL)
    account = pool.stem
    site = pathlib.Path("/srv/members", account, "www", account + ".test")
    page = site / "who.php"
    page.write_text("<?php echo posix_getpwuid(posix_geteuid())['name'];")
    page.chmod(0o644)
    with socket.create_connection(("127.0.0.1", 8080), 30) as apache:
        lines = ["PROXY TCP4 192.0.2.1 127.0.0.1 40000 8080", "GET /who.php HTTP/1.0", "Host: " + site.name, "", ""]
        apache.sendall("\\r\\n".join(lines).encode())
        answer = b"".join(iter(lambda: apache.recv(65536), b"")).decode()
    page.unlink()
    right = answer.startswith("HTTP/1.1 200 ") and answer.endswith("\\r\\n\\r\\n" + account)
    print("good" if right else repr(answer[:200]), flush=True)
"""


@dataclass
class Run:
    """What one run of Ansible took."""

    seconds: float
    memory: float
    """Megabytes of its largest process on this machine."""
    tasks: list[dict[str, Any]]
    """Action, name, seconds and result of each task and handler."""

    def of(self, action: str) -> float:
        """Return the seconds of all tasks with this action."""
        return sum((float(task["seconds"]) for task in self.tasks if task["action"] == action), 0.0)

    def changed(self) -> bool:
        """Tell whether any task changed something."""
        return any(task["result"].get("changed") for task in self.tasks)

    def shares(self) -> dict[str, float]:
        """Return the seconds of each task by its name, rounded."""
        return {task["name"]: round(task["seconds"], 2) for task in self.tasks}


@dataclass
class Ground:
    """The host, and the directory of this bench on this machine."""

    directory: Path
    inventory: Inventory
    host: str
    to: Connection

    def ssh(self, command: str, source: Path | None = None) -> float:
        """Run a command on the host with a file as its input; return its seconds."""
        with (source or Path(os.devnull)).open("rb") as stdin:
            start = time.perf_counter()
            options = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={self.directory}/%C"]
            subprocess.run([*self.to.ssh(*options), command], stdin=stdin, capture_output=True, check=True)
            return time.perf_counter() - start

    def ask(self, command: str) -> str:
        """Return what a command says on the host."""
        return subprocess.run([*self.to.ssh(), command], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def answer(self, program: str) -> list[str]:
        """Return the lines that a program of Python prints on the host."""
        words = [*self.to.ssh(), "python3", "-"]
        return subprocess.run(words, input=program, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()

    def file(self, name: str, value: Any) -> Path:
        """Write a file of JSON, which is YAML, too; or of text."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    def variables(self, sites: int) -> dict[str, Any]:
        """Return what trees outside of their roles need: the roles' defaults, as far as the inventory is silent."""
        declared = self.inventory.raw(self.host)
        defaults = {**role_defaults("php"), **role_defaults("sites")}
        silent = {name: value for name, value in defaults.items() if name not in declared}
        return {"bench": str(self.directory), **silent, **members(sites)}

    def play(self, *playbooks: Path, variables: dict[str, Any]) -> Run:
        """Run playbooks as one run of Ansible."""
        values = self.file("variables.json", variables)
        command: list[str | Path] = [
            BIN / "ansible-playbook",
            "-i",
            self.inventory.path,
            "--limit",
            "webs",
            "-e",
            f"@{values}",
            *playbooks,
        ]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            start = time.perf_counter()
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=errors)
            _pid, status, usage = os.wait4(process.pid, 0)  # unlike wait(), it tells of the memory
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            errors.seek(0)
            told, complaint = output.read().decode(), errors.read().decode()
        if process.returncode != 0:
            raise RuntimeError(
                f"{', '.join(path.name for path in playbooks)} failed:\n{told[-4000:]}{complaint[-1000:]}"
            )
        answer = json.loads(told[told.rfind("\n{\n") + 1 :])  # each playbook prints one; the last has all
        return Run(seconds, usage.ru_maxrss / 1024, list(_tasks(answer)))


def _tasks(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the JSON of Ansible says of each task that ran; the bench has one host."""
    for play in told["plays"]:
        for task in play["tasks"]:
            for result in task["hosts"].values():
                begin, end = (datetime.fromisoformat(task["task"]["duration"][side]) for side in ("start", "end"))
                seconds = (end - begin).total_seconds()
                yield {"action": result["action"], "name": task["task"]["name"], "seconds": seconds, "result": result}


# --- what is applied ------------------------------------------------------------------------------------------------


def members(count: int) -> dict[str, Any]:
    """Return fictitious accounts with a site each, as the inventory declares them."""
    versions = [AT_HAND[version] for version, share in SHARES.items() for _ in range(share)]
    names = [f"membre{number:05}" for number in range(count)]
    return {
        "hosting_accounts": [{"name": name, "comment": "Membre fictif"} for name in names],
        "hosting_sites": [
            # 37 has no divisor in common with 100: the versions are mixed, and any hundred sites has the shares.
            {
                "name": f"{name}.test",
                "aliases": [f"www.{name}.test"],
                "account": name,
                "php": versions[number * 37 % 100],
            }
            for number, name in enumerate(names)
        ],
        "cms_sites": [],
    }


def switched(declared: dict[str, Any]) -> dict[str, Any]:
    """Return the same with another version for one site in the middle."""
    sites = [dict(site) for site in declared["hosting_sites"]]
    site = sites[len(sites) // 2]
    site["php"] = "8.4" if site["php"] != "8.4" else "8.2"
    return {**declared, "hosting_sites": sites}


def without_last(declared: dict[str, Any]) -> dict[str, Any]:
    """Return the same less one site; its account stays."""
    return {**declared, "hosting_sites": declared["hosting_sites"][:-1]}


def emptied(declared: dict[str, Any]) -> dict[str, Any]:
    """Return the same accounts without any site, which is what the brake is there to refuse."""
    return {**declared, "hosting_sites": [], "host_tree_allow_removal": ["/etc/php/pools", "/etc/apache2/members"]}


def role_play(*roles: str) -> dict[str, Any]:
    """Return the play of playbooks/web.yml that has these roles, less its work on others."""
    for play in plays.plays(ROOT / "playbooks/web.yml"):
        if set(roles) <= set(plays.roles_of(play)):
            return {**play, "tasks": [task for task in play["tasks"] if _role_of(task) in (None, *roles)]}
    raise RuntimeError(f"no play of playbooks/web.yml has the roles {', '.join(roles)}")


def _role_of(task: dict[str, Any]) -> str | None:
    role: str | None = task.get("ansible.builtin.import_role", {}).get("name")
    return role


def copy_tree(ground: Ground, role: str) -> None:
    """Copy a role's tree to where it touches nothing else: the files that repeat, without checks and handlers."""
    source = plays.read_yaml(ROOT / f"roles/{role}/tree.yml")
    sidecar: dict[str, Any] = {"each": {}, "directories": {}, "owned": [FILES]}
    for part in ("each", "directories"):
        for name, spec in source.get(part, {}).items():
            if "items" in spec:
                key = f"{FILES}/{name}" if part == "each" else name
                sidecar[part][key] = {**spec, "path": f"{FILES}/{spec['path']}"}
    ground.file(f"{role}/tree.yml", sidecar)
    for template in source["each"]:
        target = ground.directory / role / "tree" / FILES / template
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / f"roles/{role}/tree" / template, target)


# --- files ----------------------------------------------------------------------------------------------------------


def files(ground: Ground, count: int, rounds: int) -> dict[str, Any]:
    """Write the files of so many sites from nothing, then look at them unchanged; return both and the raw write."""
    variables = ground.variables(count)
    # Owners must exist; accounts for a moment need not be made one by one.
    people = "".join(
        f"membre{number:05}:x:{20000 + number}:{20000 + number}::/:/bin/false\n" for number in range(count)
    )
    groups = "".join(f"membre{number:05}:x:{20000 + number}:\n" for number in range(count))
    for name, lines in (("passwd", people), ("group", groups)):
        more = ground.file(name, lines)
        ground.ssh(f"cat /etc/{name} - >/run/{name}.bench && mount --bind /run/{name}.bench /etc/{name}", more)
    try:
        forget = f"rm -rf /{FILES} /var/lib/infini/trees/bench-php /var/lib/infini/trees/bench-sites"
        ground.ssh(f"{forget}; sync")  # what was written before must not be paid for here
        first = ground.play(ground.directory / "write.yml", variables=variables)
        again = best(lambda: unchanged(ground.play(ground.directory / "write.yml", variables=variables)), rounds)
        empty = best(lambda: ground.play(ground.directory / "empty.yml", variables=variables), rounds)
        archive = ground.directory / "written.tar"
        archive.write_bytes(
            subprocess.run([*ground.to.ssh(), f"tar -C / -cf - {FILES}"], stdout=subprocess.PIPE, check=True).stdout
        )
        raw = min(_raw(ground, archive) for _round in range(rounds))
        ground.ssh(forget)
    finally:
        ground.ssh("umount /etc/passwd; umount /etc/group; rm -f /run/passwd.bench /run/group.bench")
    return {
        "sites": count,
        "from nothing": round(first.of("host_tree"), 2),
        "no change": round(again.of("host_tree"), 2),
        "run from nothing": round(first.seconds, 2),
        "run without change": round(again.seconds, 2),
        "empty play": round(empty.seconds, 2),
        "raw write": round(raw, 2),
        "memory (MB)": round(max(first.memory, again.memory)),
    }


@contextmanager
def in_memory(ground: Ground) -> Iterator[None]:
    """Have the files in memory for a while."""
    ground.ssh(f"mkdir -p /{FOLDER} && mount -t tmpfs -o mode=755 tmpfs /{FOLDER}")
    try:
        yield
    finally:
        ground.ssh(f"umount /{FOLDER}")


def _raw(ground: Ground, archive: Path) -> float:
    ground.ssh(f"rm -rf /{FILES}; sync")
    return ground.ssh("tar -C / -xf -", archive)


def peers(ground: Ground, sites: int, compared: int) -> dict[str, Any]:
    """Write the files of a few sites by a loop of template and by pyinfra; return what all would take."""
    variables = {**ground.variables(sites), "compared": compared}
    empty = ground.play(ground.directory / "empty.yml", variables=variables).seconds
    ground.ssh("mkdir -p /srv/bench-loop /srv/bench-pyinfra")
    try:
        loop = ground.play(ground.directory / "loop.yml", variables=variables).seconds
        archive = ground.directory / "loop.tar"
        archive.write_bytes(
            subprocess.run(
                [*ground.to.ssh(), "tar -C /srv/bench-loop -cf - ."], stdout=subprocess.PIPE, check=True
            ).stdout
        )
        subprocess.run(["tar", "-xf", archive, "--one-top-level=written"], cwd=ground.directory, check=True)
        nothing, deploy = (_pyinfra(ground, name) for name in ("nothing.py", "deploy.py"))
    finally:
        ground.ssh("rm -rf /srv/bench-loop /srv/bench-pyinfra")

    def all_of(start: float, some: float) -> float:
        return start + (some - start) / compared * sites

    return {
        "template loop": {
            "seconds": round(all_of(empty, loop), 1),
            "extrapolated from": compared,
            "measured": round(loop, 1),
        },
        "pyinfra": {
            "seconds": round(all_of(nothing, deploy), 1),
            "extrapolated from": compared,
            "measured": round(deploy, 1),
        },
    }


def _pyinfra(ground: Ground, deploy: str) -> float:
    to = ground.to
    key = ground.inventory.get(ground.host, "ansible_ssh_private_key_file")
    known = Path(key).with_name("known_hosts")
    data = {"ssh_key": key, "ssh_user": to.user, "ssh_known_hosts_file": known}
    words = [word for name, value in data.items() for word in ("--data", f"{name}={value}")]
    start = time.perf_counter()
    command: list[str | Path] = [BIN / "pyinfra", to.address, deploy, "--yes", *words]
    done = subprocess.run(command, cwd=ground.directory, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"pyinfra {deploy} failed:\n{done.stderr[-3000:]}")
    return seconds


# --- live pools -----------------------------------------------------------------------------------------------------


def live(ground: Ground, count: int, accounts: int, rounds: int) -> dict[str, Any]:
    """Apply so many sites with their sockets to a host that has none; then nothing, one change, one removal."""
    declared = {**members(accounts), "hosting_sites": members(count)["hosting_sites"]}
    play, preflight = ground.directory / "pools.yml", ROOT / "playbooks/preflight.yml"
    first = ground.play(play, variables=declared)
    if (
        there := int(ground.ask("systemctl list-units --state=active --plain --no-legend 'php*@*.socket' | wc -l"))
    ) != count:
        raise RuntimeError(f"{there} sockets are open, not {count}: this does not measure what it should")
    again = best(lambda: unchanged(ground.play(play, variables=declared)), rounds)
    empty = best(lambda: ground.play(ground.directory / "empty.yml", variables=declared), rounds)
    look = best(lambda: ground.play(preflight, variables=declared), rounds)
    switch = ground.play(play, variables=switched(declared))
    removal = ground.play(play, variables=without_last(switched(declared)))
    return {
        "sites": count,
        "run from nothing": round(first.seconds, 2),
        "files": round(first.of("host_tree"), 2),
        "sockets": round(first.of("systemd_units"), 2),
        "empty play": round(empty.seconds, 2),
        "run without change": round(again.seconds, 2),
        "no change": round(again.seconds - empty.seconds, 2),
        "one site changed": round(switch.seconds, 2),
        "one site removed": round(removal.seconds, 2),
        "preflight": round(look.seconds - empty.seconds, 2),
        "memory (MB)": round(max(run.memory for run in (first, again, switch, removal))),
        "tasks from nothing": first.shares(),
        "tasks without change": again.shares(),
        "tasks of one change": switch.shares(),
    }


def reboot(ground: Ground, container: str, sockets: int) -> dict[str, Any]:
    """Restart the host; return the seconds until its sockets and Apache are there, and those of a daemon-reload.

    Then ask every site for a page of PHP, and return how many answered as their account.
    """
    ground.ssh("true")  # opens the connection
    reload = ground.ssh("systemctl daemon-reload") - ground.ssh("true")
    bench.podman("restart", "--time", "30", container)
    if not bench._booted(container, 300):
        raise RuntimeError(f"the host does not come up again with {sockets} sockets")
    since = _since_boot(ground, "sockets.target"), _since_boot(ground, "apache2.service")
    there = int(ground.ask("systemctl list-units --state=active --plain --no-legend 'php*@*.socket' | wc -l"))
    if there != sockets:
        raise RuntimeError(f"{there} of {sockets} sockets came back after the restart")
    start = time.perf_counter()
    answered = ground.answer(ASK_ALL)
    if (good := answered.count("good")) != sockets:
        wrong = next((line for line in answered if line != "good"), "nothing")
        raise RuntimeError(f"{good} of {sockets} sites answer after the restart; one says: {wrong}")
    asking = round(time.perf_counter() - start, 1)
    return {
        "sockets": since[0],
        "Apache": since[1],
        "daemon-reload": round(reload, 2),
        "open": there,
        "sites that answer": good,
        "asking them": asking,
    }


def _since_boot(ground: Ground, unit: str) -> float:
    """Return the seconds from systemd's start to when a unit was active."""
    start = ground.ask("systemctl show --property=UserspaceTimestampMonotonic --value")
    ready = ground.ask(f"systemctl show --property=ActiveEnterTimestampMonotonic --value {unit}")
    return round((int(ready) - int(start)) / 1e6, 2)


# --- the whole ------------------------------------------------------------------------------------------------------


def best(measure: Callable[[], Run], rounds: int) -> Run:
    """Return the fastest of several rounds."""
    return min((measure() for _round in range(rounds)), key=lambda run: run.seconds)


def unchanged(run: Run) -> Run:
    """Refuse a measure of something else than an unchanged host."""
    changed = [task["name"] for task in run.tasks if task["result"].get("changed")]
    if changed:
        raise RuntimeError(f"{', '.join(changed)} changed something: this does not measure what it should")
    return run


def prepare(ground: Ground, accounts: int) -> float:
    """Write the playbooks and give the host what is there before: packages, PHP trees, its base, Apache, accounts.

    Return the seconds of the accounts.
    """
    for role in ("php", "sites"):
        copy_tree(ground, role)
    ground.file("empty.yml", [{**HEADER, "tasks": []}])
    ground.file("write.yml", [{**HEADER, "tasks": WRITE}])
    ground.file("loop.yml", [{**HEADER, "tasks": LOOP}])
    ground.file("pools.yml", [role_play("php", "sites")])
    ground.file("web.yml", [role_play("accounts", "web")])
    ground.file("nothing.py", "")
    ground.file("deploy.py", DEPLOY)
    made = ground.play(
        *(ROOT / f"playbooks/{name}.yml" for name in ("php_trees", "packages", "base")),
        *(ground.directory / name for name in ("web.yml", "pools.yml")),
        variables=emptied(members(accounts)),
    )
    return made.of("accounts")


@contextmanager
def a_host() -> Iterator[tuple[Inventory, str]]:
    """Make a bench, unless it stands already, and give its web host."""
    there = bool(staging.status()["hosts"])
    staging.create()
    inventory = Inventory(staging.INVENTORY)
    try:
        yield inventory, inventory.hosts("webs")[0]
    finally:
        if not there:
            staging.down()


def run(sites: int = 1085, compared: int = 50, rounds: int = 2) -> dict[str, Any]:
    """Measure and return what `infini bench pools --json` prints."""
    with a_host() as (inventory, host), tempfile.TemporaryDirectory(prefix="bench-") as directory:
        ground = Ground(Path(directory), inventory, host, inventory.connection(host))
        accounts = prepare(ground, sites)
        answer = measure(ground, sites, compared, rounds)
        answer["measures"][f"{sites} accounts"] = {"from nothing": round(accounts, 1)}
        return answer


def said(what: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Show figures as soon as they are there: the whole takes a quarter of an hour."""
    sys.stderr.write(f"{what}: {json.dumps(figures)}\n")
    return figures


def measure(ground: Ground, sites: int, compared: int, rounds: int) -> dict[str, Any]:
    """Return the measures, the ratios, and whether all is as wanted."""
    sets = {count: said(f"files of {count} sites", files(ground, count, rounds)) for count in FILE_SETS}
    with in_memory(ground):
        grown = {count: said(f"{count} sites in memory", files(ground, count, rounds)) for count in FILE_SETS[1:]}
    others = said("peers", peers(ground, sites, compared))
    small, whole = min(100, sites), sites
    alive = {}
    for count in dict.fromkeys((small, whole)):
        alive[count] = said(f"live, {count} sites", live(ground, count, sites, rounds))
        if count == whole:
            restarted = said("restart", reboot(ground, f"infini-{staging.name()}-{ground.host}", count - 1))
        ground.play(ground.directory / "pools.yml", variables=emptied(members(sites)))
    ours = alive[whole]
    one = sets[1000]
    growth = {
        f"10,000/1,000 sites, {case}{where}": counts[10000][case] / counts[1000][case]
        for where, counts in ((" in memory", grown), ("", sets))
        for case in ("from nothing", "no change", "raw write")
    }
    ratios = {
        **growth,
        "host_tree/raw write, 1,000 sites": one["from nothing"] / one["raw write"],
        "template loop/host_tree": others["template loop"]["seconds"] / one["run from nothing"] * 1000 / sites,
        "pyinfra/host_tree": others["pyinfra"]["seconds"] / one["run from nothing"] * 1000 / sites,
    }
    wanted = [ours[name] <= seconds for name, seconds in WANTED.items()]
    wanted += [growth[f"10,000/1,000 sites, {case} in memory"] <= 10 for case in ("from nothing", "no change")]
    measures = {
        **{f"files of {count} sites": figures for count, figures in sets.items()},
        **{f"files of {count} sites in memory": figures for count, figures in grown.items()},
        **others,
        **{f"live, {count} sites": figures for count, figures in alive.items()},
        f"restart with {whole} sites": restarted,
    }
    return {"ok": all(wanted), "mapped": AT_HAND, "measures": measures, "ratios": ratios}
