# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a domain's move stands and what may happen next: pure functions of evidence, nothing is read or changed here.

`position` says where reality is, `judge` what comes next and who must act, `interlocks` what forbids an action whatever
anybody decided. Codes and state names are English; sentences are French, because volunteers and members read them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from infini.domains.observed import (
    Delegation,
    DomainFacts,
    Level,
    MailMode,
    Parity,
    Quote,
    RdapFacts,
    ServerAnswer,
    Tally,
    TransferOrder,
    has_status,
)
from infini.domains.registries import RegistryRule

Who = Literal["tool", "volunteer", "member", "gandi", "registry"]
"""Who must act next."""


class State(StrEnum):
    """A state of a move: those of `CHAIN` in their order, then the side states."""

    DISCOVERED = "DISCOVERED"
    EXPORTED = "EXPORTED"
    AUDITED = "AUDITED"
    CONSENTED = "CONSENTED"
    PROVISIONED = "PROVISIONED"
    PARITY_OK = "PARITY_OK"
    TTL_LOWERED = "TTL_LOWERED"
    DS_REMOVED = "DS_REMOVED"
    NS_SWITCHED = "NS_SWITCHED"
    SETTLED = "SETTLED"
    SERVICES_OK = "SERVICES_OK"
    UNLOCK_REQUESTED = "UNLOCK_REQUESTED"
    UNLOCKED = "UNLOCKED"
    AUTHCODE_HELD = "AUTHCODE_HELD"
    TRANSFER_ORDERED = "TRANSFER_ORDERED"
    TRANSFER_PENDING = "TRANSFER_PENDING"
    TRANSFERRED = "TRANSFERRED"
    RESECURED = "RESECURED"
    DONE = "DONE"
    BLOCKED = "BLOCKED"
    WAITING = "WAITING"
    FAILED = "FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    ABANDONED = "ABANDONED"


CHAIN: tuple[State, ...] = tuple(State)[: tuple(State).index(State.DONE) + 1]
SIDE: tuple[State, ...] = tuple(State)[len(CHAIN) :]
OPTIONAL = frozenset({State.DS_REMOVED, State.RESECURED})
"""States that a domain without DNSSEC passes by."""
RANK: Mapping[State, int] = {state: rank for rank, state in enumerate(CHAIN)}
POINT_OF_NO_RETURN = State.TRANSFER_PENDING

FRESH_PARITY = timedelta(hours=24)
LOW_TTL = 300
"""Seconds: the lowest TTL that LiveDNS accepts."""
NEGATIVE_TTL = 10800
"""Seconds that caches keep “no such name” from Gandi's servers (their SOA)."""
SETTLE_MARGIN = timedelta(hours=1)
DS_MARGIN = 1.1
QUOTE_LIFE = timedelta(hours=24)
ORDER_GRACE = timedelta(hours=1)
"""How long an order whose answer was lost may take to show at the registrar before it counts as never placed."""


@dataclass(frozen=True)
class Patience:
    """How long an asked-for change may take: look again every `poll`, ask again after `limit`, `tries` times in all."""

    poll: timedelta
    limit: timedelta
    tries: int
    who: Who


PATIENCE: Mapping[str, Patience] = {
    "export": Patience(timedelta(minutes=10), timedelta(minutes=10), 4, "tool"),
    "provision": Patience(timedelta(minutes=10), timedelta(hours=2), 3, "volunteer"),
    "parity": Patience(timedelta(minutes=30), timedelta(minutes=30), 4, "volunteer"),
    "lower-ttls": Patience(timedelta(minutes=10), timedelta(hours=6), 3, "gandi"),
    "remove-ds": Patience(timedelta(minutes=30), timedelta(hours=48), 3, "gandi"),
    "switch": Patience(timedelta(minutes=15), timedelta(hours=48), 3, "gandi"),
    "unlock": Patience(timedelta(hours=6), timedelta(hours=96), 3, "gandi"),
    "hold-code": Patience(timedelta(hours=6), timedelta(hours=6), 20, "gandi"),
    "reset-code": Patience(timedelta(hours=1), timedelta(hours=96), 3, "gandi"),
    "correct-code": Patience(timedelta(hours=1), timedelta(hours=24), 3, "volunteer"),
    "secure": Patience(timedelta(hours=1), timedelta(hours=24), 3, "volunteer"),
    "restore-nameservers": Patience(timedelta(minutes=15), timedelta(hours=48), 3, "gandi"),
    "restore-ds": Patience(timedelta(minutes=30), timedelta(hours=48), 3, "gandi"),
    "restore-ttls": Patience(timedelta(minutes=10), timedelta(hours=6), 3, "gandi"),
    "relock": Patience(timedelta(hours=1), timedelta(hours=96), 3, "gandi"),
    "remove-zone": Patience(timedelta(minutes=10), timedelta(hours=2), 3, "volunteer"),
}

ROLLBACKS: Mapping[State, str] = {
    State.CONSENTED: "retirer l'accord",
    State.PROVISIONED: "retirer la zone des nouveaux serveurs",
    State.PARITY_OK: "retirer la zone des nouveaux serveurs",
    State.TTL_LOWERED: "remettre les durées (TTL) chez Gandi",
    State.DS_REMOVED: "remettre les clés (DS) au registre",
    State.NS_SWITCHED: "remettre les serveurs de noms de Gandi : la zone y est encore servie",
    State.SETTLED: "remettre les serveurs de noms de Gandi : la zone y est encore servie",
    State.SERVICES_OK: "service par service",
    State.UNLOCK_REQUESTED: "remettre le verrou",
    State.UNLOCKED: "remettre le verrou",
    State.AUTHCODE_HELD: "faire un autre code, ce qui annule celui-ci",
    State.TRANSFER_ORDERED: "annuler la commande chez le nouveau bureau d'enregistrement",
    State.TRANSFER_PENDING: "écrire à Gandi pour refuser, avant la fin du délai : rien d'autre ne l'arrête",
    State.TRANSFERRED: "aucun : il faudrait un nouveau transfert",
    State.RESECURED: "retirer les DS et attendre",
}

DECISIONS: Mapping[str, tuple[str, ...]] = {
    "consent": ("by", "date", "payer"),
    "withdraw-consent": ("by",),
    "mail-mode": ("mode",),
    "waiver": ("subject", "reason", "by"),
    "price": ("euros", "by"),
    "mail-copied": ("address", "before", "after", "by"),
    "mail-abandoned": ("address", "reason", "by"),
    "services-checked": ("by",),
    "redirection": ("host", "by"),
    "secured": ("by",),
    "skip": ("step", "by"),
    "retry": ("by",),
    "rollback": ("to", "by"),
    "resume": ("by",),
    "abandon": ("reason", "by"),
}
"""What humans decide, and the fields each decision must have."""
SKIPPABLE = frozenset({State.TTL_LOWERED, State.RESECURED})
WAIVABLE = frozenset({"probe-failed", "probe-missing", "redirections-unready", "zone-drifted", "lock-missing"})
"""Refusals of the machine itself that a named human may lift; all others are hard."""


