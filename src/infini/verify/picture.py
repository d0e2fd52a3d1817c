# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture of the page as a phone shows it, for the README: made by the same code that tests the page.

`python -m infini.verify.picture` looks at the bench and renews docs/_static/verify.png.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from infini import ROOT

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

PHONE = (412, 915)
README_PICTURE = ROOT / "docs" / "_static" / "verify.png"


@contextmanager
def browser() -> Iterator[WebDriver]:
    """Start Debian's Chromium without a screen, as a phone."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = "/usr/bin/chromium"
    arguments = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's sandbox refuses root; the pages shown are our own
    for argument in arguments:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        look_like(driver)
        yield driver
    finally:
        driver.quit()


def look_like(driver: WebDriver, size: tuple[int, int] = PHONE, dark: bool = False) -> None:
    """Give the browser the size and the colours of a device."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


def take(page: str, target: Path, size: tuple[int, int] = PHONE, whole: bool = False) -> None:
    """Write a picture of a page: what a screen of this size shows, or the whole of it."""
    with tempfile.TemporaryDirectory() as folder, browser() as driver:
        look_like(driver, size)
        source = Path(folder, "page.html")
        source.write_text(page, encoding="utf-8")
        driver.get(source.as_uri())
        if whole:
            look_like(driver, (size[0], driver.execute_script("return document.documentElement.scrollHeight")))
        target.parent.mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(target))


def main() -> None:
    """Renew the README's picture from the bench."""
    from infini.verify import page, verify

    take(page(verify("staging")), README_PICTURE)


if __name__ == "__main__":
    main()
