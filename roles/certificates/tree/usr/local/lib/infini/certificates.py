#!/usr/bin/python3
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep every declared certificate valid and in HAProxy's hands.

dehydrated speaks to the certificate authority; this decides which names it is asked for, hands what it obtained to
HAProxy, archives what is no longer declared and remembers what failed. It compares states instead of trusting events,
so a run that was killed is made good by the next one.

Let's Encrypt counts, per account: 300 orders in three hours, 5 failed validations of a name in an hour, 5 identical
certificates in a week; and 50 new certificates in a week per registered domain (renewals don't count). Hence a batch
per hourly run, and a name that failed rests for one hour, then two, four… up to a day.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/dehydrated/infini.json")
HOUR, DAY = 3600, 86400
PARALLEL = 4  # dehydrated mostly sleeps while the authority looks


class BrokenError(Exception):
    """What keeps a whole run from working, in one sentence."""


def tell(sentence: str) -> None:
    """Say something to whoever reads: the journal or a terminal."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


@dataclass
class Settings:
    """What the role wrote for us."""

    domains: Path
    lists: list[Path]  # names that other programs keep
    base: Path
    deploy: Path
    socket: Path
    renew_days: int
    batch: int
    rest_hours: int

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read the file that host_tree wrote."""
        raw = json.loads(path.read_text())
        paths = {key: Path(raw[key]) for key in ("domains", "base", "deploy", "socket")}
        numbers = {key: int(raw[key]) for key in ("renew_days", "batch", "rest_hours")}
        return cls(**paths, **numbers, lists=[Path(file) for file in raw["lists"]])


@dataclass
class Ledger:
    """What we remember: certificates already read (their files never change) and names that failed."""

    path: Path
    read: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Read the ledger; a damaged one is forgotten, since it can be made again."""
        try:
            raw = json.loads(path.read_text())
            return cls(path, raw["read"], raw["failures"])
        except (OSError, ValueError, KeyError):
            return cls(path)

    def save(self) -> None:
        """Write the ledger in one move."""
        write_secret(self.path, json.dumps({"read": self.read, "failures": self.failures}, indent=1))


def write_secret(path: Path, text: str) -> None:
    """Replace a file that only root may read, so that a reader sees the old or the new one and nothing between."""
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until nobody else is at work; a kill leaves no lock behind."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def declared(domains: str) -> dict[str, frozenset[str]]:
    """Read domains.txt: one certificate a line, named after its first name."""
    lines = [line.split() for line in domains.lower().splitlines() if line.strip() and not line.startswith("#")]
    return {words[0]: frozenset(words) for words in lines}


def all_wanted(settings: Settings) -> tuple[dict[str, frozenset[str]], set[str]]:
    """Return all certificates that are wanted, and which of them are in the lists that other programs keep."""
    wanted = declared(settings.domains.read_text())
    covered = {name for names in wanted.values() for name in names}
    listed = {name for file in settings.lists for name in declared(text_of(file))} - covered
    return {**wanted, **{name: frozenset([name]) for name in listed}}, listed


def fits(folder: Path) -> bool:
    """Say whether a certificate is all there and belongs to its key: HAProxy would not start with another pair."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")
    except OSError:  # ssl's own errors, too
        return False
    return True


