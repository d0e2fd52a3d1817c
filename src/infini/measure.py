# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench NAME`: run tests/bench/NAME.py, whose `run()` returns measures and ratios of one run."""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from infini import ROOT
from infini.errors import RefusedError

BENCHES = ROOT / "tests/bench"


def names() -> list[str]:
    """Return the names of the benches."""
    return sorted(path.stem for path in BENCHES.glob("[a-z]*.py"))


def numbers(words: Sequence[str]) -> dict[str, int]:
    """Read `--sites 100` as the number that a bench takes under that name."""
    pairs = list(zip_longest(words[::2], words[1::2], fillvalue=""))
    for name, value in pairs:
        if not name.startswith("--") or not value.isdecimal():
            raise RefusedError(f"“{name} {value}” is no number of a bench: write it as --sites 100")
    return {name.removeprefix("--").replace("-", "_"): int(value) for name, value in pairs}


def run(name: str, wanted: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Run a bench, with other numbers than its own where `wanted`; return the JSON object of `infini bench`."""
    if name not in names():
        raise RefusedError(f"There is no bench “{name}”: name one of {', '.join(names())}")
    function = runpy.run_path(str(BENCHES / f"{name}.py"))["run"]
    known = [key for key, value in inspect.signature(function).parameters.items() if type(value.default) is int]
    if unknown := set(wanted or {}) - set(known):
        offer = ", ".join(f"--{key.replace('_', '-')}" for key in known) or "no number"
        raise RefusedError(f"The bench “{name}” has no number “{min(unknown)}”: it takes {offer}")
    answer: dict[str, Any] = function(**(wanted or {}))
    return answer
