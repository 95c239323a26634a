"""The nodes of a cluster: one row for each, with its last heartbeat by the server's clock."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sized

    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.retrying_database import RetryingDatabase
    from dropscribe.queue.sql.database import Connection

BEAT_SECONDS = 5.0
SILENT_SECONDS = 25.0
"""A node without a heartbeat for this long is silent: its jobs in flight continue elsewhere.

The same for procrastinate's workers, which fetch tickets. Both have missed five."""

NODE_LOCKS = 0x64726F72
"""First key of the advisory locks that nodes hold on their names, each for as long as its session lasts."""

_FORGOTTEN_SECONDS = 7 * 86_400.0
_NAME_BYTES, _DIGEST_LETTERS = 63, 8


@dataclass(frozen=True, slots=True)
class NodeStats:
    """One node, as its row says. Times are Unix seconds by the server's clock.

    Attributes:
        name: Unique in the cluster.
        role: all, watch or work.
    """

    name: str
    host: str
    role: str
    version: str
    started_at: float
    beat_at: float
    in_flight: int

    def is_silent(self, now: float) -> bool:
        """Whether its last heartbeat is too old; *now* by the server's clock."""
        return now - self.beat_at > SILENT_SECONDS


class Heartbeats:
    """Sends this node's heartbeats."""

    def __init__(self, store: ClusterStore, node: NodeStats) -> None:
        self._store = store
        self._node = node
        self._beating_since = 0.0
        self._last_beat = -math.inf

    async def run(self, database: RetryingDatabase, in_flight: Sized) -> None:
        """Write a heartbeat every few seconds, until cancelled."""
        import asyncio  # noqa: PLC0415 - commands that only read nodes do not pay for it

        def write(db: Connection) -> None:
            self._store.refresh_session(db)  # the session before may have ended on the server only now
            beat(db, replace(self._node, beat_at=self._store.now(), in_flight=len(in_flight)))

        while True:
            await database.do(write)
            if not self.has_beaten_for(0):
                self._beating_since = time.monotonic()
            self._last_beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)

    def has_beaten_for(self, seconds: float) -> bool:
        """Whether it has sent heartbeats without a gap for *seconds*.

        After a database's absence every node looks silent, until each has sent one again.
        """
        now = time.monotonic()
        return now - self._last_beat <= 2 * BEAT_SECONDS and now - self._beating_since >= seconds


def beat(db: Connection, node: NodeStats) -> None:
    """Write a heartbeat of *node*; delete nodes whose last one is a week old."""
    db.execute(
        "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
        " host = excluded.host, role = excluded.role, version = excluded.version,"
        " started_at = excluded.started_at, beat_at = excluded.beat_at, in_flight = excluded.in_flight",
        (node.name, node.host, node.role, node.version, node.started_at, node.beat_at, node.in_flight),
    )
    db.execute("DELETE FROM nodes WHERE beat_at < ?", (node.beat_at - _FORGOTTEN_SECONDS,))


def end_sessions(db: Connection, name: str) -> None:
    """End the sessions of a silent node, which frees its locks; a frozen node reconnects when it resumes."""
    db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = ? AND usename = current_user AND pid <> pg_backend_pid()",
        (session_name(name),),
    )


def session_name(node: str) -> str:
    """The application name of a node's sessions; a long one ends with a digest: PostgreSQL keeps 63 bytes."""
    name = f"dropscribe {node}".encode()
    if len(name) > _NAME_BYTES:
        digest = hashlib.sha256(name).hexdigest()[:_DIGEST_LETTERS]
        return f"{name[: _NAME_BYTES - _DIGEST_LETTERS - 1].decode(errors='ignore')} {digest}"
    return name.decode()


def leave(db: Connection, name: str) -> None:
    """Remove a node that stops in order."""
    db.execute("DELETE FROM nodes WHERE name = ?", (name,))


def read_nodes(db: Connection) -> list[NodeStats]:
    """Every node, by name."""
    columns = "name, host, role, version, started_at, beat_at, in_flight"
    return [NodeStats(*row) for row in db.execute(f"SELECT {columns} FROM nodes ORDER BY name")]
