# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a member changes in the panel becomes what visitors see."""

import json
import re
import threading
import time
import urllib.parse

import pytest

A_SECOND = 20
"""Requests to each site while its version changes: the front refuses a visitor who sends more than 30."""


@pytest.fixture(scope="module")
def sites(members):
    """Make a site of each member; both answer."""
    names = [member.site("page") for member in members]
    panel = members[0].panel
    for name in names:
        assert panel.until(lambda name=name: panel.page(name)[1].startswith("PHP ")), (name, panel.problems())
    return names


def test_the_panel_is_whole(panel):
    assert panel.problems() == ""
    assert panel.run("ls /run/alternc/jobs-lock", check=False) == ""
    assert panel.sql("SELECT id FROM actions WHERE begin IS NULL OR end IS NULL OR end = 0") == []
    assert panel.run("systemctl is-failed incron", check=False) in ("inactive", "unknown")


def log_in(panel, login, password):
    """Log in as a browser does; return the status."""
    _status, page, headers = panel.secure_page()
    cookies = "; ".join(word.split(";")[0] for word in headers.get_all("Set-Cookie", []))
    token = re.search(r'name="csrf"\s+value="([^"]*)"', page)
    assert token, "the page has a form to log in"
    form = urllib.parse.urlencode({"username": login, "password": password, "csrf": token[1]})
    headers = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded"}
    with panel.secure() as connection:
        connection.request("POST", "/login.php", form, headers)
        return connection.getresponse().status


def test_nobody_gets_in_by_the_password_that_everybody_knows(panel, members):
    member = members[0]  # first somebody who gets in, so that the last line means something
    assert log_in(panel, member.login, f"Chat-noir-7-{member.login}") == 302
    assert log_in(panel, "admin", "admin") == 200


def test_a_row_becomes_a_page_and_a_record(panel, members):
    members[0].set("ici", "url", "https://exemple.test/la")
    members[0].set("texte", "txt", "un deux")
    name = f"ici.{members[0].domain}"
    assert panel.until(lambda: panel.page(name)[2].startswith("https://exemple.test/la")), panel.problems()
    assert panel.until(lambda: panel.answer(f"texte.{members[0].domain}", "TXT") == ['"un deux"']), panel.problems()


def test_a_burst_of_changes(panel, members):
    member = members[1]
    said = panel.php(
        f"""$mem->su({member.uid}); $ok = 0;
        for ($i = 0; $i < 200; $i++) {{
            $dom->lock(); $to = "https://exemple.test/$i";
            $ok += (int)(bool)$dom->set_sub_domain("{member.domain}", "rafale$i", "url", $to, 0, "");
            $dom->unlock(); touch($L_INOTIFY_UPDATE_DOMAIN);
        }} echo json_encode($ok);"""
    )
    assert said == 200
    name = f"rafale199.{member.domain}"
    assert panel.until(lambda: panel.page(name)[2].startswith("https://exemple.test/199")), panel.problems()
    for number in (0, 57, 123):
        assert panel.page(f"rafale{number}.{member.domain}")[2].startswith(f"https://exemple.test/{number}")
    assert panel.run("systemctl is-active alternc-apply.path") == "active"


def test_without_a_change_nothing_moves(panel, inventory):
    serials = "grep -h -o '[0-9]\\{10\\} *; serial' /var/lib/alternc/bind/zones/* | sort"
    assert panel.until(lambda: not panel.run("alternc-apply now", check=False))
    before = panel.run(serials), panel.generation()
    ran = panel.run("stat -c %Y /var/lib/infini-alternc/state.json")
    time.sleep(3 * int(inventory.get("panel", "alternc_apply_seconds", 20)) + 3)
    assert (panel.run(serials), panel.generation()) == before
    assert int(panel.run("stat -c %Y /var/lib/infini-alternc/state.json")) > int(ran), "it has looked meanwhile"


def test_the_canary_flies_the_whole_way_and_is_missed_when_it_does_not(panel):
    again = "rm /var/lib/infini-alternc/state.json; alternc-apply now"
    panel.run(again)
    panel.run("systemctl stop named.service")
    try:
        panel.run(again, check=False)
        assert "The canary" in panel.problems()
    finally:
        panel.run("systemctl start named.service")
        panel.run(again)
    assert panel.problems() == ""


