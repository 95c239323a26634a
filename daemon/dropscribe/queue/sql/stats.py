"""Counts of the queue, for ``status``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dropscribe.core.budget import stops_of
from dropscribe.core.model import LIVE_STATES, Scope, ScopeKind
from dropscribe.core.routing import BACKLOG, provider_for
from dropscribe.queue.cluster.nodes import is_shared, read_nodes
from dropscribe.queue.embedded.store import is_migrated
from dropscribe.queue.model import NOT_MOVABLE, FolderStats, Stats
from dropscribe.queue.sql import hold_rows, remote_rows, rows
from dropscribe.queue.sql.budget_usage import read_accounts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dropscribe.queue.model import Pause, Plan
    from dropscribe.queue.sql.database import Connection


AT_PROVIDER = "at_provider"
"""Beside the states: of those that are transcribing, those that the provider works on by itself."""


def read_stats(
    db: Connection,
    plan: Plan,
    now: float,
    in_flight: Mapping[str, int] | None = None,
) -> Stats:
    """Counts of every folder in *plan*, and the holds; of a cluster its nodes too.

    Args:
        in_flight: Attempts under way by provider, as the embedded engine knows them; a cluster's are rows.
    """
    found = read_accounts(db, plan.budgets, plan.zone, now)
    holds = [*stops_of(found), *hold_rows.read_holds(db)]
    held = {hold.scope for hold in holds}
    is_current = is_migrated(db)  # `status` may ask before the new daemon has started
    pauses = read_current_pauses(db, now)
    counts = {(folder, state): n for folder, state, n in db.execute("SELECT folder, state, n FROM counts")}
    since: dict[str, float] = {}
    if is_current:
        counts |= {(folder, AT_PROVIDER): n for folder, n in remote_rows.count_at_provider(db).items()}
        since = remote_rows.oldest_at_provider(db)
    folders = {
        folder: replace(
            _folder_stats(db, folder, plan, held, now, counts), at_provider_since=since.get(folder)
        )
        for folder in plan.chains
    }
    removed = {folder: n for folder, n in read_live_counts(db).items() if folder not in plan.chains}
    if is_shared(db):
        return Stats(folders, holds, _read_in_flight(db), found, read_nodes(db), pauses, removed)
    return Stats(folders, holds, in_flight or {}, found, None, pauses, removed)


def read_live_counts(db: Connection) -> dict[str, int]:
    """Live jobs by folder, of all rules that ever were."""
    found = db.execute(
        f"SELECT folder, sum(n) FROM counts WHERE {rows.LIVE} GROUP BY folder HAVING sum(n) > 0"
    )
    return {folder: int(n) for folder, n in found}


def read_current_pauses(db: Connection, now: float) -> dict[str, Pause]:
    """Pauses that last, by provider; none where no daemon of this version has been started."""
    pauses = hold_rows.read_pauses(db) if is_migrated(db) else {}
    return {name: pause for name, pause in pauses.items() if pause.until > now}


def _read_in_flight(db: Connection) -> dict[str, int]:
    return dict(
        db.execute(
            "SELECT provider, count(*) FROM jobs WHERE state = 'transcribing' AND remote_id = ''"
            " GROUP BY provider"
        ).fetchall()
    )


def has_live_job(db: Connection, folder: str, path: bytes) -> bool:
    """Whether the file at *path*, relative to the folder's inbox, is in the queue."""
    row = db.execute(
        f"SELECT 1 FROM jobs WHERE folder = ? AND directory = ? AND name = ? AND {rows.LIVE}",
        (folder, *rows.split_path(path)),
    ).fetchone()
    return row is not None


