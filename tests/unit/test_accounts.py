# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of `accounts`, and its door with the host's tools recorded."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import accounts
import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.accounts import Account, AccountsError, Host, Plan, declared, locked, plan
from ansible.module_utils.hosting.brake import UnsafePlanError
from ansible.module_utils.testing import patch_module_args
from hypothesis import given
from hypothesis import strategies as st

HASH = "$6$salt$hashed"
LOGINS = ["velo", "chorale", "amap", "radio", "fanzine"]


def account(name, **settings):
    return declared(
        "members", {"name": name, "home": f"/srv/members/{name}", "shell": "/bin/sh", "comment": "", **settings}
    )


def host(*found, **more):
    """A host with these accounts of ours beside the usual system accounts."""
    ours = {one.name: replace(one, uid=one.uid or 2000 + number) for number, one in enumerate(found)}
    uids = {"root": 0, "backup": 34, "luc": 1000, **{name: one.uid for name, one in ours.items()}}
    return Host(ours, uids, {*uids, "sudo", "members", "video"}, **more)


def carried_out(todo: Plan, before: Host) -> Host:
    changed = {change.after.name: change.after for change in (*todo.changes, *todo.locks)}
    return host(*{**before.accounts, **changed}.values())


DECLARED = st.dictionaries(
    st.sampled_from(LOGINS), st.tuples(st.sampled_from([None, HASH, "$y$other$hash"]), st.sampled_from([[], ["sudo"]]))
).map(lambda them: [account(name, password_hash=secret, groups=groups) for name, (secret, groups) in them.items()])
FOUND = st.tuples(DECLARED, st.sets(st.sampled_from(LOGINS))).map(
    lambda pair: host(*(locked("members", one) if one.name in pair[1] else one for one in pair[0]))
)


@given(DECLARED, FOUND)
def test_second_run_changes_nothing(wanted, found):
    after = carried_out(plan("members", wanted, found, "web", LOGINS), found)
    assert not plan("members", wanted, after, "web").changed


@given(DECLARED, FOUND)
def test_the_declared_are_open_and_the_others_shut_and_nobody_is_lost(wanted, found):
    after = carried_out(plan("members", wanted, found, "web", LOGINS), found)
    names = {one.name for one in wanted}
    assert set(after.accounts) == names | set(found.accounts)
    assert {name for name, one in after.accounts.items() if not one.locked} == names


@given(DECLARED, FOUND)
def test_no_password_is_ever_shown(wanted, found):
    todo = plan("members", wanted, found, "web", LOGINS)
    assert "$" not in f"{todo.diff()}{todo}"


def test_a_departure_shuts_the_door_and_takes_the_rights_away():
    tech1 = account("tech1", groups=["sudo"], password_hash=HASH)
    todo = plan("members", [], host(tech1, busy=frozenset(["tech1"])), "web")
    gone = todo.locks[0].after
    assert gone.locked
    assert gone.groups == {"members"}
    assert gone.password == f"!{HASH}"
    assert todo.end_sessions == ("tech1",)
    assert "tech1: locked" in todo.diff()["after"]


def test_a_return_opens_the_door_again():
    gone = locked("members", account("velo", password_hash=HASH))
    todo = plan("members", [account("velo", password_hash=HASH)], host(gone), "web")
    assert not todo.changes[0].after.locked
    assert todo.changes[0].password_changes


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ([account("backup")], r"login backup is already taken on web by a system account \(uid 34\): choose another"),
        ([account("luc")], r"by an account that is not in the group members \(uid 1000\).*usermod -aG members luc"),
        ([account("video")], "by a group of that name"),
        ([account("velo"), account("velo")], "login velo is declared twice"),
        ([account("amap", uid=7), account("velo", uid=7)], "uid 7 is declared twice"),
        ([account("velo", uid=1000)], "uid 1000 of velo is luc's on web"),
        ([account("here", uid=4321)], "here has uid 2000 on web but 4321 is declared: declare 2000"),
    ],
)
def test_clashes_are_refused_in_one_sentence(wanted, sentence):
    with pytest.raises(AccountsError, match=sentence):
        plan("members", wanted, host(account("here")), "web", ["here"])


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"name": "Vélo"}, "cannot be a login"),
        ({"name": "a" * 33}, "cannot be a login"),
        ({"name": "velo\nroot"}, "cannot be a login"),
        ({"name": "velo\n"}, "cannot be a login"),
        ({"password_hash": "clear"}, "is not a hash"),
        ({"password_hash": "$6$a$b\nroot:$6$a$b"}, "is not a hash"),
        ({"comment": "a:b"}, "holds a colon"),
    ],
)
def test_entries_that_cannot_be_are_refused(entry, sentence):
    with pytest.raises(AccountsError, match=sentence):
        account(**{"name": "velo", **entry})


