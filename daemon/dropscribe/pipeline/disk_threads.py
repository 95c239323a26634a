"""Blocking calls on users' folders, kept off the event loop and bounded in time.

Guarantees: a mount that hangs holds up its own folder's threads and no other's, and never the end of the
process. While calls hang, nothing more of their folder is started, and ``status`` names the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from dropscribe.core.errors import DropscribeError
from dropscribe.files.batching import BatchExecutor
from dropscribe.files.threads import DaemonThreads
from dropscribe.queue.model import HANGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from dropscribe.files.batching import Work
    from dropscribe.queue.engine import Engine

T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger()

THREADS_PER_FOLDER = 8
HANG_SECONDS = 5.0  # a call that takes longer gives up its slot
SLOWEST_BYTES_PER_SECOND = 2_000_000
"""A call that reads or copies a whole file is given time for its size at this rate."""


class FolderHangs(DropscribeError):
    """Raised when a folder's disk has not answered in time; the call goes on in its thread."""


class DiskThreads:
    """A small pool of daemon threads for each folder."""

    def __init__(self, queue: Engine) -> None:
        self._queue = queue
        self._pools: dict[str, DaemonThreads] = {}
        self._batches: dict[str, BatchExecutor] = {}
        self._hanging: Counter[str] = Counter()

    def of(self, folder: str) -> Executor:
        """The folder's pool, for calls that may take long."""
        if folder not in self._pools:
            self._pools[folder] = DaemonThreads(THREADS_PER_FOLDER, f"disk {folder}")
        return self._pools[folder]

    async def run(self, folder: str, call: Callable[[], T]) -> T:
        """Make a short call in one of the folder's threads, batched with other waiting calls.

        Raises FolderHangs if the call has not returned after ``HANG_SECONDS``.
        """
        return await self.run_each(folder, _call_each, call)

    async def run_each(
        self, folder: str, work: Work[T, R], item: T, discard: Callable[[R], object] | None = None
    ) -> R:
        """As :meth:`run`: a short *work* on *item*, batched with items that wait for *work* too.

        *discard* is called with a result that comes too late.
        """
        return await self._bounded(folder, self._batch(folder).submit(work, item), discard)

    async def run_alone(self, folder: str, call: Callable[[], T]) -> T:
        """As :meth:`run`, for a call that may take seconds: it is not batched with others."""
        future = asyncio.get_running_loop().run_in_executor(self.of(folder), call)
        return await self._bounded(folder, future)

    def post(self, folder: str, call: Callable[[], object]) -> None:
        """Make a short call that never fails, batched with the next one; its result is not awaited."""
        self._batch(folder).post(_call_each, call)

    async def run_long(self, folder: str, call: Callable[[], T], size_bytes: int = 0) -> T:
        """Make a call that takes as long as it needs to read or copy *size_bytes*, in a thread of its own."""
        with self._watched(folder, size_bytes):
            return await asyncio.get_running_loop().run_in_executor(self.of(folder), call)

    async def run_long_each(self, folder: str, work: Work[T, R], item: T) -> R:
        """As :meth:`run_long`: *work* on *item*, batched with items that wait for *work* too."""
        with self._watched(folder):
            return await self._batch(folder).submit(work, item)

    def _batch(self, folder: str) -> BatchExecutor:
        if folder not in self._batches:
            self._batches[folder] = BatchExecutor(self.of(folder))
        return self._batches[folder]

    async def _bounded(
        self, folder: str, future: asyncio.Future[T], discard: Callable[[T], object] | None = None
    ) -> T:
        def drop_result(future: asyncio.Future[T]) -> None:
            if discard and not future.cancelled() and future.exception() is None:
                discard(future.result())

        try:
            done, _ = await asyncio.wait((future,), timeout=HANG_SECONDS)
        except asyncio.CancelledError:
            future.add_done_callback(drop_result)
            raise
        if done:
            return future.result()
        self._began_to_hang(folder)
        future.add_done_callback(lambda _: self._stopped_hanging(folder))
        future.add_done_callback(drop_result)
        raise FolderHangs(folder)

    @contextlib.contextmanager
    def _watched(self, folder: str, size_bytes: int = 0) -> Iterator[None]:
        """While a call takes longer than *size_bytes* explain, its folder counts as hanging."""
        is_late = False

        def be_late() -> None:
            nonlocal is_late
            is_late = True
            self._began_to_hang(folder)

        seconds = HANG_SECONDS + size_bytes / SLOWEST_BYTES_PER_SECOND
        timer = asyncio.get_running_loop().call_later(seconds, be_late)
        try:
            yield
        except asyncio.CancelledError:
            is_late = False  # the daemon ends, and the call goes on in its thread
            raise
        finally:
            timer.cancel()
            if is_late:
                self._stopped_hanging(folder)

    def close(self) -> None:
        """Take no more calls; never wait for those that run."""
        for batch in self._batches.values():
            batch.close()
        for pool in self._pools.values():
            pool.shutdown()

    def _began_to_hang(self, folder: str) -> None:
        self._hanging[folder] += 1
        if self._hanging[folder] == 1:
            log.warning("folder.hangs", folder=folder, seconds=HANG_SECONDS)
            self._queue.folders.close(folder, HANGS, "its disk does not answer")

    def _stopped_hanging(self, folder: str) -> None:
        self._hanging[folder] -= 1
        if not self._hanging[folder]:
            log.info("folder.answers", folder=folder)
            self._queue.folders.open(folder, HANGS)


def error_words(error: OSError) -> str:
    """The error with its path, for people."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if isinstance(error.filename, str) else what


def _call_each(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """For each of *calls*, in order, its result or its exception."""
    return [_outcome(call) for call in calls]


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001  # returned to the caller
        return error
