# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of things that an AlternC panel holds: what identifies them, what they are made of, what cannot be.

Each is a declaration that `alternc_sets` works with. A judge looks only at what would be written: what a panel has
had for years is not refused because it would not be made so today.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from .alternc_data import ADMIN, Entry, Panel, https_of, is_dkim, split
from .alternc_sets import Kind, World

RESERVED = {"alternc", "sysusr", "mysql", "root"}
FAMILIES = ("mx", "autodiscover", "spf", "dmarc")  # rows that AlternC makes for a domain that hosts mail
TARGETS = ("NONE", "URL", "DIRECTORY", "IP", "IPV6", "DOMAIN", "TXT")
NO_BOX = set("\"'\\/?!*$|#+")  # characters that AlternC gives no box to

_LOGIN = re.compile(r"[a-z0-9]{1,14}")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9])?")
_ADDRESS = re.compile(r"[^\s@,;<>()\[\]:]+@[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.IGNORECASE)
_FTP = re.compile(r"[A-Za-z0-9]+[A-Za-z0-9_.-]*")
_SECRET_NAME = re.compile(r"(^|_)(key|token|pass|password|secret)($|_)")


# --- Members ---


def _judge_members(world: World) -> Iterable[str]:
    for login, want in world.news():
        if login not in world.current and (not _LOGIN.fullmatch(login) or login in RESERVED):
            yield f"{login!r} cannot be a member's login: 1 to 14 of a to z and 0 to 9, and not AlternC's own names"
        if want["mail"] and not _ADDRESS.fullmatch(want["mail"]):
            yield f"member {login} has the mail address {want['mail']!r}, which is none: write name@domain"
        if want["profile"] not in world.panel.defaults and not world.wishes.fresh:
            yield (
                f"member {login} has the profile {want['profile']}, which has no quotas: declare it in alternc_quotas "
                "first"
            )
        if want["duration"] < 0:
            yield f"member {login} has a duration of {want['duration']} months: 0 means without end"
        if login == ADMIN and not (want["enabled"] and want["admin"]):
            yield f"member {ADMIN} is AlternC's own administrator: leave it enabled and admin"


MEMBERS = Kind(
    name="members",
    door="member",
    noun="member",
    nouns="members",
    key="login",
    fields=("enabled", "admin", "profile", "duration", "first_name", "name", "mail", "notes"),
    judge=_judge_members,
    owner=lambda entry, _panel: str(entry["login"]),
    left_alone=lambda _world, key, _entry: key == ADMIN,
    shuts=lambda _entry, _panel: True,
    policy="mem",
)


# --- Domains ---


def _boxes(panel: Panel, domain: str) -> int:
    return sum(1 for row in panel.rows("mailboxes") if row["mailbox"] and row["address"].endswith(f"@{domain}"))


def _judge_domains(world: World) -> Iterable[str]:
    members = world.panel.by("members", "login")
    for name, want in world.news():
        was = world.current.get(name)
        if not was and (not _is_host(name) or len(name) > 64):
            yield f"{name!r} cannot be a domain: labels of letters, digits and -, at least two, 64 characters at most"
        yield from _unknown_member(world, members, "domain", name, want)
        if was and was["member"] != want["member"]:
            yield (
                f"domain {name} is {was['member']}'s on this panel and declared for {want['member']}: "
                f"declare it for {was['member']}, or remove it there first"
            )
        yield from _not_free(world, "domains", "domain", name)
        if want["ttl"] < 60:
            yield f"domain {name} has a ttl of {want['ttl']} seconds: 60 at least"
        if was and was["mail"] and not want["mail"] and _boxes(world.panel, name):
            yield (
                f"domain {name} would lose the {_boxes(world.panel, name)} mailboxes that it holds: "
                "name them in remove of alternc_mailboxes first, or leave its mail on"
            )
    yield from _lost_domains(world)
    yield from _room(world, "dom", "domains", world.created())


def _lost_domains(world: World) -> Iterable[str]:
    """Say which domains would go with mails in them: that takes more than leaving a line out."""
    if not world.wishes.prune:
        return
    for name, entry in world.current.items():
        mine = world.wishes.scope is None or entry["member"] in world.wishes.scope
        held = _boxes(world.panel, name)
        if mine and held and name not in world.wanted and name not in world.wishes.remove:
            yield f"domain {name} is no longer declared and holds {held} mailboxes: put it back, or name it in remove"


DOMAINS = Kind(
    name="domains",
    door="domain",
    noun="domain",
    nouns="domains",
    fields=("member", "dns", "mail", "ttl", "keep"),
    judge=_judge_domains,
    normal=lambda entry, _panel: {**entry, "name": entry["name"].lower()},
)


# --- Sub-domains ---


def _types(panel: Panel) -> dict[str, Entry]:
    return panel.by("domain_types", "name")


def _fqdn(entry: Mapping[str, Any]) -> str:
    return f"{entry['sub']}.{entry['domain']}" if entry["sub"] else str(entry["domain"])


def _normal_subdomain(entry: Entry, panel: Panel) -> Entry:
    entry = {**entry, "domain": entry["domain"].lower(), "sub": entry["sub"].strip(". ").lower()}
    entry = {**entry, "type": entry["type"].lower(), "value": entry["value"].strip()}
    # Where the types are not known yet (a check on an empty host) the declared word stands.
    return {**entry, "https": https_of(entry, _types(panel)) if panel.rows("domain_types") else entry["https"]}


def _index_subdomains(rows: Sequence[Entry], panel: Panel) -> dict[str, Entry]:
    """Name the rows: a site by its name, a record by name, type and value, a further site of a name by its type too."""
    types, found = _types(panel), {}
    for row in sorted(rows, key=lambda row: (not row["enabled"], row["type"], row["value"])):
        site = not types.get(row["type"], {}).get("only_dns", False)
        key = _fqdn(row) if site else f"{_fqdn(row)} {row['type']} {row['value']}".strip()
        if site and key in found:
            key = f"{key} {row['type']} {row['value']}".strip()
        while key in found:
            key += " again"
        found[key] = row
    return found


def family(entry: Mapping[str, Any]) -> str:
    """Say which of AlternC's own families a row belongs to, if any."""
    text = entry["value"].lower()
    if entry["type"] in ("defmx", "defmx2"):
        return "mx"
    if entry["type"] == "autodiscover":
        return "autodiscover"
    if entry["type"] == "txt" and entry["sub"] == "" and text.startswith("v=spf1"):
        return "spf"
    if entry["type"] == "txt" and entry["sub"] == "_dmarc" and text.startswith("v=dmarc1"):
        return "dmarc"
    return ""


def _is_ignored(world: World, _key: str, entry: Entry) -> bool:
    """Leave alone the domains that the set does not name, and ignored families of which it declares nothing there."""
    declared = [row for row in world.wanted.values() if row["domain"] == entry["domain"]]
    mine = family(entry)
    if not declared:
        return True
    return mine in world.wishes.ignore and all(family(row) != mine for row in declared)


def _judge_subdomains(world: World) -> Iterable[str]:
    domains, types = world.panel.by("domains", "name"), _types(world.panel)
    for key, want in world.news():
        if key.endswith(" again"):
            yield f"sub-domain {key[:-6]} is declared twice: keep one"
        if want["domain"] not in domains:
            if not world.wishes.fresh:
                yield (
                    f"sub-domain {_fqdn(want)} is of {want['domain']}, which is not on this panel: declare it in "
                    "alternc_domains"
                )
            continue
        if want["type"] not in types:
            if not world.wishes.fresh:
                yield (
                    f"sub-domain {_fqdn(want)} has the type {want['type']}, which this panel does not have: one of "
                    f"{', '.join(sorted(types))}"
                )
            continue
        yield from _subdomain_problems(want, types[want["type"]])
    yield from _incompatible(world, types)


def _subdomain_problems(want: Entry, kind: Entry) -> Iterable[str]:
    name, value = _fqdn(want), want["value"]
    if want["sub"] not in ("", "*") and not all(_LABEL.fullmatch(label) for label in want["sub"].split(".")):
        yield f"{want['sub']!r} of {want['domain']} cannot be a sub-domain: labels of letters, digits, - and _"
    if want["type"] == "cname" and want["sub"] == "":
        yield f"{name} cannot be a cname: the domain itself has other records; use url or ip"
    if not _is_value(kind["target"], value):
        yield f"sub-domain {name} of type {want['type']} has the value {value!r}: {_EXPECTED[kind['target']]}"


def _is_value(target: str, value: str) -> bool:
    if target in ("IP", "IPV6"):
        try:
            return ipaddress.ip_address(value).version == (4 if target == "IP" else 6)
        except ValueError:
            return False
    if target == "URL":
        parts = urlsplit(value)
        return bool(parts.scheme and parts.netloc) and not re.search(r"\s", value)
    if target == "DIRECTORY":
        return value.startswith("/") and ".." not in value.split("/")
    if target == "DOMAIN":
        bare = value.rstrip(".")
        return all(_LABEL.fullmatch(label.lower()) for label in bare.split(".")) and (
            value.endswith(".") or "." not in bare
        )
    return value == "" if target == "NONE" else "\n" not in value and len(value) <= 1024


_EXPECTED = {
    "NONE": "it takes none, leave it empty",
    "URL": "write a whole address, https://…",
    "DIRECTORY": "write a folder from the member's home down, /www/…",
    "IP": "write an IPv4 address",
    "IPV6": "write an IPv6 address",
    "DOMAIN": "write a host name with a dot at its end",
    "TXT": "one line of 1024 characters at most",
}


def _incompatible(world: World, types: Mapping[str, Entry]) -> Iterable[str]:
    """Say which declared rows of one name AlternC would not have beside each other."""
    by_name: dict[str, list[Entry]] = {}
    for row in world.wanted.values():
        if row["enabled"] and row["type"] in types:
            by_name.setdefault(_fqdn(row), []).append(row)
    changed = {_fqdn(row) for _key, row in world.news()}
    for name in sorted(changed & set(by_name)):
        here = by_name[name]
        for row in here:
            others = {other["type"] for other in here if other is not row} - set(types[row["type"]]["compatibility"])
            if others:
                yield f"{name} cannot be {row['type']} and {', '.join(sorted(others))} at once: keep or enable one"
                break


SUBDOMAINS = Kind(
    name="subdomains",
    door="subdomain",
    noun="sub-domain",
    nouns="sub-domains",
    key="sub",
    fields=("type", "value", "https", "enabled"),
    judge=_judge_subdomains,
    owner=lambda entry, panel: str(panel.by("domains", "name").get(entry["domain"], {}).get("member", "")),
    normal=_normal_subdomain,
    index=_index_subdomains,
    left_alone=_is_ignored,
)


def without_dkim(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out the rows of AlternC's own signing keys: it makes them again, from a key that never leaves its host."""
    return [row for row in rows if not is_dkim({"sub": row["sub"], "type": str(row["type"]).lower()})]


# --- Mailboxes ---


def _normal_mailbox(entry: Entry, _panel: Panel) -> Entry:
    local, _at, domain = entry["address"].rpartition("@")
    forwards = split("\n".join(entry["forwards"]))
    quota = entry["quota_mb"] if entry["mailbox"] else 0
    return {**entry, "address": f"{local}@{domain.lower()}", "forwards": forwards, "quota_mb": quota}


def _judge_mailboxes(world: World) -> Iterable[str]:
    domains = world.panel.by("domains", "name")
    for address, want in world.news():
        local, _at, domain = address.rpartition("@")
        if address not in world.current and local and not _ADDRESS.fullmatch(address):
            yield f"{address!r} cannot be a mail address: write name@domain"
        elif domain not in domains:
            if not world.wishes.fresh:
                yield (
                    f"mailbox {address} is of {domain or 'no domain'}, which is not on this panel: declare it in "
                    "alternc_domains"
                )
        elif not domains[domain]["mail"]:
            yield f"mailbox {address} is of {domain}, which has no mail here: set mail: true in alternc_domains"
        held = world.panel.size.get(address, 0) and world.current.get(address, want)["mailbox"]
        if held and not want["mailbox"] and address not in world.wishes.confirmed:
            yield f"mailbox {address} would lose its mails: name it in confirm_removals, or leave it a mailbox"
        yield from _not_free(world, "mailboxes", "mailbox", address)
        yield from _mailbox_problems(world, address, want)
    yield from _room(world, "mail", "mail addresses", ((a, w) for a, w in world.created() if not a.startswith("@")))


def _mailbox_problems(world: World, address: str, want: Entry) -> Iterable[str]:
    used = -(-world.panel.size.get(address, 0) // 1024**2)
    if address.startswith("@") and (want["mailbox"] or len(want["forwards"]) != 1):
        yield f"catch-all {address} has to be one forward and no mailbox"
    elif not want["mailbox"] and not want["forwards"]:
        yield f"{address} is neither a mailbox nor a forward: set mailbox: true or give forwards"
    if want["mailbox"] and NO_BOX & set(address):
        yield f"{address} holds a sign that AlternC gives no mailbox to: make it a forward, or choose another name"
    if want["quota_mb"] < 0:
        yield f"mailbox {address} has a quota of {want['quota_mb']} MB: 0 means without limit"
    if want["mailbox"] and 0 < want["quota_mb"] < used:
        yield (
            f"mailbox {address} uses {used} MB and would have a quota of {want['quota_mb']} MB: give it {used} at least"
        )
    if address in want["forwards"]:
        yield f"{address} forwards to itself: set mailbox: true instead"
    for forward in want["forwards"]:
        if not _ADDRESS.fullmatch(forward) and not (address.startswith("@") and _ADDRESS.fullmatch(f"x{forward}")):
            yield f"{address} forwards to {forward!r}, which is no mail address: write name@domain"


def _owner_of_mailbox(entry: Entry, panel: Panel) -> str:
    domain = entry["address"].rpartition("@")[2]
    return str(panel.by("domains", "name").get(domain, {}).get("member", ""))


MAILBOXES = Kind(
    name="mailboxes",
    door="mailbox",
    noun="mailbox",
    nouns="mail addresses",
    key="address",
    fields=("mailbox", "quota_mb", "enabled", "forwards"),
    judge=_judge_mailboxes,
    owner=_owner_of_mailbox,
    normal=_normal_mailbox,
    shuts=lambda entry, _panel: bool(entry["mailbox"]),
    policy="pop",
)


# --- Databases ---


def _judge_databases(world: World) -> Iterable[str]:
    yield from _judge_named(world, "database", MYSQL_MENDS)
    yield from _room(world, "mysql", "databases", world.created())


def _judge_database_users(world: World) -> Iterable[str]:
    yield from _judge_named(world, "database user", MYSQL_MENDS)


def _judge_named(world: World, noun: str, mend: str) -> Iterable[str]:
    members = world.panel.by("members", "login")
    for name, want in world.news():
        was, member = world.current.get(name), want["member"]
        yield from _unknown_member(world, members, noun, name, want)
        if not was and not (name == member or re.fullmatch(rf"{re.escape(member)}_[0-9a-z]+", name)):
            yield f"{name!r} cannot be a {noun} of {member}: {mend.format(member=member)}"
        if was and was["member"] != member:
            yield (
                f"{noun} {name} is {was['member']}'s on this panel and declared for {member}: declare it for "
                f"{was['member']}"
            )


MYSQL_MENDS = "{member}, or {member}_ and small letters and digits"

DATABASES = Kind(
    name="databases",
    door="database",
    noun="database",
    nouns="databases",
    fields=("member",),
    judge=_judge_databases,
    keeps=lambda _entry, _panel: True,
)


def _normal_database_user(entry: Entry, _panel: Panel) -> Entry:
    return {**entry, "databases": sorted(set(entry["databases"]))}


# AlternC makes a user of the same name with each database: one that is not declared is left as it made it.
DATABASE_USERS = Kind(
    name="database_users",
    door="database_user",
    noun="database user",
    nouns="database users",
    fields=("member", "databases"),
    judge=_judge_database_users,
    normal=_normal_database_user,
    left_alone=lambda world, key, _entry: key in world.panel.by("databases", "name"),
    policy="mysql",
)


def strange_databases(databases: Sequence[Mapping[str, Any]], users: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Say which users are declared on databases that are not declared as their member's."""
    owners = {entry["name"]: entry["member"] for entry in databases}
    for user in users:
        for name in user["databases"]:
            if owners.get(name) != user["member"]:
                yield (
                    f"database user {user['name']} is declared on {name}, which is not declared as {user['member']}'s: "
                    "declare that first"
                )


# --- FTP accounts ---


def _judge_ftp(world: World) -> Iterable[str]:
    members, domains = world.panel.by("members", "login"), world.panel.rows("domains")
    for name, want in world.news():
        was, member = world.current.get(name), want["member"]
        yield from _unknown_member(world, members, "FTP account", name, want)
        if was and was["member"] != member:
            yield (
                f"FTP account {name} is {was['member']}'s on this panel and declared for {member}: declare it for "
                f"{was['member']}"
            )
        prefixes = [member, *(row["name"] for row in domains if row["member"] == member)]
        fitting = any(name == prefix or name.startswith(f"{prefix}_") for prefix in prefixes)
        known = member in members or not world.wishes.fresh
        if not was and known and not (fitting and _FTP.fullmatch(name) and name.count("_") <= 1):
            yield (
                f"{name!r} cannot be an FTP account of {member}: the login or a domain of that member, and _ and a "
                "word if you like"
            )
        if not want["directory"].startswith("/") or ".." in want["directory"].split("/"):
            yield (
                f"FTP account {name} has the folder {want['directory']!r}: write it from the member's home down, /www/…"
            )
    yield from _room(world, "ftp", "FTP accounts", world.created())


FTP_ACCOUNTS = Kind(
    name="ftp_accounts",
    door="ftp",
    noun="FTP account",
    nouns="FTP accounts",
    fields=("member", "directory", "enabled"),
    judge=_judge_ftp,
    normal=lambda entry, _panel: {**entry, "directory": entry["directory"].rstrip("/") or "/"},
    shuts=lambda _entry, _panel: True,
    policy="ftp",
)


# --- Domain types, variables, quotas: the panel's own ---


def _judge_types(world: World) -> Iterable[str]:
    for name, want in world.news():
        if not re.fullmatch(r"[a-z0-9-]{1,30}", name):
            yield f"{name!r} cannot be a domain type: 1 to 30 small letters, digits and -"
        if len(",".join(want["compatibility"])) > 255:
            yield f"domain type {name} is compatible with more types than AlternC can keep: 255 characters at most"
    users = Counter(row["type"] for row in world.panel.rows("subdomains"))
    for name in sorted(set(world.wishes.remove) & set(users)):
        yield (
            f"domain type {name} has {users[name]} sub-domains, which AlternC would never build again: change "
            "their type first"
        )


DOMAIN_TYPES = Kind(
    name="domain_types",
    door="domain_type",
    noun="domain type",
    nouns="domain types",
    fields=(
        *("target", "enable", "description", "entry", "compatibility"),
        *("only_dns", "need_dns", "advanced", "create_tmpdir", "create_targetdir", "has_https_option"),
    ),
    judge=_judge_types,
    owner=lambda _entry, _panel: "",
    normal=lambda entry, _panel: {
        **entry,
        "compatibility": split(",".join(entry["compatibility"]).lower(), ","),
    },
)


def _judge_variables(world: World) -> Iterable[str]:
    for name, _want in world.news():
        if not re.fullmatch(r"[a-z0-9_]{1,48}", name):
            yield f"{name!r} cannot be a variable: 1 to 48 small letters, digits and _"


VARIABLES = Kind(
    name="variables",
    door="variable",
    noun="variable",
    nouns="variables",
    fields=("value",),
    judge=_judge_variables,
    owner=lambda _entry, _panel: "",
    private=lambda entry: bool(_SECRET_NAME.search(entry["name"])),
)


def _judge_quotas(world: World) -> Iterable[str]:
    members = world.panel.by("members", "login")
    known = {name for table in (world.panel.defaults, world.panel.quotas) for row in table.values() for name in row}
    for key, want in world.news():
        if known and want["quota"] not in known:
            yield f"quota {key} is one that AlternC does not count: one of {', '.join(sorted(known))}"
        if want["value"] < 0:
            yield f"quota {key} is {want['value']}: 0 at least"
        if want["member"] is None:
            continue
        yield from _unknown_member(world, members, "quota", key, want)
        used = world.panel.used.get(want["member"], {}).get(want["quota"], 0)
        if want["value"] < used:
            yield (
                f"member {want['member']} has {used} of quota {want['quota']} and may have {want['value']}: allow "
                f"{used}, or remove some first"
            )


def _index_quotas(rows: Sequence[Entry], _panel: Panel) -> dict[str, Entry]:
    return {
        f"{row['quota']} of {'profile ' + row['profile'] if row['member'] is None else row['member']}": row
        for row in rows
    }


QUOTAS = Kind(
    name="quotas",
    door="quota",
    noun="quota",
    nouns="quotas",
    key="quota",
    fields=("value",),
    judge=_judge_quotas,
    owner=lambda entry, _panel: str(entry["member"] or ""),
    index=_index_quotas,
)

KINDS = (
    *(MEMBERS, DOMAINS, SUBDOMAINS, MAILBOXES, DATABASES, DATABASE_USERS, FTP_ACCOUNTS),
    *(DOMAIN_TYPES, VARIABLES, QUOTAS),
)


# --- Shared by the judges ---


def _is_host(name: str) -> bool:
    labels = name.split(".")
    return len(labels) > 1 and all(_LABEL.fullmatch(label) and len(label) < 64 for label in labels)


def _unknown_member(
    world: World, members: Mapping[str, Entry], noun: str, key: str, want: Mapping[str, Any]
) -> Iterable[str]:
    if want["member"] not in members and not world.wishes.fresh:
        yield (
            f"{noun} {key} is declared for {want['member']}, who is no member of this panel: declare the login in "
            "alternc_members"
        )


def _not_free(world: World, kind: str, noun: str, key: str) -> Iterable[str]:
    why = world.panel.taken.get((kind, key))
    if why:
        yield f"{noun} {key} is not free: {why}"


def _room(world: World, quota: str, nouns: str, created: Iterable[tuple[str, Entry]]) -> Iterable[str]:
    """Say which members would have more than their quota allows: AlternC would stop in the middle."""
    kind_owner = {"mail": _owner_of_mailbox}.get(quota, lambda entry, _panel: str(entry["member"]))
    news = Counter(kind_owner(entry, world.panel) for _key, entry in created)
    for login, count in sorted(news.items()):
        if login not in world.panel.quotas:
            continue
        used = world.panel.used.get(login, {}).get(quota, 0)
        allowed = world.panel.quotas[login].get(quota, 0)
        if used + count > allowed:
            yield (
                f"member {login} has {used} {nouns}, may have {allowed} and would get {count} more: raise {quota} in "
                "alternc_quotas first"
            )
