# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is added to AlternC's Postfix, and how it comes and goes; `tests/e2e/alternc` has the real ones."""

import importlib.util
import json
import os
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting import mail_panel as thinking
from hosting import mail_panel_command as command

ROOT = Path(__file__).parents[2]
MAIN = """# As Debian wrote it
myhostname = panel.infini.test
smtpd_milters = inet:127.0.0.1:8891
# a comment
smtpd_recipient_restrictions = permit_mynetworks,
# among its lines
    reject_unlisted_recipient

smtpd_tls_auth_only = no
"""
MASTER = "smtp inet n - - - - smtpd\ndovecot unix - n n - 0 pipe\n  argv=/usr/lib/dovecot/deliver\n"
OURS = """# ours
smtpd_milters = unix:/run/rspamd/milter.sock
smtpd_recipient_restrictions = reject_unlisted_recipient
enable_long_queue_ids = yes
"""
names = st.sampled_from(["a", "b", "smtpd_milters", "myhostname"])
values = st.text("xy =:", min_size=1).map(str.strip).filter(bool)


def test_only_what_is_ours_changes_in_main_cf():
    wanted = thinking.settings(OURS)
    found = thinking.set_to(MAIN, wanted)
    assert thinking.settings(found) == {**thinking.settings(MAIN), **wanted}
    assert found.splitlines()[:4] == [
        "# As Debian wrote it",
        "myhostname = panel.infini.test",
        "smtpd_milters = unix:/run/rspamd/milter.sock",
        "# a comment",
    ]
    assert "permit_mynetworks" not in found
    assert found.endswith("smtpd_tls_auth_only = no\nenable_long_queue_ids = yes\n")


def test_a_setting_that_stands_twice_is_written_where_postfix_reads_it():
    assert thinking.set_to("a = 1\nb = 2\na = 3\n", {"a": "4"}) == "b = 2\na = 4\n"


@given(st.dictionaries(names, values), st.dictionaries(names, values))
def test_what_was_set_once_is_set(current, wanted):
    text = "".join(f"{name} = {value}\n" for name, value in current.items())
    found = thinking.set_to(text, wanted)
    assert thinking.settings(found) == {name: " ".join(value.split()) for name, value in {**current, **wanted}.items()}
    assert thinking.set_to(found, wanted) == found


def test_what_was_ours_and_is_no_more_is_as_alternc_says_or_as_it_was():
    ours, theirs = thinking.settings(OURS), {"smtpd_milters": "inet:127.0.0.1:9999"}
    before = thinking.remembered(MAIN, ours, {})
    assert (before["enable_long_queue_ids"], before["smtpd_milters"]) == (None, "inet:127.0.0.1:8891")
    first = thinking.joined(MAIN, ours, theirs, {})
    assert thinking.remembered(first, ours, before) == before
    second = thinking.joined(first, {"smtpd_tls_auth_only": "yes"}, theirs, before)
    assert thinking.settings(second) == {
        **thinking.settings(MAIN),
        "smtpd_milters": "inet:127.0.0.1:9999",
        "smtpd_tls_auth_only": "yes",
    }


@given(st.lists(st.sampled_from(["door unix - - n - - smtpd", "    -o a=b", "x unix - - n - - smtp"])))
def test_entries_come_and_go_without_a_trace(entries):
    text = "".join(f"{line}\n" for line in entries)
    found = thinking.with_entries(MASTER, text)
    assert thinking.without_entries(found) == MASTER
    assert thinking.with_entries(found, text) == found
    assert [line for line in found.splitlines() if line in entries] == entries


def test_domains_are_read_as_the_database_says_them():
    found = thinking.domains(["voisin.example\tvoisin\t0\n", "Essai.example\tessai\t1\n", "../etc\tmalin\t1\n"])
    assert thinking.accounts(found) == "essai.example essai\nvoisin.example voisin\n"
    assert [one.mail for one in found] == [True, False]


SAID = {"mail_mode": "panel", "hosting_panel": "alternc", "mail_selector": "alternc", "mail_mailboxes": []}


def test_what_belongs_to_alternc_is_not_declared_beside_it():
    assert thinking.problems(SAID) == []
    assert thinking.problems({"mail_mode": "declared", "mail_mailboxes": [{"address": "ada@velo.test"}]}) == []
    [said] = thinking.problems({**SAID, "mail_mailboxes": [{"address": "ada@velo.test"}]})
    assert said == (
        "mail_mailboxes is not for a host where AlternC has the mail: it belongs to alternc_declared.mailboxes"
        " (alternc_mailboxes), or to those who use the panel"
    )
    [said] = thinking.problems({**SAID, "hosting_panel": "declared"})
    assert said.startswith("mail_mode is panel, but this host has no AlternC")
    [said] = thinking.problems({**SAID, "mail_selector": "infini1"})
    assert said.startswith("mail_selector is infini1, but AlternC publishes its keys as alternc")


