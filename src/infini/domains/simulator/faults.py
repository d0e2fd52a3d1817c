# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong: planned one by one, or at random from a seed, the same each time whatever the order of domains."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random

HEALING = (
    "429",
    "429-retry-after",
    "500-html",
    "502-html",
    "lost-answer",
    "truncated",
    "count-mismatch",
    "page-change",
    "never-completes",
)
"""Faults of one HTTP call that go away when the call is made again, after reading."""
HALTING = ("401", "403-expired", "403-rights")
"""Faults of one HTTP call that a human must mend: a client never repeats it by itself."""
WORLDLY = ("auth-code-wrong", "transfer-refused", "zone-edited")
"""Faults of the world itself: the registry refuses the code shown, the transfer is refused, somebody edits the zone."""
KINDS = HEALING + HALTING + WORLDLY


@dataclass
class Fault:
    """One fault to come: the calls it strikes (`*` and `?` allowed), how many it lets pass, how many it strikes.

    `times` None strikes for ever. `landed`-like effects are the kind's own: `502-html` and `lost-answer` strike after
    the change was made, `500-html` before.
    """

    kind: str
    face: str = "*"
    method: str = "*"
    path: str = "*"
    domain: str = "*"
    skip: int = 0
    times: int | None = 1

    def strikes(self, face: str, method: str, path: str, domain: str) -> bool:
        """Return whether it strikes this call, and count it."""
        wanted = ((face, self.face), (method, self.method), (path, self.path), (domain, self.domain))
        if self.times == 0 or not all(fnmatchcase(said, pattern) for said, pattern in wanted):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """All faults to come. Planned ones go first; random ones are drawn from the seed, the call and its ordinal."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.planned: list[Fault] = []
        self.struck: Counter[str] = Counter()
        self._chance, self._most = 0.0, 0
        self._kinds: tuple[str, ...] = ()
        self._calls: Counter[tuple[str, ...]] = Counter()
        self._had: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def add(
        self,
        kind: str,
        *,
        face: str = "*",
        method: str = "*",
        path: str = "*",
        domain: str = "*",
        skip: int = 0,
        times: int | None = 1,
    ) -> Fault:
        """Plan a fault and return it; raise ValueError for a kind that does not exist."""
        _check([kind])
        fault = Fault(kind, face, method, path, domain, skip, times)
        with self._lock:
            self.planned.append(fault)
        return fault

    def at_random(self, chance: float, kinds: Collection[str] = HEALING, most: int = 2) -> None:
        """Let each call be struck with this chance (0 to 1), each kind at most `most` times a domain.

        Worldly kinds are drawn once a domain, with the same chance. Zero switches chance off.
        """
        _check(kinds)
        with self._lock:
            self._chance, self._kinds, self._most = chance, tuple(sorted(kinds)), most

    def clear(self) -> None:
        """Switch all off: nothing strikes any more."""
        with self._lock:
            self.planned.clear()
            self._chance = 0.0

    def strike(
        self, kinds: Collection[str], *, face: str = "", method: str = "", path: str = "", domain: str = ""
    ) -> str | None:
        """Return the one fault, of the kinds that make sense for this call, that strikes it; None if none does."""
        with self._lock:
            kind = self._planned(kinds, face, method, path, domain) or self._drawn(kinds, face, method, path, domain)
            if kind:
                self.struck[kind] += 1
            return kind

    def _planned(self, kinds: Collection[str], face: str, method: str, path: str, domain: str) -> str | None:
        for fault in self.planned:
            if fault.kind in kinds and fault.strikes(face, method, path, domain):
                return fault.kind
        return None

    def _drawn(self, kinds: Collection[str], face: str, method: str, path: str, domain: str) -> str | None:
        possible = [kind for kind in self._kinds if kind in kinds and self._had[kind, domain] < self._limit(kind)]
        call = (face, method, path, domain, *(kind for kind in WORLDLY if kind in kinds))
        self._calls[call] += 1
        # A stream per call and ordinal: the faults of one domain do not depend on what the others did before.
        chance = Random(f"{self.seed} {call} {self._calls[call]}")  # noqa: S311 - a game, not a secret
        if not possible or chance.random() >= self._chance:
            return None
        kind = chance.choice(possible)
        self._had[kind, domain] += 1
        return kind

    def _limit(self, kind: str) -> int:
        return 1 if kind in WORLDLY else self._most


def _check(kinds: Collection[str]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"no fault is called {kind!r}: the faults are {', '.join(KINDS)}")
