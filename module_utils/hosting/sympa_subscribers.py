# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which subscribers to add, mend and take off: the thinking behind `sympa_subscribers`.

One file for all lists, a subscription a line, columns parted by tabs and named in the first line. On a list that is
managed the file is the truth; on the others it only adds. On both, whoever was in the file before and is no longer on
the list has left: the file does not bring anybody back who has unsubscribed.

Lists are told apart by a fingerprint of what the file says of them, which the database works out on its side: only the
lists that differ are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from sys import intern
from typing import NamedTuple

from .brake import UnsafePlanError, allowance
from .sympa import TEXT_LENGTH, SympaError, canonical, is_address, is_kept

COLUMNS = ("list", "email", "name", "reception", "visibility", "date")
RECEPTIONS = {
    "mail",
    "digest",
    "digestplain",
    "nomail",
    "summary",
    "notice",
    "txt",
    "html",
    "urlize",
    "not_me",
}
VISIBILITIES = {"noconceal", "conceal"}
NOBODY = [0, 0]
_COMPARED = ("name", "reception", "visibility")


class FileError(Exception):
    """The file cannot be used at all; the message says why and what mends it."""


class Subscriber(NamedTuple):
    """What is known of one subscription, beside its list and its address."""

    name: str = ""
    reception: str = "mail"
    visibility: str = "noconceal"
    date: int = 0  # 0: not told


@dataclass
class Wanted:
    """The file: subscribers by list and address, the columns it has, and the lines that cannot be followed."""

    lists: dict[str, dict[str, Subscriber]] = field(default_factory=dict)
    columns: tuple[str, ...] = ("list", "email")
    faults: list[str] = field(default_factory=list)
    faulty: set[str] = field(default_factory=set)
    """Lists with such a line: nobody is taken off them."""
    undeclared: set[str] = field(default_factory=set)
    """Lists that are not declared and have lines: who was on them is not forgotten."""

    def prints(self) -> dict[str, list[int]]:
        """Return the fingerprint of each list as the file says it is."""
        return {address: fingerprint(them, self.compared) for address, them in self.lists.items()}

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns in which a subscriber that is there already may differ from the file."""
        return tuple(column for column in _COMPARED if column in self.columns)


@dataclass(frozen=True)
class ListPlan:
    """What changes on one list."""

    add: Mapping[str, Subscriber] = field(default_factory=dict)
    mend: Mapping[str, Subscriber] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """In the file, and gone by themselves."""

    @property
    def changed(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.add or self.mend or self.remove)

    def words(self) -> str:
        """Count what changes; who it is stays among the subscribers and those who look after them."""
        counts = (("added", self.add), ("changed", self.mend), ("removed", self.remove))
        return ", ".join(f"{len(them)} {what}" for what, them in counts if them)


def columns(line: str) -> tuple[str, ...]:
    """Read the file's first line."""
    header = line.rstrip("\r\n").split("\t")
    unknown = [column for column in header if column not in COLUMNS]
    if header[:2] != ["list", "email"] or unknown or len(set(header)) != len(header):
        raise FileError(
            f"its first line is not the names of its columns ({', '.join(COLUMNS)}; the first two are a must, in that "
            "order) parted by tabs: correct it"
        )
    return tuple(header)


def parse(lines: Iterable[str], lists: Collection[str], numbers: Iterable[int] | None = None) -> Wanted:
    """Read the file, or its first line and those of the `numbers`; a line that cannot be followed costs no other."""
    rows = iter(lines)
    header = columns(next(rows, ""))
    wanted = Wanted(columns=header)
    known = frozenset(lists)
    undeclared: dict[str, list[int]] = {}
    for line, number in zip(rows, numbers or count(2)):
        cells = line.rstrip("\r\n").split("\t")
        if cells == [""]:
            continue
        address = canonical(cells[0])
        if address not in known:
            undeclared.setdefault(address, []).append(number)
            continue
        try:
            email, subscriber = _subscriber(cells, header, address)
        except ValueError as why:
            wanted.faults.append(f"line {number}: {why}")
            wanted.faulty.add(address)
            continue
        them = wanted.lists.setdefault(address, {})
        if email in them:
            wanted.faults.append(f"line {number}: {email} is on {address} by an earlier line: keep one of them")
            continue
        them[email] = subscriber
    _tell_undeclared(wanted, undeclared)
    return wanted


