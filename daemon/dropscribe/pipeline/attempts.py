"""One attempt at one job: open the file, look for a known answer, send it, store the answer.

Guarantees: nothing on disk changes before the answer and its names are stored. An answer that has arrived is
stored, cached and charged before anything may discard it: a file that changed since it was sent is detected
when its result is published.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.budget import Booking
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioChanged,
    AudioError,
    AudioForbidden,
    AudioMissing,
    AudioRejected,
    ProviderError,
    ProviderUnusable,
)
from dropscribe.core.model import AtProvider, AttemptEnd, ResultStored, Retry, ScopeKind, Withdrawn
from dropscribe.core.retry import (
    INTERNAL_ERROR,
    INTERNAL_ERROR_WORDS,
    MAX_INTERNAL_ERRORS,
    REUSED,
    backoff_seconds,
)
from dropscribe.files.crashpoint import reached
from dropscribe.pipeline.deduplication import answer_key, duplicate_of, origin_words
from dropscribe.pipeline.disk_threads import FolderHangs, error_words
from dropscribe.pipeline.links import link_refusal
from dropscribe.pipeline.remote_jobs import job_provider_of, poll
from dropscribe.pipeline.rendering import RenderError
from dropscribe.providers.jobs import LONGEST_POLL_SECONDS
from dropscribe.publish.places import PlaceRefused, check_places
from dropscribe.publish.readiness import open_together
from dropscribe.queue.model import NOT_MOVABLE

if TYPE_CHECKING:
    from dropscribe.core.model import Job, Outcome
    from dropscribe.files.audio import AudioFile
    from dropscribe.pipeline.budgets import Budgets
    from dropscribe.pipeline.deduplication import Deduplication
    from dropscribe.pipeline.disk_threads import DiskThreads
    from dropscribe.pipeline.failures import Failures, Fallback
    from dropscribe.pipeline.folder_troubles import PlaceChecks
    from dropscribe.pipeline.holds import Holds
    from dropscribe.pipeline.observer import Observer
    from dropscribe.pipeline.results import Results
    from dropscribe.pipeline.runtime_config import IntakeSide, RuntimeConfig
    from dropscribe.queue.model import CachedResult
    from dropscribe.transcripts.model import Transcript

log = structlog.get_logger()

LOOK_AGAIN_SECONDS = 2.0
"""Wait before a job whose file cannot be read is tried again; the intake lists the inbox meanwhile."""

LONGEST_LOOK_SECONDS = 300.0
"""Longer than the minute that ``run --once`` waits for retries, so that a disk that stays broken ends it."""

FIRST_PLACE_SECONDS = 120.0
"""First wait of a file that cannot be moved; longer than ``run --once`` waits, because a person must help."""

LONGEST_PLACE_SECONDS = 900.0


@dataclass(slots=True)
class Attempts:
    """Makes attempts; each call is one."""

    holds: Holds
    intake: IntakeSide
    observer: Observer
    disks: DiskThreads
    checks: PlaceChecks
    results: Results
    deduplication: Deduplication
    fallback: Fallback
    budgets: Budgets
    failures: Failures
    sending: dict[int, AudioFile] = field(default_factory=dict)
    """Recordings with an attempt under way, by job id; their progress is read here."""
    _looks: Counter[int] = field(default_factory=Counter)

    async def make(self, job: Job, runtime: RuntimeConfig) -> Outcome:
        """Transcribe *job* once, unless its limits are reached or its answer is known."""
        if spent := _spent_limit(job, runtime):
            code, reason = spent
            return await self.failures.reject(job, runtime, code, reason, AttemptEnd(0.0, counted=False))
        try:
            audio = await self._open(job, runtime)
        except AudioError as error:
            return self._not_readable(job, error)
        except FolderHangs:
            return Retry(LOOK_AGAIN_SECONDS, "hangs", "its folder's disk does not answer")
        except PlaceRefused as error:
            return self._place_refused(job, runtime, error)
        except OSError as error:
            return self._disk_trouble(job, error)
        self._looks.pop(job.id, None)
        self.sending[job.id] = audio
        try:
            outcome = await self._with_audio(job, runtime, audio)
            if isinstance(outcome, ResultStored):
                self.results.ctimes_ns[job.id] = audio.snapshot.ctime_ns
            return outcome
        finally:
            self.sending.pop(job.id, None)
            self.results.forget(job)
            # Closing a file of a mount that hangs blocks, as any other call into it.
            self.disks.post(job.folder, audio.close)

    async def _with_audio(self, job: Job, runtime: RuntimeConfig, audio: AudioFile) -> Outcome:
        if job.remote is not None:
            return await self._send(job, runtime, audio)
        if unsent := _unsendable(job, runtime, audio):
            return await self.failures.reject_unsent(job, runtime, unsent)
        if known := await self.deduplication.find(job, runtime, audio):
            return await self._answer_known(job, runtime, audio, known)
        return await self._send(job, runtime, audio)

    async def _open(self, job: Job, runtime: RuntimeConfig) -> AudioFile:
        request = self.results.open_request(job, runtime)
        opened = await self.disks.run_each(
            job.folder, open_together, request, lambda late: late.audio.close()
        )
        audio = opened.audio
        if not job.snapshot.same_audio(audio.snapshot, stable_inodes=job.stable_inodes):
            self.disks.post(job.folder, audio.close)
            raise AudioChanged(job.path, "changed since it settled")
        self.results.keep(job, opened.free)
        return audio

    def _not_readable(self, job: Job, error: AudioError) -> Outcome:
        """Outcome for audio that cannot be read: a retry if it is missing, else withdrawn."""
        self.intake.look_again(job.folder)
        if isinstance(error, AudioMissing):
            return self._retry_unsent(job, "missing", "not at its place; the inbox is being listed")
        if isinstance(error, AudioChanged):
            self.intake.note_late_change(job.folder, job.path)
        code = "unreadable" if isinstance(error, AudioForbidden) else "changed"
        ended = AttemptEnd(0.0, code=code, reason=error.reason, counted=False)
        return Withdrawn(error.reason, ended)

    def _place_refused(self, job: Job, runtime: RuntimeConfig, error: PlaceRefused) -> Outcome:
        """No file of the rule can be moved, or none of this sub-folder: the others continue."""
        if error.is_of_rule:
            done = os.fsencode(runtime.rule(job.folder).done)
            check = partial(check_places, runtime.inbox(job.folder), done, job.path)
            self.checks.close_until_writable(job.folder, error_words(error), check)
            return self._disk_trouble(job, error)
        retry = self._disk_trouble(job, error, NOT_MOVABLE)
        wait_seconds = backoff_seconds(FIRST_PLACE_SECONDS, self._looks[job.id], LONGEST_PLACE_SECONDS)
        return replace(retry, after_seconds=wait_seconds)

    def _disk_trouble(self, job: Job, error: OSError, code: str = "disk_error") -> Retry:
        """EIO, ESTALE, EMFILE: an error of the disk, not of the file or the provider."""
        self.intake.look_again(job.folder)
        reason = error_words(error)
        if not self._looks[job.id]:
            log.warning("file.not_sent", folder=job.folder, path=job.path, code=code, reason=reason)
        return self._retry_unsent(job, code, reason)

    def _retry_unsent(self, job: Job, code: str, reason: str) -> Retry:
        """Retry soon, then less and less often; no attempt was made."""
        self._looks[job.id] += 1
        wait_seconds = backoff_seconds(LOOK_AGAIN_SECONDS, self._looks[job.id], LONGEST_LOOK_SECONDS)
        return Retry(wait_seconds, code, reason)

    async def _answer_known(
        self, job: Job, runtime: RuntimeConfig, audio: AudioFile, known: CachedResult
    ) -> Outcome:
        """This content was paid for before: nothing is sent."""
        if runtime.rule(job.folder).duplicates == "skip":
            return await self.failures.reject_unsent(job, runtime, duplicate_of(known))
        ended = AttemptEnd(0.0, code=REUSED, reason=origin_words(known), counted=False)
        refusals = await self.fallback.refusals(job, runtime)
        try:
            document = await self.results.reused(job, runtime, known.document, audio.sha256, refusals)
            return ResultStored(await self.results.store(job, runtime, document, audio.sha256, ended))
        except RenderError as error:
            return await self._reject_unrendered(job, runtime, error, audio.sha256, ended)

    async def _send(self, job: Job, runtime: RuntimeConfig, audio: AudioFile) -> Outcome:
        began = time.monotonic()
        try:
            answer = await self._ask(job, runtime, audio)
        except AudioError as error:
            return self._not_readable(job, error)
        except OSError as error:
            return self._disk_trouble(job, error)
        except Exception as error:  # a bug while sending is a failure of the attempt
            if job.remote is not None and not isinstance(error, ProviderError):
                raise  # a bug while polling does not fail the job, which is polled again
            reached("answered")
            failure = _failure_of(job, error)
            ended = AttemptEnd(_seconds_of(job, began), failure.status, failure.code, failure.reason)
            self.observer.attempt_ended(job, ended)
            return await self.failures.outcome_of(job, runtime, failure, ended)
        if isinstance(answer, AtProvider | Retry):
            return answer
        reached("answered")
        ended = AttemptEnd(_seconds_of(job, began), status=None)
        self.observer.attempt_ended(job, ended)
        return await self._answered(job, runtime, audio, answer, ended)

    async def _ask(
        self, job: Job, runtime: RuntimeConfig, audio: AudioFile
    ) -> Transcript | AtProvider | Retry:
        """The transcript, or the state of the wait while the provider works on its job."""
        params = runtime.rule(job.folder).params_for(job.provider)
        if job.remote is not None:
            found = await poll(job, runtime, job.remote, params)
            if isinstance(found, ProviderUnusable):
                await self.holds.hold(ScopeKind.PROVIDER, job.provider, found, runtime.config.hold)
                return Retry(LONGEST_POLL_SECONDS, found.code, found.reason)
            if not isinstance(found, Retry):
                await self.holds.answered(job)
            return found
        if (provider := job_provider_of(job, runtime, audio)) is None:
            return await runtime.provider(job).transcribe(audio, params)
        job_id = await provider.start_job(audio, params)
        await self.holds.answered(job)
        return AtProvider(job_id, provider.poll_seconds(0.0))

    async def _answered(
        self, job: Job, runtime: RuntimeConfig, audio: AudioFile, transcript: Transcript, ended: AttemptEnd
    ) -> Outcome:
        await self.holds.succeeded(job)
        spending = await self.budgets.charge(job, runtime, transcript, audio)
        try:
            sha256 = await audio.ensure_sha256()
        except (AudioChanged, OSError) as error:
            # The file changed during the upload: the bytes that were sent are not known.
            self.intake.note_late_change(job.folder, job.path)
            self.intake.look_again(job.folder)
            return Withdrawn(str(error) or "changed while it was being transcribed", ended, spending)
        key = answer_key(job, runtime, transcript, sha256)
        booking = Booking(key, runtime.config.ledger_keep_seconds, spending)
        refusals = await self.fallback.refusals(job, runtime)
        document: dict[str, object] | None = None
        try:
            document = await self.results.transcript(
                job, runtime, transcript, sha256, ended.seconds, refusals
            )
            booking = await self.results.for_cache(booking, document, transcript)
            stored = await self.results.store(job, runtime, document, sha256, ended, booking)
        except RenderError as error:
            booking = await asyncio.to_thread(_booking_of_unrendered, booking, document)
            return await self._reject_unrendered(job, runtime, error, sha256, ended, booking)
        if spending:
            await self.budgets.audit()
        return ResultStored(stored)

    async def _reject_unrendered(
        self,
        job: Job,
        runtime: RuntimeConfig,
        error: RenderError,
        sha256: str,
        ended: AttemptEnd,
        booking: Booking | None = None,
    ) -> Outcome:
        """An answer exists that cannot be written as text; sending the file again would cost again."""
        log.error("job.bug", folder=job.folder, path=job.path, exc_info=error)
        document = await self.results.error(job, INTERNAL_ERROR, INTERNAL_ERROR_WORDS, ended)
        return ResultStored(await self.results.store(job, runtime, document, sha256, ended, booking))


def _seconds_of(job: Job, began: float) -> float:
    """Seconds that the attempt took; for a polled provider, since it received the audio."""
    if job.remote is not None:
        return max(0.0, time.time() - job.remote.created_at)
    return time.monotonic() - began


def _booking_of_unrendered(booking: Booking, document: dict[str, object] | None) -> Booking:
    """*booking* with the answer itself, so that a later version can render it without paying again."""
    try:
        packed = booking.document or (json.dumps(document).encode() if document else b"")
    except Exception:  # noqa: BLE001  # an answer that cannot be stored is not cached
        packed = b""
    return replace(booking, answer=booking.answer if packed else None, document=packed)


def _failure_of(job: Job, error: Exception) -> ProviderError:
    """A provider's own error, or a bug met while sending: the file may have been paid for."""
    if isinstance(error, ProviderError):
        return error
    log.error("job.bug", folder=job.folder, path=job.path, exc_info=error)
    return AmbiguousFailure(INTERNAL_ERROR, INTERNAL_ERROR_WORDS)


