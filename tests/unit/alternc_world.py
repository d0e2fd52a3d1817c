# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small AlternC panel: what its database answers, and a host that stands for its client and its door."""

from __future__ import annotations

import json

TYPES = {  # name → target, only_dns, has_https_option, compatible types
    "vhost": ("DIRECTORY", 0, 1, "txt,defmx,mx"),
    "php82-fpm": ("DIRECTORY", 0, 1, "txt,defmx,mx"),
    "url": ("URL", 0, 0, "txt,defmx,mx"),
    "autodiscover": ("NONE", 0, 0, "txt"),
    "txt": ("TXT", 1, 0, "vhost,php82-fpm,url,ip,txt,mx,defmx,dkim"),
    "ip": ("IP", 1, 0, "ip,txt,mx,defmx"),
    "ipv6": ("IPV6", 1, 0, "ip,ipv6,txt"),
    "mx": ("DOMAIN", 1, 0, "vhost,php82-fpm,url,ip,txt,mx"),
    "cname": ("DOMAIN", 1, 0, ""),
    "defmx": ("NONE", 1, 0, "vhost,php82-fpm,url,ip,txt"),
    "dkim": ("TXT", 1, 0, "txt"),
}


def row(kind, **cells):
    return {"set": kind, **cells}


def member(uid, login, **cells):
    return row(
        "members",
        **{
            "uid": uid,
            "login": login,
            "name": login.title(),
            "first_name": "Asso",
            "mail": f"{login}@ailleurs.test",
            "profile": "default",
            "enabled": 1,
            "admin": 0,
            "notes": "",
            "duration": 0,
            "hash": "$2y$10$x",
            **cells,
        },
    )


def domain(name, uid, **cells):
    return row(
        "domains", **{"name": name, "uid": uid, "dns": 1, "mail": 1, "ttl": 3600, "keep": 0, "going": 0, **cells}
    )


def sub(domain_name, name, kind, value="", **cells):
    base = {"domain": domain_name, "sub": name, "type": kind, "value": value, "https": "", "enabled": 1}
    return row("subdomains", **{**base, **cells})


def box(number, local, domain_name, **cells):
    base = {"id": number, "local": local, "domain": domain_name, "type": "", "enabled": 1, "mailbox": 0}
    return row("mailboxes", **{**base, "quota_mb": 0, "bytes": 0, "hash": "", "going": 0, **cells})


def rows():
    """Return what the panel holds: two members, two domains, one of each kind of thing."""
    types = [
        row(
            "domain_types",
            name=name,
            description=name,
            target=target,
            entry="%SUB% IN A 10.0.0.1",
            enable="ALL",
            compatibility=fits,
            only_dns=dns,
            need_dns=0,
            advanced=0,
            create_tmpdir=0,
            create_targetdir=0,
            has_https_option=https,
        )
        for name, (target, dns, https, fits) in TYPES.items()
    ]
    quotas = [
        row("quotas", uid=uid, quota=quota, value=value)
        for uid in (2000, 2001, 2002)
        for quota, value in {"dom": 2, "mail": 4, "mysql": 1, "ftp": 2}.items()
    ]
    return [
        member(2000, "admin", admin=1),
        member(2001, "velo"),
        member(2002, "chorale"),
        domain("velo.fr", 2001),
        domain("chorale.fr", 2002, mail=0),
        domain("partie.fr", 2002, going=1),
        sub("velo.fr", "www", "vhost", "/www/velofr", https="both"),
        sub("velo.fr", "", "url", "http://www.velo.fr"),
        sub("velo.fr", "", "defmx"),
        sub("velo.fr", "", "txt", "v=spf1 a mx ?all"),
        sub("velo.fr", "alternc._domainkey", "dkim", "v=DKIM1; p=abc"),
        sub("chorale.fr", "www", "vhost", "/www/choralefr", https="both"),
        box(1, "contact", "velo.fr", mailbox=1, quota_mb=100, bytes=30 * 1024**2, hash="{SHA512-CRYPT}$6$a$b"),
        box(2, "bureau", "velo.fr"),
        box(3, "liste", "velo.fr", type="mailman"),
        row("recipients", id=2, forwards="contact@velo.fr\r\nami@ailleurs.org\n"),
        row("bytes", address="contact@velo.fr", bytes=40 * 1024**2),
        row("databases", name="velo", uid=2001),
        row("database_users", name="velo", uid=2001, hash="enclair"),
        row("grants", name="velo", database="velo"),
        row("grants", name="velo", database="mysql"),
        row("ftp_accounts", name="velo_site", uid=2001, directory="/var/www/alternc/v/velo/www", enabled=1, hash="$6$"),
        *types,
        row("variables", name="force_https", value="0"),
        row("variables", name="lxc_key", value="abcdef"),
        *(row("defaults", profile="default", quota=q, value=v) for q, v in {"dom": 2, "mail": 4, "ftp": 2}.items()),
        *quotas,
        *(row("used", quota=q, uid=2001, count=c) for q, c in {"dom": 1, "mail": 2, "mysql": 1, "ftp": 1}.items()),
        row("used", quota="dom", uid=2002, count=2),
        row("policies", name="pop", minsize=8, maxsize=64, classcount=3, allowlogin=0),
    ]


def answer(them=None):
    """Return them as the panel's database would."""
    return "".join(json.dumps(one) + "\n" for one in (rows() if them is None else them))
