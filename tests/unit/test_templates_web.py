# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the trees of accounts, php, web and sites make of a small platform; an undefined variable is an error."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from ansible.plugins.filter.core import combine, to_json
from jinja2.runtime import missing

from hosting import firewall, model
from infini.tree_render import Renderer, environment

ROLES = Path(__file__).parents[2] / "roles"
SHIPPED = ROLES.parent / "inventory/staging/group_vars/all/profiles.yml"
PROFILES = yaml.safe_load(SHIPPED.read_text())["hosting_profiles"]
ACCOUNTS = [
    {
        "name": "velo",
        "keys": ["ssh-ed25519 AAAA velo"],
        "limits": {"memory": "1G", "io": 50, "children": 7},
        "outgoing": [{"port": 993}],
    },
    {"name": "chorale", "profile": "moyen", "limits": {"tasks": 64, "memory": "512M", "cpu": "100%", "io": 100}},
]
SITES = [
    {"name": "velo.test", "aliases": ["www.velo.test"], "account": "velo", "php": "7.4"},
    {
        "name": "chorale.test",
        "account": "chorale",
        "php": "8.2",
        "php_settings": {"memory_limit": "256M"},
        "php_disabled": ["exec", "system"],
    },
    {"name": "bourg.test", "account": "chorale"},
    {
        "name": "fete.test",
        "aliases": ["www.fete.test"],
        "redirect": {"to": "https://velo.test/%C3%A9?a=$1", "code": 302},
    },
    {"name": "ancien.test", "redirect": {"to": "https://velo.test/%C3%A9/", "code": 301, "keep_path": True}},
]
FILTERS = {
    "combine": combine,
    "to_json": to_json,
    "accounts_destinations": firewall.destinations,
    "accounts_outgoing": firewall.outgoing,
}
VARIABLES = {
    "inventory_hostname": "web",
    "accounts_members": model.members(ACCOUNTS, PROFILES),
    "accounts_resolvers": ["192.0.2.53"],
    "php_pools": model.pools(SITES, ACCOUNTS, PROFILES),
    "php_runtimes": [
        {"version": "8.2", "source": "debian"},
        {"version": "7.4", "source": "tree", "suite": "bullseye"},
    ],
    "sites_sites": model.virtual_hosts(SITES),
    "sites_redirections": model.redirections(SITES),
    "web_server_name": "web.infini.test",
}


def lookup(_plugin, path):
    """Stand for Ansible's own: files that several roles write stand in one place."""
    return Path(path).read_text().rstrip()


def picture(role, **variables):
    """Render a role's tree with its defaults; return texts and entries by path."""
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    known = {**defaults, **VARIABLES, "role_path": str(ROLES / role), "lookup": lookup, **variables}
    env = environment(lambda name: known.get(name, missing), filters=lambda own: {**own, **FILTERS})
    tree = Renderer(ROLES / role / "tree", env, role, lambda path: (path.read_bytes(), False)).picture()
    entries = {entry.path: entry for entry in tree.request.entries}
    return {path: content.decode() for path, content in tree.contents.items()}, entries


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] not in "#;"]


def test_a_home_belongs_to_root_and_only_its_workplaces_to_the_account():
    _, entries = picture("accounts")
    owners = {path: (entry.owner, entry.group, oct(entry.mode)) for path, entry in entries.items()}
    assert owners["/srv/members/velo"] == ("root", "velo", "0o750")
    assert owners["/srv/members/velo/www"] == ("root", "velo", "0o750")
    assert owners["/srv/members/velo/logs"] == ("root", "velo", "0o750")  # Apache opens its logs as root
    assert owners["/srv/members/velo/tmp"] == ("velo", "velo", "0o700")
    assert picture("sites")[1]["/srv/members/velo/www/velo.test"].owner == "velo"


def test_keys_and_own_limits_only_where_an_account_has_some():
    texts, entries = picture("accounts")
    assert lines(texts["/etc/ssh/members_keys/velo"]) == ["ssh-ed25519 AAAA velo"]
    assert entries["/etc/ssh/members_keys/velo"].group == "velo"  # sshd reads it as the account
    assert lines(texts["/etc/systemd/system/members-velo.slice.d/50-limits.conf"]) == [
        "[Slice]",
        "MemoryMax=1G",
        "IOWeight=50",
    ]
    assert not [path for path in texts if "chorale" in path]
    assert {
        "MemoryMax=512M",
        "TasksMax=64",
        "CPUQuota=100%",
        "CPUQuotaPeriodSec=5ms",
        "IOWeight=100",
        "MemorySwapMax=0",
    } <= set(lines(texts["/etc/systemd/system/members-.slice.d/10-limits.conf"]))
    assert "CPUWeight=10" in lines(texts["/etc/systemd/system/members.slice"])


