# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The continuous probe: what a visitor would have seen of a domain from before the switch until all has settled.

It writes JSON lines beside the domain's events, so that the proof can be read again by anybody: a line for each run of
equal looks at the same thing, and one that says when and how often all was looked at. What was not looked at is not
claimed. Each run of the probe proves itself: it also looks with an expectation that is wrong on purpose, and must see
that.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count, pairwise
from typing import Any, Protocol

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import httpx

from hosting.probes import title_of
from infini.domains.events import Store
from infini.domains.observed import Tally
from infini.domains.plan import Plan
from infini.domains.rules import host_of
from infini.errors import UnreachableError

DOCUMENT = "probe.jsonl"
_WRONG = "what nothing answers"
"""The expectation of a control."""
_PAGE = 200_000
"""Bytes of a page in which its title is looked for."""
_SHOWN = 20  # failures that a tally repeats in words; all are in the file


@dataclass(frozen=True)
class Look:
    """What one check saw. `failed` says why it counts as darkness, empty when all is well.

    `other`: there was an answer, and it is not the one that was expected.
    """

    answer: str
    failed: str = ""
    secure: bool | None = None
    other: bool = False


class Check(Protocol):
    """One thing that is looked at again and again; its failures are answers, never exceptions."""

    @property
    def every(self) -> float:
        """Return the shortest time from one look to the next, seconds; 0 is each round."""

    @property
    def steady(self) -> bool:
        """Return whether the first good answer is the only good one from then on."""

    @property
    def label(self) -> str:
        """Return where it looks and at what, in a few words."""

    def look(self) -> Look:
        """Look once."""

    def expecting(self, answer: str) -> Check:
        """Return the same check with another expectation: an answer that was seen, or a wrong one as a control."""


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
    every: float = 0.0
    steady: bool = False

    @property
    def label(self) -> str:
        """Return which resolver is asked for what."""
        return f"{self.vantage} {self.name} {self.type}"

    def expecting(self, answer: str) -> DnsCheck:
        """Return the same question, with this value as the only right one."""
        return replace(self, accepted=frozenset({answer}))

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
        if self.accepted and not {value.lower() for value in values} <= {value.lower() for value in self.accepted}:
            return Look(answer, "a wrong answer", secure, other=True)
        return Look(answer, "", secure)


@dataclass(frozen=True)
class HttpCheck:
    """A page that must answer below 500, at the name's own address, and as `expected` when that is given.

    The answer is the code with the page's title, or with where it leads. `timeout` in seconds.
    """

    url: str
    timeout: float = 10.0
    verify: bool | str = True
    expected: str = ""
    every: float = 60.0
    steady: bool = True

    @property
    def label(self) -> str:
        """Return the page's address."""
        return self.url

    def expecting(self, answer: str) -> HttpCheck:
        """Return the same page, with this answer as the right one."""
        return replace(self, expected=answer)

    def look(self) -> Look:
        """Fetch the page once, without following redirections."""
        try:
            with httpx.stream("GET", self.url, timeout=self.timeout, verify=self.verify) as said:
                answer = f"{said.status_code} {said.headers.get('location') or _title(said)}".strip()
        except (httpx.HTTPError, OSError) as error:
            return Look("", f"no answer ({type(error).__name__})")
        if said.status_code >= 500:
            return Look(answer, f"HTTP {said.status_code}")
        other = bool(self.expected) and answer != self.expected
        return Look(answer, f"another answer than “{self.expected}”" if other else "", other=other)


def _title(said: httpx.Response) -> str:
    start = b""
    for piece in said.iter_bytes():
        start += piece
        if len(start) > _PAGE or b"</title>" in start.lower():
            break
    return title_of(start.decode(said.encoding or "utf-8", "replace"))


