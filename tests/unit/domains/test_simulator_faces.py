# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faces of the simulated world: every call of the contract is answered as the contract says, surprises included."""

import base64
import json
from datetime import timedelta

import httpx
import pytest

from infini.domains.simulator.clock import START, VirtualClock
from infini.domains.simulator.face import Request, contract
from infini.domains.simulator.faults import HALTING, HEALING, KINDS, Faults
from infini.domains.simulator.netim import LOGIN, PASSWORD
from infini.domains.simulator.ovh import APPLICATION_KEY, CONSUMER_KEY, signature
from infini.domains.simulator.serve import TOKEN, Simulation, duration
from infini.domains.simulator.world import GANDI_NAMESERVERS, Quirks, World

NAME = "amis.example"
OURS = ["ns1.infini.example", "ns2.infini.example"]
DOMAIN, ZONE = f"/v5/domain/domains/{NAME}", f"/v5/livedns/domains/{NAME}"
PEOPLE = dict.fromkeys(("idOwner", "idAdmin", "idTech", "idBilling"), "XX1")
KEY = {"algorithm": 13, "type": "ksk", "public_key": base64.b64encode(b"k" * 64).decode()}


def rrset(name, kind, *values, ttl=10800):
    return {"rrset_name": name, "rrset_type": kind, "rrset_ttl": ttl, "rrset_values": list(values)}


RECORDS = [rrset("@", "A", "192.0.2.1"), rrset("www", "CNAME", "@"), rrset("Blog", "TXT", '"one two"', '"three"')]


class Caller:
    """Calls a simulation's faces as their clients do, without HTTP."""

    def __init__(self, quirks=None, faults=None, **more):
        self.world = World(VirtualClock(), quirks=quirks, faults=faults)
        self.world.add(
            NAME,
            RECORDS,
            redirections=[{"host": f"www.{NAME}", "type": "http301", "url": "https://example.org/"}],
            hosts=[{"name": "ns1", "ips": ["192.0.2.53"]}],
            mailboxes=[{"address": f"a@{NAME}", "aliases": ["b"]}],
            forwards=[{"source": "c", "destinations": ["d@example.org"]}],
            certificates=[{"id": "1", "cn": NAME, "status": "valid", "dates": {}}],
            **{"signed": True, **more},
        )
        self.simulation = Simulation(self.world)
        self.journal = self.simulation.journal
        self.session = ""

    def ask(self, face, method, target, data=None, headers=()):
        body = b"" if data is None else json.dumps(data).encode()
        return self.simulation.faces[face].answer(Request(method, target, dict(headers), body, f"http://sim{target}"))

    def gandi(self, method, target, data=None, token=TOKEN, **headers):
        return self.ask("gandi", method, target, data, {"authorization": f"Bearer {token}", **headers})

    def ovh(self, method, path, data=None, **forged):
        target, stamp = f"/1.0{path}", str(int(self.world.now().timestamp()))
        body = b"" if data is None else json.dumps(data).encode()
        stamp = forged.get("timestamp", stamp)
        signed = signature(Request(method, target, {}, body, f"http://sim{target}"), stamp)
        said = {"application": APPLICATION_KEY, "consumer": CONSUMER_KEY, "timestamp": stamp, "signature": signed}
        said |= forged
        return self.ask("ovh", method, target, data, {f"x-ovh-{name}": value for name, value in said.items()})

    def netim(self, method, path, data=None):
        if not self.session:
            basic = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
            opened = self.ask("netim", "POST", "/3.0/session/", headers={"authorization": f"Basic {basic}"})
            self.session = opened.data["access_token"]
        return self.ask("netim", method, f"/3.0{path}", data, {"authorization": f"Bearer {self.session}"})

    def wait(self, **time):
        self.world.clock.advance(timedelta(**time))

    def order_at_ovh(self, code, nameservers=OURS):
        """Walk through the cart up to the order; return its number."""
        cart = self.ovh("POST", "/order/cart", {"ovhSubsidiary": "FR"}).data["cartId"]
        item = self.ovh("POST", f"/order/cart/{cart}/domain", {"domain": NAME, "duration": "P1Y"}).data["itemId"]
        self.ovh("POST", f"/order/cart/{cart}/assign")
        given = {"OWNER_CONTACT": "/me/contact/1", "OWNER_LEGAL_AGE": "true", "AUTH_INFO": code}
        given["DNS"] = ",".join(nameservers)
        for label, value in given.items():
            self.ovh("POST", f"/order/cart/{cart}/item/{item}/configuration", {"label": label, "value": value})
        return self.ovh("POST", f"/order/cart/{cart}/checkout", {"autoPayWithPreferredPaymentMethod": True})