def _tell_undeclared(wanted: Wanted, undeclared: Mapping[str, list[int]]) -> None:
    wanted.undeclared.update(undeclared)
    for address, numbers in undeclared.items():
        more = f" (and {len(numbers) - 1} more lines)" if len(numbers) > 1 else ""
        wanted.faults.append(
            f"line {numbers[0]}{more}: there is no list {address!r} among those declared: declare it, or correct it"
        )


def _subscriber(cells: list[str], header: Sequence[str], address: str) -> tuple[str, Subscriber]:
    """Read a line; raise with what is wrong of it."""
    if len(cells) != len(header):
        raise ValueError(f"it has {len(cells)} columns, and the first line names {len(header)}: correct it")
    email = canonical(cells[1])
    if not is_address(email):
        raise ValueError(f"{cells[1]!r} is no mail address: correct it or take the line away")
    if email == address:
        raise ValueError(f"{email} is the list itself: take the line away")
    values = dict(zip(header, map(str.strip, cells)))
    name, reception = values.get("name", ""), values.get("reception") or "mail"
    visibility, date = values.get("visibility") or "noconceal", values.get("date") or "0"
    if len(name) > TEXT_LENGTH or not name.isprintable() or not is_kept(name):
        raise ValueError(f"the name of {email} has more than {TEXT_LENGTH} letters, or some that Sympa cannot keep")
    if reception not in RECEPTIONS:
        raise ValueError(f"{reception!r} is no way of reception: one of {', '.join(sorted(RECEPTIONS))}")
    if visibility not in VISIBILITIES:
        raise ValueError(f"{visibility!r} is no visibility: noconceal or conceal")
    if not (date.isascii() and date.isdecimal() and int(date) < 2**31):
        raise ValueError(f"{date!r} is no date: seconds since 1970, or nothing")
    return email, Subscriber(name, intern(reception), intern(visibility), int(date))


def fingerprint(them: Mapping[str, Subscriber], compared: Collection[str]) -> list[int]:
    """Return the number of subscribers and a digest of what is compared of them, in whatever order they come."""
    digest = 0
    for email, one in them.items():
        parts = (getattr(one, column) if column in compared else "" for column in _COMPARED)
        line = "\t".join((email, *parts))
        digest ^= int.from_bytes(hashlib.md5(line.encode()).digest()[:8], "big")  # noqa: S324  no secret, as in SQL below
    return [len(them), digest]


def fingerprint_sql(compared: Collection[str], where: str = "") -> str:
    """Return the question that has the database work out the fingerprints of all its lists, or of those `where`."""
    cells = {
        "name": "TRIM(IFNULL(comment_subscriber, ''))",
        "reception": "IFNULL(NULLIF(reception_subscriber, ''), 'mail')",
        "visibility": "IFNULL(NULLIF(visibility_subscriber, ''), 'noconceal')",
    }
    parts = ", ".join(cells[column] if column in compared else "''" for column in _COMPARED)
    # Whatever charset the tables of an old Sympa have, the digest is that of UTF-8.
    line = f"MD5(CONVERT(CONCAT_WS('\\t', LOWER(user_subscriber), {parts}) USING utf8mb4))"
    return (
        "SELECT CONCAT(list_subscriber, '@', robot_subscriber), COUNT(*), "
        f"BIT_XOR(CAST(CONV(LEFT({line}, 16), 16, 10) AS UNSIGNED)) "
        f"FROM subscriber_table {where}GROUP BY robot_subscriber, list_subscriber"
    )


