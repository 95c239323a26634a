"""Exponential backoff, the only formula for it in this code base."""

from __future__ import annotations

_LARGEST_EXPONENT = 64
"""Beyond this many doublings every longest wait is reached; a larger exponent would overflow a float."""


def backoff_seconds(first_seconds: float, attempt: int, longest_seconds: float) -> float:
    """The wait after the *attempt*-th failure in a row.

    Args:
        first_seconds: The wait after the first failure.
        attempt: 1-based; 0 and less count as 1. Any size is allowed.
        longest_seconds: The cap.

    Returns:
        ``first · 2^(attempt - 1)``, at most *longest_seconds*.
    """
    doublings = min(max(attempt - 1, 0), _LARGEST_EXPONENT)
    return min(longest_seconds, first_seconds * 2.0**doublings)
