# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at a host from outside, by protocol.

Runs on the control node (`infini verify`) and on the host that keeps watch. A probe gives findings: a code and the
values for its sentence, never prose.
"""

from __future__ import annotations

import errno
import html
import http.client
import ipaddress
import json
import re
import resource
import selectors
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 15.0
"""Seconds for a page: an account's first request starts its PHP."""
LONGEST_PAGE = 4_000_000
SCAN_SECONDS = 2.5
"""Long enough for one repeated SYN on a long way (the kernel repeats after one second)."""
SYN_REPEATED = 1.25
"""Seconds after which a lost SYN has been repeated."""


@dataclass(frozen=True)
class Probe:
    """One thing to try on one address of a host; plain data, so that it can travel as JSON."""

    kind: str
    host: str
    address: str
    options: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    """Values that only the sentence and the mend need."""


@dataclass(frozen=True)
class Finding:
    """What a probe saw: a code such as `page.ok` or `page.status`, and its values."""

    subject: str
    code: str
    values: Mapping[str, Any] = field(default_factory=dict)


class Unreached(Exception):  # noqa: N818  not an error of ours: the host did not let us in
    """No connection; `reason` is a code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Trust:
    """The certificate authorities that count beside the system's own, as PEM texts."""

    authorities: Sequence[str] = ()

    @cached_property
    def context(self) -> ssl.SSLContext:
        """A client context that verifies chain and name; reading the system's authorities takes 30 ms, so once."""
        context = ssl.create_default_context()
        for pem in self.authorities:
            context.load_verify_locations(cadata=pem)
        return context


def family(address: str) -> str:
    """Name the protocol of an address."""
    return f"IPv{ipaddress.ip_address(address).version}"


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return {10: "expired", 18: "self_signed", 19: "unknown_authority", 20: "unknown_authority", 62: "name"}.get(
            error.verify_code, "untrusted"
        )
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionError):
        return "reset"
    return "no_route"


def connect(address: str, port: int, timeout: float = TIMEOUT) -> socket.socket:
    """Open a TCP connection."""
    try:
        return socket.create_connection((address, port), timeout=timeout)
    except OSError as error:
        raise Unreached(_reason(error)) from error


LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"


def askable(name: str) -> str:
    """Give a host name as it travels; a name that cannot travel is refused before anything is opened."""
    try:
        ascii_name = name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        ascii_name = ""
    if not re.fullmatch(rf"{LABEL}(\.{LABEL})*", ascii_name):
        raise Unreached("bad_name")
    return ascii_name


