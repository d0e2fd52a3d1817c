# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What host_tree decides, by examples."""

import grp
import hashlib
import os
import pwd
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from host_tree_world import World

from hosting import tree, tree_read
from hosting.tree_disk import Disk
from hosting.tree_model import Entry, Memory, Notification, Request, TreeError, Validation, matches, shown
from hosting.tree_read import Owners


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def paths(result, action=None):
    return [os.path.basename(one["path"]) for one in result["changes"] if action in (None, one["action"])]


def test_first_run_writes_second_run_finds_nothing(world):
    files = {"etc/a.conf": "a\n", "etc/b": ("link", "a.conf")}
    assert world.look(files)["need"] == [world.path("etc/a.conf")]
    assert world.apply(files)["changed"]
    assert world.read("etc/b") == "a\n"
    assert not world.look(files)["changed"]
    assert not world.apply(files)["changed"]


def test_mode_is_repaired_without_sending_the_content(world):
    world.apply({"a": "a"}, modes={"a": 0o600})
    os.chmod(world.path("a"), 0o640)
    result = world.look({"a": "a"}, modes={"a": 0o600})
    assert result["changed"]
    assert result["need"] == []
    world.apply({"a": "a"}, modes={"a": 0o600})
    assert os.stat(world.path("a")).st_mode & 0o777 == 0o600


def test_edit_by_hand_is_refused_named_and_kept(world):
    world.apply({"a": "ours\n"})
    world.write("a", "theirs\n")
    with pytest.raises(TreeError, match=r"a was edited by hand.*--overwrite .*host_tree_overwrite") as refused:
        world.apply({"a": "new\n"})
    assert "-theirs\n+new" in str(refused.value)
    assert world.read("a") == "theirs\n"
    world.apply({"a": "new\n"}, overwrite=["a"])
    assert world.read("a") == "new\n"


def test_edit_by_hand_is_refused_even_when_the_tree_did_not_change(world):
    world.apply({"a": "ours\n"})
    world.write("a", "theirs\n")
    assert world.look({"a": "ours\n"})["refused"]


def test_edit_that_says_what_the_tree_says_is_fine(world):
    world.apply({"a": "ours\n"})
    world.write("a", "new\n")
    assert not world.look({"a": "new\n"})["changed"]
    assert world.drift() == []


def test_unknown_file_is_refused_unless_adopted_or_equal(world):
    world.write("foreign", "kept for years\n")
    with pytest.raises(TreeError, match="was there before us"):
        world.apply({"foreign": "ours\n"})
    assert not world.look({"foreign": "kept for years\n"}, check_mode=True)["changed"]
    world.apply({"foreign": "ours\n"}, adopt=["foreign"])
    assert world.read("foreign") == "ours\n"


def test_empty_unknown_file_has_nothing_to_lose(world):
    world.write("empty", "")
    world.apply({"empty": "ours\n"})
    assert world.read("empty") == "ours\n"


@pytest.mark.parametrize(
    ("database", "line"),
    [
        ("var/lib/dpkg/status", "Package: x\nConffiles:\n {path} {md5}\n"),
        ("var/lib/dpkg/status", "Package: x\nConffiles:\n {path} {md5} obsolete\n"),
        ("var/lib/ucf/hashfile", "{md5}  {path}\n"),
    ],
)
def test_pristine_file_of_a_package_may_be_replaced(tmp_path, database, line):
    path = tmp_path / "x.conf"
    path.write_text("shipped")
    status = tmp_path / database
    status.parent.mkdir(parents=True)
    state = tree_read.read_state(str(path))
    for shipped in (b"shipped", b"another version"):
        checksum = hashlib.md5(shipped, usedforsecurity=False).hexdigest()
        status.write_text(line.format(path=path, md5=checksum))
        assert tree_read.Packages(str(tmp_path)).ship(str(path), state) == (shipped == b"shipped")


def test_file_that_left_the_tree_goes_with_its_empty_directory(world):
    world.apply({"etc/x/a": "a", "etc/b": "b"})
    result = world.apply({"etc/b": "b"})
    assert paths(result) == ["a"]
    assert not os.path.exists(world.path("etc/x"))
    assert world.read("etc/b") == "b"


def test_file_that_left_the_tree_stays_when_edited_by_hand(world):
    world.apply({"a": "a", "b": "b"})
    world.write("a", "theirs")
    with pytest.raises(TreeError, match="left the tree"):
        world.apply({"b": "b"})
    assert world.read("a") == "theirs"
    world.apply({"b": "b"}, overwrite=["a"])
    assert not os.path.exists(world.path("a"))


