# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The `alternc_*` modules as Ansible runs them, with a host that answers for the database and for the door."""

from __future__ import annotations

import importlib
import json

import alternc_world as world
import pytest
from ansible.module_utils.hosting import alternc_door
from ansible.module_utils.testing import patch_module_args

VELO = {"login": "velo", "name": "Velo", "first_name": "Asso", "mail": "velo@ailleurs.test"}
CHORALE = {"login": "chorale", "name": "Chorale", "first_name": "Asso", "mail": "chorale@ailleurs.test"}


class Host:
    """Answers for mariadb and for door.php, and remembers what the door was asked."""

    def __init__(self, monkeypatch, tmp_path):
        self.calls, self.refused, self.broken = [], {}, None
        self.database = (0, world.answer(), "")
        self.lock = tmp_path / "jobs-lock"
        configuration = tmp_path / "my.cnf"
        configuration.touch()
        monkeypatch.setattr(alternc_door, "CONFIGURATION", str(configuration))
        monkeypatch.setattr(alternc_door, "JOBS_LOCK", str(self.lock))
        monkeypatch.setattr(alternc_door, "run", self.run)

    def run(self, argv, data=""):
        if argv[0] == "mariadb":
            return self.database
        assert [*argv[:4]] == ["runuser", "-u", "alterncpanel", "--"]
        asked = json.loads(data)["calls"]
        self.calls += asked
        if self.broken:
            return self.broken
        done = [self.answer(call) for call in asked]
        return int(not all(one["ok"] for one in done)), json.dumps({"done": done}), ""

    def answer(self, call):
        if call["do"] == "verify":
            return {"ok": True, "fits": [one["password"] == "Current9?xyz" for one in call["of"]]}
        sides = {**call.get("was", {}), **call.get("want", {})}
        why = next((why for key, why in self.refused.items() if key in map(str, sides.values())), None)
        return {"ok": False, "error": why} if why else {"ok": True}


@pytest.fixture
def host(monkeypatch, tmp_path):
    return Host(monkeypatch, tmp_path)


def run(capsys, name, **options):
    module = importlib.import_module(name)
    with patch_module_args(options), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def test_nothing_to_do_asks_the_door_nothing(capsys, host):
    result = run(capsys, "alternc_members", members=[VELO, CHORALE])
    assert not result["changed"]
    assert not host.calls


def test_what_is_missing_is_made(capsys, host):
    result = run(capsys, "alternc_members", members=[VELO, CHORALE, {"login": "amap", "password": "Panier9?ab"}])
    assert result["created"] == ["amap"]
    assert [call["do"] for call in host.calls] == ["member.create"]
    assert host.calls[0]["password"] == "Panier9?ab"
    assert "Panier9" not in json.dumps(result)


def test_check_mode_says_and_writes_nothing(capsys, host):
    result = run(capsys, "alternc_members", members=[VELO], _ansible_check_mode=True, _ansible_diff=True)
    assert result["shut"] == ["chorale"]
    assert not host.calls
    assert "chorale: enabled no" in result["diff"]["after"]


def test_what_alternc_refuses_is_said_with_what_was_done(capsys, host):
    host.refused = {"amap": "This login already exists"}
    result = run(capsys, "alternc_members", members=[{**VELO, "notes": "x"}, CHORALE, {"login": "amap"}])
    assert result["failed"]
    assert result["changed"]
    assert result["msg"].startswith("1 of 2 changes were not made: create member amap (This login already exists).")
    assert result["done"] == ["change member velo"]


def test_an_end_in_the_middle_is_said(capsys, host):
    host.broken = (1, json.dumps({"done": [{"ok": True}], "fatal": "No space left on device"}), "")
    members = [{**VELO, "notes": "x"}, {**CHORALE, "notes": "y"}]
    result = run(capsys, "alternc_members", members=members)
    assert "the disk is full, make room" in result["msg"]
    assert result["done"] == ["change member chorale"]
    assert result["untried"] == ["change member velo"]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (
            (255, "PHP Fatal error: x", "Killed\n"),
            "ended with code 255 and no answer (Killed): what was done is not known",
        ),
        ((1, "", "runuser: user alterncpanel does not exist"), "user alterncpanel does not exist"),
        ((2, json.dumps({"done": [], "fatal": "the panel database does not answer"}), ""), "nothing was changed"),
    ],
)
def test_a_door_that_does_not_open(capsys, host, broken, sentence):
    host.broken = broken
    assert sentence in run(capsys, "alternc_members", members=[VELO])["msg"]


def test_a_database_that_is_down(capsys, host):
    host.database = (1, "", "ERROR 2002 (HY000): Can't connect to server\n")
    result = run(capsys, "alternc_members", members=[VELO])
    assert result["msg"].startswith("the panel database does not answer (ERROR 2002")


