"""Runs blocking work in batches: queued items of one kind share one call in a thread (a "visit")."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Executor

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[Sequence[T]], Sequence[R | BaseException]]
"""Takes several items and returns for each a result or an exception; called in a thread."""

_Visit = asyncio.Future[Sequence[Any]]

MOST_TOGETHER = 32
MOST_VISITS = 8
SLOW_SECONDS = 0.1
"""A visit that takes longer shows a slow disk, where parallel visits are faster. On a fast disk a second
thread only competes for the interpreter lock: with two, the same work took a third more CPU."""


class BatchExecutor:
    """Queues items while a visit runs, and runs the queued items of one kind as the next visit.

    No item is delayed to fill a batch: if no visit runs, one starts at once.

    Args:
        executor: Its threads may be blocked.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._waiting: list[_Item] = []
        self._visits: set[_Visit] = set()
        self._another: asyncio.TimerHandle | None = None
        self._last: Work[Any, Any] | None = None

    def submit(self, work: Work[T, R], item: T) -> asyncio.Future[R]:
        """Run *work* on *item*, together with others of the same work; the future has its outcome.

        Cancelling the future does not undo work that is under way.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Item(work, item, future))
        if self._visits:
            self._send_another_soon()
        else:
            self._start_batch()
        return future

    def post(self, work: Work[T, R], item: T) -> None:
        """Run *work* on *item* with the next visit, within :data:`SLOW_SECONDS`; its result is dropped."""
        self._waiting.append(_Item(work, item, None))
        self._send_another_soon()

    def close(self) -> None:
        """Cancel submitted items and run posted ones in a daemon thread, without waiting for it."""
        if self._another is not None:
            self._another.cancel()
        posted = [item for item in self._waiting if item.future is None]
        for item in self._waiting:
            if item.future is not None:
                item.future.cancel()
        self._waiting = []
        if posted:
            threading.Thread(target=_do, args=(posted,), daemon=True).start()

    def _start_batch(self) -> None:
        self._waiting = [item for item in self._waiting if not item.is_cancelled]
        if not self._waiting:
            return
        work = self._last = self._next_work()
        posted: list[_Item] = []
        batch: list[_Item] = []
        rest: list[_Item] = []
        for item in self._waiting:
            if item.future is None and item.work != work and len(posted) < MOST_TOGETHER:
                posted.append(item)  # runs before the batch: audio is closed before it is moved
            else:
                (batch if item.work == work and len(batch) < MOST_TOGETHER else rest).append(item)
        self._waiting = rest
        items = [item.item for item in batch]
        try:
            visit = asyncio.get_running_loop().run_in_executor(self._executor, _visit, posted, work, items)
        except RuntimeError as error:  # the pool is shut down, or no thread can be started
            for item in batch:
                if item.future is not None:
                    item.future.set_exception(error)
            return
        self._visits.add(visit)
        visit.add_done_callback(lambda visit: self._finish_batch(visit, batch))

    def _next_work(self) -> Work[Any, Any]:
        """Alternate between the kinds of work, so that a short call waits for one long visit at most."""
        awaited = [item.work for item in self._waiting if item.future] or [self._waiting[0].work]
        return next((work for work in awaited if work != self._last), awaited[0])

    def _send_another_soon(self) -> None:
        if self._waiting and self._another is None and len(self._visits) < MOST_VISITS:
            self._another = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._start_parallel)

    def _start_parallel(self) -> None:
        """Start another visit in parallel, because the running ones take long and items are waiting."""
        self._another = None
        if len(self._visits) < MOST_VISITS:
            self._start_batch()
            self._send_another_soon()

    def _finish_batch(self, visit: _Visit, batch: Sequence[_Item]) -> None:
        self._visits.discard(visit)
        if self._another is not None:
            self._another.cancel()
            self._another = None
        if any(item.future for item in self._waiting):
            self._start_batch()
        self._send_another_soon()
        for item, outcome in zip(batch, _outcomes(visit, len(batch)), strict=True):
            if item.future is None or item.future.done():
                continue
            if isinstance(outcome, BaseException):
                item.future.set_exception(outcome)
            else:
                item.future.set_result(outcome)


class _Item(NamedTuple):
    """One queued piece of work; *future* is None for a posted one, which has no caller that waits."""

    work: Work[Any, Any]
    item: Any
    future: asyncio.Future[Any] | None

    @property
    def is_cancelled(self) -> bool:
        return self.future is not None and self.future.cancelled()


def _visit(posted: Sequence[_Item], work: Work[Any, Any], items: Sequence[Any]) -> Sequence[Any]:
    _do(posted)
    return work(items) if items else ()


def _do(posted: Sequence[_Item]) -> None:
    for item in posted:
        with contextlib.suppress(Exception):
            item.work((item.item,))


def _outcomes(visit: _Visit, count: int) -> Sequence[Any]:
    if visit.cancelled():
        return [asyncio.CancelledError()] * count
    error = visit.exception()
    return visit.result() if error is None else [error] * count
