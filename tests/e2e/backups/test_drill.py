# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform is lost and comes back on throwaway machines, and a drill sees each fault that is made on purpose."""

import json
import os

import pytest
from commands import infini

from infini import bench
from infini.backups import faults

TIMES = 10 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1


@pytest.fixture(scope="module")
def drills():
    """Back everything up, and rehearse the loss of all of it, the last time with faults made on purpose."""
    status, saved = infini("backup")
    assert status == 0, saved
    return [infini("drill", *(["--faults"] if number == TIMES else [])) for number in range(1, TIMES + 1)]


@pytest.fixture(scope="module")
def drilled(drills):
    """Give the last drill."""
    return drills[-1]


@pytest.mark.parametrize("number", range(TIMES))
def test_everything_comes_back_as_it_was_and_serves(drills, number):
    status, drill = drills[number]
    assert drill["findings"] == []
    assert drill["failed"] == []
    assert (status, drill["ok"]) == (0, True)
    assert {one["host"] for one in drill["restored"]} == {"web", "panel", "lists"}
    assert sum(one["files"] for one in drill["restored"]) > 1000
    databases = {name for one in drill["restored"] for name in one["databases"]}
    assert {"velo", "chorale", "jardin", "alternc", "sympa"} <= databases
    assert drill["checks"] > 100


def test_every_fault_that_is_made_on_purpose_is_caught_for_what_it_is(drilled):
    found = {fault["fault"]: fault for fault in drilled[1]["faults"]}
    assert set(found) == set(faults.SEEN_AS)
    assert [fault for fault in found.values() if not fault["caught"]] == []


@pytest.mark.usefixtures("drilled")
def test_nothing_of_a_drill_is_left():
    assert bench.containers("drill") == []


def test_the_keeper_has_the_drill_in_its_chained_log(drilled, inventory, host):
    keeper = host(inventory.hosts("backup_keepers")[0])
    line = json.loads(keeper.check_output("tail -1 /var/lib/infini-backup-keeper/drills.jsonl"))
    assert line["ok"] is True
    assert set(line["clients"]) == {"web", "panel", "lists"}
    assert line["recovery_time_s"] == pytest.approx(drilled[1]["recovery_time_s"], abs=1)
    keeper.run_expect([0], "infini-backup-keeper check")


@pytest.mark.usefixtures("drilled")
def test_what_came_back_of_each_member_is_known_to_purge(inventory, host):
    panel = host(inventory.hosts("panels")[0])
    known = json.loads(panel.check_output("cat /var/lib/infini/backups/verified.json"))
    assert known["ecole"]["holds"]["members"] == 1
    assert known["ecole"]["holds"]["mailboxes"] == 2
