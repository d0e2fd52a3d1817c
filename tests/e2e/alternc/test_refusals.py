# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be: one sentence each, and nothing applied that is not said."""

import os
import subprocess
import time

import doors
import pytest

from infini import ROOT
from infini.hosts import locked

STATE = "/var/lib/infini-alternc"
SERVED = "/etc/apache2/alternc"

# Each set has something good beside what is bad: that is not applied either.
BAD = {
    "a login with a capital": (
        ("alternc_members", {"members": [{"login": "bonne"}, {"login": "Capitale"}], "prune": False}),
        "'Capitale' cannot be a member's login: 1 to 14 of a to z and 0 to 9, and not AlternC's own names",
    ),
    "a login of 15 letters": (
        ("alternc_members", {"members": [{"login": "bonne"}, {"login": "abcdefghijklmno"}], "prune": False}),
        "'abcdefghijklmno' cannot be a member's login: 1 to 14 of a to z and 0 to 9, and not AlternC's own names",
    ),
    "a password that breaks the policy": (
        ("alternc_members", {"members": [{"login": "bonne"}, {"login": "autre", "password": "court"}], "prune": False}),
        "the password of member autre has fewer than 9 characters: choose another, or change the policy in the panel",
    ),
    "a domain of somebody else": (
        (
            "alternc_domains",
            {
                "domains": [
                    {"name": "nouveau.example", "member": "essai"},
                    {"name": "voisin.example", "member": "essai"},
                ],
                "prune": False,
            },
        ),
        "domain voisin.example is voisin's on this panel and declared for essai: declare it for voisin, or remove it ",
    ),
    "a type that is unknown": (
        (
            "alternc_subdomains",
            {
                "subdomains": [
                    {"domain": "essai.example", "sub": "bon", "type": "url", "value": "https://exemple.test/"},
                    {"domain": "essai.example", "sub": "vieux", "type": "php44-fpm", "value": "/www/vieux"},
                ],
                "prune": False,
            },
        ),
        "sub-domain vieux.essai.example has the type php44-fpm, which this panel does not have: one of ",
    ),
    "a mailbox on a domain without mail": (
        (
            "alternc_mailboxes",
            {
                "mailboxes": [
                    {"address": "bonne@essai.example", "forwards": ["ami@exemple.test"]},
                    {"address": "contact@sanscourrier.example", "mailbox": True},
                ],
                "prune": False,
            },
        ),
        "mailbox contact@sanscourrier.example is of sanscourrier.example, which has no mail here: set mail: true in ",
    ),
    "a quota below what is in use": (
        ("alternc_quotas", {"members": {"voisin": {"dom": 9}, "essai": {"dom": 1}}}),
        "member essai has 2 of quota dom and may have 1: allow 2, or remove some first",
    ),
    "more domains than the quota allows": (
        (
            "alternc_domains",
            {"domains": [{"name": f"trop{n}.example", "member": "essai"} for n in range(4)], "prune": False},
        ),
        "member essai has 2 domains, may have 5 and would get 4 more: raise dom in alternc_quotas first",
    ),
}
GOOD = ("alternc_members", {"members": [{"login": "bonne", "name": "Bonne"}], "prune": False})
WHOLE = ("alternc_export", {})


def whole(folder, inventory):
    """Return everything that the panel holds."""
    return doors.made(folder, inventory.path, "panel", WHOLE)[0]["data"]


@pytest.fixture(scope="module")
def policy(panel):
    """Have AlternC ask for members' passwords of nine characters."""
    row = "SELECT minsize, maxsize, classcount, allowlogin FROM policy WHERE name = 'mem'"
    before = panel.sql(row)
    panel.sql("REPLACE INTO policy (name, minsize, maxsize, classcount, allowlogin) VALUES ('mem', 9, 64, 0, 0)")
    yield
    panel.sql("DELETE FROM policy WHERE name = 'mem'")
    for values in before:
        panel.sql(f"INSERT INTO policy VALUES ('mem', {', '.join(values)})")  # noqa: S608 (its own numbers)


@pytest.fixture(scope="module")
def refused(members, policy, inventory, tmp_path_factory):  # noqa: ARG001 (policy has only to be there)
    """Ask for each impossible thing; give what was said of it, and what the panel held before and after."""
    folder = tmp_path_factory.mktemp("refused")
    without = {"name": "sanscourrier.example", "member": members[0].login, "mail": False}
    doors.made(folder, inventory.path, "panel", ("alternc_domains", {"domains": [without], "prune": False}))
    before = whole(folder, inventory)
    said = {name: doors.run(folder, inventory.path, "panel", task)[-1] for name, (task, _sentence) in BAD.items()}
    return said, before, whole(folder, inventory)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_one_sentence(refused, name):
    said = refused[0][name]
    assert said["failed"]
    assert len(said["msg"].splitlines()) == 1
    assert said["msg"].startswith(BAD[name][1])


def test_and_nothing_of_it_was_applied(refused):
    _said, before, after = refused
    assert after == before


def test_a_database_that_is_down(panel, inventory, tmp_path):
    panel.run("systemctl stop mariadb.service")
    try:
        said = doors.run(tmp_path, inventory.path, "panel", GOOD)[-1]
        assert said["msg"].startswith("the panel database does not answer (ERROR 2002")
        assert said["msg"].endswith("is mariadb.service started?")
        assert len(said["msg"].splitlines()) == 1
    finally:
        panel.run("systemctl start mariadb.service")
    assert not panel.sql("SELECT 1 FROM membres WHERE login = 'bonne'")


