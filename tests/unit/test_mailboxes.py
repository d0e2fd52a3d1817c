# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door `mailboxes`: files written as one transaction, on a host that is a folder, Postfix's programs recorded."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
from pathlib import Path

import mailboxes
import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import mail_door, mail_records
from ansible.module_utils.testing import patch_module_args

HASH = "$6$rounds=20000$abcdefgh$" + "x" * 86
OWNER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name
GIVEN = {
    "host": "mx.infini.test",
    "postmaster": "techs@velo.test",
    "quota": "1G",
    "domains": [{"name": "velo.test", "account": "velo"}],
    "mailboxes": [{"address": "techs@velo.test", "password_hash": HASH}],
    "aliases": [{"address": "bureau@velo.test", "to": ["techs@velo.test"]}],
}
ADA = {"address": "ada@velo.test", "password_hash": HASH.replace("x", "z")}
MORE = {"mailboxes": [*GIVEN["mailboxes"], ADA]}
# Answers as Postfix does: postmap finds the key or fails, and says what it was asked.
PROGRAMS = {
    "postmap": 'echo "postmap $2 ${3##*/}" >>"$LOG"; grep -q "^$2 " "${3#texthash:}"',
    "postfix": 'echo "postfix $1" >>"$LOG"; test "$1" != status || test -e "$RUNNING"',
}


@pytest.fixture(autouse=True)
def host(tmp_path, monkeypatch):
    """A host in a folder, with Postfix running on it."""
    host = mail_door.Host(str(tmp_path), {**dict.fromkeys(mail_door.NAMES, GROUP), "owner": OWNER})
    Path(host.state, "dkim").mkdir(parents=True)
    Path(host.users).parent.mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("RUNNING", str(tmp_path / "running"))
    (tmp_path / "running").touch()
    monkeypatch.setattr(mail_door, "Host", lambda: host)
    monkeypatch.setattr(mail_records, "BITS", "1024")  # a longer key takes its time
    return host


@pytest.fixture
def run(tmp_path, capsys):
    """Call the module; return what it says and what Postfix's programs were asked."""

    def call(*, check=False, diff=False, **more):
        log = tmp_path / "log"
        log.write_text("")
        arguments = {
            **GIVEN,
            "homes": str(tmp_path / "srv/mail"),
            **more,
            "_ansible_check_mode": check,
            "_ansible_diff": diff,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            mailboxes.main()
        result = json.loads(capsys.readouterr().out)
        return {**result, "asked": log.read_text().splitlines()}

    return call


def files(host):
    return {path: path.read_bytes() for path in Path(host.maps).parents[2].rglob("*") if path.is_file()}


def standing(host):
    """What Postfix and Dovecot would read."""
    return {name: Path(host.path(name)).read_text() for name in ("users", "domains", "mailboxes", "aliases")}


def test_from_nothing_everything_is_written_and_postfix_reads_it(host, run, tmp_path):
    result = run()
    assert result["changed"]
    assert result["opened"] == ["techs@velo.test"]
    assert result["keys"] == ["mx.infini.test", "velo.test"]
    assert standing(host)["users"].startswith(
        f"techs@velo.test:{{SHA512-CRYPT}}{HASH}:::open:{tmp_path}/srv/mail/velo.test/techs::"
    )
    assert result["asked"][-2:] == ["postfix status", "postfix reload"]
    assert "postmap velo.test domains" in result["asked"]
    assert oct(Path(host.users).stat().st_mode & 0o777) == "0o640"


def test_a_second_run_does_nothing_and_asks_nobody(host, run):
    run()
    before = {path: path.stat().st_mtime_ns for path in files(host) if path.name not in ("log", "lock")}
    result = run()
    assert not result["changed"]
    assert result["asked"] == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_check_mode_says_and_touches_nothing(host, run):
    before = set(files(host))
    result = run(check=True, diff=True)
    assert result["changed"]
    assert result["asked"] == []
    assert "techs@velo.test: open, quota 1G" in result["diff"][0]["after"]
    assert set(files(host)) - before == {Path(os.environ["LOG"])}


def test_no_hash_is_ever_said(run):
    texts = [json.dumps(run(diff=True)), json.dumps(run(diff=True, **MORE)), json.dumps(run(diff=True, **MORE))]
    assert "xxxx" not in "".join(texts)
    assert "zzzz" not in "".join(texts)
    assert "ada@velo.test OK" in texts[1]


def test_a_running_postfix_only_is_reloaded(run, tmp_path):
    (tmp_path / "running").unlink()
    assert run()["asked"][-1] == "postfix status"


def test_a_password_alone_disturbs_nobody(run):
    run(**MORE)
    changed = run(mailboxes=[*GIVEN["mailboxes"], {**ADA, "password_hash": HASH}])
    assert changed["changed"]
    assert changed["asked"] == [], "Dovecot reads its users by itself"


def test_what_postfix_does_not_find_is_put_back(host, run, tmp_path):
    run()
    before = standing(host)
    (tmp_path / "bin/postmap").write_text("#!/bin/sh\necho unreadable >&2; exit 1\n")
    result = run(**MORE)
    assert result["failed"]
    assert "unreadable" in result["msg"]
    assert standing(host) == before


def test_a_reload_that_failed_is_made_good_by_the_next_run(run, tmp_path):
    run()
    program = tmp_path / "bin/postfix"
    sound = program.read_text()
    program.write_text("#!/bin/sh\ntest $1 = status || { echo broken >&2; exit 1; }\n")
    result = run(**MORE)
    assert result["failed"]
    assert "`postfix reload` failed on this host: broken" in result["msg"]
    program.write_text(sound)
    assert run(**MORE)["asked"] == ["postfix status", "postfix reload"]
    assert run(**MORE)["asked"] == []


def test_a_killed_run_is_put_back_before_its_files_are_read(host, run, monkeypatch):
    run()
    before = standing(host)
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(mail_door.tree.Transaction, "_validate", lambda _self: os.kill(os.getpid(), 9))
        run(**MORE)
    assert os.waitpid(pid, 0)[1] == 9
    assert standing(host) != before, "the kill came too early to prove anything"
    result = run()
    assert not result["undeclared"], "what the killed run wrote was never decided"
    assert standing(host) == before


def test_a_mailbox_that_nobody_declares_is_said_at_every_run(run, monkeypatch):
    said = []  # Ansible itself says a warning once only in a process
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, warning: said.append(warning))
    run(**MORE)
    assert run()["shut"] == ["ada@velo.test"]
    again = run()
    assert again["shut"] == []
    assert list(again["undeclared"]) == ["ada@velo.test"]
    assert ["ada@velo.test (since 20" in one for one in said] == [True, True]


