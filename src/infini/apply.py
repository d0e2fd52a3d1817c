# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini apply`: run a playbook, one run at a time on each host, and confirm what it reloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from infini import ROOT
from infini.errors import RefusedError
from infini.hosts import Inventory, locked
from infini.runner import RunResult, play


def playbook_path(name: str) -> Path:
    """Return the file of a playbook: a name under playbooks/, or a path."""
    named = ROOT / "playbooks" / f"{name}.yml"
    path = named if named.exists() else Path(name).resolve()
    if not path.is_file():
        known = ", ".join(sorted(entry.stem for entry in (ROOT / "playbooks").glob("*.yml")))
        raise RefusedError(f"There is no playbook “{name}”: name one of {known}, or a path")
    return path


def apply(
    playbook: str,
    inventory: str,
    *,
    check: bool = False,
    diff: bool = False,
    limit: str = "all",
    overwrite: Sequence[str] = (),
    variables: Mapping[str, Any] | None = None,
    quiet: bool = False,
    after: Sequence[Path] = (),
) -> RunResult:
    """Run a playbook, with `variables` beside the inventory's; check mode writes nothing and needs no lock.

    `after` are playbooks that follow in the same run, if nothing fails.
    """
    path = playbook_path(playbook)
    hosts = Inventory(inventory)
    # Every playbook begins with the play that can only say no; `site` has it of itself.
    before = [] if path == playbook_path("site") else [playbook_path("preflight")]
    arguments = [*(["--check"] if check else []), *(["--diff"] if diff else [])]
    arguments += ["--limit", limit] if limit != "all" else []
    more = {**(variables or {}), **({"host_tree_overwrite": list(overwrite)} if overwrite else {})}
    with nullcontext() if check else locked(hosts, limit):
        return play(path, str(hosts.path), more, quiet, arguments, before, after)
