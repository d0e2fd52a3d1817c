# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of the `alternc_*` modules: what it does, what it refuses, and that it arrives."""

from __future__ import annotations

import alternc_world as world
import pytest
from ansible.module_utils.hosting import alternc_kinds as kinds
from ansible.module_utils.hosting.alternc_data import Panel, parse, quota_rows
from ansible.module_utils.hosting.alternc_export import export
from ansible.module_utils.hosting.alternc_sets import SetError, Wishes, apply, diff, passwords, plan, policy_problem
from ansible.module_utils.hosting.brake import UnsafePlanError
from hypothesis import given
from hypothesis import strategies as st

PANEL = parse(world.answer())
ALL = Wishes(ignore=kinds.FAMILIES)


def a_member(login, **cells):
    base = {"login": login, "name": "", "first_name": "", "mail": "", "profile": "default", "enabled": True}
    return {**base, "admin": False, "notes": "", "duration": 0, **cells}


def a_domain(name, member="velo", **cells):
    return {"name": name, "member": member, "dns": True, "mail": True, "ttl": 3600, "keep": False, **cells}


def a_sub(domain, sub, kind, value="", **cells):
    return {"domain": domain, "sub": sub, "type": kind, "value": value, "https": "", "enabled": True, **cells}


def a_box(address, **cells):
    base = {"address": address, "mailbox": False, "quota_mb": 0, "enabled": True, "forwards": []}
    return {**base, **cells}


def an_ftp(name, member="velo", **cells):
    return {"name": name, "member": member, "directory": "/", "enabled": True, **cells}


def now(kind):
    return [dict(row) for row in PANEL.rows(kind)]


def steps(kind, wanted, wishes=ALL, panel=PANEL):
    return [(step.verb, step.key) for step in plan(kind, wanted, panel, wishes).steps]


def refusal(kind, wanted, wishes=ALL, panel=PANEL):
    with pytest.raises(SetError) as error:
        plan(kind, wanted, panel, wishes)
    return str(error.value)


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.name)
def test_what_is_there_is_what_is_wanted(kind):
    assert not plan(kind, now(kind.name), PANEL, Wishes()).changed


def test_an_export_is_reached_already():
    data = export(PANEL)
    databases = data.pop("databases")
    flat = {**data, "databases": databases["databases"], "database_users": databases["users"]}
    flat["variables"] = [{"name": name, "value": value} for name, value in data["variables"].items()]
    flat["quotas"] = quota_rows(**data["quotas"])[0]
    for kind in kinds.KINDS:
        wishes = Wishes(prune=kind.name not in ("variables", "quotas", "domain_types"))
        assert not plan(kind, flat[kind.name], PANEL, wishes).changed, kind.name


# --- What is no longer declared ---


def test_a_member_no_longer_declared_is_shut_and_admin_left_alone():
    assert steps(kinds.MEMBERS, now("members")[1:2]) == [("shut", "chorale")]
    assert steps(kinds.MEMBERS, now("members")[1:2], Wishes(remove=["chorale"])) == [("remove", "chorale")]
    assert steps(kinds.MEMBERS, now("members")[1:2], Wishes(prune=False)) == []


def test_a_shut_member_is_not_shut_again():
    panel = apply(PANEL, [plan(kinds.MEMBERS, now("members")[1:2], PANEL)])
    assert not plan(kinds.MEMBERS, now("members")[1:2], panel).changed


def test_boxes_are_shut_and_forwards_removed():
    assert steps(kinds.MAILBOXES, []) == [("remove", "bureau@velo.fr"), ("shut", "contact@velo.fr")]


def test_a_box_with_mails_does_not_become_a_forward_by_the_way():
    wanted = [a_box("contact@velo.fr", forwards=["a@b.fr"]), now("mailboxes")[1]]
    assert "would lose its mails" in refusal(kinds.MAILBOXES, wanted)
    confirmed = Wishes(confirmed=["contact@velo.fr"])
    assert steps(kinds.MAILBOXES, wanted, confirmed) == [("change", "contact@velo.fr")]


def test_databases_are_kept_and_said():
    todo = plan(kinds.DATABASES, [], PANEL)
    assert not todo.changed
    assert todo.kept == ("velo",)
    assert steps(kinds.DATABASES, [], Wishes(remove=["velo"])) == [("remove", "velo")]


