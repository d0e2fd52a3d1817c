# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""AlternC on this host, as the engine that applies its changes meets it: its database, and its own scripts."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

MARIADB = ["mariadb", "--defaults-file=/etc/alternc/my.cnf", "--batch", "--skip-column-names"]
SCRIPTS = Path("/usr/lib/alternc")
FLAGS = Path("/run/alternc/incron")
LOCK = Path("/run/alternc/cron.lock")
JOBS_LOCK = Path("/run/alternc/jobs-lock")
TEMPLATES = Path("/etc/alternc/templates/apache2")
VIRTUAL_HOSTS = Path("/var/lib/alternc/apache-vhost")
CANARY_RECORD, CANARY_SITE = "dns", "web"  # sub-domains of the canary's domain
REFUSED = "Apache refuse ce site, qui reste comme avant : "  # on AlternC's page of errors; LOOK knows it, too
STALE_SECONDS = 60  # nothing of AlternC holds a lock for so long without a process
SCRIPT_SECONDS = 1500

_PHP = re.compile(r"php(\d)(\d)-fpm")
_LOCK_HOLDERS = re.compile(
    rb"update_domains\.php|infini-alternc/door\.php|cron_ssl|generate_acme|alternc\.install|rebuild_all_webconf"
)

# Rows in one reading; what is to be deleted counts as gone, as update_domains.php takes it.
LOOK = """
SET SESSION TRANSACTION READ ONLY;
START TRANSACTION WITH CONSISTENT SNAPSHOT;
SELECT 'member', uid, login FROM membres WHERE uid >= 2000;
SELECT 'shut', login FROM membres WHERE uid >= 2000 AND NOT enabled;
SELECT 'pool', m.login, LOWER(s.type) FROM sub_domaines s JOIN membres m ON m.uid = s.compte
  WHERE s.type REGEXP '^php[0-9]{2}-fpm$' AND s.web_action <> 'DELETE' AND s.enable IN ('ENABLED', 'ENABLE')
  GROUP BY 2, 3;
SELECT 'domain', id, domaine FROM domaines WHERE dns_action <> 'OK';
SELECT 'site', id, CONCAT_WS('.', NULLIF(sub, ''), domaine) FROM sub_domaines WHERE web_action <> 'OK';
SELECT 'untyped', CONCAT_WS('.', NULLIF(s.sub, ''), s.domaine), s.type, s.id FROM sub_domaines s
  LEFT JOIN domaines_type t ON t.name = s.type WHERE t.name IS NULL;
SELECT 'refused', s.id, CONCAT_WS('.', NULLIF(s.sub, ''), s.domaine), LOWER(s.type), IF(t.has_https_option, s.https, '')
  FROM sub_domaines s JOIN domaines_type t ON t.name = s.type
  WHERE s.web_action = 'OK' AND s.web_result NOT IN ('', '0') AND s.web_result NOT LIKE 'Apache refuse %'
  AND s.enable = 'ENABLED';
SELECT 'told', id FROM sub_domaines WHERE web_result LIKE 'Apache refuse %';
SELECT 'zone', domaine, dns_result FROM domaines WHERE dns_action = 'OK' AND dns_result NOT IN ('', '0');
SELECT 'action', id, type FROM actions WHERE end IS NULL OR end = 0;
SELECT 'null', id FROM actions WHERE begin IS NULL OR (end IS NULL AND begin <> 0);
COMMIT;
"""


class PanelError(Exception):
    """AlternC cannot be asked, or did not do its part; one sentence says what, where and the mend."""


@dataclass(frozen=True)
class Site:
    """A sub-domain whose last change AlternC could not carry out, or whose type is gone."""

    name: str
    type: str
    id: str = ""
    https: str = ""

    @property
    def template(self) -> Path:
        """Return the template that its virtual host is made from."""
        return TEMPLATES / f"{self.type}{'-' + self.https if self.https else ''}.conf"


