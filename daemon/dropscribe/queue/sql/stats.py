"""Counts of the queue, for ``status`` and the page."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dropscribe.core.budget import stops_of
from dropscribe.core.model import LIVE_STATES, JobState, Scope, ScopeKind
from dropscribe.core.routing import BACKLOG, provider_for
from dropscribe.queue.model import NOT_MOVABLE, FolderStats, NodeStats, Pause, Plan, Stats
from dropscribe.queue.sql import hold_rows, rows
from dropscribe.queue.sql.budget_usage import read_accounts
from dropscribe.queue.sql.database import Connection, is_shared, marks

QUARTER_SECONDS = 900
_LONGEST_SECONDS = 14 * 86_400.0  # a longer recording's length is not believed


def read_stats(db: Connection, plan: Plan, now: float, in_flight: Mapping[str, int] | None = None) -> Stats:
    """Counts of every folder in *plan*, and the holds; of a cluster its nodes too.

    *in_flight* are attempts under way by provider, as the embedded engine knows them; a cluster's are rows.
    """
    accounts = read_accounts(db, plan.budgets, plan.zone, now)
    holds = [*stops_of(accounts), *hold_rows.read_holds(db)]
    held, nodes = {hold.scope for hold in holds}, None
    if is_shared(db):
        nodes = read_nodes(db)
        under_way = f"SELECT provider, count(*) FROM jobs WHERE {rows.TRANSCRIBING} GROUP BY provider"
        in_flight = dict(db.execute(under_way).fetchall())
    return Stats(
        folders={folder: _read_folder(db, folder, plan, held, now) for folder in plan.chains},
        holds=holds,
        in_flight=in_flight or {},
        accounts=accounts,
        nodes=nodes,
        pauses=read_current_pauses(db, now),
        removed={folder: n for folder, n in read_live_counts(db).items() if folder not in plan.chains},
    )


def read_nodes(db: Connection) -> list[NodeStats]:
    """Every node, by name."""
    columns = "name, host, role, version, started_at, beat_at, in_flight"
    return [NodeStats(*row) for row in db.execute(f"SELECT {columns} FROM nodes ORDER BY name")]


def read_live_counts(db: Connection) -> dict[str, int]:
    """Live jobs by folder, of all rules that ever were."""
    live = f"SELECT folder, sum(n) FROM counts WHERE {rows.LIVE_STATE} GROUP BY folder HAVING sum(n) > 0"
    return {folder: int(n) for folder, n in db.execute(live)}


def read_current_pauses(db: Connection, now: float) -> dict[str, Pause]:
    """Pauses that last, by provider."""
    pauses = hold_rows.read_pauses(db)
    return {name: pause for name, pause in pauses.items() if pause.until > now}


def has_live_job(db: Connection, folder: str, path: bytes) -> bool:
    """Whether the file at *path*, relative to the folder's inbox, is in the queue."""
    there = f"SELECT 1 FROM jobs WHERE folder = ? AND directory = ? AND name = ? AND {rows.LIVE}"
    return db.execute(there, (folder, *rows.split_path(path))).fetchone() is not None


def _read_folder(db: Connection, folder: str, plan: Plan, held: set[Scope], now: float) -> FolderStats:
    counts = dict(db.execute("SELECT state, n FROM counts WHERE folder = ?", (folder,)).fetchall())
    at_provider, at_provider_since = db.execute(
        f"SELECT count(*), min(remote_at) FROM jobs WHERE {rows.AT_PROVIDER} AND folder = ?", (folder,)
    ).fetchone()
    assigned = _read_assigned(db, folder, counts.get("queued", 0), now)
    waiting = _waiting(folder, assigned, plan, held)
    publishing = counts.get("transcribed", 0) + counts.get("rejected", 0)
    stuck, stuck_reason = _read_stuck(db, folder, now) if waiting["deferred"] or publishing else (0, "")
    return FolderStats(
        **waiting,
        transcribing=counts.get("transcribing", 0) - at_provider,
        at_provider=at_provider,
        at_provider_since=at_provider_since,
        publishing=publishing,
        done=counts.get("done", 0),
        failed=counts.get("failed", 0),
        oldest_received_at=_oldest_received_at(db, folder),
        maybe_paid_twice=counts.get(rows.MAYBE_PAID_TWICE, 0),
        suspect=counts.get(rows.SUSPECT, 0),
        stuck=stuck,
        stuck_reason=stuck_reason,
    )


def _waiting(
    folder: str, assigned: Sequence[tuple[str, int, int]], plan: Plan, held: set[Scope]
) -> dict[str, int]:
    """Queued rows by the reason for their wait: a slot, a time, a hold, or the backlog's release."""
    held_providers = {scope.name for scope in held if scope.kind is ScopeKind.PROVIDER}
    folder_held = Scope(ScopeKind.FOLDER, folder) in held
    chain, is_strict = plan.chains[folder], folder in plan.strict_order
    waiting = {"queued": 0, "deferred": 0, "held": 0, "backlog": 0}
    for pin, total, deferred in assigned:
        if folder_held or provider_for(pin, chain, held_providers, is_strict=is_strict) is None:
            waiting["held"] += total
        else:
            waiting["deferred"] += deferred
            waiting["queued"] += total - deferred
        if pin == BACKLOG:
            waiting["backlog"] = total
    return waiting


