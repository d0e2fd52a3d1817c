# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict of `infini bench lists`: no figure that was missed, or not measured, passes for one that was reached."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setenv("INFINI_BENCH", "bench")
    spec = importlib.util.spec_from_file_location("bench_lists", Path(__file__).parents[1] / "bench/lists.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
