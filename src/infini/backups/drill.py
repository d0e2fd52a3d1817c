# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini drill`: rebuild the platform on throwaway machines, prove that it is whole, write it down, destroy it.

The machines have the names and the roles of the real ones. Once they are built they are closed: no way out but to the
store's read door, so that restored sites mail nobody. What is learned goes into a log on the keeper whose lines are
chained, and old archives are given up only while that log is green.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infini import ROOT, STATE, bench, staging
from infini.backups import faults, report
from infini.backups.door import KEEPER, ask, keeper, run
from infini.backups.recovery import Recovery, bring_back, clients, compared, hold, look, settle
from infini.backups.restore import Piece, moment_of
from infini.errors import FailedError, InfiniError, RefusedError
from infini.hosts import Connection, Inventory
from infini.runner import play

GROUP = "drills"
"""Outside a bench only machines of this group are drilled on: never one that somebody works with."""
STORES = "backup_stores"
MACHINES = f"all:!{STORES}"
DRILLS = STATE / "drills"
FRESH_HOURS = 27
"""As the role's default, where the inventory says nothing else."""
COUNTS = ROOT / "playbooks/panel_counts.yml"

# Nothing leaves a machine of a drill but answers, words among themselves, and SSH to the stores.
CLOSED = """
table inet drill {{
    chain output {{
        type filter hook output priority 10; policy drop;
        oif lo accept
        ct state established,related accept
        icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
{rules}
        counter comment "kept in"
    }}
}}
"""


