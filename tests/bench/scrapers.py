# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench scrapers`: what a crowd of robots costs the web host, with the front's policy and without.

Needs a bench that is up (INFINI_BENCH names it). The same visits, from the same seed, are played twice against a
WordPress site, whose pages are computed; in between the policy is taken out of the running HAProxy (its maps), and a
reload brings it back. What counts is the processor time of the whole host, kernel included; the robots' own is not in
it. Each round plays all requests, so the second one takes as long as the host needs for them.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from typing import Any

from infini import ROOT, bench, staging
from infini.hosts import Inventory

sys.path.append(str(ROOT / "tests/e2e"))
import crowds

PLAYED = {"named": 240, "disguised": 240, "greedy": 800, "patient": 80}
HANDS = 16
# cgroup v1, or v2.
USAGE = (
    "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || "
    "sed -n 's/^usage_usec \\(.*\\)/\\1000/p' /sys/fs/cgroup/cpu.stat"
)
TELL = (
    "import socket, sys\n"
    "for command in sys.argv[1:]:\n"
    "    line = socket.socket(socket.AF_UNIX)\n"
    "    line.connect('/run/haproxy/admin.sock')\n"
    "    line.sendall(command.encode() + b'\\n')\n"
    "    sys.stdout.write(line.makefile().read())\n"
)


@dataclass(frozen=True)
class Round:
    """What one round cost."""

    wall: float
    processor: float
    outcomes: list[crowds.Outcome]

    def measure(self) -> dict[str, Any]:
        """Return it as the bench says it."""
        refused = sum(outcome.refused for outcome in self.outcomes)
        return {
            "seconds": round(self.wall, 1),
            "processor_seconds": round(self.processor, 1),
            "requests": len(self.outcomes),
            "refused": refused,
        }


def run() -> dict[str, Any]:
    """Play both rounds and return what `infini bench scrapers --json` prints."""
    inventory = Inventory(staging.INVENTORY)
    staging.keep_authority(inventory)
    web = inventory.hosts("webs")[0]
    container = f"infini-{inventory.get(web, 'bench_name')}-{web}"
    site = next(
        site["name"] for site in inventory.get(web, "hosting_sites") if site.get("cms", {}).get("kind") == "wordpress"
    )
    addresses = [inventory.get(web, family) for family in ("hosting_ipv4", "hosting_ipv6")]
    crowd = crowds.Crowd(addresses, inventory.get(web, "hosting_authorities")[0])
    reload_front(container)
    with crowds.many_addresses():
        try:
            crowd.play(crowds.people(1, site, site, site)[:8], 4)  # caches and PHP's master are warm in both rounds
            kept = play(container, crowd, site)
            without_policy(container, site)
            open_doors = play(container, crowd, site)
        finally:
            reload_front(container)
    measures = {"with the policy": kept.measure(), "without": open_doors.measure()}
    refused = measures["with the policy"]["refused"] / measures["with the policy"]["requests"]
    ratios = {
        "processor without/with": round(open_doors.processor / kept.processor, 2),
        "refused share": round(refused, 2),
    }
    return {"ok": open_doors.processor > kept.processor, "measures": measures, "ratios": ratios}


def play(container: str, crowd: crowds.Crowd, site: str) -> Round:
    """Play all robots once."""
    visits = crowds.robots(1, site, PLAYED)
    before, started = processor(container), time.monotonic()
    outcomes = crowd.play(visits, HANDS)
    return Round(time.monotonic() - started, processor(container) - before, outcomes)


def processor(container: str) -> float:
    """Return the processor time that the host has used, in seconds."""
    return int(bench.podman("exec", container, "sh", "-c", USAGE).strip()) / 1e9


def without_policy(container: str, site: str) -> None:
    """Let everybody in: no robot is refused and no network is too greedy."""
    fates = [f"set map /etc/haproxy/maps/robots.map {does} welcome" for does in ("train", "seo", "disguised")]
    limit = f"add map /etc/haproxy/maps/expensive.map {site} 1000000"
    bench.podman("exec", container, "sh", "-c", f"python3 -c {shlex.quote(TELL)} {shlex.join([*fates, limit])}")


def reload_front(container: str) -> None:
    """Bring the written policy back, with empty counters."""
    bench.podman("exec", container, "systemctl", "reload", "haproxy.service")
