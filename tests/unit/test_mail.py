# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be said of mailboxes and aliases, which lines follow, and that nobody's mail is lost by a plan."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting import mail as model
from hosting.brake import UnsafePlanError
from hosting.mail_plan import (
    DISABLED,
    NO_PASSWORD,
    OPEN,
    UNDECLARED,
    Current,
    MailError,
    Settings,
    User,
    parse,
    plan,
)

HASH = "$6$rounds=20000$abcdefgh$" + "x" * 86
OTHER = "$6$rounds=20000$abcdefgh$" + "y" * 86
SETTINGS = Settings("mx.infini.test", "techs@velo.test")
DOMAINS = ["velo.test", "bourg.test"]
LOCALS = ["ada", "bob", "cleo", "dina"]
ADDRESSES = [f"{local}@{domain}" for domain in DOMAINS for local in LOCALS]
TODAY, TOMORROW = "2026-11-23", "2026-11-24"


def said(mailboxes=(), aliases=(), catch_alls=(), domains=DOMAINS):
    return {
        "domains": [{"name": name} for name in domains],
        "mailboxes": [
            {"address": one, "password_hash": HASH} if isinstance(one, str) else one
            for one in ("techs@velo.test", *mailboxes)
        ],
        "aliases": [{"address": address, "to": list(to)} for address, to in dict(aliases).items()],
        "catch_alls": [{"domain": domain, "to": list(to)} for domain, to in dict(catch_alls).items()],
    }


def planned(wanted, current=None, today=TODAY, confirmed=(*DOMAINS, "infini.test")):
    assert model.problems(wanted, SETTINGS.postmaster) == []
    return plan(model.declared(wanted, "1G"), current or Current(), SETTINGS, today, confirmed)


# --- sentences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (said(["ada@velo.tset"]), r"nobody declares the domain velo.tset: did you mean velo.test\?"),
        (said(["ada@nowhere.test"], domains=["velo.test"]), "nobody declares the domain nowhere.test: add it"),
        (said(["Ada@velo.test"]), "'Ada@velo.test' cannot be a mailbox"),
        (said(["a+b@velo.test"]), "cannot be a mailbox"),
        (said(["a..b@velo.test"]), "cannot be a mailbox"),
        (said(["ada@velo.test\nroot@velo.test"]), "cannot be a mailbox"),
        (said(["a:b@velo.test"]), "cannot be a mailbox"),
        (said(["ada@velo.test", "ada@velo.test"]), "The mailbox ada@velo.test is declared 2 times: keep one"),
        (said(domains=["velo.test", "velo.test"]), "The domain velo.test is declared 2 times"),
        (said(domains=["velo.test", "Bourg.test"]), "'Bourg.test' cannot be a mail domain"),
        (said([{"address": "ada@velo.test", "quota": "5 G"}]), "has the quota 5 G: write an amount such as 500M or 5G"),
        (said([{"address": "ada@velo.test", "quota": "-1G"}]), "has the quota -1G"),
        (said([{"address": "ada@velo.test", "enabled": "perhaps"}]), "has enabled: perhaps"),
        (said(aliases={"ada@velo.test": []}), "The alias ada@velo.test leads nowhere"),
        (said(aliases={"ada@velo.test": ["bob"]}), "The alias ada@velo.test leads to 'bob', which is no address"),
        (said(aliases={"ada@velo.test": ["|rm@velo.test"]}), "which is no address"),
        (said(aliases={"ada@velo.test": ["a@b.test c@d.test"]}), "which is no address"),
        (said(aliases={"ada@velo.test": ["a,b@c.test"]}), "which is no address"),
        (said(aliases={"@velo.test": ["techs@velo.test"]}), "'@velo.test' cannot be an alias"),
        (
            said(aliases={"ada@velo.test": [f"n{n}@example.org" for n in range(1001)]}),
            "leads to 1001 addresses, and Postfix takes 1000: make it a list",
        ),
        (
            said(["ada@velo.test"], aliases={"ada@velo.test": ["x@example.org"]}),
            "ada@velo.test is both a mailbox and an alias, which would keep all mail from the mailbox: add ada@",
        ),
        (
            said(aliases={"ada@velo.test": ["bob@velo.test"], "bob@velo.test": ["ADA@velo.test"]}),
            "The aliases ada@velo.test → bob@velo.test → ada@velo.test lead round in a circle",
        ),
        (said(aliases={"ada@velo.test": ["ada@velo.test"]}), "The aliases ada@velo.test → ada@velo.test lead round"),
        (
            said(aliases={"ada@velo.test": ["bob+x@velo.test"], "bob@velo.test": ["ada@velo.test"]}),
            "ada@velo.test → bob@velo.test → ada@velo.test",
        ),
        (
            said(aliases={"ada@velo.test": ["who@bourg.test"]}, catch_alls={"bourg.test": ["ada@velo.test"]}),
            "ada@velo.test → who@bourg.test → ada@velo.test",
        ),
        (
            said(catch_alls={"velo.test": ["x@bourg.test"], "bourg.test": ["x@velo.test"]}),
            "x@bourg.test → x@velo.test → x@bourg.test",
        ),
        (
            said(catch_alls={"velo.test": ["ada@velo.test"]}),
            "The catch-all of velo.test leads to ada@velo.test, which is itself caught by it",
        ),
        (
            said(catch_alls={"fete.test": ["techs@velo.test"]}),
            "a catch-all of fete.test, but nobody declares this domain",
        ),
        ({**said(), "lists": []}, "lists is not a part of the mail's data"),
        ({**said(), "aliases": {"a": "b"}}, "aliases of the mail's data is not a list"),
        ({**said(), "aliases": [{"address": "a@velo.test", "to": "b@velo.test"}]}, "has no list `to`"),
        ({**said(), "mailboxes": [{"adress": "a@velo.test"}]}, "Entry 1 of mailboxes has no address"),
    ],
)
def test_each_fault_is_one_sentence(wanted, sentence):
    found = model.problems(wanted)
    assert [one for one in found if re.search(sentence, one)], found
    assert len(found) <= 2


