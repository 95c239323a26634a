"""Waits grow by doubling, and no counter, however large, breaks them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.core.retry import RetryLimits, backoff_seconds, crash_wait_seconds, retry_wait_seconds


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(-1, 5), (0, 5), (1, 5), (2, 10), (3, 20), (10, 2560), (11, 3600), (2**31, 3600)]
)
def test_waits_double_up_to_the_cap(attempt: int, seconds: float) -> None:
    """The first failure waits the first time, each further one twice as long, none longer than the cap."""
    assert backoff_seconds(5, attempt, 3600) == seconds


@given(
    attempt=st.integers(min_value=-(2**70), max_value=2**70),
    first=st.floats(min_value=1e-3, max_value=1e6),
    longest=st.floats(min_value=1e-3, max_value=1e9),
)
def test_every_wait_is_bounded(attempt: int, first: float, longest: float) -> None:
    """A counter that has grown for years gives a wait between the first and the longest, and no error."""
    assert min(first, longest) <= backoff_seconds(first, attempt, longest) <= longest


@pytest.mark.parametrize("count", [1200, 2**31, 2**63])
def test_counters_of_years_are_no_error(count: int) -> None:
    """A file that was cut off or refused for years still gets a wait."""
    limits = RetryLimits()
    assert crash_wait_seconds(limits, count) == 60.0
    assert retry_wait_seconds(limits, count, jitter=1.0) == limits.max_seconds
