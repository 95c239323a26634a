"""The files that have been noticed and are not settled yet, and when each is looked at again.

Used by the inbox's own thread only. Guarantees: memory is bounded by :data:`MOST_ENTRIES`; a file has one
entry and one live deadline however many hints come for it, so the cost of a hint does not grow with the
number of waiting files.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from dropscribe.core.settling import Cause, Seen

if TYPE_CHECKING:
    from collections.abc import ItemsView

    from dropscribe.intake.companions import CompanionsSeen

MOST_ENTRIES = 20_000
"""Files beyond these are looked at once and, unless settled, found again by the next listing."""


class Entry:
    """One file that has been noticed.

    Attributes:
        is_fresh: A hint came since the last look, so that a change is no news.
        signature: (device, inode, size, mtime_ns, ctime_ns) of the last look, or None before the first.
        changed_at: Monotonic time of the last observed change.
        deadline: Monotonic time of the next look; 0 while none is planned.
        first_seen_at: Unix seconds.
        needed_seconds: Quiet time that the file needs, where :attr:`cause` is a quiet time.
        looks: Looks in a row that ended with the same cause; each makes the next wait longer.
        note: Details of the cause: owner and mode, the system's error, the other file's name.
        companions: Since the file itself is complete; None before.
    """

    __slots__ = (
        "cause",
        "changed_at",
        "companions",
        "deadline",
        "first_seen_at",
        "is_fresh",
        "looks",
        "needed_seconds",
        "note",
        "seen",
        "signature",
    )

    def __init__(self, now: float, first_seen_at: float) -> None:
        self.signature: tuple[int, int, int, int, int] | None = None
        self.changed_at = now
        self.deadline = 0.0
        self.is_fresh = True
        self.first_seen_at = first_seen_at
        self.seen = Seen.FOUND
        self.cause = Cause.FIRST_LOOK
        self.needed_seconds = 0.0
        self.looks = 0
        self.note = ""
        self.companions: CompanionsSeen | None = None

    def note_cause(self, cause: Cause, note: str = "") -> None:
        """A look ended: the file waits for *cause*."""
        self.looks = self.looks + 1 if cause is self.cause else 1
        self.cause, self.note, self.needed_seconds = cause, note, 0.0

    @property
    def inode(self) -> int:
        """The file's inode at the last look; 0 before the first."""
        return self.signature[1] if self.signature else 0


class Pending:
    """Entries by path, and a heap of deadlines that drops stale ones when they come up."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self._heap: list[tuple[float, bytes]] = []
        self.most_entries = MOST_ENTRIES

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, path: bytes) -> bool:
        return path in self._entries

    @property
    def is_full(self) -> bool:
        """Whether a new file must do without an entry."""
        return len(self._entries) >= self.most_entries

    def get(self, path: bytes) -> Entry | None:
        """The entry of *path*, if it has one."""
        return self._entries.get(path)

    def add(self, path: bytes, entry: Entry) -> None:
        """Give *path* an entry; it is looked at once :meth:`plan` says when."""
        self._entries[path] = entry

    def drop(self, path: bytes) -> None:
        """Forget *path*."""
        self._entries.pop(path, None)

    def plan(self, path: bytes, entry: Entry, deadline: float) -> None:
        """Look at *path* at *deadline*, or sooner where a sooner look is planned already."""
        if entry.deadline and entry.deadline <= deadline:
            return
        entry.deadline = deadline
        heapq.heappush(self._heap, (deadline, path))

    def pop_due(self, now: float, most: int) -> list[tuple[bytes, Entry]]:
        """At most *most* entries that are due; their deadlines are cleared."""
        due: list[tuple[bytes, Entry]] = []
        while self._heap and self._heap[0][0] <= now and len(due) < most:
            deadline, path = heapq.heappop(self._heap)
            entry = self._entries.get(path)
            if entry is not None and entry.deadline == deadline:
                entry.deadline = 0.0
                due.append((path, entry))
        return due

    def next_deadline(self) -> float | None:
        """The earliest planned look, stale ones dropped."""
        while self._heap:
            deadline, path = self._heap[0]
            entry = self._entries.get(path)
            if entry is not None and entry.deadline == deadline:
                return deadline
            heapq.heappop(self._heap)
        return None

    def drop_below(self, directory: bytes) -> None:
        """Forget everything below *directory*."""
        below = directory + b"/"
        for path in [path for path in self._entries if path.startswith(below)]:
            del self._entries[path]

    def drop_blocked(self) -> None:
        """Remove files that may not be read, to make room; a listing finds them again."""
        blocked = [path for path, entry in self._entries.items() if entry.cause is Cause.BLOCKED]
        for path in blocked:
            del self._entries[path]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._heap.clear()

    def items(self) -> ItemsView[bytes, Entry]:
        """All entries by path."""
        return self._entries.items()
