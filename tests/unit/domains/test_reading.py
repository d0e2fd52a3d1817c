# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import socket
import threading

import dns.message
import dns.rcode
import dns.tsigkeyring
import dns.xfr
import dns.zone
import pytest

from infini.domains.reading import Tsig, disagreement, from_axfr, from_livedns, from_text
from infini.domains.zone import ascii_name
from infini.errors import FailedError, RefusedError, UnreachableError

ZONE = "asso.example"


def entry(name, kind, *values, ttl=300):
    return {"rrset_name": name, "rrset_type": kind, "rrset_ttl": ttl, "rrset_values": list(values)}


def one(zone):
    assert not zone.unreadable
    return next(iter(zone.rrsets.values()))


# LiveDNS.


def test_names_are_canonical_and_values_absolute():
    zone = from_livedns("Asso.Example.", [entry("WWW", "CNAME", "@"), entry("@", "MX", "50 B.example.", "10 a")])
    assert zone.name == ZONE
    assert zone.rrsets["www", "CNAME"].values == ("asso.example.",)
    assert zone.rrsets["@", "MX"].values == ("10 a.asso.example.", "50 b.example.")


def test_values_are_sorted_by_wire_and_each_once():
    assert one(from_livedns(ZONE, [entry("@", "A", "192.0.2.10", "192.0.2.9", "192.0.2.9")])).values == (
        "192.0.2.9",
        "192.0.2.10",
    )


def test_names_that_differ_in_case_only_become_one_rrset():
    zone = from_livedns(ZONE, [entry("www", "A", "192.0.2.1"), entry("WWW", "A", "192.0.2.2", ttl=600)])
    assert one(zone).values == ("192.0.2.1", "192.0.2.2")
    assert one(zone).ttl == 300


def test_an_idn_has_one_form():
    assert ascii_name(" Fête.example.") == "xn--fte-fma.example"
    assert ascii_name("straße.example") == "xn--strae-oqa.example", "not strasse: that is another domain"
    assert from_livedns("fête.example", [entry("é", "A", "192.0.2.1")]).rrsets.keys() == {("xn--9ca", "A")}
    with pytest.raises(RefusedError, match="no domain name"):
        ascii_name("a..b")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry("x", "TXT", f'"{"a" * 256}"'), "string too long"),
        (entry("x", "TXT", "v=DKIM1; k=rsa"), "point-virgule hors guillemets"),
        (entry("x", "TXT", "v=spf1 -all"), "texte sans guillemets"),
        (entry("x", "TXT", '"unclosed'), "guillemets mal fermés"),
        (entry("x", "TXT", '"a\nb"'), "retour à la ligne"),
        (entry("x", "CAA", "0 issue ;"), "point-virgule hors guillemets"),
        (entry("x", "A", "192.0.2.300"), "valeur illisible"),
        (entry("x", "A"), "aucune valeur"),
        (entry("x", "NOPE", "1"), "type d'enregistrement inconnu : NOPE"),
        (entry("x", "ANY", "1"), "n'est pas un type"),
        (entry("a..b", "A", "192.0.2.1"), "nom impossible"),
        (entry("www.elsewhere.example.", "A", "192.0.2.1"), "n'est pas dans la zone"),
        (entry("x", "A", "192.0.2.1", ttl="soon"), "durée de cache illisible"),
        (entry("x", "A", "192.0.2.1", ttl=2**31), "durée de cache trop longue"),
        ({"rrset_name": "x", "rrset_type": "A", "rrset_ttl": 300}, "aucune valeur"),
    ],
)
def test_what_cannot_be_read_keeps_its_text_and_harms_no_other(bad, reason):
    zone = from_livedns(ZONE, [bad, entry("www", "A", "192.0.2.1")])
    assert zone.rrsets.keys() == {("www", "A")}
    [found] = zone.unreadable
    assert reason in found.reason
    assert (found.name, found.type) == (bad["rrset_name"], bad["rrset_type"])
    assert found.values == tuple(bad.get("rrset_values", ()))


def test_an_alias_keeps_its_target_and_ttl():
    [found] = from_livedns(ZONE, [entry("@", "ALIAS", "front.example.", ttl=900)]).unreadable
    assert (found.key, found.values, found.ttl) == (("@", "ALIAS"), ("front.example.",), 900)


def test_a_txt_is_read_whole():
    values = ('"v=DKIM1; k=rsa" "p=AB"', '"say \\"oui\\"\\; \\195\\169"', "alone")
    zone = from_livedns(ZONE, [entry("x", "TXT", *values)])
    assert set(one(zone).values) == {'"v=DKIM1; k=rsa" "p=AB"', '"say \\"oui\\"; \\195\\169"', '"alone"'}


