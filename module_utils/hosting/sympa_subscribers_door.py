# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers to `sympa_subscribers`, whichever way the question came: the subscribers of its lists.

It is asked twice. First it is told the sum of what the file says of each list, and says of which lists it wants to see
the lines: those whose sum is new, and those whose subscribers are not as the last run left them. Then it gets these
lines, and settles these lists.
"""

from __future__ import annotations

import gc
import json
import resource
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from . import sympa, sympa_door
from . import sympa_subscribers as thinking
from .brake import UnsafePlanError
from .sympa_subscribers import ListPlan, Wanted

LINES = "/var/cache/infini-sympa-subscribers.tsv"
"""Where the lines that are asked for are put."""
_NAMES: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
SPEC: dict[str, Any] = {
    "lists": {"type": "list", "elements": "str", "required": True},
    "managed": _NAMES,
    "closed": _NAMES,
    "confirm_removals": _NAMES,
    "known": {"type": "path", "default": "/var/lib/infini-sympa/known.json"},
    "database": {"type": "str", "default": "sympa"},
    "home": {"type": "path", "default": "/var/lib/sympa/list_data"},
    "owner": {"type": "str", "default": sympa_door.USER},
}
LETTER: dict[str, Any] = {
    "src": {"type": "str", "required": True},
    "header": {"type": "str", "required": True},
    "sums": {"type": "dict", "required": True},
    "need": {"type": "list", "elements": "str"},
    "runs": {"type": "list", "elements": "raw"},
    "lines": {"type": "path", "default": LINES},
}
"""What the control node adds: of the file, and with the lines that were asked for, of which lists they are."""
NOTHING = {"added": 0, "mended": 0, "removed": 0}


class Memory:
    """What the last runs left: whom the file has named, and of each list how it was when all was as it should be."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._file = self.path.with_name("settled.json")
        self._noted: dict[str, Any] = {}
        with suppress(FileNotFoundError, ValueError):
            self._noted = json.loads(self._file.read_text("utf-8"))
        # Whoever deletes the one file or brings an older one back wants all looked at again.
        same = self._noted.get("known") == self._known()
        self.lists: dict[str, dict[str, Any]] = self._noted.get("lists", {}) if same else {}

    def _known(self) -> list[int]:
        stat = self.path.stat() if self.path.exists() else None
        return [stat.st_size, stat.st_mtime_ns] if stat else []

    def forgets(self, sums: Collection[str]) -> bool:
        """Tell whether something is kept of lists that are neither declared nor in the file any more."""
        return not self.lists.keys() <= set(sums)

    def unsettled(
        self, sums: Mapping[str, str], managed: Collection[str], prints: Mapping[str, list[int]]
    ) -> Iterator[str]:
        """Return the lists of which the file says something new, or that are not as they were left.

        What becomes of a list that is not managed is its owners' business, unless nobody is left of it.
        """
        for address, said in sums.items():
            last, there = self.lists.get(address), prints.get(address, thinking.NOBODY)
            ours = address in managed or there == thinking.NOBODY
            if last is None or last["sum"] != said or (ours and last["print"] != there):
                yield address

    def keep(self, lists: Mapping[str, dict[str, Any]]) -> None:
        """Remember how the lists are."""
        notes = {"known": self._known(), "lists": lists}
        if notes != self._noted:
            sympa_door.put_private(self._file, json.dumps(notes))


