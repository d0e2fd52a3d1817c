# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench abuse`: how much slower a neighbour's pages come while one account abuses its PHP.

On the bench that INFINI_BENCH names, which must be up. One account attacks; the other's page is asked for at the rate
that its profile states, and its 95th percentile is compared with that of a quiet host. Who asks has a processor of its
own, the host and the attackers have the others: each account then gets the share of them that its profile would give it
on a host with four. The control takes away what confines (the accounts' slices, the few children), as with one PHP for
all, and spins again: it must be far worse, or the attack was none.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import testinfra

from hosting import model
from infini import ROOT, bench, staging
from infini.hosts import Inventory

sys.path.append(str(ROOT / "tests/e2e"))
from members import Site, put, site_of, visitor  # type: ignore[import-not-found]  # the tests' own, found there
from members import run as on

SECONDS, QUIET_SECONDS, WAKE_SECONDS = 20.0, 8.0, 4.0
PER_SECOND = 25
"""What the profile `petit` says that it serves."""
MADE_FOR = 4
"""Processors of the hosts that the profiles are made for."""
UNLIMITED_CHILDREN = 40
CONTROL = "spin without limits"
RUNTIME = "/run/systemd/system.control"
WANTED = {"limits": 1.5, "control": 3.0}
"""The most that limits may let through, and the least that shows that there was something to limit."""

SPIN = "while (true) { md5('x'); }"
GREED = "ini_set('memory_limit', -1); $kept = []; while (true) { $kept[] = str_repeat('x', 1 << 20); }"
BOMB = "while (true) { $kept[] = @proc_open('sleep 5', [], $pipes); }"
FILES = "while (true) { $kept[] = @fopen(__FILE__, 'r'); }"
FILL = "$file = fopen('/tmp/fill', 'w'); while (true) { fwrite($file, str_repeat('x', 1 << 20)); rewind($file); }"
# Requests that waited at the entrance start the next master: it must stay away for a second. systemd may have given the
# entrance up by then (five starts in ten seconds), and the next attack would hit nothing.
REST = """
for _ in $(seq 30); do
  systemctl kill --signal KILL {0}; systemctl stop {0}; sleep 1
  systemctl --quiet is-active {0} || break
done
systemctl reset-failed {0} {1}; systemctl start {1} && ! systemctl --quiet is-active {0}
"""
ATTACKS = {"spin": SPIN, "memory": GREED, "fork": BOMB, "files": FILES, "temporary files": FILL}

Visit = Callable[..., tuple[int, str, Any]]


def run() -> dict[str, Any]:
    """Let one account of each version of PHP abuse it, beside a neighbour of another."""
    inventory = Inventory(staging.INVENTORY)
    staging.keep_authority(inventory)
    name = inventory.hosts("webs")[0]
    to = inventory.connection(name)
    web = testinfra.get_host(f"ssh://{to.user}@{to.address}:{to.port}", ssh_extra_args=shlex.join(to.options))
    # The front counts by address: attackers come from another than who measures.
    authority = inventory.get(name, "hosting_authorities")[0]
    visitors = [visitor(inventory.get(name, f"hosting_{family}"), authority) for family in ("ipv4", "ipv6")]
    sites = [site for site in inventory.get(name, "hosting_sites") if site.get("php") and site.get("cms")]
    measures, ratios, wanted = {}, {}, []
    with _apart(f"infini-{staging.name()}-{name}") as others:
        for bad, good in zip(sites, [*sites[1:], sites[0]], strict=True):
            quotas = {site["account"]: _quota(inventory, name, site["account"]) for site in (bad, good)}
            with _share(web, quotas, len(others)):
                found = _measure(web, visitors, bad["account"], good["account"], others)
            quiet = found["quiet"]["p95_ms"]
            against = {what: round(one["p95_ms"] / quiet, 2) for what, one in found.items() if what != "quiet"}
            measures[f"PHP {bad['php']}"] = found
            ratios.update({f"PHP {bad['php']}: {what}/quiet": ratio for what, ratio in against.items()})
            wanted.append(against.pop(CONTROL) >= WANTED["control"])
            wanted.append(max(against.values()) <= WANTED["limits"])
            wanted.append(not any(one["failed"] for what, one in found.items() if what != CONTROL))
    return {"ok": all(wanted), "measures": measures, "ratios": ratios}


def _measure(web: Any, visitors: Sequence[Visit], bad: str, good: str, others: set[int]) -> dict[str, dict[str, Any]]:
    """Measure each attack, all at once and the control, and the quiet host before each of them.

    One moment is not another: quiet is what all the quiet moments make together.
    """
    visit, attack_by = visitors
    quiet, measures = Asked(), {}
    attacks = {**{attack: {attack: code} for attack, code in ATTACKS.items()}, "all at once": ATTACKS}
    with site_of(web, bad) as attacker, site_of(web, good) as neighbour:
        attacked = partial(_attacked, web, attack_by, attacker, others)
        for what, codes in attacks.items():
            quiet += _ask(visit, neighbour, QUIET_SECONDS)
            with attacked(codes):
                measures[what] = _ask(visit, neighbour, SECONDS).figures()
        quiet += _ask(visit, neighbour, QUIET_SECONDS)
        with _without_limits(web, attacker, neighbour), attacked({"spin": SPIN}, UNLIMITED_CHILDREN):
            measures[CONTROL] = _ask(visit, neighbour, SECONDS).figures()
    return {"quiet": quiet.figures(), **measures}


@dataclass
class Asked:
    """What became of requests: the seconds of those that were answered, and why the others failed."""

    taken: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __add__(self, other: Asked) -> Asked:
        """Put two moments together."""
        return Asked(self.taken + other.taken, self.failed + other.failed)

    def figures(self) -> dict[str, Any]:
        """Return what the bench prints."""
        cuts = statistics.quantiles(self.taken, n=100)
        return {
            "requests": len(self.taken) + len(self.failed),
            "failed": len(self.failed),
            "p50_ms": round(cuts[49] * 1000, 1),
            "p95_ms": round(cuts[94] * 1000, 1),
        }


def _ask(visit: Visit, site: Site, seconds: float) -> Asked:
    """Ask for a page at a steady rate, whatever the answers take; an answer counts from when it was due.

    Each is due at a chance moment of its turn: an even beat is in step with the turns in which accounts get their share
    of a processor, and meets the attacker's burst always or never. The first seconds wake the site's PHP and count for
    nothing.
    """
    asked, chance = Asked(), random.Random(0)  # noqa: S311  no secret
    begin = time.monotonic() + WAKE_SECONDS

    def once(due: float) -> None:
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            status, text, _ = visit(site, "who.php")
        except OSError as error:
            asked.failed.append(str(error))
            return
        if due >= begin:
            asked.taken.append(time.monotonic() - due)
        if (status, text) != (200, site.me):
            asked.failed.append(str(status))

    waking, counted = (int(some * PER_SECOND) for some in (WAKE_SECONDS, seconds))
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(once, (begin + (number + chance.random()) / PER_SECOND for number in range(-waking, counted))))
    return asked


