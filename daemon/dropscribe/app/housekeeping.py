"""Recurring work: deletes old rows, remote jobs and broken uploads, notices releases, indexes transcripts.

Guarantees: a result is stored before its job at a provider is deleted; a failed deletion is retried up to
MOST_TRIES times with growing waits, also after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from dropscribe.config.model import Config, FolderRule
from dropscribe.core.errors import ProviderError, StoreError
from dropscribe.core.retry import backoff_seconds
from dropscribe.files.crashpoint import reached
from dropscribe.files.threads import DaemonThreads
from dropscribe.pipeline.claims import RuntimeConfig
from dropscribe.providers.base import JobProvider, Provider
from dropscribe.queue.engine import Engine
from dropscribe.queue.sql import claims
from dropscribe.queue.sql.claims import RemoteDeletion
from dropscribe.reports.timed_calls import LISTING_SECONDS, ask_disk
from dropscribe.search.indexer import Indexer
from dropscribe.service.status import LIVE_NAME

log = structlog.get_logger()

PRUNE_LOOK_SECONDS = 3600.0
DELETION_LOOK_SECONDS = 5.0
LAST_DELETIONS_SECONDS = 10.0  # limit of the last deletions at providers; the next start does the rest
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


class Housekeeping:
    """The recurring work of a daemon. Each task has its own interval; none ends the daemon if it fails."""

    def __init__(self, engine: Engine, runtime: Callable[[], RuntimeConfig]) -> None:
        self._engine = engine
        self._runtime = runtime
        self._threads = DaemonThreads(2, "housekeeping")  # one for uploads, one for the search index
        self._seen: object = None  # change_token when releases were looked for
        self._indexer = Indexer()
        self._indexed: object = None  # change_token when all was indexed
        self._sweep_at, self._trouble = 0.0, ""

    async def run(self) -> None:
        """Do all of it until cancelled."""
        async with asyncio.TaskGroup() as group:
            for task in (
                _repeat(self._prune, PRUNE_LOOK_SECONDS, "queue.not_pruned"),
                _repeat(self._delete_remote_jobs, DELETION_LOOK_SECONDS, "remote_jobs.not_deleted"),
                _repeat(self._notice_releases, RELEASE_LOOK_SECONDS, "release.not_noticed"),
                _repeat(self._remove_uploads, UPLOAD_LOOK_SECONDS, "uploads.not_removed"),
                _repeat(self._index, INDEX_LOOK_SECONDS, "search.not_indexed"),
            ):
                group.create_task(task)

    async def delete_last(self) -> None:
        """Delete the last files' recordings at their providers: ``run --once`` may have no next start."""
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(LAST_DELETIONS_SECONDS):
                await self._delete_remote_jobs()

    async def _prune(self) -> float | None:
        """Delete old cached answers and ended jobs, one small batch per transaction."""
        config = self._runtime().config
        has_more = await self._engine.prune(config.ledger_keep_seconds, config.history_keep_seconds)
        return PRUNE_GAP_SECONDS if has_more else None

    async def _delete_remote_jobs(self) -> None:
        """Delete remote jobs that are due, if any provider has jobs."""
        providers = self._runtime().providers
        if any(isinstance(provider, JobProvider) for provider in providers.values()):
            await delete_due(self._engine, providers)

    async def _notice_releases(self) -> None:
        """Wake the dispatcher soon after a command has written to the database.

        Only while some rule has ``backlog: ask``: others need no release. A node looks each second.
        """
        config = self._runtime().config
        if config.queue is None and any(rule.backlog == "ask" for rule in config.folders.values()):
            before, self._seen = self._seen, change_token(config)
            if self._seen != before:
                self._engine.signals.wake.set()

    async def _remove_uploads(self) -> None:
        config = self._runtime().config
        for rule in config.folders.values() if config.http and config.http.uploads else ():
            await asyncio.wrap_future(self._threads.submit(remove_broken_uploads, rule))

    async def _index(self) -> float | None:
        """Index a batch of finished files in a thread of its own; publishing never waits."""
        config = self._runtime().config
        token, began = change_token(config), time.monotonic()
        if token == self._indexed and began < self._sweep_at:
            return None
        has_more, reason = False, ""
        try:
            has_more = await asyncio.wrap_future(self._threads.submit(self._indexer.step, config))
        except (StoreError, sqlite3.Error, OSError) as error:
            reason = str(error)
        except Exception as error:  # a transcript that breaks the index does not end the daemon
            reason = repr(error)
            log.exception("search.bug")
        if reason and reason != self._trouble:
            log.warning("search.not_indexed", reason=reason)
        self._trouble = reason
        if has_more:
            self._indexed, took = None, time.monotonic() - began
            return took / INDEX_BUSY_SHARE if self._engine.in_flight else took
        self._indexed, self._sweep_at = token, began + INDEX_SWEEP_SECONDS
        return None


async def _repeat(step: Callable[[], Awaitable[float | None]], look_seconds: float, event: str) -> None:
    """Call *step* until cancelled; it returns the seconds until its next call, None for *look_seconds*."""
    while True:
        wait_seconds = None
        try:
            wait_seconds = await step()
        except StoreError as error:
            log.debug(event, reason=error.reason)
        await asyncio.sleep(look_seconds if wait_seconds is None else wait_seconds)


async def delete_due(engine: Engine, providers: Mapping[str, Provider]) -> None:
    """Try each deletion that is due once.

    They are claimed one by one: after a crash only one of them has to wait for its lease to expire.
    """
    now = engine.now()
    while due := await engine.store.do(lambda db: claims.claim_deletion(db, providers, now)):
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
    retry_at = None
    if failure is not None and deletion.tries < MOST_TRIES:
        retry_at = engine.now() + backoff_seconds(_FIRST_WAIT_SECONDS, deletion.tries, _LONGEST_WAIT_SECONDS)
    elif failure is not None:
        left = {"provider": deletion.provider, "remote_id": deletion.remote_id}
        log.warning("remote_job.left", **left, reason=failure)
    await engine.store.do(lambda db: claims.end_deletion(db, deletion, retry_at))


def remove_broken_uploads(rule: FolderRule) -> None:
    """Remove uploads to the page that a crash cut off, if the inbox answers."""
    from dropscribe.web.uploads import remove_leftovers  # noqa: PLC0415  # only where uploads are on

    try:
        count = ask_disk(rule.inbox, lambda: remove_leftovers(rule.inbox), seconds=LISTING_SECONDS)
    except OSError as error:
        log.debug("uploads.not_removed", folder=rule.name, reason=error.strerror or str(error))
        return
    if count:
        log.info("uploads.removed", folder=rule.name, count=count)


def change_token(config: Config) -> object:
    """A cheap value that differs after every change of the queue or the inboxes."""
    if config.queue is not None:
        return int(time.monotonic()) // CLUSTER_LOOK_SECONDS
    marks = []
    for name in (LIVE_NAME, "queue.db", "queue.db-wal"):
        with contextlib.suppress(OSError):
            status = os.stat(config.state_dir / name)
            marks.append((name, status.st_mtime_ns, status.st_size))
    return marks
