# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A panel moves to a second host with nobody's names in it: exported, anonymised, imported, compared."""

import json
import re

import doors
import pytest
import yaml
from ansible.module_utils.hosting.alternc_export import KEPT, counts
from conftest import Panel

from infini import ROOT, STATE, bench, staging
from infini.apply import playbook_path
from infini.hosts import Inventory
from infini.runner import play

SECOND = "panel2"
PASSWORD = "Chat-noir-7-du-port"
MEMBERS = [
    {
        "login": "zephyrin",
        "name": "Kermarrec",
        "first_name": "Zéphyrine",
        "mail": "zephyrine.kermarrec@laposte.example",
        "notes": "Rappeler au 0298765432, 17 quai Malbert, adhérente depuis 1997",
        "profile": "grandvoile",
        "duration": 12,
    },
    {"login": "gwendal", "name": "Le Bihan", "first_name": "Gwendal", "mail": "bihan@courrielbleu.example"},
    {"login": "parti", "name": "Association Sillage", "mail": "sillage@ailleurs.example", "enabled": False},
]
SETS = [
    (
        "alternc_domain_types",
        {
            "types": [
                {
                    "name": "relais",
                    "description": "Relay",
                    "target": "NONE",
                    "entry": "%SUB% IN A 203.0.113.99",
                    "compatibility": ["txt", "mx"],
                    "only_dns": True,
                    "need_dns": True,
                }
            ]
        },
    ),
    ("alternc_variables", {"variables": {"mailname_bounce": "rebond.goelette.example"}}),
    ("alternc_quotas", {"defaults": {"grandvoile": {"dom": 4, "mail": 40, "mysql": 6, "ftp": 6}}}),
    (
        "alternc_members",
        {"members": [{**row, "password": f"{PASSWORD}-{index}"} for index, row in enumerate(MEMBERS)], "prune": False},
    ),
    (
        "alternc_quotas",
        {
            "members": {
                "zephyrin": {"mail": 55},
                "gwendal": {"dom": 3, "mail": 9, "mysql": 2, "ftp": 2},
                "parti": {"dom": 1, "mail": 3},
            }
        },
    ),
    (
        "alternc_domains",
        {
            "domains": [
                {"name": "goelette.example", "member": "zephyrin", "ttl": 600, "keep": True},
                {"name": "fest-noz.example", "member": "zephyrin", "mail": False},
                {"name": "lebihan.example", "member": "gwendal", "dns": False},
                {"name": "sillage.example", "member": "parti"},
            ],
            "prune": False,
        },
    ),
    (
        "alternc_subdomains",
        {
            "subdomains": [
                {"domain": "goelette.example", "sub": "www", "type": "php82-fpm", "value": "/www/goelette"},
                {"domain": "goelette.example", "type": "url", "value": "https://www.goelette.example/accueil?q=voiles"},
                {"domain": "goelette.example", "sub": "nuage", "type": "ip", "value": "203.0.113.77"},
                {"domain": "goelette.example", "sub": "nuage", "type": "ipv6", "value": "2001:db8:77::abcd"},
                {
                    "domain": "goelette.example",
                    "sub": "*",
                    "type": "php74-fpm",
                    "value": "/www/goelette",
                    "https": "http",
                },
                {"domain": "goelette.example", "sub": "blog.hiver", "type": "vhost", "value": "/www/carnet-de-bord"},
                {"domain": "goelette.example", "type": "txt", "value": "google-site-verification=Kx7QpLm3nZ"},
                {
                    "domain": "goelette.example",
                    "type": "txt",
                    "value": "v=spf1 mx ip4:203.0.113.80 include:spf.regate.example ?all",
                },
                {
                    "domain": "goelette.example",
                    "sub": "_dmarc",
                    "type": "txt",
                    "value": "v=DMARC1; p=none; rua=mailto:rapports@goelette.example",
                },
                {"domain": "goelette.example", "type": "mx", "value": "courrier.regate.example."},
                {"domain": "goelette.example", "sub": "boutique", "type": "cname", "value": "vitrine.regate.example."},
                {"domain": "goelette.example", "sub": "phare", "type": "relais"},
                {"domain": "fest-noz.example", "sub": "www", "type": "php82-fpm", "value": "/www/festnoz"},
                {
                    "domain": "fest-noz.example",
                    "sub": "billets",
                    "type": "url",
                    "value": "https://billetterie.regate.example/",
                    "enabled": False,
                },
                {
                    "domain": "lebihan.example",
                    "sub": "www",
                    "type": "php74-fpm",
                    "value": "/www/bihan",
                    "https": "https",
                },
                {"domain": "sillage.example", "sub": "www", "type": "vhost", "value": "/www/sillage"},
                {"domain": "sillage.example", "type": "defmx"},
            ],
            "scope": [row["login"] for row in MEMBERS],
            "ignore": ["autodiscover"],
            "confirm_domains": ["goelette.example", "fest-noz.example", "lebihan.example", "sillage.example"],
        },
    ),
    (
        "alternc_mailboxes",
        {
            "mailboxes": [
                {"address": "skipper@goelette.example", "mailbox": True, "quota_mb": 250, "password": PASSWORD},
                {
                    "address": "equipage@goelette.example",
                    "mailbox": True,
                    "forwards": ["moussaillon@ailleurs.example", "skipper@goelette.example"],
                    "password": PASSWORD,
                },
                {"address": "ancienne@goelette.example", "mailbox": True, "enabled": False, "password": PASSWORD},
                {"address": "tresorerie@goelette.example", "forwards": ["caisse@banquebleue.example"]},
                {"address": "@goelette.example", "forwards": ["skipper@goelette.example"]},
                {"address": "postmaster@sillage.example", "forwards": ["sillage@ailleurs.example"]},
            ],
            "scope": [row["login"] for row in MEMBERS],
            "confirm_removals": ["postmaster@goelette.example", "postmaster@lebihan.example"],
        },
    ),
    (
        "alternc_databases",
        {
            "databases": [{"name": "zephyrin_spipale", "member": "zephyrin"}, {"name": "gwendal", "member": "gwendal"}],
            "users": [
                {
                    "name": "zephyrin_lectrice",
                    "member": "zephyrin",
                    "databases": ["zephyrin_spipale"],
                    "password": "Lectrice-9-ouverte",
                }
            ],
            "prune": False,
        },
    ),
    (
        "alternc_ftp_accounts",
        {
            "accounts": [
                {
                    "name": "zephyrin_atelier",
                    "member": "zephyrin",
                    "directory": "/www/goelette",
                    "password": PASSWORD,
                },
                {"name": "gwendal", "member": "gwendal", "enabled": False, "password": PASSWORD},
            ],
            "prune": False,
        },
    ),
]
"""Some of everything that a panel can hold, of three members who exist nowhere."""


