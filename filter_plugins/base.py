# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role base; the thinking is in module_utils/hosting/."""

from __future__ import annotations

from hosting import accounts, firewall


class FilterModule:
    """What the role may write after a bar."""

    def filters(self):
        """Name the filters."""
        return {
            "base_unix_accounts": accounts.technicians,
            "base_openings": firewall.openings,
            "base_reservations": firewall.reservations,
        }
