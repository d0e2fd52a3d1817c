# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an AlternC panel holds, as the data that its modules take: one question to its database, never a write.

Everything is normal form: types in small letters, forwards split and sorted, true and false instead of numbers, and
what AlternC is about to delete is absent (`taken` says why its name is not free yet). What belongs to another program,
a list's addresses say, is not in the data either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CONFIGURATION = "/etc/alternc/my.cnf"
COMMAND = (
    "mariadb",
    f"--defaults-file={CONFIGURATION}",
    "--default-character-set=utf8mb4",
    *("--batch", "--raw", "--skip-column-names"),
)
ADMIN = "admin"
Entry = dict[str, Any]

# Every line of the answer is one JSON object; `set` says which rows it belongs to.
READ = """
START TRANSACTION READ ONLY;
SELECT JSON_OBJECT('set', 'members', 'uid', m.uid, 'login', m.login, 'name', COALESCE(l.nom, ''),
  'first_name', COALESCE(l.prenom, ''), 'mail', m.mail, 'profile', COALESCE(m.type, 'default'), 'enabled', m.enabled,
  'admin', m.su, 'notes', m.notes, 'duration', COALESCE(m.duration, 0), 'hash', m.pass)
  FROM membres m LEFT JOIN local l ON l.uid = m.uid;
SELECT JSON_OBJECT('set', 'domains', 'name', LOWER(domaine), 'uid', compte, 'dns', gesdns, 'mail', gesmx,
  'ttl', zonettl, 'keep', noerase, 'going', dns_action = 'DELETE') FROM domaines;
SELECT JSON_OBJECT('set', 'subdomains', 'domain', LOWER(domaine), 'sub', LOWER(sub), 'type', LOWER(type),
  'value', COALESCE(valeur, ''), 'https', LOWER(https), 'enabled', enable IN ('ENABLE', 'ENABLED'))
  FROM sub_domaines WHERE web_action <> 'DELETE';
SELECT JSON_OBJECT('set', 'mailboxes', 'id', a.id, 'local', a.address, 'domain', LOWER(d.domaine), 'type', a.type,
  'enabled', a.enabled, 'mailbox', COALESCE(m.mail_action = 'OK', 0), 'quota_mb', COALESCE(m.quota, 0),
  'bytes', COALESCE(m.bytes, 0), 'hash', COALESCE(a.password, ''), 'going', a.mail_action <> 'OK')
  FROM address a JOIN domaines d ON d.id = a.domain_id LEFT JOIN mailbox m ON m.address_id = a.id
  WHERE d.dns_action <> 'DELETE';
SELECT JSON_OBJECT('set', 'recipients', 'id', address_id, 'forwards', recipients) FROM recipient;
SELECT JSON_OBJECT('set', 'bytes', 'address', user, 'bytes', quota_dovecot) FROM dovecot_quota WHERE quota_dovecot > 0;
SELECT JSON_OBJECT('set', 'databases', 'name', db, 'uid', uid) FROM db;
SELECT JSON_OBJECT('set', 'database_users', 'name', name, 'uid', uid, 'hash', COALESCE(password, ''))
  FROM dbusers WHERE enable = 'ACTIVATED';
SELECT JSON_OBJECT('set', 'grants', 'name', User, 'database', Db) FROM mysql.db;
SELECT JSON_OBJECT('set', 'ftp_accounts', 'name', name, 'uid', uid, 'directory', homedir, 'enabled', enabled,
  'hash', COALESCE(NULLIF(encrypted_password, ''), password)) FROM ftpusers;
SELECT JSON_OBJECT('set', 'domain_types', 'name', LOWER(name), 'description', COALESCE(description, ''),
  'target', target, 'entry', COALESCE(entry, ''), 'compatibility', LOWER(COALESCE(compatibility, '')), 'enable', enable,
  'only_dns', COALESCE(only_dns, 0), 'need_dns', COALESCE(need_dns, 1), 'advanced', COALESCE(advanced, 1),
  'create_tmpdir', create_tmpdir, 'create_targetdir', create_targetdir, 'has_https_option', has_https_option)
  FROM domaines_type;
SELECT JSON_OBJECT('set', 'variables', 'name', name, 'value', value) FROM variable;
SELECT JSON_OBJECT('set', 'defaults', 'profile', type, 'quota', quota, 'value', COALESCE(value, 0)) FROM defquotas;
SELECT JSON_OBJECT('set', 'quotas', 'uid', uid, 'quota', name, 'value', total) FROM quotas;
SELECT JSON_OBJECT('set', 'policies', 'name', name, 'minsize', minsize, 'maxsize', maxsize, 'classcount', classcount,
  'allowlogin', allowlogin) FROM policy;
SELECT JSON_OBJECT('set', 'used', 'quota', 'dom', 'uid', compte, 'count', COUNT(*)) FROM domaines GROUP BY compte;
SELECT JSON_OBJECT('set', 'used', 'quota', 'mail', 'uid', d.compte, 'count', COUNT(*))
  FROM address a JOIN domaines d ON d.id = a.domain_id WHERE a.type = '' GROUP BY d.compte;
SELECT JSON_OBJECT('set', 'used', 'quota', 'mysql', 'uid', uid, 'count', COUNT(*)) FROM db GROUP BY uid;
SELECT JSON_OBJECT('set', 'used', 'quota', 'ftp', 'uid', uid, 'count', COUNT(*)) FROM ftpusers GROUP BY uid;
COMMIT;
"""

