"""Decides the consequence of a failed attempt: a retry at some time, failure, or a hold.

The decision depends on the kind of the error, never on its wording. Pure: jitter comes in as an argument.
Every exponential backoff of the daemon that counts failures uses :func:`backoff_seconds`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderError,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from dropscribe.core.model import AttemptEnd, Job, Retry, ScopeKind

LONGEST_RETRY_AFTER_SECONDS = 3600.0  # a provider that asks for a longer pause is tried again after this time
REUSED = "reused"  # the code of an attempt that sent nothing, because the answer was known
DUPLICATE = "duplicate"  # the code of a file that failed for that reason, under ``duplicates: skip``
INTERNAL_ERROR = "internal_error"  # the code of a failure that is caused by a bug in dropscribe
INTERNAL_ERROR_WORDS = "a bug in dropscribe; its log has the details"

MAX_INTERNAL_ERRORS = 3  # after this many internal errors a file goes to ``failed``


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """The config's ``retry`` section: seconds, and counts of at least 1."""

    first_seconds: float = 5.0
    max_seconds: float = 3600.0
    give_up_after_seconds: float = 5 * 86400.0
    max_ambiguous: int = 3
    max_crashes: int = 10


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The file goes to ``failed`` with this code."""

    code: str


@dataclass(frozen=True, slots=True)
class PutOnHold:
    """The provider or rule is held; the file waits and its attempt is given back."""

    kind: ScopeKind


Verdict = Retry | GiveUp | PutOnHold


def backoff_seconds(first_seconds: float, attempt: int, longest_seconds: float) -> float:
    """The wait after the *attempt*-th failure in a row: ``first · 2^(attempt - 1)``, at most the longest.

    *attempt* is 1-based and may have any size; 0 and less count as 1.
    """
    doublings = min(max(attempt - 1, 0), 64)  # a larger exponent would overflow a float
    return min(longest_seconds, first_seconds * 2.0**doublings)


def retry_wait_seconds(limits: RetryLimits, failures: int, jitter: float) -> float:
    """The wait after the *failures*-th failure in a row (1-based).

    *jitter* (0 to 1) scales the last fifth of it. That is enough to avoid a thundering herd, and little
    enough for ``status`` to show a time.
    """
    whole = backoff_seconds(limits.first_seconds, failures, limits.max_seconds)
    return whole * (0.8 + 0.2 * jitter)


def decide_after(
    error: ProviderError, job: Job, ended: AttemptEnd, limits: RetryLimits, jitter: float
) -> Verdict:
    """The verdict on the attempt of *job* that *ended* with *error*; a retry's wait counts as spent."""
    if isinstance(error, ProviderUnusable | RuleRejected):
        return PutOnHold(ScopeKind.FOLDER if isinstance(error, RuleRejected) else ScopeKind.PROVIDER)
    is_ambiguous = isinstance(error, AmbiguousFailure)
    if isinstance(error, AudioRejected) or (is_ambiguous and job.ambiguous + 1 >= limits.max_ambiguous):
        return GiveUp(error.code)
    left_seconds = limits.give_up_after_seconds - job.spent_seconds - ended.seconds
    if left_seconds <= 0:
        return GiveUp("gave_up")
    wait_seconds = retry_wait_seconds(limits, job.attempts, jitter)
    asked_seconds = None
    # Where the provider is paused instead, another one of a list may take the file meanwhile.
    if isinstance(error, TemporaryFailure) and not error.slows_provider:
        asked_seconds = error.retry_after_seconds
    if asked_seconds is not None:
        wait_seconds = max(wait_seconds, min(asked_seconds, LONGEST_RETRY_AFTER_SECONDS))
    else:  # the last attempt is made when the time is up, not up to an hour earlier
        wait_seconds = min(wait_seconds, left_seconds)
    spent_seconds = ended.seconds + wait_seconds
    # After an ambiguous attempt a file stays with its provider: it may have been paid for there.
    provider = job.provider if is_ambiguous else ""
    return Retry(wait_seconds, error.code, error.reason, ended, spent_seconds, provider)


def crash_wait_seconds(limits: RetryLimits, crashes: int) -> float:
    """The wait of a file whose attempts were interrupted *crashes* times in a row by the end of the daemon.

    The first retries are immediate, because the file was probably not the cause. From the third on the file
    waits, at most 60 s, so that a file which crashes the daemon does not keep the others from finishing.
    """
    return 0.0 if crashes < 3 else backoff_seconds(limits.first_seconds, crashes - 2, 60.0)


def next_hold_seconds(previous_seconds: float | None, first_seconds: float, max_seconds: float) -> float:
    """The wait before the next probe: *first*, doubling to *max*."""
    return first_seconds if previous_seconds is None else min(max_seconds, previous_seconds * 2)
