# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export stays what it is on its way through our model, our zone file and a name server."""

import contextlib
import shutil
import socket
import subprocess

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import ZONE, exports, rrset, values

from infini.domains.reading import disagreement, from_axfr, from_livedns, from_text
from infini.domains.writing import Soa, to_text
from infini.domains.zone import Zone

SOA = Soa("ns1.infini.example", "hostmaster@infini.example", 2026112201)
NS = ["ns1.infini.example", "ns2.infini.example"]
COMPLETE = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def ours(zone):
    """A zone without what its server says for itself."""
    return Zone.of(
        zone.name, [r for r in zone.rrsets.values() if r.key not in {("@", "NS"), ("@", "SOA")}], zone.unreadable
    )


@pytest.mark.parametrize("kind", sorted(values))
def test_a_zone_file_of_ours_says_what_the_export_said(kind):
    @settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.generate, Phase.shrink])
    @given(st.lists(rrset((kind,)), min_size=1, max_size=3, unique_by=lambda entry: entry["rrset_name"].lower()))
    def said_again(found):
        zone = from_livedns(ZONE, found)
        assert not zone.unreadable
        assert {key[1] for key in zone.rrsets} == {kind}
        assert sum(len(rrset.values) for rrset in zone.rrsets.values()) >= len(found)
        again = from_text(ZONE, to_text(zone, SOA, NS))
        assert ours(again) == ours(zone)
        assert disagreement(zone, again) == []

    said_again()


@COMPLETE
@given(exports(), st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_said_does_not_matter(found, random):
    shuffled = [
        {**entry, "rrset_values": random.sample(entry["rrset_values"], len(entry["rrset_values"]))} for entry in found
    ]
    random.shuffle(shuffled)
    assert from_livedns(ZONE, shuffled) == from_livedns(ZONE, found)


@COMPLETE
@given(exports())
def test_the_model_read_again_is_the_model(found):
    zone = from_livedns(ZONE, found)
    said = [
        {"rrset_name": r.name, "rrset_type": r.type, "rrset_ttl": r.ttl, "rrset_values": list(r.values)}
        for r in zone.rrsets.values()
    ]
    assert from_livedns(ZONE, said) == zone


@COMPLETE
@given(st.text(max_size=200), exports())
def test_no_text_brings_the_reader_down(noise, found):
    good = to_text(from_livedns(ZONE, found), SOA, NS)
    zone = from_text(ZONE, f"{good}\n{noise}")
    assert from_text(ZONE, good).rrsets.keys() <= zone.rrsets.keys()


@COMPLETE
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["rrset_name", "rrset_type", "rrset_ttl", "rrset_values"]),
            st.one_of(st.none(), st.text(), st.integers(), st.lists(st.one_of(st.text(), st.integers(), st.none()))),
        )
    )
)
def test_no_entry_brings_the_reader_down_and_none_is_lost(found):
    zone = from_livedns(ZONE, found)
    assert len(zone.unreadable) + len(zone.rrsets) <= len(found)
    assert bool(found) == bool(zone.unreadable or zone.rrsets)


@contextlib.contextmanager
def knot(folder, texts):
    """Knot serving these zone files on loopback; gives its port once they are loaded."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    zones = []
    for name, text in texts.items():
        (folder / f"{name}.zone").write_text(text)
        zones.append(f"  - domain: {name}.\n    file: {folder}/{name}.zone\n    acl: all\n")
    (folder / "knot.conf").write_text(
        f"server:\n  listen: 127.0.0.1@{port}\n  rundir: {folder}\n"
        f"database:\n  storage: {folder}\ncontrol:\n  listen: {folder}/knot.sock\n"
        "acl:\n  - id: all\n    address: 127.0.0.1\n    action: transfer\n"
        "log:\n  - target: stdout\n    any: info\n"
        f"zone:\n{''.join(zones)}"
    )
    with subprocess.Popen(
        ["knotd", "-c", folder / "knot.conf"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        log = []
        for line in server.stdout:
            log.append(line)
            if "server started" in line:
                break
        try:
            assert server.poll() is None, "".join(log)
            yield port
        finally:
            server.terminate()
            server.stdout.read()


@pytest.mark.skipif(not shutil.which("knotd"), reason="Knot is not installed (apt install knot)")
def test_what_our_server_transfers_is_what_the_export_said(tmp_path):
    """A zone of each type, through a real server and its transfer, each the same as before."""
    zones = {f"{kind.lower()}.example": from_livedns(f"{kind.lower()}.example", many(kind)) for kind in values}
    with knot(tmp_path, {name: to_text(zone, SOA, NS) for name, zone in zones.items()}) as port:
        for name, zone in zones.items():
            assert len(zone.rrsets) >= 10, name
            assert ours(from_axfr(name, "127.0.0.1", port)) == ours(zone)


def many(kind):
    """Entries of one type that a server loads, each under a name of its own; a DS needs its delegation."""
    found = []

    @settings(max_examples=12, deadline=None, database=None, phases=[Phase.generate])
    @given(rrset((kind,)))
    def collect(entry):
        found.append({**entry, "rrset_name": f"N{len(found)}"})

    collect()
    delegations = [{**e, "rrset_type": "NS", "rrset_values": ["ns.example."]} for e in found if kind == "DS"]
    return found + delegations
