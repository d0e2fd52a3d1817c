# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations of Borg repositories: copies on the store that neither a client nor whoever prunes can reach.

Borg writes a segment once and never again, so a generation is hard links to the segments of one transaction, beside
real copies of the few files that Borg rewrites. A segment that a generation holds is given to root: even a shell as the
client's user could unlink it from the repository, not change it. The keeper's door holds a lock that excludes us, for
it alone can delete segments; clients may write while we link.
"""

from __future__ import annotations

import configparser
import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
import struct
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/infini-backup-store/config.json")
STATE = Path("/var/lib/infini-backup-store/state.json")
ROOT = Path("/srv/backups")
READERS = "backup-reader"
STAMP = "%Y-%m-%dT%H-%M-%S"
AT_ONCE = 2  # how many generations one run removes at most: a clock that jumps must not empty the store
BUSY = 3600  # seconds that the keeper is waited for
PATIENCE = 10  # seconds until a transaction that ends just now has its index
OVERDUE = timedelta(hours=36)
FULL = 0.9
DISK = 0.1
# The last entry of a segment that ends a transaction: checksum, size and tag.
_COMMIT = struct.pack("<IB", 9, 2)
COMMIT = struct.pack("<I", zlib.crc32(_COMMIT)) + _COMMIT
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}


class StoreError(Exception):
    """Why a repository has no new generation, as a code."""


def bytes_of(quota: str) -> int:
    """Return what Borg understands by 50G."""
    return int(float(quota.upper().rstrip("KMGTP")) * UNITS[quota.upper().lstrip("0123456789.")])


def expired(names: Sequence[str], days: int) -> list[str]:
    """Return the generations that go: the oldest few of those that are too old. The newest two stay for ever."""
    names = sorted(names)
    if len(names) <= 2:
        return []
    # Measured from the newest generation, not from a clock that may be wrong.
    limit = (datetime.strptime(names[-1], STAMP) - timedelta(days=days)).strftime(STAMP)
    return [name for name in names[:-2] if name < limit][:AT_ONCE]


def findings(clients: Mapping[str, str], state: Mapping[str, Mapping[str, Any]], now: datetime) -> list[str]:
    """Return what is wrong, as `CLIENT CODE`."""
    found = []
    for client, quota in clients.items():
        known = state.get(client, {})
        if known.get("code", "never") not in ("new", "same", "empty"):
            found.append(f"{client} {known.get('code', 'never')}")
        elif now - datetime.strptime(known["at"], STAMP) > OVERDUE:
            found.append(f"{client} overdue")
        if known.get("key") != known.get("first_key"):
            found.append(f"{client} key_changed")
        if known.get("bytes", 0) > FULL * bytes_of(quota):
            found.append(f"{client} nearly_full")
    return found


class Repository:
    """One client's folder on the store."""

    def __init__(self, client: str, root: Path = ROOT) -> None:
        self.client, self.folder = client, root / client
        self.live, self.generations = self.folder / "live", self.folder / "generations"

    def prepare(self) -> None:
        """Make the folders; the client owns the repository and nothing around it."""
        user, readers = pwd.getpwnam(f"backup-{self.client}"), grp.getgrnam(READERS).gr_gid
        wanted = (
            (self.folder.parent, 0, 0, 0o755),
            (self.folder, 0, 0, 0o755),
            (self.live, user.pw_uid, user.pw_gid, 0o750),
            (self.generations, 0, readers, 0o750),
        )
        for folder, owner, group, mode in wanted:
            if not folder.exists():
                folder.mkdir()
                os.chown(folder, owner, group)
                folder.chmod(mode)
        lock = self.folder / "keeper.lock"
        lock.touch(mode=0o644)
        lock.chmod(0o644)

    def names(self) -> list[str]:
        """Return the finished generations, oldest first."""
        return sorted(entry.name for entry in self.generations.iterdir() if re.fullmatch(r"[-0-9T]{19}", entry.name))

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Exclude the keeper and another run."""
        end = time.monotonic() + BUSY
        with (self.folder / "keeper.lock").open() as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise StoreError("busy") from None
                    time.sleep(0.5)
            yield

    def take(self, now: datetime) -> dict[str, Any]:
        """Make a generation, unless the newest one is the same; return what is to be remembered."""
        names = self.names()
        name = now.strftime(STAMP)
        if names and name <= names[-1]:
            raise StoreError("clock")
        new = self.generations / ".new"
        with self._undisturbed():
            shutil.rmtree(new, ignore_errors=True)  # what a killed run left
            transaction = settled(self.live)
            if transaction is None:
                if names:
                    raise StoreError("emptied")
                return {"code": "empty"}
            config = read_regular(self.live / "config")
            told = {"key": key_digest(config), "transaction": transaction}
            last = self.generations / names[-1] if names else None
            if last and (last / f"index.{transaction}").exists() and (last / "config").read_bytes() == config:
                return {"code": "same", **told, "generation": names[-1]}
            told["bytes"] = copy(self.live, new, transaction)
            os.sync()
            new.rename(self.generations / name)
        return {"code": "new", **told, "generation": name}

    def expire(self, days: int) -> list[str]:
        """Remove generations that are too old; return their names."""
        gone = expired(self.names(), days)
        for name in gone:
            shutil.rmtree(self.generations / name)
        return gone

    def revive(self, name: str, now: datetime) -> Path:
        """Put a generation in the repository's place; return where that one stands now."""
        if name not in self.names():
            raise StoreError("no_such_generation")
        source, new, aside = self.generations / name, self.folder / ".new", self.folder / f"aside-{now.strftime(STAMP)}"
        user = pwd.getpwnam(f"backup-{self.client}")
        with self._undisturbed():
            shutil.rmtree(new, ignore_errors=True)  # what a killed run left, mostly nothing
            transaction = settled(source)
            if transaction is None:
                raise StoreError("empty")
            copy(source, new, transaction)
            for path in (new, *new.iterdir(), *(new / "data").iterdir()):  # segments stay root's
                os.chown(path, user.pw_uid, user.pw_gid)
            os.sync()
            self.live.rename(aside)
            os.chown(aside, 0, 0)
            aside.chmod(0o700)
            new.rename(self.live)
        return aside


