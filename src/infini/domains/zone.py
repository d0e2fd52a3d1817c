# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A DNS zone as a set of rrsets in canonical form, so that equal data compares equal whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import dns.exception
import dns.name

from infini.errors import RefusedError
from infini.phrase import Phrase

Key = tuple[str, str]
"""Name (relative to the zone, lower case, `@` for the zone itself) and type (capitals) of an rrset."""


@dataclass(frozen=True, order=True)
class Rrset:
    """All records of one name and type.

    `values` are the rdatas in presentation form with absolute names, sorted by their canonical wire form, each once;
    `ttl` is in seconds.
    """

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]

    @property
    def key(self) -> Key:
        """Return what identifies the rrset in its zone."""
        return self.name, self.type

    def __str__(self) -> str:
        """Return the rrset as a line of a report."""
        return f"{self.name} {self.ttl} {self.type} {' | '.join(self.values)}"


@dataclass(frozen=True)
class Unreadable:
    """An entry of an export that no rrset can be made of; it keeps its text, and it blocks until somebody decides.

    `ttl` is in seconds, 0 when it could not be read either.
    """

    name: str
    type: str
    values: tuple[str, ...]
    reason: str
    ttl: int = 0

    @property
    def key(self) -> Key:
        """Return what identifies the entry in its zone."""
        return self.name, self.type


@dataclass(frozen=True)
class Zone:
    """A zone: its name (ASCII form, lower case, without the final dot), its rrsets, and what could not be read."""

    name: str
    rrsets: Mapping[Key, Rrset] = field(default_factory=dict)
    unreadable: tuple[Unreadable, ...] = ()

    @classmethod
    def of(cls, name: str, rrsets: Iterable[Rrset], unreadable: Iterable[Unreadable] = ()) -> Zone:
        """Make a zone of rrsets, sorted."""
        return cls(name, {rrset.key: rrset for rrset in sorted(rrsets)}, tuple(unreadable))


def ascii_name(name: str) -> str:
    """Return a domain's name as the DNS has it (ASCII form, lower case, no final dot); RefusedError when it is none."""
    try:
        return dns.name.from_text(name.strip().lower(), idna_codec=dns.name.IDNA_2008_UTS_46).to_text(True)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise RefusedError(Phrase("“{domain}” is no domain name: {error}", domain=name, error=error)) from error
