# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the DNS says, asked of the servers themselves: delegation, authority, and parity of old and new servers.

A cache is asked for one thing only, where a server lives; everything that a move relies on comes from the parent's
servers and from the zone's own, without recursion.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset

from infini.domains import probe
from infini.domains.events import Store
from infini.domains.observed import Delegation, Difference, ParentAnswer, Parity, ServerAnswer, Tally
from infini.domains.ports import WorldError
from infini.domains.zone import Rrset, Zone

USUAL_TYPES = ("A", "AAAA", "MX", "TXT", "CAA", "HTTPS", "SRV", "NS", "DS")
"""Asked of every name, so that a record which stands on one side only is seen."""
_UDP_PAYLOAD = 1232  # what passes everywhere without fragments
_CANARIES = {
    "A": ("192.0.2.254", "192.0.2.253"),
    "AAAA": ("2001:db8::bad", "2001:db8::bae"),
    "TXT": ('"canary"', '"canaries"'),
    "CNAME": ("canary.invalid.", "canaries.invalid."),
    "MX": ("0 canary.invalid.", "0 canaries.invalid."),
}
Question = tuple[str, str]
"""A name relative to the zone and a type."""


@dataclass(frozen=True)
class Answer:
    """What a server says to one question, in a form in which equal answers compare equal.

    `values` are rdatas in canonical wire form with their type before them, TXT strings joined; `cut` is the zone that
    a referral points to; `ttl` is in seconds and 0 without values; `error` is set when there is no usable answer.
    """

    rcode: str = "NOERROR"
    authoritative: bool = True
    ttl: int = 0
    values: frozenset[bytes] = frozenset()
    cut: str = ""
    error: str = ""
    text: str = field(default="", compare=False)
    wire: bytes = field(default=b"", compare=False, repr=False)

    def __str__(self) -> str:
        """Return the answer as a report shows it."""
        if self.error:
            return self.error
        shown = f"{self.ttl} {self.text}" if self.values else "no data" if self.rcode == "NOERROR" else self.rcode
        return shown if self.authoritative or self.cut else f"{shown} (not authoritative)"


@dataclass(frozen=True)
class Place:
    """One address of one name server."""

    server: str
    address: str

    def __str__(self) -> str:
        """Return the server as a report names it."""
        return self.server if self.server == self.address else f"{self.server} {self.address}"


Said = tuple[str, Answer]
"""Who (server, address, transport), and what it answered."""


def _canonical(rdatas: Iterable[dns.rdata.Rdata], origin: dns.name.Name) -> frozenset[bytes]:
    def one(rdata: dns.rdata.Rdata) -> bytes:
        kind = dns.rdatatype.to_text(rdata.rdtype).encode() + b" "
        strings = getattr(rdata, "strings", None)  # how a long text is cut into strings means nothing
        return kind + (b"".join(strings) if strings is not None else rdata.to_digestable(origin))

    return frozenset(map(one, rdatas))


def read(message: dns.message.Message, name: dns.name.Name, kind: str, origin: dns.name.Name) -> Answer:
    """Return what a message answers to a question: its first step only, since the target of a CNAME is asked itself."""
    authoritative = bool(message.flags & dns.flags.AA)
    wire = message.to_wire()
    rcode = dns.rcode.to_text(message.rcode())
    if rcode not in ("NOERROR", "NXDOMAIN"):
        return Answer(rcode, authoritative, error=f"the server answers {rcode}", wire=wire)
    wanted = (dns.rdatatype.from_text(kind), dns.rdatatype.CNAME)
    for rrset in message.answer:
        if rrset.name == name and rrset.rdtype in wanted:
            return _answer(rrset, origin, authoritative, "", wire)
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.NS and not authoritative and rrset.name != origin:
            return _answer(rrset, origin, False, rrset.name.to_text(), wire)
    return Answer(rcode, authoritative, wire=wire)


def _answer(rrset: dns.rrset.RRset, origin: dns.name.Name, authoritative: bool, cut: str, wire: bytes = b"") -> Answer:
    text = " | ".join(sorted(f"{dns.rdatatype.to_text(rdata.rdtype)} {rdata.to_text()}" for rdata in rrset))
    return Answer(
        "NOERROR", authoritative, rrset.ttl, _canonical(rrset, origin), cut.lower(), text=text[:1000], wire=wire
    )


