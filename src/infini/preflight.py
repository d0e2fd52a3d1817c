# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what is wrong with an inventory before any host is touched: one sentence each, with the mend.

Ansible checks a role's arguments when the role starts, which is after the roles before it have changed the host; and it
never says that a variable's name is unknown. So all contracts are checked here first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from infini import ROOT
from infini.plays import read_yaml

Spec = Mapping[str, Mapping[str, Any]]

# Names that Ansible itself puts among a host's variables.
MAGIC = frozenset(
    [
        "environment",
        "group_names",
        "groups",
        "hostvars",
        "inventory_dir",
        "inventory_file",
        "inventory_hostname",
        "inventory_hostname_short",
        "module_setup",
        "omit",
        "play_hosts",
        "playbook_dir",
        "role_names",
        "role_path",
        "vars",
    ]
)


def role_spec(role: str) -> Spec:
    """Return the options of a role's contract."""
    document = read_yaml(ROOT / "roles" / role / "meta/argument_specs.yml") or {}
    options: Spec = document.get("argument_specs", {}).get("main", {}).get("options", {})
    return options


def role_defaults(role: str) -> dict[str, Any]:
    """Return a role's defaults, not templated."""
    return read_yaml(ROOT / "roles" / role / "defaults/main.yml") or {}


def inventory_spec() -> Spec:
    """Return the contract of the inventory's own variables."""
    spec: Spec = read_yaml(ROOT / "src/infini/inventory.yml")
    return spec


def all_roles() -> list[str]:
    """Return the names of all roles."""
    return sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "meta/argument_specs.yml").exists())


def unknown_variables(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Return a sentence for each variable that nothing reads."""
    return [
        f"The variable {name} means nothing here{_nearest(name, known)}"
        for name in sorted(names)
        if name not in known and name not in MAGIC and not name.startswith(("ansible_", "molecule_", "vault_", "_"))
    ]


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {near[0]}?" if near else ": remove it, or correct its name"


def contract_errors(spec: Spec, values: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each value that breaks the contract; values are templated already.

    An undeclared optional variable is not an error: the role's default is the truth.
    """
    wanted = {name: {**option, "required": option.get("required", False)} for name, option in spec.items()}
    result = ArgumentSpecValidator(wanted).validate({name: value for name, value in values.items() if name in spec})
    said = [sentence for message in result.error_messages for sentence in _mended(str(message))]
    return said + _unquoted(spec, values)


def _unquoted(spec: Spec, values: Mapping[str, Any], where: str = "") -> list[str]:
    """Find numbers where a text is meant: YAML reads 8.10 as 8.1, and Ansible accepts it as a text."""
    found = []
    for name, option in spec.items():
        value = values.get(name)
        path = f"{where}{name}"
        if option.get("type", "str") == "str" and isinstance(value, float):
            found.append(f'{path} is the number {value}, a text is meant: put it in quotes, "{value}"')
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Mapping) and "options" in option:
                found += _unquoted(option["options"], inner, f"{path}.")
    return found


_UNSUPPORTED = re.compile(r"^(?P<keys>.*?)\. Supported parameters include: (?P<known>.*)\.$", re.DOTALL)


def _mended(message: str) -> list[str]:
    """Turn Ansible's message about unknown keys into sentences that name the keys meant."""
    match = _UNSUPPORTED.match(message)
    if not match:
        return [message[0].upper() + message[1:]]
    known = re.findall(r"\w+", match["known"])
    paths = match["keys"].split(", ")
    return [f"The key {path} means nothing here{_nearest(path.rpartition('.')[2], known)}" for path in paths]
