# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role sympa."""

from __future__ import annotations

from hosting.sympa import identity
from hosting.sympa_config import one_line


class FilterModule:
    """The filters."""

    def filters(self):
        """Return them by name."""
        return {
            "sympa_addresses": lambda lists: [identity(one) for one in lists],
            "sympa_line": lambda value: one_line(value, ","),
        }
