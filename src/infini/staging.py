# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini staging`: bring the platform in small up, look at it, take it down."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from infini import ROOT, STATE, bench
from infini.apply import apply
from infini.errors import FailedError, RefusedError
from infini.hosts import Inventory
from infini.runner import RunResult, play
from infini.verify import Report
from infini.verify.run import PLAYBOOK

INVENTORY = "staging"


def name() -> str:
    """Return the name of the bench that this command works on; tests have one of their own."""
    return os.environ.get("INFINI_BENCH", "staging")


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse a second command on the same bench; the kernel forgets the lock of a killed one."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    with (STATE / f"{name()}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(f"Another command is at work on the bench “{name()}”: wait for its end") from None
        yield


def refuse_repository(named: str) -> None:
    """Refuse what cannot be the packages of the real AlternC; podman would make an empty volume of a relative name."""
    if named and not (Path(named).is_absolute() and Path(named, "dists").is_dir()):
        raise RefusedError(f"ALTERNC_REPOSITORY is {named}: give the whole path of a directory with an apt repository")


def create(limit: str = "all") -> RunResult:
    """Make the hosts that are missing and prove that they hold what the roles rely on, or raise FailedError.

    `limit` makes a bench of these only, for its whole life.
    """
    refuse_repository(os.environ.get("ALTERNC_REPOSITORY", ""))
    inventory = str(ROOT / "inventory" / INVENTORY)
    made = play(ROOT / "playbooks/bench/create.yml", inventory, quiet=False, arguments=["--limit", limit])
    if not made.ok:
        raise FailedError(made.sentence())
    return made


def up() -> RunResult:
    """Bring hosts and platform up; the result counts both, and has what `verify` reads of the hosts.

    What fails is a FailedError with its sentence.
    """
    with _alone():
        made = create()
        applied = apply("site", INVENTORY, after=[PLAYBOOK])
        applied.seconds += made.seconds
        applied.tasks += made.tasks
        if applied.ok:
            keep_authority(Inventory(INVENTORY))
        return applied


def keep_authority(inventory: Inventory) -> None:
    """Copy the roots of a bench's certificate authority to where curl and `verify` find them.

    The authority makes a new root whenever it starts, and certificates of an older one live on: so it keeps them all.
    """
    servers = inventory.hosts("acme_servers")
    if not servers:
        return  # production's authority is known to everyone
    server = inventory.connection(servers[0])
    bundle = Path(inventory.get(server.host, "hosting_authorities")[0])
    roots = bench.run(*server.ssh("-o", "BatchMode=yes"), "cat", "/var/lib/pebble/roots.pem", check=False)
    if roots.returncode == 0:
        bundle.write_text(roots.stdout)
    elif not bundle.exists():
        raise RefusedError(
            f"The bench does not answer ({server.host}, {server.address}): run `infini staging up` first"
        )


def down(hosts: Sequence[str] = ()) -> bool:
    """Remove all that the bench made, or only these hosts with all they hold; return whether anything was there."""
    if strangers := set(hosts) - set(Inventory(INVENTORY).hosts()) if hosts else set():
        raise RefusedError(f"The bench has no host {', '.join(sorted(strangers))}")
    with _alone():
        return bench.lose(name(), hosts) if hosts else bench.destroy(name())


def status() -> dict[str, Any]:
    """Return the bench's hosts and their state, half-made ones too."""
    hosts = [
        {"name": container["Names"][0], "state": container["State"], "image": container["Image"]}
        for container in bench.containers(name())
    ]
    network = bench.run("podman", "network", "exists", f"infini-{name()}", check=False).returncode == 0
    return {"bench": name(), "network": network, "hosts": hosts}


def ssh(host: str, command: list[str]) -> None:
    """Replace this process by an SSH session on a host of the bench."""
    inventory = Inventory(INVENTORY)
    if host not in inventory.hosts():
        raise RefusedError(f"The bench has no host “{host}”: it has {', '.join(inventory.hosts())}")
    line = inventory.connection(host).ssh()
    os.execvp(line[0], [*line, *command])  # noqa: S606  the whole point: no shell, no second process


def site_table(inventory: Inventory, report: Report) -> Table:
    """Say of each site what it is and whether it answers."""
    sites = inventory.get(inventory.hosts("webs")[0], "hosting_sites")
    table = Table("site", "kind", "PHP", "article", "answers")
    wrong = [check.id for check in report.failed]
    for site in sites:
        cms = site.get("cms", {})
        answers = "no" if any(site["name"] in check for check in wrong) else "yes"
        kind = "redirect" if site.get("redirect") else cms.get("kind")
        table.add_row(site["name"], kind, site.get("php", "-"), cms.get("article"), answers)
    return table


def how_to_look(inventory: Inventory) -> str:
    """Return the command that shows a site from this machine, whose DNS knows nothing of the bench."""
    web = inventory.hosts("webs")[0]
    sites = [site["name"] for site in inventory.get(web, "hosting_sites")]
    if not sites:
        return ""
    authority = os.path.relpath(inventory.get(web, "hosting_authorities")[0])
    address = inventory.get(web, "hosting_ipv4")
    return f"curl --cacert {authority} --resolve {sites[0]}:443:{address} https://{sites[0]}/"
