# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole AlternC panel as the data that its modules take, and the same data with nobody's names in it.

Names are replaced by what a keyed hash makes of them: the same name gives the same replacement all through one export,
and the key is thrown away with the process, so that nothing leads back. What makes a panel hard to move stays: how many
things of each kind, whose they are, types, quotas, flags, and the lengths of the labels.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from .alternc_data import ADMIN, Entry, Panel

LETTERS = "bcdfghjklmnpqrstvwxzaeiouy"
GRAM = 4  # no run of so many characters of a name survives
# Words that say nothing about anybody, and that AlternC or the network gives a meaning to.
KEPT = {
    *("www", "mail", "smtp", "imap", "pop", "pop3", "ftp", "webmail", "ns1", "ns2", "mx", "mx1", "mx2"),
    *("autodiscover", "autoconfig", "_dmarc", "_domainkey", "_acme-challenge", "_mta-sts", "mta-sts", "_tcp", "_tls"),
    *("postmaster", "abuse", "hostmaster", "webmaster", ADMIN, "default", "test", "localhost", "tmp"),
}
_WORD = re.compile(r"[^\W_]+")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
_MAIL = re.compile(r"[^\s@,;:<>]+@[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")
_SECRET = re.compile(r"(^|_)(key|token|pass|password|secret)($|_)")


def export(panel: Panel, member: str = "", secrets: bool = False) -> dict[str, Any]:
    """Return everything of a panel, or of one of its members, in the shapes of the modules' options."""
    domains = _sorted(panel.rows("domains"), "name", lambda row: not member or row["member"] == member)
    names = {row["name"] for row in domains}

    def mine(row: Entry) -> bool:
        return not member or row["member"] == member

    def told(kind: str, key: str, option: str, rows: Iterable[Entry]) -> list[Entry]:
        known = panel.secrets.get(kind, {}) if secrets else {}
        return [{**row, **({option: known[row[key]]} if known.get(row[key]) else {})} for row in rows]

    members = _sorted(panel.rows("members"), "login", lambda row: not member or row["login"] == member)
    mailboxes = _sorted(panel.rows("mailboxes"), "address", lambda row: row["address"].rpartition("@")[2] in names)
    data: dict[str, Any] = {
        "members": told("members", "login", "password_hash", members),
        "domains": domains,
        "subdomains": _subdomains(panel, names),
        "mailboxes": told("mailboxes", "address", "password_hash", mailboxes),
        "databases": {
            "databases": _sorted(panel.rows("databases"), "name", mine),
            "users": told("database_users", "name", "password", _sorted(panel.rows("database_users"), "name", mine)),
        },
        "ftp_accounts": told(
            "ftp_accounts", "name", "password_hash", _sorted(panel.rows("ftp_accounts"), "name", mine)
        ),
        "quotas": {"defaults": {} if member else _plain(panel.defaults), "members": _own_quotas(panel, members)},
    }
    if not member:
        data["domain_types"] = _sorted(panel.rows("domain_types"), "name", lambda _row: True)
        data["variables"] = {
            row["name"]: row["value"]
            for row in sorted(panel.rows("variables"), key=lambda row: str(row["name"]))
            if secrets or not _SECRET.search(row["name"])
        }
    return data


def counts(data: Mapping[str, Any]) -> dict[str, int]:
    """Return how many things of each kind an export holds."""
    plain = {kind: len(data[kind]) for kind in data if kind not in ("databases", "quotas")}
    forwards = sum(len(row["forwards"]) for row in data["mailboxes"])
    databases = {"databases": len(data["databases"]["databases"]), "database_users": len(data["databases"]["users"])}
    return {**plain, **databases, "forwards": forwards}


def anonymise(data: Mapping[str, Any], targets: Mapping[str, str], salt: bytes) -> dict[str, Any]:
    """Return an export with nobody's names in it; `targets` says what the value of each domain type is."""
    return _Anonymiser(data, targets, salt).whole(data)


