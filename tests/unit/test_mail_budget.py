# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The budget of outgoing mail: whose a message is, what is counted, and what nobody can get around."""

import json
import socket
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting import mail_budget_command as command
from hosting import mail_queue
from hosting.mail_budget import DAY, HOLD, HOUR, KEPT, PASS, REFUSE, Ledger, Message, problems, read_settings, whose

SAID = {
    "host": "mx.infini.test",
    "techs": "techs@infini.test",
    "default": {"hour": 10, "day": 30},
    "accounts": [{"account": "lettre", "hour": 50}, {"account": "velo", "contact": "ada@dehors.test"}],
    "domains": [
        {"name": "velo.test", "account": "velo"},
        {"name": "velo.example", "account": "velo"},
        {"name": "x.test"},
    ],
    "nodes": [{"name": "web.infini.test", "addresses": ["192.0.2.10", "2001:db8::10"]}],
    "domains_file": "",
    "networks": ["192.0.2.0/24", "[2001:db8::]/64", "127.0.0.0/8"],
    "patience": 1,
    "stretch": 1,
    "bulk": "",
    "server": "127.0.0.1:25",
}
SETTINGS = read_settings(SAID)


def settings(**more):
    return read_settings({**SAID, **more})


def one(account="velo", recipients=1, queue_id="4abc"):
    return Message(account, "velo.test", "ada@velo.test", recipients, queue_id)


@pytest.fixture
def ledger(tmp_path):
    found = Ledger(tmp_path / "ledger")
    yield found
    found.close()


@pytest.mark.parametrize(
    ("request_", "account"),
    [
        ({"sasl_username": "Ada@Velo.test", "client_address": "198.51.100.1", "sender": "ada@velo.test"}, "velo"),
        ({"sasl_username": "a@velo.example", "client_address": "192.0.2.10", "sender": "b@web.infini.test"}, "velo"),
        ({"sasl_username": "a@x.test", "client_address": "198.51.100.1"}, "x.test"),
        ({"client_address": "192.0.2.10", "sender": "bourg@web.infini.test"}, "bourg"),
        ({"client_address": "2001:db8::10", "sender": "bourg+bourg.test@web.infini.test"}, "bourg"),
        ({"client_address": "2001:0db8:0::0010", "sender": "bourg@web.infini.test"}, "bourg"),
        ({"client_address": "::ffff:192.0.2.10", "sender": "bourg@web.infini.test"}, "bourg"),
        ({"client_address": "192.0.2.10", "sender": "ada@velo.test"}, "web.infini.test"),
        ({"client_address": "192.0.2.10", "sender": ""}, "web.infini.test"),
        ({"client_address": "192.0.2.11", "sender": "bourg@web.infini.test"}, "192.0.2.11"),
        ({"client_address": "127.0.0.1", "sender": "root@mx.infini.test"}, None),
        ({"client_address": "198.51.100.1", "sender": "ada@velo.test"}, None),
        ({"client_address": "unknown", "sender": "ada@velo.test"}, None),
    ],
)
def test_whose_a_message_is(request_, account):
    found = whose(request_, SETTINGS)
    assert (found and found[0]) == account


def test_the_site_of_php_stands_behind_the_account():
    request = {"client_address": "192.0.2.10", "sender": "velo+velo.test@web.infini.test"}
    assert whose(request, SETTINGS) == ("velo", "velo.test", "velo+velo.test@web.infini.test")


def test_soft_first_then_frozen_then_thawed(ledger):
    verdicts = [ledger.judge(one(), SETTINGS, 1000 + second) for second in range(25)]
    assert verdicts == [PASS] * 10 + [REFUSE] * 10 + [HOLD] * 5
    assert ledger.frozen() == {"velo": (1020, "ada@velo.test")}
    assert ledger.judge(one("chorale"), SETTINGS, 1030) == PASS
    # It stays so until somebody says otherwise.
    assert ledger.judge(one(), SETTINGS, 1000 + 20 * DAY) == HOLD
    assert ledger.thaw("velo", 0, 1100 + 20 * DAY)
    assert not ledger.thaw("velo", 0, 1100 + 20 * DAY)
    assert ledger.judge(one(), SETTINGS, 1200 + 20 * DAY) == PASS


def test_a_message_to_more_than_the_budget_never_leaves(ledger):
    assert ledger.judge(one(recipients=11), SETTINGS, 1000) == HOLD
    assert ledger.judge(one("chorale", recipients=10), SETTINGS, 1000) == PASS


