# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini backup`, `restore`, `rebuild`, `drill` and `paper-key`: what the command line says of backups."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infini.answers import CheckOption, InventoryOption, JsonOption, end, say
from infini.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from infini.hosts import Inventory

LimitOption = Annotated[str, typer.Option("--limit", help="Only these hosts or groups.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (backup, restore, rebuild, drill):
        app.command()(command)
    app.command("paper-key")(paper_key)


def backup(inventory: InventoryOption = "staging", limit: LimitOption = "all", as_json: JsonOption = False) -> None:
    """Back the hosts up now; the timers do it every night."""
    from infini.backups.door import ask, sentence
    from infini.backups.recovery import clients
    from infini.hosts import Inventory, locked

    the_inventory = Inventory(inventory)
    hosts = clients(the_inventory, limit)
    connections = [the_inventory.connection(host) for host in hosts]
    with locked(the_inventory, ",".join(hosts)), ThreadPoolExecutor(len(hosts)) as pool:
        done = dict(zip(hosts, pool.map(lambda to: ask(to, "run"), connections), strict=True))
    ok = True
    for host, answer in done.items():
        for service, state in answer["services"].items():
            ok = ok and state["ok"]
            size = f"{state.get('files', 0)} files, {_size(state.get('bytes', 0))}, {state.get('seconds', 0):.0f} s"
            told = (
                f"✓ {host} {service}: {size}" if state["ok"] else f"✗ {host} {service}: {sentence(state['error'], [])}"
            )
            say(told)
    end({"ok": ok, "hosts": done}, as_json, 0 if ok else 4)


def restore(
    kind: Annotated[str, typer.Argument(help="site, account, database, path, host; or list, to see what there is.")],
    name: Annotated[str, typer.Argument(help="Its name: velo.test, velo, web:/srv/members/velo, web.")] = "",
    inventory: InventoryOption = "staging",
    before: Annotated[
        str, typer.Option(help="As it was then, say before the hack: 2026-11-20 or “2026-11-20 14:30”.")
    ] = "",
    to: Annotated[str, typer.Option(help="An empty folder of the host; one under /srv/restored without.")] = "",
    over: Annotated[
        str, typer.Option(help="Over the living: the name once more. What stood there is kept aside.")
    ] = "",
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a site, an account, a database, a path or a host back from the backups, beside unless told otherwise."""
    from infini.backups import restore as the_restore
    from infini.backups.door import ask
    from infini.hosts import Inventory, locked

    the_inventory = Inventory(inventory)
    if kind == "list":
        _list(the_inventory, name or "all", as_json)
    if kind not in the_restore.KINDS or not name:
        raise RefusedError(f"Say what: infini restore {'|'.join(the_restore.KINDS)} NAME, or infini restore list")
    if over not in ("", name):
        raise RefusedError(f"--over {over} is not {name}: to write over the living, name the same thing twice")
    thing = the_restore.find(the_inventory, kind, name)
    if over and thing.shared and thing.databases:
        say(f"! {thing.host} does not know which database the site uses: only its files; a database is named by itself")
        thing = replace(thing, databases=())
    connection = the_inventory.connection(thing.host)
    then = the_restore.moment(before) if before else ""
    pieces = the_restore.plan(thing, ask(connection, "services"), ask(connection, "archives"), then)
    for piece in pieces:
        what = ", ".join((*piece.paths, *(f"database {one}" for one in piece.databases))) or "everything"
        made = _here(the_restore.moment_of(piece.archive))
        say(f"{piece.host}, {piece.service} as of {made}: {what} {'OVER THE LIVING' if over else 'beside'}")
    answers: list[dict[str, Any]] = []
    if not check:
        with locked(the_inventory, thing.host):
            for piece, answer in the_restore.restore(the_inventory, pieces, over=bool(over), to=to):
                answers.append({"service": piece.service, "archive": piece.archive, **answer})
                for line in _told(answer, piece.paths):
                    say(line)
    end({"ok": True, "restored": answers}, as_json)


def _list(inventory: Inventory, limit: str, as_json: bool) -> None:
    """Say which archives there are, and leave."""
    from infini.backups import restore as the_restore
    from infini.backups.door import ask
    from infini.backups.recovery import clients

    found = {host: ask(inventory.connection(host), "archives") for host in clients(inventory, limit)}
    for host, archives in found.items():
        for one in archives:
            say(f"{host}  {_here(the_restore.moment_of(one['archive']))}  {one['service']}")
    end({"ok": True, "archives": found}, as_json)


def _here(moment: datetime) -> str:
    """Write a time as the clock of the tech's own machine, in which `--before` is said, too."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _told(answer: dict[str, Any], paths: Sequence[str]) -> list[str]:
    """Say what a restore did, a line for each place."""
    lines = []
    if answer.get("files"):
        where = f"{answer['to']}{paths[0] if len(paths) == 1 else ''}" if answer["to"] else "in place"
        lines.append(f"✓ {answer['files']} files, {_size(answer['bytes'])}: {where}")
    lines += [f"✓ database {name}: {loaded}" for name, loaded in answer["databases"].items()]
    return lines + [f"  what stood in {path} is in {where}" for path, where in answer["replaced"]]


def rebuild(
    inventory: InventoryOption = "staging",
    limit: LimitOption = "all",
    over: Annotated[list[str] | None, typer.Option(help="A host that is not empty and may be replaced.")] = None,
    before: Annotated[str, typer.Option(help="Take archives from before this time: 2026-11-20.")] = "",
    as_json: JsonOption = False,
) -> None:
    """After a disaster: from bare machines and the store back to the whole platform."""
    from infini.backups.recovery import rebuild as run
    from infini.backups.restore import moment

    done = run(inventory, limit=limit, over=over or (), before=moment(before) if before else "")
    _tell(done)
    end(done.as_json(), as_json, 0 if done.ok else 1)


def drill(
    inventory: InventoryOption = "staging",
    machines: Annotated[str, typer.Option(help="Inventory of the throwaway machines; a bench makes its own.")] = "",
    limit: LimitOption = "all",
    seeded: Annotated[bool, typer.Option("--faults", help="Also check that each known fault is caught.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the machines for a look.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that the backups restore: rebuild on throwaway machines, compare, use it, write it down, destroy it."""
    from infini.backups.drill import drill as run

    done = run(inventory, machines=machines, limit=limit, seeded=seeded, keep=keep)
    _tell(done)
    for fault in done.faults:
        say(f"{'✓' if fault['caught'] else '✗'} {fault['fault']}: {'caught' if fault['caught'] else 'NOT CAUGHT'}")
    say(f"{done.folder}/report.html")
    end(done.as_json(), as_json, 0 if done.ok else 1)


def _tell(done: Any) -> None:
    from infini.backups.report import says
    from infini.phrase import said
    from infini.runner import console

    for finding in done.findings:
        say(f"✗ {said(says(finding))}")
    for finding in done.remarks:
        say(f"· {said(says(finding))}")
    if done.report:
        done.report.print(console, everything=False)
    minutes, seconds = divmod(round(done.recovery_time), 60)
    word = "✓ Whole" if done.ok else "✗ Not whole"
    say(f"{word} after {minutes} min {seconds:02d} s; the archives were {done.recovery_point / 3600:.1f} hours old.")


def paper_key(inventory: InventoryOption = "staging", limit: LimitOption = "all", as_json: JsonOption = False) -> None:
    """Print the keys of the backups, for a sheet of paper in a safe: with it and the store everything comes back."""
    from infini.backups.door import ask
    from infini.backups.recovery import clients
    from infini.hosts import Inventory

    the_inventory = Inventory(inventory)
    keys = {
        host: {**ask(the_inventory.connection(host), "key"), "passphrase": the_inventory.get(host, "backup_passphrase")}
        for host in clients(the_inventory, limit)
    }
    if not as_json:
        for host, key in keys.items():
            typer.echo(f"=== {host}\n{key['repository']}\npassphrase: {key['passphrase']}\n\n{key['paper']}")
    end({"ok": True, "keys": keys}, as_json)


def _size(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
