# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netim's client against scripted answers of the shapes that Netim's own clients expect."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from infini.domains.caller import CallError
from infini.domains.netim import Netim
from infini.domains.observed import TransferOrder
from infini.domains.ports import ByHandError
from infini.domains.secrets import Secret
from infini.domains.simulator.clock import VirtualClock

NAME = "asso.example"
CODE = "auth-Code-88"
NAMESERVERS = ["ns1.infini.example.", "ns2.infini.example"]


class Shop:
    """Netim in small: sessions, operations and domains."""

    def __init__(self) -> None:
        self.open = 0
        self.most_open = 0
        self.operations: dict[int, dict[str, Any]] = {}
        self.here: set[str] = set()
        self.preferences: dict[str, str] = {}
        self.lose_transfer = False
        self.answer: dict[str, Any] = {"STATUS": "Pending"}
        self.asked: list[httpx.Request] = []
        self.checks: dict[str, Any] = {
            "check": [{"domain": NAME, "result": "NOT AVAILABLE"}],
            "price": {"IsPremium": 0, "FeeCurrency": "EUR", "Fee4Transfer": "12.5"},
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        path = request.url.path.removeprefix("/3.0")
        if path == "/session/":
            return self._session(request)
        assert request.headers["Authorization"] == "Bearer session-token-1"
        body = json.loads(request.content or b"null")
        answer: httpx.Response = getattr(self, f"_{request.method.lower()}")(path, body)
        return answer

    def _session(self, request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            self.open -= 1
            return httpx.Response(200)
        pair = base64.b64encode(b"LOGIN:netim-secret").decode()
        assert request.headers["Authorization"] == f"Basic {pair}"
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        return httpx.Response(200, json={"access_token": "session-token-1"})

    def _get(self, path: str, _body: Any) -> httpx.Response:
        if path == "/operations/pending/":
            pending = [
                {"id_ope": number, "code_ope": operation["code"], "data_ope": operation["domain"]}
                for number, operation in self.operations.items()
                if operation["STATUS"] == "Pending"
            ]
            return httpx.Response(200, json=pending)
        kind, name, *rest = path.strip("/").split("/")
        if kind == "operation" and int(name) in self.operations:
            operation = self.operations[int(name)]
            return httpx.Response(200, json={key: operation[key] for key in ("STATUS", "MESSAGE") if key in operation})
        if rest == ["info"] and name in self.here:
            return httpx.Response(200, json={"domain": name})
        if rest and rest[0] in self.checks:
            return httpx.Response(200, json=self.checks[rest[0]])
        return httpx.Response(404, json={"message": "E04"})

    def _post(self, path: str, body: Any) -> httpx.Response:
        assert path == f"/domain/{NAME}/transfer/"
        number = 500 + len(self.operations)
        self.operations[number] = {"code": "domainTransferIn", "domain": NAME, "body": body, **self.answer}
        if self.lose_transfer:
            raise httpx.ReadTimeout("late")
        return httpx.Response(200, json={"ID": number, **self.answer})

    def _patch(self, path: str, body: Any) -> httpx.Response:
        assert path == f"/domain/{NAME}/preference/"
        self.preferences[body["codePref"]] = body["value"]
        return httpx.Response(200, json={"STATUS": "Done"})


@pytest.fixture
def shop() -> Shop:
    return Shop()


def netim(shop: Shop) -> Netim:
    return Netim("LOGIN", Secret("netim-secret"), VirtualClock(), contact="IF1", transport=httpx.MockTransport(shop))


def test_a_quote_knows_the_price(shop: Shop) -> None:
    quote = netim(shop).quote(NAME, Secret(CODE), NAMESERVERS)
    assert quote.price == 12.5
    assert quote.problems == ()
    assert shop.operations == {}
    assert CODE.encode() not in b"".join(request.content for request in shop.asked)


def test_a_name_that_is_free_cannot_be_transferred(shop: Shop) -> None:
    shop.checks["check"] = [{"domain": NAME, "result": "AVAILABLE"}]
    assert "registered nowhere" in netim(shop).quote(NAME, Secret(CODE), NAMESERVERS).problems[0]


def test_a_premium_price_is_a_problem(shop: Shop) -> None:
    shop.checks["price"] = {"IsPremium": 1, "FeeCurrency": "EUR", "Fee4Transfer": 900}
    assert "premium" in netim(shop).quote(NAME, Secret(CODE), NAMESERVERS).problems[0]


@pytest.mark.parametrize(
    "price", [None, {"FeeCurrency": "USD", "Fee4Transfer": 9}, {"FeeCurrency": "EUR", "Fee4Transfer": "ask us"}]
)
def test_a_price_that_is_not_known(shop: Shop, price: dict[str, Any] | None) -> None:
    shop.checks = {} if price is None else {"price": price}
    assert netim(shop).quote(NAME, Secret(CODE), NAMESERVERS).price is None


def test_an_order_is_placed_once(shop: Shop) -> None:
    client = netim(shop)
    order = client.order(NAME, Secret(CODE), NAMESERVERS)
    assert order == TransferOrder(f"{NAME}/operation/500", "pending")
    assert shop.operations[500]["body"] == {
        "authID": CODE,
        "idOwner": "#AUTO#",
        "idAdmin": "IF1",
        "idTech": "IF1",
        "idBilling": "IF1",
        "nameservers": {"1": {"name": "ns1.infini.example"}, "2": {"name": "ns2.infini.example"}},
    }
    assert client.order(NAME, Secret(CODE), NAMESERVERS).id == order.id
    assert netim(shop).order(NAME, Secret(CODE), NAMESERVERS).id == order.id
    assert len(shop.operations) == 1


def test_a_lost_answer_does_not_order_twice(shop: Shop) -> None:
    shop.lose_transfer = True
    with pytest.raises(CallError) as caught:
        netim(shop).order(NAME, Secret(CODE), NAMESERVERS)
    assert caught.value.landed is None
    shop.lose_transfer = False
    assert netim(shop).order(NAME, Secret(CODE), NAMESERVERS).id == f"{NAME}/operation/500"
    assert len(shop.operations) == 1


def test_sessions_are_closed_even_after_failures(shop: Shop) -> None:
    client = netim(shop)
    client.quote(NAME, Secret(CODE), NAMESERVERS)
    client.order(NAME, Secret(CODE), NAMESERVERS)
    shop.operations.clear()
    shop.lose_transfer = True
    with pytest.raises(CallError):
        client.order(NAME, Secret(CODE), NAMESERVERS)
    assert shop.open == 0
    assert shop.most_open == 1


def test_a_transfer_that_ended(shop: Shop) -> None:
    client = netim(shop)
    assert client.find_order(NAME) is None
    client.order(NAME, Secret(CODE), NAMESERVERS)
    shop.operations[500] |= {"STATUS": "Done"}
    shop.here.add(NAME)
    found = client.find_order(NAME)
    assert found == TransferOrder(f"{NAME}/operation/500", "done")
    assert netim(shop).find_order(NAME) == TransferOrder(f"{NAME}/domain", "done"), "another run, the same truth"


def test_other_peoples_operations_are_not_ours(shop: Shop) -> None:
    shop.operations[1] = {"code": "domainTransferIn", "domain": "other.example", "STATUS": "Pending"}
    shop.operations[2] = {"code": "domainRenew", "domain": NAME, "STATUS": "Pending"}
    assert netim(shop).find_order(NAME) is None


def test_a_refused_code_is_ordered_again(shop: Shop) -> None:
    client = netim(shop)
    client.order(NAME, Secret("bad-code-1"), NAMESERVERS)
    shop.operations[500] |= {"STATUS": "Failed", "MESSAGE": "Authorization error: bad-code-1"}
    refused = client.find_order(NAME)
    assert refused is not None
    assert refused.stage == "refused"
    assert refused.reason == "auth-code-wrong: Authorization error: ***"
    client.correct_auth_code(refused, Secret(CODE))
    assert shop.operations[501]["body"]["authID"] == CODE
    assert shop.operations[501]["body"]["nameservers"] == shop.operations[500]["body"]["nameservers"]
    client.correct_auth_code(refused, Secret(CODE))
    assert len(shop.operations) == 2, "the new one is under way"


def test_a_refused_code_of_another_run_is_for_a_human(shop: Shop) -> None:
    with pytest.raises(ByHandError) as caught:
        netim(shop).correct_auth_code(TransferOrder(f"{NAME}/operation/500", "refused"), Secret(CODE))
    assert caught.value.who == "volunteer"
    assert CODE not in caught.value.instructions


def test_the_domain_is_secured(shop: Shop) -> None:
    netim(shop).secure(NAME)
    assert shop.preferences == {"registrar_lock": "1", "auto_renew": "1"}


def test_a_preference_that_is_not_taken(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = httpx.Response(200, json={"STATUS": "Failed", "MESSAGE": "not for this extension"})
    monkeypatch.setattr(shop, "_patch", lambda _path, _body: failed)
    with pytest.raises(CallError, match="not for this extension"):
        netim(shop).secure(NAME)
    assert shop.open == 0
