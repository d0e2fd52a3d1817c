# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini drift`: the files that were edited by hand since we wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from infini import ROOT
from infini.errors import UnreachableError
from infini.hosts import Inventory
from infini.runner import play


def drift(inventory: str) -> dict[str, Any]:
    """Ask every host of an inventory; return the JSON object of `infini drift`."""
    result = play(ROOT / "playbooks/drift.yml", str(Inventory(inventory).path))
    if not result.ok:
        raise UnreachableError(result.sentence())
    return gather(result.results)


def gather(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Put what the hosts said into one list; pure."""
    files = [
        {"host": entry["host"], **{key: found[key] for key in ("path", "state", "diff")}}
        for entry in results
        for found in entry["result"].get("files", [])
    ]
    return {"ok": not files, "files": files}
