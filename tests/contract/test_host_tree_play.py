# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_tree through ansible-playbook itself, on a host that is a mount namespace with an empty /var/lib."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
HERE = "/var/lib/picture"

ROLE = {
    "tasks/main.yml": """
- name: Write the tree
  host_tree:
    prune: "{{ prune | default(true) }}"
    left: "{{ left | default(omit) }}"
""",
    "handlers/main.yml": """
- name: Reload demo
  ansible.builtin.command: "{{ reload | default('true') }}"
  changed_when: false # what counts is the tree's own change
- name: Restart demo
  ansible.builtin.command: "true"
  changed_when: false # likewise
""",
    f"tree{HERE}/demo.conf.j2": (
        "# {{ ansible_managed }}\nword = {{ word | b64encode }}{{ word is match('h') }}\n"
        "{% if never %}{{ broken }}{% endif %}\n"
    ),
    f"tree{HERE}/pools/[pool].conf.j2": "{{ pool }}\n",
    f"tree{HERE}/key.j2": "{{ key }}\n",
    f"tree{HERE}/limits.j2": "{{ limits }}\n",
    "tree.yml": f"""
files: {{"**/key": {{mode: "0600", secret: true}}, "**/limits": {{when: "{{{{ limits > 0 }}}}"}}}}
each:
  "{HERE[1:]}/pools/[pool].conf.j2":
    items: "{{{{ pools }}}}"
    as: pool
    path: "{HERE[1:]}/pools/{{{{ pool }}}}.conf"
owned: ["{HERE[1:]}/pools"]
validate:
  - {{files: ["**/demo.conf"], command: [sh, -c, "{{{{ judge }}}}"]}}
  - {{files: ["**/pools/*"], command: [sh, -c, "! grep -rH bad {HERE}/pools"], quarantine: true}}
notify: {{"**/demo.conf": Reload demo, "**/limits": Restart demo}}
""",
}
PLAY = """
- name: Demo
  hosts: all
  gather_facts: false
  roles: [demo]
  handlers:
    - name: Confirm the trees
      host_tree: {confirm: true}
"""
VARIABLES = {
    "ansible_connection": "local",
    "ansible_python_interpreter": sys.executable,
    "word": "hello",
    "key": "S3CRET",
    "pools": ["{{ word }}1", "{{ word }}2"],
    "limits": 0,
    "never": False,
    "broken": "{{ nowhere }}",
    "judge": "true",
}


class Host:
    """A mount namespace of its own, kept by a sleeping process."""

    def __init__(self, directory):
        self.directory = directory
        roles = directory / "roles/demo"
        for name, text in ROLE.items():
            (roles / name).parent.mkdir(parents=True, exist_ok=True)
            (roles / name).write_text(text)
        (directory / "play.yml").write_text(PLAY)
        (directory / "hosts.json").write_text(json.dumps({"all": {"hosts": {"picture": {}}, "vars": VARIABLES}}))
        self.keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /var/lib && echo ready && exec sleep 600"],
            stdout=subprocess.PIPE,
        )
        assert self.keeper.stdout.readline() == b"ready\n"

    def run(self, *command, **more):
        return subprocess.run(
            ["nsenter", "--mount", "--target", str(self.keeper.pid), *command], capture_output=True, text=True, **more
        )

    def play(self, *options, **variables):
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(self.directory / "roles"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        }
        command = [PLAYBOOK, "-i", "hosts.json", "play.yml", "-e", json.dumps(variables), *options]
        done = self.run("env", f"--chdir={self.directory}", *map(str, command), env=environment, check=False)
        tasks = json.loads(done.stdout)["plays"][0]["tasks"]
        ran = {task["task"]["name"].removeprefix("demo : "): task["hosts"]["picture"] for task in tasks}
        return ran, done.stdout

    def read(self, name):
        return self.run("cat", f"{HERE}/{name}", check=True).stdout

    def close(self):
        self.keeper.kill()
        self.keeper.wait()
        self.keeper.stdout.close()


@pytest.fixture
def host(tmp_path):
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("a mount namespace needs root and unshare")
    host = Host(tmp_path)
    yield host
    host.close()


