# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of `infini verify` in a real browser: readable on a phone, in light and dark, by keyboard, offline."""

from datetime import datetime

import pytest
from contrasts import CONTRASTS
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from hosting.findings import SENTENCES, Check
from infini.verify.picture import PHONE, browser, look_like, take
from infini.verify.report import Report

VALUES = {
    "url": "https://une-association-au-nom-vraiment-tres-long.infini.test/spip.php?rubrique12&lang=fr",
    "name": "une-association-au-nom-vraiment-tres-long.infini.test",
    "family": "IPv6",
    "address": "2001:db8::10",
    "ssh": "./infini staging ssh web --",
    "inventory": "staging",
    "playbook": "web",
    "reason": "timeout",
    "days": 3,
    "count": 2,
    "packages": ["openssl", "libssl3"],
    "title": "<script>document.title = 'taken'</script>",
}
NAMES = ("to", "location", "status", "expected", "text", "version", "protocol", "port", "missing", "service", "tried")
NAMES += ("ports", "greeting", "starts", "release", "fields", "policy", "unit", "units", "state", "command", "output")
NAMES += ("path", "account", "percent", "slice", "seconds", "mount", "free_gb", "inodes", "pressure", "milliseconds")


def report(codes=tuple(SENTENCES)):
    checks = [Check(code, "web", code, {**dict.fromkeys(NAMES, "12"), **VALUES, "host": "web"}) for code in codes]
    return Report(checks, "staging", 5.1)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "verify.html"
    path.write_text(report().as_html(datetime(2026, 11, 22, 8, 30)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def chromium():
    with browser() as driver:
        yield driver


@pytest.fixture
def driver(chromium):
    look_like(chromium)
    return chromium


@pytest.mark.parametrize("width", [320, 412, 1280])
def test_nothing_sticks_out(driver, page, width):
    look_like(driver, (width, 900))
    driver.get(page)
    for details in driver.find_elements(By.TAG_NAME, "summary"):
        if not details.find_element(By.XPATH, "..").get_attribute("open"):
            details.click()
    assert driver.execute_script("return innerWidth") == width
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    sizes = driver.execute_script(
        "return [...document.querySelectorAll('body *')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 14


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(driver, page, dark):
    look_like(driver, dark=dark)
    driver.get(page)
    weak = [(text, ratio) for text, ratio in driver.execute_script(CONTRASTS) if ratio < 4.5]
    paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert weak == []
    assert (int(paper.split("(")[1].split(",")[0]) < 128) is dark


def test_what_is_to_mend_is_seen_first_and_the_rest_opens_by_keyboard(driver, page):
    driver.get(page)
    assert driver.title.startswith("(")
    assert "État de la plate-forme" in driver.title
    assert driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == "fr"
    assert len(driver.find_elements(By.TAG_NAME, "h1")) == 1
    assert driver.find_element(By.CSS_SELECTOR, "[role=status]").is_displayed()
    bad = driver.find_element(By.CSS_SELECTOR, "li.bad")
    assert bad.is_displayed()
    assert bad.find_element(By.TAG_NAME, "code").is_displayed()
    fine = driver.find_element(By.CSS_SELECTOR, "details li")
    assert not fine.is_displayed()
    driver.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert fine.is_displayed()


def test_when_all_is_well_everything_is_shown(driver, tmp_path):
    path = tmp_path / "verify.html"
    path.write_text(report([code for code in SENTENCES if code.endswith(".ok")]).as_html(), encoding="utf-8")
    driver.get(path.as_uri())
    assert "Tout va bien" in driver.find_element(By.CSS_SELECTOR, "[role=status]").text
    assert driver.find_element(By.CSS_SELECTOR, "details li").is_displayed()
    assert driver.find_elements(By.CSS_SELECTOR, "li.bad") == []


def test_nothing_is_fetched_and_nothing_runs(driver, page):
    driver.get(page)
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert driver.get_log("browser") == []
    assert driver.title != "taken"


def test_a_picture_for_the_readme(tmp_path):
    target = tmp_path / "docs" / "verify.png"
    take(report().as_html(), target)
    header = target.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert (int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")) == PHONE
