# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages action: ask dpkg first, and apt only for what is missing."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

LISTS = "/var/lib/apt/lists /var/lib/apt/lists/partial /var/lib/apt/periodic/update-success-stamp"
"""What is touched when lists are fetched, one or the other: ansible.builtin.apt judges by the first and the last."""
MARKS = "/var/lib/apt/extended_states"
"""Where apt notes which packages nobody asked for by name."""
LOOK = r"""[ -n "$(find {lists} -maxdepth 0 -mmin -1440 2>/dev/null)" ] &&
  dpkg-query --show --showformat='${{db:Status-Status}} ${{Package}}\n' -- {names} &&
  awk '/^Package: / {{ name = $2 }} /^Auto-Installed: 1/ {{ print "auto", name }}' {marks}"""
SERVICES_STAY_DOWN = 101
"""What policy-rc.d answers to "may this service be started?": forbidden."""


class ActionModule(ActionBase):
    """Compares by what dpkg and apt keep in files, in a tenth of what apt takes to open its cache; apt installs."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return at once when every package is there, or what ansible.builtin.apt says."""
        super().run(tmp, task_vars)
        _check, arguments = self.validate_argument_spec(
            {
                "names": {"type": "list", "elements": "str", "required": True},
                "update_cache": {"type": "bool", "default": False},
                "answers": {"type": "str", "default": ""},
            }
        )
        names = list(dict.fromkeys(arguments["names"]))
        if not names or self._stands(names):
            return {"changed": False}
        if arguments["answers"] and not self._task.check_mode:
            answers = self._rendered(arguments["answers"]).encode()
            done = self._low_level_execute_command("debconf-set-selections", in_data=answers)
            if done["rc"] != 0:
                return {"failed": True, "msg": f"debconf does not take the answers: {done['stderr'].strip()}"}
        apt = {"name": names, "install_recommends": False, "policy_rc_d": SERVICES_STAY_DOWN}
        apt.update({"update_cache": True} if arguments["update_cache"] else {"cache_valid_time": 3600})
        result: dict[str, Any] = self._execute_module("ansible.builtin.apt", apt, task_vars=task_vars)
        return result

    def _rendered(self, template: str) -> str:
        """Return the role's template, which is not in the task as text: Ansible copies all that a host has for it."""
        lookup = trust_as_template(f"{{{{ lookup('ansible.builtin.template', {template!r}) }}}}")
        return str(self._templar.template(lookup))

    def _stands(self, names: list[str]) -> bool:
        """Tell whether all are installed, by name and not as what another needs, and the lists are of today.

        dpkg does not know the names that others only provide: those are apt's matter at every run.
        """
        done = self._low_level_execute_command(LOOK.format(lists=LISTS, marks=MARKS, names=shlex.join(names)))
        said = {tuple(line.split()) for line in done["stdout"].splitlines()}
        states = {state for state, _name in said}
        return done["rc"] == 0 and states <= {"installed", "auto"} and not said & {("auto", name) for name in names}
