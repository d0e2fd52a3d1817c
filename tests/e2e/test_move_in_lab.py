# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signed domain, moved by the real state machine between real servers from its first state to its last.

A probe looks all the time. On the way the three wrong orders are proposed to the move, and its interlocks refuse them.
Each is then forced on another domain, as somebody could at Gandi: a probe of the same kind sees it.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from infini.domains.archetypes import Decisions, load
from infini.domains.lab import COLD, NEW_SERVERS, OLD_SERVERS, WARM, Lab
from infini.domains.lab_stage import LabStage
from infini.domains.probe import DnsCheck, Probe
from infini.domains.reading import from_axfr
from infini.domains.rehearse import People
from infini.domains.states import CHAIN, RANK, State, interlocks, judge

RIGHT, DS_LEFT, EARLY, CUT = "right.test", "ds-left.test", "early.test", "cut.test"
ADDRESS = "192.0.2.10"


def member(domain):
    """A signed domain with mail elsewhere. What the probe asks for leaves caches first, so that it reaches servers."""
    rows = [
        ("@", "A", 1, ADDRESS),
        ("@", "MX", 10800, f"10 mx.{domain}."),
        ("*.wild", "A", 300, ADDRESS),
        ("child", "NS", 10800, "ns1.child.example."),
        ("mx", "A", 10800, "192.0.2.20"),
        ("text", "TXT", 10800, f'"{"a" * 255}" "{"b" * 60}"'),
        ("www", "CNAME", 1, f"{domain}."),
    ]
    records = tuple(
        {"rrset_name": name, "rrset_type": kind, "rrset_ttl": ttl, "rrset_values": [value]}
        for name, kind, ttl, value in rows
    )
    return replace(load("signed"), domain=domain, records=records, decisions=Decisions(mail="external"))


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with Lab(ttl=4) as lab:
        yield LabStage(lab, [member(name) for name in (RIGHT, DS_LEFT, EARLY, CUT)], tmp_path_factory.mktemp("move"))


@pytest.fixture(scope="module")
def probes(stage):
    made = {}
    for name in stage.cast:
        checks = [
            DnsCheck("warm", WARM, f"www.{name}", accepted=frozenset({ADDRESS}), timeout=2),
            DnsCheck("warm", WARM, name, "MX", accepted=frozenset({f"10 mx.{name}."}), timeout=2),
            DnsCheck("cold", COLD, name, accepted=frozenset({ADDRESS}), flush=stage.lab.flush_command(), timeout=2),
        ]
        made[name] = Probe(name, checks, stage.store, 0.1 if name == RIGHT else 0.2, patience=1)
    return made


def walk(stage, until):
    """Let the move go on, people answer and time pass, until it stands at a state."""
    one, move, people = stage.cast[RIGHT], stage.move(RIGHT), People(stage)
    for _ in range(60):
        step = move.run_until_blocked(until)
        if RANK[step.state] >= RANK[until]:
            return
        if step.blocked:
            took = people.react(one, move, step)
            assert took, step
            stage.jump(stage.clock.now() + took)
        else:
            stage.jump(step.waiting_until)
    raise AssertionError(step)


def attempt(stage, action):
    """Have a judge that errs propose an action; return where the move stands, and what forbids it all the same."""
    move, dns = stage.move(RIGHT), stage.lab.dns()
    before, seen = dns.delegation(RIGHT), move.evidence()
    wrong = replace(judge(seen), allowed=True, action=action)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infini.domains.move.judge", lambda _: wrong)
        with pytest.raises(AssertionError, match="against its interlocks"):
            move.advance(apply=True)
    assert dns.delegation(RIGHT) == before
    assert not [order for order in stage.world.orders if order.domain == RIGHT]
    return wrong.state, {refusal.code: refusal.says for refusal in interlocks(seen, action)}


def click(stage, domain, action):
    """Do something at Gandi by hand, and let it happen."""
    stage.click(domain, action)
    stage.world.settle()


def transfer(stage, domain):
    """Transfer a domain by hand, and let Gandi accept at once: its zone there goes with it."""
    world = stage.world
    click(stage, domain, "unlock")
    order = world.place_order("OVH", domain, world.auth_code(domain), world.registration(domain).nameservers)
    world.answer_transfer(domain, accept=True, code=order.code)
    world.settle()


