"""The queue as the threads of inboxes see it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import structlog

from dropscribe.core.model import LiveRow, NewJob, Submitted
from dropscribe.files.crashpoint import reached
from dropscribe.publish.return_to_inbox import remove_error_file
from dropscribe.queue.engine import Engine
from dropscribe.queue.model import STUCK
from dropscribe.queue.sql import intake_queries, rows
from dropscribe.queue.sql.database import Connection

log = structlog.get_logger()

_COPIED_SECONDS = 3600.0
"""How long the original of a copy is looked for in ``failed``: many files may have one name and one size."""


class _OfThread(threading.local):
    reader: Connection | None = None


class InboxQueue:
    """Blocking calls to the queue, with paths relative to the rule's inbox.

    Each calling thread reads through its own connection, so that listing a large inbox never delays a claim.
    *failed_root* tells a folder's failed folder, None where it has no rule.
    """

    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        failed_root: Callable[[str], bytes | None] = lambda _: None,
    ) -> None:
        self._failed_root = failed_root
        self._engine = engine
        self._store = engine.store
        self._loop = loop
        self._of_thread = _OfThread()
        # Folder → (folder, place) of failed audio of which a copy was taken → monotonic time to forget it.
        self._copied: defaultdict[str, dict[tuple[str, bytes], float]] = defaultdict(dict)

    def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """Queue settled files: durable when it returns, idempotent while their jobs live.

        Error files of audio that was moved back into the inbox are removed first. In the other order a crash
        would leave them for ever, because a file with a live job is not submitted again. After a StoreError
        nothing was taken; the files are handed over again later.
        """
        for job in jobs if intake_queries.has_failed(self._reader()) else ():
            for folder, filed in intake_queries.read_failed_of(self._reader(), job):
                if not self._take_back(folder, filed):
                    self._copied[job.folder][folder, filed] = time.monotonic() + _COPIED_SECONDS
        submitted = self._engine.intake.submit(jobs)
        self._engine.signals.wake_from_thread(self._loop)
        for job, result in zip(jobs, submitted, strict=True):
            if result.is_new:
                log.info("job.queued", folder=job.folder, path=job.path, audio_bytes=job.snapshot.size_bytes)
        return submitted

    def relocate(self, job: NewJob, old_path: bytes) -> None:
        """Store the new path of a live job; *job* has the identity and the new path of its file."""
        self._store.call(lambda db: intake_queries.relocate(db, job, old_path)).result()
        log.info("job.renamed", folder=job.folder, path=job.path, old_path=old_path)
        self._engine.signals.wake_from_thread(self._loop)

    def live(self, folder: str, directory: bytes) -> Iterable[LiveRow]:
        """Live jobs with a file directly in *directory*; b"" for the inbox itself."""
        return self._engine.intake.live(self._reader(), folder, directory)

    def directories(self, folder: str) -> Iterable[bytes]:
        """The distinct directories of live jobs."""
        return intake_queries.read_directories(self._reader(), folder)

    def withdraw(self, folder: str, paths: list[bytes], reason: str) -> None:
        """End the jobs of files that are gone, except those in flight and those with a stored result."""
        places = [rows.split_path(path) for path in paths]
        ended = self._store.call(lambda db: intake_queries.withdraw(db, folder, places, reason)).result()
        for place in ended:
            log.info("job.withdrawn", folder=folder, path=rows.join_path(*place), reason=reason)
        self._engine.signals.wake_from_thread(self._loop)
        # A withdrawn job may have been the probe of an output folder that could not be written.
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._engine.folders.open, folder, STUCK)

    def moved_device(self, folder: str, directory: bytes, device: int) -> None:
        """Store the device number under which the files of *directory* were found: it was mounted anew."""
        self._store.call(lambda db: self._engine.intake.moved_device(db, folder, directory, device)).result()

    def take_back_copied(self, folder: str) -> Iterator[None]:
        """Take back the failed audio that is removed from ``failed`` after its copy in the inbox was taken.

        Yields after each file that is looked at.
        """
        copied = self._copied[folder]
        for failed, until in list(copied.items()):
            if self._take_back(*failed) or time.monotonic() > until:
                copied.pop(failed, None)  # a thread of the config before may still look too
            yield

    def _take_back(self, folder: str, filed: bytes) -> bool:
        """Remove the error file of failed audio that is in an inbox; False while it may be in ``failed``."""
        root = self._failed_root(folder)
        if root is not None and filed.startswith(root + b"/"):
            place = root, filed.removeprefix(root + b"/")
        else:
            place = os.path.split(filed)
        if not remove_error_file(*place):
            return False
        reached("error_removed")
        self._store.call(partial(intake_queries.forget_failed, filed=filed)).result()
        log.info("job.taken_back", folder=folder, filed=filed)
        return True

    def _reader(self) -> Connection:
        if self._of_thread.reader is None:
            self._of_thread.reader = self._store.open_reader()
        return self._of_thread.reader

    def close_thread(self) -> None:
        """Close the calling thread's own database connection; the thread ends."""
        reader, self._of_thread.reader = self._of_thread.reader, None
        if reader is not None:
            with contextlib.suppress(Exception):
                reader.close()
