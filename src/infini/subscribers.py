# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of subscribers on the control node, parted by lists: a host is only sent what it does not know yet."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from io import BytesIO
from itertools import chain
from typing import NamedTuple

from hosting.sympa import canonical


class Run(NamedTuple):
    """Lines of one list that follow each other: where they stand, and the number of the first."""

    start: int
    end: int
    first: int
    lines: int


class SubscribersFile:
    """The file, whose first line names the columns; raises UnicodeDecodeError where it is not UTF-8."""

    def __init__(self, content: bytes) -> None:
        content.decode()
        self._content = content
        lines = BytesIO(content)
        first = lines.readline()
        self.header = first.decode("utf-8-sig")
        self._runs: dict[str, list[Run]] = {}
        for address, run in _runs(lines, len(first)):
            self._runs.setdefault(address, []).append(run)

    def sums(self, lists: Iterable[str], managed: Collection[str], closed: Collection[str]) -> dict[str, str]:
        """Return what tells of each list, declared or not, whether anything of it is new; nothing of it is secret."""
        managed, closed = frozenset(managed), frozenset(closed)
        return {
            address: self._sum(address, f"{address in managed} {address in closed} {self.header}")
            for address in {*lists, *self._runs}
        }

    def _sum(self, address: str, head: str) -> str:
        found = hashlib.sha256(head.encode())
        for run in self._runs.get(address, ()):
            found.update(self._content[run.start : run.end])
        return found.hexdigest()

    def lines(self, lists: Iterable[str]) -> tuple[bytes, list[tuple[int, int]]]:
        """Return the lines of these lists as they stand in the file, and their numbers as pairs of first and count."""
        runs = sorted(run for address in lists for run in self._runs.get(address, ()))
        content = b"".join(self._content[run.start : run.end] for run in runs)
        return content, [(run.first, run.lines) for run in runs]


def _runs(lines: Iterable[bytes], start: int) -> Iterator[tuple[str, Run]]:
    """Part the lines, the first of which is the second of the file, where another list begins; empty ones are none."""
    begins, first, cell = start, 2, b""
    for number, line in enumerate(chain(lines, [b""]), 2):
        if not (cell and line.startswith(cell)):
            if cell.strip(b"\r\n"):
                yield canonical(cell.decode()), Run(begins, start, first, number - first)
            name, tab, _ = line.partition(b"\t")
            begins, first, cell = start, number, name + tab
        start += len(line)
