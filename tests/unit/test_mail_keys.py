# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of DKIM keys: what may sign and when, what stays published, and a run that is killed anywhere."""

from __future__ import annotations

import contextlib
import grp
import importlib.machinery
import importlib.util
import json
import os
import sys
from pathlib import Path

import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.domains.dns_server import Authority, gives, rrset, says, serving, silent

from hosting import mail_keys, mail_keys_command, mail_keys_door, mail_records
from hosting.mail_keys import KEPT, PUBLISHED, SEEN, SIGNS, WITHDRAWN, Key, Sight, begin, sight, step
from infini.domains.zone import Zone

DAYS = 14
DAY = 86400
HERE, GONE, DUMB = Sight(shows=["ns1", "ns2"], ttl=300), Sight(lacks=["ns1", "ns2"]), Sight(silent=["ns2"])
HALF = Sight(shows=["ns1"], lacks=["ns2"], ttl=300)
OLD, NEW = Key("infini1", SIGNS, 0.0), Key("infini2", PUBLISHED, 100.0)
SAID = {"policy": {"host": "mx.test", "spf": "s", "dmarc": "d", "ttl": 300}, "selector": "infini1", "days": DAYS}
TEXT = "v=DKIM1; k=rsa; p=abc"
DOOR = Path(__file__).parents[2] / "roles/mail/tree/usr/local/lib/infini-mail/keys"


def stepped(keys, seen, now, oldest=float("inf")):
    return step(keys, lambda _selector: seen, now, DAYS, lambda: oldest)


def states(keys):
    return {key.selector: key.state for key in keys}


# --- the thinking ---------------------------------------------------------------------------------------------------


def test_a_key_passes_through_its_whole_life():
    keys = begin((OLD,), "infini1", 100.0)
    assert states(keys) == {"infini1": SIGNS, "infini2": PUBLISHED}
    keys = stepped(keys, GONE, 150.0)
    assert keys[1].reason == "not shown by ns1, ns2"
    assert mail_keys.signing(keys) == "infini1"
    keys = stepped(keys, HERE, 200.0)
    assert states(keys) == {"infini1": SIGNS, "infini2": SEEN}
    assert states(stepped(keys, HERE, 499.0)) == {"infini1": SIGNS, "infini2": SEEN}, "old answers last for the TTL"
    keys = stepped(keys, HERE, 500.0)
    assert states(keys) == {"infini1": KEPT, "infini2": SIGNS}
    assert mail_keys.published(keys) == ["infini1", "infini2"]
    assert states(stepped(keys, HERE, 500 + DAYS * DAY - 1)) == {"infini1": KEPT, "infini2": SIGNS}
    keys = stepped(keys, HERE, 500 + DAYS * DAY)
    assert states(keys) == {"infini1": WITHDRAWN, "infini2": SIGNS}
    assert mail_keys.published(keys) == ["infini2"]
    keys = stepped(keys, HERE, 600 + DAYS * DAY)
    assert keys[0].reason == "still shown by ns1, ns2"
    assert stepped(keys, GONE, 700 + DAYS * DAY) == (Key("infini2", SIGNS, 500.0),)


@pytest.mark.parametrize("seen", [HALF, DUMB, Sight(shows=["ns1"], silent=["ns2"], ttl=300), Sight()])
def test_a_key_that_not_every_server_shows_does_not_sign(seen):
    for state in (PUBLISHED, SEEN):
        after = stepped((OLD, Key("infini2", state, 100.0)), seen, 10**9)
        assert mail_keys.signing(after) == "infini1"
        assert after[1].reason


def test_a_key_that_is_gone_again_begins_anew_and_a_silence_only_waits():
    seen = Key("infini2", SEEN, 200.0, 300)
    assert stepped((OLD, seen), HALF, 400.0)[1].state == PUBLISHED
    assert stepped((OLD, seen), DUMB, 400.0)[1] == Key("infini2", SEEN, 200.0, 300, "no answer from ns2")


