# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is true: domains at Gandi, the registry, orders elsewhere, new servers; and what comes true later, on the clock.

The faces (HTTP) and a human who clicks (level C) change it through the same methods. Every change takes the time it
takes in reality, in virtual seconds, and `harms` notes what a member would have suffered from it.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import heapq
import string
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import wraps
from random import Random
from typing import Any, Literal, TypeVar, cast

import dns.dnssec
import dns.exception
import dns.name
import dns.rdata

from infini.domains.observed import Delegation, ParentAnswer
from infini.domains.reading import from_livedns
from infini.domains.simulator.clock import VirtualClock
from infini.domains.simulator.faults import Faults
from infini.domains.zone import Zone

GANDI_NAMESERVERS = ("ns-111-a.gandi.net", "ns-222-b.gandi.net", "ns-333-c.gandi.net")
OUR_NAMESERVERS = ("ns1.infini.test", "ns2.infini.test")
AFNIC = ("fr", "re", "pm", "yt", "tf", "wf")
DAY = 86400
Changed = Literal["old-zone", "old-signed", "delegation", "ds", "new-zone", "transferred", "mail"]
"""What a change was about, for `World.on_change`."""

_Method = TypeVar("_Method", bound=Callable[..., Any])


@dataclass
class Delays:
    """How long things take, in seconds."""

    accepted: float = 20
    """from a 202 to Gandi's own data"""
    livedns: float = 30
    """from LiveDNS's data to what its servers answer"""
    registry: float = 600
    """from Gandi's data to the registry and the first server of the parent zone"""
    parent_lag: float = 120
    """from the first server of the parent zone to the second"""
    unlock: float = 72 * 3600
    """from the wish to unlock to the unlocked domain"""
    auth_code: float = 300
    """from the wish for a new code to the code"""
    order: float = 1800
    """from an order at the gaining registrar to the registry's answer"""
    erase_mail: float = 7 * DAY
    """from the end of the transfer to the erasure of the mailboxes"""


@dataclass
class Quirks:
    """What nobody knows of Gandi, or what it does differently at times; the defaults are the harder case."""

    code_hidden_while_locked: bool = True
    lists_need_organisation: bool = False
    """a list without `sharing_id` is empty"""
    zone_dropped_when_leaving: bool = False
    """the zone goes when the delegation leaves Gandi, not only when the domain does"""
    zone_dropped_after: float = 0
    """seconds that the zone is still served after the transfer"""
    calls_a_minute: int = 1000
    code_days: int = 30
    """days that an auth code is good for"""
    key_ttl: int = 86400
    """TTL of a signed zone's DNSKEY, seconds: so long validating resolvers keep it after the DS"""


@dataclass
class Token:
    """A personal access token: the organisation it is bound to, when it ends, and whether it may change anything."""

    organisation: str
    expires: datetime | None = None
    writes: bool = True


