# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_move import DOMAIN, NEW, OLD, RECORDS, World, answer, assert_legal, make_move

from infini.domains.observed import (
    Delegation,
    Difference,
    DomainFacts,
    ParentAnswer,
    Parity,
    Quote,
    RdapFacts,
    ServerAnswer,
    Tally,
    TransferOrder,
)
from infini.domains.registries import RegistryRule
from infini.domains.states import (
    CHAIN,
    GATES,
    INTERLOCKS,
    IRREVERSIBLE,
    OPTIONAL,
    PATIENCE,
    RANK,
    SIDE,
    Asked,
    Evidence,
    Problem,
    State,
    about_code,
    following,
    gandi_nameserver,
    interlocks,
    judge,
    legal,
    position,
    way,
)

NOW = datetime(2026, 3, 20, 8, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
RULE = RegistryRule("fr", 8, False, False, "https://registry.example", date(2026, 1, 1))
ICANN = replace(RULE, tld="com", reserve_days=5, lock60=True)


def delegation(nameservers: tuple[str, ...], ds: tuple[str, ...] = (), error: str = "") -> Delegation:
    sound = ParentAnswer("a.nic.example", frozenset(nameservers), frozenset(ds), 3600, 3600)
    other = replace(sound, server="b.nic.example")
    return Delegation(DOMAIN, (sound, ParentAnswer("b.nic.example", error=error) if error else other))


def servers(names: tuple[str, ...], **changes: Any) -> tuple[ServerAnswer, ...]:
    return tuple(replace(ServerAnswer(name, "192.0.2.1", True, 7, True, {"@/A": 300}), **changes) for name in names)


def before_switch() -> Evidence:
    """Everything is ready for the switch."""
    return Evidence(
        DOMAIN,
        NOW,
        recorded=State.TTL_LOWERED,
        ever=frozenset(CHAIN[: RANK[State.TTL_LOWERED] + 1]),
        facts=DomainFacts(DOMAIN, NOW + 300 * DAY, NOW - 900 * DAY, nameservers=OLD),
        rule=RULE,
        rdap=RdapFacts(DOMAIN, "Gandi SAS", ("client transfer prohibited",), expires=NOW + 300 * DAY),
        delegation=delegation(OLD),
        new_nameservers=NEW,
        new_servers=servers(NEW),
        old_nameservers=OLD,
        old_servers=servers(OLD),
        tally=Tally(DOMAIN, NOW - DAY, NOW, 1000, 0),
        gaining="Gagnant",
        old_registrar="Gandi SAS",
        content="c1",
        fresh_content="c1",
        snapshot=True,
        balanced=True,
        applicable=True,
        zone_hash="z1",
        provisioned_hash="z1",
        parity=Parity(DOMAIN, NOW - HOUR, "c1", 100, 100, canary_caught=True),
        parity_zone_hash="z1",
        ttls={"@/A": 10800},
        old_ttl=10800,
        ttls_low_since=NOW - 4 * HOUR,
        ds_gone_since=NOW - DAY,
        consent=True,
        mail_mode="none",
        was_locked=True,
    )


def before_order() -> Evidence:
    """Everything is ready for the order."""
    return replace(
        before_switch(),
        recorded=State.AUTHCODE_HELD,
        ever=frozenset(CHAIN[: RANK[State.AUTHCODE_HELD] + 1]) - OPTIONAL,
        rdap=RdapFacts(DOMAIN, "Gandi SAS", (), expires=NOW + 300 * DAY),
        facts=DomainFacts(DOMAIN, NOW + 300 * DAY, NOW - 900 * DAY, registrar_lock=False),
        delegation=delegation(NEW),
        switched_since=NOW - 3 * DAY,
        services_checked=True,
        code_held=True,
        code_expires=NOW + 20 * DAY,
        quote=Quote(DOMAIN, 12.0),
        quote_at=NOW - HOUR,
        confirmed_price=12.0,
    )


def test_everything_ready_lets_the_switch_and_the_order_pass():
    assert interlocks(before_switch(), "switch") == []
    assert judge(before_switch()).action == "switch"
    assert interlocks(before_order(), "order") == []
    verdict = judge(before_order())
    assert (verdict.action, verdict.allowed, verdict.irreversible) == ("order", True, True)


SWITCH = [
    ("ds-left", {"delegation": delegation(OLD, ("1 13 2 ab",))}),
    ("ds-left", {"dnskeys": True}),
    ("ds-left", {"was_signed": True, "ds_ttl": 86400, "ds_gone_since": NOW - DAY}),
    ("ds-left", {"was_signed": True, "ds_ttl": 3600, "key_ttl": 86400, "ds_gone_since": NOW - DAY}),
    ("parents-silent", {"delegation": delegation(OLD, error="timeout")}),
    ("parity-failed", {"parity": None}),
    ("parity-failed", {"parity": Parity(DOMAIN, NOW - DAY, "c1", 100, 100, canary_caught=True)}),
    ("parity-failed", {"parity": Parity(DOMAIN, NOW + HOUR, "c1", 100, 100, canary_caught=True)}),
    ("parity-failed", {"parity": Parity(DOMAIN, NOW, "c0", 100, 100, canary_caught=True)}),
    ("parity-failed", {"parity": Parity(DOMAIN, NOW, "c1", 100, 100)}),
    ("parity-failed", {"parity": Parity(DOMAIN, NOW, "c1", 0, 0, canary_caught=True)}),
    (
        "parity-failed",
        {"parity": Parity(DOMAIN, NOW, "c1", 9, 8, (), (Difference("@", "A", "x", "1", "2"),), canary_caught=True)},
    ),
    ("parity-failed", {"parity_zone_hash": "z0"}),
    ("zone-drifted", {"fresh_content": "c2"}),
    ("zone-drifted", {"fresh_content": ""}),
    ("servers-silent", {"new_servers": servers(NEW[:1])}),
    ("servers-silent", {"new_servers": servers(NEW, authoritative=False)}),
    ("servers-silent", {"new_servers": servers(NEW, error="REFUSED")}),
    ("servers-silent", {"new_servers": (*servers(NEW), *servers(NEW[:1], serial=6))}),
    ("servers-silent", {"provisioned_hash": "z0"}),
    ("ttl-high", {"ttls_low_since": None}),
    ("ttl-high", {"ttls_low_since": NOW - HOUR}),
    ("probe-missing", {"tally": None}),
    ("probe-failed", {"tally": Tally(DOMAIN, NOW - DAY, NOW, 1000, 1)}),
    ("probe-unproven", {"tally": Tally(DOMAIN, NOW - DAY, NOW, 1000, 0, unproven=("smtp mx.asso.example",))}),
    ("redirections-unready", {"redirections_wrong": None}),
    ("redirections-unready", {"redirections_wrong": ("La redirection de www.asso.example n'est pas en place.",)}),
    ("no-export", {"snapshot": False}),
    ("no-export", {"content": ""}),
    ("plan-blocked", {"balanced": False}),
    ("plan-blocked", {"applicable": False}),
    ("plan-blocked", {"problems": (Problem("alias", "…"),)}),
    ("consent-missing", {"consent": False}),
    ("transfer-running", {"order": TransferOrder("1", "pending")}),
]

ORDER = [
    ("ns-at-gandi", {"delegation": delegation(OLD)}),
    ("ns-at-gandi", {"delegation": delegation((*NEW, OLD[0]))}),
    ("ns-at-gandi", {"delegation": delegation(("ns1.elsewhere.example",))}),
    ("ns-at-gandi", {"delegation": None}),
    ("ds-left", {"delegation": delegation(NEW, ("1 13 2 ab",))}),
    ("mail-at-gandi", {"mail_mode": "gandi"}),
    ("mail-at-gandi", {"mail_mode": None}),
    ("mail-not-copied", {"mailboxes": ("a@asso.example",)}),
    ("unsettled", {"switched_since": NOW - HOUR}),
    ("services-unchecked", {"services_checked": False}),
    (
        "expires-soon",
        {"rdap": RdapFacts(DOMAIN, "Gandi SAS", (), expires=NOW + 29 * DAY)},
    ),
    ("expires-soon", {"rdap": None, "facts": None}),
    ("locked-60-days", {"rule": ICANN, "facts": DomainFacts(DOMAIN, NOW + 300 * DAY, NOW - 59 * DAY)}),
    (
        "locked-60-days",
        {"rule": ICANN, "rdap": RdapFacts(DOMAIN, "Gandi SAS", (), (), NOW + 300 * DAY, NOW - 10 * DAY)},
    ),
    ("rule-unknown", {"rule": None}),
    ("zone-drifted", {"fresh_content": "c2"}),
    ("consent-missing", {"consent": False}),
    ("locked", {"facts": DomainFacts(DOMAIN, NOW + 300 * DAY, NOW - 900 * DAY, registrar_lock=True)}),
    ("locked", {"rdap": RdapFacts(DOMAIN, "Gandi SAS", ("clientTransferProhibited",), expires=NOW + 300 * DAY)}),
    ("auth-code-missing", {"code_held": False}),
    ("auth-code-missing", {"code_expires": NOW + 10 * DAY}),
    ("auth-code-wrong", {"code_tried": True}),
    ("no-quote", {"quote": None}),
    ("no-quote", {"quote_at": NOW - DAY}),
    ("no-quote", {"quote": Quote(DOMAIN, 12.0, ("no credit",))}),
    ("price-unconfirmed", {"confirmed_price": None}),
    ("price-unconfirmed", {"confirmed_price": 11.99}),
    ("ordered-already", {"order": TransferOrder("1", "pending")}),
    ("ordered-already", {"order": TransferOrder("1", "unknown")}),
    ("ordered-already", {"rdap": RdapFacts(DOMAIN, "Gandi SAS", ("pending transfer",), expires=NOW + 300 * DAY)}),
    ("ordered-already", {"rdap": RdapFacts(DOMAIN, "Gagnant", (), expires=NOW + 300 * DAY)}),
    ("transfer-refused", {"order": TransferOrder("1", "refused", "objection"), "refused_at": NOW}),
    ("order-unknown", {"order_intent": NOW - timedelta(minutes=59)}),
    ("parity-failed", {"ever": frozenset(), "parity": None}),
]


@pytest.mark.parametrize(("code", "change"), SWITCH)
def test_each_interlock_of_the_switch_refuses(code, change):
    e = replace(before_switch(), **change)
    assert code in [refusal.code for refusal in interlocks(e, "switch")]
    verdict = judge(e)
    assert not (verdict.allowed and verdict.action == "switch")


@pytest.mark.parametrize(("code", "change"), ORDER)
def test_each_interlock_of_the_order_refuses(code, change):
    e = replace(before_order(), **change)
    assert code in [refusal.code for refusal in interlocks(e, "order")]
    verdict = judge(e)
    assert not (verdict.allowed and verdict.action == "order")


def test_a_price_above_what_was_accepted_says_both():
    unsaid, too_little = (
        next(refusal.says for refusal in interlocks(replace(before_order(), confirmed_price=price), "order"))
        for price in (None, 11.99)
    )
    assert "(12.00 €) n'est pas confirmé" in unsaid
    assert "(12.00 €) dépasse ce qui a été accepté (11.99 €)" in too_little


def test_every_refusal_is_a_sentence_that_says_who_acts():
    cases = [(before_switch(), "switch", SWITCH), (before_order(), "order", ORDER)]
    for base, action, table in cases:
        for _, change in table:
            for refusal in interlocks(replace(base, **change), action):
                assert refusal.says.endswith(".")
                assert len(refusal.says.split()) > 5
                assert refusal.who in ("tool", "volunteer", "member", "gandi", "registry")


WAY_BACK = [
    ("old-zone-gone", "restore-nameservers", {"old_servers": ()}),
    ("old-zone-gone", "restore-nameservers", {"old_servers": servers(OLD, error="REFUSED")}),
    ("no-return", "restore-nameservers", {"rdap": RdapFacts(DOMAIN, "Gagnant", ())}),
    ("transfer-running", "restore-nameservers", {"order": TransferOrder("1", "pending")}),
    ("old-zone-unsigned", "restore-ds", {"delegation": delegation(OLD), "old_servers": servers(OLD, signed=False)}),
    ("zone-live", "restore-ds", {}),
    ("zone-live", "restore-ds", {"delegation": delegation(OLD), "back_since": NOW - timedelta(minutes=59)}),
    ("zone-live", "remove-zone", {}),
    ("zone-live", "remove-zone", {"delegation": delegation(OLD), "back_since": NOW, "ns_ttl": 3600}),
    ("zone-live", "remove-zone", {"delegation": None}),
    ("zone-live", "provision", {}),
    ("not-transferred", "secure", {}),
]


@pytest.mark.parametrize(("code", "action", "change"), WAY_BACK)
def test_each_interlock_of_the_way_back_refuses(code, action, change):
    e = replace(before_order(), ns_ttl=3600, **{k: v for k, v in change.items() if k != "ns_ttl"})
    assert code in [refusal.code for refusal in interlocks(e, action)]


def test_every_action_that_takes_back_or_changes_has_interlocks():
    harmless = {"export", "parity"}
    assert {action for action, checks in INTERLOCKS.items() if not checks} == harmless
    assert set(PATIENCE) <= set(INTERLOCKS)
    assert set(INTERLOCKS) >= IRREVERSIBLE


def test_only_one_step_forward_is_legal_and_nobody_comes_back_from_a_transfer():
    assert legal(State.TTL_LOWERED, State.NS_SWITCHED)
    assert legal(State.TTL_LOWERED, State.DS_REMOVED)
    assert not legal(State.PARITY_OK, State.NS_SWITCHED)
    assert not legal(State.SETTLED, State.TRANSFER_ORDERED)
    assert legal(State.TRANSFER_PENDING, State.AUTHCODE_HELD)
    assert legal(State.NS_SWITCHED, State.TTL_LOWERED)
    assert not legal(State.TRANSFERRED, State.TRANSFER_PENDING)
    assert not legal(State.DONE, State.TRANSFERRED)
    assert not legal(State.ABANDONED, State.EXPORTED)
    assert all(legal(state, State.BLOCKED) for state in CHAIN[:-1])


def test_the_chain_is_whole():
    assert set(CHAIN) | set(SIDE) == set(State)
    assert len(CHAIN) == 19
    assert set(GATES) == set(CHAIN[1:])
    assert [following(state) for state in CHAIN] == [*CHAIN[1:], None]


@pytest.mark.parametrize(
    ("host", "gandi"),
    [
        ("ns-123-a.gandi.net", True),
        ("NS-1-B.GANDI.NET.", True),
        ("a.dns.gandi.net", True),
        ("ns1.infini.test", False),
        ("ns-1.gandi.net.infini.test", False),
        ("mail.gandi.net", False),
    ],
)
def test_gandis_servers_are_known_by_name(host, gandi):
    assert gandi_nameserver(host) is gandi


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("Invalid authInfo", True),
        ("AUTH_INFO", True),
        ("authID refused", True),
        ("not authorized", False),
        ("holder objects", False),
        ("", False),
    ],
)
def test_a_refusal_about_the_code_is_told_from_others(reason, code):
    assert about_code(reason) is code


