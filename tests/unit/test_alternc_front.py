# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the front and the certificates learn of a panel's sites."""

from __future__ import annotations

import os
import socket
import threading
import time
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from hosting import alternc_front as front

STOCK = "<VirtualHost *:80>\n  ServerName www.Velo.example\n  SetEnv LOGIN 2001-velo\n</VirtualHost>\n"
OURS = "<VirtualHost *:80>\n    ServerName site.invalid\n    ServerAlias *.velo.example\n</VirtualHost>\n"
MANUAL = (
    "ServerName https://ancien.example:443\n  serveralias  a.ancien.example b.ancien.example\n# ServerName x.example\n"
)


class HAProxy(threading.Thread):
    """A HAProxy that has read the two files, answering as 2.6 does."""

    def __init__(self, path, folder, reads=True):
        super().__init__(daemon=True)
        self.held = {f"{folder}/{name}": [] for name in ("names", "wildcards")} if reads else {}
        self.said = []
        self.line = socket.socket(socket.AF_UNIX)
        self.line.bind(str(path))
        self.line.listen()
        self.start()

    def run(self):
        while True:
            talk, _ = self.line.accept()
            with talk:
                asked = b""
                while part := talk.recv(65536):
                    asked += part
                assert len(asked) < 16000
                talk.sendall("".join(self.answer(*words.split()) for words in asked.decode().split(";")).encode())

    def answer(self, verb, _acl, file, name=""):
        if file not in self.held:
            return "Unknown ACL identifier. Please use #<id> or <file>.\n\n"
        if verb == "show":
            return "".join(f"0x55d1563c7518 {name}\n" for name in self.held[file]) + "\n"
        self.said.append((verb, name))
        (self.held[file].append if verb == "add" else self.held[file].remove)(name)
        return "\n"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Give what stands for systemd: its answer, and what it was asked to start."""
    found = SimpleNamespace(folder=tmp_path / "front", load="loaded", active="inactive", began="@0", started=[])

    def run(command, **_how):
        if command[1] == "start":
            found.started.append(command[2:])
        said = f"LoadState={found.load}\nActiveState={found.active}\nExecMainStartTimestamp={found.began}\n"
        return CompletedProcess(command, 0, said, "")

    monkeypatch.setattr(front, "FOLDER", found.folder)
    monkeypatch.setattr(front, "SOCKET", str(tmp_path / "admin.sock"))
    monkeypatch.setattr(front, "subprocess", SimpleNamespace(run=run))
    return found


def test_names_are_those_that_apache_serves():
    assert front.names([STOCK, OURS, MANUAL], "") == {
        "www.velo.example",
        "*.velo.example",
        "ancien.example",
        "a.ancien.example",
        "b.ancien.example",
    }


@pytest.mark.parametrize(
    "word", ["site.invalid", "a;b.example", "a b", "-a.example", "${NOM}", "localhost", "x." + "a" * 300]
)
def test_what_is_no_name_reaches_nobody(word):
    assert not front.names([f"ServerName {word}\n"], "") - {"b"}


def test_a_domain_that_is_nobodys_is_left_out():
    texts = [f"ServerName {name}\n" for name in ("canari.panel.test", "web.canari.panel.test", "mon-canari.panel.test")]
    assert front.names(texts, "canari.panel.test") == {"mon-canari.panel.test"}


def test_single_names_get_certificates_and_the_others_are_known_by_their_end():
    assert front.files(["b.example", "*.b.example", "a.example"]) == {
        "names": ["a.example", "b.example"],
        "wildcards": [".b.example"],
    }


def test_files_are_written_when_names_change_and_only_then(host):
    assert front.keep([STOCK, OURS], "")[:2] == ["the front's names are now 1", "the front's wildcards are now 1"]
    names = host.folder / "names"
    assert names.read_text() == "www.velo.example\n"
    before = names.stat()
    host.began = f"@{int(before.st_mtime) + 1}"
    assert front.keep([STOCK, OURS], "") == []
    assert names.stat().st_ino == before.st_ino
    assert sorted(path.name for path in host.folder.iterdir()) == ["names", "wildcards"]


@pytest.mark.parametrize(
    ("load", "active", "later", "asked"),
    [
        ("loaded", "inactive", -5, True),
        ("loaded", "failed", -5, True),
        ("loaded", "inactive", 0, True),
        ("loaded", "inactive", 1, False),
        ("loaded", "failed", 1, False),
        ("loaded", "failed", "long ago", True),  # the authority did not answer; the timer would take an hour
        ("loaded", "inactive", "long ago", False),
        ("loaded", "activating", -5, False),  # it may have read them too early: the next run asks again
        ("not-found", "inactive", -5, False),
    ],
)
def test_certificates_are_asked_for_until_a_run_has_begun_after_the_change(host, load, active, later, asked):
    front.keep([STOCK], "")
    host.started.clear()
    host.load, host.active = load, active
    names = host.folder / "names"
    if later == "long ago":
        os.utime(names, (time.time() - 900,) * 2)
        later = 900 - front.RETRY - 1
    host.began = f"@{int(names.stat().st_mtime) + later}"
    front.keep([STOCK], "")
    assert host.started == ([["--no-block", "certificates.service"]] if asked else [])


def test_a_service_that_never_ran_has_begun_never(host):
    host.began = ""
    assert "certificates were asked for" in front.keep([STOCK], "")


def test_a_running_front_learns_what_differs_and_nothing_else(host, tmp_path):
    proxy = HAProxy(tmp_path / "admin.sock", host.folder)
    many = [f"ServerName site{number}.example\n" for number in range(250)]
    front.keep([*many, OURS], "")
    assert len(proxy.held[f"{host.folder}/names"]) == 250
    assert proxy.held[f"{host.folder}/wildcards"] == [".velo.example"]
    proxy.said.clear()
    front.keep([*many, OURS], "")
    assert proxy.said == []
    front.keep([*many[1:], STOCK, OURS], "")
    assert proxy.said == [("add", "www.velo.example"), ("del", "site0.example")]


def test_a_front_that_forgot_is_told_again(host, tmp_path):
    front.keep([STOCK], "")
    proxy = HAProxy(tmp_path / "admin.sock", host.folder)
    assert not [word for word in front.keep([STOCK], "") if "front" in word]
    assert proxy.held[f"{host.folder}/names"] == ["www.velo.example"]


def test_a_front_that_does_not_read_the_files_yet_is_left_alone(host, tmp_path):
    proxy = HAProxy(tmp_path / "admin.sock", host.folder, reads=False)
    front.keep([STOCK], "")
    assert proxy.said == []
