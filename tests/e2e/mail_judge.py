# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a strict receiver says of a message: SPF, DKIM, DMARC and ARC, by libraries that are not ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from unittest import mock

from authres import AuthenticationResultsHeader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # escapes in its text, of which Python warns when it first compiles it
    import authheaders
    import spf

Records = Callable[[str, str], Sequence[str]]
"""What the DNS says: name and type -> values."""


def text(records: Records, name: str) -> str:
    """Return the TXT record of a name, empty where it has none."""
    return next(iter(records(name.rstrip("."), "TXT")), "")


def dkim_text(records: Records) -> Callable[..., bytes]:
    """Return the DNS as dkimpy asks it."""
    return lambda name, **_more: text(records, name.decode()).encode()


def verdicts(content: bytes, client: str, sender: str, helo: str, records: Records) -> dict[str, str]:
    """Return each method's result for a message that came from an address, under a name, with an envelope's sender."""

    def lookup(name: str, kind: str, *_more: object) -> list[tuple[tuple[str, str], object]]:
        shapes = {
            "TXT": lambda value: (value.encode(),),
            "MX": lambda value: (int(value.split()[0]), value.split()[1].rstrip(".")),
        }
        values = records(name.rstrip("."), kind)
        return [((name, kind), shapes.get(kind, str)(value)) for value in values]

    def answer(name: str | bytes, **_more: object) -> str | bytes:
        return dkim_text(records)(name) if isinstance(name, bytes) else text(records, name)

    # Its list of suffixes has no .test, which it takes for one domain.
    owner = mock.patch.object(authheaders, "get_org_domain", lambda name: ".".join(name.split(".")[-2:]))
    with mock.patch.object(spf, "DNSLookup", lookup), owner:
        said = authheaders.authenticate_message(
            content,
            "judge.test",
            spf=True,
            arc=True,
            ip=client,
            mail_from=sender,
            helo=helo,
            dnsfunc=answer,
        )
    return {one.method: one.result for one in AuthenticationResultsHeader.parse(said).results}