@pytest.fixture
def caller():
    return Caller()


def errors(answer):
    return [(error["name"], error["description"]) for error in answer.data["errors"]]


# --- the contract -----------------------------------------------------------------------------------------------------


def test_every_call_is_sourced_routed_and_has_its_method(caller):
    calls = [(entry.face, entry.method, entry.path) for entry in contract()]
    assert len(calls) == len(set(calls))
    for entry in contract():
        assert entry.source in {"DOC", "SRC", "WEB", "MEM", "?"}, entry
        assert entry.kind in {"read", "write", "irreversible"}, entry
        assert (entry.method == "GET") <= (entry.kind == "read"), entry
        assert callable(getattr(caller.simulation.faces[entry.face], f"do_{entry.does}")), entry
    does = {face: {entry.does for entry in contract() if entry.face == face} for face in caller.simulation.faces}
    for name, face in caller.simulation.faces.items():
        assert {method[3:] for method in dir(face) if method.startswith("do_")} == does[name]


def exercise_gandi(caller):
    snapshot = caller.gandi("POST", f"{ZONE}/snapshots", {"name": "before"}).data["id"]
    box = caller.gandi("GET", f"/v5/email/mailboxes/{NAME}").data[0]["id"]
    for path in (
        "/v5/organization/organizations",
        "/v5/domain/domains",
        *(DOMAIN + tail for tail in ("", "/nameservers", "/livedns", "/livedns/dnssec", "/dnskeys", "/hosts")),
        *(DOMAIN + tail for tail in ("/hosts/ns1", "/webredirs", f"/webredirs/www.{NAME}", "/contacts", "/tags")),
        "/v5/domain/tlds/fr",
        "/v5/livedns/domains",
        *(ZONE + tail for tail in ("", "/records", "/records/www", "/records/%40/A", "/snapshots", "/keys")),
        *(ZONE + tail for tail in ("/nameservers", f"/snapshots/{snapshot}")),
        f"/v5/livedns/nameservers/{NAME}",
        "/v5/livedns/dns/rrtypes",
        *(f"/v5/email/{what}" for what in (f"mailboxes/{NAME}/{box}", f"forwards/{NAME}", f"offers/{NAME}")),
        *("/v5/mailbox/mailboxes", "/v5/mailbox/forwards", "/v5/certificate/issued-certs"),
    ):
        assert caller.gandi("GET", path).status == 200, path
    key = caller.world.domain(NAME).dnskeys[0]["id"]
    for method, path, data in (
        ("PATCH", f"{DOMAIN}/status", {"clientTransferProhibited": True}),
        ("PUT", f"{DOMAIN}/authinfo", None),
        ("POST", f"{DOMAIN}/transferout", {"accept": False, "authinfo": "none"}),
        ("PUT", f"{DOMAIN}/nameservers", {"nameservers": OURS}),
        ("POST", f"{DOMAIN}/livedns", None),
        ("POST", f"{DOMAIN}/dnskeys", KEY),
        ("PUT", f"{DOMAIN}/dnskeys", {"keys": [KEY]}),
        ("DELETE", f"{DOMAIN}/dnskeys/{key}", None),
        ("DELETE", f"{DOMAIN}/livedns/dnssec", None),
        ("PATCH", f"{DOMAIN}/autorenew", {"enabled": False}),
        ("PATCH", f"{DOMAIN}/tags", {"add": ["moving"]}),
        ("PUT", f"{ZONE}/records", {"items": RECORDS}),
        ("POST", f"{ZONE}/records/new/A", {"rrset_values": ["192.0.2.9"]}),
        ("PUT", f"{ZONE}/records/new/A", {"rrset_values": ["192.0.2.8"], "rrset_ttl": 300}),
        ("PATCH", f"{ZONE}/records/new/A", {"rrset_ttl": 600}),
        ("DELETE", f"{ZONE}/records/new/A", None),
        ("DELETE", f"{ZONE}/records/Blog", None),
    ):
        expected = 409 if path.endswith("transferout") else 299
        assert caller.gandi(method, path, data).status <= expected, (method, path)


