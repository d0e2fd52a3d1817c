# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answer of an AlternC panel's database becomes."""

from __future__ import annotations

import alternc_world as world
import pytest
from ansible.module_utils.hosting.alternc_data import READ, parse, quota_rows

PANEL = parse(world.answer())


def test_the_question_only_reads():
    verbs = {line.split()[0] for line in READ.splitlines() if line and not line.startswith(" ")}
    assert verbs == {"START", "SELECT", "COMMIT;"}
    assert "READ ONLY" in READ


def test_what_is_about_to_go_is_absent_and_its_name_not_free():
    assert [row["name"] for row in PANEL.rows("domains")] == ["velo.fr", "chorale.fr"]
    assert "still removing" in PANEL.taken["domains", "partie.fr"]


def test_lists_addresses_are_not_ours():
    assert {row["address"] for row in PANEL.rows("mailboxes")} == {"contact@velo.fr", "bureau@velo.fr"}
    assert "mailman" in PANEL.taken["mailboxes", "liste@velo.fr"]


def test_forwards_are_split_and_sorted():
    found = PANEL.by("mailboxes", "address")["bureau@velo.fr"]
    assert found["forwards"] == ["ami@ailleurs.org", "contact@velo.fr"]
    assert found == {**found, "mailbox": False, "quota_mb": 0, "enabled": True}


def test_the_larger_size_counts():
    assert PANEL.size == {"contact@velo.fr": 40 * 1024**2}


def test_alternc_own_key_is_left_out_and_https_is_what_alternc_does():
    found = {(row["sub"], row["type"]): row for row in PANEL.rows("subdomains") if row["domain"] == "velo.fr"}
    assert ("alternc._domainkey", "dkim") not in found
    assert found["www", "vhost"]["https"] == "both"
    assert found["", "url"]["https"] == ""


def test_grants_count_on_databases_of_members_only():
    assert PANEL.rows("database_users") == [{"name": "velo", "member": "velo", "databases": ["velo"]}]


def test_grants_are_read_through_their_escapes():
    them = [
        world.member(2001, "velo"),
        world.row("databases", name="velo_a", uid=2001),
        world.row("database_users", name="velo_a", uid=2001, hash="x"),
        world.row("grants", name="velo_a", database=r"velo\_a"),
    ]
    assert parse(world.answer(them)).rows("database_users")[0]["databases"] == ["velo_a"]


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("/var/www/alternc/v/velo/www", "/www"),
        ("/var/www/alternc/v/velo/", "/"),
        ("/var/www/alternc/v/velo", "/"),
        ("/srv/elsewhere", "/srv/elsewhere"),
    ],
)
def test_ftp_folders_begin_at_the_home(stored, shown):
    account = world.row("ftp_accounts", name="velo", uid=2001, directory=stored, enabled=0, hash="")
    panel = parse(world.answer([world.member(2001, "velo"), account]))
    assert panel.rows("ftp_accounts") == [{"name": "velo", "member": "velo", "directory": shown, "enabled": False}]


def test_hashes_stay_out_of_the_entries_and_of_what_is_printed():
    assert PANEL.secrets["mailboxes"]["contact@velo.fr"].startswith("{SHA512")
    assert "SHA512" not in str(PANEL.sets)
    assert "SHA512" not in repr(PANEL)


def test_quotas_that_are_not_numbers_are_said():
    rows, problems = quota_rows({"default": {"dom": "3"}}, {"velo": {"mail": "many"}, "amap": 3})
    assert rows == [{"member": None, "profile": "default", "quota": "dom", "value": 3}]
    assert len(problems) == 2
