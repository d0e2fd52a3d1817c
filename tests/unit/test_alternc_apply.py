# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host does with its panel's changes: its files in a directory; panel, PHP, Apache and systemd are stand-ins."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import re
import socket
import threading
import time
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path
from subprocess import CompletedProcess, SubprocessError
from types import SimpleNamespace

import pytest
from test_systemd_units import OFF, FakeSystemctl

from hosting import alternc_apply as apply
from hosting import alternc_panel as panel
from hosting import apache, tree, units_door
from hosting.alternc_panel import PanelError, Seen, Site
from hosting.tree_model import TreeError

ME, MY_GROUP = str(os.geteuid()), str(os.getegid())
SETTINGS = apply.Settings(["7.4", "8.2"], "/var/www/alternc", 20, "root@infini.test", "panel.infini.test", 80, "", 6)
PATTERN = "[@LOGIN@]\nopen_basedir = @HOME@/:/tmp/\nlisten = /run/php/{}/@LOGIN@.sock\n"
HOME = "[Service]\nTemporaryFileSystem=@ROOT@:ro\nBindPaths=@HOME@ /var/log/members/@LOGIN@/php:/mnt\n"
# PHP and Apache as judges: they name the first file that they cannot read.
PHP_JUDGE = 'grep -l unreadable-pool "$0"/*/*.conf | head -n 1 | grep . && exit 1 || exit 0'
APACHE_JUDGE = (
    '#!/bin/sh\nbad=$(grep -l NoSuchDirective "$@" | head -n 1)\n[ -z "$bad" ] || { echo "$bad: no"; exit 1; }\n'
)


class Killed(BaseException):
    """The process ends here."""


class World:
    """A panel whose members have sites, and the host that serves them; `events` says what happened in which order."""

    def __init__(self, root):
        self.root = root
        self.events = []
        self.requests = []
        self.letters = []
        self.members = {"admin": 2000, "velo": 2001, "chorale": 2002}
        self.sites = {}  # by name: login, type, and whether it waits
        self.rows = []  # further lines of the database's answer
        self.words = {"update_domains.php": "", "do_actions.php": ""}
        self.meanwhile = []  # what happens while update_domains.php runs, each once
        self.systemctl = Units()
        self.apache_is = "/system.slice/apache2.service"
        self.served_by_old = []
        self.broken = {}  # what a part raises, by name

    def site(self, name, login, kind="php82-fpm", *, waits=True):
        self.sites[name] = SimpleNamespace(login=login, type=kind, waits=waits)

    def happens(self, what):
        self.events.append(what)
        if what in self.broken:
            raise self.broken[what]

    # The panel

    def query(self, sql):
        self.happens("look" if sql == panel.LOOK else f"sql {sql}")
        if sql != panel.LOOK:
            if "type REGEXP" in sql:
                for site in self.sites.values():
                    site.waits |= site.type.endswith("-fpm")
            return []
        return [
            *(f"member\t{uid}\t{login}" for login, uid in self.members.items()),
            *(f"pool\t{one.login}\t{one.type}" for one in self.sites.values() if one.type.endswith("-fpm")),
            *(f"site\t{number}\t{name}" for number, (name, one) in enumerate(self.sites.items()) if one.waits),
            *self.rows,
        ]

    def script(self, name):
        self.happens(name)
        if name == "update_domains.php":
            while self.meanwhile:
                self.meanwhile.pop()()
            for site, one in self.sites.items():
                self.write_virtual_host(site, one)
        else:
            self.rows = [row for row in self.rows if not row.startswith("action")]
        return self.words[name]

    def write_virtual_host(self, name, site):
        version = re.sub(r"php(\d)(\d)-fpm", r"\1.\2", site.type)
        path = self.root / f"var/lib/alternc/apache-vhost/1/{self.members[site.login]}/{name}.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"ServerAlias {name}\nSetHandler proxy:unix:/run/php/{version}/{site.login}.sock|fcgi://x\n")
        site.waits = False

    def remove(self, name):
        one = self.sites.pop(name)
        (self.root / f"var/lib/alternc/apache-vhost/1/{self.members[one.login]}/{name}.conf").unlink()

    # The host

    def here(self, path):
        return path if path.startswith(str(self.root)) else f"{self.root}/{path.lstrip('/')}"

    def look(self, request, *, check_mode):
        names = {self.here(entry.path): entry.path for entry in request.entries}
        there = tree.look(self.below(request), check_mode=check_mode, trees=f"{self.root}/trees")
        return {**there, "need": [names[path] for path in there["need"]]}

    def apply(self, request, contents, **options):
        self.happens(f"write {request.name}" + ("" if request.left is None else " (remove)"))
        self.requests.append(request)
        contents = {self.here(path): content for path, content in contents.items()}
        return tree.apply(self.below(request), contents, trees=f"{self.root}/trees", **options)

    def below(self, request):
        def here(paths):
            return tuple(self.here(path) for path in paths)

        judge = {"/usr/local/sbin/php-pools": ("sh", "-c", PHP_JUDGE, apply.POOLS)}
        return replace(
            request,
            entries=tuple(replace(one, path=self.here(one.path), owner=ME, group=MY_GROUP) for one in request.entries),
            owned=here(request.owned),
            overwrite=here(request.overwrite),
            allow_removal=here(request.allow_removal),
            validations=tuple(
                replace(one, files=here(one.files), command=judge.get(one.command[0], one.command))
                for one in request.validations
            ),
        )

    def uid_of(self, login):
        for line in self.read("var/lib/extrausers/passwd").splitlines():
            name, _, uid, *_ = line.split(":")
            if name == login:
                return SimpleNamespace(pw_uid=int(uid))
        raise KeyError(login)

    def run_program(self, words, **options):
        if "sendmail" in words[0]:
            self.letters.append(message_from_bytes(options["input"], policy=policy.default))
        elif words[:2] != ["systemctl", "is-active"]:
            self.events.append(" ".join(words))
        return CompletedProcess(words, 3 if words[-1] in self.broken else 0, "", "")

    def read(self, path):
        return (self.root / path).read_text()

    def files(self, folder):
        return sorted(str(one.relative_to(self.root / folder)) for one in (self.root / folder).rglob("*.conf"))

    def run(self, *, allow_removal=False, **options):
        """Run once; return the report, with the events of this run alone."""
        self.events.clear()
        self.requests.clear()
        return apply.Engine(SETTINGS, allow_removal=allow_removal).run(**options)


