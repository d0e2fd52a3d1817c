# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be known before a domain moves: each finding is a sentence with its mend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from hosting.model import unfit_target
from infini.domains.observed import Delegation, DomainFacts, Export, has_status
from infini.domains.plan import Outcome, Plan, relative
from infini.domains.reading import disagreement, from_text
from infini.domains.registries import RegistryRule
from infini.domains.rules import host_of
from infini.domains.states import gandi_nameserver
from infini.domains.zone import Rrset, Zone

Severity = Literal["block", "warn", "note"]
"""`block` stops the move, `warn` asks for a look, `note` is good to know."""

_GANDI_HOSTING = re.compile(r"(^|[. :=])(ghst\.net|gpaas\.net|(blogs|parked)\.vip\.gandi\.net)\.?( |$|\")")
_STOPPED = ("client hold", "pending delete", "redemption period", "server hold")
_MENDS = {
    "alias": "Demandez au membre où va ce nom ; si c'est chez Infini, donnez son adresse (`alias_addresses`).",
    "cname-at-apex": "Remplacez ce CNAME chez Gandi par des enregistrements A et AAAA, puis exportez de nouveau.",
    "unreadable-record": "Corrigez l'entrée chez Gandi puis exportez de nouveau, ou acceptez de la laisser.",
    "redirection-framed": "Demandez au membre si une redirection ordinaire lui convient, puis notez son accord.",
    "web-address-missing": "Donnez l'adresse web d'Infini (`web_addresses`), puis refaites le plan.",
    "addresses-mixed": "Regardez avec le membre quelles adresses ce nom doit garder, et corrigez la zone chez Gandi.",
    "cname-and-other-data": "Gardez chez Gandi le CNAME ou les autres enregistrements, puis exportez de nouveau.",
    "several-targets": "Gardez chez Gandi une seule cible, puis exportez de nouveau.",
    "below-dname": "Retirez chez Gandi le DNAME ou ce qui est en dessous, puis exportez de nouveau.",
    "name-dot-missing": "Ajoutez chez Gandi le point final oublié, puis exportez de nouveau.",
    "caa-forbids": "Demandez au membre d'autoriser notre autorité de certification dans son CAA.",
    "mail-at-gandi": "Choisissez avec le membre où va son courrier, et donnez les serveurs qui le recevront.",
}


@dataclass(frozen=True)
class Finding:
    """One thing found: `code` for programs, `says` and `mend` (French) for people, `about` the entry or host."""

    code: str
    severity: Severity
    says: str
    mend: str
    about: str = ""


@dataclass(frozen=True)
class _Case:
    export: Export
    plan: Plan
    facts: DomainFacts
    delegation: Delegation | None
    rule: RegistryRule
    now: datetime
    contradictions: Sequence[str]

    @property
    def zone(self) -> Zone:
        return self.plan.export

    def full(self, name: str) -> str:
        """Return the full name of a host of the zone."""
        return self.zone.name if name == "@" else f"{name}.{self.zone.name}"


def _days(count: int) -> str:
    return f"{count} jour{'s' if abs(count) > 1 else ''}"


def _blocked(case: _Case) -> Iterator[Finding]:
    for outcome in case.plan.blocked:
        says = f"{_entry(outcome)} : {outcome.reason}."
        yield Finding(outcome.code, "block", says, _MENDS[outcome.code], "/".join(outcome.key))
    if not case.plan.balanced:
        says = "Le compte des enregistrements n'y est pas : le plan ne peut pas être appliqué."
        yield Finding(
            "unaccounted",
            "block",
            says,
            "Refaites l'export et le plan ; si cela revient, c'est une erreur du programme.",
        )


def _entry(outcome: Outcome) -> str:
    name, kind = outcome.key
    shown = " | ".join(outcome.before)
    return f"{name} {kind} {shown if len(shown) <= 80 else shown[:79] + '…'}".rstrip()


def _empty(case: _Case) -> Iterator[Finding]:
    if not [key for key in case.plan.seen if key not in {("@", "NS"), ("@", "SOA")}]:
        says = "La zone est vide : rien ne serait servi après la bascule."
        yield Finding(
            "zone-empty", "block", says, "Vérifiez chez Gandi que ce domaine utilise LiveDNS, puis exportez de nouveau."
        )


