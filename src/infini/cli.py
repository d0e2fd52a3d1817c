# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: each command is a door to a module of its own, imported when it is used.

Exit status: 0 fine, 1 findings, 2 refused or bad input, 3 unreachable, 4 failed. With --json standard output is one
JSON object and nothing else; progress and sentences go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from infini.answers import CheckOption, InventoryOption, JsonOption, end, say
from infini.backups import cli as backups
from infini.domains.cli import domains_app
from infini.errors import InfiniError
from infini.mail.cli import mail_app
from infini.phrase import said

app = typer.Typer(
    help="The platform of Infini. A first evening: `./infini staging up --yes`, then `./infini verify`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
staging_app = typer.Typer(help="The platform in small, in containers on this machine.", no_args_is_help=True)
app.add_typer(staging_app, name="staging")
php_app = typer.Typer(help="Versions of PHP that live in their own release's tree.", no_args_is_help=True)
app.add_typer(php_app, name="php")
app.add_typer(domains_app, name="domains")
app.add_typer(mail_app, name="mail")
backups.register(app)

YesOption = Annotated[bool, typer.Option("--yes", help="Install what this machine lacks without asking.")]
VersionArgument = Annotated[str, typer.Argument(help="Version of PHP, as php_runtimes names it: 7.4.")]
MemberArgument = Annotated[str, typer.Argument(help="Login of a member of the panel.")]


@app.command()
def doctor(
    inventory: Annotated[
        str, typer.Option("--inventory", "-i", help="Also look at this inventory, e.g. production.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Say what this machine lacks, and the command that mends it."""
    from infini import doctor as the_doctor

    findings = list(the_doctor.inventory(inventory) if inventory else the_doctor.machine())
    for finding in findings:
        say(f"✗ {finding.says}\n    {finding.mend}")
    if not findings:
        say("✓ Nothing is missing." + ("" if inventory else " Next: ./infini staging up"))
    shown = [{"says": finding.says, "mend": finding.mend} for finding in findings]
    end({"ok": not findings, "findings": shown}, as_json, 1 if findings else 0)


@staging_app.command("up")
def staging_up(yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Build the hosts, apply everything and check it. Run it again at any time: it goes on where it was."""
    from infini import staging, verify
    from infini.hosts import Inventory
    from infini.runner import console

    _mend_machine(yes)
    result = staging.up()
    answer = result.as_json()
    if not result.ok:
        say(result.sentence())
        end(answer, as_json, result.status)
    inventory = Inventory(staging.INVENTORY)
    report = verify.verify(str(inventory.path), result)
    report.print(console, everything=False)
    console.print(staging.site_table(inventory, report))
    say(staging.how_to_look(inventory))
    answer |= {"ok": report.ok, "checks": report.checks, "findings": report.as_json()["failed"]}
    end(answer, as_json, 0 if report.ok else 1)


def _agreed(question: str) -> bool:
    return sys.stdin.isatty() and typer.confirm(question, default=True, err=True)


def _install_missing(yes: bool, tools: dict[str, str]) -> None:
    """Install missing packages if the operator agrees, and refuse to go on without them."""
    from infini import doctor as the_doctor
    from infini.errors import RefusedError

    packages = the_doctor.missing_packages(tools)
    if not packages:
        return
    if not yes and not _agreed(f"Install {', '.join(packages)}?"):
        raise RefusedError(f"These tools are missing: {', '.join(packages)}. Mend: apt install {' '.join(packages)}")
    say(f"Installing {', '.join(packages)} …")
    the_doctor.install(packages)


def _mend_machine(yes: bool, tools: dict[str, str] | None = None) -> None:
    """Install missing packages if the operator agrees, and refuse a machine that cannot do."""
    from infini import doctor as the_doctor
    from infini.errors import RefusedError

    tools = tools or the_doctor.TOOLS
    _install_missing(yes, tools)
    findings = list(the_doctor.machine(tools))
    if findings:
        raise RefusedError("\n".join(f"{finding.says} Mend: {finding.mend}" for finding in findings))


@staging_app.command("down")
def staging_down(
    hosts: Annotated[list[str] | None, typer.Argument(help="Only these hosts, as if lost; none: all there is.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove everything that `up` made, and only that; what was downloaded stays for the next time."""
    from infini import staging

    there = staging.down(hosts or ())
    if hosts:
        say(
            f"Gone: {', '.join(hosts)}. `./infini rebuild` brings them back from the store."
            if there
            else "None was there."
        )
    else:
        say("The bench is gone." if there else "There was no bench.")
    end({"ok": True, "changed": int(there)}, as_json)


@staging_app.command("reset")
def staging_reset(yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Take the bench down and bring a fresh one up."""
    from infini import staging

    staging.down()
    staging_up(yes, as_json)


@staging_app.command("status")
def staging_status(as_json: JsonOption = False) -> None:
    """Say which hosts there are, half-made ones too."""
    from infini import staging

    found = staging.status()
    for host in found["hosts"]:
        say(f"{host['name']}: {host['state']} ({host['image']})")
    if not found["hosts"]:
        say(
            "There is no bench"
            + (", but its network is left: ./infini staging down" if found["network"] else ": ./infini staging up")
        )
    end({"ok": True, **found}, as_json)


@staging_app.command("ssh", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def staging_ssh(host: str, context: typer.Context) -> None:
    """Open a shell on a host of the bench, or run a command there."""
    from infini import staging

    staging.ssh(host, context.args)


@app.command()
def apply(
    playbook: Annotated[str, typer.Argument(help="A name under playbooks/ (base, web, …), or a path.")] = "site",
    inventory: InventoryOption = "staging",
    check: CheckOption = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show each change, line by line; secrets are masked.")] = False,
    limit: Annotated[str, typer.Option("--limit", help="Only these hosts or groups.")] = "all",
    overwrite: Annotated[
        list[str] | None, typer.Option(help="A file edited by hand that may be overwritten; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Apply a playbook to an inventory. Look first: --check --diff."""
    from infini.apply import apply as run

    result = run(playbook, inventory, check=check, diff=diff, limit=limit, overwrite=overwrite or ())
    if diff:
        sys.stderr.write(result.differences())
    answer = result.as_json()
    if not result.ok:
        say(result.sentence())
        end(answer, as_json, result.status)
    verb = "would change" if check else "changed"
    say(f"{result.tasks} tasks, {result.changed} {verb} something on a host, in {result.seconds:.0f} s.")
    for notice in result.notices:
        say(f"! {notice}")
    for file in result.quarantined:
        say(f"✗ {file['name']}: {file['host']} keeps {file['path']} as before: {file['reason']}\n    {file['mend']}")
    end(answer, as_json, result.status)


@php_app.command("update")
def php_update(
    version: VersionArgument,
    inventory: InventoryOption = "staging",
    check: CheckOption = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it anew even where nothing is newer.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Give a tree its release's updates: built beside, exchanged in one instant, the last one kept."""
    _exchange(version, "latest", inventory, check, rebuild, as_json)


@php_app.command("rollback")
def php_rollback(
    version: VersionArgument,
    inventory: InventoryOption = "staging",
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take the tree back that the last update replaced; once more takes that back."""
    _exchange(version, "previous", inventory, check, False, as_json)


def _exchange(version: str, state: str, inventory: str, check: bool, force: bool, as_json: bool) -> None:
    from infini import php_trees

    result = php_trees.exchange(version, state, inventory, check=check, force=force)
    if not result.ok:
        say(result.sentence())
        end(result.as_json(), as_json, result.status)
    outcomes = php_trees.outcomes(result)
    for host, outcome in outcomes.items():
        say(php_trees.sentence(version, state, host, outcome, check=check))
    end({**result.as_json(), "trees": outcomes}, as_json)


@app.command()
def verify(
    inventory: InventoryOption = "staging",
    html: Annotated[Path | None, typer.Option(help="Also write the page to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run every check, from outside, and say what is wrong with the mend (in French)."""
    from infini import staging
    from infini import verify as the_verify
    from infini.hosts import Inventory
    from infini.runner import console

    the_inventory = Inventory(inventory)
    staging.keep_authority(the_inventory)
    report = the_verify.verify(str(the_inventory.path))
    report.print(console)
    if html:
        html.write_text(report.as_html())
    end(report.as_json(), as_json, 0 if report.ok else 1)


@app.command()
def drift(inventory: InventoryOption = "staging", as_json: JsonOption = False) -> None:
    """Name the files that were edited by hand since we wrote them."""
    from infini import drift as the_drift

    answer, status = the_drift.drift(inventory)
    for found in answer["files"]:
        say(f"{found['host']}: {found['path']}\n{found['diff']}")
    if answer["files"]:
        count = len(answer["files"])
        say(f"{count} file{'s differ' if count > 1 else ' differs'} from what we wrote.")
    elif answer["ok"]:
        say("No managed file was edited by hand.")
    if "error" in answer:
        say(f"✗ Not every host was looked at. {answer['error']}")
    end(answer, as_json, status)


@app.command()
def leave(
    member: MemberArgument,
    inventory: InventoryOption = "staging",
    to: Annotated[Path | None, typer.Option(help="Where the export goes; MEMBER.json here without.")] = None,
    limit: Annotated[str, typer.Option(help="The panel's host, where there are several.")] = "panels",
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let a member of the panel leave: an export to hand over, and panel and FTP shut. Nothing is deleted."""
    from infini import leaving

    dest = to or Path(f"{member}.json")
    result = leaving.leave(member, inventory, dest, limit=limit, check=check)
    if not result.ok:
        say(result.sentence())
    elif check:
        say(f"{member} would be frozen, and {dest} written.")
    else:
        say(f"{member} is frozen; hand {dest} over. In {leaving.DAYS} days: ./infini purge {member}")
    end(result.as_json(), as_json, result.status)


@app.command()
def purge(
    member: MemberArgument,
    inventory: InventoryOption = "staging",
    check: CheckOption = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what goes, line by line.")] = False,
    limit: Annotated[str, typer.Option(help="The panel's host, where there are several.")] = "panels",
    as_json: JsonOption = False,
) -> None:
    """Delete a member who left 30 days ago, with all there is of him, once a verified backup holds it."""
    from infini import leaving

    result = leaving.purge(member, inventory, limit=limit, check=check, diff=diff)
    if diff:
        sys.stderr.write(result.differences())
    if result.ok:
        say(f"{member} {'would be' if check else 'is'} deleted with all there was of the member.")
    else:
        say(result.sentence())
    end(result.as_json(), as_json, result.status)


@app.command()
def runs(as_json: JsonOption = False) -> None:
    """List the runs of the last 90 days and where their logs are."""
    from infini.runner import RUNS

    found = sorted(entry.name for entry in RUNS.iterdir()) if RUNS.exists() else []
    for name in found:
        say(f"{name}: .infini/runs/{name}/log")
    end({"ok": True, "runs": found}, as_json)


@app.command("test")
def run_tests(
    stage: Annotated[
        str, typer.Argument(help="lint, unit, molecule, e2e or alternc; without a word, all but alternc.")
    ] = "",
    long: Annotated[bool, typer.Option("--long", help="Also benches and many seeds.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run what CI runs."""
    from infini import doctor as the_doctor
    from infini import testing

    if stage and stage not in testing.STAGES:
        raise typer.BadParameter(f"there is no stage “{stage}”: name one of {', '.join(testing.STAGES)}")
    if stage in ("", "molecule", "e2e", "alternc"):
        _mend_machine(yes, {**the_doctor.TOOLS, **the_doctor.TEST_TOOLS})
    else:
        _install_missing(yes, the_doctor.TEST_TOOLS)
    answer = testing.run(stage or None, long)
    if not as_json:
        sys.stdout.write(f"{answer['passed']} passed, {answer['failed']} failed, {answer['skipped']} skipped\n")
    end(answer, as_json, 0 if answer["ok"] else 1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    name: Annotated[str, typer.Argument(help="What: a file of tests/bench, such as pools.")],
    context: typer.Context,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure, as ratios against the raw lower bound and a peer in the same run. Numbers: `bench pools --sites 100`."""
    from infini import doctor as the_doctor
    from infini import measure

    wanted = measure.numbers(context.args)
    _install_missing(yes, the_doctor.TEST_TOOLS)
    answer = measure.run(name, wanted)
    for case, measures in answer["measures"].items():
        say(f"{case}: " + ", ".join(f"{key} {value}" for key, value in measures.items()))
    for pair, ratio in answer["ratios"].items():
        say(f"{pair}: {ratio:.2f}")
    end(answer, as_json, 0 if answer["ok"] else 1)


def _guarded(command: Callable[[], Any]) -> None:
    """Turn our errors into one sentence and their exit status."""
    try:
        command()
    except InfiniError as error:
        told = said(*error.args)
        say(f"✗ {told}")
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps({"ok": False, "error": told}) + "\n")
        sys.exit(error.status)
    except KeyboardInterrupt:
        say("Stopped. `infini staging status` shows what is there; running the command again goes on.")
        sys.exit(130)


def main() -> None:
    """Run the command."""
    _guarded(lambda: app(prog_name="infini"))