class Units(FakeSystemctl):
    """A systemd that knows the pools' templates, and keeps the links of what it enables."""

    def __init__(self):
        names = [f"php{v}@{login}" for v in ("7.4", "8.2") for login in ("admin", "velo", "chorale", "amap")]
        super().__init__()
        self.units = {f"{name}.socket": dict(OFF, triggers=f"{name}.service") for name in names}
        self.units.update({f"{name}.service": dict(OFF, file="static") for name in names})
        self.loaded = set()
        self.happens = None

    def __call__(self, *argv):
        verb, names = argv[3], argv[argv.index("--") + 1 :] if "--" in argv else []
        if verb in ("start", "stop"):
            self.happens(f"{verb} {' '.join(names)}")
        refusing, self.broken = self.broken, self.broken if verb == "start" else set()
        done = super().__call__(*argv)
        self.broken = refusing
        for name in names:
            link = units_door.LINKS / "sockets.target.wants" / name
            if verb == "enable":
                link.symlink_to("/dev/null")
            elif verb == "disable":
                link.unlink(missing_ok=True)
        if verb == "stop":
            self.loaded -= set(names)
        return done

    @property
    def running(self):
        return sorted(name for name, unit in self.units.items() if unit["active"] == "active")


@pytest.fixture
def world(tmp_path, monkeypatch):
    root = tmp_path / "host"
    found = World(root)
    for name in (
        "run",
        "etc/php/patterns",
        "var/lib/infini-alternc",
        "etc/infini-alternc",
        "run/alternc/incron",
        "bin",
    ):
        (root / name).mkdir(parents=True)
    for name in ("SETTINGS", "HOME_PATTERN", "POOL_PATTERNS", "STATE", "RUN_LOCK", "RELOAD_OWED"):
        monkeypatch.setattr(apply, name, root / str(getattr(apply, name)).lstrip("/"))
    for name in ("FLAGS", "LOCK", "JOBS_LOCK", "TEMPLATES", "VIRTUAL_HOSTS"):
        monkeypatch.setattr(panel, name, root / str(getattr(panel, name)).lstrip("/"))
    shell, option, find = apply.JUDGE_VIRTUAL_HOSTS
    find = find.replace(apply.SERVED, f"{root}{apply.SERVED}").replace("virtual-", f"{root}/bin/virtual-")
    monkeypatch.setattr(apply, "JUDGE_VIRTUAL_HOSTS", (shell, option, find))
    monkeypatch.setattr(apply, "OURS", tuple(f"{root}{path}" for path in apply.OURS))
    monkeypatch.setattr(apply, "RIVALS", {f"{root}{path}": package for path, package in apply.RIVALS.items()})
    for name in ("SERVED", "POOLS", "LOGS", "UNITS", "EXTRA_USERS"):
        monkeypatch.setattr(apply, name, f"{root}{getattr(apply, name)}")
    (root / "bin/virtual-hosts-check").write_text(APACHE_JUDGE)
    (root / "bin/virtual-hosts-check").chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # main() sets its own, and this puts it back
    monkeypatch.setattr(panel, "query", found.query)
    monkeypatch.setattr(panel, "script", found.script)
    monkeypatch.setattr(panel, "processes", lambda: iter(()))
    monkeypatch.setattr(apply, "tree", SimpleNamespace(look=found.look, apply=found.apply))
    monkeypatch.setattr(apply, "subprocess", SimpleNamespace(run=found.run_program, SubprocessError=SubprocessError))
    monkeypatch.setattr(apache, "reload", lambda: found.happens("reload"))
    monkeypatch.setattr(apache, "outdated", lambda: found.served_by_old)
    monkeypatch.setattr(apache, "first_process", lambda: found.apache_is and (7, f"0::{found.apache_is}\n"))
    monkeypatch.setattr(apache, "PAUSE", 0.001)
    found.systemctl.happens = found.happens
    monkeypatch.setattr(units_door, "run", found.systemctl)
    monkeypatch.setattr(units_door, "LINKS", Path(apply.UNITS))
    monkeypatch.setattr(units_door, "UNIT_FILES", [Path(apply.UNITS)])
    (Path(apply.UNITS) / "sockets.target.wants").mkdir(parents=True)
    for version in SETTINGS.versions:
        (apply.POOL_PATTERNS / f"{version}.conf").write_text(PATTERN.format(version))
    apply.HOME_PATTERN.write_text(HOME)
    apply.SETTINGS.write_text(json.dumps(vars(SETTINGS)))
    return found


# What the files hold


def test_members_whose_login_the_host_has_are_left_out_of_its_accounts():
    files = apply.accounts({"velo": 2001, "games": 2002, "amap": 2003}, SETTINGS, {"root", "games"})
    assert files == {
        "/var/lib/extrausers/passwd": (
            b"amap:x:2003:2003::/var/www/alternc/a/amap:/usr/sbin/nologin\n"
            b"velo:x:2001:2001::/var/www/alternc/v/velo:/usr/sbin/nologin\n"
        ),
        "/var/lib/extrausers/group": b"amap:x:2003:\nvelo:x:2001:\n",
        "/var/lib/extrausers/shadow": b"amap:*:19000:0:99999:7:::\nvelo:*:19000:0:99999:7:::\n",
    }


