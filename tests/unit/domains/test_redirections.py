# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redirections from Gandi to our front: what the plan takes over, the files the inventory reads, what is served."""

import datetime
import http.server
import shutil
import ssl
import threading

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hosting import model
from hosting.probes import Trust
from infini import ROOT
from infini.domains.observed import Redirection
from infini.domains.plan import Options, make_plan
from infini.domains.targets import RedirectionFiles
from infini.domains.zone import Rrset, Zone
from infini.errors import RefusedError
from infini.hosts import Inventory

NAME = "asso.test"
WEB = ("192.0.2.10", "2001:db8::10")
TO = "https://x.example/caf%C3%A9"
PARKED = Rrset("@", "A", 300, ("217.70.184.38",))
WEBREDIR = Rrset("www", "CNAME", 300, ("webredir.vip.gandi.net.",))


def row(host, kind="http301", url=TO, **more):
    return {"host": host, "type": kind, "url": url, **more}


def going_on(*rows, rrsets=(PARKED, WEBREDIR), agreed=()):
    options = Options(web_addresses=WEB, redirections=dict.fromkeys(agreed, True))
    return make_plan(Zone.of(NAME, rrsets), rows, options).redirections


@pytest.mark.parametrize(
    ("rows", "more", "expected"),
    [
        ([row(NAME)], {}, (Redirection(NAME, TO, 301),)),
        ([row("@")], {}, (Redirection(NAME, TO, 301),)),
        ([row(f"WWW.{NAME}.", "http302", protocol="http")], {}, (Redirection(f"www.{NAME}", TO, 302, "http"),)),
        ([row(NAME), row(f"www.{NAME}")], {}, (Redirection(NAME, TO, 301), Redirection(f"www.{NAME}", TO, 301))),
        ([row(f"www.{NAME}", "cloak")], {}, ()),
        ([row(f"www.{NAME}", "cloak")], {"agreed": [f"www.{NAME}"]}, (Redirection(f"www.{NAME}", TO, 302),)),
        ([row(f"*.{NAME}")], {"rrsets": [Rrset("*", "CNAME", 300, ("webredir.vip.gandi.net.",))]}, ()),
        ([row(NAME, url="pas une adresse")], {}, ()),
        ([row(NAME, "http307")], {}, ()),
        ([row(f"blog.{NAME}")], {}, ()),
    ],
    ids=["apex", "at", "www", "two", "frame", "agreed-frame", "wildcard", "no-url", "unknown", "not-led-here"],
)
def test_what_goes_on_at_our_front(rows, more, expected):
    assert going_on(*rows, **more) == expected


def test_a_name_that_a_cname_or_a_wildcard_leads_to_us_goes_on():
    cname = [PARKED, Rrset("www", "CNAME", 300, ("asso.test.",))]
    assert [one.host for one in going_on(row(f"www.{NAME}"), rrsets=cname)] == [f"www.{NAME}"]
    wildcard = [Rrset("*.fete", "CNAME", 300, ("webredir.vip.gandi.net.",))]
    assert [one.host for one in going_on(row(f"a.b.fete.{NAME}"), rrsets=wildcard)] == [f"a.b.fete.{NAME}"]
    loop = [Rrset("www", "CNAME", 300, ("x.asso.test.",)), Rrset("x", "CNAME", 300, ("www.asso.test.",))]
    assert going_on(row(f"www.{NAME}"), rrsets=loop) == ()


def test_a_name_that_was_pointed_at_us_before_the_switch_still_goes_on():
    assert going_on(row(f"www.{NAME}"), rrsets=[Rrset("www", "A", 300, WEB[:1])]) == (
        Redirection(f"www.{NAME}", TO, 301),
    )


def test_the_plan_says_them():
    plan = make_plan(Zone.of(NAME, [PARKED]), [row(NAME)], Options(web_addresses=WEB))
    assert f"  redirection recréée chez nous : {NAME} → {TO} (301)" in plan.lines()
    assert plan.to_json()["redirections"] == [{"host": NAME, "to": TO, "code": 301}]


class Front(http.server.ThreadingHTTPServer):
    """Answers every request with `status` and `location`; `keeps` adds the path."""

    daemon_threads = True
    status, location, keeps = 301, TO, False

    def handle_error(self, *_):
        """Refused handshakes are what we test."""


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location + (self.path if self.server.keeps else ""))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def certificate(folder, name):
    """Return a file with a key and its own certificate."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / f"{name}.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def front(tmp_path):
    """Serve plain HTTP and HTTPS on loopback; the certificate is for localhost."""
    servers = [Front(("127.0.0.1", 0), Page) for _ in range(2)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path, "localhost"))
    servers[1].socket = context.wrap_socket(servers[1].socket, server_side=True, do_handshake_on_connect=False)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def files(front, tmp_path, addresses=("127.0.0.1",), trusted=True):
    """Return the folder's door, and how often it was published."""
    published = []
    pem = (tmp_path / "localhost.pem").read_text()
    made = RedirectionFiles(
        tmp_path / "redirections",
        addresses,
        lambda: published.append(True),
        Trust((pem[pem.index("-----BEGIN CERT") :],) if trusted else ()),
        http_port=front[0].server_address[1],
        https_port=front[1].server_address[1],
    )
    return made, published


