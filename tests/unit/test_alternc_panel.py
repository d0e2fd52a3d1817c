# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine asks of an AlternC and what it understands; scripts in a directory stand for its programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from hosting import alternc_panel as panel
from hosting import apache
from hosting.alternc_panel import PanelError, Site, seen

ADMIN = "member\t2000\tadmin"


def answer(*lines):
    """What the database says, as one letter of columns between tabs for each row."""
    return seen(line.replace(" ", "\t") for line in lines)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A directory of programs before the host's own: a function that writes one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(name, text):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return write


@pytest.fixture
def asked(monkeypatch):
    """The statements that were sent to a database that answers nothing."""
    statements = []
    monkeypatch.setattr(panel, "query", lambda sql: statements.append(sql) or [])
    return statements


@pytest.fixture
def run_directory(tmp_path, monkeypatch):
    """AlternC's part of /run, below a directory."""
    monkeypatch.setattr(panel, "FLAGS", tmp_path / "alternc/incron")
    monkeypatch.setattr(panel, "LOCK", tmp_path / "alternc/cron.lock")
    monkeypatch.setattr(panel, "JOBS_LOCK", tmp_path / "alternc/jobs-lock")
    panel.FLAGS.mkdir(parents=True)
    return tmp_path / "alternc"


def test_members_and_pools_are_read_with_the_versions_as_php_writes_them():
    found = answer("member 2001 velo", "pool velo php74-fpm", "pool velo php82-fpm", "pool velo php82-fpm")
    assert found.members == {"velo": 2001}
    assert found.pools == {("velo", "7.4"), ("velo", "8.2")}


@pytest.mark.parametrize("kind", ["vhost", "php8-fpm", "php82-fpm-old", "xphp82-fpm", "php823-fpm"])
def test_no_other_type_is_a_pool(kind):
    assert answer(f"pool velo {kind}").pools == set()


def test_what_waits_is_kept_by_row_and_name():
    found = answer("domain 7 velo.test", "site 9 www.velo.test", "action 3 DELETE")
    assert (found.domains, found.sites, found.actions) == ({"7": "velo.test"}, {"9": "www.velo.test"}, {"3": "DELETE"})
    assert found.waits


def test_actions_that_alternc_overlooks_are_told_apart_from_those_that_wait():
    found = answer("action 3 MOVE", "null 3", "null 4")
    assert found.never == ["3", "4"]
    assert list(found.actions) == ["3"]
    assert not found.waits, "file actions are do_actions.php's, not update_domains.php's"


def test_zones_that_could_not_be_written_have_their_result():
    assert answer("zone velo.test 1", "zone chorale.test 5").zones == {"velo.test": "1", "chorale.test": "5"}


def test_a_site_without_its_type_alone_is_nothing_to_do():
    lost = "untyped old.velo.test php56-fpm 9"
    assert answer("site 9 old.velo.test", lost).untyped == [Site("old.velo.test", "php56-fpm", "9")]
    assert not answer("site 9 old.velo.test", lost).waits
    assert answer("site 9 old.velo.test", "site 10 www.velo.test", lost).waits
    assert answer("site 9 old.velo.test", "domain 7 velo.test", lost).waits


def test_a_refused_site_leads_to_the_template_that_it_is_made_from():
    typed, plain = answer(
        "refused 9 www.velo.test php82-fpm both", "refused 10 velo.test url "
    ).refused  # the second has no choice of https: an empty column
    assert (typed.id, typed.name, str(typed.template)) == (
        "9",
        "www.velo.test",
        "/etc/alternc/templates/apache2/php82-fpm-both.conf",
    )
    assert str(plain.template) == "/etc/alternc/templates/apache2/url.conf"


def test_the_panel_is_read_in_one_transaction_that_cannot_write(programs, tmp_path):
    programs("mariadb", f'cat >{tmp_path}/sent; echo "$*" >{tmp_path}/words; printf "{ADMIN}\\n"')
    assert panel.look().members == {"admin": 2000}
    first, second, *_, last = [line for line in (tmp_path / "sent").read_text().splitlines() if line]
    assert (first, last) == ("SET SESSION TRANSACTION READ ONLY;", "COMMIT;")
    assert second == "START TRANSACTION WITH CONSISTENT SNAPSHOT;"
    assert (tmp_path / "words").read_text().startswith("--defaults-file=/etc/alternc/my.cnf ")


def test_a_database_that_is_down_is_one_sentence(programs):
    programs("mariadb", 'echo "a warning" >&2; echo "ERROR 2002 (HY000): no socket" >&2; exit 1')
    with pytest.raises(PanelError) as problem:
        panel.look()
    assert str(problem.value) == (
        "The panel's database does not answer (ERROR 2002 (HY000): no socket): nothing was touched, see mariadb.service"
    )


