# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the `alternc_*` modules share: read the panel, plan whole sets, carry them out, say what was done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from . import alternc_door, alternc_sets
from .alternc_data import Entry, Panel
from .alternc_sets import Kind, Plan, SetError, Wishes
from .brake import UnsafePlanError

NAMES: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
SCOPE = {"scope": {"type": "list", "elements": "str"}}
OWNING = {"prune": {"type": "bool", "default": True}, "remove": NAMES, "confirm_removals": NAMES}
PASSWORDS = {
    "update_password": {"type": "str", "choices": ["on_create", "always"], "default": "on_create", "no_log": False}
}
SECRETS = {"password": {"type": "str", "no_log": True}, "password_hash": {"type": "str", "no_log": True}}

Sets = Sequence[tuple[Kind, Sequence[Mapping[str, Any]]]]


def main(module: Any, sets: Sets | Callable[[Panel], Sets], problems: Collection[str] = ()) -> None:
    """Read, plan, write; `sets` may be asked for once the panel is known."""
    if problems:
        module.fail_json(msg="\n".join(problems))
    try:
        panel = _read(module)
        wanted = sets(panel) if callable(sets) else sets
        plans = [_plan(module, kind, entries, panel) for kind, entries in wanted]
        outcome = alternc_door.Outcome() if module.check_mode else alternc_door.carry(_runner(module), plans)
    except (SetError, UnsafePlanError, alternc_door.PanelError) as error:
        module.fail_json(msg=str(error))
    result = _result(plans)
    if outcome.sentence():
        module.fail_json(
            msg=outcome.sentence(), done=outcome.done, failed=outcome.failed, untried=outcome.untried, **result
        )
    module.exit_json(**result)


def read(module: Any) -> Panel:
    """Return what the panel holds, or fail with the sentence."""
    try:
        return alternc_door.read(_runner(module))
    except alternc_door.PanelError as error:
        module.fail_json(msg=str(error))
        raise


def _read(module: Any) -> Panel:
    if module.check_mode and not alternc_door.is_installed():
        return Panel()  # a check on a host that is still to become a panel
    return alternc_door.read(_runner(module))


def _plan(module: Any, kind: Kind, entries: Sequence[Mapping[str, Any]], panel: Panel) -> Plan:
    options, fits = module.params, set()
    always = options.get("update_password") == "always"
    if always:
        fits = alternc_door.fitting(_runner(module), kind.name, alternc_sets.passwords(kind, entries, panel))
    mine = {row[kind.key] for row in panel.rows(kind.name) if kind.key in row}
    named = set(options.get("remove") or ())
    wishes = Wishes(
        prune=options.get("prune", False),
        scope=None if options.get("scope") is None else set(options["scope"]),
        remove=named if kind.index else named & (mine | {entry[kind.key] for entry in entries}),
        confirmed=set(options.get("confirm_removals") or ()) | named,
        always=always,
        fits=fits,
        fresh=module.check_mode,
        ignore=options.get("ignore") or (),
    )
    return alternc_sets.plan(kind, entries, panel, wishes)


def _runner(module: Any) -> alternc_door.Run:
    def run(command: Sequence[str], data: str) -> tuple[int, str, str]:
        environment = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}
        code, out, err = module.run_command(list(command), data=data, binary_data=True, environ_update=environment)
        return int(code), str(out), str(err)

    return run


def _result(plans: Sequence[Plan]) -> Entry:
    def named(*verbs: str) -> list[str]:
        return [key for plan in plans for key in plan.named(*verbs)]

    return {
        "changed": any(plan.changed for plan in plans),
        "created": named("create"),
        "mended": named("change"),
        "shut": named("shut"),
        "removed": named("remove"),
        "kept": [key for plan in plans for key in plan.kept],
        "diff": alternc_sets.diff(plans),
    }
