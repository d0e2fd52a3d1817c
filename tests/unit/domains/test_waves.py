# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infini.domains.events import Event, LocalStore
from infini.domains.ports import WorldError
from infini.domains.waves import FLEET, Pace, Switched, Waves, last_switch, slot, waves

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_nobody_goes_before_the_canary_has_settled():
    assert slot({}, "a.example", NOW, canary="c.example") is None
    assert slot({}, "c.example", NOW, canary="c.example") == NOW
    assert slot({"c.example": Switched(NOW - HOUR)}, "a.example", NOW, canary="c.example") is None
    settled = {"c.example": Switched(NOW - 2 * timedelta(days=1), True)}
    assert slot(settled, "a.example", NOW, canary="c.example") == NOW


def test_one_a_day_at_first_then_ten():
    one = {"a.example": Switched(NOW - HOUR)}
    assert slot(one, "b.example", NOW) == NOW + 23 * HOUR
    proven = {f"{n}.example": Switched(NOW - timedelta(days=9), True) for n in range(5)}
    busy = {f"x{n}.example": Switched(NOW - HOUR * (n + 1)) for n in range(9)}
    assert slot(proven | busy, "b.example", NOW) == NOW
    full = busy | {"x9.example": Switched(NOW - HOUR * 10)}
    assert slot(proven | full, "b.example", NOW) == NOW + 14 * HOUR


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_no_24_hours_ever_hold_more_switches_than_the_pace_allows(gaps):
    pace, now, done = Pace(1, 3, 2), NOW, {}
    for number, gap in enumerate(gaps):
        now += timedelta(hours=gap)
        name = f"{number}.example"
        when = slot(done, name, now, pace)
        assert when is not None
        now = max(now, when)
        done[name] = Switched(now, True)
        window = [switch for switch in done.values() if switch.at > now - timedelta(days=1)]
        assert len(window) <= (3 if number >= 2 else 1)


def test_waves_cut_a_list_with_the_canary_alone():
    assert waves(["a", "b", "c", "d"], 2, "c") == [["c"], ["a", "b"], ["d"]]


def event(kind: str, at: datetime = NOW, **data: str) -> Event:
    return Event(at, "a.example", "", kind, data)


def test_a_switch_that_was_taken_back_counts_no_more():
    events = [event("acted", action="switch"), event("state", to="SETTLED")]
    assert last_switch(events) == Switched(NOW, True)
    assert last_switch([*events, event("acted", action="restore-nameservers")]) is None
    assert last_switch([]) is None


def test_the_turn_is_taken_by_one_at_a_time_and_checked_again(tmp_path):
    store = LocalStore(tmp_path, durable=False)
    fleet = Waves(store)
    with fleet.turn("a.example", NOW, "Camille"):
        with pytest.raises(WorldError, match="Camille"), fleet.turn("b.example", NOW, "Dominique"):
            raise AssertionError
        store.append(event("acted", action="switch"))
    with pytest.raises(WorldError, match="used up"), fleet.turn("b.example", NOW + HOUR, "Dominique"):
        raise AssertionError
    assert FLEET not in store.domains()
