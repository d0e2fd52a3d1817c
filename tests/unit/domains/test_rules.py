# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule of rules.yml, by what becomes of an entry that it is about, and of its neighbour that it leaves alone."""

import pytest

from infini.domains.plan import Options, make_plan
from infini.domains.reading import from_livedns
from infini.domains.rules import Rule, rules

ZONE = "asso.example"
GO_ON = [{"host": "asso.example", "type": "http301"}, {"host": "www.asso.example", "type": "http302"}]
FRAMED = [{"host": "asso.example", "type": "cloak"}]
WEB = ("192.0.2.9", "2001:db8::9")
INFINI = Options(
    mail_mode="infini",
    mail_exchangers=("10 mx.infini.example.",),
    mail_host="mail.infini.example",
    spf="include:_spf.infini.example",
)
SHA = "ab" * 32


def decide(name, kind, *values, options=None, redirections=(), others=(), ttl=300):
    entries = [(name, kind, values), *others]
    zone = from_livedns(
        ZONE,
        [{"rrset_name": n, "rrset_type": k, "rrset_ttl": ttl, "rrset_values": list(v)} for n, k, v in entries],
    )
    plan = make_plan(zone, redirections, options or Options())
    assert plan.balanced
    [outcome] = [outcome for outcome in plan.outcomes if outcome.key == (name, kind)]
    return outcome, plan