_FLAGS = {
    "members": ("enabled", "admin"),
    "domains": ("dns", "mail", "keep"),
    "subdomains": ("enabled",),
    "mailboxes": ("enabled", "mailbox"),
    "ftp_accounts": ("enabled",),
    "domain_types": ("only_dns", "need_dns", "advanced", "create_tmpdir", "create_targetdir", "has_https_option"),
}
_OWN_TYPES = ("", "catchall")  # addresses of another type belong to the program that made them
_DKIM = ("alternc._domainkey", "dkim")  # AlternC makes this row from a key on the host's disk, and makes it again


@dataclass(frozen=True)
class Panel:
    """What the panel holds."""

    sets: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)  # kind → key → hash
    defaults: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # profile → quota → value
    quotas: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # login → quota → value
    used: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # login → quota → count
    policies: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    size: Mapping[str, int] = field(default_factory=dict)  # address → bytes
    taken: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (kind, key) → why the name is not free

    def rows(self, kind: str) -> Sequence[Entry]:
        """Return the entries of a kind."""
        return self.sets.get(kind, ())

    def by(self, kind: str, key: str) -> dict[str, Entry]:
        """Return the entries of a kind by one of their fields."""
        return {row[key]: row for row in self.rows(kind)}


def parse(text: str) -> Panel:
    """Build the panel from the answer to READ."""
    rows: dict[str, list[Entry]] = {}
    for line in text.splitlines():
        row = json.loads(line)
        rows.setdefault(row.pop("set"), []).append(row)
    for kind, flags in _FLAGS.items():
        for row in rows.get(kind, ()):
            row.update((flag, bool(row[flag])) for flag in flags)
    logins = {row["uid"]: row["login"] for row in rows.get("members", ())}
    taken: dict[tuple[str, str], str] = {}
    sets = {
        "members": [_without(row, "uid", "hash") for row in rows.get("members", ())],
        "domains": list(_domains(rows.get("domains", ()), logins, taken)),
        "databases": [{"name": row["name"], "member": logins.get(row["uid"], "")} for row in rows.get("databases", ())],
        "database_users": list(_database_users(rows, logins)),
        "ftp_accounts": [_ftp(row, logins.get(row["uid"], "")) for row in rows.get("ftp_accounts", ())],
        "domain_types": [
            {**row, "compatibility": split(row["compatibility"], ",")} for row in rows.get("domain_types", ())
        ],
        "variables": rows.get("variables", []),
    }
    hosted = {row["name"] for row in sets["domains"]}
    sets["subdomains"] = list(_subdomains(rows.get("subdomains", ()), hosted, sets["domain_types"]))
    sets["mailboxes"] = list(_mailboxes(rows, taken))
    defaults = _nested((row["profile"], row["quota"], row["value"]) for row in rows.get("defaults", ()))
    quotas = _nested((logins.get(row["uid"], ""), row["quota"], row["value"]) for row in rows.get("quotas", ()))
    sets["quotas"] = quota_rows(defaults, quotas)[0]
    return Panel(
        sets=sets,
        secrets=_secrets(rows),
        defaults=defaults,
        quotas=quotas,
        used=_nested((logins.get(row["uid"], ""), row["quota"], row["count"]) for row in rows.get("used", ())),
        policies={row["name"]: _without(row, "name") for row in rows.get("policies", ())},
        size=_sizes(rows),
        taken=taken,
    )


def quota_rows(
    defaults: Mapping[str, Mapping[str, Any]], members: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Entry], list[str]]:
    """Return quotas as entries of a set, one a line, and what is wrong with them."""
    rows: list[Entry] = []
    problems = []
    for table, name in ((defaults, "profile"), (members, "member")):
        for key, row in table.items():
            if not isinstance(row, Mapping):
                problems.append(f"the quotas of {name} {key} are {row!r}: write {{dom: 1, mail: 25}}")
                continue
            for quota, value in row.items():
                if not re.fullmatch(r"-?[0-9]+", str(value)):
                    problems.append(f"quota {quota} of {name} {key} is {value!r}: write a whole number")
                    continue
                rows.append({"member": None, "profile": None, name: key, "quota": quota, "value": int(value)})
    return rows, problems