@dataclass(frozen=True)
class Asked:
    """An action that was done and whose effect is awaited: when first, when last, how many times."""

    first: datetime
    last: datetime
    times: int = 1


@dataclass(frozen=True)
class Problem:
    """What the plan or the audit found that blocks: a code, and a French sentence with its mend."""

    code: str
    says: str


@dataclass(frozen=True)
class Refusal:
    """Why an action is forbidden: a code, a French sentence with the mend, who can mend it, when time alone does."""

    code: str
    says: str
    who: Who = "volunteer"
    until: datetime | None = None


@dataclass(frozen=True)
class Evidence:
    """All that is known of a domain at one moment: what the world says now, and what the event file remembers.

    `content` is the hash of the exported data without TTLs, `fresh_content` the same of what stands at Gandi now
    (empty when it was not read this time). `old_ttl`, `ds_ttl`, `key_ttl` (of the zone's DNSKEY) and `ns_ttl` (of the
    parent's NS and the zone's own) are seconds, the longest ever seen. `*_since` is when an observation became true
    and stayed so. `problems` are what the plan and the audit block on. `code_tried`: the code that is held was refused
    once. `redirections_wrong`: what our front answers wrongly (in French), None when there are redirections and nobody
    asked it. `slot`: when the wave lets this domain switch.
    """

    domain: str
    now: datetime
    level: Level = "A"
    recorded: State = State.DISCOVERED
    ever: frozenset[State] = frozenset()
    last_event: datetime | None = None
    # what the world says
    facts: DomainFacts | None = None
    rule: RegistryRule | None = None
    rdap: RdapFacts | None = None
    delegation: Delegation | None = None
    new_nameservers: tuple[str, ...] = ()
    new_servers: tuple[ServerAnswer, ...] = ()
    old_nameservers: tuple[str, ...] = ()
    old_servers: tuple[ServerAnswer, ...] = ()
    tally: Tally | None = None
    order: TransferOrder | None = None
    gaining: str = ""
    old_registrar: str = ""
    # the export, the plan and their comparison
    content: str = ""
    fresh_content: str = ""
    export_problems: tuple[str, ...] = ()
    snapshot: bool = False
    dnskeys: bool = False
    mailboxes: tuple[str, ...] = ()
    balanced: bool = False
    applicable: bool = False
    problems: tuple[Problem, ...] = ()
    zone_hash: str = ""
    provisioned_hash: str = ""
    parity: Parity | None = None
    parity_zone_hash: str = ""
    redirections_wrong: tuple[str, ...] | None = ()
    ttls: Mapping[str, int] = field(default_factory=dict)
    # times
    old_ttl: int = 0
    ds_ttl: int = 0
    key_ttl: int = 0
    ns_ttl: int = 0
    was_signed: bool = False
    ttls_low_since: datetime | None = None
    ds_gone_since: datetime | None = None
    switched_since: datetime | None = None
    back_since: datetime | None = None
    slot: datetime | None = None
    asked: Mapping[str, Asked] = field(default_factory=dict)
    # the transfer
    was_locked: bool = False
    code_held: bool = False
    code_tried: bool = False
    code_expires: datetime | None = None
    quote: Quote | None = None
    quote_at: datetime | None = None
    order_intent: datetime | None = None
    ordered_at: datetime | None = None
    refused_at: datetime | None = None
    secured: bool = False
    # what people decided
    consent: bool = False
    mail_mode: MailMode | None = None
    waived: frozenset[str] = frozenset()
    confirmed_price: float | None = None
    mail_settled: frozenset[str] = frozenset()
    services_checked: bool = False
    skipped: frozenset[State] = frozenset()
    retry_at: datetime | None = None
    abandoned: bool = False
    rollback_to: State | None = None


@dataclass(frozen=True)
class Verdict:
    """Where the domain is, what comes next, and who must act.

    `state` is the place in the chain; `side` says that the move stands still there (blocked, waiting…). `action` is
    what the tool may do now (empty: nothing); `allowed` whether it may. `waiting_until` is the earliest next time worth
    a look. `irreversible` is about `action`. `reason` is French; `code` names a block.
    """

    state: State
    next: State | None
    allowed: bool
    reason: str
    waiting_until: datetime | None = None
    who: Who = "tool"
    action: str = ""
    rollback: str = ""
    irreversible: bool = False
    side: State | None = None
    code: str = ""
    refusals: tuple[Refusal, ...] = ()


def gandi_nameserver(host: str) -> bool:
    """Return whether a name server is one of Gandi's, of today or of old."""
    name = host.lower().rstrip(".")
    return fnmatch.fnmatch(name, "ns-*.gandi.net") or name.endswith(".dns.gandi.net")


def following(state: State) -> State | None:
    """Return the state after one of the chain, None after the last."""
    rank = RANK[state] + 1
    return CHAIN[rank] if rank < len(CHAIN) else None


def legal(before: State, after: State) -> bool:
    """Return whether a move may go from a state to another in one step.

    Forward one at a time (only optional states are passed by); backward freely, because reality may fall back, but
    never out of a transfer that is over.
    """
    if before in (State.ABANDONED, State.DONE):
        return after == before
    if after in SIDE or before in SIDE:
        return True
    if RANK[after] <= RANK[before]:
        return RANK[before] < RANK[State.TRANSFERRED] or RANK[after] >= RANK[State.TRANSFERRED]
    return all(state in OPTIONAL for state in CHAIN[RANK[before] + 1 : RANK[after]])


def exported(e: Evidence) -> bool:
    """Return whether all that lives at Gandi is in our hands, agrees with itself and is still what stands there."""
    return bool(e.content) and e.snapshot and not e.export_problems and e.fresh_content in ("", e.content)


def audited(e: Evidence) -> bool:
    """Return whether every entry is accounted for, nothing blocks, and the fate of mail is chosen."""
    return e.balanced and e.applicable and not e.problems and e.mail_mode is not None


def consented(e: Evidence) -> bool:
    """Return whether the holder's written consent is on file."""
    return e.consent


def answering(e: Evidence) -> bool:
    """Return whether every new name server answers with authority, all with one serial."""
    served = {answer.server for answer in e.new_servers if answer.authoritative and not answer.error}
    serials = {answer.serial for answer in e.new_servers}
    sound = all(answer.authoritative and not answer.error for answer in e.new_servers)
    return bool(e.new_nameservers) and served == set(e.new_nameservers) and sound and len(serials) == 1


def provisioned(e: Evidence) -> bool:
    """Return whether the zone of this plan is served by every new name server."""
    return bool(e.zone_hash) and e.provisioned_hash == e.zone_hash and answering(e)


