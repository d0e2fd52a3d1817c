# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of `systemd_units`, and its door with a recorded systemctl."""

from __future__ import annotations

import fnmatch
import json
import os
import time

import pytest
import systemd_units
from ansible.module_utils.hosting import units_door
from ansible.module_utils.hosting.units import (
    Plan,
    Seen,
    UnitsError,
    Wanted,
    full_name,
    parse_show,
    plan,
    refuse_impossible,
)
from ansible.module_utils.testing import patch_module_args
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from([f"php8.2@{name}.socket" for name in ("velo", "chorale", "amap", "radio")])
WANTED = st.dictionaries(NAMES, st.tuples(st.booleans(), st.booleans())).map(
    lambda units: [Wanted(name, *goal) for name, goal in units.items()]
)
SEEN = st.dictionaries(
    NAMES,
    st.tuples(st.sampled_from(["active", "inactive", "failed"]), st.sampled_from(["enabled", "disabled", "static"])),
).map(lambda units: {name: Seen(name, "loaded", active, file) for name, (active, file) in units.items()})


def carried_out(todo: Plan, seen: dict[str, Seen]) -> dict[str, Seen]:
    """What systemd would say after the plan."""
    after = {}
    for name in {*seen, *todo.enable, *todo.start}:
        state = seen.get(name, Seen(name, file_state="disabled"))
        active = "active" if name in todo.start else "inactive" if name in todo.stop else state.active
        file = "enabled" if name in todo.enable else "disabled" if name in todo.disable else state.file_state
        after[name] = Seen(name, "loaded", active, file)
    return after


@given(WANTED, SEEN)
def test_second_run_changes_nothing(wanted, seen):
    after = carried_out(plan(wanted, seen, seen), seen)
    assert not plan(wanted, after, after).changed


@given(WANTED, SEEN)
def test_after_the_plan_only_the_wanted_units_run(wanted, seen):
    after = carried_out(plan(wanted, seen, seen), seen)
    assert {name for name, state in after.items() if state.running} == {unit.name for unit in wanted if unit.started}


def test_a_unit_that_runs_is_left_alone():
    seen = {"haproxy.service": Seen("haproxy.service", "loaded", "active", "enabled")}
    assert not plan([Wanted("haproxy.service")], seen).changed


def test_a_static_unit_is_started_but_not_enabled():
    todo = plan([Wanted("a.service")], {"a.service": Seen("a.service", "loaded", "inactive", "static")})
    assert (todo.enable, todo.start) == ((), ("a.service",))


def test_surplus_is_stopped_and_disabled_and_shown():
    seen = {"php@old.socket": Seen("php@old.socket", "loaded", "active", "enabled")}
    todo = plan([], seen, ["php@old.socket"])
    assert (todo.stop, todo.disable) == (("php@old.socket",), ("php@old.socket",))
    assert todo.diff()["before"] == "php@old.socket: enabled, started\n"
    assert todo.diff()["after"] == "php@old.socket: disabled, stopped\n"


@pytest.mark.parametrize(
    ("load", "mend"),
    [("not-found", "check its name"), ("masked", "systemctl unmask"), ("bad-setting", "systemd-analyze verify")],
)
def test_impossible_units_are_refused_with_the_mend(load, mend):
    with pytest.raises(UnitsError, match=mend):
        refuse_impossible([Wanted("x.service")], {"x.service": Seen("x.service", load)})


def test_a_masked_unit_that_must_be_off_is_fine():
    refuse_impossible([Wanted("x.service", enabled=False, started=False)], {"x.service": Seen("x.service", "masked")})


@pytest.mark.parametrize(
    ("given_name", "full"),
    [("haproxy", "haproxy.service"), ("php8.2@velo", "php8.2@velo.service"), ("a.timer", "a.timer")],
)
def test_a_name_without_suffix_is_a_service(given_name, full):
    assert full_name(given_name) == full


def show(
    name, load="loaded", active="active", file="enabled", needs_reload="no", condition="yes", tried=12, triggers=""
):
    return (
        f"Id={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={file}\n"
        f"NeedDaemonReload={needs_reload}\nConditionResult={condition}\nConditionTimestampMonotonic={tried}\n"
        f"Triggers={triggers}\n"
    )


def test_show_is_read_block_by_block():
    first, second = parse_show(show("a.service") + "\n" + show("b.socket", active="inactive", needs_reload="yes"))
    assert first.running
    assert first.enabled
    assert (second.name, second.running, second.needs_reload) == ("b.socket", False, True)