def test_a_database_that_says_nothing_at_all_is_one_sentence_too(programs):
    programs("mariadb", "exit 7")
    with pytest.raises(PanelError, match=r"^The panel's database does not answer \(no answer\): nothing was touched"):
        panel.look()


def test_a_client_that_is_missing_or_hangs_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PanelError, match=r"cannot be asked \(.*mariadb.*\): nothing was touched"):
        panel.look()

    def hang(words, **_options):
        raise subprocess.TimeoutExpired(words, 60)

    monkeypatch.setattr(panel.subprocess, "run", hang)
    with pytest.raises(PanelError, match=r"cannot be asked \(.*timed out after 60 seconds\): nothing was touched"):
        panel.look()


@pytest.mark.parametrize("rows", ["", "member\\t2001\\tvelo\\n", "member\\t2001\\tadmin\\n"])
def test_a_panel_without_its_administrator_is_no_answer(programs, rows):
    programs("mariadb", f"cat >/dev/null; printf '{rows}'")
    with pytest.raises(PanelError, match=r"no administrator \(member 2000\).*nothing was touched"):
        panel.look()


@pytest.fixture
def scripts(tmp_path, monkeypatch, programs):
    """AlternC's own scripts, which stand in the same directory."""
    monkeypatch.setattr(panel, "SCRIPTS", tmp_path / "bin")
    return programs


def test_a_script_is_judged_by_its_words_and_not_by_its_status(scripts):
    scripts("update_domains.php", "exit 3")
    scripts("do_actions.php", r'echo one; echo two >&2; printf "\377\n"')
    assert panel.script("update_domains.php") == ""
    assert panel.script("do_actions.php") == "one\ntwo\n\ufffd"


def test_a_script_cannot_wait_for_an_answer(scripts):
    scripts("do_actions.php", 'read line && echo "somebody answered" || true')
    assert panel.script("do_actions.php") == ""


def test_what_a_script_leaves_in_the_background_is_not_waited_for(scripts):
    scripts("do_actions.php", "echo one; sleep 20 &")
    began = time.monotonic()
    assert panel.script("do_actions.php") == "one"
    assert time.monotonic() - began < 10


def test_a_script_that_is_missing_or_does_not_end_is_a_sentence(scripts, monkeypatch):
    with pytest.raises(PanelError, match=r"^AlternC's gone\.php cannot be run .*is the package alternc whole\?$"):
        panel.script("gone.php")
    scripts("update_domains.php", "exec sleep 60")
    monkeypatch.setattr(panel, "SCRIPT_SECONDS", 0.2)
    with pytest.raises(PanelError, match=r"^AlternC's update_domains\.php did not end within 0\.2 s and was stopped$"):
        panel.script("update_domains.php")


def test_a_retry_names_the_rows_and_touches_none_that_waits_already(asked):
    panel.retry([Site("a.test", "php82-fpm", "9"), Site("b.test", "php82-fpm", "10")])
    assert asked == ["UPDATE sub_domaines SET web_action = 'UPDATE' WHERE id IN (9, 10) AND web_action = 'OK';"]


def test_a_row_that_is_no_number_never_comes_into_a_statement(asked):
    with pytest.raises(ValueError, match="1 OR 1=1"):
        panel.retry([Site("a.test", "php82-fpm", "1 OR 1=1")])
    assert asked == []


def test_only_sites_of_our_types_are_written_anew_and_no_zone(asked):
    panel.mark_all()
    (statement,) = asked
    assert "type REGEXP '^php[0-9]{2}-fpm$'" in statement
    assert "web_action = 'OK'" in statement, "a row that is to be deleted must stay so"
    assert "domaines SET" not in statement.replace("sub_domaines SET", "")


def test_a_canarys_rows_are_made_where_they_are_missing_and_say_the_stamp(monkeypatch):
    asked, answer = [], ["1"]
    monkeypatch.setattr(panel, "query", lambda sql: asked.append(sql) or answer)
    assert panel.set_canary("canari.test", "1700000000") is True
    assert asked[0].count("INSERT INTO sub_domaines") == asked[0].count("NOT EXISTS") == 2
    assert "SET valeur = '1700000000', web_action = 'UPDATE' WHERE domaine = 'canari.test' AND sub = 'dns'" in asked[0]
    assert "SET valeur = 'http://canari.test/1700000000', web_action = 'UPDATE'" in asked[0]
    assert "domaines SET dns_action = 'UPDATE' WHERE domaine = 'canari.test' AND dns_action = 'OK';" in asked[0]
    answer[:] = ["0"]
    assert panel.set_canary("canari.test", "1700000000") is False


