# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers to `mailboxes`: the files that Postfix and Dovecot read, written as one transaction."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import mail as model
from . import mail_keys_door as keys
from . import mail_plan as thinking
from . import tree
from .brake import UnsafePlanError
from .mail_records import PARTS, Policy
from .tree_apply import recover
from .tree_disk import Disk
from .tree_memory import TREES, Store
from .tree_model import DIRECTORY, FILE, Entry, Notification, Request, TreeError, Validation, explain
from .tree_read import digest

NAME = "mailboxes"
MAPS = "/etc/postfix/maps"
USERS = "/etc/dovecot/users"
STATE = "/var/lib/infini/mail"
NAMES = {"owner": "root", "postfix": "postfix", "dovecot": "dovecot", "rspamd": "_rspamd"}
"""Who writes our files, and the groups that read them."""
RELOAD = "Reload Postfix"
MOST_SENTENCES = 20


class Host:
    """Where the files of mail stand; tests have another place."""

    def __init__(self, root: str = "", names: Mapping[str, str] = NAMES) -> None:
        self.maps = root + MAPS
        self.users = root + USERS
        self.state = root + STATE
        self.trees = root + TREES
        self.names = names

    @property
    def place(self) -> keys.Place:
        """Where the DKIM keys stand."""
        return keys.Place(Path(self.state), self.names["rspamd"])

    def path(self, name: str) -> str:
        """Return where one of the plan's texts stands."""
        return self.users if name == "users" else f"{self.maps}/{name}"


def answer(
    asked: Mapping[str, Any], said: Mapping[str, Any], today: str, *, check_mode: bool, diff: bool, host: Host
) -> dict[str, Any]:
    """Bring the host's mail to what is said and return a result in Ansible's words."""
    try:
        return _answer(asked, said, today, check_mode=check_mode, diff=diff, host=host)
    except (thinking.MailError, keys.KeysError, UnsafePlanError, TreeError) as problem:
        return {"failed": True, "msg": str(problem)}
    except subprocess.CalledProcessError as problem:
        reason = problem.stderr.decode(errors="replace").strip()
        return {"failed": True, "msg": f"`{' '.join(problem.cmd[:2])}` failed on this host: {reason}"}
    except OSError as problem:
        return {"failed": True, "msg": explain(problem, "the files of mail could not be read or written")}


def _answer(
    asked: Mapping[str, Any], said: Mapping[str, Any], today: str, *, check_mode: bool, diff: bool, host: Host
) -> dict[str, Any]:
    problems = model.problems(said, asked["postmaster"], asked["quota"])
    if problems:
        more = len(problems) - MOST_SENTENCES
        shown = [*problems[:MOST_SENTENCES], *([f"And {more} more like these."] if more > 0 else [])]
        return {"failed": True, "msg": " ".join(shown)}
    if not check_mode:
        _put_back(host)
    settings = thinking.Settings(asked["host"], asked["postmaster"], asked["homes"])
    current = _read(host, Path(asked["homes"]), today)
    declared = model.declared(said, asked["quota"])
    plan = thinking.plan(declared, current, settings, today, asked["confirm_removals"])
    texts = {host.path(name): text.encode() for name, text in plan.texts.items()}
    # `infini-mail step` goes by the domains that Postfix has: it waits until they are written.
    with nullcontext() if check_mode else host.place.lock():
        signed = _sign(asked, {asked["host"], *declared.domains}, check_mode=check_mode, host=host)
        report = _write(_request(host, texts, asked["overwrite"]), texts, check_mode=check_mode, diff=diff, host=host)
    return {
        "changed": bool(report["changed"] or signed.keyless or signed.files),
        "opened": plan.changed(thinking.OPEN),
        "disabled": plan.changed(thinking.DISABLED),
        "shut": plan.changed(thinking.UNDECLARED),
        "undeclared": plan.undeclared(),
        "keys": signed.keyless,
        "notices": model.notices(said, asked["postmaster"]),
        "files": [*(change["path"] for change in report["changes"]), *signed.files],
        "diff": [*_diffs(report, plan, host), *signed.diffs] if diff else [],
    }


@dataclass(frozen=True)
class _Signed:
    """What was, or would be, done for the domains to be signed."""

    keyless: list[str]
    files: list[str]
    diffs: list[dict[str, str]]