def test_a_pattern_is_filled_once_and_wholly():
    text = apply.filled("[@LOGIN@] @HOME@:@ROOT@ @LOGIN@ @other@", "velo", SETTINGS)
    assert text == b"[velo] /var/www/alternc/v/velo:/var/www/alternc velo @other@"


def test_a_pool_has_what_php_reads_and_what_its_unit_says_and_no_placeholder():
    patterns = {version: PATTERN.format(version) for version in SETTINGS.versions}
    files = apply.pool_files([("velo", "7.4"), ("chorale", "8.2")], SETTINGS, patterns, HOME)
    assert sorted(files) == [
        "/etc/php/pools/7.4/velo.conf",
        "/etc/php/pools/8.2/chorale.conf",
        "/etc/systemd/system/php7.4@velo.service.d/50-home.conf",
        "/etc/systemd/system/php8.2@chorale.service.d/50-home.conf",
    ]
    assert b"/run/php/7.4/velo.sock" in files["/etc/php/pools/7.4/velo.conf"]
    assert b"BindPaths=/var/www/alternc/c/chorale /var/log/members/chorale/php:/mnt" in files[sorted(files)[3]]
    assert not [path for path, text in files.items() if b"@" in text]


def test_the_patterns_of_the_roles_are_filled_wholly():
    home = Path(__file__).parents[2] / "roles/alternc/tree/etc/infini-alternc/home.conf"
    assert b"@" not in apply.filled(home.read_text(), "velo", SETTINGS)


def test_slow_logs_are_turned_over_as_their_accounts():
    text = apply.rotation({"velo", "amap"}).decode()
    assert re.findall(r"^(\S+) \{\n    su (\w+) (\w+)\n", text, re.MULTILINE) == [
        ("/var/log/members/amap/php/*.log", "amap", "amap"),
        ("/var/log/members/velo/php/*.log", "velo", "velo"),
    ]
    assert apply.rotation([]) == b""


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [(0, 0, 0), (10, 5, 0), (10, 4, 6), (6, 0, 6), (5, 0, 0), (100, 70, 0), (100, 69, 31), (10, 20, 0)],
)
def test_more_members_than_a_slip_explains_are_counted(tmp_path, before, after, gone):
    path = tmp_path / "passwd"
    path.write_text("line\n" * before)
    assert apply.shrunk(path, b"line\n" * after) == gone


def test_a_host_without_accounts_loses_none(tmp_path):
    assert apply.shrunk(tmp_path / "passwd", b"") == 0


# What is said


def test_a_panel_with_nothing_left_to_do_has_no_problem():
    assert apply.problems_of(Seen({"admin": 2000}, {("velo", "8.2")}, zones={"velo.test": "1"})) == []


@pytest.mark.usefixtures("world")
def test_what_came_during_a_run_is_the_next_runs():
    before = Seen(domains={"1": "velo.test"}, sites={"2": "www.velo.test"}, actions={"3": "DELETE"})
    later = Seen(domains={"1": "velo.test", "4": "new.test"}, sites={"5": "www.new.test"}, actions={"6": "CREATE_DIR"})
    left = later.left_of(before)
    assert (left.domains, left.sites, left.actions) == ({"1": "velo.test"}, {}, {})
    panel.FLAGS.mkdir(parents=True, exist_ok=True)
    (panel.FLAGS / "inotify_update_domain.lock").touch()
    assert later.left_of(before).domains == {}, "whoever changed it again has asked for it"


def test_many_served_sites_do_not_go_because_alterncs_own_are_not_there(world):
    for number in range(6):
        world.site(f"s{number}.velo.test", "velo")
    world.run()
    served = world.files("etc/apache2/alternc")
    for number in range(6):
        world.remove(f"s{number}.velo.test")
    (problem,) = world.run().problems
    assert problem.startswith("AlternC has no virtual host any more, and 6 are served")
    assert world.files("etc/apache2/alternc") == served


def test_what_waits_is_named_unless_its_type_is_gone():
    now = Seen(
        domains={"1": "velo.test"},
        sites={"2": "www.velo.test", "3": "old.velo.test"},
        untyped=[
            Site("old.velo.test", "php56-fpm", "3"),
            Site("older.velo.test", "php56-fpm"),
            Site("x.test", "sqmail"),
        ],
    )
    gone = "does not exist any more, but these have it and stay as they are"
    assert apply.problems_of(now) == [
        "Not applied: velo.test, www.velo.test",
        f"The type php56-fpm {gone}: old.velo.test, older.velo.test",
        f"The type sqmail {gone}: x.test",
    ]


def test_sites_that_could_not_be_written_are_said_by_their_template(tmp_path, monkeypatch):
    monkeypatch.setattr(panel, "TEMPLATES", tmp_path)
    (tmp_path / "url.conf").touch()
    now = Seen(
        refused=[
            Site("a.test", "php82-fpm", "1", "both"),
            Site("b.test", "url", "2"),
            Site("c.test", "php82-fpm", "3", "both"),
        ]
    )
    template = f"the template {tmp_path}/php82-fpm-both.conf"
    assert apply.problems_of(now) == [
        f"AlternC could not write the virtual hosts of a.test, c.test: {template} is missing",
        "AlternC could not write the virtual hosts of b.test",
    ]


def test_only_zones_that_are_not_locked_on_purpose_are_a_problem():
    now = Seen(zones={"velo.test": "1", "amap.test": "2"})
    assert apply.problems_of(now) == ["AlternC could not write the zones amap.test"]


