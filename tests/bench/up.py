# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench up`: `staging up` against a script that only installs the same packages and copies the same files.

Both start from nothing but cached images, on the same machine, in turn, on a bench of their own; the best of their
rounds counts, since a machine that others use, too, is slower at one moment than at another. The script is the raw
lower bound: it boots the hosts, lets apt install what the finished platform has, builds the same PHP trees at the same
time, and unpacks the finished configuration and sites. No database, no certificate, no check.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "bench"
os.environ["INFINI_BENCH"] = NAME

import ansible.module_utils  # noqa: E402  the bench's name comes first: inventories are read with it

from hosting import php  # noqa: E402  as above
from infini import ROOT, bench, staging  # noqa: E402  as above
from infini.hosts import Inventory  # noqa: E402  as above
from infini.preflight import role_defaults  # noqa: E402  as above

ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
sys.path.append(str(ROOT / "library"))
import php_trees  # noqa: E402  found where Ansible finds it

COPIED = ("etc", "srv/members", "usr/local")
# What podman mounts or writes itself.
LEFT_OUT = ("etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab")


@dataclass
class Raw:
    """What the script does to one host."""

    host: bench.Host
    packages: list[str]
    trees: list[list[str]]
    files: Path

    def script(self) -> str:
        """Return the script; it stops at the first error."""
        install = "apt-get -qq install -y --no-install-recommends " + shlex.join(self.packages)
        trees = [f"{shlex.join(tree)} & tree{number}=$!" for number, tree in enumerate(self.trees)]
        waits = [f"wait $tree{number}" for number in range(len(self.trees))]
        lines = ["set -e", "export DEBIAN_FRONTEND=noninteractive", "apt-get -qq update", install, "mkdir -p /srv/php"]
        return "\n".join([*lines, *trees, *waits, "tar -C / -xf /srv/files.tar"])


def run(rounds: int = 2) -> dict[str, Any]:
    """Measure both and return what `infini bench up --json` prints."""
    ours: list[float] = []
    raw: list[float] = []
    tasks = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            staging.down()
            seconds, tasks = _up()
            ours.append(seconds)
            if not number:
                the_bench, plans = _plans(Path(folder))
            staging.down()
            raw.append(_raw(the_bench, plans))
    staging.down()
    ratio = min(ours) / min(raw)
    measures = {
        "staging up": {"seconds": round(min(ours), 1), "rounds": [round(one, 1) for one in ours], "tasks": tasks},
        "raw script": {"seconds": round(min(raw), 1), "rounds": [round(one, 1) for one in raw]},
    }
    return {"ok": ratio <= 1.5, "measures": measures, "ratios": {"staging up/raw script": round(ratio, 2)}}


def _plans(folder: Path) -> tuple[bench.Bench, list[Raw]]:
    """Read from the finished hosts what the script has to do to each."""
    inventory = Inventory(staging.INVENTORY)
    hosts = [bench.Host(**inventory.get(name, "bench_host")) for name in inventory.hosts()]
    ipv4, ipv6 = (inventory.get(hosts[0].name, f"bench_{family}") for family in ("ipv4", "ipv6"))
    the_bench = bench.Bench(NAME, ipv4, ipv6, tuple(hosts))
    return the_bench, [_plan(inventory, the_bench, host, folder) for host in hosts]


def _up() -> tuple[float, int]:
    """Return the seconds of one `staging up`, and its tasks."""
    bench.build_images(["bookworm", "trixie"])
    started = time.monotonic()
    done = subprocess.run(
        [ROOT / "infini", "staging", "up", "--yes", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    seconds = time.monotonic() - started
    answer: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        raise RuntimeError(f"staging up did not end well, there is nothing to measure: {answer}")
    return seconds, int(answer["tasks"])


def _plan(inventory: Inventory, the_bench: bench.Bench, host: bench.Host, folder: Path) -> Raw:
    """Read from a finished host what the script has to do."""
    name = the_bench.container(host)
    installed = bench.podman("exec", name, "dpkg-query", "-W", "-f", "${Package}\n").split()
    packages = [package for package in installed if not package.startswith("alternc")]  # the script takes Debian's only
    with_php = (*inventory.hosts("webs"), *inventory.hosts("panels"))
    runtimes = inventory.get(host.name, "php_runtimes") if host.name in with_php else []
    extensions = role_defaults("php")["php_extensions"]
    trees = [php_trees.command(tree, f"/srv/php/{tree['version']}") for tree in php.trees(runtimes, extensions)]
    files = folder / f"{host.name}.tar"
    present = bench.podman(
        "exec", name, "sh", "-c", f"cd / && ls -d {' '.join(COPIED)} 2>/dev/null", check=False
    ).split()
    left_out = [f"--exclude={path}" for path in LEFT_OUT]
    with files.open("wb") as output:
        subprocess.run(
            ["podman", "exec", name, "tar", "-C", "/", "-cf", "-", *left_out, *present], stdout=output, check=True
        )
    return Raw(host, packages, trees, files)


def _raw(the_bench: bench.Bench, plans: list[Raw]) -> float:
    bench.build_images(host.release for host in the_bench.hosts)
    started = time.monotonic()
    bench.create(the_bench)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda plan: _raw_host(the_bench.container(plan.host), plan), plans))
    return time.monotonic() - started


def _raw_host(container: str, plan: Raw) -> None:
    bench.podman("cp", str(plan.files), f"{container}:/srv/files.tar")
    bench.podman("exec", "-i", container, "sh", "-s", stdin=plan.script())
