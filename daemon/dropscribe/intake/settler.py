"""Files that were noticed → settled files in the queue.

Guarantees: a file is handed over at most once while its job lives (the queue is asked, not a memory of
ours); its entry stays until the queue has it durably, so that no instant counts it nowhere; a hint
costs one open and a few reads, whatever else waits.
"""

from __future__ import annotations

import collections
import os
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import AudioForbidden, AudioMissing, AudioUnsafe, StoreError
from dropscribe.core.model import NewJob
from dropscribe.core.settling import Cause, Lease, QuietTimes, Seen, Settled, Signs, decide
from dropscribe.intake.hints import HintKind
from dropscribe.intake.pending import Entry, Pending
from dropscribe.intake.probe import Look, look_at

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot, Submitted
    from dropscribe.files.mounts import Mount
    from dropscribe.intake.inbox_context import Place

log = structlog.get_logger()

BATCH = 500
"""Most files in one call of the queue, and most looks before hints are read again."""

_CREATED_SECONDS = 0.05  # who creates a name is about to write: the first look would only meet him
_TROUBLE_SECONDS = 5.0
_TROUBLE_MAX_SECONDS = 60.0
_MOST_DISTRUSTED = 1_000
_SEEN = {HintKind.CLOSED: Seen.CLOSED, HintKind.MOVED: Seen.MOVED}


