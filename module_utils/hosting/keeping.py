# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether archives may be deleted from a repository, and which: what the keeper decides before it touches anything.

A client only ever adds. So an archive that is gone and that we did not delete, or one that is dated so as to push
others out, is the trace of somebody else: then nothing is deleted until a person has looked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

Archive = Mapping[str, Any]  # {"id", "name", "time"}, the time a datetime in UTC
Found = dict[str, Any]

SLACK = timedelta(minutes=10)  # between two clocks that are both right
SPARE = 2  # archives of one service that a person may make by hand
PERIODS: Mapping[str, Callable[[datetime], object]] = {
    "daily": lambda time: time.date(),
    "weekly": lambda time: time.isocalendar()[:2],
    "monthly": lambda time: (time.year, time.month),
}


def archive(listed: Mapping[str, str]) -> dict[str, Any]:
    """Return an archive as `borg list --json` names it in UTC."""
    return {"id": listed["id"], "name": listed["name"], "time": datetime.fromisoformat(listed["time"])}


def service(name: str) -> str:
    """Return the service whose archive this is: `web` of web-2026-11-23T04:00:00."""
    return name[:-20] if len(name) > 20 else name


def judge(journal: Mapping[str, Any], archives: Sequence[Archive], now: datetime, runs_a_day: int) -> list[Found]:
    """Return what does not look like a client that only adds.

    The journal holds every archive that was seen, {"archives": {id: {"name", "time", "pruned"}}, "at"}; without one,
    all that is there counts as seen. What is `pruned` we deleted, or were about to.
    """
    future = [
        {"code": "future", "archive": one["name"], "time": one["time"].isoformat()}
        for one in archives
        if one["time"] > now + SLACK
    ]
    if not journal:
        return future
    seen: Mapping[str, Any] = journal["archives"]
    there = {one["id"] for one in archives}
    vanished = [
        {"code": "vanished", "archive": known["name"], "time": known["time"]}
        for key, known in seen.items()
        if key not in there and not known.get("pruned")
    ]
    new = [one for one in archives if one["id"] not in seen]
    newest = max((datetime.fromisoformat(known["time"]) for known in seen.values()), default=datetime.min)
    backdated = [
        {"code": "backdated", "archive": one["name"], "time": one["time"].isoformat()}
        for one in new
        if one["time"] < newest - SLACK
    ]
    days = max((now - datetime.fromisoformat(journal["at"])) / timedelta(days=1), 0.0)
    allowed = int(days * runs_a_day) + SPARE
    counts: dict[str, int] = {}
    for one in new:
        counts[service(one["name"])] = counts.get(service(one["name"]), 0) + 1
    flood = [
        {"code": "too_many", "service": name, "new": count, "allowed": allowed}
        for name, count in sorted(counts.items())
        if count > allowed
    ]
    return [*vanished, *future, *backdated, *flood]


def plan(archives: Iterable[Archive], retention: Mapping[str, int], delay: timedelta, now: datetime) -> list[Archive]:
    """Return the archives that go, oldest first.

    Of each service the newest of every day, week and month stays, for as many of them as `retention` says; whatever is
    younger than the delay; and the newest of all, however old.
    """
    services: dict[str, list[Archive]] = {}
    for one in sorted(archives, key=lambda one: (one["time"], one["id"]), reverse=True):
        services.setdefault(service(one["name"]), []).append(one)
    gone = []
    for newest_first in services.values():
        kept = {newest_first[0]["id"]}
        for period, count in retention.items():
            firsts: dict[object, str] = {}
            for one in newest_first:
                firsts.setdefault(PERIODS[period](one["time"]), one["id"])
            kept |= set(list(firsts.values())[:count])
        gone += [one for one in newest_first if one["id"] not in kept and one["time"] < now - delay]
    return sorted(gone, key=lambda one: (one["time"], one["id"]))


def note(archives: Iterable[Archive], now: datetime, gone: Iterable[Archive] = ()) -> dict[str, Any]:
    """Return the journal after a look at which nothing was wrong, and before what is to go is deleted."""
    marked = {one["id"] for one in gone}
    known = {
        one["id"]: {"name": one["name"], "time": one["time"].isoformat(), "pruned": one["id"] in marked}
        for one in archives
    }
    return {"archives": known, "at": now.isoformat()}


# --- drills ---------------------------------------------------------------------------------------------------------


def chained(lines: Sequence[str], drill: Mapping[str, Any]) -> str:
    """Return the line that adds a drill to the log: it holds the digest of the one before."""
    return json.dumps({"previous": digest(lines[-1]) if lines else "", **drill}, sort_keys=True)


def digest(line: str) -> str:
    """Return a line's digest."""
    return hashlib.sha256(line.encode()).hexdigest()


def broken(lines: Sequence[str], known: Mapping[str, Any]) -> int:
    """Return the number of the first line that does not follow from the one before, 0 if all do.

    `known` is {"lines", "digest"} of an earlier look: whoever cuts the end of the log off leaves a chain that holds.
    """
    before = ""
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["previous"] != before:
                return number
        except (ValueError, KeyError, TypeError):
            return number
        before = digest(line)
    count = known.get("lines", 0)
    if count and (len(lines) < count or digest(lines[count - 1]) != known["digest"]):
        return int(count)
    return 0


def drill_wanted(lines: Iterable[str], client: str, days: int, now: datetime) -> str:
    """Say why the last drill of a client does not allow to delete: never, red or old; nothing where it does."""
    drills = [drill for drill in map(json.loads, lines) if client in drill["clients"]]
    if not drills:
        return "never_drilled"
    if not drills[-1]["ok"]:
        return "drill_red"
    return "drill_old" if now - datetime.fromisoformat(drills[-1]["at"]) > timedelta(days=days) else ""
