"""How often a provider may be asked: requests in any 60 seconds, and pauses that it asked for."""

from __future__ import annotations

from collections import deque

_WINDOW_SECONDS = 60.0


class RateLimiter:
    """One provider's starts. Times are monotonic seconds, given by the caller.

    Attributes:
        slow_until: No start before this; set by Retry-After, 429 and 503.
    """

    def __init__(self, requests_per_minute: float | None) -> None:
        self.requests_per_minute = requests_per_minute
        self.slow_until = 0.0
        self._starts: deque[float] = deque()

    def allowance(self, now: float) -> int:
        """How many may start now; a large number where there is no limit."""
        if now < self.slow_until:
            return 0
        if self.requests_per_minute is None:
            return 1 << 30
        self._forget(now)
        return max(0, self._most - len(self._starts))

    def started(self, now: float, count: int = 1) -> None:
        """*count* requests were started at *now*."""
        if self.requests_per_minute is not None:
            self._starts.extend([now] * count)

    def next_at(self, now: float) -> float | None:
        """When :meth:`allowance` will grow, or None if it does not depend on time."""
        if now < self.slow_until:
            return self.slow_until
        if self.requests_per_minute is None or len(self._starts) < self._most:
            return None
        return self._starts[0] + self._window_seconds

    @property
    def _most(self) -> int:
        return max(1, int(self.requests_per_minute or 1))

    @property
    def _window_seconds(self) -> float:
        # Fewer than one a minute: one in a longer window.
        rate = self.requests_per_minute or 1.0
        return _WINDOW_SECONDS if rate >= 1 else _WINDOW_SECONDS / rate

    def _forget(self, now: float) -> None:
        while self._starts and self._starts[0] <= now - self._window_seconds:
            self._starts.popleft()
