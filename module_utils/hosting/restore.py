# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing back what a backup holds: beside by default, over the living only when that is said.

All that can be known is said before anything is written: an archive that is not there, a path that is in no source, too
little space. What stood in the way is moved aside and never deleted; a database is dumped aside before it goes. Each
step is written down first, so that a restore that was killed is undone by the next command.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import dumps, manifest
from .backup import (
    CLOCKS_APART,
    USERS,
    WORK,
    BackupError,
    Repository,
    Service,
    Settings,
    count,
    read_json,
    refused,
    seconds_of,
    write_json,
)
from .databases import RESERVED_DATABASES
from .tree_memory import TREES

MARGIN = 1.05
"""Directories and the ends of files take a little more than their bytes say."""
TABLES = 1.5
"""How much larger than its dump a database may become, with its indexes."""
MARIADB = "/var/lib/mysql"
_WORDS: dict[str, Any] = {
    "service": str,
    "archive": str,
    "before": (str, int, float),
    "after": (str, int, float),
    "to": str,
    "paths": list,
    "databases": (dict, list),
    "over": bool,
    "look": bool,
    "repository": str,
}


def checked(request: Any) -> dict[str, Any]:
    """Return a request without what says nothing, or refuse it."""
    if not isinstance(request, dict):
        raise refused("bad_request")
    for key, value in request.items():
        if key not in _WORDS or not (value is None or isinstance(value, _WORDS[key])):
            raise refused("bad_request", key=key)
    return {key: value for key, value in request.items() if value is not None}


def moment(value: Any, latest: bool) -> float:
    """Return what a time means: seconds, or a date as archives have it; a day's end where the latest is meant."""
    if not isinstance(value, str):
        return float(value)
    known = value.replace(" ", "T").rstrip("Z")
    rest = "T23:59:59" if latest and len(known) == 10 else "0000-01-01T00:00:00"[len(known) :]
    try:
        return seconds_of(known + rest)
    except ValueError as error:
        raise refused("bad_request", time=value) from error


def choose(archives: Sequence[Mapping[str, str]], request: Mapping[str, Any]) -> str:
    """Return the archive that is meant: the one that is named, or the newest, not younger than `before`."""
    if "archive" in request:
        names = [one["archive"] for one in archives]
        if request["archive"] not in names:
            raise refused("archive_absent", archive=request["archive"], newest=names[-1:])
        return str(request["archive"])
    until = moment(request["before"], latest=True) if "before" in request else float("inf")
    since = moment(request["after"], latest=False) if "after" in request else 0
    fitting = [one for one in archives if since <= seconds_of(one["time"]) <= until]
    if not fitting:
        oldest, newest = (archives[0]["time"], archives[-1]["time"]) if archives else (None, None)
        raise refused("archive_absent", service=request["service"], oldest=oldest, newest=newest)
    return fitting[-1]["archive"]


@dataclass
class Plan:
    """What a restore will bring back."""

    service: Service
    archive: str
    header: Mapping[str, Any]
    paths: list[str]
    """What is taken out of the archive; none of them is inside another."""
    databases: dict[str, str]
    """Under which name each database is loaded."""
    users: bool
    files: int = 0
    bytes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    parents: dict[str, manifest.Entry] = field(default_factory=dict)
    """The directories above the paths, as they were."""

    @property
    def dump_bytes(self) -> int:
        """The bytes of the dumps that are loaded."""
        return sum(self.header["databases"][name]["bytes"] for name in self.databases)


def entries(folder: str) -> Iterator[manifest.Entry]:
    """Read the lines of a manifest."""
    with open(os.path.join(folder, manifest.ENTRIES), encoding="ascii") as file:
        for line in file:
            yield manifest.Entry(*json.loads(line))


def plan(
    service: Service, archive: str, folder: str, request: Mapping[str, Any], stamp: str, there: Collection[str] = ()
) -> Plan:
    """Decide what to bring back; `folder` holds the archive's manifest, `there` names the databases of this host."""
    header = manifest.read_header(folder)
    if header is None:
        raise BackupError("manifest_absent", archive=archive)
    over, part = request.get("over", False), "paths" in request or "databases" in request
    reference = header.get("reference", [])
    laid = header.get("paths", []) if over else list(header["sources"])
    wanted = request.get("paths", [] if part else laid)
    paths = manifest.outermost(_inside(path, header["sources"]) for path in wanted)
    kept = [path for path in paths if any(manifest.is_inside(path, other) for other in reference)]
    if over and kept:
        raise refused("reference_only", paths=kept)
    for path in paths if over else ():
        if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):  # a member may have led it anywhere
            raise refused("through_link", path=path, leads=os.path.realpath(os.path.dirname(path)))
    databases = _names(request.get("databases", {} if part else list(header["databases"])), header, over, stamp)
    if not over:
        taken = sorted(set(databases.values()) & set(there))
        if taken:
            raise refused("database_exists", databases=taken)
    users = over and not part and "*" in service.databases
    found = Plan(service, archive, header, paths, databases, users)
    _measure(found, folder)
    return found


