"""Transactions that change several rows or tables: one function each, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence

from dropscribe.core.budget import Booking
from dropscribe.core.model import AtProvider, AttemptEnd, Job, JobState, Outcome, Published, Retry, Withdrawn
from dropscribe.core.retry import LONGEST_RETRY_AFTER_SECONDS, RetryLimits, crash_wait_seconds
from dropscribe.core.routing import BACKLOG
from dropscribe.queue.model import Plan
from dropscribe.queue.sql import budget_usage, result_cache, rows, stats
from dropscribe.queue.sql.database import Connection, is_shared, marks

_MOST_CRASHES = 1 << 30

_ENDED = "ended_at = ?, filed = ?, code = '', reason = ?"
"""A trigger deletes the stored result and the reserved names. The end is by the queue's clock: the search
index follows the jobs in the order of their ends."""


def record(db: Connection, plan: Plan, job: Job, outcome: Outcome, now: float) -> None:
    """Write the outcome of an attempt or a publication of *job*."""
    match outcome:
        case Published():
            state = JobState.FAILED if job.state is JobState.REJECTED else JobState.DONE
            rows.move(db, job, state, _ENDED, (now, outcome.path, ""))
            stats.count_ended(db, job.folder, state, outcome.audio_seconds, now)
            if outcome.is_suspect:
                rows.increment_count(db, job.folder, rows.SUSPECT)
        case Withdrawn():
            rows.move(db, job, JobState.WITHDRAWN, _ENDED, (now, None, outcome.reason))
            rows.end_attempt(db, job, outcome.attempt)
        case AtProvider():
            _store_remote_job(db, job, outcome, now)
        case Retry() if job.state.has_result or (job.remote is not None and not outcome.ends_attempt):
            _defer(db, job, now + outcome.after_seconds, outcome)
        case Retry():
            requeue(db, job, now + outcome.after_seconds, outcome)
            chain = plan.chains.get(job.folder)
            if chain and not {job.provider, outcome.assigned_provider}.issubset((*chain, "")):
                # A reload has removed the provider during the attempt: the rule's own ones take the job.
                _clear_assignments(db, job.folder, chain)


def _store_remote_job(db: Connection, job: Job, remote: AtProvider, now: float) -> None:
    """Store the provider's job id, or the time of its next poll; the attempt goes on."""
    remote_id, due_at = remote.remote_id, now + remote.poll_after_seconds
    changed = db.execute(
        "UPDATE jobs SET remote_at = CASE WHEN remote_id = ? THEN remote_at ELSE ? END,"
        " sent_sha256 = CASE WHEN remote_id = ? THEN sent_sha256 ELSE ? END, remote_id = ?,"
        " due_at = ?, code = '', reason = '' WHERE id = ? AND fence = ? AND state = 'transcribing'",
        (remote_id, now, remote_id, remote.sha256, remote_id, due_at, job.id, job.fence),
    ).rowcount
    if not changed:
        raise rows.LateTransitionError(f"job {job.id} is not transcribing any more")


def requeue(db: Connection, job: Job, due_at: float, retry: Retry, *, crashes: int = 0) -> None:
    """Move transcribing → queued; an attempt that does not count, or was none, is given back.

    *crashes* is how often in a row the end of the daemon has interrupted the job, this time included.
    """
    ended = retry.attempt or AttemptEnd(0.0, counted=False)
    rows.move(
        db,
        job,
        JobState.QUEUED,
        "due_at = ?, pin = coalesce(nullif(?, ''), pin), spent_seconds = spent_seconds + ?, attempts = ?,"
        " internal_errors = internal_errors + ?, crashes = ?, code = ?, reason = ?",
        (
            *(due_at, retry.assigned_provider, retry.spent_seconds),
            # Counted here: the database refuses a sum that it cannot hold, and one row would end each start.
            *(max(0, job.attempts - (not ended.counted)), int(ended.internal)),
            *(min(crashes, _MOST_CRASHES), retry.code, retry.reason),
        ),
    )
    rows.end_attempt(db, job, retry.attempt)
    if crashes:
        rows.increment_count(db, job.folder, rows.MAYBE_PAID_TWICE)


def _defer(db: Connection, job: Job, due_at: float, retry: Retry) -> None:
    """Publish or poll again at *due_at*; the state stays."""
    is_internal = retry.attempt is not None and retry.attempt.internal
    db.execute(
        "UPDATE jobs SET due_at = ?, code = ?, reason = ?, internal_errors = internal_errors + ?"
        " WHERE id = ? AND state = ? AND fence = ?",
        (due_at, retry.code, retry.reason, int(is_internal), job.id, job.state, job.fence),
    )


def set_due(db: Connection, job: Job, due_at: float) -> None:
    """Make an interrupted publication or poll due at *due_at*."""
    db.execute("UPDATE jobs SET due_at = ? WHERE id = ? AND fence = ?", (due_at, job.id, job.fence))


