"""Tickets: jobs fed to procrastinate, a bounded window of them, and what becomes of each.

A row of ``jobs`` is the truth; a ticket only says whose turn it may be. Feeding writes both in one
transaction. A ticket is void once its row no longer names it: whoever draws it finds nothing to do.
Bounded, because each claim of procrastinate's looks at all that waits: 100,000 jobs of a paused queue slow
every other queue down (SCALING.md §2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.budget import stops_of
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.routing import routes_for
from dropscribe.queue.sql import budget_usage, hold_rows, intake_queries, result_rows, rows
from dropscribe.queue.sql.probes import newest_untried

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from dropscribe.core.model import Hold, Job
    from dropscribe.core.routing import Route
    from dropscribe.queue.engine import Plan, ProviderLimits
    from dropscribe.queue.sql.database import Connection

WINDOW = 10
"""Tickets a provider and folder, in multiples of the provider's slots."""

PUBLISHING_WINDOW = 64

PUBLISH = "?publish"
"""The lane of jobs whose answers are kept; no provider can have this name."""

_KEPT = "state IN ('transcribed', 'rejected')"


@dataclass(frozen=True, slots=True)
class NewTicket:
    """One job to be fed.

    Attributes:
        lane: A provider, or :data:`PUBLISH`.
    """

    job_id: int
    lane: str
    folder: str


@dataclass(frozen=True, slots=True)
class Fed:
    """What a feeding found.

    Attributes:
        holds: Every hold there is.
        stops: Budgets that are spent.
    """

    count: int
    holds: Sequence[Hold]
    stops: Sequence[Hold]


def feed(
    db: Connection, plan: Plan, issue: Callable[[Sequence[NewTicket]], Sequence[int]], now: float
) -> Fed:
    """Fill the windows of whatever is not held; a held provider or folder gets its probe when that is due.

    Args:
        issue: Defers tickets in the transaction that is open; returns procrastinate's ids.
    """
    holds = hold_rows.read_holds(db)
    stops = stops_of(budget_usage.read_accounts(db, plan.budgets, plan.zone, now))
    new = [*_to_transcribe(db, plan, holds, stops, now), *_to_publish(db, plan, now)]
    if new:
        tickets = issue(new)
        db.executemany(
            "UPDATE jobs SET ticket = ?, lane = ?, node = '' WHERE id = ?",
            [(ticket, each.lane, each.job_id) for ticket, each in zip(tickets, new, strict=True)],
        )
    return Fed(len(new), holds, stops)


def _to_transcribe(
    db: Connection, plan: Plan, holds: Sequence[Hold], stops: Sequence[Hold], now: float
) -> Iterator[NewTicket]:
    stopped = {stop.scope for stop in stops}
    held = {hold.scope for hold in holds} | stopped
    providers = {scope.name for scope in held if scope.kind is ScopeKind.PROVIDER}
    folders = {scope.name for scope in held if scope.kind is ScopeKind.FOLDER}
    fed = _fed(db)
    waiting = _waiting(db, fed)
    for name, lane in plan.providers.items():
        if name not in providers:
            for route in routes_for(name, plan.chains, providers, folders, plan.strict_order):
                room = WINDOW * lane.slots - fed.get((name, route.folder), 0)
                if room > 0 and route.folder in waiting:
                    yield from _due(db, name, route, now, room)
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
            f"SELECT 1 FROM jobs WHERE state = 'transcribing' AND {column} = ? UNION ALL"  # constants
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


def _to_publish(db: Connection, plan: Plan, now: float) -> list[NewTicket]:
    """Kept answers that nobody is publishing: their node died, or their disk put them off."""
    found = db.execute(
        f"SELECT id, folder FROM jobs WHERE {_KEPT} AND ticket IS NULL AND due_at <= ?"
        " ORDER BY due_at, id LIMIT ?",
        (now, PUBLISHING_WINDOW),
    ).fetchall()
    return [NewTicket(job_id, PUBLISH, folder) for job_id, folder in found if folder in plan.chains]


# What a ticket turns into -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wait:
    """The ticket's turn has not come: ask again after *seconds*, or when a slot is let go of here."""

    seconds: float


SLOT_LOOK_SECONDS = 0.1
"""How often a node that waits for a slot asks for one that another node has let go of."""

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


def begin(
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
        "SELECT (SELECT greatest(next_at, slow_until) FROM paces WHERE provider = ?) FROM jobs"
        " WHERE id = ? AND ticket = ? AND state = 'queued'",
        (lane.provider, job_id, ticket),
    ).fetchone()
    if row is None:
        return _begun_already(db, drawn, lane, slots, node)
    if (row[0] or 0.0) > now:
        return Wait(row[0] - now)
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


def slow(db: Connection, provider: str, until: float) -> None:
    """Start nothing more at *provider* until then, on any node."""
    db.execute(
        "INSERT INTO paces (provider, slow_until) VALUES (?, ?) ON CONFLICT (provider) DO UPDATE"
        " SET slow_until = greatest(paces.slow_until, excluded.slow_until)",
        (provider, until),
    )


def reserve_start(db: Connection, lane: ProviderLimits, now: float) -> float:
    """When one more request of an attempt that runs may start, behind those of all nodes."""
    gap_seconds = 60.0 / lane.requests_per_minute if lane.requests_per_minute else 0.0
    row = db.execute(
        "INSERT INTO paces (provider, next_at) VALUES (?, ?) ON CONFLICT (provider) DO UPDATE"
        " SET next_at = greatest(paces.next_at, paces.slow_until, ?) + ? RETURNING next_at",
        (lane.provider, now + gap_seconds, now, gap_seconds),
    ).fetchone()
    return float(row[0]) - gap_seconds


def draw_kept(db: Connection, job_id: int, ticket: int, node: str) -> Job | None:
    """The job that a publishing ticket stands for; None where it is void."""
    db.execute(f"UPDATE jobs SET node = ? WHERE id = ? AND ticket = ? AND {_KEPT}", (node, job_id, ticket))
    found = result_rows.jobs_with_result(db, "jobs.id = ? AND ticket = ?", (job_id, ticket))
    return found[0] if found else None


def void(db: Connection, scope: Scope) -> None:
    """Queued jobs of what is held lose their tickets: they may go another way."""
    column = "lane" if scope.kind is ScopeKind.PROVIDER else "folder"
    db.execute(
        f"UPDATE jobs SET ticket = NULL, lane = '' WHERE state = 'queued' AND ticket IS NOT NULL"  # constant
        f" AND {column} = ?",
        (scope.name,),
    )


def let_go(db: Connection, job_id: int) -> None:
    """The job waits again: what feeds next may take it."""
    db.execute("UPDATE jobs SET ticket = NULL, lane = '' WHERE id = ?", (job_id,))


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
    which = (
        "received_at < CASE WHEN code = 'missing' THEN ? ELSE ? END"
        f" AND (state = 'queued' OR {_KEPT} AND ticket IS NULL)"
    )
    latest = (now - min(MISSED_SECONDS, YOUNG_SECONDS), now - YOUNG_SECONDS)
    return intake_queries.withdraw(db, folder, places, reason, which, latest)


def is_anything_in_flight(db: Connection) -> bool:
    """Whether any node has an attempt or a publication under way."""
    found = db.execute(
        f"SELECT 1 FROM jobs WHERE state = 'transcribing' OR (ticket IS NOT NULL AND {_KEPT}) LIMIT 1"
    )
    return found.fetchone() is not None
