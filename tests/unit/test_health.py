# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import copy
import gettext
import json
import os
import time

import host_health
import pytest
from ansible.module_utils.testing import patch_module_args
from host_tree_world import World

from hosting import findings, health
from hosting.tree_model import Validation

SYSTEMCTL = {
    "list-units": "php8.2@velo.service loaded failed failed PHP 8.2 of velo\ncertbot.timer loaded failed failed x\n",
    "show-units": (
        "Id=haproxy.service\nNames=haproxy.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\n"
        "Id=mariadb.service\nNames=mysql.service mariadb.service\nLoadState=loaded\nActiveState=failed\n\n"
        "Id=gone.service\nNames=gone.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n"
    ),
    "show-slices": (
        "Id=members-velo.slice\nMemoryCurrent=480000000\nMemoryMax=512000000\nTasksCurrent=3\nTasksMax=64\n\n"
        "Id=members-bourg.slice\nMemoryCurrent=1000\nMemoryMax=infinity\nTasksCurrent=1\nTasksMax=18446744073709551615\n"
    ),
}
APT = """NOTE: This is only a simulation!
Inst openssl [3.0.16-1] (3.0.17-1~deb12u2 Debian-Security:12/stable-security [amd64])
Inst tzdata [2025a] (2025b-0+deb12u1 Debian:12.11/stable [all])
Inst libssl3 [3.0.16-1] (3.0.17-1~deb12u2 Debian:12.11/stable, Debian-Security:12/stable-security [amd64])
Conf openssl (3.0.17-1~deb12u2 Debian-Security:12/stable-security [amd64])
"""
CHRONY = "A29FC801,time.test,3,1763.1,-0.000012,0.00001,0.00002,-12.1,0.0,0.01,0.01,0.001,64.2,"


# What masters said on a bench while PHP was abused, as `journalctl --output json` gives it.
JOURNAL = "\n".join(
    json.dumps({"_SYSTEMD_UNIT": unit, "MESSAGE": f"[22-Nov-2026 09:56:44] {message}", "__CURSOR": "s=1"})
    for unit, message in [
        (
            "php7.4@velo.service",
            "WARNING: [pool velo] child 70 exited on signal 9 (SIGKILL) after 1.4 seconds from start",
        ),
        (
            "php8.2@velo.service",
            "WARNING: [pool velo] child 71 exited on signal 9 (SIGKILL) after 3.4 seconds from start",
        ),
        (
            "php8.2@velo.service",
            "WARNING: [pool velo] child 72 exited on signal 15 (SIGTERM) after 3 seconds from start",
        ),
        ("php8.2@velo.service", "ERROR: fork() failed: Resource temporarily unavailable (11)"),
        (
            "php8.4@jardin.service",
            "WARNING: [pool jardin] server reached max_children setting (5), consider raising it",
        ),
    ]
)


def fake_run(answers):
    def run(command):
        words = " ".join(command)
        for part, answer in answers.items():
            if part in words:
                return answer
        return 127, "not found"

    return run


ANSWERS = {
    "systemctl list-units": (0, SYSTEMCTL["list-units"]),
    "MemoryCurrent": (0, SYSTEMCTL["show-slices"]),
    "journalctl": (0, JOURNAL),
    "ActiveState": (0, SYSTEMCTL["show-units"]),
    "apt-get": (0, APT),
    "chronyc": (0, CHRONY + "Normal"),
    "mariadb-admin": (0, "mysqld is alive"),
}


