# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What README, CONTRIBUTING and the handbook say is true: commands, roles, folders and examples."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jinja2.runtime import missing

from hosting import model
from infini import ROOT, cards, plays, preflight, tree_render
from infini.cli import app
from infini.tree_render import Renderer, environment

PROFILES = plays.read_yaml(ROOT / "inventory/staging/group_vars/all/profiles.yml")["hosting_profiles"]
PAGES = [ROOT / "README.md", ROOT / "README.fr.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(\./infini [^`\n]+)`")
NAMED = re.compile(r"\A(?:# |\{# )((?:roles|inventory|playbooks)/\S+)(?: #\})?\n")
ROLE = "roles/panneaux/"


def commands(page: Path) -> list[str]:
    """Return each `./infini …` that a page shows, in a block of shell or in a line of text."""
    text = page.read_text(encoding="utf-8")
    shown = [line for _, kind, body in CODE.findall(text) if kind == "sh" for line in body.splitlines()]
    return [line.strip() for line in shown if line.strip().startswith("./infini ")] + INLINE.findall(text)


def parse(command: str) -> None:
    """Have the CLI parse a command, its options and arguments too, without running it."""
    words = shlex.split(command, comments=True)[1:]
    door: Any = typer.main.get_command(app)  # a group of commands, until the words have led to one of them
    context = None
    while hasattr(door, "get_command") and words and not words[0].startswith("-"):
        context = door.make_context(door.name, [], parent=context, resilient_parsing=True)
        door = door.get_command(context, words.pop(0))
        assert door, f"{command}: there is no such command"
    if not hasattr(door, "get_command"):
        with door.make_context(door.name, words, parent=context) as made:
            check_names(command, made.params)
    else:
        assert words in ([], ["--help"]), command


def check_names(command: str, given: dict[str, object]) -> None:
    """Check the names that a command is given: playbook, inventory, stage."""
    if "playbook" in given:
        assert (ROOT / f"playbooks/{given['playbook']}.yml").exists(), command
    if given.get("inventory"):
        assert (ROOT / "inventory" / str(given["inventory"])).is_dir(), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_exists(page):
    for command in commands(page):
        parse(command)


def test_the_check_of_commands_can_fail():
    with pytest.raises(Exception, match="No such option"):
        parse("./infini apply --dry-run")
    with pytest.raises(AssertionError):
        parse("./infini deploy")
    with pytest.raises(AssertionError):
        parse("./infini apply nothing")


def test_readme_shows_the_two_commands():
    first = next(
        body for _, kind, body in CODE.findall((ROOT / "README.md").read_text(encoding="utf-8")) if kind == "sh"
    )
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["./infini staging up --yes", "./infini test"]


def test_the_map_of_the_readme_names_what_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    assert rows
    for path in re.findall(r"`([^`]+)`", " ".join(rows)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_architecture_page_names_every_role_with_its_playbook():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE))
    assert told == {use.role: use.playbook for use in cards.uses(ROOT / "playbooks")}
    assert set(told) == {path.name for path in (ROOT / "roles").iterdir()}


def examples() -> dict[str, list[str]]:
    """Return the code blocks that name their file in their first line, by that name."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for _, _, body in CODE.findall(page.read_text(encoding="utf-8")):
            named = NAMED.match(body)
            if named:
                found.setdefault(named[1], []).append(body[named.end() :])
    return found


def documents(prefix: str) -> list[dict]:
    """Return the YAML examples whose file name begins so."""
    found = [body for name, bodies in examples().items() if name.startswith(prefix) for body in bodies]
    assert found, f"no example of {prefix}"
    return [yaml.safe_load(body) for body in found]


def test_the_examples_of_the_inventory_would_pass_preflight():
    specs = [preflight.inventory_spec(), *map(preflight.role_spec, preflight.all_roles())]
    known = {name for spec in specs for name in spec}
    for example in documents("inventory/"):
        assert preflight.unknown_variables(example, known) == []
        assert [error for spec in specs for error in preflight.contract_errors(only(spec, example), example)] == []
        accounts, sites = example.get("hosting_accounts", []), example.get("hosting_sites", [])
        assert model.problems(accounts, sites, ["7.4", "8.2", "8.4"], PROFILES) == []


def only(spec, values):
    """Leave out what a contract wants and an example does not show."""
    return {name: option for name, option in spec.items() if name in values}


@pytest.fixture
def example_role(tmp_path):
    """Write the handbook's example role to a folder."""
    for name, bodies in examples().items():
        if name.startswith(ROLE):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(bodies[0], encoding="utf-8")
    return tmp_path / ROLE


def test_the_example_role_has_one_spec_for_each_default(example_role):
    options = plays.read_yaml(example_role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert set(options) == set(plays.read_yaml(example_role / "defaults/main.yml"))
    assert all(name.startswith("panneaux_") for name in options)


def test_the_tree_of_the_example_role_renders(example_role):
    variables = {"panneaux_port": 8088, "panneaux_pages": [{"name": "fete", "title": "Fête & marché"}]}
    env = environment(lambda name: variables.get(name, missing))
    picture = Renderer(example_role / "tree", env, "panneaux", lambda path: (path.read_bytes(), False)).picture()
    assert set(picture.contents) == {"/etc/lighttpd/lighttpd.conf", "/srv/panneaux/fete.html"}
    assert "Fête &amp; marché" in picture.contents["/srv/panneaux/fete.html"].decode()
    handlers = {
        name
        for task in plays.read_yaml(example_role / "handlers/main.yml")
        for name in (task["name"], task.get("listen"))
    }
    assert {name for told in picture.request.notifications for name in told.handlers} <= handlers


def test_the_card_of_the_example_role_fits_the_schema(example_role):
    assert cards.check(cards.load(example_role / "meta/service.yml"), "the handbook") == []


def test_the_handbook_explains_every_key_of_a_sidecar_and_every_kind_of_check():
    text = (ROOT / "docs/ecrire-un-role.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    schema = plays.read_yaml(cards.SCHEMA)
    assert told - {"kind"} == tree_render.KEYS | set(schema["$defs"]["check"]["properties"]["kind"]["enum"])
