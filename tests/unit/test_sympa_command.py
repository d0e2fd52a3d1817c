# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command that writes a Sympa down and takes another over, without a Sympa."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.hosting import sympa_command as command

ROBOT = "listes.velo.test"


class Tables:
    """A database with one row in each answer."""

    answer = "0"

    def __init__(self, name):
        assert name == "sympa"

    def ask(self, question):
        return iter([[self.answer]] if "COUNT" in question else [])


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Make a host with an empty Sympa, and record what is run on it."""
    ran = []
    for name in ("etc", "home", "arc"):
        (tmp_path / name).mkdir()
    for constant, name in (("ETC", "etc"), ("HOME", "home"), ("ARCHIVES", "arc")):
        monkeypatch.setattr(command, constant, str(tmp_path / name))
    monkeypatch.setattr(command, "Database", Tables)
    monkeypatch.setattr(command, "sympa", lambda *words: ran.append("sympa " + " ".join(words)))
    monkeypatch.setattr(command, "_copy", lambda source, place: ran.append(f"copy {source.name} {place.name}"))
    monkeypatch.setattr(command, "_run", lambda words, **_: ran.append(words[0]))
    monkeypatch.setattr(command, "write_all_addresses", lambda *_: ran.append("addresses"))
    monkeypatch.setattr(command.subprocess, "run", lambda words, **_: ran.append(" ".join(words[:2])))
    return tmp_path, ran


@pytest.fixture
def other(tmp_path):
    """Write the folders of another Sympa."""
    folder = tmp_path / "other"
    (folder / "list_data" / ROBOT / "amis").mkdir(parents=True)
    (folder / "etc" / ROBOT).mkdir(parents=True)
    (folder / "etc" / ROBOT / "robot.conf").write_text("listmaster a@x.test\n")
    (folder / "sympa.sql").write_text("")
    return folder


def test_an_empty_sympa_takes_over_another(host, other, capsys):
    assert command.main(["import", str(other)]) == 0
    assert host[1] == [
        "systemctl stop",
        "mariadb",
        f"copy {ROBOT} {ROBOT}",
        f"copy {ROBOT} {ROBOT}",
        "sympa upgrade",
        "sympa sync_list_db",
        "addresses",
        "systemctl start",
    ]
    assert json.loads(capsys.readouterr().out) == {"lists": 0, "subscriptions": 0}


@pytest.mark.parametrize("there", [f"home/{ROBOT}/amis", f"etc/{ROBOT}/robot.conf"])
def test_what_is_here_is_not_replaced(host, other, capsys, there):
    (host[0] / there).mkdir(parents=True)
    assert command.main(["import", str(other)]) == 2
    assert f"{there} is here already" in capsys.readouterr().err
    assert host[1] == []


def test_an_import_that_broke_off_leaves_mail_waiting_and_says_so(host, other, capsys, monkeypatch):
    def broken(words, **_):
        raise command.SympaError(f"{words[0]} failed: no space")

    monkeypatch.setattr(command, "_run", broken)
    assert command.main(["import", str(other)]) == 4
    assert "mariadb failed: no space. Only a part of that Sympa is here" in capsys.readouterr().err
    assert host[1] == ["systemctl stop"]


def test_an_export_leaves_out_what_waits_for_a_listmaster(host, capsys):
    for name, status in (("amis", "open"), ("vieux", "closed"), ("futur", "pending")):
        folder = host[0] / "home" / ROBOT / name
        folder.mkdir(parents=True)
        (folder / "config").write_text(f"subject x\n\nstatus {status}\n")
        (folder / "owner.dump").write_text("email anne@x.test\n\n")
    assert command.main(["export", str(host[0] / "out")]) == 0
    told = json.loads((host[0] / "out/sympa.json").read_text())["sympa_lists"]
    assert {one["name"]: [owner["email"] for owner in one["owners"]] for one in told} == {
        "amis": [],
        "vieux": ["anne@x.test"],
    }
    assert json.loads(capsys.readouterr().out)["lists"] == 2
