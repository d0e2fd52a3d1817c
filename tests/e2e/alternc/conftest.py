# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel as its members, their visitors and its host see it; the same tests run on the stand-in and the real one."""

import contextlib
import http.client
import json
import ssl
import subprocess
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest
from members import ToAddress

PRELUDE = """<?php
require_once("/usr/share/alternc/panel/class/config_nochk.php");
$admin->enabled = 1;
$mem->setid(2000);
function said() { global $msg; return trim($msg->msg_str()); }
"""
RECORD = Path(__file__).with_name("real.json")
"""When each test last passed on the real AlternC, and on which version of it."""
PATIENCE = 60
"""Seconds after which something does not come any more; a fault may take as long as the timer and a stale lock."""


class Panel:
    """The host with the panel: what its operator and its database see."""

    def __init__(self, inventory, host, ca_file):
        self.connection = inventory.connection(host)
        self.address = inventory.get(host, "hosting_ipv4")
        self.fqdn = inventory.get(host, "alternc_fqdn")
        self.trust = ssl.create_default_context(cafile=ca_file)

    def run(self, command, text="", check=True):
        """Run a shell command as root and return what it says."""
        line = self.connection.ssh("-o", "BatchMode=yes")
        done = subprocess.run([*line, command], input=text, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def sql(self, statement):
        """Run a statement in the panel's database; return rows of words."""
        out = self.run("mariadb --defaults-file=/etc/alternc/my.cnf --batch --skip-column-names", statement)
        return [line.split("\t") for line in out.splitlines()]

    def php(self, code):
        """Run PHP over AlternC's classes as the panel does; return what it echoes as JSON."""
        out = self.run("runuser -u alterncpanel -- php", PRELUDE + code)
        return json.loads(out.splitlines()[-1])

    def page(self, name, path="/"):
        """Ask for a page over plain HTTP, as a visitor does."""
        connection = http.client.HTTPConnection(self.address, timeout=20)
        try:
            connection.request("GET", path, headers={"Host": name})
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace"), answer.getheader("Location", "")
        except OSError as problem:
            return 0, repr(problem), ""
        finally:
            connection.close()

    def secure(self, name=""):
        """Connect to a site by HTTPS as a browser does; without a name, to the panel itself."""
        return contextlib.closing(ToAddress(self.address, name or self.fqdn, self.trust, 20))

    def secure_page(self, name="", path="/", **headers):
        """Ask for a page over HTTPS; return status, text and headers, or 0 and why there is none."""
        with self.secure(name) as connection:
            try:
                connection.request(
                    "GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()}
                )
                answer = connection.getresponse()
                return answer.status, answer.read().decode("utf-8", "replace"), answer.headers
            except OSError as problem:
                return 0, repr(problem), {}

    def answer(self, name, kind="A"):
        """Ask the panel's name server."""
        try:
            asked = dns.query.udp(dns.message.make_query(name, kind), self.address, timeout=2)
        except (dns.exception.Timeout, OSError):
            return []
        return [str(record) for rrset in asked.answer for record in rrset]

    def problems(self):
        """Return what the engine says is wrong."""
        return self.run("alternc-apply check", check=False)

    def generation(self):
        """Return what changes when Apache reads its configuration."""
        return self.run("stat -c %i /run/apache2/apache2.pid")

    def until(self, done, seconds=PATIENCE):
        """Wait for something, and return it."""
        end = time.monotonic() + seconds
        while not (there := done()) and time.monotonic() < end:
            time.sleep(0.3)
        return there


@dataclass
class Member:
    """A member with a domain."""

    panel: Panel
    login: str
    uid: int
    domain: str

    def set(self, sub, kind, value="", https=""):
        """Give a sub-domain a type and a value beside those that it has."""
        return self._set(sub, kind, value, https, f"AND type = '{kind}'")

    def switch(self, sub, kind, value, https="http"):
        """Give a site another type, as the panel's page does."""
        return self._set(sub, kind, value, https, "")

    def _set(self, sub, kind, value, https, which):
        find = "SELECT id FROM sub_domaines WHERE domaine = ? AND sub = ? AND web_action <> 'DELETE' " + which  # noqa: S608 (ours)
        return self.panel.php(
            f"""$mem->su({self.uid}); $dom->lock();
            $db->query("{find}", array("{self.domain}", "{sub}"));
            $found = $db->next_record() ? $db->f("id") : 0;
            $ok = $dom->set_sub_domain("{self.domain}", "{sub}", "{kind}", "{value}", $found, "{https}");
            $dom->unlock(); echo json_encode(array((bool)$ok, said()));"""
        )

    def again(self, sub):
        """Have a sub-domain applied once more."""
        which = f"domaine = '{self.domain}' AND sub = '{sub}'"
        self.panel.sql("UPDATE sub_domaines SET web_action = 'UPDATE' WHERE " + which)  # noqa: S608 (ours)

    def site(self, sub, version="8.2", https="http"):
        """Make a site that says its version of PHP and its user; return its name."""
        directory = "/www/" + sub.replace("*", "tous")
        assert self.set(sub, f"php{version.replace('.', '')}-fpm", directory, https)[0]
        name, home = f"{sub}.{self.domain}", f"/var/www/alternc/{self.login[0]}/{self.login}"
        self.panel.run(
            f"cd {home}; mkdir -p .{directory}; cat >.{directory}/index.php; u={self.uid}; chown -R $u:$u .{directory}",
            "<?php echo 'PHP ' . PHP_VERSION . ' user ' . posix_geteuid();",
        )
        return name


@pytest.fixture(scope="session")
def panel(inventory, ca_file):
    """Give the panel's host."""
    return Panel(inventory, inventory.hosts("panels")[0], ca_file)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Let a fixture know whether the test itself passed."""
    report = yield
    if call.when == "call":
        item.passed = report.passed
    return report


@pytest.fixture(scope="session")
def version(panel):
    """Give the version of AlternC on the panel; a stand-in says so in its own."""
    return panel.run("dpkg-query --show --showformat='${Version}' alternc")


@pytest.fixture(autouse=True)
def proven(request, version):
    """Trust the stand-in only for what the real AlternC has shown too; on the real one, write down what it shows."""
    record, name = json.loads(RECORD.read_text()), request.node.name
    if "standin" in version:
        mend = "ALTERNC_REPOSITORY=… ./infini test alternc"
        assert name in record, f"{name} never passed on the real AlternC: {mend}"
        yield
        return
    yield
    record.pop(name, None)
    if request.node.passed:
        record[name] = {"version": version, "date": date.today().isoformat()}
    RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


@pytest.fixture(scope="module")
def members(panel):
    """Make two members, each with a domain; they are gone afterwards."""
    made = []
    for login in ("essai", "voisin"):
        uid = panel.php(
            f"""$uid = $admin->add_mem("{login}", "Chat-noir-7-{login}", "Nom", "Prénom", "{login}@exemple.test", 1,
                "default", 0, "", 1, 0, 1);
            if ($uid) {{ $mem->su($uid); $quota->setquota("dom", 5); $get_quota_cache = null;
                $dom->lock(); $dom->add_domain("{login}.example", 1, 0, 1); $dom->unlock(); }}
            echo json_encode(array($uid ? (int)$uid : 0, said()));"""
        )
        assert uid[0], uid
        made.append(Member(panel, login, uid[0], f"{login}.example"))
    yield made
    for member in made:
        panel.php(f"""$mem->su({member.uid}); $admin->del_mem({member.uid}); echo json_encode(true);""")
    panel.run("alternc-apply now", check=False)


@pytest.fixture(autouse=True)
def settled(panel):
    """Begin and end with nothing left to apply: a test that leaves a fault behind is itself at fault."""
    yield
    assert panel.until(lambda: not panel.run("alternc-apply now 2>&1 >/dev/null", check=False)), panel.problems()
