# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registries' own word on a domain, by RDAP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from infini.domains.caller import Caller, CallError, host_names, moment
from infini.domains.observed import RdapFacts
from infini.domains.ports import Clock
from infini.domains.zone import ascii_name
from infini.phrase import Phrase

IANA = "https://data.iana.org/rdap/dns.json"


def bootstrap_of(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the RDAP address of each top-level domain that IANA's file (RFC 9224) names, by HTTPS where it can be."""
    found = {}
    for tlds, urls in data["services"]:
        best = min(urls, key=lambda url: not url.startswith("https:"))
        found.update(dict.fromkeys((tld.lower() for tld in tlds), best.rstrip("/")))
    return found


class Rdap:
    """What the registries say (RFC 9083). Implements `ports.Registry`.

    `bootstrap` maps top-level domains to addresses (see `bootstrap_of`); without it IANA is asked, once. `base_url` is
    one server for all, and then nothing is looked up.
    """

    def __init__(
        self,
        clock: Clock,
        bootstrap: Mapping[str, str] | None = None,
        base_url: str | None = None,
        *,
        requests_per_second: float = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._bootstrap, self._base_url = bootstrap, base_url
        # Registries send on to each other (RFC 7480, 5.2); no token travels here.
        self._caller = Caller(
            "RDAP",
            base_url or "",
            clock,
            requests_per_second=requests_per_second,
            transport=transport,
            follow_redirects=True,
        )

    def domain(self, name: str) -> RdapFacts:
        """Read one domain; raise CallError when the registry does not know it (status 404) or has no RDAP."""
        name = ascii_name(name)
        try:
            answer = self._caller.read(f"{self._server(name)}/domain/{quote(name)}", accept="application/rdap+json")
        except CallError as error:
            if error.status == httpx.codes.NOT_FOUND:
                raise CallError(Phrase("The registry knows no domain {domain}", domain=name), status=404) from None
            raise
        if not isinstance(answer.data, Mapping):
            raise CallError(Phrase("The registry's answer about {domain} is no RDAP", domain=name), retry=True)
        return _facts(name, answer.data)

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def _server(self, name: str) -> str:
        if self._base_url:
            return self._base_url.rstrip("/")
        if self._bootstrap is None:
            self._bootstrap = bootstrap_of(self._caller.read(IANA).data)
        tld = name.rpartition(".")[2]
        if tld not in self._bootstrap:
            raise CallError(
                Phrase(
                    "No RDAP server is known for .{tld}: look {domain} up in the registry's own whois",
                    tld=tld,
                    domain=name,
                )
            )
        return self._bootstrap[tld].rstrip("/")


def _facts(name: str, data: Mapping[str, Any]) -> RdapFacts:
    events = {event.get("eventAction"): moment(event.get("eventDate")) for event in data.get("events") or ()}
    return RdapFacts(
        domain=name,
        registrar=_registrar(data),
        statuses=tuple(str(status).lower() for status in data.get("status") or ()),
        nameservers=host_names(server.get("ldhName", "") for server in data.get("nameservers") or ()),
        expires=events.get("expiration"),
        transferred=events.get("transfer"),
    )


def _registrar(data: Mapping[str, Any]) -> str:
    """Return the registrar's name, its handle where it has none."""
    for entity in data.get("entities") or ():
        if "registrar" not in (entity.get("roles") or ()):
            continue
        card = entity.get("vcardArray") or ["vcard", []]
        names = [field[3] for field in card[1] if field[0] == "fn" and field[3]]
        return str(names[0] if names else entity.get("handle", ""))
    return ""