def test_file_actions_that_wait_are_counted():
    now = Seen(actions={"3": "DELETE", "4": "FIXDIR"})
    assert apply.problems_of(now) == ["2 file actions of AlternC are not done (the first: DELETE)"]


@pytest.mark.parametrize(("count", "text"), [(1, "a"), (5, "a, b, c, d, e"), (6, "a, b, c, d, e and 1 more"), (0, "")])
def test_five_names_are_enough(count, text):
    assert apply.some(list("abcdef")[:count]) == text


# A run


def test_pools_stand_before_alternc_writes_and_apache_reads_after(world):
    world.site("www.velo.test", "velo")
    world.site("old.velo.test", "velo", "php74-fpm")
    report = world.run()
    assert report.problems == []
    steps = [event for event in world.events if event != "look"]
    assert steps == [
        "write alternc-accounts",
        "write alternc-pools",
        "start php7.4@velo.socket php8.2@velo.socket",
        "/usr/local/sbin/php-pools reload",
        "update_domains.php",
        "write alternc-sites",
        "reload",
    ]
    assert world.files("etc/apache2/alternc") == ["2001/old.velo.test.conf", "2001/www.velo.test.conf"]
    assert world.files("etc/php/pools") == ["7.4/velo.conf", "8.2/velo.conf"]
    assert world.systemctl.running == ["php7.4@velo.socket", "php8.2@velo.socket"]
    assert "chorale:x:2002:2002::/var/www/alternc/c/chorale:" in world.read("var/lib/extrausers/passwd")
    assert (world.root / "var/lib/extrausers/shadow").stat().st_mode & 0o777 == 0o600
    assert report.did[:2] == ["2 pools of PHP were opened", "2 changes of domains and sites were taken"]
    world.site("new.velo.test", "velo")
    assert world.run().did == ["1 changes of domains and sites were taken", "1 virtual hosts were put in force"]


def test_a_second_run_does_nothing(world):
    world.site("www.velo.test", "velo")
    world.run()
    report = world.run()
    assert (report.did, report.problems) == ([], [])
    assert set(world.events) == {"look"}


def test_slow_logs_stand_where_their_account_writes_and_the_directory_above_is_roots(world):
    world.site("www.velo.test", "velo")
    world.run()
    (pools,) = [request for request in world.requests if request.name == "alternc-pools"]
    logs = {
        one.path.removeprefix(apply.LOGS): (one.owner, one.group, one.mode)
        for one in pools.entries
        if one.path.startswith(apply.LOGS)
    }
    assert logs == {"/velo": ("root", "2001", 0o750), "/velo/php": ("2001", "2001", 0o750)}


def test_file_actions_are_done_where_there_are_some(world):
    world.rows = ["action\t3\tDELETE"]
    assert world.run().problems == []
    assert "do_actions.php" in world.events
    assert "update_domains.php" not in world.events
    world.run()
    assert "do_actions.php" not in world.events


def test_actions_that_alternc_overlooks_are_put_right_first(world):
    world.rows = ["action\t3\tDELETE", "null\t3"]
    report = world.run()
    assert report.did == ["1 file actions that AlternC overlooks were put right"]
    mend = next(i for i, event in enumerate(world.events) if "ALTER TABLE actions" in event)
    assert world.events[mend + 1] == "look"
    assert mend < world.events.index("do_actions.php")


def test_flags_are_cleared_before_looking_and_one_that_comes_later_stays(world, monkeypatch):
    flag = panel.FLAGS / "inotify_update_domain.lock"
    flag.touch()
    at_first_look = []

    def query(sql):
        if not at_first_look:
            at_first_look.append(flag.exists())
            flag.touch()  # a change that this look may have missed
        return world.query(sql)

    monkeypatch.setattr(panel, "query", query)
    world.run()
    assert at_first_look == [False]
    assert flag.exists()


def test_a_lock_that_nobody_holds_is_removed_and_said(world):
    panel.LOCK.touch()
    os.utime(panel.LOCK, (1, 1))
    assert world.run().did == ["the lock cron.lock, which nobody held, was removed"]


def test_what_a_script_says_is_a_problem_in_one_line(world):
    world.site("www.velo.test", "velo")
    world.words["update_domains.php"] = "PHP Fatal error:\n  could not find driver " + "x" * 600
    (problem,) = world.run().problems
    assert problem.startswith("AlternC's update_domains.php said: PHP Fatal error: could not find driver xxx")
    assert len(problem) < 600


def test_sites_that_were_refused_are_tried_again_once_their_template_is_there(world):
    world.rows = ["refused\t9\twww.velo.test\tphp82-fpm\tboth"]
    (problem,) = world.run().problems
    assert problem.startswith("AlternC could not write the virtual hosts of www.velo.test: the template ")
    assert problem.endswith("php82-fpm-both.conf is missing")
    assert [event for event in world.events if event.startswith("sql")] == []
    panel.TEMPLATES.mkdir(parents=True)
    (panel.TEMPLATES / "php82-fpm-both.conf").touch()
    world.run()
    (retried,) = [event for event in world.events if event.startswith("sql")]
    assert "WHERE id IN (9) AND web_action = 'OK'" in retried


def test_pools_are_opened_again_when_a_change_came_while_alternc_wrote(world):
    world.site("www.velo.test", "velo")
    world.meanwhile = [lambda: world.site("www.chorale.test", "chorale")]
    report = world.run()
    assert report.problems == []
    order = ["start php8.2@velo.socket", "update_domains.php", "start php8.2@chorale.socket", "write alternc-sites"]
    assert [event for event in world.events if event in order] == order
    assert world.files("etc/apache2/alternc") == ["2001/www.velo.test.conf", "2002/www.chorale.test.conf"]


