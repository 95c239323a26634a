"""Deletes jobs at their providers once they are over here.

Guarantees: a result is stored before its job is deleted; a failed deletion is tried again, less and less
often, also after a restart, MOST_TRIES times.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.backoff import backoff_seconds
from dropscribe.core.errors import ProviderError, StoreError
from dropscribe.files.crashpoint import reached
from dropscribe.providers.base import JobProvider
from dropscribe.queue.sql import remote_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.providers.base import Provider
    from dropscribe.queue.engine import Engine
    from dropscribe.queue.sql.remote_rows import RemoteDeletion

log = structlog.get_logger()

LOOK_SECONDS = 5.0
MOST_TRIES = 12
FIRST_WAIT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 6 * 3600.0


async def delete_remote_jobs(engine: Engine, providers: Callable[[], Mapping[str, Provider]]) -> None:
    """Delete remote jobs that are due, until cancelled; idle while no provider has jobs."""
    while True:
        if any(isinstance(provider, JobProvider) for provider in providers().values()):
            try:
                await delete_due(engine, providers())
            except StoreError as error:
                log.debug("remote_jobs.not_deleted", reason=error.reason)
        await asyncio.sleep(LOOK_SECONDS)


async def delete_due(engine: Engine, providers: Mapping[str, Provider]) -> None:
    """Try each deletion that is due once.

    They are taken one by one: a crash leaves one of them with a lease to wait for, not its neighbours too.
    """
    now = engine.now()
    while due := await engine.store.do(lambda db: remote_rows.take_due_deletions(db, now, 1)):
        await _delete(engine, providers.get(due[0].provider), due[0])


async def _delete(engine: Engine, provider: Provider | None, deletion: RemoteDeletion) -> None:
    failure = "the config has no such provider any more"
    if isinstance(provider, JobProvider):
        try:
            await provider.delete_job(deletion.remote_id)
        except ProviderError as error:
            failure = error.reason
        else:
            reached("job_deleted")
            await engine.store.do(lambda db: remote_rows.finish_deletion(db, deletion))
            return
    if deletion.tries >= MOST_TRIES:
        log.warning(
            "remote_job.left", provider=deletion.provider, remote_id=deletion.remote_id, reason=failure
        )
        await engine.store.do(lambda db: remote_rows.finish_deletion(db, deletion))
        return
    due_at = engine.now() + backoff_seconds(FIRST_WAIT_SECONDS, deletion.tries, LONGEST_WAIT_SECONDS)
    await engine.store.do(lambda db: remote_rows.defer_deletion(db, deletion, due_at))
