# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of MariaDB databases that are consistent with their own rows and checksums, MyISAM too.

One connection keeps writers out of all tables of a database; behind it `mariadb-dump` writes and the same tables are
counted and summed up. The sums are taken over the values as text, which is what a dump holds, and not by CHECKSUM
TABLE: that one sees the bytes of the storage, and they differ after a load wherever a table has FLOAT or generated
columns or a history, and between versions of the server. Both cost the same.

What a dump in text cannot hold is said: the last digits of a FLOAT, and the history of a table with versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

from .databases import RESERVED_DATABASES, RESERVED_USERS
from .manifest import finding

ATTEMPTS = 3
PATIENCE = 10
"""Seconds to wait for those who use a database already; new ones wait meanwhile, so this is what a site must stand."""
LARGEST = 1 << 30
"""Bytes of the largest statement: a blob of the server's own limit is twice as long in a dump."""

_DUMP = (
    *("mariadb-dump", "--skip-lock-tables", "--quick", "--hex-blob", "--routines", "--triggers", "--events"),
    *("--skip-dump-date", "--default-character-set=utf8mb4", f"--max-allowed-packet={LARGEST}"),
)
# --binary-mode: what a member wrote into a database is never taken for a command of the client.
_LOAD = ("mariadb", "--binary-mode", "--default-character-set=utf8mb4", f"--max-allowed-packet={LARGEST}")
_CREATE = re.compile(r"^CREATE (USER|ROLE)")
_COMPLETE = b"-- Dump completed"
_OBJECTS = {
    "views": "TABLES WHERE TABLE_TYPE = 'VIEW' AND TABLE_SCHEMA = {name}",
    "sequences": "TABLES WHERE TABLE_TYPE = 'SEQUENCE' AND TABLE_SCHEMA = {name}",
    "routines": "ROUTINES WHERE ROUTINE_SCHEMA = {name}",
    "triggers": "TRIGGERS WHERE TRIGGER_SCHEMA = {name}",
    "events": "EVENTS WHERE EVENT_SCHEMA = {name}",
}
_NO_DATABASE, _LOCKED = 1049, 1205
_ERROR = re.compile(r"ERROR (\d+) .*?: (.*)")
_ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


class DumpError(Exception):
    """A database cannot be dumped or loaded; `code` says why, the message is the server's own."""

    def __init__(self, code: str, said: str = "") -> None:
        super().__init__(said or code)
        self.code = code


class DatabaseGoneError(DumpError):
    """The database was dropped since it was listed."""

    def __init__(self, name: str) -> None:
        super().__init__("database_gone", name)


class _SqlError(Exception):
    def __init__(self, number: int, said: str) -> None:
        super().__init__(said)
        self.number = number


