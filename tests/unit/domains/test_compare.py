# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from infini.domains.compare import changes
from infini.domains.zone import Rrset, Zone

WWW = Rrset("www", "A", 300, ("192.0.2.1",))
OLD = Zone.of("asso.example", [WWW, Rrset("old", "A", 300, ("192.0.2.2",))])
NEW = Zone.of("asso.example", [Rrset("www", "A", 600, ("192.0.2.1",)), Rrset("new", "A", 300, ("192.0.2.3",))])


def test_each_difference_is_named_once():
    found = changes(OLD, NEW)
    assert [rrset.name for rrset in found.added] == ["new"]
    assert [rrset.name for rrset in found.removed] == ["old"]
    assert [(old.ttl, new.ttl) for old, new in found.changed] == [(300, 600)]
    assert found.lines() == [
        "+ new 300 A 192.0.2.3",
        "- old 300 A 192.0.2.2",
        "- www 300 A 192.0.2.1",
        "+ www 600 A 192.0.2.1",
    ]


def test_the_same_zone_differs_in_nothing():
    assert not changes(OLD, OLD)
    assert changes(OLD, NEW)
    assert changes(OLD, OLD).lines() == []
