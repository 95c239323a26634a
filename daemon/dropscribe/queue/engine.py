"""The queue: admission state, SQL operations and a dispatcher, joined.

The engine owns claims, holds and the state of every job, and calls :data:`~dropscribe.queue.model.AttemptJob`
and :data:`~dropscribe.queue.model.PublishJob`. No code above this package knows which database and which
dispatcher it has; :func:`open_engine` chooses them.
Guarantees: a stored result is published after any crash; an attempt that the end of the daemon interrupted
counts only towards ``max_crashes``; memory does not grow with the backlog.
Diagnostics: StoreUnusable and StoreError end the run; StoreFull and StoreBusy are waited out.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dropscribe.core.budget import day_of, stops_of
from dropscribe.core.errors import StoreUnusable
from dropscribe.core.model import ScopeKind
from dropscribe.files.crashpoint import reached
from dropscribe.queue.admission import Admission
from dropscribe.queue.embedded.dispatcher import EmbeddedDispatcher
from dropscribe.queue.intake import ClusterIntake, EmbeddedIntake
from dropscribe.queue.job_runner import JobRunner, log_abandoned
from dropscribe.queue.model import REOPENED
from dropscribe.queue.retrying_database import RetryingDatabase
from dropscribe.queue.sql import (
    backlog,
    budget_usage,
    claims,
    history,
    result_cache,
    result_rows,
    rows,
    stats,
    transactions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dropscribe.config.model import QueueConfig
    from dropscribe.core.budget import Account, Booking
    from dropscribe.core.model import AttemptEnd, Job, StoredResult
    from dropscribe.queue.cluster.dispatcher import ClusterDispatcher
    from dropscribe.queue.embedded.store import Store
    from dropscribe.queue.model import AttemptJob, Plan, PublishJob, Stats
    from dropscribe.queue.sql.database import Connection


class Engine:
    """A queue that survives crashes."""

    def __init__(
        self,
        admission: Admission,
        dispatcher: EmbeddedDispatcher | ClusterDispatcher,
        intake: EmbeddedIntake | ClusterIntake,
    ) -> None:
        self._admission = admission
        self.database, self.signals = admission.database, admission.signals
        self.store = admission.database.store  # whose calls fail at once, where those of *database* wait
        self.in_flight, self.folders = admission.in_flight, admission.folders
        self.rates, self.holds = admission.rates, admission.holds
        # These differ between one machine and a cluster.
        self.dispatcher, self.intake = dispatcher, intake

    async def run(self, plan: Plan, attempt: AttemptJob, publish: PublishJob) -> None:
        """Call *attempt* and *publish* for due jobs until cancelled; a free slot comes before a claim.

        Cancelling returns the jobs in flight to the queue.
        """
        self.replan(plan)
        await self.dispatcher.run(JobRunner(self._admission, attempt, publish))

    def replan(self, plan: Plan) -> None:
        """Swap the plan; jobs in flight continue as they began."""
        self._admission.replan(plan)
        self.signals.wake.set()

    async def clear_stale_assignments(self) -> None:
        """Free the jobs assigned to a provider that their folder's list no longer has; after a replan."""
        plan, now = self._admission.plan, self.now()
        log_abandoned(await self.database.do(lambda db: transactions.clear_stale_assignments(db, plan, now)))
        await self._admission.recount_at_provider()
        self.signals.wake.set()

    async def store_result(
        self,
        job: Job,
        result: StoredResult,
        ended: AttemptEnd,
        *,
        rejected: bool,
        booking: Booking | None = None,
    ) -> Job | None:
        """Store the result of an attempt and reserve the names of its files, before any file is written.

        A *rejected* job's result is an error document: the file goes to ``failed``. The *booking* is written
        in the same transaction. Returns the job in its new state; None when another live job has reserved one
        of the names.
        """

        def write(db: Connection) -> Job | None:
            moved = result_rows.store_result(db, job, result, ended, rejected=rejected)
            if moved is not None and booking is not None:
                transactions.book(db, job, result.document, booking, self.now())
            return moved

        try:
            moved = await self.database.do(write)
        except rows.LateTransitionError:
            # An earlier try may have stored it: its commit was made and the confirmation was lost. Then the
            # job has the names of that try; the later try took them for another job's.
            which, values = "jobs.id = ? AND fence = ?", (job.id, job.fence)
            found = await self.database.do(lambda db: result_rows.jobs_with_result(db, which, values))
            moved = found[0] if found else None
            if moved is None or moved.result is None or moved.result.document != result.document:
                raise
        if moved is not None:
            reached("kept")
        return moved

    async def check_budgets(self) -> Sequence[Account]:
        """Read every account; where one is spent, nothing is claimed until its day or month turns."""
        now, plan, read = self.now(), self._admission.plan, budget_usage.read_accounts
        accounts = await self.database.do(lambda db: read(db, plan.budgets, plan.zone, now))
        self.holds.replace_stops(stops_of(accounts))
        self.signals.wake.set()
        return accounts

    async def mark_once(self, mark: str) -> bool:
        """Whether the *mark* of a warning was never written, in this run or an earlier one; writes it."""
        today = day_of(self.now(), self._admission.plan.zone)
        return await self.database.do(lambda db: budget_usage.write_mark(db, mark, today))

    async def stats(self) -> Stats:
        """Counts and holds."""
        plan = self._admission.plan
        in_flight = Counter(upload.provider for upload in self.in_flight.uploads.values())
        return await self.store.read(lambda db: stats.read_stats(db, plan, self.now(), in_flight))

    async def can_go_on(self, horizon_seconds: float) -> bool:
        """Whether something is in flight, or can start within *horizon_seconds*.

        Holds whose probe is not due stop a start, pauses and rate limits that last longer, and a full disk of
        the state directory. So do polls of a provider's job that still fail after some minutes, and a program
        that has a file open for writing.
        """
        if not self.dispatcher.runs_jobs:
            return False
        if self._admission.is_busy():
            return True
        plan, latest = self._admission.plan, self.now() + horizon_seconds
        next_starts = await self.dispatcher.next_starts()
        late = {provider for provider, at in next_starts.items() if at > latest}
        routes = [(name, each) for name, each in self._admission.open_routes() if name not in late]
        folders = [name for name in plan.chains if name not in self.folders.closed]
        held = self.holds.held(ScopeKind.PROVIDER)
        requests = self._admission.requests()
        probes = [request for request in requests if request.is_probe and request.provider not in late]
        if self.dispatcher.trouble:
            routes, probes = [], []

        def look(db: Connection) -> bool:
            at_provider = Counter(rows.read_at_provider(db, plan.chains).values())
            full = {name for name, each in plan.providers.items() if at_provider[name] >= each.remote_jobs}
            due = [claims.next_due_at(db, name, each) for name, each in routes if name not in full]
            stored = f"{rows.HAS_RESULT} AND folder = ? AND (code <> ? OR due_at <= ?)"
            due += [rows.earliest_due(db, stored, (name, REOPENED, self.now())) for name in folders]
            if any(at is not None and at <= latest for at in due):
                return True
            if any(claims.has_waiting(db, each) for each in probes if each.provider not in full):
                return True
            return claims.is_poll_expected(db, plan.chains, held, self.now(), latest)

        is_due = await self.dispatcher.is_busy_elsewhere() or await self.database.do(look)
        # Checked again: a job that was claimed just before the query is not due, and is in flight only later.
        return is_due or self._admission.is_busy()

    async def begin_folders(self, asks: Mapping[str, bool], inboxes: Mapping[str, str]) -> None:
        """Take over the jobs of renamed rules and mark the first start of new ones, before any listing.

        By folder: whether its rule *asks* before it takes a backlog, and its inbox, which tells that a rule
        has another name now.
        """

        def work(db: Connection) -> None:
            self.intake.rename_folders(db, inboxes)
            backlog.begin(db, asks, self.now())

        await self.store.do(work)

    async def prune(self, cache_keep_seconds: float, history_keep_seconds: float) -> bool:
        """Delete a few cached answers and ended jobs that are older; whether there may be more."""

        def work(db: Connection) -> bool:
            answers = result_cache.prune(db, self.now() - cache_keep_seconds)
            jobs = history.prune(db, self.now() - history_keep_seconds)
            return answers == result_cache.PRUNE_BATCH or jobs == history.PRUNE_BATCH

        return await self.store.do(work)

    def now(self) -> float:
        """Unix seconds by the queue's clock."""
        return self.database.now()

    @property
    def trouble(self) -> str | None:
        """Reason why nothing may be paid for now, or None."""
        return self.database.trouble or self.dispatcher.trouble


