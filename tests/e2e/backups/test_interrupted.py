# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed or out of room in the middle of anything: nothing is lost, and the next run is fine."""

import os

import pytest

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
KEEPER_KILLS = [("delete", 0), ("delete", 0.8), ("compact", 0), ("compact", 0.5), ("compact", 1)]
LAST = ["as it was, victim, 2", "as it was, victim, 3"]
# Waits for a process, lets it live a little, then kills -9 all that match.
KILL = r"""
for _ in $(seq 600); do pgrep -f {seen} >/dev/null && break; sleep 0.05; done
sleep {delay}
pkill -9 -f {killed} && echo hit
"""


def whole(world):
    """Check that the repository is whole and holds what must stay, and that the keeper and the store carry on."""
    status, answer = world.keep()
    assert status == 0, answer
    assert answer["code"] in ("pruned", "nothing")
    world.borg("check")
    assert world.archives() == [f"web-2026-10-0{day}T04:00:00" for day in (2, 3)]
    assert world.restored("live", (2, 3)) == LAST
    world.back_up("victim", 4)
    status, told = world.generation()
    assert (status, told["code"]) == (0, "new")
    assert world.restored(f"generations/{told['generation']}", (2, 3, 4)) == [*LAST, "as it was, victim, 4"]


@pytest.mark.parametrize(("verb", "delay"), KEEPER_KILLS if LONG else KEEPER_KILLS[1::2])
def test_a_keeper_killed_while_it_prunes(world, verb, delay):
    before = world.generations()[-1]
    kill = KILL.format(seen=f"'[b]org .*{verb}'", delay=delay, killed="'[i]nfini-backup-keeper run|[b]org --lock'")
    said = world.keeper.out(f"infini-backup-keeper run >/dev/null 2>&1 & {kill} wait; exit 0")
    assert "hit" in said or delay
    assert world.restored(f"generations/{before}") == ["as it was, victim, 1", *LAST]
    whole(world)


@pytest.mark.parametrize("verb", ["delete", "compact"])
def test_a_server_killed_while_the_keeper_prunes(world, verb):
    before = world.generations()[-1]
    world.keeper.out("systemctl start --no-block infini-backup-keeper.service")
    world.keeper.out(f"for _ in $(seq 600); do pgrep -f '[b]org .*{verb}' >/dev/null && break; sleep 0.05; done")
    world.store.run("pkill -9 -f '[b]org serve.*victim/live$'", check=False)
    world.keeper.run("timeout 120 systemctl start infini-backup-keeper.service", check=False)  # waits for its end
    assert world.restored(f"generations/{before}") == ["as it was, victim, 1", *LAST]
    whole(world)


@pytest.mark.parametrize("delay", [0, 0.05, 0.1] if LONG else [0.05])
def test_a_generation_killed_while_it_is_made(world, delay):
    world.back_up("victim", 4)
    before = world.generations()
    make = "'[i]nfini-backup-store generation'"
    kill = KILL.format(seen=make, delay=delay, killed=make)
    world.store.out(f"infini-backup-store generation victim >/dev/null 2>&1 & {kill} wait; exit 0")
    assert world.generations()[:1] == before
    status, told = world.generation()
    assert status == 0
    assert world.restored(f"generations/{told['generation']}", (1, 2, 3, 4))[-1] == "as it was, victim, 4"
    assert ".new" not in world.store.out("ls -A /srv/backups/victim/generations")


def test_a_generation_while_a_client_backs_up_is_the_last_whole_backup(world):
    slow = world.environment("victim") + "(echo begin; sleep 8) | borg create ::web-2026-10-04T04:00:00 - & sleep 3"
    world.host.out(slow + "; exit 0")
    world.borg("create --lock-wait 60 ::web-2026-10-05T04:00:00 data")
    world.back_up("victim", 6)
    status, told = world.generation()
    assert (status, told["code"]) == (0, "new")
    assert world.restored(f"generations/{told['generation']}", (6,)) == ["as it was, victim, 6"]


def test_a_store_whose_disk_is_full_says_so_and_loses_nothing(world):
    """The clients share the store's disk; here one has a small one of its own."""
    world.store.out(
        "cd /srv/backups; mv victim aside; mkdir victim; mount -t tmpfs -o size=9m tmpfs victim;"
        " chmod 755 victim; cp -a aside/. victim; rm -rf aside"
    )
    world.back_up("victim", 4)
    done = world.borg("create ::flood - < <(head -c 20M /dev/urandom)", check=False)
    assert done.returncode != 0
    assert "No space left" in done.stdout + done.stderr
    assert world.restored("live", (2, 3, 4)) == [*LAST, "as it was, victim, 4"]
    world.store.run("head -c 20m /dev/zero >/srv/backups/victim/filler", check=False)
    status, told = world.generation()
    assert (status, told["code"]) == (1, "failed")
    assert "No space left" in told["error"]
    assert "victim failed" in world.store.run("infini-backup-store check", check=False).stdout
    world.back_up("neighbour", 2)
    world.store.out("rm /srv/backups/victim/filler; mount -o remount,size=1g /srv/backups/victim")
    status, told = world.generation()
    assert (status, told["code"]) == (0, "new")
    assert world.keep()[1]["code"] == "pruned"
    world.borg("check")
    for place in ("live", f"generations/{told['generation']}"):
        assert world.restored(place, (3, 4)) == [LAST[1], "as it was, victim, 4"]
