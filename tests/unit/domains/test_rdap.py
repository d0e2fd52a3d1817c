# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""How services are called (pace, patience, what a lost answer means), and what is read in RDAP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest

from infini.domains.caller import TRIES, Caller, CallError, moment
from infini.domains.rdap import Rdap, bootstrap_of
from infini.domains.secrets import Secret
from infini.domains.simulator.clock import VirtualClock

Reply = httpx.Response | Exception


def caller(
    clock: VirtualClock, *replies: Reply, **options: object
) -> tuple[Caller, list[tuple[datetime, httpx.Request]]]:
    """Return a caller of a service that gives these replies in turn (the last one for ever), and what it was asked."""
    asked: list[tuple[datetime, httpx.Request]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((clock.now(), request))
        reply = replies[min(len(asked), len(replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply

    return Caller("Somebody", "https://api.example", clock, transport=httpx.MockTransport(answer), **options), asked


def json(data: object, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=data, headers=headers)


def test_no_more_than_the_pace_in_any_second() -> None:
    clock = VirtualClock()
    service, asked = caller(clock, json({}), requests_per_second=5)
    for _ in range(23):
        service.read("/x")
    times = [at for at, _ in asked]
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in zip(times, times[5:], strict=False))
    assert times[-1] - times[0] < timedelta(seconds=5), "and not slower than need be"


class BackwardClock(VirtualClock):
    """A clock that somebody sets back an hour."""

    def __init__(self) -> None:
        super().__init__()
        self.back = timedelta(0)
        self.slept = 0.0

    def now(self) -> datetime:
        return super().now() - self.back

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        super().sleep(seconds)


def test_a_clock_set_back_does_not_stop_us() -> None:
    clock = BackwardClock()
    service, _ = caller(clock, json({}), requests_per_second=5)
    service.read("/x")
    clock.back = timedelta(hours=1)
    service.read("/x")
    assert clock.slept <= 0.2


def test_slow_down_waits_as_long_as_it_is_told() -> None:
    clock = VirtualClock()
    service, asked = caller(clock, json({}, 429, **{"Retry-After": "37"}), json({"done": True}))
    assert service.change("PATCH", "/x", {"a": 1}).data == {"done": True}
    assert asked[1][0] - asked[0][0] >= timedelta(seconds=37)


def test_slow_down_until_a_date() -> None:
    clock = VirtualClock(datetime(2026, 3, 2, 8, 0, tzinfo=UTC))
    service, asked = caller(clock, json({}, 429, **{"Retry-After": "Mon, 02 Mar 2026 08:01:30 GMT"}), json({}))
    service.read("/x")
    assert asked[1][0] - asked[0][0] >= timedelta(seconds=90)


def test_slow_down_without_a_time_waits_longer_each_time_and_ends() -> None:
    clock = VirtualClock()
    service, asked = caller(clock, json({}, 429))
    with pytest.raises(CallError) as caught:
        service.read("/x")
    assert caught.value.retry
    assert caught.value.landed is False
    assert len(asked) == TRIES
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(asked)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= timedelta(seconds=1)


def test_who_is_told_to_come_back_tomorrow_stops() -> None:
    clock = VirtualClock()
    service, asked = caller(clock, json({}, 429, **{"Retry-After": "86400"}))
    with pytest.raises(CallError, match="slow down"):
        service.read("/x")
    assert len(asked) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_never_tried_again(status: int) -> None:
    service, asked = caller(VirtualClock(), json({"message": "no"}, status))
    with pytest.raises(CallError) as caught:
        service.read("/x")
    assert len(asked) == 1
    assert not caught.value.retry
    assert caught.value.status == status


def test_an_expired_token_is_called_that() -> None:
    service, _ = caller(VirtualClock(), json({"code": 403, "message": "The token has expired"}, 403))
    with pytest.raises(CallError) as caught:
        service.read("/x")
    assert caught.value.code == "token-expired"


@pytest.mark.parametrize(
    "lost",
    [
        httpx.ReadTimeout("late"),
        httpx.RemoteProtocolError("cut"),
        httpx.Response(500, html="<html>Oops</html>"),
        httpx.Response(502, html="<html>Oops</html>"),
        httpx.Response(200, content=b'{"id": "ab'),
    ],
)
def test_a_lost_answer(lost: Reply) -> None:
    service, asked = caller(VirtualClock(), lost, json({"fine": 1}))
    assert service.read("/x").data == {"fine": 1}, "a read is made again"
    service, asked = caller(VirtualClock(), lost, json({"fine": 1}))
    with pytest.raises(CallError) as caught:
        service.change("POST", "/x", {})
    assert len(asked) == 1, "a change is not"
    assert caught.value.landed is None
    assert caught.value.retry


def test_what_never_left_is_sent_again() -> None:
    service, asked = caller(VirtualClock(), httpx.ConnectError("refused"), json({"fine": 1}))
    assert service.change("POST", "/x", {"a": 1}).data == {"fine": 1}
    assert len(asked) == 2


def test_a_service_that_is_away_is_left_in_peace_at_last() -> None:
    service, asked = caller(VirtualClock(), httpx.ConnectError("refused"))
    with pytest.raises(CallError) as caught:
        service.change("POST", "/x")
    assert len(asked) == TRIES
    assert caught.value.landed is False


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"code": 404, "message": "Unknown domain", "object": "dns-zone", "cause": "Not Found"}, "Unknown domain"),
        (
            {
                "status": "error",
                "errors": [
                    {"location": "body", "name": "rrset_ttl", "description": "60 is less than minimum value 300"}
                ],
            },
            "rrset_ttl: 60 is less than minimum value 300",
        ),
        ({"message": "The mailbox is not yours", "status_code": 400}, "The mailbox is not yours"),
    ],
)
def test_every_shape_of_refusal_is_one_sentence(body: object, shown: str) -> None:
    service, _ = caller(VirtualClock(), json(body, 400))
    with pytest.raises(CallError) as caught:
        service.read("/x")
    assert shown in caught.value.says
    assert "\n" not in caught.value.says


