# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""From service cards to probes: pure functions, no network, no Ansible."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hosting.probes import Probe

ONCE = ("ssh",)
"""Kinds that look at a program, not at an address: the host's first address is enough."""
OUTSIDE = ("page", "redirect", "tls", "certificate", "tcp", *ONCE)


@dataclass(frozen=True)
class Host:
    """What the inventory and the cards say of one host."""

    name: str
    groups: Sequence[str] = ()
    addresses: Sequence[str] = ()
    release: str = ""
    cards: Sequence[Mapping[str, Any]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    """Values that every mend of this host may use; see `about_host`."""


def probes(host: Host, viewpoint: Collection[str] = ()) -> list[Probe]:
    """Give everything to try on a host from outside; `viewpoint` names the groups of the one who looks."""
    found = [probe for card in host.cards for check in card["checks"] for probe in _of_check(host, card, check)]
    return [*found, *(_ports(host, address, viewpoint) for address in host.addresses)]


def _of_check(host: Host, card: Mapping[str, Any], check: Mapping[str, Any]) -> Iterator[Probe]:
    if check["kind"] not in OUTSIDE:
        return
    options = {key: value for key, value in check.items() if key not in ("kind", "mend", "label")}
    if check["kind"] == "ssh":
        options["release"] = host.release
    for address in host.addresses[:1] if check["kind"] in ONCE else host.addresses:
        yield Probe(check["kind"], host.name, address, options, about(host, card, check))


def about(host: Host, card: Mapping[str, Any], check: Mapping[str, Any]) -> dict[str, Any]:
    """Give the values that sentences and mends of a card's check may use."""
    own = {key: check[key] for key in ("mend", "label") if key in check}
    return {
        **host.about,
        **of_card(card),
        **own,
    }


def of_card(card: Mapping[str, Any]) -> dict[str, str]:
    """Give what a volunteer calls the service, and the playbook that applies it."""
    return {"service": card.get("label") or card["service"], "playbook": card.get("playbook", "site")}


def about_host(
    inventory: str, name: str, addresses: Sequence[str], user: str = "", become: bool = False
) -> dict[str, Any]:
    """Give what every mend of a host may use: how to reach it as Ansible does, and the inventory's name.

    Without `user` the technician's own SSH configuration says who logs in.
    """
    address = addresses[0] if addresses else name
    ssh = f"ssh {user}@{address}" if user else f"ssh {address}"
    if inventory == "staging":
        ssh = f"./infini staging ssh {name} --"
    elif become:
        ssh += " sudo"
    return {"inventory": inventory, "ssh": ssh, "address": address, "playbook": "site"}


def _ports(host: Host, address: str, viewpoint: Collection[str]) -> Probe:
    declared: dict[str, dict[str, str]] = {}
    tolerated: set[int] = set()
    for card in host.cards:
        for port in card["ports"]:
            if port["protocol"] != "tcp":
                continue
            numbers = port_range(port["port"])
            if len(numbers) > 1:  # a range is for connections that come and go: neither open nor shut is wrong
                tolerated |= set(numbers)
            elif _reaches(port["from"], viewpoint):
                declared[str(numbers[0])] = of_card(card)
            elif _has_networks(port["from"]):
                tolerated |= set(numbers)
    options = {"declared": declared, "tolerated": sorted(tolerated)}
    return Probe("ports", host.name, address, options, host.about)


def port_range(port: int | str) -> range:
    """Read `443` or `60000-61000`."""
    first, _, last = str(port).partition("-")
    return range(int(first), int(last or first) + 1)


def _reaches(who: str | Sequence[str], viewpoint: Collection[str]) -> bool:
    return who == "any" or (not isinstance(who, str) and any(name in viewpoint for name in who))


def _has_networks(who: str | Sequence[str]) -> bool:
    """Tell whether addresses stand among the names: then we cannot know whether we are meant."""
    return any(mark in name for name in who for mark in (".", ":", "/"))


def inside(host: Host) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Give the checks that are made on the host itself, each with its sentence's values."""
    for card in host.cards:
        for check in card["checks"]:
            if check["kind"] not in OUTSIDE:
                yield check, about(host, card, check)