def exercise_ovh(caller):
    caller.simulation.ovh.zones[NAME] = ""
    cart = caller.ovh("POST", "/order/cart", {"ovhSubsidiary": "FR"}).data["cartId"]
    item = caller.ovh("POST", f"/order/cart/{cart}/domainTransfer", {"domain": NAME}).data["itemId"]
    chosen = f"/order/cart/{cart}/item/{item}/configuration"
    choice = caller.ovh("POST", chosen, {"label": "DNS", "value": ",".join(OURS)}).data["id"]
    caller.ovh("DELETE", f"{chosen}/{choice}")
    for path in ("/auth/time", "/me", f"/order/cart/{cart}", f"/order/cart/{cart}/domain?domain={NAME}"):
        assert caller.ovh("GET", path).status == 200, path
    for path in ("", f"/{item}", f"/{item}/requiredConfiguration", f"/{item}/configuration"):
        assert caller.ovh("GET", f"/order/cart/{cart}/item{path}").status == 200, path
    assert caller.ovh("GET", f"/order/cart/{cart}/checkout").status == 400  # not assigned
    assert caller.ovh("DELETE", f"/order/cart/{cart}").status == 200
    number = caller.order_at_ovh("wrong").data["orderId"]
    caller.wait(hours=1)
    task = caller.ovh("GET", "/me/task/domain?function=DomainIncomingTransfer").data[0]
    detail = caller.ovh("GET", f"/me/order/{number}/details").data[0]
    for path in ("", f"/{number}", f"/{number}/status", f"/{number}/details/{detail}"):
        assert caller.ovh("GET", f"/me/order{path}").status == 200, path
    for tail in ("", "/argument/authInfo"):
        assert caller.ovh("GET", f"/me/task/domain/{task}{tail}").status == 200, tail
    code = {"value": caller.world.auth_code(NAME)}
    assert caller.ovh("PUT", f"/me/task/domain/{task}/argument/authInfo", code).status == 200
    assert caller.ovh("POST", f"/me/task/domain/{task}/relaunch").status == 200
    caller.wait(days=6)
    for path in ("", f"/{NAME}", f"/{NAME}/task", f"/{NAME}/task/{task}", f"/{NAME}/serviceInfos"):
        assert caller.ovh("GET", f"/domain{path}").status == 200, path
    assert caller.ovh("PUT", f"/domain/{NAME}", {"transferLockStatus": "locked"}).status == 200
    assert caller.ovh("PUT", f"/domain/{NAME}/serviceInfos", {"renew": {"automatic": True}}).status == 200
    assert caller.ovh("POST", f"/me/task/domain/{task}/cancel").status == 409
    text = f"$ORIGIN {NAME}.\n@ 300 IN A 192.0.2.1\n"
    done = caller.ovh("POST", f"/domain/zone/{NAME}/import", {"zoneFile": text}).data["id"]
    assert caller.ovh("GET", f"/domain/zone/{NAME}/export").data == text
    for tail in ("", f"/task/{done}"):
        assert caller.ovh("GET", f"/domain/zone/{NAME}{tail}").status == 200
    assert caller.world.new_zone(NAME, "dns111.ovh.net").rrsets["@", "A"].values == ("192.0.2.1",)


