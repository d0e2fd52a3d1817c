# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two clients of the tests' own at the bench's store: one that falls into an attacker's hands, and its neighbour."""

import json
import shlex
import subprocess
from pathlib import Path

from infini.apply import playbook_path
from infini.runner import play

CLIENTS = ("victim", "neighbour")
QUOTA = "40M"
PASSPHRASE = "not a secret"
HERE = "/srv/infini-attacks"
"""Where the clients work on their host."""
SAYS_YES = (
    "BORG_CHECK_I_KNOW_WHAT_I_AM_DOING=YES BORG_DELETE_I_KNOW_WHAT_I_AM_DOING=YES BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"
)


STATES = {
    "store": "/srv/backups/victim /srv/backups/neighbour /var/lib/infini-backup-store",
    "keeper": "/var/lib/infini-backup-keeper",
    "host": f"{HERE}/base--victim {HERE}/base--neighbour {HERE}/data",
}
"""What a test changes, by host."""


class Host:
    """A host that is told what to do as root; it has a shell."""

    def __init__(self, inventory, name):
        self.name, self._line = name, inventory.connection(name).ssh("-o", "BatchMode=yes")

    def run(self, script, check=True):
        """Run a script; return the finished process."""
        done = subprocess.run(
            [*self._line, "bash", "-s"], input=script, capture_output=True, text=True, check=False, timeout=300
        )
        if check and done.returncode:
            raise AssertionError(f"on {self.name}, {done.returncode}: {script}\n{done.stdout}{done.stderr}")
        return done

    def out(self, script):
        """Run a script that succeeds; return what it says."""
        return self.run(script).stdout.strip()

    def json(self, script, check=False):
        """Run a script that answers in JSON; return its status and the answer."""
        done = self.run(script, check)
        return done.returncode, json.loads(done.stdout)


