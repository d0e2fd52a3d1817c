# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which MariaDB databases and users to create, mend and lock: the thinking behind `mariadb_databases`.

The comment of a database says whose it is (`infini user=velo`): so we know our users again without a list of our own,
and the knowledge travels with the database. A user of ours has every privilege on the databases declared for it and
none elsewhere; one that is no longer declared is locked. Databases are never dropped, and one that is somebody else's
is handed over only when that is confirmed by name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .brake import refuse_mass_removal

SOCKET = "socket"  # how a user without password is known: by its Unix account
RESERVED_DATABASES = {"mysql", "information_schema", "performance_schema", "sys"}
RESERVED_USERS = {"root", "mysql", "mariadb.sys", "debian-sys-maint", "PUBLIC"}
# One statement a kind of row; `kind` in the first column is what parse_rows() goes by.
READ = """
SELECT 'database' AS kind, SCHEMA_NAME AS name, SCHEMA_COMMENT AS comment FROM information_schema.SCHEMATA;
SELECT 'user' AS kind, User, JSON_VALUE(Priv, '$.plugin') AS plugin,
  JSON_VALUE(Priv, '$.authentication_string') AS hash, COALESCE(JSON_VALUE(Priv, '$.access'), 0) AS access,
  JSON_VALUE(Priv, '$.account_locked') AS locked
  FROM mysql.global_priv WHERE Host = 'localhost';
SELECT 'grant' AS kind, mysql.db.* FROM mysql.db WHERE Host = 'localhost';
SELECT DISTINCT 'stray' AS kind, User FROM mysql.tables_priv WHERE Host = 'localhost';
SELECT DISTINCT 'stray' AS kind, User FROM mysql.columns_priv WHERE Host = 'localhost';
SELECT DISTINCT 'stray' AS kind, User FROM mysql.procs_priv WHERE Host = 'localhost';
"""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MARK = re.compile(r"infini user=([a-z][a-z0-9_]*)")
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\0": "\0", "\\\\": "\\"}


class DatabasesError(Exception):
    """The wanted set cannot be reached; the message says why and what mends it."""


@dataclass(frozen=True)
class Database:
    """One database that is declared for somebody, or found."""

    name: str
    user: str | None = None
    comment: str = ""

    def belonging_to(self, user: str) -> Database:
        """Return the same database marked as this user's; words of others in the comment stay."""
        mark = f"infini user={user}"
        comment = _MARK.sub(mark, self.comment, count=1) if self.user else f"{self.comment} {mark}".strip()
        return Database(self.name, user, comment)


@dataclass(frozen=True)
class User:
    """One user at localhost."""

    name: str
    secret: str = field(default=SOCKET, repr=False)
    locked: bool = False
    databases: frozenset[str] = frozenset()
    too_much: bool = False  # has a privilege that no user of ours should have, or less than all on a database
    is_global: bool = False

    def words(self) -> str:
        """Describe the user in one line, without its password."""
        entrance = "locked" if self.locked else "open"
        known_by = "Unix account" if self.secret == SOCKET else "password"
        more = ", other privileges" if self.too_much or self.is_global else ""
        return f"user {self.name}: {entrance}, {known_by}, on {', '.join(sorted(self.databases)) or 'nothing'}{more}"


@dataclass(frozen=True)
class Server:
    """What the server has."""

    databases: Mapping[str, Database] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)

    def ours(self) -> set[str]:
        """Return the users that a database of ours names and that exist."""
        return {database.user for database in self.databases.values() if database.user} & set(self.users)


