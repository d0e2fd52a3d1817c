# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apply what AlternC's panel has changed, and say so when it cannot be applied.

alternc-apply run      what alternc-apply.path and alternc-apply.timer start: apply what waits, then judge
alternc-apply now      the same from the command line; ends with 1 and a sentence for each problem
alternc-apply anew     have the virtual hosts of every version of PHP written from their templates, then the same
alternc-apply check    say what is wrong, by the last run and by a look of its own; change nothing

Apache never reads what AlternC writes: the file-set engine copies each virtual host to /etc/apache2/alternc and lets
Apache judge it first. One that Apache cannot read stays as it was and costs its own site only.

A canary flies the whole way every few hours: a row of the panel is changed, then DNS and Apache are asked about it.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from . import alternc_front, apache, tree, units_door
from . import alternc_panel as panel
from .alternc_panel import PanelError, Seen
from .tree_model import DIRECTORY, FILE, Entry, Request, TreeError, Validation
from .tree_read import digest

SETTINGS = Path("/etc/infini-alternc/settings.json")
HOME_PATTERN = Path("/etc/infini-alternc/home.conf")
POOL_PATTERNS = Path("/etc/php/patterns")
STATE = Path("/var/lib/infini-alternc/state.json")
RUN_LOCK = Path("/run/alternc-apply.lock")
RELOAD_OWED = Path("/run/alternc-apply.reload")
SERVED = "/etc/apache2/alternc"
POOLS = "/etc/php/pools"
LOGS = "/var/log/members"
UNITS = "/etc/systemd/system"
EXTRA_USERS = "/var/lib/extrausers"
JUDGE_VIRTUAL_HOSTS = ("sh", "-c", f"find {SERVED} -name '*.conf' -exec virtual-hosts-check {{}} +")
# No brake on these: AlternC takes a virtual host away only for a row that says so, and a pool outlives both of them.
OURS = (SERVED, POOLS, UNITS, LOGS)
SENDMAIL = ("/usr/sbin/sendmail", "-t", "-i")
RIVALS = {
    "/usr/lib/alternc/php7-fpm": "alternc-php-fpm",
    "/usr/lib/alternc/install.d/alternc-nss": "alternc-nss",
}
OWN_UNITS = ("alternc-apply.path", "alternc-apply.timer")
RETRY_CANARY = 600  # seconds after which one that did not come through is sent again
CANARY_SECONDS = 10  # from the end of a run to what DNS and Apache say
LATE_SECONDS = 60  # a flag or a row that waits for longer is a problem, whatever else is said

_POOL = re.compile(rb"proxy:unix:/run/php/([^/]+)/([^/|]+)\.sock")


@dataclass
class Settings:
    """What the role says of this host."""

    versions: list[str]
    html: str
    seconds: int
    mail_to: str
    fqdn: str
    http_port: int
    canary: str  # a domain of the panel that belongs to nobody else; empty for none
    canary_hours: float
    front: bool = False  # whether visitors come through HAProxy on this host, which asks by the PROXY protocol

    def home(self, login: str) -> str:
        """Return where AlternC puts the files of a member."""
        return f"{self.html}/{login[0]}/{login}"


