# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What front, certificates and pebble write, rendered by the engine itself with the roles' own defaults."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from jinja2.utils import missing

from hosting.tree_model import TreeError
from infini.tree_render import Picture, Renderer, environment

ROLES = Path(__file__).parents[2] / "roles"
SITES = [
    {"name": "velo.test", "aliases": ["www.velo.test", "Ancien.Test"]},
    {"name": "bourg.test", "node": "web2", "hsts": "none", "connections": 3},
    {"name": "jardin.test", "aliases": None, "requests": 20, "hsts": "max-age=60; includeSubDomains"},
    {"name": "Fete.test", "plain_http": True},
]
NODES = [
    {"name": "local", "address": "127.0.0.1", "port": 8080},
    {"name": "web2", "address": "192.0.2.12", "port": 8080, "connections": 40},
]
GIVEN = {
    "front": {"front_sites": SITES, "front_nodes": NODES},
    "certificates": {"certificates_names": SITES[:1], "certificates_contact": "tech@infini.test"},
    "pebble": {"pebble_names": ["anatole.infini.test"], "pebble_addresses": ["192.0.2.1", "2001:db8::1"]},
}


def tree(role: str, **given: object) -> dict[str, str]:
    """Return what the role writes: path on the host -> text."""
    return {path: content.decode() for path, content in _files(picture(role, **given)).items()}


def picture(role: str, **given: object) -> Picture:
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    variables = {"ansible_managed": "managed", **defaults, **GIVEN[role], **given}
    env = environment(lambda name: variables.get(name, missing))
    return Renderer(ROLES / role / "tree", env, role, lambda path: (path.read_bytes(), False)).picture()


def _files(found: Picture) -> dict[str, bytes]:
    return {entry.path: found.contents[entry.path] for entry in found.request.entries if entry.path in found.contents}


def words(text: str, beginning: str) -> list[list[str]]:
    lines = [line.split() for line in text.splitlines()]
    return [line for line in lines if line[: len(beginning.split())] == beginning.split()]


def as_map(text: str) -> dict[str, str]:
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return {key: value for key, value in lines}  # noqa: C416  pairs of exactly two, or it fails


@pytest.mark.parametrize("role", sorted(GIVEN))
def test_every_variable_of_a_template_has_a_value(role):
    assert tree(role)


def test_a_variable_that_is_not_there_stops_the_role():
    with pytest.raises(TreeError, match="no attribute 'window'"):
        tree("front", front_limits={})


def test_all_names_of_a_site_lead_to_it_in_lower_case():
    sites = as_map(tree("front")["/etc/haproxy/maps/sites.map"])
    assert sites == {
        "velo.test": "velo.test",
        "www.velo.test": "velo.test",
        "ancien.test": "velo.test",
        "bourg.test": "bourg.test",
        "jardin.test": "jardin.test",
        "fete.test": "fete.test",
    }


def test_only_what_says_so_is_answered_over_plain_http():
    files = tree("front")
    assert as_map(files["/etc/haproxy/maps/plain_http.map"]) == {"fete.test": "yes"}
    (rule,) = words(files["/etc/haproxy/haproxy.cfg"], "http-request redirect")
    assert " ".join(rule).endswith("|| { var(txn.site),map_str(/etc/haproxy/maps/plain_http.map) -m found }")


def test_a_second_web_node_is_data():
    files = tree("front")
    assert as_map(files["/etc/haproxy/maps/nodes.map"]) == {"bourg.test": "web2"}
    servers = words(files["/etc/haproxy/haproxy.cfg"], "server")
    assert servers == [
        ["server", "local", "127.0.0.1:8080", "send-proxy-v2", "maxconn", "150"],
        ["server", "web2", "192.0.2.12:8080", "send-proxy-v2", "maxconn", "40"],
    ]


def test_limits_and_hsts_of_single_sites_are_maps():
    files = tree("front")
    assert as_map(files["/etc/haproxy/maps/requests.map"]) == {"jardin.test": "20"}
    assert as_map(files["/etc/haproxy/maps/connections.map"]) == {"bourg.test": "3"}
    assert as_map(files["/etc/haproxy/maps/hsts.map"]) == {
        "bourg.test": "none",
        "jardin.test": "max-age=60; includeSubDomains",
    }


def test_connections_to_apache_are_never_shared():
    defaults = tree("front")["/etc/haproxy/haproxy.cfg"].split("\ndefaults\n")[1].split("\nbackend")[0]
    assert words(defaults, "http-reuse never")
    assert words(defaults, "option http-server-close")


NO_CHALLENGES = [
    "/",
    "/.well-known/acme-challenge/",
    "/.well-known/acme-challenge/../../wp-login.php",
    "/.well-known/acme-challenge/%2e%2e/%2e%2e/",
    "/.well-known/acme-challenge//token",
    "/.well-known/acme-challenge/token/",
    "//.well-known/acme-challenge/token",
    "/x/.well-known/acme-challenge/token",
    "/xwell-known/acme-challenge/token",
]


