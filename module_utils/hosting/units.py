# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which systemd units must be enabled, disabled, started or stopped: the thinking behind `systemd_units`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "Triggers",
)
SUFFIXES = (".service", ".socket", ".timer", ".path", ".mount", ".automount", ".slice", ".target", ".swap")

# Unit files in these states are started by something else than a link of their own: enabling them has no meaning.
_NEVER_ENABLED_BY_US = {"static", "generated", "indirect", "transient", "alias"}
_ENABLED = {"enabled", "enabled-runtime", "linked-runtime"}
_RUNNING = {"active", "activating", "reloading", "refreshing"}


class UnitsError(Exception):
    """The wanted set cannot be reached; the message says why and what mends it."""


@dataclass(frozen=True)
class Wanted:
    """What one unit has to be."""

    name: str
    enabled: bool = True
    started: bool = True


@dataclass(frozen=True)
class Seen:
    """What systemd says of one unit."""

    name: str
    load: str = "not-found"
    active: str = "inactive"
    file_state: str = ""
    needs_reload: bool = False
    conditions_fail: bool = False
    triggers: tuple[str, ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether the unit is started at boot by a link of its own."""
        return self.file_state in _ENABLED

    @property
    def running(self) -> bool:
        """Whether the unit runs or is about to."""
        return self.active in _RUNNING

    @property
    def stands(self) -> bool:
        """Whether the unit is there and runs."""
        return self.load == "loaded" and self.running

    def linked(self, enabled: bool) -> Seen:
        """Return the same with what the links say of it: systemd may not have read them since they changed."""
        states = ("disabled", "enabled")
        return replace(self, file_state=states[enabled]) if self.file_state in states else self

    @property
    def keeps_itself_off(self) -> bool:
        """Whether its own conditions (a clock it may not set, say) kept it off when it was last tried."""
        return self.conditions_fail and not self.running


@dataclass(frozen=True)
class Plan:
    """The difference between a host's units and the wanted set; each field is one systemctl call."""

    enable: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)

    def without_start(self, names: Iterable[str]) -> Plan:
        """Return the same plan less the start of these units."""
        return replace(self, start=tuple(name for name in self.start if name not in set(names)))

    @property
    def changed(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.enable or self.start or self.disable or self.stop)

    def diff(self) -> dict[str, str]:
        """Return the units that change, one a line, as Ansible's diff wants it."""
        names = sorted({*self.enable, *self.start, *self.disable, *self.stop})
        return {
            "before_header": "systemd units",
            "after_header": "systemd units",
            "before": "".join(f"{name}: {self.before[name]}\n" for name in names),
            "after": "".join(f"{name}: {self.after[name]}\n" for name in names),
        }


def full_name(name: str) -> str:
    """Return the name with `.service` where no suffix is given, as systemctl understands it."""
    return name if name.endswith(SUFFIXES) else f"{name}.service"


def parse_show(text: str) -> list[Seen]:
    """Read the blocks that `systemctl show --property=…` prints, one a unit."""
    seen = []
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in values:
            seen.append(
                Seen(
                    name=values["Id"],
                    load=values.get("LoadState", ""),
                    active=values.get("ActiveState", ""),
                    file_state=values.get("UnitFileState", ""),
                    needs_reload=values.get("NeedDaemonReload") == "yes",
                    triggers=tuple(values.get("Triggers", "").split()),
                    conditions_fail=(
                        values.get("ConditionResult") == "no" and values.get("ConditionTimestampMonotonic", "0") != "0"
                    ),
                )
            )
    return seen


def parse_list(text: str) -> list[Seen]:
    """Read the lines that `systemctl list-units --plain --no-legend` prints, without what they do not say."""
    rows = (line.split() for line in text.splitlines())
    return [Seen(row[0], load=row[1], active=row[2]) for row in rows if len(row) > 2]


def matching(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Return the names that one of the globs covers."""
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def models(names: Iterable[str]) -> dict[str, str]:
    """Return for each name the first one of the same template: what is not loaded yet is alike among them."""
    first: dict[str, str] = {}
    return {name: first.setdefault(re.sub("@.*(?=[.])", "@", name), name) for name in sorted(names)}


def behind_sockets(seen: Iterable[Seen]) -> set[str]:
    """Return the services that these sockets started: without its socket, nobody would ever stop such a service."""
    return {service for state in seen if state.name.endswith(".socket") for service in state.triggers}


def alive(seen: Iterable[Seen]) -> list[str]:
    """Return the names of the units that run now or would at the next boot."""
    return sorted(state.name for state in seen if state.running or state.enabled)


def refuse_impossible(wanted: Sequence[Wanted], seen: Mapping[str, Seen]) -> None:
    """Raise where a wanted unit does not exist on the host or is masked there."""
    for unit in wanted:
        state = seen.get(unit.name, Seen(unit.name))
        if state.load == "masked" and (unit.enabled or unit.started):
            raise UnitsError(
                f"{unit.name} is masked on this host: run `systemctl unmask {unit.name}` there, then apply"
            )
        if state.load == "not-found" and (unit.enabled or unit.started):
            raise UnitsError(
                f"{unit.name} does not exist on this host: check its name and that its package is installed"
            )
        if state.load in ("bad-setting", "error"):
            raise UnitsError(f"{unit.name} has an unusable unit file: see `systemd-analyze verify {unit.name}` there")


def plan(wanted: Sequence[Wanted], seen: Mapping[str, Seen], surplus: Iterable[str] = ()) -> Plan:
    """Compare the wanted set with what was seen.

    `surplus` names the units that are ours (loaded or enabled, under the globs of `prune`); those that are not wanted
    are stopped and disabled. A unit the host does not have yet counts as absent, so that a check on a fresh host tells
    what would be started.
    """
    names = {unit.name for unit in wanted}
    goals = [*wanted, *(Wanted(name, enabled=False, started=False) for name in sorted(set(surplus) - names))]
    enable, start, disable, stop = [], [], [], []
    before, after = {}, {}
    for goal in goals:
        state = seen.get(goal.name, Seen(goal.name))
        can_enable = state.file_state not in _NEVER_ENABLED_BY_US
        if goal.enabled and can_enable and not state.enabled:
            enable.append(goal.name)
        if not goal.enabled and state.enabled:
            disable.append(goal.name)
        if goal.started and not state.running:
            start.append(goal.name)
        if not goal.started and state.running:
            stop.append(goal.name)
        before[goal.name] = _words(state.enabled, state.running, state.load)
        after[goal.name] = _words(goal.enabled if can_enable else state.enabled, goal.started, "loaded")
    return Plan(tuple(enable), tuple(start), tuple(disable), tuple(stop), before, after)


def _words(enabled: bool, running: bool, load: str) -> str:
    if load == "not-found":
        return "absent"
    return f"{'enabled' if enabled else 'disabled'}, {'started' if running else 'stopped'}"
