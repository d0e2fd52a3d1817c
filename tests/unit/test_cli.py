# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: help for newcomers, one JSON object, the promised exit statuses."""

import json
import sys

import pytest
from typer.testing import CliRunner

from infini import ROOT, cli, doctor, measure, php_trees, staging
from infini.doctor import Finding
from infini.errors import FailedError, RefusedError, UnreachableError
from infini.runner import RunResult

COMMANDS = [
    "doctor",
    "apply",
    "verify",
    "drift",
    "runs",
    "test",
    "bench",
    "php update",
    "php rollback",
    *(f"staging {x}" for x in ("up", "down", "reset", "status", "ssh")),
]


def call(*arguments):
    return CliRunner().invoke(cli.app, arguments)


def ended(monkeypatch, *arguments):
    """Run the whole command as the launcher does and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["infini", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    answer = call(*command.split(), "--help")
    assert answer.exit_code == 0
    assert len(answer.stdout.split("Usage:")[1].strip().splitlines()) > 3


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "staging ssh"])
def test_every_command_speaks_json(command):
    assert "--json" in call(*command.split(), "--help").stdout


def test_doctor_gives_findings_and_status_one(monkeypatch):
    monkeypatch.setattr(doctor, "machine", lambda: [Finding("It rains.", "take a coat")])
    answer = call("doctor", "--json")
    assert json.loads(answer.stdout) == {"ok": False, "findings": [{"says": "It rains.", "mend": "take a coat"}]}
    assert answer.exit_code == 1


@pytest.mark.parametrize(("error", "status"), [(RefusedError, 2), (UnreachableError, 3), (FailedError, 4)])
def test_errors_are_a_sentence_and_a_status(monkeypatch, capsys, error, status):
    def fail(*_a, **_k):
        raise error("The host sleeps: wake it")

    monkeypatch.setattr("infini.apply.apply", fail)
    assert ended(monkeypatch, "apply", "--json") == status
    out = capsys.readouterr()
    assert json.loads(out.out) == {"ok": False, "error": "The host sleeps: wake it"}
    assert "✗ The host sleeps: wake it" in out.err


FAILURE = {"host": "web", "task": "t", "says": "s", "refused": False}
REFUSAL = {**FAILURE, "refused": True}


@pytest.mark.parametrize(
    ("unreachable", "failures", "status"),
    [(["web"], [], 3), ([], [FAILURE], 4), ([], [REFUSAL], 2), ([], [REFUSAL, FAILURE], 4)],
)
def test_a_run_that_fails_tells_refused_unreachable_and_failed_apart(monkeypatch, unreachable, failures, status):
    result = RunResult(log=ROOT / "log", unreachable=unreachable, failures=failures)
    monkeypatch.setattr("infini.apply.apply", lambda *_a, **_k: result)
    answer = call("apply", "--json")
    assert answer.exit_code == status
    assert json.loads(answer.stdout)["ok"] is False


def test_pending_changes_in_check_mode_are_fine(monkeypatch):
    result = RunResult(log=ROOT / "log", ok=True, hosts={"web": {"changed": 2, "failed": 0}})
    monkeypatch.setattr("infini.apply.apply", lambda *_a, **_k: result)
    answer = call("apply", "--check", "--json")
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["changed"] == 2


def test_a_machine_that_lacks_something_is_refused_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(doctor, "missing_packages", lambda _tools: [])
    monkeypatch.setattr(doctor, "machine", lambda _tools: [Finding("Only 3 GB are free.", "free some")])
    monkeypatch.setattr(staging, "up", lambda: pytest.fail("the bench was touched"))
    assert ended(monkeypatch, "staging", "up", "--yes") == 2


def test_unknown_stage_is_bad_input():
    assert call("test", "everything").exit_code == 2


def test_a_second_command_on_the_bench_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(staging, "STATE", tmp_path)
    with staging._alone(), pytest.raises(RefusedError, match="at work on the bench"), staging._alone():
        pass


@pytest.mark.parametrize("named", ["depot", "/no/such/directory"])
def test_packages_of_alternc_that_are_not_there_are_refused(monkeypatch, named):
    monkeypatch.setenv("ALTERNC_REPOSITORY", named)
    with pytest.raises(RefusedError, match=f"^ALTERNC_REPOSITORY is {named}: give the whole path"):
        staging.create()


def test_a_bench_takes_its_numbers_and_no_others(monkeypatch, tmp_path):
    (tmp_path / "small.py").write_text(
        "def run(sites: int = 9, host: str = 'x'):\n"
        "    return {'ok': True, 'measures': {}, 'ratios': {'sites': sites}}\n"
    )
    monkeypatch.setattr(measure, "BENCHES", tmp_path)
    monkeypatch.setattr(doctor, "missing_packages", lambda _tools: [])
    assert json.loads(call("bench", "small", "--sites", "100", "--json").stdout)["ratios"] == {"sites": 100}
    for words, says in (
        (["--host", "y"], "write it as --sites 100"),
        (["--hosts", "1"], "takes --sites"),
        (["9"], "no number"),
    ):
        with pytest.raises(RefusedError, match=says):
            measure.run("small", measure.numbers(words))


def test_a_php_that_is_no_tree_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setattr("infini.php_trees.apply", lambda *_a, **_k: pytest.fail("a host was touched"))
    with pytest.raises(RefusedError, match=r"There is no PHP 5\.3 .* 7\.4, 8\.4"):
        php_trees.exchange("5.3", "latest", "staging")
    with pytest.raises(RefusedError, match=r"PHP 8\.2 is a package of the host"):
        php_trees.exchange("8.2", "latest", "staging")


@pytest.mark.parametrize(
    ("command", "check", "result", "says"),
    [
        ("update", False, {"changed": False, "packages": {}}, "as its release has it today"),
        (
            "update",
            True,
            {"changed": True, "packages": {"7.4": ["a 1 -> 2"]}},
            "would be built anew; packages that differ: 1 (a 1 -> 2)",
        ),
        ("update", False, {"changed": True, "packages": {"7.4": []}}, "To go back: ./infini php rollback 7.4"),
        ("rollback", False, {"changed": True, "packages": {"7.4": ["a 2 -> 1"]}}, "its earlier tree again"),
    ],
)
def test_an_exchange_of_trees_is_one_sentence_a_host(monkeypatch, command, check, result, says):
    done = RunResult(log=ROOT / "log", ok=True, results=[{"host": "web", "task": "t", "result": result, "seconds": 1}])
    monkeypatch.setattr("infini.php_trees.apply", lambda *_a, **_k: done)
    answer = call("php", command, "7.4", "--json", *(["--check"] if check else []))
    assert answer.exit_code == 0
    assert says in answer.stderr
    assert json.loads(answer.stdout)["trees"]["web"]["changed"] is result["changed"]
