"""The work of one inbox, a step at a time: hints, then files that are due, then a slice of a listing.

In this order a fresh file is handed over within milliseconds while a listing is under way. The time is an
argument, and no thread is needed: :class:`~dropscribe.intake.inbox.Inbox` has that.

Guarantees: a listing finds everything that hints miss. An inbox that is away is looked for until it is back,
and nothing is read from another folder in its place.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.ignored_names import OWN_FOLDER
from dropscribe.core.rules import taking_of
from dropscribe.core.settling import QuietTimes
from dropscribe.files.mounts import MountCache, MountKind
from dropscribe.intake.companions import CompanionRule
from dropscribe.intake.context import InboxContext
from dropscribe.intake.hints import Hint, HintKind
from dropscribe.intake.listing import Lister
from dropscribe.intake.owner_file import OwnerFile
from dropscribe.intake.probe import OpenInbox
from dropscribe.intake.root import TAKEN, InboxRoot, describe
from dropscribe.intake.schedule import Schedule
from dropscribe.intake.settler import Settler
from dropscribe.intake.state import MOST_WAITING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dropscribe.config.model import FolderRule
    from dropscribe.files.mounts import Mount
    from dropscribe.intake.hints import HintSource
    from dropscribe.intake.job_sink import JobSink

log = structlog.get_logger()

AVAILABLE_SECONDS = 2.0
"""How often the inbox is looked for while it is away, and looked at while it is there."""

_TAKEN_SECONDS = 0.25  # another thread of ours may be letting go of it (a reload)
_ROOT_GONE_SECONDS = 0.1
_SLICE_SECONDS = 0.005
_FIRST_REASON = "it has not been looked at yet"


class Scanner:
    """Everything that an inbox's thread does.

    Args:
        rule: The folder rule.
        note_progress: See :class:`~dropscribe.intake.context.InboxContext`.
        owner_token: See :class:`~dropscribe.intake.owner_file.OwnerFile`.

    Attributes:
        reason: Why the inbox is not available, "" if it is.
        mount: The file system it is on, while it is available.
        hints: Its hint source; None while it is polled, or away.
    """

    def __init__(
        self,
        rule: FolderRule,
        queue: JobSink,
        note_progress: Callable[[], None],
        open_source: Callable[[FolderRule, Mount], HintSource | None],
        owner_token: str | None,
    ) -> None:
        self._rule = rule
        self._queue = queue
        self._open_source = open_source
        self._taking = taking_of(rule)
        self._mounts = MountCache()
        self._path = os.fsencode(rule.inbox)
        context = InboxContext(rule.name, self._path, queue, self._mounts, note_progress)
        self.root = InboxRoot(self._path, exclusive=owner_token is not None)
        self.owner = OwnerFile(rule.name, self._path, owner_token)
        times = _quiet_times(rule)
        companions = CompanionRule(
            rule.companions, rule.companions_wait_seconds, replace(times, min_age_seconds=0.0)
        )
        self.settler = Settler(context, times, companions)
        self.lister = Lister(context, self._taking, self)
        self.schedule = Schedule(rule.rescan_seconds)
        self.hints: HintSource | None = None
        self.mount: Mount | None = None
        self.reason = _FIRST_REASON
        self.scanned_once = False
        self.found_without_hint = 0
        self.overflows = 0
        self._armed: tuple[int, int] | None = None
        self._look_for_at = 0.0
        self._now = 0.0
        self._is_behind = False
        self._walk: Iterator[None] | None = None
        self._walk_below: Iterator[None] | None = None
        self._new_folders: dict[bytes, None] = {}

    def step(self, now: float, changed: list[bytes]) -> float:
        """Do what is due.

        Args:
            now: Monotonic.
            changed: Files that changed after they had been handed over.

        Returns:
            Monotonic time of the next step; *now* where more is due at once.
        """
        self._now = now
        for path in changed:
            self.settler.note_late_change(path, now)
        if not self._is_available(now):
            return self._look_for_at
        if not self._is_behind:
            self._take_hints(now)
        has_more = self.settler.probe_due(now)
        # If it is behind, hints wait in the kernel and listings wait: both only add more to look at.
        self._is_behind = has_more and self.settler.pending.is_full
        if not has_more:
            has_more = self._list(now)
        return now if has_more else self._next_deadline(now)

    def recover(self, now: float) -> None:
        """A step failed: begin the listings anew."""
        self._walk = self._walk_below = None
        self.schedule.ask(now, full=True)

    def _next_deadline(self, now: float) -> float:
        deadlines = [self._look_for_at, self.schedule.next_at]
        due = self.settler.pending.next_deadline()
        if due is not None:
            deadlines.append(due)
        return max(now, min(deadlines))

    def _is_available(self, now: float) -> bool:
        if now >= self._look_for_at:
            reason = self.root.check()
            self._look_for_at = now + (_TAKEN_SECONDS if reason == TAKEN else AVAILABLE_SECONDS)
            identity = self.root.identity
            if identity is None:
                self.owner.forget()
            elif identity != self._armed:
                reason = self._arm(now, identity)
            elif self._needs_owner_file:
                reason = self.owner.check(now)
            if reason:
                self._set_unavailable(reason)
        return not self.reason

    @property
    def _needs_owner_file(self) -> bool:
        """Whether daemons of other machines can reach the inbox, which its lock does not stop."""
        return self.mount is not None and self.mount.kind is not MountKind.LOCAL

    def _arm(self, now: float, identity: tuple[int, int]) -> str:
        """The inbox is there, or another folder is in its place: watch it, then list it."""
        self.disarm()
        try:
            self._mounts.clear()
            with OpenInbox(self._path) as inbox:
                mount = self._mounts.of(identity[0], inbox.descriptor)
            if self._is_bare_mount_point(mount.device):
                return "another file system stands there, with none of the waiting files: is it mounted?"
            self.mount = mount
            if self._needs_owner_file and (reason := self.owner.check(now)):
                return reason
            self.hints = self._open_source(self._rule, mount)
        except OSError as error:
            return describe(error)
        self._armed = identity
        self.schedule.restart(now)
        log.info(
            "watch.armed",
            folder=self._rule.name,
            mode="native" if self.hints else "poll",
            file_system=mount.name,
        )
        log.info("inbox.available", folder=self._rule.name)
        self.reason = ""
        return ""

    def _set_unavailable(self, reason: str) -> None:
        if reason != self.reason:
            log.warning("inbox.unavailable", folder=self._rule.name, reason=reason)
        self.reason = reason
        self.disarm()

    def rest(self, now: float) -> float:
        """Stop taking files but keep owning the inbox; returns the time of the next call."""
        if self.hints is not None:
            self.hints.close()
            self.hints = None
        if not self._needs_owner_file:
            return float("inf")
        self.owner.check(now)
        return now + AVAILABLE_SECONDS

    def release(self) -> None:
        """The thread ends: let other daemons have the inbox."""
        needs_release = self._needs_owner_file
        self.disarm()
        if needs_release:
            self.owner.release()  # before the lock, which still makes our own next thread wait
        self.root.unlock()

    def disarm(self) -> None:
        """Stop watching and forget everything: the inbox is away, or the thread ends."""
        if self.hints is not None:
            self.hints.close()
        self.hints = self.mount = self._armed = self._walk = self._walk_below = None
        self._new_folders.clear()
        self.settler.pending.clear()
        self.lister.reset()
        self.scanned_once = False

    def _is_bare_mount_point(self, device: int) -> bool:
        """Whether this may be the empty folder over which a share with waiting files is usually mounted.

        Then nothing may be read from it: its emptiness would end the jobs of every waiting file. A remount
        gives the device another number, so the number alone says nothing.
        """
        if self.root.is_mount_point:
            return False
        with OpenInbox(self._path) as inbox:
            missing = 0
            for directory in self._queue.directories(self._rule.name):
                prefix = directory + b"/" if directory else b""
                for row in self._queue.live(self._rule.name, directory):
                    if row.device == device or inbox.stat(prefix + row.name) is not None:
                        return False
                    missing += 1
                    if missing >= MOST_WAITING:
                        break
            return missing > 0 and set(os.listdir(inbox.descriptor)) <= {os.fsdecode(OWN_FOLDER)}

    def _take_hints(self, now: float) -> None:
        if self.hints is None:
            return
        for hint in self.hints.read():
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
        else:
            self._lose_hints(hint.kind, now)

    def _lose_hints(self, kind: HintKind, now: float) -> None:
        if kind is HintKind.ROOT_GONE:
            self._armed = None  # the folder that is there now is watched anew
            self._look_for_at = now + _ROOT_GONE_SECONDS
            return
        self.overflows += 1
        log.warning("watch.overflowed", folder=self._rule.name)
        self.schedule.ask(now, full=True)

    def found(self, path: bytes, *, is_whole: bool) -> None:
        """See :class:`~dropscribe.intake.listing.Finder`."""
        is_news = self.settler.found(path, self._now)
        if is_news and is_whole and self.scanned_once and self.hints is not None:
            self.found_without_hint += 1

    def watch(self, directory: bytes, descriptor: int) -> bool:
        """See :class:`~dropscribe.intake.listing.Finder`."""
        return self.hints is not None and self.hints.watch(directory, descriptor)

    def pending_inodes(self) -> set[int]:
        """See :class:`~dropscribe.intake.listing.Finder`."""
        with OpenInbox(self._path) as inbox:
            return {entry.inode or _inode_at(inbox, path) for path, entry in self.settler.pending.items()}

    def is_there(self) -> bool:
        """See :class:`~dropscribe.intake.listing.Finder`."""
        return self.root.check() == "" and self.root.identity == self._armed

    def _list(self, now: float) -> bool:
        """One slice of the due listings; whether more is due."""
        for directory in self.settler.left_out:
            self.lister.list_again(directory)
        self.settler.left_out.clear()
        if self._new_folders and self._walk_below is None:
            self._walk_below = self.lister.walk_below(list(self._new_folders))
            self._new_folders.clear()
        if self._walk is None and now >= self.schedule.next_at:
            self._walk = self.lister.walk_whole(skip_unchanged=self.schedule.begin(now))
        try:
            if self._walk_below is not None and _is_over(self._walk_below):
                self._walk_below = None
            if self._walk is not None:
                self._walk_on(self._walk, now)
        except OSError as error:
            self._look_for_at = now + AVAILABLE_SECONDS
            self._set_unavailable(describe(error))
            return False
        return bool(self._walk or self._walk_below or self._new_folders)

    def _walk_on(self, walk: Iterator[None], now: float) -> None:
        began = time.perf_counter()
        is_over = _is_over(walk)
        self.schedule.worked(time.perf_counter() - began)
        if is_over:
            self._walk = None
            self.scanned_once = True
            is_seen_whole = self.hints is not None and not self.lister.unwatched
            self.schedule.end(now, is_watched=is_seen_whole, is_doubtful=self.lister.has_missing)


def _is_over(walk: Iterator[None]) -> bool:
    """Walk on for a slice of time; whether the walk has ended."""
    until = time.perf_counter() + _SLICE_SECONDS
    return all(time.perf_counter() < until for _ in walk)


def _inode_at(inbox: OpenInbox, path: bytes) -> int:
    try:
        status = inbox.stat(path)
    except OSError:
        return 0
    return status.st_ino if status else 0


def _quiet_times(rule: FolderRule) -> QuietTimes:
    return QuietTimes(
        rule.settle_seconds,
        rule.settle_incomplete_seconds,
        rule.min_age_seconds,
        ignores_writers=rule.settle_ignores_writers,
    )
