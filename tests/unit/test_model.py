# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts and sites: what is refused in which words, and what follows from lists that are fine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting import model

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5vdEFLZXlBdEFsbEp1c3RGb3JUZXN0cw velo@example.test"
VELO = {"name": "velo"}
SITE = {"name": "velo.test", "account": "velo", "php": "8.2"}
VERSIONS = ["7.4", "8.2", "8.4"]

LOGINS = st.from_regex(r"[a-z][a-z0-9]{1,30}", fullmatch=True)
SITES = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.from_regex(r"[a-z0-9]{1,20}\.test", fullmatch=True),
            "account": st.sampled_from(["velo", "chorale"]),
        },
        optional={"php": st.sampled_from([None, *VERSIONS]), "database": st.sampled_from(["velo_spip", None])},
    ),
    unique_by=lambda site: site["name"],
)


def said(accounts=(VELO,), sites=(SITE,), versions=VERSIONS):
    return model.problems(accounts, sites, versions)


def test_a_platform_without_problems_is_passed_over_in_silence():
    account = {
        **VELO,
        "keys": [KEY],
        "password_hash": "$6$salt$hash",
        "limits": {"memory": "1G", "tasks": 9, "cpu": "50%"},
    }
    sites = [
        {**SITE, "aliases": ["www.velo.test", "xn--vlo-bma.test"], "database": "velo_spip"},
        {"name": "archive.velo.test", "account": "velo", "database": "velo_spip"},
    ]
    assert said([account], sites) == []


@pytest.mark.parametrize(
    "login", ["", "v", "Velo", "vélo", "velo-rouge", "2roues", "a" * 32, "velo ", "../velo", "velo\n"]
)
def test_a_login_that_units_and_paths_could_misread_is_refused(login):
    assert "cannot be an account" in said([{"name": login}], [])[0]


@pytest.mark.parametrize(
    "name",
    [
        "velo",
        "velo..test",
        "-velo.test",
        "Velo.test",
        "vélo.test",
        "velo.test/..",
        "velo.42",
        "a." * 130 + "fr",
        "*.fr",
    ],
)
def test_what_is_no_domain_name_is_refused(name):
    assert "cannot be the name of a site" in said(sites=[{**SITE, "name": name}])[0]


@pytest.mark.parametrize(
    ("second", "who"),
    [
        ({"name": "velo.test"}, "by velo.test"),
        ({"name": "autre.test", "aliases": ["velo.test"]}, "by velo.test and autre.test"),
        ({"name": "www.velo.test"}, "by velo.test and www.velo.test"),
    ],
)
def test_two_sites_with_one_name_are_refused(second, who):
    (sentence,) = said(sites=[{**SITE, "aliases": ["www.velo.test"]}, {"account": "velo", **second}])
    assert "is claimed 2 times" in sentence
    assert who in sentence


@pytest.mark.parametrize(
    ("accounts", "site", "sentence"),
    [
        ([VELO, VELO], {}, "The account velo is declared 2 times in hosting_accounts: keep one."),
        ([VELO], {"account": "veol"}, "belongs to veol, which is no declared account: did you mean velo?"),
        ([VELO], {"account": "jardin"}, "belongs to jardin, which is no declared account: declare it"),
        ([VELO], {"account": None}, "The site velo.test has no account"),
        ([VELO], {"php": "5.6"}, "asks for PHP 5.6, which no runtime offers (there are: 7.4, 8.2, 8.4)"),
        ([VELO], {"database": "velo-spip"}, "'velo-spip' cannot be the database of velo.test"),
        ([{**VELO, "keys": ["velo@example.test"]}], {}, "A key of the account velo is not an SSH public key"),
        ([{**VELO, "keys": [f"{KEY}\nssh-rsa AAAA"]}], {}, "A key of the account velo is not an SSH public key"),
        ([{**VELO, "password_hash": "bicyclette"}], {}, "password_hash of the account velo is not a hash"),
        ([{**VELO, "limits": {"memory": "lots"}}], {}, "has memory: lots as a limit: write an amount such as 512M."),
        ([{**VELO, "limits": {"cpu": 100}}], {}, 'has cpu: 100 as a limit: write an amount such as "100%".'),
    ],
)
def test_each_mistake_gets_one_sentence(accounts, site, sentence):
    problems = said(accounts, [{**SITE, **site}])
    assert len(problems) == 1
    assert sentence in problems[0]


TO = {"to": "https://velo.test/fete?a=1#b", "code": 302}


def test_a_redirection_needs_no_account():
    assert said(sites=[SITE, {"name": "fete.test", "aliases": ["www.fete.test"], "redirect": TO}]) == []


