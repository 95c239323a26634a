"""Reads jobs for people: pages of a list, newest first, and single jobs for ``why`` and ``plan``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dropscribe.core.model import Attempt, JobState
from dropscribe.queue.sql.database import Connection, is_shared, marks
from dropscribe.queue.sql.rows import AT_PROVIDER, LIVE, QUEUED, join_path, read_attempts, split_path
from dropscribe.queue.sql.stats import QUARTER_SECONDS

_LAST = (
    "coalesce(nullif({0}, ''), (SELECT {0} FROM attempts WHERE job_id = jobs.id AND code <> ''"
    " ORDER BY attempts.id DESC LIMIT 1), '')"
)
"""A job's own code or reason, else that of the last attempt that failed."""

_CODE, _REASON = _LAST.format("code"), _LAST.format("reason")
_COLUMNS = (
    "id, folder, directory, name, size_bytes, state, provider, pin, received_at, due_at, ended_at, attempts,"
    " filed, remote_id, remote_at, {code}, {reason}"
)
"""Of a :class:`ListedFile`, in the order of its fields."""

# An earlier attempt's failure is not that of a job that is done, or that a provider works on now.
_SHOWN = f"CASE WHEN state = 'done' THEN '' WHEN {AT_PROVIDER} THEN {{}} ELSE {{}} END"
_LISTED = _COLUMNS.format(code=_SHOWN.format("code", _CODE), reason=_SHOWN.format("reason", _REASON))

_PART = "folder = ? AND state = ? AND id < ? ORDER BY id DESC"
_NEWEST = 2**62  # More than any job's id
MOST_SCANNED = 10_000  # Jobs of one folder and state among which one page looks for those that a filter wants
_INSTR = "instr({}, ?) > 0"
_POSITION = "position(? IN {}) > 0"


@dataclass(frozen=True, slots=True)
class FileFilter:
    """A selection of jobs to list."""

    folders: Sequence[str] = ()  # Names of rules; empty means all
    states: Sequence[JobState] = ()  # Job states; empty means all but withdrawn ones
    # Unix seconds; jobs that ended or arrived earlier are left out. None means all.
    since: float | None = None
    text: str = ""  # Part of the file's name or of its folder's path, in the same case; "" means all
    provider: str = ""  # Of the last attempt; "" means all
    code: str = ""  # The error code of the last attempt; "" means all
    before_id: int | None = None  # Only jobs with a smaller id: the next page. None means from the newest.


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One job, as a list shows it."""

    id: int
    folder: str
    path: bytes  # Relative to the inbox
    size_bytes: int
    state: JobState
    provider: str  # Of the attempt that runs or ran last
    pin: str  # The provider that it is assigned to, :data:`~dropscribe.core.routing.BACKLOG`, or ""
    received_at: float
    due_at: float
    ended_at: float | None
    attempts: int
    # Absolute path of the audio in done or failed; None while the job lives. Where this node lacks its root
    # it begins with "//" and the root's name (``cluster/postgres``).
    filed: bytes | None
    remote_id: str  # The provider's id of the job that it runs for this one
    remote_at: float | None  # When that id was stored, Unix seconds
    code: str
    reason: str

    @property
    def at_provider_since(self) -> float | None:
        """When the provider took it to work on it by itself; None where it does not."""
        return self.remote_at if self.remote_id and self.state is JobState.TRANSCRIBING else None


def read_files(db: Connection, wanted: FileFilter, limit: int) -> list[ListedFile]:
    """At most *limit* jobs, the newest arrival first."""
    return read_page(db, wanted, limit, is_bounded=False)[0]


def read_page(
    db: Connection, wanted: FileFilter, limit: int, *, is_bounded: bool = True
) -> tuple[list[ListedFile], int | None]:
    """At most *limit* jobs in bounded time, and *before_id* of the next page; None on the last one.

    Where few jobs match, a page may have fewer, or none, and there is still a next one.
    """
    # The newest of each folder and state, found by its index, and of these the newest.
    found: list[ListedFile] = []
    least_id = 0  # all jobs from here on were looked at
    folders = wanted.folders or [row[0] for row in db.execute("SELECT DISTINCT folder FROM counts")]
    states = wanted.states or [state for state in JobState if state is not JobState.WITHDRAWN]
    filters, values = _filters(wanted, _POSITION if is_shared(db) else _INSTR)
    for folder, state in itertools.product(folders, states):
        part = (folder, state.value, _NEWEST if wanted.before_id is None else wanted.before_id)
        if filters and is_bounded:
            count, first = db.execute(
                f"SELECT count(*), min(id) FROM (SELECT id FROM jobs WHERE {_PART} LIMIT ?) AS scanned",
                (*part, MOST_SCANNED),
            ).fetchone()
            least_id = max(least_id, first) if count == MOST_SCANNED else least_id
        rows = db.execute(
            f"SELECT {_LISTED} FROM jobs WHERE id >= ?{filters} AND {_PART} LIMIT ?",
            (least_id, *values, *part, limit + 1),
        )
        found += [ListedFile(*_fields_of(row)) for row in rows.fetchall()]
    found = sorted((job for job in found if job.id >= least_id), key=lambda job: -job.id)
    if len(found) > limit:
        return found[:limit], found[limit - 1].id
    return found, least_id or None


def _fields_of(row: Sequence[Any]) -> tuple[Any, ...]:
    """The fields of a row that begins with :data:`_COLUMNS`."""
    job_id, folder, directory, name, size_bytes, state, *rest = row
    return job_id, folder, join_path(directory, name), size_bytes, JobState(state), *rest


def _filters(wanted: FileFilter, contains: str) -> tuple[str, list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    if wanted.since is not None:
        conditions.append("coalesce(ended_at, received_at) >= ?")
        values.append(wanted.since)
    for column, value in (("provider", wanted.provider), (_CODE, wanted.code)):
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    if wanted.text:
        conditions.append(f"({contains.format('name')} OR {contains.format('directory')})")
        # Not bytes, which would be a place of this machine's where they begin with "/".
        values += [memoryview(os.fsencode(wanted.text))] * 2
    return "".join(f" AND {condition}" for condition in conditions), values


_STORED = _COLUMNS.format(code="code", reason="reason") + ", mtime_ns, ambiguous, crashes"


@dataclass(frozen=True, slots=True)
class JobRecord(ListedFile):
    """One job, as stored: code and reason are those of the last attempt, or try to publish, that failed."""

    mtime_ns: int
    ambiguous: int
    crashes: int
    node: str  # The node that has it, or had it last, in a cluster; else ""
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
    columns = _STORED + (", node" if is_shared(db) else ", ''")
    found = db.execute(f"SELECT {columns} FROM jobs WHERE {which} ORDER BY id DESC", values).fetchall()
    return [JobRecord(*_fields_of((*row, tuple(read_attempts(db, row[0]))))) for row in found]


def read_live_states(db: Connection, folder: str) -> dict[bytes, tuple[JobState, float, str]]:
    """Identity → (state, due_at, pin) of the folder's live jobs."""
    live = db.execute(f"SELECT identity, state, due_at, pin FROM jobs WHERE folder = ? AND {LIVE}", (folder,))
    return {identity: (JobState(state), due_at, pin) for identity, state, due_at, pin in live}


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
    before = f"SELECT count(*) FROM jobs WHERE {QUEUED} AND folder = ? AND (due_at, id) < (?, ?)"
    return int(db.execute(before, (record.folder, record.due_at, record.id)).fetchone()[0])


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
        DoneJob(number, folder, join_path(directory, name), *ending)
        for number, folder, directory, name, *ending in rows.fetchall()
    ]
