# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A role's contract, its defaults and its name cannot drift apart."""

from pathlib import Path

import pytest
import yaml

from infini import ROOT, plays, preflight

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_its_contract_its_defaults_and_its_card(role):
    for part in ("meta/argument_specs.yml", "defaults/main.yml", "meta/service.yml", "tasks/main.yml"):
        assert (ROOT / "roles" / role / part).exists(), f"roles/{role}/{part} is missing"


@pytest.mark.parametrize("role", ROLES)
def test_contract_and_defaults_name_the_same_variables(role):
    optional = {name for name, option in preflight.role_spec(role).items() if not option.get("required")}
    assert optional == set(preflight.role_defaults(role))


@pytest.mark.parametrize("role", ROLES)
def test_public_variables_carry_the_name_of_the_role(role):
    assert [name for name in preflight.role_spec(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_described(role):
    assert [name for name, option in preflight.role_spec(role).items() if not option.get("description")] == []


def test_every_role_is_applied_by_a_play():
    applied = {role for play in plays.plays(ROOT / "playbooks/site.yml") for role in plays.roles_of(play)}
    assert applied == set(ROLES)


def test_collections_are_those_that_the_locked_ansible_carries():
    # Looked up where the interpreter keeps them, so that both ends of the Python matrix are compared.
    import ansible_collections

    wanted = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    for collection in wanted:
        namespace, name = collection["name"].split(".")
        manifest = Path(next(iter(ansible_collections.__path__))) / namespace / name / "MANIFEST.json"
        version = yaml.safe_load(manifest.read_text())["collection_info"]["version"]
        assert version in collection["version"].split(" or "), collection["name"]
