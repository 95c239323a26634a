"""Runs blocking work in batches: queued items of one kind share one call in a thread (a "visit")."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[Sequence[T]], Sequence[R | BaseException]]
"""Takes several items and returns for each a result or an exception; called in a thread."""

MOST_TOGETHER = 8
"""Most items of one visit, which bounds the open files too. With 32 it took twice as long to file many
results on a disk that takes 15 ms for a sync."""

MOST_VISITS = 8
SLOW_SECONDS = 0.1
"""A visit that takes longer shows a slow disk, where parallel visits are faster. On a fast disk a second
thread only competes for the interpreter lock: with two, the same work took a third more CPU."""


class BatchExecutor:
    """Queues items while a visit runs, and runs the queued items of one kind as the next visit.

    No item is delayed to fill a batch: if no visit runs, one starts at once. The kinds of work take turns, so
    that a short call waits for one long visit at most.

    Args:
        executor: Its threads may be blocked.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._waiting: dict[Work[Any, Any], list[tuple[Any, asyncio.Future[Any]]]] = {}
        self._posted: list[Callable[[], object]] = []
        self._visits = 0
        self._another: asyncio.TimerHandle | None = None

    def submit(self, work: Work[T, R], item: T) -> asyncio.Future[R]:
        """Run *work* on *item*, together with others of the same work; the future has its outcome.

        Cancelling the future does not undo work that is under way.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if work not in self._waiting:  # its turn is next: another kind's visit may be under way
            self._waiting = {work: [], **self._waiting}
        self._waiting[work].append((item, future))
        if self._visits:
            self._send_another_soon()
        else:
            self._start_visit()
        return future

    def post(self, call: Callable[[], object]) -> None:
        """Make *call* before the items of the next visit, within :data:`SLOW_SECONDS`; drop its result."""
        self._posted.append(call)
        self._send_another_soon()

    def close(self) -> None:
        """Cancel submitted items and run posted calls in a daemon thread, without waiting for it."""
        self._stop_timer()
        for waiting in self._waiting.values():
            for _, future in waiting:
                future.cancel()
        self._waiting = {}
        if self._posted:
            threading.Thread(target=call_each, args=(self._posted,), daemon=True).start()
            self._posted = []

    def _start_visit(self) -> None:
        posted, self._posted = self._posted, []
        work, batch = self._take_batch()
        if not batch and not posted:
            return
        items, futures = [item for item, _ in batch], [future for _, future in batch]
        try:
            visit = asyncio.get_running_loop().run_in_executor(self.executor, _visit, posted, work, items)
        except RuntimeError as error:  # the pool is shut down, or no thread can be started
            for future in futures:
                future.set_exception(error)
            return
        self._visits += 1
        visit.add_done_callback(partial(self._finish_visit, futures))

    def _take_batch(self) -> tuple[Work[Any, Any], list[tuple[Any, asyncio.Future[Any]]]]:
        """The next kind of work with its first items, which wait no more; no items if none wait."""
        for work in list(self._waiting):
            waiting = [each for each in self._waiting.pop(work) if not each[1].cancelled()]
            self._waiting[work] = waiting[MOST_TOGETHER:]  # behind the other kinds
            if waiting:
                return work, waiting[:MOST_TOGETHER]
        return call_each, []

    def _send_another_soon(self) -> None:
        is_needed = self._posted or any(self._waiting.values())
        if is_needed and self._another is None and self._visits < MOST_VISITS:
            self._another = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._start_parallel)

    def _start_parallel(self) -> None:
        """Start another visit in parallel, because the running ones take long and items are waiting."""
        self._another = None
        self._start_visit()
        self._send_another_soon()

    def _stop_timer(self) -> None:
        if self._another is not None:
            self._another.cancel()
            self._another = None

    def _finish_visit(
        self, futures: Sequence[asyncio.Future[Any]], visit: asyncio.Future[Sequence[Any]]
    ) -> None:
        self._visits -= 1
        self._stop_timer()
        if any(self._waiting.values()):
            self._start_visit()
        self._send_another_soon()
        try:
            outcomes = visit.result()
        except BaseException as error:  # noqa: BLE001  # the callers get it
            outcomes = [error] * len(futures)
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def call_each(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The work of independent calls: for each, in order, its result or its exception."""
    outcomes: list[Any] = []
    for call in calls:
        try:
            outcomes.append(call())
        except Exception as error:  # noqa: BLE001  # returned to the caller
            outcomes.append(error)
    return outcomes


def _visit(posted: Sequence[Callable[[], object]], work: Work[T, R], items: Sequence[T]) -> Sequence[Any]:
    call_each(posted)
    return work(items)
