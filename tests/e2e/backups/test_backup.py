# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of real hosts in a real store: what comes back, and what every fault leaves behind."""

import contextlib
import json
import secrets
import shlex
import time

import pytest
from members import site_of

LARGE = 400
"""Megabytes that keep a copy or a restore busy for as long as it takes to kill it."""


class Client:
    """A host that is backed up."""

    def __init__(self, host):
        self.host = host

    def run(self, command):
        return self.host.check_output(command).strip()

    def ask(self, command, request=None):
        """Run infini-backup; return its exit status and its answer."""
        line = f"infini-backup {command}"
        if request is not None:
            line = f"echo {shlex.quote(json.dumps(request))} | {line}"
        done = self.host.run(line)
        return done.rc, json.loads(done.stdout)

    def back_up(self, *services):
        status, answer = self.ask(f"run {' '.join(services)}")
        assert status == 0, answer
        return answer["services"]

    def restore(self, **request):
        status, answer = self.ask("restore", request)
        assert status == 0, answer
        return answer

    def refusal(self, **request):
        status, answer = self.ask("restore", request)
        assert status == 2, answer
        return answer

    def findings(self, **request):
        return self.ask("compare", request)[1]["findings"]

    def text(self, path):
        return self.run(f"cat {shlex.quote(path)}")

    def sql(self, statement, database=""):
        return self.run(f"mariadb -NBe {shlex.quote(statement)} {database}")

    @contextlib.contextmanager
    def meanwhile(self, script):
        """Run a script of the shell over and over beside us."""
        unit = f"test-{secrets.token_hex(4)}"
        self.run(f"systemd-run --quiet --unit {unit} sh -c {shlex.quote(f'while true; do {script}; done')}")
        try:
            yield
        finally:
            self.run(f"systemctl stop {unit}")

    def kill_when(self, command, sign, request=""):
        """Start infini-backup and kill all of it once a sign is seen; say whether it was still at work."""
        unit = f"test-{secrets.token_hex(4)}"
        line = f"echo {shlex.quote(request)} | /usr/local/sbin/infini-backup {command}"
        self.run(f"systemd-run --quiet --unit {unit} sh -c {shlex.quote(line)}")
        end = time.monotonic() + 60
        while self.host.run(sign).rc and time.monotonic() < end:
            time.sleep(0.1)
        self.run(f"systemctl kill --signal=KILL {unit}")
        result = self.run(f"systemctl show -P Result {unit}")
        self.host.run(f"systemctl reset-failed {unit}")
        return result == "signal"


@pytest.fixture(scope="module")
def client(web):
    return Client(web)


@pytest.fixture(scope="module")
def site(web, two_accounts):
    with site_of(web, two_accounts[0]) as site:
        yield site


@pytest.fixture(scope="module", autouse=True)
def first(client, site):
    """Have one backup of everything, with our directory in it; clear away what the tests restored."""
    client.run("rm -rf /srv/restored")
    yield client.back_up()
    client.run("rm -rf /srv/restored")
    for name in client.sql("SHOW DATABASES").split():
        if name.startswith((f"{site.account}_2", "test_")):
            client.sql(f"DROP DATABASE `{name}`")


@pytest.fixture
def desk(client):
    """Give the path of a folder that is not there yet."""
    path = f"/srv/desk-{secrets.token_hex(4)}"
    yield path
    client.run(f"rm -rf {path}")


@pytest.fixture
def large(client, site):
    """Have a large new file among the member's."""
    client.run(f"head -c {LARGE}M /dev/urandom > {site.path}/large")
    yield f"{site.path}/large"
    client.run(f"rm -f {site.path}/large")


def test_every_service_is_backed_up_and_checks_are_green(client, first):
    declared = {one["service"] for one in client.ask("services")[1]}
    assert set(first) == declared >= {"accounts", "base", "mariadb"}
    assert all(one["last"]["archive"] for one in client.ask("services")[1])
    assert client.ask("check") == (0, [])
    names = [one["archive"] for one in client.ask("archives")[1]]
    assert {one["archive"] for one in first.values()} <= set(names)


