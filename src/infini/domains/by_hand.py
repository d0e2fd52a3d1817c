# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registrars without a door for us: people read, paste and click, and we check from outside.

Access level C: the member pastes the zone's text and answers some questions, both kept beside the domain's events
(`zone.txt`, `answers.yml`); what must change at Gandi is said to who can do it. Auth codes are never among the answers.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

import yaml

from infini.domains import reading
from infini.domains.caller import host_names
from infini.domains.events import Store
from infini.domains.gandi import LOCK, checksum
from infini.domains.observed import DomainFacts, Export, Quote, RdapFacts, TransferOrder
from infini.domains.ports import ByHandError, Clock, Registry
from infini.domains.secrets import AuthCodes, Secret
from infini.domains.zone import Rrset, Zone, ascii_name
from infini.errors import RefusedError
from infini.phrase import Phrase

ZONE = "zone.txt"
ANSWERS = "answers.yml"
_RDAP_LOCK = "client transfer prohibited"


@dataclass(frozen=True)
class Answers:
    """What a member said of a domain. Lists are as Gandi's interface shows them, `mailboxes` full addresses.

    `pasted` is when the zone was copied: an old paste proves nothing about today's zone.
    """

    expires: datetime
    created: datetime
    pasted: datetime
    nameservers: tuple[str, ...] = ()
    locked: bool = True
    auto_renew: bool = True
    services: tuple[str, ...] = ()
    redirections: tuple[Mapping[str, Any], ...] = ()
    glue: tuple[Mapping[str, Any], ...] = ()
    dnskeys: tuple[Mapping[str, Any], ...] = ()
    mailboxes: tuple[str, ...] = ()
    forwards: tuple[Mapping[str, Any], ...] = field(default=())


_TIMES = ("expires", "created", "pasted")
_FLAGS = ("locked", "auto_renew")
_TEXTS = ("nameservers", "services", "mailboxes")


def answers_of(domain: str, given: Any) -> Answers:
    """Return answers from plain data; raise RefusedError where something is missing, unknown or of another kind."""
    if not isinstance(given, Mapping):
        raise RefusedError(
            Phrase(
                "The answers about {domain} are no list of names and values: answer the questions again", domain=domain
            )
        )
    known = {entry.name for entry in dataclasses.fields(Answers)}
    unknown = sorted(map(str, set(given) - known))
    if unknown:
        # The values are not shown: somebody may have put an auth code there.
        raise RefusedError(
            Phrase(
                "The answers about {domain} hold {unknown}, which nobody asked for: take it out "
                "(an auth code goes to the vault)",
                domain=domain,
                unknown=", ".join(unknown),
            )
        )
    missing = [name for name in _TIMES if given.get(name) is None]
    if missing:
        raise RefusedError(
            Phrase(
                "The answers about {domain} lack {missing}: answer the questions again",
                domain=domain,
                missing=", ".join(missing),
            )
        )
    return Answers(**{name: _answer(domain, name, value) for name, value in given.items()})


def _answer(domain: str, name: str, value: Any) -> Any:
    if name in _TIMES:
        return _time(domain, name, value)
    if name in _FLAGS:
        if isinstance(value, bool):
            return value
        raise RefusedError(
            Phrase("The answer “{name}” about {domain} is neither true nor false", name=name, domain=domain)
        )
    wanted: type = str if name in _TEXTS else dict
    if not isinstance(value, list | tuple) or not all(isinstance(entry, wanted) for entry in value):
        kind = Phrase("texts") if wanted is str else Phrase("names and values")
        raise RefusedError(
            Phrase("The answer “{name}” about {domain} is no list of {kind}", name=name, domain=domain, kind=kind)
        )
    return tuple(value)