def test_a_longer_ttl_that_is_seen_later_is_waited_for():
    first = stepped((OLD, NEW), Sight(shows=["resolver"], ttl=20), 200.0)
    later = stepped(first, Sight(shows=["resolver"], ttl=3600), 230.0)
    assert states(later)["infini2"] == SEEN
    assert states(stepped(later, HERE, 3799.0))["infini2"] == SEEN
    assert states(stepped(later, HERE, 3800.0))["infini2"] == SIGNS


def test_a_key_whose_mail_waits_in_our_queue_is_not_withdrawn():
    keys = (Key("infini1", KEPT, 500.0), Key("infini2", SIGNS, 500.0))
    late = 500 + DAYS * DAY
    assert "may still be in our queue" in stepped(keys, HERE, late, oldest=499.0)[0].reason
    assert stepped(keys, HERE, late, oldest=501.0)[0].state == WITHDRAWN


def test_two_rotations_at_once_are_one():
    keys = begin((OLD,), "infini1", 100.0)
    assert begin(keys, "infini1", 200.0) == keys


@pytest.mark.parametrize(
    ("had", "name", "new"),
    [
        (["infini1"], "infini1", "infini2"),
        (["infini2"], "infini1", "infini3"),
        (["infini9", "infini10"], "infini1", "infini11"),
        (["dkim"], "dkim", "dkim2"),
        (["infini1"], "s2027", "s2027"),
        (["s2027"], "s2027", "s2028"),
    ],
)
def test_selectors_count_on(had, name, new):
    assert begin([Key(one, KEPT) for one in had], name, 0.0)[-1].selector == new


@given(st.lists(st.tuples(st.sampled_from([HERE, GONE, HALF, DUMB]), st.integers(0, 30 * DAY), st.booleans())))
def test_whatever_the_dns_does_one_key_signs_and_was_seen_by_all_for_as_long_as_it_must(events):
    keys, now, good = (OLD,), 0.0, {}
    for seen, seconds, rotated in events:
        now += seconds
        if rotated:
            keys = begin(keys, "infini1", now)
        before, keys = keys, stepped(keys, seen, now)
        assert [key.state for key in keys].count(SIGNS) == 1
        if mail_keys.signing(keys) != mail_keys.signing(before):
            assert seen == HERE
            assert now - good[mail_keys.signing(keys)] >= HERE.ttl
        for selector in {key.selector for key in before} - {key.selector for key in keys}:
            assert states(before)[selector] == WITHDRAWN, "nothing goes that was not withdrawn before"
        for key in keys:  # since when all servers have shown it without a break
            if seen != HERE and seen.lacks:
                good.pop(key.selector, None)
            elif seen == HERE:
                good.setdefault(key.selector, now)


@pytest.mark.parametrize(
    ("answers", "key", "expected"),
    [
        ({"ns1": [([TEXT], 60)], "ns2": [(["v=DKIM1;p=a b c;t=s"], 90)]}, TEXT, (["ns1", "ns2"], [], [], 90)),
        ({"ns1": [([TEXT], 60), (None, 0)]}, TEXT, (["ns1"], [], [], 60)),
        ({"ns1": [([TEXT], 60), ([], 0)]}, TEXT, ([], ["ns1"], [], 60)),
        ({"ns1": [([TEXT.replace("abc", "abd")], 60)]}, TEXT, ([], ["ns1"], [], 60)),
        ({"ns1": [([TEXT, TEXT], 60)]}, TEXT, ([], ["ns1"], [], 60)),  # two records are none to who verifies
        ({"ns1": [(None, 0)], "ns2": []}, TEXT, ([], [], ["ns1", "ns2"], 0)),
        ({"ns1": [([], 0), (["whatever"], 60)]}, "", (["ns1"], [], [], 60)),
        ({"ns1": [([], 0)]}, "", ([], ["ns1"], [], 0)),
    ],
)
def test_what_servers_answer_is_judged(answers, key, expected):
    found = sight(answers, key)
    assert (found.shows, found.lacks, found.silent, found.ttl) == expected


