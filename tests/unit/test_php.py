# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""PHP's runtimes and trees: what the host installs, which trees are built, and what a failed build leaves."""

from __future__ import annotations

import json
import stat
import threading

import php_trees
import pytest
from ansible.module_utils.hosting import php_door
from ansible.module_utils.testing import patch_module_args
from hypothesis import given
from hypothesis import strategies as st

from hosting import php

NATIVE = {"version": "8.2", "source": "debian"}
OLD = {"version": "5.6", "source": "sury"}
TREE = {"version": "7.4", "source": "tree", "suite": "bullseye", "security": False}
WANTED = {"version": "7.4", "suite": "bullseye", "packages": ["php7.4-fpm"], "security": False}

DESCRIPTIONS = st.dictionaries(
    st.sampled_from(["5.6", "7.4", "8.2", "8.4"]), st.sampled_from([{"suite": "a"}, {"suite": "b"}])
)


def test_the_host_installs_its_own_runtimes_and_the_builder_of_trees():
    assert php.packages([NATIVE, TREE], ["mysql"]) == [
        "mmdebstrap",
        "php8.2-cli",
        "php8.2-fpm",
        "php8.2-mysql",
        "php8.2-opcache",
    ]
    assert "mmdebstrap" not in php.packages([NATIVE, OLD], [])
    assert "php5.6-fpm" in php.packages([NATIVE, OLD], [])


def test_a_tree_has_the_same_extensions_and_takes_security_updates_unless_told():
    later = {"version": "8.4", "source": "tree", "suite": "trixie"}
    first, second = php.trees([NATIVE, TREE, later], ["gd"])
    assert first == {
        "version": "7.4",
        "suite": "bullseye",
        "security": False,
        "packages": ["php7.4-cli", "php7.4-fpm", "php7.4-gd", "php7.4-opcache", "ca-certificates"],
    }
    assert second["security"] is True


def test_a_pattern_stands_once_for_each_version():
    pattern = {"account": "@LOGIN@", "home": "@HOME@"}
    assert php.patterns([NATIVE, TREE], pattern) == [
        {"account": "@LOGIN@", "home": "@HOME@", "version": "8.2"},
        {"account": "@LOGIN@", "home": "@HOME@", "version": "7.4"},
    ]
    assert pattern == {"account": "@LOGIN@", "home": "@HOME@"}


def test_each_pool_has_an_entrance_and_the_packages_own_master_stays_down():
    assert php.units([{"account": "velo", "version": "7.4"}], [NATIVE, TREE]) == [
        {"name": "php7.4@velo.socket"},
        {"name": "php-pools-rest.timer"},
        {"name": "php8.2-fpm.service", "enabled": False, "state": "stopped"},
    ]


def test_pools_of_some_accounts_are_kept_from_retiring():
    left = ["/etc/php/pools/7.4/velo.conf", "/etc/php/pools/7.4/amap.conf", "php7.4@velo.socket", "php7.4@amap.service"]
    assert php.retirable(left, ["velo"]) == ["/etc/php/pools/7.4/amap.conf", "php7.4@amap.service"]
    assert php.retirable([*left, "/etc/systemd/system/php7.4@.socket"], []) == [
        *left,
        "/etc/systemd/system/php7.4@.socket",
    ]