def test_a_registry_that_lags_does_not_take_a_transfer_back():
    e = replace(before_order(), recorded=State.TRANSFERRED, ordered_at=NOW - 9 * DAY)
    verdict = judge(e)
    assert (verdict.state, verdict.side, verdict.code) == (State.TRANSFERRED, State.WAITING, "registry-contradicts")


def test_name_servers_that_change_in_the_transfer_are_an_alarm():
    gone = RdapFacts(DOMAIN, "GAGNANT SARL", (), expires=NOW + 300 * DAY)
    e = replace(before_order(), rdap=gone, delegation=delegation(("ns1.gagnant.example",)), ordered_at=NOW)
    assert judge(e).code == "ns-changed"


def test_a_zone_left_unsigned_at_gandi_keeps_waiting_for_the_ds_to_be_forgotten():
    e = replace(before_switch(), was_signed=True, ds_ttl=3600, ds_gone_since=NOW - HOUR)
    verdict = judge(e)
    assert verdict.side == State.WAITING
    assert verdict.waiting_until == NOW - HOUR + timedelta(seconds=3960)
    assert judge(replace(e, key_ttl=7200)).waiting_until == NOW - HOUR + timedelta(seconds=3 * 3960)


def test_silent_parents_leave_the_domain_where_it_was():
    dark = Delegation(DOMAIN, (ParentAnswer("a.nic.example", error="timeout"),))
    verdict = judge(replace(before_order(), delegation=dark))
    assert (verdict.state, verdict.code) == (State.AUTHCODE_HELD, "parents-silent")


