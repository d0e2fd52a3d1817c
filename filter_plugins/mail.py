# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the roles of mail; the thinking is in module_utils/hosting/."""

from __future__ import annotations

from hosting import mail_records


class FilterModule:
    """What the roles may write after a bar."""

    def filters(self):
        """Name the filters."""
        return {"mail_page_sites": mail_records.page_sites, "mail_sts_policy": mail_records.sts_policy}