@dataclass
class Report:
    """What a run did, and what is wrong."""

    did: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    canary: dict[str, float] = field(default_factory=dict)  # when it was sent, and when it last came through
    shut: dict[str, float] = field(default_factory=dict)  # since when members may not enter the panel

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Go on after a step that failed: what it says is a problem of this run."""
        try:
            yield
        except (PanelError, TreeError, apache.ApacheError) as problem:
            self.problems.append(str(problem))
        except (OSError, subprocess.SubprocessError) as problem:
            self.problems.append(f"A step failed on this host: {problem}")


def accounts(members: Mapping[str, int], settings: Settings, taken: Iterable[str]) -> dict[str, bytes]:
    """Return the files from which the host knows the members, without those whose login a service of the host has."""
    known = sorted((login, uid) for login, uid in members.items() if login not in set(taken))
    lines = {
        "passwd": (f"{login}:x:{uid}:{uid}::{settings.home(login)}:/usr/sbin/nologin" for login, uid in known),
        "group": (f"{login}:x:{uid}:" for login, uid in known),
        "shadow": (f"{login}:*:19000:0:99999:7:::" for login, _uid in known),
    }
    return {f"{EXTRA_USERS}/{name}": "".join(f"{line}\n" for line in text).encode() for name, text in lines.items()}


def filled(pattern: str, login: str, settings: Settings) -> bytes:
    """Return a pattern with an account in it."""
    words = {"@LOGIN@": login, "@HOME@": settings.home(login), "@ROOT@": settings.html}
    return re.sub("|".join(words), lambda word: words[word[0]], pattern).encode()


def pool_files(
    pools: Iterable[tuple[str, str]], settings: Settings, patterns: Mapping[str, str], home: str
) -> dict[str, bytes]:
    """Return the files of these pools: what PHP reads, and what their units say of the home."""
    found = {}
    for login, version in pools:
        found[f"{POOLS}/{version}/{login}.conf"] = filled(patterns[version], login, settings)
        found[f"{UNITS}/php{version}@{login}.service.d/50-home.conf"] = filled(home, login, settings)
    return found


def rotation(logins: Iterable[str]) -> bytes:
    """Return how the slow logs are turned over: as the accounts themselves, whose directories they stand in."""
    how = "weekly\n    rotate 8\n    missingok\n    notifempty\n    compress"
    return "".join(
        f"{LOGS}/{login}/php/*.log {{\n    su {login} {login}\n    {how}\n}}\n" for login in sorted(logins)
    ).encode()


def entries(files: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> tuple[Entry, ...]:
    """Return files of root as the file-set engine takes them."""
    modes = modes or {}
    return tuple(
        Entry(path, FILE, digest(content), modes.get(path, 0o644), "root", "root", adopt=True)
        for path, content in sorted(files.items())
    )


def write(request: Request, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Let the file-set engine bring a tree to this; return its report."""
    there = tree.look(request, check_mode=False)
    if not there["changed"]:
        return there
    return tree.apply(request, {path: files[path] for path in there["need"]}, check_mode=False, diff=False)


