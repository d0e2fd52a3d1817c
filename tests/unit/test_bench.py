# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's decisions, with podman replaced by a recorder; the hosts themselves are molecule's matter."""

import json
import subprocess

import pytest

from infini import bench
from infini.errors import FailedError, RefusedError

HOST = {"name": "web", "fqdn": "web.test", "release": "bookworm", "ipv4": "10.9.0.2", "ipv6": "fd09::2", "memory": "1g"}
BENCH = bench.from_inventory("test", "10.9.0.0/24", "fd09::/64", [HOST])


def answers(monkeypatch, table):
    """Let `run` answer from a table: the first key that is a prefix of the command wins."""
    asked = []

    def run(*command, check=True, stdin=None):  # noqa: ARG001  the signature it stands in for
        asked.append(command)
        line = " ".join(command)
        code, out = next((answer for key, answer in table.items() if line.startswith(key)), (0, ""))
        if check and code:
            raise FailedError(line)
        return subprocess.CompletedProcess(command, code, out, "")

    monkeypatch.setattr(bench, "run", run)
    return asked


def test_an_image_is_renamed_when_an_authority_changes(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "AUTHORITIES", tmp_path)
    before = bench.image("bookworm")
    (tmp_path / "proxy.crt").write_text("new")
    assert bench.image("bookworm") != before


def test_a_network_in_use_is_refused_with_the_mend(monkeypatch):
    routes = json.dumps([{"dst": "10.9.0.0/16", "dev": "tun0"}])
    answers(monkeypatch, {"podman network exists": (1, ""), "ip -json route": (0, routes)})
    with pytest.raises(RefusedError, match=r"10\.9\.0\.0/24 is in use.*tun0.*bench_number"):
        bench._make_network(BENCH)


def test_hosts_of_another_clone_are_refused_with_the_mend(monkeypatch, tmp_path):
    monkeypatch.setattr(bench.Bench, "folder", tmp_path)
    answers(monkeypatch, {"podman ps": (0, '[{"Id": "1"}]')})
    with pytest.raises(RefusedError, match=r"another clone.*INFINI_BENCH=test ./infini staging down"):
        bench._refuse_another_clones(BENCH)
    (tmp_path / "id_ed25519").touch()
    bench._refuse_another_clones(BENCH)


def test_a_free_network_is_made_and_labelled(monkeypatch):
    asked = answers(monkeypatch, {"podman network exists": (1, ""), "ip -json route": (0, "[]")})
    assert bench._make_network(BENCH)
    assert any("infini.bench=test" in command for command in asked)


@pytest.mark.parametrize(("networks", "removed"), [("", True), ("infini-another", False)])
def test_the_last_bench_takes_the_images_along_and_no_other(monkeypatch, tmp_path, networks, removed):
    monkeypatch.setattr(bench.Bench, "folder", tmp_path / "bench")
    monkeypatch.setattr(bench, "CGROUP", tmp_path)
    table = {"podman ps --all --filter": (0, "[]"), "podman network ls": (0, networks), "podman images": (0, "image:1")}
    asked = answers(monkeypatch, table)
    bench.destroy("test")
    assert (("podman", "rmi", "image:1") in asked) is removed


@pytest.mark.parametrize(
    ("state", "expected"), [("running", None), ("exited", "start"), ("created", "run"), ("", "run")]
)
def test_a_host_is_made_started_or_left(monkeypatch, state, expected):
    asked = answers(monkeypatch, {"podman container inspect": (0, state), "podman exec": (0, "running")})
    assert bench._make_host(BENCH, BENCH.hosts[0], []) is (expected is not None)
    verbs = {command[1] for command in asked} & {"start", "run"}
    assert verbs == ({expected} if expected else set())
    # A host that a killed run left half made is made anew.
    assert ("rm" in {command[1] for command in asked}) is (state == "created")


def test_the_first_way_that_passes_the_self_test_is_taken_and_remembered(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "CACHE", tmp_path)
    monkeypatch.setattr(bench, "podman", lambda *_a, **_k: "4.3.1")
    tried = []

    def attempt(_bench, options, _image):
        tried.append(options)
        return [] if "--runtime=runc" in options else ["limits"]

    monkeypatch.setattr(bench, "_try", attempt)
    assert bench.engine(BENCH)["name"] == "runc, cgroup v1"
    assert bench.engine(BENCH)["refused"]["default runtime"] == ["limits"]
    assert len(tried) == len(bench.CANDIDATES)


def test_no_way_at_all_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "CACHE", tmp_path)
    monkeypatch.setattr(bench, "podman", lambda *_a, **_k: "4.3.1")
    monkeypatch.setattr(bench, "_try", lambda *_a: ["limits"])
    with pytest.raises(FailedError, match="MemoryMax"):
        bench.engine(BENCH)


def test_every_word_of_the_self_test_has_a_sentence():
    import re

    words = set(re.findall(r'echo "?(\w+)', bench.SELF_TEST)) - {"done"} | {"https", "boot", "silent"}
    assert words == set(bench.SAYS)
    assert bench.explain("names:anatole") == f"{bench.SAYS['names']} (anatole)"


def test_a_mirror_that_is_down_is_one_sentence(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1, "", "I: x\nE: apt-get update failed\n")
    monkeypatch.setattr(bench, "CACHE", tmp_path)
    monkeypatch.setattr(bench.subprocess, "run", lambda *_a, **_k: failed)
    with pytest.raises(FailedError, match=r"apt-get update failed.*Is the package mirror reachable"):
        bench._bootstrap("bookworm", tmp_path / "images/x.tar")
    assert not (tmp_path / "images/x.tar").exists()


@pytest.mark.parametrize(
    ("said", "wrong"),
    [("done", []), ("limits\nnames:db\ndone", ["limits", "names:db"]), ("", ["silent"]), ("limits", ["silent"])],
)
def test_a_self_test_that_does_not_reach_its_end_is_no_success(monkeypatch, said, wrong):
    answers(monkeypatch, {"podman exec": (0, said)})
    assert bench.self_test("container", [], https=False) == wrong


def test_a_missing_podman_is_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RefusedError, match="podman is missing on this machine"):
        bench.containers("test")


def test_the_keys_that_roles_are_given_are_made_with_the_bench_and_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(bench.Bench, "folder", tmp_path / "bench")
    made = bench.from_inventory("test", "10.9.0.0/24", "fd09::/64", [HOST], ["backup/web"])
    bench._make_keys(made)
    pairs = [tmp_path / "bench" / name for name in ("id_ed25519", "backup/web", "backup/web.pub")]
    before = [path.read_text() for path in pairs]
    assert (pairs[1].parent.stat().st_mode & 0o777, pairs[1].stat().st_mode & 0o777) == (0o700, 0o600)
    bench._make_keys(made)
    assert [path.read_text() for path in pairs] == before
