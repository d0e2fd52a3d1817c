# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages by which mail programs and mail servers of others find ours: autoconfig, autodiscover, MTA-STS.

One set of texts for all domains, `$domain` and `$address` filled in; which domain is meant, the host name says. A mail
program is told the same whether an address exists or not.
"""

from __future__ import annotations

import json
import re
import socket
import socketserver
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from string import Template
from typing import BinaryIO
from xml.sax.saxutils import escape

FOLDER = Path("/etc/infini-mail-pages")
XML, TEXT = "text/xml; charset=utf-8", "text/plain; charset=utf-8"
AUTOCONFIG, AUTODISCOVER, POLICY = "config-v1.1.xml", "autodiscover.xml", "mta-sts.txt"
REFUSAL = "autodiscover-error.xml"
PAGES = {
    ("autoconfig", "/mail/config-v1.1.xml"): AUTOCONFIG,
    ("autoconfig", "/.well-known/autoconfig/mail/config-v1.1.xml"): AUTOCONFIG,
    ("autodiscover", "/autodiscover/autodiscover.xml"): AUTODISCOVER,
    ("mta-sts", "/.well-known/mta-sts.txt"): POLICY,
}
"""Which page stands where: first part of the host name, path in lower case."""
SCHEMA = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
INVALID, UNAVAILABLE = (600, "Invalid Request"), (601, "Provider is not available")
LONGEST = 16384
"""Bytes of what a mail program may ask."""
SECONDS = 10
LISTENING = 3
"""The descriptor that systemd hands over."""

_ADDRESS = re.compile(r"<(?:\w+:)?EMailAddress>\s*([^<>&\s@]{1,64}@[^<>&\s@]{1,255})\s*</")
_SCHEMA = re.compile(r"<(?:\w+:)?AcceptableResponseSchema>\s*([^<>\s]*)\s*</")
_PROXY = b"\r\n\r\n\x00\r\nQUIT\n"


@dataclass(frozen=True)
class Answer:
    """What a visitor gets."""

    status: int
    kind: str = TEXT
    text: str = ""


class Pages:
    """The texts, and the domains that they are for."""

    def __init__(self, domains: Sequence[str], texts: Mapping[str, str]) -> None:
        self.domains = frozenset(domains)
        self.texts = {name: Template(text) for name, text in texts.items()}

    def answer(self, method: str, host: str, path: str, body: str = "") -> Answer:
        """Return the page of a host name and a path."""
        prefix, _, domain = host.lower().partition(":")[0].partition(".")
        name = PAGES.get((prefix, path.partition("?")[0].lower()))
        if domain not in self.domains or name not in self.texts:
            return Answer(404, text="Nothing stands here.\n")
        if name == AUTODISCOVER:
            return Answer(200, XML, self._discovered(domain, body))
        if method not in ("GET", "HEAD"):
            return Answer(405, text="This page is only read.\n")
        text = self.texts[name].substitute(domain=escape(domain))
        return Answer(200, TEXT if name == POLICY else XML, text)

    def _discovered(self, domain: str, body: str) -> str:
        found, schema = _ADDRESS.search(body), _SCHEMA.search(body)
        if not found or found[1].rpartition("@")[2].lower() not in self.domains:
            return self._refusal(*INVALID)
        if schema and schema[1] != SCHEMA:
            return self._refusal(*UNAVAILABLE)
        return self.texts[AUTODISCOVER].substitute(domain=escape(domain), address=escape(found[1]))

    def _refusal(self, code: int, message: str) -> str:
        return self.texts[REFUSAL].substitute(code=code, message=message)


def read(folder: Path = FOLDER) -> Pages:
    """Return what the role wrote."""
    names = (AUTOCONFIG, AUTODISCOVER, POLICY, REFUSAL)
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in names if (folder / name).exists()}
    return Pages(json.loads((folder / "domains.json").read_text(encoding="utf-8")), texts)


def pass_proxy(stream: BinaryIO) -> None:
    """Read past the header by which the front says who the visitor is (PROXY protocol, version 2)."""
    head = stream.read(16)
    if not head.startswith(_PROXY):
        raise ConnectionError("only the front is answered here")
    stream.read(int.from_bytes(head[14:16], "big"))


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: Server
    server_version, sys_version = "infini", ""
    timeout = SECONDS

    def handle(self) -> None:
        try:
            pass_proxy(self.rfile)  # type: ignore[arg-type]  # a stream, whatever typeshed calls it
            super().handle()
        except OSError:  # who goes away, or is too slow
            self.close_connection = True

    def do_GET(self) -> None:
        self._say("")

    do_HEAD = do_GET  # noqa: N815  the name that http.server calls

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LONGEST:
            self.send_error(413 if length.isdigit() else 411)
            return
        self._say(self.rfile.read(int(length)).decode("utf-8", "replace"))

    def _say(self, body: str) -> None:
        answer = self.server.pages.answer(self.command, self.headers.get("Host", ""), self.path, body)
        content = answer.text.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep silent: who asks is a member's program."""


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens at the socket that systemd opened."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, pages: Pages) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.pages = listening, pages


def main(words: Sequence[str]) -> int:
    """Serve until the process ends, or judge what is to be served."""
    if list(words) == ["judge"]:
        for text in read().texts.values():
            text.substitute(domain="", address="", code="", message="")
        return 0
    if list(words) != ["serve"]:
        sys.stderr.write("Usage: infini-mail-pages serve | judge\n")
        return 2
    with Server(socket.socket(fileno=LISTENING), read()) as server:
        server.serve_forever()
    return 0
