# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what a tree wants with what stands on the host: a pure function that thinks and touches nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from .tree_model import (
    DIRECTORY,
    FILE,
    LINK,
    MISSING,
    NOTHING,
    OTHER,
    Known,
    Memory,
    RefusedTreeError,
    Request,
    State,
    TreeError,
    shown,
)

MAKE, WRITE, ATTRIBUTES, REMOVE = "make directory", "write", "change attributes", "remove"


@dataclass(frozen=True)
class Step:
    """One difference between the host and the tree."""

    action: str
    path: str
    before: State
    after: State
    secret: bool = False


@dataclass(frozen=True)
class Refusal:
    """A file we will not touch until told by name."""

    path: str
    why: str
    before: State
    after: State
    secret: bool


@dataclass(frozen=True)
class Host:
    """What was read from the host: states by path, what owned directories hold, and whom unknown files belong to."""

    states: Mapping[str, State]
    wanted: Mapping[str, State]
    missing_parents: tuple[str, ...] = ()
    owned_contents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_pristine: Callable[[str, State], bool] = lambda _path, _state: False
    written_by_another: Callable[[str], State] = lambda _path: NOTHING


@dataclass(frozen=True)
class Plan:
    """What to do, what we refuse to do, and what to remember once it is done."""

    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...]
    memory: Memory

    @property
    def changed(self) -> bool:
        """Tell whether the host differs from the tree."""
        return bool(self.steps or self.refusals)


def plan(request: Request, memory: Memory, host: Host) -> Plan:
    """Return what turns the host into the picture that the tree shows of it."""
    planner = _Planner(request, memory, host)
    planner.refuse_impossible_shapes()
    if request.left is None:
        planner.make_parents()
        planner.write_entries()
        planner.remove_absent()
        planner.remove_forgotten()
        planner.prune_owned()
        planner.brake()
    else:
        planner.remove_left(left_by(memory, request))
    return planner.result()


def left_by(memory: Memory, request: Request) -> list[str]:
    """Return the paths that a task should remove, from those shown to it; check mode remembers none."""
    paths = {shown(path): path for path in memory.left}
    return [paths.get(name, name) for name in request.left or ()]


