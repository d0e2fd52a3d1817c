# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench pools_design`: one socket-activated master an account and version, against one master a version.

The first is what the role php makes; the second is made here from the very same pools, on the same host, one after the
other. Memory is proportional (PSS): what processes share is divided among them. docs/decisions/pools.md says what
follows from it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
import pools

VERSION = "8.2"
"""The host's own: no tree stands between, so that only the design differs."""
PAGE = """<?php
if (isset($_GET['busy'])) {
    $held = str_repeat('x', 16 << 20);
    usleep(6000000);
}
echo posix_geteuid();
"""
# Runs on the host: starts, asks and weighs one design.
WORKER = r'''
import glob, json, os, pwd, re, socket, struct, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor

design, version, accounts, busy, awake, requests = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
names = ["membre%05d" % number for number in range(accounts)]
own = "/run/bench-design"

def path(name):
    return f"/run/php/{version}/{name}.sock" if design == "chosen" else f"{own}/{name}.sock"

def call(*words):
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start

def record(kind, content):
    return struct.pack("!BBHHBB", 1, kind, 1, len(content), 0, 0) + content

def visit(name, query=""):
    """Ask for the account's page over FastCGI; return the seconds until its answer was whole."""
    page = f"/srv/members/{name}/www/{name}.test/design.php"
    words = {"SCRIPT_FILENAME": page, "REQUEST_METHOD": "GET", "QUERY_STRING": query, "SERVER_PROTOCOL": "HTTP/1.1"}
    params = b"".join(bytes([len(k), len(v)]) + k.encode() + v.encode() for k, v in words.items())
    start = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path(name))
        begin = record(1, struct.pack("!HB5x", 1, 0))
        link.sendall(begin + record(4, params) + record(4, b"") + record(5, b""))
        answer = b""
        while data := link.recv(65536):
            answer += data
    if str(pwd.getpwnam(name).pw_uid).encode() not in answer:
        raise SystemExit(f"{name} did not answer as itself: {answer!r}")
    return time.perf_counter() - start

def memory():
    """Return the number of PHP processes and their proportional memory in megabytes."""
    total = count = 0
    for status in glob.glob("/proc/[0-9]*/smaps_rollup"):
        try:
            if "php-fpm" not in open(status.replace("smaps_rollup", "comm")).read():
                continue
            total += int(re.search(r"^Pss: +(\d+)", open(status).read(), re.M).group(1))
            count += 1
        except (OSError, AttributeError):
            pass
    return {"processes": count, "MB": round(total / 1024, 1)}

def median(values):
    return sorted(values)[len(values) // 2]

def start():
    sockets = [f"php{version}@{name}.socket" for name in names]
    if design == "chosen":
        call("systemctl", "stop", *sockets)
        return call("systemctl", "start", *sockets)
    os.makedirs(own, exist_ok=True)
    with open(own + "/fpm.conf", "w") as whole:
        whole.write("[global]\nerror_log = /dev/null\n")
        for name in names:
            text = open(f"/etc/php/pools/{version}/{name}.conf").read()
            pool = text[text.index(f"[{name}]"):].replace(f"/run/php/{version}/{name}.sock", path(name))
            whole.write(pool + f"\nuser = {name}\ngroup = {name}\n")
    limit = "--property=LimitNOFILE=16384"
    return call("systemd-run", "--quiet", "--unit=bench-design", "--service-type=notify", limit,
                f"/usr/sbin/php-fpm{version}", "--nodaemonize", "--fpm-config", own + "/fpm.conf")

result = {"start (s)": round(start(), 2), "idle, never visited": memory()}
first = [visit(name) for name in names[:busy]]
result["first request (ms)"] = round(median(first) * 1000, 1)
result["second request (ms)"] = round(median([visit(name) for name in names[:busy]]) * 1000, 1)
with ThreadPoolExecutor(busy * 2) as pool:
    waiting = [pool.submit(visit, name, "busy") for name in names[:busy] for _ in range(2)]
    time.sleep(4.5)  # all of them hold their memory now
    result[f"{busy} busy"] = memory()
    [one.result() for one in waiting]
with ThreadPoolExecutor(4) as pool:
    begin = time.perf_counter()
    list(pool.map(visit, names[:1] * requests))
    result["requests a second, one account"] = round(requests / (time.perf_counter() - begin))
    begin = time.perf_counter()
    list(pool.map(visit, (names[:busy] * requests)[:requests]))
    result[f"requests a second, {busy} accounts"] = round(requests / (time.perf_counter() - begin))
with ThreadPoolExecutor(2) as pool:
    list(pool.map(visit, names[:awake]))
time.sleep(60)  # longer than a process waits for its next request
result[f"idle, {awake} visited"] = memory()
if design == "chosen":
    result["stop of all masters (s)"] = round(call("systemctl", "stop", f"php{version}@*.service"), 2)
    result["idle, masters at rest"] = memory()
else:
    call("systemctl", "stop", "bench-design")
print(json.dumps(result))
'''


def run(accounts: int = 500, busy: int = 50, awake: int = 150, requests: int = 2000) -> dict[str, Any]:
    """Measure both designs and return what `infini bench pools_design --json` prints.

    `awake` accounts have their masters at the same time: all of them would not fit into a host of the bench.
    """
    with pools.a_host() as (inventory, host), tempfile.TemporaryDirectory(prefix="bench-") as directory:
        ground = pools.Ground(Path(directory), inventory, host, inventory.connection(host))
        pools.prepare(ground, accounts)
        declared = pools.members(accounts)
        declared["hosting_sites"] = [{**site, "php": VERSION} for site in declared["hosting_sites"]]
        ground.play(ground.directory / "pools.yml", variables=declared)
        page = ground.file("design.php", PAGE)
        ground.ssh(
            "cat >/run/design.php && for home in /srv/members/membre*/www/*/; do"
            ' install -m 640 -g "$(stat -c %G "$home")" /run/design.php "$home/design.php"; done',
            page,
        )
        try:
            found = {
                design: _weigh(ground, design, accounts, busy, awake, requests) for design in ("chosen", "rejected")
            }
        finally:
            ground.ssh("rm -f /srv/members/membre*/www/*/design.php; rm -rf /run/design.php /run/bench-design")
            ground.play(ground.directory / "pools.yml", variables=pools.emptied(declared))
    return {"ok": True, "measures": found, "ratios": _ratios(found, busy, awake)}


def _weigh(ground: pools.Ground, design: str, *numbers: int) -> dict[str, Any]:
    command = shlex.join(["python3", "-", design, VERSION, *map(str, numbers)])
    done = subprocess.run([*ground.to.ssh(), command], input=WORKER, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the {design} design could not be measured: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _ratios(found: dict[str, dict[str, Any]], busy: int, awake: int) -> dict[str, float]:
    """Compare the two designs, chosen by rejected."""
    chosen, rejected = found["chosen"], found["rejected"]
    plain = ("start (s)", "first request (ms)", "second request (ms)", f"requests a second, {busy} accounts")
    weighed = (f"{busy} busy", f"idle, {awake} visited")
    return {
        **{f"{name}, chosen/rejected": chosen[name] / rejected[name] for name in plain},
        **{f"memory {name}, chosen/rejected": chosen[name]["MB"] / rejected[name]["MB"] for name in weighed},
    }