def test_locking_many_at_once_wants_their_names():
    found = host(*(account(name) for name in LOGINS))
    with pytest.raises(UnsafePlanError, match="3 of 5 accounts of group members would be locked at once"):
        plan("members", [account("velo"), account("amap")], found, "web")
    assert len(plan("members", [account("velo"), account("amap")], found, "web", ["radio"]).locks) == 3
    many = host(*(account(f"m{number}") for number in range(100)))
    kept = [account(f"m{number}") for number in range(70)]
    assert len(plan("members", kept, many, "web").locks) == 30
    with pytest.raises(UnsafePlanError):
        plan("members", kept[1:], many, "web")


class FakeHost:
    """Records the tools the door calls."""

    def __init__(self, found):
        self.found, self.calls, self.inputs = found, [], []

    def run_command(self, _module, argv, data=None, **_kwargs):
        self.calls.append(argv)
        self.inputs.append(data)
        return 0, "", ""


@pytest.fixture
def run(monkeypatch, capsys):
    def run(fake, *entries, check=False, **params):
        monkeypatch.setattr(accounts, "read_host", lambda _owner: fake.found)
        monkeypatch.setattr(accounts, "end_sessions", lambda names: fake.calls.append(["end", *sorted(names)]))
        monkeypatch.setattr(AnsibleModule, "run_command", lambda self, argv, **kw: fake.run_command(self, argv, **kw))
        arguments = {"group": "members", "accounts": list(entries), "_ansible_check_mode": check, **params}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            accounts.main()
        return json.loads(capsys.readouterr().out)

    return run


VELO = {"name": "velo", "home": "/srv/members/velo", "password_hash": HASH}


def test_the_door_creates_and_passes_the_password_by_standard_input_only(run):
    fake = FakeHost(host())
    result = run(fake, VELO)
    assert result["created"] == ["velo"]
    assert fake.calls[0][:3] == ["useradd", "--user-group", "-M"]
    assert fake.calls[1] == ["chpasswd", "--encrypted"]
    assert fake.inputs[1] == f"velo:{HASH}\n"
    assert HASH not in str(fake.calls)
    assert HASH not in str(result["diff"])


def test_the_door_locks_before_it_ends_the_sessions(run):
    fake = FakeHost(host(account("gone"), busy=frozenset(["gone"])))
    result = run(fake)
    assert [call[0] for call in fake.calls] == ["usermod", "loginctl", "end", "chpasswd"]
    assert "1970-01-02" in fake.calls[0]
    assert (result["locked"], result["ended"], result["kept"]) == (["gone"], ["gone"], ["gone"])


def test_check_mode_calls_nothing(run):
    fake = FakeHost(host(account("gone")))
    result = run(fake, {**VELO, "groups": ["notyet"]}, check=True)
    assert result["changed"]
    assert fake.calls == []


def test_a_group_that_does_not_exist_is_refused_before_anything(run):
    fake = FakeHost(host())
    result = run(fake, {**VELO, "groups": ["notyet"]})
    assert result["failed"]
    assert "group notyet does not exist" in result["msg"]
    assert fake.calls == []


def test_a_process_of_this_very_test_is_seen():
    assert os.getpid() in accounts.processes_by_uid()[os.getuid()]


def test_account_is_not_printed_with_its_password():
    assert HASH not in repr(Account("velo", "/", "/bin/sh", "", password=HASH))