@dataclass
class Drill(Recovery):
    """One drill: a recovery, and what it found out besides."""

    older: list[Piece] = field(default_factory=list)
    """Archives other than the newest that were restored beside and compared."""
    faults: list[dict[str, Any]] = field(default_factory=list)
    """Seeded faults, and whether they were caught."""

    @property
    def recovery_time(self) -> float:
        """Seconds that a disaster would take: without what only a drill does."""
        return sum(seconds for name, seconds in self.stages.items() if name not in ("closed", "older", "faults"))

    @property
    def folder(self) -> Path:
        """Where its report is kept."""
        return DRILLS / self.began.strftime("%Y-%m-%dT%H-%M-%S")

    @property
    def ok(self) -> bool:
        """Whether the recovery holds and no seeded fault slipped through."""
        return super().ok and all(fault["caught"] for fault in self.faults)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `drill --json` prints."""
        older = [{"host": piece.host, "archive": piece.archive} for piece in self.older]
        return {**super().as_json(), "older": older, "faults": self.faults}


def drill(inventory: str, *, machines: str = "", limit: str = "all", seeded: bool = False, keep: bool = False) -> Drill:
    """Rehearse the loss of the hosts of an inventory.

    `machines` is the inventory of the throwaway machines, needed outside a bench; `seeded` also checks that each known
    fault is caught; `keep` leaves the machines for a look.
    """
    real = Inventory(inventory)
    the_keeper = keeper(real)
    seen = ask(the_keeper, "journal", program=KEEPER) if the_keeper else {}
    with _machines(real, inventory, machines, keep=keep) as (there, made):
        done = Drill(there, clients(Inventory(there), limit))
        journal = {host: seen.get(f"{host}@{real.hosts(STORES)[0]}", ()) for host in done.hosts}
        try:
            held = _rehearse(done, made, journal, seeded)
        except InfiniError as error:  # what cannot be restored at all is what a drill is for: it is written down, too
            done.findings.append({"host": ", ".join(done.hosts), "service": "", "code": "stopped", "what": str(error)})
            raise
        finally:
            _write_down(done, the_keeper)
    if done.ok:
        for host, members in held.items():
            ask(real.connection(host), "verified", request=members)
    return done


def _rehearse(done: Drill, made: Any, journal: Mapping[str, Any], seeded: bool) -> dict[str, dict[str, Any]]:
    """Go through the stages; return what came back of each member of a panel."""
    with done.stage("machines"):
        made()
    settle(done, "platform", MACHINES)
    throwaway = Inventory(done.inventory)
    with done.stage("closed"):
        _close(throwaway)
    hold(done, MACHINES)
    bring_back(done, throwaway)
    with done.stage("older"):
        _look_at_an_older(done, throwaway)
    settle(done, "services", MACHINES)
    look(done, MACHINES)
    done.findings += [*faults.vanished(done.archives, journal), *_too_old(done, throwaway)]
    held = _held(done, throwaway)
    if seeded:
        with done.stage("faults"):
            done.faults = faults.seed(done, throwaway)
    return held


def _too_old(done: Drill, inventory: Inventory) -> list[dict[str, Any]]:
    """Say which archives are older than their host promises: a backup that nobody makes any more restores well."""
    ages = [(piece, (done.began - moment_of(piece.archive)).total_seconds() / 3600) for piece in done.pieces]
    promised = {host: float(inventory.get(host, "backup_fresh_hours", FRESH_HOURS)) for host in done.hosts}
    return [
        {
            "host": piece.host,
            "service": piece.service,
            "code": "too_old",
            "what": piece.archive,
            "wanted": round(promised[piece.host]),
            "found": round(age),
        }
        for piece, age in ages
        if age > promised[piece.host]
    ]


@contextmanager
def _machines(real: Inventory, inventory: str, machines: str, *, keep: bool) -> Iterator[tuple[str, Any]]:
    """Give the inventory of the throwaway machines and what makes them; destroy them at the end, whatever happened."""
    if real.get(real.hosts()[0], "bench_name"):
        with _environment(INFINI_BENCH="drill", INFINI_DRILL_OF=staging.name()):
            staging.down()  # what a killed drill has left is closed, and full of what it restored
            try:
                yield inventory, lambda: staging.create(MACHINES)
            finally:
                if not keep:
                    staging.down()
        return
    if not machines:
        raise RefusedError(
            "Outside a bench a drill needs machines that may be destroyed: name their inventory by --machines"
            " (docs: “Répéter une reprise”)"
        )
    throwaway = Inventory(machines)
    strangers = sorted(set(throwaway.hosts(MACHINES)) - set(throwaway.hosts(GROUP)))
    if strangers:
        raise RefusedError(f"{', '.join(strangers)}: not in group {GROUP} of {machines}: nothing is tried out on these")
    try:
        yield machines, lambda: _each_machine(throwaway, "drill_create")
    finally:
        if not keep:
            _each_machine(throwaway, "drill_destroy")


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _each_machine(throwaway: Inventory, name: str) -> None:
    """Run the command of this machine that makes or unmakes a throwaway machine."""
    for host in throwaway.hosts(GROUP):
        command = [str(word) for word in throwaway.get(host, name, [])]
        if not command:
            raise RefusedError(f"{host}: {name} is not set: the command of this machine that does it")
        bench.run(*command)


def _close(inventory: Inventory) -> None:
    """Let nothing out of the machines, and prove it."""
    machines = inventory.hosts(MACHINES)
    friends, stores = _addresses(inventory, machines), _addresses(inventory, inventory.hosts(STORES))
    rules = [f"        {_family(one)} daddr {one} accept" for one in friends]
    rules += [f"        {_family(one)} daddr {one} tcp dport 22 accept" for one in stores]
    for host in machines:
        to = inventory.connection(host)
        closed = run(to, ["nft", "-f", "-"], CLOSED.format(rules="\n".join(rules)))
        if closed.returncode:
            raise FailedError(f"{host}: the machine cannot be closed: {closed.stderr.strip()}")
        if run(to, ["python3", "-c", bench.HTTPS_TEST]).returncode == 0:
            raise FailedError(f"{host}: the machine still reaches the outside: nothing is restored there")


def _addresses(inventory: Inventory, hosts: Sequence[str]) -> list[str]:
    found = [inventory.get(host, name, "") for host in hosts for name in ("hosting_ipv4", "hosting_ipv6")]
    return [str(address) for address in found if address]


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def _look_at_an_older(done: Drill, inventory: Inventory) -> None:
    """Restore one archive that is not the newest beside, and compare it: a proof that wears thin would show there."""
    older = []
    for host in done.hosts:
        newest = {piece.archive for piece in done.pieces}
        older += [
            Piece(host, one["service"], one["archive"])
            for one in done.archives[host]
            if one["archive"] not in newest and moment_of(one["archive"]) < done.began
        ]
    if not older:
        return  # the first drill of a platform: there is none
    piece = random.choice(older)  # noqa: S311  no secret
    to = inventory.connection(piece.host)
    answer = ask(to, "restore", request=piece.request(over=False))
    done.older.append(piece)
    done.findings += compared(to, piece, answer)


def _held(done: Drill, inventory: Inventory) -> dict[str, dict[str, Any]]:
    """Return by panel what came back of each member, for the record without which `infini purge` deletes nobody."""
    counted = play(COUNTS, str(inventory.path), arguments=["--limit", ",".join(done.hosts)])
    taken = {
        host: min(moment_of(piece.archive).timestamp() for piece in done.pieces if piece.host == host)
        for host in done.hosts
    }
    return {
        one["host"]: {
            login: {"taken": taken[one["host"]], "holds": counts} for login, counts in one["result"]["holds"].items()
        }
        for one in counted.results
        if "holds" in one["result"]
    }


def _write_down(done: Drill, the_keeper: Connection | None) -> None:
    """Keep the report here, and a line of it in the keeper's chained log."""
    done.folder.mkdir(parents=True, mode=0o700)
    (done.folder / "report.json").write_text(json.dumps(done.as_json(), ensure_ascii=False, indent=1))
    (done.folder / "report.html").write_text(report.page(done))
    if the_keeper:
        line = {
            "time": done.began.strftime("%Y-%m-%dT%H:%M:%S"),
            "ok": done.ok,
            "clients": done.hosts,
            "archives": [f"{piece.host}::{piece.archive}" for piece in done.pieces],
            "findings": len(done.findings),
            "recovery_time_s": round(done.recovery_time),
            "recovery_point_s": round(done.recovery_point),
        }
        ask(the_keeper, "drilled", program=KEEPER, request=line)
