# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sympa's robots and lists as data: what may be declared, and one sentence for each fault."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

MANY = 20
"""How many sentences are worth reading; the rest is counted."""

# Limits of Sympa's own tables and of its own expressions.
_LIST_LENGTH, _ROBOT_LENGTH, ADDRESS_LENGTH, TEXT_LENGTH, _SUBJECT_LENGTH = 50, 80, 100, 150, 250
_LIST = re.compile(r"[a-z0-9][a-z0-9.+_-]*", re.ASCII)
_ROBOT = re.compile(r"(?=[a-z0-9.-]*[a-z])[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+", re.ASCII)
_ADDRESS = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*@([a-z0-9_-]+\.)+[a-z0-9-]+", re.ASCII
)

_PAGES = re.compile(r"https://(?P<name>[a-z0-9][a-z0-9.-]*)(?P<path>(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)/?", re.ASCII)
_PARAMETER = re.compile(r"[a-z][a-z0-9_.]*", re.ASCII)

BOUNCES = "owner"
SUFFIXES = ("request", "editor", BOUNCES, "subscribe", "unsubscribe")
"""What Sympa puts behind a list's name for its further addresses; errors come back at the one in BOUNCES."""
ROBOT_BOUNCES = ("bounce", "abuse-feedback-report")
ROBOT_NAMES = ("sympa", "sympa-request", "sympa-owner", "listmaster", *ROBOT_BOUNCES)
"""What Sympa answers to on every robot."""

CUSTOM = "custom"
# Each kind is a set of list parameters, in Sympa's own words; `settings` of a list go over them.
KINDS: dict[str, dict[str, Any]] = {
    "newsletter": {  # a few write, everybody reads
        "visibility": "noconceal",
        "subscribe": "open",
        "unsubscribe": "open",
        "add": "owner",
        "send": "newsletterkeyonly",
        "review": "owner",
        "reply_to_header": {"value": "sender", "apply": "respect"},
        "process_archive": "on",
        "archive": {"web_access": "public", "mail_access": "owner"},
    },
    "discussion": {  # whoever is in it writes; others wait for a moderator
        "visibility": "noconceal",
        "subscribe": "open_notify",
        "unsubscribe": "open_notify",
        "add": "owner",
        "send": "privateoreditorkey",
        "review": "owner",
        "reply_to_header": {"value": "list", "apply": "respect"},
        "process_archive": "on",
        "archive": {"web_access": "private", "mail_access": "owner"},
    },
    "closed": {  # a group that only its owners let people into, and that nobody else sees
        "visibility": "conceal",
        "subscribe": "owner",
        "unsubscribe": "open_notify",
        "add": "owner",
        "send": "private",
        "review": "private",
        "reply_to_header": {"value": "list", "apply": "respect"},
        "process_archive": "on",
        "archive": {"web_access": "private", "mail_access": "owner"},
    },
    CUSTOM: {},  # Sympa's own defaults, and what `settings` say
}
BOOKKEEPING = {"creation", "update", "serial", "latest_instantiation", "family_name", "user_data_source"}
FIELDS = {"subject": "subject", "status": "status", "owner": "owners", "editor": "moderators", "topics": "topics"}


GROUPS = {"dkim": ("selector",), "arc": ("selector",), "dmarc": ("mode",)}
"""What a robot says of signing, sealing and replaced senders, and the fields that each must have."""


class SympaError(Exception):
    """What is declared cannot be; the message is one sentence a fault, each with what mends it."""


def refuse(faults: Iterable[str]) -> None:
    """Raise with every fault of a few, with the first ones of many."""
    told = list(faults)
    if told:
        more = [f"and {len(told) - MANY} more like these"] if len(told) > MANY else []
        raise SympaError("\n".join([*told[:MANY], *more]))


def canonical(address: str) -> str:
    """Return an address as Sympa keeps it."""
    return address.strip().lower()


def is_address(address: str) -> bool:
    """Tell whether this can be somebody's address, in the form of `canonical`."""
    return len(address) <= ADDRESS_LENGTH and bool(_ADDRESS.fullmatch(address))


def is_text(value: object) -> bool:
    """Tell whether a value fits on a line of Sympa's files."""
    return isinstance(value, (str, int)) and bool(str(value).strip()) and str(value).isprintable()


def is_kept(text: str) -> bool:
    """Tell whether Sympa's tables keep all letters of a text: they have none beyond the first 65,536."""
    return text.isascii() or max(text) <= "\uffff"


