# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The continuous probe: what it counts, what it looks at, and that a kill does not spoil what it has seen."""

import http.server
import json
import socket
import threading
from datetime import UTC, datetime, timedelta

import dns.rcode
import pytest
from dns_server import Authority, gives, rrset, says, serving, silent

from infini.domains.probe import DnsCheck, HttpCheck, Look, Probe, SmtpCheck, tally
from infini.domains.zone import Rrset, Zone

RESOLVER = "127.0.0.21"
START = datetime(2026, 11, 22, 10, tzinfo=UTC)


def line(seconds, check="warm", failed=""):
    at = (START + timedelta(seconds=seconds)).isoformat()
    return json.dumps({"at": at, "check": check, "answer": "", **({"failed": failed} if failed else {})}) + "\n"


def counted(tmp_path, *lines, since=None):
    file = tmp_path / "asso.test.jsonl"
    file.write_text("".join(lines))
    return tally("asso.test", file, since)


def test_nothing_seen_is_no_tally(tmp_path):
    assert tally("asso.test", tmp_path / "none.jsonl") is None
    assert counted(tmp_path) is None
    assert counted(tmp_path, line(0), since=START + timedelta(seconds=1)) is None


def test_looks_and_failures_are_counted(tmp_path):
    seen = counted(tmp_path, line(0), line(5), line(10, failed="SERVFAIL"), line(15))
    assert (seen.total, seen.failed) == (4, 1)
    assert (seen.since, seen.until) == (START, START + timedelta(seconds=15))
    assert seen.failures == ("2026-11-22T10:00:10+00:00 warm: SERVFAIL",)


@pytest.mark.parametrize(
    ("lines", "gap"),
    [
        ([line(0), line(5)], 0),
        ([line(0), line(5, failed="x"), line(10, failed="x"), line(15)], 15),
        ([line(0, failed="x"), line(5)], 5),
        ([line(0), line(5, failed="x")], 5),
        ([line(0), line(5, failed="x"), line(10), line(15, failed="x"), line(20), line(25)], 10),
        ([line(0), line(0, "cold"), line(5, failed="x"), line(5, "cold"), line(10, failed="x"), line(10, "cold")], 10),
    ],
    ids=["none", "between", "from-start", "to-end", "longest", "per-check"],
)
def test_the_longest_gap_is_from_good_to_good(tmp_path, lines, gap):
    assert counted(tmp_path, *lines).longest_gap == gap


def test_silence_is_not_proof(tmp_path):
    seen = counted(tmp_path, line(0), line(5), line(905), line(910))
    assert seen.failed == 0
    assert seen.longest_silence == 900


def test_lines_that_a_kill_tore_do_not_count(tmp_path):
    assert counted(tmp_path, line(0), line(5)[:30] + "\n", '{"at": "yesterday"}\n', "[]\n", line(10)).total == 2


def test_only_some_failures_are_shown(tmp_path):
    seen = counted(tmp_path, *(line(number, failed="x") for number in range(100)))
    assert seen.failed == 100
    assert len(seen.failures) == 20


class Counting:
    """Looks that end the probe after some."""

    label = "counting"

    def __init__(self, *looks):
        self.looks = list(looks)
        self.done = threading.Event()

    def look(self):
        look = self.looks.pop(0) if self.looks else Look("")
        if not self.looks:
            self.done.set()
        return look


def test_a_probe_writes_each_look_until_it_is_stopped(tmp_path):
    check = Counting(Look("192.0.2.1", secure=True), Look("", "SERVFAIL", secure=False), Look("220 mx"))
    probe = Probe("asso.test", [check], tmp_path / "probes" / "asso.test.jsonl", interval=0.001, now=lambda: START)
    with probe:
        assert check.done.wait(10)
    lines = [json.loads(one) for one in probe.file.read_text().splitlines()][:3]

    assert [one.get("failed") for one in lines] == [None, "SERVFAIL", None]
    assert [one.get("ad") for one in lines] == [True, False, None]
    assert lines[0]["answer"] == "192.0.2.1"
    assert {one["at"] for one in lines} == {START.isoformat()}
    assert probe.tally().failed == 1


def test_a_probe_goes_on_where_a_killed_one_stopped(tmp_path):
    file = tmp_path / "asso.test.jsonl"
    file.write_text(line(0) + line(5)[:20])
    check = Counting(Look(""))
    with Probe("asso.test", [check], file, interval=60, now=lambda: START + timedelta(seconds=10)):
        assert check.done.wait(10)
    assert tally("asso.test", file).total == 2


def zone():
    return Authority(
        Zone.of("asso.test", [Rrset("@", "A", 60, ("192.0.2.1",)), Rrset("www", "CNAME", 60, ("asso.test.",))])
    )


def look(server, name="asso.test", kind="A", **more):
    with serving({RESOLVER: server}) as port:
        return DnsCheck("warm", RESOLVER, name, kind, port=port, timeout=0.6, **more).look()


def test_a_good_answer_is_good():
    assert look(zone()) == Look("192.0.2.1", "", secure=False)
    assert look(zone(), accepted=frozenset({"192.0.2.1", "192.0.2.2"})).failed == ""


@pytest.mark.parametrize(
    ("lie", "failed"),
    [
        (says(dns.rcode.SERVFAIL), "SERVFAIL"),
        (says(dns.rcode.NXDOMAIN), "NXDOMAIN"),
        (gives(), "no data"),
        (gives(rrset("asso.test", 60, "A", "203.0.113.1")), "a wrong answer"),
        (gives(rrset("asso.test", 60, "A", "192.0.2.1", "203.0.113.1")), "a wrong answer"),
        (silent, "no answer (Timeout)"),
    ],
)
def test_darkness_has_a_name(lie, failed):
    server = zone()
    server.lie("@", "A", lie)
    assert look(server, accepted=frozenset({"192.0.2.1"})).failed == failed


def test_one_lost_packet_is_not_darkness():
    server, lost = zone(), []

    def losing(query, transport):
        if not lost:
            lost.append(query)
            return None
        return server(query, transport)

    assert look(losing).failed == ""
    assert lost


def test_a_resolver_is_flushed_before_it_is_asked(tmp_path):
    flushed = tmp_path / "flushed"
    look(zone(), flush=("touch", str(flushed)))
    assert flushed.exists()


@pytest.fixture
def page():
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path[1:]))
            if self.path == "/301":
                self.send_header("Location", "https://elsewhere.example/")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "answer", "failed"),
    [
        ("/200", "200", ""),
        ("/301", "301 https://elsewhere.example/", ""),
        ("/404", "404", ""),
        ("/503", "503", "HTTP 503"),
    ],
)
def test_a_page_answers(page, path, answer, failed):
    assert HttpCheck(page + path).look() == Look(answer, failed)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as made:
        return made.getsockname()[1]


def test_a_closed_port_is_darkness():
    port = free_port()
    assert HttpCheck(f"http://127.0.0.1:{port}/").look().failed.startswith("no answer")
    assert SmtpCheck("127.0.0.1", port).look().failed.startswith("no answer")


@pytest.mark.parametrize(("banner", "failed"), [("220 mx.example", ""), ("554 go away", "it does not greet")])
def test_an_exchanger_greets(banner, failed):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet():
            made, _ = server.accept()
            with made:
                made.sendall(f"{banner}\r\n".encode())

        threading.Thread(target=greet, daemon=True).start()
        assert SmtpCheck("127.0.0.1", server.getsockname()[1]).look() == Look(banner, failed)
