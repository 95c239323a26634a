"""Noticed files → settled files in the queue.

Guarantees: a file is handed over at most once while its job lives (the queue decides that). Its entry stays
until the queue has stored the job durably, so that every file is counted somewhere at any time. A file whose
look or hand-over fails waits alone, with its reason; the others of its batch go on.
"""

from __future__ import annotations

import collections
import concurrent.futures
import os
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.backoff import backoff_seconds
from dropscribe.core.errors import AudioError, AudioForbidden, StoreError
from dropscribe.core.model import NewJob
from dropscribe.core.settling import Cause, Lease, Seen, Settled, Signs, decide
from dropscribe.intake.companions import CompanionsSeen
from dropscribe.intake.hints import HintKind
from dropscribe.intake.pending import Entry, Pending
from dropscribe.intake.probe import OpenInbox, ProbeResult

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot, Submitted
    from dropscribe.core.settling import QuietTimes
    from dropscribe.intake.companions import CompanionRule
    from dropscribe.intake.context import InboxContext

log = structlog.get_logger()

BATCH = 500
"""Most files in one call of the queue, and most looks before hints are read again."""

_CREATED_SECONDS = 0.05  # a name that was just created is about to be written to
_NAMES_HOLD_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_LONGEST_RETRY_SECONDS = 60.0
_MOST_LATE_CHANGES = 1_000
_SEEN = {HintKind.CLOSED: Seen.CLOSED, HintKind.MOVED: Seen.MOVED}


