"""Dispatches jobs of the embedded engine: one loop claims jobs for free slots, and starts a task for each."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from dropscribe.core.errors import StoreBusy, StoreFull
from dropscribe.core.model import Job, ResultStored, Retry
from dropscribe.files.crashpoint import reached
from dropscribe.queue import retrying_database
from dropscribe.queue.admission import Admission
from dropscribe.queue.embedded.store import trouble_of_disk
from dropscribe.queue.job_runner import JobRunner, log_abandoned, log_interrupted
from dropscribe.queue.model import POLLING_SLOTS
from dropscribe.queue.sql import claims, hold_rows, rows, transactions
from dropscribe.queue.sql.database import Connection

log = structlog.get_logger()

PUBLISHING_SLOTS = 128  # Jobs whose files are being written at once; a folder has half of them at most
_LONGEST_SLEEP_SECONDS = 60.0
_SEARCH_GAP_SECONDS = 1.0
_CLOCK_STEP_SECONDS = 1.0  # a clock that is adjusted gradually moves less between two looks
_LONGEST_TURN_SECONDS = 1.0  # a pause may be ended while a running attempt waits for its next request


class EmbeddedDispatcher:
    """Claims jobs that may start now and runs them, whenever ``Signals.wake`` is set.

    Almost every result is published by the task that stored it. A search for stored results finds those of an
    earlier run, those without a free publishing slot, and those whose disk was full. It is made once a
    second, when one that was deferred is due, and for a folder that had no slot when it gets one.

    The disk of *state_dir* must have room for an answer before anything is claimed.
    """

    runs_jobs = True  # as a cluster's node may not

    def __init__(self, admission: Admission, state_dir: Path) -> None:
        self._admission = admission
        self._database, self._signals = admission.database, admission.signals
        self._state_dir = state_dir
        self._looked_at = time.monotonic()
        self._clock_ahead_seconds = self._database.now() - self._looked_at
        self._search_at = 0.0  # monotonic
        self._without_room: set[str] = set()  # folders that had no slot for a further publication
        self._has_recovered, self._draining = False, False
        self._claimed_last = asyncio.Event()

    async def run(self, runner: JobRunner) -> None:
        """Recover interrupted jobs, then claim and run jobs until cancelled."""
        await self._recover()
        async with asyncio.TaskGroup() as group:
            while True:
                self._signals.wake.clear()
                sleep_seconds = await self._dispatch(group, runner)
                self._looked_at = time.monotonic()
                try:
                    async with asyncio.timeout(sleep_seconds):
                        await self._signals.wake.wait()
                except TimeoutError:
                    self._search_at = 0.0  # a stored result may be due

    async def drain(self, grace_seconds: float) -> None:
        """Claim nothing more; wait until the jobs in flight have ended, *grace_seconds* at most."""
        self._draining = True
        self._signals.wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._claimed_last.wait()  # a claim under way still gets its task
                while tasks := list(self._admission.in_flight.tasks.values()):
                    await asyncio.wait(tasks)

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
        if trouble_of_disk(self._state_dir):
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

    async def _dispatch(self, group: asyncio.TaskGroup, runner: JobRunner) -> float:
        """Start jobs in free slots; returns the seconds until something can change by itself."""
        if self._draining:
            self._claimed_last.set()
            return _LONGEST_SLEEP_SECONDS
        self._note_clock()
        # Computed first: a wait that ends while the queue is read must not be slept over.
        waits_until = [time.monotonic() + seconds for seconds in self._admission.waits()]
        # Uploads stop before they are paid for, if their answers could not be stored.
        self._database.note_trouble(trouble_of_disk(self._state_dir))
        requests = [] if self._database.trouble else self._admission.requests()
        if time.monotonic() < self._search_at:
            waits_until.append(self._search_at)
        limits = self._limits()
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
            self._start(group, runner, job)
        for job in due:
            self._start_due(group, runner, job)
        self._note_room(self._admission.rooms(PUBLISHING_SLOTS))
        return self._sleep_seconds(next_at, waits_until)

    def _limits(self) -> claims.Limits:
        in_flight, now = self._admission.in_flight, time.monotonic()
        polls = POLLING_SLOTS - len(in_flight.polling) if in_flight.at_provider else 0
        rooms = self._admission.rooms(PUBLISHING_SLOTS)
        if now >= self._search_at:
            self._search_at = now + _SEARCH_GAP_SECONDS
            self._note_room(rooms)
        else:
            rooms = {folder: room for folder, room in rooms.items() if folder in self._without_room}
        self._without_room -= rooms.keys()
        publications = PUBLISHING_SLOTS - self._admission.publications() if rooms else 0
        # An attempt too: a row has its result before its attempt has ended in memory.
        running = tuple(in_flight.tasks)
        folders = self._admission.plan.chains
        return claims.Limits(in_flight.suspects(), polls, publications, rooms, folders, running)

    def _note_room(self, rooms: Mapping[str, int]) -> None:
        """Note the folders without room: they may have more stored results than a search has found."""
        self._without_room |= self._admission.plan.chains.keys() - rooms.keys()

    def _sleep_seconds(self, next_at: float | None, waits_until: list[float]) -> float:
        waits = self._admission.waits() + [at - time.monotonic() for at in waits_until]
        if next_at is not None:
            waits.append(next_at - self._database.now())
        if self._database.trouble:
            waits.append(retrying_database.RETRY_SECONDS)
        return max(0.001, min([_LONGEST_SLEEP_SECONDS, *waits]))

    def _start(self, group: asyncio.TaskGroup, runner: JobRunner, job: Job) -> None:
        task = group.create_task(self._run_job(group, runner, job), name=f"job {job.id}")
        self._admission.in_flight.add(job, task)

    def _start_due(self, group: asyncio.TaskGroup, runner: JobRunner, job: Job) -> None:
        """Poll or publish *job*, unless it runs already, its folder is gone or hangs, or no slot is free."""
        in_flight = self._admission.in_flight
        if job.id in in_flight.tasks or job.folder not in self._admission.plan.chains:
            return
        if job.result is None:
            is_free = len(in_flight.polling) < POLLING_SLOTS
        elif not (is_free := job.folder in self._admission.rooms(PUBLISHING_SLOTS)):
            self._without_room.add(job.folder)
        if is_free:
            self._start(group, runner, job)

    async def _run_job(self, group: asyncio.TaskGroup, runner: JobRunner, job: Job) -> None:
        if job.result is None and job.remote is None:
            reached("claimed")
        outcome = await runner.run(job)
        if isinstance(outcome, Retry) and job.state.has_result:
            self._search_at = min(self._search_at, time.monotonic() + outcome.after_seconds)
        if isinstance(outcome, ResultStored):
            self._start_due(group, runner, outcome.job)
