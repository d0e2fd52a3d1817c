# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which robots and lists to make, mend and close: the thinking behind `sympa_robots` and `sympa_lists`.

Nothing is ever deleted. A list of ours that is no longer declared is closed, as Sympa closes a list: its members are
kept in its folder and come back when it is opened again. A robot of ours that is no longer declared keeps its lists and
archives and loses its addresses. What people made with Sympa's own tools is left alone until it is declared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .brake import refuse_mass_removal
from .sympa import BOUNCES, KINDS, ROBOT_BOUNCES, SympaError, canonical, identity, list_addresses, robot_addresses
from .sympa_config import MARK, Config, merge, render_robot, wanted_values

CLOSED_ROBOT = f"{MARK} closed\n"
OPEN = "open"
_SHUT = {"closed", "family_closed"}


@dataclass(frozen=True)
class RobotPlan:
    """From the robots that are there to those that should be: the text of each file that changes."""

    before: Mapping[str, str]
    write: Mapping[str, str]
    folders: tuple[str, ...]
    """Robots whose folder of lists is not there."""
    closed: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.write or self.folders)

    def open_robots(self) -> list[str]:
        """Return the robots that have addresses afterwards, those of others included."""
        after = {**self.before, **self.write}
        return sorted(name for name, text in after.items() if not text.startswith(CLOSED_ROBOT))

    def diff(self) -> list[dict[str, str]]:
        """Return what changes, one file a robot."""
        return [
            {
                "before_header": f"{name}/robot.conf",
                "after_header": f"{name}/robot.conf",
                "before": self.before.get(name, ""),
                "after": text,
            }
            for name, text in sorted(self.write.items())
        ]


def plan_robots(
    wanted: Sequence[Mapping[str, Any]],
    found: Mapping[str, str],
    folders: Collection[str],
    url: str,
    confirmed: Collection[str] = (),
) -> RobotPlan:
    """Compare the declared robots with the files that are there, by name."""
    texts = {robot["name"]: render_robot(robot, url) for robot in wanted}
    ours = {name for name, text in found.items() if text.startswith(MARK) and not text.startswith(CLOSED_ROBOT)}
    leaving = ours - set(texts)
    refuse_mass_removal(leaving, len(ours), confirmed, "Sympa robots", "closed")
    for name in leaving:
        texts[name] = CLOSED_ROBOT + found[name].partition("\n")[2]
    write = {name: text for name, text in texts.items() if found.get(name) != text}
    missing = tuple(sorted({robot["name"] for robot in wanted} - set(folders)))
    return RobotPlan(found, write, missing, tuple(sorted(leaving)))


@dataclass(frozen=True)
class Admin:
    """One owner or moderator of a list, as Sympa's table has it."""

    email: str
    role: str  # owner or editor
    name: str = ""
    profile: str = ""
    reception: str = "mail"
    visibility: str = "noconceal"
    info: str = ""

    def words(self) -> str:
        """Describe the person in one line."""
        role = "moderator" if self.role == "editor" else self.role
        more = [self.name, self.profile, self.reception, self.visibility, self.info]
        return " ".join([role, self.email, *filter(None, more)])


@dataclass(frozen=True)
class List:
    """One list: its file, the line of Sympa's table that is made of it, and its people."""

    config: Config
    row: tuple[str, ...] | None = None
    admins: frozenset[Admin] = frozenset()
    info: str = ""

    @property
    def status(self) -> str:
        """What Sympa does with the list; an absent status is an open list."""
        return self.config.line("status") or OPEN

    @property
    def shut(self) -> bool:
        """Whether the list is closed, its members and people kept in its folder."""
        return self.status in _SHUT

    @property
    def ours(self) -> bool:
        """Whether the list was declared."""
        return self.config.owned is not None

    def settled(self) -> List:
        """Return the list with the line of Sympa's table that its file asks for."""
        return replace(self, row=row_of(self.config))

    def words(self) -> str:
        """Describe the list, a thing a line."""
        # What Sympa counts and dates by itself is no news.
        values = {name: value for name, value in self.config.values.items() if name not in ("serial", "update")}
        people = "".join(f"{admin.words()}\n" for admin in sorted(self.admins, key=lambda one: (one.role, one.email)))
        return replace(self.config, values=values).text() + people + self.info


@dataclass(frozen=True)
class ListPlan:
    """From the lists that are there to those that should be, by address."""

    before: Mapping[str, List]
    after: Mapping[str, List] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.write)

    @property
    def write(self) -> dict[str, List]:
        """The lists that are made or mended, as they will be."""
        return {address: one for address, one in sorted(self.after.items()) if self.before.get(address) != one}

    def diff(self) -> list[dict[str, str]]:
        """Return what changes, one text a list."""
        return [
            {
                "before_header": f"list {address}",
                "after_header": f"list {address}",
                "before": self.before[address].words() if address in self.before else "",
                "after": one.words(),
            }
            for address, one in self.write.items()
        ]


