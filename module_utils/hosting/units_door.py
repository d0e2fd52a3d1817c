# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers to `systemd_units`, whichever way the question came: its units, through systemctl."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import units as thinking
from .units import Plan, Seen, UnitsError, Wanted

LINKS = Path("/etc/systemd/system")
UNIT_FILES = [LINKS, *map(Path, ("/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"))]
LINK_FOLDERS = {".wants", ".requires"}
SPEC: dict[str, Any] = {
    "units": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "enabled": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
        },
    },
    "prune": {"type": "list", "elements": "str", "default": []},
    "leave": {"type": "bool", "default": False},
    "watch": {"type": "list", "elements": "str", "default": []},
    "daemon_reload": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
}


def answer(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    """Bring the units to what is asked and return a result in Ansible's words."""
    try:
        return _answer(asked, check_mode=check_mode, diff=diff)
    except UnitsError as error:
        return {"failed": True, "msg": str(error)}
    except OSError as error:
        return {"failed": True, "msg": f"The units of this host cannot be read: {error}"}


def _answer(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    wanted = [
        Wanted(thinking.full_name(unit["name"]), unit["enabled"], unit["state"] == "started") for unit in asked["units"]
    ]
    ours, mode = asked["prune"], asked["daemon_reload"]
    # Reading the files of a thousand units again is quicker than asking whether each of them needs it.
    reload = mode == "always" or (mode == "auto" and bool(ours) and files_changed())
    if reload and not check_mode:
        systemctl("daemon-reload")
    seen = look(wanted, ours, asked["watch"])
    if mode == "auto" and not reload and any(s.needs_reload or s.load == "not-found" for s in seen.values()):
        reload = True
        if not check_mode:
            systemctl("daemon-reload")
            seen = look(wanted, ours, asked["watch"])
    if not check_mode:
        thinking.refuse_impossible(wanted, seen)

    enabled = enabled_under(ours)
    surplus = (thinking.matching(seen, ours) | enabled) - {unit.name for unit in wanted}
    seen.update({state.name: state for state in show(sorted(surplus - set(seen)))})
    behind = thinking.behind_sockets(seen[name] for name in surplus) - set(seen)
    seen.update({state.name: state for state in show(sorted(behind))})
    surplus |= behind
    left = thinking.alive(seen[name] for name in surplus) if asked["leave"] else []
    plan = thinking.plan(wanted, seen, () if asked["leave"] else surplus)
    if not check_mode:
        carry_out(plan, seen, ours)
        seen.update(not_standing(plan.start))
    skipped = [name for name in plan.start if seen.get(name, Seen(name)).keeps_itself_off]
    plan = plan.without_start(skipped)
    return {
        "changed": plan.changed,
        "reloaded": reload,
        "enabled": list(plan.enable),
        "started": list(plan.start),
        "disabled": list(plan.disable),
        "stopped": list(plan.stop),
        "skipped_units": skipped,
        "left": left,
        **({"diff": plan.diff()} if diff else {}),
    }


def run(*words: str) -> tuple[int, str, str]:
    """Run a command and return (code, output, errors)."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def systemctl(*words: str) -> tuple[int, str, str]:
    """Run systemctl and return (code, output, errors)."""
    try:
        return run("systemctl", "--no-pager", "--no-ask-password", *words)
    except FileNotFoundError:
        raise UnitsError("there is no systemd on this host") from None


def ask(*words: str) -> str:
    """Return what systemctl says."""
    code, out, err = systemctl(*words)
    if code != 0:
        raise UnitsError(f"systemd does not answer on this host: {err.strip() or out.strip()}")
    return out


def show(names: Sequence[str]) -> list[Seen]:
    """Return what systemd says of these names (globs cover loaded units only), in its order."""
    if not names:
        return []
    return thinking.parse_show(ask("show", "--property=" + ",".join(thinking.PROPERTIES), "--", *names))


def look(wanted: Iterable[Wanted], patterns: Sequence[str], watch: Sequence[str] = ()) -> dict[str, Seen]:
    """Return what is known of the wanted units by the name they were asked by, and of those under the globs.

    systemd takes milliseconds to tell all of a unit. So as long as no unit file is newer than what it has read, units
    under the globs that run as wanted are only counted off its list, and of those that it has not loaded one of each
    template is asked for.
    """
    wanted = list(wanted)
    names, enabled = [unit.name for unit in wanted], enabled_under(patterns)
    models: dict[str, str] = {}
    if not patterns or files_changed():
        seen = {state.name: state for state in show([*patterns, *watch])}
    else:
        there = {state.name: state for state in listed(patterns)}
        wanted_on = {unit.name for unit in wanted if unit.enabled and unit.started} & enabled
        seen = {
            name: replace(state, file_state="enabled")
            for name, state in there.items()
            if name in wanted_on and state.stands
        }
        models = thinking.models(thinking.matching(names, patterns) - set(there))
        names += sorted(set(there) - set(names))  # surplus
    missing = [name for name in names if name not in seen and models.get(name, name) == name]
    seen.update((name, replace(state, name=name)) for name, state in zip(missing, show(missing)))
    seen.update((name, replace(seen[model], name=name)) for name, model in models.items())
    seen.update((name, seen[name].linked(name in enabled)) for name in thinking.matching(seen, patterns))
    return seen


def listed(patterns: Sequence[str]) -> list[Seen]:
    """Return the units under the globs that systemd has loaded, with no more than its list says of them."""
    return thinking.parse_list(ask("list-units", "--all", "--full", "--plain", "--no-legend", "--", *patterns))


def files_changed() -> bool:
    """Tell whether a unit file may be newer than what systemd has read, at its start or when last told to."""
    said = systemctl("show", "--property=UnitsLoadStartTimestampMonotonic,UnitsLoadTimestampMonotonic")[1]
    read = max((int(value) for value in re.findall(r"=(\d+)$", said, re.MULTILINE)), default=0)
    moment = time.time() - time.monotonic() + read / 1e6
    files = (path for root in UNIT_FILES for path in (root, *root.rglob("*")))
    # Links say what starts at boot; here they are read themselves.
    return any(newer_than(moment, path) for path in files if not LINK_FOLDERS & {path.suffix, path.parent.suffix})


def newer_than(moment: float, path: Path) -> bool:
    """Tell whether a file was changed after a moment; one that is not there was not."""
    try:
        return path.lstat().st_mtime > moment
    except FileNotFoundError:
        return False


def enabled_under(patterns: Sequence[str]) -> set[str]:
    """Return the names under the globs that something wants at boot, loaded or not."""
    links = [link.name for link in LINKS.glob("*.wants/*")] + [link.name for link in LINKS.glob("*.requires/*")]
    return thinking.matching(links, patterns)


def carry_out(plan: Plan, seen: Mapping[str, Seen], patterns: Sequence[str]) -> None:
    """Carry the plan out: first what goes, then what comes.

    What is ours alone is known by its links, so it needs no daemon-reload (seconds, on a host with a thousand sockets)
    after each change of them.
    """
    for verb, names in (("stop", plan.stop), ("disable", plan.disable), ("enable", plan.enable)):
        ours = thinking.matching(names, patterns) if verb != "stop" else set()
        for options, some in (((), set(names) - ours), (("--no-reload",), ours)):
            if some:
                code, _out, err = systemctl(verb, *options, "--", *sorted(some))
                if code != 0:
                    raise UnitsError(f"systemctl {verb} failed on this host: {err.strip()}")
    if plan.start:
        failed = [name for name in plan.start if seen[name].active == "failed"]
        if failed:
            systemctl("reset-failed", "--", *failed)  # a unit that failed too often may be tried again
        code, _out, err = systemctl("start", "--", *plan.start)
        if code != 0:
            raise failed_start(plan.start, err)


def not_standing(names: Sequence[str]) -> dict[str, Seen]:
    """Return what systemd says of those of the names that do not run."""
    standing = {state.name for state in listed(names) if state.stands} if names else set()
    return {state.name: state for state in show([name for name in names if name not in standing])}


def failed_start(names: Sequence[str], err: str) -> UnitsError:
    """Say which units did not come up, with the end of the first one's journal."""
    failed = [state.name for state in show(names) if not state.running] or list(names)
    unit = failed[0]
    journal = run("journalctl", "--no-pager", "-q", "-n", "15", "-o", "cat", "-u", unit)[1]
    return UnitsError(f"{', '.join(failed)} did not start: see `journalctl -u {unit}` there. {err.strip()}\n{journal}")
