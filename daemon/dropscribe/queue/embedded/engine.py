"""The embedded engine: one process, one SQLite file, no server.

Guarantees: those of :mod:`dropscribe.queue.rows_engine`; memory does not grow with the backlog, because
only what has a slot is ever read.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreBusy, StoreFull
from dropscribe.core.model import Job, Retry
from dropscribe.files.crashpoint import reached
from dropscribe.queue.embedded.disk_space import trouble_of_disk
from dropscribe.queue.embedded.publish_schedule import PUBLISHING_SLOTS, KeptLooks
from dropscribe.queue.engine import HANGS, POLLING_SLOTS
from dropscribe.queue.rows_engine import FULL_LOOK_SECONDS, RowsEngine
from dropscribe.queue.sql import hold_rows, pause_rows, remote_rows, transactions

if TYPE_CHECKING:
    from dropscribe.core.model import Outcome
    from dropscribe.core.retry import RetryLimits
    from dropscribe.queue.embedded.store import Store
    from dropscribe.queue.engine import AttemptJob, Plan, PublishJob
    from dropscribe.queue.sql.database import Connection

log = structlog.get_logger()

_LONGEST_SLEEP_SECONDS = 60.0


class EmbeddedEngine(RowsEngine):
    """See :class:`dropscribe.queue.engine.Engine`, whose promises it keeps.

    Args:
        store: Open, and this engine's alone.
        limits: Used for the order after a crash.
    """

    def __init__(self, store: Store, limits: RetryLimits) -> None:
        super().__init__(store, limits)
        self._state_dir = store.path.parent
        self._fed_at = time.monotonic()
        self._kept_looks = KeptLooks()
        self._draining = False
        self._claimed_last = asyncio.Event()

    async def run(self, plan: Plan, attempt: AttemptJob, publish: PublishJob) -> None:
        """See the base."""
        self.replan(plan)
        self._attempt, self._publish = attempt, publish
        await self._recover()
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                sleep_seconds = await self._feed(group)
                self._fed_at = time.monotonic()
                await self._sleep(sleep_seconds)

    async def drain(self, grace_seconds: float) -> None:
        """See the base."""
        self._draining = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._claimed_last.wait()  # a claim that is under way gets its task yet
                while tasks := list(self._gate.running.tasks.values()):
                    await asyncio.wait(tasks)

    def replan(self, plan: Plan) -> None:
        """See the base."""
        self._kept_looks.ask()
        super().replan(plan)

    def is_alive(self) -> bool:
        """See the base."""
        return time.monotonic() - self._fed_at < 2 * _LONGEST_SLEEP_SECONDS

    # Recovery -----------------------------------------------------------------------------------

    async def _recover(self) -> None:
        def work(db: Connection) -> list[Job]:
            cut_off = transactions.recover(db, self._gate.plan, self.limits, time.time())
            self._gate.holds = {hold.scope: hold for hold in hold_rows.read_holds(db)}
            self._gate.pauses = pause_rows.read_pauses(db)
            self._gate.at_provider = remote_rows.read_at_provider(db)
            return cut_off

        cut_off = await self.store.do(work)
        reached("recovered")
        for job in cut_off:
            log.warning("attempt.interrupted", folder=job.folder, path=job.path, crashes=job.crashes + 1)

    # Feeding ------------------------------------------------------------------------------------

    async def _feed(self, group: asyncio.TaskGroup) -> float:
        """Start what has a slot; returns how long nothing more can happen by itself."""
        if self._draining:
            self._claimed_last.set()
            return _LONGEST_SLEEP_SECONDS
        # Asked before anything is weighed: what comes due while the queue is read must not be slept over.
        waits_until = [time.monotonic() + seconds for seconds in self._gate.waits()]
        requests = self._gate.requests() if self._has_room() else []
        running = self._gate.running
        most_due = self._kept_looks.most_to_read(time.monotonic(), len(running.tasks))
        polls = POLLING_SLOTS if self._gate.at_provider and len(running.polling) < POLLING_SLOTS else 0
        hanging = self._gate.hanging_folders()
        limits = transactions.Limits(len(running.suspects), polls, most_due, hanging)
        waits_until += [] if most_due else [self._kept_looks.next_at]
        if not requests and not most_due and not polls:
            return self._sleep_seconds(None, waits_until)  # what frees a slot wakes the loop
        try:
            claimed, due, next_at = await self.store.do(
                lambda db: transactions.claim(db, requests, limits, time.time())
            )
        except (StoreFull, StoreBusy) as error:
            self._note_trouble(f"{error.reason}: {error.path}")
            return FULL_LOOK_SECONDS
        for job in claimed:
            self._gate.started(job)
            self._start(group, job)
        for job in due:
            self._start_due(group, job)
        if most_due and len(due) >= most_due:
            self._kept_looks.ask()  # there may be more: who ends his publishing wakes the loop
        return self._sleep_seconds(next_at, waits_until)

    def _sleep_seconds(self, next_at: float | None, waits_until: list[float]) -> float:
        waits = self._gate.waits() + [at - time.monotonic() for at in waits_until]
        if next_at is not None:
            waits.append(next_at - time.time())
        if self.trouble:
            waits.append(FULL_LOOK_SECONDS)
        return max(0.001, min([_LONGEST_SLEEP_SECONDS, *waits]))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self._kept_looks.ask()

    def _has_room(self) -> bool:
        """Whether an answer could be kept: uploads stop before they are paid for."""
        trouble = trouble_of_disk(self._state_dir)
        self._note_trouble(trouble)
        return trouble is None

    # One job ------------------------------------------------------------------------------------

    def _start(self, group: asyncio.TaskGroup, job: Job) -> None:
        task = group.create_task(self._take(group, job), name=f"job {job.id}")
        self._gate.running.add(job, task)
        self._tell_news()

    def _start_due(self, group: asyncio.TaskGroup, job: Job) -> None:
        """Poll or publish *job*, unless it runs already, its folder is gone or hangs, or no slot is free."""
        running = self._gate.running
        if job.id in running.tasks or job.folder not in self._gate.plan.chains:
            return
        if job.result is None:
            if len(running.polling) < POLLING_SLOTS:
                self._start(group, job)
        elif self._gate.publications() >= PUBLISHING_SLOTS:
            self._kept_looks.ask()
        elif job.folder not in self._gate.hanging_folders():
            self._start(group, job)

    async def _take(self, group: asyncio.TaskGroup, job: Job) -> None:
        kept: Job | None = None
        if job.result is None and job.remote is None:
            reached("claimed")
        try:
            kept = await self._turn(job)
        finally:
            self._finish(job)
        if kept:
            self._start_due(group, kept)

    async def _record(self, job: Job, outcome: Outcome) -> Job | None:
        kept = await super()._record(job, outcome)
        if isinstance(outcome, Retry) and job.state.has_result:
            self._kept_looks.ask(time.monotonic() + outcome.after_seconds)
        return kept

    def open_folder(self, folder: str, cause: str) -> None:
        """See the base."""
        super().open_folder(folder, cause)
        if cause == HANGS:
            self._kept_looks.ask()
            self._wake.set()

    async def data_version(self) -> int:
        """See the base."""
        return await self.store.do(lambda db: int(db.execute("PRAGMA data_version").fetchone()[0]))
