"""Transactions that wait while the database cannot be written, and the signals of a queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import structlog

from dropscribe.core.errors import StoreAway, StoreBusy, StoreError, StoreFull
from dropscribe.queue.sql.database import Connection, Database

T = TypeVar("T")

log = structlog.get_logger()

RETRY_SECONDS = 2.0


class Signals:
    """Signals between the parts of a queue."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()  # Set when the dispatcher should look at the queue again
        self.news = asyncio.Event()  # Set when the status may have changed

    def wake_from_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set :attr:`wake`, from a thread other than *loop*'s."""
        with contextlib.suppress(RuntimeError):  # the loop has closed, and its tasks with it
            loop.call_soon_threadsafe(self.wake.set)


class RetryingDatabase:
    """Runs transactions, and repeats them while they must wait."""

    def __init__(self, store: Database) -> None:
        self.store = store  # The database itself, whose calls fail at once
        self.signals = Signals()
        self.trouble: str | None = None  # Why transactions wait
        self._is_away = False

    def now(self) -> float:
        """Unix seconds by the queue's clock; a cluster has one for all nodes."""
        return self.store.now()

    async def do(self, work: Callable[[Connection], T]) -> T:
        """Run *work* in a transaction; while the disk is full or the database unavailable, try again."""
        while True:
            try:
                return await self.store.do(work)
            except (StoreFull, StoreBusy) as error:
                self.note_trouble(error)
                await asyncio.sleep(RETRY_SECONDS)

    def post(self, work: Callable[[Connection], object]) -> None:
        """Queue *work* for the writer; a failure is ignored."""
        self.store.call(work).add_done_callback(lambda done: done.cancelled() or done.exception())

    def note_trouble(self, error: StoreError | None) -> None:
        """Remember why transactions wait; None: they succeed again. Changes are logged once."""
        before, self.trouble = self.trouble, None if error is None else f"{error.reason}: {error.path}"
        if error is not None and not before:
            self._is_away = isinstance(error, StoreAway)
            if self._is_away:
                log.warning("queue.away", reason=self.trouble)
            else:
                passes = isinstance(error, StoreFull | StoreBusy)
                log.error("store.full" if passes else "store.lost", reason=self.trouble)
        elif before and error is None:
            log.info("queue.back" if self._is_away else "store.has_room")
        if self.trouble != before:
            self.signals.news.set()
