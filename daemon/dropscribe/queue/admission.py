"""Admission control in memory, by slots, rates, pauses, holds and closed folders."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Collection

from dropscribe.core.model import Job, Scope, ScopeKind
from dropscribe.core.routing import Route, routes_for
from dropscribe.queue.holds import Holds, ProviderRates
from dropscribe.queue.model import HANGS, Plan, ProviderLimits
from dropscribe.queue.retrying_database import RetryingDatabase, Signals
from dropscribe.queue.sql import rows, transactions
from dropscribe.queue.sql.claims import LARGE_BYTES, SUSPECT_CRASHES, ClaimRequest


class InFlight:
    """Registry of attempts, polls and publications under way, by job id; in memory alone."""

    def __init__(self, signals: Signals) -> None:
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.uploads: dict[int, Job] = {}  # Attempts that hold a slot of their provider
        self.polling: dict[int, Job] = {}
        self.publishing: dict[int, Job] = {}
        # Providers of jobs that they work on by themselves, polled now or later.
        self.at_provider: dict[int, str] = {}
        self._signals = signals

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, job: Job, task: asyncio.Task[None]) -> None:
        """Register an attempt, a poll or a publication of *job* that has begun."""
        self.tasks[job.id] = task
        jobs = self.uploads if job.remote is None else self.polling
        (jobs if job.result is None else self.publishing)[job.id] = job
        self._signals.news.set()

    def remove(self, job: Job) -> None:
        """The reverse of :meth:`add`; wakes the dispatcher."""
        for jobs in (self.tasks, self.uploads, self.polling, self.publishing):
            jobs.pop(job.id, None)
        self._signals.wake.set()
        self._signals.news.set()

    async def ended(self) -> None:
        """Wait until nothing is in flight."""
        while tasks := list(self.tasks.values()):
            await asyncio.wait(tasks)

    def at(self, provider: str) -> list[Job]:
        """The attempts under way at *provider*."""
        return [job for job in self.uploads.values() if job.provider == provider]

    def tasks_at(self, provider: str) -> list[asyncio.Task[None]]:
        """Uploads and polls under way at *provider*."""
        jobs = (self.uploads | self.polling).values()
        return [self.tasks[job.id] for job in jobs if job.provider == provider]

    def has_folder(self, folder: str) -> bool:
        """Whether any job of *folder* is in flight."""
        jobs = self.uploads | self.polling | self.publishing
        return any(job.folder == folder for job in jobs.values())

    def suspects(self) -> int:
        """The number of attempts under way that may be the cause of daemon crashes."""
        return sum(job.crashes >= SUSPECT_CRASHES for job in self.uploads.values())


class FolderGate:
    """Closed folders and their causes, on this node and in memory: they are found out anew after a start.

    Results are published into a closed folder all the same, because only trying shows whether the trouble is
    over; not while the cause is :data:`~dropscribe.queue.model.HANGS`.
    """

    def __init__(self, signals: Signals) -> None:
        self._closed: dict[str, dict[str, str]] = {}
        self._signals = signals

    def close(self, folder: str, cause: str, reason: str) -> None:
        """Claim nothing of *folder* until every *cause* is removed by :meth:`open`."""
        self._closed.setdefault(folder, {})[cause] = reason
        self._tell()

    def open(self, folder: str, cause: str) -> None:
        """The reverse of :meth:`close`."""
        causes = self._closed.get(folder, {})
        if causes.pop(cause, None) is None:
            return
        if not causes:
            del self._closed[folder]
        self._tell()

    def closed_reason(self, folder: str) -> str | None:
        """Reason why nothing is claimed of *folder*, or None."""
        return next(iter(self._closed.get(folder, {}).values()), None)

    @property
    def closed(self) -> frozenset[str]:
        """All closed folders."""
        return frozenset(self._closed)

    @property
    def hanging(self) -> frozenset[str]:
        """Folders whose disks do not answer: nothing is published into them."""
        return self.closed_by(HANGS)

    def closed_by(self, cause: str) -> frozenset[str]:
        """Folders that are closed for *cause*, at least."""
        closed = self._closed.copy()  # a cluster's claims read it in the database's thread
        return frozenset(folder for folder, causes in closed.items() if cause in causes)

    def _tell(self) -> None:
        self._signals.wake.set()
        self._signals.news.set()


class Admission:
    """Selects the jobs that may start now, from the plan and the state in memory."""

    def __init__(self, database: RetryingDatabase) -> None:
        self.database, self.signals = database, database.signals
        self.plan = Plan({}, {})
        self.in_flight = InFlight(self.signals)
        self.folders = FolderGate(self.signals)
        self.rates = ProviderRates(database)
        self.holds = Holds(database, self.rates)
        # (provider, folder) → a number that is higher, the later the folder had its last slot.
        self.turns: dict[tuple[str, str], int] = {}
        self._turn = itertools.count(1)

    def replan(self, plan: Plan) -> None:
        """Swap the plan; jobs in flight continue as they began."""
        self.plan = plan
        self.rates.replan(plan.providers.values())

    async def recount_at_provider(self) -> None:
        """Read the jobs at providers anew: a reload takes rules away, and gives jobs to renamed ones."""
        read = self.database.do(lambda db: rows.read_at_provider(db, self.plan.chains))
        self.in_flight.at_provider = await read

    def set_clock_back(self, seconds: float) -> None:
        """The clock was set back by *seconds*: nothing waits for a time by the old clock."""
        self.holds.set_clock_back(seconds)
        self.rates.set_clock_back(seconds)
        self.database.post(lambda db: transactions.set_clock_back(db, seconds, self.database.now()))

    def note_turn(self, job: Job) -> None:
        """Note that *job* has got a slot: of two folders the other one is next."""
        self.turns[job.provider, job.folder] = next(self._turn)

    def requests(self) -> list[ClaimRequest]:
        """The claim requests of all providers that can start a job now."""
        return [request for limits in self.plan.providers.values() for request in self.requests_of(limits)]

    def open_routes(self) -> list[tuple[str, tuple[Route, ...]]]:
        """(provider, routes) of the jobs that neither a hold nor a closed folder stops."""
        held = self.holds.names(ScopeKind.PROVIDER)
        closed = self.folders.closed | self.holds.names(ScopeKind.FOLDER)
        return [(name, self._routes(name, closed)) for name in self.plan.providers if name not in held]

    def publications(self) -> int:
        """Publications under way that hold a slot: those in hanging folders hold none."""
        publishing, hanging = self.in_flight.publishing, self.folders.hanging
        return sum(job.folder not in hanging for job in publishing.values()) if hanging else len(publishing)

    def rooms(self, slots: int) -> dict[str, int]:
        """Folder → the publications that it may begin here; the folders that may begin none are left out.

        A folder takes one of *slots* while it has fewer than are free: a slow one has half of them at most,
        and the last go to folders that have none.
        """
        shut, free = self.folders.hanging.union(self.plan.away), slots - self.publications()
        publishing = Counter([job.folder for job in self.in_flight.publishing.values()])
        # Asked for each result: those that publish nothing, perhaps a thousand, cost no step of their own.
        rooms = dict.fromkeys(self.plan.chains, (free + 1) // 2) if free > 0 else {}
        for folder in rooms.keys() & (publishing.keys() | shut):
            rooms[folder] = 0 if folder in shut else (free - publishing[folder] + 1) // 2
            if rooms[folder] <= 0:
                del rooms[folder]
        return rooms

    def is_busy(self) -> bool:
        """Whether anything is in flight, other than publications that hang."""
        return bool(self.in_flight.uploads or self.in_flight.polling or self.publications())

    def waits(self) -> list[float]:
        """Seconds until something changes by itself: probes, rates, pauses."""
        return self.holds.waits() + self.rates.waits()

    def folders_here(self, shut: Collection[str]) -> list[str]:
        """The folders of the plan that this node has, except those that are *shut*."""
        return [name for name in self.plan.chains if name not in shut and name not in self.plan.away]

    def requests_of(self, limits: ProviderLimits) -> list[ClaimRequest]:
        """The claim requests of one provider: none, its jobs and the probes of folders, or its own probe."""
        provider, uploads = limits.provider, self.in_flight.at(limits.provider)
        scope = Scope(ScopeKind.PROVIDER, provider)
        free = self._free_slots(limits, len(uploads))
        if free <= 0 or self.holds.is_stopped(scope):
            return []
        closed = self.folders.closed.union(self.plan.away)
        routes = self._routes(provider, closed | self.holds.names(ScopeKind.FOLDER))
        if self.holds.get(scope) is None:
            in_flight = Counter(job.folder for job in uploads)
            turns = {route.folder: self.turns.get((provider, route.folder), 0) for route in routes}
            # One slot is left to smaller files, where there is more than one.
            large = sum(job.snapshot.size_bytes >= LARGE_BYTES for job in uploads)
            most_large = max(limits.slots - 1, 1) - large
            request = ClaimRequest(provider, routes, free, False, in_flight, turns, most_large)
            return [request, *self._folder_probes(provider, closed)]
        if provider not in self.holds.due_probes(ScopeKind.PROVIDER) or uploads:
            return []
        return [ClaimRequest(provider, routes, 1, is_probe=True)]

    def _free_slots(self, limits: ProviderLimits, taken: int) -> int:
        remote = sum(each == limits.provider for each in self.in_flight.at_provider.values())
        allowed = self.rates.allowance(limits.provider, taken)
        return min(limits.slots - taken, limits.remote_jobs - remote - taken, allowed)

    def _folder_probes(self, provider: str, closed: Collection[str]) -> list[ClaimRequest]:
        """One job of each held folder whose probe is due, if none of it is in flight."""
        due = self.holds.due_probes(ScopeKind.FOLDER)
        return [
            ClaimRequest(provider, (route,), 1, is_probe=True)
            for route in (self._routes(provider, closed) if due else ())
            if route.folder in due and not self.in_flight.has_folder(route.folder)
        ]

    def _routes(self, provider: str, closed: Collection[str]) -> tuple[Route, ...]:
        passed_over, plan = self.holds.passed_over(), self.plan
        return tuple(routes_for(provider, plan.chains, passed_over, closed, plan.strict_order))