def test_a_canarys_name_never_comes_into_a_statement_as_anything_else(monkeypatch):
    asked = []
    monkeypatch.setattr(panel, "query", lambda sql: asked.append(sql) or ["0"])
    panel.set_canary("x' OR '1'='1", "1700000000")
    assert "'x11'" in asked[0]
    assert " OR " not in asked[0]


def test_rows_are_mended_before_the_columns(asked):
    panel.mend_actions()
    (statement,) = asked
    order = [statement.index(word) for word in ("sql_mode = ''", "SET begin = 0", "SET end = 0", "ALTER TABLE actions")]
    assert order == sorted(order)


def test_what_run_has_lost_is_put_back_and_named(run_directory, programs):
    programs("systemd-tmpfiles", f'echo "$*" >>{run_directory.parent}/asked; mkdir -p {panel.FLAGS}')
    assert panel.prepare_directories() == []
    assert not (run_directory.parent / "asked").exists()
    panel.FLAGS.rmdir()
    assert panel.prepare_directories() == [str(panel.FLAGS)]
    assert panel.FLAGS.is_dir()
    assert (run_directory.parent / "asked").read_text() == "--create alternc.conf\n"
    panel.FLAGS.rmdir()
    run_directory.rmdir()
    assert panel.prepare_directories() == [str(run_directory), str(panel.FLAGS)]


@pytest.mark.usefixtures("run_directory")
def test_flags_are_cleared_and_nothing_else():
    for name in ("inotify_update_domain.lock", "inotify_do_action.lock", "note"):
        (panel.FLAGS / name).touch()
    panel.clear_flags()
    assert [path.name for path in panel.FLAGS.iterdir()] == ["note"]


@pytest.mark.parametrize(
    ("age", "stale"), [(0, False), (59, False), (61, True), (86400, True), (-3600, True)], ids=lambda value: str(value)
)
@pytest.mark.usefixtures("run_directory")
def test_a_lock_without_a_process_is_stale_by_its_age_or_when_the_clock_jumped(age, stale, monkeypatch):
    monkeypatch.setattr(panel, "processes", lambda: iter([b"/usr/sbin/apache2\0-k\0start\0", b""]))
    for lock in (panel.LOCK, panel.JOBS_LOCK):
        lock.touch()
        os.utime(lock, (time.time() - age, time.time() - age))
    assert panel.remove_stale_locks() == (["cron.lock", "jobs-lock"] if stale else [])
    assert panel.LOCK.exists() is panel.JOBS_LOCK.exists() is not stale


@pytest.mark.parametrize(
    "holder",
    [
        b"php\0/usr/lib/alternc/update_domains.php\0",
        b"/bin/sh\0/usr/lib/alternc/cron_ssl.sh\0",
        b"bash\0/usr/bin/alternc.install\0-n\0",
        b"php\0/usr/lib/alternc/generate_acme_certs.php\0",
        b"/bin/sh\0/usr/lib/alternc/rebuild_all_webconf.sh\0",
    ],
)
@pytest.mark.usefixtures("run_directory")
def test_a_lock_whose_holder_lives_stays_however_old_it_is(holder, monkeypatch):
    monkeypatch.setattr(panel, "processes", lambda: iter([b"/sbin/init\0", holder]))
    panel.LOCK.touch()
    os.utime(panel.LOCK, (1, 1))
    assert panel.remove_stale_locks() == []
    assert panel.LOCK.exists()


@pytest.mark.usefixtures("run_directory")
def test_no_lock_at_all_is_nothing_to_remove():
    assert panel.remove_stale_locks() == []


def test_processes_are_known_by_what_they_were_started_with(tmp_path):
    words = [sys.executable, "-c", "input()", str(tmp_path)]  # no other run of this test has the same
    with subprocess.Popen(words, stdin=subprocess.PIPE) as child:
        line = b"\0".join(word.encode() for word in (*words, ""))
        assert apache.until(lambda: line in panel.processes(), 5)
        child.communicate(b"\n")
    assert not any(bytes(tmp_path) in line for line in panel.processes())


def test_virtual_hosts_are_found_by_owner_and_name_those_made_by_hand_too(tmp_path, monkeypatch):
    monkeypatch.setattr(panel, "VIRTUAL_HOSTS", tmp_path)
    for path in ("1/2001/www.velo.test.conf", "0/2010/velo.test.conf", "manual/own.conf", "manual/plain"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    for path in ("vhosts_all.conf", "1/2001/notes.txt", "manual/folder/x.conf"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert panel.virtual_hosts() == {
        "2001/www.velo.test.conf": b"1/2001/www.velo.test.conf",
        "2010/velo.test.conf": b"0/2010/velo.test.conf",
        "manual/own.conf": b"manual/own.conf",
        "manual/plain.conf": b"manual/plain",
    }
