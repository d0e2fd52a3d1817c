# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each registry asks of a transfer: dated data in `registries.yml`, because these rules change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from infini.errors import RefusedError

_DATA = Path(__file__).with_name("registries.yml")


@dataclass(frozen=True)
class RegistryRule:
    """The rules of one top-level domain for a transfer between registrars.

    `reserve_days`: how long the losing registrar may wait before silence is consent. `refusal_days`: when a transfer
    that was refused ends (None where no such term is known). `lock60`: no transfer in the 60 days after creation,
    transfer or change of holder. `checked`: the day somebody last read `source`.
    """

    tld: str
    reserve_days: int
    lock60: bool
    gtld: bool
    source: str
    checked: date
    refusal_days: int | None = None
    minimum_expiry_days: int = 30
    note: str = ""


@cache
def _rules() -> dict[str, RegistryRule]:
    rows: list[dict[str, Any]] = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    return {tld: RegistryRule(**{**row, "tld": tld}) for row in rows for tld in row.pop("tlds")}


def rule_for(domain: str) -> RegistryRule:
    """Return the rules for a domain name (ASCII or Unicode form).

    Every generic top-level domain obeys ICANN's policy, so one that has no row of its own takes the row `*`. A
    country's does not: RefusedError when it has no row.
    """
    tld = domain.rstrip(".").lower().rpartition(".")[2]
    rules = _rules()
    if tld in rules:
        return rules[tld]
    if len(tld) == 2 or not tld.isascii() or tld.startswith("xn--"):
        raise RefusedError(
            f"No transfer rules are known for .{tld} ({domain}): read its registry's, add a row to {_DATA.name}"
        )
    return replace(rules["*"], tld=tld)
