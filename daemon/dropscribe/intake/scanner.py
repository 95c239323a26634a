"""The work of one inbox, a step at a time: hints, then files that are due, then a slice of a listing.

In this order a fresh file is handed over within milliseconds while a listing is under way. The time is an
argument, and no thread is needed: :class:`~dropscribe.intake.inbox.Inbox` has that.

Guarantees: a listing finds everything that hints miss.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.rules import taking_of
from dropscribe.core.settling import QuietTimes
from dropscribe.files.mounts import MountCache
from dropscribe.intake.availability import Availability
from dropscribe.intake.companions import CompanionRule
from dropscribe.intake.context import InboxContext
from dropscribe.intake.listing import Lister
from dropscribe.intake.schedule import Schedule
from dropscribe.intake.settler import Settler
from dropscribe.intake.watch.hints import Hint, HintKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dropscribe.config.model import FolderRule
    from dropscribe.files.mounts import Mount
    from dropscribe.intake.context import JobSink
    from dropscribe.intake.watch.hints import HintSource

log = structlog.get_logger()

_SLICE_SECONDS = 0.005


class Scanner:
    """Runs the steps of one inbox.

    Args:
        rule: The folder rule.
        note_progress: See :class:`~dropscribe.intake.context.InboxContext`.
        open_source: See :class:`~dropscribe.intake.availability.Availability`, as *owner_token*.

    Attributes:
        scanned_once: The first listing since the inbox became available has ended.
        found_without_hint: Files found by a listing without a hint, after the first listing.
        overflows: How often hints were lost.
    """

    def __init__(
        self,
        rule: FolderRule,
        queue: JobSink,
        note_progress: Callable[[], None],
        open_source: Callable[[FolderRule, Mount], HintSource | None],
        owner_token: str | None,
    ) -> None:
        self._folder = rule.name
        self._taking = taking_of(rule)
        context = InboxContext(rule.name, os.fsencode(rule.inbox), queue, MountCache(), note_progress)
        times = QuietTimes(
            rule.settle_seconds,
            rule.settle_incomplete_seconds,
            rule.min_age_seconds,
            ignores_writers=rule.settle_ignores_writers,
        )
        companions = CompanionRule(
            rule.companions, rule.companions_wait_seconds, replace(times, min_age_seconds=0.0)
        )
        self.availability = Availability(rule, context, open_source, owner_token)
        self.settler = Settler(context, times, companions)
        self.lister = Lister(context, self._taking, self.availability, self.settler.pending, self._found)
        self.schedule = Schedule(rule.rescan_seconds)
        self.scanned_once = False
        self.found_without_hint = 0
        self.overflows = 0
        self._now = 0.0
        self._is_behind = False
        self._walk: Iterator[None] | None = None
        self._walk_below: Iterator[None] | None = None
        self._new_folders: dict[bytes, None] = {}

    def step(self, now: float, changed: list[bytes]) -> float:
        """Run the work that is due.

        Args:
            now: Monotonic.
            changed: Files that changed after they had been handed over.

        Returns:
            Monotonic time of the next step; *now* where more is due at once.
        """
        self._now = now
        for path in changed:
            self.settler.note_late_change(path, now)
        if self.availability.check(now):
            self._forget()
            self.schedule.restart(now)
        if self.availability.reason:
            return self.availability.next_check_at
        if not self._is_behind:
            self._take_hints(now)
        has_more = self.settler.probe_due(now)
        # With a backlog, hints (in the kernel) and listings wait, because both only add files to probe.
        self._is_behind = has_more and self.settler.pending.is_full
        if not has_more:
            has_more = self._list(now)
        return now if has_more else self._next_deadline(now)

    def recover(self, now: float) -> None:
        """Restart the listings after a failed step."""
        self._walk = self._walk_below = None
        self.schedule.ask(now)

    def _forget(self) -> None:
        self._walk = self._walk_below = None
        self._new_folders.clear()
        self.settler.pending.clear()
        self.lister.reset()
        self.scanned_once = False

    def _next_deadline(self, now: float) -> float:
        deadlines = [self.availability.next_check_at, self.schedule.next_at]
        due = self.settler.pending.next_deadline()
        if due is not None:
            deadlines.append(due)
        return max(now, min(deadlines))

    def _take_hints(self, now: float) -> None:
        if self.availability.hints is not None:
            for hint in self.availability.hints.read():
                self._take_hint(hint, now)

    def _take_hint(self, hint: Hint, now: float) -> None:
        if hint.kind <= HintKind.MOVED:
            if self._taking.takes(hint.path):
                self.settler.mark(hint.path, hint.kind, now)
        elif hint.kind is HintKind.FOLDER:
            if self._taking.enters(hint.path.rpartition(b"/")[2]):
                self._new_folders[hint.path] = None
        elif hint.kind is HintKind.FOLDER_GONE:
            self.lister.forget(hint.path)
            self.settler.pending.drop_below(hint.path)
        elif hint.kind is HintKind.ROOT_GONE:
            self.availability.note_root_gone(now)
        else:
            self.overflows += 1
            log.warning("watch.overflowed", folder=self._folder)
            self.schedule.ask(now)

    def _found(self, path: bytes) -> None:
        self.settler.found(path, self._now)

    def _list(self, now: float) -> bool:
        """One slice of the due listings; whether more is due."""
        left_out = self.settler.pending.left_out
        while left_out:
            self.lister.list_again(left_out.pop())
        if self._new_folders and self._walk_below is None:
            self._walk_below = self.lister.walk_below(list(self._new_folders))
            self._new_folders.clear()
        if self._walk is None and now >= self.schedule.next_at:
            self._walk = self.lister.walk_whole(skips_unchanged=self.schedule.begin(now))
        try:
            if self._walk_below is not None and _is_over(self._walk_below):
                self._walk_below = None
            if self._walk is not None:
                self._walk_on(self._walk, now)
        except OSError as error:
            self.availability.note_error(error, now)
            self._forget()
            return False
        return bool(self._walk or self._walk_below or self._new_folders)

    def _walk_on(self, walk: Iterator[None], now: float) -> None:
        began = time.perf_counter()
        known = self.settler.found_count
        is_over = _is_over(walk)
        self.schedule.worked(time.perf_counter() - began)
        has_hints = self.availability.hints is not None
        if self.scanned_once and has_hints:
            self.found_without_hint += self.settler.found_count - known
        if is_over:
            self._walk = None
            self.scanned_once = True
            is_seen_whole = has_hints and not self.lister.unwatched
            self.schedule.end(now, is_watched=is_seen_whole, is_doubtful=bool(self.lister.missing))


def _is_over(walk: Iterator[None]) -> bool:
    """Walk on for a slice of time; whether the walk has ended."""
    until = time.perf_counter() + _SLICE_SECONDS
    return all(time.perf_counter() < until for _ in walk)
