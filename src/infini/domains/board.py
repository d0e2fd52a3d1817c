# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board of all moves, for people: what each domain waits for, who must act, what expires.

A row is what was last seen of a domain; it is kept beside the domain's events, so that the board needs neither tokens
nor the network. The page is one file that runs nothing and fetches nothing.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from infini.domains.events import Store
from infini.domains.move import Move, Step
from infini.domains.ports import ByHandError, WorldError
from infini.domains.states import CHAIN, POINT_OF_NO_RETURN, RANK, Evidence, State, Verdict, judge, locked, transfer_due
from infini.phrase import Phrase, said

TEMPLATES = Path(__file__).parent / "templates"
DOCUMENT = "board.json"
EXPIRES_SOON = timedelta(days=60)
STUCK = timedelta(days=14)

STATES: Mapping[State, str] = {
    State.DISCOVERED: Phrase("spotted"),
    State.EXPORTED: Phrase("copied"),
    State.AUDITED: Phrase("examined"),
    State.CONSENTED: Phrase("agreed to"),
    State.PROVISIONED: Phrase("zone set up at our place"),
    State.PARITY_OK: Phrase("answers compared"),
    State.TTL_LOWERED: Phrase("lifetimes shortened"),
    State.DS_REMOVED: Phrase("signature withdrawn from the registry"),
    State.NS_SWITCHED: Phrase("switched"),
    State.SETTLED: Phrase("switch settled"),
    State.SERVICES_OK: Phrase("services checked"),
    State.UNLOCK_REQUESTED: Phrase("unlocking asked for"),
    State.UNLOCKED: Phrase("unlocked"),
    State.AUTHCODE_HELD: Phrase("transfer code held"),
    State.TRANSFER_ORDERED: Phrase("transfer ordered"),
    State.TRANSFER_PENDING: Phrase("transfer under way"),
    State.TRANSFERRED: Phrase("transferred"),
    State.RESECURED: Phrase("signed again"),
    State.DONE: Phrase("done"),
    State.BLOCKED: Phrase("blocked"),
    State.WAITING: Phrase("waiting"),
    State.FAILED: Phrase("failed"),
    State.ROLLED_BACK: Phrase("taken back"),
    State.ABANDONED: Phrase("given up"),
}
WHO: Mapping[str, str] = {
    "tool": Phrase("the command"),
    "volunteer": Phrase("volunteer"),
    "member": Phrase("member"),
    "gandi": Phrase("Gandi"),
    "registry": Phrase("registry"),
}
ACTS = ("volunteer", "member", "tool", "gandi", "registry")
"""Who must act, those who wait for us first."""
MAIL: Mapping[str, str] = {
    "none": Phrase("no mail"),
    "external": Phrase("elsewhere"),
    "gandi": Phrase("stays at Gandi"),
    "infini": Phrase("comes to Infini"),
    "": Phrase("to be chosen"),
}
SAID: Mapping[str, str] = {
    "token-expired": Phrase("Gandi refuses the token: it has expired, or lacks a right. Make another one at Gandi."),
    "wrong-organisation": Phrase(
        "This token does not see this domain: it belongs to another organisation. Ask the member."
    ),
    "world": Phrase("An answer was lost, or a service is down: the command tries again by itself."),
}
"""What people read in place of what a service said, by code."""
STANDING = (State.BLOCKED, State.FAILED)
COLUMNS = (
    Phrase("domain"),
    Phrase("where it stands"),
    Phrase("who"),
    Phrase("not before"),
    Phrase("expires"),
)
ACCESS: Mapping[str, str] = {"A": Phrase("our token"), "B": Phrase("the member's token"), "C": Phrase("by hand")}


@dataclass(frozen=True)
class Row:
    """What was last seen of one domain. Times are aware; `since` is when it entered its state.

    `side` is empty while the move goes on. `code` names a block. `deadline` is when somebody else's term ends.
    `blocked` counts what waits for a decision, `unexpected` the differences of the last comparison, `probe_*` what the
    continuous probe saw. `ds` is whether the registry still has a key of the domain. `going_back` is the state to which
    somebody asked that all be taken back.
    """

    domain: str
    state: State
    since: datetime
    seen: datetime
    reason: str = ""
    side: State | None = None
    code: str = ""
    next: State | None = None
    action: str = ""
    who: str = "tool"
    waiting_until: datetime | None = None
    irreversible: bool = False
    rollback: str = ""
    name_unicode: str = ""
    level: str = "A"
    tld: str = ""
    expires: datetime | None = None
    mail: str = ""
    mailboxes: int = 0
    mailboxes_left: int = 0
    blocked: int = 0
    parity_at: datetime | None = None
    parity_queries: int = 0
    unexpected: int = 0
    probe_total: int = 0
    probe_failed: int = 0
    ds: bool = False
    locked: bool = True
    code_expires: datetime | None = None
    deadline: datetime | None = None
    going_back: State | None = None

    @property
    def shown(self) -> str:
        """Return the name as people write it."""
        return self.name_unicode or _unicode(self.domain)

    @property
    def label(self) -> str:
        """Return the state for people, what stands still first."""
        side = f"{said(STATES[self.side])} : " if self.side else ""
        return side + said(STATES[self.state])

    @property
    def over(self) -> bool:
        """Return whether nothing is left to do."""
        return self.state == State.DONE or self.side == State.ABANDONED

    def to_json(self) -> dict[str, Any]:
        """Return the row as data for JSON."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Return the row of such data; keys that this version does not know are passed over."""
        known = {one.name: str(one.type) for one in fields(cls)}
        return cls(**{key: _value(known[key], value) for key, value in data.items() if key in known})


