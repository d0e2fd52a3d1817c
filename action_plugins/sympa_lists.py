# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of sympa_lists: check what is asked, and let the engine on the host answer."""

from __future__ import annotations

from typing import Any

from hosting.sympa_lists_door import SPEC
from infini.engine import EngineAction
from infini.plain import plain


class ActionModule(EngineAction):
    """Hands the set over as it is."""

    engine = "sympa_lists"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Bring the lists of the host to what the task says, in one round trip."""
        super().run(tmp, task_vars)
        _check, arguments = self.validate_argument_spec(SPEC)
        return self.ask(plain(arguments), task_vars or {})
