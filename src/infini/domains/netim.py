# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netim (REST 3.0) as the registrar that a domain goes to. It has no dry run: a quote knows the price, not the code."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import quote

import httpx

from infini.domains.caller import Answer, Caller, CallError, host_names
from infini.domains.observed import Quote, TransferOrder
from infini.domains.ports import ByHandError, Clock
from infini.domains.secrets import Secret, redact, reveal
from infini.domains.zone import ascii_name
from infini.phrase import Phrase

Stage = Literal["pending", "refused", "done", "unknown"]
TRANSFER = "domainTransferIn"
KEEP_HOLDER = "#AUTO#"
"""Netim's word for the holder that the registry knows."""
_STAGES: Mapping[str, Stage] = {
    "pending": "pending",
    "done": "done",
    "failed": "refused",
    "cancelled": "refused",
}


class Netim:
    """Transfers to Netim. Implements `ports.Gaining`. Every method raises CallError.

    `contact` is the handle at Netim for administration, technique and billing; `owner` the holder's, by default the one
    that the registry knows. An order's id is `domain/operation/number`, or `domain/domain` once the domain is here.
    """

    name = "Netim"

    def __init__(
        self,
        login: str,
        secret: str,
        clock: Clock,
        base_url: str = "https://rest.netim.com/3.0",
        *,
        contact: str = KEEP_HOLDER,
        owner: str = KEEP_HOLDER,
        requests_per_second: float = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._login, self._secret, self._contact, self._owner = login, secret, contact, owner
        self._session: Secret | None = None
        self._orders: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._caller = Caller(
            "Netim",
            base_url,
            clock,
            requests_per_second=requests_per_second,
            proof=self._proof,
            forbidden=Phrase("look at the login, the secret and the addresses that Netim's administration allows"),
            transport=transport,
        )

    def _proof(self, _method: str, _url: str, _body: str) -> Mapping[str, str]:
        if self._session is not None:
            return {"Authorization": f"Bearer {self._session.reveal()}"}
        pair = base64.b64encode(f"{reveal(self._login)}:{reveal(self._secret)}".encode()).decode()
        return {"Authorization": f"Basic {reveal(pair)}"}

    @contextmanager
    def _opened(self) -> Iterator[Caller]:
        """Hold a session for what one method asks: Netim counts the open ones."""
        if self._session is not None:
            yield self._caller
            return
        opened = self._caller.change("POST", "/session/").data
        if not isinstance(opened, Mapping) or not opened.get("access_token"):
            raise CallError(Phrase("Netim opened a session without a token"), retry=True)
        self._session = Secret(str(opened["access_token"]))
        try:
            yield self._caller
        finally:
            self._close_session()

    def _close_session(self) -> None:
        try:
            self._caller.change("DELETE", "/session/")
        except CallError:
            # It ends by itself; what was asked for has been answered, and that is what the caller must hear.
            pass
        finally:
            self._session = None

    def quote(self, domain: str, auth_code: str, nameservers: Sequence[str]) -> Quote:  # noqa: ARG002  Netim checks neither
        """Return the price of the transfer; problems where Netim says that there is nothing to transfer."""
        domain = ascii_name(domain)
        with self._opened() as caller:
            checked = _maybe(caller, f"/domain/{quote(domain)}/check/")
            price = _maybe(caller, f"/domain/{quote(domain)}/price/")
        found = checked.data if checked else None
        entry = found[0] if isinstance(found, list) and found else found
        problems = []
        if isinstance(entry, Mapping) and str(entry.get("result", "")).upper() == "AVAILABLE":
            problems.append(Phrase("Netim says that {domain} is registered nowhere", domain=domain))
        if price and isinstance(price.data, Mapping) and str(price.data.get("IsPremium", 0)) not in ("0", "False"):
            problems.append(
                Phrase("Netim asks a premium price for {domain}: order it by hand if that is wanted", domain=domain)
            )
        return Quote(domain, _price(price.data if price else None), tuple(problems))

    def order(self, domain: str, auth_code: str, nameservers: Sequence[str]) -> TransferOrder:
        """Place the order; one that is under way or done is returned instead."""
        domain = ascii_name(domain)
        with self._opened():
            found = self.find_order(domain)
            if found is not None and found.stage in ("pending", "done"):
                return found
            return self._place(domain, auth_code, host_names(nameservers))

    def _place(self, domain: str, auth_code: str, nameservers: tuple[str, ...]) -> TransferOrder:
        body = {
            "authID": reveal(auth_code),
            "idOwner": self._owner,
            "idAdmin": self._contact,
            "idTech": self._contact,
            "idBilling": self._contact,
            "nameservers": {str(number): {"name": host} for number, host in enumerate(nameservers, 1)},
        }
        placed = self._caller.change("POST", f"/domain/{quote(domain)}/transfer/", body).data
        if not isinstance(placed, Mapping) or not placed.get("STATUS"):
            raise CallError(
                Phrase("Netim took the order for {domain} without saying what became of it", domain=domain), landed=None
            )
        order = _of_operation(domain, placed)
        number = order.id.rpartition("/")[2]
        self._orders[domain] = (number, nameservers)
        return order

    def find_order(self, domain: str) -> TransferOrder | None:
        """Return the newest transfer: under way, or ordered by this object, or done because the domain is at Netim."""
        domain = ascii_name(domain)
        with self._opened() as caller:
            for operation in caller.read("/operations/pending/").data or []:
                if operation.get("code_ope") == TRANSFER and str(operation.get("data_ope", "")).lower() == domain:
                    return TransferOrder(f"{domain}/operation/{operation['id_ope']}", "pending")
            if domain in self._orders:
                number = self._orders[domain][0]
                known = _maybe(caller, f"/operation/{quote(number)}")
                if known is not None and isinstance(known.data, Mapping):
                    return replace(_of_operation(domain, known.data), id=f"{domain}/operation/{number}")
            here = _maybe(caller, f"/domain/{quote(domain)}/info/")
        return TransferOrder(f"{domain}/domain", "done") if here is not None else None

    def correct_auth_code(self, order: TransferOrder, auth_code: str) -> None:
        """Order again with another code: Netim takes none for a transfer that was refused.

        Raises ByHandError where the refused order is not of this object, for then its name servers are not known.
        """
        domain = order.id.partition("/")[0]
        if domain not in self._orders:
            raise ByHandError(
                "volunteer",
                Phrase(
                    "Netim has refused the transfer code of {domain}. Order again at Netim, with the new code and the "
                    "same name servers.",
                    domain=domain,
                ),
            )
        with self._opened():
            found = self.find_order(domain)
            if found is None or found.stage == "refused":
                self._place(domain, auth_code, self._orders[domain][1])

    def secure(self, domain: str) -> None:
        """Set the transfer lock and the automatic renewal."""
        path = f"/domain/{quote(ascii_name(domain))}/preference/"
        with self._opened() as caller:
            for preference in ("registrar_lock", "auto_renew"):
                done = caller.change("PATCH", path, {"codePref": preference, "value": "1"}).data
                if isinstance(done, Mapping) and str(done.get("STATUS", "")).lower() == "failed":
                    raise CallError(
                        Phrase(
                            "Netim did not set {preference} of {domain}: {answer}",
                            preference=preference,
                            domain=domain,
                            answer=done.get("MESSAGE", ""),
                        )
                    )

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()


def _maybe(caller: Caller, path: str) -> Answer | None:
    """Read something that may not be there."""
    try:
        return caller.read(path)
    except CallError as error:
        if error.status == httpx.codes.NOT_FOUND:
            return None
        raise


def _price(data: Any) -> float | None:
    """Return the price of a transfer, in euros; None where Netim says none in euros."""
    if not isinstance(data, Mapping) or str(data.get("FeeCurrency", "EUR")).upper() != "EUR":
        return None
    value = data.get("Fee4Transfer")
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _of_operation(domain: str, data: Mapping[str, Any]) -> TransferOrder:
    stage: Stage = _STAGES.get(str(data.get("STATUS", "")).lower(), "unknown")
    reason = redact(str(data.get("MESSAGE") or ""))
    if stage == "refused" and re.search(r"(?i)auth", reason):
        reason = f"auth-code-wrong: {reason}"
    return TransferOrder(f"{domain}/operation/{data.get('ID', '')}", stage, reason)
