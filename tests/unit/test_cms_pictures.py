# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from pathlib import Path

import pytest

from hosting import cms, cms_pictures

SPIP, WORDPRESS = cms.KINDS["spip"], cms.KINDS["wordpress"]


def tree(folder, files):
    """Make files (text) and links ("-> target")."""
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            file.symlink_to(text[3:])
        else:
            file.write_bytes(text.encode("latin-1"))
    return folder


@pytest.fixture
def spip(tmp_path):
    return tree(
        tmp_path / "world",
        {
            "usr/share/spip/spip.php": "<?php require_once __DIR__ . '/vendor/autoload.php'; // \xe9",
            "usr/share/spip/vendor/autoload.php": "<?php require '/usr/share/php/Kernel/autoload.php';",
            "usr/share/spip/config/mes_options.php": "-> /etc/spip/mes_options.php",
            "usr/share/spip/config/ecran.php": "-> /etc/spip/ecran.php",
            "usr/share/spip/sites": "-> /var/lib/spip/sites",
            "usr/share/spip/IMG": "-> /var/lib/spip/IMG",
            "usr/share/spip/prive/jquery.js": "-> ../../javascript/jquery/jquery.js",
            "usr/share/spip/lib/mejs": "-> ../../javascript/mediaelement",
            "usr/share/javascript/jquery/jquery.js": "-> jquery-3.js",
            "usr/share/javascript/jquery/jquery-3.js": "jquery",
            "usr/share/javascript/mediaelement/build/player.js": "player",
            "usr/share/php/Kernel/autoload.php": "<?php realpath('/usr/share/spip/'); '/usr/share/js/'; '/usr/share';",
            "etc/spip/mes_options.php": "many sites",
            "etc/spip/ecran.php": "screen",
            "var/lib/spip/IMG/.keep": "",
        },
    )


def test_the_picture_stands_alone(spip, tmp_path):
    picture = tmp_path / "picture"
    cms_pictures.compose(spip, SPIP, picture)
    assert not [path for path in picture.rglob("*") if path.is_symlink()]
    assert (picture / "prive/jquery.js").read_text() == "jquery"
    assert (picture / "lib/mejs/build/player.js").read_text() == "player"
    assert (picture / "config/ecran.php").read_text() == "screen"
    assert "set_include_path" in (picture / "config/mes_options.php").read_text()
    assert not (picture / "sites").exists()
    assert (picture / "tmp").is_dir()
    assert (picture / "vendor/autoload.php").read_text() == "<?php require __DIR__ . '/../lib/Kernel/autoload.php';"
    kernel = (picture / "lib/Kernel/autoload.php").read_text()
    assert kernel == "<?php realpath(__DIR__ . '/../../'); '/usr/share/js/'; '/usr/share';"
    assert (picture / "spip.php").read_bytes().endswith(b"// \xe9")


def test_a_link_that_leads_nowhere_is_named(spip, tmp_path):
    tree(spip, {"usr/share/spip/prive/flot.js": "-> ../../javascript/flot/absent.js"})
    with pytest.raises(cms.CmsError, match=r"links prive/flot\.js to .*absent\.js, which none"):
        cms_pictures.compose(spip, SPIP, tmp_path / "picture")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("wp-login.php", True),
        (".htaccess", False),
        ("wp-config.php", False),
        ("wp-content/languages/de_DE.mo", False),
        ("wp-content/languages/admin-fr_FR.mo", True),
    ],
)
def test_a_member_s_copy_has_no_debian_configuration_and_only_french(path, wanted):
    assert WORDPRESS.wants(path) is wanted


def test_links_are_followed_inside_the_world_only(tmp_path):
    tree(tmp_path, {"a/link": "-> /b/../../../etc", "etc/passwd": "ours", "loop": "-> /loop"})
    assert cms_pictures.resolve(tmp_path, "/a/link/passwd") == "/etc/passwd"
    assert cms_pictures.resolve(tmp_path, "/not/there") == "/not/there"
    with pytest.raises(cms.CmsError, match="in circles"):
        cms_pictures.resolve(tmp_path, "/loop")


STANZAS = {
    "spip": "Package: spip\nArchitecture: all\nDepends: libjs-jquery (>= 1), php-mysql | php-pgsql, nodejs:any\n"
    "Recommends: apache2, spip-themes\nDescription: a\n folded: line\n",
    "libjs-jquery": "Package: libjs-jquery\nArchitecture: all\nDepends: spip\n",
    "php-mysql": "Package: php-mysql\nArchitecture: all\n",
    "nodejs": "Package: nodejs\nArchitecture: amd64\nDepends: node-acorn\n",
    "spip-themes": "Package: spip-themes\nArchitecture: all\n",
}


def test_what_runs_on_every_architecture_comes_along():
    asked = []

    def show(names):
        asked.extend(names)
        return "\n".join(STANZAS.get(name, "") for name in names)

    assert cms_pictures.closure("spip", show) == ["spip", "libjs-jquery", "php-mysql", "spip-themes"]
    assert "node-acorn" not in asked
    assert len(asked) == len(set(asked))


def test_the_release_is_found_under_its_root(tmp_path):
    trixie = tree(tmp_path / "8.4", {"etc/os-release": 'NAME="x"\nVERSION_CODENAME=trixie\n'})
    assert cms_pictures.find_root("trixie", [tmp_path, trixie]) == trixie
    with pytest.raises(cms.CmsError, match="no Debian bullseye on this host"):
        cms_pictures.find_root("bullseye", [trixie])


def test_a_tree_s_sources_are_read_without_touching_the_tree(tmp_path):
    words = cms_pictures.apt_options(Path("/srv/php/7.4"), tmp_path)
    assert "Dir::Etc=/srv/php/7.4/etc/apt" in words
    assert f"Dir::State={tmp_path}" in words
    assert not any("Dir::" in word for word in cms_pictures.apt_options(Path("/"), tmp_path))


def make(tmp_path, fail="", shown="Package: wordpress\nArchitecture: all\n"):
    """Make a WordPress picture with a runner that pretends."""
    calls = []

    def run(command, folder):
        calls.append(command[0])
        if command[0] == fail:
            raise cms.CmsError("no network")
        if command[0] == "apt-cache":
            return shown
        if "download" in command:
            (folder / "wordpress.deb").touch()
        if command[0] == "dpkg-deb":
            tree(Path(command[-1]), {"usr/share/wordpress/index.php": "<?php"})
        return ""

    cms_pictures.make(WORDPRESS, tmp_path / "root", tmp_path / "cache/wordpress-trixie", run)
    return calls


def test_a_picture_is_made_once_and_whole(tmp_path):
    assert make(tmp_path) == ["apt-get", "apt-cache", "apt-get", "dpkg-deb"]
    assert (tmp_path / "cache/wordpress-trixie/index.php").exists()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["wordpress-trixie"]


def test_a_failed_download_leaves_nothing_behind(tmp_path):
    with pytest.raises(cms.CmsError, match="no network"):
        make(tmp_path, fail="dpkg-deb")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_release_without_the_package_is_said(tmp_path):
    with pytest.raises(cms.CmsError, match="apt knows no wordpress here"):
        make(tmp_path, shown="")
