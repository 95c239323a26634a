"""Shows on a terminal that a task is running, and for how long."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from dropscribe.reports.wording import clock_words

if TYPE_CHECKING:
    from types import TracebackType

_TICK_SECONDS = 0.5


class Progress:
    """``with Progress("call.wav"):`` shows the text and the time, on a terminal only."""

    def __init__(self, words: str) -> None:
        self._words = words
        self._stream = sys.stderr
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _tick(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(_TICK_SECONDS):
            self._stream.write(f"\r{self._words}, {clock_words(time.monotonic() - began)} \x1b[K")
            self._stream.flush()
        self._stream.write("\r\x1b[K")
        self._stream.flush()
