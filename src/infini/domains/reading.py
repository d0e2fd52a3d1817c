# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zones from what others give: LiveDNS rrsets, zone-file text, a zone transfer.

What cannot be read becomes an `Unreadable` with its reason (French, a member may read it) and harms no other entry.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.name
import dns.query
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.ttl
import dns.xfr
import dns.zone

from infini.domains.zone import Key, Rrset, Unreadable, Zone, ascii_name
from infini.errors import FailedError, UnreachableError

_MAX_TTL = 2**31 - 1
_SIGNED = frozenset({"RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNSKEY", "ZONEMD"})
_META = frozenset({"ANY", "AXFR", "IXFR", "OPT", "TSIG", "TKEY", "MAILA", "MAILB"})
# A quoted string, a parenthesis, a word (quoted strings may stand inside, as in `alpn="h2"`), a comment; a quotation
# mark alone was never closed.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|"|[()]|(?:[^\s"();\\]|\\.|\\$)(?:[^\s"();\\]|\\.|\\$|"(?:[^"\\]|\\.)*")*|;.*')
_UNCLOSED = '"'
_CLASSES = frozenset({"IN", "CH", "HS"})


@dataclass(frozen=True)
class Tsig:
    """A shared key for zone transfers; `secret` is base64 and never shown."""

    name: str
    secret: str = field(repr=False)
    algorithm: str = "hmac-sha256"


class _BadError(Exception):
    """Why an entry cannot be read, in French."""


# One entry.


def _owner(text: str, origin: dns.name.Name) -> str:
    """Return a name relative to the zone, lower case; raise _BadError when it is none of the zone."""
    try:
        name = dns.name.from_text(text, origin, idna_codec=dns.name.IDNA_2008_UTS_46).canonicalize()
    except (dns.exception.DNSException, UnicodeError) as error:
        raise _BadError(f"nom impossible ({error})") from error
    if not name.is_subdomain(origin):
        raise _BadError("ce nom n'est pas dans la zone")
    return name.relativize(origin).to_text()


def _ttl(value: object) -> int:
    try:
        ttl = dns.ttl.from_text(str(value))
    except dns.ttl.BadTTL as error:
        raise _BadError(f"durée de cache illisible : {value}") from error
    if ttl > _MAX_TTL:
        raise _BadError(f"durée de cache trop longue : {value}")
    return ttl


def _type(text: str) -> dns.rdatatype.RdataType:
    try:
        kind = dns.rdatatype.from_text(text)
    except (dns.exception.DNSException, ValueError) as error:
        reason = "un ALIAS n'existe que chez Gandi" if text == "ALIAS" else f"type d'enregistrement inconnu : {text}"
        raise _BadError(reason) from error
    if dns.rdatatype.to_text(kind) in _META:
        raise _BadError(f"{text} n'est pas un type d'enregistrement")
    return kind


def _canonical(rdata: dns.rdata.Rdata) -> dns.rdata.Rdata:
    """Return the rdata with the case of its names folded, as RFC 4034 § 6.2 does for the types that it names."""
    wire = rdata.to_digestable()
    return dns.rdata.from_wire(rdata.rdclass, rdata.rdtype, wire, 0, len(wire))


def _values(rdatas: Iterable[dns.rdata.Rdata]) -> tuple[str, ...]:
    by_wire = {rdata.to_digestable(): rdata for rdata in rdatas}
    return tuple(_canonical(rdata).to_text() for _, rdata in sorted(by_wire.items(), key=lambda pair: pair[0]))


def _rdata(kind: dns.rdatatype.RdataType, text: str, origin: dns.name.Name) -> dns.rdata.Rdata:
    tokens = _tokens(text)
    if any(token.startswith(";") for token in tokens):
        raise _BadError("point-virgule hors guillemets, la suite serait perdue")
    if _UNCLOSED in tokens:
        raise _BadError("guillemets mal fermés")
    if "\n" in text:
        raise _BadError("retour à la ligne dans la valeur")
    bare = [token for token in tokens if not token.startswith('"')]
    if kind in {dns.rdatatype.TXT, dns.rdatatype.SPF} and len(bare) > 1:
        raise _BadError("texte sans guillemets, ses espaces seraient perdues")
    try:
        return dns.rdata.from_text(
            dns.rdataclass.IN, kind, text, origin=origin, relativize=False, idna_codec=dns.name.IDNA_2008_UTS_46
        )
    except (dns.exception.DNSException, UnicodeError) as error:
        raise _BadError(f"valeur illisible : {error}") from error


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


