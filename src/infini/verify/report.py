# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of `infini verify`: as an object, on the terminal, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.text import Text

from hosting.findings import Check, Translations, as_json, bundle, group, page_context, says
from infini.locale import catalogue

TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class Report:
    """All checks of one run."""

    listed: Sequence[Check]
    inventory: str
    seconds: float = 0.0
    language: str = "fr"

    @property
    def checks(self) -> int:
        """How many things were looked at."""
        return len(self.listed)

    @property
    def ok(self) -> bool:
        """Whether every check is fine."""
        return not self.failed

    @property
    def failed(self) -> list[Check]:
        """The checks that found something."""
        return [check for check in self.listed if not check.ok]

    @cached_property
    def translations(self) -> Translations:
        """The catalogue of the report's language."""
        return catalogue(self.language)

    def as_json(self) -> dict[str, Any]:
        """Give the object of `--json`."""
        return {**as_json(self.listed, self.translations), "seconds": round(self.seconds, 1)}

    def as_html(self, when: datetime | None = None) -> str:
        """Give the page of `--html`."""
        shown = (when or datetime.now().astimezone()).strftime("%d/%m/%Y %H:%M")
        return render_page(page_context(self.listed, self.translations, shown), self.translations, self.language)

    def print(self, console: Console, everything: bool = True) -> None:
        """Print the report: groups in order, what failed first, each with its mend."""
        for name, checks in group(self.listed).items():
            bad = sum(not check.ok for check in checks)
            if not everything and not bad:
                continue
            console.print(Text(f"\n{self.translations.gettext(name)}", style="bold"), Text(_tally(len(checks), bad)))
            for bundled, lines in bundle(check for check in checks if not check.ok):
                for check in bundled:
                    _print(console, "  ✗ ", "bold red", says(check, self.translations), "bold")
                for line in lines:
                    _print(console, "      → ", "cyan", line, "cyan")
            for check in [check for check in checks if check.ok and everything]:
                _print(console, "  ✓ ", "green", says(check, self.translations), "")
        console.print(Text(f"\n{self.summary()}", style="bold green" if self.ok else "bold red"))

    def summary(self) -> str:
        """Sum up in one line."""
        values = {"total": self.checks, "bad": len(self.failed), "seconds": round(self.seconds)}
        if self.ok:
            said = self.translations.gettext("All is well: {total} checks, in {seconds} s.")
        else:
            said = self.translations.ngettext(
                "{bad} of {total} checks found something to mend, in {seconds} s.",
                "{bad} of {total} checks found something to mend, in {seconds} s.",
                values["bad"],
            )
        return said.format(**values)


def _tally(total: int, bad: int) -> str:
    return f"{total - bad}/{total}"


def _print(console: Console, mark: str, colour: str, text: str, style: str) -> None:
    console.print(Text(mark, style=colour).append(text, style), soft_wrap=True)


def render_page(context: dict[str, Any], translations: Translations, language: str) -> str:
    """Render the static page; the watch does the same with the same template."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True)
    page = environment.get_template("page.html.jinja")
    return page.render(**context, language=language, _=translations.gettext)
