# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench alternc`: from a row of the panel to what visitors see, and a panel of Infini's size from data.

`changes` are made one after the other through AlternC's classes, as a member makes them; each is timed from its row to
the answers of Apache and of the name server. AlternC itself looks once a minute (its cron), Infini's present panel
every five minutes: those are the baselines, waits of half of that on average. `declared` is a panel of Infini's size
from an inventory: from nothing, again, and with one change. ALTERNC_REPOSITORY puts the real AlternC on the bench.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

os.environ.setdefault("INFINI_BENCH", "bench")  # before an inventory is read

import dns.exception
import dns.message
import dns.query

from infini import staging
from infini.apply import playbook_path
from infini.hosts import Inventory
from infini.runner import RunResult, play

WANTED = {"p95": 5.0, "no change": 10.0}
"""Seconds at most: from a row to what is seen, and a whole declared panel that is as it should be."""
BASELINE = {"cron of AlternC": 60, "forced loop": 300}
"""Seconds between two looks at the rows."""
PATIENCE = 60.0
CHANGE = """<?php
require_once("/usr/share/alternc/panel/class/config_nochk.php");
$admin->enabled = 1; $mem->setid(2000);
$db->query("SELECT compte FROM domaines WHERE domaine = ?;", array("DOMAIN")); $db->next_record();
$mem->su($db->f("compte"));
function row($sub, $type) {
    global $db;
    $db->query("SELECT id FROM sub_domaines WHERE domaine = ? AND sub = ? AND type = ? AND web_action <> 'DELETE';",
        array("DOMAIN", $sub, $type));
    return $db->next_record() ? $db->f("id") : 0;
}
foreach (range(FIRST, LAST) as $i) {
    $dom->lock();
    $ok = $dom->set_sub_domain("DOMAIN", "SUB", "url", "https://exemple.test/$i", row("SUB", "url"), "")
        && $dom->set_sub_domain("DOMAIN", "SUBtxt", "txt", "$i", row("SUBtxt", "txt"), "");
    $dom->unlock();
    if (!$ok) { echo $msg->msg_str(); exit(1); }
}
echo json_encode(microtime(true));
"""


