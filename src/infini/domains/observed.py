# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one look at the world gives: plain data that the readers return and the state machine judges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal


def has_status(statuses: Iterable[str], wanted: str) -> bool:
    """Return whether a status is among these: registries write `clientHold`, RDAP `client hold`."""
    plain = wanted.replace(" ", "").lower()
    return any(status.replace(" ", "").lower() == plain for status in statuses)


Level = Literal["A", "B", "C"]
"""How we reach a domain at Gandi: A our token, B the member's token, C no API, the member pastes and clicks."""
MailMode = Literal["none", "external", "gandi", "infini"]
"""Where mail goes after the move; `gandi` forbids the transfer."""


@dataclass(frozen=True)
class DomainFacts:
    """What the losing registrar says of a domain. `auth_code` itself is never here."""

    name: str
    expires: datetime
    created: datetime
    statuses: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    registrar_lock: bool = True
    auto_renew: bool = True
    auth_code_available: bool = False
    auth_code_expires: datetime | None = None
    tags: tuple[str, ...] = ()
    name_unicode: str = ""


@dataclass(frozen=True)
class Export:
    """All that lives at Gandi for a domain, as read at one moment. `sha256` covers records, redirections and glue."""

    domain: str
    at: datetime
    records: tuple[Mapping[str, Any], ...]
    text: str
    sha256: str
    redirections: tuple[Mapping[str, Any], ...] = ()
    glue: tuple[Mapping[str, Any], ...] = ()
    dnskeys: tuple[Mapping[str, Any], ...] = ()
    mailboxes: tuple[str, ...] = ()
    forwards: tuple[Mapping[str, Any], ...] = ()
    snapshot: str | None = None


@dataclass(frozen=True)
class Redirection:
    """A web redirection that goes on at our front: `host` (a full name) leads to `to` with `code`.

    `protocol` is how it answered at Gandi: http, https, or httpsonly (plain HTTP leads to HTTPS first).
    """

    host: str
    to: str
    code: int
    protocol: str = "https"

    def __str__(self) -> str:
        """Return it as people read it."""
        return f"{self.host} → {self.to} ({self.code})"


@dataclass(frozen=True)
class ParentAnswer:
    """What one server of the parent zone says. TTLs in seconds; `error` when it did not answer usefully."""

    server: str
    nameservers: frozenset[str] = frozenset()
    ds: frozenset[str] = frozenset()
    ns_ttl: int = 0
    ds_ttl: int = 0
    error: str = ""


@dataclass(frozen=True)
class Delegation:
    """What every server of the parent zone says."""

    domain: str
    answers: tuple[ParentAnswer, ...]

    @property
    def silent(self) -> tuple[str, ...]:
        """The servers of the parent that did not answer usefully."""
        return tuple(answer.server for answer in self.answers if answer.error)

    @property
    def complete(self) -> bool:
        """Whether every server of the parent answered."""
        return bool(self.answers) and not self.silent

    @property
    def nameservers(self) -> frozenset[str]:
        """Every name server that any parent server names (lower case, without final dot)."""
        return frozenset().union(*(answer.nameservers for answer in self.answers))

    @property
    def agreed(self) -> bool:
        """Whether all say the same."""
        return self.complete and len({(answer.nameservers, answer.ds) for answer in self.answers}) == 1

    @property
    def ds(self) -> frozenset[str]:
        """Every DS that any parent server returns."""
        return frozenset().union(*(answer.ds for answer in self.answers))

    @property
    def ns_ttl(self) -> int:
        """The longest that a cache keeps the delegation, seconds."""
        return max((answer.ns_ttl for answer in self.answers), default=0)

    @property
    def ds_ttl(self) -> int:
        """The longest that a cache keeps a DS (or, after its removal, its last known TTL), seconds."""
        return max((answer.ds_ttl for answer in self.answers), default=0)


@dataclass(frozen=True)
class ServerAnswer:
    """What one authoritative server says of a zone's SOA.

    TTLs in seconds: `ttls` of each rrset asked for, by `name/type`; `ns_ttl` and `key_ttl` of the zone's own NS and
    DNSKEY, 0 without any.
    """

    server: str
    address: str
    authoritative: bool = False
    serial: int | None = None
    signed: bool = False
    ttls: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    ns_ttl: int = 0
    key_ttl: int = 0


@dataclass(frozen=True)
class Difference:
    """One answer that differs between the old and the new servers."""

    name: str
    type: str
    server: str
    old: str
    new: str
    rule: str = ""


@dataclass(frozen=True)
class Parity:
    """A full comparison of old and new servers. `canary_caught`: the deliberate error of this run was found.

    `queries` went to all servers. `identical`, `expected` and `unexpected` count answers of the new servers, each once;
    what an old server does not answer, or answers unlike the others, is unexpected too.
    """

    domain: str
    at: datetime
    export_sha256: str
    queries: int
    identical: int
    expected: tuple[Difference, ...] = ()
    unexpected: tuple[Difference, ...] = ()
    canary_caught: bool = False

    @property
    def ok(self) -> bool:
        """Whether the comparison is proof: nothing unexpected, something compared, and the checker is proven."""
        return self.canary_caught and self.queries > 0 and not self.unexpected


@dataclass(frozen=True)
class Tally:
    """What a continuous probe has seen so far.

    `longest_gap` is the longest darkness, `longest_silence` the longest time without a look, both in seconds.
    `unproven` are the things at which no deliberate error has been seen yet: what is said of them proves nothing.
    """

    domain: str
    since: datetime
    until: datetime
    total: int = 0
    failed: int = 0
    longest_gap: float = 0.0
    failures: tuple[str, ...] = ()
    longest_silence: float = 0.0
    unproven: tuple[str, ...] = ()


@dataclass(frozen=True)
class RdapFacts:
    """What the registry says (RFC 9083)."""

    domain: str
    registrar: str
    statuses: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    expires: datetime | None = None
    transferred: datetime | None = None


@dataclass(frozen=True)
class Quote:
    """A gaining registrar's dry run. `price` includes taxes, in euros; `problems` in its own words."""

    domain: str
    price: float | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class TransferOrder:
    """An order at the gaining registrar. `stage`: pending, refused (with reason), done, unknown."""

    id: str
    stage: Literal["pending", "refused", "done", "unknown"]
    reason: str = ""
    until: datetime | None = None
