# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of each rrset of an export: each is accounted for exactly once, or the plan cannot be applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

from hosting.model import unfit_target
from infini.domains.observed import Redirection
from infini.domains.rules import REWRITINGS, Entry, Options, Rule, World, host_of, rules
from infini.domains.zone import Key, Rrset, Unreadable, Zone

__all__ = ["Options", "Outcome", "Plan", "What", "make_plan", "relative"]

What = Literal["identical", "rewritten", "dropped", "blocked"]
"""What becomes of an entry: carried as it is, carried changed, left behind on purpose, or waiting for a human."""

_FRENCH: Mapping[What, str] = {
    "blocked": "en attente d'une décision",
    "rewritten": "repris, adapté",
    "dropped": "laissé sur place",
    "identical": "repris tel quel",
}
_CODES = {"http301": 301, "http302": 302}


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
    `redirections` go on at our front: those of Gandi whose names lead there with the new zone, and that it can serve.
    """

    export: Zone
    outcomes: tuple[Outcome, ...]
    added: tuple[Rrset, ...] = ()
    options: Options = field(default_factory=Options)
    redirections: tuple[Redirection, ...] = ()

    @cached_property
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
            "redirections": [{"host": one.host, "to": one.to, "code": one.code} for one in self.redirections],
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
        lines += [f"  redirection recréée chez nous : {one}" for one in self.redirections]
        return lines


def _line(outcome: Outcome, label: str) -> str:
    arrow = f" → {outcome.after}" if outcome.after is not None else ""
    name, kind = outcome.key
    return f"  {label} : {name} {kind} {' | '.join(outcome.before)}{arrow} ({outcome.reason})"


def make_plan(export_zone: Zone, redirections: Iterable[Mapping[str, Any]], options: Options) -> Plan:
    """Decide what becomes of each entry of an export, by the rules of `rules.yml`.

    `redirections` are Gandi's, with `host` (full name) and `type` (`http301`, `http302`, `cloak`).
    """
    rows = [_agreed(row, options) for row in redirections]
    world = World.of(export_zone, _by_name(export_zone, rows), options)
    outcomes: list[Outcome] = []
    added: list[Rrset] = []
    entries: list[Rrset | Unreadable] = [*export_zone.rrsets.values(), *export_zone.unreadable]
    for seen in entries:
        outcome, more = _decide(seen, world)
        outcomes.append(outcome)
        added += more
    plan = Plan(export_zone, *_without_collisions(outcomes, added), options)
    return replace(plan, redirections=_going_on(plan, rows))


def relative(host: str, zone: str) -> str:
    """Return a host name relative to its zone, as Gandi or a member writes it: in full, or `@` for the zone itself."""
    host = host.rstrip(".").lower()
    return "@" if host in {zone, "@", ""} else host.removesuffix(f".{zone}")


def _agreed(row: Mapping[str, Any], options: Options) -> Mapping[str, Any]:
    """Return a row, an ordinary redirection where its frame may be replaced; 302: no browser remembers a frame."""
    agreed = {host.rstrip(".").lower() for host, yes in options.redirections.items() if yes}
    if row.get("type") == "cloak" and str(row["host"]).rstrip(".").lower() in agreed:
        return {**row, "type": "http302"}
    return row


def _by_name(zone: Zone, rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the kinds of the redirections that answer at each name, also at the end of a CNAME within the zone."""
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        name = relative(str(row["host"]), zone.name)
        for place in dict.fromkeys((name, _end(name, zone))):
            found[place] = (*found.get(place, ()), str(row.get("type", "http301")))
    return found


def _end(name: str, zone: Zone) -> str:
    """Return the name of the zone to which CNAMEs lead from a name: itself without any."""
    for _ in range(8):  # a longer chain, or a loop, leads nowhere
        cname = zone.rrsets.get((name, "CNAME"))
        target = host_of(cname.values[0]) if cname else ""
        if target != zone.name and not target.endswith(f".{zone.name}"):
            break
        name = relative(target, zone.name)
    return name


def _going_on(plan: Plan, rows: Iterable[Mapping[str, Any]]) -> tuple[Redirection, ...]:
    zone, front = plan.zone, set(plan.options.web_addresses)
    found = {}
    for row in rows:
        name, to, code = (
            relative(str(row["host"]), zone.name),
            str(row.get("url", "")),
            _CODES.get(str(row.get("type"))),
        )
        host = zone.name if name == "@" else f"{name}.{zone.name}"
        if code and "*" not in name and not unfit_target(to) and front & _addresses(_end(name, zone), zone):
            found[host] = Redirection(host, to, code, str(row.get("protocol") or "https"))
    return tuple(found.values())


def _addresses(name: str, zone: Zone) -> set[str]:
    """Return the addresses of a name, or of the wildcard that answers for it."""
    known = {owner for owner, _ in zone.rrsets}
    labels = name.split(".")
    above = ["*" if name == "@" else ".".join(["*", *labels[start:]]) for start in range(1, len(labels) + 1)]
    place = next((place for place in (name, *above) if place in known), name)
    held = (zone.rrsets.get((place, kind)) for kind in ("A", "AAAA"))
    return {value for rrset in held if rrset for value in rrset.values}


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
