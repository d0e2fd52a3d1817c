# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench domains`: 300 zones of 30 records exported, planned, provisioned and compared, against other tools.

The zones are at a simulated Gandi (HTTP) and at real servers of the DNS lab: NSD as the old host, Knot as the new one.
octoDNS does what it can of it: `octodns-dump` of the same zones into its own files, `octodns-compare` of these with the
zone files that we provisioned (data against data, no server is asked). A loop of `dig` compares servers as we do, on
five zones. Then 3,000 and 30,000 zones are planned, each count in a process of its own, for time and memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from infini.domains import reading
from infini.domains.dns import questions
from infini.domains.gandi import Gandi
from infini.domains.lab import ADDRESSES, NEW_SERVERS, OLD_SERVERS, Lab
from infini.domains.observed import Export
from infini.domains.plan import Options, Plan, make_plan
from infini.domains.simulator.clock import VirtualClock
from infini.domains.simulator.serve import TOKEN, Simulation
from infini.domains.simulator.world import World
from infini.errors import FailedError

ZONES, BY_DIG, FEW, MANY = 300, 5, 3_000, 30_000
BIN = Path(sys.executable).parent
OPTIONS = Options(our_nameservers=NEW_SERVERS, mail_mode="external")
COMPARED = (OLD_SERVERS[0], NEW_SERVERS[0])
"""One server of each side, at its IPv4 address: what the loop of dig asks too."""


def name(number: int) -> str:
    """Return the name of a zone."""
    return f"asso{number:05}.test"


def records(number: int) -> list[dict[str, Any]]:
    """Return the 30 rrsets of a zone as LiveDNS gives them; all of types that octoDNS knows, so that it keeps up."""

    def rrset(label: str, kind: str, *values: str) -> dict[str, Any]:
        return {"rrset_name": label, "rrset_type": kind, "rrset_ttl": 10800, "rrset_values": list(values)}

    address = f"192.0.2.{number % 250 + 1}"
    hosts = [rrset(f"host{count}", "A", address) for count in range(21)]
    return [
        rrset("@", "A", address),
        rrset("@", "AAAA", f"2001:db8::{number % 65000 + 1:x}"),
        rrset("@", "MX", "10 mx1.post.example.", "20 mx2.post.example."),
        rrset("@", "TXT", '"v=spf1 mx -all"'),
        rrset("@", "CAA", '0 issue "letsencrypt.org"'),
        rrset("www", "CNAME", f"{name(number)}."),
        rrset("_dmarc", "TXT", '"v=DMARC1; p=none"'),
        rrset("_sip._tcp", "SRV", "0 5 5060 sip.post.example."),
        rrset("lists", "MX", "10 lists.post.example."),
        *hosts,
    ]


def timed(work: Any) -> tuple[float, Any]:
    """Return how long some work took, in seconds, and what it returned."""
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def export() -> list[Export]:
    """Export every zone from the simulated Gandi; the limit of 5 requests a second runs on its virtual clock."""
    clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
    world = World(clock)
    for number in range(ZONES):
        world.add(name(number), records(number))
    with Simulation(world) as simulation:
        gandi = Gandi(lambda: TOKEN, clock, simulation.gandi_url)
        return [gandi.export(name(number)) for number in range(ZONES)]


def plan(exports: Sequence[Export]) -> list[Plan]:
    """Plan every zone."""
    plans = [make_plan(reading.from_livedns(one.domain, one.records), one.redirections, OPTIONS) for one in exports]
    if not all(made.applicable for made in plans):
        raise FailedError("A plan of the bench cannot be applied: there is nothing to measure")
    return plans


def publish_old(lab: Lab, plans: Sequence[Plan]) -> None:
    """Serve the exported zones at the old host (not measured: they are there already in real life)."""
    for made in plans:
        lab.publish_old(made.export)


def provision(lab: Lab, plans: Sequence[Plan]) -> None:
    """Serve the planned zones at the new host, by the door that a move uses."""
    for made in plans:
        lab.publish_new(made.zone)


def parity(lab: Lab, plans: Sequence[Plan]) -> int:
    """Compare all zones in full; return how many queries that took."""
    eyes = lab.dns()
    addresses = [[ADDRESSES[server][0]] for server in COMPARED]
    reports = [eyes.parity(made.export, made.zone, *addresses, "") for made in plans]
    wrong = [report for report in reports if not report.ok]
    if wrong:
        raise FailedError(f"{len(wrong)} zones differ, {wrong[0].domain} first: {wrong[0].unexpected[:2]}")
    return sum(report.queries for report in reports)


