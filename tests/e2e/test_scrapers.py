# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A replay of robots and people against the real front: whom it turns away, and that nobody else is.

Who plays, and where their shapes come from, stands in crowds.py. People read at the same time, on the very site that
the robots pull at too, so that a limit keyed on too little would hit them.
"""

from __future__ import annotations

import re
import shlex
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import crowds
import pytest

SEED = 20261122


@pytest.fixture(scope="module")
def sites(inventory):
    """Give one site of each kind."""
    found = {}
    for site in inventory.get(inventory.hosts("webs")[0], "hosting_sites"):
        if site.get("cms"):
            found.setdefault(site["cms"]["kind"], site["name"])
    return found


@pytest.fixture(scope="module")
def crowd(inventory, ca_file):
    """Give the player, with the front's addresses of both families."""
    web = inventory.hosts("webs")[0]
    addresses = [inventory.get(web, family) for family in ("hosting_ipv4", "hosting_ipv6")]
    with crowds.many_addresses():
        yield crowds.Crowd(addresses, ca_file)


@pytest.fixture
def fresh(web):
    """Begin and end with empty counters: a reload forgets them, and what was changed in maps while it ran."""
    reload(web)
    yield
    reload(web)


def tell(web, command):
    """Say something to the running HAProxy and return its answer."""
    program = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); "
    program += "s.sendall(sys.argv[1].encode()+b'\\n'); print(s.makefile().read())"
    return web.check_output(f"python3 -c {shlex.quote(program)} {shlex.quote(command)}")


def reload(web):
    """Reload HAProxy, and return once the process before is gone: for a moment it still counts requests."""
    before = re.search(r"^Pid: (\d+)$", tell(web, "show info"), re.MULTILINE)[1]
    web.check_output(f"systemctl reload haproxy.service && timeout 60 tail --pid={before} -s 0.1 -f /dev/null")


def one(crowd, site, source, *asks):
    """Let one address ask and return how it went."""
    return crowd.play([crowds.Visit("one", source, site, asks)], 1)


@pytest.fixture(scope="module")
def replay(crowd, sites, web, pytestconfig):
    """Play everybody at once; what the front counted is read at once, as a reload forgets it."""
    reload(web)
    robots = crowds.robots(SEED, sites["static"])
    people = crowds.people(SEED, sites["spip"], sites["wordpress"], sites["static"])
    with ThreadPoolExecutor(2) as pool:
        played = [pool.submit(crowd.play, robots, 24), pool.submit(crowd.play, people, 24)]
        outcomes = [outcome for part in played for outcome in part.result()]
    counted = web.check_output("/usr/local/sbin/front-refusals --total")
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for group, (asked, refused) in crowds.shares(outcomes).items():
            sys.stdout.write(f"\n{group}: {asked} requests, {refused} refused ({refused / asked:.0%})")
        sys.stdout.write("\n")
    return outcomes, int(counted)


def of(outcomes, *groups):
    return [outcome for outcome in outcomes if outcome.group in groups]


def test_nobody_is_taken_for_a_robot(replay):
    outcomes, _ = replay
    people = [outcome for outcome in outcomes if outcome.group not in crowds.PLAYED]
    assert len(people) > 900
    assert [outcome for outcome in people if outcome.refused] == []
    assert [outcome for outcome in people if outcome.status >= 500 and outcome.status != 501] == []


def test_readers_get_whole_pages(replay):
    outcomes, _ = replay
    readers = of(outcomes, "reader", "school")
    assert {outcome.path for outcome in readers if outcome.path.endswith((".css", ".js"))}
    assert {outcome.status for outcome in readers if outcome.path == "/"} == {200}


def test_most_of_what_robots_ask_is_refused(replay):
    outcomes, counted = replay
    robots = of(outcomes, *crowds.PLAYED)
    refused = [outcome for outcome in robots if outcome.refused]
    assert len(refused) >= 0.65 * len(robots)
    assert counted == len(refused)


@pytest.mark.parametrize(("group", "share"), [("named", 1.0), ("disguised", 1.0), ("greedy", 0.5)])
def test_each_kind_of_robot_is_turned_away(replay, group, share):
    outcomes, _ = replay
    asked, refused = crowds.shares(outcomes)[group]
    assert refused >= share * asked


def test_patient_robots_pass(replay):
    """Said rather than hidden: nothing here tells them from people."""
    outcomes, _ = replay
    assert crowds.shares(outcomes)["patient"][1] == 0


NAMED = {"User-Agent": crowds.COMPATIBLE.format("gptbot/1.3; +https://openai.com/gptbot")}


@pytest.mark.usefixtures("fresh")
def test_a_refused_robot_reads_no_in_robots_txt(crowd, sites):
    for site in sites.values():
        for name in ("GPTBot/1.3", *crowds.OBEDIENT):
            headers = {"User-Agent": crowds.COMPATIBLE.format(name)}
            [answer] = one(crowd, site, "198.18.1.1", crowds.Ask("/robots.txt", headers))
            assert answer.status == 200
            assert "User-agent: *\nDisallow: /\n" in answer.text


