# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watch: looks at the platform from one of its hosts, and writes only of what changed.

The control node writes down what to expect (`lookup_plugins/watch_expectations.py`); this runs from a timer, without
Ansible.
Messages wait in an outbox until they are delivered, so that a mail server that is down loses none; the outbox keeps the
last twenty. A mail server that refuses them is a finding like any other, not a failure of the watch.
"""

from __future__ import annotations

import gettext
import json
import os
import smtplib
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any

from . import health
from .findings import Check, Translations, _, bundle, check_of, page_context, says
from .probes import Finding, Probe, Trust, look_at_all

KEPT_MESSAGES = 20
PATIENCE = 20.0
"""Seconds after which what looks wrong is looked at again, before anyone is told."""


@dataclass(frozen=True)
class Change:
    """What differs from the last run.

    `known` failed then and fail still; `gone` are the sentences of what failed then and is not looked at any more.
    """

    first: bool
    broken: Sequence[Check]
    mended: Sequence[Check]
    known: Sequence[Check]
    gone: Sequence[str] = ()

    @property
    def worth_telling(self) -> bool:
        """Whether anyone should read about it."""
        return bool(self.first or self.broken or self.mended or self.gone)


def compare(previous: Mapping[str, str] | None, checks: Sequence[Check]) -> Change:
    """Compare with what failed last time: sentences by identity (nothing: there was no last time)."""
    before = previous or {}
    now = {check.id for check in checks}
    failed = [check for check in checks if not check.ok]
    return Change(
        first=previous is None,
        broken=[check for check in failed if check.id not in before],
        mended=[check for check in checks if check.ok and check.id in before],
        known=[check for check in failed if check.id in before],
        gone=[said for identity, said in before.items() if identity not in now],
    )


def subject(change: Change, total: int, translations: Translations) -> str:
    """Write the message's subject."""
    parts = []
    for count, one, many in (
        (len(change.broken), _("{count} thing to mend"), _("{count} things to mend")),
        (len(change.mended) + len(change.gone), _("{count} thing mended"), _("{count} things mended")),
    ):
        if count:
            parts.append(translations.ngettext(one, many, count).format(count=count))
    if not parts:
        parts.append(translations.gettext("the watch begins, {total} checks, all is well").format(total=total))
    return "[Infini] " + ", ".join(parts)


def body(change: Change, translations: Translations, page: str) -> str:
    """Write the message's text."""
    lines: list[str] = []
    for title, checks, with_mend in (
        (_("To mend:"), change.broken, True),
        (_("Well again:"), change.mended, False),
        (_("Still to mend, as before:"), change.known, False),
    ):
        if checks:
            lines += [translations.gettext(title), ""]
            for bundled, mends in bundle(checks):
                lines += [f"- {says(check, translations)}" for check in bundled]
                lines += [f"    {line}" for line in mends] if with_mend else []
            lines.append("")
    if change.gone:
        lines += [translations.gettext("Not so any more:"), "", *(f"- {said}" for said in change.gone), ""]
    return "\n".join([*lines, translations.gettext("The whole list: {page}").format(page=page), ""])


def write_message(text: str, title: str, sender: str, recipient: str | None, outbox: Path) -> Path:
    """Put a message into the outbox."""
    message = EmailMessage(policy=policy.SMTP)
    message["From"], message["To"] = sender, recipient or "undisclosed-recipients:;"
    message["Subject"], message["Date"], message["Message-ID"] = title, formatdate(localtime=True), make_msgid("infini")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    outbox.mkdir(parents=True, exist_ok=True)
    path = outbox / f"{time.time_ns()}.eml"
    path.write_bytes(message.as_bytes())
    return path


def deliver(outbox: Path, server: str, starttls: bool = False) -> str:
    """Hand every waiting message to a mail server, the oldest first; each leaves the outbox once it is accepted.

    Give what the server said where it did not take them all: the others stay, and wait for the next time.
    """
    waiting = sorted(outbox.glob("*.eml"))
    try:
        return _hand_over(waiting, server, starttls) if waiting else ""
    except OSError as error:  # every error of smtplib is one
        return _in_one_line(error)