@pytest.mark.parametrize(
    ("broken", "problem", "sentence"),
    [
        ("write alternc-pools", TreeError("no space"), "no space"),
        ("do_actions.php", PanelError("AlternC's do_actions.php hangs"), "AlternC's do_actions.php hangs"),
        (
            "write alternc-accounts",
            OSError(28, "No space left"),
            "A step failed on this host: [Errno 28] No space left",
        ),
        ("reload", apache.ApacheError("Apache has not read it"), "Apache has not read it"),
    ],
)
def test_a_step_that_fails_is_said_and_does_not_stop_the_others(world, broken, problem, sentence):
    world.site("www.velo.test", "velo")
    world.rows = ["action\t3\tDELETE"]
    world.broken[broken] = problem
    assert sentence in world.run().problems
    assert [event for event in world.events if event.endswith(".php")] == ["do_actions.php", "update_domains.php"]
    assert world.files("etc/apache2/alternc") == ["2001/www.velo.test.conf"]
    world.broken.clear()
    assert world.run().problems == []
    assert world.systemctl.running == ["php8.2@velo.socket"]


def test_a_failed_update_leaves_what_is_served(world):
    world.site("www.velo.test", "velo")
    world.run()
    world.site("new.velo.test", "velo")
    world.broken["update_domains.php"] = PanelError("AlternC's update_domains.php did not end")
    assert world.run().problems == ["AlternC's update_domains.php did not end", "Not applied: new.velo.test"]
    assert world.files("etc/apache2/alternc") == ["2001/www.velo.test.conf"]


def test_a_panel_that_cannot_be_asked_changes_nothing(world):
    world.site("www.velo.test", "velo")
    world.run()
    world.broken["look"] = PanelError("The panel's database does not answer")
    assert set(world.run().problems) == {"The panel's database does not answer"}
    assert set(world.events) == {"look"}
    assert world.files("etc/php/pools") == ["8.2/velo.conf"]


def test_many_members_gone_at_once_are_an_accident_unless_told(world):
    world.members.update({f"asso{number}": 2100 + number for number in range(10)})
    world.run()
    before = world.read("var/lib/extrausers/passwd")
    world.members = {"admin": 2000, "velo": 2001, "chorale": 2002}
    (problem,) = world.run().problems
    assert problem.startswith(
        "10 members would be gone at once: nothing of theirs was touched; `alternc-apply now --all"
    )
    assert world.read("var/lib/extrausers/passwd") == before
    assert world.run(allow_removal=True).problems == []
    assert len(world.read("var/lib/extrausers/passwd").splitlines()) == 3


def test_a_member_with_the_login_of_a_service_gets_no_pool(world):
    world.members["root"] = 2009  # the one login that /etc/passwd has everywhere
    world.site("www.root.test", "root")
    world.site("www.velo.test", "velo")
    assert world.run().problems == [
        "The members root have the login of a service of this host: they get no PHP of their own"
    ]
    assert world.files("etc/php/pools") == ["8.2/velo.conf"]
    assert "2009" not in world.read("var/lib/extrausers/passwd")


def test_a_version_that_the_host_does_not_have_is_said_and_costs_its_sites_only(world):
    world.site("www.velo.test", "velo", "php56-fpm")
    world.site("www.chorale.test", "chorale")
    assert world.run().problems == ["Sites ask for PHP 5.6, which this host does not have"]
    assert world.files("etc/php/pools") == ["8.2/chorale.conf"]


def test_a_pool_that_php_refuses_has_no_entrance(world):
    world.site("www.velo.test", "velo")
    world.site("old.velo.test", "velo", "php74-fpm")
    (apply.POOL_PATTERNS / "7.4.conf").write_text("[@LOGIN@]\nunreadable-pool\n")
    (problem,) = world.run().problems
    assert problem == f"PHP refuses a pool: {apply.POOLS}/7.4/velo.conf"
    assert world.systemctl.running == ["php8.2@velo.socket"]


def test_a_virtual_host_that_apache_refuses_costs_its_own_site_only(world):
    world.site("www.velo.test", "velo")
    manual = panel.VIRTUAL_HOSTS / "manual/own.conf"
    manual.parent.mkdir(parents=True)
    manual.write_text("NoSuchDirective\n")
    for _ in range(2):
        (problem,) = world.run().problems
        assert problem == f"Apache refuses a virtual host: {apply.SERVED}/manual/own.conf: no"
        assert world.files("etc/apache2/alternc") == ["2001/www.velo.test.conf"]
    manual.write_text("Listen 81\n")
    assert world.run().problems == []
    assert "manual/own.conf" in world.files("etc/apache2/alternc")


def test_the_row_of_a_site_that_apache_refuses_says_so_until_it_is_mended(world):
    world.site("www.velo.test", "velo")
    world.site("www.chorale.test", "chorale")
    world.run()
    mine = panel.VIRTUAL_HOSTS / "1/2001/www.velo.test.conf"
    kept = mine.read_text()
    mine.write_text("NoSuchDirective l'été\n")
    world.run()
    (told,) = [event for event in world.events if event.startswith("sql")]
    words = [bytes.fromhex(one).decode() for one in re.findall(r"X'([0-9a-f]+)'", told)]
    assert words == ["www.velo.test", f"{panel.REFUSED}no", "www.velo.test"]
    assert "s.compte = 2001" in told
    assert "2002" not in told
    mine.write_text(kept)
    world.rows = ["told\t7"]
    world.run()
    (told,) = [event for event in world.events if event.startswith("sql")]
    assert told.split(" WHERE ")[0] == "sql UPDATE sub_domaines s SET s.web_result = '0'"
    assert "NOT (" not in told
    world.rows = []
    world.run()
    assert set(world.events) == {"look"}