def test_an_installation_that_holds_its_lock(panel, inventory, tmp_path):
    panel.run("touch /run/alternc/jobs-lock")
    try:
        said = doors.run(tmp_path, inventory.path, "panel", GOOD)[-1]
        assert said["msg"].startswith("AlternC is locked by an installation that runs or was left in its middle")
        assert said["msg"].endswith("nothing was changed")
    finally:
        panel.run("rm -f /run/alternc/jobs-lock")
    assert not panel.sql("SELECT 1 FROM membres WHERE login = 'bonne'")


def test_a_second_apply_is_refused_in_one_sentence(inventory):
    with locked(inventory, "panels"):
        command = [str(ROOT / "infini"), "apply", "panel", "--limit", "panels"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert said.startswith("✗ Another run is at work: panel by ")
    assert said.endswith("Wait for its end, then run the command again")


def test_two_batches_at_once_wait_for_each_other(panel, members, inventory, tmp_path):
    batches = []
    for member in members:
        folder = tmp_path / member.login
        folder.mkdir()
        rows = [
            {"domain": member.domain, "sub": f"lot{number}", "type": "url", "value": f"https://exemple.test/{number}"}
            for number in range(25)
        ]
        task = ("alternc_subdomains", {"subdomains": rows, "prune": False, "scope": [member.login]})
        batches.append(doors.start(folder, inventory.path, "panel", task))
    for batch in batches:
        said, _errors = batch.communicate()
        assert batch.returncode == 0, said
    assert panel.sql("SELECT COUNT(*) FROM sub_domaines WHERE sub LIKE 'lot%' AND web_action <> 'DELETE'") == [["50"]]
    last = f"lot24.{members[1].domain}"
    assert panel.until(lambda: panel.page(last)[2].startswith("https://exemple.test/24")), panel.problems()


def test_two_runs_of_the_engine_at_once(panel, members):
    members[0].again("www")
    panel.run(
        'for i in 1 2 3 4; do alternc-apply now & pids="$pids $!"; done; for p in $pids; do wait $p || exit 1; done'
    )
    assert not panel.sql("SELECT 1 FROM sub_domaines WHERE web_action <> 'OK'")
    began = time.monotonic()
    panel.run("flock /run/alternc-apply.lock sleep 4 & sleep 0.5; alternc-apply now")
    assert time.monotonic() - began > 3, "the second one waits"
    assert panel.problems() == ""


class Disk:
    """A small disk of its own over a directory, with what this holds and no room for more."""

    def __init__(self, panel):
        self.panel, self.directory = panel, ""

    def fill(self, directory):
        """Leave no room, which ends `cat` with an error; nobody but the test runs the engine meanwhile."""
        self.directory = directory
        self.panel.run(
            f"systemctl stop alternc-apply.timer alternc-apply.path; mkdir /var/kept; cp -a {directory}/. /var/kept/;"
            f" mount -t tmpfs -o size=$(($(du -sk {directory} | cut -f1) + 64))k,mode=0755 none {directory};"
            f" cp -a /var/kept/. {directory}/; rm -r /var/kept; cat /dev/zero >{directory}/.full; true"
        )

    def free(self):
        """Have the directory as it was."""
        self.panel.run(
            f"mountpoint -q {self.directory} && umount {self.directory};"
            " systemctl start alternc-apply.timer alternc-apply.path"
        )


@pytest.fixture
def disk(panel):
    """Give a disk to fill up; there is room again afterwards."""
    found = Disk(panel)
    yield found
    found.free()


def test_a_disk_that_is_full_where_virtual_hosts_are_served(panel, members, disk):
    here, next_door = (member.site("plein") for member in members)
    for name in (here, next_door):
        assert panel.until(lambda name=name: panel.page(name)[0] == 200), panel.problems()
    disk.fill(SERVED)
    members[0].set("apresplein", "url", "https://exemple.test/plein")
    said = panel.run("alternc-apply now 2>&1 >/dev/null", check=False)
    assert len(said.splitlines()) == 1, said
    assert "No space left on device" in said
    assert said in panel.problems()
    assert [panel.page(name)[0] for name in (here, next_door)] == [200, 200]
    panel.run("systemctl reload apache2.service")
    assert [panel.page(name)[0] for name in (here, next_door)] == [200, 200]
    disk.free()
    panel.run("alternc-apply now")
    assert panel.page(f"apresplein.{members[0].domain}")[2].startswith("https://exemple.test/plein")
    assert panel.problems() == ""


def test_a_disk_that_is_full_where_the_engine_remembers(panel, members, disk):
    disk.fill(STATE)
    members[0].set("memoire", "url", "https://exemple.test/memoire")
    said = panel.run("alternc-apply now 2>&1 >/dev/null", check=False).splitlines()
    assert said
    assert all("No space left on device" in line for line in said), "the state, and the names for the front"
    name = f"memoire.{members[0].domain}"
    assert panel.page(name)[2].startswith("https://exemple.test/memoire"), "what was asked is applied all the same"
    disk.free()
    panel.run("alternc-apply now")
    assert panel.problems() == ""
