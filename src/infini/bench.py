# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The staging bench: containers that boot systemd, made by podman from images that mmdebstrap builds.

Everything a bench makes carries its name, so that `destroy` removes all of it and nothing else. What differs between
machines (cgroup version, OCI runtime, user namespaces) is tried on a throw-away container, never assumed: the
silent failure is a host whose MemoryMax= does not bind.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from infini import STATE
from infini.errors import FailedError, RefusedError

CACHE = STATE / "cache"
AUTHORITIES = Path("/usr/local/share/ca-certificates")
PACKAGES = (
    # What a rented machine comes with, and python3-apt, without which Ansible's check mode refuses to look at packages.
    "systemd,systemd-sysv,dbus,python3,python3-apt,openssh-server,iproute2,ca-certificates,sudo"
)
CGROUP = Path("/sys/fs/cgroup")
LIMITS = {"memory": 10 * 2**30, "pids": 8192}
"""Memory (bytes) and processes of all hosts of a bench together."""
LIMIT_FILES = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max",)}

# Each candidate is what `podman run` needs beside the constant options; the first that passes the self-test is taken.
CANDIDATES: dict[str, list[str]] = {
    "user namespaces": ["--systemd=always", "--cgroupns=private", "--userns=auto:size=65536"],
    "default runtime": ["--systemd=always", "--cgroupns=private"],
    # Without CAP_SYS_RESOURCE podman's own high limits are refused; crun refuses hybrid cgroups. On cgroup v1 podman's
    # systemd mode shows every host the machine's own tree of units, which they then share: so it is done by hand.
    "runc, cgroup v1": [
        *(
            "--runtime=runc",
            "--systemd=false",
            "--cgroupns=private",
            "--stop-signal=SIGRTMIN+3",
            "--env=container=podman",
        ),
        *("--tmpfs=/run:rw,nosuid,nodev,mode=755", "--tmpfs=/run/lock:rw,nosuid,nodev,noexec,mode=1777"),
        *("--ulimit=nofile=20000:20000", "--ulimit=nproc=4096:4096"),
    ],
}

# Prints one word for each thing that does not hold inside a host, and `done` at its end. $@ are the other hosts.
SELF_TEST = r"""
unit() { systemd-run --quiet --wait --collect "$@" 2>/dev/null; }
unit true || echo units
unit -p MemoryMax=50M -p MemorySwapMax=0 python3 -c 'b"x" * (200 << 20)' && echo limits
unit -p ProtectSystem=strict -p PrivateTmp=yes true || echo sandbox
unit -p ProtectSystem=strict -p PrivateTmp=yes touch /etc/.bench && echo sandbox
rm -f /etc/.bench
unit -p LoadCredential=one:/etc/hostname sh -c 'test -s "$CREDENTIALS_DIRECTORY/one"' || echo credentials
mknod /run/.bench c 1 3 2>/dev/null || echo devices
rm -f /run/.bench
grep -q ':/\.\.' /proc/self/cgroup && echo isolation
for other in "$@"; do getent hosts "$other" >/dev/null || echo "names:$other"; done
echo done
"""
# The host to try is the one apt uses, so that no server is named here.
HTTPS_TEST = r"""
import re, socket, ssl, pathlib
sources = [p for p in pathlib.Path("/etc/apt").glob("sources.list*") if p.is_file()]
sources += pathlib.Path("/etc/apt/sources.list.d").glob("*")
host = re.search(r"https?://([^/\s]+)", "\n".join(p.read_text() for p in sources)).group(1)
with socket.create_connection((host, 443), 15) as plain:
    ssl.create_default_context().wrap_socket(plain, server_hostname=host).close()
"""
SAYS = {
    "limits": "a unit may exceed its MemoryMax=: cgroups do not bind inside the hosts (try another podman runtime)",
    "sandbox": "a unit with ProtectSystem=strict can write to /etc: systemd's sandboxing does not work in the hosts",
    "credentials": "services are not handed their credentials (LoadCredential=): a bench that was made before this was"
    " looked at has to be made anew, `infini staging down`, then `up`",
    "devices": "device nodes cannot be made inside the hosts, and the trees of other PHP versions need them",
    "isolation": "the hosts share systemd's control groups with this machine and with each other",
    "names": "the hosts do not find each other by name: is aardvark-dns installed, and the network's port 53 free?",
    "https": "HTTPS to the package mirror fails inside the hosts: is this machine online, and are the certificate"
    " authorities it needs in /usr/local/share/ca-certificates?",
    "boot": "systemd does not start in a container",
    "silent": "a host does not answer `podman exec`",
    "units": "systemd starts no unit inside the hosts",
}


