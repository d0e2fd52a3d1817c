# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Postfix's queue by account, site and provider, with the reasons of waiting in groups."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

HELD = "hold"
MOST_REASONS = 20
_PARTS = (
    (re.compile(r"<[^<>\s]*@[^<>\s]*>|\b[\w.+=-]+@[\w.-]+\b"), "ADDRESS"),
    (re.compile(r"\[[0-9a-fA-F:.]+\](:\d+)?"), "[…]"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b"), "…"),
    (re.compile(r"https?://\S+"), "…"),
    # Queue numbers and the like: long words with a figure in them, such as 4fXyz12abc.
    (re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{9,}\b"), "…"),
    (re.compile(r"\b\d{4,}\b"), "…"),
)


def messages(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return what `postqueue -j` prints: a JSON object a line."""
    return [json.loads(line) for line in lines if line.strip()]


def providers(text: str) -> dict[str, str]:
    """Return which provider a domain belongs to, by the map of those that need care."""
    pairs = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {domain: transport.partition(":")[0].replace("slow-", "", 1) for domain, transport in pairs}


def reason(text: str) -> str:
    """Return a reason of waiting without what is only of one message, so that equal ones are told together."""
    for pattern, by in _PARTS:
        text = pattern.sub(by, text)
    return " ".join(text.split())


def picture(
    queue: Iterable[Mapping[str, Any]], owner: Callable[[Mapping[str, Any]], tuple[str, str]], slow: Mapping[str, str]
) -> dict[str, Any]:
    """Count messages and recipients by account, site and provider, and the reasons."""
    groups: dict[str, dict[str, dict[str, int]]] = {"accounts": {}, "sites": {}, "providers": {}}
    reasons: Counter[tuple[str, str]] = Counter()
    total = _nothing()
    for one in queue:
        held = one["queue_name"] == HELD
        account, site = owner(one)
        count = len(one["recipients"])
        _add(total, count, held)
        _add(groups["accounts"].setdefault(account, _nothing()), count, held)
        if site:
            _add(groups["sites"].setdefault(site, _nothing()), count, held)
        where: Counter[str] = Counter()
        for recipient in one["recipients"]:
            domain = recipient["address"].rpartition("@")[2].lower()
            provider = slow.get(domain, domain)
            where[provider] += 1
            if recipient.get("delay_reason"):
                reasons[(provider, reason(recipient["delay_reason"]))] += 1
        for provider, number in where.items():
            _add(groups["providers"].setdefault(provider, _nothing()), number, held)
    told = [
        {"provider": provider, "reason": why, "recipients": number}
        for (provider, why), number in reasons.most_common(MOST_REASONS)
    ]
    return {**total, **groups, "reasons": told}


def _nothing() -> dict[str, int]:
    return {"messages": 0, "recipients": 0, "held": 0}


def _add(to: dict[str, int], recipients: int, held: bool) -> None:
    to["messages"] += 1
    to["recipients"] += recipients
    to["held"] += held