def test_the_user_alternc_makes_with_a_database_need_not_be_declared():
    assert steps(kinds.DATABASE_USERS, []) == []


def test_a_domain_with_mailboxes_does_not_go_by_a_forgotten_line():
    assert "holds 1 mailboxes" in refusal(kinds.DOMAINS, now("domains")[1:])
    assert steps(kinds.DOMAINS, now("domains")[1:], Wishes(remove=["velo.fr"])) == [("remove", "velo.fr")]
    assert steps(kinds.DOMAINS, now("domains")[:1]) == [("remove", "chorale.fr")]


def test_a_set_owns_the_domains_it_names_and_alternc_rows_only_where_it_says():
    www = a_sub("velo.fr", "www", "vhost", "/www/velofr")
    assert steps(kinds.SUBDOMAINS, [www]) == [("remove", "velo.fr")]
    everything = [("remove", key) for key in ("velo.fr", "velo.fr defmx", "velo.fr txt v=spf1 a mx ?all")]
    assert steps(kinds.SUBDOMAINS, [www], Wishes(confirmed=[key for _verb, key in everything])) == everything


def test_declaring_one_of_a_family_owns_it():
    own = a_sub("velo.fr", "", "txt", "v=spf1 -all")
    done = steps(kinds.SUBDOMAINS, [*now("subdomains")[:3], own])
    assert done == [("remove", "velo.fr txt v=spf1 a mx ?all"), ("create", "velo.fr txt v=spf1 -all")]


def test_a_scope_owns_its_members_things_and_refuses_others():
    assert steps(kinds.DOMAINS, now("domains")[:1], Wishes(scope=["velo"])) == []
    assert "not in scope" in refusal(kinds.DOMAINS, now("domains"), Wishes(scope=["velo"]))
    assert steps(kinds.MAILBOXES, [], Wishes(scope=["chorale"])) == []


def test_the_brake_wants_many_confirmed_by_name():
    them = [world.member(2000 + i, f"asso{i}") for i in range(20)]
    panel = parse(world.answer([*them, world.row("defaults", profile="default", quota="dom", value=1)]))
    kept = [a_member(f"asso{i}") for i in range(10)]
    with pytest.raises(UnsafePlanError, match="10 of 20 members would be shut at once"):
        plan(kinds.MEMBERS, kept, panel)
    confirmed = [f"asso{i}" for i in range(10, 20)]
    assert len(plan(kinds.MEMBERS, kept, panel, Wishes(confirmed=confirmed)).named("shut")) == 10
    boxes = [world.box(number, f"un{number}", "velo.fr", mailbox=number % 2) for number in range(12)]
    panel = parse(world.answer([world.member(2001, "velo"), world.domain("velo.fr", 2001), *boxes]))
    with pytest.raises(UnsafePlanError, match="12 of 12 mail addresses would be removed or shut at once"):
        plan(kinds.MAILBOXES, [], panel)


# --- What changes ---


def test_one_change_is_one_step():
    wanted = [{**row, "ttl": 600} if row["name"] == "velo.fr" else row for row in now("domains")]
    todo = plan(kinds.DOMAINS, wanted, PANEL)
    assert [step.call()["do"] for step in todo.steps] == ["domain.change"]
    assert diff([todo])["after"] == "domain velo.fr: member velo, dns yes, mail yes, ttl 600, keep no\n"


def test_a_site_that_changes_its_type_keeps_its_row_and_a_record_its_neighbours():
    rows = [{**row, "type": "php82-fpm"} if row["sub"] == "www" else row for row in now("subdomains")]
    assert steps(kinds.SUBDOMAINS, rows) == [("change", "www.chorale.fr"), ("change", "www.velo.fr")]
    more = [*now("subdomains"), a_sub("velo.fr", "", "txt", "other")]
    assert steps(kinds.SUBDOMAINS, more) == [("create", "velo.fr txt other")]


def test_shut_rows_come_before_the_open_one_of_their_name():
    wanted = [
        *now("subdomains"),
        a_sub("velo.fr", "shop", "vhost", "/www/new", https="both"),
        a_sub("velo.fr", "shop", "url", "https://old.test/", enabled=False),
    ]
    made = [step.want["enabled"] for step in plan(kinds.SUBDOMAINS, wanted, PANEL).steps]
    assert made == [False, True]


