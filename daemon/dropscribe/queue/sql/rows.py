"""Rows of the queue: each function is one statement or one transition.

All take the connection of a transaction that the store has opened. Transitions check the state that
they leave, so that a late completion changes nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dropscribe.core.errors import DropscribeError
from dropscribe.core.model import (
    TRANSITIONS,
    AttemptEnd,
    FileSnapshot,
    Job,
    JobState,
    RemoteJob,
    Retry,
    StoredResult,
)
from dropscribe.queue.sql import attempt_rows
from dropscribe.queue.sql.hold_rows import newest_untried

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dropscribe.core.routing import Route
    from dropscribe.queue.sql.database import Connection

AT_PROVIDER = "state = 'transcribing' AND remote_id <> ''"
LIVE = "state IN ('queued', 'transcribing', 'transcribed', 'rejected')"
HAS_RESULT = "state IN ('transcribed', 'rejected')"
JOB_COLUMNS = (
    "id, folder, directory, name, device, inode, size_bytes, mtime_ns, stable_inodes, incomplete, state, "
    "received_at, due_at, attempts, ambiguous, crashes, spent_seconds, provider, pin, fence, "
    "internal_errors, remote_id, remote_at"
)

SUSPECT_CRASHES = 3
"""A job that was interrupted this often in a row by the end of the daemon runs only while no other such job
runs: a file that crashes the daemon is found, and other files complete."""

_MOST_CRASHES = 1 << 30

MAYBE_PAID_TWICE = "maybe_paid_twice"
"""In ``counts`` beside the states: attempts whose answer may have been paid for and was lost."""

SUSPECT = "suspect"
"""In ``counts`` beside the states: files that are done, with a warning that raises doubts about the text."""


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


def job_of(row: tuple, result: StoredResult | None = None) -> Job:  # type: ignore[type-arg]  # sqlite rows are untyped
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
        remote=RemoteJob(row[21], row[22]) if row[21] else None,
        result=result,
    )


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The jobs that one provider can start now.

    Attributes:
        limit: Jobs at most.
        is_probe: Take an untried job, else the oldest even if it is not due yet: it probes a hold.
        in_flight: Folder → its uploads to this provider that are under way; folders with fewer go first.
        turns: Folder → when it had its last slot, as a growing number; of equals the least goes first.
        most_large: Further uploads of ``LARGE_BYTES`` and more that may start: they never have all slots.
    """

    provider: str
    routes: tuple[Route, ...]
    limit: int
    is_probe: bool = False
    in_flight: Mapping[str, int] = field(default_factory=dict)
    turns: Mapping[str, int] = field(default_factory=dict)
    most_large: int = 1 << 30


LARGE_BYTES = 256 * 1024 * 1024
"""An upload of this size may hold a slot for hours."""


def claim(db: Connection, request: ClaimRequest, now: float, most_crashes: int) -> list[Job]:
    """Claim due jobs for a provider; the attempt is counted here.

    Slots go round the folders: each goes to the one with the fewest uploads under way, of equals to the one
    that has waited longest for a slot, and there to the job that is due longest.

    Args:
        most_crashes: Leave out jobs interrupted this often in a row or more; 0 or less leaves out none.
    """
    claimed: list[Job] = []
    in_flight, most_large = Counter(request.in_flight), request.most_large
    bounds = most_crashes if most_crashes > 0 else 1 << 30
    if request.is_probe and (untried := newest_untried(db, queues_of(request.provider, request.routes))):
        return [begin_attempt(db, untried, request.provider, now)]
    while len(claimed) < request.limit:
        most_bytes = 1 << 62 if most_large > 0 else LARGE_BYTES
        latest = float("inf") if request.is_probe else now
        due = [
            (in_flight[route.folder], request.turns.get(route.folder, 0), *found)
            for route in request.routes
            if (found := _oldest(db, request.provider, route, (bounds, most_bytes, latest)))
        ]
        if not due:
            break
        job = begin_attempt(db, min(due)[-1], request.provider, now)
        claimed.append(job)
        in_flight[job.folder] += 1
        most_large -= job.snapshot.size_bytes >= LARGE_BYTES
        if job.crashes >= SUSPECT_CRASHES:
            bounds = SUSPECT_CRASHES  # the other suspects wait
    return claimed


