# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Unix accounts to create, mend and lock: the thinking behind `accounts`.

An account is ours when it is in the owning group. It has a private primary group of its own name, the owning group and
the declared supplementary groups, and no other. One that is no longer declared is locked and keeps only the owning
group; it is never deleted, for its files are still its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .brake import refuse_mass_removal

NO_PASSWORD = "*"  # noqa: S105 (no password fits: keys only; unlike "!", sshd does not take it for a locked account)
EXPIRED = 1  # days since 1970: an expired account is refused by sshd, cron, su and at, whatever its keys say
_LOGIN = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_HASH = re.compile(r"\$[a-z0-9]+\$[^:\s]+")
_FIRST_ORDINARY_UID = 1000


class AccountsError(Exception):
    """The wanted set cannot be reached; the message says why and what mends it."""


@dataclass(frozen=True)
class Account:
    """One account, as declared or as found."""

    name: str
    home: str
    shell: str
    comment: str
    uid: int | None = None
    password: str = field(default=NO_PASSWORD, repr=False)
    expires: int | None = None
    groups: frozenset[str] = frozenset()

    @property
    def locked(self) -> bool:
        """Whether nobody gets in by it any more."""
        return self.expires is not None and self.expires <= EXPIRED and self.password.startswith("!")

    def words(self, owner: str) -> str:
        """Describe the account in one line, without its password."""
        secret = "password" if self.password.startswith("$") else "no password"
        entrance = "locked" if self.locked else f"open, {secret}"
        extra = ",".join(sorted(self.groups - {owner})) or "-"
        return f"{self.name}: {entrance}, home {self.home}, shell {self.shell}, groups {extra}, {self.comment!r}"


@dataclass(frozen=True)
class Host:
    """What the host has: our accounts in full, everybody's login and group names."""

    accounts: Mapping[str, Account]
    uids: Mapping[str, int]
    groups: Collection[str]
    busy: frozenset[str] = frozenset()  # accounts of ours that have processes


@dataclass(frozen=True)
class Change:
    """One account that changes: from `before` (None: it is created) to `after`."""

    before: Account | None
    after: Account

    @property
    def password_changes(self) -> bool:
        """Whether the password field has to be written."""
        return self.before is None or self.before.password != self.after.password


@dataclass(frozen=True)
class Plan:
    """The difference between a host's accounts and the declared ones."""

    owner: str
    create_owner: bool = False
    changes: tuple[Change, ...] = ()
    locks: tuple[Change, ...] = ()
    end_sessions: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.create_owner or self.changes or self.locks or self.end_sessions)

    def diff(self) -> dict[str, str]:
        """Return the accounts that change, one a line; a changed password is said, never shown."""
        before, after = [], []
        for change in sorted((*self.changes, *self.locks), key=lambda change: change.after.name):
            news = (
                " (new password)"
                if change.before and change.password_changes and change.after.password.startswith("$")
                else ""
            )
            before += [change.before.words(self.owner)] if change.before else []
            after.append(change.after.words(self.owner) + news)
        before += [f"{name}: has sessions" for name in self.end_sessions]
        after += [f"{name}: no sessions" for name in self.end_sessions]
        header = f"accounts of group {self.owner}"
        return {
            "before_header": header,
            "after_header": header,
            "before": "".join(f"{line}\n" for line in before),
            "after": "".join(f"{line}\n" for line in after),
        }


def declared(owner: str, entry: Mapping[str, Any]) -> Account:
    """Return the account that an entry of the module's option describes; raise where it cannot be one."""
    name, password = entry["name"], entry.get("password_hash") or NO_PASSWORD
    if not _LOGIN.fullmatch(name):
        raise AccountsError(f"{name!r} cannot be a login: small letters, digits, - and _, a letter first, 32 at most")
    if password != NO_PASSWORD and not _HASH.fullmatch(password):
        raise AccountsError(f"the password_hash of {name} is not a hash: make one with `mkpasswd`")
    for key in ("home", "shell", "comment"):
        if re.search(r"[:\n]", entry[key]):
            raise AccountsError(f"the {key} of {name} holds a colon or a line break, which /etc/passwd cannot keep")
    return Account(
        name=name,
        home=entry["home"],
        shell=entry["shell"],
        comment=entry["comment"],
        uid=entry.get("uid"),
        password=password,
        groups=frozenset([owner, *(entry.get("groups") or [])]),
    )


