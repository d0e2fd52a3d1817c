# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Sympa made by hand with its own tools is taken over by an empty one, and written down again: equal.

The Sympa of the bench is put aside meanwhile, and back in the end.
"""

import contextlib
import json
import shlex
import time

import pytest
from mail_clients import message
from test_sympa import HOME, SYMPA, Lists

ARCHIVES = "/var/lib/sympa/arc"
ASIDE, OTHER = "/var/lib/e2e-sympa", "/root/e2e-other-sympa"
DAEMONS = "sympa.service sympa-archived.service sympa-bounced.service sympa-bulk.service sympa-task_manager.service"
ROBOT = "listes.main.test"
TABLES = "list_table admin_table subscriber_table user_table exclusion_table inclusion_table conf_table"
XML = """<?xml version="1.0" ?>
<list>
<listname>{name}</listname><type>{template}</type><subject>{subject}</subject>
<description>Faite à la main,
sur deux lignes.</description><status>open</status>
<owner multiple="1"><email>Owner.{name}@dehors.test</email><gecos>Célestine d'Artagnan</gecos></owner>
{more}<topics>other</topics>
</list>
"""
SECOND_OWNER = '<owner multiple="1"><email>autre@dehors.test</email></owner>'
MODERATOR = '<editor multiple="1"><email>moderatrice@dehors.test</email><gecos>Modératrice</gecos></editor>'
MADE = {
    "causerie": ("discussion_list", "La causerie, « sans sujet »", SECOND_OWNER),
    "lettre": ("private_working_group", "La lettre & l'esprit", MODERATOR),
    "ancienne": ("discussion_list", "Ce que l'on ne fait plus", ""),
}
MEMBERS = "anne@dehors.test Anne Élisabeth\nben@dehors.test\nC.D@dehors.test C D\npartie@dehors.test\n"
DIGEST = "email lente@dehors.test\ngecos Lente\nreception digest\nvisibility conceal\ndate 1400000000\nsubscribed 1\n\n"


class Host(Lists):
    """The host, and what is done to its Sympa."""

    def empty(self):
        """Take away robots, lists and archives; the tables stay."""
        self.run(f"systemctl stop wwsympa.service {DAEMONS}")
        for robot in self.run("ls -d /etc/sympa/*/robot.conf 2> /dev/null || true").split():
            self.run(f"rm -r {shlex.quote(robot.rpartition('/')[0])}")
        self.run(f"rm -rf {HOME}/* {ARCHIVES}/*")
        self.sql("".join(f"DELETE FROM {table};" for table in TABLES.split()))  # noqa: S608  our own names

    def save(self, folder):
        """Copy a Sympa as its administrator would: folders as they are, and a dump."""
        self.run(f"rm -rf {folder} && install -d -m 0700 {folder} {folder}/etc")
        self.run(f"cp -a {HOME} {folder}/list_data && cp -a {ARCHIVES} {folder}/arc")
        self.run(f"for one in /etc/sympa/*/robot.conf; do cp -a $(dirname $one) {folder}/etc/; done")
        self.run(f"mariadb-dump --single-transaction sympa > {folder}/sympa.sql")

    def exported(self, folder="/root/e2e-export"):
        """Return what `infini-sympa export` writes down."""
        self.run(f"infini-sympa export {folder}")
        data, subscribers = (self.run(f"cat {folder}/{name}") for name in ("sympa.json", "subscribers.tsv"))
        self.run(f"rm -r {folder}")
        return json.loads(data), subscribers.splitlines()

    def sums(self, folder):
        return self.run(f"cd {folder} && find . -type f ! -name '.*' | sort | xargs -r -d '\\n' sha256sum")


@contextlib.contextmanager
def put_aside(host):
    """Have an empty Sympa within the block, and the one of before afterwards."""
    watcher = next(iter(host.inventory.hosts("watchers")), None)  # its canary would tell of it
    host.save(ASIDE)
    before = host.exported()
    if watcher:
        host.run_on(watcher, "systemctl stop infini-canary.timer")
    try:
        host.empty()
        yield
    finally:
        host.empty()
        host.run(f"infini-sympa import {ASIDE} && rm -rf {ASIDE} {OTHER}")
        if watcher:
            host.run_on(watcher, "systemctl start infini-canary.timer")
    assert host.exported() == before


@pytest.fixture(scope="module")
def host():
    return Host()


def make_by_hand(host):
    """Make robots, lists and subscribers with Sympa's own tools, and have a message archived."""
    host.run(
        f"install -d -o sympa -g sympa /etc/sympa/{ROBOT} {HOME}/{ROBOT} {ARCHIVES} && "
        f"install -o sympa -g sympa /dev/stdin /etc/sympa/{ROBOT}/robot.conf",
        f"title Association à la main\nlistmaster tech@{ROBOT},autre@dehors.test\n"
        f"wwsympa_url\thttps://{ROBOT}/wws\n\n# a note\nmax_size 1000000\nlang fr\n",
    )
    host.run(f"systemctl start {DAEMONS}")
    for name, (template, subject, more) in MADE.items():
        text = XML.format(name=name, template=template, subject=subject.replace("&", "&amp;"), more=more)
        host.run(f"cat > /run/e2e.xml && {SYMPA} create --input_file=/run/e2e.xml {ROBOT}; rm /run/e2e.xml", text)
        host.run(f"{SYMPA} add --quiet {name}@{ROBOT}", MEMBERS)
    host.run(f"{SYMPA} del --quiet causerie@{ROBOT}", "partie@dehors.test\n")
    host.run(f"{SYMPA} dump --roles=member lettre@{ROBOT}")
    host.run(f"cat >> {HOME}/{ROBOT}/lettre/member.dump", DIGEST)
    host.run(f"{SYMPA} restore --roles=member lettre@{ROBOT}")
    mail = message("anne@dehors.test", f"causerie@{ROBOT}")
    host.run(f"runuser -u sympa -- /usr/lib/sympa/bin/queue causerie@{ROBOT}", mail.as_string())
    end = time.monotonic() + 90
    while host.run(f"ls {ARCHIVES}/causerie@{ROBOT}/*/arctxt/* 2> /dev/null | wc -l") == "0":
        assert time.monotonic() < end, "the message was not archived"
        time.sleep(1)
    host.run(f"{SYMPA} close ancienne@{ROBOT}")
    host.run(f"systemctl stop {DAEMONS}")


