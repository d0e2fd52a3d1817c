# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""LiveDNS rrsets of every type that LiveDNS accepts, as its JSON says them."""

import base64

from hypothesis import strategies as st

ZONE = "asso.example"
# fmt: off
LIVEDNS = (
    "A", "AAAA", "ALIAS", "CAA", "CDS", "CNAME", "DNAME", "DS", "HTTPS", "KEY", "LOC", "MX", "NAPTR", "NS",
    "OPENPGPKEY", "PTR", "RP", "SOA", "SPF", "SRV", "SSHFP", "SVCB", "TLSA", "TXT", "WKS",
)
# fmt: on
MADE_BY_US = {"SOA", "ALIAS"}  # the zone's own SOA is ours, and ALIAS is no type of DNS
ALONE = {"CNAME", "DNAME"}

small, short, byte = st.integers(0, 255), st.integers(0, 65535), st.binary(min_size=1, max_size=64)
label = st.from_regex(r"[a-z0-9_]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True).filter(lambda text: text[2:4] != "--")
names = st.lists(label, min_size=1, max_size=3).map(".".join)
owners = st.one_of(st.just("@"), names, names.map(lambda name: f"*.{name}"))
targets = st.one_of(names, names.map(lambda name: f"{name}.example."), st.just("@"), names.map(str.upper))
hexes = st.binary(min_size=20, max_size=20).map(bytes.hex)
sha256 = st.binary(min_size=32, max_size=32).map(bytes.hex)
base64s = st.binary(min_size=16, max_size=90).map(lambda data: base64.b64encode(data).decode())


def quoted(data: bytes) -> str:
    """One string of a TXT, as any master file may write it."""
    return (
        '"'
        + "".join(f"\\{octet:03d}" if octet < 32 or octet > 126 or octet in b'"\\' else chr(octet) for octet in data)
        + '"'
    )


strings = st.lists(st.binary(max_size=255).map(quoted), min_size=1, max_size=3).map(" ".join)
addresses = st.ip_addresses(v=4).map(str)
addresses6 = st.ip_addresses(v=6).map(str)


def words(*parts):
    return st.tuples(*parts).map(lambda found: " ".join(str(part) for part in found))


parameters = st.fixed_dictionaries(
    {},
    optional={
        "alpn": st.sampled_from(["h2", '"h2,h3"']),
        "port": short.map(str),
        "ipv4hint": addresses,
        "ipv6hint": addresses6,
        "no-default-alpn": st.just(None),
    },
).map(
    lambda found: " ".join(
        key if value is None else f"{key}={value}"
        for key, value in found.items()
        if key != "no-default-alpn" or "alpn" in found
    )
)
service = st.one_of(
    words(st.just(0), targets), words(st.integers(1, 65535), st.one_of(st.just("."), targets), parameters)
)
naptr_words = st.sampled_from(['"u"', '"s"', '""', '"A"'])
digests = st.one_of(st.tuples(st.just(1), hexes), st.tuples(st.just(2), sha256))

values = {
    "A": addresses,
    "AAAA": addresses6,
    "CAA": words(
        st.sampled_from([0, 128]), st.sampled_from(["issue", "issuewild", "iodef"]), st.binary(max_size=40).map(quoted)
    ),
    "CDS": digests.flatmap(lambda pair: words(short, st.just(13), st.just(pair[0]), st.just(pair[1]))),
    "CNAME": targets,
    "DNAME": targets,
    "DS": digests.flatmap(lambda pair: words(short, st.sampled_from([8, 13]), st.just(pair[0]), st.just(pair[1]))),
    "HTTPS": service,
    "KEY": words(st.sampled_from([256, 512]), st.just(3), st.sampled_from([8, 13]), base64s),
    "LOC": st.tuples(
        st.integers(0, 89), st.integers(0, 59), st.sampled_from("NS"), st.integers(0, 179), st.sampled_from("EW")
    ).map(lambda at: f"{at[0]} {at[1]} 12.748 {at[2]} {at[3]} 7 39.611 {at[4]} 50.00m 10m 100m 10m"),
    "MX": words(short, targets),
    "NAPTR": words(short, short, naptr_words, st.just('"E2U+sip"'), st.just('"!^.*$!sip:info@asso.example!"'), targets),
    "NS": targets,
    "OPENPGPKEY": base64s,
    "PTR": targets,
    "RP": words(targets, targets),
    "SPF": strings,
    "SRV": words(short, short, short, st.one_of(st.just("."), targets)),
    "SSHFP": st.one_of(words(st.just(4), st.just(1), hexes), words(st.just(4), st.just(2), sha256)),
    "SVCB": service,
    "TLSA": words(st.sampled_from([2, 3]), st.sampled_from([0, 1]), st.just(1), sha256),
    "TXT": strings,
    "WKS": words(
        addresses,
        st.just(6),
        st.lists(st.integers(1, 1023), min_size=1, max_size=4, unique=True).map(
            lambda ports: " ".join(map(str, sorted(ports)))
        ),
    ),
}
KINDS = tuple(sorted(values))


@st.composite
def rrset(draw, kinds=KINDS):
    """One rrset, as LiveDNS gives it."""
    kind = draw(st.sampled_from(kinds))
    count = 1 if kind in ALONE else draw(st.integers(1, 4))
    return {
        "rrset_name": draw(owners),
        "rrset_type": kind,
        "rrset_ttl": draw(st.integers(300, 2592000)),
        "rrset_values": draw(st.lists(values[kind], min_size=count, max_size=count)),
    }


@st.composite
def exports(draw, kinds=KINDS):
    """A zone's rrsets, each name and type once."""
    found = draw(st.lists(rrset(kinds), max_size=12))
    return list({(entry["rrset_name"].lower(), entry["rrset_type"]): entry for entry in found}.values())
