"""Report of an inbox, with the sentences that ``status`` and ``why`` show.

The inbox's thread builds these objects and hands them out; they are immutable, so any thread may read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dropscribe.core.settling import IDLE_WRITER_SECONDS, Cause
from dropscribe.core.text.printing import duration_words

MOST_WAITING = 200


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """One file that is not handed over yet; see :class:`~dropscribe.intake.pending.Entry`."""

    path: bytes
    cause: Cause
    note: str = ""
    changed_at: float = 0.0
    needed_seconds: float = 0.0

    def describe(self, now: float) -> str:
        """Sentence on the reason for the file's wait; *now* is monotonic."""
        unchanged_seconds = max(0.0, now - self.changed_at)
        if self.cause is Cause.WRITER:
            return _describe_writer(unchanged_seconds, self.needed_seconds)
        if self.cause in _SENTENCES:
            return _SENTENCES[self.cause].format(self.note)
        if self.cause is Cause.COMPANION:
            left_seconds = max(0.0, self.needed_seconds - unchanged_seconds)
            words = f"its companion {self.note} is not there or not complete"
            return f"{words}; taken without it in {left_seconds:.0f} s"
        quiet_seconds = min(unchanged_seconds, self.needed_seconds)
        quiet = f"quiet for {quiet_seconds:.0f} s of {self.needed_seconds:.0f} s"
        return _BEFORE_QUIET.get(self.cause, "") + quiet

    def is_idle_writer(self, now: float) -> bool:
        """Whether a process keeps the file open for writing without writing."""
        return self.cause is Cause.WRITER and now - self.changed_at >= IDLE_WRITER_SECONDS


BLOCKED_WORDS = "may not be read: "
"""Begins the sentence of a file that the daemon may not read."""

UNLISTABLE_WORDS = "cannot be listed: "
"""Begins the sentence of a folder that the daemon cannot list."""

_SENTENCES = {
    Cause.FIRST_LOOK: "to be looked at",
    Cause.BLOCKED: BLOCKED_WORDS + "{}",
    Cause.TROUBLE: "{}",
    Cause.TWIN: "{}",
    Cause.UNFINISHED: "{}",
    Cause.REFUSED: "the queue cannot store it: {}",
}
_BEFORE_QUIET = {
    Cause.EMPTY: "it is empty; ",
    Cause.INCOMPLETE: "its header says that more is to come; ",
}


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
    """One inbox at one instant.

    Attributes:
        reason: Why it is not available, "" if it is.
        is_undecided: It is not available, and it will soon be known whether another daemon has it.
        watch: How it is watched: by events, or by listing it often.
        settling: Files noticed and not yet handed over, except blocked ones.
        blocked: Files that may not be read.
        waiting: Up to :data:`MOST_WAITING` of both.
        scanned_once: The first listing since the inbox became available has ended.
        quiet_deadline: Monotonic time when the last of the files that only wait for quiet will have been
            quiet for long enough; None if there is none.
        found_without_hint: Files found by a listing without a hint, after the first listing.
        overflows: How often hints were lost.
        file_system: "ext4", "nfs4", …; "" until it is known.
        oldest_settling_at: Unix seconds when the oldest waiting file was first seen.
    """

    available: bool
    reason: str = ""
    is_undecided: bool = False
    watch: Literal["native", "poll"] = "poll"
    settling: int = 0
    blocked: int = 0
    waiting: tuple[WaitingFile, ...] = ()
    scanned_once: bool = False
    quiet_deadline: float | None = None
    found_without_hint: int = 0
    overflows: int = 0
    file_system: str = ""
    oldest_settling_at: float | None = None
