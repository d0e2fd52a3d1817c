# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated world to rehearse in: the real clients and the real state machine, a clock that jumps, people who answer.

With a folder a rehearsal outlives the command: everything that changed the world is kept there in its order, and the
next command plays it again before it begins. All tokens and codes in it are inventions of the simulator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from infini.domains.archetypes import Archetype, load
from infini.domains.by_hand import HandLosing
from infini.domains.events import Event, LocalStore
from infini.domains.gandi import Gandi
from infini.domains.move import CodeVault, Move
from infini.domains.netim import Netim
from infini.domains.observed import Delegation, Difference, DomainFacts, Parity, Redirection, ServerAnswer, Tally
from infini.domains.ovh import Ovh
from infini.domains.plan import Options
from infini.domains.ports import Dns, Gaining, Losing, Target
from infini.domains.rdap import Rdap
from infini.domains.registries import rule_for
from infini.domains.secrets import AuthCode, AuthCodes, LocalFolder, Secret
from infini.domains.simulator import netim as netim_face
from infini.domains.simulator import ovh as ovh_face
from infini.domains.simulator.clock import VirtualClock
from infini.domains.simulator.face import Face, Request
from infini.domains.simulator.gandi import zone_text
from infini.domains.simulator.serve import TOKEN, Simulation
from infini.domains.simulator.world import OUR_NAMESERVERS, UnknownDomainError, World
from infini.domains.states import LOW_TTL
from infini.domains.waves import Switched, Waves, last_switch
from infini.domains.zone import Key, Rrset, Zone
from infini.errors import RefusedError
from infini.phrase import Phrase

ADDRESSES = ("192.0.2.10", "2001:db8::10")
MEMBER_TOKEN = "sim-pat-membre"  # noqa: S105  opens nothing but this simulator
VOLUNTEER = "le bénévole de la répétition"
PROBE_EVERY = 300
"""Seconds between two looks of the simulated probe."""
CAST, SCRIPT, CODES = "rehearsal.json", "world.jsonl", "codes.json"


