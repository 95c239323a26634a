"""Tickets: procrastinate jobs, each for one job that may start.

A row of ``jobs`` is authoritative; issuing writes row and ticket in one transaction. A ticket is void once
its row no longer names it; a worker that fetches it does nothing. The number of tickets is bounded, because
each fetch of procrastinate scans all waiting jobs (docs/design/queue.md).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as Ticket
from procrastinate.manager import JobManager
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector

from dropscribe.core.budget import stops_of
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.routing import routes_for
from dropscribe.queue.cluster.nodes import NODE_LOCKS
from dropscribe.queue.cluster.postgres import PostgresConnection
from dropscribe.queue.sql import budget_usage, claims, hold_rows, result_rows, rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from dropscribe.core.model import Hold, Job
    from dropscribe.core.routing import Route
    from dropscribe.queue.model import Pause, Plan, ProviderLimits
    from dropscribe.queue.sql.database import Connection

WINDOW = 10  # Tickets a provider and folder, in multiples of the provider's slots
DUE_WINDOW = 64  # Tickets for publications, and for polls, issued at once
PUBLISH = "?publish"  # the kind of tickets for jobs with a stored result; no provider can have this name
POLL = "?poll"  # the kind of tickets for jobs that a provider works on by itself
SLOT_LOOK_SECONDS = 0.1
"""Interval at which a node that waits for a slot tries again, in case another node has released one."""

LARGE_WAIT_SECONDS = 5.0

TASK = "dropscribe.take"
_MOST_NAME_BYTES = 63 - len("procrastinate_queue_v1#")

_DEFERRING = JobManager(SyncPsycopgConnector())
"""Its connector is never opened: jobs are deferred on connections that are passed to it."""


def issue_tickets(
    db: Connection, plan: Plan, now: float
) -> tuple[Sequence[Hold], Sequence[Hold], dict[str, Pause]]:
    """Issue tickets up to each window; a held provider or folder gets one for its probe when that is due.

    Returns:
        The holds, the spent budgets, and the pauses by provider that the tickets were issued by.
    """
    holds = hold_rows.read_holds(db)
    stops = stops_of(budget_usage.read_accounts(db, plan.budgets, plan.zone, now))
    for stop in stops:
        # A job of another node may have spent it since the tickets were issued.
        hold_rows.void_scope(db, stop.scope)
    new = [
        *_to_transcribe(db, plan, holds, stops, now),
        *_due_now(db, plan, POLL, rows.AT_PROVIDER, now),
        *_due_now(db, plan, PUBLISH, rows.HAS_RESULT, now),
    ]
    if new:
        assert isinstance(db, PostgresConnection)  # noqa: S101 - a cluster's rows are nowhere else
        try:
            issued = _DEFERRING.batch_defer_jobs(new, connection=db.raw)
        except ConnectorException as error:  # the database's own error, which the store knows
            raise error.__cause__ or error from error
        db.executemany(
            "UPDATE jobs SET ticket = ?, lane = ?, node = '' WHERE id = ?",
            [(ticket.id, ticket.task_kwargs["lane"], ticket.task_kwargs["job_id"]) for ticket in issued],
        )
    return holds, stops, hold_rows.read_pauses(db)


def _ticket(job_id: int, kind: str, folder: str, priority: int = 0) -> Ticket:
    """A ticket to be issued.

    Args:
        kind: A provider, or :data:`PUBLISH` or :data:`POLL`.
        priority: Higher ones are fetched first.
    """
    return Ticket(
        id=None,
        queue=queue_of(kind, folder),
        lock=None,
        queueing_lock=None,
        task_name=TASK,
        task_kwargs={"job_id": job_id, "lane": kind},
        priority=priority,
    )


def queue_of(kind: str, folder: str) -> str:
    """The queue's name: short, because PostgreSQL's channels are named after it."""
    name = f"{kind}/{folder}"
    if len(name.encode()) <= _MOST_NAME_BYTES:
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _to_transcribe(
    db: Connection, plan: Plan, holds: Sequence[Hold], stops: Sequence[Hold], now: float
) -> Iterator[Ticket]:
    stopped = {stop.scope for stop in stops}
    held = {hold.scope for hold in holds} | stopped
    providers = {scope.name for scope in held if scope.kind is ScopeKind.PROVIDER}
    folders = {scope.name for scope in held if scope.kind is ScopeKind.FOLDER}
    tickets = f"SELECT lane, folder FROM jobs WHERE {rows.QUEUED} AND ticket IS NOT NULL"
    issued = Counter(db.execute(tickets).fetchall())
    with_ticket = Counter(folder for _, folder in issued.elements())
    # No search is made in folders where all queued jobs have tickets.
    queued = db.execute("SELECT folder, n FROM counts WHERE state = 'queued'").fetchall()
    waiting = {folder for folder, n in queued if n > with_ticket[folder]}
    remote = Counter(rows.read_at_provider(db, plan.chains).values())
    for name, limits in plan.providers.items():
        if name not in providers:
            for route in routes_for(name, plan.chains, providers, folders, plan.strict_order):
                before = issued[name, route.folder]
                room = min(WINDOW * limits.slots, limits.remote_jobs - remote[name]) - before
                if room > 0 and route.folder in waiting:
                    # Later, the more tickets of its folder are before it: slots go round the folders.
                    for place, (_, job_id) in enumerate(_due(db, name, route, now, room), before):
                        yield _ticket(job_id, name, route.folder, priority=-place)
    for hold in holds:
        if hold.next_probe_at <= now and hold.scope not in stopped and not _is_probed(db, hold.scope):
            yield from _probe(db, plan, hold.scope, providers, {each.name for each in stopped})


def _due(db: Connection, provider: str, route: Route, now: float, limit: int) -> list[tuple[float, int]]:
    queues = claims.queues_of(provider, (route,))
    return claims.oldest(db, queues, "ticket IS NULL AND due_at <= ?", (now,), limit)


def _is_probed(db: Connection, scope: Scope) -> bool:
    """Whether a job of the held provider or folder has a ticket or an attempt."""
    column, lane = ("provider", "lane") if scope.kind is ScopeKind.PROVIDER else ("folder", "folder")
    found = db.execute(
        f"SELECT 1 FROM jobs WHERE {rows.TRANSCRIBING} AND {column} = ? UNION ALL"
        f" SELECT 1 FROM jobs WHERE {rows.QUEUED} AND ticket IS NOT NULL AND {lane} = ? LIMIT 1",
        (scope.name, scope.name),
    )
    return found.fetchone() is not None


def _probe(
    db: Connection, plan: Plan, scope: Scope, held_providers: Collection[str], stopped: Collection[str]
) -> list[Ticket]:
    """The job that may try whether a hold is over, due or not: one that is untried, else the oldest."""
    is_provider = scope.kind is ScopeKind.PROVIDER
    names = [scope.name] if is_provider else plan.providers.keys() - held_providers
    candidates: list[tuple[float, int, str, str]] = []
    for name in plan.providers:
        if name in stopped or name not in names:
            continue
        for route in routes_for(name, plan.chains, held_providers, stopped, plan.strict_order):
            if is_provider or route.folder == scope.name:
                if untried := claims.newest_untried(db, claims.queues_of(name, (route,)), "ticket IS NULL"):
                    return [_ticket(untried, name, route.folder)]
                candidates += [(*found, name, route.folder) for found in _due(db, name, route, math.inf, 1)]
    return [_ticket(job_id, name, folder) for _, job_id, name, folder in sorted(candidates)[:1]]


def _due_now(db: Connection, plan: Plan, kind: str, which: str, now: float) -> list[Ticket]:
    """Jobs to poll, or results that no worker is publishing: their node died, or their disk failed."""
    found = db.execute(
        f"SELECT id, folder FROM jobs WHERE {which} AND ticket IS NULL AND folder = ANY(?) AND due_at <= ?"
        " ORDER BY due_at, id LIMIT ?",
        (list(plan.chains), now, DUE_WINDOW),
    )
    return [_ticket(job_id, kind, folder) for job_id, folder in found.fetchall()]


def _read_room(db: Connection, provider: str, ticket: tuple[int, int]) -> Any:
    """A ticket's waiting job, and the room at *provider*: uploads that hold slots, pace and pause.

    A node's uploads count as long as its session holds its name, so a dead node frees its slots at once.
    """
    return db.execute(
        "SELECT folder, size_bytes, uploads.n, uploads.large,"
        " (SELECT next_at FROM paces WHERE provider = ?), (SELECT until FROM pauses WHERE provider = ?)"
        " FROM jobs, (SELECT count(*) AS n, count(*) FILTER (WHERE size_bytes >= ?) AS large FROM jobs"
        " WHERE state = 'transcribing' AND remote_id = '' AND provider = ? AND hashtext(node)::oid IN"
        " (SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND classid = ? AND granted AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database()))) AS uploads"
        " WHERE id = ? AND ticket = ? AND state = 'queued'",
        (provider, provider, claims.LARGE_BYTES, provider, NODE_LOCKS, *ticket),
    ).fetchone()


def limits_left(db: Connection, limits: ProviderLimits, folders: Collection[str]) -> ProviderLimits:
    """*limits* with fewer slots where the provider has nearly all the jobs of *folders* that it may have.

    Each folder may have tickets for all of them.
    """
    remote = Counter(rows.read_at_provider(db, folders).values())[limits.provider]
    return replace(limits, slots=min(limits.slots, limits.remote_jobs - remote))


def begin_attempt(
    db: Connection,
    ticket: tuple[int, int],
    limits: ProviderLimits,
    closed: Collection[str],
    node: str,
    now: float,
) -> Job | float | None:
    """Begin the attempt of a ticket, once its provider has a slot and its rate allows it.

    Args:
        ticket: (job id, ticket id).
        closed: Folders from which this node begins nothing.

    Returns:
        The job, which has a slot while it is ``transcribing``; None where the ticket is void; a number of
        seconds to try again after, or sooner when a slot is released here.
    """
    row = _read_room(db, limits.provider, ticket)
    if row is None:
        # An earlier try may have begun it: its commit was made and the confirmation was lost.
        began_here = f"{rows.TRANSCRIBING} AND id = ? AND ticket = ? AND node = ?"
        begun = rows.read_jobs(db, began_here, (*ticket, node))
        return begun[0] if begun else None
    folder, size_bytes, uploads, large_uploads, next_at, paused_until = row
    if folder in closed:
        # Workers notice a little later. The job gets another ticket, for a node that works on its folder.
        hold_rows.void_tickets(db, "id = ?", ticket[:1])
        return None
    # Starts are evenly spaced over all nodes.
    if (starts_at := max(next_at or now, paused_until or now)) > now:
        return float(starts_at - now)
    # One, until an answer ends the pause.
    if uploads >= (limits.slots if paused_until is None else min(limits.slots, 1)):
        return SLOT_LOOK_SECONDS
    if size_bytes >= claims.LARGE_BYTES and large_uploads >= max(limits.slots - 1, 1):
        # Smaller files go first: large ones never hold every slot.
        db.execute("UPDATE jobs SET due_at = ? WHERE id = ?", (now + LARGE_WAIT_SECONDS, ticket[0]))
        return None
    if limits.requests_per_minute:
        reserve_start(db, limits, now)
    return claims.begin_attempt(db, ticket[0], limits.provider, now, node)


def reserve_start(db: Connection, limits: ProviderLimits, now: float) -> float:
    """When one more request of a running attempt may start, behind those of all nodes."""
    gap_seconds = 60.0 / limits.requests_per_minute if limits.requests_per_minute else 0.0
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


def begin_due(db: Connection, ticket: tuple[int, int], node: str) -> Job | None:
    """The job to poll or to publish of a ticket; None where the ticket is void."""
    row = db.execute(
        f"UPDATE jobs SET node = ? WHERE id = ? AND ticket = ? AND ({rows.HAS_RESULT} OR {rows.AT_PROVIDER})"
        f" RETURNING {rows.JOB_COLUMNS}",
        (node, *ticket),
    ).fetchone()
    if row is None:
        return None
    job = rows.job_of(row)
    return job if job.remote else result_rows.jobs_with_result(db, "jobs.id = ?", (job.id,))[0]


def is_anything_in_flight(db: Connection, hanging: Collection[str]) -> bool:
    """Whether any node has an upload under way, or a publication in another folder than *hanging*."""
    found = db.execute(
        f"SELECT 1 FROM jobs WHERE ({rows.TRANSCRIBING})"
        f" OR (ticket IS NOT NULL AND {rows.HAS_RESULT} AND folder <> ALL(?)) LIMIT 1",
        (list(hanging),),
    )
    return found.fetchone() is not None
