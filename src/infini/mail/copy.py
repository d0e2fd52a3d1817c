# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy a mailbox from another host's IMAP to ours, folder by folder, with counts and checksums of both.

Nothing is deleted on either side, and flags and dates come along. What was copied is written down at once, in a file of
its own; a copy that was cut goes on there, however often the other server hangs up. Where a message was handed over and
the cut came before it was written down, it is found again on our side by its content: no run copies anything twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from imapclient import IMAPClient, tls
from imapclient.exceptions import IMAPClientAbortError, IMAPClientError, LoginError

from infini.errors import FailedError, RefusedError, UnreachableError

TIMEOUT = 60
PATIENCE = 20
"""How often in a row a server may hang up before one more message is done."""
AT_ONCE = 4_000_000
"""Bytes that are fetched at once; a larger message comes alone, and each cut that came before a message halves it."""
NUMBERS = 500
"""Messages that one command names at most: servers bound the length of a line."""
SPECIAL = (b"\\Sent", b"\\Drafts", b"\\Junk", b"\\Trash", b"\\Archive")
Cut = (IMAPClientAbortError, OSError)
Tell = Callable[[str, int, int], None]
"""Called with a folder, how many of its messages are copied, and how many it has."""


@dataclass(frozen=True)
class Account:
    """A mailbox, and how it is reached: always by TLS, with the certificate checked.

    `address` is where the server is, if its name does not lead there (yet).
    """

    host: str
    user: str
    password: str = field(repr=False)
    port: int = 993
    address: str = ""
    trust: ssl.SSLContext = field(default_factory=ssl.create_default_context, repr=False)

    @contextlib.contextmanager
    def open(self) -> Iterator[IMAPClient]:
        """Log in for a while. Raise RefusedError for a password that is wrong, UnreachableError for no such server."""
        try:
            client = _Client(self)
        except (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError) as error:
            raise UnreachableError(f"{self.host}, port {self.port}: {_said(error)}. Is it the right name?") from error
        client.normalise_times = False  # a message's time comes with its zone
        try:
            client.login(self.user, self.password)
            yield client
        except LoginError as error:
            raise RefusedError(f"{self.host} lets {self.user} not in ({_said(error)}): check the password") from error
        finally:
            with contextlib.suppress(*Cut, IMAPClientError):
                client.logout()
            with contextlib.suppress(OSError):
                client.shutdown()


class _Client(IMAPClient):  # type: ignore[misc]  # it ships no types
    def __init__(self, account: Account) -> None:
        self._address = account.address or account.host
        super().__init__(account.host, account.port, ssl_context=account.trust, timeout=TIMEOUT)

    def _create_IMAP4(self) -> tls.IMAP4_TLS:  # noqa: N802  the library's name
        return _Tls(self._address, self.host, self.port, self.ssl_context)


class _Tls(tls.IMAP4_TLS):  # type: ignore[misc]  # likewise
    def __init__(self, address: str, host: str, port: int, trust: ssl.SSLContext) -> None:
        self._address = address
        super().__init__(host, port, trust, TIMEOUT)

    def _create_socket(self, timeout: float | None = None) -> ssl.SSLSocket:
        connection = socket.create_connection((self._address, self.port), timeout or TIMEOUT)
        trust: ssl.SSLContext = self.ssl_context
        return trust.wrap_socket(connection, server_hostname=self.host)


class Copied(NamedTuple):
    """A message of the other side that stands on ours."""

    digest: str
    uid: int
    """On our side; 0 where our server does not tell."""


class Journal:
    """What was copied, by the folder's name and generation and the message's number in it."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self._file = path, file
        self.known: dict[tuple[str, int], dict[int, Copied]] = {}

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, source: Account, target: Account) -> Iterator[Journal]:
        """Read the journal of a copy, or begin it. Raise RefusedError for that of another one, and for one in use."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedError(f"{target.user} is being copied by another run already: wait for its end") from None
            journal = cls(path, file)
            journal._read({"from": f"{source.user} at {source.host}", "to": f"{target.user} at {target.host}"})
            yield journal

    def _read(self, who: dict[str, str]) -> None:
        whole = self._file.read()
        # A last line without its end was cut while it was written: that message is found again by its content.
        complete = whole[: whole.rfind("\n") + 1]
        self._file.seek(len(complete.encode()))
        self._file.truncate()
        lines = [json.loads(line) for line in complete.splitlines()]
        if not lines:
            self._write(who)
        elif lines[0] != who:
            of = f"from {lines[0].get('from')} to {lines[0].get('to')}"
            raise RefusedError(f"{self.path} is of another copy, {of}: move it away")
        for line in lines[1:]:
            self._remember(**line)

    def _remember(self, folder: str, generation: int, uid: int, digest: str, to: int) -> None:
        self.known.setdefault((folder, generation), {})[uid] = Copied(digest, to)

    def add(self, folder: str, generation: int, uid: int, copied: Copied) -> None:
        """Write a message down."""
        line: dict[str, Any] = {"folder": folder, "generation": generation, "uid": uid}
        line |= {"digest": copied.digest, "to": copied.uid}
        self._remember(**line)
        self._write(line)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


