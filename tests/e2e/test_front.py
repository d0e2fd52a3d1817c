# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front door as visitors and scanners meet it, and certificates that change under their eyes."""

import http.client
import os
import shlex
import socket
import ssl
import subprocess
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infini.hosts import Inventory
from infini.staging import keep_authority

INVENTORY = os.environ.get("INFINI_INVENTORY", "staging")
FAMILIES = ("hosting_ipv4", "hosting_ipv6")


@dataclass
class Platform:
    """What the tests need to know of the hosts."""

    inventory: Inventory
    web: str
    server: str
    sites: list[dict]
    addresses: dict[str, str]
    authorities: str

    @property
    def site(self) -> str:
        """A site that costs nothing to serve."""
        light = [site["name"] for site in self.pages if not site.get("php")]
        return (light or [site["name"] for site in self.pages])[0]

    @property
    def other(self) -> str:
        return next(site["name"] for site in self.pages if site["name"] != self.site)

    @property
    def pages(self) -> list[dict]:
        """The sites that show something, and do not only lead elsewhere."""
        return [site for site in self.sites if not site.get("redirect")]

    def run(self, host: str, command: str) -> str:
        line = [*self.inventory.connection(host).ssh("-o", "BatchMode=yes"), f"sh -c {shlex.quote(command)}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{host}: {command}: {done.stderr}{done.stdout}"
        return done.stdout

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authorities)


@pytest.fixture(scope="module")
def platform():
    inventory = Inventory(INVENTORY)
    web = inventory.hosts("webs")[0]
    return Platform(
        inventory,
        web,
        inventory.hosts("acme_servers")[0],
        inventory.get(web, "hosting_sites"),
        {family: inventory.get(web, family) for family in FAMILIES},
        inventory.get(web, "hosting_authorities")[0],
    )


@pytest.fixture(params=FAMILIES)
def address(request, platform):
    return platform.addresses[request.param]


def shake_hands(address, name, context):
    """Open TLS and return the socket."""
    line = socket.create_connection((address, 443), timeout=10)
    try:
        return context.wrap_socket(line, server_hostname=name)
    except OSError:
        line.close()
        raise


class Visitor(http.client.HTTPSConnection):
    """A client that finds the host without DNS."""

    def __init__(self, address, name, context):
        super().__init__(name, context=context, timeout=15)
        self.where, self.name, self.tls = address, name, context

    def connect(self):
        self.sock = shake_hands(self.where, self.name, self.tls)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def ask(self, path="/", host=None):
        self.request("GET", path, headers={"Host": host or self.name})
        answer = self.getresponse()
        return answer, answer.read().decode(errors="replace")


def plain(address, host, path="/"):
    """Ask over plain HTTP."""
    client = http.client.HTTPConnection(address, 80, timeout=10)
    try:
        client.request("GET", path, headers={"Host": host})
        answer = client.getresponse()
        return answer, answer.read().decode(errors="replace")
    finally:
        client.close()


def test_every_name_of_every_site_has_a_trusted_certificate(platform, address):
    for site in platform.sites:
        for name in (site["name"], *site.get("aliases", [])):
            with Visitor(address, name, platform.trusting()) as visitor:
                answer, _ = visitor.ask()
            assert answer.status < 500, name
            assert "max-age=" in answer.headers["Strict-Transport-Security"]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_current_tls_and_http2_are_spoken(platform, address, version):
    context = platform.trusting()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_alpn_protocols(["h2", "http/1.1"])
    with shake_hands(address, platform.site, context) as line:
        assert line.version() == version.replace("_", ".")
        assert line.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(platform, address, version):
    context = platform.trusting()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else our own library would refuse first
    with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
        shake_hands(address, platform.site, context)


def test_a_name_that_is_not_ours_gets_no_handshake(platform, address):
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized"):
        shake_hands(address, "not-ours.test", platform.trusting())


def test_an_open_connection_does_not_lead_to_another_site(platform, address):
    with Visitor(address, platform.site, platform.trusting()) as visitor:
        answer, text = visitor.ask(host=platform.other)
    assert answer.status == 421
    assert '<html lang="fr">' in text


def test_plain_http_leads_to_https(platform, address):
    answer, _ = plain(address, platform.site, "/a/b?c=d")
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{platform.site}/a/b?c=d")


@pytest.mark.parametrize(
    "rest",
    ["../../", "%2e%2e/%2e%2e/", "%2E%2E/../", "..%2f..%2f", "/", "/../../", "./x", "x/../../../", "", "x/", "x%00"],
)
def test_nothing_hides_behind_the_challenges(platform, address, rest):
    path = f"/.well-known/acme-challenge/{rest}"
    answer, _ = plain(address, platform.site, path)
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{platform.site}{path}")


def test_a_redirection_answers_with_its_code_and_target_over_http_and_https(platform, address):
    led = [site for site in platform.sites if site.get("redirect")]
    assert led
    for site in led:
        for name in (site["name"], *site.get("aliases", [])):
            with Visitor(address, name, platform.trusting()) as visitor:
                secure, _ = visitor.ask("/a/b?c=d")
            for answer in (secure, plain(address, name, "/a/b?c=d")[0]):
                wanted = (site["redirect"]["code"], site["redirect"]["to"])
                assert (answer.status, answer.headers["Location"]) == wanted, name


def test_a_redirection_leaves_the_challenges_alone(platform, address):
    name = next(site["name"] for site in platform.sites if site.get("redirect"))
    answer, _ = plain(address, name, "/.well-known/acme-challenge/nothing-here")
    assert answer.status == 404


def test_plain_http_does_not_lead_to_strangers(address):
    answer, _ = plain(address, "not-ours.test")
    assert answer.status == 421


