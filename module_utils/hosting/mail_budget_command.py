# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `infini-mail-budget` on a host: Postfix asks it, and technicians do.

JSON out; status 0 fine, 1 findings, 2 refused, 4 failed.
"""

from __future__ import annotations

import json
import smtplib
import socket
import socketserver
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any

from . import mail_queue
from .mail_budget import (
    HOLD,
    HOUR,
    MUCH,
    PASS,
    REFUSE,
    Ledger,
    Settings,
    message,
    problems,
    read_domains,
    read_settings,
)

CONFIG = Path("/etc/infini-mail-budget/config.json")
STATE = Path("/var/lib/infini-mail-budget/ledger")
PROVIDERS = Path("/etc/postfix/providers")
LISTENING = 3
"""The descriptor that systemd hands over."""
EVERY = 20.0
"""Seconds between two looks for letters to write."""
LATE_RELEASE = 86400
"""Seconds after which a held message is queued anew: Postfix counts its age from the day it came."""
ANSWERS = {
    PASS: "DUNNO",
    # Read by members in their mail programs, which show no accents of a server.
    REFUSE: "451 4.7.1 Trop de destinataires pour le moment: le budget de {account} est atteint, essayez plus tard",
    HOLD: "HOLD outgoing mail of {account} is frozen",
}


def settings() -> Settings:
    """Return what the role wrote."""
    return fresh(read_settings(json.loads(CONFIG.read_text(encoding="utf-8"))))


def fresh(said: Settings) -> Settings:
    """Return the settings with the domains that stand in their file by now."""
    path = Path(said.domains_file)
    if not said.domains_file or not path.exists():
        return said  # a domain that nobody knows counts for itself
    return replace(said, domains={**said.domains, **read_domains(path.read_text(encoding="utf-8"))})


class Budgets:
    """What answers Postfix: one message at a time is counted."""

    def __init__(self, ledger: Ledger, said: Settings) -> None:
        self.ledger, self.said = ledger, said
        self.lock = threading.Lock()
        self.frozen = threading.Event()

    def answer(self, request: Mapping[str, str]) -> str:
        """Return Postfix's action for a request."""
        one = message(request, fresh(self.said))
        if one is None:
            return ANSWERS[PASS]
        now = time.time()
        with self.lock:
            verdict = self.ledger.judge(one, self.said, now)
            much = verdict == PASS and self.said.bulk and self.ledger.sum(one.account, PASS, now - 60) > MUCH
        if verdict == HOLD:
            self.frozen.set()
        return f"FILTER {self.said.bulk}" if much else ANSWERS[verdict].format(account=one.account)

    def write_letters(self) -> None:
        """Tell of each frozen account once, as soon as a mail server takes the letter."""
        with self.lock:
            accounts = self.ledger.frozen()
            untold = [(name, *accounts[name]) for name in self.ledger.untold()]
        for name, since, who in untold:
            with self.lock:
                passed = self.ledger.sum(name, PASS, since - HOUR)
            _send(letter(self.said, name, who, passed), self.said.server)
            with self.lock:
                self.ledger.told(name)

    def tell(self) -> None:
        """Write letters, and forget what is old, until the process ends."""
        while True:
            try:
                self.write_letters()
                with self.lock:
                    self.ledger.prune(time.time())
            except OSError as error:  # every error of smtplib is one; the next look tries again
                _log(f"the letter about a frozen account waits: {error}")
            if self.frozen.wait(EVERY):
                self.frozen.clear()
                time.sleep(1)  # one look for a whole burst


