# ruff: noqa: INP001 - a program, not a module of a package
"""Makes the pictures of docs/images from a running page: python packaging/make_screenshots.py URL.

Needs chromium, chromedriver and selenium; the daemon behind URL should have a few done and failed files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import browsing, show_in  # noqa: E402 - found by the path above

IMAGES = ROOT / "docs" / "images"
WORDS = "fellow americans"


def main(url: str) -> None:
    """Write the overview, a file's page, a search and the overview on a phone."""
    IMAGES.mkdir(exist_ok=True)
    with browsing() as driver:
        show_in(driver, 1200, 820, "light")
        driver.get(url)
        driver.save_screenshot(str(IMAGES / "page-overview.png"))
        driver.get(url + "/folders/calls?state=done")
        driver.find_element("css selector", "#files-list .list a").click()
        show_in(driver, 1000, 620, "light")
        driver.save_screenshot(str(IMAGES / "page-file.png"))
        show_in(driver, 1000, 480, "light")
        driver.get(url + "/search?q=" + quote(WORDS))
        driver.save_screenshot(str(IMAGES / "page-search.png"))
        show_in(driver, 360, 740, "dark")
        driver.get(url)
        driver.save_screenshot(str(IMAGES / "page-phone.png"))


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