@dataclass
class Seen:
    """What the panel's database says at one moment."""

    members: dict[str, int] = field(default_factory=dict)  # user numbers by login
    shut: list[str] = field(default_factory=list)  # logins that may not enter the panel
    pools: set[tuple[str, str]] = field(default_factory=set)  # (login, version of PHP)
    domains: dict[str, str] = field(default_factory=dict)  # names by row, of those that wait
    sites: dict[str, str] = field(default_factory=dict)
    untyped: list[Site] = field(default_factory=list)
    refused: list[Site] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # rows that say that Apache refuses them
    zones: dict[str, str] = field(default_factory=dict)  # results by domain, where it is none
    actions: dict[str, str] = field(default_factory=dict)
    never: list[str] = field(default_factory=list)  # actions that AlternC overlooks

    @property
    def waits(self) -> bool:
        """Tell whether update_domains.php has something to do that it can do."""
        return bool(self.domains or set(self.sites) - {site.id for site in self.untyped})

    def left_of(self, before: Seen) -> Seen:
        """Return the same without what came after another look: a flag has asked for it, and the next run takes it."""
        asked = any(FLAGS.glob("*.lock"))

        def kept(rows: dict[str, str], old: dict[str, str]) -> dict[str, str]:
            return {} if asked else {row: name for row, name in rows.items() if row in old}

        return replace(
            self,
            domains=kept(self.domains, before.domains),
            sites=kept(self.sites, before.sites),
            actions=kept(self.actions, before.actions),
        )


def seen(lines: Iterable[str]) -> Seen:
    """Return what the answer to LOOK says."""
    found = Seen()
    for kind, *fields in (line.split("\t") for line in lines):
        if kind == "member":
            found.members[fields[1]] = int(fields[0])
        elif kind == "pool":
            version = _PHP.fullmatch(fields[1])
            if version:
                found.pools.add((fields[0], f"{version[1]}.{version[2]}"))
        elif kind in ("domain", "site", "action"):
            getattr(found, f"{kind}s")[fields[0]] = fields[1]
        elif kind == "untyped":
            found.untyped.append(Site(*fields))
        elif kind == "refused":
            found.refused.append(Site(fields[1], fields[2], fields[0], fields[3]))
        elif kind == "zone":
            found.zones[fields[0]] = fields[1]
        elif kind in ("told", "null", "shut"):
            {"told": found.told, "null": found.never, "shut": found.shut}[kind].append(fields[0])
    return found


