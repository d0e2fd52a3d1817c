# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of one move on one page (French): what was carried, what was compared, what was probed, when, and by whom.

It claims what was looked at and nothing else, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infini.domains.board import STATES, TEMPLATES, Row, date, moment
from infini.domains.events import Event
from infini.domains.observed import Parity, Tally
from infini.domains.states import State

OUTCOMES: Mapping[str, str] = {
    "identical": "repris à l'identique",
    "rewritten": "repris et changés, avec la raison",
    "dropped": "laissés exprès, avec la raison",
    "blocked": "en attente d'une décision",
}
OUTCOME: Mapping[str, str] = {"rewritten": "repris et changé", "dropped": "laissé exprès", "blocked": "en attente"}
DECIDED: Mapping[str, str] = {
    "consent": "accord du titulaire, payé par",
    "withdraw-consent": "accord retiré",
    "mail-mode": "courrier :",
    "waiver": "accepté :",
    "price": "prix accepté, en euros :",
    "mail-copied": "boîte copiée et comptée :",
    "mail-abandoned": "boîte abandonnée :",
    "services-checked": "services vérifiés",
    "secured": "verrou vérifié",
    "skip": "étape passée",
    "retry": "nouvel essai",
    "rollback": "retour en arrière demandé",
    "resume": "reprise",
    "abandon": "abandon",
}


@dataclass(frozen=True)
class Entered:
    """A state and when it was entered."""

    state: State
    at: datetime

    @property
    def label(self) -> str:
        """Return the state in French."""
        return STATES[self.state]


@dataclass(frozen=True)
class Proof:
    """What can be shown of one move. `plan` is `Plan.to_json()`; what was never done is None."""

    row: Row
    events: tuple[Event, ...]
    now: datetime
    plan: Mapping[str, Any] | None = None
    parity: Parity | None = None
    tally: Tally | None = None

    @property
    def entered(self) -> list[Entered]:
        """Return the states in the order they were entered."""
        found = [Entered(State(event.data["to"]), event.at) for event in self.events if event.kind == "state"]
        return [
            one for one, before in zip(found, [None, *found], strict=False) if not before or one.state != before.state
        ]

    @property
    def comparisons(self) -> list[Event]:
        """Return the comparisons of old and new servers, oldest first."""
        return [event for event in self.events if event.kind == "parity"]

    @property
    def decisions(self) -> list[Event]:
        """Return what people decided, oldest first."""
        return [event for event in self.events if event.kind == "decision"]

    @property
    def accounted(self) -> bool:
        """Return whether every record of the old zone has exactly one outcome."""
        plan = self.plan
        return plan is not None and plan["balanced"] and plan["seen"] == sum(plan[key] for key in OUTCOMES)

    @property
    def changed(self) -> Sequence[Mapping[str, Any]]:
        """Return the records that were not carried as they were."""
        outcomes: Sequence[Mapping[str, Any]] = (self.plan or {}).get("outcomes", ())
        return [outcome for outcome in outcomes if outcome["what"] != "identical"]

    @property
    def clean(self) -> bool:
        """Return whether everything that was to be proven is: accounted, compared, probed without a failure."""
        compared = self.parity is not None and self.parity.ok
        probed = self.tally is not None and self.tally.total > 0 and not self.tally.failed
        return self.accounted and compared and probed

    def to_json(self) -> dict[str, Any]:
        """Return the proof as data for JSON."""
        parity, tally = self.parity, self.tally
        return {
            "ok": self.clean,
            "domain": self.row.domain,
            "state": str(self.row.state),
            "records": {key: self.plan[key] for key in ("seen", *OUTCOMES)} if self.plan else None,
            "accounted": self.accounted,
            "parity": parity
            and {
                "at": parity.at.isoformat(),
                "queries": parity.queries,
                "identical": parity.identical,
                "expected": len(parity.expected),
                "unexpected": len(parity.unexpected),
                "canary_caught": parity.canary_caught,
            },
            "probe": tally
            and {
                "since": tally.since.isoformat(),
                "until": tally.until.isoformat(),
                "total": tally.total,
                "failed": tally.failed,
                "longest_gap": tally.longest_gap,
            },
            "states": [{"state": str(one.state), "at": one.at.isoformat()} for one in self.entered],
        }

    def html(self) -> str:
        """Return the page; it needs nothing else and prints on a sheet."""
        environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True)
        environment.filters.update(date=date, moment=moment)
        return environment.get_template("report.html.jinja").render(
            proof=self, outcomes=OUTCOMES, outcome=OUTCOME, decided=DECIDED
        )
