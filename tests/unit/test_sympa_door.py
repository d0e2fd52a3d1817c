# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sympa's files and database as they may be found after twenty years: other charsets, odd characters, broken memory."""

from __future__ import annotations

import pytest
from ansible.module_utils.hosting import sympa_door
from ansible.module_utils.hosting.sympa import SympaError
from ansible.module_utils.hosting.sympa_door import (
    Database,
    Folders,
    Load,
    load_known,
    read_subscribers,
    subscriber_statements,
)
from ansible.module_utils.hosting.sympa_subscribers import ListPlan, Subscriber

AMIS = "amis@listes.velo.test"


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Put a client of MariaDB in front of others that says what the test wants."""

    def client(said):
        (tmp_path / "said").write_bytes(said)
        program = tmp_path / "mariadb"
        program.write_text(f"#!/bin/sh\ncat > {tmp_path}/asked\ncat {tmp_path}/said\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return Database("sympa")

    return client


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Keep the lines that the server would read, where what a killed run left is still there."""
    monkeypatch.setattr(sympa_door, "LINES", tmp_path / "rows")
    monkeypatch.setattr(sympa_door, "chown", lambda *_: None)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/left").touch()
    return tmp_path / "rows"


def test_new_subscribers_are_one_change_and_nothing_is_left_of_their_lines(client, rows, tmp_path):
    database = client(b"")
    new = {"d@x.test": Subscriber("D'Artagnan \\o/"), "e@x.test": Subscriber("", "digest", "conceal", 7)}
    loads = list(subscriber_statements({AMIS: ListPlan(add=new)}, 9))
    texts = [list(load.lines) for load in loads]
    assert texts[0] == [
        "amis\tlistes.velo.test\td@x.test\tD'Artagnan \\\\o/\tmail\tnoconceal\t9\t9\t1\t0\n",
        "amis\tlistes.velo.test\te@x.test\t\\N\tdigest\tconceal\t7\t7\t1\t0\n",
    ]
    assert texts[1] == ["d@x.test\tD'Artagnan \\\\o/\n", "e@x.test\t\\N\n"]
    database.write([*loads, "UPDATE x"])
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[1] == "START TRANSACTION;"
    assert asked[2].startswith(f"LOAD DATA INFILE '{rows}/0' IGNORE INTO TABLE subscriber_table CHARACTER SET utf8mb4")
    assert asked[4:] == ["UPDATE x;", "COMMIT;"]
    assert not rows.exists()


def test_new_subscribers_come_in_the_order_of_the_tables_key():
    other = "zoo@atelier.velo.test"
    plans = {
        AMIS: ListPlan(add={"b@x.test": Subscriber(), "c@x.test": Subscriber()}),
        other: ListPlan(add={"a@x.test": Subscriber(), "b@x.test": Subscriber("B")}),
    }

    def order(*key):
        load = next(iter(subscriber_statements(plans, 9, key)))
        cells = [line.split("\t") for line in load.lines]
        assert len(cells) == 4
        assert all(len(line) == len(load.columns) for line in cells)
        return [f"{line[2][0]} {line[0]}" for line in cells]

    assert order("list_subscriber", "robot_subscriber", "user_subscriber") == ["b amis", "c amis", "a zoo", "b zoo"]
    assert order("robot_subscriber", "list_subscriber", "user_subscriber") == ["a zoo", "b zoo", "b amis", "c amis"]
    assert order("user_subscriber", "list_subscriber", "robot_subscriber") == ["a zoo", "b amis", "b zoo", "c amis"]


def test_lines_that_cannot_be_written_change_nothing(client, rows, tmp_path):
    def full():
        raise OSError(28, "No space left on device")
        yield ""

    with pytest.raises(SympaError, match=r"No space left on device.: nothing was changed; make room"):
        client(b"").write([Load("user_table", ["email_user"], full())])
    assert "COMMIT" not in (tmp_path / "asked").read_text()
    assert not rows.exists()


def test_a_name_with_a_carriage_return_is_one_name(client):
    database = client(
        f"{AMIS}\ta@x.test\tAnne\r\\nB\tmail\tnoconceal\t1\n{AMIS}\tb@x.test\t\tmail\tconceal\t2\n".encode()
    )
    [(address, them)] = read_subscribers(database)
    assert (address, list(them)) == (AMIS, ["a@x.test", "b@x.test"])
    assert them["a@x.test"].name == "Anne\r\nB"


def test_a_list_that_was_never_converted_is_read_and_can_be_written(tmp_path):
    folder = tmp_path / "home/listes.velo.test/amis"
    folder.mkdir(parents=True)
    (folder / "config").write_bytes("subject L'été à 5 €…\n\nsend private\n".encode("cp1252"))
    (folder / "info").write_bytes("Œuvre".encode("cp1252"))
    folders = Folders(str(tmp_path / "etc"), str(tmp_path / "home"), owner="")
    [(address, one)] = folders.lists().items()
    assert (address, one.config.line("subject"), one.info) == (AMIS, "L'été à 5 €…", "Œuvre")
    folders.write_list(address, one, None)
    assert (folder / "config").read_text("utf-8").startswith("subject L'été à 5 €…\n")


def test_a_memory_that_is_damaged_is_no_empty_one(tmp_path):
    (tmp_path / "known.json").write_text('{"amis@')
    with pytest.raises(SympaError, match=r"known.json is damaged: bring it back from a backup"):
        load_known(tmp_path / "known.json")
    assert load_known(tmp_path / "none.json") == {}
