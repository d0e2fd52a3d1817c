# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A conversation on a list that speaks under its own name: where replies go, what a thread is made of, who signed."""

import email
import email.policy
import re
import time
from email.utils import getaddresses
from pathlib import Path

import pytest
from mail_clients import message
from test_mail import Platform, outside  # noqa: F401  a fixture, found by its name


class Conversation(Platform):
    """The mail server with the list, and all that the DNS is to say of both."""

    def __init__(self):
        super().__init__()
        robots = {one["name"]: one for one in self.get("sympa_robots")}
        speaking = [
            one for one in self.get("sympa_lists") if robots[one["robot"]].get("dmarc", {}).get("mode") == ["all"]
        ]
        [one] = [one for one in speaking if one["kind"] == "discussion"]
        self.robot, self.list = one["robot"], f"{one['name']}@{one['robot']}"
        rows = [line.split("\t") for line in Path(self.get("sympa_subscribers")).read_text().splitlines()]
        self.members = [cells[1] for cells in rows if cells[0] == self.list]
        self.zone = [*self.zone, *self.run("infini-sympa records").splitlines()]

    def read(self, raw):
        return email.message_from_bytes(raw, policy=email.policy.default)


@pytest.fixture(scope="module")
def platform():
    return Conversation()


@pytest.fixture(scope="module")
def talk(platform):
    return platform


@pytest.fixture(scope="module")
def readers(talk):
    """Two members with a mailbox of ours, and one elsewhere."""
    boxes = {one["address"] for one in talk.get("mail_mailboxes")}
    here = [who for who in talk.members if who in boxes]
    [elsewhere] = [who for who in talk.members if who not in boxes]
    for who in here:
        with talk.mailbox(who) as mailbox:
            mailbox.empty()
    return *here, elsewhere


def left(outside, recipient, subject):  # noqa: F811  that fixture
    """Wait until the rest of the world has it; return what it was given."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for one in outside.received:
            if recipient in one.recipients and subject.encode() in one.content:
                return one
        time.sleep(0.3)
    raise AssertionError(f"{subject} did not leave for {recipient}")


def addresses(mail, header):
    return [address for _name, address in getaddresses(mail.get_all(header, []))]


def test_a_reply_goes_to_the_list_in_its_thread_and_is_the_lists_own(talk, readers, outside):  # noqa: F811  that fixture
    ada, bob, elsewhere = readers
    first = message(ada, talk.list)
    with talk.as_member(ada) as client:
        client.send_message(first)
    with talk.mailbox(bob) as mailbox:
        seen = talk.read(mailbox.wait(first["Subject"], seconds=90))
    assert seen["Message-ID"] == first["Message-ID"], "or no reply would find its place in the thread"
    assert addresses(seen, "Reply-To") == [talk.list]
    assert addresses(seen, "From") == [talk.list]
    assert ada.partition("@")[0] in str(seen["From"]).lower(), "one still sees who wrote"
    assert talk.list.partition("@")[0] in seen["List-Id"]
    assert talk.list in seen["List-Post"]

    answer = message(bob, addresses(seen, "Reply-To")[0], subject=f"Re: {seen['Subject']}")
    answer["In-Reply-To"] = seen["Message-ID"]
    answer["References"] = seen["Message-ID"]
    with talk.as_member(bob) as client:
        client.send_message(answer)
    with talk.mailbox(ada) as mailbox:
        got = talk.read(mailbox.wait(answer["Subject"], seconds=90))
    for one in (got, talk.read(left(outside, elsewhere, answer["Message-ID"]).content)):
        assert (one["Message-ID"], one["Subject"]) == (answer["Message-ID"], f"Re: {first['Subject']}")
        assert one["In-Reply-To"] == first["Message-ID"]
        assert one["References"].split() == [first["Message-ID"]]
        assert addresses(one, "Reply-To") == addresses(one, "From") == [talk.list]

    given = left(outside, elsewhere, answer["Message-ID"])
    assert given.sender == talk.list.replace("@", "-owner@")
    assert talk.verified(given.content)
    signers = re.findall(r"\bd=([^;\s]+)", " ".join(talk.read(given.content).get_all("DKIM-Signature")))
    assert talk.robot in signers, "the list signs by its own key"
    assert not talk.verified(given.content.replace(b"Bonjour.", b"Au revoir.")), "this verification verifies nothing"
    verdicts = talk.verdicts(given)
    assert {verdicts[method] for method in ("spf", "dkim", "dmarc")} == {"pass"}, verdicts
    # Were the list to let a member's own address stand, nothing that it does would help.
    as_ada = re.sub(rb"(?m)^(From:.*(?:\r\n[ \t].*)*<).*(?=>)", rb"\g<1>" + ada.encode(), given.content, count=1)
    assert as_ada != given.content
    assert talk.verdicts(given, content=as_ada)["dmarc"] != "pass"


def test_who_is_elsewhere_replies_and_is_heard(talk, readers, outside):  # noqa: F811  that fixture
    _ada, bob, elsewhere = readers
    first = message(bob, talk.list)
    with talk.as_member(bob) as client:
        client.send_message(first)
    seen = talk.read(left(outside, elsewhere, first["Message-ID"]).content)
    answer = message(elsewhere, addresses(seen, "Reply-To")[0], subject=f"Re: {seen['Subject']}")
    answer["In-Reply-To"] = seen["Message-ID"]
    with talk.smtp() as client:
        client.send_message(answer)
    with talk.mailbox(bob) as mailbox:
        got = talk.read(mailbox.wait(answer["Subject"], seconds=90))
    assert got["In-Reply-To"] == first["Message-ID"]
    assert addresses(got, "From") == [talk.list]
