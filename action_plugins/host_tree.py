# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of host_tree: render the tree, ask the host what differs, send only that."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.parsing.vault import is_encrypted
from ansible.plugins.loader import filter_loader, lookup_loader, test_loader
from ansible.utils.display import Display
from jinja2 import StrictUndefined
from jinja2.utils import missing

from hosting.tree_model import TreeError, pack, pack_contents
from infini.engine import EngineAction
from infini.plain import plain
from infini.tree_render import Picture, Renderer, environment

CONFIRMATION = "Confirm the trees"
# Bytes of a tree that are sent before anyone knows what differs: asking twice takes 0.2 s, which is what 10 MB take.
AT_ONCE = 4_000_000
# Already lazy, or so large that nobody wants all of it.
AS_THEY_ARE = {"hostvars"}


def handlers(notified: list[str]) -> list[str]:
    """Return the handlers to call: a daemon that is restarted has read everything, so its reload is left out."""
    restarted = {name.removeprefix("Restart ") for name in notified if name.startswith("Restart ")}
    return [name for name in notified if name.removeprefix("Reload ") not in restarted]


class ActionModule(EngineAction):
    """Renders here, compares and writes there."""

    engine = "tree"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make the host look like the tree: in one round trip, or in two where a large tree differs."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _check, arguments = self.validate_argument_spec(
            {
                "source": {"type": "path"},
                "name": {"type": "str"},
                "confirm": {"type": "bool", "default": False},
                "left": {"type": "list", "elements": "str"},
                "prune": {"type": "bool", "default": True},
            }
        )
        if arguments["confirm"]:
            return self._confirm(task_vars)
        start = time.monotonic()
        try:
            picture = self._picture(arguments, task_vars)
        except TreeError as problem:
            return {"failed": True, "msg": str(problem)}
        rendered = time.monotonic()
        result = self._carry(picture, task_vars)
        result["seconds"] = {"render": rendered - start, "host": time.monotonic() - rendered}
        return result

    def _carry(self, picture: Picture, task_vars: dict[str, Any]) -> dict[str, Any]:
        request, contents = {"request": picture.request.pack()}, picture.contents
        at_once = sum(map(len, contents.values())) <= AT_ONCE
        result = self.ask({**request, "contents": pack_contents(contents if at_once else {})}, task_vars)
        put_back = result.get("put_back")
        if result.pop("incomplete", False):
            some = {path: contents[path] for path in result["need"]}
            result = self.ask({**request, "contents": pack_contents(some)}, task_vars)
            if result.get("incomplete"):
                return {"failed": True, "msg": "the host's files changed while they were compared: run this again"}
        if result.get("failed") or result.get("interrupted"):
            return _told_of_interruption(result)
        if put_back:
            result["put_back"] = put_back
            Display().warning(
                f"an earlier run of the tree {picture.request.name} was interrupted: its files were put back first"
            )
        if result.get("pending"):
            Display().warning(
                f"an earlier run broke before its handlers ran, now they do: {', '.join(result['pending'])}"
            )
        for one in result.get("quarantined", []):
            Display().warning(f"{one['path']} was refused and stands as before: {one['reason']}")
        if not result.get("failed"):
            self._notify(result)
        return result

    def _notify(self, result: dict[str, Any]) -> None:
        """Call the handlers of the files that changed.

        The executor reads the task's own `notify` after the action has run (in core 2.19 to 2.21), so an action may
        decide; the strategy obeys only for a changed task.
        """
        if result["notify"]:
            result["changed"] = True
            confirmation = [CONFIRMATION] if self._can_confirm() else []
            self._task.notify = [*(self._task.notify or []), *handlers(result["notify"]), *confirmation]

    def _can_confirm(self) -> bool:
        play = self._task.get_play()
        return any(handler.name == CONFIRMATION for block in play.handlers for handler in block.block)

    def _confirm(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": False}
        arguments = {"confirm": True, "request": pack({"run": self._run()})}
        return self.ask(arguments, task_vars)

    @staticmethod
    def _run() -> str:
        # Ansible makes one such directory per run and shares it among its workers: a name for this very run.
        return Path(constants.DEFAULT_LOCAL_TMP).name

    def _picture(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Picture:
        role = self._task._role
        if arguments["source"] is None and role is None:
            raise TreeError("host_tree outside of a role needs its source: name the directory that holds the tree")
        source = Path(arguments["source"] or Path(role.get_role_path(), "tree"))
        if not source.is_dir() and not source.with_suffix(".yml").exists():
            raise TreeError(
                f"{source} does not exist: put the files of the host there, at the paths they have on the host"
            )
        # A role may be named by its path; the host remembers it by its last name.
        name = arguments["name"] or (Path(role.get_name()).name if role else source.parent.name)
        variables = Variables(self._templar, self._loader, task_vars)
        env = environment(
            variables.get,
            (source.parent / "templates",),
            filters=lambda own: Plugins(own, filter_loader),
            tests=lambda own: Plugins(own, test_loader),
        )
        env.globals["lookup"] = variables.lookup
        renderer = Renderer(source, env, name, self._read)
        return renderer.picture(
            overwrite=tuple(variables.paths("host_tree_overwrite")),
            allow_removal=tuple("/" + path.strip("/") for path in variables.paths("host_tree_allow_removal")),
            run=self._run() if self._can_confirm() else "",
            left=None if arguments["left"] is None else tuple(arguments["left"]),
            prune=arguments["prune"],
        )

    def _read(self, path: Path) -> tuple[bytes, bool]:
        content = path.read_bytes()
        if not is_encrypted(content):
            return content, False
        return self._loader.get_text_file_contents(str(path)).encode(), True


class Variables:
    """A host's variables, each templated by Ansible once, when something first asks for it."""

    def __init__(self, templar: Any, loader: Any, task_vars: dict[str, Any]) -> None:
        self._templar = templar
        self._loader = loader
        self._task_vars = task_vars
        self._known: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """Return a variable as plain Python, or `missing`."""
        if name not in self._task_vars:
            return missing
        if name not in self._known:
            self._known[name] = self._template(name)
        return self._known[name]

    def paths(self, name: str) -> list[str]:
        """Return a list of paths that an operator gave, perhaps as one word on the command line."""
        value = self.get(name)
        if value is missing or not value:
            return []
        if isinstance(value, str):
            return value.split(",")
        return [str(path) for path in value]

    def _template(self, name: str) -> Any:
        if name in AS_THEY_ARE:
            return self._task_vars[name]
        try:
            return plain(self._templar.template(self._task_vars[name]))
        except AnsibleError as problem:
            # It may never be used (`is defined`, another branch): let the use fail, with the cause.
            return StrictUndefined(hint=f"the variable {name} cannot be had: {problem}", name=name)

    def lookup(self, name: str, *terms: Any, **options: Any) -> Any:
        """Do what Ansible's own `lookup` does, for the plugins that templates really need."""
        found = lookup_loader.get(name, loader=self._loader, templar=self._templar)
        if found is None:
            raise TreeError(f"there is no lookup plugin {name}")
        wantlist = options.pop("wantlist", False)
        values = plain(found.run(list(terms), variables=self._task_vars, **options))
        return values if wantlist else values[0] if len(values) == 1 else ",".join(str(value) for value in values)


class Plugins(dict[str, Any]):
    """Jinja's own filters or tests, then Ansible's, loaded when a template first names one."""

    def __init__(self, own: dict[str, Any], loader: Any) -> None:
        super().__init__(own)
        self._loader = loader

    def __missing__(self, name: str) -> Any:
        """Load what Jinja does not have itself."""
        try:
            found = self._loader.get(name)
        except (AnsibleError, KeyError):
            found = None
        if found is None:
            raise KeyError(name)
        self[name] = found.j2_function
        return self[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether Jinja or Ansible has it."""
        return self.get(name) is not None

    def get(self, name: Any, default: Any = None) -> Any:
        """Look further than a dictionary does: Jinja asks this way while it compiles."""
        try:
            return self[name]
        except KeyError:
            return default


def _told_of_interruption(result: dict[str, Any]) -> dict[str, Any]:
    if result.get("interrupted"):
        result["msg"] = (
            "an earlier run was interrupted: the next run without --check puts these files back first: "
            f"{', '.join(result['interrupted'])}"
        )
        Display().warning(result["msg"])
    return result
