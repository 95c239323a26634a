"""Tickets: procrastinate jobs, each of which lets the worker that fetches it claim jobs of a provider.

A ticket names no job. The claim takes what may start at that moment, by the same rules as on one machine with
the state of all nodes: a ticket too many does nothing, and a lost one is issued again. Tickets are issued for
free slots only, because each fetch of procrastinate scans all waiting jobs (docs/design/queue.md). Polls and
publications need no ticket: they hold no slot that nodes share.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as Ticket
from procrastinate.manager import JobManager
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector

from dropscribe.core.budget import stops_of
from dropscribe.core.model import Job
from dropscribe.queue.admission import Admission
from dropscribe.queue.cluster.nodes import NODE_LOCKS, free_resumable
from dropscribe.queue.cluster.postgres import PostgresConnection
from dropscribe.queue.model import NOT_MOVABLE, REOPENED, ProviderLimits, rate_window
from dropscribe.queue.sql import budget_usage, claims, hold_rows, rows
from dropscribe.queue.sql.database import Connection, marks

TURN_SECONDS = 1.0
"""A worker claims jobs with one ticket for this long, then another node may get the next one."""

TASK = "dropscribe.take"
_MOST_NAME_BYTES = 63 - len("procrastinate_queue_v1#")

_DEFERRING = JobManager(SyncPsycopgConnector())
"""Its connector is never opened: jobs are deferred on connections that are passed to it."""


def read_admission(db: Connection, own: Admission, now: float) -> Admission:
    """The admission state of all nodes, by the rows, for the folders that are open on this one.

    A node's uploads count as long as its session holds its name, so a dead node frees its slots at once.
    """
    whole, plan = Admission(own.database), own.plan
    whole.plan, whole.folders, whole.turns = plan, own.folders, own.turns
    whole.holds.replace_holds(hold_rows.read_holds(db))
    whole.holds.replace_stops(stops_of(budget_usage.read_accounts(db, plan.budgets, plan.zone, now)))
    whole.rates.pauses = hold_rows.read_pauses(db)
    whole.in_flight.at_provider = rows.read_at_provider(db, plan.chains)
    has_name = (
        "hashtext(node)::oid IN (SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND classid = ?"
        " AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    uploads = rows.read_jobs(db, f"{rows.TRANSCRIBING} AND {has_name}", (NODE_LOCKS,))
    whole.in_flight.uploads = {job.id: job for job in uploads}
    return whole


def issue_tickets(db: Connection, own: Admission, now: float) -> Admission:
    """Issue tickets for the jobs that may start now, beside those that wait to be fetched.

    Returns the admission state of all nodes that they were issued by.
    """
    whole = read_admission(db, own, now)
    # Tickets that wait to be fetched, by queue.
    waiting = "SELECT queue_name, count(*) FROM procrastinate_jobs WHERE status = 'todo' GROUP BY 1"
    issued = Counter(dict(db.execute(waiting).fetchall()))
    if new := list(_to_transcribe(db, whole, issued, now)):
        assert isinstance(db, PostgresConnection)  # noqa: S101 - a cluster's rows are nowhere else
        try:
            _DEFERRING.batch_defer_jobs(new, connection=db.raw)
        except ConnectorException as error:  # the database's own error, which the store knows
            raise error.__cause__ or error from error
    return whole


def _to_transcribe(db: Connection, whole: Admission, issued: Counter[str], now: float) -> Iterator[Ticket]:
    next_starts, has_suspect = read_next_starts(db), whole.in_flight.suspects() > 0
    for request in whole.requests():
        if next_starts.get(request.provider, now) > now + TURN_SECONDS:
            continue
        before = sum(issued[queue_of(request.provider, route.folder)] for route in request.routes)
        if before < request.limit:
            waiting = claims.read_waiting(db, request, now, request.limit, has_suspect=has_suspect)
            due = sorted((*job, folder) for folder, jobs in waiting.items() for job in jobs)
            yield from (_ticket(request.provider, folder) for _, _, folder in due[before : request.limit])


def _ticket(provider: str, folder: str) -> Ticket:
    return Ticket(
        id=None,
        queue=queue_of(provider, folder),
        lock=None,
        queueing_lock=None,
        task_name=TASK,
        task_kwargs={"lane": provider},
    )


def queue_of(provider: str, folder: str) -> str:
    """The queue's name: short, because PostgreSQL's channels are named after it."""
    name = f"{provider}/{folder}"
    if len(name.encode()) <= _MOST_NAME_BYTES:
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def claim(
    db: Connection, own: Admission, provider: str, claim_id: int, node: str, now: float
) -> Job | float | None:
    """Begin an attempt on this node; no other claim has the same *claim_id*.

    Returns the job, which has a slot of *provider* now; None where none may start; or the seconds after which
    the provider's rate allows the next attempt.
    """
    # An earlier try may have claimed it: its commit was made and the confirmation was lost.
    if claimed := rows.read_jobs(db, "ticket = ? AND node = ?", (claim_id, node)):
        return claimed[0]
    job = _begin_attempt(db, own, provider, now)
    if job is not None and not isinstance(job, float):
        db.execute("UPDATE jobs SET ticket = ?, node = ? WHERE id = ?", (claim_id, node, job.id))
    return job


def claim_due(db: Connection, limits: claims.Limits, node: str, now: float) -> list[Job]:
    """Take jobs to poll or to publish for this node; those that it had for no slot go to any node."""
    free_resumable(db, node, limits.in_flight)
    due = claims.read_due(db, limits, now)
    if due:
        taken = f"UPDATE jobs SET ticket = 0, node = ? WHERE id IN ({marks(due)})"
        db.execute(taken, (node, *(job.id for job in due)))
    return due


def _begin_attempt(db: Connection, own: Admission, provider: str, now: float) -> Job | float | None:
    limits = own.plan.providers.get(provider)
    if limits is None:
        return None  # a reload has removed the provider
    pace = db.execute("SELECT next_at FROM paces WHERE provider = ?", (provider,)).fetchone()
    if pace is not None and pace[0] > now:  # starts are evenly spaced over all nodes
        return float(pace[0] - now)
    whole = read_admission(db, own, now)
    has_suspect = whole.in_flight.suspects() > 0
    # A held folder's probe first: the jobs of other folders may never run out.
    for request in sorted(whole.requests_of(limits), key=lambda request: not request.is_probe):
        for job in claims.claim_for_provider(db, replace(request, limit=1), now, has_suspect=has_suspect):
            own.note_turn(job)
            if limits.requests_per_minute:
                reserve_start(db, limits, now)
            return job
    return None


def reserve_start(db: Connection, limits: ProviderLimits, now: float) -> float:
    """Time at which a further request of a running attempt may start, behind those of all nodes."""
    gap_seconds = 0.0
    if limits.requests_per_minute:
        requests, seconds = rate_window(limits.requests_per_minute)
        gap_seconds = seconds / requests
    row = db.execute(
        "INSERT INTO paces (provider, next_at) VALUES (?, ?) ON CONFLICT (provider) DO UPDATE"
        " SET next_at = greatest(paces.next_at, ?) + ? RETURNING next_at",
        (limits.provider, now + gap_seconds, now, gap_seconds),
    ).fetchone()
    return float(row[0]) - gap_seconds


def read_next_starts(db: Connection) -> dict[str, float]:
    """Unix seconds until which a pause or its rate limit stops a provider's next request, by provider."""
    # Later rows of the dictionary replace earlier ones.
    starts = "SELECT provider, next_at FROM paces UNION ALL SELECT provider, until FROM pauses ORDER BY 2"
    return dict(db.execute(starts).fetchall())


def not_stuck(db: Connection, stuck: frozenset[str], node: str) -> frozenset[str]:
    """Those of the folders *stuck*, closed on *node*, whose refused publications other nodes have made."""
    if not stuck:
        return stuck
    waiting = db.execute(
        f"SELECT DISTINCT folder FROM jobs WHERE {rows.HAS_RESULT} AND ended_at IS NULL"
        " AND (code NOT IN ('', ?, ?) OR ticket IS NOT NULL AND node = ?)",
        (NOT_MOVABLE, REOPENED, node),  # these wait for their own files
    )
    return stuck.difference(folder for (folder,) in waiting)


def is_anything_in_flight(db: Connection, hanging: Collection[str]) -> bool:
    """Whether any node has an upload under way, or a publication in another folder than *hanging*."""
    found = db.execute(
        f"SELECT 1 FROM jobs WHERE ({rows.TRANSCRIBING})"
        f" OR (ticket IS NOT NULL AND {rows.HAS_RESULT} AND folder <> ALL(?)) LIMIT 1",
        (list(hanging),),
    )
    return found.fetchone() is not None