class Engine:
    """One run."""

    def __init__(self, settings: Settings, *, allow_removal: bool = False) -> None:
        self.settings = settings
        self.report = Report()
        self.allow_removal = allow_removal
        self.quarantined: set[str] = set()  # files of pools that PHP refuses
        self.pools: set[tuple[str, str]] = set()
        self.refused: list[dict[str, str]] = []  # virtual hosts that Apache refuses
        self.left: list[str] = []  # files and units of pools that no row asks for any more
        self.left_units: list[str] = []

    def run(self, *, anew: bool = False) -> Report:
        """Apply what waits."""
        report = self.report
        before = recall()
        report.canary, report.shut = dict(before.get("canary", {})), dict(before.get("shut", {}))
        with report.step():
            report.did += [f"{name} was put back" for name in panel.prepare_directories()]
            report.did += [f"the lock {name}, which nobody held, was removed" for name in panel.remove_stale_locks()]
            panel.clear_flags()
            if anew:
                panel.mark_all()
            stamp = self.send_canary()
            now = panel.look()
            report.shut = {login: report.shut.get(login, time.time()) for login in now.shut}
            if now.never:
                panel.mend_actions()
                report.did.append(f"{len(now.never)} file actions that AlternC overlooks were put right")
                now = panel.look()
            again = [site for site in now.refused if site.template.is_file()]
            if again:
                panel.retry(again)
                now = panel.look()
            self.apply(now)
            if stamp:
                self.await_canary(stamp)
            self.judge(now)
        report.problems[:] = dict.fromkeys(report.problems)
        return report

    def send_canary(self) -> str:
        """Change the canary's rows where it is due; return what they now say."""
        canary = self.report.canary
        pause = self.settings.canary_hours * 3600 if canary.get("sent", 0) <= canary.get("seen", 0) else RETRY_CANARY
        if not self.settings.canary or time.time() - canary.get("sent", 0) < pause:
            return ""
        stamp = str(int(time.time()))
        if not panel.set_canary(self.settings.canary, stamp):
            return ""  # on a new panel nobody has made its domain yet
        canary["sent"] = float(stamp)
        return stamp

    def await_canary(self, stamp: str) -> None:
        """Ask DNS and Apache for what the canary's rows say."""
        domain, said = self.settings.canary, ("", "")

        def came() -> bool:
            nonlocal said
            said = resolve(f"{panel.CANARY_RECORD}.{domain}"), follow(f"{panel.CANARY_SITE}.{domain}", self.settings)
            return all(stamp in answer for answer in said)

        if apache.until(came, CANARY_SECONDS):
            self.report.canary["seen"] = time.time()

    def apply(self, now: Seen) -> None:
        """Bring the host to what the panel says: accounts, pools, then AlternC's own part, then the virtual hosts."""
        report = self.report
        with report.step():
            self.open_pools(now)
        if now.actions:
            with report.step():
                self.say("do_actions.php", panel.script("do_actions.php"))
        if now.waits:
            with report.step():
                self.say("update_domains.php", panel.script("update_domains.php"))
                report.did.append(f"{len(now.domains) + len(now.sites)} changes of domains and sites were taken")
                later = panel.look()
                if later.pools != now.pools:  # somebody went on changing, and AlternC has taken that, too
                    self.open_pools(later)
        with report.step():
            self.publish()
            self.tell_rows(now)
        if self.settings.front:
            with report.step():
                served = (path.read_text(encoding="utf-8", errors="replace") for path in Path(SERVED).glob("*/*.conf"))
                report.did += alternc_front.keep(served, self.settings.canary)
        with report.step():
            self.retire()

    def say(self, name: str, said: str) -> None:
        """Make a problem of what a script of AlternC says: a good run is silent."""
        if said:
            self.report.problems.append(f"AlternC's {name} said: {' '.join(said.split())[:500]}")

    def make_accounts(self, now: Seen) -> set[tuple[str, str]]:
        """Make the members known to the host; return the pools that they need and may have."""
        taken = {entry.split(":", 1)[0] for entry in Path("/etc/passwd").read_text(encoding="utf-8").splitlines()}
        clash = sorted(taken & {login for login, _version in now.pools})
        if clash:
            self.report.problems.append(
                f"The members {', '.join(clash)} have the login of a service of this host: they get no PHP of their own"
            )
        unknown = sorted({version for _login, version in now.pools} - set(self.settings.versions))
        if unknown:
            self.report.problems.append(f"Sites ask for PHP {', '.join(unknown)}, which this host does not have")
        pools = {(login, version) for login, version in now.pools if login not in clash and version not in unknown}
        files = accounts(now.members, self.settings, taken)
        files["/etc/logrotate.d/alternc-slow"] = rotation({login for login, _version in pools})
        fewer = shrunk(Path(EXTRA_USERS, "passwd"), files[f"{EXTRA_USERS}/passwd"])
        if fewer and not self.allow_removal:
            raise PanelError(
                f"{fewer} members would be gone at once: nothing of theirs was touched; "
                "`alternc-apply now --allow-removal` if that is meant"
            )
        write(
            Request(
                "alternc-accounts",
                entries(files, {f"{EXTRA_USERS}/shadow": 0o600}),
                overwrite=("var/lib/extrausers/*", "etc/logrotate.d/alternc-slow"),
            ),
            files,
        )
        return pools

    def open_pools(self, now: Seen) -> None:
        """Make what new pools need and open their entrances; those that are no longer wanted still serve."""
        self.pools = pools = self.make_accounts(now)
        patterns = {v: (POOL_PATTERNS / f"{v}.conf").read_text(encoding="utf-8") for v in self.settings.versions}
        files = pool_files(pools, self.settings, patterns, HOME_PATTERN.read_text(encoding="utf-8"))
        logins = sorted({login for login, _version in pools})
        uids = {login: str(now.members[login]) for login in logins}
        made = write(
            Request(
                "alternc-pools",
                (
                    *entries(files),
                    *(Entry(f"{LOGS}/{login}", DIRECTORY, "", 0o750, "root", uids[login]) for login in logins),
                    *(Entry(f"{LOGS}/{login}/php", DIRECTORY, "", 0o750, uids[login], uids[login]) for login in logins),
                ),
                overwrite=("etc/php/pools/**", "etc/systemd/system/php*@*.service.d/**"),
                allow_removal=OURS,
                validations=(
                    Validation(("etc/php/pools/*/*.conf",), ("/usr/local/sbin/php-pools", "check"), quarantine=True),
                ),
                prune=False,
            ),
            files,
        )
        self.quarantined = {one["path"] for one in made["quarantined"]}
        self.report.problems += [f"PHP refuses a pool: {one['reason']}" for one in made["quarantined"]]
        wanted = [
            {"name": f"php{version}@{login}.socket", "enabled": True, "state": "started"}
            for login, version in sorted(pools)
            if f"{POOLS}/{version}/{login}.conf" not in self.quarantined
        ]
        opened = self.units(wanted, prune=["php*@*.socket"], leave=True)
        self.left, self.left_units = made["left"], opened["left"]
        if made["changed"]:
            subprocess.run(["/usr/local/sbin/php-pools", "reload"], capture_output=True, check=False)
        if opened["started"]:
            self.report.did.append(f"{len(opened['started'])} pools of PHP were opened")

    def units(self, wanted: Sequence[Mapping[str, Any]], **options: Any) -> dict[str, Any]:
        """Bring units to what is wanted; raise where systemd refuses."""
        asked = {
            "units": wanted,
            "prune": [],
            "leave": False,
            "watch": ["php*@*.service"],
            "daemon_reload": "auto",
            **options,
        }
        answer = units_door.answer(asked, check_mode=False, diff=False)
        if answer.get("failed"):
            raise PanelError(str(answer["msg"]))
        return answer

    def publish(self) -> None:
        """Let Apache serve by AlternC's virtual hosts, those that it can read."""
        files = {f"{SERVED}/{name}": content for name, content in panel.virtual_hosts().items()}
        served = sum(1 for _path in Path(SERVED).glob("*/*.conf"))
        if served > 5 and not files and not self.allow_removal:
            raise PanelError(
                f"AlternC has no virtual host any more, and {served} are served: they stay; is {panel.VIRTUAL_HOSTS} "
                "there? `alternc-apply now --allow-removal` if that is meant"
            )
        owed = RELOAD_OWED.exists()
        RELOAD_OWED.touch()  # a run that is killed from here on leaves the reload to the next
        made = write(
            Request(
                "alternc-sites",
                entries(files),
                owned=(SERVED,),
                overwrite=("etc/apache2/alternc/**",),
                allow_removal=OURS,
                validations=(Validation(("etc/apache2/alternc/**",), JUDGE_VIRTUAL_HOSTS, quarantine=True),),
            ),
            files,
        )
        self.refused = made["quarantined"]
        self.report.problems += [f"Apache refuses a virtual host: {one['reason']}" for one in self.refused]
        own_apache()
        if made["changes"] or owed:
            apache.reload()
            changed = sum(change["path"].endswith(".conf") for change in made["changes"])
            self.report.did.append(f"{changed} virtual hosts were put in force")
        RELOAD_OWED.unlink()

    def tell_rows(self, now: Seen) -> None:
        """Let the panel itself say which of its sites Apache refuses, for as long as it does."""
        reasons = {
            (Path(one["path"]).parent.name, Path(one["path"]).stem): " ".join(
                one["reason"].replace(f"{one['path']}: ", "").split()
            )
            for one in self.refused
            if Path(one["path"]).parent.name.isdigit()
        }
        if reasons or now.told:
            panel.tell_refused(reasons)

    def retire(self) -> None:
        """Take away pools that nobody asks any more: neither a row, nor a virtual host, nor a request on its way."""
        if not (self.left or self.left_units) or apache.outdated():
            return  # the next run looks again
        asked = {
            (found[2].decode(), found[1].decode())
            for path in Path(SERVED).glob("*/*.conf")
            for found in _POOL.finditer(path.read_bytes())
        }
        keep = {name for login, version in asked | self.pools for name in names_of_pool(login, version)}
        stop = [unit for unit in self.left_units if unit.replace(".service", ".socket") not in keep]
        self.units([], prune=stop)
        gone = [path for path in self.left if path not in keep and not path.startswith(LOGS)]
        write(Request("alternc-pools", left=tuple(gone), overwrite=("**",), allow_removal=OURS), {})
        if stop:
            self.report.did.append(f"{len(stop)} units of pools were retired")

    def judge(self, before: Seen) -> None:
        """Look at what has come of it, in rows: neither a status nor the panel's own word is to be trusted."""
        self.report.problems += problems_of(panel.look().left_of(before))
        self.report.problems += [
            f"{package} is installed and writes what alternc-apply owns: `apt-get remove {package}`"
            for path, package in RIVALS.items()
            if Path(path).exists()
        ]