def proven(e: Evidence) -> bool:
    """Return whether a full comparison of this export with this plan found nothing unexpected."""
    parity = e.parity
    return parity is not None and parity.ok and parity.export_sha256 == e.content and e.parity_zone_hash == e.zone_hash


def proof_fresh(e: Evidence) -> bool:
    """Return whether that comparison is younger than a day."""
    return proven(e) and e.parity is not None and timedelta(0) <= e.now - e.parity.at < FRESH_PARITY


def ttls_low(e: Evidence) -> bool:
    """Return whether every old server gives a low TTL for every rrset that was asked for, seen now."""
    wanted = {name for name, ttl in e.ttls.items() if ttl > LOW_TTL}
    return bool(e.old_servers) and all(
        not answer.error and all(answer.ttls.get(name, LOW_TTL + 1) <= LOW_TTL for name in wanted)
        for answer in e.old_servers
    )


def ttl_wait(e: Evidence) -> datetime | None:
    """Return when caches have forgotten the old TTLs; None while the old servers still give them."""
    return e.ttls_low_since + timedelta(seconds=e.old_ttl) if e.ttls_low_since else None


def ttl_lowered(e: Evidence) -> bool:
    """Return whether the TTLs are low and the old ones have run out (or a human chose to go on without)."""
    until = ttl_wait(e)
    return State.TTL_LOWERED in e.skipped or (until is not None and e.now >= until)


def ds_absent(e: Evidence) -> bool:
    """Return whether every parent server answers, and none has a DS."""
    return e.delegation is not None and e.delegation.complete and not e.delegation.ds


def ds_wait(e: Evidence) -> datetime | None:
    """Return when no resolver can expect signatures; None while a parent server still returns a DS.

    A DS is kept for its TTL, and the keys that were validated with it for theirs from then on.
    """
    if not e.ds_gone_since or not ds_absent(e):
        return None
    return e.ds_gone_since + timedelta(seconds=(e.ds_ttl + e.key_ttl) * DS_MARGIN)


def insecure(e: Evidence) -> bool:
    """Return whether no resolver can expect signatures: never signed, or the DS is gone and forgotten."""
    if not ds_absent(e) or e.dnskeys:
        return False
    until = ds_wait(e)
    return not e.was_signed or (until is not None and e.now >= until)


def ds_removed(e: Evidence) -> bool:
    """Return whether the domain was signed and no resolver can expect signatures any more."""
    return e.was_signed and insecure(e)


def _ours(delegation: Delegation | None, nameservers: Iterable[str]) -> bool:
    return delegation is not None and bool(delegation.nameservers) and delegation.nameservers == frozenset(nameservers)


def switched(e: Evidence) -> bool:
    """Return whether every parent server names our servers only; once seen, a silent parent does not undo it."""
    if not _ours(e.delegation, e.new_nameservers):
        return False
    return (e.delegation is not None and e.delegation.agreed) or e.switched_since is not None


def settle_wait(e: Evidence) -> datetime | None:
    """Return when no cache can hold the old delegation or an old answer; None before the switch."""
    if not e.switched_since:
        return None
    forgotten = ttl_wait(e)
    zone = LOW_TTL if forgotten and forgotten <= e.switched_since else e.old_ttl
    return e.switched_since + timedelta(seconds=max(e.ns_ttl, zone, NEGATIVE_TTL)) + SETTLE_MARGIN


def settled(e: Evidence) -> bool:
    """Return whether the switch is over everywhere and the probe saw no failure (asked once: then it may stop)."""
    until = settle_wait(e)
    over = switched(e) and until is not None and e.now >= until
    return over and (State.SETTLED in e.ever or not any(refuse_probe(e)))


def services_ok(e: Evidence) -> bool:
    """Return whether mail and redirections were seen to work at the new host."""
    return e.services_checked and not boxes_left(e) and not any(refuse_redirections(e))


def boxes_left(e: Evidence) -> tuple[str, ...]:
    """Return the mailboxes at Gandi that are neither copied and counted nor given up by their holder."""
    return tuple(box for box in e.mailboxes if box.lower() not in e.mail_settled)


def locked(e: Evidence) -> bool:
    """Return whether the registry or Gandi still refuse transfers; unknown counts as locked."""
    known = False
    if e.rdap is not None:
        known = True
        if _status(e.rdap, "client transfer prohibited"):
            return True
    if e.level != "C" and e.facts is not None:
        known = True
        if e.facts.registrar_lock:
            return True
    return not known


def unlock_asked(e: Evidence) -> bool:
    """Return whether the lock is lifted, or was asked to be."""
    return "unlock" in e.asked or not locked(e)


def code_good(e: Evidence) -> bool:
    """Return whether a code is in the vault and outlives the transfer."""
    return e.code_held and (e.code_expires is None or e.code_expires > e.now + code_margin(e))


def code_margin(e: Evidence) -> timedelta:
    """Return how long a code must still live: the registry's term and two days (ten days for .fr)."""
    return timedelta(days=(e.rule.reserve_days if e.rule else 8) + 2)


def _status(rdap: RdapFacts | None, wanted: str) -> bool:
    return rdap is not None and has_status(rdap.statuses, wanted)


def order_alive(e: Evidence) -> bool:
    """Return whether an order stands at the gaining registrar that was not refused."""
    return e.order is not None and e.order.stage != "refused"


def pending(e: Evidence) -> bool:
    """Return whether the registry or the gaining registrar says that the transfer is on its way."""
    return _status(e.rdap, "pending transfer") or (e.order is not None and e.order.stage in ("pending", "done"))


def transfer_due(e: Evidence) -> datetime:
    """Return when a transfer that nobody hurries is over: the registry's term, or what its registrar says if later."""
    term = (e.ordered_at or e.now) + timedelta(days=e.rule.reserve_days if e.rule else 8)
    return max(term, e.order.until) if e.order and e.order.until else term


def registrar_changed(e: Evidence) -> bool:
    """Return whether the registry names another registrar than at the start."""
    return bool(e.rdap and e.rdap.registrar and e.old_registrar and e.rdap.registrar != e.old_registrar)


def transferred(e: Evidence) -> bool:
    """Return whether the registry says that the domain has changed registrar, and to ours.

    Where the registry does not name registrars, the gaining registrar's word is taken.
    """
    if e.rdap is not None and e.rdap.registrar and e.old_registrar:
        return registrar_changed(e) and not gone_elsewhere(e)
    return e.order is not None and e.order.stage == "done"


def gone_elsewhere(e: Evidence) -> bool:
    """Return whether the domain has left for a registrar that we never asked."""
    if not registrar_changed(e) or e.rdap is None:
        return False
    known = bool(e.gaining) and e.gaining.lower() in e.rdap.registrar.lower()
    return not (known or order_alive(e) or e.ordered_at or e.recorded == State.DONE)


