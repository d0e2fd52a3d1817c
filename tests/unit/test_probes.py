# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes against real servers on loopback: a good one must be found good, each fault must be found."""

import datetime
import socket
import ssl
import threading
import time
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from hosting import probes
from hosting.probes import Probe, Trust, look

PAGE = (
    "<html><head><TITLE lang=fr>\n V&eacute;lo  pour\ntous</TITLE></head>"
    "<body>C&#39;est l&agrave; que  &ccedil;a se passe</body></html>"
)
NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """A certificate authority for one test run."""

    def __init__(self, name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key, days=30)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def _builder(self, subject, key, days):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(NOW - datetime.timedelta(days=60))
        return builder.not_valid_after(NOW + datetime.timedelta(days=days, hours=1))

    def issue(self, folder, *names, days=90):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        builder = self._builder(subject, key, days)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        certificate = builder.sign(self.key, hashes.SHA256())
        path = folder / f"{names[0]}-{days}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path


@pytest.fixture(scope="module")
def authority():
    return Authority("test authority")


@pytest.fixture(scope="module")
def trust(authority):
    return Trust((authority.pem,))


class Pages(BaseHTTPRequestHandler):
    def do_GET(self):
        status = {"/secret": 403, "/go": 301, "/broken": 500}.get(self.path, 200)
        body = PAGE.encode()
        self.send_response(status)
        if status == 301:
            self.send_header("Location", f"https://{self.headers['Host']}/go")
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Refused handshakes are what we test."""


class Quiet6(Quiet):
    address_family = socket.AF_INET6


def server_context(certificate, protocols=("h2", "http/1.1"), oldest=None, newest=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(list(protocols))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are the fault we build
        if oldest:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = oldest
        if newest:
            context.maximum_version = newest
    return context


@contextmanager
def serving(context=None, address="127.0.0.1"):
    server = (Quiet6 if ":" in address else Quiet)((address, 0), Pages)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def site(authority, tmp_path_factory):
    certificate = authority.issue(tmp_path_factory.mktemp("site"), "velo.test", "www.velo.test")
    with serving(server_context(certificate)) as port:
        yield port


def codes(probe, trust=None):
    return [finding.code for finding in look(probe, trust or Trust())]


def page(port, path="/", address="127.0.0.1", **options):
    return Probe("page", "web", address, {"url": f"https://velo.test:{port}{path}", **options})


@pytest.mark.parametrize(
    ("path", "options", "code"),
    [
        ("/", {}, "page.ok"),
        ("/", {"title": "Vélo pour tous"}, "page.ok"),
        ("/", {"title": "Chorale"}, "page.title"),
        ("/", {"contains": "C'est là  que ça se passe"}, "page.ok"),
        ("/", {"contains": "fermé"}, "page.text"),
        ("/", {"status": 403}, "page.status"),
        ("/secret", {}, "page.status"),
        ("/secret", {"status": 403}, "page.shut.ok"),
        ("/broken", {}, "page.status"),
    ],
)
def test_page(site, trust, path, options, code):
    assert codes(page(site, path, **options), trust) == [code]


def test_page_over_ipv6(authority, trust, tmp_path):
    with serving(server_context(authority.issue(tmp_path, "velo.test")), "::1") as port:
        found = look(page(port, address="::1"), trust)[0]
    assert (found.code, found.values["family"]) == ("page.ok", "IPv6")


def test_page_of_an_unknown_authority(site):
    found = look(page(site), Trust())[0]
    assert (found.code, found.values["reason"]) == ("page.unreached", "unknown_authority")


def test_page_of_another_name(site, trust):
    found = look(Probe("page", "web", "127.0.0.1", {"url": f"https://chorale.test:{site}/"}), trust)[0]
    assert (found.code, found.values["reason"]) == ("page.unreached", "name")


def test_page_where_nothing_listens(free_port, trust):
    found = look(page(free_port), trust)[0]
    assert (found.code, found.values["reason"]) == ("page.unreached", "refused")


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def greeter(text):
    """A server that greets and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            try:
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(text)
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_page_from_something_else(trust):
    with greeter(b"SSH-2.0-OpenSSH\r\n") as port:
        found = look(Probe("page", "web", "127.0.0.1", {"url": f"http://velo.test:{port}/"}), trust)[0]
    assert (found.code, found.values["reason"]) in {("page.unreached", "not_http"), ("page.unreached", "reset")}


