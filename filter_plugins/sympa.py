# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role sympa."""

from __future__ import annotations

from hosting.sympa import identity, pages
from hosting.sympa_config import one_line
from infini.plain import plain


def addresses(lists, **wanted):
    """Return the addresses of lists, or of those whose fields are as wanted."""
    return [identity(one) for one in plain(lists) if all(one.get(name) == value for name, value in wanted.items())]


class FilterModule:
    """The filters."""

    def filters(self):
        """Return them by name."""
        return {
            "sympa_addresses": addresses,
            "sympa_page_names": lambda *about: [{"name": page["name"]} for page in pages(*about)],
            "sympa_pages": pages,
            "sympa_line": lambda value: one_line(value, ","),
        }
