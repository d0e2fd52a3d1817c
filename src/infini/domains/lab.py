# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole DNS in small, with real servers: signed root, signed registries, an old host, a new host, two resolvers.

It lives in a network namespace of its own, where port 53 is free and nothing leads outside. The thread that enters the
lab, and what it starts from then on (threads, processes), is inside until it leaves; the rest of the process is not.

    with Lab() as lab:
        lab.publish_old(zone, signed=True)
        lab.register(zone.name, OLD_SERVERS, ds=True, ns_ttl=172800, ds_ttl=86400)
        lab.resolve("www.asso.test")
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype

from infini.domains.dns import LiveDns
from infini.domains.events import Store
from infini.domains.reading import Tsig
from infini.domains.simulator.world import GANDI_NAMESERVERS, OUR_NAMESERVERS
from infini.domains.targets import ZoneFiles
from infini.domains.writing import Soa, to_text
from infini.domains.zone import Rrset, Zone
from infini.errors import FailedError, RefusedError

PACKAGES = {
    "knotd": "knot",
    "nsd": "nsd",
    "ldns-signzone": "ldnsutils",
    "unbound": "unbound",
    "setpriv": "util-linux",
    "ip": "iproute2",
}
"""The programs that the lab runs, and the Debian package of each."""
OLD_SERVERS, NEW_SERVERS = GANDI_NAMESERVERS, OUR_NAMESERVERS
REGISTRIES = ("net", "test")
"""The zones below the root; a lab's domains are below one of them."""
ADDRESSES: dict[str, tuple[str, ...]] = {
    "a.root-servers.net": ("127.0.1.1",),
    "a.nic.test": ("127.0.2.1", "fd53::2:1"),
    "b.nic.test": ("127.0.2.2",),
    OLD_SERVERS[0]: ("127.0.3.1", "fd53::3:1"),
    OLD_SERVERS[1]: ("127.0.3.2",),
    OLD_SERVERS[2]: ("127.0.3.3",),
    NEW_SERVERS[0]: ("127.0.4.1", "fd53::4:1"),
    NEW_SERVERS[1]: ("127.0.4.2",),
}
"""Where each name server of the lab listens."""
WARM, COLD = "127.0.5.1", "127.0.5.2"
"""Two validating resolvers: one that keeps what it learnt, one to be flushed before each question."""
_MAILBOX = "hostmaster@infini.test"
_OLD_TTL = 86400  # what the old host gives its SOA, NS and DNSKEY
_CLONE_NEWNET = 0x40000000  # linux/sched.h; Python knows it from 3.12 on
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Resolved:
    """What a resolver answers. `secure`: the answer was validated."""

    rcode: str
    secure: bool = False
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Domain:
    """What a registry knows of a domain."""

    nameservers: tuple[str, ...]
    ds: tuple[str, ...]
    ns_ttl: int
    ds_ttl: int


