# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a playbook with ansible-runner: progress while it runs, one sentence when it fails, a log that is kept."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import ansible_runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from infini import ROOT, STATE
from infini.plays import count_tasks

RUNS = STATE / "runs"
KEEP_DAYS = 90
console = Console(stderr=True)


@dataclass
class RunResult:
    """What a run did.

    `hosts` counts tasks by host; `results` holds every task's result as (host, task, result) mappings; `seconds` is
    wall-clock time; `log` is the full output.
    """

    log: Path
    ok: bool = False
    seconds: float = 0.0
    tasks: int = 0
    hosts: dict[str, dict[str, int]] = field(default_factory=dict)
    unreachable: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """Tasks that changed something (or would, in check mode), over all hosts."""
        return sum(host["changed"] for host in self.hosts.values())

    @property
    def failed(self) -> int:
        """Tasks that failed, over all hosts."""
        return sum(host["failed"] for host in self.hosts.values())

    @property
    def quarantined(self) -> list[dict[str, str]]:
        """Files that a validation refused and that stand as before, with whose they are, the reason and the mend."""
        found = {
            (entry["host"], file["path"]): {
                "host": entry["host"],
                "name": Path(file["path"]).stem,
                **file,
                "mend": f"Correct what hosting_sites says of {Path(file['path']).stem}, then apply again.",
            }
            for entry in self.results
            for file in entry["result"].get("quarantined") or []
        }
        return list(found.values())

    @property
    def notices(self) -> list[str]:
        """Sentences of the preflight about what works today and will not for ever."""
        return list(dict.fromkeys(one for entry in self.results for one in entry["result"].get("notices") or []))

    @property
    def status(self) -> int:
        """Exit status of a command that ends with this run."""
        if self.ok:
            return 1 if self.quarantined else 0
        if self.failures:
            return 2 if all(failure["refused"] for failure in self.failures) else 4
        return 3 if self.unreachable else 4

    def sentence(self) -> str:
        """Say the first thing that went wrong, and where to read on."""
        where = self.log.relative_to(ROOT) if self.log.is_relative_to(ROOT) else self.log
        if self.failures:
            first = self.failures[0]
            return f"{first['host']}: “{first['task']}” failed: {first['says']}\nThe whole log: {where}"
        if self.unreachable:
            return f"{', '.join(self.unreachable)}: no answer over SSH. The whole log: {where}"
        return f"The run stopped before its end. The whole log: {where}"

    def slowest(self, count: int = 10) -> str:
        """Say which tasks took longest; it ends the log."""
        entries = sorted(self.results, key=lambda entry: -float(entry["seconds"]))[:count]
        lines = [f"{entry['seconds']:7.1f} s  {entry['host']}: {entry['task']}" for entry in entries]
        return "\n".join(["", "What took longest:", *lines, ""])

    def differences(self) -> str:
        """Return every change of files as unified diffs, headed by the host's name."""
        return "".join(
            f"{entry['host']}: {_unified(diff)}"
            for entry in self.results
            for diff in _diffs(entry["result"])
            if diff.get("before") != diff.get("after") or diff.get("prepared")
        )

    def as_json(self) -> dict[str, Any]:
        """Return the object that `apply --json` and `staging up --json` print."""
        return {
            "ok": self.ok and not self.quarantined,
            "changed": self.changed,
            "failed": self.failed,
            "unreachable": len(self.unreachable),
            "tasks": self.tasks,
            "seconds": round(self.seconds, 1),
            "hosts": self.hosts,
            "quarantined": self.quarantined,
            "notices": self.notices,
            **({} if self.ok else {"error": self.sentence()}),
        }


class _Watcher:
    """Turns runner events into progress on standard error and into the RunResult."""

    def __init__(self, result: RunResult, progress: Progress | None, total: int) -> None:
        self.result, self.progress, self.total = result, progress, total
        self.bar = progress.add_task("starting", total=total or None) if progress else None

    def __call__(self, event: Mapping[str, Any]) -> bool:
        """Take one event; False tells runner not to keep it on disk (results may hold secrets)."""
        data = event.get("event_data", {})
        kind = event["event"]
        if kind in ("playbook_on_task_start", "playbook_on_handler_task_start"):
            self.result.tasks += 1
            self.total += kind == "playbook_on_handler_task_start"
            self._show(data)
        elif kind in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
            self._keep(kind, data)
        elif kind == "playbook_on_stats":
            self._count(data)
        return False

    def _show(self, data: Mapping[str, Any]) -> None:
        if self.progress and self.bar is not None:
            self.progress.update(
                self.bar, completed=self.result.tasks, total=self.total, description=data.get("task", "")
            )

    def _keep(self, kind: str, data: Mapping[str, Any]) -> None:
        host, task, result = data.get("host", ""), data.get("task", ""), data.get("res", {})
        seconds = float(data.get("duration") or 0)
        self.result.results.append({"host": host, "task": task, "result": result, "seconds": seconds})
        if kind == "runner_on_unreachable":
            self.result.unreachable.append(host)
        elif kind == "runner_on_failed" and not data.get("ignore_errors"):
            refused = bool(result.get("refused"))
            self.result.failures.append({"host": host, "task": task, "says": _cause(result), "refused": refused})

    def _count(self, data: Mapping[str, Any]) -> None:
        for host in data.get("processed", {}):
            self.result.hosts[host] = {
                key: data.get(source, {}).get(host, 0)
                for key, source in (("changed", "changed"), ("failed", "failures"))
            }


