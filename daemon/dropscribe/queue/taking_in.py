"""Rows of another queue taken into this one (portable.py).

Guarantees: taking a record in again changes nothing, for each is known by the queue it comes from. A name
that another live job has reserved is left to it: publishing chooses anew where a name turns out to be taken.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from dropscribe.core.errors import StoreError
from dropscribe.core.model import FileSnapshot, Group, JobState, identity
from dropscribe.queue.cluster.nodes import is_shared
from dropscribe.queue.portable import ATTEMPT_COLUMNS, JOB_COLUMNS, moved_name, token_of
from dropscribe.queue.sql import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dropscribe.queue.portable import Record
    from dropscribe.queue.sql.database import Connection, Database

BATCH_RECORDS = 32
_SPENT = ("money", "seconds", "unknown")
_KEPT = "state IN ('transcribed', 'rejected')"


@dataclass(slots=True)
class Taken:
    """What was new of the records that were taken in, by kind.

    Attributes:
        known: Records that changed nothing.
    """

    jobs: int = 0
    answers: int = 0
    spending: int = 0
    known: int = 0

    def add(self, other: Taken) -> None:
        """Count *other* too."""
        self.jobs += other.jobs
        self.answers += other.answers
        self.spending += other.spending
        self.known += other.known


def bring(
    target: Database, records: Iterable[Record], source: str, place_of: Callable[[str, bool], bytes | None]
) -> Taken:
    """Take *records* into *target*, a few a transaction, for a transaction holds up every writer; blocking.

    Args:
        source: The token of the queue that they come from.
        place_of: (folder, rejected) → where its files go in this config, absolute; None keeps the old place.

    Raises:
        StoreError: The target cannot take them; what went before has gone.
    """
    taken, rest = Taken(), iter(records)
    while batch := list(islice(rest, BATCH_RECORDS)):
        taken.add(target.call(partial(take_in, records=batch, source=source, place_of=place_of)).result())
    return taken


def take_in(
    db: Connection, records: Iterable[Record], source: str, place_of: Callable[[str, bool], bytes | None]
) -> Taken:
    """The same in the transaction that is open."""
    taken = Taken()
    for record in records:
        match record["kind"]:
            case "job":
                is_new = _take_job(db, record, source, place_of)
                taken.jobs += is_new
            case "mark":
                _write_fact(db, record["name"], record["value"], anew=False)
                continue
            case "spending":
                is_new = _take_spending(db, record, source)
                taken.spending += is_new
            case "answer":
                is_new = _take_answer(db, record)
                taken.answers += is_new
            case kind:
                raise ValueError(f"a record of the unknown kind {kind!r}")
        taken.known += not is_new
    return taken


def _take_job(
    db: Connection, record: Record, source: str, place_of: Callable[[str, bool], bytes | None]
) -> bool:
    mark = moved_name(source, "job", record["id"])
    if _read_fact(db, mark) is not None:
        return False
    job_id = _insert_job(db, record)
    if job_id is None:
        return False
    _write_fact(db, mark, str(job_id), anew=False)
    _insert_answer(db, job_id, record, place_of(record["folder"], record["state"] == JobState.REJECTED))
    columns = ATTEMPT_COLUMNS.split(", ")
    db.executemany(
        f"INSERT INTO attempts (job_id, {ATTEMPT_COLUMNS}) VALUES ({_marks(len(columns) + 1)})",  # constants
        [(job_id, *(tried[column] for column in columns)) for tried in record["tries"]],
    )
    return True


def _insert_job(db: Connection, record: Record) -> int | None:
    """A live row; the same file's job that waits here makes room, one that has begun stays."""
    if not record["stable_inodes"] or is_shared(db):
        # Other nodes see other inodes of the same file.
        record = {**record, "stable_inodes": False, "inode": 0}
    key = _identity_of(record)
    found = db.execute(
        f"SELECT id, state FROM jobs WHERE folder = ? AND directory = ? AND name = ? AND {rows.LIVE}",
        (record["folder"], record["directory"], record["name"]),
    ).fetchall()
    if any(state != JobState.QUEUED for _, state in found):
        return None
    for job_id, _ in found:
        waiting = rows.Standing(job_id, JobState.QUEUED)
        rows.end(db, waiting, JobState.WITHDRAWN, reason="its answer was brought from another queue")
    columns = JOB_COLUMNS.split(", ")
    row = db.execute(
        f"INSERT INTO jobs (identity, due_at, {JOB_COLUMNS}) VALUES ({_marks(len(columns) + 2)})"  # constants
        " ON CONFLICT DO NOTHING RETURNING id",
        (key, 0.0, *(record[column] for column in columns)),
    ).fetchone()
    return int(row[0]) if row else None


