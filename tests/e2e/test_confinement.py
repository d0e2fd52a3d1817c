# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one account nothing of another can be reached: by .htaccess, by PHP, by links, by SFTP.

Where an attack needs a trick, the same trick against the account's own PHP is tried first and must work: else a typing
mistake in the attack would pass for a refusal.
"""

from __future__ import annotations

import contextlib
import io
import json

import paramiko
import pytest
from members import put, run, site_of


@pytest.fixture(scope="module")
def sites(web, two_accounts):
    """Give one site on PHP of each account, with a directory of our own in it."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(site_of(web, account)) for account in two_accounts]


@pytest.fixture(scope="module")
def mine(sites):
    """The site from which everything is tried."""
    return sites[0]


@pytest.fixture(scope="module")
def theirs(sites):
    """The site that nothing may reach."""
    return sites[1]


@pytest.fixture
def htaccess(web, mine):
    """Write the .htaccess of our directory; afterwards it is harmless again."""
    yield lambda text: put(web, mine, ".htaccess", text)
    put(web, mine, ".htaccess", "RewriteEngine Off\n")


def test_each_site_runs_as_its_account(visit, mine, theirs):
    assert visit(mine, "who.php")[:2] == (200, mine.me)
    assert visit(theirs, "who.php")[:2] == (200, theirs.me)
    assert mine.uid != theirs.uid


def proxied(victim):
    return f"RewriteEngine On\nRewriteRule ^trick$ unix:{victim.socket}|fcgi://localhost{victim.path}/who.php [P]\n"


def handled(victim):
    return f"RewriteEngine On\nRewriteRule ^who\\.php$ - [H=proxy:unix:{victim.socket}|fcgi://localhost]\n"


def typed(victim):
    return f'RewriteEngine Off\nAddType "proxy:unix:{victim.socket}|fcgi://localhost" .txt\n'


def handler(victim):
    return (
        "RewriteEngine Off\n"
        f'<FilesMatch "who">\nSetHandler "proxy:unix:{victim.socket}|fcgi://localhost"\n</FilesMatch>\n'
        f'<If "true">\nSetHandler "proxy:unix:{victim.socket}|fcgi://localhost"\n</If>\n'
    )


def test_a_proxied_rewrite_reaches_ones_own_php_only(visit, htaccess, mine, theirs):
    htaccess(proxied(mine))
    assert visit(mine, "trick")[:2] == (200, mine.me)
    htaccess(proxied(theirs))
    status, text, _ = visit(mine, "trick")
    assert status == 503
    assert theirs.me not in text


def test_a_rewrite_that_names_a_handler_reaches_ones_own_php_only(visit, htaccess, mine, theirs):
    htaccess(handled(mine))
    assert visit(mine, "who.php")[:2] == (200, mine.me)
    htaccess(handled(theirs))
    assert theirs.me not in visit(mine, "who.php")[1]


def test_a_type_that_is_a_handler_reaches_nobody_else(visit, htaccess, mine, theirs):
    htaccess(typed(theirs))
    status, text, _ = visit(mine, "plain.txt")
    assert status == 503
    assert theirs.me not in text


def test_sethandler_is_passed_over(visit, htaccess, mine, theirs):
    htaccess(handler(theirs))
    assert visit(mine, "who.php")[:2] == (200, mine.me)
    assert visit(mine, "plain.txt")[:2] == (200, "plain")


def test_a_proxied_rewrite_reaches_no_web_server(visit, htaccess, mine):
    htaccess("RewriteEngine On\nRewriteRule ^in$ http://127.0.0.1:8080/ [P]\nRewriteRule ^ftp$ ftp://127.0.0.1/ [P]\n")
    assert visit(mine, "in")[0] == 500
    assert visit(mine, "ftp")[0] == 500


@pytest.mark.parametrize(
    "line",
    [
        "RewriteEngine On\nRewriteRule ^ - [E={0}:memory_limit=77M]",
        'SetEnv {0} "memory_limit=77M"',
        "SetEnvIf Request_URI . {0}=memory_limit=77M",
        'SetEnvIfNoCase Host ^ "{0}=memory_limit=77M"',
        "BrowserMatch ^ {0}=memory_limit=77M",
        'ProxyFCGISetEnvIf "true" {0} "memory_limit=77M"',
        'RequestHeader set {0} "memory_limit=77M"',
    ],
)
@pytest.mark.parametrize("variable", ["PHP_VALUE", "PHP_ADMIN_VALUE"])
def test_no_request_carries_settings_of_php(web, visit, htaccess, mine, line, variable):
    put(web, mine, "limit.php", '<?php echo ini_get("memory_limit"), " ", $_SERVER["SEEN"] ?? "unseen";')
    htaccess("RewriteEngine Off\nSetEnv SEEN seen\n" + line.format(variable) + "\n")
    status, text, _ = visit(mine, "limit.php", {variable.replace("_", "-"): "memory_limit=77M"})
    assert status == 200
    assert "77M" not in text
    assert text.endswith(" seen")  # the .htaccess was read