def _cause(result: Mapping[str, Any]) -> str:
    """Pick what to tell from a failed task's result."""
    said = str(result.get("msg") or "").strip()
    streams = (result.get(name) for name in ("stderr", "module_stderr", "stdout"))
    details = str(next(filter(None, streams), "")).strip().splitlines()[-3:]
    return "\n  ".join([said, *details] if details and details[-1] not in said else [said]) or "no message"


def _diffs(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a task's diffs: modules give one, a list, or none."""
    found = result.get("diff") or []
    return [found] if isinstance(found, Mapping) else [diff for diff in found if isinstance(diff, Mapping)]


def _unified(diff: Mapping[str, Any]) -> str:
    if diff.get("prepared"):
        return str(diff["prepared"])
    before, after = (_lines(diff.get(side)) for side in ("before", "after"))
    before_name, after_name = (str(diff.get(f"{side}_header", side)) for side in ("before", "after"))
    return "".join(difflib.unified_diff(before, after, before_name, after_name))


def _lines(value: Any) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return [f"{line}\n" for line in text.splitlines()]


def _new_run_folder(name: str) -> Path:
    RUNS.mkdir(parents=True, exist_ok=True, mode=0o700)
    oldest = time.time() - KEEP_DAYS * 86400
    for folder in RUNS.iterdir():
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder)
    folder = RUNS / f"{datetime.now():%Y-%m-%dT%H-%M-%S.%f}-{name}-{os.getpid()}"  # two runs can begin in one second
    folder.mkdir(mode=0o700)
    return folder


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def play(
    playbook: Path,
    inventory: str,
    extra_vars: Mapping[str, Any] | None = None,
    quiet: bool = True,
    arguments: Sequence[str] = (),
    before: Sequence[Path] = (),
    after: Sequence[Path] = (),
) -> RunResult:
    """Run a playbook against an inventory (a path) and wait for its end.

    `quiet` shows no progress; `arguments` are further arguments of ansible-playbook, such as `--check`; `before` and
    `after` are playbooks that run first and last, in the same run.
    """
    folder = _new_run_folder(playbook.stem)
    result = RunResult(log=folder / "log")
    command = [*arguments]
    if extra_vars:
        variables = folder / "variables.json"  # everyone on this machine reads arguments, and they end at 128 KiB
        variables.write_text(json.dumps(dict(extra_vars)))
        command += ["--extra-vars", f"@{variables}"]
    whole = _joined(folder, [*before, playbook, *after])
    started = time.monotonic()
    progress = None if quiet else _progress()
    try:
        if progress:
            progress.start()
        run = ansible_runner.run(
            private_data_dir=str(folder),
            project_dir=str(ROOT),
            playbook=str(whole),
            inventory=inventory,
            cmdline=shlex.join(command) or None,
            envvars={
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            quiet=True,
            event_handler=_Watcher(result, progress, count_tasks(whole)),
            finished_callback=None,
            suppress_env_files=True,
        )
    finally:
        if progress:
            progress.stop()
    result.seconds = time.monotonic() - started
    result.ok = run.status == "successful"
    _keep_log_only(folder, result.log)
    with result.log.open("a") as log:
        log.write(result.slowest())
    return result


def _joined(folder: Path, playbooks: Sequence[Path]) -> Path:
    """Return one playbook that is all of them; runner takes only one."""
    if len(playbooks) == 1:
        return playbooks[0]
    joined = folder / "playbook.yml"
    joined.write_text(json.dumps([{"ansible.builtin.import_playbook": str(path)} for path in playbooks]))
    return joined


def _keep_log_only(folder: Path, log: Path) -> None:
    """Keep the output (whose secrets Ansible masked) and drop runner's other files."""
    outputs = sorted(folder.glob("artifacts/*/stdout"))
    if outputs:
        outputs[0].replace(log)
    for entry in folder.iterdir():
        if entry != log:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
