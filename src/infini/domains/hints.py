# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to type next for a domain: commands that can be typed as they stand, each with when to type it.

What only a person knows is left out of a command: `decide` asks for it at the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infini.domains.board import Row
from infini.domains.messages import due
from infini.domains.move import Move
from infini.domains.states import State
from infini.phrase import Phrase


@dataclass(frozen=True)
class Hint:
    """The words of a command after `infini domains`; `when` (may be empty) is said above it."""

    words: tuple[str, ...]
    when: str = ""


STEP = Hint(("rehearse", "--step"), Phrase("in the rehearsal, let the others act and time pass:"))
"""Stands for the step of a rehearsal, whose folder is the caller's to name."""
MENDED = Phrase("once that is mended:")
_MAIL = (
    ("none", Phrase("nowhere, this name has no mail:")),
    ("external", Phrase("it stays where it is, elsewhere than at Gandi, or goes to another host:")),
    ("infini", Phrase("it comes to Infini:")),
    ("gandi", Phrase("it stays at Gandi, and so will the domain:")),
)


def hints(move: Move, row: Row, rehearsed: bool = False) -> list[Hint]:
    """Return what to type next, in the order in which it makes sense; nothing when the move is over."""
    if row.over:
        return []
    decisions = BY_CODE.get(row.code)
    if decisions and not row.going_back:
        return [*_message(row), *decisions(move, row, rehearsed)]
    if row.side == State.ROLLED_BACK:
        return [on(row)]
    if row.waiting_until and rehearsed:
        return [STEP]
    return [*_message(row), on(row, MENDED if row.side in (State.BLOCKED, State.FAILED) else "")]


def on(row: Row, when: str = "") -> Hint:
    """Return the command that takes a domain further, the way it is going."""
    if row.side == State.ROLLED_BACK:
        return Hint(("decide", row.domain, "resume"), Phrase("to go forward again:"))
    if row.going_back:
        return Hint(("rollback", row.domain, "--to", row.going_back, "--apply"), when)
    return Hint(("advance", row.domain, "--apply"), when)


def _message(row: Row) -> list[Hint]:
    """Return the message to send first, when the member must know or do something before anything goes on."""
    if row.side == State.BLOCKED and due(row):
        return [Hint(("message", row.domain), Phrase("what to write to the member:"))]
    return []


def _decide(row: Row, *words: str, when: str = "") -> Hint:
    return Hint(("decide", row.domain, *words), when)


def consent(domain: str, *fields: str) -> Hint:
    """Return how the holder's answer is written down."""
    return Hint(("decide", domain, "consent", *fields), Phrase("once the holder has said yes, write it down:"))


def _consent(_move: Move, row: Row, rehearsed: bool) -> list[Hint]:
    return [STEP] if rehearsed else [consent(row.domain)]


def _mail_mode(_move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    return [_decide(row, "mail-mode", f"mode={mode}", when=when) for mode, when in _MAIL]


def _mail_leaves(_move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    return [_decide(row, "mail-mode", f"mode={mode}", when=when) for mode, when in _MAIL if mode != "gandi"]


def mail_copied(move: Move, *counted: str) -> list[Hint]:
    """Return how each mailbox that is left is written down as copied, with how many messages were counted."""
    export, settled = move.export(), move.memory().mail
    left = [box for box in (export.mailboxes if export else ()) if box.lower() not in settled]
    when = Phrase("once the mailbox is copied and its messages are counted:")
    return [Hint(("decide", move.domain, "mail-copied", f"address={box}", *counted), when) for box in left]


def _mail_copied(move: Move, _row: Row, rehearsed: bool) -> list[Hint]:
    return [STEP] if rehearsed else mail_copied(move)


def _price(move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    quote = move.memory().quote
    known = [f"euros={quote.price}"] if quote and quote.price is not None else []
    return [_decide(row, "price", *known, when=Phrase("if the price is right (the order cannot be undone):"))]


def _unreadable(move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    plan = move.plan()
    waiting = [outcome for outcome in (plan.blocked if plan else ()) if outcome.code == row.code]
    subject = [f"subject={'/'.join(outcome.key)}" for outcome in waiting[:1]]
    return [_decide(row, "waiver", *subject, when=Phrase("if it may be left behind:"))]


def _framed(move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    export, agreed = move.export(), move.memory().redirections
    rows = export.redirections if export else ()
    framed = [str(one["host"]) for one in rows if one.get("type") == "cloak" and one["host"] not in agreed]
    ask = Phrase("if an ordinary redirection suits the member:")
    return [_decide(row, "redirection", *(f"host={host}" for host in framed[:1]), when=ask)]


def _drifted(_move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    return [_decide(row, "waiver", "subject=zone-drifted", when=Phrase("if the change is known and wanted:"))]


def _checked(_move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    return [_decide(row, "services-checked", when=Phrase("once somebody has looked that all works:"))]


def _secured(_move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    return [_decide(row, "secured", when=Phrase("once the lock is seen to be set:"))]


def _retry(_move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    return [_decide(row, "retry", when=MENDED)]


def _watch(_move: Move, row: Row, _rehearsed: bool) -> list[Hint]:
    return [Hint(("watch", row.domain), Phrase("in another terminal, and let it run:")), on(row)]


def _by_hand(_move: Move, row: Row, rehearsed: bool) -> list[Hint]:
    """Return what follows when the member has done what they are asked; a code and a paste are given to us."""
    if rehearsed:
        return [STEP]
    if row.action in ("hold-code", "reset-code"):
        return [code(row.domain), on(row)]
    if row.state == State.DISCOVERED:
        pasted = Phrase("once the zone and the answers are there, in two files:")
        return [Hint(("paste", row.domain, "zone.txt", "reponses.yml"), pasted), on(row)]
    return [on(row, Phrase("once it is done:"))]


def code(domain: str) -> Hint:
    """Return how a transfer code gets into the vault."""
    return Hint(("code", domain), Phrase("when you are given the code; it is typed, and not shown:"))


BY_CODE: Mapping[str, Callable[[Move, Row, bool], list[Hint]]] = {
    "by-hand": _by_hand,
    "consent-missing": _consent,
    "lock-missing": _secured,
    "mail-at-gandi": _mail_leaves,
    "mail-mode-missing": _mail_mode,
    "mail-not-copied": _mail_copied,
    "never-completes": _retry,
    "parity-failed": _retry,
    "price-unconfirmed": _price,
    "probe-missing": _watch,
    "redirection-framed": _framed,
    "services-unchecked": _checked,
    "transfer-refused": _retry,
    "unreadable-record": _unreadable,
    "zone-drifted": _drifted,
}
"""What answers a block, by its code; what is not here goes on by itself once it is mended."""
