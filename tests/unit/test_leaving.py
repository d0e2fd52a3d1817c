# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a member who has left may be deleted: each fact that is missing keeps him, and says so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest.mock import Mock

import alternc_world as world
import pytest
import test_alternc_modules as modules

from hosting import leaving
from hosting.alternc_data import parse
from hosting.alternc_export import counts, export
from infini import leaving as commands
from infini.errors import RefusedError

NOW = 1_790_000_000.0
DAY = 86400


def rows():
    return [
        {**row, "enabled": int(row.get("login") != "velo")} if row["set"] == "members" else row for row in world.rows()
    ]


PANEL = parse(world.answer(rows()))
HOLDS = counts(export(PANEL, "velo"))


def refusal(login="velo", **facts):
    known = {
        "shut": {login: NOW - 30 * DAY},
        "handed": {"members": [{"login": login}]},
        "backups": {login: {"taken": NOW - DAY, "holds": HOLDS}},
        "panel": PANEL,
        "now": NOW,
        **facts,
    }
    return leaving.refusal(login, **known)


def test_a_member_who_left_a_month_ago_and_is_in_a_backup_may_go():
    assert HOLDS["mailboxes"] == 2
    assert refusal() == ""


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"login": "nobody"}, r"nobody is no member of this panel: .*"),
        ({"login": "admin"}, r"admin is AlternC's own administrator: it stays"),
        ({"login": "chorale"}, r"chorale is not frozen: `./infini leave chorale` first, and 30 days later this"),
        ({"shut": {}}, r"it is not known since when velo is frozen: .*"),
        (
            {"shut": {"velo": NOW - 30 * DAY + 1}},
            r"velo is frozen since 2026-08-\d\d: this may be done from 2026-09-\d\d on",
        ),
        ({"handed": {}}, r"no export of velo was handed over: .*"),
        ({"handed": {"members": [{"login": "chorale"}]}}, r"no export of velo was handed over: .*"),
        ({"backups": {}}, r"no backup is known to hold velo: /var/lib/infini/backups/verified.json does not name .*"),
        ({"backups": {"velo": "yes"}}, r"no backup is known to hold velo: .*"),
        (
            {"backups": {"velo": {"taken": NOW - 8 * DAY, "holds": HOLDS}}},
            r"no backup is known to hold velo as it is now: .* 2026-09-\d\d; make one",
        ),
        (
            {"backups": {"velo": {"taken": NOW + DAY, "holds": HOLDS}}},
            r"no backup is known to hold velo as it is now: .*",
        ),
        (
            {"backups": {"velo": {"taken": NOW - DAY, "holds": {**HOLDS, "mailboxes": 1}}}},
            r"no backup is known to hold velo wholly: the one of 2026-09-\d\d holds 1 mailboxes of 2; make another",
        ),
        (
            {"backups": {"velo": {"taken": NOW - DAY}}},
            r"no backup is known to hold velo wholly: .* holds 0 members of 1, .*",
        ),
    ],
)
def test_what_is_missing_keeps_him_in_one_sentence(facts, why):
    assert re.fullmatch(why, refusal(**facts))


def test_a_member_goes_from_one_panel_at_a_time(monkeypatch):
    monkeypatch.setattr(commands, "Inventory", lambda _path: Mock(hosts=lambda _limit: ["panel", "panel2"]))
    monkeypatch.setattr(commands, "apply", Mock(side_effect=AssertionError))
    with pytest.raises(RefusedError, match="here are panel, panel2: name one by --limit"):
        commands.leave("velo", "staging", Path("velo.json"))
    with pytest.raises(RefusedError, match="--limit"):
        commands.purge("velo", "staging")


@pytest.fixture
def host(monkeypatch, tmp_path):
    """Give a host whose facts stand in files."""
    from ansible.module_utils.hosting import leaving as on_host

    found = modules.Host(monkeypatch, tmp_path)
    found.database = (0, world.answer(rows()), "")
    monkeypatch.setattr(on_host, "ENGINE", tmp_path / "state.json")
    monkeypatch.setattr(on_host, "EXPORTS", tmp_path)
    monkeypatch.setattr(on_host, "BACKUPS", tmp_path / "verified.json")
    monkeypatch.setattr(on_host.time, "time", lambda: NOW)
    return found


def facts(folder):
    (folder / "state.json").write_text(json.dumps({"shut": {"velo": NOW - 31 * DAY}}))
    (folder / "velo.json").write_text(json.dumps({"members": [{"login": "velo"}]}))
    (folder / "verified.json").write_text(json.dumps({"velo": {"taken": NOW, "holds": HOLDS}}))


def test_the_module_refuses_and_asks_the_door_nothing(capsys, host, tmp_path):
    said = modules.run(capsys, "alternc_purge", member="velo")
    assert said["refused"]
    assert said["msg"].startswith("it is not known since when velo is frozen")
    facts(tmp_path)
    (tmp_path / "verified.json").write_text("{half")
    assert modules.run(capsys, "alternc_purge", member="velo")["msg"].startswith("no backup is known")
    assert not host.calls


def test_the_module_deletes_this_member_and_nobody_else(capsys, host, tmp_path):
    facts(tmp_path)
    said = modules.run(capsys, "alternc_purge", member="velo", _ansible_check_mode=True, _ansible_diff=True)
    assert (said["removed"], host.calls) == (["velo"], [])
    assert "member velo" in said["diff"]["before"]
    assert modules.run(capsys, "alternc_purge", member="velo")["removed"] == ["velo"]
    assert [(call["do"], call["was"]["login"]) for call in host.calls] == [("member.remove", "velo")]
