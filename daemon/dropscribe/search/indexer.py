"""Brings the index up to date: a small batch a step, after the jobs are done, and never in their way.

Guarantees: reads the queue on a connection of its own and never writes to it. Where it is interrupted, the next
step goes on. What is gone from the done folders leaves the index with the sweep, and with the search that meets it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from dropscribe.core.errors import StoreFull
from dropscribe.queue.sql.history import read_done_after, read_done_from
from dropscribe.reports.queue_reader import look_at_queue
from dropscribe.search.index import INDEX_NAME, ClusterIndex, delete_index, open_index
from dropscribe.search.passages import pack
from dropscribe.search.transcripts import DoneFolders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dropscribe.config.model import Config
    from dropscribe.queue.sql.history import DoneJob
    from dropscribe.reports.queue_reader import QueueLook
    from dropscribe.search.index import IndexProgress, TranscriptIndex

BATCH_JOBS = 20
SWEEP_JOBS = 100
SWEEP_SECONDS = 86_400.0
"""From the end of one sweep over the history to the begin of the next."""

LATE_SECONDS = 5.0
"""A job that ended so long ago is in the history: its transaction is not still under way."""

FREE_BYTES = 256 * 1024 * 1024
"""Room that the index leaves on the state directory's disk: the queue's answers need it more."""


class Indexer:
    """Indexes the transcripts of the jobs that are done, in the order in which they ended."""

    def __init__(self) -> None:
        self._position: tuple[float, int] | None = None

    def step(self, config: Config, *, sweep: bool = True) -> bool:
        """Index one batch; with *sweep*, look again at older ones where there is none.

        Returns:
            Whether there is more to do now.

        Raises:
            StoreError: The queue cannot be read.
            StoreFull: The state directory's disk has too little room.
            sqlite3.Error: The index cannot be written.
        """
        if not config.search:
            delete_index(config.state_dir)
            return False
        disk = os.statvfs(config.state_dir)
        if disk.f_bavail * disk.f_frsize < FREE_BYTES:
            path = str(config.state_dir / INDEX_NAME)
            raise StoreFull(path, "the disk is nearly full: new transcripts are not indexed", "make room on it")
        with look_at_queue(config) as look:
            if look.db is None:
                return False
            if config.queue is not None:
                return self._step(config, look, ClusterIndex(look.db), config.queue.node, sweep=sweep)
            with open_index(config.state_dir) as index:
                return self._step(config, look, index, "", sweep=sweep)

    def _step(
        self, config: Config, look: QueueLook, index: TranscriptIndex, node: str, *, sweep: bool
    ) -> bool:
        assert look.db is not None  # noqa: S101  # the caller has looked
        progress = index.read_progress(node)
        now = look.now()
        position = self._position or (min(progress.ended_at, now), 0)
        jobs = read_done_after(look.db, *position, BATCH_JOBS)
        if not jobs:
            self._position = None
            return sweep and self._sweep(config, look, index, node, progress)
        self._position = jobs[-1].ended_at, jobs[-1].id
        progress.ended_at = min(jobs[-1].ended_at, now - LATE_SECONDS)
        self._write(config, index, node, progress, jobs)
        return True

    def _sweep(
        self, config: Config, look: QueueLook, index: TranscriptIndex, node: str, progress: IndexProgress
    ) -> bool:
        """Compare the next stretch of the history with the index and the done folders."""
        assert look.db is not None  # noqa: S101  # the caller has looked
        if look.now() - progress.swept_at < SWEEP_SECONDS:
            return False
        jobs = read_done_from(look.db, progress.swept_id, SWEEP_JOBS)
        last_id = jobs[-1].id if jobs else 2**62
        folders = DoneFolders(config)
        gone = index.read_between(progress.swept_id, last_id).keys() - {job.id for job in jobs}
        gone |= {job.id for job in jobs if folders.has(job) is False}
        if jobs:
            progress.swept_id = last_id
        else:
            progress.swept_id, progress.swept_at = 0, look.now()
        self._write(config, index, node, progress, [job for job in jobs if job.id not in gone], gone)
        return bool(jobs)

    def _write(
        self,
        config: Config,
        index: TranscriptIndex,
        node: str,
        progress: IndexProgress,
        jobs: Sequence[DoneJob],
        gone: set[int] | frozenset[int] = frozenset(),
    ) -> None:
        """Index those of *jobs* that are not yet, take out *gone*, and remember how far it has come."""
        indexed = index.read_indexed([job.id for job in jobs]) if jobs else {}
        folders = DoneFolders(config)
        read = [
            (job, passages)
            for job in jobs
            if indexed.get(job.id) != job.ended_at and (passages := folders.read(job)) is not None
        ]
        with index.transaction():
            index.remove(gone)
            for job, passages in read:
                index.add(job.id, job.ended_at, pack(passages))
            index.write_progress(node, progress)


def catch_up(config: Config, seconds: float) -> bool:
    """Index what a command would miss, for so long at most; returns whether all is indexed.

    Raises:
        StoreError, sqlite3.Error: As :meth:`Indexer.step`.
    """
    indexer, until = Indexer(), time.monotonic() + seconds
    while indexer.step(config, sweep=False):
        if time.monotonic() > until:
            return False
    return True
