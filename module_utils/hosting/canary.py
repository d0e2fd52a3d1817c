# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The canary of mail: messages that travel from outside to a mailbox, straight and through a list, and are read there.

`fly` sends them, waits, and has their signatures judged; what it saw is a state that `check` says in French. The
mailbox is opened first: what cannot be read there is no fault of those who bring it.
"""

from __future__ import annotations

import email
import imaplib
import json
import re
import secrets
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage, Message
from email.utils import formatdate, parseaddr
from pathlib import Path
from typing import Any, Protocol

DIRECT, LIST = "direct", "list"
SENT, MAILBOX, SIGNATURE = "sent", "mailbox", "signature"
"""Where a message may be lost, beside the list."""
TIMEOUT = 20
INSIST = 60
"""Seconds for which a server that says “later” is asked again: one that is being restarted is no fault."""
MARK = "canari"
"""What the subjects of all our messages begin with."""

MENDS = {
    SENT: (
        "Le canari du courrier n'est pas parti : {server} ne prend pas ce qui vient de l'extérieur ({reason}). "
        "Sur {server} : systemctl status rspamd redis-server postfix@-, et ./infini apply mail remet ce qui manque."
    ),
    LIST: (
        "Le canari du courrier n'est pas revenu de la liste {list} ({reason}). Sur {server} : systemctl status sympa "
        "sympa-bulk, puis ./infini apply lists rouvre les listes déclarées."
    ),
    MAILBOX: (
        "Le canari du courrier n'est pas dans la boîte {mailbox}, ou elle ne se lit pas ({reason}). Sur {server} : "
        "systemctl status dovecot, postqueue -p, et ./infini apply mail remet ce qui manque."
    ),
    SIGNATURE: (
        "Le canari du courrier est arrivé, mais mal signé ({reason}). Sur {server} : infini-mail records et "
        "infini-sympa records disent ce que le DNS doit publier ; s'il dit autre chose, publiez-le, ou restaurez "
        "la clé d'avant."
    ),
}


class LostError(Exception):
    """The canary did not come through: where, and why."""

    def __init__(self, stage: str, reason: object) -> None:
        self.stage = stage
        self.reason = " ".join(str(reason).split()) or type(reason).__name__
        super().__init__(f"{stage}: {self.reason}")


class Signatures(Protocol):
    """Judges what a message carries, by the keys that the DNS publishes."""

    def dkim(self, raw: bytes) -> list[str]:
        """Return the domains whose signature holds."""

    def arc(self, raw: bytes) -> tuple[str, str]:
        """Return the result of the whole chain, and the domain of its newest seal."""

    def txt(self, name: str) -> str:
        """Return a TXT record, empty for none."""


@dataclass(frozen=True)
class Settings:
    """From where to where it flies."""

    server: str
    sender: str
    mailbox: str
    list: str  # empty: straight to the mailbox only
    minutes: int
    patience: int
    smtp_port: int = 25
    imap_port: int = 993

    @property
    def ways(self) -> dict[str, str]:
        """The address that each message is sent to."""
        return {DIRECT: self.mailbox, **({LIST: self.list} if self.list else {})}


def fly(settings: Settings, password: str, trust: ssl.SSLContext, signatures: Signatures) -> dict[str, Any]:
    """Send, wait, judge, clean up; return what was seen, or raise LostError."""
    box = _open(settings, password, trust)
    try:
        subjects = {way: f"{MARK} {secrets.randbelow(10**12):012d}" for way in settings.ways}
        started = time.monotonic()
        for way, recipient in settings.ways.items():
            _send(settings, way, recipient, subjects[way], trust)
        seconds, raws = _await(box, subjects, settings.patience, started)
        with _reading():
            _tidy(box)
    finally:
        with suppress(imaplib.IMAP4.error, OSError):
            box.logout()
    judged = {way: judge(raws[way], way, settings, signatures) for way in settings.ways}
    return {"seconds": seconds, "signed": judged}


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever goes wrong within is the mailbox's fault."""
    try:
        yield
    except (imaplib.IMAP4.error, OSError) as problem:
        raise LostError(MAILBOX, problem) from problem