def exercise_netim(caller):
    for path in ("/session/", f"/domain/{NAME}/check/", f"/domain/{NAME}/price/", "/tld/example/"):
        assert caller.netim("GET", path).status == 200, path
    servers = {"1": {"name": OURS[0]}, "2": {"name": OURS[1]}}
    order = {"authID": "wrong", "nameservers": servers, **PEOPLE}
    assert caller.netim("POST", f"/domain/{NAME}/transfer/", {**order, "nameservers": {"1": OURS[0]}}).status == 400
    number = caller.netim("POST", f"/domain/{NAME}/transfer/", order).data["ID"]
    assert caller.netim("POST", f"/domain/{NAME}/transfer/", order).status == 409
    assert caller.netim("GET", "/operations/pending/").data[0]["id_ope"] == str(number)
    assert caller.netim("PATCH", f"/operation/{number}/cancel/").data["STATUS"] == "Cancelled"
    order["authID"] = caller.world.auth_code(NAME)
    number = caller.netim("POST", f"/domain/{NAME}/transfer/", order).data["ID"]
    caller.wait(days=6)
    caller.session = ""  # the session has slept too long
    assert caller.netim("GET", f"/operation/{number}").data["STATUS"] == "Done"
    for name in ("registrar_lock", "auto_renew"):
        assert caller.netim("PATCH", f"/domain/{NAME}/preference/", {"codePref": name, "value": "1"}).status == 200
    said = caller.netim("GET", f"/domain/{NAME}/info/").data
    assert (said["domainIsLock"], said["autoRenew"], said["ns"]) == (1, 1, OURS)
    moved = {"1": {"name": "ns3.example"}, "2": {"name": "ns4.example"}}
    assert caller.netim("PUT", f"/domain/{NAME}/dns/", {"nameservers": moved}).status == 200
    caller.wait(hours=1)
    assert caller.world.delegation(NAME).nameservers == {"ns3.example", "ns4.example"}
    assert caller.netim("DELETE", "/session/").status == 401  # idle for an hour
    caller.session = ""
    assert caller.netim("DELETE", "/session/").status == 200
    assert caller.netim("GET", "/session/").status == 401


def exercise_rdap(caller):
    assert caller.ask("rdap", "GET", "/dns.json").data["services"][0][0] == ["example"]
    assert caller.ask("rdap", "GET", f"/domain/{NAME.upper()}").data["ldhName"] == NAME


@pytest.mark.parametrize("face", ["gandi", "ovh", "netim", "rdap"])
def test_every_call_answers_as_the_contract_says(face):
    caller = Caller(locked=False, signed=face == "gandi")
    {"gandi": exercise_gandi, "ovh": exercise_ovh, "netim": exercise_netim, "rdap": exercise_rdap}[face](caller)
    called = {entry.operation for entry in caller.journal.asked if entry.face == face}
    assert called == {entry.does for entry in contract() if entry.face == face}
    assert caller.journal.violations == []
    assert caller.journal.unknown() == []


def test_a_face_that_breaks_its_contract_is_seen(caller, monkeypatch):
    monkeypatch.setattr("infini.domains.simulator.gandi._date", lambda _at: None)
    monkeypatch.setattr(caller.simulation.gandi, "_contacts", lambda: {"owner": {}})
    assert caller.gandi("GET", f"{DOMAIN}/contacts").status == 200
    assert caller.journal.violations == ["gandi GET /v5/domain/domains/{domain}/contacts lacks admin, bill, tech"]


# --- Gandi's habits ---------------------------------------------------------------------------------------------------


def test_tokens(caller):
    caller.world.add_token("old", expires=START)
    caller.world.add_token("reader", writes=False)
    caller.world.add_token("other", "another")
    assert caller.ask("gandi", "GET", DOMAIN).status == 401
    assert caller.ask("gandi", "GET", DOMAIN, headers={"authorization": f"Apikey {TOKEN}"}).status == 401
    assert caller.gandi("GET", DOMAIN, token="old").status == 403
    assert caller.gandi("GET", DOMAIN, token="other").status == 403
    assert caller.gandi("GET", "/v5/domain/domains", token="other").data == []
    assert caller.gandi("GET", DOMAIN, token="reader").status == 200
    assert caller.gandi("PUT", f"{DOMAIN}/authinfo", token="reader").status == 403
    assert not any(entry.landed for entry in caller.journal.asked)


def test_lists_may_want_the_organisation():
    caller = Caller(quirks=Quirks(lists_need_organisation=True))
    found = [caller.gandi("GET", f"/v5/domain/domains{query}").data for query in ("", "?sharing_id=infini")]
    assert [len(rows) for rows in found] == [0, 1]


def test_renewal_is_a_boolean_in_the_list_and_an_object_alone(caller):
    assert caller.gandi("GET", "/v5/domain/domains").data[0]["autorenew"] is True
    assert caller.gandi("GET", DOMAIN).data["autorenew"]["enabled"] is True


