# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What once stopped changes in silence: each fault is mended by itself, or said, and costs nobody else."""

import pytest

TEMPLATE = "/etc/alternc/templates/apache2/php82-fpm-http.conf"


@pytest.fixture(scope="module")
def sites(members):
    """Make a site of each member; both answer."""
    names = [member.site("www2") for member in members]
    panel = members[0].panel
    for name in names:
        assert panel.until(lambda name=name: panel.page(name)[1].startswith("PHP ")), (name, panel.problems())
    return names


def flag(panel):
    """Ask for an application as the administrator's button does."""
    panel.run("runuser -u alterncpanel -- touch /run/alternc/incron/inotify_update_domain.lock")


def gone(panel):
    """Tell whether the flag was taken."""
    return panel.run("ls /run/alternc/incron") == ""


def restarts(panel):
    """Restart Apache as its unit, and tell whether it came up."""
    panel.run("systemctl restart apache2.service")
    return panel.run("systemctl is-active apache2.service") == "active"


def test_1_and_2_the_button_works_whether_or_not_its_file_was_there(panel, members):
    for number in range(3):  # each time the file that incron watched would be a new one
        members[0].again("www")
        flag(panel)
        assert panel.until(lambda: gone(panel)), number
        assert panel.until(lambda: not panel.sql("SELECT 1 FROM sub_domaines WHERE web_action <> 'OK'"))


def test_3_the_directory_of_the_flags_is_gone(panel, members):
    panel.run("rm -rf /run/alternc")
    members[0].set("perdu", "url", "https://exemple.test/perdu")
    name = f"perdu.{members[0].domain}"
    assert panel.until(lambda: panel.page(name)[2].startswith("https://exemple.test/perdu")), panel.problems()
    assert panel.run("stat -c %U /run/alternc/incron") == "alterncpanel"


def test_4_file_actions_that_the_database_hides(panel, members):
    panel.sql("ALTER TABLE actions MODIFY begin timestamp NULL DEFAULT NULL, MODIFY end timestamp NULL DEFAULT NULL")
    home = f"/var/www/alternc/{members[0].login[0]}/{members[0].login}"
    panel.php(f"""$action->create_dir("{home}/cache"); echo json_encode(true);""")
    assert panel.until(lambda: panel.run(f"test -d {home}/cache && echo there", check=False))
    assert not panel.sql("SELECT id FROM actions WHERE begin IS NULL OR end IS NULL OR end = 0")


def test_5_a_lock_that_an_aborted_installation_left(panel, members):
    panel.run("touch -d '10 minutes ago' /run/alternc/jobs-lock")
    home = f"/var/www/alternc/{members[0].login[0]}/{members[0].login}"
    panel.php(f"""$action->create_dir("{home}/verrou"); echo json_encode(true);""")
    assert panel.until(lambda: panel.run(f"test -d {home}/verrou && echo there", check=False)), panel.problems()
    assert panel.run("ls /run/alternc/jobs-lock", check=False) == ""


def test_6_a_virtual_host_that_apache_cannot_read(panel, members, sites):
    path = panel.run(f"ls /var/lib/alternc/apache-vhost/*/{members[0].uid}/{sites[0]}.conf")
    row = f"SELECT web_result FROM sub_domaines WHERE domaine = '{members[0].domain}' AND sub = 'www2'"  # noqa: S608 (ours)
    kept = panel.run(f"cat {path}")
    panel.run(f"sed -i 's/^ *DocumentRoot/    NoSuchDirective on\\n&/' {path}")
    try:
        members[1].set("apres", "url", "https://exemple.test/apres")
        name = f"apres.{members[1].domain}"
        there = panel.until(lambda: panel.page(name)[2].startswith("https://exemple.test/apres"))
        assert there, "the others' changes are applied"
        assert panel.until(lambda: sites[0] in panel.problems() and "NoSuchDirective" in panel.problems())
        ((told,),) = panel.sql(row)
        assert told.startswith("Apache refuse ce site, qui reste comme avant : "), "AlternC's own page says it, too"
        assert "NoSuchDirective" in told
        assert restarts(panel), "Apache starts although AlternC's own file is broken"
        assert [panel.page(site)[0] for site in sites] == [200, 200], "the broken one stays on what it had"
    finally:
        panel.run(f"cat >{path}", kept + "\n")
    assert panel.until(lambda: not panel.problems()), panel.problems()
    assert panel.sql(row) == [["0"]], "and takes it back once it is mended"


