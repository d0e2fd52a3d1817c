# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups as the host that owns the data makes them: an archive for each service, with a manifest of what it must hold.

borgmatic makes the copy; around it stands what a copy needs to be worth something: the service's own commands, dumps
that are consistent, the counts and the manifest. What went wrong is a code, for those who say it in sentences. A run
that was killed is made good by the next one.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import fnmatch
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import dumps, manifest

CONFIG = Path("/etc/infini-backup/config.json")
WORK = Path("/var/lib/infini-backup")
LOCK = Path("/run/infini-backup.lock")
VERIFIED = Path("/var/lib/infini/backups/verified.json")
"""Where `infini purge` looks for the backups that were read again; see hosting/leaving.py."""
STAMP = "%Y-%m-%dT%H:%M:%S"
USERS = "users"  # no name of a dump: those end in .sql
CLOCKS_APART = 300
"""Seconds by which two clocks may differ before one of them is called wrong."""

# What borg's errors are to us. Those about the repository have `Repository.` before them, or nothing when they come
# from afar. Whatever is not here is `borg_failed`, with borg's own words.
CODES = {
    "Archive.DoesNotExist": "archive_absent",
    "Cache.EncryptionMethodMismatch": "repository_replaced",
    "Cache.RepositoryAccessAborted": "repository_replaced",
    "Cache.RepositoryReplay": "repository_replayed",
    "CheckNeeded": "repository_damaged",
    "ConnectionClosed": "store_unreachable",
    "ConnectionClosedWithHint": "store_unreachable",
    "DoesNotExist": "repository_absent",
    "InsufficientFreeSpaceError": "store_full",
    "IntegrityError": "repository_damaged",
    "InvalidRepository": "repository_absent",  # an empty folder, too
    "LockTimeout": "store_busy",
    "NoPassphraseFailure": "key_missing",
    "ObjectNotFound": "repository_damaged",
    "ParentPathDoesNotExist": "repository_absent",
    "PasscommandFailure": "key_missing",
    "PassphraseWrong": "key_wrong",
    "PathNotAllowed": "store_refused",
    "PathPermissionDenied": "store_refused",
    "RepositoryReplay": "repository_replayed",
    "StorageQuotaExceeded": "store_full",
}
SAID = (  # by ssh and the store, which have no codes
    ("Host key verification failed", "store_key_changed"),
    ("Permission denied (publickey", "store_refused"),
    ("No space left on device", "store_full"),
    ("quota exceeded", "store_full"),
    ("Storage quota", "store_full"),
    ("never matched", "archive_lacks"),
)


class BackupError(Exception):
    """What cannot be done, as a code with numbers and names; `status` is the command's exit status."""

    def __init__(self, code: str, status: int = 4, **more: Any) -> None:
        super().__init__(code)
        self.code, self.status, self.more = code, status, more

    def answer(self) -> dict[str, Any]:
        """Return it as the command prints it."""
        return {"code": self.code, **self.more}


def refused(code: str, **more: Any) -> BackupError:
    """Make the error of somebody who asks for what cannot be: nothing was changed."""
    return BackupError(code, 2, **more)


@dataclass(frozen=True)
class Service:
    """What its card says of a service."""

    service: str
    label: str = ""
    paths: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    """Paths that are kept, and never laid over a living host."""
    databases: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    restored: tuple[tuple[str, ...], ...] = ()
    counts: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Service:
        """Read one of the configuration's."""
        words: dict[str, Any] = {key: tuple(card[key]) for key in ("paths", "reference", "databases", "counts")}
        for key in ("before", "after", "restored"):
            words[key] = tuple(tuple(map(str, command)) for command in card[key])
        return cls(card["service"], card["label"], **words)

    @property
    def sources(self) -> tuple[str, ...]:
        """All that is copied."""
        return (*self.paths, *self.reference)

    @property
    def folder(self) -> Path:
        """Where dumps and manifest stand while the copy is made, and in the archive."""
        return WORK / self.service

    @property
    def dumps(self) -> Path:
        """Where the dumps stand."""
        return self.folder / "dumps"


