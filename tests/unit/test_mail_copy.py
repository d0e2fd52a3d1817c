# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a copy of a mailbox remembers, and what it calls folders; the copy itself is tried on hosts."""

from types import SimpleNamespace

import pytest

from infini.errors import RefusedError
from infini.mail.cli import server_of
from infini.mail.copy import Account, Copied, Copy, Journal, _batches

THERE = Account("imap.ailleurs.example", "ada@velo.example", "secret")
HERE = Account("lists.infini.test", "ada@velo.test", "secret")


def written(path, *messages):
    with Journal.open(path, THERE, HERE) as journal:
        for uid in messages:
            journal.add("INBOX", 7, uid, Copied(f"digest {uid}", uid + 100))


def known(path):
    with Journal.open(path, THERE, HERE) as journal:
        return journal.known


def test_what_was_copied_is_known_to_the_next_run(tmp_path):
    path = tmp_path / "folder" / "journal"
    written(path, 1, 2)
    written(path, 5)
    assert known(path) == {("INBOX", 7): {uid: Copied(f"digest {uid}", uid + 100) for uid in (1, 2, 5)}}
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret" not in path.read_text()


@pytest.mark.parametrize("left", range(1, 90, 8))
def test_a_line_that_was_cut_is_forgotten_and_the_file_goes_on(tmp_path, left):
    path = tmp_path / "journal"
    written(path, 1, 2)
    whole = path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    path.write_bytes(whole[: min(last + left, len(whole) - 1)])
    assert list(known(path)["INBOX", 7]) == [1]
    written(path, 3)
    assert list(known(path)["INBOX", 7]) == [1, 3]


def test_a_journal_of_another_copy_is_refused_and_kept(tmp_path):
    path = tmp_path / "journal"
    written(path, 1)
    before = path.read_bytes()
    another = Account("imap.autre.example", "ada@velo.example", "secret")
    with (
        pytest.raises(RefusedError, match=r"of another copy, from ada@velo\.example at imap\.ailleurs\.example"),
        Journal.open(path, another, HERE),
    ):
        pass
    assert path.read_bytes() == before


def test_two_runs_at_once_are_refused(tmp_path):
    path = tmp_path / "journal"
    with (
        Journal.open(path, THERE, HERE),
        pytest.raises(RefusedError, match=r"ada@velo\.test is being copied by another run"),
        Journal.open(path, THERE, HERE),
    ):
        pass


class Server:
    """Names folders as a server does."""

    def __init__(self, prefix, delimiter, *folders):
        self.prefix, self.delimiter, self.folders = prefix, delimiter, folders

    def has_capability(self, _name):
        return True

    def namespace(self):
        return SimpleNamespace(personal=((self.prefix, self.delimiter),))

    def list_folders(self):
        return [(flags, self.delimiter.encode(), name) for flags, name in self.folders]


def test_folders_keep_their_names_and_their_use(tmp_path):
    there = Server(
        *("INBOX.", "."),
        ((), "INBOX"),
        ((b"\\Sent",), "INBOX.Envoyés"),
        ((b"\\Noselect",), "INBOX.Dossiers"),
        ((), "INBOX.Dossiers.A/B"),
    )
    here = Server("", "/", ((), "INBOX"), ((b"\\Sent",), "Sent"))
    with Journal.open(tmp_path / "journal", THERE, HERE) as journal:
        copy = Copy(THERE, HERE, journal, lambda *_: None)
        assert dict(copy._folders(there, here)) == {
            "INBOX": "INBOX",
            "INBOX.Envoyés": "Sent",
            "INBOX.Dossiers.A/B": "Dossiers/A_B",
        }


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [([], []), ([5], [[0]]), ([99], [[0]]), ([4, 6, 1], [[0, 1], [2]]), ([9, 9, 1, 99, 1], [[0], [1, 2], [3], [4]])],
)
def test_a_large_message_comes_alone_and_none_is_left_out(sizes, wanted):
    assert list(_batches(dict(enumerate(sizes)), 10)) == wanted


def test_no_command_names_too_many_messages():
    assert list(map(len, _batches(dict.fromkeys(range(1201), 0), 10))) == [500, 500, 201]


def inventory(**servers):
    """An inventory with these mail servers: the domains that each declares, None for a panel."""
    said = {
        host: {
            "mail_mode": "panel" if domains is None else "declared",
            "mail_domains": [{"name": one} for one in domains or []],
        }
        for host, domains in servers.items()
    }
    return SimpleNamespace(
        hosts=lambda _group: list(said), get=lambda host, name, default: said[host].get(name, default)
    )


@pytest.mark.parametrize(
    ("servers", "found"),
    [
        ({"lists": ["velo.test"]}, ["lists"]),
        ({"lists": []}, ["lists"]),
        ({"lists": ["velo.test"], "panel": None}, ["lists"]),
        ({"lists": ["bourg.test"], "panel": None}, ["panel"]),
        ({"lists": [], "other": []}, []),
        ({"lists": ["velo.test"], "other": ["velo.test"]}, ["lists", "other"]),
    ],
)
def test_a_mailbox_is_copied_to_the_server_that_has_its_domain(servers, found):
    assert server_of(inventory(**servers), "Ada@Velo.test") == found
