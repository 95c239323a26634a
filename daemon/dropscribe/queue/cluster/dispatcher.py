"""Dispatches jobs on one node of a cluster: procrastinate distributes tickets, workers begin their jobs.

Guarantees: jobs in flight on a node that dies continue on another; a node that was thought dead and resumes
changes nothing, because the fences of its claims are outdated. At most a provider's slots are taken at once
over all nodes, because attempts begin in the transaction that counts them.
Diagnostics: StoreUnusable ends the run; while the database is away the node waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import socket
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dropscribe import __version__
from dropscribe.core.errors import StoreBusy, StoreError, StoreFull
from dropscribe.core.retry import crash_wait_seconds
from dropscribe.queue.cluster import nodes, ticket_rows
from dropscribe.queue.cluster.ticket_workers import TicketWorkers
from dropscribe.queue.job_tasks import JobTasks
from dropscribe.queue.model import STUCK, NodeStats
from dropscribe.queue.retrying_database import RETRY_SECONDS
from dropscribe.queue.sql import transactions

if TYPE_CHECKING:
    from dropscribe.config.model import QueueConfig
    from dropscribe.core.model import Job, Outcome
    from dropscribe.queue.admission import Admission
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.job_runner import JobRunner
    from dropscribe.queue.sql.database import Connection

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""Interval at which a node looks for changes by other nodes and for jobs that have come due."""

_OUTAGE_SECONDS = 30.0  # after an outage the workers need some time for new connections
_LONGEST_ROUND_SECONDS = 120.0  # after this time without a look at the queue the node counts as hanging
_TOGETHER_SECONDS = 0.02  # jobs that end within this time share a look


class ClusterDispatcher:
    """The cluster's counterpart of EmbeddedDispatcher; with the role watch it runs no jobs."""

    def __init__(self, admission: Admission, store: ClusterStore, queue: QueueConfig) -> None:
        self.runs_jobs = queue.role != "watch"
        self._admission = admission
        self._database, self._signals = admission.database, admission.signals
        now = store.now()
        node = NodeStats(queue.node, socket.gethostname(), queue.role, __version__, now, now, in_flight=0)
        self._node = queue.node
        self._heartbeats = nodes.Heartbeats(store, node)
        self._workers = TicketWorkers(queue.dsn.reveal(), queue.node)
        self._tickets = TicketRunner(admission, queue.node)
        self._looked_at, self._away_at = time.monotonic(), -math.inf
        self.trouble: str | None = None  # Why this node fetches no tickets, though its rows can be written

    async def run(self, runner: JobRunner) -> None:
        """Recover this node's interrupted jobs, then begin the jobs of tickets until cancelled."""
        await nodes.recover_own(self._admission, self._node)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = JobTasks(self._admission, group, partial(self._run_one, runner))
                group.create_task(self._look_at_queue(tasks))
                group.create_task(self._heartbeats.run(self._database, self._admission.in_flight))
                if self.runs_jobs:
                    group.create_task(nodes.recover_silent(self._admission, self._heartbeats))
                    group.create_task(self._workers.run(partial(self._tickets.take, tasks, group)))
        except asyncio.CancelledError:
            self._database.post(lambda db: db.execute("DELETE FROM nodes WHERE name = ?", (self._node,)))
            raise

    async def drain(self, grace_seconds: float) -> None:
        """Begin nothing more; wait until the jobs in flight have ended, *grace_seconds* at most."""
        self._tickets.stopped.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._workers.stop()
                await self._tickets.ended()
                await self._admission.in_flight.ended()

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
            now = self._database.now
            starts_at = await self._database.do(lambda db: ticket_rows.reserve_start(db, limits, now()))
            await asyncio.sleep(max(0.0, starts_at - now()))

    async def next_starts(self) -> dict[str, float]:
        """Unix seconds until which a pause or its rate limit stops a provider's next request, by provider."""
        return await self._database.do(ticket_rows.read_next_starts)

    async def _look_at_queue(self, tasks: JobTasks) -> None:
        """Issue tickets, begin polls and publications, and refresh this node's copy of the holds."""
        own = self._admission
        while True:
            self._signals.wake.clear()
            self._workers.serve(own)
            try:
                await self._look(tasks)
            except (StoreFull, StoreBusy) as error:
                self._database.note_trouble(error)
                self._away_at = time.monotonic()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._database.note_trouble(None)
            self._looked_at = time.monotonic()
            self._note_refusal()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min([LOOK_SECONDS, *own.waits()])):
                    await self._signals.wake.wait()
            # Jobs that end at the same time share a look.
            await asyncio.sleep(_TOGETHER_SECONDS)

    def _note_refusal(self) -> None:
        before, since_outage = self.trouble, time.monotonic() - self._away_at
        self.trouble = (self._workers.refusal if since_outage > _OUTAGE_SECONDS else "") or None
        if self.trouble and not before:
            log.warning("workers.refused", reason=self.trouble)
        elif before and not self.trouble:
            log.info("workers.back")
        if self.trouble != before:
            self._signals.news.set()

    async def _look(self, tasks: JobTasks) -> None:
        own, changes = self._admission, self._admission.holds.changes
        limits = tasks.limits() if self.runs_jobs and not self._tickets.stopped.is_set() else None
        stuck = own.folders.closed_by(STUCK)

        def work(db: Connection) -> tuple[Admission, list[Job], frozenset[str]]:
            now = self._database.now()
            due = ticket_rows.claim_due(db, limits, self._node, now) if limits else []
            return ticket_rows.issue_tickets(db, own, now), due, ticket_rows.not_stuck(db, stuck, self._node)

        # Not repeated where it fails: the jobs that run here would be others by then.
        whole, due, reopened = await self._database.store.do(work)
        tasks.start_due(due)
        for folder in reopened:
            own.folders.open(folder, STUCK)
        own.in_flight.at_provider = whole.in_flight.at_provider
        if changes == own.holds.changes:  # else a hold was made here after the look
            own.holds.replace_by(whole.holds)
            own.rates.pauses = whole.rates.pauses

    async def _run_one(self, runner: JobRunner, job: Job) -> Outcome | None:
        """One call of the job's callback; None also where its outcome cannot be written."""
        try:
            return await runner.run(job)
        except StoreError:
            # A statement that the database refuses is a bug; the row must not keep its slot for it.
            log.exception("job.bug", folder=job.folder, path=job.path)
            retry, write = self._admission.plan.retry, transactions.set_due
            wait_seconds = retry.max_seconds
            if job.result is None and job.remote is None:
                write = transactions.requeue_interrupted
                wait_seconds = crash_wait_seconds(retry, job.crashes + 1)
            self._database.post(lambda db: write(db, job, self._database.now() + wait_seconds))
            return None