@pytest.mark.parametrize("postmaster", ["nobody@velo.test", "techs", "te chs@velo.test"])
def test_a_postmaster_that_nobody_reads_is_refused(postmaster):
    [sentence] = model.problems(said(), postmaster)
    assert sentence.startswith("The postmaster ")


def test_the_addresses_that_every_domain_has_can_be_part_of_a_circle_and_of_a_way():
    circle = said(aliases={"techs2@velo.test": ["abuse@velo.test"]})
    assert model.problems(circle, "techs@velo.test") == model.notices(circle, "techs@velo.test") == []
    [sentence] = model.problems(circle, "techs2@velo.test")
    assert "techs2@velo.test → abuse@velo.test → techs2@velo.test" in sentence


def test_a_quota_for_all_is_judged_and_one_of_a_file_may_be_a_number():
    assert model.problems(said(), "", "5GB") == [
        "Mail has the quota 5GB: write an amount such as 500M or 5G, 0 for no limit."
    ]
    declared = model.declared(said([{"address": "ada@velo.test", "quota": 0}]), "1G")
    assert declared.mailboxes["ada@velo.test"].quota == 0


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("secret", "is not a hash"),
        ("{PLAIN}secret", r"too weak or that we do not know \(PLAIN\)"),
        ("{SSHA}c2VjcmV0", r"\(SSHA\)"),
        ("{MD5-CRYPT}$1$salt$secret", r"\(MD5-CRYPT\)"),
        ("$1$salt$secret", r"\(MD5-CRYPT\)"),
        ("{CRYPT}secret", r"\(CRYPT\)"),
        ("{SHA512-CRYPT}secret", "is not what SHA512-CRYPT makes"),
        (f"{{SHA512-CRYPT}}{HASH[:-1]}", "is not what SHA512-CRYPT makes"),
        (f"{{SHA512-CRYPT}}{HASH}:0:0::/root", "is not what SHA512-CRYPT makes"),
        (f"{{SHA512-CRYPT}}{HASH}\nroot@velo.test:", "is not what"),
        (f"{HASH}\n", "is not a hash"),
        ("{BLF-CRYPT}$2y$05$short", "is not what BLF-CRYPT makes"),
    ],
)
def test_a_weak_or_unknown_hash_is_refused_and_not_shown(password, reason):
    [sentence] = model.problems(said([{"address": "ada@velo.test", "password_hash": password}]))
    assert re.search(f"password_hash of the mailbox ada@velo.test .*{reason}.*doveadm pw", sentence)
    assert "secret" not in sentence


