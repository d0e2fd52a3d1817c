# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from infini.domains.audit import _MENDS, audit, contradictions
from infini.domains.observed import Delegation, DomainFacts, Export, ParentAnswer
from infini.domains.plan import Options, make_plan
from infini.domains.reading import from_livedns
from infini.domains.registries import rule_for
from infini.domains.rules import rules

NAME = "asso.example"
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
GANDI = frozenset({"ns-12-a.gandi.net", "ns-7-b.gandi.net", "ns-201-c.gandi.net"})
FACTS = DomainFacts(NAME, expires=NOW + timedelta(days=200), created=NOW - timedelta(days=900))
SITE = {"rrset_name": "@", "rrset_type": "A", "rrset_ttl": 10800, "rrset_values": ["192.0.2.1"]}
TEXT = "@ 10800 IN A 192.0.2.1\n"


def record(name, kind, *values, ttl=10800):
    return {"rrset_name": name, "rrset_type": kind, "rrset_ttl": ttl, "rrset_values": list(values)}


def parent(nameservers=GANDI, ds=(), error=""):
    return Delegation(NAME, (ParentAnswer("a.nic.example", nameservers, frozenset(ds), 3600, 3600, error),))


def look(*records, options=None, facts=FACTS, delegation=None, rule="fr", now=NOW, text=TEXT, **export):
    """Return the findings about a domain with a site, and these records beside it."""
    entries = (SITE, *records)
    taken = Export(NAME, now, entries, text if not records else "", "0" * 64, **export)
    plan = make_plan(from_livedns(NAME, entries), taken.redirections, options or Options())
    return audit(taken, plan, facts, delegation, rule_for(f"x.{rule}"), now, contradictions(taken, plan.export))


def found(code, findings):
    return next((finding for finding in findings if finding.code == code), None)


def test_an_ordinary_domain_has_nothing_to_say():
    assert look(delegation=parent()) == []
    assert look() == []


CASES = {
    "alias": ("block", {"records": [record("@", "ALIAS", "front.example.")]}),
    "cname-at-apex": ("block", {"records": [record("@", "CNAME", "front.example.")]}),
    "unreadable-record": ("block", {"records": [record("x", "TXT", '"open')]}),
    "caa-forbids": ("block", {"records": [record("@", "CAA", '0 issue ";"')]}),
    "name-dot-missing": ("block", {"records": [record("@", "MX", "10 mx.example.com")]}),
    "redirection-framed": (
        "block",
        {
            "records": [record("www", "CNAME", "webredir.gandi.net.")],
            "redirections": ({"host": f"www.{NAME}", "type": "cloak", "url": "http://x.example/"},),
        },
    ),
    "redirection-wildcard": (
        "block",
        {"redirections": ({"host": f"*.{NAME}", "type": "http301", "url": "http://x.example/"},)},
    ),
    "redirection-unclear": (
        "block",
        {"redirections": ({"host": f"www.{NAME}", "type": "http301", "url": "x.example"},)},
    ),
    "mail-at-gandi": ("block", {"records": [record("@", "MX", "10 spool.mail.gandi.net.")]}),
    "zone-drifted": ("block", {"text": "@ 10800 IN A 192.0.2.2\n"}),
    "expires-soon": ("block", {"facts": replace(FACTS, expires=NOW + timedelta(days=20))}),
    "expires-within-60-days": ("warn", {"facts": replace(FACTS, expires=NOW + timedelta(days=59))}),
    "auto-renew-off": ("warn", {"facts": replace(FACTS, expires=NOW + timedelta(days=80), auto_renew=False)}),
    "locked-60-days": ("block", {"facts": replace(FACTS, created=NOW - timedelta(days=20)), "rule": "org"}),
    "on-hold": ("block", {"facts": replace(FACTS, statuses=("client hold",))}),
    "locked-by-registry": ("warn", {"facts": replace(FACTS, statuses=("serverTransferProhibited",))}),
    "registry-rule-old": (
        "warn",
        {"now": NOW + timedelta(days=400), "facts": replace(FACTS, expires=NOW + timedelta(days=700))},
    ),
    "glue-in-use": ("block", {"glue": ({"name": "ns1", "ips": ["192.0.2.53"]},)}),
    "parent-silent": ("warn", {"delegation": parent(error="timeout")}),
    "ds-left": ("warn", {"delegation": parent(ds=["1 13 2 ab"])}),
    "served-elsewhere": (
        "block",
        {
            "delegation": parent(frozenset({"ns.elsewhere.example"})),
            "options": Options(our_nameservers=("ns1.infini.example",)),
        },
    ),
    "wildcard-mail-alias": ("block", {"forwards": ({"source": "*"},), "options": Options(mail_mode="infini")}),
    "mail-to-copy": ("note", {"mailboxes": ("a@asso.example",), "options": Options(mail_mode="infini")}),
    "mail-abandoned": ("warn", {"mailboxes": ("a@asso.example",)}),
    "redirection-to-create": (
        "note",
        {
            "records": [record("www", "CNAME", "webredir.gandi.net.")],
            "redirections": ({"host": f"www.{NAME}", "type": "http301", "url": "http://x.example/"},),
            "options": Options(web_addresses=("192.0.2.9",)),
        },
    ),
    "redirection-unused": (
        "note",
        {"redirections": ({"host": f"old.{NAME}", "type": "http301", "url": "http://x.example/"},)},
    ),
    "wildcard": ("note", {"records": [record("*", "A", "192.0.2.1")]}),
    "wildcard-shows-through": (
        "warn",
        {"records": [record("*", "A", "192.0.2.1"), record("webmail", "CNAME", "webmail.gandi.net.")]},
    ),
    "target-is-cname": ("warn", {"records": [record("@", "MX", "10 mx"), record("mx", "CNAME", "mx.example.")]}),
    "target-missing": ("warn", {"records": [record("@", "MX", "10 mx")]}),
    "hosting-at-gandi": ("warn", {"records": [record("www", "CNAME", "abc.ghst.net.")]}),
    "ttl-raised": ("note", {"options": Options(minimum_ttl=86400)}),
    "caa-extended": ("note", {"records": [record("@", "CAA", '0 issue "sectigo.com"')]}),
    "child-delegation": ("note", {"records": [record("sub", "NS", "ns.example.")]}),
    "idn": ("note", {"facts": replace(FACTS, name_unicode="assô.example")}),
}


