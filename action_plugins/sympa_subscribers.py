# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of sympa_subscribers: part the file by lists, send the host those lines that it asks for."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import is_encrypted
from ansible.utils.display import Display

from hosting.sympa_subscribers_door import LINES, SPEC
from infini.engine import EngineAction
from infini.plain import plain
from infini.subscribers import SubscribersFile


class ActionModule(EngineAction):
    """Tells the sums, then the lines; addresses never travel as arguments."""

    engine = "sympa_subscribers"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Bring the subscribers of the host to what the file says, in one round trip where nothing is new."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _check, arguments = self.validate_argument_spec({**SPEC, "src": {"type": "path", "required": True}})
        asked = plain(arguments)
        what = f"the file of subscribers {asked['src']}"
        try:
            path = Path(self._find_needle("files", asked["src"]))
        except AnsibleError:
            return {"failed": True, "msg": f"{what} is not there: write it first"}
        try:
            file = SubscribersFile(self._read(path))
        except UnicodeDecodeError:
            return {"failed": True, "msg": f"{what} cannot be used: it is not UTF-8: write it again in UTF-8"}
        sums = file.sums(asked["lists"], asked["managed"], asked["closed"])
        asked |= {"header": file.header, "sums": sums, "lines": LINES, "need": None, "runs": []}
        result = self.ask(asked, task_vars)
        if result.get("need") is not None and not result.get("failed"):
            content, runs = file.lines(result["need"])
            place = shlex.quote(LINES)
            carried = self._low_level_execute_command(f"umask 077; rm -f {place}; cat > {place}", in_data=content)
            if carried["rc"] != 0:
                return {"failed": True, "msg": f"{LINES} cannot be written: {carried['stderr'].strip()}"}
            looked = result["seconds"]
            result = self.ask({**asked, "need": result["need"], "runs": runs}, task_vars)
            if "seconds" in result:
                result["seconds"] = round(looked + result["seconds"], 2)
        if result.get("warning"):
            Display().warning(result.pop("warning"))
        return result

    def _read(self, path: Path) -> bytes:
        content = path.read_bytes()
        return self._loader.get_text_file_contents(str(path)).encode() if is_encrypted(content) else content