# --- on a host ------------------------------------------------------------------------------------------------------


class World:
    """A mail host in a folder, its Rspamd, and the DNS of its domains."""

    def __init__(self, folder: Path) -> None:
        self.place = mail_keys_door.Place(folder / "mail", grp.getgrgid(os.getgid()).gr_name)
        self.place.folder.mkdir(parents=True)
        self.folder, self.shown, self.now = folder, {}, 1000.0
        ring = mail_keys_door.known({}, ["velo.test", "mx.test"], "infini1", 0.0)
        mail_keys_door.make(self.place, mail_keys_door.missing(self.place, ring, ["velo.test", "mx.test"]))
        mail_keys_door.save(self.place, ring)

    def host(self):
        return mail_keys_command.Host(self.place, self.look, SAID, ["mx.test", "velo.test"])

    def look(self, name, key):
        text = self.shown.get(name)
        return sight({"ns1": [([text] if text else [], 300)]}, key)

    def publish(self):
        """Show what the records say, as who owns the domain would."""
        lines = [line for line in self.place.records.read_text().splitlines() if "._domainkey." in line]
        pairs = (line.split(". 300 TXT ") for line in lines)
        self.shown = {name: text.strip('"').replace('" "', "") for name, text in pairs}

    def signs(self, domain="velo.test"):
        lines = self.place.map.read_text().splitlines()
        return dict(line.split() for line in lines)[domain]

    def files(self):
        return sorted(path.name for path in self.place.folder.glob("velo.test.*.key"))

    def selectors(self):
        """What the records say of the domain's keys."""
        lines = self.place.records.read_text().splitlines()
        return [line.partition(".")[0] for line in lines if "._domainkey.velo.test." in line]

    def reloads(self):
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def world(tmp_path, monkeypatch):
    programs = {
        "systemctl": f'test "$1" != is-active || exit 0; echo "$*" >>{tmp_path}/log; test ! -e {tmp_path}/broken',
        "postqueue": f"cat {tmp_path}/queue",
    }
    (tmp_path / "bin").mkdir()
    (tmp_path / "queue").touch()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(mail_records, "BITS", "1024")
    return World(tmp_path)


def test_a_rotation_on_a_host(world):
    assert world.host().rotate(["velo.test"], 1000.0) == [
        "velo.test: infini2 is made: publish it (infini-mail records velo.test)"
    ]
    assert "is under way already" in world.host().rotate(["velo.test"], 1000.0)[0]
    assert world.selectors() == ["infini1", "infini2"]
    assert (world.signs(), world.signs("mx.test")) == ("infini1", "infini1")
    assert world.host().step(1100.0) == []
    world.publish()
    assert "infini2 is in the DNS" in world.host().step(1200.0)[0]
    assert (world.signs(), world.reloads()) == ("infini1", [])
    assert len(world.host().step(1500.0)) == 2
    assert (world.signs(), world.signs("mx.test")) == ("infini2", "infini1")
    assert world.reloads() == ["reload rspamd.service"]
    assert world.selectors() == ["infini1", "infini2"]
    (world.folder / "queue").write_text(json.dumps({"arrival_time": 1499, "queue_name": "hold"}) + "\n")
    late = 1500.0 + DAYS * DAY
    world.host().step(late)
    assert world.selectors() == ["infini1", "infini2"]
    (world.folder / "queue").write_text("")
    world.host().step(late)
    assert (world.selectors(), world.files()) == (["infini2"], ["velo.test.infini2.key"])
    world.host().step(late + 1)
    assert "still shown" in "".join(world.host().lines())
    world.publish()
    world.host().step(late + 2)
    [line] = [line for line in world.host().lines() if line.startswith("velo.test: ")]
    assert line.startswith("velo.test: infini2 signs, since ")
    assert len(world.reloads()) == 1


