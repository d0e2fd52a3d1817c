# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""From bare machines and the store back to a platform that serves: what a disaster needs, and what a drill rehearses.

The roles make the services, empty; the archives give them back what they held; a manifest from within each archive says
whether that is all; then the roles and `verify` look over it once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from infini import ROOT, staging
from infini.apply import apply
from infini.backups.door import CLIENTS, ask, run, what_came
from infini.backups.restore import TIME, Piece, Thing, moment_of, plan
from infini.errors import FailedError, RefusedError
from infini.hosts import Connection, Inventory
from infini.runner import RunResult, console, play
from infini.verify import verify
from infini.verify.report import Report
from infini.verify.run import PLAYBOOK

STATE_FILE = "/var/lib/infini-backup/state.json"
"""A host that has one has backed up before: it is no empty one."""
HOLD = ROOT / "playbooks/hold.yml"
Work = Callable[[Connection, Piece], list[dict[str, Any]]]


@dataclass
class Recovery:
    """One recovery: how long its stages took (seconds), what came back, and what is not as it was."""

    inventory: str
    hosts: list[str]
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    stages: dict[str, float] = field(default_factory=dict)
    archives: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What the store shows of each host."""
    pieces: list[Piece] = field(default_factory=list)
    restored: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[dict[str, Any]] = field(default_factory=list)
    """What a person should know, though it came back as it was kept."""
    report: Report | None = None

    @property
    def ok(self) -> bool:
        """Whether something came back, all of it as it was, and it serves."""
        return bool(self.restored) and not self.findings and self.report is not None and self.report.ok

    @property
    def recovery_time(self) -> float:
        """Seconds from bare machines to a platform that serves."""
        return sum(self.stages.values())

    @property
    def recovery_point(self) -> float:
        """Age of the oldest archive that was brought back, in seconds, when the recovery began."""
        times = [moment_of(piece.archive) for piece in self.pieces]
        return max(((self.began - one).total_seconds() for one in times), default=0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        started = time.monotonic()
        with console.status(name):
            try:
                yield
            finally:
                self.stages[name] = round(time.monotonic() - started, 1)
        console.print(f"{name}: {self.stages[name]:.0f} s", markup=False, highlight=False)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `rebuild --json` prints, and `drill --json` begins with."""
        return {
            "ok": self.ok,
            "stages": self.stages,
            "recovery_time_s": round(self.recovery_time, 1),
            "recovery_point_s": round(self.recovery_point),
            "restored": self.restored,
            "findings": self.findings,
            "remarks": self.remarks,
            "checks": self.report.checks if self.report else 0,
            "failed": self.report.as_json()["failed"] if self.report else [],
        }


def rebuild(inventory: str, *, limit: str = "all", over: Sequence[str] = (), before: str = "") -> Recovery:
    """Bring the hosts of an inventory back from the store; a host that already has a past only if `over` names it.

    `before` (UTC) is a time until which archives are taken, when a rebuild was begun before and hosts backed up since.
    """
    the_inventory = Inventory(inventory)
    recovery = Recovery(inventory, clients(the_inventory, limit))
    if the_inventory.get(recovery.hosts[0], "bench_name"):
        with recovery.stage("machines"):
            staging.create()
    _refuse_living(the_inventory, recovery.hosts, over)
    settle(recovery, "platform")
    hold(recovery)
    bring_back(recovery, the_inventory, before)
    remark(recovery)
    settle(recovery, "services")
    look(recovery)
    return recovery


def clients(inventory: Inventory, limit: str) -> list[str]:
    """Return the hosts of a pattern that are backed up."""
    limited = inventory.hosts(limit)
    found = [host for host in inventory.hosts(CLIENTS) if host in limited]
    if not found:
        raise RefusedError(f"No host of “{limit}” is backed up: the group {CLIENTS} of the inventory says which are")
    return found


