# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doors of Sympa's modules, on folders of their own and with a recorded database."""

from __future__ import annotations

import json
import subprocess
import sys
from unittest.mock import Mock

import pytest
import sympa_lists
import sympa_robots
import sympa_subscribers
from ansible.module_utils.hosting import sympa_door
from ansible.module_utils.hosting.sympa_config import parse
from ansible.module_utils.hosting.sympa_plan import row_of
from ansible.module_utils.hosting.sympa_subscribers import Subscriber, fingerprint
from ansible.module_utils.testing import patch_module_args
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import action_loader
from ansible.template import Templar

from infini import ROOT
from infini.hosts import load_plugins

ROBOT = "listes.velo.test"
AMIS = f"amis@{ROBOT}"
ROBOTS = [{"name": ROBOT, "listmasters": ["tech@infini.test"]}]
LISTS = [
    {
        "name": "amis",
        "robot": ROBOT,
        "kind": "discussion",
        "subject": "L'amitié",
        "description": "Pour tous.",
        "owners": [{"email": "contact@velo.test", "name": "D'Artagnan"}],
    }
]


class Recorded:
    """A database whose answers are known by the table that is asked for, and that keeps what it is told to do."""

    tables: dict[str, list[list[str]]]
    told: list[str]
    becomes: tuple[dict[str, str], ...]
    """Who is on the list once something was written."""

    def __init__(self, name):
        assert name == "sympa"

    def ask(self, question):
        table = question.partition(" FROM ")[2].split()[0]
        if table.startswith("information_schema"):
            return iter([["robot_subscriber"], ["user_subscriber"], ["list_subscriber"]])
        return iter(self.tables.get("fingerprints" if "MD5" in question else table, []))

    def write(self, statements):
        self.told.extend(one if isinstance(one, str) else f"{one.table}:\n{''.join(one.lines)}" for one in statements)
        for them in self.becomes:
            there(**them)


@pytest.fixture
def place(tmp_path, monkeypatch):
    Recorded.tables, Recorded.told, Recorded.becomes = {}, [], ()
    monkeypatch.setattr(sympa_door, "Database", Recorded)
    monkeypatch.setattr(sympa_door, "compiles", lambda: False)
    monkeypatch.setattr(sympa_door, "LINES", tmp_path / "lines")
    monkeypatch.setattr(sympa_door, "sympa", lambda *words: Recorded.told.append(" ".join(words)))
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.fixture
def run(place, capsys):
    def run(module, check=False, **arguments):
        known = {
            "etc": "etc",
            "home": "home",
            "maps": "etc/postfix",
            "known": "state/known.json",
            "records": "state/records.zone",
        }
        spec = {sympa_robots: {"etc", "home", "maps", "records"}, sympa_lists: {"etc", "home", "maps"}}.get(
            module, {"home", "known"}
        )
        paths = {name: str(place / path) for name, path in known.items() if name in spec}
        with (
            patch_module_args({**paths, "owner": "", "_ansible_check_mode": check, "_ansible_diff": True, **arguments}),
            pytest.raises(SystemExit),
        ):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


