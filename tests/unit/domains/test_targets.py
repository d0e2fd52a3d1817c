# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where zones go to live: whole, repeatable, and nothing refused in silence."""

import http.server
import json
import threading
from datetime import UTC, datetime, timedelta

import dns.flags
import dns.rcode
import dns.tsigkeyring
import dns.update
import pytest
from dns_server import serving
from hypothesis import given
from hypothesis import strategies as st

from infini.domains import targets
from infini.domains.ports import ByHandError, WorldError
from infini.domains.reading import Tsig
from infini.domains.targets import (
    END_MARKER,
    AlternC,
    ByHand,
    DesecImport,
    OvhImport,
    Rfc2136,
    ZoneFiles,
    panel_zone,
)
from infini.domains.zone import Rrset, Unreadable, Zone
from infini.errors import RefusedError

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SERVERS = ("ns1.infini.test", "ns2.infini.test")
ZONE = Zone.of(
    "asso.test",
    [
        Rrset("@", "A", 3600, ("192.0.2.1", "192.0.2.2")),
        Rrset("@", "MX", 3600, ("10 mx.asso.test.",)),
        Rrset("@", "TXT", 3600, ('"v=spf1 -all"',)),
        Rrset("www", "CNAME", 3600, ("asso.test.",)),
    ],
)
OTHER = Zone.of("asso.test", [*ZONE.rrsets.values(), Rrset("x", "A", 3600, ("192.0.2.3",))])


class Clock:
    def __init__(self):
        self.slept = []

    def now(self):
        return NOW + timedelta(seconds=sum(self.slept))

    def sleep(self, seconds):
        self.slept.append(seconds)


@pytest.fixture
def published():
    return []


@pytest.fixture
def files(tmp_path, published):
    return ZoneFiles(
        tmp_path / "zones", SERVERS, "hostmaster@infini.test", lambda: published.append(1), now=lambda: NOW
    )


def test_a_zone_file_is_written_once(files, published):
    files.provision(ZONE)
    path = files.folder / "asso.test.zone"
    first, written = path.read_text(), path.stat().st_mtime_ns
    assert " 2026112201 " in first
    assert "@ 3600 IN NS ns1.infini.test." in first

    files.provision(ZONE)
    assert path.stat().st_mtime_ns == written
    assert len(published) == 2  # a file that stands may not be served yet

    files.provision(OTHER)
    assert " 2026112202 " in path.read_text()
    files.provision(ZONE)
    assert path.read_text() == first.replace("2026112201", "2026112203")
    assert [file.name for file in files.folder.iterdir()] == ["asso.test.zone"]


def test_a_zone_file_is_taken_away(files, published):
    files.provision(ZONE)
    files.remove("asso.test")
    files.remove("asso.test")
    assert not list(files.folder.iterdir())
    assert len(published) == 3


@pytest.mark.parametrize(
    ("zone", "says_why"),
    [
        (Zone.of("asso.test", [Rrset("@", "A", 60, ("192.0.2.1",))]), r"@/A \(60 s\)"),
        (Zone("asso.test", {}, (Unreadable("@", "ALIAS", (), ""),)), "@/ALIAS"),
        (Zone("../etc/passwd"), "cannot be the name"),
    ],
)
def test_what_would_not_be_served_as_it_is_is_refused(files, published, zone, says_why):
    with pytest.raises(RefusedError, match=says_why):
        files.provision(zone)
    assert not files.folder.exists()
    assert not published


def rebuilt(divided, name):
    """Return the rrsets that rows and lines below the marker make together."""
    types = {"ip": "A", "ipv6": "AAAA", "cname": "CNAME", "txt": "TXT"}
    found = {}
    for sub, kind, value in divided.rows:
        shown = f'"{value}"' if kind == "txt" else value
        found.setdefault((sub or "@", types[kind], divided.ttl), []).append(shown)
    for line in divided.below.splitlines():
        owner, ttl, _, kind, value = line.split(" ", 4)
        found.setdefault((owner, kind, int(ttl)), []).append(value)
    return Zone.of(name, [Rrset(owner, kind, ttl, tuple(values)) for (owner, kind, ttl), values in found.items()])


VALUES = {
    "A": ("192.0.2.1", "192.0.2.2"),
    "AAAA": ("2001:db8::1",),
    "MX": ("10 mx.example.", "20 mx.example."),
    "TXT": ('"plain"', '"two" "strings"', '"quoted \\" here"', f'"{"a" * 255}"'),
    "SRV": ("0 1 993 mail.example.",),
}
RRSETS = st.builds(
    lambda name, kind, ttl, count: Rrset(name, kind, ttl, VALUES[kind][:count]),
    st.sampled_from(["@", "www", "*", "a.b"]),
    st.sampled_from(sorted(VALUES)),
    st.sampled_from([300, 3600]),
    st.integers(1, 4),
)


@given(st.lists(RRSETS, unique_by=lambda rrset: rrset.key))
def test_rows_and_lines_make_the_zone_again(rrsets):
    zone = Zone.of("asso.test", rrsets)
    assert rebuilt(panel_zone(zone), "asso.test") == zone


