# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a mail host on its disk: what each is for, the files, what Rspamd signs by and what the DNS must say.

`keys.json` is the truth. What follows from it (the files of the keys, Rspamd's map, the records) is made good at each
run, so that one that was killed anywhere is gone on with by the next.
"""

from __future__ import annotations

import fcntl
import grp
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import mail_keys as thinking
from . import mail_records as dns
from .mail_keys import Key

Ring = Mapping[str, "tuple[Key, ...]"]
"""Each domain's keys."""


class KeysError(Exception):
    """The keys of this host are not as we left them; the message says what mends it."""


@dataclass(frozen=True)
class Place:
    """Where the keys stand, and the group that signs by them."""

    state: Path
    signer: str

    @property
    def group(self) -> int:
        """The number of that group."""
        return grp.getgrnam(self.signer).gr_gid

    @property
    def folder(self) -> Path:
        """The folder of the keys themselves."""
        return self.state / "dkim"

    @property
    def ring(self) -> Path:
        """The file that says what each key is for."""
        return self.state / "keys.json"

    @property
    def map(self) -> Path:
        """The file by which Rspamd knows which key of a domain signs."""
        return self.folder / "selectors.map"

    @property
    def records(self) -> Path:
        """The file of what the DNS must say."""
        return self.state / "records.zone"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let nobody else change anything meanwhile; the kernel forgets the lock of who was killed."""
        with (self.state / "keys.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def load(place: Place) -> dict[str, tuple[Key, ...]]:
    """Return what the host knows of its keys."""
    if not place.ring.exists():
        return {}
    try:
        said: dict[str, Any] = json.loads(place.ring.read_text(encoding="utf-8"))
        return {domain: tuple(Key(**key) for key in keys) for domain, keys in said.items()}
    except (ValueError, TypeError, AttributeError) as problem:
        raise KeysError(
            f"{place.ring} cannot be read ({problem}): restore /var/lib/infini/mail from the backup"
        ) from None


def save(place: Place, ring: Ring) -> None:
    """Write down what each key is for, in one instant."""
    said = {domain: [asdict(key) for key in keys] for domain, keys in sorted(ring.items())}
    dns.write(place.ring, (json.dumps(said, indent=1) + "\n").encode(), 0o644, place.group)


def known(ring: Ring, domains: Collection[str], selector: str, now: float) -> dict[str, tuple[Key, ...]]:
    """Return the keys of all domains; one that has none yet is to sign by its first."""
    new = {domain: thinking.first(selector, now) for domain in domains if domain not in ring}
    return {**ring, **new}


def missing(place: Place, ring: Ring, domains: Collection[str]) -> dict[str, list[str]]:
    """Return the selectors whose key is not there, by domain."""
    wanted = {domain: thinking.published(ring[domain]) for domain in sorted(domains)}
    found = {
        domain: [one for one in selectors if not dns.read_keys(place.folder, [domain], one)]
        for domain, selectors in wanted.items()
    }
    return {domain: selectors for domain, selectors in found.items() if selectors}


def make(place: Place, lacking: Mapping[str, Collection[str]]) -> None:
    """Make these keys."""
    for selector in sorted({one for selectors in lacking.values() for one in selectors}):
        domains = [domain for domain, selectors in lacking.items() if selector in selectors]
        dns.make_keys(place.folder, domains, selector, place.group)


def texts(place: Place, ring: Ring, domains: Collection[str], policy: dns.Policy) -> dict[Path, str]:
    """Return what follows from the keys: Rspamd's map and the records."""
    keys = {
        domain: {
            selector: key
            for selector in thinking.published(ring[domain])
            for key in dns.read_keys(place.folder, [domain], selector).values()
        }
        for domain in domains
    }
    lines = (f"{domain} {thinking.signing(ring[domain])}\n" for domain in sorted(domains))
    return {
        place.map: "".join(lines),
        place.records: dns.zone({domain: own for domain, own in keys.items() if own}, policy),
    }


def stale(made: Mapping[Path, str]) -> dict[Path, str]:
    """Return what the disk has of these files where it differs, empty for nothing."""
    found = {path: path.read_text(encoding="utf-8") if path.exists() else "" for path in made}
    return {path: text for path, text in found.items() if text != made[path]}


def lay(place: Place, made: Mapping[Path, str]) -> None:
    """Write the files that differ."""
    for path in stale(made):
        dns.write(path, made[path].encode(), 0o640 if path == place.map else 0o644, place.group)


def sweep(place: Place, ring: Ring) -> None:
    """Delete the keys that nothing is to be signed or verified by any more."""
    for domain, keys in ring.items():
        for key in keys:
            if key.state == thinking.WITHDRAWN:
                dns.remove_key(place.folder, domain, key.selector)