def test_an_account_has_its_own_budget(ledger):
    assert ledger.judge(one("lettre", 50), SETTINGS, 1000) == REFUSE  # more than 30 a day
    mended = settings(accounts=[{"account": "lettre", "hour": 50, "day": 50}])
    assert ledger.judge(one("lettre", 50), mended, 1002) == PASS


def test_without_patience_nothing_is_refused(ledger):
    strict = settings(patience=0, stretch=2)
    assert [ledger.judge(one(), strict, 1000) for _ in range(22)] == [PASS] * 20 + [HOLD] * 2


def test_an_allowance_lets_what_waited_elsewhere_through(ledger):
    for _ in range(30):
        ledger.judge(one(), SETTINGS, 1000)
    ledger.thaw("velo", 500, 1001)
    assert [ledger.judge(one(), SETTINGS, 1002) for _ in range(511)] == [PASS] * 510 + [REFUSE]


def test_a_clock_that_is_set_back_frees_nobody(ledger):
    assert [ledger.judge(one(recipients=10), SETTINGS, now) for now in (10_000, 500)] == [PASS, REFUSE]
    ledger.thaw("velo", 0, 20_000)
    assert [ledger.judge(one(recipients=10), SETTINGS, now) for now in (600, 601)] == [PASS, REFUSE]


moves = st.lists(
    st.tuples(
        st.sampled_from(["velo", "chorale"]),
        st.integers(1, 12),
        st.sampled_from([0.0, 1.0, 300.0, 1000.0, HOUR, 5 * HOUR, DAY]),
        st.sampled_from(["", "", "", "", "restart", "prune"]),
    ),
    max_size=60,
)


@given(moves, st.integers(0, 3))
def test_within_any_window_no_more_leaves_than_the_budget(moves, patience):
    """Whatever comes, and however often the daemon is restarted."""
    said = settings(patience=patience)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder, "ledger"))
        now, left, frozen = 1_000_000.0, [], set()
        for account, recipients, later, event in moves:
            now += later
            if event == "restart":
                ledger.close()
                ledger = Ledger(Path(folder, "ledger"))
            if event == "prune":
                ledger.prune(now)
            verdict = ledger.judge(one(account, recipients), said, now)
            assert verdict == HOLD or account not in frozen
            if verdict == PASS:
                left.append((account, now, recipients))
            if verdict == HOLD:
                frozen.add(account)
        ledger.close()
    for account, end, _ in left:
        for window, most in ((HOUR, 10), (DAY, 30)):
            assert sum(n for who, at, n in left if who == account and end - window < at <= end) <= most


def test_what_is_held_is_never_forgotten_and_the_rest_in_time(ledger):
    for number in range(12):
        ledger.judge(one(recipients=10, queue_id=f"q{number}"), SETTINGS, 1000)
    ledger.prune(1001 + KEPT)
    assert ledger.owners(["q0", "q1", "q2", "q11"]) == dict.fromkeys(("q2", "q11"), ("velo", "velo.test"))
    ledger.settle("velo", ["q2"])
    ledger.prune(1001 + KEPT)
    assert list(ledger.owners(["q2", "q3"])) == ["q3"]


def test_what_cannot_work_is_said():
    wrong = {
        **SAID,
        "default": {"hour": 0, "day": 5},
        "accounts": [{"account": "velo", "day": -1}],
        "nodes": [{"name": "web", "addresses": ["web"]}],
        "networks": ["192.0.2.1/24"],
    }
    assert problems(SAID) == []
    assert problems(wrong) == [
        "mail_budget_default may write to 0 recipients a hour: write a number of 1 or more.",
        "velo may write to -1 recipients a day: write a number of 1 or more.",
        "web has the address web, which is none.",
        "192.0.2.1/24 among mail_budget_networks is no network such as 192.0.2.0/24.",
    ]


@pytest.fixture
def daemon(tmp_path, ledger):
    """The daemon at a socket of its own, as systemd would open it."""
    path = str(tmp_path / "socket")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    budgets = command.Budgets(ledger, SETTINGS)
    server = command.Server(listening, budgets)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield path, budgets
    server.shutdown()
    thread.join()
    server.server_close()


