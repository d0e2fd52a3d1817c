# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets come in one way, and show themselves nowhere."""

from __future__ import annotations

import json
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from infini.domains import secrets
from infini.domains.secrets import (
    AuthCodes,
    LocalFolder,
    Secret,
    SshFolder,
    fingerprint,
    from_terminal,
    from_vault,
    redact,
)
from infini.errors import RefusedError, UnreachableError
from infini.hosts import Connection

CODE = "Zx9-quite-a-code"


def test_a_secret_shows_itself_only_when_asked() -> None:
    code = Secret(CODE)
    assert [f"{code}", str(code), repr(code), f"{code:>5}", "%s" % code] == ["***", "***", "***", "  ***", "***"]  # noqa: UP031  the way logging formats
    assert CODE not in repr({"code": code, "list": [code]})
    assert code.reveal() == CODE
    assert Secret(code).reveal() == CODE, "wrapping twice does not lose it"
    assert json.dumps({"code": code}) == f'{{"code": "{CODE}"}}', "a body sent to a registrar holds the real one"


def test_redact_knows_every_secret_met() -> None:
    value = 'a"b&c é-secret'
    Secret(value)
    text = f"plain {value}, in JSON {json.dumps(value)}, in an address ?x=a%22b%26c%20%C3%A9-secret end"
    hidden = redact(text)
    assert "secret" not in hidden
    assert hidden.startswith("plain ***, in JSON")
    assert hidden.endswith(" end")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer never-met-1",
        '{"authinfo": "never-met-1"}',
        '{"authID":"never-met-1","x":1}',
        '{"label": "AUTH_INFO", "value": "never-met-1"}',
        "{'auth_code': 'never-met-1'}",
        "https://x.example/?access_token=never-met-1&y=2",
    ],
)
def test_redact_masks_what_looks_like_a_secret(text: str) -> None:
    assert "never-met-1" not in redact(text)


def test_redact_leaves_the_rest() -> None:
    text = "Gandi refuses our token for GET /v5/domain/domains (403): make a new token, of the right organisation"
    assert redact(text) == text


def test_fingerprints_tell_codes_apart() -> None:
    assert fingerprint(CODE) == fingerprint(Secret(CODE))
    assert fingerprint(CODE) != fingerprint("another")
    assert len(fingerprint(CODE)) == 12


class Terminal:
    """A standard input that is a terminal, or not."""

    def __init__(self, there: bool) -> None:
        self.there = there

    def isatty(self) -> bool:
        return self.there


def test_a_token_is_typed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter([" the-token ", "never asked"])
    monkeypatch.setattr("sys.stdin", Terminal(True))
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(typed))
    token = from_terminal("Gandi's token")
    assert [token(), token()] == ["the-token", "the-token"]
    assert repr(token()) == "***"


def test_nothing_is_typed_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(False))
    with pytest.raises(RefusedError, match="there is no terminal here"):
        from_terminal("Gandi's token")()


def test_an_empty_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(True))
    monkeypatch.setattr("getpass.getpass", lambda _prompt: "  ")
    with pytest.raises(RefusedError, match="is empty"):
        from_terminal("Gandi's token")()