class _Planner:
    def __init__(self, request: Request, memory: Memory, host: Host) -> None:
        self.request = request
        self.memory = memory
        self.host = host
        self.steps: list[Step] = []
        self.refusals: list[Refusal] = []
        self.removals: list[tuple[str, str]] = []  # (directory whose set shrinks, path), counted by the brake
        self.left: list[str] = []
        self.entries = {entry.path: entry for entry in request.entries}

    def state(self, path: str) -> State:
        return self.host.states.get(path, NOTHING)

    def is_secret(self, path: str) -> bool:
        known = self.memory.files.get(path)
        entry = self.entries.get(path)
        return bool((known and known.secret) or (entry and entry.secret)) or self.request.is_secret(path)

    def refuse_impossible_shapes(self) -> None:
        problems = []
        for entry in self.request.entries:
            stands = self.state(entry.path).kind
            if entry.kind == DIRECTORY and stands not in (DIRECTORY, MISSING):
                problems.append(f"{shown(entry.path)} should be a directory, but a {_word(stands)} stands there")
            elif entry.kind != DIRECTORY and stands in (DIRECTORY, OTHER):
                problems.append(
                    f"{shown(entry.path)} should be a {_word(entry.kind)}, but a {_word(stands)} stands there"
                )
            parent = self.entries.get(os.path.dirname(entry.path))
            if parent and parent.kind != DIRECTORY:
                problems.append(
                    f"the tree wants {shown(parent.path)} both as a {_word(parent.kind)} and as a directory"
                )
        problems += [
            f"{shown(path)} should be absent, but a {_word(self.state(path).kind)} stands there"
            for path in self.request.absent
            if self.state(path).kind in (DIRECTORY, OTHER)
        ]
        if problems:
            more = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
            raise TreeError(f"{problems[0]}{more}: move it away by hand; nothing was changed")

    def make_parents(self) -> None:
        self.steps += [
            Step(MAKE, path, NOTHING, State(DIRECTORY, mode=0o755, uid=os.geteuid(), gid=os.getegid()))
            for path in self.host.missing_parents
            if path not in self.entries
        ]

    def write_entries(self) -> None:
        for entry in self.request.entries:
            before, after = self.state(entry.path), self.host.wanted[entry.path]
            if before.kind == MISSING:
                action = MAKE if entry.kind == DIRECTORY else WRITE
            elif not before.holds_the_same_as(after):
                action = WRITE
                if why := self.why_not_overwrite(entry.path, before, adopt=entry.adopt):
                    self.refuse(entry.path, why, after)
                    continue
            elif _attributes(before) != _attributes(after):
                action = ATTRIBUTES
            else:
                continue
            self.steps.append(Step(action, entry.path, before, after, self.is_secret(entry.path)))
        self.steps.sort(key=lambda step: (step.action != MAKE, step.path))

    def why_not_overwrite(self, path: str, before: State, *, adopt: bool) -> str:
        known = self.memory.files.get(path)
        if self.request.may_overwrite(path):
            return ""
        if known:
            return "" if before.holds_the_same_as(known.state) else "was edited by hand since we wrote it"
        if adopt or self.host.is_pristine(path, before):
            return ""
        if before.holds_the_same_as(self.host.written_by_another(path)):
            return ""  # the file has moved from one role to another
        return "was there before us and is not what its package ships"

    def refuse(self, path: str, why: str, after: State) -> None:
        self.refusals.append(Refusal(path, why, self.state(path), after, self.is_secret(path)))

    def remove(self, path: str) -> None:
        self.steps.append(Step(REMOVE, path, self.state(path), NOTHING, self.is_secret(path)))

    def prune(self, path: str) -> None:
        if self.request.prune:
            self.remove(path)
        else:
            self.left.append(path)

    def remove_absent(self) -> None:
        for path in self.request.absent:
            if self.state(path).kind != MISSING and path not in self.entries:
                self.remove(path)

    def remove_forgotten(self) -> None:
        for path, known in sorted(self.memory.files.items()):
            if path in self.entries or path in self.request.absent:
                continue
            stands = self.state(path)
            if stands.kind in (MISSING, DIRECTORY, OTHER) or self.belongs_to_another(path):
                continue
            if stands.holds_the_same_as(known.state) or self.request.may_overwrite(path):
                self.prune(path)
                self.removals.append((self.set_of(path), path))
            else:
                self.refuse(path, "left the tree, but was edited by hand since we wrote it", NOTHING)

    def remove_left(self, paths: list[str]) -> None:
        """Remove what an earlier task left: the brake judged it then, beside the new files that take its place."""
        for path in paths:
            known, stands = self.memory.files.get(path), self.state(path)
            if not known and self.set_of(path) not in self.request.owned:
                raise TreeError(f"{shown(path)} is not this tree's to remove: nothing was changed")
            if stands.kind in (MISSING, DIRECTORY, OTHER) or self.belongs_to_another(path):
                continue
            if not known or stands.holds_the_same_as(known.state) or self.request.may_overwrite(path):
                self.remove(path)
            else:
                self.refuse(path, "left the tree, but was edited by hand since we wrote it", NOTHING)

    def prune_owned(self) -> None:
        ours = set(self.entries) | set(self.memory.files) | set(self.request.absent)
        for directory, paths in self.host.owned_contents.items():
            for path in paths:
                if path in ours:
                    continue
                stands = self.state(path)
                if stands.kind == OTHER or self.belongs_to_another(path):
                    continue
                self.prune(path)
                # A link or a package's own file can be had again: only what somebody wrote weighs on the brake.
                if stands.kind == FILE and not self.host.is_pristine(path, stands):
                    self.removals.append((directory, path))

    def belongs_to_another(self, path: str) -> bool:
        return self.host.written_by_another(path) != NOTHING

    def set_of(self, path: str) -> str:
        owners = [directory for directory in self.request.owned if path.startswith(directory + "/")]
        return min(owners, key=len) if owners else os.path.dirname(path)

    def brake(self) -> None:
        """Refuse a plan that empties a set, unless told by the directory's name: an inventory slip looks like that."""
        # What an earlier task of this tree left was judged then, beside the new files that take its place.
        left = set(self.memory.left)
        sizes = Counter(self.set_of(path) for path in self.memory.files if path not in left)
        for directory in dict.fromkeys(directory for directory, _path in self.removals):
            gone = [path for where, path in self.removals if where == directory and path not in left]
            size = sizes[directory] + sum(path not in self.memory.files for path in gone)
            new = sum(
                step.action == WRITE and step.before.kind == MISSING and self.set_of(step.path) == directory
                for step in self.steps
            )
            net = len(gone) - new
            too_many = net > 0.3 * size if size >= 10 else net > 2
            if too_many and directory not in self.request.allow_removal:
                raise RefusedTreeError(
                    f"this would remove {len(gone)} of the {size} files in {shown(directory)} "
                    f"({', '.join(shown(os.path.basename(path)) for path in gone[:5])}"
                    f"{', …' if len(gone) > 5 else ''}): if that is meant, "
                    f"add {shown(directory)} to host_tree_allow_removal; nothing was changed"
                )

    def result(self) -> Plan:
        files = {
            entry.path: Known(self.host.wanted[entry.path], self.is_secret(entry.path))
            for entry in self.request.entries
            if entry.kind != DIRECTORY
        }
        if self.request.left is not None:
            gone = left_by(self.memory, self.request)
            files = {path: known for path, known in self.memory.files.items() if path not in gone}
        files.update({path: self.memory.files[path] for path in self.left if path in self.memory.files})
        made = {step.path for step in self.steps if step.action == MAKE}
        directories = tuple(sorted(made | set(self.memory.directories)))
        memory = replace(
            self.memory,
            files=files,
            directories=directories,
            left=tuple(self.left),
            quarantined={} if self.request.left is None else self.memory.quarantined,
        )
        return Plan(tuple(self.steps), tuple(self.refusals), memory)


def _attributes(state: State) -> tuple[int, int, int]:
    # The mode of a symbolic link means nothing on Linux.
    return (0 if state.kind == LINK else state.mode, state.uid, state.gid)


def _word(kind: str) -> str:
    return {FILE: "file", LINK: "symbolic link", DIRECTORY: "directory", OTHER: "device, socket or pipe"}[kind]
