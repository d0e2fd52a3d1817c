# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what an AlternC panel holds to what it shall hold: one way for every kind of thing.

`plan(kind, wanted, panel, wishes)` compares two sets and returns the steps between them, each of which is one call of
the door (`alternc_door`). What each kind is stands in `alternc_kinds`. A set owns everything of its kind, or
everything of the members in `scope`. What is no longer declared is shut where it can be shut, removed where it holds
nothing of a member's, and kept and said otherwise; only what is named in `remove` goes with all it holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .alternc_data import ADMIN, Entry, Panel
from .brake import refuse_mass_removal

ORDER = ("remove", "change", "shut", "create")  # what goes makes room for what comes
FATES = {"shut": "shut", "remove": "removed"}
WORDS_OF_MANY = 5  # sentences shown of many


class SetError(Exception):
    """The wanted set cannot be reached; the message says why and what mends it."""


@dataclass(frozen=True)
class Wishes:
    """How a set is meant, beside what is in it."""

    prune: bool = True
    scope: Collection[str] | None = None  # logins whose things the set owns; everybody's where it is None
    remove: Collection[str] = ()  # keys that go with all they hold
    confirmed: Collection[str] = ()  # keys that may go although they are many at once
    always: bool = False  # whether a declared password is set again where it is not the current one
    fits: Collection[str] = ()  # keys whose declared password is the current one
    fresh: bool = False  # a check on a host where what this builds on may still be missing
    ignore: Collection[str] = ()  # families of rows that are AlternC's own; see alternc_kinds


@dataclass(frozen=True)
class World:
    """What a judge of a set sees."""

    panel: Panel
    current: Mapping[str, Entry]
    wanted: Mapping[str, Entry]
    secrets: Mapping[str, Mapping[str, str]] = field(repr=False)
    wishes: Wishes

    def news(self) -> Iterable[tuple[str, Entry]]:
        """Return the entries that would be written: what already is so is not judged."""
        return ((key, want) for key, want in self.wanted.items() if self.current.get(key) != want)

    def created(self) -> Iterable[tuple[str, Entry]]:
        """Return the entries that would be made."""
        return ((key, want) for key, want in self.wanted.items() if key not in self.current)


def _login(entry: Entry, _panel: Panel) -> str:
    return str(entry["member"])


def _same(entry: Entry, _panel: Panel) -> Entry:
    return entry


@dataclass(frozen=True)
class Kind:
    """One kind of thing that a panel holds, as a declaration."""

    name: str  # of the set
    door: str  # what its calls begin with
    noun: str
    nouns: str
    fields: tuple[str, ...]  # what is compared, in the order of the sentence that describes it
    key: str = "name"
    judge: Callable[[World], Iterable[str]] = lambda _world: ()
    owner: Callable[[Entry, Panel], str] = _login
    normal: Callable[[Entry, Panel], Entry] = _same
    index: Callable[[Sequence[Entry], Panel], dict[str, Entry]] | None = None
    left_alone: Callable[[World, str, Entry], bool] = lambda _world, _key, _entry: False  # though undeclared
    keeps: Callable[[Entry, Panel], bool] = lambda _entry, _panel: False  # undeclared: kept, for it holds members' data
    shuts: Callable[[Entry, Panel], bool] = lambda _entry, _panel: False  # undeclared: shut instead of removed
    policy: str = ""  # whose passwords these are in AlternC's password policies
    private: Callable[[Entry], bool] = lambda _entry: False  # whether its values are not for a diff

    def indexed(self, rows: Sequence[Entry], panel: Panel) -> dict[str, Entry]:
        """Return the entries by what people call them."""
        return self.index(rows, panel) if self.index else {row[self.key]: row for row in rows}

    def words(self, key: str, entry: Entry) -> str:
        """Describe an entry in one line, without its secrets."""
        cells = (f"{name} {_value(entry[name])}" for name in self.fields)
        return f"{self.noun} {key}: " + ("(not shown)" if self.private(entry) else ", ".join(cells))


@dataclass(frozen=True)
class Step:
    """One thing to do, and the call of the door that does it."""

    kind: Kind
    verb: str
    key: str
    was: Entry | None = None
    want: Entry | None = None
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """Name the step in a message."""
        return f"{self.verb} {self.kind.noun} {self.key}"

    def call(self) -> Entry:
        """Return what the door takes; `shut` is a change to it."""
        verb = "change" if self.verb == "shut" else self.verb
        sides = {"want": self.want, "was": self.was}
        return {"do": f"{self.kind.door}.{verb}", **{k: v for k, v in sides.items() if v is not None}, **self.secret}


