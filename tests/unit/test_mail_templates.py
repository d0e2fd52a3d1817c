# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role mail writes, rendered by the engine itself; `tests/e2e/test_mail.py` lets Postfix read it."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from jinja2.utils import missing

from hosting.mail_records import PARTS
from infini import engine
from infini.tree_render import Picture, Renderer, environment

ROLE = Path(__file__).parents[2] / "roles/mail"
GIVEN = {"mail_fqdn": "mx.infini.test", "mail_postmaster": "techs@velo.test", "ansible_managed": "Ansible"}
FULL = {
    "mail_domains": [{"name": "velo.test"}, {"name": "bourg.test"}],
    "mail_networks": ["192.0.2.0/24", "[2001:db8::]/64"],
    "mail_sni": [{"name": "mail.velo.test", "certificate": "/etc/tls/velo.pem", "key": "/etc/tls/velo.key"}],
    "mail_slow_providers": [
        {"name": "orange", "domains": ["orange.example", "wanadoo.example"], "concurrency": 1, "rate": "1s"},
        {"name": "other", "domains": ["other.example"], "relay": "[relay.example]:587"},
    ],
    "mail_transport_maps": ["hash:/etc/sympa/postfix/transport"],
    "mail_recipient_maps": ["hash:/etc/sympa/postfix/transport"],
    "mail_domain_maps": ["hash:/etc/sympa/postfix/domains"],
    "mail_pipes": [
        {"name": "sympa", "user": "sympa", "flags": "hqRu", "argv": "/usr/lib/sympa/bin/queue ${recipient}"},
    ],
    "mail_srs_exclude": ["listes.velo.test"],
}


def picture(**given: object) -> Picture:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    variables = {**defaults, **GIVEN, "role_path": str(ROLE), **given}
    env = environment(lambda name: variables.get(name, missing), (ROLE / "templates",))
    env.filters["regex_replace"] = lambda text, pattern, by: re.sub(pattern, by, text)
    env.filters["zip"], env.filters["from_json"] = zip, json.loads
    env.filters["quote"] = shlex.quote
    env.filters["to_nice_json"] = lambda value: json.dumps(value, indent=4, sort_keys=True)
    env.filters["hosting_modules"] = lambda name: ["__init__", *sorted(engine.sources(name))]
    env.globals["lookup"] = lambda _plugin, path: Path(path).read_text()
    env.filters["flatten"] = lambda rows: [item for row in rows for item in row]
    return Renderer(ROLE / "tree", env, "mail", lambda path: (path.read_bytes(), False)).picture()


def tree(**given: object) -> dict[str, str]:
    """Return what the role writes: path on the host -> text."""
    return {path: content.decode() for path, content in picture(**given).contents.items()}


def settings(text: str) -> dict[str, str]:
    """Return what a main.cf says, each value as one line."""
    lines = "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    pairs = (line.split(" =", 1) for line in re.sub(r"\n\s+", " ", lines).splitlines())
    return {name: value.strip() for name, value in pairs}


def services(text: str) -> dict[str, str]:
    """Return the entries of a master.cf, each as one line, by name."""
    lines = "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {line.split()[0]: " ".join(line.split()) for line in re.sub(r"\n\s+", " ", lines).splitlines()}


@pytest.mark.parametrize("port", ["submission", "submissions"])
def test_who_sends_from_outside_needs_tls_and_a_password(port):
    entry = services(tree()["/etc/postfix/master.cf"])[port]
    for option in (
        "smtpd_tls_security_level=encrypt",
        "smtpd_sasl_auth_enable=yes",
        "smtpd_client_restrictions=permit_sasl_authenticated,reject",
        "smtpd_relay_restrictions=permit_sasl_authenticated,reject",
        "smtpd_sender_restrictions=$submission_sender_restrictions",
    ):
        assert f"-o {option}" in entry
    assert ("wrappermode" in entry) == (port == "submissions")


def test_old_tls_and_relaying_are_refused_and_nothing_passes_unsigned():
    main = settings(tree()["/etc/postfix/main.cf"])
    assert main["smtpd_tls_protocols"] == main["smtpd_tls_mandatory_protocols"] == ">=TLSv1.2"
    assert main["smtpd_relay_restrictions"].endswith("reject_unauth_destination")
    assert main["milter_default_action"] == "tempfail"
    assert main["smtpd_sasl_auth_enable"] == "no"
    assert "reject_sender_login_mismatch" in main["submission_sender_restrictions"]


