# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Autoconfig, autodiscover and MTA-STS as programs and mail servers meet them: by HTTPS, with a good certificate."""

import http.client
import re
import socket
import ssl
from xml.etree import ElementTree

import pytest
from test_mail import Platform
from unit.test_mail_pages import OUTLOOK, plain

from hosting import mail_pages

FAMILIES = ("hosting_ipv4", "hosting_ipv6")


class Pages(Platform):
    """The mail server, and the host that serves its pages."""

    def __init__(self):
        super().__init__()
        self.server = self.inventory.hosts("mail_pages")[0]
        self.domains = [one["name"] for one in self.get("mail_domains")]

    def ask(self, name, path, *, family=FAMILIES[0], method="GET", body=None):
        """Ask for a page by HTTPS; give status, kind and text."""
        connection = http.client.HTTPSConnection(name, context=self.trust, timeout=30)
        plain_socket = socket.create_connection((self.inventory.get(self.server, family), 443), 30)
        connection.sock = self.trust.wrap_socket(plain_socket, server_hostname=name)
        try:
            connection.request(method, path, body, {"User-Agent": "Microsoft Office/16.0"})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type"), answer.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def pages():
    return Pages()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_domain_has_its_pages(pages, family):
    for domain in pages.domains:
        status, _kind, text = pages.ask(f"autoconfig.{domain}", "/mail/config-v1.1.xml", family=family)
        assert status == 200, text
        assert plain(text).findtext("emailProvider/domain") == domain
        assert {one.text for one in plain(text).iter("hostname")} == {pages.name}
        body = OUTLOOK.format(address=f"ada@{domain}", schema=mail_pages.SCHEMA)
        path = "/Autodiscover/Autodiscover.xml"
        status, _kind, text = pages.ask(f"autodiscover.{domain}", path, family=family, method="POST", body=body)
        assert (status, {one.text for one in plain(text).iter("LoginName")}) == (200, {f"ada@{domain}"}), text


def test_what_the_pages_say_lets_a_member_in(pages):
    """Where they lead, our own member logs in by what they say, and with nothing else known."""
    who = next(one["address"] for one in pages.get("mail_mailboxes") if one.get("enabled", True))
    _status, _kind, text = pages.ask(f"autoconfig.{who.rpartition('@')[2]}", "/mail/config-v1.1.xml")
    incoming, outgoing = (plain(text).find(f"emailProvider/{kind}Server") for kind in ("incoming", "outgoing"))
    assert (incoming.findtext("port"), outgoing.findtext("port")) == ("993", "465")
    assert {one.findtext("hostname") for one in (incoming, outgoing)} == {pages.name}
    with pages.mailbox(who) as mailbox:
        assert mailbox.select("INBOX")[0] == "OK"
    with pages.as_member(who, int(outgoing.findtext("port"))) as client:
        assert client.noop()[0] == 250


def test_the_policy_names_the_server_that_the_mx_names_and_its_certificate_is_good(pages):
    for domain in pages.domains:
        status, kind, text = pages.ask(f"mta-sts.{domain}", "/.well-known/mta-sts.txt")
        assert (status, kind.partition(";")[0]) == (200, "text/plain")
        said = dict(line.split(": ") for line in text.splitlines())
        assert (said["version"], said["mode"]) == ("STSv1", pages.get("hosting_mail_sts")["mode"])
        assert pages.records(domain, "MX") == [f"10 {said['mx']}."]
        assert re.fullmatch(r"v=STSv1; id=[0-9a-z]{1,32}", pages.records(f"_mta-sts.{domain}", "TXT")[0])
        [reports] = pages.records(f"_smtp._tls.{domain}", "TXT")
        assert re.fullmatch(r"v=TLSRPTv1; rua=mailto:(\S+)", reports)
    with pages.smtp() as client:
        client.starttls(context=pages.trust)  # refused unless the certificate is good for the name in the MX
        assert client.sock.version() >= "TLSv1.2"


def test_reports_on_tls_reach_us(pages):
    [reports] = pages.records(f"_smtp._tls.{pages.domains[0]}", "TXT")
    with pages.smtp() as client:
        client.ehlo()
        client.mail("noreply-smtp-tls-reporting@dehors.test")
        assert client.rcpt(reports.rpartition("mailto:")[2])[0] == 250


def test_the_dns_leads_the_names_of_the_pages_to_their_host(pages):
    host = pages.inventory.get(pages.server, "hosting_fqdn")
    for domain in pages.domains:
        for page in ("autoconfig", "autodiscover", "mta-sts"):
            assert pages.records(f"{page}.{domain}", "CNAME") == [f"{host}."]


def test_a_domain_of_others_has_no_pages_here(pages):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        pages.ask("autoconfig.ailleurs.example", "/mail/config-v1.1.xml")
    assert pages.ask(f"autoconfig.{pages.domains[0]}", "/etc/passwd")[0] == 404


def test_a_page_that_is_asked_again_and_again_goes_on(pages):
    """As when every member's program asks at once; Outlook's is a POST."""
    domain = pages.domains[0]
    body = OUTLOOK.format(address=f"ada@{domain}", schema=mail_pages.SCHEMA)
    for _again in range(30):
        status, _kind, text = pages.ask(
            f"autodiscover.{domain}", "/autodiscover/autodiscover.xml", method="POST", body=body
        )
        assert (status, ElementTree.fromstring(text).tag.endswith("Autodiscover")) == (200, True)  # noqa: S314
