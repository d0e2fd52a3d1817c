# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A slip in one site's own settings: that site keeps what it had and is named, everybody else is served."""

import pytest
from members import put, site_of

from infini import verify

GOOD = "Header always set X-Quarantine-Test good"


@pytest.fixture
def two(sites):
    """Give two sites with PHP of different accounts: one with slips, one without."""
    bad = next(site for site in sites if site.get("php"))
    return bad, next(site for site in sites if site.get("php") and site["account"] != bad["account"])


def changed(sites, **more):
    """Return the sites with some words more about those that are named."""
    return [{**site, **more.get(site.get("account"), {})} for site in sites]


def told(inventory):
    """Return what `verify` finds now; limits that other tests have run into are told for a day."""
    failed = verify.verify(str(inventory.path)).as_json()["failed"]
    return {check["check"]: check["says"] for check in failed if not check["check"].startswith("limit:")}


def test_a_syntax_error_costs_its_own_site_only(two, sites, apply_web, web, inventory):
    bad, good = two
    slips = {"apache": "Heeder set X-A b", "php_settings": {"memory_limit]": "1"}}
    wanted = changed(sites, **{bad["account"]: slips, good["account"]: {"apache": GOOD}})
    host = f"/etc/apache2/members/{bad['name']}.conf"
    pool = f"/etc/php/pools/{bad['php']}/{bad['account']}.conf"
    before = {path: web.file(path).content for path in (host, pool)}

    for run in (apply_web(wanted), apply_web(wanted)):
        answer = run.as_json()
        assert (run.ok, run.status, answer["ok"]) == (True, 1, False), run.sentence()
        refused = {file["path"]: file for file in answer["quarantined"]}
        assert set(refused) == {host, pool}
        assert "Heeder" in refused[host]["reason"]
        assert pool in refused[pool]["reason"]
        assert refused[host]["name"] in refused[host]["mend"]
    assert run.changed == 0
    assert {path: web.file(path).content for path in (host, pool)} == before
    assert GOOD in web.file(f"/etc/apache2/members/{good['name']}.conf").content_string

    web.check_output("systemctl restart apache2.service")
    web.check_output("systemctl restart 'php*@*.service'")
    failed = told(inventory)
    assert set(failed) == {f"quarantine:web:{host}", f"quarantine:web:{pool}"}
    assert all(bad["name"] in says or bad["account"] in says for says in failed.values())

    mended = apply_web(changed(sites, **{bad["account"]: {"apache": GOOD}}))
    assert (mended.status, mended.quarantined) == (0, [])
    assert GOOD in web.file(host).content_string
    assert not told(inventory)


def test_a_version_changed_together_with_a_slip_leaves_the_site_on_what_it_had(two, sites, apply_web, web, visit):
    bad, good = two
    account, new = bad["account"], good["php"]
    files = {f"/etc/apache2/members/{bad['name']}.conf", f"/etc/php/pools/{new}/{account}.conf"}
    with site_of(web, account) as site:
        put(web, site, "version.php", "<?php echo PHP_MAJOR_VERSION, '.', PHP_MINOR_VERSION;")
        slip = {account: {"php": new, "php_settings": {"memory_limit]": "1"}}}
        for run in (apply_web(changed(sites, **slip)), apply_web(changed(sites, **slip))):
            assert {file["path"] for file in run.as_json()["quarantined"]} == files
            assert visit(site, "version.php")[:2] == (200, bad["php"])
        assert run.changed == 0
        mended = apply_web(changed(sites, **{account: {"php": new}}))
        assert (mended.status, mended.quarantined) == (0, [])
        assert visit(site, "version.php")[:2] == (200, new)
        assert not web.file(f"/etc/php/pools/{bad['php']}/{account}.conf").exists
