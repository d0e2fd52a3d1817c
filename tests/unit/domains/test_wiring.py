# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doors of real moves as an inventory says them; the shared host is a folder of this machine."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import pytest

from infini.domains.by_hand import ANSWERS, HandLosing
from infini.domains.events import Event, LocalStore, SshStore
from infini.domains.observed import Export
from infini.domains.wiring import RealStage
from infini.errors import RefusedError

NAME = "asso.test"
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
HOSTS = """
all:
  hosts: {anatole: {ansible_host: 192.0.2.20}}
  children: {control: {hosts: {anatole: }}}
  vars:
    domains_nameservers: [ns1.infini.test, ns2.infini.test]
    domains_web_addresses: [192.0.2.10, "2001:db8::10"]
    domains_resolvers: [127.0.0.1]
    domains_levels: {asso.test: C}
"""


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory/hosts.yml").write_text(HOSTS)
    found = RealStage(str(tmp_path / "inventory"), "Camille")
    assert isinstance(found.store, SshStore)
    found.store = LocalStore(tmp_path / "shared")
    return found


def exported(store, *records):
    """Write down an export, as a move does."""
    rows = tuple(
        {"rrset_name": name, "rrset_type": kind, "rrset_ttl": 300, "rrset_values": [value]}
        for name, kind, value in records
    )
    export = Export(NAME, NOW, rows, "", "0" * 64)
    store.keep(NAME, "export.json", json.dumps({**asdict(export), "at": NOW.isoformat()}))
    seen = {"registrar": "Gandi", "nameservers": ["ns-1-a.gandi.net"], "locked": True}
    store.append(Event(NOW, NAME, "", "discovered", seen))
    data = {"content": "c", "document": "export.json", "problems": [], "signed": False, "ttls": {}}
    store.append(Event(NOW, NAME, "", "exported", data))


def test_what_a_member_pastes_is_shared_with_the_events(stage):
    losing = stage.losing(NAME)
    assert isinstance(losing, HandLosing)
    losing.keep(NAME, "@ 300 IN A 192.0.2.1\n", {"expires": "2030-01-01", "created": "2020-01-01"})
    assert stage.store.domains(ANSWERS) == [NAME]
    with stage.at(NAME) as move:
        assert move.losing.export(NAME).records
        assert move.store is stage.store


def test_the_probe_of_a_domain_that_is_not_exported_says_what_to_do(stage):
    with pytest.raises(RefusedError, match=f"infini domains advance {NAME} --apply"):
        stage.checks(NAME)


def test_the_probe_looks_at_what_the_zone_says_and_leaves_out_what_is_silent(stage):
    exported(stage.store, ("t", "TXT", '"x"'), ("@", "MX", "10 127.0.0.1.invalid."))
    checks, silent = stage.checks(NAME)
    assert [check.label for check in checks] == [f"par 127.0.0.1 {NAME} {kind}" for kind in ("SOA", "NS", "MX")]
    assert checks[1].accepted == {"ns-1-a.gandi.net.", "ns1.infini.test.", "ns2.infini.test."}
    assert silent == ["smtp 127.0.0.1.invalid"]


def test_redirections_go_to_the_front_that_the_inventory_names(stage):
    with stage.at(NAME) as move:
        assert move.web is not None
    assert stage.web().addresses == ("192.0.2.10", "2001:db8::10")
    assert stage.web().folder.name == "redirections"


def test_what_the_probe_wrote_is_read_where_events_are(stage):
    assert stage.dns().tally(NAME) is None
    seen = {"probe": "1", "line": 1, "at": NOW.isoformat(), "until": NOW.isoformat()}
    watched = {**seen, "pause": 0, "unproven": []}
    looked = {**seen, "line": 2, "check": "a", "looks": 7, "answer": ""}
    stage.store.add(NAME, "probe.jsonl", f"{json.dumps(watched)}\n{json.dumps(looked)}\n")
    assert stage.dns().tally(NAME).total == 7