def describe(certificate: Path) -> dict[str, Any]:
    """Say until when a certificate lasts and for which names. Raises ValueError where it would not serve."""
    if not fits(certificate.parent):
        raise ValueError(f"{certificate} does not belong to its key")
    command = ["openssl", "x509", "-noout", "-enddate", "-ext", "subjectAltName", "-in", str(certificate)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    end = re.search(r"notAfter=(.+)", text)
    if not end:
        raise ValueError(f"{certificate} has no end")
    names = re.findall(r"DNS:([^,\s]+)", text)
    return {"until": ssl.cert_time_to_seconds(end[1]), "names": sorted(name.lower() for name in names)}


def held(settings: Settings, ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Say what dehydrated holds, name by name; a file is read once, since a new certificate gets a new file."""
    found: dict[str, dict[str, Any]] = {}
    read: dict[str, Any] = {}
    for link in sorted(settings.base.glob("certs/*/cert.pem")):
        if not link.exists():
            continue
        key = str(link.resolve())
        try:
            read[key] = found[link.parent.name] = ledger.read.get(key) or describe(link)
        except (ValueError, subprocess.CalledProcessError):
            continue  # unfit is as good as missing: it will be obtained again
    ledger.read = read
    return found


def due(
    wanted: dict[str, frozenset[str]], have: dict[str, dict[str, Any]], renew_days: int, now: float
) -> dict[str, str]:
    """Say which names need a certificate and why, the most urgent first."""
    reasons: dict[str, str] = {}
    for name, names in wanted.items():
        if name not in have:
            reasons[name] = "missing"
        elif frozenset(have[name]["names"]) != names:
            reasons[name] = "names changed"
        elif have[name]["until"] < now + renew_days * DAY:
            reasons[name] = "expires"
    return dict(sorted(reasons.items(), key=lambda item: have.get(item[0], {}).get("until", 0)))


def rests_until(failure: dict[str, Any], hours: int) -> float:
    """Say until when a name that failed is left alone: the hours given, twice, four times… up to a day."""
    return float(failure["last"] + min(2 ** (failure["count"] - 1) * hours * HOUR, DAY))


def retired(wanted: dict[str, frozenset[str]], existing: list[str]) -> tuple[list[str], bool]:
    """Say which certificates are no longer declared, and whether they are too many to be meant."""
    gone = [name for name in existing if name not in wanted]
    allowed = 2 if len(existing) < 10 else 0.3 * len(existing)
    return gone, len(gone) > allowed


def complaints(output: str) -> dict[str, str]:
    """Read from dehydrated's words why each name failed."""
    found: dict[str, str] = {}
    for section in re.split(r"^Processing ", output, flags=re.MULTILINE)[1:]:
        detail = re.findall(r'"detail"\]?:?\s*"((?:[^"\\]|\\.)*)"', section)
        errors = re.findall(r"ERROR: (.+)", section)
        if detail or errors:
            reason = (detail or errors)[-1].replace('\\"', "'").strip()
            found[section.split()[0]] = re.sub(r"/\.well-known/acme-challenge/[\w-]+", "/…", reason)
    return found


class HAProxy:
    """The running HAProxy, through its admin socket. When it does not run, it reads the directory at its start."""

    def __init__(self, path: Path, directory: Path):
        self.path, self.directory = path, directory

    def say(self, command: str) -> str:
        """Give one command and return the answer."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(30)
            line.connect(str(self.path))
            line.sendall(command.encode() + b"\n")
            line.shutdown(socket.SHUT_WR)
            answer = b""
            while part := line.recv(65536):
                answer += part
        return answer.decode()

    def must(self, command: str, sign: str) -> None:
        """Give one command whose answer has to hold a sign of success."""
        answer = self.say(command)
        if sign not in answer:
            raise BrokenError(f"HAProxy refused '{command.splitlines()[0]}': {' '.join(answer.split())}")

    def runs(self) -> bool:
        """Say whether somebody answers."""
        try:
            self.say("show version")
        except OSError:
            return False
        return True

    def hold(self, pem: Path) -> None:
        """Serve a certificate from now on. Connections that exist keep theirs: none is dropped."""
        known = str(pem) in self.say("show ssl cert").split()
        if known:
            self.say(f"abort ssl cert {pem}")  # what a killed run may have left open
        else:
            self.must(f"new ssl cert {pem}", "New empty certificate store")
        self.must(f"set ssl cert {pem} <<\n{pem.read_text()}", "ransaction")
        self.must(f"commit ssl cert {pem}", "Success!")
        if f"{pem}" not in self.say(f"show ssl crt-list {self.directory}/").split():
            self.must(f"add ssl crt-list {self.directory}/ {pem}", "Success!")

    def drop(self, pem: Path) -> None:
        """Serve a certificate no longer."""
        self.say(f"del ssl crt-list {self.directory}/ {pem}")
        self.say(f"del ssl cert {pem}")


def deploy(settings: Settings, names: list[str]) -> list[str]:
    """Hand to HAProxy each certificate that differs from what it has; return their names."""
    front = HAProxy(settings.socket, settings.deploy)
    with locked(settings.base / "deploy.lock"):  # HAProxy changes one certificate at a time
        handed = [name for name in names if hand_over(settings, front, name)]
    for name in handed:
        tell(f"{name}: certificate handed to HAProxy")
    return handed


def bundle(settings: Settings, name: str) -> str:
    """Return key, certificate and chain as HAProxy wants them, or nothing if they are not all there."""
    files = [settings.base / "certs" / name / part for part in ("privkey.pem", "fullchain.pem")]
    if not all(file.exists() for file in files):
        return ""
    return "\n".join(line for file in files for line in file.read_text().splitlines() if line.strip()) + "\n"


def undeployed(settings: Settings, names: list[str]) -> list[str]:
    """Say which certificates differ from what HAProxy's directory holds."""
    return [name for name in names if bundle(settings, name) not in ("", text_of(settings.deploy / f"{name}.pem"))]


def text_of(path: Path) -> str:
    """Return a file's text, nothing if there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def hand_over(settings: Settings, front: HAProxy, name: str) -> bool:
    """Hand one certificate over; say whether there was anything to do."""
    if not undeployed(settings, [name]) or not fits(settings.base / "certs" / name):
        return False
    pem = settings.deploy / f"{name}.pem"
    write_secret(pem, bundle(settings, name))
    if front.runs():
        try:
            front.hold(pem)
        except BrokenError as problem:
            tell(f"{name}: {problem}; reloading HAProxy instead")
            reload_haproxy()
    return True


def reload_haproxy() -> None:
    """Let HAProxy read its directory again; this drops no connection either."""
    done = subprocess.run(["systemctl", "reload", "haproxy.service"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BrokenError(f"HAProxy could not be reloaded: {done.stderr.strip()}")


def retire(settings: Settings, names: list[str]) -> None:
    """Take certificates out of service; keys are archived, never destroyed."""
    front = HAProxy(settings.socket, settings.deploy)
    for name in names:
        pem = settings.deploy / f"{name}.pem"
        if front.runs():
            front.drop(pem)
        pem.unlink(missing_ok=True)
        archive = settings.base / "archive"
        archive.mkdir(mode=0o700, exist_ok=True)
        (settings.base / "certs" / name).rename(archive / f"{name}-retired-{int(time.time())}")
        tell(f"{name}: no longer declared, certificate archived")


def dehydrated(*words: str) -> tuple[int, str]:
    """Run dehydrated, whose words the journal keeps. We lock instead of it: a kill leaves its lock behind."""
    done = subprocess.run(
        ["dehydrated", "--no-lock", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    sys.stderr.write(done.stdout)
    return done.returncode, done.stdout


def register() -> None:
    """Make sure that the certificate authority knows us; does nothing when an account is on disk."""
    code, output = dehydrated("--register", "--accept-terms")
    if code:
        raise BrokenError(f"The certificate authority could not be reached or refused our account: {last_line(output)}")


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no answer"


def forget_accounts(settings: Settings) -> None:
    """Set the account aside that the certificate authority says it does not know (a bench that was restarted, say)."""
    accounts = settings.base / "accounts"
    archive = settings.base / "archive"
    archive.mkdir(mode=0o700, exist_ok=True)
    if accounts.exists():
        accounts.rename(archive / f"accounts-{time.time_ns()}")


def obtain(settings: Settings, names: list[str], wanted: dict[str, frozenset[str]]) -> str:
    """Ask for certificates, a few at the same time; return dehydrated's words."""
    shares = {
        settings.base / f"due-{number}.txt": names[number::PARALLEL] for number in range(min(PARALLEL, len(names)))
    }
    for file, share in shares.items():
        file.write_text("".join(" ".join([name, *sorted(wanted[name] - {name})]) + "\n" for name in share))
    with ThreadPoolExecutor(PARALLEL) as pool:
        asked = pool.map(lambda file: dehydrated("--cron", "--keep-going", "--domains-txt", str(file))[1], shares)
        output = "".join(asked)
    for file in shares:
        file.unlink()
    if "Processing " not in output:
        raise BrokenError(f"dehydrated did nothing: {last_line(output)}")
    return output


def still_due(settings: Settings, ledger: Ledger, wanted: dict[str, frozenset[str]], names: list[str]) -> list[str]:
    """Say which of these names are not served as wanted yet."""
    # A certificate shorter than the renewal time is due again at once: what counts here is that it is new.
    before = set(ledger.read)
    have = held(settings, ledger)
    fresh = {Path(path).parent.name for path in set(ledger.read) - before}
    return [name for name in names if name not in fresh or frozenset(have[name]["names"]) != wanted[name]]


def attempt(settings: Settings, ledger: Ledger, wanted: dict[str, frozenset[str]], names: list[str]) -> dict[str, str]:
    """Obtain certificates, twice where the first refusal was not the name's fault; return what failed and why."""
    register()
    output = obtain(settings, names, wanted)
    remaining = still_due(settings, ledger, wanted, names)
    if remaining and "accountDoesNotExist" in output:
        forget_accounts(settings)
        register()
    if remaining and re.search("accountDoesNotExist|badNonce", output):
        # It names its files by the second: within the same one it would pair the new request with the old key.
        time.sleep(1)
        output = obtain(settings, remaining, wanted)
        remaining = still_due(settings, ledger, wanted, remaining)
    reasons = complaints(output)
    return {name: reasons.get(name, "dehydrated gave no reason") for name in remaining}


def note(ledger: Ledger, tried: list[str], failed: dict[str, str], now: float) -> None:
    """Remember who failed, forget the failures of those who did not."""
    for name in tried:
        past = ledger.failures.pop(name, {"count": 0})
        if name in failed:
            ledger.failures[name] = {"count": past["count"] + 1, "last": now, "reason": failed[name]}


def sentence(name: str, failure: dict[str, Any], have: dict[str, dict[str, Any]], rest_hours: int) -> str:
    """Say in one sentence what is wrong with a name."""
    until = have.get(name, {}).get("until", 0)
    left = f"the one it has ends on {time.strftime('%F', time.gmtime(until))}" if until else "it has none"
    again = time.strftime("%F %H:%M", time.localtime(rests_until(failure, rest_hours)))
    return f"{name}: no new certificate ({left}): {failure['reason'].rstrip('.')}; next try after {again}."


def status(settings: Settings, ledger: Ledger, now: float) -> dict[str, Any]:
    """Say everything that a run would look at, and what it would do."""
    wanted, listed = all_wanted(settings)
    have = held(settings, ledger)
    reasons = due(wanted, have, settings.renew_days, now)
    rest = settings.rest_hours
    ready = [n for n in reasons if n not in ledger.failures or rests_until(ledger.failures[n], rest) <= now]
    # Ours first, then new ones: those that fail again and again, because they lead elsewhere, keep nobody waiting.
    ready.sort(key=lambda name: (name in listed, ledger.failures.get(name, {}).get("count", 0)))
    # Names that never had a certificate leave a directory behind, and take nothing down when they go.
    folders = sorted(path for path in settings.base.glob("certs/*") if path.is_dir())
    empty = [path.name for path in folders if path.name not in wanted and not (path / "cert.pem").exists()]
    gone, too_many = retired(wanted, [path.name for path in folders if path.name not in empty])
    failures = {n: sentence(n, ledger.failures[n], have, rest) for n in sorted(reasons) if n in ledger.failures}
    return {
        "declared": len(wanted),
        "listed": sorted(listed),
        "due": reasons,
        "ready": ready[: settings.batch],
        "undeployed": undeployed(settings, [name for name in wanted if name in have]),
        "retired": empty if too_many else sorted(empty + gone),
        "kept": gone if too_many else [],
        "failures": [words for name, words in failures.items() if name not in listed],
        "listed_failures": [words for name, words in failures.items() if name in listed],
    }


def renew(settings: Settings, ledger: Ledger, patient: bool) -> None:
    """Do all that is to be done."""
    now = time.time()
    wanted, _listed = all_wanted(settings)
    if not patient:
        ledger.failures = {}
    ledger.failures = {name: failure for name, failure in ledger.failures.items() if name in wanted}
    todo = status(settings, ledger, now)
    try:
        if todo["ready"]:
            note(ledger, todo["ready"], attempt(settings, ledger, wanted, todo["ready"]), now)
    finally:
        ledger.save()
        deploy(settings, list(wanted))  # whatever happened: what was obtained must be served
    retire(settings, todo["retired"])
    if todo["kept"]:
        tell(f"{len(todo['kept'])} certificates are undeclared, too many to be meant: run `certificates retire NAME…`")
    if todo["ready"]:
        dehydrated("--cleanup")
    after = status(settings, ledger, now)
    for line in after["failures"] + after["listed_failures"]:
        tell(line)


def ending(settings: Settings, ledger: Ledger, now: float) -> list[str]:
    """Say which certificates end soon, although they should have been renewed long ago."""
    wanted, _listed = all_wanted(settings)
    margin = max(settings.renew_days - 9, 1) * DAY
    have = held(settings, ledger)
    late = sorted(name for name in wanted if name in have and have[name]["until"] < now + margin)
    unknown = {"count": 1, "last": now, "reason": "no try has failed, see journalctl -u certificates"}
    return [sentence(name, ledger.failures.get(name, unknown), have, settings.rest_hours) for name in late]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Keep every declared certificate valid and in HAProxy's hands.")
    commands = parser.add_subparsers(dest="command", required=True)
    again = commands.add_parser("renew", help="obtain what is due, deploy it, archive what is undeclared")
    again.add_argument("--now", action="store_true", help="also the names that rest after a failure")
    commands.add_parser("status", help="say as JSON what is due, what failed and what would be done")
    commands.add_parser("check", help="name the certificates that end soon and are not renewed")
    for name, words in (("deploy", "hand to HAProxy"), ("retire", "archive what is undeclared")):
        commands.add_parser(name, help=words).add_argument("names", nargs="+")
    return parser.parse_args()


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Do what the command line says."""
    ledger = Ledger.load(settings.base / "infini.json")
    if options.command == "status":
        tell(json.dumps(status(settings, ledger, time.time())))
    elif options.command == "check":
        if late := ending(settings, ledger, time.time()):
            raise BrokenError("\n".join(late))
    elif options.command == "deploy":
        deploy(settings, options.names)
    else:
        with locked(settings.base / "infini.lock"):
            ledger = Ledger.load(ledger.path)
            if options.command == "renew":
                renew(settings, ledger, patient=not options.now)
            else:
                refuse_declared(settings, options.names)
                retire(settings, options.names)


def refuse_declared(settings: Settings, names: list[str]) -> None:
    """Refuse to retire what is still declared, or was never there."""
    wanted, _listed = all_wanted(settings)
    for name in names:
        if name in wanted or not (settings.base / "certs" / name).is_dir():
            raise BrokenError(f"{name} is still declared or has no certificate here")


def main() -> int:
    """Run as a command."""
    try:
        run(arguments(), Settings.read(SETTINGS))
    except BrokenError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
