"""Decides in memory what may start now, by slots, rates, pauses, holds and closed folders."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dropscribe.core.model import Hold, Job, Scope, ScopeKind
from dropscribe.core.routing import Route, routes_for
from dropscribe.queue.engine import HANGS, LONGEST_PAUSE_SECONDS, Pause, Plan
from dropscribe.queue.rate_limiter import RateLimiter
from dropscribe.queue.sql.rows import LARGE_BYTES, SUSPECT_CRASHES, ClaimRequest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from dropscribe.queue.engine import ProviderLimits


@dataclass(slots=True)
class Running:
    """The jobs in flight, in memory alone.

    Attributes:
        tasks: By job.
        uploads: Jobs that hold a slot of their provider.
        providers: Slots taken, by provider.
        folders: Jobs in flight by folder, publications among them.
        polling: Jobs at a provider that are being polled.
        publishing: Folders of jobs with a stored result, by job.
        suspects: Jobs that may be what kills the daemon.
    """

    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    uploads: dict[int, Job] = field(default_factory=dict)
    providers: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    polling: set[int] = field(default_factory=set)
    publishing: dict[int, str] = field(default_factory=dict)
    suspects: set[int] = field(default_factory=set)

    def add(self, job: Job, task: asyncio.Task[None]) -> None:
        """An attempt, a poll or a publication of *job* has begun."""
        self.tasks[job.id] = task
        self.folders[job.folder] += 1
        if job.result is not None:
            self.publishing[job.id] = job.folder
        elif job.remote is not None:
            self.polling.add(job.id)
        else:
            self.uploads[job.id] = job
            self.providers[job.provider] += 1
            if job.crashes >= SUSPECT_CRASHES:
                self.suspects.add(job.id)

    def remove(self, job: Job) -> None:
        """The reverse of :meth:`add`."""
        del self.tasks[job.id]
        self.folders[job.folder] -= 1
        self.publishing.pop(job.id, None)
        self.polling.discard(job.id)
        self.suspects.discard(job.id)
        if self.uploads.pop(job.id, None) is not None:
            self.providers[job.provider] -= 1

    def uploads_by_folder(self, provider: str) -> Counter[str]:
        """Folder → its uploads to *provider* that are under way."""
        return Counter(job.folder for job in self.uploads.values() if job.provider == provider)

    def large_uploads(self, provider: str) -> int:
        """Large uploads to *provider* that are under way."""
        return sum(
            job.provider == provider and job.snapshot.size_bytes >= LARGE_BYTES
            for job in self.uploads.values()
        )


class Admission:
    """The engine's memory of holds, pauses, budgets and jobs in flight.

    Attributes:
        plan: What the config allows; swapped by :meth:`replan`.
        holds: By scope, as in the store.
        stops: Budgets that are spent, until ``next_probe_at``; replaced whole.
        pauses: By provider; one that is over stays until the provider has answered once.
        at_provider: Jobs that providers work on by themselves: id → provider.
        running: The jobs in flight.
    """

    def __init__(self) -> None:
        self.plan = Plan({}, {})
        self.holds: dict[Scope, Hold] = {}
        self.stops: dict[Scope, Hold] = {}
        self.running = Running()
        self.pauses: dict[str, Pause] = {}
        self.at_provider: dict[int, str] = {}
        self._rates: dict[str, RateLimiter] = {}
        self._turn = itertools.count(1)
        self._turns: dict[tuple[str, str], int] = {}
        self._closed: dict[str, dict[str, str]] = {}

    def replan(self, plan: Plan) -> None:
        """Swap the plan; what is in flight goes on as it began."""
        self.plan = plan
        limits = plan.providers.values()
        old, self._rates = self._rates, {each.provider: RateLimiter(None) for each in limits}
        self._rates |= {name: rate for name, rate in old.items() if name in self._rates}
        for each in limits:
            self._rates[each.provider].requests_per_minute = each.requests_per_minute

    def pause(self, provider: str, now: float, seconds: float) -> Pause:
        """Start nothing more at *provider* for *seconds*, an hour at most; a longer pause stays."""
        old = self.pauses.get(provider)
        until = max(now + min(seconds, LONGEST_PAUSE_SECONDS), old.until if old else 0.0)
        pause = self.pauses[provider] = Pause(provider, old.since if old else now, until)
        return pause

    def end_pause(self, provider: str, now: float) -> bool:
        """Forget a pause that is over, because the provider was asked since; whether there was one."""
        pause = self.pauses.get(provider)
        if pause is None or now < pause.until:
            return False
        del self.pauses[provider]
        return True

    def started(self, job: Job) -> None:
        """A request of *job* counts towards its provider's rate, and its folder has had its turn."""
        if rate := self._rates.get(job.provider):
            rate.started(time.monotonic())
        self._turns[job.provider, job.folder] = next(self._turn)

    def start_in(self, provider: str) -> float:
        """Seconds until one more request to *provider* may start; 0 counts it as started now."""
        rate, now = self._rates.get(provider), time.monotonic()
        if rate is None:
            return 0.0  # a reload has removed it: what runs goes on
        pause = self.pauses.get(provider)
        if pause is not None and pause.until > time.time():
            return pause.until - time.time()
        if rate.allowance(now) > 0:
            rate.started(now)
            return 0.0
        return max(0.001, (rate.next_at(now) or now) - now)

    def close(self, folder: str, cause: str, reason: str) -> None:
        """Claim nothing of *folder* until every *cause* has opened it again."""
        self._closed.setdefault(folder, {})[cause] = reason

    def open(self, folder: str, cause: str) -> bool:
        """The reverse of :meth:`close`; whether the folder is open now and was not before."""
        causes = self._closed.get(folder, {})
        if causes.pop(cause, None) is None or causes:
            return False
        del self._closed[folder]
        return True

    def closed_reason(self, folder: str) -> str | None:
        """Why nothing is claimed of *folder*, or None."""
        return next(iter(self._closed.get(folder, {}).values()), None)

    def hanging_folders(self) -> set[str]:
        """Folders whose disks do not answer: nothing of them is published, and what hangs has no slot."""
        return {folder for folder, causes in self._closed.items() if HANGS in causes}

    def publications(self) -> int:
        """Publications under way that have a slot."""
        hanging = self.hanging_folders()
        return sum(folder not in hanging for folder in self.running.publishing.values())

    def is_busy(self) -> bool:
        """Whether anything is in flight, other than publications that hang."""
        running = self.running
        return len(running.tasks) - len(running.publishing) + self.publications() > 0

    def probe_now(self, scope: Scope) -> bool:
        """Make a hold's next probe due; whether there is one."""
        hold = self.holds.get(scope)
        if hold is not None:
            self.holds[scope] = replace(hold, next_probe_at=time.time())
        return hold is not None

    def is_stopped(self, scope: Scope) -> bool:
        """Whether its budget is spent, and the day or month has not turned."""
        return scope in self._stopped()

    def requests(self) -> list[ClaimRequest]:
        """The claim requests of all providers that can start a job now."""
        return [request for limits in self.plan.providers.values() for request in self._requests_of(limits)]

    def open_routes(self) -> list[tuple[str, tuple[Route, ...]]]:
        """(provider, routes) of what neither a hold nor a closed folder stops."""
        closed = self._closed.keys() | self._held(ScopeKind.FOLDER)
        held = self._held(ScopeKind.PROVIDER)
        return [(name, self._routes(name, closed)) for name in self.plan.providers if name not in held]

    def open_folders(self) -> list[str]:
        """Folders whose kept answers can be published, as far as is known."""
        return [folder for folder in self.plan.chains if folder not in self._closed]

    def waits(self) -> list[float]:
        """Seconds until something changes by itself: probes, rates, pauses."""
        now, monotonic = time.time(), time.monotonic()
        ends = [hold.next_probe_at for hold in (*self.holds.values(), *self.stops.values())]
        ends += [pause.until for pause in self.pauses.values() if pause.provider in self.plan.providers]
        rates = [at - monotonic for rate in self._rates.values() if (at := rate.next_at(monotonic))]
        return [at - now for at in ends if at > now] + rates

    def _requests_of(self, limits: ProviderLimits) -> list[ClaimRequest]:
        provider = limits.provider
        free = self._free_slots(limits)
        if free <= 0 or Scope(ScopeKind.PROVIDER, provider) in self._stopped():
            return []
        hold = self.holds.get(Scope(ScopeKind.PROVIDER, provider))
        closed = self._closed.keys() | self._held(ScopeKind.FOLDER)
        routes = self._routes(provider, closed)
        if hold is None:
            in_flight = self.running.uploads_by_folder(provider)
            turns = {route.folder: self._turns.get((provider, route.folder), 0) for route in routes}
            # One slot is left to smaller files, where there is more than one.
            most_large = max(limits.slots - 1, 1) - self.running.large_uploads(provider)
            request = ClaimRequest(provider, routes, free, False, in_flight, turns, most_large)
            return [request, *self._folder_probes(provider)]
        if time.time() < hold.next_probe_at or self.running.providers[provider]:
            return []
        return [ClaimRequest(provider, routes, 1, is_probe=True)]

    def _free_slots(self, limits: ProviderLimits) -> int:
        provider = limits.provider
        taken = self.running.providers[provider]
        remote = sum(each == provider for each in self.at_provider.values())
        free = min(
            limits.slots - taken,
            limits.remote_jobs - remote - taken,
            self._rates[provider].allowance(time.monotonic()),
        )
        if pause := self.pauses.get(provider):
            # One job finds out whether the provider takes requests again.
            return 0 if time.time() < pause.until else min(free, 1 - taken)
        return free

    def _folder_probes(self, provider: str) -> list[ClaimRequest]:
        """One job of each held folder whose time has come, if none of it is in flight."""
        now = time.time()
        stopped = {scope.name for scope in self._stopped() if scope.kind is ScopeKind.FOLDER}
        due = {
            scope.name
            for scope, hold in self.holds.items()
            if scope.kind is ScopeKind.FOLDER
            and now >= hold.next_probe_at
            and not self.running.folders[scope.name]
        }
        return [
            ClaimRequest(provider, (route,), 1, is_probe=True)
            for route in self._routes(provider, self._closed.keys() | stopped)
            if route.folder in due
        ]

    def _routes(self, provider: str, closed: Iterable[str]) -> tuple[Route, ...]:
        held = self._held(ScopeKind.PROVIDER)
        return tuple(routes_for(provider, self.plan.chains, held, set(closed), self.plan.strict_order))

    def _held(self, kind: ScopeKind) -> set[str]:
        return {scope.name for scope in self.holds.keys() | self._stopped() if scope.kind is kind}

    def _stopped(self) -> set[Scope]:
        now = time.time()
        return {scope for scope, stop in self.stops.items() if stop.next_probe_at > now}
