# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `infini-mail-panel` on a host where AlternC owns mail.

`join` adds our settings and entries to its Postfix, `step_back` takes the entries out for alternc.install, which calls
both by a hook; `leave` takes out all that is ours. `follow` looks at AlternC's domains: their keys, whose they are, and
what their DNS must say. Status 0 fine, 1 what AlternC has is not as it must be, 2 other words, 4 failed.
"""

from __future__ import annotations

import fcntl
import grp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import mail_records as dns
from .brake import UnsafePlanError, refuse_mass_removal
from .mail_panel import accounts, domains, joined, remembered, settings, with_entries, without_entries

READS = {"domaines": "", "mailbox": "", "recipient": "", "address": "id, domain_id, address, enabled"}
"""What Postfix may read of AlternC's database: no password."""
DOMAINS = """SELECT d.domaine, m.login, d.gesmx FROM domaines d JOIN membres m ON m.uid = d.compte
WHERE d.dns_action <> 'DELETE'"""
GRANTED = """SELECT table_name, '' FROM information_schema.table_privileges
WHERE table_schema = 'alternc' AND grantee = '''postfix''@''localhost'''
UNION SELECT table_name, column_name FROM information_schema.column_privileges
WHERE table_schema = 'alternc' AND grantee = '''postfix''@''localhost'''"""
ADMINISTRATOR = "SELECT COUNT(*) FROM membres WHERE uid = 2000"


class PanelError(Exception):
    """AlternC is not here, or not as it must be; the message says what mends it."""


class Host:
    """Where everything stands; tests have another place."""

    def __init__(self, root: str = "") -> None:
        self.root = root
        self.ours = Path(f"{root}/etc/infini-mail")
        self.postfix = Path(f"{root}/etc/postfix")
        self.theirs = Path(f"{root}/etc/alternc/postfix/postfix.cf")
        self.their_keys = Path(f"{root}/etc/opendkim/keys")
        self.state = Path(f"{root}/var/lib/infini/mail")
        self.jobs_lock = Path(f"{root}/run/alternc/jobs-lock")
        self.lock = Path(f"{root}/run/infini-mail-panel.lock")

    @property
    def keys(self) -> Path:
        """The folder of the keys that Rspamd signs with."""
        return self.state / "dkim"

    @property
    def memory(self) -> Path:
        """What our settings were before they were ours."""
        return self.state / "panel.json"

    @property
    def untouched(self) -> Path:
        """AlternC's master.cf, with the time at which it wrote it: it looks at both."""
        return self.state / "master.cf.alternc"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for any other run."""
        with self.lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def join(host: Host, *, check: bool = False, leave: bool = False) -> list[dict[str, str]]:
    """Add what is ours to AlternC's Postfix, or take it out; return the files that change, as Ansible shows them."""
    ours, entries = ("", "") if leave else (_read(host.ours / "main.cf"), _read(host.ours / "master.cf"))
    main, master = host.postfix / "main.cf", host.postfix / "master.cf"
    if not host.theirs.exists() or not main.exists():
        raise PanelError("AlternC has not configured Postfix on this host: apply the panel first")
    wanted, before = settings(ours), json.loads(_read(host.memory) or "{}")
    texts = {
        main: joined(_read(main), wanted, settings(_read(host.theirs)), before),
        master: with_entries(_read(master), entries),
    }
    old = {path: _read(path) for path in texts}
    changed = {path: text for path, text in texts.items() if text != old[path]}
    if changed:
        _judge(old, texts)
    if not check:
        if without_entries(old[master]) == old[master]:
            shutil.copy2(master, host.untouched)
        for path, text in changed.items():
            _replace(path, text, 0o644)
        memory = remembered(old[main], wanted, before)
        if memory != before:
            _replace(host.memory, json.dumps(memory) + "\n", 0o644)
    return [_diff(path, old[path], text) for path, text in changed.items()]


def step_back(host: Host) -> None:
    """Let master.cf be as AlternC left it; what somebody else wrote there it is to see."""
    master = host.postfix / "master.cf"
    if not master.exists():
        return
    text = master.read_text(encoding="utf-8")
    own = without_entries(text)
    if own == text:
        return
    _replace(master, own, 0o644)
    if _read(host.untouched) == own:
        shutil.copystat(host.untouched, master)


def follow(host: Host, *, check: bool = False) -> dict[str, Any]:
    """Bring keys, records and accounts to what AlternC's database says; return what changes."""
    said = json.loads((host.ours / "panel.json").read_text(encoding="utf-8"))
    if _ask(ADMINISTRATOR) != ["1"]:
        raise PanelError(
            "AlternC's database has no administrator (member 2000): is it the right one? Nothing was touched"
        )
    policy, selector = dns.Policy(**said["policy"]), said["selector"]
    found = domains(_ask(DOMAINS))
    signed = [*(one.name for one in found if one.mail), policy.host]
    changes = [*_grant(check=check), *_mirror(host, signed, selector, check=check)]
    keyless = sorted(set(signed) - set(dns.read_keys(host.keys, signed, selector)))
    made = [name for name in keyless if not (host.keys / f"{name}.{selector}.key").exists()]
    gone, doubt = _gone(host, [policy.host, *(one.name for one in found)], selector)
    if not check:
        dns.make_keys(host.keys, keyless, selector, grp.getgrnam("_rspamd").gr_gid)
        for path in gone:
            path.unlink()
    keys = {name: {selector: key} for name, key in dns.read_keys(host.keys, signed, selector).items()}
    texts = {
        "accounts": accounts(found),
        "domains": "".join(f"{name}\n" for name in signed),
        "records.zone": dns.zone(keys, policy),
    }
    changed = {name: text for name, text in texts.items() if text != _read(host.state / name)}
    diff = [_diff(host.state / name, _read(host.state / name), text) for name, text in changed.items()]
    if not check:
        for name, text in changed.items():
            _replace(host.state / name, text, 0o644)
    words = [*changes, *(f"a key for {name}" for name in made), *(f"no more {path.name}" for path in gone)]
    return {"changed": bool(words or changed), "words": [*words, *([doubt] if doubt else [])], "diff": diff}


