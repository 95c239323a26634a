"""Rows of holds and pauses: providers and folders that are held, and providers that asked for no requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.model import Hold, Scope, ScopeKind
from dropscribe.queue.model import Pause

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    """Every hold; rows of an unknown kind are ignored."""
    return [
        Hold(Scope(ScopeKind(kind), name), *rest)
        for kind, name, *rest in db.execute(
            "SELECT kind, name, code, reason, since, next_probe_at, wait_seconds FROM holds"
            " WHERE kind IN (?, ?) ORDER BY kind, name",
            tuple(ScopeKind),
        )
    ]


def make_due(db: Connection, column: str, name: str, now: float) -> None:
    """Make deferred jobs due whose provider or folder has just shown that it works."""
    if column not in {"provider", "folder"}:
        raise ValueError(column)
    db.execute(
        f"UPDATE jobs SET due_at = ? WHERE state = 'queued' AND {column} = ? AND due_at > ?",
        (now, name, now),
    )


def newest_untried(db: Connection, queues: Iterable[tuple[str, str]], which: str = "TRUE") -> int | None:
    """The newest waiting job that was never tried: the best probe of a hold.

    A file that was refused itself would only be refused again, and the files that arrived with it are the
    likeliest to share its fault.

    Args:
        queues: (folder, assigned provider) of the jobs that may be taken.
        which: A further condition; a constant of the caller's.
    """
    found: list[tuple[float, int]] = []
    for folder, assigned in queues:
        found += db.execute(
            "SELECT due_at, id FROM jobs WHERE state = 'queued' AND folder = ? AND pin = ? AND code = ''"
            f" AND crashes = 0 AND {which} ORDER BY due_at DESC, id DESC LIMIT 1",
            (folder, assigned),
        ).fetchall()
    return max(found)[1] if found else None


def write_pause(db: Connection, pause: Pause) -> None:
    """Begin a pause; one that lasts longer already stays."""
    db.execute(
        "INSERT INTO pauses VALUES (?, ?, ?) ON CONFLICT (provider) DO UPDATE SET"
        " until = CASE WHEN pauses.until > excluded.until THEN pauses.until ELSE excluded.until END",
        (pause.provider, pause.since, pause.until),
    )


def cut_pause(db: Connection, provider: str, now: float) -> None:
    """End a pause now, and make the jobs due that wait for it; it stands until the provider has answered."""
    db.execute("UPDATE pauses SET until = ? WHERE provider = ? AND until > ?", (now, provider, now))
    make_due(db, "provider", provider, now)


def end_pause(db: Connection, provider: str, now: float) -> None:
    """Forget a pause that is over: the provider has answered since."""
    db.execute("DELETE FROM pauses WHERE provider = ? AND until <= ?", (provider, now))


def read_pauses(db: Connection) -> dict[str, Pause]:
    """Every pause by provider; one that is over stands until the provider has answered once."""
    rows = db.execute("SELECT provider, since, until FROM pauses").fetchall()
    return {row[0]: Pause(*row) for row in rows}
