# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits in the queues, who is frozen, whether our addresses are on blocklists; thaw and drop."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from infini.backups.door import run
from infini.errors import FailedError, RefusedError
from infini.hosts import Connection, Inventory, locked
from infini.mail import blocklists

SERVERS, CLIENTS = "mail_servers", "mail_clients"
"""Groups: who sends to the world, and web hosts whose PHP sends through them."""
PROGRAM = "infini-mail-budget"


def look(inventory: Inventory) -> dict[str, Any]:
    """Ask all hosts that count mail, and the blocklists."""
    to = _hosts(inventory)
    with ThreadPoolExecutor(len(to)) as pool:
        queues = dict(zip((one.host for one in to), pool.map(lambda one: _ask(one, "queue"), to), strict=True))
    servers = inventory.hosts(SERVERS)
    addresses = [inventory.get(host, name) for host in servers for name in ("hosting_ipv4", "hosting_ipv6")]
    zones = inventory.get(servers[0], "hosting_blocklists", blocklists.ZONES)
    states = blocklists.look([address for address in addresses if address], zones)
    listed = any(state.state == blocklists.LISTED for state in states)
    frozen = any(queue["frozen"] for queue in queues.values())
    return {"ok": not listed and not frozen, "hosts": queues, "blocklists": blocklists.as_json(states)}


def thaw(inventory: Inventory, account: str) -> dict[str, Any]:
    """Thaw an account on every host; what waits on web hosts is counted no second time by the mail server."""
    _refuse_strange(account)
    to = _hosts(inventory)
    servers = [one for one in to if one.host in inventory.hosts(SERVERS)]
    clients = [one for one in to if one not in servers]
    with locked(inventory, ",".join(one.host for one in to)):
        queues = [_ask(one, "queue") for one in to]
        _refuse_unknown(account, queues)
        waiting = sum(
            queue["accounts"].get(account, {}).get("recipients", 0)
            for one, queue in zip(to, queues, strict=True)
            if one in clients
        )
        answers = {one.host: _ask(one, "thaw", account, str(waiting)) for one in servers}
        # What was let through by the mail server's leave needs none of ours.
        answers |= {one.host: _ask(one, "thaw", account) for one in clients}
    return _sum(account, answers)


def drop(inventory: Inventory, account: str, *, yes: bool) -> dict[str, Any]:
    """Delete what waits of an account on every host."""
    _refuse_strange(account)
    to = _hosts(inventory)
    queues = [_ask(one, "queue") for one in to]
    _refuse_unknown(account, queues)
    if not yes:
        count = sum(queue["accounts"].get(account, {}).get("messages", 0) for queue in queues)
        raise RefusedError(
            f"{count} messages of {account} would be deleted for good: look at them (`infini mail`), then say --yes"
        )
    with locked(inventory, ",".join(one.host for one in to)):
        # From where they come first: what is on its way meanwhile is found where it goes.
        answers = {one.host: _ask(one, "drop", account) for one in reversed(to)}
    return _sum(account, answers)


def _hosts(inventory: Inventory) -> list[Connection]:
    found = list(dict.fromkeys([*inventory.hosts(SERVERS), *inventory.hosts(CLIENTS)]))
    if not inventory.hosts(SERVERS):
        raise RefusedError(f"{inventory.path.name} has no host in the group {SERVERS}: nothing is counted there")
    return [inventory.connection(host) for host in found]


def _ask(to: Connection, *words: str) -> dict[str, Any]:
    done = run(to, [PROGRAM, *words])
    if done.returncode == 127:
        raise RefusedError(f"{to.host} counts no mail yet: `infini apply mail`, `infini apply web`")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise (RefusedError if done.returncode == 2 else FailedError)(f"{to.host}: {said}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _refuse_strange(account: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._:-]{0,252}", account):
        raise RefusedError(f"“{account}” is no account: `infini mail` names them")


def _refuse_unknown(account: str, queues: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an account that has nothing to thaw or to drop: it is a typing mistake."""
    if not any(account in queue["accounts"] or account in queue["frozen"] for queue in queues):
        known = sorted({name for queue in queues for name in (*queue["accounts"], *queue["frozen"]) if name})
        hint = f": there are {', '.join(known)}" if known else ""
        raise RefusedError(f"{account} is not frozen and has no mail that waits{hint}")


def _sum(account: str, answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "ok": True,
        "account": account,
        "frozen": any(answer["frozen"] for answer in answers.values()),
        "messages": sum(answer["messages"] for answer in answers.values()),
        "recipients": sum(answer["recipients"] for answer in answers.values()),
        "hosts": dict(answers),
    }
