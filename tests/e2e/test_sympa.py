# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Robots, lists and subscribers as Sympa itself, its pages and Postfix see them."""

import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from infini.apply import playbook_path
from infini.hosts import Inventory
from infini.runner import play

INVENTORY = os.environ.get("INFINI_INVENTORY", "staging")
SYMPA = "runuser -u sympa -- sympa"  # the account that its database knows
HOME = "/var/lib/sympa/list_data"


class Lists:
    """The host with Sympa, and what the inventory says of it."""

    def __init__(self) -> None:
        self.inventory = Inventory(INVENTORY)
        self.host = self.inventory.hosts("list_servers")[0]
        self.lists = {f"{one['name']}@{one['robot']}": one for one in self.get("sympa_lists")}
        self.open = {address: one for address, one in self.lists.items() if one.get("status", "open") == "open"}

    def get(self, name: str) -> object:
        return self.inventory.get(self.host, name)

    def run(self, command: str, text: str = "", status: int = 0) -> str:
        return self.run_on(self.host, command, text, status)

    def run_on(self, host: str, command: str, text: str = "", status: int = 0) -> str:
        line = [*self.inventory.connection(host).ssh("-o", "BatchMode=yes"), f"sh -c {shlex.quote(command)}"]
        done = subprocess.run(line, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == status, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def sql(self, question: str) -> str:
        return self.run("mariadb --batch --skip-column-names sympa", question)

    def apply(self, *arguments: str, **variables: object):
        return play(playbook_path("lists"), str(self.inventory.path), variables, arguments=arguments)

    def members(self, address: str) -> set[str]:
        """Return the members as Sympa dumps them."""
        name, _, robot = address.partition("@")
        self.run(f"{SYMPA} dump --roles=member,owner,editor {address}")
        return set(re.findall(r"^email (\S+)", self.run(f"cat {HOME}/{robot}/{name}/member.dump"), re.MULTILINE))

    def page(self, robot: str, path: str) -> str:
        variables = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "/sympa",
            "PATH_INFO": path,
            "REQUEST_URI": f"/sympa{path}",
            "SERVER_NAME": robot,
            "HTTP_HOST": robot,
            "SERVER_PORT": "443",
            "HTTPS": "on",
            "REMOTE_ADDR": "192.0.2.1",
            "QUERY_STRING": "",
        }
        words = shlex.join(f"{name}={value}" for name, value in variables.items())
        return self.run(f"runuser -u sympa -- env {words} /usr/lib/cgi-bin/sympa/wwsympa.fcgi < /dev/null")


@pytest.fixture(scope="module")
def sympa():
    return Lists()


def test_sympa_makes_the_same_table_of_our_files(sympa):
    table = "SELECT * FROM list_table ORDER BY robot_list, name_list"
    ours = sympa.sql(table)
    sympa.run(f"{SYMPA} sync_list_db")
    assert sympa.sql(table) == ours


def test_sympa_dumps_the_people_that_were_declared(sympa):
    for address, one in sympa.open.items():
        sympa.members(address)
        for role, field in (("owner", "owners"), ("editor", "moderators")):
            dumped = sympa.run(f"cat {HOME}/{one['robot']}/{one['name']}/{role}.dump")
            declared = {person["email"] for person in one.get(field, [])}
            assert set(re.findall(r"^email (\S+)", dumped, re.MULTILINE)) == declared, address


def test_the_pages_show_the_lists_that_may_be_seen(sympa):
    for robot in sympa.get("sympa_robots"):
        visible = {
            one["name"] for one in sympa.open.values() if one["robot"] == robot["name"] and one["kind"] != "closed"
        }
        page = sympa.page(robot["name"], "/lists")
        assert set(re.findall(r"/sympa/info/([\w.+-]+)", page)) == visible
        assert robot["title"] in page


def test_postfix_finds_every_address_and_no_other(sympa):
    addresses = [
        *(
            f"{one['name']}{suffix}@{one['robot']}"
            for one in sympa.open.values()
            for suffix in ("", "-request", "-editor")
        ),
        *(f"sympa@{robot['name']}" for robot in sympa.get("sympa_robots")),
    ]
    found = sympa.run("postmap -q - hash:/etc/sympa/postfix/transport", "\n".join(addresses) + "\n").splitlines()
    assert {line.split("\t")[0] for line in found} == set(addresses)
    assert all(line.endswith("\tsympa:") for line in found)
    robot = sympa.get("sympa_robots")[0]["name"]
    sympa.run(f"postmap -q nobody@{robot} hash:/etc/sympa/postfix/transport", status=1)
    owner = next(iter(sympa.open)).replace("@", "-owner@")
    assert sympa.run(f"postmap -q {owner} hash:/etc/sympa/postfix/transport") == "sympabounce:"


