"""The nodes of a cluster: heartbeats, and the recovery of the jobs of nodes that are gone.

Each node has one row, with its last heartbeat by the server's clock. Every node recovers the jobs of others;
no particular one is needed. A job in flight belongs to its node while that node sends heartbeats.
Procrastinate's own heartbeat ends while a worker still finishes its jobs, so it only reveals lost tickets.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import structlog

from dropscribe.files.crashpoint import reached
from dropscribe.queue import model
from dropscribe.queue.job_runner import log_abandoned, log_interrupted
from dropscribe.queue.sql import transactions
from dropscribe.queue.sql.database import marks, upsert
from dropscribe.queue.sql.rows import AT_PROVIDER, HAS_RESULT, TRANSCRIBING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence, Sized

    from dropscribe.core.model import Job
    from dropscribe.core.retry import RetryLimits
    from dropscribe.queue.admission import Admission
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.model import NodeStats
    from dropscribe.queue.retrying_database import RetryingDatabase
    from dropscribe.queue.sql.database import Connection

log = structlog.get_logger()

BEAT_SECONDS = 5.0
NODE_LOCKS = 0x64726F72
"""First key of the advisory locks that nodes hold on their names, each for as long as its session lasts."""

LOOK_SECONDS = 5.0  # interval of the looks for silent nodes
_FORGOTTEN_SECONDS = 7 * 86_400.0  # the row of a node that has been silent for longer is deleted
_NAME_BYTES, _DIGEST_LETTERS = 63, 8

_RESUMABLE = f"({HAS_RESULT} OR {AT_PROVIDER})"  # Another node continues these as they are
_BEGUN = f"({TRANSCRIBING} OR {_RESUMABLE} AND ticket IS NOT NULL)"
_FREE = "UPDATE jobs SET ticket = NULL WHERE ticket IS NOT NULL AND"


class Heartbeats:
    """Sends this node's heartbeats."""

    def __init__(self, store: ClusterStore, node: NodeStats) -> None:
        self._store = store
        self._node = node
        self._beating_since = 0.0
        self._last_beat = -math.inf

    async def run(self, database: RetryingDatabase, in_flight: Sized) -> None:
        """Write a heartbeat every few seconds, until cancelled."""

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

        After a database's absence, or a step of its clock, every node looks silent, until each has sent one
        again.
        """
        now, since = time.monotonic(), max(self._beating_since, self._store.stepped_at)
        return now - self._last_beat <= 2 * BEAT_SECONDS and now - since >= seconds


def beat(db: Connection, node: NodeStats) -> None:
    """Write a heartbeat of *node*; delete nodes whose last one is a week old."""
    upsert(db, "nodes", "name", asdict(node))
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


async def recover_own(admission: Admission, node: str) -> None:
    """Requeue the jobs of an earlier process of this node; called at the start."""

    def work(db: Connection) -> tuple[list[Job], list[Job]]:
        plan, now = admission.plan, admission.database.now()
        abandoned = transactions.clear_stale_assignments(db, plan, now)
        delete_lost_tickets(db)
        transactions.limit_waits(db, plan.retry, now)
        return _take_back(db, node, plan.retry, now), abandoned

    cut_off, abandoned = await admission.database.do(work)
    log_interrupted(cut_off)
    log_abandoned(abandoned)
    reached("recovered")


async def recover_silent(admission: Admission, heartbeats: Heartbeats) -> None:
    """Requeue the jobs of silent nodes, and delete the tickets of dead workers, until cancelled."""

    def work(db: Connection) -> dict[str, list[Job]]:
        # Asked in the transaction, which may have waited for the database to come back.
        if not heartbeats.has_beaten_for(model.SILENT_SECONDS):
            return {}
        cut_off = take_back_silent(db, admission.plan.retry, admission.database.now())
        delete_lost_tickets(db)
        return cut_off

    while True:
        await asyncio.sleep(LOOK_SECONDS)
        log_silent_nodes(await admission.database.do(work))
        admission.signals.wake.set()


def take_back_silent(db: Connection, limits: RetryLimits, now: float) -> dict[str, list[Job]]:
    """Requeue the jobs of silent nodes; returns those whose attempts were interrupted, by node.

    A silent node's sessions are ended first: a frozen node would keep its slots for ever.
    """
    silent = db.execute(
        f"SELECT DISTINCT node FROM jobs WHERE {_BEGUN} AND node <> '' AND node NOT IN"  # constant
        " (SELECT name FROM nodes WHERE beat_at > ?)",
        (now - model.SILENT_SECONDS,),
    ).fetchall()
    cut_off: dict[str, list[Job]] = {}
    for (name,) in silent:
        end_sessions(db, name)
        cut_off[name] = _take_back(db, name, limits, now)
    return cut_off


def delete_lost_tickets(db: Connection) -> None:
    """Delete the tickets that dead workers have fetched: nobody fetches them again."""
    db.execute(
        "DELETE FROM procrastinate_jobs WHERE id IN (SELECT id FROM procrastinate_jobs WHERE status = 'doing'"
        " AND NOT EXISTS (SELECT 1 FROM procrastinate_workers AS workers WHERE workers.id = worker_id"
        " AND last_heartbeat > now() - ? * interval '1 second')"
        # A worker that is ending one now has it locked, and deletes it itself.
        " FOR UPDATE SKIP LOCKED)",
        (model.SILENT_SECONDS,),
    )
    # Earlier versions named a job in each ticket, and the ticket in its row; such rows are anybody's.
    db.execute(f"{_FREE} node = ''")


def free_resumable(db: Connection, node: str, running: Collection[int] = (0,)) -> None:
    """Let any node poll or publish the jobs of *node*, but those that are *running*."""
    db.execute(f"{_FREE} node = ? AND {_RESUMABLE} AND id NOT IN ({marks(running)})", (node, *running))


def _take_back(db: Connection, node: str, limits: RetryLimits, now: float) -> list[Job]:
    """Requeue the jobs of *node*; returns those whose attempts were interrupted."""
    free_resumable(db, node)
    return transactions.requeue_all_interrupted(db, limits, now, f"node = ? AND {_BEGUN}", (node,))


def log_silent_nodes(cut_off: Mapping[str, Sequence[Job]]) -> None:
    """Log one line for each node whose jobs were requeued, and one for each of their files."""
    for name, jobs in cut_off.items():
        log.warning("node.silent", node=name, cut_off=len(jobs))
        log_interrupted(jobs)
