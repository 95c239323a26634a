"""Runs one provider's procrastinate worker, and restarts it after an outage of the database ended it.

It is stopped, never cancelled: a cancellation during a query, a connection or ``asyncio.wait_for`` may be
lost, and the worker would run for ever.
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
"""A worker with an older heartbeat counts as dead: it has missed five."""

POLL_SECONDS = 0.5
"""A notification that arrives while procrastinate fetches is lost: then this is the wait."""

AGAIN_SECONDS = 1.0
_STOP_LOOK_SECONDS = 0.1

log = structlog.get_logger()


class ProviderWorker:
    """Runs the tickets of *queues*, *slots* at once, from now until :meth:`stop`."""

    def __init__(self, app: App, name: str, queues: Sequence[str], slots: int) -> None:
        self.served = (tuple(queues), slots)
        self._app = app
        self._name = name
        self._worker: Worker | None = None
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"worker {name}")

    async def stop(self) -> None:
        """Fetch nothing more; returns when the fetched tickets have ended."""
        self._stopping.set()
        while not self._task.done():
            if self._worker is not None:
                # Repeated, because a worker that just begins resets the flag.
                self._worker.stop()  # type: ignore[no-untyped-call]  # procrastinate's own
            await asyncio.wait([self._task], timeout=_STOP_LOOK_SECONDS)

    async def _run(self) -> None:
        queues, slots = self.served
        while not self._stopping.is_set():
            self._worker = Worker(
                self._app,
                queues=list(queues),
                name=self._name,
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
                log.debug("worker.ended", worker=self._name, reason=str(error.__cause__ or error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._stopping.wait()