def _time(domain: str, name: str, value: Any) -> datetime:
    """Return a time of day or the beginning of a day, UTC."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        at = None
    if isinstance(at, date) and not isinstance(at, datetime):
        at = datetime.combine(at, time())
    if not isinstance(at, datetime):
        raise RefusedError(
            Phrase("The answer “{name}” about {domain} is no date: write it as 2030-12-31", name=name, domain=domain)
        )
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


class HandLosing:
    """A domain at Gandi in a member's own account, without a token. Implements `ports.Losing`.

    `store` keeps what they paste. With `registry` what the registry says (end, lock, name servers) replaces what
    the member said; with `codes` an auth code that the member sent is found. Every change raises ByHandError.
    """

    def __init__(
        self, store: Store, clock: Clock, registry: Registry | None = None, codes: AuthCodes | None = None
    ) -> None:
        self.store, self._clock, self._registry, self._codes = store, clock, registry, codes

    def keep(self, name: str, zone_text: str, answers: Mapping[str, Any]) -> None:
        """Keep what a member pasted and answered, as of now unless `pasted` says when; refuse what cannot be read."""
        name = ascii_name(name)
        answers = {"pasted": self._clock.now(), **answers}
        kept = answers_of(name, answers)
        if not zone_text.strip():
            raise RefusedError(
                Phrase("The pasted zone of {domain} is empty: copy it again from Gandi's text view", domain=name)
            )
        self.store.keep(name, ZONE, zone_text)
        plain: dict[str, Any] = {
            key: value.isoformat()
            if isinstance(value, datetime)
            else list(value)
            if isinstance(value, tuple)
            else value
            for key, value in dataclasses.asdict(kept).items()
        }
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
        self.store.keep(name, ANSWERS, yaml.safe_dump(plain, allow_unicode=True, sort_keys=False))

    def domains(self) -> list[DomainFacts]:
        """List every domain that a member pasted, sorted by name."""
        return [self.domain(name) for name in self.store.domains(ANSWERS)]

    def domain(self, name: str) -> DomainFacts:
        """Read what is known of a domain; raise ByHandError when nobody pasted it."""
        name = ascii_name(name)
        answers = self._answers(name)
        facts = DomainFacts(
            name=name,
            expires=answers.expires,
            created=answers.created,
            statuses=(LOCK,) if answers.locked else (),
            nameservers=host_names(answers.nameservers),
            services=answers.services,
            registrar_lock=answers.locked,
            auto_renew=answers.auto_renew,
            name_unicode=name,
        )
        facts = _corrected(facts, self._registry.domain(name)) if self._registry else facts
        kept = self._codes.get(name) if self._codes else None
        if kept is None:
            return facts
        return dataclasses.replace(facts, auth_code_available=True, auth_code_expires=kept.expires)

    def _answers(self, name: str) -> Answers:
        raw = self.store.kept(name, ANSWERS)
        if raw is None:
            raise _paste(name)
        try:
            return answers_of(name, yaml.safe_load(raw))
        except yaml.YAMLError:
            raise RefusedError(
                Phrase("The answers about {domain} cannot be read: answer the questions again", domain=name)
            ) from None

    def export(self, name: str) -> Export:
        """Return what the member pasted; `at` is when it was copied, and `sha256` is made as Gandi's."""
        name = ascii_name(name)
        answers = self._answers(name)
        text = self._text(name)
        records = _entries(reading.from_text(name, text))
        return Export(
            domain=name,
            at=answers.pasted,
            records=records,
            text=text,
            sha256=checksum(records, answers.redirections, answers.glue),
            redirections=answers.redirections,
            glue=answers.glue,
            dnskeys=answers.dnskeys,
            mailboxes=tuple(sorted({address.lower() for address in answers.mailboxes})),
            forwards=answers.forwards,
        )

    def _text(self, name: str) -> str:
        text = self.store.kept(name, ZONE)
        if text is None:
            raise _paste(name)
        return text

    def snapshot(self, name: str, label: str) -> str:  # noqa: ARG002  the paste is the snapshot, whatever its name
        """Return the name of what was pasted: it is kept here, which is all the snapshot there is."""
        return f"paste-{hashlib.sha256(self._text(ascii_name(name)).encode()).hexdigest()[:12]}"

    def set_ttls(self, name: str, rrsets: Sequence[Rrset], ttl: int) -> None:
        """Say which TTLs the member must lower."""
        which = ", ".join(f"{rrset.name} {rrset.type}" for rrset in rrsets)
        raise ByHandError(
            "member",
            Phrase(
                "At {place}, tab “DNS Records”: set the time to live (TTL) of these records to {ttl} seconds, and "
                "leave their values as they are: {records}.",
                place=_place(name),
                ttl=ttl,
                records=which,
            ),
        )

    def set_nameservers(self, name: str, nameservers: Sequence[str]) -> None:
        """Say which name servers the member must give."""
        raise ByHandError(
            "member",
            Phrase(
                "At {place}, tab “Nameservers”: choose “External nameservers” and replace the whole list by: {hosts}.",
                place=_place(name),
                hosts=", ".join(host_names(nameservers)),
            ),
        )

    def restore_nameservers(self, name: str) -> None:
        """Say how the member goes back to Gandi's name servers."""
        raise ByHandError(
            "member",
            Phrase("At {place}, tab “Nameservers”: go back to “LiveDNS” (Gandi's own servers).", place=_place(name)),
        )

    def remove_dnskeys(self, name: str) -> None:
        """Say how the member has the DS removed."""
        raise ByHandError(
            "member",
            Phrase(
                "At {place}, tab “DNSSEC”: delete every key of the list, and change nothing else.", place=_place(name)
            ),
        )

    def restore_dnskeys(self, name: str, dnskeys: Sequence[dict[str, object]]) -> None:
        """Say which keys the member must put back."""
        tags = ", ".join(str(key.get("keytag", "?")) for key in dnskeys)
        raise ByHandError(
            "member",
            Phrase(
                "At {place}, tab “DNSSEC”: put the keys with these tags back: {tags}.", place=_place(name), tags=tags
            ),
        )

    def set_lock(self, name: str, locked: bool) -> None:
        """Say how the member locks or unlocks."""
        raise ByHandError(
            "member",
            Phrase("At {place}, tab “Transfer”: set the lock against transfers.", place=_place(name))
            if locked
            else Phrase(
                "At {place}, tab “Transfer”: lift the lock against transfers. Gandi may take up to 72 hours; "
                "we see it from our side.",
                place=_place(name),
            ),
        )

    def auth_code(self, name: str) -> str | None:
        """Return the code that the member gave and a volunteer put into the vault (a Secret); else ask for it."""
        kept = self._codes.get(ascii_name(name)) if self._codes else None
        if kept:
            return Secret(kept.code)
        raise ByHandError(
            "member",
            Phrase(
                "At {place}, tab “Transfer”: read the transfer code (authorization code), and give it to a volunteer "
                "of Infini by word of mouth or by a link that works once, never by mail.",
                place=_place(name),
            ),
        )

    def reset_auth_code(self, name: str) -> None:
        """Say how the member gets a code and where it goes."""
        raise ByHandError(
            "member",
            Phrase(
                "At {place}, tab “Transfer”: have a new transfer code (authorization code) made, and give it to a "
                "volunteer of Infini by word of mouth or by a link that works once, never by mail.",
                place=_place(name),
            ),
        )


