# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import json
import os
import shutil
from pathlib import Path

import pytest

from hosting import backup, dumps, manifest, restore
from hosting.backup import BackupError, Repository, Service, Settings

STAMP = "2026-11-23T04-00-00"
ARCHIVES = [
    {"service": "sites", "archive": f"sites-{time}", "time": time}
    for time in ("2026-11-01T02:30:00", "2026-11-02T02:30:00", "2026-11-03T02:30:00")
]


@pytest.mark.parametrize(
    ("request_", "chosen"),
    [
        ({}, "2026-11-03T02:30:00"),
        ({"archive": "sites-2026-11-01T02:30:00"}, "2026-11-01T02:30:00"),
        ({"before": "2026-11-02"}, "2026-11-02T02:30:00"),
        ({"before": "2026-11-02T02:00"}, "2026-11-01T02:30:00"),
        ({"before": "2026-11-02T02:30:00Z"}, "2026-11-02T02:30:00"),
        ({"before": backup.seconds_of("2026-11-02T02:29:59")}, "2026-11-01T02:30:00"),
        ({"after": "2026-11-02", "before": "2026-11-02"}, "2026-11-02T02:30:00"),
    ],
)
def test_the_archive_that_is_meant_is_found(request_, chosen):
    assert restore.choose(ARCHIVES, {"service": "sites", **request_}) == f"sites-{chosen}"


@pytest.mark.parametrize("request_", [{"archive": "sites-2026"}, {"before": "2026-10-01"}, {"after": "2026-11-04"}])
def test_an_archive_that_is_not_there_is_refused(request_):
    with pytest.raises(BackupError, match="archive_absent") as problem:
        restore.choose(ARCHIVES, {"service": "sites", **request_})
    assert problem.value.status == 2


@pytest.mark.parametrize("asked", [[], {"to": 3}, {"servce": "web"}, {"over": "yes"}, {"paths": "/srv"}])
def test_a_request_that_means_nothing_is_refused(asked):
    with pytest.raises(BackupError, match="bad_request"):
        restore.checked(asked)


def test_a_time_that_is_none_is_refused():
    with pytest.raises(BackupError, match="bad_request"):
        restore.choose(ARCHIVES, {"service": "sites", "before": "yesterday"})


class Host:
    """A host whose folders are the test's, with one archive made of them."""

    def __init__(self, tmp_path, monkeypatch):
        self.root = tmp_path
        self.data, self.etc = tmp_path / "srv/members", tmp_path / "etc"
        for name in ("velo/www/index.php", "velo/www/img/a.png", "jardin/www/index.php"):
            (self.data / name).parent.mkdir(parents=True, exist_ok=True)
            (self.data / name).write_text(f"{name} as it was")
        self.etc.mkdir()
        (self.etc / "passwd").write_text("root")
        monkeypatch.setattr(backup, "WORK", tmp_path / "work")
        monkeypatch.setattr(restore, "WORK", tmp_path / "work")
        self.server = Server()
        monkeypatch.setattr(dumps, "Server", lambda: self.server)
        monkeypatch.setattr(restore, "_drop", lambda name: self.server.databases.pop(name, None))
        monkeypatch.setattr(Repository, "archives", lambda _self, _service=None: ARCHIVES)
        monkeypatch.setattr(Repository, "extract", self.extract)
        monkeypatch.setattr(restore, "MARIADB", str(tmp_path))
        self.service = Service(
            "sites",
            paths=(str(self.data),),
            reference=(str(self.etc),),
            databases=("*",),
            restored=(("touch", str(tmp_path / "restored-command")),),
        )
        self.settings = Settings(
            "web", ("/repo",), {"sites": self.service}, "ssh", restored=str(tmp_path / "srv/restored")
        )
        backup.prepare(self.settings, self.service)
        self.archive = tmp_path / "archive"
        for path in (self.data, self.etc, self.service.folder):
            shutil.copytree(path, self.archive / str(path).lstrip("/"), symlinks=True)
        self.breaks_at = ""

    def extract(self, _archive, paths, to):
        """Stand in for borg: a method of no object, as it is put on the class."""
        for path in paths:
            if self.breaks_at and self.breaks_at in path:
                raise BackupError("repository_damaged")
            source, target = self.archive / path.lstrip("/"), Path(to) / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            elif source.exists():
                shutil.copy2(source, target)

    def restore(self, **request):
        return restore.restore(self.settings, {"service": "sites", **request})

    def refusal(self, **request):
        with pytest.raises(BackupError) as problem:
            self.restore(**request)
        assert problem.value.status == 2
        return problem.value.answer()

    def text(self, name):
        return (self.data / name).read_text()

    def left(self):
        """Return what stands in the folder of restores, and what the journal says."""
        folder = Path(self.settings.restored)
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        return names, restore.Journal().steps


