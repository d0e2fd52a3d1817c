# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is missing is said in a sentence, with the command that mends it."""

import subprocess
from types import SimpleNamespace

import pytest

from infini import doctor
from infini.errors import FailedError


@pytest.fixture
def good_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "STATE", tmp_path)
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor.shutil, "which", lambda tool, **_: tool)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=50 * 10**9))
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], 0, "", ""))


def says(*wanted):
    found = list(doctor.machine())
    assert [any(want in finding.says + finding.mend for finding in found) for want in wanted] == [True] * len(wanted), (
        found
    )
    assert len(found) == len(wanted)


@pytest.mark.usefixtures("good_machine")
def test_nothing_is_missing():
    says()


@pytest.mark.usefixtures("good_machine")
def test_no_root(monkeypatch):
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 1000)
    says("sudo ./infini")


@pytest.mark.usefixtures("good_machine")
def test_missing_tools_are_debian_packages(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda tool, **_: None if tool in ("nft", "podman") else tool)
    says("apt install nftables podman")


@pytest.mark.usefixtures("good_machine")
def test_too_little_disk(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=14 * 10**9))
    says("Only 14 GB are free")


@pytest.mark.usefixtures("good_machine")
def test_what_is_cached_needs_no_room_again(monkeypatch, tmp_path):
    (tmp_path / "cache/images").mkdir(parents=True)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    says()


@pytest.mark.usefixtures("good_machine")
def test_a_broken_podman(monkeypatch):
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], 125, "", ""))
    says("podman info")


def test_a_mirror_that_is_down(monkeypatch):
    failed = subprocess.CompletedProcess([], 100, "", "W: x\nE: Unable to fetch some archives\n")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_a, **_k: failed)
    with pytest.raises(FailedError, match=r"Unable to fetch some archives\. Is the package mirror reachable"):
        doctor.install(["podman"])


@pytest.mark.parametrize(
    ("text", "placeholder"),
    [
        ("192.0.2.7", True),
        ("2001:db8::1", True),
        ("CHANGE ME", True),
        ("velo.example", True),
        ("10.0.0.1", False),
        ("x", False),
    ],
)
def test_example_values_are_found(text, placeholder):
    assert doctor._is_placeholder(text) is placeholder


def test_production_says_what_is_missing(monkeypatch):
    """The shipped example inventory is honest about being an example."""
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    monkeypatch.setattr(
        doctor.socket, "create_connection", lambda *_a: (_ for _ in ()).throw(OSError("No route to host"))
    )
    said = " ".join(finding.says for finding in doctor.inventory("production"))
    for part in (
        "vault.yml does not exist",
        "No vault password",
        "still holds the example value",
        "does not answer: No route",
    ):
        assert part in said