def test_links_lead_nowhere_outside(web, visit, htaccess, mine, theirs):
    links = {
        "passwd.txt": "/etc/passwd",
        "theirs.txt": f"{theirs.path}/plain.txt",
        "root": "/",
        "own.txt": "plain.txt",
    }
    for name, target in links.items():
        run(web, "runuser -u {} -- ln -sfn {} {}", mine.account, target, f"{mine.path}/{name}")
    for text in ("RewriteEngine Off\n", "RewriteEngine Off\nOptions +FollowSymLinks +Indexes\n"):
        htaccess(text)
        assert visit(mine, "passwd.txt")[0] == 403
        assert visit(mine, "theirs.txt")[0] == 403
        assert visit(mine, "root/etc/passwd")[0] == 403
        assert visit(mine, "own.txt")[:2] == (200, "plain")


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../../../../etc/passwd", "%{{DOCUMENT_ROOT}}/../../../../../etc/passwd"]
)
def test_a_rewrite_leads_nowhere_outside(visit, htaccess, mine, target):
    htaccess(f"RewriteEngine On\nRewriteRule ^out$ {target.format()} [L]\n")
    status, text, _ = visit(mine, "out")
    assert status in (400, 403, 404)
    assert "root:" not in text


def test_the_htaccess_of_a_real_cms_works(web, visit, htaccess, mine):
    """What is allowed works, what is not is passed over: never an error 500."""
    htaccess(
        "php_value memory_limit 99M\nOptions +FollowSymlinks -Indexes\nAddHandler application/x-httpd-php .php\n"
        "<IfModule mod_php7.c>\nphp_flag display_errors off\n</IfModule>\n"
        "<IfModule mod_rewrite.c>\nRewriteEngine On\n"
        "RewriteCond %{REQUEST_FILENAME} !-f\nRewriteCond %{REQUEST_FILENAME} !-d\n"
        f"RewriteRule . /{mine.folder}/who.php [L]\n</IfModule>\n"
        "<IfModule mod_expires.c>\nExpiresActive On\nExpiresDefault A600\n</IfModule>\n"
        '<IfModule mod_headers.c>\nHeader set X-Seen "yes"\n</IfModule>\n'
        '<Files "old.txt">\nOrder allow,deny\nDeny from all\n</Files>\n'
        '<Files "new.txt">\nRequire all denied\n</Files>\nErrorDocument 403 "keep out"\n'
    )
    for name in ("old.txt", "new.txt"):
        put(web, mine, name, "hidden")
        assert visit(mine, name)[:2] == (403, "keep out")
    status, text, headers = visit(mine, "an/article")
    assert (status, text, headers["X-Seen"]) == (200, mine.me, "yes")
    assert headers["Cache-Control"] == "max-age=600"


@pytest.mark.parametrize(
    "name", [".htaccess", ".user.ini", ".env", ".git/config", "page.phtml", "page.phar", "page.php5"]
)
def test_what_is_not_for_visitors_is_not_shown(web, visit, mine, name):
    run(web, "runuser -u {} -- mkdir -p {}", mine.account, f"{mine.path}/.git")
    if name != ".htaccess":
        put(web, mine, name, "; secret")
    assert visit(mine, name)[0] == 403


PROBE = """<?php
function shell($command) { return trim((string) shell_exec("(" . $command . ") 2>/dev/null")); }
$here = __DIR__;
echo json_encode([
    "own" => [(bool) @file_put_contents("$here/written.txt", "x"), shell("cat $here/written.txt")],
    "homes" => [@scandir("/srv/members"), shell("ls /srv/members")],
    "read" => [@file_get_contents("FILE"), shell("cat FILE")],
    "secrets" => [
        @file_get_contents("/etc/shadow"), shell("cat /etc/shadow /etc/gshadow /etc/ssh/*_key /etc/haproxy/certs/*")],
    "sockets" => [
        (bool) @stream_socket_client("unix://SOCKET", $code, $why, 2), shell("ls SOCKET /run/haproxy /run/dbus")],
    "written" => [
        @file_put_contents("/etc/php/x", "x"),
        shell("for f in / /etc /opt /run /srv /srv/members /usr/bin /var; do touch \\$f/x && echo \\$f; done")],
    "processes" => array_values(array_unique(explode("\\n", shell("stat -c %u /proc/[0-9]*")))),
    "gain" => shell("cp /bin/sh $here/sh; chmod u+s $here/sh && echo set; grep NoNewPrivs /proc/self/status"),
]);
"""