def test_a_role_from_first_check_to_recovery(host):
    # Check mode on the empty host: a diff, the handler named, nothing written, no secret.
    ran, out = host.play("--check", "--diff")
    assert ran["Write the tree"]["changed"]
    assert "Reload demo" in ran
    assert "+word = aGVsbG8=True" in "".join(one["prepared"] for one in ran["Write the tree"]["diff"])
    assert "S3CRET" not in out
    assert host.run("ls", "/var/lib").stdout == ""

    # The handler breaks: the next run owes it, the one after does not.
    ran, _out = host.play(reload="false")
    assert ran["Write the tree"]["changed"]
    assert ran["Reload demo"]["failed"]
    assert "Confirm the trees" not in ran
    ran, _out = host.play()
    assert ran["Write the tree"]["pending"] == ["Reload demo"]
    assert {"Reload demo", "Confirm the trees"} < set(ran)
    ran, _out = host.play()
    assert set(ran) == {"Write the tree"}
    assert not ran["Write the tree"]["changed"]

    # A file that no handler waits for calls none.
    ran, _out = host.play(pools=["a", "hello1", "hello2"])
    assert (ran["Write the tree"]["changed"], set(ran)) == (True, {"Write the tree"})

    # A judge that says no, then one that is killed together with everything else.
    before = host.read("demo.conf")
    ran, _out = host.play(word="bye", pools=["a"], judge="echo oops; exit 1")
    assert "every file was put back as it was: oops" in ran["Write the tree"]["msg"]
    assert host.read("demo.conf") == before
    host.play(word="bye", pools=["a"], judge="kill -9 $PPID")
    assert host.read("demo.conf") != before
    ran, _out = host.play("--check", pools=["a", "hello1", "hello2"])
    assert "an earlier run was interrupted" in ran["Write the tree"]["msg"]
    ran, _out = host.play(pools=["a", "hello1", "hello2"])
    assert ran["Write the tree"]["put_back"]
    assert host.read("demo.conf") == before

    # An edit by hand is refused by name, and given up by name.
    host.run("sh", "-c", f"echo mine >> {HERE}/demo.conf; echo S3CRET too >> {HERE}/key")
    ran, out = host.play("--diff", pools=["a", "hello1", "hello2"])
    assert f"--overwrite {HERE}/demo.conf" in ran["Write the tree"]["msg"]
    assert "-mine" in ran["Write the tree"]["msg"]
    assert "S3CRET" not in out
    ran, _out = host.play(pools=["a", "hello1", "hello2"], host_tree_overwrite=f"{HERE}/**")
    assert ran["Write the tree"]["changed"]
    assert host.read("demo.conf") == before


def test_an_undefined_variable_is_one_sentence(host):
    ran, _out = host.play(never=True)
    assert "demo.conf.j2: the variable broken cannot be had" in ran["Write the tree"]["msg"]

    # A restart reads everything: the reload that would follow is left out.
    ran, _out = host.play(word="hi", limits=1)
    assert {"Restart demo", "Reload demo"} & set(ran) == {"Restart demo"}


def test_a_bad_file_stays_out_alone_and_old_ones_wait(host):
    host.play(pools=["a", "old"])
    ran, out = host.play(pools=["a", "bad", "new"], prune=False)
    task = ran["Write the tree"]
    assert [one["path"] for one in task["changes"]] == [f"{HERE}/pools/new.conf"]
    assert task["left"] == [f"{HERE}/pools/old.conf"]
    assert task["quarantined"] == [{"path": f"{HERE}/pools/bad.conf", "reason": f"{HERE}/pools/bad.conf:bad"}]
    assert f"{HERE}/pools/bad.conf was refused and stands as before" in out
    ran, _out = host.play("--check", left=task["left"])
    assert [one["path"] for one in ran["Write the tree"]["changes"]] == [f"{HERE}/pools/old.conf"]
    ran, _out = host.play(left=task["left"])
    assert ran["Write the tree"]["changed"]
    assert ran["Write the tree"]["quarantined"] == task["quarantined"]
    for mode in (["--check"], []):
        ran, _out = host.play(*mode, pools=["a", "bad", "new"])
        assert not ran["Write the tree"]["changed"]
        assert ran["Write the tree"]["quarantined"] == task["quarantined"]
    assert host.run("ls", f"{HERE}/pools").stdout.split() == ["a.conf", "new.conf"]
