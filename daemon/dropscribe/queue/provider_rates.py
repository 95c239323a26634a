"""How soon one more request to a provider may start: its rate limit and the pause that it asked for."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from dropscribe.queue.model import LONGEST_PAUSE_SECONDS, Pause
from dropscribe.queue.sql import hold_rows, rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dropscribe.queue.model import ProviderLimits
    from dropscribe.queue.retrying_database import RetryingDatabase
    from dropscribe.queue.sql.database import Connection

_WINDOW_SECONDS = 60.0


class RateLimiter:
    """One provider's starts. Times are monotonic seconds, given by the caller.

    Attributes:
        window_seconds: The length of the window in which requests are counted; 0 without a limit.
    """

    def __init__(self) -> None:
        self.limit(None)
        self._starts: deque[float] = deque()

    def limit(self, requests_per_minute: float | None) -> None:
        """Replace the limit; requests of the last minute still count."""
        rate = requests_per_minute
        # Fewer than one a minute: one in a longer window.
        self.window_seconds = 0.0 if rate is None else _WINDOW_SECONDS / min(1.0, rate)
        self._most = max(1, int(rate or 1))

    def allowance(self, now: float) -> int:
        """The number of requests that may start now; a large number if there is no limit."""
        if not self.window_seconds:
            return 1 << 30
        while self._starts and self._starts[0] <= now - self.window_seconds:
            self._starts.popleft()
        return max(0, self._most - len(self._starts))

    def started(self, now: float) -> None:
        """A request was started at *now*."""
        if self.window_seconds:
            self._starts.append(now)

    def wait_seconds(self, now: float) -> float:
        """Seconds until one more request may start."""
        return 0.0 if self.allowance(now) else self._starts[0] + self.window_seconds - now


class ProviderRates:
    """Rate limits and pauses of all providers, in memory; pauses are written to the database too.

    Attributes:
        pauses: By provider; one that is over stays until the provider has answered once.
    """

    def __init__(self, database: RetryingDatabase) -> None:
        self.pauses: dict[str, Pause] = {}
        self._database = database
        self._limiters: dict[str, RateLimiter] = {}

    def replan(self, limits: Iterable[ProviderLimits]) -> None:
        """Replace the limits; requests of the last minute still count."""
        self._limiters = {
            each.provider: self._limiters.get(each.provider) or RateLimiter() for each in limits
        }
        for each in limits:
            self._limiters[each.provider].limit(each.requests_per_minute)

    def recall(self, db: Connection) -> None:
        """Take over the pauses and the recent requests of an earlier run."""
        now, monotonic = self._database.now(), time.monotonic()
        # After a clock was set back, no pause lasts until a time by the old clock.
        self.pauses = {
            provider: replace(pause, until=min(pause.until, now + pause.until - pause.since))
            for provider, pause in hold_rows.read_pauses(db).items()
        }
        longest_seconds = max((each.window_seconds for each in self._limiters.values()), default=0.0)
        for provider, at in rows.read_recent_starts(db, now - longest_seconds):
            if limiter := self._limiters.get(provider):
                limiter.started(monotonic - max(0.0, now - at))

    def pause(self, provider: str, seconds: float) -> None:
        """Start nothing more at *provider* for *seconds*, an hour at most: it asked for it (429, 503).

        A longer pause stays.
        """
        now, old = self._database.now(), self.pauses.get(provider)
        until = max(now + min(seconds, LONGEST_PAUSE_SECONDS), old.until if old else 0.0)
        pause = self.pauses[provider] = Pause(provider, old.since if old else now, until)
        self._database.post(lambda db: hold_rows.write_pause(db, pause))
        self._database.signals.news.set()

    def set_clock_back(self, seconds: float) -> None:
        """The clock was set back by *seconds*; so are the times in memory."""
        self.pauses = {
            provider: replace(pause, since=pause.since - seconds, until=pause.until - seconds)
            for provider, pause in self.pauses.items()
        }

    def cut_pause(self, provider: str) -> None:
        """End a pause now; one request at a time shows whether it is over."""
        now, pause = self._database.now(), self.pauses.get(provider)
        if pause is not None and pause.until > now:
            self.pauses[provider] = replace(pause, until=now)
            self._database.post(lambda db: hold_rows.cut_pause(db, provider, now))

    def end_pause(self, provider: str) -> None:
        """Remove a pause that is over, because the provider was asked since."""
        now, pause = self._database.now(), self.pauses.get(provider)
        if pause is not None and pause.until <= now:
            del self.pauses[provider]
            self._database.post(lambda db: hold_rows.end_pause(db, provider, now))

    def started(self, provider: str) -> None:
        """Count one request that has started."""
        if limiter := self._limiters.get(provider):
            limiter.started(time.monotonic())

    def start_in(self, provider: str) -> float:
        """Seconds until one more request to *provider* may start; 0 counts it as started now."""
        if provider not in self._limiters:
            return 0.0  # a reload has removed it: running attempts continue
        wait_seconds = self._wait_seconds(provider)
        if not wait_seconds:
            self.started(provider)
        return wait_seconds

    def allowance(self, provider: str, taken: int) -> int:
        """Attempts that may start now, beside *taken* under way; one at a time after a pause."""
        allowed = self._limiters[provider].allowance(time.monotonic())
        if pause := self.pauses.get(provider):
            return 0 if self._database.now() < pause.until else min(allowed, 1 - taken)
        return allowed

    def next_starts(self) -> dict[str, float]:
        """Unix seconds from which a provider may get one more request, of those that have to wait for it."""
        now = self._database.now()
        return {name: now + wait for name in self._limiters if (wait := self._wait_seconds(name))}

    def waits(self) -> list[float]:
        """Seconds until rates and pauses allow more."""
        return [wait for name in self._limiters if (wait := self._wait_seconds(name))]

    def _wait_seconds(self, provider: str) -> float:
        pause = self.pauses.get(provider)
        pause_seconds = pause.until - self._database.now() if pause else 0.0
        return max(0.0, pause_seconds, self._limiters[provider].wait_seconds(time.monotonic()))
