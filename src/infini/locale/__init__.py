# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Message catalogues: kept as .po, compiled in memory when they are needed."""

from __future__ import annotations

import gettext
from functools import cache
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

DIRECTORY = Path(__file__).parent


def read(language: str) -> Catalog:
    """Read a language's catalogue."""
    with (DIRECTORY / language / "LC_MESSAGES" / "infini.po").open("rb") as source:
        return read_po(source, locale=language)


def phrases(language: str) -> dict[str, list[str]]:
    """Give a catalogue as plain data: what is said for one, and for many where that differs."""
    found: dict[str, list[str]] = {}
    for message in read(language):
        if isinstance(message.string, str):
            found[str(message.id)] = [message.string]
        else:
            found[str(message.id[0])] = [str(form) for form in message.string or ()]
    found.pop("", None)  # the catalogue's own header
    return found


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """Give the translations of a language; English is the code's own."""
    if language == "en":
        return gettext.NullTranslations()
    target = BytesIO()
    write_mo(target, read(language))
    target.seek(0)
    return gettext.GNUTranslations(target)
