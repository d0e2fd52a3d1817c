# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all faces share: routing by the contract, faults, the journal, and HTTP on a loopback port."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from infini.domains.simulator.faults import HALTING
from infini.domains.simulator.journal import Journal
from infini.domains.simulator.world import ConflictError, UnknownDomainError, World

BEFORE = ("429", "429-retry-after", "500-html", *HALTING)
"""Faults that strike before anything is done."""
AFTER = ("502-html", "lost-answer", "truncated")
"""Faults that strike when all is done."""
ANYWHERE = frozenset({401, 403, 429, 500, 502})
"""Statuses that any call may answer, beside those of its contract."""
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
}


@dataclass(frozen=True)
class Entry:
    """One line of the contract: a call, what it takes and gives, and where we know it from."""

    face: str
    method: str
    path: str
    does: str
    source: str
    answers: tuple[int, ...]
    kind: str = "read"
    takes: Mapping[str, str] = field(default_factory=dict)
    gives: tuple[str, ...] = ()
    slow: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """Return what a path of this call looks like."""
        return re.compile(re.sub(r"\\?\{(\w+)\\?\}", r"(?P<\1>[^/]+)", re.escape(self.path)) + "$")


@cache
def contract() -> tuple[Entry, ...]:
    """Read contract.yml: every call of every face."""
    text = files("infini.domains.simulator").joinpath("contract.yml").read_text(encoding="utf-8")
    lines: dict[str, list[dict[str, Any]]] = yaml.safe_load(text)
    return tuple(
        Entry(**{**line, "face": face, "answers": tuple(line["answers"]), "gives": tuple(line.get("gives", ()))})
        for face, its_lines in lines.items()
        for line in its_lines
    )


@dataclass(frozen=True)
class Request:
    """What came in. Header names are in lower case; `url` is the whole address that the client called."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    url: str = ""

    @property
    def path(self) -> str:
        """Return the path, still percent-encoded."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """Return the query; of a name given twice, the last."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass
