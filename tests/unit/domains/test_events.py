# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infini.domains import events
from infini.domains.events import EVENTS, Event, LocalStore, SshStore, Store
from infini.errors import RefusedError, UnreachableError
from infini.hosts import Connection

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
A = "a.example"


def event(number: int = 0, **data: Any) -> Event:
    return Event(NOW, A, "Camille", "note", {"number": number, **data})


class Loopback(SshStore):
    """The remote scripts, run by the shell of this machine instead of one behind SSH."""

    def _command(self, script: str, *arguments: str, alone: bool = False) -> list[str]:
        assert "ControlPath=none" in " ".join(super()._command(script, *arguments, alone=True))
        assert ("ControlPath=none" in " ".join(super()._command(script, *arguments, alone=alone))) == alone
        return ["sh", "-c", script, "store", self._folder, *arguments]


def local(folder: Path) -> Store:
    return LocalStore(folder)


def over_ssh(folder: Path) -> Store:
    return Loopback(Connection("anatole", "10.77.0.40", "", 22, ()), str(folder))


@pytest.fixture(params=[local, over_ssh])
def make(request: pytest.FixtureRequest) -> Callable[[Path], Store]:
    made: Callable[[Path], Store] = request.param
    return made


def test_events_come_back_in_their_order_with_what_they_said(make, tmp_path):
    store = make(tmp_path / "events")
    assert (store.domains(), store.read(A), store.kept(A, "x.json")) == ([], [], None)
    wanted = [event(n, text="été\n“été”") for n in range(3)]
    for one in wanted:
        store.append(one)
    assert store.read(A) == wanted
    assert store.domains() == [A]


def test_documents_are_kept_whole(make, tmp_path):
    store = make(tmp_path)
    store.keep(A, "export.json", "été\n")
    store.keep(A, "export.json", "")
    store.keep(A, "other.json", "été sans fin de ligne")
    assert store.kept(A, "export.json") == ""
    assert store.kept(A, "other.json") == "été sans fin de ligne"
    assert {path.name for path in (tmp_path / A).iterdir()} == {"export.json", "other.json"}


def test_lines_are_added_to_a_document_that_only_grows(make, tmp_path):
    store = make(tmp_path)
    store.add(A, "probe.jsonl", "1\n")
    store.add(A, "probe.jsonl", "été\n3\n")
    assert store.kept(A, "probe.jsonl") == "1\nété\n3\n"
    path = tmp_path / A / "probe.jsonl"
    path.write_bytes(path.read_bytes() + b"half")
    store.add(A, "probe.jsonl", "4\n")
    assert store.kept(A, "probe.jsonl") == "1\nété\n3\n4\n"
    with pytest.raises(RefusedError, match="whole lines"):
        store.add(A, "probe.jsonl", "5")
    with pytest.raises(RefusedError):
        store.add(A, EVENTS, "5\n")


def test_domains_are_listed_by_what_is_kept_of_them(make, tmp_path):
    store = make(tmp_path)
    store.append(event())
    store.keep("b.example", "answers.yml", "x: 1\n")
    assert (store.domains(), store.domains("answers.yml")) == ([A], ["b.example"])


def test_what_is_kept_is_for_its_owner_s_eyes_only(make, tmp_path):
    store = make(tmp_path / "events")
    umask = os.umask(0)
    try:
        store.append(event())
        store.keep(A, "zone.txt", "")
        store.add(A, "probe.jsonl", "1\n")
        with store.lock(A, "Camille"):
            pass
    finally:
        os.umask(umask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "events").rglob("*")}
    assert modes == {A: 0o700, EVENTS: 0o600, "zone.txt": 0o600, "probe.jsonl": 0o600, f".{A}.lock": 0o600}


@pytest.mark.parametrize("script", ["_KEEP", "_APPEND"])
def test_a_connection_that_ends_half_way_leaves_nothing(tmp_path, script):
    store = over_ssh(tmp_path)
    store.keep(A, "zone.txt", "before\n")
    command = ["sh", "-c", getattr(events, script), "store", str(tmp_path), A, "zone.txt", "20"]
    done = subprocess.run(command, input="only ten b", capture_output=True, text=True, check=False)
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert store.kept(A, "zone.txt") == "before\n"
    assert [path.name for path in (tmp_path / A).iterdir()] == ["zone.txt"]


def test_a_torn_last_line_never_happened_and_is_mended(make, tmp_path):
    store = make(tmp_path)
    for n in range(3):
        store.append(event(n))
    path = tmp_path / A / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert store.read(A) == [event(0), event(1)]
    store.append(event(9))
    assert store.read(A) == [event(0), event(1), event(9)]
    path.write_bytes(b'{"at')
    store.append(event(7))
    assert store.read(A) == [event(7)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400))