def test_large_maps_are_held_once():
    main = settings(tree(**FULL)["/etc/postfix/main.cf"])
    ours = [word for value in main.values() for word in re.split(r"[,\s]+", value) if "/etc/postfix/maps/" in word]
    assert len(ours) == 7
    assert all(word.startswith("proxy:texthash:") for word in ours)
    assert main["sender_canonical_maps"].startswith("proxy:tcp:"), "each process of Postfix would hold a connection"
    assert main["recipient_canonical_maps"].startswith("proxy:tcp:")


def test_lists_come_in_by_maps_and_pipes():
    files = tree(**FULL)
    main, master = settings(files["/etc/postfix/main.cf"]), services(files["/etc/postfix/master.cf"])
    assert main["transport_maps"].startswith("hash:/etc/sympa/postfix/transport, proxy:texthash:")
    assert main["virtual_mailbox_maps"].endswith("hash:/etc/sympa/postfix/transport")
    assert main["virtual_mailbox_domains"].endswith("hash:/etc/sympa/postfix/domains")
    assert main["sympa_destination_recipient_limit"] == "1"
    assert master["sympa"] == (
        "sympa unix - n n - - pipe flags=hqRu user=sympa argv=/usr/lib/sympa/bin/queue ${recipient}"
    )
    assert "SRS_EXCLUDE_DOMAINS=velo.test,bourg.test,listes.velo.test" in files["/etc/default/postsrsd"]


def test_domains_of_a_file_are_ours_too_when_a_sender_is_rewritten(tmp_path):
    (tmp_path / "mail.json").write_text(json.dumps({"domains": [{"name": "zoo.test"}]}))
    written = tree(mail_file=str(tmp_path / "mail.json"))["/etc/default/postsrsd"]
    assert "SRS_EXCLUDE_DOMAINS=zoo.test\n" in written


def test_each_slow_provider_has_its_transport():
    files = tree(**FULL)
    main, master = settings(files["/etc/postfix/main.cf"]), services(files["/etc/postfix/master.cf"])
    assert {"slow-orange", "slow-other"} <= set(master)
    assert main["slow-orange_destination_concurrency_limit"] == "1"
    assert main["slow-orange_destination_rate_delay"] == "1s"
    assert files["/etc/postfix/providers"].splitlines()[-3:] == [
        "orange.example slow-orange:",
        "wanadoo.example slow-orange:",
        "other.example slow-other:[relay.example]:587",
    ]


def test_every_transport_runs_outside_of_a_chroot_where_it_could_not_reach_the_sockets():
    for name, entry in services(tree(**FULL)["/etc/postfix/master.cf"]).items():
        assert entry.split()[4] == "n", name


def test_only_named_networks_are_taken_for_ours_when_signing():
    assert '[ "127.0.0.0/8", "::1" ];' in tree()["/etc/rspamd/override.d/options.inc"]
    assert '"192.0.2.0/24", "2001:db8::/64" ]' in tree(**FULL)["/etc/rspamd/override.d/options.inc"]


def test_programs_know_each_other_by_sockets_and_groups():
    files = tree()
    assert settings(files["/etc/postfix/main.cf"])["smtpd_milters"] == "unix:/run/rspamd/milter.sock"
    assert (
        'bind_socket = "/run/rspamd/milter.sock mode=0660 owner=_rspamd group=postfix";'
        in (files["/etc/rspamd/override.d/worker-proxy.inc"])
    )
    assert "port 0\n" in files["/etc/redis/redis.conf"]
    assert "unixsocket /run/redis/redis-server.sock" in files["/etc/redis/redis.conf"]


def test_each_name_has_its_certificate_and_a_renewal_is_followed():
    files = tree(**FULL)
    assert "local_name mail.velo.test {\n  ssl_cert = </etc/tls/velo.pem\n" in files["/etc/dovecot/dovecot.conf"]
    assert "mail.velo.test /etc/tls/velo.key, /etc/tls/velo.pem" in files["/etc/postfix/sni"]
    assert settings(files["/etc/postfix/main.cf"])["tls_server_sni_maps"] == "texthash:/etc/postfix/sni"
    [watched] = re.findall("infini-mail hand_over (.*)", files["/etc/systemd/system/mail-certificates.service"])
    assert watched.split() == ["/etc/ssl/certs/ssl-cert-snakeoil.pem", "/etc/tls/velo.pem"]


@pytest.fixture
def program(tmp_path):
    """The role's own program, with its file in a folder of ours."""
    found = tmp_path / "infini-mail"
    text = tree()["/usr/local/sbin/infini-mail"]
    for path in ("/var/lib/infini/mail", "/etc/postfix/maps", "/run/infini-mail"):
        text = text.replace(path, str(tmp_path))
    found.write_text(text)
    return found


