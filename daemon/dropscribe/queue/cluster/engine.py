"""The cluster's engine: rows on PostgreSQL, tickets drawn through procrastinate, any number of nodes.

Guarantees: those of :mod:`dropscribe.queue.rows_engine`, over all nodes. Submitting makes the row and its
ticket in one transaction; what is in flight on a node that dies goes on elsewhere; a node that was thought
dead and thaws changes nothing, because its claims' fence is past.
Diagnostics: StoreUnusable ends the run; while the database is away (:attr:`trouble`) the node waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreBusy
from dropscribe.core.model import Retry
from dropscribe.files.crashpoint import reached
from dropscribe.queue.cluster import dispatch, nodes, orphan_recovery, slot_limiter
from dropscribe.queue.cluster.node_registration import Membership
from dropscribe.queue.cluster.slot_limiter import SlotLimiter
from dropscribe.queue.cluster.worker_pool import END_SECONDS
from dropscribe.queue.rows_engine import FULL_LOOK_SECONDS, RowsEngine
from dropscribe.queue.sql import hold_rows, intake_queries, result_rows, rows, transactions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dropscribe.core.bookings import Booking
    from dropscribe.core.model import (
        AttemptEnd,
        Hold,
        Job,
        LiveRow,
        NewJob,
        Outcome,
        Scope,
        StoredResult,
        Submitted,
    )
    from dropscribe.core.retry import RetryLimits
    from dropscribe.queue.cluster.nodes import Node
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.cluster.worker_pool import WorkerPool
    from dropscribe.queue.engine import AttemptJob, Plan, PublishJob
    from dropscribe.queue.sql.database import Connection

log = structlog.get_logger()

FEED_SECONDS = 1.0
"""Interval at which a node looks for changes by other nodes and for jobs that have come due."""

_LONGEST_ROUND_SECONDS = 120.0
_TOGETHER_SECONDS = 0.02


class ClusterEngine(RowsEngine):
    """One node of a cluster; see :class:`dropscribe.queue.engine.Engine`.

    *draws* are this node's workers; a *node* of the role watch draws nothing.
    """

    def __init__(self, store: ClusterStore, draws: WorkerPool, limits: RetryLimits, node: Node) -> None:
        super().__init__(store, limits)
        self._cluster = store
        self._draws = draws
        self._node = node
        self._membership = Membership(store, self._durably, node)
        self._turns = SlotLimiter(store, self._durably, node.name)
        self._suspect = asyncio.Lock()
        self._turned_at = time.monotonic()
        self._hold_changes = 0
        self._devices: dict[tuple[str, bytes], int] = {}
        store.on_connect = self._connected

    def now(self) -> float:
        """See the base: the server's clock, for nodes' may be minutes apart."""
        return self._cluster.now()

    def take_name(self) -> None:
        """Be the node of this name, before anything else is done under it; blocks for a few seconds at most.

        Raises:
            StoreInUse: Another process of the cluster is.
        """
        self._membership.take_name()

    # The seam -------------------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """See the seam. Waits while the database is away: the files are safe in their inbox."""
        now = self.now()
        # Inodes and devices are each mount's own: the same file has others on the next node.
        new = [
            replace(job, stable_inodes=False, received_at=min(now, job.received_at + self._ahead_seconds))
            for job in jobs
        ]

        for job in new:
            self._devices[job.folder, rows.split_path(job.path)[0]] = job.snapshot.device

        def write(db: Connection) -> list[Submitted]:
            submitted = intake_queries.submit(db, new)
            if any(each.is_new for each in submitted):
                self._feed_in(db)
            return submitted

        submitted = await self._durably(write)
        reached("submitted")
        return submitted

    async def run(self, plan: Plan, attempt: AttemptJob, publish: PublishJob) -> None:
        """See the base."""
        self.replan(plan)
        self._attempt, self._publish = attempt, publish
        await self._recover()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._membership.beat(lambda: self.in_flight))
            if self._node.role != "watch":
                group.create_task(self._rescue())
                group.create_task(self._draws.run(self._take, self._take_due))

    async def store_result(
        self,
        job: Job,
        result: StoredResult,
        ended: AttemptEnd,
        *,
        rejected: bool,
        booking: Booking | None = None,
    ) -> Job | None:
        """See the seam. An answer that stood before the database went away in mid-commit stands."""
        try:
            return await super().store_result(job, result, ended, rejected=rejected, booking=booking)
        except rows.LateTransitionError:
            found = await self._durably(
                lambda db: result_rows.jobs_with_result(db, "jobs.id = ? AND fence = ?", (job.id, job.fence))
            )
            if not found or found[0].result is None or found[0].result.document != result.document:
                raise
            return found[0]  # under the names that stand, which the later tries took for somebody else's

    async def pause(self, hold: Hold) -> None:
        """See the seam. What was fed of it waits in its row again."""
        self._gate.holds[hold.scope] = hold
        self._hold_changes += 1
        shifted = _shift(hold, self._ahead_seconds)

        def write(db: Connection) -> None:
            hold_rows.write_hold(db, shifted)
            dispatch.void(db, hold.scope)

        await self._durably(write)
        self._hold_changes += 1
        reached("held")
        self._wake.set()

    async def resume(self, scope: Scope) -> Hold | None:
        """See the seam."""
        self._hold_changes += 1
        hold = await super().resume(scope)
        self._hold_changes += 1
        return hold

    async def wait_for_turn(self, provider: str) -> None:
        """See the interface: behind the requests of all nodes."""
        limits = self._gate.plan.providers.get(provider)
        if limits is not None and limits.requests_per_minute:
            starts_at = await self._durably(lambda db: slot_limiter.reserve_start(db, limits, self.now()))
            await asyncio.sleep(max(0.0, starts_at - self.now()))

    def probe_now(self, scope: Scope) -> None:
        """See the base."""
        super().probe_now(scope)
        if hold := self._gate.holds.get(scope):
            shifted = _shift(hold, self._ahead_seconds)
            self._cluster.post(lambda db: hold_rows.write_hold(db, shifted))
            self._wake.set()

    async def can_go_on(self, horizon_seconds: float) -> bool:
        """See the base. A node that only watches leaves the rest to the others."""
        if self._node.role == "watch":
            return False
        hanging = self._gate.hanging_folders()
        is_busy = await self.store.do(lambda db: dispatch.is_anything_in_flight(db, hanging))
        return is_busy or await super().can_go_on(horizon_seconds)

    async def drain(self, grace_seconds: float) -> None:
        """See the base."""
        self._turns.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._draws.stop()
        self._draws.cancel_drawn()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._draws.stop()
        self._cluster.post(lambda db: nodes.leave(db, self._node.name))

    def is_alive(self) -> bool:
        """See the base; a database that is away is no reason to be restarted."""
        return time.monotonic() - self._turned_at < _LONGEST_ROUND_SECONDS or self.trouble is not None

    def replan(self, plan: Plan) -> None:
        """See the base."""
        super().replan(plan)
        self._look_at_queues()

    def close_folder(self, folder: str, cause: str, reason: str) -> None:
        """See the seam: other nodes may still have what this one lacks."""
        super().close_folder(folder, cause, reason)
        self._look_at_queues()

    def open_folder(self, folder: str, cause: str) -> None:
        """See the seam."""
        super().open_folder(folder, cause)
        self._look_at_queues()

    async def clear_stale_assignments(self) -> None:
        """See the base. No worker may be left that listens to the lane of a removed provider."""
        plan = self._gate.plan
        await self._durably(lambda db: dispatch.void_removed_lanes(db, plan))
        await super().clear_stale_assignments()

    # The node -------------------------------------------------------------------------------------

    @property
    def _ahead_seconds(self) -> float:
        return self._cluster.clock_ahead_seconds

    def _connected(self, db: Connection) -> None:
        """In the store's thread: session locks went with the old connection."""
        self._membership.connected(db)
        self._turns.connected(db)

    async def _recover(self) -> None:
        def work(db: Connection) -> list[Job]:
            transactions.clear_stale_assignments(db, self._gate.plan, self.now())
            dispatch.void_removed_lanes(db, self._gate.plan)
            orphan_recovery.void_ended_tickets(db)
            return orphan_recovery.take_back_own(db, self._node.name, self.limits, self.now())

        orphan_recovery.tell_of_cut_off(await self._durably(work))
        reached("recovered")

    async def _rescue(self) -> None:
        """Take over what nodes had that are gone, until cancelled. Every node does it, none has to."""
        while True:
            await asyncio.sleep(orphan_recovery.LOOK_SECONDS)
            if self._membership.has_beaten_for(nodes.SILENT_SECONDS) and await self._rescue_once():
                self._wake.set()

    async def _rescue_once(self) -> bool:
        try:
            stalled = await self._draws.stalled()
        except OSError as error:
            log.debug("rescue.postponed", reason=str(error))
            return False
        limits = self.limits

        def work(db: Connection) -> tuple[dict[str, list[Job]], list[int]]:
            orphan_recovery.void_ended_tickets(db)
            return orphan_recovery.take_back_silent(db, stalled, limits, self.now())

        cut_off, void = await self._durably(work)
        orphan_recovery.tell_of_silent(cut_off)
        await self._draws.discard(void)
        return bool(cut_off or void)

    # Feeding --------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Keep the windows full and this node's memory of the holds fresh, until cancelled."""
        while True:
            self._wake.clear()
            changes = self._hold_changes
            with contextlib.suppress(StoreBusy):
                fed = await self._watched(self._feed_in)
                if changes == self._hold_changes:  # else a hold was made here after the look
                    self._remember(fed)
            self._turned_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min([FEED_SECONDS, *self._gate.waits()])):
                    await self._wake.wait()
            # What ends at the same time is fed for together.
            await asyncio.sleep(_TOGETHER_SECONDS)

    def _remember(self, fed: dispatch.Fed) -> None:
        ahead_seconds = self._ahead_seconds
        self._gate.holds = {hold.scope: _shift(hold, -ahead_seconds) for hold in fed.holds}
        self._gate.stops = {stop.scope: _shift(stop, -ahead_seconds) for stop in fed.stops}
        self._gate.pauses = dict(fed.pauses)

    async def _watched(self, work: Callable[[Connection], dispatch.Fed]) -> dispatch.Fed:
        try:
            fed = await self.store.do(work)
        except StoreBusy as error:
            self._note_trouble(f"{error.reason}: {error.path}")
            await asyncio.sleep(FULL_LOOK_SECONDS)
            raise
        self._note_trouble(None)
        return fed

    def _feed_in(self, db: Connection) -> dispatch.Fed:
        return dispatch.feed(db, self._gate.plan, lambda new: self._draws.issue(db, new), self.now())

    def _look_at_queues(self) -> None:
        plan = self._gate.plan
        ours = [folder for folder in plan.chains if plan.served is None or folder in plan.served]
        # Results are published into closed folders too: only trying shows whether the trouble is over.
        # A change of the list starts new workers, so what hangs holds no slot of theirs.
        hanging = self._gate.hanging_folders()
        publishing = [folder for folder in ours if folder not in hanging]
        self._draws.serve(plan, set(self._gate.open_folders()).intersection(ours), publishing)

    def _note_trouble(self, trouble: str | None) -> None:
        if trouble and not self.trouble:
            log.warning("queue.away", reason=trouble)
        elif self.trouble and not trouble:
            log.info("queue.back")
        self.trouble = trouble

    # One ticket -----------------------------------------------------------------------------------

    async def _take(self, job_id: int, ticket: int, provider: str) -> None:
        """Take the attempt that a ticket stands for, and publish what comes of it."""
        lane = self._gate.plan.providers.get(provider)
        if lane is None:
            return  # a reload has removed the provider; orphan_recovery frees the row
        async with self._turns.begun((job_id, ticket), lane) as job:
            if job is None:
                return
            reached("claimed")
            stored = await self._run_turn(job)
        await self._run_all_turns(stored)

    async def _take_due(self, job_id: int, ticket: int) -> None:
        job = await self._durably(lambda db: dispatch.draw_due(db, job_id, ticket, self._node.name))
        await self._run_all_turns(job)

    async def _run_all_turns(self, job: Job | None) -> None:
        while job is not None:
            job = await self._run_turn(job)

    async def _run_turn(self, job: Job) -> Job | None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._gate.running.add(job, task)
        self._tell_news()
        try:
            if job.crashes >= rows.SUSPECT_CRASHES and job.result is None and job.remote is None:
                async with self._suspect:
                    return await self._turn(job)
            return await self._turn(job)
        finally:
            self._finish(job)

    async def _record(self, job: Job, outcome: Outcome) -> Job | None:
        stored = await super()._record(job, outcome)
        if isinstance(outcome, Retry) and outcome.after_seconds < FEED_SECONDS:
            asyncio.get_running_loop().call_later(outcome.after_seconds, self._wake.set)
        return stored

    # What intake asks -----------------------------------------------------------------------------

    def withdraw(
        self, db: Connection, folder: str, places: list[tuple[bytes, bytes]], reason: str
    ) -> list[tuple[bytes, bytes]]:
        """See the base. What another node is publishing has left the inbox, and is not lost."""
        return dispatch.withdraw(db, folder, places, reason, self.now())

    def live(self, db: Connection, folder: str, directory: bytes) -> list[LiveRow]:
        """See the base. Device numbers are each node's own, and remembered here."""
        device = self._devices.get((folder, directory), 0)
        return [row._replace(device=device) for row in super().live(db, folder, directory)]

    def moved_device(self, db: Connection, folder: str, directory: bytes, device: int) -> None:  # noqa: ARG002 - the base's
        """See the base."""
        self._devices[folder, directory] = device


def _shift(hold: Hold, seconds: float) -> Hold:
    """Between this node's clock and the server's."""
    return replace(hold, since=hold.since + seconds, next_probe_at=hold.next_probe_at + seconds)
