# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of the nine `alternc_*` modules that own sets: their names here are links to this file."""

from __future__ import annotations

from typing import Any

from hosting.alternc_sets_door import MODULES
from infini.engine import EngineAction
from infini.plain import plain


class ActionModule(EngineAction):
    """Checks what is asked, and hands it over: nine modules in a row took a second each."""

    engine = "alternc_sets"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Bring a panel to what the task says, in one round trip."""
        super().run(tmp, task_vars)
        name = self._task.action.rpartition(".")[2]
        _check, arguments = self.validate_argument_spec(MODULES[name].spec)
        return self.ask(plain(arguments), task_vars or {}, module=name)
