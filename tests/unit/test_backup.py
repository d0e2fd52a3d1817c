# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import json
import time
from types import SimpleNamespace

import pytest

from hosting import backup, dumps
from hosting.backup import BackupError, Repository, Run, Service, Settings

NEWEST = 1_790_000_000
LOG = '{"type": "log_message", "message": "%s", "levelname": "%s", "name": "borg", "msgid": "%s"}'


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Give a host whose folders are the test's, with a service of files."""
    monkeypatch.setattr(backup, "WORK", tmp_path / "work")
    monkeypatch.setattr(backup, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(backup, "VERIFIED", tmp_path / "verified.json")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/page").write_text("hello")
    return tmp_path


def settings_of(*services, **more):
    cards = {service.service: service for service in services}
    return Settings("web", ("ssh://store/live",), cards, "ssh", **more)


def words(tmp_path, text):
    """Return a command that leaves a word in a file, to see what ran and in which order."""
    return ("sh", "-c", f"echo {text} >> {tmp_path}/said")


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        (LOG % ("no such repository", "ERROR", "Repository.DoesNotExist"), "repository_absent"),
        (LOG % ("wrong", "ERROR", "PassphraseWrong"), "key_wrong"),
        (LOG % ("closed", "ERROR", "ConnectionClosedWithHint"), "store_unreachable"),
        (LOG % ("Remote: Permission denied (publickey).", "WARNING", ""), "store_refused"),
        (
            LOG % ("Remote: Host key verification failed.", "INFO", "")
            + "\n"
            + LOG % ("closed", "ERROR", "ConnectionClosed"),
            "store_key_changed",
        ),
        (LOG % ("[Errno 28] No space left on device", "ERROR", ""), "store_full"),
        (LOG % ("odd", "ERROR", "Something.New"), "borg_failed"),
        ("no JSON at all", "borg_failed"),
        ("", "borg_failed"),
    ],
)
def test_what_borg_says_becomes_a_code(errors, code):
    assert backup.trouble(errors)["code"] == code


def test_an_unknown_trouble_keeps_the_words():
    assert backup.trouble(LOG % ("odd", "ERROR", "Something.New"))["says"] == "odd"
    assert backup.trouble("no JSON at all")["says"] == "no JSON at all"


def test_patterns_stay_within_a_name_and_fit_hidden_names(tmp_path):
    for path in ("a/tmp/.hidden", "a/tmp/x/deep", "b/tmp/y", "b/keep/z"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = backup.matching([f"{tmp_path}/*/tmp/*", f"{tmp_path}/none/*"])
    assert found == [f"{tmp_path}/{path}" for path in ("a/tmp/.hidden", "a/tmp/x", "b/tmp/y")]


def test_databases_are_found_by_pattern_and_a_named_one_that_is_gone_is_said():
    assert backup.resolve(["*"], {"b", "a"}) == (["a", "b"], [])
    assert backup.resolve(["velo_*", "gone"], {"velo_1", "velo", "x"}) == (["velo_1"], ["gone"])


def test_archives_are_those_of_their_service_and_no_interrupted_ones(monkeypatch):
    names = ["web-2026-11-02T04:00:00", "web-2026-11-01T04:00:00", "web-2026-11-03T04:00:00.checkpoint", "odd"]
    names.append("web-2-2026-11-01T04:00:00")
    listed = {"archives": [{"name": name, "start": name[-19:] + ".000000"} for name in names]}
    monkeypatch.setattr(Repository, "borg", lambda *_words, **_how: json.dumps(listed))
    found = Repository(settings_of(), "ssh://store/live").archives("web")
    assert [one["archive"] for one in found] == ["web-2026-11-01T04:00:00", "web-2026-11-02T04:00:00"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("backup-web@store: Permission denied (publickey).", "store_refused"),
        ("Host key verification failed.", "store_key_changed"),
        ("ssh: connect to host store port 2222: No route to host", "store_unreachable"),
    ],
)
def test_ssh_is_asked_why_a_store_does_not_answer(monkeypatch, said, code):
    lines = []

    def run(line, **_how):
        lines.append(line)
        stderr = said if line[0] == "ssh" else LOG % ("closed", "ERROR", "ConnectionClosedWithHint")
        return type("Done", (), {"returncode": 2, "stdout": "", "stderr": stderr})

    monkeypatch.setattr(backup.subprocess, "run", run)
    with pytest.raises(BackupError) as problem:
        Repository(settings_of(), "ssh://backup-web@store:2222/live").borg("list")
    assert problem.value.code == code
    assert lines[1] == ["ssh", "-p", "2222", "-n", "backup-web@store", "true"]


@pytest.mark.parametrize("bypass", [False, True])
def test_what_is_only_read_takes_no_lock_and_leaves_the_own_memory_alone(monkeypatch, bypass):
    seen = []

    def run(line, env, **_how):
        seen.append((line, env["BORG_BASE_DIR"]))
        return type("Done", (), {"returncode": 0, "stdout": "{}", "stderr": ""})

    monkeypatch.setattr(backup.subprocess, "run", run)
    Repository(settings_of(bypass_lock=bypass), "ssh://store/live").borg("list")
    Repository(settings_of(bypass_lock=bypass), "/srv/generation").borg("list")
    (own, base), (other, elsewhere) = seen
    assert ("--bypass-lock" in own, "--bypass-lock" in other) == (bypass, True)
    assert base != elsewhere
    assert base.endswith("/borg") is not bypass


