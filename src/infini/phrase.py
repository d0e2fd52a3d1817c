# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences that are written in English and said in the language of those who read them."""

from __future__ import annotations

from typing import Any


class Phrase(str):
    """An English sentence that remembers what it was made of: as a str it is the English, `said` translates it.

    Errors carry it as their message, so that programs and tests read English and the command says French.
    """

    __slots__ = ("msgid", "values")
    msgid: str
    values: dict[str, Any]

    def __new__(cls, msgid: str, /, **values: Any) -> Phrase:
        """Fill the `{names}` of a msgid of the catalogue."""
        made = super().__new__(cls, msgid.format(**values))
        made.msgid, made.values = msgid, values
        return made


def said(text: object, language: str = "fr") -> str:
    """Return a sentence in a language; a text that is no Phrase is said as it stands."""
    if not isinstance(text, Phrase):
        return str(text)
    from infini.locale import catalogue

    values = {
        name: said(value, language) if isinstance(value, Phrase) else value for name, value in text.values.items()
    }
    return catalogue(language).gettext(text.msgid).format(**values)
