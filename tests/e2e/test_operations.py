# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What technicians live through: a file edited by hand, a broken template, a reboot."""

import subprocess
import time

import pytest
from commands import infini

from infini import ROOT, bench, staging

EDITED = "/etc/systemd/journald.conf.d/infini.conf"


@pytest.fixture
def edited(web):
    """Edit a managed file by hand, and put it back."""
    before = web.file(EDITED).content_string
    web.check_output(f"echo '# by hand' >> {EDITED}")
    yield
    web.check_output(f"cat > {EDITED} <<'END'\n{before}END")


@pytest.mark.usefixtures("edited")
def test_a_file_edited_by_hand_is_named_refused_and_overwritten_when_told():
    status, drift = infini("drift")
    assert status == 1
    found = [file for file in drift["files"] if file["path"] == EDITED]
    assert [file["host"] for file in found] == ["web"]
    assert "+# by hand" in found[0]["diff"]

    status, refused = infini("apply", "base", "--limit", "web")
    assert status == 2
    assert f"{EDITED} was edited by hand" in refused["error"]
    assert infini("drift")[0] == 1, "the refused run must not have touched the file"

    status, applied = infini("apply", "base", "--limit", "web", "--overwrite", EDITED)
    assert (status, applied["failed"]) == (0, 0)
    assert infini("drift") == (0, {"ok": True, "files": []})


def test_a_changed_pool_variable_shows_exactly_its_files_in_check_mode():
    plays = ["playbooks/preflight.yml", "playbooks/web.yml"]
    variable = '{"php_pool_idle_seconds": 31}'
    done = subprocess.run(
        ["ansible-playbook", "-i", "inventory/staging", *plays, "--check", "--diff", "-e", variable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = {line.split(" ")[1].strip() for line in done.stdout.splitlines() if line.startswith("+++ ")}
    assert shown == {f"/etc/php/pools/{pool}.conf" for pool in ("7.4/velo", "8.2/jardin", "8.2/webmail", "8.4/chorale")}


def test_after_a_reboot_everything_is_green_within_a_minute(inventory, host):
    # A flight of the canary that is cut off, here or by a test before, is told until the next one, ten minutes later.
    while not 20 < time.time() % 600 < 500:
        time.sleep(1)
    host(inventory.hosts("watchers")[0]).run_expect([0], "systemctl start infini-canary.service")
    for container in bench.containers(staging.name()):
        bench.podman("restart", container["Id"])
    end = time.monotonic() + 60
    status, report = 1, {}
    while status and time.monotonic() < end:
        status, report = infini("verify")
    assert status == 0, report