# Text.

GANDI = """\
@ 86400 IN SOA ns1.gandi.net. hostmaster.gandi.net. 1700000000 10800 3600 604800 10800
@ 10800 IN A 217.70.184.38
@ 10800 IN MX 10 spool.mail.gandi.net.
@ 10800 IN MX 50 fb.mail.gandi.net.
@ 10800 IN TXT "v=spf1 include:_mailcust.gandi.net ?all"
blog 10800 IN CNAME blogs.vip.gandi.net.
www 10800 IN CNAME @
"""


def test_gandis_text_says_what_its_json_says():
    json_zone = from_livedns(
        ZONE,
        [
            entry("@", "A", "217.70.184.38", ttl=10800),
            entry("@", "MX", "10 spool.mail.gandi.net.", "50 fb.mail.gandi.net.", ttl=10800),
            entry("@", "TXT", '"v=spf1 include:_mailcust.gandi.net ?all"', ttl=10800),
            entry("blog", "CNAME", "blogs.vip.gandi.net.", ttl=10800),
            entry("www", "CNAME", "asso.example.", ttl=10800),
        ],
    )
    assert from_text(ZONE, GANDI) == json_zone
    assert disagreement(json_zone, from_text(ZONE, GANDI)) == []


@pytest.mark.parametrize(
    "text",
    [
        "www 300 IN A 192.0.2.1",
        "www IN 300 A 192.0.2.1",
        "www 5m A 192.0.2.1 ; the site",
        "WWW.Asso.Example. 300 A 192.0.2.1",
        "$TTL 300\nwww A 192.0.2.1",
        "$ORIGIN example.\nwww.asso 300 IN A 192.0.2.1",
        "www 300 IN A (\n  192.0.2.1 )",
        "\ufeffwww\u00a0300\tIN\u00a0A 192.0.2.1\r\n\r\n",
        "   ; a paste with a margin\n   www 300 IN A 192.0.2.1\n",
        "www 300 in a 192.0.2.1",
    ],
)
def test_one_record_may_be_written_in_many_ways(text):
    rrset = one(from_text(ZONE, text))
    assert (rrset.name, rrset.type, rrset.ttl, rrset.values) == ("www", "A", 300, ("192.0.2.1",))


def test_a_missing_owner_or_ttl_is_that_of_the_line_before():
    zone = from_text(ZONE, "www 300 IN A 192.0.2.1\n  AAAA 2001:db8::1\nmail IN A 192.0.2.2")
    assert [(rrset.name, rrset.type, rrset.ttl) for rrset in zone.rrsets.values()] == [
        ("mail", "A", 300),
        ("www", "A", 300),
        ("www", "AAAA", 300),
    ]


def test_relative_names_follow_the_origin_in_values_too():
    zone = from_text(ZONE, "$ORIGIN sub.asso.example.\nwww 300 CNAME @\n@ 300 MX 10 mx")
    assert zone.rrsets["www.sub", "CNAME"].values == ("sub.asso.example.",)
    assert zone.rrsets["sub", "MX"].values == ("10 mx.sub.asso.example.",)


@pytest.mark.parametrize(
    ("line", "key", "reason"),
    [
        ("@ 300 IN ALIAS front.example.", ("@", "ALIAS"), "n'existe que chez Gandi"),
        ('x 300 IN TXT "unclosed', ("x", "TXT"), "mal fermés"),
        ("x 300 IN SSHFP ( 1 1", ("x", "SSHFP"), "jamais fermée"),
        ("x 300 IN A 192.0.2.1 )", ("x", "A"), "mal fermés"),
        ("x 300 IN TXT v=DKIM1; k=rsa", ("x", "TXT"), "point-virgule"),
        ("x 300 IN A nowhere", ("x", "A"), "valeur illisible"),
        ("x 300 CH A 192.0.2.1", ("x", "?"), "seule IN"),
        ("x 300 IN", ("x", "?"), "incomplète"),
        ("x 300 IN A", ("x", "A"), "aucune valeur"),
        ("out.example. 300 IN A 192.0.2.1", ("out.example.", "A"), "pas dans la zone"),
        ("$INCLUDE other.zone", ("@", "?"), "n'est pas suivi"),
        ("$TTL soon", ("@", "?"), "illisible"),
        ('x 300 IN TXT "a" (\n "b', ("x", "TXT"), "mal fermés"),
    ],
)
def test_a_bad_line_harms_itself_only(line, key, reason):
    zone = from_text(ZONE, f"before 300 IN A 192.0.2.1\n{line}\nafter 300 IN A 192.0.2.2\n")
    assert {("before", "A"), ("after", "A")} <= zone.rrsets.keys()
    first = zone.unreadable[0]
    assert (first.key, reason in first.reason) == (key, True), first
    assert first.values
    assert all(value for value in first.values)


