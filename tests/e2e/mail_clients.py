# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that members and the rest of the world use for mail, as far as the tests need them."""

from __future__ import annotations

import base64
import contextlib
import imaplib
import random
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage

SECONDS = 30


class Imap(imaplib.IMAP4_SSL):
    """Reads a mailbox at an address, by the name that its certificate is for."""

    def __init__(self, address: str, name: str, trust: ssl.SSLContext) -> None:
        self.address, self.name = address, name
        super().__init__(name, 993, ssl_context=trust, timeout=SECONDS)

    def _create_socket(self, timeout: float | None) -> ssl.SSLSocket:
        connection = socket.create_connection((self.address, 993), timeout)
        return self.ssl_context.wrap_socket(connection, server_hostname=self.name)

    def __exit__(self, *raised: object) -> None:
        """Leave; also a server that answers no more, to whom logout would leave the connection open."""
        try:
            super().__exit__(*raised)
        finally:
            self.file.close()
            self.sock.close()

    def find(self, subject: str, folder: str = "INBOX") -> list[bytes]:
        """Return the messages of a folder that have this subject."""
        if self.select(folder)[0] != "OK":
            return []
        numbers = self.search(None, "SUBJECT", f'"{subject}"')[1][0].split()
        return [self.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in numbers]

    def wait(self, subject: str, folder: str = "INBOX", seconds: float = SECONDS) -> bytes:
        """Wait for a message; return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.find(subject, folder)
            if found:
                assert len(found) == 1, f"{len(found)} copies of {subject}"
                return found[0]
            time.sleep(0.3)
        raise AssertionError(f"{subject} did not arrive in {folder} within {seconds:.0f} s")

    def empty(self, folder: str = "INBOX") -> None:
        """Delete all messages of a folder."""
        if self.select(folder)[1][0] != b"0":
            self.store("1:*", "+FLAGS", r"(\Deleted)")
            self.expunge()


class Smtp(smtplib.SMTP):
    """Connects to an address, and knows the host by the name that its certificate is for."""

    def __init__(self, address: str, name: str, port: int, trust: ssl.SSLContext | None = None) -> None:
        self.address, self.name, self.trust = address, name, trust
        super().__init__(name, port, "client.dehors.test", timeout=SECONDS)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = socket.create_connection((self.address, port), timeout)
        return self.trust.wrap_socket(connection, server_hostname=host) if self.trust else connection


class Sieve:
    """A ManageSieve client (RFC 5804): as much as putting a script into service takes."""

    def __init__(self, address: str, name: str) -> None:
        self.name = name
        self.socket: socket.socket = socket.create_connection((address, 4190), SECONDS)
        self.file = self.socket.makefile("rb")
        self.capabilities = self.answer()

    def answer(self) -> list[str]:
        """Read up to OK, NO or BYE; the last line says which."""
        lines = []
        while True:
            line = self.file.readline().decode().rstrip("\r\n")
            if literal := re.search(r"\{([0-9]+)\}$", line):  # the words of a longer explanation follow
                line += self.file.read(int(literal[1])).decode() + self.file.readline().decode()
            lines.append(line)
            if not line or line.split(" ")[0] in ("OK", "NO", "BYE"):
                return lines

    def ask(self, command: str) -> list[str]:
        """Say a command, return the answer."""
        self.socket.sendall(f"{command}\r\n".encode())
        return self.answer()

    def starttls(self, trust: ssl.SSLContext) -> None:
        """Go on under TLS; the server then says its capabilities again."""
        assert self.ask("STARTTLS")[-1].startswith("OK")
        self.socket = trust.wrap_socket(self.socket, server_hostname=self.name)
        self.file = self.socket.makefile("rb")
        self.capabilities = self.answer()

    def login(self, user: str, password: str) -> str:
        """Give name and password; return the server's last line."""
        words = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        return self.ask(f'AUTHENTICATE "PLAIN" "{words}"')[-1]

    def put(self, name: str, script: str) -> str:
        """Hand over a script; return the server's last line."""
        return self.ask(f'PUTSCRIPT "{name}" {{{len(script.encode())}+}}\r\n{script}')[-1]

    def close(self) -> None:
        """Leave."""
        self.file.close()
        self.socket.close()


@dataclass
class Received:
    """What the rest of the world was given."""

    sender: str
    recipients: list[str]
    content: bytes
    client: str
    helo: str


@dataclass
class Outside:
    """A server that takes everything, for whoever is asked to relay to it."""

    address: str
    port: int
    received: list[Received] = field(default_factory=list)

    @contextlib.contextmanager
    def open(self) -> Iterator[Outside]:
        """Listen until the end of the block."""
        with socket.create_server((self.address, self.port)) as listening:
            thread = threading.Thread(target=self._listen, args=(listening,), daemon=True)
            thread.start()
            yield self
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(SECONDS)

    def _listen(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the end of the block
            while True:
                connection, (client, *_port) = listening.accept()
                threading.Thread(target=self._talk, args=(connection, client), daemon=True).start()

    def _talk(self, connection: socket.socket, client: str) -> None:
        with connection, connection.makefile("rwb") as file:

            def say(line: str) -> None:
                file.write(f"{line}\r\n".encode())
                file.flush()

            say("220 dehors.test ESMTP")
            helo, one = "", Received("", [], b"", client, "")
            for line in file:
                words = line.decode("utf-8", "replace").strip()
                verb = words[:4].upper()
                if verb in ("EHLO", "HELO"):
                    helo = words[5:]
                elif verb == "MAIL":
                    one = Received(_address(words), [], b"", client, helo)
                elif verb == "RCPT":
                    one.recipients.append(_address(words))
                elif verb == "DATA":
                    say("354 Go on")
                    one.content = b"".join(iter(file.readline, b".\r\n"))
                    self.received.append(one)
                elif verb == "QUIT":
                    say("221 Bye")
                    return
                say("250 OK")

    def wait(self, recipient: str, seconds: float = SECONDS) -> Received:
        """Wait for a message to somebody; return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for one in self.received:
                if recipient in one.recipients:
                    return one
            time.sleep(0.2)
        raise AssertionError(f"nothing for {recipient} left within {seconds:.0f} s")


def _address(words: str) -> str:
    found = re.search("<(.*?)>", words)
    return found[1] if found else ""


def unique() -> str:
    """Return a word that no other message has; in figures, for letters at random look like spam."""
    return str(random.randrange(10**12))  # noqa: S311 (a name, no secret)


def message(sender: str, recipient: str, text: str = "Bonjour.", subject: str | None = None) -> EmailMessage:
    """Return a message with a subject of its own."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, recipient, subject or f"essai {unique()}"
    mail["Message-ID"] = f"<{unique()}@{sender.rpartition('@')[2]}>"
    mail["Date"] = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime())
    mail.set_content(text)
    return mail