class World:
    """The store, its keeper, and a host on which both clients live."""

    def __init__(self, inventory, keys: Path):
        self.inventory, self.keys = inventory, keys
        self.store, self.keeper, self.host = (
            Host(inventory, inventory.hosts(group)[0]) for group in ("backup_stores", "backup_keepers", "webs")
        )
        self.fqdn = inventory.get(self.store.name, "hosting_fqdn")

    def repository(self, client, place="live", user=""):
        """Return a repository as Borg takes it."""
        return f"ssh://{user or f'backup-{client}'}@{self.fqdn}/srv/backups/{client}/{place}"

    def build(self):
        """Make the clients known to the store and to the keeper, and give them what they need."""
        for name in CLIENTS:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.keys / name], check=True)
        inventory = self.inventory
        declared = [inventory.get(host, "bench_backup_client") for host in inventory.hosts("backup_clients")]
        ours = [{"name": name, "key": (self.keys / f"{name}.pub").read_text(), "quota": QUOTA} for name in CLIENTS]
        kept = [
            {
                "name": name,
                "passphrase": PASSPHRASE,
                "repositories": [{"label": "store", "path": self.repository(name)}],
            }
            for name in CLIENTS
        ]
        self.apply(
            backup_store_clients=[*declared, *ours],
            backup_keeper_clients=kept,
            backup_keeper_retention={"daily": 2},
            backup_keeper_delay_days=0,
        )
        self.keeper.out("systemctl stop infini-backup-keeper.timer; mv /var/lib/infini-backup-keeper{,.real}")
        self.store.out("systemctl stop infini-backup-store.timer")
        self.host.out(
            f"command -v borg >/dev/null || apt-get -qq install -y borgbackup; rm -rf {HERE}; mkdir -m 700 {HERE}"
        )
        secrets = {name: (self.keys / name).read_text() for name in CLIENTS}
        secrets["reader"] = Path(inventory.get(self.store.name, "bench_folder"), "backup/reader").read_text()
        secrets["known_hosts"] = inventory.get(self.store.name, "bench_backup_host_key") + "\n"
        for name, text in secrets.items():
            self.host.out(f"umask 077; cat >{HERE}/{name} <<'END'\n{text}END")

    def apply(self, **variables):
        """Apply the backups' playbook to store and keeper."""
        limit = ["--limit", f"{self.store.name},{self.keeper.name}"]
        result = play(playbook_path("backups"), str(self.inventory.path), variables, arguments=limit)
        assert result.ok, result.sentence()

    def tear_down(self):
        """Leave nothing of it."""
        self.keeper.run(
            "[ ! -d /var/lib/infini-backup-keeper.real ] || {"
            " rm -rf /var/lib/infini-backup-keeper; mv /var/lib/infini-backup-keeper{.real,}; }"
        )
        self.apply()
        self.store.run("systemctl start infini-backup-store.timer")
        self.keeper.run("systemctl start infini-backup-keeper.timer")
        for name in CLIENTS:
            self.store.run(f"umount /srv/backups/{name}; userdel backup-{name}; rm -rf /srv/backups/{name}")
        for name in STATES:
            getattr(self, name).run(f"rm -rf {HERE} /srv/as-it-was.tar")

    def begin(self):
        """Make three days of backups, a generation of them, and a keeper who has seen them; keep it all aside."""
        self.keeper.out(f"install -d -o infini-backup-keeper -m 700 {STATES['keeper']}")
        for name in CLIENTS:
            self.borg("init --encryption repokey-blake2", name)
        for day in (1, 2, 3):
            self.back_up("victim", day)
        self.back_up("neighbour", 1)
        assert self.generation()[1]["code"] == "new"
        self.drill(ok=False)  # so that the keeper only looks
        assert self.keep() == (0, {"code": "drill_red", "waiting": 1})
        self.drill()
        for name, paths in STATES.items():
            getattr(self, name).out(f"tar --create --file /srv/as-it-was.tar {paths}")

    def again(self):
        """Put back what `begin` kept aside."""
        for name, paths in STATES.items():
            getattr(self, name).out(f"rm -rf {paths}; tar --extract --directory / --file /srv/as-it-was.tar")

    def environment(self, client, door="", path=""):
        """Return the shell's prelude for Borg as one of the clients, or through the read door."""
        ssh = f"ssh -i {HERE}/{door or client} -o UserKnownHostsFile={HERE}/known_hosts -o BatchMode=yes"
        repository = path or self.repository(client)
        return (
            f"cd {HERE}; export TZ=UTC BORG_RSH={shlex.quote(ssh)} BORG_REPO={shlex.quote(repository)}"
            f" BORG_BASE_DIR={HERE}/base-{door}-{client} BORG_PASSPHRASE={shlex.quote(PASSPHRASE)} {SAYS_YES}\n"
        )

    def borg(self, words, client="victim", check=True):
        """Run Borg as one of the clients."""
        return self.host.run(f"{self.environment(client)}borg {words}", check)

    def back_up(self, client, day, content="as it was"):
        """Make the archive of one day of this month, of a file that says so and some megabytes."""
        self.host.out(
            f"{self.environment(client)}mkdir -p data; echo '{content}, {client}, {day}' >data/page\n"
            f"head -c 1000000 /dev/urandom >data/noise\n"
            f"borg create --timestamp 2026-10-{day:02}T04:00:00 ::web-2026-10-{day:02}T04:00:00 data"
        )

    def archives(self, client="victim"):
        """Return what the repository says it holds, as the client sees it."""
        return self.borg("list --short", client).stdout.split()

    def segments(self, client="victim"):
        """Return what the repository keeps on the store's disk."""
        return set(self.store.out(f"find /srv/backups/{client}/live/data -type f -printf '%i %f\\n'").splitlines())

    def generations(self, client="victim"):
        """Return the names of the generations."""
        return self.store.out(f"ls /srv/backups/{client}/generations").split()

    def generation(self, client="victim"):
        """Let the store make a generation; return its status and what it says of the client."""
        status, answer = self.store.json(f"sleep 1; infini-backup-store generation {client}")
        return status, answer[client]

    def keep(self):
        """Let the keeper run; return its status and what it says of the client."""
        status, answer = self.keeper.json("infini-backup-keeper run")
        return status, answer["victim@store"]

    def drill(self, ok=True):
        """Write down a drill."""
        drill = json.dumps({"ok": ok, "clients": list(CLIENTS)})
        self.keeper.out(f"infini-backup-keeper drilled <<<'{drill}'")

    def restored(self, place, days=(1, 2, 3), client="victim"):
        """Return the pages of some days, restored through the read door from `live` or from a generation."""
        path = self.repository(client, place, "backup-reader")
        names = " ".join(f"web-2026-10-{day:02}T04:00:00" for day in days)
        return self.host.run(
            f"{self.environment(client, 'reader', path)}rm -rf base-reader-{client}\n"
            f"for name in {names}; do rm -rf out; mkdir out; cd out\n"
            f"borg --bypass-lock extract ::$name; cat data/page; cd ..; done",
            check=False,
        ).stdout.splitlines()
