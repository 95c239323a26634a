"""The cluster's rows on PostgreSQL, and this node's one thread that writes them.

Guarantees: one writer at a time over all nodes, by an advisory lock that each transaction takes first: the
rows' functions see what they see on SQLite. When a call returns, its transaction is durable on the server.
Calls that wait while another transaction runs go into one together.
Diagnostics: StoreAway while the server cannot be had, passing; it may have come too late to tell whether a
transaction that was being committed stands, so work may find its own doing. StoreUnusable: it refuses us.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import structlog
from procrastinate.schema import SchemaManager

from dropscribe.core.errors import StoreError, StoreUnusable
from dropscribe.queue.cluster.nodes import session_name
from dropscribe.queue.cluster.postgres import (
    SCHEMA,
    PostgresConnection,
    PostgresReader,
    read_ahead_seconds,
    server_of,
    store_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.queue.cluster.mount_map import MountMap
    from dropscribe.queue.sql.database import Connection

T = TypeVar("T")

log = structlog.get_logger()

MIGRATIONS = ("cluster_schema.sql", "cluster_migration_2.sql", "cluster_migration_3.sql")
"""Scripts that lead from version N to N+1. Each must leave what the version before it reads and writes."""

WRITER_LOCK = 0x64726F70
"""Ours among the server's advisory locks: who has it writes."""

_BATCH_CALLS = 256
_BEGIN = f"BEGIN; SELECT pg_advisory_xact_lock({WRITER_LOCK})"


@dataclass(slots=True)
class _Call:
    work: Callable[[Connection], Any]
    future: Future[Any]


class ClusterStore:
    """See :class:`dropscribe.queue.sql.database.Database`.

    Args:
        dsn: libpq's; what it says of TLS stands.
        roots: This node's mounts.
        node: Its name.

    Attributes:
        on_connect: Called in the store's thread with each new connection, before any work.

    Raises:
        StoreAway: The server cannot be had now.
        StoreUnusable: It refuses us, or its schema is too new for this version.
    """

    def __init__(self, dsn: str, roots: MountMap, node: str) -> None:
        self._dsn = dsn
        self._session = session_name(node)
        self._roots = roots
        self._server = server_of(dsn)
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._asking, self._is_closed = threading.Lock(), False
        self.on_connect: Callable[[Connection], None] | None = None
        self._clock_ahead_seconds = 0.0
        self._connection: PostgresConnection | None = self._connect()
        try:
            _migrate(self._connection)
            self.token = _token(self._connection)
        except psycopg.Error as error:
            self._connection.close()
            raise store_error(self._server, error) from error
        except BaseException:
            self._connection.close()
            raise
        self._thread = threading.Thread(target=self._write_loop, name="cluster store", daemon=True)
        self._thread.start()

    def now(self) -> float:
        """Unix seconds by the server's clock, as it stood at the last connection or :meth:`tell_time`."""
        return time.time() + self._clock_ahead_seconds

    @property
    def clock_ahead_seconds(self) -> float:
        """Seconds by which the server's clock is ahead of this node's."""
        return self._clock_ahead_seconds

    def call(self, work: Callable[[Connection], T]) -> Future[T]:
        """See the protocol."""
        future: Future[T] = Future()
        with self._asking:
            if self._is_closed:
                future.set_exception(StoreError(self._server, "is closed: the daemon ends"))
            else:
                self._calls.put(_Call(work, future))
        return future

    async def do(self, work: Callable[[Connection], T]) -> T:
        """See the protocol. Cancelling the caller does not undo a transaction that is under way."""
        return await asyncio.wrap_future(self.call(work))

    def post(self, work: Callable[[Connection], Any]) -> None:
        """Have *work* done soon, by nobody's leave: what becomes of it is not told."""
        self.call(work).add_done_callback(lambda done: done.cancelled() or done.exception())

    def open_reader(self) -> PostgresReader:
        """See the protocol."""
        return PostgresReader(self._dsn, self._roots, self._session)

    def close(self) -> None:
        """Finish the calls made so far, and disconnect; later calls fail."""
        with self._asking:
            self._is_closed = True
            self._calls.put(None)
        self._thread.join()
        if self._connection is not None:
            self._connection.close()

    def _write_loop(self) -> None:
        open_ended = True
        while open_ended:
            batch, open_ended = self._next_batch()
            if batch:
                self._answer(batch)

    def _next_batch(self) -> tuple[list[_Call], bool]:
        calls: list[_Call] = []
        first = self._calls.get()
        while first is not None:
            if first.future.set_running_or_notify_cancel():
                calls.append(first)
            if len(calls) >= _BATCH_CALLS:
                return calls, True
            try:
                first = self._calls.get_nowait()
            except queue.Empty:
                return calls, True
        return calls, False

    def _answer(self, batch: list[_Call]) -> None:
        """Run *batch* as one transaction; where one of them fails, each as its own."""
        if len(batch) > 1:
            try:
                results = self._commit(batch)
            except Exception as error:  # noqa: BLE001 - told to whom it belongs, below
                log.debug("batch.begun_anew", calls=len(batch), reason=repr(error))
            else:
                for call, result in zip(batch, results, strict=True):
                    call.future.set_result(result)
                return
        for call in batch:
            try:
                call.future.set_result(self._commit([call])[0])
            except Exception as error:  # noqa: BLE001 - the caller's, who gets it
                call.future.set_exception(error)

    def _commit(self, batch: list[_Call]) -> list[Any]:
        try:
            connection = self._connected()
            connection.raw.execute(_BEGIN.encode())
            results = [call.work(connection) for call in batch]
            connection.raw.execute(b"COMMIT")
        except psycopg.Error as error:
            self._roll_back()
            raise store_error(self._server, error) from error
        except BaseException:
            self._roll_back()
            raise
        return results

    def _roll_back(self) -> None:
        """Leave no transaction open; a connection that cannot even do that is let go of."""
        connection = self._connection
        if connection is None:
            return
        try:
            connection.raw.execute(b"ROLLBACK")
        except psycopg.Error:
            connection.close()
            self._connection = None

    def _connected(self) -> PostgresConnection:
        if self._connection is None or self._connection.raw.closed:
            self._connection = self._connect()
            if self.on_connect is not None:
                self.on_connect(self._connection)
        return self._connection

    def _connect(self) -> PostgresConnection:
        connection = PostgresConnection(self._dsn, self._roots, self._session)
        self.tell_time(connection)
        return connection

    def tell_time(self, db: Connection) -> None:
        """Compare the clocks: nodes' may be minutes apart."""
        self._clock_ahead_seconds = read_ahead_seconds(db)


