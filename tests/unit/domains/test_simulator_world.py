# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated world: things take their time, cannot be hurried, and what hurts people is noted."""

from datetime import timedelta

import pytest

from infini.domains.simulator.clock import START, VirtualClock
from infini.domains.simulator.faults import Faults
from infini.domains.simulator.world import (
    GANDI_NAMESERVERS,
    ConflictError,
    Delays,
    Quirks,
    UnknownDomainError,
    World,
)
from infini.domains.zone import Rrset, Zone

NAME = "amis.example"
OURS = ("ns1.infini.example", "ns2.infini.example")
RECORDS = [
    {"rrset_name": "@", "rrset_type": "A", "rrset_ttl": 10800, "rrset_values": ["192.0.2.1"]},
    {"rrset_name": "@", "rrset_type": "MX", "rrset_ttl": 10800, "rrset_values": ["10 spool.mail.gandi.net."]},
]
MOVED = Zone.of(NAME, [Rrset("@", "A", 10800, ("198.51.100.1",))])


def make(faults=None, quirks=None, **more):
    world = World(VirtualClock(), faults=faults, quirks=quirks)
    world.add(NAME, RECORDS, **more)
    return world


def wait(world, **time):
    world.clock.advance(timedelta(**time))


def said_by_parents(world):
    return [answer.nameservers for answer in world.delegation(NAME).answers]


def harms(world):
    return [harm.kind for harm in world.harms]


def switch(world):
    world.publish(MOVED, OURS)
    world.set_nameservers(NAME, OURS)
    wait(world, hours=2)


def leave(world, nameservers=OURS):
    world.set_lock(NAME, False)
    wait(world, hours=73)
    order = world.place_order("OVH sas", NAME, world.auth_code(NAME), nameservers)
    wait(world, hours=1)
    return order


def test_clock_moves_only_when_told():
    clock = VirtualClock()
    heard = []
    clock.on_advance(lambda: heard.append(clock.now()))
    clock.sleep(1.5)
    clock.sleep(-3)
    assert clock.now() == START + timedelta(seconds=1.5)
    assert len(heard) == 2
    with pytest.raises(ValueError, match="back"):
        clock.advance(timedelta(seconds=-1))


def test_delayed_changes_come_in_order_and_at_their_moment():
    world = World(VirtualClock())
    seen = []
    for seconds in (30, 10, 20):
        world.later(seconds, lambda: seen.append(world.now()))
    wait(world, minutes=1)
    assert [(at - START).seconds for at in seen] == [10, 20, 30]
    assert world.now() == START + timedelta(minutes=1)


def test_many_domains_are_loaded_once_each():
    world = World(VirtualClock())
    for number in range(300):
        world.add(f"d{number}.example", RECORDS, signed=number % 2 == 0)
    assert len(world.holdings) == 300
    assert not world.harms
    with pytest.raises(ValueError, match="already"):
        world.add("d0.example", RECORDS)


def test_a_delegation_is_seen_at_gandi_first_and_at_the_last_parent_last():
    world = make()
    changes = []
    world.on_change(lambda what, name: changes.append((what, name)))
    world.set_nameservers(NAME, ["NS1.infini.example.", "ns2.infini.example"])
    assert world.domain(NAME).nameservers == list(GANDI_NAMESERVERS)
    wait(world, seconds=20)
    assert world.domain(NAME).nameservers == list(OURS)
    assert said_by_parents(world) == [frozenset(GANDI_NAMESERVERS)] * 2
    wait(world, seconds=600)
    assert said_by_parents(world) == [frozenset(OURS), frozenset(GANDI_NAMESERVERS)]
    assert not world.delegation(NAME).agreed
    wait(world, seconds=120)
    assert said_by_parents(world) == [frozenset(OURS)] * 2
    assert changes == [("delegation", NAME)] * 2


def test_zone_is_seen_by_the_api_before_the_servers_serve_it():
    world = make()
    world.set_rrset(NAME, "@", "A", ttl=300)
    assert world.domain(NAME).records[0]["rrset_ttl"] == 300
    assert world.old_zone(NAME).rrsets["@", "A"].ttl == 10800
    wait(world, seconds=30)
    assert world.old_zone(NAME).rrsets["@", "A"].ttl == 300
    world.drop_rrset(NAME, "@", "MX")
    wait(world, seconds=30)
    assert list(world.old_zone(NAME).rrsets) == [("@", "A")]
    with pytest.raises(ConflictError):
        world.set_rrset(NAME, "absent", "A", ttl=300)


def test_alias_is_served_as_addresses():
    world = World(VirtualClock())
    world.addresses["host.example"] = ("192.0.2.7", "2001:db8::7")
    alias = {"rrset_name": "@", "rrset_type": "ALIAS", "rrset_ttl": 300, "rrset_values": ["host.example."]}
    world.add(NAME, [alias])
    zone = world.old_zone(NAME)
    assert {key[1]: rrset.values for key, rrset in zone.rrsets.items()} == {
        "A": ("192.0.2.7",),
        "AAAA": ("2001:db8::7",),
    }
    assert not zone.unreadable