@dataclass
class Holding:
    """A domain as Gandi holds it. Records are LiveDNS rrsets without their hrefs; `served` is what the servers say."""

    name: str
    organisation: str
    created: datetime
    expires: datetime
    records: list[dict[str, Any]]
    nameservers: list[str]
    dnskeys: list[dict[str, Any]] = field(default_factory=list)
    redirections: list[dict[str, Any]] = field(default_factory=list)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    mailboxes: list[dict[str, Any]] = field(default_factory=list)
    forwards: list[dict[str, Any]] = field(default_factory=list)
    certificates: list[dict[str, Any]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: tuple[str, ...] = ()
    livedns: bool = True
    signed: bool = False
    own_ds: frozenset[str] = frozenset()
    locked: bool = True
    unlock_asked: bool = False
    auto_renew: bool = True
    code: str | None = None
    code_expires: datetime | None = None
    codes: int = 0
    served: list[dict[str, Any]] = field(default_factory=list)
    changes: int = 0
    erased: bool = False


@dataclass
class Registration:
    """A domain as the registry holds it; `parents` is what each server of the parent zone says. TTLs in seconds."""

    name: str
    registrar: str
    created: datetime
    expires: datetime
    nameservers: tuple[str, ...]
    ds: frozenset[str]
    locked: bool
    reserve_days: float
    ns_ttl: int
    ds_ttl: int
    locked_until: datetime | None = None
    transferred: datetime | None = None
    code: str | None = None
    pending: Order | None = None
    parents: dict[str, tuple[frozenset[str], frozenset[str]]] = field(default_factory=dict)


@dataclass
class Order:
    """A transfer ordered at a gaining registrar; `until` is when the registry ends it if nobody says anything."""

    id: int
    registrar: str
    domain: str
    code: str = field(repr=False)
    nameservers: tuple[str, ...]
    placed: datetime
    stage: Literal["pending", "refused", "done", "cancelled"] = "pending"
    reason: str = ""
    until: datetime | None = None
    moved: datetime | None = None


@dataclass(frozen=True)
class Harm:
    """What somebody suffers from `at` on.

    `kind`: dark (no server that the parent names answers), lame (some do not), bogus (a validating resolver refuses the
    answers), dark-cached and bogus-cached (so for a resolver that still holds what it was told before), mail-lost,
    ordered-twice (paid again while an order is under way or done; after a refusal another order is right).
    """

    at: datetime
    domain: str
    kind: str


@dataclass(frozen=True)
class Published:
    """A zone on new servers. `ds` are the DS that its keys fit, empty when it is not signed."""

    zone: Zone
    nameservers: tuple[str, ...]
    ds: frozenset[str] = frozenset()


class UnknownDomainError(Exception):
    """Nobody here holds that domain."""


class ConflictError(Exception):
    """The change contradicts what is there; the text says what."""


def current(method: _Method) -> _Method:
    """Make a method of World see all that is due by now, and alone."""

    @wraps(method)
    def guarded(self: World, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            self.settle()
            return method(self, *args, **kwargs)

    return cast(_Method, guarded)


class World:
    """One state of the world.

    `addresses` maps names outside (targets of ALIAS) to their IP addresses; `harms` is what went wrong for people.
    Methods that raise UnknownDomainError do so for a domain that Gandi does not hold (any more).
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        seed: int = 0,
        faults: Faults | None = None,
        delays: Delays | None = None,
        quirks: Quirks | None = None,
    ) -> None:
        self.clock, self.seed = clock, seed
        self.faults = faults or Faults(seed)
        self.delays, self.quirks = delays or Delays(), quirks or Quirks()
        self.lock = threading.RLock()
        self.tokens: dict[str, Token] = {}
        self.addresses: dict[str, tuple[str, ...]] = {}
        self.holdings: dict[str, Holding] = {}
        self.departed: dict[str, Holding] = {}
        self.registry: dict[str, Registration] = {}
        self.orders: list[Order] = []
        self.published: dict[str, Published] = {}
        self.mail_copied: set[str] = set()
        self.registrar_settings: dict[str, dict[str, Any]] = {}
        self.harms: list[Harm] = []
        self._secrets: set[str] = set()
        self._elsewhere: dict[str, frozenset[str]] = {}
        self._ds_seen: dict[str, datetime] = {}
        self._gandi_seen: dict[str, datetime] = {}
        self._listeners: list[Callable[[Changed, str], None]] = []
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._counter = 0
        self._moment: datetime | None = None
        self._zones: dict[str, tuple[int, Zone]] = {}
        clock.on_advance(self.settle)

    # --- time -------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the virtual time; while a delayed change happens, the moment it was due."""
        return self._moment or self.clock.now()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something happen after that many virtual seconds."""
        with self.lock:
            self._counter += 1
            heapq.heappush(self._due, (self.now() + timedelta(seconds=seconds), self._counter, action))

    def settle(self) -> None:
        """Let everything happen that is due by now, in its order."""
        with self.lock:
            if self._moment is not None:
                return
            now = self.clock.now()
            while self._due and self._due[0][0] <= now:
                self._moment, _, action = heapq.heappop(self._due)
                try:
                    action()
                finally:
                    self._moment = None

    def on_change(self, listener: Callable[[Changed, str], None]) -> None:
        """Have `listener(what, domain)` called after each visible change; it may read the world, and must be quick."""
        self._listeners.append(listener)

    # --- making it --------------------------------------------------------------------------------------------

    @current
    def add_token(
        self, token: str, organisation: str = "infini", *, expires: datetime | None = None, writes: bool = True
    ) -> str:
        """Let this token in, for one organisation; return it."""
        self.tokens[token] = Token(organisation, expires, writes)
        self._secrets.add(token)
        return token

    @current
    def add(
        self,
        name: str,
        records: Iterable[Mapping[str, Any]] = (),
        *,
        organisation: str = "infini",
        created: datetime | None = None,
        expires: datetime | None = None,
        nameservers: Sequence[str] = GANDI_NAMESERVERS,
        locked: bool = True,
        signed: bool = False,
        reserve_days: float | None = None,
        locked_until: datetime | None = None,
        ns_ttl: int = 3600,
        ds_ttl: int = 3600,
        **more: Any,
    ) -> Holding:
        """Load a domain held at Gandi, as if it had always been there; return it.

        `records` are LiveDNS rrsets (hrefs are left out). `more` are further fields of Holding: redirections, hosts,
        mailboxes, forwards, certificates, tags, auto_renew, statuses, livedns. Times are aware; `reserve_days` is 8 for
        AFNIC's zones and 5 elsewhere. Raise ValueError for a name that is there already.
        """
        if name in self.holdings or name in self.registry:
            raise ValueError(f"{name} is in this world already: load each domain once")
        now = self.now()
        rrsets = [{key: copy.copy(value) for key, value in rrset.items() if key != "rrset_href"} for rrset in records]
        servers = [server.lower().rstrip(".") for server in nameservers]
        holding = Holding(
            name=name,
            organisation=organisation,
            created=created or now - timedelta(days=2000),
            expires=expires or now + timedelta(days=300),
            records=rrsets,
            nameservers=servers,
            locked=locked,
            served=rrsets,
            **copy.deepcopy(more),
        )
        if signed:
            holding.signed = True
            holding.dnskeys = [_dnskey(name, 1)]
            holding.own_ds = frozenset({_ds(name, holding.dnskeys[0])})
        if reserve_days is None:
            reserve_days = 8 if name.rsplit(".", 1)[-1] in AFNIC else 5
        entry = Registration(
            name=name,
            registrar="GANDI SAS",
            created=holding.created,
            expires=holding.expires,
            nameservers=tuple(servers),
            ds=holding.own_ds,
            locked=locked,
            reserve_days=reserve_days,
            ns_ttl=ns_ttl,
            ds_ttl=ds_ttl,
            locked_until=locked_until,
        )
        tld = name.rsplit(".", 1)[-1]
        entry.parents = {f"{letter}.nic.{tld}": (frozenset(servers), entry.ds) for letter in "ab"}
        self.holdings[name], self.registry[name] = holding, entry
        self._elsewhere[name] = frozenset(server for server in servers if not is_gandi(server))
        if not locked or not self.quirks.code_hidden_while_locked:
            self._new_code(name)
        self._note(name)
        return holding

    def secrets(self) -> frozenset[str]:
        """Return every token and auth code that ever was, to search logs, events and files for."""
        with self.lock:
            return frozenset(self._secrets)

    # --- reading ----------------------------------------------------------------------------------------------

    @current
    def domain(self, name: str) -> Holding:
        """Return a domain at Gandi; raise UnknownDomainError."""
        try:
            return self.holdings[name]
        except KeyError:
            raise UnknownDomainError(name) from None

    @current
    def registration(self, name: str) -> Registration:
        """Return what the registry holds; raise UnknownDomainError."""
        try:
            return self.registry[name]
        except KeyError:
            raise UnknownDomainError(name) from None

    @current
    def old_zone(self, name: str) -> Zone | None:
        """Return the zone that Gandi's servers answer from (without SOA and apex NS); None when they answer nothing.

        ALIAS is what it looks like from outside: the addresses of its target.
        """
        holding = self.holdings.get(name) or self.departed.get(name)
        if holding is None or not holding.livedns or holding.erased:
            return None
        cached = self._zones.get(name)
        if cached is None or cached[0] != holding.changes:
            zone = from_livedns(name, self._resolved(holding.served))
            cached = self._zones[name] = (holding.changes, zone)
        return cached[1]

    @current
    def old_signed(self, name: str) -> bool:
        """Return whether Gandi's servers sign the zone."""
        holding = self.holdings.get(name) or self.departed.get(name)
        return holding is not None and holding.signed and not holding.erased

    @current
    def delegation(self, name: str) -> Delegation:
        """Return what each server of the parent zone says; no answers for a domain that nobody registered."""
        entry = self.registry.get(name)
        if entry is None:
            return Delegation(name, ())
        return Delegation(
            name,
            tuple(
                ParentAnswer(server, servers, ds, entry.ns_ttl, entry.ds_ttl)
                for server, (servers, ds) in sorted(entry.parents.items())
            ),
        )

    @current
    def ds(self, name: str) -> frozenset[str]:
        """Return every DS that any server of the parent zone gives, in presentation form."""
        entry = self.registry.get(name)
        return frozenset().union(*(ds for _, ds in entry.parents.values())) if entry else frozenset()

    @current
    def new_zone(self, name: str, server: str = "") -> Zone | None:
        """Return the zone published on new servers (on this one, when named); None when there is none."""
        found = self.published.get(name)
        return found.zone if found and (not server or server in found.nameservers) else None

    @current
    def order_of(self, registrar: str, domain: str) -> Order | None:
        """Return the newest order of a domain at a registrar."""
        found = [order for order in self.orders if (order.registrar, order.domain) == (registrar, domain)]
        return found[-1] if found else None

    # --- the new servers --------------------------------------------------------------------------------------

    @current
    def publish(self, zone: Zone, nameservers: Sequence[str], ds: Iterable[str] = ()) -> None:
        """Serve a zone on new servers, in place of what they served of it; `ds` when it is signed."""
        self.published[zone.name] = Published(zone, tuple(nameservers), frozenset(ds))
        self._tell("new-zone", zone.name)

    @current
    def withdraw(self, name: str) -> None:
        """Serve a zone on the new servers no more."""
        self.published.pop(name, None)
        self._tell("new-zone", name)

    # --- Gandi: what its API and its pages let one do ---------------------------------------------------------

    @current
    def set_records(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace the whole zone; LiveDNS shows it at once, its servers a little later."""
        holding = self.domain(name)
        holding.records = [dict(rrset) for rrset in records]

        def serve() -> None:
            holding.served = holding.records
            holding.changes += 1
            self._tell("old-zone", name)

        self.later(self.delays.livedns, serve)

    def set_rrset(
        self, name: str, label: str, kind: str, ttl: int | None = None, values: Sequence[str] | None = None
    ) -> None:
        """Put or change one rrset; what is None stays as it is. Removing is `drop_rrset`."""
        with self.lock:
            records = self.domain(name).records
            old = next((one for one in records if (one["rrset_name"], one["rrset_type"]) == (label, kind)), None)
            if old is None and values is None:
                raise ConflictError(f"{label}/{kind} of {name} does not exist")
            new = {
                "rrset_name": label,
                "rrset_type": kind,
                "rrset_ttl": ttl if ttl is not None else (old or {}).get("rrset_ttl", 10800),
                "rrset_values": list(values if values is not None else (old or {})["rrset_values"]),
            }
            kept = [new if one is old else one for one in records] if old else [*records, new]
            self.set_records(name, kept)

    def drop_rrset(self, name: str, label: str, kind: str | None = None) -> None:
        """Remove the rrsets of a name (of one type, when given)."""
        with self.lock:
            records = self.domain(name).records
            self.set_records(
                name,
                [one for one in records if one["rrset_name"] != label or (kind and one["rrset_type"] != kind)],
            )

    @current
    def take_snapshot(self, name: str, label: str) -> str:
        """Keep the zone under a label; return the snapshot's id."""
        holding = self.domain(name)
        key = hashlib.sha256(f"{name} {len(holding.snapshots)}".encode()).hexdigest()
        key = f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:32]}"
        holding.snapshots[key] = {"name": label, "at": self.now(), "records": copy.deepcopy(holding.records)}
        return key

    @current
    def set_nameservers(self, name: str, nameservers: Sequence[str]) -> None:
        """Ask for a delegation: Gandi shows it first, then the registry, then the other servers of the parent."""
        holding = self.domain(name)
        servers = [server.lower().rstrip(".") for server in nameservers]

        def accept() -> None:
            holding.nameservers = servers
            self.later(self.delays.registry, lambda: self._delegate(name, tuple(servers)))

        self.later(self.delays.accepted, accept)

    def restore_nameservers(self, name: str) -> None:
        """Ask for Gandi's own name servers again."""
        self.set_nameservers(name, GANDI_NAMESERVERS)

    @current
    def set_dnskeys(self, name: str, keys: Iterable[Mapping[str, Any]]) -> None:
        """Have exactly these keys at the registry; the zone itself stays as it is.

        Each has algorithm, type, public_key; raise ValueError for one that is no key.
        """
        holding = self.domain(name)
        wanted = []
        for key in keys:
            self._counter += 1
            wanted.append(_complete_key(name, key, key.get("id") or self._counter))

        def accept() -> None:
            holding.dnskeys = wanted
            ds = frozenset(_ds(name, key) for key in holding.dnskeys)
            self.later(self.delays.registry, lambda: self._set_ds(name, ds))

        self.later(self.delays.accepted, accept)

    @current
    def unsign(self, name: str) -> None:
        """Have Gandi stop DNSSEC. Nobody knows its order; here it is the harmful one: signatures first, DS later."""
        holding = self.domain(name)

        def accept() -> None:
            holding.signed = False
            holding.dnskeys = []
            self._tell("old-signed", name)
            self.later(self.delays.registry, lambda: self._set_ds(name, frozenset()))

        self.later(self.delays.accepted, accept)

    @current
    def set_lock(self, name: str, locked: bool) -> None:
        """Set the transfer lock, or ask for it to be lifted, which takes its time and can be taken back meanwhile."""
        holding = self.domain(name)
        if locked:
            holding.unlock_asked = False
            self.later(self.delays.accepted, lambda: self._locked(name, True))
        elif holding.locked and not holding.unlock_asked:
            holding.unlock_asked = True
            self.later(self.delays.unlock, lambda: self._unlock(holding))

    @current
    def reset_auth_code(self, name: str) -> None:
        """Have a new code made; the old one is worth nothing at once."""
        self.domain(name).code = None
        self.registration(name).code = None
        self.later(self.delays.auth_code, lambda: self._new_code(name))

    @current
    def auth_code(self, name: str) -> str | None:
        """Return the code as Gandi shows it: not while the domain is locked, nor when it is too old."""
        holding = self.domain(name)
        hidden = holding.locked and self.quirks.code_hidden_while_locked
        old = holding.code_expires is not None and holding.code_expires <= self.now()
        return None if hidden or old else holding.code

    @current
    def answer_transfer(self, name: str, *, accept: bool, code: str) -> None:
        """Let the pending transfer go at once, or refuse it; raise ConflictError when none is, or the code is not."""
        order = self.registration(name).pending
        if order is None:
            raise ConflictError(f"no transfer of {name} is pending")
        if code != self.registration(name).code:
            raise ConflictError(f"that is not the auth code of {name}")
        if accept:
            self._complete(order)
        else:
            self._refuse(order, "refused by the losing registrar")

    # --- the gaining registrar --------------------------------------------------------------------------------

    @current
    def place_order(self, registrar: str, domain: str, code: str, nameservers: Sequence[str] = ()) -> Order:
        """Order a transfer; the registry answers after a while. Nothing is checked that a registrar cannot know."""
        servers = tuple(server.lower().rstrip(".") for server in nameservers)
        if any(one.domain == domain and one.stage in ("pending", "done") for one in self.orders):
            self._harm(domain, "ordered-twice")
        order = Order(len(self.orders) + 1, registrar, domain, code, servers, self.now())
        self.orders.append(order)
        self._secrets.add(code)
        self.later(self.delays.order, lambda: self._submit(order))
        return order

    @current
    def correct_order(self, order: Order, code: str) -> None:
        """Try a refused order again with another code; raise ConflictError when it was not refused."""
        if order.stage != "refused":
            raise ConflictError(f"order {order.id} is {order.stage}, not refused")
        order.code, order.stage, order.reason = code, "pending", ""
        self._secrets.add(code)
        self.later(self.delays.order, lambda: self._submit(order))

    @current
    def cancel_order(self, order: Order) -> None:
        """Take an order back; raise ConflictError when it is over."""
        if order.stage not in ("pending", "refused"):
            raise ConflictError(f"order {order.id} is {order.stage}")
        entry = self.registry.get(order.domain)
        if entry and entry.pending is order:
            entry.pending = None
        order.stage = "cancelled"

    @current
    def delegate(self, name: str, nameservers: Sequence[str]) -> None:
        """Have the registry delegate a domain that is with the gaining registrar already."""
        servers = tuple(server.lower().rstrip(".") for server in nameservers)
        self.registration(name)
        self.later(self.delays.registry, lambda: self._delegate(name, servers))

    @current
    def set_ds(self, name: str, ds: Iterable[str]) -> None:
        """Have the registry publish these DS (presentation form) for a domain, whoever asks: to secure it again."""
        self.registration(name)
        wanted = frozenset(ds)
        self.later(self.delays.registry, lambda: self._set_ds(name, wanted))

    # --- what happens inside ----------------------------------------------------------------------------------

    def _resolved(self, records: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
        for rrset in records:
            if rrset["rrset_type"] != "ALIAS":
                yield rrset
                continue
            found = self.addresses.get(rrset["rrset_values"][0].rstrip("."), ())
            for kind, values in (("A", [a for a in found if ":" not in a]), ("AAAA", [a for a in found if ":" in a])):
                if values:
                    yield {**rrset, "rrset_type": kind, "rrset_values": values}

    def _tell(self, what: Changed, name: str) -> None:
        self._note(name)
        for listener in tuple(self._listeners):
            listener(what, name)

    def _delegate(self, name: str, servers: tuple[str, ...]) -> None:
        entry = self.registry[name]
        entry.nameservers = servers
        self._at_parents(name, "delegation", lambda said: (frozenset(servers), said[1]))
        holding = self.holdings.get(name)
        if holding and self.quirks.zone_dropped_when_leaving and not any(map(is_gandi, servers)):
            self._drop_zone(holding)

    def _set_ds(self, name: str, ds: frozenset[str]) -> None:
        self.registry[name].ds = ds
        self._at_parents(name, "ds", lambda said: (said[0], ds))

    def _at_parents(
        self,
        name: str,
        what: Changed,
        change: Callable[[tuple[frozenset[str], frozenset[str]]], tuple[frozenset[str], frozenset[str]]],
    ) -> None:
        parents = self.registry[name].parents

        def show(server: str) -> None:
            self._note(name)  # what stood until this moment is what a resolver may keep
            parents[server] = change(parents[server])
            self._tell(what, name)

        first, second = sorted(parents)
        show(first)
        self.later(self.delays.parent_lag, lambda: show(second))

    def _locked(self, name: str, locked: bool) -> None:
        holding = self.holdings.get(name)
        if holding is None:
            return
        holding.locked = self.registry[name].locked = locked
        holding.unlock_asked = False
        if not locked and holding.code is None:
            self._new_code(name)

    def _unlock(self, holding: Holding) -> None:
        if holding.unlock_asked:
            self._locked(holding.name, False)

    def _new_code(self, name: str) -> None:
        holding = self.holdings.get(name)
        if holding is None:
            return
        holding.codes += 1
        holding.code = self._word(f"code {name} {holding.codes}")
        holding.code_expires = self.now() + timedelta(days=self.quirks.code_days)
        wrong = self.faults.strike(("auth-code-wrong",), face="registry", domain=name)
        self.registry[name].code = self._word(f"true code {name} {holding.codes}") if wrong else holding.code

    def _word(self, what: str) -> str:
        chance = Random(f"{self.seed} {what}")  # noqa: S311 - a simulated code, the same in each run
        word = "".join(chance.choices(string.ascii_letters + string.digits, k=16))
        self._secrets.add(word)
        return word

    def _submit(self, order: Order) -> None:
        if order.stage != "pending":
            return
        reason = self._objection(order)
        if reason:
            self._refuse(order, reason)
            return
        entry = self.registry[order.domain]
        entry.pending = order
        seconds = entry.reserve_days * DAY
        order.until = self.now() + timedelta(seconds=seconds)
        if self.faults.strike(("transfer-refused",), face="registry", domain=order.domain):
            self.later(seconds / 2, lambda: self._end(order, "refused by the losing registrar"))
        self.later(seconds, lambda: self._end(order))

    def _objection(self, order: Order) -> str:
        entry = self.registry.get(order.domain)
        if entry is None:
            return "domain does not exist"
        objections = (
            (entry.registrar == order.registrar, "domain is with this registrar already"),
            (entry.locked, "object status prohibits operation: clientTransferProhibited"),
            (entry.locked_until is not None and entry.locked_until > self.now(), "domain is in its 60-day lock"),
            (entry.pending is not None, "object pending transfer"),
            (order.code != entry.code, "invalid authorization information"),
        )
        return next((reason for objects, reason in objections if objects), "")

    def _end(self, order: Order, refusal: str = "") -> None:
        if self.registry[order.domain].pending is not order:
            return
        if refusal:
            self._refuse(order, refusal)
        else:
            self._complete(order)

    def _refuse(self, order: Order, reason: str) -> None:
        entry = self.registry.get(order.domain)
        if entry and entry.pending is order:
            entry.pending = None
        order.stage, order.reason, order.until, order.moved = "refused", reason, None, self.now()

    def _complete(self, order: Order) -> None:
        name, entry = order.domain, self.registry[order.domain]
        order.stage, order.moved, entry.pending = "done", self.now(), None
        entry.registrar, entry.transferred, entry.locked = order.registrar, self.now(), False
        entry.expires += timedelta(days=365)
        self.registrar_settings[name] = {"locked": False, "auto_renew": False}
        holding = self.departed[name] = self.holdings.pop(name)
        # A registrar that is not told which servers to use puts its own, and those know nothing of the zone.
        servers = order.nameservers or tuple(f"ns{n}.registrar.example" for n in (1, 2))
        if servers != entry.nameservers:
            self._delegate(name, servers)
        if (holding.mailboxes or holding.forwards) and self._mail_at_gandi(name):
            self._harm(name, "mail-lost")
        self.later(self.quirks.zone_dropped_after, lambda: self._drop_zone(holding))
        self.later(self.delays.erase_mail, lambda: self._erase_mail(holding))
        self._tell("transferred", name)

    def _drop_zone(self, holding: Holding) -> None:
        holding.erased = True
        holding.changes += 1
        self._tell("old-zone", holding.name)

    def _erase_mail(self, holding: Holding) -> None:
        if holding.mailboxes and holding.name not in self.mail_copied:
            self._harm(holding.name, "mail-lost")
        holding.mailboxes, holding.forwards = [], []
        self._tell("mail", holding.name)

    def _mail_at_gandi(self, name: str) -> bool:
        zone = self.new_zone(name) or self.old_zone(name)
        return zone is not None and any(
            value.rstrip(".").endswith(".gandi.net")
            for rrset in zone.rrsets.values()
            if rrset.type == "MX"
            for value in rrset.values
        )

    # --- what people suffer -----------------------------------------------------------------------------------

    def _harm(self, name: str, kind: str) -> None:
        if not any((harm.domain, harm.kind) == (name, kind) for harm in self.harms):
            self.harms.append(Harm(self.now(), name, kind))

    def _note(self, name: str) -> None:
        """Look at the domain as a resolver would, now and with what it may have kept."""
        entry = self.registry.get(name)
        if entry is None:
            return
        now = self.now()
        for servers, ds in entry.parents.values():
            keys = [self._keys(name, server) for server in servers]
            answering = [known for known in keys if known is not None]
            if len(answering) < len(keys):
                self._harm(name, "lame" if answering else "dark")
            if ds:
                self._ds_seen[name] = now
                self._harm_if(name, "bogus", any(not ds & known for known in answering))
            elif name in self._ds_seen and now < self._ds_seen[name] + timedelta(
                seconds=entry.ds_ttl + self.quirks.key_ttl
            ):
                self._harm_if(name, "bogus-cached", any(not known for known in answering))
            if any(map(is_gandi, servers)):
                self._gandi_seen[name] = now
        kept = self._gandi_seen.get(name)
        if kept and now < kept + timedelta(seconds=entry.ns_ttl):
            self._harm_if(name, "dark-cached", self._keys(name, GANDI_NAMESERVERS[0]) is None)

    def _harm_if(self, name: str, kind: str, harmful: bool) -> None:
        if harmful:
            self._harm(name, kind)

    def _keys(self, name: str, server: str) -> frozenset[str] | None:
        """Return the DS that the server's keys fit: empty when it does not sign, None when it has no such zone."""
        if is_gandi(server):
            holding = self.holdings.get(name) or self.departed.get(name)
            if holding is None or not holding.livedns or holding.erased:
                return None
            return holding.own_ds if holding.signed else frozenset()
        found = self.published.get(name)
        if found and server in found.nameservers:
            return found.ds
        return frozenset() if server in self._elsewhere.get(name, ()) else None


def is_gandi(server: str) -> bool:
    """Return whether a name server is one of Gandi's."""
    return server.endswith(".gandi.net")


def _dnskey(name: str, number: int) -> dict[str, Any]:
    public = base64.b64encode(hashlib.sha512(name.encode()).digest()).decode()
    return _complete_key(name, {"algorithm": 13, "type": "ksk", "public_key": public}, number)


def _complete_key(name: str, key: Mapping[str, Any], number: int) -> dict[str, Any]:
    tag, algorithm, digest_type, digest = _ds(name, key).split()
    return {
        "id": number,
        "algorithm": int(algorithm),
        "type": key.get("type", "ksk"),
        "public_key": key["public_key"],
        "keytag": int(tag),
        "digest": digest,
        "digest_type": int(digest_type),
    }


def _ds(name: str, key: Mapping[str, Any]) -> str:
    flags = 256 if key.get("type") == "zsk" else 257
    try:
        rdata = dns.rdata.from_text("IN", "DNSKEY", f"{flags} 3 {key['algorithm']} {key['public_key']}")
    except (dns.exception.DNSException, KeyError) as error:
        raise ValueError(f"{name} was given something that is no DNSKEY") from error
    return dns.dnssec.make_ds(dns.name.from_text(name), rdata, "SHA256").to_text()