@dataclass(frozen=True)
class Plan:
    """From what the server has to what it should have."""

    before: Server
    after: Server

    @property
    def databases(self) -> list[Database]:
        """The databases to create or to mark, as they will be."""
        return [one for name, one in sorted(self.after.databases.items()) if self.before.databases.get(name) != one]

    @property
    def users(self) -> list[User]:
        """The users to create, mend or lock, as they will be."""
        return [one for name, one in sorted(self.after.users.items()) if self.before.users.get(name) != one]

    @property
    def locked(self) -> list[str]:
        """The users that are shut now."""
        return [user.name for user in self.users if user.locked and not self._before(user).locked]

    @property
    def changed(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.databases or self.users)

    def statements(self) -> list[str]:
        """Return the SQL that carries the plan out: first who must go, last who may come."""
        shut = [user for user in self.users if user.locked]
        opened = [user for user in self.users if not user.locked]
        return [
            *(line for user in shut for line in self._user_sql(user)),
            *(f"KILL USER {_account(name)}" for name in self.locked),
            *(line for database in self.databases for line in self._database_sql(database)),
            *(line for user in opened for line in self._user_sql(user)),
        ]

    def diff(self) -> dict[str, str]:
        """Return what changes, one thing a line; a changed password is said, never shown."""
        before, after = [], []
        for database in self.databases:
            known = self.before.databases.get(database.name)
            before += [f"database {known.name}: {known.comment or 'nobody says whose'}"] if known else []
            after.append(f"database {database.name}: {database.comment}")
        for user in self.users:
            found = self.before.users.get(user.name)
            news = " (new password)" if found and found.secret != user.secret != SOCKET else ""
            before += [found.words()] if found else []
            after.append(user.words() + news)
        return {
            "before_header": "MariaDB",
            "after_header": "MariaDB",
            "before": "".join(f"{line}\n" for line in before),
            "after": "".join(f"{line}\n" for line in after),
        }

    def _before(self, user: User) -> User:
        return self.before.users.get(user.name, User(user.name))

    def _database_sql(self, database: Database) -> Iterable[str]:
        verb = "ALTER" if database.name in self.before.databases else "CREATE"
        yield f"{verb} DATABASE {_name(database.name)} COMMENT {_text(database.comment)}"

    def _user_sql(self, user: User) -> Iterable[str]:
        found, account = self._before(user), _account(user.name)
        known_by = "unix_socket" if user.secret == SOCKET else f"mysql_native_password USING {_text(user.secret)}"
        state = "LOCK" if user.locked else "UNLOCK"
        verb = "ALTER USER" if user.name in self.before.users else "CREATE USER"
        yield f"{verb} {account} IDENTIFIED VIA {known_by} ACCOUNT {state}"
        if found.too_much:
            yield f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {account}"
            found = replace(found, databases=frozenset())
        for name in sorted(found.databases - user.databases):
            yield f"REVOKE ALL PRIVILEGES ON {_pattern(name)}.* FROM {account}"
        for name in sorted(user.databases - found.databases):
            yield f"GRANT ALL PRIVILEGES ON {_pattern(name)}.* TO {account}"


def native_hash(password: str) -> str:
    """Return what mysql_native_password keeps of a password, so that the password itself never leaves the module."""
    inner = hashlib.sha1(password.encode()).digest()  # noqa: S324 (the server's own format, not our choice)
    return "*" + hashlib.sha1(inner).hexdigest().upper()  # noqa: S324  likewise


def parse_rows(text: str) -> Iterable[dict[str, str]]:
    """Read what `mariadb --batch` prints: tables one after the other, each with a header that begins with `kind`."""
    header: list[str] = []
    for line in text.splitlines():
        cells = [re.sub(r"\\[nt0\\]", lambda found: _ESCAPES[found.group()], cell) for cell in line.split("\t")]
        if cells[0] == "kind":
            header = cells
        else:
            yield dict(zip(header, cells))


def parse_server(text: str) -> Server:
    """Build the server's state from the answer to READ."""
    rows = list(parse_rows(text))
    databases = {row["name"]: _found_database(row) for row in rows if row["kind"] == "database"}
    users = {row["User"]: _found_user(row) for row in rows if row["kind"] == "user"}
    for row in rows:
        name = row.get("User", "")
        if name not in users:
            continue
        if row["kind"] == "grant":
            users[name] = _with_grant(users[name], row)
        if row["kind"] == "stray":
            users[name] = replace(users[name], too_much=True)
    return Server(databases, users)


