# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the DNS says: asked of servers on loopback that tell the truth, and of some that do not."""

import asyncio
import json
from dataclasses import replace

import dns.rcode
import dns.rrset
import pytest
from dns_server import Authority, cut_short, gives, rrset, says, serving, silent

from infini.domains import dns as ours
from infini.domains.dns import LiveDns, Model, questions
from infini.domains.events import LocalStore
from infini.domains.ports import WorldError
from infini.domains.probe import DOCUMENT
from infini.domains.zone import Rrset, Unreadable, Zone

OLD, OLD2, NEW, NEW2, RESOLVER, PARENT, PARENT2 = (f"127.0.0.{number}" for number in range(11, 18))
ZONE = Zone.of(
    "asso.test",
    [
        Rrset("@", "A", 3600, ("192.0.2.1",)),
        Rrset("@", "MX", 3600, ("10 mx.example.",)),
        Rrset("@", "TXT", 3600, ('"v=spf1 -all"',)),
        Rrset("www", "CNAME", 3600, ("asso.test.",)),
    ],
)
DS = "12345 13 2 " + "AB" * 32
KEY = "257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ=="


def changed(zone, *rrsets):
    return Zone(zone.name, {**zone.rrsets, **{one.key: one for one in rrsets}}, zone.unreadable)


def dns_at(port, **more):
    return LiveDns([RESOLVER], port=port, rate=None, timeout=0.3, tries=2, **more)


class Parity:
    """Two servers on each side, and the comparison of them; names of the new ones are known."""

    def __init__(self):
        self.new_names = {"ns1.infini.test": [NEW], "ns2.infini.test": [NEW2]}
        self.old = self.new = ZONE
        self.at = {}
        self.serve(ZONE, ZONE)

    def serve(self, old, new):
        self.at = {address: Authority(old) for address in (OLD, OLD2)}
        self.at |= {address: Authority(new, tuple(self.new_names)) for address in (NEW, NEW2)}

    def run(self, **more):
        with serving(self.at) as port:
            return dns_at(port, known=self.new_names).parity(
                self.old, self.new, more.get("old", [OLD, OLD2]), more.get("new", list(self.new_names)), "sum"
            )


@pytest.fixture
def parity():
    return Parity()


def found(differences):
    return {(one.name, one.type, one.rule) for one in differences}


def test_equal_servers_are_equal_and_the_checker_is_proven(parity):
    seen = parity.run()

    assert seen.ok
    assert seen.canary_caught
    assert not seen.expected
    # Names @, www and a random one, ten types at each but NS and DS at the zone itself; there DNSKEY and its own NS.
    each = 3 * 10 - 2 + 2
    assert seen.queries == each * 4 * 2
    assert seen.identical == each * 2 * 2
    assert seen.export_sha256 == "sum"


@pytest.mark.parametrize(
    "lie",
    [
        gives(),
        gives(rrset("asso.test", 3600, "A", "192.0.2.9")),
        gives(rrset("asso.test", 3600, "A", "192.0.2.1", "192.0.2.9")),
        gives(rrset("asso.test", 300, "A", "192.0.2.1")),
        gives(rrset("asso.test", 3600, "A", "192.0.2.1"), authoritative=False),
        says(dns.rcode.SERVFAIL),
        says(dns.rcode.NXDOMAIN),
        silent,
    ],
    ids=["missing", "wrong", "more", "ttl", "not-authoritative", "servfail", "nxdomain", "silent"],
)
@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_one_wrong_answer_of_one_server_is_seen(parity, lie, transport):
    parity.at[NEW2].lie("@", "A", lie, (transport,))
    seen = parity.run()

    assert not seen.ok
    assert [(one.name, one.type, one.server) for one in seen.unexpected] == [
        ("@", "A", f"ns2.infini.test {NEW2} {transport}")
    ]


