# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain changes its DKIM key while its members write: every message verifies, the late ones, too.

Who verifies is as strict as a receiver can be: a resolver that remembers what it was told, also that there is nothing,
and that is asked as soon as a message is there; and one without a memory that is asked once the message is late.
"""

import contextlib
import itertools
import json
import random
import re
import smtplib
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import dkim
import dns.message
import dns.query
import dns.rdatatype
import pytest
from mail_clients import Imap, Outside, message
from test_mail import STRANGER, Platform

from infini.apply import playbook_path
from infini.runner import play

TTL, KEPT = 5, 60
"""Seconds: for which the records may be remembered, and for which a key that signs no more stays published."""
LATE = KEPT - 15
PACE = 0.5


class Resolver:
    """Asks the authoritative server, and remembers what it said for as long as it may."""

    def __init__(self, address, *, memory=True):
        self.address, self.memory, self.known, self.lock = address, memory, {}, threading.Lock()

    def __call__(self, name, **_more):
        """Answer dkimpy."""
        with self.lock:
            until, text = self.known.get(name, (0, b""))
            if not self.memory or time.monotonic() >= until:
                ttl, text = self.ask(name.decode())
                self.known[name] = (time.monotonic() + ttl, text)
            return text

    def ask(self, name):
        answer = dns.query.udp_with_fallback(dns.message.make_query(name, "TXT"), self.address, timeout=10)[0]
        for one in answer.answer:
            if one.rdtype == dns.rdatatype.TXT:
                return one.ttl, b"".join(one[0].strings)
        [authority] = answer.authority
        return min(authority.ttl, authority[0].minimum), b""


@dataclass
class Verdict:
    """One message: which key signed it, and whether that held when it came and when it was late."""

    kind: str
    selector: str
    at_once: bool
    late: bool


class Bench(Platform):
    """The mail server, the name server, and a domain whose zone takes what the mail server says."""

    domain = "canari.test"

    def __init__(self):
        super().__init__()
        self.box = next(
            one["address"] for one in self.get("mail_mailboxes") if one["address"].endswith(f"@{self.domain}")
        )
        self.password = self.get("bench_canary_password")
        self.nameserver = self.inventory.get(self.inventory.hosts("nameservers")[0], "hosting_ipv4")

    def play(self, name, **variables):
        done = play(playbook_path(name), str(self.inventory.path), variables)
        assert done.ok, done.sentence()

    def publish(self):
        """Publish what the mail server says, as `infini apply mail` and `infini apply dns` do."""
        Path(self.get("mail_records_copy")).write_text(self.run("cat /var/lib/infini/mail/records.zone"))
        self.play("dns")

    def keys(self, part="state"):
        """Return what each key of the domain is for, or another part of what is known of it."""
        said = json.loads(self.run("cat /var/lib/infini/mail/keys.json"))
        return {key["selector"]: key[part] for key in said[self.domain]}

    def step(self):
        """Go on as the timer does, after a run that was killed anywhere in its work."""
        self.run(f"timeout --signal=KILL {random.uniform(0.05, 1):.2f} infini-mail step || :")  # noqa: S311
        self.run("systemctl start mail-keys.service")
        return self.keys()

    def until(self, state, selector, seconds=120):
        """Go on until a key is in a state; return all that it was in on the way."""
        end, seen = time.monotonic() + seconds, []
        while not seen or seen[-1] != state:
            assert time.monotonic() < end, f"{selector} is not {state}: {self.run('infini-mail keys')}"
            seen.append(self.step().get(selector, "gone"))
            time.sleep(3)
        return [one for one, _again in itertools.groupby(seen)]


class Traffic:
    """Members write to the world, strangers write to a member, steadily; each message is judged."""

    def __init__(self, bench, outside):
        self.bench, self.outside = bench, outside
        self.strict, self.fresh = Resolver(bench.nameserver), Resolver(bench.nameserver, memory=False)
        self.enough, self.waiting, self.verdicts, self.refused, self.sent = threading.Event(), [], [], [], 0

    @contextlib.contextmanager
    def flowing(self):
        """Keep it up until the end of the block, then until the last message is late."""
        threads = [threading.Thread(target=one, daemon=True) for one in (self.send, self.judge)]
        for thread in threads:
            thread.start()
        yield
        self.enough.set()
        for thread in threads:
            thread.join(LATE + 120)

    def send(self):
        for number in itertools.count():
            if self.enough.is_set():
                return
            try:
                if number % 4:
                    with self.bench.as_member(self.bench.box) as client:
                        client.send_message(message(self.bench.box, "loin@dehors.test", subject=f"cle {number}"))
                else:
                    with self.bench.smtp() as client:
                        client.send_message(message(STRANGER, self.bench.box, subject=f"cle {number}"))
                self.sent += 1
            except smtplib.SMTPException as problem:
                self.refused.append(str(problem))
            time.sleep(PACE)

    def judge(self):
        seen = 0
        with Imap(self.bench.address, self.bench.name, self.bench.trust) as mailbox:
            mailbox.login(self.bench.box, self.bench.password)
            taken(mailbox)
            while len(self.verdicts) < self.sent or not self.enough.is_set():
                for one in self.outside.received[seen:]:
                    self.look("dkim", one.content)
                    seen += 1
                for raw in taken(mailbox):
                    self.look("arc", raw)
                self.look_again()
                time.sleep(0.2)

    def look(self, kind, raw):
        field = b"DKIM-Signature" if kind == "dkim" else b"ARC-Seal"
        found = re.search(field + rb":.*?[;\s]s=([a-z0-9]+);", raw, re.DOTALL)
        selector = found[1].decode() if found else "none"
        self.waiting.append((time.monotonic() + LATE, kind, selector, raw, holds(kind, raw, self.strict)))

    def look_again(self):
        now = time.monotonic()
        for _due, kind, selector, raw, at_once in [one for one in self.waiting if one[0] <= now]:
            self.verdicts.append(Verdict(kind, selector, at_once, holds(kind, raw, self.fresh)))
        self.waiting = [one for one in self.waiting if one[0] > now]


def taken(mailbox):
    """Take our messages out of a mailbox, which is the canary's, too."""
    mailbox.select("INBOX")
    numbers = [number.decode() for number in mailbox.search(None, "SUBJECT", '"cle "')[1][0].split()]
    raws = [mailbox.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in numbers]
    for number in numbers:
        mailbox.store(number, "+FLAGS.SILENT", r"(\Deleted)")
    mailbox.expunge()
    return raws