def test_only_challenges_pass_over_plain_http():
    http = tree("front")["/etc/haproxy/haproxy.cfg"].split("\nfrontend http\n")[1].split("\nfrontend")[0]
    [[*_, beginning]] = words(http, "acl challenge path_beg")
    [[*_, whole]] = words(http, "acl elsewhere path")
    [[*_, sample, _, _, slash, percent, dot, backslash]] = words(http, f"acl elsewhere path,bytes({len(beginning)})")
    assert (sample, slash, percent, dot, backslash) == (f"path,bytes({len(beginning)})", "/", "%", ".", r"\\")

    def passes(path):
        return path.startswith(beginning) and path != whole and not set(path[len(beginning) :]) & set("/%.\\")

    assert passes("/.well-known/acme-challenge/a-Token_0")
    assert not [path for path in NO_CHALLENGES if passes(path)]
    assert words(http, "http-request redirect scheme https code 301 unless challenge !elsewhere")


def test_tls_is_asked_for_on_both_families_and_needs_a_name():
    binds = words(tree("front")["/etc/haproxy/haproxy.cfg"], "bind")
    tls = [line for line in binds if "ssl" in line]
    assert [line[1] for line in tls] == [":443", "[::]:443"]
    for line in tls:
        assert {"strict-sni", "h2,http/1.1", "/etc/haproxy/certs/"} <= set(line)


def test_limits_spare_the_exempt_only():
    plain = tree("front")["/etc/haproxy/haproxy.cfg"]
    some = tree("front", front_exempt=["192.0.2.0/24", "2001:db8::/32"])["/etc/haproxy/haproxy.cfg"]
    assert words(plain, "acl exempt") == [["acl", "exempt", "always_false"]]
    assert words(some, "acl exempt") == [["acl", "exempt", "src", "192.0.2.0/24", "2001:db8::/32"]]
    assert all(line[-2:] == ["too_fast", "!exempt"] for line in words(some, "http-request deny status 429"))


def test_the_certificates_directory_is_closed_to_others():
    directory = next(e for e in picture("front").request.entries if e.path == "/etc/haproxy/certs")
    assert (directory.mode, directory.owner) == (0o700, "root")


class Page(HTMLParser):
    """Notes what a screen reader and a phone need."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: dict[str, dict[str, str | None]] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.setdefault(tag, {}).update(dict(attrs))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


PAGES = {path: text for path, text in tree("front").items() if path.startswith("/etc/haproxy/pages/")}


@pytest.mark.parametrize("path", sorted(PAGES))
def test_error_pages_are_small_whole_and_french(path):
    head, _, body = PAGES[path].partition("<!DOCTYPE html>")
    page = Page(body)
    assert page.seen["html"]["lang"] == "fr"
    assert {"title", "main", "h1"} <= page.seen.keys()
    assert page.seen["meta"]["name"]
    assert not page.open
    assert len(body) < 1500
    if path.endswith(".http"):
        status, *headers = head.rstrip("\n").splitlines()
        assert status.split()[1] == Path(path).stem
        assert head.endswith("\n\n")
        assert all(": " in header for header in headers)
    else:
        assert not head


def test_pages_named_in_the_configuration_exist():
    config = tree("front")["/etc/haproxy/haproxy.cfg"]
    named = {word for line in config.splitlines() for word in line.split() if word.startswith("/etc/haproxy/pages/")}
    assert named == set(PAGES)


def test_an_overloaded_site_says_when_to_come_back():
    assert "Retry-After: 10\n" in PAGES["/etc/haproxy/pages/503.http"]
    config = tree("front")["/etc/haproxy/haproxy.cfg"]
    refusals = words(config, "http-request deny status")
    assert len(refusals) == 2
    assert all("Retry-After" in refusal for refusal in refusals)


def test_one_line_per_certificate():
    lines = tree("certificates")["/etc/dehydrated/domains.txt"].splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["velo.test www.velo.test ancien.test"]


def test_the_authority_is_trusted_through_its_bundle_only_where_one_is_given():
    plain = tree("certificates")
    bench = tree("certificates", certificates_ca_bundle="-----BEGIN CERTIFICATE-----")
    assert "/etc/dehydrated/ca.pem" not in plain
    assert "CURL_OPTS" not in plain["/etc/dehydrated/conf.d/infini.sh"]
    assert bench["/etc/dehydrated/ca.pem"].startswith("-----BEGIN")
    assert "--cacert /etc/dehydrated/ca.pem" in bench["/etc/dehydrated/conf.d/infini.sh"]


def test_settings_of_our_program_are_json():
    settings = json.loads(tree("certificates", certificates_renew_days=2)["/etc/dehydrated/infini.json"])
    assert settings["renew_days"] == 2
    assert settings["deploy"] == "/etc/haproxy/certs"


def test_pebble_validates_for_real():
    files = tree("pebble", pebble_validity=3600)
    config = json.loads(files["/etc/pebble/pebble.json"])["pebble"]
    assert (config["httpPort"], config["tlsPort"]) == (80, 443)
    assert config["certificateValidityPeriod"] == config["profiles"]["default"]["validityPeriod"] == 3600
    settings = [line for line in files["/etc/systemd/system/pebble.service"].splitlines() if "Environment=" in line]
    assert settings == ["Environment=PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0"]
    names = "subjectAltName=DNS:localhost,DNS:anatole.infini.test,IP:192.0.2.1,IP:2001:db8::1"
    assert names in files["/etc/pebble/names"].splitlines()


UNITS = [
    ("certificates", "/etc/systemd/system/certificates.service"),
    ("pebble", "/etc/systemd/system/pebble.service"),
]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@pytest.mark.parametrize(("role", "path"), UNITS)
def test_units_are_hardened(role, path, tmp_path):
    unit = tmp_path / Path(path).name
    unit.write_text(tree(role)[path])
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)], check=True, capture_output=True
    )
