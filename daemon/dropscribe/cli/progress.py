"""Shows on a terminal that a task is running, and for how long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING

from dropscribe.reports.wording import clock_words

if TYPE_CHECKING:
    from collections.abc import Iterator

_TICK_SECONDS = 0.5


@contextlib.contextmanager
def showing_progress(words: str) -> Iterator[None]:
    """Show *words* and the time while the block runs, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_tick, args=(words, ended), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tick(words: str, ended: threading.Event) -> None:
    began = time.monotonic()
    while not ended.wait(_TICK_SECONDS):
        sys.stderr.write(f"\r{words}, {clock_words(time.monotonic() - began)} \x1b[K")
        sys.stderr.flush()
    sys.stderr.write("\r\x1b[K")
    sys.stderr.flush()
