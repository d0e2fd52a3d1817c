# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import io
import json
import re
from dataclasses import dataclass, field
from datetime import datetime

import pytest
import yaml
from rich.console import Console

from hosting import findings
from hosting.findings import Check
from hosting.probes import Finding, Trust
from infini import ROOT
from infini.errors import RefusedError
from infini.verify import Report, expect, page, run, show, verify

WELL = {
    "failed_units": [],
    "units": {"haproxy.service": "active"},
    "commands": [{"status": 0, "output": "alive"}],
    "clock": {"synchronised": None, "offset": None, "drift": 0.4},
    "disks": [{"mount": "/", "percent": 40, "inodes": 3, "free_gb": 70}],
    "memory": {"percent": 30, "pressure": 0},
    "upgrades": {"security": [], "reason": "", "days": 0.2},
    "reboot": False,
    "accounts": [],
    "files": 2,
    "quarantined": [],
    "listening": [22, 8080],
}
FRONT = {
    "service": "front",
    "label": "Porte d'entrée",
    "playbook": "web",
    "ports": [
        {"service": "front", "port": 443, "protocol": "tcp", "from": "any"},
        {"service": "front", "port": 14000, "protocol": "tcp", "from": ["watchers"]},
        {"service": "front", "port": 8404, "protocol": "tcp", "from": ["192.0.2.0/24"]},
        {"service": "front", "port": 53, "protocol": "udp", "from": "any"},
        {"service": "front", "port": "60000-60002", "protocol": "tcp", "from": "any"},
    ],
    "checks": [
        {"kind": "unit", "name": "haproxy"},
        {"kind": "page", "url": "https://velo.test/", "title": "Vélo", "mend": "./infini apply front"},
        {"kind": "command", "command": ["mariadb-admin", "ping"]},
        {"kind": "ssh"},
    ],
}
WEB = expect.Host(
    "web", ["webs"], ["192.0.2.10", "2001:db8::10"], "12", [FRONT], expect.about_host("staging", "web", ["192.0.2.10"])
)


# --- what is expected -------------------------------------------------------------------------------------------


def test_cards_become_probes():
    probes = expect.probes(WEB)
    assert [(probe.kind, probe.address) for probe in probes] == [
        ("page", "192.0.2.10"),
        ("page", "2001:db8::10"),
        ("ssh", "192.0.2.10"),
        ("ports", "192.0.2.10"),
        ("ports", "2001:db8::10"),
    ]
    assert probes[0].options == {"url": "https://velo.test/", "title": "Vélo"}
    assert probes[0].about["mend"] == "./infini apply front"
    assert probes[2].options == {"release": "12"}
    assert probes[3].options == {
        "declared": {"443": {"service": "Porte d'entrée", "playbook": "web"}},
        "tolerated": [8404, 60000, 60001, 60002],
    }


def test_a_port_for_a_group_is_open_for_that_group_only():
    ports = expect.probes(WEB, viewpoint=["anatole", "watchers"])[-1]
    assert set(ports.options["declared"]) == {"443", "14000"}


@pytest.mark.parametrize(
    ("inventory", "user", "become", "ssh"),
    [
        ("staging", "root", False, "./infini staging ssh web --"),
        ("production", "root", False, "ssh root@a"),
        ("production", "tech1", True, "ssh tech1@a sudo"),
        ("production", "", True, "ssh a sudo"),
    ],
)
def test_mends_reach_the_host_as_ansible_does(inventory, user, become, ssh):
    assert expect.about_host(inventory, "web", ["a"], user, become)["ssh"] == ssh


def test_mends_use_the_user_that_the_playbook_hands_over():
    told = seen()
    told["result"]["ansible_facts"]["verify_seen"] |= {"user": "tech1", "become": True}
    view = run.collect(Played([told, answered()]), "production").views[0]
    assert view.host.about["ssh"] == "ssh tech1@192.0.2.10 sudo"


# --- collecting -------------------------------------------------------------------------------------------------


@dataclass
class Played:
    """Stands in for the runner's result."""

    results: list = field(default_factory=list)
    unreachable: list = field(default_factory=list)

    def sentence(self):
        return "web: “Read the service cards” failed: no such variable\nThe whole log: x"


def seen(host="web", release="12"):
    facts = {
        "groups": ["webs"],
        "user": "root",
        "become": False,
        "addresses": ["192.0.2.10", "2001:db8::10"],
        "release": release,
        "cards": [FRONT],
        "authorities": ["/nowhere/ca.pem"],
    }
    return {"host": host, "task": run.SEEN, "result": {"ansible_facts": {"verify_seen": facts}}}


def answered(host="web", **changes):
    return {"host": host, "task": run.HEALTH, "result": {"health": {**WELL, **changes}}}


def verified(tmp_path, played, found=lambda probe: Finding("x", f"{probe.kind}.ok")):
    inventory = tmp_path / "staging"
    inventory.mkdir()
    asked = []

    def look(probes, trust):
        asked.append((probes, trust))
        return [(probe, [found(probe)] if probe.kind == "tcp" else []) for probe in probes]

    report = verify(str(inventory), played, look)
    return report, asked[0]


def test_the_playbook_and_its_reader_name_the_same_tasks():
    play = yaml.safe_load((ROOT / "playbooks/verify.yml").read_text())[0]
    assert {run.SEEN, run.HEALTH} < {task["name"] for task in play["tasks"]}