def test_a_record_that_stands_on_the_new_side_only_is_seen(parity):
    for address in (NEW, NEW2):
        parity.at[address].put("www2", "AAAA", 300, "2001:db8::1")
        parity.at[address].put("@", "CAA", 300, '0 issue ";"')
    assert found(parity.run().unexpected) == {("@", "CAA", "")}  # nobody asks for a name that no zone has


def test_a_wildcard_does_not_hide_a_missing_name(parity):
    wild = Rrset("*", "A", 3600, ("192.0.2.9",))
    parity.old = parity.new = changed(ZONE, wild)
    parity.serve(parity.old, Zone("asso.test", {key: one for key, one in parity.old.rrsets.items() if key[0] != "www"}))
    seen = parity.run()
    # The servers of these tests know no wildcard, so both answer alike for random labels.
    assert {(one.name, one.type) for one in seen.unexpected} >= {("www", "A"), ("www", "MX")}


def test_what_the_plan_changes_is_expected_when_both_sides_say_so(parity):
    parity.new = changed(ZONE, Rrset("@", "A", 3600, ("198.51.100.1",)))
    parity.serve(ZONE, parity.new)
    seen = parity.run()

    assert seen.ok
    assert seen.queries == 2 * (seen.identical + len(seen.expected)), "each answer of the two new servers counts once"
    assert found(seen.expected) == {("@", "A", "plan")}
    assert {(one.old, one.new) for one in seen.expected} == {("3600 A 192.0.2.1", "3600 A 198.51.100.1")}


def test_what_the_plan_changes_must_have_changed(parity):
    parity.new = changed(ZONE, Rrset("@", "A", 3600, ("198.51.100.1",)))
    assert found(parity.run().unexpected) == {("@", "A", "")}


def test_a_zone_edited_since_its_export_is_seen(parity):
    parity.new = changed(ZONE, Rrset("@", "A", 3600, ("198.51.100.1",)))
    parity.serve(changed(ZONE, Rrset("@", "A", 3600, ("203.0.113.1",))), parity.new)
    seen = parity.run()

    assert found(seen.unexpected) == {("@", "A", "zone-drifted")}
    assert {(one.old, one.new) for one in seen.unexpected} == {("3600 A 192.0.2.1", "3600 A 203.0.113.1")}


def test_lowered_ttls_are_expected_raised_ones_are_not(parity):
    for ttl, rules in ((300, set()), (7200, {"zone-drifted"})):
        lowered = Zone.of(ZONE.name, [replace(one, ttl=ttl) for one in ZONE.rrsets.values()])
        parity.serve(lowered, ZONE)
        seen = parity.run()
        assert {one.rule for one in seen.unexpected} == rules
        assert {one.rule for one in seen.expected} == ({"ttl"} if not rules else set())


def test_old_servers_that_disagree_are_seen(parity):
    parity.at[OLD2].put("@", "MX", 3600, "20 mx.example.")
    assert found(parity.run().unexpected) == {("@", "MX", "old-servers-disagree")}


def test_a_silent_old_server_is_no_proof(parity):
    parity.at[OLD2].lie("@", "MX", silent)
    seen = parity.run()
    assert {(one.name, one.type, one.server) for one in seen.unexpected} == {
        ("@", "MX", f"{OLD2} {transport}") for transport in ("UDP", "TCP")
    }


def test_a_text_may_be_cut_anywhere(parity):
    for address in (NEW, NEW2):
        parity.at[address].put("@", "TXT", 3600, '"v=spf1 " "-all"')
    assert parity.run().ok


def test_an_unreadable_entry_is_judged_by_what_takes_its_place(parity):
    parity.old = Zone(ZONE.name, ZONE.rrsets, (Unreadable("blog", "ALIAS", ("x.example.",), "no such type"),))
    parity.new = changed(ZONE, Rrset("blog", "A", 300, ("198.51.100.1",)))
    parity.serve(changed(ZONE, Rrset("blog", "A", 1800, ("192.0.2.77",))), parity.new)
    seen = parity.run()

    assert seen.ok
    assert found(seen.expected) == {("blog", "A", "unreadable-record")}