def turns(
    wanted: Sequence[Mapping[str, Any]], found: Mapping[str, List], confirmed: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Return the lists to close and those to open again, which Sympa itself does."""
    statuses = {identity(entry): entry.get("status") or OPEN for entry in wanted}
    living = {address for address, one in found.items() if one.ours and not one.shut}
    leaving = living - set(statuses)
    refuse_mass_removal(leaving, len(living), confirmed, "Sympa lists", "closed")
    shut = {address for address, status in statuses.items() if status in _SHUT and address in found}
    opened = {address for address, status in statuses.items() if status == OPEN and address in found}
    return (
        sorted(leaving | {address for address in shut if not found[address].shut}),
        sorted(address for address in opened if found[address].shut),
    )


def turned(found: Mapping[str, List], closing: Collection[str], opening: Collection[str]) -> dict[str, List]:
    """Return the lists as Sympa leaves them when it has closed and opened these."""
    shut = {address: replace(_with_status(found[address], "closed"), admins=frozenset()) for address in closing}
    opened = {address: _with_status(found[address], OPEN) for address in opening}
    return {**found, **shut, **opened}


def refuse_takeovers(
    wanted: Sequence[Mapping[str, Any]], found: Mapping[str, List], confirmed: Collection[str] = ()
) -> None:
    """Raise where the members and archives of a list that people made would be handed to none of its owners."""
    for entry in wanted:
        one, address = found.get(identity(entry)), identity(entry)
        owners = {admin.email for admin in one.admins if admin.role == "owner"} if one else set()
        declared = {canonical(person["email"]) for person in entry["owners"]}
        if one and not one.ours and owners and not owners & declared and address not in confirmed:
            raise SympaError(
                f"list {address} exists, and none of its owners ({', '.join(sorted(owners))}) is declared: choose "
                "another name, or, if it is meant to change hands, confirm it by its address in sympa_confirm_takeovers"
            )


def plan_lists(wanted: Sequence[Mapping[str, Any]], found: Mapping[str, List], now: int, by: str) -> ListPlan:
    """Compare the declared lists with those that are there; a change is dated `now`, and told to be `by` somebody."""
    after = {}
    for entry in wanted:
        address = identity(entry)
        before = found.get(address)
        config = merge(before.config if before else Config(), wanted_values(_parameters(entry)))
        if before is None:
            config = _with(config, creation=[{"date_epoch": str(now), "email": by}])
        one = List(
            config,
            row_of(config),
            frozenset() if config.line("status") in _SHUT else frozenset(_people(entry)),
            _info(entry, before),
        )
        after[address] = _counted(one, before, now, by)
    return ListPlan(found, after)


def row_of(config: Config) -> tuple[str, ...]:
    """Return the line of list_table that Sympa makes of a list's file, in the order of ROW."""
    topics = ",".join(word for word in config.line("topics").replace(" ", "").split(",") if word and word != "others")
    subject = "".join(letter if ord(letter) < 0x10000 else "?" for letter in config.line("subject").casefold())
    return (
        config.line("status") or OPEN,
        config.line("creation", "date_epoch"),
        config.line("creation", "email"),
        config.line("update", "date_epoch"),
        config.line("update", "email"),
        subject,
        "1" if config.line("archive", "web_access") else "0",
        f",{topics}," if topics else "",
    )


ROW = (
    "status_list",
    "creation_epoch_list",
    "creation_email_list",
    "update_epoch_list",
    "update_email_list",
    "searchkey_list",
    "web_archive_list",
    "topics_list",
)


def transport(robots: Iterable[str], lists: Iterable[str]) -> dict[str, str]:
    """Return where Postfix brings each address of these robots and lists: the map of all of them."""
    bounces = {f"{name}@" for name in ROBOT_BOUNCES}
    lines = {
        address: "sympabounce:" if address.partition("@")[0] + "@" in bounces else "sympa:"
        for robot in robots
        for address in robot_addresses(robot)
    }
    for one in lists:
        name, _, robot = one.partition("@")
        for address in list_addresses(name, robot):
            lines[address] = "sympabounce:" if address == f"{name}-{BOUNCES}@{robot}" else "sympa:"
    return lines


def map_text(lines: Mapping[str, str]) -> str:
    """Write a map of Postfix."""
    return "".join(f"{key} {value}\n" for key, value in sorted(lines.items()))


def _parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    own = {"subject": entry["subject"], "status": entry.get("status") or OPEN}
    if entry.get("topics"):
        own["topics"] = entry["topics"]
    if entry.get("language"):
        own["lang"] = entry["language"]
    return {**own, **KINDS[entry["kind"]], **(entry.get("settings") or {})}


def _people(entry: Mapping[str, Any]) -> Iterable[Admin]:
    for role, field_name in (("owner", "owners"), ("editor", "moderators")):
        for person in entry.get(field_name) or ():
            profile = ("privileged" if person.get("privileged", True) else "normal") if role == "owner" else ""
            yield Admin(
                canonical(person["email"]),
                role,
                (person.get("name") or "").strip(),
                profile,
                "mail" if person.get("receives", True) else "nomail",
                "conceal" if person.get("hidden") else "noconceal",
                (person.get("info") or "").strip(),
            )


def _info(entry: Mapping[str, Any], before: List | None) -> str:
    if entry.get("description") is None:
        return before.info if before else ""
    return f"{entry['description'].rstrip()}\n"


def _with(config: Config, **values: Any) -> Config:
    return replace(config, values={**config.values, **values})


def _with_status(one: List, status: str) -> List:
    return replace(one, config=_with(one.config, status=[status])).settled()


def _counted(one: List, before: List | None, now: int, by: str) -> List:
    """Return the list as a saved one: counted up and dated where its file changes."""
    if before and one.config == before.config:
        return one
    serial = int((before.config.line("serial") if before else "") or 0) + 1
    config = _with(one.config, update=[{"date_epoch": str(now), "email": by}], serial=[str(serial)])
    return replace(one, config=config, row=row_of(config))
