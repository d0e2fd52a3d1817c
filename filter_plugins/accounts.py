# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role accounts; the thinking is in module_utils/hosting/."""

from __future__ import annotations

from hosting import firewall


class FilterModule:
    """What the role may write after a bar."""

    def filters(self):
        """Name the filters."""
        return {"accounts_destinations": firewall.destinations, "accounts_outgoing": firewall.outgoing}