@pytest.mark.parametrize(
    ("password", "kept"),
    [
        ("", ""),
        (HASH, f"{{SHA512-CRYPT}}{HASH}"),
        (f"{{SHA512-CRYPT}}{HASH}", f"{{SHA512-CRYPT}}{HASH}"),
        (f"{{crypt}}{HASH}", f"{{SHA512-CRYPT}}{HASH}"),
        ("$5$salt$" + "x" * 43, "{SHA256-CRYPT}$5$salt$" + "x" * 43),
        ("$2y$12$" + "x" * 53, "{BLF-CRYPT}$2y$12$" + "x" * 53),
        ("$y$j9T$salt$" + "x" * 43, "{CRYPT}$y$j9T$salt$" + "x" * 43),
        (
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdA$aGFzaA",
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdA$aGFzaA",
        ),
    ],
)
def test_a_strong_hash_is_kept_with_its_scheme(password, kept):
    assert model.strong_hash(password) == kept


@pytest.mark.parametrize(("quota", "size"), [("0", 0), ("500M", 500 << 20), ("5G", 5 << 30), ("1T", 1 << 40)])
def test_quotas_are_bytes(quota, size):
    assert model.quota_bytes(quota) == size


def test_an_alias_to_an_address_of_ours_that_does_not_exist_is_said():
    wanted = said(aliases={"ada@velo.test": ["gone@bourg.test", "techs+x@velo.test", "x@example.org"]})
    assert model.problems(wanted) == []
    [notice] = model.notices(wanted)
    assert "The alias ada@velo.test leads to gone@bourg.test, which does not exist on our domain bourg.test" in notice


def test_a_long_chain_of_aliases_is_no_circle_and_ends_at_its_mailbox():
    chain = {f"n{n}@velo.test": [f"n{n + 1}@velo.test"] for n in range(5000)} | {"n5000@velo.test": ["techs@velo.test"]}
    todo = planned(said(aliases=chain))
    assert todo.maps["senders"]["n0@velo.test"] == "techs@velo.test"


# --- maps -----------------------------------------------------------------------------------------------------------


def test_the_maps_of_a_small_platform():
    todo = planned(
        said(
            ["ada@velo.test", {"address": "bob@velo.test", "enabled": False}],
            aliases={
                "bureau@velo.test": ["ada@velo.test", "x@Example.org"],
                "ada@velo.test": ["ada@velo.test", "ada@example.org"],
                "far@velo.test": ["x@example.org"],
            },
            catch_alls={"velo.test": ["ada@velo.test"]},
        )
    )
    assert todo.texts["domains"] == "bourg.test OK\nmx.infini.test OK\nvelo.test OK\n"
    assert todo.maps["strangers"].keys() == todo.maps["domains"].keys()
    assert set(todo.maps["strangers"].values()) == {"553 5.7.1 Log in to send as an address of this domain"}
    assert todo.texts["mailboxes"] == "ada@velo.test OK\nbob@velo.test OK\ntechs@velo.test OK\n"
    aliases = todo.maps["aliases"]
    assert aliases["ada@velo.test"] == "ada@velo.test, ada@example.org"
    assert aliases["bureau@velo.test"] == "ada@velo.test, x@example.org"
    assert aliases["@velo.test"] == "ada@velo.test"
    # Else the catch-all would take what is theirs.
    assert (aliases["techs@velo.test"], aliases["bob@velo.test"]) == ("techs@velo.test", "bob@velo.test")
    assert aliases["postmaster@bourg.test"] == aliases["root@mx.infini.test"] == "techs@velo.test"
    assert "root@velo.test" not in aliases
    senders = todo.maps["senders"]
    assert senders["bureau@velo.test"] == senders["@velo.test"] == "ada@velo.test"
    assert senders["far@velo.test"] == "far@velo.test", "nobody logs in by this name, so nobody may use it"
    assert senders["postmaster@velo.test"] == "techs@velo.test"
    assert todo.texts["recipients"] == "bob@velo.test 550 5.2.1 This mailbox is disabled\n"
    assert todo.texts["transport"] == "bob@velo.test error:5.2.1 This mailbox is disabled\n"
    assert todo.texts["users"].splitlines()[:2] == [
        f"ada@velo.test:{{SHA512-CRYPT}}{HASH}:::open:/srv/mail/velo.test/ada::userdb_quota_rule=*:bytes={1 << 30}",
        f"bob@velo.test:{NO_PASSWORD}:::disabled:/srv/mail/velo.test/bob::userdb_quota_rule=*:bytes={1 << 30}",
    ]


def test_postmaster_may_be_declared():
    todo = planned(said(["postmaster@velo.test"], aliases={"abuse@velo.test": ["x@example.org"]}))
    assert "postmaster@velo.test" not in todo.maps["aliases"]
    assert todo.maps["aliases"]["abuse@velo.test"] == "x@example.org"


