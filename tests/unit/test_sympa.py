# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sympa's robots and lists as data: what is refused, what is planned, and what becomes of the files."""

from __future__ import annotations

import pytest
from ansible.module_utils.hosting.brake import UnsafePlanError
from ansible.module_utils.hosting.sympa import (
    KINDS,
    SympaError,
    list_addresses,
    refuse_impossible_lists,
    refuse_impossible_robots,
    robot_addresses,
)
from ansible.module_utils.hosting.sympa_config import Config, merge, one_line, parse, render_robot, wanted_values
from ansible.module_utils.hosting.sympa_export import export_list, export_robot
from ansible.module_utils.hosting.sympa_plan import (
    Admin,
    List,
    plan_lists,
    plan_robots,
    refuse_takeovers,
    transport,
    turned,
    turns,
)
from hypothesis import given
from hypothesis import strategies as st

ROBOT = "listes.velo.test"
URL = "https://{robot}/sympa"
BY = "listmaster@infini.test"


def robot(name=ROBOT, **more):
    return {"name": name, "listmasters": ["tech@infini.test"], **more}


def entry(name="amis", **more):
    owners = [{"email": "contact@velo.test", "name": "Vélo"}]
    return {"name": name, "robot": ROBOT, "kind": "discussion", "subject": "Les amis", "owners": owners, **more}


def faults(*lists, robots=(ROBOT,), taken=()):
    with pytest.raises(SympaError) as refused:
        refuse_impossible_lists(lists, robots, taken)
    return str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (entry(owners=[]), f"list amis@{ROBOT} has no owner: name at least one in owners"),
        (
            entry(robot="other.test"),
            "list amis@other.test is on a robot that is not declared: declare robot other.test",
        ),
        (entry("Amis"), "cannot have that name"),
        (entry("a" * 51), "cannot have that name"),
        (entry("amis\n"), "cannot have that name"),
        (entry("sympa"), "a name that Sympa answers to itself"),
        (entry("listmaster"), "a name that Sympa answers to itself"),
        (entry("bounce+amis"), "a name that Sympa answers to itself"),
        (entry("amis-owner"), "a name that is an address of list amis"),
        (entry("amis-unsubscribe"), "a name that is an address of list amis"),
        (entry(owners=[{"email": "nobody"}]), "'nobody' as owner, which is no mail address"),
        (entry(owners=[{"email": "a@velo.test"}, {"email": "A@velo.test "}]), "a@velo.test as owner 2 times: keep one"),
        (entry(moderators=[{"email": f"amis-editor@{ROBOT}"}]), "has itself"),
        (entry(subject="two\nlines"), "has no subject: say in one line of at most 250"),
        (entry(subject="s" * 251), "has no subject: say in one line of at most 250"),
        (entry(language="fr\nlang br"), "the language of list"),
        (entry(topics=["arts", "b\nsend private"]), "topic"),
        (entry(subject=" "), "has no subject: say in one line of at most 250"),
        (entry(kind="spam"), "of kind 'spam', which there is not: newsletter, discussion, closed, custom"),
        (entry(settings={"owner": "me"}), "sets owner in settings: use its field owners"),
        (entry(settings={"serial": 4}), "sets serial, which Sympa writes itself"),
        (entry(settings={"send": "private\n\nowner\nemail x@y.test"}), "no parameter of Sympa's"),
        (entry(settings={"archive": {"web_access": ""}}), "no parameter of Sympa's"),
        (entry(settings={"archive": {"web_access public\n\nowner\nemail": "x@y.test"}}), "no parameter of Sympa's"),
        (
            entry(owners=[{"email": "a@velo.test", "name": "Anne \U0001f6b2"}]),
            "letters in name or info that Sympa cannot keep",
        ),
    ],
)
def test_a_list_that_cannot_be_has_one_sentence(wanted, sentence):
    [said] = faults(wanted)
    assert sentence in said


def test_a_list_declared_twice():
    assert faults(entry(), entry()) == [f"list amis@{ROBOT} is declared 2 times: keep one"]


def test_an_alias_clashes_with_every_address_of_a_list():
    for address in list_addresses("amis", ROBOT):
        [said] = faults(entry(), taken=[address])
        assert said.startswith(f"{address} is an alias or a mailbox")
        assert f"rename the list amis@{ROBOT} or take the alias away" in said


