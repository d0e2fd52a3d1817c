# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in Sympa's folders and in its database, read and written whole sets at a time.

Written is what Sympa itself would write: the file of a list first, then the tables, which are made of it. A run that
was killed between the two is mended by the next one.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from io import TextIOWrapper
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from shutil import chown, rmtree
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

from . import sympa_keys
from .sympa import SympaError, canonical
from .sympa_config import parse, parse_topics
from .sympa_plan import CLOSED_ROBOT, OPEN, ROW, Admin, List, map_text, transport
from .sympa_subscribers import ListPlan, Subscriber

USER = "sympa"
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\0": "\0", "\\\\": "\\"}
LINES = Path("/var/cache/infini-sympa-lines")
"""Where the server finds the lines that it loads."""
_ROWS = 2000
"""Lines in one INSERT: far below what the server takes in one packet."""
_USER = ("email_user", "gecos_user")
SUBSCRIBER_PLACE = ("list", "robot", "user")
SUBSCRIBER_KEY = tuple(f"{name}_subscriber" for name in SUBSCRIBER_PLACE)


class Load(NamedTuple):
    """Lines for a table, as LOAD DATA takes them: far faster than words of SQL. Those that are there already stay."""

    table: str
    columns: Sequence[str]
    lines: Iterable[str]

    def statement(self, path: Path) -> str:
        """Write the lines where the server reads them, and return what has it do so."""
        try:
            with path.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(self.lines)
        except OSError as error:
            raise SympaError(f"{path} cannot be written ({error.strerror}): nothing was changed; make room") from None
        path.chmod(0o644)  # the server wants that; the folder is its alone
        names = ", ".join(self.columns)
        return f"LOAD DATA INFILE '{path}' IGNORE INTO TABLE {self.table} CHARACTER SET utf8mb4 ({names})"


class Database:
    """Sympa's database on this host, through the server's own client, with the rights of root."""

    def __init__(self, name: str) -> None:
        self._command = [
            *("mariadb", "--protocol=socket", "--user=root", "--batch", "--skip-column-names", "--quick"),
            *("--default-character-set=utf8mb4", name),
        ]

    def ask(self, question: str) -> Iterator[list[str]]:
        """Return the answer's rows as they come."""
        with self._client([question]) as answer:
            for line in answer:
                cells = line.rstrip("\n").split("\t")
                if "\\" in line:
                    cells = [re.sub(r"\\[nt0\\]", lambda found: _ESCAPES[found.group()], cell) for cell in cells]
                yield cells

    def write(self, statements: Iterable[str | Load]) -> None:
        """Run the statements as one change: all of them, or none."""
        # Sympa talks to its tables in this mode, too.
        begin = ("SET SESSION sql_mode = ''", "START TRANSACTION")
        with _folder_of_the_server() as folder:
            words = (
                one.statement(folder / str(number)) if isinstance(one, Load) else one
                for number, one in enumerate(statements)
            )
            with self._client(chain(begin, words, ["COMMIT"])):
                pass

    @contextmanager
    def _client(self, statements: Iterable[str]) -> Iterator[IO[str]]:
        """Give the statements to the client one after the other, so that millions of rows are never held at once."""
        with TemporaryFile("w+", encoding="utf-8") as errors:
            try:
                client = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            except FileNotFoundError:
                raise SympaError("MariaDB's client is not on this host: apply the role mariadb first") from None
            with client:
                assert client.stdin is not None  # noqa: S101  both are pipes
                assert client.stdout is not None  # noqa: S101  likewise
                with suppress(BrokenPipeError), TextIOWrapper(client.stdin, "utf-8") as stream:
                    stream.writelines(f"{statement};\n" for statement in statements)
                # The client writes \\n for a line's end within a name, but a carriage return as it is.
                with TextIOWrapper(client.stdout, "utf-8", newline="\n") as answer:
                    yield answer
            if client.returncode:
                errors.seek(0)
                words = errors.read().strip()
                if re.match(r"ERROR 20\d\d ", words):
                    raise SympaError(f"MariaDB does not answer on this host ({words}): is the service started?")
                raise SympaError(f"MariaDB refused Sympa's data: {words}")