# rule, entry (name, type, values), options, redirections, other entries, what, values after (or code)
CASES = [
    ("ttl-floor", ("www", "A", ["192.0.2.1"]), Options(minimum_ttl=3600), (), (), "rewritten", ("192.0.2.1",)),
    ("soa", ("@", "SOA", ["a. b. 1 2 3 4 5"]), None, (), (), "dropped", None),
    ("apex-ns", ("@", "NS", ["ns-1-a.gandi.net."]), None, (), (), "dropped", None),
    ("foreign-cds", ("@", "CDS", [f"1 13 2 {SHA}"]), None, (), (), "dropped", None),
    ("foreign-signatures", ("@", "DNSKEY", ["257 3 13 AAAA"]), None, (), (), "dropped", None),
    ("apex-ds", ("@", "DS", [f"1 13 2 {SHA}"]), None, (), (), "dropped", None),
    ("parking", ("@", "A", ["217.70.184.38"]), None, (), (), "dropped", None),
    ("parking", ("www", "CNAME", ["webredir.vip.gandi.net."]), None, (), (), "dropped", None),
    ("parking", ("@", "ALIAS", ["webredir.gandi.net."]), None, (), (), "dropped", None),
    ("redirection", ("@", "A", ["217.70.184.38"]), Options(web_addresses=WEB), GO_ON, (), "rewritten", ("192.0.2.9",)),
    (
        "redirection",
        ("www", "CNAME", ["webredir.vip.gandi.net."]),
        Options(web_addresses=WEB),
        GO_ON,
        (),
        "rewritten",
        ("192.0.2.9",),
    ),
    (
        "redirection",
        ("*", "CNAME", ["webredir.vip.gandi.net."]),
        Options(web_addresses=WEB),
        GO_ON,
        (),
        "rewritten",
        ("192.0.2.9",),
    ),
    (
        "redirection",
        ("@", "A", ["217.70.184.38"]),
        Options(web_addresses=WEB[1:]),
        GO_ON,
        (),
        "rewritten",
        ("2001:db8::9",),
    ),
    (
        "redirection",
        ("@", "A", ["217.70.184.38"]),
        Options(web_addresses=WEB, redirections={"asso.example": True}),
        FRAMED,
        (),
        "rewritten",
        ("192.0.2.9",),
    ),
    (
        "redirection-framed",
        ("@", "A", ["217.70.184.38"]),
        Options(web_addresses=WEB),
        FRAMED,
        (),
        "blocked",
        "redirection-framed",
    ),
    (
        "redirection-framed",
        ("@", "A", ["217.70.184.38"]),
        Options(web_addresses=WEB, redirections={"asso.example": False}),
        FRAMED,
        (),
        "blocked",
        "redirection-framed",
    ),
    (
        "redirection-framed",
        ("*", "CNAME", ["webredir.gandi.net."]),
        Options(web_addresses=WEB),
        [{"host": "x.asso.example", "type": "cloak"}],
        (),
        "blocked",
        "redirection-framed",
    ),
    ("redirection-homeless", ("@", "A", ["217.70.184.38"]), None, GO_ON, (), "blocked", "web-address-missing"),
    (
        "alias-known",
        ("@", "ALIAS", ["Front.infini.example."]),
        Options(alias_addresses={"front.infini.example": WEB}),
        (),
        (),
        "rewritten",
        ("192.0.2.9",),
    ),
    (
        "alias",
        ("@", "ALIAS", ["elsewhere.example."]),
        Options(alias_addresses={"front.infini.example": WEB}),
        (),
        (),
        "blocked",
        "alias",
    ),
    ("cname-at-apex", ("@", "CNAME", ["elsewhere.example."]), None, (), (), "blocked", "cname-at-apex"),
    ("unreadable", ("x", "TXT", ['"open']), None, (), (), "blocked", "unreadable-record"),
    ("unreadable", ("x", "A", ["217.70.184.38", "nowhere"]), None, (), (), "blocked", "unreadable-record"),
    (
        "cname-and-other-data",
        ("x", "CNAME", ["y.example."]),
        None,
        (),
        [("x", "TXT", ['"a"'])],
        "blocked",
        "cname-and-other-data",
    ),
    ("one-value-only", ("x", "CNAME", ["y.example.", "z.example."]), None, (), (), "blocked", "several-targets"),
    ("below-dname", ("a.x", "A", ["192.0.2.1"]), None, (), [("x", "DNAME", ["y.example."])], "blocked", "below-dname"),
    ("name-dot-missing", ("@", "MX", ["10 spool.mail.gandi.net"]), None, (), (), "blocked", "name-dot-missing"),
    ("name-dot-missing", ("x", "CNAME", ["www.asso.example"]), None, (), (), "blocked", "name-dot-missing"),
    ("stale-acme", ("_acme-challenge.www", "TXT", ['"abc"']), None, (), (), "dropped", None),
    ("stale-dcv", ("_0a1b", "CNAME", ["2c3d.comodoca.com."]), None, (), (), "dropped", None),
    ("caa-forbids", ("@", "CAA", ['0 issue ";"']), None, (), (), "blocked", "caa-forbids"),
    (
        "caa",
        ("@", "CAA", ['0 issue "sectigo.com"']),
        None,
        (),
        (),
        "rewritten",
        ('0 issue "letsencrypt.org"', '0 issue "sectigo.com"'),
    ),
    (
        "caa",
        ("@", "CAA", ['0 issue "letsencrypt.org; accounturi=https://a.example/1"']),
        None,
        (),
        (),
        "rewritten",
        ('0 issue "letsencrypt.org"', '0 issue "letsencrypt.org; accounturi=https://a.example/1"'),
    ),
    (
        "mx-to-infini",
        ("@", "MX", ["10 spool.mail.gandi.net.", "50 fb.mail.gandi.net."]),
        INFINI,
        (),
        (),
        "rewritten",
        ("10 mx.infini.example.",),
    ),
    (
        "mx-to-infini",
        ("@", "MX", ["10 spool.mail.gandi.net.", "90 backup.example."]),
        INFINI,
        (),
        (),
        "rewritten",
        ("10 mx.infini.example.", "90 backup.example."),
    ),
    ("mx-unused", ("@", "MX", ["10 spool.mail.gandi.net."]), Options(mail_mode="none"), (), (), "dropped", None),
    (
        "mx-unused",
        ("@", "MX", ["10 spool.mail.gandi.net.", "90 backup.example."]),
        Options(mail_mode="none"),
        (),
        (),
        "rewritten",
        ("90 backup.example.",),
    ),
    (
        "mail-at-gandi",
        ("@", "MX", ["10 spool.mail.gandi.net."]),
        Options(mail_mode="external"),
        (),
        (),
        "blocked",
        "mail-at-gandi",
    ),
    (
        "mail-at-gandi",
        ("@", "MX", ["10 spool.mail.gandi.net."]),
        Options(mail_mode="infini"),
        (),
        (),
        "blocked",
        "mail-at-gandi",
    ),
    (
        "spf",
        ("@", "TXT", ['"v=spf1 include:_mailcust.gandi.net ?all"', '"other"']),
        INFINI,
        (),
        (),
        "rewritten",
        ('"other"', '"v=spf1 include:_spf.infini.example ?all"'),
    ),
    (
        "spf",
        ("@", "TXT", ['"v=spf1 a ?include:_mail" "cust.gandi.net -all"']),
        None,
        (),
        (),
        "rewritten",
        ('"v=spf1 a -all"',),
    ),
    ("spf", ("@", "SPF", ['"v=spf1 redirect=_mailcust.gandi.net"']), None, (), (), "rewritten", ('"v=spf1 ?all"',)),
    ("dkim", ("gm1._domainkey", "CNAME", ["gm1.gandimail.net."]), None, (), (), "dropped", None),
    ("mail-srv", ("_imaps._tcp", "SRV", ["0 1 993 mail.gandi.net."]), None, (), (), "dropped", None),
    (
        "mail-names",
        ("webmail", "CNAME", ["webmail.gandi.net."]),
        INFINI,
        (),
        (),
        "rewritten",
        ("mail.infini.example.",),
    ),
    (
        "mail-names",
        ("smtp", "CNAME", ["relay.mail.gandi.net."]),
        INFINI,
        (),
        (),
        "rewritten",
        ("mail.infini.example.",),
    ),
    ("mail-names-unused", ("imap", "CNAME", ["access.mail.gandi.net."]), None, (), (), "dropped", None),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}-{case[1][1]}-{at}" for at, case in enumerate(CASES)])
