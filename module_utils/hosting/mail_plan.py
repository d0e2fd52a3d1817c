# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which lines Postfix and Dovecot read for the declared mail: the thinking behind `mailboxes`.

What the host has is read back from the very files that we write. A mailbox that is no longer declared stays in them,
shut: nobody logs in, its mail stays on the disk, and new mail is deferred, for an entry that is missing by mistake must
not cost anybody a message. One that is declared with `enabled: false` refuses its mail.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from .brake import refuse_mass_removal
from .mail import ROLES, Mail, Mailbox, without_extension

OPEN, DISABLED, UNDECLARED = "open", "disabled", "undeclared"
NO_PASSWORD = "{CRYPT}!"  # noqa: S105 (no password fits; an empty field would let everybody in)
MADE = {*ROLES, "root"}
FORGED = "553 5.7.1 Log in to send as an address of this domain"
ANSWERS = {
    DISABLED: ("550 5.2.1 This mailbox is disabled", "error:5.2.1 This mailbox is disabled"),
    UNDECLARED: ("450 4.2.1 This mailbox is out of service", "retry:4.2.1 This mailbox is out of service"),
}
"""What a sender is told, and what becomes of a message that an alias leads there."""

_STATE = re.compile(rf"({OPEN}|{DISABLED}|{UNDECLARED} since [0-9-]{{10}})")
_RULE = re.compile(r"userdb_quota_rule=\*:bytes=([0-9]+)")


class MailError(Exception):
    """The files of this host do not say what we would have written; the message says which and what mends it."""


@dataclass(frozen=True)
class Settings:
    """What the platform says of all mail."""

    host: str
    postmaster: str
    homes: str = "/srv/mail"


@dataclass(frozen=True)
class User:
    """One mailbox as Dovecot knows it."""

    address: str
    password: str = field(default=NO_PASSWORD, repr=False)
    quota: int = 0
    state: str = OPEN
    since: str = ""

    def words(self) -> str:
        """Describe the mailbox in one line, without its password."""
        entrance = {NO_PASSWORD: ", no password"}.get(self.password, "") if self.state == OPEN else ""
        since = f" since {self.since}" if self.since else ""
        return f"{self.address}: {self.state}{since}{entrance}, quota {_amount(self.quota)}"

    def line(self, homes: str) -> str:
        """Return the mailbox's line in Dovecot's passwd-file."""
        local, _, domain = self.address.rpartition("@")
        state = f"{self.state} since {self.since}" if self.since else self.state
        return f"{self.address}:{self.password}:::{state}:{homes}/{domain}/{local}::{_rule(self.quota)}"


@dataclass(frozen=True)
class Current:
    """What the host's files say."""

    users: Mapping[str, User] = field(default_factory=dict)
    domains: frozenset[str] = frozenset()
    aliases: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """From what the host has to what it should have."""

    before: Mapping[str, User]
    after: Mapping[str, User]
    maps: Mapping[str, Mapping[str, str]]
    homes: str

    @property
    def texts(self) -> dict[str, str]:
        """Return the text of each file, by its name."""
        users = "".join(f"{user.line(self.homes)}\n" for _address, user in sorted(self.after.items()))
        return {"users": users, **{name: _text(entries) for name, entries in self.maps.items()}}

    def changed(self, state: str) -> list[str]:
        """Return the mailboxes that come into this state now."""
        return sorted(
            address
            for address, user in self.after.items()
            if user.state == state and (address not in self.before or self.before[address].state != state)
        )

    def undeclared(self) -> dict[str, str]:
        """Return the mailboxes that nobody declares, and since when."""
        return {address: user.since for address, user in sorted(self.after.items()) if user.state == UNDECLARED}

    def diff(self) -> dict[str, str]:
        """Return the mailboxes that change, one a line; a changed password is said, never shown."""
        before, after = [], []
        for address, user in sorted(self.after.items()):
            found = self.before.get(address)
            if found == user:
                continue
            news = found is not None and user.state == OPEN and found.password != user.password
            before += [found.words()] if found else []
            after.append(user.words() + (" (new password)" if news else ""))
        return {
            "before_header": "mailboxes",
            "after_header": "mailboxes",
            "before": "".join(f"{line}\n" for line in before),
            "after": "".join(f"{line}\n" for line in after),
        }