def holds(kind, raw, resolver):
    if kind == "dkim":
        return dkim.verify(raw, dnsfunc=resolver)
    return dkim.arc_verify(raw, dnsfunc=resolver)[0] == b"pass"


@pytest.fixture(scope="module")
def bench():
    """The bench, with days and hours that are seconds; afterwards as it was."""
    bench = Bench()
    accounts = [*bench.get("mail_budget_accounts"), {"account": bench.domain, "hour": 20000, "day": 100000}]
    bench.play("mail", mail_records_ttl=TTL, mail_key_days=KEPT / 86400, mail_budget_accounts=accounts)
    bench.publish()
    yield bench
    bench.play("mail")
    bench.play("dns")


@pytest.fixture
def traffic(bench):
    [relay] = [one["relay"] for one in bench.get("mail_slow_providers") if "dehors.test" in one["domains"]]
    address, _, port = relay.rpartition(":")
    with Outside(address.strip("[]"), int(port)).open() as outside:
        yield Traffic(bench, outside)


def test_a_key_changes_while_members_write_and_every_message_verifies(bench, traffic):
    [old] = [selector for selector, state in bench.keys().items() if state == "signs"]
    with traffic.flowing():
        time.sleep(5)
        bench.run(f"infini-mail rotate {bench.domain}")
        [new] = set(bench.keys()) - {old}
        assert {f"{one}._domainkey.{bench.domain}." for one in (old, new)} <= set(
            bench.run("infini-mail records").split()
        )
        assert bench.step() == {old: "signs", new: "published"}
        time.sleep(5)
        bench.publish()
        assert bench.until("signs", new)[-2:] == ["seen", "signs"]
        assert bench.keys() == {old: "kept", new: "signs"}
        assert bench.until("withdrawn", old) == ["kept", "withdrawn"]
        assert bench.keys("since")[old] - bench.keys("since")[new] >= KEPT
        assert f"{old}._domainkey.{bench.domain}." not in bench.run("infini-mail records")
        bench.publish()
        bench.until("gone", old)
        time.sleep(5)
    assert bench.keys() == {new: "signs"}
    counts = {
        (kind, one): sum((verdict.kind, verdict.selector) == (kind, one) for verdict in traffic.verdicts)
        for kind in ("dkim", "arc")
        for one in (old, new)
    }
    sys.stderr.write(f"{traffic.sent} messages; by way and key: {counts}; refused for now: {traffic.refused}\n")
    assert [one for one in traffic.verdicts if not (one.at_once and one.late)] == []
    assert len(traffic.verdicts) == traffic.sent
    assert sum(counts.values()) == traffic.sent
    assert min(counts.values()) >= 5
    assert traffic.refused == [], "who wrote meanwhile was sent away"


def test_a_key_that_nobody_publishes_never_signs(bench):
    before = bench.keys()
    bench.run(f"infini-mail rotate {bench.domain}")
    for _again in range(3):
        bench.step()
        time.sleep(TTL)
    [new] = set(bench.keys()) - set(before)
    assert bench.keys() == {**before, new: "published"}
    assert f"{new} waits until the DNS shows it" in bench.run("infini-mail keys")
    assert f"not shown by {bench.nameserver}" in bench.run("infini-mail keys")


def test_the_timer_goes_on_by_itself(bench):
    assert bench.run("systemctl is-active mail-keys.timer").strip() == "active"
    assert "mail-keys.service" in bench.run("systemctl show mail-keys.timer --property Triggers --value")
