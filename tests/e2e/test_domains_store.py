# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to domains, kept on the host that volunteers share, over a real SSH: whole, private, one at a time."""

import os
import secrets
import shlex
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pytest

from infini.domains import events
from infini.domains.events import EVENTS, Event, SshStore
from infini.errors import RefusedError, UnreachableError
from infini.hosts import Connection, Inventory

INVENTORY = os.environ.get("INFINI_INVENTORY", "staging")
A = "a.example"
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
HOSTILE = "$(touch /run/e2e-pwned) `touch /run/e2e-pwned` ;touch /run/e2e-pwned; 'été' \"x\" \\ | & * -rf"
PROGRAM = """
import sys
from infini.domains.events import Event, SshStore
from infini.hosts import Inventory
from datetime import UTC, datetime

inventory, folder, what = sys.argv[1:]
found = Inventory(inventory)
store = SshStore(found.connection(found.hosts("control")[0]), folder)
if what == "hold":
    with store.lock("a.example", "Camille"):
        print("held", flush=True)
        sys.stdin.read()
number = 0
while True:
    store.append(Event(datetime.now(UTC), "a.example", "Camille", "note", {"number": number, "text": "x" * 5000}))
    print(number, flush=True)
    number += 1
"""


def event(number: int = 0, **data: object) -> Event:
    return Event(NOW, A, "Camille", "note", {"number": number, **data})


class Shared:
    """The host that volunteers share, and a folder of the test's own there, whose name wants quoting."""

    def __init__(self) -> None:
        inventory = Inventory(INVENTORY)
        self.connection = inventory.connection(inventory.hosts("control")[0])
        self.folder = f"/var/lib/infini e2e '{secrets.token_hex(4)}'"

    def run(self, command: str) -> str:
        become = "sudo -n " if self.connection.become else ""
        line = [*self.connection.ssh("-o", "BatchMode=yes"), f"{become}sh -c {shlex.quote(command)}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def names(self) -> list[str]:
        """Return every file in the folder, with its mode and owner."""
        return sorted(self.run(f"cd {shlex.quote(self.folder)} && find . ! -name . -printf '%m %u %P\\n'").splitlines())

    def start(self, what: str) -> subprocess.Popen[str]:
        """Start another volunteer's process."""
        command = [sys.executable, "-c", PROGRAM, INVENTORY, self.folder, what]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def shared():
    found = Shared()
    yield found
    found.run(f"rm -rf {shlex.quote(found.folder)}")


@pytest.fixture
def store(shared):
    return SshStore(shared.connection, shared.folder)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_what_is_written_is_read_and_is_root_s_alone(store, shared):
    assert (store.domains(), store.read(A), store.kept(A, "zone.txt")) == ([], [], None)
    wanted = [event(number, text="été\n“été”") for number in range(3)]
    for one in wanted:
        store.append(one)
    zone = "@ 300 IN TXT “été”\n" * 100_000
    store.keep(A, "zone.txt", zone)
    store.add(A, "probe.jsonl", '{"a": 1}\n')
    store.add(A, "probe.jsonl", '{"a": 2}\n')

    again = SshStore(shared.connection, shared.folder)
    assert again.read(A) == wanted
    assert again.kept(A, "zone.txt") == zone
    assert again.kept(A, "probe.jsonl") == '{"a": 1}\n{"a": 2}\n'
    assert (again.domains(), again.domains("zone.txt"), again.domains("answers.yml")) == ([A], [A], [])
    documents = [f"600 root {A}/{name}" for name in (EVENTS, "probe.jsonl", "zone.txt")]
    assert shared.names() == [*documents, f"700 root {A}"]


def test_a_half_line_never_happened_and_is_mended(store, shared):
    store.append(event(0))
    shared.run(f"printf '{{\"at' >>{shlex.quote(f'{shared.folder}/{A}/{EVENTS}')}")
    assert store.read(A) == [event(0)]
    store.append(event(1))
    assert store.read(A) == [event(0), event(1)]


def test_a_second_volunteer_is_refused_and_told_who_holds_the_domain(store, shared):
    other = SshStore(shared.connection, shared.folder)
    with store.lock(A, "Camille"):
        with pytest.raises(RefusedError, match="is in the hands of Camille"), other.lock(A, "Dominique"):
            pytest.fail("two volunteers hold one domain")
        with other.lock("b.example", "Dominique"):
            other.append(event())
    with other.lock(A, "Dominique"):
        pass


def test_a_killed_volunteer_holds_nothing(store, shared):
    holder = shared.start("hold")
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RefusedError, match="Camille"), store.lock(A, "Dominique"):
        pytest.fail("two volunteers hold one domain")
    holder.kill()
    holder.communicate()

    def free():
        try:
            with store.lock(A, "Dominique"):
                return True
        except RefusedError:
            return False

    until(free)