def _inside(path: Any, sources: Collection[str]) -> str:
    """Return a path as the manifest has it, or refuse one that is in no source."""
    if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
        raise refused("outside_sources", path=path, sources=sorted(sources))
    normal = os.path.normpath(path)
    if not any(manifest.is_inside(normal, source) for source in sources):
        raise refused("outside_sources", path=path, sources=sorted(sources))
    return normal


def _names(asked: Any, header: Mapping[str, Any], over: bool, stamp: str) -> dict[str, str]:
    """Return under which name each database is to be loaded: its own over the living, else another."""
    names: dict[str, Any] = asked if isinstance(asked, dict) else dict.fromkeys(asked)
    absent = sorted(set(names) - set(header["databases"]))
    if absent:
        raise refused("database_absent", databases=absent, there=sorted(header["databases"]))
    ending = "_" + re.sub(r"\D", "", stamp)
    given = {name: other or (name if over else name[: 64 - len(ending)] + ending) for name, other in names.items()}
    wrong = [other for other in given.values() if not 0 < len(other) <= 64 or other.lower() in RESERVED_DATABASES]
    if wrong or len(set(given.values())) < len(given):
        raise refused("bad_request", databases=wrong or sorted(given.values()))
    return given


def _measure(found: Plan, folder: str) -> None:
    """Count what the paths hold, and see that each of them is there."""
    missing = set(found.paths)
    above = {parent for path in found.paths for parent in _parents(path)}
    for entry in entries(folder):
        if entry.path in above:
            found.parents[entry.path] = entry
        for path in found.paths:
            if manifest.is_inside(entry.path, path):
                missing.discard(path)
                found.files += entry.kind == manifest.FILE
                found.bytes += entry.size
                found.sizes[path] = found.sizes.get(path, 0) + entry.size
                break
    if missing:
        raise refused("path_absent", paths=sorted(missing), archive=found.archive)


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def refuse_too_large(needs: Mapping[str, float]) -> None:
    """Raise where the file systems of some folders have too little space, before anything is written."""
    devices: dict[int, list[Any]] = {}
    for folder, size in needs.items():
        there = existing(folder)
        one = devices.setdefault(os.stat(there).st_dev, [there, 0.0])
        one[1] += size
    for there, size in devices.values():
        state = os.statvfs(there)
        free = state.f_bavail * state.f_frsize
        if size * MARGIN > free:
            raise refused("no_space", at=there, needed=int(size * MARGIN), free=free)


def existing(path: str) -> str:
    """Return the nearest directory above a path, or itself, that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


# --- the journal: what an interrupted restore leaves is undone ------------------------------------------------------


class Journal:
    """What a restore is about to do, written before it does it."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or WORK / "restoring.json"
        self.steps: list[list[Any]] = read_json(self.path).get("steps", [])

    def about(self, *step: Any) -> None:
        """Write down the next step."""
        self.steps.append(list(step))
        write_json(self.path, {"steps": self.steps})

    def close(self, *, done: bool) -> None:
        """Forget the steps, once they are done or undone; what was only for the work goes in both cases."""
        for kind, *step in self.steps:
            if kind == "scratch" or (kind == "folder" and not done):
                shutil.rmtree(step[0], ignore_errors=True)  # it may not have been made yet
        self.path.unlink(missing_ok=True)
        self.steps = []

    def undo(self) -> int:
        """Put everything back as it was; return how many steps there were."""
        number = len(self.steps)
        for kind, *step in reversed(self.steps):
            if kind == "swap":
                _unswap(*step)
            if kind == "loaded":
                _drop(step[0])
            if kind == "replaced":
                dumps.Server().load(step[0], step[1], replace=True)
        self.close(done=False)
        return number


def _unswap(path: str, staged: str, aside: str) -> None:
    """Undo one swap wherever it stopped."""
    if not os.path.lexists(staged) and os.path.lexists(path):
        os.rename(path, staged)  # it goes with the scratch folder
    if os.path.lexists(aside):
        os.rename(aside, path)


