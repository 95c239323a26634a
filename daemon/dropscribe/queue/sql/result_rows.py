"""Rows of stored results: answers that wait to be published, and the names that they reserve."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from dropscribe.core.model import AttemptEnd, FileSnapshot, Job, JobState, OutputNames, StoredResult, identity
from dropscribe.core.naming import Companion
from dropscribe.queue.sql import attempt_rows
from dropscribe.queue.sql.rows import (
    HAS_RESULT,
    JOB_COLUMNS,
    LIVE,
    ExpectedState,
    LateTransitionError,
    end,
    expected_state_of,
    inode_to_row,
    job_of,
    move,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from dropscribe.queue.sql.database import Connection


def store_result(
    db: Connection, job: Job, result: StoredResult, ended: AttemptEnd, *, rejected: bool
) -> Job | None:
    """Move transcribing → transcribed | rejected, with the answer and the reserved names.

    Returns:
        The job in its new state; None where another live job has reserved one of the names.
    """
    if not _write_result(db, job.id, result):
        return None
    state = JobState.REJECTED if rejected else JobState.TRANSCRIBED
    row = move(db, expected_state_of(job), state, "due_at = 0, crashes = 0, internal_errors = 0, pin = ''")
    attempt_rows.end_attempt(db, job.id, ended)
    return job_of(row, result)


def rename_outputs(db: Connection, job: Job, result: StoredResult) -> Job | None:
    """Reserve other names for a result that is stored already; returns as :func:`store_result`."""
    # A node that was thought dead must not take names for a job that another node has published.
    row = db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ? AND fence = ? AND {HAS_RESULT}", (job.id, job.fence)
    ).fetchone()
    if row is None:
        raise LateTransitionError(f"job {job.id} has no stored result any more")
    db.execute("DELETE FROM reservations WHERE job_id = ?", (job.id,))
    return job_of(row, result) if _write_result(db, job.id, result) else None


def reject_result(db: Connection, job: Job, error: StoredResult) -> Job | None:
    """Move transcribed → rejected: the result cannot be published; returns as :func:`store_result`."""
    if rename_outputs(db, job, error) is None:
        return None
    return job_of(move(db, expected_state_of(job), JobState.REJECTED, "due_at = 0"), error)


def refresh_snapshot(db: Connection, job: Job, snapshot: FileSnapshot) -> Job | None:
    """Let *job* stand for the same recording under a new inode or time.

    A job that was queued for that state of the file ends: it would send the recording again.

    Returns:
        The job; None where another job has begun with it.
    """
    key = identity(job.path, snapshot, stable_inodes=job.stable_inodes)
    twins = db.execute(
        f"SELECT id, state FROM jobs WHERE folder = ? AND identity = ? AND id <> ? AND {LIVE}",
        (job.folder, key, job.id),
    ).fetchall()
    for twin_id, state in twins:
        if state != JobState.QUEUED:
            return None
        reason = "the same recording was transcribed meanwhile"
        end(db, ExpectedState(twin_id, JobState.QUEUED), JobState.WITHDRAWN, time.time(), reason=reason)
    inode = inode_to_row(snapshot.inode) if job.stable_inodes else 0
    row = db.execute(
        "UPDATE jobs SET identity = ?, device = ?, inode = ?, mtime_ns = ? WHERE id = ? AND fence = ?"
        f" AND {HAS_RESULT} RETURNING {JOB_COLUMNS}",
        (key, snapshot.device, inode, snapshot.mtime_ns, job.id, job.fence),
    ).fetchone()
    if row is None:
        raise LateTransitionError(f"job {job.id} has no stored result any more")
    return replace(job_of(row, job.result), snapshot=snapshot)


def _write_result(db: Connection, job_id: int, result: StoredResult) -> bool:
    names = result.output_names
    if not _reserve(db, job_id, [names.path(name) for name in names.all_names]):
        return False
    db.execute(
        "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE SET"
        " document = excluded.document, sha256 = excluded.sha256, root = excluded.root,"
        " directory = excluded.directory, audio = excluded.audio, sidecars = excluded.sidecars",
        (
            *(job_id, result.document, result.sha256),
            *(names.root, names.directory, names.audio, _pack(names)),
        ),
    )
    return True


def _reserve(db: Connection, job_id: int, paths: list[bytes]) -> bool:
    """Reserve the names, unless another live job has one of them."""
    pairs = ", ".join(["(?, ?)"] * len(paths))
    values = [value for path in paths for value in (path, job_id)]
    added = db.execute(
        f"INSERT INTO reservations VALUES {pairs} ON CONFLICT (path) DO NOTHING",
        values,  # marks alone
    ).rowcount
    if added < len(paths):
        db.execute("DELETE FROM reservations WHERE job_id = ?", (job_id,))
    return added == len(paths)


_COMPANION = b"companion:"


def _pack(names: OutputNames) -> bytes:
    """The value of ``answers.sidecars``; its separators, slash and zero byte, are in no file name."""
    sidecars = [form.encode() + b"\0" + name for form, name in names.sidecars]
    return b"/".join(sidecars + [_pack_companion(companion) for companion in names.companions])


def _pack_companion(companion: Companion) -> bytes:
    seen = companion.snapshot
    facts = b"%d:%d:%d" % (seen.inode, seen.size_bytes, seen.mtime_ns)
    return b"\0".join((_COMPANION + facts, companion.name, companion.source))


def unpack_names(root: bytes, directory: bytes, audio: bytes, packed: bytes) -> OutputNames:
    """Output names of a row in ``answers``; no names where another program has written its content."""
    entries = [entry for entry in packed.split(b"/") if entry]
    sidecars = (entry.partition(b"\0") for entry in entries if not entry.startswith(_COMPANION))
    companions = (_unpack_companion(entry) for entry in entries if entry.startswith(_COMPANION))
    try:
        named = tuple((form.decode(), name) for form, _, name in sidecars)
        return OutputNames(root, directory, audio, named, tuple(companions))
    except ValueError:
        return OutputNames(b"", b"", b"", ())


def _unpack_companion(entry: bytes) -> Companion:
    facts, name, source = entry.removeprefix(_COMPANION).split(b"\0")
    inode, size_bytes, mtime_ns = map(int, facts.split(b":"))
    return Companion(b"", source, FileSnapshot(0, inode, size_bytes, mtime_ns), name)


def due_for_publishing(db: Connection, now: float, limit: int, hanging: Collection[str] = ()) -> list[Job]:
    """Jobs of other folders than *hanging* whose files may be written now, oldest due first."""
    others = f"jobs.folder NOT IN ({', '.join('?' * len(hanging))}) AND " if hanging else ""  # marks alone
    which = f"{others}due_at <= ? ORDER BY due_at, jobs.id LIMIT ?"
    return jobs_with_result(db, which, (*hanging, now, limit))


def jobs_with_result(db: Connection, which: str, values: tuple[object, ...]) -> list[Job]:
    """Jobs with their stored results; *which* is a constant of the caller's."""
    columns = ", ".join("jobs." + column for column in JOB_COLUMNS.split(", "))
    rows = db.execute(
        f"SELECT {columns}, document, sha256, root, answers.directory, audio, sidecars"  # constants
        f" FROM jobs JOIN answers ON answers.job_id = jobs.id WHERE {HAS_RESULT} AND {which}",
        values,
    ).fetchall()
    return [job_of(row, _result_of(row[len(JOB_COLUMNS.split(", ")) :])) for row in rows]


def _result_of(row: tuple) -> StoredResult:  # type: ignore[type-arg]  # sqlite rows are untyped
    document, sha256, root, directory, audio, sidecars = row
    return StoredResult(document, sha256, unpack_names(root, directory, audio, sidecars))


def next_publishing_at(db: Connection, now: float) -> float | None:
    """When the next stored result that is not due yet will be, or None."""
    row = db.execute(f"SELECT min(due_at) FROM jobs WHERE {HAS_RESULT} AND due_at > ?", (now,)).fetchone()
    return row[0]  # type: ignore[no-any-return]  # a REAL column


def oldest_publishing_at(db: Connection, folder: str) -> float | None:
    """When the first stored result of *folder* is due, or None."""
    row = db.execute(f"SELECT min(due_at) FROM jobs WHERE {HAS_RESULT} AND folder = ?", (folder,)).fetchone()
    return row[0]  # type: ignore[no-any-return]  # a REAL column


def count_stored_results(db: Connection) -> dict[str, int]:
    """Jobs whose answer is stored and whose files are not written yet, by folder."""
    return dict(db.execute(f"SELECT folder, count(*) FROM jobs WHERE {HAS_RESULT} GROUP BY 1").fetchall())
