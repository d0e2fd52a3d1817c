# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action `packages`: dpkg answers for what is there, apt is called for what is not."""

from __future__ import annotations

import os
import subprocess
import sys
from unittest.mock import Mock

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import action_loader
from ansible.template import Templar

from infini import ROOT
from infini.hosts import load_plugins


@pytest.fixture
def packages(monkeypatch, tmp_path):
    """Run the action against the dpkg of this machine, with fresh lists; return the result and what apt was asked."""
    load_plugins()
    action_loader.add_directory(str(ROOT / "action_plugins"))
    (tmp_path / "lists").mkdir()
    (tmp_path / "marks").write_text("Package: bash\nArchitecture: amd64\nAuto-Installed: 1\n\nPackage: dpkg\n")

    def packages(*names, **more):
        words = dict.fromkeys(("connection", "play_context", "shared_loader_obj"), Mock())
        loader = DataLoader()
        words |= {"loader": loader, "templar": Templar(loader, {"ansible_search_path": [str(tmp_path)], "word": "b"})}
        task = Mock(args={"names": list(names), **more}, async_val=0, check_mode=False)
        action = action_loader.get("packages", task=task, **words)
        module = sys.modules[type(action).__module__]
        monkeypatch.setattr(module, "LISTS", str(tmp_path / "lists"))
        monkeypatch.setattr(module, "MARKS", str(tmp_path / "marks"))
        monkeypatch.setattr(action, "_low_level_execute_command", ran)
        apt = Mock(return_value={"changed": True})
        monkeypatch.setattr(action, "_execute_module", apt)
        return action.run(task_vars={}), apt

    return packages


def ran(command, in_data=b""):
    # Ansible adds the same words to what it runs over SSH.
    done = subprocess.run(["sh", "-c", f"{command} && sleep 0"], input=in_data, capture_output=True, check=False)
    return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}


def test_what_is_installed_is_not_asked_of_apt(packages):
    result, apt = packages("dpkg", "python3", "dpkg")
    assert not result["changed"]
    apt.assert_not_called()


@pytest.mark.parametrize("name", ["no-such-package", "awk", "bash"])
def test_what_is_missing_or_only_provided_or_there_for_another_is(packages, name):
    result, apt = packages("dpkg", name)
    assert result["changed"]
    module, options = apt.call_args.args
    assert module == "ansible.builtin.apt"
    assert options["name"] == ["dpkg", name]
    assert (options["install_recommends"], options["policy_rc_d"]) == (False, 101)
    assert options["cache_valid_time"]


def test_once_a_day_the_lists_are_fetched(packages, tmp_path):
    assert packages("dpkg")[1].call_count == 0
    (tmp_path / "lists").touch()
    os.utime(tmp_path / "lists", (0, 0))
    assert packages("dpkg")[1].call_count == 1


def test_new_lists_can_be_fetched_first(packages):
    _result, apt = packages("no-such-package", update_cache=True)
    assert apt.call_args.args[1]["update_cache"] is True


def test_what_packages_ask_is_answered_before_they_are_installed_and_only_then(packages, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = tmp_path / "told"
    (tmp_path / "debconf-set-selections").write_text(f"#!/bin/sh\ncat >{told}\n")
    (tmp_path / "debconf-set-selections").chmod(0o755)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/debconf.j2").write_text("alternc a string {{ word }}\n")
    assert packages("dpkg", answers="debconf.j2")[1].call_count == 0
    assert not told.exists()
    assert packages("no-such-package", answers="debconf.j2")[1].call_count == 1
    assert told.read_text() == "alternc a string b\n"
