"""Ends a run: running uploads get their grace, everything is closed, and the remaining files are counted."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import structlog

from dropscribe.app.housekeeping import delete_due
from dropscribe.core.errors import StoreBusy, StoreError
from dropscribe.providers.base import JobProvider

if TYPE_CHECKING:
    from dropscribe.app.daemon import Daemon
    from dropscribe.queue.engine import Engine

log = structlog.get_logger()

LAST_DELETIONS_SECONDS = 10.0
"""Limit of the last deletions at providers; the next start does the rest."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of ``run --once``.

    Attributes:
        failed: Files that went to ``failed`` in this run.
        left: Files that wait for something; None if a cluster's database is away and nobody can tell.
        unavailable: Inboxes that are missing or cannot be read.
    """

    failed: int
    left: int | None
    unavailable: int = 0


async def shut_down(
    daemon: Daemon,
    feeding: asyncio.Task[None],
    reporting: asyncio.Task[None],
    side: list[asyncio.Task[Any]],
) -> RunResult:
    """Stop *daemon*.

    Args:
        feeding: The task that claims files.
        reporting: The task that writes live.json.
        side: All others.
    """
    grace_seconds, uploads = daemon.config.shutdown_grace_seconds, len(daemon.engine.in_flight)
    log.info("daemon.stopping", in_flight=uploads)
    daemon.notifier.stopping(f"finishing {uploads} files")
    daemon.notifier.extend_timeout(grace_seconds + 15)
    # Read before the stop: a stopped inbox no longer knows its files or its watch mode.
    inboxes = daemon.inboxes.live().values()
    reporting.cancel()
    daemon.report.write()
    await daemon.inboxes.stop()
    await daemon.engine.dispatcher.drain(grace_seconds)
    feeding.cancel()
    await asyncio.wait([feeding])
    live = await count_live(daemon.engine)
    result = RunResult(
        len(daemon.health.reporter.failed),
        None if live is None else live + sum(inbox["settling"] + inbox["blocked"] for inbox in inboxes),
        sum(not inbox["available"] for inbox in inboxes),
    )
    for task in side:
        task.cancel()
    await daemon.health.close()
    await _delete_last(daemon)
    for provider in daemon.providers.values():
        await provider.close()
    daemon.handler.close()
    log.info("daemon.stopped", **asdict(result))
    return result


async def count_live(engine: Engine) -> int | None:
    """Files in the queue; None if a cluster's database is away, because the stop does not wait for it."""
    with contextlib.suppress(StoreBusy):
        folders = (await engine.stats()).folders.values()
        return sum(
            each.queued + each.transcribing + each.at_provider + each.deferred + each.held + each.publishing
            for each in folders
        )
    return None


async def _delete_last(daemon: Daemon) -> None:
    """Delete the last files' recordings at their providers: ``run --once`` may have no next start."""
    if any(isinstance(provider, JobProvider) for provider in daemon.providers.values()):
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(LAST_DELETIONS_SECONDS):
                await delete_due(daemon.engine, daemon.providers)
