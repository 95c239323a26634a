"""Registers this process under its node's unique name and sends heartbeats."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dropscribe.core.errors import StoreInUse
from dropscribe.queue.cluster import nodes

if TYPE_CHECKING:
    from collections.abc import Sized

    from dropscribe.queue.cluster.nodes import Node
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.patient_database import PatientDatabase
    from dropscribe.queue.sql.database import Connection

_TRIES = 10
_GAP_SECONDS = 0.5


class NodeRegistration:
    """This node's row and its lock on the name; blocks for a few seconds while the name is taken.

    Raises:
        StoreInUse: Another process of the cluster has the name.
    """

    def __init__(self, store: ClusterStore, node: Node) -> None:
        self._store = store
        self._node = node
        self._started_at = store.now()
        self._beating_since: float | None = None
        self._last_beat = 0.0
        self._take_name()
        store.on_connect.append(lambda db: nodes.take_name(db, node.name))

    def _take_name(self) -> None:
        for _ in range(_TRIES):
            if self._store.call(lambda db: nodes.take_name(db, self._node.name)).result():
                return
            # A process that was just killed: the server notices its end in an instant.
            time.sleep(_GAP_SECONDS)
        raise StoreInUse(
            self._node.name,
            "another dropscribe of this cluster has this node name",
            "stop it, or give each node a queue.node of its own",
        )

    async def send_heartbeats(self, database: PatientDatabase, in_flight: Sized) -> None:
        """Write a heartbeat every few seconds, until cancelled."""
        while True:
            count = len(in_flight)

            def write(db: Connection, count: int = count) -> None:
                self._store.compare_clocks(db)
                nodes.beat(db, self._node, self._started_at, count, self._store.now())

            await database.do(write)
            now = time.monotonic()
            if not self.has_beaten_for(0):
                self._beating_since = now
            self._last_beat = now
            await asyncio.sleep(nodes.BEAT_SECONDS)

    def has_beaten_for(self, seconds: float) -> bool:
        """Whether it has sent heartbeats without a gap for *seconds*.

        After a database's absence every node looks silent, until each has sent one again.
        """
        now = time.monotonic()
        if self._beating_since is None or now - self._last_beat > 2 * nodes.BEAT_SECONDS:
            return False
        return now - self._beating_since >= seconds
