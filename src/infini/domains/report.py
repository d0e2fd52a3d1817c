# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of one move on one page: what was carried, what was compared, what was probed, when, and by whom.

It claims what was looked at and nothing else, and says so. Every number says what it counts, and they add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infini.domains.board import MAIL, STATES, Row, known, pages
from infini.domains.events import Event
from infini.domains.move import Move
from infini.domains.observed import Parity, Tally
from infini.domains.states import State
from infini.phrase import Phrase, said

OUTCOMES: Mapping[str, str] = {
    "identical": Phrase("carried as they are"),
    "rewritten": Phrase("carried and changed, with the reason"),
    "dropped": Phrase("left on purpose, with the reason"),
    "blocked": Phrase("waiting for a decision"),
}
OUTCOME: Mapping[str, str] = {
    "rewritten": Phrase("carried and changed"),
    "dropped": Phrase("left on purpose"),
    "blocked": Phrase("waiting"),
}
FORETOLD: Mapping[str, str] = {
    "plan": Phrase("changed as the plan foretells"),
    "ttl": Phrase("with another lifetime (TTL) only, which we lowered at Gandi"),
    "dnssec": Phrase("about Gandi's signing keys, which do not move"),
    "unreadable-record": Phrase("in the place of a record that nobody can read"),
}
"""Why an answer may differ, by the rule that the comparison gives."""
DECIDED: Mapping[str, str] = {
    "consent": Phrase("the holder agrees, paid by"),
    "withdraw-consent": Phrase("agreement withdrawn"),
    "mail-mode": Phrase("mail:"),
    "waiver": Phrase("accepted:"),
    "price": Phrase("price accepted, in euros:"),
    "mail-copied": Phrase("mailbox copied and counted:"),
    "mail-abandoned": Phrase("mailbox given up:"),
    "services-checked": Phrase("services checked"),
    "redirection": Phrase("a frame becomes an ordinary redirection:"),
    "secured": Phrase("lock checked"),
    "skip": Phrase("step skipped"),
    "retry": Phrase("tried again"),
    "rollback": Phrase("taking back asked for"),
    "resume": Phrase("resumed"),
    "abandon": Phrase("given up"),
}


@dataclass(frozen=True)
class Entered:
    """A state and when it was entered."""

    state: State
    at: datetime

    @property
    def label(self) -> str:
        """Return the state for people."""
        return said(STATES[self.state])


@dataclass(frozen=True)
class Comparison:
    """One comparison, counted in answers of the new servers; `expected` by rule. `questions` went to all servers."""

    at: datetime
    questions: int
    identical: int
    expected: Mapping[str, int]
    unexpected: int

    @classmethod
    def of(cls, event: Event) -> Comparison:
        """Return what an event of kind `parity` tells."""
        data = event.data
        return cls(event.at, data["queries"], data["identical"], data["expected"], data["unexpected_count"])

    @property
    def answers(self) -> int:
        """Return how many answers were judged."""
        return self.identical + sum(self.expected.values()) + self.unexpected