@pytest.mark.parametrize(("roles", "refused"), [(["mail"], 1), (["web"], 0)])
def test_the_preflight_asks_where_the_role_runs(roles, refused):
    found = importlib.util.spec_from_file_location("preflight_action", ROOT / "action_plugins/preflight.py")
    plugin = importlib.util.module_from_spec(found)
    found.loader.exec_module(plugin)
    said = {**SAID, "mail_aliases": [{"address": "a@velo.test", "to": ["b@velo.test"]}]}
    values = SimpleNamespace(of=lambda names: ({name: said[name] for name in names if name in said}, []))
    sentences = [one for one in plugin.ActionModule._model(values, roles) if one.startswith("mail_")]
    assert ["mail_aliases is not for a host where AlternC" in one for one in sentences] == [True] * refused


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose Postfix warns of the settings that are named so."""
    found = command.Host(str(tmp_path))
    for folder in (found.postfix, found.ours, found.theirs.parent, found.state, found.lock.parent):
        folder.mkdir(parents=True)
    (found.postfix / "main.cf").write_text(MAIN)
    (found.postfix / "master.cf").write_text(MASTER)
    os.utime(found.postfix / "master.cf", (1_000_000_000, 1_000_000_000))
    found.theirs.write_text("smtpd_milters = inet:127.0.0.1:8891\n")
    (found.ours / "main.cf").write_text(OURS)
    (found.ours / "master.cf").write_text("door unix n - n - - smtpd\n")
    program = tmp_path / "bin/postconf"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ngrep unknown "$2/main.cf" "$2/master.cf" >&2\nexit 0\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return found


def state(host):
    return {path.name: path.read_text() for path in host.postfix.iterdir()}


def test_joining_is_done_once_and_shown_first(host):
    before = state(host)
    shown = command.join(host, check=True)
    assert state(host) == before
    assert [Path(one["before_header"]).name for one in shown] == ["main.cf", "master.cf"]
    assert command.join(host) == shown
    assert command.join(host) == []
    assert "door unix n - n - - smtpd" in state(host)["master.cf"]
    assert stat.S_IMODE((host.postfix / "master.cf").stat().st_mode) == 0o644


def test_who_leaves_leaves_all_as_it_was(host):
    before = {path.name: thinking.settings(path.read_text()) for path in [host.postfix / "main.cf"]}
    command.join(host)
    assert command.main(["leave"], host) == 0
    assert thinking.settings(state(host)["main.cf"]) == before["main.cf"]
    assert state(host)["master.cf"] == MASTER
    assert (host.postfix / "master.cf").stat().st_mtime == 1_000_000_000, "alternc.install would refuse"
    assert command.join(host, leave=True) == []
    assert [Path(one["before_header"]).name for one in command.join(host)] == ["main.cf", "master.cf"]


def test_alternc_finds_its_own_file_with_its_own_time(host):
    before = (host.postfix / "master.cf").stat().st_mtime
    command.join(host)
    command.step_back(host)
    assert state(host)["master.cf"] == MASTER
    assert (host.postfix / "master.cf").stat().st_mtime == before
    command.join(host)
    assert "door" in state(host)["master.cf"]


def test_what_somebody_wrote_into_alterncs_part_is_left_for_it_to_see(host):
    command.join(host)
    path = host.postfix / "master.cf"
    path.write_text("# by hand\n" + path.read_text())
    command.step_back(host)
    assert path.read_text() == "# by hand\n" + MASTER
    assert path.stat().st_mtime != 1_000_000_000


def test_what_postfix_would_only_warn_of_is_refused_and_nothing_is_written(host):
    before = state(host)
    (host.ours / "main.cf").write_text("unknown_setting = yes\n")
    with pytest.raises(command.PanelError, match=r"Postfix would not take its new settings: .*unknown_setting"):
        command.join(host)
    assert state(host) == before


def test_what_alternc_itself_is_warned_of_stops_nobody(host):
    (host.postfix / "main.cf").write_text(MAIN + "unknown_of_alternc = yes\n")
    assert command.join(host)


def test_without_alternc_there_is_nothing_to_join(host):
    host.theirs.unlink()
    with pytest.raises(command.PanelError, match="apply the panel first"):
        command.join(host)


def test_while_alternc_writes_nobody_else_does(host):
    host.jobs_lock.parent.mkdir(parents=True)
    host.jobs_lock.touch()
    before = state(host)
    assert command.main(["follow"], host) == 0
    assert state(host) == before


def test_a_database_that_is_down_touches_nothing(host, capsys, monkeypatch):
    said = {"policy": {"host": "panel.infini.test", "spf": "", "dmarc": ""}, "selector": "alternc"}
    (host.ours / "panel.json").write_text(json.dumps(said))
    monkeypatch.setenv("PATH", str(host.ours))
    (host.ours / "mariadb").write_text("#!/bin/sh\necho 'no such socket' >&2\nexit 1\n")
    (host.ours / "mariadb").chmod(0o755)
    before = state(host)
    assert command.main(["follow"], host) == 1
    assert "AlternC's database does not answer (no such socket): nothing was touched" in capsys.readouterr().err
    assert state(host) == before


@pytest.fixture
def database(host, monkeypatch):
    """AlternC's database, as rows that a test may change; whoever signs is of our own group."""
    rows = {command.ADMINISTRATOR: ["1"], command.DOMAINS: [], command.GRANTED: []}
    asked = []

    def ask(statement):
        asked.append(statement)
        return rows.get(statement, [])

    monkeypatch.setattr(command, "_ask", ask)
    monkeypatch.setattr(command.grp, "getgrnam", lambda _name: SimpleNamespace(gr_gid=os.getgid()))
    host.keys.mkdir()
    (host.ours / "panel.json").write_text(
        '{"policy": {"host": "panel.test", "spf": "v=spf1 mx", "dmarc": ""}, "selector": "alternc"}'
    )
    return SimpleNamespace(rows=rows, asked=asked)


