# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what stands on the host: states of paths, owned directories, and what the packages ship."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from .tree_disk import trusted_link
from .tree_model import DIRECTORY, FILE, LINK, MISSING, NOTHING, OTHER, Entry, Memory, Request, State, TreeError, shown
from .tree_plan import Host, left_by

STAGED = ".infini-"  # how the names of our temporary files begin


def read_state(path: str) -> State:
    """Return what stands at a path, never following its last name."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    attributes = {"mode": stat.S_IMODE(found.st_mode), "uid": found.st_uid, "gid": found.st_gid}
    if stat.S_ISREG(found.st_mode):
        return State(FILE, digest(read_file(path)), **attributes)
    if stat.S_ISLNK(found.st_mode):
        return State(LINK, os.readlink(path), **attributes)
    return State(DIRECTORY if stat.S_ISDIR(found.st_mode) else OTHER, "", **attributes)


def read_file(path: str) -> bytes:
    """Return a file's content, refusing to follow a link that somebody has just put in its place."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return file.readall()


def digest(content: bytes) -> str:
    """Return the name by which we know a content."""
    return hashlib.sha256(content).hexdigest()


class Owners:
    """Turn names of users and groups into numbers, each looked up once."""

    def __init__(self, *, lenient: bool) -> None:
        self.lenient = lenient  # in check mode the account may be made by an earlier task that did not really run
        self._users: dict[str, int] = {}
        self._groups: dict[str, int] = {}

    def ids(self, entry: Entry) -> tuple[int, int]:
        """Return an entry's user and group number."""
        if entry.owner not in self._users:
            self._users[entry.owner] = self._look_up("user", entry.owner, entry.path)
        if entry.group not in self._groups:
            self._groups[entry.group] = self._look_up("group", entry.group, entry.path)
        return self._users[entry.owner], self._groups[entry.group]

    # Each look-up by name reads the whole file from its beginning: for ten thousand members that is seconds.
    @cached_property
    def _everybody(self) -> dict[str, int]:
        return {person.pw_name: person.pw_uid for person in reversed(pwd.getpwall())}

    @cached_property
    def _every_group(self) -> dict[str, int]:
        return {group.gr_name: group.gr_gid for group in reversed(grp.getgrall())}

    def _look_up(self, what: str, name: str, path: str) -> int:
        if name.isdigit():
            return int(name)
        known = self._everybody if what == "user" else self._every_group
        if name in known:
            return known[name]
        try:  # some directories answer by name only
            return pwd.getpwnam(name).pw_uid if what == "user" else grp.getgrnam(name).gr_gid
        except KeyError:
            if self.lenient:
                return -1
            raise TreeError(
                f"{shown(path)} should belong to the {what} {name}, which does not exist on this host: "
                f"create it before this tree is written; nothing was changed"
            ) from None


def read_host(request: Request, memory: Memory, *, others: Callable[[str], State], check_mode: bool) -> Host:
    """Read all that the plan of one tree needs to know; `others` tells what other trees wrote at a path."""
    owners = Owners(lenient=check_mode)
    wanted = {}
    for entry in request.entries:
        uid, gid = owners.ids(entry)
        wanted[entry.path] = State(entry.kind, entry.content, entry.mode, uid, gid)
    owned, paths = {}, {*wanted, *left_by(memory, request)}
    if request.left is None:
        owned = {directory: tuple(_files_below(directory)) for directory in request.owned}
        paths |= {*memory.files, *request.absent, *(path for paths in owned.values() for path in paths)}
    parents = Parents()
    for entry in request.entries:
        parents.check(os.path.dirname(entry.path))
    states = {path: read_state(path) for path in paths}
    for entry in request.entries:
        if entry.kind == DIRECTORY and states[entry.path].kind == LINK:
            states[entry.path] = parents.follow(entry.path)
    return Host(states, wanted, tuple(sorted(parents.missing)), owned, Packages().ship, others)


class Parents:
    """Look at the directories above the files: they exist, or will be made; links in them must be root's."""

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self._checked = {"/"}

    def check(self, directory: str) -> None:
        """Check a directory and all above it."""
        if directory in self._checked:
            return
        self.check(os.path.dirname(directory))
        self._checked.add(directory)
        found = read_attributes(directory)
        if found.kind == LINK:
            self.follow(directory)
        elif found.kind == MISSING:
            self.missing.add(directory)
        elif found.kind != DIRECTORY:
            raise TreeError(
                f"{shown(directory)} should be a directory, but a file stands there: "
                "move it away by hand; nothing was changed"
            )

    def follow(self, path: str) -> State:
        """Return the directory behind a link, if nobody but root (or we) can have put the link there."""
        link = os.lstat(path)
        if not trusted_link(link, os.stat(os.path.dirname(path))):
            raise TreeError(
                f"{shown(path)} should be a directory, but is a symbolic link that a user made or can replace: "
                "look where it leads, then remove it; nothing was changed"
            )
        try:
            found = os.stat(path)
        except OSError:
            found = link
        if not stat.S_ISDIR(found.st_mode):
            raise TreeError(
                f"{shown(path)} should be a directory, but is a symbolic link to something else: "
                "move it away by hand; nothing was changed"
            )
        return State(DIRECTORY, "", stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def read_attributes(path: str) -> State:
    """Return what stands at a path without reading the content."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    kinds = {stat.S_IFREG: FILE, stat.S_IFLNK: LINK, stat.S_IFDIR: DIRECTORY}
    kind = kinds.get(stat.S_IFMT(found.st_mode), OTHER)
    return State(kind, "", stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def _files_below(directory: str) -> Iterator[str]:
    for where, directories, files in os.walk(directory):
        for name in files:
            if not name.startswith(STAGED):
                yield os.path.join(where, name)
        # os.walk counts a link to a directory as a directory; to us it is a file that somebody put there.
        yield from (path for name in directories if os.path.islink(path := os.path.join(where, name)))


class Packages:
    """What Debian's packages ship as configuration, read at most once and only when it matters."""

    def __init__(self, root: str = "/") -> None:
        self._root = Path(root)
        self._sums: dict[str, set[str]] = {}
        self._read = False

    def ship(self, path: str, state: State) -> bool:
        """Tell whether a file is as its package shipped it (an empty one counts: there is nothing to lose)."""
        if state.kind != FILE:
            return False
        content = read_file(path)
        if not content:
            return True
        if not self._read:
            self._read = True
            self._read_dpkg()
            self._read_ucf()
        return hashlib.md5(content).hexdigest() in self._sums.get(path, ())  # noqa: S324 - dpkg's own format

    def _read_dpkg(self) -> None:
        status = self._root / "var/lib/dpkg/status"
        if not status.exists():
            return
        for line in status.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            # " /etc/ssh/ssh_config 0123… [obsolete]": the only lines of the file that begin so.
            if line.startswith(" /"):
                path, _space, rest = line[1:].partition(" ")
                self._sums.setdefault(path, set()).add(rest.split(" ")[0])

    def _read_ucf(self) -> None:
        hashes = self._root / "var/lib/ucf/hashfile"
        if not hashes.exists():
            return
        for line in hashes.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            checksum, _space, path = line.partition("  ")
            self._sums.setdefault(path, set()).add(checksum)
