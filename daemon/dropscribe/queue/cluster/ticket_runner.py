"""Runs the jobs of tickets that this node's workers have fetched."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from dropscribe.files.crashpoint import reached
from dropscribe.queue.cluster import ticket_rows
from dropscribe.queue.sql.rows import SUSPECT_CRASHES

if TYPE_CHECKING:
    from dropscribe.core.model import Job
    from dropscribe.queue.cluster.slot_limiter import SlotLimiter
    from dropscribe.queue.engine import QueueState
    from dropscribe.queue.job_runner import JobRunner

LOOK_SECONDS = 1.0
"""Interval at which a node looks for changes by other nodes and for jobs that have come due."""


class TicketRunner:
    """Begins the job of a ticket, and calls its callbacks until nothing is left to do at once.

    Args:
        node: This node's name.
    """

    def __init__(self, state: QueueState, runner: JobRunner, slots: SlotLimiter, node: str) -> None:
        self._database, self._signals, self._admission = state.database, state.signals, state.admission
        self._runner = runner
        self._slots = slots
        self._node = node
        self._suspect = asyncio.Lock()

    async def run_attempt(self, job_id: int, ticket: int, provider: str) -> None:
        """Make the attempt of a ticket, and publish its result."""
        limits = self._admission.plan.providers.get(provider)
        if limits is None:
            return  # a reload has removed the provider; orphan_recovery frees the row
        async with self._slots.begun((job_id, ticket), limits) as job:
            if job is None:
                return
            reached("claimed")
            stored = await self._run_one(job)
        await self._run_all(stored)

    async def run_due(self, job_id: int, ticket: int) -> None:
        """Poll or publish the job of a ticket."""
        await self._run_all(
            await self._database.do(lambda db: ticket_rows.begin_due(db, job_id, ticket, self._node))
        )

    async def _run_all(self, job: Job | None) -> None:
        while job is not None:
            job = await self._run_one(job)

    async def _run_one(self, job: Job) -> Job | None:
        """One call of the job's callback; returns the job if its result is published next."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        is_suspect = job.crashes >= SUSPECT_CRASHES and job.result is None and job.remote is None
        async with self._suspect if is_suspect else contextlib.nullcontext():
            self._admission.in_flight.add(job, task)
            end = await self._runner.run(job)
        if end.again_in_seconds is not None and end.again_in_seconds < LOOK_SECONDS:
            asyncio.get_running_loop().call_later(end.again_in_seconds, self._signals.wake.set)
        return end.to_publish
