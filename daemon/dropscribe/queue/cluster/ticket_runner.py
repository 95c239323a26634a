"""Runs the jobs of tickets that this node's workers have fetched.

Guarantees: at most a provider's slots are taken at once over all nodes, because attempts begin in the
transaction that counts them. One ticket of each provider and node tries to begin; the others wait behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreError
from dropscribe.core.retry import crash_wait_seconds
from dropscribe.files.crashpoint import reached
from dropscribe.queue.cluster import ticket_rows
from dropscribe.queue.sql import rows

if TYPE_CHECKING:
    from dropscribe.core.model import Job
    from dropscribe.queue.engine import QueueState
    from dropscribe.queue.job_runner import JobRunner
    from dropscribe.queue.model import ProviderLimits
    from dropscribe.queue.sql.database import Connection

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""Interval at which a node looks for changes by other nodes and for jobs that have come due.

A pause may be ended by another node's answer, and a ticket that waits be voided by a hold."""


class TicketRunner:
    """Begins the job of a ticket, and calls its callbacks until nothing is left to do at once.

    Args:
        node: This node's name.
    """

    def __init__(self, state: QueueState, node: str) -> None:
        self._database, self._signals, self._admission = state.database, state.signals, state.admission
        self._node = node
        self._suspect = asyncio.Lock()
        self._first: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._freed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._is_stopped = False

    def stop(self) -> None:
        """Begin nothing more: tickets that wait for a slot end, and other nodes get their jobs."""
        self._is_stopped = True
        for freed in self._freed.values():
            freed.set()

    async def run(self, runner: JobRunner, ticket: tuple[int, int], kind: str) -> None:
        """Make the attempt of a ticket, or poll its job, and publish the result.

        Args:
            ticket: (job id, ticket id).
            kind: A provider, or ``PUBLISH`` or ``POLL`` of :mod:`dropscribe.queue.cluster.ticket_rows`.
        """
        if kind in {ticket_rows.PUBLISH, ticket_rows.POLL}:
            job = await self._database.do(lambda db: ticket_rows.begin_due(db, ticket, self._node))
        else:
            job = await self._run_attempt(runner, ticket, kind)
        while job is not None:
            job = await self._run_one(runner, job)

    async def _run_attempt(self, runner: JobRunner, ticket: tuple[int, int], provider: str) -> Job | None:
        limits = self._admission.plan.providers.get(provider)
        if limits is None:
            return None  # a reload has removed the provider; orphan_recovery frees the row
        job = await self.begin(ticket, limits)
        if job is None:
            return None
        reached("claimed")
        try:
            return await self._run_one(runner, job)
        except StoreError:
            # A statement that the database refuses is a bug; the row must not keep its slot for it.
            log.exception("job.bug", folder=job.folder, path=job.path)
            wait_seconds = crash_wait_seconds(self._admission.plan.retry, job.crashes + 1)
            self._database.post(
                lambda db: rows.requeue_interrupted(db, job, self._database.now() + wait_seconds)
            )
            return None
        finally:
            self._freed[provider].set()

    async def begin(self, ticket: tuple[int, int], limits: ProviderLimits) -> Job | None:
        """Begin the attempt of a ticket, once a slot is free; None where the ticket is void."""
        task = asyncio.current_task()

        def work(db: Connection) -> Job | float | None:
            if task is not None and task.cancelling():
                return None  # cancelled while this transaction waited: no coroutine would run the attempt
            closed, now = self._admission.folders.closed, self._database.now()
            return ticket_rows.begin_attempt(db, ticket, limits, closed, self._node, now)

        async with self._first[limits.provider]:
            freed = self._freed[limits.provider]
            while not self._is_stopped:
                freed.clear()
                begun = await self._database.do(work)
                if not isinstance(begun, float):
                    return begun
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(begun, LOOK_SECONDS)):
                        await freed.wait()
        return None

    async def _run_one(self, runner: JobRunner, job: Job) -> Job | None:
        """One call of the job's callback; returns the job if its result is published next."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        is_suspect = job.crashes >= rows.SUSPECT_CRASHES and job.result is None and job.remote is None
        async with self._suspect if is_suspect else contextlib.nullcontext():
            self._admission.in_flight.add(job, task)
            end = await runner.run(job)
        if end.again_in_seconds is not None and end.again_in_seconds < LOOK_SECONDS:
            asyncio.get_running_loop().call_later(end.again_in_seconds, self._signals.wake.set)
        return end.to_publish