def _value(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind.startswith("datetime"):
        return datetime.fromisoformat(value)
    return State(value) if kind.startswith("State") else value


def _unicode(name: str) -> str:
    try:
        return name.encode("ascii").decode("idna")
    except UnicodeError:
        return name


def row(evidence: Evidence, verdict: Verdict, since: datetime | None = None) -> Row:
    """Return the row of a domain whose evidence was just judged; `since` is when it entered its state."""
    e, parity, tally = evidence, evidence.parity, evidence.tally
    boxes = {box.lower() for box in e.mailboxes}
    return Row(
        domain=e.domain,
        state=verdict.state,
        since=since or e.last_event or e.now,
        seen=e.now,
        reason=said(SAID.get(verdict.code, verdict.reason)),
        side=verdict.side,
        code=verdict.code,
        next=verdict.next,
        action=verdict.action,
        who=verdict.who,
        waiting_until=verdict.waiting_until,
        irreversible=verdict.irreversible,
        rollback=verdict.rollback,
        name_unicode=e.facts.name_unicode if e.facts else "",
        level=e.level,
        tld=e.rule.tld if e.rule else e.domain.rpartition(".")[2],
        expires=(e.rdap.expires if e.rdap else None) or (e.facts.expires if e.facts else None),
        mail=e.mail_mode or "",
        mailboxes=len(boxes),
        mailboxes_left=len(boxes - e.mail_settled),
        blocked=len(e.problems),
        parity_at=parity.at if parity else None,
        parity_queries=parity.queries if parity else 0,
        unexpected=len(parity.unexpected) if parity else 0,
        probe_total=tally.total if tally else 0,
        probe_failed=tally.failed if tally else 0,
        ds=bool(e.delegation and e.delegation.ds),
        locked=locked(e),
        code_expires=e.code_expires,
        deadline=transfer_due(e) if e.order and e.order.stage == "pending" else None,
        going_back=e.rollback_to,
    )


def look(move: Move, step: Step | None = None) -> Row:
    """Look at a domain (or take what a step just found), keep its row and return it.

    What cannot be read now leaves the row as it was, with what the step says.
    """
    since = next((event.at for event in reversed(move.store.read(move.domain)) if event.kind == "state"), None)
    try:
        evidence = move.evidence(deep=False)
    except (WorldError, ByHandError):
        found = kept(move.store, move.domain) or Row(move.domain, State.DISCOVERED, move.clock.now(), move.clock.now())
        found = replace(found, going_back=move.memory().rollback)
    else:
        found = row(evidence, step.verdict if step else judge(evidence), since)
    if step:
        verdict = step.verdict
        found = replace(
            found,
            seen=step.at,
            reason=said(SAID.get(verdict.code) or step.says or verdict.reason),
            side=verdict.side,
            code=verdict.code,
            action=verdict.action,
            who=verdict.who,
            waiting_until=verdict.waiting_until,
        )
    keep(move.store, found)
    return found


def keep(store: Store, seen: Row) -> None:
    """Keep a row beside its domain's events."""
    store.keep(seen.domain, DOCUMENT, json.dumps(seen.to_json(), ensure_ascii=False))


def kept(store: Store, domain: str) -> Row | None:
    """Return the row that was last kept, None when there is none."""
    text = store.kept(domain, DOCUMENT)
    return Row.from_json(json.loads(text)) if text else None


def known(move: Move) -> Row:
    """Return the row that was last kept, with what was asked for since; look at the domain when there is none."""
    found = kept(move.store, move.domain)
    return replace(found, going_back=move.memory().rollback) if found else look(move, move.advance())


def read(store: Store, now: datetime) -> Board:
    """Return the board of all that a store knows; a domain that was never looked at is just known."""
    rows = []
    for domain in store.domains():
        found = kept(store, domain)
        if found is None:
            at = store.read(domain)[0].at
            found = Row(domain, State.DISCOVERED, at, at, said(Phrase("known, never looked at")), who="volunteer")
        rows.append(found)
    return Board(tuple(rows), now)


@dataclass(frozen=True)
class Board:
    """All rows at one moment."""

    rows: tuple[Row, ...]
    now: datetime

    @property
    def ordered(self) -> list[Row]:
        """Return the rows, those that need somebody first, what is over last."""
        return sorted(self.rows, key=self._urgency)

    def _urgency(self, one: Row) -> tuple[Any, ...]:
        far = datetime.max.replace(tzinfo=UTC)
        return one.over, one.side not in STANDING, ACTS.index(one.who), one.waiting_until or far, one.domain

    def soon(self, one: Row) -> bool:
        """Return whether a domain expires soon; one that is over was renewed by its transfer."""
        return one.expires is not None and not one.over and one.expires - self.now < EXPIRES_SOON

    def stuck(self, one: Row) -> bool:
        """Return whether a domain has not moved for too long, and waits for no date to come."""
        coming = one.waiting_until is not None and one.waiting_until > self.now
        return not one.over and not coming and self.now - one.since > STUCK

    def days(self, one: Row) -> int:
        """Return for how many whole days a domain has been in its state."""
        return max(0, (self.now - one.since).days)

    @property
    def counts(self) -> dict[str, int]:
        """Return how many domains are in each state, in the chain's order, then those that stand still."""
        found = Counter(one.side if one.side in STANDING else one.state for one in self.rows)
        return {said(STATES[state]): found[state] for state in (*CHAIN, *STANDING) if state in found}

    @property
    def codes(self) -> dict[str, int]:
        """Return how many domains each code blocks, the most frequent first."""
        return dict(Counter(one.code for one in self.rows if one.side in STANDING and one.code).most_common())

    @property
    def calendar(self) -> dict[str, list[Row]]:
        """Return, by day, the domains whose wait ends that day."""
        waits = sorted(
            (one for one in self.rows if one.waiting_until and one.waiting_until > self.now and not one.over),
            key=lambda one: (one.waiting_until, one.domain),
        )
        return {day: list(those) for day, those in groupby(waits, key=lambda one: date(one.waiting_until))}

    def to_json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {
            "ok": True,
            "domains": len(self.rows),
            "done": sum(one.state == State.DONE for one in self.rows),
            "states": dict(Counter(str(one.state) for one in self.rows)),
            "blocked": self.codes,
            "expires_soon": [one.domain for one in self.ordered if self.soon(one)],
            "stuck": [one.domain for one in self.ordered if self.stuck(one)],
            "rows": [one.to_json() for one in self.ordered],
        }

    def table(self) -> Table:
        """Return the board for a terminal."""
        table = Table(*(Column(said(title), overflow="fold") for title in COLUMNS), box=SIMPLE_HEAD)
        for one in self.ordered:
            days = said(Phrase("{count} d", count=self.days(one)))
            table.add_row(
                one.shown,
                Text.assemble((one.label, _style(one)), f", {days}" if self.stuck(one) else "", f"\n{one.reason}"),
                "" if one.over else said(WHO[one.who]),
                "" if one.over else moment(one.waiting_until),
                Text(date(one.expires), style="bold red" if self.soon(one) else ""),
            )
        table.caption = ", ".join(f"{label} {count}" for label, count in self.counts.items())
        return table

    def csv(self) -> str:
        """Return the board for a spreadsheet: semicolons, because French ones expect them; dates as ISO."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter=";", lineterminator="\n")
        writer.writerow([one.name for one in fields(Row)])
        for one in self.ordered:
            writer.writerow([_cell(value) for value in one.to_json().values()])
        return out.getvalue()

    def html(self) -> str:
        """Return the board as one page that needs nothing else."""
        environment = pages()
        environment.tests.update(soon=self.soon, stuck=self.stuck)
        page = environment.get_template("board.html.jinja")
        words = {"who": WHO, "acts": ACTS, "mail": MAIL, "states": STATES, "access": ACCESS}
        return page.render(board=self, rank=RANK, no_return=POINT_OF_NO_RETURN, **words)

    def waiting_for(self, who: str) -> list[Row]:
        """Return the domains where this one must act now."""
        return [one for one in self.ordered if not one.over and one.who == who and not self._later(one)]

    def _later(self, one: Row) -> bool:
        return one.waiting_until is not None and one.waiting_until > self.now and one.side not in STANDING


def _style(one: Row) -> str:
    if one.side in STANDING:
        return "bold red"
    return "green" if one.over else ""


def _cell(value: Any) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def pages() -> Environment:
    """Return what makes a page of a template: `_` says a msgid with its values, `said` what was said elsewhere."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True)
    environment.filters.update(date=date, moment=moment, said=said)
    environment.globals["_"] = lambda msgid, **values: said(Phrase(msgid, **values))
    return environment


def date(when: datetime | None) -> str:
    """Return a day as the French write it, here where it is read; empty for None."""
    return when.astimezone().strftime("%d/%m/%Y") if when else ""


def moment(when: datetime | None) -> str:
    """Return a day and hour as the French write them; empty for None."""
    return when.astimezone().strftime("%d/%m/%Y %H:%M") if when else ""


def write(board: Board, html: Path | None = None, table: Path | None = None) -> Sequence[Path]:
    """Write the page and the CSV where they are wanted; return what was written."""
    written = []
    for path, content in ((html, board.html), (table, board.csv)):
        if path:
            path.write_text(content(), encoding="utf-8")
            written.append(path)
    return written
