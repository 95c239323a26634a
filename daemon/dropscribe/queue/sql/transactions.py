"""Transactions that change several rows or tables: one function each, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.model import AtProvider, JobState, Published, Retry, Withdrawn
from dropscribe.core.retry import LONGEST_RETRY_AFTER_SECONDS, crash_wait_seconds
from dropscribe.core.routing import BACKLOG
from dropscribe.queue.sql import (
    attempt_rows,
    budget_usage,
    file_list,
    hold_rows,
    remote_rows,
    result_cache,
    result_rows,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dropscribe.core.budget import Booking
    from dropscribe.core.model import Job, Outcome, Scope
    from dropscribe.queue.model import Plan
    from dropscribe.queue.sql.database import Connection


@dataclass(frozen=True, slots=True)
class Limits:
    """The most jobs that one claim may take.

    Attributes:
        suspects: Jobs in flight that may have crashed the daemon.
        polls: Jobs at providers at most.
        publications: Jobs with a stored result at most; 0 does not look for any.
        hanging: Folders of which nothing is published.
    """

    suspects: int
    polls: int
    publications: int
    hanging: Collection[str] = ()


def claim(
    db: Connection, requests: Sequence[rows.ClaimRequest], limits: Limits, now: float
) -> tuple[list[Job], list[Job], float | None]:
    """Attempts that were begun, jobs to poll or to publish, and when the next of any kind is due."""
    suspects = limits.suspects
    claimed: list[Job] = []
    times: list[float | None] = []
    for request in requests:
        taken = rows.claim(db, request, now, rows.SUSPECT_CRASHES if suspects else 0)
        suspects += sum(job.crashes >= rows.SUSPECT_CRASHES for job in taken)
        claimed += taken
        if len(taken) < request.limit:
            times.append(rows.next_due_at(db, request.provider, request.routes))
    due: list[Job] = []
    if limits.polls:
        due = remote_rows.due_for_polling(db, now, limits.polls)
        times.append(remote_rows.next_poll_at(db, now))
    if limits.publications:
        due += result_rows.due_for_publishing(db, now, limits.publications, limits.hanging)
        times.append(result_rows.next_publishing_at(db, now))
    # A job that is due already waits for something else, which will wake the loop.
    return claimed, due, min((at for at in times if at is not None and at > now), default=None)


def record(db: Connection, plan: Plan, job: Job, outcome: Outcome, now: float) -> None:
    """Write the outcome of an attempt or a publication of *job*."""
    match outcome:
        case Published():
            state = JobState.FAILED if job.state is JobState.REJECTED else JobState.DONE
            rows.end(db, rows.expected_state_of(job), state, now, filed=outcome.path)
            file_list.count_ended(db, job.folder, state, outcome.audio_seconds, now)
            if outcome.is_suspect:
                rows.increment_count(db, job.folder, rows.SUSPECT)
        case Withdrawn():
            rows.end(db, rows.expected_state_of(job), JobState.WITHDRAWN, now, reason=outcome.reason)
            if outcome.attempt:
                attempt_rows.end_attempt(db, job.id, outcome.attempt)
            else:
                attempt_rows.forget_attempt(db, job.id)
            for spending in outcome.spending:
                budget_usage.write_spending(db, spending, now)
        case AtProvider():
            remote_rows.store_remote_job(db, job, outcome, now)
        case Retry() if job.state.has_result or (job.remote is not None and not outcome.ends_attempt):
            rows.defer(db, job, now + outcome.after_seconds, outcome)
        case Retry():
            rows.requeue(db, job, now + outcome.after_seconds, outcome)
            chain = plan.chains.get(job.folder)
            if chain and not {job.provider, outcome.assigned_provider}.issubset((*chain, "")):
                # A reload has removed the provider during the attempt: the rule's own ones take the job.
                _clear_assignments(db, job.folder, (*chain, BACKLOG))


def recover(db: Connection, plan: Plan, now: float) -> list[Job]:
    """Requeue the jobs that the end of the daemon interrupted; returns them."""
    clear_stale_assignments(db, plan, now)
    cut_off = rows.interrupted(db)
    for job in cut_off:
        rows.requeue_interrupted(db, job, now + crash_wait_seconds(plan.retry, job.crashes + 1))
    # After a clock was set back, no job waits for a time by the old clock.
    rows.clamp_due(db, now + max(LONGEST_RETRY_AFTER_SECONDS, plan.retry.max_seconds))
    return cut_off


def clear_stale_assignments(db: Connection, plan: Plan, now: float) -> list[Job]:
    """No job waits for a provider that its folder's list no longer has; returns the jobs that were at one."""
    abandoned = remote_rows.abandon_remote_jobs(db, plan.providers.keys(), now)
    for folder, chain in plan.chains.items():
        _clear_assignments(db, folder, (*chain, BACKLOG))
    return abandoned


def _clear_assignments(db: Connection, folder: str, chain: Sequence[str]) -> None:
    """Waiting jobs that are assigned to a provider outside *chain* may go to any again."""
    marks = ", ".join("?" * len(chain))
    db.execute(
        "UPDATE jobs SET pin = '' WHERE state = 'queued' AND folder = ? AND pin <> ''"
        f" AND pin NOT IN ({marks})",  # question marks alone
        (folder, *chain),
    )


def release(db: Connection, scope: Scope, now: float) -> None:
    """End a hold; its jobs are due at once."""
    hold_rows.delete_hold(db, scope)
    hold_rows.make_due(db, str(scope.kind), scope.name, now)


def book(db: Connection, job: Job, document: bytes, booking: Booking, now: float) -> None:
    """Write the cache entry and the budget usage of *job*'s answer."""
    if booking.answer is not None:
        result_cache.write_answer(db, booking.answer, job, booking.document or document, now)
        result_cache.prune_now_and_then(db, job.id, now - booking.keep_seconds)
    for spending in booking.spending:
        budget_usage.write_spending(db, spending, now)
