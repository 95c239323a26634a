"""Recovers the jobs of nodes that are gone.

A job in flight belongs to its node while that node sends heartbeats: procrastinate's own heartbeat ends while
a worker still finishes its jobs, so it only reveals stalled tickets that no worker has begun.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.retry import crash_wait_seconds
from dropscribe.files.crashpoint import reached
from dropscribe.queue.cluster import nodes, ticket_rows
from dropscribe.queue.sql import rows, transactions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dropscribe.core.model import Job
    from dropscribe.core.retry import RetryLimits
    from dropscribe.queue.cluster.nodes import NodeRegistration
    from dropscribe.queue.cluster.worker_pool import WorkerPool
    from dropscribe.queue.engine import QueueState
    from dropscribe.queue.sql.database import Connection

LOOK_SECONDS = 5.0

_RESUMABLE = "(state IN ('transcribed', 'rejected') OR state = 'transcribing' AND remote_id <> '')"
"""Publications and polls: another node continues them as they are."""

_BEGUN = f"(state = 'transcribing' AND remote_id = '' OR {_RESUMABLE} AND ticket IS NOT NULL)"
_DRAWN = f"(state = 'queued' OR {_RESUMABLE} AND node = '')"

log = structlog.get_logger()


class OrphanRecovery:
    """Requeues jobs whose node or worker is gone. Every node does this; no particular one is needed."""

    def __init__(
        self, state: QueueState, node: str, registration: NodeRegistration, workers: WorkerPool
    ) -> None:
        self._database, self._signals, self._admission = state.database, state.signals, state.admission
        self._node = node
        self._registration = registration
        self._workers = workers

    async def recover_own(self) -> None:
        """At the start: requeue the jobs of an earlier process of this node."""

        def work(db: Connection) -> list[Job]:
            plan, now = self._admission.plan, self._database.now()
            transactions.clear_stale_assignments(db, plan, now)
            ticket_rows.void_removed_providers(db, plan)
            void_ended_tickets(db)
            return _take_back(db, self._node, plan.retry, now)

        tell_of_cut_off(await self._database.do(work))
        reached("recovered")

    async def run(self) -> None:
        """Requeue the jobs of silent nodes and stalled workers, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                stalled = await self._workers.find_stalled()
            except OSError as error:
                log.debug("rescue.postponed", reason=str(error))
                continue
            cut_off, void = await self._database.do(partial(self._take_back_silent, stalled))
            tell_of_silent(cut_off)
            await self._workers.discard(void)
            if cut_off or void:
                self._signals.wake.set()

    def _take_back_silent(
        self, stalled: Sequence[int], db: Connection
    ) -> tuple[dict[str, list[Job]], list[int]]:
        # Asked in the transaction, which may have waited for the database to come back.
        if not self._registration.has_beaten_for(nodes.SILENT_SECONDS):
            return {}, []
        void_ended_tickets(db)
        return take_back_silent(db, stalled, self._admission.plan.retry, self._database.now())


def take_back_silent(
    db: Connection, stalled: Sequence[int], limits: RetryLimits, now: float
) -> tuple[dict[str, list[Job]], list[int]]:
    """Requeue the jobs of silent nodes, and the tickets that stalled workers fetched and did not begin.

    A silent node's sessions are ended first: a frozen node would keep its slots for ever.

    Args:
        stalled: Tickets of workers without a recent heartbeat.

    Returns:
        The interrupted jobs by silent node, and the tickets of *stalled* that are void now.
    """
    cut_off: dict[str, list[Job]] = {}
    for name in _silent_nodes(db, now):
        nodes.expel(db, name)
        cut_off[name] = _take_back(db, name, limits, now)
    ticket_rows.void(db, f"{_DRAWN} AND ticket = ANY(?::bigint[])", (list(stalled),))
    named = db.execute(
        "SELECT ticket FROM jobs WHERE ticket = ANY(?::bigint[]) AND ended_at IS NULL", (list(stalled),)
    )
    in_use = {ticket for (ticket,) in named}
    return cut_off, [ticket for ticket in stalled if ticket not in in_use]


def void_ended_tickets(db: Connection) -> None:
    """Waiting jobs lose tickets that procrastinate has deleted, so that new ones are issued.

    A ticket that is cancelled while it waits for a slot ends without a change of its row.
    """
    ended = "NOT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE procrastinate_jobs.id = jobs.ticket)"
    ticket_rows.void(db, f"{_DRAWN} AND {ended}")


def _silent_nodes(db: Connection, now: float) -> list[str]:
    """Nodes with jobs in flight and no recent heartbeat."""
    found = db.execute(
        f"SELECT DISTINCT node FROM jobs WHERE {_BEGUN} AND node <> '' AND node NOT IN"  # constant
        " (SELECT name FROM nodes WHERE beat_at > ?)",
        (now - nodes.SILENT_SECONDS,),
    )
    return [name for (name,) in found]


def _take_back(db: Connection, node: str, limits: RetryLimits, now: float) -> list[Job]:
    """Requeue the jobs of *node*; returns those whose attempts were interrupted."""
    which = f"node = ? AND {_BEGUN}"
    cut_off = rows.interrupted(db, which, (node,))
    ticket_rows.void(db, f"{which} AND {_RESUMABLE}", (node,))
    for job in cut_off:
        rows.hand_back(db, job, now + crash_wait_seconds(limits, job.crashes + 1))
    return cut_off


def tell_of_silent(cut_off: Mapping[str, Sequence[Job]]) -> None:
    """Log one line for each node whose jobs were requeued, and one for each of their files."""
    for name, jobs in cut_off.items():
        log.warning("node.silent", node=name, cut_off=len(jobs))
        tell_of_cut_off(jobs)


def tell_of_cut_off(jobs: Sequence[Job]) -> None:
    """Log one line for each file: its attempt may have been paid for."""
    for job in jobs:
        log.warning("attempt.interrupted", folder=job.folder, path=job.path, crashes=job.crashes + 1)