def _grant(*, check: bool) -> list[str]:
    """Let Postfix read what its maps ask for, as whoever the kernel says that it is."""
    wanted = {(table, column) for table, columns in READS.items() for column in columns.split(", ")}
    had = {(table, column) for table, _, column in (row.partition("\t") for row in _ask(GRANTED))}
    if wanted <= had:
        return []
    if not check:
        _ask(
            "CREATE USER IF NOT EXISTS postfix@localhost IDENTIFIED VIA unix_socket;"
            + "".join(
                f"GRANT SELECT{f' ({columns})' if columns else ''} ON alternc.{table} TO postfix@localhost;"
                for table, columns in READS.items()
            )
        )
    return ["Postfix reads AlternC's addresses"]


def _mirror(host: Host, signed: Sequence[str], selector: str, *, check: bool) -> list[str]:
    """Copy the keys that AlternC's zones publish to where Rspamd reads them; AlternC's are for its own daemon only."""
    words = []
    for name in signed:
        theirs, private = host.their_keys / name / "alternc.private", host.keys / f"{name}.{selector}.key"
        text = _read(theirs)
        if text and text != _read(private):
            words.append(f"the key of {name} is AlternC's")
            if not check:
                host.keys.mkdir(parents=True, exist_ok=True)
                _replace(private, text, 0o640, grp.getgrnam("_rspamd").gr_gid)
                private.with_suffix(".pub").unlink(missing_ok=True)
    return words


def _gone(host: Host, known: Sequence[str], selector: str) -> tuple[list[Path], str]:
    """Return the keys of domains that AlternC does not know any more: whoever has those now may not be signed for."""
    ours = sorted(host.keys.glob(f"*.{selector}.key"))
    left = [path for path in ours if path.name[: -len(f".{selector}.key")] not in known]
    try:
        refuse_mass_removal([path.name for path in left], len(ours), [], "keys of domains", "removed")
    except UnsafePlanError as problem:
        return [], str(problem)
    return [*left, *(path.with_suffix(".pub") for path in left if path.with_suffix(".pub").exists())], ""


def _judge(before: Mapping[Path, str], after: Mapping[Path, str]) -> None:
    """Refuse what Postfix would only warn of, such as an unknown setting; what AlternC itself says is its matter."""
    known = _warnings(before)
    new = [line for line in _warnings(after) if line not in known]
    if new:
        raise PanelError(f"Postfix would not take its new settings: {'; '.join(new)}")


def _warnings(texts: Mapping[Path, str]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        for path, text in texts.items():
            Path(folder, path.name).write_text(text, encoding="utf-8")
        done = [
            subprocess.run(["postconf", "-c", folder, option], capture_output=True, text=True, check=False)
            for option in ("-n", "-M", "-P")
        ]
    return [line.replace(folder, "/etc/postfix") for one in done for line in one.stderr.splitlines()]


def reload() -> None:
    """Let Postfix read its settings, if it runs."""
    if subprocess.run(["postfix", "status"], capture_output=True, check=False).returncode == 0:
        subprocess.run(["postfix", "reload"], stdin=subprocess.DEVNULL, capture_output=True, check=True)


def run(host: Host, *, check: bool = False) -> dict[str, Any]:
    """Join and follow; return what changes."""
    if check and not (host.ours / "panel.json").exists():
        return {"changed": True, "words": ["AlternC's mail is joined"], "diff": []}
    with host.alone():
        followed = follow(host, check=check)
        diff = join(host, check=check)
        if diff and not check:
            reload()
    changed = bool(followed["changed"] or diff)
    return {"changed": changed, "words": followed["words"], "diff": [*followed["diff"], *diff]}


def _ask(statement: str) -> list[str]:
    line = ["mariadb", "--batch", "--skip-column-names", "alternc"]
    done = subprocess.run(line, input=statement, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PanelError(f"AlternC's database does not answer ({done.stderr.strip()}): nothing was touched")
    return done.stdout.splitlines()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _replace(path: Path, text: str, mode: int, group: int = -1) -> None:
    """Write a file in one instant; nobody reads it before it is whole."""
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(path)


def _diff(path: Path, before: str, after: str) -> dict[str, str]:
    return {"before_header": str(path), "after_header": str(path), "before": before, "after": after}


def main(words: Sequence[str], host: Host | None = None) -> int:
    """Run the command and return its exit status."""
    host = host or Host()
    try:
        if list(words) == ["follow"]:
            if host.jobs_lock.exists():
                return 0  # alternc.install is at work, and calls us itself
            for change in run(host)["words"]:
                _say(change)
        elif list(words) == ["join"]:
            with host.alone():
                join(host)
        elif list(words) == ["leave"]:
            with host.alone():
                step_back(host)
                join(host, leave=True)
        elif list(words) == ["step_back"]:
            with host.alone():
                step_back(host)
        else:
            _say("Usage: infini-mail-panel follow | join | step_back | leave")
            return 2
    except (PanelError, UnsafePlanError) as problem:
        _say(str(problem))
        return 1
    except (OSError, subprocess.CalledProcessError) as problem:
        _say(f"The mail of AlternC could not be followed: {problem}")
        return 4
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
