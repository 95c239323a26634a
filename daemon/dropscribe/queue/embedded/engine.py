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
from dropscribe.queue.rows_engine import FULL_LOOK_SECONDS, RowsEngine
from dropscribe.queue.sql import hold_rows, transactions

if TYPE_CHECKING:
    from dropscribe.core.model import AttemptEnd, Booking, Outcome, StoredResult
    from dropscribe.core.retry import RetryLimits
    from dropscribe.queue.embedded.store import Store
    from dropscribe.queue.engine import AttemptJob, Plan, PublishJob

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

    async def store_result(
        self,
        job: Job,
        result: StoredResult,
        ended: AttemptEnd,
        *,
        rejected: bool,
        booking: Booking | None = None,
    ) -> Job | None:
        """See the seam. The slot is handed on with the answer.

        The next claim stands behind it in the store's order, most often in the same transaction: no more
        attempts are under way than there are slots, and none waits for a second sync. An answer that cannot
        be kept takes its slot back; one attempt may have begun by then. Not where the answer costs a budget:
        what is left of it is known only afterwards.
        """
        running = self._gate.running
        if self.trouble is None and not (booking and booking.spending):
            running.hand_on_slot(job)
            self._wake.set()
        moved = await super().store_result(job, result, ended, rejected=rejected, booking=booking)
        if moved is None:
            running.take_slots_back([job.id])
        return moved

    def is_alive(self) -> bool:
        """See the base."""
        return time.monotonic() - self._fed_at < 2 * _LONGEST_SLEEP_SECONDS

    # Recovery -----------------------------------------------------------------------------------

    async def _recover(self) -> None:
        cut_off = await self.store.do(
            lambda db: transactions.recover(db, self._gate.plan, self.limits, time.time())
        )
        reached("recovered")
        for hold in await self.store.do(hold_rows.read_holds):
            self._gate.holds[hold.scope] = hold
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
        running, suspects = self._gate.running, len(self._gate.running.suspects)
        most_due = self._kept_looks.most_to_read(time.monotonic(), len(running.tasks))
        waits_until += [] if most_due else [self._kept_looks.next_at]
        if not requests and not most_due:
            return self._sleep_seconds(None, waits_until)  # what frees a slot wakes the loop
        try:
            claimed, due, next_at = await self.store.do(
                lambda db: transactions.claim(db, requests, suspects, most_due, time.time())
            )
        except (StoreFull, StoreBusy) as error:
            self._note_trouble(f"{error.reason}: {error.path}")
            return FULL_LOOK_SECONDS
        for job in claimed:
            self._gate.started(job)
            self._start(group, job)
        for job in due:
            self._start_publishing(group, job)
        if due and len(due) >= most_due:
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

    def _start_publishing(self, group: asyncio.TaskGroup, job: Job) -> None:
        """Unless it runs already, its folder is gone from the config, or the slots are taken."""
        running = self._gate.running
        if len(running.publishing) >= PUBLISHING_SLOTS:
            self._kept_looks.ask()
        elif job.id not in running.tasks and job.folder in self._gate.plan.chains:
            self._start(group, job)

    async def _take(self, group: asyncio.TaskGroup, job: Job) -> None:
        kept: Job | None = None
        if job.result is None:
            reached("claimed")
        try:
            kept = await self._turn(job)
        finally:
            self._finish(job)
        if kept:
            self._start_publishing(group, kept)

    async def _record(self, job: Job, outcome: Outcome) -> Job | None:
        kept = await super()._record(job, outcome)
        if isinstance(outcome, Retry) and job.state.has_result:
            self._kept_looks.ask(time.monotonic() + outcome.after_seconds)
        return kept

    def _note_trouble(self, trouble: str | None) -> None:
        super()._note_trouble(trouble)
        if trouble:
            # Answers wait in memory: as many as there are slots, however long it lasts.
            running = self._gate.running
            running.take_slots_back(running.handed_on)

    async def data_version(self) -> int:
        """See the base."""
        return await self.store.do(lambda db: int(db.execute("PRAGMA data_version").fetchone()[0]))
