# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a fleet may move: a canary first, then one switch a day, then ten, so that an error stays small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from infini.domains.events import Event, Store
from infini.domains.ports import WorldError
from infini.domains.states import RANK, State
from infini.errors import RefusedError
from infini.phrase import Phrase

DAY = timedelta(days=1)
FLEET = "_fleet"


@dataclass(frozen=True)
class Pace:
    """How many domains may switch in any 24 hours: `first` until `proven` have settled, then `most`."""

    first: int = 1
    most: int = 10
    proven: int = 5


@dataclass(frozen=True)
class Switched:
    """One domain's switch: when it was asked for, and whether caches have since forgotten the old servers."""

    at: datetime
    settled: bool = False


def slot(
    switches: Mapping[str, Switched], domain: str, now: datetime, pace: Pace | None = None, canary: str = ""
) -> datetime | None:
    """Return when a domain may switch (`now` or later), None when nobody knows yet: the canary has not settled."""
    pace = pace or Pace()
    others = {name: switch for name, switch in switches.items() if name != domain}
    if canary and domain != canary and not (canary in others and others[canary].settled):
        return None
    proven = sum(switch.settled for switch in others.values())
    least = pace.most if proven >= pace.proven else pace.first
    recent = sorted((switch.at for switch in others.values() if switch.at > now - DAY), reverse=True)
    return now if len(recent) < least else recent[least - 1] + DAY


def waves(domains: Sequence[str], per_wave: int, canary: str = "") -> list[list[str]]:
    """Cut domains into waves in their order, the canary alone in the first; `per_wave` is at least 1."""
    rest = [name for name in domains if name != canary]
    first = [[canary]] if canary in domains else []
    return first + [rest[start : start + per_wave] for start in range(0, len(rest), per_wave)]


def last_switch(events: Sequence[Event]) -> Switched | None:
    """Return a domain's last switch, None when it has not switched or went back."""
    at, settled = None, False
    for event in events:
        action = event.data.get("action") if event.kind == "acted" else ""
        if action == "switch":
            at, settled = event.at, False
        elif action == "restore-nameservers":
            at = None
        elif event.kind in ("state", "overtaken"):
            settled = RANK[State(event.data["to"])] >= RANK[State.SETTLED]
    return Switched(at, settled) if at else None


class Waves:
    """The pace of a fleet whose events are in a store; two volunteers cannot pass it together."""

    def __init__(self, store: Store, pace: Pace | None = None, canary: str = "") -> None:
        self._store, self._pace, self._canary = store, pace or Pace(), canary

    def switches(self) -> dict[str, Switched]:
        """Return the last switch of every domain that has one."""
        found = {name: last_switch(self._store.read(name)) for name in self._store.domains()}
        return {name: switch for name, switch in found.items() if switch}

    def slot(self, domain: str, now: datetime) -> datetime:
        """Return when a domain may switch; one that waits for the canary is told to ask again in six hours."""
        return slot(self.switches(), domain, now, self._pace, self._canary) or now + timedelta(hours=6)

    @contextmanager
    def turn(self, domain: str, now: datetime, who: str) -> Iterator[None]:
        """Hold the fleet while a domain switches, and make sure that its turn has not just been taken."""
        try:
            with self._store.lock(FLEET, who):
                if self.slot(domain, now) > now:
                    raise WorldError(Phrase("The day's switches have just been used up by somebody else"), retry=True)
                yield
        except RefusedError as error:
            busy = Phrase("Somebody else is switching a domain: {error}", error=error.args[0])
            raise WorldError(busy, retry=True) from error
