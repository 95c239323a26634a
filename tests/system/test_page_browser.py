"""The page in a real browser, on the real daemon and an emulated provider."""

from __future__ import annotations

import json
import urllib.request

import pytest

from support.browser import browsing, missing_browser, show_in
from support.daemon_process import Installation, wait_until
from support.emulator import Emulator, Fault
from support.scene import wav_bytes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_browser()), reason=missing_browser() or "a browser is here"),
]


@pytest.fixture
def emulator():
    """A provider that answers as documented."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def site(tmp_path, emulator):
    """A running daemon with a page on a free port: (installation, process, address)."""
    http = {"http": {"listen": "127.0.0.1:0", "uploads": True}, "hold": {"first": "1s", "max": "2s"}}
    installation = Installation(tmp_path / "root", emulator.url, extra=http)
    with installation.start_ready() as process:
        (line,) = process.until_logged("http.listening")
        yield installation, process, f"http://{line['address']}"


def text_of(driver) -> str:
    """What the open page shows; nothing while it is being loaded."""
    found = driver.execute_script("return document.querySelector('main')?.innerText")
    return found or ""


def listed(driver) -> list[tuple[str, str]]:
    """(name, state) of the files that the open page lists."""
    script = """return [...document.querySelectorAll('#files-list .list > li')].map(
        (item) => [item.querySelector('.name').innerText, item.querySelector('.tag').innerText])"""
    return [(name, state) for name, state in driver.execute_script(script)]


def until_shown(driver, words: str) -> None:
    """Wait until the open page shows *words*, without loading it again."""
    wait_until(lambda: words in text_of(driver), f"the page to show {words!r}")


def test_a_recording_passes_through_an_open_page(site, tmp_path):
    """Dropped onto the folder's page it appears, is transcribed and opens with player and words."""
    _, _, address = site
    recording = tmp_path / "meeting.wav"
    recording.write_bytes(wav_bytes(3))
    with browsing() as driver:
        driver.get(f"{address}/folders/calls")
        driver.execute_script("window.here = true")
        driver.find_element("id", "files").send_keys(str(recording))
        driver.find_element("css selector", "form.drop button").click()
        wait_until(lambda: listed(driver) == [("meeting.wav", "done")], "the file to be done")
        assert driver.execute_script("return window.here"), "the page was loaded again"

        driver.find_element("link text", "meeting.wav").click()
        assert "was transcribed" in text_of(driver)
        audio = driver.find_element("tag name", "audio")
        wait_until(lambda: audio.get_property("readyState") >= 1, "the recording's length")
        words = driver.find_elements("css selector", ".w")
        words[-1].click()
        start = float(words[-1].get_attribute("data-start"))
        wait_until(lambda: audio.get_property("currentTime") >= start > 0, "the player to jump")
        driver.execute_script("arguments[0].pause()", audio)
        wait_until(lambda: "now" in words[-1].get_attribute("class"), "the word to be marked")


def test_a_hold_is_shown_and_released(site, emulator):
    """A provider that refuses the key is held in sight, and tried again by a button."""
    installation, _, address = site
    emulator.fail(*[Fault(status=401, body={"error": "unauthorized"})] * 3)
    with browsing() as driver:
        driver.get(address)
        installation.drop("call.wav", wav_bytes(1))
        until_shown(driver, "Provider pulse is held")
        emulator.script.clear()
        wait_until(lambda: press(driver, "Try now"), "the button")
        wait_until(lambda: installation.status()["done"] == 1, "the file to go on")
        driver.get(address)
        until_shown(driver, "nothing waits")


def test_a_failed_file_is_retried(site, emulator):
    """What failed has its reason and a button that takes it back."""
    installation, _, address = site
    emulator.fail(Fault(status=415, body={"error": "Unsupported media type"}))
    installation.drop("call.wav", wav_bytes(1))
    wait_until(lambda: installation.status()["failed"] == 1, "the failure")
    with browsing() as driver:
        driver.get(f"{address}/folders/calls?state=failed")
        driver.find_element("link text", "call.wav").click()
        assert press(driver, "Retry")
        until_shown(driver, "Back in the inbox")
    wait_until(lambda: installation.status()["done"] == 1, "the second try")


def press(driver, label: str) -> bool:
    """Click the button of that label; False where it is not there (yet)."""
    from selenium.common.exceptions import WebDriverException

    try:
        for button in driver.find_elements("tag name", "button"):
            if button.text == label:
                button.click()
                return True
    except WebDriverException:
        return False  # it was replaced by a live update in between
    return False


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000, 1600])
def test_no_page_is_wider_than_the_screen(site, width, scheme):
    """On a phone nothing has to be scrolled sideways, and the text contrasts with its ground."""
    installation, _, address = site
    installation.drop(f"{'a-very-long-name-' * 8}.wav", wav_bytes(1))
    wait_until(lambda: installation.status()["done"] == 1, "the file")
    with browsing(width) as driver:
        show_in(driver, width, 900, scheme)
        driver.get(f"{address}/folders/calls")
        file = driver.find_element("css selector", ".list a").get_attribute("href")
        for page in (address, f"{address}/folders/calls", file):
            driver.get(page)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            assert contrast_of(driver) >= 4.5
            # One main part, one heading of the first level, names for all that can be operated.
            assert len(driver.find_elements("css selector", "main")) == 1
            assert len(driver.find_elements("css selector", "h1")) == 1
            unnamed = driver.execute_script(
                "return [...document.querySelectorAll('button,a[href],input:not([type=hidden]),select')]"
                ".filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length"
            )
            assert unnamed == 0


def contrast_of(driver) -> float:
    """Contrast of quiet text on a panel, by the formula of WCAG 2.1."""
    return driver.execute_script(
        """
        const luminance = (colour) => {
          const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
          return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        };
        const text = luminance(getComputedStyle(document.querySelector('.quiet')).color);
        const ground = luminance(getComputedStyle(document.querySelector('.panel')).backgroundColor);
        return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        """
    )


def test_the_pages_work_without_scripts(site):
    """A plain request shows all; a retry is a form."""
    installation, _, address = site
    installation.drop("call.wav", wav_bytes(1))
    wait_until(lambda: installation.status()["done"] == 1, "the file")
    with urllib.request.urlopen(f"{address}/folders/calls?state=done", timeout=10) as answer:
        assert b"call.wav" in answer.read()
    with urllib.request.urlopen(f"{address}/status", timeout=10) as answer:
        assert json.load(answer)["folders"]["calls"]["done"] == 1