@pytest.fixture(scope="module")
def refused(stage, probes):
    """Move one domain to its end, and force a wrong order on another wherever that one was refused it."""
    assert all(stage.lab.resolve(f"www.{name}").secure for name in stage.cast)
    found = {}
    with probes[RIGHT], probes[DS_LEFT], probes[EARLY], probes[CUT]:
        People(stage).prepare(stage.cast[RIGHT], stage.move(RIGHT))
        for name in (DS_LEFT, CUT):
            stage.target.provision(stage.world.old_zone(name))

        walk(stage, State.TTL_LOWERED)
        found[DS_LEFT] = attempt(stage, "switch")
        click(stage, DS_LEFT, "switch")
        for name in (EARLY, CUT):
            click(stage, name, "remove-ds")

        walk(stage, State.DS_REMOVED)
        found[EARLY] = attempt(stage, "order")
        transfer(stage, EARLY)

        walk(stage, State.NS_SWITCHED)
        found[CUT] = attempt(stage, "order")
        walk(stage, State.SETTLED)
        stage.lab.flush(CUT)
        assert stage.lab.resolve(CUT).values  # the resolver has just learnt the old delegation
        click(stage, CUT, "switch")
        stage.lab.stop_old()  # silent: from a mere refusal Unbound recovers, it asks the parent again
        walk(stage, State.TRANSFER_PENDING)
        stage.lab.start_old()

        walk(stage, State.DONE)
    return found


@pytest.mark.usefixtures("refused")
def test_the_move_goes_through_every_state_to_its_end(stage):
    events = stage.store.read(RIGHT)
    states = [event.data["to"] for event in events if event.kind in ("state", "overtaken")]
    assert states == [state for state in CHAIN[1:] if state != State.RESECURED]
    assert not [event for event in events if event.kind == "overtaken"]

    parities = [event.data for event in events if event.kind == "parity"]
    assert len(parities) == 2  # the first is too old after the wait for the DS
    assert all(parity["canary_caught"] and parity["queries"] > 1000 for parity in parities)
    assert not any(parity["unexpected"] for parity in parities)


@pytest.mark.usefixtures("refused")
def test_the_waits_are_those_that_the_real_servers_ask_for(stage):
    seen = [(event.data, event.at) for event in stage.store.read(RIGHT) if event.kind == "observed"]
    assert {data["what"]: data["number"] for data, _ in seen if "number" in data} == {
        "ns-ttl": 172800,
        "ds-ttl": 86400,
        "key-ttl": 86400,
    }
    since = {data["what"]: at for data, at in seen if data.get("is")}
    entered = {event.data["to"]: event.at for event in stage.store.read(RIGHT) if event.kind == "state"}
    assert entered["TTL_LOWERED"] - since["ttls-low"] > timedelta(seconds=10800)
    assert entered["DS_REMOVED"] - since["ds-gone"] > timedelta(seconds=86400 + 86400)
    assert entered["SETTLED"] - since["switched"] > timedelta(seconds=172800)


@pytest.mark.usefixtures("refused")
def test_the_real_servers_end_as_they_should(stage):
    dns = stage.lab.dns()
    delegation = dns.delegation(RIGHT)
    assert delegation.agreed
    assert delegation.nameservers == set(NEW_SERVERS)
    assert not delegation.ds
    assert all(answer.error for answer in dns.servers(RIGHT, OLD_SERVERS))

    served = from_axfr(RIGHT, "127.0.4.1", tsig=stage.lab.tsig)
    planned = stage.move(RIGHT).plan().zone
    assert {key: rrset for key, rrset in served.rrsets.items() if key != ("@", "NS")} == planned.rrsets
    assert "OVH" in stage.registry.domain(RIGHT).registrar


@pytest.mark.usefixtures("refused")
def test_no_answer_is_lost_on_the_way(stage, probes):
    tally = probes[RIGHT].tally()
    assert tally.total >= 200
    assert tally.failed == 0, tally.failures
    assert tally.longest_silence < 3
    assert stage.dns.tally(RIGHT) == tally  # what the move itself went by
    assert not [harm for harm in stage.world.harms if harm.domain == RIGHT]


@pytest.mark.parametrize(
    ("order", "state", "code", "says"),
    [
        (DS_LEFT, State.TTL_LOWERED, "ds-left", "Des clés DNSSEC (DS) restent au registre : retirez-les d'abord."),
        (
            EARLY,
            State.DS_REMOVED,
            "ns-at-gandi",
            "La zone n'est pas entièrement chez nous : basculez d'abord les serveurs de noms.",
        ),
        (CUT, State.NS_SWITCHED, "unsettled", "La bascule n'est pas terminée partout : attendez."),
    ],
)
def test_a_wrong_order_is_refused(refused, order, state, code, says):
    stood, refusals = refused[order]
    assert stood == state
    assert refusals[code] == says


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(("order", "harm"), [(DS_LEFT, "bogus"), (EARLY, "dark")])
def test_a_wrong_order_that_is_forced_is_seen_and_was_foretold(stage, probes, order, harm):
    tally = probes[order].tally()
    assert any("SERVFAIL" in failure for failure in tally.failures)
    assert tally.longest_gap > 3
    assert harm in {found.kind for found in stage.world.harms if found.domain == order}


@pytest.mark.usefixtures("refused")
def test_an_old_host_cut_at_the_switch_is_seen(probes):
    assert probes[CUT].tally().failed
