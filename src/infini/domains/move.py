# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The move of one domain: read the world, ask `states`, do one thing, remember it; safe to stop at any point.

Nothing is believed because it was asked for: each step reads the world again, and the file of events only keeps what
the world cannot tell (when something began, what people decided, what was asked). What cannot be taken back is
announced in the file before it is done, so that a killed run never does it twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Protocol

from infini.domains import reading
from infini.domains.audit import audit, contradictions
from infini.domains.caller import CallError
from infini.domains.events import Event, Store
from infini.domains.observed import (
    Delegation,
    Difference,
    DomainFacts,
    Export,
    Level,
    MailMode,
    Parity,
    Quote,
    RdapFacts,
    Redirection,
    ServerAnswer,
    TransferOrder,
)
from infini.domains.plan import Options, Plan, make_plan
from infini.domains.ports import ByHandError, Clock, Dns, Gaining, Losing, Registry, Target, Web, WorldError
from infini.domains.registries import RegistryRule, rule_for
from infini.domains.secrets import AuthCodes, fingerprint, redact
from infini.domains.states import (
    CHAIN,
    DECISIONS,
    LOW_TTL,
    NEEDS_EXPORT,
    ORDER_GRACE,
    RANK,
    SKIPPABLE,
    Asked,
    Evidence,
    Problem,
    State,
    Verdict,
    Who,
    about_code,
    gandi_nameserver,
    interlocks,
    judge,
    switched,
    ttls_low,
    way,
)
from infini.domains.waves import Waves
from infini.domains.zone import Rrset, Zone
from infini.errors import RefusedError
from infini.phrase import Phrase, said

MAIL_MODES: tuple[MailMode, ...] = ("none", "external", "gandi", "infini")
_HANDLED = frozenset({"consent-missing", "ds-left", "zone-drifted", "parity-failed", "mail-at-gandi"})
"""Findings of the audit that do not stop a move at once: a later state sees to each."""
_ACCESS = re.compile(r"\b40[13]\b|expir|token|jeton", re.IGNORECASE)
_ORGANISATION = re.compile(r"\b404\b|organi[sz]ation|sharing", re.IGNORECASE)


class Vault(Protocol):
    """Where transfer codes are kept, encrypted; nothing else may hold one."""

    def put(self, domain: str, code: str, expires: datetime | None) -> None:
        """Keep a domain's code in place of the one before."""

    def get(self, domain: str) -> str | None:
        """Return a domain's code, None when there is none."""


class CodeVault:
    """A Vault in the encrypted files of the control host."""

    def __init__(self, codes: AuthCodes) -> None:
        self._codes = codes

    def put(self, domain: str, code: str, expires: datetime | None) -> None:
        """Keep a domain's code in place of the one before."""
        self._codes.put(domain, code, expires)

    def get(self, domain: str) -> str | None:
        """Return a domain's code (masked when printed), None when there is none."""
        kept = self._codes.get(domain)
        return kept.code if kept else None


@dataclass(frozen=True)
class Step:
    """What one `advance` found and did. `acted` is the action that was done (empty: none); `says` is French."""

    domain: str
    at: datetime
    verdict: Verdict
    acted: str = ""
    says: str = ""

    @property
    def changed(self) -> bool:
        """Return whether something was done: worth advancing again."""
        return bool(self.acted)

    @property
    def state(self) -> State:
        """Return the place in the chain."""
        return self.verdict.state

    @property
    def side(self) -> State | None:
        """Return the side state (blocked, waiting, failed…), None when the move can go on."""
        return self.verdict.side

    @property
    def code(self) -> str:
        """Return the code of a block, empty when there is none."""
        return self.verdict.code

    @property
    def who(self) -> Who:
        """Return who must act."""
        return self.verdict.who

    @property
    def waiting_until(self) -> datetime | None:
        """Return the earliest time worth another look, None when time alone changes nothing."""
        return self.verdict.waiting_until

    @property
    def blocked(self) -> bool:
        """Return whether a human must act before anything can go on."""
        return self.side in (State.BLOCKED, State.FAILED, State.ROLLED_BACK, State.ABANDONED)

    @property
    def done(self) -> bool:
        """Return whether the move is over and well."""
        return self.state == State.DONE and self.side is None


@dataclass
class Memory:
    """What the events of a domain say, folded in their order."""

    recorded: State = State.DISCOVERED
    ever: set[State] = field(default_factory=lambda: {State.DISCOVERED})
    last: datetime | None = None
    discovered: bool = False
    registrar: str = ""
    nameservers: tuple[str, ...] = ()
    locked: bool = False
    export: Mapping[str, Any] = field(default_factory=dict)
    snapshot: bool = False
    drift: str = ""
    drifted: datetime | None = None
    provisioned: str = ""
    parity: Parity | None = None
    parity_zone: str = ""
    since: dict[str, datetime] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)
    code: str = ""
    code_expires: datetime | None = None
    spent: set[str] = field(default_factory=set)
    quote: Quote | None = None
    quote_at: datetime | None = None
    intent: datetime | None = None
    ordered: datetime | None = None
    order: TransferOrder | None = None
    news: bool = False
    refused: datetime | None = None
    secured: bool = False
    by_hand: set[str] = field(default_factory=set)
    consent: bool = False
    mail_mode: MailMode | None = None
    waivers: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    redirections: set[str] = field(default_factory=set)
    price: float | None = None
    mail: set[str] = field(default_factory=set)
    services: bool = False
    skipped: set[State] = field(default_factory=set)
    retry: datetime | None = None
    abandoned: bool = False
    rollback: State | None = None


