# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts that the tests look at: those of the bench that INFINI_BENCH names."""

import shlex

import pytest
import testinfra
from members import visitor

from infini import staging
from infini.apply import playbook_path
from infini.hosts import Inventory
from infini.runner import play


@pytest.fixture(scope="session")
def inventory():
    """Give the bench's inventory, with the roots of its authority at hand."""
    inventory = Inventory(staging.INVENTORY)
    staging.keep_authority(inventory)
    return inventory


@pytest.fixture(scope="session")
def host(inventory):
    """Give a function that opens a testinfra host over SSH, as an operator reaches it."""

    def open_host(name):
        to = inventory.connection(name)
        return testinfra.get_host(f"ssh://{to.user}@{to.address}:{to.port}", ssh_extra_args=shlex.join(to.options))

    return open_host


@pytest.fixture(scope="session")
def web(inventory, host):
    """Give the web host."""
    return host(inventory.hosts("webs")[0])


@pytest.fixture(scope="session")
def web_address(inventory):
    """Give the address at which visitors reach the sites."""
    return inventory.get(inventory.hosts("webs")[0], "hosting_ipv4")


@pytest.fixture(scope="session")
def ca_file(inventory):
    """Give the file of the bench's certificate authorities."""
    return inventory.get(inventory.hosts()[0], "hosting_authorities")[0]


@pytest.fixture(scope="session")
def visit(web_address, ca_file):
    """Ask a site for a page of our directory, as a visitor."""
    return visitor(web_address, ca_file)


@pytest.fixture(scope="session")
def two_accounts(inventory):
    """Give two accounts whose sites run PHP."""
    sites = inventory.get(inventory.hosts("webs")[0], "hosting_sites")
    return list(dict.fromkeys(site["account"] for site in sites if site.get("php")))[:2]


@pytest.fixture
def sites(inventory):
    """Give the declared sites."""
    return inventory.get(inventory.hosts("webs")[0], "hosting_sites")


@pytest.fixture
def apply_web(inventory):
    """Give a function that applies the web playbook as `infini apply web` does, with other sites than declared."""

    # All visitors come from this machine: to the front they would be one, and far too fast.
    exempt = inventory.get(inventory.hosts("webs")[0], "base_ssh_trusted")

    def apply(sites):
        before = [playbook_path("preflight")]
        variables = {"hosting_sites": sites, "front_exempt": exempt}
        # Other hosts have sites of their own, or none: these variables would be theirs, too.
        limit = ["--limit", "webs"]
        return play(playbook_path("web"), str(inventory.path), variables, before=before, arguments=limit)

    yield apply
    play(playbook_path("web"), str(inventory.path))