def test_an_alias_clashes_with_every_address_of_a_robot():
    for address in robot_addresses(ROBOT):
        with pytest.raises(SympaError, match="take the alias away"):
            refuse_impossible_robots([robot()], [address])


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ([robot("Listes.velo.test")], "is not a domain"),
        ([robot("localhost")], "is not a domain"),
        ([robot(listmasters=[])], "has no listmaster"),
        ([robot(listmasters=["x"])], "no mail address"),
        ([robot(), robot()], "declared 2 times"),
        ([robot(title="a\nb")], "not one line"),
        ([robot(settings={"db_passwd": "a\nb"})], "no parameter of Sympa's"),
        ([robot(dkim={"key_file": "/k"})], "has dkim without selector"),
        ([robot(dkim={"selector": "s1\nlistmaster x@y.test", "key_file": "/k"})], "selector of dkim of"),
        ([robot(arc={"selector": "s1", "key_file": "/k", "server": "a\nb"})], "server of arc of"),
        ([robot(dmarc={"mode": ["all"], "phrase": "a\nb"})], "phrase of dmarc of"),
    ],
)
def test_a_robot_that_cannot_be_has_one_sentence(wanted, sentence):
    with pytest.raises(SympaError, match=sentence):
        refuse_impossible_robots(wanted)


def test_a_robot_that_lists_are_on_cannot_be_left_out():
    with pytest.raises(SympaError, match=f"lists are declared on robot {ROBOT}, which is not"):
        refuse_impossible_robots([], used=[ROBOT])
    refuse_impossible_robots([robot()], used=[ROBOT])


def test_many_faults_are_counted():
    assert faults(*(entry(f"l{number}", owners=[]) for number in range(30)))[-1] == "and 10 more like these"


def test_what_may_be_is_not_refused():
    refuse_impossible_robots([robot(settings={"max_size": 100, "supported_lang": ["fr", "br"]})], ["amis@other.test"])
    refuse_impossible_lists(
        [entry(kind=kind, name=f"l.{kind}-1+x_y", settings={"digest": "1,4 13:26"}) for kind in KINDS], [ROBOT]
    )


WORDS = st.text("abc ,é_#é0", min_size=1, max_size=8).map(lambda text: " ".join(text.split()) or "x")
NAMES = st.sampled_from(["subject", "send", "archive", "custom_header", "topics", "lang", "info"])
PARAGRAPHS = st.dictionaries(
    st.sampled_from(["value", "apply", "quota"]), WORDS.filter(lambda t: t[0] != "#"), min_size=1
)
PARAMETERS = st.dictionaries(
    NAMES,
    st.one_of(WORDS, PARAGRAPHS, st.lists(WORDS, min_size=1, max_size=3), st.lists(PARAGRAPHS, min_size=1, max_size=2)),
)


@given(PARAMETERS, PARAMETERS)
def test_a_file_that_was_written_says_what_was_meant_and_asks_for_nothing_more(first, second):
    config = merge(merge(Config(), wanted_values(first)), wanted_values(second))
    again = parse(config.text())
    assert again == config
    assert merge(again, wanted_values(second)) == again
    assert set(again.owned) == set(second)
    assert again.values.keys() == second.keys()


def test_what_the_owners_set_on_the_web_stays():
    found = parse("# a word\n\nsubject Old\n\nmax_size 1000\n\narchive\nperiod month\nweb_access public\n\nserial 3\n")
    config = merge(found, wanted_values({"subject": "New", "archive": {"web_access": "private"}}))
    assert config.text() == (
        "# infini: archive subject\n# a word\n\nsubject New\n\nmax_size 1000\n\n"
        "archive\nperiod month\nweb_access private\n\nserial 3\n"
    )
    gone = merge(parse(config.text()), wanted_values({"subject": "New"}))
    assert "archive" not in gone.values, "what was ours goes back to Sympa's default"
    assert gone.line("max_size") == "1000"


def test_a_file_written_by_hand_has_tabs():
    found = parse("subject\tOld\n\narchive\nweb_access\t private\n\nsend  private\n")
    assert found.values == {"subject": ["Old"], "archive": [{"web_access": "private"}], "send": ["private"]}
    assert merge(found, wanted_values({"subject": "New"})).text().count("subject") == 2, (
        "the name in our line, and once"
    )
    assert export_robot(ROBOT, "listmaster\ta@x.test\n\n  title\tx\n")["listmasters"] == ["a@x.test"]


@pytest.mark.parametrize(
    ("value", "said"), [(True, "on"), (["fr", "br"], "fr,br"), ("a\nlistmaster b", "a listmaster b"), (3, "3")]
)
def test_a_setting_is_written_in_the_words_of_sympa(value, said):
    assert one_line(value, ",") == said


