# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the backup programs of a host: they answer in codes and numbers, and here these become sentences."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

from infini.errors import FailedError, RefusedError, UnreachableError
from infini.hosts import Connection, Inventory

CLIENT, KEEPER = "infini-backup", "infini-backup-keeper"
CLIENTS, KEEPERS = "backup_clients", "backup_keepers"
"""Groups of the inventory: who is backed up, and who keeps the drills' log."""


def ask(to: Connection, *words: str, program: str = CLIENT, request: Any = None) -> Any:
    """Return what a program on a host answers; its findings are an answer, too.

    What it refuses is a RefusedError, and nothing was touched; what went wrong on the way a FailedError.
    """
    done = run(to, [program, *words], "" if request is None else json.dumps(request))
    try:
        answer = json.loads(done.stdout or "{}")
    except ValueError:
        answer = None
    if done.returncode in (0, 1) and answer is not None:
        return answer
    told = sentence(answer or {}, (done.stderr.strip() or done.stdout.strip()).splitlines())
    kind = RefusedError if done.returncode == 2 else FailedError
    raise kind(f"{to.host}: {told}")


def run(to: Connection, command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as root on a host, with this text as its standard input, or raise UnreachableError."""
    remote = shlex.join([*(["sudo", "-n"] if to.become else []), *command])
    line = [*to.ssh("-o", "BatchMode=yes"), remote]
    done = subprocess.run(line, input=text, capture_output=True, text=True, check=False)
    if done.returncode == 255:
        why = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise UnreachableError(f"No answer over SSH: {to.host} ({to.address}): {why}")
    return done


def what_came(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words by which `compare` finds what `restore` brought back beside: all of it, and nothing else."""
    return {key: answer[key] for key in ("to", "paths", "databases")}


def keeper(inventory: Inventory) -> Connection | None:
    """Return the host that keeps the drills' log, where there is one."""
    found = inventory.hosts(KEEPERS)
    return inventory.connection(found[0]) if found else None


SENTENCES = {
    "no_archive": "the store holds no archive of {service} {when}: `infini restore list` shows what there is",
    "no_space": "{wanted} bytes are needed and {found} are free in {what}: make room, or name another place by --to",
}


def sentence(answer: Mapping[str, Any], said: list[str]) -> str:
    """Turn a code into a sentence; a code that has none is shown with what the program said last."""
    code = str(answer.get("code", ""))
    if code in SENTENCES:
        return SENTENCES[code].format_map(_Shown(answer))
    last = said[-1] if said else "it said nothing"
    return f"{code}: {answer.get('what', last)}" if code else last


class _Shown(dict[str, Any]):
    """Values of a sentence; one that the host did not give is left out."""

    def __missing__(self, key: str) -> str:
        return ""
