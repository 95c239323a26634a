"""Blocking calls on users' folders, kept off the event loop and bounded in time; folders that take no files.

Guarantees: a mount that hangs holds up its own folder's threads and no other's, and never the end of the
process. While calls hang, nothing more of their folder is started, and ``status`` names the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from dropscribe.core.errors import AudioError, DropscribeError
from dropscribe.core.retry import backoff_seconds
from dropscribe.files.batching import BatchExecutor, Work, call_each
from dropscribe.files.threads import DaemonThreads
from dropscribe.pipeline.claims import Claim
from dropscribe.publish.places import PlaceRefused, check_places
from dropscribe.queue.engine import Engine
from dropscribe.queue.model import HANGS

T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger()

THREADS_PER_FOLDER = 8
LONG_CALLS_PER_FOLDER = 6
"""Long calls at once. The other threads are for short calls, which do not wait for a crowd of copies."""

HANG_SECONDS = 5.0  # a call that takes longer gives up its slot
FIRST_CHECK_SECONDS = 1.0
LONGEST_CHECK_SECONDS = 15.0  # longest wait between two checks of a folder that takes no files
_UNWRITABLE = "unwritable"
SLOWEST_BYTES_PER_SECOND = 2_000_000
"""A call that reads or copies a whole file is given time for its size at this rate."""


class FolderHangs(DropscribeError):
    """Raised when a folder's disk has not answered in time; the call goes on in its thread."""


class DiskThreads:
    """A small pool of daemon threads for each folder."""

    def __init__(self, queue: Engine) -> None:
        self._queue = queue
        self._batches: dict[str, BatchExecutor] = {}
        self._long_calls = defaultdict[str, asyncio.Semaphore](
            partial(asyncio.Semaphore, LONG_CALLS_PER_FOLDER)
        )
        self._hanging: Counter[str] = Counter()

    def of(self, folder: str) -> Executor:
        """The folder's pool, for calls that may take long."""
        return self._batch(folder).executor

    async def run(self, folder: str, call: Callable[[], T]) -> T:
        """Make a short call in one of the folder's threads, batched; FolderHangs after ``HANG_SECONDS``."""
        return await self.run_each(folder, call_each, call)

    async def run_each(
        self,
        folder: str,
        work: Work[T, R],
        item: T,
        discard: Callable[[R], object] | None = None,
        *,
        gives_up: bool = True,
    ) -> R:
        """As :meth:`run`: *work* on *item*, batched with items that wait for *work* too.

        *discard* gets a result that comes too late; without *gives_up* the work takes as long as it needs.
        """
        future = self._batch(folder).submit(work, item)
        return await self._finish(folder, future, HANG_SECONDS, discard, gives_up=gives_up)

    async def run_long(
        self, folder: str, call: Callable[[], T], size_bytes: int = 0, *, gives_up: bool = False
    ) -> T:
        """Make a call that reads or copies *size_bytes* in a thread of its own; it takes as long as it needs.

        It may wait for its turn. With *gives_up* it does not, and raises FolderHangs as :meth:`run` does.
        """
        seconds = HANG_SECONDS + size_bytes / SLOWEST_BYTES_PER_SECOND
        async with contextlib.nullcontext() if gives_up else self._long_calls[folder]:
            future = asyncio.get_running_loop().run_in_executor(self.of(folder), call)
            return await self._finish(folder, future, seconds, gives_up=gives_up)

    def post(self, folder: str, call: Callable[[], object]) -> None:
        """Make a short call that never fails, batched with the next one; its result is not awaited."""
        self._batch(folder).post(call)

    def _batch(self, folder: str) -> BatchExecutor:
        if folder not in self._batches:
            self._batches[folder] = BatchExecutor(DaemonThreads(THREADS_PER_FOLDER, f"disk {folder}"))
        return self._batches[folder]

    async def _finish(
        self,
        folder: str,
        future: asyncio.Future[T],
        seconds: float,
        discard: Callable[[T], object] | None = None,
        *,
        gives_up: bool,
    ) -> T:
        """The result of *future*; while it takes longer than *seconds*, its folder counts as hanging."""

        def drop_result(future: asyncio.Future[T]) -> None:
            if not future.cancelled() and future.exception() is None and discard:
                discard(future.result())

        try:
            done, _ = await asyncio.wait((future,), timeout=seconds)
        except asyncio.CancelledError:
            if discard:
                future.add_done_callback(drop_result)
            else:
                future.cancel()
            raise
        if not done:
            self._hanging[folder] += 1
            if self._hanging[folder] == 1:
                log.warning("folder.hangs", folder=folder, seconds=HANG_SECONDS)
                self._queue.folders.close(folder, HANGS, "its disk does not answer")
            future.add_done_callback(lambda _: self._stopped_hanging(folder))
            future.add_done_callback(drop_result)
            if gives_up:
                raise FolderHangs(folder)
            await asyncio.wait((future,))  # where this is cancelled, the call goes on in its thread
        return future.result()

    def close(self) -> None:
        """Take no more calls; never wait for those that run."""
        for batch in self._batches.values():
            batch.close()
            batch.executor.shutdown(wait=False, cancel_futures=True)

    def _stopped_hanging(self, folder: str) -> None:
        self._hanging[folder] -= 1
        if not self._hanging[folder]:
            log.info("folder.answers", folder=folder)
            self._queue.folders.open(folder, HANGS)


def error_words(error: OSError) -> str:
    """The error with its path, for people."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if isinstance(error.filename, str) else what


@dataclass(slots=True)
class PlaceChecks:
    """Closes folders that take no files, and opens them when a check finds a way for files."""

    queue: Engine
    disks: DiskThreads
    _checks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def close_until_writable(self, claim: Claim, reason: str) -> None:
        """Have nothing of a job's folder claimed, for *reason*, until its files could be published."""
        folder = claim.job.folder
        self.queue.folders.close(folder, _UNWRITABLE, reason)
        if folder not in self._checks:
            self._checks[folder] = asyncio.create_task(self._check_until_writable(claim))

    async def _check_until_writable(self, claim: Claim) -> None:
        folder = claim.job.folder
        check = partial(check_places, claim.inbox, os.fsencode(claim.rule.done), claim.job.path)
        for count in itertools.count(1):
            await asyncio.sleep(backoff_seconds(FIRST_CHECK_SECONDS, count, LONGEST_CHECK_SECONDS))
            try:
                await self.disks.run(folder, check)
            except FolderHangs:
                continue
            except OSError as error:
                if isinstance(error, PlaceRefused) and not error.is_of_rule:
                    break
                self.queue.folders.close(folder, _UNWRITABLE, error_words(error))
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
            self.queue.folders.open(folder, _UNWRITABLE)

    def close(self) -> None:
        """Check nothing more."""
        for check in self._checks.values():
            check.cancel()