def test_a_robot_signs_seals_and_replaces_senders():
    text = render_robot(
        robot(
            dkim={"selector": "s1", "key_file": "/etc/sympa/dkim/s1.key"},
            arc={"selector": "a1", "key_file": "/etc/sympa/dkim/s1.key"},
            dmarc={"mode": ["dmarc_reject", "dmarc_quarantine"], "phrase": "via"},
            settings={"supported_lang": ["fr", "br"], "verp_rate": "5%"},
        ),
        URL,
    )
    assert text.splitlines() == [
        "# infini: declared",
        f"wwsympa_url https://{ROBOT}/sympa",
        f"title {ROBOT}",
        "listmaster tech@infini.test",
        "lang fr",
        "dkim_feature on",
        "dkim_parameters.private_key_path /etc/sympa/dkim/s1.key",
        "dkim_parameters.selector s1",
        f"dkim_parameters.signer_domain {ROBOT}",
        "arc_feature on",
        f"arc_srvid {ROBOT}",
        "arc_parameters.arc_private_key_path /etc/sympa/dkim/s1.key",
        "arc_parameters.arc_selector a1",
        f"arc_parameters.arc_signer_domain {ROBOT}",
        "dmarc_protection.mode dmarc_reject,dmarc_quarantine",
        "dmarc_protection.phrase via",
        "supported_lang fr,br",
        "verp_rate 5%",
    ]


ROBOTS = st.lists(st.sampled_from(["a.test", "b.test", "c.test", "d.test"]), unique=True).map(
    lambda names: [robot(name) for name in names]
)


@given(ROBOTS, ROBOTS, st.sets(st.sampled_from(["h.test"])))
def test_a_second_run_changes_no_robot_and_none_is_lost(first, second, by_hand):
    names = [one["name"] for one in first]
    found = dict.fromkeys(by_hand, "title Made by hand\n")
    one = plan_robots(first, found, [], URL)
    there = {**found, **one.write}
    two = plan_robots(second, there, names, URL, names)
    after = {**there, **two.write}
    assert set(after) >= set(there)
    everybody = {robot["name"] for robot in first + second}
    again = plan_robots(second, after, everybody, URL)
    assert not again.changed
    assert set(again.open_robots()) == {robot["name"] for robot in second} | by_hand


def test_many_robots_do_not_close_at_once():
    found = {name: render_robot(robot(name), URL) for name in ("a.test", "b.test", "c.test", "d.test")}
    with pytest.raises(UnsafePlanError, match="3 of 4 Sympa robots would be closed"):
        plan_robots([robot("a.test")], found, found, URL)
    assert plan_robots([robot("a.test")], found, found, URL, ["b.test"]).closed == ("b.test", "c.test", "d.test")


PEOPLE = st.lists(st.sampled_from(["a@x.test", "b@x.test", "c@x.test"]), min_size=1, unique=True).map(
    lambda emails: [{"email": email} for email in emails]
)
ENTRIES = st.builds(
    entry,
    name=st.sampled_from(["amis", "bureau", "ca", "lettre"]),
    kind=st.sampled_from(sorted(KINDS)),
    status=st.sampled_from(["open", "closed"]),
    owners=PEOPLE,
    moderators=st.one_of(st.just([]), PEOPLE),
    topics=st.lists(st.sampled_from(["arts", "others"]), unique=True),
    settings=st.dictionaries(st.sampled_from(["max_size", "send"]), st.sampled_from(["1000", "closed"])),
)
SETS = st.lists(ENTRIES, unique_by=lambda one: one["name"])


def apply(wanted, found, now):
    """Do what the module does, without a Sympa."""
    closing, opening = turns(wanted, found, found)
    there = turned(found, closing, opening)
    return {**there, **plan_lists(wanted, there, now, BY).after}


@given(SETS, SETS)
def test_a_second_run_changes_no_list_and_none_is_lost(first, second):
    one = apply(first, {}, 1000)
    two = apply(second, one, 2000)
    assert set(two) >= set(one)
    assert turns(second, two, two) == ([], [])
    assert not plan_lists(second, two, 3000, BY).changed
    declared = {f"{wanted['name']}@{ROBOT}": wanted for wanted in second}
    for address, found in two.items():
        assert found.status == (declared[address]["status"] if address in declared else "closed")
        assert bool(found.admins) == (found.status == "open")
        assert parse(found.config.text()) == found.config
        assert found == found.settled(), "Sympa's table says what the file says"


@given(SETS)
def test_lists_that_people_made_are_left_alone(wanted):
    theirs = List(parse("subject Ours\n\nstatus open\n"), None, frozenset([Admin("me@x.test", "owner")]))
    found = {f"theirs@{ROBOT}": theirs}
    assert apply(wanted, found, 1000)[f"theirs@{ROBOT}"] is theirs


