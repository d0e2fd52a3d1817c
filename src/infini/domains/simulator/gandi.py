# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gandi's v5 API as far as a move needs it, with the habits that surprise its clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from infini.domains.simulator.face import Answer, Call, Face, RefusalError
from infini.domains.simulator.world import GANDI_NAMESERVERS, ConflictError, Holding, Token, is_gandi

TYPES = (
    *("A", "AAAA", "ALIAS", "CAA", "CDS", "CNAME", "DNAME", "DS", "HTTPS", "KEY", "LOC", "MX", "NAPTR", "NS"),
    *("OPENPGPKEY", "PTR", "RP", "SOA", "SPF", "SRV", "SSHFP", "SVCB", "TLSA", "TXT", "WKS"),
)
"""What LiveDNS takes."""
SHORTEST, LONGEST = 300, 2592000
"""Bounds of a TTL, seconds."""
LISTS = ("count-mismatch",)


class GandiFace(Face):
    """`/v5/domain`, `/v5/livedns`, `/v5/email`, `/v5/mailbox`, read from and written to the World."""

    name = "gandi"
    _recent: deque[datetime]

    # --- who may do what --------------------------------------------------------------------------------------

    def authenticate(self, call: Call) -> None:
        """Let in tokens that are known, not expired, of the domain's organisation, and not too many calls a minute."""
        self._throttle()
        if call.entry.does in ("expected_nameservers", "rrtypes"):
            return
        token = self._token(call)
        if call.entry.kind != "read" and not token.writes:
            raise RefusalError(self.error(403, "Access was denied to this resource."))
        holding = self.world.holdings.get(call.domain)
        if holding is not None and holding.organisation != token.organisation:
            raise RefusalError(self.error(403, "Access was denied to this resource."))

    def _throttle(self) -> None:
        now = self.world.now()
        recent = self.__dict__.setdefault("_recent", deque())
        while recent and recent[0] <= now - timedelta(minutes=1):
            recent.popleft()
        if len(recent) >= self.world.quirks.calls_a_minute:
            raise RefusalError(self.error(429, "Too Many Requests"))
        recent.append(now)

    def _token(self, call: Call) -> Token:
        scheme, _, word = call.request.headers.get("authorization", "").partition(" ")
        token = self.world.tokens.get(word) if scheme == "Bearer" else None
        if token is None:
            raise RefusalError(
                self.error(401, "The server could not verify that you authorized to access the document.")
            )
        if token.expires is not None and token.expires <= self.world.now():
            raise RefusalError(self.error(403, "The bearer token has expired or does not have enough permissions."))
        return token

    def error(self, status: int, says: str, name: str = "") -> Answer:
        """Return one of Gandi's two forms of errors: 400 names a field, the others do not."""
        if status == 400:
            wrong = {"location": "body", "name": name, "description": says}
            return Answer(400, {"status": "error", "errors": [wrong]})
        return Answer(status, {"code": status, "message": says, "object": "HTTPError", "cause": says})

    def _possible(self, call: Call) -> Sequence[str]:
        possible = super()._possible(call)
        if call.entry.kind != "read":
            return possible
        if call.entry.does == "records":
            return (*possible, *LISTS, "page-change", "zone-edited")
        return (*possible, *LISTS) if call.entry.does in PAGED else possible

    def _page(self, call: Call, rows: list[Any], header: str = "Total-Count") -> Answer:
        query = call.request.query
        try:
            page, size = int(query.get("page", 1)), int(query.get("per_page", 100))
        except ValueError:
            page = 0
        if page < 1 or size < 1:
            wrong = {"location": "querystring", "name": "page", "description": "is not a positive integer"}
            return Answer(400, {"status": "error", "errors": [wrong]})
        size = min(size, 500)
        told = len(rows) + (call.fault == "count-mismatch")
        headers = {header: str(told)}
        if page * size < len(rows):
            path = call.request.path
            last = -(-len(rows) // size)
            headers["Link"] = ", ".join(
                f'<{self.url}{path}?page={number}&per_page={size}>; rel="{rel}"'
                for rel, number in (("next", page + 1), ("last", last))
            )
        return Answer(200, rows[(page - 1) * size : page * size], headers)

    def _seen(self, call: Call) -> list[Holding]:
        """Return the domains that a list shows to this token."""
        organisation = self._token(call).organisation
        asked = call.request.query.get("sharing_id")
        if (asked is None and self.world.quirks.lists_need_organisation) or asked not in (None, organisation):
            return []
        return [one for _, one in sorted(self.world.holdings.items()) if one.organisation == organisation]

    def _paying(self, call: Call) -> bool:
        return call.request.headers.get("dry-run") == "1"

    # --- /v5/organization, /v5/domain -------------------------------------------------------------------------

    def do_organizations(self, call: Call) -> Answer:
        """List the token's organisation."""
        organisation = self._token(call).organisation
        return self._page(call, [{"id": organisation, "name": organisation, "type": "association"}])

    def do_list_domains(self, call: Call) -> Answer:
        """List domains; `autorenew` is a boolean here."""
        rows = [
            {
                **self._common(holding),
                "nameserver": {"current": "livedns" if any(map(is_gandi, holding.nameservers)) else "other"},
                "autorenew": holding.auto_renew,
                "owner": "member",
                "orga_owner": holding.organisation,
                "domain_owner": "member",
            }
            for holding in self._seen(call)
        ]
        return self._page(call, rows)

    def do_domain(self, call: Call) -> Answer:
        """Show a domain; `autorenew` is an object here, and `authinfo` may be absent."""
        holding = self.world.domain(call.domain)
        services = [
            name
            for name, has in (
                ("gandilivedns", holding.livedns),
                ("dnssec", holding.signed),
                ("mailboxv2", bool(holding.mailboxes or holding.forwards)),
            )
            if has
        ]
        said = {
            **self._common(holding),
            "can_tld_lock": True,
            "nameservers": holding.nameservers,
            "services": services,
            "autorenew": {
                "enabled": holding.auto_renew,
                "duration": 1,
                "dates": [],
                "org_id": holding.organisation,
                "href": self._href(f"/v5/domain/domains/{holding.name}/autorenew"),
            },
            "contacts": self._contacts(),
            "sharing_space": {"id": holding.organisation, "name": holding.organisation, "type": "organization"},
            "trustee_roles": [],
        }
        code = self.world.auth_code(holding.name)
        if code is not None and holding.code_expires is not None:
            said["authinfo"] = code
            said["dates"]["authinfo_expires_at"] = _date(holding.code_expires)
        return Answer(200, said)

    def _common(self, holding: Holding) -> dict[str, Any]:
        entry = self.world.registration(holding.name)
        statuses = ["clientTransferProhibited"] * holding.locked + ["pendingTransfer"] * (entry.pending is not None)
        return {
            "id": f"id-{holding.name}",
            "fqdn": holding.name,
            "fqdn_unicode": holding.name.encode().decode("idna"),
            "tld": holding.name.rsplit(".", 1)[-1],
            "status": [*statuses, *holding.statuses],
            "dates": {
                "created_at": _date(holding.created),
                "registry_created_at": _date(holding.created),
                "registry_ends_at": _date(holding.expires),
                "updated_at": _date(holding.created),
            },
            "tags": holding.tags,
            "sharing_id": holding.organisation,
            "href": self._href(f"/v5/domain/domains/{holding.name}"),
        }

    def _contacts(self) -> dict[str, Any]:
        return {role: {"type": "association", "country": "FR"} for role in ("owner", "admin", "bill", "tech")}

    def _href(self, path: str) -> str:
        return f"https://api.gandi.net{path}"

    def do_set_status(self, call: Call) -> Answer:
        """Lock or ask to unlock."""
        self.world.set_lock(call.domain, call.data["clientTransferProhibited"])
        return _accepted()

    def do_reset_code(self, call: Call) -> Answer:
        """Ask for a new auth code."""
        self.world.reset_auth_code(call.domain)
        return _accepted()

    def do_transferout(self, call: Call) -> Answer:
        """Let a pending transfer go at once, or refuse it."""
        self.world.domain(call.domain)
        if self._paying(call):
            return Answer(202, {"status": "success"})
        self.world.answer_transfer(call.domain, accept=call.data["accept"], code=call.data["authinfo"])
        return _accepted()

    def do_nameservers(self, call: Call) -> Answer:
        """List the name servers: a bare array."""
        return Answer(200, self.world.domain(call.domain).nameservers)

    def do_set_nameservers(self, call: Call) -> Answer:
        """Ask for a delegation."""
        servers = call.data["nameservers"]
        if len(servers) < 2 or not all(isinstance(server, str) and server for server in servers):
            return self.error(400, "at least 2 nameservers are needed", "nameservers")
        self.world.set_nameservers(call.domain, servers)
        return _accepted()

    def do_livedns_state(self, call: Call) -> Answer:
        """Say which name servers the domain uses."""
        servers = self.world.domain(call.domain).nameservers
        at_gandi = any(map(is_gandi, servers))
        said = {"current": "livedns" if at_gandi else "other", "nameservers": servers}
        return Answer(200, {**said, "dnssec_available": True, "livednssec_available": at_gandi})

    def do_enable_livedns(self, call: Call) -> Answer:
        """Ask for Gandi's name servers."""
        self.world.restore_nameservers(call.domain)
        return _accepted()

    def do_dnssec(self, call: Call) -> Answer:
        """Say whether Gandi signs the zone."""
        return Answer(200, {"state": "active" if self.world.domain(call.domain).signed else "inactive"})

    def do_unsign(self, call: Call) -> Answer:
        """Ask for the end of DNSSEC."""
        self.world.unsign(call.domain)
        return _accepted()

    def do_dnskeys(self, call: Call) -> Answer:
        """List the keys at the registry."""
        holding = self.world.domain(call.domain)
        path = f"/v5/domain/domains/{holding.name}/dnskeys"
        return Answer(200, [{**key, "href": self._href(f"{path}/{key['id']}")} for key in holding.dnskeys])

    def do_add_dnskey(self, call: Call) -> Answer:
        """Add a key at the registry."""
        holding = self.world.domain(call.domain)
        key = {name: call.data[name] for name in ("algorithm", "type", "public_key")}
        return self._keyed(call.domain, [*holding.dnskeys, key])

    def do_put_dnskeys(self, call: Call) -> Answer:
        """Replace the keys at the registry."""
        self.world.domain(call.domain)
        return self._keyed(call.domain, call.data["keys"])

    def _keyed(self, name: str, keys: Sequence[Mapping[str, Any]]) -> Answer:
        try:
            self.world.set_dnskeys(name, keys)
        except ValueError:
            return self.error(400, "is not a key", "keys")
        return _accepted()

    def do_drop_dnskey(self, call: Call) -> Answer:
        """Remove a key at the registry."""
        holding = self.world.domain(call.domain)
        kept = [key for key in holding.dnskeys if str(key["id"]) != call.values["id"]]
        if len(kept) == len(holding.dnskeys):
            return self.error(404, "Unknown key")
        return self._keyed(call.domain, kept)

    def do_hosts(self, call: Call) -> Answer:
        """List the glue."""
        holding = self.world.domain(call.domain)
        return self._page(call, [self._host(holding, host) for host in holding.hosts])

    def do_host(self, call: Call) -> Answer:
        """Show one glue host."""
        holding = self.world.domain(call.domain)
        found = [self._host(holding, host) for host in holding.hosts if host["name"] == call.values["id"]]
        return Answer(200, found[0]) if found else self.error(404, "Unknown host")

    def _host(self, holding: Holding, host: Mapping[str, Any]) -> dict[str, Any]:
        fqdn = f"{host['name']}.{holding.name}"
        href = self._href(f"/v5/domain/domains/{holding.name}/hosts/{host['name']}")
        return {"fqdn": fqdn, "fqdn_unicode": fqdn.encode().decode("idna"), "href": href, **host}

    def do_webredirs(self, call: Call) -> Answer:
        """List the redirections."""
        return self._page(call, self.world.domain(call.domain).redirections)

    def do_webredir(self, call: Call) -> Answer:
        """Show one redirection."""
        all_of_them = self.world.domain(call.domain).redirections
        found = [redirection for redirection in all_of_them if redirection["host"] == call.values["id"]]
        return Answer(200, found[0]) if found else self.error(404, "Unknown redirection")

    def do_contacts(self, call: Call) -> Answer:
        """Show the contacts."""
        self.world.domain(call.domain)
        return Answer(200, self._contacts())

    def do_set_autorenew(self, call: Call) -> Answer:
        """Switch the renewal on or off."""
        self.world.domain(call.domain).auto_renew = call.data["enabled"]
        return _accepted()

    def do_tags(self, call: Call) -> Answer:
        """List the tags."""
        return Answer(200, self.world.domain(call.domain).tags)

    def do_change_tags(self, call: Call) -> Answer:
        """Add and remove tags."""
        holding = self.world.domain(call.domain)
        kept = [tag for tag in holding.tags if tag not in call.data.get("remove", ())]
        holding.tags = list(dict.fromkeys([*kept, *call.data.get("add", ())]))
        return _accepted()

    def do_tld(self, call: Call) -> Answer:
        """Describe a top-level domain: two letters are a country."""
        tld = call.values["tld"]
        country = len(tld) == 2
        said = {"category": "ccTLD" if country else "gTLD", "lock": not country, "authinfo_for_transfer": True}
        return Answer(200, {**said, "change_owner": True, "ext_trade": False, "full_tld": tld, "corporate": False})

    # --- /v5/livedns ------------------------------------------------------------------------------------------

    def _zone(self, name: str) -> Holding:
        holding = self.world.domain(name)
        if not holding.livedns or holding.erased:
            raise RefusalError(self.error(404, f"Can't find the domain '{name}'"))
        return holding

    def _zone_hrefs(self, name: str) -> dict[str, str]:
        path = f"/v5/livedns/domains/{name}"
        return {"domain_href": self._href(path), "domain_records_href": self._href(f"{path}/records")}

    def _rrset_json(self, name: str, rrset: Mapping[str, Any]) -> dict[str, Any]:
        label = quote(rrset["rrset_name"], safe="")
        return {**rrset, "rrset_href": self._href(f"/v5/livedns/domains/{name}/records/{label}/{rrset['rrset_type']}")}

    def do_livedns_domains(self, call: Call) -> Answer:
        """List the zones on LiveDNS."""
        rows = [{"fqdn": one.name, **self._zone_hrefs(one.name)} for one in self._seen(call) if one.livedns]
        return self._page(call, rows)

    def do_livedns_domain(self, call: Call) -> Answer:
        """Show a zone's addresses."""
        name = self._zone(call.domain).name
        keys = self._href(f"/v5/livedns/domains/{name}/keys")
        hrefs = {**self._zone_hrefs(name), "domain_keys_href": keys}
        return Answer(200, {"fqdn": name, **hrefs, "automatic_snapshots": False})

    def do_records(self, call: Call) -> Answer:
        """List the rrsets, or give the zone as text; somebody may be editing it meanwhile."""
        holding = self._zone(call.domain)
        if "text/plain" in call.request.headers.get("accept", ""):
            found = Answer(200, text=zone_text(holding.records, self.world.now()), content_type="text/plain")
        else:
            kind = call.request.query.get("rrset_type")
            rows = [one for one in holding.records if kind in (None, one["rrset_type"])]
            found = self._page(call, [self._rrset_json(holding.name, one) for one in rows])
        if call.fault == "zone-edited":
            self.world.set_rrset(holding.name, "edited-by-somebody", "TXT", 10800, ['"hello"'])
        if call.fault == "page-change" and "Link" in found.headers:
            times = sum(one["rrset_name"].startswith("added-meanwhile") for one in holding.records)
            new = {
                "rrset_name": f"added-meanwhile{times or ''}",  # at Gandi, a zone never holds an rrset twice
                "rrset_type": "TXT",
                "rrset_ttl": 10800,
                "rrset_values": ['"hello"'],
            }
            self.world.set_records(holding.name, [new, *holding.records])
        return found

    def do_put_records(self, call: Call) -> Answer:
        """Replace the zone."""
        holding = self._zone(call.domain)
        for rrset in call.data["items"]:
            label, kind = rrset.get("rrset_name", ""), rrset.get("rrset_type", "")
            self._check(label, kind, rrset.get("rrset_ttl"), rrset.get("rrset_values"))
        fields = ("rrset_name", "rrset_type", "rrset_ttl", "rrset_values")
        rrsets = [
            {"rrset_ttl": 10800, **{name: one[name] for name in fields if name in one}} for one in call.data["items"]
        ]
        self.world.set_records(holding.name, rrsets)
        return Answer(201, {"message": "DNS Zone Record Created"})

    def _found(self, call: Call) -> list[dict[str, Any]]:
        """Return the rrsets of a path; names are compared with their case, as Gandi does."""
        label, kind = call.values["label"], call.values.get("type")
        rows = self._zone(call.domain).records
        return [one for one in rows if one["rrset_name"] == label and kind in (None, one["rrset_type"])]

    def _one(self, call: Call) -> dict[str, Any]:
        found = self._found(call)
        if not found:
            raise RefusalError(self.error(404, "Can't find the DNS record"))
        return found[0]

    def do_records_of(self, call: Call) -> Answer:
        """List the rrsets of a name."""
        return Answer(200, [self._rrset_json(call.domain, one) for one in self._found(call)])

    def do_rrset(self, call: Call) -> Answer:
        """Show one rrset."""
        return Answer(200, self._rrset_json(call.domain, self._one(call)))

    def do_add_rrset(self, call: Call) -> Answer:
        """Add an rrset that is not there."""
        if self._found(call):
            raise ConflictError("A DNS Record already exists with same value")
        return self.do_put_rrset(call)

    def do_put_rrset(self, call: Call) -> Answer:
        """Put an rrset, in place of what is there."""
        self._zone(call.domain)
        label, kind = call.values["label"], call.values["type"]
        ttl, values = call.data.get("rrset_ttl", 10800), call.data["rrset_values"]
        self._check(label, kind, ttl, values)
        self.world.set_rrset(call.domain, label, kind, ttl, values)
        return Answer(201, {"message": "DNS Record Created"})

    def do_patch_rrset(self, call: Call) -> Answer:
        """Change an rrset in place."""
        old = self._one(call)
        gone = call.data.get("remove_rrset_values", ())
        values = [value for value in old["rrset_values"] if value not in gone]
        values += call.data.get("add_rrset_values", ())
        ttl = call.data.get("rrset_ttl", old["rrset_ttl"])
        self._check(old["rrset_name"], old["rrset_type"], ttl, values)
        self.world.set_rrset(call.domain, old["rrset_name"], old["rrset_type"], ttl, values)
        return _accepted()

    def do_drop_rrset(self, call: Call) -> Answer:
        """Remove an rrset."""
        old = self._one(call)
        self.world.drop_rrset(call.domain, old["rrset_name"], old["rrset_type"])
        return Answer(204)

    def do_drop_name(self, call: Call) -> Answer:
        """Remove all rrsets of a name."""
        self.world.drop_rrset(call.domain, self._one(call)["rrset_name"])
        return Answer(204)

    def _check(self, label: str, kind: str, ttl: int | None, values: Any) -> None:
        wrong = None
        if kind not in TYPES:
            wrong = ("rrset_type", f"{kind} is not one of {', '.join(TYPES)}")
        elif ttl is not None and ttl < SHORTEST:
            wrong = ("rrset_ttl", f"{ttl} is less than minimum value {SHORTEST}")
        elif ttl is not None and ttl > LONGEST:
            wrong = ("rrset_ttl", f"{ttl} is greater than maximum value {LONGEST}")
        elif kind == "ALIAS" and label != "@":
            wrong = ("items", "only '@' is allowed for ALIAS records")
        elif not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            wrong = ("rrset_values", "is not a list of values")
        if wrong:
            raise RefusalError(self.error(400, wrong[1], wrong[0]))

    def do_snapshots(self, call: Call) -> Answer:
        """List the snapshots."""
        holding = self._zone(call.domain)
        return self._page(call, [self._snapshot(holding, key) for key in holding.snapshots])

    def do_make_snapshot(self, call: Call) -> Answer:
        """Keep the zone as it is."""
        name = self._zone(call.domain).name
        label = (call.data or {}).get("name", "")
        return Answer(201, {"id": self.world.take_snapshot(name, label), "message": "Snapshot Created"})

    def do_snapshot(self, call: Call) -> Answer:
        """Show a snapshot with its records."""
        holding = self._zone(call.domain)
        if call.values["id"] not in holding.snapshots:
            return self.error(404, "Unknown snapshot")
        records = holding.snapshots[call.values["id"]]["records"]
        rows = [self._rrset_json(holding.name, one) for one in records]
        return Answer(200, {**self._snapshot(holding, call.values["id"]), "zone_data": rows})

    def _snapshot(self, holding: Holding, key: str) -> dict[str, Any]:
        kept = holding.snapshots[key]
        href = self._href(f"/v5/livedns/domains/{holding.name}/snapshots/{key}")
        said = {"id": key, "name": kept["name"], "created_at": _date(kept["at"])}
        return {**said, "automatic": False, "snapshot_href": href}

    def do_keys(self, call: Call) -> Answer:
        """List the keys that LiveDNS signs with."""
        holding = self._zone(call.domain)
        rows = [
            {
                "id": f"key-{number}",
                "status": "active",
                "algorithm": 13,
                "algorithm_name": "ECDSAP256SHA256",
                "flags": 257,
                "ds": f"{holding.name}. 3600 IN DS {ds}",
                "tag": int(ds.split()[0]),
                "fingerprint": ds.split()[3],
                "public_key": "",
                "deleted": False,
                "fqdn": holding.name,
                "key_href": self._href(f"/v5/livedns/domains/{holding.name}/keys/key-{number}"),
            }
            for number, ds in enumerate(sorted(holding.own_ds) if holding.signed else [])
        ]
        return Answer(200, rows)

    def do_livedns_nameservers(self, call: Call) -> Answer:
        """List the name servers that a zone should be delegated to."""
        self._zone(call.domain)
        return Answer(200, list(GANDI_NAMESERVERS))

    def do_expected_nameservers(self, _call: Call) -> Answer:
        """List the name servers of any name; needs no token."""
        return Answer(200, list(GANDI_NAMESERVERS))

    def do_rrtypes(self, _call: Call) -> Answer:
        """List the types."""
        return Answer(200, TYPES)

    # --- mail and certificates --------------------------------------------------------------------------------

    def do_mailboxes(self, call: Call) -> Answer:
        """List the mailboxes."""
        holding = self.world.domain(call.domain)
        rows = [_without(self._mailbox(holding, n), "aliases", "responder") for n in range(len(holding.mailboxes))]
        return self._page(call, rows)

    def do_mailbox(self, call: Call) -> Answer:
        """Show a mailbox with its aliases; no call shows its password."""
        holding = self.world.domain(call.domain)
        boxes = [self._mailbox(holding, number) for number in range(len(holding.mailboxes))]
        found = [box for box in boxes if box["id"] == call.values["id"]]
        return Answer(200, found[0]) if found else self.error(404, "Unknown mailbox")

    def _mailbox(self, holding: Holding, number: int) -> dict[str, Any]:
        box = holding.mailboxes[number]
        login = box.get("login") or box["address"].partition("@")[0]
        key = f"box-{holding.name}-{number}"
        return {
            "id": key,
            "address": f"{login}@{holding.name}",
            "login": login,
            "domain": holding.name,
            "mailbox_type": "standard",
            "quota_used": 0,
            "alias_count": len(box.get("aliases", ())),
            "antispam": True,
            "expires_at": _date(holding.expires),
            "to_convert": False,
            "aliases": [],
            "responder": {"enabled": False},
            "href": self._href(f"/v5/email/mailboxes/{holding.name}/{key}"),
            **box,
        }

    def do_forwards(self, call: Call) -> Answer:
        """List the forwards; `source` is the part before the @."""
        holding = self.world.domain(call.domain)
        path = f"/v5/email/forwards/{holding.name}"
        rows = [{**one, "href": self._href(f"{path}/{quote(one['source'])}")} for one in holding.forwards]
        return self._page(call, rows)

    def do_mail_offer(self, call: Call) -> Answer:
        """Show the mail offer."""
        holding = self.world.domain(call.domain)
        used = bool(holding.mailboxes or holding.forwards)
        return Answer(200, {"status": "active" if used else "inactive", "version": 2, "antispam": True, "dkim": used})

    def _one_domain(self, call: Call) -> list[Holding]:
        wanted = call.request.query.get("domain_part")
        return [one for one in self._seen(call) if wanted in (None, one.name)]

    def do_new_mailboxes(self, call: Call) -> Answer:
        """List the mailboxes of the new product: its count stands in another header."""
        rows = [
            _without(self._mailbox(one, number), "aliases", "responder")
            for one in self._one_domain(call)
            for number in range(len(one.mailboxes))
        ]
        return self._page(call, rows, "X-Total-Count")

    def do_new_forwards(self, call: Call) -> Answer:
        """List the forwards of the new product: `source` is the whole address."""
        rows = [
            {**forward, "source": f"{forward['source']}@{one.name}"}
            for one in self._one_domain(call)
            for forward in one.forwards
        ]
        return self._page(call, rows, "X-Total-Count")

    def do_certificates(self, call: Call) -> Answer:
        """List the certificates that Gandi sold."""
        return self._page(call, [certificate for one in self._seen(call) for certificate in one.certificates])


PAGED = (
    "list_domains",
    "records",
    "hosts",
    "webredirs",
    "snapshots",
    "livedns_domains",
    "mailboxes",
    "forwards",
    "new_mailboxes",
    "new_forwards",
)
"""The lists that carry a count."""


def zone_text(records: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """Return a zone as Gandi exports it: SOA first, no apex NS, no $ORIGIN, no $TTL, one record a line."""
    serial = int(now.timestamp())
    lines = [f"@ 86400 IN SOA ns1.gandi.net. hostmaster.gandi.net. {serial} 10800 3600 604800 10800"]
    lines += [
        f"{one['rrset_name']} {one['rrset_ttl']} IN {one['rrset_type']} {value}"
        for one in records
        for value in one["rrset_values"]
    ]
    return "\n".join(lines) + "\n"


def _accepted() -> Answer:
    return Answer(202, {"message": "Confirmed, the operation is in progress."})


def _date(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}
