"""What an inbox says about itself, in the words that ``status`` and ``why`` show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dropscribe.core.settling import Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dropscribe.intake.pending import Entry

MOST_WAITING = 200


@dataclass(frozen=True, slots=True)
class InboxState:
    """One inbox at one instant.

    Attributes:
        reason: Why it is not available, "" where it is.
        is_undecided: It is not available, and within seconds it is known whether another daemon has it.
        watch: How it is watched: by events, or by listing it often.
        settling: Files noticed and not yet handed over, blocked ones aside.
        blocked: Files that may not be read.
        waiting: Up to :data:`MOST_WAITING` of both: relative path → what it waits for.
        scanned_once: The first listing has ended since the inbox was last found.
        quiet_deadline: Monotonic time when the last of the files that wait for nothing but time will
            have been quiet for long enough; None where there is none.
        found_without_hint: Files that a listing found and no hint had told of, after the first one.
        overflows: How often hints were lost.
        files_seen: Files handed over since the start.
        last_scan_seconds: Work that the last whole listing took.
        file_system: "ext4", "nfs4", …; "" while it has not been seen.
        device: st_dev of the inbox; 0 while it is not available.
        oldest_settling_at: Unix seconds when the oldest of both was first seen.
    """

    available: bool
    reason: str = ""
    is_undecided: bool = False
    watch: Literal["native", "poll"] = "poll"
    settling: int = 0
    blocked: int = 0
    waiting: Mapping[bytes, str] = field(default_factory=dict)
    scanned_once: bool = False
    quiet_deadline: float | None = None
    found_without_hint: int = 0
    overflows: int = 0
    files_seen: int = 0
    last_scan_seconds: float = 0.0
    file_system: str = ""
    device: int = 0
    oldest_settling_at: float | None = None


@dataclass(slots=True)
class PendingStats:
    """The entries of an inbox in numbers; see :class:`InboxState` for what they mean."""

    settling: int = 0
    blocked: int = 0
    quiet_deadline: float | None = None
    oldest_at: float | None = None


def count(entries: Iterable[tuple[bytes, Entry]]) -> PendingStats:
    """Everything that is to be known of all entries, in one pass: there may be many, and asked often."""
    crowd = PendingStats()
    latest, oldest = float("-inf"), float("inf")
    for _, entry in entries:
        oldest = min(oldest, entry.first_seen_at)
        if entry.cause is Cause.BLOCKED:
            crowd.blocked += 1
            continue
        crowd.settling += 1
        if entry.cause.is_quiet:
            latest = max(latest, entry.changed_at + entry.needed_seconds)
    if crowd.settling or crowd.blocked:
        crowd.oldest_at = oldest
    if latest > float("-inf"):
        crowd.quiet_deadline = latest
    return crowd


_WORDS = {
    Cause.FIRST_LOOK: "to be looked at",
    Cause.WRITER: "a writer has it open",
    Cause.BLOCKED: "may not be read: {}",
    Cause.TROUBLE: "{}",
    Cause.TWIN: "{}",
}
_BEFORE_QUIET = {
    Cause.EMPTY: "it is empty; ",
    Cause.INCOMPLETE: "its header says that more is to come; ",
}


def describe_wait(entry: Entry, now: float) -> str:
    """What one file waits for; *now* is monotonic."""
    if entry.cause in _WORDS:
        return _WORDS[entry.cause].format(entry.note)
    quiet_seconds = min(max(0.0, now - entry.changed_at), entry.needed_seconds)
    quiet = f"quiet for {quiet_seconds:.0f} s of {entry.needed_seconds:.0f} s"
    return _BEFORE_QUIET.get(entry.cause, "") + quiet
