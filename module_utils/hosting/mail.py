# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains, mailboxes, aliases and catch-alls: what may be said of them.

`problems` judges the whole and answers in sentences, `notices` says what works but not as somebody hoped; everything
else takes a declaration without problems. No host, no Ansible.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Entry = Mapping[str, Any]

KINDS = {"domains": "name", "mailboxes": "address", "aliases": "address", "catch_alls": "domain"}
"""The lists of a declaration, and the key by which an entry of each is known."""
ROLES = ("abuse", "postmaster")
"""Addresses that every domain must have (RFC 2142); they lead to our own postmaster unless somebody declares them."""
MOST_TARGETS = 1000
"""Postfix defers what an alias would send to more (virtual_alias_expansion_limit)."""

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_TOP_LABEL = re.compile(r"(?:[a-z]{2,63}|xn--[a-z0-9-]{1,59})")
# No `+`: what follows one is for the owner to choose.
_LOCAL = re.compile(r"[a-z0-9](?:[a-z0-9_-]|\.(?!\.|$)){0,63}")
_FOREIGN_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+=?^_{}~][A-Za-z0-9!#$%&'*+=?^_{}~./-]{0,63}")
_QUOTA = re.compile(r"0|[1-9][0-9]{0,8}[KMGT]")
_SCHEME = re.compile(r"\{([A-Za-z0-9.-]+)\}(.*)", re.DOTALL)
_CRYPT64 = "[./0-9A-Za-z]"
_STRONG = {
    "SHA512-CRYPT": re.compile(rf"\$6\$(?:rounds=[1-9][0-9]{{3,8}}\$)?{_CRYPT64}{{1,16}}\${_CRYPT64}{{86}}"),
    "SHA256-CRYPT": re.compile(rf"\$5\$(?:rounds=[1-9][0-9]{{3,8}}\$)?{_CRYPT64}{{1,16}}\${_CRYPT64}{{43}}"),
    "BLF-CRYPT": re.compile(rf"\$2[aby]\$[0-9]{{2}}\${_CRYPT64}{{53}}"),
    "ARGON2ID": re.compile(r"\$argon2id\$v=[0-9]+\$m=[0-9]+,t=[0-9]+,p=[0-9]+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+"),
}
_YESCRYPT = re.compile(rf"\$g?y\${_CRYPT64}+\${_CRYPT64}{{1,86}}\${_CRYPT64}{{43}}")
_WEAK_MARKS = {"$1$": "MD5-CRYPT", "$md5": "MD5", "$sha1$": "SHA1"}


@dataclass(frozen=True)
class Mailbox:
    """One mailbox that is declared."""

    address: str
    password: str = field(default="", repr=False)  # scheme and hash, as Dovecot reads them
    quota: int = 0  # bytes, 0 for no limit
    enabled: bool = True


@dataclass(frozen=True)
class Mail:
    """A declaration without problems."""

    domains: tuple[str, ...]
    mailboxes: Mapping[str, Mailbox]
    aliases: Mapping[str, tuple[str, ...]]
    catch_alls: Mapping[str, tuple[str, ...]]


def declared(said: Mapping[str, Sequence[Entry]], default_quota: str = "0") -> Mail:
    """Return what a declaration without problems says."""
    return Mail(
        domains=tuple(sorted(entry["name"] for entry in said["domains"])),
        mailboxes={
            entry["address"]: Mailbox(
                address=entry["address"],
                password=strong_hash(entry.get("password_hash") or ""),
                quota=quota_bytes(str(_or(entry.get("quota"), default_quota))),
                enabled=_or(entry.get("enabled"), True),
            )
            for entry in said["mailboxes"]
        },
        aliases={entry["address"]: _lowered(entry["to"]) for entry in said["aliases"]},
        catch_alls={entry["domain"]: _lowered(entry["to"]) for entry in said["catch_alls"]},
    )


def problems(said: Mapping[str, Any], postmaster: str = "", default_quota: str = "0") -> list[str]:
    """Return one sentence for each thing that cannot work; the postmaster gets what every domain must take."""
    shapes = list(_shapes(said))
    if shapes:
        return shapes
    domains = [entry["name"] for entry in said["domains"]]
    known = Known(said, postmaster)
    found = [
        *_quota("Mail", default_quota),
        *_doubles(said),
        *_domains(domains),
        *_postmaster(postmaster, known),
        *(sentence for entry in said["mailboxes"] for sentence in _mailbox(entry, known)),
        *(sentence for entry in said["aliases"] for sentence in _alias(entry, known)),
        *(sentence for entry in said["catch_alls"] for sentence in _catch_all(entry, known)),
    ]
    return found or list(_circles(known))


def notices(said: Mapping[str, Sequence[Entry]], postmaster: str = "") -> list[str]:
    """Return one sentence for each alias or catch-all that leads to an address of ours which does not exist."""
    known = Known(said, postmaster)
    return [
        f"{what} leads to {target}, which does not exist on our domain {target.rpartition('@')[2]}: "
        "its mail comes back, unless a list has that address."
        for what, targets in (
            *((f"The alias {address}", targets) for address, targets in known.aliases.items()),
            *((f"The catch-all of {domain}", targets) for domain, targets in known.catch_alls.items()),
        )
        for target in targets
        if known.is_ours(target) and not known.leads_somewhere(target)
    ]


class Known:
    """A declaration, by address; with a postmaster, the addresses that every domain has are aliases of it."""

    def __init__(self, said: Mapping[str, Sequence[Entry]], postmaster: str = "") -> None:
        self.domains = {entry["name"] for entry in said["domains"]}
        self.mailboxes = {entry["address"] for entry in said["mailboxes"]}
        made = {f"{role}@{domain}" for domain in self.domains for role in ROLES if postmaster}
        self.aliases = {
            **dict.fromkeys(sorted(made - self.mailboxes - {postmaster}), (postmaster,)),
            **{entry["address"]: _lowered(entry["to"]) for entry in said["aliases"]},
        }
        self.catch_alls = {entry["domain"]: _lowered(entry["to"]) for entry in said["catch_alls"]}

    def is_ours(self, address: str) -> bool:
        """Tell whether an address is on a declared domain."""
        return address.rpartition("@")[2] in self.domains

    def exists(self, address: str) -> bool:
        """Tell whether somebody declared this very address; what follows a `+` is its owner's."""
        plain = without_extension(address)
        return any(one in self.mailboxes or one in self.aliases for one in (address, plain))

    def leads_somewhere(self, address: str) -> bool:
        """Tell whether mail to an address of ours is taken."""
        return self.exists(address) or address.rpartition("@")[2] in self.catch_alls

    def next(self, address: str) -> Sequence[str]:
        """Return where an address leads, nothing where it ends."""
        plain = without_extension(address)
        if plain in self.aliases:
            return self.aliases[plain]
        if plain in self.mailboxes:
            return ()
        return self.catch_alls.get(address.rpartition("@")[2], ())


def without_extension(address: str) -> str:
    """Return an address without what its owner put behind a `+`."""
    local, _, domain = address.rpartition("@")
    return f"{local.partition('+')[0]}@{domain}"


def quota_bytes(quota: str) -> int:
    """Return what a quota means in bytes."""
    number = quota.rstrip("KMGT")
    return int(number) << 10 * " KMGT".index(quota[len(number) :] or " ")


def strong_hash(said: str) -> str:
    """Return a hash with the scheme that Dovecot knows it by, empty for none; raise ValueError with the reason."""
    if not said:
        return ""
    found = _SCHEME.fullmatch(said)
    scheme, text = (found[1].upper(), found[2]) if found else ("", said)
    if scheme in ("", "CRYPT"):
        scheme = next((name for name, shape in _STRONG.items() if shape.fullmatch(text)), scheme)
        if _YESCRYPT.fullmatch(text):
            return f"{{CRYPT}}{text}"
    if scheme in _STRONG:
        if _STRONG[scheme].fullmatch(text):
            return f"{{{scheme}}}{text}"
        raise ValueError(f"is not what {scheme} makes")
    weak = scheme or next((name for mark, name in _WEAK_MARKS.items() if text.startswith(mark)), "")
    raise ValueError(f"is of a kind that is too weak or that we do not know ({weak})" if weak else "is not a hash")


def full_name(name: str) -> bool:
    """Tell whether a name can be a domain."""
    labels = name.split(".")
    valid = len(labels) > 1 and all(_LABEL.fullmatch(label) for label in labels) and len(name) <= 253
    return valid and bool(_TOP_LABEL.fullmatch(labels[-1]))


def is_address(address: str, *, foreign: bool = False) -> bool:
    """Tell whether an address can be one of ours, or somebody's anywhere."""
    local, _, domain = address.rpartition("@")
    shape = _FOREIGN_LOCAL if foreign else _LOCAL
    return bool(shape.fullmatch(local)) and full_name(domain)


def _lowered(targets: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(target.lower() for target in targets))


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _shapes(said: Mapping[str, Any]) -> Iterator[str]:
    """Judge what comes from a file, which no contract of a variable has seen."""
    for kind in sorted(set(said) - set(KINDS)):
        yield f"{kind} is not a part of the mail's data: there are {', '.join(KINDS)}."
    for kind, key in KINDS.items():
        entries = said.get(kind)
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            yield f"{kind} of the mail's data is not a list: write one, or []."
            continue
        for number, entry in enumerate(entries, 1):
            if not isinstance(entry, Mapping) or not isinstance(entry.get(key), str):
                yield f"Entry {number} of {kind} has no {key}: say it."
            elif kind in ("aliases", "catch_alls") and not _is_texts(entry.get("to")):
                yield f"Entry {number} of {kind}, {entry[key]}, has no list `to`: say where its mail goes."


def _is_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value)


