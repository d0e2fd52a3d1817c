# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of repositories on the store, of repositories that only look like Borg's; the real ones are e2e's matter."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting import generations
from hosting.generations import COMMIT, STAMP, Repository, StoreError

NOW = datetime(2026, 11, 23, 12)


def stamp(days):
    return (NOW - timedelta(days=days)).strftime(STAMP)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Give a repository of two transactions; nobody has to wait."""
    monkeypatch.setattr(generations, "PATIENCE", 0)
    monkeypatch.setattr(generations, "BUSY", 0)
    monkeypatch.setattr(generations.os, "chown", lambda *_: None)
    monkeypatch.setattr(generations.os, "fchown", lambda *_: None)
    repository = Repository("web", tmp_path)
    (repository.live / "data/0").mkdir(parents=True)
    repository.generations.mkdir()
    (repository.folder / "keeper.lock").touch()
    (repository.live / "config").write_text("[repository]\nkey = secret\n")
    commit(repository, 1)
    return repository


def commit(repository, number, content=b"x" * 100):
    """Add a transaction as Borg does: a segment, then its index."""
    (repository.live / f"data/0/{number}").write_bytes(content + COMMIT)
    for old in repository.live.glob("*.*"):
        old.unlink()
    for kind in ("hints", "index", "integrity"):
        (repository.live / f"{kind}.{number}").write_text(kind)


def test_borgs_commit_is_what_borg_writes():
    assert COMMIT == b"\x40\xf4\x3c\x25\x09\x00\x00\x00\x02"


def test_a_generation_links_segments_and_copies_the_rest(repository):
    told = repository.take(NOW)
    made = repository.generations / stamp(0)
    assert (told["code"], told["transaction"], told["bytes"]) == ("new", 1, 109)
    assert (made / "data/0/1").samefile(repository.live / "data/0/1")
    assert not (made / "config").samefile(repository.live / "config")
    assert sorted(entry.name for entry in made.iterdir()) == ["config", "data", "hints.1", "index.1", "integrity.1"]


def test_nothing_new_is_no_generation(repository):
    repository.take(NOW)
    assert repository.take(NOW + timedelta(days=1))["code"] == "same"
    (repository.live / "config").write_text("[repository]\nkey = stolen\n")
    assert repository.take(NOW + timedelta(days=2))["code"] == "new"
    commit(repository, 2)
    assert repository.take(NOW + timedelta(days=3))["code"] == "new"
    assert len(repository.names()) == 3


def test_what_a_client_writes_meanwhile_is_left_for_the_next(repository):
    (repository.live / "data/0/2").write_bytes(b"half of it")
    (repository.live / "lock.exclusive").mkdir()
    (repository.live / "index.2.tmp").touch()
    assert repository.take(NOW)["transaction"] == 1
    assert [file.name for file in (repository.generations / stamp(0) / "data/0").iterdir()] == ["1"]


def test_a_transaction_without_its_index_is_not_taken(repository):
    (repository.live / "data/0/2").write_bytes(COMMIT)
    with pytest.raises(StoreError, match="unsettled"):
        repository.take(NOW)
    assert repository.names() == []


def test_links_are_never_followed(repository, tmp_path):
    (tmp_path / "secret").write_text("of root")
    (repository.live / "nonce").symlink_to(tmp_path / "secret")
    (repository.live / "data/1").symlink_to(tmp_path)
    repository.take(NOW)
    assert not (repository.generations / stamp(0) / "nonce").exists()
    assert not (repository.generations / stamp(0) / "data/1").exists()
    (repository.live / "data/0/0").symlink_to(tmp_path / "secret")
    commit(repository, 2)
    with pytest.raises(OSError, match="symbolic"):
        repository.take(NOW + timedelta(days=1))
    assert repository.names() == [stamp(0)]


def test_a_clock_that_goes_back_makes_none(repository):
    repository.take(NOW)
    commit(repository, 2)
    with pytest.raises(StoreError, match="clock"):
        repository.take(NOW)


def test_an_empty_repository_is_fine_until_it_held_something(repository):
    segments = list((repository.live / "data/0").iterdir())
    content = segments[0].read_bytes()
    segments[0].unlink()
    assert repository.take(NOW) == {"code": "empty"}
    segments[0].write_bytes(content)
    repository.take(NOW)
    segments[0].unlink()
    with pytest.raises(StoreError, match="emptied"):
        repository.take(NOW + timedelta(days=1))


def test_a_keeper_at_work_is_waited_for(repository):
    import fcntl

    with (repository.folder / "keeper.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(StoreError, match="busy"):
            repository.take(NOW)
    assert repository.take(NOW)["code"] == "new"


@given(st.lists(st.integers(0, 4000), unique=True), st.integers(0, 60))
def test_generations_go_slowly_and_the_newest_two_never(ages, days):
    names = [stamp(age) for age in ages]
    gone = generations.expired(names, days)
    assert len(gone) <= generations.AT_ONCE
    assert not set(gone) & set(sorted(names)[-2:])
    assert gone == sorted(names)[: len(gone)]
    assert all((NOW - datetime.strptime(name, STAMP)).days > min(ages) + days for name in gone)


def test_the_state_says_what_is_wrong():
    good = {"code": "new", "at": stamp(0.5), "key": "a", "first_key": "a", "bytes": 10}

    def said(**changed):
        return generations.findings({"web": "1K"}, {"web": {**good, **changed}}, NOW)

    assert said() == []
    assert said(code="same") == []
    assert said(at=stamp(2)) == ["web overdue"]
    assert said(key="b") == ["web key_changed"]
    assert said(bytes=901) == ["web nearly_full"]
    assert said(code="unsettled") == ["web unsettled"]
    assert generations.findings({"web": "1K"}, {}, NOW) == ["web never"]


@pytest.mark.parametrize(("quota", "expected"), [("50G", 50 * 10**9), ("1.5t", 15 * 10**11), ("700", 700)])
def test_a_quota_is_what_borg_takes_it_for(quota, expected):
    assert generations.bytes_of(quota) == expected
