# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mailbox is copied from a foreign IMAP server that hangs up at random, and from a run that was killed.

The foreign server is a second Dovecot on the host of mail, as others set it up: folders under INBOX., sent mail under
its French name. It listens on loopback there; what leads to it hangs up after a random number of bytes.
"""

import contextlib
import hashlib
import imaplib
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from test_mail import Platform

from infini import ROOT
from infini.mail_copy import Account, copy_mailbox

FOLDERS, MESSAGES, SEED = 40, 5000, 20261123
USER, PASSWORD, PORT = "ada", "secret-d-ailleurs", 10993
OURS = "demenagement@velo.test"
FOREIGN = f"""
base_dir = /run/foreign
log_path = /run/foreign.log
protocols = imap
ssl = required
ssl_cert = </etc/ssl/certs/ssl-cert-snakeoil.pem
ssl_key = </etc/ssl/private/ssl-cert-snakeoil.key
first_valid_uid = 5000
mail_location = maildir:/srv/foreign/Maildir
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid=vmail gid=vmail home=/srv/foreign
}}
namespace inbox {{
  inbox = yes
  prefix = INBOX.
  separator = .
  mailbox Envoy&AOk-s {{
    special_use = \\Sent
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {PORT}
  }}
}}
"""
SOW = f"""
import os, pathlib, random, shutil
luck = random.Random({SEED})
top = pathlib.Path("/srv/foreign/Maildir")
shutil.rmtree(top, ignore_errors=True)
names = ["", ".Envoy&AOk-s", ".Ch&AOI-teau", ".Ch&AOI-teau.&AMk-t&AOk- 2019", ".A&- B", ".Brouillons"]
names += [f".Dossier {{number}}" for number in range({FOLDERS} - len(names))]
for name in names:
    for part in ("cur", "new", "tmp"):
        (top / name / part).mkdir(parents=True, exist_ok=True)
for number in range({MESSAGES}):
    folder = top / names[number % len(names)] / "cur"
    words = "é à ".join(luck.choice(["velo", "amis", "jeudi", "reunion"]) for _ in range(luck.choice([20, 200, 2000])))
    text = f"From: a@ailleurs.example\\nSubject: essai {{number // 3}}\\n\\n{{words}}\\n"
    if number % 500 < 2:
        text = "From: a@ailleurs.example\\nSubject: deux fois le meme\\n\\nBonjour\\n"
    path = folder / f"{{number}}.M{{number}}.ailleurs:2,{{luck.choice(['', 'S', 'FS', 'RS', 'S'])}}"
    path.write_bytes(text.encode())
    os.utime(path, (10**9 + number * 90000,) * 2)