def judged(judge: str, program: Path, **given: object) -> str:
    """Return what the role's program says of a setting, by the very words of the sidecar; empty when all is well."""
    [command] = {one.command for one in picture(**given).request.validations if judge in one.command}
    assert command[:2] == ("sh", "/usr/local/sbin/infini-mail")
    done = subprocess.run(["sh", str(program), *command[2:]], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


def test_certificates_that_are_not_there_are_refused_in_words(program, tmp_path):
    for name in "ab":
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files = ["-subj", "/CN=x", "-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run([*new, *files], check=True, capture_output=True)
    own = {"certificate": str(tmp_path / "b.pem"), "key": str(tmp_path / "b.key")}
    for certificate, key, fits in (("a.pem", "a.key", True), ("a.pem", "b.key", False), ("none.pem", "a.key", False)):
        sni = [{"name": "mail.velo.test", "certificate": str(tmp_path / certificate), "key": str(tmp_path / key)}]
        said = judged("judge_certificates", program, mail_certificate=own, mail_sni=sni)
        assert (f"{certificate} and {tmp_path}/{key} are not there, or are no certificate" in said) != fits


@pytest.mark.parametrize(
    ("network", "fits"), [("192.0.2.1", True), ("[2001:db8::]/32", True), ("192.0.2.1/24", False), ("mx", False)]
)
def test_networks_that_are_none_are_refused_in_words(network, fits, program):
    assert judged("judge_networks", program, mail_known_hosts=[network]).startswith(f"{network} is no network") != fits


@pytest.mark.parametrize("network", ["0.0.0.0/0", "[::]/0", "128.0.0.0/1"])
def test_a_network_of_half_the_world_would_be_an_open_relay_and_is_refused(network, program):
    plain = network.replace("[", "").replace("]", "")
    assert judged("judge_networks", program, mail_networks=[network]).startswith(f"{plain} is half the world")


@pytest.mark.parametrize(("memory", "fits"), [("64mb", True), ("1gb", True), ("0mb", False), ("lots", False)])
def test_an_amount_that_is_none_is_refused_in_words(memory, fits, program):
    assert judged("judge_memory", program, mail_redis_memory=memory).startswith(f"{memory} is no amount") != fits


def test_nothing_of_members_stands_in_the_tree():
    """Their set is the module's: a mailbox more must not reload what it does not concern."""
    more = tree(mail_mailboxes=[{"address": "ada@velo.test"}], mail_aliases=[{"address": "a@velo.test", "to": ["b"]}])
    assert more == tree()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@pytest.mark.parametrize("name", ["mail-certificates.service", "mail-keys.service"])
def test_our_units_are_hardened(tmp_path, name):
    unit = tmp_path / name
    unit.write_text(tree()[f"/etc/systemd/system/{name}"])
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)], check=True, capture_output=True
    )


