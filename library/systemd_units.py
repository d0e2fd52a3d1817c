#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_units
short_description: Own a whole set of systemd units
description:
  - Enables, disables, starts and stops a whole set of units in as few calls of systemctl as possible.
  - Units that run already are left running; restarts and reloads are the business of handlers.
  - In check mode a unit that the host does not have yet is reported as one that would be started.
options:
  units:
    description: The units of the set. A name without suffix is a service.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the unit., type: str, required: true}
      enabled: {description: Whether it is started at boot., type: bool, default: true}
      state: {description: Whether it runs now., type: str, choices: [started, stopped], default: started}
  prune:
    description:
      - Globs of unit names that are ours alone; those not in O(units) are stopped and disabled.
      - The service that a pruned socket started is stopped with it.
    type: list
    elements: str
    default: []
  leave:
    description: Only name those that would be pruned; a later task stops and disables them.
    type: bool
    default: false
  watch:
    description: Globs of further units (slices, say) whose changed files also call for a daemon-reload.
    type: list
    elements: str
    default: []
  daemon_reload:
    description:
      - Whether systemd reads its files again first; V(auto) asks systemd whether it needs to.
      - With O(prune), which is for large sets, V(auto) does so whenever a unit file is newer than what it has read.
    type: str
    choices: [auto, always, never]
    default: auto
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Run the pools' sockets, and only those
  systemd_units:
    units: "{{ php_pools | map('php_socket') | list }}"
    prune: ["php*@*.socket"]
"""

RETURN = r"""
enabled: {description: Units enabled now., type: list, elements: str, returned: always}
started: {description: Units started now., type: list, elements: str, returned: always}
disabled: {description: Units disabled now., type: list, elements: str, returned: always}
stopped: {description: Units stopped now., type: list, elements: str, returned: always}
left:
  description: With O(leave), the units that run or start at boot and are not wanted.
  type: list
  elements: str
  returned: always
reloaded: {description: Whether systemd read its files again., type: bool, returned: always}
skipped_units:
  description: Units whose own conditions keep them from running on this host.
  type: list
  elements: str
  returned: always
