"""Holds of providers and folders, and their spent budgets, in memory and in the database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dropscribe.core.model import ScopeKind
from dropscribe.files.crashpoint import reached
from dropscribe.queue.sql import hold_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dropscribe.core.model import Hold, Scope
    from dropscribe.queue.provider_rates import ProviderRates
    from dropscribe.queue.retrying_database import RetryingDatabase


class Holds:
    """Holds and spent budgets by scope, each with the time of its next probe.

    Attributes:
        changes: Grows before and after each change that is made here, so that a reader of the rows can tell
            whether its copy is older.
    """

    def __init__(self, database: RetryingDatabase, rates: ProviderRates) -> None:
        self.changes = 0
        self._database = database
        self._rates = rates
        self._holds: dict[Scope, Hold] = {}
        self._stops: dict[Scope, Hold] = {}

    async def hold(self, hold: Hold) -> None:
        """Hold a provider or folder; from ``next_probe_at`` on one job of it at a time probes it."""
        self._holds[hold.scope] = hold
        self.changes += 1
        await self._database.do(lambda db: hold_rows.begin_hold(db, hold))
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
            self._database.post(lambda db: hold_rows.write_hold(db, due))
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

    def is_stopped(self, scope: Scope) -> bool:
        """Whether its budget is spent, and the day or month has not turned."""
        stop = self._stops.get(scope)
        return stop is not None and stop.next_probe_at > self._database.now()

    def names(self, kind: ScopeKind) -> set[str]:
        """Names of the providers or folders that are held or whose budget is spent."""
        return self.held(kind) | {
            scope.name for scope in self._stops if scope.kind is kind and self.is_stopped(scope)
        }

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
