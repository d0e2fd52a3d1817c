# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has happened to each domain, as a file that only grows: one JSON object a line, one folder a domain.

Beside it stands all else that is known of the domain: exports, what its member pasted, what the probe saw. An event is
there when its line ends with a newline; a line that a crash cut short never happened. One volunteer at a time holds a
domain; the lock ends with the process or the SSH session that holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from infini.errors import RefusedError, UnreachableError
from infini.hosts import Connection
from infini.phrase import Phrase

EVENTS = "events.jsonl"
_NAME = re.compile(r"[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9])?")
_DOCUMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SECRET = re.compile(r"auth[_-]?(info|code|id)|token|passw|secret|api[_-]?key|authorization|bearer", re.IGNORECASE)
_HARMLESS = {
    "auth_code_sha256": re.compile(r"[0-9a-f]{1,12}"),  # enough to tell two codes apart
    "auth_code_expires": re.compile(r"[0-9:.TZ+-]*"),
}
_SECRET_VALUE = re.compile(r"\b(Bearer|Apikey|Basic)\s+\S{8,}", re.IGNORECASE)


@dataclass(frozen=True)
class Event:
    """One thing that happened. `who` is a person's name; empty when the tool saw it by itself. `data` is JSON."""

    at: datetime
    domain: str
    who: str
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the event as one line of JSON with its newline; raise RefusedError if it looks like a secret."""
        refuse_secrets(self.kind, self.data)
        body = {
            "at": self.at.astimezone(UTC).isoformat(),
            "domain": self.domain,
            "who": self.who,
            "kind": self.kind,
            "data": self.data,
        }
        return json.dumps(body, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, line: str) -> Event:
        """Return the event of a line; raise ValueError when it is none."""
        body = json.loads(line)
        try:
            at = datetime.fromisoformat(body["at"])
            return cls(at, str(body["domain"]), str(body["who"]), str(body["kind"]), dict(body["data"]))
        except (KeyError, TypeError) as error:
            raise ValueError("not an event") from error


def refuse_secrets(where: str, data: Any) -> None:
    """Raise RefusedError if a field of `data`, at any depth, is named or written like a secret."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            _refuse_field(where, str(key), value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            refuse_secrets(where, value)
    elif isinstance(data, str) and _SECRET_VALUE.search(data):
        raise RefusedError(f"Event “{where}”: a text holds what looks like a token; write it without the token")


def _refuse_field(where: str, key: str, value: Any) -> None:
    harmless = _HARMLESS.get(key)
    if harmless:
        if value is not None and not harmless.fullmatch(str(value)):
            raise RefusedError(
                f"Event “{where}”: “{key}” holds more than it may; only a short SHA-256 prefix or a date"
            )
    elif _SECRET.search(key) and not isinstance(value, bool):
        raise RefusedError(f"Event “{where}”: the field “{key}” looks like a secret; secrets belong in the vault")
    else:
        refuse_secrets(where, value)


class Store(Protocol):
    """Where events and the documents that prove them live, for their owner's eyes only (0600)."""

    def domains(self, holding: str = EVENTS) -> list[str]:
        """Return the domains that have events, or a document of that name, sorted."""

    def read(self, domain: str) -> list[Event]:
        """Return the domain's events, oldest first; raise RefusedError when the file is damaged."""

    def append(self, event: Event) -> None:
        """Add an event; it is on disk when this returns."""

    def add(self, domain: str, name: str, lines: str) -> None:
        """Add whole lines to a document that only grows; they are on disk when this returns."""

    def keep(self, domain: str, name: str, text: str) -> None:
        """Keep a document (an export, a comparison) beside the events, whole or not at all."""

    def kept(self, domain: str, name: str) -> str | None:
        """Return a document, None when there is none of that name."""

    def lock(self, domain: str, who: str) -> AbstractContextManager[None]:
        """Hold a domain (or any name) alone; raise RefusedError, naming the holder, when somebody has it."""


def _checked(domain: str) -> str:
    if not _NAME.fullmatch(domain):
        raise RefusedError(f"“{domain}” is not a domain name in ASCII, lower case, without its final dot: write it so")
    return domain


