"""Turns a failed attempt into a retry, a change of provider, a hold, or the end of the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dropscribe.core.errors import AmbiguousFailure, AudioRejected, TemporaryFailure
from dropscribe.core.model import AttemptEnd, Retry, Scope, ScopeKind
from dropscribe.core.retry import GiveUp, History, PutOnHold, TryAgain, decide_after
from dropscribe.core.routing import next_after_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.core.errors import ProviderError
    from dropscribe.core.model import Job, Outcome
    from dropscribe.core.retry import Verdict
    from dropscribe.pipeline.holds import Holds
    from dropscribe.pipeline.results import Results
    from dropscribe.pipeline.runtime_config import Claim
    from dropscribe.queue.engine import Engine


_OURS = frozenset({"empty_file", "crashed_daemon", "link_refused", "duplicate", "internal_error"})
"""Refusals by dropscribe itself: they hold for every provider."""


@dataclass(slots=True)
class Failures:
    """Turns errors into outcomes.

    Attributes:
        jitter: Returns 0..1.
    """

    queue: Engine
    holds: Holds
    results: Results
    jitter: Callable[[], float]

    async def outcome_of(self, claim: Claim, error: ProviderError, ended: AttemptEnd) -> Outcome:
        """The outcome of an attempt that ended with *error*."""
        job = claim.job
        history = History(job.attempts, job.ambiguous, job.spent_seconds + ended.seconds)
        verdict = decide_after(error, history, claim.config.retry, self.jitter())
        waiting = Retry(0.0, error.code, error.reason, replace(ended, counted=False))
        if await self._is_shared(claim, error, verdict):
            return waiting
        match verdict:
            case PutOnHold(kind):
                await self.holds.hold(claim, kind, error)
                return waiting
            case GiveUp(code):
                return await self._next_provider(claim, error, ended) or await self.results.reject(
                    claim, code, error.reason, ended
                )
            case TryAgain() as again:
                return _retry(job, error, again, ended)

    async def reject_unsent(self, claim: Claim, error: AudioRejected) -> Outcome:
        """Refuse a file before anything of it is sent."""
        ended = AttemptEnd(0.0, code=error.code, reason=error.reason, counted=False)
        return await self._next_provider(claim, error, ended) or await self.results.reject(
            claim, error.code, error.reason, ended
        )

    async def _next_provider(self, claim: Claim, error: ProviderError, ended: AttemptEnd) -> Retry | None:
        """A retry at the next provider; None if there is none, or if *error* does not refuse the file."""
        if not isinstance(error, AudioRejected) or error.maybe_rule or error.code in _OURS:
            return None
        rule = claim.rule
        if not claim.falls_back:
            return None
        refused = {provider for provider, _ in await self.results.refusals(claim)} | {claim.job.provider}
        held = {name for name in rule.providers if self._is_held(name)} if rule.fallback == "both" else set()
        following = next_after_refusal(rule.providers, refused, held)
        if following is None:
            return None
        return Retry(0.0, error.code, error.reason, replace(ended, refused=True), ended.seconds, following)

    def _is_held(self, provider: str) -> bool:
        scope = Scope(ScopeKind.PROVIDER, provider)
        return self.queue.holds.get(scope) is not None or self.queue.holds.is_stopped(scope)

    async def _is_shared(self, claim: Claim, error: ProviderError, verdict: Verdict) -> bool:
        """Whether other files have the same trouble, so that a provider or rule is held and the job waits.

        After an ambiguous failure the hold begins too, but the attempt counts: it may have been paid for.
        """
        if isinstance(error, TemporaryFailure | AmbiguousFailure):
            if isinstance(error, TemporaryFailure) and error.slows_provider and isinstance(verdict, TryAgain):
                pause_seconds = error.retry_after_seconds or verdict.after_seconds
                self.queue.rates.pause(claim.job.provider, pause_seconds)
            is_held = await self.holds.out_of_order(claim, error)
            return is_held and isinstance(error, TemporaryFailure)
        if isinstance(error, AudioRejected):
            await self.holds.answered(claim.job)
            return error.maybe_rule and await self.holds.refused(claim, error)
        return False


def _retry(job: Job, error: ProviderError, again: TryAgain, ended: AttemptEnd) -> Retry:
    # After an ambiguous attempt a file stays with its provider: it may have been paid for there.
    provider = job.provider if again.ambiguous else ""
    spent_seconds = ended.seconds + again.after_seconds
    counted = replace(ended, ambiguous=again.ambiguous)
    return Retry(again.after_seconds, error.code, error.reason, counted, spent_seconds, provider)
