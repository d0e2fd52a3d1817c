# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps about one tree under /var/lib/infini/trees: memory, copies of what was written, and the journal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from .tree_disk import Disk
from .tree_model import FILE, NOTHING, Memory, State, TreeError

TREES = "/var/lib/infini/trees"
PATIENCE = 60.0


class Store:
    """The directory of one tree's memory; only root can look inside."""

    def __init__(self, name: str, disk: Disk, trees: str = TREES) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise TreeError(f"a tree cannot be named {name!r}: use letters, digits, dots, dashes and underscores")
        self.name = name
        self.trees = trees
        self._others: dict[str, State] | None = None
        self.disk = disk
        self.home = os.path.join(trees, name)
        self.memory_path = os.path.join(self.home, "memory.json")
        self.journal_path = os.path.join(self.home, "journal.json")
        self.copies = os.path.join(self.home, "copies")

    def prepare(self) -> None:
        """Make the directories."""
        Path(self.trees).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        for directory in (self.trees, self.home, self.copies):
            Path(directory).mkdir(mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others from writing this tree meanwhile; a killed process lets go by itself."""
        with Path(self.home, "lock").open("w") as file:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TreeError(
                            f"another run has been writing the tree {os.path.basename(self.home)} for a minute: "
                            "wait until it has ended, then run again; nothing was changed"
                        ) from None
                    time.sleep(0.1)
            yield

    def load(self) -> Memory:
        """Return what was remembered, or an empty memory."""
        try:
            return Memory.load(Path(self.memory_path).read_text(encoding="ascii"))
        except FileNotFoundError:
            return Memory()
        except (ValueError, KeyError, TypeError) as problem:
            raise TreeError(
                f"{self.memory_path} is damaged ({problem}): move it away and run again; "
                "files that are not as wanted will then count as unknown and be refused one by one"
            ) from problem

    def written_by_another(self, path: str) -> State:
        """Return what another tree of this host wrote at a path; their memories are read only if anybody asks."""
        if self._others is None:
            self._others = {}
            for name in trees_of(self.trees):
                if name != self.name:
                    known = Store(name, self.disk, self.trees).load().files
                    self._others.update({where: one.state for where, one in known.items()})
        return self._others.get(path, NOTHING)

    def save(self, memory: Memory) -> None:
        """Remember, in one instant."""
        self.disk.save(self.memory_path, memory.dump().encode("ascii"))

    def keep_copies(self, contents: Iterable[tuple[str, bytes]]) -> None:
        """Keep what we write, by its SHA-256, so that a later edit by hand can be shown as a diff."""
        for name, content in contents:
            if not os.path.exists(os.path.join(self.copies, name)):
                self.disk.save(os.path.join(self.copies, name), content)

    def copy(self, name: str) -> bytes | None:
        """Return a kept content."""
        try:
            return Path(self.copies, name).read_bytes()
        except FileNotFoundError:
            return None

    def forget_copies(self, memory: Memory) -> None:
        """Drop the copies that nothing needs any more."""
        needed = {known.state.content for known in memory.files.values() if known.state.kind == FILE}
        for name in set(os.listdir(self.copies)) - needed:
            self.disk.remove(os.path.join(self.copies, name))


def trees_of(trees: str) -> list[str]:
    """Name the trees that a host remembers."""
    try:
        with os.scandir(trees) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
