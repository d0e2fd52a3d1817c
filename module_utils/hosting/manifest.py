# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: what an archive must contain, written on the host just before the copy and kept inside the archive.

It is two files: `manifest.json`, the header, and `manifest.jsonl`, one line for each file, link and directory. Lines
are in the order of a walk, so that mailboxes of any size are written and compared as a stream. The content of every
file is hashed, once: where size, times and inode say that nothing touched it since, the hash is taken over from a cache
that stays on the host; a random few of those are read all the same, which finds what a disk forgot.

The host goes on living between the manifest and the copy. What a restored file's own time, or that of the directory it
stands in, shows to have changed since then has "moved on": it is counted, and too much of it is a finding.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import itertools
import json
import os
import pwd
import random
import re
import socket
import stat
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache as forever
from typing import Any, NamedTuple

VERSION = 1
HEADER, ENTRIES = "manifest.json", "manifest.jsonl"
DIRECTORY, FILE, LINK = "directory", "file", "link"
KINDS = {
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFREG: FILE,
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
"""Sockets are not among them: no backup holds one."""
UNREADABLE = "unreadable"
MOVED_SHARE, MOVED_LEAST = 0.05, 20
"""How much may move on between the manifest and the copy."""
SAID = 100
"""Findings of one kind that are named; the others are counted."""

_FILE_CLOCK = 5  # CLOCK_REALTIME_COARSE: the clock that the kernel stamps files with, a little behind the other one
_CHUNK = 1 << 20
_THREADS, _AT_ONCE, _AHEAD = 4, 100, 8  # files are read a hundred at a time, and up to eight hundred in advance
_text = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode
_ACLS = {"system.posix_acl_access": "access", "system.posix_acl_default": "default"}
_ACL_TAGS = {1: "user", 2: "user", 4: "group", 8: "group", 16: "mask", 32: "other"}


class Entry(NamedTuple):
    """One line of the manifest."""

    path: str
    kind: str
    mode: str
    owner: str
    group: str
    size: int
    mtime_ns: int
    digest: str
    """A file's SHA-256, a link's target, a device's number."""
    acl: str
    """Access lists in words, and hashes of the other extended attributes."""


class Part(NamedTuple):
    """Some lines of the manifest, what they count, and what the cache is to remember of them."""

    lines: bytes
    counts: Counter[str]
    remembered: bytes


# --- looking at files -----------------------------------------------------------------------------------------------


def _key(path: str) -> str:
    """Sort by this and a directory stands before what is in it, and all of that before its neighbour."""
    return path.replace("/", "\0")


def outermost(paths: Iterable[str]) -> list[str]:
    """Return the paths in the manifest's order, without those that stand inside another."""
    kept: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths}, key=_key):
        if not kept or not is_inside(path, kept[-1]):
            kept.append(path)
    return kept


def is_inside(path: str, directory: str) -> bool:
    """Tell whether a path is a directory or stands in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


class LeftOut:
    """Paths that no archive holds, given as patterns whose * and ? stay within a name."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = sorted(patterns)
        self._plain = {one for one in given if "*" not in one and "?" not in one}
        words = {"*": "[^/]*", "?": "[^/]"}
        whole = ["".join(words.get(letter, re.escape(letter)) for letter in one) for one in {*given} - self._plain]
        self._pattern = re.compile("|".join(whole), re.DOTALL) if whole else None

    def __contains__(self, path: str) -> bool:
        """Tell whether a path is one of them."""
        return path in self._plain or bool(self._pattern and self._pattern.fullmatch(path))


