"""Recurring work on the queue: deleting what is too old, noticing what a command released."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import Config
    from dropscribe.queue.rows_engine import RowsEngine

log = structlog.get_logger()

PRUNE_LOOK_SECONDS = 3600.0
RELEASE_LOOK_SECONDS = 2.0
PRUNE_GAP_SECONDS = 0.05
"""Claims and results come first."""


async def prune_queue(engine: RowsEngine, config: Callable[[], Config]) -> None:
    """Delete cached answers and ended jobs that are too old, a small batch a transaction, until cancelled."""
    while True:
        has_more = False
        try:
            has_more = await engine.prune(config().ledger_keep_seconds, config().history_keep_seconds)
        except StoreError as error:
            log.debug("queue.not_pruned", reason=error.reason)
        await asyncio.sleep(PRUNE_GAP_SECONDS if has_more else PRUNE_LOOK_SECONDS)


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
