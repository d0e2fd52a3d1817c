# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine, or an inventory, lacks: one sentence each, with the command that mends it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from infini import ROOT, STATE
from infini.errors import FailedError
from infini.hosts import Inventory
from infini.preflight import MAGIC

# What the bench runs on: command, Debian package. netavark and aardvark-dns have no command on the PATH.
TOOLS = {
    "podman": "podman",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "iptables": "iptables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "gpg": "gnupg",
    "curl": "curl",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
}
# What `infini test` needs beside them: a browser for the pages, a linter for the scripts, servers for the DNS lab.
TEST_TOOLS = {
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "shellcheck": "shellcheck",
    "knotd": "knot",
    "nsd": "nsd",
    "unbound": "unbound",
    "ldns-signzone": "ldnsutils",
    "named-checkzone": "bind9-utils",
    "dig": "bind9-dnsutils",
    "haproxy": "haproxy",
}
DAEMONS = {"haproxy", "knot", "nsd", "unbound"}
"""Packages whose service stays down on this machine: the tests start these programs themselves."""
NEEDED_DISK = 15 * 10**9
LATER_DISK = 4 * 10**9  # once images and caches are there
NEEDED_MEMORY = 3 * 10**9
HOST_VARIABLES = ("ansible_host", "hosting_ipv4", "hosting_ipv6", "hosting_fqdn")
DOCUMENTATION = [ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]


@dataclass(frozen=True)
class Finding:
    """Something that is missing: `says` is a sentence, `mend` a command or an action."""

    says: str
    mend: str


def _apt(packages: list[str]) -> str:
    return f"apt install {' '.join(packages)}"


def missing_packages(tools: dict[str, str]) -> list[str]:
    """Return the Debian packages of the tools that are not installed."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return sorted({package for tool, package in tools.items() if not shutil.which(tool, path=path)})


def install(packages: list[str]) -> None:
    """Install Debian packages on this machine; a failure is a FailedError with apt's own first error."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    masks = [["systemctl", "mask", "--quiet", f"{name}.service"] for name in packages if name in DAEMONS]
    for command in (
        *masks,
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err"))]
            raise FailedError(
                f"{' '.join(command[:3])} failed: {(errors or ['no message'])[0]}. Is the package mirror reachable?"
            )


def machine(tools: dict[str, str] = TOOLS) -> Iterator[Finding]:
    """Yield what this machine lacks to run the bench."""
    if os.geteuid():
        yield Finding("You are not root, and podman needs it for hosts with their own addresses.", "sudo ./infini …")
    packages = missing_packages(tools)
    if packages:
        yield Finding(f"These tools are missing: {', '.join(packages)}.", _apt(packages))
    elif subprocess.run(["podman", "info"], capture_output=True, check=False).returncode:
        yield Finding("podman is installed but does not work.", "podman info   # and read its last line")
    needed = LATER_DISK if (STATE / "cache/images").exists() else NEEDED_DISK
    for place in (ROOT, Path("/var/lib")):  # the clone with its caches, and podman's containers
        free = shutil.disk_usage(place).free
        if free < needed:
            says = f"Only {free / 1e9:.0f} GB are free on the disk of {place}, {needed / 1e9:.0f} are needed."
            yield Finding(says, "free some space, or use a larger disk")
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < NEEDED_MEMORY:
        yield Finding(
            f"This machine has {memory / 1e9:.0f} GB of memory, {NEEDED_MEMORY / 1e9:.0f} are needed.",
            "use a larger machine",
        )


def inventory(name: str) -> Iterator[Finding]:
    """Yield what an inventory lacks for a real run: secrets, values to fill in, hosts that do not answer."""
    the_inventory = Inventory(name)
    yield from _vault(the_inventory.path)
    yield from _placeholders(the_inventory)
    hosts = the_inventory.hosts()
    with ThreadPoolExecutor(max(len(hosts), 1)) as pool:
        for found in pool.map(lambda host: _silent(the_inventory, host), hosts):
            yield from found


def _vault(folder: Path) -> Iterator[Finding]:
    where = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    for path in sorted(folder.rglob("vault.yml.example")):
        real = path.with_suffix("")
        shown = where / real.relative_to(folder)
        if not real.exists():
            yield Finding(
                f"The secrets are missing: {shown} does not exist.",
                f"cp {shown}.example {shown}, fill it in, then ansible-vault encrypt {shown}",
            )
        elif not real.read_bytes().startswith(b"$ANSIBLE_VAULT"):
            yield Finding(f"{shown} holds secrets and is not encrypted.", f"ansible-vault encrypt {shown}")
    if not os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE"):
        yield Finding(
            "No vault password is given: production's secrets cannot be read.",
            "export ANSIBLE_VAULT_PASSWORD_FILE=~/.config/infini/vault-password   # a file of mode 0600",
        )


def _placeholders(the_inventory: Inventory) -> Iterator[Finding]:
    """Find documentation addresses, example names and CHANGE ME among the variables."""
    found: dict[str, str] = {}
    for host in the_inventory.hosts():
        for name, value in the_inventory.raw(host).items():
            shown = f"{name} of {host}" if name in HOST_VARIABLES else name
            for text in filter(_is_placeholder, () if name in MAGIC else _texts(value)):
                found.setdefault(shown, text)
    for name, text in sorted(found.items()):
        yield Finding(
            f"{name} still holds the example value {text}.",
            f"put the real one in the files of {the_inventory.path.name}",
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _is_placeholder(text: str) -> bool:
    if "CHANGE ME" in text or text.endswith((".example", "@example.org")):
        return True
    try:
        return any(ip_address(text) in net for net in DOCUMENTATION if net.version == ip_address(text).version)
    except ValueError:
        return False


def _silent(the_inventory: Inventory, host: str) -> list[Finding]:
    to = the_inventory.connection(host)
    try:
        socket.create_connection((to.address, to.port), 3).close()
    except OSError as error:
        why = str(error.strerror or error)
        return [
            Finding(
                f"{host} ({to.address}, port {to.port}) does not answer: {why}.",
                f"ssh -p {to.port} {to.address}   # from this machine",
            )
        ]
    return []
