# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a plan as one transaction: all of it or nothing, also when the power goes or the process is killed.

The journal is written first and says everything that will be touched. Memory is written last, by one rename: that is
the instant at which the transaction has happened. A journal whose transaction is not in memory is undone; one whose
transaction is there only needs its leftovers removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .tree_disk import Disk
from .tree_memory import Store
from .tree_model import (
    DIRECTORY,
    FILE,
    LINK,
    MISSING,
    Memory,
    Quarantined,
    Request,
    State,
    TreeError,
    Validation,
    explain,
    matches_any,
    shown,
)
from .tree_plan import ATTRIBUTES, MAKE, REMOVE, WRITE, Plan, Step
from .tree_read import STAGED, digest, read_attributes, read_file, read_state

VALIDATION_TIMEOUT = 120
IN_PLACE = "write in place"
CONFIDENTIAL = "the file is secret, so is what was said of it"


class InvalidTreeError(TreeError):
    """A validation's command refused what was written; `said` is every word of it."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


class Transaction:
    """One plan on its way to the disk."""

    def __init__(self, request: Request, plan: Plan, contents: Mapping[str, bytes], store: Store) -> None:
        self.request = request
        self.plan = plan
        self.contents = contents
        self.store = store
        self.disk = store.disk
        self.token = os.urandom(8).hex()
        self.quarantined: dict[str, Quarantined] = {}
        mounts = mount_points()
        self.steps = [self._journaled(number, step, mounts) for number, step in enumerate(plan.steps)]

    def run(self, remember: Callable[[Mapping[str, Quarantined]], Memory]) -> Mapping[str, Quarantined]:
        """Do it and return what was quarantined, or put everything back and say why.

        `remember` gives the memory of what was done, knowing what was quarantined.
        """
        try:
            self._save_copies()
            self.disk.save(self.store.journal_path, json.dumps({"token": self.token, "steps": self.steps}).encode())
            self._stage()
            self._swap()
            self._validate()
            self._sync_directories()
            self.store.save(replace(remember(self.quarantined), transaction=self.token))
        except BaseException as problem:
            # Memory may have been written just before the problem: then it has happened, and there is no way back.
            if self.store.load().transaction != self.token:
                self._put_back(problem)
                if isinstance(problem, OSError):
                    raise TreeError(explain(problem, "nothing was changed, everything was put back")) from problem
                raise
        # Leftovers that cannot be removed now wait for the next run, with the journal that names them.
        with contextlib.suppress(OSError):
            finish(self.store, self.steps)
        return self.quarantined

    def _put_back(self, problem: BaseException) -> None:
        try:
            undo(self.store, self.steps)
            self.store.forget_copies(self.store.load())
        except OSError as another:
            doing = f"this tree failed ({problem}) and could not be put back entirely, the next run tries again"
            raise TreeError(explain(another, doing)) from problem

    def _journaled(self, number: int, step: Step, mounts: set[str]) -> dict[str, Any]:
        beside = os.path.join(os.path.dirname(step.path), f"{STAGED}{self.token}-{number}")
        action = step.action
        backup = beside + ".old"
        if action == WRITE and step.path in mounts and FILE == step.before.kind == step.after.kind:
            action, backup = IN_PLACE, os.path.join(self.store.home, f"backup-{self.token}-{number}")
        return {
            "action": action,
            "path": step.path,
            "beside": beside,
            "backup": backup,
            "before": asdict(step.before),
            "after": asdict(step.after),
        }

    def _save_copies(self) -> None:
        self.store.keep_copies(
            (step.after.content, self.contents[step.path])
            for step in self.plan.steps
            if step.action == WRITE and step.after.kind == FILE and not step.secret
        )

    def _stage(self) -> None:
        for step in self.steps:
            with blaming(step["path"]):
                self._stage_one(step, State(**step["after"]))
        # In a second pass, so that the disk has had the time to write most of it by itself.
        for step in self.steps:
            if step["action"] == WRITE and step["after"]["kind"] == FILE:
                with blaming(step["path"]):
                    self.disk.sync(step["beside"])

    def _stage_one(self, step: dict[str, Any], after: State) -> None:
        if step["action"] == MAKE:
            self.disk.make_directory(step["path"], after)
        elif step["action"] == IN_PLACE:
            self.disk.create(
                step["backup"], read_file(step["path"]), State(FILE, "", 0o600, os.geteuid(), os.getegid())
            )
            self.disk.sync(step["backup"])
        elif step["action"] == WRITE and after.kind == LINK:
            self.disk.create_link(step["beside"], after.content, after)
        elif step["action"] == WRITE:
            self.disk.create(step["beside"], self._content(step), after)

    def _content(self, step: dict[str, Any]) -> bytes:
        content = self.contents[step["path"]]
        if digest(content) != step["after"]["content"]:
            raise TreeError(f"the content of {shown(step['path'])} was damaged on its way: run again")
        return content

    def _swap(self) -> None:
        for step in self.steps:
            with blaming(step["path"]):
                self._swap_one(step, State(**step["before"]), State(**step["after"]))

    def _swap_one(self, step: dict[str, Any], before: State, after: State) -> None:
        path = step["path"]
        if step["action"] in (WRITE, REMOVE) and not read_attributes_agree(path, before):
            raise TreeError(f"{shown(path)} changed while this tree was being written: run again")
        if step["action"] == IN_PLACE:
            self.disk.overwrite(path, self._content(step), after)
        elif step["action"] == REMOVE:
            self.disk.rename(path, step["backup"])
        elif step["action"] == ATTRIBUTES:
            self.disk.set_attributes(path, after)
        elif step["action"] == WRITE:
            if before.kind != MISSING:
                self._back_up(path, step["backup"])
            self.disk.rename(step["beside"], path)

    def _back_up(self, path: str, backup: str) -> None:
        try:
            self.disk.link(path, backup)
        except PermissionError:
            # A file system without hard links: the path is missing for an instant, but never lost.
            self.disk.rename(path, backup)

    def _validate(self) -> None:
        paths = [step.path for step in self.plan.steps]
        for validation in self.request.validations:
            if any(matches_any(path, validation.files) for path in paths):
                self._judge(validation)

    def _judge(self, validation: Validation) -> None:
        """Let a command judge; put back one file after the other that it refuses, as far as it may be quarantined.

        A parser gives up at the first file that it cannot read, so that one is named last: what it named before were
        warnings. A file that was put back is no longer a reason: should it be named again, everything goes back.
        """
        while problem := refusal(validation.command):
            suspects = self._written(validation) if validation.quarantine else {}
            named = last_named(problem.said, suspects)
            if named is None:
                raise problem
            path, reason = named
            step = suspects[path]
            _UNDO[step["action"]](self.disk, step, State(**step["before"]), State(**step["after"]))
            secret = any(one.secret for one in self.plan.steps if one.path == path)
            self.quarantined[path] = Quarantined(step["after"]["content"], CONFIDENTIAL if secret else reason)

    def _written(self, validation: Validation) -> dict[str, dict[str, Any]]:
        return {
            step["path"]: step
            for step in self.steps
            if step["action"] in (WRITE, IN_PLACE)
            and step["path"] not in self.quarantined
            and matches_any(step["path"], validation.files)
        }

    def _sync_directories(self) -> None:
        for directory in sorted({os.path.dirname(step["path"]) for step in self.steps}):
            self.disk.sync(directory)


@contextlib.contextmanager
def blaming(path: str) -> Iterator[None]:
    """Name the file that the operator knows in a system error, rather than our temporary one or none at all."""
    try:
        yield
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, path) from problem


def read_attributes_agree(path: str, before: State) -> bool:
    """Tell whether a path still is what it was when the plan was made, as far as a glance tells."""
    now = read_attributes(path)
    return (now.kind, now.mode, now.uid, now.gid) == (before.kind, before.mode, before.uid, before.gid)


def refusal(command: tuple[str, ...]) -> InvalidTreeError | None:
    """Run a command that judges what was written; return what it has against it."""
    said, why = "", ""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VALIDATION_TIMEOUT,
            cwd="/",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            check=False,
        )
        if done.returncode == 0:
            return None
        said = done.stdout.decode("utf-8", "replace").strip()
        why = f"ended with status {done.returncode}"
    except FileNotFoundError:
        why = "does not exist on this host: install its package before this tree is written"
    except subprocess.TimeoutExpired:
        why = f"did not end within {VALIDATION_TIMEOUT} s"
    end = "\n".join(said.splitlines()[-10:])
    return InvalidTreeError(
        f"'{' '.join(command)}' {why}; every file was put back as it was{': ' if end else ''}{end}", said
    )


def last_named(said: str, paths: Collection[str]) -> tuple[str, str] | None:
    """Return which of these paths a command named last, with its words about it: that line, and the next at most."""
    found = None
    lines = said.splitlines()
    for number, line in enumerate(lines):
        for word in re.findall(r"/[^\s:;,'\"()\[\]]+", line):
            path = word.rstrip(".")
            if path in paths:
                # Apache tells where in one line, ending in a colon, and what in the next.
                more = lines[number + 1 : number + 2] if line.endswith(":") else []
                found = path, " ".join([line, *more]).strip()
    return found


def recover(store: Store) -> list[str]:
    """Settle a transaction that was killed; return the paths that were put back."""
    journal = read_journal(store)
    if journal is None:
        return []
    if journal["token"] == store.load().transaction:
        finish(store, journal["steps"])
        return []
    undo(store, journal["steps"])
    return [step["path"] for step in journal["steps"]]


def read_journal(store: Store) -> dict[str, Any] | None:
    """Return the journal of a transaction that was killed, if there is one."""
    try:
        journal: dict[str, Any] = json.loads(Path(store.journal_path).read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    return journal


def undo(store: Store, steps: list[dict[str, Any]]) -> None:
    """Put back whatever was touched, from whatever point it got to; doing it twice does no harm."""
    # One file that resists must not keep the others from their place.
    problems = [problem for step in reversed(steps) if (problem := _undo(store.disk, step))]
    if problems:
        raise problems[0]
    store.disk.remove(store.journal_path)


def _undo(disk: Disk, step: dict[str, Any]) -> OSError | None:
    try:
        _UNDO[step["action"]](disk, step, State(**step["before"]), State(**step["after"]))
    except OSError as problem:
        return problem
    return None


def _undo_directory(disk: Disk, step: dict[str, Any], _before: State, _after: State) -> None:
    disk.remove_directory(step["path"])


def _undo_write(disk: Disk, step: dict[str, Any], before: State, after: State) -> None:
    path, backup = step["path"], step["backup"]
    disk.remove(step["beside"])
    if before.kind == MISSING:
        if read_state(path).holds_the_same_as(after):
            disk.remove(path)
    elif os.path.lexists(backup):
        now = read_state(path)
        # Somebody may have edited the file between the kill and now: that edit is worth more than ours.
        if now.kind == MISSING or now.holds_the_same_as(after):
            disk.rename(backup, path)
        disk.remove(backup)


def _undo_in_place(disk: Disk, step: dict[str, Any], before: State, _after: State) -> None:
    if os.path.exists(step["backup"]):
        content = Path(step["backup"]).read_bytes()
        if digest(content) == before.content:
            disk.overwrite(step["path"], content, before)
        disk.remove(step["backup"])


def _undo_attributes(disk: Disk, step: dict[str, Any], before: State, _after: State) -> None:
    if read_attributes(step["path"]).kind in (before.kind, LINK):
        disk.set_attributes(step["path"], before)


def _undo_remove(disk: Disk, step: dict[str, Any], _before: State, _after: State) -> None:
    if os.path.lexists(step["backup"]):
        if not os.path.lexists(step["path"]):
            disk.rename(step["backup"], step["path"])
        disk.remove(step["backup"])


_UNDO = {
    MAKE: _undo_directory,
    WRITE: _undo_write,
    IN_PLACE: _undo_in_place,
    ATTRIBUTES: _undo_attributes,
    REMOVE: _undo_remove,
}


def finish(store: Store, steps: list[dict[str, Any]]) -> None:
    """Remove the leftovers of a transaction that has happened."""
    for step in steps:
        store.disk.remove(step["beside"])
        store.disk.remove(step["backup"])
    store.disk.remove(store.journal_path)


def emptied_directories(plan: Plan, request: Request) -> Iterator[str]:
    """Name the directories that the plan may have left empty and that are ours to remove, the deepest first."""
    kept = {entry.path for entry in request.entries if entry.kind == DIRECTORY} | set(request.owned)
    # An entry may be in quarantine, of this task or of the one before it.
    kept |= {os.path.dirname(path) for path in (*(entry.path for entry in request.entries), *plan.memory.quarantined)}
    ours = set(plan.memory.directories)
    for step in plan.steps:
        directory = os.path.dirname(step.path)
        while step.action == REMOVE and directory not in kept and _may_go(directory, ours, request.owned):
            yield directory
            directory = os.path.dirname(directory)


def _may_go(directory: str, ours: set[str], owned: Iterable[str]) -> bool:
    return directory in ours or any(directory.startswith(owner + "/") for owner in owned)


def mount_points() -> set[str]:
    """Return every mount point: a single mounted file cannot be renamed over."""
    with contextlib.suppress(FileNotFoundError):
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        return {_unescape(line.split(" ")[4]) for line in lines}
    return set()


def _unescape(path: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, char)
    return path
