# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper: the only one who deletes from backup repositories, and who would rather not.

It looks at the archives of each client through a key of its own, and asks `keeping` what may go. What it is about to
delete it writes down first: killed at any moment, its next run knows its own traces from somebody else's.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from . import keeping

CONFIG = Path("/etc/infini-backup-keeper/config.json")
KEY = Path("/etc/infini-backup-keeper/id_ed25519")
KNOWN_HOSTS = Path("/etc/infini-backup-keeper/known_hosts")
STATE = Path("/var/lib/infini-backup-keeper")
USER = "infini-backup-keeper"
OVERDUE = timedelta(hours=36)


MISSING = (13, 15)  # Borg: there is no repository, or only an empty folder


class BorgError(Exception):
    """Borg's last words."""


class MissingError(BorgError):
    """The client has not made a backup yet."""


def now() -> datetime:
    """Return the time, in UTC and without saying so, as Borg gives it."""
    return datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)


class Keeping:
    """One client's repository at one store, and what is remembered of it."""

    def __init__(self, client: Mapping[str, Any], repository: Mapping[str, str]) -> None:
        self.client, self.path, self._passphrase = client["name"], repository["path"], client["passphrase"]
        self.name = f"{client['name']}@{repository['label']}"
        self._file = STATE / f"{self.name}.json"
        self.journal = read(self._file)

    def remember(self, **more: Any) -> None:
        """Write the journal down, whole or not at all."""
        self.journal = {**self.journal, **more}
        new = self._file.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(self.journal, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)

    def borg(self, *arguments: str) -> str:
        """Run Borg on the repository and return what it says."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "BORG_BASE_DIR": str(STATE / "borg"),
            "BORG_REPO": self.path,
            "BORG_PASSPHRASE": self._passphrase,
            "BORG_EXIT_CODES": "modern",
            "BORG_RSH": f"ssh -i {KEY} -o UserKnownHostsFile={KNOWN_HOSTS} -o StrictHostKeyChecking=yes"
            " -o BatchMode=yes -o IdentitiesOnly=yes -o ServerAliveInterval=60",
        }
        command = ["borg", "--lock-wait", "600", *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode in MISSING and "archives" not in self.journal:
            raise MissingError
        if done.returncode:
            words = [line for line in done.stderr.splitlines() if line and not line.startswith((" ", "Borg server:"))]
            raise BorgError(words[-1] if words else f"status {done.returncode}")
        return done.stdout

    def archives(self) -> list[dict[str, Any]]:
        """Return the archives that are there."""
        return [keeping.archive(listed) for listed in json.loads(self.borg("list", "--json"))["archives"]]

    def keep(self, config: Mapping[str, Any], drill: str) -> dict[str, Any]:
        """Look, and delete what may go; return what to say of it.

        What was refused once stays refused until `accept`: time makes a flood look slow, and a date in the future past.
        """
        archives = self.archives()
        seen = self.journal if "archives" in self.journal else {}
        found = keeping.judge(seen, archives, now(), config["runs_a_day"]) or self.journal.get("refused", [])
        if found:
            self.remember(refused=found)
            return {"code": "refused", "found": found}
        self.remember(**keeping.note(archives, now()))
        gone = keeping.plan(archives, config["retention"], timedelta(days=config["delay_days"]), now())
        if not gone:
            return {"code": "nothing"}
        if drill:
            return {"code": drill, "waiting": len(gone)}
        # A client could delete an archive's contents and leave its name. Looked for before that becomes final.
        self.borg("check", "--archives-only")
        self.remember(**keeping.note(archives, now(), gone))
        self.borg("delete", "::" + gone[0]["name"], *(one["name"] for one in gone[1:]))
        self.borg("compact")
        return {"code": "pruned", "pruned": [one["name"] for one in gone]}

    def accept(self) -> None:
        """Take what is there for what should be there: a person has looked."""
        self.remember(**keeping.note(self.archives(), now()), refused=[])


def read(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing where there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def drills() -> list[str]:
    """Return the lines of the drill log."""
    path = STATE / "drills.jsonl"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def drilled(drill: Mapping[str, Any]) -> None:
    """Add a drill, {"ok", "clients"} and whatever else, to the log."""
    if not {"ok", "clients"} <= set(drill):
        raise ValueError("a drill says `ok` and `clients`")
    with (STATE / "drills.jsonl").open("a", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.write(keeping.chained(drills(), {**drill, "at": now().isoformat()}) + "\n")
        log.flush()
        os.fsync(log.fileno())


def chain() -> int:
    """Return the first broken line of the drill log, 0 where all hold, and remember how far it goes."""
    lines, known = drills(), read(STATE / "chain.json")
    number = keeping.broken(lines, known)
    if lines and not number:
        new = STATE / "chain.new"
        new.write_text(json.dumps({"lines": len(lines), "digest": keeping.digest(lines[-1])}), encoding="utf-8")
        new.replace(STATE / "chain.json")
    return number


def journal(keepings: Sequence[Keeping]) -> dict[str, list[str]]:
    """Return by `CLIENT@STORE` the archives that were seen, that we did not delete, and that must be there now."""
    return {
        one.name: [each["name"] for each in one.journal.get("archives", {}).values() if not each["pruned"]]
        for one in keepings
    }


def run(keepings: Sequence[Keeping], config: Mapping[str, Any]) -> int:
    """Keep every repository; one that fails stops no other."""
    number = chain()
    answers = {}
    for one in keepings:
        wanted = "chain_broken" if number else keeping.drill_wanted(drills(), one.client, config["drill_days"], now())
        try:
            answer = one.keep(config, wanted)
        except MissingError:
            answer = {"code": "empty"}
        except BorgError as error:
            answer = {"code": "borg", "says": str(error)}
        one.remember(last=answer, looked=now().isoformat())
        answers[one.name] = answer
    say(answers)
    return int(bool(findings(keepings, number)))


def undrilled(keepings: Sequence[Keeping], days: int) -> list[str]:
    """Return whose last drill is red or old, as `CLIENT CODE`; a new client has as many days for its first."""
    since_setup = now() - datetime.utcfromtimestamp(CONFIG.stat().st_mtime)
    wanted = {one.client: keeping.drill_wanted(drills(), one.client, days, now()) for one in keepings}
    early = "never_drilled" if since_setup < timedelta(days=days) else ""
    return [f"{client} {code}" for client, code in sorted(wanted.items()) if code and code != early]


def findings(keepings: Sequence[Keeping], chain_broken: int) -> list[str]:
    """Return what is wrong, as `CLIENT@STORE CODE …`."""
    found = [f"drills chain_broken {chain_broken}"] if chain_broken else []
    for one in keepings:
        last = one.journal.get("last", {})
        if last.get("code") == "refused":
            codes = sorted({each["code"] for each in last["found"]})
            found.append(f"{one.name} refused {' '.join(codes)}")
        elif last.get("code") == "borg":
            found.append(f"{one.name} borg: {last['says']}")
        looked = one.journal.get("looked")
        since = datetime.fromisoformat(looked) if looked else datetime.utcfromtimestamp(CONFIG.stat().st_mtime)
        if now() - since > OVERDUE:
            found.append(f"{one.name} overdue")
    return found


def say(answer: Any) -> None:
    """Answer whoever called, in JSON."""
    sys.stdout.write(json.dumps(answer, indent=1) + "\n")


def become(user: str) -> None:
    """Be the keeper's own user, also where root calls: what is written here stays readable to the timer's runs."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)


