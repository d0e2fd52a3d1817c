# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole fleet moves in a simulated world, with people who answer; what came of it is counted afterwards.

Each archetype says beforehand how its move must end. Time jumps to the next moment at which something can happen.
"""

from __future__ import annotations

import heapq
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from infini.domains import archetypes, board
from infini.domains.archetypes import Archetype
from infini.domains.board import Row
from infini.domains.hints import Hint, code, consent, mail_copied, on
from infini.domains.move import Move, Step
from infini.domains.ports import ByHandError, WorldError
from infini.domains.rehearsal import Rehearsal
from infini.domains.simulator.clock import START
from infini.domains.simulator.faults import KINDS
from infini.domains.states import State, Verdict, judge, legal
from infini.phrase import Phrase

PATIENCE = 12
"""How often people try to mend one block before they leave it."""
HORIZON = timedelta(days=500)
CHANCE = 0.02
"""The chance of a fault at each call, when every fault is on."""
MOST_A_SECOND = 5
"""Requests that Gandi may be asked in a second."""
STRIDE = timedelta(hours=1)
"""How long until the next look when nothing says when one is worth it."""
CODES = ("hold-code", "reset-code")
"""What ends with a code that the member reads to a volunteer."""
LONGEST, BLINK = timedelta(days=60), timedelta(seconds=1)
"""How long nothing may happen, and the least that passes between two looks."""
MESSAGES = 12
"""How many messages every mailbox of a rehearsal holds."""
HOLDER, PAYER = "Camille", "association"
"""Who answers in a rehearsal by hand."""


@dataclass
class People:
    """The volunteer and the members of a rehearsal: they decide what the archetype says, click and copy.

    `tried` counts what was tried against each block of each domain.
    """

    rehearsal: Rehearsal
    tried: Counter[tuple[str, str]] = field(default_factory=Counter)

    def prepare(self, one: Archetype, move: Move) -> None:
        """Settle what is settled beforehand: where mail goes, what is waived, consent."""
        move.decide("mail-mode", {"mode": one.decisions.mail})
        for subject, reason in one.decisions.waivers.items():
            move.decide("waiver", {"subject": subject, "reason": reason})
        if one.decisions.consent:
            day = f"{self.rehearsal.clock.now():%Y-%m-%d}"
            move.decide("consent", {"by": "le titulaire de la répétition", "date": day, "payer": "infini"})
        if one.level == "C":
            self.rehearsal.paste(one.domain)

    def react(self, one: Archetype, move: Move, step: Step) -> timedelta | None:
        """Do what a block asks people to do; return how long they took, None when they leave it."""
        if step.code == one.blocked:
            return None
        if step.code == "by-hand":
            return self._by_hand(one, step.verdict.action)
        self.tried[one.domain, step.code] += 1
        if self.tried[one.domain, step.code] > PATIENCE:
            return None
        if step.code == "mail-not-copied" and not one.decisions.mailboxes_copied:
            return None
        for kind, data in self._answers(one, move, step):
            move.decide(kind, data)
        return timedelta(hours=1)

    def _answers(self, one: Archetype, move: Move, step: Step) -> list[tuple[str, dict[str, Any]]]:
        """Return the decisions that answer a block; what nobody knows better is tried again."""
        if step.code == "mail-not-copied":
            self.rehearsal.do("mail-copied", name=one.domain)
            return [("mail-copied", {"address": box, "before": MESSAGES, "after": MESSAGES}) for box in one.mailboxes]
        if step.code in ("no-quote", "price-unconfirmed"):
            quote = move.memory().quote
            return [("price", {"euros": quote.price if quote and quote.price is not None else 15})]
        if step.code == "services-unchecked":
            return [("services-checked", {})]
        if step.code == "lock-missing":
            return [("secured", {})]
        if step.code == "zone-drifted":
            return [("waiver", {"subject": "zone-drifted", "reason": "vu avec le membre, la zone est relue"})]
        return [("retry", {})]

    def _by_hand(self, one: Archetype, action: str) -> timedelta | None:
        self.tried[one.domain, action] += 1
        if self.tried[one.domain, action] > PATIENCE * 3:
            return None
        if action not in CODES or not self.rehearsal.hand_over_code(one.domain):
            self.rehearsal.click(one.domain, action)
            self.rehearsal.paste(one.domain)
        return timedelta(hours=6)


@dataclass
class Ending:
    """How one domain's move ended: DONE, or the code of what stopped it."""

    one: Archetype
    step: Step
    looks: int = 0

    @property
    def got(self) -> str:
        """Return DONE, or the code (else the state) where it stopped."""
        return "DONE" if self.step.done else self.step.code or str(self.step.side or self.step.state)

    @property
    def expected(self) -> bool:
        """Return whether the archetype said so beforehand."""
        return self.got == self.one.end


