"""Turns: a ticket waits on its node for a slot of its provider, counted over all nodes, and for its pace.

Guarantees: no more than a provider's slots are taken at once, by session locks on the server; one of a
node's tickets asks for each provider, the others wait behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from dropscribe.queue.cluster import dispatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dropscribe.core.model import Job
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.engine import ProviderLimits
    from dropscribe.queue.sql.database import Connection


class SlotLimiter:
    """This node's waiting tickets.

    Args:
        durably: Runs work in a transaction, waiting while the database is away.
        node: This node's name.
    """

    def __init__(
        self,
        store: ClusterStore,
        durably: Callable[[Callable[[Connection], Any]], Awaitable[Any]],
        node: str,
    ) -> None:
        self._store = store
        self._durably = durably
        self._node = node
        self._slots = dispatch.Slots()
        self._first: dict[str, asyncio.Lock] = {}
        self._freed: dict[str, asyncio.Event] = {}

    def connected(self, db: Connection) -> None:
        """A new connection, in the store's thread: the locks went with the old one."""
        self._slots.take_again(db)

    @contextlib.asynccontextmanager
    async def begun(self, drawn: tuple[int, int], lane: ProviderLimits) -> AsyncIterator[Job | None]:
        """The attempt that a ticket stands for, begun; None where the ticket is void.

        Args:
            drawn: (job id, ticket).
        """
        job = await self._begin(drawn, lane)
        if job is None:
            yield None
            return
        try:
            yield job
        finally:
            # Where the database goes away the lock does too.
            self._store.post(lambda db: self._slots.let_go(db, lane.provider, drawn[1]))
            self._freed_at(lane.provider).set()

    async def _begin(self, drawn: tuple[int, int], lane: ProviderLimits) -> Job | None:
        def begin(db: Connection) -> Job | dispatch.Wait | None:
            return dispatch.begin(db, drawn, lane, self._slots, self._node, self._store.now())

        async with self._first.setdefault(lane.provider, asyncio.Lock()):
            freed = self._freed_at(lane.provider)
            while True:
                freed.clear()
                begun: Job | dispatch.Wait | None = await self._durably(begin)
                if not isinstance(begun, dispatch.Wait):
                    return begun
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(begun.seconds):
                        await freed.wait()

    def _freed_at(self, provider: str) -> asyncio.Event:
        return self._freed.setdefault(provider, asyncio.Event())
