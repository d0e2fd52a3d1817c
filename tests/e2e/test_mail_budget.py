# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The budget of outgoing mail, as a thief of passwords and hacked sites meet it: bursts, from outside and from PHP.

How much left is counted where it arrives. The whole 5,000 messages of a burst come with the long profile.
"""

import contextlib
import json
import os
import re
import shlex
import smtplib
import subprocess
import sys
import threading
import time

import pytest
from commands import infini
from mail_clients import Outside, message, unique
from members import put, site_of
from test_mail import Platform

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
BURST = 5000 if LONG else 900
PHP_BURST = 5000 if LONG else 500
"""Fewer do: a web host holds what is over two budgets, the mail server what comes after three were refused."""
HOUR = 200
PATIENCE = 8
"""Refusals after which a thief connects anew: a connection that was refused more is slowed down, then ended."""
CONFIG = "/etc/infini-mail-budget/config.json"
SEND = """<?php
$sent = 0;
for ($i = 0; $i < $_GET["n"]; $i++) {
    $to = "{$_GET["run"]}-{$_GET["from"]}-$i@dehors.test";
    $text = $_GET["text"] ?? "Bonjour.\\n.\\nFin.";
    $sent += mail($to, "lettre", $text, "From: " . ($_GET["as"] ?? "x@velo.test"), $_GET["more"] ?? "");
}
echo "sent ", $sent;
"""
CONNECT = '<?php echo @fsockopen($_GET["to"], 25, $no, $says, 5) ? "open" : "shut";'


class Bench(Platform):
    """The mail server and the web host, with what counts on both."""

    def __init__(self):
        super().__init__()
        self.hosts = [self.host, *self.inventory.hosts("mail_clients")]

    def on(self, host, command):
        line = [*self.inventory.connection(host).ssh("-o", "BatchMode=yes"), f"sh -c {shlex.quote(command)}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{host}: {command}: {done.stderr}{done.stdout}"
        return done.stdout

    def waiting(self, account):
        """Return how many messages of an account wait, on all hosts."""
        queues = [json.loads(self.on(host, "infini-mail-budget queue")) for host in self.hosts]
        return sum(queue["accounts"].get(account, {}).get("messages", 0) for queue in queues)

    def frozen(self, account):
        return any(account in json.loads(self.on(host, "infini-mail-budget queue"))["frozen"] for host in self.hosts)

    def clean(self):
        """Leave nothing of what accounts sent, and begin anew with each; from where mail comes to where it goes."""
        accounts = ("velo", "chorale", "jardin")
        while sum(self.waiting(account) for account in accounts):
            for host in reversed(self.hosts):
                self.on(host, "; ".join(f"infini-mail-budget drop {account}" for account in accounts))
        for host in self.hosts:
            self.on(host, "; ".join(f"infini-mail-budget thaw {account}" for account in accounts))


@pytest.fixture(scope="module")
def bench():
    """Hosts on which every account has the budget of production; the bench's own are larger, for other tests."""
    bench = Bench()
    before = {host: bench.on(host, f"cat {CONFIG}") for host in bench.hosts}

    def write(host, text):
        bench.on(host, f"printf %s {shlex.quote(text)} >{CONFIG} && systemctl restart infini-mail-budget.service")

    for host, text in before.items():
        write(host, json.dumps({**json.loads(text), "default": {"hour": HOUR, "day": 1000}, "accounts": []}))
    yield bench
    for host, text in before.items():
        write(host, text)
    bench.clean()


@pytest.fixture(autouse=True)
def clean(bench):
    bench.clean()


@pytest.fixture
def outside(bench):
    """The rest of the world; it knows how many there were of a run."""
    [relay] = [one["relay"] for one in bench.get("mail_slow_providers") if "dehors.test" in one["domains"]]
    address, _, port = relay.rpartition(":")
    with Outside(address.strip("[]"), int(port)).open() as server:
        bench.run("postqueue -f")  # nobody listened a moment ago, which Postfix remembers
        yield server


def arrived(outside, run):
    """Return the messages of a run that came, each once."""
    found = [to for one in list(outside.received) for to in one.recipients if to.startswith(f"{run}-")]
    assert len(found) == len(set(found)), "a message came twice"
    return len(found)


def settle(outside, run, seconds=20, at_most=400):
    """Wait until no more of a run arrive; return how many did."""
    end, since, count = time.monotonic() + at_most, time.monotonic(), arrived(outside, run)
    while time.monotonic() < min(end, since + seconds):
        time.sleep(0.5)
        if (now := arrived(outside, run)) != count:
            since, count = time.monotonic(), now
    return count


def wait_for(outside, run, wanted, seconds):
    end = time.monotonic() + seconds
    while arrived(outside, run) < wanted and time.monotonic() < end:
        time.sleep(0.5)
    return arrived(outside, run)