@dataclass
class Result:
    """What a copy came to. `missing` and `refused` say which message, and of a refused one why."""

    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    copied: int = 0
    cuts: int = 0
    missing: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        """How many messages the other side has."""
        return sum(int(folder["messages"]) for folder in self.folders.values())

    @property
    def ok(self) -> bool:
        """Whether ours has them all."""
        return not self.missing and not self.refused

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        refused = [{"folder": folder, "uid": uid, "says": says} for (folder, uid), says in self.refused.items()]
        return {
            "ok": self.ok,
            "messages": self.messages,
            "copied": self.copied,
            "cuts": self.cuts,
            "folders": self.folders,
            "missing": self.missing,
            "refused": refused,
        }


@dataclass
class Copy:
    """One mailbox on its way."""

    source: Account
    target: Account
    journal: Journal
    tell: Tell
    result: Result = field(default_factory=Result)
    at_once: int = AT_ONCE

    def run(self) -> Result:
        """Copy what is not there yet, then compare both sides whole.

        Raise RefusedError for a wrong password and a full mailbox, UnreachableError for a server that answers no more.
        """
        for step in (self._bring_all, self._compare_all):
            self._through_cuts(step)
        return self.result

    @property
    def _progress(self) -> int:
        return sum(map(len, self.journal.known.values())) + len(self.result.folders)

    def _through_cuts(self, step: Callable[[IMAPClient, IMAPClient], None]) -> None:
        in_vain = 0
        while True:
            before = self._progress
            try:
                with self.source.open() as there, self.target.open() as here:
                    return step(there, here)
            except Cut as error:
                self.result.cuts += 1
                in_vain = 0 if self._progress > before else in_vain + 1
                self.at_once >>= min(in_vain, 1)
                if in_vain >= PATIENCE:
                    raise UnreachableError(
                        f"{self.source.host} or {self.target.host} hangs up again and again ({_said(error)}). Nothing"
                        " is lost: run the same command again later"
                    ) from error
                time.sleep(min(0.2 * in_vain, 5))

    def _folders(self, there: IMAPClient, here: IMAPClient) -> Iterator[tuple[str, str]]:
        """Yield each folder's name there and here. Sent mail goes to sent mail, whatever either side calls it."""
        ours = here.list_folders()
        special = {use: name for flags, _delimiter, name in ours for use in SPECIAL if use in flags}
        (prefix, delimiter), (their_prefix, _theirs) = _namespace(here), _namespace(there)
        for flags, separator, name in sorted(there.list_folders(), key=lambda one: str(one[2])):
            if b"\\Noselect" in flags or b"\\NonExistent" in flags:
                continue
            use = next((use for use in SPECIAL if use in flags and use in special), None)
            bare = name.removeprefix(their_prefix)
            parts = bare.split(separator.decode()) if separator else [bare]
            plain = delimiter.join(part.replace(delimiter, "_") for part in parts)
            yield name, special[use] if use else plain if plain == "INBOX" else prefix + plain

    def _bring_all(self, there: IMAPClient, here: IMAPClient) -> None:
        for name, ours in self._folders(there, here):
            if not here.folder_exists(ours):
                here.create_folder(ours)
                here.subscribe_folder(ours)
            generation = there.select_folder(name, readonly=True)[b"UIDVALIDITY"]
            here.select_folder(ours, readonly=True)
            self._bring(there, here, name, ours, generation)

    def _bring(self, there: IMAPClient, here: IMAPClient, name: str, ours: str, generation: int) -> None:
        known = self.journal.known.get((name, generation), {})
        uids = there.search()
        waiting = [uid for uid in uids if uid not in known and (name, uid) not in self.result.refused]
        done = len(uids) - len(waiting)
        self.tell(name, done, len(uids))
        if not waiting:
            return
        # What stands here and was never written down came by a run that was cut, or from elsewhere.
        unaccounted = set(here.search()) - {one.uid for one in known.values()}
        found: dict[tuple[str, datetime], list[int]] = {}
        for uid, message in _fetched(here, sorted(unaccounted)):
            found.setdefault((_digest(message[b"BODY[]"]), _moment(message)), []).append(uid)
        for uid, message in _fetched(there, waiting, self.at_once):
            digest = _digest(message[b"BODY[]"])
            before = found.get((digest, _moment(message)))
            if before:
                self.journal.add(name, generation, uid, Copied(digest, before.pop()))
            elif (to := self._append(here, name, ours, uid, message)) is not None:
                self.journal.add(name, generation, uid, Copied(digest, to))
                self.result.copied += 1
            done += 1
            self.tell(name, done, len(uids))

    def _append(self, here: IMAPClient, name: str, ours: str, uid: int, message: dict[bytes, Any]) -> int | None:
        """Hand a message over; return its number here, 0 if it is not told, nothing for one that is refused."""
        flags = [flag for flag in message[b"FLAGS"] if flag.lower() != b"\\recent"]
        try:
            answer = here.append(ours, message[b"BODY[]"], flags, message[b"INTERNALDATE"])
        except IMAPClientAbortError:
            raise
        except IMAPClientError as error:
            if b"OVERQUOTA" in str(error).encode() or "quota" in str(error).lower():
                raise RefusedError(
                    f"{self.target.user} is full, {self.result.copied} messages came through in this run: give it more"
                    " room, then run the same command again"
                ) from error
            self.result.refused[name, uid] = _said(error)
            return None
        told = re.search(rb"APPENDUID \d+ (\d+)", answer)
        return int(told[1]) if told else 0

    def _compare_all(self, there: IMAPClient, here: IMAPClient) -> None:
        for name, ours in self._folders(there, here):
            if name in self.result.folders:  # before a cut
                continue
            generation = there.select_folder(name, readonly=True)[b"UIDVALIDITY"]
            here.select_folder(ours, readonly=True)
            known = self.journal.known.get((name, generation), {})
            about = there.fetch("1:*", ["INTERNALDATE", "RFC822.SIZE"]) if there.search() else {}
            mine = Counter((_digest(one[b"BODY[]"]), _moment(one)) for _uid, one in _fetched(here, here.search()))
            digests, missing = [], []
            for uid, one in sorted(about.items()):
                # What came since the copy began is there for the next run.
                key = (known[uid].digest if uid in known else "", _moment(one))
                digests.append(key[0])
                if mine[key] < 1:
                    missing.append({"folder": name, "uid": uid})
                mine[key] -= 1
            self.result.missing += missing
            self.result.folders[name] = {
                "to": ours,
                "messages": len(about),
                "bytes": sum(one[b"RFC822.SIZE"] for one in about.values()),
                "checksum": hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(),
            }


