"""SQL for the inboxes: files that arrive, move, return or disappear."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from dropscribe.core.model import JobState, LiveRow, NewJob, Submitted
from dropscribe.core.routing import BACKLOG
from dropscribe.queue.sql import backlog, budget_usage, rows, stats
from dropscribe.queue.sql.database import Connection, is_shared, upsert
from dropscribe.queue.sql.rows import LIVE, TAKEN_BACK, join_path, split_path, withdraw_queued

YOUNG_SECONDS = 90.0
"""In a cluster, a row this young is not withdrawn: a share may not show its file to every node yet."""

MISSED_SECONDS = 10.0
"""The same for one whose file an attempt has looked for in vain: another node filed it just before."""

_INBOX = "inbox:"  # In ``facts``, before a rule's name: its inbox

_NEWEST_OF_PLACE = 10  # jobs of one place that are looked at: all of a recorder may have the same
_ROWS_AT_ONCE = 64
_COLUMNS = (
    "folder, directory, name, identity, stable_inodes, device, inode, size_bytes, mtime_ns, incomplete,"
    " state, pin, received_at, due_at"
)


def submit(db: Connection, jobs: Sequence[NewJob]) -> list[Submitted]:
    """Insert jobs, each unless one with its identity lives; in the order of *jobs*."""
    marks = {folder: backlog.mark_of(db, folder) for folder in {job.folder for job in jobs}}
    # Due in the order of their rows: jobs that are in flight together are then beside each other on disk.
    due_at = max((job.received_at for job in jobs), default=0.0)
    return [
        submitted
        for first in range(0, len(jobs), _ROWS_AT_ONCE)
        for submitted in _submit_some(db, jobs[first : first + _ROWS_AT_ONCE], marks, due_at)
    ]


def _submit_some(
    db: Connection, jobs: Sequence[NewJob], marks: Mapping[str, str | None], due_at: float
) -> Iterator[Submitted]:
    """Insert jobs with two statements; new files need no others.

    One for each file would hold a cluster's one writer for half a second with 500 files.
    """
    keys = [(job.folder, job.identity) for job in jobs]
    inserted = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?)"] * len(jobs))
    made = db.execute(
        f"INSERT INTO jobs ({_COLUMNS}) VALUES {inserted} ON CONFLICT DO NOTHING"
        " RETURNING folder, identity, id",
        [
            value
            for job, (folder, identity) in zip(jobs, keys, strict=True)
            for value in _values(job, identity, marks[folder], due_at)
        ],
    )
    ids = {(folder, identity): job_id for folder, identity, job_id in made}
    earlier = _earlier_at_places(db, jobs, min(ids.values())) if ids else {}
    for job, key in zip(jobs, keys, strict=True):
        job_id = ids.pop(key, None)
        if job_id is None:
            same = f"SELECT directory, name FROM jobs WHERE folder = ? AND identity = ? AND {LIVE}"
            live = db.execute(same, key).fetchone()
            yield Submitted(is_new=False, live_path=join_path(*live) if live else None)
        else:
            yield _beside_others(db, job, job_id, earlier.get((job.folder, job.path), ()))


def _values(new: NewJob, identity: bytes, mark: str | None, due_at: float) -> tuple[object, ...]:
    seen = new.snapshot
    pin = BACKLOG if backlog.is_before(mark, seen.ctime_ns / 1e9) else ""
    return (
        *(new.folder, *split_path(new.path), identity, new.stable_inodes),
        *(seen.device, rows.inode_to_row(seen.inode), seen.size_bytes, seen.mtime_ns, new.incomplete),
        *(pin, new.received_at, due_at),
    )


def _earlier_at_places(
    db: Connection, jobs: Sequence[NewJob], first_id: int
) -> dict[tuple[str, bytes], list[tuple[int, str, int]]]:
    """(folder, path) of *jobs* → (id, state, size_bytes) of the live jobs there with ids below *first_id*."""
    places = ", ".join(["(?, ?, ?)"] * len(jobs))
    found = db.execute(
        f"WITH place (folder, directory, name) AS (VALUES {places})"
        " SELECT jobs.folder, jobs.directory, jobs.name, id, state, size_bytes FROM place CROSS JOIN jobs"
        " WHERE jobs.folder = place.folder AND jobs.directory = place.directory AND jobs.name = place.name"
        f" AND id < ? AND {LIVE}",
        [*(value for job in jobs for value in (job.folder, *split_path(job.path))), first_id],
    )
    earlier: dict[tuple[str, bytes], list[tuple[int, str, int]]] = {}
    for folder, directory, name, *standing in found.fetchall():
        earlier.setdefault((folder, join_path(directory, name)), []).append(tuple(standing))
    return earlier


def _beside_others(
    db: Connection, new: NewJob, job_id: int, earlier: Sequence[tuple[int, str, int]]
) -> Submitted:
    """Resolve the conflict of the new job with the *earlier* ones at its path."""
    for old_id, state, size_bytes in earlier:
        if state == JobState.QUEUED:  # it has lost its audio
            withdraw_queued(db, "another file took its place", "id = ?", (old_id,))
        elif size_bytes == new.snapshot.size_bytes:
            # It may be of the same recording, with other times or under another inode: it compares the
            # content, and no second job begins before it has ended.
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            db.execute("UPDATE counts SET n = n - 1 WHERE folder = ? AND state = 'queued'", (new.folder,))
            return Submitted(is_new=False, is_in_flight=True)
    return Submitted(is_new=True)


def has_failed(db: Connection) -> bool:
    """Whether any job of any folder has failed and was not taken back."""
    return db.execute("SELECT 1 FROM counts WHERE state = 'failed' AND n > 0 LIMIT 1").fetchone() is not None


def read_failed_of(db: Connection, new: NewJob) -> list[tuple[str, bytes]]:
    """Failed jobs that may be of the same audio: (folder, absolute path in ``failed``).

    Those of any folder with its size and mtime, which every kind of move keeps, and those of the newest jobs
    of its place with its size: a plain copy has another mtime. A recorder may use one name, and one size, for
    all of its files. The caller checks that the audio is really gone from ``failed``.
    """
    size_bytes, failed = new.snapshot.size_bytes, "state = 'failed' AND filed IS NOT NULL"
    return db.execute(
        f"SELECT folder, filed FROM jobs WHERE {failed} AND size_bytes = ? AND mtime_ns = ?"
        " AND folder IN (SELECT folder FROM counts WHERE state = 'failed')"
        " UNION SELECT folder, filed FROM (SELECT * FROM jobs WHERE folder = ? AND directory = ? AND name = ?"
        f" ORDER BY id DESC LIMIT {_NEWEST_OF_PLACE}) AS newest WHERE {failed} AND size_bytes = ?",
        (size_bytes, new.snapshot.mtime_ns, new.folder, *split_path(new.path), size_bytes),
    ).fetchall()


def forget_failed(db: Connection, filed: bytes) -> None:
    """Mark the failed job of the audio at *filed*, absolute, as withdrawn: its file is back in the inbox."""
    withdrawn = "UPDATE jobs SET state = 'withdrawn', reason = ? WHERE filed = ? AND state = 'failed'"
    db.execute(withdrawn, (TAKEN_BACK, filed))


def withdraw(
    db: Connection, folder: str, places: Sequence[tuple[bytes, bytes]], reason: str
) -> list[tuple[bytes, bytes]]:
    """End queued jobs whose files are gone, in a cluster unless they are young; returns the places of these.

    A job in flight is left to its attempt, and one with a stored result to its publication: its file may have
    been moved to its place already.
    """
    which = "folder = ? AND directory = ? AND name = ?"
    ages: tuple[float, ...] = ()
    if is_shared(db):
        age = "extract(epoch FROM clock_timestamp()) - received_at"
        which += f" AND {age} > CASE WHEN code = 'missing' THEN ? ELSE ? END"
        ages = (min(MISSED_SECONDS, YOUNG_SECONDS), YOUNG_SECONDS)
    gone = (withdraw_queued(db, reason, which, (folder, *place, *ages)) for place in places)
    return [place for ended in gone for place in ended]


def relocate(db: Connection, new: NewJob, old_path: bytes) -> None:
    """Store the new path of a live job; a stored result gets its names anew.

    The job is found by the file's identity: at its old path another file may stand already. Only where
    inodes say nothing is it found by that path.
    """
    live = f"SELECT id FROM jobs WHERE folder = ? AND {LIVE}"  # constant
    # Two searches, for with OR between them SQLite reads every live row of the folder.
    db.execute(
        f"UPDATE jobs SET directory = ?, name = ? WHERE id IN ({live} AND identity = ?"
        f" UNION ALL {live} AND directory = ? AND name = ? AND stable_inodes = ?)",
        (*split_path(new.path), new.folder, new.identity, new.folder, *split_path(old_path), False),
    )


def read_live(db: Connection, folder: str, directory: bytes) -> Iterator[LiveRow]:
    """One directory's live jobs, one by one: there may be a hundred thousand."""
    found = db.execute(
        "SELECT name, inode, device, stable_inodes FROM jobs"
        f" WHERE folder = ? AND directory = ? AND {LIVE} ORDER BY name",
        (folder, directory),
    )
    for name, inode, device, stable_inodes in found:
        yield LiveRow(name, rows.inode_of_row(inode), device, bool(stable_inodes))


