# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cards of every role can be filled in for every staging host, as the firewall, verify and the watch will ask."""

import json

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, lookup_loader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from hosting.probes import KINDS
from infini import ROOT, cards
from infini.hosts import load_plugins

FACTS = {
    "web": {"distribution_release": "bookworm", "distribution_major_version": "12", "distribution_version": "12"},
    "anatole": {"distribution_release": "trixie", "distribution_major_version": "13", "distribution_version": "13"},
    "lists": {"distribution_release": "bookworm", "distribution_major_version": "12", "distribution_version": "12"},
    "store": {"distribution_release": "bookworm", "distribution_major_version": "12", "distribution_version": "12"},
}


@pytest.fixture(scope="module")
def ask():
    """Ask one of our lookup plugins, as a host of the staging inventory."""
    load_plugins()
    lookup_loader.add_directory(str(ROOT / "lookup_plugins"))
    filter_loader.add_directory(str(ROOT / "filter_plugins"))
    loader = DataLoader()
    inventory = InventoryManager(loader, sources=[str(ROOT / "inventory/staging")])
    manager = VariableManager(loader, inventory)
    hostvars = HostVars(inventory, manager, loader)

    def asked(plugin, host, *terms, **options):
        variables = manager.get_vars(host=inventory.get_host(host))
        variables |= {"hostvars": hostvars, "ansible_facts": FACTS[host]}
        templar = Templar(loader, variables)
        return lookup_loader.get(plugin, loader=loader, templar=templar).run(list(terms), variables, **options)[0]

    return asked


@pytest.mark.parametrize("host", FACTS)
@pytest.mark.parametrize("what", ["cards", "checks", "ports"])
def test_cards_render(ask, host, what):
    answer = ask("service_cards", host, what)
    assert "{{" not in json.dumps(answer)
    if what == "ports":
        assert {"service": "base", "port": 22, "protocol": "tcp", "from": "any"} in answer
    else:
        expected = {
            use.role
            for use in cards.uses(ROOT / "playbooks")
            if (ROOT / "roles" / use.role / "meta/service.yml").exists()
        }
        assert {card["service"] for card in answer} <= expected
        assert all(check["kind"] in {*KINDS, "unit", "command"} for card in answer for check in card["checks"])


def test_a_host_has_the_cards_of_its_own_plays(ask):
    web, anatole, store = (
        {card["service"]: card["playbook"] for card in ask("service_cards", host, "checks")}
        for host in ("web", "anatole", "store")
    )
    assert web["front"] == "web"
    assert anatole["watch"] == "watch"
    assert store["backup_store"] == anatole["backup_keeper"] == "backups"
    assert not {"front", "sites"} & set(anatole)
    assert {"base"} <= set(web) & set(anatole)


def test_a_playbook_installs_what_its_own_roles_need(ask):
    everything, web = ask("service_cards", "web", "packages"), ask("service_cards", "web", "packages", playbook="web")
    assert {"apache2", "haproxy"} <= set(web) <= set(everything)
    assert "mariadb-server" in set(everything) - set(web)


def test_every_site_is_looked_at_by_the_watch(ask):
    answer = ask("watch_expectations", "anatole")
    assert {probe["host"] for probe in answer["probes"]} == {"lists", "panel", "store", "web"}
    sites = {probe["options"]["url"].split("/")[2] for probe in answer["probes"] if probe["kind"] == "page"}
    assert {"velo.test", "chorale.test", "jardin.test", "bourg.test"} <= sites
    assert answer["here"]["host"] == "anatole"
    assert json.loads(json.dumps(answer)) == answer
    assert answer == ask("watch_expectations", "anatole")


def test_a_host_knows_what_makes_its_services_whole(ask):
    web = {one["service"]: one for one in ask("service_cards", "web", "whole")}
    assert web["mariadb"]["databases"] == ["*"]
    assert web["accounts"]["paths"] == ["/srv/members"]
    assert (web["base"]["paths"], "/etc" in web["base"]["reference"]) == ([], True)
    assert "front" not in web, "all of it comes from the repository"


def test_what_stands_still_while_services_are_brought_back_is_known(ask):
    assert ask("service_cards", "lists", "held") == ["postfix@-.service"]
    assert ask("service_cards", "anatole", "held") == ["infini-canary.timer", "infini-canary.service"]
    assert ask("service_cards", "web", "held") == []


def test_an_unknown_word_is_refused(ask):
    with pytest.raises(Exception, match="knows cards, checks, held, packages, ports and whole"):
        ask("service_cards", "web", "prots")
