# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action `packages`: dpkg answers for what is there, apt is called for what is not."""

from __future__ import annotations

import shlex
import subprocess
from unittest.mock import Mock

import pytest
from ansible.plugins.loader import action_loader

from infini import ROOT


@pytest.fixture
def packages(monkeypatch):
    """Run the action against the dpkg of this machine; return the result and what apt was asked."""
    action_loader.add_directory(str(ROOT / "action_plugins"))

    def packages(*names, **more):
        words = dict.fromkeys(("connection", "play_context", "loader", "templar", "shared_loader_obj"), Mock())
        action = action_loader.get("packages", task=Mock(args={"names": list(names), **more}, async_val=0), **words)
        monkeypatch.setattr(action, "_low_level_execute_command", ran)
        apt = Mock(return_value={"changed": True})
        monkeypatch.setattr(action, "_execute_module", apt)
        return action.run(task_vars={}), apt

    return packages


def ran(command):
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    return {"rc": done.returncode, "stdout": done.stdout}


def test_what_is_installed_is_not_asked_of_apt(packages):
    result, apt = packages("dpkg", "python3", "dpkg")
    assert not result["changed"]
    apt.assert_not_called()


@pytest.mark.parametrize("absent", ["no-such-package", "awk"])
def test_what_is_missing_or_only_provided_is(packages, absent):
    result, apt = packages("dpkg", absent)
    assert result["changed"]
    name, options = apt.call_args.args
    assert name == "ansible.builtin.apt"
    assert options["name"] == ["dpkg", absent]
    assert (options["install_recommends"], options["policy_rc_d"]) == (False, 101)
    assert options["cache_valid_time"]


def test_new_lists_can_be_fetched_first(packages):
    _result, apt = packages("no-such-package", update_cache=True)
    assert apt.call_args.args[1]["update_cache"] is True