def test_a_double_row_is_removed_once():
    panel = parse(
        world.answer([*world.rows(), world.sub("chorale.fr", "www", "vhost", "/www/choralefr", https="both")])
    )
    assert len(plan(kinds.SUBDOMAINS, now("subdomains"), panel).steps) == 1


def test_passwords_are_set_at_creation_and_then_only_on_demand():
    wanted = [{**row, "password": "Xyz9?abcd"} if row["mailbox"] else row for row in now("mailboxes")]
    assert steps(kinds.MAILBOXES, wanted) == []
    assert passwords(kinds.MAILBOXES, wanted, PANEL) == [{"key": "contact@velo.fr", "password": "Xyz9?abcd"}]
    todo = plan(kinds.MAILBOXES, wanted, PANEL, Wishes(always=True))
    assert todo.steps[0].call()["password"] == "Xyz9?abcd"
    assert "(new password)" in diff([todo])["after"]
    assert "Xyz9" not in str(diff([todo])) + repr(todo)
    assert not plan(kinds.MAILBOXES, wanted, PANEL, Wishes(always=True, fits=["contact@velo.fr"])).changed


def test_a_hash_is_compared_as_it_is():
    wanted = [{**row, "password_hash": "{SHA512-CRYPT}$6$a$b"} if row["mailbox"] else row for row in now("mailboxes")]
    assert not plan(kinds.MAILBOXES, wanted, PANEL, Wishes(always=True)).changed


def test_secret_variables_are_not_shown():
    todo = plan(kinds.VARIABLES, [{"name": "lxc_key", "value": "ghijkl"}], PANEL, Wishes(prune=False))
    assert todo.changed
    assert "ghijkl" not in str(diff([todo]))
    assert "abcdef" not in str(diff([todo]))


# --- What is refused, before anything is changed ---


@pytest.mark.parametrize("login", ["Velo", "asso-velo", "a" * 15, "", "root", "mysql", "alternc", "sysusr", "été"])
def test_logins_that_cannot_be(login):
    assert "cannot be a member's login" in refusal(kinds.MEMBERS, [*now("members"), a_member(login)])


