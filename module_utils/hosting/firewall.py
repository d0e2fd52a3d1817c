# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the ports that service cards declare, and those between services, to nftables rules."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def openings(ports: Iterable[Mapping[str, Any]], peers: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return {service, rules} for each port that is not SSH's: SSH has rules of its own.

    A port is {port, from, protocol?, service?}; `from` is `any` or a list of addresses, networks and names of `peers`.
    """
    return [
        {"service": entry.get("service") or "?", "rules": rules(entry, peers)}
        for entry in ports
        if (str(entry["port"]), entry.get("protocol") or "tcp") != ("22", "tcp")
    ]


def rules(entry: Mapping[str, Any], peers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the nftables rules that let one port in."""
    match = f"{entry.get('protocol') or 'tcp'} dport {_port(entry['port'])}"
    if entry["from"] == "any":
        return [f"{match} accept"]
    found = [address for source in entry["from"] for address in addresses(source, peers)]
    return [f"{where} {match} accept" for where in _matches("saddr", found)]


def outgoing(accounts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the nftables rules that let programs of accounts out where they say: {port, protocol?, to?} each."""
    return [
        " ".join(filter(None, (f'meta skuid "{account["name"]}"', where, f"{protocol} dport {port} accept")))
        for account in accounts
        for entry in account.get("outgoing") or ()
        for protocol, port in [(entry.get("protocol") or "tcp", _port(entry["port"]))]
        for where in (destinations(entry["to"]) if entry.get("to") else [""])
    ]


def destinations(given: Iterable[str]) -> list[str]:
    """Return the nftables matches, one a family, of packets to these addresses and networks."""
    return _matches("daddr", [address for one in given for address in addresses(one, {})])


def _matches(side: str, found: Sequence[str]) -> list[str]:
    return [
        f"{family} {side} {{ {', '.join(sorted(chosen))} }}"
        for family, chosen in (
            ("ip", {address for address in found if ":" not in address}),
            ("ip6", {address for address in found if ":" in address}),
        )
        if chosen
    ]


def reservations(reserved: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the nftables rules that keep people's programs away from ports {address, port} between services.

    Debian numbers the accounts of services below 1000. By number and not by name: nft looks names up when it loads the
    rules, and a service's account is made later than the firewall.
    """
    return [_reservation(entry["address"], entry["port"]) for entry in reserved]


def _reservation(given: str, port: int | str) -> str:
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        raise ValueError(f"{given} is not an IP address: correct the reserved port {port}") from None
    family = "ip" if address.version == 4 else "ip6"
    return f"{family} daddr {address} tcp dport {_port(port)} meta skuid >= 1000 reject with tcp reset"


def addresses(source: str, peers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the addresses a source stands for: itself where it is one, else those of the peer of that name."""
    try:
        network = ipaddress.ip_network(source)
    except ValueError:
        pass
    else:
        return [str(network if network.num_addresses > 1 else network.network_address)]
    if source not in peers:
        raise ValueError(f"{source} is neither an address nor a host or group: correct it")
    return [address for given in peers[source] for address in addresses(given, {})]


def _port(port: int | str) -> str:
    first, dash, last = str(port).partition("-")
    numbers = [first, last] if dash else [first]
    if not all(number.isdecimal() and 0 < int(number) < 65536 for number in numbers):
        raise ValueError(f"{port} is not a port: give a number up to 65535, or a range such as 60000-61000")
    return str(port)
