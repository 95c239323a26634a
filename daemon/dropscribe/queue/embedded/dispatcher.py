"""Dispatches jobs of the embedded engine: one loop claims jobs for free slots, and starts a task for each."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from dataclasses import replace

import structlog

from dropscribe.core.errors import StoreBusy, StoreFull
from dropscribe.core.model import Job
from dropscribe.files.crashpoint import reached
from dropscribe.queue import retrying_database
from dropscribe.queue.admission import Admission
from dropscribe.queue.embedded.store import Store
from dropscribe.queue.job_runner import JobRunner, log_abandoned, log_interrupted
from dropscribe.queue.job_tasks import JobTasks
from dropscribe.queue.sql import claims, hold_rows, rows, transactions
from dropscribe.queue.sql.database import Connection, marks

log = structlog.get_logger()

_LONGEST_SLEEP_SECONDS = 60.0
_CLOCK_STEP_SECONDS = 1.0  # a clock that is adjusted gradually moves less between two looks
_LONGEST_TURN_SECONDS = 1.0  # a pause may be ended while a running attempt waits for its next request


class EmbeddedDispatcher:
    """Claims jobs that may start now and runs them, whenever ``Signals.wake`` is set.

    The disk of *store* must have room for an answer before anything is claimed.
    """

    runs_jobs = True  # as a cluster's node may not
    trouble: str | None = None  # as a cluster's node may have, beside the database's

    def __init__(self, admission: Admission, store: Store) -> None:
        self._admission = admission
        self._database, self._signals = admission.database, admission.signals
        self._store = store
        self._looked_at = time.monotonic()
        self._clock_ahead_seconds = self._database.now() - self._looked_at
        self._has_recovered, self._draining = False, False
        self._claimed_last = asyncio.Event()

    async def run(self, runner: JobRunner) -> None:
        """Recover interrupted jobs, then claim and run jobs until cancelled."""
        await self._recover()
        async with asyncio.TaskGroup() as group:
            tasks = JobTasks(self._admission, group, runner.run)
            while True:
                self._signals.wake.clear()
                sleep_seconds = await self._dispatch(tasks)
                self._looked_at = time.monotonic()
                try:
                    async with asyncio.timeout(sleep_seconds):
                        await self._signals.wake.wait()
                except TimeoutError:
                    tasks.search_at = 0.0  # a stored result may be due

    async def drain(self, grace_seconds: float) -> None:
        """Claim nothing more; wait until the jobs in flight have ended, *grace_seconds* at most."""
        self._draining = True
        self._signals.wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._claimed_last.wait()  # a claim under way still gets its task
                await self._admission.in_flight.ended()

    def is_alive(self) -> bool:
        """Whether it has looked at the queue lately."""
        return time.monotonic() - self._looked_at < 2 * _LONGEST_SLEEP_SECONDS

    async def is_busy_elsewhere(self) -> bool:
        """Whether jobs of the run before have still to be recovered; there is one node."""
        return not self._has_recovered

    async def wait_for_turn(self, provider: str) -> None:
        """Wait until *provider*'s rate allows one more request of a running attempt, and count it."""
        while wait_seconds := self._admission.rates.start_in(provider):  # noqa: ASYNC110  # for time itself
            await asyncio.sleep(min(wait_seconds, _LONGEST_TURN_SECONDS))

    async def next_starts(self) -> dict[str, float]:
        """Unix seconds until which a pause or its rate limit stops a provider's next request, by provider.

        Nobody knows how long a full disk of the state directory stops all requests.
        """
        if self._store.trouble():
            return dict.fromkeys(self._admission.plan.providers, math.inf)
        return self._admission.rates.next_starts()

    async def _recover(self) -> None:
        admission = self._admission

        def work(db: Connection) -> tuple[list[Job], list[Job]]:
            requeued = transactions.recover(db, admission.plan, self._database.now())
            # Probed at once: the restart may follow a new key or a repair, which the rows do not know.
            holds = [replace(hold, next_probe_at=self._database.now()) for hold in hold_rows.read_holds(db)]
            admission.holds.replace_holds(holds)
            admission.rates.recall(db)
            admission.in_flight.at_provider = rows.read_at_provider(db, admission.plan.chains)
            return requeued

        cut_off, abandoned = await self._database.store.do(work)
        self._has_recovered = True
        reached("recovered")
        self._signals.news.set()  # the holds, pauses and rate limits of the run before
        log_interrupted(cut_off)
        log_abandoned(abandoned)

    def _note_clock(self) -> None:
        """Notice a step of the clock, by its distance to the monotonic one."""
        before = self._clock_ahead_seconds
        self._clock_ahead_seconds = self._database.now() - time.monotonic()
        set_back_seconds = before - self._clock_ahead_seconds
        if set_back_seconds >= _CLOCK_STEP_SECONDS:
            log.warning("clock.set_back", seconds=round(set_back_seconds, 1))
            self._admission.set_clock_back(set_back_seconds)
        elif -set_back_seconds >= _CLOCK_STEP_SECONDS:  # what waits for a time is only early
            self._database.post(lambda db: transactions.set_remote_jobs_forward(db, -set_back_seconds))

    async def _dispatch(self, tasks: JobTasks) -> float:
        """Start jobs in free slots; returns the seconds until something can change by itself."""
        if self._draining:
            self._claimed_last.set()
            return _LONGEST_SLEEP_SECONDS
        self._note_clock()
        # Computed first: a wait that ends while the queue is read must not be slept over.
        waits_until = [time.monotonic() + seconds for seconds in self._admission.waits()]
        # Uploads stop before they are paid for, if their answers could not be stored.
        trouble = self._store.trouble()
        if trouble and not isinstance(trouble, StoreFull) and not await self._has_paid():
            raise trouble
        self._database.note_trouble(trouble)
        requests = [] if self._database.trouble else self._admission.requests()
        if time.monotonic() < tasks.search_at:
            waits_until.append(tasks.search_at)
        limits = tasks.limits()
        if not requests and not limits.publications and not limits.polls:
            return self._sleep_seconds(None, waits_until)  # freeing a slot of any kind wakes the loop
        try:
            claimed, due, next_at = await self._database.store.do(
                lambda db: claims.claim(db, requests, limits, self._database.now())
            )
        except (StoreFull, StoreBusy) as error:
            self._database.note_trouble(error)
            return retrying_database.RETRY_SECONDS
        for job in claimed:
            self._admission.rates.started(job.provider)
            self._admission.note_turn(job)
            tasks.start(job)
        tasks.start_due(due)
        return self._sleep_seconds(next_at, waits_until)

    async def _has_paid(self) -> bool:
        """Whether anything is under way, at a provider or answered: without its row it is paid for again."""
        folders = self._admission.plan.chains
        which = f"({rows.HAS_RESULT} OR {rows.AT_PROVIDER}) AND folder IN ({marks(folders)})"

        def look(db: Connection) -> bool:
            return db.execute(f"SELECT 1 FROM jobs WHERE {which}", tuple(folders)).fetchone() is not None

        return self._admission.is_busy() or await self._database.store.do(look)

    def _sleep_seconds(self, next_at: float | None, waits_until: list[float]) -> float:
        waits = self._admission.waits() + [at - time.monotonic() for at in waits_until]
        if next_at is not None:
            waits.append(next_at - self._database.now())
        if self._database.trouble:
            waits.append(retrying_database.RETRY_SECONDS)
        return max(0.001, min([_LONGEST_SLEEP_SECONDS, *waits]))