def remember(events: Iterable[Event]) -> Memory:
    """Fold events into what they mean together."""
    memory = Memory()
    for event in events:
        memory.last = event.at
        fold = _FOLDS.get(event.kind)
        if fold:
            fold(memory, event)
    return memory


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _fold_discovered(memory: Memory, event: Event) -> None:
    memory.discovered = True
    memory.registrar = event.data["registrar"]
    memory.nameservers = tuple(event.data["nameservers"])
    memory.locked = event.data["locked"]


def _fold_exported(memory: Memory, event: Event) -> None:
    again = memory.asked.get("export") if event.data["problems"] else None
    memory.export, memory.asked, memory.drift = event.data, {"export": again} if again else {}, ""
    if event.data["problems"]:
        _fold_acted(memory, replace(event, data={"action": "export"}))
    _fold_observed(memory, replace(event, data={"what": "dnskeys", "is": event.data["signed"]}))


def _fold_snapshot(memory: Memory, _event: Event) -> None:
    memory.snapshot = True


def _fold_drift(memory: Memory, event: Event) -> None:
    memory.drift, memory.drifted = event.data["new"], event.at


def _fold_provisioned(memory: Memory, event: Event) -> None:
    memory.provisioned = event.data["zone"]


def _fold_parity(memory: Memory, event: Event) -> None:
    data = event.data
    memory.parity = Parity(
        event.domain,
        datetime.fromisoformat(data["at"]),
        data["content"],
        data["queries"],
        data["identical"],
        canary_caught=data["canary_caught"],
    )
    if data["unexpected"]:
        memory.parity = replace(
            memory.parity, unexpected=tuple(Difference(**difference) for difference in data["unexpected"])
        )
    memory.parity_zone = data["zone"]
    if memory.parity.ok:
        memory.asked.pop("parity", None)
    else:
        _fold_acted(memory, replace(event, data={"action": "parity"}))


def _fold_observed(memory: Memory, event: Event) -> None:
    what = event.data["what"]
    if "number" in event.data:
        memory.numbers[what] = event.data["number"]
    elif event.data["is"]:
        memory.since.setdefault(what, event.at)
    else:
        memory.since.pop(what, None)


def _fold_acted(memory: Memory, event: Event) -> None:
    action = event.data["action"]
    before = memory.asked.get(action)
    memory.asked[action] = (
        replace(before, last=event.at, times=before.times + 1) if before else Asked(event.at, event.at)
    )
    if action == "reset-code":
        memory.spent.add(memory.code)
        memory.code, memory.quote = "", None
        memory.asked.pop("hold-code", None)
    elif action == "correct-code":
        memory.order = None  # what the registrar says next is news
    elif action == "remove-zone":
        memory.provisioned = ""
    elif action == "secure":
        memory.secured = True


def _fold_code(memory: Memory, event: Event) -> None:
    memory.code = event.data["auth_code_sha256"]
    memory.code_expires = _moment(event.data.get("auth_code_expires"))
    memory.asked.pop("correct-code", None)


def _fold_quote(memory: Memory, event: Event) -> None:
    memory.quote = Quote(event.domain, event.data["price"], tuple(event.data["problems"]))
    memory.quote_at = event.at


def _fold_intent(memory: Memory, event: Event) -> None:
    memory.intent = event.at


def _fold_told(memory: Memory, event: Event) -> None:
    """Take a transfer that shows up from now on as ours: a human was told to order it."""
    memory.intent, memory.ordered = None, memory.ordered or event.at


def _fold_order(memory: Memory, event: Event) -> None:
    data = event.data
    memory.order = TransferOrder(data["id"], data["stage"], data["reason"], _moment(data["until"]))
    memory.intent = None
    if data["stage"] == "refused":
        memory.refused, memory.ordered = event.at, None
        if about_code(data["reason"]):
            memory.spent.add(memory.code)
    else:
        memory.ordered = memory.ordered or event.at


def _fold_state(memory: Memory, event: Event) -> None:
    after = State(event.data["to"])
    if RANK[after] < RANK[memory.recorded]:
        # What was asked for before is asked for again; how often codes were refused is not forgotten.
        memory.asked = {action: asked for action, asked in memory.asked.items() if action == "reset-code"}
    memory.recorded = after
    memory.ever = {state for state in memory.ever if RANK[state] <= RANK[after]} | {after}


def _fold_by_hand(memory: Memory, event: Event) -> None:
    memory.by_hand.add(event.data["action"])


def _fold_decision(memory: Memory, event: Event) -> None:  # noqa: C901  one line a decision
    data = event.data
    match data["kind"]:
        case "consent":
            memory.consent = True
        case "withdraw-consent":
            memory.consent = False
        case "mail-mode":
            memory.mail_mode = data["mode"]
        case "waiver":
            memory.waivers[data["subject"]] = (event.at, f"{data['by']} : {data['reason']}")
        case "redirection":
            memory.redirections.add(data["host"].rstrip(".").lower())
        case "price":
            memory.price = float(data["euros"])
        case "mail-copied" | "mail-abandoned":
            memory.mail.add(data["address"].lower())
        case "services-checked":
            memory.services = True
        case "secured":
            memory.secured = True
            memory.waivers["lock-missing"] = (event.at, data["by"])
        case "skip":
            memory.skipped.add(State(data["step"]))
        case "retry":
            memory.retry, memory.asked = event.at, {}
        case "rollback":
            memory.rollback, memory.asked, memory.services = State(data["to"]), {}, False
        case "resume":
            memory.rollback, memory.abandoned, memory.asked = None, False, {}
        case "abandon":
            memory.abandoned = True


