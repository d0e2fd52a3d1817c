# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini test`: everything CI runs, in stages that each end in a count."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.table import Table

from infini import ROOT, STATE, measure
from infini.runner import console

REPORTS = STATE / "reports"
BENCH = {"INFINI_BENCH": "molecule"}
PYTHON_FILES = ["."]

LINT: dict[str, list[str]] = {
    "ruff": ["ruff", "check", *PYTHON_FILES],
    "ruff format": ["ruff", "format", "--check", *PYTHON_FILES],
    "mypy": ["mypy"],
    "yamllint": ["yamllint", "--strict", "."],
    "ansible-lint": ["ansible-lint", "--offline"],
    "shellcheck": ["shellcheck", "infini", ".ci/run"],
    "reuse": ["reuse", "lint", "--quiet"],
    "docs": ["sphinx-build", "-q", "-W", "--keep-going", "-n", "-b", "dirhtml", "docs", "docs/_build"],
}
MOLECULE = ("syntax", "create", "check", "converge", "idempotence", "verify")
USUAL = ("lint", "unit", "molecule", "e2e")
STAGES = (*USUAL, "alternc")
"""The last one by name only: the others run it on the stand-in, and the real one is not everybody's to have."""


@dataclass
class Step:
    """One step of the tests: how many cases held, and how long it took (seconds)."""

    name: str
    passed: int
    failed: int
    skipped: int
    seconds: float


def _run(name: str, command: Sequence[str], **variables: str) -> Step:
    """Run a command that passes or fails as a whole; its output is shown when it fails."""
    started = time.monotonic()
    log = REPORTS / f"{name.replace(' ', '-')}.log"
    with console.status(name), log.open("w") as output:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    held = done.returncode == 0
    step = Step(name, int(held), int(not held), 0, time.monotonic() - started)
    _say(step)
    if not held:
        sys.stderr.write("".join(log.read_text().splitlines(keepends=True)[-60:]))
    return step


def _pytest(name: str, arguments: Sequence[str], python: str = sys.executable, **variables: str) -> Step:
    """Run pytest and count its cases from the JUnit file."""
    report = REPORTS / f"{name.replace(' ', '-')}.xml"
    report.unlink(missing_ok=True)
    started = time.monotonic()
    command = [python, "-m", "pytest", "-q", f"--junit-xml={report}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, stdout=sys.stderr, check=False)
    seconds = time.monotonic() - started
    suite = ElementTree.parse(report).getroot().find("testsuite") if report.exists() else None  # noqa: S314  our own file
    if suite is None:
        step = Step(name, 0, 1, 0, seconds)
    else:
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        passed = int(suite.get("tests", 0)) - failed - skipped
        # No test run, or a failure that no case tells of, is a failure too.
        step = Step(name, passed, failed or int(done.returncode != 0), skipped, seconds)
    _say(step)
    return step


def _say(step: Step) -> None:
    console.print(f"{'[green]ok[/]' if not step.failed else '[red]FAILED[/]'}  {step.name}  ({step.seconds:.0f} s)")


def lint() -> Iterator[Step]:
    """Run every linter; none may warn."""
    for name, command in LINT.items():
        yield _run(name, command)


def other_python() -> Path | None:
    """Return the newest interpreter beside ours that can run the control node, with the lock's tools in a venv."""
    for version in ("3.13", "3.12"):
        found = shutil.which(f"python{version}")
        if found and subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return _venv(found, STATE / f"venv-{version}")
    return None


def _venv(python: str, folder: Path) -> Path:
    lock = ROOT / "requirements.lock"
    stamp = folder / "lock"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)  # the first time there is none
        subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
        sync = [
            "uv",
            "pip",
            "sync",
            "-q",
            "--no-config",
            "--native-tls",
            "--require-hashes",
            "--python",
            f"{folder}/bin/python",
        ]
        subprocess.run([*sync, str(lock)], check=True)
        stamp.write_bytes(lock.read_bytes())
    return folder / "bin/python"


def _seeds(long: bool) -> dict[str, str]:
    """Say to tests how often to try: they read it from the environment, as hypothesis does."""
    return {"HYPOTHESIS_PROFILE": "long" if long else "default"}


def unit(long: bool = False) -> Iterator[Step]:
    """Run the tests that need no host, on both ends of the Python matrix where the interpreters are there."""
    seeds = _seeds(long)
    yield _pytest("unit", [], **seeds)
    other = other_python() if sys.version_info < (3, 12) else None
    if other:
        yield _pytest(f"unit {other.parents[1].name.removeprefix('venv-')}", [], str(other), **seeds)


def molecule() -> Iterator[Step]:
    """Build everything once on a bench of its own; the hosts stay for `e2e`."""
    subprocess.run(["molecule", "destroy"], cwd=ROOT, env={**os.environ, **BENCH}, capture_output=True, check=False)
    for stage in MOLECULE:
        step = _run(f"molecule {stage}", ["molecule", stage], **BENCH)
        yield step
        if step.failed:
            return


def e2e(long: bool = False) -> Iterator[Step]:
    """Look at the hosts that `molecule` left: real clients, real protocols."""
    yield _pytest("e2e", ["tests/e2e"], **BENCH, **_seeds(long))


def alternc() -> Iterator[Step]:
    """Ask the panel of a new bench what AlternC promises: the real one, where ALTERNC_REPOSITORY has its packages."""
    subprocess.run(["molecule", "destroy"], cwd=ROOT, env={**os.environ, **BENCH}, capture_output=True, check=False)
    for stage in ("create", "converge"):
        step = _run(f"molecule {stage}", ["molecule", stage], **BENCH)
        yield step
        if step.failed:
            return
    yield _pytest("alternc", ["tests/e2e/alternc"], **BENCH)


def benches() -> Iterator[Step]:
    """Run every bench; one that misses what is wanted is a failure."""
    for name in measure.names():
        yield _run(f"bench {name}", [str(ROOT / "infini"), "bench", name, "--yes"])


def run(stage: str | None, long: bool = False) -> dict[str, Any]:
    """Run one stage, or all; return the JSON object of `infini test`."""
    started = time.monotonic()
    REPORTS.mkdir(parents=True, exist_ok=True)
    steps: list[Step] = []
    wanted = [stage] if stage else USUAL
    if "lint" in wanted:
        steps += lint()
    if "unit" in wanted:
        steps += unit(long)
    if "molecule" in wanted:
        steps += molecule()
    if "e2e" in wanted and not any(step.failed for step in steps if step.name.startswith("molecule")):
        steps += e2e(long)
    if "alternc" in wanted:
        steps += alternc()
    if long and not stage:
        steps += benches()
    if not stage and not any(step.failed for step in steps):
        steps.append(_run("molecule destroy", ["molecule", "destroy"], **BENCH))
    _table(steps)
    passed, failed, skipped = (sum(getattr(step, key) for step in steps) for key in ("passed", "failed", "skipped"))
    return {
        "ok": not failed,
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
        "seconds": round(time.monotonic() - started, 1),
        "steps": [asdict(step) for step in steps],
    }


def _table(steps: Sequence[Step]) -> None:
    table = Table("step", "passed", "failed", "skipped", "seconds")
    for step in steps:
        row = [step.name, str(step.passed), str(step.failed), str(step.skipped), f"{step.seconds:.0f}"]
        table.add_row(*row, style="red" if step.failed else "")
    console.print(table)
