"""The search index: the words of each finished transcript, and its passages.

Guarantees: it can be thrown away at any time and is built anew from the files in the done folders. On SQLite
it is a file of its own in the state directory, in a cluster it is tables beside the queue's. It holds each
word of a transcript once, without its place: a hit is looked up in the passages.
Diagnostics: sqlite3.Error and psycopg.Error. A file that is damaged or of another version is deleted.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dropscribe.queue.embedded.store import make_private_file
from dropscribe.queue.sql.database import Connection, upsert
from dropscribe.search.passages import Passage, UnusableIndex, pack, unpack
from dropscribe.search.words import folded_words

INDEX_NAME = "search.db"
NEWEST = 2**62  # More than any job's id
# Of one transcript's distinct words, some 60,000, that are indexed; PostgreSQL takes 1 MiB at most.
MOST_WORD_BYTES = 500_000
_VERSION = 2
_BUSY_SECONDS = 5.0
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS indexed_transcripts
    (job_id INTEGER PRIMARY KEY, ended_at REAL NOT NULL, passages BLOB NOT NULL);
CREATE VIRTUAL TABLE IF NOT EXISTS search_words USING fts5
    (words, content='', detail='none', columnsize=0,
     tokenize="unicode61 remove_diacritics 0 categories 'L* N* Co M*'");
CREATE TABLE IF NOT EXISTS indexing_progress
    (node TEXT PRIMARY KEY, ended_at REAL NOT NULL, swept_id INTEGER NOT NULL, swept_at REAL NOT NULL);
PRAGMA user_version = {_VERSION};
COMMIT;
"""


@dataclass(slots=True)
class IndexProgress:
    """Progress of a node's indexing."""

    ended_at: float = 0.0  # Jobs that ended before this time (Unix seconds) are indexed
    swept_id: int = 0  # The sweep has looked at all jobs up to this id
    swept_at: float = 0.0  # When the last sweep came to its end


class TranscriptIndex:
    """The index on an open connection to SQLite."""

    begin = "BEGIN IMMEDIATE"

    def __init__(self, db: Connection) -> None:
        self._db = db

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Transaction: commit the block's writes, or none of them."""
        self._db.execute(self.begin)
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def read_progress(self, node: str) -> IndexProgress:
        """Progress of *node* of a cluster; "" is the queue of a single machine."""
        query = "SELECT ended_at, swept_id, swept_at FROM indexing_progress WHERE node = ?"
        return IndexProgress(*self._db.execute(query, (node,)).fetchone() or ())

    def write_progress(self, node: str, progress: IndexProgress) -> None:
        """Store the progress of *node*'s indexing."""
        upsert(self._db, "indexing_progress", "node", {"node": node, **asdict(progress)})

    def has(self, job_id: int, ended_at: float) -> bool:
        """Whether the job with this id and end is indexed: a queue that is made anew reuses ids."""
        query = "SELECT 1 FROM indexed_transcripts WHERE job_id = ? AND ended_at = ?"
        return self._db.execute(query, (job_id, ended_at)).fetchone() is not None

    def read_ids(self, after_id: int, last_id: int) -> set[int]:
        """Indexed jobs with an id above *after_id* and up to *last_id*."""
        query = "SELECT job_id FROM indexed_transcripts WHERE job_id > ? AND job_id <= ?"
        return {row[0] for row in self._db.execute(query, (after_id, last_id)).fetchall()}

    def add(self, job_id: int, ended_at: float, passages: Sequence[Passage]) -> None:
        """Index a transcript in place of the job's older one."""
        self.remove([job_id])
        row = (job_id, ended_at, pack(passages))
        self._db.execute("INSERT INTO indexed_transcripts VALUES (?, ?, ?)", row)
        words = " ".join(_distinct_words(passages))
        self._db.execute("INSERT INTO search_words (rowid, words) VALUES (?, ?)", (job_id, words))

    def remove(self, job_ids: Iterable[int]) -> None:
        """Take transcripts out of the index; those that are not there are no error."""
        for job_id in job_ids:
            found = "DELETE FROM indexed_transcripts WHERE job_id = ? RETURNING passages"
            if row := self._db.execute(found, (job_id,)).fetchone():
                # A contentless table needs the old text for a deletion; without it the index is made anew.
                delete = "INSERT INTO search_words (search_words, rowid, words) VALUES ('delete', ?, ?)"
                self._db.execute(delete, (job_id, " ".join(_distinct_words(unpack(row[0])))))

    def find(self, words: Sequence[str], before_id: int, limit: int) -> list[tuple[int, float, bytes]]:
        """(job, when it ended, packed passages) with all folded *words*, newest first, below *before_id*."""
        query = (
            "SELECT job_id, ended_at, passages FROM search_words JOIN indexed_transcripts"
            " ON job_id = search_words.rowid WHERE search_words MATCH ? AND search_words.rowid < ?"
            " ORDER BY search_words.rowid DESC LIMIT ?"
        )
        all_words = " AND ".join(f'"{word}"' for word in words)
        return self._db.execute(query, (all_words, before_id, limit)).fetchall()


