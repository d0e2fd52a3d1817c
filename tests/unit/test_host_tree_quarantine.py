# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""One bad file among many: it alone stays as it was, and says so until it is mended."""

import os
import tempfile
from pathlib import Path

import pytest
from host_tree_world import World
from hypothesis import given, settings
from hypothesis import strategies as st
from test_host_tree_apply import Faulty, Killed

from hosting.tree_apply import CONFIDENTIAL, last_named
from hosting.tree_model import Notification, TreeError, Validation

OLD = {"sites/a": "a\n", "sites/b": "b\n", "sites/gone": "x\n", "main": "one\n"}
NEW = {"sites/a": "bad a\n", "sites/b": "b2\n", "sites/new": "bad new\n", "main": "two\n"}
AFTER = {"sites/a": "a\n", "sites/b": "b2\n", "main": "two\n"}
# Reads like Apache's own parser: stops at the first file that it cannot read, after a warning about a good one.
PARSER = """
cd "$0" && echo "warning: $0/b is old-fashioned"
for file in *; do
  if grep -q bad "$file"; then echo "Syntax error on line 1 of $0/$file:"; cat "$file"; exit 1; fi
done
"""


def validations(world, script=PARSER):
    return (Validation((world.path("sites/*"),), ("sh", "-c", script, world.path("sites")), quarantine=True),)


def apply(world, files, script=PARSER, **more):
    return world.apply(files, validations=validations(world, script), **more)


def files(world):
    found = [Path(where, name) for where, _directories, names in os.walk(world.root) for name in names]
    return {str(path.relative_to(world.root)): path.read_text() for path in found}


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    apply(world, OLD)
    return world


def test_bad_files_stand_as_before_and_all_others_are_applied(world):
    result = apply(world, NEW)
    assert files(world) == AFTER
    assert result["quarantined"] == [
        {"path": world.path(name), "reason": f"Syntax error on line 1 of {world.path(name)}: {NEW[name].strip()}"}
        for name in ("sites/a", "sites/new")
    ]
    assert {one["path"] for one in result["changes"]} == {
        world.path(name) for name in ("sites/b", "sites/gone", "main")
    }
    assert len(result["diff"]) == 3


def test_next_run_is_stable_and_says_it_again(world):
    first = apply(world, NEW)
    assert world.look(NEW, validations=validations(world))["changed"], "it is tried again: the cause may have gone"
    for check_mode in (False, True):
        again = apply(world, NEW, check_mode=check_mode)
        assert (again["changed"], again["changes"], again["diff"]) == (False, [], [])
        assert again["quarantined"] == first["quarantined"]
    seen = world.look(NEW, validations=validations(world), check_mode=True)
    assert (seen["changed"], seen["quarantined"]) == (False, first["quarantined"])
    assert files(world) == AFTER
    drift = {one["path"]: (one["state"], one["diff"]) for one in world.drift()}
    assert drift[world.path("sites/a")] == ("quarantined", first["quarantined"][0]["reason"] + "\n")
    assert set(drift) == {world.path("sites/a"), world.path("sites/new")}


@pytest.mark.parametrize("mend", ["file", "cause", "undeclared"])
def test_mended_file_is_applied(world, mend):
    apply(world, NEW)
    wanted = {**NEW, "sites/a": "good\n", "sites/new": "good\n"} if mend == "file" else NEW
    wanted = {"sites/a": "a\n", "sites/b": "b2\n", "main": "two\n"} if mend == "undeclared" else wanted
    if mend == "undeclared":
        assert world.look(wanted)["quarantined"] == []
    else:
        result = apply(world, wanted, "true" if mend == "cause" else PARSER)
        assert (result["changed"], result["quarantined"]) == (True, [])
    assert files(world) == wanted
    assert world.drift() == []
    assert not world.look(wanted)["changed"]


def test_handlers_are_called_for_what_was_applied_only(world):
    told = (Notification(world.path("sites/*"), ("Reload",)), Notification(world.path("main"), ("Main",)))
    bad = {**OLD, "sites/a": "bad\n", "main": "two\n"}
    assert apply(world, bad, notifications=told)["notify"] == ["Main"]
    assert apply(world, bad, notifications=told)["notify"] == []