def _folder_stats(
    db: Connection,
    folder: str,
    plan: Plan,
    held: set[Scope],
    now: float,
    counts: Mapping[tuple[str, str], int],
) -> FolderStats:
    waiting = _waiting(db, folder, plan, held, now, counts.get((folder, "queued"), 0))
    at_provider = counts.get((folder, AT_PROVIDER), 0)
    publishing = counts.get((folder, "transcribed"), 0) + counts.get((folder, "rejected"), 0)
    stuck, stuck_reason = _stuck(db, folder, now) if waiting["deferred"] or publishing else (0, "")
    return FolderStats(
        queued=waiting["queued"],
        deferred=waiting["deferred"],
        held=waiting["held"],
        backlog=waiting["backlog"],
        transcribing=counts.get((folder, "transcribing"), 0) - at_provider,
        at_provider=at_provider,
        publishing=publishing,
        done=counts.get((folder, "done"), 0),
        failed=counts.get((folder, "failed"), 0),
        oldest_received_at=_oldest_received_at(db, folder),
        maybe_paid_twice=counts.get((folder, rows.MAYBE_PAID_TWICE), 0),
        suspect=counts.get((folder, rows.SUSPECT), 0),
        stuck=stuck,
        stuck_reason=stuck_reason,
    )


def _stuck(db: Connection, folder: str, now: float) -> tuple[int, str]:
    """(the number of files that cannot be moved, the reason of one of them)."""
    # A result that is published for the first time has due_at 0, and maybe the code of an earlier wait.
    found = db.execute(
        "SELECT count(*), max(reason) FROM jobs WHERE folder = ? AND code = ? AND state = 'queued'"
        " AND due_at > ? UNION ALL SELECT count(*), max(reason) FROM jobs WHERE folder = ? AND code = ?"
        " AND state IN ('transcribed', 'rejected') AND due_at > 0",
        (folder, NOT_MOVABLE, now, folder, NOT_MOVABLE),
    ).fetchall()
    return sum(number for number, _ in found), next((reason for _, reason in found if reason), "")


def _waiting(
    db: Connection, folder: str, plan: Plan, held: set[Scope], now: float, queued: int
) -> dict[str, int]:
    """Queued rows by the reason for their wait: a slot, a time, or a hold.

    Args:
        queued: All of the folder. Rows without an assigned provider are not counted one by one: of 100,000
            that would take longer than all the rest.
    """
    held_providers = {scope.name for scope in held if scope.kind is ScopeKind.PROVIDER}
    folder_held = Scope(ScopeKind.FOLDER, folder) in held
    chain, is_strict = plan.chains[folder], folder in plan.strict_order
    totals = {pin: _count(db, folder, pin) for pin in _assignments(db, folder)}
    totals[""] = max(0, queued - sum(totals.values()))
    waiting = {"queued": 0, "deferred": 0, "held": 0, "backlog": totals.get(BACKLOG, 0)}
    for pin, total in totals.items():
        if folder_held or provider_for(pin, chain, held_providers, is_strict=is_strict) is None:
            waiting["held"] += total
        else:
            deferred = min(total, _count(db, folder, pin, due_after=now))
            waiting["deferred"] += deferred
            waiting["queued"] += total - deferred
    return waiting


def _assignments(db: Connection, folder: str) -> Iterator[str]:
    """The values of ``pin`` but the empty one among the folder's queued rows, one index search each."""
    pin = ""
    while True:
        (pin,) = db.execute(
            "SELECT min(pin) FROM jobs WHERE state = 'queued' AND folder = ? AND pin > ?", (folder, pin)
        ).fetchone()
        if pin is None:
            return
        yield pin


def _count(db: Connection, folder: str, pin: str, due_after: float = -1.0) -> int:
    query = "SELECT count(*) FROM jobs WHERE state = 'queued' AND folder = ? AND pin = ? AND due_at > ?"
    return int(db.execute(query, (folder, pin, due_after)).fetchone()[0])


def _oldest_received_at(db: Connection, folder: str) -> float | None:
    """Rows are made in the order of arrival, so the least live id is the oldest; one index search a state."""
    states = sorted(LIVE_STATES)
    search = "SELECT min(id) AS id FROM jobs WHERE folder = ? AND state = ?"
    least = " UNION ALL ".join([search] * len(states))
    values = [value for state in states for value in (folder, state)]
    row = db.execute(
        f"SELECT received_at FROM jobs WHERE id = (SELECT min(id) FROM ({least}) AS oldest)", values
    ).fetchone()
    return row[0] if row else None
