"""Rows of jobs to delete at their providers; a trigger adds one when a job leaves its provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropscribe.queue.sql.database import Connection

DELETION_LEASE_SECONDS = 600.0  # Lease of a deletion that was taken: it is not tried again for this long


@dataclass(frozen=True, slots=True)
class RemoteDeletion:
    """One job to delete."""

    id: int
    provider: str
    remote_id: str  # The provider's id of the job
    tries: int  # Begun so far, this one included


def take_due_deletion(db: Connection, now: float) -> RemoteDeletion | None:
    """Begin a try at the deletion that is due longest, if any is."""
    row = db.execute(
        "UPDATE remote_deletions SET due_at = ?, tries = tries + 1 WHERE id ="
        " (SELECT id FROM remote_deletions WHERE due_at <= ? ORDER BY due_at, id LIMIT 1)"
        " RETURNING id, provider, remote_id, tries",
        (now + DELETION_LEASE_SECONDS, now),
    ).fetchone()
    return RemoteDeletion(*row) if row else None


def finish_deletion(db: Connection, deletion: RemoteDeletion) -> None:
    """Remove the row of a deletion that is done or given up."""
    db.execute("DELETE FROM remote_deletions WHERE id = ?", (deletion.id,))


def defer_deletion(db: Connection, deletion: RemoteDeletion, due_at: float) -> None:
    """Retry a failed deletion at *due_at*."""
    db.execute("UPDATE remote_deletions SET due_at = ? WHERE id = ?", (due_at, deletion.id))