def _oldest(
    db: Connection, provider: str, route: Route, bounds: tuple[int, int, float]
) -> tuple[float, int] | None:
    """(due_at, id) of the job of *route* that is due longest: one index look-up for each assignment."""
    queues = _assignments(provider, route)
    each = [f"SELECT due_at, id FROM ({_OLDEST}) AS queue_{number}" for number in range(len(queues))]
    values = [value for assigned in queues for value in (route.folder, assigned, *bounds)]
    found: tuple[float, int] | None = db.execute(
        " UNION ALL ".join(each) + " ORDER BY due_at, id LIMIT 1",  # constants
        values,
    ).fetchone()
    return found


_OLDEST = (
    "SELECT due_at, id FROM jobs WHERE state = 'queued' AND folder = ? AND pin = ? AND crashes < ?"
    " AND size_bytes < ? AND due_at <= ? ORDER BY due_at, id LIMIT 1"
)


def _assignments(provider: str, route: Route) -> tuple[str, ...]:
    return ("", provider) if route.serves_unassigned else (provider,)


def queues_of(provider: str, routes: Sequence[Route]) -> list[tuple[str, str]]:
    """(folder, assigned provider) of the jobs that *provider* may take by *routes*."""
    return [(route.folder, name) for route in routes for name in _assignments(provider, route)]


def begin_attempt(
    db: Connection, job_id: int, provider: str, now: float, changes: str = "", values: tuple[object, ...] = ()
) -> Job:
    """Move queued → transcribing; the attempt is counted here. *changes* are a constant of the caller's."""
    row = db.execute(
        "UPDATE jobs SET state = 'transcribing', provider = ?, attempts = attempts + 1, fence = fence + 1"
        f"{changes} WHERE id = ? RETURNING {JOB_COLUMNS},"
        " EXISTS (SELECT 1 FROM ledger WHERE ledger.size_bytes = jobs.size_bytes)",
        (provider, *values, job_id),
    ).fetchone()
    attempt_rows.begin_attempt(db, job_id, provider, now)
    return replace(job_of(row), may_be_cached=bool(row[-1]))


def next_due_at(db: Connection, provider: str, routes: tuple[Route, ...]) -> float | None:
    """When the next job for *provider* is due, or None."""
    due: list[float] = []
    for queue in queues_of(provider, routes):
        row = db.execute(
            "SELECT due_at FROM jobs WHERE state = 'queued' AND folder = ? AND pin = ?"
            " ORDER BY due_at LIMIT 1",
            queue,
        ).fetchone()
        due.extend(row or ())
    return min(due, default=None)


@dataclass(frozen=True, slots=True)
class ExpectedState:
    """The state that a transition leaves.

    Attributes:
        fence: The claim that makes the transition, if any: a later claim of the same job makes it late.
    """

    job_id: int
    state: JobState
    fence: int | None = None


def expected_state_of(job: Job) -> ExpectedState:
    """The state and claim of *job* as its holder knows them."""
    return ExpectedState(job.id, job.state, job.fence)


def clamp_due(db: Connection, latest: float) -> None:
    """Cap the due times of live jobs at *latest*."""
    db.execute(f"UPDATE jobs SET due_at = ? WHERE {LIVE} AND due_at > ?", (latest, latest))


