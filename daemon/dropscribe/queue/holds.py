"""Holds, spent budgets, pauses and rate limits, in memory and in the database."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import replace

from dropscribe.core.model import Hold, Scope, ScopeKind
from dropscribe.files.crashpoint import reached
from dropscribe.queue.model import LONGEST_PAUSE_SECONDS, Pause, ProviderLimits, rate_window
from dropscribe.queue.retrying_database import RetryingDatabase
from dropscribe.queue.sql import hold_rows, rows
from dropscribe.queue.sql.database import Connection


class ProviderRates:
    """Rate limits and pauses of all providers, in memory; pauses are written to the database too."""

    def __init__(self, database: RetryingDatabase) -> None:
        self.pauses: dict[str, Pause] = {}  # one that is over stays until the provider has answered once
        self._database = database
        self._limits: dict[str, tuple[int, float]] = {}  # provider → requests, and the seconds they count for
        self._starts: dict[str, deque[float]] = {}  # monotonic; of every provider of the plan

    def replan(self, limits: Collection[ProviderLimits]) -> None:
        """Replace the limits; requests of the last minute still count."""
        self._starts = {each.provider: self._starts.get(each.provider, deque()) for each in limits}
        self._limits = {
            each.provider: rate_window(rate)
            for each in limits
            if (rate := each.requests_per_minute) is not None
        }

    def recall(self, db: Connection) -> None:
        """Take over the pauses and the recent requests of an earlier run."""
        now, monotonic = self._database.now(), time.monotonic()
        # After a clock was set back, no pause lasts until a time by the old clock.
        self.pauses = {
            provider: replace(pause, until=min(pause.until, now + pause.until - pause.since))
            for provider, pause in hold_rows.read_pauses(db).items()
        }
        longest_seconds = max((seconds for _, seconds in self._limits.values()), default=0.0)
        for provider, at in rows.read_recent_starts(db, now - longest_seconds):
            self.started(provider, monotonic - max(0.0, now - at))

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

    def started(self, provider: str, at: float | None = None) -> None:
        """Count one request that has started, now or *at* (monotonic)."""
        if provider in self._limits:
            self._starts[provider].append(time.monotonic() if at is None else at)

    def start_in(self, provider: str) -> float:
        """Seconds until one more request to *provider* may start; 0 counts it as started now."""
        if provider not in self._starts:
            return 0.0  # a reload has removed it: running attempts continue
        wait_seconds = self._wait_seconds(provider)
        if not wait_seconds:
            self.started(provider)
        return wait_seconds

    def allowance(self, provider: str, taken: int) -> int:
        """Attempts that may start now, beside *taken* under way; one at a time after a pause."""
        allowed = self._allowance(provider, time.monotonic())
        if pause := self.pauses.get(provider):
            return 0 if self._database.now() < pause.until else min(allowed, 1 - taken)
        return allowed

    def next_starts(self) -> dict[str, float]:
        """Unix seconds from which a provider may get one more request, of those that have to wait for it."""
        now = self._database.now()
        return {name: now + wait for name in self._starts if (wait := self._wait_seconds(name))}

    def waits(self) -> list[float]:
        """Seconds until rates and pauses allow more."""
        return [wait for name in self._starts if (wait := self._wait_seconds(name))]

    def _allowance(self, provider: str, now: float) -> int:
        if provider not in self._limits:
            return 1 << 30
        (most, seconds), starts = self._limits[provider], self._starts[provider]
        while starts and starts[0] <= now - seconds:
            starts.popleft()
        return max(0, most - len(starts))

    def _wait_seconds(self, provider: str) -> float:
        now, pause = time.monotonic(), self.pauses.get(provider)
        wait_seconds = pause.until - self._database.now() if pause else 0.0
        if not self._allowance(provider, now):
            wait_seconds = max(wait_seconds, self._starts[provider][0] + self._limits[provider][1] - now)
        return max(0.0, wait_seconds)


class Holds:
    """Holds and spent budgets by scope, each with the time of its next probe."""

    def __init__(self, database: RetryingDatabase, rates: ProviderRates) -> None:
        # Grows before and after each change that is made here: a reader of the rows can tell whether its copy
        # is older.
        self.changes = 0
        self._database = database
        self._rates = rates
        self._holds: dict[Scope, Hold] = {}
        self._stops: dict[Scope, Hold] = {}

    async def hold(self, hold: Hold) -> None:
        """Hold a provider or folder; from ``next_probe_at`` on one job of it at a time probes it."""
        self._holds[hold.scope] = hold
        self.changes += 1
        await self._database.do(lambda db: hold_rows.write_hold(db, hold))
        self.changes += 1
        reached("held")
        self._database.signals.wake.set()

    async def release(self, scope: Scope) -> Hold | None:
        """End a hold and make its jobs due at once; returns it, or None where there was none."""
        hold = self._holds.pop(scope, None)
        if hold is not None:
            self.changes += 1
            await self._database.do(lambda db: hold_rows.end_hold(db, scope, self._database.now()))
            self.changes += 1
            self._database.signals.wake.set()
        return hold

    def probe_now(self, scope: Scope) -> None:
        """Probe a held provider or folder at once: its config has changed, or a user asks.

        A provider's pause ends too, whether it is held or not.
        """
        if hold := self._holds.get(scope):
            due = self._holds[scope] = replace(hold, next_probe_at=self._database.now())
            self._database.post(lambda db: hold_rows.write_probe(db, due))
        if scope.kind is ScopeKind.PROVIDER:
            self._rates.cut_pause(scope.name)
        self._database.signals.wake.set()

    def set_clock_back(self, seconds: float) -> None:
        """The clock was set back by *seconds*; so are the times in memory."""
        self._holds = {
            scope: replace(hold, since=hold.since - seconds, next_probe_at=hold.next_probe_at - seconds)
            for scope, hold in self._holds.items()
        }

    def get(self, scope: Scope) -> Hold | None:
        """The hold of a provider or folder, if it is held."""
        return self._holds.get(scope)

    def replace_holds(self, holds: Iterable[Hold]) -> None:
        """Replace the holds in memory by those of the rows."""
        self._holds = {hold.scope: hold for hold in holds}

    def replace_stops(self, stops: Iterable[Hold]) -> None:
        """Take over the budgets that are spent, until ``next_probe_at``."""
        self._stops = {stop.scope: stop for stop in stops}

    def replace_by(self, other: Holds) -> None:
        """Take over the holds and spent budgets of *other*."""
        self._holds, self._stops = other._holds, other._stops

    def is_stopped(self, scope: Scope) -> bool:
        """Whether its budget is spent, and the day or month has not turned."""
        stop = self._stops.get(scope)
        return stop is not None and stop.next_probe_at > self._database.now()

    def names(self, kind: ScopeKind) -> set[str]:
        """Names of the providers or folders that are held or whose budget is spent."""
        return self.held(kind) | {
            scope.name for scope in self._stops if scope.kind is kind and self.is_stopped(scope)
        }

    def passed_over(self) -> set[str]:
        """Names of the providers whose files go to the next of a list: long pauses count as holds there."""
        now = self._database.now()
        paused = {name for name, pause in self._rates.pauses.items() if pause.is_long_at(now)}
        return self.names(ScopeKind.PROVIDER) | paused

    def held(self, kind: ScopeKind) -> set[str]:
        """Names of the providers or folders that are held."""
        return {scope.name for scope in self._holds if scope.kind is kind}

    def due_probes(self, kind: ScopeKind) -> set[str]:
        """Names of the providers or folders that may be probed now."""
        now = self._database.now()
        return {
            scope.name
            for scope, hold in self._holds.items()
            if scope.kind is kind and now >= hold.next_probe_at and not self.is_stopped(scope)
        }

    def waits(self) -> list[float]:
        """Seconds until the next probes, and until budgets turn."""
        now = self._database.now()
        ends = [hold.next_probe_at for hold in (*self._holds.values(), *self._stops.values())]
        return [at - now for at in ends if at > now]
