"""The SQLite file, the one thread that writes it, and its directory, which is locked while a daemon runs.

Guarantees: when a call returns, its transaction is on disk (WAL, synchronous=FULL). Calls that wait while the
disk syncs share the next transaction, so one sync serves them all.
Diagnostics: fatal: StoreUnusable (corrupt, newer version, network file system), StoreInUse. Passing:
StoreFull, and the errors of a call's own function.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from dropscribe.core.errors import StoreBusy, StoreError, StoreFull, StoreInUse, StoreUnusable
from dropscribe.files.threads import DaemonThreads
from dropscribe.queue.sql.database import Call, Database, read_token, valid_text

T = TypeVar("T")

DATABASE_NAME = "queue.db"
_LOCK_NAME = "lock"
_BUSY_SECONDS = 30.0
STATE_RESERVE_BYTES = 4 * 1024 * 1024
"""Room that must be free on the state directory's disk before anything is paid for."""

_LOCK_TRIES = 5
_LOCK_GAP_SECONDS = 0.02

MIGRATIONS = ("schema.sql", *(f"migration_{version}.sql" for version in range(2, 9)))
"""Scripts that lead from version N to N+1; the file's version is PRAGMA user_version. Forward only."""


class _Connection(sqlite3.Connection):
    """A connection that takes any text: what UTF-8 cannot encode in it is replaced."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """See :meth:`sqlite3.Connection.execute`."""
        try:
            return super().execute(sql, parameters)
        except UnicodeEncodeError:
            values = [valid_text(value) if isinstance(value, str) else value for value in parameters]
            return super().execute(sql, values)


class Store(Database):
    """The queue's database in *state_dir*, owned by this process until :meth:`close`.

    Raises:
        StoreInUse: Another daemon has the state directory.
        StoreUnusable: The database cannot be used; the error names a remedy. Nothing is deleted.
        StoreError: The directory cannot be made or opened.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / DATABASE_NAME
        with contextlib.ExitStack() as undo, store_errors(self.path):
            undo.callback(os.close, lock_state_dir(state_dir))
            make_private_file(self.path)
            self._connection = _connect(self.path, check_same_thread=False, cached_statements=256)
            undo.callback(self._connection.close)
            _prepare(self._connection, self.path)
            self.token = read_token(self._connection)
            self._inode = _inode_of(self.path)
            self._resources = undo.pop_all()
        self._read_threads = DaemonThreads(1, "counts")
        super().__init__(StoreError(str(self.path), "is closed: the daemon ends"))

    def open_reader(self) -> sqlite3.Connection:
        """See the base class."""
        connection = open_for_reading(self.path.parent)
        if connection is None:
            raise self._gone("is gone")
        return connection

    def trouble(self) -> StoreError | None:
        """Reason why nothing may be paid for now, or None.

        StoreFull may pass. After any other the file is no longer the one that is open, and all that is
        written now is lost with this process.
        """
        try:
            if self._inode not in {0, os.stat(self.path).st_ino}:
                return self._gone("was replaced while dropscribe had it open")
            return trouble_of_disk(self.path.parent)
        except FileNotFoundError:
            return self._gone("is gone")
        except OSError as error:
            return StoreError(str(self.path), error.strerror or str(error), _LOOK_AT_DISK)

    def _gone(self, reason: str) -> StoreError:
        return StoreError(str(self.path), reason, "restart dropscribe: waiting files are found again")

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """See the base class; it waits for nothing that the writer waits for, as another program's lock."""
        import asyncio  # noqa: PLC0415  # commands that only read do not pay for it

        def run() -> T:
            with contextlib.closing(self.open_reader()) as connection, store_errors(self.path):
                connection.execute("BEGIN")  # all queries see the same moment
                return work(connection)

        return await asyncio.wrap_future(self._read_threads.submit(run))

    def close(self) -> None:
        """See the base class; unlocks the state directory."""
        super().close()
        self._read_threads.shutdown()
        self._resources.close()

    def _commit(self, batch: Sequence[Call]) -> list[Any]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [call.work(self._connection) for call in batch]
            self._connection.execute("COMMIT")
        except Exception as error:
            with contextlib.suppress(sqlite3.Error):  # a full disk may have rolled back by itself
                self._connection.execute("ROLLBACK")
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _OF_ONE_CALL:
                raise store_error(self.path, error) from error
            raise
        return results


