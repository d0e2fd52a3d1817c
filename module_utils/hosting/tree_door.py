# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers to the control node's host_tree, whichever way the question came."""

from __future__ import annotations

import signal
from typing import Any

from . import tree
from .tree_model import RefusedTreeError, Request, TreeError, explain, unpack, unpack_contents


def answer(asked: dict[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    """Do what is asked and return a result in Ansible's words."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        return _call(asked, check_mode=check_mode, diff=diff)
    except TreeError as problem:
        return {"failed": True, "refused": isinstance(problem, RefusedTreeError), "msg": str(problem)}
    except OSError as problem:
        return {"failed": True, "msg": explain(problem, "the tree could not be read or remembered")}


def _call(asked: dict[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    if asked.get("confirm"):
        tree.confirm(None, unpack(asked["request"])["run"])
        return {"changed": False}
    request = Request.unpack(asked["request"])
    contents = unpack_contents(asked["contents"]) if asked.get("contents") else {}
    seen = tree.look(request, check_mode=check_mode)
    only_said = check_mode and not (diff or seen.get("refused"))
    if not seen["changed"] or seen.get("interrupted") or only_said:
        return seen
    if not contents.keys() >= set(seen["need"]):
        return {**seen, "incomplete": True}
    done = tree.apply(request, contents, check_mode=check_mode, diff=diff)
    # What an earlier run left behind was met by the look: here it is taken over already.
    return {**done, "pending": seen["pending"], "put_back": seen.get("put_back", [])}


def _stop(number: int, _frame: object) -> None:
    """Put everything back when told to stop; told twice, leave that to the next run's look at the journal."""
    signal.signal(number, signal.SIG_DFL)
    raise TreeError(f"stopped by signal {number}: everything was put back")