class Settler:
    """Watches over the files of one inbox until they have settled.

    Args:
        place: The inbox.
        times: The rule's own quiet times.
    """

    def __init__(self, place: Place, times: QuietTimes) -> None:
        self._place = place
        self._times = times
        self._distrusted: collections.OrderedDict[bytes, int] = collections.OrderedDict()
        self._store_is_well = True
        self.pending = Pending()
        self.left_out: set[bytes] = set()  # directories of files that found no room
        self.files_seen = 0

    def mark(self, path: bytes, kind: HintKind, now: float) -> None:
        """A hint came for *path*, or a listing found it (as CREATED, long ago: see :meth:`found`)."""
        entry = self._entry(path, now)
        entry.is_fresh = True
        if kind in _SEEN:
            entry.seen = _SEEN[kind]
            entry.changed_at = now
        self.pending.plan(path, entry, now + _CREATED_SECONDS if kind is HintKind.CREATED else now)

    def found(self, path: bytes, now: float) -> bool:
        """A listing met *path*, which has no live job. Returns whether nobody had told of it."""
        if path in self.pending:
            return False
        self.pending.plan(path, self._entry(path, now), now)
        return True

    def distrust(self, path: bytes, now: float) -> None:
        """The file changed after it had been handed over: from now on it must be quiet twice as long."""
        self._distrusted[path] = self._distrusted.pop(path, 0) + 1
        if len(self._distrusted) > _MOST_DISTRUSTED:
            self._distrusted.popitem(last=False)
        entry = self._entry(path, now)
        entry.changed_at = now
        self.pending.plan(path, entry, now)

    def _entry(self, path: bytes, now: float) -> Entry:
        entry = self.pending.get(path)
        if entry is None:
            entry = Entry(now, self._place.wall())
            self.pending.add(path, entry)
        return entry

    def look_at_due(self, now: float) -> bool:
        """Look at files whose time has come, hand over what has settled; whether more are due."""
        if self.pending.is_full:
            self.pending.drop_blocked()
        due = self.pending.pop_due(now, BATCH)
        settled: list[tuple[NewJob, Entry]] = []
        try:
            for path, entry in due:
                job = self._look(path, entry, now)
                if job is not None:
                    settled.append((job, entry))
            if settled:
                self._hand_over(settled, now)
        except BaseException:
            for path, entry in due:
                self.pending.plan(path, entry, now + _TROUBLE_SECONDS)
            raise
        return len(due) == BATCH

    def _look(self, path: bytes, entry: Entry, now: float) -> NewJob | None:
        try:
            look = look_at(self._place.root, path)
            mount = self._place.mounts.of(look.snapshot.device, os.path.dirname(self._place.path(path)))
        except (AudioMissing, AudioUnsafe):
            self.pending.drop(path)
            return None
        except AudioForbidden as error:
            self._blocked(path, entry, error.reason, now)
            return None
        except OSError as error:
            self._put_off(path, entry, Cause.TROUBLE, f"cannot be opened: {error.strerror}", now)
            return None
        self._note_changes(entry, look, now)
        return self._judge(path, entry, look, mount, now)

    def _note_changes(self, entry: Entry, look: Look, now: float) -> None:
        if look.signature != entry.signature:
            if entry.signature is not None:
                entry.changed_at = now
                if not entry.is_fresh:
                    entry.seen = Seen.FOUND
            entry.signature = look.signature
        if look.lease is Lease.WRITER:
            # A rename or an early close says nothing once somebody is writing.
            entry.changed_at, entry.seen = now, Seen.FOUND
        elif entry.cause is Cause.WRITER:
            entry.changed_at = now
            entry.writer_looks = 0
        entry.is_fresh = False

    def _judge(self, path: bytes, entry: Entry, look: Look, mount: Mount, now: float) -> NewJob | None:
        signs = Signs(
            look.snapshot.size_bytes,
            look.lease,
            look.completeness,
            entry.seen,
            mount.trusts_leases,
            mount.caches_attributes,
        )
        verdict = decide(
            signs,
            now - entry.changed_at,
            self._times,
            writer_looks=entry.writer_looks,
            distrust=self._distrusted.get(path, 0),
        )
        if isinstance(verdict, Settled):
            return NewJob(
                self._place.folder,
                path,
                look.snapshot,
                entry.first_seen_at,
                incomplete=verdict.incomplete,
                stable_inodes=mount.stable_inodes,
            )
        entry.cause, entry.needed_seconds = verdict.cause, verdict.needed_seconds
        entry.writer_looks += verdict.cause is Cause.WRITER
        self._wait(path, entry, now + verdict.seconds)
        return None

    def _wait(self, path: bytes, entry: Entry, deadline: float) -> None:
        if len(self.pending) > self.pending.most_entries:
            self.pending.drop(path)
            self.left_out.add(path.rpartition(b"/")[0])
        else:
            self.pending.plan(path, entry, deadline)

    def _blocked(self, path: bytes, entry: Entry, reason: str, now: float) -> None:
        if entry.cause is not Cause.BLOCKED:
            log.warning("file.blocked", folder=self._place.folder, path=path, reason=reason)
        self._put_off(path, entry, Cause.BLOCKED, reason, now)

    def _put_off(self, path: bytes, entry: Entry, cause: Cause, note: str, now: float) -> None:
        is_again = entry.cause is cause
        entry.cause, entry.note = cause, note
        entry.writer_looks = entry.writer_looks + 1 if is_again else 0
        self._wait(path, entry, now + min(_TROUBLE_SECONDS * 2**entry.writer_looks, _TROUBLE_MAX_SECONDS))

    def _hand_over(self, settled: list[tuple[NewJob, Entry]], now: float) -> None:
        try:
            results = self._place.queue.submit([job for job, _ in settled])
        except StoreError as error:
            if self._store_is_well:
                log.warning("inbox.handover_failed", folder=self._place.folder, reason=error.reason)
            self._store_is_well = False
            for job, entry in settled:
                self._put_off(
                    job.path, entry, Cause.TROUBLE, f"the queue cannot take it: {error.reason}", now
                )
            return
        self._store_is_well = True
        for (job, entry), result in zip(settled, results, strict=True):
            self._handed_over(job, entry, result, now)

    def _handed_over(self, job: NewJob, entry: Entry, result: Submitted, now: float) -> None:
        self.files_seen += result.is_new
        other = result.live_path
        if result.is_new or other is None or other == job.path:
            self.pending.drop(job.path)
        elif _is_same_file(self._place.path(other), job.snapshot):
            # Two names of one file: the second is taken when the first is done.
            self._put_off(job.path, entry, Cause.TWIN, f"it is the same file as {os.fsdecode(other)!r}", now)
        else:
            self._place.queue.relocate(self._place.folder, other, job.path)
            self.pending.drop(job.path)


def _is_same_file(path: bytes, snapshot: FileSnapshot) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (snapshot.device, snapshot.inode)