def is_running(state_dir: Path) -> bool:
    """Whether a daemon has *state_dir* now; raises PermissionError if it may not be looked at."""
    try:
        descriptor = os.open(state_dir / _LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def open_for_reading(state_dir: Path) -> sqlite3.Connection | None:
    """A read-only connection for ``status`` and ``why``; None where no daemon has ever run.

    Raises StoreError if the file is there but cannot be read.
    """
    path = state_dir / DATABASE_NAME
    try:
        with contextlib.ExitStack() as undo, store_errors(path):
            if not _is_there(path):
                return None
            uri = f"{path.resolve().as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)
            undo.callback(connection.close)
            if not _check_version(connection, path):
                return None
            undo.pop_all()
            return connection
    except OSError as error:
        raise StoreError(str(path), error.strerror or str(error)) from error


def _is_there(path: Path) -> bool:
    """Whether a daemon has made the database. From Python 3.14 on ``Path.exists`` hides errors.

    Raises OSError if that cannot be known, as in another user's folder, and StoreUnusable if something else
    has its place.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(mode):  # SQLite would wait for a writer of a pipe
        raise StoreUnusable(str(path), "is not a file", "move it away")
    return True


def write_once(state_dir: Path, work: Callable[[sqlite3.Connection], T]) -> T | None:
    """Run *work* in one short transaction, for a command, whether a daemon runs or not.

    Deleted content is overwritten. None where no daemon has ever run. Raises StoreError if the file cannot be
    written, or this version's daemon has not been started on it yet.
    """
    path = state_dir / DATABASE_NAME
    if not _is_there(path):
        return None
    with store_errors(path), contextlib.closing(_connect(path)) as connection:
        version = _check_version(connection, path)
        if not version:
            return None
        if version < len(MIGRATIONS):
            raise StoreUnusable(str(path), "was made by an older dropscribe", _START_ONCE)
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        result = work(connection)
        connection.execute("COMMIT")
        return result


def lock_state_dir(state_dir: Path) -> int:
    """Make *state_dir* if need be, and lock it; returns the descriptor that holds the lock.

    A new or empty directory is closed to other users. One with files in it keeps its mode, because other
    programs may need them (``state_dir: /srv``); each file of the queue is closed by its own mode.

    Raises:
        StoreInUse: Another daemon has it.
        StoreUnusable: It is on a network file system.
        StoreError: It cannot be made or opened.
    """
    from dropscribe.files.mounts import MountKind, mount_of  # noqa: PLC0415  # readers lock nothing

    with _writing_to(state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.listdir(state_dir):
            with contextlib.suppress(PermissionError):  # another user's directory
                state_dir.chmod(0o700)
        descriptor = os.open(state_dir / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take_lock(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreInUse(
            str(state_dir), "another dropscribe has this state directory", "stop it, or set another state_dir"
        ) from None
    if mount_of(os.fsencode(state_dir)).kind is MountKind.REMOTE:
        os.close(descriptor)
        raise StoreUnusable(
            str(state_dir), "is on a network file system", "set state_dir to a folder on a local disk"
        )
    return descriptor


@contextlib.contextmanager
def _writing_to(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place, reason = str(error.filename or path), error.strerror or str(error)
        if isinstance(error, FileExistsError):
            reason = "is not a folder, or a link to one that is not there"
        raise StoreError(place, reason, "give dropscribe a state_dir that it may write to") from error


def _take_lock(descriptor: int) -> None:
    """Lock exclusively; a ``status`` that checks for a daemon holds a shared lock for an instant."""
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOCK_GAP_SECONDS)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def make_private_file(path: Path) -> None:
    """Make the database's file for its owner alone: SQLite gives its journals the same mode.

    Raises StoreError if the state directory may not be written.
    """
    with _writing_to(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _inode_of(path: Path) -> int:
    """The inode number of the file at *path*; 0 where its file system may give it another one."""
    from dropscribe.files.mounts import mount_of  # noqa: PLC0415  # not for readers

    return os.stat(path).st_ino if mount_of(os.fsencode(path)).stable_inodes else 0


def trouble_of_disk(state_dir: Path) -> StoreFull | None:
    """Reason why nothing may be paid for now, or None; OSError if the disk does not say."""
    if shutil.disk_usage(state_dir).free >= STATE_RESERVE_BYTES:
        return None
    return StoreFull(str(state_dir), "the disk of the state directory is full")


def _connect(path: Path, **options: Any) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, factory=_Connection, **options)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make commits durable, and bring the schema up to this version."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    # Pages: a page that changes often is written back once for more of its changes than by default (1000).
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA temp_store = MEMORY")
    # One transaction: a command that reads meanwhile sees the schema as it was, or this version's.
    scripts = resources.files("dropscribe.queue.sql")
    steps = [
        scripts.joinpath(name).read_text("utf-8") for name in MIGRATIONS[_check_version(connection, path) :]
    ]
    if steps:
        steps = ["BEGIN IMMEDIATE;", *steps, f"PRAGMA user_version = {len(MIGRATIONS)};", "COMMIT;"]
        connection.executescript("\n".join(steps))


def _check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the schema; 0 where a first start has not come to its tables (a full disk)."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreUnusable(
            str(path),
            f"was made by a newer dropscribe (its schema is {version}, this one knows {len(MIGRATIONS)})",
            "install that version again, or set another state_dir: waiting files are found again",
        )
    return version


_OF_ONE_CALL = {
    *(0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE),
    *(sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISUSE),
}
"""Result codes about one statement or its values; the others are about the database file or its disk."""

_LOOK_AT_DISK = "look at the disk and the permissions of state_dir"
_START_ONCE = "start this version's daemon once"
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def store_error(path: Path, error: Exception) -> StoreError:
    """The error for people, with a remedy, of a failed call on the database at *path*."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_disk_full(path.parent)):
        reason = str(error) if code == sqlite3.SQLITE_FULL else f"the disk or a quota is full ({error})"
        return StoreFull(str(path), reason, "make room on the disk that holds state_dir")
    if str(error).startswith(("no such column", "no such table")):
        return StoreUnusable(str(path), f"was made by an older dropscribe ({error})", _START_ONCE)
    if code in _LOCKED:
        return StoreBusy(str(path), str(error), "find who has it open (fuser), and end that")
    if code in _DAMAGED:
        return StoreUnusable(
            str(path),
            f"is damaged ({error})",
            f"keep a copy, then move it away ({path.name}*): waiting files are found again in their inboxes; "
            "answers that were kept in it would be transcribed again",
        )
    return StoreError(str(path), str(error), _LOOK_AT_DISK)


def _is_disk_full(state_dir: Path) -> bool:
    """Whether the disk is full, or the user's quota is spent: SQLite reports that as an error of the disk."""
    import tempfile  # noqa: PLC0415  # almost never needed

    try:
        with tempfile.TemporaryFile(dir=state_dir) as trial:  # how much a quota leaves, no call tells
            os.posix_fallocate(trial.fileno(), 0, STATE_RESERVE_BYTES)
    except OSError as error:
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return False


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as those of the database at *path*."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(path, error) from error
