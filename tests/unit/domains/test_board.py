# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board: rows from evidence, what is urgent first, what is late in red, and nothing that a name could break."""

import csv
import dataclasses
import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from infini.domains import board
from infini.domains.board import Board, Row
from infini.domains.events import Event, LocalStore
from infini.domains.observed import Delegation, DomainFacts, ParentAnswer, Parity, Tally, TransferOrder
from infini.domains.registries import rule_for
from infini.domains.states import SIDE, Evidence, State, Verdict
from infini.phrase import said

NOW = datetime(2026, 3, 20, 9, 0, tzinfo=UTC)


def days(count):
    return NOW + timedelta(days=count)


def row(domain="velo.test", state=State.PARITY_OK, **more):
    return Row(**{"domain": domain, "state": state, "since": days(-2), "seen": NOW, "reason": "on compare", **more})


def evidence(**more):
    facts = DomainFacts("velo.test", days(40), days(-900), registrar_lock=True, name_unicode="vélo.test")
    parent = ParentAnswer("a.nic.test", frozenset({"ns1.infini.test"}), frozenset({"1 13 2 AB"}))
    return Evidence(
        "velo.test",
        NOW,
        facts=facts,
        rule=rule_for("velo.fr"),
        delegation=Delegation("velo.test", (parent,)),
        parity=Parity("velo.test", days(-1), "x", 424, 420, canary_caught=True),
        tally=Tally("velo.test", days(-1), NOW, 288, 3),
        mail_mode="infini",
        mailboxes=("A@velo.test", "b@velo.test"),
        mail_settled=frozenset({"a@velo.test"}),
        **more,
    )


def test_a_row_says_what_the_evidence_says():
    verdict = Verdict(State.PARITY_OK, State.TTL_LOWERED, False, "patience", days(1), "gandi", side=State.WAITING)
    found = board.row(evidence(), verdict, days(-3))
    assert (found.state, found.side, found.who, found.waiting_until) == (
        State.PARITY_OK,
        State.WAITING,
        "gandi",
        days(1),
    )
    assert (found.shown, found.tld, found.expires) == ("vélo.test", "fr", days(40))
    assert (found.mailboxes, found.mailboxes_left) == (2, 1)
    assert (found.probe_total, found.probe_failed, found.parity_queries) == (288, 3, 424)
    assert (found.ds, found.locked, found.since) == (True, True, days(-3))
    assert found.going_back is None
    assert board.row(evidence(rollback_to=State.CONSENTED), verdict).going_back == State.CONSENTED


@pytest.mark.parametrize(("said_until", "due"), [(NOW, days(8)), (None, days(8)), (days(9), days(9))])
def test_a_transfer_is_over_at_the_registry_s_term_or_later(said_until, due):
    order = TransferOrder("7", "pending", until=said_until)
    verdict = Verdict(State.TRANSFER_PENDING, State.TRANSFERRED, False, "en cours")
    assert board.row(evidence(order=order, ordered_at=NOW), verdict).deadline == due


def test_a_row_survives_its_store(tmp_path):
    store = LocalStore(tmp_path)
    store.append(Event(days(-9), "velo.test", "", "discovered"))
    store.append(Event(days(-9), "inconnu.test", "", "discovered"))
    seen = row(side=State.BLOCKED, next=State.TTL_LOWERED, expires=days(9), waiting_until=days(1))
    board.keep(store, seen)
    found = board.read(store, NOW)
    assert seen in found.rows
    assert [one.state for one in found.rows if one.domain == "inconnu.test"] == [State.DISCOVERED]


def test_data_of_a_later_version_is_read():
    assert Row.from_json({**row().to_json(), "colour": "green"}) == row()


def test_what_needs_somebody_comes_first_and_what_is_over_last():
    rows = (
        row("done.test", State.DONE),
        row("waits.test", side=State.WAITING, waiting_until=days(3)),
        row("goes.test"),
        row("blocked.test", State.EXPORTED, side=State.BLOCKED, code="alias", who="volunteer"),
        row("member.test", State.AUDITED, side=State.BLOCKED, code="consent-missing", who="member"),
    )
    seen = Board(rows, NOW)
    assert [one.domain for one in seen.ordered] == [
        "blocked.test",
        "member.test",
        "waits.test",
        "goes.test",
        "done.test",
    ]
    assert [one.domain for one in seen.waiting_for("volunteer")] == ["blocked.test"]
    assert [one.domain for one in seen.waiting_for("tool")] == ["goes.test"]
    assert seen.codes == {"alias": 1, "consent-missing": 1}
    assert sum(seen.counts.values()) == 5
    assert list(seen.calendar) == [board.date(days(3))]


