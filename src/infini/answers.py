# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the commands share: their usual options, and how they answer."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, NoReturn

import typer

InventoryOption = Annotated[str, typer.Option("--inventory", "-i", help="A name under inventory/, or a path.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
CheckOption = Annotated[bool, typer.Option("--check", help="Change nothing, say what would change.")]


def end(answer: dict[str, Any], as_json: bool, status: int = 0) -> NoReturn:
    """Print the object where it is asked for and leave with the status."""
    if as_json:
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    raise typer.Exit(status)


def say(text: str) -> None:
    """Say a line on standard error."""
    from infini.runner import console

    console.print(text, markup=False, highlight=False, soft_wrap=True)