def test_php_sees_its_own_home_only(web, visit, mine, theirs):
    """What PHP's own functions are kept from by open_basedir, a program that it starts does not see either."""
    text = PROBE.replace("FILE", f"{theirs.path}/plain.txt").replace("SOCKET", theirs.socket)
    put(web, mine, "probe.php", text)
    status, text, _ = visit(mine, "probe.php")
    assert status == 200
    assert json.loads(text) == {
        "own": [True, "x"],
        "homes": [False, mine.account],
        "read": [False, ""],
        "secrets": [False, ""],
        "sockets": [False, ""],
        "written": [False, ""],
        "processes": [str(mine.uid)],
        "gain": "NoNewPrivs:\t1",
    }


def test_php_does_not_pass_for_the_front(web, visit, mine):
    """Apache believes the PROXY protocol about visitors, so whoever may open its port invents them."""
    put(
        web,
        mine,
        "front.php",
        '<?php echo @stream_socket_client("tcp://127.0.0.1:8080", $code, $why, 5) ? "open" : $why;',
    )
    assert visit(mine, "front.php")[:2] == (200, "Connection refused")
    run(web, "bash -c {}", "exec 3<>/dev/tcp/127.0.0.1/8080")  # somebody listens: a service gets through


def test_the_database_knows_an_account_by_its_login(web, visit, mine, theirs):
    put(
        web,
        mine,
        "database.php",
        "<?php mysqli_report(MYSQLI_REPORT_OFF);"
        f'echo @mysqli_connect("localhost", "{theirs.account}", "") ? "entered" : mysqli_connect_error();',
    )
    assert "Access denied" in visit(mine, "database.php")[1]


@pytest.fixture(scope="module")
def transport(web, web_address, mine):
    """An SSH connection of the account, by a key that is taken away afterwards."""
    key = paramiko.RSAKey.generate(3072)  # a kind that the hardened sshd accepts
    keys = f"/etc/ssh/members_keys/{mine.account}"
    run(web, "if [ -e {0} ]; then cp -p {0} {0}.kept; fi", keys)
    run(web, "echo {} > {}", f"{key.get_name()} {key.get_base64()}", keys)
    run(web, "chgrp {} {} && chmod 640 {}", mine.account, keys, keys)
    connection = paramiko.Transport((web_address, 22))
    try:
        connection.connect(username=mine.account, pkey=key)
        yield connection
    finally:
        connection.close()
        run(web, "rm {0}; if [ -e {0}.kept ]; then mv {0}.kept {0}; fi", keys)


@pytest.fixture
def sftp(transport):
    """The account's files, as it sees them."""
    with paramiko.SFTPClient.from_transport(transport) as client:
        yield client


def test_sftp_is_shut_up_in_the_home(sftp, mine, theirs):
    # The installed CMS leaves its administrator's password there, too.
    seen = {name for name in sftp.listdir("/") if not name.startswith("admin-")}
    assert seen == {"logs", "sessions", "tmp", "www"}
    for path in ("/etc/passwd", "/../../etc/passwd", f"/srv/members/{theirs.account}", f"/../{theirs.account}/www"):
        with pytest.raises(FileNotFoundError):
            sftp.stat(path)
    sftp.symlink("/etc/passwd", f"/www/{mine.name}/{mine.folder}/escape")
    with pytest.raises(FileNotFoundError):
        sftp.open(f"/www/{mine.name}/{mine.folder}/escape")


@pytest.mark.parametrize("path", ["/file", "/www/file", "/logs/file", "/.ssh/authorized_keys"])
def test_sftp_writes_nothing_outside_of_the_sites(sftp, path):
    with pytest.raises((PermissionError, FileNotFoundError)):
        sftp.putfo(io.BytesIO(b"x"), path)


def test_sftp_fills_the_site_and_reads_its_logs(visit, sftp, mine):
    sftp.putfo(io.BytesIO(b"by sftp"), f"/www/{mine.name}/{mine.folder}/sent.txt")
    assert visit(mine, "sent.txt")[:2] == (200, "by sftp")
    with sftp.open(f"/logs/{mine.name}.access.log") as log:
        assert f"/{mine.folder}/sent.txt" in log.read().decode()


def test_files_are_all_that_ssh_gives(transport):
    with pytest.raises(paramiko.ChannelException):
        transport.open_channel("direct-tcpip", dest_addr=("127.0.0.1", 8080), src_addr=("127.0.0.1", 1))
    channel = transport.open_session()
    channel.settimeout(5)
    channel.exec_command("echo it runs")
    channel.shutdown_write()
    assert b"it runs" not in channel.makefile().read()