def relocked(e: Evidence) -> bool:
    """Return whether the new registrar was asked to lock and renew, and the registry (or a human) confirms the lock."""
    seen = e.rdap is None or _status(e.rdap, "client transfer prohibited") or "lock-missing" in e.waived
    return e.secured and seen


def resecured(e: Evidence) -> bool:
    """Return whether a DS of the new keys is at the parent."""
    return e.delegation is not None and bool(e.delegation.ds)


GATES: Mapping[State, Callable[[Evidence], bool]] = {
    State.EXPORTED: exported,
    State.AUDITED: audited,
    State.CONSENTED: consented,
    State.PROVISIONED: provisioned,
    State.PARITY_OK: proven,
    State.TTL_LOWERED: ttl_lowered,
    State.DS_REMOVED: ds_removed,
    State.NS_SWITCHED: switched,
    State.SETTLED: settled,
    State.SERVICES_OK: services_ok,
    State.UNLOCK_REQUESTED: unlock_asked,
    State.UNLOCKED: lambda e: not locked(e),
    State.AUTHCODE_HELD: code_good,
    State.TRANSFER_ORDERED: lambda e: order_alive(e) or _status(e.rdap, "pending transfer"),
    State.TRANSFER_PENDING: pending,
    State.TRANSFERRED: transferred,
    State.RESECURED: resecured,
    State.DONE: relocked,
}
"""The evidence with which a state may be entered (each also asks for all those before it, up to where reality is)."""


def position(e: Evidence) -> State:
    """Return where reality is, whatever the file says."""
    if e.recorded == State.DONE:
        return State.DONE
    if transferred(e):
        if relocked(e):
            return State.DONE
        return State.RESECURED if resecured(e) else State.TRANSFERRED
    if e.recorded in (State.TRANSFERRED, State.RESECURED):
        return e.recorded  # a registry's cache may lag behind itself; nobody comes back from a transfer
    if _status(e.rdap, "pending transfer") or order_alive(e):
        return State.TRANSFER_PENDING if pending(e) else State.TRANSFER_ORDERED
    if blind(e):
        return min(e.recorded, State.AUTHCODE_HELD, key=lambda state: RANK.get(state, 0))
    if switched(e):
        return _climb(e, State.NS_SWITCHED, State.AUTHCODE_HELD)
    return _climb(e, State.DISCOVERED, State.DS_REMOVED)


def blind(e: Evidence) -> bool:
    """Return whether no server of the parent zone says anything: the delegation is not known at all."""
    return e.delegation is None or not e.delegation.nameservers


def _climb(e: Evidence, foot: State, top: State) -> State:
    """Return the highest state from `foot` to `top` such that every gate on the way is open."""
    here = foot
    for state in CHAIN[RANK[foot] + 1 : RANK[top] + 1]:
        if not GATES[state](e):
            break
        here = state
    return here


def way(before: State, after: State, e: Evidence) -> list[State] | None:
    """Return the states entered on the way from one to another, or None when a gate on the way was never open.

    Going back is one step. An optional state is entered only when its own gate is open.
    """
    if RANK[after] <= RANK[before]:
        return [after] if after != before and legal(before, after) else ([] if after == before else None)
    found = []
    for state in CHAIN[RANK[before] + 1 : RANK[after] + 1]:
        if state in OPTIONAL and not GATES[state](e):
            continue
        if state != after and state not in e.ever and not GATES[state](e):
            return None
        found.append(state)
    return found


def refuse_incomplete(e: Evidence) -> Iterator[Refusal]:
    """Nothing is changed at Gandi before everything there is in our hands and accounted for."""
    if not e.content or not e.snapshot:
        yield Refusal("no-export", "Rien n'est encore sauvegardé : exportez d'abord la zone et faites-en une copie.")
    elif not (e.balanced and e.applicable and not e.problems):
        yield Refusal("plan-blocked", "Le plan n'est pas complet : réglez d'abord ce que l'audit bloque.")


def refuse_consent(e: Evidence) -> Iterator[Refusal]:
    """Nothing is changed without the holder's written consent."""
    if not e.consent:
        yield Refusal("consent-missing", "L'accord écrit du titulaire manque : demandez-le, puis notez-le.", "member")


def refuse_unproven(e: Evidence) -> Iterator[Refusal]:
    """Nothing is changed before the new servers were proven to answer as the old ones."""
    if not proven(e):
        yield Refusal("parity-failed", "Les nouveaux serveurs ne répondent pas comme les anciens : comparez, corrigez.")


def refuse_never_proven(e: Evidence) -> Iterator[Refusal]:
    """No transfer of a domain whose servers somebody switched before any comparison was clean."""
    if State.PARITY_OK not in e.ever:
        yield from refuse_unproven(e)


def refuse_stale(e: Evidence) -> Iterator[Refusal]:
    """No switch on a comparison older than a day."""
    if proven(e) and not proof_fresh(e):
        yield Refusal("parity-failed", "La comparaison a plus de 24 heures : refaites-la juste avant de basculer.")


def refuse_drift(e: Evidence) -> Iterator[Refusal]:
    """No change on an export that is no longer what stands at Gandi, or that was not read again."""
    if not e.fresh_content:
        yield Refusal("zone-drifted", "La zone n'a pas été relue chez Gandi : relisez-la juste avant d'agir.")
    elif e.fresh_content != e.content and "zone-drifted" not in e.waived:
        yield Refusal("zone-drifted", "La zone a changé chez Gandi depuis l'export : exportez-la à nouveau.")


def refuse_ds(e: Evidence) -> Iterator[Refusal]:
    """Neither switch nor transfer while a resolver may expect signatures."""
    if e.delegation is None or not e.delegation.complete:
        yield Refusal(
            "parents-silent", "Tous les serveurs du registre n'ont pas répondu : réessayez plus tard.", "registry"
        )
    elif e.delegation.ds or e.dnskeys:
        yield Refusal("ds-left", "Des clés DNSSEC (DS) restent au registre : retirez-les d'abord.")
    elif not insecure(e):
        yield Refusal("ds-left", "Des caches peuvent encore connaître les DS : attendez.", "tool", ds_wait(e))


def refuse_answers(e: Evidence) -> Iterator[Refusal]:
    """No switch to servers that do not already serve the zone."""
    if not provisioned(e):
        yield Refusal(
            "servers-silent", "Un des nouveaux serveurs ne sert pas la zone, ou pas la même : voyez ses journaux."
        )


def refuse_ttls(e: Evidence) -> Iterator[Refusal]:
    """No switch before the old TTLs have run out."""
    if not ttl_lowered(e):
        yield Refusal("ttl-high", "Les anciennes durées (TTL) ne sont pas écoulées : attendez.", "tool", ttl_wait(e))


