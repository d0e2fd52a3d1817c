# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini restore`: what a tech at the desk asks for, in the words of sites, accounts and databases.

A thing becomes pieces: some paths or databases of one service on one host. Which service holds a path is asked of the
host, that has the cards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from hosting.model import HOME
from infini.backups.door import CLIENTS, ask, run
from infini.errors import RefusedError
from infini.hosts import Connection, Inventory

TIME = "%Y-%m-%dT%H:%M:%S"
KINDS = ("site", "account", "database", "path", "host")


@dataclass(frozen=True)
class Thing:
    """What is to come back, and where it lives; nothing named is all that the host has."""

    host: str
    paths: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    shared: bool = False
    """Whether its databases may be those of other sites, too."""

    @property
    def whole(self) -> bool:
        """Whether all of the host is meant."""
        return not self.paths and not self.databases


@dataclass(frozen=True)
class Piece:
    """A part of a thing that one service holds, from one archive."""

    host: str
    service: str
    archive: str
    paths: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()

    def request(self, *, over: bool, to: str = "") -> dict[str, Any]:
        """Return what the host's program is asked."""
        asked: dict[str, Any] = {"service": self.service, "archive": self.archive, "over": over}
        asked |= {"paths": list(self.paths)} if self.paths else {}  # without either, all of the service
        asked |= {"databases": list(self.databases)} if self.databases else {}
        return asked | ({"to": to} if to else {})


def plan(
    thing: Thing, services: Sequence[Mapping[str, Any]], archives: Sequence[Mapping[str, Any]], before: str = ""
) -> list[Piece]:
    """Say which services hold a thing, and from which archive each comes; pure.

    `services` and `archives` are what the host's program answers; `before` is a time (UTC, ISO 8601), and the newest
    archive that is not younger is taken. What no service holds, or had no archive then, is a RefusedError.
    """
    if thing.whole:
        wanted = {service["service"]: Piece(thing.host, service["service"], "") for service in services}
    else:
        wanted = {}
        for path in thing.paths:
            name = _holder(path, services)
            held = wanted.get(name, Piece(thing.host, name, ""))
            wanted[name] = replace(held, paths=(*held.paths, path))
        for database in thing.databases:
            name = _keeper_of(database, services)
            held = wanted.get(name, Piece(thing.host, name, ""))
            wanted[name] = replace(held, databases=(*held.databases, database))
    return [replace(piece, archive=_archive(piece, archives, before)) for piece in wanted.values()]


def _holder(path: str, services: Sequence[Mapping[str, Any]]) -> str:
    """Return the service with the deepest source that a path is in."""
    holds = [
        (len(source), service["service"])
        for service in services
        for source in (*service["paths"], *service.get("reference", ()))
        if PurePosixPath(path).is_relative_to(source)
    ]
    if not holds:
        raise RefusedError(f"{path} is in no backup: no service's card names it or a folder above it")
    return str(max(holds)[1])


def _keeper_of(database: str, services: Sequence[Mapping[str, Any]]) -> str:
    """Return the service that has a database: one that names it before one that takes all."""
    holds = [
        (pattern == database, service["service"])
        for service in services
        for pattern in service["databases"]
        if fnmatchcase(database, pattern)
    ]
    if not holds:
        raise RefusedError(f"The database {database} is in no backup: no service's card names it")
    return str(max(holds)[1])


def _archive(piece: Piece, archives: Sequence[Mapping[str, Any]], before: str) -> str:
    there = [one for one in archives if one["service"] == piece.service and (not before or one["time"] <= before)]
    if not there:
        when = f" from before {before}" if before else ""
        raise RefusedError(f"{piece.host}: the store holds nothing of {piece.service}{when}: ./infini restore list")
    return str(max(there, key=lambda one: str(one["time"]))["archive"])


