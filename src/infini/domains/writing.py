# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zone files of ours: the same zone always gives the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dns.name
import dns.rdata
import dns.rdataclass

from infini.domains.zone import Zone
from infini.errors import RefusedError


@dataclass(frozen=True)
class Soa:
    """The start of a zone: who answers for it, and the times (seconds) that secondaries and caches go by.

    `mailbox` is an ordinary address. `minimum` is how long a name's absence is believed. `ttl` is that of the SOA and
    of the zone's own NS.
    """

    primary: str
    mailbox: str
    serial: int
    refresh: int = 14400
    retry: int = 3600
    expire: int = 1209600
    minimum: int = 3600
    ttl: int = 3600

    @property
    def rname(self) -> str:
        """Return the mailbox as the name that SOA wants, with its final dot; RefusedError when it is no address."""
        local, at, host = self.mailbox.rpartition("@")
        if not (at and local and host):
            raise RefusedError(
                f"“{self.mailbox}” is no mail address: the zone's SOA needs one, like hostmaster@infini.fr"
            )
        # Dots before the @ belong to the first label, so they are escaped; the address is absolute.
        return f"{local.replace('.', chr(92) + '.')}.{host.rstrip('.').lower()}."


def next_serial(old: int, now: datetime) -> int:
    """Return a serial that secondaries take for newer than `old`: YYYYMMDDnn of today (UTC), else one more.

    Newer is meant as in RFC 1982: numbers go round at 2³².
    """
    today = int(f"{now.astimezone(UTC):%Y%m%d}01")
    if 0 < (today - old) % 2**32 < 2**31:
        return today
    return (old + 1) % 2**32 or 1  # 0 is legal, but some servers take it for “none”


def _absolute(name: str) -> str:
    return dns.name.from_text(name).to_text().lower()


def _presented(kind: str, value: str) -> str:
    """Return type and rdata as every server reads them: Knot knows no WKS, and would not load the zone at all."""
    if kind != "WKS":
        return f"{kind} {value}"
    rdata = dns.rdata.from_text(dns.rdataclass.IN, kind, value)
    return f"TYPE{int(rdata.rdtype)} {rdata.to_generic().to_text()}"


def to_text(zone: Zone, soa: Soa, nameservers: Sequence[str]) -> str:
    """Return the zone as a zone file (RFC 1035), rrsets sorted by name and type, the zone's SOA and NS first.

    RefusedError without name servers, or when entries of the zone could not be read: they would be lost.
    """
    if not nameservers:
        raise RefusedError(f"The zone {zone.name} has no name servers to name: give ours")
    if zone.unreadable:
        lost = ", ".join("/".join(entry.key) for entry in zone.unreadable)
        raise RefusedError(f"The zone {zone.name} has entries that cannot be written: {lost}; plan it first")
    times = f"{soa.serial} {soa.refresh} {soa.retry} {soa.expire} {soa.minimum}"
    lines = [f"$ORIGIN {_absolute(zone.name)}", f"@ {soa.ttl} IN SOA {_absolute(soa.primary)} {soa.rname} {times}"]
    lines += [f"@ {soa.ttl} IN NS {server}" for server in sorted({_absolute(server) for server in nameservers})]
    for key in sorted(zone.rrsets, key=lambda key: (key[0] != "@", key)):
        rrset = zone.rrsets[key]
        if key in {("@", "NS"), ("@", "SOA")}:
            continue
        lines += [f"{rrset.name} {rrset.ttl} IN {_presented(rrset.type, value)}" for value in rrset.values]
    return "\n".join(lines) + "\n"
