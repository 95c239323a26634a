"""The one thread that writes a database: transactions that wait share a commit."""

from __future__ import annotations

import contextlib
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from dropscribe.core.errors import StoreError

T = TypeVar("T")
Result = tuple[Any, BaseException | None]

_BATCH_CALLS = 256


@dataclass(frozen=True, slots=True)
class Call:
    """One transaction that waits.

    Attributes:
        work: Its function, called with the connection.
        settle: Takes its result, or its error.
        loop: The event loop in which *settle* is called; None: in the writer's thread.
    """

    work: Callable[[Any], Any]
    settle: Callable[[Any, BaseException | None], None]
    loop: asyncio.AbstractEventLoop | None = None


class Writer:
    """Hands batches of calls to *commit* in a thread of its own.

    Args:
        commit: Makes the transactions of a batch, and returns a result or an error for each.
        closed: The error of calls after :meth:`close`.
    """

    def __init__(self, commit: Callable[[Sequence[Call]], Sequence[Result]], closed: StoreError) -> None:
        self._commit = commit
        self._closed = closed
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._asking, self._is_closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[Any], T]) -> Future[T]:
        """Run *work* in a transaction; for threads other than the event loop's."""
        future: Future[T] = Future()
        self._ask(Call(work, partial(_settle, future)))
        return future

    async def do(self, work: Callable[[Any], T]) -> T:
        """Run *work* in a transaction and return its result once it is durable.

        Cancelling the caller does not undo a transaction that waits or is under way.
        """
        import asyncio  # noqa: PLC0415  # commands that only read do not pay for it

        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._ask(Call(work, partial(_settle, future), loop))
        return await future

    def close(self) -> None:
        """Finish the calls made so far; later calls fail."""
        with self._asking:
            self._is_closed = True
            self._calls.put(None)
        self._thread.join()

    def _ask(self, call: Call) -> None:
        with self._asking:
            if self._is_closed:
                call.settle(None, self._closed)
            else:
                self._calls.put(call)

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._next_batch()
            if batch:
                _settle_all(batch, self._commit(batch))

    def _next_batch(self) -> tuple[list[Call], bool]:
        calls: list[Call] = []
        first = self._calls.get()
        while first is not None:
            calls.append(first)
            if len(calls) >= _BATCH_CALLS:
                return calls, True
            try:
                first = self._calls.get_nowait()
            except queue.Empty:
                return calls, True
        return calls, False


def _settle(future: Future[Any] | asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return  # the caller was cancelled
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _settle_all(batch: Sequence[Call], results: Sequence[Result]) -> None:
    """Deliver the results with one wake-up of each loop, for a batch of any size."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
    for call, (result, error) in zip(batch, results, strict=True):
        if call.loop is None:
            call.settle(result, error)
        else:
            by_loop.setdefault(call.loop, []).append(partial(call.settle, result, error))
    for loop, settles in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed, and its tasks with it
            loop.call_soon_threadsafe(_call_all, settles)


def _call_all(settles: list[Callable[[], None]]) -> None:
    for settle in settles:
        settle()
