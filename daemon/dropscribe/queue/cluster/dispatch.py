"""Tickets: jobs fed to procrastinate, a bounded window of them, and what becomes of each.

A row of ``jobs`` is the truth; a ticket only says whose turn it may be. Feeding writes both in one
transaction. A ticket is void once its row no longer names it; a worker that fetches it does nothing.
The number of tickets is bounded, because each fetch of procrastinate scans all waiting jobs: 100,000 jobs
of a paused queue slow every other queue down (docs/design/queue.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dropscribe.core.budget import stops_of
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.routing import routes_for
from dropscribe.queue.sql import (
    budget_usage,
    hold_rows,
    intake_queries,
    pause_rows,
    remote_rows,
    result_rows,
    rows,
)
from dropscribe.queue.sql.probes import newest_untried

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from dropscribe.core.model import Hold, Job
    from dropscribe.core.routing import Route
    from dropscribe.queue.engine import Pause, Plan
    from dropscribe.queue.sql.database import Connection

WINDOW = 10
"""Tickets a provider and folder, in multiples of the provider's slots."""

PUBLISHING_WINDOW = 64

PUBLISH = "?publish"
"""The lane of jobs with a stored result; no provider can have this name."""

POLL = "?poll"
"""The lane of jobs that a provider works on by itself."""

_KEPT = "state IN ('transcribed', 'rejected')"


@dataclass(frozen=True, slots=True)
class NewTicket:
    """One job to be fed.

    Attributes:
        lane: A provider, or :data:`PUBLISH` or :data:`POLL`.
        priority: Higher ones are drawn first.
    """

    job_id: int
    lane: str
    folder: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Fed:
    """The result of one dispatch.

    Attributes:
        holds: Every hold there is.
        stops: Budgets that are spent.
        pauses: By provider.
    """

    count: int
    holds: Sequence[Hold]
    stops: Sequence[Hold]
    pauses: Mapping[str, Pause]


def feed(
    db: Connection, plan: Plan, issue: Callable[[Sequence[NewTicket]], Sequence[int]], now: float
) -> Fed:
    """Fill the windows of whatever is not held; a held provider or folder gets its probe when that is due.

    Args:
        issue: Defers tickets in the transaction that is open; returns procrastinate's ids.
    """
    holds = hold_rows.read_holds(db)
    stops = stops_of(budget_usage.read_accounts(db, plan.budgets, plan.zone, now))
    new = [
        *_to_transcribe(db, plan, holds, stops, now),
        *_to_poll(db, plan, now),
        *_to_publish(db, plan, now),
    ]
    if new:
        tickets = issue(new)
        db.executemany(
            "UPDATE jobs SET ticket = ?, lane = ?, node = '' WHERE id = ?",
            [(ticket, each.lane, each.job_id) for ticket, each in zip(tickets, new, strict=True)],
        )
    return Fed(len(new), holds, stops, pause_rows.read_pauses(db))


def _to_transcribe(
    db: Connection, plan: Plan, holds: Sequence[Hold], stops: Sequence[Hold], now: float
) -> Iterator[NewTicket]:
    stopped = {stop.scope for stop in stops}
    held = {hold.scope for hold in holds} | stopped
    providers = {scope.name for scope in held if scope.kind is ScopeKind.PROVIDER}
    folders = {scope.name for scope in held if scope.kind is ScopeKind.FOLDER}
    fed = _fed(db)
    waiting = _waiting(db, fed)
    remote = remote_rows.count_at_provider(db, "provider")
    for name, lane in plan.providers.items():
        if name not in providers:
            for route in routes_for(name, plan.chains, providers, folders, plan.strict_order):
                waiting_there = fed.get((name, route.folder), 0)
                room = min(WINDOW * lane.slots, lane.remote_jobs - remote.get(name, 0)) - waiting_there
                if room > 0 and route.folder in waiting:
                    # The more tickets of the folder are before it, the later: slots go round the folders.
                    for place, ticket in enumerate(_due(db, name, route, now, room), waiting_there):
                        yield replace(ticket, priority=-place)
    for hold in holds:
        if hold.next_probe_at <= now and hold.scope not in stopped and not _is_probed(db, hold.scope):
            yield from _probe(db, plan, hold.scope, providers, {each.name for each in stopped})


