# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The continuous probe: what it counts, what it looks at, and that a kill does not spoil what it has seen."""

import http.server
import itertools
import json
import socket
import socketserver
import threading
import time
from datetime import UTC, datetime, timedelta

import dns.rcode
import pytest
from dns_server import Authority, gives, rrset, says, serving, silent

from infini.domains.events import LocalStore
from infini.domains.plan import Options, make_plan
from infini.domains.probe import (
    DOCUMENT,
    DnsCheck,
    HttpCheck,
    Look,
    Probe,
    SmtpCheck,
    answering,
    checks_of,
    first_answers,
    tally,
)
from infini.domains.zone import Rrset, Zone
from infini.errors import UnreachableError

RESOLVER = "127.0.0.21"
START = datetime(2026, 11, 22, 10, tzinfo=UTC)
NAME = "asso.test"


def after(seconds):
    return (START + timedelta(seconds=seconds)).isoformat()


NUMBERS = itertools.count(1)


def seen(seconds, check="warm", failed="", until=None, looks=1):
    """Return a line about a run of equal looks."""
    span = {"probe": "1", "line": next(NUMBERS), "at": after(seconds), "until": after(until or seconds)}
    line = {**span, "check": check, "looks": looks, "answer": ""}
    return json.dumps({**line, **({"failed": failed} if failed else {})}) + "\n"


def watched(seconds, until, pause=5.0, unproven=()):
    """Return a line about a span in which all was looked at."""
    span = {"probe": "1", "line": next(NUMBERS), "at": after(seconds), "until": after(until)}
    return json.dumps({**span, "rounds": 2, "pause": pause, "unproven": list(unproven)}) + "\n"


def counted(tmp_path, *lines, since=None):
    store = LocalStore(tmp_path)
    store.keep(NAME, DOCUMENT, "".join(lines if any("rounds" in one for one in lines) else [*lines, watched(0, 0, 0)]))
    return tally(NAME, store, since)


def test_nothing_seen_is_no_tally(tmp_path):
    assert tally(NAME, LocalStore(tmp_path / "none")) is None
    assert counted(tmp_path) is None
    assert counted(tmp_path, seen(0), since=START + timedelta(seconds=1)) is None


def test_looks_and_failures_are_counted(tmp_path):
    found = counted(tmp_path, seen(0, until=5, looks=2), seen(10, failed="SERVFAIL"), seen(15), watched(0, 15))
    assert (found.total, found.failed) == (4, 1)
    assert (found.since, found.until) == (START, START + timedelta(seconds=15))
    assert found.failures == ("2026-11-22T10:00:10+00:00 warm: SERVFAIL",)


@pytest.mark.parametrize(
    ("lines", "gap"),
    [
        ([seen(0, until=5, looks=2)], 0),
        ([seen(0), seen(5, failed="x", until=10, looks=2), seen(15)], 15),
        ([seen(0, failed="x"), seen(5)], 5),
        ([seen(0), seen(5, failed="x")], 5),
        ([seen(0), seen(5, failed="x"), seen(10), seen(15, failed="x"), seen(20, until=25, looks=2)], 10),
        ([seen(0), seen(0, "cold", until=10, looks=3), seen(5, failed="x", until=10, looks=2)], 10),
    ],
    ids=["none", "between", "from-start", "to-end", "longest", "per-check"],
)
def test_the_longest_gap_is_from_good_to_good(tmp_path, lines, gap):
    assert counted(tmp_path, *lines).longest_gap == gap


@pytest.mark.parametrize(
    ("spans", "silence"), [([(0, 5, 5), (905, 910, 5)], 900), ([(0, 700, 600), (705, 710, 5)], 600)]
)
def test_silence_is_not_proof(tmp_path, spans, silence):
    found = counted(tmp_path, seen(0), *(watched(*span) for span in spans))
    assert found.failed == 0
    assert found.longest_silence == silence


def test_lines_that_a_kill_tore_do_not_count(tmp_path):
    torn = (seen(5)[:30] + "\n", '{"at": "yesterday"}\n', "[]\n", '{"probe": "1", "at": "x"}\n')
    assert counted(tmp_path, seen(0), *torn, seen(10)).total == 2