# LiveDNS.


def from_livedns(name: str, entries: Iterable[Mapping[str, Any]]) -> Zone:
    """Read LiveDNS's JSON rrsets (`rrset_name`, `rrset_type`, `rrset_ttl`, `rrset_values`), each for itself.

    Two entries of the same name and type (names differ in case only) become one rrset with the shorter TTL.
    """
    zone = ascii_name(name)
    origin = dns.name.from_text(zone)
    found: list[_Read] = []
    unreadable: list[Unreadable] = []
    for entry in entries:
        try:
            found.append(_from_entry(entry, origin))
        except _BadError as error:
            unreadable.append(_unreadable_entry(entry, origin, str(error)))
    return _zone(zone, found, unreadable)


@dataclass(frozen=True)
class _Read:
    key: Key
    ttl: int
    rdatas: tuple[dns.rdata.Rdata, ...]


def _from_entry(entry: Mapping[str, Any], origin: dns.name.Name) -> _Read:
    kind = _type(str(entry.get("rrset_type", "")).upper())
    owner = _owner(str(entry.get("rrset_name") or "@"), origin)
    raw = entry.get("rrset_values")
    if not isinstance(raw, (list, tuple)) or not raw:
        raise _BadError("aucune valeur")
    rdatas = tuple(_rdata(kind, str(value), origin) for value in raw)
    return _Read((owner, dns.rdatatype.to_text(kind)), _ttl(entry.get("rrset_ttl")), rdatas)


def _unreadable_entry(entry: Mapping[str, Any], origin: dns.name.Name, reason: str) -> Unreadable:
    raw = entry.get("rrset_values")
    values = tuple(str(value) for value in raw) if isinstance(raw, (list, tuple)) else (str(raw),) * (raw is not None)
    name = str(entry.get("rrset_name") or "@")
    return _unreadable(name, str(entry.get("rrset_type", "?")), values, reason, origin, entry.get("rrset_ttl"))


def _unreadable(
    name: str, kind: str, values: tuple[str, ...], reason: str, origin: dns.name.Name, ttl: object
) -> Unreadable:
    """Keep what can be kept: the name in canonical form and the TTL where they can be read."""
    try:
        name = _owner(name, origin)
    except _BadError:
        name = name.lower()
    try:
        seconds = _ttl(ttl)
    except _BadError:
        seconds = 0
    return Unreadable(name, kind.upper() or "?", values, reason, seconds)


def _zone(name: str, found: Iterable[_Read], unreadable: Iterable[Unreadable]) -> Zone:
    ttls: dict[Key, int] = {}
    rdatas: dict[Key, list[dns.rdata.Rdata]] = {}
    for read in found:
        ttls[read.key] = min(ttls.get(read.key, read.ttl), read.ttl)
        rdatas.setdefault(read.key, []).extend(read.rdatas)
    return Zone.of(name, [Rrset(*key, ttls[key], _values(rdatas[key])) for key in rdatas], unreadable)


# Zone-file text.


@dataclass(frozen=True)
class _Line:
    """A logical line: its tokens, whether it starts with a name, its text, what is wrong, whether a comment ends it."""

    tokens: tuple[str, ...]
    named: bool
    text: str
    wrong: str = ""
    comment: bool = False


def _logical_lines(text: str) -> Iterator[_Line]:
    """Join what parentheses join. One that is never closed spoils its own line only."""
    # A paste may be shifted as a whole; only then blanks before a line do not mean “the same name again”.
    lines = re.split(r"\r\n|\n|\r", textwrap.dedent(text.lstrip("\ufeff")))
    start = 0
    while start < len(lines):
        start, line = _logical_line(lines, start)
        if line.tokens or line.wrong:
            yield line


