# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our Ansible modules share: the world as plain data, failures as sentences, zones from the operator's files."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dns.resolver

from infini.domains import reading, secrets
from infini.domains.move import Step
from infini.domains.observed import Export
from infini.domains.ports import ByHandError, WorldError
from infini.domains.zone import Zone
from infini.errors import InfiniError, RefusedError


class WallClock:
    """The time of this machine (`ports.Clock`)."""

    def now(self) -> datetime:
        """Return the time, UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def token(vault: Path, variable: str) -> Callable[[], str]:
    """Return a source of a secret that is read from a vault once, in a process of its own.

    A module cannot do it itself: the Ansible that it carries along hides the one that knows vaults.
    """
    kept: list[secrets.Secret] = []

    def read() -> str:
        if not kept:
            done = subprocess.run(
                [sys.executable, "-I", "-m", __name__, str(vault), variable],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RefusedError(done.stderr.strip().rpartition("\n")[2] or f"The vault {vault.name} cannot be read")
            kept.append(secrets.Secret(done.stdout))
        return kept[0]

    return read


@contextmanager
def sentences(fail: Callable[..., Any]) -> Iterator[None]:
    """Hand what went wrong to a module's `fail_json` as one sentence, and whether trying again may help."""
    try:
        yield
    except WorldError as error:
        fail(msg=error.says, retry=error.retry)
    except ByHandError as error:
        fail(msg=str(error), who=error.who)
    except InfiniError as error:
        fail(msg=str(error))


def plain(value: Any) -> Any:
    """Return what a reader gave as data for JSON: dataclasses are mappings, sets sorted lists, times in ISO 8601."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime) else value


def export_text(export: Export) -> str:
    """Return an export as the text of a JSON file: the same data gives the same text.

    The moment is left out, and Gandi's zone file too, whose serial is another each time.
    """
    found = {key: value for key, value in plain(export).items() if key not in ("at", "text")}
    return json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def zone_file(name: str, path: Path) -> tuple[Zone, str]:
    """Read a zone from a file: an export of ours (`.json`) or zone-file text; return it with the export's hash."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise RefusedError(f"The zone {name} cannot be read from {path}: {reason}") from None
    if path.suffix != ".json":
        return reading.from_text(name, text), ""
    try:
        data = json.loads(text)
        records, sha256 = data["records"], str(data["sha256"])
    except (ValueError, TypeError, KeyError):
        raise RefusedError(f"{path} is no export of ours: make it with gandi_zone_export") from None
    return reading.from_livedns(name, records), sha256


def resolvers(given: Sequence[str]) -> list[str]:
    """Return the resolvers to ask: those given, else this machine's."""
    if given:
        return list(given)
    try:
        return [str(address) for address in dns.resolver.Resolver().nameservers]
    except dns.resolver.NoResolverConfiguration:
        raise RefusedError("This machine knows no resolver: name some in the option resolvers") from None


def told(step: Step) -> dict[str, Any]:
    """Return what one step of a move found and did, as the data that `infini domains advance --json` lists.

    `action` is what comes next and may be done, empty while something forbids it or somebody else must act.
    """
    verdict = step.verdict
    return {
        "domain": step.domain,
        "state": str(verdict.state),
        "side": str(verdict.side or ""),
        "acted": step.acted,
        "action": verdict.action if verdict.allowed else "",
        "irreversible": verdict.irreversible,
        "code": verdict.code,
        "who": verdict.who,
        "until": plain(verdict.waiting_until),
        "says": secrets.redact(step.says or verdict.reason),
    }


def advance(inventory: str, names: Sequence[str], until: str = "", *, apply: bool) -> list[dict[str, Any]]:
    """Have `infini domains advance` take each domain as far as it may go, or only look; return what it lists (`told`).

    The command is the only place where a move is put together: who comes this way meets its locks, its pace and its
    interlocks. Raise RefusedError with its sentence when it gives no list.
    """
    words = [*names, "--inventory", inventory, "--json", *(["--until", until] if until else [])]
    command = [sys.executable, "-m", "infini", "domains", "advance", *words, *(["--apply"] if apply else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if isinstance(answer, Mapping) and isinstance(answer.get("steps"), list):
        return list(answer["steps"])
    refusal = answer.get("error") if isinstance(answer, Mapping) else None
    raise RefusedError(
        secrets.redact(
            str(refusal or _last_sentence(done.stderr) or f"infini domains advance ended with status {done.returncode}")
        )
    )


def _last_sentence(text: str) -> str:
    """Return the last line that says something, without the frame that typer draws."""
    lines = [line.strip("│╭╮╰╯─ ") for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")


def main(arguments: Sequence[str]) -> int:
    """Print the secret that the vault (first word) holds under a name (second word), for `token` alone."""
    try:
        sys.stdout.write(secrets.reveal(secrets.from_vault(Path(arguments[0]), arguments[1])()))
    except InfiniError as error:
        sys.stderr.write(f"{error}\n")
        return error.status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
