# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""How we call any service over HTTP: in turn, again where that is safe, and never with a secret in what is said."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from infini.domains.ports import Clock, WorldError
from infini.domains.secrets import redact
from infini.phrase import Phrase

TRIES = 6
LONGEST_WAIT = 600.0
"""Seconds: who is told to come back later than this stops instead of sleeping."""
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_AGENT = "infini-domains/1 (+https://infini.fr)"


class CallError(WorldError):
    """A service did not do what was asked of it over HTTP.

    `status` is its HTTP status (0: no answer); `code` is the blocking code of the audit where one fits, else empty.
    """

    def __init__(
        self, says: str, *, status: int = 0, code: str = "", retry: bool = False, landed: bool | None = False
    ) -> None:
        """`landed` is None when the change may have been made although the answer was lost."""
        super().__init__(redact(says), retry=retry, landed=landed)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Answer:
    """A good answer (2xx): `data` is its JSON (None without a body), `text` its body where text was asked for."""

    status: int
    headers: Mapping[str, str]
    data: Any = None
    text: str = ""


def no_headers(_method: str, _url: str, _body: str) -> Mapping[str, str]:
    """Return nothing: the service wants no proof of who calls."""
    return {}


class _Turns:
    """When the next call to one service may leave."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free_at: datetime | None = None

    def wait(self, clock: Clock, interval: timedelta) -> None:
        """Wait until it is our turn, and take it."""
        with self.lock:
            now = clock.now()
            if self.free_at is not None and self.free_at > now:
                # Never longer than one turn: a clock that was set back must not stop us for hours.
                clock.sleep(min(self.free_at - now, interval).total_seconds())
                now = clock.now()
            self.free_at = now + interval


# Services count by address of the caller, not by token: all callers of one service share its turns.
_turns: WeakKeyDictionary[Clock, dict[str, _Turns]] = WeakKeyDictionary()
_turns_lock = threading.Lock()


def _turns_of(clock: Clock, base_url: str) -> _Turns:
    with _turns_lock:
        return _turns.setdefault(clock, {}).setdefault(base_url, _Turns())


class Caller:
    """Calls one service: not too fast, patient where nothing can have happened twice, one sentence when it fails.

    Reads are tried again after lost answers and failures of the server. Changes are tried again only where the service
    said that it did nothing (429) or was never reached; a change whose answer is lost raises with `landed=None`.
    `proof` makes the headers that say who calls, of the method, the whole address and the body.
    """

    def __init__(
        self,
        service: str,
        base_url: str,
        clock: Clock,
        *,
        requests_per_second: float = 5,
        proof: Callable[[str, str, str], Mapping[str, str]] = no_headers,
        forbidden: str = "it has expired or lacks a right",
        transport: httpx.BaseTransport | None = None,
        follow_redirects: bool = False,
    ) -> None:
        self.service, self.base_url = service, base_url.rstrip("/")
        self._clock, self._proof, self._forbidden = clock, proof, forbidden
        self._interval = timedelta(seconds=1 / requests_per_second)
        self._turns = _turns_of(clock, self.base_url)
        self._jitter = random.Random(service)  # noqa: S311  spreads waits, guards nothing
        # The environment's proxies and .netrc are not asked: a token goes to its service only.
        self._http = httpx.Client(
            transport=transport,
            timeout=_TIMEOUT,
            trust_env=False,
            follow_redirects=follow_redirects,
            headers={"User-Agent": _AGENT},
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read(self, path: str, params: Mapping[str, str] | None = None, accept: str = "application/json") -> Answer:
        """GET something; raise CallError when it cannot be had."""
        return self._until_done("GET", path, params, None, accept)

    def change(self, method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None) -> Answer:
        """Ask for a change; raise CallError when it was refused or its answer is lost (`landed=None`)."""
        return self._until_done(method, path, params, body, "application/json")

    def _until_done(self, method: str, path: str, params: Mapping[str, str] | None, body: Any, accept: str) -> Answer:
        url = httpx.URL(path if path.startswith("http") else f"{self.base_url}{path}", params=params or None)
        content = "" if body is None else json.dumps(body)
        for attempt in range(1, TRIES + 1):
            try:
                return self._once(method, url, content, accept)
            except _AgainError as again:
                if attempt == TRIES or again.wait > LONGEST_WAIT:
                    raise again.error from None
                self._clock.sleep(again.wait or min(60.0, 2.0 ** (attempt - 1)) * (1 + self._jitter.random() / 2))
        raise AssertionError("unreachable")  # pragma: no cover

    def _once(self, method: str, url: httpx.URL, content: str, accept: str) -> Answer:
        # The proof first: it may need a call of its own.
        headers = {"Accept": accept, **self._proof(method, str(url), content)}
        self._turns.wait(self._clock, self._interval)
        if content:
            headers["Content-Type"] = "application/json"
        try:
            response = self._http.request(method, url, headers=headers, content=content or None)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _AgainError(self._silent(method, url, error, landed=False)) from None
        except httpx.TransportError as error:
            if method != "GET":
                raise self._silent(method, url, error, landed=None) from None
            raise _AgainError(self._silent(method, url, error, landed=False)) from None
        if response.is_success:
            return self._answer(method, url, response, accept)
        raise self._refusal(method, url, response)

    def _silent(self, method: str, url: httpx.URL, error: Exception, *, landed: bool | None) -> CallError:
        told = {"service": self.service, "asked": f"{method} {url.path}", "error": type(error).__name__}
        return CallError(
            Phrase("{service} gave no answer to {asked} ({error})", **told)
            if landed is False
            else Phrase(
                "{service} gave no answer to {asked} ({error}), the change may have been made all the same: "
                "read before repeating",
                **told,
            ),
            retry=True,
            landed=landed,
        )

    def _answer(self, method: str, url: httpx.URL, response: httpx.Response, accept: str) -> Answer:
        headers = {name.lower(): value for name, value in response.headers.items()}
        if not accept.endswith("json"):
            return Answer(response.status_code, headers, text=response.text)
        if not response.content.strip():
            return Answer(response.status_code, headers)
        try:
            return Answer(response.status_code, headers, data=response.json())
        except ValueError:
            lost = CallError(
                Phrase(
                    "{service} answered {asked} with something that is no JSON",
                    service=self.service,
                    asked=f"{method} {url.path}",
                ),
                status=response.status_code,
                retry=True,
                landed=False if method == "GET" else None,
            )
            raise (_AgainError(lost) if method == "GET" else lost) from None

    def _refusal(self, method: str, url: httpx.URL, response: httpx.Response) -> Exception:
        status = response.status_code
        said = explanation(response)
        told = {"service": self.service, "asked": f"{method} {url.path}", "answer": f"{status}{said}"}
        if status == httpx.codes.TOO_MANY_REQUESTS:
            slow = Phrase("{service} asks us to slow down ({asked}): try again later", **told)
            error = CallError(slow, status=429, retry=True)
            return _AgainError(error, self._retry_after(response))
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            landed = False if method == "GET" else None
            error = CallError(
                Phrase("{service} failed on {asked} ({answer}): try again later", **told),
                status=status,
                retry=True,
                landed=landed,
            )
            return error if landed is None else _AgainError(error)
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return CallError(
                Phrase("{service} refuses our token for {asked} ({answer}): {mend}", mend=self._forbidden, **told),
                status=status,
                code="token-expired" if status == httpx.codes.UNAUTHORIZED or "expir" in said.lower() else "",
            )
        return CallError(Phrase("{service} refuses {asked} ({answer})", **told), status=status)

    def _retry_after(self, response: httpx.Response) -> float:
        """Return the wait that the service names, in seconds; 0 when it names none."""
        named = response.headers.get("Retry-After", "").strip()
        if named.isdigit():
            return float(named)
        try:
            return max(0.0, (parsedate_to_datetime(named) - self._clock.now()).total_seconds())
        except (TypeError, ValueError):
            return 0.0


class _AgainError(Exception):
    """The same call may be made again: nothing can have happened. `wait` in seconds, 0 leaves it to us."""

    def __init__(self, error: CallError, wait: float = 0.0) -> None:
        super().__init__()
        self.error, self.wait = error, wait


def explanation(response: httpx.Response) -> str:
    """Return what a refusal says for itself, as `: text`; empty when it says nothing readable."""
    try:
        body = response.json()
    except ValueError:
        return ""
    if not isinstance(body, Mapping):
        return ""
    errors = body.get("errors")
    if isinstance(errors, list):
        told = "; ".join(
            f"{error.get('name', '')}: {error.get('description', '')}" for error in errors if isinstance(error, Mapping)
        )
    else:
        # Netim puts what it says one level deeper.
        inner = body["error"] if isinstance(body.get("error"), Mapping) else body
        told = str(inner.get("message") or inner.get("title") or "")
    told = redact(" ".join(told.split()))[:300]
    return f": {told}" if told else ""


def moment(text: object) -> datetime | None:
    """Return a time that a service wrote (ISO 8601; without a zone it is UTC), None when it is no time."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def host_names(names: Any) -> tuple[str, ...]:
    """Return host names in the house form (lower case, without final dot), in their order, each once."""
    return tuple(dict.fromkeys(str(name).rstrip(".").lower() for name in names or ()))