def test_a_mailbox_without_password_lets_nobody_in():
    todo = planned(said([{"address": "ada@velo.test"}]))
    assert f"ada@velo.test:{NO_PASSWORD}:" in todo.texts["users"]


def test_what_is_no_longer_declared_is_shut_and_its_mail_waits():
    before = parse(planned(said(["ada@velo.test"])).texts)
    todo = planned(said(), before)
    assert todo.after["ada@velo.test"] == User("ada@velo.test", NO_PASSWORD, 1 << 30, UNDECLARED, TODAY)
    assert todo.changed(UNDECLARED) == ["ada@velo.test"]
    assert todo.maps["recipients"]["ada@velo.test"].startswith("450 4.2.1")
    assert todo.maps["transport"]["ada@velo.test"].startswith("retry:4.2.1")
    assert todo.maps["mailboxes"]["ada@velo.test"] == "OK", "else its mail would be refused for good"
    later = planned(said(), parse(todo.texts), TOMORROW)
    assert (later.after["ada@velo.test"].since, later.changed(UNDECLARED)) == (TODAY, [])
    back = planned(said(["ada@velo.test"]), parse(later.texts), TOMORROW)
    assert back.changed(OPEN) == ["ada@velo.test"]
    assert not back.undeclared()


def test_an_address_that_becomes_an_alias_is_not_deferred_for_its_old_mailbox():
    before = parse(planned(said(["ada@velo.test"])).texts)
    todo = planned(said(aliases={"ada@velo.test": ["techs@velo.test"]}), before)
    assert not todo.maps["recipients"]
    assert not todo.maps["transport"]
    assert todo.maps["senders"]["ada@velo.test"] == "techs@velo.test"


def test_a_domain_that_left_is_not_ours_any_more_though_its_mailboxes_stay():
    before = parse(planned(said(["ada@bourg.test"])).texts)
    todo = planned(said(domains=["velo.test"]), before)
    assert todo.after["ada@bourg.test"].state == UNDECLARED
    assert not [key for entries in todo.maps.values() for key in entries if "bourg.test" in key]


def test_a_password_is_said_to_be_new_and_never_shown():
    before = parse(planned(said(["ada@velo.test"])).texts)
    todo = planned(said([{"address": "ada@velo.test", "password_hash": OTHER, "quota": "2G"}]), before)
    assert todo.diff()["before"] == "ada@velo.test: open, quota 1G\n"
    assert todo.diff()["after"] == "ada@velo.test: open, quota 2G (new password)\n"
    assert "xxxx" not in f"{todo}{todo.diff()}"
    assert "yyyy" not in f"{todo}{todo.diff()}{model.declared(said(), '0')}"


def test_a_line_that_is_not_ours_is_refused():
    for line in ("ada@velo.test:{PLAIN}x:1:1::/home::", "garbage", f"ada@velo.test:{NO_PASSWORD}:::gone:/srv::x"):
        with pytest.raises(MailError, match="a line that is not ours"):
            parse({"users": f"{line}\n"})


# --- brake ----------------------------------------------------------------------------------------------------------


def full():
    many = [f"n{n}@{domain}" for domain in DOMAINS for n in range(10)]
    return said(many, aliases={f"a{n}@velo.test": ["techs@velo.test"] for n in range(10)})


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({**full(), "mailboxes": full()["mailboxes"][:11]}, "10 of 21 mailboxes would be shut at once"),
        ({**full(), "aliases": full()["aliases"][:5]}, "5 of 10 aliases would be removed at once"),
    ],
)
def test_an_emptied_inventory_is_braked(wanted, sentence):
    before = parse(planned(full()).texts)
    with pytest.raises(UnsafePlanError, match=sentence):
        planned(wanted, before, confirmed=())


def test_domains_are_braked_and_let_go_by_name():
    names = [f"d{n}.test" for n in range(6)]
    before = parse(planned(said(domains=[*DOMAINS, *names])).texts)
    with pytest.raises(UnsafePlanError, match="6 of 8 mail domains would be no longer served at once"):
        planned(said(), before, confirmed=())
    planned(said(), before, confirmed=names)


def test_a_domain_may_be_confirmed_with_all_its_addresses():
    before = parse(planned(full()).texts)
    wanted = {**full(), "mailboxes": full()["mailboxes"][:11]}
    assert len(planned(wanted, before, confirmed=["bourg.test"]).changed(UNDECLARED)) == 10