def refuse_probe(e: Evidence) -> Iterator[Refusal]:
    """No switch, and no end of it, without a probe that looks all the time and sees no failure."""
    if e.tally is None:
        if "probe-missing" not in e.waived:
            yield Refusal("probe-missing", "Aucune sonde ne tourne : lancez-la, et laissez-la tourner.")
    elif e.tally.failed and "probe-failed" not in e.waived:
        yield Refusal(
            "probe-failed",
            f"La sonde a vu {e.tally.failed} échec(s) sur {e.tally.total} : cherchez pourquoi avant de continuer.",
        )
    elif e.tally.unproven and "probe-failed" not in e.waived:
        yield Refusal(
            "probe-unproven",
            f"La sonde n'a pas encore vu d'erreur faite exprès ({e.tally.unproven[0]}) : laissez-la tourner.",
            "tool",
            e.now + timedelta(minutes=10),
        )


def refuse_redirections(e: Evidence) -> Iterator[Refusal]:
    """No switch, and no end of it, while our front does not answer a redirection as Gandi does."""
    if "redirections-unready" in e.waived:
        return
    if e.redirections_wrong is None:
        yield Refusal(
            "redirections-unready", "Des redirections sont à reprendre, et rien ne les a vérifiées chez nous."
        )
    elif e.redirections_wrong:
        yield Refusal("redirections-unready", e.redirections_wrong[0])


def refuse_gandi_dns(e: Evidence) -> Iterator[Refusal]:
    """No transfer while a name server of Gandi's, or any that is not ours, is named."""
    named = e.delegation.nameservers if e.delegation else frozenset()
    if any(gandi_nameserver(host) for host in named) or not switched(e):
        yield Refusal("ns-at-gandi", "La zone n'est pas entièrement chez nous : basculez d'abord les serveurs de noms.")


def refuse_unsettled(e: Evidence) -> Iterator[Refusal]:
    """No transfer before the switch is over everywhere and services were seen to work."""
    if not settled(e):
        yield Refusal(
            "unsettled", "La bascule n'est pas terminée partout : attendez.", "tool", _later(e, settle_wait(e))
        )
    elif not e.services_checked:
        yield Refusal("services-unchecked", "Personne n'a confirmé que courrier, sites et redirections fonctionnent.")


def refuse_mail(e: Evidence) -> Iterator[Refusal]:
    """No transfer while mail lives at Gandi: it would stop at once and be erased after seven days."""
    if e.mail_mode in (None, "gandi"):
        yield Refusal("mail-at-gandi", "Le courrier reste chez Gandi : un transfert le couperait aussitôt.", "member")
    left = boxes_left(e)
    if left:
        yield Refusal(
            "mail-not-copied",
            f"{len(left)} boîte(s) de Gandi ne sont ni copiées et comptées, ni abandonnées : {', '.join(left[:3])}.",
        )


def refuse_expiry(e: Evidence) -> Iterator[Refusal]:
    """No transfer near the end of the registration."""
    expires = (e.rdap.expires if e.rdap else None) or (e.facts.expires if e.facts else None)
    least = e.rule.minimum_expiry_days if e.rule else 30
    if expires is None:
        yield Refusal("expires-soon", "La date d'expiration n'est pas connue : lisez-la chez Gandi.")
    elif expires - e.now < timedelta(days=least):
        yield Refusal(
            "expires-soon",
            f"Le domaine expire dans moins de {least} jours : renouvelez-le d'abord chez Gandi.",
            "member",
        )


def refuse_sixty_days(e: Evidence) -> Iterator[Refusal]:
    """No transfer in the sixty days after a creation or a transfer, where the registry says so."""
    if e.rule is None:
        yield Refusal("rule-unknown", "Les règles de ce registre ne sont pas connues : ajoutez-les à registries.yml.")
        return
    moments = [e.facts.created if e.facts else None, e.rdap.transferred if e.rdap else None]
    latest = max((moment for moment in moments if moment), default=None)
    if e.rule.lock60 and latest and e.now < latest + timedelta(days=60):
        until = latest + timedelta(days=60)
        yield Refusal(
            "locked-60-days", "Le registre interdit un transfert dans les 60 jours : attendez.", "registry", until
        )


def refuse_code(e: Evidence) -> Iterator[Refusal]:
    """No order without a code that will outlive it."""
    if locked(e):
        yield Refusal("locked", "Le domaine est encore verrouillé : attendez qu'il soit ouvert.", "gandi")
    if not code_good(e):
        yield Refusal("auth-code-missing", "Aucun code de transfert valable assez longtemps n'est au coffre.")
    elif e.code_tried:
        yield Refusal("auth-code-wrong", "Ce code a déjà été refusé : faites-en faire un autre.")


def refuse_price(e: Evidence) -> Iterator[Refusal]:
    """No order whose dry run did not pass just now, or whose price no human has confirmed."""
    if e.quote is None or e.quote_at is None or not timedelta(0) <= e.now - e.quote_at < QUOTE_LIFE or e.quote.problems:
        yield Refusal("no-quote", "L'essai de commande (à blanc) n'a pas été fait, ou a plus de 24 heures.")
    elif e.confirmed_price is None or e.confirmed_price < (e.quote.price or 0):
        price = "inconnu" if e.quote.price is None else f"{e.quote.price:.2f} €"
        lacks = (
            "n'est pas confirmé"
            if e.confirmed_price is None
            else f"dépasse ce qui a été accepté ({e.confirmed_price:.2f} €)"
        )
        yield Refusal(
            "price-unconfirmed",
            f"Le prix ({price}) {lacks} : un humain doit l'accepter. Commander ne se défait pas.",
        )


def refuse_twice(e: Evidence) -> Iterator[Refusal]:
    """No second order while one stands, or while one whose answer was lost may still appear."""
    if order_alive(e) or _status(e.rdap, "pending transfer") or registrar_changed(e):
        yield Refusal("ordered-already", "Une commande existe déjà : on n'en passe pas deux.")
    elif e.order is not None and not _may_order_again(e):
        yield Refusal("transfer-refused", "La commande a été refusée : réglez la cause, puis notez « retry ».")
    elif e.order_intent and e.now < e.order_intent + ORDER_GRACE:
        until = e.order_intent + ORDER_GRACE
        yield Refusal("order-unknown", "Une commande est peut-être partie : on attend de la voir.", "tool", until)


def refuse_live(e: Evidence) -> Iterator[Refusal]:
    """Keep the zone that the world reads from us from being written over with Gandi's, or taken away."""
    named = e.delegation.nameservers if e.delegation else frozenset()
    if blind(e) or named & frozenset(e.new_nameservers):
        yield Refusal("zone-live", "La zone est en service sur nos serveurs : on n'y touche plus d'ici.")
    elif e.back_since and e.now < back_wait(e):
        yield Refusal("zone-live", "Des caches connaissent encore nos serveurs : attendez.", "tool", back_wait(e))


def refuse_dark_rollback(e: Evidence) -> Iterator[Refusal]:
    """No way back to servers that no longer serve the zone."""
    if not e.old_servers or not all(answer.authoritative and not answer.error for answer in e.old_servers):
        yield Refusal(
            "old-zone-gone", "Les serveurs de Gandi ne servent plus la zone : y revenir la couperait.", "gandi"
        )


