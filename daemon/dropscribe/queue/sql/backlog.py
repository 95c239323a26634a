"""The backlog: files that were in an inbox before the first start of its rule and wait for their release.

``facts`` holds one mark for each folder: Unix seconds of that first start, or ``released``. A file is backlog
if its ctime is older; neither a copy nor a touch can set a ctime back.
"""

from __future__ import annotations

from collections.abc import Mapping

from dropscribe.core.routing import BACKLOG
from dropscribe.queue.sql.database import Connection, upsert
from dropscribe.queue.sql.rows import QUEUED

_RELEASED = "released"


def begin(db: Connection, asks: Mapping[str, bool], now: float) -> None:
    """Mark the first start of folders whose rule *asks* (``backlog: ask``), before any inbox is listed.

    The backlog of the others is released.
    """
    for folder, does_ask in asks.items():
        mark = mark_of(db, folder)
        if does_ask and mark is None:
            _write_mark(db, folder, _RELEASED if _has_run(db, folder) else repr(now))
        elif not does_ask and mark not in {None, _RELEASED}:
            release(db, folder)


def rename(db: Connection, old: str, new: str) -> None:
    """Move the mark of a folder whose rule has another name now."""
    if (mark := mark_of(db, old)) is not None:
        _write_mark(db, new, mark)
        db.execute("DELETE FROM facts WHERE name = ?", (f"backlog:{old}",))


def is_before(mark: str | None, ctime: float) -> bool:
    """Whether a file that was changed last at *ctime* (Unix seconds) is backlog of a folder with *mark*."""
    try:
        return ctime < float(mark or 0)
    except ValueError:  # it is released, or the mark is no time
        return False


def is_first_start(db: Connection | None, folder: str) -> bool:
    """Whether *folder* has no mark yet, and has never had a job."""
    return db is None or (mark_of(db, folder) is None and not _has_run(db, folder))


def _has_run(db: Connection, folder: str) -> bool:
    return db.execute("SELECT 1 FROM counts WHERE folder = ? LIMIT 1", (folder,)).fetchone() is not None


def release(db: Connection, folder: str) -> int:
    """Release the backlog of *folder*; returns the number of jobs that waited."""
    _write_mark(db, folder, _RELEASED)
    waiting = f"{QUEUED} AND folder = ? AND pin = ?"
    return db.execute(f"UPDATE jobs SET pin = '' WHERE {waiting}", (folder, BACKLOG)).rowcount


def mark_of(db: Connection, folder: str) -> str | None:
    """The folder's mark; None before its first start with a rule that asks."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (f"backlog:{folder}",)).fetchone()
    return row[0] if row else None


def _write_mark(db: Connection, folder: str, mark: str) -> None:
    upsert(db, "facts", "name", {"name": f"backlog:{folder}", "value": mark})
