"""Hints: the system reports, as it happens, which path to look at.

A hint is not reliable: it may come late, twice, under an old name or not at all. A source must report lost
hints, so that the inbox is listed.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol


class HintKind(enum.IntEnum):
    """Kind of a change at a path."""

    CREATED = 0  # a name appeared; somebody may still be writing
    CLOSED = 1  # a writer closed it
    MOVED = 2  # it was renamed or moved to this name
    FOLDER = 3  # a folder appeared: list it
    FOLDER_GONE = 4  # a folder was moved away: forget everything below its name
    LOST = 5  # hints were lost: list everything
    ROOT_GONE = 6  # the watched folder itself went, or its file system did


class Hint(NamedTuple):
    """One thing to look at; *path* is relative to the inbox."""

    kind: HintKind
    path: bytes = b""


class HintsUnavailable(Exception):
    """Raised when no source is available: the instance limit is reached, or the system has none."""


class HintSource(Protocol):
    """A watch on one inbox, used by one thread."""

    def fileno(self) -> int:
        """Readable when hints wait."""

    def watch(self, directory: bytes, descriptor: int) -> bool:
        """Watch one directory; it must be listed after this, never before.

        Args:
            directory: Relative to the inbox; b"" is the inbox itself.
            descriptor: The same directory, open.

        Returns:
            Whether it is watched now; False if it must be listed more often instead.
        """

    def read(self) -> list[Hint]:
        """The waiting hints, at most a few thousand; never blocks."""

    def close(self) -> None:
        """Stop watching; safe to call twice."""
