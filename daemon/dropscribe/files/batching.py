"""Runs blocking work in batches: items that wait at the same time share one call in a thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

T = TypeVar("T")
R = TypeVar("R")

_Visit = asyncio.Future["Sequence[R | BaseException]"]


MOST_TOGETHER = 16
VISITS_AT_ONCE = 1
"""Batches that start at once. While one runs, new items collect for the next one and share its syncs."""

MOST_VISITS = 8
SLOW_SECONDS = 0.02
"""A batch that runs longer is on a slow disk, where several batches at once are faster. On a fast disk more
threads only compete for the interpreter lock."""


class BatchExecutor(Generic[T, R]):
    """Collects items while a batch runs, and runs them as the next batch.

    No item waits for a batch to fill: if no batch runs, one starts at once.

    Args:
        executor: Its threads may be blocked.
        work: Takes several items and returns for each a result or an exception; called in a thread.
    """

    def __init__(
        self, executor: Executor, work: Callable[[Sequence[T]], Sequence[R | BaseException]]
    ) -> None:
        self._executor = executor
        self._work = work
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._visits: set[_Visit[R]] = set()
        self._another: asyncio.TimerHandle | None = None

    def submit(self, item: T) -> asyncio.Future[R]:
        """Run *work* on *item* in a batch; the future has its result or its exception.

        Cancelling the future does not undo work that is under way.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._visits) < VISITS_AT_ONCE:
            self._go()
        else:
            self._send_another_soon()
        return future

    def _go(self) -> None:
        there = [(item, future) for item, future in self._waiting if not future.cancelled()]
        batch, self._waiting = there[:MOST_TOGETHER], there[MOST_TOGETHER:]
        if not batch:
            return
        items, futures = [item for item, _ in batch], [future for _, future in batch]
        visit = asyncio.get_running_loop().run_in_executor(self._executor, self._work, items)
        self._visits.add(visit)
        visit.add_done_callback(lambda visit: self._back(visit, futures))

    def _send_another_soon(self) -> None:
        if self._waiting and self._another is None and len(self._visits) < MOST_VISITS:
            self._another = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._go_beside)

    def _go_beside(self) -> None:
        """Start another visit beside the running ones, which take long while others wait."""
        self._another = None
        if len(self._visits) < MOST_VISITS:
            self._go()
            self._send_another_soon()

    def _back(self, visit: _Visit[R], futures: Sequence[asyncio.Future[R]]) -> None:
        self._visits.discard(visit)
        if self._waiting:
            self._go()
        for future, outcome in zip(futures, _outcomes(visit, len(futures)), strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def _outcomes(visit: _Visit[R], count: int) -> Sequence[R | BaseException]:
    if visit.cancelled():
        return [asyncio.CancelledError()] * count
    error = visit.exception()
    return visit.result() if error is None else [error] * count
