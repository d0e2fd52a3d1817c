# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini drift`: what the hosts said is told, whatever became of the others."""

import json

import pytest
from typer.testing import CliRunner

from infini import ROOT, cli
from infini.runner import RunResult

EDITED = {"path": "/etc/x", "state": "modified", "diff": "+by hand", "tree": "base"}
FAILURE = {"host": "anatole", "task": "Compare", "says": "no memory", "refused": False}


def drift(monkeypatch, *files, **result):
    told = [{"host": "web", "task": "Compare", "result": {"files": list(files)}}]
    told.append({"host": "anatole", "task": "Compare", "result": {"msg": "x"}})
    played = RunResult(log=ROOT / "log", results=told, **result)
    monkeypatch.setattr("infini.drift.play", lambda *_a, **_k: played)
    answer = CliRunner().invoke(cli.app, ["drift", "--json"])
    return answer, json.loads(answer.stdout)


@pytest.mark.parametrize(("files", "status"), [([], 0), ([EDITED], 1)])
def test_all_hosts_answer(monkeypatch, files, status):
    answer, said = drift(monkeypatch, *files, ok=True)
    assert answer.exit_code == status
    assert (said["ok"], len(said["files"])) == (not files, len(files))
    assert "error" not in said


@pytest.mark.parametrize(
    ("result", "status"), [({"unreachable": ["anatole"]}, 3), ({"failures": [FAILURE]}, 4), ({}, 4)]
)
def test_a_host_that_fails_hides_nothing_of_the_others(monkeypatch, result, status):
    answer, said = drift(monkeypatch, EDITED, **result)
    assert answer.exit_code == status
    assert said["files"] == [{"host": "web", "path": "/etc/x", "state": "modified", "diff": "+by hand"}]
    assert said["ok"] is False
    assert said["error"]


def test_nothing_found_on_some_hosts_is_not_said_to_be_nothing(monkeypatch, capsys):
    answer, said = drift(monkeypatch, unreachable=["anatole"])
    assert (answer.exit_code, said["ok"]) == (3, False)
    assert "No managed file" not in answer.output + capsys.readouterr().err