@dataclass(frozen=True)
class Plan:
    """The steps from a panel to a wanted set."""

    kind: Kind
    steps: tuple[Step, ...] = ()
    kept: tuple[str, ...] = ()  # no longer declared, and not ours to take away

    @property
    def changed(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.steps)

    def named(self, *verbs: str) -> list[str]:
        """Return what these verbs are done to."""
        return [step.key for step in self.steps if step.verb in verbs]


def plan(kind: Kind, wanted: Sequence[Mapping[str, Any]], panel: Panel, wishes: Wishes | None = None) -> Plan:
    """Compare a declared set with the panel's; raise where it cannot be reached, before anything is changed."""
    wishes = wishes or Wishes()
    entries, secrets = _declared(kind, wanted, panel)
    current = kind.indexed(panel.rows(kind.name), panel)
    world = World(panel, current, entries, secrets, wishes)
    _refuse(
        [
            *_scope_problems(kind, world),
            *_remove_problems(kind, world),
            *kind.judge(world),
            *_secret_problems(kind, world),
        ]
    )
    steps = [*_wanted_steps(kind, world), *_unwanted_steps(kind, world)]
    named = {*wishes.remove, *wishes.confirmed}
    going = {step.key: step.verb for step in steps if step.verb in FATES and step.key not in named}
    refuse_mass_removal(
        going,
        sum(1 for entry in current.values() if _ours(kind, entry, world)),
        wishes.confirmed,
        kind.nouns,
        " or ".join(FATES[verb] for verb in sorted(set(going.values()))),
    )
    kept = [key for key, entry in _undeclared(kind, world) if kind.keeps(entry, panel) and key not in wishes.remove]
    steps.sort(key=lambda step: (ORDER.index(step.verb), _open(step), step.key))
    return Plan(kind, tuple(steps), tuple(sorted(kept)) if wishes.prune else ())


def passwords(kind: Kind, wanted: Sequence[Mapping[str, Any]], panel: Panel) -> list[dict[str, str]]:
    """Return the declared passwords of what exists, for the door to compare with the current ones."""
    entries, secrets = _declared(kind, wanted, panel)
    current = kind.indexed(panel.rows(kind.name), panel)
    return [
        {"key": key, "password": secrets[key]["password"]}
        for key in entries
        if key in current and "password" in secrets.get(key, {})
    ]


def diff(plans: Iterable[Plan]) -> dict[str, str]:
    """Return what changes, one thing a line; a changed password is said, never shown."""
    before, after = [], []
    for step in (step for one in plans for step in one.steps):
        if step.was is not None:
            before.append(step.kind.words(step.key, step.was))
        if step.want is not None:
            news = " (new password)" if step.secret and step.was else ""
            after.append(step.kind.words(step.key, step.want) + news)
    return {
        "before_header": "AlternC",
        "after_header": "AlternC",
        "before": "".join(f"{line}\n" for line in before),
        "after": "".join(f"{line}\n" for line in after),
    }


def apply(panel: Panel, plans: Iterable[Plan]) -> Panel:
    """Return the panel as it is once these plans are carried out; the tests' measure of a plan."""
    sets = {kind: list(rows) for kind, rows in panel.sets.items()}
    for one in plans:
        rows = one.kind.indexed(sets.get(one.kind.name, []), panel)
        for step in one.steps:
            rows.pop(step.key, None)
            if step.want is not None:
                rows[step.key] = step.want
        sets[one.kind.name] = list(rows.values())
    return replace(panel, sets=sets)


def _declared(
    kind: Kind, wanted: Sequence[Mapping[str, Any]], panel: Panel
) -> tuple[dict[str, Entry], dict[str, dict[str, str]]]:
    """Return the entries in normal form by key, and their secrets apart from them."""
    entries = [
        kind.normal({k: v for k, v in one.items() if k not in ("password", "password_hash")}, panel) for one in wanted
    ]
    indexed = kind.indexed(entries, panel)
    if len(indexed) < len(entries):
        times = Counter(str(entry[kind.key]) for entry in entries)
        doubles = ", ".join(sorted(key for key, count in times.items() if count > 1))
        raise SetError(f"{kind.noun} {doubles} is declared twice: keep one")
    secrets: dict[str, dict[str, str]] = {}
    keys = {id(entry): key for key, entry in indexed.items()}
    for one, entry in zip(wanted, entries):
        told = {"password": one.get("password"), "hash": one.get("password_hash")}
        secrets[keys[id(entry)]] = {name: value for name, value in told.items() if value}
    return indexed, secrets


def _ours(kind: Kind, entry: Entry, world: World) -> bool:
    scope, owner = world.wishes.scope, kind.owner(entry, world.panel)
    return scope is None or owner in scope


