"""Rows of jobs that a provider works on by itself, and of those to delete there.

The first are between their upload and their last poll; a trigger adds one of the others when a job leaves its
provider.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.model import AttemptEnd, JobState
from dropscribe.queue.sql.attempt_rows import end_attempt
from dropscribe.queue.sql.rows import (
    AT_PROVIDER,
    JOB_COLUMNS,
    LateTransitionError,
    expected_state_of,
    job_of,
    move,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from dropscribe.core.model import AtProvider, Job
    from dropscribe.queue.sql.database import Connection

DELETION_LEASE_SECONDS = 600.0
"""Lease of a deletion that was taken: it is not tried again for this long."""


@dataclass(frozen=True, slots=True)
class RemoteDeletion:
    """One job to delete.

    Attributes:
        remote_id: The provider's id of the job.
        tries: Begun so far, this one included.
    """

    id: int
    provider: str
    remote_id: str
    tries: int


def store_remote_job(db: Connection, job: Job, remote: AtProvider, now: float) -> None:
    """Store the provider's job id, or the time of its next poll; the attempt goes on."""
    changed = db.execute(
        "UPDATE jobs SET remote_at = CASE WHEN remote_id = ? THEN remote_at ELSE ? END, remote_id = ?,"
        " due_at = ?, code = '', reason = '' WHERE id = ? AND fence = ? AND state = 'transcribing'",
        (remote.remote_id, now, remote.remote_id, now + remote.poll_after_seconds, job.id, job.fence),
    ).rowcount
    if not changed:
        raise LateTransitionError(f"job {job.id} is not transcribing any more")


def due_for_polling(db: Connection, now: float, limit: int) -> list[Job]:
    """Jobs at a provider that may be polled now, longest due first."""
    rows = db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE {AT_PROVIDER} AND due_at <= ? ORDER BY due_at, id LIMIT ?",
        (now, limit),
    ).fetchall()
    return [job_of(row) for row in rows]


def next_poll_at(db: Connection, now: float) -> float | None:
    """When the next job at a provider is to be polled that is not due yet, or None."""
    row = db.execute(f"SELECT min(due_at) FROM jobs WHERE {AT_PROVIDER} AND due_at > ?", (now,)).fetchone()
    return row[0]  # type: ignore[no-any-return]  # a REAL column


def count_at_provider(db: Connection, column: str = "folder") -> dict[str, int]:
    """Jobs that providers work on, by *column*: folder or provider."""
    # Grouped here: to group them itself, SQLite walks along an index of the whole history.
    return Counter(value for (value,) in db.execute(f"SELECT {column} FROM jobs WHERE {AT_PROVIDER}"))


def oldest_at_provider(db: Connection) -> dict[str, float]:
    """When the oldest job at a provider was taken there, by folder; Unix seconds."""
    # Later rows of the dictionary replace earlier ones.
    rows = db.execute(f"SELECT folder, remote_at FROM jobs WHERE {AT_PROVIDER} ORDER BY remote_at DESC")
    return dict(rows.fetchall())


def read_at_provider(db: Connection) -> dict[int, str]:
    """Job id → the provider that works on it."""
    return dict(db.execute(f"SELECT id, provider FROM jobs WHERE {AT_PROVIDER}").fetchall())


def abandon_remote_jobs(db: Connection, providers: Collection[str], now: float) -> list[Job]:
    """Requeue the jobs at providers that the config no longer has; returns them."""
    marks = ", ".join("?" * len(providers))
    rows = db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE {AT_PROVIDER} AND provider NOT IN ({marks})",  # marks alone
        tuple(providers),
    ).fetchall()
    jobs = [job_of(row) for row in rows]
    for job in jobs:
        reason = f"the config has no provider {job.provider} any more; it may have been paid for"
        ended = AttemptEnd(0.0, code="provider_removed", reason=reason, ambiguous=True)
        changes = "due_at = ?, ambiguous = ambiguous + 1, code = ?, reason = ?"
        move(db, expected_state_of(job), JobState.QUEUED, changes, (now, ended.code, reason))
        end_attempt(db, job.id, ended)
    return jobs


def take_due_deletions(db: Connection, now: float, most: int) -> list[RemoteDeletion]:
    """Begin a try at each deletion that is due."""
    rows = db.execute(
        "UPDATE remote_deletions SET due_at = ?, tries = tries + 1 WHERE id IN"
        " (SELECT id FROM remote_deletions WHERE due_at <= ? ORDER BY due_at, id LIMIT ?)"
        " RETURNING id, provider, remote_id, tries",
        (now + DELETION_LEASE_SECONDS, now, most),
    ).fetchall()
    return [RemoteDeletion(*row) for row in rows]


def finish_deletion(db: Connection, deletion: RemoteDeletion) -> None:
    """Remove the row of a deletion that is done or given up."""
    db.execute("DELETE FROM remote_deletions WHERE id = ?", (deletion.id,))


def defer_deletion(db: Connection, deletion: RemoteDeletion, due_at: float) -> None:
    """Retry a failed deletion at *due_at*."""
    db.execute("UPDATE remote_deletions SET due_at = ? WHERE id = ?", (due_at, deletion.id))
