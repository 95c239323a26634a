"""The page in a real browser, on the real daemon and an emulated provider."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import shutil
import socket
import subprocess
import tarfile
import threading
import urllib.request
from typing import TYPE_CHECKING

import pytest

from support.browser import browsing, missing_browser, show_in
from support.daemon_process import Installation, wait_until
from support.emulator import Emulator, Fault
from support.scene import wav_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def follow_link(driver, text: str) -> None:
    """Open the link's page. A live update may replace the link between the look for it and a click."""
    find = "return [...document.querySelectorAll('a')].find((link) => link.innerText === arguments[0]).href"
    driver.get(driver.execute_script(find, text))


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

        follow_link(driver, "meeting.wav")
        assert "was transcribed" in text_of(driver)
        audio = driver.find_element("tag name", "audio")
        wait_until(lambda: audio.get_property("readyState") >= 1, "the recording's length")
        words = driver.find_elements("css selector", ".w")
        words[-1].click()
        start = float(words[-1].get_attribute("data-start"))
        wait_until(lambda: audio.get_property("currentTime") >= start > 0, "the player to jump")
        driver.execute_script("arguments[0].pause()", audio)
        wait_until(lambda: "now" in words[-1].get_attribute("class"), "the word to be marked")


@contextlib.contextmanager
def gateway(port: int) -> Iterator[threading.Event]:
    """A proxy whose server is away: it answers 502. The event is set once it was asked for changes."""
    asked = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(502)
            if self.path.startswith("/events"):
                asked.set()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("has_proxy", [False, True], ids=["refused", "502"])
