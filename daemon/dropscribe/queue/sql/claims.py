"""Claims: the jobs that may start now, the transition that begins an attempt, and deletions at providers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dropscribe.core.model import Job
from dropscribe.core.routing import Route
from dropscribe.queue.sql import rows
from dropscribe.queue.sql.database import Connection, is_shared, marks
from dropscribe.queue.sql.result_rows import jobs_with_result
from dropscribe.queue.sql.rows import AT_PROVIDER, HAS_RESULT, QUEUED, earliest_due

SUSPECT_CRASHES = 3
"""A job that was interrupted this often in a row by the end of the daemon runs only while no other such job
runs: a file that crashes the daemon is found, and other files complete."""

POLL_PATIENCE_SECONDS = 600.0
"""``run --once`` waits so long for a provider's job whose polls fail."""

LARGE_BYTES = 256 * 1024 * 1024  # an upload of this size may hold a slot for hours

_OLDEST = (
    f"SELECT due_at, id FROM (SELECT due_at, id FROM jobs WHERE {QUEUED} AND folder = ? AND pin = ?"
    " AND crashes <= ? AND size_bytes <= ? AND due_at <= ? ORDER BY due_at, id LIMIT ?) AS queue"
)
_MOST = (1 << 63) - 1  # that a column holds: other programs may have written the row
_COUNTED = "{0} = ({0} & 1073741823) + 1"  # begins anew at 2^30


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The jobs that one provider can start now."""

    provider: str
    routes: tuple[Route, ...]
    limit: int  # Jobs at most
    is_probe: bool = False  # Take an untried job, else the oldest even if it is not due yet: it probes a hold
    # Folder → its uploads to this provider that are under way; folders with fewer go first.
    in_flight: Mapping[str, int] = field(default_factory=dict)
    # Folder → when it had its last slot, as a growing number; of equals the least goes first.
    turns: Mapping[str, int] = field(default_factory=dict)
    # Further uploads of ``LARGE_BYTES`` and more that may start: they never have all slots.
    most_large: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """The most jobs that one claim may take."""

    suspects: int  # Jobs in flight that may have crashed the daemon
    polls: int  # Jobs at providers at most
    publications: int  # Jobs with a stored result at most; 0 does not look for any
    rooms: Mapping[str, int]  # Folder → the most of these; none of other folders
    folders: Collection[str]  # The plan's: jobs of rules that have left it take no places of others
    in_flight: Collection[int]  # Ids of jobs that are not polled or published again


def claim(
    db: Connection, requests: Sequence[ClaimRequest], limits: Limits, now: float
) -> tuple[list[Job], list[Job], float | None]:
    """Attempts that were begun, jobs to poll or to publish, and when the next of any kind is due."""
    suspects = limits.suspects
    claimed: list[Job] = []
    times: list[float | None] = []
    for request in requests:
        taken = claim_for_provider(db, request, now, has_suspect=suspects > 0)
        suspects += sum(job.crashes >= SUSPECT_CRASHES for job in taken)
        claimed += taken
        if len(taken) < request.limit:
            times.append(next_due_at(db, request.provider, request.routes))
    due = read_due(db, limits, now)
    if limits.polls:
        times.append(earliest_due(db, f"{AT_PROVIDER} AND due_at > ?", (now,)))
    if limits.publications:
        times.append(earliest_due(db, f"{HAS_RESULT} AND due_at > ?", (now,)))
    # A job that is due already waits for something else, which will wake the loop.
    return claimed, due, min((at for at in times if at is not None and at > now), default=None)


def is_poll_expected(
    db: Connection, folders: Collection[str], held: Collection[str], now: float, latest: float
) -> bool:
    """Whether a job of *folders* at its provider is polled now, or with some prospect by *latest*.

    Not one whose last poll failed, where the provider is held, or ``POLL_PATIENCE_SECONDS`` or more after its
    upload.
    """
    found = db.execute(
        f"SELECT folder, provider, due_at <= ? OR code = '' FROM jobs WHERE {AT_PROVIDER}"
        " AND (due_at <= ? OR code = '' OR (due_at <= ? AND remote_at > ?))",
        (now, now, latest, now - POLL_PATIENCE_SECONDS),
    )
    return any(
        folder in folders and (is_certain or provider not in held) for folder, provider, is_certain in found
    )


def read_due(db: Connection, limits: Limits, now: float) -> list[Job]:
    """Jobs to poll or to publish that are due, and that no node of a cluster has taken."""
    due: list[Job] = []
    if limits.polls and limits.folders:
        which, values = _due_in(db, limits.folders, limits.in_flight, now, limits.polls)
        due = rows.read_jobs(db, f"{AT_PROVIDER} AND {which}", values)
    if limits.publications:
        due += _due_results(db, limits, now)
    return due


def _due_results(db: Connection, limits: Limits, now: float) -> list[Job]:
    """Jobs whose stored results are due: of each folder as many as it has room for."""
    left, chosen = Counter(limits.rooms), list[int]()
    which, values = _due_in(db, limits.rooms, limits.in_flight, now, _MOST)
    for job_id, folder in db.execute(f"SELECT id, folder FROM jobs WHERE {HAS_RESULT} AND {which}", values):
        if left[folder]:
            left[folder] -= 1
            chosen.append(job_id)
            if len(chosen) == limits.publications or not any(left.values()):
                break
    if not chosen:
        return []
    return jobs_with_result(db, f"jobs.id IN ({marks(chosen)}) ORDER BY due_at, jobs.id", chosen)


def _due_in(
    db: Connection, folders: Collection[str], in_flight: Collection[int], now: float, limit: int
) -> tuple[str, tuple[object, ...]]:
    """The first jobs of *folders* that are due, by the index of their state: plus hides SQLite's others."""
    free = "ticket IS NULL AND jobs.id" if is_shared(db) else "jobs.id"
    which = f"+jobs.folder IN ({marks(folders)}) AND {free} NOT IN ({marks(in_flight)}) AND due_at <= ?"
    return f"{which} ORDER BY due_at, jobs.id LIMIT ?", (*folders, *in_flight, now, limit)


