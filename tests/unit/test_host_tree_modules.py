# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doors: what the modules answer to Ansible."""

import json
import signal

import host_drift
import host_tree
import pytest
from ansible.module_utils.hosting import tree, tree_memory
from ansible.module_utils.testing import patch_module_args
from host_tree_world import World
from hypothesis import given
from hypothesis import strategies as st

from hosting.tree_model import Validation, pack, pack_contents, unpack_contents


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    for function in ("look", "apply", "confirm"):
        defaults = getattr(tree, function)
        monkeypatch.setattr(
            tree, function, lambda *args, function=defaults, **more: function(*args, trees=world.trees, **more)
        )
    monkeypatch.setattr(tree, "drift", lambda drift=tree.drift, **more: drift(world.trees, **more))
    assert tree_memory.TREES.startswith("/var/lib/infini/")
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield world
    for number, handler in kept.items():
        signal.signal(number, handler)


def run(module, capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    out = capsys.readouterr().out
    return json.loads(out), out


def test_look_then_apply_then_drift(world, capsys):
    request = world.request({"a": "S3CRET"}, secrets=["a"]).pack()
    result, _out = run(host_tree, capsys, request=request)
    assert result["need"] == [world.path("a")]
    contents = pack_contents({world.path("a"): b"S3CRET"})
    result, out = run(host_tree, capsys, request=request, contents=contents, _ansible_diff=True)
    assert result["changed"]
    assert "secret" in result["diff"][0]["prepared"]
    assert "S3CRET" not in out
    assert request not in out
    assert run(host_tree, capsys, request=request)[0]["changed"] is False
    world.write("a", "S3CRET edited")
    result, out = run(host_drift, capsys)
    assert [one["state"] for one in result["files"]] == ["modified"]
    assert "S3CRET" not in out


def test_what_was_sent_is_written_at_once_or_the_rest_is_asked_for(world, capsys):
    request = world.request({"a": "one", "b": "two"}).pack()
    some = {world.path("a"): b"one"}
    result, _out = run(host_tree, capsys, request=request, contents=pack_contents(some))
    assert result["incomplete"]
    assert result["need"] == [world.path("a"), world.path("b")]
    assert world.snapshot() == {}
    every = pack_contents({**some, world.path("b"): b"two"})
    result, _out = run(host_tree, capsys, request=request, contents=every)
    assert (result["changed"], world.read("a"), world.read("b")) == (True, "one", "two")
    # What only goes needs no content.
    few = world.request({"a": "one"}, owned=["."], prune=False).pack()
    left = run(host_tree, capsys, request=few)[0]["left"]
    assert left == [world.path("b")]
    goes = world.request({}, owned=["."], left=tuple(left)).pack()
    assert run(host_tree, capsys, request=goes)[0]["changes"] == [{"path": world.path("b"), "action": "remove"}]
    assert world.read("a") == "one"


@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=200), max_size=6))
def test_contents_arrive_as_they_were_sent(contents):
    assert unpack_contents(pack_contents(contents)) == contents


def test_check_mode_writes_nothing(world, capsys, tmp_path):
    before = world.snapshot(tmp_path)
    request = world.request({"a": "x"}).pack()
    contents = pack_contents({world.path("a"): b"x"})
    result, _out = run(host_tree, capsys, request=request, contents=contents, _ansible_check_mode=True)
    assert result["changed"]
    assert world.snapshot(tmp_path) == before


def test_refusal_is_a_failure_with_one_sentence(world, capsys):
    world.write("a", "foreign")
    contents = pack_contents({world.path("a"): b"x"})
    result, _out = run(host_tree, capsys, request=world.request({"a": "x"}).pack(), contents=contents)
    assert result["failed"]
    assert "--overwrite" in result["msg"]


def test_damaged_content_is_refused(world, capsys):
    contents = pack_contents({world.path("a"): b"y"})
    result, _out = run(host_tree, capsys, request=world.request({"a": "x"}).pack(), contents=contents)
    assert "damaged on its way" in result["msg"]
    assert world.snapshot() == {}


def test_confirm_and_missing_action_plugin(world, capsys):
    world.apply({"a": "x"})
    assert run(host_tree, capsys, confirm=True, request=pack({"run": "r"}))[0]["changed"] is False
    assert "action plugin" in run(host_tree, capsys)[0]["msg"]


def test_told_to_stop_puts_everything_back(world, capsys):
    world.apply({"a": "one"})
    # Not in the very moment it is started, when Python has nobody yet who waits for its end.
    judge = (Validation(("**",), ("sh", "-c", "sleep 0.3; kill -TERM $PPID; sleep 5")),)
    request = world.request({"a": "two"}, validations=judge).pack()
    contents = pack_contents({world.path("a"): b"two"})
    result, _out = run(host_tree, capsys, request=request, contents=contents)
    assert "stopped by signal 15" in result["msg"]
    assert world.read("a") == "one"
