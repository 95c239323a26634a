"""This node's procrastinate workers: they fetch tickets; stalled workers are detected by heartbeat.

A queue is a provider and a folder, or the publishing of a folder; this node listens to those whose mounts it
has and that are open here. One worker a provider, so that a provider's waiting never holds up another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from typing import TYPE_CHECKING, Any

import structlog
from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as ProcrastinateJob
from procrastinate.jobs import Status
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector

from dropscribe.queue.cluster.dispatch import POLL, PUBLISH
from dropscribe.queue.cluster.nodes import session_name
from dropscribe.queue.cluster.postgres import SESSION, PostgresConnection, conninfo
from dropscribe.queue.cluster.provider_worker import AGAIN_SECONDS, STALLED_SECONDS, LaneWorker
from dropscribe.queue.engine import POLLING_SLOTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    import psycopg

    from dropscribe.queue.cluster.dispatch import NewTicket
    from dropscribe.queue.engine import Plan
    from dropscribe.queue.sql.database import Connection

PUBLISHING_SLOTS = 16
POOL_CONNECTIONS = 4
END_SECONDS = 5.0
"""Workers that have nothing left to do are not waited for longer: their last words are to the database."""

_RECONNECT_SECONDS = 5.0
_TASK = "dropscribe.take"
_MOST_NAME_BYTES = 63 - len("procrastinate_queue_v1#")

log = structlog.get_logger()


class WorkerPool:
    """Runs the workers, and issues tickets.

    Args:
        dsn: libpq's.
        node: This node's name.
    """

    def __init__(self, dsn: str, node: str) -> None:
        async def configure(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.set_autocommit(True)
            await connection.execute(SESSION.encode())

        connector = PsycopgConnector(
            conninfo=conninfo(dsn, session_name(node)),
            min_size=1,
            max_size=POOL_CONNECTIONS,
            timeout=10.0,
            # Its own tries grow ever rarer; whoever asks next begins them anew.
            reconnect_timeout=_RECONNECT_SECONDS,
            configure=configure,
            name="dropscribe",
        )
        self._app = App(connector=connector)
        # Never opened: it defers on connections that are given to it.
        self._issuing = App(connector=SyncPsycopgConnector()).job_manager
        self._wanted: dict[str, tuple[tuple[str, ...], int]] = {}
        self._workers: dict[str, LaneWorker] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._drawn: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()
        self._is_stopped = False
        for library in ("procrastinate", "psycopg.pool"):  # an outage is told of once, by the engine
            logging.getLogger(library).setLevel(logging.CRITICAL)

    def issue(self, db: Connection, new: Sequence[NewTicket]) -> list[int]:
        """Defer tickets in *db*'s open transaction; returns their ids."""
        assert isinstance(db, PostgresConnection)  # noqa: S101 - a cluster's rows are nowhere else
        jobs = [
            ProcrastinateJob(
                id=None,
                queue=queue_of(each.lane, each.folder),
                lock=None,
                queueing_lock=None,
                task_name=_TASK,
                task_kwargs={"job_id": each.job_id, "lane": each.lane},
                priority=each.priority,
            )
            for each in new
        ]
        return [job.id or 0 for job in self._issuing.batch_defer_jobs(jobs, connection=db.raw)]

    def serve(self, plan: Plan, transcribing: Collection[str], publishing: Sequence[str]) -> None:
        """Listen to what *plan* sends these folders, and to nothing else."""
        wanted: dict[str, tuple[tuple[str, ...], int]] = {}
        for name, lane in plan.providers.items():
            folders = sorted(folder for folder in transcribing if name in plan.chains[folder])
            if folders:
                wanted[name] = (tuple(queue_of(name, folder) for folder in folders), lane.slots)
        for kind, of_folders, slots in (
            (PUBLISH, publishing, PUBLISHING_SLOTS),
            (POLL, sorted(transcribing), POLLING_SLOTS),
        ):
            if of_folders:
                wanted[kind] = (tuple(queue_of(kind, folder) for folder in of_folders), slots)
        self._wanted = wanted
        self._changed.set()

    async def run(
        self,
        take: Callable[[int, int, str], Awaitable[None]],
        take_due: Callable[[int, int], Awaitable[None]],
    ) -> None:
        """Run workers for what is served, until cancelled; that cancels the drawn tickets too."""

        async def draw(context: JobContext, job_id: int, lane: str) -> None:
            ticket = context.job.id or 0
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine runs in a task
            self._drawn.add(task)
            try:
                await (take_due(job_id, ticket) if lane in {PUBLISH, POLL} else take(job_id, ticket, lane))
            finally:
                self._drawn.discard(task)

        asyncio.get_running_loop().set_exception_handler(_hear)
        self._app.task(name=_TASK, pass_context=True)(draw)
        try:
            await self._open()
            while True:
                self._changed.clear()
                self._swap()
                await self._changed.wait()
        finally:
            self.cancel_drawn()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(END_SECONDS):
                    await self.stop()
            with contextlib.suppress(Exception):
                await self._app.close_async()

    async def stop(self) -> None:
        """Draw nothing more; returns when what was drawn has ended."""
        self._is_stopped = True
        await asyncio.gather(*(worker.stop() for worker in self._workers.values()), *self._leaving)

    def cancel_drawn(self) -> None:
        """Cancel attempts, polls and publications under way, and tickets that wait for a slot."""
        for task in self._drawn:
            task.cancel()

    async def stalled(self) -> list[int]:
        """Tickets that workers had which have not beaten for long.

        Raises:
            OSError: The database is away.
        """
        try:
            found = await self._app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_SECONDS)
        except Exception as error:
            raise OSError(str(error)) from error
        return [job.id for job in found if job.id is not None]

    async def discard(self, tickets: Sequence[int]) -> None:
        """Delete tickets whose rows have let go of them; what another node has deleted is no matter."""
        for ticket in tickets:
            with contextlib.suppress(ConnectorException):
                await self._app.job_manager.finish_job_by_id_async(ticket, Status.FAILED, delete_job=True)

    async def _open(self) -> None:
        task = asyncio.current_task()
        is_open = False
        while not is_open:
            try:
                await self._app.open_async()
                is_open = True
            except Exception as error:  # noqa: BLE001 - procrastinate and its pool name many
                log.debug("workers.not_open", reason=str(error))
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # it was lost on the way (provider_worker.py)
            if not is_open:
                await asyncio.sleep(AGAIN_SECONDS)

    def _swap(self) -> None:
        """A worker whose queues have changed finishes what it has; the next one begins beside it."""
        if self._is_stopped:
            return
        for lane, worker in list(self._workers.items()):
            if self._wanted.get(lane) != worker.served:
                del self._workers[lane]
                stopping = asyncio.create_task(worker.stop())
                self._leaving.add(stopping)
                stopping.add_done_callback(self._leaving.discard)
        for lane, served in self._wanted.items():
            if lane not in self._workers:
                self._workers[lane] = LaneWorker(self._app, lane, *served)


def _hear(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Nobody awaits procrastinate's last write of a ticket; what it could not delete is discarded later."""
    error = context.get("exception")
    if isinstance(error, ConnectorException):
        log.debug("ticket.not_ended", reason=str(error.__cause__ or error))
    else:
        loop.default_exception_handler(context)


def queue_of(lane: str, folder: str) -> str:
    """The queue's name: short, because PostgreSQL's channels are named after it."""
    name = f"{lane}/{folder}"
    if len(name.encode()) <= _MOST_NAME_BYTES:
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:32]
