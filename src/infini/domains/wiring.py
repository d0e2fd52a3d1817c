# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doors of real moves, as the inventory's variables `domains_…` say; secrets come from its vault or are typed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infini import ROOT, STATE
from infini.domains.by_hand import HandGaining, HandLosing
from infini.domains.dns import LiveDns
from infini.domains.doors import WallClock, resolvers
from infini.domains.events import SshStore, Store
from infini.domains.gandi import Gandi
from infini.domains.move import Move
from infini.domains.netim import Netim
from infini.domains.observed import DomainFacts, Level
from infini.domains.ovh import Ovh
from infini.domains.plan import Options
from infini.domains.ports import Gaining, Losing
from infini.domains.probe import Check, DnsCheck
from infini.domains.rdap import Rdap
from infini.domains.secrets import AuthCodes, Secret, SshFolder, from_terminal
from infini.domains.targets import ZoneFiles
from infini.domains.waves import Waves
from infini.errors import RefusedError
from infini.hosts import Inventory

GROUP = "control"
EVENTS = "/var/lib/infini/domains"


class CodeVault:
    """Auth codes as a move wants them (`move.Vault`)."""

    def __init__(self, codes: AuthCodes) -> None:
        self._codes = codes

    def put(self, domain: str, code: str, expires: Any) -> None:
        """Keep a domain's code in place of the one before."""
        self._codes.put(domain, code, expires)

    def get(self, domain: str) -> str | None:
        """Return a domain's code, None when there is none."""
        kept = self._codes.get(domain)
        return kept.code if kept else None


class RealStage:
    """The real world, seen from an inventory. Nothing is opened before it is needed."""

    def __init__(self, inventory: str, who: str = "") -> None:
        self._inventory = Inventory(inventory)
        hosts = self._inventory.hosts(GROUP)
        if not hosts:
            raise RefusedError(
                f"The inventory {inventory} has no host in the group `{GROUP}`, where what happened to domains is "
                "shared: add one to its hosts.yml"
            )
        self._host = hosts[0]
        self.who = who or os.environ.get("SUDO_USER") or os.environ.get("USER", "")
        self.name = inventory
        self.clock = WallClock()
        connection = self._inventory.connection(self._host)
        folder = str(self._get("events", EVENTS))
        self.store: Store = SshStore(connection, folder)
        self.codes = AuthCodes(SshFolder(connection, f"{folder}/codes"))
        self.registry = Rdap(self.clock)
        self._losing: dict[str, Losing] = {}

    def _get(self, name: str, default: Any = None) -> Any:
        return self._inventory.get(self._host, f"domains_{name}", default)

    def _needed(self, name: str, what: str) -> Any:
        found = self._get(name)
        if not found:
            raise RefusedError(f"The inventory {self.name} does not say {what}: set domains_{name}")
        return found

    def _secret(self, name: str, what: str) -> Callable[[], str]:
        found = self._get(name)
        return (lambda: Secret(str(found))) if found else from_terminal(what)

    def level(self, domain: str) -> Level:
        """Return how a domain is reached at Gandi; `domains_levels` names those that our token does not reach."""
        level: Level = (self._get("levels") or {}).get(domain, "A")
        return level

    def losing(self, domain: str = "") -> Losing:
        """Return Gandi, by our token, the member's, or the member's hands."""
        level = self.level(domain) if domain else "A"
        key = domain if level == "B" else level
        if key not in self._losing:
            self._losing[key] = self._open(level, domain)
        return self._losing[key]

    def _open(self, level: Level, domain: str) -> Losing:
        if level == "C":
            return HandLosing(STATE / "pasted", self.clock, self.registry, self.codes)
        if level == "B":
            return Gandi(from_terminal(f"Jeton Gandi du membre, pour {domain}"), self.clock)
        token = self._secret("gandi_token", "Jeton Gandi")
        return Gandi(token, self.clock, sharing_id=self._get("gandi_organisation"))

    def gaining(self) -> Gaining:
        """Return the registrar that domains go to: `domains_registrar` is ovh, netim or by-hand."""
        kind = self._get("registrar", "by-hand")
        if kind == "ovh":
            keys = self._needed("ovh", "the keys of OVH's API")
            return Ovh(
                keys["application_key"],
                Secret(keys["application_secret"]),
                Secret(keys["consumer_key"]),
                self.clock,
                owner_contact=keys.get("owner_contact", ""),
            )
        if kind == "netim":
            account = self._needed("netim", "the account at Netim")
            return Netim(account["login"], Secret(account["secret"]), self.clock)
        return HandGaining(self.clock)

    def reachable(self) -> list[DomainFacts]:
        """List the domains that our token reaches, and those that members pasted."""
        pasted = HandLosing(STATE / "pasted", self.clock, self.registry, self.codes)
        return [*self.losing().domains(), *pasted.domains()]

    def checks(self, domain: str) -> list[Check]:
        """Return what the probe looks at: the domain by every resolver that we know, and its page."""
        looked = [
            DnsCheck(f"par {resolver}", resolver, name, kind)
            for resolver in resolvers(self._get("resolvers") or ())
            for name, kind in ((domain, "SOA"), (domain, "NS"))
        ]
        return [*looked]

    def _publish(self) -> None:
        """Have our own servers serve the folder of zones."""
        from infini.apply import apply

        result = apply("dns", self.name)
        if not result.ok:
            raise RefusedError(f"The zones are written, but not served: {result.sentence()}")

    def target(self) -> ZoneFiles:
        """Return our own servers: zone files under zones/, which the playbook `dns` brings to them."""
        return ZoneFiles(
            ROOT / "zones",
            tuple(self._needed("nameservers", "which name servers are ours")),
            str(self._get("mailbox", "hostmaster@infini.fr")),
            self._publish,
        )

    def options(self) -> Options:
        """Return what our side is like; what people decide about one domain is in its events."""
        return Options(
            our_nameservers=tuple(self._needed("nameservers", "which name servers are ours")),
            alias_addresses={host: tuple(found) for host, found in (self._get("alias_addresses") or {}).items()},
            web_addresses=tuple(self._get("web_addresses") or ()),
            mail_exchangers=tuple(self._get("mail_exchangers") or ()),
            mail_host=str(self._get("mail_host", "")),
            spf=str(self._get("spf", "")),
        )

    @property
    def probes(self) -> Path:
        """Return the folder of the continuous probe's files, on this machine."""
        return STATE / "probes"

    def dns(self) -> LiveDns:
        """Return the DNS as it is seen from here."""
        return LiveDns(resolvers(self._get("resolvers") or ()), probes=self.probes)

    @contextmanager
    def at(self, domain: str) -> Iterator[Move]:
        """Give the move of a domain."""
        yield Move(
            domain,
            self.losing(domain),
            self.gaining(),
            self.target(),
            self.registry,
            self.dns(),
            self.store,
            self.clock,
            self.options(),
            self.level(domain),
            self.who,
            vault=CodeVault(self.codes),
            waves=Waves(self.store, canary=str(self._get("canary", ""))),
        )
