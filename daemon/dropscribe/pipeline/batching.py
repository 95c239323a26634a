"""What waits for one disk at the same time goes there together."""

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
"""Begun without waiting for each other. With one alone, all that comes meanwhile shares the next one's
syncs, and a visit that lasts gets others beside it."""

MOST_VISITS = 8
SLOW_SECONDS = 0.02
"""A visit that lasts longer is to a slow disk, which gets more done when it is asked for more at once. On a
fast one more threads only take the interpreter from each other."""


class BatchExecutor(Generic[T, R]):
    """One visit to a thread for all that waits: ways there and back, and syncs, are shared.

    Nobody waits for company: with nothing under way a visit begins at once, and what comes meanwhile makes
    up the next one.

    Args:
        executor: Whose threads may be blocked.
        work: Takes several items and says what came of each, a result or an exception; in a thread.
    """

    def __init__(
        self, executor: Executor, work: Callable[[Sequence[T]], Sequence[R | BaseException]]
    ) -> None:
        self._executor = executor
        self._work = work
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._visits: set[_Visit[R]] = set()
        self._another: asyncio.TimerHandle | None = None

    async def do(self, item: T) -> R:
        """What *work* says of *item*, returned or raised.

        Cancelling the caller does not undo work that is under way.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if len(self._visits) < VISITS_AT_ONCE:
            self._go()
        else:
            self._send_another_soon()
        return await future

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
        """The visits under way are long ones, and somebody waits."""
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