def test_keys_of_a_signed_zone_are_expected_to_stay_behind(parity):
    for address in (OLD, OLD2):
        parity.at[address].put("@", "DNSKEY", 300, KEY)
    seen = parity.run()
    assert seen.ok
    assert found(seen.expected) == {("@", "DNSKEY", "dnssec")}


def test_the_new_servers_must_name_themselves(parity):
    parity.at[NEW2].put("@", "NS", 300, "ns1.infini.test.", "ns-1-a.gandi.net.")
    seen = parity.run()
    assert {(one.name, one.type, one.server) for one in seen.unexpected} == {
        ("@", "NS", f"ns2.infini.test {NEW2} {transport}") for transport in ("UDP", "TCP")
    }


@pytest.mark.parametrize(("side", "lost"), [("old", "the old servers"), ("new", "the new servers")])
def test_nobody_to_ask_is_no_proof(parity, side, lost):
    seen = parity.run(**{side: []})
    assert not seen.ok
    assert lost in {one.server for one in seen.unexpected}


def test_a_server_without_address_is_no_proof(parity):
    seen = parity.run(new=["ns1.infini.test", "ns2.infini.test", "ns9.infini.test"])
    assert not seen.ok
    assert "ns9.infini.test" in {one.server for one in seen.unexpected}


def test_a_checker_that_sees_nothing_is_not_proven(parity, monkeypatch):
    monkeypatch.setattr(ours._Judge, "_pair", lambda judge, *_: setattr(judge, "identical", judge.identical + 1))
    seen = parity.run()
    assert not seen.unexpected
    assert not seen.canary_caught
    assert not seen.ok


def test_an_empty_zone_has_its_canary_too(parity):
    parity.old = parity.new = Zone("asso.test")
    parity.serve(parity.old, parity.new)
    assert parity.run().ok


def test_a_large_answer_is_fetched_over_tcp(parity):
    parity.at[NEW].lie("@", "A", cut_short, ("UDP",))
    assert parity.run().ok


def test_a_server_that_hangs_up_is_called_again():
    at = {OLD: Authority(ZONE), NEW: Authority(ZONE)}
    with serving(at, patience=2) as port:
        assert dns_at(port).parity(ZONE, ZONE, [OLD], [NEW], "").ok


def test_questions_avoid_the_apex_and_ask_beside_wildcards():
    zone = changed(ZONE, Rrset("*.wild", "A", 300, ("192.0.2.1",)), Rrset("x", "TYPE65400", 300, ("\\# 0",)))
    asked = questions(zone, Zone("asso.test", {}, (Unreadable("gone", "ALIAS", (), ""),)), "rnd")

    assert not {("@", "NS"), ("@", "SOA"), ("@", "DS")} & set(asked)
    assert {("rnd", "A"), ("rnd.wild", "A"), ("gone", "HTTPS"), ("www", "SRV"), ("x", "TYPE65400")} <= set(asked)
    assert len(set(asked)) == len(asked)
    assert "ALIAS" not in {kind for _, kind in asked}


RICH = Zone.of(
    "asso.test",
    [
        Rrset("@", "A", 60, ("192.0.2.1",)),
        Rrset("a.b", "A", 60, ("192.0.2.2",)),
        Rrset("*.w", "A", 60, ("192.0.2.3",)),
        Rrset("x.y.w", "TXT", 60, ('"x"',)),
        Rrset("child", "NS", 60, ("ns.child.asso.test.",)),
        Rrset("child", "DS", 60, (DS,)),
        Rrset("ns.child", "A", 60, ("192.0.2.4",)),
        Rrset("dn", "DNAME", 60, ("elsewhere.example.",)),
        Rrset("www", "CNAME", 60, ("asso.test.",)),
    ],
)


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("@", "A", "60 A 192.0.2.1"),
        ("@", "MX", "no data"),
        ("b", "A", "no data"),
        ("c", "A", "NXDOMAIN"),
        ("c.b", "A", "NXDOMAIN"),
        ("any.w", "A", "60 A 192.0.2.3"),
        ("any.where.w", "A", "60 A 192.0.2.3"),
        ("any.w", "TXT", "no data"),
        ("y.w", "A", "no data"),
        ("z.y.w", "A", "NXDOMAIN"),
        ("*.w", "A", "60 A 192.0.2.3"),
        ("child", "A", "60 NS ns.child.asso.test."),
        ("ns.child", "A", "60 NS ns.child.asso.test."),
        ("child", "DS", f"60 DS {DS.lower()}"),
        ("dn", "A", "no data"),
        ("dn", "DNAME", "60 DNAME elsewhere.example."),
        ("deep.dn", "A", "60 CNAME deep.elsewhere.example."),
        ("www", "A", "60 CNAME asso.test."),
        ("WWW", "A", "60 CNAME asso.test."),
    ],
)
def test_a_model_answers_as_a_server_must(name, kind, answer):
    assert str(Model(RICH).answer(name, kind)) == answer


