# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from datetime import UTC, datetime, timedelta, timezone

import dns.zone
import pytest

from infini.domains.reading import from_text
from infini.domains.writing import Soa, next_serial, to_text
from infini.domains.zone import Rrset, Unreadable, Zone
from infini.errors import RefusedError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOA = Soa("ns1.infini.example", "host.master@infini.example", 2026112201)
SERVERS = ["ns2.infini.example", "NS1.infini.example."]
ZONE = Zone.of("asso.example", [Rrset("www", "A", 300, ("192.0.2.1",)), Rrset("@", "MX", 600, ("10 mx.example.",))])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (0, 2026112201),
        (2026112100, 2026112201),
        (2026112201, 2026112202),
        (2026112299, 2026112300),  # a hundredth change in a day
        (2100010101, 2100010102),  # a date to come
        (4294967295, 2026112201),  # today's is newer, numbers go round
        (4290000000, 2026112201),
        (2026112201 + 2**31, 2026112202 + 2**31),  # as far as can be: neither is newer (RFC 1982), so one more
    ],
)
def test_the_next_serial_is_newer(old, new):
    assert next_serial(old, NOW) == new
    assert 0 < (new - old) % 2**32 < 2**31


def test_zero_is_no_serial():
    # In 2150 the date is no longer newer than 2³² - 1, and one more would be zero.
    assert next_serial(2**32 - 1, datetime(2150, 1, 1, tzinfo=UTC)) == 1


def test_the_day_is_that_of_utc():
    late = datetime(2026, 11, 23, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert next_serial(0, late) == 2026112201


def test_the_file_is_read_by_another_parser():
    text = to_text(ZONE, SOA, SERVERS)
    read = dns.zone.from_text(text, "asso.example.", relativize=False)
    soa = read.get_soa()
    assert soa.rname.to_text() == r"host\.master.infini.example."
    assert (soa.serial, soa.minimum) == (2026112201, 3600)
    assert {str(ns) for ns in read.get_rdataset("@", "NS")} == {"ns1.infini.example.", "ns2.infini.example."}
    assert str(read.get_rdataset("www", "A")[0]) == "192.0.2.1"


def test_the_same_zone_gives_the_same_text():
    shuffled = Zone("asso.example", dict(reversed(ZONE.rrsets.items())))
    assert to_text(shuffled, SOA, reversed(SERVERS)) == to_text(ZONE, SOA, SERVERS)


def test_the_zones_own_soa_and_ns_are_ours():
    old = from_text("asso.example", "@ 300 IN NS ns-1-a.gandi.net.\nwww 300 IN NS child.example.")
    text = to_text(old, SOA, SERVERS)
    assert "gandi" not in text
    assert "www 300 IN NS child.example." in text


@pytest.mark.parametrize("mailbox", ["hostmaster.infini.example", "@infini.example", "hostmaster@"])
def test_a_mailbox_must_be_an_address(mailbox):
    with pytest.raises(RefusedError, match="no mail address"):
        to_text(ZONE, Soa("ns1.infini.example", mailbox, 1), SERVERS)


def test_what_cannot_be_written_is_not_lost_in_silence():
    with pytest.raises(RefusedError, match="@/ALIAS"):
        to_text(Zone.of("asso.example", [], [Unreadable("@", "ALIAS", ("x",), "y")]), SOA, SERVERS)
    with pytest.raises(RefusedError, match="no name servers"):
        to_text(ZONE, SOA, [])


def test_wks_is_written_so_that_knot_loads_the_zone():
    zone = from_text("asso.example", "hote 300 IN WKS 192.0.2.10 6 25 80")
    text = to_text(zone, SOA, SERVERS)
    assert r"hote 300 IN TYPE11 \# " in text
    assert from_text("asso.example", text).rrsets["hote", "WKS"] == zone.rrsets["hote", "WKS"]
