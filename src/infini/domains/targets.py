# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a zone may go to live (`ports.Target`): our own servers, AlternC's panel, OVH, deSEC, or somebody's hands.

Each takes the whole zone and makes exactly it be served; doing that again changes nothing. A lost answer is said as
such (`WorldError.landed` is None), and the next attempt reads before it writes.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.tsig
import dns.tsigkeyring
import dns.update
import httpx
import yaml

from hosting import probes
from hosting.probes import Trust
from infini.domains.compare import changes
from infini.domains.observed import Redirection
from infini.domains.ports import ByHandError, Clock, WorldError
from infini.domains.reading import Tsig, from_axfr
from infini.domains.writing import Soa, next_serial, to_text
from infini.domains.zone import Key, Rrset, Zone
from infini.errors import InfiniError, RefusedError, UnreachableError

_SERIAL = re.compile(r"(\bIN SOA \S+ \S+ )(\d+)")
_APEX = (("@", "NS"), ("@", "SOA"))
_REDIRECTIONS = """\
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The redirections of {domain}, as they were at Gandi: written by `infini domains`, read by the inventory.
"""


def _utc() -> datetime:
    return datetime.now(UTC)


def _fits(zone: Zone, target: str, minimum_ttl: int) -> None:
    """Refuse a zone that the target would not serve as it is."""
    if zone.unreadable:
        lost = ", ".join("/".join(entry.key) for entry in zone.unreadable)
        raise RefusedError(f"{target} cannot serve {lost} of {zone.name}: plan the zone first")
    short = [f"{'/'.join(rrset.key)} ({rrset.ttl} s)" for rrset in zone.rrsets.values() if rrset.ttl < minimum_ttl]
    if short:
        raise RefusedError(
            f"{target} serves no TTL below {minimum_ttl} s, but {zone.name} has {', '.join(short[:3])}: "
            "plan the zone for this target"
        )


def _without_apex(zone: Zone) -> Zone:
    return Zone(zone.name, {key: rrset for key, rrset in zone.rrsets.items() if key not in _APEX})


