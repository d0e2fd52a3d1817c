# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles sendmail and mail_budget write, rendered by the engine itself."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from jinja2.utils import missing

from hosting.mail_budget import problems, read_settings
from infini import engine
from infini.tree_render import Renderer, environment

ROLES = Path(__file__).parents[2] / "roles"
GIVEN = {
    "sendmail": {
        "sendmail_fqdn": "web.infini.test",
        "sendmail_relay": "mx.infini.test",
        "sendmail_postmaster": "techs@velo.test",
        "sendmail_policies": ["unix:/run/infini-mail-budget.sock"],
    },
    "mail_budget": {"mail_budget_host": "mx.infini.test", "mail_budget_techs": "techs@velo.test"},
}


def tree(role: str, **given: object) -> dict[str, str]:
    """Return what a role writes: path on the host -> text."""
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    variables = {**defaults, "ansible_managed": "Ansible", "role_path": str(ROLES / role), **GIVEN[role], **given}
    env = environment(lambda name: variables.get(name, missing))
    env.filters["to_nice_json"] = json.dumps
    env.filters["hosting_modules"] = lambda name: ["__init__", *sorted(engine.sources(name))]
    env.globals["lookup"] = lambda _plugin, path: Path(path).read_text()
    written = Renderer(ROLES / role / "tree", env, role, lambda path: (path.read_bytes(), False)).picture()
    return {path: content.decode() for path, content in written.contents.items()}


def settings(text: str) -> dict[str, str]:
    """Return what a main.cf says."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {name: value.strip() for name, value in (line.split(" =", 1) for line in lines)}


def test_nothing_listens_on_a_web_host_and_what_is_not_counted_does_not_pass():
    files = tree("sendmail")
    main = settings(files["/etc/postfix/main.cf"])
    services = [line for line in files["/etc/postfix/master.cf"].splitlines() if re.match(r"\w", line)]
    assert not [line for line in services if line.split()[1] == "inet"]
    assert main["smtpd_end_of_data_restrictions"] == "check_policy_service unix:/run/infini-mail-budget.sock"
    assert main["authorized_submit_users"] == "root"
    assert main["relayhost"] == "[mx.infini.test]:25"
    assert main["smtp_tls_security_level"] == "secure"
    # Fewer than the refusals after which smtpd slows a session down (smtpd_soft_error_limit).
    assert 0 < int(main["smtp_connection_reuse_count_limit"]) < 10


def test_whose_mail_it_is_is_known_by_who_reads_the_socket_outside_of_a_user_namespace():
    unit = tree("sendmail")["/etc/systemd/system/infini-sendmail.service"]
    assert not re.search("^PrivateUsers", unit, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@pytest.mark.parametrize(
    ("role", "unit"), [("sendmail", "infini-sendmail.service"), ("mail_budget", "infini-mail-budget.service")]
)
def test_our_units_are_hardened(role, unit, tmp_path):
    (tmp_path / unit).write_text(tree(role)[f"/etc/systemd/system/{unit}"])
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(tmp_path / unit)],
        check=True,
        capture_output=True,
    )


def test_what_counts_reads_what_the_role_writes():
    accounts = [{"account": "velo", "hour": 5}]
    said = json.loads(tree("mail_budget", mail_budget_accounts=accounts)["/etc/infini-mail-budget/config.json"])
    assert problems(said) == []
    read = read_settings(said)
    assert (read.budget("velo").hour, read.budget("velo").day, read.budget("other").hour) == (5, 1000, 200)


@pytest.mark.parametrize(("role", "program"), [("sendmail", "infini-sendmail"), ("mail_budget", "infini-mail-budget")])
def test_a_program_travels_with_all_it_needs(role, program, tmp_path):
    files = tree(role)
    for path, text in files.items():
        if path.startswith(f"/usr/local/lib/{program}/hosting/"):
            (tmp_path / "hosting").mkdir(exist_ok=True)
            (tmp_path / "hosting" / Path(path).name).write_text(text)
    text = files[f"/usr/local/sbin/{program}"].replace(f"/usr/local/lib/{program}", str(tmp_path))
    imports = text.split("sys.exit")[0]
    subprocess.run(["python3", "-IB", "-c", imports], check=True)
