# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host feels, seen from inside: numbers and codes, no prose.

`read` looks (door: `library/host_health.py`, and the watch on its own host), `judge` compares with what is wanted and
is pure. Reading takes about half a second; `apt-get` is most of it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .probes import Finding

Run = Callable[[Sequence[str]], "tuple[int, str]"]
COMMAND_SECONDS = 5.0
SLOW_COMMANDS = {"apt-get": 20.0}
"""Seconds for commands that need more on a busy host."""
REAL_FILE_SYSTEMS = (
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "vfat",
    "overlay",
    "nfs",
    "nfs4",
    "virtiofs",
)


@dataclass(frozen=True)
class Limits:
    """From where on a number is a finding."""

    disk_percent: int = 90
    inodes_percent: int = 90
    memory_percent: int = 95
    pressure_percent: int = 20
    clock_seconds: float = 30.0
    lists_days: float = 3.0
    near_percent: int = 90
    # All children busy for a moment is what a pool is for; all the time is a site that needs another profile.
    full_times: int = 20


def run_command(command: Sequence[str]) -> tuple[int, str]:
    """Run a command; its status and what it said (errors too)."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=SLOW_COMMANDS.get(command[0], COMMAND_SECONDS),
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return 124, "timeout"
    except OSError as error:
        return 127, error.strerror or "cannot run"
    return done.returncode, done.stdout.decode("utf-8", "replace")


# --- reading ----------------------------------------------------------------------------------------------------


def read(
    units: Sequence[str] = (),
    commands: Sequence[Sequence[str]] = (),
    slices: str = "",
    control_time: float | None = None,
    run: Run = run_command,
    root: Path = Path("/"),
) -> dict[str, Any]:
    """Look at this host; the slow questions are asked side by side."""
    drift = None if control_time is None else round(time.time() - control_time, 1)
    container = (root / "run/systemd/container").exists()
    with ThreadPoolExecutor(max_workers=8) as pool:
        upgrades = pool.submit(_upgrades, run, root)
        states = pool.submit(_units, [full_unit(unit) for unit in units], run)
        failed = pool.submit(_failed_units, run)
        accounts = pool.submit(_accounts, slices, run)
        clock = pool.submit(_clock, container, run)
        outputs = [pool.submit(run, list(map(str, command))) for command in commands]
        return {
            "failed_units": failed.result(),
            "units": states.result(),
            "commands": [_output(*output.result()) for output in outputs],
            "clock": {**clock.result(), "drift": drift},
            "disks": disks(root),
            "memory": memory(root),
            "upgrades": upgrades.result(),
            "reboot": reboot(root, container),
            "accounts": accounts.result(),
            "files": _files(root),
            "listening": listening(root),
            "quarantined": quarantined(root),
            "container": container,
        }


def _output(status: int, text: str) -> dict[str, Any]:
    return {"status": status, "output": text[-2000:]}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _failed_units(run: Run) -> list[str] | None:
    """List failed units; nothing when systemd does not tell."""
    status, text = run(["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--full"])
    return None if status else sorted(line.split()[0] for line in text.splitlines() if line.strip())


def _blocks(text: str) -> list[dict[str, str]]:
    """Read `systemctl show`: blocks of KEY=VALUE with an empty line between units."""
    return [
        dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n") if block.strip()
    ]


def _units(units: Sequence[str], run: Run) -> dict[str, str]:
    if not units:
        return {}
    _, text = run(["systemctl", "show", "--property=Id,Names,LoadState,ActiveState,SubState", "--", *units])
    states: dict[str, str] = {}
    for block in _blocks(text):
        load, active = block.get("LoadState", ""), block.get("ActiveState", "")
        state = active if load in ("loaded", "masked") else load
        for name in {block.get("Id", ""), *block.get("Names", "").split()}:
            states[name] = state
    return {unit: states.get(unit, "not-found") for unit in units}


def _accounts(slices: str, run: Run) -> list[dict[str, Any]]:
    """Read what the accounts' slices use of their limits, and how often in the last day they ran into one."""
    if not slices:
        return []
    wanted = "--property=Id,MemoryCurrent,MemoryMax,TasksCurrent,TasksMax"
    _, text = run(["systemctl", "show", wanted, "--", slices])
    _, words = run(MASTERS_SAID)
    used = {block.get("Id", ""): block for block in _blocks(text)}
    said = hits(words)
    return [
        {
            "slice": name,
            "memory": _share(used.get(name, {}), "Memory"),
            "tasks": _share(used.get(name, {}), "Tasks"),
            "hits": said.get(name, NO_HITS),
        }
        for name in sorted({*used, *said})  # a slice that nobody has woken since the boot is not in the first
    ]