def answer(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    """Say which lines are wanted, or settle their lists, and return a result in Ansible's words."""
    started = time.monotonic()
    gc.disable()  # millions of subscribers are no circles, and looking for some takes ever longer
    try:
        if check_mode and not Path(asked["home"]).is_dir():  # no Sympa yet
            result = {"changed": True, **NOTHING, "subscriptions": 0, "left": 0, "emptied": [], "faults": []}
        elif asked["need"] is None:
            result = _look(asked, check_mode=check_mode)
        else:
            result = _settle(asked, check_mode=check_mode, diff=diff)
    except thinking.FileError as error:
        return {"failed": True, "msg": f"the file of subscribers {asked['src']} cannot be used: {error}"}
    except (sympa.SympaError, UnsafePlanError) as error:
        return {"failed": True, "msg": str(error)}
    finally:
        gc.enable()
        Path(asked["lines"]).unlink(missing_ok=True)
    return {**result, "seconds": round(time.monotonic() - started, 2)}


def _look(asked: Mapping[str, Any], *, check_mode: bool) -> dict[str, Any]:
    if not check_mode:
        sympa_door.remove_lines()
    compared = Wanted(columns=thinking.columns(asked["header"])).compared
    memory, sums = Memory(asked["known"]), asked["sums"]
    prints = fingerprints(sympa_door.Database(asked["database"]), compared)
    need = list(memory.unsettled(sums, frozenset(asked["managed"]), prints))
    if need or memory.forgets(sums):
        return {"changed": False, "need": need}
    return {"changed": False, **NOTHING, **totals(memory.lists), "emptied": [], "faults": []}


def _settle(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    need = frozenset(asked["need"])
    declared = need & frozenset(asked["lists"])
    managed = declared & frozenset(asked["managed"])
    database, memory = sympa_door.Database(asked["database"]), Memory(asked["known"])
    wanted = parse(asked)
    known = sympa_door.load_known(memory.path)
    meant = wanted.prints()
    prints = fingerprints(database, wanted.compared, declared)
    todo, counts = plans(asked["closed"], wanted, managed, meant, prints, known, database)
    thinking.refuse_mass_removals(todo, counts, asked["confirm_removals"])
    changes = {address: one for address, one in todo.items() if one.changed}
    emptied = thinking.emptied(todo, counts)
    if not check_mode:
        if changes:
            prints |= write(asked, database, wanted, managed, meant, changes)
        after = thinking.known_after(wanted, known, declared, asked["closed"])
        after |= {address: them for address, them in known.items() if address in asked["sums"] and address not in need}
        if after != known:
            sympa_door.save_known(memory.path, after)
    lists = {address: one for address, one in memory.lists.items() if address in asked["sums"] and address not in need}
    lists |= {
        address: {
            "sum": asked["sums"][address],
            "print": prints.get(address, thinking.NOBODY),
            "subscriptions": len(wanted.lists.get(address, ())),
            "left": len(todo[address].left) if address in todo else 0,
        }
        for address in declared
    }
    result: dict[str, Any] = {
        "changed": bool(changes),
        "added": sum(len(one.add) for one in todo.values()),
        "mended": sum(len(one.mend) for one in todo.values()),
        "removed": sum(len(one.remove) for one in todo.values()),
        **totals(lists),
        "emptied": emptied,
        "faults": wanted.faults[: sympa.MANY],
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if not check_mode:
        unsettled = {*wanted.faulty, *emptied}
        memory.keep({address: one for address, one in lists.items() if address not in unsettled})
    if diff:
        words = "".join(f"{address}: {one.words()}\n" for address, one in changes.items())
        result["diff"] = {"before": "", "after": words}
    if emptied:
        result["warning"] = (
            f"{len(emptied)} lists have nobody left of those whom the file named before, {emptied[0]} the first of "
            "them: if they did not all unsubscribe, the database was lost. Restore it, or delete "
            f"{memory.path} to have the file fill them again"
        )
    if wanted.faults:
        first = "\n".join(result["faults"])
        result["failed"] = True
        result["msg"] = (
            f"lines of {asked['src']} that cannot be followed: {len(wanted.faults)}; all others are in force:\n{first}"
        )
    return result


def totals(lists: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return how many subscriptions the file names, and how many of them left by themselves."""
    return {name: sum(one[name] for one in lists.values()) for name in ("subscriptions", "left")}


def parse(asked: Mapping[str, Any]) -> Wanted:
    """Read the lines that were asked for; each keeps the number that it has in the file."""
    numbers = chain.from_iterable(range(first, first + count) for first, count in asked["runs"])
    with Path(asked["lines"]).open(encoding="utf-8", newline="\n") as lines:
        return thinking.parse(chain([asked["header"]], lines), asked["lists"], numbers)


def fingerprints(
    database: sympa_door.Database, columns: Collection[str], lists: Collection[str] | None = None
) -> dict[str, list[int]]:
    """Return the fingerprint of each list that has subscribers, or of these only."""
    where = "" if lists is None else sympa_door.among(lists)
    return {row[0]: [int(row[1]), int(row[2])] for row in database.ask(thinking.fingerprint_sql(columns, where))}


def plans(
    closed: Sequence[str],
    wanted: Wanted,
    managed: Collection[str],
    meant: Mapping[str, list[int]],
    prints: Mapping[str, list[int]],
    known: Mapping[str, frozenset[str]],
    database: sympa_door.Database,
) -> tuple[dict[str, ListPlan], dict[str, int]]:
    """Return what changes, and how many subscribers the lists have that may change."""
    differing = thinking.differing(wanted, managed, meant, prints, known, closed)
    found = dict(sympa_door.read_subscribers(database, differing)) if differing else {}
    todo = {
        address: thinking.plan_list(
            wanted.lists.get(address, {}),
            found.get(address, {}),
            known.get(address, ()),
            managed=address in managed,
            removes=address not in wanted.faulty,
            compared=wanted.compared,
        )
        for address in differing
    }
    return todo, {address: len(found.get(address, {})) for address in differing}


def write(
    asked: Mapping[str, Any],
    database: sympa_door.Database,
    wanted: Wanted,
    managed: Collection[str],
    meant: Mapping[str, list[int]],
    changes: Mapping[str, ListPlan],
) -> dict[str, list[int]]:
    """Write what changes, tell the daemons, and return the fingerprints that these lists have now."""
    key = sympa_door.subscriber_key(database)
    database.write(sympa_door.subscriber_statements(changes, int(time.time()), key))
    sympa_door.Folders("", asked["home"], asked["owner"]).touch(changes, "member")
    prints = fingerprints(database, wanted.compared, changes)
    thinking.refuse_other_than_wanted(changes, managed, wanted.faulty, meant, prints)
    return {address: prints.get(address, thinking.NOBODY) for address in changes}
