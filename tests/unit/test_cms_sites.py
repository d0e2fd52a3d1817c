# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import json
import shutil
import stat
from pathlib import Path

import cms_sites
import pytest
from ansible.module_utils.testing import patch_module_args

cms = cms_sites.cms

VELO = {
    "name": "velo.infini.test",
    "account": "velo",
    "kind": "spip",
    "title": "Vélo en ville",
    "article": "Atelier du samedi",
    "php": "7.4",
    "release": "bullseye",
    "database": "velo_spip",
}
PHARE = {"name": "phare.infini.test", "account": "phare", "kind": "static", "title": "Le phare", "article": "Visite"}


class Host:
    """A host whose commands are pretended, on real files in a temporary folder."""

    def __init__(self, folder):
        self.folder = folder
        self.commands, self.owners, self.titles, self.broken = [], [], {}, False

    def call(self, command, **options):
        self.commands.append(command)
        if command[0] == "mariadb":
            return self.answer(options["input"])
        if command[0] == "cp":
            assert (options["user"], options["extra_groups"]) == (command[-1].split("/")[-3], [])
            shutil.copytree(command[-2], command[-1], dirs_exist_ok=True)
            return ""
        assert command[0] == "systemd-run"
        if self.broken:
            raise cms.CmsError("systemd-run failed: no such table")
        return self.install(json.loads(options["input"]))

    def answer(self, question):
        if "information_schema" in question:
            return "".join(f"{site}_spip.spip_articles\n{site}_spip.spip_meta\n" for site in self.titles)
        rows = [[f"{site}.infini.test", *titles] for site, titles in self.titles.items()]
        return "".join(f"{name}\t{title.encode().hex()}\t{text.encode().hex()}\n" for name, title, text in rows)

    def install(self, settings):
        assert len(settings["password"]) >= 20
        Path(settings["root"], "config").mkdir(exist_ok=True)
        Path(settings["root"], "config/connect.php").touch()
        self.titles[settings["account"]] = (settings["title"], settings["article"])
        return 'a word of PHP\n{"version": "3.2.11"}\n'


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = Host(tmp_path)
    for name, folder in (("MEMBERS", "members"), ("TREES", "php"), ("DATABASE_SOCKET", "mysqld.sock")):
        monkeypatch.setattr(cms, name, str(tmp_path / folder))
    (tmp_path / "mysqld.sock").touch()
    for site in (VELO, PHARE):
        (tmp_path / "members" / site["account"] / "www" / site["name"]).mkdir(parents=True)
    program = tmp_path / "php/7.4/usr/bin/php7.4"
    program.parent.mkdir(parents=True)
    program.touch()
    picture = tmp_path / "pictures/spip-bullseye/spip.php"
    picture.parent.mkdir(parents=True)
    picture.write_text("<?php")
    monkeypatch.setattr(cms_sites, "PICTURES", tmp_path / "pictures")
    monkeypatch.setattr(cms_sites, "call", host.call)
    monkeypatch.setattr(cms_sites.shutil, "chown", lambda _path, user, group: host.owners.append((user, group)))
    return host


def run(capsys, *sites, check=False):
    args = {"sites": list(sites), "trees": ["7.4"], "_ansible_check_mode": check, "_ansible_diff": True}
    with patch_module_args(args), pytest.raises(SystemExit):
        cms_sites.main()
    return json.loads(capsys.readouterr().out)


def test_the_set_is_installed_once(host, capsys):
    result = run(capsys, VELO, PHARE)
    assert [(site["name"], site["version"]) for site in result["installed"]] == [
        ("velo.infini.test", "3.2.11"),
        ("phare.infini.test", ""),
    ]
    assert "velo.infini.test: no spip site\n" in result["diff"]["before"]
    assert (host.folder / "members/velo/www/velo.infini.test/spip.php").exists()
    assert not run(capsys, VELO, PHARE)["changed"]


def test_the_password_stays_in_the_home_and_out_of_sight(host, capsys):
    result = run(capsys, VELO)
    secret = host.folder / "members/velo/admin-velo.infini.test.txt"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert host.owners == [("velo", "velo")]
    password = secret.read_text().split()[1]
    assert password not in json.dumps(result)
    assert password not in json.dumps([list(map(str, command)) for command in host.commands])


def test_another_title_is_corrected_without_copying_again(host, capsys):
    run(capsys, VELO)
    host.commands.clear()
    result = run(capsys, {**VELO, "title": "Le vélo"})
    assert result["changed"]
    assert host.titles["velo"][0] == "Le vélo"
    assert "cp" not in [command[0] for command in host.commands]


def test_an_interrupted_installation_goes_on_with_the_same_password(host, capsys):
    host.broken = True
    assert "velo.infini.test cannot be installed: systemd-run failed" in run(capsys, VELO)["msg"]
    secret = host.folder / "members/velo/admin-velo.infini.test.txt"
    before, host.broken = secret.read_text(), False
    assert run(capsys, VELO)["changed"]
    assert secret.read_text() == before


def test_check_mode_works_on_an_empty_host(host, capsys, monkeypatch):
    monkeypatch.setattr(cms, "DATABASE_SOCKET", str(host.folder / "absent"))
    result = run(capsys, VELO, PHARE, check=True)
    assert result["changed"]
    assert result["installed"] == []
    assert host.commands == []
    assert not list(host.folder.glob("members/*/*.txt"))


def test_sites_of_one_kind_share_a_picture(host, capsys, monkeypatch):
    made = []

    def make(_kind, _root, picture, _run):
        made.append(picture.name)
        picture.mkdir(parents=True)

    monkeypatch.setattr(cms_sites.cms_pictures, "make", make)
    monkeypatch.setattr(cms_sites.cms_pictures, "find_root", lambda release, _roots: release)
    shutil.rmtree(host.folder / "pictures")
    (host.folder / "members/velo/www/course.velo.test").mkdir()
    result = run(capsys, VELO, {**VELO, "name": "course.velo.test", "database": "course_spip"})
    assert len(result["installed"]) == 2
    assert made == ["spip-bullseye"]


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("members/velo/www/velo.infini.test", "apply the role sites first"),
        ("php/7.4/usr/bin/php7.4", "apply the role php first"),
        ("pictures/spip-bullseye", "no Debian bullseye on this host"),
    ],
)
def test_what_other_roles_should_have_made_is_named(host, capsys, missing, words):
    gone = host.folder / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    result = run(capsys, VELO)
    assert result["failed"]
    assert words in result["msg"]


def test_an_impossible_set_is_refused_before_anything_is_looked_at(host, capsys):
    assert "without php" in run(capsys, {**VELO, "php": None})["msg"]
    assert host.commands == []


def test_a_failing_command_speaks_for_itself():
    with pytest.raises(cms.CmsError, match=r"^sh failed: no such table$"):
        cms_sites.call(["sh", "-c", "echo no such table >&2; exit 3"])
    with pytest.raises(cms.CmsError, match=r"^sh failed: it ended with status 3, try again$"):
        cms_sites.call(["sh", "-c", "exit 3"])
