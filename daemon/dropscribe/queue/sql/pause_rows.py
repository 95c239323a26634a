"""Rows of pauses: the time until which a provider asked for no requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.queue.model import Pause

if TYPE_CHECKING:
    from dropscribe.queue.sql.database import Connection


def write_pause(db: Connection, pause: Pause) -> None:
    """Begin a pause; one that lasts longer already stays."""
    db.execute(
        "INSERT INTO pauses VALUES (?, ?, ?) ON CONFLICT (provider) DO UPDATE SET"
        " until = CASE WHEN pauses.until > excluded.until THEN pauses.until ELSE excluded.until END",
        (pause.provider, pause.since, pause.until),
    )


def end_pause(db: Connection, provider: str, now: float) -> None:
    """Forget a pause that is over: the provider has answered since."""
    db.execute("DELETE FROM pauses WHERE provider = ? AND until <= ?", (provider, now))


def read_pauses(db: Connection) -> dict[str, Pause]:
    """Every pause by provider; one that is over stands until the provider has answered once."""
    rows = db.execute("SELECT provider, since, until FROM pauses").fetchall()
    return {row[0]: Pause(*row) for row in rows}
