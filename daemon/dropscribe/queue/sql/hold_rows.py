"""Rows of holds: providers and folders that are held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.model import Hold, Scope, ScopeKind

if TYPE_CHECKING:
    from dropscribe.queue.sql.database import Connection


def write_hold(db: Connection, hold: Hold) -> None:
    """Insert or replace one hold."""
    db.execute(
        "INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, name) DO UPDATE SET"
        " code = excluded.code, reason = excluded.reason, since = excluded.since,"
        " next_probe_at = excluded.next_probe_at, wait_seconds = excluded.wait_seconds",
        (
            hold.scope.kind,
            hold.scope.name,
            hold.code,
            hold.reason,
            hold.since,
            hold.next_probe_at,
            hold.wait_seconds,
        ),
    )


def delete_hold(db: Connection, scope: Scope) -> None:
    """Forget one hold."""
    db.execute("DELETE FROM holds WHERE kind = ? AND name = ?", (scope.kind, scope.name))


def read_holds(db: Connection) -> list[Hold]:
    """Every hold; a row of a kind that there is not holds nothing."""
    return [
        Hold(Scope(ScopeKind(kind), name), *rest)
        for kind, name, *rest in db.execute(
            "SELECT kind, name, code, reason, since, next_probe_at, wait_seconds FROM holds"
            " WHERE kind IN (?, ?) ORDER BY kind, name",
            tuple(ScopeKind),
        )
    ]


def make_due(db: Connection, column: str, name: str, now: float) -> None:
    """Deferred jobs whose provider or folder has just shown that it works need not wait longer."""
    if column not in {"provider", "folder"}:
        raise ValueError(column)
    db.execute(
        f"UPDATE jobs SET due_at = ? WHERE state = 'queued' AND {column} = ? AND due_at > ?",
        (now, name, now),
    )