def open_engine(queue: QueueConfig | None, own: Store) -> Engine:
    """The engine on *own* or on a cluster's database; the caller closes ``engine.store``.

    Raises:
        StoreAway: The cluster's database is unavailable now.
        StoreInUse: Another process of the cluster has this node's name.
        StoreUnusable: *own* holds answers that were paid for and not yet published, or the server refuses us.
    """
    if queue is None:
        admission = Admission(RetryingDatabase(own))
        return Engine(admission, EmbeddedDispatcher(admission, own), EmbeddedIntake(own))
    # The extra is installed where a config asks for it, and costs memory.
    from dropscribe.queue.cluster.dispatcher import ClusterDispatcher  # noqa: PLC0415
    from dropscribe.queue.cluster.postgres import MountMap  # noqa: PLC0415
    from dropscribe.queue.cluster.store import ClusterStore  # noqa: PLC0415

    _refuse_unpublished(own)
    store = ClusterStore(queue.dsn.reveal(), MountMap(queue.roots), queue.node)
    admission = Admission(RetryingDatabase(store))
    return Engine(admission, ClusterDispatcher(admission, store, queue), ClusterIntake(admission, store))


def _refuse_unpublished(own: Store) -> None:
    """An answer that was paid for stays in the queue that holds it, where a cluster would not find it."""
    counts = own.call(result_rows.count_stored_results).result()
    if counts:
        raise StoreUnusable(
            str(own.path),
            f"holds {sum(counts.values())} transcripts of {', '.join(counts)} that are not published yet",
            "remove `queue:` from the config, run `dropscribe run --once` with these folders in it, "
            "then add it again",
        )