def test_a_reload_is_owed_by_a_run_that_was_killed(world):
    world.site("www.velo.test", "velo")
    world.broken["reload"] = Killed()
    with pytest.raises(Killed):
        world.run()
    assert world.files("etc/apache2/alternc") == ["2001/www.velo.test.conf"]
    assert apply.RELOAD_OWED.exists()
    world.broken.clear()
    world.run()
    assert "reload" in world.events, "although nothing has changed since"
    assert not apply.RELOAD_OWED.exists()
    world.run()
    assert "reload" not in world.events


def test_an_apache_that_runs_outside_its_unit_is_brought_back(world, monkeypatch):
    world.apache_is = "/user.slice/session-1.scope"
    run_program = world.run_program

    def run(words, **options):
        if words == ["apache2ctl", "stop"]:
            world.apache_is = ""
        if words[:2] == ["systemctl", "start"]:
            world.apache_is = "/system.slice/apache2.service"
        return run_program(words, **options)

    monkeypatch.setattr(apply.subprocess, "run", run)
    assert world.run().problems == []
    start = ["apache2ctl stop", "systemctl reset-failed apache2.service", "systemctl start apache2.service"]
    assert [event for event in world.events if "apache2" in event] == start
    world.run()
    assert set(world.events) == {"look"}


def test_an_apache_that_does_not_start_is_a_sentence(world):
    world.apache_is = ""
    world.broken["apache2.service"] = None
    (problem,) = world.run().problems
    assert problem.startswith("Apache does not start: see `journalctl -u apache2`")


def test_pools_that_nobody_asks_for_are_retired_with_their_units(world):
    world.site("www.velo.test", "velo")
    world.site("old.velo.test", "velo", "php74-fpm")
    world.run()
    world.systemctl.units["php7.4@velo.service"]["active"] = "active"
    world.systemctl.loaded.add("php7.4@velo.service")
    world.remove("old.velo.test")
    report = world.run()
    assert report.problems == []
    assert "2 units of pools were retired" in report.did
    assert world.systemctl.running == ["php8.2@velo.socket"]
    assert world.files("etc/php/pools") == ["8.2/velo.conf"]
    assert world.files("etc/systemd/system") == ["php8.2@velo.service.d/50-home.conf"]
    assert world.events.index("write alternc-sites") < world.events.index("reload")
    assert world.events.index("reload") < world.events.index("write alternc-pools (remove)")
    assert (world.root / "var/log/members/velo/php").is_dir(), "nobody's logs are deleted"


def test_a_pool_stays_while_a_virtual_host_that_is_served_leads_to_it(world):
    world.site("www.velo.test", "velo", "php74-fpm")
    world.run()
    world.sites["www.velo.test"].type = "php82-fpm"  # the row has changed, but AlternC has not written it yet
    world.sites["www.velo.test"].waits = True
    world.broken["update_domains.php"] = PanelError("AlternC's update_domains.php did not end")
    world.run()
    assert world.systemctl.running == ["php7.4@velo.socket", "php8.2@velo.socket"]
    assert world.files("etc/php/pools") == ["7.4/velo.conf", "8.2/velo.conf"]
    world.broken.clear()
    assert world.run().problems == []
    assert world.systemctl.running == ["php8.2@velo.socket"]
    assert world.files("etc/php/pools") == ["8.2/velo.conf"]


def test_a_pool_stays_while_requests_are_served_by_what_apache_had_read_before(world):
    world.site("www.velo.test", "velo")
    world.run()
    world.remove("www.velo.test")
    world.served_by_old = ["4711"]
    for _ in range(2):
        assert world.run().problems == []
        assert world.files("etc/apache2/alternc") == []
        assert world.systemctl.running == ["php8.2@velo.socket"]
        assert world.files("etc/php/pools") == ["8.2/velo.conf"]
    world.served_by_old = []
    world.run()
    assert world.systemctl.running == []
    assert world.files("etc/php/pools") == []


def test_a_socket_that_does_not_start_is_said(world):
    world.site("www.velo.test", "velo")
    world.systemctl.broken = {"php8.2@velo.socket"}
    (problem,) = world.run().problems
    assert problem.startswith("php8.2@velo.socket did not start: see `journalctl -u php8.2@velo.socket`")
    assert world.files("etc/apache2/alternc") == ["2001/www.velo.test.conf"]


@pytest.mark.parametrize(
    ("path", "package"),
    [("php7-fpm", "alternc-php-fpm"), ("install.d/alternc-nss", "alternc-nss")],
)
def test_a_package_that_writes_the_same_files_is_named_with_the_mend(world, path, package):
    assert world.run().problems == []
    rival = world.root / "usr/lib/alternc" / path
    rival.parent.mkdir(parents=True)
    rival.touch()
    (problem,) = world.run().problems
    assert problem == f"{package} is installed and writes what alternc-apply owns: `apt-get remove {package}`"


# What is kept and told


def remember(world, *problems):
    world.letters.clear()
    apply.remember(apply.Report(problems=list(problems)), SETTINGS)
    return world.letters


def test_who_must_know_is_written_to_when_problems_change_and_only_then(world):
    assert remember(world) == []
    (letter,) = remember(world, "Not applied: vélo.test", "another")
    assert (letter["To"], letter["Subject"]) == (
        "root@infini.test",
        "[panel.infini.test] AlternC : changements du panneau",
    )
    assert letter.get_content() == "Not applied: vélo.test\nanother\n"
    assert remember(world, "Not applied: vélo.test", "another") == []
    assert len(remember(world, "another")) == 1
    (all_clear,) = remember(world)
    assert all_clear.get_content() == "Tout est de nouveau appliqué.\n"
    assert remember(world) == []