def test_no_program_talks_soap_unless_asked(sympa):
    assert sympa.run("systemctl is-active sympasoap.socket", status=3) == "inactive"
    # Nor would a boot change that.
    assert set(sympa.run("systemctl is-enabled sympasoap.socket sympasoap.service", status=1).split()) == {"disabled"}


def test_a_message_goes_to_a_list(sympa):
    address, one = next((address, one) for address, one in sympa.open.items() if one["kind"] == "discussion")
    [member, *_] = sorted(sympa.members(address))
    folder = f"{HOME}/{one['robot']}/{one['name']}"
    before = sympa.run(f"cat {folder}/stats 2> /dev/null || echo 0").split()[0]
    text = f"From: {member}\nTo: {address}\nSubject: Bonjour\nMessage-ID: <{time.time_ns()}@x.test>\n\nBonjour.\n"
    sympa.run(f"runuser -u sympa -- /usr/lib/sympa/bin/queue {address}", text)
    end = time.monotonic() + 60
    while sympa.run(f"cat {folder}/stats 2> /dev/null || echo 0").split()[0] == before:
        assert time.monotonic() < end, "the message was not passed on within a minute"
        time.sleep(1)


def test_a_list_that_is_closed_and_opened_again_keeps_its_members(sympa):
    address = max(sympa.open)
    before, declared = sympa.members(address), list(sympa.lists.values())
    done = sympa.apply(
        sympa_lists=[one for one in declared if f"{one['name']}@{one['robot']}" != address], sympa_subscribers=""
    )
    assert done.ok
    name, _, robot = address.partition("@")
    status = f"SELECT status_list FROM list_table WHERE name_list = '{name}' AND robot_list = '{robot}'"  # noqa: S608 (ours)
    assert sympa.sql(status) == "closed"
    sympa.run(f"postmap -q {address} hash:/etc/sympa/postfix/transport", status=1)
    assert sympa.apply().ok
    assert sympa.sql(status) == "open"
    assert sympa.members(address) == before
    assert not sympa.apply().changed


def test_a_check_shows_what_a_new_file_would_do_and_does_nothing(sympa, tmp_path):
    file = Path(sympa.get("sympa_subscribers"))
    lines = file.read_text().splitlines()
    new = dict.fromkeys(lines[0].split("\t"), "") | {"list": next(iter(sympa.open)), "email": "nouvelle@dehors.test"}
    (tmp_path / "new.tsv").write_text("\n".join([*lines, "\t".join(new.values())]) + "\n")
    checked = sympa.apply("--check", sympa_subscribers=str(tmp_path / "new.tsv"))
    [result] = [entry["result"] for entry in checked.results if "Own the subscribers" in entry["task"]]
    assert (checked.ok, checked.changed, result["added"], result["removed"]) == (True, 1, 1, 0)
    assert "nouvelle@dehors.test" not in sympa.members(next(iter(sympa.open)))
    assert not sympa.apply().changed


def test_who_unsubscribes_stays_out_and_a_list_of_hand_stays(sympa):
    address = next(address for address, one in sympa.open.items() if one.get("managed"))
    robot = address.partition("@")[2]
    [gone, *_] = sorted(sympa.members(address))
    named = f"SELECT DISTINCT comment_subscriber FROM subscriber_table WHERE user_subscriber = '{gone}'"  # noqa: S608 (ours)
    name = sympa.sql(named)
    sympa.run(f"{SYMPA} del --quiet {address}", f"{gone}\n")
    xml = (
        "<list><listname>main</listname><type>discussion_list</type><subject>x</subject><description/><status>open</status>"
        f'<owner multiple="1"><email>{gone}</email></owner><topics>other</topics></list>'
    )
    sympa.run(f"cat > /run/main.xml && {SYMPA} create --input_file=/run/main.xml {robot}", xml)
    try:
        assert not sympa.apply().changed
        assert gone not in sympa.members(address)
        assert sympa.run(f"postmap -q main@{robot} hash:/etc/sympa/postfix/transport") == "sympa:"
    finally:
        sympa.run(
            f"rm -f /run/main.xml; {SYMPA} close --mode=purge main@{robot}; {SYMPA} add --quiet {address}",
            f"{gone} {name}\n",
        )
    assert not sympa.apply().changed, "what the test took away is back as it was"
