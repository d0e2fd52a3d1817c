# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of `rules.yml`: what a rule is, what each of its conditions means, and what each rewriting does."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

import dns.rdata
import dns.rdataclass
import yaml
from dns.rdtypes.txtbase import TXTBase

from infini.domains.observed import MailMode
from infini.domains.zone import Key, Rrset, Unreadable, Zone

Action = Literal["keep", "rewrite", "drop", "block"]

_DATA = Path(__file__).with_name("rules.yml")
_ABROAD = re.compile(r"\.(com|net|org|info|eu|fr|bzh|io|be|ch|de|uk|coop|cloud|app|dev)$")


@dataclass(frozen=True)
class Options:
    """What people decided for one domain, and what the place it goes to is like.

    `redirections`: full host name → whether somebody decided that a framed redirection goes on as an ordinary one.
    `alias_addresses`: target of an ALIAS → the addresses that it has at Infini.
    `web_addresses`: the IPv4 and IPv6 addresses of our front, where redirections go on.
    `mail_exchangers`, `mail_host`, `spf`: for mail mode `infini`: MX rdatas (`10 mx.example.`), the host name that
    webmail and mail programs use, and the SPF term that authorises our servers (`include:_spf.example`).
    `waivers`: `name/TYPE` of a blocked entry → who lets it pass and why. `minimum_ttl` is in seconds.
    """

    mail_mode: MailMode = "external"
    our_nameservers: tuple[str, ...] = ()
    redirections: Mapping[str, bool] = field(default_factory=dict)
    alias_addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    minimum_ttl: int = 0
    web_addresses: tuple[str, ...] = ()
    certificate_authorities: tuple[str, ...] = ("letsencrypt.org",)
    waivers: Mapping[str, str] = field(default_factory=dict)
    mail_exchangers: tuple[str, ...] = ()
    mail_host: str = ""
    spf: str = ""


@dataclass(frozen=True)
class Rule:
    """One rule of `rules.yml`, whose head says what each part means."""

    id: str
    action: Action
    reason: str
    source: str
    name: str = ""
    types: frozenset[str] = frozenset()
    value: re.Pattern[str] | None = None
    when: tuple[str, ...] = ()
    to: str = ""
    code: str = ""
    waived: Literal["keep", "drop"] = "drop"

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Rule:
        """Make a rule of a row; ValueError when it says something that no code understands."""
        value = row.get("value")
        rule = cls(
            **{
                **row,
                "types": frozenset(row.get("types", ())),
                "value": re.compile(value) if value else None,
                "when": tuple(row.get("when", ())),
            }
        )
        unknown = [word for word in rule.when if word not in CONDITIONS]
        if (
            unknown
            or (rule.action == "rewrite") != (rule.to in REWRITINGS)
            or (rule.action == "block") != bool(rule.code)
        ):
            raise ValueError(f"rule {rule.id} of {_DATA.name} cannot work: {unknown or rule.to or rule.action}")
        return rule


@dataclass(frozen=True)
class World:
    """What the rules may look at beside the entry itself. `redirections`: relative name → kinds (`http301`, `cloak`…).

    A frame that somebody agreed to replace is an ordinary redirection (`http302`) there. `dnames` are the names that
    hold a DNAME.
    """

    zone: Zone
    types: Mapping[str, frozenset[str]]
    redirections: Mapping[str, tuple[str, ...]]
    options: Options
    dnames: tuple[str, ...] = ()

    @classmethod
    def of(cls, zone: Zone, redirections: Mapping[str, tuple[str, ...]], options: Options) -> World:
        """Look at a zone once, for all its entries."""
        types: dict[str, set[str]] = {}
        for name, kind in [*zone.rrsets, *(entry.key for entry in zone.unreadable)]:
            types.setdefault(name, set()).add(kind)
        frozen = {name: frozenset(kinds) for name, kinds in types.items()}
        dnames = tuple(name for name, kinds in frozen.items() if "DNAME" in kinds)
        return cls(zone, frozen, redirections, options, dnames)


@dataclass
class Entry:
    """An entry on its way through the rules. `added` are rrsets of other types that a rewriting needs beside it."""

    key: Key
    ttl: int
    values: tuple[str, ...]
    readable: bool
    type: str
    added: list[Rrset] = field(default_factory=list)

    @classmethod
    def of(cls, seen: Rrset | Unreadable) -> Entry:
        """Start with what the export says."""
        return cls(seen.key, seen.ttl, seen.values, isinstance(seen, Rrset), seen.type)

    @property
    def name(self) -> str:
        """The name, relative to the zone."""
        return self.key[0]

    def readable_for(self, rule: Rule) -> bool:
        """Return whether a rule may judge this entry: it can be read, or is an ALIAS, known by its type."""
        return self.readable or self.type == "ALIAS" or "unreadable" in rule.when

    def matching(self, rule: Rule, world: World) -> tuple[str, ...] | None:
        """Return the values that a rule is about, None when the rule is not about this entry."""
        if (rule.types and self.type not in rule.types) or not self.readable_for(rule):
            return None
        if rule.name and not fnmatchcase(self.name, rule.name):
            return None
        values = self.values
        if rule.value is not None:
            values = tuple(value for value in values if rule.value.search(plain(self.type, value)))
            if not values:
                return None
        return values if all(CONDITIONS[word](self, world) for word in rule.when) else None


