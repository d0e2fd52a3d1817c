# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's RDAP service (RFC 9083), and the list that says where it is (RFC 9224)."""

from __future__ import annotations

from datetime import datetime

from infini.domains.simulator.face import Answer, Call, Face

TYPE = "application/rdap+json"


class RdapFace(Face):
    """`/domain/{name}` for every domain of the world; `/dns.json` is the bootstrap file for its top-level domains."""

    name = "rdap"

    def error(self, status: int, says: str, name: str = "") -> Answer:
        """Return an error as RFC 9083 has them."""
        said = {"errorCode": status, "title": says, "description": [name] if name else []}
        return Answer(status, said, content_type=TYPE)

    def do_bootstrap(self, _call: Call) -> Answer:
        """List the top-level domains and this service."""
        tops = sorted({name.rsplit(".", 1)[-1] for name in self.world.registry})
        said = {"version": "1.0", "publication": _date(self.world.now()), "services": [[tops, [f"{self.url}/"]]]}
        return Answer(200, said)

    def do_domain(self, call: Call) -> Answer:
        """Describe a domain; names come in capitals or with a final dot as well."""
        entry = self.world.registration(call.domain.lower().rstrip("."))
        events = [("registration", entry.created), ("expiration", entry.expires)]
        if entry.transferred is not None:
            events.append(("transfer", entry.transferred))
        statuses = ["client transfer prohibited"] * entry.locked + ["pending transfer"] * (entry.pending is not None)
        said = {
            "rdapConformance": ["rdap_level_0"],
            "objectClassName": "domain",
            "ldhName": entry.name,
            "unicodeName": entry.name.encode().decode("idna"),
            "status": statuses or ["active"],
            "events": [{"eventAction": action, "eventDate": _date(at)} for action, at in events],
            "nameservers": [{"objectClassName": "nameserver", "ldhName": server} for server in entry.nameservers],
            "entities": [
                {
                    "objectClassName": "entity",
                    "handle": entry.registrar,
                    "roles": ["registrar"],
                    "vcardArray": ["vcard", [["version", {}, "text", "4.0"], ["fn", {}, "text", entry.registrar]]],
                }
            ],
            "secureDNS": {"delegationSigned": bool(entry.ds)},
        }
        return Answer(200, said, content_type=TYPE)


def _date(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
