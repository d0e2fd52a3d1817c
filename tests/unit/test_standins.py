# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in packages: what is in them, the repository made of them, and that their scripts read well."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from infini import standins
from infini.errors import RefusedError

ALTERNC = standins.SOURCES / "alternc/package"
VLOGGER = standins.SOURCES / "alternc/package-vlogger"
CONTRACT = (standins.SOURCES / "alternc/CONTRACT.md").read_text()
needs_tools = pytest.mark.skipif(not all(map(shutil.which, standins.TOOLS)), reason="dpkg-deb or gpg is not here")


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standins.build(tmp_path_factory.mktemp("standins") / "apt")


@needs_tools
def test_what_is_built_is_built_once(repository: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    assert standins.build(repository) == repository
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before


@needs_tools
def test_a_source_that_changed_is_built_again_and_only_the_key_differs_otherwise(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(VLOGGER, sources / "one/package")
    first = standins.build(tmp_path / "apt", sources)
    stamp, index = (first / "stamp").read_text(), (first / "dists/bookworm/main/binary-all/Packages").read_text()
    (first / "stamp").unlink()
    standins.build(first, sources)
    assert (first / "stamp").read_text() == stamp
    assert (first / "dists/bookworm/main/binary-all/Packages").read_text() == index
    (sources / "one/package/usr/sbin/vlogger").write_text("#!/bin/sh\n")
    standins.build(first, sources)
    assert (first / "stamp").read_text() != stamp
    assert (first / "dists/bookworm/main/binary-all/Packages").read_text() != index


@needs_tools
def test_a_clone_with_another_umask_makes_the_same_package(tmp_path: Path) -> None:
    for name, others in (("open", 0o077), ("closed", 0o000)):
        tree = tmp_path / name / "one/package"
        shutil.copytree(VLOGGER, tree, symlinks=True)
        for path in (tree, *tree.rglob("*")):
            path.chmod((path.stat().st_mode & 0o700) | (path.stat().st_mode & others))
        standins.build(tmp_path / name / "apt", tmp_path / name)
    built = [next((tmp_path / name / "apt/pool").iterdir()).read_bytes() for name in ("open", "closed")]
    assert built[0] == built[1]


@needs_tools
def test_the_index_says_what_the_pool_holds(repository: Path) -> None:
    release = repository / "dists/bookworm"
    for line in (release / "Release").read_text().partition("SHA256:\n")[2].splitlines():
        digest, size, name = line.split()
        content = (release / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (digest, int(size))
    index = (release / "main/binary-amd64/Packages").read_text()
    assert index == (release / "main/binary-all/Packages").read_text()
    entries = re.findall(r"^Filename: (.*)\nSize: (\d+)\nSHA256: (.*)$", index, re.MULTILINE)
    assert len(entries) == len(list((repository / "pool").iterdir())) == 2
    for name, size, digest in entries:
        content = (repository / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (int(size), digest)


@needs_tools
def test_the_release_is_signed_and_nothing_private_is_kept(repository: Path, tmp_path: Path) -> None:
    if not shutil.which("gpgv"):
        pytest.skip("gpgv is not here")
    key = (repository / "key.txt").read_text()
    assert key.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    subprocess.run(
        ["gpg", "--homedir", tmp_path, "--dearmor", "--output", tmp_path / "key.gpg", repository / "key.txt"],
        check=True,
        capture_output=True,
    )
    verify = ["gpgv", "--keyring", tmp_path / "key.gpg"]
    signed = repository / "dists/bookworm/InRelease"
    assert subprocess.run([*verify, signed], check=False, capture_output=True).returncode == 0
    forged = tmp_path / "InRelease"
    forged.write_text(signed.read_text().replace("Label: stand-ins", "Label: other"))
    assert subprocess.run([*verify, forged], check=False, capture_output=True).returncode != 0
    assert not [path for path in repository.rglob("*") if path.is_file() and b"PRIVATE KEY BLOCK" in path.read_bytes()]


@needs_tools
def test_packages_hold_what_the_contract_promises(repository: Path) -> None:
    package = repository / "pool/alternc_3.5.4+standin1_all.deb"
    listed = {
        line.split()[5].removeprefix("."): line.split()
        for line in output("dpkg-deb", "--contents", package).splitlines()
    }
    assert {line[1] for line in listed.values()} == {"root/root"}
    assert listed["/etc/sudoers.d/alternc"][0] == "-r--r-----"
    assert listed["/usr/sbin/alternc.install"][0] == "-rwxr-xr-x"
    assert listed["/usr/share/alternc/panel/class/config_nochk.php"][0] == "-rw-r--r--"
    for path in re.findall(r"`(/usr/(?:lib|sbin|share)/alternc[^` ]*|/usr/sbin/alternc\.install)`", CONTRACT):
        assert path.rstrip("/") in listed or f"{path.rstrip('/')}/" in listed, f"{path} is in the contract only"


@needs_tools
def test_another_repository_needs_gpg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "gpg" else f"/usr/bin/{tool}")
    with pytest.raises(RefusedError, match="apt-get install gnupg"):
        standins.build(tmp_path)


def test_conffiles_are_the_files_in_etc() -> None:
    found = [path for path in (ALTERNC / "etc").rglob("*") if path.is_file() and not path.is_symlink()]
    files = sorted(f"/{path.relative_to(ALTERNC)}" for path in found)
    assert (ALTERNC / "DEBIAN/conffiles").read_text().split() == files


def test_the_debconf_questions_that_scripts_ask_are_in_the_templates() -> None:
    templates = set(re.findall(r"^Template: alternc/(\S+)$", (ALTERNC / "DEBIAN/templates").read_text(), re.MULTILINE))
    for script in ("config", "postinst"):
        text = (ALTERNC / "DEBIAN" / script).read_text()
        settings = text.partition('settings="')[2].partition('"')[0]
        asked = {line.split()[0] for line in settings.splitlines()}
        for pattern in (
            r"db_(?:get|input high|input critical) alternc/([\w/]+)",
            r"^default ([\w/]+)",
            r"\$\(answer ([a-z]\S+)\)",
        ):
            asked |= set(re.findall(pattern, text, re.MULTILINE))
        assert asked <= templates


def test_every_table_of_the_schema_stands_in_the_contract() -> None:
    schema = (ALTERNC / "usr/share/alternc/install/mysql.sql").read_text()
    for table in re.findall(r"^CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW) (\w+)", schema, re.MULTILINE):
        assert f"`{table}`" in CONTRACT


def test_actions_leave_it_to_the_server_whether_their_dates_may_be_null() -> None:
    schema = (ALTERNC / "usr/share/alternc/install/mysql.sql").read_text()
    assert "begin timestamp, end timestamp," in schema


def test_public_methods_stand_in_the_contract() -> None:
    methods = {
        (path.stem.removeprefix("m_"), method)
        for path in (ALTERNC / "usr/share/alternc/panel/class").glob("m_*.php")
        for method in re.findall(r"^    (?:public |static )*function (\w+)\(", path.read_text(), re.MULTILINE)
    }
    missing = [f"{name}->{method}" for name, method in methods if not re.search(rf"\b{method}\b", CONTRACT)]
    missing = [one for one in missing if not one.endswith("->__construct")]
    assert missing == []


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not here")
def test_shell_scripts_are_clean() -> None:
    shells = (b"#!/bin/bash", b"#!/bin/sh")
    scripts = [path for path in ALTERNC.rglob("*") if path.is_file() and path.read_bytes().startswith(shells)]
    assert len(scripts) > 10
    done = subprocess.run(["shellcheck", "--exclude", "SC1091", *scripts], capture_output=True, text=True, check=False)
    assert done.stdout == ""