def _place(name: str) -> Phrase:
    return Phrase("https://admin.gandi.net, “Domain”, {domain}", domain=ascii_name(name))


def _paste(name: str) -> ByHandError:
    """Say what the member copies, and which questions they answer."""
    return ByHandError(
        "member",
        Phrase(
            "At {place}, tab “DNS Records”: show the zone as text, copy all of it and send it to us. Tell us also when "
            "the name was created and when it expires, its name servers, whether it is locked and renewed by itself, "
            "and what there is of redirections, mailboxes and DNSSEC keys.",
            place=_place(name),
        ),
    )


def _corrected(facts: DomainFacts, registry: RdapFacts) -> DomainFacts:
    """Return facts with what the registry knows better than the member."""
    locked = _RDAP_LOCK in registry.statuses
    return dataclasses.replace(
        facts,
        expires=registry.expires or facts.expires,
        nameservers=registry.nameservers or facts.nameservers,
        statuses=registry.statuses,
        registrar_lock=locked,
    )


def _entries(zone: Zone) -> tuple[Mapping[str, Any], ...]:
    """Return a pasted zone as LiveDNS would give it; what could not be read stays in, to be counted and to block."""
    readable = [
        {"rrset_name": rrset.name, "rrset_type": rrset.type, "rrset_ttl": rrset.ttl, "rrset_values": list(rrset.values)}
        for rrset in zone.rrsets.values()
    ]
    others = [
        {"rrset_name": entry.name, "rrset_type": entry.type, "rrset_values": list(entry.values)}
        for entry in zone.unreadable
    ]
    return (*readable, *others)


class HandGaining:
    """A registrar where a volunteer orders. Implements `ports.Gaining`; the registry (RDAP) says what became of it."""

    name = "à la main"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def quote(self, domain: str, auth_code: str, nameservers: Sequence[str]) -> Quote:  # noqa: ARG002  nobody checks
        """Return a quote that knows nothing."""
        return Quote(domain, None)

    def order(self, domain: str, auth_code: str, nameservers: Sequence[str]) -> TransferOrder:  # noqa: ARG002  said nowhere
        """Say what the volunteer must order; the auth code itself is not said."""
        raise ByHandError(
            "volunteer",
            Phrase(
                "At the new registrar: order the transfer of {domain} to it with the code that is in the vault, and "
                "give these name servers, not its own: {hosts}.",
                domain=domain,
                hosts=", ".join(host_names(nameservers)),
            ),
        )

    def find_order(self, domain: str) -> TransferOrder | None:  # noqa: ARG002  nobody to ask
        """Return None: only the registry knows."""
        return None

    def correct_auth_code(self, order: TransferOrder, auth_code: str) -> None:  # noqa: ARG002  said nowhere
        """Say what the volunteer must correct."""
        raise ByHandError(
            "volunteer",
            Phrase("At the new registrar: give the transfer that was refused the new code of the vault."),
        )

    def secure(self, domain: str) -> None:
        """Say what the volunteer must set."""
        raise ByHandError(
            "volunteer",
            Phrase(
                "At the new registrar, for {domain}: set the lock against transfers and the automatic renewal.",
                domain=domain,
            ),
        )
