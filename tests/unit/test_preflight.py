# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input gets one sentence with the mend before anything is touched."""

import pytest

from infini import preflight

SPEC = {
    "web_port": {"type": "int", "required": True},
    "web_mode": {"type": "str", "choices": ["fast", "safe"]},
    "web_sites": {
        "type": "list",
        "elements": "dict",
        "options": {"name": {"type": "str", "required": True}, "php": {"type": "str"}},
    },
}


def test_good_values_are_silent():
    assert preflight.contract_errors(SPEC, {"web_port": 80, "web_sites": [{"name": "a.test", "php": "8.2"}]}) == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "Missing required arguments: web_port"),
        ({"web_port": "eighty"}, "unable to convert to int"),
        ({"web_port": 1, "web_mode": "slow"}, "Value of web_mode must be one of: fast, safe, got: slow"),
        ({"web_port": 1, "web_sites": [{"nmae": "a", "name": "b"}]}, "did you mean name?"),
        ({"web_port": 1, "web_sites": [{"name": "a", "php": 8.1}]}, 'put it in quotes, "8.1"'),
    ],
)
def test_bad_values_are_told_with_the_mend(values, says):
    errors = preflight.contract_errors(SPEC, values)
    assert any(says in error for error in errors), errors


def test_each_unknown_key_is_told_of():
    errors = preflight.contract_errors(
        SPEC, {"web_port": 1, "web_sites": [{"name": "a", "phpp": "x", "colour": "red"}]}
    )
    assert len(errors) == 2


def test_an_unknown_variable_is_named_with_the_nearest_known_one():
    assert preflight.unknown_variables(["web_prot"], SPEC) == [
        "The variable web_prot means nothing here: did you mean web_port?"
    ]


def test_what_ansible_puts_there_is_known():
    assert preflight.unknown_variables(["ansible_host", "groups", "vault_token", "web_port"], SPEC) == []
