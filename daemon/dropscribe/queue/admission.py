"""What may start now: slots, paces, holds and closed folders, weighed without touching the queue."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dropscribe.core.model import Hold, Job, Scope, ScopeKind
from dropscribe.core.routing import Route, routes_for
from dropscribe.queue.engine import Plan
from dropscribe.queue.rate_limiter import RateLimiter
from dropscribe.queue.sql.rows import SUSPECT_CRASHES, ClaimRequest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable


@dataclass(slots=True)
class Running:
    """What is in flight, in memory alone: at most the slots' sum, and as many that are being kept.

    Attributes:
        tasks: By job.
        lanes: Job → the provider whose slot it has.
        providers: Slots taken.
        folders: Jobs in hand, published ones among them.
        publishing: Jobs whose answers are kept.
        suspects: Jobs that may be what kills the daemon.
        handed_on: Job → the provider whose slot it had and has handed on.
    """

    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    lanes: dict[int, str] = field(default_factory=dict)
    providers: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    publishing: set[int] = field(default_factory=set)
    suspects: set[int] = field(default_factory=set)
    handed_on: dict[int, str] = field(default_factory=dict)

    def add(self, job: Job, task: asyncio.Task[None]) -> None:
        """*job* has begun: an attempt, or its publishing."""
        self.tasks[job.id] = task
        self.folders[job.folder] += 1
        if job.result is not None:
            self.publishing.add(job.id)
            return
        self.providers[job.provider] += 1
        self.lanes[job.id] = job.provider
        if job.crashes >= SUSPECT_CRASHES:
            self.suspects.add(job.id)

    def remove(self, job: Job) -> None:
        """The reverse of :meth:`add`."""
        del self.tasks[job.id]
        self.folders[job.folder] -= 1
        self.publishing.discard(job.id)
        self.suspects.discard(job.id)
        self.hand_on_slot(job)
        self.handed_on.pop(job.id, None)

    def hand_on_slot(self, job: Job) -> None:
        """*job*'s provider may be asked for the next one, though *job* itself is still in hand."""
        provider = self.lanes.pop(job.id, None)
        if provider is not None:
            self.handed_on[job.id] = provider
            self.providers[provider] -= 1

    def take_slots_back(self, job_ids: Iterable[int]) -> None:
        """The reverse of :meth:`hand_on_slot`, for those of *job_ids* that have no slot."""
        for job_id in list(job_ids):
            provider = self.handed_on.pop(job_id, None)
            if provider is not None:
                self.lanes[job_id] = provider
                self.providers[provider] += 1


class Admission:
    """The engine's memory of who may go.

    Attributes:
        plan: Lanes and chains; swapped by :meth:`replan`.
        holds: By scope, as in the store.
        stops: Budgets that are spent, until ``next_probe_at``; replaced whole.
        running: What is in flight.
    """

    def __init__(self) -> None:
        self.plan = Plan({}, {})
        self.holds: dict[Scope, Hold] = {}
        self.stops: dict[Scope, Hold] = {}
        self.running = Running()
        self._paces: dict[str, RateLimiter] = {}
        self._closed: dict[str, dict[str, str]] = {}

    def replan(self, plan: Plan) -> None:
        """Swap lanes and chains; what is in flight goes on as it began."""
        self.plan = plan
        for name, lane in plan.providers.items():
            self._pace(name).requests_per_minute = lane.requests_per_minute

    def slow(self, provider: str, seconds: float) -> None:
        """Start nothing more at *provider* for *seconds*."""
        pace = self._pace(provider)
        pace.slow_until = max(pace.slow_until, time.monotonic() + seconds)

    def started(self, job: Job) -> None:
        """A request of *job* counts towards its provider's pace."""
        self._pace(job.provider).started(time.monotonic())

    def start_in(self, provider: str) -> float:
        """Seconds until one more request to *provider* may start; 0 counts it as started now."""
        pace, now = self._pace(provider), time.monotonic()
        if pace.allowance(now) > 0:
            pace.started(now)
            return 0.0
        return max(0.001, (pace.next_at(now) or now) - now)

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
        """What each provider can start now."""
        found: list[ClaimRequest] = []
        for name, lane in self.plan.providers.items():
            allowance = self._pace(name).allowance(time.monotonic())
            free = min(lane.slots - self.running.providers[name], allowance)
            if free > 0:
                found += self._requests_of(name, free)
        return found

    def open_routes(self) -> list[tuple[str, tuple[Route, ...]]]:
        """(provider, routes) of what neither a hold nor a closed folder stops."""
        closed = self._closed.keys() | self._held(ScopeKind.FOLDER)
        held = self._held(ScopeKind.PROVIDER)
        return [(name, self._routes(name, closed)) for name in self.plan.providers if name not in held]

    def open_folders(self) -> list[str]:
        """Folders whose kept answers can be published, as far as is known."""
        return [folder for folder in self.plan.chains if folder not in self._closed]

    def waits(self) -> list[float]:
        """Seconds until something changes by itself: probes and paces."""
        now, monotonic = time.time(), time.monotonic()
        holds = [*self.holds.values(), *self.stops.values()]
        probes = [hold.next_probe_at - now for hold in holds if hold.next_probe_at > now]
        paces = [at - monotonic for pace in self._paces.values() if (at := pace.next_at(monotonic))]
        return probes + paces

    def _requests_of(self, provider: str, free: int) -> list[ClaimRequest]:
        hold = self.holds.get(Scope(ScopeKind.PROVIDER, provider))
        closed = self._closed.keys() | self._held(ScopeKind.FOLDER)
        routes = self._routes(provider, closed)
        if Scope(ScopeKind.PROVIDER, provider) in self._stopped():
            return []
        if hold is None:
            return [ClaimRequest(provider, routes, free), *self._folder_probes(provider)]
        if time.time() < hold.next_probe_at or self.running.providers[provider]:
            return []
        return [ClaimRequest(provider, routes, 1, is_probe=True)]

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

    def _pace(self, provider: str) -> RateLimiter:
        return self._paces.setdefault(provider, RateLimiter(None))