@pytest.mark.parametrize(
    ("kind", "wanted", "sentence"),
    [
        (kinds.MEMBERS, [a_member("velo"), a_member("velo")], "member velo is declared twice"),
        (kinds.MEMBERS, [a_member("amap", profile="gold")], "profile gold, which has no quotas"),
        (kinds.MEMBERS, [a_member("amap", mail="nowhere")], "which is none: write name@domain"),
        (kinds.MEMBERS, [a_member("admin", admin=True, enabled=False)], "leave it enabled"),
        (kinds.MEMBERS, [a_member("amap", password="Amap2026amap")], "the login contain one another"),
        (kinds.MEMBERS, [a_member("amap", password_hash="plain")], "is not a hash"),
        (kinds.DOMAINS, [*now("domains"), a_domain("amap.fr", "amap")], "amap, who is no member of this panel"),
        (kinds.DOMAINS, [a_domain("velo.fr", "chorale")], "velo's on this panel and declared for chorale"),
        (kinds.DOMAINS, [*now("domains"), a_domain("partie.fr", "velo")], "still removing it"),
        (kinds.DOMAINS, [*now("domains"), a_domain("velo")], "cannot be a domain"),
        (kinds.DOMAINS, [*now("domains"), a_domain("a.fr"), a_domain("b.fr")], "has 1 domains, may have 2"),
        (kinds.DOMAINS, [{**now("domains")[0], "mail": False}, now("domains")[1]], "would lose the 1 mailboxes"),
        (kinds.SUBDOMAINS, [a_sub("amap.fr", "", "url", "http://a.test")], "amap.fr, which is not on this panel"),
        (kinds.SUBDOMAINS, [a_sub("velo.fr", "x", "php56")], "type php56, which this panel does not have"),
        (kinds.SUBDOMAINS, [a_sub("velo.fr", "x", "ip", "1.2.3")], "write an IPv4 address"),
        (kinds.SUBDOMAINS, [a_sub("velo.fr", "x", "url", "velo")], "write a whole address"),
        (kinds.SUBDOMAINS, [a_sub("velo.fr", "x", "mx", "mx.velo.fr")], "with a dot at its end"),
        (kinds.SUBDOMAINS, [a_sub("velo.fr", "x", "vhost", "/../y")], "write a folder"),
        (kinds.SUBDOMAINS, [a_sub("velo.fr", "", "cname", "a.")], "cannot be a cname"),
        (kinds.SUBDOMAINS, [a_sub("velo.fr", "a b", "txt", "x")], "cannot be a sub-domain"),
        (
            kinds.SUBDOMAINS,
            [a_sub("velo.fr", "x", "vhost", "/a"), a_sub("velo.fr", "x", "url", "http://a.test/")],
            "cannot be url and vhost at once",
        ),
        (
            kinds.SUBDOMAINS,
            [a_sub("velo.fr", "x", "txt", "a"), a_sub("velo.fr", "x", "txt", "a")],
            "is declared twice",
        ),
        (kinds.MAILBOXES, [a_box("a@chorale.fr", mailbox=True)], "chorale.fr, which has no mail here"),
        (kinds.MAILBOXES, [a_box("a@amap.fr", mailbox=True)], "amap.fr, which is not on this panel"),
        (kinds.MAILBOXES, [a_box("contact@velo.fr", mailbox=True, quota_mb=10)], "uses 40 MB"),
        (kinds.MAILBOXES, [a_box("a@velo.fr")], "neither a mailbox nor a forward"),
        (kinds.MAILBOXES, [a_box("a@velo.fr", forwards=["a@velo.fr"])], "forwards to itself"),
        (kinds.MAILBOXES, [a_box("a@velo.fr", forwards=["nobody"])], "which is no mail address"),
        (kinds.MAILBOXES, [a_box("liste@velo.fr", mailbox=True)], "belongs to mailman"),
        (kinds.MAILBOXES, [a_box("@velo.fr", mailbox=True)], "has to be one forward"),
        (kinds.MAILBOXES, [a_box("a+b@velo.fr", mailbox=True)], "gives no mailbox to"),
        (kinds.MAILBOXES, [a_box("a b@velo.fr", mailbox=True)], "cannot be a mail address"),
        (kinds.MAILBOXES, [a_box("a@velo.fr", mailbox=True, password="Ab1")], "fewer than 8 characters"),
        (kinds.MAILBOXES, [a_box("zz@velo.fr", mailbox=True, password="b" * 20)], "mixes fewer than 3"),
        (kinds.MAILBOXES, [a_box(f"b{i}@velo.fr", mailbox=True) for i in range(3)], "has 2 mail addresses, may have 4"),
        (kinds.DATABASES, [{"name": "spip", "member": "velo"}], "cannot be a database of velo"),
        (kinds.DATABASES, [{"name": "velo_b", "member": "velo"}], "has 1 databases, may have 1"),
        (kinds.DATABASES, [{"name": "velo", "member": "chorale"}], "velo's on this panel"),
        (kinds.FTP_ACCOUNTS, [an_ftp("other_x")], "cannot be an FTP account of velo"),
        (kinds.FTP_ACCOUNTS, [an_ftp("velo_x", directory="/a/../..")], "from the member's home down"),
        (kinds.FTP_ACCOUNTS, [an_ftp("velo_x"), an_ftp("velo_y")], "has 1 FTP accounts, may have 2"),
    ],
)
def test_refused_with_one_sentence(kind, wanted, sentence):
    assert sentence in refusal(kind, wanted)


@pytest.mark.parametrize(
    ("defaults", "members", "sentence"),
    [
        ({}, {"velo": {"mail": 1}}, "has 2 of quota mail and may have 1"),
        ({}, {"amap": {"mail": 1}}, "amap, who is no member"),
        ({"default": {"mial": 1}}, {}, "one that AlternC does not count"),
        ({"default": {"mail": -1}}, {}, "0 at least"),
    ],
)
def test_quotas_that_cannot_be(defaults, members, sentence):
    assert sentence in refusal(kinds.QUOTAS, quota_rows(defaults, members)[0], Wishes(prune=False))


def test_a_type_in_use_stays():
    assert "2 sub-domains, which AlternC would never build again" in refusal(
        kinds.DOMAIN_TYPES, [], Wishes(prune=False, remove=["vhost"])
    )


def test_what_has_been_so_for_years_is_not_judged():
    them = [*world.rows(), world.box(9, "old one", "velo.fr"), world.sub("velo.fr", "x", "ip", "not an address")]
    panel = parse(world.answer(them))
    assert not plan(kinds.MAILBOXES, panel.rows("mailboxes"), panel).changed
    assert not plan(kinds.SUBDOMAINS, panel.rows("subdomains"), panel).changed


