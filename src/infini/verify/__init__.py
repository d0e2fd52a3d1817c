# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini verify`: a hundred sentences about the platform, seen from outside and from inside."""

from rich.console import Console

from infini.verify.report import Report
from infini.verify.run import verify

__all__ = ["Report", "page", "show", "verify"]


def show(report: Report, console: Console | None = None) -> None:
    """Print a report, on standard error unless told otherwise: standard output may be wanted for JSON."""
    report.print(console or Console(stderr=True))


def page(report: Report) -> str:
    """Write a report as a static HTML page."""
    return report.as_html()
