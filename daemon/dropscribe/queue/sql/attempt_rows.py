"""Rows of attempts: written with the claim, ended in the transaction of the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.model import Attempt
from dropscribe.core.retry import REUSED
from dropscribe.queue.embedded.store import is_migrated

if TYPE_CHECKING:
    from dropscribe.core.model import AttemptEnd
    from dropscribe.queue.sql.database import Connection


_MOST_RECENT = 10_000


def begin_attempt(db: Connection, job_id: int, provider: str, now: float) -> None:
    """Insert an attempt that runs from *now* (Unix seconds)."""
    db.execute("INSERT INTO attempts (job_id, at, provider) VALUES (?, ?, ?)", (job_id, now, provider))


def end_attempt(db: Connection, job_id: int, ended: AttemptEnd) -> None:
    """Write how the running attempt ended."""
    db.execute(
        "UPDATE attempts SET seconds = ?, status = ?, code = ?, reason = ?, counted = ?, refused = ?"
        " WHERE id = (SELECT max(id) FROM attempts WHERE job_id = ?) AND seconds IS NULL",
        (ended.seconds, ended.status, ended.code, ended.reason, ended.counted, ended.refused, job_id),
    )


def forget_attempt(db: Connection, job_id: int) -> None:
    """Delete the running attempt. Nothing was sent, and a missing file must not fill the history."""
    db.execute(
        "DELETE FROM attempts WHERE id = (SELECT max(id) FROM attempts WHERE job_id = ?) AND seconds IS NULL",
        (job_id,),
    )


def read_recent_starts(db: Connection, since: float) -> list[tuple[str, float]]:
    """(provider, Unix seconds) of the newest requests that began after *since*, oldest first."""
    rows = db.execute("SELECT provider, at, code FROM attempts ORDER BY id DESC LIMIT ?", (_MOST_RECENT,))
    newest = reversed(rows.fetchall())
    return [(provider, at) for provider, at, code in newest if at > since and code != REUSED]


def read_attempts(db: Connection, job_id: int) -> list[Attempt]:
    """Every attempt of one job, oldest first."""
    column = "refused" if is_migrated(db) else "0"  # `why` may ask before the new daemon has started
    rows = db.execute(
        f"SELECT at, provider, seconds, status, code, reason, counted, {column} FROM attempts"  # constants
        " WHERE job_id = ? ORDER BY id",
        (job_id,),
    )
    return [
        Attempt(at, provider, seconds, status, code, reason, counted=bool(counted), refused=bool(refused))
        for at, provider, seconds, status, code, reason, counted, refused in rows
    ]