def test_a_change_is_asked_for_again_and_then_calls_for_help():
    e = replace(before_switch(), parity=replace(before_switch().parity, at=NOW))
    limit, tries = PATIENCE["switch"].limit, PATIENCE["switch"].tries
    waiting = judge(replace(e, asked={"switch": Asked(NOW, NOW)}))
    assert (waiting.side, waiting.who) == (State.WAITING, "gandi")
    again = judge(replace(e, asked={"switch": Asked(NOW - limit, NOW - limit)}))
    assert (again.action, again.allowed) == ("switch", True)
    tired = judge(replace(e, asked={"switch": Asked(NOW - limit, NOW - limit, tries)}))
    assert (tired.side, tired.code) == (State.BLOCKED, "never-completes")


def test_the_way_lists_each_state_and_knows_when_one_was_never_entered():
    e = before_switch()
    assert way(State.AUDITED, State.TTL_LOWERED, e) == [
        State.CONSENTED,
        State.PROVISIONED,
        State.PARITY_OK,
        State.TTL_LOWERED,
    ]
    bare = replace(e, ever=frozenset(), consent=False)
    assert way(State.AUDITED, State.TTL_LOWERED, bare) is None
    assert way(State.SETTLED, State.PARITY_OK, e) == [State.PARITY_OK]
    assert way(State.TRANSFERRED, State.SETTLED, e) is None