ONE = Redirection("localhost", TO, 301)


def test_a_front_that_answers_rightly_is_right(front, tmp_path):
    assert files(front, tmp_path)[0].wrong([ONE]) == []
    front[0].location = front[1].location = f"{TO}/"
    assert files(front, tmp_path)[0].wrong([ONE]) == []


@pytest.mark.parametrize(
    ("which", "change", "says"),
    [
        (0, {"status": 302}, f"répond « 302 {TO} » en http"),
        (1, {"status": 302}, f"répond « 302 {TO} » en https"),
        (0, {"location": "https://x.example/"}, "répond « 301 https://x.example/ » en http"),
        (0, {"status": 200, "location": ""}, "répond « 200 » en http"),
        (1, {"status": 421, "location": ""}, "répond « 421 » en https"),
    ],
)
def test_a_front_that_answers_otherwise_is_wrong(front, tmp_path, which, change, says):
    for key, value in change.items():
        setattr(front[which], key, value)
    (sentence,) = files(front, tmp_path)[0].wrong([ONE])
    assert sentence.startswith(f"La redirection localhost → {TO} (301) n'est pas en place : 127.0.0.1 ")
    assert says in sentence


def test_without_a_certificate_https_is_wrong_and_the_sentence_says_what_to_do(front, tmp_path):
    (sentence,) = files(front, tmp_path, trusted=False)[0].wrong([ONE])
    assert sentence.startswith("localhost n'a pas encore de certificat chez nous : chez Gandi, faites mener ce nom à")
    assert "certificates renew --now" in sentence


def test_a_name_that_never_had_https_needs_none_before(front, tmp_path):
    assert files(front, tmp_path, trusted=False)[0].wrong([Redirection("localhost", TO, 301, "http")]) == []


def test_a_front_that_does_not_answer_is_wrong(front, tmp_path):
    front[0].shutdown()
    front[0].server_close()
    (sentence,) = files(front, tmp_path)[0].wrong([ONE])
    assert "127.0.0.1 ne répond pas en http (refused)" in sentence
    assert files(front, tmp_path, addresses=())[0].wrong([ONE])


def read(tmp_path):
    return yaml.safe_load((tmp_path / "redirections" / f"{NAME}.yml").read_text())


@pytest.fixture
def alone(monkeypatch):
    """Let no name of a test be looked for in the DNS."""

    def get(url, **_):
        raise httpx.ConnectError(url)

    monkeypatch.setattr("infini.domains.targets.httpx.get", get)


@pytest.mark.usefixtures("alone")
def test_a_domain_s_file_says_what_to_serve_and_a_second_time_changes_nothing(front, tmp_path):
    door, published = files(front, tmp_path)
    two = [Redirection(f"www.{NAME}", TO, 302), Redirection(NAME, TO, 301)]
    door.provision(NAME, two)
    path = tmp_path / "redirections" / f"{NAME}.yml"
    before = path.stat()
    assert read(tmp_path) == [
        {"name": NAME, "redirect": {"to": TO, "code": 301}},
        {"name": f"www.{NAME}", "redirect": {"to": TO, "code": 302}},
    ]
    assert model.problems([], read(tmp_path), [], [{"name": model.DEFAULT_PROFILE}]) == []
    assert "SPDX-License-Identifier" in path.read_text()
    door.provision(NAME, list(reversed(two)))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert len(published) == 2


def test_a_domain_without_redirections_has_no_file(front, tmp_path):
    door, published = files(front, tmp_path)
    door.provision(NAME, [])
    door.remove(NAME)
    assert published == []
    door.provision(NAME, [ONE])
    door.provision(NAME, [])
    assert not list((tmp_path / "redirections").iterdir())
    assert len(published) == 2
    with pytest.raises(RefusedError):
        door.provision("../x", [ONE])


def test_whether_the_path_is_kept_is_measured_at_who_answers_today(front, tmp_path):
    door, _ = files(front, tmp_path)
    front[0].keeps = True
    door.provision(NAME, [ONE])
    assert read(tmp_path)[0]["redirect"] == {"to": TO, "code": 301, "keep_path": True}
    front[0].status, front[0].location = 200, ""  # says nothing about it: what was measured stays
    door.provision(NAME, [ONE])
    assert read(tmp_path)[0]["redirect"]["keep_path"]
    front[0].status, front[0].location, front[0].keeps = 301, TO, False
    door.provision(NAME, [ONE])
    assert "keep_path" not in read(tmp_path)[0]["redirect"]


@pytest.mark.usefixtures("alone")
def test_production_serves_what_stands_in_the_folder(front, tmp_path):
    shutil.copytree(ROOT / "inventory", tmp_path / "inventory")
    door, _ = files(front, tmp_path)
    inventory = Inventory(str(tmp_path / "inventory/production"))
    web = inventory.hosts("webs")[0]
    assert inventory.get(web, "sites_redirections") == []
    door.provision(NAME, [Redirection(NAME, TO, 301)])
    assert inventory.get(web, "sites_redirections") == [{"name": NAME, "aliases": [], "to": TO, "code": 301}]
    assert {"name": NAME, "aliases": [], "plain_http": True} in inventory.get(web, "front_sites")
    assert {"name": NAME, "aliases": []} in inventory.get(web, "certificates_names")