class FaceTransport(httpx.BaseTransport):
    """Carries a client's requests to a simulated service without a socket; `heard` is told of each before it lands."""

    def __init__(self, face: Face, heard: Callable[[Face, Request], None]) -> None:
        self._face, self._heard = face, heard

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Let the face answer; a lost answer is a broken connection."""
        asked = Request(
            request.method,
            request.url.raw_path.decode(),
            {name.lower(): value for name, value in request.headers.items()},
            request.read(),
            str(request.url),
        )
        self._heard(self._face, asked)
        found = self._face.answer(asked)
        if found.lost:
            raise httpx.ReadError("the simulated connection was closed", request=request)
        headers = {"Content-Type": found.content_type, **found.headers}
        return httpx.Response(found.status, headers=headers, content=found.body())


class WorldDns:
    """What the simulated world answers to DNS questions. Implements `ports.Dns`."""

    def __init__(self, world: World) -> None:
        self._world, self._since = world, world.now()

    def delegation(self, name: str) -> Delegation:
        """Return what every server of the parent zone says."""
        return self._world.delegation(name)

    def servers(self, name: str, nameservers: Sequence[str], rrsets: Sequence[Rrset] = ()) -> list[ServerAnswer]:
        """Return what each name server says of the zone, whoever runs it."""
        return [self._server(name, server, rrsets) for server in nameservers]

    def _server(self, name: str, server: str, rrsets: Sequence[Rrset]) -> ServerAnswer:
        old = server.endswith(".gandi.net")
        zone = self._world.old_zone(name) if old else self._world.new_zone(name, server)
        if zone is None:
            return ServerAnswer(server, server, error="it does not serve the zone (REFUSED)")
        ttls = {
            f"{rrset.name}/{rrset.type}": zone.rrsets[rrset.key].ttl for rrset in rrsets if rrset.key in zone.rrsets
        }
        serial = None if old else int(f"{self._world.now():%Y%m%d}01")
        signed = old and self._world.old_signed(name)
        key_ttl = self._world.quirks.key_ttl if signed else 0
        return ServerAnswer(server, server, True, serial, signed, ttls, key_ttl=key_ttl)

    def parity(
        self, old: Zone, new: Zone, old_servers: Sequence[str], new_servers: Sequence[str], sha256: str
    ) -> Parity:
        """Compare what is served with what was exported and planned, and prove that an error would be seen."""
        live, ours = self._world.old_zone(old.name), self._world.new_zone(new.name)
        if live is None or ours is None:
            silent = (*old_servers, *new_servers)[0]
            lost = Difference("@", "SOA", silent, "", "no answer")
            return Parity(new.name, self._world.now(), sha256, 1, 0, unexpected=(lost,))
        asked, same, expected, unexpected = _compared(old, new, live, ours)
        spoiled = Zone(ours.name, {**ours.rrsets, ("canary", "TXT"): Rrset("canary", "TXT", 300, ('"wrong"',))})
        caught = len(_compared(old, new, live, spoiled)[3]) > len(unexpected)
        places = [f"{server} {transport}" for server in new_servers for transport in ("UDP", "TCP")]
        return Parity(
            new.name,
            self._world.now(),
            sha256,
            asked * (len(old_servers) * 2 + len(places)),
            same * len(places),
            tuple(replace(difference, server=place) for difference in expected for place in places),
            tuple(replace(difference, server=place) for difference in unexpected for place in places),
            caught,
        )

    def tally(self, name: str) -> Tally | None:
        """Return what a probe would have seen since the world began: every harm is a failure."""
        now, since = self._world.now(), self._since
        harms = [harm for harm in self._world.harms if harm.domain == name]
        total = 1 + int((now - since).total_seconds()) // PROBE_EVERY
        told = tuple(f"{harm.at:%d/%m/%Y %H:%M} {harm.kind}" for harm in harms)
        return Tally(name, since, now, total, len(harms), 0.0, told)


def _compared(old: Zone, new: Zone, live: Zone, ours: Zone) -> tuple[int, int, list[Difference], list[Difference]]:
    """Return how many rrsets were compared and are the same, and the differences, foretold and not."""
    apex: set[Key] = {("@", "NS"), ("@", "SOA")}
    unread = {entry.name for entry in (*old.unreadable, *live.unreadable)}
    keys = sorted({*old.rrsets, *new.rrsets, *live.rrsets, *ours.rrsets} - apex)
    same, expected, unexpected = 0, [], []
    for key in keys:
        was, will = old.rrsets.get(key), new.rrsets.get(key)
        says, said = live.rrsets.get(key), ours.rrsets.get(key)
        drifted = key[0] not in unread and not _lowered(says, was)
        difference = Difference(*key, "", str(says or ""), str(said or ""))
        if said != will or drifted:
            unexpected.append(difference)
        elif says == said:
            same += 1
        else:
            expected.append(replace(difference, rule=_rule(says, said, key[0] in unread)))
    return len(keys), same, expected, unexpected


def _rule(old: Rrset | None, new: Rrset | None, unread: bool) -> str:
    """Return why an answer was foretold to differ, as the real comparison names it."""
    if unread:
        return "unreadable-record"
    return "ttl" if old and new and replace(old, ttl=new.ttl) == new else "plan"


def _lowered(live: Rrset | None, exported: Rrset | None) -> bool:
    """Return whether a server still says what was exported, its TTL as it was or lowered since."""
    if live is None or exported is None:
        return live is exported
    return live.values == exported.values and live.ttl <= max(exported.ttl, LOW_TTL)


class WorldTarget:
    """The simulated new servers. Implements `ports.Target`."""

    name = "les serveurs de la répétition"
    nameservers: tuple[str, ...] = OUR_NAMESERVERS
    minimum_ttl = 0

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal

    def provision(self, zone: Zone) -> None:
        """Serve the zone."""
        self._rehearsal.do("publish", zone=_plain(zone))

    def remove(self, name: str) -> None:
        """Serve it no more."""
        self._rehearsal.do("withdraw", name=name)


class WorldWeb:
    """The simulated front. Implements `ports.Web`."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal

    def provision(self, domain: str, redirections: Sequence[Redirection]) -> None:
        """Answer these redirections."""
        if list(redirections) != self._rehearsal.redirected.get(domain, []):
            self._rehearsal.do("redirect", name=domain, redirections=[asdict(one) for one in redirections])

    def remove(self, domain: str) -> None:
        """Answer them no more."""
        self.provision(domain, ())

    def wrong(self, redirections: Sequence[Redirection]) -> list[str]:
        """Return a sentence for each redirection that is not answered so."""
        answered = [one for each in self._rehearsal.redirected.values() for one in each]
        return [f"Le site simulé ne redirige pas {one}." for one in redirections if one not in answered]


def _plain(zone: Zone) -> dict[str, Any]:
    return {"name": zone.name, "rrsets": [asdict(rrset) for rrset in zone.rrsets.values()]}


def _zone(data: Mapping[str, Any]) -> Zone:
    return Zone.of(data["name"], (Rrset(**{**row, "values": tuple(row["values"])}) for row in data["rrsets"]))


