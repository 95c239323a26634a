"""Kept answers → files, with what can go wrong on disk on the way."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.backoff import backoff_seconds
from dropscribe.core.errors import AudioChanged, AudioMissing, AudioUnsafe, PublishError
from dropscribe.core.model import AttemptEnd, Published, Retry, Withdrawn
from dropscribe.pipeline.batching import BatchExecutor
from dropscribe.pipeline.observer import Filed
from dropscribe.pipeline.results import Answers, content_of, files_of, is_error, renamed
from dropscribe.publish.filing import publish, publish_together
from dropscribe.publish.publication import AcrossMounts, NameTaken, PublishRequest, WriterCameBack
from dropscribe.transcripts.document import path_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dropscribe.core.model import Job, Outcome, StoredResult
    from dropscribe.pipeline.observer import Observer
    from dropscribe.pipeline.runtime_config import DiskThreads, IntakeSide, RuntimeConfig
    from dropscribe.queue.engine import Engine

log = structlog.get_logger()

LONGEST_WAIT_SECONDS = 15.0
"""How long after there is room again a kept answer waits at most."""

MISSING_WAIT_SECONDS = 2.0
WRITER_WAIT_SECONDS = 1.0
STUCK = "publishing"


class Publisher:
    """Publishes kept jobs; a folder whose files cannot be written takes no more uploads."""

    def __init__(
        self,
        queue: Engine,
        intake: IntakeSide,
        observer: Observer,
        disks: DiskThreads,
        answers: Answers,
        token: str,
    ) -> None:
        self._queue = queue
        self._intake = intake
        self._observer = observer
        self._disks = disks
        self._answers = answers
        self._token = token
        self._refusals: Counter[int] = Counter()
        self._together: dict[str, BatchExecutor[PublishRequest, bytes]] = {}

    async def publish(self, job: Job, setup: RuntimeConfig) -> Outcome:
        """One try to put *job*'s files in place."""
        document = content_of(_kept(job))
        if _path_in(document) not in {None, path_text(job.path)}:
            # Renamed in flight: it is filed under the name that it has now.
            document = renamed(document, job.path)
            job = await self._answers.keep(job, setup, document, _kept(job).sha256, AttemptEnd(0.0))
        while True:
            kept = _kept(job)
            try:
                filed = await self._put(job, kept, setup)
            except NameTaken:
                job = await self._answers.keep(job, setup, document, kept.sha256, AttemptEnd(0.0))
            except AudioMissing as error:
                self._intake.look_again(job.folder)
                return Retry(MISSING_WAIT_SECONDS, "missing", error.reason)
            except (AudioChanged, AudioUnsafe) as error:
                self._intake.distrust(job.folder, job.path)
                self._intake.look_again(job.folder)
                self._unstuck(job)
                return Withdrawn(error.reason)
            except WriterCameBack:
                self._unstuck(job)
                return Retry(WRITER_WAIT_SECONDS, "writer", "somebody has opened it for writing again")
            except PublishError as error:
                return self._stuck(job, error)
            else:
                return self._filed(job, document, filed)

    async def _put(self, job: Job, kept: StoredResult, setup: RuntimeConfig) -> bytes:
        publication = PublishRequest(
            inbox=setup.inbox(job.folder),
            path=job.path,
            snapshot=job.snapshot,
            stable_inodes=job.stable_inodes,
            sha256=kept.sha256,
            group=kept.group,
            files=files_of(kept),
            token=f"{self._token}-{job.id}",
        )
        threads = self._disks.of(job.folder)
        together = self._together.setdefault(job.folder, BatchExecutor(threads, publish_together))
        try:
            return await together.do(publication)
        except AcrossMounts:
            return await asyncio.get_running_loop().run_in_executor(threads, publish, publication)

    def _stuck(self, job: Job, error: PublishError) -> Outcome:
        self._refusals[job.id] += 1
        reason = f"{path_text(error.path)}: {error.reason}"
        self._queue.close_folder(job.folder, STUCK, reason)
        if self._refusals[job.id] == 1:
            log.warning("file.not_filed", folder=job.folder, path=job.path, code=error.code, reason=reason)
        wait_seconds = backoff_seconds(1.0, self._refusals[job.id], LONGEST_WAIT_SECONDS)
        return Retry(wait_seconds, error.code, reason)

    def _unstuck(self, job: Job) -> None:
        """What kept the folder closed may be over, and this job no longer asks: another one finds out."""
        self._refusals.pop(job.id, None)
        self._queue.open_folder(job.folder, STUCK)

    def _filed(self, job: Job, document: Mapping[str, Any], filed: bytes) -> Outcome:
        self._unstuck(job)
        failed = is_error(document)
        self._observer.filed(
            Filed(
                folder=job.folder,
                path=job.path,
                filed=filed,
                is_done=not failed,
                provider=job.provider,
                attempts=job.attempts,
                waited_seconds=max(0.0, time.time() - job.received_at),
                audio_bytes=job.snapshot.size_bytes,
                audio_seconds=None if failed else document["duration"],
                code=document["code"] if failed else "",
                reason=document["reason"] if failed else "",
                is_reused=bool(document.get("reused")),
            )
        )
        return Published(filed)


def _kept(job: Job) -> StoredResult:
    if job.result is None:
        raise ValueError("a job without an answer has nothing to publish")
    return job.result


def _path_in(document: Mapping[str, Any]) -> str | None:
    """The path that a transcript's document names; an error's names none."""
    return None if is_error(document) else document["source"]["path"]
