"""Threads for the pages' calls on users' folders, so that a folder that hangs holds up only its own pages."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from dropscribe.files.threads import DaemonThreads
from dropscribe.pipeline.disk_threads import HANG_SECONDS, FolderHangs

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

P = ParamSpec("P")
T = TypeVar("T")

THREADS_PER_FOLDER = 4


class FolderThreads:
    """A small pool of daemon threads for each folder; the engine's own threads are others."""

    def __init__(self) -> None:
        self._pools: dict[str, DaemonThreads] = {}

    def of(self, folder: str) -> Executor:
        """The folder's pool."""
        if folder not in self._pools:
            self._pools[folder] = DaemonThreads(THREADS_PER_FOLDER, f"page {folder}")
        return self._pools[folder]


class FolderCalls:
    """The calls of one request on one folder: one after another, each with a time limit."""

    def __init__(self, folder: str, executor: Executor) -> None:
        self._folder = folder
        self._executor = executor
        self._last: Future[object] | None = None

    @property
    def hangs(self) -> bool:
        """Whether the last call has not returned within its limit, nor since."""
        return self._last is not None and not self._last.done()

    async def make(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As :meth:`make_within`, for a call that is short."""
        return await self.make_within(HANG_SECONDS, call, *args, **kwargs)

    async def make_within(self, seconds: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of *call*, made in one of the folder's threads.

        Raises:
            FolderHangs: It has not returned after *seconds*. It goes on in its thread if it has begun.
        """
        made = self._executor.submit(call, *args, **kwargs)
        self._last = made  # type: ignore[assignment]  # Future is invariant
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(made)
        except TimeoutError as error:
            raise FolderHangs(self._folder) from error

    def follow(self, call: Callable[[], object]) -> Future[None]:
        """Make *call* after the last one, also where that returns late; the result says that it was made."""
        followed: Future[None] = Future()

        def run() -> None:
            try:
                call()
            finally:
                followed.set_result(None)

        if self._last is None:
            self._executor.submit(run)
        else:
            self._last.add_done_callback(lambda _: self._executor.submit(run))
        return followed
