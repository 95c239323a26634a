"""The embedded engine: one process, one SQLite file, no server.

Guarantees: an answer that was kept is published whatever dies in between; an attempt that the daemon's
own end cut off counts towards ``max_crashes`` alone; memory does not grow with the backlog, because
only what has a slot is ever read.
Diagnostics: StoreUnusable and StoreError end the run; StoreFull and StoreBusy stop claims while they last.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, TypeVar

import structlog

from dropscribe.core.budget import day_of, stops_of
from dropscribe.core.errors import DropscribeError, StoreBusy, StoreError, StoreFull
from dropscribe.core.model import (
    AttemptEnd,
    Job,
    KeptForPublishing,
    Retry,
)
from dropscribe.disk.crashpoint import reached
from dropscribe.jobs import accounts, arrivals, hold_rows, ledger, rows, stats, transactions
from dropscribe.jobs.gate import Gate
from dropscribe.jobs.kept_looks import PUBLISHING_SLOTS, KeptLooks
from dropscribe.jobs.room import trouble_of_disk

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from dropscribe.core.budget import Account
    from dropscribe.core.model import (
        AnswerKey,
        Attempt,
        Booking,
        Hold,
        Kept,
        NewJob,
        Outcome,
        Scope,
        Submitted,
    )
    from dropscribe.core.retry import RetryLimits
    from dropscribe.jobs.engine import Handler, KnownAnswer, Plan, Stats
    from dropscribe.jobs.store import Store

T = TypeVar("T")

log = structlog.get_logger()

_FULL_LOOK_SECONDS = 2.0
_LONGEST_SLEEP_SECONDS = 60.0


class EmbeddedEngine:
    """See :class:`dropscribe.jobs.engine.Engine`, whose promises it keeps.

    Args:
        store: Open, and this engine's alone.
        limits: Used for the order after a crash.
    """

    def __init__(self, store: Store, limits: RetryLimits) -> None:
        self.store = store
        self.limits = limits
        self.trouble: str | None = None
        self._gate = Gate()
        self._handler: Handler  # set by run()
        self._wake = asyncio.Event()
        self._fed_at = time.monotonic()
        self._kept_looks = KeptLooks()
        self.on_news: Callable[[], None] | None = None
        self._draining = False
        self._claimed_last = asyncio.Event()

    # The seam ---------------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """See the seam."""
        submitted = await self.store.do(lambda db: [arrivals.submit(db, job) for job in jobs])
        reached("submitted")
        self._wake.set()
        return submitted

    async def run(self, plan: Plan, handler: Handler) -> None:
        """See the seam. Cancelling hands back what is in flight."""
        self.replan(plan)
        self._handler = handler
        await self._recover()
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                sleep_seconds = await self._feed(group)
                self._fed_at = time.monotonic()
                await self._sleep(sleep_seconds)

    async def keep(
        self, job: Job, kept: Kept, ended: AttemptEnd, *, rejected: bool, booking: Booking | None = None
    ) -> Job | None:
        """See the seam. While the disk is full it waits for room: the answer is in memory alone."""

        def write(db: sqlite3.Connection) -> Job | None:
            moved = rows.keep(db, job, kept, ended, rejected=rejected)
            if moved is not None and booking is not None:
                transactions.book(db, job, kept.document, booking, time.time())
            return moved

        moved = await self._durably(write)
        if moved is not None:
            reached("kept")
        return moved

    async def recall(self, key: AnswerKey, keep_seconds: float) -> KnownAnswer | None:
        """See the seam."""
        return await self._durably(lambda db: ledger.read_answer(db, key, time.time() - keep_seconds))

    async def pause(self, hold: Hold) -> None:
        """See the seam."""
        self._gate.holds[hold.scope] = hold
        await self._durably(lambda db: hold_rows.write_hold(db, hold))
        reached("held")
        self._wake.set()

    async def resume(self, scope: Scope) -> Hold | None:
        """See the seam. What waited because of it is due at once."""
        hold = self._gate.holds.pop(scope, None)
        if hold is not None:
            await self._durably(lambda db: transactions.release(db, scope, time.time()))
            self._wake.set()
        return hold

    async def cancel(self, folder: str, paths: Iterable[bytes], reason: str) -> None:
        """See the seam."""
        places = [rows.split_path(path) for path in paths]
        await self.store.do(lambda db: arrivals.withdraw(db, folder, places, reason))
        self._wake.set()

    async def attempts(self, job: Job) -> list[Attempt]:
        """See the seam."""
        return await self._durably(lambda db: rows.read_attempts(db, job.id))

    async def stats(self) -> Stats:
        """See the seam."""
        plan, in_flight = self._gate.plan, dict(self._gate.running.providers)
        return await self.store.do(lambda db: stats.read_stats(db, plan, time.time(), in_flight))

    async def audit(self) -> Sequence[Account]:
        """See the seam."""
        now, plan = time.time(), self._gate.plan
        found = await self._durably(lambda db: accounts.read_accounts(db, plan.budgets, plan.zone, now))
        self._gate.stops = {stop.scope: stop for stop in stops_of(found)}
        self._wake.set()
        return found

    async def tell_once(self, mark: str) -> bool:
        """See the seam."""
        today = day_of(time.time(), self._gate.plan.zone)
        return await self._durably(lambda db: accounts.write_mark(db, mark, today))

    # What only a single process needs ------------------------------------------------------------

    def replan(self, plan: Plan) -> None:
        """Swap lanes and chains; what is in flight goes on as it began."""
        self._gate.replan(plan)
        self._kept_looks.ask()
        self._wake.set()

    def hold_of(self, scope: Scope) -> Hold | None:
        """The hold of a provider or folder, if it is held."""
        return self._gate.holds.get(scope)

    def is_stopped(self, scope: Scope) -> bool:
        """Whether its budget is spent."""
        return self._gate.is_stopped(scope)

    def slow(self, provider: str, seconds: float) -> None:
        """Start nothing more at *provider* for *seconds*: it asked for it (429, 503)."""
        self._gate.slow(provider, seconds)

    def close_folder(self, folder: str, cause: str, reason: str) -> None:
        """Claim nothing of *folder* until every *cause* has opened it again (inbox away, done full)."""
        self._gate.close(folder, cause, reason)
        self._tell_news()

    def open_folder(self, folder: str, cause: str) -> None:
        """The reverse of :meth:`close_folder`."""
        if self._gate.open(folder, cause):
            self._wake.set()
            self._tell_news()

    def _tell_news(self) -> None:
        if self.on_news:
            self.on_news()

    def closed_reason(self, folder: str) -> str | None:
        """Why nothing is claimed of *folder*, or None."""
        return self._gate.closed_reason(folder)

    @property
    def in_flight(self) -> int:
        """Jobs that a handler has right now."""
        return len(self._gate.running.tasks)

    def in_flight_at(self, provider: str) -> int:
        """Attempts under way at one provider."""
        return self._gate.running.providers[provider]

    def wake_from_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the queue again now; from a thread that is not *loop*'s."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(self._wake.set)

    async def drain(self, grace_seconds: float) -> None:
        """Claim nothing more; wait until what is in flight is filed, *grace_seconds* at most."""
        self._draining = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._claimed_last.wait()  # a claim that is under way gets its task yet
                while tasks := list(self._gate.running.tasks.values()):
                    await asyncio.wait(tasks)

    async def can_go_on(self, horizon_seconds: float) -> bool:
        """Whether something is in flight, or due within *horizon_seconds* and not stopped by a hold."""
        latest = time.time() + horizon_seconds
        routes_by_lane, folders = self._gate.open_routes(), self._gate.open_folders()

        def look(db: sqlite3.Connection) -> bool:
            due = [rows.next_due_at(db, name, routes) for name, routes in routes_by_lane]
            due += [rows.oldest_kept_due_at(db, folder) for folder in folders]
            return any(at is not None and at <= latest for at in due)

        is_due = await self.store.do(look)
        # Asked last: what was claimed before the look is neither due nor yet in flight at its begin.
        return is_due or bool(self._gate.running.tasks)

    def is_alive(self) -> bool:
        """Whether the feeding loop has turned lately."""
        return time.monotonic() - self._fed_at < 2 * _LONGEST_SLEEP_SECONDS

    def probe_now(self, scope: Scope) -> None:
        """Try a held provider or folder at once: its config has changed."""
        if self._gate.probe_now(scope):
            self._wake.set()

    def tasks_at(self, provider: str) -> list[asyncio.Task[None]]:
        """The attempts under way at one provider."""
        lanes = self._gate.running.lanes
        return [task for job_id, task in self._gate.running.tasks.items() if lanes.get(job_id) == provider]

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
        try:
            claimed, due, next_at = await self.store.do(
                lambda db: transactions.claim(db, requests, suspects, most_due, time.time())
            )
        except (StoreFull, StoreBusy) as error:
            self._note_trouble(f"{error.reason}: {error.path}")
            return _FULL_LOOK_SECONDS
        for job in claimed:
            self._gate.started(job)
            self._start(group, job)
        for job in due:
            self._start_publishing(group, job)
        return self._sleep_seconds(next_at, waits_until)

    def _sleep_seconds(self, next_at: float | None, waits_until: list[float]) -> float:
        waits = self._gate.waits() + [at - time.monotonic() for at in waits_until]
        if next_at is not None:
            waits.append(next_at - time.time())
        if self.trouble:
            waits.append(_FULL_LOOK_SECONDS)
        return max(0.001, min([_LONGEST_SLEEP_SECONDS, *waits]))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self._kept_looks.ask()

    def _has_room(self) -> bool:
        """Whether an answer could be kept: uploads stop before they are paid for."""
        trouble = trouble_of_disk(self.store.path.parent)
        self._note_trouble(trouble)
        return trouble is None

    def _note_trouble(self, trouble: str | None) -> None:
        if trouble and not self.trouble:
            log.error("store.full", reason=trouble)
        elif self.trouble and not trouble:
            log.info("store.has_room")
        self.trouble = trouble

    # One job ------------------------------------------------------------------------------------

    def _start(self, group: asyncio.TaskGroup, job: Job) -> None:
        task = group.create_task(self._take(group, job), name=f"job {job.id}")
        self._gate.running.add(job, task)
        self._tell_news()

    def _finish(self, job: Job) -> None:
        self._gate.running.remove(job)
        self._wake.set()
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
        if job.kept is None:
            reached("claimed")
        try:
            kept = await self._record(job, await self._ask_handler(job))
        except rows.LateTransitionError as error:
            # The intake has ended the row meanwhile: a slow disk published what a listing had missed.
            log.warning("job.late", folder=job.folder, path=job.path, reason=str(error))
        except asyncio.CancelledError:
            await asyncio.shield(self._hand_back(job))
            raise
        finally:
            self._finish(job)
        if kept:
            self._start_publishing(group, kept)

    async def _hand_back(self, job: Job) -> None:
        """The daemon ends; a job that is kept goes on at the next start by itself."""
        if job.kept is None:
            try:
                await self.store.do(lambda db: rows.hand_back(db, job, time.time()))
            except (StoreError, rows.LateTransitionError) as error:
                log.debug("job.not_handed_back", folder=job.folder, path=job.path, reason=str(error))

    async def _ask_handler(self, job: Job) -> Outcome:
        try:
            return await self._handler(job)
        except StoreError:
            raise
        except Exception as error:
            # A bug must not lose the file nor stop the others (maddy's "temporary or unspecified").
            log.exception("job.bug", folder=job.folder, path=job.path)
            code = "bug" if not isinstance(error, DropscribeError) else type(error).__name__
            reason = f"{type(error).__name__}: {error}"[:500]
            wait_seconds = self.limits.first_seconds * 2.0 ** min(job.attempts, 10)
            wait_seconds = min(wait_seconds, self.limits.max_seconds)
            return Retry(wait_seconds, code, reason, AttemptEnd(0.0, code=code, reason=reason), wait_seconds)

    async def _record(self, job: Job, outcome: Outcome) -> Job | None:
        if isinstance(outcome, KeptForPublishing):
            return outcome.job
        await self._durably(lambda db: transactions.record(db, job, outcome, time.time()))
        if isinstance(outcome, Retry) and job.state.is_kept:
            self._kept_looks.ask(time.monotonic() + outcome.after_seconds)
        reached("ended")
        return None

    async def _durably(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work*, waiting for room while the state directory's disk is full."""
        while True:
            try:
                result = await self.store.do(work)
            except (StoreFull, StoreBusy) as error:
                self._note_trouble(f"{error.reason}: {error.path}")
                await asyncio.sleep(_FULL_LOOK_SECONDS)
            else:
                return result
