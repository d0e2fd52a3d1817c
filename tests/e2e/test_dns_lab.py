# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed domains moved between real servers under a continuous probe: the right order, and three wrong ones forced.

All four domains move at the same time in one lab, since what takes time is waiting for caches.
"""

from dataclasses import replace

import pytest

from infini.domains.lab import COLD, NEW_SERVERS, OLD_SERVERS, WARM, Lab
from infini.domains.ports import WorldError
from infini.domains.probe import DnsCheck, Probe
from infini.domains.reading import from_axfr
from infini.domains.targets import Rfc2136
from infini.domains.zone import Rrset, Zone

RIGHT, DS_LEFT, CUT, EARLY = "right.test", "ds-left.test", "cut.test", "early.test"
ADDRESS = "192.0.2.10"


def zone_of(name):
    return Zone.of(
        name,
        [
            Rrset("@", "A", 2, (ADDRESS,)),
            Rrset("@", "MX", 2, (f"10 mx.{name}.",)),
            Rrset("*.wild", "A", 2, (ADDRESS,)),
            Rrset("child", "NS", 2, ("ns1.child.example.",)),
            Rrset("dname", "DNAME", 2, ("elsewhere.example.",)),
            Rrset("in.between", "A", 2, (ADDRESS,)),
            Rrset("mx", "A", 2, ("192.0.2.20",)),
            Rrset("text", "TXT", 2, (f'"{"a" * 255}" "{"b" * 60}"',)),
            Rrset("www", "CNAME", 2, (f"{name}.",)),
        ],
    )


@pytest.fixture(scope="module")
def lab():
    with Lab(ttl=4) as lab:
        yield lab


@pytest.fixture(scope="module")
def probes(lab, tmp_path_factory):
    """Serve four domains at the old host, signed, with a chain of trust, and return a probe of each."""
    folder = tmp_path_factory.mktemp("probes")
    made = {}
    for name in (RIGHT, DS_LEFT, CUT, EARLY):
        lab.publish_old(zone_of(name), signed=True)
        lab.delegate(name, OLD_SERVERS)
        lab.set_ds(name, True)
        checks = [
            DnsCheck("warm", WARM, f"www.{name}", accepted=frozenset({ADDRESS}), timeout=2),
            DnsCheck("warm", WARM, name, "MX", accepted=frozenset({f"10 mx.{name}."}), timeout=2),
            DnsCheck("cold", COLD, name, accepted=frozenset({ADDRESS}), flush=lab.flush_command(), timeout=2),
        ]
        made[name] = Probe(name, checks, folder / f"{name}.jsonl", interval=0.1 if name == RIGHT else 0.2)
    return made


@pytest.fixture(scope="module")
def moved(lab, probes):
    """Move the four, each in its order, under their probes; return what each probe tallied."""
    for name in probes:
        assert lab.resolve(f"www.{name}").secure
        lab.publish_new(zone_of(name))
    parity = lab.dns().parity(zone_of(RIGHT), zone_of(RIGHT), OLD_SERVERS, NEW_SERVERS, "")
    assert parity.ok, parity.unexpected

    with probes[RIGHT], probes[DS_LEFT], probes[CUT], probes[EARLY]:
        lab.wait(0.5)
        for name in (RIGHT, CUT, EARLY):
            lab.set_ds(name, False)
        lab.erase_old(EARLY)  # the transfer went through before the name servers were switched
        lab.wait(1.3)
        lab.delegate(RIGHT, NEW_SERVERS)
        lab.delegate(DS_LEFT, NEW_SERVERS)
        lab.wait(1.6)
        lab.flush(CUT)
        assert lab.resolve(CUT).values  # the resolver has just learnt the old delegation
        lab.delegate(CUT, NEW_SERVERS)
        lab.stop_old()  # what RIGHT is ready for, and CUT is not
        lab.wait(1.3)
    lab.start_old()
    return {name: made.tally() for name, made in probes.items()}


def test_the_right_order_loses_no_answer(moved, lab):
    tally = moved[RIGHT]
    assert tally.total >= 200
    assert tally.failed == 0, tally.failures
    assert tally.longest_silence < 3
    delegation = lab.dns().delegation(RIGHT)
    assert delegation.agreed
    assert delegation.nameservers == set(NEW_SERVERS)
    assert not delegation.ds


def test_a_ds_left_behind_is_seen(moved, lab):
    tally = moved[DS_LEFT]
    assert tally.failed
    assert any("SERVFAIL" in failure for failure in tally.failures)
    assert lab.dns().delegation(DS_LEFT).ds


def test_an_old_host_cut_at_the_switch_is_seen(moved):
    assert moved[CUT].failed, moved[CUT]


def test_a_transfer_before_the_switch_is_seen(moved):
    assert moved[EARLY].failed
    assert moved[EARLY].longest_gap > 3


def test_parity_sees_a_record_that_is_really_wrong(lab):
    zone = zone_of("parity.test")
    lab.publish_old(zone, signed=True)
    wrong = replace(zone.rrsets["mx", "A"], values=("192.0.2.21",))
    lab.publish_new(Zone.of(zone.name, [*(rrset for rrset in zone.rrsets.values() if rrset.key != wrong.key), wrong]))

    parity = lab.dns().parity(zone, zone, OLD_SERVERS, NEW_SERVERS, "")

    assert parity.canary_caught
    assert not parity.ok
    assert {(difference.name, difference.type) for difference in parity.unexpected} == {("mx", "A")}
    assert {difference.server for difference in parity.unexpected} >= {
        f"ns2.infini.test 127.0.4.2 {transport}" for transport in ("UDP", "TCP")
    }


def test_two_hosts_answer_as_the_model_foretells(lab):
    """NSD and Knot agree with the model that tells expected differences from others."""
    zone = zone_of("model.test")
    empty = Zone(zone.name)
    for old, new in ((zone, empty), (empty, zone)):
        lab.publish_old(old)
        lab.publish_new(new)
        parity = lab.dns().parity(old, new, OLD_SERVERS, NEW_SERVERS, "")
        assert parity.ok, parity.unexpected
        assert {("dname", "DNAME"), ("child", "A"), ("in.between", "A"), ("@", "MX")} <= {
            (difference.name, difference.type) for difference in parity.expected
        }


def test_updates_make_a_zone_equal(lab):
    name = "updates.test"
    lab.publish_new(Zone(name))
    target = Rfc2136("127.0.4.1", lab.tsig, NEW_SERVERS, minimum_ttl=1)
    first = zone_of(name)
    second = Zone.of(
        name, [*(one for one in first.rrsets.values() if one.name != "www"), Rrset("www", "A", 2, (ADDRESS,))]
    )
    for zone in (first, second, second, Zone(name)):
        target.provision(zone)
        served = from_axfr(name, "127.0.4.1", tsig=lab.tsig)
        assert {key: one for key, one in served.rrsets.items() if key != ("@", "NS")} == zone.rrsets
    with pytest.raises(WorldError, match="key"):
        Rfc2136("127.0.4.1", replace(lab.tsig, secret="d3Jvbmc="), NEW_SERVERS).provision(Zone.of(name, []))


def test_the_lab_is_cut_off_and_leaves_nothing(lab):
    assert lab.resolve("example.com").rcode == "NXDOMAIN"  # the lab's own root says so, not the world's
