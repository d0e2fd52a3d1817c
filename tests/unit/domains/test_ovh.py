# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""OVH's client against scripted answers of the shapes that OVH documents."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from infini.domains.caller import CallError
from infini.domains.observed import TransferOrder
from infini.domains.ovh import Ovh
from infini.domains.secrets import Secret
from infini.domains.simulator.clock import VirtualClock

NAME = "asso.example"
CODE = "auth-Code-77"
NAMESERVERS = ["ns1.infini.example.", "ns2.infini.example"]
BASE = "https://eu.api.ovh.com/1.0"
AHEAD = 7200
OFFER = {"action": "transfer", "pricingMode": "transfer-default", "orderable": True, "duration": ["P1Y"]}


class Shop:
    """OVH in small: one cart, its configuration, tasks and orders."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.offers: list[dict[str, Any]] = [OFFER]
        self.required: list[dict[str, Any]] = [{"label": "OWNER_LEGAL_AGE", "type": "bool", "required": True}]
        self.told: dict[str, str] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.orders: dict[int, tuple[str, str]] = {}
        self.refusal = ""
        self.lose_checkout = False
        self.domain: dict[str, Any] = {"transferLockStatus": "unlocked"}
        self.renew = {"automatic": False, "deleteAtExpiration": True, "period": 12}
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        path = request.url.path.removeprefix("/1.0")
        if path == "/auth/time":
            return httpx.Response(200, json=int(self.clock.now().timestamp()) + AHEAD)
        body = json.loads(request.content or b"null")
        answer: httpx.Response = getattr(self, f"_{request.method.lower()}")(path, body, request.url.params)
        return answer

    def _get(self, path: str, _body: Any, params: httpx.QueryParams) -> httpx.Response:
        parts = path.strip("/").split("/")
        table: dict[str, Any] = {
            "/order/cart/c-1/domain": self.offers,
            "/order/cart/c-1/item/5/requiredConfiguration": self.required,
            "/order/cart/c-1/checkout": {
                "orderId": None,
                "prices": {"withTax": {"currencyCode": "EUR", "value": 8.99}},
            },
            "/me/order": sorted(self.orders),
            f"/domain/{NAME}": self.domain,
            f"/domain/{NAME}/serviceInfos": {"renew": self.renew},
        }
        if path == "/order/cart/c-1/checkout" and self.refusal:
            return httpx.Response(400, json={"message": self.refusal})
        if path == "/me/task/domain":
            assert params["function"] == "DomainIncomingTransfer"
            return httpx.Response(200, json=[n for n, task in self.tasks.items() if task["domain"] == params["domain"]])
        if path.startswith("/me/task/domain/"):
            return httpx.Response(200, json=self.tasks[int(parts[3])])
        if path.startswith("/me/order/") and parts[3:] == ["details"]:
            return httpx.Response(200, json=[1])
        if path.startswith("/me/order/") and parts[3:] == ["details", "1"]:
            return httpx.Response(200, json={"domain": self.orders[int(parts[2])][0]})
        if path.startswith("/me/order/") and parts[3:] == ["status"]:
            return httpx.Response(200, json=self.orders[int(parts[2])][1])
        return httpx.Response(200, json=table[path]) if path in table else httpx.Response(404, json={"message": path})

    def _post(self, path: str, body: Any, _params: httpx.QueryParams) -> httpx.Response:
        if path == "/order/cart":
            return httpx.Response(200, json={"cartId": "c-1"})
        if path == "/order/cart/c-1/domain":
            assert body == {"domain": NAME, "duration": "P1Y", "pricingMode": "transfer-default"}
            return httpx.Response(200, json={"itemId": 5})
        if path == "/order/cart/c-1/item/5/configuration":
            self.told[body["label"]] = body["value"]
            return httpx.Response(200, json={"id": 1, **body})
        if path == "/order/cart/c-1/checkout":
            self.orders[900 + len(self.orders)] = (NAME, "checking")
            if self.lose_checkout:
                raise httpx.ReadTimeout("late")
            return httpx.Response(200, json={"orderId": max(self.orders), "url": "https://x.example"})
        return httpx.Response(200)

    def _put(self, path: str, body: Any, _params: httpx.QueryParams) -> httpx.Response:
        if path == f"/domain/{NAME}":
            self.domain |= body
        if path == f"/domain/{NAME}/serviceInfos":
            self.renew = body["renew"]
        return httpx.Response(200)

    def changes(self) -> list[str]:
        return [
            f"{request.method} {request.url.path.removeprefix('/1.0')}"
            for request in self.asked
            if request.method != "GET"
        ]


@pytest.fixture
def shop() -> Shop:
    return Shop(VirtualClock())


def ovh(shop: Shop, **options: Any) -> Ovh:
    keys = ("app-key", Secret("app-secret"), Secret("consumer-key"))
    return Ovh(*keys, shop.clock, transport=httpx.MockTransport(shop), **options)


def test_calls_are_signed_as_ovh_documents(shop: Shop) -> None:
    ovh(shop).quote(NAME, Secret(CODE), NAMESERVERS)
    assert len([request for request in shop.asked if request.url.path.endswith("/auth/time")]) == 1
    for request in shop.asked:
        if request.url.path.endswith("/auth/time"):
            assert "X-Ovh-Signature" not in request.headers
            continue
        stamp = request.headers["X-Ovh-Timestamp"]
        assert abs(int(stamp) - AHEAD - shop.clock.now().timestamp()) < 60, "their clock, not ours"
        parts = ("app-secret", "consumer-key", request.method, str(request.url), request.content.decode(), stamp)
        expected = hashlib.sha1("+".join(parts).encode()).hexdigest()  # noqa: S324  OVH's scheme
        assert request.headers["X-Ovh-Signature"] == f"$1${expected}"
        assert request.headers["X-Ovh-Application"] == "app-key"
        assert "app-secret" not in str(request.headers)


def test_a_quote_orders_nothing(shop: Shop) -> None:
    quote = ovh(shop, owner_contact="/me/contact/12").quote(NAME, Secret(CODE), NAMESERVERS)
    assert quote.price == 8.99
    assert quote.problems == ()
    assert shop.told == {
        "AUTH_INFO": CODE,
        "DNS": "ns1.infini.example,ns2.infini.example",
        "OWNER_LEGAL_AGE": "true",
        "OWNER_CONTACT": "/me/contact/12",
    }
    assert "POST /order/cart/c-1/checkout" not in shop.changes()
    assert shop.orders == {}


@pytest.mark.parametrize(
    "offers",
    [
        [],
        [{**OFFER, "action": "create", "pricingMode": "create-default"}],
        [{**OFFER, "pricingMode": "transfer-premium"}],
        [{**OFFER, "pricingMode": "transfer-aftermarket1"}],
        [{**OFFER, "orderable": False}],
    ],
)
def test_only_an_ordinary_transfer_is_bought(shop: Shop, offers: list[dict[str, Any]]) -> None:
    shop.offers = offers
    quote = ovh(shop).quote(NAME, Secret(CODE), NAMESERVERS)
    assert quote.price is None
    assert "no ordinary transfer" in quote.problems[0]
    with pytest.raises(CallError, match="no ordinary transfer"):
        ovh(shop).order(NAME, Secret(CODE), NAMESERVERS)
    assert shop.orders == {}


def test_what_ovh_refuses_is_a_problem_without_the_code(shop: Shop) -> None:
    shop.refusal = f"The code {CODE} is not one"
    quote = ovh(shop).quote(NAME, Secret(CODE), NAMESERVERS)
    assert quote.price is None
    assert "is not one" in quote.problems[0]
    assert CODE not in str(quote)


def test_what_ovh_asks_beyond_us_is_a_problem(shop: Shop) -> None:
    shop.required.append({"label": "CLAIMS_NOTICE", "type": "string", "required": True})
    assert "CLAIMS_NOTICE" in ovh(shop).quote(NAME, Secret(CODE), NAMESERVERS).problems[0]


def test_an_order_is_placed_once(shop: Shop) -> None:
    client = ovh(shop)
    order = client.order(NAME, Secret(CODE), NAMESERVERS)
    assert order == TransferOrder(f"{NAME}/order/900", "pending")
    assert client.order(NAME, Secret(CODE), NAMESERVERS).id == order.id, "found among the orders, no task yet"
    shop.tasks[1000] = {"id": 1000, "domain": NAME, "status": "doing", "todoDate": "2026-03-09T08:00:00+01:00"}
    again = client.order(NAME, Secret(CODE), NAMESERVERS)
    assert again.id == f"{NAME}/task/1000"
    assert again.until == datetime(2026, 3, 9, 7, tzinfo=UTC)
    assert shop.changes().count("POST /order/cart/c-1/checkout") == 1


def test_a_lost_answer_does_not_order_twice(shop: Shop) -> None:
    shop.lose_checkout = True
    client = ovh(shop)
    with pytest.raises(CallError) as caught:
        client.order(NAME, Secret(CODE), NAMESERVERS)
    assert caught.value.landed is None
    shop.lose_checkout = False
    assert ovh(shop).order(NAME, Secret(CODE), NAMESERVERS).id == f"{NAME}/order/900"
    assert len(shop.orders) == 1


@pytest.mark.parametrize(
    ("status", "comment", "stage", "reason"),
    [
        ("todo", "", "pending", ""),
        ("done", "", "done", ""),
        ("cancelled", "by the customer", "refused", "by the customer"),
        ("error", "Invalid auth code", "refused", "auth-code-wrong: Invalid auth code"),
        ("strange", "", "unknown", ""),
    ],
)
def test_what_becomes_of_a_transfer(shop: Shop, status: str, comment: str, stage: Any, reason: str) -> None:
    shop.tasks[1] = {"id": 1, "domain": NAME, "status": "done", "comment": ""}
    shop.tasks[2] = {"id": 2, "domain": NAME, "status": status, "comment": comment}
    found = ovh(shop).find_order(NAME)
    assert found == TransferOrder(f"{NAME}/task/2", stage, reason)


def test_a_task_that_repeats_the_code_does_not_show_it(shop: Shop) -> None:
    shop.tasks[1] = {"id": 1, "domain": NAME, "status": "error", "comment": f"{Secret(CODE).reveal()} is refused"}
    assert CODE not in repr(ovh(shop).find_order(NAME))


@pytest.mark.parametrize(
    ("status", "stage"), [("notPaid", "pending"), ("cancelled", "refused"), ("delivered", "unknown")]
)
def test_an_order_without_its_task(shop: Shop, status: str, stage: str) -> None:
    shop.orders = {1: (NAME, "cancelled"), 2: ("other.example", "checking"), 3: (NAME, status)}
    found = ovh(shop).find_order(NAME)
    assert found is not None
    assert (found.id, found.stage) == (f"{NAME}/order/3", stage)


def test_nobody_ordered(shop: Shop) -> None:
    shop.orders = {2: ("other.example", "checking")}
    assert ovh(shop).find_order(NAME) is None


def test_a_refused_transfer_takes_another_code(shop: Shop) -> None:
    shop.tasks[7] = {"id": 7, "domain": NAME, "status": "error", "comment": "auth", "canRelaunch": True}
    client = ovh(shop)
    order = client.find_order(NAME)
    assert order is not None
    client.correct_auth_code(order, Secret(CODE))
    assert shop.changes() == ["PUT /me/task/domain/7/argument/authInfo", "POST /me/task/domain/7/relaunch"]
    assert json.loads(shop.asked[-2].content) == {"value": CODE}
    shop.tasks[7]["canRelaunch"] = False
    with pytest.raises(CallError, match="ask its support"):
        client.correct_auth_code(order, Secret(CODE))


def test_the_domain_is_secured_once(shop: Shop) -> None:
    client = ovh(shop)
    client.secure(NAME)
    assert shop.domain["transferLockStatus"] == "locked"
    assert shop.renew == {"automatic": True, "deleteAtExpiration": False, "period": 12}
    before = len(shop.changes())
    client.secure(NAME)
    assert len(shop.changes()) == before
