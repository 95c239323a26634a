"""The cluster's rows on PostgreSQL, and this node's one thread that writes them.

Guarantees: one writer at a time over all nodes, by an advisory lock that each transaction takes first, so the
SQL functions see the same states as on SQLite. When a call returns, its transaction is durable on the
server. Calls that wait while another transaction runs share the next one.
Diagnostics: StoreAway (transient) while the server is unavailable; a commit may have been made all the same,
so a repeated call may find its own changes. StoreUnusable: the server refuses us.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from importlib import resources
from typing import Any

import psycopg
from procrastinate.schema import SchemaManager

from dropscribe.core.errors import StoreError, StoreInUse, StoreUnusable
from dropscribe.queue.cluster.nodes import NODE_LOCKS, session_name
from dropscribe.queue.cluster.postgres import (
    SCHEMA,
    MountMap,
    PostgresConnection,
    PostgresReader,
    read_ahead_seconds,
    store_error,
)
from dropscribe.queue.sql.database import Call, Connection, Database, read_token

_NAME_TRIES = 10
_NAME_GAP_SECONDS = 0.5
_STEP_SECONDS = 2.0  # A clock that is adjusted gradually moves less between two heartbeats

MIGRATIONS = ("cluster_schema.sql", *(f"cluster_migration_{version}.sql" for version in range(2, 7)))
"""Migrations from version N to N+1. Each must leave everything that the version before reads and writes."""


class ClusterStore(Database):
    """The rows of all nodes. Blocks for a few seconds while the name of *node* is taken.

    Raises:
        StoreAway: The server is unavailable.
        StoreInUse: Another process of the cluster has the name.
        StoreUnusable: It refuses us, or its schema is too new for this version.
    """

    def __init__(self, dsn: str, roots: MountMap, node: str) -> None:
        self._node = node
        self.has_name = False  # Whether the writer's session holds the lock on the node's name
        self.clock_ahead_seconds = 0.0  # By which the server's clock is ahead of this node's
        # When a step of the server's clock was noticed last, or the first look at it; monotonic
        self.stepped_at = 0.0
        self._ahead_of_monotonic_seconds = 0.0
        self._reader = partial(PostgresReader, dsn, roots, session_name(node))
        self._connection = PostgresConnection(dsn, roots, session_name(node))
        super().__init__(StoreError(self._connection.server, "is closed: the daemon ends"))
        try:
            self._wait_for_name()
            self.call(_migrate).result()
            self.token = self.call(read_token).result()
        except BaseException:
            self.close()
            raise

    def _wait_for_name(self) -> None:
        for _ in range(_NAME_TRIES):
            self.call(self.refresh_session).result()
            if self.has_name:
                return
            # A process that was just killed: the server notices its end in an instant.
            time.sleep(_NAME_GAP_SECONDS)
        raise StoreInUse(
            self._node,
            "another dropscribe of this cluster has this node name",
            "stop it, or give each node a queue.node of its own",
        )

    def now(self) -> float:
        """Unix seconds by the server's clock: a step of this node's own clock does not change them."""
        return time.monotonic() + self._ahead_of_monotonic_seconds

    def open_reader(self) -> PostgresReader:
        """See the base class."""
        return self._reader()

    def close(self) -> None:
        """See the base class."""
        super().close()
        self._connection.close()

    def _commit(self, batch: Sequence[Call]) -> list[Any]:
        try:
            if self._connection.raw.closed:
                self._connection.connect()
                self.has_name = False  # the lock on it went with the session before
                self.refresh_session(self._connection)
            with self._connection.writing():
                return [call.work(self._connection) for call in batch]
        except psycopg.Error as error:
            if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                self._connection.close()  # the next session may be one that writes
            raise store_error(self._connection.server, error) from error

    def refresh_session(self, db: Connection) -> None:
        """Compare the clocks, which may be minutes apart; take the node's name if this session lacks it."""
        expected_at = self.now()
        self.clock_ahead_seconds = read_ahead_seconds(db)
        self._ahead_of_monotonic_seconds = time.time() + self.clock_ahead_seconds - time.monotonic()
        if abs(self.now() - expected_at) > _STEP_SECONDS:
            self.stepped_at = time.monotonic()
        if not self.has_name:
            take = "SELECT pg_try_advisory_lock(?, hashtext(?))"
            self.has_name = bool(db.execute(take, (NODE_LOCKS, self._node)).fetchone()[0])


def _migrate(db: Connection) -> None:
    """Bring the schema up to this version, one node at a time; a newer one is used where it permits that."""
    (encoding,) = db.execute("SHOW server_encoding").fetchone()
    if encoding != "UTF8":
        raise StoreUnusable(
            "queue.dsn",
            f"the database has the encoding {encoding}, and names of files would be lost in it",
            "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    if db.execute(f"SELECT to_regnamespace('{SCHEMA}')").fetchone()[0] is None:
        db.execute(f"CREATE SCHEMA {SCHEMA}")
    if db.execute(f"SELECT to_regclass('{SCHEMA}.schema_version')").fetchone()[0] is None:
        db.execute("CREATE TABLE schema_version (version BIGINT NOT NULL, readable_by BIGINT NOT NULL)")
        db.execute("INSERT INTO schema_version VALUES (0, 0)")
    version, readable_by = db.execute("SELECT version, readable_by FROM schema_version").fetchone()
    if readable_by > len(MIGRATIONS):
        raise StoreUnusable(
            "queue.dsn",
            f"the database was made by a newer dropscribe (its schema is {version}, this one knows"
            f" {len(MIGRATIONS)})",
            "install that version on this node too",
        )
    for number in range(version, len(MIGRATIONS)):
        script = resources.files("dropscribe.queue.cluster").joinpath(MIGRATIONS[number])
        db.execute(script.read_text("utf-8"))
        # Its nodes may still run: a rolling upgrade has two versions side by side.
        db.execute("UPDATE schema_version SET version = ?, readable_by = ?", (number + 1, number))
    if version == 0:
        db.execute(SchemaManager.get_schema())
