# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What front, certificates and pebble write, rendered by the engine itself with the roles' own defaults."""

import importlib.machinery
import importlib.util
import json
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from jinja2.utils import missing

from hosting.tree_model import TreeError
from infini.tree_render import Picture, Renderer, environment

ROLES = Path(__file__).parents[2] / "roles"
SITES = [
    {"name": "velo.test", "aliases": ["www.velo.test", "Ancien.Test"], "robots": {"train": "welcome", "seo": None}},
    {"name": "bourg.test", "node": "web2", "hsts": "none", "connections": 3},
    {"name": "jardin.test", "aliases": None, "requests": 20, "expensive": 30, "hsts": "max-age=60; includeSubDomains"},
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
    assert " ".join(rule).endswith("unless tls || plain")
    assert [line[2:] for line in words(files["/etc/haproxy/haproxy.cfg"], "acl plain")] == [
        ["var(txn.site),map_str(/etc/haproxy/maps/plain_http.map)", "-m", "found"],
        ["var(txn.named)", "-m", "found"],
    ]


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
    assert as_map(files["/etc/haproxy/maps/expensive.map"]) == {"jardin.test": "30"}
    assert as_map(files["/etc/haproxy/maps/hsts.map"]) == {
        "bourg.test": "none",
        "jardin.test": "max-age=60; includeSubDomains",
    }


def test_what_came_by_https_may_go_to_another_node_that_speaks_tls():
    def backends(**given):
        return words(tree("front", **given)["/etc/haproxy/haproxy.cfg"], "use_backend")

    usual, (*_, secure, plain) = backends(), backends(front_secure_node="secure")
    assert [line[-1] for line in usual] == [
        "!elsewhere",
        "node_%[var(txn.site),map_str(/etc/haproxy/maps/nodes.map,local)]",
    ]
    assert secure[1:] == ["node_%[var(txn.site),map_str(/etc/haproxy/maps/nodes.map,secure)]", "if", "tls"]
    assert plain == usual[-1]
    node = {"name": "secure", "address": "127.0.0.1", "port": 443, "tls": True}
    (server,) = words(tree("front", front_nodes=[node])["/etc/haproxy/haproxy.cfg"], "server")
    config = tree("front", front_nodes=[node])["/etc/haproxy/haproxy.cfg"]
    assert "del-header X-Forwarded-Proto" in config.partition("\nbackend node_secure\n")[2]
    assert "del-header X-Forwarded-Proto" not in CONFIG
    assert " ".join(server[3:]) == "send-proxy-v2 ssl verify none sni req.hdr(host),host_only,lower maxconn 150"


def test_visitors_are_met_where_it_is_said():
    binds = words(tree("front", front_addresses=["192.0.2.7", "2001:db8::7"])["/etc/haproxy/haproxy.cfg"], "bind")
    assert [line[1] for line in binds] == ["192.0.2.7:80", "192.0.2.7:443", "[2001:db8::7]:80", "[2001:db8::7]:443"]
    assert not [line for line in binds if "v6only" in line]


def test_names_that_another_program_keeps_are_sites_of_their_own_and_never_in_place_of_declared_ones():
    assert not words(CONFIG, "acl named")
    config = tree("front", front_names="/var/lib/panel")["/etc/haproxy/haproxy.cfg"]
    assert [line[3:] for line in words(config, "acl named")] == [
        ["-m", "str", "-f", "/var/lib/panel/names"],
        ["-m", "end", "-f", "/var/lib/panel/wildcards"],
    ]
    (rule,) = words(config, "http-request set-var(txn.named)")
    assert " ".join(rule[3:]) == "if named !{ var(txn.site) -m found }"
    (hsts,) = words(config, "http-response set-var(txn.hsts)")
    assert " ".join(hsts).endswith("if tls !{ var(txn.named) -m found }"), "their owners may go back to HTTP"


def test_only_over_tls_can_a_browser_be_told_from_a_program():
    (rule,) = [line for line in words(CONFIG, "http-request set-var(txn.robot)") if "str(disguised)" in line]
    assert "tls" in rule


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
    http = tree("front")["/etc/haproxy/haproxy.cfg"]
    [[*_, beginning]] = words(http, "acl challenge path_beg")
    [[*_, whole]] = words(http, "acl elsewhere path")
    [[*_, sample, _, _, slash, percent, dot, backslash]] = words(http, f"acl elsewhere path,bytes({len(beginning)})")
    assert (sample, slash, percent, dot, backslash) == (f"path,bytes({len(beginning)})", "/", "%", ".", r"\\")

    def passes(path):
        return path.startswith(beginning) and path != whole and not set(path[len(beginning) :]) & set("/%.\\")

    assert passes("/.well-known/acme-challenge/a-Token_0")
    assert not [path for path in NO_CHALLENGES if passes(path)]
    rules = [line.strip() for line in http.splitlines() if line.strip().startswith("http-request")]
    passing = rules.index("http-request allow if !tls challenge !elsewhere")
    assert all(rule.split()[1] in ("del-header", "set-header") for rule in rules[:passing])
    after = [rule.split()[1:4:2] for rule in rules[passing + 1 :] if rule.split()[1] in ("return", "redirect", "deny")]
    assert after[:3] == [["return", "421"], ["return", "421"], ["redirect", "https"]], "before anybody is judged"


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
    verdicts = [line for line in words(some, "http-request set-var(txn.refusal)") if "too_greedy" not in line]
    assert {line[-1] for line in verdicts if "too_fast" in line or "too_many" in line} == {"!exempt"}
    judged = words(some, "http-request set-var(txn.judged)")
    assert len(judged) == 1
    assert all("!exempt" in clause for clause in " ".join(judged[0]).split("||"))


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
    assert [refusal[3] for refusal in refusals] == ["403", "403", "429", "429", "503"]
    assert all(("Retry-After" in refusal) == (refusal[3] != "403") for refusal in refusals)


CONFIG = tree("front")["/etc/haproxy/haproxy.cfg"]


def test_every_robot_has_a_name_of_its_own_and_says_where_that_stands():
    robots = yaml.safe_load((ROLES / "front/defaults/main.yml").read_text())["front_crawlers"]
    names = [robot["name"].lower() for robot in robots]
    assert [name for name in names if any(other != name and other in name for other in names)] == []
    assert [name for name in names if len(name) < 5 or " " in name] == []
    for robot in robots:
        assert robot["source"].startswith("https://")
        assert date.fromisoformat(robot["checked"]) <= datetime.now(UTC).date()


def test_robots_are_known_by_name_whatever_the_case_and_tokens_stand_in_robots_txt_only():
    files = tree("front")
    crawlers = as_map(files["/etc/haproxy/maps/crawlers.map"])
    assert crawlers["gptbot"] == "train"
    assert not any(name != name.lower() or name == "google-extended" for name in crawlers)
    assert "User-agent: Google-Extended\n" in files["/etc/haproxy/robots/default.txt"]
    assert "User-agent: OAI-SearchBot\n" not in files["/etc/haproxy/robots/default.txt"]
    assert files["/etc/haproxy/robots/named.txt"].endswith("User-agent: *\nDisallow: /\n")


def test_a_site_has_its_own_word_on_robots():
    robots = as_map(tree("front")["/etc/haproxy/maps/robots.map"])
    assert robots["train"] == "refuse"
    assert {key: fate for key, fate in robots.items() if "." in key} == {
        "velo.test": "own",
        "velo.test/train": "welcome",
    }


def test_no_regular_expression_anywhere():
    """Their compiler wants memory that the unit denies."""
    assert "MemoryDenyWriteExecute=true" in tree("front")["/etc/systemd/system/haproxy.service.d/infini.conf"]
    assert not [line for line in CONFIG.splitlines() if "-m reg" in line or "_reg(" in line or "regsub" in line]


def test_the_user_agent_is_read_whole():
    """`req.hdr` would cut it at its commas, of which every browser has one."""
    agents = [line for line in CONFIG.splitlines() if "(user-agent)" in line]
    assert agents
    assert all("req.fhdr(user-agent)" in line for line in agents)


def test_refusals_are_counted_in_the_order_that_the_program_reads(refusals):
    counted = [(line[1], line[-2]) for line in words(CONFIG, "http-request") if line[1].startswith("sc-inc-gpc")]
    assert counted == [(f"sc-inc-gpc({index},1)", reason) for index, reason in enumerate(refusals.REASONS)]
    assert f"gpc_rate({len(refusals.REASONS)},1d)" in CONFIG


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"front_exempt": ["192.0.2.0/24"]},
        {"front_names": "/etc/haproxy/of-the-panel", "front_secure_node": "web2", "front_addresses": ["127.0.0.1"]},
    ],
)
def test_haproxy_itself_accepts_it(tmp_path, given):
    (tmp_path / "etc/haproxy/of-the-panel").mkdir(parents=True)
    (tmp_path / "etc/haproxy/of-the-panel/names").write_text("www.velo.test\n")
    (tmp_path / "etc/haproxy/of-the-panel/wildcards").write_text("")
    for path, text in tree("front", **given).items():
        file = tmp_path / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        here = "\n".join(
            line for line in text.splitlines() if line.split()[:1] not in (["user"], ["group"], ["chroot"])
        )
        file.write_text(here.replace("/etc/haproxy", f"{tmp_path}/etc/haproxy") + "\n")
    (tmp_path / "etc/haproxy/certs").mkdir()
    done = subprocess.run(
        ["haproxy", "-c", "-f", str(tmp_path / "etc/haproxy/haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def refusals():
    path = ROLES / "front/tree/usr/local/sbin/front-refusals"
    loader = importlib.machinery.SourceFileLoader("front_refusals", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    program = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)  # a __pycache__ in the tree would go to the hosts
        loader.exec_module(program)
    return program


# As HAProxy 2.6 prints `show table sites`.
ENTRY = (
    "0x55d1563c7518: key={site}\\ {kind} use=0 exp=86398672 conn_cur=0 gpc0={0} gpc1={1} gpc2={2} gpc3={3} gpc4={4} "
    "gpc0_rate(86400000)={0} gpc1_rate(86400000)={1} gpc2_rate(86400000)={2} gpc3_rate(86400000)={3} "
    "gpc4_rate(86400000)={4}"
)
TABLE = "\n".join(
    [
        "# table: sites, type: string, size:40960, used:3",
        ENTRY.format(3, 0, 0, 0, 1, site="velo.test", kind="dynamic"),
        ENTRY.format(0, 0, 0, 2, 0, site="velo.test", kind="static"),
        ENTRY.format(0, 9, 0, 0, 0, site="bourg.test", kind="dynamic"),
        ENTRY.format(0, 0, 0, 0, 0, site="jardin.test", kind="dynamic"),
        "",
    ]
)


def test_refusals_are_said_by_site_and_reason(refusals, capsys):
    assert refusals.main([], TABLE) == 0
    assert capsys.readouterr().out == (
        "bourg.test : 9 (robots déguisés : 9)\n"
        "velo.test : 6 (robots nommés : 3, visiteurs trop pressés : 2, site saturé : 1)\n"
    )
    assert refusals.main(["--total"], TABLE) == 0
    assert capsys.readouterr().out == "15\n"


def test_a_full_site_is_named_with_its_numbers(refusals, capsys):
    assert refusals.main(["--crowded"], TABLE) == 1
    assert capsys.readouterr().out == "velo.test : 1 (site saturé : 1)\n"
    assert refusals.main(["--crowded"], "") == 0


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
    assert (settings["renew_days"], settings["lists"]) == (2, [])
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
