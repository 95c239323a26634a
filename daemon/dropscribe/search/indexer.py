"""Brings the index up to date, a small batch a step, after the jobs are done.

Guarantees: reads the queue on a connection of its own and never writes to it. Where it is interrupted, the
next step goes on. Files gone from the done folders leave the index with the sweep, or with a hit. No call
waits without end for a file system.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TypeVar

import structlog

from dropscribe.config.model import Config, FolderRule
from dropscribe.core.errors import AudioError, StoreFull
from dropscribe.files.audio import open_beneath
from dropscribe.queue.sql.database import Connection
from dropscribe.queue.sql.history import DoneJob, read_done_after, read_done_from
from dropscribe.reports.locations import filed_place
from dropscribe.reports.queue_reader import view_queue
from dropscribe.reports.timed_calls import ask_disk
from dropscribe.reports.transcript_reader import companion_paths, read_transcript, sidecar_paths
from dropscribe.search.index import (
    INDEX_NAME,
    NEWEST,
    ClusterIndex,
    IndexProgress,
    TranscriptIndex,
    delete_index,
    open_index,
)
from dropscribe.search.passages import Passage, passages_of, passages_of_text

T = TypeVar("T")

log = structlog.get_logger()

BATCH_JOBS = 20  # jobs that one step indexes
SWEEP_JOBS = 100  # jobs that one step of a sweep compares
SWEEP_SECONDS = 86_400.0  # From the end of one sweep over the history to the begin of the next
LATE_SECONDS = 5.0  # a job that ended this long ago is in the history: its transaction is no longer under way
# Room that the index leaves on the state directory's disk: the queue's answers need it more.
FREE_BYTES = 256 * 1024 * 1024
MOST_TEXT_BYTES = 16 * 1024 * 1024  # of a longer plain transcript the beginning is indexed
_TEXT_FORMS = ("vtt", "srt", "txt", "md")  # read where there is no JSON, those with times first


class Indexer:
    """Indexes the transcripts of the jobs that are done, in the order in which they ended."""

    def __init__(self) -> None:
        self._position: tuple[float, int] | None = None

    def step(self, config: Config, *, sweep: bool = True) -> bool:
        """Index one batch; with *sweep*, look again at older ones where there is none.

        Returns whether there is more to do now. Raises StoreFull if the state directory's disk has too little
        room, and StoreError or sqlite3.Error if queue or index cannot be read or written.
        """
        if not config.search:
            delete_index(config.state_dir)
            return False
        with view_queue(config) as view:
            if view.db is None:
                return False
            _require_room(config)
            with index_of(config, view.db) as index:
                batch = _Batch(config, view.db, index, view.now)
                self._position = batch.index_after(self._position)
                return self._position is not None or (sweep and batch.sweep())


class _Batch:
    """One step of the indexing, on one connection to the queue."""

    def __init__(self, config: Config, db: Connection, index: TranscriptIndex, now: float) -> None:
        self._db, self._index, self._now = db, index, now
        self._folders = DoneFolders(config)
        self._node = config.queue.node if config.queue else ""
        self._progress: IndexProgress = index.read_progress(self._node)

    def index_after(self, position: tuple[float, int] | None) -> tuple[float, int] | None:
        """Index jobs that ended after *position*; returns the new one if there may be more."""
        begin = position or (min(self._progress.ended_at, self._now), 0)
        jobs = read_done_after(self._db, *begin, BATCH_JOBS)
        if not jobs:
            return None
        self._progress.ended_at = min(jobs[-1].ended_at, self._now - LATE_SECONDS)
        self._write(jobs)
        return (jobs[-1].ended_at, jobs[-1].id) if len(jobs) == BATCH_JOBS else None

    def sweep(self) -> bool:
        """Compare a part of the history with the index and the done folders; returns whether more is left."""
        progress = self._progress
        if self._now - progress.swept_at < SWEEP_SECONDS:
            return False
        jobs = read_done_from(self._db, progress.swept_id, SWEEP_JOBS)
        last_id = jobs[-1].id if jobs else NEWEST
        gone = self._index.read_ids(progress.swept_id, last_id) - {job.id for job in jobs}
        gone |= {job.id for job in jobs if self._folders.has(job) is False}
        if jobs:
            progress.swept_id = last_id
        else:
            progress.swept_id, progress.swept_at = 0, self._now
        self._write([job for job in jobs if job.id not in gone], gone)
        return bool(jobs)

    def _write(self, jobs: Sequence[DoneJob], gone: set[int] | None = None) -> None:
        """Index those of *jobs* that are not indexed yet, remove *gone*, and store the progress."""
        new = [job for job in jobs if not self._index.has(job.id, job.ended_at)]
        read = [(job, passages) for job in new if (passages := self._folders.read(job)) is not None]
        with self._index.transaction():
            self._index.remove(gone or ())
            for job, passages in read:
                self._index.add(job.id, job.ended_at, passages)
            self._index.write_progress(self._node, self._progress)


@contextmanager
def index_of(config: Config, db: Connection) -> Iterator[TranscriptIndex]:
    """The index that belongs to the queue on *db*; raises as :func:`open_index`."""
    if config.queue is not None:
        yield ClusterIndex(db)
    else:
        with open_index(config.state_dir) as index:
            yield index


def _require_room(config: Config) -> None:
    if config.queue is None and shutil.disk_usage(config.state_dir).free < FREE_BYTES:
        path = str(config.state_dir / INDEX_NAME)
        raise StoreFull(path, "new transcripts are not indexed: the disk is nearly full", "make room on it")


def catch_up(config: Config, seconds: float) -> bool:
    """Index new transcripts for *seconds* at most; returns whether all are. Raises as Indexer.step."""
    indexer, until = Indexer(), time.monotonic() + seconds
    while indexer.step(config, sweep=False):
        if time.monotonic() > until:
            return False
    return True


class DoneFolders:
    """Looks into the done folders of a config; a folder that does not answer is not asked again."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._silent: set[bytes] = set()

    def has(self, job: DoneJob) -> bool | None:
        """Whether audio or transcript of *job* is in its done folder; None where that cannot be told now."""
        return self._ask(job, _is_there, otherwise=False)

    def read(self, job: DoneJob) -> list[Passage] | None:
        """The transcript of *job*, empty where there is only audio; None where neither is there."""
        return self._ask(job, _passages, otherwise=None)

    def _ask(
        self, job: DoneJob, look: Callable[[FolderRule, bytes, bytes], T | None], otherwise: T | None
    ) -> T | None:
        rule = self._config.folders.get(job.folder)
        root = os.fsencode(rule.done) if rule else b""
        if job.filed.startswith(b"//") or root in self._silent:  # on a mount that this node lacks, or hangs
            return None
        place = filed_place(rule, job.filed) if rule else None
        if place is None or place.part != "done":
            return otherwise
        try:
            return ask_disk(root, lambda: look(place.rule, root, place.path))
        except OSError:
            self._silent.add(root)
            return None


