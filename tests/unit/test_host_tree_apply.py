# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""All or nothing: failed validations, errors and kills at every step, and the properties that must always hold."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from host_tree_world import World, as_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from hosting.tree_disk import Disk
from hosting.tree_model import TreeError, Validation

OLD = {
    "etc/changed": "one\n",
    "etc/gone": "gone\n",
    "etc/same": "same\n",
    "etc/link": ("link", "same"),
    "etc/mode": "m",
}
NEW = {"etc/changed": "two\n", "etc/new/deep": "n\n", "etc/same": "same\n", "etc/link": ("link", "x"), "etc/mode": "m"}
NEW_MODES = {"etc/mode": 0o600}
STEPS = (
    "create",
    "create_link",
    "make_directory",
    "set_attributes",
    "overwrite",
    "link",
    "rename",
    "remove",
    "sync",
    "save",
)


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing after it runs."""


class Faulty(Disk):
    """Fails at its n-th step: dies for good (before, after or in the middle of it), or errs once."""

    def __init__(self, step, how):
        self.left = step
        self.how = how
        self.dead = False

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        return self.strike(name, method) if name in STEPS else method

    def strike(self, name, method):
        def step(path, *rest):
            if self.dead:
                raise Killed
            self.left -= 1
            if self.left != -1:
                return method(path, *rest)
            if self.how == "error":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            self.dead = True
            if self.how == "after":
                Disk.__dict__[name](Disk(), path, *rest)
            if self.how == "torn" and name in ("create", "overwrite"):
                Disk.__dict__[name](Disk(), path, rest[0][: len(rest[0]) // 2], *rest[1:])
            if self.how == "torn" and name == "save":
                Path(path + ".new").write_bytes(rest[0][: len(rest[0]) // 2])
            raise Killed

        return step


def begin(directory):
    world = World(directory)
    world.apply(OLD)
    return world, world.snapshot()


def relative(snapshot, world):
    return {path.removeprefix(os.fsencode(world.root)): state for path, state in snapshot.items()}


@pytest.mark.parametrize("how", ["before", "after", "torn"])
def test_kill_at_any_step_leaves_all_or_nothing(tmp_path, how):
    after = None
    for step in range(200):
        directory = tmp_path / str(step)
        directory.mkdir()
        world, before = begin(directory)
        try:
            world.apply(NEW, modes=NEW_MODES, disk=Faulty(step, how))
        except Killed:
            pass
        else:
            break
        world.look(OLD)  # recovers first
        found = relative(world.snapshot(), world)
        after = after or expected_after(tmp_path)
        assert found in (relative(before, world), after), f"half-written after a kill at step {step}"
        assert not os.path.exists(os.path.join(world.trees, "role/journal.json"))
        world.apply(NEW, modes=NEW_MODES)
        assert relative(world.snapshot(), world) == after
    assert step > 20


def expected_after(tmp_path):
    directory = tmp_path / "expected"
    directory.mkdir()
    world, _before = begin(directory)
    world.apply(NEW, modes=NEW_MODES)
    return relative(world.snapshot(), world)


def test_error_at_any_step_puts_everything_back(tmp_path):
    failures = 0
    for step in range(70):
        directory = tmp_path / str(step)
        directory.mkdir()
        world, before = begin(directory)
        memory = Path(world.trees, "role/memory.json").read_text()
        said = ""
        try:
            world.apply(NEW, modes=NEW_MODES, disk=Faulty(step, "error"))
        except TreeError as problem:
            said = str(problem)
        if said:
            failures += 1
            assert "free some space" in said
            assert world.snapshot() == before
            assert Path(world.trees, "role/memory.json").read_text() == memory
        else:
            # It had happened already: at most the leftovers are still there, and the next run removes them.
            assert not world.look(NEW, modes=NEW_MODES)["changed"]
            assert relative(world.snapshot(), world) == expected_after(directory)
    assert 20 < failures < 60


def test_failed_validation_puts_everything_back_and_tells_why(tmp_path):
    world, before = begin(tmp_path)
    bad = (Validation((world.path("etc/**"),), ("sh", "-c", "echo line 3: oops; exit 3")),)
    with pytest.raises(TreeError, match=r"ended with status 3; every file was put back as it was: line 3: oops"):
        world.apply(NEW, validations=bad)
    assert world.snapshot() == before
    assert world.look(OLD)["changed"] is False


def test_validation_sees_the_new_files_and_runs_only_for_its_own(tmp_path):
    world, _before = begin(tmp_path)
    grep = (Validation((world.path("etc/changed"),), ("grep", "-q", "two", world.path("etc/changed"))),)
    world.apply(NEW, validations=grep)
    other = (Validation((world.path("other/**"),), ("false",)),)
    world.apply({**NEW, "etc/changed": "three"}, validations=other)
    missing = (Validation(("**",), ("no-such-command-here",)),)
    with pytest.raises(TreeError, match="does not exist on this host"):
        world.apply(NEW, validations=missing)


def test_kill_between_swap_and_validation_is_undone_by_the_next_run(tmp_path):
    world, before = begin(tmp_path)
    if (child := os.fork()) == 0:
        world.apply(NEW, validations=(Validation(("**",), ("sh", "-c", "kill -9 $PPID")),))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 9
    assert world.read("etc/changed") == "two\n"
    assert world.look(OLD, check_mode=True)["interrupted"]
    assert world.drift()[0]["state"] == "interrupted"
    assert len(world.look(OLD)["put_back"]) > 0
    assert world.snapshot() == before


def test_edit_made_after_a_kill_survives_the_recovery(tmp_path):
    world, _before = begin(tmp_path)
    if (child := os.fork()) == 0:
        world.apply(NEW, validations=(Validation(("**",), ("sh", "-c", "kill -9 $PPID")),))
        os._exit(0)
    os.waitpid(child, 0)
    world.write("etc/changed", "by hand\n")
    assert world.look(OLD)["refused"]
    assert world.read("etc/changed") == "by hand\n"


def test_mount_point_is_written_in_place_and_put_back_in_place(tmp_path, monkeypatch):
    world, _before = begin(tmp_path)
    path = world.path("etc/changed")
    monkeypatch.setattr("hosting.tree_apply.mount_points", lambda: {path})
    inode = os.stat(path).st_ino
    for how in ("before", "after", "torn"):
        for step in range(40):
            try:
                world.apply({**OLD, "etc/changed": "in place\n"}, disk=Faulty(step, how))
            except Killed:
                world.look(OLD)
                assert world.read("etc/changed") in ("one\n", "in place\n")
            else:
                break
        assert world.read("etc/changed") == "in place\n"
        assert os.stat(path).st_ino == inode
        world.apply(OLD)
    assert [name for name in os.listdir(os.path.join(world.trees, "role")) if name.startswith("backup")] == []


def test_file_system_without_hard_links(tmp_path):
    class NoLinks(Disk):
        def link(self, path, _new):
            raise PermissionError(errno.EPERM, "no hard links here", path)

    world, before = begin(tmp_path)
    with pytest.raises(TreeError):
        world.apply(NEW, disk=NoLinks(), validations=(Validation(("**",), ("false",)),))
    assert world.snapshot() == before
    world.apply(NEW, disk=NoLinks())
    assert world.read("etc/changed") == "two\n"


def test_read_only_file_system_is_one_sentence(tmp_path):
    class ReadOnly(Disk):
        def create(self, path, *_rest):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    world, before = begin(tmp_path)
    with pytest.raises(TreeError, match=r"everything was put back: .*mounted read-only"):
        world.apply(NEW, disk=ReadOnly())
    assert world.snapshot() == before


def test_memory_is_private(tmp_path):
    world, _before = begin(tmp_path)
    assert os.stat(world.trees).st_mode & 0o777 == 0o700
    for where, _directories, files in os.walk(os.path.join(world.trees, "role/copies")):
        assert {os.stat(os.path.join(where, name)).st_mode & 0o777 for name in files} == {0o600}


def test_check_mode_writes_nothing_at_all(tmp_path):
    world, _before = begin(tmp_path)
    before = world.snapshot(tmp_path)
    result = world.apply(NEW, modes=NEW_MODES, check_mode=True)
    world.look(NEW, check_mode=True)
    assert {os.path.basename(one["path"]) for one in result["changes"]} == {
        "changed",
        "deep",
        "new",
        "link",
        "mode",
        "gone",
    }
    assert "-one\n+two" in "".join(one["prepared"] for one in result["diff"])
    assert world.snapshot(tmp_path) == before


def test_check_mode_on_an_empty_host(tmp_path):
    world = World(tmp_path)
    assert world.apply(NEW, check_mode=True)["changed"]
    assert world.snapshot(tmp_path).keys() == {os.fsencode(world.root)}


def test_drift_shows_what_was_changed_by_hand(tmp_path):
    world = World(tmp_path)
    world.apply({"a": "one\n", "b": "b", "c": "c", "key": "S3CRET\n"}, secrets=["key"])
    assert world.drift() == []
    world.write("a", "two\n")
    os.unlink(world.path("b"))
    os.chmod(world.path("c"), 0o600)
    world.write("key", "S3CRET too\n")
    found = {os.path.basename(one["path"]): one for one in world.drift()}
    assert {name: one["state"] for name, one in found.items()} == {
        "a": "modified",
        "b": "missing",
        "c": "attributes",
        "key": "modified",
    }
    assert "-one\n+two" in found["a"]["diff"]
    assert "0644" in found["c"]["diff"]
    assert "S3CRET" not in json.dumps(found)


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and not name.startswith(".infini-") and encodes(name)
)
texts = st.one_of(st.binary(max_size=40), st.tuples(st.just("link"), names))
layouts = st.dictionaries(st.tuples(st.sampled_from(["d1", "-d 2", ".d3"]), names).map("/".join), texts, max_size=8)


def encodes(name):
    try:
        return len(os.fsencode(name)) < 200
    except UnicodeEncodeError:
        return False


def free(*layouts):
    return {"allow_removal": {os.path.dirname(name) for layout in layouts for name in layout}}


@settings(max_examples=60, deadline=None)
@given(layouts, layouts, st.booleans())
def test_applying_and_planning_again_gives_nothing(old, new, owned):
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        world.apply(old)
        more = {**free(old, new), "owned": ["d1"] if owned else []}
        world.apply(new, **more)
        assert not world.look(new, **more)["changed"]
        assert tracked(world) == {os.fsencode(world.path(name)) for name in new}
        for name, content in new.items():
            path = world.path(name)
            found = ("link", os.readlink(path)) if isinstance(content, tuple) else Path(path).read_bytes()
            assert found == content


def tracked(world):
    return {path for path, state in world.snapshot().items() if state[0] >> 12 != 4}


@settings(max_examples=60, deadline=None)
@given(layouts, layouts, layouts)
def test_what_somebody_wrote_by_hand_is_never_lost(old, edits, new):
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        world.apply(old)
        edits = {name: content for name, content in edits.items() if not isinstance(content, tuple) and content}
        for name, content in edits.items():
            if os.path.lexists(world.path(name)):
                os.unlink(world.path(name))
            world.write(name, content)
        before = world.snapshot()
        try:
            world.apply(new, **free(old, new))
        except TreeError:
            assert world.snapshot() == before
        for name, content in edits.items():
            if old.get(name) != content:
                assert Path(world.path(name)).read_bytes() == content


@settings(max_examples=60, deadline=None)
@given(layouts, layouts, st.integers(0, 60), st.sampled_from(["before", "after", "torn", "error"]))
def test_random_trees_survive_random_faults(old, new, step, how):
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        more = free(old, new)
        world.apply(old)
        before = world.snapshot()
        try:
            world.apply(new, disk=Faulty(step, how), **more)
        except (Killed, TreeError, OSError):
            world.look(old, **more)
            assert world.snapshot() == before or tracked(world) == {os.fsencode(world.path(name)) for name in new}
        world.apply(new, **more)
        assert not world.look(new, **more)["changed"]


@settings(max_examples=60, deadline=None)
@given(layouts, layouts, layouts)
def test_secrets_never_show(old, edits, new):
    secret = {name: as_bytes("S3CRET ") + content for name, content in new.items() if not isinstance(content, tuple)}
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        said = [world.apply(dict.fromkeys(old, "S3CRET old"), secrets=list(old))]
        for name in edits:
            world.write(name, "S3CRET by hand")
        more = {"secrets": list({*old, *new, *edits}), **free(old, new)}
        for overwrite in ([], list({*new, *edits, *old})):
            try:
                said.append(world.apply(secret, check_mode=True, overwrite=overwrite, **more))
                said.append(world.apply(secret, overwrite=overwrite, **more))
            except TreeError as problem:
                said.append(str(problem))
        said.append(world.drift())
        memory = [content for *_rest, content in world.snapshot(world.trees).values()]
        assert "S3CRET" not in json.dumps(said)
        assert not any(b"S3CRET" in content for content in memory)