class Settler:
    """Watches the files of one inbox until they have settled, and hands them over.

    Attributes:
        left_out: Directories of files for which there was no room.
        files_seen: Files handed over since the start.
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
        self._store_is_well = True
        self._download_files: dict[bytes, frozenset[bytes]] = {}
        self._read_at = float("-inf")
        self.pending = Pending()
        self.left_out: set[bytes] = set()
        self.files_seen = 0
        self.looks = 0

    def mark(self, path: bytes, kind: HintKind, now: float) -> None:
        """A hint came for *path*."""
        entry = self._entry(path, now)
        entry.is_fresh = True
        if kind in _SEEN:
            entry.seen = _SEEN[kind]
            entry.changed_at = now
        self.pending.plan(path, entry, now + _CREATED_SECONDS if kind is HintKind.CREATED else now)

    def found(self, path: bytes, now: float) -> bool:
        """A listing found *path*, which has no live job. Returns whether it was not known yet."""
        if path in self.pending:
            return False
        self.pending.plan(path, self._entry(path, now), now)
        return True

    def note_late_change(self, path: bytes, now: float) -> None:
        """The file changed after it had been handed over: its quiet time doubles each time."""
        self._late_changes[path] = self._late_changes.pop(path, 0) + 1
        if len(self._late_changes) > _MOST_LATE_CHANGES:
            self._late_changes.popitem(last=False)
        entry = self._entry(path, now)
        entry.changed_at = now
        self.pending.plan(path, entry, now)

    def _entry(self, path: bytes, now: float) -> Entry:
        entry = self.pending.get(path)
        if entry is None:
            entry = Entry(now, self._context.wall())
            self.pending.add(path, entry)
        return entry

    def probe_due(self, now: float) -> bool:
        """Probe the files that are due and hand over the settled ones; returns whether more are due."""
        if self.pending.is_full:
            self.pending.drop_blocked()
        due = self.pending.pop_due(now, BATCH)
        if not due:
            return False
        try:
            with OpenInbox(self._context.root, self._download_files_at(now)) as inbox:
                self._hand_over(self._probe_all(inbox, due, now), now)
        except BaseException:
            for path, entry in due:
                self.pending.plan(path, entry, now + _RETRY_SECONDS)
            raise
        return len(due) == BATCH

    def _download_files_at(self, now: float) -> dict[bytes, frozenset[bytes]]:
        """Names read in the last second: a flood of files does not list its folder for each batch."""
        if now > self._read_at + _NAMES_HOLD_SECONDS:
            self._download_files, self._read_at = {}, now
        return self._download_files

    def _probe_all(
        self, inbox: OpenInbox, due: list[tuple[bytes, Entry]], now: float
    ) -> list[tuple[NewJob, Entry]]:
        looks = [(self._probe_safely(inbox, path, entry, now), entry) for path, entry in due]
        return [(job, entry) for job, entry in looks if job is not None]

    def _probe_safely(self, inbox: OpenInbox, path: bytes, entry: Entry, now: float) -> NewJob | None:
        self.looks += 1
        try:
            return self._probe(inbox, path, entry, now)
        except AudioForbidden as error:
            if entry.cause is not Cause.BLOCKED:
                log.warning("file.blocked", folder=self._context.folder, path=path, reason=error.reason)
            self._put_off(path, entry, Cause.BLOCKED, error.reason, now)
        except AudioError:  # gone, or no regular file any more
            self.pending.drop(path)
        except OSError as error:
            self._put_off(path, entry, Cause.TROUBLE, f"cannot be opened: {error.strerror}", now)
        except Exception as error:
            if entry.cause is not Cause.REFUSED:
                log.exception("file.refused", folder=self._context.folder, path=path)
            self._put_off(path, entry, Cause.REFUSED, str(error), now)
        finally:
            self._context.note_progress()
        return None

    def _probe(self, inbox: OpenInbox, path: bytes, entry: Entry, now: float) -> NewJob | None:
        result = inbox.probe(path, self._context.mounts)
        self._note_changes(entry, result, now)
        signs = Signs(
            result.snapshot.size_bytes,
            result.lease,
            result.completeness,
            entry.seen,
            result.mount.has_reliable_leases,
            result.mount.caches_attributes,
        )
        verdict = decide(
            signs,
            now - entry.changed_at,
            self._times,
            writer_looks=entry.looks if entry.cause is Cause.WRITER else 0,
            late_changes=self._late_changes.get(path, 0),
        )
        if not isinstance(verdict, Settled):
            entry.note_cause(verdict.cause)
            entry.needed_seconds = verdict.needed_seconds
            self._wait(path, entry, now + verdict.seconds)
            return None
        if beside := inbox.find_download_file(path):
            name, program = beside
            reason = f"{os.fsdecode(name)!r} beside it says that {program} has not finished"
            self._put_off(path, entry, Cause.UNFINISHED, reason, now)
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
            entry.companions = CompanionsSeen(now)
        wait = self._companions.wait_of(inbox, self._context.mounts, path, entry.companions, now)
        if wait is not None:
            entry.note_cause(Cause.COMPANION, repr(os.fsdecode(wait.name)))
            entry.needed_seconds = wait.until - entry.changed_at
            self._wait(path, entry, now + wait.look_seconds)
        return wait is not None

    def _note_changes(self, entry: Entry, result: ProbeResult, now: float) -> None:
        if result.signature != entry.signature:
            if entry.signature is not None:
                entry.changed_at = now
                if not entry.is_fresh:
                    entry.seen = Seen.FOUND
            entry.signature, entry.companions = result.signature, None
        if result.lease is Lease.WRITER:
            entry.seen = Seen.FOUND  # a rename or an early close means nothing while somebody is writing
        elif entry.cause is Cause.WRITER:
            entry.changed_at = now
        entry.is_fresh = False

    def _wait(self, path: bytes, entry: Entry, deadline: float) -> None:
        if len(self.pending) > self.pending.most_entries:
            self.pending.drop(path)
            self.left_out.add(path.rpartition(b"/")[0])
        else:
            self.pending.plan(path, entry, deadline)

    def _put_off(self, path: bytes, entry: Entry, cause: Cause, note: str, now: float) -> None:
        entry.note_cause(cause, note)
        self._wait(path, entry, now + backoff_seconds(_RETRY_SECONDS, entry.looks, _LONGEST_RETRY_SECONDS))

    def _hand_over(self, settled: list[tuple[NewJob, Entry]], now: float) -> None:
        if not settled:
            return
        try:
            results = self._context.queue.submit([job for job, _ in settled])
        except StoreError as error:
            self._note_store(error.reason)
            for job, entry in settled:
                self._put_off(
                    job.path, entry, Cause.TROUBLE, f"the queue cannot take it: {error.reason}", now
                )
        except concurrent.futures.CancelledError:
            raise  # the daemon is stopping
        except Exception as error:  # noqa: BLE001  # one file may be at fault, and must not hold up the others
            self._hand_over_each(settled, error, now)
        else:
            self._note_store("")
            for (job, entry), result in zip(settled, results, strict=True):
                self._handed_over(job, entry, result, now)

    def _note_store(self, reason: str) -> None:
        if reason and self._store_is_well:
            log.warning("inbox.handover_failed", folder=self._context.folder, reason=reason)
        self._store_is_well = not reason

    def _hand_over_each(self, settled: list[tuple[NewJob, Entry]], error: Exception, now: float) -> None:
        """The batch failed, and not because of the queue: hand its files over one by one."""
        if len(settled) > 1:
            for item in settled:
                self._hand_over([item], now)
            return
        ((job, entry),) = settled
        if entry.cause is not Cause.REFUSED:
            log.error("file.refused", folder=self._context.folder, path=job.path, exc_info=error)
        self._put_off(job.path, entry, Cause.REFUSED, str(error), now)

    def _handed_over(self, job: NewJob, entry: Entry, result: Submitted, now: float) -> None:
        self.files_seen += result.is_new
        other = result.live_path
        if result.is_in_flight:
            note = "an earlier state of it is being transcribed"
            self._put_off(job.path, entry, Cause.TWIN, note, now)
        elif result.is_new or other is None or other == job.path:
            self.pending.drop(job.path)
        elif self._is_same_file(other, job.snapshot):
            # A hard link of a file that has a job: taken when that job has ended.
            self._put_off(job.path, entry, Cause.TWIN, f"it is the same file as {os.fsdecode(other)!r}", now)
        else:
            self._context.queue.relocate(job, other)
            self.pending.drop(job.path)

    def _is_same_file(self, path: bytes, snapshot: FileSnapshot) -> bool:
        try:
            with OpenInbox(self._context.root) as inbox:
                status = inbox.stat(path)
        except OSError:
            return False
        return status is not None and (status.st_dev, status.st_ino) == (snapshot.device, snapshot.inode)
