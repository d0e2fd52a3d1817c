# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `infini restore` and `infini drill` decide before they ask any host."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from hosting import backup
from infini import ROOT
from infini.backups import door, faults, recovery, report, restore, spoil
from infini.backups.door import SENTENCES, sentence
from infini.backups.drill import Drill
from infini.backups.restore import Piece, Thing, moment, plan
from infini.errors import FailedError, RefusedError
from infini.verify.report import Report

SERVICES = [
    {"service": "base", "paths": [], "databases": []},
    {"service": "accounts", "paths": ["/srv/members"], "databases": []},
    {"service": "mail", "paths": ["/srv/members/mail"], "databases": ["mail"]},
    {"service": "mariadb", "paths": [], "databases": ["*"]},
]
DAYS = ("2026-11-20T04:00:00", "2026-11-21T04:00:00", "2026-11-22T04:00:00")
ARCHIVES = [
    {"service": one["service"], "archive": f"{one['service']}-{day}", "time": day} for day in DAYS for one in SERVICES
]


def chosen(thing, before=""):
    return {piece.service: piece for piece in plan(thing, SERVICES, ARCHIVES, before)}


def test_a_site_is_its_folder_and_its_database():
    found = chosen(Thing("web", ("/srv/members/velo/www/velo.test",), ("velo",)))
    assert found["accounts"].request(over=False) == {
        "service": "accounts",
        "archive": "accounts-2026-11-22T04:00:00",
        "over": False,
        "paths": ["/srv/members/velo/www/velo.test"],
    }
    assert found["mariadb"].databases == ("velo",)
    assert set(found) == {"accounts", "mariadb"}


def test_the_deepest_source_and_the_exact_name_win():
    assert set(chosen(Thing("web", ("/srv/members/mail/velo",), ("mail",)))) == {"mail"}


def test_a_host_is_all_its_services_in_the_order_of_the_cards():
    assert list(chosen(Thing("web"))) == ["base", "accounts", "mail", "mariadb"]


def test_before_the_hack_means_the_newest_archive_that_is_not_younger():
    found = chosen(Thing("web", ("/srv/members/velo",)), "2026-11-21T04:00:00")
    assert found["accounts"].archive == "accounts-2026-11-21T04:00:00"


@pytest.mark.parametrize(
    ("thing", "before", "says"),
    [
        (Thing("web", ("/opt/x",)), "", "/opt/x is in no backup"),
        (Thing("web", ("/srv/membersonly",)), "", "is in no backup"),
        (Thing("web", ("/srv/members",)), "2026-11-19", "holds nothing of accounts from before 2026-11-19"),
    ],
)
def test_what_no_archive_holds_is_said(thing, before, says):
    with pytest.raises(RefusedError, match=says):
        plan(thing, SERVICES, ARCHIVES, before)


