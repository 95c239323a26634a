"""The files that have been noticed and are not settled yet, and when each is looked at again.

Used by the inbox's own thread only. Guarantees: memory is bounded by :data:`MOST_ENTRIES`; a file has one
entry and one live deadline however many hints come for it, so the cost of a hint does not grow with the
number of waiting files.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dropscribe.core.retry import backoff_seconds
from dropscribe.core.settling import Cause, Lease, Seen

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot
    from dropscribe.intake.probe import ProbeResult

MOST_ENTRIES = 20_000
"""Limit of the entries: further files are probed once and, unless settled, found again by a listing."""

RETRY_SECONDS = 5.0
_LONGEST_RETRY_SECONDS = 60.0


@dataclass(slots=True)
class CompanionState:
    """State of one recording's companions at the last probe."""

    since: float  # Monotonic time from which the recording waits for them
    # At the last probe; None for a companion that was not there.
    snapshots: list[FileSnapshot | None] | None = None
    changed_at: float = 0.0  # Monotonic time of their last observed change


@dataclass(slots=True, eq=False)
class Entry:
    """One file that has been noticed."""

    changed_at: float  # Monotonic time of the last observed change
    snapshot: FileSnapshot | None = None  # Of the last look, or None before the first
    deadline: float = 0.0  # Monotonic time of the next look; 0 while none is planned
    is_fresh: bool = True  # A hint came since the last look, so that a change is expected
    first_seen_at: float = field(default_factory=time.time)  # Unix seconds
    seen: Seen = Seen.FOUND
    cause: Cause = Cause.FIRST_LOOK
    needed_seconds: float = 0.0  # Quiet time that the file needs, where :attr:`cause` is a quiet time
    looks: int = 0  # Looks in a row that ended with the same cause; each makes the next wait longer
    note: str = ""  # Details of the cause: owner and mode, the system's error, the other file's name
    companions: CompanionState | None = None  # Since the file itself is complete; None before

    def note_probe(self, result: ProbeResult, now: float) -> None:
        """Record the result of a probe and the changes since the previous one."""
        if result.snapshot != self.snapshot:
            if self.snapshot is not None:
                self.changed_at = now
                if not self.is_fresh:
                    self.seen = Seen.FOUND
            self.snapshot, self.companions = result.snapshot, None
        if result.lease is Lease.WRITER:
            self.seen = Seen.FOUND  # a rename or an early close means nothing while somebody is writing
        elif self.cause is Cause.WRITER:
            self.changed_at = now
        self.is_fresh = False

    def note_cause(self, cause: Cause, note: str = "", needed_seconds: float = 0.0) -> None:
        """Record that the file waits for *cause* after a look."""
        self.looks = self.looks + 1 if cause is self.cause else 1
        self.cause, self.note, self.needed_seconds = cause, note, needed_seconds


class Pending:
    """Entries by path, and a heap of deadlines that drops stale ones when they come up."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self._heap: list[tuple[float, bytes]] = []

    @property
    def is_full(self) -> bool:
        """Whether there is no room for the entry of a new file."""
        return len(self.entries) >= MOST_ENTRIES

    def entry(self, path: bytes, now: float) -> Entry:
        """The entry of *path*; a new one is looked at once :meth:`plan` says when."""
        return self.entries.setdefault(path, Entry(now))

    def plan(self, path: bytes, entry: Entry, deadline: float) -> None:
        """Look at *path* at *deadline*, or sooner where a sooner look is planned already."""
        if not entry.deadline or deadline < entry.deadline:
            entry.deadline = deadline
            heapq.heappush(self._heap, (deadline, path))

    def wait(self, path: bytes, entry: Entry, deadline: float) -> None:
        """As :meth:`plan`; without room for it, the file is dropped until the next listing."""
        if len(self.entries) > MOST_ENTRIES:
            del self.entries[path]
        else:
            self.plan(path, entry, deadline)

    def postpone(self, path: bytes, entry: Entry, cause: Cause, note: str, now: float) -> None:
        """Look again later, with growing waits, because of a *cause* that quiet time does not end."""
        entry.note_cause(cause, note)
        self.wait(path, entry, now + backoff_seconds(RETRY_SECONDS, entry.looks, _LONGEST_RETRY_SECONDS))

    def pop_due(self, now: float, most: int) -> list[tuple[bytes, Entry]]:
        """At most *most* entries that are due; their deadlines are cleared."""
        due: list[tuple[bytes, Entry]] = []
        while len(due) < most and self.next_deadline() <= now:
            _, path = heapq.heappop(self._heap)
            entry = self.entries[path]
            entry.deadline = 0.0
            due.append((path, entry))
        return due

    def next_deadline(self) -> float:
        """The earliest planned look, stale ones dropped."""
        while self._heap:
            deadline, path = self._heap[0]
            entry = self.entries.get(path)
            if entry is not None and entry.deadline == deadline:
                return deadline
            heapq.heappop(self._heap)
        return float("inf")

    def drop_below(self, directory: bytes) -> None:
        """Forget everything below *directory*."""
        below = directory + b"/"
        self.entries = {path: entry for path, entry in self.entries.items() if not path.startswith(below)}

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self._heap.clear()
