# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers to `sympa_lists`, whichever way the question came: its lists."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import sympa, sympa_door, sympa_plan
from .brake import UnsafePlanError
from .sympa_plan import List

_NAMES: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
_PERSON: dict[str, Any] = {
    "email": {"type": "str", "required": True},
    "name": {"type": "str"},
    "info": {"type": "str"},
    "receives": {"type": "bool", "default": True},
    "hidden": {"type": "bool", "default": False},
}
SPEC: dict[str, Any] = {
    "lists": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "robot": {"type": "str", "required": True},
            "kind": {"type": "str", "required": True},
            "subject": {"type": "str", "required": True},
            "description": {"type": "str"},
            "language": {"type": "str"},
            "topics": _NAMES,
            "status": {"type": "str", "choices": ["open", "closed"], "default": "open"},
            "owners": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {**_PERSON, "privileged": {"type": "bool", "default": True}},
            },
            "moderators": {"type": "list", "elements": "dict", "default": [], "options": _PERSON},
            "settings": {"type": "dict", "default": {}},
            "managed": {"type": "bool", "default": False},
        },
    },
    "robots": {"type": "list", "elements": "str", "required": True},
    "listmaster": {"type": "str", "required": True},
    "taken": _NAMES,
    "confirm_closings": _NAMES,
    "confirm_takeovers": _NAMES,
    "database": {"type": "str", "default": "sympa"},
    "etc": {"type": "path", "default": "/etc/sympa"},
    "home": {"type": "path", "default": "/var/lib/sympa/list_data"},
    "maps": {"type": "path", "default": "/etc/sympa/postfix"},
    "owner": {"type": "str", "default": sympa_door.USER},
}


class Host:
    """Sympa on this host."""

    def __init__(self, asked: Mapping[str, Any], *, check: bool) -> None:
        self.check = check
        self.folders = sympa_door.Folders(asked["etc"], asked["home"], asked["owner"])
        self.database = sympa_door.Database(asked["database"])
        self.map = Path(asked["maps"], "transport")

    def read(self) -> dict[str, List]:
        """Return the lists that are there; in check mode a host without Sympa has none."""
        if self.check and not self.folders.home.is_dir():
            return {}
        return sympa_door.read_lists(self.folders, self.database)

    def turn(self, found: Mapping[str, List], closing: Sequence[str], opening: Sequence[str]) -> Mapping[str, List]:
        """Have Sympa close and open lists, and return all of them as they are then."""
        if self.check:
            return sympa_plan.turned(found, closing, opening)
        for address in closing:
            sympa_door.sympa("close", address)
        for address in opening:
            sympa_door.sympa("open", address)
        return self.read() if closing or opening else found

    def write(self, plan: sympa_plan.ListPlan, now: int) -> None:
        """Write the lists of a plan: files, then tables, then the daemons are told."""
        changes = plan.write
        for address, one in changes.items():
            self.folders.write_list(address, one, plan.before.get(address))
        self.database.write(sympa_door.list_statements(changes, plan.before, now))
        self.folders.touch(changes, "admin")


def answer(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    """Bring the lists to what is asked and return a result in Ansible's words."""
    try:
        return _answer(asked, check_mode=check_mode, diff=diff)
    except (sympa.SympaError, UnsafePlanError) as error:
        return {"failed": True, "msg": str(error)}


def _answer(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    host, now, started = Host(asked, check=check_mode), int(time.time()), time.monotonic()
    wanted = asked["lists"]
    sympa.refuse_impossible_lists(wanted, asked["robots"], asked["taken"])
    sympa.refuse_unknown_topics(wanted, host.folders.topics())
    found = host.read()
    people = sympa_door.with_people_kept(host.folders, found)
    sympa_plan.refuse_takeovers(wanted, people, asked["confirm_takeovers"])
    closing, opening = sympa_plan.turns(wanted, found, asked["confirm_closings"])
    turned = host.turn(found, closing, opening)
    plan = sympa_plan.plan_lists(wanted, turned, now, asked["listmaster"])
    addresses = sympa_door.all_addresses(host.folders, {**turned, **plan.after})
    stale = sympa_door.map_differs(host.map, addresses)
    if not check_mode:
        if plan.changed:
            host.write(plan, now)
        if stale:
            # Read again: meanwhile people may have made lists on Sympa's pages.
            host.folders.write_map(host.map, sympa_door.all_addresses(host.folders, host.folders.lists()))
    changes = sympa_plan.ListPlan(found, {**{name: turned[name] for name in (*closing, *opening)}, **plan.after})
    return {
        "changed": plan.changed or stale or bool(closing or opening),
        "written": sorted(plan.write),
        "closed": closing,
        "opened": opening,
        "others": sum(not one.ours for address, one in turned.items() if address not in plan.after),
        "seconds": round(time.monotonic() - started, 2),
        **({"diff": changes.diff()} if diff else {}),  # a thousand lists are a long text
    }