class Model:
    """What an honest server of a zone would answer: the zone's data behind the rules of RFC 1034, 4592 and 6672."""

    def __init__(self, zone: Zone) -> None:
        self.origin = dns.name.from_text(zone.name)
        self._data: dict[dns.name.Name, dict[str, Rrset]] = defaultdict(dict)
        self._nodes = {self.origin}  # names that exist, also those that only have something below them
        self._unknown = {self.absolute(entry.name) for entry in zone.unreadable}
        for rrset in zone.rrsets.values():
            self._data[self.absolute(rrset.name)][rrset.type] = rrset
        for name in (*self._data, *self._unknown):
            while name != self.origin:
                self._nodes.add(name)
                name = name.parent()

    def absolute(self, name: str) -> dns.name.Name:
        """Return a name of the zone with the zone's own below it."""
        return dns.name.from_text(name, self.origin)

    def answer(self, name: str, kind: str) -> Answer | None:
        """Return the answer to expect; None where the zone holds something that could not be read."""
        asked = self.absolute(name)
        if asked in self._unknown:
            return None
        return self._above(asked, kind) or self._at(asked, kind)

    def _above(self, asked: dns.name.Name, kind: str) -> Answer | None:
        """Return a referral or a renaming that a name further up forces, if there is one."""
        labels = len(asked) - len(self.origin)
        for depth in range(labels, -1, -1):
            name = dns.name.Name(asked.labels[depth:])
            here = self._data.get(name, {})
            if "NS" in here and name != self.origin and not (name == asked and kind == "DS"):
                return self._make(here["NS"], name, cut=name.to_text())
            if "DNAME" in here and name != asked:
                target = dns.name.from_text(here["DNAME"].values[0], self.origin)
                moved = dns.name.Name(asked.labels[:depth] + target.labels)
                return self._make(Rrset("", "CNAME", here["DNAME"].ttl, (moved.to_text(),)), asked)
        return None

    def _at(self, asked: dns.name.Name, kind: str) -> Answer | None:
        found = asked
        if asked not in self._nodes:
            closest = asked.parent()
            while closest not in self._nodes:
                closest = closest.parent()
            found = dns.name.from_text("*", closest)
            if found in self._unknown:
                return None
            if found not in self._nodes:
                return Answer("NXDOMAIN")
        here = self._data.get(found, {})
        rrset = here.get(kind) or here.get("CNAME")
        return self._make(rrset, asked) if rrset else Answer()

    def _make(self, rrset: Rrset, name: dns.name.Name, cut: str = "") -> Answer:
        kind = dns.rdatatype.from_text(rrset.type)
        made = dns.rrset.RRset(name, dns.rdataclass.IN, kind)
        for value in rrset.values:
            made.add(dns.rdata.from_text(dns.rdataclass.IN, kind, value, self.origin, relativize=False), rrset.ttl)
        return _answer(made, self.origin, not cut, cut)


def questions(old: Zone, new: Zone, label: str) -> list[Question]:
    """Return what parity asks: each name of either zone with each type present and the usual ones, and nobody's names.

    `label` is a label that neither zone has; it is asked below the zone and beside each wildcard, which would
    hide a missing name. The zone's own NS and SOA are each side's own, its DS is its parent's: they are not asked.
    """
    keys = {*old.rrsets, *new.rrsets, *(entry.key for entry in (*old.unreadable, *new.unreadable))}
    types = {kind for _, kind in keys if _is_type(kind)} | set(USUAL_TYPES)
    names = {name for name, _ in keys} | {"@", label}
    names |= {f"{label}{name[1:]}" for name in names if name.startswith("*.")}
    return [
        (name, kind)
        for name in sorted(names)
        for kind in sorted(types - {"SOA"})
        if name != "@" or kind not in ("NS", "DS")
    ]


def _is_type(kind: str) -> bool:
    """Whether a type can be asked for; ALIAS cannot."""
    try:
        dns.rdatatype.from_text(kind)
    except dns.rdatatype.UnknownRdatatype:
        return False
    return True


def _close(live: Answer, model: Answer) -> bool:
    """Whether an old server still answers what was exported; its TTL may have been lowered meanwhile, not raised."""
    return live.ttl <= model.ttl and replace(live, ttl=model.ttl) == model