def requeue(db: Connection, job: Job, due_at: float, retry: Retry) -> None:
    """Move transcribing → queued; an attempt that does not count, or was none, is given back."""
    ended = retry.attempt or AttemptEnd(0.0, counted=False)
    move(
        db,
        expected_state_of(job),
        JobState.QUEUED,
        "due_at = ?, pin = coalesce(nullif(?, ''), pin), spent_seconds = spent_seconds + ?,"
        " attempts = attempts - ?, ambiguous = ambiguous + ?, internal_errors = internal_errors + ?,"
        " crashes = 0, code = ?, reason = ?",
        (
            *(due_at, retry.assigned_provider, retry.spent_seconds, int(not ended.counted)),
            *(int(ended.ambiguous), int(ended.internal), retry.code, retry.reason),
        ),
    )
    if retry.attempt is None:
        attempt_rows.forget_attempt(db, job.id)
        return
    attempt_rows.end_attempt(db, job.id, ended)
    if ended.ambiguous:
        increment_count(db, job.folder, MAYBE_PAID_TWICE)


def defer(db: Connection, job: Job, due_at: float, retry: Retry) -> None:
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


def end(
    db: Connection,
    leaving: ExpectedState,
    state: JobState,
    at: float,
    *,
    filed: bytes | None = None,
    reason: str = "",
) -> None:
    """Move a live state → an ended one; a trigger deletes the stored result and the reserved names.

    Args:
        at: Unix seconds by the queue's clock: the search index follows the jobs in the order of their ends.
    """
    move(db, leaving, state, "ended_at = ?, filed = ?, code = '', reason = ?", (at, filed, reason))


def move(
    db: Connection,
    leaving: ExpectedState,
    state: JobState,
    changes: str,
    values: tuple[object, ...] = (),
) -> tuple:  # type: ignore[type-arg]  # rows are untyped
    """One transition; returns the row as it is now. Constants of the caller's are put into the SQL."""
    if state not in TRANSITIONS[leaving.state]:
        raise LateTransitionError(f"no way from {leaving.state} to {state}")
    row: tuple | None = db.execute(  # type: ignore[type-arg]  # as above
        f"UPDATE jobs SET state = ?, remote_id = '', {changes} WHERE id = ? AND state = ?"  # constants
        f" AND fence = coalesce(?, fence) RETURNING {JOB_COLUMNS}",
        (state, *values, leaving.job_id, leaving.state, leaving.fence),
    ).fetchone()
    if row is None:
        raise LateTransitionError(f"job {leaving.job_id} is not {leaving.state} any more")
    return row


def interrupted(db: Connection, which: str = "TRUE", values: tuple[object, ...] = ()) -> list[Job]:
    """Jobs whose attempt the end of the daemon interrupted; *which* is a constant of the caller's.

    Jobs at a provider continue there, and are polled again.
    """
    rows = db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE {LIVE} AND state = 'transcribing' AND remote_id = ''"
        f" AND {which}",
        values,
    ).fetchall()
    return [job_of(row) for row in rows]


def requeue_interrupted(db: Connection, job: Job, due_at: float) -> None:
    """Move transcribing → queued because the daemon ended; counts towards max_crashes alone."""
    move(
        db,
        expected_state_of(job),
        JobState.QUEUED,
        # Counted here: the database refuses a sum that it cannot hold, and one row would end each start.
        "due_at = ?, attempts = ?, crashes = ?, code = 'interrupted',"
        " reason = 'the daemon ended during the attempt; it may have been paid for'",
        (due_at, max(0, job.attempts - 1), min(job.crashes + 1, _MOST_CRASHES)),
    )
    attempt_rows.end_attempt(
        db, job.id, AttemptEnd(0.0, code="interrupted", reason="the daemon ended", counted=False)
    )
    increment_count(db, job.folder, MAYBE_PAID_TWICE)


def increment_count(db: Connection, folder: str, what: str) -> None:
    """Count *what* (:data:`MAYBE_PAID_TWICE`, :data:`SUSPECT`) once more; the count is never taken back."""
    db.execute(
        "INSERT INTO counts VALUES (?, ?, 1) ON CONFLICT (folder, state) DO UPDATE SET n = counts.n + 1",
        (folder, what),
    )
