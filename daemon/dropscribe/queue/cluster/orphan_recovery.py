"""Recovers the jobs of nodes that are gone.

What is in flight belongs to its node for as long as that node beats: procrastinate's own heartbeat ends while
a worker still finishes what it has, so it tells of tickets alone that nobody has begun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from dropscribe.core.retry import crash_wait_seconds
from dropscribe.queue.cluster import nodes
from dropscribe.queue.sql import rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dropscribe.core.model import Job
    from dropscribe.core.retry import RetryLimits
    from dropscribe.queue.sql.database import Connection

LOOK_SECONDS = 5.0

_RESUMABLE = "(state IN ('transcribed', 'rejected') OR state = 'transcribing' AND remote_id <> '')"
"""Publications and polls: another node goes on with them as they are."""

_BEGUN = f"(state = 'transcribing' AND remote_id = '' OR {_RESUMABLE} AND ticket IS NOT NULL)"
_DRAWN = f"(state = 'queued' OR {_RESUMABLE} AND node = '')"

log = structlog.get_logger()


def take_back_own(db: Connection, node: str, limits: RetryLimits, now: float) -> list[Job]:
    """Requeue the jobs of an earlier process of this node; returns those whose attempts were interrupted."""
    return _take_back(db, f"node = ? AND {_BEGUN}", (node,), limits, now)


def take_back_silent(
    db: Connection, stalled: Sequence[int], limits: RetryLimits, now: float
) -> tuple[dict[str, list[Job]], list[int]]:
    """Requeue the jobs of silent nodes, and the tickets that stalled workers fetched and did not begin.

    A silent node loses its sessions first: one that is frozen would keep its providers' slots for ever.

    Args:
        stalled: Tickets of workers that have not beaten for long.

    Returns:
        The jobs whose attempts were cut off, by silent node, and the tickets of *stalled* that are void now.
    """
    cut_off: dict[str, list[Job]] = {}
    for name in _silent_nodes(db, now):
        nodes.expel(db, name)
        cut_off[name] = _take_back(db, f"node = ? AND {_BEGUN}", (name,), limits, now)
    db.execute(
        f"UPDATE jobs SET ticket = NULL, lane = '' WHERE {_DRAWN} AND ticket = ANY(?::bigint[])",  # constant
        (list(stalled),),
    )
    named = db.execute(
        "SELECT ticket FROM jobs WHERE ticket = ANY(?::bigint[]) AND ended_at IS NULL", (list(stalled),)
    )
    in_use = {ticket for (ticket,) in named}
    return cut_off, [ticket for ticket in stalled if ticket not in in_use]


def void_ended_tickets(db: Connection) -> None:
    """Waiting jobs lose tickets that procrastinate has deleted, so that they are fed again.

    A ticket that is cancelled while it waits for a slot ends without a change of its row.
    """
    db.execute(
        f"UPDATE jobs SET ticket = NULL, lane = '' WHERE {_DRAWN} AND ticket IS NOT NULL"  # constant
        " AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE procrastinate_jobs.id = jobs.ticket)"
    )


def _silent_nodes(db: Connection, now: float) -> list[str]:
    """Nodes with something in flight that have not beaten for long, or are gone."""
    found = db.execute(
        f"SELECT DISTINCT node FROM jobs WHERE {_BEGUN} AND node <> '' AND node NOT IN"  # constant
        " (SELECT name FROM nodes WHERE beat_at > ?)",
        (now - nodes.SILENT_SECONDS,),
    )
    return [name for (name,) in found]


def _take_back(
    db: Connection, which: str, values: tuple[object, ...], limits: RetryLimits, now: float
) -> list[Job]:
    cut_off = rows.interrupted(db, which, values)
    db.execute(
        f"UPDATE jobs SET ticket = NULL, lane = '' WHERE {which} AND {_RESUMABLE}", values
    )  # constants
    for job in cut_off:
        rows.hand_back(db, job, now + crash_wait_seconds(limits, job.crashes + 1))
    return cut_off


def tell_of_silent(cut_off: Mapping[str, Sequence[Job]]) -> None:
    """A line a node, once what it had is taken back, and one a file."""
    for name, jobs in cut_off.items():
        log.warning("node.silent", node=name, cut_off=len(jobs))
        tell_of_cut_off(jobs)


def tell_of_cut_off(jobs: Sequence[Job]) -> None:
    """A line a file: its attempt may have been paid for."""
    for job in jobs:
        log.warning("attempt.interrupted", folder=job.folder, path=job.path, crashes=job.crashes + 1)
