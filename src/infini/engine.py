# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an engine of module_utils/hosting/ on a host, without the weight of a module.

A module costs 0.2 to 0.3 s before its first line: Ansible packs 60 files for it, and the host compiles them. Comparing
a thousand files or units takes a tenth of that. So an engine travels alone, the way Ansible sends its modules; where
that cannot feed a command's standard input, in the background, for another host or with an environment, it goes as an
ordinary module of the action's name.
"""

from __future__ import annotations

import json
import re
import shlex
import zlib
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

import hosting

HOSTING = Path(hosting.__file__).parent
# What the host runs: read a letter from standard input, then import the engine from it and answer with a line of JSON.
OPEN = "import sys, json, zlib; letter = json.loads(zlib.decompress(sys.stdin.buffer.read())); exec(letter['boot'])"
BOOT = """
import importlib, importlib.machinery

class Engine:
    @staticmethod
    def find_spec(name, path=None, target=None):
        package, _dot, inner = name.partition(".")
        if package == "hosting" and (not inner or inner in letter["sources"]):
            return importlib.machinery.ModuleSpec(name, Engine, is_package=not inner)

    create_module = staticmethod(lambda spec: None)

    @staticmethod
    def exec_module(module):
        name = module.__name__.partition(".")[2]
        exec(compile(letter["sources"].get(name, ""), name + ".py", "exec"), module.__dict__)

sys.meta_path.insert(0, Engine)
door = importlib.import_module("hosting." + letter["engine"] + "_door")
print(json.dumps(door.answer(letter["asked"], **letter["options"])))
"""


def sources(name: str) -> dict[str, str]:
    """Return the source of a module of `hosting` and of all that it imports from there, by name."""
    found: dict[str, str] = {}
    missing = [name]
    while missing:
        one = missing.pop()
        if one not in found:
            found[one] = (HOSTING / f"{one}.py").read_text(encoding="utf-8")
            missing += re.findall(r"^from \.(\w+) import ", found[one], re.MULTILINE)
            for names in re.findall(r"^from \. import (.+)$", found[one], re.MULTILINE):
                missing += [name.split()[0] for name in names.split(",")]
    return found


class EngineAction(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """An action that asks `engine`, which is hosting/<engine>_door.py and what that imports of hosting/."""

    _supports_check_mode = True
    engine: str

    def ask(self, asked: dict[str, Any], task_vars: dict[str, Any], **options: str) -> dict[str, Any]:
        """Return what the engine on the host answers, in the words of a module's result.

        `options` are what its door needs to know besides, and a module of the action's name knows by itself.
        """
        python = self._python(task_vars)
        later = bool(self._task.async_val)
        alone = not (later or self._task.delegate_to or any(self._task.environment or ()))
        if python is None or not alone or not self._is_pipelining_enabled("new"):
            name = self._task.action
            result: dict[str, Any] = self._execute_module(name, asked, task_vars=task_vars, wrap_async=later)
            return result
        letter = {
            "boot": BOOT,
            "engine": self.engine,
            "sources": sources(f"{self.engine}_door"),
            "asked": asked,
            "options": {"check_mode": self._task.check_mode, "diff": self._task.diff, **options},
        }
        command = f"{shlex.quote(python)} -I -c {shlex.quote(OPEN)}"
        done = self._low_level_execute_command(command, in_data=zlib.compress(json.dumps(letter).encode(), 1))
        lines = done["stdout"].strip().splitlines()
        if done["rc"] != 0 or not lines:
            said = " ".join((done["stderr"].strip() or done["stdout"].strip()).splitlines()[-5:])
            return {"failed": True, "msg": f"{self._task.action} ended with status {done['rc']} on the host: {said}"}
        try:
            answer: dict[str, Any] = json.loads(lines[-1])
        except ValueError:
            return {"failed": True, "msg": f"{self._task.action} answered something else on the host: {lines[-1]}"}
        return answer

    def _python(self, task_vars: dict[str, Any]) -> str | None:
        """Return the host's Python, or nothing where Ansible would have to look for it."""
        python = task_vars.get("ansible_python_interpreter") or constants.config.get_config_value("INTERPRETER_PYTHON")
        python = str(self._templar.template(python))
        return python if python.startswith("/") else None