class _Session:
    """One connection that stays open: locks live as long as it does."""

    def __init__(self, options: Sequence[str]) -> None:
        words = [*_LOAD, *options, "--batch", "--skip-column-names", "--unbuffered", "--force", "--skip-reconnect"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._end = secrets.token_hex(8)

    def ask(self, sql: str) -> list[list[str]]:
        """Return the rows of a statement, whose first column is the word `row`: so none looks like an error."""
        return [cells[1:] for cells in self.show(sql) if cells[0] == "row"]

    def show(self, sql: str) -> list[list[str]]:
        """Return the rows of a statement."""
        assert self._process.stdin  # noqa: S101  it is a pipe
        assert self._process.stdout  # noqa: S101  likewise
        said: list[str] = []
        with contextlib.suppress(BrokenPipeError):  # what it said before it died is what counts
            self._process.stdin.write(f"{sql};\nSELECT '{self._end}';\n".encode("utf-8", "surrogateescape"))
            self._process.stdin.flush()
        for raw in iter(self._process.stdout.readline, b""):
            line = raw.decode("utf-8", "surrogateescape").rstrip("\n")
            if line == self._end:
                break
            said.append(line)
        else:
            raise DumpError("server_gone", _error(said)[1])
        if any(map(_ERROR.match, said)):
            raise _SqlError(*_error(said))
        return [_cells(line) for line in said]

    def close(self) -> None:
        """End the connection and with it its locks."""
        self._process.kill()
        self._process.communicate()


def _error(said: Sequence[str]) -> tuple[int, str]:
    for line in said:
        match = _ERROR.match(line)
        if match:
            return int(match.group(1)), match.group(2)
    return 0, " ".join(said[-1:])


def _cells(line: str) -> list[str]:
    return [re.sub(r"\\([nt0\\])", lambda found: _ESCAPES[found.group(1)], cell) for cell in line.split("\t")]


def file_name(database: str) -> str:
    """Return the name of a database's dump, whatever its own name is."""
    plain = quote(database, safe=" ")
    if len(plain) > 200:
        plain = f"{plain[:150]}-{hashlib.sha256(database.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
    return f"{plain}.sql"


class Server:
    """The server of this host, by default as root over its socket; `options` are more words for its clients."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = tuple(options)

    @contextlib.contextmanager
    def _session(self) -> Iterator[_Session]:
        session = _Session(self._options)
        try:
            yield session
        finally:
            session.close()

    def names(self, patterns: Iterable[str] = ("*",)) -> list[str]:
        """Return the databases that fit any of the patterns; the server's own are not among them."""
        with self._session() as session:
            rows = _asked(session, "SELECT 'row', SCHEMA_NAME FROM information_schema.SCHEMATA")
        wanted = tuple(patterns)
        return sorted(
            name
            for (name,) in rows
            if name.lower() not in RESERVED_DATABASES and any(fnmatchcase(name, pattern) for pattern in wanted)
        )

    def dump(self, name: str, folder: str) -> dict[str, Any]:
        """Write a database into a folder; return what the dump holds.

        {"name", "file", "bytes", "seconds", "locked_seconds", "charset", "collation", "comment",
        "tables": {name: {"rows", "checksum"}}, "objects": {kind: number}, "broken": [tables and views that the server
        cannot read], "rounded": [columns that lose digits], "without_history": [tables]}.
        Raise DatabaseGoneError, or DumpError.
        """
        began = time.monotonic()
        path = os.path.join(folder, file_name(name))
        for left in reversed(range(ATTEMPTS)):  # tables and views may be dropped and made meanwhile
            about = self._try_to_dump(name, path, last=not left)
            if about:
                break
        seconds = round(time.monotonic() - began, 3)
        return {"name": name, "file": os.path.basename(path), "seconds": seconds, **about}

    def _try_to_dump(self, name: str, path: str, *, last: bool) -> dict[str, Any]:
        try:
            with self._session() as session:
                return self._dump(session, name, path)
        except (_SqlError, DumpError) as error:
            _remove(path)
            if name not in self.names():
                raise DatabaseGoneError(name) from None
            busy = isinstance(error, _SqlError) and error.number == _LOCKED
            if last:
                raise DumpError("database_busy" if busy else "dump_failed", str(error)) from None
            return {}

    def _dump(self, session: _Session, name: str, path: str) -> dict[str, Any]:
        database = _Database(session, name)
        locked = time.monotonic()
        database.lock()
        skipped = [f"--ignore-table={name}.{one}" for one in database.broken]
        with open(path, "wb", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            process = subprocess.Popen(
                [*_DUMP, *self._options, *skipped, "--", name], stdout=file, stderr=subprocess.PIPE
            )
            try:
                held = database.held()
                said = process.communicate()[1]
            finally:
                process.kill()
                process.wait()
        if process.returncode or not _is_complete(path):
            raise DumpError("dump_failed", " ".join(said.decode("utf-8", "replace").split()))
        return {
            "bytes": os.path.getsize(path),
            "locked_seconds": round(time.monotonic() - locked, 3),
            **database.described(),
            **held,
        }

    def dump_users(self, path: str) -> int:
        """Write the users and roles of our own making, with what they may do, into a file; return how many."""
        with self._session() as session:
            users = [[account, _made_by(session, account, role)] for account, role in _accounts(session)]
        with open(path, "w", encoding="utf-8", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            json.dump(users, file, indent=1)
        return len(users)

    def load_users(self, path: str) -> list[str]:
        """Make the users and roles of such a file as they were, also those who exist; return who they are."""
        with open(path, encoding="utf-8") as file:
            users = json.load(file)
        with self._session() as session:
            try:
                for _account, statements in users:
                    for statement in statements:
                        session.ask(_CREATE.sub(r"CREATE OR REPLACE \1", statement, count=1))
            except _SqlError as error:
                raise DumpError("load_failed", str(error)) from None
        return [account for account, _statements in users]

    def look(self, name: str) -> dict[str, Any] | None:
        """Return the tables and objects of a database as it is now; nothing where there is no such database."""
        with self._session() as session:
            try:
                return _Database(session, name).held()
            except _SqlError as error:
                if error.number == _NO_DATABASE:
                    return None
                raise DumpError("look_failed", str(error)) from None

    def load(self, path: str, about: Mapping[str, Any], name: str | None = None, *, replace: bool = False) -> None:
        """Load a dump, `about` being what `dump` returned for it, into a new or empty database of any name.

        With `replace` what stands there is dropped first. Under another name the copy belongs to nobody, and its events
        are switched off: they would do their work twice.
        """
        name = name or about["name"]
        if not _is_complete(path):
            raise DumpError("dump_torn", path)
        with self._session() as session:
            try:
                self._load(session, path, about, name, replace)
            except _SqlError as error:
                raise DumpError("load_failed", str(error)) from None

    def _load(self, session: _Session, path: str, about: Mapping[str, Any], name: str, replace: bool) -> None:
        beside = name != about["name"]
        if replace:
            session.ask(f"DROP DATABASE IF EXISTS {_name(name)}")
        made = self._make_room(session, name, about, beside)
        ((packet,),) = session.ask("SELECT 'row', @@GLOBAL.max_allowed_packet")
        session.ask(f"SET GLOBAL max_allowed_packet = {LARGEST}")
        try:
            with open(path, "rb") as file:
                words = [*_LOAD, *self._options, "--", name]
                done = subprocess.run(words, stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        finally:
            session.ask(f"SET GLOBAL max_allowed_packet = {packet}")
        if done.returncode:
            if made:
                session.ask(f"DROP DATABASE {_name(name)}")
            raise DumpError("load_failed", _error(done.stderr.decode("utf-8", "replace").splitlines())[1])
        if beside:
            for (event,) in session.ask(
                f"SELECT 'row', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {_text(name)}"
            ):
                session.ask(f"ALTER EVENT {_name(name)}.{_name(event)} DISABLE")

    @staticmethod
    def _make_room(session: _Session, name: str, about: Mapping[str, Any], beside: bool) -> bool:
        """Make the database, if it is not there and empty; return whether it was made."""
        settings = f"CHARACTER SET {about['charset']} COLLATE {about['collation']}"
        if not beside and about["comment"]:
            settings += f" COMMENT {_text(about['comment'])}"
        if not session.ask(
            f"SELECT 'row', 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = BINARY {_text(name)}"
        ):
            session.ask(f"CREATE DATABASE {_name(name)} {settings}")
            return True
        if session.ask(
            f"SELECT 'row', 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = BINARY {_text(name)} LIMIT 1"
        ):
            raise DumpError("database_not_empty", name)
        return False


class _Database:
    """What one database holds, seen through a connection."""

    def __init__(self, session: _Session, name: str) -> None:
        self._session, self._name = session, name
        session.ask(f"SET SESSION lock_wait_timeout = {PATIENCE}, time_zone = '+00:00', sql_mode = ''")
        session.ask(f"USE {_name(name)}")
        self.broken: list[str] = []
        self._list()

    def _list(self) -> None:
        """Read tables, views and columns anew."""
        where = f"TABLE_SCHEMA = BINARY {_text(self._name)}"
        rows = self._session.ask(f"SELECT 'row', TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE {where}")
        self._types = dict(rows)
        self._columns: dict[str, list[tuple[str, str]]] = {name: [] for name in self._tables()}
        for table, column, kind in self._session.ask(
            f"SELECT 'row', TABLE_NAME, COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS WHERE {where}"
            " AND IS_GENERATED = 'NEVER' ORDER BY TABLE_NAME, ORDINAL_POSITION"
        ):
            if table in self._columns:
                self._columns[table].append((column, kind))
        self.broken = [name for name in sorted(self._types) if not self._reads(name)]

    def _reads(self, name: str) -> bool:
        """Tell whether the server can open a table or a view: a view outlives its tables, and MyISAM tables crash."""
        try:
            self._session.ask(f"SELECT 1 FROM {_name(name)} LIMIT 0")
        except _SqlError:
            return False
        return True

    def _tables(self) -> list[str]:
        return sorted(name for name, kind in self._types.items() if kind in ("BASE TABLE", "SYSTEM VERSIONED"))

    def lock(self) -> None:
        """Keep writers out of all tables until the connection ends.

        Not by LOCK TABLES: with MyISAM a writer that waits for it goes before the reading of mariadb-dump, and all
        three wait for each other. FLUSH TABLES stops writers at the door.
        """
        tables = [name for name in self._tables() if name not in self.broken]
        if tables:
            self._session.ask(f"FLUSH LOCAL TABLES {', '.join(map(_name, tables))} WITH READ LOCK")

    def held(self) -> dict[str, Any]:
        """Return rows and checksum of every table, and how many objects there are of the other kinds."""
        tables = {name: self._sum(name) for name in self._tables() if name not in self.broken}
        objects = {}
        for kind, where in _OBJECTS.items():
            sql = f"SELECT 'row', COUNT(*) FROM information_schema.{where.format(name='BINARY ' + _text(self._name))}"
            objects[kind] = int(self._session.ask(sql)[0][0])
        objects["views"] -= sum(self._types[name] == "VIEW" for name in self.broken)
        return {"tables": tables, "objects": objects}

    def _sum(self, table: str) -> dict[str, int]:
        columns = [f"IFNULL(CRC32({_name(column)}), '-')" for column, _kind in self._columns[table]]
        row = f"CRC32(CONCAT_WS(',', '', {', '.join(columns)}))"
        ((rows, checksum),) = self._session.ask(
            f"SELECT 'row', COUNT(*), IFNULL(SUM({row}), 0) FROM {_name(self._name)}.{_name(table)}"
        )
        return {"rows": int(rows), "checksum": int(checksum)}

    def described(self) -> dict[str, Any]:
        """Return what a dump does not hold: how the database was made, and what is lost."""
        ((charset, collation, comment),) = self._session.ask(
            "SELECT 'row', DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME, SCHEMA_COMMENT"
            f" FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = BINARY {_text(self._name)}"
        )
        return {
            "charset": charset,
            "collation": collation,
            "comment": comment,
            "broken": self.broken,
            "rounded": [
                f"{table}.{column}"
                for table, columns in self._columns.items()
                for column, kind in columns
                if kind.split()[0] == "float"
            ],
            "without_history": [name for name, kind in sorted(self._types.items()) if kind == "SYSTEM VERSIONED"],
        }


def compare(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Compare what a dump says of itself with what `look` sees after a load; return the findings."""
    if found is None:
        return [finding("database_missing", name)]
    findings = []
    for table, counted in wanted["tables"].items():
        what, other = f"{name}.{table}", found["tables"].get(table)
        if other is None:
            findings.append(finding("table_missing", what))
        elif counted["rows"] != other["rows"]:
            findings.append(finding("table_rows", what, counted["rows"], other["rows"]))
        elif counted["checksum"] != other["checksum"]:
            findings.append(finding("table_checksum", what, counted["checksum"], other["checksum"]))
    for kind, number in wanted["objects"].items():
        if number != found["objects"][kind]:
            findings.append(finding(f"{kind}_missing", name, number, found["objects"][kind]))
    return findings


def _asked(session: _Session, sql: str) -> list[list[str]]:
    try:
        return session.ask(sql)
    except _SqlError as error:
        raise DumpError("server_refused", str(error)) from None


def _accounts(session: _Session) -> list[tuple[str, bool]]:
    """Return all roles, then all users, but those that every server has."""
    rows = _asked(session, "SELECT 'row', User, Host, is_role FROM mysql.user ORDER BY is_role DESC, User, Host")
    return [
        (_name(user) if role == "Y" else f"{_name(user)}@{_name(host)}", role == "Y")
        for user, host, role in rows
        if user not in RESERVED_USERS
    ]


def _made_by(session: _Session, account: str, role: bool) -> list[str]:
    """Return the statements that make an account."""
    made = [[f"CREATE ROLE {account}"]] if role else session.show(f"SHOW CREATE USER {account}")
    return [cells[0] for cells in (*made, *session.show(f"SHOW GRANTS FOR {account}"))]


def _is_complete(path: str) -> bool:
    """Tell whether mariadb-dump came to its end."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 100))
        return _COMPLETE in file.read()


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def _name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"
