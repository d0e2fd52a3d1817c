# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect what the hosts say by one short playbook, look at them from outside, put both together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from hosting import health
from hosting.findings import Check, check_of
from hosting.probes import Finding, Probe, Trust, look_at_all
from infini import ROOT
from infini.errors import RefusedError
from infini.hosts import inventory_path
from infini.verify.expect import Host, about_host, inside, probes
from infini.verify.report import Report

PLAYBOOK = ROOT / "playbooks" / "verify.yml"
SEEN, HEALTH = "Read the service cards", "Read the host's health"
"""Names of the playbook's tasks whose results are read."""

Look = Callable[[Sequence[Probe], Trust], list[tuple[Probe, list[Finding]]]]


class PlayResult(Protocol):
    """The part of the runner's result that is read here."""

    unreachable: list[str]
    results: list[dict[str, Any]]

    def sentence(self) -> str:
        """Say what went wrong."""


@dataclass(frozen=True)
class View:
    """What one run of the playbook gave for one host."""

    host: Host
    reached: bool = True
    problem: str = ""
    health: Mapping[str, Any] | None = None


@dataclass
class Collected:
    """What one run of the playbook gave."""

    views: list[View] = field(default_factory=list)
    authorities: list[str] = field(default_factory=list)
    """Files of the certificate authorities that the inventory trusts beside the system's."""


def verify(inventory: str, played: PlayResult | None = None, look: Look = look_at_all) -> Report:
    """Check every host of an inventory (a name under inventory/, or a path) and report.

    `played` is the run that had PLAYBOOK as its last; without it, the playbook is run now.
    """
    path = inventory_path(inventory)
    started = time.monotonic()
    if played is None:
        from infini.runner import play  # rich and ansible-runner take a moment to import

        played = play(PLAYBOOK, str(path), quiet=True)
    collected = collect(played, path.name)
    if not collected.views:
        raise RefusedError(f"{inventory} names no host: nothing to verify. Start with ./infini staging up")
    todo = [probe for view in collected.views for probe in with_listening(probes(view.host), view.health)]
    outside = [
        check_of(probe.host, finding, probe.about, probe.address)
        for probe, findings in look(todo, trust_in(collected.authorities))
        for finding in findings
    ]
    within = [check for view in collected.views for check in checks_inside(view)]
    return Report([*within, *outside], path.name, time.monotonic() - started)


def collect(result: PlayResult, inventory: str) -> Collected:
    """Read the playbook's results; pure."""
    collected = Collected()
    named = {(entry["host"], entry["task"]): entry["result"] for entry in result.results}
    for name in sorted({host for host, _ in named} | set(result.unreachable)):
        seen = named.get((name, SEEN), {})
        facts = seen.get("ansible_facts", {}).get("verify_seen")
        reached = name not in result.unreachable
        if facts is None:
            problem = str(seen.get("msg") or result.sentence()).splitlines()[0]
            host = Host(name, about=about_host(inventory, name, ()))
            collected.views.append(View(host, reached, problem))
            continue
        about = about_host(inventory, name, facts["addresses"], facts["user"], facts["become"])
        host = Host(name, facts["groups"], facts["addresses"], facts["release"], facts["cards"], about)
        answer = named.get((name, HEALTH), {})
        problem = "" if "health" in answer or not reached else str(answer.get("msg", "no answer"))
        collected.views.append(View(host, reached, problem, answer.get("health")))
        collected.authorities += [path for path in facts["authorities"] if path not in collected.authorities]
    return collected


def trust_in(authorities: Sequence[str]) -> Trust:
    """Read the certificate authorities; one that is missing vouches for nobody."""
    return Trust(tuple(path.read_text() for path in map(Path, authorities) if path.exists()))


def with_listening(todo: Sequence[Probe], seen: Mapping[str, Any] | None) -> list[Probe]:
    """Add the ports on which a host says it listens to those that are tried."""
    listening = list(seen["listening"]) if seen else []
    return [
        replace(probe, options={**probe.options, "listening": listening}) if probe.kind == "ports" else probe
        for probe in todo
    ]


def checks_inside(view: View) -> list[Check]:
    """Give the checks of what a host said of itself; pure."""
    host = view.host
    if not view.reached:
        return [check_of(host.name, Finding("", "host.unreached"), host.about)]
    if view.health is None or view.problem:
        return [check_of(host.name, Finding("", "host.unread", {"reason": view.problem}), host.about)]
    general = [Finding("", "host.ok"), *health.judge(view.health)]
    checks = [check_of(host.name, finding, host.about) for finding in general]
    outputs = iter(view.health["commands"])
    for check, its_about in inside(host):
        if check["kind"] == "unit":
            found = health.judge_unit(view.health, str(check["name"]))
        else:
            found = health.judge_command(next(outputs), check)
        checks.append(check_of(host.name, found, its_about))
    return checks