def refuse_unsigned_ds(e: Evidence) -> Iterator[Refusal]:
    """No DS back before the delegation is back everywhere and the old zone is signed."""
    if not e.old_servers or not all(answer.signed and not answer.error for answer in e.old_servers):
        yield Refusal(
            "old-zone-unsigned", "La zone chez Gandi n'est plus signée : remettre un DS la couperait.", "gandi"
        )
    yield from refuse_live(e)


def refuse_past(e: Evidence) -> Iterator[Refusal]:
    """Nothing is taken back while a transfer is on its way, or after it."""
    if transferred(e) or registrar_changed(e):
        yield Refusal("no-return", "Le transfert est fait : il n'y a plus de retour, sinon un nouveau transfert.")
    elif order_alive(e) or _status(e.rdap, "pending transfer"):
        yield Refusal(
            "transfer-running", "Un transfert est en cours : annulez-le d'abord chez le bureau d'enregistrement."
        )


def refuse_not_ours(e: Evidence) -> Iterator[Refusal]:
    """Nothing is set at the gaining registrar before the domain is there."""
    if not transferred(e):
        yield Refusal("not-transferred", "Le registre ne dit pas encore que le domaine a changé de bureau.", "registry")


Check = Callable[[Evidence], Iterator[Refusal]]
_CHANGE: tuple[Check, ...] = (refuse_past, refuse_incomplete, refuse_consent, refuse_unproven)
_LEAVE: tuple[Check, ...] = (
    refuse_consent,
    refuse_never_proven,
    refuse_mail,
    refuse_gandi_dns,
    refuse_ds,
    refuse_unsettled,
    refuse_expiry,
    refuse_sixty_days,
    refuse_drift,
)
INTERLOCKS: Mapping[str, tuple[Check, ...]] = {
    "export": (),
    "provision": (refuse_past, refuse_incomplete, refuse_consent, refuse_live),
    "parity": (),
    "lower-ttls": (*_CHANGE, refuse_drift),
    "remove-ds": (*_CHANGE, refuse_drift, refuse_answers),
    "switch": (
        *_CHANGE,
        refuse_stale,
        refuse_drift,
        refuse_ds,
        refuse_answers,
        refuse_ttls,
        refuse_redirections,
        refuse_probe,
    ),
    "unlock": (refuse_past, *_LEAVE),
    "hold-code": (refuse_past, *_LEAVE),
    "reset-code": (refuse_past,),
    "quote": (*_LEAVE, refuse_code, refuse_twice),
    "order": (*_LEAVE, refuse_code, refuse_price, refuse_twice),
    "correct-code": (*_LEAVE, refuse_code),
    "secure": (refuse_not_ours,),
    "relock": (refuse_past,),
    "restore-nameservers": (refuse_past, refuse_dark_rollback),
    "restore-ds": (refuse_past, refuse_unsigned_ds),
    "restore-ttls": (refuse_past,),
    "remove-zone": (refuse_past, refuse_live),
}
"""What forbids each action. An action that is not named here does not exist."""
IRREVERSIBLE = frozenset({"order", "correct-code"})
NEEDS_EXPORT = frozenset(action for action, checks in INTERLOCKS.items() if refuse_drift in checks) | {"parity"}
"""Actions before which everything at Gandi is read again."""


def interlocks(e: Evidence, action: str) -> list[Refusal]:
    """Return everything that forbids an action now; an empty list allows it."""
    return [refusal for check in INTERLOCKS[action] for refusal in check(e)]


def back_wait(e: Evidence) -> datetime:
    """Return when no cache can name our servers any more after a way back."""
    return (e.back_since or e.now) + timedelta(seconds=max(e.ns_ttl, LOW_TTL))


def _later(e: Evidence, moment: datetime | None) -> datetime | None:
    return moment if moment and moment > e.now else None


def _may_order_again(e: Evidence) -> bool:
    """Return whether a human said so after the refusal, or only the code of an order that never stood was wrong."""
    if e.order is not None and not e.order.id and about_code(e.order.reason):
        return not e.code_tried
    return bool(e.retry_at and e.refused_at and e.retry_at >= e.refused_at)


_CODE = re.compile(r"auth[ _-]?(code|info|id)\b|(authorization|transfer) code|\bepp\b|code de transfert", re.IGNORECASE)


def about_code(reason: str) -> bool:
    """Return whether a registrar's words are about the transfer code."""
    return bool(_CODE.search(reason))


def _act(e: Evidence, here: State, action: str, reason: str) -> Verdict:
    """Propose an action, unless an interlock forbids it."""
    refusals = tuple(interlocks(e, action))
    if not refusals:
        return Verdict(
            here, following(here), True, reason, None, "tool", action, ROLLBACKS.get(here, ""), action in IRREVERSIBLE
        )
    if not e.fresh_content and any(refusal.code == "zone-drifted" for refusal in refusals):
        # Everything at Gandi must be read again first; only then are the refusals worth saying.
        return Verdict(here, following(here), False, reason, None, "tool", action, ROLLBACKS.get(here, ""))
    timed = [r.until for r in refusals if r.until]
    first = next((r for r in refusals if not r.until), refusals[0])
    if len(timed) == len(refusals):
        return _wait(e, here, first.says, max(timed), first.who, first.code)
    return replace(_block(here, first.code, first.says, first.who), refusals=refusals)


def _block(here: State, code: str, says: str, who: Who) -> Verdict:
    return Verdict(
        here, following(here), False, says, None, who, "", ROLLBACKS.get(here, ""), side=State.BLOCKED, code=code
    )


def _wait(e: Evidence, here: State, says: str, until: datetime, who: Who, code: str = "") -> Verdict:
    until = max(until, e.now + timedelta(minutes=1))
    return Verdict(
        here, following(here), False, says, until, who, "", ROLLBACKS.get(here, ""), side=State.WAITING, code=code
    )


def _pursue(e: Evidence, here: State, action: str, doing: str, waiting: str) -> Verdict:
    """Do an action, then wait for its effect; ask again after a while, and call for help in the end."""
    asked, patience = e.asked.get(action), PATIENCE[action]
    if asked is None:
        return _act(e, here, action, doing)
    if e.now < asked.last + patience.limit:
        until = min(asked.last + patience.limit, e.now + patience.poll)
        return _wait(e, here, waiting, until, patience.who)
    if asked.times < patience.tries:
        return _act(e, here, action, doing)
    says = f"{waiting} Demandé {asked.times} fois depuis le {asked.first:%d/%m/%Y} sans effet : il faut s'en occuper."
    return _block(here, "never-completes", says, "volunteer" if patience.who == "tool" else patience.who)