@given(DESCRIPTIONS, DESCRIPTIONS)
def test_second_run_builds_nothing_and_no_tree_is_removed(current, wanted):
    build, unused = php_door.plan(current, wanted)
    after = {**current, **{version: wanted[version] for version in build}}
    assert php_door.plan(after, wanted) == ([], unused)
    assert set(unused) == set(current) - set(wanted)


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """A stand-in for mmdebstrap: makes a tree, or fails when told to."""
    script = tmp_path / "bin/mmdebstrap"
    script.parent.mkdir()
    script.write_text(
        '#!/bin/sh\nfor target; do :; done\nmkdir -p "$target/etc"\necho "$@" > "$target/etc/arguments"\n'
        '[ ! -e "${0%/*}/fail" ] || { echo "E: no such package" >&2; exit 25; }\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    return script.parent


def run(capsys, directory, trees, **more):
    with (
        patch_module_args({"directory": str(directory), "trees": trees, "_ansible_diff": True, **more}),
        pytest.raises(SystemExit),
    ):
        php_trees.main()
    return json.loads(capsys.readouterr().out)


def trees_in(directory):
    return sorted(path.name for path in directory.iterdir() if path.is_dir())


@pytest.mark.usefixtures("builder")
def test_a_tree_is_built_once_and_again_when_its_description_changes(tmp_path, capsys):
    root = tmp_path / "php"
    assert run(capsys, root, [WANTED])["built"] == ["7.4"]
    assert "n=bullseye-security" in (root / "7.4/etc/arguments").read_text()
    assert run(capsys, root, [WANTED])["changed"] is False
    again = run(capsys, root, [{**WANTED, "packages": ["php7.4-fpm", "php7.4-gd"]}])
    assert again["changed"]
    assert "php7.4-gd" in again["diff"]["after"]
    assert "php7.4-gd" not in again["diff"]["before"]
    assert "--include=php7.4-fpm,php7.4-gd" in (root / "7.4/etc/arguments").read_text()
    assert "php7.4-gd" not in (root / "7.4.old/etc/arguments").read_text()  # masters that still run use it
    assert trees_in(root) == ["7.4", "7.4.old"]


@pytest.mark.usefixtures("builder")
def test_a_prepared_tree_waits_beside_the_one_in_use_until_the_role_takes_it(tmp_path, capsys, builder):
    root = tmp_path / "php"
    run(capsys, root, [WANTED])
    wider = {**WANTED, "packages": ["php7.4-fpm", "php7.4-gd"]}
    prepared = run(capsys, root, [wider], prepare=True)
    assert (prepared["changed"], prepared["built"]) == (False, ["7.4"])
    assert "php7.4-gd" not in (root / "7.4/etc/arguments").read_text()
    (builder / "fail").touch()  # from here on nothing can be built: it is the prepared one that is taken
    assert run(capsys, root, [wider])["changed"]
    assert "php7.4-gd" in (root / "7.4/etc/arguments").read_text()


@pytest.mark.usefixtures("builder")
def test_a_tree_prepared_for_another_description_is_built_anew(tmp_path, capsys):
    root = tmp_path / "php"
    run(capsys, root, [{**WANTED, "suite": "buster"}], prepare=True)
    run(capsys, root, [WANTED])
    assert "bullseye" in (root / "7.4/etc/arguments").read_text()


def test_a_failed_build_leaves_the_old_tree_and_says_why(tmp_path, builder, capsys):
    root = tmp_path / "php"
    run(capsys, root, [WANTED])
    (builder / "fail").touch()
    result = run(capsys, root, [{**WANTED, "suite": "buster"}])
    assert result["failed"]
    assert "PHP 7.4 (buster): E: no such package" in result["msg"]
    assert "bullseye" in (root / "7.4/etc/arguments").read_text()
    assert trees_in(root) == ["7.4"]


@pytest.mark.usefixtures("builder")
def test_an_interrupted_build_is_taken_up(tmp_path, capsys):
    root = tmp_path / "php"
    (root / "7.4.new/etc").mkdir(parents=True)
    (root / "7.4").mkdir()
    assert run(capsys, root, [WANTED])["built"] == ["7.4"]
    assert trees_in(root) == ["7.4", "7.4.old"]


@pytest.mark.usefixtures("builder")
def test_check_mode_builds_nothing_and_names_what_nobody_declares(tmp_path, capsys):
    root = tmp_path / "php"
    (root / "5.6").mkdir(parents=True)
    result = run(capsys, root, [WANTED], _ansible_check_mode=True)
    assert result["changed"]
    assert (result["built"], result["unused"]) == (["7.4"], ["5.6"])
    assert [path.name for path in root.iterdir()] == ["5.6"]


RELEASE = """Package: php7.4-fpm
Status: install ok installed
Version: {}

Package: gone
Status: deinstall ok config-files
Version: 1
"""


@pytest.fixture
def release(builder):
    """Today's release, as the stand-ins for mmdebstrap and apt see it: a function that sets PHP's version."""
    (builder / "mmdebstrap").write_text(
        '#!/bin/sh\nfor target; do :; done\nmkdir -p "$target/etc" "$target/var/lib/dpkg"\n'
        'cp "${0%/*}/release" "$target/var/lib/dpkg/status"\n'
    )
    apt = builder / "apt-get"
    apt.write_text(
        '#!/bin/sh\n[ ! -e "${0%/*}/down" ] || { echo "E: no mirror" >&2; exit 100; }\n'
        "for status; do case $status in Dir::State::status=*) status=${status#*=}; break ;; esac; done\n"
        'cmp -s "$status" "${0%/*}/release" || echo "Inst php7.4-fpm [1] (2 Debian:11 [amd64])"\n'
    )
    apt.chmod(0o755)

    def set_version(version):
        (builder / "release").write_text(RELEASE.format(version))

    set_version("1")
    return set_version


def version_in(root):
    return php.installed((root / "var/lib/dpkg/status").read_text())["php7.4-fpm"]


def test_a_tree_is_exchanged_only_when_its_release_has_something_newer(tmp_path, capsys, release):
    root = tmp_path / "php"
    run(capsys, root, [WANTED])
    assert run(capsys, root, [WANTED], state="latest")["changed"] is False
    assert trees_in(root) == ["7.4"]
    release("2")
    checked = run(capsys, root, [WANTED], state="latest", _ansible_check_mode=True)
    assert checked["packages"] == {"7.4": ["php7.4-fpm 1 -> 2"]}
    assert version_in(root / "7.4") == "1"
    updated = run(capsys, root, [WANTED], state="latest")
    assert (updated["changed"], updated["packages"]) == (True, {"7.4": ["php7.4-fpm 1 -> 2"]})
    assert (version_in(root / "7.4"), version_in(root / "7.4.old")) == ("2", "1")
    assert run(capsys, root, [WANTED])["changed"] is False  # the role has nothing to do with it any more


@pytest.mark.usefixtures("builder")
def test_a_tree_prepared_on_another_day_is_not_what_an_update_takes(tmp_path, capsys, release):
    root = tmp_path / "php"
    run(capsys, root, [WANTED])
    wider = {**WANTED, "packages": ["php7.4-fpm", "php7.4-gd"]}
    run(capsys, root, [wider], prepare=True)
    release("2")
    run(capsys, root, [wider], state="latest")
    assert version_in(root / "7.4") == "2"


def test_a_tree_can_be_built_anew_where_nothing_is_newer(tmp_path, capsys, release):
    release("1")
    root = tmp_path / "php"
    run(capsys, root, [WANTED])
    first = (root / "7.4").stat().st_ino
    forced = run(capsys, root, [WANTED], state="latest", force=True)
    assert (forced["changed"], forced["packages"]) == (True, {"7.4": []})
    assert (root / "7.4.old").stat().st_ino == first != (root / "7.4").stat().st_ino


def test_the_last_tree_can_be_taken_back_and_forth(tmp_path, capsys, release):
    root = tmp_path / "php"
    run(capsys, root, [WANTED])
    refused = run(capsys, root, [WANTED], state="previous")
    assert refused["failed"]
    assert "No earlier tree of PHP 7.4" in refused["msg"]
    release("2")
    run(capsys, root, [WANTED], state="latest")
    assert run(capsys, root, [WANTED], state="previous", _ansible_check_mode=True)["changed"]
    assert version_in(root / "7.4") == "2"
    assert run(capsys, root, [WANTED], state="previous")["packages"] == {"7.4": ["php7.4-fpm 2 -> 1"]}
    assert (version_in(root / "7.4"), version_in(root / "7.4.old")) == ("1", "2")
    run(capsys, root, [WANTED], state="previous")
    assert version_in(root / "7.4") == "2"


def test_masters_that_still_run_in_the_tree_before_are_told_of(tmp_path, capsys, release, monkeypatch):
    root, process = tmp_path / "php", tmp_path / "proc/12"
    for version in ("1", "2"):
        release(version)
        run(capsys, root, [WANTED], state="present" if version == "1" else "latest")
    process.mkdir(parents=True)
    monkeypatch.setattr(php_door, "PROCESSES", tmp_path / "proc")
    for tree, outdated in (("7.4.old", ["7.4"]), ("7.4", [])):
        (process / "root").unlink(missing_ok=True)
        (process / "root").symlink_to(root / tree)
        result = run(capsys, root, [WANTED])
        assert (result["changed"], result["outdated"], result["built"]) == (bool(outdated), outdated, [])


def test_a_mirror_that_is_down_is_a_sentence_and_touches_nothing(tmp_path, capsys, builder, release):
    release("1")
    root = tmp_path / "php"
    run(capsys, root, [WANTED])
    (builder / "down").touch()
    result = run(capsys, root, [WANTED], state="latest")
    assert result["failed"]
    assert "PHP 7.4 (bullseye) cannot be asked for its updates: E: no mirror" in result["msg"]
    assert trees_in(root) == ["7.4"]


def test_a_tree_is_never_missing_while_it_is_exchanged(tmp_path):
    for name in ("7.4", "7.4.new", "7.4.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    missing, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            if not (tmp_path / "7.4").exists():
                missing.append(1)

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(200):
        php_door.put_in_place(tmp_path, "7.4")
        (tmp_path / "7.4.old").rename(tmp_path / "7.4.new")
        (tmp_path / "7.4.old").mkdir()
    stop.set()
    watcher.join()
    assert not missing


def test_apts_words_name_new_packages_too():
    said = (
        "Inst libc6 [2.31-1] (2.31-2 Debian:11.11/oldoldstable [amd64])\n"
        "Inst extra (1 Debian:11 [all])\nConf libc6 (2.31-2)\n"
    )
    assert php.upgrades(said) == ["extra - -> 1", "libc6 2.31-1 -> 2.31-2"]
