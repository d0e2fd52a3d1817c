# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gandi's client against scripted answers of the shapes that Gandi documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from infini.domains.caller import CallError
from infini.domains.gandi import Gandi, checksum, is_gandi
from infini.domains.secrets import Secret
from infini.domains.simulator.clock import VirtualClock
from infini.domains.zone import Rrset

NAME = "asso.example"
DOMAIN = f"/v5/domain/domains/{NAME}"
ZONE = f"/v5/livedns/domains/{NAME}"
TOKEN = "pat-0123456789abcdef"
DATES = {
    "registry_created_at": "2012-03-04T05:06:07Z",
    "registry_ends_at": "2027-03-04T05:06:07Z",
    "created_at": "2019-01-01T00:00:00Z",
    "authinfo_expires_at": "2026-06-01T00:00:00Z",
}
DETAIL = {
    "fqdn": NAME,
    "fqdn_unicode": NAME,
    "status": ["clientTransferProhibited"],
    "dates": DATES,
    "nameservers": ["ns-1-a.gandi.net", "NS-2-B.gandi.net."],
    "services": ["gandilivedns", "mailboxv2"],
    "autorenew": {"enabled": True, "duration": 1, "dates": []},
    "tags": ["infini"],
}
RECORDS = [
    {"rrset_name": "@", "rrset_type": "A", "rrset_ttl": 10800, "rrset_values": ["192.0.2.1"], "rrset_href": "x"},
    {"rrset_name": "WWW", "rrset_type": "CNAME", "rrset_ttl": 10800, "rrset_values": [f"{NAME}."], "rrset_href": "y"},
    {"rrset_name": "mail", "rrset_type": "A", "rrset_ttl": 300, "rrset_values": ["192.0.2.2"], "rrset_href": "z"},
]

Route = httpx.Response | Callable[[httpx.Request], httpx.Response] | list[Any]


