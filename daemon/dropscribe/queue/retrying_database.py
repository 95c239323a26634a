"""Transactions that wait while the queue's disk is full or its database is unavailable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog

from dropscribe.core.errors import StoreAway, StoreBusy, StoreError, StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.queue.signals import Signals
    from dropscribe.queue.sql.database import Connection, Database

T = TypeVar("T")

log = structlog.get_logger()

RETRY_SECONDS = 2.0


class RetryingDatabase:
    """Runs transactions, and repeats them while they must wait.

    Attributes:
        database: The database itself, whose calls fail at once.
        trouble: Why transactions wait, or None.
    """

    def __init__(self, database: Database, signals: Signals) -> None:
        self.database = database
        self.trouble: str | None = None
        self._signals = signals
        self._is_away = False

    def now(self) -> float:
        """Unix seconds by the queue's clock; a cluster has one for all nodes."""
        return self.database.now()

    async def do(self, work: Callable[[Connection], T]) -> T:
        """Run *work* in a transaction; while the disk is full or the database unavailable, try again."""
        while True:
            try:
                return await self.database.do(work)
            except (StoreFull, StoreBusy) as error:
                self.note_trouble(error)
                await asyncio.sleep(RETRY_SECONDS)

    def post(self, work: Callable[[Connection], object]) -> None:
        """Queue *work* for the writer; a failure is ignored."""
        self.database.call(work).add_done_callback(lambda done: done.cancelled() or done.exception())

    def note_trouble(self, error: StoreError | None) -> None:
        """Remember why transactions wait; None: they succeed again. Changes are logged once."""
        trouble = None if error is None else f"{error.reason}: {error.path}"
        if error is not None and not self.trouble:
            self._is_away = isinstance(error, StoreAway)
            if self._is_away:
                log.warning("queue.away", reason=trouble)
            else:
                log.error("store.full", reason=trouble)
        elif self.trouble and error is None:
            log.info("queue.back" if self._is_away else "store.has_room")
        is_news, self.trouble = trouble != self.trouble, trouble
        if is_news:
            self._signals.tell_news()
