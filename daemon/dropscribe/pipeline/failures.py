"""Turns a failed attempt into a retry, a change of provider, a hold, or the end of the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dropscribe.core.errors import AmbiguousFailure, AudioRejected, TemporaryFailure
from dropscribe.core.model import AttemptEnd, ResultStored, Retry, Scope, ScopeKind
from dropscribe.core.retry import GiveUp, History, PutOnHold, TryAgain, decide_after
from dropscribe.core.routing import next_after_refusal
from dropscribe.queue.sql.rows import read_attempts

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.core.errors import ProviderError
    from dropscribe.core.model import Job, Outcome
    from dropscribe.core.retry import Verdict
    from dropscribe.pipeline.holds import Holds
    from dropscribe.pipeline.results import Results
    from dropscribe.pipeline.runtime_config import RuntimeConfig
    from dropscribe.queue.engine import Engine


_OURS = frozenset({"empty_file", "crashed_daemon", "link_refused", "duplicate", "internal_error"})
"""Refusals by dropscribe itself: they hold for every provider."""


class Fallback:
    """Finds the next provider for a file that others have refused."""

    def __init__(self, queue: Engine) -> None:
        self._queue = queue

    async def next_provider(
        self, job: Job, runtime: RuntimeConfig, error: ProviderError, ended: AttemptEnd
    ) -> Retry | None:
        """A retry at the next provider; None if there is none, or if *error* does not refuse the file."""
        if not isinstance(error, AudioRejected) or error.maybe_rule or error.code in _OURS:
            return None
        if not _falls_back(job, runtime):
            return None
        rule = runtime.rule(job.folder)
        refused = {provider for provider, _ in await self.refusals(job, runtime)} | {job.provider}
        held = {name for name in rule.providers if self._is_held(name)} if rule.fallback == "both" else set()
        following = next_after_refusal(rule.providers, refused, held)
        if following is None:
            return None
        told = replace(ended, refused=True)
        return Retry(0.0, error.code, error.reason, told, ended.seconds, following)

    async def refusals(self, job: Job, runtime: RuntimeConfig) -> list[tuple[str, str]]:
        """(provider, code) of the refusals so far, in order."""
        if not _falls_back(job, runtime):
            return []
        attempts = await self._queue.database.do(lambda db: read_attempts(db, job.id))
        return [(tried.provider, tried.code) for tried in attempts if tried.refused]

    def _is_held(self, provider: str) -> bool:
        scope = Scope(ScopeKind.PROVIDER, provider)
        return self._queue.holds.get(scope) is not None or self._queue.holds.is_stopped(scope)


@dataclass(slots=True)
class Failures:
    """Turns errors into outcomes.

    Attributes:
        jitter: Returns 0..1.
    """

    queue: Engine
    holds: Holds
    fallback: Fallback
    results: Results
    jitter: Callable[[], float]

    async def outcome_of(
        self, job: Job, runtime: RuntimeConfig, error: ProviderError, ended: AttemptEnd
    ) -> Outcome:
        """The outcome of an attempt that ended with *error*."""
        history = History(job.attempts, job.ambiguous, job.spent_seconds + ended.seconds)
        verdict = decide_after(error, history, runtime.config.retry, self.jitter())
        waiting = Retry(0.0, error.code, error.reason, replace(ended, counted=False))
        if await self._is_shared(job, runtime, error, verdict):
            return waiting
        match verdict:
            case PutOnHold(kind):
                name = job.provider if kind is ScopeKind.PROVIDER else job.folder
                await self.holds.hold(kind, name, error, runtime.config.hold)
                return waiting
            case GiveUp(code):
                onward = await self.fallback.next_provider(job, runtime, error, ended)
                return onward or await self.reject(job, runtime, code, error.reason, ended)
            case TryAgain() as again:
                return _retry(job, error, again, ended)

    async def reject_unsent(self, job: Job, runtime: RuntimeConfig, error: AudioRejected) -> Outcome:
        """Refuse a file before anything of it is sent."""
        ended = AttemptEnd(0.0, code=error.code, reason=error.reason, counted=False)
        onward = await self.fallback.next_provider(job, runtime, error, ended)
        return onward or await self.reject(job, runtime, error.code, error.reason, ended)

    async def reject(
        self, job: Job, runtime: RuntimeConfig, code: str, reason: str, ended: AttemptEnd
    ) -> Outcome:
        """End the file: it goes to ``failed`` with *code* and *reason*."""
        document = await self.results.error(job, code, reason, ended)
        return ResultStored(await self.results.store(job, runtime, document, "", ended))

    async def _is_shared(
        self, job: Job, runtime: RuntimeConfig, error: ProviderError, verdict: Verdict
    ) -> bool:
        """Whether other files have the same trouble, so that their provider or rule is held, and *job* waits.

        After an ambiguous failure the hold begins too, but the attempt counts: it may have been paid for.
        """
        hold = runtime.config.hold
        if isinstance(error, TemporaryFailure | AmbiguousFailure):
            if isinstance(error, TemporaryFailure) and error.slows_provider and isinstance(verdict, TryAgain):
                pause_seconds = error.retry_after_seconds or verdict.after_seconds
                self.queue.rates.pause(job.provider, pause_seconds)
            is_held = await self.holds.out_of_order(job, error, hold)
            return is_held and isinstance(error, TemporaryFailure)
        if isinstance(error, AudioRejected):
            await self.holds.answered(job)
            return error.maybe_rule and await self.holds.refused(job, error, runtime.settings(job), hold)
        return False


def _retry(job: Job, error: ProviderError, again: TryAgain, ended: AttemptEnd) -> Retry:
    # After an ambiguous attempt a file stays with its provider: it may have been paid for there.
    provider = job.provider if again.ambiguous else ""
    spent_seconds = ended.seconds + again.after_seconds
    counted = replace(ended, ambiguous=again.ambiguous)
    return Retry(again.after_seconds, error.code, error.reason, counted, spent_seconds, provider)


def _falls_back(job: Job, runtime: RuntimeConfig) -> bool:
    rule = runtime.rule(job.folder)
    return rule.fallback != "held" and len(rule.providers) > 1