def _logical_line(lines: Sequence[str], start: int) -> tuple[int, _Line]:
    """Return where the next logical line starts, and this one."""
    tokens: list[str] = []
    depth, comment, first = 0, False, lines[start]
    for at in range(start, len(lines)):
        for token in _tokens(lines[at]):
            depth += {"(": 1, ")": -1}.get(token, 0)
            if token == _UNCLOSED or depth < 0:
                return start + 1, _broken(first, "guillemets ou parenthèses mal fermés")
            comment = comment or token.startswith(";")
            if token not in {"(", ")"} and not token.startswith(";"):
                tokens.append(token)
        if depth == 0:
            text = " ".join(line.strip() for line in lines[start : at + 1])
            return at + 1, _Line(tuple(tokens), not first[:1].isspace(), text, "", comment)
    return start + 1, _broken(first, "parenthèse jamais fermée")


def _broken(line: str, wrong: str) -> _Line:
    return _Line(tuple(line.split()), not line[:1].isspace(), line.strip(), wrong)


class _Reader:
    """The state of a zone file from one line to the next."""

    def __init__(self, zone: str) -> None:
        self.apex = dns.name.from_text(zone)
        self.origin = self.apex
        self.lost = False
        self.owner = "@"
        self.default: int | None = None
        self.last: int | None = None
        self.found: list[_Read] = []
        self.unreadable: list[Unreadable] = []

    def read(self, line: _Line) -> None:
        """Take one line."""
        name, ttl, kind, rest = self.owner, None, "?", list(line.tokens)
        try:
            if rest and rest[0].startswith("$") and not line.wrong:
                name = "@"
                self._directive(line.tokens)
                return
            if rest and (line.named or not self._is_field(rest[0])):
                name = self.owner = self._name(rest.pop(0))
            ttl, kind, rest = self._fields(rest)
            self._check(line, kind, rest)
            self._record(name, ttl, kind, rest)
        except _BadError as error:
            values = (line.text,) if line.wrong or line.comment or kind == "?" else (" ".join(rest) or line.text,)
            self.unreadable.append(_unreadable(name, kind, values, str(error), self.apex, ttl or self._default_ttl()))

    def _check(self, line: _Line, kind: str, rest: Sequence[str]) -> None:
        if line.wrong:
            raise _BadError(line.wrong)
        if self.lost:
            raise _BadError("suit un $ORIGIN illisible, ses noms sont incertains")
        if line.comment and kind in {"TXT", "SPF"} and not any(token.startswith('"') for token in rest):
            raise _BadError("point-virgule hors guillemets, la suite serait perdue")

    def _directive(self, tokens: tuple[str, ...]) -> None:
        word = tokens[0].upper()
        if word == "$ORIGIN" and len(tokens) == 2:
            try:
                self.origin = dns.name.from_text(tokens[1], self.origin, idna_codec=dns.name.IDNA_2008_UTS_46)
            except (dns.exception.DNSException, UnicodeError) as error:
                self.lost = True
                raise _BadError(f"$ORIGIN impossible ({error})") from error
            self.lost = False
        elif word == "$TTL" and len(tokens) == 2:
            self.default = _ttl(tokens[1])
        else:
            raise _BadError(f"{tokens[0]} n'est pas suivi ici")

    @staticmethod
    def _is_field(token: str) -> bool:
        """Whether a line that begins with a blank goes on with the owner of the line before."""
        return token.upper() in _CLASSES or token.upper() == "ALIAS" or _is_ttl(token) or _is_type(token)

    def _name(self, token: str) -> str:
        """Return the absolute text of an owner; a name that is none comes back as it is, for `_owner` to refuse."""
        try:
            return dns.name.from_text(token, self.origin, idna_codec=dns.name.IDNA_2008_UTS_46).to_text()
        except (dns.exception.DNSException, UnicodeError):
            return token

    def _fields(self, rest: list[str]) -> tuple[int | None, str, list[str]]:
        ttl: int | None = None
        while rest:
            token = rest[0]
            if token.upper() in _CLASSES:
                if token.upper() != "IN":
                    raise _BadError(f"classe {token}, seule IN est servie")
            elif ttl is None and _is_ttl(token):
                ttl = _ttl(token)
            else:
                return ttl, token.upper(), rest[1:]
            rest = rest[1:]
        raise _BadError("ligne incomplète, il y manque un type")

    def _default_ttl(self) -> int | None:
        return self.default if self.default is not None else self.last

    def _record(self, name: str, ttl: int | None, kind: str, rest: list[str]) -> None:
        rdtype = _type(kind)
        if rdtype == dns.rdatatype.SOA and _owner(name, self.apex) == "@":
            self.last = ttl if ttl is not None else self.last
            return
        ttl = ttl if ttl is not None else self._default_ttl()
        if ttl is None:
            raise _BadError("durée de cache absente, ni sur la ligne ni par $TTL")
        self.last = ttl
        if not rest:
            raise _BadError("aucune valeur")
        owner = _owner(name, self.apex)
        rdata = _rdata(rdtype, " ".join(rest), self.origin)
        self.found.append(_Read((owner, dns.rdatatype.to_text(rdtype)), ttl, (rdata,)))


