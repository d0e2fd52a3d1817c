# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers that are not ours agree with our zone files: BIND's, ldns's, and octoDNS's for the types it knows."""

import shutil
import subprocess

import octodns.zone
import octodns_bind
import pytest
from test_properties import NS, SOA, ours

from infini.domains import archetypes
from infini.domains.plan import Options, make_plan
from infini.domains.reading import from_livedns, from_text
from infini.domains.rules import text_of
from infini.domains.writing import to_text
from infini.domains.zone import Zone

SHA = "ab" * 32
EVERY_TYPE = [
    ("@", "A", "192.0.2.1", "192.0.2.10"),
    ("@", "AAAA", "2001:db8::1"),
    ("@", "CAA", '0 issue "letsencrypt.org"', '128 iodef "mailto:a@asso.example"'),
    ("@", "MX", "10 mx.example.", "20 mx2"),
    ("@", "TXT", '"v=DKIM1; k=rsa" "p=AB\\"C"', '"\\195\\169t\\195\\169 $ORIGIN @ (x)"'),
    ("@", "SPF", '"v=spf1 -all"'),
    ("@", "HTTPS", '1 . alpn="h2,h3" port=443 ipv4hint=192.0.2.1'),
    ("@", "LOC", "48 23 24.000 N 4 29 24.000 W 50.00m 10m 100m 10m"),
    ("@", "RP", "bureau txt"),
    ("www", "CNAME", "@"),
    ("*.joker", "A", "192.0.2.3"),
    ("old", "DNAME", "new.example."),
    ("sub", "NS", "ns.sub", "ns.example."),
    ("sub", "DS", f"12345 13 2 {SHA}"),
    ("ns.sub", "A", "192.0.2.4"),
    ("key", "KEY", "512 3 8 AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3"),
    ("enum", "NAPTR", '100 10 "u" "E2U+sip" "!^.*$!sip:info@asso.example!" .'),
    ("0a._openpgpkey", "OPENPGPKEY", "mQENBFVHm5sBCAC1234="),
    ("10", "PTR", "hote"),
    ("_sip._udp", "SRV", "10 20 5060 sip.example.", "0 0 0 ."),
    ("hote", "SSHFP", f"4 2 {SHA}"),
    ("_dns", "SVCB", "1 dns.example. port=853"),
    ("_443._tcp.www2", "TLSA", f"3 1 1 {SHA}"),
    ("hote", "WKS", "192.0.2.10 6 25 80"),
    ("a\\@b.\\195\\169", "A", "192.0.2.5"),
]


def zones():
    entries = [
        {"rrset_name": name, "rrset_type": kind, "rrset_ttl": 300 + at, "rrset_values": list(values)}
        for at, (name, kind, *values) in enumerate(EVERY_TYPE)
    ]
    yield pytest.param(from_livedns("asso.example", entries), id="every-type-here")
    for name in archetypes.names():
        archetype = archetypes.load(name)
        decisions = archetype.decisions
        options = Options(
            mail_mode=decisions.mail,
            redirections=dict.fromkeys(decisions.redirections, True),
            alias_addresses=decisions.alias_addresses,
            waivers=decisions.waivers,
            web_addresses=("192.0.2.9", "2001:db8::9"),
            mail_exchangers=("10 mx.infini.example.",),
        )
        plan = make_plan(from_livedns(archetype.domain, archetype.records), archetype.redirections, options)
        assert plan.balanced, name
        yield pytest.param(plan.zone, id=name)


ZONES = list(zones())


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(
    not shutil.which("named-checkzone"), reason="BIND's tools are not installed (apt install bind9-utils)"
)
@pytest.mark.parametrize("zone", ZONES)
def test_bind_reads_what_we_wrote(zone, tmp_path):
    path, dump = tmp_path / "zone", tmp_path / "dump"
    path.write_text(to_text(zone, SOA, NS))
    run("named-checkzone", "-i", "none", "-m", "warn", "-k", "ignore", "-D", "-F", "text", "-o", dump, zone.name, path)
    assert ours(from_text(zone.name, dump.read_text())) == ours(zone)


@pytest.mark.skipif(not shutil.which("ldns-read-zone"), reason="ldns's tools are not installed (apt install ldnsutils)")
@pytest.mark.parametrize("zone", ZONES)
def test_ldns_reads_what_we_wrote(zone, tmp_path):
    path = tmp_path / "zone"
    path.write_text(to_text(zone, SOA, NS))
    assert ours(from_text(zone.name, run("ldns-read-zone", path))) == ours(zone)


KNOWN = {
    "A",
    "AAAA",
    "CAA",
    "CNAME",
    "DS",
    "HTTPS",
    "MX",
    "NAPTR",
    "NS",
    "PTR",
    "SPF",
    "SRV",
    "SSHFP",
    "SVCB",
    "TLSA",
    "TXT",
}


def as_octodns(kind, values):
    """What octoDNS keeps of an rdata: not where the strings of a TXT are cut, nor the case of NAPTR's flags."""
    if kind in {"TXT", "SPF"}:
        return {text_of(kind, value) for value in values}
    return {value.lower() if kind == "NAPTR" else value for value in values}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # octoDNS is on its way to 2.0, its BIND provider is not yet
@pytest.mark.parametrize("zone", ZONES)
def test_octodns_reads_what_we_wrote(zone, tmp_path):
    known = Zone.of(zone.name, [rrset for rrset in zone.rrsets.values() if rrset.type in KNOWN])
    (tmp_path / f"{zone.name}.").write_text(to_text(known, SOA, NS))
    read = octodns.zone.Zone(f"{zone.name}.", [])
    octodns_bind.ZoneFileSource("ours", tmp_path).populate(read, lenient=True)
    found = {(record.name or "@", record._type): record for record in read.records}
    assert found.keys() - {("@", "NS")} == known.rrsets.keys() - {("@", "NS")}
    for key, rrset in known.rrsets.items():
        name, ttl, kind, texts = found[key].rrs
        assert (name.rstrip("."), ttl, kind) == (f"{key[0]}.{zone.name}".removeprefix("@."), rrset.ttl, rrset.type)
        spoken = from_text(zone.name, "\n".join(f"{name} {ttl} IN {kind} {text}" for text in texts))
        assert as_octodns(kind, spoken.rrsets[key].values) == as_octodns(kind, rrset.values)


def test_the_readers_are_asked_about_every_type_that_livedns_has():
    from strategies import LIVEDNS

    written = {kind for parameter in ZONES for _, kind in parameter.values[0].rrsets}
    # ours (SOA), not a type (ALIAS), never carried (CDS)
    assert set(LIVEDNS) - written == {"SOA", "ALIAS", "CDS"}