def test_only_a_renewed_certificate_is_handed_over_and_one_that_failed_again(program, tmp_path, monkeypatch):
    asked, answer = tmp_path / "asked", tmp_path / "systemctl"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def reloads(status=0):
        asked.write_text("")
        answer.write_text(f'#!/bin/sh\necho "$@" >>{asked}\nexit {status}\n')
        answer.chmod(0o755)
        done = subprocess.run(["sh", str(program), "hand_over", str(tmp_path / "link.pem")], check=False)
        assert done.returncode == status
        return asked.read_text().splitlines()

    both = ["reload postfix@-.service dovecot.service"]
    for name in ("old.pem", "new.pem"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.pem").symlink_to("old.pem")
    assert (reloads(), reloads()) == (both, [])
    (tmp_path / "link.pem").unlink()
    (tmp_path / "link.pem").symlink_to("new.pem")
    assert (reloads(1), reloads(), reloads()) == (both, both, [])


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["records", "velo.test"], 0, "; velo.test\nvelo.test. 3600 MX 10 mx.\n"),
        (["records"], 0, "; bourg.test\nx\n; velo.test\nvelo.test. 3600 MX 10 mx.\n; zoo.test\ny\n"),
        (["records", "velo"], 1, "No mail is received here for velo"),
        ([], 2, "Usage"),
    ],
)
def test_the_records_of_a_domain_are_printed(words, status, said, program, tmp_path):
    (tmp_path / "records.zone").write_text("; bourg.test\nx\n; velo.test\nvelo.test. 3600 MX 10 mx.\n; zoo.test\ny\n")
    done = subprocess.run(["sh", str(program), *words], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert (done.stdout + done.stderr).startswith(said)
    assert status or done.stdout == said


PANEL = {
    **FULL,
    "mail_mode": "panel",
    "mail_domains": [],
    "mail_selector": "alternc",
    "mail_doors": ["door"],
    "mail_policies": ["unix:/run/budget.sock"],
    "mail_panel_settings": {"smtpd_client_connection_rate_limit": "0"},
}


def test_where_alternc_has_the_mail_none_of_its_files_is_ours():
    ours, others = set(tree(**PANEL)), set(tree(**FULL))
    assert not ours & {"/etc/postfix/main.cf", "/etc/postfix/master.cf", "/etc/dovecot/dovecot.conf"}
    assert not any(
        path.startswith(("/etc/alternc", "/etc/dovecot/conf.d/95", "/etc/dovecot/conf.d/96")) for path in ours
    )
    assert {
        "/etc/infini-mail/main.cf",
        "/etc/postfix/panel/senders.cf",
        "/etc/dovecot/conf.d/99-infini.conf",
        "/usr/lib/alternc/install.d/infini-mail",
        "/usr/local/lib/infini-mail/hosting/mail_panel_command.py",
    } <= ours - others
    assert not any("panel" in path for path in others)
    assert not any("keys" in path or "selector_map" in text for path, text in tree(**PANEL).items())


def test_both_modes_say_the_same_of_tls_signatures_and_forwards():
    panel = settings(tree(**PANEL)["/etc/infini-mail/main.cf"])
    declared = settings(tree(**{**FULL, "mail_policies": PANEL["mail_policies"]})["/etc/postfix/main.cf"])
    shared = {name for name in panel if name in declared and panel[name] == declared[name]}
    assert {
        "milter_default_action",
        "smtpd_milters",
        "smtpd_tls_auth_only",
        "smtpd_tls_protocols",
        "smtpd_forbid_bare_newline",
        "recipient_canonical_maps",
        "smtpd_relay_restrictions",
        "smtpd_end_of_data_restrictions",
        "tls_server_sni_maps",
    } <= shared
    assert panel["smtpd_client_connection_rate_limit"] == "0"
    assert "reject_authenticated_sender_login_mismatch" in panel["smtpd_sender_restrictions"]
    assert panel["sender_canonical_maps"].split(", ")[1] == declared["sender_canonical_maps"]


def test_alterncs_main_cf_takes_a_setting_a_line():
    text = tree(**PANEL)["/etc/infini-mail/main.cf"]
    assert [line for line in text.splitlines() if line[:1].isspace()] == []


def test_entries_for_alterncs_master_cf_are_those_of_both_modes():
    entries = services(tree(**PANEL)["/etc/infini-mail/master.cf"])
    assert set(entries) == {"door", "slow-orange", "slow-other", "sympa"}
    assert "smtpd_authorized_xclient_hosts=127.0.0.1" in entries["door"]
    others = services(tree(**FULL)["/etc/postfix/master.cf"])
    assert {name: entries[name] for name in ("slow-orange", "slow-other", "sympa")}.items() <= others.items()


def test_a_host_without_alternc_is_refused_in_words(program):
    text = program.read_text()
    program.write_text(text.replace("/usr/sbin/alternc.install", str(program.parent / "alternc.install")))
    said = judged("judge_panel", program, **PANEL)
    assert said.startswith("AlternC is not on this host, which is to have its mail: apply the panel first")
    (program.parent / "alternc.install").touch(0o755)
    assert judged("judge_panel", program, **PANEL) == ""


@pytest.mark.parametrize(("name", "given"), [("keys.json", FULL), ("panel.json", PANEL)])
def test_both_modes_are_told_all_that_records_are_made_of(name, given):
    assert set(json.loads(tree(**given)[f"/etc/infini-mail/{name}"])["policy"]) == set(PARTS)


def test_on_a_panel_a_domain_without_its_key_is_named_and_no_key_changes(program, tmp_path):
    program.write_text(tree(**PANEL)["/usr/local/sbin/infini-mail"].replace("/var/lib/infini/mail", str(tmp_path)))
    (tmp_path / "domains").write_text("bourg.test\nvelo.test\n")
    (tmp_path / "dkim").mkdir()
    for key in ("bourg.test.alternc.key", "velo.test.example.alternc.key", "velo.test.infini1.key"):
        (tmp_path / "dkim" / key).touch()
    done = subprocess.run(["sh", str(program), "keys"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("Mail of velo.test is not signed")) == (1, True)
    (tmp_path / "dkim/velo.test.alternc.key").touch()
    subprocess.run(["sh", str(program), "keys"], check=True)
    done = subprocess.run(["sh", str(program), "rotate", "--all"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("Keys do not change here: AlternC makes")) == (2, True)


def test_postfix_reads_no_password_from_a_file():
    for path, text in tree(**PANEL).items():
        if path.startswith("/etc/postfix/panel/"):
            assert "password" not in [line.split(" =")[0] for line in text.splitlines()], path
            assert "user = postfix\n" in text
