"""Rows of stored results: answers that wait to be published, and the names that they reserve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dropscribe.core.model import AttemptEnd, FileSnapshot, Job, JobState, OutputNames, StoredResult, identity
from dropscribe.core.naming import Companion
from dropscribe.queue.sql import rows
from dropscribe.queue.sql.database import Connection, upsert
from dropscribe.queue.sql.rows import HAS_RESULT, JOB_COLUMNS, LateTransitionError, job_of

_COMPANION = b"companion:"
_COLUMNS = JOB_COLUMNS.split(", ")
_RETURNING = f"RETURNING {JOB_COLUMNS}"


def store_result(
    db: Connection, job: Job, result: StoredResult, ended: AttemptEnd, *, rejected: bool
) -> Job | None:
    """Move transcribing → transcribed | rejected, with the answer and the reserved names; returns the job.

    None, and nothing is written, where another live job has reserved one of the names.
    """
    if not _write_result(db, job, result):
        return None
    state = JobState.REJECTED if rejected else JobState.TRANSCRIBED
    changes = "due_at = 0, crashes = 0, internal_errors = 0, pin = ''"
    row = rows.move(db, job, state, changes, returning=_RETURNING)
    rows.end_attempt(db, job, ended)
    return job_of(row, result)


def replace_result(db: Connection, job: Job, result: StoredResult, *, rejected: bool) -> Job | None:
    """Store *result* in place of the one that cannot be published: with other names, or an error document.

    An error moves transcribed → rejected. Returns as :func:`store_result`.
    """
    # A node that was thought dead must not take names for a job that another node has published.
    row = db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ? AND fence = ? AND {HAS_RESULT}", (job.id, job.fence)
    ).fetchone()
    if row is None:
        raise LateTransitionError(f"job {job.id} has no stored result any more")
    db.execute("DELETE FROM reservations WHERE job_id = ?", (job.id,))
    if not _write_result(db, job, result):
        return None
    if rejected and job.state is JobState.TRANSCRIBED:
        row = rows.move(db, job, JobState.REJECTED, "due_at = 0", returning=_RETURNING)
    return job_of(row, result)


def refresh_snapshot(db: Connection, job: Job, snapshot: FileSnapshot) -> Job | None:
    """Let *job* stand for the same recording under a new inode or time; None where another job has begun it.

    A job that was queued for that state of the file ends: it would send the recording again.
    """
    key = identity(job.path, snapshot, stable_inodes=job.stable_inodes)
    twin, values = "folder = ? AND identity = ? AND id <> ?", (job.folder, key, job.id)
    rows.withdraw_queued(db, "the same recording was transcribed meanwhile", twin, values)
    if db.execute(f"SELECT 1 FROM jobs WHERE {twin} AND {rows.LIVE}", values).fetchone():
        return None
    inode = rows.inode_to_row(snapshot.inode) if job.stable_inodes else 0
    row = db.execute(
        "UPDATE jobs SET identity = ?, device = ?, inode = ?, mtime_ns = ? WHERE id = ? AND fence = ?"
        f" AND {HAS_RESULT} RETURNING {JOB_COLUMNS}",
        (key, snapshot.device, inode, snapshot.mtime_ns, job.id, job.fence),
    ).fetchone()
    if row is None:
        raise LateTransitionError(f"job {job.id} has no stored result any more")
    return replace(job_of(row, job.result), snapshot=snapshot)


def jobs_with_result(db: Connection, which: str, values: Sequence[object]) -> list[Job]:
    """Jobs with their stored results; *which* is a constant of the caller's."""
    columns = ", ".join("jobs." + column for column in _COLUMNS)
    found = db.execute(
        f"SELECT {columns}, document, sha256, root, answers.directory, audio, sidecars"
        f" FROM jobs JOIN answers ON answers.job_id = jobs.id WHERE {HAS_RESULT} AND {which}",
        values,
    )
    jobs = []
    for row in found.fetchall():
        document, sha256, *names = row[len(_COLUMNS) :]
        jobs.append(job_of(row, StoredResult(document, sha256, _unpack(*names))))
    return jobs


def count_stored_results(db: Connection) -> dict[str, int]:
    """Jobs whose answer is stored and whose files are not written yet, by folder."""
    return dict(db.execute(f"SELECT folder, count(*) FROM jobs WHERE {HAS_RESULT} GROUP BY 1").fetchall())


def _write_result(db: Connection, job: Job, result: StoredResult) -> bool:
    """Write the answer and reserve its names; False, and nothing, where another live job has one of them."""
    names = result.output_names
    values = [value for name in names.all_names for value in (names.path(name), job.id)]
    pairs = ", ".join(["(?, ?)"] * (len(values) // 2))
    insert = f"INSERT INTO reservations VALUES {pairs} ON CONFLICT (path) DO NOTHING"
    missing = len(values) // 2 - db.execute(insert, values).rowcount
    if missing:
        _end_older_reservations(db, job)
        missing -= db.execute(insert, values).rowcount
    if missing:
        db.execute("DELETE FROM reservations WHERE job_id = ?", (job.id,))
        return False
    answer = {"job_id": job.id, "document": result.document, "sha256": result.sha256}
    places = {"root": names.root, "directory": names.directory, "audio": names.audio}
    upsert(db, "answers", "job_id", answer | places | {"sidecars": _pack(names)})
    return True


def _end_older_reservations(db: Connection, job: Job) -> None:
    """Let *job* have the names of an older state of its file: publishing withdraws that one's answer."""
    older = f"SELECT id FROM jobs WHERE folder = ? AND directory = ? AND name = ? AND id < ? AND {HAS_RESULT}"
    values = (job.folder, *rows.split_path(job.path), job.id)
    db.execute(f"DELETE FROM reservations WHERE job_id IN ({older})", values)


def _pack(names: OutputNames) -> bytes:
    """The value of ``answers.sidecars``; its separators, slash and zero byte, are in no file name."""
    entries = [form.encode() + b"\0" + name for form, name in names.sidecars]
    for companion in names.companions:
        seen = companion.snapshot
        facts = b"%d:%d:%d" % (seen.inode, seen.size_bytes, seen.mtime_ns)
        entries.append(b"\0".join((_COMPANION + facts, companion.name, companion.source)))
    return b"/".join(entries)


def _unpack(root: bytes, directory: bytes, audio: bytes, packed: bytes) -> OutputNames:
    """The inverse of :func:`_pack`; no names where another program has written the row's content."""
    sidecars: list[tuple[str, bytes]] = []
    companions: list[Companion] = []
    try:
        for entry in filter(None, packed.split(b"/")):
            if entry.startswith(_COMPANION):
                facts, name, source = entry.removeprefix(_COMPANION).split(b"\0")
                inode, size_bytes, mtime_ns = map(int, facts.split(b":"))
                companions.append(Companion(b"", source, FileSnapshot(0, inode, size_bytes, mtime_ns), name))
            else:
                form, _, name = entry.partition(b"\0")
                sidecars.append((form.decode(), name))
    except ValueError:
        return OutputNames(b"", b"", b"", ())
    return OutputNames(root, directory, audio, tuple(sidecars), tuple(companions))
