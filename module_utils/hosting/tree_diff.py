# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show a change the way a person reads it: a unified diff under the path, never a secret, never a wall of bytes."""

from __future__ import annotations

import difflib
import grp
import os
import pwd
from collections.abc import Mapping

from .tree_memory import Store
from .tree_model import DIRECTORY, FILE, LINK, MISSING, State, shown
from .tree_plan import ATTRIBUTES, Plan
from .tree_read import read_file

LONGEST = 512 * 1024


def plan_diffs(plan: Plan, contents: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Return one entry per changed path in the form Ansible prints."""
    return [
        {
            "prepared": change_diff(
                step.path,
                (step.before, _on_disk(step.path, step.before)),
                (step.after, contents.get(step.path)),
                secret=step.secret,
                attributes_only=step.action == ATTRIBUTES,
            )
        }
        for step in plan.steps
    ]


def refusal_diff(path: str, before: State, after: State, content: bytes | None, *, secret: bool) -> str:
    """Return what overwriting a refused file would change."""
    return change_diff(path, (before, _on_disk(path, before)), (after, content), secret=secret)


def drift_diff(path: str, written: State, now: State, store: Store, *, secret: bool) -> str:
    """Return what was changed by hand since we wrote a file."""
    same = written.holds_the_same_as(now)
    return change_diff(
        path,
        (written, store.copy(written.content) if written.kind == FILE else None),
        (now, _on_disk(path, now)),
        secret=secret,
        attributes_only=same,
        names=("as written", "now"),
    )


def change_diff(
    path: str,
    old: tuple[State, bytes | None],
    new: tuple[State, bytes | None],
    *,
    secret: bool,
    attributes_only: bool = False,
    names: tuple[str, str] = ("before", "after"),
) -> str:
    """Return a unified diff from one state and content to another."""
    head = [f"--- {shown(path)} ({names[0]})", f"+++ {shown(path)} ({names[1]})"]
    body = attribute_lines(old[0], new[0])
    if not attributes_only:
        body += _body(old, new, secret=secret)
    return "\n".join(head + body) + "\n"


def attribute_lines(old: State, new: State) -> list[str]:
    """Say which of kind, mode and owner differ."""
    before, after = _attributes(old), _attributes(new)
    return [f"-{before}", f"+{after}"] if before != after else []


def _attributes(state: State) -> str:
    if state.kind == MISSING:
        return "missing"
    owners = f"{_name(state.uid, user=True)}:{_name(state.gid, user=False)}"
    return f"{state.kind} {owners}" if state.kind == LINK else f"{state.kind} {owners} {state.mode:04o}"


def _name(number: int, *, user: bool) -> str:
    if number < 0:
        return "(unknown yet)"
    try:
        return pwd.getpwuid(number).pw_name if user else grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _body(old: tuple[State, bytes | None], new: tuple[State, bytes | None], *, secret: bool) -> list[str]:
    if DIRECTORY in (old[0].kind, new[0].kind):
        return []
    if secret:
        return ["content is secret"]
    before, after = _lines(*old), _lines(*new)
    if before is None or after is None:
        return [f"binary, large or unknown content: {_size(old[1])}, then {_size(new[1])}"]
    return [line.rstrip("\n") for line in difflib.unified_diff(before, after, n=3)][2:]


def _lines(state: State, content: bytes | None) -> list[str] | None:
    if state.kind == MISSING:
        return []
    if state.kind == LINK:
        return [f"symbolic link to {shown(state.content)}"]
    if content is None or len(content) > LONGEST or b"\0" in content:
        return None
    try:
        return content.decode().splitlines()
    except UnicodeDecodeError:
        return None


def _size(content: bytes | None) -> str:
    return "nothing" if content is None else f"{len(content)} bytes"


def _on_disk(path: str, state: State) -> bytes | None:
    if state.kind != FILE or os.lstat(path).st_size > LONGEST:
        return None
    return read_file(path)
