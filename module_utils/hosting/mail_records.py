# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the DNS must say of a mail domain, as lines of a zone file, and the keys that its DKIM lines are made of."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

Services = Sequence["tuple[str, int]"]

LONGEST_TEXT = 255
SERVICES = (("submissions", 465), ("submission", 587), ("imaps", 993), ("sieve", 4190))
"""What members' programs ask for, and its ports."""
WEEK = 604800
STS_MODES = ("testing", "enforce", "none")
"""Others report only; they refuse to send without good TLS; a policy that was there goes."""
BITS = "2048"  # what every receiver takes; longer keys do not fit one answer over UDP


@dataclass(frozen=True)
class Policy:
    """What the platform says of its own mail; `{domain}` stands for the domain, `{host}` for the mail server."""

    host: str
    spf: str
    dmarc: str
    ttl: int = 3600
    tls_reports: str = ""
    pages: str = ""  # the host that serves autoconfig, autodiscover and the policy
    sts: str = ""  # the policy of MTA-STS


PARTS = tuple(part.name for part in fields(Policy))


def zone(keys: Mapping[str, Mapping[str, str]], policy: Policy, services: Services = SERVICES) -> str:
    """Return the lines of all domains, from their public keys in base64 by name and selector."""
    return "".join(f"{line}\n" for domain in sorted(keys) for line in records(domain, keys[domain], policy, services))


def records(domain: str, keys: Mapping[str, str], policy: Policy, services: Services = SERVICES) -> Iterator[str]:
    """Return the lines of one domain; names are whole, so that they can stand in any zone."""
    yield f"; {domain}"
    # The host's own name, too: what is forwarded leaves under it, and `mx` in its SPF means an MX record only.
    yield f"{domain}. {policy.ttl} MX 10 {policy.host}."
    if domain != policy.host:
        for service, port in services:
            yield f"_{service}._tcp.{domain}. {policy.ttl} SRV 0 1 {port} {policy.host}."
        if policy.pages:
            for name in page_names(domain, policy.sts):
                yield f"{name}. {policy.ttl} CNAME {policy.pages}."
    for name, text in (
        (domain, policy.spf),
        *((key_name(domain, selector), key_text(key)) for selector, key in sorted(keys.items())),
        (f"_dmarc.{domain}", policy.dmarc),
        (f"_smtp._tls.{domain}", policy.tls_reports),
        (f"_mta-sts.{domain}", f"v=STSv1; id={_digest(policy.sts)}" if _has_policy(domain, policy) else ""),
    ):
        if text:
            said = text.replace("{domain}", domain).replace("{host}", policy.host)
            yield f"{name}. {policy.ttl} TXT {_quoted(said)}"


def page_names(domain: str, sts: str) -> list[str]:
    """Return the host names by which a domain's pages are asked for."""
    return [f"{page}.{domain}" for page in ("autoconfig", "autodiscover", *(["mta-sts"] if sts else []))]


def page_sites(domains: Iterable[str], sts: str) -> list[dict[str, Any]]:
    """Return the pages of mail domains as sites: the names of each on one certificate."""
    return [{"name": first, "aliases": others} for first, *others in (page_names(domain, sts) for domain in domains)]


def sts_policy(host: str, said: Mapping[str, Any]) -> str:
    """Return the policy by which other mail servers insist on TLS with ours (RFC 8461), empty where nothing is said."""
    if not said:
        return ""
    mode, seconds = said.get("mode"), said.get("seconds", WEEK)
    if mode not in STS_MODES or not isinstance(seconds, int) or not 0 < seconds <= 52 * WEEK:
        raise ValueError(
            f"MTA-STS cannot be {dict(said)}: write a mode ({', '.join(STS_MODES)}), and seconds up to a year"
        )
    return f"version: STSv1\nmode: {mode}\nmx: {host}\nmax_age: {seconds}\n"


def _has_policy(domain: str, policy: Policy) -> bool:
    return bool(policy.sts and policy.pages) and domain != policy.host


def _digest(text: str) -> str:
    """Return a name for a text that changes with it, as long as an id may be."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def key_name(domain: str, selector: str) -> str:
    """Return where the DNS shows a key."""
    return f"{selector}._domainkey.{domain}"


def key_text(key: str) -> str:
    """Return what it shows of it."""
    return f"v=DKIM1; k=rsa; p={key}"


def read_keys(folder: Path, domains: Iterable[str], selector: str) -> dict[str, str]:
    """Return the public keys that are there, by domain."""
    found = {}
    for domain in domains:
        private, public = _paths(folder, domain, selector)
        if private.exists() and public.exists():
            found[domain] = public.read_text(encoding="ascii").strip()
    return found


def make_keys(folder: Path, domains: Iterable[str], selector: str, group: int) -> None:
    """Make the keys of these domains; one that was half made by a killed run is completed."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as workers:
        list(workers.map(lambda domain: _make_key(folder, domain, selector, group), domains))


def remove_key(folder: Path, domain: str, selector: str) -> None:
    """Delete a key, if it is there."""
    for path in _paths(folder, domain, selector):
        path.unlink(missing_ok=True)


def _make_key(folder: Path, domain: str, selector: str, group: int) -> None:
    private, public = _paths(folder, domain, selector)
    if not private.exists():
        write(private, _openssl("genrsa", BITS), 0o640, group)
    text = base64.b64encode(_openssl("rsa", "-in", str(private), "-pubout", "-outform", "DER"))
    write(public, text, 0o644, group)


def _paths(folder: Path, domain: str, selector: str) -> tuple[Path, Path]:
    return folder / f"{domain}.{selector}.key", folder / f"{domain}.{selector}.pub"


def write(path: Path, content: bytes, mode: int, group: int) -> None:
    """Write a file in one instant; nobody reads it before it is whole and its owner's."""
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, mode)
        file.flush()
        os.fsync(descriptor)
    staged.rename(path)


def _openssl(*words: str) -> bytes:
    return subprocess.run(["openssl", *words], stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout


def _quoted(text: str) -> str:
    parts = [text[start : start + LONGEST_TEXT] for start in range(0, len(text), LONGEST_TEXT)]
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in parts)
