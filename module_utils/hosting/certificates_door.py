# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers to `certificates`, whichever way the question came: what is due, and who obtains it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPEC: dict[str, Any] = {
    "declared": {"type": "int", "default": 0},
    "begun": {"type": "dict", "default": {}},
    "strict": {"type": "bool", "default": False},
}
PROGRAM = Path("/usr/local/sbin/certificates")
SERVICE = "certificates.service"
State = Mapping[str, Any]


class CertificatesError(Exception):
    """The host cannot say what is due, or cannot obtain it; the message says why."""


def answer(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    """Begin what is due, or look at what was begun, and return a result in Ansible's words."""
    del diff  # keys are no matter for anyone's terminal
    try:
        if check_mode and not PROGRAM.exists():
            return {"changed": asked["declared"] > 0, "begun": {}}
        if asked["begun"]:
            return look(asked["begun"], strict=asked["strict"])
        return begin(strict=asked["strict"], check_mode=check_mode)
    except CertificatesError as problem:
        return {"failed": True, "msg": str(problem)}


def begin(*, strict: bool, check_mode: bool) -> dict[str, Any]:
    """Let the service begin, where there is something to do."""
    state = read()
    if not work(state):
        return {**told(state, state, strict=strict), "begun": {}}
    if check_mode:
        return {"changed": True, "begun": {}}
    moment = time.monotonic()
    start()
    return {"changed": False, "begun": {"at": moment, "before": state}}


def look(begun: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    """Say what came of what was begun, once it has ended."""
    names = ("ActiveState", "ExecMainStartTimestampMonotonic", "Job")
    said = dict(line.split("=", 1) for line in run("systemctl", "show", f"--property={','.join(names)}", SERVICE))
    if said.get("Job"):
        return {"changed": False, "finished": False}
    if said["ActiveState"] == "failed":
        raise CertificatesError(why())
    after = read()
    if after["ready"] and int(said["ExecMainStartTimestampMonotonic"]) / 1e6 < begun["at"]:
        start()  # that was the end of a run on its way, which did not know them yet
        return {"changed": False, "finished": False}
    return {**told(begun["before"], after, strict=strict), "finished": True}


def read() -> dict[str, Any]:
    """Return what the host says is to be done about the names that are declared.

    Those of a list are looked after by who keeps it: there may be hundreds, and some lead nowhere.
    """
    state = json.loads("\n".join(run(str(PROGRAM), "status")))
    listed = set(state["listed"])
    mine = {key: [name for name in state[key] if name not in listed] for key in ("ready", "undeployed")}
    return {**state, **mine, "due": {name: why for name, why in state["due"].items() if name not in listed}}


def work(state: State) -> bool:
    """Tell whether a run of the service would do something."""
    return bool(state["ready"] or state["undeployed"] or state["retired"])


def start() -> None:
    """Run the service, as the timer would, inside its sandbox."""
    run("systemctl", "start", "--no-block", SERVICE)


def why() -> str:
    """Return what the service said last."""
    words = run("journalctl", "--unit", SERVICE, "--output", "cat", "--lines", "20", "--no-pager")
    ours = [line for line in words if line and SERVICE not in line and "systemd" not in line]
    return ours[-1] if ours else f"{SERVICE} failed: run journalctl -u {SERVICE}"


def pending(state: State) -> dict[str, Any]:
    """Return what a run would work on."""
    return {key: state[key] for key in ("due", "undeployed", "retired")}


def told(before: State, after: State, *, strict: bool) -> dict[str, Any]:
    """Say what happened."""
    failed = {"failed": True, "msg": " ".join(after["failures"])} if strict and after["failures"] else {}
    return {
        "changed": pending(before) != pending(after),
        "obtained": sorted(set(before["due"]) - set(after["due"])),
        "pending": sorted(after["due"]),
        "kept": after["kept"],
        "failures": after["failures"],
        **failed,
    }


def run(*words: str) -> list[str]:
    """Run a command and return the lines that it says."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CertificatesError(f"{' '.join(words)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.splitlines()