@pytest.fixture(scope="module")
def filled(panel, inventory, tmp_path_factory):
    """Give the panel members who have some of everything, and take them away afterwards."""
    folder = tmp_path_factory.mktemp("filled")
    before = panel.sql("SELECT value FROM variable WHERE name = 'mailname_bounce'")
    try:
        for one in SETS:
            doors.made(folder, inventory.path, "panel", one)
            panel.run("alternc-apply now")
        yield panel
    finally:
        doors.run(
            folder,
            inventory.path,
            "panel",
            ("alternc_members", {"members": [], "prune": False, "remove": [row["login"] for row in MEMBERS]}),
        )
        panel.run("/usr/lib/alternc/update_mails.sh; alternc-apply now", check=False)
        doors.run(
            folder,
            inventory.path,
            "panel",
            ("alternc_domain_types", {"types": [], "remove": ["relais"]}),  # once no row has it, also none that goes
            ("alternc_variables", {"variables": {"mailname_bounce": before[0][0] if before else ""}}),
        )
        panel.sql("DELETE FROM defquotas WHERE type = 'grandvoile'")


@pytest.fixture(scope="module")
def second(inventory, ca_file):
    """Build a second panel beside the first, with nobody in it; it is gone afterwards.

    Its inventory is the bench's with one more line, in a folder of its own.
    """
    folder = STATE / f"twin-{staging.name()}"
    folder.mkdir(exist_ok=True)
    hosts = yaml.safe_load((inventory.path / "hosts.yml").read_text())
    # No certificate either: the bench's authority lets in only the hosts that it knows.
    nobody = {"alternc_declared": {}, "alternc_canary": "", "certificates_names": []}
    hosts["all"]["hosts"][SECOND] = {"bench_release": "bookworm", "bench_host_number": 12, **nobody}
    for group in ("databases", "panels"):
        hosts["all"]["children"][group]["hosts"][SECOND] = None
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    (folder / "group_vars").unlink(missing_ok=True)
    (folder / "group_vars").symlink_to(inventory.path / "group_vars")
    try:
        done = play(ROOT / "playbooks/bench/create.yml", str(folder))
        assert done.ok, done.sentence()
        done = play(playbook_path("site"), str(folder), arguments=["--limit", SECOND])
        assert done.ok, done.sentence()
        twin = Inventory(str(folder))
        yield Panel(twin, SECOND, ca_file), twin
    finally:
        bench.podman("rm", "--force", "--time", "0", "--volumes", f"infini-{staging.name()}-{SECOND}")