def test_rspamd_that_could_not_be_reloaded_is_told_again_and_nothing_is_written_down_before(world):
    world.host().rotate(["velo.test"], 1000.0)
    world.publish()
    world.host().step(1200.0)
    (world.folder / "broken").touch()
    with pytest.raises(mail_keys_command.subprocess.CalledProcessError):
        world.host().step(1500.0)
    assert mail_keys.signing(world.host().ring["velo.test"]) == "infini1"
    (world.folder / "broken").unlink()
    world.host().step(1600.0)
    assert world.reloads() == ["reload rspamd.service"] * 2
    assert {key.since for key in world.host().ring["velo.test"]} == {1600.0}


def test_a_key_that_does_not_go_on_is_a_finding_after_a_week(world):
    world.host().rotate(["velo.test"], 1000.0)
    world.host().step(1100.0)
    assert world.host().late(1000.0 + 7 * DAY) == []
    [said] = world.host().late(1001.0 + 7 * DAY)
    assert said.startswith("velo.test: infini2 waits until the DNS shows it")
    assert "not shown by ns1. What the DNS must show: infini-mail records velo.test" in said


def test_a_key_that_is_not_here_stops_everything_and_is_named(world):
    (world.place.folder / "velo.test.infini1.key").unlink()
    for action in (world.host().lines, lambda: world.host().step(0.0), lambda: world.host().rotate(["mx.test"], 0.0)):
        with pytest.raises(mail_keys_door.KeysError, match=r"Mail of velo\.test is not signed"):
            action()


def test_what_each_key_is_for_is_not_guessed_when_it_cannot_be_read(world):
    world.place.ring.write_text("{")
    with pytest.raises(mail_keys_door.KeysError, match="restore"):
        world.host()


POINTS = [(mail_records, "write"), (mail_records, "remove_key"), (mail_keys_command.subprocess, "run")]


class Killed(BaseException):
    """The machine stops here."""


def mortal(function, left, after):
    """Return a function that is killed once, before or after its work, when so many calls of all have passed."""

    def call(*words, **options):
        left[0] -= 1
        if left[0] == -1 and not after:
            raise Killed
        result = function(*words, **options)
        if left[0] == -1:
            raise Killed
        return result

    return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("count", range(14))
def test_a_run_that_is_killed_anywhere_is_gone_on_with(world, monkeypatch, count, after):
    """Before or after each file is written, each program run; meanwhile nothing signs that the DNS does not show."""
    left = [count]
    for module, name in POINTS:
        monkeypatch.setattr(module, name, mortal(getattr(module, name), left, after))
    acts = [
        lambda host: host.rotate(["velo.test"], 1000.0),
        lambda host: host.step(1200.0),
        lambda host: host.step(1500.0),
        lambda host: host.step(1500.0 + DAYS * DAY),
        lambda host: host.step(1501.0 + DAYS * DAY),
    ]
    for act in acts:
        for _again in range(2):
            with contextlib.suppress(Killed):
                act(world.host())
            if world.place.map.exists() and world.place.records.exists():
                assert world.signs() in world.selectors(), "it signs by a key that the records do not say"
                assert f"velo.test.{world.signs()}.key" in world.files()
                assert world.signs() == "infini1" or f"{world.signs()}._domainkey.velo.test" in world.shown
        world.publish()
    assert left[0] < 0, "no kill: this proves nothing"
    assert states(world.host().ring["velo.test"]) == {"infini2": SIGNS}
    assert (world.selectors(), world.signs(), world.files()) == (["infini2"], "infini2", ["velo.test.infini2.key"])
    assert "reload rspamd.service" in world.reloads()


# --- the command and the door ---------------------------------------------------------------------------------------


