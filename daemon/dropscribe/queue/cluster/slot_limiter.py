"""Begins attempts when their provider has a free slot, counted over all nodes, and its rate allows it.

Guarantees: at most a provider's slots are taken at once, by session locks on the server. One ticket of each
provider and node tries to begin; the others wait behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.queue.cluster import ticket_rows
from dropscribe.queue.sql import hold_rows, rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dropscribe.core.model import Job
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.folder_gate import FolderGate
    from dropscribe.queue.model import ProviderLimits
    from dropscribe.queue.patient_database import PatientDatabase
    from dropscribe.queue.sql.database import Connection

LONGEST_WAIT_SECONDS = 1.0
"""A pause may be ended by another node's answer, and a ticket voided by a hold."""

SLOT_LOOK_SECONDS = 0.1
"""Interval at which a node that waits for a slot tries again, in case another node has released one."""

LARGE_WAIT_SECONDS = 5.0
_SLOT_LOCKS = 0x64726F71


@dataclass(frozen=True, slots=True)
class Wait:
    """No slot or rate allowance yet: try again after *seconds*, or when a slot is released here."""

    seconds: float


class Slots:
    """This node's share of the providers' slots: session locks on the server, numbered 1 to n.

    They end with the session, so a dead node frees them at once. They outlive a transaction that is rolled
    back, so each is remembered by its ticket.
    """

    def __init__(self) -> None:
        self._mine: dict[str, dict[int, int]] = {}

    def take(self, db: Connection, limits: ProviderLimits, ticket: int) -> bool:
        """Take a slot for *ticket*; False if none is free."""
        mine = self._mine.setdefault(limits.provider, {})
        if ticket in mine:
            return True
        # Not this node's own ones: a session can lock twice, and would have to unlock twice.
        others = sorted(set(range(1, limits.slots + 1)).difference(mine.values()))
        row = db.execute(
            "SELECT n FROM unnest(?::int[]) AS n"
            " WHERE pg_try_advisory_lock(?, hashtext(? || ':' || n)) LIMIT 1",
            (others, _SLOT_LOCKS, limits.provider),
        ).fetchone()
        if row is not None:
            mine[ticket] = row[0]
        return row is not None

    def release(self, db: Connection, provider: str, ticket: int) -> None:
        """Free the slot of *ticket*, if it has one, for all nodes."""
        slot = self._mine.get(provider, {}).pop(ticket, None)
        if slot is not None:
            db.execute("SELECT pg_advisory_unlock(?, hashtext(? || ':' || ?))", _slot_key(provider, slot))

    def take_again(self, db: Connection) -> None:
        """On a new connection: take the slots of running attempts again, unless another node was quicker."""
        for provider, mine in self._mine.items():
            for slot in mine.values():
                db.execute(
                    "SELECT pg_try_advisory_lock(?, hashtext(? || ':' || ?))", _slot_key(provider, slot)
                )


def _slot_key(provider: str, slot: int) -> tuple[int, str, str]:
    return _SLOT_LOCKS, provider, str(slot)


def begin_attempt(
    db: Connection,
    job_and_ticket: tuple[int, int],
    limits: ProviderLimits,
    slots: Slots,
    node: str,
    now: float,
) -> Job | Wait | None:
    """Begin the attempt of a ticket, once its provider has a slot and its rate allows it.

    Args:
        job_and_ticket: (job id, ticket).

    Returns:
        The job, whose ticket has a slot then; None where the ticket is void.
    """
    job_id, ticket = job_and_ticket
    # Starts are evenly spaced over all nodes.
    row = db.execute(
        "SELECT (SELECT next_at FROM paces WHERE provider = ?), size_bytes FROM jobs"
        " WHERE id = ? AND ticket = ? AND state = 'queued'",
        (limits.provider, job_id, ticket),
    ).fetchone()
    if row is None:
        return _begun_already(db, job_and_ticket, limits, slots, node)
    next_at, size_bytes = row
    if (wait_seconds := max((next_at or 0.0) - now, _pause_seconds(db, limits.provider, now))) > 0:
        return Wait(wait_seconds)
    if size_bytes >= rows.LARGE_BYTES and _uploads(db, limits.provider, rows.LARGE_BYTES) >= max(
        limits.slots - 1, 1
    ):
        # Smaller files go first: large ones never hold every slot.
        db.execute("UPDATE jobs SET due_at = ? WHERE id = ?", (now + LARGE_WAIT_SECONDS, job_id))
        return None
    if not slots.take(db, limits, ticket):
        return Wait(SLOT_LOOK_SECONDS)
    if limits.requests_per_minute:
        reserve_start(db, limits, now)
    return rows.begin_attempt(db, job_id, limits.provider, now, ", node = ?", (node,))


