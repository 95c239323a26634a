"""Noticed files → settled files → jobs in the queue.

Guarantees: a file's entry stays until the queue has stored its job durably, so that every file is counted
somewhere at any time. A file is handed over at most once while its job is live (the queue ensures that). If a
file cannot be probed, or the queue refuses it, only this file waits, with the reason.
"""

from __future__ import annotations

import os
from dataclasses import replace

import structlog

from dropscribe.core.errors import AudioError, AudioForbidden, StoreError
from dropscribe.core.model import NewJob, Submitted
from dropscribe.core.naming import companion_name, spellings
from dropscribe.core.settling import Cause, Seen, Wait, decide
from dropscribe.files.mounts import MountCache
from dropscribe.intake.availability import InboxContext
from dropscribe.intake.hints import HintKind
from dropscribe.intake.pending import RETRY_SECONDS, Entry, Pending
from dropscribe.intake.probe import OpenInbox, ProbeResult

log = structlog.get_logger()

_BATCH = 500  # most files in one call of the queue, and most looks before hints are read again
_CREATED_SECONDS = 0.05  # a name that was just created is about to be written to
_NAMES_HOLD_SECONDS = 1.0
_LONGEST_LOOK_SECONDS = 5.0  # between two looks for companions
_ROOM_SECONDS = 1.0  # making room looks at all entries
_MOST_LATE_CHANGES = 1_000
_SEEN = {HintKind.CLOSED: Seen.CLOSED, HintKind.MOVED: Seen.MOVED}


