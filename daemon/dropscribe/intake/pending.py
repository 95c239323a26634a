"""The files that have been noticed and are not settled yet, when each is looked at again, and their report.

Entries are used by the inbox's own thread only; the report is immutable, so any thread may read it, and has
the sentences that ``status`` and ``why`` show.

Guarantees: memory is bounded by :data:`MOST_ENTRIES`; a file has one entry and one live deadline however many
hints come for it, so the cost of a hint does not grow with the number of waiting files.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dropscribe.core.model import FileSnapshot
from dropscribe.core.retry import backoff_seconds
from dropscribe.core.settling import IDLE_WRITER_SECONDS, Cause, Lease, Seen
from dropscribe.core.text.printing import duration_words

if TYPE_CHECKING:  # commands that name a file's wait load no probe
    from dropscribe.intake.probe import ProbeResult

MOST_ENTRIES = 20_000
"""Limit of the entries: further files are probed once and, unless settled, found again by a listing."""

RETRY_SECONDS = 5.0
_LONGEST_RETRY_SECONDS = 60.0
MOST_WAITING = 200

FIRST_LOOK_WORDS = "to be looked at"  # The sentence of a file that the daemon has not looked at yet
BLOCKED_WORDS = "may not be read: "  # Begins the sentence of a file that the daemon may not read
UNLISTABLE_WORDS = "cannot be listed: "  # Begins the sentence of a folder that the daemon cannot list

_SENTENCES = {
    Cause.FIRST_LOOK: FIRST_LOOK_WORDS,
    Cause.BLOCKED: BLOCKED_WORDS + "{}",
    Cause.TROUBLE: "{}",
    Cause.TWIN: "{}",
    Cause.UNFINISHED: "{}",
    Cause.REFUSED: "the queue cannot store it: {}",
}
_BEFORE_QUIET = {Cause.EMPTY: "it is empty; ", Cause.INCOMPLETE: "its header says that more is to come; "}


@dataclass(slots=True, eq=False)
class Entry:
    """One file that has been noticed."""

    changed_at: float  # Monotonic time of the last observed change
    age_seconds: float = 0.0  # Age at that time by the file's own times: more than 0 only if found at rest
    snapshot: FileSnapshot | None = None  # Of the last look, or None before the first
    deadline: float = 0.0  # Monotonic time of the next look; 0 while none is planned
    is_fresh: bool = True  # A hint came since the last look, so that a change is expected
    was_there: bool = False  # Before the first listing: only its own times tell when it arrived
    # Unix seconds when it was noticed; of a file that was there at rest, its last change before that.
    received_at: float = field(default_factory=time.time)
    seen: Seen = Seen.FOUND
    cause: Cause = Cause.FIRST_LOOK
    needed_seconds: float = 0.0  # Quiet time that the file needs, where :attr:`cause` is a quiet time
    looks: int = 0  # Looks in a row that ended with the same cause; each makes the next wait longer
    note: str = ""  # Details of the cause: owner and mode, the system's error, the other file's name
    complete_at: float | None = None  # Monotonic time from which it waits for its companions; None before
    companions: list[FileSnapshot | None] | None = None  # At the last probe; None for one that was not there
    companions_changed_at: float = 0.0  # Monotonic time of their last observed change

    def note_probe(self, result: ProbeResult, now: float) -> None:
        """Record the result of a probe and the changes since the previous one."""
        if result.snapshot != self.snapshot:
            if self.snapshot is None:  # the first look may come long after the file was noticed
                self.age_seconds = max(0.0, result.age_seconds - (now - self.changed_at))
                if self.was_there:
                    self.received_at -= self.age_seconds
            else:
                self.changed_at, self.age_seconds = now, 0.0
                if not self.is_fresh:
                    self.seen = Seen.FOUND
            self.snapshot, self.complete_at, self.companions = result.snapshot, None, None
        if result.lease is Lease.WRITER:
            self.seen = Seen.FOUND  # a rename or an early close means nothing while somebody is writing
        elif self.cause is Cause.WRITER:
            self.changed_at, self.age_seconds = now, 0.0
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


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """One file that is not handed over yet, as its :class:`Entry` has it."""

    path: bytes
    cause: Cause
    note: str = ""
    changed_at: float = 0.0
    needed_seconds: float = 0.0

    def describe(self, now: float) -> str:
        """Sentence on the reason for the file's wait; *now* is monotonic."""
        if self.cause in _SENTENCES:
            return _SENTENCES[self.cause].format(self.note)
        unchanged_seconds = max(0.0, now - self.changed_at)
        if self.cause is Cause.WRITER:
            return _describe_writer(unchanged_seconds, self.needed_seconds)
        left_seconds = max(0.0, self.needed_seconds - unchanged_seconds)
        if self.cause is Cause.AGE:
            return describe_age(left_seconds)
        if self.cause is Cause.COMPANION:
            words = f"its companion {self.note} is not there or not complete"
            return f"{words}; taken without it in {left_seconds:.0f} s"
        quiet_seconds = min(unchanged_seconds, self.needed_seconds)
        quiet = f"quiet for {quiet_seconds:.0f} s of {self.needed_seconds:.0f} s"
        return _BEFORE_QUIET.get(self.cause, "") + quiet

    def is_idle_writer(self, now: float) -> bool:
        """Whether a process keeps the file open for writing without writing."""
        return self.cause is Cause.WRITER and now - self.changed_at >= IDLE_WRITER_SECONDS


def describe_age(left_seconds: float) -> str:
    """Sentence on the wait of a file that is complete and younger than ``min_age``."""
    return f"it is younger than min_age: it is taken in {duration_words(left_seconds)} unless it changes"


def _describe_writer(unchanged_seconds: float, needed_seconds: float) -> str:
    words = "a writer has it open"
    if unchanged_seconds >= IDLE_WRITER_SECONDS:
        words += f", but has not changed it for {duration_words(unchanged_seconds)}"
        words += " (`fuser FILE` names the process"
        words += ")" if needed_seconds else "; `settle: ignore_writers` takes such files)"
    if needed_seconds:
        words += f"; taken after {needed_seconds:.0f} s without a change"
    return words


@dataclass(frozen=True, slots=True)
class InboxState:
    """One inbox at one instant."""

    available: bool
    reason: str = ""  # Why it is not available, "" if it is
    is_undecided: bool = False  # It is not available, and it will soon be known whether another daemon has it
    watch: Literal["native", "poll"] = "poll"  # How it is watched: by events, or by listing it often
    settling: int = 0  # Files noticed and not yet handed over, except blocked ones
    blocked: int = 0  # Files that may not be read
    waiting: tuple[WaitingFile, ...] = ()  # Up to :data:`MOST_WAITING` of both
    scanned_once: bool = False  # The first listing since the inbox became available has ended
    waits_for_quiet: bool = False  # A file waits only for its quiet time
    waits_for_listing: bool = False  # The next listing tells whether queued files are gone
    found_without_hint: int = 0  # Files found by a listing without a hint, after the first listing
    overflows: int = 0  # How often hints were lost
    file_system: str = ""  # "ext4", "nfs4", …; "" until it is known
    oldest_settling_at: float | None = None  # ``received_at`` of the oldest waiting file
