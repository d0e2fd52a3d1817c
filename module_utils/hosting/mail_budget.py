# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much mail an account may send: whose a message is, what is counted, and who is frozen.

One account has one budget, whichever way its mail leaves: with a password, or by PHP on a web host. What is over it is
refused for now (4xx); who goes on all the same is frozen, and from then on the mail waits in Postfix's hold queue,
where nothing is lost. The counting stands in a file, so that a restart forgets nothing.
"""

from __future__ import annotations

import ipaddress
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOUR, DAY = 3600.0, 86400.0
MUCH = 10
"""Recipients within a minute, after which an account's mail takes the lane for much."""
KEPT = 6 * DAY
"""How long a message is remembered: longer than Postfix keeps one in its queue."""
PASS, REFUSE, HOLD, SETTLED = "pass", "refuse", "hold", "settled"
OURS = ("127.0.0.0/8", "::1/128")

_TABLES = """
CREATE TABLE IF NOT EXISTS message (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, account TEXT NOT NULL, site TEXT NOT NULL,
  queue_id TEXT NOT NULL, recipients INTEGER NOT NULL, verdict TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS message_account ON message (account, verdict, at);
CREATE INDEX IF NOT EXISTS message_at ON message (at);
CREATE TABLE IF NOT EXISTS account (
  name TEXT PRIMARY KEY, thawed REAL NOT NULL DEFAULT 0, thawed_id INTEGER NOT NULL DEFAULT 0,
  allowance INTEGER NOT NULL DEFAULT 0, frozen REAL, who TEXT NOT NULL DEFAULT '', told INTEGER NOT NULL DEFAULT 0
);
"""


@dataclass(frozen=True)
class Budget:
    """Recipients that an account may write to within any hour, and within any day."""

    hour: int
    day: int


@dataclass(frozen=True)
class Settings:
    """What the platform says of outgoing mail."""

    host: str
    default: Budget
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)  # mail domain -> account
    domains_file: str = ""  # a file of more of them, which somebody else keeps as it must be
    nodes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # name of a web host -> its addresses
    networks: Sequence[str] = ()  # others that may send without a password
    patience: int = 3  # how many budgets of an hour may be refused within an hour, before the account is frozen
    stretch: int = 1  # how many budgets are let through: more than one where another host counts after us
    bulk: str = ""  # transport and next hop of who sends much at once, so that the others need not wait behind
    contacts: Mapping[str, str] = field(default_factory=dict)  # account -> the member's address
    techs: str = ""
    server: str = "127.0.0.1:25"  # takes our letters

    def budget(self, account: str) -> Budget:
        """Return the budget of an account."""
        return self.budgets.get(account, self.default)


@dataclass(frozen=True)
class Message:
    """One message that wants to leave: whose it is, and how many it is for."""

    account: str
    site: str
    who: str  # the login or the envelope sender
    recipients: int
    queue_id: str = ""


def read_settings(said: Mapping[str, Any]) -> Settings:
    """Return what the file of the role says."""
    default = Budget(**said["default"])
    return Settings(
        host=said["host"],
        default=default,
        budgets={
            one["account"]: Budget(one.get("hour", default.hour), one.get("day", default.day))
            for one in said["accounts"]
        },
        domains={one["name"]: one["account"] for one in said["domains"] if one.get("account")},
        domains_file=said["domains_file"],
        nodes={one["name"]: one["addresses"] for one in said["nodes"]},
        networks=said["networks"],
        patience=said["patience"],
        stretch=said["stretch"],
        bulk=said["bulk"],
        contacts={one["account"]: one["contact"] for one in said["accounts"] if one.get("contact")},
        techs=said["techs"],
        server=said["server"],
    )


def read_domains(text: str) -> dict[str, str]:
    """Return what a file of domains says: a domain and its account a line."""
    return dict(line.split()[:2] for line in text.splitlines() if len(line.split()) > 1)


