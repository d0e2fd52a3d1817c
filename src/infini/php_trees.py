# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini php update` and `infini php rollback`: a PHP that lives in its own release's tree, brought up to date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infini.apply import apply
from infini.errors import RefusedError
from infini.hosts import Inventory
from infini.runner import RunResult

SHOWN = 5
"""Packages named in a sentence; the JSON object has them all."""


def exchange(version: str, state: str, inventory: str, *, check: bool = False, force: bool = False) -> RunResult:
    """Bring one tree to the state `latest` or `previous` on every web host."""
    hosts = Inventory(inventory)
    for host in hosts.hosts("webs"):
        runtimes = {runtime["version"]: runtime["source"] for runtime in hosts.get(host, "php_runtimes", [])}
        _refuse(version, runtimes)
    wanted = {"version": version, "state": state, "force": force}
    return apply("php_tree", inventory, check=check, limit="webs", variables={"php_tree": wanted})


def _refuse(version: str, sources: Mapping[str, str]) -> None:
    trees = ", ".join(sorted(name for name, source in sources.items() if source == "tree")) or "none"
    if version not in sources:
        raise RefusedError(f"There is no PHP {version} in php_runtimes; versions that live in a tree: {trees}")
    if sources[version] != "tree":
        raise RefusedError(
            f"PHP {version} is a package of the host ({sources[version]}), which has its updates every night;"
            f" versions that live in a tree: {trees}"
        )


def outcomes(result: RunResult) -> dict[str, dict[str, Any]]:
    """Return by host whether its tree was exchanged, and what that changes in its packages."""
    return {
        entry["host"]: {
            "changed": bool(entry["result"].get("changed")),
            "packages": [line for lines in entry["result"]["packages"].values() for line in lines],
        }
        for entry in result.results
        if "packages" in entry["result"]
    }


def sentence(version: str, state: str, host: str, outcome: Mapping[str, Any], *, check: bool) -> str:
    """Say in one sentence what happened on a host."""
    if not outcome["changed"]:
        return f"{host}: PHP {version} is as its release has it today; nothing was touched."
    packages: list[str] = outcome["packages"]
    named = "; ".join(packages[:SHOWN]) + ("; …" if len(packages) > SHOWN else "")
    what = f"packages that differ: {len(packages)} ({named})" if packages else "with the same packages"
    if check:
        verb = "would be built anew" if state == "latest" else "would go back to its earlier tree"
        return f"{host}: PHP {version} {verb}; {what}."
    if state == "latest":
        return f"{host}: PHP {version} runs in a new tree; {what}. To go back: ./infini php rollback {version}"
    return f"{host}: PHP {version} runs in its earlier tree again; {what}. The same command takes this back."
