# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain Python values of what Ansible templated: its tags and lazy containers make all work on them slow."""

from __future__ import annotations

from typing import Any


def plain(value: Any) -> Any:
    """Strip Ansible's tags and lazy containers: plain Jinja is a hundred times faster on plain values."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value