NO_HITS: Mapping[str, int] = {"killed": 0, "refused": 0, "full": 0}
"""Processes that were killed for want of memory, processes that were refused, times that all children were busy."""
MASTERS_SAID = (
    *("journalctl", "--since", "-1day", "--unit", "php*@*.service", "--output", "json", "--output-fields"),
    *("_SYSTEMD_UNIT,MESSAGE", "--no-pager", "--grep", r"max_children setting|signal 9|fork\(\) failed"),
)
_SAID = {
    "killed": re.compile(r"exited on signal 9"),
    "refused": re.compile(r"fork\(\) failed"),
    "full": re.compile(r"reached (?:pm\.)?max_children setting"),
}


def hits(journal: str) -> dict[str, dict[str, int]]:
    """Count by slice what masters of PHP said in the journal (`--output json`) about limits."""
    found: dict[str, dict[str, int]] = {}
    for line in journal.splitlines():
        if not line.startswith("{"):
            continue  # "-- No entries --"
        entry = json.loads(line)
        account = str(entry.get("_SYSTEMD_UNIT", "")).partition("@")[2].removesuffix(".service")
        for kind, words in _SAID.items():
            if account and words.search(str(entry.get("MESSAGE", ""))):
                found.setdefault(f"members-{account}.slice", dict(NO_HITS))[kind] += 1
    return found


def _share(block: Mapping[str, str], kind: str) -> int | None:
    current, limit = block.get(f"{kind}Current", ""), block.get(f"{kind}Max", "")
    if not (current.isdigit() and limit.isdigit()) or not 0 < int(limit) < 2**63:
        return None
    return round(100 * int(current) / int(limit))


def _clock(container: bool, run: Run) -> dict[str, Any]:
    """Ask chrony, else the kernel; in a container the clock is the machine's, and not ours to judge."""
    if container:
        return {"synchronised": None, "offset": None}
    status, text = run(["chronyc", "-c", "tracking"])
    fields = text.strip().split(",")
    if status == 0 and len(fields) >= 14:
        return {"synchronised": fields[13] != "Not synchronised", "offset": float(fields[4])}
    _, text = run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    return {"synchronised": text.strip() == "yes", "offset": None}


