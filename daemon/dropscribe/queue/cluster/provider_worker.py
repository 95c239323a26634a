"""Runs one provider's procrastinate worker and restarts it after an outage of the database ended it.

It is told to stop, never cancelled: a cancellation that meets a query, a connection or ``asyncio.wait_for``
in just the wrong instant is lost on the way, and the worker would go on for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog
from procrastinate.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from procrastinate import App

BEAT_SECONDS = 5.0
STALLED_SECONDS = 25.0
"""A worker whose last beat is older is taken for dead: five beats missed."""

POLL_SECONDS = 0.5
"""procrastinate forgets a notification that comes while it looks for a job: then this is the wait."""

AGAIN_SECONDS = 1.0
_STOP_LOOK_SECONDS = 0.1

log = structlog.get_logger()


class LaneWorker:
    """Draws what comes to *queues*, *slots* tickets at once, from now until :meth:`stop`."""

    def __init__(self, app: App, lane: str, queues: Sequence[str], slots: int) -> None:
        self.served = (tuple(queues), slots)
        self._app = app
        self._lane = lane
        self._worker: Worker | None = None
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"worker {lane}")

    async def stop(self) -> None:
        """Draw nothing more; returns when what was drawn has ended."""
        self._stopping.set()
        while not self._task.done():
            if self._worker is not None:
                # Again and again: a worker that just begins forgets what it was told before.
                self._worker.stop()  # type: ignore[no-untyped-call]  # procrastinate's own
            await asyncio.wait([self._task], timeout=_STOP_LOOK_SECONDS)

    async def _run(self) -> None:
        queues, slots = self.served
        while not self._stopping.is_set():
            self._worker = Worker(
                self._app,
                queues=list(queues),
                name=self._lane,
                concurrency=slots,
                delete_jobs="always",
                install_signal_handlers=False,
                fetch_job_polling_interval=POLL_SECONDS,
                update_heartbeat_interval=BEAT_SECONDS,
                stalled_worker_timeout=STALLED_SECONDS,
            )
            try:
                await self._worker.run()  # type: ignore[no-untyped-call]  # as above
            except Exception as error:  # noqa: BLE001 - procrastinate and its pool name many
                log.debug("worker.ended", lane=self._lane, reason=str(error.__cause__ or error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._stopping.wait()