def test_code_is_absent_while_locked(caller):
    assert "authinfo" not in caller.gandi("GET", DOMAIN).data
    caller.gandi("PATCH", f"{DOMAIN}/status", {"clientTransferProhibited": False})
    assert "clientTransferProhibited" in caller.gandi("GET", DOMAIN).data["status"]
    caller.wait(hours=72)
    said = caller.gandi("GET", DOMAIN).data
    assert "clientTransferProhibited" not in said["status"]
    assert said["authinfo"] == caller.world.auth_code(NAME)
    assert said["dates"]["authinfo_expires_at"] > said["dates"]["updated_at"]


def test_paging(caller):
    caller.world.set_records(NAME, [rrset(f"n{number}", "A", "192.0.2.1") for number in range(25)])
    pages = [caller.gandi("GET", f"{ZONE}/records?page={page}&per_page=10") for page in (1, 2, 3, 4)]
    assert [len(page.data) for page in pages] == [10, 10, 5, 0]
    assert {page.headers["Total-Count"] for page in pages} == {"25"}
    assert 'rel="next"' in pages[1].headers["Link"]
    assert "Link" not in pages[2].headers
    assert caller.gandi("GET", f"{ZONE}/records?page=0").status == 400
    assert "X-Total-Count" in caller.gandi("GET", "/v5/mailbox/mailboxes").headers
    assert caller.gandi("GET", "/v5/mailbox/forwards").data[0]["source"] == f"c@{NAME}"


@pytest.mark.parametrize(
    ("path", "data", "wrong"),
    [
        ("new/A", {"rrset_values": ["192.0.2.9"], "rrset_ttl": 60}, ("rrset_ttl", "60 is less than minimum value 300")),
        ("new/ALIAS", {"rrset_values": ["a.example."]}, ("items", "only '@' is allowed for ALIAS records")),
        ("new/URI", {"rrset_values": ["x"]}, ("rrset_type", "URI is not one of")),
        ("new/A", {}, ("rrset_values", "Required")),
        ("new/A", {"rrset_values": ["x"], "rrset_ttl": True}, ("rrset_ttl", "is not of type integer")),
    ],
)
def test_records_that_livedns_refuses(caller, path, data, wrong):
    answer = caller.gandi("POST", f"{ZONE}/records/{path}", data)
    assert answer.status == 400
    [(name, says)] = errors(answer)
    assert name == wrong[0]
    assert says.startswith(wrong[1])


def test_records_habits(caller):
    assert caller.gandi("POST", f"{ZONE}/records/@/A", {"rrset_values": ["192.0.2.9"]}).status == 409
    assert caller.gandi("GET", f"{ZONE}/records/%40/A").data["rrset_href"].endswith("/records/%40/A")
    assert [caller.gandi("GET", f"{ZONE}/records/{label}/TXT").status for label in ("Blog", "blog")] == [200, 404]
    assert caller.gandi("PATCH", f"{ZONE}/records/Blog/TXT", {"rrset_ttl": 300}).status == 202
    assert caller.gandi("GET", f"{ZONE}/records/Blog/TXT").data["rrset_values"] == ['"one two"', '"three"']


def test_bare_list_of_nameservers_is_refused(caller):
    assert caller.gandi("PUT", f"{DOMAIN}/nameservers", OURS).status == 400
    assert caller.gandi("PUT", f"{DOMAIN}/nameservers", {"nameservers": OURS}).status == 202
    caller.wait(hours=1)
    assert caller.gandi("GET", f"{DOMAIN}/nameservers").data == OURS
    caller.gandi("POST", f"{DOMAIN}/livedns")
    caller.wait(hours=1)
    assert caller.world.delegation(NAME).nameservers == set(GANDI_NAMESERVERS)


def test_text_export_has_a_soa_and_no_nameservers(caller):
    lines = caller.gandi("GET", f"{ZONE}/records", accept="text/plain").text.splitlines()
    assert lines[0].startswith("@ 86400 IN SOA ns1.gandi.net. hostmaster.gandi.net. ")
    assert lines[1:] == [
        "@ 10800 IN A 192.0.2.1",
        "www 10800 IN CNAME @",
        'Blog 10800 IN TXT "one two"',
        'Blog 10800 IN TXT "three"',
    ]