def test_a_file_cut_anywhere_keeps_every_event_whose_line_is_whole(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    store = LocalStore(folder, durable=False)
    for n in range(4):
        store.append(event(n))
    path = folder / A / EVENTS
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    store.append(event(99))
    assert [e.data["number"] for e in store.read(A)] == [*range(data.count(b"\n")), 99]


def test_a_damaged_line_is_named_not_skipped(make, tmp_path):
    store = make(tmp_path)
    store.append(event(0))
    path = tmp_path / A / EVENTS
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(RefusedError, match=r"events.jsonl, line 1 is damaged"):
        store.read(A)


def test_a_lock_is_held_by_one_and_names_its_holder(make, tmp_path):
    first, second = make(tmp_path), make(tmp_path)
    with first.lock(A, "Camille"):
        with pytest.raises(RefusedError, match="Camille"), second.lock(A, "Dominique"):
            raise AssertionError
        with second.lock("b.example", "Dominique"):
            pass
    with second.lock(A, "Dominique"):
        pass
    assert first.domains() == []


def test_a_lock_that_is_given_up_is_free_also_while_a_child_still_has_its_file(tmp_path):
    """Between fork and exec a child that another thread starts has every open file of ours."""
    store = LocalStore(tmp_path)
    with store.lock(A, "Camille"):
        (held,) = [fd for fd in Path("/proc/self/fd").iterdir() if str(fd.resolve()).endswith(f".{A}.lock")]
        kept = os.dup(int(held.name))
    with store.lock(A, "Dominique"):
        os.close(kept)


def test_a_killed_holder_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from infini.domains.events import LocalStore\n"
        "with LocalStore(Path(sys.argv[1])).lock('a.example', 'Camille'): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RefusedError, match="Camille"), LocalStore(tmp_path).lock(A, "Dominique"):
        raise AssertionError
    holder.kill()
    holder.communicate()
    with LocalStore(tmp_path).lock(A, "Dominique"):
        pass


def test_many_writers_lose_nothing(make, tmp_path):
    stores = [make(tmp_path) for _ in range(4)]

    def write(store: Store, base: int) -> None:
        for n in range(5):
            store.append(event(base + n))

    threads = [threading.Thread(target=write, args=(store, 10 * n)) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(e.data["number"] for e in stores[0].read(A)) == [10 * n + m for n in range(4) for m in range(5)]


@pytest.mark.parametrize(
    "data",
    [
        {"auth_code": "X-1"},
        {"authinfo": "X-1"},
        {"deep": [{"Token": "x"}]},
        {"password": "x"},
        {"says": "Authorization: Bearer abcdefghijkl"},
        {"auth_code_sha256": "0123456789abcdef"},
        {"auth_code_expires": "X-first-c0de"},
    ],
)
def test_what_looks_like_a_secret_is_refused_and_not_written(make, tmp_path, data):
    store = make(tmp_path)
    with pytest.raises(RefusedError) as refusal:
        store.append(event(**data))
    assert "X-" not in str(refusal.value)
    assert "abcdefghijkl" not in str(refusal.value)
    assert not (tmp_path / A / EVENTS).exists()


def test_what_is_no_secret_passes(make, tmp_path):
    store = make(tmp_path)
    store.append(event(auth_code_sha256="0123456789ab", auth_code_expires="2026-03-02T08:00:00+00:00", token_ok=True))
    assert len(store.read(A)) == 1


@pytest.mark.parametrize("name", ["../x", "A.example", "", ".", "a/b", ".a", "-x"])
def test_names_cannot_leave_the_folder(make, tmp_path, name):
    store = make(tmp_path)
    for use in (lambda: store.read(name), lambda: store.kept(name, "x"), lambda: store.kept(A, f"{name}/x")):
        with pytest.raises(RefusedError):
            use()


def test_a_document_cannot_stand_in_for_the_events(make, tmp_path):
    with pytest.raises(RefusedError):
        make(tmp_path).keep(A, EVENTS, "")


def test_a_host_that_does_not_answer_is_one_sentence(tmp_path):
    class Silent(Loopback):
        def _command(self, *_: str, **__: bool) -> list[str]:
            return ["false"]

    store = Silent(Connection("anatole", "10.77.0.40", "", 22, ()), str(tmp_path))

    @contextmanager
    def holding() -> Iterator[None]:
        with store.lock(A, "Camille"):
            yield

    for use in (lambda: store.append(event()), lambda: store.read(A), lambda: holding().__enter__()):
        with pytest.raises(UnreachableError, match=r"anatole \(10.77.0.40\)"):
            use()


def test_the_remote_command_is_quoted_once_and_run_as_root_where_needed():
    store = SshStore(Connection("anatole", "10.77.0.40", "tech", 22, (), become=True), "/srv/a b")
    command = store._command("cat $1", A)
    assert command[0] == "ssh"
    assert "BatchMode=yes" in command
    assert command[-1] == "sudo -n sh -c 'cat $1' store '/srv/a b' a.example"
