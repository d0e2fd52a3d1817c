# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Autoconfig, autodiscover and the MTA-STS policy: the role's own texts, asked for by HTTP behind a front."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from jinja2.runtime import missing

from hosting import mail_pages, mail_records
from infini import engine
from infini.tree_render import Renderer, environment

ROLE = Path(__file__).parents[2] / "roles/mail_pages"
POLICY = "version: STSv1\nmode: enforce\nmx: mx.infini.test\nmax_age: 604800\n"
GIVEN = {
    "mail_pages_domains": ["velo.test", "bourg.test"],
    "mail_pages_server": "mx.infini.test",
    "mail_pages_title": "Infini & $ie",
    "mail_pages_policy": POLICY,
}
OUTLOOK = """<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"><Request>
<EMailAddress>{address}</EMailAddress>
<AcceptableResponseSchema>{schema}</AcceptableResponseSchema></Request></Autodiscover>"""
PROXY = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187])


def tree(**given):
    """Return what the role writes: path on the host -> text."""
    variables = {**yaml.safe_load((ROLE / "defaults/main.yml").read_text()), **GIVEN, **given}
    env = environment(lambda name: variables.get(name, missing))
    env.filters["to_nice_json"] = json.dumps
    env.filters["hosting_modules"] = lambda name: ["__init__", *sorted(engine.sources(name))]
    env.globals["lookup"] = lambda _plugin, path: Path(path).read_text()
    env.globals["role_path"] = str(ROLE)
    picture = Renderer(ROLE / "tree", env, "mail_pages", lambda path: (path.read_bytes(), False)).picture()
    return {path: content.decode() for path, content in picture.contents.items()}


@pytest.fixture
def pages(tmp_path):
    """The pages as the program reads them on a host."""

    def read(**given):
        for path in tmp_path.iterdir():
            path.unlink()
        for path, text in tree(**given).items():
            if path.startswith(f"{mail_pages.FOLDER}/"):
                (tmp_path / Path(path).name).write_text(text)
        return mail_pages.read(tmp_path)

    return read


@pytest.fixture
def ask(pages):
    """Ask the server as the front does; give status, kind and text of the answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening, mail_pages.Server(listening.dup(), pages()) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

        def call(host, path, *, method="GET", body=None, proxy=PROXY, headers=None):
            connection = http.client.HTTPConnection(host, timeout=10)
            connection.sock = socket.create_connection(listening.getsockname())
            connection.sock.sendall(proxy)
            try:
                connection.request(method, path, body, headers or {})
                answer = connection.getresponse()
                return answer.status, answer.getheader("Content-Type"), answer.read().decode()
            finally:
                connection.close()

        yield call
        server.shutdown()


def plain(text):
    """Return an XML text as its elements, without the names' namespaces."""
    root = ElementTree.fromstring(text)  # noqa: S314  our own text
    for one in root.iter():
        one.tag = one.tag.rpartition("}")[2]
    return root


@pytest.mark.parametrize(
    "path", ["/mail/config-v1.1.xml?emailaddress=ada%40velo.test", "/.well-known/autoconfig/mail/config-v1.1.xml"]
)
def test_thunderbird_finds_where_and_how(ask, path):
    status, kind, text = ask("autoconfig.velo.test", path)
    assert (status, kind) == (200, "text/xml; charset=utf-8")
    config = plain(text)
    assert (config.tag, config.get("version")) == ("clientConfig", "1.1")
    assert config.findtext("emailProvider/domain") == "velo.test"
    assert config.findtext("emailProvider/displayName") == "Infini & $ie"
    servers = [
        (one.tag, one.get("type"), *(one.findtext(name) for name in ("hostname", "port", "socketType", "username")))
        for one in config.find("emailProvider")
        if one.tag.endswith("Server")
    ]
    assert servers == [
        ("incomingServer", "imap", "mx.infini.test", "993", "SSL", "%EMAILADDRESS%"),
        ("outgoingServer", "smtp", "mx.infini.test", "465", "SSL", "%EMAILADDRESS%"),
        ("outgoingServer", "smtp", "mx.infini.test", "587", "STARTTLS", "%EMAILADDRESS%"),
    ]


