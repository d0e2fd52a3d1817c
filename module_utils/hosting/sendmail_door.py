# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a member's PHP to the mail queue of a web host.

PHP is confined: Postfix's own sendmail, which is setgid, cannot work there. What stands in its place hands over words
and message at a socket; the kernel says who is on the other side, so that the envelope sender is the account, whatever
the program says. Postfix then asks for the account's budget.
"""

from __future__ import annotations

import contextlib
import json
import pwd
import re
import smtplib
import socket
import socketserver
import struct
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from email.utils import getaddresses
from pathlib import Path
from threading import Lock, Semaphore

CONFIG = Path("/etc/infini-sendmail/config.json")
QUEUE = "/var/spool/postfix/public/door"
LISTENING = 3
"""The descriptor that systemd hands over."""
MOST_WORDS = 1 << 16
GREETING = 220
AT_ONCE = 2
"""Messages of one account that are taken at once: its others wait, and those of nobody else."""
MOST_WAITING = 64
"""Programs of one account that may be here at once; more would use up what all accounts share."""
SECONDS = 60.0

OK, USAGE, DATA, UNAVAILABLE = 0, 64, 65, 69
"""As sysexits.h has them. Never 75, try again: PHP takes it for success, and nobody would try."""
_TAKES_VALUE = "BCFLNORVXfhorpq"
_EOL = re.compile(rb"\r\n|\r|\n")
_ALONE = re.compile(rb"(?:^|\r\n)\.\r\n")


class SendmailError(Exception):
    """What the program asks cannot be done: its exit status, and why."""

    def __init__(self, status: int, says: str) -> None:
        super().__init__(says)
        self.status = status


@dataclass
class Asked:
    """What a command line of sendmail(1) says, as far as it concerns us."""

    recipients: list[str] = field(default_factory=list)
    from_headers: bool = False
    dot_ends: bool = True
    looks_only: bool = False


def asked(words: Sequence[str]) -> Asked:
    """Read a command line; whom it wants to be the sender is passed over."""
    found, rest = Asked(), list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.recipients += rest
            break
        if not word.startswith("-") or word == "-":
            found.recipients.append(word)
        elif word == "-bv":
            found.looks_only = True
        elif word[1:2] == "b" and word != "-bm":
            raise SendmailError(USAGE, f"{word} is not offered here: use mail(), or sendmail -t")
        else:
            _option(word, rest, found)
    return found


def _option(word: str, rest: list[str], found: Asked) -> None:
    letters = word[1:]
    if letters in ("oi", "i", "ti", "it") or (letters == "o" and rest[:1] == ["i"]):
        found.dot_ends = False
    if letters in ("t", "ti", "it"):
        found.from_headers = True
    if len(letters) == 1 and letters in _TAKES_VALUE and rest:
        rest.pop(0)


def whole(said: bytes, wanted: Asked) -> tuple[bytes, list[str]]:
    """Return the message with the ends of line that SMTP wants, and who gets it."""
    message = _EOL.sub(b"\r\n", said)
    if wanted.dot_ends and (end := _ALONE.search(message)):
        message = message[: end.start()] + (b"\r\n" if end.start() else b"")
    recipients = list(wanted.recipients)
    if wanted.from_headers:
        headers = BytesHeaderParser().parsebytes(message)
        values = [str(value) for name in ("To", "Cc", "Bcc") for value in headers.get_all(name, [])]
        recipients += [address for _, address in getaddresses(values)]
    recipients = list(dict.fromkeys(one.strip() for one in recipients if one.strip()))
    if not recipients:
        raise SendmailError(DATA, "the message has no recipient")
    strange = [one for one in recipients if not one.isascii() or re.search(r"[\s<>\x00-\x1f]", one)]
    if strange:
        raise SendmailError(DATA, f"{strange[0]!a} is no address")
    return message, recipients


def sender(account: str, folder: str, host: str) -> str:
    """Return the envelope sender: the account, and the site whose program it is."""
    found = re.search(rf"/{re.escape(account)}/www/([a-z0-9][a-z0-9.-]*)(?:/|$)", folder)
    return f"{account}+{found[1][:60]}@{host}" if found else f"{account}@{host}"


class Postfix(smtplib.SMTP):
    """Postfix, at a socket that only we may reach."""

    def __init__(self, path: str, host: str) -> None:
        self.path = path
        super().__init__("localhost", 25, host, SECONDS)

    def _get_socket(self, _host: str, _port: int, timeout: float) -> socket.socket:
        found = socket.socket(socket.AF_UNIX)
        found.settimeout(timeout)
        try:
            found.connect(self.path)
        except OSError:
            found.close()
            raise
        return found

    def come_from_here(self) -> None:
        """Say our address where Postfix wants to know it: who signs takes a socket for a stranger's."""
        self.ehlo()
        if self.has_extn("xclient"):
            code, says = self.docmd("XCLIENT", "NAME=localhost ADDR=127.0.0.1")
            if code != GREETING:
                raise smtplib.SMTPResponseException(code, says)
            self.ehlo()


