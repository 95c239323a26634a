"""Rows of jobs to delete at their provider; a trigger adds one when a job leaves its provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropscribe.queue.sql.database import Connection

LEASE_SECONDS = 600.0
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


def take_due(db: Connection, now: float, most: int) -> list[RemoteDeletion]:
    """Begin a try at each deletion that is due."""
    rows = db.execute(
        "UPDATE remote_deletions SET due_at = ?, tries = tries + 1 WHERE id IN"
        " (SELECT id FROM remote_deletions WHERE due_at <= ? ORDER BY due_at, id LIMIT ?)"
        " RETURNING id, provider, remote_id, tries",
        (now + LEASE_SECONDS, now, most),
    ).fetchall()
    return [RemoteDeletion(*row) for row in rows]


def finish(db: Connection, deletion: RemoteDeletion) -> None:
    """It is deleted, or given up."""
    db.execute("DELETE FROM remote_deletions WHERE id = ?", (deletion.id,))


def defer(db: Connection, deletion: RemoteDeletion, due_at: float) -> None:
    """It could not be deleted: try again at *due_at*."""
    db.execute("UPDATE remote_deletions SET due_at = ? WHERE id = ?", (due_at, deletion.id))