class Fleet:
    """The domains of a rehearsal on their way, each woken when it is worth a look."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.rehearsal, self.people = rehearsal, People(rehearsal)
        self.endings: dict[str, Ending] = {}
        now = rehearsal.clock.now()
        self._queue = [(now, number, name) for number, name in enumerate(rehearsal.cast)]
        heapq.heapify(self._queue)
        self._looks: Counter[str] = Counter()
        self._end = now + HORIZON

    def run(self, until: datetime | None = None) -> None:
        """Go on until every domain has ended, or a moment (the horizon, without one) is reached."""
        end = until or self._end
        while self._queue and self._queue[0][0] < end:
            due, number, name = heapq.heappop(self._queue)
            self.rehearsal.jump(due)
            again = self._wake(name)
            if again is not None:
                heapq.heappush(self._queue, (again, number, name))

    def _wake(self, name: str) -> datetime | None:
        """Move a domain as far as it goes; return when it is worth another look, None when it has ended."""
        one, clock = self.rehearsal.cast[name], self.rehearsal.clock
        with self.rehearsal.at(name) as move:
            if not self._looks[name]:
                self.people.prepare(one, move)
            self._looks[name] += 1
            step = move.run_until_blocked()
            self.endings[name] = Ending(one, step, self._looks[name])
            if step.done:
                return None
            if step.blocked:
                took = self.people.react(one, move, step)
                return clock.now() + took if took else None
            return max(step.waiting_until or clock.now(), clock.now() + timedelta(seconds=1))


def rehearse(domains: int, seed: int = 0, faults: bool = False, keep: Path | None = None) -> dict[str, Any]:
    """Move a fleet of archetypes, and return the object of `infini domains rehearse --json`.

    With `faults` everything that can go wrong goes wrong now and then, at random from the seed. `keep` is an empty
    folder for events, exports and the board; without it nothing is left.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="infini-rehearse-") as folder:
        rehearsal = Rehearsal(tuple(archetypes.fleet(domains)), keep or Path(folder), seed=seed)
        if faults:
            rehearsal.world.faults.at_random(CHANCE, KINDS)
        fleet = Fleet(rehearsal)
        fleet.run()
        answer = summary(fleet)
        if keep:
            keep_board(rehearsal)
    return {**answer, "seconds": round(time.monotonic() - started, 1)}


@dataclass
class Interlude:
    """What others did in a rehearsal by hand, how long it took, and what the volunteer types after it."""

    happened: list[Phrase] = field(default_factory=list)
    passed: timedelta = timedelta()
    hints: list[Hint] = field(default_factory=list)


def let_others_act(rehearsal: Rehearsal) -> Interlude:
    """Let members do what they were asked, and time pass until something can be done again.

    This is for a rehearsal by hand: whoever types plays the volunteer, and everybody else is played here.
    """
    began, found, watched = rehearsal.clock.now(), Interlude(), dict[str, Verdict]()
    for name in rehearsal.cast:
        seen, verdict = board.kept(rehearsal.store, name), _outlook(rehearsal, name)
        if seen is None or seen.over or verdict is None:
            continue
        if verdict.code == "consent-missing":
            answer = Phrase(
                "{domain}: {holder}, its holder, answers “yes, the association pays”.", domain=name, holder=HOLDER
            )
            found.happened.append(answer)
            found.hints.append(consent(name, f"by={HOLDER}", f"date={began:%Y-%m-%d}", f"payer={PAYER}"))
        elif verdict.code == "mail-not-copied":
            _mail_is_copied(rehearsal, name, found)
        elif verdict.side == State.WAITING or (
            seen.code == "by-hand" and _member_acts(rehearsal, seen, verdict, found)
        ):
            watched[name] = verdict
    if watched and not found.hints:
        changed = _wait(rehearsal, watched)
        found.passed = rehearsal.clock.now() - began
        for name in changed:
            row = board.kept(rehearsal.store, name)
            if row and not _code_is_read(rehearsal, row, found):
                found.hints.append(on(row))
    return found


