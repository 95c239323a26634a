"""The nodes of a cluster: one row for each, with its last heartbeat by the server's clock."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropscribe.queue.sql.database import Connection

BEAT_SECONDS = 5.0
SILENT_SECONDS = 25.0
"""A node without a heartbeat for this long is silent: its jobs in flight continue elsewhere."""

_FORGOTTEN_SECONDS = 7 * 86_400.0
_NODE_LOCKS = 0x64726F72


@dataclass(frozen=True, slots=True)
class Node:
    """One node, as it registers itself.

    Attributes:
        name: Unique in the cluster.
        role: all, watch or work.
    """

    name: str
    host: str
    role: str
    version: str


@dataclass(frozen=True, slots=True)
class NodeStats:
    """One node, as its row says. Times are Unix seconds by the server's clock."""

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


def is_shared(db: Connection) -> bool:
    """Whether *db* is a cluster's, which alone has the table of nodes."""
    return not isinstance(db, sqlite3.Connection)


def take_name(db: Connection, name: str) -> bool:
    """Take the name for this session; False if another process has it."""
    row = db.execute("SELECT pg_try_advisory_lock(?, hashtext(?))", (_NODE_LOCKS, name)).fetchone()
    return bool(row[0])


def beat(db: Connection, node: Node, started_at: float, in_flight: int, now: float) -> None:
    """Write a heartbeat of *node*; delete nodes whose last one is a week old."""
    db.execute(
        "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
        " host = excluded.host, role = excluded.role, version = excluded.version,"
        " started_at = excluded.started_at, beat_at = excluded.beat_at, in_flight = excluded.in_flight",
        (node.name, node.host, node.role, node.version, started_at, now, in_flight),
    )
    db.execute("DELETE FROM nodes WHERE beat_at < ?", (now - _FORGOTTEN_SECONDS,))


def expel(db: Connection, name: str) -> None:
    """End the sessions of a silent node, and so its locks; it reconnects if it ever thaws."""
    db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = ? AND usename = current_user AND pid <> pg_backend_pid()",
        (session_name(name),),
    )


def session_name(node: str) -> str:
    """The application name of a node's sessions; PostgreSQL keeps 63 bytes of it."""
    return f"dropscribe {node}".encode()[:63].decode(errors="ignore")


def leave(db: Connection, name: str) -> None:
    """Remove a node that stops in order."""
    db.execute("DELETE FROM nodes WHERE name = ?", (name,))


def read_nodes(db: Connection) -> list[NodeStats]:
    """Every node, by name."""
    columns = "name, host, role, version, started_at, beat_at, in_flight"
    return [NodeStats(*row) for row in db.execute(f"SELECT {columns} FROM nodes ORDER BY name")]