def claim_for_provider(db: Connection, request: ClaimRequest, now: float, *, has_suspect: bool) -> list[Job]:
    """Claim due jobs for a provider; the attempt is counted here.

    Slots go round the folders: each goes to the one with the fewest uploads under way, of equals to the one
    that has waited longest for a slot, and there to the job that is due longest. With *has_suspect* a job
    that may have crashed the daemon is in flight; other such jobs wait.
    """
    claimed: list[Job] = []
    in_flight, most_large = Counter(request.in_flight), request.most_large
    if request.is_probe and (untried := _newest_untried(db, queues_of(request.provider, request.routes))):
        return [begin_attempt(db, untried, request.provider, now)]
    waiting: dict[str, list[tuple[float, int]]] | None = None
    while (free := request.limit - len(claimed)) > 0:
        if waiting is None:  # at first, and where a claimed job excludes others
            request = replace(request, most_large=most_large)
            waiting = read_waiting(db, request, now, free, has_suspect=has_suspect)
        heads = ((folder, jobs[0]) for folder, jobs in waiting.items() if jobs)
        due = [(in_flight[folder], request.turns.get(folder, 0), *head) for folder, head in heads]
        if not due:
            break
        job = begin_attempt(db, min(due)[-1], request.provider, now)
        claimed.append(job)
        del waiting[job.folder][0]
        in_flight[job.folder] += 1
        is_large, is_suspect = job.snapshot.size_bytes >= LARGE_BYTES, job.crashes >= SUSPECT_CRASHES
        most_large -= is_large
        has_suspect = has_suspect or is_suspect
        if is_large or is_suspect:
            waiting = None
    return claimed


def read_waiting(
    db: Connection, request: ClaimRequest, now: float, limit: int, *, has_suspect: bool
) -> dict[str, list[tuple[float, int]]]:
    """Folder → (due_at, id) of its jobs that *request* may take now: the *limit* that are due longest."""
    bounds = (
        SUSPECT_CRASHES - 1 if has_suspect else _MOST,
        _MOST if request.most_large > 0 else LARGE_BYTES - 1,
        float("inf") if request.is_probe else now,
    )
    queues = {route.folder: queues_of(request.provider, (route,)) for route in request.routes}
    return {folder: _oldest(db, of_folder, bounds, limit) for folder, of_folder in queues.items()}


def has_waiting(db: Connection, probe: ClaimRequest) -> bool:
    """Whether *probe* finds a job."""
    return any(read_waiting(db, probe, 0.0, 1, has_suspect=False).values())


