# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board and the report of `infini domains` in a browser: on a phone, in light and dark, by keyboard, offline."""

import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from contrasts import CONTRASTS
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from infini.domains.board import Board, Row
from infini.domains.events import Event
from infini.domains.observed import Difference, Parity, Tally
from infini.domains.report import Proof
from infini.domains.states import CHAIN, State
from infini.verify.picture import PHONE, browser, look_like, take

NOW = datetime(2026, 3, 20, 9, 0, tzinfo=UTC)
LONG = "une-association-au-nom-vraiment-tres-long-et-sans-fin.test"
EVIL = "<script>document.title = 'taken'</script>"


def rows():
    for number, state in enumerate(CHAIN):
        yield Row(
            f"d{number:02d}.test",
            state,
            NOW - timedelta(days=number),
            NOW,
            "Les caches oublient les anciens serveurs de noms.",
            State.WAITING if number % 3 else None,
            waiting_until=NOW + timedelta(days=number % 3),
            next=State.DONE,
            irreversible=number == 13,
            expires=NOW + timedelta(days=30 + number * 5),
            mailboxes=number % 3,
        )
    yield Row(LONG, State.EXPORTED, NOW, NOW, EVIL, State.BLOCKED, "alias", who="member")
    yield Row("xn--t-9fab.test", State.SETTLED, NOW - timedelta(days=40), NOW, "à vérifier", who="volunteer")


def proof():
    outcome = {"name": "www", "type": "CNAME", "what": "dropped", "reason": EVIL}
    plan = {"seen": 2, "identical": 1, "rewritten": 0, "dropped": 1, "blocked": 0, "balanced": True, "added": []}
    wrong = Difference("www", "A", "ns1.infini.test 2001:db8::53 TCP", "192.0.2.1 " * 20, "no answer")
    parity = Parity(LONG, NOW, "x", 4240, 4238, (), (wrong,), True)
    events = [Event(NOW + timedelta(hours=n), LONG, "", "state", {"to": state}) for n, state in enumerate(CHAIN)]
    compared = {"queries": 8480, "identical": 4138, "expected": {"ttl": 100, "plan": 1}, "unexpected_count": 1}
    events.append(Event(NOW, LONG, "", "parity", compared))
    tally = Tally(LONG, NOW, NOW + timedelta(days=2), 576, 1, 5.0, ("www A: SERVFAIL",))
    return Proof(next(rows()), tuple(events), NOW, {**plan, "outcomes": [outcome]}, parity, tally)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    made = {"board": Board(tuple(rows()), NOW).html(), "report": proof().html()}
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in made}


@pytest.fixture(scope="module")
def chromium():
    with browser() as driver:
        yield driver


@pytest.fixture
def driver(chromium):
    look_like(chromium)
    return chromium


def open_all(driver):
    driver.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")


@pytest.mark.parametrize("name", ["board", "report"])
@pytest.mark.parametrize("width", [320, 412, 1280])
def test_nothing_sticks_out(driver, pages, name, width):
    look_like(driver, (width, 900))
    driver.get(pages[name])
    open_all(driver)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    sizes = "return [...document.querySelectorAll('body *')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(driver.execute_script(sizes)) >= 14


@pytest.mark.parametrize("name", ["board", "report"])
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(driver, pages, name, dark):
    look_like(driver, dark=dark)
    driver.get(pages[name])
    open_all(driver)
    assert [(text, ratio) for text, ratio in driver.execute_script(CONTRASTS) if ratio < 4.5] == []
    paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(paper.split("(")[1].split(",")[0]) < 128) is dark


def test_the_board_says_who_must_act_and_the_rest_opens_by_keyboard(driver, pages):
    driver.get(pages["board"])
    assert driver.title.startswith("(1) Quitter Gandi")
    assert driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == "fr"
    assert "Terminés : 1 sur 21, bloqués : 1." in driver.find_element(By.CSS_SELECTOR, "[role=status]").text
    waiting = driver.find_element(By.ID, "agir")
    assert LONG in waiting.text
    assert "été.test" in waiting.text
    assert driver.find_element(By.ID, "expirations").is_displayed()
    assert "été.test" in driver.find_element(By.ID, "immobiles").text
    assert driver.find_element(By.ID, "calendrier").is_displayed()
    details = driver.find_element(By.ID, "d13.test")
    assert not details.find_element(By.TAG_NAME, "dl").is_displayed()
    details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert "sans retour possible" in details.find_element(By.TAG_NAME, "dl").text


def test_the_report_does_not_claim_what_is_not_proven(driver, pages):
    driver.get(pages["report"])
    assert "La preuve n'est pas complète" in driver.find_element(By.CSS_SELECTOR, "[role=status]").text


def test_a_picture_shows_the_whole_page(driver, pages, tmp_path):
    text = Path(unquote(urlsplit(pages["board"]).path)).read_text(encoding="utf-8")
    picture = tmp_path / "board.png"
    take(text, picture, whole=True)
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])  # PNG's first chunk
    driver.get(pages["board"])
    assert (width, height) == (PHONE[0], driver.execute_script("return document.documentElement.scrollHeight"))
    assert height > 2 * PHONE[1]


@pytest.mark.parametrize("name", ["board", "report"])
def test_nothing_is_fetched_and_nothing_runs(driver, pages, name):
    driver.get(pages[name])
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert driver.get_log("browser") == []
    assert driver.title != "taken"