def disks(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Measure each real file system once."""
    found: dict[int, dict[str, Any]] = {}
    for line in _text(root / "proc/self/mounts").splitlines():
        _, mount, kind, options = line.split()[:4]
        mount = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal.group(1), 8)), mount)
        if kind not in REAL_FILE_SYSTEMS or "ro" in options.split(",") or not Path(mount).is_dir():
            continue
        try:
            numbers, device = os.statvfs(mount), Path(mount).stat().st_dev
        except OSError:
            continue
        if numbers.f_blocks and (device not in found or len(mount) < len(found[device]["mount"])):
            found[device] = {"mount": mount, **_used(numbers)}
    return sorted(found.values(), key=lambda disk: disk["mount"])


def _used(numbers: os.statvfs_result) -> dict[str, Any]:
    used = numbers.f_blocks - numbers.f_bfree
    inodes = round(100 * (1 - numbers.f_ffree / numbers.f_files)) if numbers.f_files else 0
    return {
        "percent": round(100 * used / max(1, used + numbers.f_bavail)),
        "inodes": inodes,
        "free_gb": round(numbers.f_bavail * numbers.f_frsize / 1e9),
    }


def memory(root: Path = Path("/")) -> dict[str, Any]:
    """Measure used memory and the pressure of the last minute."""
    info = {key: int(value.split()[0]) for key, _, value in _pairs(_text(root / "proc/meminfo"), ":")}
    total = info.get("MemTotal", 0)
    found = re.search(r"^full .*?avg60=([\d.]+)", _text(root / "proc/pressure/memory"), re.MULTILINE)
    return {
        "percent": round(100 * (1 - info.get("MemAvailable", total) / total)) if total else 0,
        "pressure": round(float(found.group(1))) if found else None,
    }


def _pairs(text: str, separator: str) -> Iterable[tuple[str, str, str]]:
    return (line.partition(separator) for line in text.splitlines() if separator in line)


def _upgrades(run: Run, root: Path) -> dict[str, Any]:
    status, text = run(["apt-get", "--simulate", "-o", "Debug::NoLocking=true", "dist-upgrade"])
    lists = [path.stat().st_mtime for path in (root / "var/lib/apt/lists").glob("*Release")]
    stamp = root / "var/lib/apt/periodic/update-success-stamp"
    if stamp.exists():
        lists.append(stamp.stat().st_mtime)
    directory = root / "var/lib/apt/lists/partial"
    if directory.exists():  # apt keeps a list's date from the mirror; its own directory says when it last asked
        lists.append(directory.stat().st_mtime)
    return {
        "security": None if status else security_upgrades(text),
        "reason": (text.strip().splitlines() or [str(status)])[-1] if status else "",
        "days": round((time.time() - max(lists)) / 86400, 1) if lists else None,
    }


def security_upgrades(text: str) -> list[str]:
    """Read the packages with a pending security upgrade from `apt-get --simulate dist-upgrade`."""
    return sorted(re.findall(r"^Inst (\S+) .*\(.*(?:Debian-Security|-security)", text, re.MULTILINE))


def reboot(root: Path, container: bool) -> bool:
    """Tell whether a kernel waits for a reboot; never in a container, whose kernel is the machine's."""
    if container:
        return False
    if (root / "run/reboot-required").exists():
        return True
    started = next((int(value) for key, _, value in _pairs(_text(root / "proc/stat"), " ") if key == "btime"), 0)
    return any(path.stat().st_ctime > started for path in (root / "boot").glob("vmlinuz-*") if started)


def quarantined(root: Path = Path("/")) -> list[dict[str, str]]:
    """Read which files a validation keeps from being as declared, from what `host_tree` remembers of each tree."""
    found: list[dict[str, str]] = []
    for memory in (root / "var/lib/infini/trees").glob("*/memory.json"):
        for path, one in (json.loads(_text(memory) or "{}").get("quarantined") or {}).items():
            found.append({"name": Path(path).stem, "path": path, "reason": one["reason"]})
    return sorted(found, key=lambda one: one["path"])


def _files(root: Path) -> int:
    """Give the share of the machine's open files, in percent."""
    fields = _text(root / "proc/sys/fs/file-nr").split()
    return round(100 * int(fields[0]) / int(fields[2])) if len(fields) == 3 else 0


def listening(root: Path = Path("/")) -> list[int]:
    """Give the TCP ports that listen to more than this host itself."""
    found: set[int] = set()
    for name in ("tcp", "tcp6"):
        for line in _text(root / "proc/net" / name).splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == "0A" and not _loopback(address):
                found.add(int(port, 16))
    return sorted(found)


def _loopback(address: str) -> bool:
    """Read an address as /proc/net/tcp writes it: 32-bit words, each backwards."""
    if len(address) == 8:
        return address.endswith("7F")
    return address == "0" * 24 + "01000000" or (address.startswith("0" * 16 + "FFFF0000") and address.endswith("7F"))


# --- judging ----------------------------------------------------------------------------------------------------


def judge(health: Mapping[str, Any], limits: Limits | None = None) -> list[Finding]:
    """Compare a host's health with what is wanted."""
    limits = limits or Limits()
    return [
        *_judge_units(health),
        *_judge_clock(health["clock"], limits),
        *_judge_disks(health["disks"], limits),
        *_judge_memory(health["memory"], limits),
        *_judge_upgrades(health["upgrades"], limits),
        Finding("", "reboot.needed" if health["reboot"] else "reboot.ok"),
        *_judge_accounts(health["accounts"], limits),
        *_judge_files(health["files"], limits),
        *_judge_quarantined(health["quarantined"]),
    ]


def _judge_units(health: Mapping[str, Any]) -> list[Finding]:
    failed = health["failed_units"]
    if failed is None:
        return [Finding("", "failed.unknown")]
    return [Finding("", "failed.units" if failed else "failed.ok", {"units": failed, "unit": " ".join(failed)})]


def _judge_clock(clock: Mapping[str, Any], limits: Limits) -> list[Finding]:
    found = []
    if clock["drift"] is not None:
        code = "clock.off" if abs(clock["drift"]) > limits.clock_seconds else "clock.ok"
        found.append(Finding("drift", code, {"seconds": round(abs(clock["drift"]))}))
    if clock["synchronised"] is not None:
        found.append(Finding("source", "clock.source.ok" if clock["synchronised"] else "clock.alone"))
    return found


def _judge_disks(disks: Sequence[Mapping[str, Any]], limits: Limits) -> list[Finding]:
    found = []
    for disk in disks:
        full = disk["percent"] >= limits.disk_percent
        found.append(Finding(disk["mount"], "disk.full" if full else "disk.ok", disk))
        crowded = disk["inodes"] >= limits.inodes_percent
        found.append(Finding(disk["mount"], "inodes.full" if crowded else "inodes.ok", disk))
    return found


def _judge_memory(memory: Mapping[str, Any], limits: Limits) -> list[Finding]:
    found = [Finding("", "memory.low" if memory["percent"] >= limits.memory_percent else "memory.ok", memory)]
    if memory["pressure"] is not None:
        pressed = memory["pressure"] >= limits.pressure_percent
        found.append(Finding("", "pressure.high" if pressed else "pressure.ok", memory))
    return found


def _judge_upgrades(upgrades: Mapping[str, Any], limits: Limits) -> list[Finding]:
    known = upgrades["security"] is not None
    packages = list(upgrades["security"] or ())
    values = {"count": len(packages), "packages": packages, "days": upgrades["days"], "reason": upgrades["reason"]}
    old = upgrades["days"] is None or upgrades["days"] > limits.lists_days
    return [
        Finding("", ("upgrades.pending" if packages else "upgrades.ok") if known else "upgrades.unknown", values),
        Finding("", "lists.old" if old else "lists.ok", values),
    ]


def _judge_accounts(accounts: Sequence[Mapping[str, Any]], limits: Limits) -> list[Finding]:
    found = []
    for account in accounts:
        name = str(account["slice"]).rpartition("-")[2].removesuffix(".slice")
        for kind, count in account["hits"].items():
            if count >= (limits.full_times if kind == "full" else 1):
                found.append(Finding(f"{name}:{kind}", f"limit.{kind}", {"account": name, "count": count}))
        shares = [share for share in (account["memory"], account["tasks"]) if share is not None]
        if not shares:
            continue
        code = "account.near" if max(shares) >= limits.near_percent else "account.ok"
        found.append(Finding(name, code, {"account": name, "percent": max(shares), "slice": account["slice"]}))
    return found


def _judge_files(percent: int, limits: Limits) -> list[Finding]:
    return [Finding("", "files.near" if percent >= limits.near_percent else "files.ok", {"percent": percent})]


def _judge_quarantined(files: Sequence[Mapping[str, Any]]) -> list[Finding]:
    return [Finding(file["path"], "quarantine.refused", file) for file in files] or [Finding("", "quarantine.ok")]


def judge_unit(health: Mapping[str, Any], name: str) -> Finding:
    """Judge one unit that a card names."""
    unit = full_unit(name)
    state = health["units"].get(unit, "not-found")
    code = {"active": "unit.ok", "not-found": "unit.absent"}.get(state, "unit.down")
    return Finding(unit, code, {"unit": unit, "state": state})


def full_unit(name: str) -> str:
    """Add `.service` to a unit's name that has no type."""
    kinds = ("service", "socket", "timer", "path", "target", "mount", "slice", "scope", "device", "automount", "swap")
    return name if name.rpartition(".")[2] in kinds else f"{name}.service"


def judge_command(result: Mapping[str, Any], check: Mapping[str, Any]) -> Finding:
    """Judge one command that a card names."""
    text = " ".join(map(str, check["command"]))
    lines = str(result["output"]).strip().splitlines()
    values = {"command": text, "status": result["status"], "output": lines[-1] if lines else "-"}
    good = result["status"] == 0 and str(check.get("contains", "")) in str(result["output"])
    told = "told." if check.get("tells") else ""
    return Finding(text, f"command.{told}ok" if good else f"command.{told}failed", values)
