# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sites still lack their CMS, and how each is installed: the thinking behind `cms_sites`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from html import escape

MEMBERS = "/srv/members"
TREES = "/srv/php"
DRIVERS = "/usr/local/lib/infini/cms"
DATABASE_SOCKET = "/run/mysqld/mysqld.sock"

# SPIP and WordPress correct typography as they print (quotes, ampersands): titles that checks look for avoid it.
_PLAIN = re.compile(r"[\w ,.\u2019()-]+")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_WORD = re.compile(r"[a-z][a-z0-9_]*")


class CmsError(Exception):
    """A site cannot be installed; the message says which, why, and what mends it."""


@dataclass(frozen=True)
class Kind:
    """What one CMS looks like in its Debian package and in its database."""

    package: str
    home: str
    config: str
    leave: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    libraries: str = ""
    own: tuple[tuple[str, str], ...] = ()
    tables: tuple[str, ...] = ()
    title: str = ""
    article: str = ""

    def wants(self, path: str) -> bool:
        """Whether this path of the package, relative to the CMS's folder, belongs into a member's copy."""
        left = any(fnmatchcase(path, pattern) for pattern in self.leave)
        return not left or any(fnmatchcase(path, pattern) for pattern in self.keep)


# What Debian's SPIP includes from /usr/share/php stands in the copy's own lib/.
_SPIP_OPTIONS = "<?php\nset_include_path(dirname(__DIR__) . '/lib' . PATH_SEPARATOR . get_include_path());\n"

KINDS = {
    "spip": Kind(
        package="spip",
        home="/usr/share/spip",
        config="config/connect.php",
        leave=("sites", "mutualisation", "config/mes_options.php"),  # Debian's many sites on one copy
        folders=("IMG", "local", "plugins", "themes", "tmp"),
        libraries="lib",
        own=(
            (
                "config/mes_options.php",
                "<?php\nset_include_path(dirname(__DIR__) . '/lib' . PATH_SEPARATOR . get_include_path());\n",
            ),
        ),
        tables=("spip_articles", "spip_meta"),
        title="SELECT valeur FROM `{database}`.spip_meta WHERE nom = 'nom_site'",
        article="SELECT titre FROM `{database}`.spip_articles WHERE id_article = 1 AND statut = 'publie'",
    ),
    "wordpress": Kind(
        package="wordpress",
        home="/usr/share/wordpress",
        config="wp-config.php",
        leave=(".htaccess", "wp-config.php", "wp-content/languages/*"),
        keep=("wp-content/languages/*fr_FR*",),
        folders=("wp-content/uploads",),
        tables=("wp_options", "wp_posts"),
        title="SELECT option_value FROM `{database}`.wp_options WHERE option_name = 'blogname'",
        article="SELECT post_title FROM `{database}`.wp_posts WHERE post_name = 'article' AND post_status = 'publish'",
    ),
}


@dataclass(frozen=True)
class Site:
    """One site as the inventory wants it."""

    name: str
    account: str
    kind: str
    title: str
    article: str
    php: str | None = None
    release: str | None = None
    database: str | None = None

    def __post_init__(self) -> None:
        """Write apostrophes the way SPIP and WordPress print them, so that checks find the titles again."""
        for field in ("title", "article"):
            object.__setattr__(self, field, getattr(self, field).replace("'", "\u2019"))

    @property
    def root(self) -> str:
        """Return the document root."""
        return f"{MEMBERS}/{self.account}/www/{self.name}"

    @property
    def secret(self) -> str:
        """Return the file that keeps the administrator's password: in the home, which only root writes to."""
        return f"{MEMBERS}/{self.account}/admin-{self.name}.txt"

    def __str__(self) -> str:
        """Return the site as a line of a diff."""
        what = self.kind if self.kind == "static" else f"{self.kind} of {self.release} on PHP {self.php}"
        return f"{self.name}: {what}, titled « {self.title} », with the article « {self.article} »"


@dataclass(frozen=True)
class Seen:
    """What stands of one site: whether its CMS is configured, and the titles it would show."""

    configured: bool = False
    title: str | None = None
    article: str | None = None


@dataclass(frozen=True)
class Step:
    """One site to bring to its wanted state; the files are copied unless the CMS is configured already."""

    site: Site
    seen: Seen

    @property
    def copy(self) -> bool:
        """Whether the files of the CMS have to be copied first."""
        return not self.seen.configured

    @property
    def before(self) -> str:
        """Return what is there now, as a line of a diff."""
        if not self.seen.configured:
            return f"{self.site.name}: no {self.site.kind} site"
        title, article = self.seen.title or "", self.seen.article or ""
        return f"{self.site.name}: a {self.site.kind} site, titled « {title} », with the article « {article} »"


def plan(sites: Iterable[Site], seen: Mapping[str, Seen]) -> list[Step]:
    """Return the sites that are not yet what they should be, in the order given."""
    steps = [Step(site, seen.get(site.name, Seen())) for site in sites]
    return [step for step in steps if step.seen != Seen(True, step.site.title, step.site.article)]


