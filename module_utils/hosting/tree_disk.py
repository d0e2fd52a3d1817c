# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few things a transaction does to a disk, one system call each, so that tests can fail or kill any of them."""

from __future__ import annotations

import contextlib
import os

from .tree_model import DIRECTORY, LINK, State

PRIVATE = 0o600


class Disk:
    """Writes, renames and removes. Nothing here follows a link in the last name of a path."""

    def create(self, path: str, content: bytes, state: State) -> None:
        """Make a new file with its final owner and mode, before any byte of it can be read by others."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            self._own(descriptor, state)

    def create_link(self, path: str, target: str, state: State) -> None:
        """Make a new symbolic link."""
        os.symlink(target, path)
        os.chown(path, state.uid, state.gid, follow_symlinks=False)

    def make_directory(self, path: str, state: State) -> None:
        """Make a directory with its final owner and mode."""
        os.mkdir(path, 0o700)
        self.set_attributes(path, state)

    def set_attributes(self, path: str, state: State) -> None:
        """Change owner and mode, through a descriptor so that nobody can swap the path for a link meanwhile."""
        if state.kind == LINK:
            os.chown(path, state.uid, state.gid, follow_symlinks=False)
            return
        # A declared directory may be root's own link to one: that was checked when it was read.
        follow = os.O_DIRECTORY if state.kind == DIRECTORY else os.O_NOFOLLOW
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow)
        try:
            self._own(descriptor, state)
        finally:
            os.close(descriptor)

    def overwrite(self, path: str, content: bytes, state: State) -> None:
        """Write into an existing file: only for mount points, which cannot be renamed over."""
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            self._own(descriptor, state)
            os.fsync(descriptor)

    def link(self, path: str, new: str) -> None:
        """Give a file a second name."""
        os.link(path, new, follow_symlinks=False)

    def rename(self, path: str, new: str) -> None:
        """Move a file over another in one instant."""
        os.rename(path, new)

    def remove(self, path: str) -> None:
        """Remove a file that may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def remove_directory(self, path: str) -> None:
        """Remove a directory if it is there and empty."""
        with contextlib.suppress(OSError):
            os.rmdir(path)

    def sync(self, path: str) -> None:
        """Wait until a file or directory has reached the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def save(self, path: str, content: bytes) -> None:
        """Replace a private file of ours in one instant, surviving a power cut."""
        beside = path + ".new"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        self.rename(beside, path)
        self.sync(os.path.dirname(path))

    @staticmethod
    def _own(descriptor: int, state: State) -> None:
        # The owner first: changing it clears the set-user-ID bit that the mode may want.
        os.fchown(descriptor, state.uid, state.gid)
        os.fchmod(descriptor, state.mode)