def _until(condition: Callable[[], bool], says: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise FailedError(f"The DNS lab waits in vain: {says}")
        time.sleep(0.02)


def _own(listening: Sequence[str], *, ipv6: bool) -> list[str]:
    return [address for server in listening for address in ADDRESSES[server] if ipv6 or ":" not in address]


@dataclass
class Lab:
    """The lab, used as a context.

    `ttl` (seconds) is the most that a resolver keeps anything, whatever the TTLs say.
    The new host takes updates and gives transfers to those who have `tsig`.

    RefusedError without root or a server's program; FailedError, with the last line of its log, when one does not run.
    """

    ttl: int = 4
    tsig: Tsig = field(default_factory=lambda: Tsig("lab.infini.test", b64encode(os.urandom(32)).decode()))
    _folder: Path = field(default=Path(), init=False)
    _home: int = field(default=-1, init=False)
    _ipv6: bool = field(default=False, init=False)
    _servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)
    _domains: dict[str, _Domain] = field(default_factory=dict, init=False)
    _old: set[str] = field(default_factory=set, init=False)
    _serial: int = field(default=1, init=False)
    _forgotten: float = field(default=0.0, init=False)

    def __enter__(self) -> Lab:
        """Enter the private network and start everything."""
        self._check()
        self._folder = Path(tempfile.mkdtemp(prefix="infini-dns-lab-"))
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            self._separate()
            self._start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything and return to the network from which it was entered."""
        self._leave()

    # What a move does

    def publish_old(self, zone: Zone, *, signed: bool = False) -> None:
        """Serve a zone at the old host, as LiveDNS does: signed by the host itself, if it is."""
        path = self._folder / "old" / f"{zone.name}.zone"
        path.write_text(self._text(zone, OLD_SERVERS, _OLD_TTL))
        if signed:
            keys = self._old_keys(zone.name)
            self._run("ldns-signzone", "-o", zone.name, "-f", f"{path}.signed", path.name, *keys, where=path.parent)
            Path(f"{path}.signed").replace(path)
        if zone.name in self._old:
            self._nsd("reload", zone.name)
        else:
            self._nsd("addzone", zone.name, "zones")
        self._old.add(zone.name)
        self._served(zone.name, _own(OLD_SERVERS, ipv6=self._ipv6), self._serial)
        self._change()

    def publish_new(self, zone: Zone) -> None:
        """Serve a zone at the new host, by the same door as production."""
        self.target.provision(zone)

    def erase_old(self, name: str) -> None:
        """Take a zone away at the old host, as a transfer does."""
        self._nsd("delzone", name)
        (self._folder / "old" / f"{name}.zone").unlink()
        self._old.remove(name)
        self._change()

    def stop_old(self) -> None:
        """Let the whole old host fall silent: nothing comes back from it, not even a refusal."""
        for process in self._family("old"):
            os.kill(process, signal.SIGSTOP)

    def start_old(self) -> None:
        """Let the old host speak again."""
        for process in self._family("old"):
            os.kill(process, signal.SIGCONT)

    def register(self, name: str, nameservers: Sequence[str], *, ds: bool, ns_ttl: int, ds_ttl: int) -> None:
        """Have the registry name these servers for the domain, with the DS of the old host's key or without any."""
        if name.rpartition(".")[2] not in REGISTRIES:
            raise RefusedError(f"The DNS lab has no registry for {name}: take a name below {' or '.join(REGISTRIES)}")
        before = self._domains.get(name)
        wanted = _Domain(tuple(nameservers), self._old_ds(name) if ds else (), ns_ttl, ds_ttl)
        if before != wanted:
            self._domains[name] = wanted
            self._publish_registry(name)
            # Keys outlive the DS that they were validated with.
            self._change(lives=2 if before and before.ds and not ds else 1)

    def resolve(self, name: str, kind: str = "A", resolver: str = WARM, timeout: float = 5.0) -> Resolved:
        """Ask one of the lab's resolvers; its silence (after `timeout` seconds) is an answer, too."""
        query = dns.message.make_query(f"{name.rstrip('.')}.", kind, want_dnssec=True)
        try:
            said, _ = dns.query.udp_with_fallback(query, resolver, timeout)
        except (dns.exception.DNSException, OSError) as error:
            return Resolved(type(error).__name__)
        wanted = dns.rdatatype.from_text(kind)
        values = sorted(rdata.to_text() for rrset in said.answer if rrset.rdtype == wanted for rdata in rrset)
        return Resolved(dns.rcode.to_text(said.rcode()), bool(said.flags & dns.flags.AD), tuple(values))

    def flush(self, name: str = ".") -> None:
        """Let both resolvers forget a domain, or everything."""
        for resolver in (WARM, COLD):
            self._run(*self.flush_command(resolver, name))

    def flush_command(self, resolver: str = COLD, name: str = ".") -> tuple[str, ...]:
        """Return the command that lets a resolver forget, for a probe that starts cold each time."""
        return ("unbound-control", "-c", str(self._folder / resolver / "unbound.conf"), "flush_zone", name)

    @property
    def memory(self) -> float:
        """Return for how many seconds more a resolver may hold what was true before the last change."""
        return max(0.0, self._forgotten - time.monotonic())

    def _change(self, lives: int = 1) -> None:
        self._forgotten = max(self._forgotten, time.monotonic() + lives * self.ttl + 1)  # they count in whole seconds

    @property
    def target(self) -> ZoneFiles:
        """The new host as a move's target."""
        return ZoneFiles(
            self._folder / "new" / "zones",
            NEW_SERVERS,
            _MAILBOX,
            self._reload_new,
            minimum_ttl=1,
            soa_ttl=self.ttl,
            negative_ttl=self.ttl,
            name="the lab's new host",
        )

    def dns(self, probes: Store | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> LiveDns:
        """Return how a move sees this DNS."""
        return LiveDns([WARM], rate=None, timeout=2.0, probes=probes, now=now)

    # How it is built

    @staticmethod
    def _separate() -> None:
        if _libc.unshare(_CLONE_NEWNET):
            raise RefusedError(
                f"The DNS lab may not make a network of its own ({os.strerror(ctypes.get_errno())}): run it as root, "
                "on the machine itself or in a container that may"
            )

    def _check(self) -> None:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        missing = sorted({package for tool, package in PACKAGES.items() if not shutil.which(tool, path=path)})
        if missing:
            raise RefusedError(f"The DNS lab needs {', '.join(missing)}: apt install {' '.join(missing)}")

    def _start(self) -> None:
        self._run("ip", "link", "set", "lo", "up")
        addresses = [address for addresses in ADDRESSES.values() for address in addresses if ":" in address]
        add = ("ip", "-6", "addr", "add", "dev", "lo", "nodad")
        added = [subprocess.run([*add, f"{one}/128"], capture_output=True, check=False) for one in addresses]
        self._ipv6 = not any(done.returncode for done in added)  # a kernel may have been told to do without
        self._start_old()
        self._start_knot("new", NEW_SERVERS, ())
        for registry in REGISTRIES:
            (self._knot_zones("registries") / f"{registry}.zone").write_text(self._registry_text(registry))
        self._start_knot("registries", ("a.nic.test", "b.nic.test"), REGISTRIES)
        (self._knot_zones("root") / "..zone").write_text(self._root_text())
        self._start_knot("root", ("a.root-servers.net",), (".",))
        anchor = self._ds_of(".", "127.0.1.1")
        for resolver in (WARM, COLD):
            self._start_unbound(resolver, anchor)
        for resolver in (WARM, COLD):
            _until(partial(self._validates, resolver), f"{resolver} validates")

    def _validates(self, resolver: str) -> bool:
        self._alive(resolver)
        return self.resolve(REGISTRIES[0], "SOA", resolver, timeout=0.2).secure

    def _leave(self) -> None:
        if "old" in self._servers and self._servers["old"].poll() is None:
            self.start_old()  # a stopped process does not hear that it shall end
        for server in self._servers.values():
            server.terminate()
        for server in self._servers.values():
            try:
                server.wait(3)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        self._servers.clear()
        _libc.setns(self._home, _CLONE_NEWNET)
        os.close(self._home)
        shutil.rmtree(self._folder, ignore_errors=True)  # in /tmp, and nobody reads it any more

    def _family(self, name: str) -> list[int]:
        """Return the processes of a server, its own first."""
        found = [self._servers[name].pid]
        for process in found:
            children = Path(f"/proc/{process}/task/{process}/children").read_text()
            found.extend(map(int, children.split()))
        return found

    def _run(self, *command: str, where: Path | None = None) -> str:
        path = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=where, env=path, timeout=20)
        if done.returncode:
            says = (done.stderr or done.stdout).strip().splitlines() or ["without a word"]
            raise FailedError(f"The DNS lab's {command[0]} failed: {says[-1]}")
        return done.stdout

    def _spawn(self, name: str, *command: str) -> None:
        """Start a server that dies with this process, whatever way that goes."""
        path = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
        with (self._folder / f"{name}.log").open("wb") as log:
            self._servers[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=path
            )

    def _alive(self, name: str) -> None:
        if self._servers[name].poll() is not None:
            lines = (self._folder / f"{name}.log").read_text(errors="replace").splitlines() or ["without a word"]
            raise FailedError(f"The DNS lab's {name} ended at once: {lines[-1]}")

    def _listens(self, name: str, door: Path) -> bool:
        self._alive(name)
        return door.exists()

    def _served(self, zone: str, addresses: Sequence[str], serial: int = 0) -> None:
        """Wait until the servers answer for a zone with at least this serial."""

        def standing() -> bool:
            for name in self._servers:
                self._alive(name)
            return all(self._soa(zone, address) >= serial for address in addresses)

        _until(standing, f"{', '.join(addresses)} serve {zone}")

    def _soa(self, zone: str, address: str) -> int:
        """Return the serial that a server has of a zone, -1 when it has none."""
        try:
            said = dns.query.udp(dns.message.make_query(zone, "SOA"), address, 1)
        except (dns.exception.DNSException, OSError):
            return -1
        found = [rrset for rrset in said.answer if rrset.rdtype == dns.rdatatype.SOA]
        return int(found[0][0].serial) if found and said.flags & dns.flags.AA else -1

    def _ds_of(self, zone: str, address: str) -> str:
        """Return the DS of the key with which a server signs a zone, once it does."""
        name = dns.name.from_text(zone)
        found: list[Any] = []

        def signed() -> bool:
            try:
                said = dns.query.tcp(dns.message.make_query(name, "DNSKEY"), address, 1)
            except (dns.exception.DNSException, OSError):
                return False
            found[:] = [rdata for rrset in said.answer for rdata in rrset if rrset.rdtype == dns.rdatatype.DNSKEY]
            return bool(found)

        _until(signed, f"{address} signs {zone}")
        (key,) = found
        return dns.dnssec.make_ds(name, key, "SHA256").to_text()

    def _text(self, zone: Zone, servers: Sequence[str], ttl: int | None = None) -> str:
        """Return a zone file of the lab, newer than all before it; `ttl` is that of its SOA, NS and DNSKEY."""
        self._serial += 1
        return to_text(zone, Soa(servers[0], _MAILBOX, self._serial, minimum=self.ttl, ttl=ttl or self.ttl), servers)

    # The old host: NSD, zones signed by ldns

    def _start_old(self) -> None:
        folder = self._folder / "old"
        (folder / "keys").mkdir(parents=True)
        listen = "".join(f"  ip-address: {address}\n" for address in _own(OLD_SERVERS, ipv6=self._ipv6))
        (folder / "nsd.conf").write_text(
            f'server:\n{listen}  server-count: 1\n  username: ""\n  database: ""\n  rrl-ratelimit: 0\n'
            f"  zonesdir: {folder}\n  pidfile: {folder}/nsd.pid\n  xfrdfile: {folder}/xfrd.state\n"
            f"  zonelistfile: {folder}/zone.list\n  xfrdir: {folder}\n"
            f"remote-control:\n  control-enable: yes\n  control-interface: {folder}/nsd.sock\n"
            "pattern:\n  name: zones\n  zonefile: %s.zone\n"
        )
        self._spawn("old", "nsd", "-d", "-c", str(folder / "nsd.conf"))
        _until(partial(self._listens, "old", folder / "nsd.sock"), "the old host starts")

    def _nsd(self, *words: str) -> None:
        self._run("nsd-control", "-c", str(self._folder / "old" / "nsd.conf"), *words)

    def _old_keys(self, name: str) -> list[str]:
        """Return the paths, without suffix, of the two keys with which the old host signs a zone."""
        folder = self._folder / "old" / "keys"
        if not list(folder.glob(f"K{name}.+*.ds")):
            make = ("ldns-keygen", "-r", "/dev/urandom", "-a", "ECDSAP256SHA256")
            zone_key = self._run(*make, name, where=folder).strip()
            (folder / f"{zone_key}.ds").unlink(missing_ok=True)  # the registry gets the DS of the other one
            self._run(*make, "-k", name, where=folder)
        return [str(file.with_suffix("")) for file in sorted(folder.glob(f"K{name}.+*.private"))]

    def _old_ds(self, name: str) -> tuple[str, ...]:
        """Return the DS of the key with which the old host signs a zone."""
        lines = [file.read_text() for file in (self._folder / "old" / "keys").glob(f"K{name}.+*.ds")]
        if not lines:
            raise RefusedError(f"The old host has not signed {name}: publish it signed first")
        return tuple(line.split("DS", 1)[1].strip() for line in lines)

    # Root, registries and the new host: Knot

    def _knot_zones(self, name: str) -> Path:
        folder = self._folder / name / "zones"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _knot_conf(self, name: str, servers: Sequence[str], zones: Sequence[str]) -> Path:
        """Write a Knot's configuration; zones given from the start are signed by it, as registries do."""
        folder = self._knot_zones(name).parent
        listen = ", ".join(f"{address}@53" for address in _own(servers, ipv6=self._ipv6))
        signing = "    dnssec-signing: on\n    dnssec-policy: one-key\n" if name != "new" else ""
        rights = "" if signing else "    acl: ours\n"
        load = "difference-no-serial" if signing else "whole"
        (folder / "db").mkdir(exist_ok=True)
        (folder / "knot.conf").write_text(
            f"server:\n    rundir: {folder}\n    listen: [ {listen} ]\n    udp-workers: 1\n    tcp-workers: 1\n"
            f"    background-workers: 1\ncontrol:\n    listen: {folder}/knot.sock\n"
            f"database:\n    storage: {folder}/db\n    journal-db-max-size: 64M\n    kasp-db-max-size: 16M\n"
            "log:\n  - target: stderr\n    any: warning\n"
            f"policy:\n  - id: one-key\n    single-type-signing: on\n    dnskey-ttl: {self.ttl}\n"
            f"key:\n  - id: {self.tsig.name}\n    algorithm: {self.tsig.algorithm}\n    secret: {self.tsig.secret}\n"
            f"acl:\n  - id: ours\n    key: {self.tsig.name}\n    action: [ transfer, update ]\n"
            f'template:\n  - id: default\n    storage: {folder}/zones\n    file: "%s.zone"\n    zonefile-sync: -1\n'
            f"    zonefile-load: {load}\n    journal-content: all\n{signing}{rights}"
            "zone:\n"
            + "".join(f"  - domain: {zone}\n" + ("    file: ..zone\n" if zone == "." else "") for zone in zones)
        )
        return folder / "knot.conf"

    def _start_knot(self, name: str, servers: Sequence[str], zones: Sequence[str]) -> None:
        conf = self._knot_conf(name, servers, zones)
        self._spawn(name, "knotd", "-c", str(conf))
        _until(partial(self._listens, name, conf.parent / "knot.sock"), f"{name} starts")
        for zone in zones:
            self._served(zone, _own(servers, ipv6=self._ipv6))

    def _knotc(self, name: str, *words: str) -> None:
        self._run("knotc", "-s", str(self._folder / name / "knot.sock"), "-t", "15", "-b", *words)

    def _reload_new(self) -> None:
        """Let the new host serve exactly the zone files of its folder."""
        names = sorted(file.name.removesuffix(".zone") for file in self._knot_zones("new").glob("[!.]*.zone"))
        self._knot_conf("new", NEW_SERVERS, names)
        self._run("knotc", "-s", str(self._folder / "new" / "knot.sock"), "reload")
        for name in names:
            self._served(name, _own(NEW_SERVERS, ipv6=self._ipv6))
        self._change()

    def _registry_text(self, registry: str) -> str:
        own = [
            Rrset(server.removesuffix(f".{registry}"), "AAAA" if ":" in address else "A", self.ttl, (address,))
            for server, addresses in ADDRESSES.items()
            for address in addresses
            if server.endswith(f".{registry}") and (self._ipv6 or ":" not in address)
        ]
        for name, domain in self._domains.items():
            if name.endswith(f".{registry}"):
                label = name.removesuffix(f".{registry}")
                servers = tuple(f"{server}." for server in sorted(domain.nameservers))
                own += [Rrset(label, "NS", domain.ns_ttl, servers)]
                own += [Rrset(label, "DS", domain.ds_ttl, domain.ds)] if domain.ds else []
        return self._text(Zone.of(registry, own), ("a.nic.test", "b.nic.test"))

    def _root_text(self) -> str:
        records = []
        for registry in REGISTRIES:
            records.append(Rrset(registry, "NS", 3600, ("a.nic.test.", "b.nic.test.")))
            records.append(Rrset(registry, "DS", 3600, (self._ds_of(registry, "127.0.2.1"),)))
        glue = ("a.root-servers.net", "a.nic.test", "b.nic.test")
        records += [Rrset(server, "A", 3600, (ADDRESSES[server][0],)) for server in glue]
        return self._text(Zone.of(".", records), ("a.root-servers.net",))

    def _publish_registry(self, name: str) -> None:
        """Publish a registry's zone, signed, and wait until each of its servers says the new thing."""
        registry = name.rpartition(".")[2]
        (self._knot_zones("registries") / f"{registry}.zone").write_text(self._registry_text(registry))
        self._knotc("registries", "zone-reload", registry)
        domain = self._domains[name]
        wanted = {f"{server}." for server in domain.nameservers}

        def said() -> bool:
            for address in _own(("a.nic.test", "b.nic.test"), ipv6=self._ipv6):
                names = dns.query.udp(dns.message.make_query(name, "NS", flags=0), address, 2).authority
                signers = dns.query.udp(dns.message.make_query(name, "DS", flags=0), address, 2).answer
                found = {rdata.to_text() for rrset in names if rrset.rdtype == dns.rdatatype.NS for rdata in rrset}
                if found != wanted or bool(signers) != bool(domain.ds):
                    return False
            return True

        _until(said, f"the registry says what {name} is now")

    # The resolvers: Unbound

    def _start_unbound(self, resolver: str, anchor: str) -> None:
        folder = self._folder / resolver
        folder.mkdir()
        (folder / "root.hints").write_text(
            ". 3600 IN NS a.root-servers.net.\na.root-servers.net. 3600 IN A 127.0.1.1\n"
        )
        # `test.` is answered from within by default, as RFC 6761 wants.
        (folder / "unbound.conf").write_text(
            f'server:\n  interface: {resolver}\n  access-control: 127.0.0.0/8 allow\n  username: ""\n  chroot: ""\n'
            f"  directory: {folder}\n  pidfile: {folder}/unbound.pid\n  use-syslog: no\n  num-threads: 1\n"
            f"  cache-max-ttl: {self.ttl}\n"
            f'  root-hints: {folder}/root.hints\n  trust-anchor: ". DS {anchor}"\n  do-not-query-localhost: no\n'
            f'  local-zone: "test." nodefault\n  do-ip6: {"yes" if self._ipv6 else "no"}\n'
            '  module-config: "validator iterator"\n'
            "remote-control:\n  control-enable: yes\n  control-use-cert: no\n"
            f"  control-interface: {folder}/unbound.sock\n"
        )
        self._spawn(resolver, "unbound", "-d", "-p", "-c", str(folder / "unbound.conf"))
