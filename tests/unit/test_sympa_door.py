# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sympa's files and database as they may be found after twenty years: other charsets, odd characters, broken memory."""

from __future__ import annotations

import pytest
from ansible.module_utils.hosting.sympa import SympaError
from ansible.module_utils.hosting.sympa_door import Database, Folders, load_known, read_subscribers

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
