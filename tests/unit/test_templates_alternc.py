# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tree of alternc makes of a panel with two versions of PHP, and what PHP makes of its patterns."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.plugins.filter.core import combine, quote, to_nice_json
from jinja2.runtime import missing

from hosting import alternc_apply, alternc_front, alternc_panel, php
from infini.tree_render import Renderer, environment

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "roles"
spec = importlib.util.spec_from_file_location("filters_of_alternc", ROOT / "filter_plugins/alternc.py")
filters = importlib.util.module_from_spec(spec)
spec.loader.exec_module(filters)

RUNTIMES = [{"version": "7.4", "source": "tree", "suite": "bullseye"}, {"version": "8.2", "source": "debian"}]
PANEL = yaml.safe_load((ROOT / "inventory/staging/group_vars/panels.yml").read_text())
VARIABLES = {
    "inventory_hostname": "panel",
    "alternc_fqdn": "panel.infini.test",
    "alternc_nameservers": ["ns1.infini.test", "ns2.infini.test"],
    "alternc_public_ip": "192.0.2.7",
    "alternc_php_versions": ["7.4", "8.2"],
    "alternc_htaccess_directives": ["RewriteRule"],
    "alternc_mx": "mx.infini.test",
    "alternc_admin_password": "never shown",
    "php_runtimes": RUNTIMES,
    "php_pattern": PANEL["php_pattern"],
}


def lookup(_plugin, path):
    return Path(path).read_text().rstrip()


def picture(role="alternc", **variables):
    """Render a role's tree with its defaults; return texts and entries by path."""
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    known = {**defaults, "role_path": str(ROLES / role), "lookup": lookup, **VARIABLES, **variables}
    ours = {
        **filters.FilterModule().filters(),
        "combine": combine,
        "php_patterns": php.patterns,
        "quote": quote,
        "to_nice_json": to_nice_json,
    }
    env = environment(lambda name: known.get(name, missing), filters=lambda own: {**own, **ours})
    tree = Renderer(ROLES / role / "tree", env, role, lambda path: (path.read_bytes(), False)).picture()
    entries = {entry.path: entry for entry in tree.request.entries}
    return {path: content.decode() for path, content in tree.contents.items()}, entries


@pytest.fixture(scope="module")
def texts():
    return picture()[0]


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] not in "#;"]


def virtual_hosts(texts, name):
    """Return the lines of each virtual host in a template, by its port."""
    text = texts[f"/etc/alternc/templates/apache2/{name}.conf"]
    found = re.findall(r"^<VirtualHost \*:%%(PORT_\w+)%%>\n(.*?)^</VirtualHost>$", text, re.MULTILINE | re.DOTALL)
    assert text.count("<VirtualHost") == len(found)
    return {port: [line.strip() for line in inner.splitlines()] for port, inner in found}


# The filters


def test_each_version_has_a_template_for_each_choice_of_https():
    assert filters.templates(["7.4"]) == [
        {"name": "php74-fpm-http", "version": "7.4", "https": "http"},
        {"name": "php74-fpm-https", "version": "7.4", "https": "https"},
        {"name": "php74-fpm-both", "version": "7.4", "https": "both"},
    ]
    assert [one["name"] for one in filters.templates(["8.2", "7.4"])][::3] == ["php82-fpm-http", "php74-fpm-http"]
    assert filters.templates([]) == []


def test_each_version_is_a_type_that_members_may_choose():
    old, new = filters.types(["7.4", "8.2"])
    assert (old["name"], old["description"], new["name"]) == ("php74-fpm", "PHP 7.4", "php82-fpm")
    assert (old["enable"], old["target"], old["has_https_option"]) == ("ALL", "DIRECTORY", True)
    assert "%SUB% IN A @@PUBLIC_IP@@" in old["entry"]
    assert {key for key in old if old[key] != new[key]} == {"name", "description"}


def test_other_types_stand_beside_them_but_never_in_their_place():
    others = [{"name": "php82-fpm", "description": "theirs"}, {"name": "sqmail", "description": "mail"}]
    found = filters.types(["8.2"], others)
    assert [(one["name"], one["description"]) for one in found] == [("php82-fpm", "PHP 8.2"), ("sqmail", "mail")]


