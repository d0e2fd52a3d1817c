# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that end the command: one sentence (what, where, the mend) and an exit status."""


class InfiniError(Exception):
    """Something the operator must read; `status` is the exit status of the command, `code` a host's word for it."""

    status = 4
    code = ""


class RefusedError(InfiniError):
    """Bad input, or a change that is refused: nothing was touched."""

    status = 2


class UnreachableError(InfiniError):
    """A host does not answer: nothing was touched on it."""

    status = 3


class FailedError(InfiniError):
    """A task failed on the way; `log` is where to read on."""
