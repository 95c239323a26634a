"""Publishes an inbox's state for other threads."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from dropscribe.core.settling import Cause
from dropscribe.intake.state import MOST_WAITING, UNLISTABLE_WORDS, InboxState, WaitingFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.intake.scanner import Scanner

_REPORT_SECONDS = 0.1
_PAUSE_PER_SECOND = 20.0
"""Pause between two snapshots, as a multiple of the time that the last one took."""

_FEW_FILES = 500  # up to so many are summarized at every step; more only at intervals


class Reporter:
    """Takes a snapshot when the state has changed; with many files, only at intervals.

    Args:
        scanner: The inbox.
        on_change: Called when :attr:`state` has changed.

    Attributes:
        state: The newest snapshot.
    """

    def __init__(self, scanner: Scanner, on_change: Callable[[], None]) -> None:
        self._scanner = scanner
        self._on_change = on_change
        self._reported: tuple[object, ...] = ()
        self._reported_at = float("-inf")
        self._taking_seconds = 0.0
        self.state = InboxState(available=False, reason=scanner.availability.reason)

    def publish(self, now: float) -> float:
        """Publish a changed state; returns the time of the next call."""
        scanner = self._scanner
        availability, settler = scanner.availability, scanner.settler
        waiting = len(settler.pending)
        turn = (availability.reason, scanner.scanned_once, waiting == 0)
        news = (
            *turn,
            *(waiting, settler.looks, scanner.overflows),
            *(len(scanner.lister.unlistable), availability.owner.is_undecided, availability.hints is None),
        )
        if news == self._reported:
            return float("inf")
        is_turn = turn != self._reported[:3]
        again_at = self._reported_at + max(_REPORT_SECONDS, _PAUSE_PER_SECOND * self._taking_seconds)
        is_soon = now < again_at
        if is_turn or not is_soon or waiting <= _FEW_FILES:
            began = time.monotonic()
            self.state = snapshot(scanner)
            self._taking_seconds = time.monotonic() - began
        if not is_turn and is_soon:
            return again_at
        self._reported, self._reported_at = news, now
        self._on_change()
        return float("inf")


def snapshot(scanner: Scanner) -> InboxState:
    """The state of an inbox, as it is now."""
    availability, settler, mount = scanner.availability, scanner.settler, scanner.availability.mount
    entries = settler.pending.items()
    blocked, quiet_until, oldest = 0, float("-inf"), float("inf")
    for _, entry in entries:
        oldest = min(oldest, entry.first_seen_at)
        if entry.cause is Cause.BLOCKED:
            blocked += 1
        elif entry.cause.is_quiet:
            quiet_until = max(quiet_until, entry.changed_at + entry.needed_seconds)
    unlistable = scanner.lister.unlistable
    waiting = itertools.chain(
        (WaitingFile(path, Cause.TROUBLE, UNLISTABLE_WORDS + why) for path, why in unlistable.items()),
        (
            WaitingFile(path, entry.cause, entry.note, entry.changed_at, entry.needed_seconds)
            for path, entry in entries
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
        quiet_deadline=None if quiet_until == float("-inf") else quiet_until,
        found_without_hint=scanner.found_without_hint,
        overflows=scanner.overflows,
        file_system=mount.name if mount else "",
        oldest_settling_at=oldest if entries else None,
    )