def _spent_limit(job: Job, runtime: RuntimeConfig) -> tuple[str, str] | None:
    """(code, reason) of a reached limit on crashes, internal errors or ambiguous failures, if any."""
    limits = runtime.config.retry
    if job.crashes >= limits.max_crashes:
        return "crashed_daemon", f"the daemon ended {job.crashes} times in a row during it"
    if job.internal_errors >= MAX_INTERNAL_ERRORS:
        return INTERNAL_ERROR, INTERNAL_ERROR_WORDS
    if job.ambiguous >= limits.max_ambiguous:
        return "gave_up", f"sent whole {job.ambiguous} times without a usable answer"
    return None


def _unsendable(job: Job, runtime: RuntimeConfig, audio: AudioFile) -> AudioRejected | None:
    """The reason a file fails before it is sent, if any."""
    if audio.size_bytes == 0:
        return AudioRejected("empty_file", "the file is empty")
    most = runtime.config.providers[job.provider].max_upload_bytes
    # A rule that reads media may make it smaller, or not send it at all.
    if most is not None and audio.size_bytes > most and not runtime.rule(job.folder).reads_media:
        return AudioRejected("too_large", f"{audio.size_bytes} bytes; {job.provider} takes {most} at most")
    return link_refusal(audio, runtime.rule(job.folder), runtime.config.providers[job.provider])