def query(sql: str) -> list[str]:
    """Run statements in the panel's database and return the lines of the answer."""
    try:
        done = subprocess.run(
            MARIADB, input=sql, capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise PanelError(f"The panel's database cannot be asked ({error}): nothing was touched") from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise PanelError(f"The panel's database does not answer ({said}): nothing was touched, see mariadb.service")
    return done.stdout.splitlines()


def look() -> Seen:
    """Return what the panel says now, or raise PanelError; a panel without its administrator is no answer."""
    found = seen(query(LOOK))
    if 2000 not in found.members.values():
        raise PanelError(
            "The panel's database has no administrator (member 2000): that is no AlternC, nothing was touched"
        )
    return found


def script(name: str) -> str:
    """Run one of AlternC's own scripts and return what it said: a good run is silent, and its status means nothing."""
    # A file, not a pipe: what a script leaves in the background keeps a pipe open, and us waiting.
    with tempfile.TemporaryFile() as said:
        try:
            subprocess.run(
                [str(SCRIPTS / name)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=SCRIPT_SECONDS,
                check=False,
            )
        except OSError as error:
            raise PanelError(f"AlternC's {name} cannot be run ({error}): is the package alternc whole?") from error
        except subprocess.TimeoutExpired as error:
            raise PanelError(f"AlternC's {name} did not end within {SCRIPT_SECONDS} s and was stopped") from error
        said.seek(0)
        return said.read().decode(errors="replace").strip()


def retry(sites: Iterable[Site]) -> None:
    """Have AlternC take these sub-domains again: it marks as done what it could not do."""
    ids = ", ".join(str(int(site.id)) for site in sites)
    query(f"UPDATE sub_domaines SET web_action = 'UPDATE' WHERE id IN ({ids}) AND web_action = 'OK';")  # noqa: S608 (numbers)


def tell_refused(reasons: Mapping[tuple[str, str], str]) -> None:
    """Let the rows of these virtual hosts, by owner and name, say why Apache refuses them, and no other row."""
    host = "CONCAT_WS('.', NULLIF(s.sub, ''), s.domaine)"
    ours = {f"s.compte = {int(uid)} AND {host} = {_text(name)}": REFUSED + why for (uid, name), why in reasons.items()}
    query(
        f"UPDATE sub_domaines s SET s.web_result = '0' WHERE s.web_result LIKE '{REFUSED}%'"  # noqa: S608 (quoted)
        + "".join(f" AND NOT ({where})" for where in ours)
        + ";\n"
        + "".join(
            f"UPDATE sub_domaines s JOIN domaines_type t ON t.name = s.type SET s.web_result = {_text(why[:255])} "  # noqa: S608 (the same)
            f"WHERE {where} AND NOT COALESCE(t.only_dns, 0) AND s.web_action = 'OK' AND s.enable = 'ENABLED';\n"
            for where, why in ours.items()
        )
    )


def _text(text: str) -> str:
    """Return a text as SQL takes it, whatever it holds and whatever set of characters the column has."""
    return f"_ascii X'{text.encode('ascii', 'replace').hex()}'"


def mark_all() -> None:
    """Have AlternC write all virtual hosts of our types; their zones have no part in it."""
    query("UPDATE sub_domaines SET web_action = 'UPDATE' WHERE web_action = 'OK' AND type REGEXP '^php[0-9]{2}-fpm$';")


def set_canary(domain: str, stamp: str) -> bool:
    """Let the canary's two rows say something new, made where they are missing; tell whether it has a domain."""
    name = re.sub(r"[^a-z0-9.-]", "", domain)
    rows = ((CANARY_RECORD, "txt", stamp), (CANARY_SITE, "url", f"http://{name}/{stamp}"))
    sql = f"UPDATE domaines SET dns_action = 'UPDATE' WHERE domaine = '{name}' AND dns_action = 'OK'; "  # noqa: S608 (a name's letters)
    for sub, kind, value in rows:
        where = f"domaine = '{name}' AND sub = '{sub}'"
        sql += (
            f"INSERT INTO sub_domaines (compte, domaine, sub, type, valeur) "  # noqa: S608 (the same)
            f"SELECT compte, domaine, '{sub}', '{kind}', '' FROM domaines "
            f"WHERE domaine = '{name}' AND NOT EXISTS (SELECT 1 FROM sub_domaines WHERE {where}); "
            f"UPDATE sub_domaines SET valeur = '{value}', web_action = 'UPDATE' WHERE {where}; "
        )
    return query(f"{sql}SELECT COUNT(*) FROM domaines WHERE domaine = '{name}';") == ["1"]  # noqa: S608 (the same)


def mend_actions() -> None:
    """Let AlternC see its queue of file actions: it looks for 0, where MariaDB 10.10 and later put NULL."""
    query(
        "SET SESSION sql_mode = ''; "  # which else refuses the very default that is wanted
        # First the rows: the change of the columns would put the time of day where NULL stood.
        "UPDATE actions SET begin = 0 WHERE begin IS NULL; UPDATE actions SET end = 0 WHERE end IS NULL; "
        "ALTER TABLE actions MODIFY begin timestamp NOT NULL DEFAULT '0000-00-00 00:00:00', "
        "MODIFY end timestamp NOT NULL DEFAULT '0000-00-00 00:00:00';"
    )


def prepare_directories() -> list[str]:
    """Put back what /run has lost; return what was missing."""
    missing = [str(path) for path in (FLAGS.parent, FLAGS) if not path.is_dir()]
    if missing:
        subprocess.run(["systemd-tmpfiles", "--create", "alternc.conf"], capture_output=True, check=False)
    return missing


def clear_flags() -> None:
    """Take the flags away before looking: one that is set from now on counts for the next run."""
    for flag in FLAGS.glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):
            flag.unlink()


def processes() -> Iterator[bytes]:
    """Yield the command lines of all processes."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield line.read_bytes()


def remove_stale_locks() -> list[str]:
    """Remove AlternC's locks that nobody holds any more; return their names."""
    stale = []
    for lock in (LOCK, JOBS_LOCK):
        with contextlib.suppress(FileNotFoundError):
            old = time.time() - lock.stat().st_mtime
            # A clock that jumped makes a lock that is never old enough.
            if not 0 <= old < STALE_SECONDS and not any(_LOCK_HOLDERS.search(line) for line in processes()):
                lock.unlink()
                stale.append(lock.name)
    return stale


def virtual_hosts() -> dict[str, bytes]:
    """Return the virtual hosts that AlternC has made and those added by hand, by owner and name."""
    found = {}
    for path in [*VIRTUAL_HOSTS.glob("[0-9]/*/*.conf"), *VIRTUAL_HOSTS.glob("manual/[!.]*[!~]")]:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            name = path.name if path.name.endswith(".conf") else f"{path.name}.conf"
            found[f"{path.parent.name}/{name}"] = path.read_bytes()
    return found
