"""The two signals between the parts of a queue."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Signals:
    """Wakes the dispatcher, and reports that the status may have changed.

    Attributes:
        wake: Set when the dispatcher should look at the queue again.
        on_news: Called in the event loop when the status may have changed.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.on_news: Callable[[], None] | None = None

    def tell_news(self) -> None:
        """Report that the status may have changed."""
        if self.on_news:
            self.on_news()

    def wake_from_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set :attr:`wake`, from a thread other than *loop*'s."""
        with contextlib.suppress(RuntimeError):  # the loop has closed, and its tasks with it
            loop.call_soon_threadsafe(self.wake.set)
