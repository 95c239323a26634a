"""Rows as the inboxes change them: files that arrive, move, are put back or go away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.model import JobState, NewJob, Submitted
from dropscribe.core.routing import BACKLOG
from dropscribe.jobs import backlog
from dropscribe.jobs.rows import LIVE, Standing, end, join_path, split_path

if TYPE_CHECKING:
    from dropscribe.jobs.database import Connection


def submit(db: Connection, new: NewJob) -> Submitted:
    """Insert one job, unless one with its identity lives."""
    directory, name = split_path(new.path)
    seen = new.snapshot
    pin = BACKLOG if backlog.waits(db, new.folder, seen.ctime_ns / 1e9) else ""
    row = db.execute(
        "INSERT INTO jobs (folder, directory, name, identity, stable_inodes, device, inode, size_bytes,"
        " mtime_ns, incomplete, state, pin, received_at, due_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
        (
            *(new.folder, directory, name, new.identity, new.stable_inodes),
            *(seen.device, seen.inode, seen.size_bytes, seen.mtime_ns, new.incomplete),
            *(pin, new.received_at, new.received_at),
        ),
    ).fetchone()
    if row is None:
        row = db.execute(
            f"SELECT directory, name FROM jobs WHERE folder = ? AND identity = ? AND {LIVE}",  # constant
            (new.folder, new.identity),
        ).fetchone()
        return Submitted(is_new=False, live_path=join_path(*row) if row else None)
    _supersede(db, new, directory, name, row[0])
    return Submitted(is_new=True)


def _supersede(db: Connection, new: NewJob, directory: bytes, name: bytes, job_id: int) -> None:
    """Another file stands at the path now: the queued job of the one before it has lost its audio."""
    rows = db.execute(
        "SELECT id FROM jobs"
        " WHERE folder = ? AND directory = ? AND name = ? AND state = 'queued' AND id <> ?",
        (new.folder, directory, name, job_id),
    ).fetchall()
    for (old_id,) in rows:
        end(db, Standing(old_id, JobState.QUEUED), JobState.WITHDRAWN, reason="another file took its place")


def read_failed_of(db: Connection, new: NewJob) -> list[tuple[str, bytes]]:
    """Failed jobs of what may be the same audio, of any folder: (folder, where it was filed, absolute).

    Matched by size and mtime, which every kind of move keeps; the caller checks that the audio is
    really gone from ``failed``.
    """
    return db.execute(
        "SELECT folder, filed FROM jobs WHERE folder IN (SELECT folder FROM counts WHERE state = 'failed')"
        " AND size_bytes = ? AND mtime_ns = ? AND state = 'failed' AND filed IS NOT NULL",
        (new.snapshot.size_bytes, new.snapshot.mtime_ns),
    ).fetchall()


def forget_failed(db: Connection, folder: str, filed: bytes) -> None:
    """A failed file was taken back: it no longer counts as failed."""
    db.execute(
        "UPDATE jobs SET state = 'withdrawn', reason = 'taken back into the inbox'"
        " WHERE folder = ? AND filed = ? AND state = 'failed'",
        (folder, filed),
    )


def withdraw(db: Connection, folder: str, places: list[tuple[bytes, bytes]], reason: str) -> None:
    """Queued and kept jobs whose files are gone end; those that run are left to their handler."""
    for directory, name in places:
        found = db.execute(
            "SELECT id, state FROM jobs WHERE folder = ? AND directory = ? AND name = ?"
            f" AND {LIVE} AND state <> 'transcribing'",
            (folder, directory, name),
        ).fetchall()
        for job_id, state in found:
            end(db, Standing(job_id, JobState(state)), JobState.WITHDRAWN, reason=reason)


def relocate(db: Connection, folder: str, old_path: bytes, new_path: bytes) -> None:
    """A live job's file was renamed inside its inbox; a kept answer gets its names anew."""
    db.execute(
        f"UPDATE jobs SET directory = ?, name = ? WHERE folder = ? AND directory = ? AND name = ? AND {LIVE}",
        (*split_path(new_path), folder, *split_path(old_path)),
    )


def read_live(db: Connection, folder: str, directory: bytes) -> list[tuple[bytes, int, int, int, int, bool]]:
    """(name, inode, size_bytes, mtime_ns, device, stable_inodes) of one directory's live jobs."""
    return db.execute(
        "SELECT name, inode, size_bytes, mtime_ns, device, stable_inodes FROM jobs"
        f" WHERE folder = ? AND directory = ? AND {LIVE} ORDER BY name",
        (folder, directory),
    ).fetchall()


def read_directories(db: Connection, folder: str) -> list[bytes]:
    """Directories that live jobs stand in."""
    rows = db.execute(f"SELECT DISTINCT directory FROM jobs WHERE folder = ? AND {LIVE}", (folder,))
    return [directory for (directory,) in rows]


def set_device(db: Connection, folder: str, directory: bytes, device: int) -> None:
    """The directory's live files are on *device* now: it was mounted anew."""
    db.execute(
        f"UPDATE jobs SET device = ? WHERE folder = ? AND directory = ? AND {LIVE}",
        (device, folder, directory),
    )
