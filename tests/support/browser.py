"""Headless Chromium for tests and for the screenshots of the documentation."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required",
)


def missing_browser() -> str:
    """Why no browser can be started here, or ""."""
    programs = {"chromium": shutil.which("chromium"), "chromedriver": shutil.which("chromedriver")}
    absent = [name for name, path in programs.items() if path is None]
    return f"needs {' and '.join(absent)}" if absent else ""


@contextlib.contextmanager
def browsing(width: int = 1280, height: int = 900) -> Iterator[Chrome]:
    """A browser with a window of that size and a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (*ARGUMENTS, f"--window-size={width},{height}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def show_in(driver: Chrome, width: int, height: int, scheme: str) -> None:
    """Emulate a screen of that size, and ``light`` or ``dark``."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
