# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini domains`: what a volunteer types to accompany a domain, for real (`-i`) or in a rehearsal (`--rehearsal`).

Nothing changes without `--apply`. Sentences are French and go to standard error, data to standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infini.domains.ports import ByHandError, WorldError
from infini.errors import FailedError, RefusedError

if TYPE_CHECKING:
    from infini.domains.board import Row
    from infini.domains.move import Move, Step
    from infini.domains.observed import Export
    from infini.domains.plan import Plan
    from infini.domains.rehearsal import Rehearsal
    from infini.domains.wiring import RealStage

domains_app = typer.Typer(
    help="Leave Gandi, one domain after the other. To begin: `./infini domains rehearse --keep FOLDER`.",
    no_args_is_help=True,
)

InventoryOption = Annotated[str, typer.Option("--inventory", "-i", help="A name under inventory/, or a path.")]
RehearsalOption = Annotated[
    Path | None, typer.Option("--rehearsal", help="Play in this folder of `rehearse --keep` instead of the real world.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
ApplyOption = Annotated[bool, typer.Option("--apply", help="Do it; without this, only say what would be done.")]
DomainArgument = Annotated[str, typer.Argument(help="The domain.")]

HINTS = {
    "consent-missing": "decide {domain} consent by=QUI date=AAAA-MM-JJ payer=QUI",
    "mail-mode-missing": "decide {domain} mail-mode mode=CHOIX",
    "mail-not-copied": "decide {domain} mail-copied address=ADRESSE before=N after=N",
    "price-unconfirmed": "decide {domain} price euros=PRIX",
    "services-unchecked": "decide {domain} services-checked",
    "lock-missing": "decide {domain} secured",
    "transfer-refused": "decide {domain} retry",
    "zone-drifted": "decide {domain} waiver subject=zone-drifted reason=POURQUOI",
    "parity-failed": "decide {domain} retry",
    "never-completes": "decide {domain} retry",
    "unreadable-record": "decide {domain} waiver subject=NOM/TYPE reason=POURQUOI",
}
"""What to type when a human must decide, by the code of the block."""


def _end(answer: dict[str, Any], as_json: bool, status: int = 0) -> None:
    if as_json:
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    raise typer.Exit(status)


def _say(text: str) -> None:
    from infini.runner import console

    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _stage(inventory: str, rehearsal: Path | None) -> Iterator[RealStage | Rehearsal]:
    """Open the real world or a rehearsal; what the world refuses becomes one sentence."""
    from infini.domains.rehearsal import Rehearsal
    from infini.domains.wiring import RealStage

    try:
        yield Rehearsal.resume(rehearsal) if rehearsal else RealStage(inventory)
    except WorldError as error:
        raise FailedError(error.says) from error
    except ByHandError as error:
        raise RefusedError(error.instructions) from error


def _ascii(name: str) -> str:
    from infini.domains.zone import ascii_name

    try:
        return ascii_name(name)
    except WorldError as error:
        raise RefusedError(error.says) from None


@domains_app.command()
def inventory(
    inventory: InventoryOption = "production", rehearsal: RehearsalOption = None, as_json: JsonOption = False
) -> None:
    """List the domains that can be reached at Gandi, with what decides their order: expiry, lock, DNS."""
    from rich.table import Table

    from infini.domains.doors import plain
    from infini.runner import console

    with _stage(inventory, rehearsal) as stage:
        found = stage.reachable()
    if not as_json:
        table = Table("domaine", "expire", "verrou", "renouvellement", "serveurs de noms")
        for facts in sorted(found, key=lambda facts: facts.expires):
            locked, renewed = ("oui" if value else "non" for value in (facts.registrar_lock, facts.auto_renew))
            shown = facts.name_unicode or facts.name
            table.add_row(shown, f"{facts.expires:%d/%m/%Y}", locked, renewed, ", ".join(facts.nameservers))
        console.print(table)
    _end({"ok": True, "domains": [plain(facts) for facts in found]}, as_json)


def _read(move: Move) -> tuple[Export, Plan]:
    """Read everything at Gandi now, and plan it with what was decided; nothing is written anywhere."""
    from infini.domains.move import export_zone
    from infini.domains.plan import make_plan

    export = move.losing.export(move.domain)
    return export, make_plan(export_zone(export), export.redirections, move.options(move.memory()))


@domains_app.command()
def audit(
    domain: DomainArgument,
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what to know before a domain moves, each thing with its mend; exit status 1 when something blocks."""
    from infini.domains import audit as the_audit
    from infini.domains.doors import plain
    from infini.domains.registries import rule_for

    name = _ascii(domain)
    with _stage(inventory, rehearsal) as stage, stage.at(name) as move:
        export, plan = _read(move)
        facts, delegation = move.losing.domain(name), move.dns.delegation(name)
        findings = the_audit.audit(export, plan, facts, delegation, rule_for(name), stage.clock.now())
    blocking = [finding for finding in findings if finding.severity == "block"]
    for finding in findings:
        mark = {"block": "✗", "warn": "!", "note": "·"}[finding.severity]
        _say(f"{mark} {finding.says}\n    → {finding.mend}")
    if not findings:
        _say("✓ Rien à signaler.")
    _end({"ok": not blocking, "findings": [plain(finding) for finding in findings]}, as_json, 1 if blocking else 0)


@domains_app.command()
def plan(
    domain: DomainArgument,
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what becomes of each record of a domain; exit status 1 when something waits for a decision."""
    with _stage(inventory, rehearsal) as stage, stage.at(_ascii(domain)) as move:
        _, found = _read(move)
    if not as_json:
        for line in found.lines():
            _say(line)
    _end({"ok": found.applicable, **found.to_json()}, as_json, 0 if found.applicable else 1)


def _next_words(row: Row, options: str) -> list[str]:
    """Return the commands with which a domain goes on, as they are typed."""
    hint = HINTS.get(row.code)
    if hint:
        return [f"./infini domains {hint.format(domain=row.domain)}{options}"]
    if row.action and not row.over:
        return [f"./infini domains advance {row.domain} --apply{options}"]
    return []


def _tell(row: Row, step: Step, options: str, rehearsed: bool) -> None:
    from infini.domains.board import STATES, WHO, moment

    _say(f"{row.shown} : {row.label}")
    if step.acted:
        _say(f"    fait : {step.verdict.reason}")
    elif row.over:
        _say(f"    {row.reason}")
    else:
        _say(f"    {row.reason} ({WHO[row.who]})")
    if row.waiting_until and not step.acted:
        _say(f"    pas avant le {moment(row.waiting_until)}")
    if step.verdict.irreversible and not step.acted:
        _say("    ATTENTION : cette étape ne se défait pas.")
    if step.verdict.next and step.verdict.action and not step.acted:
        _say(f"    étape suivante : {STATES[step.verdict.next]}")
    for words in _next_words(row, options):
        _say(f"    → {words}")
    if rehearsed and not row.over and not _next_words(row, options):
        _say(
            f"    → ./infini domains rehearse --keep {options.split()[-1]} --step   (le temps passe, d'autres agissent)"
        )


def _names(stage: RealStage | Rehearsal, domains: list[str] | None) -> list[str]:
    if domains:
        return [_ascii(domain) for domain in domains]
    return [name for name in stage.store.domains() if not name.startswith("_")]


@domains_app.command()
def advance(  # noqa: PLR0913, RUF100  each is an option of the command
    domains: Annotated[
        list[str] | None, typer.Argument(help="The domains; all that are on their way by default.")
    ] = None,
    apply: ApplyOption = False,
    until: Annotated[str, typer.Option(help="Stop once this state is reached, e.g. SETTLED.")] = "",
    one: Annotated[bool, typer.Option("--one", help="Do one thing only, then stop.")] = False,
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take domains as far as they may go now. Without --apply, only say what would be done next."""
    from infini.domains import board
    from infini.domains.doors import told
    from infini.domains.states import CHAIN, State

    if until and until not in CHAIN:
        raise RefusedError(f"There is no state “{until}”: name one of {', '.join(CHAIN)}")
    goal = State(until) if until else None
    options = f" --rehearsal {rehearsal}" if rehearsal else f" -i {inventory}"
    steps = []
    with _stage(inventory, rehearsal) as stage:
        for name in _names(stage, domains):
            with stage.at(name) as move:
                step = move.run_until_blocked(goal) if apply and not one else move.advance(apply, goal)
                row = board.look(move, step) if apply else _seen(move, step)
            steps.append(told(step))
            _tell(row, step, options, rehearsal is not None)
    failed = any(step["side"] == "FAILED" for step in steps)
    _end({"ok": not failed, "steps": steps}, as_json, 4 if failed else 0)


def _seen(move: Move, step: Step) -> Row:
    """Return a row of what a look found, without keeping it."""
    from infini.domains.board import SAID, Row

    verdict = step.verdict
    return Row(
        move.domain,
        verdict.state,
        step.at,
        step.at,
        SAID.get(verdict.code) or step.says or verdict.reason,
        verdict.side,
        verdict.code,
        verdict.next,
        verdict.action,
        verdict.who,
        verdict.waiting_until,
    )


@domains_app.command()
def decide(  # noqa: PLR0913, RUF100  each is an option of the command
    domain: DomainArgument,
    decision: Annotated[
        str, typer.Argument(help="consent, mail-mode, waiver, price, mail-copied, services-checked, …")
    ],
    fields: Annotated[list[str] | None, typer.Argument(help="What it says, as name=value.")] = None,
    by: Annotated[str, typer.Option("--by", help="Who decides, when it is not you.")] = "",
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write down what a person decided: it stays in the domain's events, with the name and the moment."""
    data: dict[str, str] = {"by": by} if by else {}
    for field in fields or ():
        name, equals, value = field.partition("=")
        if not equals:
            raise RefusedError(f"“{field}” is no name=value: write for example reason='vu avec le membre'")
        data[name] = value
    with _stage(inventory, rehearsal) as stage, stage.at(_ascii(domain)) as move:
        move.decide(decision, data)
    _say(f"C'est noté : {decision}.")
    _end({"ok": True, "domain": domain, "decision": decision, **data}, as_json)


@domains_app.command()
def rollback(  # noqa: PLR0913, RUF100  each is an option of the command
    domain: DomainArgument,
    to: Annotated[str, typer.Option(help="The state to go back to, e.g. PARITY_OK.")],
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    apply: ApplyOption = False,
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back what was done, last thing first. Repeat it until nothing is left to take back."""
    from infini.domains import board
    from infini.domains.doors import told
    from infini.domains.states import CHAIN, State

    if to not in CHAIN:
        raise RefusedError(f"There is no state “{to}”: name one of {', '.join(CHAIN)}")
    options = f" --rehearsal {rehearsal}" if rehearsal else f" -i {inventory}"
    with _stage(inventory, rehearsal) as stage, stage.at(_ascii(domain)) as move:
        if CHAIN.index(move.memory().recorded) >= CHAIN.index(State.TRANSFERRED):
            raise RefusedError(f"{domain} : trop tard, le transfert est fait et ne se défait pas.")
        step = move.rollback(State(to), reason or "à la demande d'un bénévole", apply)
        row = board.look(move, step) if apply else _seen(move, step)
    _tell(row, step, options, rehearsal is not None)
    _end({"ok": step.side != State.FAILED, "steps": [told(step)]}, as_json)


@domains_app.command()
def watch(
    domain: DomainArgument,
    every: Annotated[float, typer.Option(help="Seconds from one look to the next.")] = 5.0,
    minutes: Annotated[float, typer.Option(help="Stop after so many minutes; 0 goes on until Ctrl-C.")] = 0.0,
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at a domain all the time, from before the switch until it has settled; Ctrl-C ends it."""
    from infini.domains.doors import plain
    from infini.domains.wiring import RealStage

    name = _ascii(domain)
    with _stage(inventory, rehearsal) as stage:
        if isinstance(stage, RealStage):
            _probe(stage, name, every, minutes)
        tally = (stage.dns() if isinstance(stage, RealStage) else stage.dns).tally(name)
    if tally is None:
        raise RefusedError(f"{name} was never looked at: let the command run for a while")
    _say(f"{name} : {tally.failed} échecs sur {tally.total} essais.")
    _end({"ok": not tally.failed, **plain(tally)}, as_json, 1 if tally.failed else 0)


def _probe(stage: RealStage, name: str, every: float, minutes: float) -> None:
    """Run the probe until it is stopped."""
    import time

    from infini.domains.probe import Probe

    probe = Probe(name, stage.checks(name), stage.probes / f"{name}.jsonl", every)
    end = time.monotonic() + minutes * 60 if minutes else float("inf")
    _say(f"La sonde regarde {name} toutes les {every:g} secondes ; Ctrl-C l'arrête.")
    with probe:
        try:
            while time.monotonic() < end:
                time.sleep(min(1.0, max(0.0, end - time.monotonic())))
        except KeyboardInterrupt:
            _say("")


@domains_app.command("board")
def show_board(  # noqa: PLR0913, RUF100  each is an option of the command
    html: Annotated[Path | None, typer.Option(help="Also write the page to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write a table for spreadsheets to this file.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Look at every domain again first.")] = False,
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where every domain stands, who must act, what waits and what expires."""
    from infini.domains import board
    from infini.runner import console

    with _stage(inventory, rehearsal) as stage:
        if fresh:
            for name in _names(stage, None):
                with stage.at(name) as move:
                    board.look(move, move.advance())
        seen = board.read(stage.store, stage.clock.now())
    if not as_json:
        console.print(seen.table())
    for path in board.write(seen, html, csv):
        _say(f"Écrit : {path}")
    _end(seen.to_json(), as_json)


@domains_app.command()
def report(
    domain: DomainArgument,
    html: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove a domain's move on one page: accounting, comparison, probe, steps; exit status 1 while it is not whole."""
    from infini.domains import board
    from infini.domains.report import Proof

    with _stage(inventory, rehearsal) as stage, stage.at(_ascii(domain)) as move:
        memory, found = move.memory(), move.plan()
        row = board.kept(move.store, move.domain) or board.look(move)
        events, tally = tuple(move.store.read(move.domain)), move.dns.tally(move.domain)
        proof = Proof(row, events, stage.clock.now(), found.to_json() if found else None, memory.parity, tally)
    if html:
        html.write_text(proof.html(), encoding="utf-8")
        _say(f"Écrit : {html}")
    _say("La preuve est complète." if proof.clean else "La preuve n'est pas encore complète : voyez la page (--html).")
    _end(proof.to_json(), as_json, 0 if proof.clean else 1)


@domains_app.command()
def message(
    domain: DomainArgument,
    kind: Annotated[str, typer.Argument(help="Which one; the one that is due by default.")] = "",
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the message that the member should have now; nothing is sent."""
    from infini.domains import board
    from infini.domains.messages import message as the_message

    with _stage(inventory, rehearsal) as stage, stage.at(_ascii(domain)) as move:
        row = board.kept(move.store, move.domain) or board.look(move, move.advance())
        export = move.export()
        found = the_message(row, kind, export.mailboxes if export else ())
    if found is None:
        _say(f"Rien à écrire au membre maintenant pour {row.shown}.")
        _end({"ok": True, "kind": "", "subject": "", "body": ""}, as_json)
        return
    if not as_json:
        sys.stdout.write(found.text())
    _end({"ok": True, "kind": found.kind, "subject": found.subject, "body": found.body}, as_json)


@domains_app.command()
def paste(
    domain: DomainArgument,
    zone: Annotated[Path, typer.Argument(help="The zone's text, as Gandi's interface shows it.")],
    answers: Annotated[Path, typer.Argument(help="The member's answers (YAML): expires, created, nameservers, …")],
    inventory: InventoryOption = "production",
    as_json: JsonOption = False,
) -> None:
    """Keep what a member without a token pasted and answered (access level C)."""
    import yaml

    from infini.domains.by_hand import HandLosing

    name = _ascii(domain)
    try:
        text, given = zone.read_text(encoding="utf-8"), yaml.safe_load(answers.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RefusedError(f"What was pasted for {name} cannot be read: {error}") from None
    with _stage(inventory, None) as stage:
        losing = stage.losing(name)  # type: ignore[operator]  # without a folder it is the real stage
        if not isinstance(losing, HandLosing):
            raise RefusedError(f"{name} is not of access level C: add `{name}: C` to domains_levels first")
        losing.keep(name, text, given)
    _say(f"C'est gardé : {name}.")
    _end({"ok": True, "domain": name}, as_json)


@domains_app.command()
def code(domain: DomainArgument, inventory: InventoryOption = "production", rehearsal: RehearsalOption = None) -> None:
    """Put the transfer code that a member gave into the vault; it is typed, and never shown."""
    from infini.domains.secrets import from_terminal

    name = _ascii(domain)
    with _stage(inventory, rehearsal) as stage:
        stage.codes.put(name, from_terminal(f"Code de transfert de {name}")())
    _say("Le code est au coffre.")


@domains_app.command()
def rehearse(  # noqa: PLR0913, RUF100  each is an option of the command
    domains: Annotated[int, typer.Option(min=1, help="How many domains, of every archetype in turn.")] = 34,
    seed: Annotated[int, typer.Option(help="Decides the faults; the same seed gives the same rehearsal.")] = 0,
    faults: Annotated[bool, typer.Option("--faults", help="Let everything go wrong that can, at random.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Play by hand in this folder, one command after the other.")] = None,
    archetype: Annotated[list[str] | None, typer.Option(help="With --keep: the kinds of domains; repeatable.")] = None,
    step: Annotated[bool, typer.Option("--step", help="With --keep: let time pass and the others act, once.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Move a fleet in a simulated world; with --keep, make a world to move one domain in by hand."""
    if keep is not None:
        _by_hand(keep, archetype or ["signed"], step, seed, as_json)
    if step or archetype:
        raise RefusedError("--step and --archetype belong to a rehearsal by hand: add --keep FOLDER")
    from infini.domains.rehearse import rehearse as run
    from infini.runner import console

    with console.status(f"{domains} domaines déménagent…"):
        answer = run(domains, seed, faults)
    blocked = ", ".join(f"{code} {count}" for code, count in answer["blocked"].items())
    _say(
        f"{answer['domains']} domaines en {answer['virtual_days']:g} jours simulés ({answer['seconds']:.0f} s) : "
        f"{answer['done']} terminés ; arrêtés comme prévu ou non : {blocked or 'aucun'}."
    )
    for wrong in answer["mismatched"]:
        told = f"{wrong['expected']} attendu, {wrong['got']} obtenu. {wrong['says']}"
        _say(f"✗ {wrong['domain']} ({wrong['archetype']}) : {told}")
    _say("✓ Tout s'est passé comme les archétypes l'annoncent." if answer["ok"] else "✗ Voyez --json pour le détail.")
    _end(answer, as_json, 0 if answer["ok"] else 1)


def _by_hand(folder: Path, names: list[str], step: bool, seed: int, as_json: bool) -> None:
    """Begin a rehearsal by hand, or let the others act in it once."""
    from infini.domains.board import moment
    from infini.domains.rehearsal import Rehearsal
    from infini.domains.rehearse import let_others_act

    if not step:
        made = Rehearsal.begin(folder, names, seed)
        for one in made.cast.values():
            _say(f"{one.domain} : {one.says}")
            _say(f"    → ./infini domains plan {one.domain} --rehearsal {folder}")
        _end({"ok": True, "folder": str(folder), "domains": list(made.cast)}, as_json)
    going = Rehearsal.resume(folder)
    done = let_others_act(going)
    for sentence in done:
        _say(sentence)
    now = going.clock.now()
    _say(f"Dans la répétition, nous sommes le {moment(now)}.")
    for name in going.cast:
        _say(f"    → ./infini domains advance {name} --apply --rehearsal {folder}")
    _end({"ok": True, "now": now.isoformat(), "done": done}, as_json)