class TicketRunner:
    """Claims and runs jobs for the tickets that this node's workers have fetched."""

    def __init__(self, admission: Admission, node: str) -> None:
        self._admission = admission
        self._database = admission.database
        self._node = node
        self._first: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._running: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self.stopped = asyncio.Event()  # Set when nothing more is to be claimed: other nodes get the jobs

    def take(self, tasks: JobTasks, group: asyncio.TaskGroup, provider: str) -> None:
        """Use a ticket of *provider*: in a task of *group*, unless all of its slots have one here."""
        limits, running = self._admission.plan.providers.get(provider), self._running[provider]
        if limits is not None and len(running) < limits.slots:
            task = group.create_task(self._run(tasks, provider), name=f"ticket {provider}")
            running.add(task)
            task.add_done_callback(running.discard)

    async def ended(self) -> None:
        """Wait until all tickets are used; after :attr:`stopped` each claims nothing more."""
        while running := set().union(*self._running.values()):
            await asyncio.wait(running)

    async def _run(self, tasks: JobTasks, provider: str) -> None:
        """Claim and run jobs of *provider*, until none may start or another node's turn has come."""
        task, until = asyncio.current_task(), time.monotonic() + ticket_rows.TURN_SECONDS
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        while (job := await self.claim(provider)) is not None:
            self._admission.in_flight.add(job, task)
            await tasks.run(job)
            if time.monotonic() >= until:
                return

    async def claim(self, provider: str) -> Job | None:
        """The job of *provider* that was begun; None where none may start. Waits a little for its rate."""
        task, claim_id = asyncio.current_task(), secrets.randbits(63)

        def work(db: Connection) -> Job | float | None:
            if task is not None and task.cancelling():
                return None  # cancelled while this transaction waited: no coroutine would run the attempt
            now = self._database.now()
            return ticket_rows.claim(db, self._admission, provider, claim_id, self._node, now)

        limits = self._admission.plan.providers.get(provider)
        # One waits for the rate, the others behind it. Other claims that wait share a transaction.
        has_rate = limits is not None and limits.requests_per_minute is not None
        async with self._first[provider] if has_rate else contextlib.nullcontext():
            while not self.stopped.is_set():
                claimed = await self._database.do(work)
                if not isinstance(claimed, float):
                    return claimed
                if claimed > ticket_rows.TURN_SECONDS:
                    return None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(claimed):
                        await self.stopped.wait()
        return None