@dataclass(frozen=True)
class Host:
    """One host of a bench, as the inventory declares it."""

    name: str
    fqdn: str
    release: str
    ipv4: str
    ipv6: str
    memory: str
    shows: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Directories of this machine that the host sees read-only, by their path there."""

    @property
    def mac(self) -> str:
        """A hardware address of the locally administered range, from the IPv4 address."""
        return "02:00:" + ":".join(f"{int(part):02x}" for part in self.ipv4.split("."))


@dataclass(frozen=True)
class Bench:
    """A bench: its name, its two subnets and its hosts."""

    name: str
    ipv4: str
    ipv6: str
    hosts: tuple[Host, ...]
    keys: tuple[str, ...] = ()
    """SSH key pairs that the inventory gives to roles, by their path in the bench's folder."""

    @property
    def folder(self) -> Path:
        """Keys, pinned host keys and certificates of this bench."""
        return STATE / self.name

    @property
    def network(self) -> str:
        """Name of the podman network, and prefix of everything else."""
        return f"infini-{self.name}"

    def container(self, host: Host) -> str:
        """Return the name of a host's container."""
        return f"{self.network}-{host.name}"


def run(*command: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and return its output; a failure is a FailedError with its last line."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RefusedError(f"{command[0]} is missing on this machine: `infini doctor` says how to get it") from None
    if check and done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise FailedError(f"{' '.join(command[:3])} … failed: {last[0]}")
    return done


def podman(*arguments: str, check: bool = True, stdin: str | None = None) -> str:
    """Run podman and return its standard output."""
    return run("podman", *arguments, check=check, stdin=stdin).stdout.strip()


# --- images ---------------------------------------------------------------------------------------------------------


def _authorities() -> list[Path]:
    return sorted(AUTHORITIES.glob("**/*.crt"))


def _recipe() -> list[str]:
    """Return what makes an image, as mmdebstrap's arguments."""
    return [
        *("--variant=minbase", f"--include={PACKAGES}"),
        *(f"--customize-hook=copy-in {path} {AUTHORITIES}" for path in _authorities()),
        '--customize-hook=chroot "$1" update-ca-certificates >/dev/null 2>&1',
        # Host keys belong to a host, not to an image.
        '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*',
        # Empty, not missing: systemd would take the boot for the first and enable every unit's preset (ssh.socket).
        '--customize-hook=: >"$1"/etc/machine-id',
        # They fail in a container: there are no modules to load, and the terminal is the machine's.
        *(
            f'--customize-hook=ln -s /dev/null "$1"/etc/systemd/system/{unit}'
            for unit in ("systemd-modules-load.service", "getty@tty1.service")
        ),
    ]


def image(release: str) -> str:
    """Return the image's name; its tag changes when anything that goes into it does."""
    recipe = "\n".join(_recipe()).encode() + b"".join(path.read_bytes() for path in _authorities())
    return f"localhost/infini-bench-{release}:{hashlib.sha256(recipe).hexdigest()[:12]}"


def build_image(release: str) -> bool:
    """Make the image of a Debian release; return whether anything was done. The tar file is the cache."""
    name = image(release)
    if run("podman", "image", "exists", name, check=False).returncode == 0:
        return False
    tar = CACHE / "images" / f"{release}-{name.rpartition(':')[2]}.tar"
    if not tar.exists():
        _bootstrap(release, tar)
    podman("import", "--quiet", str(tar), name)
    return True


def _bootstrap(release: str, tar: Path) -> None:
    tar.parent.mkdir(parents=True, exist_ok=True)
    part = tar.with_suffix(".part.tar")
    temporary = CACHE / "tmp" / release  # what a killed run left here is removed by the next one
    shutil.rmtree(temporary, ignore_errors=True)  # mostly nothing
    temporary.mkdir(parents=True)
    done = subprocess.run(
        ["mmdebstrap", "--quiet", *_recipe(), release, str(part)],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(temporary, ignore_errors=True)  # what resists is the next run's to remove
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()[-1:]
        raise FailedError(
            f"mmdebstrap could not build Debian {release}: {' '.join(said[:2])}. Is the package mirror reachable?"
            " (`apt-get update` tells.) Then run the command again"
        )
    part.replace(tar)


def build_images(releases: Iterable[str]) -> bool:
    """Make the images of several releases at once; return whether anything was done."""
    with ThreadPoolExecutor() as pool:
        return any(list(pool.map(build_image, sorted(set(releases)))))


# --- engine ---------------------------------------------------------------------------------------------------------


def engine(bench: Bench) -> dict[str, Any]:
    """Return what `podman run` needs on this machine: {"name", "options", "refused"}; found once and remembered."""
    image_name = image(bench.hosts[0].release)
    about = podman("version", "--format", "{{.Client.Version}}") + os.uname().release + image_name + repr(CANDIDATES)
    key = hashlib.sha256(about.encode()).hexdigest()
    memory = CACHE / "engine.json"
    if memory.exists():
        known: dict[str, Any] = json.loads(memory.read_text())
        if known["key"] == key:
            return known
    refused: dict[str, list[str]] = {}
    for name, options in CANDIDATES.items():
        wrong = _try(bench, options, image_name)
        if not wrong:
            found = {"key": key, "name": name, "options": options, "refused": refused}
            memory.parent.mkdir(parents=True, exist_ok=True)
            memory.write_text(json.dumps(found))
            return found
        refused[name] = wrong
    why = "; ".join(f"{name}: {', '.join(map(explain, wrong))}" for name, wrong in refused.items())
    raise FailedError(f"No way to run containers with systemd works on this machine. {why}")


def _try(bench: Bench, options: Sequence[str], image_name: str) -> list[str]:
    """Boot a throw-away container with these options and return what does not hold in it."""
    name = f"infini-try-{os.getpid()}"
    try:
        started = run(
            "podman", *_run_arguments(bench, name, options), "--network=none", image_name, *_INIT, check=False
        )
        if started.returncode:
            return [f"boot:{started.stderr.strip().splitlines()[-1]}"]
        return ["boot"] if not _booted(name) else self_test(name, [], https=False)
    finally:
        podman("rm", "--force", "--time", "0", name, check=False)


# systemd hands a service its credentials by a mount that has to spread, and a container keeps mounts to itself.
_INIT = ("/bin/sh", "-c", "mount --make-rshared / && exec /lib/systemd/systemd")


def _run_arguments(bench: Bench, name: str, options: Sequence[str]) -> list[str]:
    return [
        *("run", "--detach", "--name", name, "--label", f"infini.bench={bench.name}", "--privileged", *options),
        *("--env", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"),  # systemd 257 refuses cgroup v1 otherwise
    ]


def _booted(container: str, seconds: float = 30) -> bool:
    """Wait until systemd has started in a container."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = podman("exec", container, "systemctl", "is-system-running", check=False)
        if state in ("running", "degraded"):
            return True
        time.sleep(0.1)
    return False


def self_test(container: str, others: Iterable[str], https: bool = True) -> list[str]:
    """Return what does not hold inside a host, as words that `explain` turns into sentences."""
    *wrong, end = podman("exec", "-i", container, "sh", "-s", *others, stdin=SELF_TEST, check=False).split() or [""]
    if end != "done":
        return ["silent"]
    if https and run("podman", "exec", container, "python3", "-c", HTTPS_TEST, check=False).returncode:
        wrong.append("https")
    return wrong


def explain(word: str) -> str:
    """Turn a word of the self-test into a sentence."""
    kind, _, detail = word.partition(":")
    return SAYS[kind] + (f" ({detail})" if detail else "")


# --- the whole ------------------------------------------------------------------------------------------------------


def create(bench: Bench) -> bool:
    """Make the network and the hosts that are missing, start those that are stopped; return whether it did anything."""
    _refuse_another_clones(bench)
    changed = _make_network(bench)
    build_images(host.release for host in bench.hosts)  # again: before the network, another `destroy` could take them
    _make_keys(bench)
    parent = _bound(bench)
    options = engine(bench)["options"]
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda host: _make_host(bench, host, [*options, *parent]), bench.hosts))
    _close_to_the_outside(bench)
    _prepare(bench)
    return changed or any(made)


def _refuse_another_clones(bench: Bench) -> None:
    """Refuse hosts that this clone has no key of: the key is made before the first of them."""
    if containers(bench.name) and not (bench.folder / "id_ed25519").exists():
        raise RefusedError(
            f"The bench “{bench.name}” stands already, and another clone of the project made it: work there, or take it"
            f" down (INFINI_BENCH={bench.name} ./infini staging down), here or there"
        )


def _make_network(bench: Bench) -> bool:
    if run("podman", "network", "exists", bench.network, check=False).returncode == 0:
        return False
    taken = json.loads(run("ip", "-json", "route", "show", "table", "all").stdout)
    for route in taken:
        where = route.get("dst", "default")
        if "/" in where and ":" not in where and ip_network(where, strict=False).overlaps(ip_network(bench.ipv4)):
            raise RefusedError(
                f"The bench's network {bench.ipv4} is in use on this machine (a route by {route.get('dev')}):"
                " set another bench_number in inventory/staging/group_vars/all/bench.yml"
            )
    arguments = ["--ipv6", "--subnet", bench.ipv4, "--subnet", bench.ipv6, "--label", f"infini.bench={bench.name}"]
    podman("network", "create", *arguments, bench.network)
    return True


def _make_keys(bench: Bench) -> None:
    for key in (bench.folder / name for name in ("id_ed25519", *bench.keys)):
        key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", bench.network, "-f", str(key))


def _bound(bench: Bench) -> list[str]:
    """Put memory and process limits around the whole bench; return the option that puts a host inside."""
    if json.loads(podman("info", "--format", "json"))["host"]["cgroupManager"] == "systemd":
        slice_name = f"{bench.network.replace('-', '_')}.slice"
        limits = [f"MemoryMax={LIMITS['memory']}", f"TasksMax={LIMITS['pids']}"]
        run("systemctl", "set-property", "--runtime", slice_name, *limits)
        return ["--cgroup-parent", slice_name]
    if (CGROUP / "cgroup.subtree_control").exists():  # version 2: one tree, whose controllers must be asked for
        (CGROUP / "cgroup.subtree_control").write_text("+memory +pids")
    for controller, limit in LIMITS.items():
        own = CGROUP / controller  # version 1: a tree per controller
        group = (own if own.is_dir() else CGROUP) / bench.network
        group.mkdir(exist_ok=True)
        files = [group / name for name in LIMIT_FILES[controller] if (group / name).exists()]
        if not files:
            raise FailedError(f"The bench cannot be bounded: {group} takes no {controller} limit on this kernel")
        files[0].write_text(str(limit))
    return ["--cgroup-parent", f"/{bench.network}"]


def _unbind(bench: Bench) -> None:
    """Take the limits around the whole away."""
    if shutil.which("systemctl"):
        run("systemctl", "revert", f"{bench.network.replace('-', '_')}.slice", check=False)
    for group in (CGROUP / bench.network, *CGROUP.glob(f"*/{bench.network}")):
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


def _make_host(bench: Bench, host: Host, options: Sequence[str]) -> bool:
    """Make and boot one host, or start it if it is stopped."""
    name = bench.container(host)
    state = podman("container", "inspect", "--format", "{{.State.Status}}", name, check=False)
    if state == "running":
        return False
    if state not in ("", "exited", "stopped"):
        podman("rm", "--force", "--time", "0", name)  # half made by a run that was killed
        state = ""
    if state:
        podman("start", name)
    else:
        podman(
            *_run_arguments(bench, name, options),
            *("--hostname", host.fqdn, "--no-hosts", "--memory", host.memory),
            *(f"--volume={there}:{path}:ro" for path, there in host.shows.items()),
            # The same hardware address after each restart, or this machine's neighbour table sends to the old one.
            *("--network", bench.network, "--ip", host.ipv4, "--ip6", host.ipv6, "--mac-address", host.mac),
            *("--network-alias", host.fqdn, "--network-alias", host.name, image(host.release), *_INIT),
        )
    if not _booted(name):
        raise FailedError(f"{host.name} does not boot: read `podman logs {name}`, then `infini staging reset`")
    return True


def _prepare(bench: Bench) -> None:
    """Give each host its own keys, ours, and package lists; pin its key, read through podman and not the network."""
    public = (bench.folder / "id_ed25519.pub").read_text()

    def prepare(host: Host) -> str:
        name = bench.container(host)
        podman("exec", "-i", name, "sh", "-c", _PREPARE, stdin=public)
        key = podman("exec", name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
        return f"{host.ipv4},{host.ipv6} {' '.join(key)}\n"

    with ThreadPoolExecutor() as pool:
        (bench.folder / "known_hosts").write_text("".join(pool.map(prepare, bench.hosts)))


_PREPARE = """
set -e
umask 077
mkdir -p /root/.ssh
cat >/root/.ssh/authorized_keys
[ -s /etc/ssh/ssh_host_ed25519_key ] || { ssh-keygen -q -A; systemctl reset-failed ssh; systemctl restart ssh; }
[ -s /etc/hosts ] || printf '127.0.0.1 localhost\\n::1 localhost\\n' >/etc/hosts
chmod 644 /etc/hosts
# Check mode looks packages up and never fetches their lists: a rented machine has them.
ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 || apt-get -qq update
"""


def _close_to_the_outside(bench: Bench) -> None:
    """Drop what other machines route to the bench: old CMS run there."""
    table = f"infini_bench_{bench.name}"
    rules = f"""
    table inet {table} {{}}
    delete table inet {table}
    table inet {table} {{
        chain forward {{
            type filter hook forward priority -10
            iifname "podman*" tcp dport 22 accept comment "a drill, on a bench of its own, reads from this one's store"
            ip daddr {bench.ipv4} ip saddr != {bench.ipv4} ct state new drop
            ip6 daddr {bench.ipv6} ip6 saddr != {bench.ipv6} ct state new drop
        }}
    }}"""
    run("nft", "-f", "-", stdin=rules)


def check(bench: Bench) -> list[str]:
    """Run the self-test in every host at once and return a sentence for each thing that is wrong."""

    def one(host: Host) -> list[str]:
        others = [other.fqdn for other in bench.hosts if other != host]
        return [f"{host.name}: {explain(word)}" for word in self_test(bench.container(host), others)]

    with ThreadPoolExecutor() as pool:
        return [sentence for found in pool.map(one, bench.hosts) for sentence in found]


def containers(name: str) -> list[dict[str, Any]]:
    """Return podman's record of every container of a bench, also half-made ones."""
    listed = podman("ps", "--all", "--filter", f"label=infini.bench={name}", "--format", "json")
    found: list[dict[str, Any]] = json.loads(listed or "[]")
    return found


def destroy(name: str) -> bool:
    """Remove all that a bench made, and only that; the cache of image files stays. Return whether it was there."""
    bench = Bench(name, "", "", ())
    there = containers(name)
    for container in there:
        podman("rm", "--force", "--time", "0", "--volumes", container["Id"])
    found = bool(there)
    if run("podman", "network", "exists", bench.network, check=False).returncode == 0:
        podman("network", "rm", bench.network)
        found = True
    run("nft", "delete", "table", "inet", f"infini_bench_{name}", check=False)
    _unbind(bench)
    if not podman("network", "ls", "--quiet", "--filter", "label=infini.bench"):  # another bench needs the images
        for tag in podman("images", "--format", "{{.Repository}}:{{.Tag}}", "localhost/infini-bench-*").split():
            if not podman("ps", "--all", "--quiet", "--filter", f"ancestor={tag}"):  # nor anything of somebody else's
                podman("rmi", tag)
    shutil.rmtree(bench.folder, ignore_errors=True)  # a bench that was never up has none
    return found


def lose(name: str, hosts: Sequence[str]) -> bool:
    """Destroy these hosts of a bench with all that is on them, as a fire would; the others stay."""
    lost = [one for one in containers(name) if one["Names"][0].removeprefix(f"infini-{name}-") in hosts]
    for container in lost:
        podman("rm", "--force", "--time", "0", "--volumes", container["Id"])
    return bool(lost)


def from_inventory(
    name: str, ipv4: str, ipv6: str, hosts: Iterable[Mapping[str, Any]], keys: Iterable[str] = ()
) -> Bench:
    """Return the bench that the inventory's variables describe."""
    return Bench(name, ipv4, ipv6, tuple(Host(**host) for host in hosts), tuple(keys))
