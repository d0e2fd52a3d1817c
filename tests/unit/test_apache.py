# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which configuration Apache serves by: a small process that is called apache2 stands for it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from hosting import apache

# Says that it is there, then writes its PID file anew each time that it is signalled, as Apache does.
SERVER = """
import os, signal, sys, time
def read(*_):
    time.sleep(0.1)  # reading takes its time
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(f"{os.getpid()}\\n")
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    print("read", flush=True)
signal.signal(signal.SIGUSR1, read if sys.argv[2] == "reads" else signal.SIG_IGN)
read()
while True:
    signal.pause()
"""


@pytest.fixture
def pid_file(tmp_path, monkeypatch):
    monkeypatch.setattr(apache, "PID_FILE", tmp_path / "apache2.pid")
    monkeypatch.setattr(apache, "UNIT", "\n")  # the end of any control group: these are ours
    return apache.PID_FILE


@pytest.fixture
def server(pid_file):
    """Start the server, which reads its configuration when told to, or never."""
    running = []

    def start(manner="reads"):
        words = [sys.executable, "-c", SERVER, str(pid_file), manner]
        running.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout.readline() == "read\n"
        return running[-1]

    yield start
    for one in running:
        one.kill()
        one.communicate()


@pytest.fixture
def request_under_way(tmp_path):
    """Start a process that has the name of Apache's, or another one."""
    running = []

    def start(name="apache2"):
        shutil.copy(shutil.which("sleep"), tmp_path / name)
        running.append(subprocess.Popen([tmp_path / name, "60"]))
        apache.until(lambda: name in (apache.Path(f"/proc/{running[-1].pid}/comm")).read_text(), 5)
        return str(running[-1].pid)

    yield start
    for one in running:
        one.kill()
        one.wait()


def later(path, seconds):
    os.utime(path, (time.time() + seconds, time.time() + seconds))


def test_a_reload_returns_once_the_new_configuration_is_in_force(server, pid_file):
    first = server()
    before = pid_file.stat().st_ino
    apache.reload()
    assert pid_file.stat().st_ino != before
    assert first.stdout.readline() == "read\n"


def test_apache_that_does_not_run_is_not_reloaded(pid_file):
    with pytest.raises(apache.ApacheError, match=r"does not run in its unit: `systemctl start apache2`"):
        apache.reload()
    pid_file.write_text("nonsense")
    with pytest.raises(apache.ApacheError, match="does not run in its unit"):
        apache.reload()


def test_an_apache_outside_its_unit_is_not_signalled(server, monkeypatch):
    process = server()
    monkeypatch.setattr(apache, "UNIT", "/apache2.service\n")
    with pytest.raises(apache.ApacheError, match="does not run in its unit"):
        apache.reload()
    assert process.poll() is None


def test_an_apache_that_never_reads_is_a_sentence(server, monkeypatch):
    server("never")
    monkeypatch.setattr(apache, "RELOAD_SECONDS", 0.3)
    with pytest.raises(apache.ApacheError, match=r"has not read its configuration within 0\.3 s: see /var/log/apache2"):
        apache.reload()


def test_the_first_process_is_told_with_its_control_groups(server, pid_file):
    assert apache.first_process() is None
    process = server()
    pid, groups = apache.first_process()
    assert pid == process.pid
    assert groups == apache.Path(f"/proc/{pid}/cgroup").read_text()
    pid_file.write_text("4194305\n")  # beyond what Linux gives
    assert apache.first_process() is None


def test_processes_older_than_what_apache_has_read_are_outdated(pid_file, request_under_way):
    pid_file.write_text("1\n")
    old = request_under_way()
    later(pid_file, 5)
    assert old in apache.outdated()
    later(pid_file, -5)
    assert old not in apache.outdated()


def test_neither_the_first_process_nor_a_logger_is_outdated(pid_file, request_under_way):
    first, logger = request_under_way(), request_under_way("vlogger")
    pid_file.write_text(f"{first}\n")
    later(pid_file, 5)
    assert not {first, logger} & set(apache.outdated())


def test_processes_of_another_unit_are_no_concern(pid_file, request_under_way, monkeypatch):
    pid_file.write_text("1\n")
    old = request_under_way()
    later(pid_file, 5)
    monkeypatch.setattr(apache, "UNIT", "/of-nobody.service\n")
    assert old not in apache.outdated()


@pytest.mark.usefixtures("pid_file")
def test_nothing_is_outdated_where_apache_does_not_run(request_under_way):
    request_under_way()
    assert apache.outdated() == []


def test_waiting_ends_when_it_comes_or_when_time_is_up():
    comes = iter([0, "", "there"])
    assert apache.until(lambda: next(comes), 5) == "there"
    begun = time.monotonic()
    assert apache.until(list, 0.2) == []
    assert 0.2 <= time.monotonic() - begun < 2


def test_draining_says_how_many_are_still_served_by_what_was_before(pid_file, request_under_way, monkeypatch, capsys):
    pid_file.write_text("1\n")
    request_under_way()
    later(pid_file, 5)
    monkeypatch.setattr(sys, "argv", ["apache-generation", "drain", "0.2"])
    apache.main()
    assert re.fullmatch(r"[1-9]\d* requests are still served by what Apache had read before\n", capsys.readouterr().out)
    monkeypatch.setattr(apache, "outdated", list)
    apache.main()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [[], ["reload", "now"], ["drain"], ["stop"]])
def test_other_words_are_answered_with_how_to_use_it(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["apache-generation", *words])
    with pytest.raises(SystemExit, match=r"(?s)^usage: .*\napache-generation reload "):
        apache.main()


@pytest.mark.usefixtures("pid_file")
def test_a_reload_by_word_ends_with_the_sentence(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["apache-generation", "reload"])
    with pytest.raises(SystemExit, match="Apache does not run in its unit"):
        apache.main()


def test_a_reload_by_word_signals_once(server, monkeypatch):
    signals = []
    kill = os.kill
    monkeypatch.setattr(apache.os, "kill", lambda pid, number: (signals.append((pid, number)), kill(pid, number)))
    process = server()
    monkeypatch.setattr(sys, "argv", ["apache-generation", "reload"])
    apache.main()
    assert signals == [(process.pid, signal.SIGUSR1)]
