"""Rows as they move from one queue to another: from this machine's own to a cluster's, or back.

What is paid for moves: kept answers with their attempts, the ledger, what was spent. So do the marks of first
starts. Files that wait are found again in their inboxes; holds are found out anew by one file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dropscribe.queue.sql.database import Connection

Record = dict[str, Any]
"""A row with what belongs to it: ``kind`` is job, mark, spending or answer; values are JSON's, and bytes."""

_PAGE_ROWS = 32
_MOVED_PREFIX = "moved:"
_MARKS = ("backlog:", "told:")
_RELEASED = "released"
_KEPT = "state IN ('transcribed', 'rejected')"
JOB_COLUMNS = (
    "folder, directory, name, device, inode, size_bytes, mtime_ns, stable_inodes, incomplete, state,"
    " provider, received_at, attempts, ambiguous, spent_seconds"
)
_KEPT_ANSWER = "document, sha256, root, answers.directory, audio, sidecars"
ATTEMPT_COLUMNS = "at, provider, seconds, status, code, reason, counted, refused"
_TRUTHS = frozenset({"stable_inodes", "incomplete", "counted", "refused"})
"""Integers on SQLite, booleans on PostgreSQL and in records."""


def token_of(db: Connection) -> str:
    """What tells this queue from any other."""
    return str(db.execute("SELECT value FROM facts WHERE name = 'token'").fetchone()[0])


def read_records(db: Connection, *, answers_after: int = 0) -> Iterator[Record]:
    """Everything that moves, in the order in which it is to be taken in.

    Args:
        answers_after: Leave out entries of the ledger up to this id.
    """
    yield from _read_jobs(db)
    yield from _read_marks(db)
    yield from _read_spending(db)
    yield from _read_ledger(db, answers_after)


def last_answer_gone(db: Connection, token: str) -> int:
    """Up to which id the ledger's entries have gone along into the queue of that *token*."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (moved_name(token, "ledger"),)).fetchone()
    return int(row[0]) if row else 0


def write_last_answer_gone(db: Connection, token: str) -> None:
    """All of the ledger's entries have gone there."""
    db.execute(
        "INSERT INTO facts SELECT ?, CAST(coalesce(max(id), 0) AS TEXT) FROM ledger WHERE TRUE"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (moved_name(token, "ledger"),),
    )


def moved_name(token: str, *what: object) -> str:
    """The name of the fact that tells what has moved from, or to, the queue of that *token*."""
    return _MOVED_PREFIX + json.dumps([token, *what])


def _read_jobs(db: Connection) -> Iterator[Record]:
    columns = ", ".join(f"jobs.{column}" for column in JOB_COLUMNS.split(", "))
    last = 0
    while True:
        page = db.execute(
            f"SELECT jobs.id, {columns}, {_KEPT_ANSWER}"  # constants
            f" FROM jobs JOIN answers ON job_id = jobs.id WHERE {_KEPT} AND jobs.id > ?"
            " ORDER BY jobs.id LIMIT ?",
            (last, _PAGE_ROWS),
        ).fetchall()
        for row in page:
            last = row[0]
            count = 1 + len(JOB_COLUMNS.split(", "))
            kept = _named(_KEPT_ANSWER.replace("answers.", ""), row[count:])
            yield {
                "kind": "job",
                "id": row[0],
                **_named(JOB_COLUMNS, row[1:count]),
                "kept": kept,
                "tries": [_named(ATTEMPT_COLUMNS, each) for each in _read_attempts(db, row[0])],
            }
        if len(page) < _PAGE_ROWS:
            return


def _read_attempts(db: Connection, job_id: int) -> list[tuple[Any, ...]]:
    return db.execute(
        f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE job_id = ? ORDER BY id", (job_id,)
    ).fetchall()


def _read_marks(db: Connection) -> Iterator[Record]:
    """First starts, and budgets that were told of. A folder that has had jobs is past its first start."""
    marks = {f"backlog:{folder}": _RELEASED for (folder,) in db.execute("SELECT DISTINCT folder FROM counts")}
    for prefix in _MARKS:
        marks |= dict(_facts(db, prefix))
    for name, value in sorted(marks.items()):
        yield {"kind": "mark", "name": name, "value": value}


def _read_spending(db: Connection) -> Iterator[Record]:
    from_others: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for name, value in _facts(db, _MOVED_PREFIX):
        source, what, *key = json.loads(name.removeprefix(_MOVED_PREFIX))
        if what == "spending":
            from_others.setdefault(tuple(key), {})[source] = json.loads(value)
    for row in db.execute("SELECT kind, name, day, money, seconds, unknown, at FROM spending").fetchall():
        scope, name, day, money, seconds, unknown, at = row
        yield {
            "kind": "spending",
            "scope": scope,
            "name": name,
            "day": day,
            "money": money,
            "seconds": seconds,
            "unknown": int(unknown),
            "at": at,
            "of_others": from_others.get((scope, name, day), {}),
        }


def _read_ledger(db: Connection, after: int) -> Iterator[Record]:
    columns = "id, sha256, settings, size_bytes, kept_at, folder, document"
    while True:
        page = db.execute(
            f"SELECT {columns} FROM ledger WHERE id > ? ORDER BY id LIMIT ?",  # constants
            (after, _PAGE_ROWS),
        ).fetchall()
        for row in page:
            after = row[0]
            yield {"kind": "answer", **_named(columns, row)}
        if len(page) < _PAGE_ROWS:
            return


def _named(columns: str, row: Iterable[Any]) -> Record:
    names = columns.split(", ")
    return {name: _plain(name, value) for name, value in zip(names, row, strict=True)}


def _plain(name: str, value: Any) -> Any:
    if name in _TRUTHS:
        return bool(value)
    return value


def _facts(db: Connection, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = db.execute(
        "SELECT name, value FROM facts WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
    ).fetchall()
    return found
