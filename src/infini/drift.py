# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini drift`: the files that were edited by hand since we wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from infini import ROOT
from infini.hosts import Inventory
from infini.runner import play


def drift(inventory: str) -> tuple[dict[str, Any], int]:
    """Ask every host of an inventory; return the JSON object of `infini drift` and the command's exit status.

    Where a host does not answer, what the others said is there all the same, with an `error`.
    """
    result = play(ROOT / "playbooks/drift.yml", str(Inventory(inventory).path))
    answer = gather(result.results)
    if not result.ok:
        return {**answer, "ok": False, "error": result.sentence()}, result.status
    return answer, 0 if answer["ok"] else 1


def gather(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Put what the hosts said into one list; pure."""
    files = [
        {"host": entry["host"], **{key: found[key] for key in ("path", "state", "diff")}}
        for entry in results
        for found in entry["result"].get("files", [])
    ]
    return {"ok": not files, "files": files}
