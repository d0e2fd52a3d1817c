# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rehearsal: every archetype ends as it says, with and without faults, and what goes wrong is counted."""

import dataclasses
import json
import os
from datetime import timedelta

import pytest

from infini.domains import archetypes, rehearse
from infini.domains.archetypes import load
from infini.domains.events import Event
from infini.domains.rehearsal import Rehearsal, WorldDns, _compared
from infini.domains.rehearse import Fleet, Interlude, People, let_others_act, summary
from infini.domains.simulator.world import GANDI_NAMESERVERS, OUR_NAMESERVERS
from infini.domains.states import State
from infini.domains.zone import Rrset, Zone
from infini.errors import RefusedError

ALL = len(archetypes.names())
SEEDS = range(1, 21 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 3)


def zone(**ttls):
    return Zone.of("a.test", [Rrset(name, "A", ttl, ("192.0.2.1",)) for name, ttl in ttls.items()])


@pytest.mark.parametrize(("seed", "faults"), [(0, False), *((seed, True) for seed in SEEDS)])
def test_every_archetype_ends_as_it_says(seed, faults):
    answer = rehearse.rehearse(ALL, seed, faults)
    assert answer["mismatched"] == []
    assert answer["ok"], answer
    ends = [load(name).end for name in archetypes.names()]
    assert answer["done"] == ends.count("DONE")
    assert answer["blocked"] == {end: ends.count(end) for end in sorted(set(ends) - {"DONE"})}
    assert (answer["unaccounted"], answer["illegal_transitions"], answer["deletes_on_records"]) == (0, 0, 0)
    assert 0 < answer["rate"] <= 5
    assert (len(answer["faults"]) > 8) is faults
    json.dumps(answer)