def _walk(top: str, left_out: LeftOut, unreadable: set[str], to: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything at and under a path, in the manifest's order; what vanishes meanwhile is not there.

    `to` is where all of it was restored; the paths are those of before.
    """
    waiting = [top]
    while waiting:
        path = waiting.pop()
        if path in left_out:
            continue
        here = to + path
        try:
            state = os.lstat(here)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_IFMT(state.st_mode) not in KINDS:
            continue
        names: list[str] = []
        if stat.S_ISDIR(state.st_mode):
            try:
                names = sorted(os.listdir(here), reverse=True)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                unreadable.add(path)
        yield path, state
        base = path.rstrip("/")
        waiting += [f"{base}/{name}" for name in names]


@forever
def _owner(number: int) -> str:
    """Return a user's name: numbers differ between the host that was lost and the one that comes after it."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@forever
def _group(number: int) -> str:
    """Return a group's name."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _digest(path: str, kind: str, state: os.stat_result) -> str:
    """Return what stands for the content."""
    if kind == FILE:
        return hash_file(path)
    if kind == LINK:
        return os.readlink(path)
    return f"{os.major(state.st_rdev)}:{os.minor(state.st_rdev)}" if state.st_rdev else ""


def hash_file(path: str) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    # Members own these directories and may swap a file for a link or a pipe: neither is followed or waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            chunk = os.read(descriptor, _CHUNK)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)
    finally:
        os.close(descriptor)


def attributes(path: str) -> str:
    """Return access lists and extended attributes in one line; nothing where there are none."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        kept = [name for name in names if name in _ACLS or name.startswith("user.") or name == "security.capability"]
        return " ".join(_attribute(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(kept))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ""
        raise


def _attribute(name: str, value: bytes) -> str:
    if name in _ACLS:
        return f"{_ACLS[name]}={_acl(value)}"
    return f"{name}={hashlib.sha256(value).hexdigest()[:16]}"


def _acl(value: bytes) -> str:
    """Write an access list as `getfacl` does: by names, and in an order that does not come from their numbers."""
    words = []
    for tag, permissions, number in struct.iter_unpack("<HHI", value[4:]):
        name = {2: _owner, 8: _group}[tag](number) if tag in (2, 8) else ""
        bits = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        words.append(f"{_ACL_TAGS[tag]}:{name}:{bits}")
    return ",".join(sorted(words))


def _entry(path: str, kind: str, state: os.stat_result, digest: str, acl: str) -> Entry:
    return Entry(
        path,
        kind,
        "" if kind == LINK else f"{stat.S_IMODE(state.st_mode):04o}",
        _owner(state.st_uid),
        _group(state.st_gid),
        state.st_size if kind == FILE else 0,
        state.st_mtime_ns,
        digest,
        acl,
    )


# --- making a manifest ----------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """One thing met on the walk: its line from the cache where that holds, and whether to read it all the same."""

    path: str
    state: os.stat_result
    kind: str
    mark: bytes
    line: bytes
    again: bool


class _Scan:
    """One walk over the sources, with what it counts. Files are read by a few threads at once, and told in order."""

    def __init__(self, cache: Iterator[tuple[bytes, bytes]], sample: float, pool: Executor) -> None:
        self.started = time.clock_gettime_ns(_FILE_CLOCK)
        self.reused = self.sampled = 0
        self.unreadable: set[str] = set()
        self.rotten: list[str] = []
        self._cache, self._next = cache, next(cache, None)
        self._sample, self._pool = sample, pool

    def look(self, source: str, left_out: LeftOut) -> Iterator[Part]:
        """Yield what stands under a source."""
        found = itertools.starmap(self._find, _walk(source, left_out, self.unreadable))
        ahead: deque[Future[Part]] = deque()
        for some in iter(lambda: list(itertools.islice(found, _AT_ONCE)), []):
            ahead.append(self._pool.submit(self._read, some))
            if len(ahead) > _AHEAD:
                yield ahead.popleft().result()
        for reading in ahead:
            yield reading.result()

    def _find(self, path: str, state: os.stat_result) -> _Found:
        kind, mark = KINDS[stat.S_IFMT(state.st_mode)], _mark(state)
        line = self._remembered(path, mark)
        again = False
        if line and kind == FILE:
            again = random.random() < self._sample  # noqa: S311  any few will do
            self.reused += 1
            self.sampled += again
        return _Found(path, state, kind, mark, line, again)

    def _remembered(self, path: str, mark: bytes) -> bytes:
        """Return the line that the cache has of a path, if nothing touched it since; else nothing.

        Most lines are of what is there and as it was: those are told by their bytes, and never taken apart.
        """
        start = f"[{_text(path)},".encode("ascii")
        while self._next and not self._next[1].startswith(start):
            if _key(json.loads(self._next[1])[0]) > _key(path):
                return b""
            self._next = next(self._cache, None)
        if not self._next:
            return b""
        (known, line), self._next = self._next, next(self._cache, None)
        return line if known == mark else b""

    def _read(self, some: Iterable[_Found]) -> Part:
        lines, remembered, count = [], [], Counter[str]()
        for found in some:
            line = self._line(found)
            if not line:
                continue
            lines.append(line)
            count[found.kind] += 1
            if found.kind == FILE:
                count["bytes"] += found.state.st_size
            # What changed a moment ago may change again without any time on it telling: it is hashed once more.
            if found.state.st_ctime_ns < self.started and found.path not in self.unreadable:
                remembered.append(found.mark + line)
        return Part(b"".join(lines), count, b"".join(remembered))

    def _line(self, found: _Found) -> bytes:
        """Return the line of a thing; nothing if it vanished meanwhile."""
        path, state, kind, _mark, line, again = found
        if line:
            # The manifest keeps the hash of what was once well: no drill calls a rotten copy whole.
            if again and self._is_rotten(Entry(*json.loads(line)).digest, path, state):
                self.rotten.append(path)
            return line
        try:
            digest, acl = _digest(path, kind, state), "" if kind == LINK else attributes(path)
        except FileNotFoundError:
            return b""
        except OSError:
            self.unreadable.add(path)
            digest, acl = UNREADABLE, ""
        return f"{_encode(_entry(path, kind, state, digest, acl))}\n".encode("ascii")

    @staticmethod
    def _is_rotten(digest: str, path: str, state: os.stat_result) -> bool:
        try:
            return hash_file(path) != digest and os.lstat(path).st_ctime_ns == state.st_ctime_ns
        except FileNotFoundError:
            return False
        except OSError:
            return True


def make(
    folder: str,
    service: str,
    sources: Iterable[str],
    *,
    cache: str | None = None,
    left_out: Collection[str] = (),
    sample: float = 0.01,
    meanwhile: Callable[[], Mapping[str, Any]] = dict,
) -> dict[str, Any]:
    """Write the manifest of what stands under the sources into a folder, and return its header.

    `cache` is the file that remembers the hashes from one run to the next, `left_out` what the archive will not hold,
    as patterns whose * and ? stay within a name, `sample` the share of unchanged files to read all the same.
    `meanwhile` runs beside the walk and returns what else the header says (databases, counts, canary).
    """
    began = time.monotonic()
    away = LeftOut(left_out)
    totals: dict[str, dict[str, int]] = {}
    digest = hashlib.sha256()
    lines = 0
    with contextlib.ExitStack() as stack:
        more = stack.enter_context(ThreadPoolExecutor(1)).submit(meanwhile)
        scan = _Scan(_read_cache(cache), sample, stack.enter_context(ThreadPoolExecutor(_THREADS)))
        entries = stack.enter_context(_replacing(os.path.join(folder, ENTRIES)))
        remembered = stack.enter_context(_replacing(cache)) if cache else None
        for source in outermost(sources):
            count: Counter[str] = Counter()
            for part in scan.look(source, away):
                digest.update(part.lines)
                entries.write(part.lines)
                count.update(part.counts)
                if remembered:
                    remembered.write(part.remembered)
            totals[source] = _total(count)
            lines += sum(count.values()) - count["bytes"]
    header = {
        "version": VERSION,
        "service": service,
        "host": socket.getfqdn(),
        "started_ns": scan.started,
        "seconds": round(time.monotonic() - began, 3),
        "sources": totals,
        "entries": {"lines": lines, "sha256": digest.hexdigest()},
        "hashed": sum(total["files"] for total in totals.values()) - scan.reused,
        "reused": scan.reused,
        "sampled": scan.sampled,
        "unreadable": sorted(scan.unreadable),
        "rotten": sorted(scan.rotten),
        "left_out": sorted(left_out),
        **more.result(),
    }
    with _replacing(os.path.join(folder, HEADER)) as file:
        file.write(json.dumps(header, indent=1).encode())
    return header


def _total(count: Mapping[str, int]) -> dict[str, int]:
    others = sum(count.values()) - count[FILE] - count[DIRECTORY] - count[LINK] - count["bytes"]
    return {
        "files": count[FILE],
        "directories": count[DIRECTORY],
        "links": count[LINK],
        "others": others,
        "bytes": count["bytes"],
    }


def _mark(state: os.stat_result) -> bytes:
    """Return what changes whenever something touches a file, in a form that a line of the cache begins with.

    Whatever changes content or attributes changes the inode's time. Accounts may change their names without that.
    """
    what = (stat.S_IFMT(state.st_mode), state.st_ino, state.st_ctime_ns, state.st_mtime_ns, state.st_size)
    return f"{what} {_owner(state.st_uid)}:{_group(state.st_gid)}\t".encode("utf-8", "surrogateescape")


def _read_cache(path: str | None) -> Iterator[tuple[bytes, bytes]]:
    """Yield the marks and lines of the last manifest; a cache that was written otherwise is none."""
    if not path or not os.path.exists(path):
        return
    with open(path, "rb") as file:
        for whole in file:
            mark, tab, line = whole.partition(b"\t")
            if tab:
                yield mark + tab, line


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[Any]:
    """Write beside a file, which is replaced once all is written."""
    beside = f"{path}.new"
    with open(beside, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        yield file
    os.replace(beside, path)


# --- comparing ------------------------------------------------------------------------------------------------------


def finding(code: str, what: str, wanted: Any = None, found: Any = None, **more: Any) -> dict[str, Any]:
    """Return one finding, as codes and numbers."""
    return {"code": code, "what": what, "wanted": wanted, "found": found, **more}


def read_header(folder: str) -> dict[str, Any] | None:
    """Return the header of a manifest; nothing where there is none that can be read."""
    try:
        with open(os.path.join(folder, HEADER), "rb") as file:
            header: dict[str, Any] = json.load(file)
        whole = header["entries"]["sha256"] and {"service", "started_ns", "sources", "left_out"} <= set(header)
        return header if whole and header["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compare(folder: str, to: str = "", paths: Collection[str] | None = None) -> dict[str, Any]:
    """Compare what was restored under `to` (nothing: the living host) with the manifest in a folder.

    Return {"files", "bytes", "moved_on", "findings", "left_off"}: how much was compared, how much moved on, at most a
    hundred findings of a kind, and how many more there are of each. `paths` limits it to a part.
    """
    header = read_header(folder)
    if header is None:
        return _Comparison(0).answer([finding("manifest_absent", os.path.join(folder, HEADER))])
    comparison = _Comparison(header["started_ns"])
    asked = outermost(header["sources"] if paths is None else paths)
    digest = hashlib.sha256()
    last: list[dict[str, Any]] = []
    try:
        comparison.run(_wanted(folder, asked, digest), asked, to.rstrip("/"), LeftOut(header["left_out"]))
    except (OSError, ValueError, TypeError):  # not what we wrote
        digest = hashlib.sha256(b"torn")
    if digest.hexdigest() != header["entries"]["sha256"]:
        last.append(finding("manifest_torn", os.path.join(folder, ENTRIES), header["entries"]["sha256"]))
    return comparison.answer(last, header["service"])


def _wanted(folder: str, asked: Sequence[str], digest: hashlib._Hash) -> Iterator[Entry]:
    """Yield the entries of what is asked; the digest is that of all lines."""
    with open(os.path.join(folder, ENTRIES), "rb") as file:
        for line in file:
            digest.update(line)
            entry = Entry(*json.loads(line))
            if any(is_inside(entry.path, path) for path in asked):
                yield entry


class _Comparison:
    """What is wanted and what is found, side by side."""

    def __init__(self, started_ns: int) -> None:
        self._started = started_ns
        self._moved: set[str] = set()
        """Directories that changed since the manifest: what is missing or new in them has moved on."""
        self._told: set[str] = set()
        """Directories that are a finding as a whole."""
        self.entries = self.files = self.bytes = self.moved_on = 0
        self._count: Counter[str] = Counter()
        self._findings: list[dict[str, Any]] = []

    def run(self, wanted: Iterator[Entry], asked: Sequence[str], to: str, left_out: LeftOut) -> None:
        """Go along both."""
        found = (one for source in asked for one in _walk(source, left_out, set(), to))
        for entry, other in _side_by_side(wanted, found):
            self.entries += entry is not None
            if entry and other:
                self._pair(entry, to + entry.path, other[1])
            elif entry:
                self._alone("missing", entry.path, entry.kind)
            elif other:
                self._alone("extra", other[0], KINDS[stat.S_IFMT(other[1].st_mode)])

    def answer(self, more: Sequence[dict[str, Any]], service: str = "") -> dict[str, Any]:
        """Say what was found."""
        limit = max(MOVED_LEAST, int(self.entries * MOVED_SHARE))
        if self.moved_on > limit:
            self._say("moved_on", service, limit, self.moved_on)
        if not self.entries and not more:
            self._say("nothing_sampled", service)
        return {
            "files": self.files,
            "bytes": self.bytes,
            "moved_on": self.moved_on,
            "findings": [*more, *self._findings],
            "left_off": {code: count - SAID for code, count in self._count.items() if count > SAID},
        }

    def _say(self, code: str, what: str, wanted: Any = None, found: Any = None) -> None:
        self._count[code] += 1
        if self._count[code] <= SAID:
            self._findings.append(finding(code, what, wanted, found))

    def _alone(self, code: str, path: str, kind: str) -> None:
        """Something is on one side only: of a whole directory, only the directory is said."""
        parent = os.path.dirname(path)
        if parent in self._moved:
            self.moved_on += 1
        elif parent not in self._told:
            self._say(code, path, *([kind] if code == "missing" else [None, kind]))
        if kind == DIRECTORY:
            (self._moved if parent in self._moved else self._told).add(path)

    def _pair(self, wanted: Entry, path: str, state: os.stat_result) -> None:
        kind = KINDS[stat.S_IFMT(state.st_mode)]
        # What is unpacked or renamed over a file brings an old time of its own, but leaves a trace on the directory.
        recent = state.st_mtime_ns >= self._started or os.path.dirname(wanted.path) in self._moved
        later = recent and state.st_mtime_ns != wanted.mtime_ns
        if later and kind == wanted.kind == DIRECTORY:
            self._moved.add(wanted.path)
        elif later:
            self.moved_on += 1
            return
        if kind != wanted.kind:
            self._say("kind", wanted.path, wanted.kind, kind)
            return
        found = _entry(wanted.path, kind, state, "", "" if kind == LINK else attributes(path))
        self._rights(wanted, found)
        if kind != DIRECTORY:
            self._content(wanted, found, path, state)

    def _rights(self, wanted: Entry, found: Entry) -> None:
        if wanted.mode != found.mode:
            self._say("mode", wanted.path, wanted.mode, found.mode)
        if (wanted.owner, wanted.group) != (found.owner, found.group):
            self._say("owner", wanted.path, f"{wanted.owner}:{wanted.group}", f"{found.owner}:{found.group}")
        if wanted.acl != found.acl and wanted.digest != UNREADABLE:
            self._say("acl", wanted.path, wanted.acl, found.acl)

    def _content(self, wanted: Entry, found: Entry, path: str, state: os.stat_result) -> None:
        self.files += found.kind == FILE
        self.bytes += found.size
        if wanted.size != found.size:
            self._say("size", wanted.path, wanted.size, found.size)
            return
        digest = _digest(path, found.kind, state)
        if digest != wanted.digest and wanted.digest != UNREADABLE:
            self._say("link" if found.kind == LINK else "content", wanted.path, wanted.digest, digest)
        elif found.kind == FILE and wanted.mtime_ns != found.mtime_ns:  # to a mail program, the date of a message
            self._say("time", wanted.path, wanted.mtime_ns, found.mtime_ns)


def _side_by_side(
    wanted: Iterator[Entry], found: Iterator[tuple[str, os.stat_result]]
) -> Iterator[tuple[Entry | None, tuple[str, os.stat_result] | None]]:
    """Yield what stands at the same path together, in the manifest's order."""
    entry, other = next(wanted, None), next(found, None)
    while entry or other:
        left, right = _key(entry.path) if entry else None, _key(other[0]) if other else None
        take_left = right is None or (left is not None and left <= right)
        take_right = left is None or (right is not None and right <= left)
        yield entry if take_left else None, other if take_right else None
        if take_left:
            entry = next(wanted, None)
        if take_right:
            other = next(found, None)


# --- two manifests --------------------------------------------------------------------------------------------------


def size_moved(
    before: Mapping[str, Any], now: Mapping[str, Any], share: float = 0.15, least: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Compare two headers: what grew or shrank since the archive before by more than a share, and more than a little.

    `least` says what a little is, by default 20 files and a megabyte.
    """
    floor = {"files": 20, "bytes": 1 << 20, **(least or {})}
    found = []
    for source, total in before["sources"].items():
        after = now["sources"].get(source)
        if after is None:
            found.append(finding("source_gone", source))
            continue
        for unit, little in floor.items():
            difference = abs(after[unit] - total[unit])
            if difference > little and difference > share * total[unit]:
                found.append(finding("size_moved", source, total[unit], after[unit], unit=unit))
    return found