@pytest.fixture
def root(tmp_path):
    """The files of a host."""
    texts = {
        "proc/self/mounts": "/dev/vda / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n/dev/vdb /gone xfs rw 0 0\n",
        "proc/meminfo": "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    250 kB\n",
        "proc/pressure/memory": "some avg10=9.00 avg60=9.00 total=1\nfull avg10=9.00 avg60=31.50 total=1\n",
        "proc/sys/fs/file-nr": "950\t0\t1000\n",
        "proc/stat": f"cpu 1 2 3\nbtime {int(time.time()) - 3600}\n",
        "proc/net/tcp": (
            "  sl  local_address rem_address   st tx_queue\n"
            "   0: 00000000:0016 00000000:0000 0A 0\n"
            "   1: 0100007F:0CEA 00000000:0000 0A 0\n"
            "   2: 0A00000A:01BB 00000000:0000 0A 0\n"
            "   3: 0A00000A:D431 0100000A:0016 01 0\n"
        ),
        "proc/net/tcp6": (
            "  sl  local_address rem_address st\n"
            "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0\n"
            "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0\n"
            "   2: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 0\n"
        ),
        "var/lib/apt/lists/x_InRelease": "",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_reading(root):
    os.utime(root / "var/lib/apt/lists/x_InRelease", (time.time() - 5 * 86400,) * 2)
    seen = health.read(
        units=["haproxy", "mysql.service", "gone.service", "never.timer"],
        commands=[["mariadb-admin", "ping"], ["absent"]],
        slices="members-*.slice",
        control_time=time.time() - 2,
        run=fake_run(ANSWERS),
        root=root,
    )
    assert seen["failed_units"] == ["certbot.timer", "php8.2@velo.service"]
    assert seen["units"] == {
        "haproxy.service": "active",
        "mysql.service": "failed",
        "gone.service": "not-found",
        "never.timer": "not-found",
    }
    assert seen["commands"] == [{"status": 0, "output": "mysqld is alive"}, {"status": 127, "output": "not found"}]
    assert seen["clock"] == {"synchronised": True, "offset": -0.000012, "drift": pytest.approx(2, abs=0.3)}
    assert [disk["mount"] for disk in seen["disks"]] == ["/"]
    assert seen["memory"] == {"percent": 75, "pressure": 32}
    assert seen["upgrades"] == {"security": ["libssl3", "openssl"], "reason": "", "days": 5.0}
    assert seen["accounts"] == [
        {"slice": "members-bourg.slice", "memory": None, "tasks": None, "hits": health.NO_HITS},
        {
            "slice": "members-jardin.slice",
            "memory": None,
            "tasks": None,
            "hits": {"killed": 0, "refused": 0, "full": 1},
        },
        {"slice": "members-velo.slice", "memory": 94, "tasks": 5, "hits": {"killed": 2, "refused": 1, "full": 0}},
    ]
    assert seen["files"] == 95
    assert seen["listening"] == [22, 80, 443]
    assert seen["reboot"] is False
    json.dumps(seen)


def test_clock_without_a_source(root):
    assert (
        health.read(run=fake_run({"chronyc": (0, CHRONY + "Not synchronised")}), root=root)["clock"]["synchronised"]
        is False
    )
    assert health.read(run=fake_run({"timedatectl": (0, "yes\n")}), root=root)["clock"]["synchronised"] is True
    assert health.read(run=fake_run({}), root=root)["clock"]["synchronised"] is False


def test_a_container_has_no_clock_and_no_kernel_of_its_own(root):
    (root / "run/systemd").mkdir(parents=True)
    (root / "run/systemd/container").write_text("podman")
    (root / "run/reboot-required").write_text("")
    seen = health.read(run=fake_run({}), root=root)
    assert (seen["clock"]["synchronised"], seen["reboot"]) == (None, False)


def test_a_new_kernel_waits_for_a_reboot(root):
    (root / "boot").mkdir()
    (root / "boot/vmlinuz-6.1.0-40-amd64").write_text("")
    assert health.read(run=fake_run({}), root=root)["reboot"] is True


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((124, "timeout"), "timeout"),
        ((100, "Reading package lists...\nE: Unmet dependencies.\n"), "E: Unmet dependencies."),
        ((100, APT), APT.splitlines()[-1]),
        ((1, ""), "1"),
    ],
)
def test_an_apt_that_fails_does_not_say_that_nothing_waits(root, answer, reason):
    seen = health.read(run=fake_run({**ANSWERS, "apt-get": answer}), root=root)["upgrades"]
    assert (seen["security"], seen["reason"]) == (None, reason)
    assert "upgrades.unknown" in {one.code for one in health.judge({**WELL, "upgrades": seen})}


def test_a_command_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(health, "COMMAND_SECONDS", 0.1)
    assert health.run_command(["sleep", "5"]) == (124, "timeout")
    monkeypatch.setitem(health.SLOW_COMMANDS, "sleep", 5.0)
    assert health.run_command(["sleep", "0.3"]) == (0, "")
    assert health.run_command(["/does/not/exist"])[0] == 127


def test_files_in_quarantine_are_read_from_the_memory_of_the_trees(tmp_path):
    assert health.quarantined(tmp_path) == []
    world = World(tmp_path)
    world.trees = str(tmp_path / "var/lib/infini/trees")
    refused = Validation(("**",), ("sh", "-c", f"grep -Hn bad {world.path('*')} && exit 1 || true"), quarantine=True)
    world.apply({"velo.test.conf": "bad"}, validations=(refused,))
    path = world.path("velo.test.conf")
    seen = health.quarantined(tmp_path)
    assert seen == [{"name": "velo.test", "path": path, "reason": f"{path}:1:bad"}]
    (found,) = [one for one in health.judge({**WELL, "quarantined": seen}) if one.code == "quarantine.refused"]
    said = findings.says(findings.check_of("web", found, {}), gettext.NullTranslations())
    assert said == f"The settings of velo.test are refused on web, {path} stands as before: {path}:1:bad"


