"""The files that have been noticed and are not settled yet, and when each is looked at again.

Guarantees: memory is bounded by :data:`MOST_ENTRIES`; a file has one entry, and one live deadline however
often it is hinted at, so a hint costs the same whether ten files wait or ten thousand.
"""

from __future__ import annotations

import heapq

from dropscribe.core.settling import Cause, Seen

MOST_ENTRIES = 20_000
"""Files beyond these are looked at once and, unless settled, left to the next listing."""


class Entry:
    """One file that has been noticed.

    Attributes:
        is_fresh: A hint came since the last look, so that a change is no news.
        signature: (device, inode, size, mtime_ns, ctime_ns) of the last look, or None before the first.
        changed_at: Monotonic time of the last observed change.
        deadline: Monotonic time of the next look; 0 while none is planned.
        first_seen_at: Unix seconds.
        needed_seconds: Of quiet, where :attr:`cause` is a quiet time.
        note: Words beside the cause: the owner and mode, what the system said, the twin's name.
    """

    __slots__ = (
        "cause",
        "changed_at",
        "deadline",
        "first_seen_at",
        "is_fresh",
        "needed_seconds",
        "note",
        "seen",
        "signature",
        "writer_looks",
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
        self.writer_looks = 0
        self.note = ""

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
        """At most *most* entries whose deadline has come; their deadlines are cleared."""
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
        """Make room: files that may not be read are found again by a listing."""
        blocked = [path for path, entry in self._entries.items() if entry.cause is Cause.BLOCKED]
        for path in blocked:
            del self._entries[path]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._heap.clear()

    def items(self) -> list[tuple[bytes, Entry]]:
        """A copy, safe to take from another thread: the interpreter makes it in one step."""
        return list(self._entries.items())