def _fed(db: Connection) -> Mapping[tuple[str, str], int]:
    found = db.execute(
        "SELECT lane, folder, count(*) FROM jobs WHERE state = 'queued' AND ticket IS NOT NULL GROUP BY 1, 2"
    )
    return {(lane, folder): n for lane, folder, n in found}


def _waiting(db: Connection, fed: Mapping[tuple[str, str], int]) -> set[str]:
    """Folders with queued jobs that have no ticket; no search is made in the others."""
    counts = db.execute("SELECT folder, n FROM counts WHERE state = 'queued'").fetchall()
    by_folder: dict[str, int] = {}
    for (_, folder), n in fed.items():
        by_folder[folder] = by_folder.get(folder, 0) + n
    return {folder for folder, n in counts if n > by_folder.get(folder, 0)}


def _due(db: Connection, provider: str, route: Route, now: float, room: int) -> list[NewTicket]:
    """Oldest due first; one walk along an index for each pin, never a sort over the backlog."""
    pins = ("", provider) if route.unpinned else (provider,)
    part = (
        "(SELECT due_at, id FROM jobs WHERE state = 'queued' AND ticket IS NULL AND folder = ? AND pin = ?"
        " AND due_at <= ? ORDER BY due_at, id LIMIT ?)"
    )
    found = db.execute(
        f"SELECT due_at, id FROM ({' UNION ALL '.join(part for _ in pins)}) AS due ORDER BY 1, 2 LIMIT ?",
        (*(value for pin in pins for value in (route.folder, pin, now, room)), room),
    ).fetchall()
    return [NewTicket(job_id, provider, route.folder) for _, job_id in found]


def _is_probed(db: Connection, scope: Scope) -> bool:
    """Whether a job of what is held is on its way; the hold's own ended when it began."""
    column, lane = ("provider", "lane") if scope.kind is ScopeKind.PROVIDER else ("folder", "folder")
    return (
        db.execute(
            f"SELECT 1 FROM jobs WHERE state = 'transcribing' AND remote_id = '' AND {column} = ? UNION ALL"
            f" SELECT 1 FROM jobs WHERE state = 'queued' AND ticket IS NOT NULL AND {lane} = ? LIMIT 1",
            (scope.name, scope.name),
        ).fetchone()
        is not None
    )


def _probe(
    db: Connection, plan: Plan, scope: Scope, held_providers: Collection[str], stopped: Collection[str]
) -> list[NewTicket]:
    """The job that may try whether a hold is over, due or not: one that is untried, else the oldest."""
    candidates: list[tuple[float, int, str, str]] = []
    for name in plan.providers:
        if name in stopped or (scope.kind is ScopeKind.PROVIDER and name != scope.name):
            continue
        if scope.kind is ScopeKind.FOLDER and name in held_providers:
            continue
        for route in routes_for(name, plan.chains, held_providers, stopped, plan.strict_order):
            if scope.kind is ScopeKind.PROVIDER or route.folder == scope.name:
                if untried := newest_untried(db, rows.queues_of(name, (route,)), "ticket IS NULL"):
                    return [NewTicket(untried, name, route.folder)]
                candidates += [
                    (due_at, job_id, name, route.folder) for due_at, job_id in _oldest(db, name, route)
                ]
    return [NewTicket(job_id, name, folder) for _, job_id, name, folder in sorted(candidates)[:1]]


def _oldest(db: Connection, provider: str, route: Route) -> list[tuple[float, int]]:
    pins = ("", provider) if route.unpinned else (provider,)
    found: list[tuple[float, int]] = []
    for pin in pins:
        found += db.execute(
            "SELECT due_at, id FROM jobs WHERE state = 'queued' AND ticket IS NULL AND folder = ? AND pin = ?"
            " ORDER BY due_at, id LIMIT 1",
            (route.folder, pin),
        ).fetchall()
    return found