def submit(message: bytes, from_: str, to: Sequence[str], host: str, path: str = QUEUE) -> None:
    """Hand a message to Postfix for all its recipients, or raise SendmailError."""
    try:
        with Postfix(path, host) as client:
            client.come_from_here()
            refused = client.sendmail(from_, list(to), message, ["BODY=8BITMIME"])
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
    except smtplib.SMTPResponseException as error:
        raise SendmailError(UNAVAILABLE if error.smtp_code < 500 else DATA, _words(error.smtp_error)) from error
    except OSError as error:
        raise SendmailError(UNAVAILABLE, f"mail is out of order: {error}") from error
    for one, (_, says) in refused.items():
        raise SendmailError(DATA, f"{one}: {_words(says)}")


def _words(says: bytes | str) -> str:
    return says.decode("utf-8", "replace") if isinstance(says, bytes) else says


class _Handler(socketserver.BaseRequestHandler):
    server: Door

    def handle(self) -> None:
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        self.request.settimeout(SECONDS)
        try:
            with self.server.turn(uid):
                self._take(pwd.getpwuid(uid).pw_name)
            status, says = OK, ""
        except SendmailError as error:
            status, says = error.status, str(error)
        except (KeyError, OSError) as error:
            status, says = UNAVAILABLE, f"mail is out of order: {error}"
        self.request.sendall(bytes([status]) + says.encode("utf-8", "replace"))

    def _take(self, account: str) -> None:
        with self.request.makefile("rb") as file:
            head = file.read(4)
            length = struct.unpack(">I", head)[0] if len(head) == 4 else MOST_WORDS + 1
            if length > MOST_WORDS:
                raise SendmailError(USAGE, "the command line is too long")
            folder, *words = file.read(length).decode("utf-8", "replace").split("\0")
            message = file.read(self.server.size + 1)
        if len(message) > self.server.size:
            raise SendmailError(DATA, f"the message is larger than {self.server.size} bytes")
        wanted, host = asked(words), self.server.host
        if wanted.looks_only:
            with Postfix(self.server.queue, host) as client:
                client.noop()
            return
        text, recipients = whole(message, wanted)
        submit(text, sender(account, folder, host), recipients, host, self.server.queue)


class Door(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens at the socket that systemd opened."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, host: str, size: int, queue: str = QUEUE) -> None:
        super().__init__("", _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.host, self.size, self.queue = listening, host, size, queue
        self.accounts: dict[int, tuple[Semaphore, Semaphore]] = {}
        self.lock = Lock()

    @contextlib.contextmanager
    def turn(self, uid: int) -> Iterator[None]:
        """Wait for an account's turn, or raise SendmailError where too many wait."""
        with self.lock:
            room, turn = self.accounts.setdefault(uid, (Semaphore(MOST_WAITING), Semaphore(AT_ONCE)))
        if not room.acquire(blocking=False):
            raise SendmailError(UNAVAILABLE, f"{MOST_WAITING} of your programs are sending mail already")
        try:
            with turn:
                yield
        finally:
            room.release()

    def handle_error(self, *_: object) -> None:
        """Say in the journal what went wrong."""
        sys.stderr.write(traceback.format_exc())
        sys.stderr.flush()


def main() -> int:
    """Take mail until the process ends."""
    said = json.loads(CONFIG.read_text(encoding="utf-8"))
    with Door(socket.socket(fileno=LISTENING), said["host"], said["size"]) as door:
        door.serve_forever()
    return 0
