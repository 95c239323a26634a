"""This node's procrastinate workers, which fetch tickets.

A procrastinate queue is a provider and a folder. This node listens to the queues of folders whose mounts it
has and that are open. Each provider has a worker of its own, so that waiting for one provider never holds up
another. Tickets end when they are handed over: after an outage, a worker is replaced once its tickets ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import structlog
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker
from psycopg_pool import PoolTimeout

from dropscribe.queue import model
from dropscribe.queue.admission import Admission
from dropscribe.queue.cluster import nodes
from dropscribe.queue.cluster.postgres import SESSION, conninfo
from dropscribe.queue.cluster.ticket_rows import TASK, queue_of

POOL_CONNECTIONS = 4
END_SECONDS = 5.0
"""Idle workers are not waited for longer: their last writes go to the database, which may be away."""

POLL_SECONDS = 2.0  # Polling interval: a notification that arrives while procrastinate fetches is lost
AGAIN_SECONDS = 1.0
CONNECTION_SECONDS = 10.0
_RECONNECT_SECONDS = 5.0

log = structlog.get_logger()


class TicketWorkers:
    """Runs the workers of this node."""

    def __init__(self, dsn: str, node: str) -> None:
        async def configure(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.set_autocommit(True)
            await connection.execute(SESSION.encode())
            if connection.info.parameter_status("default_transaction_read_only") == "on":
                await connection.close()  # the session would stay so for ever; a later one may write
                raise psycopg.errors.ReadOnlySqlTransaction

        self._conninfo = conninfo(dsn, nodes.session_name(node))
        connector = PsycopgConnector(
            conninfo=self._conninfo,
            min_size=0,  # opening it waits for no connection: the workers wait for the database
            max_size=POOL_CONNECTIONS,
            timeout=CONNECTION_SECONDS,
            # Its own tries grow ever rarer; the next request starts them anew.
            reconnect_timeout=_RECONNECT_SECONDS,
            configure=configure,
            name="dropscribe",
        )
        self._app = App(connector=connector)
        self._wanted: dict[str, tuple[str, ...]] = {}  # The queues of each provider
        self._workers: dict[str, ProviderWorker] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_running = self._is_stopped = False
        for library in ("procrastinate", "psycopg.pool"):  # the engine logs an outage once
            logging.getLogger(library).setLevel(logging.CRITICAL)

    def serve(self, admission: Admission) -> None:
        """Listen to the queues of the plan's providers and of the folders that are open here."""
        plan, folders = admission.plan, admission.folders_here(admission.folders.closed)
        queues = {
            name: tuple(queue_of(name, folder) for folder in folders if name in plan.chains[folder])
            for name in plan.providers
        }
        self._wanted = {name: each for name, each in queues.items() if each}
        self._swap()

    async def run(self, take: Callable[[str], object]) -> None:
        """Run workers for the queues of :meth:`serve`, until cancelled.

        *take* is called with the provider of each fetched ticket.
        """

        async def take_ticket(lane: str, **_: Any) -> None:  # more in the tickets of earlier versions
            if self._is_running:
                take(lane)

        asyncio.get_running_loop().set_exception_handler(_log_lost_write)
        self._app.task(name=TASK)(take_ticket)
        await self._app.open_async()
        self._is_running = not self._is_stopped
        try:
            self._swap()
            await asyncio.get_running_loop().create_future()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self.stop()
            with contextlib.suppress(Exception):
                await self._app.close_async()

    async def stop(self) -> None:
        """Take no further ticket, and wait until the workers have ended."""
        self._is_running, self._is_stopped = False, True
        for worker in self._workers.values():
            worker.stop()
        if ending := {worker.task for worker in self._workers.values()} | self._leaving:
            await asyncio.wait(ending)

    def _swap(self) -> None:
        """A worker whose queues have changed finishes its tickets; the next one begins beside it."""
        if not self._is_running:
            return
        for kind, worker in list(self._workers.items()):
            if self._wanted.get(kind) != worker.queues:
                del self._workers[kind]
                worker.stop()
                self._leaving.add(worker.task)
                worker.task.add_done_callback(self._leaving.discard)
        for kind, queues in self._wanted.items():
            if kind not in self._workers:
                self._workers[kind] = ProviderWorker(self._app, kind, queues, self._conninfo)

    @property
    def refusal(self) -> str:
        """Why a worker of this node gets no tickets, as far as its last try shows, or ""."""
        refusals = [worker.refusal for worker in self._workers.values() if worker.refusal]
        return f"this node's workers cannot use the database: {refusals[0]}" if refusals else ""


class ProviderWorker:
    """Fetches the tickets of *queues* from now until :meth:`stop`; then :attr:`task` ends.

    An outage of the database ends procrastinate's worker, and a new one takes its place. It is stopped, never
    cancelled: a cancellation during a query, a connection or ``asyncio.wait_for`` may be lost, and the worker
    would run for ever.
    """

    def __init__(self, app: App, name: str, queues: Sequence[str], conninfo: str) -> None:
        self.queues = tuple(queues)
        self._app = app
        self._name = name
        self._conninfo = conninfo
        self._refusal = ""  # Why the last worker ended
        self._worker: Worker | None = None
        self._stopping = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"worker {name}")

    def stop(self) -> None:
        """Fetch nothing more; what is fetched is taken."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop()  # type: ignore[no-untyped-call]  # procrastinate's own

    @property
    def refusal(self) -> str:
        """Why it fetches no tickets, or ""; its first query makes the present worker known."""
        is_known = self._worker is not None and self._worker.worker_id is not None
        return "" if is_known else self._refusal

    async def _run(self) -> None:
        while not self._stopping.is_set():
            self._worker = Worker(
                self._app,
                queues=list(self.queues),
                name=self._name,
                concurrency=POOL_CONNECTIONS,
                delete_jobs="always",
                install_signal_handlers=False,
                fetch_job_polling_interval=POLL_SECONDS,
                update_heartbeat_interval=nodes.BEAT_SECONDS,
                stalled_worker_timeout=model.SILENT_SECONDS,
            )
            try:
                await self._worker.run()  # type: ignore[no-untyped-call]  # as above
                self._refusal = ""
            except Exception as error:  # noqa: BLE001 - procrastinate and its pool name many
                self._worker, self._refusal = None, await self._reason_of(error.__cause__ or error)
                log.debug("worker.ended", worker=self._name, reason=self._refusal)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._stopping.wait()

    async def _reason_of(self, error: BaseException) -> str:
        """The server's words, which the pool's own error does not have."""
        if isinstance(error, PoolTimeout):
            try:
                async with await psycopg.AsyncConnection.connect(self._conninfo):
                    pass
            except psycopg.Error as refusal:
                error = refusal
        return " ".join(str(error).split()) or type(error).__name__


def _log_lost_write(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The last write of a ticket is not awaited; a ticket that stays is discarded later."""
    error = context.get("exception")
    if isinstance(error, ConnectorException):
        log.debug("ticket.not_ended", reason=str(error.__cause__ or error))
    else:
        loop.default_exception_handler(context)
