# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel behind the front: what a member makes answers by HTTPS, without Ansible and without a tech."""

import json
import subprocess
import time

import pytest

TWO_MINUTES = 120
LOOK = """<?php echo json_encode(array($_SERVER["REMOTE_ADDR"], $_SERVER["HTTPS"] ?? "", $_SERVER["SERVER_PORT"]));"""


@pytest.fixture(scope="module")
def leads_here(inventory, panel):
    """Let the authority find names at the panel's address; it forgets them afterwards."""
    line = inventory.connection(inventory.hosts("acme_servers")[0]).ssh("-o", "BatchMode=yes")

    def run(command):
        subprocess.run([*line, command], check=True, capture_output=True)

    def leads(name):
        run(f"echo {panel.address} {name} '# of a test' >>/etc/hosts")
        time.sleep(5)  # for so long the authority remembers the file as it was (cacheMaxAge of Go's net/hosts.go)

    yield leads
    # In its place: the file is a mount of the bench.
    run("kept=$(grep -v '# of a test' /etc/hosts) && echo \"$kept\" >/etc/hosts")


@pytest.fixture(scope="module")
def site(panel, members, leads_here):
    """Make a site as a member does, which answers by HTTPS within two minutes; give its name."""
    leads_here(f"chez.{members[0].domain}")
    name = members[0].site("chez", https="https")
    there = panel.until(lambda: panel.secure_page(name)[0] == 200, TWO_MINUTES)
    assert there, (panel.secure_page(name), panel.problems(), panel.run("certificates status"))
    member = members[0]
    folder = f"/var/www/alternc/{member.login[0]}/{member.login}/www/chez"
    panel.run(f"cat >{folder}/look.php; mkdir {folder}/dossier; chown -R {member.uid}:{member.uid} {folder}", LOOK)
    return name


def test_a_new_site_answers_by_https_with_a_certificate_of_its_own(panel, site):
    status, text, headers = panel.secure_page(site)
    assert (status, text.startswith("PHP 8.2")) == (200, True)
    assert "Strict-Transport-Security" not in headers, "the member may go back to HTTP"
    with panel.secure(site) as connection:
        connection.connect()
        assert connection.sock.getpeercert()["subjectAltName"] == (("DNS", site),)


def test_who_comes_by_http_is_led_where_the_member_chose(panel, members, site):
    assert panel.page(site)[::2] == (301, f"https://{site}/")
    assert members[0].switch("chez", "php82-fpm", "/www/chez", "both")[0]
    assert panel.until(lambda: panel.page(site)[0] == 200), panel.problems()
    assert panel.secure_page(site)[0] == 200
    assert members[0].switch("chez", "php82-fpm", "/www/chez", "https")[0]
    assert panel.until(lambda: panel.page(site)[0] == 301), panel.problems()


def test_apache_and_php_see_the_visitor_and_how_he_came(panel, members, site, inventory):
    visitor = inventory.get("panel", "base_ssh_trusted")[0]
    assert json.loads(panel.secure_page(site, "/look.php")[1]) == [visitor, "on", "443"]
    assert panel.secure_page(site, "/dossier")[2]["Location"] == f"https://{site}/dossier/"
    log = f"/var/log/alternc/sites/{members[0].uid}-{members[0].login}/access.log"
    panel.secure_page(site, "/look.php?vu")
    line = panel.until(lambda: panel.run(f"grep -F /look.php?vu {log}", check=False))
    assert line.split()[0] == visitor


def test_a_member_may_lead_to_https_in_htaccess_without_going_round_in_circles(panel, members, site):
    folder = f"/var/www/alternc/{members[0].login[0]}/{members[0].login}/www/chez"
    rule = "RewriteEngine On\nRewriteCond %{HTTPS} !=on\nRewriteRule ^ https://%{HTTP_HOST}%{REQUEST_URI} [R=302,L]\n"
    panel.run(f"cat >{folder}/.htaccess; chown {members[0].uid}:{members[0].uid} {folder}/.htaccess", rule)
    try:
        assert panel.secure_page(site)[0] == 200
    finally:
        panel.run(f"rm {folder}/.htaccess")


def test_the_front_turns_robots_away_whichever_way_they_come(panel, members, site):
    assert panel.secure_page(site, User_Agent="GPTBot/1.1")[0] == 403
    status, text, _headers = panel.secure_page(site, "/robots.txt", User_Agent="GPTBot/1.1")
    assert (status, "Disallow: /" in text) == (200, True)
    open_name = members[0].site("ouvert")
    assert panel.until(lambda: panel.page(open_name)[0] == 200), panel.problems()
    asked = f"curl -s -o /dev/null -w '%{{http_code}}' -A GPTBot/1.1 -H 'Host: {open_name}' http://{panel.address}/"
    assert panel.run(asked) == "403"


def test_a_name_that_the_authority_refuses_is_named_and_the_next_one_gets_its_certificate(panel, members, leads_here):
    lost = members[1].site("ailleurs", https="both")
    leads_here(f"ici.{members[1].domain}")
    found = members[1].site("ici", https="both")
    assert panel.until(lambda: panel.secure_page(found)[0] == 200, TWO_MINUTES), panel.run("certificates status")

    def told():
        said = json.loads(panel.run("certificates status"))
        return [line for line in said["listed_failures"] if line.startswith(f"{lost}: ")], said["failures"]

    assert panel.until(lambda: told()[0], TWO_MINUTES), panel.run("certificates status")
    assert told()[1] == [], "it fails nobody's play"
    assert "no such host" in told()[0][0]
    assert panel.page(lost)[0] == 200, "over HTTP it answers"
    assert panel.problems() == ""
    assert panel.run("certificates check") == ""


def test_names_that_nobody_has_are_refused(panel, members, site):
    assert panel.page(f"personne.{members[0].domain}")[0] == 421
    status, why, _headers = panel.secure_page(f"personne.{members[0].domain}")
    assert (status, "SSL" in why) == (0, True)
    with panel.secure(site) as connection:
        connection.request("GET", "/", headers={"Host": f"ici.{members[1].domain}"})
        assert connection.getresponse().status == 421, "TLS was opened for another"


def test_a_site_that_goes_is_refused_by_the_front(panel, members):
    name = members[0].site("bientot")
    assert panel.until(lambda: panel.page(name)[0] == 200), panel.problems()
    where = f"domaine = '{members[0].domain}' AND sub = 'bientot'"
    panel.sql("UPDATE sub_domaines SET web_action = 'DELETE' WHERE " + where)  # noqa: S608 (ours)
    assert panel.until(lambda: panel.page(name)[0] == 421), panel.problems()


def test_a_front_that_starts_anew_knows_the_names(panel, site):
    panel.run("systemctl restart haproxy.service")
    assert panel.until(lambda: panel.secure_page(site)[0] == 200, 10)


def test_the_panel_itself_is_behind_the_front(panel):
    status, text, _headers = panel.secure_page()
    assert (status, 'name="csrf"' in text) == (200, True)
    assert panel.page(panel.fqdn)[::2] == (301, f"https://{panel.fqdn}/")


def test_no_program_of_a_member_talks_to_apache_as_the_front(panel, members):
    for port in (80, 443):
        asked = f"setpriv --reuid={members[0].uid} --clear-groups curl -s -m 5 http://127.0.0.1:{port}/ -o /dev/null"
        assert panel.run(f"{asked}; echo $?", check=False) == "7", "the connection itself is refused"