def _refuse_living(inventory: Inventory, hosts: Sequence[str], over: Sequence[str]) -> None:
    living = [
        host
        for host in hosts
        if host not in over and not run(inventory.connection(host), ["test", "-e", STATE_FILE]).returncode
    ]
    if living:
        raise RefusedError(
            f"{', '.join(living)}: not empty, backups were made there. To lay an older state over a living host, name"
            f" it: {' '.join(f'--over {host}' for host in living)}, with --before if a rebuild was begun and stopped;"
            " for one site or database: ./infini restore"
        )


def settle(recovery: Recovery, stage: str, limit: str = "all", **variables: Any) -> RunResult:
    """Apply the whole platform: before the archives so that there is what to fill, after them so that it runs."""
    with recovery.stage(stage):
        done = apply("site", recovery.inventory, limit=limit, variables=variables)
    if not done.ok:
        raise FailedError(done.sentence())
    return done


def hold(recovery: Recovery, limit: str = "all") -> None:
    """Stop what would write while archives are laid over it and compared; `settle` starts it again."""
    with recovery.stage("hold"):
        done = play(HOLD, recovery.inventory, arguments=["--limit", limit])
    if not done.ok:
        raise FailedError(done.sentence())


def bring_back(recovery: Recovery, inventory: Inventory, before: str = "") -> None:
    """Lay the newest archives from before the recovery over its hosts, and compare with their manifests."""
    before = before or recovery.began.strftime(TIME)
    for host in recovery.hosts:
        to = inventory.connection(host)
        recovery.archives[host] = ask(to, "archives")
        recovery.pieces += plan(Thing(host), ask(to, "services"), recovery.archives[host], before)
    with recovery.stage("restore"):
        recovery.restored = _each_host(recovery, inventory, _restored)
    with recovery.stage("compare"):
        recovery.findings = _each_host(recovery, inventory, compared)


def remark(recovery: Recovery) -> None:
    """Make remarks of the findings that tell of the archives: no recovery can be more whole than what was kept.

    A sudden growth or loss since the archive before is for a person to judge, who may want an older one (`--before`).
    """
    recovery.remarks = [finding for finding in recovery.findings if finding["code"] == "size_moved"]
    recovery.findings = [finding for finding in recovery.findings if finding not in recovery.remarks]


def _each_host(recovery: Recovery, inventory: Inventory, work: Work) -> list[dict[str, Any]]:
    """Do the same with every piece: the hosts at the same time, the pieces of a host in their order."""
    of_hosts = [[piece for piece in recovery.pieces if piece.host == host] for host in recovery.hosts]
    connections = {host: inventory.connection(host) for host in recovery.hosts}

    def of_host(pieces: list[Piece]) -> list[dict[str, Any]]:
        return [one for piece in pieces for one in work(connections[piece.host], piece)]

    with ThreadPoolExecutor(len(of_hosts)) as pool:
        return [one for found in pool.map(of_host, of_hosts) for one in found]


def _restored(to: Connection, piece: Piece) -> list[dict[str, Any]]:
    answer: Mapping[str, Any] = ask(to, "restore", request=piece.request(over=True))
    return [{"host": piece.host, "service": piece.service, "archive": piece.archive, **answer}]


def compared(to: Connection, piece: Piece, restored: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return what of a piece is not as its manifest says, each with its host and service.

    `restored` is what `restore` answered where it was brought back beside; without it the living is compared.
    """
    where = what_came(restored) if restored else {}
    answer = ask(to, "compare", request={"service": piece.service, "archive": piece.archive, **where})
    return [{"host": piece.host, "service": piece.service, **finding} for finding in answer["findings"]]


def look(recovery: Recovery, limit: str = "all") -> None:
    """Look at the platform as its users do."""
    with recovery.stage("verify"):
        inventory = Inventory(recovery.inventory)
        staging.keep_authority(inventory)
        played = play(PLAYBOOK, str(inventory.path), quiet=True, arguments=["--limit", limit])
        recovery.report = verify(recovery.inventory, played)