def _drop(name: str) -> None:
    line = ["mariadb", "--execute", f"DROP DATABASE IF EXISTS `{name.replace('`', '``')}`"]
    subprocess.run(line, check=True, capture_output=True)


# --- the work -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def unpacked(repository: Repository, service: str, archive: str) -> Iterator[str]:
    """Give a folder with the archive's manifest, for as long as it is looked at."""
    WORK.mkdir(parents=True, exist_ok=True)
    inside = str(WORK / service)
    with tempfile.TemporaryDirectory(prefix=".manifest-", dir=WORK) as folder:
        names = [f"{inside}/{name}" for name in (manifest.HEADER, manifest.ENTRIES, "canary")]
        repository.extract(archive, names, folder)
        yield folder + inside


def restore(settings: Settings, asked: Any) -> dict[str, Any]:
    """Bring back what is asked; return what was done."""
    request, began = checked(asked), time.time()
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(began))
    service = settings.service(request.get("service"))
    over = request.get("over", False)
    if over and "to" in request:
        raise refused("bad_request", key="to")
    undone = Journal().undo()
    repository = Repository(settings, request.get("repository") or settings.repositories[0])
    archive = choose(repository.archives(service.service), request)
    with unpacked(repository, service.service, archive) as folder:
        there = dumps.Server().names() if service.databases else []
        found = plan(service, archive, folder, request, stamp, there)
    work = _Over(settings, found, stamp) if over else _Beside(settings, found, stamp, request.get("to"))
    work.refuse()
    if not request.get("look"):
        work.go(repository)
    return {
        "archive": archive,
        "to": work.to,
        "paths": found.paths,
        "files": found.files,
        "bytes": found.bytes,
        "databases": found.databases,
        "replaced": work.replaced,
        "findings": work.findings,
        "undone": undone,
        "seconds": round(time.time() - began, 1),
    }


class _Restore:
    """What both ways have in common."""

    def __init__(self, settings: Settings, found: Plan, stamp: str) -> None:
        self.settings, self.plan, self.stamp = settings, found, stamp
        self.journal = Journal()
        self.to: str | None = None
        self.replaced: list[list[str]] = []
        self.findings: list[dict[str, Any]] = []
        self.scratch = f"{settings.restored}/.{stamp}-{found.service.service}"

    def needs(self) -> dict[str, float]:
        """Return how much is written below which folder."""
        needs = {self.scratch: float(self.plan.dump_bytes)}
        if self.plan.databases:
            needs[MARIADB] = self.plan.dump_bytes * TABLES
        return needs

    def refuse(self) -> None:
        """Refuse what cannot end well, before anything is written."""
        refuse_too_large(self.needs())

    def go(self, repository: Repository) -> None:
        """Do it; what fails in the middle is undone."""
        Path(self.settings.restored).mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.files(repository)
            self.load(repository)
            self.last()
        except BaseException as error:
            self.journal.undo()
            if isinstance(error, dumps.DumpError):
                raise BackupError(error.code, says=str(error)) from error
            if isinstance(error, OSError):
                code = "no_space" if error.errno == errno.ENOSPC else "system_refused"
                raise BackupError(code, says=str(error), path=error.filename) from error
            raise
        self.journal.close(done=True)

    def files(self, repository: Repository) -> None:
        """Bring files back."""

    def last(self) -> None:
        """Do what comes after everything else."""

    def load(self, repository: Repository) -> None:
        """Bring databases back."""
        if not self.plan.databases and not self.plan.users:
            return
        self.journal.about("scratch", self.scratch)
        os.mkdir(self.scratch, 0o700)
        inside = str(self.plan.service.dumps)
        files = [self.plan.header["databases"][name]["file"] for name in self.plan.databases]
        files += [USERS] if self.plan.users else []
        repository.extract(self.plan.archive, [f"{inside}/{file}" for file in files], self.scratch)
        server = dumps.Server()
        for name, other in self.plan.databases.items():
            about = self.plan.header["databases"][name]
            self.one_database(server, f"{self.scratch}{inside}/{about['file']}", about, other)
        if self.plan.users:
            server.load_users(f"{self.scratch}{inside}/{USERS}")

    def one_database(self, server: dumps.Server, path: str, about: Mapping[str, Any], name: str) -> None:
        """Load one database."""
        self.journal.about("loaded", name)
        server.load(path, about, name)


