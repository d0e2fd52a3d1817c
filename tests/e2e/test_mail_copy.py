# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mailbox is copied from a foreign IMAP server that hangs up at random, and from a run that was killed.

The foreign server is a second Dovecot on the host of mail, as others set it up: folders under INBOX., sent mail under
its French name. It listens on loopback there; what leads to it hangs up after a random number of bytes.
"""

import contextlib
import hashlib
import imaplib
import json
import os
import random
import re
import shlex
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

from infini import ROOT, STATE
from infini.errors import RefusedError, UnreachableError
from infini.mail.copy import Account, copy_mailbox

FOLDERS, MESSAGES, SEED = 40, 5000, 20261123
USER, PASSWORD, PORT = "ada", "secret-d-ailleurs", 10993
OURS = "demenagement@velo.test"
FOREIGN = f"""
base_dir = /run/foreign
log_path = /run/foreign.log
protocols = imap
ssl = required
ssl_cert = </run/foreign.pem
ssl_key = </run/foreign.key
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
CERTIFICATE = """
openssl req -x509 -newkey rsa:2048 -nodes -keyout /run/foreign.key -out /run/foreign.pem -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null && cat /run/foreign.pem
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


# On the host: joins its input and output to the foreign server. SSH forwards nothing there.
JOIN = f"exec 3<>/dev/tcp/127.0.0.1/{PORT} 4<&0; cat <&3 & cat <&4 >&3 & wait -n; kill $(jobs -p)"


class Way:
    """Leads to the foreign server, and ends after a random number of bytes, each time another."""

    def __init__(self, platform, allowed=(sys.maxsize - 1, sys.maxsize)):
        self.ssh = platform.inventory.connection(platform.host).ssh("-o", "BatchMode=yes")
        self.allowed, self.luck = allowed, random.Random(SEED)  # noqa: S311  no secret

    @contextlib.contextmanager
    def open(self):
        """Listen on a port of this machine until the end of the block."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=self._listen, args=(listening,), daemon=True).start()
            yield listening.getsockname()[1]
            listening.shutdown(socket.SHUT_RDWR)

    def _listen(self, listening):
        with contextlib.suppress(OSError):
            while True:
                near, _who = listening.accept()
                threading.Thread(
                    target=self._serve, args=(near, self.luck.randrange(*self.allowed)), daemon=True
                ).start()

    def _serve(self, near, allowed):
        line = [*self.ssh, f"bash -c {shlex.quote(JOIN)}"]
        with near, subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as far:
            threading.Thread(target=self._ask, args=(near, far), daemon=True).start()
            with contextlib.suppress(OSError):
                while allowed > 0 and (data := far.stdout.read1(min(65536, allowed))):
                    near.sendall(data)
                    allowed -= len(data)
                near.shutdown(socket.SHUT_RDWR)
            far.kill()

    @staticmethod
    def _ask(near, far):
        with contextlib.suppress(OSError, ValueError):  # the other direction has ended
            while data := near.recv(65536):
                far.stdin.write(data)
                far.stdin.flush()
        far.kill()


@pytest.fixture(scope="module")
def platform():
    return Platform()


def feed(platform, command, text):
    """Run a command on the host with this as its input."""
    line = [*platform.inventory.connection(platform.host).ssh("-o", "BatchMode=yes"), command]
    subprocess.run(line, input=text, text=True, check=True, capture_output=True)


@pytest.fixture(scope="module")
def foreign(platform, tmp_path_factory):
    """A foreign server with a full mailbox: give the file of its certificate."""
    feed(platform, "cat >/run/foreign.conf", FOREIGN)
    feed(platform, "python3 -", SOW)
    certificate = tmp_path_factory.mktemp("foreign") / "certificate.pem"
    certificate.write_text(platform.run(CERTIFICATE))
    platform.run("systemd-run --quiet --collect --unit foreign dovecot -F -c /run/foreign.conf")
    try:
        platform.run(f"for try in $(seq 50); do ss -Hltn | grep -q 127.0.0.1:{PORT} && exit 0; sleep 0.2; done; exit 1")
        yield certificate
    finally:
        platform.run("systemctl stop foreign; rm -rf /srv/foreign /run/foreign /run/foreign.*")


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
                client.empty(f'"{folder}"')
                client.unselect()
            else:
                assert client.delete(f'"{folder}"')[0] == "OK"