def test_an_alternc_in_the_middle_of_its_installation(capsys, host):
    host.lock.touch()
    assert "AlternC is locked" in run(capsys, "alternc_members", members=[VELO])["msg"]
    assert not host.calls
    assert not run(capsys, "alternc_members", members=[VELO, CHORALE])["changed"]


@pytest.mark.usefixtures("host")
def test_no_alternc(capsys, monkeypatch):
    monkeypatch.setattr(alternc_door, "CONFIGURATION", "/nonexistent")
    assert "AlternC is not installed" in run(capsys, "alternc_members", members=[VELO])["msg"]
    assert run(capsys, "alternc_members", members=[VELO], _ansible_check_mode=True)["created"] == ["velo"]


def test_passwords_are_compared_by_the_door(capsys, host):
    box = {"address": "contact@velo.fr", "mailbox": True, "quota_mb": 100, "password": "Current9?xyz"}
    bureau = {"address": "bureau@velo.fr", "forwards": ["contact@velo.fr", "ami@ailleurs.org"]}
    assert not run(capsys, "alternc_mailboxes", mailboxes=[box, bureau], update_password="always")["changed"]
    box["password"] = "Another9?xyz"
    result = run(capsys, "alternc_mailboxes", mailboxes=[box, bureau], update_password="always")
    assert result["mended"] == ["contact@velo.fr"]
    assert [call["do"] for call in host.calls] == ["verify", "verify", "mailbox.change"]


def test_all_rows_of_a_new_domain_may_be_confirmed_at_once(capsys, host):
    rows = [{"domain": "velo.fr", "sub": "x", "type": "txt", "value": "y"}]
    options = {"subdomains": rows, "ignore": []}
    said = run(capsys, "alternc_subdomains", **options, confirm_domains=["chorale.fr"])
    assert "4 of 5 sub-domains would be removed at once" in said["msg"]
    assert not host.calls
    assert len(run(capsys, "alternc_subdomains", **options, confirm_domains=["velo.fr"])["removed"]) == 4


def test_databases_come_before_their_users(capsys, host):
    them = world.rows()
    next(one for one in them if one["set"] == "quotas" and one["uid"] == 2001 and one["quota"] == "mysql")["value"] = 5
    host.database = (0, world.answer(them), "")
    users = [{"name": "velo", "member": "velo", "databases": ["velo", "velo_b"]}, {"name": "velo_b", "member": "velo"}]
    databases = [{"name": "velo", "member": "velo"}, {"name": "velo_b", "member": "velo"}]
    run(capsys, "alternc_databases", databases=databases, users=users)
    assert [call["do"] for call in host.calls] == ["database.create", "database_user.change", "database_user.create"]


def test_every_other_module_finds_its_own_set(capsys, host):
    types = [{"name": "php83-fpm", "target": "DIRECTORY", "compatibility": ["TXT"], "has_https_option": True}]
    runs = {
        "alternc_domains": {"domains": [{"name": "velo.fr", "member": "velo"}], "prune": False},
        "alternc_subdomains": {
            "subdomains": [{"domain": "velo.fr", "sub": "x", "type": "TXT", "value": "y"}],
            "prune": False,
        },
        "alternc_ftp_accounts": {"accounts": [{"name": "velo_site", "member": "velo", "directory": "/www"}]},
        "alternc_domain_types": {"types": types},
        "alternc_variables": {"variables": {"force_https": True}},
        "alternc_quotas": {"members": {"velo": {"dom": 9}}},
    }
    changed = {name: run(capsys, name, **options)["changed"] for name, options in runs.items()}
    assert changed == {name: name not in ("alternc_domains", "alternc_ftp_accounts") for name in runs}
    assert [call["do"] for call in host.calls] == [
        *("subdomain.create", "domain_type.create", "variable.change", "quota.change")
    ]
    assert host.calls[2]["want"]["value"] == "1"


def test_an_export_is_a_file_for_root_alone(capsys, host, tmp_path):
    dest = tmp_path / "panel.json"
    result = run(capsys, "alternc_export", dest=str(dest), secrets=True)
    assert result["changed"]
    assert "data" not in result
    assert result["counts"]["members"] == 3
    assert dest.stat().st_mode & 0o777 == 0o600
    assert "enclair" in dest.read_text()
    assert "enclair" not in json.dumps(result)
    assert not run(capsys, "alternc_export", dest=str(dest), secrets=True)["changed"]
    assert not host.calls


def test_an_export_refuses_what_it_must_not(capsys, host, tmp_path):
    assert "written to a file" in run(capsys, "alternc_export", secrets=True)["msg"]
    dest = str(tmp_path / "x")
    assert "never anonymised" in run(capsys, "alternc_export", secrets=True, anonymise=True, dest=dest)["msg"]
    assert "no member of this panel" in run(capsys, "alternc_export", member="nobody")["msg"]
    assert "velo" not in json.dumps(run(capsys, "alternc_export", anonymise=True)["data"])
    assert not host.calls