def _namespace(client: IMAPClient) -> tuple[str, str]:
    """Return what a member's own folders begin with, and what stands between a folder and one in it."""
    if client.has_capability("NAMESPACE"):
        for prefix, delimiter in client.namespace().personal or ():
            return prefix, delimiter or "/"
    return "", "/"


def _fetched(client: IMAPClient, uids: list[int], at_once: int = AT_ONCE) -> Iterator[tuple[int, dict[bytes, Any]]]:
    """Yield messages whole, some at once, as many as fit into memory; what was deleted meanwhile is not there."""
    wanted = set(uids)
    every = client.fetch("1:*", ["RFC822.SIZE"]) if wanted else {}
    sizes = {uid: one[b"RFC822.SIZE"] for uid, one in every.items() if uid in wanted}
    for some in _batches(sizes, at_once):
        for uid, message in sorted(client.fetch(some, ["BODY.PEEK[]", "FLAGS", "INTERNALDATE"]).items()):
            if b"BODY[]" in message:
                yield uid, message


def _batches(sizes: Mapping[int, int], at_once: int) -> Iterator[list[int]]:
    some: list[int] = []
    weight = 0
    for uid, size in sorted(sizes.items()):
        if some and (weight + size > at_once or len(some) == NUMBERS):
            yield some
            some, weight = [], 0
        some.append(uid)
        weight += size
    if some:
        yield some


def _digest(content: bytes) -> str:
    """Return what tells a message from others; servers differ in what they make of lines that end by LF alone."""
    return hashlib.sha256(re.sub(rb"\r\n|\r|\n", b"\r\n", content)).hexdigest()


def _moment(message: dict[bytes, Any]) -> datetime:
    moment: datetime = message[b"INTERNALDATE"]
    return moment.astimezone(UTC)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _silent(_folder: str, _done: int, _all: int) -> None:
    pass


def copy_mailbox(source: Account, target: Account, journal: Path, tell: Tell = _silent) -> Result:
    """Copy a mailbox and compare both sides; the journal is made on the first run and read on each further one.

    Raise RefusedError, UnreachableError, or FailedError for what a server answers against the protocol.
    """
    try:
        with Journal.open(journal, source, target) as notes:
            return Copy(source, target, notes, tell).run()
    except IMAPClientError as error:
        raise FailedError(
            f"{source.user}: the copy stopped: {_said(error)}. Run the same command again: it goes on"
        ) from error