@contextmanager
def _folder_of_the_server() -> Iterator[Path]:
    """Make a folder for the server's eyes alone."""
    remove_lines()
    LINES.mkdir(mode=0o700)
    try:
        chown(LINES, "mysql")
        yield LINES
    finally:
        remove_lines()


def remove_lines() -> None:
    """Remove the lines that a run has loaded, or that one which was killed has left."""
    rmtree(LINES, ignore_errors=True)  # mostly there are none


class Folders:
    """Sympa's folders on this host."""

    def __init__(self, etc: str, home: str, owner: str = USER) -> None:
        self.etc, self.home = Path(etc), Path(home)
        self._owner = owner

    def robots(self) -> dict[str, str]:
        """Return the file of each robot."""
        return {path.parent.name: _text(path) for path in self.etc.glob("*/robot.conf")}

    @property
    def keys(self) -> Path:
        """The folder of the keys by which robots sign, where they bring none."""
        return self.etc / "dkim"

    def make_keys(self, robots: Sequence[Mapping[str, Any]]) -> None:
        """Make the keys that robots lack."""
        self._folder(self.keys)
        sympa_keys.make(robots, self.keys, self._owner)

    def tell(self, path: Path, text: str) -> bool:
        """Write what the DNS must say; return whether it is new."""
        if _text(path) == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return True

    def topics(self) -> dict[str, list[str]]:
        """Return the topics that each robot knows: those of its own file, or everybody's."""
        everybody = _text(self.etc / "topics.conf")
        return {name: parse_topics(_text(self.etc / name / "topics.conf") or everybody) for name in self.robots()}

    def open_robots(self) -> list[str]:
        """Return the robots that have addresses."""
        return sorted(name for name, text in self.robots().items() if not text.startswith(CLOSED_ROBOT))

    def robots_with_lists(self) -> list[str]:
        """Return the robots that have a folder of lists."""
        return [path.name for path in self.home.glob("*/") if path.is_dir()]

    def lists(self) -> dict[str, List]:
        """Return what the files say of each list, without its people."""
        found = {}
        for path in self.home.glob("*/*/config"):
            config = parse(_text(path))
            found[f"{path.parent.name}@{path.parents[1].name}"] = List(config, info=_text(path.with_name("info")))
        return found

    def people_kept(self, address: str) -> frozenset[Admin]:
        """Return the people of a closed list, whom Sympa keeps beside it."""
        found = set()
        for role in ("owner", "editor"):
            for block in _text(self._of(address) / f"{role}.dump").split("\n\n"):
                words = dict(line.partition(" ")[::2] for line in block.splitlines())
                if "email" in words:
                    told = [words.get(name, "") for name in ("gecos", "profile", "reception", "visibility", "info")]
                    found.add(Admin(canonical(words["email"]), role, *told))
        return frozenset(found)

    def write_robot(self, name: str, text: str) -> None:
        """Write a robot's file."""
        self._folder(self.etc / name)
        self._put(self.etc / name / "robot.conf", text)

    def make_robot_folder(self, name: str) -> None:
        """Make the folder of a robot's lists."""
        self._folder(self.home / name)

    def write_list(self, address: str, one: List, before: List | None) -> None:
        """Write a list's files; the former configuration stays beside, by its number, as Sympa leaves it."""
        folder = self._of(address)
        self._folder(folder)
        path = folder / "config"
        if before is None or one.config != before.config:
            if before:
                former = path.with_name(f"config.{before.config.line('serial') or 0}")
                former.unlink(missing_ok=True)
                os.link(path, former)
            self._put(path, one.config.text())
        if before is None or one.info != before.info:
            self._put(folder / "info", one.info)

    def touch(self, addresses: Iterable[str], what: str) -> None:
        """Tell the daemons that they know the members (`member`) or people (`admin`) of these lists no longer."""
        for address in addresses:
            path = self._of(address) / f".last_change.{what}"
            path.touch()
            os.utime(path)
            self._give(path, 0o640)

    def write_map(self, path: Path, lines: Mapping[str, str]) -> None:
        """Write a map and have Postfix's own program make it fit to be read."""
        self._folder(path.parent, 0o755)
        self._put(path, map_text(lines), 0o644)
        if compiles():
            done = subprocess.run(["postmap", f"hash:{path}"], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SympaError(f"Postfix cannot read {path}: {done.stderr.strip()}")

    def _of(self, address: str) -> Path:
        name, _, robot = address.partition("@")
        return self.home / robot / name

    def _folder(self, path: Path, mode: int = 0o750) -> None:
        if not path.is_dir():
            path.mkdir(parents=True)
            self._give(path, mode)

    def _put(self, path: Path, text: str, mode: int = 0o640) -> None:
        draft = path.with_name(f".{path.name}.infini")
        draft.write_text(text, "utf-8")
        self._give(draft, mode)
        # Daemons look at whole seconds: two changes within one must not look like one.
        last = path.stat().st_mtime if path.exists() else 0
        now = max(time.time(), last + 1)
        os.utime(draft, (now, now))
        draft.replace(path)

    def _give(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        if self._owner:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    @cached_property  # a thousand lists are as many questions
    def _account(self) -> pwd.struct_passwd:
        return pwd.getpwnam(self._owner)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:  # an old list's, which was never converted
        return path.read_text("cp1252", errors="replace")
    except FileNotFoundError:
        return ""


def compiles() -> bool:
    """Tell whether Postfix is here to read a map."""
    return any(Path(folder, "postmap").exists() for folder in ("/usr/sbin", "/usr/local/sbin"))


def map_differs(path: Path, lines: Mapping[str, str]) -> bool:
    """Tell whether a map says something else, or is not made fit to be read; the order and comments are nothing."""
    words = (line.split(None, 1) for line in _text(path).splitlines() if not line.startswith("#"))
    found = {pair[0]: pair[1].strip() for pair in words if len(pair) == 2}
    compiled = path.with_name(f"{path.name}.db")
    stale = compiles() and (not compiled.exists() or compiled.stat().st_mtime < path.stat().st_mtime - 1)
    return found != dict(lines) or (bool(lines) and stale)


def sympa(*words: str) -> None:
    """Have Sympa itself do something, as the account that its database knows."""
    done = subprocess.run(
        ["runuser", "-u", USER, "--", "sympa", *words], cwd="/", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SympaError(f"sympa {' '.join(words)} failed: {(done.stderr or done.stdout).strip()[-500:]}")


def with_people_kept(folders: Folders, lists: Mapping[str, List]) -> dict[str, List]:
    """Return the lists, closed ones with the people whom Sympa keeps beside them."""
    return {
        address: replace(one, admins=folders.people_kept(address)) if one.shut else one
        for address, one in lists.items()
    }


def all_addresses(folders: Folders, lists: Mapping[str, List]) -> dict[str, str]:
    """Return the map of all addresses that Sympa answers to."""
    robots = set(folders.open_robots())
    living = (address for address, one in lists.items() if one.status == OPEN and address.partition("@")[2] in robots)
    return transport(robots, living)


def write_all_addresses(folders: Folders, place: Path) -> None:
    """Write the maps of robots and addresses as they are, whoever made them."""
    folders.write_map(place / "domains", dict.fromkeys(folders.open_robots(), USER))
    folders.write_map(place / "transport", all_addresses(folders, folders.lists()))


def read_lists(folders: Folders, database: Database) -> dict[str, List]:
    """Return the lists with their lines of Sympa's table and their people."""
    found = folders.lists()
    columns = ", ".join(f"IFNULL({column}, '')" for column in ROW)
    rows = {
        row[0]: tuple(row[1:])
        for row in database.ask(f"SELECT CONCAT(name_list, '@', robot_list), {columns} FROM list_table")
    }
    people: dict[str, set[Admin]] = {}
    for row in database.ask(
        "SELECT CONCAT(list_admin, '@', robot_admin), user_admin, role_admin, IFNULL(comment_admin, ''), "
        "IFNULL(profile_admin, ''), IFNULL(NULLIF(reception_admin, ''), 'mail'), "
        "IFNULL(NULLIF(visibility_admin, ''), 'noconceal'), IFNULL(info_admin, '') "
        "FROM admin_table WHERE subscribed_admin = 1 AND role_admin IN ('owner', 'editor')"
    ):
        people.setdefault(row[0], set()).add(Admin(canonical(row[1]), *row[2:]))
    return {
        address: List(one.config, rows.get(address), frozenset(people.get(address, ())), one.info)
        for address, one in found.items()
    }


def list_statements(lists: Mapping[str, List], before: Mapping[str, List], now: int) -> Iterator[str]:
    """Return what makes Sympa's tables say what these lists' files and people say."""
    columns: tuple[str, ...] = ("name_list", "robot_list", *ROW)
    # As Sympa does it, only the topics are empty where there are none.
    rows = [
        _row(*address.split("@"), *(cell or None for cell in one.row[:-1]), one.row[-1])
        for address, one in lists.items()
        if one.row
    ]
    yield from _insert("list_table", columns, rows, ROW)
    changed = {
        address: one
        for address, one in lists.items()
        if one.admins != (before[address].admins if address in before else frozenset())
    }
    for address, one in changed.items():
        gone = before[address].admins if address in before else frozenset()
        staying = {(admin.email, admin.role) for admin in one.admins}
        for email, role in sorted({(admin.email, admin.role) for admin in gone} - staying):
            name, robot = address.split("@")
            yield (
                f"DELETE FROM admin_table WHERE user_admin = {_quote(email)} AND list_admin = {_quote(name)} "
                f"AND robot_admin = {_quote(robot)} AND role_admin = {_quote(role)} AND inclusion_admin IS NULL"
            )
    told = ("profile", "reception", "visibility", "comment", "info", "update_epoch", "subscribed")
    columns = tuple(f"{name}_admin" for name in ("list", "robot", "user", "role", "date_epoch", *told))
    admins = [(address, admin) for address, one in changed.items() for admin in sorted(one.admins, key=repr)]
    rows = [
        _row(
            *address.split("@"),
            admin.email,
            admin.role,
            now,
            admin.profile or None,
            admin.reception,
            admin.visibility,
            admin.name or None,
            admin.info or None,
            now,
            1,
        )
        for address, admin in admins
    ]
    yield from _insert("admin_table", columns, rows, columns[5:])
    yield from _users((admin.email, admin.name) for _, admin in admins)


def among(addresses: Iterable[str]) -> str:
    """Return what narrows a question down to the subscribers of these lists."""
    places = ", ".join("({})".format(", ".join(map(_quote, address.split("@", 1)))) for address in sorted(addresses))
    return f"WHERE (list_subscriber, robot_subscriber) IN ({places}) " if places else "WHERE FALSE "


def read_subscribers(
    database: Database, addresses: Sequence[str] | None = None
) -> Iterator[tuple[str, dict[str, Subscriber]]]:
    """Return the subscribers of these lists or of all, one list after the other; a list without any is left out."""
    where = "" if addresses is None else among(addresses)
    address = ""
    them: dict[str, Subscriber] = {}
    for row in database.ask(
        "SELECT CONCAT(list_subscriber, '@', robot_subscriber), user_subscriber, TRIM(IFNULL(comment_subscriber, '')), "
        "IFNULL(NULLIF(reception_subscriber, ''), 'mail'), "
        "IFNULL(NULLIF(visibility_subscriber, ''), 'noconceal'), date_epoch_subscriber FROM subscriber_table "
        f"{where}ORDER BY robot_subscriber, list_subscriber"
    ):
        if row[0] != address:
            if them:
                yield address, them
            address, them = row[0], {}
        them[canonical(row[1])] = Subscriber(row[2], row[3], row[4], int(row[5]))
    if them:
        yield address, them


def subscriber_key(database: Database) -> tuple[str, ...]:
    """Return the columns of the key of Sympa's subscribers: their order is another on each host, as Perl threw it."""
    question = (
        "SELECT column_name FROM information_schema.statistics WHERE table_schema = DATABASE() "
        "AND table_name = 'subscriber_table' AND index_name = 'PRIMARY' ORDER BY seq_in_index"
    )
    return tuple(row[0] for row in database.ask(question))


def subscriber_statements(
    plans: Mapping[str, ListPlan], now: int, key: Sequence[str] = SUBSCRIBER_KEY
) -> Iterator[str | Load]:
    """Return what changes the subscribers of lists, as Sympa keeps them; nobody is told by mail.

    New rows come in the order of the table's `key`: in another one, millions take fourteen times as long.
    """
    for address, plan in plans.items():
        where = "WHERE list_subscriber = {} AND robot_subscriber = {}".format(*map(_quote, address.split("@")))
        for email, one in plan.mend.items():
            yield (
                f"UPDATE subscriber_table SET comment_subscriber = {_quote(one.name or None)}, "
                f"reception_subscriber = {_quote(one.reception)}, visibility_subscriber = {_quote(one.visibility)}, "
                f"update_epoch_subscriber = {now} {where} AND user_subscriber = {_quote(email)}"
            )
        for some in _slices(plan.remove):
            yield f"DELETE FROM subscriber_table {where} AND user_subscriber IN ({', '.join(map(_quote, some))})"
    told = ("comment", "reception", "visibility", "date_epoch", "update_epoch", "subscribed", "number_messages")
    columns = tuple(f"{name}_subscriber" for name in (*SUBSCRIBER_PLACE, *told))
    yield Load("subscriber_table", columns, _subscriber_rows(plans, now, key))
    names = {email: one.name for plan in plans.values() for email, one in plan.add.items()}
    yield Load("user_table", _USER, (f"{email}\t{_cell(name)}\n" for email, name in sorted(names.items())))


def _subscriber_rows(plans: Mapping[str, ListPlan], now: int, key: Sequence[str]) -> Iterator[str]:
    order = [SUBSCRIBER_PLACE.index(column.replace("_subscriber", "")) for column in key]
    lists = ((*address.partition("@")[::2], plan.add) for address, plan in plans.items())
    places: Iterable[tuple[str, str, str]] = ((name, robot, email) for name, robot, them in lists for email in them)
    for place in sorted(places, key=itemgetter(*order)):
        name, reception, visibility, date = plans[f"{place[0]}@{place[1]}"].add[place[2]]
        date = date or now
        yield "\t".join((*place, _cell(name), reception, visibility, f"{date}\t{date}\t1\t0\n"))


def _cell(name: str) -> str:
    """Return a name, which has no tab and no line's end, as LOAD DATA reads it."""
    return name.replace("\\", "\\\\") or "\\N"


def load_known(path: Path) -> dict[str, frozenset[str]]:
    """Return whom the file named before, list by list."""
    try:
        return {address: frozenset(them.split()) for address, them in json.loads(path.read_text("utf-8")).items()}
    except FileNotFoundError:
        return {}
    except ValueError:
        raise SympaError(
            f"{path} is damaged: bring it back from a backup (without it, those who have unsubscribed would be brought "
            "back), or delete it if that is meant"
        ) from None


def save_known(path: Path, known: Mapping[str, frozenset[str]]) -> None:
    """Keep whom the file names now."""
    put_private(path, json.dumps({address: " ".join(sorted(them)) for address, them in sorted(known.items())}))


def put_private(path: Path, text: str) -> None:
    """Write a file that is root's alone, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    draft.replace(path)


def _users(people: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Return what makes people known who are not."""
    rows = (_row(email, name or None) for email, name in people)
    yield from _insert("user_table", _USER, rows, ignore=True)


def _insert(
    table: str, columns: Sequence[str], rows: Iterable[str], update: Sequence[str] = (), *, ignore: bool = False
) -> Iterator[str]:
    tail = " ON DUPLICATE KEY UPDATE " + ", ".join(f"{name} = VALUES({name})" for name in update) if update else ""
    verb = "INSERT IGNORE INTO" if ignore else "INSERT INTO"
    for some in _slices(rows):
        yield f"{verb} {table} ({', '.join(columns)}) VALUES {','.join(some)}{tail}"


def _slices(rows: Iterable[str]) -> Iterator[list[str]]:
    left = iter(rows)
    while some := list(islice(left, _ROWS)):
        yield some


def _row(*cells: object) -> str:
    return f"({','.join(map(_quote, cells))})"


def _quote(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"