ANY = {name: [change[name] for _, change in SWITCH + ORDER if name in change] for _, c in SWITCH + ORDER for name in c}


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    base = draw(st.sampled_from([before_switch(), before_order(), Evidence(DOMAIN, NOW)]))
    changes: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(sorted(ANY)), max_size=6, unique=True)):
        changes[name] = draw(st.sampled_from(ANY[name]))
    changes["recorded"] = draw(st.sampled_from([base.recorded, *CHAIN]))
    changes["rollback_to"] = draw(st.sampled_from([None, None, *CHAIN[:10]]))
    actions = draw(st.lists(st.sampled_from(sorted(PATIENCE)), max_size=3))
    times = st.integers(0, 200).map(lambda hours: NOW - hours * HOUR)
    changes["asked"] = {action: Asked(draw(times), draw(times), draw(st.integers(1, 5))) for action in actions}
    return replace(base, **changes)


@settings(max_examples=400, deadline=None)
@given(evidences())
def test_no_evidence_whatever_lets_a_forbidden_action_pass(e):
    verdict = judge(e)
    assert verdict.state in CHAIN
    assert verdict.reason
    if verdict.side == State.WAITING:
        assert verdict.waiting_until
        assert verdict.waiting_until > e.now
    if verdict.side is not None:
        assert not verdict.action
    if verdict.allowed:
        assert interlocks(e, verdict.action) == []
    # Said once more in other words, because `interlocks` is what is tested.
    if verdict.allowed and verdict.action == "order":
        assert e.delegation
        assert e.delegation.agreed
        assert e.delegation.nameservers == set(NEW)
        assert not e.delegation.ds
        assert e.mail_mode not in (None, "gandi")
        assert not e.mailboxes
        assert e.order is None
        assert e.consent
    if verdict.allowed and verdict.action == "switch":
        assert e.parity
        assert NOW - e.parity.at < DAY
        assert not e.parity.unexpected
        assert e.delegation
        assert not e.delegation.ds
        assert e.fresh_content == e.content
        assert e.tally