def _is_ttl(token: str) -> bool:
    return bool(re.fullmatch(r"(\d+[smhdw]?)+", token, re.IGNORECASE))


def _is_type(token: str) -> bool:
    try:
        return dns.rdatatype.from_text(token) not in {dns.rdatatype.NONE, dns.rdatatype.ANY}
    except (dns.exception.DNSException, ValueError):
        return False


def from_text(name: str, text: str) -> Zone:
    """Read zone-file text: Gandi's text export, what a member pastes, or our own zone files; one bad line harms itself.

    The zone's own SOA is skipped (LiveDNS's JSON does not have it). Names may be relative, absolute or missing; a TTL
    that is missing is `$TTL` or that of the line before.
    """
    zone = ascii_name(name)
    reader = _Reader(zone)
    for line in _logical_lines(text):
        reader.read(line)
    return _zone(zone, reader.found, reader.unreadable)


# Zone transfer.


def from_axfr(name: str, server: str, port: int = 53, tsig: Tsig | None = None) -> Zone:
    """Read a zone by transfer from a server's address, without its SOA and without what signing made of it.

    UnreachableError when the server does not answer, FailedError when it refuses.
    """
    zone = dns.zone.Zone(ascii_name(name) + ".", relativize=False)
    keys = {}
    if tsig is not None:
        key_name = dns.name.from_text(tsig.name)
        keys = {"keyring": {key_name: dns.tsig.Key(key_name, tsig.secret, tsig.algorithm)}, "keyname": key_name}
    try:
        query, _ = dns.xfr.make_query(zone, **keys)  # type: ignore[arg-type]  # a mapping of two kinds of values
        dns.query.inbound_xfr(server, zone, query, port=port, timeout=10, lifetime=60)
    except (OSError, EOFError, dns.exception.Timeout) as error:
        raise UnreachableError(f"No zone transfer of {name} from {server}: {error or 'it does not answer'}") from error
    except dns.exception.DNSException as error:
        raise FailedError(f"{server} gives no transfer of {name}: {error}; allow our address or key there") from error
    origin = dns.name.from_text(ascii_name(name))
    found = [
        _Read((_owner(owner.to_text(), origin), kind), rdataset.ttl, tuple(rdataset))
        for owner, rdataset in zone.iterate_rdatasets()
        if (kind := dns.rdatatype.to_text(rdataset.rdtype)) not in _SIGNED | {"SOA"}
    ]
    return _zone(ascii_name(name), found, ())


# Two exports of the same zone.


def disagreement(json_zone: Zone, text_zone: Zone) -> list[str]:
    """Return French sentences that say where two exports of one zone differ, none when they agree.

    What either could not read is compared by name and type only; SOA and the zone's own NS are not compared.
    """
    ours, theirs = _keys(json_zone), _keys(text_zone)
    sentences = [f"{name} {kind} est dans le JSON, pas dans le texte" for name, kind in sorted(ours - theirs)]
    sentences += [f"{name} {kind} est dans le texte, pas dans le JSON" for name, kind in sorted(theirs - ours)]
    blurred = {entry.key for zone in (json_zone, text_zone) for entry in zone.unreadable}
    for key in sorted((ours & theirs) - blurred):
        one, other = json_zone.rrsets[key], text_zone.rrsets[key]
        if one != other:
            sentences.append(f"{key[0]} {key[1]} diffère : « {one} » dans le JSON, « {other} » dans le texte")
    return sentences


def _keys(zone: Zone) -> set[Key]:
    keys = {*zone.rrsets, *(entry.key for entry in zone.unreadable)}
    return {key for key in keys if key not in {("@", "SOA"), ("@", "NS")}}