def _discovered(e: Evidence) -> Verdict:
    here, asked, doing = State.DISCOVERED, e.asked.get("export"), "Exporter tout ce qui vit chez Gandi."
    if asked is None or e.fresh_content not in ("", e.content):
        return _act(e, here, "export", doing)
    if asked.times >= PATIENCE["export"].tries:
        return _block(here, "export-disagrees", f"L'export se contredit : {e.export_problems[0]}", "volunteer")
    return _pursue(e, here, "export", doing, "L'export se contredit : quelqu'un modifie peut-être la zone, on relit.")


def _exported(e: Evidence) -> Verdict:
    here = State.EXPORTED
    if e.mail_mode is None:
        says = "Où ira le courrier ? Nulle part (none), ailleurs (external), chez nous (infini), ou il reste (gandi)."
        return _block(here, "mail-mode-missing", says, "volunteer")
    if e.problems:
        return _block(here, e.problems[0].code, e.problems[0].says, "volunteer")
    return _block(here, "plan-blocked", "Le compte des enregistrements n'est pas juste : signalez-le.", "volunteer")


def _audited(_e: Evidence) -> Verdict:
    says = "L'accord écrit du titulaire manque (et qui paie) : envoyez-lui le message, puis notez sa réponse."
    return _block(State.AUDITED, "consent-missing", says, "member")


def _consented(e: Evidence) -> Verdict:
    return _pursue(
        e,
        State.CONSENTED,
        "provision",
        "Mettre la zone sur les nouveaux serveurs.",
        "Les nouveaux serveurs se mettent à jour.",
    )


def _provisioned(e: Evidence) -> Verdict:
    return _compare(e, State.PROVISIONED)


def _compare(e: Evidence, here: State) -> Verdict:
    """Compare; a comparison that failed is done again a few times, because servers may lag."""
    asked = e.asked.get("parity")
    if asked and not proven(e) and asked.times >= PATIENCE["parity"].tries:
        wrong = e.parity.unexpected if e.parity else ()
        told = f"{wrong[0].name} {wrong[0].type}" if wrong else "le contrôle témoin n'a pas été vu"
        says = f"Anciens et nouveaux serveurs répondent différemment ({len(wrong)} fois, d'abord : {told})."
        return _block(here, "parity-failed", says, "volunteer")
    if asked and not proven(e) and e.now < asked.last + PATIENCE["parity"].limit:
        until = asked.last + PATIENCE["parity"].limit
        return _wait(e, here, "La comparaison a trouvé des différences : on recommence bientôt.", until, "tool")
    return _act(e, here, "parity", "Comparer chaque réponse des anciens et des nouveaux serveurs.")


def _parity_ok(e: Evidence) -> Verdict:
    until = ttl_wait(e)
    if until:
        return _wait(e, State.PARITY_OK, "Les anciennes durées (TTL) s'écoulent dans les caches.", until, "tool")
    return _pursue(
        e, State.PARITY_OK, "lower-ttls", "Abaisser les durées (TTL) chez Gandi.", "Gandi publie les durées abaissées."
    )


def _ttl_lowered(e: Evidence) -> Verdict:
    here = State.TTL_LOWERED
    if not e.was_signed and not e.dnskeys and ds_absent(e):
        return _switch(e, here)
    until = ds_wait(e)
    if until and not e.dnskeys:
        return _wait(e, here, "Les caches oublient les DS ; la zone reste signée chez Gandi.", until, "tool")
    return _pursue(
        e, here, "remove-ds", "Retirer les DS au registre ; la zone reste signée.", "Le registre retire les DS."
    )


def _switch(e: Evidence, here: State) -> Verdict:
    asked = e.asked.get("switch")
    waiting = asked is not None and e.now < asked.last + PATIENCE["switch"].limit
    if not waiting:
        if not proof_fresh(e):
            return _compare(e, here)
        if e.slot and e.slot > e.now:
            return _wait(e, here, "La vague du jour est pleine : ce domaine a sa place plus tard.", e.slot, "tool")
    return _pursue(
        e, here, "switch", "Basculer les serveurs de noms.", "Le registre publie les nouveaux serveurs de noms."
    )


def _ds_removed(e: Evidence) -> Verdict:
    return _switch(e, State.DS_REMOVED)


def _ns_switched(e: Evidence) -> Verdict:
    here = State.NS_SWITCHED
    for refusal in refuse_probe(e):
        if refusal.until:
            return _wait(e, here, refusal.says, refusal.until, refusal.who, refusal.code)
        return _block(here, refusal.code, refusal.says, refusal.who)
    until = settle_wait(e) or e.now
    return _wait(e, here, "Les caches oublient les anciens serveurs de noms.", until, "tool")


def _settled(e: Evidence) -> Verdict:
    left = boxes_left(e)
    if left and e.mail_mode != "gandi":
        says = f"{len(left)} boîte(s) à copier et à compter avant de continuer, d'abord {left[0]}."
        return _block(State.SETTLED, "mail-not-copied", says, "volunteer")
    if e.mail_mode == "gandi":
        says = "La zone est chez nous ; le courrier reste chez Gandi, donc le domaine aussi."
        return _block(State.SETTLED, "mail-at-gandi", says, "member")
    for refusal in refuse_redirections(e):
        return _block(State.SETTLED, refusal.code, refusal.says, refusal.who)
    says = "Vérifiez courrier, sites, redirections et certificats depuis les nouveaux serveurs, puis notez-le."
    return _block(State.SETTLED, "services-unchecked", says, "volunteer")


def _services_ok(e: Evidence) -> Verdict:
    if any(refuse_never_proven(e)):
        return _compare(e, State.SERVICES_OK)
    return _act(e, State.SERVICES_OK, "unlock", "Demander à Gandi de lever le verrou.")


def _unlock_requested(e: Evidence) -> Verdict:
    return _pursue(
        e,
        State.UNLOCK_REQUESTED,
        "unlock",
        "Demander à Gandi de lever le verrou.",
        "Gandi lève le verrou (jusqu'à 72 heures).",
    )


def _unlocked(e: Evidence) -> Verdict:
    here = State.UNLOCKED
    fetched = e.asked.get("hold-code")
    stale = e.code_held and not code_good(e)
    late = fetched and e.now >= fetched.first + timedelta(hours=96) and "reset-code" not in e.asked
    if (stale or late) and "reset-code" not in e.asked:
        return _act(e, here, "reset-code", "Faire faire un nouveau code de transfert.")
    return _pursue(
        e, here, "hold-code", "Lire le code de transfert et le mettre au coffre.", "Gandi n'a pas encore donné le code."
    )


def _authcode_held(e: Evidence) -> Verdict:
    here = State.AUTHCODE_HELD
    if e.order is not None and e.order.stage == "refused" and not _may_order_again(e):
        return _refused_order(e, e.order)
    if e.code_tried:
        return _new_code(e)
    fresh = e.quote is not None and e.quote_at is not None and e.now - e.quote_at < QUOTE_LIFE
    if not fresh:
        return _act(e, here, "quote", "Essayer la commande à blanc.")
    return _act(e, here, "order", "Commander le transfert : on ne revient plus en arrière sans écrire à Gandi.")


