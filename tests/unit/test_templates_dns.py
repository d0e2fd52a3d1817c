# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dns_primary writes, rendered by the engine itself and read by Knot's own programs where they are installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from jinja2.utils import missing

from hosting.tree_model import TreeError
from infini.tree_render import Picture, Renderer, environment

ROLE = Path(__file__).parents[2] / "roles/dns_primary"
ZONE = "@ 300 SOA ns.infini.test. hostmaster.infini.test. 1 10800 3600 604800 300\n@ 300 NS ns.infini.test.\n"
SECRET = "dGhpcyBpcyBhIHNlY3JldCBvZiB0aGUgdGVzdHM="
KEYS = [{"name": "transfer", "secret": SECRET}, {"name": "other", "algorithm": "hmac-sha512", "secret": SECRET}]
SECONDARIES = [
    {"name": "one", "addresses": ["192.0.2.2", "2001:db8::2"], "key": "transfer"},
    {"name": "two", "addresses": ["198.51.100.2"]},
]
GIVEN = {
    "dns_primary_listen": ["192.0.2.1", "2001:db8::1"],
    "dns_primary_zones": [
        {"name": "velo.test", "content": ZONE},
        {"name": "bourg.test", "content": ZONE, "signed": True},
    ],
}
FULL = {
    "dns_primary_keys": KEYS,
    "dns_primary_secondaries": SECONDARIES,
    "dns_primary_catalog": "catalog.infini.test",
    "dns_primary_rate_exempt": ["192.0.2.0/24"],
}
CONFIGURATIONS = {
    "plain": {},
    "full": FULL,
    "empty": {"dns_primary_zones": []},
    "unlimited": {"dns_primary_rate_limit": 0},
}


def picture(**given: object) -> Picture:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    variables = {**defaults, **GIVEN, **given}
    env = environment(lambda name: variables.get(name, missing))
    env.globals["lookup"] = lambda _plugin, path: Path(path).read_text()
    return Renderer(ROLE / "tree", env, "dns_primary", lambda path: (path.read_bytes(), False)).picture()


def tree(**given: object) -> dict[str, str]:
    """Return what the role writes: path on the host -> text."""
    return {path: content.decode() for path, content in picture(**given).contents.items()}


def section(text: str, name: str) -> str:
    found = re.search(rf"(?ms)^{name}:\n(.*?)(?=^\S|\Z)", text)
    return found[1] if found else ""


def entry(text: str, name: str, which: str) -> list[str]:
    """Return the lines of one entry of a section, without comments."""
    entries = re.split(r"(?m)^  - (?:id|domain): ", section(text, name))
    [found] = [lines for lines in entries if lines.splitlines() and lines.splitlines()[0].strip('"') == which]
    return [line.strip() for line in found.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]


def test_only_the_declared_addresses_are_listened_on():
    [line] = [line for line in tree()["/etc/knot/knot.conf"].splitlines() if "listen:" in line]
    assert line.split("listen:")[1].strip() == '[ "192.0.2.1@53", "2001:db8::1@53" ]'


def test_each_zone_is_a_file_and_an_entry():
    files = tree()
    zones = {path for path in files if path.startswith("/etc/knot/zones/")}
    assert zones == {"/etc/knot/zones/velo.test.zone", "/etc/knot/zones/bourg.test.zone"}
    assert files["/etc/knot/zones/velo.test.zone"].partition("\n")[2] == ZONE
    assert entry(files["/etc/knot/conf.d/20-zones.conf"], "zone", "velo.test") == []


def test_a_zone_may_be_a_file_of_the_control_node(tmp_path):
    (tmp_path / "velo").write_text(ZONE)
    files = tree(dns_primary_zones=[{"name": "velo.test", "file": str(tmp_path / "velo")}])
    assert files["/etc/knot/zones/velo.test.zone"].partition("\n")[2] == ZONE


def test_a_zone_without_text_stops_the_role():
    with pytest.raises(TreeError, match="content"):
        tree(dns_primary_zones=[{"name": "velo.test"}])


def test_a_zone_given_twice_stops_the_role():
    with pytest.raises(TreeError, match="twice"):
        tree(dns_primary_zones=[{"name": "velo.test", "content": ZONE}] * 2)


def test_only_the_zones_that_ask_for_it_are_signed():
    zones = tree()["/etc/knot/conf.d/20-zones.conf"]
    assert entry(zones, "zone", "bourg.test") == ["dnssec-signing: on", "dnssec-policy: automatic"]
    assert "cds-cdnskey-publish: none" in entry(zones, "policy", "automatic")
    unsigned = tree(dns_primary_zones=GIVEN["dns_primary_zones"][:1])["/etc/knot/conf.d/20-zones.conf"]
    assert not section(unsigned, "policy")


