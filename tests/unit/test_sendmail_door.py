# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of PHP to the mail queue: by the very program that PHP runs, to a server that speaks as Postfix does."""

import contextlib
import os
import pwd
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting import sendmail_door as door

PROGRAM = Path(__file__).parents[2] / "roles/sendmail/tree/usr/local/lib/infini-sendmail/sendmail"
HOST = "web.infini.test"
ME = pwd.getpwuid(os.getuid()).pw_name


class Queue(socketserver.StreamRequestHandler):
    """Takes messages as Postfix does."""

    def say(self, line):
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self):
        self.say("220 web ESMTP")
        one = {"to": []}
        for raw in self.rfile:
            line = raw.decode().strip()
            verb = line[:4].upper()
            if verb == "EHLO":
                self.say("250-web\r\n250-8BITMIME\r\n250 " + self.server.offers)
                continue
            if verb == "XCLI":
                self.server.clients.append(line)
                self.say("220 web ESMTP" if "ADDR=127.0.0.1" in line else "501 no")
                continue
            if verb == "MAIL":
                one = {"from": line.split("<")[1].split(">")[0], "to": []}
            if verb == "RCPT":
                one["to"].append(line.split("<")[1].split(">")[0])
                if "refused" in line:
                    self.say("550 no such user")
                    continue
            if verb == "DATA":
                self.say("354 go on")
                one["message"] = b"".join(iter(self.rfile.readline, b".\r\n"))
                if self.server.answer.startswith("250"):
                    self.server.taken.append(one)
                self.say(self.server.answer)
                continue
            self.say("221 bye" if verb == "QUIT" else "250 ok")
            if verb == "QUIT":
                return


@pytest.fixture
def queue(tmp_path):
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "queue"), Queue) as server:
        server.taken, server.answer, server.daemon_threads = [], "250 queued", True
        server.offers, server.clients = "SIZE", []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def sendmail(tmp_path, queue):
    """Run the program, as PHP does: in a folder, with words and a message."""
    program = tmp_path / "sendmail"
    program.write_text(PROGRAM.read_text().replace("/run/infini-sendmail/door.sock", str(tmp_path / "door")))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "door"))
    listening.listen()
    folder = tmp_path / f"srv/members/{ME}/www/velo.test/blog"
    folder.mkdir(parents=True)

    def run(message, *words, where=folder):
        done = subprocess.run(
            ["perl", str(program), *words], input=message, capture_output=True, check=False, cwd=where, timeout=30
        )
        return done.returncode, done.stderr.decode()

    with door.Door(listening, HOST, 1_000_000, queue.server_address) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield run
        server.shutdown()
        thread.join()


def test_the_sender_is_the_account_whatever_is_said(sendmail, queue):
    heads = b"To: Ana <a@dehors.test>,\n b@dehors.test\nCc: c@dehors.test\nBcc: d@dehors.test\nFrom: x@y.test\n"
    message = heads + b"\n.\nBonjour\n"
    assert sendmail(message, "-t", "-i", "-fchorale@web.infini.test") == (0, "")
    assert sendmail(message, "-t", "-i", "-f", "chorale@web.infini.test", "e@dehors.test") == (0, "")
    first, second = queue.taken
    assert first["from"] == second["from"] == f"{ME}+velo.test@{HOST}"
    assert sorted(first["to"]) == [f"{one}@dehors.test" for one in "abcd"]
    assert sorted(second["to"]) == [f"{one}@dehors.test" for one in "abcde"]
    assert first["message"].endswith(b"\r\n\r\n..\r\nBonjour\r\n")
    assert b"\n" not in first["message"].replace(b"\r\n", b"")


def test_outside_of_a_site_it_is_the_account_alone(sendmail, queue, tmp_path):
    assert sendmail(b"Subject: x\r\n\r\nx", "a@dehors.test", where=tmp_path) == (0, "")
    assert queue.taken[0]["from"] == f"{ME}@{HOST}"


def test_a_mail_server_that_wants_to_know_where_mail_comes_from_is_told(sendmail, queue):
    queue.offers = "XCLIENT NAME ADDR"
    for number in range(2):
        assert sendmail(b"Subject: x\n\nx", f"{number}@dehors.test") == (0, "")
    assert queue.clients == ["XCLIENT NAME=localhost ADDR=127.0.0.1"] * 2
    assert [one["to"] for one in queue.taken] == [["0@dehors.test"], ["1@dehors.test"]]


@pytest.mark.parametrize(
    ("folder", "sender"),
    [
        ("/srv/members/velo/www/velo.test/blog", "velo+velo.test@web"),
        ("/var/www/alternc/v/velo/www/lettres", "velo+lettres@web"),
        ("/var/www/alternc/v/velo", "velo@web"),
        ("/srv/members/autre/www/autre.test", "velo@web"),
    ],
)
def test_the_site_is_told_by_its_folder_wherever_homes_are(folder, sender):
    assert door.sender("velo", folder, "web") == sender


