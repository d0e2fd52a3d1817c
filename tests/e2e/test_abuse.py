# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one account tries to take from the host stays its own trouble, under each version of PHP.

Each attack first takes what is allowed, so that a mistake in it does not pass for a limit; during and after it another
account's site answers. How much slower that gets is a figure, not a test: `infini bench abuse`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from members import WHO, put, run, site_of

from hosting import health, model


@pytest.fixture(scope="module")
def pools(inventory):
    """Give one account for each version of PHP, by version."""
    sites = inventory.get(inventory.hosts("webs")[0], "hosting_sites")
    return {site["php"]: site["account"] for site in reversed(sites) if site.get("php")}


@pytest.fixture(scope="module")
def limits(inventory):
    """Give what an account may use at most."""
    web = inventory.hosts("webs")[0]
    accounts, profiles = (inventory.get(web, name) for name in ("hosting_accounts", "hosting_profiles"))
    return {account["name"]: model.limits(account, profiles) for account in accounts}


@pytest.fixture(scope="module", params=["7.4", "8.2", "8.4"])
def attacker(request, web, pools):
    """Give a site from which everything is tried; afterwards nothing of it runs on, and verify has nothing to say."""
    with site_of(web, pools[request.param]) as site:
        assert site.version == request.param
        yield site
        run(web, "systemctl stop {}", site.master)
    run(web, "journalctl --quiet --rotate --vacuum-time=1s")


@pytest.fixture
def neighbour(web, attacker, pools):
    """Give a site of another account."""
    other = next(account for version, account in pools.items() if account != attacker.account)
    with site_of(web, other) as site:
        yield site


@pytest.fixture
def undisturbed(visit, neighbour):
    """Visit the neighbour as long as the attack goes on: each visit must be answered."""

    @contextlib.contextmanager
    def watching():
        over, answers = threading.Event(), []

        def go_on():
            while not answers or not over.wait(0.1):
                answers.append(visit(neighbour, "who.php")[:2])

        with ThreadPoolExecutor() as pool:
            visits = pool.submit(go_on)
            try:
                yield
            finally:
                over.set()
            visits.result()
        assert set(answers) == {(200, neighbour.me)}

    return watching


def ask(web, visit, site, code, timeout=60):
    """Let the site's PHP do something and say what came of it, as JSON."""
    page = f"attack-{secrets.token_hex(4)}.php"  # PHP remembers for two seconds what a file of that name said
    put(web, site, page, "<?php ini_set('memory_limit', -1); " + code)
    status, text, _ = visit(site, page, timeout=timeout)
    return status, json.loads(text) if status == 200 else text


def said(web, site):
    """Count what the masters of an account say of limits, as `verify` does."""
    words = web.run(" ".join(f"'{word}'" for word in health.MASTERS_SAID)).stdout  # status 1: nothing was said
    return health.hits(words)[f"members-{site.account}.slice"]