def _outlook(rehearsal: Rehearsal, name: str) -> Verdict | None:
    """Return what could be done for a domain now, None when it cannot be seen; nothing is changed."""
    with rehearsal.at(name) as move:
        try:
            return judge(move.evidence(deep=False))
        except (WorldError, ByHandError):
            return None


def _mail_is_copied(rehearsal: Rehearsal, name: str, found: Interlude) -> None:
    """Let the copy of every mailbox be made; whoever types writes down what was counted."""
    rehearsal.do("mail-copied", name=name)
    found.happened.append(
        Phrase(
            "{domain}: the mailboxes are copied; each had {count} messages, and has as many now.",
            domain=name,
            count=MESSAGES,
        )
    )
    with rehearsal.at(name) as move:
        found.hints += mail_copied(move, f"before={MESSAGES}", f"after={MESSAGES}")


def _member_acts(rehearsal: Rehearsal, seen: Row, verdict: Verdict, found: Interlude) -> bool:
    """Let a member do what they were asked; return whether it takes time until it shows."""
    if seen.action != verdict.action or _code_is_read(rehearsal, seen, found):
        return False
    if seen.action == "hold-code" and rehearsal.world.auth_code(seen.domain):
        return False  # the code is in the vault already
    rehearsal.click(seen.domain, "reset-code" if seen.action in CODES else seen.action)
    found.happened.append(Phrase("{domain}: the member has done at Gandi what they were asked.", domain=seen.domain))
    return True


def _code_is_read(rehearsal: Rehearsal, seen: Row, found: Interlude) -> bool:
    """Let the member read a new transfer code over the telephone, if that is what is waited for."""
    spoken = rehearsal.spoken_code(seen.domain) if seen.action in CODES else None
    if spoken:
        read = Phrase("{domain}: the member reads the transfer code to you: {code}", domain=seen.domain, code=spoken)
        found.happened.append(read)
        found.hints.append(code(seen.domain))
    return bool(spoken)


def _wait(rehearsal: Rehearsal, watched: Mapping[str, Verdict]) -> list[str]:
    """Let time pass until there is news of one of these domains; return those of which there is."""
    before, clock = dict(watched), rehearsal.clock
    end = clock.now() + LONGEST
    while clock.now() < end:
        soon = clock.now() + STRIDE
        rehearsal.jump(max(min(verdict.waiting_until or soon for verdict in before.values()), clock.now() + BLINK))
        news = []
        for name, verdict in before.items():
            if verdict.side != State.WAITING:
                rehearsal.paste(name)
            now = _outlook(rehearsal, name) or verdict
            before[name] = now
            if _gist(now) != _gist(verdict) or (verdict.action == "reset-code" and rehearsal.spoken_code(name)):
                news.append(name)
        if news:
            return news
    return []


def _gist(verdict: Verdict) -> tuple[object, ...]:
    """Return a verdict without its dates."""
    return verdict.state, verdict.side, verdict.code, verdict.action, verdict.reason


def keep_board(rehearsal: Rehearsal) -> None:
    """Keep each domain's row, and write the board beside the events."""
    for one in rehearsal.cast.values():
        board.look(rehearsal.move(one.domain))
    seen = board.read(rehearsal.store, rehearsal.clock.now())
    board.write(seen, rehearsal.folder / "board.html", rehearsal.folder / "board.csv")


