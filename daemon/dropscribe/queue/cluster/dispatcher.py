"""Dispatches jobs on one node of a cluster: procrastinate distributes tickets, workers begin their jobs.

Guarantees: jobs in flight on a node that dies continue on another; a node that was thought dead and resumes
changes nothing, because the fences of its claims are outdated.
Diagnostics: StoreUnusable ends the run; while the database is away the node waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

from dropscribe.queue.cluster import nodes, orphan_recovery, ticket_rows
from dropscribe.queue.cluster.ticket_runner import LOOK_SECONDS, TicketRunner

if TYPE_CHECKING:
    from dropscribe.queue.cluster.nodes import Heartbeats, NodeStats
    from dropscribe.queue.cluster.worker_pool import WorkerPool
    from dropscribe.queue.engine import QueueState
    from dropscribe.queue.job_runner import JobRunner

_LONGEST_ROUND_SECONDS = 120.0
_TOGETHER_SECONDS = 0.02


class ClusterDispatcher:
    """See :class:`dropscribe.queue.backend.Dispatcher`.

    Args:
        heartbeats: This node's, sent while the dispatcher runs.
        workers: This node's; a *node* of the role watch runs none.
    """

    void_claims = staticmethod(ticket_rows.void_held)
    void_stale_claims = staticmethod(ticket_rows.void_removed_providers)

    def __init__(
        self, state: QueueState, node: NodeStats, heartbeats: Heartbeats, workers: WorkerPool
    ) -> None:
        self.runs_jobs = node.role != "watch"
        self._state = state
        self._database, self._signals, self._admission = state.database, state.signals, state.admission
        self._node = node.name
        self._heartbeats = heartbeats
        self._workers = workers
        self._tickets = TicketRunner(state, node.name)
        self._looked_at = time.monotonic()

    async def run(self, runner: JobRunner) -> None:
        """See the protocol."""
        await orphan_recovery.recover_own(self._state, self._node)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_queue())
            group.create_task(self._heartbeats.run(self._database, self._admission.in_flight))
            if self.runs_jobs:
                group.create_task(orphan_recovery.recover_silent(self._state, self._heartbeats))
                group.create_task(self._workers.run(partial(self._tickets.run, runner)))

    async def drain(self, grace_seconds: float) -> None:
        """See the protocol."""
        self._tickets.stop()
        await self._workers.stop(grace_seconds)
        self._database.post(lambda db: nodes.leave(db, self._node))

    def is_alive(self) -> bool:
        """See the protocol; true also while the database is away, since a restart would not help."""
        is_recent = time.monotonic() - self._looked_at < _LONGEST_ROUND_SECONDS
        return is_recent or self._database.trouble is not None

    async def is_busy_elsewhere(self) -> bool:
        """See the protocol."""
        hanging = self._admission.folders.hanging
        return await self._database.do(lambda db: ticket_rows.is_anything_in_flight(db, hanging))

    async def wait_for_turn(self, provider: str) -> None:
        """See the protocol: behind the requests of all nodes."""
        limits = self._admission.plan.providers.get(provider)
        if limits is not None and limits.requests_per_minute:
            starts_at = await self._database.do(
                lambda db: ticket_rows.reserve_start(db, limits, self._database.now())
            )
            await asyncio.sleep(max(0.0, starts_at - self._database.now()))

    async def next_starts(self) -> dict[str, float]:
        """See the protocol: over all nodes."""
        return await self._database.do(ticket_rows.read_next_starts)

    async def _look_at_queue(self) -> None:
        """Issue tickets, and refresh this node's copy of the holds, until cancelled."""
        while True:
            self._signals.wake.clear()
            self._workers.serve(self._admission.plan, self._admission.folders)
            kept = self._admission.holds
            changes = kept.changes
            holds, stops, pauses = await self._database.do(
                lambda db: ticket_rows.issue_tickets(db, self._admission.plan, self._database.now())
            )
            self._database.note_trouble(None)
            if changes == kept.changes:  # else a hold was made here after the look
                kept.replace_holds(holds)
                kept.replace_stops(stops)
                self._admission.rates.pauses = pauses
            self._looked_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min([LOOK_SECONDS, *self._admission.waits()])):
                    await self._signals.wake.wait()
            # Jobs that end at the same time share a look.
            await asyncio.sleep(_TOGETHER_SECONDS)
