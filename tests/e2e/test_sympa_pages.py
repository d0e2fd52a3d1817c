# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of the lists as visitors and owners meet them, over HTTPS and through the front; passwords come by mail."""

import html
import http.client
import os
import re
import socket
import ssl
import time
import urllib.parse
from html.parser import HTMLParser
from http.cookies import SimpleCookie

import pytest
from mail_clients import Imap, message, unique
from test_sympa import SYMPA, Lists

from infini import staging

INVENTORY = os.environ.get("INFINI_INVENTORY", "staging")
HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml",
    "Accept-Language": "fr",
    "Sec-Fetch-Mode": "navigate",
}


class Forms(HTMLParser):
    """The forms of a page: what each would send as it stands."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        said = dict(attributes)
        if tag == "form":
            self.found.append((said.get("action", ""), {}))
        elif tag in ("input", "button") and self.found and said.get("name") and "cancel" not in said["name"]:
            self.found[-1][1][said["name"]] = said.get("value") or ""

    def with_field(self, name):
        return next((action, fields) for action, fields in self.found if name in fields)


def readable(page):
    """Return a page with its addresses as a reader sees them: a script puts their pieces together."""
    return re.sub(r'"\s*\+\s*"', "", page)


class Browser:
    """Visits one name, keeps cookies, follows what it is led to."""

    def __init__(self, lists, name, trust):
        self.name, self.trust, self.cookies = name, trust, {}
        self.address = lists.get("hosting_ipv4")

    def ask(self, path, form=None, **headers):
        """Ask for a page; return its status, its headers, and its text."""
        connection = http.client.HTTPSConnection(self.name, context=self.trust, timeout=60)
        plain = socket.create_connection((self.address, 443), 60)
        connection.sock = self.trust.wrap_socket(plain, server_hostname=self.name)
        sent = {**HEADERS, **headers}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = urllib.parse.urlencode(form) if form else None
        if form:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request("POST" if form else "GET", path, body, sent)
        answer = connection.getresponse()
        text = readable(answer.read().decode("utf-8", "replace"))
        for line in answer.headers.get_all("Set-Cookie") or []:
            self.cookies.update({name: one.value for name, one in SimpleCookie(line).items()})
        connection.close()
        if answer.status in (301, 302, 303):
            return self.ask(urllib.parse.urlsplit(answer.headers["Location"])._replace(scheme="", netloc="").geturl())
        return answer.status, answer.headers, text

    def page(self, path, form=None):
        status, _headers, text = self.ask(path, form)
        assert status == 200, f"{path}: {status} {text[:500]}"
        return text

    def submit(self, page, field, **values):
        """Send the form that has this field, as it stands but for the values."""
        action, fields = Forms(page).with_field(field)
        return self.page(urllib.parse.urlsplit(action).path or "/sympa", {**fields, **values})


@pytest.fixture(scope="module")
def lists():
    found = Lists()
    staging.keep_authority(found.inventory)
    return found


@pytest.fixture(scope="module")
def trust(lists):
    context = ssl.create_default_context()
    for authority in lists.get("hosting_authorities"):
        context.load_verify_locations(authority)
    return context


@pytest.fixture
def browser(lists, trust):
    return Browser(lists, robot(lists), trust)


@pytest.fixture
def mailbox(lists, trust):
    """The mailbox of somebody who owns lists of the robot."""
    with Imap(lists.get("hosting_ipv4"), lists.get("mail_fqdn"), trust) as client:
        client.login(owner(lists), lists.get("bench_mail_password"))
        client.empty()
        yield client


def robot(lists):
    return next(iter(lists.open)).partition("@")[2]


def owner(lists):
    return next(iter(lists.open.values()))["owners"][0]["email"]


def of_kind(lists, kind):
    return next(address for address, one in lists.open.items() if one["kind"] == kind and one["robot"] == robot(lists))


def let_pass(lists, address):
    """Let the message pass that waits for a moderator, as one does by mail."""
    name, _, domain = address.partition("@")
    pattern = f"/var/spool/sympa/moderation/{address}_*"
    end = time.monotonic() + 60
    while not (held := lists.run(f"ls {pattern} 2> /dev/null || true").split()):
        assert time.monotonic() < end, f"nothing waits for a moderator of {address}"
        time.sleep(0.5)
    for path in held:
        key = path.rpartition("_")[2]
        order = message(owner(lists), f"sympa@{domain}", subject=f"QUIET DISTRIBUTE {name} {key}")
        lists.run(f"runuser -u sympa -- /usr/lib/sympa/bin/queue sympa@{domain}", order.as_string())


def test_visitors_see_the_lists_that_may_be_seen_and_a_form_to_log_in(lists, browser):
    home = browser.page("/")
    title = next(one["title"] for one in lists.get("sympa_robots") if one["name"] == robot(lists))
    assert html.escape(title, quote=False) in html.unescape(home) or title in html.unescape(home)
    shown = set(re.findall(r"/sympa/info/([\w.+-]+)", browser.page("/sympa/lists")))
    assert shown == {
        one["name"] for one in lists.open.values() if one["robot"] == robot(lists) and one["kind"] != "closed"
    }
    _action, fields = Forms(browser.page("/sympa/login")).with_field("passwd")
    assert {"email", "passwd"} <= fields.keys()


def test_what_the_pages_look_like_comes_along(browser):
    page = browser.page("/sympa/lists")
    styles = {urllib.parse.urlsplit(one).path for one in re.findall(r'<link[^>]+href="([^"]+\.css[^"]*)"', page)}
    assert styles
    for path in styles:
        status, headers, text = browser.ask(path)
        assert (status, headers.get_content_type()) == (200, "text/css"), path
        assert "{" in text


def choose_password(browser, mailbox, who):
    """Choose a password by the link that Sympa sends; the browser is logged in then. Return the password."""
    sure = browser.submit(browser.page("/sympa/firstpasswd"), "action_requestpasswd", email=who)
    browser.submit(sure, "response_action_confirm")
    end = time.monotonic() + 60
    while not (found := mailbox.find("votre environnement")) and time.monotonic() < end:
        time.sleep(0.5)
    [letter] = found
    [ticket] = set(re.findall(rb"https://\S+?/ticket/\w+", letter.replace(b"=\r\n", b"").replace(b"=\n", b"")))
    password = f"mot-de-passe-{unique()}"
    chosen = browser.page(urllib.parse.urlsplit(ticket.decode()).path)
    browser.submit(chosen, "newpasswd1", newpasswd1=password, newpasswd2=password)
    return password


def test_an_owner_gets_a_password_by_mail_logs_in_and_reads_who_is_subscribed(lists, browser, mailbox):
    address, who = of_kind(lists, "discussion"), owner(lists)
    members = lists.members(address)
    review = f"/sympa/review/{address.partition('@')[0]}"
    hidden = html.unescape(browser.page(review))
    assert not [member for member in members if member in hidden], "without a login nobody is shown"
    password = choose_password(browser, mailbox, who)
    other = Browser(lists, browser.name, browser.trust)
    other.submit(other.page("/sympa/login"), "passwd", email=who, passwd="pas celui-ci")
    assert members.isdisjoint(re.findall(r"[\w.+-]+@[\w.-]+", html.unescape(other.page(review))))
    other.submit(other.page("/sympa/login"), "passwd", email=who, passwd=password)
    shown = html.unescape(other.page(review))
    assert [member for member in members if member not in shown] == []


def test_a_listmaster_makes_a_list_on_the_pages_and_mail_finds_it(lists, browser, mailbox):
    [who, *_] = next(one["listmasters"] for one in lists.get("sympa_robots") if one["name"] == robot(lists))
    assert who == owner(lists), "whose mailbox this is"
    choose_password(browser, mailbox, who)
    name = f"essai{unique()}"
    said = {
        "listname": name,
        "template": "discussion_list",
        "subject": "Un essai",
        "topics": "others",
        "info": "Un essai.",
    }
    browser.submit(browser.page("/sympa/create_list_request"), "action_create_list", **said)
    try:
        found = lists.run(f"postmap -q {name}@{robot(lists)} hash:/etc/sympa/postfix/transport")
        assert found == "sympa:", "what shuts the pages in keeps them from nothing that they are for"
        assert "Un essai" in browser.page(f"/sympa/info/{name}")
    finally:
        lists.run(f"{SYMPA} close --mode=purge {name}@{robot(lists)}")


def test_a_public_archive_is_read_and_a_private_one_is_not(lists, browser):
    public, private = of_kind(lists, "newsletter"), of_kind(lists, "discussion")
    for address, moderated in ((public, True), (private, False)):
        name = address.partition("@")[0]
        mail = message(owner(lists) if moderated else min(lists.members(address)), address)
        folder = f"/var/lib/sympa/arc/{address}"
        command = f"runuser -u sympa -- /usr/lib/sympa/bin/queue {address}"
        lists.run(command, mail.as_string())
        if moderated:
            let_pass(lists, address)
        end = time.monotonic() + 120
        while lists.run(f"grep -rlF '{mail['Subject']}' {folder} 2> /dev/null | grep -c html || true") == "0":
            assert time.monotonic() < end, f"{address} did not archive it within two minutes"
            time.sleep(1)
        page = browser.page(f"/sympa/arc/{name}")
        if any("response_action_confirm" in fields for _action, fields in Forms(page).found):
            page = browser.submit(page, "response_action_confirm")  # "I am not a spammer"
        assert (mail["Subject"] in page) == moderated, address


def test_robots_that_take_texts_away_are_refused_and_so_is_a_name_that_nobody_declared(browser):
    assert browser.ask("/sympa/lists", **{"User-Agent": "GPTBot/1.2"})[0] == 403
    assert "Disallow: /\n" in browser.ask("/robots.txt", **{"User-Agent": "GPTBot/1.2"})[2]
    assert browser.ask("/sympa/lists", Host="listes.inconnu.test")[0] == 421


def test_only_the_web_server_talks_to_the_pages(lists):
    assert lists.run("stat -c '%U %a' /run/sympa/wwsympa.socket") == "sympa-pages 600"
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/sympa/wwsympa.socket')"
    for user, status in (("www-data", 1), ("nobody", 1), ("sympa-pages", 0)):
        lists.run(f'runuser -u {user} -- python3 -c "{connect}" 2> /dev/null', status=status)


def test_the_pages_write_nowhere_but_in_sympas_own_folders(lists, browser):
    browser.page("/sympa/lists")
    pid = lists.run("systemctl show wwsympa.service --property MainPID --value")
    lists.run(f"nsenter -t {pid} -m -- touch /usr/lib/sympa/x 2> /dev/null", status=1)
    lists.run(f"nsenter -t {pid} -m -- sh -c 'touch /var/spool/sympa/e2e && rm /var/spool/sympa/e2e'")
    rights = dict(
        line.split() for line in lists.run(f"grep -E '^(NoNewPrivs|CapBnd):' /proc/{pid}/status").splitlines()
    )
    assert rights == {"NoNewPrivs:": "1", "CapBnd:": "0000000000000000"}
