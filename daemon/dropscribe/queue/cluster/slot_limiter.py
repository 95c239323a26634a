"""Begins attempts when their provider has a free slot, counted over all nodes, and its rate allows it.

Guarantees: no more than a provider's slots are taken at once, by session locks on the server; one of a
node's tickets asks for each provider, the others wait behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropscribe.queue.sql import pause_rows, rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dropscribe.core.model import Job
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.engine import ProviderLimits
    from dropscribe.queue.sql.database import Connection


@dataclass(frozen=True, slots=True)
class Wait:
    """The ticket's turn has not come: ask again after *seconds*, or when a slot is let go of here."""

    seconds: float


LONGEST_WAIT_SECONDS = 1.0
"""A pause may be ended by another node's answer, and a ticket voided by a hold."""

SLOT_LOOK_SECONDS = 0.1
"""Interval at which a node that waits for a slot tries again, in case another node has released one."""

_SLOT_LOCKS = 0x64726F71


class Slots:
    """This node's share of the providers' slots: session locks on the server, numbered 1 to n.

    They go with the session, so a node that dies lets go of them at once; and they outlive a transaction that
    is rolled back, so each is remembered by the ticket that has it.
    """

    def __init__(self) -> None:
        self._mine: dict[str, dict[int, int]] = {}

    def take(self, db: Connection, lane: ProviderLimits, ticket: int) -> bool:
        """Have a slot for *ticket*; False where none is free."""
        mine = self._mine.setdefault(lane.provider, {})
        if ticket in mine:
            return True
        # Never asked of one's own: a session may lock twice, and would have to let go twice.
        others = sorted(set(range(1, lane.slots + 1)).difference(mine.values()))
        row = db.execute(
            "SELECT n FROM unnest(?::int[]) AS n"
            " WHERE pg_try_advisory_lock(?, hashtext(? || ':' || n)) LIMIT 1",
            (others, _SLOT_LOCKS, lane.provider),
        ).fetchone()
        if row is not None:
            mine[ticket] = row[0]
        return row is not None

    def let_go(self, db: Connection, provider: str, ticket: int) -> None:
        """Free the slot of *ticket*, if it has one, for all."""
        slot = self._mine.get(provider, {}).pop(ticket, None)
        if slot is not None:
            db.execute("SELECT pg_advisory_unlock(?, hashtext(? || ':' || ?))", _slot_key(provider, slot))

    def take_again(self, db: Connection) -> None:
        """On a new connection: what runs here has its slot again, unless somebody was quicker."""
        for provider, mine in self._mine.items():
            for slot in mine.values():
                db.execute(
                    "SELECT pg_try_advisory_lock(?, hashtext(? || ':' || ?))", _slot_key(provider, slot)
                )


def _slot_key(provider: str, slot: int) -> tuple[int, str, str]:
    return _SLOT_LOCKS, provider, str(slot)


def begin_attempt(
    db: Connection, drawn: tuple[int, int], lane: ProviderLimits, slots: Slots, node: str, now: float
) -> Job | Wait | None:
    """Begin the attempt that a ticket stands for, once its provider has a slot and its pace allows it.

    Args:
        drawn: (job id, ticket).

    Returns:
        The job, whose ticket has a slot then; None where the ticket is void.
    """
    job_id, ticket = drawn
    # Starts are evenly spaced over all nodes.
    row = db.execute(
        "SELECT (SELECT next_at FROM paces WHERE provider = ?), size_bytes FROM jobs"
        " WHERE id = ? AND ticket = ? AND state = 'queued'",
        (lane.provider, job_id, ticket),
    ).fetchone()
    if row is None:
        return _begun_already(db, drawn, lane, slots, node)
    next_at, size_bytes = row
    if (wait_seconds := max((next_at or 0.0) - now, _pause_seconds(db, lane.provider, now))) > 0:
        return Wait(wait_seconds)
    if size_bytes >= rows.LARGE_BYTES and _large_uploads(db, lane.provider) >= max(lane.slots - 1, 1):
        # Smaller files go first: large ones never hold every slot.
        db.execute("UPDATE jobs SET due_at = ? WHERE id = ?", (now + LARGE_WAIT_SECONDS, job_id))
        return None
    if not slots.take(db, lane, ticket):
        return Wait(SLOT_LOOK_SECONDS)
    if lane.requests_per_minute:
        db.execute(
            "INSERT INTO paces (provider, next_at) VALUES (?, ?)"
            " ON CONFLICT (provider) DO UPDATE SET next_at = excluded.next_at",
            (lane.provider, now + 60.0 / lane.requests_per_minute),
        )
    return rows.begin_attempt(db, job_id, lane.provider, now, ", node = ?", (node,))


def _begun_already(
    db: Connection, drawn: tuple[int, int], lane: ProviderLimits, slots: Slots, node: str
) -> Job | None:
    """The job, where the database went away while this very beginning was being committed, and it stands."""
    found = rows.interrupted(db, "id = ? AND ticket = ? AND node = ?", (*drawn, node))
    if not found:
        slots.let_go(db, lane.provider, drawn[1])
    return found[0] if found else None


LARGE_WAIT_SECONDS = 5.0


def _pause_seconds(db: Connection, provider: str, now: float) -> float:
    """Seconds left of the provider's pause; after it attempts run one at a time until an answer."""
    pause = pause_rows.read_pauses(db).get(provider)
    if pause is None:
        return 0.0
    if pause.until > now:
        return pause.until - now
    return SLOT_LOOK_SECONDS if _uploads(db, provider, 0) else 0.0


def _large_uploads(db: Connection, provider: str) -> int:
    return _uploads(db, provider, rows.LARGE_BYTES)


def _uploads(db: Connection, provider: str, least_bytes: int) -> int:
    count: int = db.execute(
        "SELECT count(*) FROM jobs WHERE state = 'transcribing' AND remote_id = '' AND provider = ?"
        " AND size_bytes >= ?",
        (provider, least_bytes),
    ).fetchone()[0]
    return count


def reserve_start(db: Connection, limits: ProviderLimits, now: float) -> float:
    """When one more request of an attempt that runs may start, behind those of all nodes."""
    gap_seconds = 60.0 / limits.requests_per_minute if limits.requests_per_minute else 0.0
    row = db.execute(
        "INSERT INTO paces (provider, next_at) VALUES (?, ?) ON CONFLICT (provider) DO UPDATE"
        " SET next_at = greatest(paces.next_at, ?) + ? RETURNING next_at",
        (limits.provider, now + gap_seconds, now, gap_seconds),
    ).fetchone()
    return float(row[0]) - gap_seconds


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
        self._slots = Slots()
        self._first: dict[str, asyncio.Lock] = {}
        self._freed: dict[str, asyncio.Event] = {}
        self._is_stopped = False

    def stop(self) -> None:
        """Begin nothing more: tickets that wait for a slot end, and their jobs are fed to other nodes."""
        self._is_stopped = True
        for freed in self._freed.values():
            freed.set()

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
        def begin(db: Connection) -> Job | Wait | None:
            return begin_attempt(db, drawn, lane, self._slots, self._node, self._store.now())

        async with self._first.setdefault(lane.provider, asyncio.Lock()):
            freed = self._freed_at(lane.provider)
            while not self._is_stopped:
                freed.clear()
                begun: Job | Wait | None = await self._durably(begin)
                if not isinstance(begun, Wait):
                    return begun
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(begun.seconds, LONGEST_WAIT_SECONDS)):
                        await freed.wait()
        return None

    def _freed_at(self, provider: str) -> asyncio.Event:
        return self._freed.setdefault(provider, asyncio.Event())
