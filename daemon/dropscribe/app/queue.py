"""The queue that a config asks for: this machine's own, or a cluster's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreAway, StoreUnusable
from dropscribe.queue.embedded.engine import EmbeddedEngine
from dropscribe.queue.sql import result_rows

if TYPE_CHECKING:
    from dropscribe.config.model import Config
    from dropscribe.core.retry import RetryLimits
    from dropscribe.queue.embedded.store import Store
    from dropscribe.queue.rows_engine import RowsEngine
    from dropscribe.service.sd_notify import Notifier

log = structlog.get_logger()

_AGAIN_SECONDS = 2.0


def open_engine(config: Config, own: Store, limits: RetryLimits) -> RowsEngine:
    """The engine with an open store: *own* or a cluster's; the caller closes ``engine.store``.

    Raises:
        StoreAway: The cluster's database cannot be had now.
        StoreUnusable: *own* holds answers that were paid for and not yet published, or the server refuses us.
    """
    if config.queue is None:
        return EmbeddedEngine(own, limits)
    # The extra is installed where a config asks for it, and costs memory.
    from dropscribe.app.cluster_node import open_node  # noqa: PLC0415

    _refuse_unpublished(own)
    return open_node(config.queue, limits)


def _refuse_unpublished(own: Store) -> None:
    """An answer that was paid for stays in the queue that holds it, where a cluster would not find it."""
    count = own.call(result_rows.count_stored_results).result()
    if count:
        raise StoreUnusable(
            str(own.path),
            f"holds {count} transcripts that are not published yet",
            "remove `queue:` from the config, run `dropscribe run --once`, then add it again",
        )


async def open_when_there(
    config: Config, own: Store, limits: RetryLimits, notifier: Notifier, stop: asyncio.Event
) -> RowsEngine | None:
    """The same, waiting while a cluster's database is away; None when *stop* is set first.

    Raises:
        StoreError: It refuses us.
    """
    told = False
    while not stop.is_set():
        try:
            return await asyncio.to_thread(open_engine, config, own, limits)
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