def test_a_page_shows_what_happened_while_it_had_no_connection(tmp_path, emulator, has_proxy):
    """The daemon was started again meanwhile, behind a proxy too, and nothing changes after that."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    installation = Installation(tmp_path / "root", emulator.url, extra={"http": {"listen": address}})
    with browsing() as driver:
        with installation.start_ready() as process:
            process.until_logged("http.listening")
            driver.get(f"http://{address}/")
            process.until(lambda: driver.find_elements("css selector", ".dot.live"), "the stream")
            process.stop()
        if has_proxy:
            with gateway(port) as asked:
                assert asked.wait(30)
        installation.drop("call.wav", wav_bytes(1))
        assert installation.run_once() == 0
        with installation.start_ready():
            until_shown(driver, "call.wav")


def test_a_page_shows_what_happened_before_its_first_connection(site):
    """Between the moment when it was made and that in which it listens for changes."""
    installation, _, address = site
    with browsing() as driver:
        driver.execute_cdp_cmd("Fetch.enable", {"patterns": [{"urlPattern": "*/events*"}]})  # they wait
        driver.get(address)
        installation.drop("call.wav", wav_bytes(1))
        wait_until(lambda: installation.status()["done"] == 1, "the file")
        driver.execute_cdp_cmd("Fetch.disable", {})
        until_shown(driver, "call.wav")


def test_the_page_of_a_file_shows_its_transcript_once_it_is_there(site, emulator):
    """Without a click: the text, the facts and the whole time line."""
    installation, _, address = site
    emulator.delay_seconds = 4.0
    installation.drop("call.wav", wav_bytes(1))
    with browsing() as driver:
        driver.get(f"{address}/folders/calls")
        wait_until(lambda: driver.find_elements("link text", "call.wav"), "the file")
        follow_link(driver, "call.wav")
        until_shown(driver, "It is with")
        wait_until(lambda: driver.find_elements("css selector", ".transcript .w"), "the transcript")
        assert "It was filed with its transcripts." in text_of(driver)


def test_many_tabs_can_be_open(site):
    """A browser allows six connections to a site: hidden tabs give theirs back until they are seen."""
    installation, _, address = site
    with browsing() as driver:
        driver.set_page_load_timeout(20)
        driver.get(f"{address}/folders/calls")
        first = driver.current_window_handle
        for _ in range(8):
            driver.switch_to.new_window("tab")
            driver.get(address)
            assert "calls" in text_of(driver)
        installation.drop("call.wav", wav_bytes(1))
        wait_until(lambda: installation.status()["done"] == 1, "the file")
        until_shown(driver, "call.wav")
        driver.switch_to.window(first)
        until_shown(driver, "call.wav")


def test_a_page_of_an_ended_file_keeps_no_connection(site):
    """Nothing more happens to it: however many of them are on the screen, all load."""
    installation, _, address = site
    installation.drop("call.wav", wav_bytes(1))
    wait_until(lambda: installation.status()["done"] == 1, "the file")
    opened = "return performance.getEntriesByType('resource').filter(e => e.name.includes('/events')).length"
    with browsing() as driver:
        driver.get(f"{address}/folders/calls")
        follow_link(driver, "call.wav")
        wait_until(lambda: "was transcribed" in text_of(driver), "the file's page")
        assert driver.find_elements("css selector", "[data-live=ended]")
        assert driver.execute_script(opened) == 0


def test_a_focused_link_does_not_stop_the_update(site):
    """The list changes under it, and the same link has the focus again."""
    installation, _, address = site
    installation.drop("one.wav", wav_bytes(1))
    wait_until(lambda: installation.status()["done"] == 1, "the first file")
    with browsing() as driver:
        driver.get(f"{address}/folders/calls")
        driver.execute_script("document.querySelector('#files-list .list a').focus()")
        installation.drop("two.wav", wav_bytes(2))
        wait_until(lambda: ("two.wav", "done") in listed(driver), "the second file on the page")
        assert driver.execute_script("return document.activeElement.innerText") == "one.wav"


def test_selected_text_stays_to_be_copied(site):
    """The list is not replaced under it, and shows what has changed once nothing is selected."""
    installation, _, address = site
    installation.drop("first.wav", wav_bytes(1))
    with browsing() as driver:
        driver.get(f"{address}/folders/calls")
        until_shown(driver, "first.wav")
        wait_until(lambda: installation.status()["done"] == 1, "the file")
        wait_until(lambda: listed(driver) == [("first.wav", "done")], "its state")
        driver.execute_script("getSelection().selectAllChildren(document.querySelector('.list .name'))")
        driver.execute_script(
            "window.fetched = 0; const ask = fetch;"
            "window.fetch = (...all) => ask(...all).finally(() => setTimeout(() => { fetched++; }, 500))"
        )
        installation.drop("second.wav", wav_bytes(1))
        wait_until(lambda: installation.status()["done"] == 2, "the second file")
        wait_until(lambda: driver.execute_script("return fetched") > 0, "the page to hear of it")
        assert driver.execute_script("return getSelection().toString()") == "first.wav"
        assert "second.wav" not in text_of(driver)
        driver.execute_script("getSelection().removeAllRanges()")
        until_shown(driver, "second.wav")


def test_an_upload_says_what_was_taken(site, tmp_path):
    """By the file chooser: the number of files, or the name of a refused one, once, and the reason."""
    _, _, address = site
    names = ("one.wav", "two.wav", "notes.pdf")
    paths = [tmp_path / name for name in names]
    for seconds, path in enumerate(paths, 1):
        path.write_bytes(wav_bytes(seconds))
    with browsing() as driver:
        driver.get(f"{address}/folders/calls")
        for chosen, words in (
            (paths[:1], "The file is in"),
            (paths[:2], "2 files are in"),
            (paths[2:], "notes"),
        ):
            driver.find_element("id", "files").send_keys("\n".join(map(str, chosen)))
            driver.find_element("css selector", "form.drop button").click()
            until_shown(driver, words)
        said = driver.find_element("css selector", "form.drop [role=status]").text
        assert said.count("notes.pdf") == 1


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
        until_shown(driver, "All files are done")


def test_a_failed_file_is_retried(site, emulator):
    """What failed has a button that takes it back, and leads to where its second try is seen."""
    installation, _, address = site
    emulator.fail(Fault(status=415, body={"error": "Unsupported media type"}))
    installation.drop("call.wav", wav_bytes(1))
    wait_until(lambda: installation.status()["failed"] == 1, "the failure")
    with browsing() as driver:
        driver.get(f"{address}/folders/calls?state=failed")
        follow_link(driver, "call.wav")
        assert press(driver, "Retry")
        until_shown(driver, "Back in the inbox")
        wait_until(lambda: installation.status()["done"] == 1, "the second try")
        wait_until(lambda: driver.find_elements("css selector", "#files-list .tag.good"), "its end")


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


def test_a_link_on_another_site_needs_no_second_login(tmp_path, emulator):
    """A browser follows it without the session's cookie (SameSite=Strict); the login has it again."""
    http = {"http": {"listen": "127.0.0.1:0", "token": "a-long-and-secret-token"}}
    with (
        Installation(tmp_path / "root", emulator.url, extra=http).start_ready() as process,
        browsing() as driver,
    ):
        (line,) = process.until_logged("http.listening")
        page = f"http://{line['address']}/folders/calls?state=done"
        driver.get(page)
        assert "/login" in driver.current_url
        driver.find_element("name", "token").send_keys("a-long-and-secret-token\n")
        wait_until(lambda: driver.current_url == page, "the page that was asked for")
        driver.get(f"data:text/html,<a href='{page}'>calls</a>")
        driver.find_element("tag name", "a").click()
        wait_until(lambda: driver.current_url == page, "the page behind the link")


