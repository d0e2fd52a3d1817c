# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the playbooks as data: which roles they apply to which group, and how many tasks that makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from infini import ROOT

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _AnsibleLoader(_Loader):  # type: ignore[misc]  # the base is chosen at run time: the C one where it is built
    """YAML as Ansible writes it: !vault and !unsafe are plain text to us."""


_AnsibleLoader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def read_yaml(path: Path) -> Any:
    """Return the document in a YAML file; None for an empty or a missing one."""
    return yaml.load(path.read_bytes(), _AnsibleLoader) if path.exists() else None  # noqa: S506  safe loader's child


def plays(playbook: Path) -> Iterator[dict[str, Any]]:
    """Yield the plays of a playbook in order, those of imported playbooks too."""
    for entry in read_yaml(playbook) or []:
        imported = entry.get("ansible.builtin.import_playbook") or entry.get("import_playbook")
        if imported:
            yield from plays(playbook.parent / imported)
        else:
            yield entry


def applied(play: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each role that a play applies, with its condition: what it lists, then what it imports whole."""
    for entry in play.get("roles") or []:
        yield (entry, None) if isinstance(entry, str) else (entry.get("role") or entry["name"], entry.get("when"))
    for task in play.get("tasks") or []:
        role = task.get("ansible.builtin.import_role") or {}
        if role and "tasks_from" not in role:
            yield role["name"], task.get("when")


def roles_of(play: dict[str, Any]) -> list[str]:
    """Return the names of the roles that a play applies."""
    return [role for role, _when in applied(play)]


def _tasks(path: Path) -> int:
    """Count the tasks of a task file; import_tasks is followed, a block counts what is in it."""
    return sum(_weight(task, path.parent) for task in read_yaml(path) or [])


def _weight(task: dict[str, Any], folder: Path) -> int:
    if "block" in task:
        return sum(_weight(inner, folder) for inner in task["block"])
    imported, role = task.get("ansible.builtin.import_tasks"), task.get("ansible.builtin.import_role")
    if imported:
        return _tasks(folder / imported)
    if role:
        return _tasks(ROOT / "roles" / role["name"] / "tasks" / role.get("tasks_from", "main.yml"))
    return 1


def count_tasks(playbook: Path) -> int:
    """Return how many tasks a run of the playbook starts at most; handlers come on top.

    A role with an argument spec costs one more (Ansible validates it first), and so does gathering facts once.
    """
    total, gathers = 0, False
    for play in plays(playbook):
        for section in ("pre_tasks", "tasks", "post_tasks"):
            total += sum(_weight(task, playbook.parent) for task in play.get(section, []))
        for role in play.get("roles", []):
            folder = ROOT / "roles" / (role if isinstance(role, str) else role["role"])
            total += _tasks(folder / "tasks/main.yml") + (folder / "meta/argument_specs.yml").exists()
        gathers = gathers or play.get("gather_facts", True)
    return total + gathers
