# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import pytest

from infini.domains.registries import _rules, rule_for
from infini.errors import RefusedError


@pytest.mark.parametrize(
    ("domain", "reserve", "lock"),
    [
        ("asso.fr", 8, False),
        ("ASSO.RE.", 8, False),
        ("asso.bzh", 5, True),
        ("asso.org", 5, True),
        ("asso.coop", 5, True),  # a generic one without a row of its own
        ("asso.eu", 0, False),
    ],
)
def test_each_registry_has_its_rules(domain, reserve, lock):
    rule = rule_for(domain)
    assert (rule.reserve_days, rule.lock60) == (reserve, lock)


def test_common_rules_name_the_domain_they_are_asked_for():
    assert rule_for("asso.coop").tld == "coop"


def test_a_refusal_is_slow_at_afnic_only():
    assert rule_for("asso.fr").refusal_days == 22
    assert rule_for("asso.org").refusal_days is None


def test_bzh_is_generic_although_afnic_runs_it():
    assert rule_for("asso.bzh").gtld
    assert not rule_for("asso.fr").gtld


@pytest.mark.parametrize("domain", ["asso.zz", "asso.рф", "asso.xn--p1ai"])
def test_an_unknown_country_is_refused(domain):
    with pytest.raises(RefusedError, match=r"add a row to registries\.yml"):
        rule_for(domain)


def test_every_row_says_where_and_when_it_was_read():
    for rule in _rules().values():
        assert rule.source.startswith("http")
        assert rule.checked.year >= 2026
        assert rule.minimum_expiry_days == 30