@pytest.fixture
def password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "vault-password"
    path.write_text("open sesame\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(path))
    return "open sesame"


def encrypted(text: str, password: str) -> bytes:
    return bytes(VaultLib([("default", VaultSecret(password.encode()))]).encrypt(text))


def test_a_token_from_the_vault(tmp_path: Path, password: str) -> None:
    path = tmp_path / "vault.yml"
    path.write_bytes(encrypted("vault_gandi_token: from-the-vault\n", password))
    token = from_vault(path, "vault_gandi_token")
    assert token() == "from-the-vault"
    assert repr(token()) == "***"
    path.unlink()
    assert token() == "from-the-vault", "read once"


@pytest.mark.parametrize(
    ("content", "key", "says"),
    [
        (None, "k", "cannot be read"),
        (b"k: in-the-open", "k", "is not encrypted"),
        ("other: in-the-vault", "k", "has no k"),
        ("k: [in-the-vault", "k", "is no YAML"),
        ("k: 12", "k", "has no k"),
    ],
)
def test_a_vault_that_does_not_do(
    tmp_path: Path, password: str, content: bytes | str | None, key: str, says: str
) -> None:
    path = tmp_path / "vault.yml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else encrypted(content, password))
    with pytest.raises(RefusedError, match=says) as caught:
        from_vault(path, key)()
    assert "in-the-" not in str(caught.value)
    assert caught.value.__cause__ is None, "a cause would be printed with the secrets it quotes"


def test_a_wrong_vault_password(tmp_path: Path, password: str) -> None:
    path = tmp_path / "vault.yml"
    path.write_bytes(encrypted("k: v", password + " no"))
    with pytest.raises(RefusedError, match="does not open with this vault password"):
        from_vault(path, "k")()


def test_no_vault_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    with pytest.raises(RefusedError, match="No vault password is given"):
        AuthCodes(LocalFolder(tmp_path / "codes")).put("asso.example", CODE)
    assert not (tmp_path / "codes").exists()


@pytest.mark.usefixtures("password")
def test_auth_codes_are_kept_encrypted(tmp_path: Path) -> None:
    codes = AuthCodes(LocalFolder(tmp_path / "codes"))
    until = datetime(2026, 5, 1, tzinfo=UTC)
    assert codes.get("asso.example") is None
    codes.put("asso.example", "an older code")
    codes.put("asso.example", Secret(CODE), until)
    kept = codes.get("asso.example")
    assert kept is not None
    assert kept.code.reveal() == CODE
    assert kept.expires == until
    assert CODE not in repr(kept)
    (path,) = (tmp_path / "codes").iterdir()
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT")
    assert CODE.encode() not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    codes.forget("asso.example")
    codes.forget("asso.example")
    assert codes.get("asso.example") is None


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "Capital.example", "a b"])
def test_auth_codes_only_of_domains(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedError, match="no domain name"):
        AuthCodes(LocalFolder(tmp_path)).get(name)


class HereInstead(Connection):
    """A host that is this machine: what would run over SSH runs in a shell here."""

    def ssh(self, *_extra: str) -> list[str]:
        return ["sh", "-c"]


@pytest.mark.usefixtures("password")
def test_auth_codes_on_the_control_host(tmp_path: Path) -> None:
    here = HereInstead("control", "192.0.2.1", "tech", 22, ())
    codes = AuthCodes(SshFolder(here, str(tmp_path / "it's here")))
    assert codes.get("asso.example") is None
    codes.put("asso.example", CODE)
    kept = codes.get("asso.example")
    assert kept is not None
    assert kept.code.reveal() == CODE
    (path,) = (tmp_path / "it's here").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    codes.forget("asso.example")
    assert codes.get("asso.example") is None


@pytest.mark.usefixtures("password")
def test_codes_never_stand_on_a_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = subprocess.run

    def watched(command: list[str], **options: Any) -> object:
        seen.append(command)
        return real(command, **options)

    monkeypatch.setattr(secrets.subprocess, "run", watched)
    AuthCodes(SshFolder(HereInstead("control", "192.0.2.1", "tech", 22, ()), str(tmp_path))).put("asso.example", CODE)
    assert seen
    assert CODE not in str(seen)


def test_a_control_host_that_does_not_answer(tmp_path: Path) -> None:
    class Away(Connection):
        def ssh(self, *_extra: str) -> list[str]:
            return ["sh", "-c", "echo no route to host >&2; exit 255", "sh"]

    with pytest.raises(UnreachableError, match="no route to host"):
        SshFolder(Away("control", "192.0.2.1", "tech", 22, ()), str(tmp_path)).read("x")
