# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts and sites: what the inventory may say of them, and what follows for Apache, PHP and the databases.

`problems` judges the two lists as a whole, beyond what the contract of a single variable sees, and answers in
sentences; everything else takes lists without problems and derives the sets that the roles own: one function a set, no
host, no Ansible.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from . import firewall

Entry = Mapping[str, Any]

HOME = "/srv/members"
_LOGIN = re.compile(r"[a-z][a-z0-9]{1,30}")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_TOP_LABEL = re.compile(r"(?:[a-z]{2,63}|xn--[a-z0-9-]{1,59})")
_DATABASE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KEY = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]{20,}={0,3}(?: [^\n]*)?")
_URL = re.compile(r"https?://([a-z0-9._-]+)(?::[0-9]{1,5})?(?:[/?#][A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?")
_CODES = (301, 302)
_PASSWORD_HASH = re.compile(r"\$(?:y|gy|7|2b|6|5)\$[^:\s]+")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VERSION = re.compile(r"[0-9]{1,2}\.[0-9]{1,2}")
_OURS = re.compile(
    r"^\s*(ErrorLog|CustomLog|TransferLog|Include|IncludeOptional|Listen|</?VirtualHost)\b",
    re.IGNORECASE | re.MULTILINE,
)
_MEMORY = re.compile(r"[1-9][0-9]*[KMGT]?")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_LIMITS = {
    "memory": (_MEMORY, "such as 512M"),
    "tasks": (_NUMBER, "such as 64"),
    "cpu": (re.compile(r"[1-9][0-9]*%"), 'such as "100%"'),
    "io": (re.compile(r"[1-9][0-9]{0,3}|10000"), "from 1 to 10000"),
    "files": (_NUMBER, "such as 1024"),
    "children": (_NUMBER, "such as 5"),
    "connections": (_NUMBER, "such as 60"),
}
DEFAULT_PROFILE = "petit"
LEAST_MEMORY = "128M"
"""A master, its code cache of 64M and one page."""
LEAST_FILES = 128
"""PHP with its extensions has some twenty open before the first line of a page, a page of a CMS some dozens."""


def problems(
    accounts: Sequence[Entry], sites: Sequence[Entry], versions: Sequence[str], profiles: Sequence[Entry]
) -> list[str]:
    """Return one sentence for each thing that cannot work; `versions` are those that the PHP runtimes offer."""
    accounts, sites, profiles = _named(accounts), _named(sites), _named(profiles)
    return [
        *_versions(versions),
        *_profiles(profiles),
        *_accounts(accounts, sites, profiles),
        *_names(sites),
        *_sites(sites, {account["name"] for account in accounts}, versions),
        *_databases(sites),
        *_settings(sites),
        *_disabled(sites),
        *_connections(sites),
        *_overrides(sites),
    ]


def notices(sites: Sequence[Entry], runtimes: Iterable[Entry]) -> list[str]:
    """Return one sentence for each thing that works, but not for ever: a PHP that retires and is still in use."""
    found = []
    for runtime in runtimes:
        names = [site["name"] for site in _named(sites) if str(site.get("php")) == runtime["version"]]
        if names and (runtime.get("retiring") or runtime.get("until")):
            when = f" on {runtime['until']}" if runtime.get("until") else ""
            found.append(
                f"PHP {runtime['version']} retires{when}, and {_counted(names)} it: {', '.join(names)}. "
                "Change `php` of each; the runtime cannot go before."
            )
    return found