def test_a_second_run_sends_next_to_nothing(client, first):
    again = client.back_up("accounts")["accounts"]
    assert first["accounts"]["bytes"] > 10**7
    assert again["new_bytes"] < first["accounts"]["bytes"] / 100


def test_what_stands_on_the_host_is_what_the_archives_say(client, first):
    found = {service: client.findings(service=service, paths=[], databases=[]) for service in first}
    assert set(map(str, found.values())) == {"[]"}
    assert client.findings(service="mariadb") == []


def test_the_panel_is_backed_up_with_its_members_and_comes_back(inventory, host):
    panel = Client(host(inventory.hosts("panels")[0]))
    panel.back_up("alternc")
    before = panel.sql("SELECT COUNT(*), GROUP_CONCAT(login ORDER BY login) FROM membres", "alternc")
    acl = panel.run("getfacl -R /var/www/alternc/e | md5sum")
    panel.sql("DELETE FROM membres WHERE login = 'ecole'", "alternc")
    panel.run("rm -r /var/www/alternc/e")
    assert {one["code"] for one in panel.findings(service="alternc")} >= {"count", "table_rows"}
    answer = panel.restore(service="alternc", over=True)
    assert panel.sql("SELECT COUNT(*), GROUP_CONCAT(login ORDER BY login) FROM membres", "alternc") == before
    assert panel.run("getfacl -R /var/www/alternc/e | md5sum") == acl
    for _path, aside in answer["replaced"]:
        assert panel.host.file(aside).exists
    panel.run("rm -rf /srv/restored")


def test_one_site_comes_back_beside_with_its_database(client, site, desk):
    beside = f"test_{secrets.token_hex(4)}"
    answer = client.restore(service="accounts", paths=[site.path], to=desk)
    assert answer["files"] >= 3
    assert client.text(f"{desk}{site.path}/plain.txt") == "plain"
    stat = "stat -c '%U %G %a' {}"
    assert client.run(stat.format(f"{desk}{site.path}/plain.txt")) == client.run(stat.format(f"{site.path}/plain.txt"))
    client.restore(service="mariadb", databases={site.account: beside})
    tables = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{}'"
    assert client.sql(tables.format(beside)) == client.sql(tables.format(site.account)) != "0"
    assert client.findings(service="accounts", paths=[site.path], to=desk) == []
    assert client.findings(service="mariadb", databases={site.account: beside}) == []


def test_what_was_broken_after_a_restore_is_seen(client, site, desk):
    client.restore(service="accounts", paths=[site.path], to=desk)
    inside = f"{desk}{site.path}"
    client.run(f"touch -r {inside}/plain.txt {desk}/stamp && printf PLAIN > {inside}/plain.txt")
    client.run(f"touch -r {desk}/stamp {inside}/plain.txt && chown root {inside}/who.php")
    # A folder's own time tells when something left it: here it says, as in a bad archive, that nothing did.
    client.run(f"touch -r {inside} {desk}/stamp && rm {inside}/.htaccess && touch -r {desk}/stamp {inside}")
    found = {one["code"] for one in client.findings(service="accounts", paths=[site.path], to=desk)}
    assert found == {"content", "owner", "missing"}


def test_a_hacked_site_goes_back_to_before_and_what_stood_there_is_kept(client, site, visit):
    client.run(f"echo hacked > {site.path}/plain.txt; echo shell > {site.path}/shell.php")
    client.sql("DROP TABLE spip_articles", site.account)
    files = client.restore(service="accounts", paths=[site.path], over=True)
    assert visit(site, "plain.txt")[:2] == (200, "plain")
    assert not client.host.file(f"{site.path}/shell.php").exists
    [(path, aside)] = files["replaced"]
    assert (path, client.text(f"{aside}/shell.php")) == (site.path, "shell")
    client.restore(service="mariadb", databases=[site.account], over=True)
    assert client.findings(service="mariadb", databases=[site.account]) == []
    assert client.sql("SELECT COUNT(*) FROM spip_articles", site.account) != "0"
    assert f"infini user={site.account}" in client.sql(f"SHOW CREATE DATABASE {site.account}")