class Server:
    """A server whose databases are words."""

    def __init__(self):
        self.databases = {"velo": "as it was"}
        self.fails = False

    def names(self, patterns=("*",)):
        return [name for name in self.databases if "*" in patterns or name in patterns]

    def dump(self, name, folder):
        Path(folder, f"{name}.sql").write_text(self.databases[name])
        return {"name": name, "file": f"{name}.sql", "bytes": 9, "tables": {}, "objects": {}}

    def dump_users(self, path):
        Path(path).write_text("users as they were")

    def load_users(self, path):
        self.users = Path(path).read_text()

    def load(self, path, about, name=None, *, replace=False):
        name = name or about["name"]
        assert replace or name not in self.databases
        self.databases.pop(name, None)
        if self.fails:
            self.fails = False
            raise dumps.DumpError("load_failed", "broken")
        self.databases[name] = Path(path).read_text()


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = Host(tmp_path, monkeypatch)
    monkeypatch.setattr(Repository, "extract", lambda _self, *words: host.extract(*words))
    return host


def test_everything_comes_back_beside_and_nothing_living_is_touched(host):
    (host.data / "velo/www/index.php").write_text("hacked")
    host.server.databases["velo"] = "hacked"
    answer = host.restore()
    assert (answer["files"], answer["replaced"]) == (4, [])
    assert (Path(answer["to"] + str(host.data)) / "velo/www/index.php").read_text() == "velo/www/index.php as it was"
    assert Path(answer["to"] + str(host.etc), "passwd").exists(), "what is kept to look things up comes, too"
    assert host.text("velo/www/index.php") == "hacked"
    beside = answer["databases"]["velo"]
    assert beside.startswith("velo_")
    assert host.server.databases == {"velo": "hacked", beside: "as it was"}
    assert host.left() == ([Path(answer["to"]).name], [])


def test_one_site_comes_back_without_the_databases_that_were_not_asked_for(host):
    answer = host.restore(paths=[f"{host.data}/velo/www"], to=str(host.root / "desk"))
    assert (answer["files"], answer["databases"]) == (2, {})
    assert not (host.root / f"desk{host.data}/jardin").exists()
    answer = host.restore(databases=["velo"])
    assert (answer["files"], list(answer["databases"])) == (0, ["velo"])


def test_over_the_living_what_stood_there_is_moved_aside(host):
    (host.data / "velo/www/index.php").write_text("hacked")
    (host.data / "velo/www/new.php").write_text("shell")
    host.server.databases["velo"] = "hacked"
    answer = host.restore(over=True)
    assert host.text("velo/www/index.php") == "velo/www/index.php as it was"
    assert not (host.data / "velo/www/new.php").exists()
    assert (host.server.databases, host.server.users) == ({"velo": "as it was"}, "users as they were")
    aside = dict(answer["replaced"])
    assert Path(aside[str(host.data)], "velo/www/new.php").read_text() == "shell"
    assert Path(aside["velo"]).read_text() == "hacked"
    assert (host.etc / "passwd").read_text() == "root"
    assert str(host.etc) not in aside, "roles write /etc: it is never laid over"
    assert (host.root / "restored-command").exists()
    names, steps = host.left()
    assert [name.startswith("replaced-") for name in names] == [True]
    assert steps == []


