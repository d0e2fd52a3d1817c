# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small world for the tests of host_tree: a directory that plays the host, and the shortest way to picture it."""

import os
from pathlib import Path

from hosting import tree
from hosting.tree_model import DIRECTORY, FILE, LINK, Entry, Request
from hosting.tree_read import digest

ME, MY_GROUP = str(os.geteuid()), str(os.getegid())


class World:
    def __init__(self, directory, name="role"):
        self.root = Path(directory, "host")
        self.trees = str(Path(directory, "var/trees"))
        self.name = name
        self.root.mkdir(exist_ok=True)

    def path(self, relative):
        return str(self.root / relative)

    def request(self, files, *, modes=None, secrets=(), adopt=(), directories=(), **more):
        """`files`: relative path -> text, bytes, or ("link", target)."""
        entries = []
        for relative, content in files.items():
            is_link = isinstance(content, tuple)
            entries.append(
                Entry(
                    path=self.path(relative),
                    kind=LINK if is_link else FILE,
                    content=content[1] if is_link else digest(as_bytes(content)),
                    mode=(modes or {}).get(relative, 0o644),
                    owner=ME,
                    group=MY_GROUP,
                    secret=relative in secrets,
                    adopt=relative in adopt,
                )
            )
        entries += [Entry(self.path(one), DIRECTORY, "", 0o750, ME, MY_GROUP) for one in directories]
        for key in ("owned", "absent", "overwrite", "allow_removal"):
            more[key] = tuple(self.path(one) for one in more.get(key, ()))
        more["secrets"] = tuple(self.path(one) for one in secrets)
        return Request(name=self.name, entries=tuple(sorted(entries, key=lambda entry: entry.path)), **more)

    def contents(self, files):
        return {self.path(name): as_bytes(text) for name, text in files.items() if not isinstance(text, tuple)}

    def look(self, files, *, check_mode=False, **more):
        return tree.look(self.request(files, **more), check_mode=check_mode, trees=self.trees)

    def apply(self, files, *, check_mode=False, diff=True, disk=None, **more):
        return tree.apply(
            self.request(files, **more),
            self.contents(files),
            check_mode=check_mode,
            diff=diff,
            trees=self.trees,
            disk=disk,
        )

    def drift(self):
        return list(tree.drift(self.trees))

    def write(self, relative, text):
        path = Path(self.path(relative))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(text))

    def read(self, relative):
        return Path(self.path(relative)).read_text()

    def snapshot(self, directory=None):
        """Everything below the host, leftovers too: kind, attributes and content."""
        found = {}
        for where, directories, files in os.walk(os.fsencode(directory or self.root)):
            for name in directories + files:
                path = os.path.join(where, name)
                state = os.lstat(path)
                if os.path.islink(path):
                    content = os.readlink(path)
                else:
                    content = Path(os.fsdecode(path)).read_bytes() if name in files else b""
                found[path] = (state.st_mode, state.st_uid, state.st_gid, content)
        return found


def as_bytes(content):
    return content if isinstance(content, bytes) else content.encode()
