# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every daemon of mail is killed while a thousand messages come in: none is lost, and each daemon is back by itself.

The sender does what any mail server does: what was not taken is tried again. A server that dies after it took a
message, and before it said so, has it twice; how often that happened is said.
"""

import contextlib
import imaplib
import itertools
import smtplib
import sys
import threading
import time
from collections import Counter
from email import message_from_bytes

import pytest
from mail_clients import message
from test_mail import STRANGER, Platform

MESSAGES, SENDERS, PATIENCE = 1000, 48, 300
PAUSE = 10
"""Seconds between two killings: Rspamd reads its rules for half of them before it takes mail again."""
# As `pkill` knows them; Postfix's own are named by their programs, Dovecot's by their master.
DAEMONS = ("master", "qmgr", "cleanup", "smtpd", "lmtp", "dovecot", "rspamd", "redis-server", "postsrsd")


class Sender(threading.Thread):
    """Brings its share of the messages, and more until it is told to end; each is tried until it is taken."""

    def __init__(self, platform, to, start):
        super().__init__(daemon=True)
        self.platform, self.to, self.start_at = platform, to, start
        self.enough, self.again, self.taken = threading.Event(), 0, []

    def run(self):
        for number in itertools.count(self.start_at, SENDERS):
            if number >= MESSAGES and self.enough.is_set():
                return
            mail = message(STRANGER, self.to, subject=f"coupure {number}")
            while not self._is_taken(mail):
                self.again += 1
                time.sleep(0.5)
            self.taken.append(number)

    def _is_taken(self, mail):
        with contextlib.suppress(OSError, smtplib.SMTPException), self.platform.smtp() as client:
            client.send_message(mail)
            return True
        return False


def subjects(mailbox):
    """Return the numbers of the messages that arrived, as often as they did."""
    mailbox.select("INBOX")
    found = mailbox.search(None, "SUBJECT", '"coupure "')[1][0].split()
    if not found:
        return Counter()
    answers = mailbox.fetch(b",".join(found), "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
    return Counter(int(message_from_bytes(one[1])["Subject"].split()[1]) for one in answers if isinstance(one, tuple))


@pytest.fixture(scope="module")
def platform():
    return Platform()


def test_no_message_is_lost_when_daemons_are_killed(platform):
    to = next(one["address"] for one in platform.get("mail_mailboxes") if one["address"].startswith("bob@"))
    with platform.mailbox(to) as mailbox:
        mailbox.empty()
    senders = [Sender(platform, to, start) for start in range(SENDERS)]
    for sender in senders:
        sender.start()
    killed = {}
    for daemon in DAEMONS:
        killed[daemon] = kill(platform, daemon)
        time.sleep(PAUSE)
    end = time.monotonic() + PATIENCE
    for sender in senders:
        sender.enough.set()
    for sender in senders:
        sender.join(max(end - time.monotonic(), 0))
        assert not sender.is_alive(), f"not all was taken within {PATIENCE} s after the last was killed"
    sent = {number for sender in senders for number in sender.taken}
    arrived = Counter()
    while time.monotonic() < end and len(arrived) < len(sent):
        platform.run("postqueue -f")  # what waits for its next try is tried now
        time.sleep(2)
        # Who was just killed may let one question wait; all of them have until the end.
        with contextlib.suppress(OSError, imaplib.IMAP4.abort), platform.mailbox(to) as mailbox:
            arrived = subjects(mailbox)
    assert len(sent) >= MESSAGES
    assert set(arrived) == sent
    again, twice = sum(sender.again for sender in senders), arrived.total() - len(sent)
    sys.stderr.write(f"{len(sent)} messages, {again} tried again, {twice} came twice; killed: {killed}\n")
    with platform.mailbox(to) as mailbox:
        mailbox.empty()


def kill(platform, daemon):
    """Kill a daemon as soon as there is one; return how many processes that were."""
    end = time.monotonic() + 60
    while not (killed := int(platform.run(f"pkill --signal KILL --count --exact {daemon} || :"))):
        assert time.monotonic() < end, f"{daemon} does not come back"
    return killed
