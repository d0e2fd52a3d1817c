# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `infini-sympa` on a host: a Sympa written down as data, and another Sympa taken over whole.

`export FOLDER` writes `sympa.json` (robots and lists) and `subscribers.tsv`. `import FOLDER` takes a Sympa's `etc`,
`list_data`, `arc` (all as their folders are) and `sympa.sql`, a dump of its database, and lays them over an empty one:
nothing that is here already is overwritten. `records` prints what the DNS must say of the robots.
Status 0 fine, 2 refused, 4 failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .sympa import SympaError
from .sympa_door import (
    USER,
    Database,
    Folders,
    read_lists,
    read_subscribers,
    sympa,
    with_people_kept,
    write_all_addresses,
)
from .sympa_export import export_list, export_robot, export_subscribers
from .sympa_plan import OPEN

RECORDS = Path("/var/lib/infini-sympa/records.zone")
ETC, HOME, ARCHIVES, DATABASE = "/etc/sympa", "/var/lib/sympa/list_data", "/var/lib/sympa/arc", "sympa"
DAEMONS = ("sympa.service", "wwsympa.service", "wwsympa.socket")


class RefusedError(Exception):
    """Nothing was changed; the message says why and what mends it."""


def export(folder: Path) -> dict[str, int]:
    """Write down robots, lists and subscribers as data; return how many there are."""
    folders, database = Folders(ETC, HOME), Database(DATABASE)
    lists = {
        address: one
        for address, one in with_people_kept(folders, read_lists(folders, database)).items()
        if one.shut or one.status == OPEN  # what waits for a listmaster's word is no list yet
    }
    robots = folders.robots()
    data = {
        "sympa_robots": [export_robot(name, text) for name, text in sorted(robots.items())],
        "sympa_lists": [export_list(address, one) for address, one in sorted(lists.items())],
    }
    os.umask(0o077)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sympa.json").write_text(json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")
    count = -1  # the names of the columns are a line, too
    with (folder / "subscribers.tsv").open("w", encoding="utf-8") as stream:
        for line in export_subscribers(read_subscribers(database)):
            stream.write(line)
            count += 1
    return {"robots": len(robots), "lists": len(lists), "subscriptions": count}


def take_over(folder: Path) -> dict[str, int]:
    """Take a whole Sympa from its folders and a dump of its database; return how many things there are then."""
    _refuse(folder)
    subprocess.run(["systemctl", "stop", *DAEMONS], check=True)
    try:
        _lay(folder)
    except (SympaError, OSError) as error:
        raise SympaError(
            f"{error}. Only a part of that Sympa is here, so its daemons stay stopped and mail waits: empty database "
            f"{DATABASE} and take its robots and lists out of {ETC}, {HOME} and {ARCHIVES}, then import again"
        ) from None
    subprocess.run(["systemctl", "start", *DAEMONS], check=True)
    database = Database(DATABASE)
    return {
        "lists": int(next(database.ask("SELECT COUNT(*) FROM list_table"))[0]),
        "subscriptions": int(next(database.ask("SELECT COUNT(*) FROM subscriber_table"))[0]),
    }


def _lay(folder: Path) -> None:
    with (folder / "sympa.sql").open("rb") as dump:
        _run(["mariadb", "--protocol=socket", "--user=root", DATABASE], stdin=dump)
    for path in sorted((folder / "etc").glob("*/robot.conf")):
        _copy(path.parent, Path(ETC, path.parent.name))
    for name, place in (("list_data", HOME), ("arc", ARCHIVES)):
        for path in sorted(folder.glob(f"{name}/*")):
            _copy(path, Path(place, path.name))
    sympa("upgrade")  # its tables may be those of an older Sympa
    sympa("sync_list_db")
    write_all_addresses(Folders(ETC, HOME), Path(ETC, "postfix"))


def _refuse(folder: Path) -> None:
    missing = [name for name in ("etc", "list_data", "sympa.sql") if not (folder / name).exists()]
    if missing:
        raise RefusedError(
            f"{folder} has no {', '.join(missing)}: put etc and list_data of the other Sympa there, arc if it has "
            "archives, and mariadb-dump's dump of its database as sympa.sql"
        )
    count = next(Database(DATABASE).ask("SELECT COUNT(*) FROM list_table"))[0]
    if count != "0":
        raise RefusedError(f"{count} lists are here already: a Sympa is taken over by an empty one only")
    places = [
        *(Path(HOME, path.parent.name, path.name) for path in folder.glob("list_data/*/*")),
        *(Path(ETC, path.parent.name, path.name) for path in folder.glob("etc/*/robot.conf")),
    ]
    there = [str(place) for place in sorted(places) if place.exists()]
    if there:
        raise RefusedError(f"{there[0]} is here already: a Sympa is taken over by an empty one only")


def _copy(source: Path, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    _run(["cp", "--archive", "--no-target-directory", str(source), str(place)])
    shutil.chown(place, USER, USER)
    _run(["chown", "--recursive", "--no-dereference", f"{USER}:{USER}", str(place)])


def _run(command: Sequence[str], **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]  # run's own
    if done.returncode:
        raise SympaError(f"{command[0]} failed: {done.stderr.strip()}")


def main(words: Sequence[str]) -> int:
    """Read the words, do it, say what is there."""
    parser = argparse.ArgumentParser(prog="infini-sympa", description="A Sympa as data, and a Sympa taken over whole.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="export|import|records")
    for name, about in (
        ("export", "write robots, lists and subscribers into a folder, as the inventory takes them"),
        ("import", "take over a Sympa from a folder with its etc, list_data, arc and sympa.sql"),
    ):
        actions.add_parser(name, help=about).add_argument("folder", type=Path)
    actions.add_parser("records", help="print what the DNS must say of the robots that sign by keys of this host")
    options = parser.parse_args(words)
    if options.action == "records":
        sys.stdout.write(RECORDS.read_text("utf-8") if RECORDS.exists() else "")
        return 0
    try:
        counts = (export if options.action == "export" else take_over)(options.folder)
    except RefusedError as error:
        sys.stderr.write(f"infini-sympa: {error}\n")
        return 2
    except (SympaError, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"infini-sympa: {error}\n")
        return 4
    sys.stdout.write(json.dumps(counts) + "\n")
    return 0