def _exports(case: _Case) -> Iterator[Finding]:
    for sentence in case.contradictions:
        says = f"Les deux exports de la zone ne disent pas la même chose : {sentence}."
        yield Finding("zone-drifted", "block", says, "Quelqu'un modifie peut-être la zone : refaites l'export.")


def _expiry(case: _Case) -> Iterator[Finding]:
    left = (case.facts.expires - case.now).days
    day = f"{case.facts.expires:%d/%m/%Y}"
    if left < case.rule.minimum_expiry_days:
        gone = f"a expiré le {day}" if left < 0 else f"expire le {day}, dans {_days(left)}"
        says = f"Le domaine {gone} : un transfert qui traîne le perdrait."
        yield Finding("expires-soon", "block", says, "Renouvelez-le d'abord chez Gandi, pour un an.")
    elif left < 60:
        says = f"Le domaine expire le {day}, dans {_days(left)}."
        yield Finding("expires-within-60-days", "warn", says, "Commencez ce déménagement sans attendre.")
    if not case.facts.auto_renew and left < 90:
        says = "Le renouvellement automatique est coupé chez Gandi."
        yield Finding("auto-renew-off", "warn", says, "Laissez-le actif jusqu'à la fin du transfert.")


def _registry(case: _Case) -> Iterator[Finding]:
    free = case.facts.created + timedelta(days=60)
    if case.rule.lock60 and case.now < free:
        says = f"Domaine créé le {case.facts.created:%d/%m/%Y} : un .{case.rule.tld} ne part pas avant 60 jours."
        yield Finding("locked-60-days", "block", says, f"Reprenez le {free:%d/%m/%Y}.")
    for status in (status for status in _STOPPED if has_status(case.facts.statuses, status)):
        says = f"Le registre indique « {status} » : le domaine est suspendu ou en cours de suppression."
        yield Finding("on-hold", "block", says, "Demandez à Gandi ce qu'il en est avant toute chose.")
    if has_status(case.facts.statuses, "server transfer prohibited"):
        says = "Le registre lui-même interdit le transfert (« serverTransferProhibited »)."
        yield Finding(
            "locked-by-registry", "warn", says, "Demandez à Gandi de faire lever ce verrou avant le transfert."
        )
    if (case.now.date() - case.rule.checked).days > 365:
        says = f"La règle du .{case.rule.tld} a été lue le {case.rule.checked:%d/%m/%Y}, il y a plus d'un an."
        yield Finding("registry-rule-old", "warn", says, f"Relisez {case.rule.source}, puis datez registries.yml.")


def _glue(case: _Case) -> Iterator[Finding]:
    hosts = sorted(str(row.get("fqdn") or row.get("name", "?")) for row in case.export.glue)
    if hosts:
        says = f"Des serveurs de noms portent le nom de ce domaine au registre ({', '.join(hosts)})."
        mend = "Cherchez qui s'en sert et donnez-leur d'autres serveurs, puis retirez ceux-ci chez Gandi."
        yield Finding("glue-in-use", "block", says, mend, hosts[0])


def _delegated(case: _Case) -> Iterator[Finding]:
    if case.delegation is None:
        return
    if not case.delegation.complete:
        silent = ", ".join(case.delegation.silent) or "aucun interrogé"
        says = f"Tous les serveurs de la zone parente n'ont pas répondu ({silent})."
        yield Finding("parent-silent", "warn", says, "Refaites la mesure avant de vous y fier.")
    if case.delegation.ds:
        says = "Le domaine est signé : son DS est publié par le registre."
        mend = "Le DS sera retiré d'abord, et son délai attendu, avant de changer de serveurs de noms."
        yield Finding("ds-left", "warn", says, mend)
    servers = case.delegation.nameservers
    ours = {server.rstrip(".").lower() for server in case.plan.options.our_nameservers}
    if servers and not servers <= ours and not any(map(gandi_nameserver, servers)):
        says = f"Le domaine n'est pas servi par Gandi mais par {', '.join(sorted(servers))}."
        mend = "La zone de Gandi ne dit donc pas ce qui est servi : demandez au membre qui tient cette zone."
        yield Finding("served-elsewhere", "block" if ours else "warn", says, mend)