def _open(settings: Settings, password: str, trust: ssl.SSLContext) -> imaplib.IMAP4_SSL:
    with _reading():
        box = imaplib.IMAP4_SSL(settings.server, settings.imap_port, ssl_context=trust, timeout=TIMEOUT)
        box.login(settings.mailbox, password)
        box.select()
        return box


def _send(settings: Settings, way: str, recipient: str, subject: str, trust: ssl.SSLContext) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.sender, recipient, subject
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{subject.replace(' ', '.')}@{_domain(settings.sender)}>"
    message.set_content("Ce message essaie le courrier. Personne n'a besoin de le lire.\n")
    end = time.monotonic() + INSIST
    while True:
        try:
            with smtplib.SMTP(settings.server, settings.smtp_port, _domain(settings.sender), TIMEOUT) as client:
                client.starttls(context=trust)
                client.sendmail(settings.sender, [recipient], message.as_bytes())
        except OSError as problem:  # every error of smtplib is one
            refused = _refusal(problem)
            if refused[0] < 500 and time.monotonic() < end:
                time.sleep(5)
                continue
            nobody = isinstance(problem, smtplib.SMTPRecipientsRefused) and refused[0] >= 500
            raise LostError({DIRECT: MAILBOX, LIST: LIST}[way] if nobody else SENT, refused[1]) from problem
        return


def _refusal(problem: OSError) -> tuple[int, str]:
    """Return what a server answered: its code, 0 for none, and its words."""
    if isinstance(problem, smtplib.SMTPRecipientsRefused):
        [(code, words)] = problem.recipients.values()
        return code, f"{code} {words.decode('utf-8', 'replace')}"
    if isinstance(problem, smtplib.SMTPResponseException):
        said = problem.smtp_error
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        return problem.smtp_code, f"{problem.smtp_code} {text}"
    return 0, str(problem) or type(problem).__name__


def _await(
    box: imaplib.IMAP4_SSL, subjects: Mapping[str, str], patience: int, started: float
) -> tuple[dict[str, int], dict[str, bytes]]:
    """Poll until all have arrived; return after how many seconds each did, and what it is."""
    seconds: dict[str, int] = {}
    raws: dict[str, bytes] = {}
    end = time.monotonic() + patience
    while len(raws) < len(subjects):
        for way in subjects.keys() - raws.keys():
            with _reading():
                raw = _find(box, subjects[way])
            if raw:
                raws[way], seconds[way] = raw, round(time.monotonic() - started)
        if time.monotonic() > end:
            break
        time.sleep(1)
    for way, stage in ((DIRECT, MAILBOX), (LIST, LIST)):
        if way in subjects and way not in raws:
            with _reading():
                spam = box.select("Junk")[0] == "OK" and _find(box, subjects[way])
            raise LostError(stage, "rangé parmi les indésirables" if spam else f"rien après {patience} s")
    return seconds, raws


def _find(box: imaplib.IMAP4_SSL, subject: str) -> bytes:
    """Return the message of this subject, nothing where it has not arrived."""
    box.noop()
    numbers = box.search(None, "SUBJECT", f'"{subject}"')[1][0].split()
    if not numbers:
        return b""
    return bytes(box.fetch(numbers[0].decode(), "(BODY.PEEK[])")[1][0][1])  # type: ignore[index]  # a part that is there is a pair


def _tidy(box: imaplib.IMAP4_SSL) -> None:
    """Delete what was read, and what came too late from a flight before."""
    for folder in ("INBOX", "Junk"):
        if box.select(folder)[0] != "OK":
            continue
        for number in box.search(None, "SUBJECT", f'"{MARK}"')[1][0].split():
            box.store(number.decode(), "+FLAGS.SILENT", r"(\Deleted)")
        box.expunge()


