# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini mail …`."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infini import STATE
from infini.answers import InventoryOption, JsonOption, end, say
from infini.errors import RefusedError
from infini.hosts import Inventory

if TYPE_CHECKING:
    from infini.mail.copy import Account

mail_app = typer.Typer(help="Members' mail.", no_args_is_help=True)


@mail_app.callback()
def mail() -> None:
    """Have a name of its own for each of them, even while there is only one."""


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


def _ours(inventory: Inventory, address: str, password: str) -> Account:
    from infini.mail.copy import Account

    servers = inventory.hosts("mail_servers")
    if len(servers) != 1:
        raise RefusedError(f"{inventory.path.name} has {len(servers)} hosts in the group mail_servers: say --to HOST")
    trust = ssl.create_default_context()
    for authority in inventory.get(servers[0], "hosting_authorities", []):
        trust.load_verify_locations(authority)
    name, where = (str(inventory.get(servers[0], key)) for key in ("mail_fqdn", "hosting_ipv4"))
    return Account(name, address, password, address=where, trust=trust)


def _tell(folder: str, done: int, count: int) -> None:
    if done % 500 == 0 and done:
        say(f"{folder}: {done} of {count}")
