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

DOORS = ["tree_door", "units_door", "php_door"]


@pytest.mark.parametrize("door", DOORS)
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
