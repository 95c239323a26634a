"""Rows of holds and pauses: providers and folders that are held, and providers that asked for no requests."""

from __future__ import annotations

from dataclasses import asdict

from dropscribe.core.model import Hold, Scope, ScopeKind
from dropscribe.queue.model import Pause
from dropscribe.queue.sql.database import Connection, upsert
from dropscribe.queue.sql.rows import AT_PROVIDER, QUEUED


def write_hold(db: Connection, hold: Hold) -> None:
    """Insert or replace one hold."""
    row = asdict(hold)
    upsert(db, "holds", "kind, name", row.pop("scope") | row)


def write_probe(db: Connection, hold: Hold) -> None:
    """Write *hold*, which is probed now; failed polls of its provider's jobs are repeated then too."""
    write_hold(db, hold)
    if hold.scope.kind is ScopeKind.PROVIDER:
        now = hold.next_probe_at
        put_off = f"{AT_PROVIDER} AND code <> '' AND provider = ? AND due_at > ?"
        db.execute(f"UPDATE jobs SET due_at = ? WHERE {put_off}", (now, hold.scope.name, now))


def end_hold(db: Connection, scope: Scope, now: float) -> None:
    """Delete one hold; its jobs are due at once."""
    db.execute("DELETE FROM holds WHERE kind = ? AND name = ?", (scope.kind, scope.name))
    _make_due(db, scope, now)


def read_holds(db: Connection) -> list[Hold]:
    """Every hold; rows of an unknown kind are ignored."""
    found = db.execute(
        "SELECT kind, name, code, reason, since, next_probe_at, wait_seconds FROM holds"
        " WHERE kind IN (?, ?) ORDER BY kind, name",
        tuple(ScopeKind),
    )
    return [Hold(Scope(ScopeKind(kind), name), *rest) for kind, name, *rest in found]


def _make_due(db: Connection, scope: Scope, now: float) -> None:
    """Make deferred jobs due whose provider or folder has just shown that it works."""
    deferred = f"{QUEUED} AND {scope.kind} = ? AND due_at > ?"
    db.execute(f"UPDATE jobs SET due_at = ? WHERE {deferred}", (now, scope.name, now))


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
    _make_due(db, Scope(ScopeKind.PROVIDER, provider), now)


def end_pause(db: Connection, provider: str, now: float) -> None:
    """Forget a pause that is over: the provider has answered since."""
    db.execute("DELETE FROM pauses WHERE provider = ? AND until <= ?", (provider, now))


def read_pauses(db: Connection) -> dict[str, Pause]:
    """Every pause by provider; one that is over stands until the provider has answered once."""
    rows = db.execute("SELECT provider, since, until FROM pauses").fetchall()
    return {row[0]: Pause(*row) for row in rows}
