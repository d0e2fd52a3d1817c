# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the file-set engine: look, apply, confirm and drift, for modules and for hosts that act by themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .tree_apply import Transaction, emptied_directories, read_journal, recover
from .tree_diff import drift_diff, plan_diffs, refusal_diff
from .tree_disk import Disk
from .tree_memory import TREES, Store, trees_of
from .tree_model import FILE, LINK, MISSING, NOTHING, Memory, Quarantined, RefusedTreeError, Request, shown
from .tree_plan import WRITE, Plan, plan
from .tree_read import read_file, read_host, read_state


def look(request: Request, *, check_mode: bool, trees: str = TREES) -> dict[str, Any]:
    """Compare without any content: the only call that a run needs when nothing differs."""
    store = Store(request.name, Disk(), trees)
    if check_mode:
        return _look(request, store, check_mode=True)
    store.prepare()
    with store.lock():
        put_back = recover(store)
        return {**_look(request, store, check_mode=False), "put_back": [shown(path) for path in put_back]}


def _look(request: Request, store: Store, *, check_mode: bool) -> dict[str, Any]:
    interrupted = read_journal(store)
    if interrupted:
        # Only in check mode: what the interrupted run left would look like edits by hand.
        paths = [shown(step["path"]) for step in interrupted["steps"]]
        return {"changed": True, "interrupted": paths, "need": [], "changes": [], "notify": []}
    memory = store.load()
    todo = plan(request, memory, read_host(request, memory, others=store.written_by_another, check_mode=check_mode))
    if check_mode:
        todo = _without(todo, _still_quarantined(todo, memory), memory)
    pending = memory.pending if memory.run != request.run else ()
    if not check_mode and not todo.changed:
        # Handlers that this run takes over; without a handler that confirms them, they are owed this once only.
        takes = replace(todo.memory, run=request.run, pending=pending if request.run else ())
        _remember(store, memory, takes if pending else todo.memory)
    need = [step.path for step in todo.steps if step.action == WRITE and step.after.kind == FILE]
    need += [refusal.path for refusal in todo.refusals if refusal.after.kind == FILE]
    return {
        "changed": todo.changed,
        "need": need,
        "refused": bool(todo.refusals),
        "changes": _changes(todo),
        "notify": _owed(request, todo, list(pending)),
        "pending": list(pending),
        **_said(todo.memory),
    }


def apply(
    request: Request,
    contents: Mapping[str, bytes],
    *,
    check_mode: bool,
    diff: bool,
    trees: str = TREES,
    disk: Disk | None = None,
) -> dict[str, Any]:
    """Write what differs as one transaction, or in check mode only say what would be written."""
    store = Store(request.name, disk or Disk(), trees)
    if check_mode:
        memory = store.load()
        todo = plan(request, memory, read_host(request, memory, others=store.written_by_another, check_mode=True))
        _refuse(todo, contents)
        todo = _without(todo, _still_quarantined(todo, memory), memory)
        return _report(request, todo, memory, _diffs(todo, contents) if diff else None)
    store.prepare()
    with store.lock():
        recover(store)
        memory = store.load()
        todo = plan(request, memory, read_host(request, memory, others=store.written_by_another, check_mode=False))
        _refuse(todo, contents)
        diffs = _diffs(todo, contents) if diff else None  # now: they show what stands there

        def remember(quarantined: Mapping[str, Quarantined]) -> Memory:
            applied = _without(todo, quarantined, memory)
            owed = _owed(request, applied, list(memory.pending)) if request.run else []
            return replace(applied.memory, pending=tuple(owed), run=request.run if owed else "")

        quarantined: Mapping[str, Quarantined] = {}
        if todo.steps:
            quarantined = Transaction(request, todo, contents, store).run(remember)
        applied = _without(todo, quarantined, memory)
        _tidy(request, applied, store)
        _adopt_copies(store, memory, applied.memory)
        return _report(request, applied, memory, diffs)


def confirm(names: list[str] | None, run: str, trees: str = TREES) -> list[str]:
    """Note that this run's handlers have done their work: the next run need not call them again."""
    confirmed = []
    for name in trees_of(trees) if names is None else names:
        store = Store(name, Disk(), trees)
        with store.lock():
            memory = store.load()
            if memory.pending and memory.run == run:
                store.save(replace(memory, pending=(), run=""))
                confirmed.append(name)
    return confirmed


