"""Decides when a file is settled: a pure function of one probe and of the quiet time.

No single sign is enough. A lease shows local writers but not remote ones. A container's header shows a
broken-off upload, but not every format states its length. Quiet time works everywhere, but a buffered encoder
can be quiet for half a minute. Each row of the table says for how long the file must stay unchanged.

Guarantees: a file that a local writer has open is never settled, unless the rule says ``ignore_writers``. All
times are durations since the last *observed* change; the wall clock and the file's own times count for
``min_age`` alone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dropscribe.core.retry import backoff_seconds

# Quiet times where a lease excludes every writer, by the sign and by the container:
CLOSED_SECONDS = 2.0
FOUND_SECONDS = 5.0
NEARLY_SECONDS = 10.0
INCOMPLETE_SECONDS = 60.0
EMPTY_SECONDS = 60.0  # here and elsewhere
# Quiet times where it does not:
REMOTE_COMPLETE_SECONDS = 10.0
REMOTE_UNKNOWN_SECONDS = 30.0
CACHED_UNKNOWN_SECONDS = 60.0  # nfs(5): acregmax, for so long a stat may show an old size
REMOTE_INCOMPLETE_SECONDS = 300.0
# Waits until the next look at a file that has a writer:
WRITER_FIRST_SECONDS = 5.0
WRITER_MAX_SECONDS = 60.0
IDLE_WRITER_SECONDS = 300.0
"""A file that has a writer but no change for this long is reported; with ``ignore_writers`` it is taken."""
LATE_CHANGE_MAX_SECONDS = 900.0
"""Longest quiet time of a file that changes again and again after it was taken."""


class Lease(enum.Enum):
    """The answer to a request for a read lease."""

    WRITER = "writer"  # a process on this machine has it open for writing, or mapped
    FREE = "free"  # no process on this machine has it open for writing, or mapped
    UNKNOWN = "unknown"  # another user's file, or a file system with leases that do not show writers


class Completeness(enum.Enum):
    """The evidence of the file's own container about its length."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"  # data is missing, or the length has not been written yet
    NEARLY = "nearly"  # it ends so little before its stated length that its header may be wrong
    UNKNOWN = "unknown"


class Seen(enum.IntEnum):
    """The way that the file was noticed; the strongest sign since its last change."""

    FOUND = 0  # by a listing, or by its creation alone
    CLOSED = 1  # a writer closed it
    MOVED = 2  # it was renamed or moved to its name, which is how uploads commit


class Cause(enum.Enum):
    """The reason that a file waits."""

    FIRST_LOOK = "first look"
    WRITER = "writer"
    QUIET = "quiet"
    AGE = "age"  # the rule's ``min_age``
    EMPTY = "empty"
    INCOMPLETE = "incomplete"
    BLOCKED = "blocked"  # we may not open it
    TROUBLE = "trouble"  # it cannot be opened or listed, or the queue cannot take it now
    TWIN = "twin"  # a file that is its hard link, or an earlier version of it, is still in the queue
    UNFINISHED = "unfinished"  # a download program's own file stands beside it
    COMPANION = "companion"  # a file that belongs to it is not there yet
    REFUSED = "refused"  # the queue cannot store this file

    @property
    def is_quiet(self) -> bool:
        """True if the wait ends by itself after some time, so that ``run --once`` may wait for it."""
        by_time = {Cause.FIRST_LOOK, Cause.QUIET, Cause.AGE, Cause.EMPTY, Cause.INCOMPLETE, Cause.COMPANION}
        return self in by_time


@dataclass(frozen=True, slots=True)
class QuietTimes:
    """The rule's own quiet times, from its keys ``settle…`` and ``min_age``; None means the table's."""

    settle_seconds: float | None = None
    incomplete_seconds: float | None = None
    min_age_seconds: float = 0.0
    ignores_writers: bool = False


@dataclass(frozen=True, slots=True)
class Signs:
    """The evidence from one inspection of a file."""

    size_bytes: int  # 0 is a row of its own: an empty file can only be judged by its age
    lease: Lease
    completeness: Completeness
    seen: Seen
    has_reliable_leases: bool = True  # on this file system :attr:`Lease.FREE` excludes every writer
    caches_attributes: bool = False  # its stat may be up to a minute old (NFS)


