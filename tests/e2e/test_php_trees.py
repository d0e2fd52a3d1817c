# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""An old PHP gets another tree, and goes back, while visitors come: none of them notices."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from infini import ROOT

RATE = 50
WHO = "<?php echo posix_getppid();"
# Runs on the host: so many requests a second to Apache, as the front sends them, however late the answers are.
CLIENT = r"""
import asyncio, json, sys, time
site, path, rate = sys.argv[1], sys.argv[2], int(sys.argv[3])
masters, failed, seconds = [], [], []

async def visit():
    start = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", 8080)
        request = f"GET {path} HTTP/1.0\r\nHost: {site}\r\n\r\n"
        writer.write(("PROXY TCP4 192.0.2.1 127.0.0.1 50000 443\r\n" + request).encode())
        head, _, body = (await asyncio.wait_for(reader.read(), 60)).decode().partition("\r\n\r\n")
        writer.close()
        if not head.startswith("HTTP/1.1 200 ") or not body.strip().isdigit():
            raise ValueError(head.split("\r\n")[0] + " " + body[:100])
        if body not in masters:
            masters.append(body)
    except Exception as problem:
        failed.append(repr(problem))
    seconds.append(time.monotonic() - start)

async def main():
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    start, visits = time.monotonic(), []
    while not ended.done():
        visits.append(asyncio.create_task(visit()))
        await asyncio.sleep(max(0, start + len(visits) / rate - time.monotonic()))
    lasted = time.monotonic() - start
    await asyncio.gather(*visits)
    print(json.dumps({"sent": len(visits), "rate": len(visits) / lasted, "failed": failed[:5], "masters": masters,
                      "slowest": max(seconds)}))

asyncio.run(main())
"""


@dataclass
class Old:
    """A version of PHP that lives in a tree, and a page of a site that runs in it."""

    version: str
    account: str
    site: str
    path: str


@pytest.fixture
def old(inventory, web):
    """Give a version in a tree and a page that says which master serves it."""
    name = inventory.hosts("webs")[0]
    trees = [one["version"] for one in inventory.get(name, "php_runtimes") if one["source"] == "tree"]
    site = next(one for one in inventory.get(name, "hosting_sites") if one.get("php") in trees)
    page = f"/srv/members/{site['account']}/www/{site['name']}/which-master.php"
    text = base64.b64encode(WHO.encode()).decode()
    web.check_output(f"echo {text} | base64 -d | runuser -u {site['account']} -- sh -c 'umask 027; cat > {page}'")
    yield Old(site["php"], site["account"], site["name"], "/which-master.php")
    web.check_output(f"rm {page}")


def infini(*arguments):
    """Run the command as a technician does; return its JSON object."""
    done = subprocess.run([ROOT / "infini", *arguments, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def visitors(inventory, old):
    """Have visitors come until the end of the block; yield what is then known of them."""
    to = inventory.connection(inventory.hosts("webs")[0])
    command = shlex.join(["python3", "-c", CLIENT, old.site, old.path, str(RATE)])
    client = subprocess.Popen(
        [*to.ssh("-o", "ControlMaster=no", "-o", "ControlPath=none"), command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    report = {}
    try:
        yield report
    finally:
        report.update(json.loads(client.communicate()[0]))


def tree_of(web, path):
    """Return the number by which the file system knows a tree, whatever its name is."""
    return web.check_output(f"stat -L -c %i {path}")


def test_a_tree_is_built_anew_exchanged_and_taken_back_without_a_failed_request(inventory, web, old):
    tree = f"/srv/php/{old.version}"
    first = tree_of(web, tree)
    with visitors(inventory, old) as report:
        updated = infini("php", "update", old.version, "--rebuild")
        second = tree_of(web, tree)
        back = infini("php", "rollback", old.version)
    assert updated["trees"]["web"]["changed"]
    assert back["trees"]["web"]["changed"]
    assert second != first
    assert (tree_of(web, tree), tree_of(web, f"{tree}.old")) == (first, second)
    assert report["failed"] == [], report
    assert report["rate"] > RATE * 0.9, report
    assert len(report["masters"]) == 3, report  # before, in the new tree, in the old one again
    assert tree_of(web, f"/proc/{report['masters'][-1]}/root") == first


def test_a_run_that_ended_before_the_restart_is_made_good(inventory, web, old):
    tree = f"/srv/php/{old.version}"
    with visitors(inventory, old):
        time.sleep(2)  # starts a master
    web.check_output(f"rm -rf {tree}.old && cp -a {tree} {tree}.new && mv {tree} {tree}.old && mv {tree}.new {tree}")
    assert infini("apply", "web")["changed"]
    with visitors(inventory, old) as report:
        time.sleep(2)
    assert report["failed"] == []
    assert tree_of(web, f"/proc/{report['masters'][-1]}/root") == tree_of(web, tree)
    assert infini("apply", "web")["changed"] == 0


def test_only_something_newer_moves_a_tree_and_it_is_named(web, old):
    tree = f"/srv/php/{old.version}"
    before = tree_of(web, tree)
    assert infini("php", "update", old.version)["trees"]["web"] == {"changed": False, "packages": []}
    status = f"{tree}/var/lib/dpkg/status"
    web.check_output(f"cp -p {status} {status}.kept")
    try:  # the tree of a day when the release had an older tzdata
        web.check_output(rf"sed -i '/^Package: tzdata$/,/^$/s/^Version: .*/Version: 2000a-1/' {status}")
        found = infini("php", "update", old.version, "--check")["trees"]["web"]
    finally:
        web.check_output(f"mv {status}.kept {status}")
    assert found["changed"]
    assert [line.split()[:2] for line in found["packages"]] == [["tzdata", "2000a-1"]]
    assert tree_of(web, tree) == before
