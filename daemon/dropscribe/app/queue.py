"""Opens the queue, waiting for a cluster's database."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreAway
from dropscribe.queue.build import open_engine

if TYPE_CHECKING:
    from dropscribe.config.model import Config
    from dropscribe.queue.embedded.store import Store
    from dropscribe.queue.engine import Engine
    from dropscribe.service.sd_notify import Notifier

log = structlog.get_logger()

_AGAIN_SECONDS = 2.0


async def open_when_there(
    config: Config, own: Store, notifier: Notifier, stop: asyncio.Event
) -> Engine | None:
    """The engine, waiting while a cluster's database is away; None when *stop* is set first.

    Raises:
        StoreError: The database cannot be used.
    """
    told = False
    while not stop.is_set():
        try:
            return await asyncio.to_thread(open_engine, config.queue, own)
        except StoreAway as error:
            if not told:
                log.warning("queue.away", reason=error.reason, server=error.path)
            told = True
            notifier.status("waiting for the queue's database")
            notifier.extend_timeout(_AGAIN_SECONDS + 60)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_SECONDS):
                await stop.wait()
    return None