def test_the_engine_takes_the_types_and_templates_for_what_they_are():
    kinds = [one["name"] for one in filters.types(["7.4", "8.2"])]
    assert alternc_panel.seen(f"pool\tvelo\t{kind}" for kind in kinds).pools == {("velo", "7.4"), ("velo", "8.2")}
    looked_for = {
        alternc_panel.Site("velo.test", kind, "1", https).template.name
        for kind in kinds
        for https in ("http", "https", "both")
    }
    assert looked_for == {f"{one['name']}.conf" for one in filters.templates(["7.4", "8.2"])}


def test_the_engine_comes_with_all_that_it_imports():
    names = filters.modules("alternc_apply")
    assert names[0] == "__init__"
    assert {"alternc_apply", "alternc_panel", "apache", "tree", "tree_model", "units_door"} <= set(names)
    assert len(names) == len(set(names))


def test_services_and_the_engines_own_units_run():
    assert filters.units(["apache2"]) == [
        {"name": "apache2.service"},
        {"name": "alternc-apply.path"},
        {"name": "alternc-apply.timer"},
    ]


def test_the_filters_have_the_names_that_the_role_writes():
    written = "".join(path.read_text() for path in (ROLES / "alternc").rglob("*.yml"))
    for name in filters.FilterModule().filters():
        assert f"| {name}" in written, name


# The virtual hosts


def test_a_template_for_each_type_and_choice_and_no_other(texts):
    folder = "/etc/alternc/templates/apache2/"
    names = {path.removeprefix(folder) for path in texts if path.startswith(f"{folder}php")}
    assert names == {
        f"php{version}-fpm-{https}.conf" for version in ("74", "82") for https in ("http", "https", "both")
    }


@pytest.mark.parametrize("https", ["http", "https", "both"])
def test_every_virtual_host_runs_as_its_member_and_answers_to_its_name(texts, https):
    found = virtual_hosts(texts, f"php82-fpm-{https}")
    assert set(found) == {"PORT_HTTP", "PORT_HTTPS"}
    for host in found.values():
        assert "AssignUserId #%%UID%% #%%GID%%" in host
        assert "ServerAlias %%fqdn%%" in host
        assert not [line for line in host if line.startswith("ServerName") and "%%" in line]


@pytest.mark.parametrize(
    ("https", "serving"), [("http", {"PORT_HTTP"}), ("https", {"PORT_HTTPS"}), ("both", {"PORT_HTTP", "PORT_HTTPS"})]
)
def test_php_serves_on_the_chosen_ports_and_the_other_leads_there(texts, https, serving):
    for port, host in virtual_hosts(texts, f"php74-fpm-{https}").items():
        handlers = [line for line in host if line.startswith("SetHandler")]
        rules = [line for line in host if line.startswith("RewriteRule")]
        if port in serving:
            assert handlers == ['SetHandler "proxy:unix:/run/php/7.4/%%LOGIN%%.sock|fcgi://%%LOGIN%%"']
            assert 'DocumentRoot "%%document_root%%"' in host
            assert rules == []
        else:
            assert handlers == []
            assert not [line for line in host if line.startswith("DocumentRoot")]
            assert rules == [f"RewriteRule ^/(.*)$ {https}://%{{HTTP_HOST}}/$1 [R=301,L]"]
            rule = host.index(rules[0])
            assert host[rule - 1] == r"RewriteCond %{REQUEST_URI} !^/\.well-known/acme-challenge/"


@pytest.mark.parametrize("https", ["http", "https", "both"])
def test_only_https_has_a_certificate(texts, https):
    found = virtual_hosts(texts, f"php82-fpm-{https}")
    assert {"SSLEngine On", "SSLCertificateFile %%CRT%%", "SSLCertificateKeyFile %%KEY%%", "%%CHAINLINE%%"} <= set(
        found["PORT_HTTPS"]
    )
    assert not [line for line in found["PORT_HTTP"] if "SSL" in line or "%%C" in line]


def test_programs_that_are_not_run_are_not_shown(texts):
    host = virtual_hosts(texts, "php82-fpm-both")["PORT_HTTP"]
    assert "Require all denied" in host
    (pattern,) = [line for line in host if line.startswith("<FilesMatch") and "php$" not in line]
    matches = re.compile(re.fullmatch(r'<FilesMatch "(.*)">', pattern)[1]).search
    assert all(matches(name) for name in ("a.php7", "a.phps", "a.phtml", "a.phar"))
    assert not any(matches(name) for name in ("a.php", "a.html", "a.graph"))


