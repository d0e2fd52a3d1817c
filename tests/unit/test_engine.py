# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What travels to a host: an engine alone, whole, and answering there."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zlib

import pytest

from infini import engine

SYMPA = ["sympa_robots_door", "sympa_lists_door", "sympa_subscribers_door"]
DOORS = ["tree_door", "units_door", "php_door", "alternc_sets_door", *SYMPA]


@pytest.mark.parametrize("door", [*DOORS, "alternc_apply"])
def test_all_that_a_door_imports_travels_with_it_and_nothing_else(door):
    wanted, missing = set(), {door}
    while missing:
        name = missing.pop()
        wanted.add(name)
        for node in ast.walk(ast.parse((engine.HOSTING / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                missing |= {node.module} if node.module else {one.name for one in node.names}
        missing -= wanted
    assert set(engine.sources(door)) == wanted


def test_several_names_of_one_import_all_travel(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "HOSTING", tmp_path)
    (tmp_path / "door.py").write_text("from . import one, two as second, three\nfrom .four import Five, six\n")
    for name in ("one", "two", "three", "four", "second", "six"):
        (tmp_path / f"{name}.py").write_text(f"NAME = '{name}'\n")
    assert set(engine.sources("door")) == {"door", "one", "two", "three", "four"}
    assert engine.sources("door")["two"] == "NAME = 'two'\n"


def test_what_the_role_copies_of_the_engine_is_whole_on_a_bare_host(tmp_path):
    (tmp_path / "hosting").mkdir()
    (tmp_path / "hosting/__init__.py").touch()
    for name, text in engine.sources("alternc_apply").items():
        (tmp_path / f"hosting/{name}.py").write_text(text)
    load = "import sys; sys.path.insert(0, sys.argv[1]); from hosting.alternc_apply import main; print(main([]))"
    words = [sys.executable, "-I", "-S", "-B", "-c", load, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
    assert "alternc-apply check" in done.stderr


def test_a_door_answers_where_nothing_of_ours_is_installed(tmp_path):
    letter = {
        "boot": engine.BOOT,
        "engine": "php",
        "sources": engine.sources("php_door"),
        "asked": {"directory": str(tmp_path), "trees": [], "state": "present", "force": False, "prepare": False},
        "options": {"check_mode": True, "diff": False},
    }
    words = [sys.executable, "-I", "-S", "-c", engine.OPEN]
    done = subprocess.run(words, input=zlib.compress(json.dumps(letter).encode()), stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout)["changed"] is False
