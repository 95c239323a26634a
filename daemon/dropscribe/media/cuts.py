"""Finds cuts for a long recording: between words, in pieces of about the same length.

Guarantees: pure; the same loudness gives the same cuts, so that what was paid for a piece is found again;
no piece is longer than the limit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SEARCH_SECONDS = 60.0
"""Distance around its target within which a cut looks for a pause; less in short pieces."""

_PAUSE_WINDOWS = 5
"""A cut wants half a second of quiet: the gap inside a word's plosive is shorter."""


def decide_cuts(
    loudness: Sequence[float], window_seconds: float, seconds: float, longest_seconds: float
) -> list[float]:
    """Seconds at which to cut; [] where the whole is not longer than *longest_seconds*.

    Args:
        loudness: Mean square of each window, from the start on.
        window_seconds: A window's length.
        seconds: The whole length.
        longest_seconds: Of a piece; more than a few windows.
    """
    cuts: list[float] = []
    start = 0.0
    while seconds - start > longest_seconds:
        left = math.ceil((seconds - start) / longest_seconds)
        aim = start + (seconds - start) / left
        reach = min(SEARCH_SECONDS, (aim - start) / 2)
        last = min(aim + reach, start + longest_seconds)
        start = _quietest(loudness, window_seconds, aim - reach, last, aim)
        cuts.append(start)
    return cuts


def _quietest(
    loudness: Sequence[float], window_seconds: float, first: float, last: float, aim: float
) -> float:
    """The middle of the quietest half second in *first* … *last*; of equal ones the nearest to *aim*."""
    from_window = math.ceil(first / window_seconds)
    to_window = min(math.floor(last / window_seconds), len(loudness)) - _PAUSE_WINDOWS
    best = (math.inf, math.inf)
    best_at = min(aim, last)
    for window in range(from_window, to_window + 1):
        middle = (window + _PAUSE_WINDOWS / 2) * window_seconds
        found = (math.fsum(loudness[window : window + _PAUSE_WINDOWS]), abs(middle - aim))
        if found < best:
            best, best_at = found, middle
    return best_at
