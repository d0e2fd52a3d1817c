# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The continuous probe: what a visitor would have seen of a domain from before the switch until all has settled.

One JSON line for each look, so that the proof can be read again by anybody; what was not looked at is not claimed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import httpx

from infini.domains.observed import Tally

_SHOWN = 20  # failures that a tally repeats in words; all are in the file


@dataclass(frozen=True)
class Look:
    """What one check saw. `failed` says why it counts as darkness, empty when all is well."""

    answer: str
    failed: str = ""
    secure: bool | None = None


class Check(Protocol):
    """One thing that is looked at in each round; its failures are answers, never exceptions."""

    @property
    def label(self) -> str:
        """Return where it looks and at what, in a few words."""

    def look(self) -> Look:
        """Look once."""


@dataclass(frozen=True)
class DnsCheck:
    """One question to a validating resolver.

    `accepted` holds the values (presentation form) that are right before, during and after the move; without it any
    value is. `flush` is a command run before each look, for a resolver that shall know nothing. `timeout` in seconds.
    """

    vantage: str
    resolver: str
    name: str
    type: str = "A"
    accepted: frozenset[str] = frozenset()
    flush: tuple[str, ...] = ()
    timeout: float = 3.0
    port: int = 53

    @property
    def label(self) -> str:
        """Return which resolver is asked for what."""
        return f"{self.vantage} {self.name} {self.type}"

    def look(self) -> Look:
        """Ask once; a lost packet is asked again after half of the time, as every stub resolver does."""
        if self.flush:
            subprocess.run(self.flush, capture_output=True, check=False, timeout=10)
        query = dns.message.make_query(f"{self.name}.", self.type, want_dnssec=True)
        for last in (False, True):
            try:
                said, _ = dns.query.udp_with_fallback(query, self.resolver, self.timeout / 2, self.port)
            except (dns.exception.DNSException, OSError) as error:
                if last:
                    return Look("", f"no answer ({type(error).__name__})")
            else:
                return self._judge(said)
        raise AssertionError  # the loop returns

    def _judge(self, said: dns.message.Message) -> Look:
        kind = dns.rdatatype.from_text(self.type)
        values = sorted(rdata.to_text() for rrset in said.answer if rrset.rdtype == kind for rdata in rrset)
        answer, secure = " | ".join(values), bool(said.flags & dns.flags.AD)
        if said.rcode():
            return Look(answer, dns.rcode.to_text(said.rcode()), secure)
        if not values:
            return Look(answer, "no data", secure)
        if self.accepted and not set(values) <= self.accepted:
            return Look(answer, "a wrong answer", secure)
        return Look(answer, "", secure)


@dataclass(frozen=True)
class HttpCheck:
    """A page that must answer below 500, at the name's own address. `timeout` in seconds."""

    url: str
    timeout: float = 10.0
    verify: bool | str = True

    @property
    def label(self) -> str:
        """Return the page's address."""
        return self.url

    def look(self) -> Look:
        """Fetch the page once, without following redirections: the code and the target are the answer."""
        try:
            said = httpx.get(self.url, timeout=self.timeout, verify=self.verify, follow_redirects=False)
        except (httpx.HTTPError, OSError) as error:
            return Look("", f"no answer ({type(error).__name__})")
        answer = f"{said.status_code} {said.headers.get('location', '')}".strip()
        return Look(answer, f"HTTP {said.status_code}" if said.status_code >= 500 else "")


@dataclass(frozen=True)
class SmtpCheck:
    """A mail exchanger that must greet. `timeout` in seconds."""

    host: str
    port: int = 25
    timeout: float = 10.0

    @property
    def label(self) -> str:
        """Return which exchanger is greeted."""
        return f"smtp {self.host}"

    def look(self) -> Look:
        """Read the banner once."""
        try:
            with socket.create_connection((self.host, self.port), self.timeout) as made:
                banner = made.recv(512).decode("ascii", "replace").strip()
        except OSError as error:
            return Look("", f"no answer ({type(error).__name__})")
        return Look(banner, "" if banner.startswith("220") else "it does not greet")