def test_a_refusal_that_repeats_our_secret_does_not_show_it() -> None:
    code = Secret("xyz-5500-%é")
    service, _ = caller(VirtualClock(), json({"message": f"{code.reveal()} is not a good code"}, 400))
    with pytest.raises(CallError) as caught:
        service.change("POST", "/x", {"authinfo": code})
    assert "xyz-5500" not in f"{caught.value!r} {caught.value.says}"
    assert "is not a good code" in caught.value.says


def test_moments() -> None:
    assert moment("2030-01-02T03:04:05Z") == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert moment("2030-01-02T03:04:05+01:00") == datetime(2030, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert moment("2030-01-02") == datetime(2030, 1, 2, tzinfo=UTC)
    assert moment(None) is None


RDAP = {
    "objectClassName": "domain",
    "ldhName": "ASSO.EXAMPLE",
    "status": ["client transfer prohibited", "Pending Transfer"],
    "events": [
        {"eventAction": "registration", "eventDate": "2010-01-01T00:00:00Z"},
        {"eventAction": "expiration", "eventDate": "2027-05-06T07:08:09Z"},
        {"eventAction": "transfer", "eventDate": "2026-02-02T00:00:00Z"},
    ],
    "nameservers": [{"ldhName": "NS1.INFINI.EXAMPLE."}, {"ldhName": "ns2.infini.example"}],
    "entities": [
        {"roles": ["technical"], "handle": "T1"},
        {
            "roles": ["registrar"],
            "handle": "81",
            "vcardArray": ["vcard", [["version", {}, "text", "4.0"], ["fn", {}, "text", "Registrar SAS"]]],
        },
    ],
}


def rdap(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> Rdap:
    return Rdap(VirtualClock(), transport=httpx.MockTransport(answer), **options)


def test_the_registry_is_read() -> None:
    facts = rdap(lambda _: json(RDAP), base_url="https://rdap.example/").domain("Asso.example.")
    assert facts.domain == "asso.example"
    assert facts.registrar == "Registrar SAS"
    assert facts.statuses == ("client transfer prohibited", "pending transfer")
    assert facts.nameservers == ("ns1.infini.example", "ns2.infini.example")
    assert facts.expires == datetime(2027, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert facts.transferred == datetime(2026, 2, 2, tzinfo=UTC)


def test_a_registrar_without_a_card_goes_by_its_handle() -> None:
    bare = RDAP | {"entities": [{"roles": ["registrar"], "handle": "81"}]}
    assert rdap(lambda _: json(bare), base_url="https://rdap.example").domain("asso.example").registrar == "81"


def test_a_domain_that_nobody_has() -> None:
    with pytest.raises(CallError, match=r"knows no domain asso\.example") as caught:
        rdap(lambda _: json({"errorCode": 404, "title": "Not Found"}, 404), base_url="https://rdap.example").domain(
            "asso.example"
        )
    assert caught.value.status == 404


def test_the_server_is_looked_up_once() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.url.host == "data.iana.org":
            return json({"services": [[["example", "test"], ["http://plain.example/", "https://rdap.example/v1/"]]]})
        return json(RDAP)

    registry = rdap(answer)
    registry.domain("asso.example")
    registry.domain("autre.test")
    assert asked == [
        "https://data.iana.org/rdap/dns.json",
        "https://rdap.example/v1/domain/asso.example",
        "https://rdap.example/v1/domain/autre.test",
    ]


def test_a_registry_without_rdap_is_said_so() -> None:
    with pytest.raises(CallError, match=r"No RDAP server is known for \.test"):
        rdap(lambda _: json(RDAP), bootstrap={"example": "https://rdap.example"}).domain("asso.test")


def test_a_registry_that_sends_elsewhere_is_followed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "rdap.example":
            return httpx.Response(302, headers={"Location": "https://other.example/domain/asso.example"})
        return json(RDAP)

    assert rdap(answer, base_url="https://rdap.example").domain("asso.example").registrar == "Registrar SAS"


def test_bootstrap_takes_https_where_it_can() -> None:
    assert bootstrap_of(
        {"services": [[["fr"], ["http://a.example/", "https://b.example/"]], [["re"], ["http://c.example"]]]}
    ) == {
        "fr": "https://b.example",
        "re": "http://c.example",
    }


def test_callers_of_one_service_share_its_pace() -> None:
    clock = VirtualClock()
    first, asked = caller(clock, json({}), requests_per_second=5)
    second, asked_too = caller(clock, json({}), requests_per_second=5)
    for _ in range(6):
        first.read("/x")
        second.read("/x")
    times = sorted(at for at, _ in [*asked, *asked_too])
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in zip(times, times[5:], strict=False))