class Crowd:
    """Visitors of one site at a steady pace; counts what they see."""

    def __init__(self, panel, name):
        self.panel, self.name = panel, name
        self.seen, self.failures = {}, []
        self.over = threading.Event()
        self.visitors = [threading.Thread(target=self.come) for _ in range(10)]

    def come(self):
        """Ask again and again."""
        due = time.monotonic()
        while not self.over.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic() - 1) + 10 / A_SECOND
            status, text, _to = self.panel.page(self.name)
            if status == 200 and text.startswith("PHP "):
                self.seen[text[:7]] = self.seen.get(text[:7], 0) + 1
            else:
                self.failures.append((time.strftime("%H:%M:%S"), status, text[:80]))

    def __enter__(self):
        for visitor in self.visitors:
            visitor.start()
        return self

    def __exit__(self, *_problem):
        self.over.set()
        for visitor in self.visitors:
            visitor.join()


def test_a_site_changes_its_version_and_no_request_fails(panel, members, sites):
    with Crowd(panel, sites[0]) as mine, Crowd(panel, sites[1]) as next_door:
        for version in ("7.4", "8.2"):
            time.sleep(1)
            assert members[0].switch("page", f"php{version.replace('.', '')}-fpm", "/www/page")[0]
            assert panel.until(lambda version=version: f"PHP {version}" in panel.page(sites[0])[1]), panel.problems()
        time.sleep(1)
    assert mine.failures == []
    assert next_door.failures == []
    assert mine.seen.get("PHP 7.4", 0) > 10
    assert mine.seen.get("PHP 8.2", 0) > 10
    assert set(next_door.seen) == {"PHP 8.2"}
    pools = f"ls /etc/php/pools/7.4/{members[0].login}.conf"
    assert panel.until(lambda: not panel.run(pools, check=False)), "the old pool goes when nobody asks it any more"


def test_php_is_shut_up_in_its_account(panel, members, sites):
    neighbour = f"/var/www/alternc/{members[1].login[0]}/{members[1].login}"
    home = f"/var/www/alternc/{members[0].login[0]}/{members[0].login}"
    panel.run(
        f"cat >{home}/www/page/look.php",
        f"""<?php error_reporting(0);
        echo json_encode(array(posix_geteuid(), ini_get("open_basedir"), file_get_contents("/etc/shadow"),
            scandir("{neighbour}"), shell_exec("ls {neighbour} /var/www/alternc/* 2>/dev/null"),
            shell_exec("cat /etc/alternc/my.cnf"), (bool)fsockopen("127.0.0.1", 25, $n, $e, 2)));""",
    )
    panel.run(f"chown {members[0].uid}:{members[0].uid} {home}/www/page/look.php")
    status, text, _to = panel.page(sites[0], "/look.php")
    uid, based, shadow, listing, shell, secret, mail = json.loads(text)
    assert (status, uid) == (200, members[0].uid)
    assert based.startswith(f"{home}/:")
    assert (shadow, listing, secret, mail) == (False, False, None, False)
    assert members[1].login not in (shell or "")


def test_a_site_for_every_name(panel, members):
    assert members[0].site("*") == f"*.{members[0].domain}"
    assert panel.until(lambda: panel.page(f"nimporte.{members[0].domain}")[1].startswith("PHP ")), panel.problems()
    assert panel.problems() == ""


def test_a_member_whose_login_is_a_service_gets_no_php_of_his_own(panel):
    uid = panel.php(
        """$uid = $admin->add_mem("games", "Chat-noir-7-x", "N", "P", "g@exemple.test", 1, "default", 0, "", 1, 0, 1);
        $mem->su($uid); $quota->setquota("dom", 1); $get_quota_cache = null;
        $dom->lock(); $dom->add_domain("games.example", 1, 0, 1);
        $dom->set_sub_domain("games.example", "jeux", "php82-fpm", "/www/jeux", 0, "http"); $dom->unlock();
        echo json_encode((int)$uid);"""
    )
    try:
        assert panel.until(lambda: "games have the login of a service" in panel.problems()), panel.problems()
        assert panel.run("ls /etc/php/pools/*/games.conf", check=False) == ""
    finally:
        panel.php(f"$mem->su({uid}); $admin->del_mem({uid}); echo json_encode(true);")