@pytest.mark.parametrize("path", ["/autodiscover/autodiscover.xml", "/Autodiscover/Autodiscover.xml"])
def test_outlook_is_told_the_whole_address_to_log_in_by(ask, path):
    body = OUTLOOK.format(address="ada@velo.test", schema=mail_pages.SCHEMA)
    status, kind, text = ask("autodiscover.velo.test", path, method="POST", body=body)
    assert (status, kind) == (200, "text/xml; charset=utf-8")
    account = plain(text).find("Response/Account")
    assert (account.findtext("AccountType"), account.findtext("Action")) == ("email", "settings")
    names = ("Type", "Server", "Port", "LoginName", "SSL", "AuthRequired")
    assert [tuple(one.findtext(name) for name in names) for one in account.iter("Protocol")] == [
        ("IMAP", "mx.infini.test", "993", "ada@velo.test", "on", "on"),
        ("SMTP", "mx.infini.test", "465", "ada@velo.test", "on", "on"),
    ]


@pytest.mark.parametrize(
    ("method", "body", "code"),
    [
        ("GET", None, "600"),
        ("POST", "what?", "600"),
        ("POST", OUTLOOK.format(address="ada@ailleurs.example", schema=mail_pages.SCHEMA), "600"),
        ("POST", OUTLOOK.format(address="<b/>@velo.test", schema=mail_pages.SCHEMA), "600"),
        ("POST", OUTLOOK.format(address="ada@velo.test", schema="http://…/mobilesync/responseschema/2006"), "601"),
    ],
)
def test_what_outlook_may_not_ask_is_refused_in_its_words(ask, method, body, code):
    encoded = body.encode() if body else None
    status, _kind, text = ask("autodiscover.velo.test", "/autodiscover/autodiscover.xml", method=method, body=encoded)
    assert (status, plain(text).findtext("Response/Error/ErrorCode")) == (200, code)


def test_what_was_asked_comes_back_as_text_only(ask):
    body = OUTLOOK.format(address="a\"'$domain@velo.test", schema=mail_pages.SCHEMA)
    _status, _kind, text = ask("autodiscover.velo.test", "/autodiscover/autodiscover.xml", method="POST", body=body)
    assert plain(text).findtext("Response/User/DisplayName") == "a\"'$domain@velo.test"


def test_a_program_is_told_the_same_of_every_domain_and_of_addresses_that_do_not_exist(ask):
    body = OUTLOOK.format(address="personne@bourg.test", schema=mail_pages.SCHEMA)
    _status, _kind, text = ask("autodiscover.velo.test", "/autodiscover/autodiscover.xml", method="POST", body=body)
    assert "<LoginName>personne@bourg.test</LoginName>" in text


def test_the_policy_is_what_the_records_name(ask, pages):
    assert ask("mta-sts.bourg.test", "/.well-known/mta-sts.txt") == (200, "text/plain; charset=utf-8", POLICY)
    assert ask("MTA-STS.Bourg.TEST:443", "/.well-known/mta-sts.txt")[0] == 200
    assert pages(mail_pages_policy="").answer("GET", "mta-sts.velo.test", "/.well-known/mta-sts.txt").status == 404


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("autoconfig.ailleurs.example", "/mail/config-v1.1.xml"),
        ("velo.test", "/mail/config-v1.1.xml"),
        ("mta-sts.velo.test", "/mail/config-v1.1.xml"),
        ("autoconfig.velo.test", "/"),
        ("autoconfig.velo.test", "/mail/../domains.json"),
        ("", "/mail/config-v1.1.xml"),
    ],
)
def test_nothing_else_stands_there(ask, host, path):
    assert ask("x", path, headers={"Host": host})[0] == 404