@dataclass(frozen=True)
class Proof:
    """What can be shown of one move. `plan` is `Plan.to_json()`; what was never done is None."""

    row: Row
    events: tuple[Event, ...]
    now: datetime
    plan: Mapping[str, Any] | None = None
    parity: Parity | None = None
    tally: Tally | None = None

    @classmethod
    def of(cls, move: Move) -> Proof:
        """Return what can be shown of a move now."""
        plan, events, now = move.plan(), tuple(move.store.read(move.domain)), move.clock.now()
        tally = move.dns.tally(move.domain)
        return cls(known(move), events, now, plan.to_json() if plan else None, move.memory().parity, tally)

    @property
    def entered(self) -> list[Entered]:
        """Return the states in the order they were entered."""
        found = [Entered(State(event.data["to"]), event.at) for event in self.events if event.kind == "state"]
        return [
            one for one, before in zip(found, [None, *found], strict=False) if not before or one.state != before.state
        ]

    @property
    def comparisons(self) -> list[Comparison]:
        """Return the comparisons of old and new servers, oldest first."""
        return [Comparison.of(event) for event in self.events if event.kind == "parity"]

    @property
    def decisions(self) -> list[Event]:
        """Return what people decided, oldest first."""
        return [event for event in self.events if event.kind == "decision"]

    @property
    def accounted(self) -> bool:
        """Return whether every record of the old zone has exactly one outcome."""
        plan = self.plan
        return plan is not None and plan["balanced"] and plan["seen"] == sum(plan[key] for key in OUTCOMES)

    @property
    def addition(self) -> str:
        """Return how the outcomes add up to what was read, written out."""
        plan = self.plan or {}
        return " + ".join(str(plan[key]) for key in OUTCOMES if plan.get(key)) + f" = {plan.get('seen', 0)}"

    @property
    def changed(self) -> Sequence[Mapping[str, Any]]:
        """Return the records that were not carried as they were."""
        outcomes: Sequence[Mapping[str, Any]] = (self.plan or {}).get("outcomes", ())
        return [outcome for outcome in outcomes if outcome["what"] != "identical"]

    @property
    def clean(self) -> bool:
        """Return whether the move is over and everything that was to be proven is."""
        return not self.missing

    @property
    def missing(self) -> list[str]:
        """Return, for people, what the proof still lacks."""
        return [said(phrase) for phrase in (*self._unfinished(), *self._unread(), *self._unseen())]

    def _unfinished(self) -> Iterator[Phrase]:
        row = self.row
        if row.side == State.ABANDONED:
            yield Phrase("the move was given up")
        elif row.going_back:
            yield Phrase("somebody asked that the move be taken back")
        elif row.state != State.DONE:
            yield Phrase("the move is not over: {state}", state=row.label)

    def _unread(self) -> Iterator[Phrase]:
        parity = self.parity
        if self.plan is None:
            yield Phrase("the records have not been read yet")
        elif not self.accounted:
            yield Phrase("the records do not add up")
        if parity is None or not parity.queries:
            yield Phrase("the answers of the old and new servers have not been compared yet")
        elif parity.unexpected:
            yield Phrase("the last comparison found differences that nothing foretells")
        elif not parity.canary_caught:
            yield Phrase("the last comparison did not see the error that was made on purpose")

    def _unseen(self) -> Iterator[Phrase]:
        if self.tally is None or not self.tally.total:
            yield Phrase("the probe has not looked yet")
        elif self.tally.failed:
            yield Phrase("the probe saw failures: {count}", count=self.tally.failed)
        elif self.tally.unproven:
            yield Phrase("the probe has seen no deliberate error yet at {what}", what=self.tally.unproven[0])

    def to_json(self) -> dict[str, Any]:
        """Return the proof as data for JSON."""
        parity, tally = self.parity, self.tally
        last = self.comparisons[-1] if self.comparisons else None
        return {
            "ok": self.clean,
            "missing": self.missing,
            "domain": self.row.domain,
            "state": str(self.row.state),
            "records": {key: self.plan[key] for key in ("seen", *OUTCOMES)} if self.plan else None,
            "accounted": self.accounted,
            "parity": parity
            and last
            and {
                "at": parity.at.isoformat(),
                "queries": last.questions,
                "answers": last.answers,
                "identical": last.identical,
                "expected": sum(last.expected.values()),
                "unexpected": last.unexpected,
                "canary_caught": parity.canary_caught,
            },
            "probe": tally
            and {
                "since": tally.since.isoformat(),
                "until": tally.until.isoformat(),
                "total": tally.total,
                "failed": tally.failed,
                "longest_gap": tally.longest_gap,
            },
            "states": [{"state": str(one.state), "at": one.at.isoformat()} for one in self.entered],
        }

    def html(self) -> str:
        """Return the page; it needs nothing else and prints on a sheet."""
        words = {"outcomes": OUTCOMES, "outcome": OUTCOME, "foretold": FORETOLD, "decided": DECIDED, "mail": MAIL}
        return pages().get_template("report.html.jinja").render(proof=self, **words)