def _migrate(db: PostgresConnection) -> None:
    """Bring the schema up to this version, one node at a time; a newer one is used where it lets us."""
    (encoding,) = db.execute("SHOW server_encoding").fetchone()
    if encoding != "UTF8":
        raise StoreUnusable(
            "queue.dsn",
            f"the database has the encoding {encoding}, and names of files would be lost in it",
            "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    db.raw.execute(_BEGIN.encode())
    if db.execute(f"SELECT to_regnamespace('{SCHEMA}')").fetchone()[0] is None:
        db.execute(f"CREATE SCHEMA {SCHEMA}")
    if db.execute("SELECT to_regclass('schema_version')").fetchone()[0] is None:
        db.execute("CREATE TABLE schema_version (version BIGINT NOT NULL, readable_by BIGINT NOT NULL)")
        db.execute("INSERT INTO schema_version VALUES (0, 0)")
    version, readable_by = db.execute("SELECT version, readable_by FROM schema_version").fetchone()
    if readable_by > len(MIGRATIONS):
        db.raw.execute(b"ROLLBACK")
        raise StoreUnusable(
            "queue.dsn",
            f"the database was made by a newer dropscribe (its schema is {version}, this one knows"
            f" {len(MIGRATIONS)})",
            "install that version on this node too",
        )
    for number in range(version, len(MIGRATIONS)):
        db.execute(
            resources.files("dropscribe.queue.cluster").joinpath(MIGRATIONS[number]).read_text("utf-8")
        )
        # Its nodes may still run: a rolling upgrade has two versions side by side.
        db.execute("UPDATE schema_version SET version = ?, readable_by = ?", (number + 1, number))
    if db.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()[0] is None:
        db.execute(SchemaManager.get_schema())
    db.raw.execute(b"COMMIT")


def _token(db: Connection) -> str:
    """One for all nodes: whoever publishes a job again finds the temp files of who died in it."""
    db.execute("INSERT INTO facts VALUES ('token', ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex[:12],))
    return str(db.execute("SELECT value FROM facts WHERE name = 'token'").fetchone()[0])


def open_cluster_for_reading(dsn: str, roots: MountMap) -> PostgresConnection | None:
    """A connection for commands; None where no node has ever run.

    Raises:
        StoreError: The server cannot be had, or refuses us.
    """
    connection = PostgresConnection(dsn, roots)
    try:
        if connection.execute("SELECT to_regclass('jobs')").fetchone()[0] is None:
            connection.close()
            return None
    except psycopg.Error as error:
        raise store_error(server_of(dsn), error) from error
    return connection


def write_cluster_once(dsn: str, roots: MountMap, work: Callable[[Connection], T]) -> T | None:
    """Run *work* in one transaction, for a command; None where no node has ever run.

    Raises:
        StoreError: The server cannot be had, or refuses us.
    """
    connection = open_cluster_for_reading(dsn, roots)
    if connection is None:
        return None
    with contextlib.closing(connection):
        try:
            connection.raw.execute(_BEGIN.encode())
            result = work(connection)
            connection.raw.execute(b"COMMIT")
        except psycopg.Error as error:
            raise store_error(server_of(dsn), error) from error
        return result