def test_without_i_a_dot_alone_is_the_end(sendmail, queue):
    assert sendmail(b"Subject: x\n\none\n.\ntwo\n", "a@dehors.test") == (0, "")
    assert queue.taken[0]["message"] == b"Subject: x\r\n\r\none\r\n"


@pytest.mark.parametrize("answer", ["451 4.3.5 no budget", "452 no room"])
def test_never_try_again_which_php_takes_for_success(sendmail, queue, answer):
    queue.answer = answer
    status, says = sendmail(b"To: a@dehors.test\n\nx", "-t")
    assert status == 69
    assert answer[4:] in says


def test_what_cannot_be_taken_is_said(sendmail, queue):
    assert sendmail(b"Subject: x\n\nx", "-t")[0] == 65
    assert sendmail(b"To: a@dehors.test\n\n" + b"x" * 1_000_001, "-t")[0] == 65
    assert sendmail(b"To: \xc3\xa9@dehors.test\n\nx", "-t")[0] == 65
    assert sendmail(b"To: refused@dehors.test\n\nx", "-t")[0] == 65
    assert sendmail(b"", "-bs")[0] == 64
    assert sendmail(b"", *(["x" * 30_000] * 3))[0] == 64
    assert queue.taken == []


def test_a_message_that_just_fits_arrives_whole(sendmail, queue):
    head = b"To: a@dehors.test\r\n\r\n"
    message = head + b"y" * (1_000_000 - len(head) - 2) + b"\r\n"
    assert sendmail(message, "-t", "-i") == (0, "")
    assert queue.taken[0]["message"] == message


def test_a_look_sends_nothing(sendmail, queue):
    assert sendmail(b"", "-bv") == (0, "")
    assert queue.taken == []


def test_without_a_queue_or_a_door_php_hears_of_it(sendmail, queue, tmp_path):
    Path(queue.server_address).unlink()
    status, says = sendmail(b"To: a@dehors.test\n\nx", "-t")
    assert (status, "mail is out of order" in says) == (69, True)
    (tmp_path / "door").unlink()
    status, says = sendmail(b"To: a@dehors.test\n\nx", "-t")
    assert (status, "mail is out of order" in says) == (69, True)


def test_many_at_once_all_arrive(sendmail, queue):
    texts = [f"To: a{number}@dehors.test\n\nx".encode() for number in range(20)]
    threads = [threading.Thread(target=sendmail, args=(text, "-t")) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one["to"][0] for one in queue.taken) == sorted(f"a{number}@dehors.test" for number in range(20))


def test_who_keeps_the_door_open_keeps_nobody_else_out(sendmail, queue, tmp_path, monkeypatch):
    monkeypatch.setattr(door, "MOST_WAITING", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(str(tmp_path / "door"))
        refused = until(lambda: sendmail(b"To: a@dehors.test\n\nx", "-t"), lambda done: done[0])
        assert refused == (69, "sendmail: 3 of your programs are sending mail already\n")
    until(lambda: sendmail(b"To: a@dehors.test\n\nx", "-t"), lambda done: done == (0, ""))
    assert queue.taken


def until(act, held):
    """Act until what it returns holds, for ten seconds at most."""
    end = time.monotonic() + 10
    while not held(found := act()):
        assert time.monotonic() < end, found
    return found


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), max_size=8))
def test_no_command_line_breaks_the_reading(words):
    with contextlib.suppress(door.SendmailError):
        assert set(door.asked(words).recipients) <= set(words)


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_no_message_breaks_the_reading(said, from_headers, dot_ends):
    with contextlib.suppress(door.SendmailError):
        message, _ = door.whole(said, door.Asked(["a@dehors.test"], from_headers, dot_ends))
        assert b"\n" not in message.replace(b"\r\n", b"")


@pytest.mark.parametrize(
    ("words", "recipients", "from_headers", "dot_ends"),
    [
        (["-t", "-i"], [], True, False),
        (["-ti"], [], True, False),
        (["-oi", "-t"], [], True, False),
        (["-o", "i", "-t"], [], True, False),
        (["-f", "x@y.test", "-F", "Name", "a@b.test"], ["a@b.test"], False, True),
        (["-fx@y.test", "-odb", "-bm", "--", "-a@b.test"], ["-a@b.test"], False, True),
    ],
)
def test_the_words_that_programs_use(words, recipients, from_headers, dot_ends):
    assert door.asked(words) == door.Asked(recipients, from_headers, dot_ends)


@pytest.mark.skipif(not shutil.which("perl"), reason="perl is not here")
def test_the_program_needs_nothing_but_the_smallest_perl():
    """Only what Debian's perl-base has, which every tree of PHP has."""
    used = {line.split()[1].rstrip(";") for line in PROGRAM.read_text().splitlines() if line.startswith("use ")}
    assert used == {"strict", "warnings", "Socket"}
