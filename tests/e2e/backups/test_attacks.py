# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client in an attacker's hands: root, its SSH key and its passphrase. What was there before must still restore."""

import pytest
from stores import CLIENTS, HERE

BEFORE = [f"as it was, victim, {day}" for day in (1, 2, 3)]
# What speaks Borg's protocol itself, with Borg's own library; `repository` is open for writing.
BY_HAND = """
python3 - <<'END'
import argparse, os
from borg.helpers import Location
from borg.logger import setup_logging
from borg.remote import RemoteRepository
setup_logging()
class Arguments(argparse.Namespace):
    def __getattr__(self, name):
        return {"remote_path": "borg", "debug_topics": []}.get(name, 0 if name.startswith("u") else None)
where = Location(os.environ["BORG_REPO"])
with RemoteRepository(where, exclusive=True, append_only=False, args=Arguments()) as repository:
    for id in repository.list():
        if id != bytes(32):
            ACT
    repository.commit(compact=True)
END
"""
ATTACKS = {
    "deletes every archive": "borg delete --glob-archives '*'; borg compact --threshold 0",
    "prunes": "borg prune --keep-last 1; borg compact --threshold 0",
    "deletes the repository": "borg delete",
    "takes append-only away": "borg config append_only 0; borg delete --glob-archives '*'; borg compact --threshold 0",
    "changes the passphrase": "BORG_NEW_PASSPHRASE=stolen borg key change-passphrase",
    "repairs": "borg delete --glob-archives '*'; borg check --repair",
    "renames": "borg rename ::web-2026-10-03T04:00:00 gone",
    "dates archives in the future": "borg create --timestamp 2030-01-01T00:00:00 ::web-2030-01-01T00:00:00 data",
    "dates archives in the past": "borg create --timestamp 2026-10-02T22:00:00 ::web-2026-10-02T22:00:00 data",
    "floods": "for n in 1 2 3 4 5 6; do borg create ::web-2026-10-04T04:00:0$n /etc/hostname; done",
    "deletes contents, not archives": BY_HAND.replace("ACT", "repository.delete(id)"),
    "breaks the list of archives": BY_HAND.replace("ACT", "repository.put(bytes(32), b'nothing')"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_after_an_attack_all_of_before_restores_and_nothing_is_pruned(world, attack):
    before, segments = world.generations()[-1], world.segments()
    done = world.host.run(world.environment("victim") + ATTACKS[attack], check=False)
    said = done.stdout + done.stderr
    assert segments <= world.segments(), said
    # Whatever the store copies now does not take the place of what it had.
    world.generation()
    assert world.restored(f"generations/{before}") == BEFORE, said

    status, answer = world.keep()
    if status == 0:
        # Refused at the door: the repository is as it was, and the keeper does its work.
        assert answer["code"] == "pruned", (answer, said)
        assert world.restored("live", (2, 3)) == BEFORE[1:], said
        assert attack == "deletes the repository", said
    else:
        assert answer["code"] in ("refused", "borg"), (answer, said)
        check = world.keeper.run("infini-backup-keeper check", check=False)
        assert check.returncode == 1
        assert "victim@store" in check.stdout


def test_what_an_attacker_overwrites_comes_back_from_a_generation(world):
    """The list is whole and every object is there, with other contents: only a restore shows it."""
    before = world.generations()[-1]
    world.host.out(world.environment("victim") + BY_HAND.replace("ACT", "repository.put(id, b'x' * 40)"))
    assert world.restored("live", (3,)) == []
    assert world.restored(f"generations/{before}") == BEFORE


def test_a_client_fills_its_quota_and_nothing_else(world):
    before = world.generations()[-1]
    done = world.borg("create ::flood - < <(head -c 80M /dev/urandom)", check=False)
    assert done.returncode != 0
    assert "quota" in (done.stdout + done.stderr).lower()
    assert world.restored(f"generations/{before}") == BEFORE
    assert world.restored("live") == BEFORE
    # A neighbour notices nothing.
    world.back_up("neighbour", 2)
    assert world.restored("live", (2,), "neighbour") == ["as it was, neighbour, 2"]
    world.back_up("victim", 4)
    assert world.restored("live", (4,)) == ["as it was, victim, 4"]


DOORS = {
    "a shell": "ssh {ssh} {user} id | grep uid=",
    "a terminal": "ssh -tt {ssh} {user}",
    "SFTP": "echo 'get /srv/backups/neighbour/live/config stolen' | sftp -b - {ssh} {user}",
    "SCP": "scp -O {ssh} {user}:/srv/backups/neighbour/live/config stolen",
    "a forwarded port": "timeout 5 ssh -N -o ExitOnForwardFailure=yes -L 9922:127.0.0.1:22 {ssh} {user} & sleep 2;"
    " timeout 2 bash -c 'head -c 3 </dev/tcp/127.0.0.1/9922' | grep SSH",
    "a port of the store's": "timeout 5 ssh -N -o ExitOnForwardFailure=yes -R 9922:127.0.0.1:22 {ssh} {user}",
    "another repository": "borg list {base}/neighbour/live",
    "another one, by its parent": "borg list {base}/victim/live/../../neighbour/live",
    "a generation": "borg list {base}/victim/generations/{generation}",
    "a repository beside": "borg init -e none {base}/victim/live2",
    "a repository inside": "borg init -e none {base}/victim/live/inside",
    "a wider path of its own": "borg --remote-path 'borg serve --restrict-to-repository /srv/backups/neighbour/live'"
    " list {base}/neighbour/live",
    "the reader's key is not its own": "ssh {ssh} backup-reader@{fqdn} id",
    "the keeper's lock": "ssh {ssh} {user} flock /srv/backups/victim/keeper.lock sleep 60",
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_leads_elsewhere(world, door):
    words = DOORS[door].format(
        ssh=f"-i {HERE}/victim -o UserKnownHostsFile={HERE}/known_hosts -o BatchMode=yes",
        user=f"backup-victim@{world.fqdn}",
        fqdn=world.fqdn,
        base=f"ssh://backup-victim@{world.fqdn}/srv/backups",
        generation=world.generations()[-1],
    )
    done = world.host.run(f"{world.environment('victim')}export BORG_PASSPHRASE=''\n{words}", check=False)
    assert done.returncode != 0, done.stdout
    assert "uid=" not in done.stdout
    assert "stolen" not in world.host.out(f"ls {HERE}")
    assert set(world.store.out("ls /srv/backups/victim").split()) == {"generations", "keeper.lock", "live"}


def test_the_read_door_reads_every_client_and_writes_nothing(world):
    for client in CLIENTS:
        assert world.restored("live", (1,), client) == [f"as it was, {client}, 1"]
        path = world.repository(client, "live", "backup-reader")
        prelude = world.environment(client, "reader", path)
        for words in ("delete", "create ::x /etc/hostname", "--bypass-lock create ::x /etc/hostname", "compact"):
            assert world.host.run(f"{prelude}borg {words}", check=False).returncode != 0
    assert world.archives() == [f"web-2026-10-0{day}T04:00:00" for day in (1, 2, 3)]


def test_not_even_a_shell_as_the_client_changes_a_generation(world):
    """A hole in Borg's server would give a shell as the client's user: it may spoil the repository, not its copies."""
    before = world.generations()[-1]
    spoil = "cd /srv/backups; find victim -type f -exec sh -c 'echo spoilt >{}' ';'; rm -rf victim/*"
    done = world.store.run(f"runuser -u backup-victim -- sh -c {spoil!r}", check=False)
    assert "Permission denied" in done.stderr
    assert "initial working directory" not in done.stderr
    assert world.store.out("ls -A /srv/backups/victim/live") == ""
    status, told = world.generation()
    assert (status, told["code"]) == (1, "emptied")
    assert world.generations() == [before]
    assert world.restored(f"generations/{before}") == BEFORE
    # What it leaves in wait for root's copy leads nowhere.
    lure = "cd /srv/backups/victim/live; ln -s /etc data; ln -s /etc/shadow config; touch index.1 hints.1 integrity.1"
    world.store.out(f"runuser -u backup-victim -- sh -c '{lure}'")
    assert world.generation()[0] == 1
    assert world.generations() == [before]


def test_a_changed_key_is_said_until_a_person_accepts_it(world):
    world.host.out(world.environment("victim") + "BORG_NEW_PASSPHRASE=stolen borg key change-passphrase")
    world.generation()
    check = world.store.run("infini-backup-store check", check=False)
    assert (check.returncode, "victim key_changed" in check.stdout) == (1, True)
    world.generation()
    assert "victim key_changed" in world.store.run("infini-backup-store check", check=False).stdout
    world.store.out("infini-backup-store accept victim")
    world.generation()
    assert "key_changed" not in world.store.run("infini-backup-store check", check=False).stdout


def test_what_the_keeper_refused_stays_refused_until_a_person_accepts_it(world):
    world.borg("create --timestamp 2026-10-02T22:00:00 ::web-2026-10-02T22:00:00 data")
    assert [found["code"] for found in world.keep()[1]["found"]] == ["backdated"]
    world.borg("delete ::web-2026-10-02T22:00:00")
    assert [found["code"] for found in world.keep()[1]["found"]] == ["backdated"]
    assert world.archives() == [f"web-2026-10-0{day}T04:00:00" for day in (1, 2, 3)]
    world.keeper.out("infini-backup-keeper accept victim")
    assert world.keep()[1]["code"] == "pruned"


def test_the_keeper_deletes_only_after_a_green_drill_and_only_what_is_old(world):
    world.drill(ok=False)
    assert world.keep() == (0, {"code": "drill_red", "waiting": 1})
    world.drill()
    assert world.keep() == (0, {"code": "pruned", "pruned": ["web-2026-10-01T04:00:00"]})
    assert world.archives() == [f"web-2026-10-0{day}T04:00:00" for day in (2, 3)]
    assert world.keep() == (0, {"code": "nothing"})
    # A log that somebody wrote in allows nothing.
    world.back_up("victim", 4)
    world.keeper.out("sed -i 's/false/true/' /var/lib/infini-backup-keeper/drills.jsonl")
    assert world.keep() == (1, {"code": "chain_broken", "waiting": 1})
    status, told = world.keeper.json("infini-backup-keeper verify")
    assert (status, told["broken"]) == (1, 2)


def test_a_generation_takes_the_place_of_a_repository_that_was_spoilt(world):
    before = world.generations()[-1]
    world.borg("delete --glob-archives '*'")
    assert world.archives() == []
    assert world.keep()[0] == 1
    status, answer = world.store.json(f"infini-backup-store revive victim {before}")
    assert (status, "aside" in answer) == (0, True)
    world.host.out(f"rm -rf {HERE}/base--victim")
    assert world.archives() == [f"web-2026-10-0{day}T04:00:00" for day in (1, 2, 3)]
    world.back_up("victim", 4)
    world.keeper.out("infini-backup-keeper accept victim")
    assert world.keep()[1]["code"] == "pruned"
    assert world.restored("live", (4,)) == ["as it was, victim, 4"]