def technicians(techs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return technicians ({name, comment}) as the module takes them: a home and a shell, entered by key alone."""
    return [
        {"name": tech["name"], "home": f"/home/{tech['name']}", "comment": tech.get("comment") or ""} for tech in techs
    ]


def plan(owner: str, wanted: Sequence[Account], host: Host, host_name: str, confirmed: Collection[str] = ()) -> Plan:
    """Compare the declared accounts with the host's; raise where they cannot live together."""
    _refuse_doubles(wanted)
    _refuse_clashes(owner, wanted, host, host_name)
    names = {account.name for account in wanted}
    gone = {name: account for name, account in host.accounts.items() if name not in names}
    locks = [Change(account, locked(owner, account)) for account in gone.values() if account != locked(owner, account)]
    opened = sum(not account.locked for account in host.accounts.values())
    refuse_mass_removal(
        [change.after.name for change in locks if change.before and not change.before.locked],
        opened,
        confirmed,
        f"accounts of group {owner}",
    )
    return Plan(
        owner=owner,
        create_owner=owner not in host.groups,
        changes=tuple(_changes(wanted, host)),
        locks=tuple(sorted(locks, key=lambda change: change.after.name)),
        end_sessions=tuple(sorted(host.busy & set(gone))),
    )


def locked(owner: str, account: Account) -> Account:
    """Return the same account, shut: it keeps its files and its place in the owning group, nothing else."""
    password = account.password if account.password.startswith("!") else f"!{account.password}"
    return replace(account, password=password, expires=EXPIRED, groups=frozenset([owner]))


def refuse_missing_groups(wanted: Sequence[Account], owner: str, host: Host) -> None:
    """Raise where a declared supplementary group does not exist; a check on a fresh host has no use for it."""
    missing = sorted({group for account in wanted for group in account.groups} - set(host.groups) - {owner})
    if missing:
        raise AccountsError(f"group {', '.join(missing)} does not exist: install the package that makes it, or drop it")


def _changes(wanted: Sequence[Account], host: Host) -> Iterable[Change]:
    for goal in wanted:
        found = host.accounts.get(goal.name)
        after = goal if found is None or goal.uid is not None else _with_uid(goal, found.uid)
        if found != after:
            yield Change(found, after)


def _with_uid(account: Account, uid: int | None) -> Account:
    return replace(account, uid=uid)


def _refuse_doubles(wanted: Sequence[Account]) -> None:
    for what, values in (
        ("login", Counter(account.name for account in wanted)),
        ("uid", Counter(str(account.uid) for account in wanted if account.uid is not None)),
    ):
        doubles = sorted(value for value, times in values.items() if times > 1)
        if doubles:
            raise AccountsError(f"{what} {', '.join(doubles)} is declared twice: keep one")


def _refuse_clashes(owner: str, wanted: Sequence[Account], host: Host, host_name: str) -> None:
    by_uid = {uid: name for name, uid in host.uids.items()}
    for account in wanted:
        found = host.accounts.get(account.name)
        if found is None:
            _refuse_taken(owner, account.name, host, host_name)
        elif account.uid is not None and account.uid != found.uid:
            raise AccountsError(
                f"{account.name} has uid {found.uid} on {host_name} but {account.uid} is declared: "
                f"declare {found.uid}, for its files belong to that number"
            )
        if account.uid is not None and by_uid.get(account.uid, account.name) != account.name:
            raise AccountsError(
                f"uid {account.uid} of {account.name} is {by_uid[account.uid]}'s on {host_name}: choose another"
            )


def _refuse_taken(owner: str, name: str, host: Host, host_name: str) -> None:
    if name in host.uids:
        uid = host.uids[name]
        if uid < _FIRST_ORDINARY_UID:
            raise AccountsError(
                f"login {name} is already taken on {host_name} by a system account (uid {uid}): choose another"
            )
        raise AccountsError(
            f"login {name} is already taken on {host_name} by an account that is not in the group {owner} (uid {uid}): "
            f"choose another, or hand it over to us with `usermod -aG {owner} {name}` there"
        )
    if name in host.groups:
        raise AccountsError(f"login {name} is already taken on {host_name} by a group of that name: choose another")
