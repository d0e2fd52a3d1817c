# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was asked of the faces, when, and what came of it: the questions that a rehearsal puts to it at its end."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

RECORDS = ("livedns/domains/", "/records")
"""What the path of a call on live records begins with (after the version) and holds."""


@dataclass(frozen=True)
class Asked:
    """One request. `kind` is the contract's: read, write, irreversible; `landed` says whether it changed the world.

    `operation` is the contract's name of the call, empty when the contract has no such call; `target` is the path with
    its query, as it stands in a server's log.
    """

    number: int
    at: datetime
    face: str
    method: str
    path: str
    target: str
    operation: str
    kind: str
    domain: str
    status: int
    fault: str = ""
    landed: bool = False


class Journal:
    """All requests of a simulation, in order. Bodies are kept for the last `bodies` requests only."""

    def __init__(self, bodies: int = 2000) -> None:
        self.asked: list[Asked] = []
        self.bodies: deque[tuple[int, bytes, bytes]] = deque(maxlen=bodies)
        self.violations: list[str] = []
        self._lock = threading.Lock()

    def note(self, said: bytes, answered: bytes, **facts: Any) -> Asked:
        """Add a request (the fields of Asked but its number) and its two bodies."""
        with self._lock:
            entry = Asked(number=len(self.asked) + 1, **facts)
            self.asked.append(entry)
            self.bodies.append((entry.number, said, answered))
            return entry

    def violate(self, sentence: str) -> None:
        """Note that a face broke its own contract."""
        with self._lock:
            self.violations.append(sentence)

    def unknown(self) -> list[Asked]:
        """Return the requests that no contract knows: a client must not make any."""
        return [entry for entry in self.asked if not entry.operation]

    def deletes_on_records(self) -> list[Asked]:
        """Return the DELETE requests on live records, whether they succeeded or not."""
        return [entry for entry in self.asked if entry.method == "DELETE" and _on_records(entry)]

    def writes_before_snapshot(self) -> list[Asked]:
        """Return the changes at Gandi that a domain suffered before a snapshot of it was taken."""
        kept: set[str] = set()
        early = []
        for entry in self.asked:
            if entry.face != "gandi" or not entry.landed:
                continue
            if entry.operation == "make_snapshot":
                kept.add(entry.domain)
            elif entry.domain not in kept:
                early.append(entry)
        return early

    def rate(self, face: str | None = None, window: timedelta = timedelta(seconds=1)) -> int:
        """Return the most requests that one face (or this face) saw within any window of virtual time."""
        times: dict[str, list[datetime]] = defaultdict(list)
        for entry in self.asked:
            times[entry.face].append(entry.at)
        wanted: Iterable[str] = times if face is None else [face]
        return max((_densest(sorted(times[name]), window) for name in wanted), default=0)

    def with_secrets(self, secrets: Collection[str]) -> list[Asked]:
        """Return the requests whose path or query holds one of these: they would stand in every log on the way."""
        return [entry for entry in self.asked if any(secret in entry.target for secret in secrets)]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the requests as plain data; bodies stay inside, as they hold secrets."""
        return [{**asdict(entry), "at": entry.at.isoformat()} for entry in self.asked]


def _on_records(entry: Asked) -> bool:
    return entry.face == "gandi" and all(part in entry.path for part in RECORDS)


def _densest(times: list[datetime], window: timedelta) -> int:
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - window:
            first += 1
        most = max(most, last - first + 1)
    return most