def test_each_rule_does_what_it_says(case):
    rule, (name, kind, values), options, redirections, others, what, result = case
    outcome, plan = decide(name, kind, *values, options=options, redirections=redirections, others=others)
    assert (outcome.what, outcome.rule) == (what, rule)
    assert outcome.reason
    if what == "rewritten":
        assert outcome.after.values == result
    else:
        assert outcome.after is None
        assert outcome.code == (result or "")
    assert plan.applicable is (what != "blocked")


def test_every_rule_has_its_case():
    assert {case[0] for case in CASES} | {"mail-stays"} == {rule.id for rule in rules()}


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("@", "MX", "10 spool.mail.gandi.net."),
        ("@", "TXT", '"v=spf1 include:_mailcust.gandi.net ?all"'),
        ("gm1._domainkey", "CNAME", "gm1.gandimail.net."),
        ("_imaps._tcp", "SRV", "0 1 993 mail.gandi.net."),
        ("webmail", "CNAME", "webmail.gandi.net."),
        ("imap", "CNAME", "access.mail.gandi.net."),
    ],
)
def test_mail_stays_as_it_is_when_the_member_wants_it_to(name, kind, value):
    """The rule `mail-stays`."""
    assert decide(name, kind, value, options=Options(mail_mode="gandi"))[0].what == "identical"
    assert decide(name, kind, value, options=Options(mail_mode="external"))[0].what != "identical"


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("x", "NS", "ns.example."),
        ("x", "DS", f"1 13 2 {SHA}"),
        ("@", "A", "217.70.184.39"),
        ("www", "CNAME", "webredir.vip.gandi.net.example."),
        ("www", "CNAME", "asso.example."),
        ("www", "CNAME", "mail"),
        ("_acme-challenge", "CNAME", "asso.acme-dns.example."),
        ("@", "TXT", '"v=spf1 include:_spf.example.com ~all"'),
        ("@", "MX", "10 mx.spool.mail.gandi.net.example."),
        ("@", "CAA", '0 issue "letsencrypt.org"'),
        ("@", "CAA", '0 issuewild ";"'),
        ("@", "CAA", '0 iodef "mailto:a@asso.example"'),
        ("_imap._tcp", "SRV", "0 0 0 ."),
        ("x", "KEY", "512 3 8 AwEAAaz/tAm8"),
    ],
)
def test_what_no_rule_is_about_is_carried_as_it_is(name, kind, value):
    outcome, plan = decide(name, kind, value)
    assert (outcome.what, outcome.rule) == ("identical", "")
    assert plan.zone.rrsets[name, kind] == plan.export.rrsets[name, kind]


def test_a_doubled_name_that_exists_is_meant():
    others = [("spool.mail.gandi.net", "A", ["192.0.2.1"])]
    assert decide("@", "MX", "10 spool.mail.gandi.net", others=others)[0].what == "identical"


def test_a_redirection_gets_both_address_families():
    _, plan = decide("@", "A", "217.70.184.38", options=Options(web_addresses=WEB), redirections=GO_ON)
    assert [str(rrset) for rrset in plan.added] == ["@ 300 AAAA 2001:db8::9"]
    assert plan.zone.rrsets.keys() == {("@", "A"), ("@", "AAAA")}


def test_new_addresses_never_hide_others():
    options = Options(web_addresses=WEB)
    others = [("@", "AAAA", ["2001:db8::1"])]
    outcome, plan = decide("@", "A", "217.70.184.38", options=options, redirections=GO_ON, others=others)
    assert (outcome.what, outcome.code) == ("blocked", "addresses-mixed")
    assert plan.balanced
    assert plan.added == ()
    assert plan.zone.rrsets["@", "AAAA"].values == ("2001:db8::1",)


def test_an_alias_without_readable_ttl_gets_the_shortest_one():
    options = Options(alias_addresses={"front.example": WEB})
    outcome, _ = decide("@", "ALIAS", "front.example.", options=options, ttl="?")
    assert outcome.after.ttl == 300


def test_what_cannot_be_read_is_never_dropped_for_its_looks():
    outcome, _ = decide("@", "A", "217.70.184.38", ttl="?")
    assert (outcome.what, outcome.rule) == ("blocked", "unreadable")


def test_a_redirection_below_a_wildcard_that_has_a_name_of_its_own_is_not_the_wildcards():
    others = [("www", "A", ["192.0.2.1"])]
    www = [{"host": "www.asso.example", "type": "http301"}]
    assert decide("*", "CNAME", "webredir.gandi.net.", redirections=www, others=others)[0].rule == "parking"


@pytest.mark.parametrize(
    "row",
    [
        {"id": "x", "action": "drop", "reason": "r", "source": "s", "when": ["nonsense"]},
        {"id": "x", "action": "rewrite", "reason": "r", "source": "s", "to": "nonsense"},
        {"id": "x", "action": "drop", "reason": "r", "source": "s", "to": "spf"},
        {"id": "x", "action": "block", "reason": "r", "source": "s"},
    ],
)
def test_a_rule_that_no_code_understands_is_refused(row):
    with pytest.raises(ValueError, match="cannot work"):
        Rule.of(row)