@dataclass
class Probe:
    """Looks at a domain in rounds until it is stopped; use it as a context to let it run beside.

    `interval` is the time from one round to the next, seconds.
    """

    domain: str
    checks: Sequence[Check]
    file: Path
    interval: float = 5.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def round(self, out: TextIO) -> None:
        """Make each check once and write what it saw."""
        for check in self.checks:
            at, start = self.now(), time.monotonic()
            look = check.look()
            line: dict[str, Any] = {"at": at.isoformat(), "check": check.label, "answer": look.answer}
            if look.secure is not None:
                line["ad"] = look.secure
            if look.failed:
                line["failed"] = look.failed
            line["ms"] = round((time.monotonic() - start) * 1000)
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()

    def run(self) -> None:
        """Look until `stop` is called."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a+", encoding="utf-8") as out:
            _end_torn_line(self.file, out)
            due = time.monotonic()
            while not self._stop.is_set():
                self.round(out)
                due = max(due + self.interval, time.monotonic())
                self._stop.wait(due - time.monotonic())

    def stop(self) -> None:
        """Let the current round be the last."""
        self._stop.set()

    def __enter__(self) -> Probe:
        """Start looking."""
        self._stop.clear()
        self._thread = threading.Thread(target=self.run, name=f"probe {self.domain}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for the round under way."""
        self.stop()
        if self._thread:
            self._thread.join()

    def tally(self, since: datetime | None = None) -> Tally | None:
        """Return what it has seen so far, None when nothing yet."""
        return tally(self.domain, self.file, since)


def _end_torn_line(file: Path, out: TextIO) -> None:
    """Close the half line that a killed run may have left, so that the next line stands on its own."""
    with file.open("rb") as before:
        if before.seek(0, 2):
            before.seek(-1, 2)
            if before.read(1) != b"\n":
                out.write("\n")


def _lines(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError, ValueError):
                entry = json.loads(line)
                yield {**entry, "at": datetime.fromisoformat(entry["at"]), "check": str(entry["check"])}


@dataclass
class _Count:
    """What has been counted so far, line by line: days of probing do not fit in a list."""

    total: int = 0
    failed: int = 0
    first: datetime | None = None
    last: datetime | None = None
    gap: float = 0.0
    silence: float = 0.0
    shown: list[str] = field(default_factory=list)
    good: dict[str, datetime] = field(default_factory=dict)
    dark: dict[str, datetime] = field(default_factory=dict)

    def add(self, entry: Mapping[str, Any]) -> None:
        at, check, failed = entry["at"], entry["check"], entry.get("failed")
        self.total += 1
        self.first = self.first or at
        self.silence = max(self.silence, (at - (self.last or at)).total_seconds())
        self.last = max(self.last or at, at)
        if failed:
            self.failed += 1
            self.dark.setdefault(check, self.good.get(check, at))
            if len(self.shown) < _SHOWN:
                self.shown.append(f"{at.isoformat(timespec='seconds')} {check}: {failed}")
        else:
            self.good[check] = at
        if check in self.dark:
            self.gap = max(self.gap, (at - self.dark[check]).total_seconds())
        if not failed:
            self.dark.pop(check, None)


def tally(domain: str, file: Path, since: datetime | None = None) -> Tally | None:
    """Count what a probe's file holds (from `since` on); None when there is nothing.

    The longest gap runs from the last good look before a failure to the next good one at the same check; the longest
    silence is the longest time in which nothing was looked at. Lines that cannot be read do not count as looks.
    """
    count = _Count()
    with contextlib.suppress(FileNotFoundError):
        for entry in _lines(file):
            if since is None or entry["at"] >= since:
                count.add(entry)
    if count.first is None or count.last is None:
        return None
    return Tally(
        domain,
        count.first,
        count.last,
        count.total,
        count.failed,
        count.gap,
        tuple(count.shown),
        longest_silence=count.silence,
    )
