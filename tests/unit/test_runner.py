# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the runner makes of Ansible's events."""

import pytest

from infini import ROOT, runner
from infini.runner import RunResult, _cause, _Watcher


def watch(*events):
    result = RunResult(log=ROOT / ".infini/runs/x/log")
    watcher = _Watcher(result, None, 0)
    for kind, data in events:
        # False keeps results, which may hold secrets, off the disk.
        assert watcher({"event": kind, "event_data": data}) is False
    return result


STATS = ("playbook_on_stats", {"processed": {"web": 1}, "changed": {"web": 2}, "failures": {"web": 1}})


def test_counts_come_from_the_stats():
    result = watch(("playbook_on_task_start", {"task": "a"}), STATS)
    assert result.tasks == 1
    assert result.hosts == {"web": {"changed": 2, "failed": 1}}
    assert result.as_json()["changed"] == 2


def test_a_handler_makes_the_run_longer_instead_of_passing_its_end():
    progress = runner._progress()
    watcher = _Watcher(RunResult(log=ROOT / "log"), progress, 1)
    watcher({"event": "playbook_on_task_start", "event_data": {"task": "a"}})
    watcher({"event": "playbook_on_handler_task_start", "event_data": {"task": "Reload a"}})
    bar = progress.tasks[0]
    assert (bar.completed, bar.total, bar.description) == (2, 2, "Reload a")


def test_the_first_failure_is_the_sentence():
    failed = {"host": "web", "task": "Write the tree", "res": {"msg": "nginx is not Apache"}}
    result = watch(("runner_on_failed", failed), ("runner_on_failed", {**failed, "host": "anatole"}))
    assert result.sentence() == ("web: “Write the tree” failed: nginx is not Apache\nThe whole log: .infini/runs/x/log")


def test_a_failed_command_is_told_by_its_last_words_wherever_it_said_them():
    for stream in ("stderr", "stdout"):
        assert _cause({"msg": "non-zero return code", stream: "Apache has not read it\n"}).endswith("has not read it")


def test_a_silent_host_is_named():
    assert "anatole: no answer over SSH" in watch(("runner_on_unreachable", {"host": "anatole"})).sentence()


def test_differences_are_unified_diffs_headed_by_the_host():
    changed = {"before": "a\nb\n", "after": "a\nc\n", "before_header": "/etc/x", "after_header": "/etc/x"}
    result = watch(
        ("runner_on_ok", {"host": "web", "task": "t", "res": {"diff": [changed, {"before": 1, "after": 1}]}})
    )
    text = result.differences()
    assert text.startswith("web: --- /etc/x")
    assert "\n-b\n+c\n" in text
    assert text.count("web: ") == 1


def test_a_file_in_quarantine_is_a_finding_of_a_run_that_succeeded():
    file = {"path": "/etc/apache2/members/velo.test.conf", "reason": "Invalid command 'Requires'"}
    ran = {"host": "web", "task": "Write the tree", "res": {"quarantined": [file]}}
    result = watch(("runner_on_ok", ran), ("runner_on_ok", {**ran, "task": "t", "res": {}}))
    result.ok = True
    assert result.status == 1
    answer = result.as_json()
    assert answer["ok"] is False
    assert answer["quarantined"] == [
        {
            "host": "web",
            "name": "velo.test",
            **file,
            "mend": "Correct what hosting_sites says of velo.test, then apply again.",
        }
    ]


def test_the_slowest_tasks_end_the_log():
    quick, slow = (
        {"host": "web", "task": task, "res": {}, "duration": seconds} for task, seconds in (("a", 1), ("b", 9))
    )
    assert watch(("runner_on_ok", quick), ("runner_on_ok", slow)).slowest(1).splitlines()[-1] == "    9.0 s  web: b"


def test_only_the_log_is_kept(tmp_path):
    output = tmp_path / "artifacts/1/stdout"
    output.parent.mkdir(parents=True)
    output.write_text("said")
    (tmp_path / "env").mkdir()
    runner._keep_log_only(tmp_path, tmp_path / "log")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("log", "said")]


@pytest.mark.parametrize("age", [91, 400])
def test_old_runs_are_forgotten(tmp_path, monkeypatch, age):
    import os
    import time

    monkeypatch.setattr(runner, "RUNS", tmp_path)
    old = tmp_path / "old"
    old.mkdir()
    os.utime(old, (0, time.time() - age * 86400))
    assert runner._new_run_folder("site").exists()
    assert not old.exists()


def test_runs_of_the_same_second_have_their_own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RUNS", tmp_path)
    assert len({runner._new_run_folder("site") for _ in range(20)}) == 20
