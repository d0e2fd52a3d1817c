# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The web pages of robots: where the data puts them, and who may ask for them; tests/e2e/test_sympa_pages.py visits."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from jinja2.utils import missing

from hosting.sympa import SympaError, pages
from hosting.sympa_config import one_line
from infini.tree_render import Renderer, environment

ROLE = Path(__file__).parents[2] / "roles/sympa"
URL = "https://{robot}/sympa"
ROBOTS = [
    {"name": "listes.velo.test"},
    {"name": "listes.bourg.test", "url": "https://www.bourg.test/listes/wws"},
    {"name": "listes.jardin.test", "url": "https://www.bourg.test/jardin/"},
]
GIVEN = {
    "sympa_robots": ROBOTS,
    "sympa_domain": "lists.infini.test",
    "sympa_listmasters": ["tech@infini.test"],
    "ansible_managed": "Ansible",
    "role_path": str(ROLE),
}


def tree(**given):
    """Return what the role writes: path on the host -> text."""
    variables = {**yaml.safe_load((ROLE / "defaults/main.yml").read_text()), **GIVEN, **given}
    env = environment(lambda name: variables.get(name, missing))
    env.filters |= {
        "hosting_modules": lambda _name: [],
        "regex_escape": re.escape,
        "sympa_line": lambda value: one_line(value, ","),
        "sympa_pages": pages,
    }
    picture = Renderer(ROLE / "tree", env, "sympa", lambda path: (path.read_bytes(), False)).picture()
    return {path: content.decode() for path, content in picture.contents.items()}


def test_names_and_paths_are_those_of_the_data():
    assert pages(ROBOTS, URL, "lists.infini.test") == [
        {"name": "listes.velo.test", "paths": ["/sympa"]},
        {"name": "lists.infini.test", "paths": ["/sympa"]},
        {"name": "www.bourg.test", "paths": ["/jardin", "/listes/wws"]},
    ]


@pytest.mark.parametrize(
    "url",
    ["http://a.test/sympa", "https://a.test", "https://a.test/", "https://a.test:8443/s", "https://a.test/s/../t"],
)
def test_an_address_that_cannot_be_served_is_one_sentence(url):
    with pytest.raises(SympaError, match=r"pages of robot a\.test are at .*https://a\.test/sympa is meant"):
        pages([{"name": "a.test", "url": url}], URL, "lists.infini.test")


def test_each_name_is_a_virtual_host_of_the_one_account_that_may_ask():
    written = {path: text for path, text in tree(sympa_pages_listen="127.0.0.1:8080").items() if "apache2" in path}
    assert set(written) == {
        f"/etc/apache2/lists/{name}.conf" for name in ("listes.velo.test", "lists.infini.test", "www.bourg.test")
    }
    text = written["/etc/apache2/lists/www.bourg.test.conf"]
    assert text.count("<VirtualHost 127.0.0.1:8080>") == 1
    assert "AssignUserId sympa-pages sympa-pages" in text
    paths = [re.compile(pattern) for pattern in re.findall(r'<LocationMatch "(.+)">', text)]
    ours = ["/jardin", "/jardin/lists", "/listes/wws/review/amis"]
    others = ["/jardins", "/static-sympa/jardin", "/listes", "/", "/listes/wwsx"]
    assert [path for path in ours + others if any(pattern.search(path) for pattern in paths)] == ours
    socket = tree()["/etc/systemd/system/wwsympa.socket.d/infini.conf"]
    assert {"SocketUser=sympa-pages", "SocketMode=0600"} <= set(socket.splitlines())


def test_nothing_is_served_unless_asked():
    assert not [path for path in tree() if "apache2" in path]


def test_soap_is_for_those_who_ask_for_it_at_the_domain_of_sympa_itself():
    def at(**given):
        written = tree(sympa_pages_listen="127.0.0.1:8080", **given)
        return {path for path, text in written.items() if "apache2" in path and "sympasoap" in text}

    assert at() == set()
    assert at(sympa_soap=True) == {"/etc/apache2/lists/lists.infini.test.conf"}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@pytest.mark.parametrize("program", ["wwsympa", "sympasoap"])
def test_the_pages_are_shut_in(program, tmp_path):
    unit = tmp_path / f"{program}.service"
    package = "[Service]\nUser=sympa\nGroup=sympa\nExecStart=/usr/bin/multiwatch\nPrivateTmp=true\n"
    unit.write_text(package + tree()[f"/etc/systemd/system/{program}.service.d/infini.conf"])
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
