"""Limits how often a provider is asked: requests in any 60 seconds."""

from __future__ import annotations

from collections import deque

_WINDOW_SECONDS = 60.0


class RateLimiter:
    """One provider's starts. Times are monotonic seconds, given by the caller."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self.requests_per_minute = requests_per_minute
        self._starts: deque[float] = deque()

    def allowance(self, now: float) -> int:
        """The number of requests that may start now; a large number if there is no limit."""
        if self.requests_per_minute is None:
            return 1 << 30
        while self._starts and self._starts[0] <= now - self._window_seconds:
            self._starts.popleft()
        return max(0, self._most - len(self._starts))

    def started(self, now: float) -> None:
        """A request was started at *now*."""
        if self.requests_per_minute is not None:
            self._starts.append(now)

    def next_at(self, now: float) -> float | None:
        """The time at which :meth:`allowance` grows, or None if it does not depend on time."""
        return None if self.allowance(now) else self._starts[0] + self._window_seconds

    @property
    def _most(self) -> int:
        return max(1, int(self.requests_per_minute or 1))

    @property
    def _window_seconds(self) -> float:
        # Fewer than one a minute: one in a longer window.
        rate = self.requests_per_minute or 1.0
        return _WINDOW_SECONDS if rate >= 1 else _WINDOW_SECONDS / rate
