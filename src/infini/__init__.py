# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's Python: the CLI, the staging bench and what they share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""

STATE = ROOT / ".infini"
"""What the command keeps between runs: never in git, always safe to delete when no bench is up."""
