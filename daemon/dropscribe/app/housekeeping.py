"""What has to be done now and then, whether files come or not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.queue.rows_engine import RowsEngine

log = structlog.get_logger()

LEDGER_LOOK_SECONDS = 3600.0
RELEASE_LOOK_SECONDS = 2.0


async def keep_ledger_short(engine: RowsEngine, keep_seconds: Callable[[], float]) -> None:
    """Let go of answers that have grown too old, a small batch a transaction, until cancelled."""
    while True:
        try:
            await _prune_all(engine, keep_seconds)
        except StoreError as error:
            log.debug("ledger.not_pruned", reason=error.reason)
        await asyncio.sleep(LEDGER_LOOK_SECONDS)


async def _prune_all(engine: RowsEngine, keep_seconds: Callable[[], float]) -> None:
    while await engine.prune_ledger(keep_seconds()):
        pass


async def notice_releases(engine: RowsEngine, does_ask: Callable[[], bool]) -> None:
    """Feed anew soon after a command has written into the database, until cancelled.

    Only while some rule asks before it takes a backlog: nobody else waits for a command.
    """
    seen: int | None = None
    while True:
        await asyncio.sleep(RELEASE_LOOK_SECONDS)
        if not does_ask():
            continue
        try:
            version = await engine.data_version()
        except StoreError as error:
            log.debug("release.not_noticed", reason=error.reason)
            continue
        if version != seen:
            engine.wake_from_thread(asyncio.get_running_loop())
        seen = version