def _mail(case: _Case) -> Iterator[Finding]:
    mode = case.plan.options.mail_mode
    wild = [str(row.get("source", "")) for row in case.export.forwards if "*" in str(row.get("source", ""))]
    for source in wild:
        says = f"L'adresse « {source} » attrape tout ce qui lui ressemble, ce que notre messagerie ne fait pas."
        severity: Severity = "block" if mode == "infini" else "note"
        yield Finding(
            "wildcard-mail-alias", severity, says, "Demandez au membre les adresses dont il se sert vraiment.", source
        )
    boxes, forwards = len(case.export.mailboxes), len(case.export.forwards)
    if not boxes + forwards:
        return
    held = f"Gandi tient {boxes} boîte(s) et {forwards} redirection(s) de courrier"
    if mode == "gandi":
        says = f"{held}, et le courrier y reste : le domaine ne pourra pas être transféré."
        yield Finding("mail-at-gandi", "warn", says, "Quand le membre le voudra, choisissez où va son courrier.")
    elif mode == "infini":
        yield Finding(
            "mail-to-copy",
            "note",
            f"{held}, à recréer chez Infini.",
            "Copiez et comptez les messages avant le transfert.",
        )
    else:
        says = f"{held}, qui s'arrêteront au transfert et seront effacées sept jours après."
        yield Finding("mail-abandoned", "warn", says, "Vérifiez avec le membre que plus personne ne s'en sert.")


def _redirections(case: _Case) -> Iterator[Finding]:
    made = {redirection.host: redirection for redirection in case.plan.redirections}
    blocked = {outcome.key[0] for outcome in case.plan.blocked}
    for row in case.export.redirections:
        name = relative(str(row.get("host", "")), case.zone.name)
        host, to = case.full(name), str(row.get("url", "?"))
        if name.startswith("*"):
            says = f"Une redirection vaut pour tous les noms de {host} : aucun certificat ne s'obtient pour un joker."
            mend = "Demandez au membre quels noms servent, réglez-les un par un chez Gandi, puis exportez de nouveau."
            yield Finding("redirection-wildcard", "block", says, mend, name)
        elif unfit_target(to):
            says = f"La redirection de {host} mène à « {to} », qui n'est pas une adresse web entière."
            mend = "Demandez au membre la bonne adresse, corrigez-la chez Gandi, puis exportez de nouveau."
            yield Finding("redirection-unclear", "block", says, mend, name)
        elif host in made:
            says = f"La redirection {made[host]} sera recréée chez nous avec la zone, et vérifiée avant la bascule."
            mend = "Rien à écrire à la main : son fichier se crée dans `redirections/`. Son certificat, lui, s'attend."
            yield Finding("redirection-to-create", "note", says, mend, name)
        elif name not in blocked:  # what is blocked was said already
            says = f"Une redirection est réglée pour {host}, mais la zone n'y mène pas : elle ne sert pas."
            yield Finding("redirection-unused", "note", says, "Rien à faire, sauf si le membre y tient.", name)


def _covers(name: str, wildcard: str) -> bool:
    """Whether a name is one that a wildcard (`*` or `*.sub`) may answer for."""
    return name != "@" and (name == wildcard or wildcard == "*" or name.endswith(wildcard[1:]))


def _wildcards(case: _Case) -> Iterator[Finding]:
    wildcards = sorted({name for name, _ in case.zone.rrsets if name == "*" or name.startswith("*.")})
    for wildcard in wildcards:
        says = f"Un joker ({case.full(wildcard)}) répond pour tous les noms qui n'existent pas."
        yield Finding("wildcard", "note", says, "La comparaison des serveurs le vérifie, nom par nom.", wildcard)
    kept = {name for name, _ in case.plan.zone.rrsets} | {outcome.key[0] for outcome in case.plan.blocked}
    for name in sorted({outcome.key[0] for outcome in case.plan.outcomes if outcome.what == "dropped"} - kept):
        if any(_covers(name, wildcard) and name != wildcard for wildcard in wildcards):
            says = f"{case.full(name)} est laissé sur place, et c'est le joker de la zone qui répondra pour lui."
            yield Finding("wildcard-shows-through", "warn", says, "Vérifiez avec le membre que cela convient.", name)


def _targets(case: _Case) -> Iterator[Finding]:
    """Names that must lead to addresses (RFC 2181 § 10.3), within the zone."""
    zone = case.plan.zone
    names = {"@", *(name for name, _ in zone.rrsets), *(outcome.key[0] for outcome in case.plan.blocked)}
    tail = f".{zone.name}"
    for rrset in zone.rrsets.values():
        if rrset.type not in {"MX", "NS", "SRV", "CNAME"}:
            continue
        for target in sorted({host_of(value) for value in rrset.values}):
            if target != zone.name and not target.endswith(tail):
                continue
            inside = "@" if target == zone.name else target.removesuffix(tail)
            yield from _target(case, rrset, inside, names)


