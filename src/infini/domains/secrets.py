# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens and auth codes: where they come from, where they are kept, and how they stay out of everything else."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import yaml

from infini.errors import RefusedError, UnreachableError
from infini.hosts import Connection
from infini.phrase import Phrase

if TYPE_CHECKING:
    from ansible.parsing.vault import VaultLib

MASK = "***"
VAULT_MEND = Phrase("export ANSIBLE_VAULT_PASSWORD_FILE=FILE (a file of mode 0600), then run the command again")
_SHORTEST = 4
"""A shorter value would mask innocent text; no registrar makes such codes."""

_known: set[str] = set()
_FIELDS = "authinfo|auth_?code|auth_?info|authid|access_token|secret|password|token"
_SHAPES = (
    (re.compile(r"(?i)\b(bearer|apikey|basic)\s+[^\s\"',;]+"), rf"\1 {MASK}"),
    (re.compile(rf"(?i)([\"'](?:{_FIELDS})[\"']\s*:\s*)(\"(?:[^\"\\]|\\.)*\"|'[^']*')"), rf'\1"{MASK}"'),
    (re.compile(rf"(?i)\b((?:{_FIELDS})=)[^\s&,;]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)(\"AUTH_INFO\"\s*,\s*\"value\"\s*:\s*)\"(?:[^\"\\]|\\.)*\""), rf'\1"{MASK}"'),
)


class Secret(str):
    """A text that shows itself only to `reveal`: printed, formatted or logged it is `***`.

    It is still a str, for doors that take one: `==`, `+` and JSON use its real value. `redact` knows it from then on.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Secret:
        """Make one; a Secret stays what it is."""
        plain = str.__str__(value)
        if len(plain) >= _SHORTEST:
            _known.add(plain)
        return super().__new__(cls, plain)

    def __repr__(self) -> str:
        """Return the mask."""
        return MASK

    def __str__(self) -> str:
        """Return the mask."""
        return MASK

    def __format__(self, spec: str) -> str:
        """Return the mask, formatted."""
        return format(MASK, spec)

    def reveal(self) -> str:
        """Return the value as plain text; keep it no longer than one call."""
        return str.__str__(self)


def reveal(value: str) -> str:
    """Return the plain text of a value that may be a Secret, and have `redact` know it."""
    return Secret(value).reveal()


def fingerprint(value: str) -> str:
    """Return what evidence may hold of a secret: the first 12 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(reveal(value).encode()).hexdigest()[:12]


def redact(text: str) -> str:
    """Return a text without the secrets that this process has met, and without what looks like one."""
    for value in sorted(_known, key=len, reverse=True):
        for shown in {value, json.dumps(value)[1:-1], quote(value, safe="")}:
            text = text.replace(shown, MASK)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def from_terminal(what: str) -> Callable[[], str]:
    """Return a source that asks at the terminal, once, without echo. `what` names the secret: “Gandi's token”."""
    kept: list[Secret] = []

    def ask() -> str:
        if not kept:
            if not sys.stdin.isatty():
                raise RefusedError(
                    Phrase(
                        "{what} is typed at a terminal or read from the vault, and there is no terminal here: "
                        "run the command in one",
                        what=what,
                    )
                )
            typed = getpass.getpass(f"{what}: ").strip()
            if not typed:
                raise RefusedError(Phrase("{what} is empty: copy it again from where it was made", what=what))
            kept.append(Secret(typed))
        return kept[0]

    return ask


def from_vault(path: Path, key: str) -> Callable[[], str]:
    """Return a source that reads one variable of a file encrypted with ansible-vault, once, when it is first needed."""
    kept: list[Secret] = []

    def read() -> str:
        if not kept:
            kept.append(Secret(_variable(path, key)))
        return kept[0]

    return read


def _variable(path: Path, key: str) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RefusedError(
            f"The vault {path.name} cannot be read ({error.strerror}): make it with ansible-vault"
        ) from None
    if not raw.startswith(b"$ANSIBLE_VAULT"):
        raise RefusedError(f"{path.name} holds secrets and is not encrypted: ansible-vault encrypt {path.name}")
    # The text of a YAML error quotes the lines it stumbled over: it is dropped with the secrets in them.
    try:
        variables = yaml.safe_load(_decrypted(raw, path.name))
    except yaml.YAMLError:
        raise RefusedError(f"The vault {path.name} is no YAML: ansible-vault edit {path.name}") from None
    value = variables.get(key) if isinstance(variables, Mapping) else None
    if not isinstance(value, str) or not value:
        raise RefusedError(f"The vault {path.name} has no {key}: ansible-vault edit {path.name}")
    return value