def test_a_line_that_came_twice_counts_once(tmp_path):
    lines = (seen(0, looks=3, until=4), seen(5, failed="x"))
    assert counted(tmp_path, *lines, *lines).total == 4
    assert counted(tmp_path, *lines, seen(0)).total == 5


def test_only_some_failures_are_shown(tmp_path):
    found = counted(tmp_path, *(seen(number, failed="x") for number in range(100)))
    assert found.failed == 100
    assert len(found.failures) == 20


def test_what_no_error_was_seen_at_is_named(tmp_path):
    assert counted(tmp_path, seen(0), watched(0, 5, unproven=["warm"])).unproven == ("warm",)
    assert counted(tmp_path, seen(0), watched(0, 5, unproven=["warm"]), watched(5, 9)).unproven == ()


class Scripted:
    """Gives some looks one after the other, then the last for ever; `proves`: a wrong expectation is seen."""

    every, label = 0.0, "scripted"

    def __init__(self, *looks, steady=False, proves=True):
        self.looks, self.steady, self.proves = list(looks), steady, proves
        self.done = threading.Event()
        self.expected = []

    def look(self):
        if len(self.looks) > 1:
            return self.looks.pop(0)
        self.done.set()
        return self.looks[0]

    def expecting(self, answer):
        if answer == "what nothing answers":
            other = Scripted(Look("x", "another answer", other=True) if self.proves else Look("x"))
            other.label = self.label
            return other
        self.expected.append(answer)
        return self


def run(check, store, **options):
    """Let a probe look until the check has said all that it had to say."""
    with Probe(NAME, [check], store, interval=0.001, **options) as probe:
        assert check.done.wait(10)
    return probe, [json.loads(one) for one in store.kept(NAME, DOCUMENT).splitlines()]


def test_a_probe_writes_each_run_of_equal_looks(tmp_path):
    good, dark = Look("192.0.2.1", secure=True), Look("", "SERVFAIL", secure=False)
    _, lines = run(Scripted(good, good, good, dark, Look("220 mx")), LocalStore(tmp_path), now=lambda: START)
    runs = [line for line in lines if "check" in line][:3]

    assert [one["looks"] for one in runs] == [1, 2, 1]  # the first round is written at once
    assert [one.get("failed") for one in runs] == [None, None, "SERVFAIL"]
    assert [one.get("ad") for one in runs] == [True, True, False]
    assert runs[0]["answer"] == "192.0.2.1"
    assert {one["at"] for one in lines} == {START.isoformat()}


def test_what_a_probe_wrote_is_what_is_counted(tmp_path):
    moments = (START + timedelta(seconds=number) for number in range(1000))
    good, dark = Look("a"), Look("", "SERVFAIL")
    probe, lines = run(Scripted(*[good] * 9, *[dark] * 3, good), LocalStore(tmp_path), now=lambda: next(moments))
    found = probe.tally()
    assert (found.failed, found.unproven) == (3, ())
    assert found.total == sum(line["looks"] for line in lines if "check" in line) >= 13
    assert found.longest_gap > 3
    assert found.longest_silence <= 3  # the clock moves at each reading: two a round


@pytest.mark.parametrize(("proves", "unproven"), [(True, ()), (False, ("scripted",))])
def test_each_run_sees_an_error_made_on_purpose(tmp_path, proves, unproven):
    store = LocalStore(tmp_path)
    for _ in range(2):
        probe, _ = run(Scripted(Look("a"), Look("a"), proves=proves), store)
        assert probe.tally().unproven == unproven
        assert probe.tally().failed == 0  # a control is no look


def test_no_answer_at_all_is_no_control(tmp_path):
    probe, _ = run(Scripted(Look("", "no answer"), Look("", "no answer")), LocalStore(tmp_path))
    assert probe.tally().unproven == ("scripted",)