def _target(case: _Case, rrset: Rrset, inside: str, names: Iterable[str]) -> Iterator[Finding]:
    about = f"{rrset.name}/{rrset.type}"
    if (inside, "CNAME") in case.plan.zone.rrsets and rrset.type != "CNAME":
        says = f"{rrset.name} {rrset.type} vise {case.full(inside)}, qui est un CNAME : des serveurs le refusent."
        yield Finding("target-is-cname", "warn", says, "Faites-le viser le nom final.", about)
    answered = any(
        inside == name or (inside.endswith(f".{name}") and (name, "NS") in case.plan.zone.rrsets) for name in names
    )
    if not answered and not any(name.startswith("*") and _covers(inside, name) for name in names):
        says = f"{rrset.name} {rrset.type} vise {case.full(inside)}, qui n'existe pas dans la zone."
        yield Finding("target-missing", "warn", says, "Vérifiez avec le membre si ce nom sert encore.", about)


def _left_at_gandi(case: _Case) -> Iterator[Finding]:
    for rrset in case.plan.zone.rrsets.values():
        if any(_GANDI_HOSTING.search(value.lower()) for value in rrset.values):
            says = f"{rrset.name} {rrset.type} mène à un hébergement de Gandi, qui ne vient pas avec le domaine."
            mend = "Demandez au membre s'il garde cet hébergement, ou s'il en faut un chez Infini."
            yield Finding("hosting-at-gandi", "warn", says, mend, f"{rrset.name}/{rrset.type}")


def _notes(case: _Case) -> Iterator[Finding]:
    used = [outcome for outcome in case.plan.outcomes if outcome.what == "rewritten"]
    raised = sum("ttl-floor" in outcome.rule.split(", ") for outcome in used)
    if raised:
        floor = case.plan.options.minimum_ttl
        says = f"{raised} durée(s) de cache remontent à {floor} secondes, le minimum du nouvel hébergeur."
        yield Finding("ttl-raised", "note", says, "Un retour en arrière prendra au moins ce temps.")
    for outcome in used:
        if "caa" in outcome.rule.split(", "):
            says = f"Le CAA de {case.full(outcome.key[0])} ignore notre autorité de certification, nous l'ajoutons."
            yield Finding("caa-extended", "note", says, "Dites-le au membre.", "/".join(outcome.key))
    for name in sorted(name for name, kind in case.zone.rrsets if kind == "NS" and name != "@"):
        says = f"{case.full(name)} est délégué à d'autres serveurs ; ses NS et son DS sont repris ensemble."
        yield Finding("child-delegation", "note", says, "Rien à faire.", f"{name}/NS")
    if case.facts.name_unicode and case.facts.name_unicode != case.zone.name:
        says = f"Ce domaine s'écrit {case.facts.name_unicode} ; les machines l'appellent {case.zone.name}."
        yield Finding(
            "idn",
            "note",
            says,
            "Écrivez-le de la première façon au membre, de la seconde aux bureaux d'enregistrement.",
        )


_CHECKS = (
    _blocked,
    _empty,
    _exports,
    _expiry,
    _registry,
    _glue,
    _delegated,
    _mail,
    _redirections,
    _wildcards,
    _targets,
    _left_at_gandi,
    _notes,
)
_ORDER: dict[Severity, int] = {"block": 0, "warn": 1, "note": 2}


def contradictions(export: Export, zone: Zone) -> list[str]:
    """Return French sentences that say where Gandi's two exports differ; `zone` is what its records were read as."""
    if not (export.text and export.records):
        return []
    return disagreement(zone, from_text(zone.name, export.text))


def audit(
    export: Export,
    plan: Plan,
    facts: DomainFacts,
    delegation: Delegation | None,
    rule: RegistryRule,
    now: datetime,
    contradictions: Sequence[str],
) -> list[Finding]:
    """Return every pitfall of a domain's move, the blocking ones first; `delegation` is None when it was not asked.

    `contradictions` are those of the export, found once, when it was made.
    """
    case = _Case(export, plan, facts, delegation, rule, now, contradictions)
    found = [finding for check in _CHECKS for finding in check(case)]
    return sorted(found, key=lambda finding: _ORDER[finding.severity])