def test_owned_directory_holds_nothing_else(world):
    world.write("etc/sites/foreign", "x")
    os.symlink("nowhere", world.path("etc/sites/link"))
    world.write("etc/sites/deep/er", "x")
    world.apply({"etc/sites/a": "a"}, owned=["etc/sites"])
    assert sorted(os.listdir(world.path("etc/sites"))) == ["a"]


def test_brake_stops_a_plan_that_empties_a_set(world):
    many = {f"etc/pools/{number}": "x" for number in range(20)}
    world.apply(many, owned=["etc/pools"])
    few = {f"etc/pools/{number}": "x" for number in range(13)}
    with pytest.raises(TreeError, match=r"remove 7 of the 20 files in .*host_tree_allow_removal"):
        world.look(few, owned=["etc/pools"])
    assert world.apply({**few, "etc/pools/13": "x"}, owned=["etc/pools"])["changed"]
    world.apply({}, owned=["etc/pools"], allow_removal=["etc/pools"])
    assert os.listdir(world.path("etc/pools")) == []


def test_brake_counts_what_somebody_wrote_but_not_links(world):
    for number in range(5):
        world.write(f"etc/sites/{number}", "written by hand")
        os.symlink("x", world.path(f"etc/sites/link{number}"))
    with pytest.raises(TreeError, match="remove 5 of the 5"):
        world.apply({"etc/sites/a": "a"}, owned=["etc/sites"])
    for number in range(5):
        os.unlink(world.path(f"etc/sites/{number}"))
    world.apply({"etc/sites/a": "a"}, owned=["etc/sites"])


def test_brake_lets_a_set_be_renamed(world):
    world.apply({f"etc/pools/7.4/{number}": "x" for number in range(5)}, owned=["etc/pools"])
    world.apply({f"etc/pools/8.2/{number}": "x" for number in range(5)}, owned=["etc/pools"])
    assert os.listdir(world.path("etc/pools")) == ["8.2"]


def test_absent_file_goes_whoever_wrote_it(world):
    world.write("etc/default", "x")
    assert paths(world.apply({}, absent=["etc/default"]), "remove") == ["default"]
    assert not world.look({}, absent=["etc/default"])["changed"]


def test_directory_where_a_file_should_be(world):
    os.makedirs(world.path("etc/a/b"))
    before = world.snapshot()
    with pytest.raises(TreeError, match="should be a file, but a directory stands there"):
        world.apply({"etc/a": "x", "etc/other": "y"})
    assert world.snapshot() == before


def test_file_where_a_directory_should_be(world):
    world.write("etc", "a file")
    before = world.snapshot()
    with pytest.raises(TreeError, match="should be a directory, but a file stands there"):
        world.apply({"etc/a": "x"})
    with pytest.raises(TreeError, match="should be a directory, but a file stands there"):
        world.apply({}, directories=["etc"])
    assert world.snapshot() == before


def test_link_in_place_of_a_file_is_never_followed(world):
    world.write("outside", "precious")
    world.write("etc/x", "")
    os.symlink("../outside", world.path("etc/a"))
    with pytest.raises(TreeError, match="was there before us"):
        world.apply({"etc/a": "ours"})
    world.apply({"etc/a": "ours"}, overwrite=["etc/a"])
    assert world.read("outside") == "precious"
    assert not os.path.islink(world.path("etc/a"))