def identity(entry: Mapping[str, Any]) -> str:
    """Return a list's address, by which it is known everywhere."""
    return f"{entry['name']}@{entry['robot']}"


def list_addresses(name: str, robot: str) -> list[str]:
    """Return the addresses that a list has."""
    return [f"{name}@{robot}", *(f"{name}-{suffix}@{robot}" for suffix in SUFFIXES)]


def robot_addresses(robot: str) -> list[str]:
    """Return the addresses that a robot has."""
    return [f"{name}@{robot}" for name in ROBOT_NAMES]


def pages(robots: Sequence[Mapping[str, Any]], url: str, domain: str) -> list[dict[str, Any]]:
    """Return the names under which pages of robots and of Sympa's own domain are served, each with its paths."""
    found: dict[str, list[str]] = {}
    for name, address in [(domain, ""), *((robot["name"], robot.get("url")) for robot in robots)]:
        said = address or url.format(robot=name)
        match = _PAGES.fullmatch(said)
        if not match:
            raise SympaError(
                f"the pages of robot {name} are at {said!r}: an address such as https://{name}/sympa is meant"
            )
        found.setdefault(match["name"], []).append(match["path"])
    return [{"name": name, "paths": sorted(set(paths))} for name, paths in sorted(found.items())]


def refuse_impossible_robots(
    robots: Sequence[Mapping[str, Any]], taken: Collection[str] = (), used: Collection[str] = ()
) -> None:
    """Raise where robots are declared that Sympa cannot have, or one is not that declared lists are on (`used`).

    `taken` are addresses of others (aliases, mailboxes).
    """
    names = {robot["name"] for robot in robots}
    homeless = (
        f"lists are declared on robot {name}, which is not: declare the robot, or take its lists away, too"
        for name in sorted(set(used) - names)
    )
    refuse([*homeless, *_robot_faults(robots, set(taken))])


def _robot_faults(robots: Sequence[Mapping[str, Any]], taken: set[str]) -> Iterable[str]:
    for name, times in Counter(robot["name"] for robot in robots).items():
        if times > 1:
            yield f"robot {name} is declared {times} times: keep one"
    for robot in robots:
        name = robot["name"]
        if not _ROBOT.fullmatch(name) or len(name) > _ROBOT_LENGTH:
            yield f"robot {name!r} is not a domain in small letters of at most {_ROBOT_LENGTH} characters: correct it"
        if not robot.get("listmasters"):
            yield f"robot {name} has no listmaster: name at least one in listmasters"
        yield from _address_faults(f"robot {name}", "listmaster", robot.get("listmasters") or ())
        yield from _line_faults(f"robot {name}", robot, "title", "language", "url")
        for group, needed in GROUPS.items():
            yield from _group_faults(f"robot {name}", group, robot.get(group) or {}, needed)
        yield from _settings_faults(f"robot {name}", robot.get("settings") or {}, {}, nested=False)
        for address in sorted(taken & set(robot_addresses(name))):
            yield f"{address} is an alias or a mailbox, and Sympa's own on robot {name}: take the alias away"


def _group_faults(what: str, group: str, fields: Mapping[str, Any], needed: Collection[str]) -> Iterable[str]:
    for field in needed if fields else ():
        if not fields.get(field):
            yield f"{what} has {group} without {field}: say it, or leave {group} out"
    for field, value in fields.items():
        if value and not _is_value(value, nested=False):
            yield f"the {field} of {group} of {what} is not text on one line: correct it"


def refuse_impossible_lists(
    lists: Sequence[Mapping[str, Any]], robots: Collection[str], taken: Collection[str] = ()
) -> None:
    """Raise where lists are declared that Sympa cannot have or that would take others' addresses."""
    refuse(_list_faults(lists, set(robots), set(taken)))


def refuse_unknown_topics(lists: Sequence[Mapping[str, Any]], topics: Mapping[str, Collection[str]]) -> None:
    """Raise where a list has a topic that its robot does not know: Sympa would leave it out without a word."""
    refuse(
        f"list {identity(entry)} has the topic {topic!r}, which topics.conf of its robot does not know: "
        f"{', '.join(sorted(topics[entry['robot']]))}"
        for entry in lists
        for topic in entry.get("topics") or ()
        if topics.get(entry["robot"]) and topic not in {*topics[entry["robot"]], "others"}
    )