def plan(
    wanted: Sequence[Mapping[str, Any]],
    server: Server,
    confirmed: Collection[str] = (),
    takeovers: Collection[str] = (),
) -> Plan:
    """Compare the declared databases ({name, user, password}) with the server; raise where they cannot be.

    `confirmed` names users that may be locked although they are many, `takeovers` databases that may change hands.
    """
    _refuse_impossible(wanted, server)
    _refuse_takeovers(wanted, server, takeovers)
    users = {entry["user"]: _wanted_user(entry["user"], wanted) for entry in wanted}
    known = {entry["name"]: server.databases.get(entry["name"], Database(entry["name"])) for entry in wanted}
    databases = {entry["name"]: known[entry["name"]].belonging_to(entry["user"]) for entry in wanted}
    gone = server.ours() - set(users)
    going = {name for name in gone if not server.users[name].locked}
    count = sum(not server.users[name].locked for name in server.ours())
    refuse_mass_removal(going, count, confirmed, "database users")
    shut = {name: replace(server.users[name], locked=True) for name in gone}
    return Plan(server, Server({**server.databases, **databases}, {**server.users, **shut, **users}))


def _wanted_user(name: str, wanted: Sequence[Mapping[str, Any]]) -> User:
    own = [entry for entry in wanted if entry["user"] == name]
    passwords = {entry.get("password") or "" for entry in own}
    if len(passwords) > 1:
        raise DatabasesError(f"database user {name} is declared with several passwords: a user has one")
    password = passwords.pop()
    return User(
        name=name,
        secret=native_hash(password) if password else SOCKET,
        databases=frozenset(entry["name"] for entry in own),
    )


def _refuse_impossible(wanted: Sequence[Mapping[str, Any]], server: Server) -> None:
    names = [entry["name"] for entry in wanted]
    for entry in wanted:
        name, user = entry["name"], entry["user"]
        for what, value in (("database", name), ("database user", user)):
            if not _NAME.fullmatch(value):
                raise DatabasesError(f"{value!r} cannot be a {what}: small letters, digits and _, a letter first")
        if name in RESERVED_DATABASES:
            raise DatabasesError(f"database {name} is MariaDB's own: choose another name")
        if names.count(name) > 1:
            raise DatabasesError(f"database {name} is declared twice: keep one")
        found = server.users.get(user)
        if user in RESERVED_USERS or (found and found.is_global and user not in server.ours()):
            raise DatabasesError(f"database user {user} is an administrator of this server: choose another name")


def _refuse_takeovers(wanted: Sequence[Mapping[str, Any]], server: Server, confirmed: Collection[str]) -> None:
    """Raise where somebody would find another's tables in a database that is new to them."""
    surprising = [
        f"{entry['name']} (now {found.user or 'nobody says whose'}, declared for {entry['user']})"
        for entry in sorted(wanted, key=lambda entry: str(entry["name"]))
        if (found := server.databases.get(entry["name"]))
        and found.user != entry["user"]
        and entry["name"] not in confirmed
    ]
    if surprising:
        raise DatabasesError(
            f"MariaDB already holds these databases and would hand their tables over: {', '.join(surprising)}; "
            "choose other names, or, if it is meant, confirm them by name in mariadb_confirm_takeovers"
        )


def _found_database(row: Mapping[str, str]) -> Database:
    mark = _MARK.search(row["comment"])
    return Database(row["name"], mark.group(1) if mark else None, row["comment"])


def _found_user(row: Mapping[str, str]) -> User:
    power = row["access"] not in ("0", "NULL")
    return User(
        name=row["User"],
        secret=SOCKET if row["plugin"] == "unix_socket" else row["hash"],
        locked=row["locked"] in ("1", "true"),
        too_much=power,
        is_global=power,
    )


def _with_grant(user: User, row: Mapping[str, str]) -> User:
    """Add one row of mysql.db: everything but the right to grant is ours, anything else is too much or too little."""
    privileges = {column for column, value in row.items() if column.endswith("_priv") and value == "Y"}
    all_of_them = {column for column in row if column.endswith("_priv")} - {"Grant_priv"}
    database = re.sub(r"\\([_%])", r"\1", row["Db"])
    exact = _pattern(database) == f"`{row['Db']}`" and privileges == all_of_them
    return replace(user, databases=user.databases | {database}, too_much=user.too_much or not exact)


def _name(name: str) -> str:
    return f"`{name}`"


def _pattern(name: str) -> str:
    """Quote a name for GRANT, where a bare _ stands for any character: velo_1 would cover velox1 too."""
    return "`" + re.sub(r"([_%])", r"\\\1", name) + "`"


def _account(name: str) -> str:
    return f"`{name}`@`localhost`"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"