def test_the_first_good_answer_is_expected_ever_after_also_by_the_next_run(tmp_path):
    store = LocalStore(tmp_path)
    first = Scripted(Look("", "no answer"), Look("200 Asso"), Look("200 Asso"), steady=True)
    run(first, store)
    assert first.expected[-1] == "200 Asso"
    second = Scripted(Look("200 Autre"), Look("200 Autre"), steady=True)
    run(second, store)
    assert set(second.expected) == {"200 Asso"}
    assert first_answers(NAME, store) == {"scripted": "200 Asso"}


def test_a_store_that_is_away_gets_everything_later(tmp_path):
    class Away(LocalStore):
        left = 3

        def add(self, domain, name, lines):
            self.left -= 1
            if self.left >= 0:
                raise UnreachableError("away")
            super().add(domain, name, lines)

    store = Away(tmp_path)
    probe, lines = run(Scripted(Look("a"), Look("", "x"), Look("b"), Look("", "y"), Look("c"), Look("c")), store)
    assert store.left < 0
    assert [line["answer"] for line in lines if "check" in line][:5] == ["a", "", "b", "", "c"]
    assert probe.tally().failed == 2


def test_a_probe_goes_on_where_a_killed_one_stopped(tmp_path):
    store = LocalStore(tmp_path)
    store.add(NAME, DOCUMENT, watched(0, 0, 0) + seen(0))
    path = tmp_path / NAME / DOCUMENT
    path.write_text(path.read_text() + seen(5)[:20])
    run(Scripted(Look(""), Look("")), store, now=lambda: START + timedelta(seconds=10))
    found = tally(NAME, store)
    assert found.since == START
    assert found.longest_silence == 10


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
    """Serve pages whose path says the code, with a title that a test may change."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.server.text.encode()
            self.send_response(int(self.path.strip("/") or 200))
            if self.path == "/301":
                self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.text = "<html><head><TITLE lang=fr>\n Asso &amp; amis</title><body>"
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "answer", "failed"),
    [
        ("/200", "200 Asso & amis", ""),
        ("/301", "301 https://elsewhere.example/", ""),
        ("/404", "404 Asso & amis", ""),
        ("/503", "503 Asso & amis", "HTTP 503"),
    ],
)
def test_a_page_answers(page, path, answer, failed):
    assert HttpCheck(page.url + path).look() == Look(answer, failed)


def test_a_page_that_changes_is_seen(page):
    check = HttpCheck(f"{page.url}/").expecting("200 Asso & amis")
    assert not check.look().failed
    page.text = "<title>Page d'attente</title>"
    assert check.look() == Look("200 Page d'attente", "another answer than “200 Asso & amis”", other=True)
    page.text = "no title" * 100_000
    assert HttpCheck(f"{page.url}/").look() == Look("200")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as made:
        return made.getsockname()[1]


def test_a_closed_port_is_darkness():
    port = free_port()
    assert HttpCheck(f"http://127.0.0.1:{port}/").look().failed.startswith("no answer")
    assert SmtpCheck("127.0.0.1", port).look().failed.startswith("no answer")


@pytest.fixture
def exchanger():
    """Greet each visitor on a port; a test may change the banner."""

    class Exchanger(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(f"{self.server.banner}\r\n".encode())
            self.server.said.append(self.request.recv(100))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Exchanger) as server:
        server.banner, server.said = "220 mx.example ESMTP", []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(("banner", "failed"), [("220 mx.example", ""), ("554 go away", "it does not greet")])
def test_an_exchanger_greets(exchanger, banner, failed):
    exchanger.banner = banner
    assert SmtpCheck("127.0.0.1", exchanger.server_address[1]).look() == Look(banner, failed, other=bool(failed))


def test_an_exchanger_is_taken_leave_of(exchanger):
    SmtpCheck("127.0.0.1", exchanger.server_address[1]).look()
    exchanger.server_close()  # waits for the handler
    assert exchanger.said == [b"QUIT\r\n"]


def planned(*rrsets, redirections=()):
    options = Options(web_addresses=("192.0.2.10", "2001:db8::10"))
    return make_plan(Zone.of(NAME, rrsets), redirections, options)


def labels(plan):
    return {check.label for check in checks_of(plan, [RESOLVER], ["ns-1-a.gandi.net", "ns1.infini.test"])}


def test_the_zone_says_what_to_look_at():
    plan = planned(
        Rrset("@", "A", 300, ("192.0.2.1",)),
        Rrset("@", "MX", 300, ("10 mx.asso.test.", "20 mx.example.")),
        Rrset("www", "CNAME", 300, ("asso.test.",)),
        Rrset("mx", "A", 300, ("192.0.2.25",)),
    )
    asked = {f"par {RESOLVER} {what}" for what in ("asso.test SOA", "asso.test NS", "asso.test A", "asso.test MX")}
    pages = {f"{scheme}://{host}/" for scheme in ("http", "https") for host in ("asso.test", "www.asso.test")}
    exchangers = {"smtp mx.asso.test", "smtp mx.example"}
    assert labels(plan) == asked | {f"par {RESOLVER} www.asso.test CNAME"} | pages | exchangers


def test_what_is_right_before_and_after_is_right():
    plan = planned(
        Rrset("@", "A", 300, ("217.70.184.38",)),
        Rrset("www", "CNAME", 300, ("webredir.vip.gandi.net.",)),
        redirections=[
            {"host": NAME, "type": "http301", "url": "https://x.example/"},
            {"host": f"www.{NAME}", "type": "http302", "url": "https://x.example/", "protocol": "httpsonly"},
        ],
    )
    checks = {check.label: check for check in checks_of(plan, [RESOLVER], ["ns-1-a.gandi.net", "ns1.infini.test"])}
    assert checks[f"par {RESOLVER} asso.test A"].accepted == {"217.70.184.38", "192.0.2.10"}
    assert checks[f"par {RESOLVER} asso.test NS"].accepted == {"ns-1-a.gandi.net.", "ns1.infini.test."}
    assert checks[f"par {RESOLVER} www.asso.test A"].accepted == frozenset()  # a CNAME before, an address after
    assert "https://www.asso.test/" in checks
    assert "http://www.asso.test/" not in checks  # Gandi leads it to HTTPS first, which we do not


def test_a_domain_without_web_or_mail_is_asked_for_in_the_dns_only():
    assert labels(planned(Rrset("t", "TXT", 300, ('"x"',)))) == {
        f"par {RESOLVER} asso.test {kind}" for kind in ("SOA", "NS")
    }


def test_what_gives_no_answer_to_begin_with_is_left_out_unless_it_once_did(page, exchanger):
    port = exchanger.server_address[1]
    good = [HttpCheck(f"{page.url}/"), SmtpCheck("127.0.0.1", port), DnsCheck("warm", "127.0.0.1", NAME, port=1)]
    dark = [HttpCheck(f"{page.url}/503"), SmtpCheck("localhost", free_port())]
    assert answering([*good, *dark], {}) == (good, [f"{page.url}/503", "smtp localhost"])
    assert answering(dark, {"smtp localhost": "220 mx"}) == (dark[1:], [f"{page.url}/503"])


def test_a_probe_of_a_site_and_its_mail_sees_what_breaks(page, exchanger, tmp_path):
    """Real servers: all is well for a while, then the site is another one and the mail is refused."""
    store = LocalStore(tmp_path)
    checks = [HttpCheck(f"{page.url}/", every=0), SmtpCheck("127.0.0.1", exchanger.server_address[1], every=0)]
    with Probe(NAME, checks, store, interval=0.01, patience=0.05):
        until(lambda: (tally(NAME, store) or Quiet).total >= 10)
        assert tally(NAME, store).failed == 0
        assert tally(NAME, store).unproven == ()
        page.text, exchanger.banner = "<title>Autre</title>", "421 later"
        until(lambda: len(tally(NAME, store).failures) >= 2)
    said = " ".join(tally(NAME, store).failures)
    assert "another answer than “200 Asso & amis”" in said
    assert "smtp 127.0.0.1: it does not greet" in said


class Quiet:
    total = 0


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