def answers_again(visit, site):
    """Wait until a site answers as if nothing had been."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            if visit(site, "who.php")[:2] == (200, site.me):
                return True
        time.sleep(0.5)
    return False


GREEDY = (
    "$kept = []; for ($n = 0; $n < {0}; $n++) {{ $kept[] = str_repeat(chr(65 + $n % 26), 1 << 20); }}"
    " echo count($kept);"
)


def test_a_memory_bomb_kills_itself_only(web, visit, undisturbed, attacker, limits):
    allowed = int(limits[attacker.account]["memory"].removesuffix("M"))
    assert ask(web, visit, attacker, GREEDY.format(64)) == (200, 64)
    with undisturbed():
        status, text = ask(web, visit, attacker, GREEDY.format(2 * allowed))
    assert status == 503, text
    assert answers_again(visit, attacker)
    assert said(web, attacker)["killed"] > 0


BOMB = (
    "$children = []; for ($n = 0; $n < {0}; $n++) {{ $child = @proc_open('sleep 20', [], $pipes);"
    " if ($child) {{ $children[] = $child; }} }} echo count($children);"
    " foreach ($children as $child) {{ proc_terminate($child, 9); }}"
)


def test_a_fork_bomb_runs_out_of_tasks(web, visit, undisturbed, attacker, limits):
    assert ask(web, visit, attacker, BOMB.format(5)) == (200, 5)
    with undisturbed():
        status, started = ask(web, visit, attacker, BOMB.format(500))
    assert status == 200
    assert 5 < started < limits[attacker.account]["tasks"]
    assert answers_again(visit, attacker)


FILES = (
    "$kept = []; for ($n = 0; $n < {0}; $n++) {{ $file = @fopen(__FILE__, 'r'); if ($file) {{ $kept[] = $file; }} }}"
    " echo count($kept);"
)


def test_no_process_opens_ten_thousand_files(web, visit, undisturbed, attacker, limits):
    allowed = limits[attacker.account]["files"]
    assert ask(web, visit, attacker, FILES.format(100)) == (200, 100)
    with undisturbed():
        status, opened = ask(web, visit, attacker, FILES.format(10_000))
    assert status == 200
    assert allowed - 100 < opened < allowed


def one_after_the_other(pool, visit, site, page, count):
    """Begin visits one by one: those that come at the same moment wake a master on demand once, and it forks once."""
    begun = []
    for _ in range(count):
        begun.append(pool.submit(visit, site, page, timeout=60))
        time.sleep(0.2)
    return begun


SPIN = (
    "<?php function used() { $u = getrusage(); return $u['ru_utime.tv_sec'] + $u['ru_utime.tv_usec'] / 1e6"
    " + $u['ru_stime.tv_sec'] + $u['ru_stime.tv_usec'] / 1e6; }"
    " $before = used(); $end = microtime(true) + 5; while (microtime(true) < $end) { md5('x'); }"
    " echo used() - $before;"
)


def test_php_that_spins_takes_its_share_only(web, visit, undisturbed, attacker, limits):
    put(web, attacker, "spin.php", SPIN)
    children, share = limits[attacker.account]["children"], int(limits[attacker.account]["cpu"].rstrip("%"))
    with undisturbed(), ThreadPoolExecutor(children) as pool:
        started = time.monotonic()
        spinning = one_after_the_other(pool, visit, attacker, "spin.php", children)
        used = [float(one.result()[1]) for one in spinning]
        seconds = time.monotonic() - started
    assert min(used) > 0
    assert sum(used) <= seconds * share / 100


def test_when_all_children_are_busy_the_others_wait_and_it_is_said(web, visit, undisturbed, attacker, limits):
    put(web, attacker, "wait.php", "<?php sleep(3); echo 1;")
    children = limits[attacker.account]["children"]
    with undisturbed(), ThreadPoolExecutor(children + 3) as pool:
        waiting = one_after_the_other(pool, visit, attacker, "wait.php", children + 3)
        assert {one.result()[:2] for one in waiting} == {(200, "1")}
    assert said(web, attacker)["full"] > 0


FILL = (
    "$file = fopen('/tmp/fill', 'w'); $part = str_repeat('x', 1 << 20); $done = 0;"
    " while ($done < {0} && @fwrite($file, $part) === 1 << 20) {{ $done++; }}"
    " fclose($file); unlink('/tmp/fill'); echo $done;"
)


def test_temporary_files_fill_nobody_elses_disk(web, visit, undisturbed, attacker):
    assert ask(web, visit, attacker, FILL.format(8)) == (200, 8)
    with undisturbed():
        status, written = ask(web, visit, attacker, FILL.format(1000))
    assert status == 200
    assert 32 < written <= 64


@pytest.fixture
def slow_loris(web_address, ca_file, attacker):
    """Open connections that never end their request."""
    trust = ssl.create_default_context(cafile=ca_file)
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(150):
            plain = stack.enter_context(socket.create_connection((web_address, 443), timeout=30))
            secure = stack.enter_context(trust.wrap_socket(plain, server_hostname=attacker.name))
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {attacker.name}\r\nX-Slow: ".encode())
            connections.append(secure)
        yield connections


def test_slow_visitors_keep_nobody_waiting(undisturbed, slow_loris):
    with undisturbed():
        for connection in slow_loris:
            connection.settimeout(30)
            assert connection.recv(20).startswith(b"HTTP/1.1 408")  # the front ends them, Apache never heard of them


CONNECT = (
    "$found = []; foreach ({0} as $to) {{"
    " $found[$to] = @stream_socket_client('tcp://' . $to, $code, $why, 5) ? 'open' : $why; }} echo json_encode($found);"
)


def test_programs_reach_what_is_declared_and_no_more(web, visit, attacker, web_address):
    open_ones = [f"{web_address}:443", f"{web_address}:80", "127.0.0.1:443", "[::1]:443"]
    shut_ones = [f"{web_address}:22", "127.0.0.1:22", "[::1]:22"]
    for address in (web_address, "127.0.0.1", "::1"):  # somebody listens there: root gets through
        run(web, "bash -c {}", f"exec 3<>/dev/tcp/{address}/22")
    before = counted(web, attacker)
    wanted = {**dict.fromkeys(open_ones, "open"), **dict.fromkeys(shut_ones, "Connection refused")}
    found = ask(web, visit, attacker, CONNECT.format(json.dumps(open_ones + shut_ones)))
    assert found == (200, wanted)
    program = "exec 3<>/dev/tcp/127.0.0.1/{0} && echo open"
    for port, answer in (("443", "open"), ("22", "Connection refused")):
        code = f"echo json_encode(trim((string) shell_exec(\"bash -c '{program.format(port)}' 2>&1\")));"
        status, text = ask(web, visit, attacker, code)
        assert (status, text.rpartition(": ")[2]) == (200, answer), text
    assert counted(web, attacker) - before >= len(shut_ones) + 1


def counted(web, site):
    """Read how many attempts of an account were refused."""
    found = json.loads(run(web, "nft --json list set inet members refused"))["nftables"][1]["set"].get("elem", [])
    return sum(one["elem"]["counter"]["packets"] for one in found if one["elem"]["val"] in (site.uid, site.account))


def test_names_are_resolved_and_pages_fetched(web, visit, attacker, neighbour):
    """What a CMS needs: the resolver, a page over HTTPS, the database through its socket as itself and nobody else."""
    code = (
        f"$page = curl_init('https://{neighbour.name}/{neighbour.folder}/plain.txt');"
        " curl_setopt($page, CURLOPT_RETURNTRANSFER, true); curl_setopt($page, CURLOPT_SSL_VERIFYPEER, false);"
        " $text = curl_exec($page); mysqli_report(MYSQLI_REPORT_OFF);"
        f" $own = @mysqli_connect('localhost', '{attacker.account}', '');"
        f" $other = @mysqli_connect('localhost', '{neighbour.account}', '');"
        " gethostbyname('nobody.example'); echo json_encode([$text, (bool) $own, (bool) $other]);"
    )
    before = counted(web, attacker)
    assert ask(web, visit, attacker, code) == (200, ["plain", True, False])
    assert counted(web, attacker) == before  # a name that /etc/hosts lacks: the resolver was asked


def test_a_slow_page_says_where_it_was(web, visit, attacker):
    put(web, attacker, "slow.php", "<?php function dawdle() { sleep(8); } dawdle(); echo 1;")
    assert visit(attacker, "slow.php", timeout=60)[:2] == (200, "1")
    log = f"/srv/members/{attacker.account}/logs/php/php{attacker.version}.slow.log"
    text = run(web, "runuser -u {} -- cat {}", attacker.account, log)
    assert f"{attacker.path}/slow.php" in text
    assert "dawdle()" in text
    run(web, "logrotate --force /etc/logrotate.d/php-members")
    assert run(web, "stat -c %U {}", f"{log}.1.gz") == attacker.account


def test_errors_of_a_page_are_in_its_sites_log(web, visit, attacker, neighbour):
    put(web, attacker, "error.php", "<?php error_log('a word of our own'); trigger_error('something broke'); echo 1;")
    assert visit(attacker, "error.php")[:2] == (200, "1")
    log = "/srv/members/{0.account}/logs/{0.name}.error.log"
    assert "a word of our own" in run(web, "runuser -u {} -- cat {}", attacker.account, log.format(attacker))
    assert web.run(f"runuser -u {neighbour.account} -- cat {log.format(attacker)}").rc != 0


def test_a_tree_holds_no_tools_and_no_secrets(web, visit, attacker):
    code = (
        "echo json_encode([shell_exec('command -v sh') ? 'sh' : '',"
        " (string) shell_exec('command -v gcc cc make perl-config tcc as ld 2>/dev/null'),"
        " (string) shell_exec('cat /etc/shadow /etc/ssl/private/* 2>/dev/null'),"
        " (string) shell_exec('touch /usr/x /etc/x /var/x /opt/x 2>/dev/null && echo written')]);"
    )
    assert ask(web, visit, attacker, code) == (200, ["sh", "", "", ""])
    tree = f"/srv/php/{attacker.version}"
    if web.file(tree).exists:
        hashes = run(web, "cut -d: -f2 {}", f"{tree}/etc/shadow").splitlines()
        assert not [one for one in hashes if one.startswith("$")]  # no password of anybody, least of all of the host's


def test_an_idle_master_rests_and_nobody_notices(web, visit, attacker):
    """Stopped again and again while visitors come: none is turned away."""
    over, answers = threading.Event(), []

    def go_on():
        while not over.is_set():
            answers.append(visit(attacker, "who.php")[:2])
            time.sleep(0.15)  # the front serves one source 30 requests a second

    with ThreadPoolExecutor(4) as pool:
        visitors = [pool.submit(go_on) for _ in range(3)]
        for _ in range(4):
            time.sleep(3)
            run(web, "systemctl stop {}", attacker.master)
        over.set()
        for one in visitors:
            one.result()
    assert len(answers) > 20
    assert set(answers) == {(200, attacker.me)}


def test_an_entrance_that_systemd_gave_up_is_opened_again(web, visit, attacker):
    put(web, attacker, "who.php", WHO)
    entrance = attacker.master.replace(".service", ".socket")
    state = "systemctl show --property ActiveState --value {}"
    deadline = time.monotonic() + 60
    while run(web, state, entrance) != "failed":
        assert time.monotonic() < deadline, "systemd never gave the entrance up"
        visit(attacker, "who.php")
        run(web, "systemctl kill --signal KILL {} || true", attacker.master)  # none may be there: it starts and dies
    assert visit(attacker, "who.php")[0] == 503
    run(web, "php-pools rest")
    assert visit(attacker, "who.php")[:2] == (200, attacker.me)


def test_only_a_master_that_served_nothing_rests(web, visit, attacker, neighbour):
    put(web, attacker, "who.php", WHO)
    assert visit(attacker, "who.php")[0] == 200
    state = "systemctl show --property ActiveState --value {}"
    deadline = time.monotonic() + 180
    run(web, "php-pools rest")
    assert run(web, state, attacker.master) == "active"
    while run(web, state, attacker.master) == "active" and time.monotonic() < deadline:
        visit(neighbour, "who.php")
        time.sleep(10)
        run(web, "php-pools rest")
    assert run(web, state, attacker.master) == "inactive"
    assert run(web, state, neighbour.master) == "active"
    assert visit(attacker, "who.php")[:2] == (200, attacker.me)
