# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `infini-backup` on a host: JSON in, JSON out. Status 0 fine, 1 findings, 2 refused, 4 failed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from . import restore
from .backup import (
    CONFIG,
    WORK,
    BackupError,
    Repository,
    Run,
    Settings,
    accept,
    alone,
    findings,
    finish,
    paper_key,
    prepare,
    read_json,
    refused,
    remember_verified,
    services,
    state_file,
    write_json,
)
from .dumps import DumpError

Answer = tuple[Any, int]


def _run(settings: Settings, words: Sequence[str]) -> Answer:
    with alone():
        restore.Journal().undo()  # nobody wants a copy of a restore that was killed half way
        names = [word for word in words if word != "--new-repository"]
        answer = Run(settings).go(names, anew="--new-repository" in words)
    return answer, int(not all(one["ok"] for one in answer["services"].values()))


def _prepare(settings: Settings, words: Sequence[str]) -> Answer:
    """Run by borgmatic, which passes no words on: what went wrong is left in a file."""
    service = settings.service(*words)
    try:
        header = prepare(settings, service)
    except BackupError as error:
        write_json(WORK / f"{service.service}.trouble", error.answer())
        raise
    return {"sources": header["sources"], "seconds": header["seconds"]}, 0


def _finish(settings: Settings, words: Sequence[str]) -> Answer:
    """Finish one service, as borgmatic asks within a run, or whatever a run that was killed left to do."""
    if words:
        finish(settings.service(*words))
        return {}, 0
    with alone():  # another run's dumps and copies are its own: it refuses as busy
        for service in settings.services.values():
            finish(service)
    return {}, 0


def _archives(settings: Settings, words: Sequence[str]) -> Answer:
    return Repository(settings, words[0] if words else settings.repositories[0]).archives(), 0


def _restore(settings: Settings, _words: Sequence[str]) -> Answer:
    with alone():
        answer = restore.restore(settings, _request())
    return answer, int(bool(answer["findings"]))


def _compare(settings: Settings, _words: Sequence[str]) -> Answer:
    answer = restore.compare(settings, _request())
    return answer, int(bool(answer["findings"]))


def _accept(settings: Settings, _words: Sequence[str]) -> Answer:
    with alone():
        return accept(settings), 0


def _borg(settings: Settings, words: Sequence[str]) -> NoReturn:
    """Become borg itself, with the key and the passphrase of this host's repository, which it calls `::`."""
    repository = Repository(settings, settings.repositories[0])
    environment = {**repository.environment(), "BORG_REPO": repository.path}
    os.execvpe("borg", ["borg", *words], environment)  # noqa: S606  the whole point: no shell, no second process


def _check(settings: Settings, _words: Sequence[str]) -> Answer:
    since = (CONFIG.parent / "passphrase").stat().st_mtime
    found = findings(settings, read_json(state_file()), since, time.time())
    return found, int(bool(found))


def _size(_settings: Settings, _words: Sequence[str]) -> Answer:
    known: Mapping[str, Any] = read_json(state_file()).get("services", {})
    return sum(one.get("bytes") or 0 for one in known.values()), 0


COMMANDS: dict[str, Callable[[Settings, Sequence[str]], Answer]] = {
    "accept": _accept,
    "archives": _archives,
    "borg": _borg,
    "check": _check,
    "compare": _compare,
    "finish": _finish,
    "key": lambda settings, _words: (paper_key(settings), 0),
    "prepare": _prepare,
    "restore": _restore,
    "run": _run,
    "services": lambda settings, _words: (services(settings), 0),
    "size": _size,
    "verified": lambda _settings, _words: (remember_verified(_request(), time.time()), 0),
}


def _request() -> Any:
    try:
        return json.load(sys.stdin)
    except ValueError as error:
        raise refused("bad_request") from error


def main(words: Sequence[str]) -> int:
    """Do what the words say; return the exit status."""
    try:
        if not words or words[0] not in COMMANDS:
            raise refused("bad_request", commands=sorted(COMMANDS))
        answer, status = COMMANDS[words[0]](Settings.read(), words[1:])
    except BackupError as error:
        answer, status = error.answer(), error.status
    except DumpError as error:
        answer, status = {"code": error.code, "says": str(error)}, 4
    sys.stdout.write(json.dumps(answer) + "\n")
    return status
