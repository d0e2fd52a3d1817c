# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process killed at any point of a move is resumed by another, and nothing irreversible happens twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_move import DOMAIN, World, assert_legal, drive, make_move, states

from infini.domains.events import Event, LocalStore
from infini.domains.states import State

ONCE = ("order", "set_nameservers", "remove_dnskeys")


class DyingStore(LocalStore):
    """A store whose process may die before, amid or after the writing of an event."""

    world: World

    def append(self, event: Event) -> None:
        self.world.fault("before", "append")
        super().append(event)
        self.world.fault("after", "append")


def child(folder: Path, points: int) -> None:
    """Move the domain; die at the given point (each door of the world and each event has one before and one after)."""
    left = [points]

    def fault(_when: str, what: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            if what == "append" and points % 3 == 0:  # as a crash amid a write would leave it
                home = folder / "events" / DOMAIN
                home.mkdir(parents=True, exist_ok=True)
                with (home / "events.jsonl").open("ab") as file:
                    file.write(b'{"at": "2026-0')
            os.kill(os.getpid(), signal.SIGKILL)

    world = World(folder / "world.json", fault)
    store = DyingStore(folder / "events", durable=False)
    store.world = world
    step = drive(make_move(folder, world, store=store), world)
    sys.exit(0 if step.done else 1)


def run(folder: Path, points: int) -> int:
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(points)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def signed_world(folder: Path) -> World:
    world = World(folder / "world.json")
    world.set(ds=["12345 13 2 ab"], dnskeys=[{"id": "1", "keytag": 12345}], signed=True)
    return world


def test_kill_9_at_random_points_of_a_move(tmp_path):
    chance = random.Random(20260302)  # noqa: S311  which points, not a secret
    wanted, deaths = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 5, 0
    for number in range(wanted):
        deaths += killed_until_done(tmp_path / str(number), chance)
        if deaths >= wanted:
            return
    pytest.fail(f"only {deaths} deaths in {wanted} moves: nothing is shown")


def killed_until_done(folder: Path, chance: random.Random) -> int:
    """Let one domain's process die again and again on its way, then look at its end; return how often it died."""
    folder.mkdir()
    world = signed_world(folder)
    deaths = 0
    while run(folder, chance.randint(8, 45)):
        deaths += 1
        assert deaths < 40
    move = make_move(folder, world)
    assert move.advance().state == State.DONE
    assert states(move)[-1] == "DONE"
    assert_legal(move)
    assert world.calls()["order"] == 1
    data = world.state()
    assert (data["registrar"], data["secured"], data["ds"]) == ("GAGNANT SARL", True, [])
    return deaths


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["order", "set_nameservers", "remove_dnskeys", "set_lock", "provision"])
def test_a_process_that_dies_around_a_change_never_repeats_what_cannot_be_taken_back(tmp_path, what, when):
    class DeadError(BaseException):
        """Passes through everything, as a death does."""

    def fault(now: str, door: str) -> None:
        if (now, door) == (when, what):
            raise DeadError

    world = signed_world(tmp_path)
    with pytest.raises(DeadError):
        drive(make_move(tmp_path, World(world.path, fault)), world)
    move = make_move(tmp_path, world)
    assert drive(move, world).done
    calls = world.calls()
    assert {door: calls[door] for door in ONCE} == dict.fromkeys(ONCE, 1)
    assert_legal(move)


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]))