@dataclass(frozen=True, slots=True)
class Settled:
    """The file is handed over; *incomplete* if its own header says that data is missing."""

    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after *seconds*; *needed_seconds* of quiet are needed in all (0: not a quiet time).

    The next look may come before the quiet time is over.
    """

    seconds: float
    cause: Cause
    needed_seconds: float = 0.0


def decide(
    signs: Signs,
    quiet_for_seconds: float,
    times: QuietTimes,
    *,
    age_seconds: float = 0.0,
    writer_looks: int = 0,
    late_changes: int = 0,
) -> Settled | Wait:
    """Whether a file is settled, or when to look again.

    Args:
        signs: From the look just taken.
        quiet_for_seconds: Since the last observed change; 0 at the first look.
        age_seconds: The file's age by its own times when this quiet time began; for ``min_age`` alone.
        writer_looks: Looks in a row, before this one, that found a writer: each doubles the wait.
        late_changes: Changes of this path after it had been handed over: each doubles the quiet time.
    """
    has_writer = signs.lease is Lease.WRITER
    if has_writer and not times.ignores_writers:
        return Wait(backoff_seconds(WRITER_FIRST_SECONDS, writer_looks + 1, WRITER_MAX_SECONDS), Cause.WRITER)
    needed, cause = _quiet_needed(signs, times)
    if needed < (left_seconds := times.min_age_seconds - age_seconds):
        needed, cause = left_seconds, Cause.AGE if cause is Cause.QUIET else cause
    if has_writer:
        needed, cause = max(needed, IDLE_WRITER_SECONDS), Cause.WRITER
    if late_changes:
        doubled = backoff_seconds(2 * max(needed, FOUND_SECONDS), late_changes, LATE_CHANGE_MAX_SECONDS)
        needed = max(needed, doubled)
    if quiet_for_seconds < needed:
        # Looks before the end of the wait: the file may become complete, or change, without a hint.
        on_the_way = max(FOUND_SECONDS, quiet_for_seconds)
        return Wait(min(needed - quiet_for_seconds, on_the_way), cause, needed)
    return Settled(incomplete=signs.size_bytes > 0 and signs.completeness is Completeness.INCOMPLETE)


def _quiet_needed(signs: Signs, times: QuietTimes) -> tuple[float, Cause]:
    is_sure = signs.lease is Lease.FREE and signs.has_reliable_leases
    if signs.size_bytes == 0:
        return _or(times.settle_seconds, EMPTY_SECONDS), Cause.EMPTY
    if signs.completeness is Completeness.INCOMPLETE:
        by_table = INCOMPLETE_SECONDS if is_sure else REMOTE_INCOMPLETE_SECONDS
        return _or(times.incomplete_seconds, by_table), Cause.INCOMPLETE
    if is_sure:
        return _quiet_where_sure(signs, times), Cause.QUIET
    if signs.completeness is Completeness.COMPLETE:
        return min(REMOTE_COMPLETE_SECONDS, _or(times.settle_seconds, REMOTE_COMPLETE_SECONDS)), Cause.QUIET
    by_table = CACHED_UNKNOWN_SECONDS if signs.caches_attributes else REMOTE_UNKNOWN_SECONDS
    return _or(times.settle_seconds, by_table), Cause.QUIET


def _quiet_where_sure(signs: Signs, times: QuietTimes) -> float:
    is_nearly = signs.completeness is Completeness.NEARLY
    if signs.completeness is Completeness.COMPLETE or (signs.seen is Seen.MOVED and not is_nearly):
        return 0.0
    by_table = CLOSED_SECONDS if signs.seen is Seen.CLOSED else FOUND_SECONDS
    return max(_or(times.settle_seconds, by_table), NEARLY_SECONDS if is_nearly else 0.0)


def _or(configured: float | None, by_table: float) -> float:
    return by_table if configured is None else configured
