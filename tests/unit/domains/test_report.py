# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a move: complete or not, it says so, and claims nothing that was not looked at."""

import dataclasses
import re
from datetime import UTC, datetime, timedelta

import pytest
from markupsafe import escape

from infini.domains import archetypes
from infini.domains.board import Row
from infini.domains.events import Event
from infini.domains.observed import Difference, Parity, Tally
from infini.domains.plan import Options, make_plan
from infini.domains.reading import from_livedns
from infini.domains.report import DECIDED, FORETOLD, Proof
from infini.domains.states import DECISIONS, State
from infini.phrase import said

NOW = datetime(2026, 3, 20, 9, 0, tzinfo=UTC)
PARITY = Parity("autorite.test", NOW, "x", 424, 424, canary_caught=True)
TALLY = Tally("autorite.test", NOW - timedelta(days=2), NOW, 576, 0)


@pytest.fixture(scope="module")
def proof():
    found = archetypes.load("caa_other")
    plan = make_plan(from_livedns(found.domain, found.records), (), Options(mail_mode="none"))
    states = [State.EXPORTED, State.AUDITED, State.AUDITED, State.DONE]
    events = [Event(NOW + timedelta(hours=i), found.domain, "", "state", {"to": to}) for i, to in enumerate(states)]
    waiver = {"kind": "waiver", "subject": "www/TXT", "by": "Camille", "reason": "<b>oui</b>"}
    events.append(Event(NOW, found.domain, "une bénévole", "decision", waiver))
    compared = {"queries": 848, "identical": 401, "expected": {"ttl": 20, "plan": 3}, "unexpected_count": 0}
    events.append(Event(NOW, found.domain, "", "parity", compared))
    row = Row(found.domain, State.DONE, NOW, NOW)
    return Proof(row, tuple(events), NOW, plan.to_json(), PARITY, TALLY)


def numbers(page, title):
    """Return the counts that a part of the page lists, in their order."""
    part = page.partition(f"<h2>{title}</h2>")[2].partition("<h2>")[0]
    return [int(count) for count in re.findall(r"<li><strong>(\d+)</strong>", part)]


def test_a_whole_proof_is_clean(proof):
    assert proof.clean
    assert proof.to_json()["records"] == {"seen": 5, "identical": 3, "rewritten": 1, "dropped": 1, "blocked": 0}
    assert [one.state for one in proof.entered] == [State.EXPORTED, State.AUDITED, State.DONE]
    page = proof.html()
    assert "Le compte y est : 3 + 1 + 1 = 5." in page
    assert "424 réponses de nos serveurs, pour 848 questions posées à tous" in page
    assert numbers(page, "La comparaison") == [401, 20, 3, 0]
    assert "Enregistrements lus chez Gandi (un nom et un type chacun) : 5." in page
    assert numbers(page, "Les enregistrements") == [3, 1, 1]
    assert "essais depuis l&#39;extérieur : 576." in page
    assert numbers(page, "La sonde") == [576, 0]
    assert "preuve d&#39;un certificat acheté chez Gandi" in page
    assert "Camille : accepté : www/TXT (&lt;b&gt;oui&lt;/b&gt;)" in page


@pytest.mark.parametrize(
    "missing",
    [
        {"plan": None},
        {"parity": None},
        {"parity": dataclasses.replace(PARITY, canary_caught=False)},
        {"parity": dataclasses.replace(PARITY, unexpected=(Difference("www", "A", "ns1.infini.test", "a", "b"),))},
        {"parity": dataclasses.replace(PARITY, queries=0)},
        {"row": Row("autorite.test", State.TRANSFERRED, NOW, NOW)},
        {"row": Row("autorite.test", State.DONE, NOW, NOW, side=State.ABANDONED)},
        {"row": Row("autorite.test", State.NS_SWITCHED, NOW, NOW, going_back=State.PARITY_OK)},
        {"row": Row("autorite.test", State.PARITY_OK, NOW, NOW, side=State.ROLLED_BACK, going_back=State.PARITY_OK)},
        {"tally": None},
        {"tally": dataclasses.replace(TALLY, total=0)},
        {"tally": dataclasses.replace(TALLY, failed=1, failures=("www A: SERVFAIL",))},
    ],
)
def test_what_is_missing_is_said(proof, missing):
    partial = dataclasses.replace(proof, **missing)
    assert not partial.clean
    assert partial.to_json()["ok"] is False
    assert len(partial.missing) == 1
    assert "La preuve n&#39;est pas complète" in partial.html()
    assert str(escape(partial.missing[0])) in partial.html()


def test_an_account_that_is_wrong_is_no_proof(proof):
    for wrong in ({"seen": 6}, {"balanced": False}):
        assert not dataclasses.replace(proof, plan={**proof.plan, **wrong}).clean


def test_the_numbers_for_programs_add_up(proof):
    parity = proof.to_json()["parity"]
    assert parity["answers"] == 424 == parity["identical"] + parity["expected"] + parity["unexpected"]


def test_every_reason_of_a_difference_has_its_words(proof):
    odd = next(event for event in proof.events if event.kind == "parity")
    for rule in ("plan", "ttl", "dnssec", "unreadable-record"):
        event = dataclasses.replace(odd, data={**odd.data, "expected": {rule: 7}})
        page = dataclasses.replace(proof, events=(event,)).html()
        assert f"<strong>7</strong> {escape(said(FORETOLD[rule]))}" in page


def test_every_decision_has_its_words():
    assert set(DECIDED) == set(DECISIONS)
