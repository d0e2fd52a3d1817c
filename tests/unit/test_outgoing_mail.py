# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini mail`: what it asks of the hosts, in which order, what it refuses; and blocklists, over real DNS."""

import contextlib
import json
import socketserver
import subprocess
import threading

import dns.message
import dns.rrset
import pytest
from dns.resolver import Resolver
from typer.testing import CliRunner

from infini import cli
from infini.errors import FailedError, RefusedError
from infini.hosts import Inventory
from infini.mail import blocklists, queue

QUEUE = {"messages": 3, "recipients": 5, "held": 2, "sites": {}, "providers": {}, "reasons": [], "frozen": {}}
HOSTS = """
all:
  hosts:
    lists: {ansible_host: 192.0.2.1, hosting_ipv4: 10.0.0.1, hosting_ipv6: "fd00::1", ansible_connection: local}
    web: {ansible_host: 192.0.2.2, ansible_connection: local}
  children:
    mail_servers: {hosts: {lists: null}}
    mail_clients: {hosts: {web: null}}
"""


@pytest.fixture
def inventory(tmp_path):
    (tmp_path / "hosts.yml").write_text(HOSTS)
    return Inventory(str(tmp_path))


@pytest.fixture
def platform(monkeypatch):
    """Hosts that answer; what they were asked is noted."""
    asked, queues = [], {"lists": dict(QUEUE, accounts={}), "web": dict(QUEUE, accounts={})}
    queues["web"]["accounts"] = {"velo": {"messages": 3, "recipients": 5, "held": 2}}
    queues["lists"]["frozen"] = {"velo": {"since": 1, "who": "ada@velo.test"}}

    def run(to, command, text=""):
        asked.append((to.host, *command[1:]))
        answer = queues[to.host] if command[1] == "queue" else {"frozen": True, "messages": 3, "recipients": 5}
        return subprocess.CompletedProcess(command, 0, json.dumps(answer), text)

    monkeypatch.setattr(queue, "run", run)
    monkeypatch.setattr(queue, "locked", lambda *_: contextlib.nullcontext())
    return asked, queues


def test_the_look_finds_the_frozen(inventory, platform, tmp_path):
    answer = queue.look(inventory)
    assert not answer["ok"]
    assert list(answer["hosts"]) == ["lists", "web"]
    assert answer["blocklists"] == []  # no public address
    done = CliRunner().invoke(cli.app, ["mail", "--json", "-i", str(tmp_path)])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == answer
    platform[1]["lists"]["frozen"] = {}
    assert CliRunner().invoke(cli.app, ["mail", "-i", str(tmp_path)]).exit_code == 0


def test_thaw_lets_the_mail_server_expect_what_waits_on_the_web_host(inventory, platform):
    answer = queue.thaw(inventory, "velo")
    assert platform[0][2:] == [("lists", "thaw", "velo", "5"), ("web", "thaw", "velo")]
    assert (answer["messages"], answer["recipients"]) == (6, 10)


