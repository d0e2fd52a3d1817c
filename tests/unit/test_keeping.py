# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper's decisions: what it takes for an attack, and what it lets go."""

import json
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting import keeping

NOW = datetime(2026, 11, 23, 12)
RETENTION = {"daily": 7, "weekly": 4, "monthly": 6}
DELAY = timedelta(days=7)


def made(days, name="web", key=""):
    """Return an archive that is so many days old."""
    time = NOW - timedelta(days=days)
    return {"id": key or f"{name}{days}", "name": f"{name}-{time.isoformat(timespec='seconds')}", "time": time}


def codes(journal, archives, now=NOW, runs_a_day=2):
    return [found["code"] for found in keeping.judge(journal, archives, now, runs_a_day)]


SEEN = [made(3), made(2), made(1)]
JOURNAL = keeping.note(SEEN, NOW - timedelta(hours=20))


def test_the_first_look_takes_what_is_there():
    assert codes({}, SEEN) == []
    assert codes({}, [*SEEN, made(-1)]) == ["future"]


def test_a_client_that_only_adds_is_left_alone():
    assert codes(JOURNAL, [*SEEN, made(0.5), made(0), made(0, "panel")]) == []


@pytest.mark.parametrize(
    ("archives", "expected"),
    [
        (SEEN[1:], "vanished"),
        ([], "vanished"),
        ([*SEEN[:2], {**SEEN[2], "id": "renamed"}], "vanished"),
        ([*SEEN, made(-0.1)], "future"),
        ([*SEEN, made(1.5)], "backdated"),
        ([*SEEN, *(made(n / 100) for n in range(4))], "too_many"),
    ],
)
def test_the_traces_of_somebody_else_are_found(archives, expected):
    assert set(codes(JOURNAL, archives)) == {expected}


def test_what_we_were_about_to_delete_is_not_missed():
    journal = keeping.note(SEEN, NOW, SEEN[:1])
    assert codes(journal, SEEN[1:]) == []
    assert codes(journal, SEEN) == []
    assert codes(journal, SEEN[2:]) == ["vanished"]


@pytest.mark.parametrize(
    ("name", "service"), [("web-2026-11-23T04:00:00", "web"), ("a-b-2026-11-23T04:00:00", "a-b"), ("x", "x")]
)
def test_an_archive_belongs_to_a_service(name, service):
    assert keeping.service(name) == service


def test_borgs_words_are_read():
    listed = {"id": "ab", "name": "web", "time": "2026-11-23T04:59:14.000000", "archive": "web"}
    assert keeping.archive(listed) == {"id": "ab", "name": "web", "time": datetime(2026, 11, 23, 4, 59, 14)}


def test_days_weeks_and_months_keep_their_newest():
    archives = [made(days / 2) for days in range(800)]
    gone = keeping.plan(archives, RETENTION, DELAY, NOW)
    kept = [one["time"] for one in archives if one not in gone]
    assert gone == sorted(gone, key=lambda one: one["time"])
    assert {time.date() for time in kept if time > NOW - timedelta(days=7)} >= {
        (NOW - timedelta(days=n)).date() for n in range(7)
    }
    assert len([time for time in kept if time < NOW - DELAY]) < 4 + 6
    assert len({(time.year, time.month) for time in kept}) == 6


ARCHIVES = st.lists(
    st.builds(
        made, st.floats(0, 900).map(lambda days: round(days, 3)), st.sampled_from(["web", "panel"]), st.uuids().map(str)
    ),
    max_size=60,
)
RETENTIONS = st.dictionaries(st.sampled_from(sorted(keeping.PERIODS)), st.integers(0, 20))


@given(ARCHIVES, RETENTIONS, st.integers(0, 60))
def test_whatever_the_retention_the_newest_and_the_young_stay(archives, retention, days):
    gone = {one["id"] for one in keeping.plan(archives, retention, timedelta(days=days), NOW)}
    for name in {keeping.service(one["name"]) for one in archives}:
        newest = max(
            (one for one in archives if keeping.service(one["name"]) == name), key=lambda one: (one["time"], one["id"])
        )
        assert newest["id"] not in gone
    assert all(one["time"] < NOW - timedelta(days=days) for one in archives if one["id"] in gone)
    # Planned again on what is left, nothing more goes.
    left = [one for one in archives if one["id"] not in gone]
    assert keeping.plan(left, retention, timedelta(days=days), NOW) == []


@given(ARCHIVES, st.data())
def test_no_vanished_archive_goes_unnoticed(archives, data):
    journal = keeping.note(archives, NOW)
    left = data.draw(st.lists(st.sampled_from(archives), unique_by=lambda one: one["id"])) if archives else []
    found = keeping.judge(journal, left, NOW, 4)
    assert len([one for one in found if one["code"] == "vanished"]) == len(archives) - len(left)


def log(*drills):
    """Return the lines of a log of drills."""
    lines = []
    for drill in drills:
        lines.append(keeping.chained(lines, drill))
    return lines


def drill(days, ok=True, client="web"):
    return {"at": (NOW - timedelta(days=days)).isoformat(), "ok": ok, "clients": [client]}


DRILLS = log(drill(20), drill(10, ok=False), drill(3), drill(1, client="panel"))


def test_a_chain_holds_until_somebody_writes_in_it():
    assert keeping.broken([], {}) == 0
    assert keeping.broken(DRILLS, {}) == 0
    for number in range(len(DRILLS)):
        changed = [*DRILLS]
        changed[number] = json.dumps({**json.loads(DRILLS[number]), "ok": "changed"}, sort_keys=True)
        known = {"lines": len(DRILLS), "digest": keeping.digest(DRILLS[-1])}
        assert keeping.broken(changed, known) in (number + 1, number + 2)
        assert keeping.broken([*DRILLS[:number], *DRILLS[number + 1 :]], known)
    assert keeping.broken([*DRILLS, "not a drill"], {}) == 5


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "never_drilled"),
        (log(drill(1, client="panel")), "never_drilled"),
        (log(drill(3), drill(2, ok=False)), "drill_red"),
        (log(drill(2, ok=False), drill(1)), ""),
        (log(drill(11)), "drill_old"),
    ],
)
def test_a_drill_that_is_green_and_fresh_is_wanted(lines, expected):
    assert keeping.drill_wanted(lines, "web", 10, NOW) == expected