def _begun_already(
    db: Connection, job_and_ticket: tuple[int, int], limits: ProviderLimits, slots: Slots, node: str
) -> Job | None:
    """The job, if an earlier try began it: its commit was made and the confirmation was lost."""
    found = rows.interrupted(db, "id = ? AND ticket = ? AND node = ?", (*job_and_ticket, node))
    if not found:
        slots.release(db, limits.provider, job_and_ticket[1])
    return found[0] if found else None


def _pause_seconds(db: Connection, provider: str, now: float) -> float:
    """Seconds left of the provider's pause; after it attempts run one at a time until an answer."""
    pause = hold_rows.read_pauses(db).get(provider)
    if pause is None:
        return 0.0
    if pause.until > now:
        return pause.until - now
    return SLOT_LOOK_SECONDS if _uploads(db, provider, 0) else 0.0


def _uploads(db: Connection, provider: str, least_bytes: int) -> int:
    count: int = db.execute(
        "SELECT count(*) FROM jobs WHERE state = 'transcribing' AND remote_id = '' AND provider = ?"
        " AND size_bytes >= ?",
        (provider, least_bytes),
    ).fetchone()[0]
    return count


def reserve_start(db: Connection, limits: ProviderLimits, now: float) -> float:
    """When one more request of a running attempt may start, behind those of all nodes."""
    gap_seconds = 60.0 / limits.requests_per_minute if limits.requests_per_minute else 0.0
    row = db.execute(
        "INSERT INTO paces (provider, next_at) VALUES (?, ?) ON CONFLICT (provider) DO UPDATE"
        " SET next_at = greatest(paces.next_at, ?) + ? RETURNING next_at",
        (limits.provider, now + gap_seconds, now, gap_seconds),
    ).fetchone()
    return float(row[0]) - gap_seconds


class SlotLimiter:
    """Begins the attempts of this node's tickets, one ticket of each provider at a time.

    Args:
        node: This node's name.
        folders: This node's; workers notice a little later that one is closed.
    """

    def __init__(
        self, database: PatientDatabase, store: ClusterStore, node: str, folders: FolderGate
    ) -> None:
        self._database = database
        self._node = node
        self._folders = folders
        self._slots = Slots()
        self._first: dict[str, asyncio.Lock] = {}
        self._freed: dict[str, asyncio.Event] = {}
        self._is_stopped = False
        store.on_connect.append(self._slots.take_again)

    def stop(self) -> None:
        """Begin nothing more: tickets that wait for a slot end, and other nodes get their jobs."""
        self._is_stopped = True
        for freed in self._freed.values():
            freed.set()

    @contextlib.asynccontextmanager
    async def begun(self, ticket: tuple[int, int], limits: ProviderLimits) -> AsyncIterator[Job | None]:
        """The begun attempt of a ticket, which holds a slot; None where the ticket is void.

        Args:
            ticket: (job id, ticket id).
        """
        job = await self._begin(ticket, limits)
        if job is None:
            yield None
            return
        try:
            yield job
        finally:
            # Where the database goes away the lock does too.
            self._database.post(lambda db: self._slots.release(db, limits.provider, ticket[1]))
            self._freed_at(limits.provider).set()

    async def _begin(self, ticket: tuple[int, int], limits: ProviderLimits) -> Job | None:
        task = asyncio.current_task()

        def begin(db: Connection) -> Job | Wait | None:
            if task is not None and task.cancelling():
                return None  # cancelled while this transaction waited: no coroutine would run the attempt
            closed = self._folders.closed
            if closed and ticket_rows.void_ticket(db, ticket, closed):
                return None
            return begin_attempt(db, ticket, limits, self._slots, self._node, self._database.now())

        async with self._first.setdefault(limits.provider, asyncio.Lock()):
            freed = self._freed_at(limits.provider)
            while not self._is_stopped:
                freed.clear()
                begun = await self._database.do(begin)
                if not isinstance(begun, Wait):
                    return begun
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(begun.seconds, LONGEST_WAIT_SECONDS)):
                        await freed.wait()
        return None

    def _freed_at(self, provider: str) -> asyncio.Event:
        return self._freed.setdefault(provider, asyncio.Event())