def _new_code(e: Evidence) -> Verdict:
    here = State.AUTHCODE_HELD
    corrected = e.asked.get("reset-code")
    if corrected and corrected.times >= PATIENCE["reset-code"].tries:
        says = "Le registre refuse tous les codes de transfert : demandez-en un à Gandi, par écrit."
        return _block(here, "auth-code-wrong", says, "volunteer")
    return _act(e, here, "reset-code", "Le code a été refusé : en faire faire un autre.")


def _refused_order(e: Evidence, order: TransferOrder) -> Verdict:
    here = State.AUTHCODE_HELD
    if not about_code(order.reason):
        says = f"Le transfert a été refusé ({order.reason or 'sans raison'}) : réglez la cause, puis notez « retry »."
        return _block(here, "transfer-refused", says, "volunteer")
    if e.code_tried:
        return _new_code(e)
    return _pursue(
        e, here, "correct-code", "Donner le nouveau code à la commande.", "Le registre examine le nouveau code."
    )


def _ordered(e: Evidence) -> Verdict:
    here = position(e)
    due = transfer_due(e)
    if e.now > due + timedelta(days=5):
        says = f"Le transfert aurait dû finir le {due:%d/%m/%Y} : demandez au nouveau bureau d'enregistrement."
        return _block(here, "transfer-late", says, "registry")
    says = f"Transfert en cours, fini au plus tard vers le {due:%d/%m/%Y} ; Gandi seul peut encore le refuser."
    return _wait(e, here, says, min(max(due, e.now + timedelta(hours=1)), e.now + timedelta(hours=12)), "registry")


def _transferred(e: Evidence) -> Verdict:
    here = position(e)
    if not transferred(e):
        says = "Le registre se contredit sur le bureau d'enregistrement : on relit plus tard."
        return _wait(e, here, says, e.now + timedelta(hours=1), "registry", "registry-contradicts")
    if not blind(e) and not _ours(e.delegation, e.new_nameservers):
        says = "Les serveurs de noms ont changé pendant le transfert : remettez les nôtres tout de suite."
        return _block(here, "ns-changed", says, "volunteer")
    asked = e.asked.get("secure")
    if asked and asked.times >= PATIENCE["secure"].tries and e.now >= asked.last + PATIENCE["secure"].limit:
        says = "Le verrou n'est pas visible au registre : vérifiez-le au nouveau bureau, puis notez « secured »."
        return _block(here, "lock-missing", says, "volunteer")
    return _pursue(e, here, "secure", "Remettre le verrou et le renouvellement.", "Le registre doit montrer le verrou.")


def _done(_e: Evidence) -> Verdict:
    return Verdict(State.DONE, None, False, "Terminé : plus rien ne dépend de Gandi.")


_NEXT: Mapping[State, Callable[[Evidence], Verdict]] = {
    State.DISCOVERED: _discovered,
    State.EXPORTED: _exported,
    State.AUDITED: _audited,
    State.CONSENTED: _consented,
    State.PROVISIONED: _provisioned,
    State.PARITY_OK: _parity_ok,
    State.TTL_LOWERED: _ttl_lowered,
    State.DS_REMOVED: _ds_removed,
    State.NS_SWITCHED: _ns_switched,
    State.SETTLED: _settled,
    State.SERVICES_OK: _services_ok,
    State.UNLOCK_REQUESTED: _unlock_requested,
    State.UNLOCKED: _unlocked,
    State.AUTHCODE_HELD: _authcode_held,
    State.TRANSFER_ORDERED: _ordered,
    State.TRANSFER_PENDING: _ordered,
    State.TRANSFERRED: _transferred,
    State.RESECURED: _transferred,
    State.DONE: _done,
}


def _undo(e: Evidence, here: State, to: State) -> Verdict:
    """Say what is taken back next, last thing first."""
    for refusal in refuse_past(e):
        return _block(here, refusal.code, refusal.says, refusal.who)
    after = {state: RANK[to] < RANK[state] for state in CHAIN}
    named = e.delegation.nameservers if e.delegation else frozenset()
    if e.code_held and after[State.AUTHCODE_HELD]:
        return _act(e, here, "reset-code", "Annuler le code de transfert en en faisant un autre.")
    if e.was_locked and not locked(e) and after[State.UNLOCK_REQUESTED]:
        return _pursue(e, here, "relock", "Remettre le verrou.", "Gandi remet le verrou.")
    if after[State.NS_SWITCHED] and named & frozenset(e.new_nameservers) and e.old_nameservers:
        return _pursue(
            e,
            here,
            "restore-nameservers",
            "Remettre les serveurs de noms de Gandi.",
            "Le registre remet les anciens serveurs.",
        )
    if after[State.DS_REMOVED] and e.was_signed and ds_absent(e):
        return _pursue(e, here, "restore-ds", "Remettre les DS au registre.", "Le registre remet les DS.")
    if after[State.TTL_LOWERED] and e.ttls_low_since and any(ttl > LOW_TTL for ttl in e.ttls.values()):
        return _pursue(e, here, "restore-ttls", "Remettre les durées (TTL).", "Gandi publie les anciennes durées.")
    if after[State.PROVISIONED] and e.provisioned_hash:
        return _act(e, here, "remove-zone", "Retirer la zone des nouveaux serveurs.")
    says = "Le déménagement a été défait à la demande d'un humain ; « resume » le reprend."
    return Verdict(here, None, False, says, None, "volunteer", side=State.ROLLED_BACK)


def judge(e: Evidence) -> Verdict:
    """Say where the domain is, what comes next, who must act, until when to wait, and what forbids it."""
    here = position(e)
    if e.abandoned:
        says = "Ce déménagement est abandonné."
        return Verdict(here, None, False, says, None, "volunteer", side=State.ABANDONED)
    if here == State.DONE:
        return _done(e)
    if e.last_event and e.now < e.last_event - timedelta(minutes=5):
        says = f"L'horloge retarde : le dernier événement est du {e.last_event:%d/%m/%Y %H:%M}. Mettez-la à l'heure."
        return _block(here, "clock-backwards", says, "volunteer")
    if gone_elsewhere(e):
        says = f"Le domaine est parti ailleurs ({e.rdap.registrar if e.rdap else ''}) sans nous : voyez avec le membre."
        return _block(here, "gone-elsewhere", says, "member")
    if blind(e) and RANK[here] < RANK[State.TRANSFER_ORDERED]:
        says = "Aucun serveur du registre ne répond : on ne sait pas où en est le domaine."
        return _wait(e, here, says, e.now + timedelta(minutes=10), "registry", "parents-silent")
    if e.rollback_to is not None:
        return _undo(e, here, e.rollback_to)
    return _NEXT[here](e)
