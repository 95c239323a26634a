"""Failed attempts: a retry, another provider, a hold of the provider or the rule, or the end of the file.

While a hold lasts, its files stay in the inbox. One file at a time probes it, first after ``hold.first`` and
then less and less often, down to every ``hold.max``; the first good answer releases it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dropscribe.core.errors import AmbiguousFailure, AudioRejected, ProviderError, TemporaryFailure
from dropscribe.core.model import AttemptEnd, Hold, Job, Outcome, Retry, Scope, ScopeKind
from dropscribe.core.retry import GiveUp, PutOnHold, Verdict, decide_after, next_hold_seconds
from dropscribe.core.routing import next_after_refusal
from dropscribe.core.text.printing import duration_words
from dropscribe.pipeline.claims import Claim
from dropscribe.pipeline.results import Results
from dropscribe.providers.jobs import UNNAMED_STATE
from dropscribe.providers.transport.http import ANSWER_TOO_LARGE
from dropscribe.queue.engine import Engine
from dropscribe.service.reporter import Reporter

FILES_IN_A_ROW = 3
"""This many different files in a row that fail alike, with no success between, hold a provider or a rule."""

_OWN_CODES = frozenset({"empty_file", "crashed_daemon", "link_refused", "duplicate", "internal_error"})
"""Refusals by dropscribe itself: they hold for every provider."""


class Streaks:
    """Different files in a row with the same failure, which the key identifies."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, ...], set[int]] = {}

    def add(self, key: tuple[str, ...], job_id: int) -> bool:
        """Add one failure; returns whether ``FILES_IN_A_ROW`` different files have failed alike by now."""
        jobs = self._jobs.setdefault(key, set())
        jobs.add(job_id)
        return len(jobs) >= FILES_IN_A_ROW

    def clear(self, *prefix: str) -> None:
        """Forget every streak whose key begins with *prefix*."""
        for key in [key for key in self._jobs if key[: len(prefix)] == prefix]:
            del self._jobs[key]


@dataclass(slots=True)
class HoldPolicy:
    """Decides when a provider or a rule is held: counts failures in a row, holds, probes and releases."""

    queue: Engine
    reporter: Reporter
    _outages: Streaks = field(default_factory=Streaks)
    _refusals: Streaks = field(default_factory=Streaks)

    async def hold(self, claim: Claim, kind: ScopeKind, error: ProviderError) -> None:
        """Hold the provider or folder of a job, or lengthen its hold after a failed probe."""
        scope, times, now = _scope_of(claim.job, kind), claim.config.hold, self.queue.now()
        held = self.queue.holds.get(scope)
        if held and now < held.next_probe_at:
            return  # it was in flight when the hold began, so it is no probe
        wait_seconds = next_hold_seconds(
            held.wait_seconds if held else None, times.first_seconds, times.max_seconds
        )
        since = held.since if held else now
        hold = Hold(scope, error.code, error.reason, since, now + wait_seconds, wait_seconds)
        await self.queue.holds.hold(hold)
        if held is None:
            self.reporter.held(hold)

    async def succeeded(self, job: Job) -> None:
        """Release provider and folder, because a file of the folder was transcribed."""
        await self.answered(job)
        self._refusals.clear(job.folder)
        await self._release(_scope_of(job, ScopeKind.FOLDER))

    async def accepted(self, job: Job) -> None:
        """As :meth:`answered`, for a recording that the provider has taken and works on.

        That does not end a hold for jobs whose end the config does not name: all files would be taken.
        """
        hold = self.queue.holds.get(_scope_of(job, ScopeKind.PROVIDER))
        if hold is None or hold.code != UNNAMED_STATE:
            await self.answered(job)

    async def answered(self, job: Job) -> None:
        """Release the provider: it answered about a file, so it is reachable and accepts the key."""
        self._outages.clear(job.provider)
        await self._release(_scope_of(job, ScopeKind.PROVIDER))

    async def out_of_order(self, claim: Claim, error: ProviderError) -> bool:
        """Count a failure of the provider (no connection, 5xx, 429); returns whether it is held."""
        job = claim.job
        is_held = self.queue.holds.get(_scope_of(job, ScopeKind.PROVIDER)) is not None
        if is_held or self._outages.add((job.provider,), job.id):
            await self.hold(claim, ScopeKind.PROVIDER, error)
            return True
        return False

    async def refused(self, claim: Claim, error: ProviderError) -> bool:
        """Weigh a refusal that could be the file's or the rule's fault.

        Returns whether the file waits for its rule. An early probe does not: the refusal may be its own, and
        the next probe is another file. At the longest interval between probes the rule is at fault, and no
        more of its files fail.
        """
        job = claim.job
        if hold := self.queue.holds.get(_scope_of(job, ScopeKind.FOLDER)):
            is_early = hold.wait_seconds < claim.config.hold.max_seconds
            is_early_probe = is_early and self.queue.now() >= hold.next_probe_at
            await self.hold(claim, ScopeKind.FOLDER, error)
            return not is_early_probe
        status, words = str(error.status), _words_of(job, error)
        alike = (job.folder, job.provider, claim.settings, status, error.code, words)
        if self._refusals.add(alike, job.id):
            await self.hold(claim, ScopeKind.FOLDER, error)
            return True
        return False

    async def _release(self, scope: Scope) -> None:
        if self.queue.holds.get(scope) is None:
            return
        hold = await self.queue.holds.release(scope)
        if hold is not None:
            self.reporter.released(hold)


