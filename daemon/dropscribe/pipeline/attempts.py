"""One attempt at one job: open the file, look for a known answer, send it, store the answer.

Guarantees: nothing on disk changes before the answer and its names are stored. An answer that has arrived is
stored, cached and charged before anything may discard it: a file that changed since it was sent is detected
when its result is published.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import cast

import structlog

from dropscribe.core.budget import AnswerKey, Booking
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
from dropscribe.core.model import (
    AtProvider,
    AttemptEnd,
    Job,
    Outcome,
    RemoteJob,
    ResultStored,
    Retry,
    ScopeKind,
    Withdrawn,
)
from dropscribe.core.naming import OutputPlan
from dropscribe.core.requests.params import ParamValue
from dropscribe.core.retry import (
    DUPLICATE,
    INTERNAL_ERROR,
    INTERNAL_ERROR_WORDS,
    MAX_INTERNAL_ERRORS,
    REUSED,
    backoff_seconds,
)
from dropscribe.core.text.printing import path_text, plural, utc_text
from dropscribe.files.audio import AudioFile
from dropscribe.files.crashpoint import reached
from dropscribe.intake.inboxes import Inboxes
from dropscribe.pipeline.budgets import Budgets
from dropscribe.pipeline.claims import Claim
from dropscribe.pipeline.disk_threads import DiskThreads, FolderHangs, PlaceChecks, error_words
from dropscribe.pipeline.failures import Failures, HoldPolicy
from dropscribe.pipeline.rendering import RenderError
from dropscribe.pipeline.results import Results
from dropscribe.providers.base import JobProvider, Provider, Unfinished
from dropscribe.providers.jobs import JOB_SECONDS, LONGEST_POLL_SECONDS, NO_RESULT, UNUSABLE_SECONDS
from dropscribe.publish.places import OpenRequest, PlaceRefused, open_together
from dropscribe.queue.engine import Engine
from dropscribe.queue.model import NOT_MOVABLE, CachedResult
from dropscribe.service.reporter import Reporter
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

    queue: Engine
    holds: HoldPolicy
    intake: Inboxes
    reporter: Reporter
    disks: DiskThreads
    checks: PlaceChecks
    results: Results
    budgets: Budgets
    failures: Failures
    sending: dict[int, AudioFile] = field(default_factory=dict)
    """Recordings with an attempt under way, by job id; their progress is read here."""
    _looks: Counter[int] = field(default_factory=Counter)

    async def make(self, claim: Claim) -> Outcome:
        """Transcribe a job once, unless its limits are reached or its answer is known."""
        job = claim.job
        if spent := _spent_limit(claim):
            return await self.results.reject(claim, *spent, AttemptEnd(0.0, counted=False))
        if job.remote is not None:
            return await self._poll(claim, job.remote)
        try:
            audio = await self._open(claim)
        except AudioError as error:
            return self._not_readable(job, error)
        except FolderHangs:
            return Retry(LOOK_AGAIN_SECONDS, "hangs", "its folder's disk does not answer")
        except OSError as error:
            if isinstance(error, PlaceRefused) and error.is_of_rule:
                self.checks.close_until_writable(claim, error_words(error))
            return self._disk_trouble(job, error)
        self._looks.pop(job.id, None)
        self.sending[job.id] = audio
        try:
            if unsent := claim.refusal_of(audio):
                outcome: Outcome = await self.failures.reject_unsent(claim, unsent)
            elif known := await self.results.find_answer(claim, audio):
                outcome = await self._answer_known(claim, audio, known)
            else:
                outcome = await self._send(claim, audio)
            if isinstance(outcome, ResultStored | AtProvider):
                self.results.ctimes_ns[job.id] = audio.snapshot.ctime_ns
            return outcome
        finally:
            self.sending.pop(job.id, None)
            # Closing a file of a mount that hangs blocks, as any other call into it.
            self.disks.post(job.folder, audio.close)

    async def _open(self, claim: Claim) -> AudioFile:
        """Open the recording, and look for names that are free in ``done``: publishing checks them again."""
        job, rule = claim.job, claim.rule
        done, plan = os.fsencode(rule.done), None
        # Names that depend on companions or on a template are known only with the answer.
        if not rule.companions and rule.template is None:
            plan = OutputPlan(done, job.path, tuple(rule.outputs), rule.sidecar_name)
        request = OpenRequest(claim.inbox, job.path, done, plan, self.disks.of(job.folder))
        opened = await self.disks.run_each(
            job.folder, open_together, request, lambda late: late.audio.close()
        )
        if not job.snapshot.same_audio(opened.audio.snapshot, stable_inodes=job.stable_inodes):
            self.disks.post(job.folder, opened.audio.close)
            raise AudioChanged(job.path, "changed since it settled")
        claim.free_names = opened.free
        return opened.audio

    def _not_readable(self, job: Job, error: AudioError) -> Outcome:
        """Outcome for audio that cannot be read: a retry if it is missing, else withdrawn."""
        self.intake.look_again(job.folder, job.path if isinstance(error, AudioChanged) else None)
        if isinstance(error, AudioMissing):
            return self._retry_unsent(job, "missing", "not at its place; the inbox is being listed")
        code = "unreadable" if isinstance(error, AudioForbidden) else "changed"
        ended = AttemptEnd(0.0, code=code, reason=error.reason, counted=False)
        return Withdrawn(error.reason, ended)

    def _disk_trouble(self, job: Job, error: OSError) -> Retry:
        """EIO, ESTALE, EMFILE: an error of the disk or of one sub-folder, not of the file or the provider."""
        self.intake.look_again(job.folder)
        is_of_place = isinstance(error, PlaceRefused) and not error.is_of_rule
        code, reason = NOT_MOVABLE if is_of_place else "disk_error", error_words(error)
        if not self._looks[job.id]:
            log.warning("file.not_sent", folder=job.folder, path=job.path, code=code, reason=reason)
        return self._retry_unsent(job, code, reason)

    def _retry_unsent(self, job: Job, code: str, reason: str) -> Retry:
        """Retry soon, then less and less often; no attempt was made."""
        self._looks[job.id] += 1
        first_seconds, longest_seconds = LOOK_AGAIN_SECONDS, LONGEST_LOOK_SECONDS
        if code == NOT_MOVABLE:
            first_seconds, longest_seconds = FIRST_PLACE_SECONDS, LONGEST_PLACE_SECONDS
        wait_seconds = backoff_seconds(first_seconds, self._looks[job.id], longest_seconds)
        return Retry(wait_seconds, code, reason)

    async def _answer_known(self, claim: Claim, audio: AudioFile, known: CachedResult) -> Outcome:
        """End the attempt with the *known* answer to the same content; nothing is sent."""
        place = path_text(known.filed) if known.filed else f"a file of {known.folder} that is not filed"
        # A name that is not UTF-8 has no place in a text column.
        place = place.encode("utf-8", "backslashreplace").decode()
        origin = f"{place}, answered {utc_text(known.kept_at)}"
        if claim.rule.duplicates == "skip":
            duplicate = AudioRejected(DUPLICATE, f"the same recording: {origin}")
            return await self.failures.reject_unsent(claim, duplicate)
        ended = AttemptEnd(0.0, code=REUSED, reason=origin, counted=False)
        try:
            document = await self.results.reused(claim, known.document, audio.sha256)
            return await self.results.store(claim, document, audio.sha256, ended)
        except RenderError as error:
            return await self._reject_unrendered(claim, error, audio.sha256, ended)

    async def _send(self, claim: Claim, audio: AudioFile) -> Outcome:
        job, began = claim.job, time.monotonic()
        try:
            answer = await self._ask(claim, audio)
        except AudioError as error:
            return self._not_readable(job, error)
        except OSError as error:
            return self._disk_trouble(job, error)
        except ProviderError as error:
            return await self._failed(claim, error, time.monotonic() - began)
        except Exception:  # a bug while sending is a failure of the attempt: the file may have been paid for
            log.exception("job.bug", folder=job.folder, path=job.path)
            bug = AmbiguousFailure(INTERNAL_ERROR, INTERNAL_ERROR_WORDS)
            return await self._failed(claim, bug, time.monotonic() - began)
        if isinstance(answer, AtProvider):
            return answer
        return await self._answered(claim, audio, answer, time.monotonic() - began)

    async def _poll(self, claim: Claim, remote: RemoteJob) -> Outcome:
        """Ask for the result of a provider's job.

        The recording is not looked at, so nothing that happens to it meanwhile loses the answer. A bug does
        not fail the job, which is polled again.
        """
        job, age_seconds = claim.job, max(0.0, self.queue.now() - remote.created_at)
        try:
            found = await poll(claim.runtime.providers[job.provider], remote, claim.params, age_seconds)
        except ProviderError as error:
            return await self._failed(claim, error, age_seconds)
        if isinstance(found, ProviderUnusable):
            await self.holds.hold(claim, ScopeKind.PROVIDER, found)
            return Retry(LONGEST_POLL_SECONDS, found.code, found.reason)
        if isinstance(found, Retry):
            return found
        if isinstance(found, AtProvider):
            await self.holds.accepted(job)
            return found
        return await self._answered(claim, remote, found, age_seconds)

    async def _ask(self, claim: Claim, audio: AudioFile) -> Transcript | AtProvider:
        job = claim.job
        provider = claim.runtime.providers[job.provider]
        # A rule that re-encodes recordings sends pieces, for which the row's single id is not enough.
        if _runs_jobs(type(provider)) and not (claim.rule.reads_media or claim.is_link):
            provider = cast("JobProvider", provider)
            job_id = await provider.start_job(audio, claim.params)
            await self.holds.accepted(job)
            with contextlib.suppress(AudioError, OSError):  # else publishing compares all but the content
                await audio.ensure_sha256()
            return AtProvider(job_id, provider.poll_seconds(0.0), audio.sha256)
        return await claim.runtime.transcribers[claim.rule.name, job.provider].transcribe(audio, claim.params)

    async def _failed(self, claim: Claim, failure: ProviderError, seconds: float) -> Outcome:
        reached("answered")
        ended = AttemptEnd(
            seconds,
            failure.status,
            failure.code,
            failure.reason,
            ambiguous=isinstance(failure, AmbiguousFailure),
        )
        self.reporter.attempt_ended(claim.job, ended)
        return await self.failures.outcome_of(claim, failure, ended)

    async def _answered(
        self, claim: Claim, sent: AudioFile | RemoteJob, transcript: Transcript, seconds: float
    ) -> Outcome:
        reached("answered")
        job, ended = claim.job, AttemptEnd(seconds, status=None)
        self.reporter.attempt_ended(job, ended)
        await self.holds.succeeded(job)
        audio = None if isinstance(sent, RemoteJob) else sent
        spending = await self.budgets.charge(claim, transcript, audio)
        try:
            sha256 = await audio.ensure_sha256() if audio else sent.sha256
        except (AudioChanged, OSError) as error:
            # The file changed during the upload: the bytes that were sent are not known.
            self.intake.look_again(job.folder, job.path)
            await self.budgets.spend(spending)
            return Withdrawn(str(error) or "changed while it was being transcribed", ended)
        is_reusable = sha256 and claim.keep_seconds and not transcript.missing
        key = AnswerKey(sha256, claim.settings) if is_reusable else None
        booking = Booking(key, claim.config.ledger_keep_seconds, spending)
        document: dict[str, object] | None = None
        try:
            document = await self.results.transcript(claim, transcript, sha256, ended.seconds)
            booking = await self.results.for_cache(booking, document, transcript)
            stored = await self.results.store(claim, document, sha256, ended, booking)
        except RenderError as error:
            booking = await asyncio.to_thread(_booking_of_unrendered, booking, document)
            stored = await self._reject_unrendered(claim, error, sha256, ended, booking)
        if spending:
            await self.budgets.audit()
        return stored

    async def _reject_unrendered(
        self, claim: Claim, error: RenderError, sha256: str, ended: AttemptEnd, booking: Booking | None = None
    ) -> ResultStored:
        """An answer exists that cannot be written as text; sending the file again would cost again."""
        log.error("job.bug", folder=claim.job.folder, path=claim.job.path, exc_info=error)
        return await self.results.reject(claim, INTERNAL_ERROR, INTERNAL_ERROR_WORDS, ended, sha256, booking)


async def poll(
    provider: Provider, remote: RemoteJob, params: Mapping[str, ParamValue], age_seconds: float
) -> Transcript | AtProvider | Retry | ProviderUnusable:
    """Ask for the result of a provider's job once; a failed poll is repeated until the provider can be asked.

    Args:
        age_seconds: How long the provider has had the job.

    Raises:
        ProviderError: The job is over without a result, or the provider does not finish it.
    """
    if not isinstance(provider, JobProvider):
        raise AmbiguousFailure("job_lost", "the provider is of another type now, and has no jobs")
    found = await provider.poll_job(remote.id, params)
    if not isinstance(found, Unfinished):
        return found
    if isinstance(found.error, ProviderUnusable):
        return found.error
    wait_seconds = provider.poll_seconds(age_seconds)
    error = found.error
    if error is not None and error.code == NO_RESULT and age_seconds > UNUSABLE_SECONDS:
        return ProviderUnusable(error.code, error.reason, status=error.status, request_id=error.request_id)
    # After days without a network the result may still be there: only the provider's own answers count.
    if age_seconds > JOB_SECONDS and (error is None or error.status is not None):
        last = f"; its last poll: {error.reason}" if error is not None else ""
        raise AmbiguousFailure("job_unfinished", f"not finished after {JOB_SECONDS / 3600:.0f} h{last}")
    if error is not None:
        asked_seconds = getattr(error, "retry_after_seconds", None) or 0.0
        return Retry(max(wait_seconds, asked_seconds), error.code, error.reason)
    return AtProvider(remote.id, wait_seconds)


@cache
def _runs_jobs(kind: type) -> bool:
    """Cached: a check against a protocol takes some 50 µs and is made for each file."""
    return issubclass(kind, JobProvider)


def _booking_of_unrendered(booking: Booking, document: dict[str, object] | None) -> Booking:
    """*booking* with the answer itself, so that a later version can render it without paying again."""
    try:
        packed = booking.document or (json.dumps(document).encode() if document else b"")
    except Exception:  # noqa: BLE001  # an answer that cannot be stored is not cached
        packed = b""
    return replace(booking, answer=booking.answer if packed else None, document=packed)


def _spent_limit(claim: Claim) -> tuple[str, str] | None:
    """(code, reason) of a reached limit on crashes, internal errors or ambiguous failures, if any."""
    job, limits = claim.job, claim.config.retry
    if job.crashes >= limits.max_crashes:
        return "crashed_daemon", f"the daemon ended {plural(job.crashes, 'time')} in a row during it"
    if job.internal_errors >= MAX_INTERNAL_ERRORS:
        return INTERNAL_ERROR, INTERNAL_ERROR_WORDS
    if job.ambiguous >= limits.max_ambiguous:
        return "gave_up", f"sent whole {plural(job.ambiguous, 'time')} without a usable answer"
    return None