def test_alternc_is_left_nothing_to_fill_in_that_it_does_not_know(texts):
    known = {"PORT_HTTP", "PORT_HTTPS", "fqdn", "UID", "GID", "LOGIN", "document_root", "CRT", "KEY", "CHAINLINE"}
    for path, text in texts.items():
        if path.startswith("/etc/alternc/templates/apache2/php"):
            assert set(re.findall(r"%%(\w+)%%", text)) == known


def test_the_engine_finds_the_pool_in_what_alternc_makes_of_a_template(texts):
    made = texts["/etc/alternc/templates/apache2/php74-fpm-both.conf"].replace("%%LOGIN%%", "velo").encode()
    assert {match.groups() for match in alternc_apply._POOL.finditer(made)} == {(b"7.4", b"velo")}


# The rest of the tree


def test_the_engine_reads_what_the_role_says_of_the_host(texts):
    settings = alternc_apply.Settings(**json.loads(texts["/etc/infini-alternc/settings.json"]))
    assert (settings.versions, settings.fqdn, settings.seconds) == (["7.4", "8.2"], "panel.infini.test", 20)
    assert settings.home("velo") == "/var/www/alternc/v/velo"


def test_the_engine_is_on_the_host_as_it_is_here(texts):
    folder = "/usr/local/lib/infini-alternc/hosting/"
    copied = {path.removeprefix(folder)[:-3] for path in texts if path.startswith(folder)}
    assert copied == set(filters.modules("alternc_apply"))
    for name in copied:
        ours = (ROOT / f"module_utils/hosting/{name}.py").read_text()
        assert ast.dump(ast.parse(texts[f"{folder}{name}.py"])) == ast.dump(ast.parse(ours))


def test_programs_may_be_run_and_what_has_secrets_is_not_for_all():
    _, entries = picture()
    assert {entry.mode for path, entry in entries.items() if path.startswith("/usr/local/sbin/")} == {0o755}
    local = entries["/etc/alternc/local.sh"]
    assert (local.group, local.mode) == ("alterncpanel", 0o640)
    assert entries["/var/log/members"].mode == 0o711


def test_no_password_stands_in_the_tree(texts):
    assert not [path for path, text in texts.items() if "never shown" in text]


def test_local_sh_is_read_line_by_line(texts):
    said = texts["/etc/alternc/local.sh"]
    settings = dict(re.fullmatch(r'([A-Z0-9_]+)="([^"]*)"', line).groups() for line in lines(said))
    assert (settings["NS1_HOSTNAME"], settings["NS2_HOSTNAME"]) == ("ns1.infini.test", "ns2.infini.test")
    assert settings["PUBLIC_IP"] == settings["INTERNAL_IP"] == "192.0.2.7"
    more = picture(alternc_settings={"BRUTEFORCE": "on"})[0]["/etc/alternc/local.sh"]
    assert lines(more)[-1] == 'BRUTEFORCE="on"'


def test_apache_reads_only_what_was_judged(texts):
    said = lines(texts["/etc/alternc/templates/alternc/apache2.conf"])
    included = [line.split()[1] for line in said if line.startswith("Include")]
    assert included == ["/etc/alternc/bureau.conf", "/etc/apache2/alternc/*/*.conf"]
    assert f"{alternc_apply.SERVED}/*/*.conf" in included


def test_behind_the_front_apache_hears_this_host_only_and_believes_it(texts):
    alone, behind = texts, picture(alternc_listen="127.0.0.1")[0]

    def listens(found):
        return [line.split()[1] for line in lines(found["/etc/apache2/ports.conf"]) if line.startswith("Listen")]

    assert (listens(alone), listens(behind)) == (["80", "443"], ["127.0.0.1:80", "127.0.0.1:443"])
    said = [lines(found["/etc/alternc/templates/alternc/apache2.conf"]) for found in (alone, behind)]
    assert ["RemoteIPProxyProtocol On" in found for found in said] == [False, True]
    assert 'Alias "/.well-known/acme-challenge/" "/var/lib/dehydrated/acme-challenges/"' in said[1]
    settings = [json.loads(found["/etc/infini-alternc/settings.json"])["front"] for found in (alone, behind)]
    assert settings == [False, True]
    entries = [picture(alternc_listen=listen)[1] for listen in ("", "127.0.0.1")]
    assert ["/var/lib/dehydrated/acme-challenges" in found for found in entries] == [False, True]


