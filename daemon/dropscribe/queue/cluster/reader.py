"""A command's connection to a cluster's rows: it reads, and makes its one write.

Guarantees: reading takes no lock that a node waits for. No message about the server contains a secret.
Diagnostics: StoreError with the server and what to do.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import psycopg

from dropscribe.core.errors import StoreAway, StoreError
from dropscribe.queue.cluster.mount_map import MountMap
from dropscribe.queue.cluster.postgres import PostgresConnection, server_of, store_error
from dropscribe.queue.cluster.store import BEGIN_WRITING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dropscribe.config.model import QueueConfig
    from dropscribe.queue.sql.database import Connection

T = TypeVar("T")

_LONGEST_LOOK = "SET idle_in_transaction_session_timeout TO '10min'"
"""A command may list an inbox meanwhile; a node's transactions have ten seconds."""

_AWAY_REMEDY = (
    "start it, or look at queue.dsn and the way there; files are safe in their inboxes, and nodes that run"
    " wait until it is back"
)


@contextlib.contextmanager
def looking_at_cluster(queue: QueueConfig) -> Iterator[PostgresConnection | None]:
    """A connection to read with; None where no node has ever run.

    Raises:
        StoreError: The server is unavailable, refuses us, or went away meanwhile.
    """
    with _connected(queue) as connection:
        if connection is not None:
            connection.execute(_LONGEST_LOOK)
        yield connection


def write_cluster(queue: QueueConfig, work: Callable[[Connection], T]) -> T | None:
    """Run *work* in one transaction; None where no node has ever run.

    Raises:
        StoreError: The server is unavailable, or refuses us.
    """
    with _connected(queue) as connection:
        if connection is None:
            return None
        connection.execute(BEGIN_WRITING)
        result = work(connection)
        connection.execute("COMMIT")
        return result


@contextlib.contextmanager
def _connected(queue: QueueConfig) -> Iterator[PostgresConnection | None]:
    dsn = queue.dsn.reveal()
    try:
        with contextlib.closing(PostgresConnection(dsn, MountMap(queue.roots))) as connection:
            exists = connection.execute("SELECT to_regclass('jobs')").fetchone()[0] is not None
            yield connection if exists else None
    except psycopg.Error as error:
        raise _for_commands(store_error(server_of(dsn), error)) from error
    except StoreAway as error:
        raise _for_commands(error) from error


def _for_commands(error: StoreError) -> StoreError:
    if not isinstance(error, StoreAway):
        return error
    return StoreAway(error.path, f"the queue's database cannot be had: {error.reason}", _AWAY_REMEDY)
