"""Publishes stored results as files, with retries on errors of the disk."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import AudioChanged, AudioError, AudioMissing, PublishError
from dropscribe.core.model import AttemptEnd, Job, Published, ResultStored, Retry
from dropscribe.core.naming import is_within
from dropscribe.core.retry import INTERNAL_ERROR, INTERNAL_ERROR_WORDS
from dropscribe.core.text.printing import path_text
from dropscribe.files.content import find_content
from dropscribe.pipeline.observer import Filed
from dropscribe.pipeline.rendering import RenderError, content_of, is_error
from dropscribe.publish.filing import publish, publish_together, withdraw
from dropscribe.publish.publication import (
    CompanionChanged,
    CopyNeeded,
    NameTaken,
    PublishRequest,
    ReopenedForWriting,
)
from dropscribe.queue.sql import result_rows
from dropscribe.transcripts.document import doubts_of, renamed_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dropscribe.core.model import Outcome, StoredResult
    from dropscribe.pipeline.disk_threads import DiskThreads
    from dropscribe.pipeline.folder_troubles import PublishTroubles
    from dropscribe.pipeline.observer import Observer
    from dropscribe.pipeline.results import Results
    from dropscribe.pipeline.runtime_config import RuntimeConfig
    from dropscribe.queue.engine import Engine

log = structlog.get_logger()

MOST_TURNS = 100
"""Rounds of taken names and changed times before the file waits again."""

WRITER_WAIT_SECONDS = 1.0


class Publisher:
    """Publishes stored results."""

    def __init__(
        self,
        queue: Engine,
        troubles: PublishTroubles,
        observer: Observer,
        disks: DiskThreads,
        results: Results,
        token: str,
    ) -> None:
        self._queue = queue
        self._troubles = troubles
        self._observer = observer
        self._disks = disks
        self._results = results
        self._token = token

    async def publish(self, job: Job, runtime: RuntimeConfig) -> Outcome:
        """One try to put *job*'s files in place."""
        for _ in range(MOST_TURNS):
            try:
                job = await self._results.loaded(job)
                document = content_of(_result(job))
                if self._is_misplaced(job, runtime):
                    log.warning("file.place_refused", folder=job.folder, path=job.path)
                    job = await self._renamed(job, runtime, document)
                if (old_path := _path_in(document)) not in {None, path_text(job.path)}:
                    # Renamed in flight: it is filed under the name that it has now.
                    await self._withdraw(job, runtime, old_path)
                    pattern = runtime.rule(job.folder).recorded_at
                    job = await self._renamed(job, runtime, renamed_document(document, job.path, pattern))
                filed = await self._put(job, runtime)
            except (NameTaken, CompanionChanged):
                job = await self._renamed(job, runtime, content_of(_result(job)))
            except AudioChanged as error:
                refreshed = await self._refreshed(job, runtime, error)
                if not isinstance(refreshed, Job):
                    return refreshed
                job = refreshed
            except RenderError:
                log.exception("job.bug", folder=job.folder, path=job.path)
                return ResultStored(await self.reject(job, runtime))
            except (AudioError, ReopenedForWriting, PublishError) as error:
                return await self._not_filed(job, runtime, error)
            else:
                return self._filed(job, filed)
        return Retry(WRITER_WAIT_SECONDS, "changed", "it or its place in done changes again and again")

    async def _not_filed(
        self, job: Job, runtime: RuntimeConfig, error: AudioError | ReopenedForWriting | PublishError
    ) -> Outcome:
        match error:
            case PublishError():
                return await self._troubles.refused(job, runtime, _result(job).output_names.root, error)
            case ReopenedForWriting():
                self._troubles.end(job)
                return Retry(WRITER_WAIT_SECONDS, "writer", "it has been opened for writing again")
            case AudioMissing():
                return await self._troubles.missing(job, runtime, error.reason)
            case _:
                return self._troubles.withdrawn(job, str(error))

    async def _renamed(self, job: Job, runtime: RuntimeConfig, document: Mapping[str, Any]) -> Job:
        return await self._results.store(job, runtime, document, _result(job).sha256, AttemptEnd(0.0))

    async def _refreshed(self, job: Job, runtime: RuntimeConfig, error: AudioChanged) -> Job | Outcome:
        """*job* with its file's new time or inode, if the file still has the bytes that were sent."""
        inbox, size_bytes, sha256 = runtime.inbox(job.folder), job.snapshot.size_bytes, _result(job).sha256
        find = partial(find_content, inbox, job.path, size_bytes, sha256)
        found = await self._disks.run_long(job.folder, find, size_bytes)
        if found.is_forbidden and self._results.ctimes_ns.pop(job.id, None) is not None:
            return job  # a chmod alone changes ctime too; size, time and inode are compared again
        if (snapshot := found.snapshot) is not None:
            self._results.ctimes_ns[job.id] = snapshot.ctime_ns
            refreshed = await self._queue.database.do(
                lambda db: result_rows.refresh_snapshot(db, job, snapshot)
            )
            return refreshed or self._troubles.withdrawn(job, str(error))
        if job.stable_inodes and found.inode != job.snapshot.inode:
            return await self._troubles.missing(job, runtime, str(error))
        return self._troubles.withdrawn(job, str(error))

    def _is_misplaced(self, job: Job, runtime: RuntimeConfig) -> bool:
        """Whether the row has no names or, in a shared database, a place outside its rule's folders."""
        rule, names = runtime.rule(job.folder), _result(job).output_names
        own = (os.fsencode(rule.done), os.fsencode(rule.failed))
        return not names.audio or (runtime.config.queue is not None and not is_within(names, own))

    async def reject(self, job: Job, runtime: RuntimeConfig) -> Job:
        """Fail a job whose stored answer cannot be published: sending it again would cost again."""
        ended = AttemptEnd(0.0, code=INTERNAL_ERROR, reason=INTERNAL_ERROR_WORDS, counted=False)
        document = await self._results.error(job, INTERNAL_ERROR, INTERNAL_ERROR_WORDS, ended)
        return await self._results.store(job, runtime, document, _result(job).sha256, ended)

    async def _withdraw(self, job: Job, runtime: RuntimeConfig, old_path: str) -> None:
        """Remove the files with the job's old names."""
        request = replace(self._request(job, runtime), path=old_path.encode("utf-8", "surrogateescape"))
        await self._disks.run_long(job.folder, partial(withdraw, request))

    def _request(self, job: Job, runtime: RuntimeConfig) -> PublishRequest:
        result, ctimes_ns = _result(job), self._results.ctimes_ns
        return PublishRequest(
            inbox=runtime.inbox(job.folder),
            path=job.path,
            snapshot=job.snapshot,
            stable_inodes=job.stable_inodes,
            sha256=result.sha256,
            output_names=result.output_names,
            files=result.files or (),
            token=f"{self._token}-{job.id}",
            ignores_writers=runtime.rule(job.folder).settle_ignores_writers,
            # A file without a digest cannot be hashed again; ctime means little on network file systems.
            ctime_ns=ctimes_ns.get(job.id) if job.stable_inodes and result.sha256 else None,
        )

    async def _put(self, job: Job, runtime: RuntimeConfig) -> bytes:
        publication = self._request(job, runtime)
        try:
            return await self._disks.run_long_each(job.folder, publish_together, publication)
        except CopyNeeded:
            copy = partial(publish, publication)
            return await self._disks.run_long(job.folder, copy, job.snapshot.size_bytes)

    def _filed(self, job: Job, filed: bytes) -> Outcome:
        self._troubles.filed(job)
        self._results.ctimes_ns.pop(job.id, None)
        result = _result(job)
        document, names = content_of(result), result.output_names
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
                outputs=tuple((form, names.path(name)) for form, name in names.sidecars),
                companions=tuple(names.path(companion.name) for companion in names.companions),
                recorded_at=document.get("recorded_at"),
            )
        )
        if failed:
            return Published(filed)
        return Published(filed, bool(doubts_of(document)), document["duration"] or 0.0)


def _result(job: Job) -> StoredResult:
    if job.result is None:
        raise ValueError("a job without a result has nothing to publish")
    return job.result


def _path_in(document: Mapping[str, Any]) -> str | None:
    """The path that a transcript's document names; an error's names none."""
    return None if is_error(document) else document["source"]["path"]