class Server:
    """Answers by “METHOD path”: a response, a function, or a list that is served by pages with its count."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self.routes = dict(routes)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        route = self.routes.get(f"{request.method} {request.url.raw_path.decode().partition('?')[0]}")
        if route is None:
            return httpx.Response(404, json={"code": 404, "message": "Not found", "object": "x", "cause": "Not Found"})
        if isinstance(route, list):
            return page(request, route)
        return route(request) if callable(route) else route

    def changes(self) -> list[str]:
        """Return what was asked for beside reading, as “METHOD path body”."""
        return [
            f"{request.method} {request.url.raw_path.decode()} {request.content.decode()}".strip()
            for request in self.asked
            if request.method != "GET"
        ]


def page(
    request: httpx.Request, items: list[Any], count: int | None = None, header: str = "Total-Count"
) -> httpx.Response:
    number, size = int(request.url.params["page"]), int(request.url.params["per_page"])
    announced = len(items) if count is None else count
    return httpx.Response(200, json=items[(number - 1) * size : number * size], headers={header: str(announced)})


def gandi(routes: Mapping[str, Route], **options: Any) -> tuple[Gandi, Server]:
    server = Server(routes)
    client = Gandi(lambda: Secret(TOKEN), VirtualClock(), transport=httpx.MockTransport(server), **options)
    return client, server


def accepted() -> httpx.Response:
    return httpx.Response(202, json={"message": "accepted"})


def whole(**more: Route) -> dict[str, Route]:
    """Return the routes of a domain that has everything; the text is told from the JSON by Accept."""

    def records(request: httpx.Request) -> httpx.Response:
        if request.headers["Accept"] == "text/plain":
            return httpx.Response(200, text="@ 10800 IN A 192.0.2.1\n", headers={"Content-Type": "text/plain"})
        return page(request, RECORDS)

    return {
        f"GET {DOMAIN}": httpx.Response(200, json=DETAIL),
        f"GET {ZONE}/records": records,
        f"GET {DOMAIN}/webredirs": [{"host": f"www.{NAME}", "type": "http301", "url": "https://x.example"}],
        f"GET {DOMAIN}/hosts": [{"name": "ns1", "ips": ["192.0.2.53"]}],
        f"GET {DOMAIN}/dnskeys": [{"id": 7, "keytag": 1, "algorithm": 13, "type": "ksk", "public_key": "AwEA"}],
        f"GET /v5/email/mailboxes/{NAME}": [{"id": "a", "address": f"Contact@{NAME}", "login": "contact"}],
        "GET /v5/mailbox/mailboxes": lambda request: page(
            request, [{"id": "b", "address": f"bureau@{NAME}"}], header="X-Total-Count"
        ),
        f"GET /v5/email/forwards/{NAME}": [{"source": "info", "destinations": ["x@y.example"], "href": "h"}],
        "GET /v5/mailbox/forwards": lambda request: page(
            request,
            [
                {"source": f"info@{NAME}", "destinations": ["x@y.example"]},
                {"source": f"all@{NAME}", "destinations": []},
            ],
            header="X-Total-Count",
        ),
        **more,
    }


def test_a_domain() -> None:
    client, server = gandi(whole())
    facts = client.domain("Asso.Example.")
    assert facts.name == NAME
    assert facts.expires == datetime(2027, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert facts.created == datetime(2012, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert facts.nameservers == ("ns-1-a.gandi.net", "ns-2-b.gandi.net")
    assert facts.services == ("gandilivedns", "mailboxv2")
    assert facts.registrar_lock
    assert facts.auto_renew
    assert not facts.auth_code_available, "no code is shown while the domain is locked"
    assert facts.auth_code_expires == datetime(2026, 6, 1, tzinfo=UTC)
    assert facts.tags == ("infini",)
    assert server.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_the_list_has_another_shape_for_renewal() -> None:
    item = {
        "fqdn": "XN--T-9FAB.example",
        "fqdn_unicode": "été.example",
        "status": [],
        "dates": DATES,
        "nameserver": {"current": "livedns", "hosts": ["ns-1-a.gandi.net"]},
        "autorenew": False,
    }
    client, _ = gandi({"GET /v5/domain/domains": [item]})
    (facts,) = client.domains()
    assert facts.name == "xn--t-9fab.example"
    assert facts.name_unicode == "été.example"
    assert facts.auto_renew is False
    assert facts.registrar_lock is False
    assert facts.nameservers == ("ns-1-a.gandi.net",)


def many(count: int) -> list[dict[str, Any]]:
    return [{"fqdn": f"d{number:03}.example", "status": [], "dates": DATES} for number in range(count)]


def test_every_page_is_read_and_the_organisation_is_named() -> None:
    client, server = gandi({"GET /v5/domain/domains": many(250)}, sharing_id="org-1")
    assert len(client.domains()) == 250
    assert [request.url.params["page"] for request in server.asked] == ["1", "2", "3"]
    assert {request.url.params["sharing_id"] for request in server.asked} == {"org-1"}


def test_a_list_without_counts_is_read_to_its_end() -> None:
    def bare(request: httpx.Request) -> httpx.Response:
        answer = page(request, many(200))
        return httpx.Response(200, content=answer.content)

    client, server = gandi({"GET /v5/domain/domains": bare})
    assert len(client.domains()) == 200
    assert len(server.asked) == 3


@pytest.mark.parametrize("count", [249, 251])
def test_a_list_that_does_not_add_up_is_no_list(count: int) -> None:
    client, _ = gandi({"GET /v5/domain/domains": lambda request: page(request, many(250), count)})
    with pytest.raises(CallError, match="does not add up") as caught:
        client.domains()
    assert caught.value.retry


def test_a_list_that_changes_while_it_is_read_is_read_again() -> None:
    calls = 0

    def growing(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return page(request, many(150) if calls == 1 else [{**many(1)[0], "fqdn": "aaa.example"}, *many(150)])

    client, _ = gandi({"GET /v5/domain/domains": growing})
    assert len(client.domains()) == 151


def test_a_list_whose_length_wavers_is_no_list() -> None:
    def wavering(request: httpx.Request) -> httpx.Response:
        return page(request, many(150), 151 if request.url.params["page"] == "1" else 150)

    client, _ = gandi({"GET /v5/domain/domains": wavering})
    with pytest.raises(CallError, match="length changed"):
        client.domains()


def test_an_item_that_comes_twice_is_noticed() -> None:
    client, _ = gandi({"GET /v5/domain/domains": [*many(5), many(1)[0]]})
    with pytest.raises(CallError, match="twice"):
        client.domains()


def test_filtered_lists_count_what_is_filtered() -> None:
    def filtered(request: httpx.Request) -> httpx.Response:
        answer = page(request, many(3), 900)
        return httpx.Response(200, content=answer.content, headers={"Total-Count": "900", "Filtered-Count": "3"})

    client, _ = gandi({"GET /v5/domain/domains": filtered}, sharing_id="org-1")
    assert len(client.domains()) == 3


def test_an_export_holds_everything() -> None:
    client, server = gandi(whole())
    export = client.export(NAME)
    assert export.records == tuple(RECORDS)
    assert export.text == "@ 10800 IN A 192.0.2.1\n"
    assert export.mailboxes == (f"bureau@{NAME}", f"contact@{NAME}"), "both mail products"
    assert [forward["source"] for forward in export.forwards] == [f"all@{NAME}", "info"], "each once"
    assert export.redirections[0]["url"] == "https://x.example"
    assert export.glue[0]["ips"] == ["192.0.2.53"]
    assert export.dnskeys[0]["id"] == 7
    assert server.changes() == []


def test_no_mail_product_is_no_mail() -> None:
    routes = whole()
    for route in [route for route in routes if "/v5/email" in route or "/v5/mailbox" in route]:
        del routes[route]
    export = gandi(routes)[0].export(NAME)
    assert export.mailboxes == ()
    assert export.forwards == ()


def test_mail_that_we_may_not_see_is_not_no_mail() -> None:
    denied = httpx.Response(403, json={"code": 403, "message": "Access denied", "cause": "Forbidden"})
    client, _ = gandi(whole(**{f"GET /v5/email/mailboxes/{NAME}": denied}))
    with pytest.raises(CallError, match="mailboxes"):
        client.export(NAME)


def test_dns_elsewhere_gives_no_records() -> None:
    routes = whole()
    del routes[f"GET {ZONE}/records"]
    elsewhere = {**DETAIL, "nameservers": ["ns1.elsewhere.example"], "services": []}
    export = gandi({**routes, f"GET {DOMAIN}": httpx.Response(200, json=elsewhere)})[0].export(NAME)
    assert export.records == ()
    with pytest.raises(CallError, match="although it hosts it"):
        gandi(routes)[0].export(NAME)


def test_the_checksum_sees_edits_and_nothing_else() -> None:
    before = checksum(RECORDS, [], [])
    bookkeeping = [{**record, "rrset_href": "other", "rrset_ttl": 300} for record in reversed(RECORDS)]
    assert checksum(bookkeeping, [], []) == before, "our own lowering of TTLs is no drift"
    edited = [{**RECORDS[0], "rrset_values": ["192.0.2.9"]}, *RECORDS[1:]]
    assert checksum(edited, [], []) != before
    assert checksum(RECORDS[1:], [], []) != before
    assert checksum(RECORDS, [{"host": "x", "type": "http301", "url": "https://x.example"}], []) != before
    assert checksum([], RECORDS, []) != before, "what moves from one list to another is a change"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"message": "Unauthorized"}, "token-expired"),
        (403, {"message": "The bearer token has expired"}, "token-expired"),
        (403, {"message": "Access was denied"}, "wrong-organisation"),
        (404, {"message": "Unknown domain"}, "wrong-organisation"),
    ],
)
def test_a_domain_that_the_token_does_not_reach(status: int, body: object, code: str) -> None:
    client, server = gandi({f"GET {DOMAIN}": httpx.Response(status, json=body)})
    with pytest.raises(CallError) as caught:
        client.domain(NAME)
    assert caught.value.code == code
    assert caught.value.status == status
    assert len(server.asked) == 1
    assert TOKEN not in caught.value.says


def test_ttls_are_lowered_in_place_by_the_names_that_gandi_writes() -> None:
    client, server = gandi(
        whole(
            **{
                f"PATCH {ZONE}/records/%40/A": accepted(),
                f"PATCH {ZONE}/records/WWW/CNAME": accepted(),
            }
        ),
        sharing_id="org-1",
    )
    client.set_ttls(
        NAME,
        [
            Rrset("@", "A", 10800, ("192.0.2.1",)),
            Rrset("www", "CNAME", 10800, (f"{NAME}.",)),
            Rrset("mail", "A", 10800, ("192.0.2.2",)),
        ],
        300,
    )
    assert server.changes() == [
        f'PATCH {ZONE}/records/%40/A?sharing_id=org-1 {{"rrset_ttl": 300}}',
        f'PATCH {ZONE}/records/WWW/CNAME?sharing_id=org-1 {{"rrset_ttl": 300}}',
    ], "mail has it already"


def test_a_record_that_has_gone_stops_everything() -> None:
    client, server = gandi(whole())
    with pytest.raises(CallError, match="somebody edited it") as caught:
        client.set_ttls(NAME, [RECORD_GONE, Rrset("@", "A", 10800, ("192.0.2.1",))], 300)
    assert caught.value.code == "zone-drifted"
    assert server.changes() == []


RECORD_GONE = Rrset("gone", "A", 10800, ("192.0.2.1",))


def test_a_lost_answer_to_a_change_says_so() -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late", request=request)

    client, server = gandi(whole(**{f"PATCH {ZONE}/records/%40/A": lost}))
    with pytest.raises(CallError) as caught:
        client.set_ttls(NAME, [Rrset("@", "A", 10800, ("192.0.2.1",))], 300)
    assert caught.value.landed is None
    assert len(server.changes()) == 1


def test_name_servers_are_asked_for_once() -> None:
    now = ["ns-1-a.gandi.net"]
    client, server = gandi(
        {
            f"GET {DOMAIN}/nameservers": lambda _: httpx.Response(200, json=now),
            f"PUT {DOMAIN}/nameservers": accepted(),
        }
    )
    client.set_nameservers(NAME, ["ns1.infini.example.", "NS2.infini.example"])
    assert server.changes() == [
        f'PUT {DOMAIN}/nameservers {{"nameservers": ["ns1.infini.example", "ns2.infini.example"]}}'
    ]
    now[:] = ["NS2.infini.example.", "ns1.infini.example"]
    client.set_nameservers(NAME, ["ns1.infini.example", "ns2.infini.example"])
    assert len(server.changes()) == 1


def test_going_back_to_gandis_name_servers() -> None:
    now = {"current": "other", "nameservers": ["ns1.infini.example"]}
    client, server = gandi(
        {f"GET {DOMAIN}/livedns": lambda _: httpx.Response(200, json=now), f"POST {DOMAIN}/livedns": accepted()}
    )
    client.restore_nameservers(NAME)
    assert server.changes() == [f"POST {DOMAIN}/livedns"]
    now["current"] = "livedns"
    client.restore_nameservers(NAME)
    assert len(server.changes()) == 1


def test_keys_go_and_come_back() -> None:
    keys: list[dict[str, Any]] = [
        {"id": 7, "keytag": 1, "algorithm": 13, "type": "ksk", "public_key": "AwEA"},
        {"id": "8/9", "keytag": 2, "algorithm": 13, "type": "zsk", "public_key": "BwEA"},
    ]
    client, server = gandi(
        {
            f"GET {DOMAIN}/dnskeys": keys,
            f"DELETE {DOMAIN}/dnskeys/7": accepted(),
            f"DELETE {DOMAIN}/dnskeys/8%2F9": httpx.Response(404, json={"message": "gone"}),
            f"POST {DOMAIN}/dnskeys": accepted(),
        }
    )
    client.remove_dnskeys(NAME)
    assert server.changes() == [f"DELETE {DOMAIN}/dnskeys/7", f"DELETE {DOMAIN}/dnskeys/8%2F9"]
    before = [*keys]
    del keys[0]
    client.restore_dnskeys(NAME, [*before])
    assert server.changes()[2:] == [
        f'POST {DOMAIN}/dnskeys {{"algorithm": 13, "type": "ksk", "public_key": "AwEA"}}'
    ], "the one that is still there is left alone"


def test_a_key_without_its_public_part_cannot_come_back() -> None:
    client, server = gandi({f"GET {DOMAIN}/dnskeys": []})
    with pytest.raises(CallError, match="no public key for tag 5"):
        client.restore_dnskeys(NAME, [{"keytag": 5, "algorithm": 13, "type": "ksk"}])
    assert server.changes() == []


def test_the_lock() -> None:
    client, server = gandi(whole(**{f"PATCH {DOMAIN}/status": accepted()}))
    client.set_lock(NAME, True)
    assert server.changes() == [], "it is locked"
    client.set_lock(NAME, False)
    assert server.changes() == [f'PATCH {DOMAIN}/status {{"clientTransferProhibited": false}}']


def test_the_auth_code_comes_as_a_secret() -> None:
    client, _ = gandi(whole())
    assert client.auth_code(NAME) is None
    client, server = gandi(
        {
            f"GET {DOMAIN}": httpx.Response(200, json={**DETAIL, "authinfo": "xyz5500"}),
            f"PUT {DOMAIN}/authinfo": accepted(),
        }
    )
    code = client.auth_code(NAME)
    assert code == "xyz5500"
    assert "xyz5500" not in repr(code)
    facts = client.domain(NAME)
    assert facts.auth_code_available
    assert "xyz5500" not in repr(facts)
    client.reset_auth_code(NAME)
    assert server.changes() == [f"PUT {DOMAIN}/authinfo"]


def test_a_snapshot_is_made_once_a_label() -> None:
    kept: list[dict[str, Any]] = [{"id": "s0", "name": "another"}]
    client, server = gandi(
        {
            f"GET {ZONE}/snapshots": kept,
            f"POST {ZONE}/snapshots": httpx.Response(201, json={"id": "s1", "message": "made"}),
        }
    )
    assert client.snapshot(NAME, "before-leaving") == "s1"
    kept.append({"id": "s1", "name": "before-leaving"})
    assert client.snapshot(NAME, "before-leaving") == "s1"
    assert server.changes() == [f"POST {ZONE}/snapshots " + json.dumps({"name": "before-leaving"})]


@pytest.mark.parametrize(
    ("host", "gandis"),
    [
        ("ns-12-a.gandi.net", True),
        ("NS-3-b.gandi.net.", True),
        ("a.dns.gandi.net", True),
        ("ns1.infini.example", False),
        ("ns-1-a.gandi.net.example", False),
        ("spool.mail.gandi.net", False),
    ],
)
def test_gandis_name_servers(host: str, gandis: bool) -> None:
    assert is_gandi(host) is gandis