os.system("chown -R vmail:vmail /srv/foreign")
"""


class Unsteady:
    """A way to a server that ends after a random number of bytes, each time another."""

    def __init__(self, to, least, most):
        self.to, self.least, self.most, self.luck = to, least, most, random.Random(SEED)  # noqa: S311  no secret

    @contextlib.contextmanager
    def open(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=self._listen, args=(listening,), daemon=True).start()
            yield listening.getsockname()[1]
            listening.shutdown(socket.SHUT_RDWR)

    def _listen(self, listening):
        with contextlib.suppress(OSError):
            while True:
                near, _who = listening.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                allowed = self.luck.randrange(self.least, self.most)
                for pair in ((near, far, sys.maxsize), (far, near, allowed)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, one, other, allowed):
        with contextlib.suppress(OSError):
            while allowed > 0 and (data := one.recv(min(65536, allowed))):
                other.sendall(data)
                allowed -= len(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture(scope="module")
def platform():
    return Platform()


def feed(platform, command, text):
    """Run a command on the host with this as its input."""
    line = [*platform.inventory.connection(platform.host).ssh("-o", "BatchMode=yes"), command]
    subprocess.run(line, input=text, text=True, check=True, capture_output=True)


@pytest.fixture(scope="module")
def foreign(platform, tmp_path_factory):
    """A foreign server with a full mailbox; the port on this machine that leads to it, and what its certificate is."""
    feed(platform, "cat >/run/foreign.conf", FOREIGN)
    feed(platform, "python3 -", SOW)
    platform.run("systemd-run --quiet --collect --unit foreign dovecot -F -c /run/foreign.conf")
    certificate = tmp_path_factory.mktemp("foreign") / "certificate.pem"
    certificate.write_text(platform.run("cat /etc/ssl/certs/ssl-cert-snakeoil.pem"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    forward = ["-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{PORT}", "-o", "ExitOnForwardFailure=yes"]
    tunnel = subprocess.Popen(
        platform.inventory.connection(platform.host).ssh("-o", "BatchMode=yes", "-o", "ControlPath=none", *forward)
    )
    try:
        wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
        yield port, certificate
    finally:
        tunnel.terminate()
        tunnel.wait()
        platform.run("systemctl stop foreign; rm -rf /srv/foreign /run/foreign.conf /run/foreign /run/foreign.log")


def wait_for(attempt):
    end = time.monotonic() + 30
    while True:
        try:
            return attempt()
        except OSError:
            assert time.monotonic() < end, "no tunnel to the foreign server"
            time.sleep(0.2)


@pytest.fixture
def target(platform):
    """Our side, empty before and after."""
    ours = Account(platform.name, OURS, platform.password, address=platform.address, trust=platform.trust)
    clear(platform)
    yield ours
    clear(platform)


def clear(platform):
    with platform.mailbox(OURS) as client:
        for folder in folders(client):
            if folder in ("INBOX", "Sent", "Drafts", "Junk", "Trash"):
                client.select(f'"{folder}"')
                client.store("1:*", "+FLAGS", r"(\Deleted)")
                client.expunge()
                client.unselect()
            else:
                client.delete(f'"{folder}"')


def folders(client):
    return [re.search(r'"?([^"]*)"?$', line.decode())[1] for line in client.list()[1] if line]


def held(client):
    """Return content, date and flags of each message of each folder, as a library reads them that is not ours."""
    found = {}
    for folder in folders(client):
        client.select(f'"{folder}"', readonly=True)
        answers = client.fetch("1:*", "(INTERNALDATE FLAGS BODY.PEEK[])")[1]
        found[folder] = Counter()
        for one in answers:
            if isinstance(one, tuple):
                flags = frozenset(imaplib.ParseFlags(one[0])) - {rb"\Recent"}
                moment = imaplib.Internaldate2tuple(one[0])
                found[folder][hashlib.sha256(one[1]).hexdigest(), time.mktime(moment), flags] += 1
    return {folder: messages for folder, messages in found.items() if messages}


def our_name(folder):
    """Return what one of their folders is called here."""
    return {"INBOX.Envoy&AOk-s": "Sent"}.get(folder, folder.removeprefix("INBOX.").replace(".", "/"))


def trusting(certificate):
    trust = ssl.create_default_context(cafile=str(certificate))
    trust.check_hostname = False  # the certificate is the one of that server, whatever it calls itself
    return trust


def test_a_mailbox_is_copied_whole_through_all_cuts_and_never_twice(platform, foreign, target, tmp_path):
    port, certificate = foreign
    trust = trusting(certificate)
    with Unsteady(port, 200_000, 3_000_000).open() as unsteady:
        source = Account("127.0.0.1", USER, PASSWORD, port=unsteady, trust=trust)
        first = copy_mailbox(source, target, tmp_path / "journal")
        again = copy_mailbox(source, target, tmp_path / "journal")
        # Whoever lost the journal finds everything by its content.
        anew = copy_mailbox(source, target, tmp_path / "another")
    assert first.ok
    assert first.messages == first.copied == MESSAGES
    assert len(first.folders) == FOLDERS
    assert first.cuts >= 5, "the way was steady: this shows nothing"
    assert (again.copied, again.ok, again.messages) == (0, True, MESSAGES)
    assert (anew.copied, anew.ok) == (0, True)
    assert again.folders == first.folders
    with imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=trust) as theirs, platform.mailbox(OURS) as ours:
        theirs.login(USER, PASSWORD)
        wanted, found = held(theirs), held(ours)
    assert {our_name(folder): messages for folder, messages in wanted.items()} == found
    assert sum(map(Counter.total, found.values())) == MESSAGES


COPY = """
import sys
from pathlib import Path
from test_mail import Platform
from test_mail_copy import OURS, PASSWORD, USER, trusting
from infini.mail_copy import Account, copy_mailbox
platform, (port, certificate, journal) = Platform(), sys.argv[1:]
source = Account("127.0.0.1", USER, PASSWORD, port=int(port), trust=trusting(certificate))
target = Account(platform.name, OURS, platform.password, address=platform.address, trust=platform.trust)
copy_mailbox(source, target, Path(journal))
"""


def test_a_copy_that_was_killed_goes_on_and_copies_nothing_twice(platform, foreign, target, tmp_path):
    port, certificate = foreign
    journal = tmp_path / "journal"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/tests/e2e:{os.environ.get('PYTHONPATH', '')}"}
    for lines in (300, 1500, 1501):
        line = [sys.executable, "-c", COPY, str(port), str(certificate), str(journal)]
        process = subprocess.Popen(line, env=environment)
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < lines):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lines <= journal.read_bytes().count(b"\n") < MESSAGES
    result = copy_mailbox(Account("127.0.0.1", USER, PASSWORD, port=port, trust=trusting(certificate)), target, journal)
    assert result.ok
    with platform.mailbox(OURS) as ours:
        assert sum(map(Counter.total, held(ours).values())) == MESSAGES


def test_a_wrong_password_and_a_wrong_name_are_one_sentence(foreign, target, tmp_path):
    from infini.errors import RefusedError, UnreachableError

    port, certificate = foreign
    trust = trusting(certificate)
    wrong = Account("127.0.0.1", USER, "autre", port=port, trust=trust)
    with pytest.raises(RefusedError, match=rf"127\.0\.0\.1 lets {USER} not in"):
        copy_mailbox(wrong, target, tmp_path / "one")
    with pytest.raises(UnreachableError, match="Is it the right name"):
        copy_mailbox(Account("127.0.0.1", USER, PASSWORD, port=port), target, tmp_path / "two")  # nobody vouches for it