class _Beside(_Restore):
    """Into an empty folder, and databases under other names."""

    def __init__(self, settings: Settings, found: Plan, stamp: str, to: str | None) -> None:
        super().__init__(settings, found, stamp)
        self.to = to or f"{settings.restored}/{stamp}-{found.service.service}"
        if not self.to.startswith("/"):
            raise refused("bad_request", key="to")

    def needs(self) -> dict[str, float]:
        return {**super().needs(), str(self.to): float(self.plan.bytes)}

    def refuse(self) -> None:
        if os.path.lexists(str(self.to)) and (not os.path.isdir(str(self.to)) or os.listdir(str(self.to))):
            raise refused("not_empty", to=self.to)
        super().refuse()

    def files(self, repository: Repository) -> None:
        if self.plan.paths:
            self.journal.about("folder", self.to)
            os.makedirs(str(self.to), mode=0o700, exist_ok=True)
            repository.extract(self.plan.archive, self.plan.paths, str(self.to))


class _Over(_Restore):
    """Over the living, whose files are moved aside and whose databases are dumped aside."""

    def __init__(self, settings: Settings, found: Plan, stamp: str) -> None:
        super().__init__(settings, found, stamp)
        self.aside = f"{settings.restored}/replaced-{stamp}-{found.service.service}"

    def needs(self) -> dict[str, float]:
        needs = super().needs()
        for path in self.plan.paths:
            base = self._base(path)
            needs[base] = needs.get(base, 0.0) + self.plan.sizes.get(path, 0)
        needs[self.aside] = needs.get(self.aside, 0.0) + self.plan.dump_bytes  # about what the living ones take
        return needs

    def _base(self, path: str) -> str:
        """Return the folder of our own on the file system of a path: what is renamed stays on it."""
        device = os.stat(existing(os.path.dirname(path))).st_dev
        if os.stat(existing(self.settings.restored)).st_dev == device:
            return self.settings.restored
        top = existing(os.path.dirname(path))
        while not os.path.ismount(top):
            top = os.path.dirname(top)
        return top

    def files(self, repository: Repository) -> None:
        for path in self.plan.paths:
            base = self._base(path)
            scratch = f"{base}/.{self.stamp}-{len(self.journal.steps)}"
            aside = f"{base}/{os.path.basename(self.aside)}"
            self.journal.about("scratch", scratch)
            os.mkdir(scratch, 0o700)
            repository.extract(self.plan.archive, [path], scratch)
            if not os.path.lexists(scratch + path):
                raise BackupError("path_absent", paths=[path])
            keep_written(path, scratch)
            self._make_parents(path)
            for inner in self._parts(path, scratch):
                self._swap(inner, scratch + inner, aside)

    def _parts(self, path: str, scratch: str) -> list[str]:
        """Return what is swapped: the path itself, or, where something is mounted there, what is in it."""
        if not os.path.ismount(path):
            return [path]
        names = {*os.listdir(path), *os.listdir(scratch + path)}
        return [f"{path}/{name}" for name in sorted(names) if f"{path}/{name}" not in (scratch, self.settings.restored)]

    def _make_parents(self, path: str) -> None:
        """Make the directories above a path that are no longer there, as they were."""
        for parent in reversed(list(_parents(path))):
            if os.path.lexists(parent):
                continue
            os.mkdir(parent, 0o700)
            entry = self.plan.parents.get(parent)
            if entry:
                shutil.chown(parent, _known(entry.owner), _known(entry.group))
                os.chmod(parent, int(entry.mode, 8))

    def _swap(self, path: str, staged: str, folder: str) -> None:
        aside = folder + path
        self.journal.about("swap", path, staged, aside)
        if os.path.lexists(path):
            os.makedirs(folder, mode=0o700, exist_ok=True)  # nobody else looks in
            os.makedirs(os.path.dirname(aside), exist_ok=True)
            os.rename(path, aside)
            self.replaced.append([path, aside])
        if os.path.lexists(staged):
            os.rename(staged, path)

    def one_database(self, server: dumps.Server, path: str, about: Mapping[str, Any], name: str) -> None:
        if name not in server.names([name]):
            super().one_database(server, path, about, name)
            return
        folder = f"{self.aside}/databases"
        os.makedirs(folder, mode=0o700, exist_ok=True)
        before = server.dump(name, folder)
        kept = f"{folder}/{before['file']}"
        self.journal.about("replaced", kept, before)
        server.load(path, {**about, "name": name}, replace=True)
        self.replaced.append([name, kept])

    def last(self) -> None:
        for command in self.plan.service.restored:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                says = (done.stderr or done.stdout).strip()[-300:]
                finding = manifest.finding("restored_failed", " ".join(command), 0, done.returncode, says=says)
                self.findings.append(finding)