def _list_faults(lists: Sequence[Mapping[str, Any]], robots: set[str], taken: set[str]) -> Iterable[str]:
    for address, times in Counter(map(identity, lists)).items():
        if times > 1:
            yield f"list {address} is declared {times} times: keep one"
    for entry in lists:
        address = repr(identity(entry))[1:-1]  # on one line, whatever the name
        what = f"list {address}"
        yield from _name_faults(entry["name"], what)
        if entry["robot"] not in robots:
            yield f"{what} is on a robot that is not declared: declare robot {entry['robot']}, or correct the list"
        yield from _people_faults(what, entry)
        yield from _parameter_faults(what, entry)
        for clash in sorted(taken & set(list_addresses(entry["name"], entry["robot"]))):
            other = "" if clash == address else f", which {what} needs"
            yield f"{clash} is an alias or a mailbox{other}: rename the list {address} or take the alias away"


def _people_faults(what: str, entry: Mapping[str, Any]) -> Iterable[str]:
    if not entry.get("owners"):
        yield f"{what} has no owner: name at least one in owners"
    for role, field in (("owner", "owners"), ("moderator", "moderators")):
        people = entry.get(field) or ()
        addresses = [person["email"] for person in people]
        yield from _address_faults(what, role, addresses)
        for own in sorted(set(map(canonical, addresses)) & set(list_addresses(entry["name"], entry["robot"]))):
            yield f"{what} has itself ({own}) as {role}: name a person"
        for person in people:
            yield from _line_faults(f"{person['email']} of {what}", person, "name", "info")
            if not all(map(is_kept, (person.get("name") or "", person.get("info") or ""))):
                yield f"{person['email']} of {what} has letters in name or info that Sympa cannot keep: leave them out"


def _parameter_faults(what: str, entry: Mapping[str, Any]) -> Iterable[str]:
    if not is_text(entry["subject"]) or len(entry["subject"]) > _SUBJECT_LENGTH:
        yield f"{what} has no subject: say in one line of at most {_SUBJECT_LENGTH} characters what it is for"
    yield from _line_faults(what, entry, "language")
    if entry["kind"] not in KINDS:
        yield f"{what} is of kind {entry['kind']!r}, which there is not: {', '.join(KINDS)}"
    for topic in entry.get("topics") or ():
        if not re.fullmatch(r"[a-z0-9_/-]+", topic):
            yield f"{what} has the topic {topic!r}: small letters, digits, _, - and / are what it may have"
    yield from _settings_faults(what, entry.get("settings") or {}, FIELDS, nested=True)


def _name_faults(name: str, what: str) -> Iterable[str]:
    if not _LIST.fullmatch(name) or len(name) > _LIST_LENGTH:
        yield f"{what} cannot have that name: small letters, digits and . _ + -, at most {_LIST_LENGTH} of them"
    if name in ROBOT_NAMES or name.startswith("bounce+"):
        yield f"{what} has a name that Sympa answers to itself on every robot: choose another"
    elif name.rpartition("-")[2] in SUFFIXES and "-" in name:
        yield f"{what} has a name that is an address of list {name.rpartition('-')[0]}: choose another"


def _address_faults(what: str, role: str, addresses: Sequence[str]) -> Iterable[str]:
    for address, times in Counter(map(canonical, addresses)).items():
        if not is_address(address):
            yield f"{what} has {address!r} as {role}, which is no mail address: correct it"
        elif times > 1:
            yield f"{what} has {address} as {role} {times} times: keep one"


def _line_faults(what: str, entry: Mapping[str, Any], *fields: str) -> Iterable[str]:
    for field in fields:
        value = entry.get(field)
        if value and (not is_text(value) or len(str(value)) > TEXT_LENGTH):
            yield f"the {field} of {what} is not one line of at most {TEXT_LENGTH} characters: shorten it"


def _settings_faults(
    what: str, settings: Mapping[str, Any], fields: Mapping[str, str], *, nested: bool
) -> Iterable[str]:
    for name, value in settings.items():
        if name in fields:
            yield f"{what} sets {name} in settings: use its field {fields[name]}"
        elif name in BOOKKEEPING:
            yield f"{what} sets {name}, which Sympa writes itself: leave it out"
        elif not _PARAMETER.fullmatch(name) or not _is_value(value, nested):
            yield f"the setting {name} of {what} is no parameter of Sympa's: a name, and text on one line"


def _is_value(value: object, nested: bool) -> bool:
    if isinstance(value, Mapping):
        named = all(isinstance(key, str) and _PARAMETER.fullmatch(key) for key in value)
        return nested and bool(value) and named and all(is_text(one) for one in value.values())
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_value(one, nested) and not isinstance(one, (list, tuple)) for one in value)
    return is_text(value)
