"""Connections to PostgreSQL that the rows' functions can use: "?" for values, and roots for mounts.

Guarantees: no absolute path of this node enters a row (a value that begins with "/" is one, and is written
below its root's name); paths in rows are translated to this node's mounts when they are read. A command that
reads takes no lock that a node waits for. No message about the server contains a secret.
Diagnostics: StoreAway while the server is unavailable; StoreUnusable if it refuses us.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dropscribe.config.model import QueueConfig
from dropscribe.core.errors import StoreAway, StoreError, StoreUnusable
from dropscribe.core.naming import leads_below
from dropscribe.queue.sql.database import Connection, valid_text
from dropscribe.queue.sql.history import LATEST

T = TypeVar("T")

log = structlog.get_logger()

SCHEMA = "dropscribe"  # Where all tables are, procrastinate's too

_DEFAULTS = {
    "connect_timeout": 5,
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
"""A node that freezes within a transaction blocks the others for ten seconds at most. The sessions of a
machine that loses power, with its name and its slots, last until the server's keepalives fail."""

_BEGIN_WRITING = f"BEGIN; SELECT pg_advisory_xact_lock({0x64726F70})"  # of the one writer

_AWAY_REMEDY = (
    "start it, or look at queue.dsn and the way there; files are safe in their inboxes, and nodes that run"
    " wait until it is back"
)

_REFUSED = re.compile("authentication failed|permission denied|certificate|does not exist|no (password|pg_)")
"""Texts of libpq if the server refuses a connection; psycopg has no SQLSTATE for it."""

_SAME_CLOCK_SECONDS = 0.5
"""A smaller difference is the duration of the query; synchronized clocks count as equal."""


class MountMap:
    """Translates absolute paths to and from their form in rows: the name of a root and the path below it.

    Each node may mount a share elsewhere; ``//share/done/a.wav`` in a row is ``/mnt/share/done/a.wav`` here.
    *mounts* has the absolute path of each root on this node; none is inside another.
    """

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        self._mounts = {name.encode(): os.fsencode(path).rstrip(b"/") for name, path in mounts.items()}

    def stored(self, path: bytes) -> bytes:
        """*path* as a row holds it; StoreError if it lies beneath no root, which the config refuses."""
        for name, mount in self._mounts.items():
            if path == mount or path.startswith(mount + b"/"):
                return b"//" + name + path[len(mount) :]
        raise StoreError(
            os.fsdecode(path), "lies beneath none of queue.roots", "name its mount in queue.roots"
        )

    def local(self, stored: bytes) -> bytes:
        """A row's path as this node has it; as it stands where the node lacks its root.

        Raises StoreError if it has no root, or leads out of it: another program has written the row.
        """
        name, slash, rest = stored[2:].partition(b"/")
        if not stored.startswith(b"//") or not leads_below(stored[2:]):
            raise StoreError(os.fsdecode(stored), "leads out of its root", "see who else writes to the queue")
        mount = self._mounts.get(name)
        return stored if mount is None else mount + slash + rest


def conninfo(dsn: str, session: str) -> str:
    """*dsn* with defaults for the settings that it leaves out; *session* is the name on the server."""
    return make_conninfo("", **{**_DEFAULTS, **conninfo_to_dict(dsn), "application_name": session})


def server_of(dsn: str) -> str:
    """Host, port and database of *dsn*, for messages; no secret."""
    parts = conninfo_to_dict(dsn)
    host = parts.get("host") or parts.get("hostaddr") or "local socket"
    return f"postgresql://{host}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