def moment(text: str) -> str:
    """Return a tech's words for a local time (`2026-11-20`, `2026-11-20 14:30`) as UTC; a day means its beginning.

    What is no time is a RefusedError.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime(TIME)
    except ValueError:
        raise RefusedError(f"“{text}” is no time: write 2026-11-20 or “2026-11-20 14:30”") from None


def moment_of(archive: str) -> datetime:
    """Return when an archive was made, from its name."""
    return datetime.strptime(archive.partition("-")[2][:19], TIME).replace(tzinfo=UTC)


def restore(
    inventory: Inventory, pieces: Sequence[Piece], *, over: bool, to: str = ""
) -> Iterator[tuple[Piece, dict[str, Any]]]:
    """Have each piece brought back by its host, and yield what the host answers.

    `to` is for files; those of several services come into a folder each.
    """
    files = [piece for piece in pieces if piece.paths or not piece.databases]
    for piece in pieces:
        place = "" if not to or piece not in files else to if len(files) == 1 else f"{to}/{piece.service}"
        yield piece, ask(inventory.connection(piece.host), "restore", request=piece.request(over=over, to=place))


def find(inventory: Inventory, kind: str, name: str) -> Thing:
    """Find what a tech names, such as `site velo.test` or `path web:/etc/apache2`, or raise RefusedError."""
    if kind == "host":
        if name not in inventory.hosts(CLIENTS):
            raise RefusedError(f"No host “{name}” is backed up: name one of {', '.join(inventory.hosts(CLIENTS))}")
        return Thing(name)
    if kind == "path":
        host, _, path = name.partition(":")
        if host not in inventory.hosts(CLIENTS) or not path.startswith("/"):
            raise RefusedError(f"“{name}” is no path on a host: write it as web:/srv/members/velo")
        return Thing(host, (str(PurePosixPath(path)),))
    host, _, database = name.partition(":")
    if kind == "database" and database and host in inventory.hosts(CLIENTS):
        return Thing(host, databases=(database,))  # also one that is no longer there
    found = [thing for host in inventory.hosts(CLIENTS) for thing in _things(inventory, host, kind, name)]
    if len(found) != 1:
        there = f"{len(found)} hosts have" if found else "no host that is backed up has"
        raise RefusedError(
            f"{there} a {kind} “{name}”. What is gone or there twice is named by its host:"
            " `infini restore path web:/srv/members/velo`, `infini restore database web:velo`"
        )
    return found[0]


def _things(inventory: Inventory, host: str, kind: str, name: str) -> Iterator[Thing]:
    """Yield what a host has of that name."""
    if kind == "database":
        with suppress(RefusedError):  # a host without a server of databases has none
            if [name] in _rows(inventory.connection(host), "SHOW DATABASES"):
                yield Thing(host, databases=(name,))
        return
    panel = inventory.get(host, "hosting_panel") == "alternc"
    sites = panel_sites(inventory.connection(host)) if panel else declared_sites(inventory, host)
    mine = [site for site in sites if name in (site.names if kind == "site" else (site.account,))]
    if mine:
        paths = {site.folder if kind == "site" else site.home for site in mine}
        databases = {one for site in mine for one in site.databases}
        yield Thing(host, tuple(sorted(paths - {""})), tuple(sorted(databases)), panel and kind == "site")


@dataclass(frozen=True)
class Site:
    """A site as the one knows it who provides it; an account without a site has no names."""

    account: str
    home: str
    names: tuple[str, ...] = ()
    folder: str = ""
    databases: tuple[str, ...] = ()


def declared_sites(inventory: Inventory, host: str) -> list[Site]:
    """Return the sites and accounts that the inventory declares on a host of group webs."""
    if host not in inventory.hosts("webs"):
        return []
    sites = [
        Site(
            site["account"],
            f"{HOME}/{site['account']}",
            (site["name"], *site.get("aliases", ())),
            f"{HOME}/{site['account']}/www/{site['name']}",
            (site["database"],) if site.get("database") else (),
        )
        for site in inventory.get(host, "hosting_sites", [])
        if site.get("account")
    ]
    return sites + [Site(one["name"], f"{HOME}/{one['name']}") for one in inventory.get(host, "hosting_accounts", [])]


PANEL_HOME = "/var/www/alternc"
"""Where AlternC keeps members' files, under the login's first letter: ALTERNC_HTML, as its package sets it."""
PANEL_SITES = """
SELECT m.login, IF(s.sub = '', s.domaine, CONCAT(s.sub, '.', s.domaine)), s.valeur
FROM alternc.membres m LEFT JOIN alternc.sub_domaines s ON s.compte = m.uid AND s.valeur LIKE '/%'
"""
PANEL_DATABASES = "SELECT m.login, d.db FROM alternc.db d JOIN alternc.membres m ON m.uid = d.uid"


def panel_sites(to: Connection) -> list[Site]:
    """Return the sites of a panel's members. It does not know which database a site uses: all of the member's come."""
    databases: dict[str, list[str]] = {}
    for login, database in _rows(to, PANEL_DATABASES):
        databases.setdefault(login, []).append(database)
    found = []
    for login, name, folder in _rows(to, PANEL_SITES):
        home = f"{PANEL_HOME}/{login[0]}/{login}"
        named, inside = ((name,), f"{home}{folder}".rstrip("/")) if name != "NULL" else ((), "")
        found.append(Site(login, home, named, inside, tuple(databases.get(login, ()))))
    return found


def _rows(to: Connection, query: str) -> list[list[str]]:
    done = run(to, ["mariadb", "--batch", "--skip-column-names"], query)
    if done.returncode:
        raise RefusedError(f"{to.host}: its databases do not answer: {done.stderr.strip()}")
    return [line.split("\t") for line in done.stdout.splitlines()]
