# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a domain's DKIM keys, which ARC seals by, too.

A new key is published, seen in the DNS, then signs; the one before it stays published while mail that it signed may be
under way, and is withdrawn. Of each domain's keys one signs, and never one that the DNS does not show; the very first
of a domain is the exception, for until then nothing is signed at all. No host, no DNS: who calls has looked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Optional

PUBLISHED, SEEN, SIGNS, KEPT, WITHDRAWN = "published", "seen", "signs", "kept", "withdrawn"
WORDS = {
    PUBLISHED: "waits until the DNS shows it",
    SEEN: "is in the DNS, and waits until no old answer is left",
    SIGNS: "signs",
    KEPT: "signs no more, and stays published for mail that is under way",
    WITHDRAWN: "is to go from the DNS",
}
STATES = tuple(WORDS)
COMING = (PUBLISHED, SEEN)
DAY = 86400
ANY = "any server"


@dataclass(frozen=True)
class Key:
    """One key of a domain, known by its selector."""

    selector: str
    state: str = SIGNS
    since: float = 0.0
    wait: int = 0  # seconds for which a resolver may still give an older answer
    reason: str = ""  # why it does not go on

    def words(self) -> str:
        """Say where it stands."""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        said = f"{self.selector} {WORDS[self.state]}, since {since}"
        return f"{said}: {self.reason}" if self.reason else said


Answer = tuple[Optional[Sequence[str]], int]
"""The texts that stand at a name, none where nobody answered, and for how many seconds they may be remembered."""


@dataclass(frozen=True)
class Sight:
    """Which servers show a key as we have it, which do not, and which do not answer."""

    shows: Sequence[str] = ()
    lacks: Sequence[str] = ()
    silent: Sequence[str] = ()
    ttl: int = 0

    @property
    def everywhere(self) -> bool:
        """Tell whether every server shows it."""
        return bool(self.shows) and not self.lacks and not self.silent

    @property
    def nowhere(self) -> bool:
        """Tell whether every server has said that it does not."""
        return bool(self.lacks) and not self.shows and not self.silent


def sight(answers: Mapping[str, Sequence[Answer]], key: str) -> Sight:
    """Judge what each server says of a key at each of its addresses; of one without a text only whether it is there."""
    found: dict[str, list[str]] = {"shows": [], "lacks": [], "silent": []}
    for server, some in answers.items():
        heard = [texts for texts, _ttl in some if texts is not None]
        shown = [bool(texts) if not key else len(texts) == 1 and _tags(texts[0]) == _tags(key) for texts in heard]
        # A withdrawn key must be nowhere, a new one everywhere: a server that says both does not say it yet.
        good = any(shown) if not key else all(shown)
        found["silent" if not heard else "shows" if good else "lacks"].append(server)
    return Sight(**found, ttl=max((ttl for some in answers.values() for _texts, ttl in some), default=0))


def first(selector: str, now: float) -> tuple[Key, ...]:
    """Return the keys of a domain that had none."""
    return (Key(selector, since=now),)


def signing(keys: Iterable[Key]) -> str:
    """Return the selector that signs."""
    return next(key.selector for key in keys if key.state == SIGNS)


def published(keys: Iterable[Key]) -> list[str]:
    """Return the selectors that the DNS is to show."""
    return [key.selector for key in keys if key.state != WITHDRAWN]


def begin(keys: Sequence[Key], name: str, now: float) -> tuple[Key, ...]:
    """Return the keys with a new one, unless one is coming already; `name` is how selectors begin."""
    if any(key.state in COMING for key in keys):
        return tuple(keys)
    return (*keys, Key(_following(keys, name), PUBLISHED, now))


def step(
    keys: Sequence[Key], look: Callable[[str], Sight], now: float, days: float, oldest: Callable[[], float]
) -> tuple[Key, ...]:
    """Return the keys one step further, where it is time.

    `look` is asked what the DNS shows of a selector, `oldest` when the oldest message came that still waits here.
    """
    after: list[Key] = []
    for key in keys:
        further = _further(key, look, now, days, oldest)
        if further is None:
            continue
        if further.state == SIGNS and key.state != SIGNS:
            after = [_relieved(one, now) for one in after]
        after.append(further)
    return tuple(after)


def _further(
    key: Key, look: Callable[[str], Sight], now: float, days: float, oldest: Callable[[], float]
) -> Key | None:
    if key.state in COMING:
        return _coming(key, look(key.selector), now)
    if key.state == KEPT and now >= key.since + days * DAY:
        waiting = oldest() < key.since
        reason = "a message that it signed may still be in our queue (postqueue -p)"
        return replace(key, reason=reason) if waiting else Key(key.selector, WITHDRAWN, now)
    if key.state == WITHDRAWN:
        sight = look(key.selector)
        return None if sight.nowhere else replace(key, reason=_still(sight))
    return key


def _coming(key: Key, sight: Sight, now: float) -> Key:
    if sight.lacks:
        since = key.since if key.state == PUBLISHED else now
        return Key(key.selector, PUBLISHED, since, reason=_said(sight.lacks, "not shown by"))
    if not sight.everywhere:
        return replace(key, reason=_said(sight.silent or [ANY], "no answer from"))
    if key.state == PUBLISHED:
        return Key(key.selector, SEEN, now, sight.ttl)
    wait = max(key.wait, sight.ttl)  # a resolver's answer may have been half over when it was first seen
    if now < key.since + wait:
        return replace(key, wait=wait, reason="")
    return Key(key.selector, SIGNS, now)


def _relieved(key: Key, now: float) -> Key:
    return Key(key.selector, KEPT, now) if key.state == SIGNS else key


def _tags(text: str) -> dict[str, str]:
    """Return what a record says of a key, however it is written; what it says besides does not matter to us."""
    pairs = (part.partition("=") for part in re.sub(r"\s", "", text).split(";") if part)
    said = {"v": "DKIM1", "k": "rsa", **{name: value for name, _sign, value in pairs}}
    return {name: said.get(name, "") for name in ("v", "k", "p")}


def _still(sight: Sight) -> str:
    if sight.shows:
        return _said(sight.shows, "still shown by")
    return _said(sight.silent or [ANY], "no answer from")


def _said(servers: Iterable[str], how: str) -> str:
    return f"{how} {', '.join(servers)}"


def _following(keys: Iterable[Key], name: str) -> str:
    """Return a selector that no key of the domain has had: numbers only grow."""
    base = name.rstrip("0123456789")
    found = (re.fullmatch(rf"{re.escape(base)}([0-9]*)", key.selector) for key in keys)
    numbers = [int(one[1] or 1) for one in found if one]
    return f"{base}{max(numbers) + 1}" if numbers else name