class _Judge:
    """Sorts the answers of one run into identical, expected and unexpected."""

    def __init__(self, old: Zone, new: Zone) -> None:
        self._old, self._new = Model(old), Model(new)
        self.identical = 0
        self.expected: dict[Difference, None] = {}
        self.unexpected: dict[Difference, None] = {}

    def question(self, name: str, kind: str, old: Sequence[Said], new: Sequence[Said]) -> None:
        """Judge all that was answered to one question."""
        useful = [said for said in old if not said[1].error]
        for server, answer in old:
            if answer.error:
                self._add(name, kind, server, answer, None, "")
            elif replace(answer, ttl=useful[0][1].ttl) != useful[0][1]:
                self._add(name, kind, server, useful[0][1], answer, "old-servers-disagree")
        for server, answer in new:
            if answer.error or not useful:
                self._add(name, kind, server, useful[0][1] if useful else None, answer, "")
            else:
                self._pair(name, kind, server, useful[0][1], answer)

    def _pair(self, name: str, kind: str, server: str, old: Answer, new: Answer) -> None:
        was, will = self._old.answer(name, kind), self._new.answer(name, kind)
        if kind == "DNSKEY":  # keys never move, and a zone may change from signed to unsigned
            was, will = None, new
        if new == old and (was == will or (was is None and new == will)):
            self.identical += 1
        elif new != will:
            self._add(name, kind, server, old, new, "")
        elif was is None:
            self._add(name, kind, server, old, new, "dnssec" if kind == "DNSKEY" else "unreadable-record", good=True)
        elif not _close(old, was):
            self._add(name, kind, server, was, old, "zone-drifted")
        elif replace(new, ttl=was.ttl) == was:
            self._add(name, kind, server, old, new, "ttl", good=True)
        else:
            self._add(name, kind, server, old, new, "plan", good=True)

    def apex(self, server: str, answer: Answer, names: Sequence[str]) -> None:
        """Judge the name servers that a new server names for the zone itself."""
        ours = dns.rrset.from_text_list("@", 0, "IN", "NS", [f"{name}." for name in sorted(names)])
        should = _answer(ours, dns.name.root, True, "")
        if answer.error or replace(answer, ttl=0) != should:
            self._add("@", "NS", server, should, answer, "")
        else:
            self.identical += 1

    def lost(self, server: str) -> None:
        """Note that a server could not be asked at all."""
        self._add("@", "SOA", server, None, Answer(error="no address can be reached from here"), "")

    def _add(
        self, name: str, kind: str, server: str, old: Answer | None, new: Answer | None, rule: str, good: bool = False
    ) -> None:
        shown = [str(answer) if answer is not None else "no answer" for answer in (old, new)]
        difference = Difference(name, kind, server, shown[0], shown[1], rule)
        (self.expected if good else self.unexpected)[difference] = None


def _spoiled(answer: Answer, name: dns.name.Name, kind: str) -> Iterator[dns.message.Message]:
    """Yield a server's real message with one error each: another value, another TTL, nothing at all."""
    wrong = dns.message.from_wire(answer.wire)
    other = dns.rrset.from_text_list(name, answer.ttl or 300, "IN", kind, _CANARIES[kind])
    standing = [rrset for rrset in wrong.answer if rrset.name == name]
    wrong.set_rcode(dns.rcode.NOERROR)
    wrong.answer = [other]
    yield wrong
    if standing:
        wrong = dns.message.from_wire(answer.wire)
        for rrset in wrong.answer:
            rrset.ttl += 1
        yield wrong
        wrong = dns.message.from_wire(answer.wire)
        wrong.answer = []
        yield wrong


def canary_caught(old: Zone, new: Zone, said: Mapping[Question, tuple[Sequence[Said], Sequence[Said]]]) -> bool:
    """Whether this run's own comparison finds deliberate errors in an answer that really came from a new server.

    The altered message goes the way of every other: bytes, reading, judgement. False when nothing could be altered.
    """
    usable = [
        (question, olds, new_said[0][1])
        for question, (olds, new_said) in said.items()
        if question[1] in _CANARIES and new_said and new_said[0][1].wire and olds and not new_said[0][1].error
    ]
    usable = [one for one in usable if one[2].values and one[2].text.startswith(f"{one[0][1]} ")] or usable
    if not usable:
        return False
    (name, kind), olds, answer = secrets.choice(usable)
    model = Model(new)
    caught = []
    for message in _spoiled(answer, model.absolute(name), kind):
        judge = _Judge(old, new)
        parsed = dns.message.from_wire(message.to_wire())
        judge.question(name, kind, olds, [("canary", read(parsed, model.absolute(name), kind, model.origin))])
        caught.append(any(difference.server == "canary" for difference in judge.unexpected))
    return all(caught)