def drift(trees: str = TREES, *, diff: bool = True) -> Iterator[dict[str, str]]:
    """Yield every file that is no longer as we wrote it, or that a validation keeps from being as wanted."""
    for name in trees_of(trees):
        store = Store(name, Disk(), trees)
        if journal := read_journal(store):
            paths = ", ".join(shown(step["path"]) for step in journal["steps"])
            yield {"tree": name, "path": store.journal_path, "state": "interrupted", "diff": f"half-written: {paths}\n"}
        memory = store.load()
        for path, one in sorted(memory.quarantined.items()):
            yield {"tree": name, "path": shown(path), "state": "quarantined", "diff": f"{one.reason}\n"}
        for path, known in sorted(memory.files.items()):
            now, written = read_state(path), known.state
            if now == written or (now != NOTHING and now.holds_the_same_as(store.written_by_another(path))):
                continue
            if now.kind == LINK and now.holds_the_same_as(written):
                continue
            state = "missing" if now.kind == MISSING else "attributes"
            if now.kind != MISSING and not now.holds_the_same_as(written):
                state = "modified"
            shown_diff = drift_diff(path, written, now, store, secret=known.secret) if diff else ""
            yield {"tree": name, "path": shown(path), "state": state, "diff": shown_diff}


def _refuse(todo: Plan, contents: Mapping[str, bytes]) -> None:
    if not todo.refusals:
        return
    first = todo.refusals[0]
    others = [shown(refusal.path) for refusal in todo.refusals[1:]]
    more = f" (and also {', '.join(others[:20])}{', …' if len(others) > 20 else ''})" if others else ""
    diffs = [
        refusal_diff(one.path, one.before, one.after, contents.get(one.path), secret=one.secret)
        for one in todo.refusals[:20]
    ]
    raise RefusedTreeError(
        f"{shown(first.path)} {first.why}{more}: nothing was written. Keep the change by moving it into the tree, or "
        f"give it up with --overwrite {shown(first.path)} (variable host_tree_overwrite). What would be overwritten:\n"
        + "".join(diffs)
    )


def _still_quarantined(todo: Plan, memory: Memory) -> dict[str, Quarantined]:
    """Return what would be written but was refused before, as far as a check can tell: it runs no validation."""
    return {
        step.path: known
        for step in todo.steps
        if (known := memory.quarantined.get(step.path)) and known.content == step.after.content
    }


def _without(todo: Plan, quarantined: Mapping[str, Quarantined], memory: Memory) -> Plan:
    """Return the part of a plan that remains when these files stand as they did before."""
    kept = {path: memory.files[path] for path in quarantined if path in memory.files}
    wanted = {path: known for path, known in todo.memory.files.items() if path not in quarantined}
    after = replace(todo.memory, files={**wanted, **kept}, quarantined={**todo.memory.quarantined, **quarantined})
    return replace(todo, steps=tuple(step for step in todo.steps if step.path not in quarantined), memory=after)


def _diffs(todo: Plan, contents: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    return dict(zip([step.path for step in todo.steps], plan_diffs(todo, contents)))


def _said(memory: Memory) -> dict[str, Any]:
    return {
        "left": [shown(path) for path in memory.left],
        "quarantined": [{"path": shown(path), "reason": one.reason} for path, one in memory.quarantined.items()],
    }


def _report(request: Request, todo: Plan, memory: Memory, diffs: Mapping[str, dict[str, str]] | None) -> dict[str, Any]:
    pending = list(memory.pending)
    report = {
        "changed": bool(todo.steps),
        "changes": _changes(todo),
        "notify": _owed(request, todo, pending),
        "pending": pending,
        **_said(todo.memory),
    }
    if diffs is not None:
        report["diff"] = [diffs[step.path] for step in todo.steps]
    return report


def _tidy(request: Request, todo: Plan, store: Store) -> None:
    for directory in emptied_directories(todo, request):
        store.disk.remove_directory(directory)
    # A copy too many does no harm, and the next change tries again.
    with contextlib.suppress(OSError):
        store.forget_copies(todo.memory)


def _changes(todo: Plan) -> list[dict[str, str]]:
    return [{"path": shown(step.path), "action": step.action} for step in todo.steps]


def _owed(request: Request, todo: Plan, pending: list[str]) -> list[str]:
    new = request.handlers_for([step.path for step in todo.steps])
    return list(dict.fromkeys([*pending, *new]))


def _remember(store: Store, before: Memory, after: Memory) -> None:
    if after != before:
        store.save(after)
        _adopt_copies(store, before, after)


def _adopt_copies(store: Store, before: Memory, after: Memory) -> None:
    """Copy files that were already as wanted when we first met them: a later edit should have its diff too."""
    for path, known in after.files.items():
        if known.state.kind == FILE and not known.secret and path not in before.files:
            store.keep_copies([(known.state.content, read_file(path))])