def split(text: str, separator: str = r"\s") -> list[str]:
    """Return the words of a list as AlternC stores it, in one order, each once."""
    return sorted({word.strip() for word in re.split(separator, text) if word.strip()})


def https_of(entry: Mapping[str, Any], types: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the https choice that a row has: AlternC takes `both` where none is said, none where its type has none."""
    if not types.get(entry["type"], {}).get("has_https_option"):
        return ""
    return entry["https"] if entry["https"] in ("http", "https", "both") else "both"


def is_dkim(entry: Mapping[str, Any]) -> bool:
    """Whether a sub-domain is the row that AlternC makes of its own signing key."""
    return (entry["sub"], entry["type"]) == _DKIM


def _domains(rows: Iterable[Entry], logins: Mapping[int, str], taken: dict[tuple[str, str], str]) -> Iterable[Entry]:
    for row in rows:
        if row["going"]:
            taken["domains", row["name"]] = "AlternC is still removing it: run alternc-apply, then this again"
            continue
        yield {
            "name": row["name"],
            "member": logins.get(row["uid"], ""),
            **{key: row[key] for key in ("dns", "mail", "ttl", "keep")},
        }


def _subdomains(rows: Iterable[Entry], hosted: set[str], types: Iterable[Entry]) -> Iterable[Entry]:
    by_name = {row["name"]: row for row in types}
    for row in rows:
        if row["domain"] in hosted and not is_dkim(row):
            yield {**row, "https": https_of(row, by_name)}


def _mailboxes(rows: Mapping[str, Sequence[Entry]], taken: dict[tuple[str, str], str]) -> Iterable[Entry]:
    forwards: dict[int, list[str]] = {}
    for row in rows.get("recipients", ()):
        forwards.setdefault(row["id"], []).extend(split(row["forwards"]))
    for row in rows.get("mailboxes", ()):
        address = f"{row['local']}@{row['domain']}"
        if row["type"] not in _OWN_TYPES:
            taken["mailboxes", address] = f"it belongs to {row['type']}: choose another"
        elif not row["going"]:
            yield {
                "address": address,
                "mailbox": row["mailbox"],
                "quota_mb": row["quota_mb"] if row["mailbox"] else 0,
                "enabled": row["enabled"],
                "forwards": sorted(set(forwards.get(row["id"], ()))),
            }


def _database_users(rows: Mapping[str, Sequence[Entry]], logins: Mapping[int, str]) -> Iterable[Entry]:
    known = {row["name"] for row in rows.get("databases", ())}
    grants: dict[Any, Any] = {}
    for row in rows.get("grants", ()):
        name = re.sub(r"\\([_%])", r"\1", row["database"])
        if name in known:
            grants.setdefault(row["name"], set()).add(name)
    for row in rows.get("database_users", ()):
        databases = sorted(grants.get(row["name"], ()))
        yield {"name": row["name"], "member": logins.get(row["uid"], ""), "databases": databases}


def _ftp(row: Entry, login: str) -> Entry:
    """Return an FTP account with its directory as its member knows it, from the home down."""
    home = f"/{login[:1]}/{login}"
    found = re.search(rf"{re.escape(home)}(/.*)?$", row["directory"].rstrip("/"))
    directory = (found.group(1) or "/") if found else row["directory"]
    return {"name": row["name"], "member": login, "directory": directory, "enabled": row["enabled"]}


def _secrets(rows: Mapping[str, Sequence[Entry]]) -> dict[str, dict[str, str]]:
    named = {"members": "login", "database_users": "name", "ftp_accounts": "name"}
    found = {kind: {row[key]: row["hash"] for row in rows.get(kind, ())} for kind, key in named.items()}
    found["mailboxes"] = {f"{row['local']}@{row['domain']}": row["hash"] for row in rows.get("mailboxes", ())}
    return found


def _sizes(rows: Mapping[str, Sequence[Entry]]) -> dict[str, int]:
    sizes = {f"{row['local']}@{row['domain']}": row["bytes"] for row in rows.get("mailboxes", ()) if row["bytes"]}
    for row in rows.get("bytes", ()):
        sizes[row["address"]] = max(row["bytes"], sizes.get(row["address"], 0))
    return sizes


def _nested(cells: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for row, column, value in cells:
        table.setdefault(row, {})[column] = int(value)
    return table


def _without(row: Mapping[str, Any], *keys: str) -> Entry:
    return {key: value for key, value in row.items() if key not in keys}
