"""Recurring work: deletes old rows, remote jobs and broken uploads, notices releases, indexes transcripts.

Guarantees: a result is stored before its job at a provider is deleted; a failed deletion is retried up to
MOST_TRIES times with growing waits, also after a restart.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import ProviderError, StoreError
from dropscribe.core.retry import backoff_seconds
from dropscribe.files.crashpoint import reached
from dropscribe.files.threads import DaemonThreads
from dropscribe.providers.base import JobProvider
from dropscribe.queue.sql import remote_deletions
from dropscribe.reports.patience import LISTING_SECONDS, ask_disk
from dropscribe.search.indexer import Indexer
from dropscribe.service.status import LIVE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.config.model import Config, FolderRule
    from dropscribe.providers.base import Provider
    from dropscribe.queue.engine import Engine
    from dropscribe.queue.sql.remote_deletions import RemoteDeletion

log = structlog.get_logger()

PRUNE_LOOK_SECONDS = 3600.0
DELETION_LOOK_SECONDS = 5.0
MOST_TRIES = 12
_FIRST_WAIT_SECONDS = 30.0
_LONGEST_WAIT_SECONDS = 6 * 3600.0
RELEASE_LOOK_SECONDS = 2.0
PRUNE_GAP_SECONDS = 0.05  # pause between two batches, so that claims and results come first
UPLOAD_LOOK_SECONDS = 6 * 3600.0
INDEX_LOOK_SECONDS = 2.0
INDEX_SWEEP_SECONDS = 60.0
INDEX_BUSY_SHARE = 0.05
"""Share of the time for indexing while files are in flight, because they share the interpreter."""
CLUSTER_LOOK_SECONDS = 5
"""Interval after which a cluster's node assumes a change, because other nodes do not announce theirs."""


async def prune_queue(engine: Engine, config: Callable[[], Config]) -> None:
    """Delete old cached answers and ended jobs until cancelled, one small batch per transaction."""
    while True:
        has_more = False
        try:
            has_more = await engine.prune(config().ledger_keep_seconds, config().history_keep_seconds)
        except StoreError as error:
            log.debug("queue.not_pruned", reason=error.reason)
        await asyncio.sleep(PRUNE_GAP_SECONDS if has_more else PRUNE_LOOK_SECONDS)


async def delete_remote_jobs(engine: Engine, providers: Callable[[], Mapping[str, Provider]]) -> None:
    """Delete remote jobs that are due, until cancelled; idle while no provider has jobs."""
    while True:
        if any(isinstance(provider, JobProvider) for provider in providers().values()):
            try:
                await delete_due(engine, providers())
            except StoreError as error:
                log.debug("remote_jobs.not_deleted", reason=error.reason)
        await asyncio.sleep(DELETION_LOOK_SECONDS)


async def delete_due(engine: Engine, providers: Mapping[str, Provider]) -> None:
    """Try each deletion that is due once.

    They are claimed one by one: after a crash only one of them has to wait for its lease to expire.
    """
    now = engine.now()
    while due := await engine.store.do(lambda db: remote_deletions.take_due_deletion(db, now)):
        await _delete(engine, providers.get(due.provider), due)


async def _delete(engine: Engine, provider: Provider | None, deletion: RemoteDeletion) -> None:
    failure: str | None = "the config has no such provider any more"
    if isinstance(provider, JobProvider):
        try:
            await provider.delete_job(deletion.remote_id)
            failure = None
            reached("job_deleted")
        except ProviderError as error:
            failure = error.reason
    if failure is not None and deletion.tries < MOST_TRIES:
        due_at = engine.now() + backoff_seconds(_FIRST_WAIT_SECONDS, deletion.tries, _LONGEST_WAIT_SECONDS)
        await engine.store.do(lambda db: remote_deletions.defer_deletion(db, deletion, due_at))
        return
    if failure is not None:
        left = {"provider": deletion.provider, "remote_id": deletion.remote_id}
        log.warning("remote_job.left", **left, reason=failure)
    await engine.store.do(lambda db: remote_deletions.finish_deletion(db, deletion))


async def notice_releases(engine: Engine, config: Callable[[], Config]) -> None:
    """Wake the dispatcher soon after a command has written to the database, until cancelled.

    Runs only while some rule has ``backlog: ask``: other rules need no release.
    """
    seen: int | None = None
    while True:
        await asyncio.sleep(RELEASE_LOOK_SECONDS)
        if not any(rule.backlog == "ask" for rule in config().folders.values()):
            continue
        try:
            version = await engine.store.data_version()
        except StoreError as error:
            log.debug("release.not_noticed", reason=error.reason)
            continue
        if version != seen:
            engine.signals.wake.set()
        seen = version


async def remove_broken_uploads(config: Callable[[], Config]) -> None:
    """Remove uploads to the page that a crash cut off, now and every few hours, until cancelled."""
    threads = DaemonThreads(1, "uploads")
    while True:
        http = config().http
        for rule in config().folders.values() if http and http.uploads else ():
            count = await asyncio.get_running_loop().run_in_executor(threads, _remove_uploads_of, rule)
            if count:
                log.info("uploads.removed", folder=rule.name, count=count)
        await asyncio.sleep(UPLOAD_LOOK_SECONDS)


def _remove_uploads_of(rule: FolderRule) -> int:
    from dropscribe.web.uploads import remove_leftovers  # noqa: PLC0415  # only where uploads are on

    try:
        return ask_disk(rule.inbox, lambda: remove_leftovers(rule.inbox), seconds=LISTING_SECONDS)
    except OSError as error:
        log.debug("uploads.not_removed", folder=rule.name, reason=error.strerror or str(error))
        return 0


def change_token(config: Config) -> object:
    """A cheap value that differs after every change of the queue or the inboxes."""
    if config.queue is not None:
        return int(time.monotonic()) // CLUSTER_LOOK_SECONDS
    names = (LIVE_NAME, "queue.db", "queue.db-wal")
    return [_mark_of(config.state_dir / name) for name in names]


def _mark_of(path: os.PathLike[str]) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


async def keep_search_index(engine: Engine, config: Callable[[], Config]) -> None:
    """Index finished files, batch by batch in a separate thread, until cancelled; publishing never waits."""
    threads, indexer = DaemonThreads(1, "search"), Indexer()
    seen: object = None
    trouble, sweep_at = "", 0.0
    while True:
        token, began = change_token(config()), time.monotonic()
        has_more = False
        if token != seen or began >= sweep_at:
            seen, reason = token, ""
            try:
                step = asyncio.get_running_loop().run_in_executor(threads, indexer.step, config())
                has_more = await step
            except (StoreError, sqlite3.Error, OSError) as error:
                reason = str(error)
            except Exception as error:  # a transcript that breaks the index does not end the daemon
                reason = repr(error)
                log.exception("search.bug")
            if reason and reason != trouble:
                log.warning("search.not_indexed", reason=reason)
            trouble = reason
            if not has_more:
                sweep_at = began + INDEX_SWEEP_SECONDS
        took = time.monotonic() - began
        if not has_more:
            await asyncio.sleep(INDEX_LOOK_SECONDS)
        else:
            seen = None
            await asyncio.sleep(took / INDEX_BUSY_SHARE if engine.in_flight else took)