def test_snapshot_gives_the_records_back(caller):
    key = caller.gandi("POST", f"{ZONE}/snapshots", {"name": "before"}).data["id"]
    caller.gandi("DELETE", f"{ZONE}/records/www")
    kept = caller.gandi("GET", f"{ZONE}/snapshots/{key}").data["zone_data"]
    assert caller.gandi("PUT", f"{ZONE}/records", {"items": kept}).status == 201
    assert caller.world.domain(NAME).records == RECORDS


def test_removing_a_key_leaves_the_zone_signed(caller):
    key = caller.gandi("GET", f"{DOMAIN}/dnskeys").data[0]
    assert caller.gandi("DELETE", f"{DOMAIN}/dnskeys/{key['id']}").status == 202
    caller.wait(hours=1)
    assert caller.world.ds(NAME) == frozenset()
    assert caller.gandi("GET", f"{DOMAIN}/livedns/dnssec").data == {"state": "active"}
    assert caller.gandi("GET", f"{ZONE}/keys").data[0]["tag"] == key["keytag"]
    assert caller.gandi("POST", f"{DOMAIN}/dnskeys", {**KEY, "public_key": "?"}).status == 400
    assert caller.gandi("PUT", f"{DOMAIN}/dnskeys", {"keys": [{"algorithm": 13}]}).status == 400


def test_idn_and_domain_elsewhere(caller):
    caller.world.add("xn--caf-dma.example", [], nameservers=OURS, livedns=False)
    said = caller.gandi("GET", "/v5/domain/domains/xn--caf-dma.example").data
    assert said["fqdn_unicode"] == "café.example"
    assert caller.gandi("GET", "/v5/livedns/domains/xn--caf-dma.example/records").status == 404


def test_too_many_calls_a_minute():
    caller = Caller(quirks=Quirks(calls_a_minute=3))
    assert [caller.gandi("GET", DOMAIN).status for _ in range(4)] == [200, 200, 200, 429]
    caller.wait(minutes=1)
    assert caller.gandi("GET", DOMAIN).status == 200


def test_a_domain_that_left_is_unknown():
    caller = Caller(locked=False, signed=False)
    caller.order_at_ovh(caller.world.auth_code(NAME))
    caller.wait(days=6)
    assert caller.gandi("GET", DOMAIN).status == 404
    assert caller.gandi("GET", f"{ZONE}/records").status == 404
    said = caller.ask("rdap", "GET", f"/domain/{NAME}").data
    assert said["entities"][0]["handle"] == "OVH sas"
    assert "transfer" in {event["eventAction"] for event in said["events"]}


# --- the gaining registrars -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forged",
    [
        {"signature": "$1$0"},
        {"application": "x"},
        {"consumer": "x"},
        {"timestamp": "1"},
    ],
)
def test_ovh_wants_a_true_signature(caller, forged):
    assert caller.ovh("GET", "/me").status == 200
    assert caller.ovh("GET", "/me", **forged).status in {400, 403}


def test_ovh_dry_run_says_what_is_missing_and_orders_nothing(caller):
    cart = caller.ovh("POST", "/order/cart", {"ovhSubsidiary": "FR"}).data["cartId"]
    caller.ovh("POST", f"/order/cart/{cart}/assign")
    caller.ovh("POST", f"/order/cart/{cart}/domain", {"domain": NAME, "duration": "P1Y"})
    answer = caller.ovh("GET", f"/order/cart/{cart}/checkout")
    assert (answer.status, "AUTH_INFO" in answer.data["message"]) == (400, True)
    assert caller.world.orders == []
    assert caller.ovh("POST", f"/order/cart/{cart}/domain", {"domain": "absent.example"}).status == 400


def test_ovh_orders_a_cart_once_and_to_the_nameservers_it_was_given():
    caller = Caller(locked=False)
    assert caller.order_at_ovh(caller.world.auth_code(NAME)).data["orderId"]
    assert caller.world.orders[0].nameservers == tuple(OURS)
    [cart] = caller.simulation.ovh.carts
    assert caller.ovh("POST", f"/order/cart/{cart}/checkout", {}).status == 400
    assert len(caller.world.orders) == 1
    assert caller.world.harms == []


