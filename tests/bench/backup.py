# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench backup`: backups and restores of our way, of raw borg and of raw restic, of the same data in one run.

On the web host of a bench that is made for it, unless it stood there before: maildirs, sites and databases from one
seed. Each contender dumps the same databases, copies the same files into a repository on the same disk, then the same
hundredth of them once it has changed, and brings all back beside, databases loaded. Ours has the manifest on top, and
its dumps are counted and summed up under their lock. Of several rounds, in turned order, each keeps its best.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("INFINI_BENCH", "bench")  # before an inventory is read

from infini import ROOT, staging
from infini.hosts import Connection, Inventory

TOP = "/srv/bench-backup"
DATA = f"{TOP}/data"
PACKAGES = "borgbackup restic mariadb-server"
CODE = "wordpress"
"""The Debian package whose files stand for the code of all sites; SPIP is in no Debian that the bench can reach."""
# cgroup v1, or v2.
USAGE = (
    "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || "
    "sed -n 's/^usage_usec \\(.*\\)/\\1000/p' /sys/fs/cgroup/cpu.stat"
)
# Everybody begins with cold files, and the host's memory free of what the one before wrote. cgroup v1, or v2,
# whose file says in the end that 64G were not to be had.
COOL = (
    "sync; echo 0 >/sys/fs/cgroup/memory/memory.force_empty 2>/dev/null ||"
    " echo 64G >/sys/fs/cgroup/memory.reclaim 2>/dev/null || true"
)
PHASES = ("full", "incremental", "restore")
WANTED = 0.9
MAIL_BYTES, LINE_BITS = 360 * 10**9, 20 * 10**6
"""Infini's mail, and the line that a copy elsewhere goes over."""

INSTALL = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --quiet --no-install-recommends {PACKAGES} >&2
mkdir -p {TOP}/code && cd {TOP}/code
apt-get download --quiet {CODE} >&2 && dpkg-deb --extract {CODE}_*.deb . && rm -f {CODE}_*.deb
"""
RAW_DUMPS = f"""
mkdir -p {TOP}/dumps && cd {TOP}/dumps
for name in $(mariadb --batch --skip-column-names --execute "SHOW DATABASES LIKE 'bench\\_backup\\_%'"); do
  mariadb-dump --hex-blob --routines --triggers --events --skip-dump-date "$name" >"$name.sql"
