"""Rows of jobs and of their attempts: the columns, one transition, and the outcome of an attempt.

All take the connection of a transaction that the store has opened. A transition checks the state that it
leaves, so that a late completion changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from dropscribe.core.errors import DropscribeError
from dropscribe.core.model import (
    TRANSITIONS,
    Attempt,
    AttemptEnd,
    FileSnapshot,
    Job,
    JobState,
    RemoteJob,
    StoredResult,
)
from dropscribe.core.retry import REUSED
from dropscribe.queue.sql.database import Connection

QUEUED = "state = 'queued'"
TRANSCRIBING = "state = 'transcribing' AND remote_id = ''"
AT_PROVIDER = "state = 'transcribing' AND remote_id <> ''"
HAS_RESULT = "state IN ('transcribed', 'rejected')"
LIVE_STATE = "state IN ('queued', 'transcribing', 'transcribed', 'rejected')"
LIVE = f"{LIVE_STATE} AND ended_at IS NULL"  # the condition of PostgreSQL's indexes, and that of SQLite's
JOB_COLUMNS = (
    "id, folder, directory, name, device, inode, size_bytes, mtime_ns, stable_inodes, incomplete, state, "
    "received_at, due_at, attempts, ambiguous, crashes, spent_seconds, provider, pin, fence, "
    "internal_errors, remote_id, remote_at, sent_sha256"
)

MAYBE_PAID_TWICE = "maybe_paid_twice"
"""In ``counts`` beside the states: attempts whose answer may have been paid for and was lost."""

SUSPECT = "suspect"
"""In ``counts`` beside the states: files that are done, with a warning that raises doubts about the text."""

TAKEN_BACK = "taken back into the inbox"  # The reason of a failed job that was withdrawn

_MOST_RECENT = 10_000  # requests that are read at a start, for the rate limits


class LateTransitionError(DropscribeError):
    """Raised when a job is no longer in the state that a transition leaves: a bug, or a lost fence."""


def split_path(path: bytes) -> tuple[bytes, bytes]:
    """(directory, name) of a path relative to its inbox."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


def join_path(directory: bytes, name: bytes) -> bytes:
    """The inverse of :func:`split_path`."""
    return directory + b"/" + name if directory else name


def inode_to_row(inode: int) -> int:
    """An integer of the database is signed; mergerfs and others have inodes of all 64 bits."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


def inode_of_row(value: int) -> int:
    """The inverse of :func:`inode_to_row`."""
    return value + (1 << 64) if value < 0 else value


def job_of(row: Sequence[Any], result: StoredResult | None = None, *, may_be_cached: bool = False) -> Job:
    """The Job that a row of ``JOB_COLUMNS`` holds."""
    state = JobState(row[10])
    return Job(
        id=row[0],
        folder=row[1],
        path=join_path(row[2], row[3]),
        snapshot=FileSnapshot(row[4], inode_of_row(row[5]), row[6], row[7]),
        stable_inodes=bool(row[8]),
        incomplete=bool(row[9]),
        state=state,
        received_at=row[11],
        due_at=row[12],
        attempts=row[13],
        ambiguous=row[14],
        crashes=row[15],
        spent_seconds=row[16],
        provider=row[17] if state is not JobState.QUEUED else row[18],
        fence=row[19],
        internal_errors=row[20],
        remote=RemoteJob(*row[21:24]) if row[21] else None,
        result=result,
        may_be_cached=may_be_cached,
    )


def read_jobs(db: Connection, which: str, values: Sequence[object]) -> list[Job]:
    """The jobs that meet *which*, a constant of the caller's; without their results."""
    found = db.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE {which}", values)
    return [job_of(row) for row in found.fetchall()]


def earliest_due(db: Connection, which: str, values: Sequence[object]) -> float | None:
    """Time at which the first job that meets *which*, a constant of the caller's, is due, or None."""
    row = db.execute(f"SELECT min(due_at) FROM jobs WHERE {which}", values).fetchone()
    return row[0]  # type: ignore[no-any-return]  # a REAL column


