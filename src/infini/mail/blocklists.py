# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether our addresses stand on the lists by which others refuse mail (RFC 5782).

A list is believed only if it answers for its test entry: many give nothing, or everything, to resolvers that they do
not like.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from dns.exception import DNSException
from dns.resolver import NXDOMAIN, NoAnswer, Resolver

ZONES = ("zen.spamhaus.org", "bl.spamcop.net", "psbl.surriel.com", "bl.mailspike.net", "dnsbl.dronebl.org")
CLEAN, LISTED, UNKNOWN = "clean", "listed", "unknown"
_TEST = {4: "127.0.0.2", 6: "::ffff:7f00:2"}
_ANSWERS = ipaddress.ip_network("127.0.0.0/8")
_ERRORS = ipaddress.ip_network("127.255.255.0/24")
SECONDS = 5.0


@dataclass(frozen=True)
class State:
    """What one list says of one address."""

    address: str
    zone: str
    state: str
    says: str = ""


def look(addresses: Iterable[str], zones: Sequence[str] = ZONES, resolver: Resolver | None = None) -> list[State]:
    """Ask all lists about those of our addresses that others can see."""
    asked = resolver or Resolver()
    asked.lifetime = SECONDS
    public = [address for address in addresses if resolver or ipaddress.ip_address(address).is_global]
    pairs = [(address, zone) for address in public for zone in zones]
    if not pairs:
        return []
    with ThreadPoolExecutor(len(pairs)) as pool:
        return list(pool.map(lambda pair: _state(pair[0], pair[1], asked), pairs))


def as_json(found: Iterable[State]) -> list[dict[str, str]]:
    """Return the states as `--json` shows them."""
    return [asdict(state) for state in found]


def _state(address: str, zone: str, resolver: Resolver) -> State:
    try:
        answers = _ask(address, zone, resolver)
        if _bad(answers):
            return State(address, zone, UNKNOWN, f"it answers {', '.join(answers)}, which is an error")
        if answers:
            return State(address, zone, LISTED, _why(address, zone, resolver) or ", ".join(answers))
        test = _ask(_TEST[ipaddress.ip_address(address).version], zone, resolver)
    except DNSException as error:
        return State(address, zone, UNKNOWN, " ".join(str(error).split()) or type(error).__name__)
    if not test or _bad(test):
        return State(address, zone, UNKNOWN, "it does not list its own test entry: it does not answer this resolver")
    return State(address, zone, CLEAN)


def _name(address: str, zone: str) -> str:
    reverse = ipaddress.ip_address(address).reverse_pointer
    return f"{reverse.rpartition('.in-addr.arpa')[0] or reverse.rpartition('.ip6.arpa')[0]}.{zone}."


def _ask(address: str, zone: str, resolver: Resolver) -> list[str]:
    try:
        return sorted(str(one) for one in resolver.resolve(_name(address, zone), "A"))
    except (NXDOMAIN, NoAnswer):
        return []


def _bad(answers: Sequence[str]) -> bool:
    found = [ipaddress.ip_address(one) for one in answers]
    return any(one not in _ANSWERS or one in _ERRORS for one in found)


def _why(address: str, zone: str, resolver: Resolver) -> str:
    try:
        texts = [
            b"".join(one.strings).decode(errors="replace") for one in resolver.resolve(_name(address, zone), "TXT")
        ]
    except DNSException:
        return ""
    return "; ".join(sorted(texts))
