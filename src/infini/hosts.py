# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of an inventory: how they are reached, whether they answer, and one run at a time on each."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from infini import ROOT
from infini.errors import RefusedError, UnreachableError

# The lock lives as long as the SSH session that holds it: a killed run leaves none behind.
LOCK = "/run/lock/infini-apply.lock"
_HOLD = f'exec 9>>{LOCK}; flock -n 9 || {{ cat {LOCK}; exit 75; }}; echo "$1" >{LOCK}; echo locked; exec cat >/dev/null'


@dataclass(frozen=True)
class Connection:
    """How a host is reached over SSH."""

    host: str
    address: str
    user: str
    port: int
    options: tuple[str, ...]
    become: bool = False

    def ssh(self, *extra: str) -> list[str]:
        """Return the ssh command line up to the remote command."""
        where = f"{self.user}@{self.address}" if self.user else self.address
        return ["ssh", *self.options, "-p", str(self.port), *extra, where]


def inventory_path(inventory: str) -> Path:
    """Return the folder of an inventory: a name under inventory/, or a path."""
    named = ROOT / "inventory" / inventory
    path = named if named.exists() else Path(inventory).resolve()
    if not path.exists():
        known = ", ".join(sorted(entry.name for entry in (ROOT / "inventory").iterdir()))
        raise RefusedError(f"There is no inventory “{inventory}”: name one of {known}, or a path")
    return path


@cache
def load_plugins() -> None:
    """Let Ansible find its collections; it may be told once only."""
    from ansible.plugins.loader import init_plugin_loader

    init_plugin_loader()


class Inventory:
    """An inventory as Ansible reads it; variables are templated when they are asked for."""

    def __init__(self, inventory: str) -> None:
        # Imported late: Ansible reads its configuration when it is imported, and takes half a second.
        os.environ.setdefault("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))
        from ansible.inventory.manager import InventoryManager
        from ansible.parsing.dataloader import DataLoader
        from ansible.vars.manager import VariableManager

        load_plugins()
        self.path = inventory_path(inventory)
        self._loader = DataLoader()
        self._loader.set_basedir(str(ROOT))
        with self._readable():
            self._open_vault()
        self._manager = InventoryManager(loader=self._loader, sources=[str(self.path)])
        self._variables = VariableManager(loader=self._loader, inventory=self._manager)

    def _open_vault(self) -> None:
        """Give the loader the vault password that Ansible's own commands would take."""
        from ansible import constants
        from ansible.parsing.vault import get_file_vault_secret

        path = constants.config.get_config_value("DEFAULT_VAULT_PASSWORD_FILE")
        if path:
            secret = get_file_vault_secret(filename=path, loader=self._loader)
            secret.load()
            self._loader.set_vault_secrets([("default", secret)])

    def hosts(self, pattern: str = "all") -> list[str]:
        """Return the names of the hosts that a pattern means."""
        return [host.name for host in self._manager.get_hosts(pattern)]

    def raw(self, host: str) -> dict[str, Any]:
        """Return a host's variables, not templated."""
        with self._readable():
            found: dict[str, Any] = self._variables.get_vars(host=self._manager.get_host(host))
        return found

    def get(self, host: str, name: str, default: Any = None) -> Any:
        """Return one variable of a host."""
        from ansible.template import Templar

        variables = self.raw(host)
        if name not in variables:
            return default
        with self._readable():
            return Templar(loader=self._loader, variables=variables).template(variables[name])

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what Ansible cannot read or compute into a sentence."""
        from ansible.errors import AnsibleError

        try:
            yield
        except AnsibleError as error:
            raise RefusedError(
                f"The inventory {self.path.name} cannot be read: {error.message} If it is the vault: "
                "export ANSIBLE_VAULT_PASSWORD_FILE=FILE"
            ) from error

    def connection(self, host: str) -> Connection:
        """Return how a host is reached."""
        key = self.get(host, "ansible_ssh_private_key_file")
        options = shlex.split(self.get(host, "ansible_ssh_common_args", ""))
        return Connection(
            host,
            str(self.get(host, "ansible_host", host)),
            str(self.get(host, "ansible_user", "")),
            int(self.get(host, "ansible_port", 22)),
            (*options, *(["-i", str(key)] if key else []), "-o", "ConnectTimeout=5"),
            bool(self.get(host, "ansible_become", False)),
        )


def _hold(connection: Connection, who: str) -> subprocess.Popen[str]:
    # No shared connection: the session must end with this process, not with ControlPersist.
    # One technician's file is closed to the next: the lock belongs to root, as everything that a run does.
    remote = f"{'sudo -n ' if connection.become else ''}sh -c {shlex.quote(_HOLD)} lock {shlex.quote(who)}"
    return subprocess.Popen(
        [*connection.ssh("-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none"), remote],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _answer(session: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a session's first line; return ("", "") when it holds the lock, else (kind, why)."""
    assert session.stdout  # noqa: S101  a pipe
    assert session.stderr  # noqa: S101  a pipe
    line = session.stdout.readline().strip()
    if line == "locked":
        return "", ""
    if session.wait() == 75:
        return "locked", line or "someone else"
    return "unreachable", (session.stderr.read().strip().splitlines() or ["no answer"])[-1]


@contextmanager
def locked(inventory: Inventory, pattern: str = "all") -> Iterator[None]:
    """Hold the lock of every host of a pattern, or raise before anything is touched."""
    connections = [inventory.connection(host) for host in inventory.hosts(pattern)]
    if not connections:
        raise RefusedError(
            f"No host matches “{pattern}” in {inventory.path.name}: `--limit` takes a host or a group of it"
        )
    who = (
        f"{os.environ.get('SUDO_USER') or os.environ.get('USER', 'root')}@{os.uname().nodename} (process {os.getpid()})"
    )
    sessions = [_hold(connection, who) for connection in connections]
    try:
        with ThreadPoolExecutor(len(sessions)) as pool:
            answers = list(pool.map(_answer, sessions))
        _raise_for(connections, answers)
        yield
    finally:
        for session in sessions:
            session.communicate()  # the end of its input ends the remote side


def _raise_for(connections: list[Connection], answers: list[tuple[str, str]]) -> None:
    pairs = list(zip(connections, answers, strict=True))
    silent = [f"{to.host} ({to.address}): {why}" for to, (kind, why) in pairs if kind == "unreachable"]
    if silent:
        said = "; ".join(silent)
        raise UnreachableError(f"No answer over SSH, nothing was touched: {said}. Is it up? (`infini staging up`)")
    busy = [f"{to.host} by {why}" for to, (kind, why) in pairs if kind == "locked"]
    if busy:
        raise RefusedError(f"Another run is at work: {'; '.join(busy)}. Wait for its end, then run the command again")