def settled(repository: Path) -> int | None:
    """Return the last transaction, once its index is there, too; nothing of an empty repository."""
    end = time.monotonic() + PATIENCE
    while True:
        transaction = transaction_of(repository)
        segments = sorted(segments_of(repository), reverse=True)
        if not segments:
            return None
        # As Borg itself finds the last transaction. Where the index is behind, it was killed in between.
        if next((number for number, path in segments if ends_transaction(path)), None) == transaction:
            return transaction
        if time.monotonic() > end:
            raise StoreError("unsettled")
        time.sleep(0.5)


def transaction_of(repository: Path) -> int | None:
    """Return the newest transaction that has its index, hints and checksums."""
    found: dict[int, set[str]] = {}
    for entry in repository.iterdir():
        match = re.fullmatch(r"(index|hints|integrity)\.([0-9]+)", entry.name)
        if match:
            found.setdefault(int(match[2]), set()).add(match[1])
    return max((number for number, kinds in found.items() if len(kinds) == 3), default=None)


def segments_of(repository: Path) -> Iterator[tuple[int, Path]]:
    """Yield the segments by number."""
    for path, _folders, files in os.walk(repository / "data"):
        yield from ((int(name), Path(path, name)) for name in files if name.isdecimal())


def ends_transaction(segment: Path) -> bool:
    """Tell whether a segment's last entry is a commit."""
    try:
        with segment.open("rb") as file:
            file.seek(-len(COMMIT), os.SEEK_END)
            return file.read() == COMMIT
    except OSError:  # gone or too short
        return False


def copy(source: Path, target: Path, transaction: int) -> int:
    """Make a repository as it is at a transaction from another; return the bytes of its segments.

    Nothing but plain files is followed or copied: the source belongs to a client.
    """
    target.mkdir()
    group = source.stat().st_gid
    total = 0
    for entry in source.iterdir():
        name = entry.name
        number = re.fullmatch(r"(?:index|hints|integrity)\.([0-9]+)", name)
        if name.startswith("lock.") or name.endswith(".tmp") or (number and int(number[1]) != transaction):
            continue
        if stat.S_ISREG(entry.lstat().st_mode):
            write(target / name, read_regular(entry), group)
    for path, _folders, files, here in os.fwalk(source / "data"):
        folder = target / Path(path).relative_to(source)
        folder.mkdir()
        os.chown(folder, 0, group)
        folder_fd = os.open(folder, os.O_DIRECTORY)
        try:
            for name in files:
                if name.isdecimal() and int(name) <= transaction:
                    total += link(name, here, folder_fd)
        finally:
            os.close(folder_fd)
    os.chown(target, 0, group)
    return total