def test_before_a_copy_commands_run_and_the_manifest_says_what_it_must_hold(world):
    service = Service(
        "pages",
        paths=(f"{world}/data",),
        before=(words(world, "before"),),
        after=(words(world, "after"),),
        counts=(
            {"name": "pages", "command": ["sh", "-c", f"ls {world}/data | wc -l"]},
            {"name": "odd", "command": ["false"]},
        ),
    )
    header = backup.prepare(settings_of(service), service)
    assert (world / "said").read_text() == "before\n"
    assert header["sources"][f"{world}/data"]["files"] == 1
    assert header["counts"] == {"pages": 1, "odd": None}
    assert abs(header["canary"]["made"] - time.time()) < 60
    backup.finish(service)
    backup.finish(service)
    assert (world / "said").read_text() == "before\nafter\n", "what was owed is done once"


def test_what_a_killed_run_owed_is_done_before_the_next(world):
    service = Service("pages", before=(words(world, "before"),), after=(words(world, "after"),))
    backup.prepare(settings_of(service), service)
    backup.prepare(settings_of(service), service)
    assert (world / "said").read_text().split() == ["before", "after", "before"]


def test_a_path_that_is_not_there_fails_the_backup_and_the_service_is_taken_back(world):
    service = Service("pages", paths=(f"{world}/gone",), after=(words(world, "after"),))
    with pytest.raises(BackupError) as problem:
        backup.prepare(settings_of(service), service)
    assert problem.value.answer() == {"code": "source_absent", "paths": [f"{world}/gone"]}
    backup.finish(service)
    assert (world / "said").read_text() == "after\n"


def test_each_command_after_the_copy_gets_its_turn(world):
    service = Service("pages", after=(("false",), words(world, "after")))
    backup.prepare(settings_of(service), service)
    with pytest.raises(BackupError, match="after_failed"):
        backup.finish(service)
    assert (world / "said").read_text() == "after\n"


@pytest.mark.usefixtures("world")
def test_a_database_that_is_dropped_meanwhile_is_said_and_the_others_are_dumped(monkeypatch):
    class Server:
        def names(self):
            return ["gone", "velo"]

        def dump(self, name, _folder):
            if name == "gone":
                raise dumps.DatabaseGoneError(name)
            return {"name": name}

    monkeypatch.setattr(dumps, "Server", Server)
    service = Service("data", databases=("gone", "velo", "never"))
    header = backup.prepare(settings_of(service), service)
    assert header["databases"] == {"velo": {"name": "velo"}}
    assert header["databases_gone"] == ["gone", "never"]


@pytest.mark.usefixtures("world")
def test_two_at_once_are_refused():
    with backup.alone(), pytest.raises(BackupError, match="busy") as problem, backup.alone():
        pass
    assert problem.value.status == 2
    with backup.alone():
        pass


ARCHIVE = {
    "archive": {
        "name": "pages-2026-11-23T04:00:00",
        "stats": {"nfiles": 3, "original_size": 10, "deduplicated_size": 1},
    }
}


@pytest.fixture
def runs(world, monkeypatch):  # noqa: ARG001  the folders are set
    """Give a function that makes a run over a store and a borgmatic that are told what to do."""

    def go(*names, archives=(), list_trouble="", failing=(), anew=False, known=None):
        made = []

        def borg(_repository, command, *_words, **_how):
            made.append(command)
            if command == "list" and list_trouble:
                raise BackupError(list_trouble)
            return json.dumps({"archives": [{"name": name, "start": name[-19:]} for name in archives]})

        def borgmatic(line, **_how):
            bad = line[2].split("/")[-1].removesuffix(".yaml") in failing
            out = "" if bad else f"before\n[{json.dumps(ARCHIVE)}]"
            return type(
                "Done", (), {"returncode": int(bad), "stdout": out, "stderr": LOG % ("", "ERROR", "PassphraseWrong")}
            )

        monkeypatch.setattr(Repository, "borg", borg)
        monkeypatch.setattr(backup.subprocess, "run", borgmatic)
        if known is not None:
            backup.write_json(backup.state_file(), known)
        settings = settings_of(Service("first"), Service("pages"))
        return made, Run(settings).go(names, anew)["services"]

    return go


def test_a_run_makes_the_repository_and_every_service_gets_its_turn(runs):
    made, answer = runs(list_trouble="repository_absent", failing=["first"])
    assert made == ["list", "init"]
    assert answer["first"]["ok"] is False
    assert answer["first"]["error"] == {"code": "key_wrong"}
    assert (answer["pages"]["ok"], answer["pages"]["files"], answer["pages"]["bytes"]) == (True, 3, 10)


