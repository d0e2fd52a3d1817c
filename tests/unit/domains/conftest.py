# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test of the domains starts from."""

import pytest

from infini.domains import secrets


@pytest.fixture(autouse=True)
def no_secret_of_another_test(monkeypatch):
    """Forget the secrets that this process has met: one test's token may be a word that another looks for."""
    monkeypatch.setattr(secrets, "_known", set())