class OpenCodes(AuthCodes):
    """The simulator's auth codes, kept in the open: they open nothing. `file` outlives the command when it is given."""

    def __init__(self, file: Path | None = None) -> None:
        super().__init__(LocalFolder(Path()))
        self._file = file
        self._kept: dict[str, list[str | None]] = json.loads(file.read_text()) if file and file.exists() else {}

    def put(self, domain: str, code: str, expires: datetime | None = None) -> None:
        """Keep a domain's code."""
        self._kept[domain] = [Secret(code).reveal(), expires.isoformat() if expires else None]
        if self._file:
            self._file.write_text(json.dumps(self._kept))

    def get(self, domain: str) -> AuthCode | None:
        """Return a domain's code, None when none is kept."""
        code, expires = self._kept.get(domain, (None, None))
        return AuthCode(Secret(code), datetime.fromisoformat(expires) if expires else None) if code else None


class RememberingStore(LocalStore):
    """A store that reads each file once: three hundred domains ask for each other's events all the time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, durable=False)
        self._read: dict[str, list[Event]] = {}
        self._documents: dict[tuple[str, str], str] = {}

    def read(self, domain: str) -> list[Event]:
        """Return the domain's events, oldest first; the list is not to be changed."""
        if domain not in self._read:
            self._read[domain] = super().read(domain)
        return self._read[domain]

    def append(self, event: Event) -> None:
        """Add an event, as it will be read from the file."""
        before = self.read(event.domain)
        super().append(event)
        before.append(Event.parse(event.line()))

    def keep(self, domain: str, name: str, text: str) -> None:
        """Keep a document beside the events."""
        super().keep(domain, name, text)
        self._documents[domain, name] = text

    def kept(self, domain: str, name: str) -> str | None:
        """Return a document, None when there is none of that name."""
        return self._documents.get((domain, name)) or super().kept(domain, name)


class RememberingWaves(Waves):
    """The pace of a fleet that counts the switches of a domain again only when something happened to it."""

    def __init__(self, store: RememberingStore) -> None:
        super().__init__(store)
        self._events, self._last = store, dict[str, tuple[int, Switched | None]]()

    def switches(self) -> dict[str, Switched]:
        """Return the last switch of every domain that has one."""
        for name, events in self._events._read.items():  # noqa: SLF001, RUF100  one class in two halves
            if self._last.get(name, (0, None))[0] != len(events):
                self._last[name] = len(events), last_switch(events)
        return {name: switch for name, (_, switch) in self._last.items() if switch}


