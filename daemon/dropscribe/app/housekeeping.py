"""What has to be done now and then, whether files come or not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreError
from dropscribe.jobs import ledger

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from dropscribe.jobs.embedded import EmbeddedEngine
    from dropscribe.jobs.store import Store

log = structlog.get_logger()

LEDGER_LOOK_SECONDS = 3600.0
RELEASE_LOOK_SECONDS = 2.0


async def keep_ledger_short(store: Store, keep_seconds: Callable[[], float]) -> None:
    """Let go of answers that have grown too old, a small batch a transaction, until cancelled."""
    while True:
        try:
            await _prune_all(store, keep_seconds)
        except StoreError as error:
            log.debug("ledger.not_pruned", reason=error.reason)
        await asyncio.sleep(LEDGER_LOOK_SECONDS)


async def _prune_all(store: Store, keep_seconds: Callable[[], float]) -> None:
    gone = ledger.PRUNE_BATCH
    while gone == ledger.PRUNE_BATCH:
        gone = await store.do(lambda db: ledger.prune(db, time.time() - keep_seconds()))


async def notice_releases(engine: EmbeddedEngine, does_ask: Callable[[], bool]) -> None:
    """Feed anew soon after a command has written into the database, until cancelled.

    Only while some rule asks before it takes a backlog: nobody else waits for a command.
    """
    seen: int | None = None
    while True:
        await asyncio.sleep(RELEASE_LOOK_SECONDS)
        if not does_ask():
            continue
        try:
            version = await engine.store.do(_data_version)
        except StoreError as error:
            log.debug("release.not_noticed", reason=error.reason)
            continue
        if version != seen:
            engine.wake_from_thread(asyncio.get_running_loop())
        seen = version


def _data_version(db: sqlite3.Connection) -> int:
    """Changes when another connection has written."""
    version: int = db.execute("PRAGMA data_version").fetchone()[0]
    return version