def test_one_file_of_before_a_date(client, site, desk):
    file = f"{site.path}/diary.txt"
    client.run(f"echo first > {file}")
    client.back_up("accounts")
    before = int(client.run("date +%s"))
    time.sleep(1)
    client.run(f"echo second > {file}")
    client.back_up("accounts")
    answer = client.restore(service="accounts", paths=[file], before=before, to=desk)
    assert (answer["files"], client.text(desk + file)) == (1, "first")
    newest = client.restore(service="accounts", paths=[file], to=f"{desk}/new")
    assert client.text(f"{desk}/new{file}") == "second"
    assert newest["archive"] > answer["archive"]


def test_keys_of_signed_zones_come_back(client):
    keys = "ls /var/lib/knot/keys/keys | sort"
    before = client.run(keys)
    client.back_up("dns_primary")
    client.run("systemctl stop knot && rm -rf /var/lib/knot/keys && systemctl start knot && sleep 2")
    client.restore(service="dns_primary", over=True)
    assert set(before.split()) <= set(client.run(keys).split())
    client.run("systemctl is-active knot")


# --- faults: one code each, nothing lost, the next run goes on ------------------------------------------------------


@contextlib.contextmanager
def changed(client, path, script):
    """Change a file of the host, and put it back."""
    client.run(f"cp -a {path} /run/kept && {script}")
    try:
        yield
    finally:
        client.run(f"mv /run/kept {path}")


def goes_on(client):
    """See that the next run is fine, with everything that was there before."""
    before = len(client.ask("archives")[1])
    client.back_up("sites")
    assert len(client.ask("archives")[1]) == before + 1
    assert client.ask("check") == (0, [])


@pytest.mark.parametrize(
    ("path", "script", "code"),
    [
        ("/etc/infini-backup/passphrase", "echo wrong > /etc/infini-backup/passphrase", "key_wrong"),
        ("/etc/infini-backup/passphrase", "rm /etc/infini-backup/passphrase", "key_missing"),
        ("/etc/infini-backup/id_ed25519", "rm /etc/infini-backup/id_ed25519", "store_refused"),
        ("/etc/infini-backup/known_hosts", "echo > /etc/infini-backup/known_hosts", "store_key_changed"),
    ],
)
def test_a_wrong_or_missing_key_is_said(client, path, script, code):
    with changed(client, path, script):
        status, answer = client.ask("run sites")
        assert (status, answer["code"]) == (4, code)
        if code != "key_missing":
            assert code in client.host.run("infini-backup check").stdout
    goes_on(client)


def test_a_store_that_cannot_be_reached_is_said(client, inventory):
    store = inventory.hosts("backup_stores")[0]
    addresses = [inventory.get(store, key) for key in ("hosting_ipv4", "hosting_ipv6")]
    try:
        for address in addresses:
            client.run(f"ip route add unreachable {address}")
        status, answer = client.ask("run sites")
    finally:
        for address in addresses:
            client.run(f"ip route del unreachable {address}")
    assert (status, answer["code"]) == (4, "store_unreachable")
    goes_on(client)


def test_a_clock_that_is_behind_is_refused(client):
    """All hosts of a bench share one clock: it is the memory of the last run that is set."""
    state = "/var/lib/infini-backup/state.json"
    later = json.loads(client.text(state))
    later["services"]["sites"]["good"] += 86400
    with changed(client, state, f"echo {shlex.quote(json.dumps(later))} > {state}"):
        status, answer = client.ask("run sites")
        assert (status, answer["code"]) == (2, "clock_behind")
        assert client.ask("accept") == (0, {"accepted": later["services"]["sites"]["good"]})
        client.back_up("sites")
    goes_on(client)


def test_two_at_once_the_second_is_refused(client):
    client.run("systemd-run --quiet --unit test-lock flock /run/infini-backup.lock sleep 60")
    try:
        status, answer = client.ask("run sites")
        assert (status, answer) == (2, {"code": "busy"})
        assert client.refusal(service="sites") == {"code": "busy"}
    finally:
        client.run("systemctl stop test-lock")
    goes_on(client)