class Rehearsal:
    """A world with its domains (`cast`), the doors to it, and a folder for events when one is given.

    `seed` decides the simulated codes and the random faults of a world that is made here.
    """

    def __init__(
        self,
        cast: Sequence[Archetype],
        folder: Path,
        *,
        seed: int = 0,
        script: bool = False,
        world: World | None = None,
    ) -> None:
        self.cast = {one.domain: one for one in cast}
        self.folder, self.seed = folder, seed
        self._script = folder / SCRIPT if script else None
        self._replaying = False
        self._token = TOKEN
        self._moves: dict[tuple[str, str], Move] = {}
        self.world = world or World(VirtualClock(), seed=seed)
        self.clock = self.world.clock
        self.simulation = Simulation(self.world)
        self.world.add_token(MEMBER_TOKEN, "membre")
        for host, addresses in _addresses(cast).items():
            self.world.addresses[host] = addresses
        for one in cast:
            self._enter(one)
        self.store = RememberingStore(folder / "events")
        self.waves = RememberingWaves(self.store)
        self.codes = OpenCodes(folder / CODES if script else None)
        self.dns: Dns = WorldDns(self.world)
        self.target: Target = WorldTarget(self)
        self.web = WorldWeb(self)
        self.redirected: dict[str, list[Redirection]] = {}
        self.registry = Rdap(self.clock, base_url="http://rdap.sim", requests_per_second=5, transport=self._to("rdap"))
        self.losing = Gandi(lambda: self._token, self.clock, "http://gandi.sim", transport=self._to("gandi"))
        self.by_hand = HandLosing(self.store, self.clock, self.registry, self.codes)
        self.gaining: dict[str, Gaining] = {
            "ovh": Ovh(
                ovh_face.APPLICATION_KEY,
                ovh_face.APPLICATION_SECRET,
                ovh_face.CONSUMER_KEY,
                self.clock,
                "http://ovh.sim/1.0",
                transport=self._to("ovh"),
            ),
            "netim": Netim(
                netim_face.LOGIN,
                netim_face.PASSWORD,
                self.clock,
                "http://netim.sim/3.0",
                transport=self._to("netim"),
            ),
        }

    # --- a folder that outlives the command ---

    @classmethod
    def begin(cls, folder: Path, names: Sequence[str], seed: int = 0) -> Rehearsal:
        """Begin a rehearsal of one domain of each of these archetypes in a folder that is empty or not there yet."""
        if folder.exists() and any(folder.iterdir()):
            raise RefusedError(
                Phrase("{folder} is not empty: name another folder, or go on with --rehearsal {folder}", folder=folder)
            )
        cast = [load(name) for name in names]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / CAST).write_text(json.dumps({"archetypes": list(names), "seed": seed}), encoding="utf-8")
        made = cls(cast, folder, seed=seed, script=True)
        for one in cast:
            made.store.append(Event(made.clock.now(), one.domain, "", "known", {"archetype": one.name}))
            if one.level == "C":
                made.paste(one.domain)
        return made

    @classmethod
    def resume(cls, folder: Path) -> Rehearsal:
        """Go on with a rehearsal; raise RefusedError when the folder holds none."""
        try:
            cast = json.loads((folder / CAST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RefusedError(
                Phrase(
                    "{folder} holds no rehearsal: begin one with `./infini domains rehearse --keep {folder}`",
                    folder=folder,
                )
            ) from None
        made = cls([load(name) for name in cast["archetypes"]], folder, seed=cast["seed"], script=True)
        made._replay()  # noqa: SLF001, RUF100  our own
        return made

    def _replay(self) -> None:
        if self._script is None or not self._script.exists():
            return
        self._replaying = True
        for line in self._script.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            self._until(datetime.fromisoformat(entry.pop("at")))
            self._play(entry.pop("what"), entry)
        self._replaying = False

    def _until(self, moment: datetime) -> None:
        self.clock.advance(max(moment - self.clock.now(), timedelta(0)))

    def _play(self, what: str, data: Mapping[str, Any]) -> None:
        world = self.world
        if what == "request":
            request = Request(data["method"], data["target"], data["headers"], data["body"].encode(), data["url"])
            self.simulation.faces[data["face"]].answer(request)
        elif what == "redirect":
            self.redirected[data["name"]] = [Redirection(**row) for row in data["redirections"]]
        elif what == "publish":
            world.publish(_zone(data["zone"]), OUR_NAMESERVERS)
        elif what == "withdraw":
            world.withdraw(data["name"])
        elif what == "mail-copied":
            world.mail_copied.add(data["name"])
        elif what == "click":
            getattr(world, data["action"])(*data["arguments"])
        # "clock" only has its moment

    def do(self, what: str, **data: Any) -> None:
        """Change the world in a way that the folder remembers."""
        self._remember(what, data)
        self._play(what, data)

    def _remember(self, what: str, data: Mapping[str, Any]) -> None:
        if self._script is not None and not self._replaying:
            with self._script.open("a", encoding="utf-8") as file:
                entry = {"at": self.clock.now().isoformat(), "what": what, **data}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def jump(self, moment: datetime) -> None:
        """Let time pass until a moment; one that has passed changes nothing."""
        self._until(moment)
        self.do("clock")

    # --- the world and its doors ---

    def _to(self, name: str) -> FaceTransport:
        return FaceTransport(self.simulation.faces[name], self._heard)

    def _heard(self, face: Face, request: Request) -> None:
        if request.method != "GET":
            wanted = ("authorization", "content-type", "x-ovh-")
            headers = {key: value for key, value in request.headers.items() if key.startswith(wanted)}
            self._remember(
                "request",
                {
                    "face": face.name,
                    "method": request.method,
                    "target": request.target,
                    "headers": headers,
                    "body": request.body.decode(),
                    "url": request.url,
                },
            )

    def _enter(self, one: Archetype) -> None:
        now, rule = self.clock.now(), rule_for(f"x.{one.registry}")
        created = now - timedelta(days=one.account.created_days_ago)
        self.world.add(
            one.domain,
            one.records,
            organisation=one.account.organisation,
            created=created,
            expires=now + timedelta(days=one.account.expires_in_days),
            locked=one.account.locked,
            signed=one.account.signed,
            reserve_days=rule.reserve_days,
            locked_until=created + timedelta(days=60) if rule.lock60 else None,
            ns_ttl=one.ns_ttl,
            ds_ttl=one.ds_ttl,
            redirections=[dict(row) for row in one.redirections],
            hosts=[dict(row) for row in one.glue],
            mailboxes=[{"address": address} for address in one.mailboxes],
            forwards=[dict(row) for row in one.forwards],
        )
        for fault in one.faults:
            if fault == "zone-edited":
                # Strikes when the zone is read for the third time: after the export, before the switch.
                self.world.faults.add(fault, face="gandi", domain=one.domain, skip=2)
            else:
                self.world.faults.add(fault, domain=one.domain)

    @contextmanager
    def at(self, domain: str) -> Iterator[Move]:
        """Give the move of a domain, reached as its access level says."""
        one = self.cast.get(domain)
        if one is None:
            known = ", ".join(sorted(self.cast))
            raise RefusedError(Phrase("{domain} is not in this rehearsal: it has {known}", domain=domain, known=known))
        self._token = MEMBER_TOKEN if one.level == "B" else TOKEN
        yield self.move(domain)

    def move(self, domain: str, who: str = VOLUNTEER) -> Move:
        """Return the move of a domain, always the same for the same person: it remembers what it read."""
        if (domain, who) not in self._moves:
            self._moves[domain, who] = self._move(self.cast[domain], who)
        return self._moves[domain, who]

    def _move(self, one: Archetype, who: str) -> Move:
        losing: Losing = self.by_hand if one.level == "C" else self.losing
        registrar = "netim" if one.registry in ("eu", "org") else "ovh"
        return Move(
            one.domain,
            losing,
            self.gaining[registrar],
            self.target,
            self.registry,
            self.dns,
            self.store,
            self.clock,
            options(one),
            one.level,
            who,
            vault=CodeVault(self.codes),
            web=self.web,
            waves=self.waves,
        )

    def reachable(self) -> list[DomainFacts]:
        """List the domains that our token reaches, and those that members pasted."""
        self._token = TOKEN
        return [*self.losing.domains(), *self.by_hand.domains()]

    # --- people ---

    def paste(self, domain: str) -> None:
        """Do what a member does who copies the zone's text and answers our questions (level C)."""
        try:
            holding = self.world.domain(domain)
        except UnknownDomainError:
            return
        answers = {
            "expires": holding.expires,
            "created": holding.created,
            "nameservers": list(holding.nameservers),
            "locked": holding.locked,
            "auto_renew": holding.auto_renew,
            "redirections": holding.redirections,
            "glue": holding.hosts,
            "dnskeys": holding.dnskeys,
            "mailboxes": [box["address"] for box in holding.mailboxes],
            "forwards": holding.forwards,
        }
        self.by_hand.keep(domain, zone_text(holding.records, self.clock.now()), answers)

    def click(self, domain: str, action: str) -> None:
        """Do at Gandi what a member was asked to do."""
        if action == "lower-ttls":
            for rrset in self.world.domain(domain).records:
                if rrset["rrset_ttl"] > LOW_TTL:
                    self._click("set_rrset", domain, rrset["rrset_name"], rrset["rrset_type"], LOW_TTL)
        elif action == "remove-ds":
            self._click("set_dnskeys", domain, [])
        elif action == "switch":
            self._click("set_nameservers", domain, list(OUR_NAMESERVERS))
        elif action == "unlock":
            self._click("set_lock", domain, False)
        elif action == "reset-code":
            self._click("reset_auth_code", domain)

    def _click(self, action: str, *arguments: Any) -> None:
        self.do("click", action=action, arguments=list(arguments))

    def spoken_code(self, domain: str) -> str | None:
        """Return the auth code that the member can read to a volunteer: what Gandi shows, unless we have it already."""
        code, held = self.world.auth_code(domain), self.codes.get(domain)
        return code if held is None or held.code.reveal() != code else None

    def hand_over_code(self, domain: str) -> bool:
        """Let the member read the auth code to a volunteer; return whether Gandi showed one that we had not."""
        code = self.spoken_code(domain)
        if code:
            self.codes.put(domain, code, self.world.domain(domain).code_expires)
        return code is not None


def _addresses(cast: Sequence[Archetype]) -> dict[str, tuple[str, ...]]:
    """Return the addresses of what an ALIAS may lead to."""
    known: dict[str, tuple[str, ...]] = {"vitrine.example": ("203.0.113.7",)}
    for one in cast:
        known |= dict(one.decisions.alias_addresses)
    return known


def options(one: Archetype) -> Options:
    """Return what people decided beforehand, and what our side is like."""
    return Options(
        mail_mode=one.decisions.mail,
        our_nameservers=OUR_NAMESERVERS,
        redirections=dict.fromkeys(one.decisions.redirections, True),
        alias_addresses=one.decisions.alias_addresses,
        web_addresses=ADDRESSES,
        mail_exchangers=("10 mx.infini.test.",),
        mail_host="mail.infini.test",
        spf="include:_spf.infini.test",
    )