def written() -> set[str]:
    """Return the files of this host that roles write, and engines in their name: they say what this host is.

    Another host that takes its place has other addresses: what stood in such a file on the old one is wrong here.
    """
    found: set[str] = set()
    for memory in Path(TREES).glob("*/memory.json"):
        found.update(json.loads(memory.read_text(encoding="utf-8"))["files"])
    return found


def keep_written(path: str, scratch: str) -> None:
    """Put what roles have written below a path into what is about to take its place."""
    for one in sorted(written()):
        if manifest.is_inside(one, path) and os.path.isfile(one) and not os.path.islink(one):
            os.makedirs(os.path.dirname(scratch + one), exist_ok=True)
            shutil.copy2(one, scratch + one)
            shutil.chown(scratch + one, os.stat(one).st_uid, os.stat(one).st_gid)


def _known(name: str) -> Any:
    """Return a name as chown takes it: a number stays one."""
    return int(name) if name.isdigit() else name


# --- comparing ------------------------------------------------------------------------------------------------------


def compare(settings: Settings, asked: Any) -> dict[str, Any]:
    """Compare what was restored, or the living host, with what the archive says that it held."""
    request = checked(asked)
    service = settings.service(request.get("service"))
    repository = Repository(settings, request.get("repository") or settings.repositories[0])
    archives = repository.archives(service.service)
    archive = choose(archives, request)
    with unpacked(repository, service.service, archive) as folder:
        header = manifest.read_header(folder)
        if header is None:
            return {"archive": archive, "findings": [manifest.finding("manifest_absent", archive)]}
        to, part = request.get("to", ""), "paths" in request or "databases" in request
        paths = request.get("paths", [] if part else None if to else _standing(header))
        answer: dict[str, Any] = {"archive": archive, "files": 0, "bytes": 0, "findings": []}
        if paths is None or paths:
            answer.update(manifest.compare(folder, to, paths))
            ours = set() if to else written()
            answer["findings"] = [one for one in answer["findings"] if one["what"] not in ours]
        answer["findings"] += [*_canary(folder, header, archive), *_databases(header, request, bool(to))]
        if not part:
            answer["findings"] += known_to_lack(header)
        if not to and not part:
            answer["findings"] += counted(header["counts"], count(service))
        earlier = [one["archive"] for one in archives if one["archive"] < archive][-1:]
        for name in [] if part else earlier:
            with unpacked(repository, service.service, name) as other:
                before = manifest.read_header(other)
            answer["findings"] += manifest.size_moved(before, header) if before else []
    return answer


def known_to_lack(header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Say what was known to be wrong when the archive was made, and that it therefore does not hold as it should."""
    found = [manifest.finding(code, path) for code in ("rotten", "unreadable") for path in header.get(code, ())]
    databases = header["databases"].items()
    return found + [
        manifest.finding("broken", f"{name}.{table}") for name, about in databases for table in about.get("broken", ())
    ]


def _standing(header: Mapping[str, Any]) -> list[str]:
    """Return the paths of a service that stand on its host also when no backup is made."""
    return [path for path in header.get("paths", []) if path not in header.get("passing", [])]


def _canary(folder: str, header: Mapping[str, Any], archive: str) -> list[dict[str, Any]]:
    """See that the canary was made for this very archive."""
    held, made = read_json(Path(folder) / "canary"), header.get("canary", {})
    taken = seconds_of(archive[-19:])
    fresh = held == made and abs(made.get("made", 0) - taken) < 86400 + CLOCKS_APART
    return [] if fresh else [manifest.finding("canary_stale", archive, taken, made.get("made"))]


def _databases(header: Mapping[str, Any], request: Mapping[str, Any], beside: bool) -> list[dict[str, Any]]:
    """Compare databases: those that are named, under their other names; on the living host all."""
    asked = request.get("databases")
    if asked is None:
        asked = {} if beside or "paths" in request else dict.fromkeys(header["databases"])
    names: dict[str, Any] = asked if isinstance(asked, dict) else dict.fromkeys(asked)
    server, found = dumps.Server(), []
    for name, other in names.items():
        wanted = header["databases"].get(name)
        if wanted is None:
            found.append(manifest.finding("database_missing", name))
        else:
            found += dumps.compare(name, wanted, server.look(other or name))
    return found


def counted(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare the counts of a service."""
    return [
        manifest.finding("count", name, number, found.get(name))
        for name, number in wanted.items()
        if number is not None and number != found.get(name)
    ]