@dataclass(frozen=True)
class Settings:
    """What the role wrote for us."""

    host: str
    repositories: tuple[str, ...]
    services: Mapping[str, Service]
    ssh_command: str
    exclude: tuple[str, ...] = ()
    fresh_hours: float = 26
    restored: str = "/srv/restored"
    lock_wait: int = 300
    bypass_lock: bool = False
    borgmatic: str = "/opt/borgmatic/bin/borgmatic"

    @classmethod
    def read(cls, path: Path = CONFIG) -> Settings:
        """Read the file that host_tree wrote."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise refused("not_configured", path=str(path)) from error
        raw["services"] = {card["service"]: Service.of(card) for card in raw["services"]}
        raw.update({key: tuple(raw[key]) for key in ("repositories", "exclude")})
        return cls(**raw)

    def service(self, name: Any) -> Service:
        """Return one service."""
        if name not in self.services:
            raise refused("service_unknown", service=name, services=sorted(self.services))
        return self.services[name]


# --- what is remembered ---------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file says; nothing where it is not there or not whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, data: Any, mode: int = 0o600) -> None:
    """Replace a file, whole or not at all, and be sure that it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with open(new, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def state_file() -> Path:
    """Return where the last runs are remembered; no archive holds it, so that no restore lays it over a living host."""
    return WORK / "state.json"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Be the only one at work, or refuse; a kill leaves no lock behind."""
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refused("busy") from error
        yield


# --- borg -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repository:
    """A repository, and how it is spoken to."""

    settings: Settings
    path: str

    @property
    def by_the_read_door(self) -> bool:
        """Whether it is only looked at: no lock is taken, and nothing of ours is remembered of it elsewhere."""
        return self.settings.bypass_lock or self.path not in self.settings.repositories

    def environment(self) -> dict[str, str]:
        """Return the environment of borg."""
        reading = self.by_the_read_door
        base = WORK / "read" / sha256(self.path.encode()).hexdigest()[:16] if reading else WORK / "borg"
        return {
            **os.environ,
            "BORG_BASE_DIR": str(base),
            "BORG_PASSCOMMAND": f"cat {CONFIG.parent}/passphrase",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes" if reading else "no",
            "BORG_RSH": self.settings.ssh_command,
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "no",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }

    def borg(self, *words: str, cwd: str = "/", reads: bool = True, warnings: bool = True) -> str:
        """Run borg; return what it prints, or raise what went wrong: also its warnings, unless they are fine."""
        how = ["--bypass-lock"] if reads and self.by_the_read_door else ["--lock-wait", str(self.settings.lock_wait)]
        line = ["borg", "--log-json", *how, *words]
        done = subprocess.run(line, env=self.environment(), cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode > 1 or (done.returncode and not warnings):
            found = trouble(done.stderr)
            if found["code"] == "store_unreachable":
                found = self._why() or found
            raise BackupError(**found, repository=self.path)
        return done.stdout

    def _why(self) -> dict[str, Any]:
        """Ask SSH itself why a store does not answer: borg may not have waited for its last words."""
        at = urlsplit(self.path)
        if at.scheme != "ssh" or not at.hostname:
            return {}
        port = ["-p", str(at.port)] if at.port else []
        line = [*shlex.split(self.settings.ssh_command), *port, "-n", f"{at.username or 'root'}@{at.hostname}", "true"]
        said = subprocess.run(line, capture_output=True, text=True, check=False).stderr
        return next(({"code": code} for sign, code in SAID if sign in said), {})

    def archives(self, service: str | None = None) -> list[dict[str, str]]:
        """Return the archives, the oldest first; those that were interrupted are none."""
        only = ["--glob-archives", f"{service}-[0-9]*"] if service else []
        found = []
        for one in json.loads(self.borg("list", "--json", *only, self.path))["archives"]:
            name = re.fullmatch(r"(.+)-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", one["name"])
            if name and service in (None, name[1]):
                found.append({"service": name[1], "archive": one["name"], "time": one["start"][:19]})
        return sorted(found, key=lambda one: (one["time"], one["archive"]))

    def extract(self, archive: str, paths: Iterable[str], to: str) -> None:
        """Bring paths of an archive back under a directory."""
        words = [path.lstrip("/") for path in paths]
        self.borg("extract", f"{self.path}::{archive}", *words, cwd=to, warnings=False)


def trouble(errors: str) -> dict[str, Any]:
    """Read from the log of borg or borgmatic what went wrong: a code, and the words where there is no better."""
    lines = [line for line in errors.splitlines() if line.strip()]
    said, words = "", "\n".join(lines)
    for sign, code in SAID:
        if sign in words:
            return {"code": code}
    for line in lines:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            code = CODES.get((entry.get("msgid") or "").replace("Repository.", "", 1), "")
            if code and entry.get("levelname") in ("ERROR", "CRITICAL"):
                return {"code": code}
            if entry.get("levelname") == "ERROR" and not said:
                said = str(entry.get("message", "")).strip()
    return {"code": "borg_failed", "says": (said or (lines[-1] if lines else ""))[-500:]}


def seconds_of(stamp: str) -> int:
    """Return when an archive was begun."""
    return calendar.timegm(time.strptime(stamp, STAMP))


# --- before and after the copy --------------------------------------------------------------------------------------


def matching(patterns: Sequence[str]) -> list[str]:
    """Return what stands at these paths, where * and ? stay within a name; what begins with a dot fits too."""
    found = []
    for pattern in patterns:
        here = [""]
        for part in pattern.strip("/").split("/"):
            here = [f"{above}/{name}" for above in here for name in sorted(_names(above or "/", part))]
        found += here
    return found


def _names(folder: str, part: str) -> list[str]:
    if not re.search(r"[*?\[]", part):
        return [part] if os.path.lexists(f"{folder}/{part}") else []
    try:
        return fnmatch.filter((path.name for path in Path(folder).iterdir()), part)
    except OSError:
        return []


def resolve(patterns: Collection[str], there: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the databases that are meant of those that are there, and those named that are not."""
    meant = [name for name in there if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    gone = [pattern for pattern in patterns if "*" not in pattern and pattern not in there]
    return sorted(meant), sorted(gone)


def prepare(settings: Settings, service: Service) -> dict[str, Any]:
    """Do what the service wants before the copy, then dump its databases and count while the manifest is written."""
    finish(service)
    shutil.rmtree(service.folder, ignore_errors=True)  # before the first run there is none
    service.dumps.mkdir(parents=True, mode=0o700)
    service.folder.chmod(0o700)
    _mark(service).touch()
    passing = [path for path in service.sources if not os.path.lexists(path)]
    for command in service.before:
        _run(command, "before_failed")
    absent = [path for path in service.sources if not os.path.lexists(path)]
    if absent:
        raise BackupError("source_absent", paths=absent)
    canary = {"made": int(time.time()), "word": secrets.token_hex(16)}
    write_json(service.folder / "canary", canary)

    def beside_the_walk() -> dict[str, Any]:
        databases, gone = dump_databases(service)
        return {
            "paths": list(service.paths),
            "reference": list(service.reference),
            "passing": passing,  # made for the copy only
            "databases": databases,
            "databases_gone": gone,
            "counts": count(service),
            "canary": canary,
        }

    return manifest.make(
        str(service.folder),
        service.service,
        service.sources,
        cache=str(WORK / f"{service.service}.cache"),
        left_out=matching(settings.exclude),
        meanwhile=beside_the_walk,
    )


def dump_databases(service: Service) -> tuple[dict[str, Any], list[str]]:
    """Dump a service's databases; one that vanishes meanwhile is said, and no failure."""
    if not service.databases:
        return {}, []
    server = dumps.Server()
    dumped: dict[str, Any] = {}
    try:
        names, gone = resolve(service.databases, server.names())
        for name in names:
            try:
                dumped[name] = server.dump(name, str(service.dumps))
            except dumps.DatabaseGoneError:  # noqa: PERF203  each has its own end
                gone.append(name)
        if "*" in service.databases:  # whoever has all databases has their users, too
            server.dump_users(str(service.dumps / USERS))
    except dumps.DumpError as error:
        raise BackupError(error.code, says=str(error)) from error
    return dumped, sorted(gone)


def count(service: Service) -> dict[str, int | None]:
    """Return the numbers that prove that the service is whole; nothing for one that cannot be had."""
    return {one["name"]: _number([str(word) for word in one["command"]]) for one in service.counts}


def _number(command: Sequence[str]) -> int | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return int(done.stdout.strip()) if done.returncode == 0 else None
    except (OSError, ValueError):
        return None


def finish(service: Service) -> None:
    """Do what the service wants after the copy, unless that was done; every command gets its turn."""
    if not _mark(service).exists():
        return
    failed = []
    for command in service.after:
        try:
            _run(command, "after_failed")
        except BackupError as error:  # noqa: PERF203  each gets its turn
            failed.append(error)
    shutil.rmtree(service.dumps, ignore_errors=True)  # the copy is made: what stays here goes with the next one
    _mark(service).unlink()
    if failed:
        raise failed[0]


def _mark(service: Service) -> Path:
    """Return the file that stands as long as the commands after the copy are owed."""
    return WORK / f"{service.service}.begun"


def _run(command: Sequence[str], code: str) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BackupError(code, command=list(command), says=str(error)) from error
    if done.returncode:
        says = (done.stderr or done.stdout).strip()[-300:]
        raise BackupError(code, command=list(command), ended=done.returncode, says=says)


# --- a run ----------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What the timer does: every service, one after the other."""

    settings: Settings
    state: dict[str, Any] = field(default_factory=lambda: read_json(state_file()))

    def go(self, names: Sequence[str], anew: bool) -> dict[str, Any]:
        """Back up services; one that fails does not keep the next from its turn."""
        if self.settings.bypass_lock:
            raise refused("read_only")
        services = [self.settings.service(name) for name in names] or list(self.settings.services.values())
        for service in self.settings.services.values():
            with contextlib.suppress(BackupError):  # it runs again before its own copy, and is said there
                finish(service)
        self._refuse_wrong_clock(max((one.get("good") or 0 for one in self._known().values()), default=0))
        self._open_all(anew)
        for service in services:
            self._known()[service.service] = self._one(service)
            write_json(state_file(), self.state)
        return {"services": {service.service: self._known()[service.service] for service in services}}

    def _known(self) -> dict[str, Any]:
        known: dict[str, Any] = self.state.setdefault("services", {})
        return known

    def _refuse_wrong_clock(self, newest: float) -> None:
        now = time.time()
        if now < newest - CLOCKS_APART and newest > self.state.get("accepted", 0):
            raise refused("clock_behind", newest=int(newest), now=int(now))

    def _open_all(self, anew: bool) -> None:
        """See that a repository can be written at all, and make those that are new; else nothing is even stopped."""
        troubles = []
        for path in self.settings.repositories:
            try:
                self._open(Repository(self.settings, path), anew)
            except BackupError as error:  # noqa: PERF203  each gets its turn
                troubles.append(error)
        self.state["error"] = {**troubles[0].answer(), "at": int(time.time())} if troubles else None
        write_json(state_file(), self.state)
        if len(troubles) == len(self.settings.repositories):
            raise troubles[0]

    def _open(self, repository: Repository, anew: bool) -> None:
        known = self.state.setdefault("repositories", [])
        try:
            archives = repository.archives()
        except BackupError as error:
            if error.code != "repository_absent":
                raise
            if repository.path in known and not anew:
                raise refused("repository_gone", repository=repository.path) from error
            repository.borg("init", "--encryption", "repokey-blake2", repository.path, reads=False)
            archives = []
        if archives:
            self._refuse_wrong_clock(seconds_of(archives[-1]["time"]))
        if repository.path not in known:
            known.append(repository.path)

    def _one(self, service: Service) -> dict[str, Any]:
        """Back one service up; return what is remembered of it."""
        started = time.time()
        before = self._known().get(service.service, {})
        trouble_file = WORK / f"{service.service}.trouble"
        trouble_file.unlink(missing_ok=True)
        config = f"/etc/borgmatic.d/{service.service}.yaml"
        line = [self.settings.borgmatic, "--config", config, "create", "--json"]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        try:
            done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
            error = None if done.returncode == 0 else read_json(trouble_file) or trouble(done.stderr)
            made = created(done.stdout)
        except OSError as problem:
            error, made = {"code": "borgmatic_absent", "says": str(problem)}, {}
        if error is None and not made:
            error = {"code": "archive_absent"}
        trouble_file.unlink(missing_ok=True)
        ok = error is None
        kept = {key: before.get(key) for key in ("archive", "files", "bytes")}
        return {
            **(made or kept),
            "started": int(started),
            "seconds": round(time.time() - started, 1),
            "ok": ok,
            "error": error,
            "good": int(started) if ok else before.get("good"),
        }


def accept(settings: Settings) -> dict[str, Any]:
    """Take the clock and the store as they are, since a person has looked: return until when archives are dated.

    It is for a clock that once ran ahead, for archives that an attacker dated in the future, and for a repository that
    the store put back to an older generation: borg remembers a younger one and refuses it.
    """
    if (WORK / "borg").exists():
        shutil.rmtree(WORK / "borg")
    state = read_json(state_file())
    times = [one.get("good") or 0 for one in state.get("services", {}).values()]
    for path in settings.repositories:
        times += [seconds_of(one["time"]) for one in Repository(settings, path).archives()[-1:]]
    state["accepted"] = max(times, default=0)
    write_json(state_file(), state)
    return {"accepted": state["accepted"]}


def created(output: str) -> dict[str, Any]:
    """Read from borgmatic's answer which archive was made, and how much is in it."""
    for line in output.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            archive = json.loads(line[line.index("[{") :] if "[{" in line else line)[0]["archive"]
            stats = archive["stats"]
            size = {"bytes": stats["original_size"], "new_bytes": stats["deduplicated_size"]}
            return {"archive": archive["name"], "files": stats["nfiles"], **size}
    return {}


# --- the commands ---------------------------------------------------------------------------------------------------


def findings(settings: Settings, state: Mapping[str, Any], since: float, now: float) -> list[dict[str, Any]]:
    """Say what is wrong with the backups of this host, which has had them since a time."""
    found, known = [], state.get("services", {})
    if state.get("error"):
        found.append({"service": None, **state["error"]})
    for name in settings.services:
        one = known.get(name, {})
        hours = (now - (one.get("good") or since)) / 3600
        if one.get("error"):
            found.append({"service": name, **one["error"]})
        if hours > settings.fresh_hours:
            found.append({"service": name, "code": "late" if one.get("good") else "never", "hours": int(hours)})
    return found


def services(settings: Settings) -> list[dict[str, Any]]:
    """Return what is backed up, and the last good backup of each; none at all on a host that never made one."""
    known = read_json(state_file()).get("services", {})
    return [
        {
            "service": one.service,
            "label": one.label,
            "paths": list(one.paths),
            "reference": list(one.reference),
            "databases": list(one.databases),
            "last": known.get(one.service) if known.get(one.service, {}).get("good") else None,
        }
        for one in settings.services.values()
    ]


def remember_verified(record: Any, now: float) -> dict[str, Any]:
    """Keep which members a backup was seen to hold; of two backups of a member the newer one counts."""
    if not isinstance(record, dict) or not record:
        raise refused("bad_request")
    for one in record.values():
        taken = one.get("taken") if isinstance(one, dict) else None
        holds = one.get("holds") if isinstance(one, dict) else None
        if not isinstance(taken, (int, float)) or not isinstance(holds, dict) or taken > now + CLOCKS_APART:
            raise refused("bad_request")
    known = read_json(VERIFIED)
    newer = {login: one for login, one in record.items() if one["taken"] >= known.get(login, {}).get("taken", 0)}
    write_json(VERIFIED, {**known, **newer})
    return {"verified": len(newer)}


def paper_key(settings: Settings) -> dict[str, str]:
    """Return the key of the repository as it is printed: with the passphrase it opens the backups."""
    path = settings.repositories[0]
    return {"repository": path, "paper": Repository(settings, path).borg("key", "export", "--paper", path)}
