# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import json
import socketserver
import threading
from email import message_from_bytes, policy

import pytest

from hosting import watch
from hosting.findings import Check
from infini.locale import catalogue, phrases

FRENCH = catalogue("fr")
WELL = {
    "failed_units": [],
    "clock": {"synchronised": None, "offset": None, "drift": None},
    "disks": [],
    "memory": {"percent": 30, "pressure": 0},
    "upgrades": {"security": [], "reason": "", "days": 0.2},
    "reboot": False,
    "accounts": [],
    "files": 2,
    "quarantined": [],
}
ABOUT = {"ssh": "ssh root@192.0.2.10", "inventory": "staging"}
GOOD = Check("failed:web", "web", "failed.ok", {"host": "web", **ABOUT})
BAD = Check(
    "upgrades:web", "web", "upgrades.pending", {"host": "web", "count": 2, "packages": ["openssl", "libssl3"], **ABOUT}
)


def test_only_changes_are_told():
    first = watch.compare(None, [GOOD])
    assert first.worth_telling
    assert watch.subject(first, 1, FRENCH) == "[Infini] la veille commence, 1 vérifications, tout va bien"
    assert not watch.compare({}, [GOOD]).worth_telling
    broken = watch.compare({}, [GOOD, BAD])
    assert (broken.broken, broken.known) == ([BAD], [])
    assert watch.subject(broken, 2, FRENCH) == "[Infini] 1 chose à réparer"
    same = watch.compare({BAD.id: "bad"}, [GOOD, BAD])
    assert (same.worth_telling, same.known) == (False, [BAD])
    mended = watch.compare({GOOD.id: "bad", BAD.id: "bad"}, [GOOD, BAD])
    assert (mended.mended, mended.known) == ([GOOD], [BAD])
    gone = watch.compare({BAD.id: "bad"}, [GOOD])
    assert (gone.gone, gone.worth_telling) == (["bad"], True)
    assert watch.subject(gone, 1, FRENCH) == "[Infini] 1 chose réparée"
    assert "Ce n'est plus le cas :\n\n- bad\n" in watch.body(gone, FRENCH, "/x")
    text = watch.body(mended, FRENCH, "/x")
    assert text.index("De nouveau en ordre") < text.index("Toujours à réparer")


class Sink(socketserver.StreamRequestHandler):
    """As much of a mail server as takes messages."""

    def handle(self):
        self.wfile.write(b"220 sink\r\n")
        while line := self.rfile.readline().decode().strip():
            if line.upper().startswith("DATA"):
                self.wfile.write(b"354 go on\r\n")
                data = b""
                while not data.endswith(b"\r\n.\r\n"):
                    data += self.rfile.readline()
                self.server.taken.append(data[:-3])
            if "refused@" in line:
                self.wfile.write(b"550 nobody here\r\n")
                continue
            if line.upper() == "QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 ok\r\n")


@pytest.fixture
def sink():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Sink) as server:
        server.taken = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def expectations(to="", smtp="127.0.0.1:1"):
    return {
        "phrases": phrases("fr"),
        "mail": {"to": to, "from": "veille@infini.test", "smtp": smtp, "starttls": False},
        "probes": [],
        "slices": "",
        "here": {"host": "anatole", "ssh": "ssh root@x", "inventory": "staging", "playbook": "watch", "address": "x"},
    }


def watched(state, checks, **mail):
    return watch.watch(expectations(**mail), state, lambda context: json.dumps(context), look=lambda _: list(checks))


def test_the_watch_mails_what_changed_and_nothing_else(tmp_path, sink, capsys):
    mail = {"to": "techs@infini.test", "smtp": f"127.0.0.1:{sink.server_address[1]}"}
    watched(tmp_path, [GOOD, BAD], **mail)
    watched(tmp_path, [GOOD, BAD], **mail)
    watched(tmp_path, [GOOD], **mail)
    assert len(sink.taken) == 2
    message = message_from_bytes(sink.taken[0], policy=policy.default)
    assert message["Subject"] == "[Infini] 1 chose à réparer"
    assert message["To"] == "techs@infini.test"
    assert "2 mises à jour de sécurité attendent sur web" in message.get_content()
    assert "unattended-upgrade" in message.get_content()
    assert list((tmp_path / "outbox").iterdir()) == []
    assert "mises à jour" in capsys.readouterr().out
    assert json.loads((tmp_path / "verify.html").read_text())["checks"] == 2  # the mail itself is one