def test_programs_of_members_reach_what_is_declared():
    rules = lines(picture("accounts")[0]["/etc/nftables.d/members.nft"])
    assert 'elements = { "velo", "chorale" }' in rules
    allowed = [rule for rule in rules if rule.endswith(" accept")]
    assert allowed == [
        "ct state established, related accept",
        "tcp dport 80 accept",
        "tcp dport 443 accept",
        "ip daddr { 192.0.2.53 } meta l4proto { tcp, udp } th dport 53 accept",
        "oif lo ip saddr != 127.0.0.0/8 ip daddr != 127.0.0.0/8 tcp dport 587 accept",
        "oif lo ip6 saddr != ::1 ip6 daddr != ::1 tcp dport 587 accept",
        'meta skuid "velo" tcp dport 993 accept',
    ]
    assert rules[rules.index(allowed[-1]) + 1 :][:3] == [
        "update @refused { meta skuid }",
        "meta l4proto tcp reject with tcp reset",
        "reject with icmpx admin-prohibited",
    ]
    unknown = lines(picture("accounts", accounts_resolvers=[])[0]["/etc/nftables.d/members.nft"])
    assert "meta l4proto { tcp, udp } th dport 53 accept" in unknown
    by_number = lines(picture("accounts", accounts_uids="2001-64999")[0]["/etc/nftables.d/members.nft"])
    assert 'elements = { 2001-64999, "velo", "chorale" }' in by_number
    assert "flags interval" in by_number
    assert "flags interval" not in rules
    panel = lines(
        picture("accounts", accounts_members=[], accounts_uids="2001-64999")[0]["/etc/nftables.d/members.nft"]
    )
    assert "elements = { 2001-64999 }" in panel
    nobody = lines(picture("accounts", accounts_members=[])[0]["/etc/nftables.d/members.nft"])
    assert nobody == ["table inet members", "delete table inet members", "table inet members {", "}"]


@pytest.mark.parametrize(("allowed", "methods"), [(True, "any"), (False, "publickey")])
def test_passwords_for_files_are_a_choice(allowed, methods):
    texts, _ = picture("accounts", accounts_password_logins=allowed)
    drop_in = lines(texts["/etc/ssh/sshd_config.d/60-members.conf"])
    assert f"PasswordAuthentication {'yes' if allowed else 'no'}" in drop_in
    assert f"AuthenticationMethods {methods}" in drop_in
    assert "ChrootDirectory /srv/members/%u" in drop_in


def test_a_pool_listens_where_its_virtual_host_and_its_socket_unit_meet():
    pools, _ = picture("php")
    hosts, _ = picture("sites")
    assert "listen = /run/php/7.4/velo.sock" in lines(pools["/etc/php/pools/7.4/velo.conf"])
    assert "ListenStream=/run/php/7.4/%i.sock" in lines(pools["/etc/systemd/system/php7.4@.socket"])
    assert "Environment=FPM_SOCKETS=/run/php/7.4/%i.sock=3" in lines(pools["/etc/systemd/system/php7.4@.service"])
    assert 'SetHandler "proxy:unix:/run/php/7.4/velo.sock|fcgi://velo"' in lines(
        hosts["/etc/apache2/members/velo.test.conf"]
    )


def test_settings_of_a_site_win_over_those_of_all():
    pool = configparser.ConfigParser(interpolation=None)
    pool.read_string(picture("php")[0]["/etc/php/pools/8.2/chorale.conf"])
    assert pool["chorale"]["php_value[memory_limit]"] == "256M"
    assert pool["chorale"]["php_value[upload_max_filesize]"] == "64M"
    assert pool["global"]["process_control_timeout"] == "15s"


