"""What follows a failed attempt."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from dropscribe.core.model import AttemptEnd, Retry, ScopeKind
from dropscribe.core.retry import (
    GiveUp,
    PutOnHold,
    RetryLimits,
    crash_wait_seconds,
    decide_after,
    next_hold_seconds,
    retry_wait_seconds,
)

LIMITS = RetryLimits()


def job_after(attempts, ambiguous, spent_seconds):
    """The fields of a job that count."""
    return SimpleNamespace(attempts=attempts, ambiguous=ambiguous, spent_seconds=spent_seconds, provider="p")


@pytest.mark.parametrize(
    ("error", "job", "verdict"),
    [
        (TemporaryFailure("http_500"), job_after(1, 0, 1.0), (5.0, "")),
        (TemporaryFailure("http_500"), job_after(3, 0, 30.0), (20.0, "")),
        (TemporaryFailure("http_429", retry_after_seconds=90.0), job_after(1, 0, 1.0), (90.0, "")),
        (TemporaryFailure("http_429", retry_after_seconds=1.0), job_after(1, 0, 1.0), (5.0, "")),
        (TemporaryFailure("http_429", retry_after_seconds=1e9), job_after(1, 0, 1.0), (3600.0, "")),
        (
            TemporaryFailure("http_429", retry_after_seconds=90.0, slows_provider=True),
            job_after(1, 0, 1.0),
            (5.0, ""),
        ),
        (TemporaryFailure("http_500"), job_after(99, 0, 5 * 86400.0 - 10), (10.0, "")),
        (TemporaryFailure("http_500"), job_after(99, 0, 5 * 86400.0), GiveUp("gave_up")),
        (AmbiguousFailure("no_answer"), job_after(1, 0, 1.0), (5.0, "p")),
        (AmbiguousFailure("no_answer"), job_after(3, 2, 1.0), GiveUp("no_answer")),
        (AudioRejected("too_long"), job_after(1, 0, 1.0), GiveUp("too_long")),
        (RuleRejected("bad_param"), job_after(1, 0, 1.0), PutOnHold(ScopeKind.FOLDER)),
        (ProviderUnusable("unauthorized"), job_after(9, 0, 1e9), PutOnHold(ScopeKind.PROVIDER)),
    ],
)
def test_the_verdict_follows_the_kind_of_the_error(error, job, verdict):
    """Time is for temporary failures, tries at one provider for ambiguous ones; account trouble ends none."""
    found = decide_after(error, job, AttemptEnd(0.0), LIMITS, jitter=1.0)
    assert ((found.after_seconds, found.assigned_provider) if isinstance(found, Retry) else found) == verdict


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_backoff_stays_between_first_and_max(failures, jitter):
    """No wait is shorter than four fifths of the first nor longer than the maximum."""
    wait = retry_wait_seconds(LIMITS, failures, jitter)

    assert 0.8 * LIMITS.first_seconds <= wait <= LIMITS.max_seconds


def test_a_probe_doubles_to_its_maximum():
    """hold.first, doubling to hold.max."""
    waits = [None]
    for _ in range(7):
        waits.append(next_hold_seconds(waits[-1], 30.0, 900.0))

    assert waits[1:] == [30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0]


def test_a_file_that_was_in_flight_at_a_crash_goes_at_once_at_first():
    """Two crashes say nothing about a file; from the third on it steps aside, a minute at most."""
    assert [crash_wait_seconds(LIMITS, crashes) for crashes in (1, 2, 3, 4, 9)] == [0, 0, 5.0, 10.0, 60.0]
