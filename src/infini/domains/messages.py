# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What we write to members: a French mail for each step, ready to send, without jargon. Nothing is sent from here."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from infini.domains.board import TEMPLATES, Row, date
from infini.domains.states import RANK, State
from infini.errors import RefusedError
from infini.phrase import Phrase

_BLOCKED: Mapping[str, str] = {
    "consent-missing": "accord",
    "expires-soon": "renouveler",
    "transfer-refused": "refus",
}
_SWITCH = (State.PARITY_OK, State.TTL_LOWERED, State.DS_REMOVED)


@dataclass(frozen=True)
class Message:
    """A mail that waits for somebody to read it over and send it. `kind` is its key in the templates."""

    kind: str
    subject: str
    body: str

    def mail(self, sender: str, to: str) -> EmailMessage:
        """Return the mail, for a mail program or a file."""
        made = EmailMessage(policy=SMTP)
        made["From"], made["To"], made["Subject"] = sender, to, self.subject
        made.set_content(self.body)
        return made

    def text(self) -> str:
        """Return the message as a volunteer reads it before sending."""
        return f"Objet : {self.subject}\n\n{self.body}"


@cache
def _templates() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((TEMPLATES / "messages.yml").read_text(encoding="utf-8"))
    return found


def kinds() -> list[str]:
    """Return the messages there are, in the order of a move."""
    return list(_templates()["messages"])


def questions() -> dict[str, str]:
    """Return what a member is asked, for each code that only they can resolve."""
    found: dict[str, str] = _templates()["questions"]
    return found


def due(row: Row) -> str:
    """Return which message the member should have now; empty when there is nothing to say."""
    if row.side == State.ABANDONED:
        return ""
    if row.going_back:
        return _by_hand(row)
    if row.side in (State.BLOCKED, State.FAILED):
        return _BLOCKED.get(row.code) or ("question" if row.code in questions() else _by_hand(row))
    return _by_hand(row) or _on_the_way(row)


def _by_hand(row: Row) -> str:
    if row.who != "member":
        return ""
    return "zone" if RANK[row.state] < RANK[State.EXPORTED] else "consigne"


def _on_the_way(row: Row) -> str:
    if row.state == State.AUDITED:
        return "accord"
    if row.state in _SWITCH:
        return "courrier" if row.mailboxes_left and row.mail == "infini" else "bascule"
    if row.state in (State.NS_SWITCHED, State.SETTLED):
        return "courrier" if row.mailboxes_left else "verifier"
    if row.state in (State.TRANSFER_ORDERED, State.TRANSFER_PENDING):
        return "transfert"
    return "fini" if row.state == State.DONE else ""


def _day(kind: str, row: Row) -> datetime | None:
    wanted = {
        "bascule": row.waiting_until,
        "transfert": row.deadline or row.waiting_until,
        "renouveler": row.expires,
        "fini": row.expires,
    }
    return wanted.get(kind)


def message(row: Row, kind: str = "", addresses: Sequence[str] = ()) -> Message | None:
    """Return the message that is due (or the one asked for), None when nothing is to be said.

    `addresses` are the mailboxes to copy. Raise RefusedError for a kind that does not exist.
    """
    wanted = kind or due(row)
    if not wanted:
        return None
    if wanted not in kinds():
        raise RefusedError(
            Phrase("There is no message “{name}”: name one of {known}", name=wanted, known=", ".join(kinds()))
        )
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701  plain text for a mail
    values = {
        "domaine": row.shown,
        "jour": date(_day(wanted, row)),
        "consigne": questions().get(row.code, row.reason) if wanted == "question" else row.reason,
        "adresses": "\n".join(addresses) or "(la liste est dans votre compte Gandi)",
    }
    template = _templates()["messages"][wanted]
    subject = environment.from_string(template["subject"]).render(values)
    paragraphs = (_paragraph(environment, paragraph, values) for paragraph in template["body"].strip().split("\n\n"))
    return Message(wanted, subject, "\n\n".join(paragraphs) + "\n" + _templates()["signature"])


def _paragraph(environment: Environment, source: str, values: Mapping[str, str]) -> str:
    """Return a paragraph wrapped for mail; lists and instructions, which stand alone, keep their lines."""
    text = environment.from_string(source).render(values)
    if source in ("{{ consigne }}", "{{ adresses }}"):
        return text
    return textwrap.fill(_french_spaces(text), 72, break_long_words=False)


def _french_spaces(text: str) -> str:
    """Return the text with the spaces of French punctuation unbreakable."""
    return re.sub(r" (?=[:;?!»])|(?<=«) ", "\u00a0", text)
