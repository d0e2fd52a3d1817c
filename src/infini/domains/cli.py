# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini domains`: what a volunteer types to accompany a domain, for real (`-i`) or in a rehearsal (`--rehearsal`).

Nothing changes without `--apply`. Sentences are said in French, on standard error; data goes to standard output.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infini.domains.ports import ByHandError, WorldError
from infini.errors import FailedError, RefusedError
from infini.phrase import Phrase, said

if TYPE_CHECKING:
    from datetime import timedelta

    from infini.domains.board import Row
    from infini.domains.hints import Hint
    from infini.domains.move import Move, Step
    from infini.domains.observed import Export
    from infini.domains.plan import Plan
    from infini.domains.rehearsal import Rehearsal
    from infini.domains.states import State
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

QUESTIONS = {
    "by": Phrase("Who said so"),
    "date": Phrase("Which day (YYYY-MM-DD)"),
    "payer": Phrase("Who pays"),
    "mode": Phrase("Where mail goes (none, external, infini or gandi)"),
    "subject": Phrase("What is accepted (a record as name/type, or a code)"),
    "reason": Phrase("Why"),
    "euros": Phrase("The most that you accept to pay, in euros"),
    "address": Phrase("Which mailbox"),
    "host": Phrase("Which name's frame becomes an ordinary redirection"),
    "before": Phrase("How many messages it had at Gandi"),
    "after": Phrase("How many messages it has now"),
    "step": Phrase("Which step"),
    "to": Phrase("Back to which state"),
}
"""How a field of a decision is asked for at the terminal."""


def _end(answer: dict[str, Any], as_json: bool, status: int = 0) -> None:
    if as_json:
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    raise typer.Exit(status)


def _say(text: str) -> None:
    from infini.runner import console

    console.print(said(text), markup=False, highlight=False, soft_wrap=True)


def _more(text: str) -> None:
    """Say something below what it belongs to."""
    _say(f"    {said(text)}")


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

    from infini.domains.board import date
    from infini.domains.doors import plain
    from infini.domains.gandi import is_livedns
    from infini.runner import console

    with _stage(inventory, rehearsal) as stage:
        found = stage.reachable()
    if not as_json:
        yes, no = said(Phrase("yes")), said(Phrase("no"))
        titles = (Phrase("domain"), Phrase("expires"), Phrase("lock"), Phrase("renewal"), Phrase("DNS at LiveDNS"))
        table = Table(*map(said, titles))
        for facts in sorted(found, key=lambda facts: facts.expires):
            flags = (facts.registrar_lock, facts.auto_renew, is_livedns(facts))
            shown = facts.name_unicode or facts.name
            table.add_row(shown, date(facts.expires), *(yes if flag else no for flag in flags))
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
    from infini.domains.hints import Hint
    from infini.domains.registries import rule_for

    name = _ascii(domain)
    with _stage(inventory, rehearsal) as stage, stage.at(name) as move:
        export, plan = _read(move)
        facts, delegation = move.losing.domain(name), move.dns.delegation(name)
        told = the_audit.contradictions(export, plan.export)
        findings = the_audit.audit(export, plan, facts, delegation, rule_for(name), stage.clock.now(), told)
    blocking = [finding for finding in findings if finding.severity == "block"]
    for finding in findings:
        mark = {"block": "✗", "warn": "!", "note": "·"}[finding.severity]
        _say(f"{mark} {finding.says}")
        _more(Phrase("mend: {mend}", mend=finding.mend))
    if not findings:
        _say(Phrase("✓ There is nothing to tell."))
    _arrows([Hint(("advance", name))], _where(inventory, rehearsal))
    _end({"ok": not blocking, "findings": [plain(finding) for finding in findings]}, as_json, 1 if blocking else 0)


