"""Dispatches jobs on one node of a cluster: procrastinate distributes tickets, workers begin their jobs.

Guarantees: jobs in flight on a node that dies continue on another; a node that was thought dead and resumes
changes nothing, because the fences of its claims are outdated. At most a provider's slots are taken at once
over all nodes, because attempts begin in the transaction that counts them.
Diagnostics: StoreUnusable ends the run; while the database is away the node waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dropscribe import __version__
from dropscribe.core.errors import StoreError
from dropscribe.core.model import ResultStored, Retry
from dropscribe.core.retry import crash_wait_seconds
from dropscribe.files.crashpoint import reached
from dropscribe.queue.cluster import nodes, ticket_rows
from dropscribe.queue.cluster.worker_pool import WorkerPool
from dropscribe.queue.model import NodeStats
from dropscribe.queue.sql import transactions
from dropscribe.queue.sql.claims import SUSPECT_CRASHES

if TYPE_CHECKING:
    from dropscribe.config.model import QueueConfig
    from dropscribe.core.model import Job
    from dropscribe.queue.admission import Admission
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.job_runner import JobRunner
    from dropscribe.queue.model import ProviderLimits
    from dropscribe.queue.sql.database import Connection

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""Interval at which a node looks for changes by other nodes and for jobs that have come due.

A pause may be ended by another node's answer, and a ticket that waits be voided by a hold."""

_LONGEST_ROUND_SECONDS = 120.0
_TOGETHER_SECONDS = 0.02


class ClusterDispatcher:
    """As :class:`~dropscribe.queue.embedded.dispatcher.EmbeddedDispatcher`; the role watch runs no jobs."""

    def __init__(self, admission: Admission, store: ClusterStore, queue: QueueConfig) -> None:
        self.runs_jobs = queue.role != "watch"
        self._admission = admission
        self._database, self._signals = admission.database, admission.signals
        now = store.now()
        node = NodeStats(queue.node, socket.gethostname(), queue.role, __version__, now, now, in_flight=0)
        self._node = queue.node
        self._heartbeats = nodes.Heartbeats(store, node)
        self._workers = WorkerPool(queue.dsn.reveal(), queue.node)
        self._tickets = TicketRunner(admission, queue.node)
        self._looked_at = time.monotonic()

    async def run(self, runner: JobRunner) -> None:
        """Recover this node's interrupted jobs, then begin the jobs of tickets until cancelled."""
        await nodes.recover_own(self._admission, self._node)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_queue())
            group.create_task(self._heartbeats.run(self._database, self._admission.in_flight))
            if self.runs_jobs:
                group.create_task(nodes.recover_silent(self._admission, self._heartbeats))
                group.create_task(self._workers.run(partial(self._tickets.run, runner)))

    async def drain(self, grace_seconds: float) -> None:
        """Begin nothing more; wait until the jobs in flight have ended, *grace_seconds* at most."""
        self._tickets.stop()
        await self._workers.stop(grace_seconds)
        self._database.post(lambda db: nodes.leave(db, self._node))

    def is_alive(self) -> bool:
        """Whether it has looked at the queue lately, or waits for the database: a restart would not help."""
        is_recent = time.monotonic() - self._looked_at < _LONGEST_ROUND_SECONDS
        return is_recent or self._database.trouble is not None

    async def is_busy_elsewhere(self) -> bool:
        """Whether jobs are in flight on any node."""
        hanging = self._admission.folders.hanging
        return await self._database.do(lambda db: ticket_rows.is_anything_in_flight(db, hanging))

    async def wait_for_turn(self, provider: str) -> None:
        """Wait until *provider*'s rate allows one more request, behind those of all nodes, and count it."""
        limits = self._admission.plan.providers.get(provider)
        if limits is not None and limits.requests_per_minute:
            starts_at = await self._database.do(
                lambda db: ticket_rows.reserve_start(db, limits, self._database.now())
            )
            await asyncio.sleep(max(0.0, starts_at - self._database.now()))

    async def next_starts(self) -> dict[str, float]:
        """Unix seconds until which a pause or its rate limit stops a provider's next request, by provider."""
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


class TicketRunner:
    """Begins the jobs of tickets that this node's workers have fetched, and calls their callbacks.

    One ticket of each provider tries to begin; the others wait behind it.
    """

    def __init__(self, admission: Admission, node: str) -> None:
        self._admission = admission
        self._database, self._signals = admission.database, admission.signals
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
            kind: A provider, ``ticket_rows.PUBLISH`` or ``ticket_rows.POLL``.
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
            return None  # a reload has removed the provider; recovery frees the row
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
                lambda db: transactions.requeue_interrupted(db, job, self._database.now() + wait_seconds)
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
            left = ticket_rows.limits_left(db, limits, self._admission.plan.chains)
            return ticket_rows.begin_attempt(db, ticket, left, closed, self._node, now)

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
        is_suspect = job.crashes >= SUSPECT_CRASHES and job.result is None and job.remote is None
        async with self._suspect if is_suspect else contextlib.nullcontext():
            self._admission.in_flight.add(job, task)
            outcome = await runner.run(job)
        if isinstance(outcome, Retry) and outcome.after_seconds < LOOK_SECONDS:
            asyncio.get_running_loop().call_later(outcome.after_seconds, self._signals.wake.set)
        return outcome.job if isinstance(outcome, ResultStored) else None