def test_a_time_is_local_and_a_day_is_its_beginning(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Paris")
    __import__("time").tzset()
    assert moment("2026-11-20") == "2026-11-19T23:00:00"
    assert moment("2026-11-20 14:30") == "2026-11-20T13:30:00"
    with pytest.raises(RefusedError, match="“yesterday” is no time"):
        moment("yesterday")


def test_a_restore_says_where_each_thing_is():
    from infini.backups.cli import _told

    answer = {"files": 3, "bytes": 2_000, "to": "/srv/restored/x", "databases": {"velo": "velo_x"}, "replaced": []}
    beside = ["✓ 3 files, 2 kB: /srv/restored/x/srv/velo", "✓ database velo: velo_x"]
    assert _told(answer, ["/srv/velo"]) == beside
    assert _told(answer, ["/srv/a", "/srv/b"])[0] == "✓ 3 files, 2 kB: /srv/restored/x"
    over = {**answer, "to": None, "databases": {}, "replaced": [["/srv/velo", "/srv/restored/replaced-x/srv/velo"]]}
    assert _told(over, ["/srv/velo"]) == [
        "✓ 3 files, 2 kB: in place",
        "  what stood in /srv/velo is in /srv/restored/replaced-x/srv/velo",
    ]


def test_the_moment_of_an_archive_is_in_its_name():
    assert restore.moment_of("dns_primary-2026-11-22T04:00:00") == datetime(2026, 11, 22, 4, tzinfo=UTC)


def test_an_archive_that_the_keeper_saw_and_the_store_lacks_has_vanished():
    journal = {"web": ["accounts-2026-11-22T04:00:00", "mariadb-2026-11-22T04:00:00"]}
    there = {"web": [{"archive": "mariadb-2026-11-22T04:00:00"}], "panel": []}
    assert [one["what"] for one in faults.vanished(there, journal)] == ["accounts-2026-11-22T04:00:00"]
    assert faults.vanished({"web": [{"archive": name} for name in journal["web"]]}, journal) == []


@pytest.fixture
def drill():
    done = Drill("staging", ["web"], datetime(2026, 11, 22, 10, tzinfo=UTC))
    done.pieces = [Piece("web", "accounts", "accounts-2026-11-22T04:00:00")]
    done.restored = [{"host": "web", "service": "accounts", "files": 12, "databases": {"velo": "velo"}}]
    done.stages = {"machines": 100.0, "restore": 20.5}
    done.report = Report([], "staging")
    return done


def test_a_drill_is_green_only_when_something_came_back_whole_and_serves(drill):
    assert drill.ok
    assert (drill.recovery_time, drill.recovery_point) == (120.5, 6 * 3600)
    for spoilt in ({"restored": []}, {"findings": [{}]}, {"report": None}, {"faults": [{"caught": False}]}):
        before = {name: getattr(drill, name) for name in spoilt}
        vars(drill).update(spoilt)
        assert not drill.ok, spoilt
        vars(drill).update(before)


def test_the_page_says_what_was_found_in_french(drill):
    assert "Tout est revenu" in report.page(drill)
    drill.findings = [
        {"host": "web", "service": "accounts", "code": "owner", "what": "/srv/x<", "wanted": "a", "found": "b"}
    ]
    page = report.page(drill)
    assert "web, accounts : /srv/x&lt; est à b au lieu de a" in page
    assert "Tout est revenu" not in page
    assert "10:00" in page


def test_a_finding_of_a_newer_host_is_shown_as_it_is():
    assert str(report.says({"host": "web", "service": "a", "code": "odd", "what": "x"})) == "web, a: odd x"


def test_a_refusal_without_a_sentence_is_shown_as_it_is():
    assert sentence({"code": "odd", "what": "x"}, []) == "odd: x"
    assert sentence({}, ["last words"]) == "last words"


def test_every_code_of_the_program_on_a_host_has_a_sentence():
    text = "".join((ROOT / f"module_utils/hosting/{name}.py").read_text() for name in ("backup", "restore"))
    codes = {*re.findall(r'(?:refused|BackupError)\("([a-z_]+)"', text), *backup.CODES.values()}
    assert len(codes) > 20
    assert codes - set(SENTENCES) == set()


def test_every_finding_of_a_host_has_a_sentence():
    text = "".join((ROOT / f"module_utils/hosting/{name}.py").read_text() for name in ("manifest", "dumps", "restore"))
    codes = {*re.findall(r'(?:finding|_say)\("([a-z_]+)"', text)}
    assert len(codes) > 15
    assert codes - set(report.FINDINGS) == set()
    lost = {"host": "web", "service": "mariadb", "code": "views_missing", "what": "velo", "wanted": 3, "found": 2}
    assert str(report.says(lost)) == "web, mariadb: velo has 2 of its 3 views, routines, triggers or events"


def test_a_refusal_says_what_and_the_mend():
    said = sentence({"code": "no_space", "at": "/srv", "needed": 12, "free": 3}, [])
    assert said == "12 bytes are needed in /srv and 3 are free: make room, or name another place by --to"
    assert sentence({"code": "path_absent", "paths": ["/a", "/b"]}, []).startswith("/a, /b: not in that archive")


@pytest.fixture
def tree(tmp_path):
    """Give an extracted archive with a file, a manifest and a dump."""
    own = tmp_path / "var/lib/infini-backup/accounts"
    (own / "dumps").mkdir(parents=True)
    (own / "manifest.json").write_text(json.dumps({"canary": {"made": 1795000000}}))
    (own / "canary").write_text("{}")
    (own / "manifest.jsonl").write_text(
        json.dumps(["/srv/members/a", "file", 0o644, "velo", "velo", 9, 1, "x", ""]) + "\n"
    )
    (own / "dumps/velo.sql").write_text(
        "-- head\n--\n-- Table structure for table `a`\n--\n\nCREATE TABLE `a` (i int);\nINSERT INTO `a` VALUES (1);\n"
        "\n--\n-- Table structure for table `b`\n--\n\nCREATE TABLE `b` (i int);\nINSERT INTO `b` VALUES\n(2),\n(3);\n"
    )
    (tmp_path / "srv/members").mkdir(parents=True)
    (tmp_path / "srv/members/a").write_bytes(b"some bytes")
    return tmp_path


@pytest.mark.parametrize("fault", [*faults.FILES, *faults.DATABASES])
def test_each_fault_that_can_be_seeded_spoils_something(tree, fault):
    def state():
        return {
            str(path): (path.lstat().st_mode, path.lstat().st_uid, spoil.attributes(path), path.read_bytes())
            for path in tree.rglob("*")
            if path.is_file()
        }

    spoil.os.chown(tree / "srv/members/a", 1000, 1000)
    before = state()
    subprocess.run([sys.executable, "-", fault, str(tree), "accounts"], input=faults.SPOIL.read_bytes(), check=True)
    assert state() != before


def test_an_empty_dump_is_still_a_dump(tree):
    spoil.FAULTS["empty_dump"](tree, tree / "var/lib/infini-backup/accounts")
    left = (tree / "var/lib/infini-backup/accounts/dumps/velo.sql").read_text()
    assert "INSERT" not in left
    assert "(3);" not in left
    assert left.count("CREATE TABLE") == 2


def test_a_table_that_is_lost_leaves_the_others(tree):
    spoil.FAULTS["missing_table"](tree, tree / "var/lib/infini-backup/accounts")
    left = (tree / "var/lib/infini-backup/accounts/dumps/velo.sql").read_text()
    assert "CREATE TABLE `b`" in left
    assert "CREATE TABLE `a`" not in left


def test_what_is_only_kept_to_look_things_up_is_found_too():
    services = [{"service": "base", "paths": [], "reference": ["/etc"], "databases": []}]
    archives = [{"service": "base", "archive": "base-2026-11-22T04:00:00", "time": "2026-11-22T04:00:00"}]
    assert [piece.service for piece in plan(Thing("web", ("/etc/apache2",)), services, archives)] == ["base"]


def test_a_chosen_folder_is_for_files_and_one_for_each_service(monkeypatch):
    asked = []
    monkeypatch.setattr(restore, "ask", lambda _to, _verb, request: asked.append(request.get("to")))
    inventory = SimpleNamespace(connection=lambda host: host)
    files, mail = (Piece("web", name, f"{name}-x", (f"/srv/{name}",)) for name in ("accounts", "mail"))
    database = Piece("web", "mariadb", "mariadb-x", databases=("velo",))
    list(restore.restore(inventory, [files, database], over=False, to="/srv/desk"))
    list(restore.restore(inventory, [files, mail], over=False, to="/srv/desk"))
    assert asked == ["/srv/desk", None, "/srv/desk/accounts", "/srv/desk/mail"]


def test_hosts_of_a_limit_are_all_of_them():
    inventory = SimpleNamespace(
        hosts=lambda pattern: {"backup_clients": ["web", "panel"]}.get(pattern, pattern.split(","))
    )
    assert recovery.clients(inventory, "web,panel") == ["web", "panel"]
    assert recovery.clients(inventory, "panel,anatole") == ["panel"]
    with pytest.raises(RefusedError, match="No host of “anatole” is backed up"):
        recovery.clients(inventory, "anatole")


@pytest.mark.parametrize(("status", "out"), [(1, ""), (4, '{"code": "key_wrong"}'), (1, "Traceback")])
def test_a_program_that_crashes_is_no_good_answer(monkeypatch, status, out):
    monkeypatch.setattr(door, "run", lambda *_words: SimpleNamespace(returncode=status, stdout=out, stderr="why"))
    with pytest.raises(FailedError) as problem:
        door.ask(SimpleNamespace(host="web"), "archives")
    assert problem.value.code == ("key_wrong" if status == 4 else "")
    monkeypatch.setattr(door, "run", lambda *_words: SimpleNamespace(returncode=1, stdout="[1]", stderr=""))
    assert door.ask(SimpleNamespace(host="web"), "compare") == [1]


def test_what_tells_of_the_archives_does_not_make_a_rebuild_less_than_whole():
    moved = {"host": "web", "service": "accounts", "code": "size_moved", "what": "/srv", "wanted": 0, "found": 600}
    missing = {"host": "web", "service": "accounts", "code": "missing", "what": "/srv/a"}
    report_of_all = SimpleNamespace(ok=True)
    again = recovery.Recovery("staging", ["web"], restored=[{}], findings=[moved], report=report_of_all)
    recovery.remark(again)
    assert (again.ok, again.findings, again.remarks) == (True, [], [moved])
    less = recovery.Recovery("staging", ["web"], restored=[{}], findings=[missing, moved], report=report_of_all)
    recovery.remark(less)
    assert (less.ok, less.findings, less.remarks) == (False, [missing], [moved])