@pytest.mark.usefixtures("fresh")
def test_robots_txt_of_everyone_else_is_the_site_s_own_or_names_the_robots(crowd, sites, web):
    site = sites["static"]
    ask = crowds.Ask("/robots.txt", crowds.browser(crowds.FIREFOX.format(133)))
    [ours] = one(crowd, site, "198.18.1.1", ask)
    assert ours.status == 200
    assert "User-agent: Google-Extended\n" in ours.text
    assert ours.text.endswith("User-agent: *\nDisallow:\n")
    own = f"$(echo /srv/members/*/www/{site})/robots.txt"
    web.check_output(f"echo 'User-agent: own' >{own} && chmod 644 {own}")
    try:
        [theirs] = one(crowd, site, "198.18.1.1", ask)
        assert theirs.text == "User-agent: own\n"
    finally:
        web.check_output(f"rm {own}")


@pytest.mark.usefixtures("fresh")
def test_the_refusal_is_in_french_and_lets_people_in(crowd, sites):
    liar = {"User-Agent": crowds.CHROME.format(131)}
    [refused] = one(crowd, sites["static"], "198.18.1.2", crowds.Ask("/", liar))
    assert (refused.status, refused.refused) == (403, True)
    assert '<html lang="fr">' in refused.text
    assert '"/.infini/visiteur"' in refused.text
    [way] = one(crowd, sites["static"], "198.18.1.2", crowds.Ask("/.infini/visiteur", liar))
    assert (way.status, way.headers["Location"]) == (302, "/")
    cookie = way.headers["Set-Cookie"].partition(";")[0]
    [let_in] = one(crowd, sites["static"], "198.18.1.2", crowds.Ask("/", {**liar, "Cookie": cookie}))
    assert let_in.status == 200
    [named] = one(crowd, sites["static"], "198.18.1.2", crowds.Ask("/", {**NAMED, "Cookie": cookie}))
    assert named.status == 403


@pytest.mark.usefixtures("fresh")
def test_a_site_may_welcome_what_others_refuse(crowd, sites, web):
    static, other = sites["static"], sites["wordpress"]
    tell(web, f"add map /etc/haproxy/maps/robots.map {static}/train welcome")
    assert one(crowd, static, "198.18.1.3", crowds.Ask("/", NAMED))[0].status == 200
    assert one(crowd, other, "198.18.1.3", crowds.Ask("/", NAMED))[0].status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/../index.html",
        "/feed/../?x=1",
        "/wp-json/%2e%2e/index.html",
        "/index.php/x.css",
        "/INDEX.PHP/x.css",
    ],
)
@pytest.mark.usefixtures("fresh")
def test_no_open_door_leads_elsewhere(crowd, sites, path):
    liar = {"User-Agent": crowds.CHROME.format(131)}
    assert one(crowd, sites["wordpress"], "198.18.1.4", crowds.Ask(path, liar))[0].status == 403


@pytest.mark.usefixtures("fresh")
def test_a_network_is_asked_to_wait_and_soon_let_in_again(crowd, sites, web):
    """The limit is lowered for this test, and counts over a window whose end is not waited for: it slides."""
    site = sites["static"]
    tell(web, f"add map /etc/haproxy/maps/expensive.map {site} 5")
    headers = crowds.browser(crowds.FIREFOX.format(133))
    asks = [crowds.Ask(f"/?p={number}", headers) for number in range(8)]
    went = one(crowd, site, "198.18.5.1", *asks[:4]) + one(crowd, site, "198.18.5.200", *asks[4:])
    assert [outcome.status for outcome in went] == [200] * 5 + [429] * 3
    assert int(went[-1].headers["Retry-After"]) > 0
    assert one(crowd, site, "198.18.6.1", *asks[:1])[0].status == 200  # another network
    assert one(crowd, site, "198.18.5.1", crowds.Ask("/", headers))[0].status == 200  # what costs little
    deadline = time.monotonic() + 150
    while one(crowd, site, "198.18.5.1", *asks[:1])[0].status == 429:
        assert time.monotonic() < deadline
        time.sleep(20)  # asking again counts, too


@pytest.mark.usefixtures("fresh")
def test_a_full_site_sends_its_own_visitors_away_and_nobody_else_s(crowd, sites, web):
    full, other = sites["wordpress"], sites["spip"]
    with slow_page(web, full) as path:
        tell(web, f"set map /etc/haproxy/maps/connections.map {full} 3")
        headers = crowds.browser(crowds.FIREFOX.format(133))
        visits = [
            crowds.Visit("crowd", f"198.18.7.{number}", full, [crowds.Ask(path, headers)]) for number in range(1, 9)
        ]
        pushing = threading.Thread(target=lambda: answers.extend(crowd.play(visits, len(visits))))
        answers = []
        pushing.start()
        time.sleep(2)
        [elsewhere] = one(crowd, other, "198.18.8.1", crowds.Ask("/", headers))
        [file] = one(crowd, full, "198.18.8.1", crowds.Ask("/wp-includes/css/buttons.min.css", headers))
        pushing.join()
    assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 5
    away = next(answer for answer in answers if answer.status == 503)
    assert int(away.headers["Retry-After"]) > 0
    assert "Site très demandé" in away.text
    assert (elsewhere.status, file.status) == (200, 200)
    said = web.run("/usr/local/sbin/front-refusals --crowded")
    assert (said.rc, said.stdout) == (1, f"{full} : 5 (site saturé : 5)\n")


@contextmanager
def slow_page(web, site):
    """Put a page that takes its time into the site."""
    file = web.check_output(f"echo /srv/members/*/www/{site}") + "/e2e-slow.php"
    account = file.split("/")[3]
    web.check_output(f"echo '<?php sleep(6); echo 1;' >{file} && chown {account}: {file} && chmod 640 {file}")
    try:
        yield "/e2e-slow.php?x=1"
    finally:
        web.check_output(f"rm {file}")
