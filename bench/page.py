"""The cost of the page: memory and CPU of open pages, a backlog's drain beside them, and each page's time.

python bench/run.py --only page
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth import FILL
from place import Scene, folder, make_files, provider, until
from results import MIB, Row, at_least, at_most, in_turn, ratio

from dropscribe.search.index import IndexProgress, open_index
from dropscribe.search.passages import passages_of_text

PAGES = 20
ROUNDS = 3
IDLE_SECONDS = 10.0
FILES = 1_500
WAITING, HISTORY, INDEXED = 100_000, 1_000_000, 20_000
FOUND_FILES = 20
"""On one page of a search."""
ASKED = 7
"""The number of requests for each page; the median counts."""


@dataclass
class PagedScene(Scene):
    """An installation with a page."""

    inbox_name: str = "inbox"
    port: int = 0

    def config(self) -> dict[str, Any]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = super().config()
        config["folders"]["calls"]["inbox"] = self.inbox_name
        return {**config, "http": {"listen": f"127.0.0.1:{self.port}"}}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def measure(scale: float) -> list[Row]:
    with folder() as root, provider() as url:
        return [
            *_idle(PagedScene(root / "idle", url)),
            _drain(root, url, max(200, int(FILES * scale))),
            *_times(root / "full", scale),
        ]


def _idle(scene: PagedScene) -> list[Row]:
    with scene.daemon() as daemon:
        _get(scene.address + "/")
        time.sleep(1)
        memory = daemon.memory_bytes() / MIB
        alone = daemon.idle_percent(IDLE_SECONDS)
        with open_pages(scene.address):
            percent = daemon.idle_percent(IDLE_SECONDS)
    found = f"{percent:.1f} (without: {alone:.1f})"
    return [
        at_most("idle memory with the page (MiB)", "–", memory, 55, None, f"{memory:.1f}"),
        at_most(f"idle CPU of {PAGES} open pages (%)", "one core", percent, 2, None, found),
    ]


def _drain(root: Path, url: str, count: int) -> Row:
    make_files(root / "source", count)
    numbers = iter(range(99))
    with_pages, without = in_turn(
        ROUNDS,
        lambda: _drained(PagedScene(root / f"drain-{next(numbers)}", url), root / "source", count, PAGES),
        lambda: _drained(PagedScene(root / f"drain-{next(numbers)}", url), root / "source", count, 0),
    )
    value = ratio(with_pages, without)
    found = f"{value:.2f} ({statistics.median(with_pages):.0f}/s beside {statistics.median(without):.0f}/s)"
    return at_least(f"drain of a backlog beside {PAGES} open pages", "without pages", value, 0.95, 1.0, found)


def _drained(scene: PagedScene, source: Path, count: int, pages: int) -> float:
    """Files a second, from the moment that they are all in the inbox."""
    with scene.daemon(), open_pages(scene.address, pages):
        shutil.copytree(source, scene.root / "aside")
        began = time.monotonic()
        for path in (scene.root / "aside").iterdir():
            path.rename(scene.inbox / path.name)
        until(lambda: scene.count_done() == count)
        return count / (time.monotonic() - began)


def _times(root: Path, scale: float) -> list[Row]:
    """Each page with many rows; the inbox is away, so that nothing of what waits is missed in it."""
    waiting, history = max(100, int(WAITING * scale)), max(100, int(HISTORY * scale))
    scene = PagedScene(root, "http://127.0.0.1:9", inbox_name="away/inbox")
    with scene.daemon():
        pass  # makes the database
    _fill(scene, waiting, history)
    pages = {
        "overview": "/",
        "folder": "/folders/calls",
        "failed": "/folders/calls?state=failed",
        "by name": "/folders/calls?q=000777",
        "file": f"/files/{history}",
        "search": "/search?q=morning",
        "rare words": "/search?q=number+777",
    }
    with scene.daemon():
        seconds = {page: _median_seconds(scene.address + path) for page, path in pages.items()}
        hits = _get(scene.address + pages["search"]).count(b'class="hit-name"')
    assert hits == FOUND_FILES
    name = f"{waiting:,} waiting, {history:,} done, {INDEXED:,} indexed"
    found = ", ".join(f"{page} {1000 * each:.0f}" for page, each in seconds.items())
    return [at_most(f"slowest page, {name} (ms)", "–", 1000 * max(seconds.values()), 100, None, found)]


def _fill(scene: PagedScene, waiting: int, history: int) -> None:
    now = time.time()
    with contextlib.closing(sqlite3.connect(scene.database, isolation_level=None)) as db:
        db.execute("BEGIN")
        for count, state, ended_at in ((history, "done", now - 60), (waiting, "queued", None)):
            values = {"count": count, "state": state, "now": now + 86400, "ended_at": ended_at}
            db.execute(FILL.replace("'/done/", f"'{scene.done}/"), values)
        db.execute("UPDATE jobs SET filed = NULL, ended_at = NULL WHERE state = 'queued'")
        db.execute("COMMIT")
    first = max(1, history - INDEXED + 1)
    with open_index(scene.root / "state") as index, index.transaction():
        for job_id in range(first, history + 1):
            words = f"Good morning, this is number {job_id}. " + "We open at nine and close at six. " * 20
            index.add(job_id, now - 60, passages_of_text(words))
        index.write_progress("", IndexProgress(now, 0, now))
    for job_id in range(history - FOUND_FILES, history + 1):
        (scene.done / f"old-{job_id:08d}.wav").write_bytes(b"")


def _median_seconds(address: str) -> float:
    times = []
    for _ in range(ASKED):
        began = time.monotonic()
        _get(address)
        times.append(time.monotonic() - began)
    return statistics.median(times)


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read()


@contextlib.contextmanager
def open_pages(address: str, count: int = PAGES) -> Iterator[None]:
    """*count* readers of the overview, who fetch it anew at each change, as the page's script does."""
    ended = threading.Event()
    readers = [threading.Thread(target=_read_on, args=(address, ended), daemon=True) for _ in range(count)]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        ended.set()


def _read_on(address: str, ended: threading.Event) -> None:
    with contextlib.suppress(OSError), urllib.request.urlopen(address + "/events", timeout=60) as events:
        for line in events:
            if ended.is_set():
                return
            if line.startswith(b"event: change"):
                _get(address + "/")
