"""Turns answers into documents, and stores them under names that nothing else has."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from dropscribe.core.budget import AnswerKey, Booking
from dropscribe.core.errors import AudioError
from dropscribe.core.model import Attempt, AttemptEnd, Job, ResultStored, StoredResult
from dropscribe.core.naming import OutputPlan, number_names
from dropscribe.core.text.printing import name_text
from dropscribe.files.audio import AudioFile, open_folder_of
from dropscribe.files.beneath import closing
from dropscribe.files.companions import FoundCompanion, find_companions
from dropscribe.pipeline.claims import Claim
from dropscribe.pipeline.disk_threads import DiskThreads, FolderHangs
from dropscribe.pipeline.rendering import Renderer, content_of, loaded, unpacked
from dropscribe.publish.places import FreeNames, find_free_names
from dropscribe.queue.engine import Engine
from dropscribe.queue.model import CachedResult
from dropscribe.queue.sql import result_cache, result_rows
from dropscribe.queue.sql.rows import read_attempts
from dropscribe.transcripts.document import (
    TranscriptFacts,
    error_document,
    is_error,
    merges_speakers,
    reused_document,
    transcript_document,
    unnamed_document,
    with_companions,
)
from dropscribe.transcripts.model import Transcript

SHORTEST_NAME_MAX_BYTES = 143
"""The longest name that every supported file system stores (eCryptfs has the lowest limit)."""


@dataclass(slots=True)
class Results:
    """Builds documents and stores them under free names; raises RenderError where one cannot be built."""

    queue: Engine
    disks: DiskThreads
    ctimes_ns: dict[int, int] = field(default_factory=dict)
    """By job id: st_ctime_ns of a recording with a stored answer, before its bytes were read."""
    _renderer: Renderer = field(default_factory=Renderer)

    async def find_answer(self, claim: Claim, audio: AudioFile) -> CachedResult | None:
        """The answer that the same content got before under the same settings, if it may be used.

        Only a file of exactly the size of a known one is hashed, so that others are not read an extra time.
        """
        if not claim.job.may_be_cached or not claim.keep_seconds or claim.rule.duplicates == "transcribe":
            return None
        try:
            sha256 = await audio.ensure_sha256()
        except (AudioError, OSError):
            return None  # sending it meets the same error, and handles it
        key, since = AnswerKey(sha256, claim.settings), self.queue.now() - claim.keep_seconds
        return await self.queue.database.do(lambda db: result_cache.read_answer(db, key, since))

    async def transcript(
        self, claim: Claim, transcript: Transcript, sha256: str, seconds: float
    ) -> dict[str, Any]:
        """The document of a new answer."""
        facts = await self._facts(claim, sha256, claim.job.attempts, seconds)
        build = partial(transcript_document, transcript, facts)
        return await self._renderer.build(
            build, transcript.text, transcript.segments, transcript.words, transcript.raw
        )

    async def for_cache(
        self, booking: Booking, document: Mapping[str, Any], transcript: Transcript
    ) -> Booking:
        """*booking* with the provider's speakers where the rule gives several of them one name."""
        if booking.answer is None or not merges_speakers(document, transcript):
            return booking
        packed = await self._renderer.build(
            lambda: json.dumps(unnamed_document(document, transcript)).encode(), document
        )
        return replace(booking, document=packed)

    async def reused(self, claim: Claim, cached: bytes, sha256: str) -> dict[str, Any]:
        """The document of a file whose content was answered before, by the *cached* document."""
        facts = await self._facts(claim, sha256, claim.job.attempts - 1, 0.0)
        return await self._renderer.build(lambda: reused_document(unpacked(cached)[0], facts), cached)

    async def load(self, claim: Claim) -> None:
        """Parse and render the stored result anew if another run of the daemon has stored it."""
        result = claim.result
        if result.content is None or result.files is None:
            result = await self._renderer.build(partial(loaded, result), result.document)
            claim.job = replace(claim.job, result=result)

    async def reject(
        self,
        claim: Claim,
        code: str,
        reason: str,
        ended: AttemptEnd,
        sha256: str = "",
        booking: Booking | None = None,
    ) -> ResultStored:
        """End the file: it goes to ``failed`` with *code* and *reason*, and with every attempt."""
        job, attempts = claim.job, await self._attempts(claim.job)
        was_sent = ended.counted or any(attempt.refused for attempt in attempts)
        last = Attempt(time.time(), job.provider, ended.seconds, ended.status, ended.code, ended.reason)
        if attempts:
            last = replace(last, at=attempts[-1].at)
        attempts = [*attempts[:-1], *([last] if was_sent else [])]
        document = error_document(job, code, reason, time.time(), attempts)
        return await self.store(claim, document, sha256, ended, booking)

    async def store(
        self,
        claim: Claim,
        document: Mapping[str, Any],
        sha256: str,
        ended: AttemptEnd,
        booking: Booking | None = None,
    ) -> ResultStored:
        """Store *document* under the first names that no file and no other job has, or raise RenderError."""
        job, rule, rejected = claim.job, claim.rule, is_error(document)
        companions = await self._companions(claim)
        if rule.companions and not rejected:
            texts = {name_text(each.file.source): each.content[0] for each in companions if each.content}
            is_missing = rule.companions_wait_seconds > 0 and len(companions) < len(rule.companions)
            document = with_companions(document, texts, rule.recorded_at, is_missing=is_missing)
        audio = job.path.rpartition(b"/")[2]
        rendered = await self._renderer.render(rule, document, audio)
        root = os.fsencode(rule.failed if rejected else rule.done)
        files_to_name = tuple(each.file for each in companions)
        plan = OutputPlan(root, job.path, tuple(rendered.contents), rule.sidecar_name, files_to_name)
        refused: set[int] = set()
        free, claim.free_names = claim.free_names, None
        while True:
            if free is None or free.plan != plan or free.number in refused:
                free = await self._find_free_names(job, plan, refused)
            number, names = free.number, free.names
            if rule.template is not None and not rejected and names.audio != audio:
                audio = names.audio  # the template may name the recording
                rendered = await self._renderer.render(rule, document, audio)
                plan = replace(plan, formats=tuple(rendered.contents))
                refused.update(range(1, number))  # where it fails under this name, an earlier one may be free
                continue
            files = tuple((name, rendered.contents[form]) for form, name in names.sidecars)
            result = StoredResult(rendered.packed, sha256, names, files, rendered.document)
            if stored := await self._stored(job, result, ended, booking):
                claim.job = stored
                return ResultStored(stored)
            refused.add(number)

    async def _stored(
        self, job: Job, result: StoredResult, ended: AttemptEnd, booking: Booking | None
    ) -> Job | None:
        """The job with *result*; None where another live job has reserved one of the names."""
        rejected = is_error(content_of(result))
        if job.result is None:
            return await self.queue.store_result(job, result, ended, rejected=rejected, booking=booking)
        return await self.queue.database.do(
            lambda db: result_rows.replace_result(db, job, result, rejected=rejected)
        )

    async def refusals(self, claim: Claim) -> list[tuple[str, str]]:
        """(provider, code) of the earlier refusals of a file, in order."""
        if not claim.falls_back:
            return []
        attempts = await self._attempts(claim.job)
        return [(tried.provider, tried.code) for tried in attempts if tried.refused]

    async def _attempts(self, job: Job) -> list[Attempt]:
        return await self.queue.database.do(lambda db: read_attempts(db, job.id))

    async def _companions(self, claim: Claim) -> list[FoundCompanion]:
        """The companions beside the recording; none where its folder does not answer."""
        job, rule = claim.job, claim.rule
        if not rule.companions:
            return []

        def find() -> list[FoundCompanion]:
            name = job.path.rpartition(b"/")[2]
            with closing(open_folder_of(claim.inbox, job.path)) as folder:
                return find_companions(folder, name, rule.companions, rule.settle_seconds)

        try:
            return await self.disks.run(job.folder, find)
        except (AudioError, OSError, FolderHangs):
            return []

    async def _find_free_names(self, job: Job, plan: OutputPlan, refused: Collection[int]) -> FreeNames:
        """The first free names of *plan*; *refused* numbers were reserved by other live jobs."""
        try:
            return await self.disks.run(job.folder, partial(find_free_names, plan, frozenset(refused)))
        except FolderHangs:
            # The answer is paid for and is stored now; publishing checks whether the names are free.
            number = max(refused, default=0) + 1
            return FreeNames(plan, number, number_names(plan, number, SHORTEST_NAME_MAX_BYTES))

    async def _facts(self, claim: Claim, sha256: str, attempts: int, seconds: float) -> TranscriptFacts:
        job, rule, provider = claim.job, claim.rule, claim.provider_config
        return TranscriptFacts(
            path=job.path,
            size_bytes=job.snapshot.size_bytes,
            sha256=sha256,
            modified_at=job.snapshot.mtime_ns / 1e9,
            provider_name=provider.name,
            provider_type=provider.type,
            params=claim.params,
            folder=job.folder,
            attempts=attempts,
            received_at=job.received_at,
            transcribed_at=time.time(),
            elapsed_seconds=seconds,
            refusals=await self.refusals(claim),
            speaker_names=rule.speaker_names,
            date_pattern=rule.recorded_at,
            outputs=rule.outputs,
            warnings=("incomplete_audio",) if job.incomplete else (),
        )