def test_6_apache_outside_of_its_unit_is_brought_home(panel, sites):
    panel.run("systemctl stop apache2.service; apache2ctl start")
    flag(panel)
    home = "grep -c apache2.service /proc/$(cat /run/apache2/apache2.pid)/cgroup"
    assert panel.until(lambda: panel.run(home, check=False) not in ("", "0")), panel.problems()
    assert restarts(panel)
    assert panel.page(sites[0])[0] == 200


def test_7_a_type_that_is_gone(panel, members, sites):
    panel.sql("UPDATE domaines_type SET name = 'php82-away' WHERE name = 'php82-fpm'")
    try:
        members[0].again("www2")
        flag(panel)
        assert panel.until(lambda: "php82-fpm does not exist" in panel.problems()), panel.problems()
        assert sites[0] in panel.problems()
        assert [panel.page(site)[0] for site in sites] == [200, 200], "they stay as they are"
    finally:
        panel.sql("UPDATE domaines_type SET name = 'php82-fpm' WHERE name = 'php82-away'")
    assert panel.until(lambda: not panel.problems()), panel.problems()


def test_8_a_template_that_is_missing(panel, members, sites):
    panel.run(f"mv {TEMPLATE} {TEMPLATE}.away")
    try:
        members[0].again("www2")
        flag(panel)
        assert panel.until(lambda: f"{TEMPLATE} is missing" in panel.problems()), panel.problems()
        assert panel.page(sites[0])[0] == 200
    finally:
        panel.run(f"mv {TEMPLATE}.away {TEMPLATE}")
    assert panel.until(lambda: not panel.problems()), "what failed is tried again once it can work"
    assert panel.page(sites[0])[0] == 200


def test_9_php_on_the_command_line_is_broken(panel, members):
    panel.run("cd /etc/php/8.2/cli/conf.d; mv 20-pdo_mysql.ini 20-pdo_mysql.ini.away")
    try:
        members[0].again("www")
        flag(panel)
        assert panel.until(lambda: "update_domains.php said" in panel.problems()), panel.problems()
        assert "Not applied" in panel.problems()
    finally:
        panel.run("cd /etc/php/8.2/cli/conf.d; mv 20-pdo_mysql.ini.away 20-pdo_mysql.ini")
    assert panel.until(lambda: not panel.problems()), panel.problems()


def test_10_the_database_is_down(panel, sites):
    count = "ls /etc/php/pools/*/*.conf /run/php/*/*.sock | wc -l; wc -l </var/lib/extrausers/passwd"
    before = panel.run(count)
    panel.run("systemctl stop mariadb.service")
    try:
        flag(panel)
        assert panel.until(lambda: "database does not answer" in panel.problems()), panel.problems()
        assert panel.run(count) == before, "nobody loses a pool or a name"
        assert [panel.page(site)[0] for site in sites] == [200, 200]
        assert restarts(panel)
    finally:
        panel.run("systemctl start mariadb.service")
    assert panel.until(lambda: not panel.problems()), panel.problems()


def test_11_a_burst_does_not_shut_the_path(panel):
    panel.run("for i in $(seq 200); do touch /run/alternc/incron/inotify_update_domain.lock; sleep 0.02; done")
    assert panel.until(lambda: gone(panel))
    assert panel.run("systemctl is-active alternc-apply.path") == "active"
    panel.run("systemctl stop alternc-apply.path")
    try:
        assert "alternc-apply.path does not run" in panel.problems(), "and if it were shut, it is said"
    finally:
        panel.run("systemctl start alternc-apply.path")


def test_a_stale_lock_of_a_killed_run(panel, members):
    panel.run("touch -d '2 minutes ago' /run/alternc/cron.lock; chown alterncpanel: /run/alternc/cron.lock")
    members[0].set("apresverrou", "url", "https://exemple.test/verrou")
    name = f"apresverrou.{members[0].domain}"
    assert panel.until(lambda: panel.page(name)[2].startswith("https://exemple.test/verrou")), panel.problems()
