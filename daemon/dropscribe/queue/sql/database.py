"""The database interface of the SQL functions: the part that SQLite and PostgreSQL share.

Their SQL is limited to common constructs, with "?" for values; each function is called within a
transaction that its store has opened, and sees no other writer in it.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

T = TypeVar("T")


def valid_text(value: str) -> str:
    """*value* as valid UTF-8 without NUL, which both databases store.

    Names of files and messages of providers may contain anything.
    """
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


class Cursor(Protocol):
    """A statement's result."""

    @property
    def rowcount(self) -> int:
        """Rows that the statement changed."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """Every row that is left."""

    def __iter__(self) -> Iterator[Any]:
        """The rows, one by one."""


class Connection(Protocol):
    """A connection with a transaction open."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor:
        """Run one statement for each of *parameters*."""

    def close(self) -> None:
        """Disconnect."""


class Database(Protocol):
    """The rows: transactions, one at a time, and readers beside them.

    Attributes:
        token: Distinguishes this queue's temp names from any other's.
    """

    token: str

    def now(self) -> float:
        """Unix seconds by the clock that dates the rows."""

    async def data_version(self) -> int:
        """A number that changes when a command has written; 0 where the dispatcher finds out by itself."""

    async def do(self, work: Callable[[Connection], T]) -> T:
        """Run *work* in a transaction and return its result once it is durable.

        *work* may be called again where a batch of transactions had to be begun anew.
        """

    def call(self, work: Callable[[Connection], T]) -> Future[T]:
        """The same for threads other than the event loop's."""

    def open_reader(self) -> Connection:
        """A connection of the calling thread's own that only reads."""

    def close(self) -> None:
        """Finish the calls made so far, and disconnect; later calls fail with a StoreError."""


def read_token(db: Connection) -> str:
    """The random token in the names of this queue's hidden files, made by its first start.

    All nodes have the same: each finds the hidden files of another that died while it published.
    """
    db.execute("INSERT INTO facts VALUES ('token', ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex[:12],))
    return str(db.execute("SELECT value FROM facts WHERE name = 'token'").fetchone()[0])