def test_a_check_on_an_empty_host_says_what_it_would_do():
    wishes = Wishes(fresh=True)
    assert steps(kinds.DOMAINS, [a_domain("velo.fr")], wishes, Panel()) == [("create", "velo.fr")]
    assert steps(kinds.SUBDOMAINS, [a_sub("velo.fr", "", "vhost", "/x")], wishes, Panel()) == [("create", "velo.fr")]
    assert steps(kinds.MAILBOXES, [a_box("a@velo.fr", mailbox=True)], wishes, Panel()) == [("create", "a@velo.fr")]
    assert steps(kinds.FTP_ACCOUNTS, [an_ftp("velo.fr_a")], wishes, Panel()) == [("create", "velo.fr_a")]


def test_users_on_databases_of_others_are_said():
    user = {"name": "velo", "member": "velo", "databases": ["velo", "chorale"]}
    problems = list(kinds.strange_databases([{"name": "velo", "member": "velo"}], [user]))
    assert problems == [
        "database user velo is declared on chorale, which is not declared as velo's: declare that first"
    ]


def test_a_policy_that_is_not_there_yet_is_alternc_own():
    assert policy_problem("x" * 65, "velo", {})
    assert policy_problem("x" * 8, "velo", {}) == ""


# --- It arrives, from anywhere ---

VALUES = {"vhost": ["/www/a", "/www/b"], "url": ["http://a.test/"], "txt": ["a", "v=spf1 -all"], "ip": ["192.0.2.1"]}
ROWS = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.builds(
        a_sub,
        st.sampled_from(["velo.fr", "chorale.fr"]),
        st.sampled_from(["", "www", "x"]),
        st.just(kind),
        st.sampled_from(VALUES[kind]),
        https=st.sampled_from(["", "http", "both"]),
        enabled=st.booleans(),
    )
)
BOXES = st.dictionaries(
    st.sampled_from([f"{local}@velo.fr" for local in "abcdefghijk"]),
    st.builds(dict, mailbox=st.just(True), quota_mb=st.integers(0, 9), enabled=st.booleans(), forwards=st.just([])),
).map(lambda them: [a_box(address, **cells) for address, cells in them.items()])


def sites(rows):
    """Return rows that may stand beside each other: one site or address a name, nothing twice."""
    kept = {}
    for row in rows:
        kept[row["domain"], row["sub"], row["value"] if row["type"] == "txt" else ""] = row
    return list(kept.values())


@given(st.lists(ROWS).map(sites), st.lists(ROWS))
def test_a_plan_of_sub_domains_arrives(wanted, held):
    panel = apply(PANEL, [])
    panel = Panel(
        **{**vars(panel), "sets": {**panel.sets, "subdomains": [kinds.SUBDOMAINS.normal(r, panel) for r in held]}}
    )
    wishes = Wishes(confirmed=list(kinds.SUBDOMAINS.indexed(panel.rows("subdomains"), panel)))
    after = apply(panel, [plan(kinds.SUBDOMAINS, wanted, panel, wishes)])
    assert not plan(kinds.SUBDOMAINS, wanted, after, wishes).changed
    named = {row["domain"] for row in wanted}
    got = [row for row in after.rows("subdomains") if row["domain"] in named]
    assert sorted(map(str, got)) == sorted(str(kinds.SUBDOMAINS.normal(row, panel)) for row in wanted)


@given(BOXES, BOXES)
def test_a_plan_of_mailboxes_arrives_and_loses_no_mail(wanted, held):
    panel = Panel(**{**vars(PANEL), "sets": {**PANEL.sets, "mailboxes": held}, "quotas": {}, "size": {}})
    wishes = Wishes(confirmed=[row["address"] for row in held])
    todo = plan(kinds.MAILBOXES, wanted, panel, wishes)
    after = apply(panel, [todo])
    assert not plan(kinds.MAILBOXES, wanted, after, wishes).changed
    assert not todo.named("remove")
    by_address = after.by("mailboxes", "address")
    assert all(by_address[row["address"]] == row for row in wanted)
    assert all(
        not by_address[row["address"]]["enabled"]
        for row in held
        if row["address"] not in {w["address"] for w in wanted}
    )