@dataclass(frozen=True)
class SmtpCheck:
    """A mail exchanger that must greet with `expected`. `timeout` in seconds."""

    host: str
    port: int = 25
    timeout: float = 10.0
    expected: str = "220"
    every: float = 300.0
    steady: bool = False

    @property
    def label(self) -> str:
        """Return which exchanger is greeted."""
        return f"smtp {self.host}"

    def expecting(self, answer: str) -> SmtpCheck:
        """Return the same exchanger, with this greeting as the right one."""
        return replace(self, expected=answer)

    def look(self) -> Look:
        """Read the banner once, and take leave."""
        try:
            with socket.create_connection((self.host, self.port), self.timeout) as made:
                banner = made.recv(512).decode("ascii", "replace").strip()
                with contextlib.suppress(OSError):
                    made.sendall(b"QUIT\r\n")
        except OSError as error:
            return Look("", f"no answer ({type(error).__name__})")
        greets = banner.startswith(self.expected)
        return Look(banner, "" if greets else "it does not greet", other=bool(banner) and not greets)


def checks_of(plan: Plan, resolvers: Sequence[str], nameservers: Sequence[str]) -> list[Check]:
    """Return what to look at for a domain: what the zone says of its web and its mail, right before as after.

    `nameservers` are those of before and after, all of which are right in between.
    """
    name, old, new = plan.export.name, plan.export, plan.zone
    led = {one.host: one for one in plan.redirections}
    asked: dict[tuple[str, str], frozenset[str]] = {
        (name, "SOA"): frozenset(),
        (name, "NS"): frozenset(f"{server}." for server in nameservers),
    }
    pages: list[str] = []
    for host in dict.fromkeys([name, f"www.{name}", *led]):
        label = "@" if host == name else host.removesuffix(f".{name}")
        for kind in ("A", "AAAA", "CNAME", "MX"):
            before, after = old.rrsets.get((label, kind)), new.rrsets.get((label, kind))
            if before and after:
                asked[host, kind] = frozenset({*before.values, *after.values})
        if host in led or {(label, kind) for kind in ("A", "AAAA", "CNAME")} & set(new.rrsets):
            if not {(host, kind) for kind in ("A", "AAAA", "CNAME")} & set(asked):
                asked[host, "A"] = frozenset()  # it changes with the move: only that there is one matters
            secure_only = host in led and led[host].protocol == "httpsonly"
            pages += [f"https://{host}/"] if secure_only else [f"http://{host}/", f"https://{host}/"]
    exchangers = {
        host_of(value)
        for rrset in (*old.rrsets.values(), *new.rrsets.values())
        if rrset.type == "MX"
        for value in rrset.values
    }
    return [
        *(
            DnsCheck(f"par {resolver}", resolver, asked_name, kind, accepted)
            for resolver in resolvers
            for (asked_name, kind), accepted in asked.items()
        ),
        *map(HttpCheck, pages),
        *map(SmtpCheck, sorted(exchangers - {""})),
    ]


def answering(checks: Sequence[Check], known: Mapping[str, str]) -> tuple[list[Check], list[str]]:
    """Divide checks: those worth looking at, and the labels of those that give no good answer to begin with.

    A site without HTTPS or an exchanger that this machine cannot reach is no darkness. Questions to resolvers always
    count, and so does what answered in an earlier run (`known`, by label).
    """
    kept, silent = [], []
    for check in checks:
        if isinstance(check, DnsCheck) or check.label in known or not check.look().failed:
            kept.append(check)
        else:
            silent.append(check.label)
    return kept, silent


@dataclass
class _Run:
    """Looks at one thing that saw the same, one after the other."""

    check: str
    look: Look
    at: datetime
    until: datetime
    looks: int = 1
    ms: int = 0

    def line(self) -> dict[str, Any]:
        """Return what is written of it; `ms` is the longest that an answer took."""
        look = self.look
        return {
            "check": self.check,
            "at": self.at.isoformat(),
            "until": self.until.isoformat(),
            "looks": self.looks,
            "answer": look.answer,
            **({"ad": look.secure} if look.secure is not None else {}),
            **({"failed": look.failed} if look.failed else {}),
            "ms": self.ms,
        }