def test_a_model_knows_what_it_does_not_know():
    model = Model(Zone("asso.test", {}, (Unreadable("*.u", "ALIAS", (), ""),)))
    assert model.answer("any.u", "A") is None
    assert str(model.answer("u", "A")) == "no data"


def parents(child, *, one=None, two=None):
    """Return a resolver and two servers of the zone `test`, which say this of the child."""
    top = Zone.of("test", [])
    resolver = Authority(top, ("a.nic.test", "b.nic.test"))
    resolver.put("a.nic", "A", 60, PARENT)
    resolver.put("b.nic", "A", 60, PARENT2)
    at = {RESOLVER: resolver}
    for address, (servers, ds) in {PARENT: one, PARENT2: two}.items():
        at[address] = Authority(top)
        label = child.removesuffix(".test")
        at[address].lie(label, "NS", _referral(child, servers) if servers else says(dns.rcode.NXDOMAIN))
        at[address].lie(label, "DS", gives(*([rrset(child, 90, "DS", *ds)] if ds else [])))
    return at


def _referral(child, servers):
    def lie(said):
        said.authority = [rrset(child, 180, "NS", *(f"{server}." for server in servers))]
        return said

    return lie


def test_each_server_of_the_parent_is_asked():
    same = (("NS-1-A.gandi.net", "ns-2-b.gandi.net"), (DS,))
    with serving(parents("asso.test", one=same, two=same)) as port:
        seen = dns_at(port).delegation("asso.test")

    assert seen.agreed
    assert seen.nameservers == {"ns-1-a.gandi.net", "ns-2-b.gandi.net"}
    assert seen.ds == {DS.lower()}
    assert (seen.ns_ttl, seen.ds_ttl) == (180, 90)
    assert [answer.server for answer in seen.answers] == [f"a.nic.test {PARENT}", f"b.nic.test {PARENT2}"]


def test_parents_may_disagree():
    with serving(parents("asso.test", one=(("new.example",), ()), two=(("old.example",), (DS,)))) as port:
        seen = dns_at(port).delegation("asso.test")
    assert seen.complete
    assert not seen.agreed
    assert seen.nameservers == {"new.example", "old.example"}
    assert seen.ds


def test_a_domain_that_does_not_exist_is_delegated_to_nobody():
    with serving(parents("asso.test", one=((), ()), two=((), ()))) as port:
        seen = dns_at(port).delegation("asso.test")
    assert seen.agreed
    assert not seen.nameservers


@pytest.mark.parametrize("kind", ["NS", "DS"])
@pytest.mark.parametrize("lie", [silent, says(dns.rcode.REFUSED)])
def test_a_parent_that_does_not_answer_leaves_the_look_incomplete(kind, lie):
    at = parents("asso.test", one=(("ns.example",), ()), two=(("ns.example",), ()))
    at[PARENT2].lie("asso", kind, lie)
    with serving(at) as port:
        seen = dns_at(port).delegation("asso.test")
    assert not seen.complete
    assert [bool(answer.error) for answer in seen.answers] == [False, True]
    assert PARENT2 in seen.answers[1].error


