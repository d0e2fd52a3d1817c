# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netim's REST service 3.0: a session, transfers, operations, preferences."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

from infini.domains.simulator.face import Answer, Call, Face, RefusalError
from infini.domains.simulator.world import Order, World

REGISTRAR = "NETIM"
LOGIN, PASSWORD = "SIM123", "sim-netim-password"
SESSION_MINUTES = 20
PRICE = 12.0
"""Taxes included, euros."""
STATUS = {"pending": "Pending", "refused": "Failed", "done": "Done", "cancelled": "Cancelled"}


class NetimFace(Face):
    """`/3.0`: a session is opened by name and password, then each call carries its token."""

    name = "netim"

    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        super().__init__(world, *args, **kwargs)
        self.sessions: dict[str, datetime] = {}
        self._counter = 0

    def authenticate(self, call: Call) -> None:
        """Let in the sessions that are open and were used lately."""
        scheme, _, word = call.request.headers.get("authorization", "").partition(" ")
        if call.entry.does == "open_session":
            expected = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
            if (scheme, word) != ("Basic", expected):
                raise RefusalError(self.error(401, "Authentication failed"))
            return
        last = self.sessions.get(word) if scheme == "Bearer" else None
        if last is None or last + timedelta(minutes=SESSION_MINUTES) <= self.world.now():
            raise RefusalError(self.error(401, "The session is closed"))
        self.sessions[word] = self.world.now()

    def error(self, status: int, says: str, name: str = "") -> Answer:
        """Return an error."""
        return Answer(status, {"error": {"code": f"E{status}", "message": f"{name}: {says}" if name else says}})

    def subject(self, call: Call) -> str:
        """Return the domain of the path, or of the operation."""
        number = call.values.get("operation", "")
        return call.domain or next((order.domain for order in self._orders() if str(order.id) == number), "")

    def _orders(self) -> list[Order]:
        return [order for order in self.world.orders if order.registrar == REGISTRAR]

    def do_open_session(self, _call: Call) -> Answer:
        """Open a session."""
        self._counter += 1
        token = f"session-{self.world.seed}-{self._counter}"
        self.sessions[token] = self.world.now()
        return Answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": SESSION_MINUTES * 60})

    def do_session(self, _call: Call) -> Answer:
        """Describe the session."""
        return Answer(200, {"login": LOGIN, "lang": "FR", "timeLastActivity": self.world.now().isoformat()})

    def do_close_session(self, call: Call) -> Answer:
        """Close the session."""
        self.sessions.pop(call.request.headers["authorization"].partition(" ")[2])
        return Answer(200, {})

    def do_check(self, call: Call) -> Answer:
        """Say whether a name is free."""
        taken = call.domain in self.world.registry
        return Answer(200, [{"domain": call.domain, "result": "NOT AVAILABLE" if taken else "AVAILABLE", "reason": ""}])

    def do_price(self, call: Call) -> Answer:
        """Say what a domain costs."""
        self.world.registration(call.domain)
        return Answer(200, {"IsPremium": 0, **_fees()})

    def do_tld(self, call: Call) -> Answer:
        """Describe a top-level domain."""
        return Answer(200, {"tld": call.values["tld"], "HasRegistrarLock": 1, "HasEppCode": 1, **_fees()})

    def do_transfer(self, call: Call) -> Answer:
        """Order a transfer."""
        entry = self.world.registry.get(call.domain)
        if entry is None or entry.registrar == REGISTRAR:
            return self.error(400, "this domain cannot be transferred")
        before = self.world.order_of(REGISTRAR, call.domain)
        if before is not None and before.stage == "pending":
            return self.error(409, "an operation is pending on this domain")
        data = call.data
        if not data["authID"] or not all(data[role] for role in ("idOwner", "idAdmin", "idTech", "idBilling")):
            return self.error(400, "a code and four contacts are needed")
        servers = self._servers(data["nameservers"])
        return Answer(200, _said(self.world.place_order(REGISTRAR, call.domain, data["authID"], servers)))

    def _servers(self, said: dict[str, Any]) -> list[str]:
        """Read name servers as Netim writes them: an object of numbers, each an object with a name."""
        found = [one.get("name") if isinstance(one, dict) else None for _, one in sorted(said.items())]
        if len(found) < 2 or not all(isinstance(name, str) and name for name in found):
            raise RefusalError(self.error(400, "two servers are needed, each with its name", "nameservers"))
        return [str(name) for name in found]

    def _operation(self, call: Call) -> Order:
        for order in self._orders():
            if str(order.id) == call.values["operation"]:
                return order
        raise RefusalError(self.error(404, "unknown operation"))

    def do_operation(self, call: Call) -> Answer:
        """Show an operation."""
        return Answer(200, _said(self._operation(call)))

    def do_pending(self, _call: Call) -> Answer:
        """List the operations that are under way."""
        return Answer(200, [_listed(order) for order in self._orders() if order.stage == "pending"])

    def do_cancel(self, call: Call) -> Answer:
        """Give an operation up."""
        order = self._operation(call)
        self.world.cancel_order(order)
        return Answer(200, _said(order))

    def _settings(self, domain: str) -> dict[str, Any]:
        if self.world.registration(domain).registrar != REGISTRAR:
            raise RefusalError(self.error(404, "this domain is not in your account"))
        return self.world.registrar_settings[domain]

    def do_info(self, call: Call) -> Answer:
        """Show a domain."""
        settings, entry = self._settings(call.domain), self.world.registration(call.domain)
        return Answer(
            200,
            {
                "domain": call.domain,
                "dateExpiration": entry.expires.date().isoformat(),
                "ns": list(entry.nameservers),
                "domainIsLock": int(settings["locked"]),
                "autoRenew": int(settings["auto_renew"]),
                "status": "ACTIVE",
            },
        )

    def do_set_preference(self, call: Call) -> Answer:
        """Set the lock or the renewal; values are texts, 0 or 1."""
        names = {"registrar_lock": "locked", "auto_renew": "auto_renew"}
        name, value = call.data["codePref"], call.data["value"]
        if name not in names or value not in ("0", "1"):
            return self.error(400, "unknown preference or value")
        self._settings(call.domain)[names[name]] = value == "1"
        if name == "registrar_lock":
            self.world.registration(call.domain).locked = value == "1"
        return Answer(200, {"STATUS": "Done", "ID": 0, "TYPE": "domainSetPreference", "DOMAIN": call.domain})

    def do_set_nameservers(self, call: Call) -> Answer:
        """Change the delegation of a domain that arrived."""
        self._settings(call.domain)
        self.world.delegate(call.domain, self._servers(call.data["nameservers"]))
        return Answer(200, {"STATUS": "Pending", "ID": 0, "TYPE": "domainChangeDNS", "DOMAIN": call.domain})


def _fees() -> dict[str, Any]:
    return {"FeeCurrency": "EUR", "Fee4Registration": PRICE, "Fee4Renewal": PRICE, "Fee4Transfer": PRICE}


def _listed(order: Order) -> dict[str, Any]:
    """Return an operation as the list of pending ones writes it."""
    said = {"id_ope": str(order.id), "code_ope": "domainTransferIn", "data_ope": order.domain}
    return {**said, "date_ope": order.placed.isoformat()}


def _said(order: Order) -> dict[str, Any]:
    return {
        "STATUS": STATUS[order.stage],
        "ID": order.id,
        "TYPE": "domainTransferIn",
        "DOMAIN": order.domain,
        "DATE_START": order.placed.isoformat(),
        "DATE_END": order.moved.isoformat() if order.moved else None,
        "MESSAGE": order.reason,
    }