def test_unlocking_takes_three_days_and_shows_the_code_only_then():
    world = make()
    world.set_lock(NAME, False)
    wait(world, hours=71)
    world.set_lock(NAME, False)  # asking again does not start again
    assert world.domain(NAME).locked
    assert world.auth_code(NAME) is None
    wait(world, hours=1)
    assert not world.domain(NAME).locked
    assert world.auth_code(NAME) in world.secrets()


def test_code_is_hidden_again_with_the_lock_where_gandi_hides_it():
    world = make(locked=False)
    world.set_lock(NAME, True)
    wait(world, minutes=1)
    assert world.auth_code(NAME) is None
    assert make(quirks=Quirks(code_hidden_while_locked=False)).auth_code(NAME)


def test_a_reset_ends_the_old_code_before_the_new_one_is_there():
    world = World(VirtualClock(), delays=Delays(auth_code=10_000))
    world.add(NAME, RECORDS, locked=False)
    code = world.auth_code(NAME)
    world.reset_auth_code(NAME)
    order = world.place_order("OVH sas", NAME, code, OURS)
    wait(world, hours=1)
    assert order.stage == "refused"


def test_unlocking_can_be_taken_back():
    world = make()
    world.set_lock(NAME, False)
    world.set_lock(NAME, True)
    wait(world, hours=80)
    assert world.domain(NAME).locked


def test_a_new_code_ends_the_old_one_and_codes_grow_old():
    world = make(locked=False)
    old = world.auth_code(NAME)
    world.reset_auth_code(NAME)
    assert world.auth_code(NAME) is None
    wait(world, seconds=300)
    new = world.auth_code(NAME)
    assert new
    assert new != old
    order = world.place_order("OVH sas", NAME, old, OURS)
    wait(world, hours=1)
    assert (order.stage, order.reason) == ("refused", "invalid authorization information")
    wait(world, days=30)
    assert world.auth_code(NAME) is None


def test_a_good_order_of_things_hurts_nobody():
    world = make(signed=True, mailboxes=[{"address": f"a@{NAME}"}])
    world.set_dnskeys(NAME, [])
    wait(world, hours=26)
    assert world.ds(NAME) == frozenset()
    assert world.old_signed(NAME)
    world.mail_copied.add(NAME)
    switch(world)
    expires = world.registration(NAME).expires
    order = leave(world)
    assert order.stage == "pending"
    assert order.until - world.now() == timedelta(days=5, minutes=-30)
    wait(world, days=5)
    assert order.stage == "done"
    entry = world.registration(NAME)
    assert (entry.registrar, entry.nameservers) == ("OVH sas", OURS)
    assert entry.expires == expires + timedelta(days=365)
    assert world.old_zone(NAME) is None
    with pytest.raises(UnknownDomainError):
        world.domain(NAME)
    wait(world, days=8)
    assert harms(world) == []


def test_transfer_before_the_switch_darkens_the_domain_and_loses_mail():
    world = make(mailboxes=[{"address": f"a@{NAME}"}])
    leave(world, GANDI_NAMESERVERS)
    assert harms(world) == []
    wait(world, days=6)
    assert harms(world) == ["mail-lost", "dark", "dark-cached"]


def test_ds_left_behind_is_bogus():
    world = make(signed=True)
    switch(world)
    assert "bogus" in harms(world)


@pytest.mark.parametrize(("ds_ttl", "key_ttl"), [(86400, 300), (300, 86400)])
def test_ds_removed_too_late_is_bogus_in_caches(ds_ttl, key_ttl):
    """Unbound keeps keys that it has validated for their own TTL, longer than their DS may be."""
    world = make(signed=True, ds_ttl=ds_ttl)
    world.quirks.key_ttl = key_ttl
    wait(world, days=10)
    world.set_dnskeys(NAME, [])
    wait(world, hours=3)
    switch(world)
    assert harms(world) == ["bogus-cached"]


def test_gandis_own_way_to_unsign_is_bogus():
    world = make(signed=True)
    world.unsign(NAME)
    wait(world, seconds=30)
    assert harms(world) == ["bogus"]


def test_switch_to_servers_that_do_not_answer_is_dark():
    world = make()
    world.set_nameservers(NAME, OURS)
    wait(world, hours=1)
    assert "dark" in harms(world)
    world = make()
    world.publish(MOVED, OURS[:1])
    world.set_nameservers(NAME, OURS)
    wait(world, hours=1)
    assert harms(world) == ["lame"]


def test_zone_dropped_with_the_delegation_is_dark_in_caches():
    world = make(quirks=Quirks(zone_dropped_when_leaving=True))
    wait(world, days=10)
    switch(world)
    assert "dark-cached" in harms(world)


