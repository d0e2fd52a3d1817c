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
        answer = json.loads(done.stdout or "null")
    except ValueError:
        answer = None
    if done.returncode == 0 or (done.returncode == 1 and answer is not None):  # a program that crashes says nothing
        return answer
    answer = answer if isinstance(answer, dict) else {}
    told = sentence(answer, (done.stderr.strip() or done.stdout.strip()).splitlines())
    error = (RefusedError if done.returncode == 2 else FailedError)(f"{to.host}: {told}")
    error.code = str(answer.get("code", ""))
    raise error


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


LOOK = "`infini restore list` shows what there is"
STORE = "nothing was changed; look at the store: infini-backup-store check there"
SENTENCES = {
    # refused: nothing was touched
    "bad_request": "the program on the host does not know this command: `infini apply backups` brings its version",
    "busy": "a backup or a restore is at work there: wait for its end",
    "clock_behind": "its clock says {now} and its newest backup is of {newest}: set the clock right (chronyc makestep);"
    " if it is right, the backup's date is not: find out why, then `infini-backup accept` there",
    "read_only": "it comes by the store's read door, as the machines of a drill do: it writes nothing",
    "repository_gone": "its repository was there and is no longer: find out why before anything else; what the store"
    " keeps out of reach is under generations/. Only if a new one is wanted: infini-backup run --new-repository",
    "service_unknown": "nothing of that name is backed up there: name one of {services}",
    "not_configured": "backups are not set up there: infini apply backups",
    "outside_sources": "{path} is in no backup; backed up are {sources}",
    "path_absent": "{paths}: not in that archive: " + LOOK,
    "reference_only": "{paths}: written by roles, and kept to look things up: restore it beside, without --over",
    "through_link": "{path}: a folder above it is a link, to {leads}: whoever owns it could lead the restore anywhere."
    " Restore it beside, or remove the link",
    "archive_absent": "no archive of then; there is one from {oldest} to {newest}: " + LOOK,
    "database_absent": "{databases}: not in that archive, which has {there}",
    "database_exists": "{databases}: there already, beside: drop it, or load under another name",
    "not_empty": "{to} is not empty: name an empty folder by --to",
    "no_space": "{needed} bytes are needed in {at} and {free} are free: make room, or name another place by --to",
    # failed: said, and the next run goes on
    "key_wrong": "the passphrase does not open the repository: backup_passphrase is not the one that it was made with",
    "key_missing": "the passphrase cannot be read: infini apply backups writes it from the vault",
    "store_unreachable": "the store does not answer: is it up, is its port 22 open? The next run goes on from here",
    "store_refused": "the store refuses this host's key: infini apply backups, on the store too",
    "store_key_changed": "the store shows another host key than backup_ssh_host_keys: is it the store at all?",
    "store_full": "the store has no room, or the quota is reached: older archives are whole; " + STORE,
    "store_busy": "somebody holds the repository's lock: a backup, or the keeper; the next run goes on",
    "repository_absent": "there is no repository yet: infini backup makes it",
    "repository_damaged": "the repository is damaged: " + STORE + ", and restore from a generation",
    "repository_replaced": "another repository stands in the place of ours: " + STORE,
    "repository_replayed": "the repository is older than what was last seen of it: if the store did that (revive), say"
    " `infini-backup accept` there; if not, " + STORE,
    "borg_failed": "Borg says: {says}",
    "borgmatic_absent": "borgmatic is not installed: infini apply backups",
    "source_absent": "{paths}: the card of a service names what is not there",
    "manifest_absent": "{archive} has no manifest: nothing proves that it is whole; take another",
    "archive_lacks": "the archive has not all that its manifest names: take another archive",
    "system_refused": "{path}: {says}",
}
"""What the codes of `infini-backup` mean, and what mends it."""


def sentence(answer: Mapping[str, Any], said: list[str]) -> str:
    """Turn a code into a sentence; a code that has none is shown with what the program said last."""
    code = str(answer.get("code", ""))
    if code in SENTENCES:
        told = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in answer.items()}
        return SENTENCES[code].format_map(_Shown(told))
    last = said[-1] if said else "it said nothing"
    return f"{code}: {answer.get('says') or answer.get('what') or last}" if code else last


class _Shown(dict[str, Any]):
    """Values of a sentence; one that the host did not give is left out."""

    def __missing__(self, key: str) -> str:
        return ""
