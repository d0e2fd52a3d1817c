# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of sympa_robots: check what is asked, let the engine answer, keep what the DNS must say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hosting.sympa_robots_door import SPEC
from infini.engine import EngineAction
from infini.plain import plain


class ActionModule(EngineAction):
    """Hands the set over as it is."""

    engine = "sympa_robots"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Bring the robots of the host to what the task says, in one round trip."""
        super().run(tmp, task_vars)
        _check, arguments = self.validate_argument_spec({**SPEC, "records_copy": {"type": "path", "default": ""}})
        asked = plain(arguments)
        copy = asked.pop("records_copy")
        result = self.ask(asked, task_vars or {})
        told = result.pop("told", "")
        if copy and told and not (Path(copy).is_file() and Path(copy).read_text("utf-8") == told):
            Path(copy).parent.mkdir(parents=True, exist_ok=True)
            Path(copy).write_text(told, "utf-8")  # a copy: nothing on the host has to read it
        return result