def _sign(asked: Mapping[str, Any], domains: Collection[str], *, check_mode: bool, host: Host) -> _Signed:
    """Give a key to each domain that has none; write by which each signs, and what the DNS must say."""
    place = host.place
    before = keys.load(place)
    ring = keys.known(before, domains, asked["selector"], time.time())
    lacking = keys.missing(place, ring, domains)
    if not check_mode:
        keys.make(place, lacking)
        if ring != before:
            keys.save(place, ring)
    made = keys.texts(place, ring, domains, Policy(**{name: asked[name] for name in PARTS}))
    found = keys.stale(made)
    if not check_mode:
        keys.lay(place, made)
    names = {path: {"before_header": str(path), "after_header": str(path)} for path in found}
    diffs = [{**names[path], "before": text, "after": made[path]} for path, text in found.items()]
    return _Signed(sorted(lacking), [str(path) for path in found], diffs)


def _put_back(host: Host) -> None:
    """Undo what a killed run left half done, before its files are read."""
    store = Store(NAME, Disk(), host.trees)
    store.prepare()
    with store.lock():
        recover(store)


def _read(host: Host, homes: Path, today: str) -> thinking.Current:
    """Read our files, and which mailboxes have mail: a new machine knows by it alone those that nobody declares."""
    texts = {}
    for name in ("users", "domains", "aliases"):
        path = Path(host.path(name))
        texts[name] = path.read_text(encoding="utf-8") if path.exists() else ""
    current = thinking.parse(texts)
    stray = {address: thinking.stray(address, today) for address in _with_mail(homes)}
    return replace(current, users={**stray, **current.users})


def _with_mail(homes: Path) -> Iterator[str]:
    for domain in homes.iterdir() if homes.is_dir() else ():
        for home in domain.iterdir() if domain.is_dir() else ():
            address = f"{home.name}@{domain.name}"
            if model.is_address(address):
                yield address


def _request(host: Host, texts: Mapping[str, bytes], overwrite: Sequence[str]) -> Request:
    owner, postfix, dovecot = host.names["owner"], host.names["postfix"], host.names["dovecot"]
    maps = sorted(path for path in texts if path.startswith(f"{host.maps}/"))
    return Request(
        name=NAME,
        entries=(
            Entry(host.maps, DIRECTORY, "", 0o750, owner, postfix),
            *(Entry(path, FILE, digest(texts[path]), 0o640, owner, postfix) for path in maps),
            Entry(host.users, FILE, digest(texts[host.users]), 0o640, owner, dovecot, secret=True),
        ),
        secrets=(host.users,),
        overwrite=tuple(overwrite),
        # Postfix's own reading of the last line: a map cut short, or that it cannot open, has no answer.
        validations=tuple(
            Validation((path,), ("postmap", "-q", _last_key(texts[path]), f"texthash:{path}"))
            for path in maps
            if texts[path]
        ),
        notifications=(Notification(f"{host.maps}/*", (RELOAD,)),),
        run=secrets.token_hex(8),
    )


def _last_key(text: bytes) -> str:
    return text.rstrip().rpartition(b"\n")[2].partition(b" ")[0].decode()


def _write(
    request: Request, texts: Mapping[str, bytes], *, check_mode: bool, diff: bool, host: Host
) -> Mapping[str, Any]:
    report = tree.look(request, check_mode=check_mode, trees=host.trees)
    if report["changed"] and not report.get("interrupted") and (diff or report["refused"] or not check_mode):
        needed = {path: texts[path] for path in report["need"]}
        report = tree.apply(request, needed, check_mode=check_mode, diff=diff, trees=host.trees)
    if RELOAD in report["notify"] and not check_mode:
        _reload()
        tree.confirm([NAME], request.run, host.trees)
    return report


def _reload() -> None:
    """Let Postfix read its maps anew; one that does not run yet reads them when it starts."""
    if subprocess.run(["postfix", "status"], capture_output=True, check=False).returncode == 0:
        subprocess.run(["postfix", "reload"], stdin=subprocess.DEVNULL, capture_output=True, check=True)


def _diffs(report: Mapping[str, Any], plan: thinking.Plan, host: Host) -> list[dict[str, str]]:
    """Return the maps' diffs, and in place of the file with the hashes what changes for whom."""
    own = plan.diff()
    shown = zip(report["changes"], report.get("diff", ()))
    others = [one for change, one in shown if change["path"] != host.users]
    return [*([own] if own["before"] or own["after"] else []), *others]