def test_a_host_that_is_well(tmp_path):
    report, (probes, trust) = verified(tmp_path, Played([seen(), answered()]))
    assert report.ok, report.as_json()["failed"]
    assert trust == Trust(())
    assert [probe.options["listening"] for probe in probes if probe.kind == "ports"] == [[22, 8080]] * 2
    assert {"host.ok", "unit.ok", "command.ok", "failed.ok", "disk.ok"} < {check.code for check in report.listed}


def test_the_inventorys_authorities_are_trusted(tmp_path):
    (tmp_path / "ca.pem").write_text("PEM")
    facts = seen()
    facts["result"]["ansible_facts"]["verify_seen"]["authorities"] = [str(tmp_path / "ca.pem"), "/nowhere/ca.pem"]
    assert verified(tmp_path, Played([facts, answered()]))[1][1] == Trust(("PEM",))


def test_an_unreachable_host_is_a_sentence_and_is_still_looked_at_from_outside(tmp_path):
    report, (probes, _) = verified(tmp_path, Played([seen(release="")], ["web"]))
    assert [check.code for check in report.listed] == ["host.unreached"]
    assert [probe.kind for probe in probes][:2] == ["page", "page"]
    failed = report.as_json()["failed"][0]
    assert failed["says"] == "web ne répond pas en SSH : rien n'a pu être regardé de l'intérieur."
    assert failed["mend"] == "ping -c 3 192.0.2.10"


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([{"host": "web", "task": run.SEEN, "result": {"msg": "the card of role x\nis bad"}}], "the card of role x"),
        ([{"host": "web", "task": "Read the release", "result": {}}], "web: “Read the service cards” failed"),
        ([seen(), {"host": "web", "task": run.HEALTH, "result": {"msg": "no python"}}], "no python"),
        ([seen()], "no answer"),
    ],
)
def test_a_host_that_cannot_be_read_is_a_sentence(tmp_path, results, reason):
    report, _ = verified(tmp_path, Played(results))
    assert [check.code for check in report.failed] == ["host.unread"]
    assert reason in report.as_json()["failed"][0]["says"]


def test_an_empty_inventory_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="names no host"):
        verified(tmp_path, Played())


def test_what_a_host_says_of_itself_is_judged(tmp_path):
    units = {"haproxy.service": "failed"}
    report, _ = verified(tmp_path, Played([seen(), answered(units=units, failed_units=["haproxy.service"])]))
    assert [check.code for check in report.failed] == ["failed.units", "unit.down"]
    assert "./infini staging ssh web -- systemctl restart haproxy.service" in report.as_json()["failed"][1]["mend"]


SAMPLE = {
    "host": "web",
    "url": "https://velo.test/",
    "name": "velo.test",
    "reason": "timeout",
    "playbook": "web",
    "inventory": "staging",
    "address": "192.0.2.10",
    "ssh": "ssh root@192.0.2.10",
    "days": 3,
    "count": 2,
    "packages": ["openssl", "libssl3"],
}


# --- the report -------------------------------------------------------------------------------------------------

CHECKS = [
    Check("failed:web", "web", "failed.ok", SAMPLE),
    Check("upgrades:web", "web", "upgrades.pending", SAMPLE),
    Check("page:a", "web", "page.ok", {**SAMPLE, "family": "IPv4", "milliseconds": 31}),
    Check("page:b", "web", "page.text", {**SAMPLE, "family": "IPv6", "text": "<b>Vélo</b>"}),
]


def test_groups_come_in_order_and_what_failed_first():
    grouped = findings.group(CHECKS)
    assert list(grouped) == ["Sites", "Services", "Updates"]
    assert [check.id for check in grouped["Sites"]] == ["page:b", "page:a"]


def test_json():
    answer = Report(CHECKS, "staging", 4.26).as_json()
    assert (answer["ok"], answer["checks"], answer["seconds"]) == (False, 4, 4.3)
    assert [set(one) for one in answer["failed"]] == [{"host", "check", "says", "mend"}] * 2
    assert answer["groups"]["Mises à jour"] == {"checks": 1, "failed": 1}
    assert json.loads(json.dumps(answer)) == answer
    assert Report(CHECKS[:1], "staging").as_json()["ok"] is True


def test_terminal():
    out = io.StringIO()
    show(Report(CHECKS, "staging", 4.2), Console(file=out, width=200))
    text = out.getvalue()
    assert text.index("✗ https://velo.test/ affiche une autre page") < text.index(
        "✓ https://velo.test/ affiche la page"
    )
    assert "→ ./infini apply web -i staging" in text
    assert text.rstrip().endswith("2 choses à réparer, sur 4 vérifications en 4 s.")
    out = io.StringIO()
    show(Report(CHECKS[:1], "staging", 4.2), Console(file=out, width=200))
    assert out.getvalue().rstrip().endswith("Tout va bien : 1 vérifications en 4 s.")


def test_page_needs_nothing_from_elsewhere_and_escapes():
    text = Report(CHECKS, "staging").as_html(datetime(2026, 11, 22, 8, 30))
    assert "&lt;b&gt;Vélo&lt;/b&gt;" in text
    assert "<b>Vélo" not in text
    assert not re.search(r"<(script|link|img|iframe)\b|url\(|@import", text)
    assert 'lang="fr"' in text
    assert "22/11/2026 08:30" in text
    assert "2 à réparer" in text


def test_page_when_all_is_well():
    text = page(Report(CHECKS[:1], "staging"))
    assert "Tout va bien." in text
    assert "<details open>" in text
