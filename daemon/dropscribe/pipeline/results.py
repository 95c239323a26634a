"""Turns answers into documents, and stores them under names that nothing else has."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from dropscribe.core.errors import AudioError
from dropscribe.core.model import Attempt, JobState, StoredResult
from dropscribe.core.naming import OutputPlan, number_names
from dropscribe.core.requests.params import effective_params
from dropscribe.core.text.printing import name_text
from dropscribe.files.audio import open_folder_of
from dropscribe.files.beneath import closing
from dropscribe.files.companions import find_companions
from dropscribe.pipeline.disk_threads import FolderHangs
from dropscribe.pipeline.rendering import Renderer, content_of, is_error, unpacked
from dropscribe.publish.free_names import FreeNames, find_free_names
from dropscribe.publish.readiness import OpenRequest
from dropscribe.queue.sql import result_rows
from dropscribe.queue.sql.rows import read_attempts
from dropscribe.transcripts.document import (
    ErrorFacts,
    TranscriptFacts,
    error_document,
    merges_speakers,
    reused_document,
    transcript_document,
    unnamed_document,
    with_companions,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dropscribe.config.model import FolderRule
    from dropscribe.core.budget import Booking
    from dropscribe.core.model import AttemptEnd, Job
    from dropscribe.files.companions import FoundCompanion
    from dropscribe.pipeline.disk_threads import DiskThreads
    from dropscribe.pipeline.runtime_config import RuntimeConfig
    from dropscribe.queue.engine import Engine
    from dropscribe.transcripts.model import Transcript

log = structlog.get_logger()

T = TypeVar("T")

Refusals = Sequence[tuple[str, str]]
"""(provider, code) of the earlier refusals of a file, in order."""

SHORTEST_NAME_MAX_BYTES = 143
"""The longest name that every supported file system stores (eCryptfs has the lowest limit)."""


class Results:
    """Builds documents and stores them under free names."""

    def __init__(self, queue: Engine, disks: DiskThreads) -> None:
        self._queue = queue
        self._disks = disks
        self._renderer = Renderer()
        self._free: dict[int, FreeNames] = {}
        """By job id: names found when the attempt began, so that storing an answer waits for no disk."""
        self.ctimes_ns: dict[int, int] = {}
        """By job id: st_ctime_ns of a recording with a stored answer, from before its bytes were read."""

    def open_request(self, job: Job, runtime: RuntimeConfig) -> OpenRequest:
        """How to open the recording of *job*, and which names its files would have in ``done``.

        Publishing detects a name that was taken since.
        """
        rule = runtime.rule(job.folder)
        done, plan = os.fsencode(rule.done), None
        # Names that depend on companions or on a template are known only with the answer.
        if job.remote is None and not rule.companions and rule.template is None:
            plan = OutputPlan(done, job.path, tuple(rule.outputs), rule.sidecar_name)
        return OpenRequest(runtime.inbox(job.folder), job.path, done, plan, self._disks.of(job.folder))

    def keep(self, job: Job, free: FreeNames | None) -> None:
        """Keep names that were free when the recording was opened, until its answer is stored."""
        if free is not None:
            self._free[job.id] = free

    def forget(self, job: Job) -> None:
        """Drop the names of :meth:`keep`, because the attempt is over."""
        self._free.pop(job.id, None)

    async def transcript(
        self,
        job: Job,
        runtime: RuntimeConfig,
        transcript: Transcript,
        sha256: str,
        seconds: float,
        refusals: Refusals,
    ) -> dict[str, Any]:
        """The document of a new answer.

        Raises:
            RenderError: It cannot be built.
        """
        facts = _facts(job, runtime, sha256, job.attempts, seconds, refusals)
        outputs = runtime.rule(job.folder).outputs
        build = partial(transcript_document, transcript, facts, outputs=outputs, warnings=_warnings(job))
        return await self._renderer.build(
            build, transcript.text, transcript.segments, transcript.words, transcript.raw
        )

    async def for_cache(
        self, booking: Booking, document: Mapping[str, Any], transcript: Transcript
    ) -> Booking:
        """*booking* with the provider's speakers where the rule gives several of them one name.

        Raises:
            RenderError: The document for the cache cannot be built.
        """
        if booking.answer is None or not merges_speakers(document, transcript):
            return booking
        packed = await self._renderer.build(
            lambda: json.dumps(unnamed_document(document, transcript)).encode(), document
        )
        return replace(booking, document=packed)

    async def reused(
        self, job: Job, runtime: RuntimeConfig, cached: bytes, sha256: str, refusals: Refusals
    ) -> dict[str, Any]:
        """The document of a file whose content was answered before; nothing was sent.

        Args:
            cached: The document of the earlier file.

        Raises:
            RenderError: It cannot be built.
        """
        facts = _facts(job, runtime, sha256, job.attempts - 1, 0.0, refusals)
        outputs = runtime.rule(job.folder).outputs
        return await self._renderer.build(
            lambda: reused_document(unpacked(cached)[0], facts, outputs=outputs, warnings=_warnings(job)),
            cached,
        )

    async def loaded(self, job: Job) -> Job:
        """*job* with the content of its stored result, which after a restart is parsed and rendered anew.

        Raises:
            RenderError: This version cannot render it.
        """
        result = job.result
        if result is None or (result.content is not None and result.files is not None):
            return job
        return replace(job, result=await self._renderer.loaded(result))

    async def error(self, job: Job, code: str, reason: str, ended: AttemptEnd) -> dict[str, Any]:
        """The error document of *job*, with every attempt."""
        attempts = await self._queue.database.do(lambda db: read_attempts(db, job.id))
        was_sent = ended.counted or any(attempt.refused for attempt in attempts)
        last = Attempt(time.time(), job.provider, ended.seconds, ended.status, ended.code, ended.reason)
        if attempts:
            last = replace(last, at=attempts[-1].at)
        return error_document(
            ErrorFacts(
                path=job.path,
                folder=job.folder,
                code=code,
                reason=reason,
                failed_at=time.time(),
                provider=job.provider,
                attempts=[*attempts[:-1], *([last] if was_sent else [])],
            )
        )

    async def store(
        self,
        job: Job,
        runtime: RuntimeConfig,
        document: Mapping[str, Any],
        sha256: str,
        ended: AttemptEnd,
        booking: Booking | None = None,
    ) -> Job:
        """Store *document* under the first names that neither the disk nor another job has.

        Raises:
            RenderError: It cannot be rendered; nothing is stored.
        """
        rejected = is_error(document)
        rule = runtime.rule(job.folder)
        companions = await self._companions(job, runtime)
        if rule.companions and not rejected:
            document = _with_companions(document, companions, rule)
        audio = job.path.rpartition(b"/")[2]
        rendered = await self._renderer.render(rule, document, audio)
        root = os.fsencode(rule.failed if rejected else rule.done)
        files_to_name = tuple(each.file for each in companions)
        plan = OutputPlan(root, job.path, tuple(rendered.contents), rule.sidecar_name, files_to_name)
        refused: set[int] = set()
        free = self._free.pop(job.id, None)
        while True:
            if free is None or free.plan != plan or free.number in refused:
                free = await self._free_names(job, plan, refused)
            number, names = free.number, free.names
            if rule.template is not None and not rejected and names.audio != audio:
                audio = names.audio  # the template may name the recording
                rendered = await self._renderer.render(rule, document, audio)
                plan = replace(plan, formats=tuple(rendered.contents))
                continue
            files = tuple((name, rendered.contents[form]) for form, name in names.sidecars)
            result = StoredResult(rendered.packed, sha256, names, files, rendered.document)
            if stored := await self._stored(job, result, ended, booking):
                return stored
            refused.add(number)

    async def _stored(
        self, job: Job, result: StoredResult, ended: AttemptEnd, booking: Booking | None
    ) -> Job | None:
        """The job with *result*; None where another live job has reserved one of the names."""
        rejected = is_error(content_of(result))
        if job.result is None:
            return await self._queue.store_result(job, result, ended, rejected=rejected, booking=booking)
        is_new_error = rejected and job.state is JobState.TRANSCRIBED
        change = result_rows.reject_result if is_new_error else result_rows.rename_outputs
        return await self._queue.database.do(lambda db: change(db, job, result))

    async def _companions(self, job: Job, runtime: RuntimeConfig) -> list[FoundCompanion]:
        """The companions beside the recording; none where its folder does not answer."""
        rule, inbox = runtime.rule(job.folder), runtime.inbox(job.folder)
        if not rule.companions:
            return []
        name = job.path.rpartition(b"/")[2]

        def find() -> list[FoundCompanion]:
            with closing(open_folder_of(inbox, job.path)) as folder:
                return find_companions(folder, name, rule.companions, rule.settle_seconds)

        try:
            return await self._disks.run(job.folder, find)
        except (AudioError, OSError, FolderHangs):
            return []

    async def _free_names(self, job: Job, plan: OutputPlan, refused: Collection[int]) -> FreeNames:
        """The first free names of *plan*; *refused* numbers were reserved by other live jobs."""
        search = partial(find_free_names, plan, frozenset(refused))
        try:
            return await self._disks.run(job.folder, search)
        except FolderHangs:
            # The answer is paid for and is stored now; publishing checks whether the names are free.
            number = max(refused, default=0) + 1
            return FreeNames(plan, number, number_names(plan, number, SHORTEST_NAME_MAX_BYTES))


def _with_companions(
    document: Mapping[str, Any], found: Collection[FoundCompanion], rule: FolderRule
) -> dict[str, Any]:
    contents = {name_text(each.file.source): each.content[0] for each in found if each.content}
    is_missing = rule.companions_wait_seconds > 0 and len(found) < len(rule.companions)
    return with_companions(document, contents, rule.recorded_at, is_missing=is_missing)


def _facts(
    job: Job, runtime: RuntimeConfig, sha256: str, attempts: int, seconds: float, refusals: Refusals
) -> TranscriptFacts:
    provider, rule = runtime.config.providers[job.provider], runtime.rule(job.folder)
    return TranscriptFacts(
        path=job.path,
        size_bytes=job.snapshot.size_bytes,
        sha256=sha256,
        modified_at=job.snapshot.mtime_ns / 1e9,
        provider_name=provider.name,
        provider_type=provider.type,
        params=effective_params(provider.type, rule.params_for(job.provider)),
        folder=job.folder,
        attempts=attempts,
        received_at=job.received_at,
        transcribed_at=time.time(),
        elapsed_seconds=seconds,
        refusals=refusals,
        speaker_names=rule.speaker_names,
        date_pattern=rule.recorded_at,
    )


def _warnings(job: Job) -> tuple[str, ...]:
    return ("incomplete_audio",) if job.incomplete else ()
