"""A connection to PostgreSQL that the rows' functions can use: "?" for values, and roots for mounts.

Guarantees: no absolute path of this node ever enters a row (a value that begins with "/" is one, and is
written beneath its root's name); what a row holds of another node's is translated on the way out.
Diagnostics: StoreAway while the server cannot be had; StoreUnusable where it refuses us.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dropscribe.core.errors import StoreAway, StoreError, StoreUnusable
from dropscribe.queue.sql.database import valid_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dropscribe.queue.cluster.mount_map import MountMap
    from dropscribe.queue.sql.database import Connection

log = structlog.get_logger()

SCHEMA = "dropscribe"
"""Where all tables are, procrastinate's too."""

CONNECT_SECONDS = 5
_DEFAULTS = {
    "connect_timeout": CONNECT_SECONDS,
    # A node that is cut off is noticed by both ends within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
SESSION = (
    f"SET search_path TO {SCHEMA}; SET idle_in_transaction_session_timeout TO '10s';"
    " SET lock_timeout TO '30s'; SET client_min_messages TO 'warning';"
    " SET tcp_keepalives_idle TO 10; SET tcp_keepalives_interval TO 5; SET tcp_keepalives_count TO 3;"
    " SET tcp_user_timeout TO '20s'"
)
"""A node that freezes within a transaction holds up the others for ten seconds at most. One whose machine
loses its power leaves its sessions behind, its name and its slots with them, until the server misses it."""

_SAME_CLOCK_SECONDS = 0.5
"""Kept clocks seem to differ by what the question takes, and that is no difference."""


def conninfo(dsn: str, session: str = "dropscribe") -> str:
    """*dsn* with what it leaves open; what it says, TLS and certificates too, stands.

    Args:
        session: What the session is called on the server.
    """
    parts: dict[str, Any] = {**_DEFAULTS, **conninfo_to_dict(dsn), "application_name": session}
    return make_conninfo("", **parts)


def server_of(dsn: str) -> str:
    """Host, port and database of *dsn*, for people; no secret of it."""
    parts = conninfo_to_dict(dsn)
    host = parts.get("host") or parts.get("hostaddr") or "local socket"
    return f"postgresql://{host}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


class PostgresConnection:
    """See :class:`dropscribe.queue.sql.database.Connection`.

    Raises:
        StoreAway: The server cannot be had now.
        StoreUnusable: It is there and refuses us.
    """

    def __init__(self, dsn: str, roots: MountMap, session: str = "dropscribe") -> None:
        self._roots = roots
        self._server = server_of(dsn)
        try:
            self.raw = psycopg.connect(conninfo(dsn, session), autocommit=True)
            self.raw.execute(SESSION)
        except psycopg.Error as error:
            raise store_error(self._server, error) from error

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> _Cursor:
        """Run one statement; with no parameters it may be several."""
        if not parameters:
            return _Cursor(self.raw.execute(sql.encode()), self._roots)
        values = [self._to_row(value) for value in parameters]
        return _Cursor(self.raw.execute(_translated(sql), values), self._roots)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> _Cursor:
        """Run one statement for each of *parameters*."""
        cursor = self.raw.cursor()
        cursor.executemany(_translated(sql), [[self._to_row(value) for value in row] for row in parameters])
        return _Cursor(cursor, self._roots)

    def close(self) -> None:
        """Let go of the server."""
        self.raw.close()

    def _to_row(self, value: Any) -> Any:
        if isinstance(value, bytes) and value[:1] == b"/":
            return self._roots.stored(value)
        if isinstance(value, str):
            return valid_text(value)
        return value


class PostgresReader:
    """A thread's connection that only reads, made at the first question and anew where the server ended it.

    Raises:
        StoreAway: The server cannot be had now; a later question may find it again.
        StoreUnusable: It is there and refuses us.
    """

    def __init__(self, dsn: str, roots: MountMap, session: str) -> None:
        self._dsn = dsn
        self._roots = roots
        self._session = session
        self._connection: PostgresConnection | None = None

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> _Cursor:
        """Run one statement: twice where the connection turns out to have ended meanwhile."""
        was_open = self._connection is not None
        try:
            return self._connected().execute(sql, parameters)
        except psycopg.Error as error:
            ended = self._connection is None or self._connection.raw.closed
            self.close()
            if not (was_open and ended):
                raise store_error(server_of(self._dsn), error) from error
        return self.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> _Cursor:
        """Run one statement for each of *parameters*."""
        return self._connected().executemany(sql, parameters)

    def close(self) -> None:
        """Let go of the server."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> PostgresConnection:
        if self._connection is None:
            self._connection = PostgresConnection(self._dsn, self._roots, self._session)
        return self._connection


class _Cursor:
    def __init__(self, raw: psycopg.Cursor[Any], roots: MountMap) -> None:
        self._raw = raw
        self._roots = roots

    @property
    def rowcount(self) -> int:
        return self._raw.rowcount

    def fetchone(self) -> Any:
        row = self._raw.fetchone()
        return row and self._local(row)

    def fetchall(self) -> list[Any]:
        return [self._local(row) for row in self._raw.fetchall()]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def _local(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            self._place(value) if isinstance(value, bytes) and value[:1] == b"/" else value for value in row
        )

    def _place(self, stored: bytes) -> bytes:
        """*stored* on this node; b"" for a place outside its root, which must not stop the other rows."""
        try:
            return self._roots.local(stored)
        except StoreError as error:
            log.warning("queue.place_refused", place=error.path, reason=error.reason)
            return b""


def read_ahead_seconds(db: Connection) -> float:
    """Seconds by which the server's clock, which dates a cluster's rows, is ahead of this machine's."""
    asked_at = time.time()
    (server_at,) = db.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    ahead_seconds = float(server_at) - (asked_at + time.time()) / 2
    return ahead_seconds if abs(ahead_seconds) >= _SAME_CLOCK_SECONDS else 0.0


@cache
def _translated(sql: str) -> bytes:
    """The rows' SQL has no "?" and no "%" but for values."""
    return sql.replace("?", "%s").encode()


def store_error(server: str, error: psycopg.Error) -> StoreError:
    """The server's message as a StoreError, without the dsn: libpq's texts contain no password."""
    said = " ".join(str(error).split()) or type(error).__name__
    match error:
        case psycopg.errors.InsufficientPrivilege():
            return StoreUnusable(server, said, "give the role what docs/cluster.md names")
        case psycopg.errors.DiskFull():
            return StoreAway(server, said, "make room on the database's disk")
        case psycopg.OperationalError() | psycopg.InterfaceError() if _is_refusal(said):
            return StoreUnusable(server, said, "look at queue.dsn: user, password, database, TLS")
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return StoreAway(server, said, "nodes wait until the database is back")
        case _:
            return StoreError(server, said, "this is a bug; please report it")


def _is_refusal(said: str) -> bool:
    """At the connection psycopg gives no SQLSTATE, only libpq's text."""
    marks = (
        "authentication failed",
        "certificate",
        "does not exist",
        "no password",
        "no pg_hba.conf entry",
        "permission denied",
    )
    return any(mark in said for mark in marks)