@contextlib.contextmanager
def _apart(container: str) -> Iterator[set[int]]:
    """Keep the last processor to ourselves, give the others to the host, and let every other host stand still."""
    every = os.sched_getaffinity(0)
    others = every - {max(every)}
    if not others:
        raise RuntimeError("This machine has one processor: who measures and who is measured need one each")
    hosts = bench.podman("ps", "--filter", "label=infini.bench", "--format", "{{.Names}}").split()
    with contextlib.ExitStack() as afterwards:
        os.sched_setaffinity(0, {max(every)})
        afterwards.callback(os.sched_setaffinity, 0, every)
        bench.podman("update", "--cpuset-cpus", _words(others), container)
        afterwards.callback(bench.podman, "update", "--cpuset-cpus", _words(every), container)
        for name in sorted({*hosts} - {container}):
            bench.podman("pause", name)
            afterwards.callback(bench.podman, "unpause", name)
        yield others


def _quota(inventory: Inventory, host: str, name: str) -> int:
    accounts, profiles = (inventory.get(host, f"hosting_{what}") for what in ("accounts", "profiles"))
    account = next(account for account in accounts if account["name"] == name)
    return int(model.limits(account, profiles)["cpu"].rstrip("%"))


def _words(processors: set[int]) -> str:
    return ",".join(map(str, sorted(processors)))