def test_who_is_not_the_front_and_who_says_too_much_gets_nothing(ask):
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
        ask("mta-sts.velo.test", "/.well-known/mta-sts.txt", proxy=b"")
    # No body follows: it is refused before it is read, and whoever still sends may find the door shut.
    for header, status in (
        ({"Content-Length": str(mail_pages.LONGEST + 1)}, 413),
        ({"Transfer-Encoding": "chunked"}, 411),
    ):
        said = ask("autodiscover.velo.test", "/autodiscover/autodiscover.xml", method="POST", headers=header)
        assert said[0] == status
    assert ask("mta-sts.velo.test", "/.well-known/mta-sts.txt", method="POST", body="")[0] == 405
    assert ask("mta-sts.velo.test", "/.well-known/mta-sts.txt", method="HEAD")[::2] == (200, "")


def test_the_socket_of_a_slow_visitor_is_closed(ask, monkeypatch):
    monkeypatch.setattr(mail_pages._Handler, "timeout", 0.2)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        ask("mta-sts.velo.test", "/x", headers={"Content-Length": "5"}, method="POST")


def test_records_and_pages_say_the_same():
    policy = mail_records.Policy(
        "mx.infini.test", "s", "d", 60, "v=TLSRPTv1; rua=mailto:postmaster@{host}", "w.test", POLICY
    )
    lines = mail_records.zone({"velo.test": {}, "mx.infini.test": {}}, policy).splitlines()
    assert "autoconfig.velo.test. 60 CNAME w.test." in lines
    assert "autodiscover.velo.test. 60 CNAME w.test." in lines
    assert "mta-sts.velo.test. 60 CNAME w.test." in lines
    assert '_smtp._tls.velo.test. 60 TXT "v=TLSRPTv1; rua=mailto:postmaster@mx.infini.test"' in lines
    [sts] = [line for line in lines if line.startswith("_mta-sts.")]
    assert re.fullmatch(r'_mta-sts\.velo\.test\. 60 TXT "v=STSv1; id=[0-9a-f]{32}"', sts)
    other = mail_records.zone({"velo.test": {}}, mail_records.Policy(**{**vars(policy), "sts": f"{POLICY} "}))
    assert sts not in other, "the id changes with the policy"
    assert not [line for line in lines if line.startswith(("autoconfig.mx", "_mta-sts.mx"))]
    assert mail_records.page_sites(["velo.test"], POLICY) == [
        {"name": "autoconfig.velo.test", "aliases": ["autodiscover.velo.test", "mta-sts.velo.test"]}
    ]
    bare = mail_records.zone({"velo.test": {}}, mail_records.Policy("mx.infini.test", "s", "d", sts=POLICY))
    assert not re.search("autoconfig|mta-sts|_tls", bare), "nobody serves the pages"


def test_a_policy_is_words_that_others_know():
    assert mail_records.sts_policy("mx.infini.test", {"mode": "enforce"}) == POLICY
    assert mail_records.sts_policy("mx.infini.test", {}) == ""
    for said in ({"mode": "strict"}, {"mode": "testing", "seconds": 0}, {"mode": "testing", "seconds": "1d"}, {"x": 1}):
        with pytest.raises(ValueError, match="MTA-STS cannot be"):
            mail_records.sts_policy("mx.infini.test", said)


def test_texts_that_cannot_be_filled_in_are_refused_before_they_are_served(pages, tmp_path, monkeypatch):
    pages()
    monkeypatch.setattr(mail_pages.read, "__defaults__", (tmp_path,))
    assert mail_pages.main(["judge"]) == 0
    (tmp_path / mail_pages.AUTOCONFIG).write_text("$what")
    with pytest.raises(KeyError):
        mail_pages.main(["judge"])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_our_unit_is_hardened(tmp_path):
    unit = tmp_path / "infini-mail-pages.service"
    unit.write_text(tree()["/etc/systemd/system/infini-mail-pages.service"])
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)], check=True, capture_output=True
    )