def test_what_roles_write_on_this_host_is_not_laid_over(host, monkeypatch):
    monkeypatch.setattr(Server, "look", lambda _self, _name: {"tables": {}, "objects": {}}, raising=False)
    ours = host.data / "velo/www/index.php"
    trees = host.root / "trees"
    (trees / "sites").mkdir(parents=True)
    (trees / "sites/memory.json").write_text(json.dumps({"files": {str(ours): {}, "/elsewhere": {}}}))
    monkeypatch.setattr(restore, "TREES", str(trees))
    ours.write_text("this host's own")
    ours.chmod(0o640)
    host.restore(over=True)
    assert ours.read_text() == "this host's own"
    assert ours.stat().st_mode & 0o777 == 0o640
    assert host.text("jardin/www/index.php") == "jardin/www/index.php as it was"
    assert compared(host) == []


def test_what_is_gone_comes_back_with_the_folders_above_it(host):
    (host.data / "velo").chmod(0o750)
    backup.prepare(host.settings, host.service)
    shutil.copytree(host.service.folder, host.archive / str(host.service.folder).lstrip("/"), dirs_exist_ok=True)
    shutil.rmtree(host.data / "velo")
    host.restore(over=True, paths=[f"{host.data}/velo/www/img/a.png"])
    assert host.text("velo/www/img/a.png") == "velo/www/img/a.png as it was"
    assert (host.data / "velo").stat().st_mode & 0o777 == 0o750
    assert sorted(path.name for path in (host.data / "velo/www").iterdir()) == ["img"]


def test_what_cannot_be_is_refused_before_anything_is_written(host):
    (host.root / "full").mkdir()
    (host.root / "full/x").touch()
    refusals = [
        host.refusal(paths=["/usr/bin/python3"]),
        host.refusal(paths=[f"{host.data}/../../etc"]),
        host.refusal(paths=[f"{host.data}x"]),
        host.refusal(paths=["srv/members"]),
        host.refusal(paths=[f"{host.data}/none"]),
        host.refusal(paths=[str(host.etc)], over=True),
        host.refusal(databases=["none"]),
        host.refusal(databases={"velo": "velo"}),
        host.refusal(databases={"velo": "mysql"}),
        host.refusal(to=str(host.root / "full")),
        host.refusal(to=str(host.root / "new"), over=True),
    ]
    assert [refusal["code"] for refusal in refusals] == [
        *["outside_sources"] * 4,
        "path_absent",
        "reference_only",
        "database_absent",
        "database_exists",
        "bad_request",
        "not_empty",
        "bad_request",
    ]
    assert host.left() == ([], [])


def test_too_little_space_is_said_before_anything_is_written(host, monkeypatch):
    real = os.statvfs

    def nearly_full(path):
        return os.statvfs_result([*real(path)[:4], 0, *real(path)[5:]])

    monkeypatch.setattr(restore.os, "statvfs", nearly_full)
    refusal = host.refusal()
    assert (refusal["code"], refusal["free"]) == ("no_space", 0)
    assert refusal["needed"] > 0
    assert host.left() == ([], [])


def test_a_look_says_what_would_be_done_and_writes_nothing(host):
    answer = host.restore(look=True, over=True)
    assert (answer["files"], answer["databases"]) == (3, {"velo": "velo"})
    assert host.left() == ([], [])


@pytest.mark.parametrize("request_", [{}, {"over": True}], ids=["beside", "over"])
@pytest.mark.parametrize("fault", ["files", "dumps", "database"])
def test_what_fails_in_the_middle_leaves_everything_as_it_was(host, request_, fault):
    (host.data / "velo/www/index.php").write_text("living")
    host.server.databases["velo"] = "living"
    host.breaks_at = {"files": "srv/members", "dumps": "dumps", "database": ""}[fault]
    host.server.fails = fault == "database"
    with pytest.raises(BackupError) as problem:
        host.restore(**request_)
    assert problem.value.code == ("load_failed" if fault == "database" else "repository_damaged")
    assert host.text("velo/www/index.php") == "living"
    assert host.server.databases["velo"] == "living"
    assert host.left()[1] == []
    host.breaks_at = ""
    assert host.restore(**request_)["undone"] == 0