class _Anonymiser:
    """Replaces names, the same one always by the same."""

    def __init__(self, data: Mapping[str, Any], targets: Mapping[str, str], salt: bytes) -> None:
        self.salt, self.targets = salt, targets
        self.prefixes = {row["login"] for row in data["members"]} | {row["name"] for row in data["domains"]}
        self.given: dict[tuple[str, str], str] = {}
        self.taken: set[tuple[str, str]] = set()
        self.grams = set(_grams(data))

    def whole(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Replace in every kind."""
        result: dict[str, Any] = {
            "members": _sorted(map(self.member, data["members"]), "login"),
            "domains": _sorted(map(self.domain, data["domains"]), "name"),
            "subdomains": [self.subdomain(row) for row in data["subdomains"]],
            "mailboxes": _sorted(map(self.mailbox, data["mailboxes"]), "address"),
            "databases": {
                "databases": _sorted(map(self.database, data["databases"]["databases"]), "name"),
                "users": _sorted(map(self.database, data["databases"]["users"]), "name"),
            },
            "ftp_accounts": _sorted(map(self.ftp, data["ftp_accounts"]), "name"),
            "quotas": {
                "defaults": {self.words(profile): row for profile, row in data["quotas"]["defaults"].items()},
                "members": {self.words(login): row for login, row in data["quotas"]["members"].items()},
            },
        }
        result["subdomains"].sort(key=lambda row: (row["domain"], row["sub"], row["type"], row["value"]))
        if "domain_types" in data:
            result["domain_types"] = [
                {**row, "entry": _IPV4.sub(self._ip, row["entry"])} for row in data["domain_types"]
            ]
        if "variables" in data:
            result["variables"] = {name: self.variable(name, value) for name, value in data["variables"].items()}
        return result

    def member(self, row: Entry) -> Entry:
        """Replace who it is."""
        told = {key: self.words(row[key]) for key in ("login", "name", "first_name", "notes", "profile")}
        return _open({**row, **told, "mail": self.text(row["mail"])})

    def domain(self, row: Entry) -> Entry:
        """Replace a domain's name."""
        return {**row, "name": self.host(row["name"]), "member": self.words(row["member"])}

    def subdomain(self, row: Entry) -> Entry:
        """Replace a row's name, and its value as its type says."""
        return {
            **row,
            "domain": self.host(row["domain"]),
            "sub": ".".join(self.label(one, row["domain"]) for one in row["sub"].split(".")),
            "value": self.value(row["value"], self.targets.get(row["type"], "")),
        }

    def mailbox(self, row: Entry) -> Entry:
        """Replace an address and where it forwards to."""
        forwards = sorted({self.address(one) for one in row["forwards"]})
        return _open({**row, "address": self.address(row["address"]), "forwards": forwards})

    def database(self, row: Entry) -> Entry:
        """Replace the name of a database or of its user."""
        told = {"name": self.prefixed(row["name"]), "member": self.words(row["member"])}
        more = {"databases": sorted(map(self.prefixed, row["databases"]))} if "databases" in row else {}
        return _open({**row, **told, **more})

    def ftp(self, row: Entry) -> Entry:
        """Replace an FTP account's name and folder."""
        told = {"name": self.prefixed(row["name"]), "member": self.words(row["member"])}
        return _open({**row, **told, "directory": self.words(row["directory"])})

    def variable(self, name: str, value: str) -> str:
        """Replace the hosts and addresses of the panel's own settings."""
        if name == "default_spf_value":
            return self.spf(value)
        if name == "default_dmarc_value":
            return _MAIL.sub(lambda found: self.address(found.group()), value)
        if value.startswith(("/bin/", "/usr/")) or re.fullmatch(r"[\d.]*", value):
            return value
        if "://" in value:
            return self.url(value)
        return self.text(value)

    def value(self, value: str, target: str) -> str:
        """Replace the value of a sub-domain."""
        if target == "DIRECTORY":
            return self.words(value)
        if target == "DOMAIN":
            return self.host(value)
        if target == "URL":
            return self.url(value)
        if target in ("IP", "IPV6"):
            return self.address_of_host(value, target)
        if value.lower().startswith("v=spf1"):
            return value[:6] + self.spf(value[6:])
        if value.lower().startswith("v=dmarc1"):
            return _MAIL.sub(lambda found: self.address(found.group()), value)
        return self.words(value)

    def spf(self, text: str) -> str:
        """Replace hosts and networks in a list of who may send; what it allows stays."""

        def one(found: re.Match[str]) -> str:
            name, sign, argument = found.groups()
            network, slash, size = argument.partition("/")
            if name.lower() in ("ip4", "ip6"):
                kind = "IP" if name.lower() == "ip4" else "IPV6"
                return name + sign + self.address_of_host(network, kind) + slash + size
            return name + sign + self.host(network) + slash + size

        return re.sub(r"([A-Za-z0-9]+)([:=])(\S+)", one, text)

    def text(self, text: str) -> str:
        """Replace addresses, hosts and words, whichever a text holds."""
        found = re.split(rf"({_MAIL.pattern}|{_HOST.pattern})", text)
        return "".join(self._piece(one) for one in found)

    def _piece(self, text: str) -> str:
        if _MAIL.fullmatch(text):
            return self.address(text)
        if _IPV4.fullmatch(text):
            return self.address_of_host(text, "IP")
        return self.host(text) if _HOST.fullmatch(text) else self.words(text)

    def url(self, text: str) -> str:
        """Replace where an address leads to; its scheme and port stay."""
        parts = urlsplit(text)
        port = re.search(r":\d+$", parts.netloc)
        rest = text.split(parts.netloc, 1)[1] if parts.netloc else text
        return f"{parts.scheme}://{self.host(parts.hostname or '')}{port.group() if port else ''}{self.words(rest)}"

    def prefixed(self, name: str) -> str:
        """Replace a name that begins with a login or a domain."""
        for prefix in sorted((one for one in self.prefixes if name.startswith(one)), key=len, reverse=True):
            rest = name[len(prefix) :]
            if not rest or rest.startswith("_"):
                return (self.host(prefix) if "." in prefix else self.words(prefix)) + self.words(rest)
        return self.words(name)

    def address(self, text: str) -> str:
        """Replace a mail address."""
        local, _at, host = text.rpartition("@")
        return f"{self.words(local)}@{self.host(host)}"

    def host(self, name: str) -> str:
        """Replace each label of a host name; the last one becomes `test`."""
        labels = name.rstrip(".").lower().split(".")
        dot = "." if name.endswith(".") else ""
        if len(labels) == 1:
            return self.words(name)
        news = [self.label(label, ".".join(labels[index + 1 :])) for index, label in enumerate(labels[:-1])]
        return ".".join([*news, "test"]) + dot

    def label(self, label: str, under: str) -> str:
        """Replace one label; two of the same name under different domains stay two."""
        if label in KEPT or label in ("", "*"):
            return label
        return "_" * label.startswith("_") + self.word(label.strip("_") or "_", under)

    def words(self, text: str) -> str:
        """Replace every word of a text."""
        return _WORD.sub(lambda found: self.word(found.group()), text)

    def address_of_host(self, text: str, target: str) -> str:
        """Replace an IP address by one that belongs to nobody."""
        seed = self._hash("ip", text, 0)
        if target == "IP":
            return f"198.{18 + seed[0] % 2}.{seed[1]}.{seed[2]}"
        return "2001:db8:" + ":".join(f"{seed[i] << 8 | seed[i + 1]:x}" for i in range(0, 12, 2))

    def _ip(self, found: re.Match[str]) -> str:
        return self.address_of_host(found.group(), "IP")

    def word(self, word: str, under: str = "") -> str:
        """Return what stands for a word, as long as it and as no other does."""
        bare = word.lower()
        if bare in KEPT:
            return word
        if (under, bare) not in self.given:
            tries = 0
            while (under, new := self._made(under, bare, tries)) in self.taken:
                tries += 1
            self.taken.add((under, new))
            self.given[under, bare] = new
        new = self.given[under, bare]
        return new.capitalize() if word[:1].isupper() else new

    def _made(self, under: str, word: str, tries: int) -> str:
        """Make a word letter by letter, so that no run of letters of anybody's name comes back."""
        made = ""
        for index in range(len(word) + tries // len(LETTERS)):  # one letter has few others: then it grows
            seed = self._hash(f"{under}/{index // 8}", word, tries)[index % 8 * 4]
            order = (LETTERS[(seed + step) % len(LETTERS)] for step in range(len(LETTERS)))
            made += next(
                (one for one in order if made[1 - GRAM :] + one not in self.grams), LETTERS[seed % len(LETTERS)]
            )
        return made

    def _hash(self, what: str, text: str, tries: int) -> bytes:
        return hmac.digest(self.salt, f"{what}\0{text}\0{tries}".encode(), "sha256")


def _grams(value: Any) -> Iterable[str]:
    """Return every run of letters that an export holds, wherever."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _grams(key)
            yield from _grams(one)
    elif isinstance(value, list):
        for one in value:
            yield from _grams(one)
    elif isinstance(value, str):
        for word in _WORD.findall(value.lower()):
            yield from (word[index : index + GRAM] for index in range(len(word) - GRAM + 1))


def _subdomains(panel: Panel, domains: Iterable[str]) -> list[Entry]:
    """Return the sub-domains of these domains, each once: the table has no key and holds doubles."""
    names, found = set(domains), {}
    for row in panel.rows("subdomains"):
        if row["domain"] in names:
            found[row["domain"], row["sub"], row["type"], row["value"], row["https"], row["enabled"]] = row
    return [found[key] for key in sorted(found)]


def _own_quotas(panel: Panel, members: Iterable[Entry]) -> dict[str, dict[str, int]]:
    """Return the quotas in which members differ from their profile."""
    own = {}
    for row in members:
        profile = panel.defaults.get(row["profile"], {})
        differing = {
            quota: value
            for quota, value in sorted(panel.quotas.get(row["login"], {}).items())
            if value != profile.get(quota, 0)
        }
        if differing:
            own[row["login"]] = differing
    return own


def _plain(table: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {key: dict(sorted(row.items())) for key, row in sorted(table.items())}


def _sorted(rows: Iterable[Entry], key: str, fits: Callable[[Entry], bool] = lambda _row: True) -> list[Entry]:
    return sorted((dict(row) for row in rows if fits(row)), key=lambda row: str(row[key]))


def _open(row: Entry) -> Entry:
    return {key: value for key, value in row.items() if key not in ("password", "password_hash")}