def _document(name: str) -> str:
    if not _DOCUMENT.fullmatch(name) or name == EVENTS:
        raise RefusedError(f"“{name}” cannot name a document: letters, digits, dots and hyphens")
    return name


def _lines(text: str) -> str:
    if not text.endswith("\n"):
        raise RefusedError("Only whole lines are added to a document: end them with a newline")
    return text


def _events(text: str, where: str) -> list[Event]:
    """Parse whole lines; what follows the last newline never happened."""
    found = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            found.append(Event.parse(line))
        except ValueError as error:
            raise RefusedError(
                Phrase(
                    "{where}, line {number} is damaged: restore the file from the backup, then run the command again",
                    where=where,
                    number=number,
                )
            ) from error
    return found


def _busy(domain: str, holder: str) -> RefusedError:
    return RefusedError(
        Phrase(
            "{domain} is in the hands of {holder}: wait for the end, then try again",
            domain=domain,
            holder=holder or Phrase("somebody else"),
        )
    )


class LocalStore:
    """Events in a folder of this machine. Without `durable` a power cut may lose the last ones: rehearsals only."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder, self._durable = folder, durable

    def domains(self, holding: str = EVENTS) -> list[str]:
        """Return the domains that have events, or a document of that name, sorted."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{holding}"))

    def read(self, domain: str) -> list[Event]:
        """Return the domain's events, oldest first."""
        path = self.folder / _checked(domain) / EVENTS
        return _events(path.read_text(encoding="utf-8"), str(path)) if path.exists() else []

    def append(self, event: Event) -> None:
        """Add an event, mending first what a crash left half written."""
        self._append(event.domain, EVENTS, event.line())

    def add(self, domain: str, name: str, lines: str) -> None:
        """Add whole lines to a document, mending first what a crash left half written."""
        self._append(domain, _document(name), _lines(lines))

    def _append(self, domain: str, name: str, text: str) -> None:
        left = text.encode()
        descriptor = os.open(self._home(domain) / name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _mend(descriptor)
            while left:
                left = left[os.write(descriptor, left) :]
            if self._durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def keep(self, domain: str, name: str, text: str) -> None:
        """Keep a document beside the events."""
        path = self._home(domain) / _document(name)
        descriptor, beside = tempfile.mkstemp(prefix=f".{name}.", dir=path.parent)  # 0600, and no other writer's
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
            Path(beside).replace(path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

    def kept(self, domain: str, name: str) -> str | None:
        """Return a document, None when there is none of that name."""
        path = self.folder / _checked(domain) / _document(name)
        return path.read_text(encoding="utf-8") if path.exists() else None

    @contextmanager
    def lock(self, domain: str, who: str) -> Iterator[None]:
        """Hold a domain alone as long as the block (and the process) lasts."""
        path = self.folder / f".{_checked(domain)}.lock"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("a+", encoding="utf-8") as file:
            path.chmod(0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(domain, path.read_text(encoding="utf-8").strip()) from None
            file.truncate(0)
            file.write(who)
            file.flush()
            try:
                yield
            finally:
                # Closing alone is not enough: a child that another thread is starting just now still has the file.
                fcntl.flock(file, fcntl.LOCK_UN)

    def _home(self, domain: str) -> Path:
        home = self.folder / _checked(domain)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return home


def _mend(descriptor: int) -> None:
    """Cut off a last line without its newline: nobody was told that it was written."""
    size = os.fstat(descriptor).st_size
    start, tail = size, b""
    while start and b"\n" not in tail:
        start = max(0, start - 4096)
        tail = os.pread(descriptor, size - start, start)
    whole = start + tail.rfind(b"\n") + 1
    if whole != size:
        os.ftruncate(descriptor, whole)


_HOLD = 'umask 077; mkdir -p "$1"; f="$1/.$2.lock"; exec 9>>"$f"; flock -n 9 || { cat "$f"; exit 75; }; \
printf %s "$3" >"$f"; echo locked; exec cat >/dev/null'
# What arrives is taken aside first and measured: a connection that ends half way leaves nothing.
_TAKE = """set -eu; umask 077; mkdir -p "$1/$2"; t=$(mktemp "$1/$2/.$3.XXXXXX"); trap 'rm -f "$t"' EXIT; \
trap 'exit 1' HUP INT TERM PIPE; cat >"$t"; [ "$(wc -c <"$t")" -eq "$4" ]; f="$1/$2/$3"; """
_APPEND = f"""{_TAKE}exec 9>>"$f"; flock 9; n=$(wc -l <"$f"); s=$(head -n "$n" "$f" | wc -c); \
[ "$s" -eq "$(wc -c <"$f")" ] || truncate -s "$s" "$f"; cat "$t" >&9; sync "$f"; echo kept"""
_KEEP = f"""{_TAKE}sync "$t"; mv "$t" "$f"; sync "$1/$2"; echo kept"""
_READ = '[ -e "$1/$2/$3" ] || exit 44; exec cat "$1/$2/$3"'
_LIST = 'cd "$1" 2>/dev/null || exit 0; for f in */"$2"; do [ ! -e "$f" ] || echo "${f%/*}"; done'


class SshStore:
    """Events on the host that the volunteers share (group `control`), reached over SSH; the folder is backed up."""

    def __init__(self, connection: Connection, folder: str = "/var/lib/infini/domains") -> None:
        self._connection, self._folder = connection, folder

    def domains(self, holding: str = EVENTS) -> list[str]:
        """Return the domains that have events, or a document of that name, sorted."""
        return sorted(self._run(_LIST, holding).split())

    def read(self, domain: str) -> list[Event]:
        """Return the domain's events, oldest first."""
        text = self._run(_READ, _checked(domain), EVENTS, absent="")
        return _events(text, f"{self._connection.host}:{self._folder}/{domain}/{EVENTS}")

    def append(self, event: Event) -> None:
        """Add an event; the other side mends, writes and syncs under its lock."""
        self._write(_APPEND, event.domain, EVENTS, event.line())

    def add(self, domain: str, name: str, lines: str) -> None:
        """Add whole lines to a document; the other side mends, writes and syncs under its lock."""
        self._write(_APPEND, domain, _document(name), _lines(lines))

    def keep(self, domain: str, name: str, text: str) -> None:
        """Keep a document beside the events."""
        self._write(_KEEP, domain, _document(name), text)

    def kept(self, domain: str, name: str) -> str | None:
        """Return a document, None when there is none of that name."""
        missing = "\0"
        text = self._run(_READ, _checked(domain), _document(name), absent=missing)
        return None if text == missing else text

    @contextmanager
    def lock(self, domain: str, who: str) -> Iterator[None]:
        """Hold a domain alone as long as the SSH session lasts."""
        session = subprocess.Popen(
            self._command(_HOLD, _checked(domain), who, alone=True),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert session.stdout  # noqa: S101  a pipe
            answer = session.stdout.readline().strip()
            if answer != "locked":
                raise _busy(domain, answer) if session.wait() == 75 else self._unreachable()
            yield
        finally:
            session.communicate()  # the end of its input ends the remote side

    def _write(self, script: str, domain: str, name: str, text: str) -> None:
        # The remote side's last word proves that the text arrived whole and was synced.
        if self._run(script, _checked(domain), name, str(len(text.encode())), text=text).strip() != "kept":
            raise self._unreachable()

    def _command(self, script: str, *arguments: str, alone: bool = False) -> list[str]:
        options = ["-o", "BatchMode=yes", *(["-o", "ControlMaster=no", "-o", "ControlPath=none"] if alone else [])]
        words = ["sh", "-c", script, "store", self._folder, *arguments]
        remote = ("sudo -n " if self._connection.become else "") + shlex.join(words)
        return [*self._connection.ssh(*options), remote]

    def _run(self, script: str, *arguments: str, text: str = "", absent: str | None = None) -> str:
        done = subprocess.run(
            self._command(script, *arguments), input=text, capture_output=True, text=True, check=False
        )
        if done.returncode == 44 and absent is not None:
            return absent
        if done.returncode:
            raise self._unreachable()
        return done.stdout

    def _unreachable(self) -> UnreachableError:
        to = self._connection
        return UnreachableError(
            Phrase(
                "{host} ({address}) did not keep the domains' events: nothing more was done. Is it up?",
                host=to.host,
                address=to.address,
            )
        )