def test_pending_transfer_shows_in_rdap_and_at_gandi():
    caller = Caller(locked=False)
    caller.order_at_ovh(caller.world.auth_code(NAME))
    caller.wait(hours=1)
    assert "pending transfer" in caller.ask("rdap", "GET", f"/domain/{NAME}").data["status"]
    assert "pendingTransfer" in caller.gandi("GET", DOMAIN).data["status"]
    answer = {"accept": True, "authinfo": caller.world.auth_code(NAME)}
    assert caller.gandi("POST", f"{DOMAIN}/transferout", answer).status == 202
    assert caller.world.registration(NAME).registrar == "OVH sas"


def test_netim_wants_its_password():
    caller = Caller()
    assert caller.ask("netim", "POST", "/3.0/session/", headers={"authorization": "Basic eDp5"}).status == 401
    assert caller.ask("netim", "GET", f"/3.0/domain/{NAME}/info/").status == 401


def test_rdap_of_an_unknown_name(caller):
    answer = caller.ask("rdap", "GET", "/domain/absent.example")
    assert (answer.status, answer.data["errorCode"], answer.content_type) == (404, 404, "application/rdap+json")


# --- faults and the journal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "landed"),
    [
        ("429", 429, False),
        ("429-retry-after", 429, False),
        ("401", 401, False),
        ("403-expired", 403, False),
        ("403-rights", 403, False),
        ("500-html", 500, False),
        ("502-html", 502, True),
        ("lost-answer", 202, True),
        ("truncated", 202, True),
        ("never-completes", 202, False),
    ],
)
def test_a_fault_strikes_once_and_before_or_after_the_change(caller, kind, status, landed):
    caller.world.faults.add(kind, method="PUT", path="*/nameservers")
    caller.gandi("GET", DOMAIN)
    answer = caller.gandi("PUT", f"{DOMAIN}/nameservers", {"nameservers": OURS})
    assert answer.status == status
    assert ("Retry-After" in answer.headers) == (kind == "429-retry-after")
    entry = caller.journal.asked[-1]
    assert (entry.fault, entry.landed) == (kind, landed)
    caller.wait(hours=1)
    assert (caller.world.domain(NAME).nameservers == OURS) == landed
    assert caller.gandi("PUT", f"{DOMAIN}/nameservers", {"nameservers": OURS}).status == 202
    caller.wait(hours=1)
    assert caller.world.domain(NAME).nameservers == OURS
    assert caller.world.faults.struck == {kind: 1}


def test_faults_of_lists(caller):
    caller.world.faults.add("count-mismatch")
    assert caller.gandi("GET", f"{ZONE}/records").headers["Total-Count"] == "4"
    caller.world.faults.add("page-change")
    first = caller.gandi("GET", f"{ZONE}/records?per_page=2")
    second = caller.gandi("GET", f"{ZONE}/records?per_page=2&page=2")
    assert (first.headers["Total-Count"], second.headers["Total-Count"]) == ("3", "4")
    names = [one["rrset_name"] for one in first.data + second.data]
    assert names == ["@", "www", "www", "Blog"]
    caller.world.faults.add("zone-edited")
    caller.gandi("GET", f"{ZONE}/records")
    assert caller.world.domain(NAME).records[-1]["rrset_name"] == "edited-by-somebody"


def test_faults_are_told_apart():
    faults = Faults()
    faults.add("429", domain="a.example", skip=1, times=2)
    struck = [faults.strike(KINDS, domain=name) for name in ("b.example", *["a.example"] * 4)]
    assert struck == [None, None, "429", "429", None]
    faults.add("429", times=None)
    faults.clear()
    assert faults.strike(KINDS) is None
    with pytest.raises(ValueError, match="no fault is called"):
        faults.add("teapot")


def drawn(seed, names, kinds=HEALING):
    faults = Faults(seed)
    faults.at_random(0.3, kinds, most=2)
    return {name: [faults.strike(KINDS, method="GET", domain=name) for _ in range(60)] for name in names}


def test_chance_is_the_seeds_and_ends():
    names = [f"d{number}.example" for number in range(20)]
    found = drawn(1, names)
    assert found == drawn(1, reversed(names))  # whatever the order of the domains
    assert found != drawn(2, names)
    struck = [kind for kinds in found.values() for kind in kinds if kind]
    assert set(struck) == set(HEALING)
    assert all(kinds.count(kind) <= 2 for kinds in found.values() for kind in HEALING)
    assert not set(HALTING) & set(struck)
    assert {kind for kind in drawn(1, names, ["auth-code-wrong"])[names[0]] if kind} == {"auth-code-wrong"}