def published(host, domain):
    """Make a key as AlternC does; return what its zone would say of it."""
    folder = host.their_keys / domain
    folder.mkdir(parents=True, exist_ok=True)
    line = ["openssl", "genrsa", "-out", str(folder / "alternc.private"), "1024"]
    subprocess.run(line, check=True, capture_output=True)
    return (folder / "alternc.private").read_text()


def test_the_keys_that_alternc_publishes_are_followed_and_the_others_made(host, database):
    database.rows[command.DOMAINS] = ["ici.test\tecole\t1", "ailleurs.test\tecole\t1", "web.test\tquartier\t0"]
    key = published(host, "ici.test")
    assert command.follow(host, check=True)["changed"]
    assert list(host.keys.iterdir()) == []
    command.follow(host)
    assert {path.name for path in host.keys.glob("*.key")} == {
        f"{name}.alternc.key" for name in ("ici.test", "ailleurs.test", "panel.test")
    }
    private = host.keys / "ici.test.alternc.key"
    assert (private.read_text(), stat.S_IMODE(private.stat().st_mode)) == (key, 0o640)
    assert (host.state / "accounts").read_text() == "ailleurs.test ecole\nici.test ecole\nweb.test quartier\n"
    assert (host.state / "domains").read_text().split() == ["ailleurs.test", "ici.test", "panel.test"]
    assert "alternc._domainkey.ici.test. 3600 TXT" in (host.state / "records.zone").read_text()
    database.rows[command.GRANTED] = [
        "domaines\t", "mailbox\t", "recipient\t", *(f"address\t{one}" for one in command.READS["address"].split(", "))
    ]  # fmt: skip
    assert command.follow(host) == {"changed": False, "words": [], "diff": []}
    was = (host.state / "records.zone").read_text()
    key = published(host, "ici.test")
    assert command.follow(host)["words"] == ["the key of ici.test is AlternC's"]
    assert private.read_text() == key
    assert (host.state / "records.zone").read_text() != was


def test_who_leaves_is_signed_for_no_more_but_not_many_at_once(host, database):
    names = [f"d{number}.test" for number in range(4)]
    for name in names:
        published(host, name)
    database.rows[command.DOMAINS] = [f"{name}\tecole\t1" for name in names]
    command.follow(host)
    database.rows[command.DOMAINS] = [f"{name}\tecole\t1" for name in names[1:]]
    assert "no more d0.test.alternc.key" in command.follow(host)["words"]
    assert not (host.keys / "d0.test.alternc.key").exists()
    database.rows[command.DOMAINS] = []
    [doubt] = [one for one in command.follow(host)["words"] if "at once" in one]
    assert "3 of 4 keys of domains would be removed" in doubt
    assert (host.keys / "d1.test.alternc.key").exists()


def test_a_domain_whose_dns_goes_elsewhere_keeps_the_key_that_it_published(host, database):
    database.rows[command.DOMAINS] = ["ici.test\tecole\t1"]
    key = published(host, "ici.test")
    command.follow(host)
    (host.their_keys / "ici.test/alternc.private").unlink()
    command.follow(host)
    assert (host.keys / "ici.test.alternc.key").read_text() == key


def test_an_empty_database_is_believed_by_nobody(host, database):
    database.rows[command.ADMINISTRATOR] = ["0"]
    with pytest.raises(command.PanelError, match="no administrator"):
        command.follow(host)


def test_other_words_are_a_question_how_to_use_it(host, capsys):
    assert command.main([], host) == 2
    assert capsys.readouterr().err.startswith("Usage: infini-mail-panel")


def test_the_hook_of_alternc_install_steps_back_and_comes_again():
    hook = ROOT / "roles/mail/tree/usr/lib/alternc/install.d/infini-mail"
    text = hook.read_text().replace("exec /usr/local/sbin/infini-mail-panel", "echo")
    for word, said in (("startup", "step_back\n"), ("before-reload", "join\n"), ("templates", "")):
        done = subprocess.run(["sh", "-c", text, "hook", word], capture_output=True, text=True, check=True)
        assert done.stdout == said