class Panel:
    """The host with the panel."""

    def __init__(self) -> None:
        self.inventory = Inventory(staging.INVENTORY)
        self.name = self.inventory.hosts("panels")[0]
        self.address = self.inventory.get(self.name, "hosting_ipv4")
        self.declared = self.inventory.get(self.name, "alternc_declared")
        self.domain = self.declared["domains"][0]["name"]

    def run(self, command: str, text: str = "") -> str:
        """Run a command as root and return what it says."""
        line = [*self.inventory.connection(self.name).ssh("-o", "BatchMode=yes"), command]
        done = subprocess.run(line, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def change(self, first: int, last: int, sub: str = "mesure") -> float:
        """Make changes as a member does; return when the last row stood there."""
        code = CHANGE
        for word, value in (("DOMAIN", self.domain), ("SUB", sub), ("FIRST", str(first)), ("LAST", str(last))):
            code = code.replace(word, value)
        return float(self.run("runuser -u alterncpanel -- php", code).splitlines()[-1])

    def leads_to(self, sub: str = "mesure") -> str:
        """Return where Apache leads who asks for a sub-domain."""
        connection = http.client.HTTPConnection(self.address, timeout=10)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/", headers={"Host": f"{sub}.{self.domain}", "Connection": "close"})
            return (connection.getresponse().getheader("Location") or "").rstrip("/")
        return ""

    def says(self, sub: str = "mesuretxt") -> str:
        """Return what the name server says of a sub-domain."""
        with suppress(dns.exception.Timeout, OSError):
            asked = dns.message.make_query(f"{sub}.{self.domain}", "TXT")
            answer = dns.query.udp(asked, self.address, timeout=2).answer
            return str(answer[0][0]).strip('"') if answer else ""
        return ""

    def seen(self, number: int) -> bool:
        """Tell whether visitors see a change."""
        return self.leads_to() == f"https://exemple.test/{number}" and self.says() == str(number)


def until(done: Callable[[], bool]) -> float:
    """Wait for something and return when it was there."""
    end = time.time() + PATIENCE
    while not done():
        if time.time() > end:
            raise RuntimeError(f"A change was not seen within {PATIENCE} s")
        time.sleep(0.05)  # the front refuses who asks a site more than 30 times a second
    return time.time()


def _changes(panel: Panel, changes: int, burst: int) -> dict[str, Any]:
    panel.change(0, 0)
    until(lambda: panel.seen(0))
    waits = []
    for number in range(1, changes + 1):
        row = panel.change(number, number)
        waits.append(until(lambda number=number: panel.seen(number)) - row)
    row = panel.change(changes + 1, changes + burst)
    last = until(lambda: panel.seen(changes + burst)) - row
    waits.sort()
    return {
        "changes": changes,
        "p50": round(waits[len(waits) // 2], 2),
        "p95": round(waits[int(len(waits) * 0.95)], 2),
        "slowest": round(waits[-1], 2),
        "after a burst": round(last, 2),
        "path unit": panel.run("systemctl is-active alternc-apply.path"),
        "baseline": BASELINE,
    }


def declared(members: int, sites: int, mailboxes: int, aliases: int) -> dict[str, Any]:
    """Return a fictitious panel of this size, as `alternc_declared` takes it."""
    logins = [f"m{number:04}" for number in range(members)]
    names = [f"{login}.example" for login in logins]
    kinds = ("php82-fpm", "php74-fpm")
    return {
        "members": [
            {"login": login, "name": f"Membre {login} (fictif)", "mail": f"{login}@ailleurs.example"}
            for login in logins
        ],
        "domains": [{"name": name, "member": login} for name, login in zip(names, logins, strict=True)],
        "subdomains": [
            {
                "domain": names[number % members],
                "sub": f"s{number // members}",
                "type": kinds[number % 2],
                "value": f"/www/s{number // members}",
                "https": "http",
            }
            for number in range(sites)
        ],
        "mailboxes": [
            {"address": f"b{number // members}@{names[number % members]}", "mailbox": True, "quota_mb": 500}
            for number in range(mailboxes)
        ]
        + [
            {
                # AlternC makes each domain a postmaster, who is as good an alias as any.
                "address": f"{('postmaster', f'a{number // members}')[number >= members]}@{names[number % members]}",
                "forwards": [f"b0@{names[number % members]}"],
            }
            for number in range(aliases)
        ],
        "quotas": {"defaults": {"default": {"dom": 1, "mail": 25, "mysql": 5}}},
    }


def _apply(panel: Panel, wanted: dict[str, Any]) -> RunResult:
    done = play(playbook_path("panel"), str(panel.inventory.path), {"alternc_declared": wanted})
    if not done.ok:
        raise RuntimeError(done.sentence())
    return done


def _size(panel: Panel, **numbers: int) -> dict[str, Any]:
    wanted = declared(**numbers)
    for kind in ("members", "domains", "subdomains", "mailboxes"):
        wanted[kind] += panel.declared[kind]  # the bench's own have mailboxes, and stay
    first, again = _apply(panel, wanted), _apply(panel, wanted)
    wanted["subdomains"][0]["type"] = "php74-fpm"
    one = _apply(panel, wanted)
    count = "mariadb --defaults-file=/etc/alternc/my.cnf --batch --skip-column-names"
    sql = "SELECT COUNT(*) FROM sub_domaines WHERE type LIKE 'php%' AND web_action = 'OK' AND web_result IN ('', '0');"
    return {
        "from nothing": round(first.seconds, 1),
        "no change": round(again.seconds, 1),
        "changed again": sum(host["changed"] for host in again.hosts.values()),
        "one change": round(one.seconds, 1),
        "sites in force": int(panel.run(count, sql)),
        "problems": panel.run("alternc-apply check || true"),  # its words are what is printed
    }


def run(
    changes: int = 50,
    burst: int = 200,
    members: int = 300,
    sites: int = 1085,
    mailboxes: int = 920,
    aliases: int = 1712,
) -> dict[str, Any]:
    """Measure and return what `infini bench alternc --json` prints."""
    staging.up()
    panel = Panel()
    version = panel.run("dpkg-query --show --showformat='${Version}' alternc")
    seen = _changes(panel, changes, burst)
    size = _size(panel, members=members, sites=sites, mailboxes=mailboxes, aliases=aliases)
    staging.down()
    good = seen["p95"] <= WANTED["p95"] and seen["path unit"] == "active" and not size["problems"]
    return {
        "ok": good and size["no change"] <= WANTED["no change"] and not size["changed again"],
        "alternc": version,
        "measures": {
            "from a row to what is seen": seen,
            "a declared panel": {"sites": sites, "members": members, **size},
        },
        "ratios": {name: round(seconds / 2 / seen["p50"], 1) for name, seconds in BASELINE.items()},
    }
