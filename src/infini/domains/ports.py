# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doors to the world: what a move needs of registrars, DNS hosts, registries, resolvers and the clock.

Each has real implementations and a way "by hand"; simulators stand behind the real ones' protocols, not in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from infini.domains.observed import (
    Delegation,
    DomainFacts,
    Export,
    Parity,
    Quote,
    RdapFacts,
    Redirection,
    ServerAnswer,
    Tally,
    TransferOrder,
)
from infini.domains.zone import Rrset, Zone


class ByHandError(Exception):
    """Nobody can do this for a human: `who` must act, and `instructions` (in plain words) says how."""

    def __init__(self, who: str, instructions: str) -> None:
        """`who` is one of member, volunteer, gandi, registry."""
        super().__init__(instructions)
        self.who, self.instructions = who, instructions


class WorldError(Exception):
    """The world did not do what was asked. `retry`: the same call may succeed later; `says`: one sentence."""

    def __init__(self, says: str, *, retry: bool = False, landed: bool | None = False) -> None:
        """`landed` is None when the change may have been made although the answer was lost: read before repeating."""
        super().__init__(says)
        self.says, self.retry, self.landed = says, retry, landed


class Clock(Protocol):
    """Time, so that a rehearsal may run days in seconds."""

    def now(self) -> datetime:
        """Return the time (with its zone, UTC)."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Losing(Protocol):
    """The registrar that a domain leaves. Changing calls are idempotent and return before the change is visible."""

    def domains(self) -> list[DomainFacts]:
        """List every domain that the token reaches."""

    def domain(self, name: str) -> DomainFacts:
        """Read one domain; raise WorldError when it is unknown."""

    def export(self, name: str) -> Export:
        """Read all that lives there; the counts are compared with what the server says they are."""

    def snapshot(self, name: str, label: str) -> str:
        """Have the zone kept at Gandi; return the snapshot's id."""

    def set_ttls(self, name: str, rrsets: Sequence[Rrset], ttl: int) -> None:
        """Set the TTL of these rrsets in place, values untouched (PATCH, never DELETE)."""

    def set_nameservers(self, name: str, nameservers: Sequence[str]) -> None:
        """Ask for a delegation."""

    def restore_nameservers(self, name: str) -> None:
        """Put Gandi's own name servers back."""

    def remove_dnskeys(self, name: str) -> None:
        """Have every DS removed at the registry; the zone stays signed."""

    def restore_dnskeys(self, name: str, dnskeys: Sequence[dict[str, object]]) -> None:
        """Put DS back (the rollback of `remove_dnskeys`)."""

    def set_lock(self, name: str, locked: bool) -> None:
        """Set or lift the registrar's transfer lock."""

    def auth_code(self, name: str) -> str | None:
        """Return the code if it is there to be read; the caller keeps it out of logs, diffs, events and arguments."""

    def reset_auth_code(self, name: str) -> None:
        """Have a new code made; the old one is worth nothing then."""


class Gaining(Protocol):
    """The registrar that a domain goes to."""

    name: str

    def quote(self, domain: str, auth_code: str, nameservers: Sequence[str]) -> Quote:
        """Let the registrar check the order without placing it."""

    def order(self, domain: str, auth_code: str, nameservers: Sequence[str]) -> TransferOrder:
        """Place the order: the irreversible call, never repeated while `find_order` finds one."""

    def find_order(self, domain: str) -> TransferOrder | None:
        """Return the newest order for the domain, so that a lost answer is not ordered twice."""

    def correct_auth_code(self, order: TransferOrder, auth_code: str) -> None:
        """Give a refused order another code."""

    def secure(self, domain: str) -> None:
        """After the transfer: lock on, renewal on."""


class Target(Protocol):
    """Where the zone goes to live."""

    name: str
    nameservers: tuple[str, ...]
    minimum_ttl: int

    def provision(self, zone: Zone) -> None:
        """Make the zone be served there, whole; doing it again changes nothing."""

    def remove(self, name: str) -> None:
        """Take the zone away again (a rollback before the switch)."""


class Web(Protocol):
    """Our web front, where redirections go on."""

    def provision(self, domain: str, redirections: Sequence[Redirection]) -> None:
        """Make exactly these redirections of a domain be answered; doing it again changes nothing."""

    def remove(self, domain: str) -> None:
        """Take a domain's redirections away again."""

    def wrong(self, redirections: Sequence[Redirection]) -> list[str]:
        """Ask our front as a visitor would, whatever the DNS says; return a French sentence for each wrong answer."""


class Registry(Protocol):
    """What the registry says, by RDAP."""

    def domain(self, name: str) -> RdapFacts:
        """Read one domain."""


class Dns(Protocol):
    """What the DNS says, seen from here."""

    def delegation(self, name: str) -> Delegation:
        """Ask every server of the parent zone."""

    def servers(self, name: str, nameservers: Sequence[str], rrsets: Sequence[Rrset] = ()) -> list[ServerAnswer]:
        """Ask each name server, at each of its addresses, for the SOA, DNSKEY and the TTLs of these rrsets."""

    def parity(
        self, old: Zone, new: Zone, old_servers: Sequence[str], new_servers: Sequence[str], sha256: str
    ) -> Parity:
        """Compare every answer of the old servers with every answer of the new ones."""

    def tally(self, name: str) -> Tally | None:
        """Return what the continuous probe of this domain has seen, None when none runs."""