def _hand_over(waiting: Sequence[Path], server: str, starttls: bool) -> str:
    problem = ""
    host, _, port = server.rpartition(":")
    with smtplib.SMTP(host.strip("[]"), int(port), timeout=30) as smtp:
        if starttls:
            smtp.starttls(context=ssl.create_default_context())
        for path in waiting:
            problem = _send(smtp, path) or problem
    return problem


def _send(smtp: smtplib.SMTP, path: Path) -> str:
    try:
        smtp.send_message(message_from_bytes(path.read_bytes(), policy=policy.default))
    except smtplib.SMTPServerDisconnected:
        raise
    except smtplib.SMTPException as error:  # this one is refused: the others may be taken
        return _in_one_line(error)
    path.unlink()
    return ""


def _in_one_line(error: OSError) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def waiting(outbox: Path) -> str:
    """Say how many messages wait; nothing where none does."""
    count = len(list(outbox.glob("*.eml")))
    return f"{count} message(s) wait in {outbox}: journalctl --unit infini-watch.service says why" if count else ""


def prune(outbox: Path) -> None:
    """Keep the newest messages only: nobody may ever fetch them."""
    for path in sorted(outbox.glob("*.eml"))[:-KEPT_MESSAGES]:
        path.unlink()


class French(gettext.NullTranslations):
    """The phrases that travel with the expectations; for each what is said for one, then for many."""

    def __init__(self, phrases: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self._phrases = phrases

    def gettext(self, message: str) -> str:
        """Say a message."""
        return self._phrases[message][0]

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:  # noqa: ARG002  the base class names them
        """Say a message about a number: in French nought and one are singular."""
        return self._phrases[msgid1][-1 if n > 1 else 0]


def trust() -> Trust:
    """Read the authorities that systemd hands over (LoadCredential=): they may lie where only root looks."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    files = sorted(Path(folder).glob("authority-*")) if folder else []
    return Trust([path.read_text(encoding="ascii") for path in files])


def look(expectations: Mapping[str, Any], patience: float = PATIENCE) -> list[Check]:
    """Try everything that is expected of the other hosts, and ask this one how it feels."""
    probes = [Probe(**probe) for probe in expectations["probes"]]
    results = look_at_all(probes, trust(), again_after=patience)
    here = expectations["here"]
    own = health.judge(health.read(slices=expectations["slices"]))
    return [
        *(check_of(probe.host, one, probe.about, probe.address) for probe, found in results for one in found),
        *(check_of(here["host"], one, here) for one in own),
    ]


def try_mail(expectations: Mapping[str, Any], outbox: Path) -> list[Check]:
    """Send what waits from earlier, and say whether that went well; nothing where nobody is written to."""
    mail, here = expectations["mail"], expectations["here"]
    if not mail["to"]:
        return []
    problem = deliver(outbox, mail["smtp"], mail["starttls"])
    code = "mail.refused" if problem else "mail.ok"
    return [check_of(here["host"], Finding("", code, {"reason": problem}), here)]


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def watch(
    expectations: Mapping[str, Any],
    state: Path,
    render: Callable[[Mapping[str, Any]], str],
    look: Callable[[Mapping[str, Any]], list[Check]] = look,
) -> Change:
    """Look once: write the page, remember what fails, tell what changed."""
    translations = French(expectations["phrases"])
    mail, outbox = expectations["mail"], state / "outbox"
    checks = [*try_mail(expectations, outbox), *look(expectations)]
    memory = state / "failed.json"
    previous = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else None
    change = compare(previous, checks)
    _replace(state / "verify.html", render(page_context(checks, translations, time.strftime("%d/%m/%Y %H:%M"))))
    if change.worth_telling:
        text = body(change, translations, str(state / "verify.html"))
        title = subject(change, len(checks), translations)
        write_message(text, title, mail["from"], mail["to"], outbox)
        print(f"{title}\n{text}")  # noqa: T201  the journal keeps it
    failed = {check.id: says(check, translations) for check in checks if not check.ok}
    _replace(memory, json.dumps(failed, ensure_ascii=False, indent=1, sort_keys=True))
    problem = deliver(outbox, mail["smtp"], mail["starttls"]) if mail["to"] else ""
    if problem:
        print(f"messages wait in {outbox}: {problem}")  # noqa: T201  the page says it from the next time on
    prune(outbox)
    return change
