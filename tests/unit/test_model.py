# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts and sites: what is refused in which words, and what follows from lists that are fine."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hosting import model

SHIPPED = Path(__file__).parents[2] / "inventory/staging/group_vars/all/profiles.yml"
PROFILES = yaml.safe_load(SHIPPED.read_text())["hosting_profiles"]
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


def said(accounts=(VELO,), sites=(SITE,), versions=VERSIONS, profiles=PROFILES):
    return model.problems(accounts, sites, versions, profiles)


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
        ([{**VELO, "limits": {"io": 10001}}], {}, "has io: 10001 as a limit: write an amount from 1 to 10000."),
        ([{**VELO, "limits": {"memory": "127M"}}], {}, "PHP with its code cache and one page needs 128M: give it that"),
        (
            [{**VELO, "limits": {"files": 64}}],
            {},
            "may have 64 files open, but PHP and one page need 128: give",
        ),
        (
            [{**VELO, "limits": {"tasks": 20, "children": 20}}],
            {},
            "The account velo has 20 tasks, fewer than its PHP takes (20 children and its master: 21): raise `tasks`",
        ),
        (
            [{**VELO, "profile": "petiit"}],
            {},
            "The account velo has the profile petiit, which hosting_profiles does not know: did you mean petit?",
        ),
        ([{**VELO, "profile": "xxl"}], {}, "which hosting_profiles does not know: there are petit, moyen, grand."),
        ([{**VELO, "outgoing": [{"port": 70000}]}], {}, "outgoing of the account velo: 70000 is not a port"),
        ([{**VELO, "outgoing": [{"port": "https"}]}], {}, "outgoing of the account velo: https is not a port"),
        (
            [{**VELO, "outgoing": [{"port": 993, "to": ["imap.test"]}]}],
            {},
            "outgoing of the account velo: imap.test is neither an address",
        ),
        ([VELO], {"php_disabled": ["exec", "no-such"]}, "disables 'no-such', which is no function of PHP"),
        ([VELO], {"connections": 0}, "The site velo.test has connections: 0: write an amount such as 60."),
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
    assert [site.get("plain_http", False) for site in model.front_sites(sites, [VELO], PROFILES)] == [False, True]
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
    assert [(pool["account"], pool["version"], pool["settings"]) for pool in model.pools(sites)] == [
        ("velo", "7.4", {}),
        ("velo", "8.2", {"memory_limit": "256M"}),
    ]


def test_an_account_takes_its_profile_and_its_own_limits_win():
    velo = {"name": "velo", "profile": "grand", "limits": {"memory": "3G", "children": 8}}
    assert model.limits(velo, PROFILES) == {
        "memory": "3G",
        "tasks": 256,
        "cpu": "300%",
        "io": 400,
        "files": 4096,
        "children": 8,
        "connections": 120,
    }
    (pool,) = model.pools([SITE], [velo], PROFILES)
    assert (pool["children"], pool["files"]) == (8, 4096)
    (site,) = model.front_sites([SITE], [velo], PROFILES)
    assert site == {"name": "velo.test", "aliases": [], "connections": 120}
    (site,) = model.front_sites([{**SITE, "connections": 9}], [velo], PROFILES)
    assert site["connections"] == 9


def test_only_a_slice_that_differs_from_the_usual_one_is_said():
    velo, chorale, bourg = model.members(
        [
            {"name": "velo", "profile": "moyen", "limits": {"cpu": "100%"}},
            {"name": "chorale", "comment": "Chorale"},
            {"name": "bourg", "limits": {"children": 9}},
        ],
        PROFILES,
    )
    assert velo == {"name": "velo", "limits": {"memory": "1G", "tasks": 128, "io": 200}}
    assert chorale == {"name": "chorale", "comment": "Chorale", "limits": {}}
    assert bourg["limits"] == {}
    assert model.default_limits(PROFILES) == {"memory": "512M", "tasks": 64, "cpu": "100%", "io": 100}


def test_the_shipped_profiles_have_no_problem_and_a_broken_one_is_said_once():
    petit, *others = PROFILES
    assert said([VELO, {"name": "jardin", "profile": "grand"}], [SITE], profiles=PROFILES) == []
    (sentence,) = said(profiles=[{**petit, "memory": "64M"}, *others])
    assert sentence.startswith("The profile petit has 64M of memory")
    (sentence,) = said(profiles=[petit, petit])
    assert sentence == "The profile petit is declared 2 times in hosting_profiles: keep one."
    assert said(profiles=others)[0].startswith("hosting_profiles has no petit")


