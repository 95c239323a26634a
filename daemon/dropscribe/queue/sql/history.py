"""Reads single jobs, for ``why`` and ``plan``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.model import JobState
from dropscribe.queue.sql import file_list
from dropscribe.queue.sql.database import is_shared, marks
from dropscribe.queue.sql.rows import LIVE, QUEUED, join_path, read_attempts, split_path
from dropscribe.queue.sql.stats import QUARTER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dropscribe.core.model import Attempt
    from dropscribe.queue.sql.database import Connection

_COLUMNS = file_list.COLUMNS.format(code="code", reason="reason") + ", mtime_ns, ambiguous, crashes"


@dataclass(frozen=True, slots=True)
class JobRecord(file_list.ListedFile):
    """One job, as stored: code and reason are those of the last attempt, or try to publish, that failed."""

    mtime_ns: int
    ambiguous: int
    crashes: int
    node: str  # The node that has it, or had it last, in a cluster; else ""
    lane: str  # The provider whose next free slot it has a ticket for, in a cluster; else ""
    tries: tuple[Attempt, ...]  # Every attempt, oldest first

    @property
    def filed_here(self) -> bytes | None:
        """The audio's path on this node, in done or failed; None where it has none."""
        return None if self.filed is None or self.filed.startswith(b"//") else self.filed


def read_records(db: Connection, folder: str, path: bytes) -> list[JobRecord]:
    """Every job that *path*, relative to the folder's inbox, has had; the newest first."""
    return _read(db, "folder = ? AND directory = ? AND name = ?", (folder, *split_path(path)))


def read_record(db: Connection, job_id: int) -> JobRecord | None:
    """The job with that id, or None."""
    return next(iter(_read(db, "id = ?", (job_id,))), None)


def read_filed(db: Connection, filed: bytes) -> list[JobRecord]:
    """Every job whose audio was put at *filed*, absolute; the newest first."""
    return _read(db, "filed = ?", (filed,))


def read_filed_with_stem(db: Connection, stem: bytes) -> list[JobRecord]:
    """Every job whose audio was put at *stem* and one suffix: the owners of its sidecars."""
    # "/" follows "." in ASCII, so the range is every path that goes on with a dot.
    records = _read(db, "filed >= ? AND filed < ?", (stem + b".", stem + b"/"))
    return [record for record in records if (record.filed or b"").rpartition(b".")[0] == stem]


def _read(db: Connection, which: str, values: Sequence[object]) -> list[JobRecord]:
    columns = _COLUMNS + (", node, lane" if is_shared(db) else ", '', ''")
    found = db.execute(f"SELECT {columns} FROM jobs WHERE {which} ORDER BY id DESC", values).fetchall()
    return [JobRecord(*file_list.fields_of((*row, tuple(read_attempts(db, row[0]))))) for row in found]


def read_live_states(db: Connection, folder: str) -> dict[bytes, tuple[JobState, float, str]]:
    """Identity → (state, due_at, pin) of the folder's live jobs."""
    rows = db.execute(f"SELECT identity, state, due_at, pin FROM jobs WHERE folder = ? AND {LIVE}", (folder,))
    return {identity: (JobState(state), due_at, pin) for identity, state, due_at, pin in rows}


LATEST = 1e11
"""Unix seconds in the year 5138. Calendars can name the times before it; another program wrote later ones."""

PRUNE_BATCH = 200  # Jobs that one transaction deletes at most, so that none gets long


def prune(db: Connection, before: float) -> int:
    """Delete jobs that ended before *before* (Unix seconds); returns how many, ``PRUNE_BATCH`` at most.

    The newest row stays: SQLite would give its id to the next job, and the result cache names jobs by id.
    """
    ended = db.execute(
        "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE ended_at IS NOT NULL AND ended_at < ?"
        " AND id < (SELECT max(id) FROM jobs) ORDER BY ended_at LIMIT ?)",
        (before, PRUNE_BATCH),
    )
    db.execute("DELETE FROM ended WHERE quarter < ?", (int(before) // QUARTER_SECONDS,))
    return ended.rowcount


def count_before(db: Connection, record: JobRecord) -> int:
    """Queued jobs of the same folder that are due before *record*."""
    row = db.execute(
        f"SELECT count(*) FROM jobs WHERE {QUEUED} AND folder = ? AND (due_at, id) < (?, ?)",
        (record.folder, record.due_at, record.id),
    ).fetchone()
    return int(row[0])


@dataclass(frozen=True, slots=True)
class DoneJob:
    """A job whose file is done."""

    id: int
    folder: str
    path: bytes  # Relative to the inbox
    filed: bytes  # As :attr:`JobRecord.filed`
    ended_at: float


def read_done_after(db: Connection, ended_at: float, job_id: int, limit: int) -> list[DoneJob]:
    """Done jobs that ended after *ended_at*, or then and with a greater id; in that order."""
    return _read_done(
        db,
        "ended_at >= ? AND ended_at < ? AND (ended_at > ? OR id > ?) ORDER BY ended_at, id LIMIT ?",
        (ended_at, LATEST, ended_at, job_id, limit),
    )


def read_done_from(db: Connection, after_id: int, limit: int) -> list[DoneJob]:
    """Done jobs with an id above *after_id*, in the order of their ids."""
    return _read_done(db, "id > ? ORDER BY id LIMIT ?", (after_id, limit))


def read_done(db: Connection, job_ids: Sequence[int]) -> dict[int, DoneJob]:
    """Those of *job_ids* that are done."""
    return {job.id: job for job in _read_done(db, f"id IN ({marks(job_ids)})", job_ids)}


def _read_done(db: Connection, which: str, values: Sequence[object]) -> list[DoneJob]:
    """Done jobs; one whose file's place was given to a later job is left out."""
    rows = db.execute(
        "SELECT id, folder, directory, name, filed, ended_at FROM jobs WHERE state = 'done'"
        " AND filed IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM jobs AS later WHERE later.filed = jobs.filed AND later.id > jobs.id)"
        f" AND {which}",  # constants of the callers
        values,
    )
    return [
        DoneJob(number, folder, join_path(directory, name), filed, ended_at)
        for number, folder, directory, name, filed, ended_at in rows.fetchall()
    ]