def names_of_pool(login: str, version: str) -> list[str]:
    """Return the files and units that belong to a pool."""
    return [
        f"php{version}@{login}.socket",
        f"{POOLS}/{version}/{login}.conf",
        f"{UNITS}/php{version}@{login}.service.d/50-home.conf",
    ]


def shrunk(path: Path, content: bytes) -> int:
    """Return how many lines a file would lose, where that is more than a slip can explain."""
    before = len(path.read_bytes().splitlines()) if path.exists() else 0
    gone = before - len(content.splitlines())
    return gone if gone > max(5, 0.3 * before) else 0


def problems_of(now: Seen) -> list[str]:
    """Return a sentence for each thing that the panel's rows say is not as it should be."""
    lost = {site.id for site in now.untyped}
    types = sorted({site.type for site in now.untyped})
    waiting = [*now.domains.values(), *(name for row, name in now.sites.items() if row not in lost)]
    found = []
    if waiting:
        found.append(f"Not applied: {some(waiting)}")
    for kind in types:
        names = [site.name for site in now.untyped if site.type == kind]
        found.append(f"The type {kind} does not exist any more, but these have it and stay as they are: {some(names)}")
    for template in sorted({site.template for site in now.refused}):
        names = [site.name for site in now.refused if site.template == template]
        missing = "" if template.is_file() else f": the template {template} is missing"
        found.append(f"AlternC could not write the virtual hosts of {some(names)}{missing}")
    locked = [domain for domain, result in now.zones.items() if result != "1"]
    if locked:
        found.append(f"AlternC could not write the zones {some(locked)}")
    if now.actions:
        found.append(
            f"{len(now.actions)} file actions of AlternC are not done (the first: {next(iter(now.actions.values()))})"
        )
    return found


