# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import LIVEDNS, ZONE, exports, quoted

from infini.domains.plan import Options, Outcome, Plan, make_plan
from infini.domains.reading import from_livedns, from_text
from infini.domains.zone import Rrset

ALIAS = "@ 300 ALIAS front.example.\nwww 300 A 192.0.2.1\n"
GANDI = [
    ("@", "A", "217.70.184.38"),
    ("www", "CNAME", "webredir.vip.gandi.net."),
    ("*", "CNAME", "webredir.gandi.net."),
    ("@", "ALIAS", "front.infini.example."),
    ("@", "MX", "10 spool.mail.gandi.net."),
    ("@", "TXT", '"v=spf1 include:_mailcust.gandi.net ?all"'),
    ("x", "TXT", '"open'),
    ("@", "CAA", '0 issue ";"'),
    ("@", "NS", "ns-1-a.gandi.net."),
]
gandi = st.lists(st.sampled_from(GANDI), unique=True).map(
    lambda found: [
        {"rrset_name": name, "rrset_type": kind, "rrset_ttl": 300, "rrset_values": [value]}
        for name, kind, value in found
    ]
)
options = st.builds(
    Options,
    mail_mode=st.sampled_from(["none", "external", "gandi", "infini"]),
    minimum_ttl=st.sampled_from([0, 3600]),
    web_addresses=st.sampled_from([(), ("192.0.2.9",), ("192.0.2.9", "2001:db8::9")]),
    alias_addresses=st.sampled_from([{}, {"front.infini.example": ("192.0.2.9", "2001:db8::9")}]),
    mail_exchangers=st.sampled_from([(), ("10 mx.infini.example.",)]),
    waivers=st.sampled_from([{}, {"@/ALIAS": "Volontaire : plus utilisé", "@/CAA": "Volontaire : voulu"}]),
)
redirections = st.lists(
    st.fixed_dictionaries(
        {
            "host": st.sampled_from([ZONE, f"www.{ZONE}", f"a.{ZONE}"]),
            "type": st.sampled_from(["http301", "http302", "cloak"]),
        }
    )
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(exports(), gandi, redirections, options)
def test_every_entry_is_accounted_for_once(found, theirs, redirected, chosen):
    zone = from_livedns(ZONE, [*found, *theirs])
    plan = make_plan(zone, redirected, chosen)
    assert plan.balanced
    assert len(plan.outcomes) == len(plan.seen) == len(zone.rrsets) + len(zone.unreadable)
    assert plan.applicable is (plan.counts()["blocked"] == 0)
    # Nothing of the new zone comes from nowhere, and nothing of the old one goes without a word.
    untouched = {o.key for o in plan.outcomes if o.what == "identical"}
    for key in untouched:
        assert plan.zone.rrsets[key] == zone.rrsets[key]
    for outcome in plan.outcomes:
        assert (outcome.what == "identical") or (outcome.rule and outcome.reason)
        assert outcome.what != "identical" or not outcome.rule or "accepté" in outcome.reason


@settings(max_examples=30, deadline=None)
@given(exports(), options)
def test_planning_the_new_zone_again_changes_nothing(found, chosen):
    first = make_plan(from_livedns(ZONE, found), (), chosen)
    again = make_plan(first.zone, (), chosen)
    assert again.counts()["rewritten"] == again.counts()["dropped"] == 0


def test_the_types_of_livedns_are_all_tried():
    from strategies import MADE_BY_US, values

    assert set(values) == set(LIVEDNS) - MADE_BY_US
    assert quoted(b'a"b') == '"a\\034b"'


def carried(name, what="identical", after=None):
    rrset = Rrset(name, "A", 300, ("192.0.2.1",))
    return Outcome((name, "A"), what, "rule" if what != "identical" else "", "pourquoi", rrset.values, after or rrset)


EXPORT = from_text(ZONE, "a 300 A 192.0.2.1\nb 300 A 192.0.2.1\n")


@pytest.mark.parametrize(
    "outcomes",
    [
        [carried("a")],  # one is forgotten
        [carried("a"), carried("b"), carried("b")],  # one is counted twice
        [carried("a"), carried("c")],  # one comes from nowhere
        [replace(carried("a", "dropped"), after=None)] * 2,  # one stands for another
        [carried("a"), carried("b", after=Rrset("b", "A", 600, ("192.0.2.1",)))],  # not identical
        [carried("a"), replace(carried("b", "dropped"), rule="")],  # nobody says why
        [carried("a"), carried("b", "dropped")],  # dropped, and yet carried
        [carried("a"), replace(carried("b", "rewritten"), after=None)],  # rewritten to nothing
        [carried("a"), carried("b", "rewritten", Rrset("a", "A", 300, ("192.0.2.2",)))],  # hides another
    ],
)
def test_a_false_account_cannot_be_applied(outcomes):
    plan = Plan(EXPORT, tuple(outcomes))
    assert not plan.balanced
    assert not plan.applicable
    assert "LE COMPTE N'Y EST PAS" in plan.lines()[1]
    assert Plan(EXPORT, (carried("a"), carried("b"))).applicable


def test_a_waiver_lets_an_entry_pass_and_says_who():
    zone = from_text(ZONE, ALIAS)
    assert [outcome.code for outcome in make_plan(zone, (), Options()).blocked] == ["alias"]
    plan = make_plan(zone, (), Options(waivers={"@/ALIAS": "le site a fermé (une bénévole)"}))
    assert plan.applicable
    [dropped] = [outcome for outcome in plan.outcomes if outcome.what == "dropped"]
    assert "le site a fermé (une bénévole)" in dropped.reason
    assert plan.zone.rrsets.keys() == {("www", "A")}


def test_a_waiver_without_a_word_is_none():
    assert make_plan(from_text(ZONE, ALIAS), (), Options(waivers={"@/ALIAS": " "})).blocked


def test_a_waiver_keeps_what_can_be_served():
    zone = from_text(ZONE, '@ 300 CAA 0 issue ";"\n')
    plan = make_plan(zone, (), Options(waivers={"@/CAA": "voulu par le membre (une bénévole)"}, minimum_ttl=600))
    [outcome] = plan.outcomes
    assert plan.balanced
    assert (outcome.what, outcome.after.ttl, outcome.after.values) == ("rewritten", 600, ('0 issue ";"',))
    unchanged = make_plan(zone, (), Options(waivers={"@/CAA": "voulu"})).outcomes[0]
    assert (unchanged.what, unchanged.after) == ("identical", zone.rrsets["@", "CAA"])


def test_readable_and_unreadable_entries_of_one_name_are_two():
    zone = from_text(ZONE, 'x 300 TXT "a"\nx 300 TXT "open\n')
    plan = make_plan(zone, (), Options())
    assert [(outcome.key, outcome.what) for outcome in plan.outcomes] == [
        (("x", "TXT"), "identical"),
        (("x", "TXT"), "blocked"),
    ]
    assert plan.balanced


def test_the_plan_is_data_and_sentences():
    plan = make_plan(from_text(ZONE, ALIAS), (), Options())
    data = json.loads(json.dumps(plan.to_json()))
    assert (data["seen"], data["identical"], data["blocked"], data["applicable"]) == (2, 1, 1, False)
    assert data["outcomes"][0]["after"] == {"type": "A", "ttl": 300, "values": ["192.0.2.1"]}
    lines = plan.lines()
    assert lines[0] == f"{ZONE} : 2 enregistrements (1 en attente d'une décision, 1 repris tel quel)"
    assert lines[1].startswith("  en attente d'une décision : @ ALIAS front.example. (")


def test_an_empty_zone_has_an_empty_plan():
    plan = make_plan(from_text(ZONE, ""), (), Options())
    assert plan.balanced
    assert plan.lines() == [f"{ZONE} : 0 enregistrement (zone vide)"]