done
"""
RAW_LOADS = f"""
for dump in {TOP}/restored{TOP}/dumps/*.sql; do
  name=restored_$(basename "$dump" .sql)
  mariadb --execute "CREATE DATABASE $name" && mariadb "$name" <"$dump"
done
"""
BORG = f"""
export BORG_REPO={TOP}/borg-{{name}} BORG_BASE_DIR={TOP}/base-{{name}} BORG_PASSPHRASE=bench
"""
BORG_INIT = "borg init --encryption repokey-blake2"
BORG_CREATE = "borg create --compression auto,zstd,3 ::$(date +%s%N) "
BORG_EXTRACT = f"mkdir -p {TOP}/restored && cd {TOP}/restored && borg extract ::$(borg list --short --last 1)"
RESTIC = f"""
export RESTIC_REPOSITORY={TOP}/restic RESTIC_CACHE_DIR={TOP}/base-restic RESTIC_PASSWORD=bench
"""
ENGINE = f"python3 {TOP}/backup_engine.py"
FORGET = f"""
rm -rf {TOP}/restored
for name in $(mariadb --batch --skip-column-names --execute "SHOW DATABASES LIKE 'restored\\_%'"); do
  mariadb --execute "DROP DATABASE $name"
done
"""
CLEAN = f"""
for name in $(mariadb --batch --skip-column-names --execute "SHOW DATABASES LIKE 'bench\\_backup\\_%'"); do
  mariadb --execute "DROP DATABASE $name"
done
rm -rf {TOP}
"""


@dataclass(frozen=True)
class Contender:
    """One way to back up, as commands on the host."""

    name: str
    environment: str
    init: str
    back_up: str
    restore: str
    repository: str
    more: Sequence[str] = ()
    """What else is of one repository: caches."""


CONTENDERS = (
    Contender(
        "raw borg",
        BORG.format(name="raw"),
        BORG_INIT,
        f"{RAW_DUMPS}{BORG_CREATE} {DATA} {TOP}/dumps",
        f"{BORG_EXTRACT}{RAW_LOADS}",
        f"{TOP}/borg-raw",
        (f"{TOP}/base-raw",),
    ),
    Contender(
        "ours",
        BORG.format(name="ours"),
        BORG_INIT,
        f"{ENGINE} prepare {TOP}/ours {DATA} && {BORG_CREATE} {DATA} {TOP}/ours",
        f"{BORG_EXTRACT} && {ENGINE} load {TOP}/ours {TOP}/restored",
        f"{TOP}/borg-ours",
        (f"{TOP}/base-ours", f"{TOP}/ours.cache"),
    ),
    Contender(
        "raw restic",
        RESTIC,
        "restic --quiet init",
        f"{RAW_DUMPS}restic --quiet backup --compression auto {DATA} {TOP}/dumps",
        f"restic --quiet restore latest --target {TOP}/restored\n{RAW_LOADS}",
        f"{TOP}/restic",
        (f"{TOP}/base-restic",),
    ),
)


@dataclass
class Ground:
    """The host, and what was measured on it."""

    to: Connection
    best: dict[tuple[str, str], float] = field(default_factory=dict)
    least: dict[tuple[str, str], float] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)

    def run(self, command: str) -> str:
        """Run a command on the host and return what it says."""
        done = subprocess.run(
            [*self.to.ssh(), f"bash -euo pipefail -c {shlex.quote(command)}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"{command.strip().splitlines()[-1]} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
            )
        return done.stdout

    def time(self, phase: str, contender: Contender, command: str) -> str:
        """Measure a phase of a contender; return what it says."""
        self.run(COOL)
        before, start = self.processor(), time.perf_counter()
        said = self.run(f"{contender.environment}{command}")
        seconds, processor = time.perf_counter() - start, self.processor() - before
        key = (phase, contender.name)
        self.best[key] = min(seconds, self.best.get(key, seconds))
        self.least[key] = min(processor, self.least.get(key, processor))
        sys.stderr.write(f"{phase}, {contender.name}: {seconds:.1f} s, {processor:.1f} s of processor {said}\n")
        if said:
            self.parts[phase] = json.loads(said)
        return said

    def processor(self) -> float:
        """Return the processor time that the host has used, in seconds: other work on this machine is not in it."""
        return int(self.run(USAGE)) / 1e9

    def weigh(self, phase: str, contender: Contender) -> None:
        """Take down how large a repository is."""
        self.sizes[phase, contender.name] = int(self.run(f"du -sb {contender.repository}").split()[0])


@contextmanager
def a_host() -> Iterator[Connection]:
    """Make a bench, unless it stands already, and give its web host."""
    there = bool(staging.status()["hosts"])
    staging.create()
    inventory = Inventory(staging.INVENTORY)
    try:
        yield inventory.connection(inventory.hosts("webs")[0])
    finally:
        if not there:
            staging.down()


def bring(ground: Ground) -> None:
    """Install the tools, and lay our code beside what runs on the host."""
    ground.run(INSTALL)
    for folder, names in ((ROOT / "module_utils", ["hosting"]), (ROOT / "tests/bench/on_host", ["."])):
        archive = subprocess.run(["tar", "-C", folder, "-c", *names], capture_output=True, check=True).stdout
        subprocess.run([*ground.to.ssh(), f"tar -C {TOP} -x"], input=archive, check=True)


def full(ground: Ground, contenders: Sequence[Contender]) -> None:
    """Back everything up into new repositories."""
    for contender in contenders:
        ground.run(f"rm -rf {shlex.join([contender.repository, *contender.more])}")
        ground.run(f"{contender.environment}{contender.init}")
        ground.time("full", contender, contender.back_up)
        ground.weigh("full", contender)


def incremental(ground: Ground, contenders: Sequence[Contender], number: int) -> None:
    """Change a hundredth and back it up."""
    ground.run(f"python3 {TOP}/backup_data.py {DATA} --change {number}")
    for contender in contenders:
        ground.time("incremental", contender, contender.back_up)
        ground.weigh("incremental", contender)


def restore(ground: Ground, contenders: Sequence[Contender]) -> None:
    """Bring everything back beside; ours is compared with its manifest after that."""
    for contender in contenders:
        ground.time("restore", contender, contender.restore)
        if contender.name == "ours":
            said = ground.time("compare", contender, f"{ENGINE} compare {TOP}/ours {TOP}/restored")
            if json.loads(said)["findings"]:
                raise RuntimeError(f"what was restored is not what was backed up: {said[:2000]}")
        ground.run(FORGET)


def run(gigabytes: int = 5, messages: int = 200_000, rounds: int = 2) -> dict[str, Any]:
    """Measure and return what `infini bench backup --json` prints."""
    with a_host() as to:
        ground = Ground(to)
        ground.run(f"mkdir -p {DATA}")
        try:
            bring(ground)
            code = f"{TOP}/code/usr/share/{CODE}"
            sizes = f"--gigabytes {gigabytes} --messages {messages}"
            ground.run(f"python3 {TOP}/backup_data.py {DATA} {sizes} --code {code}")
            held = weight(ground)
            turned = [CONTENDERS[:: -1 if number % 2 else 1] for number in range(rounds)]
            for contenders in turned:
                full(ground, contenders)
            for number, contenders in enumerate(turned, 1):
                incremental(ground, contenders, number)
            # The first to write all these files on this disk needs half the time of all who come after: it is nobody.
            ground.run(f"{CONTENDERS[0].environment}{CONTENDERS[0].restore}")
            ground.run(FORGET)
            for contenders in turned:
                restore(ground, contenders)
        finally:
            ground.run(f"{FORGET}{CLEAN}")
    return answer(ground, held)


def weight(ground: Ground) -> dict[str, int]:
    """Return how many bytes and files are backed up."""
    size = int(ground.run(f"du -sb --apparent-size {DATA}").split()[0])
    files = int(ground.run(f"find {DATA} -type f | wc -l"))
    databases = int(ground.run("mariadb -BNe \"SELECT SUM(DATA_LENGTH) FROM information_schema.TABLES"
                               " WHERE TABLE_SCHEMA LIKE 'bench\\_backup\\_%'\""))  # fmt: skip
    return {"bytes": size + databases, "files": files}


def answer(ground: Ground, held: Mapping[str, int]) -> dict[str, Any]:
    """Say what was measured, the ratios of throughput, and what it means for all of Infini's mail."""
    measures: dict[str, Any] = {"data": {**held}}
    for (phase, name), seconds in ground.best.items():
        measures[f"{phase}, {name}"] = {
            "seconds": round(seconds, 1),
            "processor (s)": round(ground.least[phase, name], 1),
            "MB/s": round(held["bytes"] / 1e6 / seconds, 1),
            "files/s": round(held["files"] / seconds),
            **({"repository (MB)": round(size / 1e6)} if (size := ground.sizes.get((phase, name))) else {}),
            **(ground.parts.get(phase, {}) if name == "ours" else {}),
        }
    ratios = {
        f"{phase}, ours/{other}{what}": round(taken[phase, other] / taken[phase, "ours"], 2)
        for what, taken in (("", ground.best), (" (processor)", ground.least))
        for phase in PHASES
        for other in ("raw borg", "raw restic")
    }
    wanted = [ratios[f"{phase}, ours/raw borg"] >= WANTED for phase in PHASES]
    return {"ok": all(wanted), "measures": measures, "ratios": ratios, "360 GB of mail": extrapolated(ground, held)}


def extrapolated(ground: Ground, held: Mapping[str, int]) -> dict[str, Any]:
    """Return hours for all of Infini's mail, and what they rest on."""
    times = MAIL_BYTES / held["bytes"]
    stored = ground.sizes["full", "ours"]
    grown = ground.sizes["incremental", "ours"] - stored
    return {
        **{f"{phase} (h)": round(ground.best[phase, "ours"] * times / 3600, 1) for phase in (*PHASES, "compare")},
        "first copy over the line (days)": round(stored * times * 8 / LINE_BITS / 86400, 1),
        "a day's change over the line (h)": round(grown * times * 8 / LINE_BITS / 3600, 1),
        "files": round(held["files"] * times),
        "assumed": {
            "bytes a file, as here": round(held["bytes"] / held["files"]),
            "share that changes in a day": 0.01,
            "line (Mb/s)": LINE_BITS / 10**6,
            "time grows as bytes and files do": True,
            "disk and processors are those of this run": True,
        },
    }