def connect_tls(address: str, port: int, name: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Open a TLS connection to an address under a name."""
    name = askable(name)
    plain = connect(address, port)
    try:
        return context.wrap_socket(plain, server_hostname=name)
    except OSError as error:
        plain.close()
        raise Unreached(_reason(error)) from error


# --- pages ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    text: str


def get(address: str, url: str, trust: Trust) -> Answer:
    """Ask one address for a page under its name."""
    parts = urlsplit(url)
    name = askable(parts.hostname or "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = http.client.HTTPConnection(name, port, timeout=TIMEOUT)
    if parts.scheme == "https":
        connection.sock = connect_tls(address, port, name, trust.context)
    else:
        connection.sock = connect(address, port)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        host = f"{name}:{parts.port}" if parts.port else name
        connection.request("GET", path, headers={"Host": host, "User-Agent": "infini-verify", "Connection": "close"})
        response = connection.getresponse()
        body = response.read(LONGEST_PAGE)
    except http.client.HTTPException as error:
        raise Unreached("not_http") from error
    except OSError as error:
        raise Unreached(_reason(error)) from error
    finally:
        connection.close()
    headers = {key.lower(): value for key, value in response.getheaders()}
    charset = response.headers.get_content_charset() or "utf-8"
    return Answer(response.status, headers, _decode(body, charset))


def _decode(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset, "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _plain(text: str) -> str:
    return " ".join(html.unescape(text).split())


def title_of(text: str) -> str:
    """Give a page's title as a reader sees it."""
    found = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return _plain(found.group(1)) if found else ""


def page(probe: Probe, trust: Trust) -> list[Finding]:
    """Look whether a page is served with the status, the title and the text that were announced."""
    options = probe.options
    url, expected = options["url"], int(options.get("status", 200))
    subject = " ".join([url, *(str(options[key]) for key in ("title", "contains") if key in options)])
    values = {"url": url, "family": family(probe.address)}
    started = time.monotonic()
    try:
        answer = get(probe.address, url, trust)
    except Unreached as problem:
        return [Finding(subject, "page.unreached", {**values, "reason": problem.reason})]
    values["milliseconds"] = round((time.monotonic() - started) * 1000)
    if answer.status != expected:
        return [Finding(subject, "page.status", {**values, "status": answer.status, "expected": expected})]
    if "title" in options and _plain(str(options["title"])) not in title_of(answer.text):
        return [
            Finding(subject, "page.title", {**values, "text": options["title"], "title": title_of(answer.text) or "-"})
        ]
    if "contains" in options and _plain(str(options["contains"])) not in _plain(answer.text):
        return [Finding(subject, "page.text", {**values, "text": options["contains"]})]
    return [Finding(subject, "page.ok" if expected < 400 else "page.shut.ok", {**values, "status": answer.status})]


def redirect(probe: Probe, trust: Trust) -> list[Finding]:
    """Look whether an address sends the visitor to another."""
    url = probe.options["url"]
    to = probe.options.get("to") or re.sub("^http:", "https:", url)
    values = {"url": url, "to": to, "family": family(probe.address)}
    try:
        answer = get(probe.address, url, trust)
    except Unreached as problem:
        return [Finding(url, "redirect.unreached", {**values, "reason": problem.reason})]
    if answer.status not in (301, 302, 303, 307, 308):
        return [Finding(url, "redirect.none", {**values, "status": answer.status})]
    if answer.status != int(probe.options.get("code", answer.status)):
        return [Finding(url, "redirect.code", {**values, "status": answer.status, "expected": probe.options["code"]})]
    location = answer.headers.get("location", "")
    if location.rstrip("/") != to.rstrip("/"):
        return [Finding(url, "redirect.elsewhere", {**values, "location": location})]
    return [Finding(url, "redirect.ok", values)]


# --- TLS --------------------------------------------------------------------------------------------------------

OLD_VERSIONS = {"1.0": b"\x03\x01", "1.1": b"\x03\x02"}
OLD_CIPHERS = bytes.fromhex("c009c00ac013c0140033003900320038002f0035000a00ff")


def client_hello(version: bytes, name: str) -> bytes:
    """Write the first message of an old TLS client.

    By hand, because the local OpenSSL may refuse to speak it, and a refusal of our own would look like the host's.
    """
    server = askable(name).encode("ascii")
    sni = struct.pack("!HBH", len(server) + 3, 0, len(server)) + server
    extensions = b"".join(
        struct.pack("!HH", kind, len(data)) + data
        for kind, data in (
            (0, sni),
            (10, bytes.fromhex("0008001d001700180019")),
            (11, bytes.fromhex("0100")),
        )
    )
    body = version + bytes(range(32)) + b"\x00" + struct.pack("!H", len(OLD_CIPHERS)) + OLD_CIPHERS + b"\x01\x00"
    body += struct.pack("!H", len(extensions)) + extensions
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack("!H", len(handshake)) + handshake


def accepts_old(answer: bytes, version: bytes) -> bool:
    """Tell whether the answer to a `client_hello` agrees to that version."""
    return len(answer) >= 11 and answer[0] == 0x16 and answer[5] == 0x02 and answer[9:11] == version


def _receive(connection: socket.socket, wanted: int) -> bytes:
    data = b""
    while len(data) < wanted:
        try:
            more = connection.recv(wanted - len(data))
        except OSError:
            break
        if not more:
            break
        data += more
    return data


def _old_version(address: str, port: int, name: str, number: str) -> str:
    with connect(address, port) as connection:
        connection.settimeout(5)
        connection.sendall(client_hello(OLD_VERSIONS[number], name))
        return "accepted" if accepts_old(_receive(connection, 11), OLD_VERSIONS[number]) else "ok"


def _new_version(address: str, port: int, name: str, version: ssl.TLSVersion) -> str | None:
    """Give the negotiated application protocol ("" for none), or nothing when the version is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # this probe looks at versions; `certificate` looks at trust
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with connect_tls(address, port, name, context) as connection:
            return connection.selected_alpn_protocol() or ""
    except Unreached as problem:
        if problem.reason in ("tls", "reset"):
            return None
        raise


def tls(probe: Probe, _trust: Trust) -> list[Finding]:
    """Look whether TLS 1.0 and 1.1 are refused, 1.2 and 1.3 accepted, HTTP/2 offered."""
    name, port = str(probe.options["name"]), int(probe.options.get("port", 443))
    values = {"name": name, "port": port, "family": family(probe.address)}
    found: list[Finding] = []
    try:
        for number in OLD_VERSIONS:
            result = _old_version(probe.address, port, name, number)
            found.append(Finding(f"{name}:{port}/{number}", f"tls.old.{result}", {**values, "version": number}))
        protocol: str | None = None
        for number, version in (("1.2", ssl.TLSVersion.TLSv1_2), ("1.3", ssl.TLSVersion.TLSv1_3)):
            agreed = _new_version(probe.address, port, name, version)
            code = "tls.new.ok" if agreed is not None else "tls.new.refused"
            found.append(Finding(f"{name}:{port}/{number}", code, {**values, "version": number}))
            protocol = protocol or agreed
    except (Unreached, OSError) as problem:
        reason = problem.reason if isinstance(problem, Unreached) else _reason(problem)
        return [Finding(f"{name}:{port}", "tls.unreached", {**values, "reason": reason})]
    if probe.options.get("http2", True):
        code = "tls.http2.ok" if protocol == "h2" else "tls.http2.missing"
        found.append(Finding(f"{name}:{port}/h2", code, {**values, "protocol": protocol or "-"}))
    return found


def covers(pattern: str, name: str) -> bool:
    """Tell whether a name in a certificate covers a host name."""
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and not name.startswith("*")
    return pattern == name


def certificate(probe: Probe, trust: Trust) -> list[Finding]:
    """Look whether a certificate is trusted, covers its names and lasts."""
    options = probe.options
    name, port = str(options["name"]), int(options.get("port", 443))
    values: dict[str, Any] = {"name": name, "port": port, "family": family(probe.address)}
    subject = f"{name}:{port}"
    try:
        with connect_tls(probe.address, port, name, trust.context) as connection:
            details: Mapping[str, Any] = connection.getpeercert() or {}
    except Unreached as problem:
        code = "certificate.unreached" if problem.reason in UNREACHED else "certificate.untrusted"
        return [Finding(subject, code, {**values, "reason": problem.reason})]
    covered = [value for kind, value in details.get("subjectAltName", ()) if kind == "DNS"]
    missing = [one for one in options.get("names", ()) if not any(covers(pattern, one) for pattern in covered)]
    if missing:
        return [Finding(subject, "certificate.names", {**values, "missing": missing})]
    values["days"] = int((ssl.cert_time_to_seconds(details["notAfter"]) - time.time()) // 86400)
    code = "certificate.ok" if values["days"] >= int(options.get("days", 14)) else "certificate.ending"
    return [Finding(subject, code, values)]


UNREACHED = ("timeout", "refused", "reset", "no_route", "bad_name")
"""Reasons that say nothing about the certificate."""


# --- ports ------------------------------------------------------------------------------------------------------

WELL_KNOWN = tuple(
    sorted(
        {
            *(7, 9, 13, 19, 20, 21, 22, 23, 24, 25, 37, 43, 49, 53, 67, 69, 70, 79, 80, 81, 82, 88, 102, 106, 109),
            *(110, 111, 113, 119, 123, 135, 137, 139, 143, 161, 177, 179, 194, 199, 264, 311, 389, 427, 443, 444, 445),
            *(464, 465, 497, 500, 502, 512, 513, 514, 515, 520, 521, 540, 543, 544, 548, 554, 563, 587, 593, 623, 625),
            *(631, 636, 646, 660, 666, 674, 691, 700, 749, 783, 808, 843, 853, 860, 873, 902, 953, 981, 990, 992, 993),
            *(995, 1025, 1080, 1099, 1194, 1433, 1521, 1723, 1883, 1900, 2000, 2049, 2082, 2083, 2086, 2087, 2181),
            *(2222, 2323, 2375, 2376, 2379, 2380, 2483, 3000, 3001, 3128, 3260, 3268, 3306, 3310, 3389, 3478, 3690),
            *(4000, 4040, 4190, 4222, 4369, 4443, 4444, 4505, 4506, 4567, 4568, 4848, 4949, 5000, 5001, 5006, 5037),
            *(5060, 5061, 5080, 5222, 5223, 5269, 5280, 5281, 5353, 5355, 5432, 5433, 5555, 5601, 5666, 5672, 5800),
            *(5900, 5901, 5984, 5985, 6000, 6001, 6379, 6380, 6432, 6443, 6514, 6556, 6660, 6667, 6697, 7000, 7001),
            *(7070, 7180, 7443, 7474, 7777, 8000, 8001, 8006, 8008, 8009, 8010, 8025, 8069, 8080, 8081, 8082, 8083),
            *(8086, 8088, 8090, 8096, 8118, 8123, 8140, 8181, 8222, 8332, 8333, 8384, 8404, 8443, 8500, 8600, 8765),
            *(8787, 8834, 8880, 8883, 8888, 8983, 9000, 9001, 9002, 9042, 9050, 9080, 9090, 9091, 9092, 9093, 9100),
            *(9104, 9115, 9117, 9160, 9200, 9201, 9300, 9418, 9443, 9600, 9999, 10000, 10050, 10051, 10250, 11211),
            *(11332, 11333, 11334, 12345, 13306, 14000, 15000, 15672, 16379, 17500, 19999, 22000, 25565, 25672, 26379),
            *(27017, 27018, 28017, 30000, 32400, 32768, 33060, 44818, 47808, 49152, 50000, 50070, 51820, 54321),
            *(60000, 61616, 64738),
        }
    )
)
"""Ports where a forgotten service usually stands."""


def scan(address: str, ports: Iterable[int], seconds: float = SCAN_SECONDS, at_once: int = 400) -> set[int]:
    """Give the TCP ports that accept a connection; all are tried at the same time."""
    todo = sorted(set(ports))
    found: set[int] = set()
    for start in range(0, len(todo), at_once):
        found |= _scan(address, todo[start : start + at_once], seconds)
    return found


def _scan(address: str, ports: Sequence[int], seconds: float) -> set[int]:
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened: set[int] = set()
    with selectors.DefaultSelector() as selector:
        for port in ports:
            connection = socket.socket(kind, socket.SOCK_STREAM)
            connection.setblocking(False)
            connection.connect_ex((address, port))
            selector.register(connection, selectors.EVENT_WRITE, port)
        begin = time.monotonic()
        while selector.get_map() and (left := begin + seconds - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                _close(selector, key, opened)
            # The first answer tells how far away the host is; what is silent after a repeated SYN stays silent.
            seconds = min(seconds, SYN_REPEATED + 4 * (time.monotonic() - begin))
        for key in list(selector.get_map().values()):
            selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]  # we registered sockets, never numbers
    return opened


def _close(selector: selectors.BaseSelector, key: selectors.SelectorKey, opened: set[int]) -> None:
    connection: socket.socket = key.fileobj  # type: ignore[assignment]  # as above
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
        opened.add(key.data)
    selector.unregister(connection)
    connection.close()


def ports(probe: Probe, _trust: Trust) -> list[Finding]:
    """Look whether the open TCP ports are those declared, and no other."""
    declared = {int(port): values for port, values in probe.options["declared"].items()}
    wanted = {*declared, *WELL_KNOWN, *map(int, probe.options.get("listening", ()))}
    opened = scan(probe.address, wanted)
    values = {"family": family(probe.address)}
    found = [
        Finding(f"{port}", "port.ok" if port in opened else "port.closed", {**values, **its_own, "port": port})
        for port, its_own in sorted(declared.items())
    ]
    extra = sorted(opened - set(declared) - set(map(int, probe.options.get("tolerated", ()))))
    code = "ports.undeclared" if extra else "ports.ok"
    return [*found, Finding("others", code, {**values, "ports": extra, "tried": len(wanted)})]


def tcp(probe: Probe, _trust: Trust) -> list[Finding]:
    """Look whether a port answers, with a greeting when one was announced."""
    port, starts = int(probe.options["port"]), str(probe.options.get("starts", ""))
    values = {"port": port, "family": family(probe.address), "starts": starts}
    try:
        with connect(probe.address, port) as connection:
            greeting = _receive(connection, len(starts.encode())).decode("utf-8", "replace")
    except Unreached as problem:
        return [Finding(f"{port}", "tcp.unreached", {**values, "reason": problem.reason})]
    code = "tcp.ok" if greeting == starts else "tcp.greeting"
    return [Finding(f"{port}", code, {**values, "greeting": greeting.strip() or "-"})]


# --- SSH --------------------------------------------------------------------------------------------------------


def _ssh_audit() -> str | None:
    beside = Path(sys.executable).with_name("ssh-audit")
    return str(beside) if beside.is_file() else shutil.which("ssh-audit")


OLDEST_POLICY = {"12": 3}
"""Earlier versions of a release's policy ask for less than the release can do today."""


def hardened_policy(listing: str, release: str) -> str | None:
    """Pick the newest hardened policy of a Debian release from `ssh-audit -L`."""
    found = re.findall(rf'"(Hardened Debian {re.escape(release)} \(version (\d+)\))"', listing)
    name, version = max(found, key=lambda pair: int(pair[1]), default=("", 0))
    return name if int(version) >= OLDEST_POLICY.get(release, 1) else None


def release_of(banner: str) -> str | None:
    """Tell a Debian release by its OpenSSH, for those who look without knowing the host."""
    found = re.search(r"OpenSSH_(\d+\.\d+)", banner)
    return {"8.4": "11", "9.2": "12", "10.0": "13"}.get(found.group(1)) if found else None


def _capture(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout


def ssh(probe: Probe, _trust: Trust, run: Callable[[Sequence[str]], str] = _capture) -> list[Finding]:
    """Look whether ssh-audit's built-in hardened policy for the host's release passes."""
    port = int(probe.options.get("port", 22))
    values: dict[str, Any] = {"port": port}
    try:
        with connect(probe.address, port) as connection:
            banner = connection.recv(255).decode("utf-8", "replace")
        values["release"] = release = str(probe.options.get("release") or release_of(banner) or "?")
        tool = _ssh_audit()
        policy = hardened_policy(run([tool, "-L"]), release) if tool else None
        if not tool or not policy:
            return [Finding(f"{port}", "ssh.untested.ok", values)]
        report = json.loads(run([tool, "-j", "-P", policy, "-p", str(port), probe.address]))
    except Unreached as problem:
        return [Finding(f"{port}", "ssh.unreached", {**values, "reason": problem.reason})]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return [Finding(f"{port}", "ssh.unreached", {**values, "reason": "not_ssh"})]
    values["policy"] = policy
    if report["passed"]:
        return [Finding(f"{port}", "ssh.ok", values)]
    return [Finding(f"{port}", "ssh.weak", {**values, "fields": _weak_fields(report)})]


def _weak_fields(report: Mapping[str, Any]) -> list[str]:
    return sorted({str(error.get("mismatched_field", "?")) for error in report.get("errors", [])})


# --- all together -----------------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Probe, Trust], list[Finding]]] = {
    "page": page,
    "redirect": redirect,
    "tls": tls,
    "certificate": certificate,
    "ports": ports,
    "tcp": tcp,
    "ssh": ssh,
}


def look(probe: Probe, trust: Trust) -> list[Finding]:
    """Run one probe."""
    return KINDS[probe.kind](probe, trust)


def look_at_all(
    probes: Sequence[Probe], trust: Trust, workers: int = 16, again_after: float | None = None
) -> list[tuple[Probe, list[Finding]]]:
    """Run many probes side by side; after `again_after` seconds, once more those that found something."""
    # Scans of several hosts have some thousand connections open; the usual limit of 1024 is for who uses select().
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        results = list(pool.map(lambda probe: look(probe, trust), probes))
        doubtful = [number for number, found in enumerate(results) if any(not fine(one.code) for one in found)]
        if doubtful and again_after is not None:
            time.sleep(again_after)
            repeated = pool.map(lambda number: look(probes[number], trust), doubtful)
            for number, found in zip(doubtful, list(repeated)):
                results[number] = found
    return list(zip(probes, results))


def fine(code: str) -> bool:
    """Tell whether a code says that all is well."""
    return code.endswith(".ok")
