# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own DNS as resolvers, secondaries and curious strangers meet it."""

import base64
import os
import shlex
import subprocess

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import pytest

from infini.hosts import Inventory

INVENTORY = os.environ.get("INFINI_INVENTORY", "staging")
FAMILIES = ("hosting_ipv4", "hosting_ipv6")


class Platform:
    """The name server, and what the inventory says of it."""

    def __init__(self) -> None:
        self.inventory = Inventory(INVENTORY)
        self.host = self.inventory.hosts("nameservers")[0]
        self.zones = {zone["name"]: zone for zone in self.get("dns_primary_zones")}
        self.key = self.get("dns_primary_keys")[0]

    def get(self, name: str) -> object:
        return self.inventory.get(self.host, name)

    def run(self, host: str, command: str, status: int = 0) -> str:
        line = [*self.inventory.connection(host).ssh("-o", "BatchMode=yes"), f"sh -c {shlex.quote(command)}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == status, f"{host}: {command}: {done.stderr}{done.stdout}"
        return done.stdout + done.stderr

    def ask(self, name: str, kind: str, *, tcp: bool = False, dnssec: bool = False, family: str = FAMILIES[0]):
        query = dns.message.make_query(name, kind, want_dnssec=dnssec)
        return (dns.query.tcp if tcp else dns.query.udp)(query, self.get(family), timeout=5)

    def transfer(self, zone: str, secret: str | None) -> list[dns.rrset.RRset]:
        """Fetch a zone from here, which is a secondary; return its rrsets, none when the server refuses."""
        query = dns.message.make_query(zone, "AXFR")
        if secret:
            query.use_tsig(dns.tsigkeyring.from_text({self.key["name"]: secret}), algorithm=dns.tsig.HMAC_SHA256)
        try:
            answer = dns.query.tcp(query, self.get("hosting_ipv4"), timeout=5)
        except dns.tsig.PeerError:
            return []
        return answer.answer


@pytest.fixture(scope="module")
def platform():
    return Platform()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tcp", [False, True])
def test_every_zone_is_answered_with_authority(platform, family, tcp):
    for zone in platform.zones:
        answer = platform.ask(zone, "SOA", tcp=tcp, family=family)
        assert answer.rcode() == dns.rcode.NOERROR
        assert answer.flags & dns.flags.AA, zone
        assert platform.ask(zone, "A", tcp=tcp, family=family).answer[0][0].address == platform.get("hosting_ipv4")


def test_a_name_that_does_not_exist_is_denied_with_authority(platform):
    answer = platform.ask(f"nothing.{next(iter(platform.zones))}", "A")
    assert (answer.rcode(), bool(answer.flags & dns.flags.AA)) == (dns.rcode.NXDOMAIN, True)


def test_it_resolves_nothing_for_strangers(platform):
    answer = platform.ask("infini.fr", "A")
    assert answer.rcode() == dns.rcode.REFUSED
    assert not answer.flags & dns.flags.RA


def test_it_does_not_say_what_it_is(platform):
    query = dns.message.make_query("version.bind", "TXT", "CH")
    assert not dns.query.udp(query, platform.get("hosting_ipv4"), timeout=5).answer


def test_port_53_is_bound_on_the_declared_addresses_only(platform):
    listening = platform.run(platform.host, "ss -Hlntu 'sport = :53' | awk '{print $5}'").split()
    declared = {f"{platform.get('hosting_ipv4')}:53", f"[{platform.get('hosting_ipv6')}]:53"}
    assert set(listening) == declared


def test_a_signed_zone_holds_before_its_own_key(platform):
    [signed] = [name for name, zone in platform.zones.items() if zone.get("signed")]
    origin = dns.name.from_text(signed)
    keys = platform.ask(signed, "DNSKEY", tcp=True, dnssec=True)
    dnskey = keys.find_rrset(keys.answer, origin, "IN", "DNSKEY")
    for kind in ("DNSKEY", "SOA", "A"):
        answer = platform.ask(signed, kind, tcp=True, dnssec=True)
        rrset = answer.find_rrset(answer.answer, origin, "IN", kind)
        signatures = answer.find_rrset(answer.answer, origin, "IN", "RRSIG", dns.rdatatype.from_text(kind))
        dns.dnssec.validate(rrset, signatures, {origin: dnskey})
    assert not platform.ask(signed, "CDS").answer


def test_an_unsigned_zone_has_no_signatures(platform):
    unsigned = next(name for name, zone in platform.zones.items() if not zone.get("signed"))
    assert not platform.ask(unsigned, "DNSKEY").answer


def test_a_secondary_fetches_zones_with_its_key_only(platform):
    zone = next(iter(platform.zones))
    fetched = {dns.rdatatype.to_text(rrset.rdtype) for rrset in platform.transfer(zone, platform.key["secret"])}
    assert {"SOA", "NS", "A", "AAAA"} <= fetched
    assert not platform.transfer(zone, None)
    assert not platform.transfer(zone, base64.b64encode(b"another secret of the same size!").decode())


def test_the_key_is_worth_nothing_elsewhere(platform):
    """The host itself has the key, and is no secondary."""
    command = f"kdig +time=3 +retry=0 -k /run/e2e.key @{platform.get('hosting_ipv4')} {next(iter(platform.zones))} AXFR"
    key = f"hmac-sha256:{platform.key['name']}:{platform.key['secret']}"
    said = platform.run(platform.host, f"umask 077; echo {key} >/run/e2e.key; {command}; rm /run/e2e.key")
    assert "replied with error" in said
    assert "SOA" not in said


def test_the_catalog_names_every_zone(platform):
    listed = platform.transfer(platform.get("dns_primary_catalog"), platform.key["secret"])
    members = {
        str(rdata.target).rstrip(".") for rrset in listed if rrset.rdtype == dns.rdatatype.PTR for rdata in rrset
    }
    assert members == set(platform.zones)


def test_secrets_are_readable_by_root_and_knot_only(platform):
    found = platform.run(platform.host, "stat -c '%a %U %G' /etc/knot/conf.d/10-keys.conf").split()
    assert found == ["640", "root", "knot"]


def test_the_running_service_is_hardened(platform):
    said = platform.run(platform.host, "systemd-analyze security --no-pager knot.service | tail -1")
    assert float(said.split("service: ")[1].split()[0]) <= 3.0


def test_a_changed_zone_is_served_with_a_higher_serial_and_nothing_else_stops(platform):
    """As the role does it: the file changes, Knot is reloaded, the secondary sees a newer serial."""
    zone = next(iter(platform.zones))
    path = f"/etc/knot/zones/{zone}.zone"
    before = platform.ask(zone, "SOA").answer[0][0].serial
    try:
        platform.run(platform.host, f"cp -p {path} /run/e2e.zone; echo 'e2e 300 TXT new' >>{path}; knotc -b reload")
        platform.run(platform.host, f"knotc -b zone-reload {zone}")
        answer = platform.ask(f"e2e.{zone}", "TXT")
        assert answer.answer[0][0].strings == (b"new",)
        assert platform.ask(zone, "SOA").answer[0][0].serial > before
    finally:
        platform.run(platform.host, f"cp -p /run/e2e.zone {path}; rm /run/e2e.zone; knotc -b zone-reload {zone}")
    assert platform.ask(f"e2e.{zone}", "TXT").rcode() == dns.rcode.NXDOMAIN


def test_a_backup_holds_keys_and_serials(platform):
    """The card's own commands, and a copy that an empty server starts from with the same key."""
    whole = "rm -rf /var/lib/knot/backup; knotc --blocking zone-backup +backupdir /var/lib/knot/backup +journal"
    listed = platform.run(platform.host, f"{whole}; find /var/lib/knot/backup -type f; rm -rf /var/lib/knot/backup")
    assert [path for path in listed.split() if path.endswith(".pem")]
    assert [path for path in listed.split() if "/journal/" in path]
