"""Base class of both engines: the SQL operations, and the in-memory admission state.

Guarantees: a stored result is published after any crash; an attempt that the end of the daemon interrupted
counts only towards ``max_crashes``.
Diagnostics: StoreUnusable and StoreError end the run; StoreFull and StoreBusy are waited out.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, TypeVar

import structlog

from dropscribe.core.backoff import backoff_seconds
from dropscribe.core.budget import day_of, stops_of
from dropscribe.core.errors import StoreBusy, StoreError, StoreFull
from dropscribe.core.model import AtProvider, AttemptEnd, LiveRow, ResultStored, Retry
from dropscribe.core.retry import INTERNAL_ERROR, INTERNAL_ERROR_WORDS
from dropscribe.files.crashpoint import reached
from dropscribe.queue.admission import Admission
from dropscribe.queue.sql import (
    attempt_rows,
    backlog,
    budget_usage,
    history,
    hold_rows,
    intake_queries,
    pause_rows,
    remote_rows,
    result_cache,
    result_rows,
    rows,
    stats,
    transactions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dropscribe.core.bookings import AnswerKey, Booking
    from dropscribe.core.budget import Account
    from dropscribe.core.model import (
        Attempt,
        FileSnapshot,
        Hold,
        Job,
        NewJob,
        Outcome,
        Scope,
        StoredResult,
        Submitted,
    )
    from dropscribe.core.retry import RetryLimits
    from dropscribe.queue.engine import AttemptJob, CachedResult, Plan, PublishJob, Stats
    from dropscribe.queue.sql.database import Connection, Database

T = TypeVar("T")

log = structlog.get_logger()

FULL_LOOK_SECONDS = 2.0


class RowsEngine(abc.ABC):
    """The base of the engines; see :class:`dropscribe.queue.engine.Engine` for what each method promises.

    Args:
        store: Open, and this engine's alone.
        limits: Used for the order after a crash.

    Attributes:
        trouble: Why nothing may be paid for now, or None.
        on_news: Called in the event loop when what ``status`` says may have changed.
    """

    def __init__(self, store: Database, limits: RetryLimits) -> None:
        self.store = store
        self.limits = limits
        self._trouble: str | None = None
        self.on_news: Callable[[], None] | None = None
        self._gate = Admission()
        self._attempt: AttemptJob  # set by run()
        self._publish: PublishJob
        self._wake = asyncio.Event()

    @abc.abstractmethod
    async def run(self, plan: Plan, attempt: AttemptJob, publish: PublishJob) -> None:
        """See the seam. Cancelling hands back what is in flight."""

    @abc.abstractmethod
    async def drain(self, grace_seconds: float) -> None:
        """Begin nothing more; wait until what is in flight is filed, *grace_seconds* at most."""

    @abc.abstractmethod
    def is_alive(self) -> bool:
        """Whether the feeding loop has turned lately."""

    async def data_version(self) -> int:
        """Changes when a command has written into the rows; 0 where the engine finds out by itself."""
        return 0

    def now(self) -> float:
        """Unix seconds by the queue's clock."""
        return time.time()

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """See the interface."""
        submitted = await self.store.do(lambda db: intake_queries.submit(db, jobs))
        reached("submitted")
        self._wake.set()
        return submitted

    async def store_result(
        self,
        job: Job,
        result: StoredResult,
        ended: AttemptEnd,
        *,
        rejected: bool,
        booking: Booking | None = None,
    ) -> Job | None:
        """See the seam. While the disk is full it waits for room: the answer is in memory alone."""

        def write(db: Connection) -> Job | None:
            moved = result_rows.store_result(db, job, result, ended, rejected=rejected)
            if moved is not None and booking is not None:
                transactions.book(db, job, result.document, booking, self.now())
            return moved

        moved = await self._durably(write)
        if moved is not None:
            reached("kept")
        return moved

    async def rename_outputs(self, job: Job, result: StoredResult) -> Job | None:
        """See the interface."""
        return await self._durably(lambda db: result_rows.rename_outputs(db, job, result))

    async def reject_result(self, job: Job, error: StoredResult) -> Job | None:
        """See the interface."""
        return await self._durably(lambda db: result_rows.reject_result(db, job, error))

    async def refresh_snapshot(self, job: Job, snapshot: FileSnapshot) -> Job | None:
        """See the seam."""
        return await self._durably(lambda db: result_rows.refresh_snapshot(db, job, snapshot))

    async def find_result(self, key: AnswerKey, keep_seconds: float) -> CachedResult | None:
        """See the seam."""
        return await self._durably(lambda db: result_cache.read_answer(db, key, self.now() - keep_seconds))

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
            await self._durably(lambda db: transactions.release(db, scope, self.now()))
            self._wake.set()
        return hold

    async def attempts(self, job: Job) -> list[Attempt]:
        """See the seam."""
        return await self._durably(lambda db: attempt_rows.read_attempts(db, job.id))

    async def stats(self) -> Stats:
        """See the seam."""
        plan, in_flight = self._gate.plan, dict(self._gate.running.providers)
        return await self.store.do(lambda db: stats.read_stats(db, plan, self.now(), in_flight))

    async def check_budgets(self) -> Sequence[Account]:
        """See the seam."""
        now, plan = self.now(), self._gate.plan
        found = await self._durably(lambda db: budget_usage.read_accounts(db, plan.budgets, plan.zone, now))
        self._gate.stops = {stop.scope: stop for stop in stops_of(found)}
        self._wake.set()
        return found

    async def mark_once(self, mark: str) -> bool:
        """See the seam."""
        today = day_of(self.now(), self._gate.plan.zone)
        return await self._durably(lambda db: budget_usage.write_mark(db, mark, today))

    def withdraw(
        self, db: Connection, folder: str, places: list[tuple[bytes, bytes]], reason: str
    ) -> list[tuple[bytes, bytes]]:
        """End waiting jobs whose files are gone; returns the places of those that ended."""
        return intake_queries.withdraw(db, folder, places, reason)

    def live(self, db: Connection, folder: str, directory: bytes) -> list[LiveRow]:
        """The live jobs of one directory."""
        return [LiveRow(*row) for row in intake_queries.read_live(db, folder, directory)]

    def moved_device(self, db: Connection, folder: str, directory: bytes, device: int) -> None:
        """The directory was mounted anew."""
        intake_queries.set_device(db, folder, directory, device)

    async def begin_folders(self, asks: Mapping[str, bool]) -> None:
        """Mark the first start of folders, before any inbox is listed: what is in it now may be backlog.

        Args:
            asks: Folder → whether its rule asks before it takes a backlog.
        """
        await self.store.do(lambda db: backlog.begin(db, asks, self.now()))

    async def clear_stale_assignments(self) -> None:
        """After :meth:`replan`: no job waits for a provider that its folder's list no longer has."""
        plan, now = self._gate.plan, self.now()
        abandoned = await self.store.do(lambda db: transactions.clear_stale_assignments(db, plan, now))
        for job in abandoned:
            self._gate.at_provider.pop(job.id, None)
            log.warning("job.provider_removed", folder=job.folder, path=job.path, provider=job.provider)
        self._wake.set()

    async def prune(self, ledger_keep_seconds: float, history_keep_seconds: float) -> bool:
        """Delete a few cached answers and ended jobs that are older; whether there may be more."""

        def work(db: Connection) -> bool:
            answers = result_cache.prune(db, self.now() - ledger_keep_seconds)
            jobs = history.prune(db, self.now() - history_keep_seconds)
            return answers == result_cache.PRUNE_BATCH or jobs == history.PRUNE_BATCH

        return await self.store.do(work)

    def replan(self, plan: Plan) -> None:
        """Swap lanes and chains; what is in flight goes on as it began."""
        self._gate.replan(plan)
        self._wake.set()

    def hold_of(self, scope: Scope) -> Hold | None:
        """The hold of a provider or folder, if it is held."""
        return self._gate.holds.get(scope)

    def is_stopped(self, scope: Scope) -> bool:
        """Whether its budget is spent."""
        return self._gate.is_stopped(scope)

    def pause_provider(self, provider: str, seconds: float) -> None:
        """See the interface."""
        pause = self._gate.pause(provider, self.now(), seconds)
        self.store.call(lambda db: pause_rows.write_pause(db, pause))
        self._tell_news()

    async def wait_for_turn(self, provider: str) -> None:
        """See the seam."""
        while wait_seconds := self._gate.start_in(provider):  # noqa: ASYNC110  # for time itself
            await asyncio.sleep(wait_seconds)

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

    def probe_now(self, scope: Scope) -> None:
        """Try a held provider or folder at once: its config has changed."""
        if self._gate.probe_now(scope):
            self._wake.set()

    def tasks_at(self, provider: str) -> list[asyncio.Task[None]]:
        """The uploads and polls under way at one provider."""
        running = self._gate.running
        jobs = {job_id for job_id, job in running.uploads.items() if job.provider == provider}
        jobs |= {job_id for job_id in running.polling if self._gate.at_provider.get(job_id) == provider}
        return [running.tasks[job_id] for job_id in jobs]

    @property
    def trouble(self) -> str | None:
        """See the class."""
        return self._trouble

    @trouble.setter
    def trouble(self, trouble: str | None) -> None:
        is_news, self._trouble = trouble != self._trouble, trouble
        if is_news:
            self._tell_news()

    def _note_trouble(self, trouble: str | None) -> None:
        if trouble and not self.trouble:
            log.error("store.full", reason=trouble)
        elif self.trouble and not trouble:
            log.info("store.has_room")
        self.trouble = trouble

    async def can_go_on(self, horizon_seconds: float) -> bool:
        """Whether something is in flight, or due within *horizon_seconds* and not stopped by a hold."""
        latest = self.now() + horizon_seconds
        routes_by_lane, folders = self._gate.open_routes(), self._gate.open_folders()

        def look(db: Connection) -> bool:
            due = [rows.next_due_at(db, name, routes) for name, routes in routes_by_lane]
            due += [result_rows.oldest_publishing_at(db, folder) for folder in folders]
            due += [0.0] if remote_rows.count_at_provider(db) else []
            return any(at is not None and at <= latest for at in due)

        is_due = await self.store.do(look)
        # Asked last: what was claimed before the look is neither due nor yet in flight at its begin.
        return is_due or self._gate.is_busy()

    def _finish(self, job: Job) -> None:
        self._gate.running.remove(job)
        self._wake.set()
        self._tell_news()

    async def _turn(self, job: Job) -> Job | None:
        """One call of the handler, recorded; the job to publish where its answer was kept."""
        try:
            return await self._record(job, await self._call(job))
        except rows.LateTransitionError as error:
            # The intake has ended the row meanwhile (a slow disk published what a listing had missed), or
            # another node has taken it over from this one, which was thought dead.
            log.warning("job.late", folder=job.folder, path=job.path, reason=str(error))
        except asyncio.CancelledError:
            await asyncio.shield(self._hand_back(job))
            raise
        return None

    async def _hand_back(self, job: Job) -> None:
        """The daemon ends; publications and polls go on at the next start by themselves."""
        is_cut_off = job.result is None and job.remote is None
        write = rows.hand_back if is_cut_off else rows.put_back
        try:
            await self.store.do(lambda db: write(db, job, self.now()))
        except (StoreError, rows.LateTransitionError) as error:
            log.debug("job.not_handed_back", folder=job.folder, path=job.path, reason=str(error))

    async def _call(self, job: Job) -> Outcome:
        try:
            return await (self._attempt(job) if job.result is None else self._publish(job))
        except (StoreError, rows.LateTransitionError):
            raise
        except Exception:
            # A bug must not lose the file nor stop the others. Its count ends the job after a few times.
            log.exception("job.bug", folder=job.folder, path=job.path)
            ended = AttemptEnd(0.0, code=INTERNAL_ERROR, reason=INTERNAL_ERROR_WORDS, internal=True)
            count = job.internal_errors + 1
            wait_seconds = backoff_seconds(self.limits.first_seconds, count, self.limits.max_seconds)
            return Retry(wait_seconds, INTERNAL_ERROR, INTERNAL_ERROR_WORDS, ended, wait_seconds)

    async def _record(self, job: Job, outcome: Outcome) -> Job | None:
        if job.result is None and self._gate.end_pause(job.provider, self.now()):
            now = self.now()
            self.store.call(lambda db: pause_rows.end_pause(db, job.provider, now))
        if isinstance(outcome, ResultStored):
            self._gate.at_provider.pop(job.id, None)
            return outcome.job
        await self._durably(lambda db: transactions.record(db, self._gate.plan, job, outcome, self.now()))
        if isinstance(outcome, AtProvider):
            self._gate.at_provider[job.id] = job.provider
            reached("job_stored")
        elif not isinstance(outcome, Retry) or outcome.ends_attempt:
            self._gate.at_provider.pop(job.id, None)
        reached("ended")
        return None

    async def _durably(self, work: Callable[[Connection], T]) -> T:
        """Run *work*, waiting for room while the state directory's disk is full."""
        while True:
            try:
                result = await self.store.do(work)
            except (StoreFull, StoreBusy) as error:
                self._note_trouble(f"{error.reason}: {error.path}")
                await asyncio.sleep(FULL_LOOK_SECONDS)
            else:
                return result