def main(arguments: Sequence[str]) -> int:
    """Be the command: run, check, journal, verify, drilled < JSON, accept CLIENT."""
    become(USER)
    os.umask(0o077)
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    keepings = [Keeping(client, repository) for client in config["clients"] for repository in client["repositories"]]
    try:
        return obey(arguments, config, keepings)
    except BlockingIOError:
        say({"code": "running"})
        return 2
    except ValueError as error:
        say({"code": "bad_input", "says": str(error)})
        return 2
    except BorgError as error:
        say({"code": "borg", "says": str(error)})
        return 4


def obey(arguments: Sequence[str], config: Mapping[str, Any], keepings: Sequence[Keeping]) -> int:
    """Do what a verb says."""
    verb, *words = arguments or [""]
    if verb == "accept" and words:
        for one in keepings:
            if one.client in words:
                one.accept()
        return 0
    if not words:
        if verb == "run":
            with (STATE / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return run(keepings, config)
        if verb == "check":
            found = [*findings(keepings, chain()), *undrilled(keepings, config["drill_days"])]
            sys.stdout.write((", ".join(found) or "ok") + "\n")
            return int(bool(found))
        if verb == "journal":
            say(journal(keepings))
            return 0
        if verb == "verify":
            number = chain()
            say({"lines": len(drills()), "broken": number})
            return int(bool(number))
        if verb == "drilled":
            drilled(json.load(sys.stdin))
            return 0
    sys.stderr.write(f"{main.__doc__}\n")
    return 2