WELL = {
    "failed_units": [],
    "units": {"haproxy.service": "active", "apache2.service": "inactive"},
    "clock": {"synchronised": True, "offset": 0.0, "drift": 0.4},
    "disks": [{"mount": "/", "percent": 40, "inodes": 3, "free_gb": 70}],
    "memory": {"percent": 30, "pressure": 0},
    "upgrades": {"security": [], "reason": "", "days": 0.2},
    "reboot": False,
    "accounts": [{"slice": "members-velo.slice", "memory": 40, "tasks": None, "hits": health.NO_HITS}],
    "files": 2,
    "quarantined": [],
}


def test_a_host_that_is_well():
    found = health.judge(WELL)
    assert all(one.code.endswith(".ok") for one in found)
    assert len(found) == 13


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (["failed_units"], ["a.service"], "failed.units"),
        (["failed_units"], None, "failed.unknown"),
        (["clock", "synchronised"], False, "clock.alone"),
        (["clock", "drift"], -31.0, "clock.off"),
        (["disks", 0, "percent"], 90, "disk.full"),
        (["disks", 0, "inodes"], 90, "inodes.full"),
        (["memory", "percent"], 95, "memory.low"),
        (["memory", "pressure"], 20, "pressure.high"),
        (["upgrades", "security"], ["openssl"], "upgrades.pending"),
        (["upgrades", "security"], None, "upgrades.unknown"),
        (["upgrades", "days"], 3.1, "lists.old"),
        (["upgrades", "days"], None, "lists.old"),
        (["reboot"], True, "reboot.needed"),
        (["accounts", 0, "tasks"], 90, "account.near"),
        (["accounts", 0, "hits"], {"killed": 1, "refused": 0, "full": 0}, "limit.killed"),
        (["accounts", 0, "hits"], {"killed": 0, "refused": 1, "full": 0}, "limit.refused"),
        (["accounts", 0, "hits"], {"killed": 0, "refused": 0, "full": 20}, "limit.full"),
        (["files"], 90, "files.near"),
        (["quarantined"], [{"name": "velo.test", "path": "/x", "reason": "y"}], "quarantine.refused"),
    ],
)
def test_each_trouble_is_found_alone(path, value, code):
    seen = copy.deepcopy(WELL)
    place = seen
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert [one.code for one in health.judge(seen) if not one.code.endswith(".ok")] == [code]


def test_a_journal_without_entries_counts_nothing():
    assert health.hits("-- No entries --\n") == {}


def test_unknown_numbers_are_not_judged():
    seen = copy.deepcopy(WELL)
    seen["clock"] = {"synchronised": None, "offset": None, "drift": None}
    seen["memory"]["pressure"] = None
    assert len(health.judge(seen)) == 10


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("haproxy", "unit.ok"),
        ("haproxy.service", "unit.ok"),
        ("php8.2@velo.socket", "unit.absent"),
        ("apache2", "unit.down"),
    ],
)
def test_units_of_cards(name, code):
    assert health.judge_unit(WELL, name).code == code


def test_a_dot_in_a_name_is_not_a_type():
    assert health.full_unit("php8.2@velo") == "php8.2@velo.service"


@pytest.mark.parametrize(
    ("status", "output", "check", "code"),
    [
        (0, "mysqld is alive\n", {}, "command.ok"),
        (0, "mysqld is alive\n", {"contains": "alive"}, "command.ok"),
        (0, "mysqld is tired\n", {"contains": "alive"}, "command.failed"),
        (1, "no\nsocket gone\n", {}, "command.failed"),
        (1, "", {}, "command.failed"),
        (0, "Il est revenu.\n", {"tells": True}, "command.told.ok"),
        (1, "Il est perdu.\n", {"tells": True}, "command.told.failed"),
    ],
)
def test_commands_of_cards(status, output, check, code):
    found = health.judge_command({"status": status, "output": output}, {"command": ["mariadb-admin", "ping"], **check})
    assert found.code == code
    assert "\n" not in found.values["output"]


def test_the_module_reads_and_changes_nothing(capsys, monkeypatch):
    monkeypatch.setattr(health, "run_command", fake_run({}))
    with (
        patch_module_args({"units": ["x"], "commands": [["true"]], "_ansible_check_mode": True}),
        pytest.raises(SystemExit),
    ):
        host_health.main()
    answer = json.loads(capsys.readouterr().out)
    assert answer["changed"] is False
    assert {"clock", "disks", "listening", "upgrades"} < set(answer["health"])