def test_bad_file_that_no_word_names_puts_everything_back(world):
    before = world.snapshot()
    with pytest.raises(TreeError, match="every file was put back as it was: something is wrong somewhere"):
        apply(world, NEW, "echo something is wrong somewhere; exit 1")
    with pytest.raises(TreeError, match="every file was put back"):
        apply(world, NEW, 'echo "$0/b is bad whatever stands there"; exit 1')
    with pytest.raises(TreeError, match="every file was put back"):
        apply(world, NEW, 'echo "$0/../main is bad"; exit 1')
    assert world.snapshot() == before
    assert world.look(OLD)["quarantined"] == []


def test_words_about_a_secret_file_are_not_repeated(world):
    result = apply(world, NEW, secrets=["sites/a"])
    assert {one["path"]: one["reason"] for one in result["quarantined"]}[world.path("sites/a")] == CONFIDENTIAL


def test_edit_by_hand_of_a_quarantined_file_is_still_refused(world):
    apply(world, NEW)
    world.write("sites/a", "by hand\n")
    with pytest.raises(TreeError, match="was edited by hand"):
        apply(world, NEW)


@pytest.mark.parametrize("how", ["before", "after", "torn"])
def test_kill_at_any_step_leaves_all_or_nothing(tmp_path, how):
    for step in range(200):
        directory = tmp_path / str(step)
        directory.mkdir()
        world = World(directory)
        apply(world, OLD)
        try:
            apply(world, NEW, disk=Faulty(step, how))
        except Killed:
            pass
        else:
            break
        world.look(OLD)  # recovers first
        assert files(world) in (OLD, AFTER), f"half-written after a kill at step {step}"
        apply(world, NEW)
        assert files(world) == AFTER
        assert len(world.drift()) == 2
    assert step > 20


contents = st.sampled_from(["good 1\n", "good 2\n", "bad 1\n", "bad 2\n"])
sets = st.dictionaries(st.sampled_from("abcdefgh"), contents, max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(sets, min_size=1, max_size=4))
def test_each_file_is_as_last_wanted_without_a_fault(rounds):
    with tempfile.TemporaryDirectory() as directory:
        world, expected = World(directory), {}
        for wanted in rounds:
            wanted = {f"sites/{name}": text for name, text in wanted.items()}
            result = apply(world, wanted, allow_removal=["sites"])
            bad = {name for name, text in wanted.items() if "bad" in text}
            expected = {name: expected.get(name) if name in bad else text for name, text in wanted.items()}
            expected = {name: text for name, text in expected.items() if text is not None}
            assert files(world) == expected
            assert {one["path"] for one in result["quarantined"]} == {world.path(name) for name in bad}
            assert not apply(world, wanted, allow_removal=["sites"])["changed"]


def test_what_a_command_says_is_read_as_it_is_said():
    paths = {"/etc/a.conf", "/etc/b.conf", "/etc/b.conf.d"}
    assert last_named("ERROR: [/etc/a.conf:12] unknown entry 'x'\nUnable to include /etc/z.conf at line 2", paths) == (
        "/etc/a.conf",
        "ERROR: [/etc/a.conf:12] unknown entry 'x'",
    )
    apache = "AH00526: Syntax error on line 3 of /etc/b.conf:\nInvalid command 'Foo'\nAction 'configtest' failed."
    assert last_named(apache, paths) == (
        "/etc/b.conf",
        "AH00526: Syntax error on line 3 of /etc/b.conf: Invalid command 'Foo'",
    )
    assert last_named("cannot read /etc/b.conf.", paths) == ("/etc/b.conf", "cannot read /etc/b.conf.")
    assert last_named("cannot read /etc/b.conf.bak nor /srv/etc/a.conf", paths) is None


def test_the_directory_of_a_file_in_quarantine_outlives_its_neighbours(world):
    more = {"owned": ["sites"]}
    apply(world, {**OLD, "sites/8.3/old": "x\n"}, **more)
    wanted = {**OLD, "sites/8.3/new": "bad\n"}
    script = 'if grep -r bad "$0"; then exit 1; fi'
    rules = (Validation((world.path("sites/**"),), ("sh", "-c", script, world.path("sites")), quarantine=True),)
    left = world.apply(wanted, validations=rules, prune=False, **more)["left"]
    assert left == [world.path("sites/8.3/old")]
    world.apply({}, left=left, validations=rules, **more)
    assert os.listdir(world.path("sites/8.3")) == []
