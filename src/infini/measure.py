# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench NAME`: run tests/bench/NAME.py, whose `run()` returns measures and ratios of one run."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from infini import ROOT
from infini.errors import RefusedError

BENCHES = ROOT / "tests/bench"


def names() -> list[str]:
    """Return the names of the benches."""
    return sorted(path.stem for path in BENCHES.glob("[a-z]*.py"))


def run(name: str) -> dict[str, Any]:
    """Run a bench and return the JSON object of `infini bench`."""
    script: Path = BENCHES / f"{name}.py"
    if name not in names():
        raise RefusedError(f"There is no bench “{name}”: name one of {', '.join(names())}")
    answer: dict[str, Any] = runpy.run_path(str(script))["run"]()
    return answer
