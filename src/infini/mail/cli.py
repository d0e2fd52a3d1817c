# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini mail`: what waits to leave and who may not send; mailboxes that come from elsewhere."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from infini import STATE
from infini.answers import InventoryOption, JsonOption, end, say
from infini.errors import RefusedError
from infini.hosts import Inventory

if TYPE_CHECKING:
    from infini.mail.copy import Account

GROUPS = ("accounts", "sites", "providers")

mail_app = typer.Typer(help="What waits to leave, and who may not send.", invoke_without_command=True)
AccountArgument = Annotated[str, typer.Argument(help="The account, as `infini mail` names it.")]


@mail_app.callback()
def mail(context: typer.Context, inventory: InventoryOption = "staging", as_json: JsonOption = False) -> None:
    """Show the queue by account, site and provider, why mail waits, who is frozen, and blocklists."""
    if context.invoked_subcommand:
        return
    from infini.mail import queue

    answer = queue.look(Inventory(inventory))
    for host, waiting in answer["hosts"].items():
        _print_queue(host, waiting)
    _print_blocklists(answer["blocklists"])
    end(answer, as_json, 0 if answer["ok"] else 1)


@mail_app.command("thaw")
def thaw_command(account: AccountArgument, inventory: InventoryOption = "staging", as_json: JsonOption = False) -> None:
    """Let an account send again; what was held leaves."""
    from infini.mail import queue

    answer = queue.thaw(Inventory(inventory), account)
    say(f"{account} may send again; {answer['messages']} messages that were held are on their way.")
    end(answer, as_json)


@mail_app.command("drop")
def drop_command(
    account: AccountArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Really delete the messages; nothing brings them back.")] = False,
    inventory: InventoryOption = "staging",
    as_json: JsonOption = False,
) -> None:
    """Delete all that waits to leave of an account. It stays frozen until it is thawed."""
    from infini.mail import queue

    answer = queue.drop(Inventory(inventory), account, yes=yes)
    frozen = f"; it stays frozen until `infini mail thaw {account}`" if answer["frozen"] else ""
    say(f"{answer['messages']} messages of {account} are deleted{frozen}.")
    end(answer, as_json)


@mail_app.command("copy")
def copy_command(
    address: Annotated[str, typer.Argument(help="The mailbox here.")],
    host: Annotated[str, typer.Option("--from", help="The other host's IMAP server.")],
    port: Annotated[int, typer.Option(help="Its port, where it is another one.")] = 993,
    user: Annotated[str, typer.Option(help="The login there, where it is another one.")] = "",
    to: Annotated[str, typer.Option(help="Our IMAP server; without, that of the inventory.")] = "",
    passwords: Annotated[
        Path | None,
        typer.Option(help="A file of two lines: the password there, the one here. Without, both are asked."),
    ] = None,
    inventory: InventoryOption = "staging",
    as_json: JsonOption = False,
) -> None:
    """Copy a mailbox from another host, and compare both. Run again, it goes on, and copies nothing twice."""
    from infini.mail.copy import Account, copy_mailbox

    login = user or address
    there, here = _read(passwords) if passwords else _asked(f"{login} at {host}", f"{address} here")
    source = Account(host, login, there, port)
    target = Account(to, address, here) if to else _ours(Inventory(inventory), address, here)
    result = copy_mailbox(source, target, STATE / "mail" / f"{address.replace('/', '_')}.jsonl", _tell)
    for folder, about in result.folders.items():
        say(f"{folder}: {about['messages']} messages, {about['bytes']} bytes")
    for (folder, number), says in result.refused.items():
        say(f"✗ {folder}: message {number} is refused here: {says}")
    for one in result.missing:
        say(f"✗ {one['folder']}: message {one['uid']} is not here (yet): run the same command again")
    if result.ok:
        count, domain = result.messages, address.partition("@")[2]
        say(f"✓ All {count} messages are here, {result.copied} came in this run. For a domain that moves:")
        say(f"    ./infini domains decide {domain} mail-copied address={address} before={count} after={count}")
    end(result.as_json(), as_json, 0 if result.ok else 1)


def _read(path: Path) -> tuple[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if len(lines) != 2:
        raise RefusedError(f"{path} must have two lines: the password there, and the one here")
    return lines[0], lines[1]


def _asked(there: str, here: str) -> tuple[str, str]:
    ask = [typer.prompt(f"Password of {who}", hide_input=True, err=True) for who in (there, here)]
    return ask[0], ask[1]


def server_of(inventory: Inventory, address: str) -> list[str]:
    """Return the mail server whose domain an address is; what nobody declares is for AlternC to know."""
    servers, domain = inventory.hosts("mail_servers"), address.rpartition("@")[2].lower()
    if len(servers) < 2:
        return servers
    declared = [one for one in servers if domain in {row["name"] for row in inventory.get(one, "mail_domains", [])}]
    return declared or [one for one in servers if inventory.get(one, "mail_mode", "") == "panel"]


def _ours(inventory: Inventory, address: str, password: str) -> Account:
    from infini.mail.copy import Account

    servers = server_of(inventory, address)
    if len(servers) != 1:
        raise RefusedError(f"{inventory.path.name} does not say which of its mail servers has {address}: say --to HOST")
    trust = ssl.create_default_context()
    for authority in inventory.get(servers[0], "hosting_authorities", []):
        trust.load_verify_locations(authority)
    name, where = (str(inventory.get(servers[0], key)) for key in ("mail_fqdn", "hosting_ipv4"))
    return Account(name, address, password, address=where, trust=trust)


def _tell(folder: str, done: int, count: int) -> None:
    if done % 500 == 0 and done:
        say(f"{folder}: {done} of {count}")


def _print_queue(host: str, queue: Mapping[str, Any]) -> None:
    from infini.runner import console

    if not queue["messages"]:
        say(f"{host}: nothing waits.")
    for name in GROUPS:
        if not queue[name]:
            continue
        table = Table(title=f"{host}: {name}", title_justify="left")
        for column in ("", "messages", "recipients", "held"):
            table.add_column(column, justify="left" if not column else "right")
        ordered = sorted(queue[name].items(), key=lambda pair: (-pair[1]["recipients"], pair[0]))
        for what, counts in ordered:
            table.add_row(what or "(nobody's)", *(str(counts[key]) for key in ("messages", "recipients", "held")))
        console.print(table)
    for reason in queue["reasons"]:
        say(f"  {reason['provider']}, {reason['recipients']} recipients: {reason['reason']}")
    for account, state in queue["frozen"].items():
        say(f"✗ {host}: {account} is frozen ({state['who']}): find out why, then `infini mail thaw {account}`")


def _print_blocklists(states: Sequence[Mapping[str, str]]) -> None:
    from infini.mail import blocklists

    if not states:
        say("Blocklists: none of our mail servers has a public address here.")
    for state in states:
        if state["state"] != blocklists.CLEAN:
            mark = "✗" if state["state"] == blocklists.LISTED else "?"
            say(f"{mark} {state['address']} is {state['state']} at {state['zone']}: {state['says']}")
    clean = sum(state["state"] == blocklists.CLEAN for state in states)
    if clean:
        say(f"Blocklists: {clean} of {len(states)} answers say that our addresses are clean.")