_FOLDS: Mapping[str, Callable[[Memory, Event], None]] = {
    "discovered": _fold_discovered,
    "exported": _fold_exported,
    "snapshot": _fold_snapshot,
    "drift": _fold_drift,
    "provisioned": _fold_provisioned,
    "parity": _fold_parity,
    "observed": _fold_observed,
    "acted": _fold_acted,
    "auth-code": _fold_code,
    "quote": _fold_quote,
    "order-intent": _fold_intent,
    "order-told": _fold_told,
    "order": _fold_order,
    "state": _fold_state,
    "overtaken": _fold_state,
    "by-hand": _fold_by_hand,
    "decision": _fold_decision,
}


def content_hash(export: Export) -> str:
    """Return the SHA-256 of what matters in an export: records without TTLs, redirections and glue."""
    records = sorted(
        [
            str(r.get("rrset_name", "")).lower(),
            str(r.get("rrset_type", "")),
            sorted(map(str, r.get("rrset_values", ()))),
        ]
        for r in export.records
    )
    redirections = sorted([str(r.get(key, "")) for key in ("host", "type", "url")] for r in export.redirections)
    glue = sorted([str(g.get("name", "")), sorted(map(str, g.get("ips", ())))] for g in export.glue)
    if not records:  # level C has the text only
        records = [["", "", sorted(line for line in export.text.splitlines() if " SOA " not in line)]]
    return hashlib.sha256(json.dumps([records, redirections, glue], ensure_ascii=False).encode()).hexdigest()


