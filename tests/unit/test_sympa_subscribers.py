# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of subscribers: what of it cannot be followed, and who comes and goes."""

from __future__ import annotations

import hashlib

import pytest
from ansible.module_utils.hosting.brake import UnsafePlanError
from ansible.module_utils.hosting.sympa_subscribers import (
    FileError,
    ListPlan,
    Subscriber,
    differing,
    fingerprint,
    known_after,
    parse,
    plan_list,
    refuse_mass_removals,
)
from hypothesis import given
from hypothesis import strategies as st

AMIS, LETTRE = "amis@listes.velo.test", "lettre@listes.velo.test"
HEADER = "list\temail\tname\treception\tvisibility\tdate"


def read(*lines, header=HEADER):
    return parse([f"{line}\n" for line in (header, *lines)], [AMIS, LETTRE])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (f"{AMIS}\tnobody\t\t\t\t", "line 3: 'nobody' is no mail address"),
        (f"{AMIS}\té@x.test\t\t\t\t", "line 3: 'é@x.test' is no mail address"),
        (f"{AMIS}\t{'a' * 95}@x.test\t\t\t\t", "is no mail address"),
        (f"{AMIS}\tA@X.test \t\t\t\t", "line 3: a@x.test is on amis@listes.velo.test by an earlier line: keep one"),
        (f"{AMIS}\t{AMIS}\t\t\t\t", "is the list itself"),
        (f"{AMIS}\tb@x.test", "line 3: it has 2 columns, and the first line names 6"),
        (f"{AMIS}\tb@x.test\t\tdaily\t\t", "'daily' is no way of reception"),
        (f"{AMIS}\tb@x.test\t\t\tno\t", "'no' is no visibility"),
        (f"{AMIS}\tb@x.test\t\t\t\tyesterday", "'yesterday' is no date"),
        (f"{AMIS}\tb@x.test\t{'n' * 151}\t\t\t", "the name of b@x.test has more than 150 letters"),
        ("other@listes.velo.test\tb@x.test\t\t\t\t", "line 3: there is no list 'other@listes.velo.test' among those"),
    ],
)
def test_a_line_that_cannot_be_followed_is_named_and_costs_no_other(line, sentence):
    wanted = read(f"{AMIS}\ta@x.test\tAnne\tdigest\tconceal\t1000", line, f"{AMIS}\tc@x.test\t\t\t\t")
    [said] = wanted.faults
    assert sentence in said
    assert wanted.lists == {AMIS: {"a@x.test": Subscriber("Anne", "digest", "conceal", 1000), "c@x.test": Subscriber()}}


def test_lines_of_an_undeclared_list_are_one_sentence():
    wanted = read(*(f"no@x.test\ta{number}@x.test\t\t\t\t" for number in range(1000)))
    assert len(wanted.faults) == 1
    assert "line 2 (and 999 more lines)" in wanted.faults[0]


@pytest.mark.parametrize("header", ["", "email\tlist", "list;email", "list\temail\tage", "list\temail\tname\tname"])
def test_a_file_without_its_first_line_is_refused(header):
    with pytest.raises(FileError, match="first line is not the names of its columns"):
        read(header=header)


EMAILS = st.sampled_from([f"{letter}@x.test" for letter in "abcdef"])
SUBSCRIBERS = st.builds(
    Subscriber,
    st.sampled_from(["", "Anne"]),
    st.sampled_from(["mail", "digest"]),
    st.sampled_from(["noconceal", "conceal"]),
)
THEM = st.dictionaries(EMAILS, SUBSCRIBERS)
COLUMNS = st.sets(st.sampled_from(["name", "reception", "visibility"]))


def after(plan, found):
    there = {**found, **plan.add, **plan.mend}
    return {email: one for email, one in there.items() if email not in plan.remove}


@given(THEM, THEM, st.sets(EMAILS), COLUMNS, st.booleans())
def test_a_second_run_changes_nobody(wanted, found, known, compared, managed):
    plan = plan_list(wanted, found, known, managed=managed, compared=compared)
    there = after(plan, found)
    assert not plan_list(wanted, there, wanted, managed=managed, compared=compared).changed


@given(THEM, THEM, st.sets(EMAILS), COLUMNS)
def test_a_managed_list_is_the_file_less_those_who_left(wanted, found, known, compared):
    there = after(plan_list(wanted, found, known, managed=True, compared=compared), found)
    assert set(there) == set(wanted) - (known - set(found))
    assert all(
        getattr(there[email], column) == getattr(wanted[email], column) for email in there for column in compared
    )
    columns = {"name", "reception", "visibility"} - compared
    assert all(
        getattr(there[email], column) == getattr(found[email], column)
        for email in set(there) & set(found)
        for column in columns
    )