def test_nobody_is_written_to_where_nobody_is_named(world):
    apply.remember(apply.Report(problems=["x"]), replace(SETTINGS, mail_to=""))
    assert world.letters == []
    assert apply.recall()["problems"] == ["x"]


@pytest.mark.usefixtures("world")
def test_what_a_run_found_is_kept_with_its_time():
    assert apply.recall() == {}
    apply.remember(apply.Report(["one"], ["two"]), SETTINGS)
    state = apply.recall()
    assert (state["did"], state["problems"]) == (["one"], ["two"])
    assert abs(state["ran"] - time.time()) < 60
    assert [path.name for path in apply.STATE.parent.iterdir()] == ["state.json"]
    apply.STATE.write_text("{half")
    assert apply.recall() == {}


def test_what_cannot_be_kept_is_said_by_the_run_itself_and_mailed_to_nobody(world, monkeypatch):
    def is_full(*_words, **_options):
        raise OSError(28, "No space left on device")

    report = apply.Report(problems=["one"])
    monkeypatch.setattr(Path, "write_text", is_full)
    apply.remember(report, SETTINGS)
    assert report.problems[1:] == [f"{apply.STATE} cannot be written (No space left on device): make room on the disk"]
    assert world.letters == []


@pytest.fixture
def ran(world):
    """Say when the last run was."""

    def set_age(age, problems=()):
        apply.STATE.write_text(json.dumps({"ran": time.time() - age, "did": [], "problems": list(problems)}))

    set_age(0)
    world.ran = set_age
    return world


@pytest.mark.usefixtures("ran")
def test_a_host_that_is_well_has_nothing_to_say():
    assert apply.check(SETTINGS) == []


def test_a_check_repeats_what_the_last_run_found(ran):
    ran.ran(0, ["Not applied: velo.test"])
    assert apply.check(SETTINGS) == ["Not applied: velo.test"]


def test_a_run_that_is_missing_is_said_unless_one_is_under_way(ran):
    ran.ran(3 * 20 + 59)
    assert apply.check(SETTINGS) == []
    ran.ran(600)
    assert apply.check(SETTINGS) == ["alternc-apply last ran 10 minutes ago: see `journalctl -u alternc-apply`"]
    with apply.RUN_LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert apply.check(SETTINGS) == []
    assert apply.check(SETTINGS)


@pytest.mark.usefixtures("world")
def test_a_host_where_nothing_ever_ran_is_not_well():
    assert apply.check(SETTINGS) == ["alternc-apply has not run yet: `systemctl start alternc-apply`"]


@pytest.mark.parametrize("unit", apply.OWN_UNITS)
def test_a_unit_that_is_down_is_said_with_the_mend(ran, unit):
    ran.broken[unit] = None
    assert apply.check(SETTINGS) == [f"{unit} does not run: `systemctl start {unit}`"]


@pytest.mark.usefixtures("ran")
def test_a_flag_that_waits_is_said_once_it_is_late():
    flag = panel.FLAGS / "inotify_do_action.lock"
    flag.touch()
    assert apply.check(SETTINGS) == []
    os.utime(flag, (time.time() - 61, time.time() - 61))
    assert apply.check(SETTINGS) == [f"The flag {flag} has been waiting for more than a minute"]


# The canary

FLYING = replace(SETTINGS, canary="canari.test", canary_hours=6)


@pytest.fixture
def canary(world, monkeypatch):
    """A canary that DNS and Apache answer for as they are told: a function that runs and returns what was sent."""
    sent, clock = [], []
    monkeypatch.setattr(apply, "time", SimpleNamespace(time=lambda: time.time() + sum(clock)))
    world.dns = world.web = lambda stamp: stamp
    world.has_canary = True

    def set_canary(domain, stamp):
        world.happens("canary")
        clock.append(1)  # seconds that a change takes on a real host
        sent.append((domain, stamp))
        return world.has_canary

    monkeypatch.setattr(panel, "set_canary", set_canary)
    monkeypatch.setattr(apply, "resolve", lambda name: f'"{name} {world.dns(sent[-1][1])}"')
    monkeypatch.setattr(apply, "follow", lambda name, _settings: f"http://{name}/{world.web(sent[-1][1])}")
    monkeypatch.setattr(apply, "CANARY_SECONDS", 0.01)

    def fly(settings=FLYING):
        sent.clear()
        world.events.clear()
        engine = apply.Engine(settings)
        apply.remember(engine.run(), settings)
        return sent

    world.fly = fly
    return world


def age_canary(hours):
    state = apply.recall()
    state["canary"] = {name: moment - hours * 3600 for name, moment in state["canary"].items()}
    apply.STATE.write_text(json.dumps(state))


def test_a_canary_is_sent_before_looking_and_then_rests(canary):
    ((domain, stamp),) = canary.fly()
    assert domain == "canari.test"
    assert abs(float(stamp) - time.time()) < 60
    assert canary.events[:2] == ["canary", "look"]
    assert apply.check(FLYING) == []
    assert canary.fly() == []
    age_canary(5.9)
    assert canary.fly() == []
    age_canary(0.2)
    assert len(canary.fly()) == 1
    assert apply.check(FLYING) == []


@pytest.mark.parametrize("part", ["dns", "web"])
def test_a_canary_that_does_not_come_through_is_said_and_sent_again_soon(canary, part):
    canary.fly()
    age_canary(7)
    setattr(canary, part, lambda _stamp: "what was there before")
    canary.fly()
    (problem,) = apply.check(FLYING)
    assert problem.startswith("The canary canari.test did not come through from the panel to DNS and Apache; ")
    assert problem.endswith("the last one to come through did so 7 hours before")
    assert canary.fly() == [], "not at every run"
    age_canary(apply.RETRY_CANARY / 3600)
    setattr(canary, part, lambda stamp: stamp)
    assert len(canary.fly()) == 1
    assert apply.check(FLYING) == []


