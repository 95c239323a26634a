"""Pages of jobs for people: filtered by folder, state, time and name, newest first."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropscribe.core.model import JobState
from dropscribe.queue.sql.database import is_shared
from dropscribe.queue.sql.rows import join_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dropscribe.queue.sql.database import Connection

WAITING = (JobState.QUEUED, JobState.TRANSCRIBING, JobState.TRANSCRIBED, JobState.REJECTED)

_LAST = (
    "coalesce(nullif({0}, ''), (SELECT {0} FROM attempts WHERE job_id = jobs.id AND code <> ''"
    " ORDER BY attempts.id DESC LIMIT 1), '')"
)
"""A job's own code or reason, else that of the last attempt that failed."""

_CODE, _REASON = _LAST.format("code"), _LAST.format("reason")
COLUMNS = (
    "id, folder, directory, name, size_bytes, state, provider, pin, received_at, due_at, ended_at, attempts,"
    " filed, remote_id, remote_at, {code}, {reason}"
)
"""Of a :class:`ListedFile`, in the order of its fields."""

_LISTED = COLUMNS.format(
    code=f"CASE state WHEN 'done' THEN '' ELSE {_CODE} END",
    reason=f"CASE state WHEN 'done' THEN '' ELSE {_REASON} END",
)

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
        found += [ListedFile(*fields_of(row)) for row in rows.fetchall()]
    found = sorted((job for job in found if job.id >= least_id), key=lambda job: -job.id)
    if len(found) > limit:
        return found[:limit], found[limit - 1].id
    return found, least_id or None


def fields_of(row: Sequence[Any]) -> tuple[Any, ...]:
    """The fields of a row that begins with :data:`COLUMNS`."""
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
