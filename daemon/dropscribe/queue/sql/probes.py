"""Selects the waiting job that probes a hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dropscribe.queue.sql.database import Connection


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