def test_a_canary_that_never_came_or_has_no_domain_is_said(canary):
    canary.web = lambda _stamp: ""
    canary.fly()
    assert apply.check(FLYING) == [
        "The canary canari.test did not come through from the panel to DNS and Apache; none ever did"
    ]
    apply.STATE.unlink()
    canary.has_canary = False
    canary.fly()
    assert apply.check(FLYING) == ["The canary canari.test was never sent: give the member canari that domain"]


def test_no_canary_flies_where_none_is_named(canary):
    assert canary.fly(SETTINGS) == []
    assert "canary" not in canary.events
    assert apply.check(SETTINGS) == []


def test_apache_is_asked_for_the_canary_by_its_name(monkeypatch):
    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"http://{self.headers['Host']}/1700000000")
            self.end_headers()

        def log_message(self, *_args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Site) as server:
        there = replace(FLYING, http_port=server.server_port)
        asking = threading.Thread(target=server.handle_request)
        asking.start()
        assert apply.follow("web.canari.test", there) == "http://web.canari.test/1700000000"
        asking.join()
    assert apply.follow("web.canari.test", there) == "", "nobody listens any more"
    asked = []
    monkeypatch.setattr(
        apply.subprocess, "run", lambda words, **_: asked.append(words) or CompletedProcess(words, 0, '"x"\n')
    )
    assert apply.resolve("dns.canari.test") == '"x"\n'
    assert {"dig", "@127.0.0.1", "dns.canari.test", "TXT"} <= set(asked[0])


# Words


@pytest.mark.parametrize("words", [[], ["again"], ["now", "--force"], ["--allow-removal"], ["now", "extra"]])
def test_other_words_are_answered_with_how_to_use_it(world, words, capsys):
    assert apply.main(words) == 2
    assert "alternc-apply anew" in capsys.readouterr().err
    assert world.events == []


def test_a_run_that_found_problems_fails_only_where_somebody_asked_for_it(world, capsys):
    world.site("www.velo.test", "velo", "php56-fpm")
    sentence = "Sites ask for PHP 5.6, which this host does not have\n"
    assert apply.main(["run"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "1 changes of domains and sites were taken"
    assert said.err == sentence
    assert apply.main(["now"]) == 1
    assert capsys.readouterr().err == sentence
    assert apply.main(["check"]) == 1
    assert sentence in capsys.readouterr().out
    assert len(world.letters) == 1


def test_all_is_well_ends_with_0(world, capsys):
    world.site("www.velo.test", "velo")
    assert apply.main(["now"]) == 0
    assert "1 pools of PHP were opened\n" in capsys.readouterr().out
    world.events.clear()
    assert apply.main(["check"]) == 0
    assert world.events == [], "a check asks nobody and changes nothing"
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("capsys")
def test_anew_has_every_virtual_host_of_ours_written(world):
    world.site("www.velo.test", "velo")
    apply.main(["now"])
    world.events.clear()
    assert apply.main(["anew"]) == 0
    assert world.events[0].startswith("sql UPDATE sub_domaines SET web_action = 'UPDATE'")
    assert "update_domains.php" in world.events


@pytest.mark.usefixtures("capsys")
def test_members_may_be_removed_by_name(world):
    world.members.update({f"asso{number}": 2100 + number for number in range(10)})
    apply.main(["now"])
    world.members = {"admin": 2000}
    assert apply.main(["now"]) == 1
    assert apply.main(["now", "--allow-removal"]) == 0


@pytest.mark.usefixtures("capsys")
def test_an_engine_that_fails_itself_says_so_to_the_check_and_by_letter(world, monkeypatch):
    def fail(_self, **_options):
        raise ZeroDivisionError("somebody divided")

    monkeypatch.setattr(apply.Engine, "run", fail)
    with pytest.raises(ZeroDivisionError):
        apply.main(["run"])
    sentence = "alternc-apply itself failed: ZeroDivisionError: somebody divided"
    assert apply.recall()["problems"] == [sentence]
    assert sentence in world.letters[0].get_content()
    assert apply.busy() is False


def test_a_second_run_waits_for_the_first(world, monkeypatch, capsys):
    busy = []
    monkeypatch.setattr(panel, "prepare_directories", lambda: busy.append(apply.busy()) or [])
    world.site("www.velo.test", "velo")
    assert apply.main(["now"]) == 0
    assert busy == [True]
    assert apply.busy() is False
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("front", [False, True])
def test_apache_behind_the_front_is_asked_as_the_front_asks(front):
    """Not by `PROXY UNKNOWN`: Apache 2.4 loses what follows the shortest line there is."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            talk, _ = server.accept()
            with talk:
                while not b"".join(heard).endswith(b"\r\n\r\n"):
                    heard.append(talk.recv(4096))
                talk.sendall(b"HTTP/1.1 301 Moved\r\nLocation: http://canari.test/1\r\nContent-Length: 0\r\n\r\n")

        apache_is = threading.Thread(target=answer)
        apache_is.start()
        settings = replace(SETTINGS, http_port=server.getsockname()[1], front=front)
        assert apply.follow("web.canari.test", settings) == "http://canari.test/1"
        apache_is.join()
    lines = b"".join(heard).split(b"\r\n")
    assert lines[:1] == [b"PROXY TCP4 127.0.0.1 127.0.0.1 80 80" if front else b"GET / HTTP/1.1"]
    assert b"Host: web.canari.test" in lines