@pytest.mark.usefixtures("large")
def test_a_backup_that_is_killed_is_made_good_by_the_next(client):
    archives = client.ask("archives")[1]
    assert client.kill_when("run accounts", "pgrep -f '^/usr/bin/python3 /usr/bin/borg create|borg create'")
    assert client.ask("archives")[1] == archives
    client.back_up("accounts")
    assert not client.host.file("/var/lib/infini-backup/accounts.begun").exists
    goes_on(client)


def test_a_restore_that_is_killed_is_undone_by_the_next(client, site, large):
    client.back_up("accounts")
    client.run(f"echo living > {site.path}/plain.txt")
    request = json.dumps({"service": "accounts", "paths": [site.path], "over": True})
    assert client.kill_when("restore", f"ls /srv/restored/.*-*{site.path}/large", request)
    assert client.text(f"{site.path}/plain.txt") == "living"
    assert client.host.file("/var/lib/infini-backup/restoring.json").exists
    client.back_up("sites")
    assert not client.host.file("/var/lib/infini-backup/restoring.json").exists
    assert client.run("find /srv/restored -maxdepth 1 -name '.2*'") == ""
    client.restore(service="accounts", paths=[site.path], over=True)
    assert client.text(f"{site.path}/plain.txt") == "plain"
    assert client.run(f"stat -c %s {large}") == str(LARGE << 20)


def test_a_database_that_comes_and_goes_meanwhile_is_no_failure(client):
    again = "mariadb -e 'CREATE DATABASE IF NOT EXISTS test_brief; CREATE TABLE IF NOT EXISTS test_brief.a (b INT);"
    with client.meanwhile(f"{again} DROP DATABASE test_brief'"):
        client.back_up("mariadb")
    client.sql("DROP DATABASE IF EXISTS test_brief")
    client.back_up("mariadb")
    assert client.findings(service="mariadb") == []


def test_files_that_are_renamed_meanwhile_are_not_called_lost(client, site, desk):
    client.run(f"mkdir -p {site.path}/box && touch {site.path}/box/$(seq -s ' {site.path}/box/' 1 5)")
    with client.meanwhile(f"mv {site.path}/box/1 {site.path}/box/1,S; mv {site.path}/box/1,S {site.path}/box/1"):
        client.back_up("accounts")
    client.restore(service="accounts", paths=[site.path], to=desk)
    assert client.findings(service="accounts", paths=[site.path], to=desk) == []
    assert "5" in client.run(f"ls {desk}{site.path}/box").split()


def test_too_little_space_is_said_before_a_byte_is_written(client, site, desk):
    client.run(f"mkdir {desk} && mount -t tmpfs -o size=1m tmpfs {desk}")
    try:
        parent = site.path.rpartition("/")[0]
        refusal = client.refusal(service="accounts", paths=[parent], to=f"{desk}/site")
        assert refusal["code"] == "no_space"
        assert refusal["at"] == desk
        assert refusal["free"] <= 1 << 20 < refusal["needed"]
        assert client.run(f"ls {desk}") == ""
    finally:
        client.run(f"umount {desk}")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"paths": ["/var/lib/mysql"]}, "outside_sources"),
        ({"paths": ["/srv/members/../../etc/shadow"]}, "outside_sources"),
        ({"paths": ["/srv/members/nobody"]}, "path_absent"),
        ({"archive": "accounts-2020-01-01T00:00:00"}, "archive_absent"),
        ({"before": "2020-01-01"}, "archive_absent"),
        ({"service": "nothing"}, "service_unknown"),
        ({"service": "base", "paths": ["/etc/passwd"], "over": True}, "reference_only"),
        ({"to": "/srv/members"}, "not_empty"),
    ],
)
def test_what_cannot_be_restored_is_refused(client, request_, code):
    assert client.refusal(**{"service": "accounts", **request_})["code"] == code