def test_order_without_nameservers_gets_the_registrars_own():
    world = make()
    switch(world)
    leave(world, ())
    wait(world, days=6)
    assert "dark" in harms(world)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda world: world.set_lock(NAME, True), "clientTransferProhibited"),
        (lambda world: setattr(world.registration(NAME), "locked_until", START + timedelta(days=60)), "60-day"),
        (lambda world: world.place_order("NETIM", NAME, world.auth_code(NAME)), "pending"),
    ],
)
def test_registry_refuses(change, reason):
    world = make(locked=False)
    code = world.auth_code(NAME)
    change(world)
    wait(world, minutes=1)
    order = world.place_order("OVH sas", NAME, code, OURS)
    wait(world, hours=1)
    assert order.stage == "refused"
    assert reason in order.reason
    assert world.registration(NAME).registrar == "GANDI SAS"


def test_reserve_is_eight_days_at_afnic():
    world = World(VirtualClock())
    world.add("amis.fr", RECORDS, locked=False)
    order = world.place_order("OVH sas", "amis.fr", world.auth_code("amis.fr"), OURS)
    wait(world, hours=1)
    wait(world, days=7)
    assert order.stage == "pending"
    wait(world, days=1)
    assert order.stage == "done"


def test_the_losing_side_may_let_go_or_refuse():
    world = make(locked=False)
    code = world.auth_code(NAME)
    with pytest.raises(ConflictError):
        world.answer_transfer(NAME, accept=True, code=code)
    order = world.place_order("OVH sas", NAME, code, OURS)
    wait(world, hours=1)
    with pytest.raises(ConflictError):
        world.answer_transfer(NAME, accept=True, code="wrong")
    world.answer_transfer(NAME, accept=False, code=code)
    assert order.stage == "refused"
    world.correct_order(order, code)
    wait(world, hours=1)
    world.answer_transfer(NAME, accept=True, code=code)
    assert order.stage == "done"
    with pytest.raises(ConflictError):
        world.cancel_order(order)


def test_wrong_code_is_cured_by_a_new_one():
    faults = Faults()
    faults.add("auth-code-wrong")
    world = make(faults, locked=False)
    order = world.place_order("OVH sas", NAME, world.auth_code(NAME), OURS)
    wait(world, hours=1)
    assert order.stage == "refused"
    world.reset_auth_code(NAME)
    wait(world, hours=1)
    world.correct_order(order, world.auth_code(NAME))
    wait(world, days=6)
    assert order.stage == "done"


def test_ordering_twice_is_a_harm_but_not_after_a_refusal():
    world = make(locked=False)
    code = world.auth_code(NAME)
    world.place_order("OVH sas", NAME, "wrong", OURS)
    wait(world, hours=1)
    world.place_order("OVH sas", NAME, code, OURS)
    assert harms(world) == []
    world.place_order("OVH sas", NAME, code, OURS)
    assert harms(world) == ["ordered-twice"]


def test_a_transfer_can_be_refused_on_the_way():
    faults = Faults()
    faults.add("transfer-refused", domain=NAME)
    world = make(faults, locked=False)
    order = world.place_order("OVH sas", NAME, world.auth_code(NAME), OURS)
    wait(world, days=6)
    assert (order.stage, order.reason) == ("refused", "refused by the losing registrar")
    assert world.registration(NAME).pending is None


def test_a_cancelled_order_never_ends():
    world = make(locked=False)
    order = world.place_order("OVH sas", NAME, world.auth_code(NAME), OURS)
    wait(world, hours=1)
    world.cancel_order(order)
    wait(world, days=10)
    assert order.stage == "cancelled"
    assert world.registration(NAME).registrar == "GANDI SAS"


def test_dnskeys_come_back():
    world = make(signed=True)
    before, keys = world.ds(NAME), world.domain(NAME).dnskeys
    world.set_dnskeys(NAME, [])
    wait(world, hours=1)
    world.set_dnskeys(NAME, [{key: one[key] for key in ("algorithm", "type", "public_key")} for one in keys])
    wait(world, hours=1)
    assert world.ds(NAME) == before != frozenset()
    assert harms(world) == []


@pytest.mark.parametrize("delay", ["accepted", "registry", "parent_lag"])
def test_everything_waits_for_its_delay(delay):
    world = World(VirtualClock(), delays=Delays(**{delay: 10_000}))
    world.add(NAME, RECORDS)
    world.set_nameservers(NAME, OURS)
    wait(world, seconds=9_000)
    assert said_by_parents(world) != [frozenset(OURS)] * 2
    wait(world, seconds=2_000)
    assert said_by_parents(world) == [frozenset(OURS)] * 2


def test_orders_do_not_show_their_code():
    world = make(locked=False)
    order = world.place_order("OVH sas", NAME, world.auth_code(NAME), OURS)
    assert world.auth_code(NAME) not in repr(order)
