# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to type next: whatever stops a domain, a command of ours that can be typed as it stands."""

import dataclasses

import pytest
import typer

from infini.domains import hints
from infini.domains.archetypes import load
from infini.domains.board import Row
from infini.domains.cli import QUESTIONS, domains_app
from infini.domains.hints import STEP
from infini.domains.rehearsal import Rehearsal
from infini.domains.simulator.clock import START
from infini.domains.states import DECISIONS, State

NAME = "courrier.test"
COMMANDS = typer.main.get_command(domains_app).commands
BLOCKED = Row(NAME, State.SETTLED, START, START, "voilà", State.BLOCKED, who="volunteer")


@pytest.fixture(scope="module")
def move(tmp_path_factory):
    """A domain with two mailboxes, whose export is made."""
    rehearsal = Rehearsal([load("mail_only")], tmp_path_factory.mktemp("hints"))
    with rehearsal.at(NAME) as move:
        move.run_until_blocked()
        yield move


def words(found):
    return [" ".join(hint.words) for hint in found]


def row(**changes):
    return dataclasses.replace(BLOCKED, **changes)


@pytest.mark.parametrize("code", [*sorted(hints.BY_CODE), "alias", "token-expired", "servers-silent", ""])
@pytest.mark.parametrize("who", ["volunteer", "member"])
@pytest.mark.parametrize("back", [None, State.CONSENTED])
@pytest.mark.parametrize("rehearsed", [False, True])
def test_every_hint_is_a_command_that_goes_through(move, code, who, back, rehearsed):
    found = hints.hints(move, row(code=code, who=who, going_back=back), rehearsed)
    assert found
    for hint in found:
        if hint is STEP:
            continue
        COMMANDS[hint.words[0]].make_context(hint.words[0], [*hint.words[1:], "-i", "production"]).close()
        if hint.words[0] == "decide":
            given = {field.partition("=")[0] for field in hint.words[3:]}
            assert given <= set(DECISIONS[hint.words[2]])
            assert set(DECISIONS[hint.words[2]]) - given <= set(QUESTIONS), "the rest is asked for at the terminal"


def test_a_move_that_is_over_needs_nothing(move):
    assert hints.hints(move, row(state=State.DONE, side=None)) == []
    assert hints.hints(move, row(side=State.ABANDONED)) == []


def test_what_is_taken_back_goes_on_backwards(move):
    back = row(side=State.WAITING, waiting_until=START, going_back=State.PARITY_OK)
    assert words(hints.hints(move, back)) == [f"rollback {NAME} --to PARITY_OK --apply"]
    assert hints.hints(move, back, rehearsed=True) == [STEP]
    done = dataclasses.replace(back, side=State.ROLLED_BACK, waiting_until=None)
    assert words(hints.hints(move, done)) == [f"decide {NAME} resume"]


def test_what_is_known_stands_in_the_command(move):
    boxes = words(hints.hints(move, row(code="mail-not-copied")))
    assert boxes == [
        f"decide {NAME} mail-copied address={box}" for box in ("bureau@courrier.test", "tresor@courrier.test")
    ]
    assert words(hints.hints(move, row(code="price-unconfirmed"))) == [f"decide {NAME} price"]


def test_a_member_is_written_to_first(move):
    asked = row(state=State.AUDITED, code="consent-missing", who="member")
    assert words(hints.hints(move, asked)) == [f"message {NAME}", f"decide {NAME} consent"]


@pytest.mark.parametrize(
    ("state", "action", "then"),
    [
        (State.UNLOCKED, "hold-code", ["code"]),
        (State.AUTHCODE_HELD, "reset-code", ["code"]),
        (State.DISCOVERED, "export", ["paste"]),
        (State.PARITY_OK, "lower-ttls", []),
    ],
)
def test_what_a_member_gives_is_taken_in(move, state, action, then):
    asked = row(state=state, code="by-hand", action=action, who="member")
    assert [hint.words[0] for hint in hints.hints(move, asked)] == ["message", *then, "advance"]
