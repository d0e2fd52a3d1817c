# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys by which robots sign and seal: made on the host where nobody brought one, and what the DNS must say of them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import mail_records as dns

Robot = Mapping[str, Any]
SIGNATURES = ("dkim", "arc")


def with_keys(robot: Robot, folder: Path) -> dict[str, Any]:
    """Return a robot whose signatures all have a key: one of ours where it names none."""
    own = dict(robot)
    for kind in SIGNATURES:
        said = robot.get(kind)
        if said and not said.get("key_file"):
            own[kind] = {**said, "key_file": str(folder / f"{_signer(robot, said)}.{said['selector']}.key")}
    return own


def ours(robots: Iterable[Robot]) -> dict[str, set[str]]:
    """Return the domains that sign by a key of ours, by selector."""
    found: dict[str, set[str]] = {}
    for robot in robots:
        for kind in SIGNATURES:
            said = robot.get(kind)
            if said and not said.get("key_file"):
                found.setdefault(said["selector"], set()).add(_signer(robot, said))
    return found


def missing(robots: Iterable[Robot], folder: Path) -> list[str]:
    """Return the domains whose key is not there yet."""
    return sorted(
        {
            domain
            for selector, domains in ours(robots).items()
            for domain in domains - set(dns.read_keys(folder, domains, selector))
        }
    )


def make(robots: Iterable[Robot], folder: Path, owner: str) -> None:
    """Make the keys that are missing; the owner reads them and nobody else does."""
    group = pwd.getpwnam(owner).pw_gid if owner else os.getgid()
    for selector, domains in ours(robots).items():
        dns.make_keys(folder, domains - set(dns.read_keys(folder, domains, selector)), selector, group)


def records(robots: Iterable[Robot], folder: Path, host: str, spf: str, dmarc: str) -> str:
    """Return what the DNS must say of the robots that sign by keys of ours."""
    keys: dict[str, dict[str, str]] = {}
    for selector, domains in ours(robots).items():
        for domain, key in dns.read_keys(folder, domains, selector).items():
            keys.setdefault(domain, {})[selector] = key
    return dns.zone(keys, dns.Policy(host, spf, dmarc), services=())


def _signer(robot: Robot, said: Mapping[str, Any]) -> str:
    return str(said.get("domain") or robot["name"])