def test_redirect():
    with serving() as port:
        url = f"http://velo.test:{port}"
        good = Probe("redirect", "web", "127.0.0.1", {"url": f"{url}/go"})
        assert codes(good) == ["redirect.ok"]
        assert codes(Probe("redirect", "web", "127.0.0.1", {"url": f"{url}/"})) == ["redirect.none"]
        assert codes(Probe("redirect", "web", "127.0.0.1", {"url": f"{url}/go", "code": 301})) == ["redirect.ok"]
        assert codes(Probe("redirect", "web", "127.0.0.1", {"url": f"{url}/go", "code": "302"})) == ["redirect.code"]
        elsewhere = Probe("redirect", "web", "127.0.0.1", {"url": f"{url}/go", "to": "https://chorale.test/"})
        assert codes(elsewhere) == ["redirect.elsewhere"]


def tls(port):
    return Probe("tls", "web", "127.0.0.1", {"name": "velo.test", "port": port})


def test_tls_as_it_should_be(site):
    assert codes(tls(site)) == ["tls.old.ok", "tls.old.ok", "tls.new.ok", "tls.new.ok", "tls.http2.ok"]


def test_tls_old_versions_are_found(authority, tmp_path):
    context = server_context(authority.issue(tmp_path, "velo.test"), oldest=ssl.TLSVersion.TLSv1)
    with serving(context) as port:
        assert codes(tls(port))[:2] == ["tls.old.accepted", "tls.old.accepted"]


def test_tls_missing_version_and_http2_are_found(authority, tmp_path):
    certificate = authority.issue(tmp_path, "velo.test")
    context = server_context(certificate, protocols=["http/1.1"], newest=ssl.TLSVersion.TLSv1_2)
    with serving(context) as port:
        assert codes(tls(port))[2:] == ["tls.new.ok", "tls.new.refused", "tls.http2.missing"]


def test_tls_where_nothing_listens(free_port):
    assert codes(tls(free_port)) == ["tls.unreached"]


@pytest.mark.parametrize(
    ("days", "options", "code"),
    [
        (90, {}, "certificate.ok"),
        (90, {"names": ["www.velo.test"]}, "certificate.ok"),
        (90, {"names": ["blog.velo.test"]}, "certificate.names"),
        (10, {}, "certificate.ending"),
        (10, {"days": 7}, "certificate.ok"),
        (-2, {}, "certificate.untrusted"),
    ],
)
def test_certificate(authority, trust, tmp_path, days, options, code):
    with serving(server_context(authority.issue(tmp_path, "velo.test", "www.velo.test", days=days))) as port:
        found = look(Probe("certificate", "web", "127.0.0.1", {"name": "velo.test", "port": port, **options}), trust)
    assert [one.code for one in found] == [code]
    if code in ("certificate.ok", "certificate.ending"):
        assert found[0].values["days"] == days
    if days < 0:
        assert found[0].values["reason"] == "expired"


def test_certificate_of_an_unknown_authority(site):
    probe = Probe("certificate", "web", "127.0.0.1", {"name": "velo.test", "port": site})
    assert codes(probe) == ["certificate.untrusted"]


def test_certificate_where_nothing_listens(free_port):
    probe = Probe("certificate", "web", "127.0.0.1", {"name": "velo.test", "port": free_port})
    assert codes(probe) == ["certificate.unreached"]


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("velo.test", "VELO.test", True),
        ("*.velo.test", "www.velo.test", True),
        ("*.velo.test", "velo.test", False),
        ("*.velo.test", "a.b.velo.test", False),
        ("velo.test", "xvelo.test", False),
    ],
)
def test_names_in_certificates(pattern, name, covered):
    assert probes.covers(pattern, name) is covered


@pytest.fixture
def quiet_list(monkeypatch):
    """This machine's own services must not decide these tests."""
    monkeypatch.setattr(probes, "WELL_KNOWN", ())


@pytest.mark.usefixtures("quiet_list")
def test_ports_open_as_declared(free_port):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        declared = {str(port): {"service": "Web"}}
        good = Probe("ports", "web", "127.0.0.1", {"declared": declared, "listening": [port, free_port]})
        assert codes(good) == ["port.ok", "ports.ok"]
        undeclared = Probe("ports", "web", "127.0.0.1", {"declared": {}, "listening": [port]})
        found = look(undeclared, Trust())
        assert [(one.code, one.values["ports"]) for one in found] == [("ports.undeclared", [port])]
        tolerated = Probe("ports", "web", "127.0.0.1", {"declared": {}, "listening": [port], "tolerated": [port]})
        assert codes(tolerated) == ["ports.ok"]
    assert codes(good) == ["port.closed", "ports.ok"]