def _decrypted(raw: bytes, where: str) -> str:
    from ansible.errors import AnsibleError

    try:
        text: bytes = _vault().decrypt(raw)
    except AnsibleError:
        raise RefusedError(
            Phrase("{where} does not open with this vault password: {mend}", where=where, mend=VAULT_MEND)
        ) from None
    return bytes(text).decode()


def _vault() -> VaultLib:
    """Return Ansible's vault with the password that Ansible's own commands would take."""
    # Imported late: Ansible reads its configuration when it is imported, and takes half a second.
    from ansible.errors import AnsibleError
    from ansible.parsing.dataloader import DataLoader
    from ansible.parsing.vault import VaultLib, get_file_vault_secret

    path = os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE")
    if not path:
        raise RefusedError(
            Phrase("No vault password is given, secrets can neither be read nor kept: {mend}", mend=VAULT_MEND)
        )
    try:
        secret = get_file_vault_secret(filename=path, loader=DataLoader())
        secret.load()
    except AnsibleError:
        raise RefusedError(Phrase("The vault password file cannot be read: {mend}", mend=VAULT_MEND)) from None
    return VaultLib([("default", secret)])


class Folder(Protocol):
    """Where encrypted files are kept."""

    def write(self, name: str, data: bytes) -> None:
        """Keep a file, whole or not at all, readable by its owner only."""

    def read(self, name: str) -> bytes | None:
        """Return a file, None when there is none."""

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, data: bytes) -> None:
        """Keep a file, whole or not at all, mode 0600."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.path / f".{name}.{os.getpid()}"
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / name)

    def read(self, name: str) -> bytes | None:
        """Return a file, None when there is none."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        (self.path / name).unlink(missing_ok=True)


_REMOTE = {
    "write": 'umask 077; mkdir -p "$1" && cat >"$1/.$2.$$" && mv "$1/.$2.$$" "$1/$2"',
    "read": 'if [ -e "$1/$2" ]; then exec cat "$1/$2"; else exit 44; fi',
    "remove": 'rm -f "$1/$2"',
}
_NO_SUCH_FILE = 44


class SshFolder:
    """A folder of the control host. Only encrypted data travels, and only through standard input and output."""

    def __init__(self, connection: Connection, path: str) -> None:
        self.connection, self.path = connection, path

    def write(self, name: str, data: bytes) -> None:
        """Keep a file, whole or not at all, readable by its owner only."""
        self._run("write", name, data)

    def read(self, name: str) -> bytes | None:
        """Return a file, None when there is none."""
        return self._run("read", name)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        self._run("remove", name)

    def _run(self, what: str, name: str, data: bytes = b"") -> bytes | None:
        become = "sudo -n " if self.connection.become else ""
        remote = f"{become}sh -c {shlex.quote(_REMOTE[what])} {what} {shlex.quote(self.path)} {shlex.quote(name)}"
        done = subprocess.run(
            [*self.connection.ssh("-o", "BatchMode=yes"), remote], input=data, capture_output=True, check=False
        )
        if what == "read" and done.returncode == _NO_SUCH_FILE:
            return None
        if done.returncode:
            said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no answer"])[-1]
            raise UnreachableError(f"The folder of auth codes on {self.connection.host} cannot be used: {said}")
        return done.stdout


@dataclass(frozen=True)
class AuthCode:
    """An auth code as it is kept; `expires` is None where nobody said."""

    code: Secret
    expires: datetime | None = None


class AuthCodes:
    """The auth codes of domains on their way, each in a file encrypted with ansible-vault."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def put(self, domain: str, code: str, expires: datetime | None = None) -> None:
        """Keep a domain's code; a former one is replaced."""
        kept = {"domain": domain, "code": reveal(code), "expires": expires.isoformat() if expires else None}
        self._folder.write(_file_name(domain), bytes(_vault().encrypt(json.dumps(kept))))

    def get(self, domain: str) -> AuthCode | None:
        """Return a domain's code, None when none is kept."""
        raw = self._folder.read(_file_name(domain))
        if raw is None:
            return None
        kept: dict[str, Any] = json.loads(_decrypted(raw, f"The auth code of {domain}"))
        expires = datetime.fromisoformat(kept["expires"]) if kept["expires"] else None
        return AuthCode(Secret(kept["code"]), expires)

    def forget(self, domain: str) -> None:
        """Remove a domain's code."""
        self._folder.remove(_file_name(domain))


def _file_name(domain: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", domain):
        raise RefusedError(f"“{domain}” is no domain name in its ASCII form")
    return f"{domain}.authcode"