def _read_assigned(db: Connection, folder: str, queued: int, now: float) -> list[tuple[str, int, int]]:
    """(assigned provider or "", queued rows, of these the ones that are not due yet), of *queued* in all.

    Rows without an assigned provider are not counted one by one: of 100,000 that would take longer than all
    the rest.
    """
    of_folder = f"FROM jobs WHERE {rows.QUEUED} AND folder = ?"
    by_pin = f"SELECT pin, count(*), count(*) FILTER (WHERE due_at > ?) {of_folder} AND pin > '' GROUP BY pin"
    assigned = db.execute(by_pin, (now, folder)).fetchall()
    unassigned = f"SELECT count(*) {of_folder} AND pin = '' AND due_at > ?"
    (deferred,) = db.execute(unassigned, (folder, now)).fetchone()
    total = max(0, queued - sum(total for _, total, _ in assigned))
    return [("", total, min(total, deferred)), *assigned]


def _read_stuck(db: Connection, folder: str, now: float) -> tuple[int, str]:
    """(the number of files that cannot be moved, the reason of one of them)."""
    # A result that is published for the first time has due_at 0, and maybe the code of an earlier wait.
    found = db.execute(
        f"SELECT count(*), max(reason) FROM jobs WHERE folder = ? AND code = ? AND {rows.QUEUED}"
        " AND due_at > ? UNION ALL SELECT count(*), max(reason) FROM jobs WHERE folder = ? AND code = ?"
        f" AND {rows.HAS_RESULT} AND due_at > 0",
        (folder, NOT_MOVABLE, now, folder, NOT_MOVABLE),
    ).fetchall()
    return sum(number for number, _ in found), next((reason for _, reason in found if reason), "")


_FIRST = (
    "SELECT id FROM (SELECT folder, state, id FROM jobs WHERE (folder, state, id) > (?, ?, 0)"
    " ORDER BY folder, state, id LIMIT 1) AS next WHERE folder = ? AND state = ?"
)
"""The first job of a folder and a state. Only one index has this order, so every plan uses it;
for ``min(id)`` a prepared statement of PostgreSQL read all rows of other folders and states."""


def _oldest_received_at(db: Connection, folder: str) -> float | None:
    """Rows are made in the order of arrival, so the least live id is the oldest; one index search a state."""
    firsts = " UNION ALL ".join([_FIRST] * len(LIVE_STATES))
    values = [value for state in LIVE_STATES for value in (folder, state, folder, state)]
    oldest = f"SELECT received_at FROM jobs WHERE id = (SELECT min(id) FROM ({firsts}) AS firsts)"
    row = db.execute(oldest, values).fetchone()
    return row[0] if row else None


def count_ended(db: Connection, folder: str, state: JobState, audio_seconds: float, at: float) -> None:
    """Count a file that has ended *at* (Unix seconds), for :func:`read_ended`."""
    seconds = audio_seconds if 0 <= audio_seconds <= _LONGEST_SECONDS else 0.0
    db.execute(
        "INSERT INTO ended VALUES (?, ?, ?, 1, ?) ON CONFLICT (quarter, folder, state) DO UPDATE SET"
        " files = ended.files + 1, seconds = ended.seconds + excluded.seconds",
        (int(at) // QUARTER_SECONDS, folder, state.value, seconds),
    )


def rename_folder(db: Connection, old: str, new: str) -> None:
    """Add the counts of a rule to those of its new name."""
    for table, columns, sums in (
        ("counts", "state", ("n",)),
        ("ended", "quarter, state", ("files", "seconds")),
    ):
        added = ", ".join(f"{each} = {table}.{each} + excluded.{each}" for each in sums)
        columns_moved = f"{columns}, {', '.join(sums)}"
        db.execute(
            f"INSERT INTO {table} (folder, {columns_moved}) SELECT ?, {columns_moved} FROM {table}"
            f" WHERE folder = ? ON CONFLICT (folder, {columns}) DO UPDATE SET {added}",
            (new, old),
        )
        db.execute(f"DELETE FROM {table} WHERE folder = ?", (old,))


def recount_live(db: Connection, folders: Iterable[str]) -> None:
    """Count the live jobs of *folders* again."""
    for folder in folders:
        db.execute(f"DELETE FROM counts WHERE folder = ? AND {rows.LIVE_STATE}", (folder,))
        db.execute(
            "INSERT INTO counts (folder, state, n) SELECT folder, state, count(*) FROM jobs"
            f" WHERE folder = ? AND {rows.LIVE} GROUP BY folder, state",
            (folder,),
        )


@dataclass(slots=True)
class Ended:
    """Files and audio that ended in a stretch of time."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0  # Length of the recordings that are done, as far as it is known


def read_ended(db: Connection, folder_names: Sequence[str], starts: Sequence[float]) -> list[Ended]:
    """Files and audio that ended in the named folders from each of *starts* (Unix seconds, ascending) on.

    A stretch begins at a full quarter of an hour: all time zones' days do.
    """
    found = [Ended() for _ in starts]
    for quarter, state, files, seconds in db.execute(
        "SELECT quarter, state, sum(files), sum(seconds) FROM ended WHERE quarter >= ?"
        f" AND folder IN ({marks(folder_names)}) GROUP BY quarter, state",
        (int(starts[0]) // QUARTER_SECONDS, *folder_names),
    ):
        stretch = found[max(0, bisect.bisect_right(starts, quarter * QUARTER_SECONDS) - 1)]
        if state == JobState.DONE:
            stretch.done += int(files)
            stretch.seconds += seconds
        else:
            stretch.failed += int(files)
    return found
