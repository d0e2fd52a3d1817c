# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The canary of mail: it comes through, and what may break on its way is said by `verify`, with the place."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import time

import pytest

from infini.apply import playbook_path
from infini.hosts import Inventory
from infini.runner import play
from infini.verify.run import PLAYBOOK, verify

INVENTORY = os.environ.get("INFINI_INVENTORY", "staging")
QUARTER = 15 * 60


class Canary:
    """The watcher that lets it fly, and the mail server that it is to come through."""

    def __init__(self) -> None:
        self.inventory = Inventory(INVENTORY)
        self.watcher = self.inventory.hosts("watchers")[0]
        self.server = self.inventory.hosts("mail_servers")[0]

    def get(self, name):
        return self.inventory.get(self.watcher, name)

    def run(self, host, command, status=0):
        line = [*self.inventory.connection(host).ssh("-o", "BatchMode=yes"), f"sh -c {shlex.quote(command)}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert status is None or done.returncode == status, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def fly(self):
        """Let it fly as its timer does; return how long that took, and what it wrote down."""
        started = time.monotonic()
        self.run(self.watcher, "systemctl start infini-canary.service", status=None)
        state = json.loads(self.run(self.watcher, "cat /var/lib/infini-canary/state.json"))
        return time.monotonic() - started, state

    def play(self, name, **variables):
        done = play(playbook_path(name), str(self.inventory.path), variables)
        assert done.ok, done.sentence()

    def said(self):
        """Return what its check says: whether all is well, and the sentence."""
        sentence, status = self.run(self.watcher, "infini-canary check; echo $?").strip().rsplit("\n", 1)
        return status == "0", sentence

    def verified(self):
        """Return what `infini verify` makes of that."""
        played = play(PLAYBOOK, str(self.inventory.path), arguments=["--limit", self.watcher])
        listed = verify(INVENTORY, played=played).listed
        [check] = [one for one in listed if one.values.get("command") == "infini-canary check"]
        return check.ok, check.values["output"]


@pytest.fixture(scope="module")
def canary():
    return Canary()


def minutes(canary):
    """Return how many minutes the running timer leaves between two flights."""
    listed = canary.run(canary.watcher, "systemctl show infini-canary.timer --property TimersCalendar --value")
    step = re.search(r"OnCalendar=\*-\*-\* \*:00/([0-9]+):00", listed)
    assert step, listed
    return int(step[1])


def test_it_comes_through_and_verify_says_when_and_how_it_is_signed(canary):
    _took, state = canary.fly()
    assert state["stage"] == "", state
    good, sentence = canary.verified()
    assert good, sentence
    robot = canary.get("mail_canary_list").rpartition("@")[2]
    assert re.search(
        rf"il y a [01] min, par la liste en [0-9]+ s \(DKIM, ARC et DMARC de {re.escape(robot)}\)", sentence
    )
    assert canary.run(canary.watcher, "systemctl is-active infini-canary.timer").strip() == "active"


def test_it_leaves_nothing_behind(canary):
    canary.fly()
    box = f"/srv/mail/{'/'.join(reversed(canary.get('mail_canary_mailbox').split('@')))}/Maildir"
    assert canary.run(canary.server, f"find {box}/new {box}/cur -type f | wc -l").strip() == "0"


def test_its_password_is_for_its_service_only(canary):
    password = canary.get("mail_canary_password")
    assert canary.run(canary.watcher, "stat -c '%a %U' /etc/infini-canary/password").split() == ["600", "root"]
    words = "journalctl --no-pager --quiet; cat /var/lib/infini-canary/state.json /etc/systemd/system/infini-canary.*"
    assert password not in canary.run(canary.watcher, words)


@contextlib.contextmanager
def list_disabled(canary):
    lists = canary.inventory.get(canary.server, "sympa_lists")
    left = [one for one in lists if f"{one['name']}@{one['robot']}" != canary.get("mail_canary_list")]
    try:
        canary.play("lists", sympa_lists=left, sympa_subscribers="")
        yield
    finally:
        canary.play("lists")


@contextlib.contextmanager
def stopped(canary, *units):
    """Stop services; afterwards wait until mail is taken and read again."""
    names = " ".join(units)
    try:
        canary.run(canary.server, f"systemctl stop {names}")
        yield
    finally:
        canary.run(canary.server, f"systemctl start {names}")


@contextlib.contextmanager
def another_key(canary, path):
    """Sign by a key that the DNS does not know."""
    try:
        canary.run(canary.server, f"cp -p {path} /run/e2e.key && openssl genrsa -out /run/e2e.new 2048 2>/dev/null")
        canary.run(canary.server, f"cat /run/e2e.new >{path} && systemctl reload rspamd.service")
        yield
    finally:
        canary.run(canary.server, f"cat /run/e2e.key >{path}; rm -f /run/e2e.key /run/e2e.new; systemctl reload rspamd")


FAULTS = {
    "the list is closed": ("list", lambda canary: list_disabled(canary)),
    "Sympa is down": ("list", lambda canary: stopped(canary, "sympa.service")),
    "Rspamd is down": ("sent", lambda canary: stopped(canary, "rspamd.service")),
    "Dovecot is down": ("mailbox", lambda canary: stopped(canary, "dovecot.service")),
    "the list signs by another key": (
        "signature",
        lambda canary: another_key(canary, "/etc/sympa/dkim/listes.canari.test.liste1.key"),
    ),
    "the mail server seals by another key": (
        "signature",
        lambda canary: another_key(canary, "/var/lib/infini/mail/dkim/canari.test.infini1.key"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_said_with_its_place_within_a_quarter_of_an_hour_and_forgotten_once_mended(canary, fault):
    stage, broken = FAULTS[fault]
    with broken(canary):
        took, state = canary.fly()
        assert state["stage"] == stage, state
        good, sentence = canary.said()
        assert not good
        assert sentence.startswith("Le canari du courrier"), sentence
        assert state["reason"] in sentence
        assert "Dernier retour il y a" in sentence
        if stage == "mailbox":
            good, sentence = canary.verified()
            assert not good
            assert state["reason"] in sentence
        # The worst case: it broke just after a flight.
        assert minutes(canary) * 60 + took < QUARTER
    end = time.monotonic() + 120
    while (state := canary.fly()[1])["stage"]:
        assert time.monotonic() < end, state
    good, sentence = canary.said()
    assert good, sentence