def test_a_page_of_an_ended_session_leads_to_the_login(tmp_path, emulator):
    """Somebody logs out in another tab; the open page stood still, with what it had shown."""
    http = {"http": {"listen": "127.0.0.1:0", "token": "a-long-and-secret-token"}}
    installation = Installation(tmp_path / "root", emulator.url, extra=http)
    with installation.start_ready() as process, browsing() as driver:
        (line,) = process.until_logged("http.listening")
        driver.get(f"http://{line['address']}/folders/calls")
        driver.find_element("name", "token").send_keys("a-long-and-secret-token\n")
        wait_until(lambda: "No files." in text_of(driver), "the page")
        open_page = driver.current_window_handle
        driver.switch_to.new_window("tab")
        driver.get(f"http://{line['address']}/search")
        driver.find_element("xpath", "//button[.='Log out']").click()
        wait_until(lambda: "/login" in driver.current_url, "the end of the session")
        driver.switch_to.window(open_page)
        installation.drop("call.wav", wav_bytes(1))
        wait_until(lambda: "/login?next=%2Ffolders%2Fcalls" in driver.current_url, "the login")


def test_a_word_is_searched_and_played(site, emulator):
    """A hit leads to the file's page, where the player stands at that second."""
    installation, _, address = site
    emulator.vendors.text = "Good morning. The café opens at nine. Good bye."
    installation.drop("call.wav", wav_bytes(12))
    wait_until(lambda: installation.status()["done"] == 1, "the file")
    with browsing() as driver:

        def found() -> bool:
            driver.get(address)
            driver.find_element("name", "q").send_keys("cafe nine\n")
            wait_until(lambda: "/search" in driver.current_url, "the search")
            return "The café opens at nine." in text_of(driver)

        wait_until(found, "the transcript to be indexed")
        marked = [mark.text for mark in driver.find_elements("tag name", "mark")]
        assert marked == ["café", "nine"]
        hit = driver.find_element("css selector", ".hit a")
        second = float(hit.get_attribute("href").partition("?t=")[2])
        hit.click()
        wait_until(lambda: "was transcribed" in text_of(driver), "the file's page")
        audio = driver.find_element("tag name", "audio")
        wait_until(lambda: abs(audio.get_property("currentTime") - second) < 0.1, "the player to jump")


AXE = "axe-core@4.14.1"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""Of its axe.min.js."""


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """The accessibility checker axe-core, as npm has it."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip(f"needs npm, to fetch {AXE}")
    packed = subprocess.run(["npm", "pack", AXE], cwd=folder, capture_output=True, text=True, check=False)
    if packed.returncode != 0:
        pytest.skip(f"npm cannot fetch {AXE}: {packed.stderr[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        script = package.extractfile("package/axe.min.js").read()
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256
    return script.decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(site, emulator, axe, scheme):
    """On no page, full, empty or broken: contrast, names, roles, landmarks, headings."""
    installation, _, address = site
    with browsing(360) as driver:
        show_in(driver, 360, 900, scheme)
        empty = check_pages(driver, axe, [address, f"{address}/folders/calls", f"{address}/search"])
        installation.drop("call.wav", wav_bytes(2))
        wait_until(lambda: installation.status()["done"] == 1, "the file")
        emulator.fail(Fault(status=415, body={"error": "Unsupported media type"}))
        installation.drop("bad.wav", wav_bytes(1))
        wait_until(lambda: installation.status()["failed"] == 1, "the failure")
        emulator.fail(*[Fault(status=401, body={"error": "unauthorized"})] * 99)
        installation.drop("held.wav", wav_bytes(3))
        wait_until(lambda: installation.status()["held"] == 1, "the hold")
        driver.get(f"{address}/folders/calls")
        files = [link.get_attribute("href") for link in driver.find_elements("css selector", ".list a")]
        pages = [
            address,
            f"{address}/folders/calls",
            f"{address}/search?q=the",
            f"{address}/files/999",
            *files,
        ]
        full = check_pages(driver, axe, pages)
    assert empty + full == []


def check_pages(driver, axe: str, pages: list[str]) -> list[str]:
    """What axe has against each page; each has to have something that it could judge."""
    found = []
    for page in pages:
        driver.get(page)
        driver.execute_script(axe)
        result = driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
        assert len(result["passes"]) > 5
        found += [f"{page}: {each['id']}: {each['nodes'][0]['html']}" for each in result["violations"]]
    return found
