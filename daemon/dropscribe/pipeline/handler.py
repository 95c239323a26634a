"""One job, one step further: the engine's handler.

Guarantees: safe to call again from any point. Nothing on disk changes before the answer and the chosen
names are kept; nothing is kept for audio that changed while it was read.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dropscribe.core.backoff import backoff_seconds
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioChanged,
    AudioError,
    AudioForbidden,
    AudioMissing,
    AudioRejected,
    ProviderError,
    TemporaryFailure,
)
from dropscribe.core.model import AttemptEnd, Booking, Job, ResultStored, Retry, ScopeKind, Withdrawn
from dropscribe.core.retry import GiveUp, History, HoldUp, TryAgain, Verdict, decide_after
from dropscribe.files.audio import AudioFile
from dropscribe.files.crashpoint import reached
from dropscribe.pipeline.deduplication import REUSED, answer_key, duplicate_of, origin_words, settings_of
from dropscribe.pipeline.links import link_refusal
from dropscribe.pipeline.observer import AttemptReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.core.model import Outcome
    from dropscribe.pipeline.budgets import Budgets
    from dropscribe.pipeline.deduplication import Reuse
    from dropscribe.pipeline.fallback import Fallback
    from dropscribe.pipeline.holds import Holds
    from dropscribe.pipeline.observer import Observer
    from dropscribe.pipeline.publisher import Publisher
    from dropscribe.pipeline.results import Answers
    from dropscribe.pipeline.runtime_config import DiskThreads, IntakeSide, RuntimeConfig
    from dropscribe.queue.engine import CachedResult, Engine
    from dropscribe.transcripts.model import Transcript

LOOK_AGAIN_SECONDS = 2.0
"""How soon a job whose file cannot be read is looked at again, while the intake lists the inbox."""

LONGEST_LOOK_SECONDS = 60.0


@dataclass(slots=True)
class Handler:
    """Implements the queue's two callbacks: :meth:`attempt` and :meth:`publish`.

    Attributes:
        setup: Replaced at a reload; a job keeps the one it began with.
        jitter: Returns 0..1.
    """

    setup: RuntimeConfig
    queue: Engine
    holds: Holds
    intake: IntakeSide
    observer: Observer
    disks: DiskThreads
    answers: Answers
    publisher: Publisher
    reuse: Reuse
    fallback: Fallback
    budgets: Budgets
    jitter: Callable[[], float]
    _looks: Counter[int] = field(default_factory=Counter)

    async def publish(self, job: Job) -> Outcome:
        """See :data:`dropscribe.queue.engine.PublishJob`."""
        return await self.publisher.publish(job, self.setup)

    async def attempt(self, job: Job) -> Outcome:
        """See :data:`dropscribe.queue.engine.AttemptJob`."""
        try:
            return await self._attempt(job, self.setup)
        finally:
            self.answers.forget(job)

    async def _attempt(self, job: Job, setup: RuntimeConfig) -> Outcome:
        if job.crashes >= setup.limits.max_crashes:
            error = AudioRejected(
                "crashed_daemon", f"the daemon ended {job.crashes} times in a row during it"
            )
            return await self._reject(job, setup, error, AttemptEnd(0.0))
        try:
            audio = await self._open(job, setup)
        except AudioError as error:
            return self._not_readable(job, error)
        except OSError as error:
            return self._disk_trouble(job, error)
        self._looks.pop(job.id, None)
        with audio:
            if unsent := _unsendable(job, setup, audio):
                return await self._reject_unsent(job, setup, unsent)
            if known := await self.reuse.find(job, setup, audio):
                return await self._answer_known(job, setup, audio, known)
            return await self._send(job, setup, audio)

    async def _open(self, job: Job, setup: RuntimeConfig) -> AudioFile:
        threads = self.disks.of(job.folder)

        def open_and_foresee() -> AudioFile:
            self.answers.reserve_names(job, setup)
            return AudioFile.open(setup.inbox(job.folder), job.path, threads)

        audio = await self.disks.run(job.folder, open_and_foresee)
        if not job.snapshot.same_audio(audio.snapshot, stable_inodes=job.stable_inodes):
            audio.close()
            raise AudioChanged(job.path, "changed since it settled")
        return audio

    def _not_readable(self, job: Job, error: AudioError) -> Outcome:
        """Not a failure of the audio: the intake finds out what is there now."""
        self.intake.look_again(job.folder)
        if isinstance(error, AudioMissing):
            return self._retry_unsent(job, "missing", "not at its place; the inbox is being listed")
        if isinstance(error, AudioChanged):
            self.intake.distrust(job.folder, job.path)
        code = "unreadable" if isinstance(error, AudioForbidden) else "changed"
        ended = AttemptEnd(0.0, code=code, reason=error.reason, counted=False)
        return Withdrawn(error.reason, ended)

    def _disk_trouble(self, job: Job, error: OSError) -> Outcome:
        """EIO, ESTALE, EMFILE: the disk's trouble, neither the file's nor the provider's."""
        self.intake.look_again(job.folder)
        return self._retry_unsent(job, "disk_error", error.strerror or str(error))

    def _retry_unsent(self, job: Job, code: str, reason: str) -> Retry:
        """Look again soon, then less and less often; no attempt was made."""
        self._looks[job.id] += 1
        wait_seconds = backoff_seconds(LOOK_AGAIN_SECONDS, self._looks[job.id], LONGEST_LOOK_SECONDS)
        return Retry(wait_seconds, code, reason)

    async def _answer_known(
        self, job: Job, setup: RuntimeConfig, audio: AudioFile, known: CachedResult
    ) -> Outcome:
        """This content was paid for before: nothing is sent."""
        if setup.rule(job.folder).duplicates == "skip":
            return await self._reject_unsent(job, setup, duplicate_of(known))
        document = self.answers.reused(
            job, setup, json.loads(known.document), audio.sha256, await self.fallback.refusals(job, setup)
        )
        ended = AttemptEnd(0.0, code=REUSED, reason=origin_words(known), counted=False)
        return ResultStored(await self.answers.keep(job, setup, document, audio.sha256, ended))

    async def _send(self, job: Job, setup: RuntimeConfig, audio: AudioFile) -> Outcome:
        began = time.monotonic()
        try:
            params = setup.rule(job.folder).params_for(job.provider)
            transcript = await setup.provider(job).transcribe(audio, params)
        except ProviderError as error:
            reached("answered")
            ended = _ended(error, time.monotonic() - began)
            self._report(job, ended)
            return await self._failed(job, setup, error, ended)
        except AudioError as error:
            return self._not_readable(job, error)
        except OSError as error:
            return self._disk_trouble(job, error)
        reached("answered")
        ended = AttemptEnd(time.monotonic() - began, status=None)
        self._report(job, ended)
        return await self._answered(job, setup, audio, transcript, ended)

    async def _answered(
        self, job: Job, setup: RuntimeConfig, audio: AudioFile, transcript: Transcript, ended: AttemptEnd
    ) -> Outcome:
        await self.holds.succeeded(job, settings_of(job, setup))
        try:
            sha256 = await audio.ensure_sha256()
        except AudioChanged as error:
            return self._changed_meanwhile(job, error.reason, ended)
        except OSError as error:
            return self._disk_trouble(job, error)
        if not _is_unchanged(audio):
            return self._changed_meanwhile(job, "changed while it was being transcribed", ended)
        refusals = await self.fallback.refusals(job, setup)
        document = self.answers.transcript(job, setup, transcript, sha256, ended.seconds, refusals)
        booking = Booking(
            answer_key(job, setup, transcript, sha256),
            setup.config.ledger_keep_seconds,
            await self.budgets.charge(job, setup, transcript, audio),
        )
        kept = await self.answers.keep(job, setup, document, sha256, ended, booking)
        if booking.spending:
            await self.budgets.audit()
        return ResultStored(kept)

    def _changed_meanwhile(self, job: Job, reason: str, ended: AttemptEnd) -> Outcome:
        self.intake.distrust(job.folder, job.path)
        self.intake.look_again(job.folder)
        return Withdrawn(reason, ended)

    async def _failed(
        self, job: Job, setup: RuntimeConfig, error: ProviderError, ended: AttemptEnd
    ) -> Outcome:
        history = History(job.attempts, job.ambiguous, job.spent_seconds + ended.seconds)
        verdict = decide_after(error, history, setup.limits, self.jitter())
        verdict = await self._weigh(job, setup, error, verdict)
        match verdict:
            case HoldUp(kind):
                name = job.provider if kind is ScopeKind.PROVIDER else job.folder
                await self.holds.hold(kind, name, error)
                return Retry(0.0, error.code, error.reason, _uncounted(ended))
            case GiveUp(code):
                onward = await self.fallback.onward(job, setup, error, ended)
                return onward or await self._reject(job, setup, error, ended, code)
            case TryAgain():
                return self._again(job, error, verdict, ended)

    async def _weigh(self, job: Job, setup: RuntimeConfig, error: ProviderError, verdict: Verdict) -> Verdict:
        """What the neighbours' failures say: the same trouble over several files is not the files'."""
        if isinstance(error, TemporaryFailure | AmbiguousFailure):
            if isinstance(error, TemporaryFailure) and error.slows_provider and isinstance(verdict, TryAgain):
                self.queue.pause_provider(job.provider, error.retry_after_seconds or verdict.after_seconds)
            was_held = await self.holds.out_of_order(job, error)
            if was_held and isinstance(error, TemporaryFailure):
                return HoldUp(ScopeKind.PROVIDER)
        elif isinstance(error, AudioRejected):
            await self.holds.answered(job)
            if error.maybe_rule and await self.holds.refused(job, error, settings_of(job, setup)):
                return HoldUp(ScopeKind.FOLDER)
        return verdict

    def _again(self, job: Job, error: ProviderError, verdict: TryAgain, ended: AttemptEnd) -> Outcome:
        pin = job.provider if verdict.ambiguous else ""
        spent_seconds = ended.seconds + verdict.after_seconds
        counted = AttemptEnd(
            ended.seconds, ended.status, ended.code, ended.reason, ambiguous=verdict.ambiguous
        )
        return Retry(verdict.after_seconds, error.code, error.reason, counted, spent_seconds, pin)

    async def _reject(
        self, job: Job, setup: RuntimeConfig, error: ProviderError, ended: AttemptEnd, code: str = ""
    ) -> Outcome:
        document = await self.answers.error(job, code or error.code, error.reason, ended)
        kept = await self.answers.keep(job, setup, document, "", ended)
        return ResultStored(kept)

    async def _reject_unsent(self, job: Job, setup: RuntimeConfig, error: AudioRejected) -> Outcome:
        ended = AttemptEnd(0.0, code=error.code, reason=error.reason, counted=False)
        onward = await self.fallback.onward(job, setup, error, ended)
        return onward or await self._reject(job, setup, error, ended)

    def _report(self, job: Job, ended: AttemptEnd) -> None:
        self.observer.attempt_ended(
            AttemptReport(
                job.folder,
                job.path,
                job.provider,
                ended.seconds,
                job.snapshot.size_bytes,
                ended.code,
                ended.status,
                ended.reason,
            )
        )


def _is_unchanged(audio: AudioFile) -> bool:
    """True too where the disk cannot say now: the answer is paid for, and publishing looks again."""
    try:
        return audio.recheck()
    except OSError:
        return True


def _ended(error: ProviderError, seconds: float) -> AttemptEnd:
    return AttemptEnd(seconds, error.status, error.code, error.reason)


def _uncounted(ended: AttemptEnd) -> AttemptEnd:
    return AttemptEnd(ended.seconds, ended.status, ended.code, ended.reason, counted=False)


def _unsendable(job: Job, setup: RuntimeConfig, audio: AudioFile) -> AudioRejected | None:
    """Why the file is failed before anything is sent, if it is."""
    if audio.size_bytes == 0:
        return AudioRejected("empty_file", "the file is empty")
    most = setup.config.providers[job.provider].max_upload_bytes
    # A rule that reads media may make it smaller, or not send it at all.
    if most is not None and audio.size_bytes > most and not setup.rule(job.folder).reads_media:
        return AudioRejected("too_large", f"{audio.size_bytes} bytes; {job.provider} takes {most} at most")
    return link_refusal(audio, setup.rule(job.folder), setup.config.providers[job.provider])