class FakeSystemctl:
    """Answers `systemctl show` from a table that start, stop, enable and disable change; keeps the other calls."""

    def __init__(self, **units):
        self.units = {name.replace("__", "."): dict(state) for name, state in units.items()}
        self.calls = []
        self.shown = []
        self.without_reload = []
        self.loaded = None  # all of them, or a set
        self.read = 0  # when systemd was last told to read its files, in microseconds
        self.broken = set()

    def __call__(self, *argv):
        if argv[0] == "journalctl":
            return 0, "the last words\n", ""
        verb, names = argv[3], argv[argv.index("--") + 1 :] if "--" in argv else []
        if verb == "show" and not names:
            return 0, f"UnitsLoadStartTimestampMonotonic=1\nUnitsLoadTimestampMonotonic={self.read}\n", ""
        if verb == "list-units":
            found = [
                (name, unit)
                for glob in names
                for name, unit in self.units.items()
                if fnmatch.fnmatch(name, glob) and (self.loaded is None or name in self.loaded)
            ]
            return (
                0,
                "".join(f"{name} loaded {unit.get('active', 'active')} running Text\n" for name, unit in found),
                "",
            )
        if verb == "show":
            absent = {"load": "not-found", "active": "inactive", "file": "", "condition": "no", "tried": 0}
            found = [
                unit for name in names for unit in ([name] if "*" not in name else fnmatch.filter(self.units, name))
            ]
            self.shown += found
            return 0, "\n".join(show(name, **self.units.get(name, absent)) for name in found), ""
        self.calls.append((verb, *names))
        if verb == "start" and self.loaded is not None:
            self.loaded |= set(names)
        if verb == "daemon-reload":
            self.read = int((time.monotonic() + 60) * 1e6)
        self.without_reload += names if "--no-reload" in argv else []
        changes = {
            "start": {"active": "active"},
            "stop": {"active": "inactive"},
            "enable": {"file": "enabled"},
            "disable": {"file": "disabled"},
        }
        for name in names:
            if name in self.broken:
                self.units[name]["active"] = "failed"
                return 1, "", "Job failed."
            if self.units[name].get("condition") != "no":
                self.units[name].update(changes.get(verb, {}))
        return 0, "", ""