def unix_accounts(accounts: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the accounts as the module `accounts` takes them."""
    return [
        {
            "name": account["name"],
            "home": f"{HOME}/{account['name']}",
            "shell": "/usr/sbin/nologin",
            "comment": account.get("comment", ""),
            **{key: account[key] for key in ("uid", "password_hash") if account.get(key)},
        }
        for account in accounts
    ]


def limits(account: Entry, profiles: Iterable[Entry]) -> dict[str, Any]:
    """Return what an account may use: its profile's values, and its own over them."""
    wanted = account.get("profile") or DEFAULT_PROFILE
    profile = next((profile for profile in profiles if profile["name"] == wanted), {})
    return {**{word: profile[word] for word in _LIMITS if word in profile}, **(account.get("limits") or {})}


def default_limits(profiles: Iterable[Entry]) -> dict[str, Any]:
    """Return what the slice of an account may use that says nothing."""
    usual = limits({}, profiles)
    return {word: usual[word] for word in ("memory", "tasks", "cpu", "io")}


def members(accounts: Iterable[Entry], profiles: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the accounts, each with those limits of its slice that differ from the default profile's."""
    usual = default_limits(profiles)
    found = []
    for account in accounts:
        own = limits(account, profiles)
        differing = {word: own[word] for word in usual if own[word] != usual[word]}
        found.append({**{key: account[key] for key in account if key != "profile"}, "limits": differing})
    return found


def pools(
    sites: Iterable[Entry], accounts: Iterable[Entry] = (), profiles: Sequence[Entry] = ()
) -> list[dict[str, Any]]:
    """Return one pool for each account and PHP version in use; the sites of an account on one version share it."""
    allowed = {account["name"]: limits(account, profiles) for account in accounts}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for site in sites:
        if site.get("php"):
            account, version = site["account"], site["php"]
            pool = found.setdefault(
                (account, version),
                {
                    "account": account,
                    "version": version,
                    "settings": {},
                    "disabled": [],
                    **{word: allowed[account][word] for word in ("children", "files") if account in allowed},
                },
            )
            pool["settings"].update(site.get("php_settings") or {})
            pool["disabled"] = sorted(set(site.get("php_disabled") or pool["disabled"]))
    return [found[key] for key in sorted(found)]


def socket(account: str, version: str) -> str:
    """Return the entrance of an account's PHP of that version."""
    return f"/run/php/{version}/{account}.sock"


def virtual_hosts(sites: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the virtual hosts: names, account and the entrance of its PHP (empty for a site without)."""
    return [
        {
            "name": site["name"],
            "aliases": list(site.get("aliases") or []),
            "account": site["account"],
            "socket": socket(site["account"], site["php"]) if site.get("php") else "",
            **({"apache": site["apache"]} if site.get("apache") else {}),
        }
        for site in sites
        if not site.get("redirect")
    ]


def accounts_of(sites: Iterable[Entry], files: Iterable[Entry]) -> list[str]:
    """Return the accounts of the sites whose virtual hosts are among these files (mappings with a `path`)."""
    names = {str(file["path"]).rpartition("/")[2] for file in files}
    return sorted({site["account"] for site in sites if f"{site['name']}.conf" in names})


def redirections(sites: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the sites that only lead elsewhere, as the role `sites` takes them."""
    return [
        {"name": site["name"], "aliases": list(site.get("aliases") or []), **site["redirect"]}
        for site in sites
        if site.get("redirect")
    ]


def databases(sites: Iterable[Entry]) -> list[dict[str, str]]:
    """Return the databases, each with its account as the user: it enters by its Unix login, no password exists."""
    return [
        {"name": name, "user": user}
        for name, user in sorted({(s["database"], s["account"]) for s in sites if s.get("database")})
    ]


def peers(groups: Mapping[str, Sequence[str]], hosts: Mapping[str, Entry]) -> dict[str, list[str]]:
    """Return the addresses behind each name that a firewall rule may use: every group, and every host."""
    named = {**{host: [host] for members in groups.values() for host in members}, **groups}
    return {
        name: [address for host in members for address in (hosts[host]["hosting_ipv4"], hosts[host]["hosting_ipv6"])]
        for name, members in named.items()
    }


def mail_nodes(names: Iterable[str], hosts: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """Return the hosts whose PHP sends mail, by the name and the addresses that a mail server knows them by."""
    return [
        {
            "name": hosts[name]["hosting_fqdn"],
            "addresses": [hosts[name]["hosting_ipv4"], hosts[name]["hosting_ipv6"]],
        }
        for name in names
    ]


def backup_repositories(
    stores: Iterable[str], hosts: Mapping[str, Entry], client: str, reads: bool = False
) -> list[dict[str, str]]:
    """Return where a client's backups go: one repository at each store, under a user of its own.

    `reads` gives the store's other door, by which a throwaway machine of a drill reads and writes nothing.
    """
    user = "backup-reader" if reads else f"backup-{client}"
    return [
        {"label": store, "path": f"ssh://{user}@{hosts[store]['hosting_fqdn']}/srv/backups/{client}/live"}
        for store in stores
    ]


def backup_clients(clients: Iterable[str], stores: Sequence[str], hosts: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """Return what whoever prunes backups must know of each client: where they are, and what opens them."""
    return [
        {
            "name": client,
            "passphrase": hosts[client]["backup_passphrase"],
            "repositories": backup_repositories(stores, hosts, client),
        }
        for client in clients
    ]


def names(sites: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return what the certificates know of a site: its names."""
    return [{"name": site["name"], "aliases": list(site.get("aliases") or [])} for site in sites]


def front_sites(sites: Iterable[Entry], accounts: Iterable[Entry], profiles: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return what the front knows of a site: its names, its requests at once, and what else it wants for itself.

    A redirection has no limit of an account, and answers before it has a certificate.
    """
    sites = list(sites)
    allowed = {account["name"]: limits(account, profiles)["connections"] for account in accounts}
    return [
        {**known, "plain_http": True}
        if site.get("redirect")
        else {
            **known,
            "connections": site.get("connections") or allowed[site["account"]],
            **{key: site[key] for key in ("robots", "requests", "expensive") if site.get(key)},
        }
        for site, known in zip(sites, names(sites))
    ]


def cms_sites(sites: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the sites in which the bench installs a CMS, as the role `cms` takes them."""
    keys = ("name", "account", "php", "database")
    return [{**{key: site[key] for key in keys if key in site}, **site["cms"]} for site in sites if site.get("cms")]


def _named(entries: Iterable[Any]) -> list[Entry]:
    """Keep what can be judged: the contracts of the variables say what is wrong with the shape of the rest."""
    return [entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)]


def _profiles(profiles: Sequence[Entry]) -> Iterator[str]:
    names = Counter(profile["name"] for profile in profiles)
    for name, count in names.items():
        if count > 1:
            yield f"The profile {name} is declared {count} times in hosting_profiles: keep one."
    if DEFAULT_PROFILE not in names:
        yield f"hosting_profiles has no {DEFAULT_PROFILE}, which accounts take that name no profile: put it back."
    for profile in profiles:
        yield from _limits(f"The profile {profile['name']}", profile, profile, 1)


def _accounts(accounts: Sequence[Entry], sites: Sequence[Entry], profiles: Sequence[Entry]) -> Iterator[str]:
    for name, count in Counter(account["name"] for account in accounts).items():
        if count > 1:
            yield f"The account {name} is declared {count} times in hosting_accounts: keep one."
        if not _LOGIN.fullmatch(name):
            yield (
                f"{name!r} cannot be an account: a login has 2 to 31 characters, lower-case letters and digits, "
                "and begins with a letter (no dash, no accent)."
            )
    known = [profile["name"] for profile in profiles]
    versions: dict[str, set[str]] = {}
    for site in sites:
        if site.get("php"):
            versions.setdefault(str(site.get("account")), set()).add(site["php"])
    for account in accounts:
        yield from _access(account)
        yield from _outgoing(account)
        wanted, own = account.get("profile") or DEFAULT_PROFILE, account.get("limits") or {}
        if wanted not in known and wanted != DEFAULT_PROFILE:
            near = difflib.get_close_matches(str(wanted), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}."
            yield (
                f"The account {account['name']} has the profile {wanted}, which hosting_profiles does not know: {hint}"
            )
        count = len(versions.get(account["name"], ()))
        if own or count > 1:  # else its profile was judged already
            yield from _limits(f"The account {account['name']}", own, limits(account, profiles), count)


def _access(account: Entry) -> Iterator[str]:
    for key in account.get("keys") or []:
        if not _KEY.fullmatch(str(key)):
            yield f"A key of the account {account['name']} is not an SSH public key: give the whole line of the .pub."
    password = account.get("password_hash")
    if password and not _PASSWORD_HASH.fullmatch(str(password)):
        yield (
            f"password_hash of the account {account['name']} is not a hash: make one with `mkpasswd`, "
            "and keep it in the vault."
        )


def _outgoing(account: Entry) -> Iterator[str]:
    try:
        firewall.outgoing([account])
    except ValueError as error:
        yield f"outgoing of the account {account['name']}: {error}."


def _limits(who: str, said: Entry, whole: Entry, versions: int) -> Iterator[str]:
    """Judge the amounts that were said one by one, then the whole: what a profile and an account make together."""
    wrong = False
    for word, value in said.items():
        amount, example = _LIMITS.get(word, (None, ""))
        if amount and not amount.fullmatch(str(value)):
            wrong = True
            yield f"{who} has {word}: {value} as a limit: write an amount {example}."
    if wrong or not all(_LIMITS[word][0].fullmatch(str(whole.get(word, ""))) for word in _LIMITS):
        return  # said above, or where the profile is judged
    if _bytes(whole["memory"]) < _bytes(LEAST_MEMORY):
        yield (
            f"{who} has {whole['memory']} of memory, but PHP with its code cache and one page needs {LEAST_MEMORY}: "
            "give it that at least."
        )
    if int(whole["files"]) < LEAST_FILES:
        yield (
            f"{who} may have {whole['files']} files open, but PHP and one page need {LEAST_FILES}: "
            "give it that at least."
        )
    processes = (int(whole["children"]) + 1) * max(1, versions)
    if processes > int(whole["tasks"]):
        masters = "its master" if versions < 2 else f"a master, for each of its {versions} versions of PHP"
        yield (
            f"{who} has {whole['tasks']} tasks, fewer than its PHP takes ({whole['children']} children and {masters}: "
            f"{processes}): raise `tasks` or lower `children`."
        )


def _bytes(memory: Any) -> int:
    text = str(memory)
    number = text.rstrip("KMGT")
    return int(number) << 10 * " KMGT".index(text[len(number) :] or " ")


def _names(sites: Sequence[Entry]) -> Iterator[str]:
    owners: dict[str, list[str]] = {}
    for site in sites:
        for name in (site["name"], *(site.get("aliases") or [])):
            owners.setdefault(str(name), []).append(site["name"])
    for name, claims in owners.items():
        if len(claims) > 1:
            who = " and ".join(dict.fromkeys(claims))
            yield f"The name {name} is claimed {len(claims)} times in hosting_sites (by {who}): it leads to one site."
        if not _full_name(name):
            yield (
                f"{name!r} cannot be the name of a site: write a full domain name in lower case, "
                "accents as xn--… (`idn NAME` says how)."
            )


def _full_name(name: str) -> bool:
    labels = name.split(".")
    valid = len(labels) > 1 and all(_LABEL.fullmatch(label) for label in labels) and len(name) <= 253
    return valid and bool(_TOP_LABEL.fullmatch(labels[-1]))


def _counted(names: Sequence[str]) -> str:
    return "1 site still asks for" if len(names) == 1 else f"{len(names)} sites still ask for"


def _versions(versions: Sequence[str]) -> Iterator[str]:
    for version, count in Counter(map(str, versions)).items():
        # It becomes a part of paths and of the names of units.
        if not _VERSION.fullmatch(version):
            yield f'{version!r} in php_runtimes is not a version of PHP: write two numbers, such as "8.2".'
        if count > 1:
            yield f"PHP {version} is declared {count} times in php_runtimes: keep one."


def _sites(sites: Sequence[Entry], accounts: set[str], versions: Sequence[str]) -> Iterator[str]:
    unknown: dict[str, list[str]] = {}
    for site in sites:
        account, version = site.get("account"), site.get("php")
        if site.get("redirect"):
            yield from _redirect(site)
            continue
        if not account:
            yield f"The site {site['name']} has no account: say whose it is (`account: …`)."
        elif account not in accounts:
            close = difflib.get_close_matches(str(account), accounts, 1)
            hint = f"did you mean {close[0]}?" if close else "declare it in hosting_accounts."
            yield f"The site {site['name']} belongs to {account}, which is no declared account: {hint}"
        if version and str(version) not in versions:
            unknown.setdefault(str(version), []).append(site["name"])
    offer = ", ".join(sorted(versions)) or "none"
    for version, names in unknown.items():
        which = f"no runtime offers (there are: {offer})"
        if len(names) == 1:
            yield (
                f"The site {names[0]} asks for PHP {version}, which {which}: "
                "change the site or add the version to php_runtimes."
            )
        else:
            yield (
                f"{len(names)} sites ask for PHP {version}, which {which}: {', '.join(names)}. "
                "Change these sites or add the version to php_runtimes."
            )


def unfit_target(to: str) -> str:
    """Return why an address cannot be where a redirection leads, empty when it can: it stands in Apache's files."""
    found = _URL.fullmatch(to)
    if not found or len(to) > 2000:
        return "write a whole URL (https://…), accents as %…, those of the host name as xn--…"
    return "" if _full_name(found[1]) else f"{found[1]} is no full domain name"


def _redirect(site: Entry) -> Iterator[str]:
    name, redirect = site["name"], site["redirect"]
    more = sorted({"account", "php", "php_settings", "database", "cms"} & set(site))
    if more:
        yield f"The site {name} leads elsewhere (`redirect`), so it cannot have {', '.join(more)}: keep one of the two."
    if not isinstance(redirect, Mapping) or not isinstance(redirect.get("to"), str):
        return  # the contract of the variable says so
    to = redirect["to"]
    reason = unfit_target(to)
    if reason:
        yield f"The redirection of {name} cannot lead to {to!r}: {reason}."
    elif urlsplit(to).hostname in (name, *(site.get("aliases") or [])):
        yield f"The redirection of {name} leads to itself ({to}): a visitor would go round in circles."
    if redirect.get("code") not in _CODES:
        yield f"The redirection of {name} has the code {redirect.get('code')}: 301 (for good) or 302 (for now)."
    if redirect.get("keep_path") and set(to) & set("?#"):
        yield f"The redirection of {name} keeps the visitor's path: nothing can follow a ? or # in {to}."


def _databases(sites: Sequence[Entry]) -> Iterator[str]:
    users: dict[str, set[str]] = {}
    for site in sites:
        name = site.get("database")
        if not name:
            continue
        if not _DATABASE.fullmatch(str(name)):
            yield (
                f"{name!r} cannot be the database of {site['name']}: lower-case letters, digits and _, "
                "at most 64, beginning with a letter."
            )
        users.setdefault(str(name), set()).add(str(site.get("account")))
    for name, accounts in users.items():
        if len(accounts) > 1:
            yield (
                f"The database {name} is used by the accounts {' and '.join(sorted(accounts))}: "
                "a database belongs to one account, give each site its own."
            )


def _settings(sites: Sequence[Entry]) -> Iterator[str]:
    seen: dict[tuple[str, str, str], tuple[str, Any]] = {}
    for site in sites:
        for word, value in (site.get("php_settings") or {}).items():
            key = (str(site.get("account")), str(site.get("php")), word)
            other, before = seen.setdefault(key, (site["name"], value))
            if before != value:
                yield (
                    f"{other} and {site['name']} share a pool (account {key[0]}, PHP {key[1]}) but want "
                    f"{word} = {before} and {value}: agree on one, or give one site another account."
                )


def _disabled(sites: Sequence[Entry]) -> Iterator[str]:
    seen: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for site in sites:
        functions = set(map(str, site.get("php_disabled") or ()))
        for function in sorted(functions):
            if not _FUNCTION.fullmatch(function):
                yield f"{site['name']} disables {function!r}, which is no function of PHP: write names such as exec."
        if not functions:
            continue
        key = (str(site.get("account")), str(site.get("php")))
        other, before = seen.setdefault(key, (site["name"], functions))
        if before != functions:
            yield (
                f"{other} and {site['name']} share a pool (account {key[0]}, PHP {key[1]}) but disable "
                f"{', '.join(sorted(before))} and {', '.join(sorted(functions))}: agree on one list, "
                "or give one site another account."
            )


def _connections(sites: Sequence[Entry]) -> Iterator[str]:
    amount, example = _LIMITS["connections"]
    for site in sites:
        value = site.get("connections")
        if value is not None and not amount.fullmatch(str(value)):
            yield f"The site {site['name']} has connections: {value}: write an amount {example}."


def _overrides(sites: Sequence[Entry]) -> Iterator[str]:
    for site in sites:
        # Apache's own check passes over these, but with a wrong one it would not start again, for anybody.
        for word in dict.fromkeys(_OURS.findall(str(site.get("apache") or ""))):
            yield (
                f"The site {site['name']} says {word} in `apache`, which is the platform's to say: "
                "take that line out; the site's logs stand in its account's logs/."
            )