def parse(texts: Mapping[str, str]) -> Current:
    """Read back what a plan's texts say, as far as the next plan asks."""
    return Current(
        users={user.address: user for user in map(_user, texts.get("users", "").splitlines())},
        domains=frozenset(_keys(texts.get("domains", ""))),
        aliases=frozenset(_keys(texts.get("aliases", ""))),
    )


def plan(mail: Mail, current: Current, settings: Settings, today: str, confirmed: Collection[str] = ()) -> Plan:
    """Compare the declared mail with what the host has; raise where it would take too much away.

    `confirmed` names mailboxes, aliases, or domains with all their addresses, that may go although they are many.
    """
    users = {address: _wanted(mailbox) for address, mailbox in mail.mailboxes.items()}
    gone = {address: user for address, user in current.users.items() if address not in users}
    shut = {address: _shut(user, today) for address, user in gone.items()}
    after = {**users, **shut}
    maps = _maps(mail, after, settings)
    going = [address for address, user in gone.items() if user.state != UNDECLARED]
    living = sum(user.state != UNDECLARED for user in current.users.values())
    _brake(going, living, confirmed, "mailboxes", "shut")
    domains = current.domains - {settings.host}
    _brake(domains - set(mail.domains), len(domains), confirmed, "mail domains", "no longer served")
    aliases = {address for address in current.aliases if address.partition("@")[0] not in MADE}
    _brake(aliases - set(maps["aliases"]) - set(users), len(aliases), confirmed, "aliases", "removed")
    return Plan(current.users, after, maps, settings.homes)


def stray(address: str, today: str) -> User:
    """Return a mailbox of which only the mail is there."""
    return User(address, state=UNDECLARED, since=today)


def _brake(going: Iterable[str], existing: int, confirmed: Collection[str], what: str, fate: str) -> None:
    known = set(confirmed)
    surprising = [name for name in going if name.rpartition("@")[2] not in known]
    refuse_mass_removal(surprising, existing, known, what, fate)


def _wanted(mailbox: Mailbox) -> User:
    if not mailbox.enabled:
        return User(mailbox.address, quota=mailbox.quota, state=DISABLED)
    return User(mailbox.address, mailbox.password or NO_PASSWORD, mailbox.quota)


def _shut(user: User, today: str) -> User:
    if user.state == UNDECLARED:
        return user
    return replace(user, password=NO_PASSWORD, state=UNDECLARED, since=today)


def _maps(mail: Mail, users: Mapping[str, User], settings: Settings) -> dict[str, dict[str, str]]:
    """Return Postfix's maps by name, each from key to value."""
    served = {settings.host, *mail.domains}
    ours = {address: user for address, user in users.items() if address.rpartition("@")[2] in served}
    aliases = _with_roles(mail, ours, settings)
    closed = {
        address: ANSWERS[user.state]
        for address, user in ours.items()
        if user.state != OPEN and address not in mail.aliases
    }
    return {
        "domains": dict.fromkeys(served, "OK"),
        "strangers": dict.fromkeys(served, FORGED),
        "mailboxes": dict.fromkeys(ours, "OK"),
        "aliases": {
            **{address: ", ".join(targets) for address, targets in aliases.items()},
            **{f"@{domain}": ", ".join(targets) for domain, targets in mail.catch_alls.items()},
            # Postfix looks for a catch-all before it looks for a mailbox: these keep what is theirs.
            **{
                address: address
                for address in ours
                if address.rpartition("@")[2] in mail.catch_alls and address not in aliases
            },
        },
        "senders": _senders(aliases, mail.catch_alls, ours),
        "recipients": {address: answer for address, (answer, _fate) in closed.items()},
        "transport": {address: fate for address, (_answer, fate) in closed.items()},
    }