def _reachable(address: str) -> bool:
    """Whether this machine has a route to an address; nothing is sent."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as made:
        made.connect((address, 53))
        return True
    return False


class _Asker:
    """Asks servers directly, no faster than `rate` questions a second of each address."""

    def __init__(self, timeout: float, tries: int, rate: float | None, port: int, in_flight: int) -> None:
        self._timeout, self._tries, self._rate, self._port, self.in_flight = timeout, tries, rate, port, in_flight
        self._next: dict[str, float] = {}

    async def _turn(self, address: str) -> None:
        if self._rate:
            now = time.monotonic()
            at = max(now, self._next.get(address, 0.0))
            self._next[address] = at + 1 / self._rate
            await asyncio.sleep(at - now)

    async def ask(
        self, address: str, name: dns.name.Name, kind: str, stream: _Stream | None = None
    ) -> dns.message.Message | str:
        """Return the answer over UDP (TCP when it is cut short) or over a stream; a sentence when there is none."""
        query = dns.message.make_query(name, kind, use_edns=0, payload=_UDP_PAYLOAD, flags=0)
        says = ""
        for _ in range(self._tries):
            await self._turn(address)
            try:
                if stream:
                    return await stream.ask(query)
                answer, _tcp = await dns.asyncquery.udp_with_fallback(
                    query,
                    address,
                    self._timeout,
                    self._port,
                    ignore_errors=True,  # a forged answer is passed over, the real one awaited
                )
            except (dns.exception.DNSException, OSError, EOFError) as error:
                says = f"no answer from {address} ({type(error).__name__})"
            else:
                return answer
        return says

    @contextlib.asynccontextmanager
    async def stream(self, address: str) -> AsyncIterator[_Stream]:
        """Give a TCP connection that is opened when it is needed and closed at the end."""
        made = _Stream(address, self._port, self._timeout)
        try:
            yield made
        finally:
            await made.close()


class _Stream:
    """One TCP connection, opened again after the server closed it."""

    def __init__(self, address: str, port: int, timeout: float) -> None:
        self._address, self._port, self._timeout = address, port, timeout
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, query: dns.message.Message) -> dns.message.Message:
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = self._open = self._open or await asyncio.open_connection(self._address, self._port)
                wire = query.to_wire()
                writer.write(len(wire).to_bytes(2, "big") + wire)
                size = int.from_bytes(await reader.readexactly(2), "big")
                answer = dns.message.from_wire(await reader.readexactly(size))
        except BaseException:
            await self.close()
            raise
        if not query.is_response(answer):
            await self.close()
            raise dns.query.BadResponse
        return answer

    async def close(self) -> None:
        if self._open is not None:
            (_, writer), self._open = self._open, None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class LiveDns:
    """The DNS as it is seen from here (`ports.Dns`).

    `resolvers` are asked where servers live; `known` gives the addresses of servers that have no name in the DNS yet. A
    name server may also be given as an address. `timeout` in seconds, `rate` in questions a second to each address
    (None: no limit). Addresses of a family that this machine has no route for are left out; a server that is left
    without any is an error, not a silence. `probes` is where the continuous probe writes.
    """

    def __init__(
        self,
        resolvers: Sequence[str],
        *,
        known: Mapping[str, Sequence[str]] | None = None,
        timeout: float = 3.0,
        tries: int = 3,
        rate: float | None = 20.0,
        port: int = 53,
        in_flight: int = 4,
        probes: Store | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = list(resolvers)
        self._resolver.port = port
        self._resolver.lifetime = timeout * tries
        self._known = dict(known or {})
        self._asker = _Asker(timeout, tries, rate, port, in_flight)
        self._probes, self._now = probes, now

    def delegation(self, name: str) -> Delegation:
        """Ask every server of the parent zone, at each address; raise WorldError when the parent cannot be found."""
        child = dns.name.from_text(name)
        try:
            parent = dns.resolver.zone_for_name(child.parent(), resolver=self._resolver)
            servers = [_plain(rdata.target) for rdata in self._resolver.resolve(parent, "NS")]
        except dns.exception.DNSException as error:
            raise WorldError(
                f"The zone above {name} cannot be found ({type(error).__name__}): check the resolvers", retry=True
            ) from error
        places, lost = self._places(sorted(servers))

        async def ask_all() -> list[ParentAnswer]:
            return await asyncio.gather(*(self._parent(place, child) for place in places))

        answers = asyncio.run(ask_all())
        return Delegation(
            name, (*answers, *(ParentAnswer(server, error="no address can be reached from here") for server in lost))
        )

    async def _parent(self, place: Place, child: dns.name.Name) -> ParentAnswer:
        names = await self._asker.ask(place.address, child, "NS")
        signers = await self._asker.ask(place.address, child, "DS")
        for message in (names, signers):
            if isinstance(message, str):
                return ParentAnswer(str(place), error=message)
            if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return ParentAnswer(str(place), error=f"{place} answers {dns.rcode.to_text(message.rcode())}")
        assert not isinstance(names, str) and not isinstance(signers, str)  # noqa: S101, PT018  returned above
        if not signers.flags & dns.flags.AA:
            return ParentAnswer(str(place), error=f"{place} is not authoritative for the zone above")
        ns, ns_ttl = _found([*names.answer, *names.authority], child, "NS")
        ds, ds_ttl = _found(signers.answer, child, "DS")
        return ParentAnswer(str(place), frozenset(map(_bare, ns)), frozenset(map(str.lower, ds)), ns_ttl, ds_ttl)

    def servers(self, name: str, nameservers: Sequence[str], rrsets: Sequence[Rrset] = ()) -> list[ServerAnswer]:
        """Ask each name server, at each of its addresses, for the SOA, DNSKEY and the TTLs of these rrsets."""
        places, lost = self._places(nameservers)
        origin = dns.name.from_text(name)

        async def ask_all() -> list[ServerAnswer]:
            return await asyncio.gather(*(self._server(place, origin, rrsets) for place in places))

        return [*asyncio.run(ask_all()), *(ServerAnswer(server, "", error="it has no address") for server in lost)]

    async def _server(self, place: Place, origin: dns.name.Name, rrsets: Sequence[Rrset]) -> ServerAnswer:
        said = await self._asker.ask(place.address, origin, "SOA")
        if isinstance(said, str):
            return ServerAnswer(place.server, place.address, error=said)
        soa = said.get_rrset(said.answer, origin, dns.rdataclass.IN, dns.rdatatype.SOA)
        if said.rcode() or soa is None or not said.flags & dns.flags.AA:
            says = f"it does not serve the zone ({dns.rcode.to_text(said.rcode())})"
            return ServerAnswer(place.server, place.address, error=says)
        names = await self._asker.ask(place.address, origin, "NS")
        keys = await self._asker.ask(place.address, origin, "DNSKEY")
        for own in (names, keys):
            if isinstance(own, str):
                return ServerAnswer(place.server, place.address, True, soa[0].serial, error=own)
        assert not isinstance(names, str) and not isinstance(keys, str)  # noqa: S101, PT018  returned above
        ttls: dict[str, int] = {}
        for rrset in rrsets:
            asked = dns.name.from_text(rrset.name, origin)
            answer = await self._asker.ask(place.address, asked, rrset.type)
            if isinstance(answer, str):
                return ServerAnswer(place.server, place.address, True, soa[0].serial, error=answer)
            read_answer = read(answer, asked, rrset.type, origin)
            if read_answer.values:
                ttls[f"{rrset.name}/{rrset.type}"] = read_answer.ttl
        found, key_ttl = _found(keys.answer, origin, "DNSKEY")
        _, ns_ttl = _found(names.answer, origin, "NS")
        return ServerAnswer(
            place.server, place.address, True, soa[0].serial, bool(found), ttls, ns_ttl=ns_ttl, key_ttl=key_ttl
        )

    def parity(
        self, old: Zone, new: Zone, old_servers: Sequence[str], new_servers: Sequence[str], sha256: str
    ) -> Parity:
        """Compare every answer of the old servers with every answer of the new ones, over UDP and TCP.

        A difference is expected only where both zones foretell it: the old server says what was exported and the new
        server what was planned. Everything else is unexpected, a server that does not answer too.
        """
        label = f"infini-{secrets.token_hex(8)}"
        asked = [*questions(old, new, label), ("@", "DNSKEY"), ("@", "NS")]
        origin = dns.name.from_text(new.name)
        sides = [self._places(side) for side in (old_servers, new_servers)]
        answers = asyncio.run(self._collect(asked, origin, [place for places, _ in sides for place in places]))
        said = {
            question: (_side(answers, sides[0][0], question), _side(answers, sides[1][0], question))
            for question in asked
        }
        judge = _Judge(old, new)
        for question, (olds, news) in said.items():
            if question == ("@", "NS"):
                names = [server for server in new_servers if not _is_address(server)]
                for server, answer in news if names else ():
                    judge.apex(server, answer, names)
            else:
                judge.question(*question, olds, news)
        for side, (places, lost) in zip(("old", "new"), sides, strict=True):
            for server in lost or ([] if places else [f"the {side} servers"]):
                judge.lost(server)
        return Parity(
            new.name,
            self._now(),
            sha256,
            len(answers),
            judge.identical,
            tuple(judge.expected),
            tuple(judge.unexpected),
            canary_caught(old, new, said),
        )

    def tally(self, name: str) -> Tally | None:
        """Return what the continuous probe of this domain has seen, None when none runs."""
        return probe.tally(name, self._probes) if self._probes else None

    def _places(self, servers: Sequence[str]) -> tuple[list[Place], list[str]]:
        """Return each server at each address that can be reached from here, and the servers without any."""
        places, lost = [], []
        for server in servers:
            found = [Place(server, address) for address in self._addresses(server) if _reachable(address)]
            places += found
            lost += [] if found else [server]
        return places, lost

    def _addresses(self, server: str) -> list[str]:
        if _is_address(server):
            return [server]
        if server in self._known:
            return list(self._known[server])
        found: list[str] = []
        for kind in ("A", "AAAA"):
            # A server without addresses is the caller's finding, a resolver that is silent likewise.
            with contextlib.suppress(dns.exception.DNSException):
                found += [rdata.address for rdata in self._resolver.resolve(f"{server}.", kind)]
        return found

    async def _collect(
        self, asked: Sequence[Question], origin: dns.name.Name, places: Sequence[Place]
    ) -> dict[tuple[Place, str, Question], Answer]:
        """Ask all questions at all places over both transports."""
        answers: dict[tuple[Place, str, Question], Answer] = {}

        async def work(place: Place, transport: str, share: Sequence[Question]) -> None:
            async with self._asker.stream(place.address) as stream:
                for name, kind in share:
                    absolute = dns.name.from_text(name, origin)
                    tcp = stream if transport == "TCP" else None
                    said = await self._asker.ask(place.address, absolute, kind, tcp)
                    answers[place, transport, (name, kind)] = (
                        Answer(error=said) if isinstance(said, str) else read(said, absolute, kind, origin)
                    )

        lanes = self._asker.in_flight
        await asyncio.gather(
            *(
                work(place, transport, asked[lane::lanes])
                for place in set(places)
                for transport in ("UDP", "TCP")
                for lane in range(lanes)
            )
        )
        return answers


def _side(
    answers: Mapping[tuple[Place, str, Question], Answer], places: Sequence[Place], question: Question
) -> list[Said]:
    return [
        (f"{place} {transport}", answers[place, transport, question])
        for place in places
        for transport in ("UDP", "TCP")
    ]


def _is_address(server: str) -> bool:
    try:
        ip_address(server)
    except ValueError:
        return False
    return True


def _bare(name: str) -> str:
    return name.lower().rstrip(".")


def _plain(name: dns.name.Name) -> str:
    return _bare(name.to_text())


def _found(section: Sequence[dns.rrset.RRset], name: dns.name.Name, kind: str) -> tuple[list[str], int]:
    """Return the values and the TTL of one rrset of a message's section."""
    for rrset in section:
        if rrset.name == name and rrset.rdtype == dns.rdatatype.from_text(kind):
            return [rdata.to_text() for rdata in rrset], rrset.ttl
    return [], 0
