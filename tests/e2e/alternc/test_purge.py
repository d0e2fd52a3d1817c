# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A member leaves: frozen with an export, kept for a month, deleted only when a backup holds all there is."""

import json
import os
import subprocess
import time

import doors
import pytest
from ansible.module_utils.hosting.alternc_export import counts

from infini import ROOT

LOGIN, DOMAIN = "partant", "partant.example"
BACKUPS = "/var/lib/infini/backups/verified.json"
SETS = [
    ("alternc_members", {"members": [{"login": LOGIN, "name": "Partant"}], "prune": False}),
    ("alternc_domains", {"domains": [{"name": DOMAIN, "member": LOGIN}], "prune": False}),
    (
        "alternc_mailboxes",
        {
            "mailboxes": [
                {"address": f"contact@{DOMAIN}", "mailbox": True},
                {"address": f"@{DOMAIN}", "forwards": [f"contact@{DOMAIN}"]},
            ],
            "prune": False,
        },
    ),
    ("alternc_ftp_accounts", {"accounts": [{"name": LOGIN, "member": LOGIN}], "prune": False}),
]


@pytest.fixture
def leaver(panel, inventory, tmp_path):
    """Make a member who has a domain, a mailbox, a catch-all and an FTP account."""
    doors.made(tmp_path, inventory.path, "panel", *SETS)
    panel.run("alternc-apply now")
    yield
    doors.run(
        tmp_path, inventory.path, "panel", ("alternc_members", {"members": [], "prune": False, "remove": [LOGIN]})
    )
    panel.run(f"rm -f {BACKUPS} /var/lib/infini-alternc/left/{LOGIN}.json", check=False)
    panel.run("/usr/lib/alternc/update_mails.sh; alternc-apply now", check=False)


def infini(*words):
    """Run the command; return its status and what it says."""
    done = subprocess.run([ROOT / "infini", *words], capture_output=True, text=True, check=False, env=os.environ)
    return done.returncode, " ".join(done.stderr.split())


def refused():
    """Ask for the member to be deleted, and be refused; return why."""
    status, said = infini("purge", LOGIN)
    assert (status, said.startswith("✗ panel: ")) == (2, True), said
    return said.removeprefix("✗ panel: ")


def verified(panel, **holds):
    """Write down what a backup holds, as who makes backups will."""
    record = {LOGIN: {"taken": time.time() - 3600, "holds": holds}}
    panel.run(f"mkdir -p $(dirname {BACKUPS}); cat >{BACKUPS}", json.dumps(record))


@pytest.mark.usefixtures("leaver")
def test_a_member_leaves_in_two_steps(panel, tmp_path):
    def there():
        return panel.sql(f"SELECT enabled FROM membres WHERE login = '{LOGIN}'")  # noqa: S608 (ours)

    assert refused().startswith(f"{LOGIN} is not frozen: `./infini leave {LOGIN}` first")

    handed = tmp_path / "export.json"
    assert infini("leave", LOGIN, "--to", str(handed), "--check")[0] == 0
    assert there() == [["1"]]
    status, said = infini("leave", LOGIN, "--to", str(handed))
    assert status == 0, said
    assert said.endswith(f"In 30 days: ./infini purge {LOGIN}")
    export = json.loads(handed.read_text())
    assert {row["address"] for row in export["mailboxes"]} >= {f"contact@{DOMAIN}", f"@{DOMAIN}"}
    assert there() == [["0"]]
    assert panel.sql(f"SELECT enabled FROM ftpusers WHERE name = '{LOGIN}'") == [["0"]]  # noqa: S608 (ours)

    assert f"{LOGIN} is frozen since {panel.run('date +%F').strip()}: this may be done from" in refused()
    panel.run(
        "flock /run/alternc-apply.lock python3 -",
        "import json, pathlib\n"
        "path = pathlib.Path('/var/lib/infini-alternc/state.json')\n"
        "state = json.loads(path.read_text())\n"
        f"state['shut']['{LOGIN}'] -= 31 * 86400\n"
        "path.write_text(json.dumps(state))\n",
    )
    panel.run("alternc-apply now")
    assert refused().startswith(f"no backup is known to hold {LOGIN}: {BACKUPS} does not name one")
    holds = counts(export)
    verified(panel, **{**holds, "mailboxes": 1})
    assert f"holds 1 mailboxes of {holds['mailboxes']}; make another" in refused()
    verified(panel, **holds)
    assert infini("purge", LOGIN, "--check", "--diff")[0] == 0
    assert there() == [["0"]]

    status, said = infini("purge", LOGIN)
    assert status == 0, said
    assert there() == []
    gone = f"SELECT 1 FROM domaines WHERE domaine = '{DOMAIN}'"  # noqa: S608 (ours)
    assert panel.until(lambda: not panel.sql(gone)), "its catch-all does not keep the domain"
    assert panel.problems() == ""
    assert panel.run(f"ls /var/lib/infini-alternc/left/{LOGIN}.json", check=False) == ""
    assert refused().startswith(f"{LOGIN} is no member of this panel")
