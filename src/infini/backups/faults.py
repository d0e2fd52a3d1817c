# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seeded faults: a drill that never fails proves nothing, so what it must catch is done on purpose, one by one.

Each fault is put into a copy of a real archive, in a repository on the throwaway machine; then the same restore and the
same comparison as for the real one must say that something is wrong. Nothing of it ever reaches the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini.backups.door import CLIENT, ask, run, what_came
from infini.backups.restore import Piece
from infini.errors import FailedError, InfiniError
from infini.hosts import Connection, Inventory

if TYPE_CHECKING:
    from infini.backups.drill import Drill

SPOIL = Path(__file__).with_name("spoil.py")
FOLDER = "/srv/faults"
CLEAN, TREE, REPOSITORY, OTHER = (f"{FOLDER}/{name}" for name in ("clean", "tree", "repository", "other-key"))
FILES = ("flipped_bit", "lost_owner", "another_acl", "empty_folder", "stale_canary", "lying_manifest")
DATABASES = ("missing_database", "missing_table", "empty_dump")


SEEN_AS = {
    "flipped_bit": "content",
    "lost_owner": "owner",
    "another_acl": "acl",
    "empty_folder": "missing",
    "stale_canary": "canary_stale",
    "lying_manifest": "missing",
    "missing_database": "archive_lacks",
    "missing_table": "table_missing",
    "empty_dump": "table_rows",
    "truncated_archive": "repository_damaged",
    "wrong_key": "key_wrong",
    "pruned_by_an_attacker": "archive_vanished",
}
"""By which code each fault is seen; any other would be chance."""


def seed(done: Drill, inventory: Inventory) -> list[dict[str, Any]]:
    """Seed every known fault on the first machine that has both members' files and databases; say which are caught."""
    files, databases = _subjects(done, inventory)
    to = inventory.connection(files.host)
    for piece in (files, databases):
        if noticed := _noticed(to, piece, _nothing):
            raise FailedError(f"{to.host}: nothing was spoilt, and the drill found {', '.join(noticed)}")
    by = {fault: _noticed(to, files, _spoiler(fault)) for fault in FILES}
    by |= {fault: _noticed(to, databases, _spoiler(fault)) for fault in DATABASES}
    by["truncated_archive"] = _noticed(to, files, _nothing, _truncate)
    by["wrong_key"] = _noticed(to, files, _nothing, _another_key)
    seen = {host: [one["archive"] for one in there] for host, there in done.archives.items()}
    left = {host: [one for one in there if one["archive"] != files.archive] for host, there in done.archives.items()}
    by["pruned_by_an_attacker"] = [one["code"] for one in vanished(left, seen)]
    return [{"fault": fault, "caught": SEEN_AS[fault] in codes, "by": codes} for fault, codes in by.items()]


def _subjects(done: Drill, inventory: Inventory) -> tuple[Piece, Piece]:
    """Return the archives of members' files and of databases of one machine, by what the cards name."""
    for host in done.hosts:
        services = {one["service"]: one for one in ask(inventory.connection(host), "services")}
        mine = [piece for piece in done.pieces if piece.host == host]
        files = [one for one in mine if any(path.startswith("/srv/") for path in services[one.service]["paths"])]
        databases = [one for one in mine if services[one.service]["databases"]]
        if files and databases:
            return files[0], databases[0]
    raise FailedError("No machine of the drill has members' files under /srv and databases: no fault can be seeded")


Work = Callable[[Connection, Piece], None]


def _noticed(to: Connection, piece: Piece, spoil: Work, damage: Work | None = None) -> list[str]:
    """Make a spoilt copy of an archive, restore it beside, compare; return the codes of what was noticed."""
    _prepare(to, piece)
    spoil(to, piece)
    _shell(to, f"cd {TREE} && {CLIENT} borg create {REPOSITORY}::{piece.archive} .")
    (damage or _nothing)(to, piece)
    request = {"service": piece.service, "repository": OTHER if damage is _another_key else REPOSITORY}
    answer: dict[str, Any] = {"to": "", "databases": {}}
    try:
        answer = ask(to, "restore", request=request)
        compared = ask(to, "compare", request={**request, **what_came(answer)})
    except InfiniError as error:
        if error.code not in SEEN_AS.values():
            raise  # no room, no answer: that is not what was seeded
        return [error.code]
    finally:
        drop = "".join(f"mariadb -e 'DROP DATABASE `{name}`'\n" for name in answer["databases"].values())
        _shell(to, f"rm -rf {TREE} {REPOSITORY} {OTHER} {answer['to']}\n{drop}")
    return sorted({finding["code"] for finding in compared["findings"]})


def _prepare(to: Connection, piece: Piece) -> None:
    """Lay a clean copy of the archive ready, and an empty repository; the copy is fetched once."""
    _shell(
        to,
        f"""
        mkdir -p {CLEAN}/{piece.service}; cd {CLEAN}/{piece.service}
        test -e .whole || {{ {CLIENT} borg --bypass-lock extract ::{piece.archive} && touch .whole; }}
        cp -a {CLEAN}/{piece.service} {TREE}; rm {TREE}/.whole
        {CLIENT} borg init --encryption repokey-blake2 {REPOSITORY}
        """,
    )


def _spoiler(fault: str) -> Work:
    def spoil(to: Connection, piece: Piece) -> None:
        done = run(to, ["python3", "-", fault, TREE, piece.service], SPOIL.read_text())
        if done.returncode:
            raise FailedError(f"{to.host}: the fault {fault} cannot be seeded: {done.stderr.strip()}")

    return spoil


def _nothing(_to: Connection, _piece: Piece) -> None:
    """Leave it as it is."""


def _truncate(to: Connection, _piece: Piece) -> None:
    """Cut the repository's largest segment in half."""
    _shell(to, f"f=$(ls -S {REPOSITORY}/data/0/* | head -1); truncate -s $(($(stat -c %s $f) / 2)) $f")


def _another_key(to: Connection, piece: Piece) -> None:
    """Have the same archive in a repository that another passphrase opens."""
    _shell(
        to,
        f"""
        export BORG_PASSPHRASE=another-one BORG_BASE_DIR={FOLDER}/other
        borg init --encryption repokey-blake2 {OTHER}; cd {TREE}; borg create {OTHER}::{piece.archive} .
        """,
    )


def _shell(to: Connection, script: str) -> None:
    done = run(to, ["sh", "-eu"], script)
    if done.returncode:
        raise FailedError(f"{to.host}: a fault cannot be seeded: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def vanished(archives: Mapping[str, Iterable[Mapping[str, Any]]], journal: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name the archives that the keeper has seen, has not pruned, and that the store no longer shows; pure.

    `journal` is the keeper's: for each host the archives that should be there, by name.
    """
    return [
        {"host": host, "service": name.partition("-")[0], "code": "archive_vanished", "what": name}
        for host, there in archives.items()
        for name in sorted(set(journal.get(host, ())) - {str(one["archive"]) for one in there})
    ]