def _is_there(rule: FolderRule, root: bytes, path: bytes) -> bool | None:
    """Whether the recording or its transcript is there: old recordings are removed, and transcripts stay."""
    if not os.path.isdir(root):
        return None  # a share that is not mounted is not an empty folder
    sidecars = (name for form in ("json", *_TEXT_FORMS) for name in sidecar_paths(rule, path, form))
    others = companion_paths(rule, path)
    for name in chain([path], (name for name in sidecars if name not in others)):
        with suppress(AudioError):
            os.close(open_beneath(root, name))
            return True
    return False


def _passages(rule: FolderRule, root: bytes, path: bytes) -> list[Passage] | None:
    if not _is_there(rule, root, path):
        return None
    try:
        return _read(rule, root, path)
    except OSError:
        raise
    except Exception:  # anybody may write there; only the malformed transcript is not found
        log.exception("search.bug", path=path)
        return []


def _read(rule: FolderRule, root: bytes, path: bytes) -> list[Passage]:
    if document := read_transcript(rule, root, path):
        return passages_of(document)
    for name in (name for form in _TEXT_FORMS for name in sidecar_paths(rule, path, form)):
        try:
            with open(open_beneath(root, name), "rb") as file:
                return passages_of_text(file.read(MOST_TEXT_BYTES).decode("utf-8", "replace"))
        except AudioError:
            continue
    return []