def read_at_provider(db: Connection, folders: Collection[str]) -> dict[int, str]:
    """Job id → the provider that works on it by itself, of *folders*: others are not polled, nor counted."""
    found = db.execute(f"SELECT id, provider, folder FROM jobs WHERE {AT_PROVIDER}").fetchall()
    return {job_id: provider for job_id, provider, folder in found if folder in folders}


UPDATE_STATE = "UPDATE OR FAIL jobs SET state ="
"""Without FAIL, SQLite copies each page that the statement and its triggers change, to undo it alone after an
error. It never has to: an error ends the transaction."""


def move(
    db: Connection, job: Job, state: JobState, changes: str, values: Sequence[Any] = (), returning: str = ""
) -> Any:
    """One transition of *job* as its holder knows it; returns the row of *returning* as it is now.

    *changes* and *returning* are constants of the caller's. Raises LateTransitionError if the job has left
    that state, or was claimed again.
    """
    if state not in TRANSITIONS[job.state]:
        raise LateTransitionError(f"no way from {job.state} to {state}")
    moved = db.execute(
        f"{UPDATE_STATE} ?, remote_id = '', {changes} WHERE id = ? AND state = ? AND fence = ? {returning}",
        (state, *values, job.id, job.state, job.fence),
    )
    if not (row := moved.fetchone() if returning else moved.rowcount):
        raise LateTransitionError(f"job {job.id} is not {job.state} any more")
    return row


def withdraw_queued(
    db: Connection, reason: str, which: str, values: Sequence[object]
) -> list[tuple[bytes, bytes]]:
    """End the queued jobs that meet *which*, a constant of the caller's; returns their places."""
    return db.execute(
        "UPDATE jobs SET state = 'withdrawn', ended_at = ?, code = '', reason = ?"
        f" WHERE {LIVE} AND {QUEUED} AND {which} RETURNING directory, name",  # LIVE names the index
        (time.time(), reason, *values),
    ).fetchall()


def increment_count(db: Connection, folder: str, what: str) -> None:
    """Count *what* (:data:`MAYBE_PAID_TWICE`, :data:`SUSPECT`) once more; the count is never taken back."""
    db.execute(
        "INSERT INTO counts VALUES (?, ?, 1) ON CONFLICT (folder, state) DO UPDATE SET n = counts.n + 1",
        (folder, what),
    )


_RUNNING = "id = (SELECT max(id) FROM attempts WHERE job_id = ?) AND seconds IS NULL"


def end_attempt(db: Connection, job: Job, ended: AttemptEnd | None) -> None:
    """Write the end of the running attempt; None deletes the attempt."""
    if ended is None:  # nothing was sent, and a missing file must not fill the history
        db.execute(f"DELETE FROM attempts WHERE {_RUNNING}", (job.id,))
        return
    db.execute(
        "UPDATE attempts SET seconds = ?, status = ?, code = ?, reason = ?, counted = ?, refused = ?"
        f" WHERE {_RUNNING}",
        (ended.seconds, ended.status, ended.code, ended.reason, ended.counted, ended.refused, job.id),
    )
    if ended.ambiguous:
        db.execute("UPDATE jobs SET ambiguous = ambiguous + 1 WHERE id = ?", (job.id,))
        increment_count(db, job.folder, MAYBE_PAID_TWICE)


def read_recent_starts(db: Connection, since: float) -> list[tuple[str, float]]:
    """(provider, Unix seconds) of the newest requests that began after *since*, oldest first."""
    rows = db.execute("SELECT provider, at, code FROM attempts ORDER BY id DESC LIMIT ?", (_MOST_RECENT,))
    newest = reversed(rows.fetchall())
    return [(provider, at) for provider, at, code in newest if at > since and code != REUSED]


def read_attempts(db: Connection, job_id: int) -> list[Attempt]:
    """Every attempt of one job, oldest first."""
    columns = "at, provider, seconds, status, code, reason, counted, refused"
    found = db.execute(f"SELECT {columns} FROM attempts WHERE job_id = ? ORDER BY id", (job_id,))
    return [Attempt(*row[:6], *map(bool, row[6:])) for row in found]
