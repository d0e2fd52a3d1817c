# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Service cards: reading `roles/*/meta/service.yml`, checking them, and knowing which ones apply to a host."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infini.plays import applied, read_yaml

SCHEMA = Path(__file__).with_name("cards.schema.json")
Render = Callable[[Any, Mapping[str, Any]], Any]
"""Renders a value's templates; the second argument adds variables (`item`)."""


@dataclass(frozen=True)
class CardError(Exception):
    """A card that breaks the schema, in one sentence."""

    path: str
    place: str
    problem: str

    def __str__(self) -> str:
        """Say where and what."""
        return f"{self.path}: {self.place}: {self.problem}"


@dataclass(frozen=True)
class Use:
    """One role that a play applies to some hosts."""

    role: str
    hosts: str
    playbook: str
    when: Any = None


def load(path: Path) -> dict[str, Any]:
    """Read one card without checking it."""
    return read_yaml(path) or {}


def check(card: Any, path: str) -> list[CardError]:
    """Say what is wrong with a card; an empty list when nothing is."""
    from jsonschema import Draft202012Validator  # costs 0.1 s: only those who check pay it
    from jsonschema.exceptions import best_match

    errors = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).iter_errors(card)
    found = [best_match([error]) for error in errors]
    return [CardError(path, _place(error.absolute_path), _problem(error)) for error in found if error is not None]


def _place(path: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".") or "the card"


def _problem(error: Any) -> str:
    if error.validator == "unevaluatedProperties" or error.validator == "additionalProperties":
        return f"{error.message.replace('Unevaluated', 'Unknown').replace('Additional', 'Unknown')}; see {SCHEMA.name}"
    if error.validator == "enum":
        return f"{error.instance!r} is not one of {', '.join(map(str, error.validator_value))}"
    if error.validator == "pattern" and error.parent is not None and "description" in error.parent.schema:
        return f"{error.instance!r} does not fit: {error.parent.schema['description']}"
    return str(error.message)


def uses(playbooks: Path) -> list[Use]:
    """Say which roles the plays of a directory apply, in the plays' order."""
    return [use for path in sorted(playbooks.glob("*.yml")) for use in _uses_of(path)]


def _uses_of(path: Path) -> Iterator[Use]:
    for play in read_yaml(path) or []:
        for role, when in applied(play):
            yield Use(role, _pattern(play["hosts"]), path.stem, when)


def _pattern(hosts: str | Sequence[str]) -> str:
    return hosts if isinstance(hosts, str) else ",".join(hosts)


def matches(pattern: str, host: str, groups: Collection[str]) -> bool:
    """Tell whether a host pattern (`web`, `all,!lists`, `databases:&staging`, `web*`) takes this host."""
    names = {host, "all", *groups}
    taken = False
    for part in [part.strip() for part in pattern.replace(",", ":").split(":") if part.strip()]:
        found = any(fnmatch.fnmatchcase(name, part.lstrip("!&")) for name in names)
        if part.startswith("!"):
            taken = taken and not found
        elif part.startswith("&"):
            taken = taken and found
        else:
            taken = taken or found
    return taken


def uses_on(host: str, groups: Collection[str], all_uses: Sequence[Use]) -> list[Use]:
    """Give the uses that concern one host, each role once."""
    chosen: dict[str, Use] = {}
    for use in all_uses:
        if matches(use.hosts, host, groups):
            chosen.setdefault(use.role, use)
    return list(chosen.values())


def render_checks(card: Mapping[str, Any], render: Render) -> list[dict[str, Any]]:
    """Render a card's checks: `each` unrolled, those whose `when` is false left out."""
    return [rendered for check in card.get("checks") or [] for rendered in _unroll(check, render)]


def _unroll(check: Mapping[str, Any], render: Render) -> Iterator[dict[str, Any]]:
    rest = {key: value for key, value in check.items() if key not in ("each", "when")}
    items = [{"item": item} for item in render(check["each"], {})] if "each" in check else [{}]
    for extra in items:
        if _true(render(check.get("when", True), extra)):
            yield render(rest, extra)


def _true(value: Any) -> bool:
    return value.strip().lower() in ("true", "yes", "1") if isinstance(value, str) else bool(value)


def render_ports(card: Mapping[str, Any], render: Render) -> list[dict[str, Any]]:
    """Render a card's ports with every key present."""
    ports = render(card.get("ports") or [], {})
    return [{"service": card["service"], "protocol": "tcp", **port} for port in ports]


WHOLE = ("paths", "reference", "databases", "before", "after", "restored", "counts")


def render_whole(card: Mapping[str, Any], render: Render) -> dict[str, Any]:
    """Render what makes a service whole, with every key present; nothing for one that has nothing to keep."""
    whole = render(card.get("whole") or {}, {})
    if not any(whole.get(key) for key in ("paths", "reference", "databases", "counts")):
        return {}
    label = render(card.get("label") or card["service"], {})
    return {"service": card["service"], "label": label, **{key: whole.get(key) or [] for key in WHOLE}}


def render_card(card: Mapping[str, Any], render: Render) -> dict[str, Any]:
    """Render a whole card."""
    whole = {key: value for key, value in card.items() if key not in ("checks", "ports")}
    rendered: dict[str, Any] = render(whole, {})
    return {**rendered, "ports": render_ports(card, render), "checks": render_checks(card, render)}