def _identity_of(record: Mapping[str, Any]) -> bytes:
    inode = rows.inode_of_row(record["inode"])
    snapshot = FileSnapshot(record["device"], inode, record["size_bytes"], record["mtime_ns"])
    path = rows.join_path(record["directory"], record["name"])
    return identity(path, snapshot, stable_inodes=record["stable_inodes"])


def _insert_answer(db: Connection, job_id: int, record: Record, root: bytes | None) -> None:
    kept = record["kept"]
    kept_root = kept["root"] if root is None else root
    if kept_root.startswith(b"//"):
        raise StoreError(
            os.fsdecode(kept_root[1:]), f"is no place here, and the config has no folder {record['folder']}"
        )
    db.execute(
        "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            *(job_id, kept["document"], kept["sha256"], kept_root),
            *(kept["directory"], kept["audio"], kept["sidecars"]),
        ),
    )
    group = Group(kept_root, kept["directory"], kept["audio"], rows.unpack_sidecars(kept["sidecars"]))
    for name in group.names:
        db.execute(
            "INSERT INTO reservations VALUES (?, ?) ON CONFLICT DO NOTHING", (group.path(name), job_id)
        )


def _take_spending(db: Connection, record: Record, source: str) -> bool:
    """Add what is not here yet: not what this queue has spent itself, and not what was taken in before."""
    key = (record["scope"], record["name"], record["day"])
    mark = moved_name(source, "spending", *key)
    ours = record["of_others"].get(token_of(db), [0.0] * len(_SPENT))
    total = [max(0, record[name] - own) for name, own in zip(_SPENT, ours, strict=True)]
    before = json.loads(_read_fact(db, mark) or "[0.0, 0.0, 0]")
    added = [max(0, now - then) for now, then in zip(total, before, strict=True)]
    if not any(added):
        return False
    db.execute(
        "INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, name, day) DO UPDATE SET"
        " money = spending.money + excluded.money, seconds = spending.seconds + excluded.seconds,"
        " unknown = spending.unknown + excluded.unknown",
        (*key, *added, record["at"]),
    )
    _write_fact(db, mark, json.dumps(total), anew=True)
    return True


def _take_answer(db: Connection, record: Record) -> bool:
    """The newer one of two under the same key stands. Its job stays behind, so that none is named."""
    key = (record["sha256"], record["settings"])
    found = db.execute("SELECT kept_at FROM ledger WHERE sha256 = ? AND settings = ?", key).fetchone()
    if found is not None and found[0] >= record["kept_at"]:
        return False
    db.execute("DELETE FROM ledger WHERE sha256 = ? AND settings = ?", key)
    db.execute(
        "INSERT INTO ledger (sha256, settings, size_bytes, kept_at, folder, job_id, document)"
        " VALUES (?, ?, ?, ?, ?, 0, ?)",
        (*key, record["size_bytes"], record["kept_at"], record["folder"], record["document"]),
    )
    return True


def _read_fact(db: Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def _write_fact(db: Connection, name: str, value: str, *, anew: bool) -> None:
    what = "DO UPDATE SET value = excluded.value" if anew else "DO NOTHING"
    db.execute(f"INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) {what}", (name, value))


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def let_go_of_jobs(db: Connection, ids: Iterable[int], reason: str) -> None:
    """These kept answers are in another queue now."""
    for job_id in ids:
        row = db.execute(f"SELECT state FROM jobs WHERE id = ? AND {_KEPT}", (job_id,)).fetchone()
        if row is not None:
            rows.end(db, rows.Standing(job_id, JobState(row[0])), JobState.WITHDRAWN, reason=reason)