def problems(said: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that cannot work."""
    found = []
    for who, budget in (("mail_budget_default", said["default"]), *((one["account"], one) for one in said["accounts"])):
        found += [
            f"{who} may write to {budget[window]} recipients a {window}: write a number of 1 or more."
            for window in ("hour", "day")
            if budget.get(window, 1) < 1
        ]
    addresses = [(node["name"], address) for node in said["nodes"] for address in node["addresses"]]
    found += [f"{who} has the address {one}, which is none." for who, one in addresses if _address(one) is None]
    return found + [
        f"{network} among mail_budget_networks is no network such as 192.0.2.0/24."
        for network in said["networks"]
        if not _is_network(network)
    ]


def message(request: Mapping[str, str], settings: Settings) -> Message | None:
    """Return the message that Postfix asks about, None if it is not one that leaves by an account."""
    found = whose(request, settings)
    if found is None:
        return None
    account, site, who = found
    count = request.get("recipient_count", "")
    # Nobody without a recipient gets so far; one who is not counted would be let through.
    return Message(account, site, who, max(1, int(count) if count.isdigit() else 1), request.get("queue_id", ""))


def whose(request: Mapping[str, str], settings: Settings) -> tuple[str, str, str] | None:
    """Return account, site and sender of what comes by this client."""
    login = request.get("sasl_username", "").lower()
    if login:
        domain = login.rpartition("@")[2]
        return settings.domains.get(domain, domain), domain, login
    client = _address(request.get("client_address", ""))
    if client is None:
        return None
    sender = request.get("sender", "").lower()
    for name, addresses in settings.nodes.items():
        if client in map(_address, addresses):
            local, _, domain = sender.rpartition("@")
            account, _, site = local.partition("+")
            # Its own mail, and what it returns to a sender, are the host's.
            return (account, site, sender) if domain == name and account else (name, "", sender or name)
    if _within(client, settings.networks) and not _within(client, OURS):
        return str(client), "", sender or str(client)
    return None


class Ledger:
    """What was counted, in a file; one writer at a time."""

    def __init__(self, path: str | Path) -> None:
        self._file = sqlite3.connect(str(path), timeout=20, isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing; a machine without power may forget its last moments.
        self._file.execute("PRAGMA synchronous = NORMAL")
        self._file.executescript(_TABLES)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def judge(self, one: Message, settings: Settings, now: float) -> str:
        """Count a message and say what becomes of it; who is frozen by it is so from now on."""
        with self:
            verdict = self._verdict(one, settings, now)
            self._file.execute(
                "INSERT INTO message (at, account, site, queue_id, recipients, verdict) VALUES (?, ?, ?, ?, ?, ?)",
                (now, one.account, one.site, one.queue_id, one.recipients, verdict),
            )
        return verdict

    def _verdict(self, one: Message, settings: Settings, now: float) -> str:
        thawed, _, allowance, frozen = self._account(one.account)
        if frozen is not None:
            return HOLD
        budget = settings.budget(one.account)
        if all(
            self.sum(one.account, PASS, now - window) + one.recipients
            <= most * settings.stretch + (allowance if now - thawed < window else 0)
            for window, most in ((HOUR, budget.hour), (DAY, budget.day))
        ):
            return PASS
        if self.sum(one.account, REFUSE, now - HOUR) + one.recipients <= budget.hour * settings.patience:
            return REFUSE
        self._file.execute(
            "INSERT INTO account (name, frozen, who) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET frozen = excluded.frozen, who = excluded.who, told = 0",
            (one.account, now, one.who),
        )
        return HOLD

    def _account(self, name: str) -> tuple[float, int, int, float | None]:
        row = self._file.execute(
            "SELECT thawed, thawed_id, allowance, frozen FROM account WHERE name = ?", (name,)
        ).fetchone()
        return row or (0.0, 0, 0, None)

    def sum(self, account: str, verdict: str, since: float) -> int:
        """Return the recipients of an account's mail since then, or since it was thawed.

        By number, not by time: a clock that is set back frees nobody.
        """
        thawed = self._account(account)[1]
        row = self._file.execute(
            "SELECT coalesce(sum(recipients), 0) FROM message WHERE account = ? AND verdict = ? AND at > ? AND id > ?",
            (account, verdict, since, thawed),
        ).fetchone()
        return int(row[0])

    def thaw(self, account: str, allowance: int, now: float) -> bool:
        """Begin anew with an account, and let as many recipients through besides; tell whether it was frozen."""
        with self:
            frozen = self._account(account)[3] is not None
            self._file.execute(
                "INSERT INTO account (name, thawed, thawed_id, allowance)"
                " VALUES (?, ?, (SELECT coalesce(max(id), 0) FROM message), ?) ON CONFLICT (name) DO UPDATE"
                " SET thawed = excluded.thawed, thawed_id = excluded.thawed_id, allowance = excluded.allowance,"
                " frozen = NULL, who = '', told = 0",
                (account, now, allowance),
            )
        return frozen

    def frozen(self) -> dict[str, tuple[float, str]]:
        """Return the frozen accounts: since when, and who sent last."""
        rows = self._file.execute("SELECT name, frozen, who FROM account WHERE frozen IS NOT NULL ORDER BY name")
        return {name: (since, who) for name, since, who in rows}

    def untold(self) -> list[str]:
        """Return the frozen accounts of which nobody was told yet."""
        rows = self._file.execute("SELECT name FROM account WHERE frozen IS NOT NULL AND told = 0 ORDER BY name")
        return [name for (name,) in rows]

    def told(self, account: str) -> None:
        """Remember that the letter about an account is on its way."""
        self._file.execute("UPDATE account SET told = 1 WHERE name = ?", (account,))

    def owners(self, queue_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return account and site of those messages in Postfix's queue that were counted."""
        wanted = set(queue_ids)
        rows = self._file.execute(
            "SELECT queue_id, account, site FROM message WHERE verdict != ? ORDER BY id", (REFUSE,)
        )
        return {queue_id: (account, site) for queue_id, account, site in rows if queue_id in wanted}

    def settle(self, account: str, queue_ids: Iterable[str]) -> None:
        """Remember that these messages are held no longer."""
        with self:
            self._file.executemany(
                "UPDATE message SET verdict = ? WHERE account = ? AND queue_id = ? AND verdict = ?",
                [(SETTLED, account, one, HOLD) for one in queue_ids],
            )

    def prune(self, now: float) -> None:
        """Forget what is old, but not whose the messages are that are held."""
        self._file.execute("DELETE FROM message WHERE at < ? AND verdict != ?", (now - KEPT, HOLD))

    def __enter__(self) -> None:
        """Begin what happens as a whole or not at all."""
        self._file.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        """End it."""
        self._file.execute("ROLLBACK" if kind else "COMMIT")


def _address(text: str) -> Any:
    try:
        found = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _within(client: Any, networks: Iterable[str]) -> bool:
    return any(client in _network(network) for network in networks)


def _network(text: str) -> Any:
    return ipaddress.ip_network(text.replace("[", "").replace("]", ""))


def _is_network(text: str) -> bool:
    try:
        _network(text)
    except ValueError:
        return False
    return True
