# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Message catalogues: kept as .po, compiled in memory when they are needed."""

from __future__ import annotations

import gettext
from functools import cache
from io import BytesIO
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

DIRECTORY = Path(__file__).parent


def compiled(language: str) -> bytes:
    """Compile a language's catalogue to the .mo format."""
    path = DIRECTORY / language / "LC_MESSAGES" / "infini.po"
    target = BytesIO()
    with path.open("rb") as source:
        write_mo(target, read_po(source, locale=language))
    return target.getvalue()


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """Give the translations of a language; English is the code's own."""
    return gettext.NullTranslations() if language == "en" else gettext.GNUTranslations(BytesIO(compiled(language)))
