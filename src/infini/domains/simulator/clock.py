# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time that passes when somebody says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
"""A Monday morning: when worlds begin unless told otherwise."""


class VirtualClock:
    """A `ports.Clock` that nobody waits for: `sleep` moves it on at once. Safe to share between threads."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> datetime:
        """Return the virtual time, UTC."""
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        """Move on by that many seconds, without waiting; less than nothing is nothing."""
        self.advance(timedelta(seconds=max(0.0, seconds)))

    def advance(self, by: timedelta) -> datetime:
        """Move on, let the listeners catch up, return the new time; raise ValueError for a step backwards."""
        if by < timedelta(0):
            raise ValueError(f"the clock was asked to go back by {-by}: give a positive duration")
        with self._lock:
            self._now += by
        for listener in tuple(self._listeners):
            listener()
        return self.now()

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after each move of the clock, in the thread that moved it."""
        self._listeners.append(listener)