class PostgresConnection:
    """A connection with those methods of SQLite's that the SQL functions use.

    Raises StoreAway if the server is unavailable now, StoreUnusable if it refuses us.
    """

    def __init__(self, dsn: str, roots: MountMap, session: str = "dropscribe") -> None:
        self.server = server_of(dsn)
        self._conninfo = conninfo(dsn, session)
        self._roots = roots
        self.connect()

    def connect(self) -> None:
        """Connect, again where the server has ended the session; raises as the constructor."""
        try:
            raw = psycopg.connect(
                self._conninfo, autocommit=True, row_factory=partial(_local_rows, self._roots)
            )
            raw.execute(SESSION)
        except psycopg.Error as error:
            raise store_error(self.server, error) from error
        self.raw = raw

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction, as the one writer of all nodes."""
        try:
            self.raw.execute(_BEGIN_WRITING)
            yield
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                self.raw.rollback()
            raise
        self.raw.commit()

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        """Run one statement; with no parameters it may be several."""
        if not parameters:
            return self.raw.execute(sql.encode())
        return self.raw.execute(_translated(sql), [self._to_row(value) for value in parameters])

    def close(self) -> None:
        """Disconnect."""
        self.raw.close()

    def _to_row(self, value: Any) -> Any:
        if isinstance(value, bytes) and value[:1] == b"/":
            return self._roots.stored(value)
        if isinstance(value, str):
            return valid_text(value)
        return value


class PostgresReader(PostgresConnection):
    """A thread's read-only connection, renewed after the server ended it; its queries raise as well."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /, *, is_new: bool = False) -> Any:
        """Run one statement; again on a new connection if the old one has ended meanwhile."""
        try:
            return super().execute(sql, parameters)
        except psycopg.Error as error:
            if is_new or not self.raw.closed:
                raise store_error(self.server, error) from error
        self.connect()
        return self.execute(sql, parameters, is_new=True)


@contextlib.contextmanager
def open_cluster(queue: QueueConfig) -> Iterator[PostgresConnection | None]:
    """A connection for a command; None where no node has ever run.

    Raises StoreError if the server is unavailable, refuses us, or went away meanwhile.
    """
    with contextlib.closing(PostgresConnection(queue.dsn.reveal(), MountMap(queue.roots))) as connection:
        try:
            exists = connection.execute(f"SELECT to_regclass('{SCHEMA}.jobs')").fetchone()[0] is not None
            yield connection if exists else None
        except psycopg.Error as error:
            raise store_error(connection.server, error) from error


def write_cluster(queue: QueueConfig, work: Callable[[Connection], T]) -> T | None:
    """Run *work* in one transaction; None where no node has ever run. Raises as :func:`open_cluster`."""
    with open_cluster(queue) as connection:
        if connection is None:
            return None
        with connection.writing():
            return work(connection)


def _local_rows(roots: MountMap, _: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A row factory of psycopg: rows with this node's paths, and with times that a calendar holds."""
    return lambda row: tuple(_local_value(roots, value) for value in row)


def _local_value(roots: MountMap, value: Any) -> Any:
    if isinstance(value, bytes) and value[:1] == b"/":
        try:
            return roots.local(value)
        except StoreError as error:  # it must not stop the other rows
            log.warning("queue.place_refused", place=error.path, reason=error.reason)
            return b""
    if isinstance(value, float) and not 0 <= value <= LATEST:
        return 0.0 if value != value or value < 0 else LATEST  # noqa: PLR0124 - NaN
    return value


def read_ahead_seconds(db: Connection) -> float:
    """Seconds by which the server's clock, which dates a cluster's rows, is ahead of this machine's."""
    asked_at = time.time()
    (server_at,) = db.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    ahead_seconds = float(server_at) - (asked_at + time.time()) / 2
    return ahead_seconds if abs(ahead_seconds) >= _SAME_CLOCK_SECONDS else 0.0


@cache
def _translated(sql: str) -> bytes:
    """*sql* for psycopg: functions use "?" and "%" for values only; OR FAIL and plus are for SQLite."""
    return sql.replace("?", "%s").replace(" OR FAIL", "").replace("+jobs.", "jobs.").encode()


def store_error(server: str, error: psycopg.Error) -> StoreError:
    """The server's message as a StoreError, without the dsn: libpq's texts contain no password."""
    said = " ".join(str(error).split()) or type(error).__name__
    match error:
        case psycopg.errors.InsufficientPrivilege():
            return StoreUnusable(server, said, "give the role what docs/cluster.md names")
        case psycopg.errors.DiskFull() | psycopg.errors.ReadOnlySqlTransaction():
            return StoreAway(server, said, "make room on the database's disk, or name the server that writes")
        case psycopg.errors.IdleInTransactionSessionTimeout():
            return StoreAway(server, said, "find out why this node stopped for so long; it resumes by itself")
        case psycopg.OperationalError() | psycopg.InterfaceError() if _REFUSED.search(said):
            return StoreUnusable(server, said, "look at queue.dsn: user, password, database, TLS")
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return StoreAway(server, f"the queue's database is unavailable: {said}", _AWAY_REMEDY)
        case _:
            return StoreError(server, said, "this is a bug; please report it")
