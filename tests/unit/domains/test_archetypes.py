# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archetypes: what the issue asks for is there, each file says one thing, copies keep the kind."""

import re

import pytest
import yaml

from infini.domains import archetypes
from infini.errors import RefusedError

WANTED = {"parking", "mail_only", "webredirs", "alias", "signed", "delegated_child", "glue_in_use", "wildcard", "idn"}
WANTED |= {"three_hundred_records", "external_mail", "empty", "broken_txt", "caa_forbids", "cname_at_apex", "level_c"}
WANTED |= {"expires_soon", "gandi_mail_stays", "zone_edited", "auth_code_wrong", "transfer_refused", "every_type"}
DOCUMENTATION = re.compile(r"192\.0\.2\.|198\.51\.100\.|203\.0\.113\.|2001:db8:|217\.70\.184\.38$")


def test_the_kinds_that_members_have_are_there():
    assert set(archetypes.names()) >= WANTED


@pytest.mark.parametrize("name", archetypes.names())
def test_an_archetype_is_whole(name):
    found = archetypes.load(name)
    assert found.says.endswith(".")
    assert found.domain.endswith(".test")
    assert (found.end == "DONE") is (found.ends == "DONE")
    keys = [(record["rrset_name"], record["rrset_type"]) for record in found.records]
    assert len(keys) == len(set(keys)), "LiveDNS has one rrset of a name and type"
    for record in found.records:
        assert set(record) == {"rrset_name", "rrset_type", "rrset_ttl", "rrset_values"}
        assert record["rrset_ttl"] >= 300
        for value in record["rrset_values"] if record["rrset_type"] in {"A", "AAAA"} else ():
            assert DOCUMENTATION.match(value), value
    assert all(host["host"].endswith(found.domain) for host in found.redirections)


def test_the_big_one_has_three_hundred_records():
    assert len(archetypes.load("three_hundred_records").records) == 300


@pytest.mark.parametrize("name", archetypes.names())
def test_a_copy_differs_by_its_name_alone(name):
    first, other = archetypes.load(name), archetypes.load(name, 12)
    assert other.domain != first.domain
    assert repr(first).replace(first.domain, other.domain) == repr(other)


def test_the_copy_of_an_accented_name_is_a_name():
    assert archetypes.renamed("xn--fte-des-lacs-oeb.test", 7).encode().decode("idna") == "fête-des-lacs-007.test"


def test_a_fleet_has_each_kind_and_no_name_twice():
    fleet = list(archetypes.fleet(120))
    assert len({one.domain for one in fleet}) == 120
    assert {one.name for one in fleet} == set(archetypes.names())


def test_an_end_that_contradicts_itself_is_refused(tmp_path, monkeypatch):
    text = yaml.safe_dump(
        {"says": "x.", "domain": "a.test", "registry": "fr", "level": "A", "ends": "DONE", "records": []}
    )
    (tmp_path / "odd.yml").write_text(text + "blocked: alias\n")
    monkeypatch.setattr(archetypes, "FOLDER", tmp_path)
    with pytest.raises(RefusedError, match="blocked"):
        archetypes.load("odd")
    with pytest.raises(RefusedError, match="name one of odd"):
        archetypes.load("even")
