"""Transactions of the embedded engine that are more than one row's: each is one function, all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.model import JobState, Published, Retry, Withdrawn
from dropscribe.core.retry import LONGEST_RETRY_AFTER_SECONDS, crash_wait_seconds
from dropscribe.core.routing import BACKLOG
from dropscribe.queue.sql import attempt_rows, budget_usage, hold_rows, result_cache, result_rows, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dropscribe.core.model import Booking, Job, Outcome, Scope
    from dropscribe.core.retry import RetryLimits
    from dropscribe.queue.engine import Plan
    from dropscribe.queue.sql.database import Connection


def claim(
    db: Connection, requests: Sequence[rows.ClaimRequest], suspects: int, most_due: int, now: float
) -> tuple[list[Job], list[Job], float | None]:
    """Claims, jobs to publish, and when the next of either is due.

    Args:
        suspects: Jobs in flight that may be what kills the daemon.
        most_due: Jobs to publish at most; 0 does not look for any.
    """
    claimed: list[Job] = []
    times: list[float | None] = []
    for request in requests:
        taken = rows.claim(db, request, now, rows.SUSPECT_CRASHES if suspects else 0)
        suspects += sum(job.crashes >= rows.SUSPECT_CRASHES for job in taken)
        claimed += taken
        if len(taken) < request.limit:
            times.append(rows.next_due_at(db, request.provider, request.routes))
    due: list[Job] = []
    if most_due:
        due = result_rows.due_for_publishing(db, now, most_due)
        times.append(result_rows.next_publishing_at(db, now))
    # What is due already waits for something else, which will wake the loop.
    return claimed, due, min((at for at in times if at is not None and at > now), default=None)


def record(db: Connection, job: Job, outcome: Outcome, now: float) -> None:
    """What the handler said came of *job*."""
    match outcome:
        case Published():
            state = JobState.FAILED if job.state is JobState.REJECTED else JobState.DONE
            rows.end(db, rows.standing_of(job), state, filed=outcome.path)
        case Withdrawn():
            rows.end(db, rows.standing_of(job), JobState.WITHDRAWN, reason=outcome.reason)
            if outcome.attempt:
                attempt_rows.end_attempt(db, job.id, outcome.attempt)
            for spending in outcome.spending:
                budget_usage.write_spending(db, spending, now)
        case Retry() if job.state.has_result:
            rows.defer_publishing(db, job, now + outcome.after_seconds, outcome.code, outcome.reason)
        case Retry():
            rows.requeue(db, job, now + outcome.after_seconds, outcome)


def recover(db: Connection, plan: Plan, limits: RetryLimits, now: float) -> list[Job]:
    """Hand back what the daemon's end cut off; returns those jobs."""
    clear_stale_assignments(db, plan)
    cut_off = rows.interrupted(db)
    for job in cut_off:
        rows.hand_back(db, job, now + crash_wait_seconds(limits, job.crashes + 1))
    # A clock that was set back must not make anybody wait for its old time.
    rows.clamp_due(db, now + max(LONGEST_RETRY_AFTER_SECONDS, limits.max_seconds))
    return cut_off


def clear_stale_assignments(db: Connection, plan: Plan) -> None:
    """No job waits for a provider that its folder's list no longer has."""
    for folder, chain in plan.chains.items():
        _unpin(db, folder, (*chain, BACKLOG))


def _unpin(db: Connection, folder: str, chain: Sequence[str]) -> None:
    """Waiting jobs that are pinned to a provider which *folder* no longer has are free again."""
    marks = ", ".join("?" * len(chain))
    db.execute(
        "UPDATE jobs SET pin = '' WHERE state = 'queued' AND folder = ? AND pin <> ''"
        f" AND pin NOT IN ({marks})",  # question marks alone
        (folder, *chain),
    )


def release(db: Connection, scope: Scope, now: float) -> None:
    """End a hold; what waited because of it is due at once."""
    hold_rows.delete_hold(db, scope)
    hold_rows.make_due(db, str(scope.kind), scope.name, now)


def book(db: Connection, job: Job, document: bytes, booking: Booking, now: float) -> None:
    """Write into the books what *booking* says of *job*'s answer."""
    if booking.answer is not None:
        result_cache.write_answer(db, booking.answer, job, booking.document or document, now)
        result_cache.prune_now_and_then(db, job.id, now - booking.keep_seconds)
    for spending in booking.spending:
        budget_usage.write_spending(db, spending, now)
