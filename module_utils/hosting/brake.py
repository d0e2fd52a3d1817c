# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The brake on plans that take away: a mistake in the inventory must not empty a host."""

from __future__ import annotations

from collections.abc import Collection


class UnsafePlanError(Exception):
    """The plan takes away more of a set than a person would on purpose."""


def allowance(existing: int) -> int:
    """Return how many of a set may go without a question."""
    return 2 if existing < 10 else int(existing * 0.3)


def refuse_mass_removal(
    removed: Collection[str], existing: int, confirmed: Collection[str], what: str, fate: str = "locked"
) -> None:
    """Raise where more than 30 % of a set (more than 2 of a set under 10) would go without being confirmed by name.

    `fate` says what would become of them.
    """
    surprising = sorted(set(removed) - set(confirmed))
    if len(surprising) > allowance(existing):
        raise UnsafePlanError(
            f"{len(surprising)} of {existing} {what} would be {fate} at once ({', '.join(surprising)}): "
            "if that is meant, confirm them by name, else put them back into the inventory"
        )