class _Handler(socketserver.StreamRequestHandler):
    """A process of Postfix asks, again and again, in lines `name=value` up to an empty one."""

    server: Server

    def handle(self) -> None:
        request: dict[str, str] = {}
        for raw in self.rfile:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            if line:
                name, _, value = line.partition("=")
                request[name] = value
                continue
            # Whatever goes wrong closes the connection: Postfix then defers, and lets nothing through uncounted.
            self.wfile.write(f"action={self.server.budgets.answer(request)}\n\n".encode())
            request = {}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens at the socket that systemd opened."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, budgets: Budgets) -> None:
        super().__init__("", _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.budgets = listening, budgets

    def handle_error(self, *_: object) -> None:
        """Say in the journal what went wrong."""
        _log(traceback.format_exc())


def letter(said: Settings, account: str, who: str, passed: int) -> EmailMessage:
    """Write to the techs, and to the member if an address is known, what happened and what to do."""
    budget = said.budget(account)
    made = EmailMessage(policy=SMTP)
    made["From"] = f"Courrier d'Infini <postmaster@{said.host}>"
    made["To"] = said.techs
    if account in said.contacts:
        made["Cc"] = said.contacts[account]
    made["Subject"] = f"[Infini] Le courrier sortant de {account} est gelé"
    made["Date"], made["Message-ID"] = formatdate(localtime=True), make_msgid("infini", said.host)
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(
        f"""Bonjour,

Le compte {account} a voulu écrire, en peu de temps, à bien plus de destinataires que son budget ne le permet :
{budget.hour} par heure, {budget.day} par jour. Dans l'heure, {said.host} en a laissé passer {passed} ; les envois
ont continué, et le courrier sortant du compte y est maintenant gelé. Le dernier expéditeur était {who}.

Rien n'est perdu : les messages attendent dans la file, et le courrier que le compte reçoit arrive comme d'habitude.

C'est presque toujours un mot de passe volé ou un site piraté : changez le mot de passe de la boîte, ou mettez le site
à jour et nettoyez-le, avant de dégeler. Si l'envoi était voulu (une lettre d'information), une liste de diffusion ou un
budget plus grand sont le bon chemin.

Pour les techniciens :
  ./infini mail                        voir ce qui attend
  ./infini mail drop {account} --yes     jeter ce qui attend de ce compte
  ./infini mail thaw {account}           dégeler : ce qui attend part
"""
    )
    return made


def _send(made: EmailMessage, server: str) -> None:
    host, _, port = server.rpartition(":")
    with smtplib.SMTP(host.strip("[]"), int(port), timeout=30) as client:
        client.send_message(made)


def serve() -> int:
    """Answer Postfix until the process ends."""
    said = settings()
    budgets = Budgets(Ledger(STATE), said)
    threading.Thread(target=budgets.tell, daemon=True).start()
    with Server(socket.socket(fileno=LISTENING), budgets) as server:
        server.serve_forever()
    return 0


def waiting() -> list[dict[str, Any]]:
    """Return Postfix's queue."""
    done = subprocess.run(["postqueue", "-j"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return mail_queue.messages(done.stdout.splitlines())


class Owners:
    """Whose a message in the queue is."""

    def __init__(self, ledger: Ledger, said: Settings, queue: Sequence[Mapping[str, Any]]) -> None:
        self.counted = ledger.owners(one["queue_id"] for one in queue)
        self.domains = said.domains

    def __call__(self, one: Mapping[str, Any]) -> tuple[str, str]:
        """Return account and site: as it was counted; what comes in is the recipients'."""
        if one["queue_id"] in self.counted:
            return self.counted[one["queue_id"]]
        for address in (one["sender"], *(recipient["address"] for recipient in one["recipients"])):
            domain = address.rpartition("@")[2].lower()
            if domain in self.domains:
                return self.domains[domain], domain
        return "", ""


def queue(ledger: Ledger, said: Settings) -> dict[str, Any]:
    """Return the queue in groups, and who is frozen."""
    found = waiting()
    slow = mail_queue.providers(PROVIDERS.read_text(encoding="utf-8")) if PROVIDERS.exists() else {}
    frozen = {name: {"since": since, "who": who} for name, (since, who) in ledger.frozen().items()}
    return {**mail_queue.picture(found, Owners(ledger, said, found), slow), "frozen": frozen}


def thaw(ledger: Ledger, said: Settings, account: str, allowance: int = 0) -> dict[str, Any]:
    """Let an account send again, and let what is held of it go."""
    frozen = ledger.thaw(account, allowance, time.time())
    held = [one for one in _of(account, ledger, said) if one["queue_name"] == mail_queue.HELD]
    old = [one["queue_id"] for one in held if time.time() - one["arrival_time"] > LATE_RELEASE]
    new = [one["queue_id"] for one in held if one["queue_id"] not in set(old)]
    _postsuper("-r", old)
    _postsuper("-H", new)
    ledger.settle(account, [*old, *new])
    subprocess.run(["postqueue", "-f"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return {"account": account, "frozen": frozen, "messages": len(held), "recipients": _recipients(held)}


def drop(ledger: Ledger, said: Settings, account: str) -> dict[str, Any]:
    """Delete what waits of an account; it stays frozen."""
    gone = _of(account, ledger, said)
    _postsuper("-d", [one["queue_id"] for one in gone])
    ledger.settle(account, [one["queue_id"] for one in gone])
    frozen = account in ledger.frozen()
    return {"account": account, "frozen": frozen, "messages": len(gone), "recipients": _recipients(gone)}


def findings(ledger: Ledger, said: Settings) -> list[str]:
    """Say which accounts are frozen, and which have mail that is held although they are not."""
    frozen = ledger.frozen()
    found = [one for one in waiting() if one["queue_name"] == mail_queue.HELD]
    left = sorted({account for account, _ in Owners(ledger, said, found).counted.values()} - set(frozen))
    return [
        *(
            f"le courrier sortant de {name} est gelé depuis {time.strftime('%d/%m %H:%M', time.localtime(since))}"
            f" ({who}) : trouvez pourquoi, puis ./infini mail thaw {name}"
            for name, (since, who) in frozen.items()
        ),
        *(f"du courrier de {name} est encore retenu : ./infini mail thaw {name}" for name in left),
    ]


def _of(account: str, ledger: Ledger, said: Settings) -> list[dict[str, Any]]:
    """Return what waits of an account's outgoing mail: only what was counted is."""
    found = waiting()
    counted = Owners(ledger, said, found).counted
    return [one for one in found if counted.get(one["queue_id"], ("",))[0] == account]


def _recipients(found: Iterable[Mapping[str, Any]]) -> int:
    return sum(len(one["recipients"]) for one in found)


def _postsuper(option: str, queue_ids: Sequence[str]) -> None:
    if queue_ids:
        text = "".join(f"{one}\n" for one in queue_ids)
        subprocess.run(["postsuper", option, "-"], input=text, text=True, capture_output=True, check=True)


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _print(answer: Mapping[str, Any]) -> int:
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _asked(words: Sequence[str]) -> int:
    command, *rest = words or ("",)
    if command == "judge":
        wrong = problems(json.loads(CONFIG.read_text(encoding="utf-8")))
        _log("\n".join(wrong))
        return 2 if wrong else 0
    said = settings()
    if not STATE.exists():
        _log("Nothing was counted here yet: is infini-mail-budget.socket running?")
        return 2
    ledger = Ledger(STATE)
    if command == "queue" and not rest:
        return _print(queue(ledger, said))
    if command == "thaw" and (len(rest) == 1 or (len(rest) == 2 and rest[1].isdigit())):
        return _print(thaw(ledger, said, rest[0], int(rest[1]) if rest[1:] else 0))
    if command == "drop" and len(rest) == 1:
        return _print(drop(ledger, said, rest[0]))
    if command == "check" and not rest:
        found = findings(ledger, said)
        sys.stdout.write(" ; ".join(found) + "\n" if found else "")
        return 1 if found else 0
    _log("Usage: infini-mail-budget queue | check | thaw ACCOUNT [RECIPIENTS] | drop ACCOUNT")
    return 2


def main(words: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    try:
        return serve() if list(words) == ["serve"] else _asked(words)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else error.stderr
        _log(f"`{' '.join(error.cmd)}` failed: {(said or '').strip()}")
    except OSError as error:
        _log(str(error))
    return 4
