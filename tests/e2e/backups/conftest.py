# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the backups share."""

import pytest
from stores import World


@pytest.fixture(scope="module")
def built(inventory, tmp_path_factory):
    """Give two clients of our own at the bench's store, and take them away again."""
    world = World(inventory, tmp_path_factory.mktemp("keys"))
    try:
        world.build()
        world.begin()
        yield world
    finally:
        world.tear_down()


@pytest.fixture
def world(built):
    """Give them with three days of backups each, a generation that holds them, and a keeper who has seen them."""
    built.again()
    return built