def test_a_failed_backup_does_not_forget_the_last_good_one(runs):
    known = {"services": {"first": {"archive": "a", "good": 5, "files": 1, "bytes": 2}}, "repositories": []}
    _made, answer = runs("first", failing=["first"], known=known)
    assert (answer["first"]["archive"], answer["first"]["good"], answer["first"]["ok"]) == ("a", 5, False)


def test_a_repository_that_vanished_is_not_made_anew_unless_that_is_said(runs):
    known = {"repositories": ["ssh://store/live"]}
    with pytest.raises(BackupError) as problem:
        runs(list_trouble="repository_absent", known=known)
    assert (problem.value.code, problem.value.status) == ("repository_gone", 2)
    assert runs(list_trouble="repository_absent", known=known, anew=True)[0] == ["list", "init"]


@pytest.mark.parametrize(
    "after",
    [{"known": {"services": {"first": {"good": 9_999_999_999}}}}, {"archives": ["first-2286-11-20T17:46:39"]}],
    ids=["by what is remembered", "by the store"],
)
def test_a_clock_before_the_last_backup_is_refused(runs, after):
    with pytest.raises(BackupError) as problem:
        runs(**after)
    assert (problem.value.code, problem.value.status) == ("clock_behind", 2)


def test_a_person_who_has_looked_accepts_what_is_dated_in_the_future(runs, world):  # noqa: ARG001  the folders are set
    future = ["first-2286-11-20T17:46:39"]
    with pytest.raises(BackupError, match="clock_behind"):
        runs(archives=future)
    memory = backup.WORK / "borg/security"
    memory.mkdir(parents=True)
    assert backup.accept(settings_of(Service("first"))) == {"accepted": 9_999_999_999}
    assert not memory.exists(), "borg remembers nothing of a younger repository"
    assert runs(archives=future)[1]["first"]["ok"]
    with pytest.raises(BackupError, match="clock_behind"):
        runs(archives=["first-2286-11-21T17:46:39"])


@pytest.mark.usefixtures("world")
def test_a_store_that_cannot_be_reached_stops_nothing_and_is_remembered(runs):
    with pytest.raises(BackupError, match="store_unreachable"):
        runs(list_trouble="store_unreachable")
    assert backup.read_json(backup.state_file())["error"]["code"] == "store_unreachable"
    runs()
    assert backup.read_json(backup.state_file())["error"] is None


@pytest.mark.usefixtures("world")
def test_who_only_reads_makes_no_backup():
    with pytest.raises(BackupError, match="read_only"):
        Run(settings_of(bypass_lock=True)).go([], anew=False)


def test_what_is_wrong_is_said_with_its_age():
    settings = settings_of(Service("good"), Service("old"), Service("bad"), Service("new"), fresh_hours=26)
    now = 1_000_000.0
    state = {
        "error": None,
        "services": {
            "good": {"good": now - 3600, "error": None},
            "old": {"good": now - 30 * 3600, "error": None},
            "bad": {"good": now - 3600, "error": {"code": "key_wrong"}},
        },
    }
    assert backup.findings(settings, state, now - 3600, now) == [
        {"service": "old", "code": "late", "hours": 30},
        {"service": "bad", "code": "key_wrong"},
    ]
    assert backup.findings(settings, state, now - 27 * 3600, now)[-1] == {
        "service": "new",
        "code": "never",
        "hours": 27,
    }


@pytest.mark.usefixtures("world")
def test_of_two_verified_backups_of_a_member_the_newer_counts():
    old = {"velo": {"taken": 10, "holds": {"domains": 1}}, "asso": {"taken": 10, "holds": {}}}
    assert backup.remember_verified(old, now=100) == {"verified": 2}
    assert backup.remember_verified({"velo": {"taken": 5, "holds": {}}}, now=100) == {"verified": 0}
    assert backup.remember_verified({"velo": {"taken": 20, "holds": {"domains": 2}}}, now=100) == {"verified": 1}
    kept = json.loads(backup.VERIFIED.read_text())
    assert kept == {"velo": {"taken": 20, "holds": {"domains": 2}}, "asso": {"taken": 10, "holds": {}}}


@pytest.mark.parametrize(
    "record", [[], {}, {"velo": {"taken": "now", "holds": {}}}, {"velo": {"taken": 10**6, "holds": {}}}]
)
@pytest.mark.usefixtures("world")
def test_a_verified_record_that_cannot_be_is_refused(record):
    with pytest.raises(BackupError, match="bad_request"):
        backup.remember_verified(record, now=100)
    assert not backup.VERIFIED.exists()


@pytest.mark.parametrize(("status", "warnings", "fails"), [(0, False, False), (1, True, False), (1, False, True)])
def test_what_borg_only_warns_of_ends_a_restore(monkeypatch, status, warnings, fails):
    done = SimpleNamespace(returncode=status, stdout="", stderr=json.dumps({"levelname": "WARNING", "message": "full"}))
    monkeypatch.setattr(backup.subprocess, "run", lambda *_words, **_more: done)
    repository = Repository(settings_of(), "/repo")
    if fails:
        with pytest.raises(BackupError, match="borg_failed"):
            repository.borg("extract", warnings=warnings)
    else:
        assert repository.borg("extract", warnings=warnings) == ""