def refuse_impossible(sites: Sequence[Site]) -> None:
    """Raise one sentence about the first thing that cannot work."""
    for site in sites:
        problem = _problem(site)
        if problem:
            raise CmsError(f"the site {site.name} {problem}")
    for what, values in (
        ("name", [site.name for site in sites]),
        ("database", [site.database for site in sites if site.database]),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise CmsError(f"two sites have the {what} {twice[0]}: give each its own")


def _problem(site: Site) -> str:
    """Return why this site cannot be installed, or nothing."""
    if not _HOST.fullmatch(site.name):
        return "has no host name for a name: use something like velo.infini.test"
    if not _WORD.fullmatch(site.account):
        return f"belongs to {site.account!r}, which is no account name"
    for what, text in (("title", site.title), ("article", site.article)):
        if not _PLAIN.fullmatch(text):
            return f"has the {what} {text!r}: checks find it again only without quotes, colons, & and the like"
    if site.kind == "static":
        return ""
    missing = [name for name in ("php", "release", "database") if not getattr(site, name)]
    if missing:
        return f"is a {site.kind} site without {' and '.join(missing)}: add it to the inventory"
    if not _WORD.fullmatch(str(site.database)):
        return f"has the database {site.database!r}: use small letters, digits and _ only"
    return ""


def parse_table_list(answer: str) -> set[str]:
    """Return the tables that the server named, one `database.table` a line."""
    return set(answer.split())


def tables_question() -> str:
    """Return the SQL that names the tables that the CMS's leave behind."""
    names = ", ".join(f"'{table}'" for kind in KINDS.values() for table in kind.tables)
    return f"SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_name IN ({names})"  # noqa: S608  names are ours


def titles_question(sites: Iterable[Site], tables: set[str]) -> str:
    """Return one SQL question about the titles of every site whose tables exist, or nothing."""
    questions = []
    for site in sites:
        kind = KINDS.get(site.kind)
        if kind and all(f"{site.database}.{table}" in tables for table in kind.tables):
            titles = [_hexadecimal(text.format(database=site.database)) for text in (kind.title, kind.article)]
            questions.append(f"SELECT '{site.name}', {', '.join(titles)}")
    return " UNION ALL ".join(questions)


def _hexadecimal(question: str) -> str:
    """Ask for the answer in a form that travels as a column of text whatever it holds."""
    return f"HEX(CONVERT(({question} LIMIT 1) USING utf8mb4))"


def parse_titles(answer: str) -> dict[str, tuple[str | None, str | None]]:
    """Return the title and the article of each site in the server's answer."""
    rows = [line.split("\t") for line in answer.splitlines()]
    return {name: (_from_hex(title), _from_hex(article)) for name, title, article in rows}


def _from_hex(text: str) -> str | None:
    return None if text == "NULL" else bytes.fromhex(text).decode()


def runtime_root(version: str, trees: Iterable[str]) -> str:
    """Return the root directory that this PHP lives under."""
    return f"{TREES}/{version}" if version in trees else "/"


def install_command(site: Site, root: str) -> list[str]:
    """Return the command that runs the CMS's installer as the account, in the site's PHP, cut off from the network."""
    home = f"{MEMBERS}/{site.account}"
    world = ["TemporaryFileSystem=/run:ro /srv:ro"] if root == "/" else [f"RootDirectory={root}", "MountAPIVFS=yes"]
    properties = [
        f"User={site.account}",
        f"Group={site.account}",
        f"Slice=members-{site.account}.slice",
        *world,
        f"BindPaths={home}",
        f"BindReadOnlyPaths={DRIVERS} -/run/mysqld",
        "ProtectSystem=strict",
        f"ReadWritePaths={home}",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "PrivateNetwork=yes",
        "NoNewPrivileges=yes",
        "RuntimeMaxSec=300",
    ]
    php = [f"/usr/bin/php{site.php}", "-d", "display_errors=stderr", "-d", "log_errors=0", "-d", "memory_limit=256M"]
    # Hidden: what the PHP of a ten-year-old CMS has to say about its own age.
    php += ["-d", "error_reporting=E_ALL & ~E_DEPRECATED & ~E_NOTICE & ~E_WARNING"]
    return [
        # Named: an installer that outlives us after a kill keeps a second one from starting beside it.
        *["systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--unit=cms-{site.name}"],
        *[f"--property={name}" for name in properties],
        *[*php, f"{DRIVERS}/{site.kind}.php"],
    ]


def static_pages(site: Site, text: str) -> dict[str, str]:
    """Return the files of a static site."""
    link = f'<p><a href="article.html">{escape(site.article)}</a></p>'
    return {
        "index.html": _page(site.title, link),
        "article.html": _page(
            f"{site.article} - {site.title}", f"<h2>{escape(site.article)}</h2>\n<p>{escape(text)}</p>"
        ),
    }


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="fr">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
