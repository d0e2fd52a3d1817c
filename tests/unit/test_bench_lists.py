# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict of `infini bench lists`: no figure that was missed, or not measured, passes for one that was reached."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest


def load(path):
    spec = importlib.util.spec_from_file_location("bench_lists", Path(__file__).parents[1] / "bench" / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setenv("INFINI_BENCH", "bench")
    return load("lists.py")


def test_each_figure_is_judged_by_what_is_wanted(bench):
    verdict = bench.judged(
        {**bench.WANTED, "one list, whole run": 5.2, "seconds a subscription, grown / as they are": None}
    )
    assert [name for name, one in verdict.items() if not one["met"]] == [
        "one list, whole run",
        "seconds a subscription, grown / as they are",
    ]
    assert verdict["one list, whole run"] == {"wanted at most": 5.0, "measured": 5.2, "met": False}


def test_its_own_commands_are_compared_in_the_same_unit(bench):
    own = {"extrapolated minutes, lists": 40.0, "extrapolated hours, subscribers": 10.0}
    assert list(bench.compared(own, {"lists": 24.0, "subscribers": 18.0}).values()) == [100.0, 2000.0]
    assert bench.compared({}, {}) == {}


def test_a_copy_is_one_of_this_message_and_a_second_one_is_seen(tmp_path):
    def put(mailbox, part, *times):
        for number, moment in enumerate(times):
            path = tmp_path / mailbox / "Maildir" / part / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (moment, moment))

    copies = load("on_host/list_message.py").copies
    assert copies(tmp_path / "none", 100) == ([], 0)
    put("a", "new", 50, 101)
    put("b", "new", 102)
    put("b", "cur", 103)
    put("c", "cur", 99)
    (tmp_path / "d").mkdir()
    times, twice = copies(tmp_path, 100)
    assert (sorted(times), twice) == ([101, 102], 1)