def test_a_parent_that_is_not_one_leaves_the_look_incomplete():
    at = parents("asso.test", one=(("ns.example",), ()), two=(("ns.example",), ()))
    at[PARENT].lie("asso", "DS", gives(authoritative=False))
    with serving(at) as port:
        seen = dns_at(port).delegation("asso.test")
    assert "not authoritative" in seen.answers[0].error


def test_a_silent_resolver_is_said():
    with serving({RESOLVER: lambda *_: None}) as port, pytest.raises(WorldError, match=r"asso\.test") as caught:
        dns_at(port).delegation("asso.test")
    assert caught.value.retry
    assert caught.value.landed is False


def test_servers_say_serial_keys_and_ttls():
    at = {OLD: Authority(ZONE, keys=[KEY]), NEW: Authority(ZONE)}
    at[NEW].put("@", "MX", 300, "10 mx.example.")
    with serving(at) as port:
        old, new = dns_at(port).servers("asso.test", [OLD, NEW], list(ZONE.rrsets.values()))
    assert (old.authoritative, old.serial, old.signed, old.error) == (True, 7, True, "")
    assert (old.ns_ttl, old.key_ttl, new.key_ttl) == (300, 300, 0)
    assert old.ttls == {"@/A": 3600, "@/MX": 3600, "@/TXT": 3600, "www/CNAME": 3600}
    assert not new.signed
    assert new.ttls["@/MX"] == 300


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (says(dns.rcode.REFUSED), "does not serve the zone (REFUSED)"),
        (gives(rrset("asso.test", 1, "SOA", "a. b. 1 1 1 1 1"), authoritative=False), "does not serve"),
        (silent, "no answer"),
    ],
)
def test_a_server_that_does_not_serve_the_zone_says_why(lie, error):
    server = Authority(ZONE)
    server.lie("@", "SOA", lie)
    with serving({OLD: server}) as port:
        (seen,) = dns_at(port).servers("asso.test", [OLD])
    assert not seen.authoritative
    assert error in seen.error


@pytest.mark.parametrize("kind", ["MX", "NS", "DNSKEY"])
def test_a_silence_after_the_soa_is_an_error_too(kind):
    server = Authority(ZONE)
    server.lie("@", kind, silent)
    with serving({OLD: server}) as port:
        (seen,) = dns_at(port).servers("asso.test", [OLD], [ZONE.rrsets["@", "MX"]])
    assert seen.error


def test_a_server_that_nobody_knows_is_an_error():
    with serving({RESOLVER: Authority(ZONE)}) as port:
        (seen,) = dns_at(port).servers("asso.test", ["ns9.asso.test"])
    assert "no address" in seen.error


def test_no_server_is_asked_faster_than_the_limit(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(round(seconds, 6))

    monkeypatch.setattr(ours.asyncio, "sleep", sleep)
    monkeypatch.setattr(ours.time, "monotonic", lambda: 100.0)
    asker = ours._Asker(1, 1, 20.0, 53, 4)

    async def turns():
        for address in (OLD, OLD, NEW, OLD):
            await asker._turn(address)

    asyncio.run(turns())
    assert waits == [0, 0.05, 0, 0.1]


def test_the_tally_is_that_of_what_the_probe_wrote(tmp_path):
    store = LocalStore(tmp_path)
    at = "2026-11-22T10:00:00+00:00"
    span = {"probe": "1", "at": at, "until": at}
    seen = {"check": "a", "looks": 3, "answer": ""}
    lines = [{**span, "line": 1, "pause": 0, "unproven": []}, {**span, "line": 2, **seen}]
    store.add("asso.test", DOCUMENT, "".join(json.dumps(line) + "\n" for line in lines))
    dns_ = LiveDns([RESOLVER], probes=store)
    assert dns_.tally("asso.test").total == 3
    assert dns_.tally("other.test") is None
    assert LiveDns([RESOLVER]).tally("asso.test") is None
