# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the front of a panel's host learns of the members' sites: the names that Apache serves them by.

Two files hold them: the front reads both when it starts, and `certificates` obtains a certificate for each line of the
first. States are compared each time, not events trusted: a run that was killed is made good by the next one.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

FOLDER = Path("/var/lib/infini-alternc/front")
SOCKET = "/run/haproxy/admin.sock"
CERTIFICATES = "certificates.service"
RETRY = 300  # seconds after which a whole run that failed is tried again: the authority did not answer, say
AT_ONCE = 100  # commands in one line to HAProxy, which reads 16 KB of it
ALL_BELOW = "*."  # how a name begins that stands for all below a domain; no authority proves it over HTTP

_SERVED = re.compile(r"^\s*Server(?:Name|Alias)\s+(.+)$", re.MULTILINE | re.IGNORECASE)
_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,63}")


def names(virtual_hosts: Iterable[str], apart: str) -> set[str]:
    """Return the names of these virtual hosts, without those of a domain that is nobody's (empty for none)."""
    words = {word for text in virtual_hosts for line in _SERVED.findall(text) for word in line.lower().split()}
    plain = {re.sub(r"^https?://|:\d+$", "", word.strip('"')) for word in words}
    return {
        name
        for name in plain
        if _NAME.fullmatch(name) and not name.endswith(".invalid") and not (apart and f".{name}".endswith(f".{apart}"))
    }


def files(found: Iterable[str]) -> dict[str, list[str]]:
    """Return the lines of each file: single names, and what all names below a domain end with."""
    ordered = sorted(found)
    return {
        "names": [name for name in ordered if not name.startswith(ALL_BELOW)],
        "wildcards": [name[1:] for name in ordered if name.startswith(ALL_BELOW)],
    }


def keep(virtual_hosts: Iterable[str], apart: str) -> list[str]:
    """Bring the front and the certificates to the names that Apache serves; return what was done."""
    did = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = files(names(virtual_hosts, apart))
    for name, lines in wanted.items():
        tell(FOLDER / name, lines)  # first: a disk that is full must not keep a new site from its visitors
    for name, lines in wanted.items():
        file = FOLDER / name
        text = "".join(f"{line}\n" for line in lines)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            fresh = file.with_suffix(".new")
            fresh.write_text(text, encoding="utf-8")
            fresh.rename(file)
            did.append(f"the front's {name} are now {len(lines)}")
    if wants_certificates():
        subprocess.run(["systemctl", "start", "--no-block", CERTIFICATES], capture_output=True, check=False)
        did.append("certificates were asked for")
    return did


def tell(file: Path, lines: Sequence[str]) -> None:
    """Let the running HAProxy know the lines of a file; one that does not run reads the file when it starts."""
    try:
        known = say(f"show acl {file}")
        if known.startswith("Unknown"):
            return  # it does not read this file yet
        have = {line.split()[1] for line in known.splitlines() if line.startswith("0x")}
        asked = [f"add acl {file} {line}" for line in lines if line not in have]
        asked += [f"del acl {file} {line}" for line in sorted(have - set(lines))]
        for first in range(0, len(asked), AT_ONCE):
            say(";".join(asked[first : first + AT_ONCE]))
    except (FileNotFoundError, ConnectionRefusedError):
        return


def say(command: str) -> str:
    """Give HAProxy one line and return what it answers."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(SOCKET)
        line.sendall(command.encode() + b"\n")
        line.shutdown(socket.SHUT_WR)
        answer = b""
        while part := line.recv(65536):
            answer += part
    return answer.decode()


def wants_certificates() -> bool:
    """Tell whether to look after certificates now: names have changed since, or the last run failed as a whole."""
    asked = ("--timestamp=unix", "--property=LoadState,ActiveState,ExecMainStartTimestamp")
    done = subprocess.run(["systemctl", "show", *asked, CERTIFICATES], capture_output=True, text=True, check=False)
    state = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    began = re.sub(r"\D", "", state.get("ExecMainStartTimestamp", "")) or "0"
    if state.get("LoadState") != "loaded":
        return False
    # In whole seconds, as systemd says them: one that changed in the very second is asked for once more.
    changed = int((FOLDER / "names").stat().st_mtime) >= int(began)
    failed = state["ActiveState"] == "failed"
    return (changed and (failed or state["ActiveState"] == "inactive")) or (failed and time.time() > int(began) + RETRY)
