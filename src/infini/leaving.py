# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini leave` and `infini purge`: a member of the panel goes, in two steps a month apart."""

from __future__ import annotations

import re
from pathlib import Path

from hosting.leaving import DAYS as DAYS
from infini.apply import apply
from infini.errors import RefusedError
from infini.hosts import Inventory
from infini.runner import RunResult


def leave(member: str, inventory: str, to: Path, *, limit: str = "panels", check: bool = False) -> RunResult:
    """Write an export of a member for handing over, and freeze the member."""
    _refuse_strange(member)
    _refuse_many(inventory, limit)
    variables = {"member_leaving": {"login": member, "to": str(to.resolve())}}
    return _told(apply("member_leave", inventory, check=check, limit=limit, variables=variables))


def purge(member: str, inventory: str, *, limit: str = "panels", check: bool = False, diff: bool = False) -> RunResult:
    """Delete a member with all there is of him, if the rule allows it."""
    _refuse_strange(member)
    _refuse_many(inventory, limit)
    variables = {"member_purged": member}
    return _told(apply("member_purge", inventory, check=check, diff=diff, limit=limit, variables=variables))


def _refuse_many(inventory: str, limit: str) -> None:
    """Refuse several panels at once: while one moves to another host, both have the member."""
    found = Inventory(inventory).hosts(limit)
    if len(found) != 1:
        raise RefusedError(
            f"A member goes from one panel at a time, and here are {', '.join(found)}: name one by --limit"
        )


def _refuse_strange(member: str) -> None:
    """Refuse what is no login: it becomes part of a file's name."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", member):
        raise RefusedError(f"“{member}” is no login of a panel: letters, digits, - and _")


def _told(result: RunResult) -> RunResult:
    """Raise what a host refused as the one sentence that it is."""
    for failure in result.failures:
        if failure["refused"]:
            raise RefusedError(f"{failure['host']}: {failure['says']}")
    return result