@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        ({"account": "velo", "php": "8.2"}, "(`redirect`), so it cannot have account, php: keep one of the two."),
        ({"redirect": {**TO, "to": "velo.test"}}, "cannot lead to 'velo.test': write a whole URL"),
        ({"redirect": {**TO, "to": "https://velo"}}, "cannot lead to 'https://velo': velo is no full domain name"),
        ({"redirect": {**TO, "to": "https://vélo.test/"}}, "write a whole URL"),
        ({"redirect": {**TO, "to": 'https://velo.test/"\n'}}, "write a whole URL"),
        ({"redirect": {**TO, "to": "https://velo.test/${HOME}"}}, "write a whole URL"),
        ({"redirect": {**TO, "to": "https://velo.test/" + "a" * 2000}}, "write a whole URL"),
        ({"redirect": {**TO, "to": "https://fete.test/x"}}, "leads to itself (https://fete.test/x)"),
        ({"aliases": ["velo.test"]}, "leads to itself"),
        ({"redirect": {**TO, "code": 307}}, "has the code 307: 301 (for good) or 302 (for now)."),
        ({"redirect": {**TO, "keep_path": True}}, "keeps the visitor's path: nothing can follow a ? or #"),
    ],
)
def test_each_mistake_in_a_redirection_gets_one_sentence(site, sentence):
    (problem,) = said(sites=[{"name": "fete.test", "redirect": TO, **site}])
    assert problem.startswith(("The redirection of fete.test", "The site fete.test"))
    assert sentence in problem


def test_a_redirection_is_served_by_front_and_certificates_and_belongs_to_nobody():
    sites = [SITE, {"name": "fete.test", "aliases": ["www.fete.test"], "redirect": {**TO, "keep_path": False}}]
    assert [host["name"] for host in model.virtual_hosts(sites)] == ["velo.test"]
    assert model.redirections(sites) == [{"name": "fete.test", "aliases": ["www.fete.test"], **TO, "keep_path": False}]
    assert model.names(sites)[1] == {"name": "fete.test", "aliases": ["www.fete.test"]}
    assert [site.get("plain_http", False) for site in model.front_sites(sites)] == [False, True]
    assert (len(model.pools(sites)), model.databases(sites), model.cms_sites(sites)) == (1, [], [])


def test_a_password_that_is_no_hash_is_not_repeated():
    assert "bicyclette" not in said([{**VELO, "password_hash": "bicyclette"}])[0]


def test_a_database_belongs_to_one_account():
    sites = [{**SITE, "database": "commune"}, {"name": "b.test", "account": "jardin", "database": "commune"}]
    (sentence,) = said([VELO, {"name": "jardin"}], sites)
    assert sentence.startswith("The database commune is used by the accounts jardin and velo")


def test_sites_that_share_a_pool_agree_on_its_settings():
    sites = [
        {**SITE, "php_settings": {"memory_limit": "128M", "max_execution_time": 60}},
        {**SITE, "name": "b.test", "php_settings": {"memory_limit": "256M"}},
        {**SITE, "name": "c.test", "php": "8.4", "php_settings": {"memory_limit": "512M"}},
    ]
    (sentence,) = said(sites=sites)
    assert "want memory_limit = 128M and 256M" in sentence


def test_entries_without_a_name_are_left_to_the_contracts():
    assert said([VELO, {"comment": "nobody"}, "velo"], [SITE, {"account": "velo"}]) == []


def test_one_pool_for_each_account_and_version():
    sites = [
        SITE,
        {**SITE, "name": "b.test", "php_settings": {"memory_limit": "256M"}},
        {**SITE, "name": "c.test", "php": "7.4"},
        {"name": "d.test", "account": "velo"},
    ]
    assert model.pools(sites) == [
        {"account": "velo", "version": "7.4", "settings": {}},
        {"account": "velo", "version": "8.2", "settings": {"memory_limit": "256M"}},
    ]


@given(SITES)
def test_every_site_with_php_finds_the_entrance_of_a_pool(sites):
    entrances = {model.socket(pool["account"], pool["version"]) for pool in model.pools(sites)}
    used = {host["socket"] for host in model.virtual_hosts(sites)} - {""}
    assert used == entrances
    assert len(model.pools(sites)) == len(entrances)


@given(LOGINS)
def test_a_home_stands_under_its_login(login):
    (account,) = model.unix_accounts([{"name": login}])
    assert account == {"name": login, "home": f"/srv/members/{login}", "shell": "/usr/sbin/nologin", "comment": ""}
    assert not said([{"name": login}], [])


def test_a_database_is_entered_by_the_login_of_its_account():
    sites = [{**SITE, "database": "velo_spip"}, {**SITE, "name": "b.test", "database": "velo_spip"}, {"name": "c.test"}]
    assert model.databases(sites) == [{"name": "velo_spip", "user": "velo"}]