@pytest.fixture
def command(world, tmp_path, monkeypatch, capsys):
    """The command on that host: words -> status and what it says."""
    (tmp_path / "domains").write_text("mx.test OK\nvelo.test OK\n")
    (tmp_path / "keys.json").write_text(json.dumps({**SAID, "nameservers": ["192.0.2.53"]}))
    monkeypatch.setattr(mail_keys_command, "CONFIG", tmp_path / "keys.json")
    monkeypatch.setattr(mail_keys_command, "DOMAINS", tmp_path / "domains")
    monkeypatch.setattr(mail_keys_command, "STATE", world.place.state)
    monkeypatch.setattr(mail_keys_command, "GROUP", world.place.signer)

    def call(*words):
        asked = []
        status = mail_keys_command.main(words, lambda servers: asked.append(servers) or world.look)
        assert asked in ([], [["192.0.2.53"]])
        out = capsys.readouterr()
        return status, out.out + out.err

    return call


def test_the_command_says_where_each_domain_stands(command, world):
    status, said = command("keys")
    assert status == 0
    assert said.startswith("mx.test: infini1 signs, since 1970-01-01")
    assert command("rotate", "velo.test")[0] == 0
    assert "velo.test: infini2 waits until the DNS shows it, since " in command("keys")[1]
    assert command("rotate", "--all")[1].splitlines() == [
        "mx.test: infini2 is made: publish it (infini-mail records mx.test)",
        "velo.test: infini2 is under way already (infini-mail records velo.test)",
    ]
    world.publish()
    assert "infini2 is in the DNS" in command("step")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rotate"], "Name the domains, or --all."),
        (["rotate", "--all", "velo.test"], "Name the domains, or --all."),
        (["rotate", "velo.test", "vélo.test"], "No mail is received here for vélo.test: name domains"),
    ],
)
def test_what_cannot_be_rotated_is_said_and_nothing_begins(command, world, words, said):
    status, text = command(*words)
    assert (status, text.startswith(said)) == (2, True)
    assert states(world.host().ring["velo.test"]) == {"infini1": SIGNS}


def test_a_missing_key_is_a_finding_and_stops_what_would_go_on(command, world):
    (world.place.folder / "velo.test.infini1.key").unlink()
    assert command("keys")[0] == 1
    status, said = command("step")
    assert (status, "Mail of velo.test is not signed" in said) == (4, True)


@pytest.fixture(scope="module")
def servers():
    """The class that asks name servers, out of the program as it stands on a host."""
    loader = importlib.machinery.SourceFileLoader("infini_mail_keys", str(DOOR))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)  # nothing may be left beside it in the role's tree
        patch.syspath_prepend("")
        loader.exec_module(module)
    module.SECONDS, module.TRIES = 1, 1
    return module.Servers


@pytest.mark.parametrize("named", [True, False])
def test_every_server_is_asked_by_the_dns_itself(servers, monkeypatch, named):
    name, long = "infini2._domainkey.velo.test", f"v=DKIM1; k=rsa; p={'a' * 400}"
    quoted = f'"{long[:255]}" "{long[255:]}"'
    ones = {address: Authority(Zone("velo.test", {})) for address in ("127.0.0.1", "127.0.0.2")}
    names = {f"ns{number}.velo.test": [address] for number, address in enumerate(ones, 1)}
    monkeypatch.setattr(servers, "of", lambda _self, domain: names if domain == "velo.test" else {})
    first, second = ones if named else names
    with serving(ones) as port:
        look = servers(list(ones) if named else [], port)
        assert look(name, long) == Sight(lacks=[first, second], shows=[], silent=[])
        ones["127.0.0.1"].put("infini2._domainkey", "TXT", 300, quoted)
        assert look(name, long) == Sight(shows=[first], lacks=[second], silent=[], ttl=300)
        ones["127.0.0.2"].lie("infini2._domainkey", "TXT", silent)
        assert look(name, long) == Sight(shows=[first], lacks=[], silent=[second], ttl=300)
        ones["127.0.0.2"].lie("infini2._domainkey", "TXT", gives(rrset(name, 60, "TXT", quoted), authoritative=False))
        assert look(name, long).everywhere == named, "a server that is not the zone's own does not know"
        ones["127.0.0.2"].lie("infini2._domainkey", "TXT", says(dns.rcode.SERVFAIL))
        assert look(name, long).silent == [second]
        assert look(name, "").shows == [first]
