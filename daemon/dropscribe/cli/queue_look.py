"""The queue and the daemon as a command sees them that changes nothing."""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropscribe.core.budget import stops_of
from dropscribe.core.errors import StoreError
from dropscribe.jobs.accounts import read_accounts
from dropscribe.jobs.store import is_running, open_for_reading
from dropscribe.service.live import read_live
from dropscribe.work.setup import build_plan

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dropscribe.config.model import Config
    from dropscribe.core.model import Hold


@dataclass(frozen=True, slots=True)
class QueueLook:
    """One look at the state directory.

    Attributes:
        db: Read-only; None where no daemon has run yet.
        live: What the daemon wrote last; {} where none has.
        stops: Budgets that are spent.
    """

    db: sqlite3.Connection | None
    is_running: bool
    live: dict[str, Any]
    stops: Sequence[Hold] = ()

    def live_of(self, folder: str) -> dict[str, Any]:
        """What the running daemon says of one inbox; {} while it is down."""
        folders = self.live.get("folders", {}) if self.is_running else {}
        found = folders.get(folder, {}) if isinstance(folders, dict) else {}
        return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def look_at_queue(config: Config) -> Iterator[QueueLook]:
    """Open the queue for reading; nothing is created.

    Raises:
        StoreError: It may not be read (the remedy says as whom to ask), or cannot be.
    """
    state_dir = config.state_dir
    try:
        running = is_running(state_dir)
        db = open_for_reading(state_dir)
    except OSError as error:
        raise StoreError(str(state_dir), error.strerror or str(error), _remedy(state_dir)) from error
    except StoreError as error:
        if not os.access(state_dir, os.R_OK | os.X_OK, effective_ids=True):
            raise StoreError(str(state_dir), "may not be read by this user", _remedy(state_dir)) from error
        raise
    try:
        yield QueueLook(db, running, read_live(state_dir), _read_stops(db, config))
    finally:
        if db is not None:
            db.close()


def _read_stops(db: sqlite3.Connection | None, config: Config) -> Sequence[Hold]:
    plan = build_plan(config)
    return stops_of(read_accounts(db, plan.budgets, plan.zone, time.time())) if db else ()


def _remedy(state_dir: Path) -> str:
    """As whom to ask again; transcripts wait in there, so its mode is no mistake."""
    try:
        owner = pwd.getpwuid(os.stat(state_dir).st_uid).pw_name
    except (OSError, KeyError):
        owner = "root"
    as_owner = "sudo" if owner == "root" else f"sudo -u {owner}"
    return f"it is {owner}'s alone, because transcripts wait in it; ask as {owner}: {as_owner} dropscribe …"