def test_what_was_made_by_hand_is_taken_over_and_written_down_again_equal(host):
    with put_aside(host):
        make_by_hand(host)
        data, subscribers = host.exported()
        archives = host.sums(ARCHIVES)
        host.save(OTHER)
        host.empty()
        assert json.loads(host.run(f"infini-sympa import {OTHER}")) == {"lists": 3, "subscriptions": 8}
        after, their_subscribers = host.exported()
        assert after == data
        assert their_subscribers == subscribers
        assert host.sums(ARCHIVES) == archives
        assert archives

        # And what is written down is what was made.
        [robot] = data["sympa_robots"]
        assert (robot["title"], robot["url"]) == ("Association à la main", f"https://{ROBOT}/wws")
        assert robot["listmasters"] == [f"tech@{ROBOT}", "autre@dehors.test"]
        made = {one["name"]: one for one in data["sympa_lists"]}
        assert {name: one["subject"] for name, one in made.items()} == {name: made[1] for name, made in MADE.items()}
        assert {name: one["status"] for name, one in made.items()} == {
            "causerie": "open",
            "lettre": "open",
            "ancienne": "closed",
        }
        assert [one["email"] for one in made["causerie"]["owners"]] == [
            "autre@dehors.test",
            "owner.causerie@dehors.test",
        ]
        assert made["lettre"]["moderators"] == [{"email": "moderatrice@dehors.test", "name": "Modératrice"}]
        rows = {tuple(line.split("\t")[:5]) for line in subscribers[1:]}
        assert (f"lettre@{ROBOT}", "lente@dehors.test", "Lente", "digest", "conceal") in rows
        assert (f"causerie@{ROBOT}", "anne@dehors.test", "Anne Élisabeth", "mail", "noconceal") in rows
        assert not [row for row in rows if row[:2] == (f"causerie@{ROBOT}", "partie@dehors.test")]

        assert host.run(f"postmap -q causerie@{ROBOT} hash:/etc/sympa/postfix/transport") == "sympa:"
        host.run(f"postmap -q ancienne@{ROBOT} hash:/etc/sympa/postfix/transport", status=1)
        assert {"anne@dehors.test", "ben@dehors.test", "c.d@dehors.test"} == host.members(f"causerie@{ROBOT}")
        refused = host.run(f"infini-sympa import {OTHER} 2>&1", status=2)
        assert refused.endswith("3 lists are here already: a Sympa is taken over by an empty one only")