def differing(
    wanted: Wanted,
    managed: Collection[str],
    meant: Mapping[str, list[int]],
    prints: Mapping[str, list[int]],
    known: Mapping[str, frozenset[str]],
    closed: Collection[str] = (),
) -> list[str]:
    """Return the lists that must be read: managed ones that are not as the file says, others that are empty or gain.

    Those that are closed wait: Sympa keeps their subscribers in their folders, and puts them back itself.
    """
    return [
        address
        for address in sorted({*managed, *wanted.lists} - set(closed))
        if (
            prints.get(address, NOBODY) != meant.get(address, NOBODY)
            if address in managed
            else prints.get(address, NOBODY) == NOBODY
            or not wanted.lists[address].keys() <= known.get(address, frozenset())
        )
    ]


def plan_list(
    wanted: Mapping[str, Subscriber],
    found: Mapping[str, Subscriber],
    known: Collection[str] = (),
    *,
    managed: bool,
    removes: bool = True,
    compared: Collection[str] = _COMPARED,
) -> ListPlan:
    """Compare the file with one list; `known` were in the file before."""
    new = {email: one for email, one in wanted.items() if email not in found}
    return ListPlan(
        add={email: one for email, one in new.items() if email not in known},
        mend={
            email: _mended(found[email], one, compared)
            for email, one in wanted.items()
            if managed and email in found and _mended(found[email], one, compared) != found[email]
        },
        remove=tuple(sorted(found.keys() - wanted.keys())) if managed and removes else (),
        left=tuple(sorted(email for email in new if email in known)),
    )


def _mended(found: Subscriber, wanted: Subscriber, compared: Collection[str]) -> Subscriber:
    return found._replace(**{column: getattr(wanted, column) for column in compared})


def refuse_mass_removals(
    plans: Mapping[str, ListPlan], found: Mapping[str, int], confirmed: Collection[str] = ()
) -> None:
    """Raise where more than 30 % of a list (more than 2 of a list under 10) would go without being confirmed."""
    surprising = [
        f"{len(one.remove)} of {found[address]} of {address}"
        for address, one in sorted(plans.items())
        if len(one.remove) > allowance(found[address]) and address not in confirmed
    ]
    if surprising:
        more = f" and on {len(surprising) - 20} more lists" if len(surprising) > 20 else ""
        raise UnsafePlanError(
            f"subscribers would be taken off: {', '.join(surprising[:20])}{more}; nothing was changed. If that is "
            "meant, confirm the lists by name in sympa_confirm_removals, else put the lines back into the file"
        )


def refuse_other_than_wanted(
    plans: Mapping[str, ListPlan],
    managed: Collection[str],
    faulty: Collection[str],
    meant: Mapping[str, list[int]],
    prints: Mapping[str, list[int]],
) -> None:
    """Raise where a managed list is not what the file says although all of it was written."""
    wrong = [
        address
        for address, plan in plans.items()
        if address in managed
        and not plan.left
        and address not in faulty
        and prints.get(address, NOBODY) != meant.get(address, NOBODY)
    ]
    if wrong:
        raise SympaError(
            f"the database does not hold what the file says of {', '.join(wrong[:20])}: it cannot keep a letter of a "
            "name, or somebody else writes there now; apply again"
        )


def emptied(plans: Mapping[str, ListPlan], found: Mapping[str, int]) -> list[str]:
    """Return the lists that nobody is on any more of the many whom the file named before: people do not leave so."""
    return [address for address, plan in plans.items() if not found[address] and len(plan.left) > allowance(0)]


def known_after(
    wanted: Wanted, before: Mapping[str, frozenset[str]], lists: Collection[str], closed: Collection[str] = ()
) -> dict[str, frozenset[str]]:
    """Return whom the file has named, list by list, for the next run.

    A faulty line makes nobody unknown, and neither does a list that is undeclared or closed as long as it has lines.
    """
    after = {}
    for address in {*lists, *wanted.undeclared}:
        them, those = wanted.lists.get(address, {}).keys(), before.get(address, frozenset())
        if address in closed and address not in wanted.faulty:
            after[address] = those & them
        elif address in wanted.faulty or address in wanted.undeclared:
            after[address] = those | them
        else:
            after[address] = frozenset(them)
    return {address: them for address, them in after.items() if them}
