# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real servers answer, as a move reads it: parity, dynamic updates, and what a resolver keeps."""

import time
from dataclasses import replace

import pytest

from infini.domains.lab import NEW_SERVERS, OLD_SERVERS, Lab
from infini.domains.ports import WorldError
from infini.domains.reading import from_axfr
from infini.domains.targets import Rfc2136
from infini.domains.zone import Rrset, Zone

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
    with Lab(ttl=20) as lab:
        yield lab


def test_a_resolver_keeps_keys_longer_than_their_ds(lab):
    """Why a move waits for the TTL of the keys, too, before it goes to servers that do not sign."""
    zone = zone_of("keys.test")
    lab.publish_old(zone, signed=True)
    lab.publish_new(zone)
    lab.register(zone.name, OLD_SERVERS, ds=True, ns_ttl=1, ds_ttl=1)
    assert lab.resolve("www.keys.test").secure
    assert {(answer.ns_ttl, answer.key_ttl) for answer in lab.dns().servers(zone.name, OLD_SERVERS)} == {(86400, 86400)}

    lab.register(zone.name, OLD_SERVERS, ds=False, ns_ttl=1, ds_ttl=1)
    time.sleep(3)  # every cache has forgotten the DS
    lab.register(zone.name, NEW_SERVERS, ds=False, ns_ttl=1, ds_ttl=1)

    said = []
    end = time.monotonic() + 10
    while "SERVFAIL" not in said and time.monotonic() < end:
        said.append(lab.resolve(f"{len(said)}.wild.keys.test").rcode)
        time.sleep(0.2)
    assert "SERVFAIL" in said
    lab.flush(zone.name)
    assert lab.resolve("www.keys.test").values


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