def test_the_front_reads_the_names_where_the_engine_writes_them():
    for name in ("staging", "production"):
        said = yaml.safe_load((ROOT / f"inventory/{name}/group_vars/panels.yml").read_text())
        assert said["front_names"] == str(alternc_front.FOLDER)
        assert said["certificates_lists"] == [str(alternc_front.FOLDER / "names")]


def test_ports_that_the_front_opens_are_not_apaches():
    assert filters.ports(["apache2", "named"], [80, 443])[0] == {"port": 80, "protocol": "tcp", "from": "any"}
    assert {one["port"] for one in filters.ports(["apache2", "named"], [])} == {53}


def test_the_flags_that_alternc_sets_are_those_that_start_the_engine(texts):
    watched = {
        line.partition("=")[2] for line in lines(texts["/etc/systemd/system/alternc-apply.path"]) if "run" in line
    }
    said = dict(line.partition("=")[::2] for line in lines(texts["/etc/alternc/local.sh"]))
    assert watched == {said["INOTIFY_UPDATE_DOMAIN"].strip('"'), said["INOTIFY_DO_ACTION"].strip('"')}
    assert {str(Path(path).parent) for path in watched} == {str(alternc_panel.FLAGS)}
    made = [line.split()[1] for line in lines(texts["/etc/tmpfiles.d/alternc.conf"])]
    assert made == [str(alternc_panel.FLAGS.parent), str(alternc_panel.FLAGS)], "the first before what is in it"


def test_a_burst_of_changes_never_shuts_the_path(texts):
    service = configparser.ConfigParser(interpolation=None)
    service.optionxform = str
    service.read_string(texts["/etc/systemd/system/alternc-apply.service"])
    assert service["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["ExecStart"] == "/usr/local/sbin/alternc-apply run"


@pytest.mark.parametrize("name", ["alternc-configure", "virtual-hosts-check"])
def test_the_scripts_are_shell_scripts(texts, tmp_path, name):
    (tmp_path / name).write_text(texts[f"/usr/local/sbin/{name}"])
    subprocess.run(["sh", "-n", tmp_path / name], check=True)


def test_settings_of_postfix_reach_it_as_one_word_each(texts, tmp_path):
    asked = "".join(line for line in texts["/usr/local/sbin/alternc-configure"].splitlines() if "postconf -e" in line)
    stub = tmp_path / "postconf"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", asked], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert "smtpd_tls_protocols = >=TLSv1.2\n" in done.stdout


# PHP beside it


def test_php_has_a_pattern_for_each_version_and_no_pool_of_its_own():
    texts, _ = picture("php")
    assert [path for path in texts if "/etc/php/patterns/" in path] == [
        "/etc/php/patterns/7.4.conf",
        "/etc/php/patterns/8.2.conf",
    ]
    assert not [path for path in texts if re.match(r"/etc/php/pools/.*/", path)]


def test_a_pool_from_a_pattern_is_one_that_apache_is_led_to_and_that_keeps_to_its_home(texts):
    patterns = {version: picture("php")[0][f"/etc/php/patterns/{version}.conf"] for version in ("7.4", "8.2")}
    home = texts["/etc/infini-alternc/home.conf"]
    settings = alternc_apply.Settings(**json.loads(texts["/etc/infini-alternc/settings.json"]))
    files = alternc_apply.pool_files([("velo", "7.4")], settings, patterns, home)
    assert not [path for path, text in files.items() if re.search(rb"@[A-Z]+@", text)]
    pool = configparser.ConfigParser(interpolation=None)
    pool.read_string(files["/etc/php/pools/7.4/velo.conf"].decode())
    made = texts["/etc/alternc/templates/apache2/php74-fpm-http.conf"].replace("%%LOGIN%%", "velo")
    assert f"proxy:unix:{pool['velo']['listen']}|" in made
    assert pool["velo"]["php_admin_value[open_basedir]"].split(":")[0] == "/var/www/alternc/v/velo/"
    assert pool["velo"]["env[TMPDIR]"] == "/var/www/alternc/v/velo/tmp"
    unit = lines(files["/etc/systemd/system/php7.4@velo.service.d/50-home.conf"].decode())
    assert "BindPaths=/var/www/alternc/v/velo /var/log/members/velo/php:/mnt" in unit
    assert pool["velo"]["slowlog"] == "/mnt/php7.4.slow.log"
