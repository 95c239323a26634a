"""Blocking calls on users' folders, kept off the event loop and bounded in time.

Guarantees: a mount that hangs holds up its own folder's threads and no other's, and never the end of the
process. While calls hang, nothing more of their folder is started, and ``status`` names the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from dropscribe.core.backoff import backoff_seconds
from dropscribe.core.errors import AudioError, DropscribeError
from dropscribe.files.batching import BatchExecutor
from dropscribe.files.threads import DaemonThreads
from dropscribe.publish.places import PlaceRefused
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
HANG_SECONDS = 5.0
"""A call that takes longer gives up its slot."""

FIRST_CHECK_SECONDS = 1.0
LONGEST_CHECK_SECONDS = 15.0
"""Longest wait between two checks of a folder that takes no files."""

_UNWRITABLE = "unwritable"

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
        self._checks: dict[str, asyncio.Task[None]] = {}

    def of(self, folder: str) -> Executor:
        """The folder's pool, for calls that may take long."""
        if folder not in self._pools:
            self._pools[folder] = DaemonThreads(THREADS_PER_FOLDER, f"disk {folder}")
        return self._pools[folder]

    async def run(
        self, folder: str, call: Callable[[], T], discard: Callable[[T], object] | None = None
    ) -> T:
        """Make a short call in one of the folder's threads, batched with other waiting calls.

        Args:
            discard: Called with a result that comes too late.

        Raises:
            FolderHangs: The call has not returned after ``HANG_SECONDS``.
        """
        return await self.run_each(folder, _call_each, call, discard)

    async def run_each(
        self, folder: str, work: Work[T, R], item: T, discard: Callable[[R], object] | None = None
    ) -> R:
        """As :meth:`run`: a short *work* on *item*, batched with items that wait for *work* too."""
        return await self._bounded(folder, self.together(folder, work, item), discard)

    async def run_alone(self, folder: str, call: Callable[[], T]) -> T:
        """As :meth:`run`, for a call that may take seconds: it is not batched with others."""
        future = asyncio.get_running_loop().run_in_executor(self.of(folder), call)
        return await self._bounded(folder, future, None)

    def post(self, folder: str, call: Callable[[], object]) -> None:
        """Make a short call that never fails, batched with the next one; its result is not awaited."""
        self._batch(folder).post(_call_each, call)

    def together(self, folder: str, work: Work[T, R], item: T) -> asyncio.Future[R]:
        """Run *work* on *item* in one of the folder's threads, batched with items that wait for *work* too.

        It may take long: :meth:`watch` it.
        """
        return self._batch(folder).submit(work, item)

    def _batch(self, folder: str) -> BatchExecutor:
        if folder not in self._batches:
            self._batches[folder] = BatchExecutor(self.of(folder))
        return self._batches[folder]

    async def _bounded(
        self, folder: str, future: asyncio.Future[T], discard: Callable[[T], object] | None
    ) -> T:
        try:
            done, _ = await asyncio.wait((future,), timeout=HANG_SECONDS)
        except asyncio.CancelledError:
            future.add_done_callback(lambda future: _discard(future, discard))
            raise
        if done:
            return future.result()
        self._began_to_hang(folder)

        def came_back(future: asyncio.Future[T]) -> None:
            self._stopped_hanging(folder)
            _discard(future, discard)

        future.add_done_callback(came_back)
        raise FolderHangs(folder)

    @contextlib.contextmanager
    def watch(self, folder: str, size_bytes: int = 0) -> Iterator[None]:
        """Let calls take as long as they need; while they take too long, their folder counts as hanging.

        Args:
            size_bytes: The bytes that the calls read or copy.
        """
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

    def close_until_writable(self, folder: str, reason: str, check: Callable[[], object]) -> None:
        """Have nothing of *folder* claimed until *check*, repeated in its threads, finds a way for files.

        Args:
            reason: For ``status``; replaced by those of later checks.
            check: Raises OSError while no file can be published.
        """
        self._queue.folders.close(folder, _UNWRITABLE, reason)
        if folder not in self._checks:
            self._checks[folder] = asyncio.create_task(self._repeat(folder, check))

    async def _repeat(self, folder: str, check: Callable[[], object]) -> None:
        for count in itertools.count(1):
            await asyncio.sleep(backoff_seconds(FIRST_CHECK_SECONDS, count, LONGEST_CHECK_SECONDS))
            try:
                await self.run(folder, check)
            except FolderHangs:
                continue
            except OSError as error:
                if isinstance(error, PlaceRefused) and not error.is_of_rule:
                    break
                self._queue.folders.close(folder, _UNWRITABLE, error_words(error))
            except AudioError:  # its file has gone: the next one shows whether the trouble is over
                break
            except Exception:
                log.exception("folder.not_checked", folder=folder)
                break
            else:
                log.info("folder.writable", folder=folder)
                break
        self.reopen(folder)

    def reopen(self, folder: str) -> None:
        """End :meth:`close_until_writable`; the next file is checked anew."""
        if check := self._checks.pop(folder, None):
            check.cancel()
            self._queue.folders.open(folder, _UNWRITABLE)

    def close(self) -> None:
        """Take no more calls; never wait for those that run."""
        for check in self._checks.values():
            check.cancel()
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


def _discard(future: asyncio.Future[T], discard: Callable[[T], object] | None) -> None:
    if discard and not future.cancelled() and future.exception() is None:
        discard(future.result())
