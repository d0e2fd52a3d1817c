# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `infini-mail` does with keys on a host: `keys` says where they stand, `rotate` begins, `step` goes on.

Status 0 fine, 1 findings, 2 refused, 4 failed.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import mail_keys as thinking
from . import mail_keys_door as door
from . import mail_queue
from . import mail_records as dns
from .mail_keys import DAY, Key, Sight

CONFIG = Path("/etc/infini-mail/keys.json")
DOMAINS = Path("/etc/postfix/maps/domains")
STATE = Path("/var/lib/infini/mail")
GROUP = "_rspamd"
RSPAMD = "rspamd.service"
LATE = 7
"""Days after which a key that does not go on is a finding."""

Look = Callable[[str, str], Sight]
"""Asks the DNS for a key: its full name and what must stand there."""


class Host:
    """A mail host: its keys, its domains and what the platform says of them."""

    def __init__(self, place: door.Place, look: Look, said: dict[str, Any], domains: Sequence[str]) -> None:
        self.place, self.look, self.domains = place, look, domains
        self.policy = dns.Policy(**said["policy"])
        self.selector, self.days = str(said["selector"]), float(said["days"])
        self.ring = door.load(place)

    def lines(self) -> list[str]:
        """Return a line for each key, and raise where one that is needed is not there."""
        self._refuse_missing()
        return [f"{domain}: {key.words()}" for domain in self.domains for key in self.ring[domain]]

    def late(self, now: float) -> list[str]:
        """Say which keys do not go on, and why."""
        return [
            f"{domain}: {key.words()}. What the DNS must show: infini-mail records {domain}"
            for domain in self.domains
            for key in self.ring[domain]
            if key.reason and now > key.since + LATE * DAY + (self.days * DAY if key.state == thinking.KEPT else 0)
        ]

    def rotate(self, domains: Sequence[str], now: float) -> list[str]:
        """Begin with a new key for each domain; say what is new."""
        self._refuse_missing()
        said = []
        for domain in domains:
            before = self.ring[domain]
            self.ring[domain] = thinking.begin(before, self.selector, now)
            new = self.ring[domain][-1]
            fate = "is under way already" if self.ring[domain] == before else "is made: publish it"
            said.append(f"{domain}: {new.selector} {fate} (infini-mail records {domain})")
        # Keys before the word of them: half a run leaves files that the next one takes.
        door.make(self.place, door.missing(self.place, self.ring, domains))
        door.save(self.place, self.ring)
        self._lay()
        return said

    def step(self, now: float) -> list[str]:
        """Take each domain one step further, where it is time; say what has changed."""
        self._refuse_missing()
        before = {domain: self.ring[domain] for domain in self.domains}
        with ThreadPoolExecutor(max_workers=16) as workers:
            after = dict(zip(before, workers.map(functools.partial(self._further, now), before)))
        if any(thinking.signing(after[domain]) != thinking.signing(before[domain]) for domain in before):
            self._sign_by({**self.ring, **after})
        # Only now, for what is written down is what has been done.
        self.ring.update(after)
        if after != before:
            door.save(self.place, self.ring)
        self._lay()
        door.sweep(self.place, self.ring)
        return [f"{domain}: {key.words()}" for domain in before for key in after[domain] if _moved(key, before[domain])]

    def _further(self, now: float, domain: str) -> tuple[Key, ...]:
        look = functools.partial(self._look, domain)
        return thinking.step(self.ring[domain], look, now, self.days, lambda: self._oldest)

    @functools.cached_property
    def _oldest(self) -> float:
        """When the oldest message came that waits in Postfix's queue, now where none does."""
        done = subprocess.run(["postqueue", "-j"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        arrivals = [float(one["arrival_time"]) for one in mail_queue.messages(done.stdout.splitlines())]
        return min(arrivals, default=time.time())

    def _look(self, domain: str, selector: str) -> Sight:
        key = dns.read_keys(self.place.folder, [domain], selector).get(domain, "")  # none of one that is withdrawn
        return self.look(dns.key_name(domain, selector), dns.key_text(key) if key else "")

    def _sign_by(self, ring: door.Ring) -> None:
        """Let Rspamd sign by other keys; one that does not run reads them when it starts."""
        texts = door.texts(self.place, ring, self.domains, self.policy)
        door.lay(self.place, {self.place.map: texts[self.place.map]})
        if subprocess.run(["systemctl", "is-active", "--quiet", RSPAMD], check=False).returncode == 0:
            subprocess.run(["systemctl", "reload", RSPAMD], stdin=subprocess.DEVNULL, capture_output=True, check=True)

    def _lay(self) -> None:
        door.lay(self.place, door.texts(self.place, self.ring, self.domains, self.policy))

    def _refuse_missing(self) -> None:
        unknown = [domain for domain in self.domains if domain not in self.ring]
        lacking = {**dict.fromkeys(unknown), **door.missing(self.place, self.ring, set(self.domains) - set(unknown))}
        for domain in sorted(lacking):
            raise door.KeysError(
                f"Mail of {domain} is not signed, for its key is not here: restore /var/lib/infini/mail, "
                "or apply for a new one"
            )


def _moved(key: Key, before: Sequence[Key]) -> bool:
    return (key.selector, key.state) not in {(one.selector, one.state) for one in before}


def main(words: Sequence[str], look: Callable[[Sequence[str]], Look]) -> int:
    """Read the words, do it, say what is there; `look` asks the name servers that it is given."""
    parser = argparse.ArgumentParser(prog="infini-mail", description="The keys by which mail is signed.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="keys|rotate|step")
    actions.add_parser("keys", help="say where the keys of each domain stand")
    rotate = actions.add_parser("rotate", help="begin with a new key")
    rotate.add_argument("domains", nargs="*", metavar="DOMAIN")
    rotate.add_argument("--all", action="store_true", help="for each domain")
    actions.add_parser("step", help="go on where it is time, as mail-keys.timer does")
    options = parser.parse_args(words)
    try:
        return _do(options, look)
    except door.KeysError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1 if options.action == "keys" else 4
    except subprocess.CalledProcessError as problem:
        said = problem.stderr.decode(errors="replace") if isinstance(problem.stderr, bytes) else problem.stderr
        sys.stderr.write(f"`{' '.join(problem.cmd)}` failed: {(said or '').strip()}\n")
    except OSError as problem:
        sys.stderr.write(f"{problem}\n")
    return 4


def _do(options: argparse.Namespace, look: Callable[[Sequence[str]], Look]) -> int:
    said = json.loads(CONFIG.read_text(encoding="utf-8"))
    place = door.Place(STATE, GROUP)
    domains = sorted(line.split()[0] for line in DOMAINS.read_text(encoding="utf-8").splitlines())
    now = time.time()
    if options.action == "keys":
        host = Host(place, look(said["nameservers"]), said, domains)
        lines, late = host.lines(), host.late(now)
        sys.stdout.write("".join(f"{line}\n" for line in late or lines))
        return 1 if late else 0
    with place.lock():
        host = Host(place, look(said["nameservers"]), said, domains)
        if options.action == "step":
            sys.stdout.write("".join(f"{line}\n" for line in host.step(now)))
            return 0
        wrong = [domain for domain in options.domains if domain not in domains]
        if wrong or bool(options.domains) == options.all:
            sys.stderr.write(
                f"No mail is received here for {', '.join(wrong)}: name domains of `infini-mail keys`.\n"
                if wrong
                else "Name the domains, or --all.\n"
            )
            return 2
        sys.stdout.write("".join(f"{line}\n" for line in host.rotate(options.domains or domains, now)))
        return 0
