"""Registers this process under its node's unique name and sends heartbeats."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from dropscribe.core.errors import StoreInUse
from dropscribe.queue.cluster import nodes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dropscribe.queue.cluster.nodes import Node
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.sql.database import Connection

_TRIES = 10
_GAP_SECONDS = 0.5


class Membership:
    """A node's part in the table of nodes.

    Args:
        durably: Runs work in a transaction, waiting while the database is away.
    """

    def __init__(
        self,
        store: ClusterStore,
        durably: Callable[[Callable[[Connection], Any]], Awaitable[Any]],
        node: Node,
    ) -> None:
        self._store = store
        self._durably = durably
        self._node = node
        self._started_at = store.now()
        self._is_named = False
        self._beating_since: float | None = None
        self._beat_last = 0.0

    def take_name(self) -> None:
        """Be the node of this name; blocks while a process that has just died is not yet missed.

        Raises:
            StoreInUse: Another process of the cluster is.
        """
        for _ in range(_TRIES):
            if self._store.call(lambda db: nodes.take_name(db, self._node.name)).result():
                self._is_named = True
                return
            # A process that was just killed: the server notices its end in an instant.
            time.sleep(_GAP_SECONDS)
        raise StoreInUse(
            self._node.name,
            "another dropscribe of this cluster has this node name",
            "stop it, or give each node a queue.node of its own",
        )

    def connected(self, db: Connection) -> None:
        """A new connection, in the store's thread: the name's lock went with the old one."""
        if self._is_named:
            nodes.take_name(db, self._node.name)

    async def beat(self, in_flight: Callable[[], int]) -> None:
        """Say that this node lives, until cancelled."""
        while True:
            count = in_flight()

            def write(db: Connection, count: int = count) -> None:
                self._store.tell_time(db)
                nodes.beat(db, self._node, self._started_at, count, self._store.now())

            await self._durably(write)
            self._note_beat(time.monotonic())
            await asyncio.sleep(nodes.BEAT_SECONDS)

    def _note_beat(self, now: float) -> None:
        if self._beating_since is None or now - self._beat_last > 2 * nodes.BEAT_SECONDS:
            self._beating_since = now
        self._beat_last = now

    def has_beaten_for(self, seconds: float) -> bool:
        """Whether it has beaten without a gap for *seconds*.

        After a database's absence every node looks silent, until each has beaten again.
        """
        now = time.monotonic()
        if self._beating_since is None or now - self._beat_last > 2 * nodes.BEAT_SECONDS:
            return False
        return now - self._beating_since >= seconds