def judge(raw: bytes, way: str, settings: Settings, signatures: Signatures) -> str:
    """Return who signed, or raise LostError: ARC must hold; a list's own signature, and DMARC by it, too."""
    message = email.message_from_bytes(raw)
    ours = _domain(settings.ways[way])
    try:
        if way == LIST:
            _judge_list(message, ours, signatures.dkim(raw), signatures)
        chain, sealer = signatures.arc(raw)
    except LostError:
        raise
    except Exception as problem:  # a judge that stumbles over a message has not found it good
        raise LostError(SIGNATURE, problem) from problem
    if (chain, sealer) != ("pass", ours):
        raise LostError(SIGNATURE, f"ARC : {chain or 'rien'}, scellé par {sealer or 'personne'} au lieu de {ours}")
    if "dmarc=pass" not in _seen_by_us(message):
        raise LostError(SIGNATURE, f"{ours} n'a pas reconnu DMARC de {_domain(settings.sender)} à l'arrivée")
    return ours


def _judge_list(message: Message, ours: str, signers: list[str], signatures: Signatures) -> None:
    if ours not in signers:
        raise LostError(SIGNATURE, f"DKIM : pas de signature valable de {ours}")
    author = _domain(parseaddr(str(message["From"]))[1])
    if not any(author == signer or author.endswith(f".{signer}") for signer in signers):
        raise LostError(SIGNATURE, f"DMARC : l'auteur est de {author}, et qui signe, de {', '.join(signers)}")
    if not signatures.txt(f"_dmarc.{author}").startswith("v=DMARC1"):
        raise LostError(SIGNATURE, f"DMARC : le DNS ne dit rien de _dmarc.{author}")


def _seen_by_us(message: Message) -> str:
    """Return what the newest seal says was seen when the message came in."""
    results = [re.sub(r"\s+", " ", str(one)) for one in message.get_all("ARC-Authentication-Results", [])]
    return max(results, key=lambda one: int((re.match(r" ?i=(\d+)", one) or [0, 0])[1]), default="")


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()


def run(flight: Callable[[], Mapping[str, Any]], path: Path, settings: Settings) -> int:
    """Let it fly and write down what became of it; return 1 where it was lost, which the watch then tells of."""
    state = read(path)
    try:
        state |= {**flight(), "good": time.time(), "stage": "", "reason": ""}
    except LostError as lost:
        state |= {"stage": lost.stage, "reason": lost.reason}
    state["ran"] = time.time()
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(state, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    draft.replace(path)
    good, sentence = check(state, settings, time.time())
    print(sentence)  # noqa: T201  the journal keeps it
    return 0 if good else 1


def read(path: Path) -> dict[str, Any]:
    """Return the last state, an empty one where there is none."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def check(state: Mapping[str, Any], settings: Settings, now: float) -> tuple[bool, str]:
    """Tell whether all is well, and say what the last flight saw."""
    again = "systemctl start infini-canary.service le fait voler maintenant, journalctl -u infini-canary dit pourquoi."
    if not state.get("ran"):
        return False, f"Le canari du courrier n'a encore jamais volé : {again}"
    age = round((now - state["ran"]) / 60)
    if age > settings.minutes + 5:
        return False, f"Le canari du courrier n'a pas volé depuis {age} min : {again}"
    if state["stage"]:
        last = f" Dernier retour il y a {round((now - state['good']) / 60)} min." if state.get("good") else ""
        values = {"server": settings.server, "list": settings.list, "mailbox": settings.mailbox}
        return False, MENDS[state["stage"]].format(reason=state["reason"], **values) + last
    seconds, signed = state["seconds"], state["signed"]
    through = f"par la liste en {seconds[LIST]} s (DKIM, ARC et DMARC de {signed[LIST]}), " if LIST in seconds else ""
    return True, (
        f"Le canari du courrier est revenu il y a {age} min, {through}"
        f"droit à la boîte en {seconds[DIRECT]} s (DMARC reconnu, ARC de {signed[DIRECT]})."
    )
