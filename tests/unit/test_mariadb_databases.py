# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of `mariadb_databases`, and its door with a recorded server."""

from __future__ import annotations

import json

import mariadb_databases
import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.brake import UnsafePlanError
from ansible.module_utils.hosting.databases import (
    SOCKET,
    Database,
    DatabasesError,
    Server,
    User,
    native_hash,
    parse_server,
    plan,
)
from ansible.module_utils.testing import patch_module_args
from hypothesis import given
from hypothesis import strategies as st

NAMES = ["velo_spip", "velo_wp", "amap", "radio", "chorale"]
PEOPLE = ["velo", "amap", "radio"]
ADMIN = User("root", is_global=True, too_much=True)


def entry(name, user, password=None):
    return {"name": name, "user": user, "password": password}


WANTED = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(PEOPLE)).map(
    lambda them: [entry(name, user, "secret" if user == "radio" else None) for name, user in them.items()]
)
USERS = st.builds(
    User,
    name=st.sampled_from(PEOPLE),
    secret=st.sampled_from([SOCKET, native_hash("secret"), ""]),
    locked=st.booleans(),
    databases=st.frozensets(st.sampled_from(NAMES)),
    too_much=st.booleans(),
)
SERVERS = st.builds(
    lambda databases, users: Server(
        {name: Database(name).belonging_to(user) if user else Database(name) for name, user in databases.items()},
        {**{user.name: user for user in users}, "root": ADMIN},
    ),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from([*PEOPLE, None])),
    st.lists(USERS),
)


@given(WANTED, SERVERS)
def test_second_run_changes_nothing(wanted, server):
    todo = plan(wanted, server, PEOPLE, NAMES)
    assert not plan(wanted, todo.after, PEOPLE).changed
    assert not plan(wanted, todo.after).statements()


@given(WANTED, SERVERS)
def test_no_database_is_lost_and_only_the_declared_users_get_in(wanted, server):
    after = plan(wanted, server, PEOPLE, NAMES).after
    assert set(after.databases) == set(server.databases) | {one["name"] for one in wanted}
    declared = {one["user"] for one in wanted}
    assert all(not after.users[name].locked and not after.users[name].too_much for name in declared)
    assert all(after.users[name].locked for name in server.ours() - declared)
    assert after.users["root"] == ADMIN


@given(WANTED, SERVERS)
def test_nothing_is_ever_dropped_and_no_password_shown(wanted, server):
    todo = plan(wanted, server, PEOPLE, NAMES)
    assert "DROP" not in " ".join(todo.statements())
    assert "secret" not in f"{todo.statements()}{todo.diff()}"
    assert native_hash("secret") not in f"{todo.diff()}{todo}"


def test_a_new_database_and_its_user():
    assert plan([entry("velo_spip", "velo")], Server()).statements() == [
        "CREATE DATABASE `velo_spip` COMMENT 'infini user=velo'",
        "CREATE USER `velo`@`localhost` IDENTIFIED VIA unix_socket ACCOUNT UNLOCK",
        "GRANT ALL PRIVILEGES ON `velo\\_spip`.* TO `velo`@`localhost`",
    ]


def test_words_of_others_in_a_comment_stay():
    found = Server({"amap": Database("amap", None, "it's Anne's")})
    todo = plan([entry("amap", "amap")], found, takeovers=["amap"])
    assert todo.statements()[0] == "ALTER DATABASE `amap` COMMENT 'it''s Anne''s infini user=amap'"


def test_who_goes_is_shut_before_anything_else():
    server = Server({"amap": Database("amap", "amap", "infini user=amap")}, {"amap": User("amap")})
    todo = plan([entry("velo", "velo")], server)
    assert todo.statements()[:2] == [
        "ALTER USER `amap`@`localhost` IDENTIFIED VIA unix_socket ACCOUNT LOCK",
        "KILL USER `amap`@`localhost`",
    ]
    assert todo.locked == ["amap"]


def test_the_hash_is_the_servers_own():
    assert native_hash("password") == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"  # SELECT PASSWORD('password')


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ([entry("mysql", "velo")], "database mysql is MariaDB's own"),
        ([entry("velo", "root")], "database user root is an administrator"),
        ([entry("velo", "boss")], "database user boss is an administrator"),
        ([entry("velo`; DROP", "velo")], "cannot be a database:"),
        ([entry("velo", "velo\n")], "cannot be a database user"),
        ([entry("velo", "velo"), entry("velo", "amap")], "database velo is declared twice"),
        ([entry("a", "velo", "x"), entry("b", "velo", "y")], "declared with several passwords"),
    ],
)
def test_impossible_entries_are_refused(wanted, sentence):
    with pytest.raises(DatabasesError, match=sentence):
        plan(wanted, Server(users={"boss": User("boss", is_global=True, too_much=True)}))