def _oldest(
    db: Connection, queues: Sequence[tuple[str, str]], bounds: tuple[float, ...], limit: int
) -> list[tuple[float, int]]:
    """(due_at, id) of the *limit* jobs of *queues* that are due longest: one index look-up for each queue."""
    return db.execute(
        " UNION ALL ".join([_OLDEST] * len(queues)) + " ORDER BY due_at, id LIMIT ?",
        [*(value for queue in queues for value in (*queue, *bounds, limit)), limit],
    ).fetchall()


def queues_of(provider: str, routes: Sequence[Route]) -> list[tuple[str, str]]:
    """(folder, assigned provider or "") of the jobs that *provider* may take by *routes*."""
    return [
        (route.folder, assigned)
        for route in routes
        for assigned in (("", provider) if route.serves_unassigned else (provider,))
    ]


def _newest_untried(db: Connection, queues: Iterable[tuple[str, str]]) -> int | None:
    """The newest waiting job that was never tried: the best probe of a hold.

    A file that was refused itself would only be refused again, and the files that arrived with it are the
    likeliest to share its fault.
    """
    found: list[tuple[float, int]] = []
    for queue in queues:
        found += db.execute(
            f"SELECT due_at, id FROM jobs WHERE {QUEUED} AND folder = ? AND pin = ? AND code = ''"
            " AND crashes = 0 ORDER BY due_at DESC, id DESC LIMIT 1",
            queue,
        ).fetchall()
    return max(found)[1] if found else None


def next_due_at(db: Connection, provider: str, routes: Sequence[Route]) -> float | None:
    """Time at which the next job for *provider* is due, or None."""
    which = f"{QUEUED} AND folder = ? AND pin = ?"
    due = [earliest_due(db, which, queue) for queue in queues_of(provider, routes)]
    return min((at for at in due if at is not None), default=None)


def begin_attempt(db: Connection, job_id: int, provider: str, now: float) -> Job:
    """Move queued → transcribing; the attempt is counted here."""
    row = db.execute(
        f"{rows.UPDATE_STATE} 'transcribing', {_COUNTED.format('attempts')}, {_COUNTED.format('fence')},"
        f" provider = ? WHERE id = ? RETURNING {rows.JOB_COLUMNS},"
        " EXISTS (SELECT 1 FROM ledger WHERE ledger.size_bytes = jobs.size_bytes)",
        (provider, job_id),
    ).fetchone()
    db.execute("INSERT INTO attempts (job_id, at, provider) VALUES (?, ?, ?)", (job_id, now, provider))
    return rows.job_of(row, may_be_cached=bool(row[-1]))


DELETION_LEASE_SECONDS = 600.0  # Lease of a deletion that was taken: it is not tried again for this long


class RemoteDeletion(NamedTuple):
    """A job to delete at its provider; a trigger adds it when the job leaves the provider."""

    id: int
    provider: str
    remote_id: str  # The provider's id of the job
    tries: int  # Begun so far, this one included


def claim_deletion(db: Connection, providers: Collection[str], now: float) -> RemoteDeletion | None:
    """Begin a try at the deletion that is due longest, if any is.

    A repetition at none of *providers* is left to the other nodes of a cluster for a while.
    """
    own = ("", *providers)
    due = f"due_at <= ? AND (due_at <= ? OR provider IN ({marks(own)}))"
    row = db.execute(
        "UPDATE remote_deletions SET due_at = ?, tries = tries + 1 WHERE id ="
        f" (SELECT id FROM remote_deletions WHERE {due} ORDER BY due_at, id LIMIT 1)"
        " RETURNING id, provider, remote_id, tries",
        (now + DELETION_LEASE_SECONDS, now, now - DELETION_LEASE_SECONDS, *own),
    ).fetchone()
    return RemoteDeletion(*row) if row else None


def end_deletion(db: Connection, deletion: RemoteDeletion, retry_at: float | None) -> None:
    """Remove a deletion that is done or given up; with *retry_at* it is tried again then."""
    if retry_at is None:
        db.execute("DELETE FROM remote_deletions WHERE id = ?", (deletion.id,))
    else:
        db.execute("UPDATE remote_deletions SET due_at = ? WHERE id = ?", (retry_at, deletion.id))