def test_a_pool_is_kept_to_its_home_and_its_limits():
    pool = configparser.ConfigParser(interpolation=None)
    pool.read_string(picture("php")[0]["/etc/php/pools/8.2/chorale.conf"])
    chorale = pool["chorale"]
    assert chorale["php_admin_value[open_basedir]"] == "/srv/members/chorale/:/tmp/:/usr/share/php/:/dev/urandom"
    assert chorale["php_admin_value[disable_functions]"] == "exec,system"
    assert (chorale["pm.max_children"], chorale["rlimit_files"], chorale["rlimit_core"]) == ("10", "2048", "0")
    pool.read_string(picture("php")[0]["/etc/php/pools/7.4/velo.conf"])
    assert pool["velo"]["pm.max_children"] == "7"
    assert "php_admin_value[disable_functions]" not in pool["velo"]


def test_the_slow_log_stands_where_nobody_writes_as_root():
    texts, _ = picture("php")
    assert "slowlog = /mnt/php7.4.slow.log" in lines(texts["/etc/php/pools/7.4/velo.conf"])
    unit = lines(texts["/etc/systemd/system/php7.4@.service"])
    assert "BindPaths=/srv/members/%i /srv/members/%i/logs/php:/mnt" in unit
    entry = picture("accounts")[1]["/srv/members/velo/logs/php"]
    assert (entry.owner, entry.group, oct(entry.mode)) == ("velo", "velo", "0o750")
    rotation = lines(texts["/etc/logrotate.d/php-members"])
    assert rotation[:2] == ["/srv/members/chorale/logs/php/*.log {", "su chorale chorale"]


def test_only_a_tree_runs_under_a_root_of_its_own():
    texts, _ = picture("php")
    assert "RootDirectory=/srv/php/7.4" in texts["/etc/systemd/system/php7.4@.service"]
    assert "RootDirectory" not in texts["/etc/systemd/system/php8.2@.service"]
    checks = lines(texts["/usr/local/sbin/php-pools"])
    assert "check 8.2" in checks
    assert any(line.startswith("check 7.4 --property=RootDirectory=/srv/php/7.4") for line in checks)


def test_the_script_of_the_pools_is_a_shell_script(tmp_path):
    script = tmp_path / "php-pools"
    script.write_text(picture("php")[0]["/usr/local/sbin/php-pools"])
    subprocess.run(["sh", "-n", script], check=True)


def test_pools_are_read_only_where_something_came(tmp_path):
    """PHP itself is not here: what stands for `systemd-run` says which pools it was asked for, and may refuse."""
    text = (
        picture("php")[0]["/usr/local/sbin/php-pools"]
        .replace("=/etc/", f"={tmp_path}/")
        .replace("=/run/", f"={tmp_path}/")
    )
    asked, refusing, pools = tmp_path / "asked", tmp_path / "refusing", tmp_path / "php/pools"
    stub = tmp_path / "systemd-run"
    stub.write_text(
        f"#!/bin/sh\nsed 's|include = {pools}/||' {tmp_path}/php-pools.checked.conf >>{asked}; [ ! -e {refusing} ]\n"
    )
    stub.chmod(0o755)

    def check():
        asked.write_text("")
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(
            ["sh", "-c", text, "sh", "check"], env=environment, stderr=subprocess.DEVNULL, check=False
        )
        time.sleep(0.02)  # files tell times in ticks of the kernel
        return done.returncode, sorted(asked.read_text().split())

    for version in ("7.4", "8.2"):
        (pools / version).mkdir(parents=True)
        (pools / version / "velo.conf").touch()
    (pools / "infini.ini").touch()
    time.sleep(0.02)
    every = ["7.4/velo.conf", "8.2/velo.conf"]
    assert check() == (0, every)
    assert check() == (0, [])
    (pools / "8.2/chorale.conf").touch()
    refusing.touch()
    assert check() == (1, ["8.2/chorale.conf"])
    refusing.unlink()
    assert check() == (0, ["8.2/chorale.conf"])  # what was refused counts as unread
    (pools / "7.4/velo.conf").rename(tmp_path / "kept")
    assert check() == (0, [])  # what went cannot harm another
    (tmp_path / "kept").rename(pools / "7.4/velo.conf")  # as host_tree puts an older file back
    assert check() == (0, ["7.4/velo.conf"])
    (pools / "infini.ini").write_text("x")
    assert check() == (0, ["7.4/velo.conf", "8.2/chorale.conf", "8.2/velo.conf"])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("version", ["7.4", "8.2"])
