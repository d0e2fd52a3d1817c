# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of each rrset of an export: each is accounted for exactly once, or the plan cannot be applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from infini.domains.rules import REWRITINGS, Entry, Options, Rule, World, rules
from infini.domains.zone import Key, Rrset, Unreadable, Zone

__all__ = ["Options", "Outcome", "Plan", "What", "make_plan"]

What = Literal["identical", "rewritten", "dropped", "blocked"]
"""What becomes of an entry: carried as it is, carried changed, left behind on purpose, or waiting for a human."""

_FRENCH: Mapping[What, str] = {
    "blocked": "en attente d'une décision",
    "rewritten": "repris, adapté",
    "dropped": "laissé sur place",
    "identical": "repris tel quel",
}


@dataclass(frozen=True)
class Outcome:
    """What becomes of one entry of the export.

    `rule` names the rules that decided (`, ` between them), empty when none did. `reason` is in French. `code` says why
    an entry is blocked. `after` is the rrset that is carried over, None when nothing is.
    """

    key: Key
    what: What
    rule: str
    reason: str
    before: tuple[str, ...]
    after: Rrset | None = None
    code: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as data for JSON."""
        after = self.after
        return {
            "name": self.key[0],
            "type": self.key[1],
            "what": self.what,
            "rule": self.rule,
            "reason": self.reason,
            "code": self.code,
            "before": list(self.before),
            "after": None if after is None else {"type": after.type, "ttl": after.ttl, "values": list(after.values)},
        }


@dataclass(frozen=True)
class Plan:
    """The account of a whole export. Only an `applicable` plan may be provisioned.

    `added` are rrsets that the rules put beside a rewritten one: the second address family of a redirection.
    """

    export: Zone
    outcomes: tuple[Outcome, ...]
    added: tuple[Rrset, ...] = ()
    options: Options = field(default_factory=Options)

    @property
    def zone(self) -> Zone:
        """Return the zone that goes to the target (without SOA and apex NS, which are the target's own)."""
        carried = [outcome.after for outcome in self.outcomes if outcome.after is not None]
        return Zone.of(self.export.name, [*carried, *self.added])

    @property
    def seen(self) -> tuple[Key, ...]:
        """Return the key of every entry of the export, readable or not."""
        return (*self.export.rrsets, *(entry.key for entry in self.export.unreadable))

    @property
    def balanced(self) -> bool:
        """Return whether every entry seen has exactly one outcome, and every outcome does what it says."""
        carried = [*(o.after for o in self.outcomes if o.after is not None), *self.added]
        return (
            Counter(self.seen) == Counter(outcome.key for outcome in self.outcomes)
            and sum(self.counts().values()) == len(self.seen)
            and all(self._honest(outcome) for outcome in self.outcomes)
            and len({rrset.key for rrset in carried}) == len(carried)  # none hides another
        )

    def _honest(self, outcome: Outcome) -> bool:
        if outcome.what == "identical":
            return outcome.after is not None and outcome.after == self.export.rrsets.get(outcome.key)
        if outcome.what == "rewritten":
            return outcome.after is not None and bool(outcome.after.values) and bool(outcome.rule)
        return outcome.after is None and bool(outcome.rule) and bool(outcome.reason)

    @property
    def blocked(self) -> tuple[Outcome, ...]:
        """Return what waits for a human."""
        return tuple(outcome for outcome in self.outcomes if outcome.what == "blocked")

    @property
    def applicable(self) -> bool:
        """Return whether the plan may be applied: it is balanced and nothing is blocked."""
        return self.balanced and not self.blocked

    def counts(self) -> dict[What, int]:
        """Return how many entries have each outcome, zeroes included."""
        found = Counter(outcome.what for outcome in self.outcomes)
        return {what: found[what] for what in get_args(What)}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as data for JSON."""
        return {
            "domain": self.export.name,
            "seen": len(self.seen),
            **{str(what): count for what, count in self.counts().items()},
            "balanced": self.balanced,
            "applicable": self.applicable,
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
            "added": [
                {"name": rrset.name, "type": rrset.type, "ttl": rrset.ttl, "values": list(rrset.values)}
                for rrset in self.added
            ],
        }

    def lines(self) -> list[str]:
        """Return the plan as French lines: the account, then what asks for attention first."""
        counts = self.counts()
        seen = len(self.seen)
        head = ", ".join(f"{counts[what]} {label}" for what, label in _FRENCH.items() if counts[what])
        lines = [f"{self.export.name} : {seen} enregistrement{'s' if seen > 1 else ''} ({head or 'zone vide'})"]
        if not self.balanced:
            lines.append("  LE COMPTE N'Y EST PAS : ce plan ne peut pas être appliqué")
        for what, label in _FRENCH.items():
            lines += [_line(outcome, label) for outcome in self.outcomes if outcome.what == what != "identical"]
        lines += [f"  ajouté : {rrset}" for rrset in self.added]
        return lines


def _line(outcome: Outcome, label: str) -> str:
    arrow = f" → {outcome.after}" if outcome.after is not None else ""
    name, kind = outcome.key
    return f"  {label} : {name} {kind} {' | '.join(outcome.before)}{arrow} ({outcome.reason})"


def make_plan(export_zone: Zone, redirections: Iterable[Mapping[str, Any]], options: Options) -> Plan:
    """Decide what becomes of each entry of an export, by the rules of `rules.yml`.

    `redirections` are Gandi's, with `host` (full name) and `type` (`http301`, `http302`, `cloak`).
    """
    world = World.of(export_zone, _by_name(export_zone.name, redirections), options)
    outcomes: list[Outcome] = []
    added: list[Rrset] = []
    entries: list[Rrset | Unreadable] = [*export_zone.rrsets.values(), *export_zone.unreadable]
    for seen in entries:
        outcome, more = _decide(seen, world)
        outcomes.append(outcome)
        added += more
    return Plan(export_zone, *_without_collisions(outcomes, added), options)


def _by_name(zone: str, redirections: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in redirections:
        host = str(row["host"]).rstrip(".").lower()
        name = "@" if host in {zone, "@", ""} else host.removesuffix(f".{zone}")
        found[name] = (*found.get(name, ()), str(row.get("type", "http301")))
    return found


def _decide(seen: Rrset | Unreadable, world: World) -> tuple[Outcome, list[Rrset]]:
    entry = Entry.of(seen)
    used: list[Rule] = []
    for rule in rules():
        values = entry.matching(rule, world)
        if values is None:
            continue
        if rule.action == "keep":
            break
        if rule.action == "block":
            return _blocked(seen, entry, [*used, rule], world)
        used.append(rule)
        if rule.action == "rewrite":
            REWRITINGS[rule.to](entry, values, world)
        elif len(values) == len(entry.values):
            return Outcome(seen.key, "dropped", rule.id, rule.reason, seen.values), []
        else:
            entry.values = tuple(value for value in entry.values if value not in values)
    return _carried(seen, entry, used), entry.added


def _carried(seen: Rrset | Unreadable, entry: Entry, used: list[Rule], aside: str = "") -> Outcome:
    after = Rrset(entry.name, entry.type, entry.ttl, entry.values)
    what: What = "identical" if after == seen else "rewritten"
    reason = " ; ".join([*(rule.reason for rule in used), *([aside] if aside else [])])
    return Outcome(seen.key, what, ", ".join(rule.id for rule in used), reason, seen.values, after)


def _blocked(seen: Rrset | Unreadable, entry: Entry, used: list[Rule], world: World) -> tuple[Outcome, list[Rrset]]:
    rule = used[-1]
    reason = (
        f"{rule.reason} : {seen.reason}"
        if rule.code == "unreadable-record" and isinstance(seen, Unreadable)
        else rule.reason
    )
    waiver = world.options.waivers.get("/".join(seen.key), "").strip()
    if not waiver:
        return Outcome(seen.key, "blocked", rule.id, reason, seen.values, None, rule.code), []
    aside = f"accepté : {waiver}"
    if rule.waived == "keep" and entry.readable:
        return _carried(seen, entry, used, aside), entry.added
    return Outcome(seen.key, "dropped", rule.id, f"{reason} ; {aside}", seen.values), []


def _without_collisions(outcomes: list[Outcome], added: list[Rrset]) -> tuple[tuple[Outcome, ...], tuple[Rrset, ...]]:
    """Block the rewritten entries whose new rrset would hide another one of the zone."""
    wanted = Counter([*(o.after.key for o in outcomes if o.after is not None), *(rrset.key for rrset in added)])
    bad = {key[0] for key, count in wanted.items() if count > 1}
    if not bad:
        return tuple(outcomes), tuple(added)
    reason = "les nouvelles adresses rencontreraient d'autres adresses déjà présentes à ce nom"
    return tuple(
        replace(outcome, what="blocked", after=None, code="addresses-mixed", reason=reason)
        if outcome.what == "rewritten" and outcome.key[0] in bad
        else outcome
        for outcome in outcomes
    ), tuple(rrset for rrset in added if rrset.name not in bad)
