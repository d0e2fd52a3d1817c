# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PHP runtimes and pools need of a host: packages, trees and units."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]

TREE = "tree"
_FIELD = re.compile(r"^(Package|Status|Version): (.*)$", re.MULTILINE)
_ACCOUNT = re.compile(r"[/@]([^/@.]+)\.(?:conf|socket|service)$")
_UPGRADE = re.compile(r"^Inst (\S+) (?:\[(\S+)\] )?\((\S+) ", re.MULTILINE)  # as `apt-get --simulate` says it


def packages_of(version: str, extensions: Iterable[str]) -> list[str]:
    """Return the packages of one version, sorted."""
    return sorted({f"php{version}-{name}" for name in ("cli", "fpm", "opcache", *extensions)})


def packages(runtimes: Sequence[Entry], extensions: Iterable[str]) -> list[str]:
    """Return what the host itself has to install for these runtimes."""
    extensions = list(extensions)
    names = {name for r in runtimes if r["source"] != TREE for name in packages_of(r["version"], extensions)}
    if any(runtime["source"] == TREE for runtime in runtimes):
        names.add("mmdebstrap")
    return sorted(names)


def trees(runtimes: Sequence[Entry], extensions: Iterable[str]) -> list[dict[str, Any]]:
    """Return the trees as the module `php_trees` takes them."""
    extensions = list(extensions)
    return [
        {
            "version": runtime["version"],
            "suite": runtime["suite"],
            "security": runtime.get("security", True),
            "packages": [*packages_of(runtime["version"], extensions), "ca-certificates"],
        }
        for runtime in runtimes
        if runtime["source"] == TREE
    ]


def patterns(runtimes: Iterable[Entry], pattern: Entry) -> list[dict[str, Any]]:
    """Return a pool for each version, with what stands for an account that only the host knows."""
    return [{**pattern, "version": runtime["version"]} for runtime in runtimes]


def units(pools: Iterable[Entry], runtimes: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the units of these pools: an entrance each, who lets masters rest, and the packages' own kept down."""
    own = [{"name": f"php{pool['version']}@{pool['account']}.socket"} for pool in pools]
    packaged = [
        {"name": f"php{runtime['version']}-fpm.service", "enabled": False, "state": "stopped"}
        for runtime in runtimes
        if runtime["source"] != TREE
    ]
    return [*own, {"name": "php-pools-rest.timer"}, *packaged]


def retirable(left: Iterable[str], accounts: Collection[str]) -> list[str]:
    """Return what may go of the files and units that are left of pools: not those of these accounts."""
    return [name for name in left if not set(_ACCOUNT.findall(name)) & set(accounts)]


def installed(status: str) -> dict[str, str]:
    """Return the versions of installed packages by name, from dpkg's status file."""
    stanzas = (dict(_FIELD.findall(stanza)) for stanza in status.split("\n\n"))
    return {s["Package"]: s["Version"] for s in stanzas if s.get("Status", "").endswith(" installed")}


def package_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return a line for each package that differs: new ones come from `-`, those that leave go there."""
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [f"{name} {before.get(name, '-')} -> {after.get(name, '-')}" for name in names]


def upgrades(simulated: str) -> list[str]:
    """Return the same lines from what `apt-get --simulate dist-upgrade` says that it would install."""
    found = _UPGRADE.findall(simulated)
    return package_changes({name: old for name, old, _ in found if old}, {name: new for name, _, new in found})