class Settler:
    """Watches the files of one inbox until they have settled, and hands them over."""

    def __init__(self, context: InboxContext) -> None:
        self._context = context
        self._times = context.rule.quiet_times
        self._companion_times = replace(self._times, min_age_seconds=0.0)
        self._late_changes: dict[bytes, int] = {}
        self._download_files: dict[bytes, frozenset[bytes]] = {}
        self._read_at = float("-inf")
        self._made_room_at = float("-inf")
        self._store_is_well = True
        self.pending = Pending()
        self.found_count = 0  # files since the start that a listing found before any hint
        self.looks = 0  # since the start; after a look a file's wait reads differently

    def mark(self, path: bytes, kind: HintKind, now: float) -> None:
        """Note a hint for *path*."""
        entry = self.pending.entry(path, now)
        entry.is_fresh = True
        if kind in _SEEN:
            entry.seen = _SEEN[kind]
            entry.changed_at, entry.age_seconds = now, 0.0
        self.pending.plan(path, entry, now + _CREATED_SECONDS if kind is HintKind.CREATED else now)

    def found(self, path: bytes, now: float, *, was_there: bool) -> None:
        """Note *path*, which a listing found and which has no live job; *was_there*: the first listing."""
        if path not in self.pending.entries:
            entry = self.pending.entry(path, now)
            entry.was_there = was_there
            self.pending.plan(path, entry, now)
            self.found_count += 1

    def note_late_change(self, path: bytes, now: float) -> None:
        """The file changed after it had been handed over: its quiet time doubles each time."""
        self._late_changes[path] = self._late_changes.pop(path, 0) + 1
        if len(self._late_changes) > _MOST_LATE_CHANGES:
            del self._late_changes[next(iter(self._late_changes))]
        entry = self.pending.entry(path, now)
        entry.changed_at, entry.age_seconds = now, 0.0
        self.pending.plan(path, entry, now)

    def probe_due(self, now: float) -> bool:
        """Probe the files that are due and hand over the settled ones; returns whether more are due."""
        pending = self.pending
        if pending.is_full and now > self._made_room_at + _ROOM_SECONDS:
            known = pending.entries.items()
            # A listing finds files again that may not be read.
            pending.entries = {path: entry for path, entry in known if entry.cause is not Cause.BLOCKED}
            self._made_room_at = now
        due = pending.pop_due(now, _BATCH)
        if not due:
            return False
        # A flood of files does not list its folder for each batch.
        if now > self._read_at + _NAMES_HOLD_SECONDS:
            self._download_files, self._read_at = {}, now
        try:
            with OpenInbox(self._context.root, self._download_files) as inbox:
                looks = [(self._probe_safely(inbox, path, entry, now), entry) for path, entry in due]
                if settled := [(job, entry) for job, entry in looks if job is not None]:
                    self._hand_over(inbox, settled, now)
        except BaseException:
            for path, entry in due:
                pending.plan(path, entry, now + RETRY_SECONDS)
            raise
        return len(due) == _BATCH

    def _probe_safely(self, inbox: OpenInbox, path: bytes, entry: Entry, now: float) -> NewJob | None:
        self.looks += 1
        try:
            return self._probe(inbox, path, entry, now)
        except AudioForbidden as error:
            if entry.cause is not Cause.BLOCKED:
                log.warning("file.blocked", folder=self._context.rule.name, path=path, reason=error.reason)
            self.pending.postpone(path, entry, Cause.BLOCKED, error.reason, now)
        except AudioError:  # gone, or no regular file any more
            del self.pending.entries[path]
        except OSError as error:
            self.pending.postpone(path, entry, Cause.TROUBLE, f"cannot be opened: {error.strerror}", now)
        except Exception as error:  # noqa: BLE001
            self._refuse(path, entry, error, now)
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
            age_seconds=entry.age_seconds,
            writer_looks=entry.looks if entry.cause is Cause.WRITER else 0,
            late_changes=self._late_changes.get(path, 0),
        )
        if isinstance(verdict, Wait):
            entry.note_cause(verdict.cause, needed_seconds=verdict.needed_seconds)
            self.pending.wait(path, entry, now + verdict.seconds)
            return None
        if beside := inbox.find_download_file(path):
            note = f"{os.fsdecode(beside[0])!r} beside it says that {beside[1]} has not finished"
            self.pending.postpone(path, entry, Cause.UNFINISHED, note, now)
            return None
        complete_at = entry.complete_at = now if entry.complete_at is None else entry.complete_at
        until = complete_at + self._context.rule.companions_wait_seconds
        if now < until and (missing := self._missing_companion(inbox, path, entry, now)):
            look_seconds = min(max(1.0, (now - complete_at) / 2), _LONGEST_LOOK_SECONDS)
            entry.note_cause(Cause.COMPANION, repr(os.fsdecode(missing)), until - entry.changed_at)
            self.pending.wait(path, entry, min(until, now + look_seconds))
            return None
        return NewJob(
            self._context.rule.name,
            path,
            result.snapshot,
            entry.received_at,
            incomplete=verdict.incomplete,
            stable_inodes=result.mount.stable_inodes,
        )

    def _missing_companion(self, inbox: OpenInbox, path: bytes, entry: Entry, now: float) -> bytes | None:
        """The companion of the recording *path* that is not there, or not complete."""
        patterns = self._context.rule.companions
        looks = [_look_at(inbox, self._context.mounts, path, pattern) for pattern in patterns]
        snapshots = [look.snapshot if look else None for look in looks]
        if snapshots != entry.companions:
            entry.companions, entry.companions_changed_at = snapshots, now
        times, quiet_seconds = self._companion_times, now - entry.companions_changed_at
        for pattern, look in zip(patterns, looks, strict=True):
            if look is None or isinstance(decide(look.signs(Seen.CLOSED), quiet_seconds, times), Wait):
                return companion_name(pattern.encode(), path.rpartition(b"/")[2])
        return None

    def _refuse(self, path: bytes, entry: Entry, error: Exception, now: float) -> None:
        if entry.cause is not Cause.REFUSED:
            log.error("file.refused", folder=self._context.rule.name, path=path, exc_info=error)
        self.pending.postpone(path, entry, Cause.REFUSED, str(error), now)

    def _hand_over(self, inbox: OpenInbox, settled: list[tuple[NewJob, Entry]], now: float) -> None:
        """Submit settled files; those that the queue does not take wait for the next try."""
        try:
            with self._context.asking_queue():
                results = self._context.queue.submit([job for job, _ in settled])
        except StoreError as error:
            self._note_store(error.reason, now)
            for job, entry in settled:
                note = f"the queue cannot take it: {error.reason}"
                self.pending.postpone(job.path, entry, Cause.TROUBLE, note, now)
        except Exception as error:  # noqa: BLE001
            if len(settled) == 1:
                ((job, entry),) = settled
                self._refuse(job.path, entry, error, now)
            else:  # one of them may be the cause and must not delay the others
                for item in settled:
                    self._hand_over(inbox, [item], now)
        else:
            self._note_store("", now)
            for (job, entry), result in zip(settled, results, strict=True):
                self._note_result(inbox, job, entry, result, now)

    def _note_store(self, reason: str, now: float) -> None:
        if reason and self._store_is_well:
            log.warning("inbox.handover_failed", folder=self._context.rule.name, reason=reason)
        elif not reason and not self._store_is_well:
            for path, entry in self.pending.entries.items():
                if entry.cause is Cause.TROUBLE:
                    self.pending.plan(path, entry, now)
        self._store_is_well = not reason

    def _note_result(
        self, inbox: OpenInbox, job: NewJob, entry: Entry, result: Submitted, now: float
    ) -> None:
        other, note = result.live_path, ""
        if result.is_in_flight:
            note = "an earlier state of it is being transcribed"
        elif not result.is_new and other not in {None, job.path}:
            if _is_same_file(inbox, other, job):
                # A hard link of a file that has a job: taken when that job has ended.
                note = f"it is the same file as {os.fsdecode(other)!r}"
            else:
                with self._context.asking_queue():
                    self._context.queue.relocate(job, other)
        if note:
            self.pending.postpone(job.path, entry, Cause.TWIN, note, now)
        else:
            del self.pending.entries[job.path]


def _is_same_file(inbox: OpenInbox, path: bytes, job: NewJob) -> bool:
    try:
        status = inbox.stat(path)
    except OSError:
        return False
    return status is not None and (status.st_dev, status.st_ino) == (job.snapshot.device, job.snapshot.inode)


def _look_at(inbox: OpenInbox, mounts: MountCache, path: bytes, pattern: str) -> ProbeResult | None:
    directory, _, audio = path.rpartition(b"/")
    for spelling in spellings(pattern):
        try:
            return inbox.probe(os.path.join(directory, companion_name(spelling, audio)), mounts)
        except (AudioError, OSError):
            continue  # absent, no regular file, or not to be read
    return None
