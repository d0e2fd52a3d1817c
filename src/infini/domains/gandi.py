# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gandi's API v5 as the registrar that a domain leaves. Deletes no record, buys nothing, touches no mailbox."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx

from infini.domains.caller import Caller, CallError, host_names, moment
from infini.domains.observed import DomainFacts, Export
from infini.domains.ports import Clock, WorldError
from infini.domains.secrets import Secret, reveal
from infini.domains.zone import Rrset, ascii_name
from infini.phrase import Phrase

LOCK = "clientTransferProhibited"
PER_PAGE = 100
MOST_PAGES = 1000
READINGS = 3
"""How often a list that changes under our eyes is read before we give up."""
_VOLATILE: Final = ("cert_status", "cert_uuid", "created_at", "href", "rrset_href", "rrset_ttl", "updated_at")


class Gandi:
    """Domains at Gandi, seen with one token. Implements `ports.Losing`.

    `token` is asked for each call and never kept; `sharing_id` names the organisation. Names go in and come out in
    ASCII form. Every method raises CallError: `code` is token-expired or wrong-organisation where that is the reason.
    """

    def __init__(
        self,
        token: Callable[[], str],
        clock: Clock,
        base_url: str = "https://api.gandi.net",
        sharing_id: str | None = None,
        requests_per_second: float = 5,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._token, self._clock = token, clock
        self._sharing = {"sharing_id": sharing_id} if sharing_id else {}
        self._caller = Caller(
            "Gandi",
            base_url,
            clock,
            requests_per_second=requests_per_second,
            proof=self._bearer,
            forbidden=Phrase(
                "make a new token in Gandi's administration, of the right organisation and with the rights "
                "“See and renew domain names” and “Manage domain name technical configurations”"
            ),
            transport=transport,
        )

    def _bearer(self, _method: str, _url: str, _body: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {reveal(self._token())}"}

    # Reading

    def domains(self) -> list[DomainFacts]:
        """List every domain that the token reaches, sorted by name."""
        found = self._list("/v5/domain/domains", key=lambda item: str(item["fqdn"]))
        return sorted((_facts(item) for item in found), key=lambda facts: facts.name)

    def domain(self, name: str) -> DomainFacts:
        """Read one domain."""
        return _facts(self._domain(name))

    def _domain(self, name: str) -> Mapping[str, Any]:
        try:
            found = self._caller.read(_domain_path(name), self._sharing).data
        except CallError as error:
            if error.status == httpx.codes.FORBIDDEN and not error.code:
                raise CallError(error.says, status=error.status, code="wrong-organisation") from None
            if error.status == httpx.codes.NOT_FOUND:
                raise CallError(
                    Phrase(
                        "Gandi knows no domain {domain} with this token: it is misspelt, it belongs to another "
                        "organisation (sharing_id), or it has left",
                        domain=name,
                    ),
                    status=404,
                    code="wrong-organisation",
                ) from None
            raise
        if not isinstance(found, Mapping):
            raise CallError(Phrase("Gandi's answer about {domain} is no domain", domain=name), retry=True)
        return found

    def export(self, name: str) -> Export:
        """Read all that lives at Gandi for a domain, each list compared with its announced count.

        `sha256` covers records, redirections and glue but no TTLs: lowering TTLs is our own doing and no drift. A
        domain whose DNS is elsewhere gives no records.
        """
        name = ascii_name(name)
        records, text = self._zone(name)
        path = _domain_path(name)
        redirections = self._list(f"{path}/webredirs", key=lambda item: str(item["host"]))
        glue = self._list(f"{path}/hosts", key=lambda item: str(item["name"]))
        dnskeys = self._list(f"{path}/dnskeys", key=_identity)
        return Export(
            domain=name,
            at=self._clock.now(),
            records=tuple(records),
            text=text,
            sha256=checksum(records, redirections, glue),
            redirections=tuple(redirections),
            glue=tuple(glue),
            dnskeys=tuple(dnskeys),
            mailboxes=self._mailboxes(name),
            forwards=self._forwards(name),
        )

    def _zone(self, name: str) -> tuple[list[Mapping[str, Any]], str]:
        """Return the zone's rrsets and its text; nothing when its DNS is elsewhere."""
        path = f"{_zone_path(name)}/records"
        try:
            records = self._list(path, key=_rrset_key)
        except CallError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            # Not hosted, or not ours to see: only a domain that says so itself has its DNS elsewhere.
            if is_livedns(self.domain(name)):
                raise CallError(
                    Phrase(
                        "Gandi shows no zone for {domain} although it hosts it: does the token reach its LiveDNS?",
                        domain=name,
                    ),
                    status=404,
                    code="wrong-organisation",
                ) from None
            return [], ""
        return records, self._caller.read(path, self._sharing, accept="text/plain").text

    def _mailboxes(self, name: str) -> tuple[str, ...]:
        """Return the addresses of the boxes of both mail products; a domain without a product has none."""
        older = self._list_or_nothing(f"/v5/email/mailboxes/{quote(name)}", key=lambda item: str(item["address"]))
        newer = self._list_or_nothing(
            "/v5/mailbox/mailboxes", {"domain_part": name}, key=lambda item: str(item["address"])
        )
        return tuple(sorted({str(item["address"]).lower() for item in (*older, *newer)}))

    def _forwards(self, name: str) -> tuple[Mapping[str, Any], ...]:
        """Return the forwards of both mail products; the newer one names them by full address."""
        found: dict[str, Mapping[str, Any]] = {}
        older = self._list_or_nothing(f"/v5/email/forwards/{quote(name)}", key=lambda item: str(item["source"]))
        newer = self._list_or_nothing(
            "/v5/mailbox/forwards", {"domain_part": name}, key=lambda item: str(item["source"])
        )
        for item in (*older, *newer):
            source = str(item["source"]).lower()
            found.setdefault(source if "@" in source else f"{source}@{name}", item)
        return tuple(found[source] for source in sorted(found))

    # Lists

    def _list_or_nothing(
        self, path: str, params: Mapping[str, str] | None = None, *, key: Callable[[Mapping[str, Any]], str]
    ) -> list[Mapping[str, Any]]:
        """Return a list, an empty one where the domain does not have the product. A refusal is never “nothing”."""
        try:
            return self._list(path, params, key=key)
        except CallError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return []
            raise

    def _list(
        self, path: str, params: Mapping[str, str] | None = None, *, key: Callable[[Mapping[str, Any]], str]
    ) -> list[Mapping[str, Any]]:
        """Return a whole list, once what was collected is what the server says there is."""
        problem = ""
        for _reading in range(READINGS):
            items, problem = self._collect(path, {**self._sharing, **(params or {})}, key)
            if not problem:
                return items
        raise CallError(
            Phrase("Gandi's list {path} does not add up: {problem}; read it again later", path=path, problem=problem),
            retry=True,
        )

    def _collect(
        self, path: str, params: Mapping[str, str], key: Callable[[Mapping[str, Any]], str]
    ) -> tuple[list[Mapping[str, Any]], str]:
        """Read all pages; return the items and what is wrong with them."""
        items: list[Mapping[str, Any]] = []
        announced: set[int] = set()
        for page in range(1, MOST_PAGES + 1):
            answer = self._caller.read(path, {**params, "page": str(page), "per_page": str(PER_PAGE)})
            if not isinstance(answer.data, list):
                return [], "a page is no list"
            items += answer.data
            count = _announced(answer.headers)
            if count is not None:
                announced.add(count)
            whole = len(items) >= max(announced) if announced else len(answer.data) < PER_PAGE
            if whole or not answer.data:
                break
        return items, _what_is_wrong(items, announced, key)

    # Changing

    def snapshot(self, name: str, label: str) -> str:
        """Have the zone kept at Gandi; return the snapshot's id. A label that is there already is not kept twice."""
        path = f"{_zone_path(name)}/snapshots"
        for kept in self._list(path, key=_identity):
            if kept.get("name") == label:
                return str(kept["id"])
        made = self._caller.change("POST", path, {"name": label}, self._sharing).data
        if not isinstance(made, Mapping) or "id" not in made:
            nameless = Phrase("Gandi made a snapshot of {domain} without saying its id", domain=name)
            raise CallError(nameless, retry=True, landed=None)
        return str(made["id"])

    def set_ttls(self, name: str, rrsets: Sequence[Rrset], ttl: int) -> None:
        """Set the TTL of these rrsets in place (PATCH), values untouched; those that have it already are left alone."""
        path = f"{_zone_path(name)}/records"
        # LiveDNS tells capitals apart in addresses, our zones do not: the names are taken as Gandi writes them.
        there = {_rrset_key(item): item for item in self._list(path, key=_rrset_key)}
        missing = [rrset for rrset in rrsets if f"{rrset.name} {rrset.type}" not in there]
        if missing:
            raise CallError(
                Phrase(
                    "{record} is no longer in Gandi's zone {domain}: somebody edited it, export it again",
                    record=f"{missing[0].name} {missing[0].type}",
                    domain=name,
                ),
                code="zone-drifted",
            )
        for rrset in rrsets:
            item = there[f"{rrset.name} {rrset.type}"]
            if item.get("rrset_ttl") != ttl:
                where = f"{path}/{quote(item['rrset_name'], safe='')}/{rrset.type}"
                self._caller.change("PATCH", where, {"rrset_ttl": ttl}, self._sharing)

    def set_nameservers(self, name: str, nameservers: Sequence[str]) -> None:
        """Ask for a delegation to these name servers, unless Gandi has them already."""
        path = f"{_domain_path(name)}/nameservers"
        wanted = host_names(nameservers)
        if set(host_names(self._caller.read(path, self._sharing).data)) != set(wanted):
            self._caller.change("PUT", path, {"nameservers": list(wanted)}, self._sharing)

    def restore_nameservers(self, name: str) -> None:
        """Put Gandi's own name servers back, unless they are there."""
        path = f"{_domain_path(name)}/livedns"
        now = self._caller.read(path, self._sharing).data
        if not isinstance(now, Mapping) or now.get("current") != "livedns":
            self._caller.change("POST", path, params=self._sharing)

    def remove_dnskeys(self, name: str) -> None:
        """Have every DS removed at the registry; the zone stays signed."""
        path = f"{_domain_path(name)}/dnskeys"
        for found in self._list(path, key=_identity):
            try:
                self._caller.change("DELETE", f"{path}/{quote(str(found['id']), safe='')}", params=self._sharing)
            except CallError as error:
                if error.status != httpx.codes.NOT_FOUND:
                    raise

    def restore_dnskeys(self, name: str, dnskeys: Sequence[dict[str, object]]) -> None:
        """Put these keys back at the registry, as an export holds them; those that are there are left alone."""
        path = f"{_domain_path(name)}/dnskeys"
        there = {_public_key(found) for found in self._list(path, key=_identity)}
        for lost in dnskeys:
            if not lost.get("public_key"):
                raise CallError(
                    Phrase(
                        "The export of {domain} holds no public key for tag {tag}: put it back in Gandi's interface, "
                        "where the signed zone still shows it",
                        domain=name,
                        tag=lost.get("keytag"),
                    )
                )
            if _public_key(lost) not in there:
                body = {field: lost[field] for field in ("algorithm", "type", "public_key")}
                self._caller.change("POST", path, body, self._sharing)

    def set_lock(self, name: str, locked: bool) -> None:
        """Set or lift the transfer lock, unless it is so already; Gandi may take days to lift it."""
        if self.domain(name).registrar_lock != locked:
            self._caller.change("PATCH", f"{_domain_path(name)}/status", {LOCK: locked}, self._sharing)

    def auth_code(self, name: str) -> str | None:
        """Return the code (a Secret) if Gandi shows it: it does not while the domain is locked."""
        code = self._domain(name).get("authinfo")
        return Secret(str(code)) if code else None

    def reset_auth_code(self, name: str) -> None:
        """Have a new code made; the old one is worth nothing then."""
        self._caller.change("PUT", f"{_domain_path(name)}/authinfo", params=self._sharing)

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()


def is_gandi(nameserver: str) -> bool:
    """Return whether a name server is one of Gandi's."""
    host = nameserver.rstrip(".").lower()
    return host.endswith(".dns.gandi.net") or (host.startswith("ns-") and host.endswith(".gandi.net"))


def is_livedns(facts: DomainFacts) -> bool:
    """Return whether Gandi hosts a domain's DNS."""
    return "gandilivedns" in facts.services or any(is_gandi(server) for server in facts.nameservers)


def checksum(*parts: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 (hexadecimal) of what members can edit, whatever its order; TTLs and bookkeeping left out."""
    canonical = [sorted(_canonical(item) for item in part) for part in parts]
    return hashlib.sha256(json.dumps(canonical).encode()).hexdigest()


def _canonical(item: Mapping[str, Any]) -> str:
    kept = {
        field: sorted(map(str, value)) if isinstance(value, list | tuple) else value
        for field, value in item.items()
        if field not in _VOLATILE
    }
    return json.dumps(kept, sort_keys=True, default=str)


def _domain_path(name: str) -> str:
    return f"/v5/domain/domains/{quote(ascii_name(name), safe='')}"


def _zone_path(name: str) -> str:
    return f"/v5/livedns/domains/{quote(ascii_name(name), safe='')}"


def _rrset_key(item: Mapping[str, Any]) -> str:
    return f"{str(item['rrset_name']).lower()} {item['rrset_type']}"


def _identity(item: Mapping[str, Any]) -> str:
    return str(item["id"])


def _public_key(item: Mapping[str, Any]) -> tuple[str, str]:
    """Return what makes a key the same key; keys are wrapped in as many ways as there are tools."""
    return str(item.get("algorithm")), "".join(str(item.get("public_key", "")).split())


def _announced(headers: Mapping[str, str]) -> int | None:
    """Return how many items a list has according to its headers; None when they do not say."""
    for header in ("filtered-count", "total-count", "x-total-count"):
        if headers.get(header, "").isdigit():
            return int(headers[header])
    return None


def _what_is_wrong(
    items: Sequence[Mapping[str, Any]], announced: set[int], key: Callable[[Mapping[str, Any]], str]
) -> str:
    """Return why collected pages are no whole list; empty when they are."""
    try:
        distinct = len({key(item) for item in items})
    except (KeyError, TypeError):
        return "an item lacks its name"
    if len(announced) > 1:
        return "its length changed while it was read"
    if announced and len(items) not in announced:
        return f"{len(items)} of {announced.pop()} items came"
    if distinct != len(items):
        return "an item came twice"
    return ""


def _facts(item: Mapping[str, Any]) -> DomainFacts:
    """Make facts of a domain; a list's items say less than a domain's own page and say it in other shapes."""
    name = str(item["fqdn"]).lower()
    dates = item.get("dates") or {}
    expires = moment(dates.get("registry_ends_at"))
    created = moment(dates.get("registry_created_at")) or moment(dates.get("created_at"))
    if expires is None or created is None:
        raise WorldError(
            Phrase(
                "Gandi does not say when {domain} was created and when it ends: look at it in Gandi's interface",
                domain=name,
            )
        )
    statuses = tuple(str(status) for status in item.get("status") or ())
    renewal = item.get("autorenew")
    hosted = item.get("nameserver") or {}
    services = item.get("services") or (["gandilivedns"] if hosted.get("current") == "livedns" else [])
    return DomainFacts(
        name=name,
        name_unicode=str(item.get("fqdn_unicode") or name),
        expires=expires,
        created=created,
        statuses=statuses,
        nameservers=host_names(item.get("nameservers") or hosted.get("hosts")),
        services=tuple(str(service) for service in services),
        registrar_lock=LOCK in statuses,
        auto_renew=bool(renewal.get("enabled") if isinstance(renewal, Mapping) else renewal),
        auth_code_available=bool(item.get("authinfo")),
        auth_code_expires=moment(dates.get("authinfo_expires_at")),
        tags=tuple(str(tag) for tag in item.get("tags") or ()),
    )