def test_the_same_seed_gives_the_same_rehearsal(monkeypatch):
    monkeypatch.setattr(archetypes, "names", lambda: ["level_c", "auth_code_wrong"])
    first, second = (rehearse.rehearse(2, 3, True) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    fleet = Fleet(Rehearsal([load("caa_other")], tmp_path_factory.mktemp("moved")))
    fleet.run()
    assert summary(fleet)["ok"]
    return fleet


def test_another_end_than_foretold_is_told(moved):
    ending = moved.endings["autorite.test"]
    moved.endings["autorite.test"] = dataclasses.replace(ending, one=dataclasses.replace(ending.one, blocked="alias"))
    answer = summary(moved)
    moved.endings["autorite.test"] = ending
    assert not answer["ok"]
    assert (answer["mismatched"][0]["expected"], answer["mismatched"][0]["got"]) == ("alias", "DONE")


def test_a_record_that_nobody_serves_is_told(moved):
    world = moved.rehearsal.world
    served = world.new_zone("autorite.test")
    lost = {key: rrset for key, rrset in served.rrsets.items() if key != ("www", "CNAME")}
    world.publish(Zone("autorite.test", lost), ["ns1.infini.test", "ns2.infini.test"])
    answer = summary(moved)
    world.publish(served, ["ns1.infini.test", "ns2.infini.test"])
    assert (answer["unaccounted"], answer["lost"]) == (1, {"autorite.test": ["www/CNAME"]})


def test_a_record_that_no_plan_saw_is_told(moved):
    ending = moved.endings["autorite.test"]
    more = (*ending.one.records, {"rrset_name": "Oubli", "rrset_type": "TXT"})
    moved.endings["autorite.test"] = dataclasses.replace(ending, one=dataclasses.replace(ending.one, records=more))
    answer = summary(moved)
    moved.endings["autorite.test"] = ending
    assert answer["lost"] == {"autorite.test": ["oubli/TXT"]}


def test_an_illegal_step_and_a_leak_are_told(moved):
    store, world = moved.rehearsal.store, moved.rehearsal.world
    before = list(store.read("autorite.test"))
    at = moved.rehearsal.clock.now()
    store.append(Event(at, "autorite.test", "", "state", {"from": State.DONE, "to": State.EXPORTED}))
    store.keep("autorite.test", "leak.txt", f"vu : {min(world.secrets())}")
    answer = summary(moved)
    store.read("autorite.test")[:] = before
    (store.folder / "autorite.test" / "leak.txt").unlink()
    assert answer["illegal_transitions"] == 1
    assert answer["leaks"] == ["events/autorite.test/leak.txt"]


def test_people_leave_what_they_cannot_mend(tmp_path):
    rehearsal = Rehearsal([load("parking")], tmp_path)
    people = People(rehearsal)
    with rehearsal.at("attente.test") as move:
        step = dataclasses.replace(
            move.advance(), verdict=dataclasses.replace(move.advance().verdict, side=State.BLOCKED, code="odd")
        )
        took = [people.react(rehearsal.cast["attente.test"], move, step) for _ in range(rehearse.PATIENCE + 1)]
    assert took[:-1] == [timedelta(hours=1)] * rehearse.PATIENCE
    assert took[-1] is None


@pytest.mark.parametrize("name", ["webredirs", "signed", "broken_txt_waived"])
def test_the_answers_of_a_simulated_comparison_add_up(tmp_path, name):
    fleet = Fleet(Rehearsal([load(name)], tmp_path))
    fleet.run()
    (domain,) = fleet.rehearsal.cast
    compared = [event.data for event in fleet.rehearsal.store.read(domain) if event.kind == "parity"]
    assert compared
    for data in compared:
        answers = data["identical"] + sum(data["expected"].values()) + data["unexpected_count"]
        asked = len(GANDI_NAMESERVERS) + len(OUR_NAMESERVERS)
        assert data["queries"] * len(OUR_NAMESERVERS) == answers * asked, "each answer of a server of ours counts once"


@pytest.mark.parametrize(
    ("live", "ours", "unexpected"),
    [
        (zone(www=300), zone(www=10800), 0),
        (zone(www=10800), zone(www=10800), 0),
        (zone(www=10801), zone(www=10800), 1),
        (zone(), zone(www=10800), 1),
        (zone(www=300), zone(), 1),
        (zone(www=300), zone(www=10800, more=300), 1),
        (zone(www=300, more=300), zone(www=10800), 1),
    ],
)
def test_the_simulated_comparison_sees_what_differs(live, ours, unexpected):
    assert len(_compared(zone(www=10800), zone(www=10800), live, ours)[3]) == unexpected


def test_the_simulated_dns_says_who_answers(tmp_path):
    dns = WorldDns(Rehearsal([load("signed")], tmp_path).world)
    old, new = dns.servers("signe.test", ["ns-111-a.gandi.net", "ns1.infini.test"], [Rrset("@", "A", 1, ())])
    assert (old.authoritative, old.signed, old.ttls) == (True, True, {"@/A": 10800})
    assert "REFUSED" in new.error
    assert dns.delegation("signe.test").ds
    silent = dns.parity(zone(), zone(), ["ns-111-a.gandi.net"], ["ns1.infini.test"], "x")
    assert not silent.ok


def play(folder, name, stop=State.DONE, turns=80):
    """Play the volunteer as the page tells, a command after the other; return the states seen."""
    seen = []
    for _ in range(turns):
        going = Rehearsal.resume(folder)
        with going.at(name) as move:
            step = move.run_until_blocked()
            rehearse.board.look(move, step)
            seen.append(step.state)
            if step.state == stop:
                return seen
            day = {"date": "2026-03-02", "payer": "association"}
            for code, kind, data in (
                ("mail-mode-missing", "mail-mode", {"mode": going.cast[name].decisions.mail}),
                ("consent-missing", "consent", day),
                ("services-unchecked", "services-checked", {}),
                ("price-unconfirmed", "price", {"euros": "15"}),
            ):
                if step.code == code:
                    move.decide(kind, data)
        if step.waiting_until or step.code == "by-hand":
            again = Rehearsal.resume(folder)
            let_others_act(again)
            if step.verdict.action == "hold-code":
                again.hand_over_code(name)
    raise AssertionError(seen)


@pytest.mark.parametrize("name", ["parking", "level_c"])
def test_a_rehearsal_by_hand_goes_on_from_command_to_command(tmp_path, name):
    folder = tmp_path / "essai"
    begun = Rehearsal.begin(folder, [name])
    domain = next(iter(begun.cast))
    play(folder, domain)
    ended = Rehearsal.resume(folder)
    assert ended.world.registration(domain).registrar != "GANDI SAS"
    assert ended.world.harms == []
    assert len(ended.world.orders) == 1
    assert let_others_act(ended) == Interlude()


def acts(folder, name):
    """Let the volunteer look, then the others act; return what came of it and how far the move is."""
    with Rehearsal.resume(folder).at(name) as move:
        step = move.run_until_blocked()
        rehearse.board.look(move, step)
    return let_others_act(Rehearsal.resume(folder)), step


def test_a_step_jumps_to_the_next_thing_that_happens(tmp_path):
    folder, name = tmp_path / "essai", "attente.test"
    Rehearsal.begin(folder, ["parking"])
    play(folder, name, State.UNLOCK_REQUESTED)
    before = Rehearsal.resume(folder).clock.now()
    found, step = acts(folder, name)
    assert step.waiting_until < before + timedelta(hours=7), "the move itself would look every six hours"
    assert found.passed == timedelta(hours=72), "Gandi takes that long to unlock"
    assert [hint.words for hint in found.hints] == [("advance", name, "--apply")]
    with Rehearsal.resume(folder).at(name) as move:
        assert move.advance().state == State.UNLOCKED


def test_a_step_is_no_way_around_the_volunteer(tmp_path):
    folder, name = tmp_path / "essai", "attente.test"
    Rehearsal.begin(folder, ["parking"])
    found, step = acts(folder, name)
    assert step.code == "mail-mode-missing"
    assert found == Interlude()


def test_the_holder_answers_and_the_answer_is_ready_to_be_written_down(tmp_path):
    folder, name = tmp_path / "essai", "attente.test"
    Rehearsal.begin(folder, ["parking"])
    with Rehearsal.resume(folder).at(name) as move:
        move.decide("mail-mode", {"mode": "none"})
    found, step = acts(folder, name)
    assert step.code == "consent-missing"
    assert found.passed == timedelta()
    (hint,) = found.hints
    assert hint.words == ("decide", name, "consent", "by=Camille", "date=2026-03-02", "payer=association")


def test_boxes_are_copied_before_they_are_counted(tmp_path):
    folder, name = tmp_path / "essai", "courrier.test"
    Rehearsal.begin(folder, ["mail_only"])
    play(folder, name, State.SETTLED)
    found, step = acts(folder, name)
    assert step.code == "mail-not-copied"
    assert Rehearsal.resume(folder).world.mail_copied == {name}
    assert [hint.words[3:] for hint in found.hints] == [
        (f"address={box}@{name}", "before=12", "after=12") for box in ("bureau", "tresor")
    ]


def test_a_code_is_read_out_once_and_again_when_it_is_another(tmp_path):
    folder, name = tmp_path / "essai", "amain.test"
    Rehearsal.begin(folder, ["level_c"])
    play(folder, name, State.UNLOCKED)
    found, step = acts(folder, name)
    assert (step.code, step.verdict.action) == ("by-hand", "hold-code")
    code = Rehearsal.resume(folder).world.auth_code(name)
    assert [code in sentence for sentence in found.happened] == [True]
    assert [hint.words for hint in found.hints] == [("code", name)]
    again = Rehearsal.resume(folder)
    assert again.hand_over_code(name)
    assert not again.hand_over_code(name)
    assert let_others_act(Rehearsal.resume(folder)).happened == []


def test_a_folder_holds_one_rehearsal(tmp_path):
    with pytest.raises(RefusedError, match="holds no rehearsal"):
        Rehearsal.resume(tmp_path / "nothing")
    Rehearsal.begin(tmp_path / "one", ["parking"])
    with pytest.raises(RefusedError, match="not empty"):
        Rehearsal.begin(tmp_path / "one", ["signed"])
    with pytest.raises(RefusedError, match="not in this rehearsal"), Rehearsal.resume(tmp_path / "one").at("b.test"):
        pass