def test_challenges_are_answered_for_any_name(platform, address):
    token = "/var/lib/dehydrated/acme-challenges/e2e-test"
    platform.run(platform.web, f"printf proof >{token} && chmod 644 {token}")
    try:
        answer, text = plain(address, "not-yet-ours.test", "/.well-known/acme-challenge/e2e-test")
        assert (answer.status, text) == (200, "proof")
    finally:
        platform.run(platform.web, f"rm {token}")


def test_the_admin_socket_and_the_keys_are_root_s(platform):
    found = platform.run(
        platform.web, "stat -c '%a %U' /run/haproxy/admin.sock /etc/haproxy/certs /etc/haproxy/certs/*"
    )
    assert set(found.splitlines()) == {"600 root", "700 root"}


@dataclass
class Crowd:
    """Visitors who come without a pause: one stays on a connection, the other makes a new one each time."""

    platform: Platform
    name: str
    served: int = 0
    certificates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def __enter__(self):
        self.over = threading.Event()
        self.people = [threading.Thread(target=who) for who in (self.stay, self.come_and_go)]
        for person in self.people:
            person.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for person in self.people:
            person.join()

    def visitor(self) -> Visitor:
        # Whom to trust changes while we look (the authority restarts): being served is what counts here.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return Visitor(self.platform.addresses["hosting_ipv4"], self.name, context)

    def look(self, visitor: Visitor) -> None:
        try:
            answer, _ = visitor.ask()
            assert answer.status == 200
            self.served += 1
        except (OSError, http.client.HTTPException, AssertionError) as problem:
            self.lost.append(repr(problem))
            visitor.close()

    def stay(self) -> None:
        with self.visitor() as visitor:
            while not self.over.wait(0.25):
                self.look(visitor)

    def come_and_go(self) -> None:
        while not self.over.wait(0.25):
            with self.visitor() as visitor:
                self.look(visitor)
                if visitor.sock:
                    self.note(fingerprint(visitor.sock))

    def note(self, certificate: str) -> None:
        if certificate not in self.certificates:
            self.certificates.append(certificate)


def fingerprint(line: ssl.SSLSocket) -> str:
    return ssl.DER_cert_to_PEM_cert(line.getpeercert(binary_form=True) or b"")


def test_a_reload_drops_no_connection(platform):
    with Crowd(platform, platform.site) as crowd:
        time.sleep(1)
        for _ in range(3):
            platform.run(platform.web, "systemctl reload haproxy.service")
            time.sleep(1)
    assert crowd.served >= 10
    assert crowd.lost == []


# The authority issues certificates of ten minutes for a while; a restart of its host would forget this.
SHORT = """
set -e
cd /run
sed -E 's/"(certificateValidityPeriod|validityPeriod)": [0-9]+/"\\1": 600/g' /etc/pebble/pebble.json >pebble-short.json
mkdir -p /run/systemd/system/pebble.service.d
printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/pebble -strict -config /run/pebble-short.json\\n' \
  >/run/systemd/system/pebble.service.d/short.conf
systemctl daemon-reload
systemctl restart pebble
"""
LONG = """
rm -rf /run/systemd/system/pebble.service.d /run/pebble-short.json
systemctl daemon-reload
systemctl restart pebble
"""


def minutes_left(platform: Platform) -> float:
    file = f"/etc/haproxy/certs/{platform.site}.pem"
    end = platform.run(platform.web, f"openssl x509 -noout -enddate -in {file}").strip().removeprefix("notAfter=")
    return (ssl.cert_time_to_seconds(end) - time.time()) / 60


def test_certificates_are_renewed_and_swapped_without_dropping_a_connection(platform):
    name = platform.site
    with Crowd(platform, name) as crowd:
        time.sleep(1)
        try:
            # The authority has forgotten our account, too: it forgets everything when it restarts.
            platform.run(platform.server, SHORT)
            platform.run(platform.web, f"rm /var/lib/dehydrated/certs/{name}/cert.pem")
            platform.run(platform.web, "systemctl start certificates.service")
            assert 1 < minutes_left(platform) < 11
            time.sleep(1)
            platform.run(platform.web, "systemctl start certificates.service")  # as the timer does
            assert 1 < minutes_left(platform) < 11
            time.sleep(1)
        finally:
            platform.run(platform.server, LONG)
            platform.run(platform.web, "systemctl start certificates.service")
            keep_authority(platform.inventory)
        time.sleep(1)
    assert len(crowd.certificates) == 4  # the first, two short ones, the last
    assert crowd.lost == []
    assert crowd.served > 20
    assert minutes_left(platform) > 60 * 24 * 30
    with shake_hands(platform.addresses["hosting_ipv4"], name, platform.trusting()) as line:
        assert fingerprint(line) == crowd.certificates[-1]


def test_one_hasty_visitor_is_asked_to_wait_and_others_are_not(platform):
    with Visitor(platform.addresses["hosting_ipv4"], platform.site, platform.trusting()) as hasty:
        answer, text = until(8, hasty, lambda status: status == 429)
        assert int(answer.headers["Retry-After"]) > 0
        assert "Trop de demandes" in text
        with Visitor(platform.addresses["hosting_ipv6"], platform.site, platform.trusting()) as other:
            assert other.ask("/robots.txt")[0].status != 429
        until(30, hasty, lambda status: status != 429, pause=2)


def until(seconds, visitor, wanted, pause=0.0):
    """Ask again and again until the status is the wanted one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer, text = visitor.ask("/robots.txt")
        if wanted(answer.status):
            return answer, text
        time.sleep(pause)
    pytest.fail(f"still {answer.status} after {seconds} s")


def test_the_authorities_file_is_there_for_curl(platform):
    assert Path(platform.authorities).read_text().count("BEGIN CERTIFICATE") >= 1
