# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsal in front of real servers: what Gandi and the registry do in the simulated world, the DNS lab serves.

What is not DNS (Gandi's and the new registrar's API, RDAP) stays the simulator's. All that a move asks of the DNS, and
the zone that it provisions, go to the lab.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from infini.domains.archetypes import Archetype
from infini.domains.lab import Lab
from infini.domains.rehearsal import Rehearsal, WorldTarget
from infini.domains.simulator.clock import VirtualClock
from infini.domains.simulator.world import Changed, Delays, World
from infini.domains.zone import Zone

AT_ONCE = Delays(accepted=0, livedns=0, registry=0, parent_lag=0, unlock=0, auth_code=0, order=0)
"""Gandi and the registry are as fast as can be: nothing but the move's own waits protects a visitor."""


class LabClock(VirtualClock):
    """A clock that also runs by itself, since real servers take real time."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def now(self) -> datetime:
        """Return the time: what has really passed, and what was jumped over."""
        return super().now() + timedelta(seconds=time.monotonic() - self._began)


class LabTarget(WorldTarget):
    """The lab's new host; the world is told too, since it judges what a member would suffer."""

    def __init__(self, stage: LabStage) -> None:
        super().__init__(stage)
        self._served = stage.lab.target

    def provision(self, zone: Zone) -> None:
        """Serve the zone."""
        self._served.provision(zone)
        super().provision(zone)

    def remove(self, name: str) -> None:
        """Serve it no more."""
        self._served.remove(name)
        super().remove(name)


class LabStage(Rehearsal):
    """A rehearsal in a lab that runs; the domains of `cast` are below one of its registries.

    The continuous probes write to `store`.
    """

    def __init__(self, lab: Lab, cast: Sequence[Archetype], folder: Path) -> None:
        super().__init__(cast, folder, world=World(LabClock(), delays=AT_ONCE))
        self.lab = lab
        self.dns = lab.dns(self.store, self.clock.now)
        self.target = LabTarget(self)
        for name in self.cast:
            self._follow("old-zone", name)
            self._follow("delegation", name)
        self.world.on_change(self._follow)

    def _until(self, moment: datetime) -> None:
        """Wait really as long as a resolver may hold what was true before the last change, and jump over the rest."""
        time.sleep(max(0.0, min((moment - self.clock.now()).total_seconds(), self.lab.memory)))
        super()._until(moment)

    def _follow(self, what: Changed, name: str) -> None:
        """Let the lab's servers say what is true now."""
        if what in ("old-zone", "old-signed"):
            zone = self.world.old_zone(name)
            if zone is None:
                self.lab.erase_old(name)
            else:
                self.lab.publish_old(zone, signed=self.world.old_signed(name))
        elif what in ("delegation", "ds"):
            entry = self.world.registration(name)
            self.lab.register(name, entry.nameservers, ds=bool(entry.ds), ns_ttl=entry.ns_ttl, ds_ttl=entry.ds_ttl)
