"""Rows of the outbox: one for each notification that its recipient has not accepted yet.

Guarantees: a notification stays until it is delivered, given up, or its recipient is gone from the config;
at most MOST_WAITING rows wait for one recipient. ``facts`` holds the time of the last message to each
recipient that gets many notifications in one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dropscribe.queue.sql.database import marks, upsert

MOST_WAITING = 10_000
"""Newer notifications of a recipient that does not accept them are dropped: it must not fill the disk."""


_LAST_MESSAGE = "last_message:"  # In ``facts``, before a recipient's name: Unix seconds


@dataclass(frozen=True, slots=True)
class Notification:
    """One event on its way to one recipient."""

    id: int
    event_id: str  # The same at every try and for every recipient
    at: float  # When it happened, Unix seconds
    content: str  # A JSON object, ASCII
    tries: int = 0  # Deliveries that failed


def put(db: sqlite3.Connection, new: Notification, recipients: Iterable[str]) -> list[str]:
    """A row for each of *recipients*, due at once; returns those with too many already."""
    full = []
    for recipient in recipients:
        (waiting,) = db.execute("SELECT count(*) FROM outbox WHERE recipient = ?", (recipient,)).fetchone()
        if waiting >= MOST_WAITING:
            full.append(recipient)
            continue
        row = (recipient, new.event_id, new.at, new.at, new.content)
        db.execute(
            "INSERT INTO outbox (recipient, event_id, at, due_at, content) VALUES (?, ?, ?, ?, ?)", row
        )
    return full


def read_due(db: sqlite3.Connection, recipient: str, now: float, most: int) -> list[Notification]:
    """At most *most* notifications that are due, in the order in which they happened."""
    due = db.execute(
        "SELECT id, event_id, at, content, tries FROM outbox WHERE recipient = ? AND due_at <= ?"
        " ORDER BY id LIMIT ?",
        (recipient, now, most),
    )
    return [Notification(*row) for row in due]


def first_due(db: sqlite3.Connection, recipient: str) -> tuple[float | None, float]:
    """When the next notification is due (None: none waits), and the last message was noted (0: never)."""
    (due_at,) = db.execute("SELECT min(due_at) FROM outbox WHERE recipient = ?", (recipient,)).fetchone()
    row = db.execute("SELECT value FROM facts WHERE name = ?", (_LAST_MESSAGE + recipient,)).fetchone()
    return due_at, float(row[0]) if row else 0.0


def delete(db: sqlite3.Connection, notifications: Iterable[Notification]) -> None:
    """Delete notifications that have arrived or are given up."""
    db.executemany("DELETE FROM outbox WHERE id = ?", [(each.id,) for each in notifications])


def defer(db: sqlite3.Connection, notifications: Iterable[Notification], due_at: float) -> None:
    """Try notifications that did not arrive again at *due_at*."""
    rows = [(due_at, each.id) for each in notifications]
    db.executemany("UPDATE outbox SET due_at = ?, tries = tries + 1 WHERE id = ?", rows)


def note_message(db: sqlite3.Connection, recipient: str, now: float) -> None:
    """Remember that a message was sent at *now*."""
    upsert(db, "facts", "name", {"name": _LAST_MESSAGE + recipient, "value": str(now)})


def begin(db: sqlite3.Connection, oldest_at: Mapping[str, float], now: float) -> int:
    """Delete notifications to recipients that are gone, and outdated ones; returns their number.

    *oldest_at* has each recipient, and the time before which a notification to it is outdated. The last
    messages to recipients that are gone are forgotten too. After a clock was set back, none waits for a time
    by the old clock.
    """
    db.execute("UPDATE outbox SET due_at = min(due_at, ?), at = min(at, ?)", (now, now))
    known = [_LAST_MESSAGE + recipient for recipient in oldest_at]
    gone = f"DELETE FROM facts WHERE substr(name, 1, ?) = ? AND name NOT IN ({marks(known)})"
    db.execute(gone, (len(_LAST_MESSAGE), _LAST_MESSAGE, *known))
    others = f"DELETE FROM outbox WHERE recipient NOT IN ({marks(oldest_at)})"
    deleted = db.execute(others, tuple(oldest_at)).rowcount
    outdated = "DELETE FROM outbox WHERE recipient = ? AND at < ?"
    return deleted + sum(db.execute(outdated, each).rowcount for each in oldest_at.items())