def test_a_master_is_shut_in(tmp_path, version):
    unit = tmp_path / f"php{version}@velo.service"
    unit.write_text(picture("php")[0][f"/etc/systemd/system/php{version}@.service"])
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_a_static_site_runs_no_php_and_shows_none():
    host = lines(picture("sites")[0]["/etc/apache2/members/bourg.test.conf"])
    assert not [line for line in host if "SetHandler" in line]
    assert r'<FilesMatch "\.ph(?:p[0-9]?|ps|tml|ar)$">' in host
    assert "AssignUserId chorale chorale" in host


def test_an_alias_only_where_there_is_one():
    texts, _ = picture("sites")
    assert "ServerAlias www.velo.test" in lines(texts["/etc/apache2/members/velo.test.conf"])
    assert "ServerAlias" not in texts["/etc/apache2/members/chorale.test.conf"]


def test_a_redirection_leads_to_its_target_as_it_is_written_and_leaves_challenges_alone():
    host = lines(picture("sites")[0]["/etc/apache2/members/fete.test.conf"])
    assert "ServerName https://fete.test:443" in host
    assert "ServerAlias www.fete.test" in host
    assert "AssignUserId nobody nogroup" in host
    rule = r'RewriteRule "!^/\.well-known/acme-challenge/" "https://velo.test/\%C3\%A9?a=\$1" [R=302,NE,QSD,L]'
    assert [line for line in host if line.startswith("RewriteRule")] == [rule]
    assert not [line for line in host if line.startswith("DocumentRoot")]


def test_a_redirection_may_keep_the_path():
    host = lines(picture("sites")[0]["/etc/apache2/members/ancien.test.conf"])
    rule = (
        r'RewriteRule "^/(?!\.well-known/acme-challenge/)(.*)" "https://velo.test/\%C3\%A9/$1" [R=301,NE,B,BNP,BNE=/,L]'
    )
    assert [line for line in host if line.startswith("RewriteRule")] == [rule]
    assert not [line for line in host if line.startswith("ServerAlias")]


DANGEROUS = {"SetHandler", "AddHandler", "Action", "ProxyFCGISetEnvIf", "Options", "RemoveHandler", "SetInputFilter"}


def test_a_member_never_chooses_who_runs_a_file():
    defaults = yaml.safe_load((ROLES / "sites/defaults/main.yml").read_text())
    assert not DANGEROUS & set(defaults["sites_htaccess_directives"])
    policy = lines(picture("sites")[0]["/etc/apache2/members/00-policy.conf"])
    assert "AllowOverride AuthConfig Limit Indexes Nonfatal=All" in policy  # the class FileInfo is not among them
    assert 'ProxyFCGISetEnvIf "true" !PHP_ADMIN_VALUE' in policy


def test_apache_hears_this_machine_only():
    texts, entries = picture("web")
    assert lines(texts["/etc/apache2/ports.conf"]) == ["Listen 127.0.0.1:8080"]
    assert "RemoteIPProxyProtocol On" in lines(texts["/etc/apache2/apache2.conf"])
    modules = {path.rsplit("/", 1)[1] for path in entries if "/mods-enabled/" in path and path.endswith(".load")}
    assert {"mpm_itk.load", "mpm_prefork.load", "proxy_fcgi.load"} <= modules
    assert not modules & {"proxy_http.load", "status.load", "cgi.load", "cgid.load", "userdir.load", "include.load"}


def test_no_request_runs_as_a_service():
    texts, _ = picture("web")
    assert {"LimitUIDRange 1000 65534", "LimitGIDRange 1000 65534"} <= set(lines(texts["/etc/apache2/apache2.conf"]))
    assert "AssignUserId nobody nogroup" in lines(texts["/etc/apache2/sites-enabled/000-unknown.conf"])


def test_directives_of_one_site_stand_at_the_end_of_its_virtual_host_only():
    sites = [{**SITES[0], "apache": "Header set X-A b\n<Location /x>\n    Require local\n</Location>\n"}, *SITES[1:]]
    texts, _ = picture("sites", sites_sites=model.virtual_hosts(sites))
    host = lines(texts["/etc/apache2/members/velo.test.conf"])
    assert host[-5:] == ["Header set X-A b", "<Location /x>", "Require local", "</Location>", "</VirtualHost>"]
    assert "X-A" not in "".join(text for path, text in texts.items() if "velo.test" not in path)
