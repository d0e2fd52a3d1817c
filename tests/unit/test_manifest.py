# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive must contain: a tree equals its own manifest, and each single change of it is one finding."""

import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting import manifest

LONG_AGO = 1_600_000_000 * 10**9
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def acl(*entries):
    """Write an access list as the kernel keeps it: (tag, permissions, number)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ALICE_READS = acl((1, 6, 0xFFFFFFFF), (2, 4, 4242), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))


class Tree:
    """A source, its manifest and its cache; all its times are long ago."""

    def __init__(self, folder, service="mail"):
        self.folder, self.service = Path(folder), service
        self.source = self.folder / "source"
        self.kept = self.folder / "kept"
        self.source.mkdir()
        self.kept.mkdir()

    def write(self, files):
        for name, content in files.items():
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is None:
                path.mkdir(exist_ok=True)
            else:
                path.symlink_to(content)
        self.age()
        return self

    def age(self):
        """Nothing has changed for long, as far as the times tell."""
        for folder, directories, files in os.walk(self.source, topdown=False):
            for name in (*directories, *files):
                os.utime(Path(folder, name), ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
        os.utime(self.source, ns=(LONG_AGO, LONG_AGO))

    def make(self, **options):
        options.setdefault("cache", str(self.folder / "cache"))
        return manifest.make(str(self.kept), self.service, [str(self.source)], **options)

    def compare(self, to="", paths=None):
        return manifest.compare(str(self.kept), str(to), paths)

    def findings(self, to=""):
        """Return code and path of what is found, the path without that of the source."""
        found = self.compare(to)["findings"]
        return {(one["code"], one["what"].removeprefix(str(self.source)).lstrip("/")) for one in found}

    def restored(self):
        """Copy the source to a place beside, as an archive would bring it back; return that place."""
        to = self.folder / "restored"
        (to / self.folder.relative_to("/")).mkdir(parents=True)
        subprocess.run(["cp", "-a", self.source, to / self.folder.relative_to("/")], check=True)
        return to


MAILS = {
    "cur/1.a:2,S": b"a message\n",
    "cur/2.b:2,": b"another\n",
    "new": None,
    "tmp/link": "../cur",
    "été \udce9": b"a name that is not UTF-8\n",
}


@pytest.fixture
def tree(tmp_path):
    """Give a small tree."""
    return Tree(tmp_path).write(MAILS)


# --- equal ----------------------------------------------------------------------------------------------------------


def test_tree_equals_its_own_manifest_where_it_is_and_where_it_was_restored(tree):
    header = tree.make(meanwhile=lambda: {"counts": {"messages": 2}})
    assert header["sources"] == {
        str(tree.source): {"files": 3, "directories": 4, "links": 1, "others": 0, "bytes": 43},
    }
    assert (header["hashed"], header["reused"], header["unreadable"], header["rotten"]) == (3, 0, [], [])
    assert manifest.read_header(str(tree.kept)) == header
    assert header["counts"] == {"messages": 2}
    for to in ("", tree.restored()):
        assert tree.compare(to) == {"files": 3, "bytes": 43, "moved_on": 0, "findings": [], "left_off": {}}


names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..")
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
trees = st.dictionaries(paths, st.binary(max_size=20), max_size=8).map(
    lambda files: {path: content for path, content in files.items() if not any(o.startswith(f"{path}/") for o in files)}
)


@given(trees)
def test_any_tree_equals_its_own_manifest_and_a_second_one_hashes_nothing_anew(files):
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(folder).write(files)
        time.sleep(0.01)  # the clock that stamps files ticks a hundred times a second
        assert tree.make()["hashed"] == len(files)
        first = (tree.kept / manifest.ENTRIES).read_bytes()
        answer = tree.compare()
        assert (answer["findings"], answer["files"]) == ([], len(files))
        again = tree.make()
        assert (again["hashed"], again["reused"]) == (0, len(files))
        assert (tree.kept / manifest.ENTRIES).read_bytes() == first


def test_what_stands_in_a_folder_comes_before_its_neighbours(tree):
    tree.write({"a/x": b"1", "a-b": b"2", "a.b": b"3", "a0": b"4"})
    time.sleep(0.01)
    tree.make()
    assert tree.make()["hashed"] == 0
    (tree.source / "a-b").unlink()
    tree.age()
    assert tree.findings() == {("missing", "a-b")}


@given(st.lists(paths.map(lambda path: f"/{path}")))
def test_outermost_paths_cover_all_paths_and_none_covers_another(given_paths):
    kept = manifest.outermost(given_paths)
    normal = [os.path.normpath(path) for path in given_paths]
    assert all(any(manifest.is_inside(path, top) for top in kept) for path in normal)
    assert not any(manifest.is_inside(one, other) for one in kept for other in kept if one != other)


def test_sources_may_be_files_may_not_be_there_and_may_stand_inside_one_another(tree):
    given_sources = [tree.source / "cur", tree.source / "cur/1.a:2,S", tree.source / "été \udce9", tree.source / "no"]
    header = manifest.make(str(tree.kept), "mail", map(str, given_sources))
    files = {Path(path).name: total["files"] for path, total in header["sources"].items()}
    assert files == {"cur": 2, "été \udce9": 1, "no": 0}
    assert tree.compare()["findings"] == []


def test_sockets_and_what_is_left_out_are_no_part_of_it(tree):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree.source / "s"))
        tree.make(left_out=[str(tree.source / "cur")])
        lines = (tree.kept / manifest.ENTRIES).read_text().splitlines()
        assert [Path(json.loads(line)[0]).name for line in lines] == ["source", "new", "tmp", "link", "été \udce9"]
        assert tree.findings() == set()


def test_patterns_of_what_is_left_out_stay_within_a_name(tree):
    tree.write({"a/tmp/1": b"", "a/tmp/2/3": b"", "b/tmp": b"", "a/b/tmp/4": b"", "tmp1": b"", "a/x[1]": b""})
    tree.make(left_out=[f"{tree.source}/*/tmp/?", f"{tree.source}/tm*", f"{tree.source}/a/x[1]"])
    held = [json.loads(line)[0] for line in (tree.kept / manifest.ENTRIES).read_text().splitlines()]
    inside = {str(Path(path).relative_to(tree.source)) for path in held}
    assert inside >= {"a/tmp", "a/b/tmp/4", "b/tmp"}
    assert not {"a/tmp/1", "a/tmp/2", "a/tmp/2/3", "tmp", "tmp1", "a/x[1]"} & inside
    assert tree.findings() == set()


def test_part_of_it_is_compared_alone(tree):
    tree.make()
    (tree.source / "cur/1.a:2,S").write_bytes(b"a massage\n")
    tree.age()
    assert tree.compare(paths=[str(tree.source / "tmp")])["findings"] == []
    assert len(tree.compare(paths=[str(tree.source / "cur")])["findings"]) == 1


# --- each change ----------------------------------------------------------------------------------------------------

FILE = "cur/1.a:2,S"
CHANGES = {
    "content": (lambda path: path.write_bytes(b"A message\n"), {("content", FILE)}),
    "size": (lambda path: path.write_bytes(b""), {("size", FILE)}),
    "mode": (lambda path: path.chmod(0o600), {("mode", FILE)}),
    "gone": (lambda path: path.unlink(), {("missing", FILE)}),
    "name": (lambda path: path.rename(path.with_name("x")), {("missing", FILE), ("extra", "cur/x")}),
    "kind": (lambda path: (path.unlink(), path.mkdir()), {("kind", FILE)}),
    "attribute": (lambda path: os.setxattr(path, "user.origin", b"x"), {("acl", FILE)}),
    "link": (
        lambda path: (
            path.parent.with_name("tmp").joinpath("link").unlink(),
            path.parent.with_name("tmp").joinpath("link").symlink_to("/etc"),
        ),
        {("link", "tmp/link")},
    ),
    "folder gone": (lambda path: shutil.rmtree(path.parent), {("missing", "cur")}),
    "folder more": (lambda path: shutil.copytree(path.parent, path.parents[1] / "x"), {("extra", "x")}),
    "folder mode": (lambda path: path.parent.chmod(0o711), {("mode", "cur")}),
    "nothing": (lambda _path: None, set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_a_finding(tree, change):
    do, wanted = CHANGES[change]
    (tree.source / FILE).chmod(0o640)
    tree.make()
    do(tree.source / FILE)
    tree.age()
    assert tree.findings() == wanted


@needs_root
def test_lost_owner_is_a_finding_by_name(tree):
    tree.make()
    os.chown(tree.source / FILE, 1, 0)
    (found,) = tree.compare()["findings"]
    assert (found["code"], found["wanted"], found["found"]) == ("owner", "root:root", "daemon:root")


def test_lost_access_list_is_a_finding_in_words(tree):
    try:
        os.setxattr(tree.source / FILE, "system.posix_acl_access", ALICE_READS)
        os.setxattr(tree.source / "cur", "system.posix_acl_default", ALICE_READS)
    except OSError:
        pytest.skip("this file system keeps no access lists")
    tree.make()
    assert tree.findings() == set()
    os.removexattr(tree.source / FILE, "system.posix_acl_access")
    os.removexattr(tree.source / "cur", "system.posix_acl_default")
    (tree.source / FILE).chmod(0o640)
    one, other = tree.compare()["findings"]
    assert (one["code"], one["wanted"], one["found"]) == (
        "acl",
        "default=group::r--,mask::r--,other::---,user:4242:r--,user::rw-",
        "",
    )
    assert (other["code"], other["wanted"]) == ("acl", one["wanted"].replace("default", "access"))


def test_lost_time_is_a_finding_to_a_file_only(tree):
    tree.make()
    os.utime(tree.source / "cur", ns=(0, 0))
    os.utime(tree.source / FILE, ns=(0, 0))
    assert tree.findings() == {("time", FILE)}


@given(trees.filter(bool), st.data())
def test_any_single_change_is_found_and_nothing_else_is(files, data):
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(folder).write(files)
        tree.make()
        name = data.draw(st.sampled_from(sorted(files)))
        code = data.draw(st.sampled_from(["content", "size", "mode", "missing", "extra"]))
        path, what = tree.source / name, name
        content = files[name]
        if code == "content" and content:
            at = data.draw(st.integers(0, len(content) * 8 - 1))
            flipped = int.from_bytes(content, "big") ^ 1 << at
            path.write_bytes(flipped.to_bytes(len(content), "big"))
        elif code == "mode":
            path.chmod(0o600 if path.stat().st_mode & 0o777 != 0o600 else 0o640)
        elif code == "missing":
            path.unlink()
        elif code == "extra":
            what = f"{name}+"
            if what in files or any(other.startswith(f"{what}/") for other in files):
                return
            Path(f"{path}+").write_bytes(content)
        else:
            code = "size"
            path.write_bytes(content + b"+")
        tree.age()
        assert tree.findings() == {(code, what)}


def test_many_findings_of_a_kind_are_counted(tree):
    tree.write({f"cur/{number}": b"x" for number in range(130)})
    tree.make()
    for number in range(130):
        (tree.source / f"cur/{number}").unlink()
    tree.age()
    answer = tree.compare()
    assert (len(answer["findings"]), answer["left_off"]) == (100, {"missing": 30})


# --- what goes on living --------------------------------------------------------------------------------------------


def test_what_changed_after_the_manifest_has_moved_on(tree):
    tree.make()
    (tree.source / FILE).rename(tree.source / "cur/1.a:2,RS")  # answered meanwhile
    (tree.source / "cur/2.b:2,").write_bytes(b"written meanwhile\n")
    (tree.source / "new/folder").mkdir()
    (tree.source / "new/folder/3.c").write_bytes(b"came meanwhile\n")
    answer = tree.compare(tree.restored())
    assert answer["findings"] == []
    assert answer["moved_on"] == 5  # two names, one content, one directory and what is in it


def test_folder_that_was_renamed_meanwhile_has_moved_on_with_all_that_is_in_it(tree):
    tree.make()
    (tree.source / "cur").rename(tree.source / "old")
    answer = tree.compare()
    assert (answer["findings"], answer["moved_on"]) == ([], 6)


def test_old_file_that_was_renamed_over_another_has_moved_on(tree):
    beside = tree.source / "cur/unpacked"
    beside.write_bytes(b"an old version\n")
    os.utime(beside, ns=(0, 0))
    os.utime(tree.source / "cur", ns=(LONG_AGO, LONG_AGO))
    tree.make()
    beside.rename(tree.source / FILE)
    assert (tree.findings(), tree.compare()["moved_on"]) == (set(), 2)


def test_too_much_that_moved_on_is_a_finding(tree):
    tree.make()
    for number in range(21):
        (tree.source / f"new/{number}").write_bytes(b"x")
    (found,) = tree.compare()["findings"]
    assert found == {"code": "moved_on", "what": "mail", "wanted": 20, "found": 21}


def test_lost_rights_of_a_folder_that_moved_on_are_a_finding(tree):
    tree.make()
    (tree.source / "cur/x").write_bytes(b"")
    (tree.source / "cur").chmod(0o777)
    assert tree.findings() == {("mode", "cur")}


def test_future_time_does_not_excuse_a_flipped_bit(tree):
    future = time.time_ns() + 10**15
    path = tree.source / FILE
    os.utime(path, ns=(future, future))
    tree.make()
    path.write_bytes(b"A message\n")
    os.utime(path, ns=(future, future))
    assert tree.findings() == {("content", FILE)}


# --- the cache ------------------------------------------------------------------------------------------------------


def test_what_changed_is_hashed_again_although_size_and_time_are_the_same(tree):
    time.sleep(0.01)
    tree.make()
    (tree.source / FILE).write_bytes(b"A message\n")
    os.utime(tree.source / FILE, ns=(LONG_AGO, LONG_AGO))
    header = tree.make()
    assert (header["hashed"], header["reused"]) == (1, 2)
    assert tree.findings() == set()


def test_what_changed_since_the_manifest_began_is_not_remembered(tree, monkeypatch):
    """It may change again within the same tick of the clock, and nothing would tell."""
    monkeypatch.setattr(manifest.time, "clock_gettime_ns", lambda _clock: (tree.source / FILE).stat().st_ctime_ns)
    tree.make()
    assert FILE not in (tree.folder / "cache").read_text()


def test_account_that_changed_its_name_is_taken_by_the_new_one(tree, monkeypatch):
    time.sleep(0.01)
    tree.make()
    monkeypatch.setattr(manifest, "_owner", lambda _number: "renamed")
    assert tree.make()["reused"] == 0
    assert tree.findings() == set()


def test_disk_that_forgets_is_found_by_the_sample_and_the_copy_is_not_called_whole(tree):
    time.sleep(0.01)
    tree.make()
    cache = tree.folder / "cache"
    was = manifest.hash_file(str(tree.source / FILE))
    cache.write_text(cache.read_text().replace(was, "0" * 64))  # as if the disk had answered otherwise then
    assert tree.make(sample=0)["rotten"] == []
    header = tree.make(sample=1)
    assert (header["rotten"], header["sampled"]) == ([str(tree.source / FILE)], 3)
    assert tree.findings() == {("content", FILE)}


def test_file_that_changes_while_the_sample_reads_it_is_not_rotten(tree, monkeypatch):
    time.sleep(0.01)
    tree.make()
    read = manifest.hash_file

    def late(path):
        Path(path).write_bytes(b"changed meanwhile\n")
        return read(path)

    monkeypatch.setattr(manifest, "hash_file", late)
    header = tree.make(sample=1)
    assert (header["rotten"], header["sampled"]) == ([], 3)


def test_file_that_cannot_be_read_is_said_and_stops_nothing(tree, monkeypatch):
    path, read = str(tree.source / FILE), manifest.hash_file

    def broken(name):
        if name == path:
            raise OSError(5, "Input/output error")
        return read(name)

    monkeypatch.setattr(manifest, "hash_file", broken)
    header = tree.make()
    assert header["unreadable"] == [path]
    assert header["sources"][str(tree.source)]["files"] == 3
    monkeypatch.undo()
    assert tree.findings() == set()
    assert tree.make()["unreadable"] == []  # it is not remembered


def test_file_that_vanishes_while_it_is_read_is_not_there(tree, monkeypatch):
    def vanish(_name):
        raise FileNotFoundError

    monkeypatch.setattr(manifest, "hash_file", vanish)
    assert tree.make()["sources"][str(tree.source)]["files"] == 0


# --- manifests that lie ---------------------------------------------------------------------------------------------


def test_absent_manifest_is_a_finding(tree):
    assert tree.findings() == {("manifest_absent", str(tree.kept / manifest.HEADER).lstrip("/"))}
    tree.make()
    (tree.kept / manifest.HEADER).write_text("{}")
    assert {code for code, _what in tree.findings()} == {"manifest_absent"}


@pytest.mark.parametrize(
    "lie",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "".join(text.splitlines(keepends=True)[:-1]),
        lambda text: text.replace('"0644"', '"0600"', 1),
        lambda _text: "",
        lambda _text: "[1]\n",
    ],
)
def test_entries_that_are_not_those_of_the_header_are_a_finding(tree, lie):
    tree.make()
    entries = tree.kept / manifest.ENTRIES
    entries.write_text(lie(entries.read_text()))
    assert "manifest_torn" in {code for code, _what in tree.findings()}


def test_nothing_compared_is_a_finding(tree):
    tree.make()
    shutil.rmtree(tree.source)
    assert tree.findings() == {("missing", "")}
    tree.make()
    assert tree.findings() == {("nothing_sampled", "mail")}


# --- two manifests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "size", "codes"),
    [
        (1000, 10**8, []),
        (1149, 114 * 10**6, []),
        (1151, 10**8, ["files"]),
        (849, 84 * 10**6, ["files", "bytes"]),
        (0, 0, ["files", "bytes"]),
    ],
)
def test_more_than_fifteen_percent_is_a_finding(files, size, codes):
    before = {"sources": {"/srv": {"files": 1000, "bytes": 10**8}}}
    found = manifest.size_moved(before, {"sources": {"/srv": {"files": files, "bytes": size}}})
    assert [one["unit"] for one in found] == codes
    assert {one["code"] for one in found} <= {"size_moved"}


def test_little_of_a_small_source_is_none_and_a_lost_source_is_one():
    before = {"sources": {"/etc/x": {"files": 10, "bytes": 1000}, "/srv": {"files": 1, "bytes": 1}}}
    now = {"sources": {"/etc/x": {"files": 29, "bytes": 90000}}}
    assert [(one["code"], one["what"]) for one in manifest.size_moved(before, now)] == [("source_gone", "/srv")]
    assert len(manifest.size_moved(before, now, least={"files": 5})) == 2