def link(name: str, here: int, there: int) -> int:
    """Give a segment to root and link that very file; return its size."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise StoreError("strange_file")
        if about.st_uid:
            os.fchown(fd, 0, -1)
            os.fchmod(fd, 0o640)
        # By its descriptor: what the name means may have changed since it was opened.
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=there, follow_symlinks=True)
        return about.st_size
    finally:
        os.close(fd)


def read_regular(path: Path) -> bytes:
    """Return what a plain file holds; a link is refused."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StoreError("strange_file")
        return file.read()


def write(path: Path, content: bytes, group: int) -> None:
    """Write a file that the reader may read."""
    with path.open("xb") as file:
        os.fchown(file.fileno(), 0, group)
        os.fchmod(file.fileno(), 0o640)
        file.write(content)


def key_digest(config: bytes) -> str:
    """Return a digest of the key that stands in a repository's configuration."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(config.decode())
    return hashlib.sha256(parser.get("repository", "key", fallback="").encode()).hexdigest()


# --- the command ----------------------------------------------------------------------------------------------------


def remembered() -> dict[str, dict[str, Any]]:
    """Return what the last run noted."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def remember(state: Mapping[str, Any]) -> None:
    """Note it for the next run and for `check`."""
    new = STATE.with_suffix(".new")
    new.write_text(json.dumps(state, indent=1), encoding="utf-8")
    new.replace(STATE)


def say(answer: Any) -> None:
    """Answer whoever called, in JSON."""
    sys.stdout.write(json.dumps(answer, indent=1) + "\n")


def generation(clients: Sequence[str], days: int) -> int:
    """Make a generation of each repository, and remove those that are too old; one that fails stops no other."""
    state = remembered()
    for client in clients:
        repository, now = Repository(client), datetime.now(timezone.utc)
        before = state.get(client, {})
        try:
            told = repository.take(now)
            told["expired"] = repository.expire(days)
        except StoreError as error:
            told = {"code": str(error)}
        except (OSError, ValueError, configparser.Error) as error:
            told = {"code": "failed", "error": str(error)}
        state[client] = {**before, **told, "at": now.strftime(STAMP)}
        if "key" in told:
            state[client].setdefault("first_key", told["key"])
        remember(state)
    say({client: state[client] for client in clients})
    return int(any(state[client]["code"] not in ("new", "same", "empty") for client in clients))


def check(clients: Mapping[str, str]) -> int:
    """Print what is wrong on one line, which `infini verify` shows."""
    there = sorted(entry.name for entry in ROOT.iterdir() if entry.is_dir())
    wrong = findings(clients, remembered(), datetime.now(timezone.utc).replace(tzinfo=None))
    disk = shutil.disk_usage(ROOT)
    if disk.free < DISK * disk.total:
        wrong.append("disk nearly_full")
    left = [f"{name} undeclared" for name in there if name not in clients]
    sys.stdout.write((", ".join(wrong or left) or "ok") + "\n")
    return int(bool(wrong))


def main(arguments: Sequence[str]) -> int:
    """Be the command: prepare, generation [CLIENT…], check, accept CLIENT, revive CLIENT GENERATION."""
    os.umask(0o027)
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    clients = config["clients"]
    verb, *words = arguments or [""]
    if verb == "prepare":
        state = remembered()
        for client in clients:
            Repository(client).prepare()
            state.setdefault(client, {"code": "empty", "at": datetime.now(timezone.utc).strftime(STAMP)})
        remember(state)
        return 0
    if verb == "generation" and set(words) <= set(clients):
        return generation(words or list(clients), config["days"])
    if verb == "check" and not words:
        return check(clients)
    if verb == "accept" and len(words) == 1 and words[0] in clients:
        state = remembered()
        state.get(words[0], {}).pop("first_key", None)
        remember(state)
        return 0
    if verb == "revive" and len(words) == 2 and words[0] in clients:
        try:
            say({"aside": str(Repository(words[0]).revive(words[1], datetime.now(timezone.utc)))})
        except StoreError as error:
            say({"code": str(error)})
            return 2
        return 0
    sys.stderr.write(f"{main.__doc__}\n")
    return 2
