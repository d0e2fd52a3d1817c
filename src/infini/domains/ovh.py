# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""OVH as the registrar that a domain goes to: an order is a cart, and what becomes of it is a task."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import quote

import httpx

from infini.domains.caller import Caller, CallError, host_names, moment
from infini.domains.observed import Quote, TransferOrder
from infini.domains.ports import Clock
from infini.domains.secrets import redact, reveal
from infini.domains.zone import ascii_name
from infini.phrase import Phrase

Stage = Literal["pending", "refused", "done", "unknown"]
TRANSFER = "DomainIncomingTransfer"
PRICING = "transfer-default"
ORDERS_SINCE_DAYS = 30
"""How far back an order is looked for that has no task yet; OVH's carts live one day and unpaid orders a few."""
_TASK_STAGES: Mapping[str, Stage] = {
    "todo": "pending",
    "doing": "pending",
    "done": "done",
    "error": "refused",
    "cancelled": "refused",
}
_ORDER_STAGES: Mapping[str, Stage] = {
    "cancelled": "refused",
    "cancelling": "refused",
    "checking": "pending",
    "delivering": "pending",
    "documentsRequested": "pending",
    "notPaid": "pending",
}


class Ovh:
    """Transfers to OVH. Implements `ports.Gaining`. Every method raises CallError.

    `owner_contact` is the holder's contact as OVH names it (`/me/contact/123`); without it OVH copies the account's.
    Orders are paid with the account's preferred means. An order's id is `domain/task/number`, or `domain/order/number`
    while OVH has not made its task.
    """

    name = "OVH"

    def __init__(
        self,
        application_key: str,
        application_secret: str,
        consumer_key: str,
        clock: Clock,
        base_url: str = "https://eu.api.ovh.com/1.0",
        *,
        subsidiary: str = "FR",
        owner_contact: str = "",
        requests_per_second: float = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._keys = (application_key, application_secret, consumer_key)
        self._clock, self._subsidiary, self._owner_contact = clock, subsidiary, owner_contact
        self._ahead: timedelta | None = None
        self._ordered: dict[int, set[str]] = {}
        self._open = Caller("OVH", base_url, clock, requests_per_second=requests_per_second, transport=transport)
        self._caller = Caller(
            "OVH",
            base_url,
            clock,
            requests_per_second=requests_per_second,
            proof=self._signature,
            forbidden=Phrase("make a new consumer key at OVH with the rights on /order, /me and /domain"),
            transport=transport,
        )

    def _signature(self, method: str, url: str, body: str) -> Mapping[str, str]:
        """Sign a call as OVH wants it: by its own clock, over the whole address and the very bytes of the body."""
        if self._ahead is None:
            theirs = self._open.read("/auth/time").data
            self._ahead = timedelta(seconds=int(theirs)) - timedelta(seconds=int(self._clock.now().timestamp()))
        key, secret, consumer = map(reveal, self._keys)
        stamp = str(int((self._clock.now() + self._ahead).timestamp()))
        digest = hashlib.sha1("+".join((secret, consumer, method, url, body, stamp)).encode())  # noqa: S324  OVH chose SHA-1
        return {
            "X-Ovh-Application": key,
            "X-Ovh-Consumer": consumer,
            "X-Ovh-Timestamp": stamp,
            "X-Ovh-Signature": f"$1${digest.hexdigest()}",
        }

    def quote(self, domain: str, auth_code: str, nameservers: Sequence[str]) -> Quote:
        """Fill a cart and let OVH check it without ordering; what OVH refuses comes back as `problems`."""
        domain = ascii_name(domain)
        try:
            _cart, checked = self._cart(domain, auth_code, nameservers)
        except CallError as error:
            if error.status not in (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
                raise
            return Quote(domain, None, (error.says,))
        return Quote(domain, _price(checked))

    def order(self, domain: str, auth_code: str, nameservers: Sequence[str]) -> TransferOrder:
        """Place the order, checked by OVH just before; an order that is under way or done is returned instead."""
        domain = ascii_name(domain)
        found = self.find_order(domain)
        if found is not None and found.stage in ("pending", "done"):
            return found
        cart, _checked = self._cart(domain, auth_code, nameservers)
        placed = self._caller.change(
            "POST",
            f"/order/cart/{cart}/checkout",
            {"autoPayWithPreferredPaymentMethod": True, "waiveRetractationPeriod": True},
        ).data
        if not isinstance(placed, Mapping) or not placed.get("orderId"):
            nameless = Phrase("OVH took the order for {domain} without saying its number", domain=domain)
            raise CallError(nameless, retry=True, landed=None)
        return TransferOrder(f"{domain}/order/{placed['orderId']}", "pending")

    def _cart(self, domain: str, auth_code: str, nameservers: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
        """Make a cart with the transfer in it; return its id and what OVH's check of it says."""
        cart = quote(str(self._made("POST", "/order/cart", {"ovhSubsidiary": self._subsidiary})["cartId"]), safe="")
        # Offers are made to an account, not to a stranger's cart.
        self._caller.change("POST", f"/order/cart/{cart}/assign")
        offer = self._offer(cart, domain)
        item = self._made(
            "POST",
            f"/order/cart/{cart}/domain",
            {"domain": domain, "duration": (offer.get("duration") or ["P1Y"])[0], "pricingMode": PRICING},
        )["itemId"]
        path = f"/order/cart/{cart}/item/{item}"
        for label, value in self._configuration(f"{path}/requiredConfiguration", domain, auth_code, nameservers):
            self._caller.change("POST", f"{path}/configuration", {"label": label, "value": value})
        checked = self._caller.read(f"/order/cart/{cart}/checkout").data
        return cart, checked if isinstance(checked, Mapping) else {}

    def _offer(self, cart: str, domain: str) -> Mapping[str, Any]:
        """Return OVH's offer of an ordinary transfer: no registration, no premium price, no aftermarket."""
        offers = self._caller.read(f"/order/cart/{cart}/domain", {"domain": domain}).data or []
        for offer in offers:
            if (
                offer.get("action") == "transfer"
                and offer.get("pricingMode") == PRICING
                and offer.get("orderable", True)
            ):
                return dict(offer)
        seen = ", ".join(f"{offer.get('action')} ({offer.get('pricingMode')})" for offer in offers) or "nothing"
        raise CallError(
            Phrase("OVH offers no ordinary transfer of {domain} but {seen}", domain=domain, seen=seen), status=409
        )

    def _configuration(
        self, path: str, domain: str, auth_code: str, nameservers: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Return what the cart's item must be told. Without DNS the domain would move to OVH's own servers."""
        asked = {str(entry.get("label")): bool(entry.get("required")) for entry in self._caller.read(path).data or []}
        ours = {
            "AUTH_INFO": reveal(auth_code),
            "DNS": ",".join(host_names(nameservers)),
            "OWNER_LEGAL_AGE": "true",
        }
        # An empty contact is documented: OVH then makes one of the account's.
        if self._owner_contact or asked.get("OWNER_CONTACT"):
            ours["OWNER_CONTACT"] = self._owner_contact
        unknown = [label for label, required in asked.items() if required and label not in ours]
        if unknown:
            raise CallError(
                Phrase(
                    "OVH wants to know {unknown} to transfer {domain}: order it by hand at OVH",
                    unknown=", ".join(unknown),
                    domain=domain,
                ),
                status=409,
            )
        return list(ours.items())

    def _made(self, method: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        made = self._caller.change(method, path, body).data
        if not isinstance(made, Mapping):
            raise CallError(Phrase("OVH's answer to {asked} is no object", asked=f"{method} {path}"), retry=True)
        return made

    def find_order(self, domain: str) -> TransferOrder | None:
        """Return the newest transfer of a domain: its task, else the order that has no task yet."""
        domain = ascii_name(domain)
        task = self._task(domain)
        return self._order(domain) if task is None else _of_task(domain, task)

    def _task(self, domain: str) -> Mapping[str, Any] | None:
        ids = self._caller.read("/me/task/domain", {"domain": domain, "function": TRANSFER}).data or []
        if not ids:
            return None
        task = self._caller.read(f"/me/task/domain/{max(ids)}").data
        return task if isinstance(task, Mapping) else None

    def _order(self, domain: str) -> TransferOrder | None:
        """Look through the last orders: OVH makes the task only once an order is paid."""
        since = self._clock.now() - timedelta(days=ORDERS_SINCE_DAYS)
        numbers = self._caller.read("/me/order", {"date.from": since.isoformat(timespec="seconds")}).data or []
        for number in sorted(numbers, reverse=True):
            if self._is_for(number, domain):
                status = str(self._caller.read(f"/me/order/{number}/status").data)
                reason = "" if status in ("checking", "delivering", "delivered") else f"order {number}: {status}"
                return TransferOrder(f"{domain}/order/{number}", _ORDER_STAGES.get(status, "unknown"), reason)
        return None

    def _is_for(self, number: int, domain: str) -> bool:
        """Tell whether an order is about a domain; what an order is about never changes, so it is asked once."""
        if number not in self._ordered:
            path = f"/me/order/{number}/details"
            lines = [self._caller.read(f"{path}/{line}").data for line in self._caller.read(path).data or []]
            domains = {str(line.get("domain", "")).lower() for line in lines}
            if not domains:
                return False  # its lines are not there yet
            self._ordered[number] = domains
        return domain in self._ordered[number]

    def correct_auth_code(self, order: TransferOrder, auth_code: str) -> None:
        """Give the transfer's task another code and have it tried again."""
        domain = order.id.partition("/")[0]
        task = self._task(domain)
        if task is None:
            waits = Phrase("OVH has not begun the transfer of {domain}: no code can be corrected yet", domain=domain)
            raise CallError(waits, retry=True)
        if not task.get("canRelaunch", True):
            raise CallError(
                Phrase("OVH does not let us try the transfer of {domain} again: ask its support", domain=domain)
            )
        path = f"/me/task/domain/{task['id']}"
        self._caller.change("PUT", f"{path}/argument/authInfo", {"value": reveal(auth_code)})
        self._caller.change("POST", f"{path}/relaunch")

    def secure(self, domain: str) -> None:
        """Set the transfer lock and the automatic renewal, where they are not set."""
        path = f"/domain/{quote(ascii_name(domain), safe='')}"
        if self._caller.read(path).data.get("transferLockStatus") not in ("locked", "locking", "unavailable"):
            self._caller.change("PUT", path, {"transferLockStatus": "locked"})
        renewal = dict(self._caller.read(f"{path}/serviceInfos").data.get("renew") or {})
        if not renewal.get("automatic"):
            renewal |= {"automatic": True, "deleteAtExpiration": False}
            self._caller.change("PUT", f"{path}/serviceInfos", {"renew": renewal})

    def close(self) -> None:
        """Close the connections."""
        self._open.close()
        self._caller.close()


def _price(checked: Mapping[str, Any]) -> float | None:
    """Return a checked cart's price with taxes, in euros."""
    price = (checked.get("prices") or {}).get("withTax") or {}
    if price.get("value") is None or price.get("currencyCode", "EUR") != "EUR":
        return None
    return float(price["value"])


def _of_task(domain: str, task: Mapping[str, Any]) -> TransferOrder:
    stage: Stage = _TASK_STAGES.get(str(task.get("status")), "unknown")
    reason = redact(str(task.get("comment") or ""))
    if stage == "refused" and re.search(r"(?i)auth", reason):
        reason = f"auth-code-wrong: {reason}"
    return TransferOrder(f"{domain}/task/{task['id']}", stage, reason, moment(task.get("todoDate")))
