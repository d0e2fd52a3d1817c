# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two zones, rrset by rrset."""

from __future__ import annotations

from dataclasses import dataclass

from infini.domains.zone import Rrset, Zone


@dataclass(frozen=True)
class Changes:
    """What turns one zone into another; false when nothing does. `changed` pairs the old rrset with the new one."""

    added: tuple[Rrset, ...] = ()
    removed: tuple[Rrset, ...] = ()
    changed: tuple[tuple[Rrset, Rrset], ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.added or self.removed or self.changed)

    def lines(self) -> list[str]:
        """Return the changes as lines of a diff, by name and type, the old one before the new one."""
        pairs: list[tuple[tuple[str, str], str]] = []
        pairs += [(rrset.key, f"- {rrset}") for rrset in self.removed]
        pairs += [(rrset.key, f"+ {rrset}") for rrset in self.added]
        for old, new in self.changed:
            pairs += [(old.key, f"- {old}"), (new.key, f"+ {new}")]
        return [line for _, line in sorted(pairs, key=lambda pair: pair[0])]


def changes(old: Zone, new: Zone) -> Changes:
    """Return what must change in `old` to have `new`; entries that no rrset could be made of are not compared."""
    return Changes(
        added=tuple(sorted(new.rrsets[key] for key in new.rrsets.keys() - old.rrsets.keys())),
        removed=tuple(sorted(old.rrsets[key] for key in old.rrsets.keys() - new.rrsets.keys())),
        changed=tuple(
            (old.rrsets[key], new.rrsets[key])
            for key in sorted(old.rrsets.keys() & new.rrsets.keys())
            if old.rrsets[key] != new.rrsets[key]
        ),
    )
