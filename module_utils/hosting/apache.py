#!/usr/bin/python3 -I
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell which of its configurations Apache serves by.

apache-generation reload         reload Apache and wait until it serves by what it has read
apache-generation drain SECONDS  wait, at most so long, until nobody is served by what it had read before

The signal only asks for it. Apache has read its configuration when it writes its PID file anew; processes that are
older know the one before, and end after the request that they serve.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PID_FILE = Path("/run/apache2/apache2.pid")
UNIT = "/apache2.service\n"  # how the control group of its processes ends
RELOAD_SECONDS = 60
PAUSE = 0.05
ROUNDING = 0.02  # seconds: the kernel counts the start of a process in hundredths


class ApacheError(Exception):
    """Apache did not do what it was asked to; the message says where to look."""


def generation() -> os.stat_result | None:
    """Return what changes each time that Apache has read its configuration, or nothing where it does not run."""
    try:
        return PID_FILE.stat()
    except FileNotFoundError:
        return None


def first_process() -> tuple[int, str] | None:
    """Return Apache's first process with its control groups, or nothing where it does not run."""
    try:
        pid = int(PID_FILE.read_text(encoding="ascii"))
        return pid, Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None


def until(done: Callable[[], Any], seconds: float) -> Any:
    """Wait for something and tell whether it came."""
    end = time.monotonic() + seconds
    while not (there := done()) and time.monotonic() < end:
        time.sleep(PAUSE)
    return there


def reload() -> None:
    """Reload, and return once the new configuration is in force."""
    before, first = generation(), first_process()
    if before is None or first is None or UNIT not in first[1]:
        raise ApacheError("Apache does not run in its unit: `systemctl start apache2`")
    # host_tree has let Apache read these very files; `systemctl reload` would have a thousand of them read once more.
    os.kill(first[0], signal.SIGUSR1)
    if not until(lambda: (now := generation()) and now.st_ino != before.st_ino, RELOAD_SECONDS):
        raise ApacheError(
            f"Apache has not read its configuration within {RELOAD_SECONDS} s: see /var/log/apache2/error.log"
        )


def outdated() -> list[str]:
    """Return the processes of Apache, its first one aside, that are older than the configuration in force."""
    now = generation()
    if now is None:
        return []
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # Its loggers are no part of it: they live as long as they like.
            ours = UNIT in (folder / "cgroup").read_text() and (folder / "comm").read_text() == "apache2\n"
            fields = (folder / "stat").read_text().rpartition(")")[2].split() if ours else []
        except OSError:
            continue  # it has ended meanwhile
        # After the name in parentheses: the state, the parent, …, and the start in ticks since the boot.
        started = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK") if fields else now.st_mtime
        if started < now.st_mtime - ROUNDING and folder.name != PID_FILE.read_text().strip():
            found.append(folder.name)
    return found


def main() -> None:
    """Do what the first word says."""
    if sys.argv[1:] == ["reload"]:
        try:
            reload()
        except ApacheError as error:
            sys.exit(str(error))
    elif len(sys.argv) == 3 and sys.argv[1] == "drain":
        if not until(lambda: not outdated(), float(sys.argv[2])):
            sys.stdout.write(f"{len(outdated())} requests are still served by what Apache had read before\n")
    else:
        sys.exit(f"usage: {__doc__}")


if __name__ == "__main__":
    main()
