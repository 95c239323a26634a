"""The cache of answers (table ``ledger``), by content and settings: the same recording is paid for once.

Guarantees: an answer is entered in the transaction that stores the job's result; the cache stays within
``LEDGER_BYTES`` and ``ledger_keep``, because each entry deletes a small batch of old ones.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict

from dropscribe.core.budget import AnswerKey
from dropscribe.core.compression import unpacked
from dropscribe.core.model import Job
from dropscribe.queue.model import CachedResult
from dropscribe.queue.sql.database import Connection, upsert

LEDGER_BYTES = 256 * 1024 * 1024
"""Limit of the cache's total size, compressed: some 50,000 calls of ten minutes."""

MOST_DOCUMENT_BYTES = 256 * 1024 * 1024
"""Of one cached answer, uncompressed: more than any answer that a provider may give makes."""

PRUNE_BATCH = 16  # Most entries that one transaction deletes, so that no transaction gets long
_QUICK = 1


def write_answer(db: Connection, key: AnswerKey, job: Job, document: bytes, now: float) -> None:
    """Enter *document*; an older answer under the same key is replaced."""
    about = {"size_bytes": job.snapshot.size_bytes, "kept_at": now, "folder": job.folder, "job_id": job.id}
    row = asdict(key) | about | {"document": zlib.compress(document, _QUICK)}
    upsert(db, "ledger", "sha256, settings", row)


def read_answer(db: Connection, key: AnswerKey, since: float) -> CachedResult | None:
    """The answer under *key* that arrived at *since* (Unix seconds) or later; a broken one is none."""
    row = db.execute(
        "SELECT document, ledger.folder, filed, kept_at FROM ledger LEFT JOIN jobs ON jobs.id = job_id"
        " WHERE sha256 = ? AND settings = ? AND kept_at >= ?",
        (key.sha256, key.settings, since),
    ).fetchone()
    try:
        return CachedResult(unpacked(row[0], MOST_DOCUMENT_BYTES), *row[1:]) if row else None
    except ValueError:
        return None  # the recording is transcribed, and its answer takes this one's place


def prune(db: Connection, before: float, most_bytes: int = LEDGER_BYTES) -> int:
    """Delete the oldest while they are older than *before* or all take too much; a batch a call.

    Returns how many were deleted: fewer than ``PRUNE_BATCH`` when no more have to be.
    """
    for gone in range(PRUNE_BATCH):
        row = db.execute(
            "SELECT id, kept_at, (SELECT bytes FROM ledger_total) FROM ledger ORDER BY kept_at LIMIT 1"
        ).fetchone()
        if row is None or (row[1] >= before and row[2] <= most_bytes):
            return gone
        db.execute("DELETE FROM ledger WHERE id = ?", (row[0],))
    return PRUNE_BATCH


def forget(db: Connection, sha256: str) -> int:
    """Delete every answer to the audio with this digest; returns how many there were."""
    return db.execute("DELETE FROM ledger WHERE sha256 = ?", (sha256,)).rowcount
