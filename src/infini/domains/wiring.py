# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doors of real moves, as the inventory's variables `domains_…` say; secrets come from its vault or are typed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosting.probes import Trust
from infini import ROOT
from infini.domains.by_hand import HandGaining, HandLosing
from infini.domains.dns import LiveDns
from infini.domains.doors import WallClock, resolvers
from infini.domains.events import SshStore, Store
from infini.domains.gandi import Gandi
from infini.domains.move import CodeVault, Move
from infini.domains.netim import Netim
from infini.domains.observed import DomainFacts, Level
from infini.domains.ovh import Ovh
from infini.domains.plan import Options
from infini.domains.ports import Gaining, Losing
from infini.domains.probe import Check, answering, checks_of, first_answers
from infini.domains.rdap import Rdap
from infini.domains.secrets import AuthCodes, Secret, SshFolder, from_terminal
from infini.domains.targets import RedirectionFiles, ZoneFiles
from infini.domains.waves import Waves
from infini.errors import RefusedError
from infini.hosts import Inventory

GROUP = "control"
EVENTS = "/var/lib/infini/domains"


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
            return self._pasted()
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
        return [*self.losing().domains(), *self._pasted().domains()]

    def _pasted(self) -> HandLosing:
        return HandLosing(self.store, self.clock, self.registry, self.codes)

    def checks(self, domain: str) -> tuple[list[Check], list[str]]:
        """Return what the probe looks at, as the exported zone says, and what it leaves out: it does not answer."""
        with self.at(domain) as move:
            plan, before = move.plan(), move.memory().nameservers
        if plan is None:
            raise RefusedError(
                f"{domain} is not exported yet, so nobody knows what to look at: "
                f"run `./infini domains advance {domain} --apply` first"
            )
        after = plan.options.our_nameservers
        checks = checks_of(plan, resolvers(self._get("resolvers") or ()), (*before, *after))
        return answering(checks, first_answers(domain, self.store))

    def _publish(self, playbook: str, what: str) -> None:
        """Have our own servers serve a folder of what was written for them."""
        from infini.apply import apply

        result = apply(playbook, self.name)
        if not result.ok:
            raise RefusedError(f"The {what} are written, but not served: {result.sentence()}")

    def target(self) -> ZoneFiles:
        """Return our own servers: zone files under zones/, which the playbook `dns` brings to them."""
        return ZoneFiles(
            ROOT / "zones",
            tuple(self._needed("nameservers", "which name servers are ours")),
            str(self._get("mailbox", "hostmaster@infini.fr")),
            lambda: self._publish("dns", "zones"),
        )

    def web(self) -> RedirectionFiles:
        """Return our front: files under redirections/, which the playbook `web` brings to it."""
        authorities = map(Path, self._inventory.get(self._host, "hosting_authorities", []))
        trusted = tuple(file.read_text(encoding="utf-8") for file in authorities if file.exists())
        addresses = tuple(map(str, self._get("web_addresses") or ()))
        return RedirectionFiles(
            ROOT / "redirections", addresses, lambda: self._publish("web", "redirections"), Trust(trusted)
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

    def dns(self) -> LiveDns:
        """Return the DNS as it is seen from here."""
        return LiveDns(resolvers(self._get("resolvers") or ()), probes=self.store)

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
            web=self.web(),
            waves=Waves(self.store, canary=str(self._get("canary", ""))),
        )