def test_writers_at_the_same_time_lose_nothing(store, shared):
    def write(base):
        mine = SshStore(shared.connection, shared.folder)
        for number in range(5):
            mine.append(event(base + number, text="x" * 20_000))

    writers = [threading.Thread(target=write, args=(base,)) for base in (0, 10, 20, 30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [one.data["number"] for one in store.read(A)]
    assert sorted(found) == [base + number for base in (0, 10, 20, 30) for number in range(5)]
    assert [number for number in found if number < 10] == list(range(5))  # each writer's own order


def test_a_killed_writer_leaves_whole_events_only(store, shared):
    for _ in range(3):
        before = len(store.read(A))
        writer = shared.start("write")
        told = [int(writer.stdout.readline()) for _ in range(2)]
        time.sleep(0.3)
        writer.kill()
        rest, _ = writer.communicate()
        told += [int(line) for line in rest.split()]
        found = [one.data["number"] for one in store.read(A)][before:]
        assert found[: len(told)] == told  # what was said to be kept is there, in its order, and at most one more
        assert len(found) <= len(told) + 1
    store.append(event(99))
    assert store.read(A)[-1] == event(99)


@pytest.mark.parametrize("script", ["_APPEND", "_KEEP"])
def test_a_connection_that_is_cut_half_way_leaves_nothing(store, shared, script):
    store.keep(A, "probe.jsonl", "before\n")
    text = "x" * 999 + "\n"
    command = store._command(getattr(events, script), A, "probe.jsonl", str(len(text) * 100))
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
    writer.stdin.write((text * 50).encode())
    until(lambda: any("/.probe.jsonl." in name for name in shared.names()))
    writer.kill()
    writer.communicate()
    until(lambda: shared.names() == [f"600 root {A}/probe.jsonl", f"700 root {A}"])
    assert store.kept(A, "probe.jsonl") == "before\n"
    store.add(A, "probe.jsonl", "after\n")
    assert store.kept(A, "probe.jsonl") == "before\nafter\n"


def test_nothing_of_what_is_given_is_run(store, shared):
    shared.run("rm -f /run/e2e-pwned")
    for name in (HOSTILE, "x;touch", "$(id)", "`id`", "-rf", "a b", "../x", "a\nb", "a'b"):
        for use in (
            store.read,
            lambda name: store.append(Event(NOW, name, "", "note")),
            lambda name: store.kept(A, name),
        ):
            with pytest.raises(RefusedError):
                use(name)
    store.append(event(0, text=HOSTILE))
    assert store.read(A) == [event(0, text=HOSTILE)]
    with (
        store.lock(A, HOSTILE),
        pytest.raises(RefusedError) as refusal,
        SshStore(shared.connection, shared.folder).lock(A, "Dominique"),
    ):
        pytest.fail("two volunteers hold one domain")
    assert HOSTILE in str(refusal.value)
    assert shared.run("ls /run/e2e-pwned 2>/dev/null || echo none") == "none\n"


def test_a_host_that_does_not_answer_is_one_sentence(shared):
    to = shared.connection
    store = SshStore(Connection(to.host, to.address, to.user, 1, to.options), shared.folder)
    for use in (lambda: store.append(event()), lambda: store.read(A), lambda: store.lock(A, "Camille").__enter__()):
        with pytest.raises(UnreachableError, match="did not keep the domains' events: nothing more was done"):
            use()
