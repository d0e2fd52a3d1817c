# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words in which host_tree thinks: what is wanted, what stands on the host, what was written last time."""

from __future__ import annotations

import base64
import errno
import io
import json
import re
import zlib
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

FILE, LINK, DIRECTORY, MISSING, OTHER = "file", "link", "dir", "missing", "other"


class TreeError(Exception):
    """One sentence for the operator: what, where and the mend. Nothing was changed, or everything was put back."""


class RefusedTreeError(TreeError):
    """A plan that is possible but that the operator has to agree to by name."""


@dataclass(frozen=True)
class State:
    """What stands at a path: `content` is the SHA-256 of a file or the target of a link."""

    kind: str
    content: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0

    def holds_the_same_as(self, other: State) -> bool:
        """Tell whether kind and content agree, whoever owns it."""
        return (self.kind, self.content) == (other.kind, other.content)


NOTHING = State(MISSING)


@dataclass(frozen=True)
class Entry:
    """What a tree wants at a path; directories have no content."""

    path: str
    kind: str
    content: str
    mode: int
    owner: str
    group: str
    secret: bool = False
    adopt: bool = False


@dataclass(frozen=True)
class Validation:
    """A command that must succeed once some of the files it covers have changed."""

    files: tuple[str, ...]
    command: tuple[str, ...]
    quarantine: bool = False  # put back only the files that the command names, as long as it names any


@dataclass(frozen=True)
class Notification:
    """The handlers to run when a matching file changes."""

    pattern: str
    handlers: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """Everything the control node tells the host about one tree, except the contents."""

    name: str
    entries: tuple[Entry, ...] = ()
    owned: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    overwrite: tuple[str, ...] = ()
    allow_removal: tuple[str, ...] = ()
    validations: tuple[Validation, ...] = ()
    notifications: tuple[Notification, ...] = ()
    run: str = ""  # this playbook run, when it can confirm that its handlers ran
    prune: bool = True  # else what is no longer declared is judged now and removed by a later task
    left: tuple[str, ...] | None = None  # this is the later task: remove these (as they were shown), write nothing

    def is_secret(self, path: str) -> bool:
        """Tell whether a path's content must never be shown."""
        return matches_any(path, self.secrets)

    def may_overwrite(self, path: str) -> bool:
        """Tell whether the operator gave this path up by name."""
        return matches_any(path, self.overwrite)

    def handlers_for(self, paths: list[str]) -> list[str]:
        """Name the handlers to notify when these paths change, each once, in the sidecar's order."""
        names = [
            handler
            for notification in self.notifications
            if any(matches(path, notification.pattern) for path in paths)
            for handler in notification.handlers
        ]
        return list(dict.fromkeys(names))

    def pack(self) -> str:
        """Return the request as one opaque word: Ansible walks through every item of nested arguments, slowly."""
        return pack(asdict(self))

    @classmethod
    def unpack(cls, packed: str) -> Request:
        """Read back what `pack` made."""
        raw: dict[str, Any] = unpack(packed)
        lists = ("owned", "absent", "secrets", "overwrite", "allow_removal")
        return cls(
            name=raw["name"],
            run=raw["run"],
            prune=raw["prune"],
            left=None if raw["left"] is None else tuple(raw["left"]),
            entries=tuple(Entry(**entry) for entry in raw["entries"]),
            validations=tuple(
                Validation(tuple(v["files"]), tuple(v["command"]), v["quarantine"]) for v in raw["validations"]
            ),
            notifications=tuple(Notification(n["pattern"], tuple(n["handlers"])) for n in raw["notifications"]),
            **{key: tuple(raw[key]) for key in lists},
        )


@dataclass(frozen=True)
class Known:
    """What we wrote at a path, and whether it may be shown."""

    state: State
    secret: bool = False


@dataclass(frozen=True)
class Quarantined:
    """A wanted content that a validation refused, in the validator's own words; the file stands as before."""

    content: str
    reason: str


@dataclass(frozen=True)
class Memory:
    """What a host remembers of one tree: the files we wrote, the directories we made, the handlers still owed."""

    files: dict[str, Known] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    run: str = ""  # the run that owes the pending handlers
    transaction: str = ""  # the last transaction that was committed
    left: tuple[str, ...] = ()  # no longer declared, and the brake let them go: a later task removes them
    quarantined: dict[str, Quarantined] = field(default_factory=dict)

    def dump(self) -> str:
        """Return the memory as JSON text."""
        return json.dumps(asdict(self), indent=0, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Memory:
        """Read back what `dump` made."""
        raw = json.loads(text)
        files = {path: Known(State(**known["state"]), known["secret"]) for path, known in raw["files"].items()}
        return cls(
            files,
            tuple(raw["directories"]),
            tuple(raw["pending"]),
            raw["run"],
            raw["transaction"],
            # What an earlier version of this engine wrote knows neither.
            tuple(raw.get("left", ())),
            {path: Quarantined(**one) for path, one in raw.get("quarantined", {}).items()},
        )


def pack(value: object) -> str:
    """Return a JSON value as one compressed ASCII word."""
    return base64.b64encode(zlib.compress(json.dumps(value).encode(), 6)).decode()


def unpack(packed: str) -> Any:
    """Read back what `pack` made."""
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def pack_contents(contents: dict[str, bytes]) -> str:
    """Return file contents by path as one compressed ASCII word."""
    # One after the other, as they are: the files of a tree have much in common, which other forms would hide.
    sizes = json.dumps({path: len(content) for path, content in contents.items()}).encode()
    return base64.b64encode(zlib.compress(b"\n".join([sizes, b"".join(contents.values())]), 1)).decode()


def unpack_contents(packed: str) -> dict[str, bytes]:
    """Read back what `pack_contents` made."""
    sizes, _, together = zlib.decompress(base64.b64decode(packed)).partition(b"\n")
    stream = io.BytesIO(together)
    return {path: stream.read(size) for path, size in json.loads(sizes).items()}


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> re.Pattern[str]:
    """Compile a path pattern: `*` and `?` stay within one name, `**` crosses directories, all else is literal."""
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return re.compile("".join(special.get(part) or re.escape(part) for part in parts), re.DOTALL)


def matches(path: str, pattern: str) -> bool:
    """Tell whether a path on the host matches a pattern; a leading slash does not matter."""
    return _pattern(pattern).fullmatch(path.lstrip("/")) is not None


def matches_any(path: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a path on the host matches one of the patterns."""
    return any(matches(path, pattern) for pattern in patterns)


def shown(path: str) -> str:
    """Return a path as printable text, whatever bytes stand in the name."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


MENDS = {
    errno.ENOSPC: "free some space on its file system, then run again",
    errno.EDQUOT: "raise the quota of its file system, then run again",
    errno.EROFS: "its file system is mounted read-only: mount it writable or take the file out of the tree",
    errno.EACCES: "run as root (become: true)",
    errno.EPERM: "run as root, and look for an immutable flag with lsattr",
    errno.EBUSY: "it is a mount point: unmount it, or take it out of the tree",
    errno.ENAMETOOLONG: "shorten the name",
}


def explain(problem: OSError, doing: str) -> str:
    """Turn a system error into what, where and the mend."""
    where = shown(str(problem.filename)) if problem.filename else "the host"
    mend = MENDS.get(problem.errno or 0, "mend that, then run again")
    return f"{doing}: {where}: {problem.strerror or problem}; {mend}"