def plain(kind: str, value: str) -> str:
    """Return what a rule's pattern reads of a value: lower case, and the strings of a TXT as the one text they are."""
    if kind in {"TXT", "SPF"} and value.startswith('"'):
        return text_of(kind, value).lower()
    return value.lower()


def text_of(kind: str, value: str) -> str:
    """Return the strings of a TXT or SPF rdata as one text (bytes that are not ASCII as their Latin-1 letters)."""
    rdata = dns.rdata.from_text(dns.rdataclass.IN, kind, value)
    assert isinstance(rdata, TXTBase)  # noqa: S101  what those two types are
    return b"".join(rdata.strings).decode("latin-1")


def _quoted(text: str) -> str:
    data = text.encode("latin-1")
    pieces = [data[start : start + 255] for start in range(0, len(data), 255)] or [b""]
    return " ".join('"' + "".join(_escaped(byte) for byte in piece) + '"' for piece in pieces)


def _escaped(byte: int) -> str:
    if chr(byte) in '"\\':
        return f"\\{chr(byte)}"
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03d}"


def host_of(value: str) -> str:
    """Return the host name that an rdata ends with, without its final dot, lower case."""
    return value.split()[-1].rstrip(".").lower() if value.split() else ""


def covered(name: str, world: World) -> list[str]:
    """Return the kinds of the redirections that answer at an address record of this name, `*` included."""
    if name != "*" and not name.startswith("*."):
        return list(world.redirections.get(name, ()))
    below = name[1:]
    return [
        kind
        for host, kinds in world.redirections.items()
        if host == name or (host not in world.types and host != "@" and (below == "" or host.endswith(below)))
        for kind in kinds
    ]


def _alias(entry: Entry, world: World) -> tuple[str, ...]:
    known = {host.rstrip(".").lower(): addresses for host, addresses in world.options.alias_addresses.items()}
    return known.get(host_of(entry.values[0]), ()) if len(entry.values) == 1 else ()


def _target_doubled(entry: Entry, world: World) -> bool:
    """Whether a target looks like a host elsewhere with the zone stuck to it, and no such name is in the zone."""
    tail = f".{world.zone.name}"
    for value in entry.values:
        target = host_of(value)
        inside = target.removesuffix(tail)
        if (
            inside != target
            and inside not in world.types
            and (_ABROAD.search(inside) or inside.endswith(world.zone.name))
        ):
            return True
    return False


def _authorities(entry: Entry) -> list[str]:
    """Return what each `issue` of a CAA allows: an authority, its limits included, or nothing ("")."""
    texts = [re.fullmatch(r'\d+\s+issue\s+"?([^"]*?)"?', value, re.IGNORECASE) for value in entry.values]
    return [text[1].strip().lower().removeprefix(";").strip() for text in texts if text]


def _missing_authorities(entry: Entry, world: World) -> list[str]:
    # One with limits (`accounturi`, `validationmethods`) may not allow us: ours is added beside it.
    allowed = _authorities(entry)
    return [name for name in world.options.certificate_authorities if allowed and name not in allowed]


CONDITIONS: Mapping[str, Callable[[Entry, World], bool]] = {
    # The entry could not be read (an ALIAS that was rewritten has become readable).
    "unreadable": lambda entry, _world: not entry.readable,
    # Mail, as decided with the member.
    "mail-stays": lambda _entry, world: world.options.mail_mode == "gandi",
    "mail-to-infini": lambda _entry, world: world.options.mail_mode == "infini",
    "no-mail": lambda _entry, world: world.options.mail_mode == "none",
    "exchangers-known": lambda _entry, world: bool(world.options.mail_exchangers),
    "mail-host-known": lambda _entry, world: bool(world.options.mail_host),
    # Redirections set at Gandi for this very name (or below this wildcard).
    "no-redirection": lambda entry, world: not covered(entry.name, world),
    "undecided-frame": lambda entry, world: "cloak" in covered(entry.name, world),
    "web-address-known": lambda _entry, world: bool(world.options.web_addresses),
    "alias-known": lambda entry, world: bool(_alias(entry, world)),
    # The shape of the zone.
    "other-data": lambda entry, world: len(world.types[entry.name]) > 1,
    "several-values": lambda entry, _world: len(entry.values) > 1,
    "below-dname": lambda entry, world: any(
        entry.name != name and (name == "@" or entry.name.endswith(f".{name}")) for name in world.dnames
    ),
    "target-doubled": _target_doubled,
    # CAA: who may issue certificates.
    "no-certificate-allowed": lambda entry, _world: bool(_authorities(entry)) and not any(_authorities(entry)),
    "our-authority-missing": lambda entry, world: bool(_missing_authorities(entry, world)),
    "ttl-low": lambda entry, world: entry.ttl < world.options.minimum_ttl,
}
"""The words of `when`."""