def test_socket_in_place_of_a_file_is_refused(world):
    os.mkfifo(world.path("a"))
    with pytest.raises(TreeError, match="device, socket or pipe"):
        world.apply({"a": "x"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
def test_directory_link_of_another_user_is_refused(world):
    os.mkdir(world.path("real"))
    os.symlink("real", world.path("etc"))
    world.apply({"etc/fine": "root's own link is followed"})
    os.chown(world.path("etc"), 1000, 1000, follow_symlinks=False)
    with pytest.raises(TreeError, match="symbolic link that a user made"):
        world.apply({"etc/fine": "x"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_swapped_for_a_link_at_the_wrong_moment_is_not_followed(world):
    os.makedirs(world.path("outside"))
    world.write("home/www/x", "")
    os.chown(world.path("home"), 1000, 1000)

    class Swapped(Disk):
        """The member acts between our look and our first write."""

        def create(self, path, content, state):
            if not os.path.islink(world.path("home/www")):
                os.rename(world.path("home/www"), world.path("home/away"))
                os.symlink(world.path("outside"), world.path("home/www"))
            super().create(path, content, state)

    with pytest.raises(TreeError, match="a link that somebody else made"):
        world.apply({"home/www/index": "ours"}, disk=Swapped())
    assert os.listdir(world.path("outside")) == []


def test_unknown_owner_is_one_sentence_and_tolerated_in_check_mode(world):
    request = world.request({"a": "x"})
    request = replace(request, entries=(replace(request.entries[0], owner="nobody-by-that-name"),))
    with pytest.raises(TreeError, match="belong to the user nobody-by-that-name, which does not exist"):
        tree.look(request, check_mode=False, trees=world.trees)
    assert tree.look(request, check_mode=True, trees=world.trees)["changed"]


def test_file_may_move_from_one_role_to_another(world, tmp_path):
    other = World(tmp_path, name="other")
    world.apply({"etc/a": "one\n", "etc/b": "b"})
    other.apply({"etc/a": "two\n"})
    assert not world.look({"etc/b": "b"})["changed"]
    assert other.read("etc/a") == "two\n"
    assert world.drift() == []


def test_owned_directory_leaves_other_roles_files(world, tmp_path):
    World(tmp_path, name="other").apply({"etc/conf.d/theirs": "x"})
    world.apply({"etc/conf.d/ours": "x"}, owned=["etc/conf.d"])
    assert sorted(os.listdir(world.path("etc/conf.d"))) == ["ours", "theirs"]


def test_handlers_are_named_for_what_changed_only(world):
    notify = (Notification(world.path("etc/a*"), ("Reload a",)), Notification(world.path("**"), ("Any", "Reload a")))
    files = {"etc/a": "a", "etc/b": "b"}
    assert world.apply(files, notifications=notify)["notify"] == ["Reload a", "Any"]
    assert world.apply({**files, "etc/b": "c"}, notifications=notify[:1])["notify"] == []
    assert world.look(files, notifications=notify)["notify"] == ["Any", "Reload a"]
    assert world.look({**files, "etc/b": "c"}, notifications=notify)["notify"] == []


def test_handlers_of_a_broken_run_are_owed_to_the_next_until_confirmed(world):
    more = {"notifications": (Notification("**", ("Reload",)),)}
    world.apply({"a": "a"}, run="first", **more)
    assert world.look({"a": "a"}, run="second", check_mode=True, **more)["pending"] == ["Reload"]
    assert world.look({"a": "a"}, run="second", **more)["notify"] == ["Reload"]
    assert tree.confirm(None, "first", world.trees) == []
    assert tree.confirm(None, "second", world.trees) == ["role"]
    result = world.look({"a": "a"}, run="third", **more)
    assert (result["notify"], result["changed"]) == ([], False)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("etc/*.conf", ["/etc/a.conf", "/etc/.conf"], ["/etc/a/b.conf", "/etc/aconf"]),
        ("etc/**", ["/etc/a", "/etc/a/b"], ["/etc", "/etcetera"]),
        ("etc/**/x", ["/etc/x", "/etc/a/b/x"], ["/etc/ax"]),
        ("/etc/[pool].c", ["/etc/[pool].c"], ["/etc/p.c"]),
        ("a?c", ["/abc"], ["/a/c", "/ac"]),
    ],
)
def test_patterns(pattern, yes, no):
    assert all(matches(path, pattern) for path in yes)
    assert not any(matches(path, pattern) for path in no)


def test_request_and_memory_survive_the_journey(world):
    request = world.request({"a \udcff\n": "x"}, secrets=["a"], validations=(Validation(("x",), ("true",)),), run="r")
    assert Request.unpack(request.pack()) == request
    assert Memory.load(Memory().dump()) == Memory()


def test_names_are_shown_printable():
    assert shown("/etc/\udcff\n\x1b[1m é") == "/etc/\\xff\\n\\x1b[1m é"


def test_damaged_memory_is_one_sentence(world):
    world.apply({"a": "a"})
    Path(world.trees, "role/memory.json").write_text("{")
    with pytest.raises(TreeError, match="is damaged"):
        world.look({"a": "a"})


def test_owners_are_read_all_at_once_and_asked_by_name_where_nobody_lists_them(monkeypatch):
    person, group = namedtuple("P", "pw_name pw_uid"), namedtuple("G", "gr_name gr_gid")
    monkeypatch.setattr(pwd, "getpwall", lambda: [person("velo", 1001), person("velo", 9)])
    monkeypatch.setattr(grp, "getgrall", lambda: [group("velo", 1002)])
    asked = []
    monkeypatch.setattr(pwd, "getpwnam", lambda name: asked.append(name) or person(name, 7))
    owners = Owners(lenient=False)
    entry = Entry("/a", "file", "", 0o644, "velo", "velo")
    assert owners.ids(entry) == (1001, 1002)
    assert owners.ids(replace(entry, owner="distant")) == (7, 1002)
    assert asked == ["distant"]


def test_what_is_no_longer_declared_can_wait_for_a_later_task(world):
    world.write("etc/pools/by\u00a0hand", "x")
    world.apply({"etc/pools/old": "x"}, owned=["etc/pools"], prune=False)
    new = {"etc/pools/new": "x"}
    for check_mode in (True, False):
        result = world.apply(new, owned=["etc/pools"], prune=False, check_mode=check_mode)
        assert paths(result) == ["new"]
        assert sorted(result["left"]) == [world.path(r"etc/pools/by\xa0hand"), world.path("etc/pools/old")]
    assert sorted(os.listdir(world.path("etc/pools"))) == ["by\u00a0hand", "new", "old"]
    assert not world.look(new, owned=["etc/pools"], prune=False)["changed"]
    assert world.drift() == []
    removed = [r"by\xa0hand", "old"]
    assert sorted(paths(world.look({}, left=result["left"], owned=["etc/pools"], check_mode=True))) == removed
    result = world.apply({}, left=result["left"], owned=["etc/pools"])
    assert sorted(paths(result, "remove")) == removed
    assert result["left"] == []
    assert os.listdir(world.path("etc/pools")) == ["new"]
    assert not world.look(new, owned=["etc/pools"])["changed"]


def test_task_that_removes_what_was_left_touches_nothing_else(world):
    both = {"etc/pools/old": "x", "etc/pools/new": "x", "elsewhere/new": "x"}
    world.apply(both, owned=["etc/pools"])
    new = {name: text for name, text in both.items() if not name.endswith("old")}
    left = world.apply(new, owned=["etc/pools"], prune=False)["left"]
    world.write("etc/pools/by-hand", "came after it")
    world.apply({}, left=left, owned=["etc/pools"])
    assert sorted(os.listdir(world.path("etc/pools"))) == ["by-hand", "new"]
    assert world.drift() == []
    assert not world.look(new, prune=False)["changed"]


def test_task_that_removes_what_was_left_spares_edits_and_strangers(world):
    world.apply({"etc/pools/old": "x", "elsewhere/mine": "x"}, owned=["etc/pools"])
    left = world.apply({"elsewhere/mine": "x"}, owned=["etc/pools"], prune=False)["left"]
    world.write("etc/pools/old", "by hand")
    world.write("elsewhere/theirs", "x")
    with pytest.raises(TreeError, match="edited by hand"):
        world.apply({}, left=left, owned=["etc/pools"])
    with pytest.raises(TreeError, match="not this tree's to remove"):
        world.apply({}, left=[world.path("elsewhere/theirs")], owned=["etc/pools"])
    os.remove(world.path("etc/pools/old"))
    assert not world.look({}, left=left, owned=["etc/pools"])["changed"]
    assert world.drift() == []


def test_brake_judges_what_is_left_beside_what_takes_its_place(world):
    old = {f"etc/pools/7.4/{number}": "x" for number in range(5)}
    new = {f"etc/pools/8.2/{number}": "x" for number in range(5)}
    world.apply(old, owned=["etc/pools"])
    with pytest.raises(TreeError, match="remove 5 of the 5"):
        world.look({}, owned=["etc/pools"], prune=False)
    world.apply(new, owned=["etc/pools"], prune=False)
    left = world.apply(new, owned=["etc/pools"], prune=False)["left"]  # the later task never came
    world.apply({}, left=left, owned=["etc/pools"])
    assert os.listdir(world.path("etc/pools")) == ["8.2"]
    with pytest.raises(TreeError, match="remove 5 of the 5"):
        world.look({}, owned=["etc/pools"], prune=False)


def test_memory_of_an_earlier_version_is_understood():
    memory = Memory.load('{"files": {}, "directories": [], "pending": [], "run": "", "transaction": "x"}')
    assert (memory.transaction, memory.left, memory.quarantined) == ("x", (), {})