def test_locking_many_at_once_wants_their_names():
    server = Server(
        {name: Database(name, name, f"infini user={name}") for name in ("a", "b", "c", "d")},
        {name: User(name, databases=frozenset([name])) for name in ("a", "b", "c", "d")},
    )
    with pytest.raises(UnsafePlanError, match="3 of 4 database users"):
        plan([entry("a", "a")], server)
    assert plan([entry("a", "a")], server, ["b"]).locked == ["b", "c", "d"]


@pytest.mark.parametrize("found", [Database("amap").belonging_to("velo"), Database("amap", None, "it's Anne's")])
def test_a_database_of_somebody_else_is_not_handed_over_unless_confirmed(found):
    server = Server({"amap": found}, {"velo": User("velo", databases=frozenset(["amap"]))})
    wanted = [entry("amap", "amap"), entry("velo", "velo")]
    with pytest.raises(DatabasesError, match=r"amap \(now (velo|nobody says whose), declared for amap\).* confirm"):
        plan(wanted, server, takeovers=["velo"])
    todo = plan(wanted, server, takeovers=["amap"])
    assert "GRANT ALL PRIVILEGES ON `amap`.* TO `amap`@`localhost`" in todo.statements()
    assert "REVOKE ALL PRIVILEGES ON `amap`.* FROM `velo`@`localhost`" in todo.statements()


PRIVILEGES = ["Select_priv", "Insert_priv", "Grant_priv"]
ALL = "Y\tY\tN"
ANSWER = (
    "kind\tname\tcomment\n"
    "database\tvelo_spip\tinfini user=velo\n"
    "database\tother\ttwo\\nlines\n"
    "kind\tUser\tplugin\thash\taccess\tlocked\n"
    "user\troot\tmysql_native_password\tinvalid\t549755813887\tNULL\n"
    "user\tvelo\tunix_socket\t\t0\tNULL\n"
    "user\tloose\tunix_socket\t\t0\t1\n"
    "user\tpartly\tunix_socket\t\t0\tNULL\n"
    "kind\tHost\tDb\tUser\t" + "\t".join(PRIVILEGES) + "\n"
    f"grant\tlocalhost\tvelo\\\\_spip\tvelo\t{ALL}\n"
    f"grant\tlocalhost\tvelo_spip\tloose\t{ALL}\n"
    "grant\tlocalhost\tother\tpartly\tY\tN\tN\n"
    f"grant\tlocalhost\tother\tnobody\t{ALL}\n"
)


def test_the_answer_is_read():
    server = parse_server(ANSWER)
    assert server.databases["other"].comment == "two\nlines"
    assert server.ours() == {"velo"}
    assert server.users["velo"] == User("velo", databases=frozenset(["velo_spip"]))
    assert server.users["root"].is_global
    assert server.users["loose"].locked
    assert server.users["loose"].too_much, "a bare _ in a grant covers other databases"
    assert server.users["partly"].too_much


@pytest.fixture
def run(monkeypatch, capsys):
    def run(answer, *entries, check=False, takeovers=()):
        asked = []

        def client(_module, argv, data=None, **_kwargs):
            asked.append((argv, data))
            return (0, answer, "") if answer is not None else (1, "", "cannot connect")

        monkeypatch.setattr(AnsibleModule, "run_command", client)
        monkeypatch.setattr(AnsibleModule, "get_bin_path", lambda _module, name: f"/usr/bin/{name}")
        arguments = {"databases": list(entries), "confirm_takeovers": list(takeovers), "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            mariadb_databases.main()
        return json.loads(capsys.readouterr().out), asked

    return run


def test_the_door_writes_once_by_standard_input(run):
    result, asked = run(ANSWER, entry("velo_spip", "velo"), entry("amap", "amap", "secret"))
    assert result["databases"] == ["amap"]
    assert result["users"] == ["amap"]
    assert len(asked) == 2
    assert "CREATE DATABASE `amap`" in asked[1][1]
    assert "secret" not in str(asked)


def test_a_settled_server_is_only_read(run):
    result, asked = run(ANSWER, entry("velo_spip", "velo"))
    assert not result["changed"]
    assert len(asked) == 1


def test_check_mode_writes_nothing_and_needs_no_server(run):
    result, asked = run(None, entry("velo_spip", "velo"), check=True)
    assert result["changed"]
    assert len(asked) == 1


def test_an_absent_server_fails_in_one_sentence(run):
    result, _asked = run(None, entry("velo_spip", "velo"))
    assert "MariaDB does not answer on this host (cannot connect)" in result["msg"]


def test_the_door_asks_before_a_database_changes_hands(run):
    result, asked = run(ANSWER, entry("velo_spip", "amap"), entry("velo", "velo"), check=True)
    assert "velo_spip (now velo, declared for amap)" in result["msg"]
    assert len(asked) == 1
    result, _asked = run(ANSWER, entry("velo_spip", "amap"), entry("velo", "velo"), takeovers=["velo_spip"])
    assert result["databases"] == ["velo", "velo_spip"]
