# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few things a transaction does to a disk, one system call each, so that tests can fail or kill any of them.

Root writes here into directories that members may own. So every path is walked name by name, and the work is done from
the directory's descriptor: whoever swaps a directory for a link at the wrong moment gets an error, not a file in /etc.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from .tree_model import DIRECTORY, LINK, State

PRIVATE = 0o600
WALK = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def open_directory(path: str) -> int:
    """Open a directory for use as a base, following only links that nobody but root (or we) can have put there."""
    descriptor = os.open("/", WALK)
    for name in path.strip("/").split("/"):
        try:
            inner = _enter(descriptor, name, path)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _enter(parent: int, name: str, path: str) -> int:
    try:
        return os.open(name or ".", WALK | os.O_NOFOLLOW, dir_fd=parent)
    except NotADirectoryError:
        if not trusted_link(os.stat(name, dir_fd=parent, follow_symlinks=False), os.fstat(parent)):
            raise NotADirectoryError(
                errno.ENOTDIR, "not a directory, or a link that somebody else made", path
            ) from None
        return os.open(name, WALK, dir_fd=parent)


def trusted_link(link: os.stat_result, parent: os.stat_result) -> bool:
    """Tell whether a link, and the directory it stands in, are beyond the reach of everybody but root and us."""
    ours = {0, os.geteuid()}
    return stat.S_ISLNK(link.st_mode) and link.st_uid in ours and parent.st_uid in ours and not parent.st_mode & 0o022


@contextlib.contextmanager
def parent_of(path: str) -> Iterator[tuple[int, str]]:
    """Yield the descriptor of the directory that holds a path, and the path's last name."""
    descriptor = open_directory(os.path.dirname(path))
    try:
        yield descriptor, os.path.basename(path)
    finally:
        os.close(descriptor)


class Disk:
    """Writes, renames and removes. Nothing here follows a link in the last name of a path."""

    def create(self, path: str, content: bytes, state: State) -> None:
        """Make a new file with its final owner and mode, before any byte of it can be read by others."""
        with parent_of(path) as (parent, name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, PRIVATE, dir_fd=parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            self._own(descriptor, state)

    def create_link(self, path: str, target: str, state: State) -> None:
        """Make a new symbolic link."""
        with parent_of(path) as (parent, name):
            os.symlink(target, name, dir_fd=parent)
            os.chown(name, state.uid, state.gid, dir_fd=parent, follow_symlinks=False)

    def make_directory(self, path: str, state: State) -> None:
        """Make a directory with its final owner and mode."""
        with parent_of(path) as (parent, name):
            os.mkdir(name, 0o700, dir_fd=parent)
        self.set_attributes(path, state)

    def set_attributes(self, path: str, state: State) -> None:
        """Change owner and mode, through a descriptor so that nobody can swap the path for a link meanwhile."""
        if state.kind == DIRECTORY:
            parent, name, flags = open_directory(path), ".", os.O_DIRECTORY
        else:
            parent, name, flags = open_directory(os.path.dirname(path)), os.path.basename(path), os.O_NOFOLLOW
        try:
            if state.kind == LINK:
                os.chown(name, state.uid, state.gid, dir_fd=parent, follow_symlinks=False)
                return
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            self._own(descriptor, state)
        finally:
            os.close(descriptor)

    def overwrite(self, path: str, content: bytes, state: State) -> None:
        """Write into an existing file: only for mount points, which cannot be renamed over."""
        with parent_of(path) as (parent, name):
            descriptor = os.open(name, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            self._own(descriptor, state)
            os.fsync(descriptor)

    def link(self, path: str, new: str) -> None:
        """Give a file a second name in its directory."""
        with parent_of(path) as (parent, name):
            os.link(name, os.path.basename(new), src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)

    def rename(self, path: str, new: str) -> None:
        """Move a file over another of its directory in one instant."""
        with parent_of(path) as (parent, name):
            os.rename(name, os.path.basename(new), src_dir_fd=parent, dst_dir_fd=parent)

    def remove(self, path: str) -> None:
        """Remove a file that may be gone already."""
        # Asked first: a read-only file system refuses even to remove what is not there.
        if os.path.lexists(path):
            with parent_of(path) as (parent, name):
                os.unlink(name, dir_fd=parent)

    def remove_directory(self, path: str) -> None:
        """Remove a directory if it is there and empty."""
        with contextlib.suppress(OSError), parent_of(path) as (parent, name):
            os.rmdir(name, dir_fd=parent)

    def sync(self, path: str) -> None:
        """Wait until a file or directory has reached the disk."""
        with parent_of(path) as (parent, name):
            descriptor = os.open(name or ".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def save(self, path: str, content: bytes) -> None:
        """Replace a private file of ours in one instant, surviving a power cut."""
        beside = path + ".new"
        self.remove(beside)
        self.create(beside, content, State("file", "", PRIVATE, os.geteuid(), os.getegid()))
        self.sync(beside)
        self.rename(beside, path)
        self.sync(os.path.dirname(path))

    @staticmethod
    def _own(descriptor: int, state: State) -> None:
        # The owner first: changing it clears the set-user-ID bit that the mode may want.
        os.fchown(descriptor, state.uid, state.gid)
        os.fchmod(descriptor, state.mode)