def test_a_mail_server_that_is_down_loses_nothing_and_is_a_finding(tmp_path, sink, capsys):
    watched(tmp_path, [BAD], to="techs@infini.test")
    assert len(list((tmp_path / "outbox").iterdir())) == 1
    assert "Connection refused" in capsys.readouterr().out
    second = watched(tmp_path, [BAD], to="techs@infini.test")
    assert [check.code for check in second.broken] == ["mail.refused"]
    assert "Connection refused" in (tmp_path / "verify.html").read_text()
    third = watched(tmp_path, [BAD], to="techs@infini.test", smtp=f"127.0.0.1:{sink.server_address[1]}")
    assert [check.code for check in third.mended] == ["mail.ok"]
    assert len(sink.taken) == 3
    assert list((tmp_path / "outbox").iterdir()) == []


def test_one_refused_message_does_not_hold_up_the_others(tmp_path, sink):
    server = f"127.0.0.1:{sink.server_address[1]}"
    for recipient in ("refused@infini.test", "techs@infini.test"):
        watch.write_message("text", "title", "veille@infini.test", recipient, tmp_path)
    assert "nobody here" in watch.deliver(tmp_path, server)
    assert len(sink.taken) == 1
    assert [b"refused@" in path.read_bytes() for path in tmp_path.iterdir()] == [True]
    assert watch.waiting(tmp_path).startswith("1 message(s) wait")
    assert watch.waiting(tmp_path / "none") == ""


def test_a_connection_that_breaks_keeps_what_was_not_taken(tmp_path, monkeypatch, sink):
    def gone(*_a, **_k):
        raise watch.smtplib.SMTPServerDisconnected("Connection unexpectedly closed")

    monkeypatch.setattr(watch.smtplib.SMTP, "send_message", gone)
    watch.write_message("text", "title", "veille@infini.test", "techs@infini.test", tmp_path)
    assert watch.deliver(tmp_path, f"127.0.0.1:{sink.server_address[1]}") == "Connection unexpectedly closed"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_mail_server_that_stays_down_does_not_fill_the_disk(tmp_path):
    for number in range(watch.KEPT_MESSAGES + 6):
        watched(tmp_path, [GOOD, BAD] if number % 2 else [GOOD], to="techs@infini.test")
    assert len(list((tmp_path / "outbox").iterdir())) == watch.KEPT_MESSAGES


def test_without_a_recipient_the_last_messages_stay(tmp_path):
    for number in range(watch.KEPT_MESSAGES + 6):
        watched(tmp_path, [GOOD, BAD] if number % 2 else [GOOD])
    assert len(list((tmp_path / "outbox").iterdir())) == watch.KEPT_MESSAGES


def test_the_watch_looks_and_judges_its_own_host(monkeypatch):
    monkeypatch.setattr(watch.health, "read", lambda **_: WELL)
    checks = watch.look(expectations(), patience=0)
    assert all(check.ok and check.host == "anatole" for check in checks)
    assert "failed.ok" in {check.code for check in checks}


def test_authorities_come_from_systemd(tmp_path, monkeypatch):
    assert watch.trust().authorities == []
    (tmp_path / "authority-1").write_text("PEM")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert watch.trust().authorities == ["PEM"]


def test_phrases_travel_whole():
    french = watch.French(phrases("fr"))
    assert french.gettext("Updates") == FRENCH.gettext("Updates") == "Mises à jour"
    for number in (0, 1, 2, 60):
        words = ("{count} thing to mend", "{count} things to mend", number)
        assert french.ngettext(*words) == FRENCH.ngettext(*words)