def test_journal_tells_what_must_not_be(caller):
    caller.gandi("PATCH", f"{ZONE}/records/@/A", {"rrset_ttl": 300})
    caller.gandi("POST", f"{ZONE}/snapshots", {})
    caller.gandi("PATCH", f"{ZONE}/records/@/A", {"rrset_ttl": 600})
    caller.gandi("DELETE", f"{ZONE}/records/@/A")
    caller.gandi("DELETE", f"{DOMAIN}/dnskeys/1")
    caller.gandi("GET", f"{DOMAIN}/nothing?token={TOKEN}")
    journal = caller.journal
    assert [entry.number for entry in journal.writes_before_snapshot()] == [1]
    assert [entry.number for entry in journal.deletes_on_records()] == [4]
    assert [entry.number for entry in journal.unknown()] == [6]
    assert [entry.number for entry in journal.with_secrets(caller.world.secrets())] == [6]
    assert TOKEN not in json.dumps([entry for entry in journal.to_json() if entry["number"] != 6])


def test_rate_is_the_densest_second_of_virtual_time(caller):
    for pause in (0.2, 0.2, 0.2, 0.2, 0.2, 5, 0.1, 0.1):
        caller.gandi("GET", DOMAIN)
        caller.world.clock.sleep(pause)
    assert caller.journal.rate() == caller.journal.rate("gandi") == 5
    caller.gandi("GET", DOMAIN)
    assert caller.journal.rate(window=timedelta(seconds=10)) == 9
    assert caller.journal.rate("ovh") == 0


# --- over HTTP --------------------------------------------------------------------------------------------------------


def test_over_http(caller):
    with caller.simulation as served, httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        said = client.get(f"{served.gandi_url}{DOMAIN}")
        assert (said.status_code, said.json()["fqdn"]) == (200, NAME)
        gone = client.patch(f"{served.gandi_url}{DOMAIN}/autorenew", json={"enabled": False})
        assert gone.status_code == 202
        assert client.delete(f"{served.gandi_url}{ZONE}/records/www").content == b""
        assert client.get(f"{served.rdap_url}/domain/{NAME}").headers["content-type"] == "application/rdap+json"
        assert client.get(f"{served.ovh_url}/auth/time").json() == int(START.timestamp())
        assert client.get(f"{served.netim_url}/session/").status_code == 401
        bootstrap = client.get(f"{served.rdap_url}/dns.json").json()
        assert bootstrap["services"] == [[["example"], [f"{served.rdap_url}/"]]]
        caller.world.faults.add("lost-answer", method="PUT")
        with pytest.raises(httpx.RemoteProtocolError):
            client.put(f"{served.gandi_url}{DOMAIN}/authinfo")
        assert caller.journal.asked[-1].landed
        caller.world.faults.add("truncated")
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            client.get(f"{served.gandi_url}{DOMAIN}").json()
        caller.world.faults.add("500-html")
        assert client.get(f"{served.gandi_url}{DOMAIN}").headers["content-type"] == "text/html"


def test_levers(caller):
    with caller.simulation as served, httpx.Client(base_url=served.netim_url.removesuffix("/3.0")) as client:
        assert client.post("/_sim/clock", json={"advance": "72h"}).json() == {"now": "2026-03-05T08:00:00+00:00"}
        assert client.post("/_sim/clock", json={"advance": "three days"}).status_code == 400
        assert client.post("/_sim/faults", json={"kind": "429", "times": 2}).json()["planned"][0]["times"] == 2
        assert client.post("/_sim/faults", json={"kind": "teapot"}).status_code == 400
        assert client.post("/_sim/faults", json={"random": 1}).status_code == 200
        assert client.delete("/_sim/faults").json()["planned"] == []
        assert client.get("/_sim/harms").json() == []
        assert client.get("/_sim/journal").json() == {"asked": [], "violations": []}
        assert client.get("/_sim/teapot").status_code == 404
    assert caller.world.faults.strike(KINDS) is None


@pytest.mark.parametrize(("text", "seconds"), [("1.5s", 1.5), ("2m", 120), ("72h", 259200), ("1d", 86400)])
def test_durations(text, seconds):
    assert duration(text).total_seconds() == seconds