@pytest.mark.parametrize("stop", ["_swap", "one_database", "last"])
def test_what_was_killed_is_undone_by_the_next(host, monkeypatch, stop):
    """A kill runs none of our code: the journal on the disk is all that is left."""
    (host.data / "velo/www/index.php").write_text("living")
    host.server.databases["velo"] = "living"
    original = getattr(restore._Over, stop)

    def killed(self, *words):
        original(self, *words)
        raise SystemExit

    with monkeypatch.context() as context:
        context.setattr(restore._Over, stop, killed)
        context.setattr(restore.Journal, "undo", lambda _self: 0)
        with pytest.raises(SystemExit):
            host.restore(over=True)
    assert restore.Journal().steps
    assert restore.Journal().undo() > 0
    assert host.text("velo/www/index.php") == "living"
    assert host.server.databases == {"velo": "living"}
    assert restore.Journal().steps == []
    assert not [name for name in host.left()[0] if name.startswith(".")]


def test_a_kill_between_the_two_halves_of_a_swap_is_undone(host):
    journal = restore.Journal()
    aside, scratch = host.root / "aside", host.root / "scratch"
    scratch.mkdir()
    (scratch / "new").touch()
    journal.about("swap", str(host.data), str(scratch / "new"), str(aside))
    host.data.rename(aside)
    restore.Journal().undo()
    assert host.text("velo/www/index.php") == "velo/www/index.php as it was"
    assert not aside.exists()


def compared(host, **request):
    answer = restore.compare(host.settings, {"service": "sites", **request})
    return [(one["code"], Path(one["what"]).name) for one in answer["findings"] if one["code"] != "canary_stale"]


def test_a_restore_is_compared_with_what_the_archive_says(host, monkeypatch):
    monkeypatch.setattr(Server, "look", lambda _self, _name: {"tables": {}, "objects": {}}, raising=False)
    to = host.restore()["to"]
    assert compared(host, to=to) == []
    broken = Path(to + str(host.data)) / "velo/www/index.php"
    stamp = broken.stat()
    broken.write_text(broken.read_text().upper())
    os.utime(broken, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert compared(host, to=to) == [("content", "index.php")]


def test_the_canary_belongs_to_its_archive(host):
    folder, header = host.service.folder, manifest.read_header(host.service.folder)
    today = backup.time.strftime(backup.STAMP, backup.time.gmtime())
    assert restore._canary(folder, header, f"sites-{today}") == []
    assert restore._canary(folder, header, "sites-2026-01-01T00:00:00")[0]["code"] == "canary_stale"
    (folder / "canary").write_text("{}")
    assert restore._canary(folder, header, f"sites-{today}")[0]["code"] == "canary_stale"


def test_counts_are_compared_one_by_one():
    found = restore.counted({"sites": 3, "odd": None, "rows": 7}, {"sites": 3, "odd": 1, "rows": 6})
    assert found == [manifest.finding("count", "rows", 7, 6)]


def test_over_the_living_no_link_of_a_member_is_followed(host):
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(host.data / "velo/www")
    (host.data / "velo/www").symlink_to(elsewhere)
    answer = host.refusal(over=True, paths=[f"{host.data}/velo/www/img"])
    assert (answer["code"], answer["leads"]) == ("through_link", str(elsewhere))
    assert list(elsewhere.iterdir()) == []
    assert host.restore(paths=[f"{host.data}/velo/www/img"])["files"] == 1, "beside nothing is in the way"


def test_what_the_archive_lacks_moves_nothing_living_away(host):
    shutil.rmtree(host.archive / str(host.data).lstrip("/") / "jardin")
    with pytest.raises(BackupError) as problem:
        host.restore(over=True, paths=[f"{host.data}/jardin"])
    assert problem.value.code == "path_absent"
    assert host.text("jardin/www/index.php") == "jardin/www/index.php as it was"


def test_what_was_known_to_be_wrong_is_found_wherever_it_comes_back():
    header = {"rotten": ["/a"], "unreadable": ["/b"], "databases": {"velo": {"broken": ["t"]}, "jardin": {}}}
    found = [(one["code"], one["what"]) for one in restore.known_to_lack(header)]
    assert found == [("rotten", "/a"), ("unreadable", "/b"), ("broken", "velo.t")]
