# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""To and from an AlternC panel: one question to its database, one batch of calls to its classes through `door.php`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .alternc_data import COMMAND, CONFIGURATION, READ, Entry, Panel, parse
from .alternc_sets import Plan

DOOR = ("runuser", "-u", "alterncpanel", "--", "php", "/usr/local/lib/infini-alternc/door.php")
JOBS_LOCK = "/run/alternc/jobs-lock"
SHOWN = 5  # failures told of many


class PanelError(Exception):
    """The panel cannot be read or written; the message says why and what mends it."""


@dataclass(frozen=True)
class Outcome:
    """What became of the steps of some plans."""

    done: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()  # each with AlternC's own words
    untried: tuple[str, ...] = ()
    why: str = ""  # the door itself ended early

    def sentence(self) -> str:
        """Say what was not done, or nothing."""
        if not self.failed and not self.untried:
            return ""
        told = "; ".join(self.failed[:SHOWN]) + (f"; and {len(self.failed) - SHOWN} more" * (len(self.failed) > SHOWN))
        ended = f"AlternC stopped ({self.why}) before {', '.join(self.untried[:SHOWN])}" if self.untried else ""
        more = f" and {len(self.untried) - SHOWN} more" if len(self.untried) > SHOWN else ""
        total = len(self.done) + len(self.failed) + len(self.untried)
        words = "; ".join(filter(None, (told, ended)))
        return (
            f"{total - len(self.done)} of {total} changes were not made: {words}{more}. "
            f"The other {len(self.done)} are made; mend what is said and run this again"
        )


def run(command: Sequence[str], data: str) -> tuple[int, str, str]:
    """Run a command with this standard input; return its code, output and errors."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": ""}
    done = subprocess.run(command, input=data, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def is_installed() -> bool:
    """Whether this host has an AlternC to read."""
    return Path(CONFIGURATION).exists()


def read() -> Panel:
    """Return what the panel holds."""
    if not is_installed():
        raise PanelError(
            f"AlternC is not installed on this host ({CONFIGURATION} is missing): apply the role alternc first"
        )
    code, out, err = run(COMMAND, READ)
    if code != 0:
        raise PanelError(f"the panel database does not answer ({_last(err)}): is mariadb.service started?")
    return parse(out)


def carry(plans: Sequence[Plan]) -> Outcome:
    """Carry plans out; what AlternC refuses does not stop the rest."""
    steps = [step for plan in plans for step in plan.steps]
    if not steps:
        return Outcome()
    refuse_locked()
    answer = ask([step.call() for step in steps])
    answers = answer["done"]
    titles = [step.title for step in steps]
    return Outcome(
        done=tuple(title for title, one in zip(titles, answers) if one["ok"]),
        failed=tuple(f"{title} ({_mend(one['error'])})" for title, one in zip(titles, answers) if not one["ok"]),
        untried=tuple(titles[len(answers) :]),
        why=_mend(answer.get("fatal", "")),
    )


def fitting(kind: str, questions: Sequence[Entry]) -> set[str]:
    """Return the keys whose password is the current one."""
    if not questions:
        return set()
    done = ask([{"do": "verify", "kind": kind, "of": list(questions)}])["done"]
    if not done or not done[0]["ok"]:
        raise PanelError(f"AlternC could not compare passwords: {done[0]['error'] if done else 'it did not answer'}")
    return {one["key"] for one, fits in zip(questions, done[0]["fits"]) if fits}


def refuse_locked() -> None:
    """Raise where AlternC itself is being installed or was left in the middle of it."""
    if Path(JOBS_LOCK).exists():
        raise PanelError(
            f"AlternC is locked by an installation that runs or was left in its middle ({JOBS_LOCK}): "
            "wait for it, or run `alternc.install` to its end; nothing was changed"
        )


def ask(calls: Sequence[Entry]) -> dict[str, Any]:
    """Pass calls to the door and return its answer."""
    code, out, err = run(DOOR, json.dumps({"calls": list(calls)}))
    try:
        answer = json.loads(out)
        answer["done"]
    except (ValueError, KeyError, TypeError):
        raise PanelError(
            f"the door to AlternC ended with code {code} and no answer ({_mend(_last(err or out))}): "
            "what was done is not known; run this again with --check --diff to see"
        ) from None
    if code == 2:
        raise PanelError(f"AlternC cannot be used: {_mend(answer.get('fatal', ''))}; nothing was changed")
    return dict(answer)


def _mend(text: str) -> str:
    """Add what to do to the errors that say nothing to a volunteer."""
    low = text.lower()
    if "no space left" in low or "is full" in low or "error 28" in low:
        return f"{text}: the disk is full, make room"
    if "server has gone away" in low or "connection refused" in low or "can't connect" in low:
        return f"{text}: is mariadb.service started?"
    return text


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