def read_directories(db: Connection, folder: str) -> list[bytes]:
    """Directories that live jobs stand in."""
    found = db.execute(f"SELECT DISTINCT directory FROM jobs WHERE folder = ? AND {LIVE}", (folder,))
    return [directory for (directory,) in found]


def set_device(db: Connection, folder: str, directory: bytes, device: int) -> None:
    """Update the device of the directory's live files: it was mounted anew."""
    live = f"folder = ? AND directory = ? AND {LIVE}"
    db.execute(f"UPDATE jobs SET device = ? WHERE {live}", (device, folder, directory))


def note_inboxes(db: Connection, inboxes: Mapping[str, str]) -> dict[str, str]:
    """Store the inbox of each rule; returns old → new name of the rules whose inboxes others have by now.

    A rule that has left, in whatever earlier config, has another name by now. One that is still there has
    another inbox: two rules have swapped theirs, for example.
    """
    # Text of any bytes; valid_text() would make two inboxes one.
    inboxes = {name: inbox.encode("utf-8", "backslashreplace").decode() for name, inbox in inboxes.items()}
    stored = read_inboxes(db)
    new = {inbox: name for name, inbox in inboxes.items() if stored.get(name) != inbox}
    for old in stored.keys() - inboxes.keys():
        if stored[old] in new:
            db.execute("DELETE FROM facts WHERE name = ?", (_INBOX + old,))
    for name, inbox in inboxes.items():
        upsert(db, "facts", "name", {"name": _INBOX + name, "value": inbox})
    return {old: new[inbox] for old, inbox in stored.items() if inbox in new}


