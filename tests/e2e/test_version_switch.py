# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site changes its PHP version while visitors come: nobody sees an error, neither there nor next door."""

import http.client
import os
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

FROM, TO = "8.2", "8.4"
SWITCHES = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1
"""In both directions each."""
A_SECOND = 50
VISITORS = 10
PAGE = "version-switch.php"
TEXT = "<?php usleep((int) ($_GET['ms'] ?? 0) * 1000); echo 'PHP ' . PHP_VERSION;"


class Connection(http.client.HTTPSConnection):
    """Reaches the bench, whatever a DNS server says of the name."""

    def __init__(self, address, name, ca_file):
        super().__init__(name, timeout=30, context=ssl.create_default_context(cafile=ca_file))
        self.address = address

    def connect(self):
        line = socket.create_connection((self.address, 443), timeout=self.timeout)
        self.sock = self._context.wrap_socket(line, server_hostname=self.host)


@dataclass
class Visit:
    """What one site answered while visitors came at a steady pace, whether or not it answered in time."""

    answers: Counter = field(default_factory=Counter)
    failures: list = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def come(self, connection, path, pause):
        """Ask again and again; PHP's version counts the answer."""
        due = time.monotonic()
        while not self.over.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic() - 1) + pause
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                self.count(path, answer.status, answer.read().decode())
            except (OSError, http.client.HTTPException) as problem:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {path}: {problem!r}")
                connection.close()
        connection.close()

    def count(self, path, status, text):
        """Take only what PHP itself can have said."""
        if status == 200 and text.startswith("PHP "):
            self.answers[text.removeprefix("PHP ")[:3]] += 1
        else:
            self.failures.append(f"{time.strftime('%H:%M:%S')} {path}: {status} {text[:200]}")


@contextmanager
def visitors(address, ca_file, *names):
    """Send visitors to each site; one more takes his time, so that some request is always on its way."""
    visits = {name: Visit() for name in names}
    threads = []
    for name, visit in visits.items():
        paths = [(f"/{PAGE}", VISITORS / A_SECOND)] * VISITORS + [(f"/{PAGE}?ms=3000", 0.0)]
        for path, pause in paths:
            line = Connection(address, name, ca_file)
            threads.append(threading.Thread(target=visit.come, args=(line, path, pause)))
    for thread in threads:
        thread.start()
    try:
        yield visits
    finally:
        for visit in visits.values():
            visit.over.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def pair(sites, web):
    """Give the site that changes its version and a neighbour, each with a page that says by what it was made."""
    moving = next(site for site in sites if site.get("php") == FROM)
    neighbour = next(site for site in sites if site.get("php") and site["account"] != moving["account"])
    pages = [f"/srv/members/{site['account']}/www/{site['name']}/{PAGE}" for site in (moving, neighbour)]
    for page in pages:
        web.run_expect([0], f"cat > {page} <<'END'\n{TEXT}\nEND\nchmod 644 {page}")
    yield moving["name"], neighbour["name"]
    web.check_output(f"rm {' '.join(pages)}")


def on(version, name, sites):
    """Return the sites with one of them on another version."""
    return [{**site, "php": version} if site["name"] == name else site for site in sites]


def test_a_site_changes_its_version_and_no_request_fails(pair, sites, apply_web, web, web_address, ca_file):
    moving, neighbour = pair
    account = next(site["account"] for site in sites if site["name"] == moving)
    assert apply_web(sites).ok
    for _ in range(SWITCHES):
        for version, before in ((TO, FROM), (FROM, TO)):
            with visitors(web_address, ca_file, moving, neighbour) as visits:
                time.sleep(2)
                started = time.monotonic()
                result = apply_web(on(version, moving, sites))
                seconds = time.monotonic() - started
                time.sleep(2)
            assert result.ok, result.sentence()
            asked = {name: sum(visit.answers.values()) / (seconds + 4) for name, visit in visits.items()}
            sys.stdout.write(f"{before} to {version} in {seconds:.0f} s, answers a second: {asked}\n")
            assert {name: visit.failures for name, visit in visits.items()} == {moving: [], neighbour: []}
            assert set(visits[moving].answers) == {before, version}, "visitors came before and after"
            assert len(visits[neighbour].answers) == 1
            assert min(asked.values()) > A_SECOND / 2, "too few visitors came to say anything"
            assert web.socket(f"unix:///run/php/{version}/{account}.sock").is_listening
            assert not web.file(f"/etc/php/pools/{before}/{account}.conf").exists
            assert not web.file(f"/run/php/{before}/{account}.sock").exists
            assert not web.service(f"php{before}@{account}.service").is_running
