"""Report of an inbox, with the sentences that ``status`` and ``why`` show.

The inbox's thread builds these objects and hands them out; they are immutable, so any thread may read them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dropscribe.core.settling import IDLE_WRITER_SECONDS, Cause
from dropscribe.core.text.printing import duration_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.intake.scanner import Scanner

MOST_WAITING = 200

BLOCKED_WORDS = "may not be read: "  # Begins the sentence of a file that the daemon may not read
UNLISTABLE_WORDS = "cannot be listed: "  # Begins the sentence of a folder that the daemon cannot list

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
_FEW_FILES = 500  # up to so many are summarized at every step, more only at intervals
_REPORT_SECONDS = 0.5


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
        if self.cause in _SENTENCES:
            return _SENTENCES[self.cause].format(self.note)
        unchanged_seconds = max(0.0, now - self.changed_at)
        if self.cause is Cause.WRITER:
            return _describe_writer(unchanged_seconds, self.needed_seconds)
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
    found_without_hint: int = 0  # Files found by a listing without a hint, after the first listing
    overflows: int = 0  # How often hints were lost
    file_system: str = ""  # "ext4", "nfs4", …; "" until it is known
    oldest_settling_at: float | None = None  # Unix seconds when the oldest waiting file was first seen


class Reporter:
    """Takes a snapshot when the state has changed; with many files, only at intervals.

    Args:
        on_change: Called when :attr:`state`, the newest snapshot, has changed.
    """

    def __init__(self, scanner: Scanner, on_change: Callable[[], None]) -> None:
        self._scanner = scanner
        self._on_change = on_change
        self._reported: tuple[object, ...] = ()
        self._reported_at = float("-inf")
        self.state = InboxState(available=False, reason=scanner.availability.reason)

    def publish(self, now: float) -> float:
        """Publish a changed state; returns the time of the next call."""
        scanner = self._scanner
        availability, settler = scanner.availability, scanner.settler
        waiting = len(settler.pending.entries)
        turn = (availability.reason, scanner.scanned_once, waiting == 0)
        news = (
            *turn,
            *(waiting, settler.looks, scanner.overflows),
            *(len(scanner.lister.unlistable), availability.owner.is_undecided, availability.hints is None),
        )
        if news == self._reported:
            return float("inf")
        again_at = self._reported_at + _REPORT_SECONDS
        if now < again_at and waiting > _FEW_FILES and turn == self._reported[:3]:
            return again_at
        self._reported, self._reported_at = news, now
        self.state = _snapshot(scanner)
        self._on_change()
        return float("inf")


def _snapshot(scanner: Scanner) -> InboxState:
    """The state of an inbox, as it is now."""
    availability, mount = scanner.availability, scanner.availability.mount
    entries, unlistable = scanner.settler.pending.entries, scanner.lister.unlistable
    blocked = sum(entry.cause is Cause.BLOCKED for entry in entries.values())
    waiting = itertools.chain(
        (WaitingFile(path, Cause.TROUBLE, UNLISTABLE_WORDS + why) for path, why in unlistable.items()),
        (
            WaitingFile(path, entry.cause, entry.note, entry.changed_at, entry.needed_seconds)
            for path, entry in entries.items()
        ),
    )
    return InboxState(
        available=not availability.reason,
        reason=availability.reason,
        is_undecided=availability.owner.is_undecided,
        watch="native" if availability.hints else "poll",
        settling=len(entries) - blocked,
        blocked=blocked + len(unlistable),
        waiting=tuple(itertools.islice(waiting, MOST_WAITING)),
        scanned_once=scanner.scanned_once,
        waits_for_quiet=any(entry.cause.is_quiet for entry in entries.values()),
        found_without_hint=scanner.found_without_hint,
        overflows=scanner.overflows,
        file_system=mount.name if mount else "",
        oldest_settling_at=min((entry.first_seen_at for entry in entries.values()), default=None),
    )
