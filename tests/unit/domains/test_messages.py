# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What members read: a message for each step, the right one, in words of theirs."""

import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy

import pytest

from infini.domains import archetypes, messages
from infini.domains.board import Row, date
from infini.domains.states import State
from infini.errors import RefusedError

NOW = datetime(2026, 3, 20, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=8)
JARGON = re.compile(
    r"\b(DNS|DNSSEC|TTL|DS|NS|SOA|MX|rrset|EPP|auth[- ]?code|API|token|registrar|zone|serveurs? de noms)\b"
)


def row(state=State.AUDITED, **more):
    return Row(
        **{"domain": "xn--t-9fab.test", "state": state, "since": NOW, "seen": NOW, "reason": "Cliquez là.", **more}
    )


@pytest.mark.parametrize(
    ("one", "kind"),
    [
        (row(State.DISCOVERED, side=State.BLOCKED, who="member", code="by-hand"), "zone"),
        (row(State.EXPORTED, side=State.BLOCKED, code="alias"), "question"),
        (row(State.EXPORTED, side=State.BLOCKED, code="unheard-of"), ""),
        (row(State.EXPORTED, side=State.BLOCKED, code="expires-soon"), "renouveler"),
        (row(State.AUDITED, side=State.BLOCKED, code="consent-missing", who="member"), "accord"),
        (row(State.CONSENTED), ""),
        (row(State.PARITY_OK), "bascule"),
        (row(State.PARITY_OK, mail="infini", mailboxes_left=2), "courrier"),
        (row(State.PARITY_OK, who="member"), "consigne"),
        (row(State.NS_SWITCHED), "verifier"),
        (row(State.SETTLED, mailboxes_left=1), "courrier"),
        (row(State.UNLOCKED, who="member"), "consigne"),
        (row(State.TRANSFER_PENDING, who="registry"), "transfert"),
        (row(State.AUTHCODE_HELD, side=State.BLOCKED, code="transfer-refused"), "refus"),
        (row(State.DONE), "fini"),
        (row(State.AUDITED, side=State.ABANDONED), ""),
        (row(State.PARITY_OK, going_back=State.CONSENTED), ""),
        (row(State.PARITY_OK, side=State.ROLLED_BACK, going_back=State.CONSENTED), ""),
        (
            row(State.NS_SWITCHED, side=State.BLOCKED, code="by-hand", who="member", going_back=State.CONSENTED),
            "consigne",
        ),
    ],
)
def test_each_step_has_its_message(one, kind):
    assert messages.due(one) == kind
    assert (messages.message(one) is None) is (not kind)


@pytest.mark.parametrize("kind", messages.kinds())
@pytest.mark.parametrize("when", [None, LATER])
def test_a_message_is_ready_to_send(kind, when):
    found = messages.message(row(waiting_until=when, expires=when), kind, ["a@été.test"])
    text = found.text()
    assert "été.test" in found.subject
    assert found.body.startswith("Bonjour,\n\n")
    assert found.body.endswith("\n\nL'équipe technique d'Infini\n")
    assert not re.search(r"[{}]|\n\n\n|  \n|\bNone\b", text), text
    assert max(map(len, found.body.splitlines())) <= 72
    assert not JARGON.search(text)
    assert ("Cliquez là." in text) is (kind in {"zone", "consigne", "question"})


def test_dates_are_said_where_they_help():
    assert date(LATER) in messages.message(row(State.TRANSFER_PENDING, deadline=LATER)).body
    assert date(LATER) in messages.message(row(State.DONE, expires=LATER)).body


def test_a_question_is_asked_for_what_a_member_alone_can_say():
    for code, question in messages.questions().items():
        assert question.endswith("?")
        assert not JARGON.search(question)
        asked = messages.message(row(State.EXPORTED, side=State.BLOCKED, code=code)).body
        assert " ".join(question.split()) in " ".join(asked.split())
    theirs = {archetypes.load(name).blocked for name in archetypes.names()} - {""}
    ours = {"name-dot-missing", "locked-60-days", "wrong-organisation"}  # a volunteer's to mend
    assert theirs - ours <= set(messages.questions()) | set(messages._BLOCKED)


def test_instructions_keep_their_lines():
    steps = "1. Ouvrez votre compte.\n2. Cliquez."
    assert steps in messages.message(row(State.UNLOCKED, who="member", reason=steps)).body


def test_a_mail_is_a_mail():
    made = messages.message(row(State.DONE)).mail("techs@infini.test", "asso@été.test")
    read = message_from_bytes(made.as_bytes(policy=policy.SMTPUTF8), policy=policy.default)
    assert read["Subject"] == "été.test a quitté Gandi"
    assert "C'est terminé" in read.get_content()


def test_an_unknown_message_is_refused():
    with pytest.raises(RefusedError, match="accord, zone"):
        messages.message(row(), "bonjour")