def test_well_known_ports_are_always_tried():
    assert {21, 22, 25, 80, 443, 3306, 6379, 8080, 11211} < set(probes.WELL_KNOWN)
    assert 200 <= len(probes.WELL_KNOWN) <= 400


def test_a_scan_of_silence_ends_in_time():
    started = time.monotonic()
    assert probes.scan("192.0.2.1", range(1, 300), seconds=0.5) == set()  # documentation address: nobody is there
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(("starts", "code"), [("220 mail", "tcp.ok"), ("", "tcp.ok"), ("250 ", "tcp.greeting")])
def test_tcp_greeting(starts, code):
    with greeter(b"220 mail.infini.test ESMTP\r\n") as port:
        assert codes(Probe("tcp", "mail", "127.0.0.1", {"port": port, "starts": starts})) == [code]


def test_tcp_where_nothing_listens(free_port):
    assert codes(Probe("tcp", "mail", "127.0.0.1", {"port": free_port})) == ["tcp.unreached"]


LISTING = '* "Hardened Debian 12 (version 3)"\n* "Hardened Debian 12 (version 11)"\n* "Hardened Debian 13 (version 1)"'
WEAK = '{"passed": false, "errors": [{"mismatched_field": "Ciphers"}, {"mismatched_field": "Ciphers"}]}'


@pytest.mark.parametrize(
    ("release", "answer", "code"),
    [
        ("12", '{"passed": true}', "ssh.ok"),
        ("", '{"passed": true}', "ssh.ok"),
        ("12", WEAK, "ssh.weak"),
        ("11", '{"passed": true}', "ssh.untested.ok"),
        ("14", '{"passed": true}', "ssh.untested.ok"),
        ("12", "not JSON", "ssh.unreached"),
    ],
)
def test_ssh_policy(release, answer, code):
    asked = []

    def run(command):
        asked.append(command)
        return LISTING if "-L" in command else answer

    with greeter(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n") as port:
        found = probes.ssh(Probe("ssh", "web", "127.0.0.1", {"port": port, "release": release}), Trust(), run)
    assert [one.code for one in found] == [code]
    if code == "ssh.weak":
        assert found[0].values["fields"] == ["Ciphers"]
    if code in ("ssh.ok", "ssh.weak"):
        assert "Hardened Debian 12 (version 11)" in asked[-1]


def test_an_outdated_policy_is_no_policy():
    assert probes.hardened_policy('"Hardened Debian 12 (version 2)"', "12") is None
    assert probes.hardened_policy('"Hardened Debian 12 (version 3)"', "12") == "Hardened Debian 12 (version 3)"
    assert probes.hardened_policy("", "13") is None


def test_ssh_where_nothing_listens(free_port):
    assert codes(Probe("ssh", "web", "127.0.0.1", {"port": free_port, "release": "12"})) == ["ssh.unreached"]


def test_a_doubtful_probe_is_repeated_once(free_port):
    probe = Probe("tcp", "mail", "127.0.0.1", {"port": free_port})
    servers = []

    def appear():
        time.sleep(0.2)
        servers.append(socket.create_server(("127.0.0.1", free_port)))

    thread = threading.Thread(target=appear)
    thread.start()
    ((same, found),) = probes.look_at_all([probe], Trust(), again_after=0.6)
    thread.join()
    servers[0].close()
    assert same is probe
    assert [one.code for one in found] == ["tcp.ok"]


STRANGE = ["", ".", "a..b", "x" * 70 + ".test", "velo\x00.test", "été.test", "velo test", "*", "-a.test"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("kind", ["page", "redirect", "tls", "certificate"])
def test_a_strange_name_is_a_finding(site, trust, kind, name):
    options = {"name": name, "port": site} if kind in ("tls", "certificate") else {"url": f"https://{name}:{site}/"}
    assert all(code.startswith(f"{kind}.") for code in codes(Probe(kind, "web", "127.0.0.1", options), trust))


@given(st.binary(max_size=200))
def test_any_answer_to_an_old_hello_is_understood(answer):
    assert probes.accepts_old(answer, b"\x03\x01") in (True, False)


@given(st.text())
def test_any_page_has_a_title_or_none(text):
    assert isinstance(probes.title_of(text), str)