@given(THEM, THEM, st.sets(EMAILS))
def test_other_lists_lose_and_change_nobody(wanted, found, known):
    there = after(plan_list(wanted, found, known, managed=False), found)
    assert there.items() >= found.items()
    assert set(there) == set(found) | (set(wanted) - known)


@given(THEM, THEM)
def test_nobody_is_taken_off_a_list_with_a_faulty_line(wanted, found):
    assert set(after(plan_list(wanted, found, managed=True, removes=False), found)) >= set(found)


@given(THEM, THEM, COLUMNS)
def test_fingerprints_tell_lists_apart_by_what_is_compared_only(one, other, compared):
    def seen(them):
        return {email: [getattr(who, column) for column in sorted(compared)] for email, who in them.items()}

    assert (fingerprint(one, compared) == fingerprint(other, compared)) == (seen(one) == seen(other))


def test_the_fingerprint_is_the_one_that_the_database_works_out():
    line = b"a@x.test\tAnne\t\tconceal"
    expected = int(hashlib.md5(line).hexdigest()[:16], 16)  # noqa: S324  as MariaDB does it
    assert fingerprint({"a@x.test": Subscriber("Anne", "digest", "conceal")}, ["name", "visibility"]) == [1, expected]


def test_only_what_differs_is_read():
    wanted = read(f"{AMIS}\ta@x.test\t\t\t\t", f"{LETTRE}\ta@x.test\t\t\t\t")
    same = fingerprint(wanted.lists[AMIS], wanted.compared)
    meant = wanted.prints()
    known = {LETTRE: frozenset(["a@x.test"])}
    assert differing(wanted, [AMIS], meant, {AMIS: same, LETTRE: [1, 7]}, known) == []
    assert differing(wanted, [AMIS], meant, {AMIS: same}, known) == [LETTRE], "it may have been lost"
    assert differing(wanted, [AMIS], meant, {AMIS: [1, 7]}, {LETTRE: frozenset()}) == [AMIS, LETTRE]
    assert differing(wanted, [AMIS, "empty@x.test"], meant, {AMIS: same, "empty@x.test": [3, 7]}, {}) == [
        "empty@x.test",
        LETTRE,
    ]


def test_many_do_not_go_at_once_and_nobody_is_named():
    plans = {AMIS: ListPlan(remove=tuple(f"{number}@x.test" for number in range(31)))}
    refuse_mass_removals(plans, {AMIS: 104})
    with pytest.raises(UnsafePlanError, match=f"31 of 100 of {AMIS}; nothing was changed") as refused:
        refuse_mass_removals(plans, {AMIS: 100})
    assert "x.test" not in str(refused.value)
    refuse_mass_removals(plans, {AMIS: 100}, [AMIS])


def test_a_faulty_line_makes_nobody_unknown():
    wanted = read(f"{AMIS}\ta@x.test\t\t\t\t", f"{AMIS}\toops\t\t\t\t", f"{LETTRE}\tb@x.test\t\t\t\t")
    before = {AMIS: frozenset(["z@x.test"]), LETTRE: frozenset(["y@x.test"]), "gone@x.test": frozenset(["w@x.test"])}
    assert known_after(wanted, before, [AMIS, LETTRE]) == {AMIS: {"a@x.test", "z@x.test"}, LETTRE: {"b@x.test"}}


def test_a_list_that_is_undeclared_for_a_while_brings_nobody_back():
    wanted = parse(["list\temail\n", f"{AMIS}\ta@x.test\n"], [])
    assert known_after(wanted, {AMIS: frozenset(["a@x.test"])}, []) == {AMIS: {"a@x.test"}}
    assert known_after(parse(["list\temail\n"], []), {AMIS: frozenset(["a@x.test"])}, []) == {}


def test_a_closed_list_waits_and_its_new_lines_are_new_when_it_opens():
    wanted = read(f"{AMIS}\ta@x.test\t\t\t\t", f"{AMIS}\tnew@x.test\t\t\t\t")
    before = {AMIS: frozenset(["a@x.test", "out@x.test"])}
    assert differing(wanted, [AMIS], wanted.prints(), {}, before, [AMIS]) == []
    known = known_after(wanted, before, [AMIS], [AMIS])
    assert known == {AMIS: {"a@x.test"}}
    assert differing(wanted, [AMIS], wanted.prints(), {}, known) == [AMIS]
    assert set(plan_list(wanted.lists[AMIS], {}, known[AMIS], managed=True).add) == {"new@x.test"}
