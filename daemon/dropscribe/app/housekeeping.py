"""What has to be done now and then, whether files come or not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreError
from dropscribe.jobs import ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.jobs.store import Store

log = structlog.get_logger()

LEDGER_LOOK_SECONDS = 3600.0


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