def _write(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, also after a power cut."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(path)


@dataclass
class ZoneFiles:
    """Zone files in a folder, which a server (role `dns_primary`) serves.

    `publish` makes the server read the folder; it is called each time, since a file that stands may not be served
    yet. The serial rises only when the zone changes.
    """

    folder: Path
    nameservers: tuple[str, ...]
    mailbox: str
    publish: Callable[[], None]
    minimum_ttl: int = 300
    soa_ttl: int = 3600
    negative_ttl: int = 3600
    now: Callable[[], datetime] = _utc
    name: str = "zone files"

    def _path(self, name: str) -> Path:
        if "/" in name or name.startswith("."):
            raise RefusedError(f"“{name}” cannot be the name of a zone file")
        return self.folder / f"{name}.zone"

    def _text(self, zone: Zone, serial: int) -> str:
        soa = Soa(self.nameservers[0], self.mailbox, serial, minimum=self.negative_ttl, ttl=self.soa_ttl)
        return to_text(zone, soa, self.nameservers)

    def provision(self, zone: Zone) -> None:
        """Write the zone's file and have it served; RefusedError when a TTL is too short or an entry unreadable."""
        _fits(zone, self.name, self.minimum_ttl)
        path = self._path(zone.name)
        standing = path.read_text(encoding="utf-8") if path.exists() else ""
        found = _SERIAL.search(standing)
        serial = int(found[2]) if found else 0
        if standing != self._text(zone, serial):
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(path, self._text(zone, next_serial(serial, self.now())))
        self.publish()

    def remove(self, name: str) -> None:
        """Take the zone's file away and have that known."""
        self._path(name).unlink(missing_ok=True)
        self.publish()


@dataclass
class Rfc2136:
    """A server that takes DNS UPDATE signed with TSIG; the zone with its SOA and NS stands there already.

    What differs is sent as one message, so nobody sees half of it; only a change that does not fit in 64 KiB is cut.
    `timeout` in seconds.
    """

    server: str
    tsig: Tsig
    nameservers: tuple[str, ...]
    port: int = 53
    minimum_ttl: int = 300
    timeout: float = 10.0
    name: str = "dynamic update"

    def provision(self, zone: Zone) -> None:
        """Make the served zone equal to this one, its own SOA and NS apart; WorldError when the server refuses."""
        _fits(zone, self.name, self.minimum_ttl)
        self._turn_into(_without_apex(zone))

    def remove(self, name: str) -> None:
        """Empty the zone: the name itself, SOA and NS stay, since they are the server's configuration."""
        self._turn_into(Zone(name))

    def _turn_into(self, zone: Zone) -> None:
        standing = self._read(zone.name)
        wanted = changes(standing, zone)
        if not wanted:
            return
        # Removals first: a CNAME and other data never stand together, not even within the message.
        steps: list[tuple[Rrset, bool]] = [(rrset, False) for rrset in wanted.removed]
        steps += [(rrset, True) for rrset in (*(new for _, new in wanted.changed), *wanted.added)]
        self._send(zone.name, steps)
        if changes(self._read(zone.name), zone):
            raise WorldError(f"{self.server} took the update of {zone.name} but serves something else", landed=None)

    def _read(self, name: str) -> Zone:
        try:
            return _without_apex(from_axfr(name, self.server, self.port, self.tsig))
        except InfiniError as error:
            raise WorldError(str(error), retry=isinstance(error, UnreachableError)) from error

    def _send(self, name: str, steps: Sequence[tuple[Rrset, bool]]) -> None:
        keyring = dns.tsigkeyring.from_text({self.tsig.name: self.tsig.secret})
        update = dns.update.UpdateMessage(name, keyring=keyring, keyalgorithm=self.tsig.algorithm)
        for rrset, stays in steps:
            if stays:
                update.replace(rrset.name, rrset.ttl, rrset.type, *rrset.values)
            else:
                update.delete(rrset.name, rrset.type)
        try:
            update.to_wire()
        except dns.exception.TooBig:
            half = len(steps) // 2
            if not half:
                raise RefusedError(f"{'/'.join(steps[0][0].key)} of {name} is too large for a DNS message") from None
            self._send(name, steps[:half])
            self._send(name, steps[half:])
            return
        try:
            said = dns.query.tcp(update, self.server, self.timeout, self.port)
        except dns.tsig.PeerError as error:
            raise WorldError(f"{self.server} does not know the key for {name}: compare names and secrets") from error
        except dns.exception.FormError as error:  # anybody may send an answer without a signature: it says nothing
            raise WorldError(
                f"{self.server} answers the update of {name} without our key's signature: is the key known there?",
                retry=True,
                landed=None,
            ) from error
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise WorldError(
                f"{self.server} gave no answer to the update of {name} ({type(error).__name__})",
                retry=True,
                landed=None,
            ) from error
        if said.rcode():
            raise WorldError(f"{self.server} refuses the update of {name}: {dns.rcode.to_text(said.rcode())}")


@dataclass
class RedirectionFiles:
    """Our web front (`ports.Web`): for each domain a file in a folder, which the inventory reads (role `sites`).

    `publish` has the platform read the folder. `addresses` are those at which visitors reach the front.
    """

    folder: Path
    addresses: tuple[str, ...]
    publish: Callable[[], None]
    trust: Trust = field(default_factory=Trust)
    http_port: int = 80
    https_port: int = 443

    def _path(self, domain: str) -> Path:
        if "/" in domain or domain.startswith("."):
            raise RefusedError(f"“{domain}” cannot be the name of a file")
        return self.folder / f"{domain}.yml"

    def provision(self, domain: str, redirections: Sequence[Redirection]) -> None:
        """Write the domain's file and have the platform serve it; without redirections no file stands."""
        path = self._path(domain)
        if not redirections:
            self.remove(domain)
            return
        standing = path.read_text(encoding="utf-8") if path.exists() else ""
        kept = {str(row["name"]) for row in yaml.safe_load(standing) or () if row["redirect"].get("keep_path")}
        text = _REDIRECTIONS.format(domain=domain) + yaml.safe_dump(
            [self._entry(one, kept) for one in sorted(redirections, key=str)], sort_keys=False, allow_unicode=True
        )
        if standing != text:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(path, text)
        self.publish()  # also what stands may not be served yet

    def remove(self, domain: str) -> None:
        """Take the domain's file away, if there is one, and have that known."""
        path = self._path(domain)
        if path.exists():
            path.unlink()
            self.publish()

    def _entry(self, one: Redirection, kept: Collection[str]) -> dict[str, Any]:
        keeps = self._keeps_path(one)
        redirect: dict[str, Any] = {"to": one.to, "code": one.code}
        if one.host in kept if keeps is None else keeps:
            redirect["keep_path"] = True
        return {"name": one.host, "redirect": redirect}

    def _keeps_path(self, one: Redirection) -> bool | None:
        """Measure whether what answers today adds the visitor's path to the target; None when nothing answers so."""
        path = "/infini/essai"
        scheme = "https" if one.protocol == "httpsonly" else "http"
        try:
            said = httpx.get(f"{scheme}://{one.host}{self._port(scheme)}{path}", timeout=10)
        except (httpx.HTTPError, OSError):
            return None
        location = said.headers.get("location", "")
        return {one.to: False, one.to.rstrip("/") + path: True}.get(location)

    def wrong(self, redirections: Sequence[Redirection]) -> list[str]:
        """Ask the front at its own addresses, by plain HTTP and, where visitors used it before, by HTTPS."""
        if not self.addresses:
            return [f"L'adresse de notre front n'est pas connue : donnez-la (`web_addresses`) pour {redirections[0]}."]
        return [
            sentence
            for one in redirections
            for scheme in (("http",) if one.protocol == "http" else ("http", "https"))
            for sentence in self._wrong(one, scheme)
        ]

    def _wrong(self, one: Redirection, scheme: str) -> list[str]:
        found: list[str] = []
        lost: list[str] = []
        for address in self.addresses:
            try:
                said = probes.get(address, f"{scheme}://{one.host}{self._port(scheme)}/", self.trust)
            except probes.Unreached as problem:
                (lost if problem.reason == "no_route" else found).append(self._unreached(one, scheme, address, problem))
                continue
            location = said.headers.get("location", "")
            if said.status != one.code or location.rstrip("/") != one.to.rstrip("/"):
                answer = f"{said.status} {location}".strip()
                found.append(f"La redirection {one} n'est pas en place : {address} répond « {answer} » en {scheme}.")
        # An address family that this machine has no route for proves nothing, as long as there is another.
        return found or (lost if len(lost) == len(self.addresses) else [])

    def _unreached(self, one: Redirection, scheme: str, address: str, problem: probes.Unreached) -> str:
        if scheme == "http" or problem.reason in ("no_route", "timeout", "refused"):
            return f"La redirection {one} n'est pas en place : {address} ne répond pas en {scheme} ({problem.reason})."
        to = " et ".join(self.addresses)
        return (
            f"{one.host} n'a pas encore de certificat chez nous : chez Gandi, faites mener ce nom à {to} (A, AAAA), "
            "puis « certificates renew --now » sur la machine web. En attendant, la redirection marche en HTTP."
        )

    def _port(self, scheme: str) -> str:
        port, usual = {"http": (self.http_port, 80), "https": (self.https_port, 443)}[scheme]
        return "" if port == usual else f":{port}"


class OvhCalls(Protocol):
    """OVH's API, signed."""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return what OVH answers; WorldError when it refuses."""


@dataclass
class OvhImport:
    """OVH's DNS, by its import of a zone file: all types pass, where its record API takes only some.

    The zone must have been ordered at OVH; `nameservers` are those that OVH gave it.
    """

    api: OvhCalls
    nameservers: tuple[str, ...]
    mailbox: str
    clock: Clock
    minimum_ttl: int = 60
    patience: float = 600.0
    name: str = "OVH"

    def provision(self, zone: Zone) -> None:
        """Import the zone and wait for OVH's task; WorldError when it fails or takes longer than `patience` seconds."""
        _fits(zone, self.name, self.minimum_ttl)
        soa = Soa(self.nameservers[0], self.mailbox, next_serial(0, self.clock.now()))
        text = to_text(zone, soa, self.nameservers)
        task = self.api.call("POST", f"/domain/zone/{zone.name}/import", {"zoneFile": text})
        self._wait(zone.name, task)

    def remove(self, name: str) -> None:
        """Put OVH's bare zone in its place: OVH keeps a zone as long as it is paid for."""
        self._wait(name, self.api.call("POST", f"/domain/zone/{name}/reset", {"minimized": True}))

    def _wait(self, name: str, task: Any) -> None:
        waited = 0.0
        while isinstance(task, Mapping) and task.get("status") in ("todo", "doing"):
            if waited >= self.patience:
                raise WorldError(f"OVH has not finished with the zone {name}", retry=True, landed=None)
            self.clock.sleep(5)
            waited += 5
            task = self.api.call("GET", f"/domain/zone/{name}/task/{task['id']}")
        if isinstance(task, Mapping) and task.get("status", "done") != "done":
            raise WorldError(f"OVH's task for the zone {name} ended as “{task['status']}”")


@dataclass
class DesecImport:
    """deSEC, which signs every zone itself and accepts no TTL below an hour.

    `token` is called when a request is made, so that nothing keeps the token.
    """

    token: Callable[[], str] = field(repr=False)
    clock: Clock
    nameservers: tuple[str, ...] = ("ns1.desec.io", "ns2.desec.org")
    minimum_ttl: int = 3600
    url: str = "https://desec.io/api/v1"
    name: str = "deSEC"
    tries: int = 5

    def provision(self, zone: Zone) -> None:
        """Create the zone if need be, and make its rrsets be exactly these in one request."""
        _fits(zone, self.name, self.minimum_ttl)
        if self._call("GET", f"/domains/{zone.name}/", missing=True) is None:
            self._call("POST", "/domains/", {"name": zone.name})
        wanted = {key: rrset for key, rrset in zone.rrsets.items() if key not in _APEX}
        body = [_desec(rrset) for rrset in wanted.values()]
        for key, ttl in self._standing(zone.name).items():
            if key not in wanted:
                body.append({"subname": _subname(key[0]), "type": key[1], "ttl": ttl, "records": []})
        if body:
            self._call("PUT", f"/domains/{zone.name}/rrsets/", body)

    def remove(self, name: str) -> None:
        """Delete the zone there."""
        self._call("DELETE", f"/domains/{name}/", missing=True)

    def _standing(self, name: str) -> dict[Key, int]:
        """Return the rrsets that stand there and are ours to change, with their TTLs."""
        found: dict[Key, int] = {}
        path = f"/domains/{name}/rrsets/?cursor="
        while path:
            said = self._request("GET", path)
            for entry in said.json():
                key = (entry["subname"] or "@", entry["type"])
                if key not in _APEX:
                    found[key] = entry["ttl"]
            path = said.links.get("next", {}).get("url", "")
        return found

    def _call(self, method: str, path: str, body: Any = None, missing: bool = False) -> Any:
        said = self._request(method, path, body, missing)
        return None if said.status_code == 404 else said.json() if said.content else {}

    def _request(self, method: str, path: str, body: Any = None, missing: bool = False) -> httpx.Response:
        url = path if path.startswith(self.url) else f"{self.url}{path}"
        for _ in range(self.tries):
            try:
                headers = {"Authorization": f"Token {self.token()}"}
                said = httpx.request(method, url, json=body, headers=headers, timeout=30)
            except httpx.HTTPError as error:
                raise WorldError(
                    f"deSEC gave no answer to {method} {path} ({type(error).__name__})",
                    retry=True,
                    landed=False if method == "GET" else None,
                ) from None  # httpx's error carries the request, and the request the token
            if said.status_code != 429:
                break
            self.clock.sleep(_retry_after(said))
        if said.status_code == 404 and missing:
            return said
        if said.is_error:
            raise WorldError(
                f"deSEC answers {said.status_code} to {method} {path}: {_desec_mend(said)}",
                retry=said.status_code in (429, 500, 502, 503, 504),
            )
        return said


def _retry_after(said: httpx.Response) -> float:
    given = said.headers.get("retry-after", "")
    return float(given) if given.isdigit() else 60.0


def _desec_mend(said: httpx.Response) -> str:
    mends = {
        401: "its token is wrong or has expired",
        403: "the token lacks a right, or the account's number of zones is reached: write to deSEC",
        409: "somebody else has this zone there",
        429: "too many changes for today",
    }
    return mends.get(said.status_code) or f"it says {said.text[:200]!r}"


def _subname(name: str) -> str:
    return "" if name == "@" else name


def _desec(rrset: Rrset) -> dict[str, Any]:
    return {"subname": _subname(rrset.name), "type": rrset.type, "ttl": rrset.ttl, "records": list(rrset.values)}


END_MARKER = ";;; END ALTERNC AUTOGENERATE CONFIGURATION"
"""AlternC rewrites a zone file above this line and keeps what is below it."""
_PANEL_TYPES = {"A": "ip", "AAAA": "ipv6", "CNAME": "cname", "TXT": "txt"}
_PANEL_NAME, _PANEL_VALUE = 64, 1024  # characters that the panel's tables have room for


@dataclass(frozen=True)
class PanelZone:
    """A zone as AlternC holds it: rows (sub, type, value) that members see, and the zone file's own lines below them.

    `ttl` is the TTL of all rows (`zonettl`), seconds.
    """

    name: str
    ttl: int
    rows: tuple[tuple[str, str, str], ...]
    below: str


def panel_zone(zone: Zone) -> PanelZone:
    """Divide a zone: what the panel can say exactly becomes rows, all else stands below the END marker.

    An rrset is never divided. The panel gives all its rows one TTL and fixed MX priorities, so other TTLs and every MX
    go below. RefusedError when the zone's name does not fit in the panel's table.
    """
    if len(zone.name) > _PANEL_NAME:
        raise RefusedError(f"AlternC has no room for a name of {len(zone.name)} characters: {zone.name}")
    inner = [rrset for rrset in zone.rrsets.values() if rrset.key not in _APEX]
    ttls = Counter(rrset.ttl for rrset in inner if rrset.type in _PANEL_TYPES)
    ttl = min(ttls, key=lambda one: (-ttls[one], one)) if ttls else 3600
    rows: list[tuple[str, str, str]] = []
    below: list[str] = []
    for rrset in sorted(inner):
        values = [_panel_value(rrset.type, value) for value in rrset.values]
        if rrset.type in _PANEL_TYPES and rrset.ttl == ttl and None not in values:
            sub = "" if rrset.name == "@" else rrset.name
            rows += [(sub, _PANEL_TYPES[rrset.type], value) for value in values if value is not None]
        else:
            below += [f"{rrset.name} {rrset.ttl} IN {rrset.type} {value}" for value in rrset.values]
    return PanelZone(zone.name, ttl, tuple(rows), "".join(f"{line}\n" for line in below))


def _panel_value(kind: str, value: str) -> str | None:
    """Return a value as the panel's row holds it, None when it cannot: a text of several strings or with quotes."""
    if kind != "TXT":
        return value if len(value) <= _PANEL_VALUE else None
    inner = value[1:-1]
    plain = value.startswith('"') and value.endswith('"') and not set(inner) & {'"', "\\", "\n"}
    return inner if plain and len(inner) <= 255 else None


@dataclass
class AlternC:
    """The panel's stand-in: writes what the panel's rows and its zone file's own lines would be into a folder.

    `nameservers` are those of the panel's servers.
    """

    folder: Path
    nameservers: tuple[str, ...]
    minimum_ttl: int = 300
    name: str = "AlternC"

    def provision(self, zone: Zone) -> None:
        """Write `NAME.rows.json` and `NAME.zone`, whose lines stand below the END marker."""
        _fits(zone, self.name, self.minimum_ttl)
        divided = panel_zone(zone)
        rows = [{"sub": sub, "type": kind, "valeur": value} for sub, kind, value in divided.rows]
        self.folder.mkdir(parents=True, exist_ok=True)
        held = {"domaine": zone.name, "zonettl": divided.ttl, "sub_domaines": rows}
        _write(self.folder / f"{zone.name}.rows.json", json.dumps(held, indent=2, ensure_ascii=False) + "\n")
        _write(self.folder / f"{zone.name}.zone", f"{END_MARKER}\n{divided.below}")

    def remove(self, name: str) -> None:
        """Take both files away."""
        for suffix in ("rows.json", "zone"):
            (self.folder / f"{name}.{suffix}").unlink(missing_ok=True)


@dataclass
class ByHand:
    """A host without an API: a volunteer copies the zone there, and the DNS shows when it is done.

    The zone file is written to `folder` for the volunteer.
    """

    folder: Path
    nameservers: tuple[str, ...]
    host: str
    mailbox: str
    minimum_ttl: int = 300
    now: Callable[[], datetime] = _utc
    name: str = "by hand"

    def provision(self, zone: Zone) -> None:
        """Write the zone file and raise ByHandError with what to do with it."""
        _fits(zone, self.host, self.minimum_ttl)
        files = ZoneFiles(
            self.folder, self.nameservers, self.mailbox, lambda: None, self.minimum_ttl, now=self.now, name=self.host
        )
        files.provision(zone)
        raise ByHandError(
            "volunteer",
            f"Chez {self.host}, créez la zone {zone.name} et collez-y le contenu du fichier {zone.name}.zone "
            f"({len(zone.rrsets)} jeux d'enregistrements), sans rien y ajouter. Ensuite, relancez la commande : "
            "elle compare chaque réponse des serveurs.",
        )

    def remove(self, name: str) -> None:
        """Raise ByHandError: only a human can take the zone away there."""
        raise ByHandError("volunteer", f"Chez {self.host}, supprimez la zone {name}.")
