# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`php-pools reload`: a running master reads its changed pool, and one that has read it already is left in peace."""

import time

import pytest
from members import put, run, site_of

WRITE = "cp -p {0} {0}.new && touch {0}.new && mv {0}.new {0}"


@pytest.fixture
def site(web):
    """Give a site whose master has just been asked for a page."""
    with site_of(web, "jardin") as site:
        put(web, site, "here.php", "<?php echo 'here';")
        yield site


def reloads(web, site):
    return int(run(web, "journalctl --unit {} --grep 'Reloading in progress' --quiet | wc -l", site.master))


def test_a_master_is_reloaded_once_for_a_change_and_never_for_what_it_has_read(web, site, visit):
    pool = f"/etc/php/pools/{site.version}/{site.account}.conf"
    assert visit(site, "here.php")[:2] == (200, "here")
    run(web, "php-pools reload")
    before = reloads(web, site)

    run(web, WRITE, pool)
    run(web, "php-pools reload")
    run(web, "php-pools reload")
    assert reloads(web, site) == before + 1
    assert visit(site, "here.php")[:2] == (200, "here")

    run(web, "systemctl stop {}", site.master)
    run(web, WRITE, pool)
    time.sleep(1.1)  # systemd says in which second a master started
    assert visit(site, "here.php")[:2] == (200, "here")
    run(web, "php-pools reload")
    assert reloads(web, site) == before + 1

    run(web, "touch /etc/php/pools/infini.ini")  # all share it
    run(web, "php-pools reload")
    assert reloads(web, site) == before + 2