@settings(max_examples=200, deadline=None)
@given(evidences())
def test_the_position_is_a_gate_that_is_open_and_what_is_recorded_is_reached_legally(e):
    here = position(e)
    states = way(e.recorded, here, e)
    if states is None:
        return
    before = e.recorded
    for state in states:
        assert legal(before, state)
        before = state
    assert before == here


FAULTS = st.sampled_from(
    [
        {"ds": ["1 13 2 ab"], "dnskeys": [{"id": "1"}], "signed": True},
        {"ds": [], "dnskeys": []},
        {"delegation": list(OLD)},
        {"delegation": list(NEW)},
        {"delegation": [*NEW, OLD[0]]},
        {"delegation": []},
        {"served": None},
        {"records": RECORDS[:1]},
        {"records": RECORDS},
        {"ttl": None},
        {"locked": True},
        {"locked": False},
        {"code": "X-other-c0de"},
        {"bad_codes": ["X-first-c0de"]},
        {"refuse": "objection"},
        {"refuse": ""},
        {"probe": False},
        {"probe": True},
        {"failed": 2},
        {"failed": 0},
        {"differs": True},
        {"differs": False},
        {"mailboxes": ["a@asso.example"]},
        {"mailboxes": []},
        {"registrar": "Un Autre SA"},
        {"registrar": "Gandi SAS"},
    ]
)
DEEDS = st.one_of(
    FAULTS,
    st.sampled_from(["advance", "advance", "run", "run", "run", "answer", "answer", "retry", "resume"]),
    st.sampled_from([60.0, 3600.0, 86400.0, 864000.0]),
    st.sampled_from([State.CONSENTED, State.DS_REMOVED, State.SETTLED]),
)