def requeue_interrupted(db: Connection, job: Job, due_at: float) -> None:
    """Move transcribing → queued because the daemon ended; counts towards max_crashes alone."""
    ended = AttemptEnd(0.0, code="interrupted", reason="the daemon ended", counted=False)
    reason = "the daemon ended during the attempt; it may have been paid for"
    requeue(db, job, due_at, Retry(0.0, ended.code, reason, ended), crashes=job.crashes + 1)


def requeue_all_interrupted(
    db: Connection, retry: RetryLimits, now: float, which: str = "TRUE", values: Sequence[object] = ()
) -> list[Job]:
    """Requeue the jobs whose attempts the end of the daemon interrupted; returns them.

    Jobs at a provider continue there, and are polled again. *which* is a constant of the caller's.
    """
    # LIVE names the index.
    cut_off = rows.read_jobs(db, f"{rows.LIVE} AND {rows.TRANSCRIBING} AND {which}", values)
    for job in cut_off:
        requeue_interrupted(db, job, now + crash_wait_seconds(retry, job.crashes + 1))
    return cut_off


def recover(db: Connection, plan: Plan, now: float) -> tuple[list[Job], list[Job]]:
    """Requeue the jobs that the end of the daemon interrupted; returns them.

    Returns also those on which a provider was working that has left the config.
    """
    abandoned = clear_stale_assignments(db, plan, now)
    cut_off = requeue_all_interrupted(db, plan.retry, now)
    # The restart may follow a new key or a repair: polls that failed are tried at once, as held ones are.
    put_off = f"{rows.AT_PROVIDER} AND code <> '' AND due_at > ?"
    db.execute(f"UPDATE jobs SET due_at = ? WHERE {put_off}", (now, now))
    limit_waits(db, plan.retry, now)
    return cut_off, abandoned


def limit_waits(db: Connection, retry: RetryLimits, now: float) -> None:
    """Make jobs due within the longest wait: after a clock was set back, none waits for its old time."""
    latest = now + max(LONGEST_RETRY_AFTER_SECONDS, retry.max_seconds)
    db.execute(f"UPDATE jobs SET due_at = ? WHERE {rows.LIVE} AND due_at > ?", (latest, latest))


_WAITS = {
    "jobs": ("received_at", "due_at", "remote_at"),
    "holds": ("since", "next_probe_at"),
    "pauses": ("since", "until"),
    "remote_deletions": ("due_at",),
    "outbox": ("due_at",),
}
"""Table → its columns of times from which, or until which, something waits."""


def set_clock_back(db: Connection, seconds: float, now: float) -> None:
    """Move the waits back by *seconds*, because the clock was set back to *now*."""
    for table, columns in _WAITS.items():
        which = rows.LIVE if table == "jobs" else "TRUE"  # the history tells what the clock said
        for column in columns:
            set_back = f"UPDATE {table} SET {column} = {column} - ?"
            db.execute(f"{set_back} WHERE {which} AND {column} > ?", (seconds, now))


def set_remote_jobs_forward(db: Connection, seconds: float) -> None:
    """Count no step of the clock as time that a provider has had a job: one of a day would end the job."""
    db.execute(f"UPDATE jobs SET remote_at = remote_at + ? WHERE {rows.AT_PROVIDER}", (seconds,))


def clear_stale_assignments(db: Connection, plan: Plan, now: float) -> list[Job]:
    """Free the jobs assigned to a provider that their folder's list no longer has.

    Returns those on which such a provider was working.
    """
    elsewhere = f"{rows.AT_PROVIDER} AND provider NOT IN ({marks(plan.providers)})"
    abandoned = rows.read_jobs(db, elsewhere, tuple(plan.providers))
    if is_shared(db):  # other nodes of the cluster have folders and providers that this one has not
        abandoned = [job for job in abandoned if job.folder in plan.chains]
    for job in abandoned:
        reason = f"the config has no provider {job.provider} any more; it may have been paid for"
        ended = AttemptEnd(0.0, code="provider_removed", reason=reason, ambiguous=True)
        requeue(db, job, now, Retry(0.0, ended.code, reason, ended))
    for folder, chain in plan.chains.items():
        _clear_assignments(db, folder, chain)
    return abandoned


def _clear_assignments(db: Connection, folder: str, chain: Sequence[str]) -> None:
    """Let the waiting jobs that are assigned to a provider outside *chain* go to any of it."""
    kept = ("", BACKLOG, *chain)
    stale = f"{rows.QUEUED} AND folder = ? AND pin NOT IN ({marks(kept)})"
    db.execute(f"UPDATE jobs SET pin = '' WHERE {stale}", (folder, *kept))


def book(db: Connection, job: Job, document: bytes, booking: Booking, now: float) -> None:
    """Write the cache entry and the budget usage of *job*'s answer."""
    if booking.answer is not None:
        result_cache.write_answer(db, booking.answer, job, booking.document or document, now)
        if job.id % 8 == 0:  # its cost is shared, and a batch takes more than come
            result_cache.prune(db, now - booking.keep_seconds)
    for spending in booking.spending:
        budget_usage.write_spending(db, spending, now)
