# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""All faces of one world on loopback ports, and the levers that move it from outside."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from infini.domains.simulator.face import Answer, Face, Request, Server
from infini.domains.simulator.faults import HEALING
from infini.domains.simulator.gandi import GandiFace
from infini.domains.simulator.journal import Journal
from infini.domains.simulator.netim import NetimFace
from infini.domains.simulator.ovh import OvhFace
from infini.domains.simulator.rdap import RdapFace
from infini.domains.simulator.world import World

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
TOKEN = "sim-pat-infini"  # noqa: S105 - opens nothing but this simulator
"""The token of organisation `infini` that every simulation lets in."""


class Simulation:
    """A world with its faces; as a context manager it serves them over HTTP, and stops at its end.

    Without HTTP, `faces[name].answer(Request(…))` answers as well.
    """

    def __init__(self, world: World) -> None:
        self.world, self.journal = world, Journal()
        world.add_token(TOKEN)
        self.gandi = GandiFace(world, self.journal, self._control)
        self.ovh = OvhFace(world, self.journal, self._control)
        self.netim = NetimFace(world, self.journal, self._control)
        self.rdap = RdapFace(world, self.journal, self._control)
        self.faces: dict[str, Face] = {face.name: face for face in (self.gandi, self.ovh, self.netim, self.rdap)}
        self._servers = ExitStack()

    def __enter__(self) -> Self:
        """Serve each face on a free port of the loopback interface."""
        for face in self.faces.values():
            self._servers.callback(Server(face).close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self._servers.close()

    @property
    def gandi_url(self) -> str:
        """Return the base address of Gandi's API, without final slash."""
        return self.gandi.url

    @property
    def ovh_url(self) -> str:
        """Return the base address of OVH's API, with its version."""
        return f"{self.ovh.url}/1.0"

    @property
    def netim_url(self) -> str:
        """Return the base address of Netim's API, with its version."""
        return f"{self.netim.url}/3.0"

    @property
    def rdap_url(self) -> str:
        """Return the base address of the RDAP service; its bootstrap file is at `/dns.json`."""
        return self.rdap.url

    # --- levers -----------------------------------------------------------------------------------------------

    def _control(self, request: Request) -> Answer:
        """Answer under `/_sim/`: clock (GET, POST advance), faults (GET, POST, DELETE), journal and harms (GET)."""
        name = request.path.removeprefix("/_sim/")
        try:
            said = json.loads(request.body) if request.body else {}
            if name == "clock":
                return self._turn_clock(request.method, said)
            if name == "faults":
                return self._plan_faults(request.method, said)
        except (ValueError, TypeError, KeyError) as error:
            return Answer(400, {"message": f"{name} was asked for something it cannot do: {error}"})
        if name == "journal":
            return Answer(200, {"asked": self.journal.to_json(), "violations": self.journal.violations})
        if name == "harms":
            harms = [[harm.at.isoformat(), harm.domain, harm.kind] for harm in self.world.harms]
            return Answer(200, harms)
        return Answer(404, {"message": "the levers are clock, faults, journal, harms"})

    def _turn_clock(self, method: str, said: dict[str, Any]) -> Answer:
        if method == "POST":
            self.world.clock.advance(duration(said["advance"]))
        return Answer(200, {"now": self.world.now().isoformat()})

    def _plan_faults(self, method: str, said: dict[str, Any]) -> Answer:
        faults = self.world.faults
        if method == "DELETE":
            faults.clear()
        elif method == "POST" and "random" in said:
            faults.at_random(float(said["random"]), said.get("kinds", HEALING), int(said.get("most", 2)))
        elif method == "POST":
            faults.add(**said)
        return Answer(200, {"planned": [vars(fault) for fault in faults.planned], "struck": dict(faults.struck)})


def duration(text: str) -> timedelta:
    """Read a duration: a number and one of s, m, h, d; raise ValueError for another text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write a number and s, m, h or d, such as 72h")
    return timedelta(seconds=float(match[1]) * UNITS[match[2]])
