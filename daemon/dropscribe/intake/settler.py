"""Noticed files → settled files, which are handed over to the queue.

Guarantees: a file is handed over at most once while its job is live (the queue ensures that). If a probe
fails, only its file waits, with the reason; the others of its batch go on.
"""

from __future__ import annotations

import collections
import os
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import AudioError, AudioForbidden
from dropscribe.core.model import NewJob
from dropscribe.core.settling import Cause, Seen, Wait, decide
from dropscribe.intake.companions import CompanionState
from dropscribe.intake.hand_over import HandOver
from dropscribe.intake.pending import RETRY_SECONDS, Entry, Pending
from dropscribe.intake.probe import OpenInbox
from dropscribe.intake.watch.hints import HintKind

if TYPE_CHECKING:
    from dropscribe.core.settling import QuietTimes
    from dropscribe.intake.companions import CompanionRule
    from dropscribe.intake.context import InboxContext

log = structlog.get_logger()

_BATCH = 500  # most files in one call of the queue, and most looks before hints are read again
_CREATED_SECONDS = 0.05  # a name that was just created is about to be written to
_NAMES_HOLD_SECONDS = 1.0
_ROOM_SECONDS = 1.0  # making room looks at all entries
_MOST_LATE_CHANGES = 1_000
_SEEN = {HintKind.CLOSED: Seen.CLOSED, HintKind.MOVED: Seen.MOVED}


class Settler:
    """Watches the files of one inbox until they have settled, and hands them over.

    Attributes:
        found_count: Files since the start that a listing found before any hint.
        looks: Looks since the start; a new number means that something may have changed.

    Args:
        context: The inbox.
        times: The rule's own quiet times.
        companions: The files that recordings wait for.
    """

    def __init__(self, context: InboxContext, times: QuietTimes, companions: CompanionRule) -> None:
        self._context = context
        self._times = times
        self._companions = companions
        self._late_changes: collections.OrderedDict[bytes, int] = collections.OrderedDict()
        self._download_files: dict[bytes, frozenset[bytes]] = {}
        self._read_at = float("-inf")
        self._made_room_at = float("-inf")
        self.pending = Pending()
        self._hand_over = HandOver(context, self.pending)
        self.found_count = 0
        self.looks = 0

    def mark(self, path: bytes, kind: HintKind, now: float) -> None:
        """A hint came for *path*."""
        entry = self.pending.entry(path, now)
        entry.is_fresh = True
        if kind in _SEEN:
            entry.seen = _SEEN[kind]
            entry.changed_at = now
        self.pending.plan(path, entry, now + _CREATED_SECONDS if kind is HintKind.CREATED else now)

    def found(self, path: bytes, now: float) -> None:
        """A listing found *path*, which has no live job."""
        if path not in self.pending:
            self.pending.plan(path, self.pending.entry(path, now), now)
            self.found_count += 1

    def note_late_change(self, path: bytes, now: float) -> None:
        """The file changed after it had been handed over: its quiet time doubles each time."""
        self._late_changes[path] = self._late_changes.pop(path, 0) + 1
        if len(self._late_changes) > _MOST_LATE_CHANGES:
            self._late_changes.popitem(last=False)
        entry = self.pending.entry(path, now)
        entry.changed_at = now
        self.pending.plan(path, entry, now)

    def probe_due(self, now: float) -> bool:
        """Probe the files that are due and hand over the settled ones; returns whether more are due."""
        if self.pending.is_full and now > self._made_room_at + _ROOM_SECONDS:
            self.pending.drop_blocked()
            self._made_room_at = now
        due = self.pending.pop_due(now, _BATCH)
        if not due:
            return False
        try:
            with OpenInbox(self._context.root, self._download_files_at(now)) as inbox:
                looks = [(self._probe_safely(inbox, path, entry, now), entry) for path, entry in due]
                if settled := [(job, entry) for job, entry in looks if job is not None]:
                    self._hand_over.submit(settled, now)
        except BaseException:
            for path, entry in due:
                self.pending.plan(path, entry, now + RETRY_SECONDS)
            raise
        return len(due) == _BATCH

    def _download_files_at(self, now: float) -> dict[bytes, frozenset[bytes]]:
        """Names read in the last second, so that a flood of files does not list its folder for each batch."""
        if now > self._read_at + _NAMES_HOLD_SECONDS:
            self._download_files, self._read_at = {}, now
        return self._download_files

    def _probe_safely(self, inbox: OpenInbox, path: bytes, entry: Entry, now: float) -> NewJob | None:
        self.looks += 1
        try:
            return self._probe(inbox, path, entry, now)
        except AudioForbidden as error:
            if entry.cause is not Cause.BLOCKED:
                log.warning("file.blocked", folder=self._context.folder, path=path, reason=error.reason)
            self.pending.postpone(path, entry, Cause.BLOCKED, error.reason, now)
        except AudioError:  # gone, or no regular file any more
            self.pending.drop(path)
        except OSError as error:
            self.pending.postpone(path, entry, Cause.TROUBLE, f"cannot be opened: {error.strerror}", now)
        except Exception as error:
            if entry.cause is not Cause.REFUSED:
                log.exception("file.refused", folder=self._context.folder, path=path)
            self.pending.postpone(path, entry, Cause.REFUSED, str(error), now)
        finally:
            self._context.note_progress()
        return None

    def _probe(self, inbox: OpenInbox, path: bytes, entry: Entry, now: float) -> NewJob | None:
        """The job of *path* if it has settled; else it waits."""
        result = inbox.probe(path, self._context.mounts)
        entry.note_probe(result, now)
        verdict = decide(
            result.signs(entry.seen),
            now - entry.changed_at,
            self._times,
            writer_looks=entry.looks if entry.cause is Cause.WRITER else 0,
            late_changes=self._late_changes.get(path, 0),
        )
        if isinstance(verdict, Wait):
            entry.note_cause(verdict.cause, needed_seconds=verdict.needed_seconds)
            self.pending.wait(path, entry, now + verdict.seconds)
            return None
        if beside := inbox.find_download_file(path):
            name, program = beside
            reason = f"{os.fsdecode(name)!r} beside it says that {program} has not finished"
            self.pending.postpone(path, entry, Cause.UNFINISHED, reason, now)
            return None
        if self._waits_for_companion(inbox, path, entry, now):
            return None
        return NewJob(
            self._context.folder,
            path,
            result.snapshot,
            entry.first_seen_at,
            incomplete=verdict.incomplete,
            stable_inodes=result.mount.stable_inodes,
        )

    def _waits_for_companion(self, inbox: OpenInbox, path: bytes, entry: Entry, now: float) -> bool:
        if entry.companions is None:
            entry.companions = CompanionState(now)
        wait = self._companions.wait_of(inbox, self._context.mounts, path, entry.companions, now)
        if wait is None:
            return False
        entry.note_cause(Cause.COMPANION, repr(os.fsdecode(wait.name)), wait.until - entry.changed_at)
        self.pending.wait(path, entry, now + wait.look_seconds)
        return True
