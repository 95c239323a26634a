"""The base of both databases: helpers for their SQL, and the one thread that writes.

Their SQL is limited to common constructs, with "?" for values; each function is called within a
transaction that its store has opened, and sees no other writer in it.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from dropscribe.core.errors import StoreBusy, StoreFull

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping, Sequence, Sized

    from dropscribe.core.errors import StoreError
    from dropscribe.queue.cluster.postgres import PostgresConnection

Connection: TypeAlias = "sqlite3.Connection | PostgresConnection"
T = TypeVar("T")
Result = tuple[Any, BaseException | None]

_BATCH_CALLS = 256


def is_shared(db: Connection) -> bool:
    """Whether *db* is a cluster's."""
    return not isinstance(db, sqlite3.Connection)


def marks(values: Sized) -> str:
    """A question mark for each of *values*, for a list in SQL."""
    return ", ".join("?" * len(values))


def valid_text(value: str) -> str:
    """*value* as valid UTF-8 without NUL, which both databases store.

    Names of files and messages of providers may contain anything.
    """
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def read_token(db: Connection) -> str:
    """The random token in the names of this queue's hidden files, made by its first start.

    All nodes have the same: each finds the hidden files of another that died while it published.
    """
    db.execute("INSERT INTO facts VALUES ('token', ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex[:12],))
    return str(db.execute("SELECT value FROM facts WHERE name = 'token'").fetchone()[0])


def upsert(db: Connection, table: str, key: str, row: Mapping[str, object]) -> None:
    """Insert *row*, or update the one with the same *key*: the columns of a unique index, with commas."""
    changes = ", ".join([f"{name} = excluded.{name}" for name in row if name not in key.split(", ")])
    insert = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks(row)})"
    db.execute(f"{insert} ON CONFLICT ({key}) DO UPDATE SET {changes}", tuple(row.values()))


class Call(NamedTuple):
    """One transaction that waits."""

    work: Callable[[Any], Any]  # Its function, called with the connection
    future: Future[Any] | asyncio.Future[Any]  # Takes its result, or its error
    # The event loop of *future*; None where that may be settled in the writer's thread.
    loop: asyncio.AbstractEventLoop | None = None


class Database(ABC):
    """Transactions of one thread that writes, where those that wait share a commit, and readers beside them.

    *closed* is the error of calls after :meth:`close`.
    """

    token: str  # Distinguishes this queue's temp names from any other's

    def __init__(self, closed: StoreError) -> None:
        self._closed = closed
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()  # None ends the thread
        self._asking, self._is_closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()

    def now(self) -> float:
        """Unix seconds by the clock that dates the rows."""
        return time.time()

    @abstractmethod
    def open_reader(self) -> Connection:
        """A read-only connection of the calling thread's own: its reads never block a claim."""

    @abstractmethod
    def _commit(self, batch: Sequence[Call]) -> list[Any]:
        """Run the calls of *batch* in one transaction; their results."""

    def call(self, work: Callable[[Any], T]) -> Future[T]:
        """Run *work* in a transaction; for threads other than the event loop's."""
        future: Future[T] = Future()
        self._ask(Call(work, future))
        return future

    async def do(self, work: Callable[[Any], T]) -> T:
        """Run *work* in a transaction and return its result once it is durable.

        *work* may be called again where a batch of transactions had to be begun anew. Cancelling the caller
        does not undo a transaction that waits or is under way.
        """
        import asyncio  # noqa: PLC0415  # commands that only read do not pay for it

        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._ask(Call(work, future, loop))
        return await future

    async def read(self, work: Callable[[Any], T]) -> T:
        """The result of *work*, which only reads; it sees the transactions that have returned."""
        return await self.do(work)

    def close(self) -> None:
        """Finish the calls made so far, and disconnect; later calls fail with a StoreError."""
        with self._asking:
            self._is_closed = True
            self._calls.put(None)
        self._thread.join()

    def _ask(self, call: Call) -> None:
        with self._asking:
            if self._is_closed:
                _settle([(call, (None, self._closed))])
            else:
                self._calls.put(call)

    def _write(self) -> None:
        is_open = True
        while is_open:
            waiting = [self._calls.get()]
            with contextlib.suppress(queue.Empty):
                while waiting[-1] is not None and len(waiting) < _BATCH_CALLS:
                    waiting.append(self._calls.get_nowait())
            batch = [call for call in waiting if call is not None]
            is_open = len(batch) == len(waiting)
            if batch:
                _deliver(zip(batch, self._commit_or_split(batch), strict=True))

    def _commit_or_split(self, batch: Sequence[Call]) -> list[Result]:
        """Run *batch* as one transaction or, where one of its calls fails, each call as its own."""
        try:
            return [(result, None) for result in self._commit(batch)]
        except Exception as error:  # noqa: BLE001 - returned to its caller
            # A disk that is full and a file that is locked refuse the calls one by one, too.
            if len(batch) == 1 or type(error) in {StoreFull, StoreBusy}:
                return [(None, error)] * len(batch)
            import structlog  # noqa: PLC0415  # as above

            structlog.get_logger().debug("batch.split", calls=len(batch), reason=repr(error))
        return [result for call in batch for result in self._commit_or_split([call])]


def _deliver(settled: Iterable[tuple[Call, Result]]) -> None:
    """Settle the futures of a batch of any size, with one wake-up of each loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop | None, list[tuple[Call, Result]]] = defaultdict(list)
    for call, result in settled:
        by_loop[call.loop].append((call, result))
    for loop, of_loop in by_loop.items():
        if loop is None:
            _settle(of_loop)
            continue
        with contextlib.suppress(RuntimeError):  # the loop was closed, and its tasks with it
            loop.call_soon_threadsafe(_settle, of_loop)


def _settle(settled: Iterable[tuple[Call, Result]]) -> None:
    """Set the results of futures whose callers were not cancelled."""
    for call, (result, error) in settled:
        if call.future.done():
            continue
        if error is None:
            call.future.set_result(result)
        else:
            call.future.set_exception(error)
