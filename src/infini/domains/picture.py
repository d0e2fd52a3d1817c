# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of the board and of a proof for the handbook, made of rehearsals: `python -m infini.domains.picture`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from infini import ROOT
from infini.domains import board
from infini.domains.archetypes import load
from infini.domains.rehearsal import Rehearsal
from infini.domains.rehearse import Fleet, keep_board
from infini.domains.report import Proof
from infini.domains.simulator.clock import START
from infini.verify.picture import take

PICTURES = ROOT / "docs" / "_static"
FLEET = ("signed", "webredirs", "mail_only", "level_c", "alias", "expires_soon", "transfer_refused", "idn")
PROVEN = "caa_other"


def pages() -> dict[str, str]:
    """Return the pages to show by the name of their picture: a fleet half way, and the proof of a move that is over."""
    with tempfile.TemporaryDirectory() as folder:
        half_way = _rehearsed(FLEET, Path(folder, "fleet"), timedelta(days=3))
        keep_board(half_way)
        fleet = board.read(half_way.store, half_way.clock.now()).html()
        over = _rehearsed((PROVEN,), Path(folder, "one"))
        (name,) = over.cast
        return {"domaines": fleet, "preuve": Proof.of(over.move(name)).html()}


def _rehearsed(names: Sequence[str], folder: Path, until: timedelta | None = None) -> Rehearsal:
    made = Rehearsal([load(name) for name in names], folder)
    Fleet(made).run(START + until if until else None)
    return made


def main() -> None:
    """Renew the handbook's pictures."""
    for name, page in pages().items():
        take(page, PICTURES / f"{name}.png", whole=True)


if __name__ == "__main__":
    main()
