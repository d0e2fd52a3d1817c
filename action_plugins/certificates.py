# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of certificates: let the engine on the host answer, and warn of what it could not have."""

from __future__ import annotations

from typing import Any

from ansible.utils.display import Display

from hosting.certificates_door import SPEC
from infini.engine import EngineAction
from infini.plain import plain


class ActionModule(EngineAction):
    """Hands over what is asked; nothing waits on the host, so that a lost connection loses nothing."""

    engine = "certificates"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Begin, or look at what was begun, in one round trip."""
        super().run(tmp, task_vars)
        _check, arguments = self.validate_argument_spec(SPEC)
        result = self.ask(plain(arguments), task_vars or {})
        if result.get("kept"):
            Display().warning(f"Certificates are no longer declared, too many to be meant: {', '.join(result['kept'])}")
        for failure in [] if result.get("failed") else result.get("failures", []):
            Display().warning(failure)
        return result
