# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a role's tree and sidecar to the picture of a host."""

import time

import pytest
from jinja2.utils import missing

from hosting.tree_model import TreeError
from infini.tree_render import Renderer, environment


@pytest.fixture
def role(tmp_path):
    return Role(tmp_path)


class Role:
    def __init__(self, directory):
        self.directory = directory
        self.asked = []
        (directory / "tree").mkdir()

    def file(self, relative, text):
        path = self.directory / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def picture(self, **variables):
        def variable(name):
            self.asked.append(name)
            return variables.get(name, missing)

        env = environment(variable, (self.directory / "templates",))
        return Renderer(self.directory / "tree", env, "role", lambda path: (path.read_bytes(), False)).picture()

    def entries(self, **variables):
        return {entry.path: entry for entry in self.picture(**variables).request.entries}


def test_files_templates_and_links_stand_at_their_paths(role):
    role.file("tree/etc/plain", "{{ not jinja }}")
    role.file("tree/etc/a.conf.j2", "# {{ ansible_managed }}\n{% if yes %}\n  {{ word }}\n{% endif %}\n")
    (role.directory / "tree/etc/link").symlink_to("a.conf")
    picture = role.picture(word="hello", yes=True)
    assert picture.contents == {
        "/etc/plain": b"{{ not jinja }}",
        "/etc/a.conf": b"# Written by infini from roles/role/tree/etc/a.conf.j2: change it there.\n  hello\n",
    }
    assert {entry.path: entry.kind for entry in picture.request.entries}["/etc/link"] == "link"


def test_only_the_variables_in_use_are_asked_for(role):
    role.file("tree/a.j2", "{{ used }}{% if unused is defined and false %}{{ unused.x }}{% endif %}")
    role.picture(used=1, elsewhere=2)
    assert set(role.asked) == {"used", "unused"}


def test_undefined_variable_names_the_template_and_the_line(role):
    role.file("tree/etc/a.j2", "fine\n{{ nowhere }}\n")
    with pytest.raises(TreeError, match=r"tree/etc/a\.j2: 'nowhere' is undefined \(line 2\)"):
        role.picture()


def test_syntax_error_names_the_template_and_the_line(role):
    role.file("tree/etc/a.j2", "fine\n{% if %}\n")
    with pytest.raises(TreeError, match=r"tree/etc/a\.j2: .*\(line 2\)"):
        role.picture()


def test_later_patterns_win_over_earlier_and_defaults(role):
    for name in ("a", "b", "c"):
        role.file(f"tree/etc/{name}", name)
    role.file(
        "tree.yml", 'defaults: {group: adm}\nfiles: {"etc/*": {mode: "0640"}, etc/b: {mode: "{{ m }}", owner: x}}'
    )
    found = {path: (one.mode, one.owner, one.group) for path, one in role.entries(m="0600").items()}
    assert found == {
        "/etc/a": (0o640, "root", "adm"),
        "/etc/b": (0o600, "x", "adm"),
        "/etc/c": (0o640, "root", "adm"),
    }


def test_one_template_makes_a_file_per_item(role):
    role.file("tree/etc/pools/[pool].conf.j2", "pool {{ pool.name }}")
    role.file(
        "tree.yml",
        """
each:
  "etc/pools/[pool].conf.j2": {items: "{{ pools }}", as: pool, path: "etc/pools/{{ pool.name }}.conf"}
files:
  "etc/pools/*": {owner: "{{ pool.name }}", when: "{{ pool.name != 'off' }}"}
directories:
  srv/x: {items: "{{ pools }}", as: pool, path: "srv/{{ pool.name }}", mode: "0711"}
""",
    )
    picture = role.picture(pools=[{"name": "velo"}, {"name": "off"}])
    assert picture.contents == {"/etc/pools/velo.conf": b"pool velo"}
    found = {entry.path: (entry.kind, entry.owner) for entry in picture.request.entries}
    assert found == {
        "/etc/pools/velo.conf": ("file", "velo"),
        "/srv/velo": ("dir", "root"),
        "/srv/off": ("dir", "root"),
    }


def test_two_items_of_one_name_are_refused(role):
    role.file("tree/x.j2", "x")
    role.file("tree.yml", 'each: {x.j2: {items: "{{ [1, 1] }}", path: "etc/{{ item }}"}}')
    with pytest.raises(TreeError, match="gives /etc/1 twice"):
        role.picture()


def test_rest_of_the_sidecar_reaches_the_request(role):
    role.file("tree/etc/key", "k")
    role.file(
        "tree.yml",
        """
files: {etc/key: {secret: true, adopt: true, notify: Reload key}}
owned: ["{{ where }}"]
absent: [etc/old]
validate: [{files: ["etc/**"], command: [check, "{{ where }}"]}]
notify: {"etc/**": [One, Two]}
""",
    )
    request = role.picture(where="etc/sites").request
    assert (request.owned, request.absent, request.secrets) == (("/etc/sites",), ("/etc/old",), ("etc/key",))
    assert request.validations[0].command == ("check", "etc/sites")
    assert request.handlers_for(["/etc/key"]) == ["One", "Two", "Reload key"]
    assert (request.entries[0].secret, request.entries[0].adopt) == (True, True)


def test_snippets_come_from_the_roles_templates(role):
    role.file("templates/snippet.j2", "hello {{ word }}")
    role.file("tree/a.j2", "{% include 'snippet.j2' %}")
    assert role.picture(word="you").contents == {"/a": b"hello you"}


@pytest.mark.parametrize(
    ("sidecar", "says"),
    [
        ("ownd: []", "unknown key ownd"),
        ("files: {a: {mod: '0600'}}", "unknown key mod"),
        ("files: {a: {mode: 0600}}", "octal in quotes"),
        ("files: {a: {when: perhaps}}", "true or false"),
        ("files: {a: {owner: '{{ nowhere }}'}}", "nowhere' is undefined"),
        ("owned: [../etc]", "not a plain path"),
        ("owned: ['{{ nowhere }}']", "nowhere' is undefined"),
        ("each: {b.j2: {items: [], path: x}}", "which is not in"),
        ("each: {a: {items: 3, path: x}}", "items should be a list"),
        ("each: {a: {path: x}}", "key items is missing"),
        ("[]", "should be a mapping"),
        ("files: {a: {", "not YAML"),
    ],
)
def test_mistakes_in_the_sidecar_are_one_sentence(role, sidecar, says):
    role.file("tree/a", "x")
    role.file("tree.yml", sidecar or "[]")
    with pytest.raises(TreeError, match=says):
        role.picture()


def test_a_thousand_files_render_in_well_under_a_second(role):
    role.file("tree/p.j2", "pool {{ item }} of {{ everywhere }}\n" * 30)
    role.file("tree.yml", 'each: {p.j2: {items: "{{ range(1000) | list }}", path: "etc/{{ item }}"}}')
    start = time.perf_counter()
    assert len(role.picture(everywhere="x").contents) == 1000
    assert time.perf_counter() - start < 1.5
