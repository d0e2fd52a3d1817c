# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The webmail as a member uses it, in a browser's words; mail comes to it as to any program."""

import html
import http.client
import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import urllib.parse
from http.cookies import SimpleCookie

import pytest
from mail_clients import Imap, Smtp, message

from infini.apply import playbook_path
from infini.hosts import Inventory
from infini.runner import play

INVENTORY = os.environ.get("INFINI_INVENTORY", "staging")
STRANGER = "quelquun@dehors.test"
HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml",
    "Accept-Language": "fr",
    "Sec-Fetch-Mode": "navigate",
}


class Platform:
    """The host of the pages, the host of the mail, and who trusts them."""

    def __init__(self) -> None:
        self.inventory = Inventory(INVENTORY)
        self.host = self.inventory.hosts("webmails")[0]
        self.server = self.inventory.hosts("mail_servers")[0]
        self.trust = ssl.create_default_context()
        for authority in self.get(self.host, "hosting_authorities"):
            self.trust.load_verify_locations(authority)
        self.password = self.get(self.server, "bench_mail_password")

    def get(self, host, name):
        return self.inventory.get(host, name)

    def run(self, command):
        line = [*self.inventory.connection(self.host).ssh("-o", "BatchMode=yes"), f"sh -c {shlex.quote(command)}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    @property
    def mail(self):
        return self.get(self.server, "hosting_ipv4"), self.get(self.server, "hosting_fqdn")


class Browser:
    """Keeps cookies, and the token that Roundcube's pages hand out."""

    def __init__(self, platform) -> None:
        self.name = platform.get(platform.host, "roundcube_name")
        self.address = platform.get(platform.host, "hosting_ipv4")
        self.trust, self.cookies, self.token = platform.trust, {}, ""

    def ask(self, path, form=None, **headers):
        """Ask for a page; return its status, where it leads, and its text."""
        connection = http.client.HTTPSConnection(self.name, context=self.trust, timeout=60)
        plain = socket.create_connection((self.address, 443), 60)
        connection.sock = self.trust.wrap_socket(plain, server_hostname=self.name)
        cookies = (
            {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        )
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        body = urllib.parse.urlencode(form) if form else None
        connection.request("POST" if form else "GET", path, body, {**HEADERS, **cookies, **kind, **headers})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        for line in answer.headers.get_all("Set-Cookie") or []:
            self.cookies.update({name: one.value for name, one in SimpleCookie(line).items()})
        connection.close()
        found = re.search(r'"request_token":"(\w+)"', text) or re.search(r'name="_token" value="(\w+)"', text)
        self.token = found[1] if found else self.token
        return answer.status, answer.headers.get("Location", ""), text

    def login(self, who, password):
        """Log in; return where that leads, nothing where it is refused."""
        status, _to, page = self.ask("/")
        assert status == 200, page
        form = {
            "_token": self.token,
            "_task": "login",
            "_action": "login",
            "_timezone": "Europe/Paris",
            "_url": "",
            "_user": who,
            "_pass": password,
        }
        return self.ask("/?_task=login", form)

    def listed(self, folder="INBOX"):
        """Return what the list of a folder shows."""
        assert self.ask("/?_task=mail")[0] == 200
        path = f"/?_task=mail&_action=list&_mbox={folder}&_remote=1&_unlock=0"
        status, _to, text = self.ask(path, **{"X-Roundcube-Request": self.token, "X-Requested-With": "XMLHttpRequest"})
        assert status == 200, text
        return json.loads(text)["exec"]


@pytest.fixture(scope="module")
def platform():
    return Platform()


@pytest.fixture
def member(platform):
    """A member whose mailbox is empty."""
    [who] = [
        one["address"] for one in platform.get(platform.server, "mail_mailboxes") if one["address"].startswith("ada@")
    ]
    with Imap(*platform.mail, platform.trust) as mailbox:
        mailbox.login(who, platform.password)
        mailbox.empty()
    return who


def test_a_member_logs_in_and_sees_the_mailbox(platform, member):
    mail = message(STRANGER, member)
    with Smtp(*platform.mail, 25) as client:
        client.send_message(mail)
    with Imap(*platform.mail, platform.trust) as mailbox:
        mailbox.login(member, platform.password)
        mailbox.wait(mail["Subject"])
    browser = Browser(platform)
    status, to, page = browser.login(member, platform.password)
    assert (status, "_task=mail" in to) == (302, True), page
    assert mail["Subject"] in browser.listed()
    assert "Junk" in browser.ask("/?_task=mail")[2]


def test_a_page_has_all_its_parts(platform):
    browser = Browser(platform)
    parts = re.findall(r'(?:href|src)="((?:skins|program|plugins)/[^"]+\.(?:css|js)[^"]*)"', browser.ask("/")[2])
    assert len(parts) > 5
    assert {part: browser.ask(f"/{html.unescape(part)}")[0] for part in parts} == dict.fromkeys(parts, 200)


def test_a_wrong_password_is_refused(platform, member):
    status, to, page = Browser(platform).login(member, "wrong")
    assert (status, to) == (401, ""), page


def test_a_member_writes_and_the_mail_is_theirs(platform, member):
    browser = Browser(platform)
    browser.login(member, platform.password)
    _status, to, page = browser.ask("/?_task=mail&_action=compose")
    if to:
        page = browser.ask(f"/{to.removeprefix('./')}")[2]
    identity = re.search(r'<option value="(\d+)"[^>]*>[^<]*' + re.escape(html.escape(member)), page)
    number = re.search(r'"compose_id":"(\w+)"', page)
    assert identity, page
    assert number, page
    subject = message(member, member)["Subject"]
    form = {
        "_token": browser.token,
        "_task": "mail",
        "_action": "send",
        "_id": number[1],
        "_from": identity[1],
        "_to": member,
        "_subject": subject,
        "_message": "Bonjour.",
        "_is_html": "0",
        "_store_target": "Sent",
    }
    status, _to, said = browser.ask("/?_task=mail&_framed=1", form)
    assert (status, "sent_successfully" in said) == (200, True), said
    with Imap(*platform.mail, platform.trust) as mailbox:
        mailbox.login(member, platform.password)
        raw = mailbox.wait(subject)
        assert mailbox.find(subject, "Sent")
    assert b"DKIM-Signature" in raw


def test_filters_are_where_the_member_finds_them(platform, member):
    browser = Browser(platform)
    browser.login(member, platform.password)
    status, _to, page = browser.ask("/?_task=settings&_action=plugin.managesieve")
    assert (status, "filtersetslist" in page or "filterslist" in page) == (200, True), page
    assert "timeouterror" not in page
    assert "Unable to connect" not in page


def test_a_server_with_a_certificate_of_somebody_is_not_logged_in_to(platform, member):
    """The password goes to nobody who cannot prove to be our mail server."""
    path = str(platform.inventory.path)
    self_signed = platform.run(
        "cat /etc/ssl/certs/ssl-cert-snakeoil.pem 2>/dev/null || cat /etc/ssl/certs/ISRG_Root_X1.pem"
    )
    assert play(playbook_path("webmail"), path, {"roundcube_authorities": self_signed}).ok
    try:
        _status, to, _page = Browser(platform).login(member, platform.password)
        assert to == ""
    finally:
        assert play(playbook_path("webmail"), path).ok
    assert Browser(platform).login(member, platform.password)[0] == 302


def test_secrets_and_programs_are_not_shown(platform):
    for path in ("/config/config.inc.php", "/SQL/mysql.initial.sql", "/bin/update.sh", "/installer/"):
        assert Browser(platform).ask(path)[0] in (403, 404), path
    account = platform.get(platform.host, "roundcube_account")
    found = platform.run("stat -c '%a %U %G' /etc/roundcube/config.inc.php").split()
    assert found == ["640", "root", account]