@contextlib.contextmanager
def _share(web: Any, quotas: dict[str, int], processors: int) -> Iterator[None]:
    """Give each account as much of these processors as its quota (percent of one) is of a host's."""
    percents = {f"members-{account}.slice": quota * processors / MADE_FOR for account, quota in quotas.items()}
    for group, percent in percents.items():
        on(web, "systemctl set-property --runtime {} {}", group, f"CPUQuota={percent:.0f}%")
    try:
        yield
    finally:
        on(web, f"rm -rf {' '.join(f'{RUNTIME}/{group}.d' for group in percents)} && systemctl daemon-reload")


@contextlib.contextmanager
def _attacked(
    web: Any, visit: Visit, site: Site, processors: set[int], attacks: dict[str, str], at_once: int = 6
) -> Iterator[None]:
    """Keep every child of the account's PHP at it, from a process of its own; afterwards its masters start afresh.

    As many ask at once for one attack or for all: who comes in excess of the children only waits at the front.
    """
    names = []
    for number, code in enumerate(attacks.values()):
        names.append(f"attack{number}.php")
        put(web, site, names[-1], f"<?php set_time_limit(0); {code}")
    attackers = multiprocessing.get_context("fork").Process(
        target=_keep_at_it, args=(visit, site, names, at_once, processors), daemon=True
    )
    attackers.start()
    try:
        time.sleep(2)
        _require_attack(web, site)
        yield
        _require_attack(web, site)
    finally:
        attackers.kill()
        attackers.join()
        on(web, REST, site.master, site.master.replace(".service", ".socket"))


def _require_attack(web: Any, site: Site) -> None:
    """Refuse to measure an attack that hits nothing: the children of the master must be at it.

    For a moment there may be none: the kernel has just killed those that took all the memory.
    """
    for _ in range(10):
        tasks = on(web, "systemctl show --value --property=TasksCurrent {}", site.master)
        if tasks.isdigit() and int(tasks) > 1:
            return
        time.sleep(0.2)
    raise RuntimeError(f"Nobody is attacked: {site.master} has {tasks} processes")


def _keep_at_it(visit: Visit, site: Site, pages: list[str], at_once: int, processors: set[int]) -> None:
    """Ask for these pages again and again, each of those who ask for another one first."""
    os.sched_setaffinity(0, processors)

    def again(number: int) -> None:
        for page in itertools.islice(itertools.cycle(pages), number % len(pages), None):
            with contextlib.suppress(OSError):
                visit(site, page, timeout=5)
            time.sleep(1)  # who attacks takes processor from the host, too: not more than can be helped

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(again, range(at_once)))


@contextlib.contextmanager
def _without_limits(web: Any, attacker: Site, neighbour: Site) -> Iterator[None]:
    """Take away what confines accounts: their PHP runs among the services, and the attacker's has many children."""
    pool = f"/etc/php/pools/{attacker.version}/{attacker.account}.conf"
    drop_ins = [f"/run/systemd/system/{site.master}.d" for site in (attacker, neighbour)]
    masters = f"{attacker.master} {neighbour.master}"
    for folder in drop_ins:
        on(web, "mkdir -p {0} && printf '[Service]\\nSlice=system.slice\\n' >{0}/bench.conf", folder)
    many = f"s/^pm.max_children.*/pm.max_children = {UNLIMITED_CHILDREN}/"
    on(web, "cp -p {0} {0}.kept && sed -i {1} {0}", pool, many)
    on(web, f"systemctl daemon-reload && systemctl stop {masters}")
    try:
        yield
    finally:
        on(web, "mv {0}.kept {0}", pool)
        on(web, f"rm -r {' '.join(drop_ins)} && systemctl daemon-reload && systemctl stop {masters}")