def export(panel, inventory, host, folder, **options):
    """Write a panel down on its host; return what stands there."""
    dest = f"/var/backups/{folder.name}.json"
    try:
        doors.made(folder, inventory.path, host, ("alternc_export", {"dest": dest, **options}))
        return panel.run(f"cat {dest}")
    finally:
        panel.run(f"rm -f {dest}")


def originals(data):
    """Return each name, address, hash, text and address of a host that an export holds, whole and word by word."""
    whole = set()
    for row in data["members"]:
        whole |= {
            row.get(key, "") for key in ("login", "name", "first_name", "mail", "notes", "profile", "password_hash")
        }
    whole |= {row["name"] for row in data["domains"]}
    for row in data["subdomains"]:
        whole |= {row["sub"], row["value"]}
    for row in data["mailboxes"]:
        whole |= {row["address"], *row["forwards"], row.get("password_hash", "")}
    for row in [*data["databases"]["databases"], *data["databases"]["users"], *data["ftp_accounts"]]:
        whole |= {row["name"], *(row.get(key, "") for key in ("password", "password_hash", "directory"))}
    words = {word for one in whole for word in re.findall(r"[^\W_]{4,}", one)}
    addresses = {ip for one in whole for ip in re.findall(r"\d+(?:\.\d+){3}|[0-9a-f]+(?::[0-9a-f]*){3,}", one)}
    return {one.lower() for one in whole | words | addresses if len(one) >= 4} - NOBODYS


NOBODYS = {
    *KEPT,
    *(f"/{word}" for word in KEPT),
    # What a record, an address or a type is made of, and says nothing of anybody.
    *("http", "https", "spf1", "v=spf1 a mx ?all", "include", "/www", "2001"),
    *("dmarc", "dmarc1", "none", "mailto", "adkim", "aspf"),
}


def test_a_panel_is_taken_to_a_second_host_without_a_name(filled, second, inventory, tmp_path):
    there, twin = second
    known = json.loads(export(filled, inventory, "panel", tmp_path, secrets=True))
    text = export(filled, inventory, "panel", tmp_path, anonymise=True)
    nameless = json.loads(text)
    assert counts(nameless) == counts(json.loads(export(filled, inventory, "panel", tmp_path)))
    assert {row["login"] for row in MEMBERS} <= {row["login"] for row in known["members"]}

    looked = originals(known) - {row["name"] for row in known["domain_types"]}
    assert len(looked) > 100
    assert "203.0.113.77" in looked
    assert any(one.startswith("$2y$") for one in looked), "hashes are searched, too"
    for row in nameless["domain_types"]:
        text = text.replace(json.dumps(row["description"], ensure_ascii=False), "")  # AlternC's own words
    assert [one for one in sorted(looked) if one in text.lower()] == []
    assert "203.0.113.99" not in text, "nor what a type says"
    assert "goelette" not in text, "nor what a variable says"

    taken = {"alternc_import": nameless}
    refused = play(playbook_path("panel_import"), str(inventory.path), taken)
    assert "has members that the export does not have" in refused.sentence()
    assert json.loads(export(filled, inventory, "panel", tmp_path, secrets=True)) == known
    done = play(playbook_path("panel_import"), str(twin.path), taken, arguments=["--limit", SECOND])
    assert done.ok, done.sentence()
    came = json.loads(export(there, twin, SECOND, tmp_path))
    assert counts(came) == counts(nameless)
    assert came == nameless
    assert there.problems() == ""
    again = play(playbook_path("panel_import"), str(twin.path), taken, arguments=["--limit", SECOND])
    assert (again.ok, again.changed) == (True, 0), again.sentence()