def do(deed: Any, world: World, move: Any) -> None:
    if isinstance(deed, State):
        move.decide("rollback", {"to": deed})
    elif deed == "advance":
        move.advance(apply=True)
    elif deed == "run":
        move.run_until_blocked()
    elif deed == "answer":
        answer(move, move.run_until_blocked())
    elif isinstance(deed, str):
        move.decide(deed, {})
    elif isinstance(deed, float):
        world.sleep(deed)
    else:
        world.set(**deed)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(start=st.integers(0, 60), deeds=st.lists(DEEDS, max_size=14))
def test_no_sequence_of_faults_reaches_an_illegal_state_or_orders_against_the_rules(tmp_path_factory, start, deeds):
    folder = tmp_path_factory.mktemp("faults")

    class Watched(World):
        def order(self, domain: str, code: str, nameservers: Any) -> TransferOrder:
            data = self.state()
            assert data["delegation"] == list(NEW)
            assert not data["ds"]
            assert not data["mailboxes"]
            assert data["order"] is None or data["order"]["stage"] == "refused"
            return super().order(domain, code, nameservers)

        def set_nameservers(self, name: str, nameservers: Any) -> None:
            data = self.state()
            assert not data["ds"]
            assert data["served"]
            assert data["ttl"] == 300
            super().set_nameservers(name, nameservers)

    world = Watched(folder / "world.json")
    move = make_move(folder, world)
    for _ in range(start):
        step = move.advance(apply=True)
        if step.side == State.WAITING and step.waiting_until:
            world.until(step.waiting_until)
        elif not step.changed:
            answer(move, step)
    for deed in deeds:
        do(deed, world, move)
    for event in move.store.read(DOMAIN):
        if event.kind == "state":
            assert legal(State(event.data["from"]), State(event.data["to"]))


def test_the_watch_of_the_last_test_is_awake(tmp_path):
    world = World(tmp_path / "world.json")
    move = make_move(tmp_path, world)
    move._append("state", **{"from": "EXPORTED", "to": "NS_SWITCHED"})
    with pytest.raises(AssertionError):
        assert_legal(move)