def _doubles(said: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    words = {"domains": "domain", "mailboxes": "mailbox", "aliases": "alias", "catch_alls": "catch-all of"}
    for kind, key in KINDS.items():
        for name, count in Counter(entry[key] for entry in said[kind]).items():
            if count > 1:
                yield f"The {words[kind]} {name} is declared {count} times: keep one."


def _domains(domains: Iterable[str]) -> Iterator[str]:
    for name in dict.fromkeys(domains):
        if not full_name(name):
            yield (
                f"{name!r} cannot be a mail domain: write a full domain name in lower case, accents as xn--… "
                "(`idn NAME` says how)."
            )


def _postmaster(address: str, known: Known) -> Iterator[str]:
    if address and not is_address(address, foreign=True):
        yield f"The postmaster {address!r} is no address: write one, such as techs@example.org."
    elif address and known.is_ours(address) and not known.exists(address):
        yield f"The postmaster {address} is on our own domain, but nobody declares it: make it a mailbox or an alias."


def _own_address(what: str, address: str, known: Known) -> Iterator[str]:
    if not is_address(address):
        yield (
            f"{address!r} cannot be {what}: lower-case letters, digits, `.`, `-` and `_`, a letter or digit first, "
            "then @ and the domain."
        )
    elif not known.is_ours(address):
        domain = address.rpartition("@")[2]
        near = difflib.get_close_matches(domain, known.domains, 1)
        hint = f"did you mean {near[0]}?" if near else "add it to the domains, or take the address out."
        yield f"{address} is declared as {what}, but nobody declares the domain {domain}: {hint}"


def _mailbox(entry: Entry, known: Known) -> Iterator[str]:
    address = entry["address"]
    yield from _own_address("a mailbox", address, known)
    yield from _quota(f"The mailbox {address}", _or(entry.get("quota"), "0"))
    if not isinstance(_or(entry.get("enabled"), True), bool):
        yield f"The mailbox {address} has enabled: {entry['enabled']}: write true or false."
    try:
        strong_hash(str(entry.get("password_hash") or ""))
    except ValueError as reason:
        yield (
            f"The password_hash of the mailbox {address} {reason}: make one with `doveadm pw -s SHA512-CRYPT`, "
            "and keep it in the vault."
        )


def _quota(what: str, quota: Any) -> Iterator[str]:
    if not _QUOTA.fullmatch(str(quota)):
        yield f"{what} has the quota {quota}: write an amount such as 500M or 5G, 0 for no limit."


def _alias(entry: Entry, known: Known) -> Iterator[str]:
    address, targets = entry["address"], _lowered(entry["to"])
    yield from _own_address("an alias", address, known)
    yield from _targets(f"The alias {address}", targets)
    if address in known.mailboxes and address not in targets:
        yield (
            f"{address} is both a mailbox and an alias, which would keep all mail from the mailbox: "
            f"add {address} to its targets to keep a copy there, or take one of the two out."
        )


def _catch_all(entry: Entry, known: Known) -> Iterator[str]:
    domain, targets = entry["domain"], entry["to"]
    if domain not in known.domains:
        yield f"There is a catch-all of {domain}, but nobody declares this domain: add it, or take the catch-all out."
    yield from _targets(f"The catch-all of {domain}", targets)
    for target in _lowered(targets):
        if target.rpartition("@")[2] == domain and not known.exists(target):
            yield (
                f"The catch-all of {domain} leads to {target}, which is itself caught by it: "
                "declare that address as a mailbox, or lead elsewhere."
            )


def _targets(what: str, targets: Sequence[str]) -> Iterator[str]:
    if not targets:
        yield f"{what} leads nowhere: say where its mail goes, or take it out."
    if len(targets) > MOST_TARGETS:
        yield f"{what} leads to {len(targets)} addresses, and Postfix takes {MOST_TARGETS}: make it a list."
    for target in targets:
        if not is_address(target.lower(), foreign=True):
            yield f"{what} leads to {target!r}, which is no address: write one, such as name@example.org."


def _circles(known: Known) -> Iterator[str]:
    """Name each circle once; a mailbox that is among its own alias's targets is the end of the way, and no circle."""
    done: set[str] = set()
    for start in (*known.aliases, *(target for targets in known.catch_alls.values() for target in targets)):
        way: dict[str, Iterator[str]] = {}
        _enter(start, way, done, known)
        while way:
            address = next(reversed(way))
            following = next(way[address], None)
            if following is None:
                done.add(address)
                del way[address]
            elif following in way and not (following == address and address in known.mailboxes):
                addresses = list(way)
                circle = [*addresses[addresses.index(following) :], following]
                yield (
                    f"The aliases {' → '.join(circle)} lead round in a circle, and their mail would never arrive: "
                    "let one of them lead elsewhere."
                )
            elif following not in way:
                _enter(following, way, done, known)


def _enter(address: str, way: dict[str, Iterator[str]], done: set[str], known: Known) -> None:
    if address not in done and known.is_ours(address):
        way[address] = iter([without_extension(target) for target in known.next(address)])