@pytest.mark.parametrize(
    ("more", "late"),
    [
        ({"since": days(-15)}, True),
        ({"since": days(-14)}, False),
        ({"since": days(-15), "waiting_until": days(1)}, False),
        ({"since": days(-15), "waiting_until": days(-1)}, True),
        ({"since": days(-15), "state": State.DONE}, False),
        ({"since": days(-15), "side": State.ABANDONED}, False),
    ],
)
def test_what_does_not_move_is_told(more, late):
    one = row(**more)
    assert Board((one,), NOW).stuck(one) is late


@pytest.mark.parametrize(("expires", "soon"), [(days(59), True), (days(61), False), (None, False)])
def test_what_expires_soon_is_told(expires, soon):
    one = row(expires=expires)
    assert Board((one,), NOW).soon(one) is soon
    assert not Board((one,), NOW).soon(dataclasses.replace(one, state=State.DONE))


def test_the_table_shows_each_domain():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(Board((row(), row("xn--t-9fab.test", State.DONE)), NOW).table())
    text = console.export_text()
    assert "velo.test" in text
    assert "été.test" in text
    assert "terminé" in text


def test_a_spreadsheet_reads_the_csv_and_runs_nothing():
    text = Board((row(reason='=HYPERLINK("x");a'), row("b.test")), NOW).csv()
    rows = list(csv.DictReader(io.StringIO(text), delimiter=";"))
    assert [one["domain"] for one in rows] == ["b.test", "velo.test"]
    assert rows[1]["reason"].startswith("'=")
    assert rows[0]["since"] == days(-2).isoformat()


def test_the_page_says_everything_and_lets_nothing_in():
    rows = (row(reason="<script>alert(1)</script>", expires=days(3)), row("fini.test", State.DONE, since=days(-30)))
    page = Board(rows, NOW).html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "Terminés : 1 sur 2" in page
    assert f"expire le {board.date(days(3))}" in page
    assert "http" not in page.replace("http-equiv", ""), "the page fetches nothing"


def test_a_move_that_is_taken_back_says_so():
    back = row(going_back=State.CONSENTED, next=State.TTL_LOWERED)
    page = Board((back,), NOW).html()
    assert "revient en arrière, vers</dt><dd>accord donné" in page
    assert "étape suivante" not in page
    assert Row.from_json(back.to_json()) == back


def test_an_empty_board_has_a_page():
    assert "0 sur 0" in Board((), NOW).html()


def test_every_state_has_its_words():
    assert set(board.STATES) == set(State)
    for side in (None, *SIDE):
        assert row(side=side).label
    rows = tuple(
        row(f"d{i}.test", state, side=State.BLOCKED if i % 2 else None)
        for i, state in enumerate(State)
        if state not in SIDE
    )
    assert all(said(board.STATES[one.state]) in Board(rows, NOW).html() for one in rows)


def test_files_are_written_where_they_are_wanted(tmp_path):
    seen = Board((row(),), NOW)
    assert board.write(seen) == []
    assert board.write(seen, tmp_path / "a.html", tmp_path / "a.csv") == [tmp_path / "a.html", tmp_path / "a.csv"]
    assert (tmp_path / "a.csv").read_text().startswith("domain;")


def test_the_object_for_programs():
    found = Board(
        (row(), row("b.test", State.DONE), row("c.test", side=State.FAILED, code="alias", expires=days(1))), NOW
    )
    answer = found.to_json()
    assert (answer["domains"], answer["done"], answer["blocked"]) == (3, 1, {"alias": 1})
    assert answer["expires_soon"] == ["c.test"]
    assert [one["domain"] for one in answer["rows"]] == ["c.test", "velo.test", "b.test"]