def _to_addresses(entry: Entry, matched: tuple[str, ...], addresses: tuple[str, ...]) -> None:
    """Replace the matched values by addresses; the rrset of the second family is added beside the first."""
    rest = tuple(value for value in entry.values if value not in matched)
    kept = entry.type if entry.type in {"A", "AAAA"} else ""
    found: dict[str, set[str]] = {kept: set(rest)} if rest and kept else {}
    for text in addresses:
        address = ipaddress.ip_address(text)
        found.setdefault("A" if address.version == 4 else "AAAA", set()).add(str(address))
    kinds = sorted(found, key=lambda kind: (kind != kept, kind))
    sets = [_sorted_addresses(found[kind]) for kind in kinds]
    entry.type, entry.values, entry.readable = kinds[0], sets[0], True
    entry.added += [
        Rrset(entry.name, kind, entry.ttl, values) for kind, values in zip(kinds[1:], sets[1:], strict=True)
    ]


def _sorted_addresses(texts: set[str]) -> tuple[str, ...]:
    return tuple(sorted(texts, key=lambda text: ipaddress.ip_address(text).packed))


def _to_alias_addresses(entry: Entry, matched: tuple[str, ...], world: World) -> None:
    entry.ttl = entry.ttl or 300  # an ALIAS without readable TTL: the shortest that Gandi knows
    _to_addresses(entry, matched, _alias(entry, world))


def _in_place(entry: Entry, values: list[str]) -> None:
    entry.values = _canonical(entry.type, values)


def _canonical(kind: str, values: list[str]) -> tuple[str, ...]:
    rdatas = {dns.rdata.from_text(dns.rdataclass.IN, kind, value) for value in values}
    return tuple(rdata.to_text() for rdata in sorted(rdatas, key=lambda rdata: rdata.to_digestable()))


def _to_exchangers(entry: Entry, matched: tuple[str, ...], world: World) -> None:
    rest = [value for value in entry.values if value not in matched]
    _in_place(entry, [*rest, *(f"{value.rstrip('.').lower()}." for value in world.options.mail_exchangers)])


def _to_spf(entry: Entry, matched: tuple[str, ...], world: World) -> None:
    """Put our SPF term in the place of Gandi's, or nothing where our servers send no mail for the domain."""
    ours = world.options.spf if world.options.mail_mode == "infini" else ""

    def mended(text: str) -> str:
        text = re.sub(r"[+?~-]?include:_mailcust\.gandi\.net", ours, text, flags=re.IGNORECASE)
        text = re.sub(r"redirect=_mailcust\.gandi\.net", f"{ours} ?all", text, flags=re.IGNORECASE)
        return re.sub(r" {2,}", " ", text).strip()

    done = [_quoted(mended(text_of(entry.type, value))) if value in matched else value for value in entry.values]
    _in_place(entry, done)


def _to_mail_host(entry: Entry, _matched: tuple[str, ...], world: World) -> None:
    entry.values = (f"{world.options.mail_host.rstrip('.').lower()}.",)


def _to_allowed_authorities(entry: Entry, _matched: tuple[str, ...], world: World) -> None:
    _in_place(entry, [*entry.values, *(f'0 issue "{name}"' for name in _missing_authorities(entry, world))])


def _to_minimum_ttl(entry: Entry, _matched: tuple[str, ...], world: World) -> None:
    entry.ttl = world.options.minimum_ttl


REWRITINGS: Mapping[str, Callable[[Entry, tuple[str, ...], World], None]] = {
    "web-addresses": lambda entry, matched, world: _to_addresses(entry, matched, world.options.web_addresses),
    "alias-addresses": _to_alias_addresses,
    "mail-exchangers": _to_exchangers,
    "mail-host": _to_mail_host,
    "spf": _to_spf,
    "allowed-authorities": _to_allowed_authorities,
    "minimum-ttl": _to_minimum_ttl,
}
"""The words of `to`."""


@cache
def rules() -> tuple[Rule, ...]:
    """Return the rules, in the order in which they are read."""
    rows: list[dict[str, Any]] = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    return tuple(Rule.of(row) for row in rows)