def test_the_panel_gets_what_it_can_say():
    longer = Rrset("slow", "A", 86400, ("192.0.2.9",))
    divided = panel_zone(Zone.of("asso.test", [*ZONE.rrsets.values(), longer, Rrset("@", "NS", 3600, ("ns.old.",))]))
    assert divided.ttl == 3600
    assert divided.rows == (
        ("", "ip", "192.0.2.1"),
        ("", "ip", "192.0.2.2"),
        ("", "txt", "v=spf1 -all"),
        ("www", "cname", "asso.test."),
    )
    assert divided.below == "@ 3600 IN MX 10 mx.asso.test.\nslow 86400 IN A 192.0.2.9\n"


def test_a_name_that_the_panel_has_no_room_for_is_refused():
    with pytest.raises(RefusedError, match="no room"):
        panel_zone(Zone("a" * 60 + ".test"))


def test_the_panels_stand_in_writes_both_parts(tmp_path):
    target = AlternC(tmp_path, SERVERS)
    target.provision(ZONE)
    rows = json.loads((tmp_path / "asso.test.rows.json").read_text())
    assert (rows["domaine"], rows["zonettl"], len(rows["sub_domaines"])) == ("asso.test", 3600, 4)
    assert (tmp_path / "asso.test.zone").read_text() == f"{END_MARKER}\n@ 3600 IN MX 10 mx.asso.test.\n"
    target.remove("asso.test")
    assert not list(tmp_path.iterdir())


def test_by_hand_a_human_is_told_what_to_do(tmp_path):
    target = ByHand(tmp_path, SERVERS, "Hébergeur", "hostmaster@infini.test", now=lambda: NOW)
    with pytest.raises(ByHandError, match=r"asso\.test\.zone") as told:
        target.provision(ZONE)
    assert told.value.who == "volunteer"
    assert "10 mx.asso.test." in (tmp_path / "asso.test.zone").read_text()
    with pytest.raises(ByHandError, match="supprimez"):
        target.remove("asso.test")


class Ovh:
    """OVH's API: each call takes the next status."""

    def __init__(self, *statuses):
        self.statuses, self.calls = list(statuses), []

    def call(self, method, path, body=None):
        self.calls.append((method, path, body))
        return {"id": 5, "status": self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]}


def ovh(api):
    return OvhImport(api, ("dns1.ovh.example",), "hostmaster@infini.test", Clock(), patience=60)


def test_ovh_imports_the_whole_zone_and_is_waited_for():
    api = Ovh("todo", "doing", "done")
    ovh(api).provision(ZONE)
    assert [call[:2] for call in api.calls] == [
        ("POST", "/domain/zone/asso.test/import"),
        ("GET", "/domain/zone/asso.test/task/5"),
        ("GET", "/domain/zone/asso.test/task/5"),
    ]
    assert "@ 3600 IN MX 10 mx.asso.test." in api.calls[0][2]["zoneFile"]


def test_ovhs_failure_is_said():
    with pytest.raises(WorldError, match="error") as caught:
        ovh(Ovh("todo", "error")).provision(ZONE)
    assert not caught.value.retry


def test_ovh_is_not_waited_for_without_end():
    target = ovh(Ovh("doing"))
    with pytest.raises(WorldError, match="not finished") as caught:
        target.remove("asso.test")
    assert caught.value.retry
    assert caught.value.landed is None
    assert sum(target.clock.slept) == 60


class Desec:
    """deSEC as its documentation describes it: tokens, pages, throttling, a bulk PUT."""

    def __init__(self):
        self.zones, self.refusals, self.requests = {}, [], []

    def answer(self, method, path, body, token):
        self.requests.append((method, path))
        if self.refusals:
            return self.refusals.pop(0)
        if token != "Token secret":
            return 401, {"detail": "Invalid token."}, {}
        path, _, cursor = path.partition("?cursor=")
        parts = path.strip("/").split("/")
        if method == "POST":
            self.zones[body["name"]] = {
                ("", "NS"): {"subname": "", "type": "NS", "ttl": 3600, "records": ["ns1.desec.io."]}
            }
            return 201, {}, {}
        if parts[1] not in self.zones:
            return 404, {}, {}
        zone = self.zones[parts[1]]
        if method == "DELETE":
            del self.zones[parts[1]]
            return 204, None, {}
        if method == "PUT":
            for entry in body:
                zone[entry["subname"], entry["type"]] = entry
                if not entry["records"]:
                    del zone[entry["subname"], entry["type"]]
            return 200, body, {}
        entries, start = list(zone.values()), int(cursor or 0)
        more = {"next": f"/{path.strip('/')}/?cursor={start + 2}"} if start + 2 < len(entries) else {}
        return 200, entries[start : start + 2] if len(parts) > 2 else {}, more