@dataclass
class Probe:
    """Looks at a domain in rounds until it is stopped; use it as a context to let it run beside.

    `interval` is the time from one round to the next, `patience` the time after which what was seen is written to the
    store (a failure is written at once), both in seconds. What the store does not take is kept and tried again.
    """

    domain: str
    checks: Sequence[Check]
    store: Store
    interval: float = 5.0
    patience: float = 60.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _id: str = field(default="", init=False)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1), init=False)
    _first: dict[str, str] = field(default_factory=dict, init=False)
    _unproven: list[str] = field(default_factory=list, init=False)
    _due: dict[str, float] = field(default_factory=dict, init=False)
    _dark: set[str] = field(default_factory=set, init=False)
    _open: dict[str, _Run] = field(default_factory=dict, init=False)
    _runs: list[_Run] = field(default_factory=list, init=False)
    _rounds: list[datetime] = field(default_factory=list, init=False)
    _before: datetime | None = field(default=None, init=False)
    _unwritten: str = field(default="", init=False)

    def round(self) -> bool:
        """Look at each thing whose time has come; return whether something began or ended to fail."""
        self._rounds.append(self.now())
        news = False
        for check in self.checks:
            if self._due.get(check.label, 0.0) <= time.monotonic():
                self._due[check.label] = time.monotonic() + check.every
                news = self._look(check) or news
        return news

    def _look(self, check: Check) -> bool:
        label, at, start = check.label, self.now(), time.monotonic()
        known = self._first.get(label) if check.steady else None
        look = (check.expecting(known) if known else check).look()
        took = round((time.monotonic() - start) * 1000)
        if not look.failed:
            self._first.setdefault(label, look.answer)
            if label in self._unproven and check.expecting(_WRONG).look().other:
                self._unproven.remove(label)
        run = self._open.get(label)
        if run and run.look == look:
            run.until, run.looks, run.ms = at, run.looks + 1, max(run.ms, took)
        else:
            self._open[label] = run = _Run(label, look, at, at, ms=took)
            self._runs.append(run)
        was_dark = label in self._dark
        (self._dark.add if look.failed else self._dark.discard)(label)
        return was_dark != bool(look.failed)

    def _lines(self) -> str:
        """Return what was seen since the last lines, and begin anew."""
        if not self._rounds:
            return ""
        moments = [self._before or self._rounds[0], *self._rounds]
        pauses = (after - before for before, after in pairwise(moments))
        watched = {
            "at": self._rounds[0].isoformat(),
            "until": self._rounds[-1].isoformat(),
            "rounds": len(self._rounds),
            "pause": max(pause.total_seconds() for pause in pauses),
            "unproven": self._unproven,
        }
        lines = [watched, *(run.line() for run in self._runs)]
        self._before, self._runs, self._open, self._rounds = self._rounds[-1], [], {}, []
        signed = [{"probe": self._id, "line": next(self._numbers), **line} for line in lines]
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in signed)

    def write(self) -> None:
        """Write what was seen; a store that cannot be reached gets it the next time."""
        self._unwritten += self._lines()
        with contextlib.suppress(UnreachableError):
            if self._unwritten:
                self.store.add(self.domain, DOCUMENT, self._unwritten)
                self._unwritten = ""

    def run(self) -> None:
        """Look until `stop` is called."""
        due = write = time.monotonic()
        while not self._stop.is_set():
            if self.round() or write <= time.monotonic():
                self.write()
                write = time.monotonic() + self.patience
            due = max(due + self.interval, time.monotonic())
            self._stop.wait(due - time.monotonic())
        self.write()

    def stop(self) -> None:
        """Let the current round be the last."""
        self._stop.set()

    def __enter__(self) -> Probe:
        """Start looking; raise UnreachableError when the store cannot be read."""
        self._id, self._unproven = secrets.token_hex(4), [check.label for check in self.checks]
        self._first = first_answers(self.domain, self.store)
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
        """Return what has been written so far, None when nothing yet."""
        return tally(self.domain, self.store, since)