def folders(client):
    return [re.search(r'(?:"([^"]*)"|(\S+))$', line.decode()).expand(r"\1\2") for line in client.list()[1] if line]


def held(client):
    """Return content, date and flags of each message of each folder, as a library reads them that is not ours."""
    found = {}
    for folder in folders(client):
        assert client.select(f'"{folder}"', readonly=True)[0] == "OK"
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
    return ssl.create_default_context(cafile=str(certificate))


def test_a_mailbox_is_copied_whole_through_all_cuts_and_never_twice(platform, foreign, target, tmp_path):
    trust = trusting(foreign)
    with Way(platform, (200_000, 3_000_000)).open() as unsteady:
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
    with (
        Way(platform).open() as port,
        imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=trust) as theirs,
        platform.mailbox(OURS) as ours,
    ):
        theirs.login(USER, PASSWORD)
        wanted, found = held(theirs), held(ours)
    assert {our_name(folder): messages for folder, messages in wanted.items()} == found
    assert sum(map(Counter.total, found.values())) == MESSAGES


COPY = """
import sys
from pathlib import Path
from test_mail import Platform
from test_mail_copy import OURS, PASSWORD, USER, trusting
from infini.mail.copy import Account, copy_mailbox
platform, (port, certificate, journal) = Platform(), sys.argv[1:]
source = Account("127.0.0.1", USER, PASSWORD, port=int(port), trust=trusting(certificate))
target = Account(platform.name, OURS, platform.password, address=platform.address, trust=platform.trust)
copy_mailbox(source, target, Path(journal))
"""


def test_a_copy_that_was_killed_goes_on_and_copies_nothing_twice(platform, foreign, target, tmp_path):
    journal = tmp_path / "journal"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/tests/e2e:{os.environ.get('PYTHONPATH', '')}"}
    with Way(platform).open() as port:
        for lines in (300, 1500, 1501):
            line = [sys.executable, "-c", COPY, str(port), str(foreign), str(journal)]
            process = subprocess.Popen(line, env=environment)
            while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < lines):
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert lines <= journal.read_bytes().count(b"\n") < MESSAGES
        source = Account("127.0.0.1", USER, PASSWORD, port=port, trust=trusting(foreign))
        result = copy_mailbox(source, target, journal)
    assert result.ok
    with platform.mailbox(OURS) as ours:
        assert sum(map(Counter.total, held(ours).values())) == MESSAGES


def test_a_wrong_password_and_a_wrong_name_are_one_sentence(platform, foreign, target, tmp_path):
    with Way(platform).open() as port:
        wrong = Account("127.0.0.1", USER, "autre", port=port, trust=trusting(foreign))
        with pytest.raises(RefusedError, match=rf"127\.0\.0\.1 lets {USER} not in"):
            copy_mailbox(wrong, target, tmp_path / "one")
        unknown = Account("127.0.0.1", USER, PASSWORD, port=port)  # nobody vouches for it
        with pytest.raises(UnreachableError, match="Is it the right name"):
            copy_mailbox(unknown, target, tmp_path / "two")


def test_the_command_copies_and_says_what_comes_next(platform, foreign, target, tmp_path):  # noqa: ARG001  is emptied
    journal = STATE / "mail" / f"{OURS}.jsonl"
    journal.unlink(missing_ok=True)
    passwords = tmp_path / "passwords"
    passwords.write_text(f"{PASSWORD}\n")
    line = [ROOT / "infini", "mail", "copy", OURS, "--from", "localhost", "--user", USER, "--passwords", passwords]
    with Way(platform).open() as port:
        environment = {**os.environ, "SSL_CERT_FILE": str(foreign)}
        ask = {"capture_output": True, "text": True, "check": False, "env": environment}
        refused = subprocess.run([*line, "--json", "--port", str(port)], **ask)
        passwords.write_text(f"{PASSWORD}\n{platform.password}\n")
        done = subprocess.run([*line, "--json", "--port", str(port), "-i", platform.inventory.path], **ask)
    journal.unlink()
    assert refused.returncode == 2
    assert "must have two lines" in json.loads(refused.stdout)["error"]
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["messages"], answer["copied"], len(answer["folders"])) == (
        True,
        MESSAGES,
        MESSAGES,
        FOLDERS,
    )
    assert f"mail-copied address={OURS} before={MESSAGES} after={MESSAGES}" in " ".join(done.stderr.split())
    assert platform.password not in done.stderr + done.stdout