def test_a_new_list():
    plan = plan_lists([entry(kind="closed", topics=["arts", "velo"], language="br")], {}, 1000, BY)
    [one] = plan.write.values()
    assert one.config.text().startswith("# infini: add archive lang process_archive reply_to_header review send ")
    assert one.config.text().endswith(
        "creation\ndate_epoch 1000\nemail listmaster@infini.test\n\n"
        "update\ndate_epoch 1000\nemail listmaster@infini.test\n\nserial 1\n"
    )
    assert one.row == ("open", "1000", BY, "1000", BY, "les amis", "1", ",arts,velo,")
    assert one.admins == {Admin("contact@velo.test", "owner", "Vélo", "privileged")}
    assert "owner contact@velo.test Vélo privileged" in plan.diff()[0]["after"]


@given(SETS)
def test_an_export_says_what_is_there(wanted):
    found = apply(wanted, {}, 1000)
    told = [export_list(address, one) for address, one in found.items()]
    closed = {one["name"]: one for one in wanted if one["status"] == "closed"}
    for one in told:  # a closed list has no people, and Sympa keeps who they were in its folder
        one["owners"] = one["owners"] or closed[one["name"]]["owners"]
    refuse_impossible_lists(told, [ROBOT])
    assert not plan_lists(told, found, 2000, BY).changed
    assert {f"{one['name']}@{one['robot']}": one["kind"] for one in told if "settings" not in one}.items() <= {
        f"{one['name']}@{one['robot']}": one["kind"] for one in wanted
    }.items()


def test_a_list_made_by_hand_is_exported_as_it_is():
    config = parse("subject By hand\n\nsend privateoreditorkey\n\narchive\nweb_access public\nquota 10\n\nserial 9\n")
    one = List(config, None, frozenset([Admin("a@x.test", "owner", "", "normal", "nomail", "conceal")]), "Hello\n")
    assert export_list(f"main@{ROBOT}", one) == {
        "name": "main",
        "robot": ROBOT,
        "kind": "custom",
        "subject": "By hand",
        "status": "open",
        "owners": [{"email": "a@x.test", "privileged": False, "receives": False, "hidden": True}],
        "moderators": [],
        "description": "Hello",
        "settings": {"send": "privateoreditorkey", "archive": {"web_access": "public", "quota": "10"}},
    }


def test_a_robot_is_exported_as_it_was_declared():
    declared = robot(
        title="Vélo",
        language="br",
        url="https://x.test/s",
        dkim={"selector": "s1", "key_file": "/k", "domain": "d.test"},
        arc={"selector": "a1", "key_file": "/k", "domain": "d.test", "server": "m.test"},
        dmarc={"mode": ["dmarc_reject"]},
        settings={"verp_rate": "5%"},
    )
    assert export_robot(ROBOT, render_robot(declared, URL)) == declared
    old = (
        "title x\nlistmaster a@x.test, b@x.test\ndkim_selector s\ndkim_private_key_path /k\ndmarc_protection_mode all\n"
    )
    assert export_robot(ROBOT, old) == {
        "name": ROBOT,
        "title": "x",
        "listmasters": ["a@x.test", "b@x.test"],
        "dkim": {"selector": "s", "key_file": "/k"},
        "dmarc": {"mode": ["all"]},
        "settings": {},
    }


def test_many_lists_do_not_close_at_once():
    found = apply([entry(name) for name in ("a", "b", "c", "d")], {}, 1000)
    with pytest.raises(UnsafePlanError, match="3 of 4 Sympa lists would be closed"):
        turns([entry("a")], found)


def test_a_list_of_others_is_handed_over_when_that_is_meant():
    found = {f"amis@{ROBOT}": List(parse("subject x\n"), None, frozenset([Admin("anne@x.test", "owner")]))}
    with pytest.raises(SympaError, match=r"none of its owners \(anne@x.test\) is declared: .* sympa_confirm_takeovers"):
        refuse_takeovers([entry()], found)
    refuse_takeovers([entry()], found, [f"amis@{ROBOT}"])
    refuse_takeovers([entry(owners=[{"email": "Anne@x.test"}])], found)


def test_postfix_brings_errors_to_the_counter_of_errors():
    lines = transport([ROBOT], [f"amis@{ROBOT}"])
    assert len(lines) == 12
    assert {address for address, to in lines.items() if to == "sympabounce:"} == {
        f"amis-owner@{ROBOT}",
        f"bounce@{ROBOT}",
        f"abuse-feedback-report@{ROBOT}",
    }