def some(names: Sequence[str]) -> str:
    """Return the first of them, and how many there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def own_apache() -> None:
    """See that Apache runs, in its unit: AlternC starts it by apache2ctl where it finds it stopped."""
    first = apache.first_process()
    if first and apache.UNIT in first[1]:
        return
    if first:
        subprocess.run(["apache2ctl", "stop"], capture_output=True, check=False)
        apache.until(lambda: apache.first_process() is None, 10)
    subprocess.run(["systemctl", "reset-failed", "apache2.service"], capture_output=True, check=False)
    done = subprocess.run(["systemctl", "start", "apache2.service"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PanelError(f"Apache does not start: see `journalctl -u apache2`. {done.stderr.strip()}")


def remember(report: Report, settings: Settings) -> None:
    """Keep what a run found for `check`, and write of it to those who must know, when it is news."""
    before = recall().get("problems", [])
    problems = report.problems + canary_problems(report.canary, settings)
    fresh = STATE.with_suffix(".new")

    def keep() -> None:
        now = {"ran": time.time(), "did": report.did, "problems": problems, "canary": report.canary}
        now["shut"] = report.shut
        fresh.write_text(json.dumps(now, ensure_ascii=False), encoding="utf-8")

    try:
        STATE.parent.mkdir(mode=0o755, exist_ok=True)
        keep()
    except OSError as error:  # `check` misses the run soon; a letter at each run would say no more
        report.problems.append(f"{STATE} cannot be written ({error.strerror}): make room on the disk")
        return
    if settings.mail_to and problems != before:
        letter = EmailMessage()
        letter["To"], letter["Subject"] = settings.mail_to, f"[{settings.fqdn}] AlternC : changements du panneau"
        letter.set_content("\n".join(problems) or "Tout est de nouveau appliqué.")
        try:
            subprocess.run(SENDMAIL, input=bytes(letter), capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            problems.append(f"{settings.mail_to} could not be written to: {error}")
            keep()
    fresh.rename(STATE)


def recall() -> dict[str, Any]:
    """Return what the last run found."""
    try:
        state: dict[str, Any] = json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state


def check(settings: Settings) -> list[str]:
    """Return what is wrong: what the last run found, and what keeps runs from coming."""
    state = recall()
    found = list(state.get("problems", []))
    age = time.time() - state.get("ran", 0)
    if not state:
        found.append("alternc-apply has not run yet: `systemctl start alternc-apply`")
    elif age > 3 * settings.seconds + LATE_SECONDS and not busy():
        found.append(f"alternc-apply last ran {age / 60:.0f} minutes ago: see `journalctl -u alternc-apply`")
    found += [
        f"{unit} does not run: `systemctl start {unit}`"
        for unit in OWN_UNITS
        if subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode != 0
    ]
    for flag in panel.FLAGS.glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - flag.stat().st_mtime > LATE_SECONDS and not busy():
                found.append(f"The flag {flag} has been waiting for more than a minute")
    return found


def canary_problems(canary: Mapping[str, float], settings: Settings) -> list[str]:
    """Return what is wrong with the canary: a change of the panel that did not come through."""
    if not settings.canary:
        return []
    sent, came = canary.get("sent", 0), canary.get("seen", 0)
    if not sent:
        return [f"The canary {settings.canary} was never sent: give the member canari that domain"]
    if sent > came:
        ago = (
            f"the last one to come through did so {(sent - came) / 3600:.0f} hours before" if came else "none ever did"
        )
        return [f"The canary {settings.canary} did not come through from the panel to DNS and Apache; {ago}"]
    return []


def resolve(name: str) -> str:
    """Return what this host's name server says of a name's text."""
    asked = ["dig", "+short", "+time=2", "+tries=1", "@127.0.0.1", name, "TXT"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout


def follow(name: str, settings: Settings) -> str:
    """Return where Apache leads who asks for a name."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", settings.http_port, timeout=5)) as connection:
        try:
            if settings.front:
                connection.connect()
                connection.sock.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 80 80\r\n")
            connection.request("GET", "/", headers={"Host": name})
            return connection.getresponse().getheader("Location") or ""
        except (OSError, http.client.HTTPException):
            return ""


def busy() -> bool:
    """Tell whether a run is under way."""
    with RUN_LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def main(words: Sequence[str]) -> int:
    """Do what the first word says; return the status."""
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    options, command = set(words[1:]), (words or [""])[0]
    if command not in ("run", "now", "anew", "check") or options - {"--allow-removal"}:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    settings = Settings(**json.loads(SETTINGS.read_text(encoding="utf-8")))
    if command == "check":
        found = check(settings)
        sys.stdout.write("".join(f"{line}\n" for line in found))
        return int(bool(found))
    with RUN_LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the second finds nothing left to do
        engine = Engine(settings, allow_removal=bool(options))
        try:
            report = engine.run(anew=command == "anew")
        except Exception:
            engine.report.problems.append(f"alternc-apply itself failed: {traceback.format_exc().splitlines()[-1]}")
            remember(engine.report, settings)
            raise
        remember(report, settings)
    sys.stdout.write("".join(f"{line}\n" for line in report.did))
    sys.stderr.write("".join(f"{line}\n" for line in report.problems))
    return int(bool(report.problems) and command != "run")