@domains_app.command()
def plan(
    domain: DomainArgument,
    inventory: InventoryOption = "production",
    rehearsal: RehearsalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what becomes of each record of a domain; exit status 1 when something waits for a decision."""
    from infini.domains.hints import Hint

    name = _ascii(domain)
    with _stage(inventory, rehearsal) as stage, stage.at(name) as move:
        _, found = _read(move)
    if not as_json:
        for line in found.lines():
            _say(line)
    _arrows([Hint(("audit", name))], _where(inventory, rehearsal))
    _end({"ok": found.applicable, **found.to_json()}, as_json, 0 if found.applicable else 1)


def _where(inventory: str, rehearsal: Path | None) -> tuple[str, ...]:
    """Return the options that lead every command to the same world."""
    return ("--rehearsal", str(rehearsal)) if rehearsal else ("-i", inventory)


def _arrows(hints: list[Hint], where: tuple[str, ...]) -> None:
    """Show commands as they are typed, each below when to type it."""
    from infini.domains.hints import STEP

    for hint in hints:
        words = ("rehearse", "--keep", where[-1], "--step") if hint is STEP else (*hint.words, *where)
        if hint.when:
            _more(hint.when)
        _more(f"→ ./infini domains {shlex.join(words)}")


def _tell(move: Move, row: Row, step: Step, where: tuple[str, ...], foretold: str = "") -> None:
    """Say where a domain stands and what to type next; `foretold` is the code with which its rehearsal ends."""
    from infini.domains.board import STATES, WHO, moment
    from infini.domains.hints import hints

    _say(f"{row.shown} : {row.label}")
    if step.acted:
        _more(Phrase("done: {what}", what=step.verdict.reason))
    else:
        _more(row.reason if row.over else f"{row.reason} ({said(WHO[row.who])})")
    if row.waiting_until and not step.acted:
        _more(Phrase("not before {when}", when=moment(row.waiting_until)))
    if step.verdict.irreversible and not step.acted:
        _more(Phrase("MIND: this step cannot be undone."))
    if step.verdict.next and step.verdict.allowed and not step.acted and not row.going_back:
        _more(Phrase("next step: {state}", state=STATES[step.verdict.next]))
    ends_here = bool(row.code) and row.code == foretold
    if ends_here:
        _more(Phrase("In this rehearsal the domain stops here, as was foretold: what follows is for a real one."))
    _arrows(hints(move, row, where[0] == "--rehearsal" and not ends_here), where)


def _foretold(stage: RealStage | Rehearsal, name: str) -> str:
    """Return the code with which a domain's rehearsal ends, empty when it ends well, or is none."""
    from infini.domains.rehearsal import Rehearsal

    return stage.cast[name].blocked if isinstance(stage, Rehearsal) else ""


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
        raise RefusedError(_no_state(until))
    goal = State(until) if until else None
    where, steps = _where(inventory, rehearsal), []
    with _stage(inventory, rehearsal) as stage:
        for name in _names(stage, domains):
            with stage.at(name) as move:
                step = move.run_until_blocked(goal) if apply and not one else move.advance(apply, goal)
                row = board.look(move, step) if apply else _seen(move, step)
                _tell(move, row, step, where, _foretold(stage, name))
            steps.append(told(step))
    failed = any(step["side"] == "FAILED" for step in steps)
    _end({"ok": not failed, "steps": steps}, as_json, 4 if failed else 0)


def _no_state(name: str) -> Phrase:
    from infini.domains.states import CHAIN

    return Phrase("There is no state “{name}”: name one of {states}", name=name, states=", ".join(CHAIN))


def _seen(move: Move, step: Step, going_back: State | None = None) -> Row:
    """Return a row of what a look found, without keeping it."""
    from infini.domains.board import SAID, Row

    verdict = step.verdict
    return Row(
        move.domain,
        verdict.state,
        step.at,
        step.at,
        said(SAID.get(verdict.code) or step.says or verdict.reason),
        verdict.side,
        verdict.code,
        verdict.next,
        verdict.action,
        verdict.who,
        verdict.waiting_until,
        going_back=going_back or move.memory().rollback,
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
    """Write down what a person decided: it stays in the domain's events, with the name and the moment.

    What it needs and nobody gave is asked for at the terminal.
    """
    from dataclasses import replace

    from infini.domains import board
    from infini.domains.hints import on

    data: dict[str, str] = {"by": by} if by else {}
    for field in fields or ():
        name, equals, value = field.partition("=")
        if not equals:
            raise RefusedError(
                Phrase("“{field}” is no name=value: write for example reason='seen with the member'", field=field)
            )
        data[name] = value
    name = _ascii(domain)
    with _stage(inventory, rehearsal) as stage, stage.at(name) as move:
        _ask(decision, data)
        move.decide(decision, data)
        row = board.kept(move.store, name)
        going_back = move.memory().rollback
    _say(Phrase("It is written down: {decision}.", decision=decision))
    if row and not row.over and decision != "abandon":
        _arrows([on(replace(row, side=None, going_back=going_back))], _where(inventory, rehearsal))
    _end({"ok": True, "domain": domain, "decision": decision, **data}, as_json)


def _ask(decision: str, data: dict[str, str]) -> None:
    """Ask at the terminal for what a decision lacks; who decides is known, but who agrees is somebody else."""
    from infini.domains.states import DECISIONS

    for field in DECISIONS.get(decision, ()):
        if field not in data and (field != "by" or decision == "consent") and sys.stdin.isatty():
            data[field] = typer.prompt(said(QUESTIONS[field]), prompt_suffix=" : ", err=True)


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
        raise RefusedError(_no_state(to))
    name = _ascii(domain)
    with _stage(inventory, rehearsal) as stage, stage.at(name) as move:
        if CHAIN.index(move.memory().recorded) >= CHAIN.index(State.TRANSFERRED):
            raise RefusedError(
                Phrase("{domain}: too late, the transfer is done and cannot be taken back.", domain=domain)
            )
        step = move.rollback(State(to), reason or said(Phrase("because a volunteer asked")), apply)
        row = board.look(move, step) if apply else _seen(move, step, State(to))
        _tell(move, row, step, _where(inventory, rehearsal))
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
        raise RefusedError(Phrase("{domain} was never looked at: let the command run for a while", domain=name))
    _say(Phrase("{domain}: {failed} of {total} looks failed.", domain=name, failed=tally.failed, total=tally.total))
    _end({"ok": not tally.failed, **plain(tally)}, as_json, 1 if tally.failed else 0)


def _probe(stage: RealStage, name: str, every: float, minutes: float) -> None:
    """Run the probe until it is stopped."""
    import time

    from infini.domains.probe import Probe

    checks, silent = stage.checks(name)
    probe = Probe(name, checks, stage.store, every)
    for label in silent:
        _more(Phrase("no answer to begin with, so not looked at: {what}", what=label))
    end = time.monotonic() + minutes * 60 if minutes else float("inf")
    _say(
        Phrase(
            "The probe looks at {domain} every {seconds} seconds; Ctrl-C ends it.", domain=name, seconds=f"{every:g}"
        )
    )
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
        _say(Phrase("Written: {path}", path=path))
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
    from infini.domains.report import Proof

    with _stage(inventory, rehearsal) as stage, stage.at(_ascii(domain)) as move:
        proof = Proof.of(move)
    if html:
        html.write_text(proof.html(), encoding="utf-8")
        _say(Phrase("Written: {path}", path=html))
    _say(Phrase("The proof is complete.") if proof.clean else Phrase("The proof is not complete:"))
    for missing in proof.missing:
        _more(f"- {missing}")
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
        row = board.known(move)
        export = move.export()
        found = the_message(row, kind, export.mailboxes if export else ())
    if found is None:
        _say(Phrase("There is nothing to write to the member of {domain} now.", domain=row.shown))
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
    from infini.domains.hints import Hint

    name = _ascii(domain)
    try:
        text, given = zone.read_text(encoding="utf-8"), yaml.safe_load(answers.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RefusedError(
            Phrase("What was pasted for {domain} cannot be read: {error}", domain=name, error=error)
        ) from None
    with _stage(inventory, None) as stage:
        losing = stage.losing(name)  # type: ignore[operator]  # without a folder it is the real stage
        if not isinstance(losing, HandLosing):
            raise RefusedError(
                Phrase("{domain} is not of access level C: add `{domain}: C` to domains_levels first", domain=name)
            )
        losing.keep(name, text, given)
    _say(Phrase("It is kept: {domain}.", domain=name))
    _arrows([Hint(("advance", name, "--apply"))], _where(inventory, None))
    _end({"ok": True, "domain": name}, as_json)


@domains_app.command()
def code(domain: DomainArgument, inventory: InventoryOption = "production", rehearsal: RehearsalOption = None) -> None:
    """Put the transfer code that a member gave into the vault; it is typed, and never shown."""
    from infini.domains.hints import Hint
    from infini.domains.secrets import from_terminal

    name = _ascii(domain)
    with _stage(inventory, rehearsal) as stage:
        stage.codes.put(name, from_terminal(said(Phrase("The transfer code for {domain}", domain=name)))())
    _say(Phrase("The code is in the vault."))
    _arrows([Hint(("advance", name, "--apply"))], _where(inventory, rehearsal))


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

    with console.status(said(Phrase("{count} domains are moving …", count=domains))):
        answer = run(domains, seed, faults)
    stopped = ", ".join(f"{code} {count}" for code, count in answer["blocked"].items())
    _say(
        Phrase(
            "Domains: {domains}, in {days} simulated days ({seconds} s). Done: {done}. Stopped: {stopped}.",
            domains=answer["domains"],
            days=f"{answer['virtual_days']:g}",
            seconds=f"{answer['seconds']:.0f}",
            done=answer["done"],
            stopped=stopped or Phrase("none"),
        )
    )
    for wrong in answer["mismatched"]:
        _say(Phrase("✗ {domain} ({archetype}): {expected} foretold, {got} came. {says}", **wrong))
    fine = Phrase("✓ All went as the archetypes foretell.")
    _say(fine if answer["ok"] else Phrase("✗ Look at --json for what went wrong."))
    _end(answer, as_json, 0 if answer["ok"] else 1)


def _by_hand(folder: Path, names: list[str], step: bool, seed: int, as_json: bool) -> None:
    """Begin a rehearsal by hand, or let the others act in it once."""
    from infini.domains.hints import Hint
    from infini.domains.rehearsal import Rehearsal

    where = _where("", folder)
    if step:
        _step(Rehearsal.resume(folder), where, as_json)
    made = Rehearsal.begin(folder, names, seed)
    for one in made.cast.values():
        _say(f"{one.domain} : {one.says}")
        _arrows([Hint(("plan", one.domain))], where)
    _end({"ok": True, "folder": str(folder), "domains": list(made.cast)}, as_json)


def _step(going: Rehearsal, where: tuple[str, ...], as_json: bool) -> None:
    """Let the others act in a rehearsal by hand, and say what they did and how much time passed."""
    from infini.domains.board import kept, moment
    from infini.domains.hints import Hint, on
    from infini.domains.rehearse import let_others_act

    found = let_others_act(going)
    for sentence in found.happened:
        _say(sentence)
    if found.passed:
        _say(Phrase("Time passes: {span}.", span=_span(found.passed)))
    rows = {name: kept(going.store, name) for name in going.cast}
    left = [on(row) if row else Hint(("plan", name)) for name, row in rows.items() if not (row and row.over)]
    if not (found.happened or found.passed):
        yours = Phrase("Nobody else has anything to do: it is your turn.")
        _say(yours if left else Phrase("All is over: nobody has anything left to do."))
    now = going.clock.now()
    _say(Phrase("In the rehearsal it is now {when}.", when=moment(now)))
    _arrows(found.hints or left, where)
    happened = [said(sentence) for sentence in found.happened]
    _end({"ok": True, "now": now.isoformat(), "seconds": found.passed.total_seconds(), "done": happened}, as_json)


def _span(passed: timedelta) -> str:
    """Return how long something took, as people say it: its two largest units."""
    hours, minutes = divmod(round(passed.total_seconds() / 60), 60)
    days, hours = divmod(hours, 24)
    units = (
        (days, Phrase("{count} d", count=days)),
        (hours, Phrase("{count} h", count=hours)),
        (minutes, Phrase("{count} min", count=minutes)),
    )
    return " ".join([said(phrase) for count, phrase in units if count][:2])