def dig(plans: Sequence[Plan]) -> int:
    """Ask the same questions one dig at a time; return how many."""
    asked = 0
    for made in plans[:BY_DIG]:
        for label, kind in questions(made.export, made.zone, "no-such-name"):
            full = made.export.name if label == "@" else f"{label}.{made.export.name}"
            answers = []
            for server in COMPARED:
                command = ["dig", f"@{ADDRESSES[server][0]}", "+norecurse", "+noall", "+answer", full, kind]
                answers.append(
                    sorted(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n"))
                )
                asked += 1
            if answers[0] != answers[1] and (label, kind) in made.zone.rrsets:
                raise FailedError(f"dig sees a difference at {full} {kind}: {answers}")
    return asked


def octodns(folder: Path, lab: Lab, plans: Sequence[Plan]) -> tuple[float, float]:
    """Let octoDNS dump the exported zones and compare its dump with what we provisioned; return both times, seconds."""
    for made in plans:
        (folder / "old").mkdir(exist_ok=True)
        (folder / "old" / f"{made.export.name}.").write_text(
            f"$ORIGIN {made.export.name}.\n@ 300 IN SOA {OLD_SERVERS[0]}. hostmaster.infini.test. 1 1 1 1 1\n"
            f"@ 300 IN NS {OLD_SERVERS[0]}.\n"
            + "".join(
                f"{rrset.name} {rrset.ttl} IN {rrset.type} {value}\n"
                for rrset in made.export.rrsets.values()
                for value in rrset.values
            )
        )
    new = {"class": "octodns_bind.ZoneFileSource", "directory": str(lab.target.folder), "file_extension": ".zone"}
    config = {
        "providers": {
            "old": {"class": "octodns_bind.ZoneFileSource", "directory": str(folder / "old"), "file_extension": "."},
            "new": new,
            "dump": {"class": "octodns.provider.yaml.YamlProvider", "directory": str(folder / "dump")},
        },
        "zones": {f"{made.export.name}.": {"sources": ["old"], "targets": ["dump"]} for made in plans},
    }
    (folder / "octodns.yaml").write_text(yaml.safe_dump(config))
    (folder / "dump").mkdir()
    dump = [BIN / "octodns-dump", "--config-file", folder / "octodns.yaml", "--output-dir", folder / "dump", "*", "old"]
    compare = [BIN / "octodns-compare", "--config-file", folder / "octodns.yaml", "--a", "dump", "--b", "new", "--zone"]

    def dumped() -> None:
        subprocess.run(dump, check=True, capture_output=True)

    def compared() -> None:  # it takes one zone a call: both processors are kept busy
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            commands = [[*compare, f"{made.export.name}."] for made in plans[:BY_DIG]]
            list(pool.map(lambda command: subprocess.run(command, check=False, capture_output=True), commands))

    return timed(dumped)[0], timed(compared)[0]


def many(count: int) -> Mapping[str, float]:
    """Plan that many zones in a process of its own; return its seconds and the memory that the plans take, in MiB."""
    done = subprocess.run([sys.executable, __file__, str(count)], capture_output=True, text=True, check=True)
    answer: Mapping[str, float] = json.loads(done.stdout)
    return answer


def resident() -> float:
    """Return the memory that this process holds now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def plan_many(count: int) -> dict[str, float]:
    """Plan zones and keep every plan, as a board of all of them would."""
    base = resident()

    def plans() -> list[Plan]:
        return [make_plan(reading.from_livedns(name(one), records(one)), (), OPTIONS) for one in range(count)]

    seconds, kept = timed(plans)
    if len(kept) != count or not all(made.applicable for made in kept):
        raise FailedError("A plan of the bench cannot be applied: there is nothing to measure")
    return {"seconds": seconds, "MiB": resident() - base}


def run() -> dict[str, Any]:
    """Measure and return what `infini bench domains --json` prints."""
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        export_s, exports = timed(export)
        plan_s, plans = timed(lambda: plan(exports))
        publish_old(lab, plans)
        provision_s, _ = timed(lambda: provision(lab, plans))
        parity_s, queries = timed(lambda: parity(lab, plans))
        dig_s, asked = timed(lambda: dig(plans))
        dump_s, compare_s = octodns(Path(folder), lab, plans)
    few, lots = many(FEW), many(MANY)
    measures = {
        f"export of {ZONES} zones": {"seconds": round(export_s, 2)},
        f"plan of {ZONES} zones": {"seconds": round(plan_s, 2)},
        f"provision of {ZONES} zones": {"seconds": round(provision_s, 2)},
        f"parity of {ZONES} zones": {
            "seconds": round(parity_s, 2),
            "queries": queries,
            "per second": round(queries / parity_s),
        },
        f"dig loop, {BY_DIG} zones": {"seconds": round(dig_s, 2), "queries": asked, "per second": round(asked / dig_s)},
        f"octodns-dump of {ZONES} zones": {"seconds": round(dump_s, 2)},
        f"octodns-compare of {BY_DIG} zones": {"seconds": round(compare_s, 2)},
        f"plan of {FEW:,} zones": {key: round(value, 1) for key, value in few.items()},
        f"plan of {MANY:,} zones": {key: round(value, 1) for key, value in lots.items()},
    }
    ratios = {
        "parity/dig, queries a second": round((queries / parity_s) / (asked / dig_s), 1),
        "octodns-dump/plan": round(dump_s / plan_s, 1),
        f"time of {MANY:,} plans/{FEW:,}": round(lots["seconds"] / few["seconds"], 1),
        f"memory of {MANY:,} plans/{FEW:,}": round(lots["MiB"] / few["MiB"], 1),
    }
    linear = all(ratio <= 1.2 * MANY / FEW for key, ratio in ratios.items() if key.endswith(f"{FEW:,}"))
    return {"ok": linear, "measures": measures, "ratios": ratios}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(plan_many(int(sys.argv[1]))))