def zone_hash(zone: Zone, redirections: Iterable[Redirection] = ()) -> str:
    """Return the SHA-256 of what is to be served: a zone, TTLs included, and the redirections of its names."""
    lines = [*(str(zone.rrsets[key]) for key in sorted(zone.rrsets)), *sorted(map(str, redirections))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def export_zone(export: Export) -> Zone:
    """Return the zone of an export: of its JSON records, else of its text (level C)."""
    if export.records:
        return reading.from_livedns(export.domain, export.records)
    return reading.from_text(export.domain, export.text)


def _label(key: tuple[str, str]) -> str:
    return f"{key[0]}/{key[1]}"


def _with_ttls(zone: Zone, ttls: Mapping[str, int]) -> Zone:
    """Return the zone with the TTLs that it had before they were lowered."""
    return Zone.of(
        zone.name,
        (replace(rrset, ttl=ttls.get(_label(rrset.key), rrset.ttl)) for rrset in zone.rrsets.values()),
        zone.unreadable,
    )


def _to_text(export: Export) -> str:
    return json.dumps({**asdict(export), "at": export.at.isoformat()}, ensure_ascii=False, indent=1, sort_keys=True)


def _from_text(text: str) -> Export:
    data = json.loads(text)
    listed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    listed["at"] = datetime.fromisoformat(data["at"])
    return Export(**listed)


class Move:
    """One domain's move. Every public method reads the world first; only `advance(apply=True)` and `decide` write."""

    def __init__(  # noqa: PLR0913, RUF100  the doors to the world, each once
        self,
        domain: str,
        losing: Losing,
        gaining: Gaining,
        target: Target,
        registry: Registry,
        dns: Dns,
        store: Store,
        clock: Clock,
        options: Options,
        level: Level = "A",
        who: str = "",
        *,
        vault: Vault,
        web: Web | None = None,
        waves: Waves | None = None,
        rule: RegistryRule | None = None,
    ) -> None:
        self.rule = rule or rule_for(domain)
        self.domain, self.level, self.who = domain, level, who
        self.losing, self.gaining, self.target, self.registry, self.dns = losing, gaining, target, registry, dns
        self.store, self.clock, self.vault, self.web, self.waves = store, clock, vault, web, waves
        self._options = options
        self._export: tuple[str, Export] | None = None
        self._planned: tuple[object, Plan] | None = None
        self._fresh: Export | None = None
        self._troubles = 0

    # --- looking ---

    def memory(self) -> Memory:
        """Return what the events say."""
        return remember(self.store.read(self.domain))

    def export(self) -> Export | None:
        """Return the export that the move rests on, None before there is one."""
        return self._baseline(self.memory())

    def plan(self) -> Plan | None:
        """Return what becomes of each rrset of that export, with what people decided so far; None before it."""
        return self._plan(self.memory())

    def evidence(self, *, deep: bool = True) -> Evidence:
        """Read the world and return all that is known; `deep` also reads everything at Gandi again.

        Raises WorldError when something that must be known could not be read.
        """
        return self._look(self.memory(), deep=deep)

    def _baseline(self, memory: Memory) -> Export | None:
        name = memory.export.get("document")
        if not name:
            return None
        if self._export is None or self._export[0] != name:
            text = self.store.kept(self.domain, name)
            if text is None:
                raise RefusedError(
                    Phrase(
                        "{domain}: the export {name} is gone from the store: restore it from the backup",
                        domain=self.domain,
                        name=name,
                    )
                )
            self._export = (name, _from_text(text))
        return self._export[1]

    def options(self, memory: Memory) -> Options:
        """Return the options with what people decided in the events."""
        waivers = {subject: why for subject, (_, why) in memory.waivers.items() if "/" in subject}
        return replace(
            self._options,
            mail_mode=memory.mail_mode or self._options.mail_mode,
            our_nameservers=tuple(self.target.nameservers),
            minimum_ttl=max(self._options.minimum_ttl, self.target.minimum_ttl),
            redirections={**self._options.redirections, **dict.fromkeys(memory.redirections, True)},
            waivers={**self._options.waivers, **waivers},
        )

    def _plan(self, memory: Memory) -> Plan | None:
        export = self._baseline(memory)
        if export is None:
            return None
        options = self.options(memory)
        decided = (sorted(options.redirections.items()), sorted(options.waivers.items()))
        key = (memory.export["document"], options.mail_mode, decided)
        if self._planned is None or self._planned[0] != key:
            zone = _with_ttls(export_zone(export), memory.export["ttls"])
            self._planned = (key, make_plan(zone, export.redirections, options))
        return self._planned[1]

    def _facts(self, memory: Memory) -> DomainFacts | None:
        """Read the losing registrar; after the order its silence is news, not trouble."""
        if RANK[memory.recorded] >= RANK[State.TRANSFERRED]:
            return None
        try:
            return self.losing.domain(self.domain)
        except ByHandError:
            return None
        except WorldError as error:
            if error.retry or not (memory.ordered or memory.intent):
                raise
            return None

    def _rdap(self) -> RdapFacts | None:
        try:
            return self.registry.domain(self.domain)
        except WorldError as error:
            if error.retry:
                raise
            return None

    def _order(self, memory: Memory) -> TransferOrder | None:
        """Return the newest order; what was refused at the door, without leaving one, counts as a refused one."""
        known = memory.order if memory.order and memory.order.stage == "refused" and not memory.order.id else None
        if RANK[memory.recorded] < RANK[State.UNLOCKED] and not (memory.ordered or memory.intent):
            return known
        try:
            found = self.gaining.find_order(self.domain) or known
        except ByHandError:
            return known
        corrected = memory.asked.get("correct-code")
        if found and found.stage == "refused" and corrected and self.clock.now() < corrected.last + ORDER_GRACE:
            return replace(found, stage="unknown", reason="")  # the refusal may still be that of the code before
        return found

    def _old_servers(self, memory: Memory, plan: Plan | None, delegation: Delegation) -> tuple[ServerAnswer, ...]:
        ours = delegation.nameservers == frozenset(self.target.nameservers)
        if plan is None or not memory.nameservers or (ours and memory.rollback is None):
            return ()
        lowered = [rrset for rrset in plan.export.rrsets.values() if rrset.ttl > LOW_TTL and rrset.type != "SOA"]
        return tuple(self.dns.servers(self.domain, memory.nameservers, lowered))

    def _new_servers(self, memory: Memory) -> tuple[ServerAnswer, ...]:
        if not memory.provisioned or RANK[memory.recorded] > RANK[State.NS_SWITCHED]:
            return ()
        return tuple(self.dns.servers(self.domain, self.target.nameservers))

    def _redirections_wrong(self, memory: Memory, plan: Plan | None) -> tuple[str, ...] | None:
        """Ask our front about the redirections of a domain from when it has them until a human saw its services."""
        if plan is None or not plan.redirections or not memory.provisioned:
            return ()
        if RANK[memory.recorded] > RANK[State.SETTLED]:
            return ()
        return None if self.web is None else tuple(self.web.wrong(plan.redirections))

    def _problems(self, memory: Memory, plan: Plan, export: Export, e: Evidence) -> tuple[Problem, ...]:
        found = [Problem(o.code or "plan-blocked", f"{_label(o.key)} : {o.reason}") for o in plan.blocked]
        if e.facts is not None and e.rule is not None and RANK[memory.recorded] < RANK[State.NS_SWITCHED]:
            found += [
                Problem(finding.code, f"{finding.says} {finding.mend}")
                for finding in audit(export, plan, e.facts, e.delegation, e.rule, e.now, e.export_problems)
                if finding.severity == "block"
                and finding.code not in _HANDLED
                and finding.code not in memory.waivers
                and finding.about not in memory.waivers
            ]
        return tuple(found)

    def _look(self, memory: Memory, *, deep: bool) -> Evidence:
        facts, rdap, delegation = self._facts(memory), self._rdap(), self.dns.delegation(self.domain)
        if not memory.nameservers:
            memory.nameservers = self._first_nameservers(delegation, facts)
        plan, export = self._plan(memory), self._baseline(memory)
        # A signed domain waits for its keys to be gone from Gandi's list too, which only a full reading shows.
        deep = deep or (memory.recorded == State.TTL_LOWERED and "dnskeys" in memory.since)
        self._fresh = self.losing.export(self.domain) if deep and facts is not None else None
        latest = self._fresh or export
        held = self.vault.get(self.domain) if memory.code else None
        order = self._order(memory)
        if order is not None and order != memory.order:
            _fold_order(memory, Event(self.clock.now(), self.domain, "", "order", _order_data(order)))
            memory.news = True
        new_servers, old_servers = self._new_servers(memory), self._old_servers(memory, plan, delegation)
        tally = self.dns.tally(self.domain)
        now = self.clock.now()  # once, and after the reading: what was seen holds since then at the latest
        e = Evidence(
            self.domain,
            now,
            self.level,
            memory.recorded,
            frozenset(memory.ever),
            memory.last,
            facts=facts,
            rule=self.rule,
            rdap=rdap,
            delegation=delegation,
            new_nameservers=tuple(self.target.nameservers),
            new_servers=new_servers,
            old_nameservers=memory.nameservers,
            old_servers=old_servers,
            tally=tally,
            order=order,
            gaining=self.gaining.name,
            old_registrar=memory.registrar,
            content=memory.export.get("content", ""),
            fresh_content=content_hash(self._fresh) if self._fresh else "",
            export_problems=tuple(memory.export.get("problems", ())),
            snapshot=memory.snapshot,
            dnskeys=bool(self._fresh.dnskeys) if self._fresh else "dnskeys" in memory.since,
            mailboxes=latest.mailboxes if latest else (),
            balanced=plan is not None and plan.balanced,
            applicable=plan is not None and plan.applicable,
            zone_hash=zone_hash(plan.zone, plan.redirections) if plan is not None and plan.balanced else "",
            provisioned_hash=memory.provisioned,
            parity=memory.parity,
            parity_zone_hash=memory.parity_zone,
            redirections_wrong=self._redirections_wrong(memory, plan),
            ttls=memory.export.get("ttls", {}),
            old_ttl=max(memory.export.get("ttls", {}).values(), default=0),
            ds_ttl=max(memory.numbers.get("ds-ttl", 0), delegation.ds_ttl),
            key_ttl=max(memory.numbers.get("key-ttl", 0), 0, *(answer.key_ttl for answer in old_servers)),
            ns_ttl=max(
                memory.numbers.get("ns-ttl", 0),
                delegation.ns_ttl,
                *(answer.ns_ttl for answer in (*old_servers, *new_servers)),
            ),
            was_signed="ds-ttl" in memory.numbers or bool(delegation.ds),
            slot=self._slot(memory, now),
            asked=memory.asked,
            was_locked=memory.locked,
            code_held=held is not None and fingerprint(held) == memory.code,
            code_tried=memory.code in memory.spent,
            code_expires=memory.code_expires,
            quote=memory.quote,
            quote_at=memory.quote_at,
            order_intent=memory.intent,
            ordered_at=memory.ordered,
            refused_at=memory.refused,
            secured=memory.secured,
            consent=memory.consent,
            mail_mode=memory.mail_mode,
            waived=self._waived(memory),
            confirmed_price=memory.price,
            mail_settled=frozenset(memory.mail),
            services_checked=memory.services,
            skipped=frozenset(memory.skipped),
            retry_at=memory.retry,
            abandoned=memory.abandoned,
            rollback_to=memory.rollback,
        )
        if plan is not None and export is not None:
            e = replace(e, problems=self._problems(memory, plan, export, e))
        return self._dated(memory, e)

    def _first_nameservers(self, delegation: Delegation, facts: DomainFacts | None) -> tuple[str, ...]:
        ours = frozenset(self.target.nameservers)
        named = delegation.nameservers - ours or frozenset(facts.nameservers if facts else ()) - ours
        return tuple(sorted(named))

    def _waived(self, memory: Memory) -> frozenset[str]:
        """Return the codes that humans lifted; a drift only up to the one that they saw."""
        codes = {subject: at for subject, (at, _) in memory.waivers.items()}
        if memory.drifted and codes.get("zone-drifted", memory.drifted) < memory.drifted:
            del codes["zone-drifted"]
        return frozenset(codes)

    def _slot(self, memory: Memory, now: datetime) -> datetime | None:
        if self.waves is None or memory.recorded not in (State.TTL_LOWERED, State.DS_REMOVED):
            return None
        return self.waves.slot(self.domain, now)

    def _observations(self, memory: Memory, e: Evidence) -> dict[str, bool]:
        """Return what can be said now of the things whose beginning matters; what was not seen is left out."""
        seen: dict[str, bool] = {"dnskeys": e.dnskeys} if self._fresh else {}
        if e.old_servers and not any(answer.error for answer in e.old_servers):
            seen["ttls-low"] = ttls_low(e)
        if e.delegation is not None and e.delegation.complete:
            ours = bool(e.delegation.nameservers & frozenset(e.new_nameservers))
            seen["ds-gone"] = not e.delegation.ds
            seen["switched"] = switched(e)
            seen["back"] = not ours and (
                "back" in memory.since or "switched" in memory.since or "switch" in memory.asked
            )
        return seen

    def _dated(self, memory: Memory, e: Evidence) -> Evidence:
        """Fill in since when each observation holds: now, if it is new."""
        since = dict(memory.since)
        for what, holds in self._observations(memory, e).items():
            if holds:
                since.setdefault(what, e.now)
            else:
                since.pop(what, None)
        return replace(
            e,
            ttls_low_since=since.get("ttls-low"),
            ds_gone_since=since.get("ds-gone"),
            switched_since=since.get("switched"),
            back_since=since.get("back"),
        )

    # --- remembering ---

    def _append(self, kind: str, /, **data: Any) -> None:
        self.store.append(Event(self.clock.now(), self.domain, self.who, kind, data))

    def _note(self, memory: Memory, e: Evidence) -> None:
        """Write down what was seen for the first time, and the states that reality has entered."""
        if not memory.discovered:
            registrar = e.rdap.registrar if e.rdap else ""
            locked = e.facts.registrar_lock if e.facts else True
            self._append("discovered", registrar=registrar, nameservers=list(e.old_nameservers), locked=locked)
        for what, holds in self._observations(memory, e).items():
            if holds != (what in memory.since):
                self._append("observed", what=what, **{"is": holds})
        if e.delegation is not None:
            ds_ttl = e.delegation.ds_ttl if e.delegation.ds else 0
            longest = {"ns-ttl": e.ns_ttl, "ds-ttl": ds_ttl, "key-ttl": e.key_ttl}
            for what, seconds in longest.items():
                if seconds > memory.numbers.get(what, 0):
                    self._append("observed", what=what, number=seconds)
        if e.fresh_content not in ("", memory.drift or e.content) and e.content:
            self._append("drift", old=e.content, new=e.fresh_content)
        if memory.news and e.order is not None:
            self._append("order", **_order_data(e.order))
        self._enter(memory, e)

    def _enter(self, memory: Memory, e: Evidence) -> None:
        here = judge(e).state
        if here == memory.recorded:
            return
        states = way(memory.recorded, here, e)
        if states is None:
            self._append("overtaken", **{"from": memory.recorded, "to": here})
            return
        before = memory.recorded
        for state in states:
            self._append("state", **{"from": before, "to": state})
            before = state

    def decide(self, kind: str, data: Mapping[str, Any]) -> None:
        """Write down a human's decision; raise RefusedError when it lacks a field of `DECISIONS`, or makes no sense."""
        body = {**({"by": self.who} if self.who else {}), **data}
        if kind not in DECISIONS:
            raise RefusedError(f"« {kind} » n'est pas une décision ; ce peut être {', '.join(sorted(DECISIONS))}.")
        missing = [key for key in DECISIONS[kind] if body.get(key) in (None, "")]
        if missing:
            raise RefusedError(
                f"{self.domain}: à la décision « {kind} » il manque {', '.join(missing)} : "
                f"ajoutez {' '.join(f'{key}=…' for key in missing)}"
            )
        with self.store.lock(self.domain, self.who or "tool"):
            kept = _checked(self.domain, kind, body, self.memory().recorded, self.clock.now())
            self._append("decision", **{**kept, "kind": kind})

    # --- doing ---

    def advance(self, apply: bool = False, until: State | None = None) -> Step:
        """Look, and with `apply` do the one next thing; return what was found and done.

        Trouble of the world becomes a Step, not an exception; RefusedError means that somebody else holds the domain
        or that its file is damaged. Nothing is done once the domain stands at `until`.
        """
        with self.store.lock(self.domain, self.who or "tool") if apply else nullcontext():
            memory = self.memory()
            try:
                step = self._advance(memory, apply=apply, until=until)
            except WorldError as error:
                return self._trouble(memory, error)
            except ByHandError as error:
                return self._hand(memory, "look", error)
            self._troubles = 0
            return step

    def run_until_blocked(self, until: State | None = None, limit: int = 500) -> Step:
        """Advance until a human must act or time must pass; return the last step (see its `waiting_until`)."""
        step = self.advance(apply=True, until=until)
        while step.changed and limit > 0:
            limit -= 1
            step = self.advance(apply=True, until=until)
        return step

    def rollback(self, to: State, reason: str, apply: bool = False) -> Step:
        """Take back what was done after a state, last thing first, one thing a call; "resume" goes forward again.

        Without `apply`, return what would be done first.
        """
        if not apply:
            memory = self.memory()
            if memory.rollback != to:
                memory.rollback, memory.asked = to, {}
            return Step(self.domain, self.clock.now(), judge(self._look(memory, deep=False)))
        if self.memory().rollback != to:
            self.decide("rollback", {"to": to, "reason": reason})
        return self.advance(apply=True)

    def _advance(self, memory: Memory, *, apply: bool, until: State | None) -> Step:
        e = self._look(memory, deep=not apply)
        verdict = judge(e)
        if apply and verdict.action in NEEDS_EXPORT:
            e = self._look(memory, deep=True)
            verdict = judge(e)
        if not apply:
            return Step(self.domain, e.now, verdict)
        self._note(memory, e)
        at_goal = until is not None and RANK[verdict.state] >= RANK[until]
        if not verdict.action or not verdict.allowed or at_goal:
            return Step(self.domain, e.now, verdict)
        # The interlocks are asked once more, on their own: whatever `judge` says, they have the last word.
        if interlocks(e, verdict.action):
            raise AssertionError(f"{self.domain}: {verdict.action} was proposed against its interlocks")
        return self._try(memory, e, verdict)

    def _try(self, memory: Memory, e: Evidence, verdict: Verdict) -> Step:
        action = verdict.action
        try:
            self._DO[action](self, e)
        except ByHandError as error:
            return self._hand(memory, action, error, verdict)
        except WorldError as error:
            if error.landed is True:
                self._append("acted", action=action)
            else:
                return self._failed(memory, verdict, error)
        return Step(self.domain, e.now, verdict, action, verdict.reason)

    def _failed(self, memory: Memory, verdict: Verdict, error: WorldError) -> Step:
        """Remember what went wrong; what may have landed, and what may pass, is looked at again soon."""
        action, says = verdict.action, self._clean(error.says)
        if error.landed is None:
            self._append("lost", action=action, says=says)
            error = WorldError(says, retry=True)
        elif action in ("order", "correct-code") and not error.retry and not _access(error, says):
            self._append("order", id="", stage="refused", reason=says, until=None)
        else:
            self._append("trouble", action=action, says=says)
        return self._trouble(memory, error, verdict)

    def _trouble(self, memory: Memory, error: WorldError, verdict: Verdict | None = None) -> Step:
        says, now = self._clean(error.says), self.clock.now()
        state = verdict.state if verdict else memory.recorded
        after = verdict.next if verdict else None
        if error.retry:
            self._troubles += 1
            until = now + timedelta(seconds=min(3600, 60 * 2 ** (self._troubles - 1)))
            return Step(
                self.domain, now, Verdict(state, after, False, says, until, "tool", side=State.WAITING, code="world")
            )
        code = _access(error, says)
        side = State.BLOCKED if code else State.FAILED
        told = Verdict(state, after, False, says, None, "volunteer", side=side, code=code or "failed")
        return Step(self.domain, now, told, says=says)

    def _hand(self, memory: Memory, action: str, error: ByHandError, verdict: Verdict | None = None) -> Step:
        """Hand the action to a human: the next looks see when it is done."""
        says = self._clean(error.instructions)
        if verdict is not None and action not in memory.by_hand:
            self._append("by-hand", action=action, who=error.who, says=says)
        people: tuple[Who, ...] = ("member", "gandi", "registry")
        who: Who = next((one for one in people if one == error.who), "volunteer")
        state = verdict.state if verdict else memory.recorded
        after = verdict.next if verdict else None
        told = Verdict(state, after, False, says, None, who, action, side=State.BLOCKED, code="by-hand")
        return Step(self.domain, self.clock.now(), told, says=says)

    def _clean(self, text: str) -> str:
        """Return a text of the world as people read it, without the transfer code or another secret in it."""
        code = self.vault.get(self.domain)
        if code:
            fingerprint(code)  # so that `redact` knows it
        return redact(said(text))

    def _do_export(self, _e: Evidence) -> None:
        export = self.losing.export(self.domain)
        memory = self.memory()
        identity = export.snapshot or self._snapshot()
        export = replace(export, snapshot=identity)
        zone = export_zone(export)
        problems = contradictions(export, zone)
        original = memory.export.get("ttls", {})
        ttls = {
            _label(key): max(rrset.ttl, original.get(_label(key), 0)) if rrset.ttl <= LOW_TTL else rrset.ttl
            for key, rrset in zone.rrsets.items()
            if rrset.type != "SOA"
        }
        content = content_hash(export)
        name = f"export-{export.at:%Y%m%dT%H%M%S}-{content[:12]}.json"
        self.store.keep(self.domain, name, _to_text(export))
        self._append("snapshot", id=identity)
        self._append(
            "exported",
            content=content,
            sha256=export.sha256,
            document=name,
            entries=len(zone.rrsets) + len(zone.unreadable),
            redirections=len(export.redirections),
            mailboxes=len(export.mailboxes),
            forwards=len(export.forwards),
            signed=bool(export.dnskeys),
            problems=problems[:20],
            ttls=ttls,
        )

    def _snapshot(self) -> str:
        try:
            return self.losing.snapshot(self.domain, f"infini-{self.clock.now():%Y%m%dT%H%M%S}")
        except ByHandError:
            return "by-hand"  # what the member pasted is the copy: nothing can be written there anyway

    def _do_provision(self, e: Evidence) -> None:
        plan = self._plan(self.memory())
        assert plan is not None  # noqa: S101  the interlocks asked for it
        if self.web is not None:
            self.web.provision(self.domain, plan.redirections)
        self.target.provision(plan.zone)
        self._append("provisioned", zone=e.zone_hash)
        self._append("acted", action="provision")

    def _do_parity(self, e: Evidence) -> None:
        plan = self._plan(self.memory())
        if plan is None or (self._fresh is None and self.level != "C"):
            raise WorldError(Phrase("The zone could not be read again before the comparison"), retry=True)
        old = export_zone(self._fresh) if self._fresh else plan.export
        parity = self.dns.parity(old, plan.zone, e.old_nameservers, e.new_nameservers, e.content)
        self._append(
            "parity",
            at=parity.at.isoformat(),
            content=parity.export_sha256,
            zone=e.zone_hash,
            queries=parity.queries,
            identical=parity.identical,
            expected=dict(Counter(difference.rule for difference in parity.expected)),
            unexpected=[asdict(difference) for difference in parity.unexpected[:20]],
            unexpected_count=len(parity.unexpected),
            canary_caught=parity.canary_caught,
        )

    def _do_lower_ttls(self, _e: Evidence) -> None:
        plan = self._plan(self.memory())
        current = export_zone(self._fresh) if self._fresh else plan.export if plan else Zone(self.domain)
        high = [rrset for rrset in current.rrsets.values() if rrset.ttl > LOW_TTL and rrset.type != "SOA"]
        self.losing.set_ttls(self.domain, high, LOW_TTL)
        self._append("acted", action="lower-ttls")

    def _do_restore_ttls(self, e: Evidence) -> None:
        plan = self._plan(self.memory())
        by_ttl: dict[int, list[Rrset]] = {}
        for rrset in plan.export.rrsets.values() if plan else ():
            if e.ttls.get(_label(rrset.key), 0) > LOW_TTL:
                by_ttl.setdefault(e.ttls[_label(rrset.key)], []).append(rrset)
        for ttl, rrsets in sorted(by_ttl.items()):
            self.losing.set_ttls(self.domain, rrsets, ttl)
        self._append("acted", action="restore-ttls")

    def _do_remove_ds(self, _e: Evidence) -> None:
        self.losing.remove_dnskeys(self.domain)
        self._append("acted", action="remove-ds")

    def _do_restore_ds(self, _e: Evidence) -> None:
        export = self._baseline(self.memory())
        self.losing.restore_dnskeys(self.domain, [dict(key) for key in export.dnskeys] if export else [])
        self._append("acted", action="restore-ds")

    def _do_switch(self, e: Evidence) -> None:
        with self.waves.turn(self.domain, e.now, self.who or "tool") if self.waves else nullcontext():
            self.losing.set_nameservers(self.domain, self.target.nameservers)
            self._append("acted", action="switch")

    def _do_restore_nameservers(self, e: Evidence) -> None:
        if all(gandi_nameserver(host) for host in e.old_nameservers):
            self.losing.restore_nameservers(self.domain)
        else:
            self.losing.set_nameservers(self.domain, e.old_nameservers)
        self._append("acted", action="restore-nameservers")

    def _do_remove_zone(self, _e: Evidence) -> None:
        self.target.remove(self.domain)
        if self.web is not None:
            self.web.remove(self.domain)
        self._append("acted", action="remove-zone")

    def _do_unlock(self, _e: Evidence) -> None:
        self.losing.set_lock(self.domain, False)
        self._append("acted", action="unlock")

    def _do_relock(self, _e: Evidence) -> None:
        self.losing.set_lock(self.domain, True)
        self._append("acted", action="relock")

    def _do_hold_code(self, e: Evidence) -> None:
        """Put the code in the vault. One that was refused, or that a new one replaces, does not count."""
        memory = self.memory()
        try:
            code = self.losing.auth_code(self.domain)
        except ByHandError:
            code = self.vault.get(self.domain)
            if not code or fingerprint(code) in memory.spent:
                raise
        if not code or fingerprint(code) in memory.spent:
            self._append("acted", action="hold-code")
            return
        expires = e.facts.auth_code_expires if e.facts else None
        self.vault.put(self.domain, code, expires)
        self._append(
            "auth-code", auth_code_sha256=fingerprint(code), auth_code_expires=expires.isoformat() if expires else ""
        )

    def _do_reset_code(self, _e: Evidence) -> None:
        self.losing.reset_auth_code(self.domain)
        self._append("acted", action="reset-code")

    def _code(self) -> str:
        code = self.vault.get(self.domain)
        assert code is not None  # noqa: S101  the interlocks asked for it
        return code

    def _do_quote(self, e: Evidence) -> None:
        try:
            quote = self.gaining.quote(self.domain, self._code(), e.new_nameservers)
        except ByHandError:
            quote = Quote(self.domain, None)  # the human reads the price where they order
        problems = [self._clean(problem) for problem in quote.problems]
        self._append("quote", price=quote.price, problems=problems)
        if any(about_code(problem) for problem in problems):
            self._append("order", id="", stage="refused", reason=problems[0], until=None)

    def _do_order(self, e: Evidence) -> None:
        """Order once: the intention is on disk before, and an order that exists is taken over instead."""
        try:
            standing = self.gaining.find_order(self.domain)
        except ByHandError:
            standing = None
        if standing is None or standing.stage == "refused":
            self._append("order-intent")
            try:
                standing = self.gaining.order(self.domain, self._code(), e.new_nameservers)
            except ByHandError:
                self._append("order-told")
                raise
        self._append("order", **_order_data(standing))

    def _do_correct_code(self, e: Evidence) -> None:
        assert e.order is not None  # noqa: S101  only a refused order leads here
        self.gaining.correct_auth_code(e.order, self._code())
        self._append("acted", action="correct-code")

    def _do_secure(self, _e: Evidence) -> None:
        self.gaining.secure(self.domain)
        self._append("acted", action="secure")

    _DO: Mapping[str, Callable[[Move, Evidence], None]] = {
        "export": _do_export,
        "provision": _do_provision,
        "parity": _do_parity,
        "lower-ttls": _do_lower_ttls,
        "restore-ttls": _do_restore_ttls,
        "remove-ds": _do_remove_ds,
        "restore-ds": _do_restore_ds,
        "switch": _do_switch,
        "restore-nameservers": _do_restore_nameservers,
        "remove-zone": _do_remove_zone,
        "unlock": _do_unlock,
        "relock": _do_relock,
        "hold-code": _do_hold_code,
        "reset-code": _do_reset_code,
        "quote": _do_quote,
        "order": _do_order,
        "correct-code": _do_correct_code,
        "secure": _do_secure,
    }


def _order_data(order: TransferOrder) -> dict[str, Any]:
    until = order.until.isoformat() if order.until else None
    return {"id": order.id, "stage": order.stage, "reason": order.reason, "until": until}


def _access(error: WorldError, says: str) -> str:
    """Return the code of a door that is shut to us, empty when the trouble is another."""
    told = error.code if isinstance(error, CallError) else ""  # other doors only say it in words
    if told or about_code(says):
        return told
    if _ACCESS.search(says):
        return "token-expired"
    return "wrong-organisation" if _ORGANISATION.search(says) else ""


def _checked(domain: str, kind: str, data: Mapping[str, Any], state: State, now: datetime) -> dict[str, Any]:
    """Return a decision's fields as they are kept; RefusedError for one that makes no sense, or not yet."""
    kept = dict(data)
    if kind == "mail-mode" and kept["mode"] not in MAIL_MODES:
        raise RefusedError(f"{domain}: le courrier ne peut pas aller à « {kept['mode']} » : {', '.join(MAIL_MODES)}.")
    if kind == "skip" and kept["step"] not in SKIPPABLE:
        raise RefusedError(f"{domain}: « {kept['step']} » ne se saute pas ; seuls {', '.join(sorted(SKIPPABLE))}.")
    if kind == "rollback" and kept["to"] not in CHAIN:
        raise RefusedError(f"{domain}: « {kept['to']} » n'est pas un état où revenir : {', '.join(CHAIN)}.")
    if kind == "price":
        kept["euros"] = _number(domain, str(kept["euros"]).replace(",", "."), "le prix en euros", "euros=9.59")
    if kind == "mail-copied":
        before, after = (
            _number(domain, kept[key], "un nombre de messages", f"{key}=120") for key in ("before", "after")
        )
        if after < before:
            raise RefusedError(
                f"{domain}: {kept['address']} avait {before:g} messages, {after:g} après la copie : copiez de nouveau."
            )
    if kind == "consent":
        _check_day(domain, str(kept["date"]), now)
    if kind == "services-checked" and CHAIN.index(state) < CHAIN.index(State.NS_SWITCHED):
        raise RefusedError(
            f"{domain}: trop tôt, la bascule n'est pas faite : il n'y a rien à vérifier. Rien n'a été noté."
        )
    return kept


def _number(domain: str, text: object, what: str, example: str) -> float:
    try:
        number = float(str(text))
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise RefusedError(f"{domain}: « {text} » n'est pas {what} : écrivez par exemple {example}. Rien n'a été noté.")
    return number


def _check_day(domain: str, text: str, now: datetime) -> None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise RefusedError(
            f"{domain}: « {text} » n'est pas une date : écrivez par exemple date={now.date()}. Rien n'a été noté."
        ) from None
    if day > now.date():
        raise RefusedError(f"{domain}: le {text} n'est pas encore passé (nous sommes le {now.date()}).")