def test_who_is_shut_already_does_not_weigh():
    before = parse(planned(full()).texts)
    wanted = {**full(), "mailboxes": full()["mailboxes"][:11]}
    after = parse(planned(wanted, before, confirmed=["bourg.test"]).texts)
    assert not planned(wanted, after, TOMORROW, confirmed=()).changed(UNDECLARED)


# --- properties -----------------------------------------------------------------------------------------------------

MAILBOXES = st.dictionaries(
    st.sampled_from(ADDRESSES),
    st.fixed_dictionaries(
        {
            "password_hash": st.sampled_from([None, HASH, OTHER]),
            "quota": st.sampled_from([None, "0", "1G", "500M"]),
            "enabled": st.booleans(),
        }
    ),
).map(lambda them: [{"address": address, **more} for address, more in them.items()])
TARGETS = st.lists(st.sampled_from([*ADDRESSES, "x@example.org", "y@example.org"]), min_size=1, max_size=3)
DECLARATIONS = st.builds(
    said,
    MAILBOXES,
    st.dictionaries(st.sampled_from(ADDRESSES), TARGETS),
    st.dictionaries(st.sampled_from(DOMAINS), TARGETS, max_size=1),
).filter(lambda wanted: not model.problems(wanted))


@given(DECLARATIONS, DECLARATIONS)
def test_a_second_run_changes_nothing(earlier, wanted):
    todo = planned(wanted, parse(planned(earlier).texts))
    again = planned(wanted, parse(todo.texts), TOMORROW)
    assert again.texts == todo.texts
    assert again.diff()["after"] == ""
    assert [again.changed(state) for state in (OPEN, DISABLED, UNDECLARED)] == [[], [], []]


@given(DECLARATIONS, DECLARATIONS)
def test_no_mailbox_is_lost_and_only_the_declared_are_open(earlier, wanted):
    before = planned(earlier)
    after = planned(wanted, parse(before.texts)).after
    enabled = {one["address"] for one in wanted["mailboxes"] if one.get("enabled", True)}
    assert set(after) == set(before.after) | {one["address"] for one in wanted["mailboxes"]}
    assert {address for address, user in after.items() if user.state == OPEN} == enabled
    assert all(user.password == NO_PASSWORD for user in after.values() if user.state != OPEN)


@given(DECLARATIONS, DECLARATIONS)
def test_the_files_say_all_that_was_planned(earlier, wanted):
    todo = planned(wanted, parse(planned(earlier).texts))
    found = parse(todo.texts)
    assert found.users == todo.after
    assert found.domains == set(todo.maps["domains"])
    for text in todo.texts.values():
        keys = [line.split(" ")[0] for line in text.splitlines()]
        assert len(keys) == len(set(keys))
        assert all(line.isprintable() and not line.startswith(("#", " ")) for line in text.splitlines())


def expanded(address, maps):
    """Follow an address as Postfix does: aliases first, catch-alls last, an address that leads to itself is the end."""
    ends, waiting, steps = set(), [address], 0
    while waiting:
        steps += 1
        assert steps < 1000, "a circle"
        one = waiting.pop()
        found = maps["aliases"].get(one) or maps["aliases"].get("@" + one.partition("@")[2])
        for target in found.split(", ") if found else [one]:
            if target == one:
                ends.add(one)
            else:
                waiting.append(target)
    return ends


@given(DECLARATIONS)
def test_mail_reaches_every_open_mailbox_and_a_sender_is_one_who_reads_the_address(wanted):
    todo = planned(wanted)
    shadowed = {one["address"] for one in wanted["aliases"]}
    for address, user in todo.after.items():
        if address not in shadowed:
            assert expanded(address, todo.maps) == {address}, "a catch-all took it"
        if user.state == OPEN:
            assert address in expanded(address, todo.maps)
    for address, owners in todo.maps["senders"].items():
        probe = address if not address.startswith("@") else f"unknown{address}"
        readers = {one for one in expanded(probe, todo.maps) if one in todo.after and todo.after[one].state == OPEN}
        assert set(owners.split(", ")) == (readers or {address}) or address in todo.after


@given(DECLARATIONS)
def test_every_address_of_ours_has_an_owner(wanted):
    maps = planned(wanted).maps
    assert {*maps["mailboxes"], *maps["aliases"]} <= set(maps["senders"])


@given(DECLARATIONS)
def test_who_is_shut_gets_no_mail_by_any_way(wanted):
    todo = planned(wanted)
    closed = {address for address, user in todo.after.items() if user.state != OPEN}
    assert closed - {one["address"] for one in wanted["aliases"]} == set(todo.maps["transport"])
    assert set(todo.maps["transport"]) == set(todo.maps["recipients"])
