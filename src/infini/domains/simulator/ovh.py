# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""OVH: signed requests, the order cart, the tasks of transfers, the domains that arrived, zone import."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from infini.domains.reading import from_text
from infini.domains.simulator.face import Answer, Call, Face, RefusalError, Request
from infini.domains.simulator.world import Order, World

REGISTRAR = "OVH sas"
APPLICATION_KEY, APPLICATION_SECRET, CONSUMER_KEY = "sim-application", "sim-application-secret", "sim-consumer-key"
OWN_NAMESERVERS = ("dns111.ovh.net", "ns111.ovh.net")
PRICE = 9.59
"""Taxes included, euros."""
REQUIRED = {
    "OWNER_CONTACT": "/me/contact",
    "OWNER_LEGAL_AGE": "bool",
    "AUTH_INFO": "String",
}
OPTIONAL = {"DNS": "String", "ADMIN_ACCOUNT": "/nichandle", "TECH_ACCOUNT": "/nichandle"}
CLOCK_DRIFT = 60
"""Seconds that a request's time may be off."""


class OvhFace(Face):
    """`/1.0`: everything needs the three keys and a signature, but the time."""

    name = "ovh"

    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        super().__init__(world, *args, **kwargs)
        self.carts: dict[str, dict[str, Any]] = {}
        self.paid: dict[int, list[Order]] = {}
        self.zones: dict[str, str] = {}
        self._counter = 1000

    # --- who may do what --------------------------------------------------------------------------------------

    def authenticate(self, call: Call) -> None:
        """Check the keys, the time and the signature."""
        if call.entry.does == "time":
            return
        headers = call.request.headers
        keys = (headers.get("x-ovh-application"), headers.get("x-ovh-consumer"))
        if keys != (APPLICATION_KEY, CONSUMER_KEY):
            raise RefusalError(self.error(403, "This credential is not valid", "INVALID_CREDENTIAL"))
        stamp = headers.get("x-ovh-timestamp", "")
        if not stamp.isdigit() or abs(int(stamp) - self.world.now().timestamp()) > CLOCK_DRIFT:
            raise RefusalError(self.error(400, "Invalid timestamp", "QUERY_TIME_OUT"))
        if not hmac.compare_digest(headers.get("x-ovh-signature", ""), signature(call.request, stamp)):
            raise RefusalError(self.error(400, "Invalid signature", "INVALID_SIGNATURE"))

    def error(self, status: int, says: str, name: str = "") -> Answer:
        """Return an error; `name` is OVH's code or the field that is wrong."""
        classes = {
            400: "Client::BadRequest",
            403: "Client::Forbidden",
            404: "Client::NotFound",
            409: "Client::Conflict",
        }
        said = {"class": classes.get(status, "Server::InternalServerError"), "message": says}
        if name.isupper():
            said |= {"errorCode": name, "httpCode": f"{status} {classes.get(status, '')}"}
        elif name:
            said["message"] = f"[{name}] {says}"
        return Answer(status, said)

    def subject(self, call: Call) -> str:
        """Return the domain: of the path, the query, the cart or the task."""
        if call.domain:
            return call.domain
        items = self.carts.get(call.values.get("cart", ""), {}).get("items", {})
        for item in items.values():
            return str(item["settings"]["domain"])
        order = self._order(call.values.get("task", ""))
        return order.domain if order else ""

    def _next(self) -> int:
        self._counter += 1
        return self._counter

    def _missing(self, what: str) -> RefusalError:
        return RefusalError(self.error(404, f"This {what} does not exist"))

    # --- the cart ---------------------------------------------------------------------------------------------

    def do_time(self, _call: Call) -> Answer:
        """Tell the time, seconds since 1970."""
        return Answer(200, int(self.world.now().timestamp()))

    def do_me(self, _call: Call) -> Answer:
        """Say whose account it is."""
        return Answer(
            200, {"nichandle": "xx1234-ovh", "ovhSubsidiary": "FR", "currency": {"code": "EUR", "symbol": "€"}}
        )

    def do_make_cart(self, call: Call) -> Answer:
        """Open a cart."""
        if call.data["ovhSubsidiary"] != "FR":
            return self.error(400, "is not your subsidiary", "ovhSubsidiary")
        key = f"cart-{self._next()}"
        self.carts[key] = {"items": {}, "assigned": False, "readOnly": False, "said": call.data.get("description", "")}
        return self._cart(key)

    def _cart(self, key: str) -> Answer:
        cart = self._known(key)
        said = {"cartId": key, "items": list(cart["items"]), "readOnly": cart["readOnly"], "description": cart["said"]}
        return Answer(200, {**said, "expire": None})

    def _known(self, key: str) -> dict[str, Any]:
        if key not in self.carts:
            raise self._missing("cart")
        return self.carts[key]

    def do_cart(self, call: Call) -> Answer:
        """Show a cart."""
        return self._cart(call.values["cart"])

    def do_drop_cart(self, call: Call) -> Answer:
        """Throw a cart away."""
        self._known(call.values["cart"])
        del self.carts[call.values["cart"]]
        return Answer(200)

    def do_assign_cart(self, call: Call) -> Answer:
        """Make the cart the account's."""
        self._known(call.values["cart"])["assigned"] = True
        return Answer(200)

    def do_offers(self, call: Call) -> Answer:
        """List what can be done with a domain: one that is registered elsewhere can be transferred."""
        self._known(call.values["cart"])
        domain = call.request.query.get("domain", "")
        if "." not in domain:
            return self.error(400, "is not a domain", "domain")
        entry = self.world.registry.get(domain)
        action = "create" if entry is None else "transfer"
        return Answer(200, [self._offer(action, orderable=entry is None or entry.registrar != REGISTRAR)])

    def _offer(self, action: str, *, orderable: bool) -> dict[str, Any]:
        return {
            "action": action,
            "pricingMode": f"{action}-default",
            "offer": "gold",
            "offerId": f"offer-{action}",
            "orderable": orderable,
            "duration": ["P1Y"],
            "phase": "GA",
            "productId": "domain",
            "quantityMax": 1,
            "deliveryTime": "",
            "configurations": self._labels(),
            "prices": [
                {"label": label, "price": _price(value)} for label, value in (("PRICE", 7.99), ("TOTAL", PRICE))
            ],
        }

    def _labels(self) -> list[dict[str, Any]]:
        return [
            {"label": label, "type": kind, "required": label in REQUIRED, "fields": [], "allowedValues": []}
            for label, kind in {**REQUIRED, **OPTIONAL}.items()
        ]

    def do_add_domain(self, call: Call) -> Answer:
        """Put a domain into the cart."""
        cart = self._known(call.values["cart"])
        if cart["readOnly"]:
            return self.error(400, "the cart is closed")
        domain = call.data["domain"].lower()
        entry = self.world.registry.get(domain)
        if entry is None or entry.registrar == REGISTRAR:
            return self.error(400, "is not available for transfer", "domain")
        key = self._next()
        cart["items"][key] = {
            "cartId": call.values["cart"],
            "itemId": key,
            "productId": "domain",
            "duration": call.data.get("duration", "P1Y"),
            "options": [],
            "settings": {"domain": domain, "pricingMode": "transfer-default", "quantity": 1},
            "configurations": {},
        }
        return self._item_json(cart["items"][key])

    do_add_transfer = do_add_domain

    def do_items(self, call: Call) -> Answer:
        """List the items of a cart."""
        return Answer(200, list(self._known(call.values["cart"])["items"]))

    def _item(self, call: Call) -> dict[str, Any]:
        items: Mapping[int, dict[str, Any]] = self._known(call.values["cart"])["items"]
        found = [item for key, item in items.items() if str(key) == call.values["item"]]
        if not found:
            raise self._missing("item")
        return found[0]

    def _item_json(self, item: Mapping[str, Any]) -> Answer:
        return Answer(200, {**item, "configurations": list(item["configurations"])})

    def do_item(self, call: Call) -> Answer:
        """Show an item."""
        return self._item_json(self._item(call))

    def do_required(self, call: Call) -> Answer:
        """List what an item asks for."""
        self._item(call)
        return Answer(200, self._labels())

    def do_configurations(self, call: Call) -> Answer:
        """List the configurations of an item."""
        return Answer(200, list(self._item(call)["configurations"]))

    def do_configure(self, call: Call) -> Answer:
        """Give an item what it asks for; the same label again replaces the value."""
        label, value = call.data["label"], call.data["value"]
        if label not in REQUIRED and label not in OPTIONAL:
            return self.error(400, "is not a configuration of this item", "label")
        chosen = self._item(call)["configurations"]
        key = next((key for key, (name, _) in chosen.items() if name == label), None) or self._next()
        chosen[key] = (label, value)
        return Answer(200, {"id": key, "label": label, "value": value})

    def do_drop_configuration(self, call: Call) -> Answer:
        """Take a configuration back."""
        chosen = self._item(call)["configurations"]
        found = [key for key in chosen if str(key) == call.values["id"]]
        if not found:
            raise self._missing("configuration")
        del chosen[found[0]]
        return Answer(200)

    def _checked(self, cart: Mapping[str, Any]) -> None:
        if not cart["assigned"]:
            raise RefusalError(self.error(400, "The cart is not assigned"))
        if not cart["items"]:
            raise RefusalError(self.error(400, "The cart is empty"))
        for item in cart["items"].values():
            given = {label for label, _ in item["configurations"].values()}
            missing = [label for label in REQUIRED if label not in given]
            if missing:
                raise RefusalError(self.error(400, f"Missing configuration: {', '.join(missing)}"))

    def do_dry_run(self, call: Call) -> Answer:
        """Say what the order would cost, or what it lacks; nothing is ordered."""
        cart = self._known(call.values["cart"])
        self._checked(cart)
        return Answer(200, self._bill(cart, None))

    def do_checkout(self, call: Call) -> Answer:
        """Order. A cart is ordered once."""
        cart = self._known(call.values["cart"])
        if cart["readOnly"]:
            return self.error(400, "The cart has been ordered")
        self._checked(cart)
        cart["readOnly"] = True
        number, placed = self._next(), []
        for item in cart["items"].values():
            given = dict(item["configurations"].values())
            servers = [part.strip() for part in given.get("DNS", "").split(",") if part.strip()] or OWN_NAMESERVERS
            domain = item["settings"]["domain"]
            placed.append(self.world.place_order(REGISTRAR, domain, given["AUTH_INFO"], servers))
        self.paid[number] = placed
        return Answer(200, self._bill(cart, number))

    def _bill(self, cart: Mapping[str, Any], number: int | None) -> dict[str, Any]:
        total = PRICE * len(cart["items"])
        return {
            "orderId": number,
            "url": None,
            "contracts": [],
            "prices": {"withTax": _price(total), "withoutTax": _price(round(total / 1.2, 2)), "tax": _price(0)},
            "details": [
                {"domain": item["settings"]["domain"], "description": "transfer", "totalPrice": _price(PRICE)}
                for item in cart["items"].values()
            ],
        }

    # --- orders and tasks -------------------------------------------------------------------------------------

    def do_orders(self, _call: Call) -> Answer:
        """List the orders."""
        return Answer(200, list(self.paid))

    def _paid(self, call: Call) -> tuple[int, list[Order]]:
        number = call.values["order"]
        if not number.isdigit() or int(number) not in self.paid:
            raise self._missing("order")
        return int(number), self.paid[int(number)]

    def do_order(self, call: Call) -> Answer:
        """Show an order."""
        number, orders = self._paid(call)
        return Answer(200, {"orderId": number, "date": _date(orders[0].placed), "priceWithTax": _price(PRICE)})

    def do_order_status(self, call: Call) -> Answer:
        """Say how far an order is: delivered is paid and handed to the task, not transferred."""
        self._paid(call)
        return Answer(200, "delivered")

    def do_order_details(self, call: Call) -> Answer:
        """List the lines of an order."""
        return Answer(200, [order.id for order in self._paid(call)[1]])

    def do_order_detail(self, call: Call) -> Answer:
        """Show a line of an order."""
        found = [order for order in self._paid(call)[1] if str(order.id) == call.values["detail"]]
        if not found:
            raise self._missing("detail")
        return Answer(200, {"orderDetailId": found[0].id, "domain": found[0].domain, "description": "transfer"})

    def _order(self, number: str) -> Order | None:
        mine = (order for order in self.world.orders if order.registrar == REGISTRAR)
        return next((order for order in mine if str(order.id) == number), None)

    def _tasked(self, call: Call) -> Order:
        order = self._order(call.values["task"])
        if order is None:
            raise self._missing("task")
        return order

    def _tasks(self, call: Call, domain: str | None) -> Answer:
        if call.request.query.get("function", "DomainIncomingTransfer") != "DomainIncomingTransfer":
            return Answer(200, [])
        state = call.request.query.get("status")
        mine = [order for order in self.world.orders if order.registrar == REGISTRAR]
        return Answer(
            200, [order.id for order in mine if domain in (None, order.domain) and state in (None, _status(order))]
        )

    def do_tasks(self, call: Call) -> Answer:
        """List the tasks of the account."""
        return self._tasks(call, call.request.query.get("domain"))

    def do_task(self, call: Call) -> Answer:
        """Show a task."""
        return Answer(200, _task(self._tasked(call)))

    def do_argument(self, call: Call) -> Answer:
        """Describe an argument of a task; the code is not told."""
        self._tasked(call)
        if call.values["key"] != "authInfo":
            raise self._missing("argument")
        said = {"key": "authInfo", "readOnly": False, "type": "string", "value": None, "fields": []}
        return Answer(200, {**said, "acceptedValues": [], "description": "", "acceptedFormats": []})

    def do_set_argument(self, call: Call) -> Answer:
        """Correct an argument of a task; it is tried on relaunch."""
        order = self._tasked(call)
        if call.values["key"] != "authInfo":
            raise self._missing("argument")
        order.code = call.data["value"]
        return Answer(200)

    def do_relaunch(self, call: Call) -> Answer:
        """Try a task again."""
        order = self._tasked(call)
        self.world.correct_order(order, order.code)
        return Answer(200)

    def do_cancel(self, call: Call) -> Answer:
        """Give a task up."""
        self.world.cancel_order(self._tasked(call))
        return Answer(200)

    # --- the domains that arrived -----------------------------------------------------------------------------

    def _settings(self, domain: str) -> dict[str, Any]:
        entry = self.world.registry.get(domain)
        if entry is None or entry.registrar != REGISTRAR:
            raise self._missing("service")
        return self.world.registrar_settings.setdefault(domain, {"locked": False, "auto_renew": False})

    def do_domains(self, _call: Call) -> Answer:
        """List the account's domains."""
        return Answer(200, sorted(one.name for one in self.world.registry.values() if one.registrar == REGISTRAR))

    def do_domain(self, call: Call) -> Answer:
        """Show a domain."""
        locked = self._settings(call.domain)["locked"]
        said = {"domain": call.domain, "transferLockStatus": "locked" if locked else "unlocked"}
        return Answer(200, {**said, "nameServerType": "external", "dnssecSupported": True, "offer": "gold"})

    def do_set_domain(self, call: Call) -> Answer:
        """Set the transfer lock."""
        wanted = call.data.get("transferLockStatus", "")
        if wanted not in ("locked", "unlocked"):
            return self.error(400, "is not one of locked, unlocked", "transferLockStatus")
        self._settings(call.domain)["locked"] = wanted == "locked"
        self.world.registration(call.domain).locked = wanted == "locked"
        return Answer(200)

    def do_domain_tasks(self, call: Call) -> Answer:
        """List a domain's tasks."""
        self._settings(call.domain)
        return self._tasks(call, call.domain)

    def do_domain_task(self, call: Call) -> Answer:
        """Show a domain's task."""
        self._settings(call.domain)
        return self.do_task(call)

    def do_infos(self, call: Call) -> Answer:
        """Show how a domain is renewed."""
        renews = self._settings(call.domain)["auto_renew"]
        expires = self.world.registration(call.domain).expires
        renew = {
            "automatic": renews,
            "deleteAtExpiration": False,
            "forced": False,
            "period": 12,
            "manualPayment": False,
        }
        return Answer(200, {"domain": call.domain, "renew": renew, "expiration": expires.date().isoformat()})

    def do_set_infos(self, call: Call) -> Answer:
        """Switch the renewal on or off."""
        self._settings(call.domain)["auto_renew"] = bool(call.data["renew"].get("automatic"))
        return Answer(200)

    # --- zones ------------------------------------------------------------------------------------------------

    def do_zone(self, call: Call) -> Answer:
        """Show a zone; it exists once `OvhFace.zones` has it."""
        if call.domain not in self.zones:
            raise self._missing("service")
        said = {"name": call.domain, "nameServers": list(OWN_NAMESERVERS), "dnssecSupported": True}
        return Answer(200, {**said, "hasDnsAnycast": False, "lastUpdate": _date(self.world.now())})

    def do_import_zone(self, call: Call) -> Answer:
        """Replace a zone by a zone file, in a while."""
        if call.domain not in self.zones:
            raise self._missing("service")
        zone = from_text(call.domain, call.data["zoneFile"])
        if zone.unreadable:
            return self.error(400, zone.unreadable[0].reason, "zoneFile")
        self.zones[call.domain] = call.data["zoneFile"]
        self.world.publish(zone, OWN_NAMESERVERS)
        return Answer(200, self._zone_task(self._next()))

    def _zone_task(self, number: int) -> dict[str, Any]:
        return {"id": number, "function": "DnsZoneImport", "status": "done", "comment": "", "canAccelerate": False}

    def do_export_zone(self, call: Call) -> Answer:
        """Give a zone file."""
        if call.domain not in self.zones:
            raise self._missing("service")
        return Answer(200, self.zones[call.domain])

    def do_zone_task(self, call: Call) -> Answer:
        """Show a zone's task."""
        return Answer(200, self._zone_task(int(call.values["task"])))


def signature(request: Request, stamp: str) -> str:
    """Return the signature that a request must carry, as OVH documents it; the hash is SHA-1 by that document."""
    parts: Sequence[str] = (
        APPLICATION_SECRET,
        CONSUMER_KEY,
        request.method,
        request.url,
        request.body.decode(),
        stamp,
    )
    return "$1$" + hashlib.sha1("+".join(parts).encode(), usedforsecurity=False).hexdigest()


def _status(order: Order) -> str:
    return {"pending": "doing", "refused": "error", "done": "done", "cancelled": "cancelled"}[order.stage]


def _task(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "function": "DomainIncomingTransfer",
        "status": _status(order),
        "domain": order.domain,
        "comment": order.reason,
        "canAccelerate": False,
        "canCancel": order.stage in ("pending", "refused"),
        "canRelaunch": order.stage == "refused",
        "creationDate": _date(order.placed),
        "todoDate": _date(order.until or order.placed),
        "lastUpdate": _date(order.moved or order.placed),
        "doneDate": _date(order.moved) if order.stage == "done" and order.moved else None,
    }


def _price(value: float) -> dict[str, Any]:
    return {"currencyCode": "EUR", "value": value, "text": f"{value:.2f} €"}


def _date(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S+00:00")