@dataclass(frozen=True)
class _Watched:
    """A span in which all was looked at, round after round; `pause` is the longest between two rounds, seconds."""

    at: datetime
    until: datetime
    pause: float
    unproven: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """A run of equal looks at one thing, as it was written."""

    check: str
    at: datetime
    until: datetime
    looks: int
    answer: str
    failed: str


def _parsed(entry: Mapping[str, Any]) -> _Watched | _Seen:
    at, until = (datetime.fromisoformat(entry[key]) for key in ("at", "until"))
    if "check" not in entry:
        return _Watched(at, until, float(entry["pause"]), tuple(map(str, entry["unproven"])))
    failed = str(entry.get("failed", ""))
    return _Seen(str(entry["check"]), at, until, int(entry["looks"]), str(entry["answer"]), failed)


def _written(domain: str, store: Store) -> Iterator[_Watched | _Seen]:
    """Return what a domain's probes wrote, without the lines that cannot be read.

    Each line counts once: a line of which the receipt was lost was written twice.
    """
    last: dict[str, int] = {}
    for line in (store.kept(domain, DOCUMENT) or "").splitlines():
        try:
            entry = json.loads(line)
            probe, number, parsed = str(entry["probe"]), int(entry["line"]), _parsed(entry)
        except (ValueError, KeyError, TypeError):
            continue
        if number > last.get(probe, 0):
            last[probe] = number
            yield parsed


def first_answers(domain: str, store: Store) -> dict[str, str]:
    """Return the first good answer of everything that was ever looked at, by label."""
    found: dict[str, str] = {}
    for entry in _written(domain, store):
        if isinstance(entry, _Seen) and not entry.failed:
            found.setdefault(entry.check, entry.answer)
    return found


@dataclass
class _Count:
    """What has been counted so far, line by line."""

    total: int = 0
    failed: int = 0
    first: datetime | None = None
    last: datetime | None = None
    gap: float = 0.0
    silence: float = 0.0
    shown: list[str] = field(default_factory=list)
    good: dict[str, datetime] = field(default_factory=dict)
    dark: dict[str, datetime] = field(default_factory=dict)
    unproven: tuple[str, ...] = ()

    def add(self, entry: _Watched | _Seen) -> None:
        """Count one line."""
        if isinstance(entry, _Watched):
            since = self.last or entry.at
            self.silence = max(self.silence, entry.pause, (entry.at - since).total_seconds())
            self.last = max(since, entry.until)
            self.unproven = entry.unproven
        else:
            self._seen(entry)

    def _seen(self, entry: _Seen) -> None:
        check = entry.check
        self.total += entry.looks
        self.first = min(self.first or entry.at, entry.at)
        if not entry.failed:
            if check in self.dark:
                self.gap = max(self.gap, (entry.at - self.dark.pop(check)).total_seconds())
            self.good[check] = entry.until
            return
        self.failed += entry.looks
        self.gap = max(
            self.gap, (entry.until - self.dark.setdefault(check, self.good.get(check, entry.at))).total_seconds()
        )
        if len(self.shown) < _SHOWN:
            times = f" ({entry.looks} times)" if entry.looks > 1 else ""
            self.shown.append(f"{entry.at.isoformat(timespec='seconds')} {check}: {entry.failed}{times}")


def tally(domain: str, store: Store, since: datetime | None = None) -> Tally | None:
    """Count what a domain's probes wrote (from `since` on); None when there is nothing.

    The longest gap runs from the last good look before a failure to the next good one at the same check; the longest
    silence is the longest time in which nothing was looked at. Lines that cannot be read do not count as looks.
    """
    counted = _Count()
    for entry in _written(domain, store):
        if since is None or entry.at >= since:
            counted.add(entry)
    if counted.first is None or counted.last is None:
        return None
    return Tally(
        domain,
        counted.first,
        counted.last,
        counted.total,
        counted.failed,
        counted.gap,
        tuple(counted.shown),
        longest_silence=counted.silence,
        unproven=counted.unproven,
    )