@pytest.fixture
def run(monkeypatch, capsys):
    def run(systemctl, *, check=False, **params):
        monkeypatch.setattr(units_door, "run", systemctl)
        with (
            patch_module_args({**params, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            systemd_units.main()
        return json.loads(capsys.readouterr().out)

    return run


OFF = {"active": "inactive", "file": "disabled"}


def test_the_door_enables_and_starts_in_one_call_each(run):
    systemctl = FakeSystemctl(a__service=OFF, b__socket=OFF)
    result = run(systemctl, units=[{"name": "a"}, {"name": "b.socket"}])
    assert result["changed"]
    assert ("enable", "a.service", "b.socket") in systemctl.calls
    assert ("start", "a.service", "b.socket") in systemctl.calls
    assert not run(systemctl, units=[{"name": "a"}, {"name": "b.socket"}])["changed"]


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The unit files of a host."""
    (tmp_path / "sockets.target.wants").mkdir()
    monkeypatch.setattr(units_door, "LINKS", tmp_path)
    monkeypatch.setattr(units_door, "UNIT_FILES", [tmp_path, tmp_path / "missing"])
    return tmp_path


def age(folder):
    """Make all unit files older than what systemd has read."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (0, 0), follow_symlinks=False)


ON = {"active": "active", "file": "enabled"}
POOLS = ["php8.2@a.socket", "php8.2@b.socket"]
SET = {"units": [{"name": name} for name in POOLS], "prune": ["php*@*.socket"], "watch": ["php*@*.service"]}


@pytest.fixture
def pools(folder):
    """A host on which both pools stand as wanted."""
    for name in POOLS:
        (folder / "sockets.target.wants" / name).symlink_to("/nowhere")
    age(folder)
    return FakeSystemctl(**dict.fromkeys(POOLS, ON))


def test_units_that_stand_as_wanted_are_counted_off_the_list(run, pools):
    assert not run(pools, **SET)["changed"]
    assert pools.shown == []


def test_where_files_are_newer_systemd_reads_them_once_and_is_not_asked_for_each_unit(run, pools, folder):
    (folder / "other.service").touch()
    first = run(pools, **SET)
    assert (first["changed"], first["reloaded"]) == (False, True)
    assert not run(pools, **SET)["reloaded"]
    assert (pools.calls, pools.shown) == ([("daemon-reload",)], [])


def test_where_files_are_newer_check_mode_asks_for_each_unit_once(run, pools, folder):
    (folder / "other.service").touch()
    assert not run(pools, check=True, **SET)["changed"]
    assert (pools.calls, sorted(pools.shown)) == ([], POOLS)


def test_of_units_that_are_not_loaded_one_of_each_template_is_asked_for(run, folder):
    names = ["php7.4@a.socket", *POOLS]
    age(folder)
    systemctl = FakeSystemctl(**dict.fromkeys(names, OFF))
    systemctl.loaded = set()
    result = run(systemctl, units=[{"name": name} for name in names], prune=SET["prune"])
    assert systemctl.shown == ["php7.4@a.socket", "php8.2@a.socket"]
    assert (result["enabled"], result["started"]) == (names, names)


def test_what_systemd_was_told_to_read_since_its_start_counts(run, pools, folder):
    (folder / "other.service").touch()
    pools.read = int((time.monotonic() + 60) * 1e6)
    run(pools, **SET)
    assert pools.shown == []


def test_a_file_newer_than_what_systemd_has_read_makes_it_asked(run, pools, folder):
    (folder / "php8.2@.socket").touch()
    assert run(pools, check=True, **SET)["reloaded"]
    assert pools.shown


@pytest.mark.parametrize("change", [{"active": "failed"}, {"file": "disabled"}])
def test_a_unit_that_does_not_stand_is_asked_for_and_mended(run, pools, folder, change):
    pools.units[POOLS[0]].update(change)
    if change.get("file"):
        (folder / "sockets.target.wants" / POOLS[0]).unlink()
        age(folder)
    result = run(pools, **SET)
    assert pools.shown[0] == POOLS[0]
    assert POOLS[1] not in pools.shown
    assert (result["enabled"] if change.get("file") else result["started"]) == [POOLS[0]]


def test_a_surplus_unit_is_found_on_the_list(run, pools):
    pools.units["php8.2@old.socket"] = dict(ON)
    result = run(pools, **SET)
    assert (result["stopped"], result["started"]) == (["php8.2@old.socket"], [])


def test_what_is_ours_alone_is_known_by_its_links_and_changes_without_a_daemon_reload(run, pools, folder):
    pools.units["a.service"] = dict(OFF)
    (folder / "sockets.target.wants" / POOLS[0]).unlink()
    more = {**SET, "units": [*SET["units"], {"name": "a"}]}
    result = run(pools, **more)  # systemd still believes that the link is there
    assert result["enabled"] == [POOLS[0], "a.service"]
    assert pools.without_reload == [POOLS[0]]


def test_only_a_unit_that_failed_is_told_to_forget_it(run):
    systemctl = FakeSystemctl(a__service={**OFF, "active": "failed"}, b__service=OFF)
    run(systemctl, units=[{"name": "a"}, {"name": "b"}])
    assert ("reset-failed", "a.service") in systemctl.calls


def test_check_mode_calls_nothing_and_a_missing_unit_would_start(run):
    systemctl = FakeSystemctl(a__service=OFF)
    result = run(systemctl, check=True, units=[{"name": "a"}, {"name": "later"}])
    assert systemctl.calls == []
    assert result["started"] == ["a.service", "later.service"]
    assert "later.service: absent" in result["diff"]["before"]


def test_a_missing_unit_fails_outside_of_check_mode(run):
    result = run(FakeSystemctl(), units=[{"name": "nowhere"}])
    assert result["failed"]
    assert "nowhere.service does not exist on this host" in result["msg"]


def test_changed_unit_files_are_read_again_first(run):
    systemctl = FakeSystemctl(a__service={"needs_reload": "yes"})
    result = run(systemctl, units=[{"name": "a"}])
    assert systemctl.calls == [("daemon-reload",)]
    assert result["reloaded"]
    assert not result["changed"]


def test_a_failed_start_ends_with_the_journal(run):
    systemctl = FakeSystemctl(a__service=OFF)
    systemctl.broken.add("a.service")
    result = run(systemctl, units=[{"name": "a", "enabled": False}])
    assert result["failed"]
    assert "a.service did not start" in result["msg"]
    assert "the last words" in result["msg"]


@pytest.mark.parametrize("check", [True, False])
def test_a_unit_kept_off_by_its_own_conditions_is_no_change(run, check):
    systemctl = FakeSystemctl(clock__service={"active": "inactive", "condition": "no"})
    result = run(systemctl, check=check, units=[{"name": "clock"}])
    assert not result["changed"]
    assert result["skipped_units"] == ["clock.service"]


def test_the_service_behind_a_pruned_socket_stops_with_it(run, folder):
    age(folder)
    service = {"active": "active", "file": "static"}
    systemctl = FakeSystemctl(pool_old__socket={"triggers": "pool_old.service"}, pool_old__service=service)
    systemctl.units["pool_kept.socket"] = {"triggers": "pool_kept.service"}
    result = run(systemctl, units=[{"name": "pool_kept.socket"}], prune=["pool_*.socket"])
    assert result["stopped"] == ["pool_old.service", "pool_old.socket"]
    assert systemctl.calls[0] == ("stop", "pool_old.service", "pool_old.socket")


def test_surplus_can_be_left_to_a_later_task_by_name(run, folder):
    (folder / "sockets.target.wants/pool_kept.socket").symlink_to("/nowhere")
    age(folder)
    systemctl = FakeSystemctl(pool_old__socket={"triggers": "pool_old.service"}, pool_kept__socket={})
    systemctl.units["pool_old.service"] = {"active": "inactive", "file": "static"}
    units = [{"name": "pool_kept.socket"}]
    result = run(systemctl, units=units, prune=["pool_*.socket"], leave=True)
    assert (result["changed"], result["left"], systemctl.calls) == (False, ["pool_old.socket"], [])
    assert run(systemctl, units=units, prune=["pool_*.socket"])["left"] == []
    assert run(systemctl, units=units, prune=["pool_*.socket"], leave=True)["left"] == []