def ask(path, times=1, **attributes):
    """Ask as Postfix does; return the answers, an empty one where the daemon hung up."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        file = client.makefile("rwb")
        answers = []
        for _ in range(times):
            text = "".join(f"{name}={value}\n" for name, value in attributes.items())
            file.write(f"request=smtpd_access_policy\n{text}\n".encode())
            file.flush()
            answers.append(file.readline().decode().strip())
            file.readline()
        file.close()
    return answers


def test_postfix_is_answered(daemon):
    path, _ = daemon
    login = {"sasl_username": "ada@velo.test", "recipient_count": 5, "client_address": "198.51.100.1"}
    answers = ask(path, 5, **login)
    assert answers[:2] == ["action=DUNNO"] * 2
    assert [one[:17] for one in answers[2:]] == ["action=451 4.7.1 "] * 2 + ["action=HOLD outgo"]
    assert ask(path, 1, client_address="198.51.100.1", sender="ada@velo.test") == ["action=DUNNO"]


def test_who_sends_much_at_once_takes_a_lane_of_its_own(ledger, monkeypatch):
    said = settings(bulk="bulk:[mx.infini.test]:25", default={"hour": 100, "day": 100})
    budgets, clock = command.Budgets(ledger, said), [1000.0]
    monkeypatch.setattr(command.time, "time", lambda: clock[0])
    velo, other = ({"sasl_username": f"a@{name}.test", "recipient_count": "4"} for name in ("velo", "other"))
    assert [budgets.answer(velo) for _ in range(4)] == ["DUNNO"] * 2 + ["FILTER bulk:[mx.infini.test]:25"] * 2
    assert budgets.answer(other) == "DUNNO"
    clock[0] += 61
    assert budgets.answer(velo) == "DUNNO"


def test_who_cannot_count_answers_nothing(daemon, capsys):
    path, budgets = daemon

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    budgets.ledger.judge = full
    assert ask(path, 1, sasl_username="ada@velo.test", client_address="198.51.100.1") == [""]
    assert "disk is full" in capsys.readouterr().err
    del budgets.ledger.judge
    assert ask(path, 1, sasl_username="ada@velo.test", client_address="198.51.100.1") == ["action=DUNNO"]


def test_many_at_once_are_counted_once_each(daemon):
    path, _ = daemon
    answers = []

    def client():
        answers.extend(ask(path, 10, sasl_username="a@velo.test", recipient_count=1, client_address="198.51.100.1"))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count("action=DUNNO") == 10
    assert sum("451" in one for one in answers) == 10
    assert sum("HOLD" in one for one in answers) == 60


def test_the_letter_is_written_once_and_tried_again(ledger, monkeypatch):
    sent, down = [], True

    def send(made, server):
        if down:
            raise ConnectionRefusedError("nobody is there")
        sent.append((made, server))

    monkeypatch.setattr(command, "_send", send)
    budgets = command.Budgets(ledger, SETTINGS)
    for _ in range(3):
        budgets.answer({"sasl_username": "ada@velo.test", "recipient_count": "10", "client_address": "198.51.100.1"})
    with pytest.raises(ConnectionRefusedError):
        budgets.write_letters()
    down = False
    budgets.write_letters()
    budgets.write_letters()
    [(made, server)] = sent
    assert (made["To"], made["Cc"], server) == ("techs@infini.test", "ada@dehors.test", "127.0.0.1:25")
    assert "velo est gelé" in made["Subject"]
    assert "./infini mail thaw velo" in made.get_content()
    assert "en a laissé passer 10 ;" in made.get_content()


class Postfix:
    """A queue, and the two programs of Postfix that read and change it."""

    def __init__(self):
        self.queue = []

    def add(self, queue_id, name, *recipients, reason="", sender="x@velo.test"):
        told = [{"address": one, **({"delay_reason": reason} if reason else {})} for one in recipients]
        self.queue.append(
            {"queue_id": queue_id, "queue_name": name, "sender": sender, "recipients": told, "arrival_time": 2e9}
        )

    def run(self, line, **given):
        done = command.subprocess.CompletedProcess(line, 0, "", "")
        if line == ["postqueue", "-j"]:
            done.stdout = "".join(json.dumps(one) + "\n" for one in self.queue)
        elif line[:2] == ["postsuper", "-d"]:
            self.queue = [one for one in self.queue if one["queue_id"] not in given["input"].split()]
        elif line[:2] == ["postsuper", "-H"]:
            for one in self.queue:
                if one["queue_id"] in given["input"].split():
                    one["queue_name"] = "deferred"
        else:
            assert line == ["postqueue", "-f"]
        return done


@pytest.fixture
def postfix(monkeypatch, ledger, tmp_path):
    found = Postfix()
    monkeypatch.setattr(command.subprocess, "run", found.run)
    monkeypatch.setattr(command, "PROVIDERS", tmp_path / "providers")
    (tmp_path / "providers").write_text("# care\norange.example slow-orange:\nwanadoo.example slow-orange:[r]:25\n")
    for number in range(4):
        ledger.judge(one(recipients=9, queue_id=f"v{number}"), SETTINGS, 1000)
    ledger.judge(one("chorale", queue_id="c1"), SETTINGS, 1000)
    reason = "host mx.orange.example[192.0.2.77] said: 421 Too many <a{0}@orange.example> ({0}1abcdefgh12)"
    found.add("v0", "deferred", "a1@orange.example", "b@dehors.test", reason=reason.format(1))
    found.add("v3", "hold", "a3@wanadoo.example")
    found.add("c1", "deferred", "a2@wanadoo.example", reason=reason.format(2))
    found.add("in", "deferred", "ada@velo.test", reason="lmtp is away", sender="x@dehors.test")
    found.add("none", "hold", "y@dehors.test", sender="x@dehors.test")
    return found


@pytest.mark.usefixtures("postfix")
def test_the_queue_is_told_by_account_site_and_provider(ledger):
    told = command.queue(ledger, SETTINGS)
    assert (told["messages"], told["recipients"], told["held"]) == (5, 6, 2)
    assert told["accounts"]["velo"] == {"messages": 3, "recipients": 4, "held": 1}
    assert told["accounts"]["chorale"]["messages"] == told["accounts"][""]["messages"] == 1
    assert told["sites"] == {
        "velo.test": {"messages": 4, "recipients": 5, "held": 1},
    }
    assert told["providers"]["orange"] == {"messages": 3, "recipients": 3, "held": 1}
    assert list(told["frozen"]) == ["velo"]
    orange = [one for one in told["reasons"] if one["provider"] == "orange"]
    assert [one["recipients"] for one in orange] == [2]
    assert "Too many" in orange[0]["reason"]
    assert "@orange" not in orange[0]["reason"]


def test_thaw_lets_go_what_is_held_and_drop_deletes_what_waits_of_one_account_only(ledger, postfix):
    assert command.findings(ledger, SETTINGS)[0].startswith("le courrier sortant de velo est gelé depuis ")
    told = command.thaw(ledger, SETTINGS, "velo", 7)
    assert told == {"account": "velo", "frozen": True, "messages": 1, "recipients": 1}
    assert [one["queue_id"] for one in postfix.queue if one["queue_name"] == "hold"] == ["none"]
    assert command.findings(ledger, SETTINGS) == []
    postfix.queue[1]["queue_name"] = "hold"  # it came while we thawed
    assert command.findings(ledger, SETTINGS) == ["du courrier de velo est encore retenu : ./infini mail thaw velo"]
    told = command.drop(ledger, SETTINGS, "velo")
    assert told == {"account": "velo", "frozen": False, "messages": 2, "recipients": 3}
    assert [one["queue_id"] for one in postfix.queue] == ["c1", "in", "none"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            "host mx1.a.test[192.0.2.1] said: 450 <a@b.test> greylisted (id 4fXyz12abc)",
            "host mx1.a.test[192.0.2.9] said: 450 <longer.name@b.test> greylisted (id 9aaBBcc11zz)",
        ),
        ("connect to mx[2001:db8::1]:25: Connection timed out", "connect to mx[192.0.2.5]:25: Connection timed out"),
    ],
)
def test_equal_reasons_are_told_together(first, second):
    assert mail_queue.reason(first) == mail_queue.reason(second)
    assert "450" in mail_queue.reason(first) or "timed out" in mail_queue.reason(first)


def test_domains_that_change_without_us_stand_in_a_file(tmp_path):
    path = tmp_path / "accounts"
    said = settings(domains_file=str(path))
    request = {"sasl_username": "ada@neuf.test"}
    assert whose(request, command.fresh(said))[0] == "neuf.test", "who is not known yet counts for himself"
    path.write_text("neuf.test ecole\nseul.test\n")
    assert whose(request, command.fresh(said))[0] == "ecole"
    assert whose({"sasl_username": "ada@velo.test"}, command.fresh(said))[0] == "velo"
    path.write_text("neuf.test quartier\n")
    assert whose(request, command.fresh(said))[0] == "quartier"