def test_mail_that_is_there_and_that_nobody_declares_is_said_though_no_file_knows_it(run, tmp_path):
    """As on a new machine, when a backup has come back."""
    for home in ("velo.test/gone", "left.test/ada", "velo.test/techs", "lost+found/x"):
        (tmp_path / "srv/mail" / home).mkdir(parents=True)
    result = run()
    assert list(result["undeclared"]) == ["ada@left.test", "gone@velo.test"]
    assert result["shut"] == []
    assert not run()["changed"]


def test_a_file_edited_by_hand_is_refused_until_named(host, run):
    run()
    aliases = Path(host.path("aliases"))
    aliases.write_text(aliases.read_text() + "me@velo.test techs@velo.test\n")
    result = run(**MORE)
    assert result["failed"]
    assert "edited by hand" in result["msg"]
    assert run(**MORE, overwrite=[str(aliases)])["changed"]


def test_problems_are_said_before_anything_is_touched(host, run):
    before = set(files(host))
    result = run(aliases=[{"address": "ada@velo.tset", "to": ["x"]}])
    assert result["failed"]
    assert "did you mean velo.test?" in result["msg"]
    assert "'x', which is no address" in result["msg"]
    assert set(files(host)) - before == {Path(os.environ["LOG"])}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no object"),
        (json.dumps({"mailbox": []}), "mailbox is not a part of the mail's data"),
    ],
)
def test_a_file_of_data_that_cannot_be_read_is_a_sentence(run, data, sentence):
    nothing = {"domains": [], "mailboxes": [], "aliases": []}
    assert sentence in run(**nothing, data=data)["msg"]


def test_data_may_come_as_one_text_but_not_twice(run):
    lists = {kind: GIVEN[kind] for kind in ("domains", "mailboxes", "aliases")}
    run()
    assert not run(**{kind: [] for kind in lists}, data=json.dumps(lists))["changed"]
    assert "both as lists and as a file" in run(data=json.dumps(lists))["msg"]


def test_keys_stay_and_stand_in_the_records(host, run):
    run()
    key = host.place.folder / "velo.test.infini1.key"
    assert oct(key.stat().st_mode & 0o777) == "0o640"
    made = key.read_bytes()
    lines = host.place.records.read_text().splitlines()
    public = subprocess.run(
        ["sh", "-c", f"openssl rsa -in {key} -pubout 2>/dev/null | grep -v PUBLIC | tr -d '\\n'"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [text] = [line for line in lines if line.startswith("infini1._domainkey.velo.test. 3600 TXT ")]
    parts = text.partition(" TXT ")[2][1:-1].split('" "')
    assert "".join(parts) == f"v=DKIM1; k=rsa; p={public}"
    assert max(map(len, parts)) <= 255
    assert "velo.test. 3600 MX 10 mx.infini.test." in lines
    assert '_dmarc.velo.test. 3600 TXT "v=DMARC1; p=none"' in lines
    assert "mx.infini.test. 3600 MX 10 mx.infini.test." in lines, "forwards leave under this name: its SPF asks its MX"
    assert not [line for line in lines if line.startswith("_imaps._tcp.mx.infini.test.")]
    (host.place.folder / "velo.test.infini1.pub").unlink()  # as a killed run leaves it
    assert run()["keys"] == ["velo.test"]
    assert key.read_bytes() == made