def _with_roles(mail: Mail, users: Mapping[str, User], settings: Settings) -> dict[str, tuple[str, ...]]:
    added = {
        f"{role}@{domain}": (settings.postmaster,)
        for domain in (*mail.domains, settings.host)
        for role in (*ROLES, *(["root"] if domain == settings.host else []))
    }
    taken = {*users, settings.postmaster}
    return {**{address: to for address, to in added.items() if address not in taken}, **mail.aliases}


def _senders(
    aliases: Mapping[str, tuple[str, ...]], catch_alls: Mapping[str, tuple[str, ...]], users: Mapping[str, User]
) -> dict[str, str]:
    """Return who may send as each address: its mailbox, or those that an alias leads to.

    Each of our addresses has an owner, if only a name that nobody logs in by: what has none, anybody may use.
    """
    reached = Reached(aliases, catch_alls, users)
    return {
        **{address: address for address in users},
        **{address: ", ".join(sorted(reached.by(address))) or address for address in aliases},
        **{f"@{domain}": ", ".join(sorted(reached.by(f"@{domain}"))) or f"@{domain}" for domain in catch_alls},
    }


class Reached:
    """The open mailboxes that each alias leads to, however many aliases lie between; there are no circles."""

    def __init__(
        self,
        aliases: Mapping[str, tuple[str, ...]],
        catch_alls: Mapping[str, tuple[str, ...]],
        users: Mapping[str, User],
    ) -> None:
        self.aliases = aliases
        self.catch_alls = catch_alls
        self.users = users
        self._known: dict[str, frozenset[str]] = {}

    def by(self, start: str) -> frozenset[str]:
        """Return the mailboxes that an address leads to."""
        waiting = [start]
        while waiting:
            address = waiting[-1]
            targets = self._next(address)
            unknown = [target for target in targets if target != address and target not in self._known]
            if unknown:
                waiting += unknown
                continue
            self._known[waiting.pop()] = frozenset(self._end(address)).union(
                *(self._known[target] for target in targets if target != address)
            )
        return self._known[start]

    def _next(self, address: str) -> tuple[str, ...]:
        if address.startswith("@"):
            targets = self.catch_alls[address[1:]]
        elif address in self.aliases:
            targets = self.aliases[address]
        elif address in self.users:
            targets = ()
        else:
            targets = self.catch_alls.get(address.rpartition("@")[2], ())
        return tuple(without_extension(target) for target in targets)

    def _end(self, address: str) -> Iterator[str]:
        user = self.users.get(address)
        if user and user.state == OPEN and (address not in self.aliases or address in self._next(address)):
            yield address


def _text(entries: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))


def _keys(text: str) -> Iterator[str]:
    return (line.partition(" ")[0] for line in text.splitlines())


def _rule(quota: int) -> str:
    return f"userdb_quota_rule=*:bytes={quota}"


def _amount(quota: int) -> str:
    if not quota:
        return "none"
    size = next((shift for shift in (40, 30, 20, 10) if quota % (1 << shift) == 0), 0)
    return f"{quota >> size}{' KMGT'[size // 10].strip()}"


def _user(line: str) -> User:
    fields = line.split(":", 7)
    state, rule = (_STATE.fullmatch(fields[4]), _RULE.fullmatch(fields[7])) if len(fields) == 8 else (None, None)
    if not state or not rule:
        raise MailError(
            f"the file of Dovecot's users has a line that is not ours ({fields[0]}): put the file back as it was, "
            "or move it away, and the mailboxes that only it knows are forgotten"
        )
    word, _, since = state[1].partition(" since ")
    return User(fields[0], fields[1], int(rule[1]), word, since)