def summary(fleet: Fleet) -> dict[str, Any]:
    """Count what came of a fleet."""
    world, journal = fleet.rehearsal.world, fleet.rehearsal.simulation.journal
    endings = fleet.endings.values()
    illegal, overtaken = _transitions(fleet)
    lost = {name: rrsets for name in fleet.endings if (rrsets := _unaccounted(fleet, name))}
    leaked = _leaks(fleet)
    counts = {
        "unaccounted": sum(map(len, lost.values())),
        "illegal_transitions": len(illegal),
        "deletes_on_records": len(journal.deletes_on_records()),
        "writes_before_snapshot": len(journal.writes_before_snapshot()),
        "ordered_twice": _ordered_twice(fleet),
        "unknown_calls": len(journal.unknown()),
        "harms": [f"{harm.domain} {harm.kind} {harm.at:%Y-%m-%d %H:%M}" for harm in world.harms],
        "leaks": leaked,
        "simulator_violations": journal.violations,
        "mismatched": [_told(ending) for ending in endings if not ending.expected],
    }
    rate = journal.rate("gandi")
    return {
        "ok": not any(counts.values()) and rate <= MOST_A_SECOND and len(endings) == len(fleet.rehearsal.cast),
        "domains": len(fleet.rehearsal.cast),
        "done": sum(ending.got == "DONE" for ending in endings),
        "blocked": dict(sorted(Counter(ending.got for ending in endings if ending.got != "DONE").items())),
        **counts,
        "overtaken": len(overtaken),
        "rate": rate,
        "requests": len(journal.asked),
        "faults": dict(sorted(world.faults.struck.items())),
        "virtual_days": round((fleet.rehearsal.clock.now() - START) / timedelta(days=1), 1),
        "lost": lost,
    }


def _told(ending: Ending) -> dict[str, str]:
    return {
        "domain": ending.one.domain,
        "archetype": ending.one.name,
        "expected": ending.one.end,
        "got": ending.got,
        "state": str(ending.step.state),
        "says": ending.step.verdict.reason,
    }


def _transitions(fleet: Fleet) -> tuple[list[str], list[str]]:
    """Return the steps from state to state that are not allowed, and those where reality had run ahead."""
    illegal, overtaken = [], []
    for name in fleet.endings:
        before = State.DISCOVERED
        for event in fleet.rehearsal.store.read(name):
            if event.kind not in ("state", "overtaken"):
                continue
            after = State(event.data["to"])
            told = f"{name}: {before} → {after}"
            if event.kind == "overtaken":
                overtaken.append(told)
            elif event.data["from"] != before or not legal(before, after):
                illegal.append(told)
            before = after
    return illegal, overtaken


def _ordered_twice(fleet: Fleet) -> list[str]:
    """Return the domains for which more than one order ever stood at the registry."""
    placed = Counter(order.domain for order in fleet.rehearsal.world.orders if order.stage in ("pending", "done"))
    return sorted(name for name, count in placed.items() if count > 1)


def _unaccounted(fleet: Fleet, name: str) -> list[str]:
    """Return the rrsets of a domain, as Gandi had them, of which nobody can say what became.

    Counted from the archetype itself: what a plan never saw is lost, and so is what it promised and nobody serves.
    """
    ending = fleet.endings[name]
    plan = fleet.rehearsal.move(name).plan()
    if plan is None:
        return []
    outcomes = Counter(outcome.key for outcome in plan.outcomes)
    seen = {(str(row["rrset_name"]).lower(), str(row["rrset_type"])) for row in ending.one.records}
    lost = [key for key in seen if outcomes[key] != 1]
    if ending.step.done:
        served = fleet.rehearsal.world.new_zone(name)
        lost += [
            outcome.key
            for outcome in plan.outcomes
            if outcome.after is not None and (served is None or served.rrsets.get(outcome.after.key) != outcome.after)
        ]
    return ["/".join(key) for key in sorted(set(lost))]


def _leaks(fleet: Fleet) -> list[str]:
    """Return where a token or an auth code stands that must stand nowhere: events, documents, addresses of calls."""
    secrets = fleet.rehearsal.world.secrets()
    found = [f"{entry.face} {entry.path}" for entry in fleet.rehearsal.simulation.journal.with_secrets(secrets)]
    for path in sorted((fleet.rehearsal.folder / "events").rglob("*")):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            found += [str(path.relative_to(fleet.rehearsal.folder)) for secret in secrets if secret in text]
    return found