def tree(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def settle(home):
    """Have the database say what it was told of the list."""
    [config] = [parse(path.read_text()) for path in home.glob("*/*/config")]
    Recorded.tables = {
        "list_table": [[AMIS, *row_of(config)]],
        "admin_table": [[AMIS, "contact@velo.test", "owner", "D'Artagnan", "privileged", "mail", "noconceal", ""]],
    }


def lists(run, wanted=LISTS, **more):
    return run(sympa_lists, lists=wanted, robots=[ROBOT], listmaster="listmaster@infini.test", **more)


def test_robots_are_written_once(run, place):
    check = run(sympa_robots, robots=ROBOTS, check=True)
    assert check["changed"]
    assert "title" in check["diff"][0]["after"]
    assert tree(place) == {}
    assert run(sympa_robots, robots=ROBOTS)["written"] == [ROBOT]
    assert tree(place).keys() == {f"etc/{ROBOT}/robot.conf", "etc/postfix/domains"}
    assert (place / "home" / ROBOT).is_dir()
    assert not run(sympa_robots, robots=ROBOTS)["changed"]
    assert run(sympa_robots, robots=[])["closed"] == [ROBOT]
    assert (place / "etc/postfix/domains").read_text() == ""
    assert not run(sympa_robots, robots=[])["changed"]


def test_a_robot_without_a_key_of_its_own_gets_one(run, place):
    signing = [
        {**ROBOTS[0], "dkim": {"selector": "l1"}, "arc": {"selector": "l1"}},
        {**ROBOTS[0], "name": "listes.bourg.test", "dkim": {"selector": "k", "key_file": "/k"}},
    ]
    how = {"robots": signing, "host": "mx.infini.test"}
    check = run(sympa_robots, check=True, **how)
    assert check["keys"] == [ROBOT]
    assert tree(place) == {}
    assert run(sympa_robots, **how)["keys"] == [ROBOT]
    key = place / f"etc/dkim/{ROBOT}.l1.key"
    assert key.stat().st_mode & 0o777 == 0o640
    settings = (place / f"etc/{ROBOT}/robot.conf").read_text()
    assert f"dkim_parameters.private_key_path {key}" in settings
    assert f"arc_parameters.arc_private_key_path {key}" in settings
    told = (place / "state/records.zone").read_text()
    assert f"{ROBOT}. 3600 MX 10 mx.infini.test." in told
    assert f'l1._domainkey.{ROBOT}. 3600 TXT "v=DKIM1; k=rsa; p=' in told
    assert "bourg" not in told, "its key is not ours"
    before = key.read_text()
    assert not run(sympa_robots, **how)["changed"]
    assert key.read_text() == before


def test_what_the_dns_must_say_is_kept_on_the_control_node_too(run, place, action):
    robots = [{**ROBOTS[0], "dkim": {"selector": "l1"}}]
    copy = place / "control/records.zone"

    def ask(asked, _variables):
        here = {"etc": "etc", "home": "home", "maps": "etc/postfix", "records": "state/records.zone"}
        return run(sympa_robots, **{**asked, **{name: str(place / path) for name, path in here.items()}, "owner": ""})

    def follow():
        return action("sympa_robots", ask, robots=robots, host="mx.infini.test", records_copy=str(copy)).run(
            task_vars={}
        )

    assert "told" not in follow()
    assert copy.read_text() == (place / "state/records.zone").read_text()
    assert not follow()["changed"]
    copy.write_text("old")
    assert not follow()["changed"], "Sympa is not restarted for a copy elsewhere"
    assert "l1._domainkey" in copy.read_text()


def test_a_list_is_written_as_sympa_would(run, place):
    run(sympa_robots, robots=ROBOTS)
    check = lists(run, check=True)
    assert check["written"] == [AMIS]
    assert not list((place / "home" / ROBOT).iterdir())
    assert not Recorded.told
    assert lists(run)["changed"]
    folder = place / "home" / ROBOT / "amis"
    assert (folder / "info").read_text() == "Pour tous.\n"
    assert "\nsubject L'amitié\n" in (folder / "config").read_text()
    table, people, users = Recorded.told
    assert table.startswith("INSERT INTO list_table (name_list, robot_list, status_list, ")
    assert "'l''amitié'" in table
    assert "'contact@velo.test','owner'" in people
    assert users.startswith("INSERT IGNORE INTO user_table")
    assert f"amis-owner@{ROBOT} sympabounce:\n" in (place / "etc/postfix/transport").read_text()


def test_a_topic_that_sympa_would_leave_out_is_refused(run, place):
    run(sympa_robots, robots=ROBOTS)
    (place / "etc/topics.conf").write_text("# theirs\nart\ntitle Arts & Humanities\n\nart/music\ntitle Music\n")
    result = lists(run, [{**LISTS[0], "topics": ["art/music", "arts"]}])
    assert result["msg"] == (
        f"list {AMIS} has the topic 'arts', which topics.conf of its robot does not know: art, art/music"
    )
    assert lists(run, [{**LISTS[0], "topics": ["art/music", "art"]}])["written"] == [AMIS]


def test_a_settled_list_is_only_read(run, place):
    run(sympa_robots, robots=ROBOTS)
    lists(run)
    settle(place / "home")
    Recorded.told.clear()
    before = tree(place)
    assert not lists(run)["changed"]
    assert (tree(place), Recorded.told) == (before, [])


def test_one_change_keeps_the_former_file_and_counts_it(run, place):
    run(sympa_robots, robots=ROBOTS)
    lists(run)
    settle(place / "home")
    folder = place / "home" / ROBOT / "amis"
    former, written = (folder / "config").read_text(), (folder / "config").stat().st_mtime
    result = lists(run, [{**LISTS[0], "subject": "Autre", "owners": [{"email": "new@velo.test"}]}])
    assert result["written"] == [AMIS]
    assert (folder / "config.1").read_text() == former
    assert "\nserial 2\n" in (folder / "config").read_text()
    assert (folder / "config").stat().st_mtime >= written + 1, "the daemons look at whole seconds"
    assert any(
        statement.startswith("DELETE FROM admin_table WHERE user_admin = 'contact@") for statement in Recorded.told
    )


def test_a_list_that_is_no_longer_declared_is_closed_by_sympa(run, place):
    run(sympa_robots, robots=ROBOTS)
    lists(run)
    settle(place / "home")
    Recorded.told.clear()
    assert lists(run, [], check=True)["closed"] == [AMIS]
    assert not Recorded.told
    lists(run, [])
    assert f"close {AMIS}" in Recorded.told


def test_a_closed_list_of_others_is_handed_to_nobody(run, place):
    run(sympa_robots, robots=ROBOTS)
    folder = place / "home" / ROBOT / "amis"
    folder.mkdir()
    (folder / "config").write_text("subject Anne's\n\nstatus closed\n")
    (folder / "owner.dump").write_text("email anne@x.test\nprofile privileged\n\n")
    assert f"list {AMIS} exists, and none of its owners (anne@x.test) is declared" in lists(run)["msg"]
    assert not Recorded.told
    lists(run, confirm_takeovers=[AMIS])
    assert f"open {AMIS}" in Recorded.told


def test_a_list_that_people_make_meanwhile_keeps_its_addresses(run, place, monkeypatch):
    run(sympa_robots, robots=ROBOTS)
    theirs = place / "home" / ROBOT / "theirs"

    def made(*_):
        theirs.mkdir()
        (theirs / "config").write_text("subject x\n\nstatus open\n")

    monkeypatch.setattr(sympa_door.Folders, "touch", made)
    lists(run)
    assert f"theirs@{ROBOT} sympa:\n" in (place / "etc/postfix/transport").read_text()


def test_a_list_of_nobody_is_refused_before_anything_is_read(run, place):
    result = lists(run, [{**LISTS[0], "owners": []}])
    assert result["msg"] == f"list {AMIS} has no owner: name at least one in owners"
    assert tree(place) == {}


@pytest.fixture
def action(monkeypatch):
    """Give an action of this name and these arguments, whose host is asked by `ask`."""
    load_plugins()
    action_loader.add_directory(str(ROOT / "action_plugins"))

    def action(name, ask, check=False, **arguments):
        words = dict.fromkeys(("connection", "play_context", "shared_loader_obj"), Mock())
        loader, task = DataLoader(), Mock(args=arguments, async_val=0, check_mode=check)
        found = action_loader.get(name, task=task, loader=loader, templar=Templar(loader, {}), **words)
        monkeypatch.setattr(found, "ask", ask)
        return found

    return action


@pytest.fixture
def follow(run, place, action, monkeypatch):
    """Run the action on a file; the host's half is the module. `asked` is what the host wanted to see at last."""

    def carried(command, in_data):
        done = subprocess.run(["sh", "-c", command], input=in_data, capture_output=True, check=False)
        return {"rc": done.returncode, "stdout": "", "stderr": done.stderr.decode()}

    def follow(src, check=False, **more):
        follow.asked = None

        def ask(asked, _variables):
            asked = {**asked, "known": str(place / "state/known.json"), "owner": ""}
            asked["home"] = more.get("home", str(place / "home"))
            follow.asked = asked["need"]
            return run(sympa_subscribers, check=check, **asked)

        what = {"src": str(src), "lists": [AMIS], "managed": [AMIS], **more}
        ours = action("sympa_subscribers", ask, check, **what)
        monkeypatch.setattr(sys.modules[type(ours).__module__], "LINES", str(place / "lines.tsv"))
        monkeypatch.setattr(ours, "_low_level_execute_command", carried)
        result = ours.run(task_vars={})
        assert not (place / "lines.tsv").exists(), "nobody's address stays there"
        return result

    return follow


def subscribers(follow, place, *rows, header="list\temail\tname", **more):
    (place / "wanted.tsv").write_text("".join(f"{row}\n" for row in (header, *rows)))
    (place / "home" / ROBOT / "amis").mkdir(parents=True, exist_ok=True)
    return follow(place / "wanted.tsv", **more)


def there(**them):
    found = {f"{name}@x.test": Subscriber(who) for name, who in them.items()}
    Recorded.tables = {
        "fingerprints": [[AMIS, *map(str, fingerprint(found, ["name"]))]],
        "subscriber_table": [[AMIS, email, who.name, "mail", "noconceal", "1000"] for email, who in found.items()],
    }


def test_subscribers_come_go_and_are_mended(follow, place):
    there(a="Anne", b="", c="")
    rows = [f"{AMIS}\t{name}" for name in ("A@x.test\tAnna", "b@x.test\t", "d@x.test\tD'Artagnan")]
    check = subscribers(follow, place, *rows, check=True)
    assert (check["added"], check["mended"], check["removed"], Recorded.told) == (1, 1, 1, [])
    assert check["diff"]["after"] == f"{AMIS}: 1 added, 1 changed, 1 removed\n"
    Recorded.becomes = ({"a": "Anna", "b": "", "d": "D'Artagnan"},)
    result = subscribers(follow, place, *rows)
    assert result["changed"]
    told = "\n".join(Recorded.told)
    assert "comment_subscriber = 'Anna'" in told
    assert "IN ('c@x.test')" in told
    assert "\td@x.test\tD'Artagnan\tmail\tnoconceal\t" in told
    assert (place / "home" / ROBOT / "amis/.last_change.member").exists()
    assert json.loads((place / "state/known.json").read_text()) == {AMIS: "a@x.test b@x.test d@x.test"}


def test_as_the_file_says_nobody_is_even_read(follow, place):
    there(a="Anne")
    del Recorded.tables["subscriber_table"]
    assert not subscribers(follow, place, f"{AMIS}\ta@x.test\tAnne")["changed"]
    assert not Recorded.told


def test_what_the_database_does_not_keep_is_said(follow, place):
    there()
    result = subscribers(follow, place, f"{AMIS}\ta@x.test\tAnne")
    assert result["msg"].startswith(f"the database does not hold what the file says of {AMIS}")


def test_a_settled_file_is_not_even_sent(follow, place):
    there(a="Anne")
    row = f"{AMIS}\ta@x.test\tAnne"
    subscribers(follow, place, row)
    assert follow.asked == [AMIS]
    again = subscribers(follow, place, row)
    assert follow.asked is None
    assert (again["changed"], again["subscriptions"]) == (False, 1)


def test_only_the_lists_with_new_lines_are_sent(follow, place):
    there(a="Anne")
    other, lists = f"lettre@{ROBOT}", {"lists": [AMIS, f"lettre@{ROBOT}"], "managed": []}
    rows = [f"{AMIS}\ta@x.test\tAnne", f"{other}\tb@x.test\t", f"{AMIS}\tc@x.test\t"]
    (place / "home" / ROBOT / "lettre").mkdir(parents=True)
    assert subscribers(follow, place, *rows, **lists)["added"] == 2
    result = subscribers(follow, place, *rows, f"{other}\toops\t", **lists)
    assert follow.asked == [other]
    assert "line 5: 'oops' is no mail address" in result["msg"], "by its number in the whole file"
    assert json.loads((place / "state/known.json").read_text()) == {AMIS: "a@x.test c@x.test", other: "b@x.test"}
    assert subscribers(follow, place, *rows, **lists)["subscriptions"] == 3
    assert follow.asked == [other], "as long as a line of it was at fault, it is not settled"
    assert subscribers(follow, place, *rows, **lists)["subscriptions"] == 3
    assert follow.asked is None


def test_a_line_at_fault_costs_other_lists_nothing(follow, place):
    there(a="Anne")
    other, lists = f"lettre@{ROBOT}", {"lists": [AMIS, f"lettre@{ROBOT}"], "managed": []}
    (place / "home" / ROBOT / "lettre").mkdir(parents=True)
    rows = [f"{AMIS}\ta@x.test\tAnne", f"{other}\toops\t"]
    subscribers(follow, place, *rows, **lists)
    assert subscribers(follow, place, *rows, f"{other}\tb@x.test\t", **lists)["added"] == 1
    assert subscribers(follow, place, *rows, f"{other}\tb@x.test\t", **lists)["failed"]
    assert follow.asked == [other]


def test_who_deletes_what_is_known_has_everybody_brought_back(follow, place):
    there(a="Anne")
    row = f"{AMIS}\ta@x.test\tAnne"
    subscribers(follow, place, row)
    there()
    assert subscribers(follow, place, row)["added"] == 0
    (place / "state/known.json").unlink()
    Recorded.becomes = ({"a": "Anne"},)
    assert subscribers(follow, place, row)["added"] == 1


def test_an_unmanaged_list_that_is_empty_all_at_once_is_looked_at(follow, place):
    rows = [f"{AMIS}\t{name}@x.test\t" for name in "abc"]
    there(a="", b="", c="")
    assert subscribers(follow, place, *rows, managed=[])["emptied"] == []
    there(a="")
    subscribers(follow, place, *rows, managed=[])
    assert follow.asked is None, "who comes and goes there is not our business"
    there()
    assert subscribers(follow, place, *rows, managed=[])["emptied"] == [AMIS]
    assert not Recorded.told


def test_a_list_that_is_gone_from_data_and_file_is_forgotten(follow, place):
    there(a="Anne")
    subscribers(follow, place, f"{AMIS}\ta@x.test\tAnne")
    assert not subscribers(follow, place, lists=[], managed=[])["changed"]
    assert json.loads((place / "state/known.json").read_text()) == {}
    subscribers(follow, place, lists=[], managed=[])
    assert follow.asked is None


def test_a_note_of_the_last_run_that_is_damaged_is_none(follow, place):
    there(a="Anne")
    row = f"{AMIS}\ta@x.test\tAnne"
    subscribers(follow, place, row)
    (place / "state/settled.json").write_text("")
    assert subscribers(follow, place, row)["subscriptions"] == 1


def test_a_file_from_a_spreadsheet_is_read(follow, place):
    there()
    header = "\ufefflist\temail\tname\r"
    assert subscribers(follow, place, f"{AMIS}\ta@x.test\tAnne\r", header=header, check=True)["added"] == 1


def test_lines_that_a_killed_run_left_go_even_when_nothing_is_to_do(follow, place):
    there(a="Anne")
    (place / "lines").mkdir()
    (place / "lines/0").write_text("somebody's address")
    subscribers(follow, place, f"{AMIS}\ta@x.test\tAnne", check=True)
    assert (place / "lines/0").exists()
    assert not subscribers(follow, place, f"{AMIS}\ta@x.test\tAnne")["changed"]
    assert not (place / "lines").exists()


def test_a_settled_file_is_parsed_again_when_the_list_has_changed(follow, place):
    row = f"{AMIS}\ta@x.test\tAnne"
    there(a="Anne")
    subscribers(follow, place, row)
    there(a="Anne", z="")
    assert subscribers(follow, place, row, check=True)["removed"] == 1
    there(a="Anne")
    assert subscribers(follow, place, row, f"{AMIS}\tb@x.test\t", check=True)["added"] == 1


def test_who_has_left_is_not_brought_back(follow, place):
    there(a="", b="")
    rows = [f"{AMIS}\t{name}@x.test\t" for name in "ab"]
    subscribers(follow, place, *rows)
    there(a="")
    result = subscribers(follow, place, *rows)
    assert (result["changed"], result["left"], Recorded.told) == (False, 1, [])


def test_a_list_that_lost_everybody_at_once_is_said(follow, place):
    there(a="", b="", c="")
    rows = [f"{AMIS}\t{name}@x.test\t" for name in "abc"]
    assert subscribers(follow, place, *rows)["emptied"] == []
    there()
    for _ in range(2):  # until somebody has looked into it
        assert subscribers(follow, place, *rows)["emptied"] == [AMIS]
    assert not Recorded.told


def test_a_host_without_sympa_is_checked(follow, place):
    (place / "wanted.tsv").write_text("list\temail\n")
    result = follow(place / "wanted.tsv", home=str(place / "none"), check=True)
    assert result["changed"]


def test_a_faulty_line_is_named_and_the_others_are_in_force(follow, place):
    there(a="", z="")
    result = subscribers(follow, place, f"{AMIS}\ta@x.test\t", f"{AMIS}\toops\t", f"{AMIS}\tb@x.test\t")
    assert result["failed"]
    assert "cannot be followed: 1; " in result["msg"]
    assert "all others are in force:\nline 3: 'oops' is no mail address" in result["msg"]
    assert (result["added"], result["removed"]) == (1, 0)
    assert "\tb@x.test\t" in Recorded.told[0]


def test_a_file_that_is_cut_off_takes_nobody_away(follow, place):
    there(**dict.fromkeys("abcdefghijkl", ""))
    result = subscribers(follow, place)
    assert f"subscribers would be taken off: 12 of 12 of {AMIS}" in result["msg"]
    assert not Recorded.told
    Recorded.becomes = ({},)
    assert subscribers(follow, place, confirm_removals=[AMIS])["removed"] == 12


def test_a_file_that_is_not_there_or_none_has_one_sentence(follow, place):
    result = follow(place / "no.tsv")
    assert result["msg"].endswith("is not there: write it first")
    (place / "latin.tsv").write_bytes(b"list\temail\n\xe9")
    result = follow(place / "latin.tsv")
    assert "it is not UTF-8" in result["msg"]
    assert "first line is not the names" in subscribers(follow, place, header="email")["msg"]
