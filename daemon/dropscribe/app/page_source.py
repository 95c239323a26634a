"""What the pages show of the running daemon, and what they can have done."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from dropscribe.core.model import Scope, ScopeKind
from dropscribe.files.threads import DaemonThreads
from dropscribe.media.spool import Spool
from dropscribe.queue.sql import backlog, result_cache
from dropscribe.reports.queue_reader import write_queue_once
from dropscribe.service.live import LIVE_NAME
from dropscribe.web.pages import PageSource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from concurrent.futures import Executor

    from dropscribe.config.model import Config
    from dropscribe.queue.rows_engine import RowsEngine

T = TypeVar("T")

THREADS = 4
CLUSTER_LOOK_SECONDS = 5
"""How often pages of a cluster's node look again: other nodes' changes are not seen here."""


def build_page_source(
    config: Callable[[], Config], status: Callable[[], Awaitable[dict[str, Any]]], engine: RowsEngine
) -> PageSource:
    """The pages' source for a running daemon.

    Args:
        config: The config that the daemon runs on now.
        status: The object of ``status --json``.
        engine: The queue.
    """
    threads = DaemonThreads(THREADS, "page")
    actions = PageActions(config, engine, threads)
    return PageSource(config, status, actions, threads, lambda: _change_token(config()))


def _change_token(config: Config) -> object:
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


class PageActions:
    """See :class:`dropscribe.web.pages.Actions`."""

    def __init__(self, config: Callable[[], Config], engine: RowsEngine, executor: Executor) -> None:
        self._config = config
        self._engine = engine
        self._executor = executor

    async def retry(self, job_ids: Sequence[int]) -> tuple[int, int]:
        """Take failed files back into their inboxes: (moved, refused)."""
        raise NotImplementedError

    async def release(self, folder: str) -> int:
        """Start the backlog of a folder; the number of files."""
        config = self._config()
        count = await self._run(lambda: write_queue_once(config, lambda db: backlog.release(db, folder)))
        self._engine.wake_from_thread(asyncio.get_running_loop())
        return count or 0

    async def forget(self, sha256: str) -> int:
        """Drop the stored answers of a recording, pieces of it among them; their number."""
        config = self._config()

        def forget() -> int:
            count = write_queue_once(config, lambda db: result_cache.forget(db, sha256)) or 0
            return count + Spool(config.state_dir).forget(sha256)

        return await self._run(forget)

    def try_now(self, *, provider: str = "", folder: str = "") -> None:
        """Try a held provider or folder with the next file."""
        kind = ScopeKind.PROVIDER if provider else ScopeKind.FOLDER
        self._engine.probe_now(Scope(kind, provider or folder))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