@pytest.mark.parametrize("code", CASES)
def test_each_pitfall_is_said_with_its_mend(code):
    severity, given = CASES[code]
    findings = look(*given.get("records", ()), **{key: value for key, value in given.items() if key != "records"})
    finding = found(code, findings)
    assert finding, findings
    assert finding.severity == severity
    assert finding.says.endswith((".", "!"))
    assert finding.mend.endswith(".")
    assert len([other for other in findings if other.code == code]) == 1


def test_an_empty_zone_is_not_moved():
    export = Export(NAME, NOW, (), "", "0" * 64)
    plan = make_plan(from_livedns(NAME, [record("@", "NS", "ns-1-a.gandi.net.")]), (), Options())
    assert found("zone-empty", audit(export, plan, FACTS, None, rule_for("x.fr"), NOW, ())).severity == "block"


def test_a_plan_that_does_not_add_up_blocks():
    export = Export(NAME, NOW, (SITE,), "", "0" * 64)
    plan = replace(make_plan(from_livedns(NAME, [SITE]), (), Options()), outcomes=())
    assert found("unaccounted", audit(export, plan, FACTS, None, rule_for("x.fr"), NOW, ())).severity == "block"


@pytest.mark.parametrize(
    ("left", "code"), [(29, "expires-soon"), (30, "expires-within-60-days"), (-3, "expires-soon"), (60, None)]
)
def test_expiry_is_counted_in_whole_days(left, code):
    findings = look(facts=replace(FACTS, expires=NOW + timedelta(days=left, hours=1)))
    assert [finding.code for finding in findings] == ([code] if code else [])


def test_sixty_days_hold_where_the_registry_says_so_only():
    young = replace(FACTS, created=NOW - timedelta(days=60, hours=-1))
    assert found("locked-60-days", look(facts=young, rule="bzh"))
    assert not found("locked-60-days", look(facts=young, rule="fr"))
    assert not found("locked-60-days", look(facts=replace(FACTS, created=NOW - timedelta(days=60)), rule="bzh"))


def test_mail_that_stays_is_said_but_does_not_stop_the_dns():
    findings = look(
        record("@", "MX", "10 spool.mail.gandi.net."),
        options=Options(mail_mode="gandi"),
        mailboxes=("a@asso.example",),
    )
    assert found("mail-at-gandi", findings).severity == "warn"


def test_our_own_servers_are_not_elsewhere():
    ours = Options(our_nameservers=("NS1.infini.example.",))
    assert look(delegation=parent(frozenset({"ns1.infini.example"})), options=ours) == []
    assert look(delegation=parent(frozenset({"a.dns.gandi.net"})), options=ours) == []
    fake = parent(frozenset({"ns-1-a.gandi.net.example"}))
    assert found("served-elsewhere", look(delegation=fake, options=ours)).severity == "block"


def test_what_is_below_a_delegation_or_a_wildcard_is_not_missing():
    below = [record("sub", "NS", "ns.sub"), record("ns.sub", "A", "192.0.2.1"), record("a", "CNAME", "x.sub")]
    assert not found("target-missing", look(*below))
    wild = [record("*.w", "A", "192.0.2.1"), record("a", "CNAME", "x.w"), record("b", "CNAME", "@")]
    assert not found("target-missing", look(*wild))


def test_a_redirection_under_a_wildcard_is_one_to_create():
    findings = look(
        record("*", "CNAME", "webredir.gandi.net."),
        redirections=({"host": f"fete.{NAME}", "type": "http302", "url": "https://x.example/"},),
        options=Options(web_addresses=("192.0.2.9",)),
    )
    assert found("redirection-to-create", findings)
    assert not found("redirection-unused", findings)


def test_the_blocking_ones_come_first():
    findings = look(record("*", "A", "192.0.2.1"), record("@", "MX", "10 mx"), record("@", "ALIAS", "front.example."))
    order = [finding.severity for finding in findings]
    assert order == sorted(order, key=["block", "warn", "note"].index)
    assert order[0] == "block"


def test_every_reason_to_block_has_a_mend():
    assert {rule.code for rule in rules() if rule.code} | {"addresses-mixed"} == set(_MENDS)
