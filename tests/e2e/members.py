# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sites of members, as tests use them: a directory of their own in each, filled as the account would fill it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import secrets
import shlex
import ssl
from dataclasses import dataclass

WHO = '<?php echo "I am ", posix_geteuid();'


@dataclass
class Site:
    """A site of an account, and the directory that the tests use in it."""

    account: str
    name: str
    socket: str
    uid: int
    folder: str

    @property
    def path(self) -> str:
        return f"/srv/members/{self.account}/www/{self.name}/{self.folder}"

    @property
    def version(self) -> str:
        return self.socket.split("/")[3]

    @property
    def master(self) -> str:
        return f"php{self.version}@{self.account}.service"

    @property
    def me(self) -> str:
        return f"I am {self.uid}"


def run(web, command, *words):
    """Run a command on the host; words are put into it quoted."""
    return web.check_output(command.format(*(shlex.quote(word) for word in words))).strip()


def put(web, site, name, text):
    """Write a file of the site as its account would."""
    encoded = base64.b64encode(text.encode()).decode()
    command = "echo {} | base64 -d | runuser -u {} -- sh -c 'umask 027; cat > \"$0\"' {}"
    run(web, command, encoded, site.account, f"{site.path}/{name}")


@contextlib.contextmanager
def site_of(web, account):
    """Give a site on PHP of an account, with a directory of our own in it."""
    config = run(web, "grep -l {} /etc/apache2/members/*.conf | head -n 1", f"proxy:unix:/run/php/.*/{account}.sock")
    name = config.rpartition("/")[2].removesuffix(".conf")
    socket = run(web, "sed -n {} {}", "s/.*proxy:unix:\\([^|]*\\)|.*/\\1/p", config)
    site = Site(account, name, socket, int(run(web, "id -u {}", account)), f"tests-{secrets.token_hex(4)}")
    run(web, "runuser -u {} -- mkdir {}", account, site.path)
    put(web, site, ".htaccess", "RewriteEngine Off\n")
    put(web, site, "who.php", WHO)
    put(web, site, "plain.txt", "plain")
    try:
        yield site
    finally:
        run(web, "rm -r {}", site.path)


class ToAddress(http.client.HTTPSConnection):
    """Connects to an address instead of asking the name service where a site is."""

    def __init__(self, address, site, trust, timeout=30):
        super().__init__(site, timeout=timeout, context=trust)
        self.address, self.trust = address, trust

    def connect(self):
        self.sock = self._create_connection((self.address, 443), self.timeout)
        self.sock = self.trust.wrap_socket(self.sock, server_hostname=self.host)


def visitor(address, ca_file):
    """Return what asks a site for a page of our directory, as a visitor would: (status, text, headers)."""
    trust = ssl.create_default_context(cafile=ca_file)

    def ask(site, name, headers=None, timeout=30):
        connection = ToAddress(address, site.name, trust, timeout)
        with contextlib.closing(connection):
            connection.request("GET", f"/{site.folder}/{name}", headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace"), answer.headers

    return ask
