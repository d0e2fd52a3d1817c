# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a member who has left a panel may be deleted with all there is of him: the rule, and where its facts stand.

The engine of the panel notes since when a member is shut; `infini leave` leaves the export that was handed over; who
makes backups writes down, for each member, a backup that was read again: `{"velo": {"taken": 1790000000, "holds":
{"domains": 1, …}}}`, the counts as `alternc_export` gives them. A fact that is not known is a reason to keep him.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .alternc_data import ADMIN, Panel
from .alternc_export import counts, export

DAYS = 30
FRESH_DAYS = 7  # mails come in until the end
ENGINE = Path("/var/lib/infini-alternc/state.json")
EXPORTS = Path("/var/lib/infini-alternc/left")
BACKUPS = Path("/var/lib/infini/backups/verified.json")
DAY = 86400


def read(path: Path) -> dict[str, Any]:
    """Return what a file says; nothing where it is not there or not whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def refusal(
    login: str,
    panel: Panel,
    shut: Mapping[str, float],
    handed: Mapping[str, Any],
    backups: Mapping[str, Any],
    now: float,
) -> str:
    """Say why a member may not be deleted yet, or nothing."""
    row = panel.by("members", "login").get(login)
    if row is None:
        return f"{login} is no member of this panel: give the login of one"
    if login == ADMIN:
        return f"{ADMIN} is AlternC's own administrator: it stays"
    leave = f"`./infini leave {login}`"
    if row["enabled"]:
        return f"{login} is not frozen: {leave} first, and {DAYS} days later this"
    if login not in shut:
        return (
            f"it is not known since when {login} is frozen: alternc-apply notes it at its next run and counts from it"
        )
    may = shut[login] + DAYS * DAY
    if now < may:
        return f"{login} is frozen since {_day(shut[login])}: this may be done from {_day(may)} on"
    if [one.get("login") for one in handed.get("members", ())] != [login]:
        return f"no export of {login} was handed over: {leave} writes one"
    return _not_held(login, panel, backups.get(login), now)


def _not_held(login: str, panel: Panel, record: Any, now: float) -> str:
    """Say why no backup is known to hold a member as he is now, or nothing."""
    begin = f"no backup is known to hold {login}"
    if not isinstance(record, Mapping):
        return f"{begin}: {BACKUPS} does not name one that was verified; nothing is deleted without"
    taken, there = float(record.get("taken", 0)), counts(export(panel, login))
    if not now - FRESH_DAYS * DAY <= taken <= now:
        return f"{begin} as it is now: the last one that was verified is of {_day(taken)}; make one"
    held = record.get("holds") or {}
    missing = [f"{held.get(kind, 0)} {kind} of {count}" for kind, count in there.items() if held.get(kind, 0) != count]
    return f"{begin} wholly: the one of {_day(taken)} holds {', '.join(missing)}; make another" if missing else ""


def _day(stamp: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(stamp))
