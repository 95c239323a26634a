"""The queue: SQL operations, admission state and a dispatcher, joined.

The engine owns claims, holds and the state of every job, and calls :data:`~dropscribe.queue.model.AttemptJob`
and :data:`~dropscribe.queue.model.PublishJob`. No code above this package knows which database and which
dispatcher it has (see :mod:`dropscribe.queue.backend`).
Guarantees: a stored result is published after any crash; an attempt that the end of the daemon interrupted
counts only towards ``max_crashes``; memory does not grow with the backlog.
Diagnostics: StoreUnusable and StoreError end the run; StoreFull and StoreBusy are waited out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from dropscribe.queue.admission import Admission
from dropscribe.queue.budget_store import BudgetStore
from dropscribe.queue.folder_gate import FolderGate
from dropscribe.queue.hold_store import HoldStore
from dropscribe.queue.in_flight import InFlight
from dropscribe.queue.job_runner import JobRunner
from dropscribe.queue.provider_rates import ProviderRates
from dropscribe.queue.result_store import ResultStore
from dropscribe.queue.retrying_database import RetryingDatabase
from dropscribe.queue.signals import Signals
from dropscribe.queue.sql import (
    backlog,
    history,
    hold_rows,
    remote_rows,
    result_cache,
    result_rows,
    rows,
    stats,
    transactions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from dropscribe.core.model import Job, Scope
    from dropscribe.queue.backend import Dispatcher, JobIntake
    from dropscribe.queue.model import AttemptJob, Plan, PublishJob, Stats
    from dropscribe.queue.sql.database import Connection, Database

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class QueueState:
    """The parts of a queue that its dispatcher and its intake work with."""

    database: RetryingDatabase
    signals: Signals
    admission: Admission


class Engine:
    """A queue that survives crashes.

    Args:
        store: The open database.
        make_backend: Makes the dispatcher and the intake of this kind of queue.

    Attributes:
        signals: Wake the dispatcher, and report news.
        in_flight, folders, rates, holds, budgets, results, intake: The parts of the queue.
    """

    def __init__(
        self, store: Database, make_backend: Callable[[QueueState], tuple[Dispatcher, JobIntake]]
    ) -> None:
        self.store = store
        self.signals = signals = Signals()
        self._database = database = RetryingDatabase(store, signals)
        self.in_flight = InFlight(signals)
        self.folders = FolderGate(signals)
        self.rates = ProviderRates(database.now)
        self.holds = HoldStore(database, signals, self.rates, self._void_claims)
        self._admission = Admission(self.in_flight, self.folders, self.holds, self.rates)
        self.budgets = BudgetStore(database, signals, self._admission, self._void_claims)
        self.results = ResultStore(database)
        self._dispatcher, self.intake = make_backend(QueueState(database, signals, self._admission))

    def _void_claims(self, db: Connection, scope: Scope) -> None:
        self._dispatcher.void_claims(db, scope)

    async def run(self, plan: Plan, attempt: AttemptJob, publish: PublishJob) -> None:
        """Call *attempt* and *publish* for due jobs until cancelled; a free slot comes before a claim.

        Cancelling returns the jobs in flight to the queue.
        """
        self.replan(plan)
        await self._dispatcher.run(JobRunner(self._database, self._admission, attempt, publish))

    async def drain(self, grace_seconds: float) -> None:
        """Claim nothing more; wait until the jobs in flight have ended, *grace_seconds* at most."""
        await self._dispatcher.drain(grace_seconds)

    def is_alive(self) -> bool:
        """Whether the dispatcher has looked at the queue lately."""
        return self._dispatcher.is_alive()

    def replan(self, plan: Plan) -> None:
        """Swap the plan; jobs in flight continue as they began."""
        self._admission.replan(plan)
        self.signals.wake.set()

    async def clear_stale_assignments(self) -> None:
        """After :meth:`replan`: no job waits for a provider that its folder's list no longer has."""
        plan, now = self._admission.plan, self.now()

        def clear(db: Connection) -> list[Job]:
            self._dispatcher.void_stale_claims(db, plan)
            return transactions.clear_stale_assignments(db, plan, now)

        for job in await self._database.do(clear):
            self.in_flight.at_provider.pop(job.id, None)
            log.warning("job.provider_removed", folder=job.folder, path=job.path, provider=job.provider)
        self.signals.wake.set()

    def pause_provider(self, provider: str, seconds: float) -> None:
        """Start nothing more at *provider* for *seconds*, an hour at most: it asked for it (429, 503)."""
        pause = self.rates.pause(provider, seconds)
        self._database.post(lambda db: hold_rows.write_pause(db, pause))
        self.signals.tell_news()

    async def wait_for_turn(self, provider: str) -> None:
        """Wait until *provider*'s rate allows one more request of a running attempt, and count it."""
        await self._dispatcher.wait_for_turn(provider)

    async def stats(self) -> Stats:
        """Counts and holds."""
        plan, in_flight = self._admission.plan, dict(self.in_flight.providers)
        return await self.store.do(lambda db: stats.read_stats(db, plan, self.now(), in_flight))

    async def can_go_on(self, horizon_seconds: float) -> bool:
        """Whether something is in flight, or can start within *horizon_seconds*.

        Holds stop a start, and pauses and rate limits that last longer.
        """
        if not self._dispatcher.runs_jobs:
            return False
        latest = self.now() + horizon_seconds
        next_starts = await self._dispatcher.next_starts()
        late = {provider for provider, at in next_starts.items() if at > latest}
        open_routes, folders = self._admission.open_routes(), self._admission.open_folders()

        def look(db: Connection) -> bool:
            due = [rows.next_due_at(db, name, routes) for name, routes in open_routes if name not in late]
            due += [result_rows.oldest_publishing_at(db, folder) for folder in folders]
            due += [0.0] if remote_rows.count_at_provider(db) else []
            return any(at is not None and at <= latest for at in due)

        is_due = await self._dispatcher.is_busy_elsewhere() or await self._database.do(look)
        # Checked last: a job that was claimed just before the query is not due, and is in flight only later.
        return is_due or self._admission.is_busy()

    async def begin_folders(self, asks: Mapping[str, bool], renamed: Mapping[str, str]) -> None:
        """Take over the jobs of renamed rules and mark the first start of new ones, before any listing.

        Args:
            asks: Folder → whether its rule asks before it takes a backlog.
            renamed: Old → new name.
        """

        def work(db: Connection) -> None:
            self.intake.rename_folders(db, renamed, asks.keys())
            backlog.begin(db, asks, self.now())

        await self.store.do(work)

    async def has_removed_folders(self, folders: Collection[str]) -> bool:
        """Whether jobs wait that belong to none of *folders*."""
        return bool((await self.store.do(stats.read_live_counts)).keys() - set(folders))

    async def prune(self, cache_keep_seconds: float, history_keep_seconds: float) -> bool:
        """Delete a few cached answers and ended jobs that are older; whether there may be more."""

        def work(db: Connection) -> bool:
            answers = result_cache.prune(db, self.now() - cache_keep_seconds)
            jobs = history.prune(db, self.now() - history_keep_seconds)
            return answers == result_cache.PRUNE_BATCH or jobs == history.PRUNE_BATCH

        return await self.store.do(work)

    def now(self) -> float:
        """Unix seconds by the queue's clock."""
        return self._database.now()

    @property
    def trouble(self) -> str | None:
        """Why nothing may be paid for now, or None."""
        return self._database.trouble