def test_drop_asks_first_and_begins_where_mail_comes_from(inventory, platform, tmp_path):
    with pytest.raises(RefusedError, match="3 messages of velo would be deleted"):
        queue.drop(inventory, "velo", yes=False)
    assert all(one[1] == "queue" for one in platform[0])
    platform[0].clear()
    done = CliRunner().invoke(cli.app, ["mail", "drop", "velo", "--yes", "--json", "-i", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert platform[0][2:] == [("web", "drop", "velo"), ("lists", "drop", "velo")]


@pytest.mark.parametrize("account", ["velos", "chorale"])
def test_an_account_that_has_nothing_is_refused(inventory, platform, account):
    for command in (lambda: queue.thaw(inventory, account), lambda: queue.drop(inventory, account, yes=True)):
        with pytest.raises(RefusedError, match=f"{account} is not frozen and has no mail that waits: there are velo"):
            command()
    assert all(one[1] == "queue" for one in platform[0])


@pytest.mark.parametrize("account", ["", "-x", "a b", "x;y", "../x"])
@pytest.mark.usefixtures("platform")
def test_a_strange_name_never_reaches_a_host(inventory, account):
    with pytest.raises(RefusedError, match="is no account"):
        queue.thaw(inventory, account)


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [(127, RefusedError, "infini apply mail"), (2, RefusedError, "is it running"), (4, FailedError, "is it running")],
)
def test_what_a_host_says_is_passed_on(inventory, monkeypatch, status, error, says):
    monkeypatch.setattr(
        queue, "run", lambda *_: subprocess.CompletedProcess([], status, "", "Nothing was counted: is it running?\n")
    )
    with pytest.raises(error, match=says):
        queue.look(inventory)


def test_without_a_mail_server_there_is_nothing_to_look_at(tmp_path):
    (tmp_path / "hosts.yml").write_text("all: {hosts: {web: null}, children: {mail_servers: {}, mail_clients: {}}}")
    with pytest.raises(RefusedError, match="no host in the group mail_servers"):
        queue.look(Inventory(str(tmp_path)))


RECORDS = {
    ("1.2.0.192.good.test.", "A"): [],
    ("2.0.0.127.good.test.", "A"): ["127.0.0.2"],
    ("1.2.0.192.bad.test.", "A"): ["127.0.0.4"],
    ("1.2.0.192.bad.test.", "TXT"): ['"a botnet, see https://bad.test/?192.0.2.1"'],
    ("1.2.0.192.error.test.", "A"): ["127.255.255.254"],
    ("1.2.0.192.sold.test.", "A"): ["192.0.2.99"],
    ("1.2.0.192.mute.test.", "A"): [],
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bad.test.", "A"): ["127.0.0.2"],
    ("2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.good.test.", "A"): ["127.0.0.2"],
}


class Zone(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        query = dns.message.from_wire(data)
        [question] = query.question
        kind = dns.rdatatype.to_text(question.rdtype)
        reply = dns.message.make_response(query)
        values = RECORDS.get((str(question.name), kind), [])
        if values:
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *values))
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        sock.sendto(reply.to_wire(), self.client_address)


@pytest.fixture
def resolver():
    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Zone) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        found = Resolver(configure=False)
        found.nameservers, found.port = ["127.0.0.1"], server.server_address[1]
        yield found
        server.shutdown()
        thread.join()


def test_a_list_is_believed_only_if_it_lists_its_test_entry(resolver):
    zones = ["good.test", "bad.test", "error.test", "sold.test", "mute.test"]
    found = {state.zone: (state.state, state.says) for state in blocklists.look(["192.0.2.1"], zones, resolver)}
    assert found["good.test"] == ("clean", "")
    assert found["bad.test"] == ("listed", "a botnet, see https://bad.test/?192.0.2.1")
    assert found["error.test"] == ("unknown", "it answers 127.255.255.254, which is an error")
    assert found["sold.test"][0] == "unknown"
    assert found["mute.test"] == ("unknown", "it does not list its own test entry: it does not answer this resolver")


def test_ipv6_is_asked_for_nibble_by_nibble(resolver):
    found = blocklists.look(["2001:db8::1"], ["good.test", "bad.test"], resolver)
    assert [state.state for state in found] == ["clean", "listed"]


def test_a_list_that_is_away_is_no_clean_answer(resolver):
    resolver.port, resolver.timeout = 9, 0.2
    blocklists_seconds, blocklists.SECONDS = blocklists.SECONDS, 0.3
    try:
        [state] = blocklists.look(["192.0.2.1"], ["good.test"], resolver)
    finally:
        blocklists.SECONDS = blocklists_seconds
    assert state.state == "unknown"


def test_addresses_that_nobody_sees_are_not_asked_for():
    assert blocklists.look(["10.0.0.1", "fd00::1", "192.0.2.1"], ["good.test"]) == []
