"""The work of one inbox, a step at a time: hints, then files that are due, then a slice of a listing.

In this order a fresh file is handed over within milliseconds while a listing is under way. The time is an
argument, and no thread is needed: :class:`~dropscribe.intake.inbox.Inbox` has that.

Guarantees: a listing finds everything that hints miss.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import structlog

from dropscribe.core.settling import Cause
from dropscribe.intake.availability import Availability, InboxContext
from dropscribe.intake.hints import Hint, HintKind
from dropscribe.intake.listing import Lister
from dropscribe.intake.pending import MOST_WAITING, UNLISTABLE_WORDS, InboxState, WaitingFile
from dropscribe.intake.settler import Settler

log = structlog.get_logger()

_SLICE_SECONDS = 0.005  # a listing is interrupted after this time, for hints and probes
_NATIVE_SECONDS = 60.0  # from a whole listing to the next, if the inbox is watched
_POLL_SECONDS = 5.0  # the same if it is not
_CONFIRM_SECONDS = 2.0  # the same if the next one must confirm that files are missing
_REST_PER_WORK = 10.0  # the wait is at least this many times the work of the last listing
_ASKED_GAP_SECONDS = 1.0  # from the begin of a listing to one that was asked for
_ASKED_GAP_PER_WORK = 2.0


class Scanner:
    """Runs the steps of one inbox."""

    def __init__(self, context: InboxContext) -> None:
        self._context = context
        self.availability = Availability(context)
        self.settler = Settler(self._context)
        self.lister = Lister(self._context, self.availability, self.settler.pending)
        self._next_at = 0.0  # monotonic time of the next whole listing
        self._began_at = float("-inf")  # of the last one
        self._work_seconds = self._last_work_seconds = 0.0  # of listings, without the waits between slices
        self.scanned_once = False  # the first listing since the inbox became available has ended
        self.found_without_hint = 0  # files found by a listing without a hint, after the first listing
        self.overflows = 0  # how often hints were lost
        self._is_behind = False
        self._walk: Iterator[bytes | None] | None = None
        self._walk_below: Iterator[bytes | None] | None = None
        self._new_folders: dict[bytes, None] = {}  # each once, however often it is renamed to and fro

    def step(self, now: float, changed: list[bytes]) -> float:
        """Run the work due at the monotonic *now*, with files that *changed* late; returns the next time."""
        for path in changed:
            self.settler.note_late_change(path, now)
        if self.availability.check(now):
            self._forget()
            self._next_at = now
        if self.availability.reason:
            return self.availability.next_check_at
        if self.availability.hints is not None and not self._is_behind:
            for hint in self.availability.hints.read():
                self._take_hint(hint, now)
        try:
            has_more = self.settler.probe_due(now)
            # With a backlog, hints (in the kernel) and listings wait, because both only add files to probe.
            self._is_behind = has_more and self.settler.pending.is_full
            if has_more or self._list(now):
                return now
        except OSError as error:  # of the inbox itself
            self.availability.note_error(error, now)
            self._forget()
        due_at = self.settler.pending.next_deadline()
        return max(now, min(self.availability.next_check_at, self._next_at, due_at))

    def snapshot(self) -> InboxState:
        """The state of the inbox, as it is now."""
        availability, mount = self.availability, self.availability.mount
        entries, unlistable = self.settler.pending.entries, self.lister.unlistable
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
            is_undecided=availability.is_undecided,
            watch="native" if availability.hints else "poll",
            settling=len(entries) - blocked,
            blocked=blocked + len(unlistable),
            waiting=tuple(itertools.islice(waiting, MOST_WAITING)),
            scanned_once=self.scanned_once,
            waits_for_quiet=any(entry.cause.is_quiet for entry in entries.values()),
            waits_for_listing=self.lister.has_unconfirmed,
            found_without_hint=self.found_without_hint,
            overflows=self.overflows,
            file_system=mount.name if mount else "",
            oldest_settling_at=min((entry.received_at for entry in entries.values()), default=None),
        )

    def ask(self, now: float) -> None:
        """List everything soon, but at most once a second and for at most a third of the time."""
        gap_seconds = max(_ASKED_GAP_SECONDS, _ASKED_GAP_PER_WORK * self._last_work_seconds)
        self._next_at = min(self._next_at, max(now, self._began_at + gap_seconds))

    def recover(self, now: float) -> None:
        """Restart the listings after a failed step."""
        self._walk = self._walk_below = None
        self.lister.has_unconfirmed = False  # the trouble may last: run --once must not wait for its end
        self.ask(now)

    def _forget(self) -> None:
        self._walk = self._walk_below = None
        self._new_folders.clear()
        self.settler.pending.clear()
        self.lister.reset()
        self.scanned_once = False

    def _take_hint(self, hint: Hint, now: float) -> None:
        if hint.kind <= HintKind.MOVED:
            if self._context.patterns.takes(hint.path):
                self.settler.mark(hint.path, hint.kind, now)
        elif hint.kind is HintKind.FOLDER:
            if self._context.patterns.enters(hint.path.rpartition(b"/")[2]):
                self._new_folders[hint.path] = None
        elif hint.kind is HintKind.FOLDER_GONE:
            self.settler.pending.drop_below(hint.path)
        elif hint.kind is HintKind.ROOT_GONE:
            self.availability.note_root_gone(now)
        else:
            self.overflows += 1
            log.warning("watch.overflowed", folder=self._context.rule.name)
            self.ask(now)

    def _list(self, now: float) -> bool:
        """One slice of the due listings; whether more is due."""
        if self._new_folders and self._walk_below is None:
            self._walk_below = self.lister.walk_below(self._new_folders)
        if self._walk is None and now >= self._next_at:
            self._work_seconds, self._began_at, self._next_at = 0.0, now, float("inf")
            self._walk = self.lister.walk_whole()
        if self._walk_below is not None and self._is_over(self._walk_below, now):
            self._walk_below = None
        if self._walk is not None:
            self._walk_on(self._walk, now)
        return bool(self._walk or self._walk_below)

    def _walk_on(self, walk: Iterator[bytes | None], now: float) -> None:
        began = time.perf_counter()
        known = self.settler.found_count
        is_over = self._is_over(walk, now)
        self._work_seconds += time.perf_counter() - began
        has_hints = self.availability.hints is not None
        if self.scanned_once and has_hints:
            self.found_without_hint += self.settler.found_count - known
        if is_over:
            self._walk = None
            self.scanned_once = True
            self._last_work_seconds = self._work_seconds
            is_watched = has_hints and not self.lister.unwatched
            seconds = self._context.rule.rescan_seconds or (_NATIVE_SECONDS if is_watched else _POLL_SECONDS)
            if self.lister.missing:  # another listing must confirm that
                seconds = min(seconds, _CONFIRM_SECONDS)
            seconds = max(seconds, _REST_PER_WORK * self._last_work_seconds)
            # Requested while the listing ran, which may have passed the changed folder already.
            self._next_at = min(self._next_at, now + seconds)

    def _is_over(self, walk: Iterator[bytes | None], now: float) -> bool:
        """Walk on for a slice of time; whether the walk has ended."""
        until = time.perf_counter() + _SLICE_SECONDS
        for path in walk:
            if path is not None:
                self.settler.found(path, now, was_there=not self.scanned_once)
            elif time.perf_counter() >= until:
                return False
        return True