def _scope_of(job: Job, kind: ScopeKind) -> Scope:
    return Scope(kind, job.provider if kind is ScopeKind.PROVIDER else job.folder)


def _words_of(job: Job, error: ProviderError) -> str:
    """The reason without the file's name, numbers and ids, which differ from file to file."""
    name = os.path.splitext(os.fsdecode(os.path.basename(job.path)))[0]
    words = re.findall(r"\w+", error.reason.replace(name, " ").lower())
    return " ".join(word for word in words if not any(letter.isdigit() for letter in word))


@dataclass(slots=True)
class Failures:
    """Turns errors into outcomes."""

    queue: Engine
    holds: HoldPolicy
    results: Results
    jitter: Callable[[], float]  # 0..1

    async def outcome_of(self, claim: Claim, error: ProviderError, ended: AttemptEnd) -> Outcome:
        """The outcome of an attempt that ended with *error*."""
        verdict = decide_after(error, claim.job, ended, claim.config.retry, self.jitter())
        waiting = Retry(0.0, error.code, error.reason, replace(ended, counted=False))
        if await self._is_shared(claim, error, verdict):
            return waiting
        match verdict:
            case PutOnHold(kind):
                await self.holds.hold(claim, kind, error)
                return waiting
            case GiveUp(code):
                reason = error.reason
                if code != error.code:  # the limit ends it, and not this error
                    tried = duration_words(claim.config.retry.give_up_after_seconds)
                    reason = f"no transcript after {tried} of attempts and waits; the last one: {reason}"
                return await self._next_provider(claim, error, ended) or await self.results.reject(
                    claim, code, reason, ended
                )
            case Retry():
                return verdict

    async def reject_unsent(self, claim: Claim, error: AudioRejected) -> Outcome:
        """Refuse a file before anything of it is sent."""
        ended = AttemptEnd(0.0, code=error.code, reason=error.reason, counted=False)
        return await self._next_provider(claim, error, ended) or await self.results.reject(
            claim, error.code, error.reason, ended
        )

    async def _next_provider(self, claim: Claim, error: ProviderError, ended: AttemptEnd) -> Retry | None:
        """A retry at the next provider; None if there is none, or if *error* does not refuse the file."""
        is_about_file = isinstance(error, AudioRejected) and not error.maybe_rule
        if not is_about_file or error.code in _OWN_CODES or not claim.falls_back:
            return None
        rule = claim.rule
        refused = {provider for provider, _ in await self.results.refusals(claim)} | {claim.job.provider}
        passed_over = self.queue.holds.passed_over() if rule.fallback == "both" else ()
        following = next_after_refusal(rule.providers, refused, passed_over)
        if following is None:
            return None
        return Retry(0.0, error.code, error.reason, replace(ended, refused=True), ended.seconds, following)

    async def _is_shared(self, claim: Claim, error: ProviderError, verdict: Verdict) -> bool:
        """Whether other files have the same trouble, so that a provider or rule is held and the job waits.

        After an ambiguous failure the hold begins too, but the attempt counts: it may have been paid for.
        """
        if isinstance(error, TemporaryFailure | AmbiguousFailure):
            if isinstance(error, TemporaryFailure) and error.slows_provider and isinstance(verdict, Retry):
                # Not for the file's own wait, which grows: if it alone is answered so, others must not wait.
                pause_seconds = error.retry_after_seconds or claim.config.retry.first_seconds
                self.queue.rates.pause(claim.job.provider, pause_seconds)
            is_held = await self.holds.out_of_order(claim, error)
            return is_held and isinstance(error, TemporaryFailure)
        if isinstance(error, AudioRejected):
            await self.holds.answered(claim.job)
            waits = error.maybe_rule and await self.holds.refused(claim, error)
            # Such an answer was paid for, and would be paid for again.
            return waits and error.code != ANSWER_TOO_LARGE
        return False