def test_after_an_origin_that_cannot_be_read_no_name_is_guessed():
    zone = from_text(ZONE, "$ORIGIN a..b.\nwww 300 A 192.0.2.1\n$ORIGIN sub.asso.example.\nwww 300 A 192.0.2.2")
    assert zone.rrsets.keys() == {("www.sub", "A")}
    assert [found.type for found in zone.unreadable] == ["?", "A"]


def test_a_line_without_ttl_blocks_when_none_was_said():
    [found] = from_text(ZONE, "www IN A 192.0.2.1").unreadable
    assert "durée de cache absente" in found.reason


def test_our_soa_may_span_lines():
    assert not from_text(ZONE, "@ 300 IN SOA a. b. (\n 1 ; serial\n 2 3 4 5 )\n").unreadable


# Two exports.


def test_disagreements_are_named():
    json_zone = from_livedns(ZONE, [entry("www", "A", "192.0.2.1"), entry("x", "TXT", '"a"'), entry("@", "NS", "a.")])
    text_zone = from_text(ZONE, "www 300 A 192.0.2.2\ny 300 TXT a\n")
    assert disagreement(json_zone, text_zone) == [
        "x TXT est dans le JSON, pas dans le texte",
        "y TXT est dans le texte, pas dans le JSON",
        "www A diffère : « www 300 A 192.0.2.1 » dans le JSON, « www 300 A 192.0.2.2 » dans le texte",
    ]


def test_a_ttl_alone_is_a_disagreement():
    assert disagreement(from_text(ZONE, "www 300 A 192.0.2.1"), from_text(ZONE, "www 600 A 192.0.2.1"))


def test_what_neither_could_read_is_no_disagreement():
    json_zone = from_livedns(ZONE, [entry("@", "ALIAS", "front.example.")])
    assert disagreement(json_zone, from_text(ZONE, "@ 300 ALIAS front.example.")) == []
    assert disagreement(json_zone, from_text(ZONE, "")) == ["@ ALIAS est dans le JSON, pas dans le texte"]


# Transfers, from a little server on loopback.

SERVED = f"""\
@ 60 SOA ns. h. 1 2 3 4 5
@ 60 NS ns.example.
WWW 60 A 192.0.2.1
www 60 NSEC @ A
sub 60 NS ns.sub
sub 60 DS 1 13 2 {"ab" * 32}
"""


@pytest.fixture
def server():
    """Answers one TCP query with the zone, or refuses when it was asked for a key that it knows."""
    zone = dns.zone.from_text(SERVED, "asso.example.", relativize=False)
    keyring = dns.tsigkeyring.from_text({"key.": "c2VjcmV0IHNlY3JldA=="})
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                size = int.from_bytes(connection.recv(2))
                query = dns.message.from_wire(connection.recv(size), keyring=keyring)
                answer = dns.message.make_response(query)
                soa = zone.find_rrset("asso.example.", "SOA")
                sets = [rrset for rrset in _rrsets(zone) if rrset.rdtype != soa.rdtype]
                answer.answer = [soa, *sets, soa]
                if query.question[0].name.to_text() == "refused.example.":
                    answer.answer, answer.flags = [], answer.flags | dns.rcode.REFUSED
                wire = answer.to_wire(multi=True)
                connection.sendall(len(wire).to_bytes(2) + wire)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
    thread.join(5)


def _rrsets(zone):
    for name, rdataset in zone.iterate_rdatasets():
        yield dns.rrset.from_rdata_list(name, rdataset.ttl, list(rdataset))


@pytest.mark.parametrize("tsig", [None, Tsig("key", "c2VjcmV0IHNlY3JldA==")])
def test_a_transfer_gives_the_zone_without_soa_and_signatures(server, tsig):
    zone = from_axfr(ZONE, "127.0.0.1", server, tsig)
    assert list(zone.rrsets) == [("@", "NS"), ("sub", "DS"), ("sub", "NS"), ("www", "A")]
    assert zone.rrsets["www", "A"].values == ("192.0.2.1",)


def test_a_refused_transfer_is_one_sentence(server):
    with pytest.raises(FailedError, match="allow our address or key"):
        from_axfr("refused.example", "127.0.0.1", server)


def test_a_silent_server_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"No zone transfer of asso\.example from 127\.0\.0\.1"):
        from_axfr(ZONE, "127.0.0.1", port)


def test_a_key_is_not_shown():
    assert "c2Vj" not in repr(Tsig("key", "c2VjcmV0"))
