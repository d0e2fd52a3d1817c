# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains as members have them, each with what people decided about it and how its move must end.

One file each, beside this one. `records`, `redirections`, `mailboxes`, `forwards` and `glue` are what Gandi's API says;
`account` is the rest of what Gandi knows, `decisions` what a volunteer and the member settled beforehand, `parent` the
TTLs (seconds) of the domain's delegation, `faults` what goes wrong with it on its way. `registry` is the top-level
domain whose rules hold, since all names are under .test. `ends` is DONE, or BLOCKED with the code in `blocked`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from infini.domains.observed import Level, MailMode
from infini.errors import RefusedError
from infini.phrase import Phrase

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Account:
    """What Gandi knows of a domain beside its zone. `organisation` other than `infini` is invisible to our token."""

    created_days_ago: int = 2000
    expires_in_days: int = 300
    locked: bool = True
    signed: bool = False
    organisation: str = "infini"


@dataclass(frozen=True)
class Decisions:
    """What people settled before the move, as they would in a real one.

    `redirections`: hosts whose framed redirection may go on as an ordinary one. `alias_addresses`: target of an ALIAS →
    the addresses it has at Infini. `waivers`: `name/TYPE` → why a blocked entry may pass. `mailboxes_copied`: somebody
    copied the boxes and counted them.
    """

    consent: bool = True
    mail: MailMode = "none"
    mailboxes_copied: bool = False
    redirections: tuple[str, ...] = ()
    alias_addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    waivers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Archetype:
    """A kind of domain. `name` is its file's; `says` (French) what is special about it."""

    name: str
    says: str
    domain: str
    registry: str
    level: Level
    ends: Literal["DONE", "BLOCKED"]
    blocked: str
    account: Account
    decisions: Decisions
    records: tuple[Mapping[str, Any], ...]
    redirections: tuple[Mapping[str, Any], ...] = ()
    mailboxes: tuple[str, ...] = ()
    forwards: tuple[Mapping[str, Any], ...] = ()
    glue: tuple[Mapping[str, Any], ...] = ()
    faults: tuple[str, ...] = ()
    ns_ttl: int = 3600
    ds_ttl: int = 3600

    @property
    def end(self) -> str:
        """Return how the move ends, in one word: DONE, or the code it is blocked with."""
        return self.blocked or self.ends


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping whose lists, at one level below too, are tuples."""
    return {
        key: tuple(value)
        if isinstance(value, list)
        else _tuples(value)
        if isinstance(value, dict) and any(isinstance(inner, list) for inner in value.values())
        else value
        for key, value in row.items()
    }


def _parse(name: str, raw: Mapping[str, Any]) -> Archetype:
    row = dict(raw)
    parent = row.pop("parent", {})
    blocked = row.pop("blocked", "")
    if (row["ends"] == "BLOCKED") is not bool(blocked):
        raise RefusedError(f"Archetype {name}: `blocked` goes with `ends: BLOCKED`, and with nothing else")
    account, decisions = Account(**row.pop("account", {})), Decisions(**_tuples(row.pop("decisions", {})))
    return Archetype(name=name, blocked=blocked, account=account, decisions=decisions, **parent, **_tuples(row))


@cache
def _raw(path: Path) -> dict[str, Any]:
    # The parser in C where there is one: three hundred records take the other a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506  both are safe
    return found


def _replaced(value: Any, pattern: re.Pattern[str], by: str) -> Any:
    """Return the same data with the pattern replaced in every text of it."""
    if isinstance(value, dict):
        return {_replaced(key, pattern, by): _replaced(inner, pattern, by) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, pattern, by) for inner in value]
    return pattern.sub(by, value) if isinstance(value, str) else value


def names() -> list[str]:
    """Return the archetypes there are, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def load(name: str, number: int = 0) -> Archetype:
    """Return an archetype, or the `number`th domain of its kind: the same under another name.

    Raise RefusedError when there is none of that name, or when its file contradicts itself.
    """
    path = FOLDER / f"{name}.yml"
    if not path.is_file():
        raise RefusedError(
            Phrase("There is no archetype “{name}”: name one of {known}", name=name, known=", ".join(names()))
        )
    raw = _raw(path)
    if number:
        pattern = re.compile(rf"(?<![\w-]){re.escape(raw['domain'])}\b")
        raw = _replaced(raw, pattern, renamed(raw["domain"], number))
    return _parse(name, raw)


def renamed(domain: str, number: int) -> str:
    """Return the name of another domain of the same kind, in ASCII also when the name has accents."""
    label, _, rest = domain.partition(".")
    shown = label.encode("ascii").decode("idna") if label.startswith("xn--") else label
    return f"{shown}-{number:03d}".encode("idna").decode("ascii") + f".{rest}"


def fleet(count: int) -> Iterator[Archetype]:
    """Return `count` domains: every archetype in turn, then again under other names."""
    known = names()
    for index in range(count):
        yield load(known[index % len(known)], index // len(known))
