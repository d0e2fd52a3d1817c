# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from pathlib import Path

import pytest
from jinja2 import StrictUndefined
from jinja2.nativetypes import NativeEnvironment

from infini import ROOT, cards

CARDS = sorted(ROOT.glob("roles/*/meta/service.yml"))


def render_with(variables):
    """Stand in for Ansible's templar: native types, undefined is an error."""
    environment = NativeEnvironment(undefined=StrictUndefined)

    def render(value, extra):
        if isinstance(value, str):
            return environment.from_string(value).render(**variables, **extra)
        if isinstance(value, list):
            return [render(one, extra) for one in value]
        if isinstance(value, dict):
            return {key: render(one, extra) for key, one in value.items()}
        return value

    return render


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parts[-3])
def test_every_card_follows_the_schema(path):
    card = cards.load(path)
    assert cards.check(card, str(path.relative_to(ROOT))) == []
    assert card["service"] == path.parts[-3]


@pytest.mark.parametrize("role", sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir()))
def test_every_role_has_a_card(role):
    assert (ROOT / "roles" / role / "meta/service.yml").is_file(), f"write roles/{role}/meta/service.yml"


@pytest.mark.parametrize(
    ("card", "place", "problem"),
    [
        ({}, "the card", "'service' is a required property"),
        ({"service": "Web"}, "service", "does not match"),
        ({"service": "web", "prots": []}, "the card", "Unknown properties are not allowed ('prots' was unexpected)"),
        ({"service": "web", "ports": [{"port": 70000, "from": "any"}]}, "ports[0].port", "70000 is greater than"),
        ({"service": "web", "ports": [{"port": 80}]}, "ports[0]", "'from' is a required property"),
        (
            {"service": "web", "ports": [{"port": 80, "from": "all"}]},
            "ports[0].from",
            "'all' does not fit: any =",
        ),
        ({"service": "web", "checks": [{"kind": "pages"}]}, "checks[0].kind", "'pages' is not one of page, redirect"),
        ({"service": "web", "checks": [{"kind": "page"}]}, "checks[0]", "'url' is a required property"),
        ({"service": "web", "checks": [{"kind": "page", "url": "velo.test"}]}, "checks[0].url", "does not match"),
        ({"service": "web", "checks": [{"kind": "ssh", "prot": 22}]}, "checks[0]", "'prot' was unexpected"),
        ({"service": "web", "figures": [{"name": "sites"}]}, "figures[0]", "'label' is a required property"),
    ],
)
def test_a_wrong_card_is_refused_in_a_sentence(card, place, problem):
    found = [error for error in cards.check(card, "roles/web/meta/service.yml") if error.place == place]
    assert any(problem in str(error) for error in found), cards.check(card, "x")
    assert str(found[0]).startswith(f"roles/web/meta/service.yml: {place}: ")


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("all", True),
        ("web", True),
        ("webs", True),
        ("web*", True),
        ("lists", False),
        ("lists,webs", True),
        ("lists:webs", True),
        ("all,!webs", False),
        ("webs:&databases", True),
        ("webs:&lists", False),
    ],
)
def test_host_patterns(pattern, taken):
    assert cards.matches(pattern, "web", ["webs", "databases"]) is taken


def test_uses_are_read_from_plays(tmp_path: Path):
    (tmp_path / "site.yml").write_text("- import_playbook: web.yml\n")
    (tmp_path / "base.yml").write_text("- {name: Base, hosts: all, roles: [base]}\n")
    (tmp_path / "web.yml").write_text(
        "- hosts: [webs, panels]\n  vars: {secret: !vault x}\n"
        "  roles:\n    - {role: web}\n    - {role: cms, when: staging}\n"
    )
    uses = cards.uses(tmp_path)
    assert [(use.role, use.hosts, use.playbook, use.when) for use in uses] == [
        ("base", "all", "base", None),
        ("web", "webs,panels", "web", None),
        ("cms", "webs,panels", "web", "staging"),
    ]
    assert [use.role for use in cards.uses_on("anatole", ["watchers"], uses)] == ["base"]
    assert [use.role for use in cards.uses_on("web", ["webs"], [*uses, *uses])] == ["base", "web", "cms"]


CARD = {
    "service": "sites",
    "ports": [{"port": "{{ port }}", "from": "any"}, {"port": 53, "protocol": "udp", "from": ["webs"]}],
    "checks": [
        {
            "kind": "page",
            "each": "{{ sites }}",
            "when": "{{ item.title is defined }}",
            "url": "https://{{ item.name }}/",
            "title": "{{ item.title }}",
        },
        {"kind": "unit", "name": "sites.timer", "when": False},
        {"kind": "ssh", "when": "{{ port == 443 }}"},
    ],
    "figures": [{"name": "sites", "label": "Sites", "value": "{{ sites | length }}"}],
}
SITES = [{"name": "velo.test", "title": "Vélo"}, {"name": "bare.test"}]


def test_checks_are_unrolled_and_rendered():
    checks = cards.render_checks(CARD, render_with({"port": 443, "sites": SITES}))
    assert checks == [{"kind": "page", "url": "https://velo.test/", "title": "Vélo"}, {"kind": "ssh"}]


def test_ports_need_only_the_variables_they_use():
    assert cards.render_ports(CARD, render_with({"port": 443})) == [
        {"service": "sites", "port": 443, "protocol": "tcp", "from": "any"},
        {"service": "sites", "port": 53, "protocol": "udp", "from": ["webs"]},
    ]


def test_a_whole_card_is_rendered():
    card = cards.render_card(CARD, render_with({"port": 443, "sites": SITES}))
    assert card["figures"][0]["value"] == 2
    assert len(card["checks"]) == 2
    assert len(card["ports"]) == 2


def test_what_makes_a_service_whole_has_every_key_and_nothing_to_keep_is_nothing():
    card = {"service": "lists", "whole": {"paths": "{{ folders }}", "databases": ["*"]}}
    whole = cards.render_whole(card, render_with({"folders": ["/var/lib/lists"]}))
    assert whole == {
        "service": "lists",
        "label": "lists",
        "paths": ["/var/lib/lists"],
        "databases": ["*"],
        **{key: [] for key in ("reference", "before", "after", "restored", "counts")},
    }
    for nothing in ({}, {"whole": {}}, {"whole": {"paths": [], "before": [["true"]]}}):
        assert cards.render_whole({"service": "front", **nothing}, render_with({})) == {}
