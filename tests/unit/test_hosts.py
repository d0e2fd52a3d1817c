# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""How hosts are reached, and one run at a time on each; ssh is replaced by sh, the lock is a real one."""

import os
from ipaddress import ip_address, ip_network
from types import SimpleNamespace

import pytest

from infini import hosts, staging
from infini.errors import RefusedError, UnreachableError


@pytest.fixture
def inventory(tmp_path):
    (tmp_path / "hosts.yml").write_text(
        "all: {hosts: {web: {ansible_host: 192.0.2.1, ansible_port: 2222}, db: }, vars: {ansible_user: root, key: k,\n"
        " ansible_ssh_private_key_file: '{{ key }}'}}\n"
    )
    return hosts.Inventory(str(tmp_path))


@pytest.fixture
def local_hosts(monkeypatch, tmp_path):
    """Run what would run on a host on this machine, with one lock file per host."""

    def ssh(self, *_extra):
        return ["env", f"LOCK={tmp_path}/{self.host}.lock", "sh", "-c", 'eval "$0"']

    monkeypatch.setattr(hosts, "_HOLD", hosts._HOLD.replace(hosts.LOCK, "$LOCK"))
    monkeypatch.setattr(hosts.Connection, "ssh", ssh)


def test_connections_are_templated(inventory):
    assert inventory.connection("web").ssh() == [
        "ssh",
        "-i",
        "k",
        "-o",
        "ConnectTimeout=5",
        "-p",
        "2222",
        "root@192.0.2.1",
    ]
    assert inventory.connection("db").address == "db"


def test_an_unknown_inventory_is_refused_with_the_known_ones():
    with pytest.raises(RefusedError, match="production, staging"):
        hosts.inventory_path("nowhere")


@pytest.mark.parametrize("name", ["staging", "another"])
def test_a_bench_of_any_name_has_addresses(monkeypatch, name):
    monkeypatch.setenv("INFINI_BENCH", name)
    staging_inventory = hosts.Inventory("staging")
    for family in ("ipv4", "ipv6"):
        network = ip_network(staging_inventory.get("web", f"bench_{family}"))
        assert ip_address(staging_inventory.get("web", f"hosting_{family}")) in network


def test_no_host_matches(inventory):
    with pytest.raises(RefusedError, match="No host matches"), hosts.locked(inventory, "nobody"):
        pass


@pytest.mark.usefixtures("local_hosts")
def test_a_second_run_is_refused_and_told_who_is_at_work(inventory):
    told = pytest.raises(RefusedError, match=f"web by .*process {os.getpid()}")
    with hosts.locked(inventory), told, hosts.locked(inventory, "web"):
        pass
    with hosts.locked(inventory):
        pass  # the first run is over: nobody holds the lock any more


@pytest.mark.usefixtures("local_hosts")
def test_a_killed_run_leaves_no_lock(inventory):
    session = hosts._hold(inventory.connection("web"), "someone")
    assert hosts._answer(session) == ("", "")
    session.stdin.close()  # what the kernel does for a killed process
    session.wait(5)
    with hosts.locked(inventory, "web"):
        pass
    session.stdout.close()
    session.stderr.close()


def test_a_host_that_does_not_answer_is_named(inventory, monkeypatch):
    refuse = ["sh", "-c", "echo 'Connection refused' >&2; exit 255"]
    monkeypatch.setattr(hosts.Connection, "ssh", lambda *_a: refuse)
    with (
        pytest.raises(UnreachableError, match=r"web \(192.0.2.1\): Connection refused"),
        hosts.locked(inventory, "web"),
    ):
        pass


def test_a_variable_that_cannot_be_computed_is_a_sentence(tmp_path):
    (tmp_path / "hosts.yml").write_text("all: {hosts: {web: {ansible_host: '{{ nowhere }}'}}}\n")
    with pytest.raises(RefusedError, match="cannot be read: 'nowhere' is undefined"):
        hosts.Inventory(str(tmp_path)).connection("web")


def test_the_command_that_shows_a_site_is_one_line_that_can_be_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = {
        "hosting_sites": [{"name": "velo.test"}],
        "hosting_ipv4": "192.0.2.10",
        "hosting_authorities": [str(tmp_path / "ca.pem")],
    }
    inventory = SimpleNamespace(hosts=lambda _group: ["web"], get=lambda _host, name: variables[name])
    assert staging.how_to_look(inventory) == (
        "curl --cacert ca.pem --resolve velo.test:443:192.0.2.10 https://velo.test/"
    )
    variables["hosting_sites"] = []
    assert staging.how_to_look(inventory) == ""