def test_nobody_fetches_zones_but_the_secondaries_with_their_key():
    alone, full = (tree(**given)["/etc/knot/conf.d/20-zones.conf"] for given in ({}, FULL))
    assert not section(alone, "acl")
    assert not [line for line in entry(alone, "template", "default") if line.startswith(("acl", "notify"))]
    assert entry(full, "acl", "one") == [
        'address: [ "192.0.2.2", "2001:db8::2" ]',
        'key: "transfer"',
        "action: transfer",
    ]
    assert entry(full, "acl", "two") == ['address: [ "198.51.100.2" ]', "action: transfer"]
    assert {'notify: [ "one", "two" ]', 'acl: [ "one", "two" ]'} <= set(entry(full, "template", "default"))


def test_the_catalog_names_every_zone():
    zones = tree(**FULL)["/etc/knot/conf.d/20-zones.conf"]
    assert "catalog-role: generate" in entry(zones, "zone", "catalog.infini.test")
    for zone in GIVEN["dns_primary_zones"]:
        assert 'catalog-zone: "catalog.infini.test"' in entry(zones, "zone", zone["name"])
    assert "catalog" not in tree()["/etc/knot/conf.d/20-zones.conf"]


def test_secrets_stand_in_one_secret_file_only():
    found = picture(**FULL)
    assert [path for path, content in found.contents.items() if SECRET.encode() in content] == [
        "/etc/knot/conf.d/10-keys.conf"
    ]
    keys = next(entry for entry in found.request.entries if entry.path == "/etc/knot/conf.d/10-keys.conf")
    assert (keys.secret, keys.owner, keys.group, keys.mode) == (True, "root", "knot", 0o640)


def test_knot_never_writes_our_files():
    lines = entry(tree()["/etc/knot/conf.d/20-zones.conf"], "template", "default")
    assert {"zonefile-sync: -1", "zonefile-load: difference-no-serial", "journal-content: all"} <= set(lines)
    assert not [found for found in picture().request.entries if found.owner == "knot"]


def test_zones_are_judged_by_name_since_the_catalog_has_no_file():
    commands = [validation.command for validation in picture(**FULL).request.validations]
    assert ("knotc", "-c", "/etc/knot/knot.conf", "zone-check", "velo.test", "bourg.test") in commands
    empty = [validation.command for validation in picture(dns_primary_zones=[]).request.validations]
    assert {command[-1] for command in empty} == {"conf-check"}


def on_this_machine(folder: Path, **given: object) -> str:
    """Write the tree below a folder, with its own paths in it, and return where its configuration is."""
    for path, text in tree(**given).items():
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace("/etc/knot", f"{folder}/etc/knot").replace("/var/lib/knot", f"{folder}/state"))
    return str(folder / "etc/knot/knot.conf")


def knotc(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([shutil.which("knotc") or "knotc", *arguments], capture_output=True, text=True, check=False)


needs_knot = pytest.mark.skipif(not shutil.which("knotc"), reason="knot is not installed")


@needs_knot
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_knot_reads_what_we_write(name, tmp_path):
    done = knotc("-c", on_this_machine(tmp_path, **CONFIGURATIONS[name]), "conf-check")
    assert done.returncode == 0, done.stderr


@needs_knot
@pytest.mark.parametrize(
    ("line", "accepted"),
    [
        ("www 300 A 192.0.2.7", True),
        ("www 300 A 192.0.2.7\nwww 300 CNAME @", False),
        ("www 300 ALIAS velo.test.", False),
        ('www 300 TXT "no end', False),
    ],
)
def test_a_broken_zone_is_seen_before_it_is_served(line, accepted, tmp_path):
    zones = [{"name": "velo.test", "content": f"{ZONE}{line}\n"}]
    config = on_this_machine(tmp_path, **FULL, dns_primary_zones=zones)
    done = knotc("-c", config, "zone-check", "velo.test")
    assert (done.returncode == 0) is accepted, done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_the_unit_is_hardened(tmp_path):
    unit = tmp_path / "knot.service"
    ours = tree()["/etc/systemd/system/knot.service.d/infini.conf"]
    # What Debian's unit gives, as far as the score knows it.
    debian = "[Service]\nExecStart=/usr/sbin/knotd\nUser=knot\nNoNewPrivileges=yes\nAmbientCapabilities=CAP_SETPCAP\n"
    unit.write_text(debian + ours.partition("[Service]\n")[2])
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)], check=True, capture_output=True
    )