"""

import dataclasses
import re
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import units as thinking

LINKS = Path("/etc/systemd/system")
UNIT_FILES = [LINKS, *map(Path, ("/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"))]
LINK_FOLDERS = {".wants", ".requires"}
OFF = thinking.Seen("")


def newer_than(moment, path):
    """Tell whether a file was changed after a moment; one that is not there was not."""
    try:
        return path.lstat().st_mtime > moment
    except FileNotFoundError:
        return False


class Systemd:
    """The units of this host, read and changed through systemctl."""

    def __init__(self, module):
        self.module = module

    def call(self, *words):
        """Run systemctl and return (code, output, errors)."""
        return self.module.run_command(["systemctl", "--no-pager", "--no-ask-password", *words])

    def show(self, names):
        """Return what systemd says of these names (globs cover loaded units only), in its order."""
        if not names:
            return []
        code, out, err = self.call("show", "--property=" + ",".join(thinking.PROPERTIES), "--", *names)
        if code != 0:
            self.module.fail_json(msg=f"systemd does not answer on this host: {err.strip() or out.strip()}")
        return thinking.parse_show(out)

    def look(self, wanted, patterns, watch=()):
        """Return what is known of the wanted units by the name they were asked by, and of those under the globs.

        systemd takes milliseconds to tell all of a unit. So as long as no unit file is newer than what it has read,
        units under the globs that run as wanted are only counted off its list, and of those that it has not loaded one
        of each template is asked for.
        """
        names, enabled = [unit.name for unit in wanted], self.enabled_under(patterns)
        if not patterns or self.files_changed():
            seen, models = {state.name: state for state in self.show([*patterns, *watch])}, {}
        else:
            listed = {state.name: state for state in self.listed(patterns)}
            wanted_on = {unit.name for unit in wanted if unit.enabled and unit.started} & enabled
            seen = {
                name: dataclasses.replace(state, file_state="enabled")
                for name, state in listed.items()
                if name in wanted_on and state.stands
            }
            models = thinking.models(thinking.matching(names, patterns) - set(listed))
            names += sorted(set(listed) - set(names))  # surplus
        ask = [name for name in names if name not in seen and models.get(name, name) == name]
        seen.update((name, dataclasses.replace(state, name=name)) for name, state in zip(ask, self.show(ask)))
        seen.update((name, dataclasses.replace(seen[model], name=name)) for name, model in models.items())
        seen.update((name, seen[name].linked(name in enabled)) for name in thinking.matching(seen, patterns))
        return seen

    def listed(self, patterns):
        """Return the units under the globs that systemd has loaded, with no more than its list says of them."""
        code, out, err = self.call("list-units", "--all", "--full", "--plain", "--no-legend", "--", *patterns)
        if code != 0:
            self.module.fail_json(msg=f"systemd does not answer on this host: {err.strip() or out.strip()}")
        return thinking.parse_list(out)

    def files_changed(self):
        """Tell whether a unit file may be newer than what systemd has read, at its start or when last told to."""
        said = self.call("show", "--property=UnitsLoadStartTimestampMonotonic,UnitsLoadTimestampMonotonic")[1]
        read = max((int(value) for value in re.findall(r"=(\d+)$", said, re.MULTILINE)), default=0)
        moment = time.time() - time.monotonic() + read / 1e6
        files = (path for root in UNIT_FILES for path in (root, *root.rglob("*")))
        # Links say what starts at boot; here they are read themselves.
        return any(newer_than(moment, path) for path in files if not LINK_FOLDERS & {path.suffix, path.parent.suffix})

    def enabled_under(self, patterns):
        """Return the names under the globs that something wants at boot, loaded or not."""
        links = [link.name for link in LINKS.glob("*.wants/*")] + [link.name for link in LINKS.glob("*.requires/*")]
        return thinking.matching(links, patterns)

    def apply(self, plan, seen, patterns):
        """Carry the plan out: first what goes, then what comes.

        What is ours alone is known by its links, so it needs no daemon-reload (seconds, on a host with a thousand
        sockets) after each change of them.
        """
        for verb, names in (("stop", plan.stop), ("disable", plan.disable), ("enable", plan.enable)):
            ours = thinking.matching(names, patterns) if verb != "stop" else set()
            for options, some in (((), set(names) - ours), (("--no-reload",), ours)):
                if some:
                    code, _out, err = self.call(verb, *options, "--", *sorted(some))
                    if code != 0:
                        self.module.fail_json(msg=f"systemctl {verb} failed on this host: {err.strip()}")
        if plan.start:
            failed = [name for name in plan.start if seen[name].active == "failed"]
            if failed:
                self.call("reset-failed", "--", *failed)  # a unit that failed too often may be tried again
            code, _out, err = self.call("start", "--", *plan.start)
            if code != 0:
                self.explain_failed_start(plan.start, err)

    def not_standing(self, names):
        """Return what systemd says of those of the names that do not run."""
        standing = {state.name for state in self.listed(names) if state.stands} if names else set()
        return {state.name: state for state in self.show([name for name in names if name not in standing])}

    def explain_failed_start(self, names, err):
        """Fail with the first unit that did not come up and the end of its journal."""
        failed = [state.name for state in self.show(list(names)) if not state.running] or list(names)
        unit = failed[0]
        journal = self.module.run_command(["journalctl", "--no-pager", "-q", "-n", "15", "-o", "cat", "-u", unit])[1]
        names = ", ".join(failed)
        self.module.fail_json(msg=f"{names} did not start: see `journalctl -u {unit}` there. {err.strip()}\n{journal}")


def main():
    """Read, plan, write."""
    spec = {
        "name": {"type": "str", "required": True},
        "enabled": {"type": "bool", "default": True},
        "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    }
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True, "options": spec},
            "prune": {"type": "list", "elements": "str", "default": []},
            "leave": {"type": "bool", "default": False},
            "watch": {"type": "list", "elements": "str", "default": []},
            "daemon_reload": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
        },
        supports_check_mode=True,
    )
    params, systemd = module.params, Systemd(module)
    wanted = [
        thinking.Wanted(thinking.full_name(unit["name"]), unit["enabled"], unit["state"] == "started")
        for unit in params["units"]
    ]
    ours, mode = params["prune"], params["daemon_reload"]
    # Reading the files of a thousand units again is quicker than asking whether each of them needs it.
    reload = mode == "always" or (mode == "auto" and bool(ours) and systemd.files_changed())
    if reload and not module.check_mode:
        systemd.call("daemon-reload")
    seen = systemd.look(wanted, ours, params["watch"])
    if mode == "auto" and not reload and any(s.needs_reload or s.load == "not-found" for s in seen.values()):
        reload = True
        if not module.check_mode:
            systemd.call("daemon-reload")
            seen = systemd.look(wanted, ours, params["watch"])
    try:
        if not module.check_mode:
            thinking.refuse_impossible(wanted, seen)
    except thinking.UnitsError as error:
        module.fail_json(msg=str(error))

    enabled = systemd.enabled_under(ours)
    surplus = (thinking.matching(seen, ours) | enabled) - {unit.name for unit in wanted}
    seen.update({state.name: state for state in systemd.show(sorted(surplus - set(seen)))})
    behind = thinking.behind_sockets(seen[name] for name in surplus) - set(seen)
    seen.update({state.name: state for state in systemd.show(sorted(behind))})
    surplus |= behind
    left = thinking.alive(seen[name] for name in surplus) if params["leave"] else []
    plan = thinking.plan(wanted, seen, () if params["leave"] else surplus)
    if not module.check_mode:
        systemd.apply(plan, seen, ours)
        seen.update(systemd.not_standing(plan.start))
    skipped = [name for name in plan.start if seen.get(name, thinking.Seen(name)).keeps_itself_off]
    plan = plan.without_start(skipped)
    module.exit_json(
        changed=plan.changed,
        reloaded=reload,
        enabled=plan.enable,
        started=plan.start,
        disabled=plan.disable,
        stopped=plan.stop,
        skipped_units=skipped,
        left=left,
        diff=plan.diff(),
    )


if __name__ == "__main__":
    main()