def test_an_account_with_many_versions_needs_tasks_for_all_of_them():
    account = {**VELO, "limits": {"tasks": 10}}
    assert said([account], [SITE]) == []
    (sentence,) = said([account], [SITE, {**SITE, "name": "b.test", "php": "7.4"}])
    assert "(5 children and a master, for each of its 2 versions of PHP: 12)" in sentence


def test_sites_that_share_a_pool_agree_on_what_is_disabled():
    exec_off = {**SITE, "php_disabled": ["system", "exec"]}
    silent = {**SITE, "name": "b.test"}
    assert said(sites=[exec_off, silent, {**silent, "name": "c.test", "php_disabled": ["exec", "system"]}]) == []
    (sentence,) = said(sites=[exec_off, {**silent, "php_disabled": ["exec"]}])
    assert "velo.test and b.test share a pool (account velo, PHP 8.2) but disable exec, system and exec:" in sentence
    assert model.pools([silent, exec_off, {**silent, "name": "c.test"}])[0]["disabled"] == ["exec", "system"]


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


def test_a_version_that_is_gone_is_told_once_with_all_its_sites():
    sites = [{**SITE, "name": f"{name}.test", "php": "5.6"} for name in ("a", "b")]
    assert said(sites=sites) == [
        (
            "2 sites ask for PHP 5.6, which no runtime offers (there are: 7.4, 8.2, 8.4): a.test, b.test. "
            "Change these sites or add the version to php_runtimes."
        )
    ]


@pytest.mark.parametrize(
    ("mark", "when"), [({"retiring": True}, ""), ({"until": "2027-01-31"}, " on 2027-01-31"), ({}, None)]
)
def test_a_version_that_retires_is_a_notice_with_its_sites(mark, when):
    runtimes = [{"version": "8.2", **mark}, {"version": "7.4", "retiring": True}]
    expected = [
        (
            f"PHP 8.2 retires{when}, and 1 site still asks for it: velo.test. "
            "Change `php` of each; the runtime cannot go before."
        )
    ]
    assert model.notices([SITE, {"name": "static.test", "account": "velo"}], runtimes) == (expected if mark else [])


@pytest.mark.parametrize("version", ["../../etc", "8.2/x", "8", "", "8.2\n"])
def test_a_version_that_would_leave_its_directory_is_refused(version):
    assert "is not a version of PHP" in said(versions=[*VERSIONS, version])[0]


def test_a_runtime_is_declared_once():
    assert said(versions=[*VERSIONS, "8.2"]) == ["PHP 8.2 is declared 2 times in php_runtimes: keep one."]


@pytest.mark.parametrize("line", ["ErrorLog /nowhere/x", "  customlog x y", "</VirtualHost>", "<VirtualHost *:80>"])
def test_directives_that_could_keep_apache_from_starting_are_refused(line):
    (sentence,) = said(sites=[{**SITE, "apache": f"Header set X-A b\n{line}"}])
    assert "The site velo.test says" in sentence
    assert said(sites=[{**SITE, "apache": "Header set ErrorLog x"}]) == []


def test_raw_directives_reach_the_virtual_host():
    (host,) = model.virtual_hosts([{**SITE, "apache": "Header set A b"}])
    assert host["apache"] == "Header set A b"


def test_the_front_knows_names_and_what_a_site_wants_otherwise():
    sites = [
        {
            "name": "velo.test",
            "aliases": ["www.velo.test"],
            "account": "velo",
            "robots": {"train": "welcome"},
            "expensive": 600,
        },
        {"name": "bourg.test", "account": "bourg", "php": "8.2"},
    ]
    accounts = [VELO, {"name": "bourg"}]
    connections = model.limits(VELO, PROFILES)["connections"]
    assert model.front_sites(sites, accounts, PROFILES) == [
        {
            "name": "velo.test",
            "aliases": ["www.velo.test"],
            "connections": connections,
            "robots": {"train": "welcome"},
            "expensive": 600,
        },
        {"name": "bourg.test", "aliases": [], "connections": connections},
    ]


def test_a_client_has_a_repository_of_its_own_at_each_store():
    hosts = {
        "store": {"hosting_fqdn": "store.test"},
        "far": {"hosting_fqdn": "far.test"},
        "web": {"backup_passphrase": "p"},
    }
    repositories = [
        {"label": "store", "path": "ssh://backup-web@store.test/srv/backups/web/live"},
        {"label": "far", "path": "ssh://backup-web@far.test/srv/backups/web/live"},
    ]
    assert model.backup_repositories(["store", "far"], hosts, "web") == repositories
    assert model.backup_clients(["web"], ["store", "far"], hosts) == [
        {"name": "web", "passphrase": "p", "repositories": repositories}
    ]
