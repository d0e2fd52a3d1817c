# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a move: complete or not, it says so, and claims nothing that was not looked at."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from infini.domains import archetypes
from infini.domains.board import Row
from infini.domains.events import Event
from infini.domains.observed import Difference, Parity, Tally
from infini.domains.plan import Options, make_plan
from infini.domains.reading import from_livedns
from infini.domains.report import DECIDED, Proof
from infini.domains.states import DECISIONS, State

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
    compared = {"queries": 424, "identical": 424, "expected": 0, "unexpected": []}
    events.append(Event(NOW, found.domain, "", "parity", compared))
    row = Row(found.domain, State.DONE, NOW, NOW)
    return Proof(row, tuple(events), NOW, plan.to_json(), PARITY, TALLY)


def test_a_whole_proof_is_clean(proof):
    assert proof.clean
    assert proof.to_json()["records"] == {"seen": 5, "identical": 3, "rewritten": 1, "dropped": 1, "blocked": 0}
    assert [one.state for one in proof.entered] == [State.EXPORTED, State.AUDITED, State.DONE]
    page = proof.html()
    assert "Le compte y est." in page
    assert "424 questions, 424 identiques" in page
    assert "<strong>0</strong> échecs sur 576 essais" in page
    assert "preuve d&#39;un certificat acheté chez Gandi" in page
    assert "Camille : accepté : www/TXT (&lt;b&gt;oui&lt;/b&gt;)" in page


@pytest.mark.parametrize(
    "missing",
    [
        {"plan": None},
        {"parity": None},
        {"parity": dataclasses.replace(PARITY, canary_caught=False)},
        {"parity": dataclasses.replace(PARITY, unexpected=(Difference("www", "A", "ns1.infini.test", "a", "b"),))},
        {"tally": None},
        {"tally": dataclasses.replace(TALLY, total=0)},
        {"tally": dataclasses.replace(TALLY, failed=1, failures=("www A: SERVFAIL",))},
    ],
)
def test_what_is_missing_is_said(proof, missing):
    partial = dataclasses.replace(proof, **missing)
    assert not partial.clean
    assert partial.to_json()["ok"] is False
    assert "La preuve n'est pas complète" in partial.html()


def test_an_account_that_is_wrong_is_no_proof(proof):
    for wrong in ({"seen": 6}, {"balanced": False}):
        assert not dataclasses.replace(proof, plan={**proof.plan, **wrong}).clean


def test_every_decision_has_its_words():
    assert set(DECIDED) == set(DECISIONS)