def _undeclared(kind: Kind, world: World) -> Iterable[tuple[str, Entry]]:
    for key, entry in world.current.items():
        if key not in world.wanted and _ours(kind, entry, world) and not kind.left_alone(world, key, entry):
            yield key, entry


def _wanted_steps(kind: Kind, world: World) -> Iterable[Step]:
    for key, want in world.wanted.items():
        was, told = world.current.get(key), world.secrets.get(key, {})
        if was is None:
            yield Step(kind, "create", key, None, want, told)
            continue
        secret = _new_secret(kind, key, told, world)
        if was != want or secret:
            yield Step(kind, "change", key, was, want, secret)


def _new_secret(kind: Kind, key: str, told: Mapping[str, str], world: World) -> Mapping[str, str]:
    """Return the declared password where it has to replace the current one."""
    if not told or not world.wishes.always:
        return {}
    current = world.panel.secrets.get(kind.name, {}).get(key)
    same = told["hash"] == current if "hash" in told else key in world.wishes.fits
    return {} if same else told


def _unwanted_steps(kind: Kind, world: World) -> Iterable[Step]:
    for key, entry in world.current.items():
        if key in world.wishes.remove:
            yield Step(kind, "remove", key, entry)
    for key, entry in _undeclared(kind, world):
        if key in world.wishes.remove or not world.wishes.prune or kind.keeps(entry, world.panel):
            continue
        if not kind.shuts(entry, world.panel):
            yield Step(kind, "remove", key, entry)
        elif entry["enabled"]:
            yield Step(kind, "shut", key, entry, {**entry, "enabled": False})


def _open(step: Step) -> bool:
    """Sort what is shut before what is open: an open row may bar a shut one of its name."""
    return bool((step.want or {}).get("enabled"))


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(str(one) for one in value) or "-"
    return repr(value) if isinstance(value, str) and (not value or " " in value) else str(value)


def _refuse(problems: Sequence[str]) -> None:
    """Raise with every sentence of a few, with the first ones of many."""
    if problems:
        more = len(problems) - WORDS_OF_MANY
        raise SetError("\n".join([*problems[:WORDS_OF_MANY], *([f"and {more} more like these"] if more > 0 else [])]))


def _scope_problems(kind: Kind, world: World) -> Iterable[str]:
    for key, entry in world.wanted.items():
        owner = kind.owner(entry, world.panel)
        if owner and not _ours(kind, entry, world):  # what is nobody's has its own sentence
            yield f"{kind.noun} {key} is {owner}'s, who is not in scope: add the login there, or leave it out here"


def _remove_problems(kind: Kind, world: World) -> Iterable[str]:
    for key in sorted(set(world.wishes.remove) & set(world.wanted)):
        yield f"{kind.noun} {key} is declared and named in remove: decide which"
    if kind.name == "members" and ADMIN in world.wishes.remove:
        yield f"member {ADMIN} is AlternC's own administrator and cannot be removed: take it out of remove"


def _secret_problems(kind: Kind, world: World) -> Iterable[str]:
    """Judge the passwords that would be set by AlternC's own policy."""
    for key in world.wanted:
        told = world.secrets.get(key, {})
        if len(told) > 1:
            yield f"{kind.noun} {key} has both a password and a password_hash: keep one"
        elif "password" in told and (key not in world.current or world.wishes.always):
            why = policy_problem(told["password"], key, world.panel.policies.get(kind.policy, {}))
            if why:
                yield f"the password of {kind.noun} {key} {why}: choose another, or change the policy in the panel"
        elif "hash" in told and not told["hash"].lstrip("{").startswith(
            ("$", "SHA512-CRYPT}$", "BLF-CRYPT}$", "CRYPT}$")
        ):
            yield f"the password_hash of {kind.noun} {key} is not a hash: export it from a panel, or declare a password"


def policy_problem(password: str, login: str, policy: Mapping[str, int]) -> str:
    """Say how a password breaks one of AlternC's policies; AlternC's own defaults where it has none yet."""
    if len(password.encode()) < policy.get("minsize", 0):
        return f"has fewer than {policy['minsize']} characters"
    if len(password.encode()) > policy.get("maxsize", 64):
        return f"has more than {policy.get('maxsize', 64)} characters"
    parts = {login, *login.replace("@", " ").replace("_", " ").replace("-", " ").split()}
    if not policy.get("allowlogin", 0) and any(part in password or password in part for part in parts):
        return "and the login contain one another"
    classes = {_class(letter) for letter in password}
    if len(classes) < policy.get("classcount", 0):
        return f"mixes fewer than {policy['classcount']} of small letters, capitals, digits and signs"
    return ""


def _class(letter: str) -> str:
    if not letter.isascii():
        return "other"
    if letter.isalpha():
        return "small" if letter.islower() else "capital"
    return "digit" if letter.isdigit() else "sign"