def by_password(bench, who, run, count):
    """Send with a stolen password as fast as it goes; return how many were taken, and how many refused for now."""
    taken = soft = number = 0
    while number < count:
        with bench.as_member(who) as client:
            refused = 0
            while number < count and refused < PATIENCE:
                mail = message(who, f"{run}-{number}@dehors.test", subject="lettre")
                number += 1
                try:
                    client.send_message(mail)
                    taken += 1
                except smtplib.SMTPDataError as error:
                    refused += error.smtp_code == 451
            soft += refused
    assert taken + soft == count
    return taken, soft


def by_php(visit, site, run, count, step=50):
    """Let a site send, a page at a time; return how many messages mail() says to have sent."""
    sent = 0
    for start in range(0, count, step):
        n = min(step, count - start)
        status, text, _ = visit(site, f"send.php?n={n}&run={run}&from={start}", timeout=120)
        assert (status, text.split(" ")[0]) == (200, "sent"), text
        sent += int(text.split(" ")[1])
    return sent


@contextlib.contextmanager
def meanwhile(send, outside):
    """Send somebody else's mail once in a while; give how long each message took."""
    delays, stop = [], threading.Event()

    def go():
        while not stop.is_set():
            run, began = f"other{unique()}", time.monotonic()
            send(run)
            assert wait_for(outside, run, 1, 120) == 1
            delays.append(time.monotonic() - began)
            stop.wait(2)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield delays
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def sites(web, inventory):
    """Give a site of each account, on each version of PHP, with a program that sends."""
    declared = inventory.get(inventory.hosts("webs")[0], "hosting_sites")
    accounts = list(dict.fromkeys(site["account"] for site in declared if site.get("php") and site.get("cms")))
    with contextlib.ExitStack() as stack:
        found = {account: stack.enter_context(site_of(web, account)) for account in accounts}
        for site in found.values():
            put(web, site, "send.php", SEND)
            put(web, site, "connect.php", CONNECT)
        yield found


def test_a_stolen_password_sends_no_more_than_the_budget(bench, outside):
    run = f"stolen{unique()}"

    def other(name):
        with bench.as_member("bob@chorale.test") as client:
            client.send_message(message("bob@chorale.test", f"{name}-0@dehors.test"))

    with meanwhile(other, outside) as delays:
        taken, soft = by_password(bench, "ada@velo.test", run, BURST)
        left = settle(outside, run)
    sys.stdout.write(f"\ntaken {taken}, refused for now {soft}, left {left}, others waited {max(delays):.1f} s at most")
    assert soft >= HOUR  # first it is refused for now
    assert left == HOUR
    assert bench.frozen("velo")
    assert bench.waiting("velo") == taken - left > 0
    assert delays

    status, answer = infini("mail", "thaw", "velo")
    assert (status, answer["messages"]) == (0, taken - left)
    assert wait_for(outside, run, taken, 600) == taken
    assert bench.waiting("velo") == 0
    assert not bench.frozen("velo")


@pytest.mark.parametrize("version", ["7.4", "8.2", "8.4"])
def test_a_hacked_site_sends_no_more_than_the_budget(bench, outside, sites, visit, version):
    [account] = [name for name, site in sites.items() if site.version == version]
    neighbour = sites[next(name for name in sites if name != account)]
    run = f"php{unique()}"

    def other(name):
        assert by_php(visit, neighbour, name, 1) == 1

    with meanwhile(other, outside) as delays:
        sent = by_php(visit, sites[account], run, PHP_BURST)
        left = settle(outside, run)
    sys.stdout.write(f"\nPHP {version}: sent {sent}, left {left}, others waited {max(delays):.1f} s at most")
    assert sent == PHP_BURST
    assert left == HOUR
    assert bench.frozen(account)
    assert bench.waiting(account) == sent - left
    assert delays

    status, answer = infini("mail")
    assert status == 1
    assert (
        sum(queue["accounts"].get(account, {}).get("messages", 0) for queue in answer["hosts"].values()) == sent - left
    )
    assert any(sites[account].name in queue["sites"] for queue in answer["hosts"].values())
    assert infini("mail", "thaw", account)[0] == 0
    assert wait_for(outside, run, sent, 600) == sent
    assert not bench.frozen(account)


def test_both_ways_out_have_one_budget(bench, outside, sites, visit):
    run = f"both{unique()}"
    assert by_password(bench, "ada@velo.test", f"{run}-a", 150) == (150, 0)
    assert by_php(visit, sites["velo"], f"{run}-b", 150) == 150
    assert settle(outside, run) == HOUR
    assert bench.waiting("velo") == 100