def read_inboxes(db: Connection) -> dict[str, str]:
    """Rule → its inbox as :func:`note_inboxes` stored it, of all rules that ever were; not in a cluster."""
    found = db.execute("SELECT name, value FROM facts WHERE substr(name, 1, ?) = ?", (len(_INBOX), _INBOX))
    return {name.removeprefix(_INBOX): inbox for name, inbox in found.fetchall()}


def rename_folders(db: Connection, moved: Mapping[str, str], left: Collection[str]) -> None:
    """Give the live jobs of rules to those that have their inboxes now, old → new name.

    All else that belongs to the rules that have *left* goes too: ended jobs, backlog and totals. Of two live
    jobs of one file, one under each name, the one that has begun stays; else the new name's.
    """
    away = {old: f"{old}\n" for old in moved}  # no rule's name: rules may have swapped theirs
    rename = f"UPDATE jobs SET folder = ? WHERE folder = ? AND {LIVE}"
    for old, between in away.items():
        db.execute(rename, (between, old))
    for old, new in moved.items():
        twin = "folder = ? AND identity IN (SELECT identity FROM jobs WHERE folder = ? AND {})"
        begun = twin.format(f"{LIVE} AND state <> 'queued'")
        withdraw_queued(db, f"its upload began as {old}", begun, (new, away[old]))
        withdraw_queued(db, f"it belongs to the rule {new} now", twin.format(LIVE), (away[old], new))
        known = f"identity IN (SELECT identity FROM jobs WHERE folder = ? AND {LIVE})"
        db.execute(f"{rename} AND NOT {known}", (new, away[old], new))
        db.execute("UPDATE jobs SET folder = ? WHERE folder = ?", (old, away[old]))
        stats.rename_folder(db, away[old], old)  # of those that were withdrawn
        if old in left:
            db.execute("UPDATE jobs SET folder = ? WHERE folder = ? AND ended_at IS NOT NULL", (new, old))
            backlog.rename(db, old, new)
            budget_usage.rename_folder(db, old, new)
            stats.rename_folder(db, old, new)
    stats.recount_live(db, {*moved, *moved.values()})