def _to_poll(db: Connection, plan: Plan, now: float) -> list[NewTicket]:
    """Jobs at providers whose next poll is due."""
    found = db.execute(
        f"SELECT id, folder FROM jobs WHERE {rows.AT_PROVIDER} AND ticket IS NULL AND due_at <= ?"  # constant
        " ORDER BY due_at, id LIMIT ?",
        (now, PUBLISHING_WINDOW),
    ).fetchall()
    return [NewTicket(job_id, POLL, folder) for job_id, folder in found if folder in plan.chains]


def _to_publish(db: Connection, plan: Plan, now: float) -> list[NewTicket]:
    """Kept answers that nobody is publishing: their node died, or their disk put them off."""
    found = db.execute(
        f"SELECT id, folder FROM jobs WHERE {_KEPT} AND ticket IS NULL AND due_at <= ?"
        " ORDER BY due_at, id LIMIT ?",
        (now, PUBLISHING_WINDOW),
    ).fetchall()
    return [NewTicket(job_id, PUBLISH, folder) for job_id, folder in found if folder in plan.chains]


def draw_due(db: Connection, job_id: int, ticket: int, node: str) -> Job | None:
    """The job to poll or to publish that a ticket stands for; None where it is void."""
    row = db.execute(
        f"UPDATE jobs SET node = ? WHERE id = ? AND ticket = ? AND ({_KEPT} OR {rows.AT_PROVIDER})"
        f" RETURNING {rows.JOB_COLUMNS}",
        (node, job_id, ticket),
    ).fetchone()
    if row is None:
        return None
    job = rows.job_of(row)
    if job.remote is not None:
        return job
    return result_rows.jobs_with_result(db, "jobs.id = ?", (job_id,))[0]


def void(db: Connection, scope: Scope) -> None:
    """Queued jobs of what is held lose their tickets: they may go another way."""
    column = "lane" if scope.kind is ScopeKind.PROVIDER else "folder"
    db.execute(
        f"UPDATE jobs SET ticket = NULL, lane = '' WHERE state = 'queued' AND ticket IS NOT NULL"  # constant
        f" AND {column} = ?",
        (scope.name,),
    )


def void_removed_lanes(db: Connection, plan: Plan) -> None:
    """Queued jobs lose their tickets for providers that their folder no longer has in *plan*."""
    for folder, chain in plan.chains.items():
        marks = ", ".join("?" * len(chain))
        db.execute(
            "UPDATE jobs SET ticket = NULL, lane = '' WHERE state = 'queued' AND ticket IS NOT NULL"
            f" AND folder = ? AND lane NOT IN ({marks})",  # question marks alone
            (folder, *chain),
        )


YOUNG_SECONDS = 90.0
"""A row this young is not withdrawn: a network file system may not show its file to every node yet."""

MISSED_SECONDS = 10.0
"""The same for one whose file an attempt has looked for in vain: another node filed it just before."""


def withdraw(
    db: Connection, folder: str, places: Sequence[tuple[bytes, bytes]], reason: str, now: float
) -> list[tuple[bytes, bytes]]:
    """Waiting jobs whose files are gone end; what a node has drawn is left to its handler.

    Returns:
        The places of those that ended.
    """
    which = "received_at < CASE WHEN code = 'missing' THEN ? ELSE ? END AND state = 'queued'"
    latest = (now - min(MISSED_SECONDS, YOUNG_SECONDS), now - YOUNG_SECONDS)
    return intake_queries.withdraw(db, folder, places, reason, which, latest)


def is_anything_in_flight(db: Connection, hanging: Collection[str]) -> bool:
    """Whether any node has an attempt under way, or a publication in another folder than *hanging*."""
    others = f"folder NOT IN ({', '.join('?' * len(hanging))})" if hanging else "TRUE"  # marks alone
    found = db.execute(
        "SELECT 1 FROM jobs WHERE state = 'transcribing'"
        f" OR (ticket IS NOT NULL AND {_KEPT} AND {others}) LIMIT 1",
        tuple(hanging),
    )
    return found.fetchone() is not None