def test_drop_takes_one_accounts_mail_only(bench, sites, visit):
    run = f"drop{unique()}"
    assert by_php(visit, sites["velo"], run, 450) == 450  # nobody is outside: all of it waits
    with bench.as_member("bob@chorale.test") as client:
        client.send_message(message("bob@chorale.test", f"{run}-bob@dehors.test"))
    status, answer = infini("mail", "drop", "velo")
    assert (status, bench.waiting("velo")) == (2, 450)
    assert "--yes" in answer["error"]
    status, answer = infini("mail", "drop", "velo", "--yes")
    assert (status, answer["messages"], answer["frozen"]) == (0, 450, True)
    assert bench.waiting("velo") == 0
    assert bench.waiting("chorale") == 1
    [relay] = [one["relay"] for one in bench.get("mail_slow_providers") if "dehors.test" in one["domains"]]
    address, _, port = relay.rpartition(":")
    with Outside(address.strip("[]"), int(port)).open() as outside:
        bench.run("postqueue -f")
        assert wait_for(outside, run, 1, 60) == 1
        assert settle(outside, run, 5) == 1


def test_nobody_sends_in_anothers_name(bench, outside, sites, visit):
    run = f"forged{unique()}"
    status, text, _ = visit(sites["velo"], f"send.php?n=1&run={run}&from=0&more=-fchorale@web.infini.test")
    assert (status, text) == (200, "sent 1")
    mail = outside.wait(f"{run}-0-0@dehors.test")
    assert re.search(r"=velo\+" + re.escape(sites["velo"].name) + "@", mail.sender), mail.sender
    assert b"\r\nBonjour.\r\n..\r\nFin." in mail.content
    for host in (bench.address, "127.0.0.1"):
        assert visit(sites["velo"], f"connect.php?to={host}")[1] == "shut"


def test_a_site_is_signed_for_under_its_own_members_domains(bench, outside, sites, visit):
    left = {}
    for account in ("velo", "chorale"):
        run = f"signed{unique()}"
        status, text, _ = visit(sites[account], f"send.php?n=1&run={run}&from=0&text=Bonjour.&as=ada@velo.test")
        assert (status, text) == (200, "sent 1")
        left[account] = outside.wait(f"{run}-0-0@dehors.test")
    verdicts = bench.verdicts(left["velo"])
    assert (verdicts["dkim"], verdicts["dmarc"]) == ("pass", "pass")
    assert b"DKIM-Signature:" not in left["chorale"].content
    assert bench.verdicts(left["chorale"])["dmarc"] == "fail"


def test_who_counts_is_down_and_nothing_leaves_uncounted(bench, outside):
    run = f"down{unique()}"
    bench.run("systemctl stop infini-mail-budget.socket infini-mail-budget.service")
    try:
        assert by_password(bench, "ada@velo.test", run, 3) == (0, 3)
    finally:
        bench.run("systemctl start infini-mail-budget.socket")
    assert by_password(bench, "ada@velo.test", run, 3) == (3, 0)
    assert wait_for(outside, run, 3, 60) == 3


def test_who_counts_is_killed_and_forgets_nothing(bench, outside):
    run = f"kill{unique()}"
    assert by_password(bench, "ada@velo.test", f"{run}-a", 150) == (150, 0)
    bench.run("systemctl kill --signal=KILL infini-mail-budget.service")
    taken, soft = by_password(bench, "ada@velo.test", f"{run}-b", 100)
    assert (taken, soft) == (50, 50)
    assert settle(outside, run) == HOUR


def test_the_techs_are_told_and_verify_is_red(bench, outside):
    with bench.mailbox(bench.get("mail_postmaster")) as mailbox:
        mailbox.empty()
    run, many = f"tell{unique()}", HOUR // 4
    for number in range(4 * 4 + 1):
        to = [f"{run}-{number}-{one}@dehors.test" for one in range(many)]
        with contextlib.suppress(smtplib.SMTPDataError), bench.as_member("bob@chorale.test") as client:
            client.send_message(message("bob@chorale.test", to[0], subject="lettre"), to_addrs=to)
    with bench.mailbox(bench.get("mail_postmaster")) as mailbox:
        letter = mailbox.wait("courrier sortant de chorale", seconds=60)
    assert b"infini mail thaw chorale" in letter.replace(b"=\r\n", b"")
    done = subprocess.run(
        [*bench.inventory.connection(bench.host).ssh(), "infini-mail-budget check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "./infini mail thaw chorale" in done.stdout.splitlines()[-1]
    assert settle(outside, run, 5) == HOUR  # recipients are counted, not messages


def test_sites_send_while_the_mail_server_is_away(bench, outside, sites, visit):
    run = f"away{unique()}"
    bench.run("systemctl stop postfix@-.service")
    try:
        assert by_php(visit, sites["velo"], run, 5) == 5
        assert bench.waiting("velo") == 5
    finally:
        bench.run("systemctl start postfix@-.service")
    bench.on(bench.hosts[-1], "postqueue -f")
    assert wait_for(outside, run, 5, 60) == 5
