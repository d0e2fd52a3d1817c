# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers to `sympa_robots`, whichever way the question came: its robots."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import sympa, sympa_door, sympa_keys, sympa_plan
from .brake import UnsafePlanError

_NAMES: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
SPEC: dict[str, Any] = {
    "robots": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "title": {"type": "str"},
            "listmasters": {"type": "list", "elements": "str", "required": True},
            "language": {"type": "str", "default": "fr"},
            "url": {"type": "str"},
            "dkim": {"type": "dict"},
            "arc": {"type": "dict"},
            "dmarc": {"type": "dict"},
            "settings": {"type": "dict", "default": {}},
        },
    },
    "url": {"type": "str", "default": "https://{robot}/sympa"},
    "taken": _NAMES,
    "used": _NAMES,
    "confirm_closings": _NAMES,
    "host": {"type": "str", "default": ""},
    "spf": {"type": "str", "default": "v=spf1 mx ~all"},
    "dmarc": {"type": "str", "default": "v=DMARC1; p=none"},
    "records": {"type": "path", "default": "/var/lib/infini-sympa/records.zone"},
    "etc": {"type": "path", "default": "/etc/sympa"},
    "home": {"type": "path", "default": "/var/lib/sympa/list_data"},
    "maps": {"type": "path", "default": "/etc/sympa/postfix"},
    "owner": {"type": "str", "default": sympa_door.USER},
}


def answer(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    """Bring the robots to what is asked and return a result in Ansible's words."""
    try:
        return _answer(asked, check_mode=check_mode, diff=diff)
    except (sympa.SympaError, UnsafePlanError) as error:
        return {"failed": True, "msg": str(error)}


def _answer(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    started = time.monotonic()
    folders = sympa_door.Folders(asked["etc"], asked["home"], asked["owner"])
    sympa.refuse_impossible_robots(asked["robots"], asked["taken"], asked["used"])
    plan = sympa_plan.plan_robots(
        [sympa_keys.with_keys(robot, folders.keys) for robot in asked["robots"]],
        folders.robots(),
        folders.robots_with_lists(),
        asked["url"],
        asked["confirm_closings"],
    )
    domains = dict.fromkeys(plan.open_robots(), "sympa")
    path = Path(asked["maps"], "domains")
    stale = sympa_door.map_differs(path, domains)
    keyless = sympa_keys.missing(asked["robots"], folders.keys)
    unsaid, told = False, ""
    if not check_mode:
        if keyless:
            folders.make_keys(asked["robots"])
        for name, text in plan.write.items():
            folders.write_robot(name, text)
        for name in plan.folders:
            folders.make_robot_folder(name)
        if stale:
            folders.write_map(path, domains)
        told = sympa_keys.records(asked["robots"], folders.keys, asked["host"], asked["spf"], asked["dmarc"])
        unsaid = folders.tell(Path(asked["records"]), told)
    return {
        "changed": bool(plan.changed or stale or keyless or unsaid),
        "keys": keyless,
        "written": sorted(plan.write),
        "closed": list(plan.closed),
        "told": told,
        "seconds": round(time.monotonic() - started, 2),
        **({"diff": plan.diff()} if diff else {}),
    }