class Answer:
    """What goes out: data as JSON, or text. `lost`: the connection is closed instead."""

    status: int
    data: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    content_type: str = "application/json"
    lost: bool = False
    truncated: bool = False

    def body(self) -> bytes:
        """Return the bytes of the body."""
        if self.status == 204:
            return b""
        whole = (self.text if self.text is not None else json.dumps(self.data)).encode()
        return whole[: len(whole) // 2] if self.truncated else whole


class RefusalError(Exception):
    """A request that is answered with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True)
class Call:
    """A request that the contract knows: the values of its path, and its body as data."""

    request: Request
    entry: Entry
    values: Mapping[str, str]
    data: Any = None
    fault: str | None = None

    @property
    def domain(self) -> str:
        """Return the domain it is about, empty when it is about none."""
        return self.values.get("domain", "") or self.request.query.get("domain", "")


class Face:
    """One HTTP service. A subclass has a method `do_…` per `does` of the contract, and its own way to say no."""

    name: ClassVar[str]

    def __init__(self, world: World, journal: Journal, control: Callable[[Request], Answer] | None = None) -> None:
        self.world, self.journal, self.control = world, journal, control
        self.url = ""
        self._routes = [(entry, entry.pattern) for entry in contract() if entry.face == self.name]

    # --- what a subclass says in its own words ----------------------------------------------------------------

    def authenticate(self, call: Call) -> None:
        """Raise RefusalError when the caller may not do this; a face without accounts lets all in."""

    def error(self, status: int, says: str, name: str = "") -> Answer:
        """Return an error in the service's own form; `name` is the field that is wrong, if one is."""
        return Answer(status, {"message": says, "field": name})

    def subject(self, call: Call) -> str:
        """Return the domain that a call is about, for the journal and for faults."""
        return call.domain

    # --- the way of a request ---------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        """Answer a request, faults included, and note it."""
        if request.path.startswith("/_sim/") and self.control:
            return self.control(request)
        with self.world.lock:
            call = self._find(request)
            if call is None:
                found, domain, fault, landed = self.error(404, "no such call"), "", None, False
            else:
                domain = self.subject(call)
                found, fault, landed = self._act(call, domain)
            self.journal.note(
                request.body,
                found.body(),
                at=self.world.now(),
                face=self.name,
                method=request.method,
                path=request.path,
                target=request.target,
                operation=call.entry.does if call else "",
                kind=call.entry.kind if call else "read",
                domain=domain,
                status=found.status,
                fault=fault or "",
                landed=landed,
            )
            return found

    def _find(self, request: Request) -> Call | None:
        for entry, pattern in self._routes:
            match = pattern.match(request.path) if entry.method == request.method else None
            if match:
                return Call(request, entry, {key: unquote(value) for key, value in match.groupdict().items()})
        return None

    def _act(self, call: Call, domain: str) -> tuple[Answer, str | None, bool]:
        self.world.settle()
        fault = self.world.faults.strike(
            self._possible(call), face=self.name, method=call.request.method, path=call.request.path, domain=domain
        )
        if fault in BEFORE:
            return self._struck(fault), fault, False
        skipped = fault == "never-completes"
        try:
            self.authenticate(call)
            call = self._read(call, fault)
            found = Answer(202, {"message": "Accepted"}) if skipped else self._done(call)
        except RefusalError as error:
            found = error.answer
        except UnknownDomainError:
            found = self.error(404, "Unknown domain")
        except ConflictError as error:
            found = self.error(409, str(error))
        landed = call.entry.kind != "read" and found.status < 400 and not skipped
        self._hold(call, found)
        return self._spoiled(found, fault), fault, landed

    def _possible(self, call: Call) -> Sequence[str]:
        slow = ("never-completes",) if call.entry.slow else ()
        return (*BEFORE, *AFTER, *slow)

    def _read(self, call: Call, fault: str | None) -> Call:
        data = None
        if call.request.body:
            try:
                data = json.loads(call.request.body)
            except ValueError:
                data = call.request.body.decode(errors="replace")
        for name, kind in call.entry.takes.items():
            optional, name = name.endswith("?"), name.rstrip("?")
            value = data.get(name) if isinstance(data, dict) else None
            if value is None and optional and (data is None or isinstance(data, dict)):
                continue
            wrong = not isinstance(value, TYPES[kind]) or (kind == "integer" and isinstance(value, bool))
            if wrong:
                raise RefusalError(self.error(400, "Required" if value is None else f"is not of type {kind}", name))
        return Call(call.request, call.entry, call.values, data, fault)

    def _done(self, call: Call) -> Answer:
        found: Answer = getattr(self, f"do_{call.entry.does}")(call)
        return found

    def _hold(self, call: Call, found: Answer) -> None:
        """Hold the face to its contract: a simulator that answers otherwise proves nothing of its clients."""
        entry = call.entry
        if found.status not in entry.answers and found.status not in ANYWHERE:
            self.journal.violate(f"{entry.face} {entry.method} {entry.path} answered {found.status}")
        one = found.data[0] if isinstance(found.data, list) and found.data else found.data
        if found.status < 300 and isinstance(one, dict):
            missing = [name for name in entry.gives if name not in one]
            if missing:
                self.journal.violate(f"{entry.face} {entry.method} {entry.path} lacks {', '.join(missing)}")

    def _struck(self, fault: str) -> Answer:
        if fault == "500-html":
            return _page(500, "Internal Server Error")
        if fault == "401":
            return self.error(401, "The server could not verify that you are authorized")
        if fault in HALTING:
            expired = fault == "403-expired"
            return self.error(403, "The token has expired" if expired else "Access was denied to this resource")
        found = self.error(429, "Too Many Requests")
        if fault == "429-retry-after":
            found.headers["Retry-After"] = "7"
        return found

    def _spoiled(self, found: Answer, fault: str | None) -> Answer:
        if fault == "502-html":
            return _page(502, "Bad Gateway")
        found.lost = fault == "lost-answer"
        found.truncated = fault == "truncated"
        return found


def _page(status: int, title: str) -> Answer:
    return Answer(status, text=f"<html><body><h1>{status} {title}</h1></body></html>", content_type="text/html")


class _Handler(BaseHTTPRequestHandler):
    """Carry requests to a face. Answers leave in one piece, so that small ones do not wait for acknowledgements."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    face: ClassVar[Face]

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the parent class's
        """Say nothing: the journal has it."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        url = f"http://{headers.get('host', '')}{self.path}"
        found = self.face.answer(Request(self.command, self.path, headers, body, url))
        if found.lost:
            self.close_connection = True
            return
        content = found.body()
        self.send_response(found.status)
        for name, value in {"Content-Type": found.content_type, **found.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    """A face on a free port of the loopback interface; `close` also ends the connections that clients keep open."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, face: Face) -> None:
        handler = type("Handler", (_Handler,), {"face": face})
        super().__init__(("127.0.0.1", 0), handler)
        self._connections: set[socket.socket] = set()
        face.url = self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, and serve it in a thread."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, and end it."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away; other errors are the simulator's own and must be seen."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Stop serving."""
        self.shutdown()
        for connection in tuple(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it went away by itself
        self.server_close()
        self._thread.join()