class ClusterIndex(TranscriptIndex):
    """The index on a connection to PostgreSQL; its tables are made with the queue's."""

    begin = "BEGIN"

    def add(self, job_id: int, ended_at: float, passages: Sequence[Passage]) -> None:
        """See :meth:`TranscriptIndex.add`."""
        self._db.execute(
            "INSERT INTO indexed_transcripts VALUES (?, ?, ?, array_to_tsvector(?::text[]))"
            " ON CONFLICT (job_id) DO UPDATE SET ended_at = excluded.ended_at,"
            " passages = excluded.passages, words = excluded.words",
            (job_id, ended_at, pack(passages), _distinct_words(passages)),
        )

    def remove(self, job_ids: Iterable[int]) -> None:
        """See :meth:`TranscriptIndex.remove`."""
        for job_id in job_ids:
            self._db.execute("DELETE FROM indexed_transcripts WHERE job_id = ?", (job_id,))

    def find(self, words: Sequence[str], before_id: int, limit: int) -> list[tuple[int, float, bytes]]:
        """See :meth:`TranscriptIndex.find`."""
        query = (
            "SELECT job_id, ended_at, passages FROM indexed_transcripts"
            " WHERE words @@ ?::tsquery AND job_id < ? ORDER BY job_id DESC LIMIT ?"
        )
        all_words = " & ".join(f"'{word}'" for word in words)
        return self._db.execute(query, (all_words, before_id, limit)).fetchall()


def _distinct_words(passages: Sequence[Passage]) -> list[str]:
    found = dict.fromkeys(word for passage in passages for word in folded_words(passage.text))
    sizes = itertools.accumulate(len(word.encode()) for word in found)
    return [word for word, size in zip(found, sizes, strict=True) if size <= MOST_WORD_BYTES]


@contextlib.contextmanager
def open_index(state_dir: Path) -> Iterator[TranscriptIndex]:
    """The index of *state_dir*; an empty one where there is none or where it is damaged.

    Raises sqlite3.Error, also if this Python's SQLite has no FTS5, and StoreError if it may not be written.
    """
    try:
        connection = _connect(state_dir)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        delete_index(state_dir)
        connection = _connect(state_dir)
    with contextlib.closing(connection):
        try:
            yield TranscriptIndex(connection)
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                delete_index(state_dir)
            raise


def delete_index(state_dir: Path) -> None:
    """Throw the index away."""
    for suffix in ("", "-wal", "-shm"):
        (state_dir / f"{INDEX_NAME}{suffix}").unlink(missing_ok=True)


def _is_damage(error: sqlite3.Error) -> bool:
    return isinstance(error, UnusableIndex) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _connect(state_dir: Path) -> sqlite3.Connection:
    path = state_dir / INDEX_NAME
    make_private_file(path)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in {0, _VERSION}:
            connection.close()
            delete_index(state_dir)
            return _connect(state_dir)
        # Writes that a power cut loses are read again from the transcripts: nothing here waits for a sync.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")
        if version == 0:
            connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