@pytest.fixture
def desec():
    service = Desec()

    class Door(http.server.BaseHTTPRequestHandler):
        def handle_one(self):
            size = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            status, said, more = service.answer(self.command, self.path, body, self.headers.get("authorization"))
            content = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            if "next" in more:
                self.send_header("Link", f'<http://{self.headers["host"]}{more["next"]}>; rel="next"')
            if "retry-after" in more:
                self.send_header("Retry-After", more["retry-after"])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815  names that http.server looks for

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        service.target = DesecImport(lambda: "secret", Clock(), url=f"http://127.0.0.1:{server.server_address[1]}")
        yield service
        server.shutdown()


def held(service):
    return {
        (entry["subname"] or "@", entry["type"], entry["ttl"], tuple(entry["records"]))
        for entry in service.zones["asso.test"].values()
        if entry["type"] != "NS"
    }


def test_desec_holds_exactly_the_zone(desec):
    for zone in (OTHER, ZONE, ZONE):
        desec.target.provision(zone)
        assert held(desec) == {(one.name, one.type, one.ttl, one.values) for one in zone.rrsets.values()}
    assert ("", "NS") in desec.zones["asso.test"]
    assert [method for method, _ in desec.requests].count("POST") == 1

    desec.target.remove("asso.test")
    desec.target.remove("asso.test")
    assert not desec.zones


def test_desec_is_waited_for_as_long_as_it_asks(desec):
    desec.refusals = [(429, {}, {"retry-after": "7"}), (429, {}, {})]
    desec.target.provision(ZONE)
    assert desec.target.clock.slept == [7.0, 60.0]


@pytest.mark.parametrize(
    ("status", "says_why", "retry"),
    [(403, "number of zones", False), (500, "500", True), (409, "somebody else", False)],
)
def test_desecs_refusals_are_said(desec, status, says_why, retry):
    desec.refusals = [(status, {"detail": "no"}, {})]
    with pytest.raises(WorldError, match=says_why) as caught:
        desec.target.provision(ZONE)
    assert caught.value.retry is retry
    assert not desec.target.clock.slept


def test_desecs_token_is_never_shown(desec):
    desec.target.token = lambda: "wrong-secret"
    with pytest.raises(WorldError, match="token is wrong") as caught:
        desec.target.provision(ZONE)
    assert "wrong-secret" not in str(caught.value) + repr(desec.target)


def test_desecs_lost_answer_is_not_a_failure(desec, monkeypatch):
    desec.target.provision(ZONE)

    def lose(method, *_, **__):
        raise targets.httpx.ReadTimeout(method)

    monkeypatch.setattr(targets.httpx, "request", lose)
    with pytest.raises(WorldError, match="no answer") as caught:
        desec.target.remove("asso.test")
    assert caught.value.retry
    assert caught.value.landed is None


def test_desec_refuses_short_ttls(desec):
    with pytest.raises(RefusedError, match="3600"):
        desec.target.provision(Zone.of("asso.test", [Rrset("@", "A", 300, ("192.0.2.1",))]))
    assert not desec.requests


# Updates that succeed are shown on a real server, in tests/e2e/test_dns_lab.py.


def updates(monkeypatch, standing, answer):
    """Send an update to a server that answers so; its zone is read as `standing`."""
    monkeypatch.setattr(targets, "from_axfr", lambda *_: standing)
    with serving({"127.0.0.31": answer}) as port:
        target = Rfc2136("127.0.0.31", Tsig("key.test", "c2VjcmV0"), SERVERS, port=port, timeout=0.5)
        target.provision(ZONE)


def test_nothing_is_sent_when_nothing_differs(monkeypatch):
    served = Zone.of("asso.test", [*ZONE.rrsets.values(), Rrset("@", "NS", 300, ("ns9.example.",))])
    updates(monkeypatch, served, lambda *_: pytest.fail("nothing should be asked"))


def refusing(query, *, signed):
    said = dns.update.UpdateMessage(ZONE.name, id=query.id)
    said.flags |= dns.flags.QR
    said.set_rcode(dns.rcode.REFUSED)
    if signed:
        said.use_tsig(dns.tsigkeyring.from_text({"key.test": "c2VjcmV0"}), algorithm="hmac-sha256")
        said.request_mac = query.mac
    return said


def test_a_refused_update_is_said(monkeypatch):
    with pytest.raises(WorldError, match=r"refuses the update of .*: REFUSED") as caught:
        updates(monkeypatch, OTHER, lambda query, _: refusing(query, signed=True))
    assert caught.value.landed is False
    assert "c2VjcmV0" not in str(caught.value)


def test_an_unsigned_refusal_proves_nothing(monkeypatch):
    with pytest.raises(WorldError, match="without our key's signature") as caught:
        updates(monkeypatch, OTHER, lambda query, _: refusing(query, signed=False))
    assert caught.value.landed is None


def test_a_lost_answer_to_an_update_may_have_landed(monkeypatch):
    with pytest.raises(WorldError, match="gave no answer") as caught:
        updates(monkeypatch, OTHER, lambda *_: None)
    assert caught.value.retry
    assert caught.value.landed is None
