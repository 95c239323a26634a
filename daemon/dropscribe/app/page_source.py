"""The data and actions that the web pages take from the running daemon."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from dropscribe.app.housekeeping import change_token
from dropscribe.core.model import JobState, Scope, ScopeKind
from dropscribe.core.text.printing import path_text
from dropscribe.files.threads import DaemonThreads
from dropscribe.media.spool import Spool
from dropscribe.pipeline.disk_threads import SLOWEST_BYTES_PER_SECOND
from dropscribe.publish.return_to_inbox import FailedFile, return_to_inbox
from dropscribe.queue.sql import backlog, result_cache
from dropscribe.queue.sql.history import read_record
from dropscribe.reports.patience import ANSWER_SECONDS, ask_disk
from dropscribe.reports.queue_reader import view_queue, write_queue_once
from dropscribe.web.folder_threads import FolderThreads
from dropscribe.web.reading import place_of
from dropscribe.web.site import PageSource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from dropscribe.config.model import Config
    from dropscribe.files.audio import AudioFile, Progress
    from dropscribe.queue.engine import Engine
    from dropscribe.queue.sql.history import JobRecord

T = TypeVar("T")

log = structlog.get_logger()

THREADS = 4


def build_page_source(
    config: Callable[[], Config],
    status: Callable[[], Awaitable[dict[str, Any]]],
    engine: Engine,
    sending: Mapping[int, AudioFile],
) -> PageSource:
    """The pages' source for a running daemon.

    Args:
        config: The config that the daemon runs on now.
        status: The object of ``status --json``.
        engine: The queue.
        sending: Recordings with a running attempt, by job id.
    """

    def progress(job_id: int) -> Progress | None:
        audio = sending.get(job_id)
        return audio.progress if audio else None

    def token() -> object:
        return change_token(config()), [(name, *astuple(each.progress)) for name, each in sending.items()]

    threads = DaemonThreads(THREADS, "page")
    folder_threads = FolderThreads().of
    actions = PageActions(config, engine, threads, folder_threads)
    return PageSource(config, status, actions, threads, folder_threads, token, progress)


def _read_failed(config: Config, job_ids: Sequence[int]) -> list[JobRecord]:
    """The failed ones of these jobs."""
    with view_queue(config) as view:
        records = [read_record(view.db, job_id) for job_id in job_ids] if view.db else []
    return [record for record in records if record is not None and record.state is JobState.FAILED]


def _return_failed(config: Config, record: JobRecord) -> bool:
    """Move a failed file back into its inbox; False, with the reason in the log, where it stays."""
    place = place_of(config, record)
    try:
        if place is None or place.part != "failed":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        failed = FailedFile(place.rule, place.path, os.path.basename(record.path))
        seconds = ANSWER_SECONDS + record.size_bytes / SLOWEST_BYTES_PER_SECOND  # it may be a copy
        ask_disk(place.root, lambda: return_to_inbox(failed), seconds=seconds)
    except OSError as error:
        log.warning("retry.refused", path=path_text(record.path), reason=error.strerror or str(error))
        return False
    return True


class PageActions:
    """See :class:`dropscribe.web.site.Actions`."""

    def __init__(
        self,
        config: Callable[[], Config],
        engine: Engine,
        executor: Executor,
        folder_threads: Callable[[str], Executor],
    ) -> None:
        self._config = config
        self._engine = engine
        self._executor = executor
        self._folder_threads = folder_threads

    async def retry(self, job_ids: Sequence[int]) -> tuple[int, int]:
        """Move failed files back into their inboxes; returns (moved, refused)."""
        config = self._config()
        records = await self._run(lambda: _read_failed(config, job_ids))
        loop = asyncio.get_running_loop()
        moved = [
            await loop.run_in_executor(self._folder_threads(record.folder), _return_failed, config, record)
            for record in records
        ]
        return sum(moved), len(moved) - sum(moved)

    async def release(self, folder: str) -> int:
        """Start the backlog of a folder; returns the number of files."""
        config = self._config()
        count = await self._run(lambda: write_queue_once(config, lambda db: backlog.release(db, folder)))
        self._engine.signals.wake.set()
        return count or 0

    async def forget(self, sha256: str) -> int:
        """Delete the stored answers of a recording and of its pieces; returns their number."""
        config = self._config()

        def forget() -> int:
            count = write_queue_once(config, lambda db: result_cache.forget(db, sha256)) or 0
            return count + Spool(config.state_dir).forget(sha256)

        return await self._run(forget)

    def try_now(self, *, provider: str = "", folder: str = "") -> None:
        """Try a held provider or folder with the next file."""
        kind = ScopeKind.PROVIDER if provider else ScopeKind.FOLDER
        self._engine.holds.probe_now(Scope(kind, provider or folder))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
