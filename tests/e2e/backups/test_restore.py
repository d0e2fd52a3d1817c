# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tech does with a member beside: a hacked site as it was before, a file, a database, an account."""

import subprocess
from datetime import datetime

import pytest
from commands import infini

SITE = "/srv/members/velo/www/velo.test"


def count(web, database):
    """Return how many articles a SPIP has."""
    return web.check_output("mariadb -BN %s -e 'SELECT COUNT(*) FROM spip_articles'", database)


@pytest.fixture(scope="module")
def before_the_hack(host, inventory):
    """Back up, then spoil a site: a page replaced, a file lost, a shell left, articles deleted. Put all of it back."""
    web = host(inventory.hosts("webs")[0])
    web.check_output(f"echo 'a text that a member misses' > {SITE}/lost.txt; chown velo:velo {SITE}/lost.txt")
    status, saved = infini("backup", "--limit", "web")
    assert status == 0, saved
    moment = datetime.now().isoformat(" ", "seconds")
    articles = count(web, "velo")
    web.check_output(f"rm {SITE}/lost.txt; echo '<?php // shell' > {SITE}/x.php; echo hacked > {SITE}/index.php")
    web.check_output("mariadb -e 'DELETE FROM velo.spip_articles'")
    assert infini("backup", "--limit", "web")[0] == 0, "the newest archive holds the hacked site"
    yield moment, articles
    infini("restore", "site", "velo.test", "--before", moment, "--over", "velo.test")
    web.check_output(f"rm -rf {SITE}/lost.txt /srv/restored")
    for name in web.check_output("mariadb -BN -e \"SHOW DATABASES LIKE 'velo\\\\_2%'\"").split():
        web.check_output(f"mariadb -e 'DROP DATABASE `{name}`'")


def test_what_would_come_back_is_said_and_nothing_is_touched(before_the_hack, web):
    moment, _articles = before_the_hack
    status, said = infini("restore", "site", "velo.test", "--before", moment, "--check")
    assert (status, said["restored"]) == (0, [])
    assert not web.file(f"{SITE}/lost.txt").exists


def test_a_site_comes_back_beside_with_its_database(before_the_hack, web):
    moment, articles = before_the_hack
    status, answer = infini("restore", "site", "velo.test", "--before", moment)
    assert status == 0, answer
    files, databases = sorted(answer["restored"], key=lambda one: one["service"])
    beside = web.file(f"{files['to']}{SITE}/lost.txt")
    assert beside.content_string == "a text that a member misses\n"
    assert (beside.user, beside.group) == ("velo", "velo")
    assert not web.file(f"{files['to']}{SITE}/x.php").exists
    loaded = databases["databases"]["velo"]
    assert loaded != "velo"
    assert count(web, loaded) == articles
    assert web.file(f"{SITE}/index.php").content_string == "hacked\n", "the living was not touched"


def test_a_site_comes_back_over_the_living_and_what_stood_there_is_kept(before_the_hack, web, web_address, ca_file):
    moment, articles = before_the_hack
    status, answer = infini("restore", "site", "velo.test", "--before", moment, "--over", "velo.test")
    assert status == 0, answer
    assert web.file(f"{SITE}/lost.txt").exists
    assert not web.file(f"{SITE}/x.php").exists
    assert count(web, "velo") == articles
    replaced = dict(path for one in answer["restored"] for path in one["replaced"])
    assert web.file(f"{replaced[SITE]}/x.php").exists, "the hacked site is evidence"
    page = ["curl", "--silent", "--cacert", ca_file, "--resolve", f"velo.test:443:{web_address}", "https://velo.test/"]
    assert "La bourse aux vélos" in subprocess.run(page, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("before_the_hack")
def test_another_name_than_the_one_asked_for_is_refused():
    status, refused = infini("restore", "site", "velo.test", "--over", "chorale.test")
    assert status == 2
    assert "name the same thing twice" in refused["error"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("site", "nowhere.test"), "no host that is backed up has a site “nowhere.test”"),
        (("path", "web:/opt/elsewhere"), "/opt/elsewhere is in no backup"),
        (("site", "velo.test", "--before", "1999-01-01"), "holds nothing of accounts from before"),
        (("site", "velo.test", "--before", "yesterday"), "“yesterday” is no time"),
    ],
)
def test_what_cannot_come_back_is_one_sentence(words, says):
    status, refused = infini("restore", *words)
    assert status == 2
    assert says in refused["error"]
